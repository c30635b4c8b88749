//! Loading against a server that fails, delays and refuses on cue; what a healthy one does is tested end to end.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::client::Caller;
use crate::client::tests::{Reply, data, listener, refusal, serve_on};

const PATIENCE: Duration = Duration::from_secs(10);
const EVENTS: Form = Form::Events { shift_ms: 0 };

/// Keeps what would be shown.
#[derive(Default)]
struct Told {
    bad: Mutex<Vec<(u64, String)>>,
    waits: Mutex<u64>,
}

impl Progress for Told {
    fn bad_row(&self, row: &BadRow) {
        self.bad.lock().unwrap().push((row.line, row.reason.clone()));
    }
    fn unused_column(&self, _: &str) {}
    fn advanced(&self, _: u64, _: u64) {}
    fn waiting(&self, _: &ClientError) {
        *self.waits.lock().unwrap() += 1;
    }
}

async fn load(url: &str, text: &str, form: Form) -> (anyhow::Result<Summary>, Vec<(u64, String)>, u64) {
    let told = Told::default();
    let client = Client::new(url, Caller::Name("ann".to_owned())).unwrap();
    let summary = import(&client, text.as_bytes(), form, PATIENCE, &told).await;
    (summary, told.bad.into_inner().unwrap(), told.waits.into_inner().unwrap())
}

fn recorded(summary: u64, duplicates: u64, bad: u64) -> Summary {
    Summary { recorded: summary, duplicates, bad }
}

/// `count` events e0, e1, …; the ones named in `reverses` take back another.
fn events(count: usize, reverses: &[(usize, usize)]) -> String {
    let reverses: HashMap<_, _> = reverses.iter().copied().collect();
    let row = |n: usize| match reverses.get(&n) {
        Some(original) => format!("e{n},ORDER,p,e{original}\n"),
        None => format!("e{n},ORDER,p,\n"),
    };
    "id,signal,product_id,reverses\n".to_owned() + &(0..count).map(row).collect::<String>()
}

