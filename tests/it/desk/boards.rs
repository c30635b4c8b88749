//! Boards that are made, changed and deleted while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{ADJUST, DELETE, Desk, REBUILD, RULE, SAVE, TIME_MAX};
use crate::support::live::Socket;
use crate::support::stack::Setup;
use crate::support::until;

crate::both_setups!(
    a_new_board_is_filled_before_it_is_shown,
    a_product_that_moves_is_counted_where_it_is_now,
    products_are_excluded_and_boosted_for_as_long_as_a_rule_says,
    a_board_that_is_deleted_ends_its_subscriptions_and_can_be_made_anew,
    rules_of_a_board_end_with_it,
    a_saved_board_keeps_its_window,
    history_that_is_loaded_is_computed_from_where_it_begins,
);

async fn a_new_board_is_filled_before_it_is_shown(setup: Setup) {
    let desk = Arc::new(Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await);
    desk.orders("1", "lamp", 2, None).await;
    desk.orders("2", "pan", 5, None).await;
    desk.until_shown("daily", &[("pan", 3.0), ("lamp", 1.2)]).await;
    // Somebody who looks all the time sees no board, or the filled one.
    let (saved, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let looking = tokio::spawn({
        let (desk, saved, looks) = (desk.clone(), saved.clone(), looks.clone());
        async move {
            let query = "{ board(id: \"lights\") { current { entries { nodes { productId score } } } } }";
            while !saved.load(Ordering::Relaxed) {
                let board = desk.server.graphql("reader", query, json!({})).await["board"].clone();
                if !board.is_null() {
                    let shown = &board["current"]["entries"]["nodes"];
                    assert_eq!(*shown, json!([{ "productId": "lamp", "score": 1.2 }]));
                }
                looks.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    until("somebody looks", TIME_MAX, async || looks.load(Ordering::Relaxed) > 0).await;
    let saved_board = desk
        .save(json!({ "id": "lights", "title": "Lights", "window": "DAY", "category": "Lighting", "carryOver": 0.25 }))
        .await;
    let expected = json!({ "id": "lights", "title": "Lights", "window": "DAY", "halfLife": null, "category": "Lighting",
        "brand": null, "timeZone": "UTC", "carryOver": 0.25, "isCurrent": true });
    assert_eq!(saved_board["board"], expected);
    assert_eq!(desk.page("lights").await, (vec![("lamp".to_owned(), 1.2)], "ENGINE".to_owned()));
    let before = looks.load(Ordering::Relaxed);
    until("it was looked at since", TIME_MAX, async || looks.load(Ordering::Relaxed) > before + 1).await;
    saved.store(true, Ordering::Relaxed);
    looking.await.unwrap();
    // It goes on with what happens.
    desk.orders("3", "lamp", 1, None).await;
    desk.until_shown("lights", &[("lamp", 1.8)]).await;
    let half_life =
        json!({ "id": "hot", "title": "Hot", "window": "HALF_LIFE", "halfLife": "PT90M", "timeZone": "Asia/Seoul" });
    let hot = desk.save(half_life).await["board"].clone();
    assert_eq!((&hot["halfLife"], &hot["timeZone"]), (&json!("PT1H30M"), &json!("Asia/Seoul")));
    desk.server.assert_verified().await;
}

async fn a_product_that_moves_is_counted_where_it_is_now(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await;
    for (id, category) in [("lights", "Lighting"), ("kitchen", "Kitchen")] {
        desk.save(json!({ "id": id, "title": id, "window": "ALL_TIME", "category": category })).await;
    }
    desk.orders("1", "lamp", 2, None).await;
    desk.orders("2", "pan", 5, None).await;
    desk.until_shown("lights", &[("lamp", 1.2)]).await;
    desk.until_shown("kitchen", &[("pan", 3.0)]).await;
    desk.stock(&[("lamp", "Kitchen"), ("jug", "Kitchen")]).await;
    desk.until_shown("lights", &[]).await;
    desk.until_shown("kitchen", &[("pan", 3.0), ("lamp", 1.2)]).await;
    // What happens to it, and to one that is new, is counted there from now on.
    desk.orders("3", "lamp", 4, None).await;
    desk.orders("4", "jug", 1, None).await;
    desk.until_shown("kitchen", &[("lamp", 3.6), ("pan", 3.0), ("jug", 0.6)]).await;
    desk.until_shown("lights", &[]).await;
    desk.server.assert_verified().await;
}

async fn products_are_excluded_and_boosted_for_as_long_as_a_rule_says(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await;
    desk.save(json!({ "id": "ever", "title": "Ever", "window": "ALL_TIME" })).await;
    desk.orders("1", "lamp", 2, None).await;
    desk.orders("2", "pan", 5, None).await;
    desk.until_shown("ever", &[("pan", 3.0), ("lamp", 1.2)]).await;

    let rule = desk.done(RULE, json!({ "input": { "productId": "pan", "excluded": true, "note": "recalled" } })).await;
    let expected = json!({ "productId": "pan", "board": null, "excluded": true, "boost": null, "until": null,
        "createdBy": "ann", "note": "recalled" });
    let mut told = rule["rule"].clone();
    assert!(told.as_object_mut().unwrap().remove("id").unwrap().is_string());
    assert_eq!(told, expected);
    desk.until_shown("ever", &[("lamp", 1.2)]).await;
    let rank =
        desk.server.graphql("reader", "{ product(id: \"pan\") { currentRank(board: \"ever\") } }", json!({})).await;
    assert_eq!(rank["product"]["currentRank"], Value::Null, "an excluded product holds no rank");

    // A board's own rule counts before the one for all.
    let boost = json!({ "productId": "pan", "board": "ever", "boost": 1.5, "note": "but not here" });
    desk.done(RULE, json!({ "input": boost })).await;
    desk.until_shown("ever", &[("pan", 4.5), ("lamp", 1.2)]).await;
    assert!(!desk.places("daily").await.iter().any(|(product, _)| product == "pan"));
    desk.orders("3", "pan", 1, None).await;
    desk.until_shown("ever", &[("pan", 5.4), ("lamp", 1.2)]).await;

    let listed = desk
        .server
        .graphql("ann", "{ admin { productRules { productId board excluded boost note } } }", json!({}))
        .await;
    let mut listed = listed["admin"]["productRules"].as_array().unwrap().clone();
    listed.sort_by_key(|rule| rule["board"].is_null());
    assert_eq!(
        listed,
        [
            json!({ "productId": "pan", "board": "ever", "excluded": false, "boost": 1.5, "note": "but not here" }),
            json!({ "productId": "pan", "board": null, "excluded": true, "boost": null, "note": "recalled" }),
        ]
    );

    // It ends by itself: what was decided before it does not come back, and neither does the rule.
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    let short = json!({ "productId": "lamp", "boost": 100, "until": until.to_string(), "note": "an hour of fame" });
    desk.done(RULE, json!({ "input": short })).await;
    desk.until_shown("ever", &[("lamp", 120.0), ("pan", 5.4)]).await;
    desk.until_shown("ever", &[("pan", 5.4), ("lamp", 1.2)]).await;
    assert!(jiff::Timestamp::now() >= until, "it ended early");
    let lifted = json!({ "productId": "pan", "note": "mended" });
    desk.done(RULE, json!({ "input": lifted })).await;
    desk.until_shown("daily", &[("pan", 3.6), ("lamp", 1.2)]).await;
    desk.server.assert_verified().await;
}

const LIVE: &str = "subscription($board: ID!) { boardChanges(board: $board, top: 5) { __typename
    ... on BoardSnapshot { reason period { key board { title } } entries { productId score } } } }";
const RANK: &str = "subscription($board: ID!) { productRank(productId: \"pan\", board: $board) { rank score } }";

async fn a_board_that_is_deleted_ends_its_subscriptions_and_can_be_made_anew(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await;
    desk.save(json!({ "id": "season", "title": "Season", "window": "DAY" })).await;
    desk.orders("1", "pan", 5, None).await;
    desk.orders("2", "lamp", 2, None).await;
    desk.until_shown("season", &[("pan", 3.0), ("lamp", 1.2)]).await;
    let mut socket = Socket::connect(&desk.server.url, json!({})).await;
    let subscribe = |id: &str, query: &str| json!({ "id": id, "type": "subscribe", "payload": { "query": query, "variables": { "board": "season" } } });
    for (id, query) in [("live", LIVE), ("rank", RANK)] {
        socket.send(subscribe(id, query)).await;
        // What else is followed goes on meanwhile.
        while socket.receive().await["id"] != id {}
    }
    let open = desk.server.graphql("ann", "{ admin { system { subscriptions } } }", json!({})).await;
    assert_eq!(open["admin"]["system"]["subscriptions"], 2);

    let gone = desk.done(DELETE, json!({ "id": "season", "note": "it is over" })).await;
    assert_eq!(gone["board"]["id"], "season");
    // Each is told why, and that nothing more comes.
    let mut told: Vec<(String, String)> = Vec::new();
    while told.len() < 4 {
        let message = socket.receive().await;
        let (id, kind) = (message["id"].as_str().unwrap(), message["type"].as_str().unwrap());
        if kind == "next" && message["payload"].get("errors").is_none() {
            // What was under way.
            continue;
        }
        if kind == "next" {
            let error = &message["payload"]["errors"][0];
            assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{message}");
            assert!(error["message"].as_str().unwrap().contains("season has been deleted"), "{message}");
        }
        told.push((id.to_owned(), kind.to_owned()));
    }
    told.sort();
    let both = |id: &str| [(id.to_owned(), "complete".to_owned()), (id.to_owned(), "next".to_owned())];
    assert_eq!(told, [both("live"), both("rank")].concat());
    let open = desk
        .server
        .graphql("ann", "{ admin { system { subscriptions } } board(id: \"season\") { id } }", json!({}))
        .await;
    assert_eq!((&open["admin"]["system"]["subscriptions"], &open["board"]), (&json!(0), &Value::Null));
    socket.send(subscribe("late", LIVE)).await;
    let refused = socket.receive().await;
    assert_eq!(refused["payload"]["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{refused}");
    assert_eq!(socket.receive().await["type"], "complete");

    // Another board of that name, with another window and other products.
    desk.save(json!({ "id": "season", "title": "New season", "window": "ALL_TIME", "category": "Lighting" })).await;
    assert_eq!(desk.page("season").await, (vec![("lamp".to_owned(), 1.2)], "ENGINE".to_owned()));
    socket.send(subscribe("anew", LIVE)).await;
    let first = socket.receive().await;
    let expected = json!({ "__typename": "BoardSnapshot", "reason": "INITIAL",
        "period": { "key": "all", "board": { "title": "New season" } }, "entries": [{ "productId": "lamp", "score": 1.2 }] });
    assert_eq!(first["payload"]["data"]["boardChanges"], expected, "{first}");
    socket.send(subscribe("rank-anew", RANK)).await;
    let rank = loop {
        let message = socket.receive().await;
        if message["id"] == "rank-anew" {
            break message;
        }
    };
    assert_eq!(rank["payload"]["data"]["productRank"], json!({ "rank": null, "score": null }), "{rank}");
    desk.orders("3", "lamp", 1, None).await;
    desk.until_shown("season", &[("lamp", 1.8)]).await;
    desk.server.assert_verified().await;
}

async fn a_saved_board_keeps_its_window(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await;
    desk.orders("1", "lamp", 2, None).await;
    desk.orders("2", "pan", 5, None).await;
    let saved = json!({ "id": "mine", "title": "Mine", "window": "DAY" });
    desk.save(saved.clone()).await;
    assert_eq!(desk.places("mine").await.len(), 2);
    let mut other = saved.clone();
    other["window"] = json!("WEEK");
    let refused = desk.payload("ann", SAVE, json!({ "input": other })).await;
    assert_eq!(refused["userErrors"][0]["code"], "CONFLICT");
    assert_eq!(refused["userErrors"][0]["message"], "is taken by a board with the window DAY");
    // All else may change; who follows the board sees it.
    let mut socket = Socket::connect(&desk.server.url, json!({})).await;
    let payload = json!({ "query": LIVE, "variables": { "board": "mine" } });
    socket.send(json!({ "id": "live", "type": "subscribe", "payload": payload })).await;
    assert_eq!(socket.receive().await["payload"]["data"]["boardChanges"]["period"]["board"]["title"], "Mine");
    let changed = json!({ "id": "mine", "title": "Lights", "window": "DAY", "category": "Lighting" });
    assert_eq!(desk.save(changed).await["board"]["title"], "Lights");
    desk.until_shown("mine", &[("lamp", 1.2)]).await;
    let snapshot = loop {
        let event = socket.receive().await["payload"]["data"]["boardChanges"].clone();
        if event["__typename"] == "BoardSnapshot" {
            break event;
        }
    };
    assert_eq!(snapshot["period"]["board"]["title"], "Lights");
    assert_eq!(snapshot["entries"], json!([{ "productId": "lamp", "score": 1.2 }]));
}

async fn history_that_is_loaded_is_computed_from_where_it_begins(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await;
    desk.save(json!({ "id": "days", "title": "Days", "window": "DAY", "carryOver": 0.5 })).await;
    // Two days of a year ago, as a file.
    let day = |back: i32| {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        today.checked_sub(jiff::Span::new().days(back)).unwrap()
    };
    let (first, second) = (day(365), day(364));
    let path = desk.stack.sqlite_file().with_file_name("orders.csv");
    let rows = format!(
        "id,signal,product_id,count,occurred_at\na,ORDER,lamp,10,{first}T12:00:00Z\nb,ORDER,pan,2,{second}T12:00:00Z\n"
    );
    std::fs::write(&path, rows).unwrap();
    let acclaim = |arguments: &[&str]| {
        let output = desk.stack.command().args(arguments).args(["--url", &desk.server.url]).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    let (code, said) = acclaim(&["import", "events", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = acclaim(&["rebuild", "--board", "days", "--from", &first.to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("days: computed anew, with its periods from {first} to {}", day(1))), "{said}");
    let period = async |key: String| {
        let query = "query($key: String!) { board(id: \"days\") { period(key: $key) { key entries { nodes { productId score } } } } }";
        desk.server.graphql("reader", query, json!({ "key": key })).await["board"]["period"].clone()
    };
    let entries = async |key: String| period(key).await["entries"]["nodes"].clone();
    assert_eq!(entries(first.to_string()).await, json!([{ "productId": "lamp", "score": 6.0 }]));
    let carried = json!([{ "productId": "lamp", "score": 3.0 }, { "productId": "pan", "score": 1.2 }]);
    assert_eq!(entries(second.to_string()).await, carried);
    let third = json!([{ "productId": "lamp", "score": 1.5 }, { "productId": "pan", "score": 0.6 }]);
    assert_eq!(entries(day(363).to_string()).await, third);
    // Every board there is, from a day on.
    let (code, said) = acclaim(&["rebuild", "--from", &second.to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("daily: ") && said.contains("days: "), "{said}");
    assert_eq!(entries(second.to_string()).await, carried);
    for (arguments, why) in [
        (["--board", "nowhere"].as_slice(), "there is no board nowhere; the server has "),
        (&["--board", "days", "--from", "2010-W48"], "is no period of the board days"),
        (&["--board", "days", "--from", "2999-01-01"], "fromPeriod: the period 2999-01-01 begins"),
    ] {
        let (code, said) = acclaim(&[&["rebuild"], arguments].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
    let payload = desk.done(REBUILD, json!({ "id": "days", "from": second.to_string() })).await;
    assert_eq!((&payload["board"]["id"], &payload["fromPeriod"]), (&json!("days"), &json!(second.to_string())));
    desk.server.assert_verified().await;
}

async fn rules_of_a_board_end_with_it(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen"), ("pot", "Kitchen")]).await;
    let season = json!({ "id": "season", "title": "Season", "window": "DAY" });
    desk.save(season.clone()).await;
    for product in ["lamp", "pan", "pot"] {
        desk.orders(product, product, 1, None).await;
    }
    let own = |weight: f64| json!({ "board": "season", "weights": [{ "signal": "ORDER", "weight": weight }], "note": "high season" });
    let first = desk.adjust(own(5.0)).await["version"].clone();
    let second = desk.adjust(own(9.0)).await["version"].clone();
    desk.done(super::CANCEL, json!({ "id": second.to_string(), "note": "too much" })).await;
    let decided = [json!({ "productId": "lamp", "excluded": true }), json!({ "productId": "pan", "boost": 2 })];
    for decision in decided {
        let mut input = json!({ "board": "season", "note": "for the season" });
        input.as_object_mut().unwrap().extend(decision.as_object().unwrap().clone());
        desk.done(RULE, json!({ "input": input })).await;
    }
    // What counts for all boards counts for this one too, once its own rule has gone.
    desk.done(RULE, json!({ "input": { "productId": "pan", "boost": 3, "note": "for all" } })).await;
    desk.until_shown("season", &[("pan", 10.0), ("pot", 5.0)]).await;
    desk.done(DELETE, json!({ "id": "season", "note": "it is over" })).await;
    let entry = desk.audit().await.remove(0);
    let before: Value = serde_json::from_str(entry["before"].as_str().unwrap()).unwrap();
    assert_eq!((&entry["action"], &entry["after"]), (&json!("deleteBoard"), &Value::Null));
    let version = first.as_i64().unwrap();
    assert_eq!(before["rules"], json!([version, version + 3, version + 4]), "what stood for this board");
    let rules = "{ admin { weightRules { nodes { version cancelled } } productRules { productId board } } }";
    let rules = desk.server.graphql("ann", rules, json!({})).await["admin"].clone();
    let cancelled = |version: &Value| json!({ "version": version, "cancelled": true });
    assert_eq!(rules["weightRules"]["nodes"], json!([cancelled(&second), cancelled(&first)]));
    assert_eq!(rules["productRules"], json!([{ "productId": "pan", "board": null }]));
    // Whoever makes a board of that name begins with what counts for all.
    desk.save(season).await;
    desk.until_shown("season", &[("pan", 1.8), ("pot", 0.6), ("lamp", 0.6)]).await;
    let expected = json!({ "expectedVersion": version + 2 });
    let mut input = own(7.0);
    input.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
    let conflict = desk.payload("ann", ADJUST, json!({ "input": input })).await;
    assert_eq!(conflict["userErrors"][0]["code"], "CONFLICT", "the weights of that id have changed: {conflict}");
    desk.server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_at_most_sixty_four_boards() {
    let desk = Desk::new(Setup::Embedded).await;
    let boards = async || desk.server.graphql("ann", "{ boards { id } }", json!({})).await["boards"].clone();
    let shipped = boards().await.as_array().unwrap().len();
    let board = |n: usize| json!({ "id": format!("b{n}"), "title": "One more", "window": "ALL_TIME" });
    for n in shipped..64 {
        desk.save(board(n)).await;
    }
    let audited = desk.audit().await.len();
    let refused = desk.payload("ann", SAVE, json!({ "input": board(64) })).await;
    let error = json!({ "code": "INVALID", "path": ["id"], "message": "there are 64 boards already, which is as many as there may be" });
    assert_eq!(refused["userErrors"], json!([error]));
    assert_eq!((boards().await.as_array().unwrap().len(), desk.audit().await.len()), (64, audited));
    // One that is there may change, and one that goes makes room.
    desk.save(json!({ "id": "b63", "title": "Another title", "window": "ALL_TIME" })).await;
    desk.done(DELETE, json!({ "id": "b63", "note": "room" })).await;
    desk.save(board(64)).await;
}
