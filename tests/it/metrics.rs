//! `/metrics`: what it counts, who may read it, that it is what parsers expect, and that the dashboard and the alerts ask for
//! nothing that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use crate::auth::{guarded, guarded_with, token};
use crate::support::live::Socket;
use crate::support::stack::{RECORD, Server, Setup, Stack};
use crate::support::{metric, until};

crate::both_setups!(what_happens_is_counted, what_is_told_of_dead_letters_has_its_price);

const LIMIT: Duration = Duration::from_secs(20);

async fn scrape(server: &Server) -> String {
    let answer = server.http.get(format!("{}/metrics", server.url)).send().await.unwrap();
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    answer.text().await.unwrap()
}

/// Waits until lines have these values.
async fn until_told(server: &Server, expected: &[(&str, f64)]) -> String {
    let mut text = String::new();
    until(&format!("{expected:?} are told"), LIMIT, async || {
        text = scrape(server).await;
        expected.iter().all(|(name, expected)| metric(&text, name) == Some(*expected))
    })
    .await;
    text
}

async fn what_happens_is_counted(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(2).await;
    let mut socket = Socket::connect(&server.url, json!({})).await;
    socket.watch_board(10).await;
    for user in ["ann", "bob", "cid"] {
        server.toggle(user, "p0", None).await;
    }
    let events = json!([
        { "id": "e1", "signal": "VIEW", "productId": "p1" },
        { "id": "e1", "signal": "VIEW", "productId": "p1" },
        { "id": "e2", "signal": "VIEW", "productId": "sofa" },
    ]);
    server.graphql("shop", RECORD, json!({ "events": events })).await;
    server.try_graphql(None, "{ nonsense }", json!({})).await.unwrap();
    let text = until_told(
        &server,
        &[
            ("acclaim_likes_total{outcome=\"committed\"}", 3.0),
            ("acclaim_like_duration_seconds_count", 3.0),
            ("acclaim_events_total{outcome=\"recorded\"}", 1.0),
            ("acclaim_events_total{outcome=\"duplicate\"}", 1.0),
            ("acclaim_events_total{outcome=\"rejected\"}", 1.0),
            ("acclaim_operations_total{code=\"BAD_USER_INPUT\"}", 1.0),
            ("acclaim_committed_entries_total", 4.0),
            ("acclaim_refused_entries_total", 0.0),
            ("acclaim_commit_lag_entries", 0.0),
            ("acclaim_commit_lag_seconds", 0.0),
            ("acclaim_projection_lag_entries", 0.0),
            ("acclaim_projection_lag_seconds", 0.0),
            // Trimmed, a second later.
            ("acclaim_journal_entries{partition=\"0\"}", 0.0),
            ("acclaim_journal_limit_entries", 1_000_000.0),
            ("acclaim_engine_up", 1.0),
            ("acclaim_ledger_up", 1.0),
            ("acclaim_leading", 1.0),
            ("acclaim_epoch", 1.0),
            ("acclaim_dead_letters{kind=\"lost\"}", 0.0),
            ("acclaim_live_connections{transport=\"websocket\"}", 1.0),
            ("acclaim_subscriptions", 1.0),
            ("acclaim_snapshots_total{reason=\"INITIAL\"}", 1.0),
            ("acclaim_feed_gaps_total", 0.0),
        ],
    )
    .await;
    for at_least_once in [
        "acclaim_published_states_total",
        "acclaim_executions_total",
        "acclaim_deliveries_total",
        "acclaim_commit_duration_seconds_count",
        "acclaim_rebuild_duration_seconds_count{reason=\"RECOVERED\"}",
        "acclaim_http_responses_total{status=\"200\"}",
        "process_resident_memory_bytes",
    ] {
        assert!(metric(&text, at_least_once) > Some(0.0), "{at_least_once} in\n{text}");
    }
    assert_eq!(metric(&text, "acclaim_engine_used_bytes").is_some(), setup == Setup::Servers);
    assert_parses(&text);
    drop(socket);
    let gone = [
        ("acclaim_live_connections{transport=\"websocket\"}", 0.0),
        ("acclaim_subscriptions", 0.0),
        ("acclaim_closed_sockets_total{reason=\"left\"}", 1.0),
    ];
    until_told(&server, &gone).await;
}

