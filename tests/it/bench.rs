//! `acclaim bench` against real servers: what its tables say, what it checks, and how it fails.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;

const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";

/// Runs `acclaim bench`, with nothing of this process's environment.
fn bench(url: &str, arguments: &str, token: Option<&str>) -> Output {
    command(url, arguments).envs(token.map(|token| ("ACCLAIM_TOKEN", token))).output().unwrap()
}

fn command(url: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acclaim"));
    command.arg("bench").args(arguments.split(' ')).args(["--url", url]).env_clear().stdin(Stdio::null());
    command
}

/// The table of a run that found nothing wrong.
fn table(output: &Output) -> String {
    let (table, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{table}\n{error}");
    table.into_owned()
}

/// What stands beside a name in a table.
fn figure<'a>(table: &'a str, name: &str) -> &'a str {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix("  "));
    line.unwrap_or_else(|| panic!("no {name:?} in\n{table}")).trim()
}

/// The number that a figure begins with.
fn count(table: &str, name: &str) -> u64 {
    let digits = figure(table, name).split([' ', '.']).next().unwrap().replace(',', "");
    digits.parse().unwrap_or_else(|_| panic!("no number at {name:?} in\n{table}"))
}

async fn embedded() -> (Stack, Server) {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    (stack, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_receive_what_happens_and_end_at_the_ranking() {
    let (_stack, server) = embedded().await;
    // More products than are shown, so that some enter and leave.
    let arguments = "fanout --subscribers 12 --checked 4 --products 8 --top 5 --seconds 2 --events-per-second 200";
    let output = bench(&server.url, arguments, None);
    let table = table(&output);
    assert!(table.starts_with("fanout: board daily, 12 subscribers to the first 5, 2 s\n"), "{table}");
    let (updates, deliveries) = (count(&table, "updates"), count(&table, "deliveries"));
    // Subscribers may be told of several states at once, and not all of them of the same ones.
    assert!(updates >= 3 && deliveries >= updates * 6, "{table}");
    assert!(count(&table, "events recorded") >= 50, "{table}");
    assert_eq!((figure(&table, "gaps"), figure(&table, "snapshots")), ("0", "12 INITIAL"), "{table}");
    assert!(figure(&table, "event to frame").starts_with("p50 "), "{table}");
    assert!(figure(&table, "server memory, all opened").ends_with(" for each subscriber"), "{table}");
    assert!(figure(&table, "server CPU").contains(" µs for each delivery"), "{table}");
    let checked = "4 views against the ranking, a last event at all 12 subscribers";
    assert_eq!(figure(&table, "checked"), checked, "{table}");

    // The board has products now, and a crowd that only waits needs none.
    let table = self::table(&bench(&server.url, "fanout --idle --subscribers 20 --seconds 1", None));
    assert_eq!(figure(&table, "snapshots"), "20 INITIAL", "{table}");
    assert_eq!(figure(&table, "checked"), "20 views against the ranking", "{table}");
    assert!(!table.contains("events recorded"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_find_the_likes_that_they_were_told_of() {
    let (_stack, server) = embedded().await;
    let output = bench(&server.url, "likes --clients 4 --users 50 --products 10 --seconds 1", None);
    let table = table(&output);
    assert!(table.starts_with("likes: 4 clients, 50 users, 10 products, 1 s\n"), "{table}");
    assert!(count(&table, "likes") > 0 && figure(&table, "latency").contains(", p99 "), "{table}");
    // The server waits 10 s for the ledger before it says less.
    assert_eq!(figure(&table, "COMMITTED"), "100.0 %", "{table}");
    assert!(figure(&table, "server CPU").contains(" µs for each like"), "{table}");
    assert!(count(&table, "checked") > 0, "{table}");
    let viewer = "{ product(id: \"bench-00001\") { like { count } } }";
    assert!(server.graphql("reader", viewer, json!({})).await["product"]["like"]["count"].is_u64());
    server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_read_and_in_order() {
    let (_stack, server) = embedded().await;
    let output = bench(&server.url, "rankings --clients 3 --products 25 --first 10 --seconds 1", None);
    let table = table(&output);
    assert!(table.starts_with("rankings: board daily, 3 clients, pages of 10, 1 s\n"), "{table}");
    let (requests, places) = (count(&table, "requests"), count(&table, "places"));
    assert!(requests > 3 && places > requests * 5 && places <= requests * 10, "{table}");
    assert!(figure(&table, "latency").starts_with("p50 "), "{table}");
    assert_eq!(figure(&table, "checked"), "ranks and scores of every page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attacker_has_a_budget_and_a_bystander_another() {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = ["--trusted-proxy", "127.0.0.1", "--budget-burst", "1000"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    let output = bench(&server.url, "hostile --products 30 --clients 5 --seconds 2 --search-seconds 3", None);
    // How slow a page may be is for a machine that does nothing else.
    let (table, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(table.starts_with("hostile: ") && table.contains(", 20 taken\n"), "{table}{faults}");
    assert!(figure(&table, "many connections").contains("RATE_LIMITED "), "{table}");
    assert!(figure(&table, "its text").starts_with("{a0:"), "{table}");
    assert!(!faults.contains("refused") && !faults.contains("COMMITTED"), "{faults}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_prints_the_table_so_far() {
    let (_stack, server) = embedded().await;
    let arguments = "fanout --subscribers 3 --products 5 --seconds 600";
    let mut child = command(&server.url, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The products come up in a call or two; what changes more often than that is being measured.
    let (mut last, mut changes) = (Vec::new(), 0);
    until("the board moves", Duration::from_secs(60), async || {
        let now = server.ranking(5).await;
        changes += usize::from(now != last);
        last = now;
        changes > 5
    })
    .await;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    until("it ends", Duration::from_secs(30), async || child.try_wait().unwrap().is_some()).await;
    let output = child.wait_with_output().unwrap();
    let table = table(&output);
    assert!(table.starts_with("fanout: ") && figure(&table, "checked").starts_with("3 views"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_never_arrives_is_a_fault() {
    let (_stack, server) = embedded().await;
    let proxy = lossy_proxy(&server.url, 3).await;
    // Read in full or not: the chain of each is followed.
    for checked in ["1", "2"] {
        let arguments = format!("fanout --subscribers 2 --checked {checked} --products 5 --seconds 1");
        let output = bench(&proxy, &arguments, None);
        let (table, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(1), "{table}\n{error}");
        assert_eq!(figure(&table, "gaps"), "2", "{table}\n{error}");
        for subscriber in 0..2 {
            let said = format!("acclaim: subscriber {subscriber}: gap: the delta to seq ");
            assert!(error.lines().any(|line| line.starts_with(&said)), "{error}");
        }
    }
}

/// The address of a proxy that swallows, on each WebSocket, the delta with this number, counted from 1.
async fn lossy_proxy(url: &str, lost: usize) -> String {
    let server = url.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            // Either side may hang up at any time.
            tokio::spawn(async move { pass_frames(BufReader::new(from_server), &mut to_client, lost).await.ok() });
        }
    });
    format!("http://{address}")
}

async fn pass_frames(mut from: BufReader<OwnedReadHalf>, to: &mut OwnedWriteHalf, lost: usize) -> std::io::Result<u64> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && from.read_line(&mut head).await? > 0 {}
    to.write_all(head.as_bytes()).await?;
    let mut deltas = 0;
    while head.starts_with("HTTP/1.1 101") {
        // RFC 6455, section 5.2: what a server sends is not masked.
        let mut frame = vec![0; 2];
        from.read_exact(&mut frame).await?;
        let len = match frame[1] {
            126 => {
                let len = from.read_u16().await?;
                frame.extend(len.to_be_bytes());
                usize::from(len)
            }
            127 => panic!("a frame of over 64 KB"),
            len => usize::from(len),
        };
        let begins = frame.len();
        frame.resize(begins + len, 0);
        from.read_exact(&mut frame[begins..]).await?;
        deltas += usize::from(frame.windows(10).any(|window| window == b"BoardDelta"));
        if deltas == lost {
            deltas += 1;
        } else {
            to.write_all(&frame).await?;
        }
    }
    tokio::io::copy(&mut from, to).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_work_is_said_in_one_line() {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = vec!["--jwt-secret".into(), SECRET.into()];
    let server = stack.serve().await;
    let token = |role: &str| {
        let mut command = stack.command();
        let output =
            command.args(["token", "--user", "b", "--role", role]).env("ACCLAIM_JWT_SECRET", SECRET).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (user, ingest) = (token("user"), token("ingest"));
    let away = "http://127.0.0.1:9";
    for (url, arguments, token, code, said) in [
        (away, "fanout", None, 1, "http://127.0.0.1:9 does not answer"),
        (&server.url, "fanout --products 5", Some("wrong"), 1, "UNAUTHENTICATED"),
        (&server.url, "fanout --board yearly", Some(&user), 1, "has no board yearly"),
        (&server.url, "fanout --products 5", Some(&user), 1, "--role ingest"),
        (&server.url, "rankings", Some(&user), 1, "--products 20"),
        (&server.url, "rankings --server-pid 4194305", Some(&user), 1, "no such process"),
        (&server.url, "fanout --max-rate 0", None, 2, "ACCLAIM_BENCH_MAX_RATE"),
        (&server.url, "likes --users 3", None, 2, "ACCLAIM_BENCH_USERS"),
        (&server.url, "likes", Some(&user), 2, "ACCLAIM_JWT_SECRET"),
    ] {
        let output = bench(url, arguments, token.map(|token: &str| token));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {error}");
        assert!(error.contains(said) && error.lines().count() == 1, "{arguments}: {error}");
        assert!(output.stdout.is_empty(), "{arguments}");
    }
    // The same with what it takes: one token for subscribers and events, and tokens of their own for those who like.
    let output = bench(&server.url, "fanout --subscribers 2 --products 5 --seconds 1", Some(&ingest));
    assert_eq!(count(&table(&output), "gaps"), 0);
    let mut likes = command(&server.url, "likes --clients 2 --users 20 --products 5 --seconds 1");
    let table = table(&likes.env("ACCLAIM_JWT_SECRET", SECRET).output().unwrap());
    assert!(count(&table, "likes") > 0 && count(&table, "checked") > 0, "{table}");
    let anonymous = server.try_graphql(None, TOGGLE, json!({ "product": "bench-00001" })).await.unwrap();
    assert_eq!(anonymous["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
}
