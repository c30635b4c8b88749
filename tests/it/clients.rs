//! The commands that are clients of a running server, against one: import, verify, demo.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stack::{Setup, Stack};
use crate::support::until;

fn demo_file(name: &str) -> String {
    format!("{}/demo/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

crate::both_setups!(a_days_orders_can_be_imported_again_without_counting_twice);

async fn a_days_orders_can_be_imported_again_without_counting_twice(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    let import = |arguments: &[&str]| {
        let output = stack.command().arg("import").args(arguments).args(["--url", &server.url]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    import(&["products", &demo_file("products.csv")]);
    for _ in 0..2 {
        import(&["events", &demo_file("orders.csv"), "--shift-to-now"]);
        let lines = std::fs::read_to_string(demo_file("orders.csv")).unwrap();
        // Every line of the file is an event; none is in the ledger twice.
        until("the orders are in the ledger", Duration::from_secs(20), async || {
            stack.count("SELECT count(*) FROM events").await == lines.lines().count() as u64 - 1
        })
        .await;
        server.assert_verified().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_are_named_and_the_others_loaded() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let products = write(
        "products.csv",
        "id,name,price,currency\na,Mug,1.50,GBP\n,Nameless,1,GBP\nb,\"Two, or more\",2,GBP\nd,\"Two\nlines\",2,GBP\nc,Bad,x,GBP\n",
    );
    let events = write(
        "events.csv",
        "id,signal,product_id,user_id,occurred_at,reverses\n1,ORDER,a,,,\n2,DANCE,a,,,\n3,ORDER,nowhere,,,\n4,VIEW,b,,not-a-time,\n5,VIEW,b,,,\n",
    );
    let import =
        |kind: &str, file: &str| stack.command().args(["import", kind, file, "--url", &server.url]).output().unwrap();
    let output = import("products", &products);
    assert_eq!(output.status.code(), Some(1));
    for line in [3, 5, 7] {
        assert!(said(&output).contains(&format!("products.csv:{line}: ")), "{}", said(&output));
    }
    let output = import("events", &events);
    assert_eq!(output.status.code(), Some(1));
    for line in [3, 4, 5] {
        assert!(said(&output).contains(&format!("events.csv:{line}: ")), "{}", said(&output));
    }
    until("the good rows are ranked", Duration::from_secs(5), async || {
        server.ranking(10).await == [("a".into(), 0.6), ("b".into(), 0.1)]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_once_only_and_what_spreadsheets_write_is_loaded() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let piped = |arguments: &[&str], bytes: &[u8]| {
        let mut import = stack.command();
        import.arg("import").args(arguments).args(["--url", &server.url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = import.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let table = "sep=;\r\nID;Name;Price;Currency\r\na;Mug;1.50;GBP\r\nb;Jug;;\r\n";
    let table: Vec<u8> = format!("\u{feff}{table}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let told = piped(&["products", "-"], &table);
    assert!(told.contains("standard input: 2 products recorded"), "{told}");
    // More than a pipe holds, so that it has to be kept somewhere.
    let early = (0..9_999).map(|n| format!("e{n},VIEW,a,2010-12-06T08:00:00Z\n")).collect::<String>();
    let events = format!("id,signal,product_id,occurred_at\n{early}last,ORDER,b,2010-12-06T23:00:00Z\n");
    let told = piped(&["events", "--shift-to-now", "/dev/stdin"], events.as_bytes());
    assert!(told.contains("/dev/stdin: 10000 events recorded"), "{told}");
    // Those without a shift of their own were recorded by then: they have another time, and the same ids.
    let told = piped(&["events", "-"], events.as_bytes());
    assert!(told.contains("standard input: 0 events recorded, 10000 there before"), "{told}");
    let ids = "SELECT count(*) FROM events WHERE id LIKE '%last%'";
    until("the last order is in the ledger", Duration::from_secs(20), async || stack.count(ids).await == 1).await;
    let ranked = server.ranking(10).await;
    assert!(ranked.contains(&("b".into(), 0.6)), "the last order is of now: {ranked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_moves_the_board_and_leaves_nothing_behind() {
    let stack = Stack::new(Setup::Embedded).await;
    let scratch = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/graphql");
    let mut demo = stack
        .command()
        .args(["demo", "--listen", &format!("127.0.0.1:{port}")])
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let http = reqwest::Client::new();
    let query = json!({ "query": "{ ranking(first: 5) { nodes { score product { name like { count } } } } }" });
    let top = async || -> Value {
        let Ok(answer) = http.post(&url).json(&query).send().await else { return Value::Null };
        answer.json::<Value>().await.map_or(Value::Null, |answer| answer["data"]["ranking"]["nodes"].clone())
    };
    let mut first = Value::Null;
    until("five products are ranked", Duration::from_secs(30), async || {
        first = top().await;
        first.as_array().is_some_and(|nodes| nodes.len() == 5)
    })
    .await;
    until("the board moves", Duration::from_secs(30), async || top().await != first).await;
    assert!(Command::new("kill").arg(demo.id().to_string()).status().unwrap().success());
    let mut status = None;
    until("the demo ends", Duration::from_secs(15), async || {
        status = demo.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(0));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its folder is gone");
}
