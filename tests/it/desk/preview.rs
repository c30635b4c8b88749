//! A change of weights looked at first: what is foretold, for which boards, and what is refused.

use serde_json::{Value, json};

use super::{ADJUST, Desk};
use crate::support::stack::Setup;
use crate::support::told;

crate::both_setups!(
    a_preview_foretells_what_the_same_input_does,
    a_preview_refuses_what_a_change_refuses,
    every_mutation_keeps_its_note,
);

const PREVIEW: &str = "query($input: AdjustWeightsInput!, $of: ID, $top: Int) { admin {
    weightPreview(input: $input, movesOf: $of, top: $top) {
        boards { board { id } topOverlap kendallTau } moves { productId rankBefore rankAfter scoreAfter } } } }";

/// What a preview shows of an input, with the moves of one board.
async fn preview(desk: &Desk, input: &Value, of: Value) -> Value {
    let variables = json!({ "input": input, "of": of, "top": 2 });
    desk.server.graphql("ann", PREVIEW, variables).await["admin"]["weightPreview"].clone()
}

/// The boards of a preview, each with how much of its top stays.
fn boards(preview: &Value) -> Vec<(String, f64)> {
    let boards = preview["boards"].as_array().unwrap().iter();
    boards.map(|it| (it["board"]["id"].as_str().unwrap().to_owned(), it["topOverlap"].as_f64().unwrap())).collect()
}

/// The places that a preview foretells.
fn foretold(preview: &Value) -> Vec<(String, f64)> {
    let after = preview["moves"].as_array().unwrap().iter().filter(|step| !step["rankAfter"].is_null());
    after.map(|step| (step["productId"].as_str().unwrap().to_owned(), step["scoreAfter"].as_f64().unwrap())).collect()
}

async fn a_preview_foretells_what_the_same_input_does(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("mug", "Kitchen")]).await;
    desk.orders("1", "lamp", 2, None).await;
    desk.orders("2", "mug", 4, None).await;
    let like = "mutation { setLike(input: { productId: \"lamp\", liked: true }) { liked } }";
    for user in ["ann", "bob", "eve"] {
        desk.server.graphql(user, like, json!({})).await;
    }
    // A board's own rule goes before those for all.
    desk.save(json!({ "id": "mine", "title": "Mine", "window": "DAY" })).await;
    desk.adjust(json!({ "board": "mine", "weights": [{ "signal": "ORDER", "weight": 5 }], "note": "own" })).await;
    desk.until_shown("mine", &[("mug", 20.0), ("lamp", 10.6)]).await;
    desk.until_shown("daily", &[("mug", 2.4), ("lamp", 1.8)]).await;

    let input = json!({ "weights": [{ "signal": "ORDER", "weight": 0.1 }], "note": "likes first" });
    let all = ["all-time", "daily", "hourly", "mine", "monthly", "trending", "weekly"];
    let shown = preview(&desk, &input, Value::Null).await;
    let reached = boards(&shown);
    assert_eq!(reached.iter().map(|(board, _)| board.as_str()).collect::<Vec<_>>(), all);
    assert!(reached.iter().all(|(_, overlap)| *overlap == 1.0), "{shown}");
    let daily = [("lamp".to_owned(), 0.8), ("mug".to_owned(), 0.4)];
    assert_eq!(foretold(&shown), daily, "the moves of daily, where no board is named");
    assert_eq!(shown["moves"][0]["rankAfter"], 1);
    let tau = |shown: &Value, id: &str| {
        shown["boards"].as_array().unwrap().iter().find(|it| it["board"]["id"] == id).unwrap()["kendallTau"].clone()
    };
    assert_eq!((tau(&shown, "daily"), tau(&shown, "mine")), (json!(-1.0), json!(1.0)));
    let mine = preview(&desk, &input, json!("mine")).await;
    assert_eq!(boards(&mine), reached, "whichever board's moves are asked for");
    assert_eq!(foretold(&mine), [("mug".to_owned(), 20.0), ("lamp".to_owned(), 10.6)]);
    let mut each = Vec::new();
    for board in all.iter().filter(|board| **board != "trending") {
        each.push((board, foretold(&preview(&desk, &input, json!(board)).await)));
    }

    desk.adjust(input).await;
    for (board, places) in each {
        let places: Vec<_> = places.iter().map(|(product, score)| (product.as_str(), *score)).collect();
        desk.until_shown(board, &places).await;
    }

    // A change for one board is looked at on that board.
    let input = json!({ "board": "mine", "weights": [{ "signal": "LIKE", "weight": 9 }], "note": "own" });
    let shown = preview(&desk, &input, Value::Null).await;
    assert_eq!(boards(&shown), [("mine".to_owned(), 1.0)]);
    assert_eq!(preview(&desk, &input, json!("mine")).await, shown);
    let places = foretold(&shown);
    desk.adjust(input).await;
    desk.until_shown("mine", &places.iter().map(|(id, score)| (id.as_str(), *score)).collect::<Vec<_>>()).await;
    assert_eq!(desk.audit().await.iter().filter(|entry| entry["action"] == "adjustWeights").count(), 3);
}

