//! What is refused: with a code and a path, all of an input at once, and without a trace.

use serde_json::{Value, json};

use super::{ADJUST, CANCEL, DELETE, Desk, REBUILD, RULE, SAVE};
use crate::support::stack::Setup;
use crate::support::told;

crate::both_setups!(what_can_not_be_is_refused_and_changes_nothing);

/// What an admin sees of everything that could be changed.
const ALL: &str = "{ boards { id title category carryOver weights { version weights { weight } } }
    admin { weightRules(first: 100) { nodes { id cancelled } } productRules { id } auditLog(first: 100) { nodes { id } } } }";

/// A mutation, what is given to it, and the errors as `CODE path`.
type Case = (&'static str, Value, &'static [&'static str]);

fn adjusted(changes: Value) -> Value {
    with(json!({ "weights": [{ "signal": "ORDER", "weight": 1 }], "note": "why" }), changes)
}

fn saved(changes: Value) -> Value {
    with(json!({ "id": "fresh", "title": "Fresh", "window": "DAY" }), changes)
}

fn ruled(changes: Value) -> Value {
    with(json!({ "productId": "lamp", "excluded": true, "note": "why" }), changes)
}

fn with(mut input: Value, changes: Value) -> Value {
    input.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({ "input": input })
}

fn weights() -> Vec<Case> {
    let weight = |weight: Value| adjusted(json!({ "weights": [{ "signal": "VIEW", "weight": weight }] }));
    vec![
        (ADJUST, weight(json!(-0.1)), &["INVALID weights.0.weight"]),
        (ADJUST, weight(json!(-1e300)), &["INVALID weights.0.weight"]),
        (ADJUST, weight(json!(1000.000001)), &["INVALID weights.0.weight"]),
        (ADJUST, weight(json!(0.0000001)), &["INVALID weights.0.weight"]),
        (ADJUST, adjusted(json!({ "weights": [] })), &["INVALID weights"]),
        (
            ADJUST,
            adjusted(json!({ "weights": [{ "signal": "VIEW", "weight": 1 }, { "signal": "VIEW", "weight": 2 }] })),
            &["INVALID weights.1.signal"],
        ),
        (
            ADJUST,
            adjusted(json!({ "from": "2026-11-22T12:00:00Z", "until": "2026-11-22T11:59:59Z" })),
            &["INVALID until"],
        ),
        (
            ADJUST,
            adjusted(json!({ "from": "2026-11-22T12:00:00Z", "until": "2026-11-22T12:00:00Z" })),
            &["INVALID until"],
        ),
        // It would count for no quarter of an hour: none of these times holds the beginning of one, or an open one.
        (
            ADJUST,
            adjusted(json!({ "from": "2026-11-22T12:01:00Z", "until": "2026-11-22T12:15:00Z" })),
            &["INVALID until"],
        ),
        (ADJUST, adjusted(json!({ "board": "mine", "until": "2010-12-01T00:00:00Z" })), &["INVALID until"]),
        (ADJUST, adjusted(json!({ "hours": [] })), &["INVALID hours"]),
        (ADJUST, adjusted(json!({ "hours": [5, 24] })), &["INVALID hours"]),
        (ADJUST, adjusted(json!({ "hours": [-1] })), &["INVALID hours"]),
        (ADJUST, adjusted(json!({ "board": "nowhere" })), &["NOT_FOUND board"]),
        (ADJUST, adjusted(json!({ "board": "No Where" })), &["INVALID board"]),
        (ADJUST, adjusted(json!({ "board": "_likes" })), &["INVALID board"]),
        (ADJUST, adjusted(json!({ "note": "" })), &["INVALID note"]),
        (ADJUST, adjusted(json!({ "note": " \n " })), &["INVALID note"]),
        (ADJUST, adjusted(json!({ "note": "x".repeat(501) })), &["INVALID note"]),
        (ADJUST, adjusted(json!({ "expectedVersion": -1 })), &["INVALID expectedVersion"]),
        (ADJUST, adjusted(json!({ "expectedVersion": 0 })), &["CONFLICT expectedVersion"]),
        (ADJUST, adjusted(json!({ "expectedVersion": 99 })), &["CONFLICT expectedVersion"]),
        (
            ADJUST,
            json!({ "input": { "board": "nowhere", "weights": [{ "signal": "CART", "weight": -1 }], "hours": [24],
                "from": "2026-11-22T12:00:00Z", "until": "2026-11-21T12:00:00Z", "expectedVersion": -2, "note": "" } }),
            &[
                "NOT_FOUND board",
                "INVALID weights.0.weight",
                "INVALID until",
                "INVALID hours",
                "INVALID expectedVersion",
                "INVALID note",
            ],
        ),
        (CANCEL, json!({ "id": "999", "note": "why" }), &["NOT_FOUND id"]),
        (CANCEL, json!({ "id": "first", "note": "why" }), &["INVALID id"]),
        (CANCEL, json!({ "id": "daily:1", "note": "why" }), &["INVALID id"]),
        (CANCEL, json!({ "id": "-1", "note": "" }), &["INVALID id", "INVALID note"]),
    ]
}

fn boards() -> Vec<Case> {
    let half_life = |text: &str| saved(json!({ "window": "HALF_LIFE", "halfLife": text }));
    vec![
        (SAVE, saved(json!({ "id": "" })), &["INVALID id"]),
        (SAVE, saved(json!({ "id": "Fresh" })), &["INVALID id"]),
        (SAVE, saved(json!({ "id": "fresh board" })), &["INVALID id"]),
        (SAVE, saved(json!({ "id": "f".repeat(33) })), &["INVALID id"]),
        (SAVE, saved(json!({ "id": "_likes" })), &["INVALID id"]),
        (SAVE, saved(json!({ "id": "daily", "window": "WEEK" })), &["CONFLICT id"]),
        (SAVE, saved(json!({ "title": "" })), &["INVALID title"]),
        (SAVE, saved(json!({ "title": " \u{3000} " })), &["INVALID title"]),
        (SAVE, saved(json!({ "title": "x".repeat(101) })), &["INVALID title"]),
        (SAVE, saved(json!({ "title": "two\nlines" })), &["INVALID title"]),
        (SAVE, saved(json!({ "window": "HALF_LIFE" })), &["INVALID halfLife"]),
        (SAVE, saved(json!({ "halfLife": "PT1H" })), &["INVALID halfLife"]),
        (SAVE, half_life("PT4M59S"), &["INVALID halfLife"]),
        (SAVE, half_life("P30DT1S"), &["INVALID halfLife"]),
        (SAVE, half_life("P1M"), &["INVALID halfLife"]),
        (SAVE, half_life("-PT1H"), &["INVALID halfLife"]),
        (SAVE, half_life("an hour"), &["INVALID halfLife"]),
        (SAVE, saved(json!({ "category": "" })), &["INVALID category"]),
        (SAVE, saved(json!({ "brand": "b".repeat(65) })), &["INVALID brand"]),
        (SAVE, saved(json!({ "timeZone": "Mars/Olympus" })), &["INVALID timeZone"]),
        (SAVE, saved(json!({ "timeZone": "" })), &["INVALID timeZone"]),
        (SAVE, saved(json!({ "timeZone": "+09:00" })), &["INVALID timeZone"]),
        (SAVE, saved(json!({ "timeZone": "localtime" })), &["INVALID timeZone"]),
        (SAVE, saved(json!({ "timeZone": "posixrules" })), &["INVALID timeZone"]),
        (SAVE, saved(json!({ "timeZone": "posix/Europe/Berlin" })), &["INVALID timeZone"]),
        (SAVE, saved(json!({ "timeZone": "europe/berlin" })), &["INVALID timeZone"]),
        (SAVE, saved(json!({ "carryOver": -0.1 })), &["INVALID carryOver"]),
        (SAVE, saved(json!({ "carryOver": 1.000001 })), &["INVALID carryOver"]),
        (SAVE, saved(json!({ "window": "ALL_TIME", "carryOver": 0.5 })), &["INVALID carryOver"]),
        (SAVE, saved(json!({ "window": "HALF_LIFE", "halfLife": "PT1H", "carryOver": 0.5 })), &["INVALID carryOver"]),
        (
            SAVE,
            json!({ "input": { "id": "A B", "title": "", "window": "HALF_LIFE", "category": "", "brand": "", "timeZone": "x", "carryOver": 2 } }),
            &[
                "INVALID id",
                "INVALID title",
                "INVALID halfLife",
                "INVALID category",
                "INVALID brand",
                "INVALID timeZone",
                "INVALID carryOver",
            ],
        ),
        (DELETE, json!({ "id": "nowhere", "note": "why" }), &["NOT_FOUND id"]),
        (DELETE, json!({ "id": "_likes", "note": "why" }), &["INVALID id"]),
        (DELETE, json!({ "id": "daily", "note": "why" }), &["INVALID id"]),
        (DELETE, json!({ "id": "mine", "note": "" }), &["INVALID note"]),
        (REBUILD, json!({ "id": "nowhere" }), &["NOT_FOUND id"]),
        (REBUILD, json!({ "id": "_likes" }), &["INVALID id"]),
        (REBUILD, json!({ "id": "daily", "from": "yesterday" }), &["INVALID fromPeriod"]),
        (REBUILD, json!({ "id": "daily", "from": "2026-W48" }), &["INVALID fromPeriod"]),
        (REBUILD, json!({ "id": "daily", "from": "2999-01-01" }), &["INVALID fromPeriod"]),
    ]
}

fn products() -> Vec<Case> {
    vec![
        (RULE, ruled(json!({ "productId": "nothing" })), &["NOT_FOUND productId"]),
        (RULE, ruled(json!({ "productId": "" })), &["INVALID productId"]),
        (RULE, ruled(json!({ "board": "nowhere" })), &["NOT_FOUND board"]),
        (RULE, ruled(json!({ "board": "_likes" })), &["INVALID board"]),
        (RULE, ruled(json!({ "excluded": false, "boost": -0.1 })), &["INVALID boost"]),
        (RULE, ruled(json!({ "excluded": null, "boost": 100.1 })), &["INVALID boost"]),
        (RULE, ruled(json!({ "boost": 1.5 })), &["INVALID boost"]),
        (RULE, ruled(json!({ "until": "2010-12-01T00:00:00Z" })), &["INVALID until"]),
        (RULE, ruled(json!({ "note": "x".repeat(501) })), &["INVALID note"]),
        (
            RULE,
            json!({ "input": { "productId": "nothing", "board": "nowhere", "boost": -1, "until": "2010-12-01T00:00:00Z", "note": "" } }),
            &["NOT_FOUND productId", "NOT_FOUND board", "INVALID boost", "INVALID until", "INVALID note"],
        ),
    ]
}

/// What GraphQL itself can't read, and lists that are out of bounds: errors of the whole operation, with the argument.
fn unreadable() -> Vec<(&'static str, String, &'static str)> {
    let adjust = |weight: &str, rest: &str| {
        let query = format!(
            "mutation {{ adjustWeights(input: {{ weights: [{{ signal: VIEW, weight: {weight} }}], note: \\\"why\\\" {rest} }}) {{ version }} }}"
        );
        format!("{{ \"query\": \"{query}\" }}")
    };
    let save = |field: &str| {
        let query = format!(
            "mutation {{ saveBoard(input: {{ id: \\\"fresh\\\", title: \\\"Fresh\\\", {field} }}) {{ board {{ id }} }} }}"
        );
        format!("{{ \"query\": \"{query}\" }}")
    };
    let variable = |weight: &str| {
        let query = "mutation($w: Float!) { adjustWeights(input: { weights: [{ signal: VIEW, weight: $w }], note: \\\"why\\\" }) { version } }";
        format!("{{ \"query\": \"{query}\", \"variables\": {{ \"w\": {weight} }} }}")
    };
    let replay = |ids: &str| {
        format!("{{ \"query\": \"mutation {{ replayDeadLetters(input: {{ ids: {ids} }}) {{ replayed }} }}\" }}")
    };
    vec![
        // Neither GraphQL nor JSON has a number for these.
        ("an infinite weight", adjust("1e400", ""), "weight"),
        ("an infinite weight in variables", variable("1e400"), "body"),
        ("no number in variables", variable("NaN"), "body"),
        ("no number", adjust("NaN", ""), "input.weights.0.weight"),
        ("a text", adjust("\\\"much\\\"", ""), "input.weights.0.weight"),
        ("a text in variables", variable("\"NaN\""), "w"),
        ("no instant", adjust("1", "from: \\\"yesterday\\\""), "input.from"),
        ("beyond the calendar", adjust("1", "from: \\\"9999-12-31T23:59:59Z\\\""), "input.from"),
        ("no hour", adjust("1", "hours: [5.5]"), "input.hours.0"),
        ("infinite carry", save("window: DAY, carryOver: 1e400"), "carryOver"),
        ("no carry", save("window: DAY, carryOver: null"), "input.carryOver"),
        ("an unknown window", save("window: YEAR"), "input.window"),
        ("two windows", save("window: DAY, window: HOUR"), "input.window"),
        ("nothing to replay", replay("[]"), "ids"),
    ]
}

async fn what_can_not_be_is_refused_and_changes_nothing(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    desk.orders("1", "lamp", 1, None).await;
    desk.save(json!({ "id": "mine", "title": "Mine", "window": "DAY" })).await;
    let rule = desk.adjust(json!({ "weights": [{ "signal": "ORDER", "weight": 2 }], "note": "more" })).await;
    let present = desk.done(CANCEL, json!({ "id": rule["rule"]["id"], "note": "no more" })).await["version"].clone();
    desk.until_shown("mine", &[("lamp", 0.6)]).await;
    let before = desk.server.graphql("ann", ALL, json!({})).await;
    let shown = desk.page("mine").await;
    let mut cases: Vec<_> = [weights(), boards(), products()].concat();
    let cancelled = json!({ "id": rule["rule"]["id"], "note": "again" });
    cases.push((CANCEL, cancelled, &["CONFLICT id"]));
    for (mutation, variables, expected) in cases {
        let payload = desk.payload("ann", mutation, variables.clone()).await;
        let errors = payload["userErrors"].as_array().unwrap();
        let told: Vec<_> = errors
            .iter()
            .map(|error| {
                let path: Vec<_> =
                    error["path"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
                assert!(!error["message"].as_str().unwrap().is_empty());
                format!("{} {}", error["code"].as_str().unwrap(), path.join("."))
            })
            .collect();
        assert_eq!(told, expected, "{variables}: {payload}");
        for (field, value) in payload.as_object().unwrap() {
            let is_told = field == "userErrors" || (field == "version" && expected[0].starts_with("CONFLICT"));
            assert!(is_told || value.is_null(), "{variables}: {payload}");
        }
        if expected == ["CONFLICT expectedVersion"] {
            let message = errors[0]["message"].as_str().unwrap();
            assert!(message.contains(&present.to_string()), "the present version is {present}: {message}");
        }
        let after = desk.server.graphql("ann", ALL, json!({})).await;
        assert_eq!(after, before, "{variables} has left a trace");
    }
    for (what, body, argument) in unreadable() {
        let request = desk.server.http.post(format!("{}/graphql", desk.server.url)).header("x-acclaim-user", "ann");
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(
            told(&answer["errors"][0]),
            json!({ "code": "BAD_USER_INPUT", "argument": argument }),
            "{what}: {answer}"
        );
        let after = desk.server.graphql("ann", ALL, json!({})).await;
        assert_eq!(after, before, "{what} has left a trace");
    }
    assert_eq!(desk.page("mine").await, shown);
}
