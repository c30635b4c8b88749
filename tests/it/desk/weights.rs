//! Weights that count at certain times, are taken back, and are changed by two admins at once.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{ADJUST, CANCEL, DELETE, Desk, REBUILD, RULE};
use crate::support::live::Socket;
use crate::support::stack::Setup;

crate::both_setups!(
    a_campaign_counts_from_until_and_at_its_hours,
    a_cancelled_rule_is_as_if_it_had_never_been,
    of_two_admins_one_is_told_that_the_other_was_faster,
    everything_that_an_admin_does_is_kept,
    changes_of_weights_are_told,
);

async fn weights_of(desk: &Desk, board: &str) -> Vec<Value> {
    let query = "query($board: ID!) { board(id: $board) { weights { id version from until hours cancelled note weights { signal weight } } } }";
    let data = desk.server.graphql("reader", query, json!({ "board": board })).await;
    data["board"]["weights"].as_array().unwrap().clone()
}

fn order(weight: f64) -> Value {
    json!([{ "signal": "ORDER", "weight": weight }])
}

async fn a_campaign_counts_from_until_and_at_its_hours(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    // In Seoul it is nine hours later: these are one o'clock, five and six in the morning.
    for (id, at) in [("1", "2020-05-31T16:00:00Z"), ("2", "2020-05-31T20:00:00Z"), ("3", "2020-05-31T21:45:00Z")] {
        desk.orders(id, "lamp", 1, Some(at)).await;
    }
    desk.save(json!({ "id": "ever", "title": "Ever", "window": "ALL_TIME", "timeZone": "Asia/Seoul" })).await;
    desk.until_shown("ever", &[("lamp", 1.8)]).await;
    // From and until are compared with the quarter of an hour that an event falls into.
    let input = json!({ "board": "ever", "weights": order(100.0), "from": "2020-05-31T20:00:00Z", "note": "from" });
    desk.adjust(input).await;
    desk.until_shown("ever", &[("lamp", 200.6)]).await;
    let input = json!({ "board": "ever", "weights": order(10.0), "until": "2020-05-31T20:00:00Z", "note": "until" });
    desk.adjust(input).await;
    desk.until_shown("ever", &[("lamp", 210.0)]).await;
    let input = json!({ "board": "ever", "weights": order(1.0), "hours": [6, 7], "note": "dawn",
        "from": "2020-05-01T00:00:00Z", "until": "2020-07-01T00:00:00Z" });
    let rule = desk.adjust(input).await["rule"].clone();
    assert_eq!((&rule["hours"], &rule["from"]), (&json!([6, 7]), &json!("2020-05-01T00:00:00.000Z")));
    desk.until_shown("ever", &[("lamp", 111.0)]).await;
    // What is to come is listed, what is over is not; other boards are not concerned.
    let input = json!({ "board": "ever", "weights": order(5.0), "from": "2999-01-01T00:00:00Z", "note": "far away" });
    let later = desk.adjust(input).await["version"].clone();
    let listed = weights_of(&desk, "ever").await;
    assert_eq!((listed[0]["note"].as_str(), &listed[0]["weights"][4]["weight"]), (Some("from"), &json!(100.0)));
    assert_eq!(listed[0]["weights"].as_array().unwrap().len(), 5, "what is in force names every signal");
    assert_eq!((listed.len(), &listed[1]["version"], &listed[1]["id"]), (2, &later, &json!(later.to_string())));
    assert_eq!(weights_of(&desk, "daily").await.len(), 1);
    // The events that come later are weighed by when they happened.
    desk.orders("4", "lamp", 1, Some("2020-06-01T22:00:00Z")).await;
    desk.orders("5", "lamp", 1, None).await;
    desk.until_shown("ever", &[("lamp", 212.0)]).await;
    desk.server.assert_verified().await;
}