async fn a_preview_refuses_what_a_change_refuses(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    let before = desk.audit().await;
    let weights = json!([{ "signal": "VIEW", "weight": 1 }]);
    let cases = [
        json!({ "weights": [], "note": "n" }),
        json!({ "weights": [{ "signal": "VIEW", "weight": -1 }], "note": "n" }),
        json!({ "weights": weights, "note": " " }),
        json!({ "weights": weights, "hours": [24], "note": "n" }),
        json!({ "board": "nowhere", "weights": weights, "note": "n" }),
        json!({ "board": "daily", "weights": weights, "until": "2010-01-01T00:00:00Z", "note": "n" }),
    ];
    for input in cases {
        let refused = desk.payload("ann", ADJUST, json!({ "input": input })).await["userErrors"][0]["path"].clone();
        let path: Vec<_> = refused.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
        let answer = desk.server.try_graphql(Some("ann"), PREVIEW, json!({ "input": input })).await.unwrap();
        let expected = json!({ "code": "BAD_USER_INPUT", "argument": format!("input.{}", path.join(".")) });
        assert_eq!(told(&answer["errors"][0]), expected, "{input}: {answer}");
    }
    let bad = async |variables: Value| {
        let answer = desk.server.try_graphql(Some("ann"), PREVIEW, variables).await.unwrap();
        told(&answer["errors"][0])
    };
    let argument = |name: &str| json!({ "code": "BAD_USER_INPUT", "argument": name });
    let input = json!({ "board": "weekly", "weights": weights, "note": "n" });
    assert_eq!(bad(json!({ "input": input, "of": "daily" })).await, argument("movesOf"), "it is not reached");
    assert_eq!(bad(json!({ "input": input, "of": "nowhere" })).await, argument("movesOf"));
    assert_eq!(bad(json!({ "input": input, "top": 101 })).await, argument("top"));
    let costly = "query($input: AdjustWeightsInput!) { admin { weightPreview(input: $input) { boards { board { periods(first: 100) { nodes { entries(first: 100) { nodes { product { name } } } } } } } } } }";
    let answer = desk.server.try_graphql(Some("ann"), costly, json!({ "input": input })).await.unwrap();
    assert_eq!(answer["errors"][0]["extensions"]["limit"], "cost", "{answer}");
    assert_eq!(desk.audit().await, before);
}

async fn every_mutation_keeps_its_note(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting")]).await;
    let mutations = [
        "rebuildBoard(input: { id: \"daily\", note: $note }) { userErrors { path } }",
        "replayDeadLetters(input: { note: $note }) { userErrors { path } }",
        "repair(input: { note: $note }) { userErrors { path } }",
    ];
    for mutation in mutations {
        let mutation = format!("mutation($note: String) {{ {mutation} }}");
        let before = desk.audit().await.len();
        let refused = desk.payload("ann", &mutation, json!({ "note": " " })).await;
        assert_eq!(refused["userErrors"], json!([{ "path": ["note"] }]), "{mutation}");
        assert_eq!(desk.audit().await.len(), before, "{mutation}");
        desk.done(&mutation, json!({ "note": "why not" })).await;
        // There is nothing to replay, and so nothing to audit.
        if !mutation.contains("replay") {
            assert_eq!(desk.audit().await[0]["note"], "why not", "{mutation}");
        }
    }
}
