//! Documents and bodies made to cost the server much: each is refused by its name, at next to no cost, and nothing else
//! suffers from it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stack::{Server, Setup, Stack};
use crate::support::until;

/// Each is sent so often that the clock's ticks of 10 ms don't matter.
const TIMES: u32 = 20;
/// CPU of the server for one, in all of its threads.
const CPU_MAX: Duration = Duration::from_millis(50);

/// CPU time that a process has used, user and system, from the 14th and 15th field of `stat`.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is the program's name, in parentheses, and may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    // SAFETY: sysconf reads a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// Fragments that spread the next one twice.
fn doubling(levels: usize) -> String {
    let spread = |n: usize| format!("fragment F{n} on Query {{ ...F{} ...F{} }} ", n + 1, n + 1);
    let fragments: String = (0..levels).map(spread).collect();
    format!("{{ ...F0 }} {fragments} fragment F{levels} on Query {{ __typename }}")
}

fn nested(levels: usize) -> String {
    format!("{{ ranking {{ nodes {{ {} rank {} }} }} }}", "product { entry { ".repeat(levels), "} }".repeat(levels))
}

fn list(levels: usize) -> String {
    format!("{{ products(ids: {}{}) {{ id }} }}", "[".repeat(levels), "]".repeat(levels))
}