async fn a_cancelled_rule_is_as_if_it_had_never_been(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    desk.orders("1", "lamp", 1, None).await;
    desk.until_shown("daily", &[("lamp", 0.6)]).await;
    let first = desk.adjust(json!({ "weights": order(2.0), "note": "more" })).await["rule"]["id"].clone();
    let second = desk.adjust(json!({ "weights": order(3.0), "note": "still more" })).await["rule"]["id"].clone();
    desk.until_shown("daily", &[("lamp", 3.0)]).await;
    let cancelled = desk.done(CANCEL, json!({ "id": second, "note": "too much" })).await;
    assert_eq!(cancelled["rule"], json!({ "id": second, "cancelled": true }));
    desk.until_shown("daily", &[("lamp", 2.0)]).await;
    desk.done(CANCEL, json!({ "id": first, "note": "that too" })).await;
    desk.until_shown("daily", &[("lamp", 0.6)]).await;
    let query = "{ admin { weightRules { nodes { id note cancelled } } } }";
    let rules = desk.server.graphql("ann", query, json!({})).await["admin"]["weightRules"]["nodes"].clone();
    let expected = json!([
        { "id": second, "note": "still more", "cancelled": true },
        { "id": first, "note": "more", "cancelled": true },
    ]);
    assert_eq!(rules, expected);
    assert_eq!(weights_of(&desk, "daily").await[0]["version"], 0);
    // Who has looked before that was cancelled is told so.
    let version: i64 = second.as_str().unwrap().parse().unwrap();
    let input = json!({ "weights": order(4.0), "expectedVersion": version, "note": "late" });
    let late = desk.payload("bob", ADJUST, json!({ "input": input })).await;
    assert_eq!(late["userErrors"][0]["code"], "CONFLICT", "{late}");
    desk.server.assert_verified().await;
}

async fn of_two_admins_one_is_told_that_the_other_was_faster(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    let mut present = desk.adjust(json!({ "weights": order(1.0), "note": "a start" })).await["version"].clone();
    for round in 0..3 {
        let asked = (0..6).map(|n| {
            let note = format!("round {round}, admin {n}");
            json!({ "weights": order(f64::from(n)), "expectedVersion": present, "note": note })
        });
        let answers = join_all(asked.map(|input| desk.payload("bob", ADJUST, json!({ "input": input })))).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer["userErrors"] == json!([]));
        assert_eq!((won.len(), lost.len()), (1, 5), "{answers:?}");
        present = won[0]["version"].clone();
        for answer in lost {
            let error = &answer["userErrors"][0];
            assert_eq!((&error["code"], &error["path"]), (&json!("CONFLICT"), &json!(["expectedVersion"])));
            assert!(error["message"].as_str().unwrap().contains(&present.to_string()), "{answer}");
            assert_eq!((&answer["version"], &answer["rule"]), (&present, &Value::Null));
        }
    }
    let audited = desk.audit().await;
    assert_eq!(audited.len(), 4, "what was refused is not audited: {audited:?}");
}