fn ids(call: &Value, what: &str) -> Vec<String> {
    let rows = call["variables"][what].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

fn all_recorded(call: &Value) -> Reply {
    let results: Vec<_> = ids(call, "events").iter().map(|_| json!({ "status": "RECORDED", "error": null })).collect();
    data(json!({ "recordEvents": { "results": results } }))
}

#[tokio::test]
async fn a_reversal_waits_for_its_original_and_others_do_not() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let url = serve_on(listener(), {
        let log = log.clone();
        let (began, _) = tokio::sync::watch::channel(0);
        move |call| {
            let (log, began) = (log.clone(), began.clone());
            async move {
                let first = ids(&call, "events").swap_remove(0);
                log.lock().unwrap().push(format!("{first} begins"));
                began.send_modify(|count| *count += 1);
                if first == "e0" {
                    // Batches that share no id with this one come while it is unanswered …
                    began.subscribe().wait_for(|count| *count >= 3).await.unwrap();
                    // … and a reversal that came too early would come now.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                log.lock().unwrap().push(format!("{first} ends"));
                all_recorded(&call)
            }
        }
    });
    let text = events(1600, &[(1501, 3)]);
    let (summary, bad, _) = tokio::time::timeout(PATIENCE, load(&url, &text, EVENTS)).await.expect("no deadlock");
    assert_eq!((summary.unwrap(), bad), (recorded(1600, 0, 0), vec![]));
    let log = log.lock().unwrap();
    let place = |what: &str| log.iter().position(|line| line == what).unwrap();
    assert!(place("e1000 begins") < place("e0 ends"), "{log:?}");
    assert!(place("e0 ends") < place("e1500 begins"), "{log:?}");
}

#[tokio::test]
async fn what_passes_is_waited_out() {
    let reserved = listener();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let url = format!("http://{address}");
    let text = events(700, &[]);
    let loading = load(&url, &text, EVENTS);
    let server = async {
        // Nobody listens at first.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let calls = Mutex::new(0);
        serve_on(std::net::TcpListener::bind(address).unwrap(), move |call| {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            ready(match *calls {
                1 => refusal("UNAVAILABLE", "the engine is away"),
                2 => (axum::http::StatusCode::SERVICE_UNAVAILABLE, "later".to_owned()),
                3 => refusal("BUSY", "the journal is full"),
                _ => all_recorded(&call),
            })
        });
    };
    let ((summary, bad, waits), ()) = tokio::join!(loading, server);
    assert_eq!((summary.unwrap(), bad), (recorded(700, 0, 0), vec![]));
    assert!(waits >= 5, "two batches found nobody, three calls were refused: {waits}");
}

#[tokio::test]
async fn what_the_server_rejects_is_reported_by_line() {
    let url = serve_on(listener(), |call| {
        let results = ids(&call, "events").into_iter().map(|id| match id.as_str() {
            "e1" => json!({ "status": "DUPLICATE", "error": null }),
            "e2" => json!({ "status": "REJECTED", "error": { "message": "more than 5 minutes ahead",
                                                              "path": ["input", "events", "2", "occurredAt"] } }),
            _ => json!({ "status": "RECORDED", "error": null }),
        });
        ready(data(json!({ "recordEvents": { "results": results.collect::<Vec<_>>() } })))
    });
    let (summary, bad, _) = load(&url, &(events(4, &[]) + "e5,ORDERED,p,\n"), EVENTS).await;
    assert_eq!(summary.unwrap(), recorded(2, 1, 2));
    let (line, reason) = &bad[1];
    assert_eq!((*line, reason.as_str()), (4, "occurredAt: more than 5 minutes ahead"));
    assert_eq!(bad[0].0, 6, "found before anything was sent");
}

#[tokio::test]
async fn one_row_that_fails_the_whole_call_is_found() {
    let url = serve_on(listener(), |call| {
        let bad = ids(&call, "events").iter().any(|id| id == "e41" || id == "e600");
        ready(if bad { refusal("BAD_USER_INPUT", "no such thing") } else { all_recorded(&call) })
    });
    let (summary, mut bad, _) = load(&url, &events(1000, &[]), EVENTS).await;
    assert_eq!(summary.unwrap(), recorded(998, 0, 2));
    bad.sort();
    assert_eq!(bad, [(43, "no such thing".to_owned()), (602, "no such thing".to_owned())]);
}

#[tokio::test]
async fn products_that_keep_a_call_out_are_left_out() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let url = serve_on(listener(), {
        let kept = kept.clone();
        move |call| {
            let ids = ids(&call, "products");
            let errors: Vec<_> = (0..)
                .zip(&ids)
                .filter(|(_, id)| id.starts_with("bad"))
                .map(
                    |(n, _): (u32, _)| json!({ "message": "is too long", "path": ["products", n.to_string(), "name"] }),
                )
                .collect();
            if errors.is_empty() {
                kept.lock().unwrap().extend(ids);
            }
            ready(data(json!({ "upsertProducts": { "upserted": 0, "userErrors": errors } })))
        }
    });
    let (summary, bad, _) = load(&url, "id,name\na,A\nbad1,B\nc,C\nbad2,D\n", Form::Products).await;
    assert_eq!(summary.unwrap(), recorded(2, 0, 2));
    assert_eq!(bad, [(3, "name: is too long".to_owned()), (5, "name: is too long".to_owned())]);
    assert_eq!(*kept.lock().unwrap(), ["a", "c"]);
}

#[tokio::test]
async fn a_caller_without_the_role_learns_what_to_set() {
    let url = serve_on(listener(), |_| ready(refusal("FORBIDDEN", "the role INGEST is needed")));
    let (summary, _, _) = load(&url, &events(2, &[]), EVENTS).await;
    let error = summary.unwrap_err().to_string();
    assert!(error.contains("FORBIDDEN") && error.contains("acclaim token"), "{error}");
}

#[test]
fn the_last_event_moves_to_now() {
    let text = "id,signal,product_id,occurred_at\n\
                a,ORDER,p,2010-12-06T09:00:00Z\n\
                b,ORDER,p,2010-12-06T10:00:00Z\n\
                c,ORDERED,p,2030-01-01T00:00:00Z\n\
                d,ORDER,p,\n";
    let now = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
    let shift = shift_to(now, &mut std::io::Cursor::new(text)).unwrap();
    assert_eq!(Timestamp::parse("2010-12-06T10:00:00Z").unwrap().plus_ms(shift), now);
    assert_eq!(shift_to(now, &mut std::io::Cursor::new("id,signal,product_id\na,ORDER,p\n")).unwrap(), 0);
}