/// Name, body, and what refuses it: a limit's name, or the code where it is no limit.
fn corpus() -> Vec<(String, Vec<u8>, &'static str)> {
    let many = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    let documents = [
        ("deep", nested(6), "depth"),
        ("deeper", nested(14), "nesting"),
        ("deep beyond the parser", nested(400), "brackets"),
        ("inline fragments in each other", format!("{{ {} a {} }}", "... {".repeat(45), "}".repeat(45)), "nesting"),
        ("wide", format!("{{ {} }}", "a ".repeat(1_990)), "BAD_USER_INPUT"),
        ("wider", format!("{{ {} }}", "a ".repeat(30_000)), "tokens"),
        ("aliased", format!("{{ {} }}", many(100, &|n| format!("a{n}: ranking {{ totalCount }} "))), "aliases"),
        (
            "alias of introspection",
            format!("{{ {} }}", many(31, &|n| format!("a{n}: __schema {{ types {{ name }} }}"))),
            "aliases",
        ),
        ("directives on a field", format!("{{ viewer {{ id {} }} }}", "@skip(if: false) ".repeat(200)), "directives"),
        ("unknown directives", format!("{{ viewer {{ id {} }} }}", "@a ".repeat(900)), "directives"),
        (
            "directives in fragments",
            format!("{{ {} }} fragment F on Query {{ __typename @skip(if: false) }}", "...F ".repeat(300)),
            "directives",
        ),
        ("twice at 12 levels", doubling(12), "nodes"),
        ("twice at 20 levels", doubling(20), "nodes"),
        ("twice at 60 levels", doubling(60), "nesting"),
        ("twice at 20 levels, spread by nobody", doubling(20).replacen("{ ...F0 }", "{ __typename }", 1), "nodes"),
        ("a circle", "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }".to_owned(), "BAD_USER_INPUT"),
        ("a circle of its own", "{ ...A } fragment A on Query { ...A }".to_owned(), "BAD_USER_INPUT"),
        ("a circle aside", "{ __typename } fragment A on Query { ...A ...A }".to_owned(), "BAD_USER_INPUT"),
        (
            "a chain",
            format!(
                "{{ ...F0 }} {} fragment F150 on Query {{ __typename }}",
                many(150, &|n| format!("fragment F{n} on Query {{ ...F{} }} ", n + 1))
            ),
            "nesting",
        ),
        (
            "pages of pages",
            "{ board { periods(first: 100) { nodes { entries(first: 100) { nodes { product { name } } } } } } }"
                .to_owned(),
            "cost",
        ),
        ("a huge name", format!("{{ {} }}", "a".repeat(900_000)), "documentLength"),
        ("a huge string", format!("{{ product(id: \"{}\") {{ id }} }}", "x".repeat(900_000)), "documentLength"),
        ("a huge number", format!("{{ ranking(first: {}) {{ totalCount }} }}", "9".repeat(60_000)), "BAD_USER_INPUT"),
        ("a huge comment", format!("{{ __typename }} # {}", "x".repeat(900_000)), "documentLength"),
        ("a string without an end", format!("{{ product(id: \"{} ", "\\\"".repeat(20_000)), "BAD_USER_INPUT"),
        (
            "a block string without an end",
            format!("{{ product(id: \"\"\"{} ", "\\\"\"\"".repeat(10_000)),
            "BAD_USER_INPUT",
        ),
        ("nothing but spaces", " ".repeat(60_000), "BAD_USER_INPUT"),
        ("lists in lists", list(48), "BAD_USER_INPUT"),
        ("lists in lists beyond the parser", list(900), "brackets"),
        ("open brackets", format!("{{ a(b: {}", "[{a:".repeat(400)), "brackets"),
        (
            "a type in brackets",
            format!("query($a: {}Int{}) {{ __typename }}", "[".repeat(500), "]".repeat(500)),
            "brackets",
        ),
        ("many operations", many(200, &|n| format!("query Q{n} {{ __typename }} ")), "BAD_USER_INPUT"),
        (
            "many variables",
            format!("query({}) {{ __typename }}", many(400, &|n| format!("$v{n}: Int "))),
            "BAD_USER_INPUT",
        ),
        (
            "fields that contradict each other",
            format!("{{ {} }}", many(150, &|n| format!("ranking(first: {n}) {{ totalCount }} "))),
            "BAD_USER_INPUT",
        ),
    ];
    let variables = |variables: Value| json!({ "query": "query($ids: [ID!]!) { products(ids: $ids) { id } }", "variables": variables });
    let ids: Vec<_> = (0..50_000).map(|n| n.to_string()).collect();
    let nest = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let in_variables = |levels: usize| {
        format!(
            r#"{{"query":"query($ids: [ID!]!) {{ products(ids: $ids) {{ id }} }}","variables":{{"ids":{}}}}}"#,
            nest(levels)
        )
    };
    let bodies = [
        ("JSON lists in lists", in_variables(100).into_bytes(), "BAD_USER_INPUT"),
        ("JSON lists beyond any parser", in_variables(200_000).into_bytes(), "BAD_USER_INPUT"),
        ("nothing but open lists", format!("{{\"a\":{}", "[".repeat(500_000)).into_bytes(), "BAD_USER_INPUT"),
        (
            "a batch",
            format!("[{}]", vec![r#"{"query":"{ __typename }"}"#; 5_000].join(",")).into_bytes(),
            "BAD_USER_INPUT",
        ),
        ("many ids", variables(json!({ "ids": ids })).to_string().into_bytes(), "variables"),
        (
            "a variable of another kind",
            variables(json!({ "ids": "x".repeat(500_000) })).to_string().into_bytes(),
            "BAD_USER_INPUT",
        ),
        ("no UTF-8", b"{\"query\":\"{ __typename \xff\xfe }\"}".to_vec(), "BAD_USER_INPUT"),
        ("half a character", b"{\"query\":\"{ __typename \\ud800 }\"}".to_vec(), "BAD_USER_INPUT"),
        ("a zero byte", b"{\"query\":\"{ __typename \\u0000 }\"}".to_vec(), "BAD_USER_INPUT"),
        ("more than a body may hold", vec![b'x'; 1_100_000], "body"),
    ];
    let documents = documents
        .into_iter()
        .map(|(name, document, by)| (name.to_owned(), json!({ "query": document }).to_string().into_bytes(), by));
    documents.chain(bodies.into_iter().map(|(name, body, by)| (name.to_owned(), body, by))).collect()
}

async fn send(server: &Server, body: Vec<u8>) -> Value {
    let request = server.http.post(format!("{}/graphql", server.url)).header("content-type", "application/json");
    request.body(body).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_refused_by_name_and_costs_next_to_nothing() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let small = send(&server, json!({ "query": doubling(5) }).to_string().into_bytes()).await;
    assert_eq!(small, json!({ "data": { "__typename": "Query" } }), "what is small enough may be odd");
    let mut wrong = Vec::new();
    for (name, body, refused_by) in corpus() {
        let before = cpu(server.pid());
        for _ in 0..TIMES {
            let answer = send(&server, body.clone()).await;
            let extensions = &answer["errors"][0]["extensions"];
            let by = if extensions["code"] == "LIMIT_EXCEEDED" { &extensions["limit"] } else { &extensions["code"] };
            if by != refused_by || answer.get("data").is_some_and(|data| !data.is_null()) {
                let answer: String = answer.to_string().chars().take(500).collect();
                wrong.push(format!("{name} is not refused by {refused_by}: {answer}"));
                break;
            }
        }
        let each = (cpu(server.pid()) - before) / TIMES;
        println!("{each:>12?} {name}");
        if each > CPU_MAX {
            wrong.push(format!("{name} takes {each:?} of CPU"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!server.log().contains("panic"), "{}", server.log());
    let after = server.graphql("ann", "{ viewer { id } ranking { totalCount } }", json!({})).await;
    assert_eq!(after, json!({ "viewer": { "id": "ann" }, "ranking": { "totalCount": 0 } }));
}

/// Lists in the deepest places, with whatever takes several steps to resolve there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deepest_documents_fit_on_a_stack() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    server.with_products(30).await;
    for product in 0..30 {
        server.toggle(&format!("user-{product}"), &format!("p{product}"), None).await;
    }
    let row = "explanation { lines { note } } movement { places } product { like { viewerHasLiked } currentRank }";
    for path in ["ranking(first: 100) { period {", "board { current { board { current {"] {
        let document = format!(
            "{{ {path} around(productId: \"p1\", radius: 10) {{ {row} }} entries(first: 20) {{ nodes {{ {row} }} }} {} }}",
            "}".repeat(path.matches('{').count() - path.matches('}').count())
        );
        until("the board shows what was liked", Duration::from_secs(20), async || {
            let answer = send(&server, json!({ "query": document }).to_string().into_bytes()).await;
            answer["errors"].is_null()
        })
        .await;
    }
}