async fn everything_that_an_admin_does_is_kept(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    desk.orders("1", "lamp", 1, None).await;
    desk.save(json!({ "id": "mine", "title": "Mine", "window": "DAY" })).await;
    desk.save(json!({ "id": "mine", "title": "My own", "window": "DAY" })).await;
    let rule = desk.adjust(json!({ "board": "mine", "weights": order(2.0), "note": "more" })).await;
    desk.done(CANCEL, json!({ "id": rule["rule"]["id"], "note": "no more" })).await;
    desk.done(RULE, json!({ "input": { "productId": "lamp", "boost": 2, "note": "new" } })).await;
    desk.done(REBUILD, json!({ "id": "mine" })).await;
    desk.done(DELETE, json!({ "id": "mine", "note": "done" })).await;
    let audited = desk.audit().await;
    let told: Vec<_> = audited.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let expected =
        ["deleteBoard", "rebuildBoard", "setProductRule", "cancelWeights", "adjustWeights", "saveBoard", "saveBoard"];
    assert_eq!(told, expected, "newest first: {audited:#?}");
    for entry in &audited {
        assert_eq!(entry["actor"], "ann");
        assert!(!entry["at"].is_null() && !entry["target"].as_str().unwrap().is_empty(), "{entry}");
    }
    let has = |index: usize, field: &str, text: &str| {
        let value = audited[index][field].as_str().unwrap_or_else(|| panic!("no {field}: {}", audited[index]));
        assert!(value.contains(text), "{field} of {}", audited[index]);
    };
    has(0, "before", "My own");
    has(0, "note", "done");
    assert_eq!(audited[0]["after"], Value::Null);
    has(2, "target", "lamp");
    has(2, "after", "boost");
    has(3, "note", "no more");
    has(4, "after", "ORDER");
    has(5, "before", "Mine");
    has(5, "after", "My own");
    assert_eq!(audited[6]["before"], Value::Null, "there was nothing before");
    // In pages, too.
    let page = "query($after: String) { admin { auditLog(first: 3, after: $after) { nodes { id } edges { cursor }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }";
    let (mut after, mut ids) = (Value::Null, Vec::new());
    for (rows, has_next_page) in [(3, true), (3, true), (1, false)] {
        let log = desk.server.graphql("ann", page, json!({ "after": after })).await["admin"]["auditLog"].clone();
        let nodes = log["nodes"].as_array().unwrap();
        assert_eq!((nodes.len(), &log["pageInfo"]["hasNextPage"]), (rows, &json!(has_next_page)));
        assert_eq!(log["pageInfo"]["hasPreviousPage"], json!(!ids.is_empty()));
        ids.extend(nodes.iter().map(|node| node["id"].clone()));
        after = log["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(ids, audited.iter().map(|entry| entry["id"].clone()).collect::<Vec<_>>());
}

async fn changes_of_weights_are_told(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    desk.adjust(json!({ "weights": order(1.0), "note": "before anybody listens" })).await;
    let query = "subscription { weightsChanged { id version board from hours cancelled createdBy note weights { signal weight } } }";
    let subscribe = json!({ "id": "w", "type": "subscribe", "payload": { "query": query } });
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut socket = Socket::connect(&desk.server.url, json!({})).await;
        socket.send(subscribe.clone()).await;
        sockets.push(socket);
    }
    let open = "{ admin { system { subscriptions } } }";
    crate::support::until("both listen", super::TIME_MAX, async || {
        desk.server.graphql("ann", open, json!({})).await["admin"]["system"]["subscriptions"] == 2
    })
    .await;
    let input = json!({ "board": "daily", "weights": order(2.0), "hours": [5, 6], "note": "dawn" });
    let dawn = desk.adjust(input).await["rule"]["id"].clone();
    let later = json!({ "weights": order(3.0), "from": "2999-01-01T00:00:00Z", "note": "far away" });
    let later = desk.adjust(later).await["rule"]["id"].clone();
    desk.done(CANCEL, json!({ "id": dawn, "note": "no" })).await;
    // What concerns no weights is not told.
    desk.done(RULE, json!({ "input": { "productId": "lamp", "boost": 2, "note": "new" } })).await;
    let last = desk.adjust(json!({ "weights": order(4.0), "note": "last" })).await["rule"]["id"].clone();
    for mut socket in sockets {
        let mut told = Vec::new();
        for _ in 0..4 {
            let message = socket.receive().await;
            assert_eq!((&message["id"], &message["type"]), (&json!("w"), &json!("next")), "{message}");
            told.push(message["payload"]["data"]["weightsChanged"].clone());
        }
        let ids: Vec<_> = told.iter().map(|rule| (rule["id"].clone(), rule["cancelled"] == true)).collect();
        assert_eq!(ids, [(dawn.clone(), false), (later.clone(), false), (dawn.clone(), true), (last.clone(), false)]);
        let expected = json!({ "id": dawn, "version": dawn.as_str().unwrap().parse::<i64>().unwrap(), "board": "daily",
            "from": null, "hours": [5, 6], "cancelled": false, "createdBy": "ann", "note": "dawn", "weights": [{ "signal": "ORDER", "weight": 2.0 }] });
        assert_eq!(told[0], expected);
    }
}