/// However many dead letters there are, no more than 1,000 are looked at.
async fn what_is_told_of_dead_letters_has_its_price(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    let letters = |first: usize, count: usize, error: &str| {
        let row = |n| format!("('0:1-{n}', 0, 1, {n}, '', '{error}', (SELECT MAX(epoch_began_at) FROM meta))");
        let rows: Vec<_> = (first..first + count).map(row).collect();
        format!("INSERT INTO dead_letters (id, partition, epoch, seq, entry, error, at) VALUES {}", rows.join(", "))
    };
    stack.sql(&letters(1, 3, "lost: nothing is there")).await;
    stack.sql(&letters(4, 2, "stranded: it was written elsewhere")).await;
    stack.sql(&letters(6, 1, "there is no signal")).await;
    let kinds = [
        ("acclaim_dead_letters{kind=\"lost\"}", 3.0),
        ("acclaim_dead_letters{kind=\"stranded\"}", 2.0),
        ("acclaim_dead_letters{kind=\"unstorable\"}", 1.0),
    ];
    until_told(&server, &kinds).await;
    stack.sql(&letters(100, 1_500, "there is no signal")).await;
    until("the bound is reached", LIMIT, async || {
        let text = scrape(&server).await;
        kinds.iter().filter_map(|(name, _)| metric(&text, name)).sum::<f64>() == 1_000.0
    })
    .await;
}

/// What a part that is away can't say is not told as if it were nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_away_has_no_lag() {
    let mut stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    assert!(scrape(&server).await.contains("\nacclaim_commit_lag_entries 0\n"));
    drop(stack.redis.take());
    let text = until_told(&server, &[("acclaim_engine_up", 0.0), ("acclaim_ledger_up", 1.0)]).await;
    for unknown in ["acclaim_commit_lag", "acclaim_journal_entries", "acclaim_engine_used_bytes"] {
        assert!(!text.contains(unknown), "{unknown} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tokens_only_an_admin_reads_metrics() {
    let (stack, server) = guarded().await;
    for (roles, status) in
        [(None, 401), (Some("user"), 403), (Some("ingest"), 403), (Some("admin"), 200), (Some("metrics"), 200)]
    {
        let mut request = server.http.get(format!("{}/metrics", server.url));
        if let Some(role) = roles {
            request = request.bearer_auth(token(&stack, "ann", &[role]));
        }
        assert_eq!(request.send().await.unwrap().status(), status, "{roles:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_says_who_reads_metrics() {
    for (readers, status) in [("anyone", 200), ("off", 404)] {
        let (stack, server) = guarded_with(&["--metrics", readers]).await;
        let url = format!("{}/metrics", server.url);
        assert_eq!(server.http.get(&url).send().await.unwrap().status(), status, "{readers}");
        let admin = server.http.get(&url).bearer_auth(token(&stack, "ann", &["admin"]));
        assert_eq!(admin.send().await.unwrap().status(), status, "{readers}");
    }
}

/// The families of an exposition: what each is, by name.
fn families(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// By the rules of OpenMetrics and Prometheus' conventions: every family is told once, with help; its samples follow it and
/// bear its name with what belongs to its type; units are base units and end the name; no sample comes twice.
fn assert_parses(text: &str) {
    assert!(text.ends_with("\n# EOF\n"));
    let (mut family, mut kind, mut seen, mut has_help) = ("", "", BTreeSet::new(), BTreeSet::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", name, ..] => assert!(has_help.insert(name), "{line}"),
            ["#", "TYPE", name, of] => (family, kind) = (name, of),
            ["#", "UNIT", name, unit] => {
                assert!(["seconds", "bytes"].contains(&unit) && name.ends_with(&format!("_{unit}")), "{line}");
            }
            _ => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = series.split('{').next().unwrap();
                let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} stands below {family}"));
                let allowed: &[&str] = match kind {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "info" => &["_info"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    other => panic!("{family} is a {other}"),
                };
                assert!(allowed.contains(&suffix), "{line} of a {kind}");
                assert!(has_help.contains(family), "{family} has no help");
                assert!(!family.ends_with("_total") && !family.contains("_ms"), "{family}");
            }
        }
    }
}

/// Every name that the dashboard and the alerts ask for is one that the server tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_and_the_alerts_ask_for_what_is_there() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    let text = scrape(&server).await;
    let mut told = BTreeSet::new();
    for (family, kind) in families(&text) {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        told.extend(suffixes.iter().map(|suffix| format!("{family}{suffix}")));
    }
    let asked = |file: &str| -> BTreeSet<String> {
        let words = file.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("acclaim_") || word.starts_with("process_")).map(str::to_owned).collect()
    };
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../../ops/grafana.json")).unwrap();
    let by_panels: BTreeSet<_> =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| asked(&panel.to_string())).collect();
    let by_alerts = asked(include_str!("../../ops/alerts.yml"));
    for (who, asked) in [("alerts", &by_alerts), ("panels", &by_panels)] {
        assert!(asked.len() >= 8, "{who} ask for {asked:?}");
        let unknown: Vec<_> = asked.difference(&told).collect();
        assert!(unknown.is_empty(), "{who} ask for {unknown:?}, which are not among {told:?}");
    }
    let unseen: Vec<_> =
        told.difference(&by_panels).filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")).collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
}
