//! Subscriptions: what is shared among them, what leads from one event to the next, and what happens to those who come
//! back or fall behind. In one process, over memory and SQLite.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use acclaim::domain::UserId;
use acclaim::graphql::Payload;
use acclaim::graphql::guards::{Caller, Role};
use acclaim::graphql::sharing::VIEWER_FIELDS;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};

use crate::graphql::Site;
use crate::support::live::View;
use crate::support::{told, until};

const TIME_MAX: Duration = Duration::from_secs(20);

/// A live board, as a client of [`View`] asks for it.
const LIVE: &str = "subscription($top: Int! = 10, $resume: String, $maxRate: Float = 10) {
    boardChanges(top: $top, resume: $resume, resumeWith: DELTA, maxRate: $maxRate) { __typename position seq
        ... on BoardSnapshot { reason totalCount entries { productId score } }
        ... on BoardDelta { fromSeq totalCount changes { kind productId fromRank toRank score } } } }";

type Events = BoxStream<'static, Payload>;

fn user(name: &str) -> Caller {
    Caller { user: Some(UserId::new(name).unwrap()), roles: Role::ALL.to_vec(), ..Caller::default() }
}

async fn watch(site: &Site, variables: Value) -> Events {
    site.payloads(LIVE, variables, user("ann")).await
}

async fn raw(events: &mut Events) -> Payload {
    tokio::time::timeout(TIME_MAX, events.next()).await.expect("an event in time").expect("the stream goes on")
}

async fn next(events: &mut Events) -> Value {
    let event: Value = serde_json::from_slice(&raw(events).await).unwrap();
    assert!(event.get("errors").is_none(), "{event}");
    event
}

/// The next event that is no heartbeat.
async fn next_news(events: &mut Events) -> Value {
    loop {
        let event = next(events).await;
        if event["data"]["boardChanges"]["__typename"] != "BoardHeartbeat" {
            return event;
        }
    }
}

async fn order(site: &Site, id: &str, product: &str) {
    let record = "mutation($events: [EventInput!]!) { recordEvents(input: { events: $events }) { recorded } }";
    let event = json!({ "id": id, "signal": "ORDER", "productId": product });
    assert_eq!(site.data(record, json!({ "events": [event] })).await["recordEvents"]["recorded"], 1);
}

async fn ranking(site: &Site, first: usize) -> Vec<(String, f64)> {
    let query = format!("{{ ranking(first: {first}) {{ nodes {{ productId score }} }} }}");
    let page = site.data(&query, json!({})).await["ranking"]["nodes"].clone();
    View::of_page("0-0", &page).shown
}

/// Takes events until the view is what a query shows.
async fn follow(site: &Site, view: &mut View, events: &mut Events) {
    let settled = async {
        while ranking(site, 10).await != view.shown {
            view.take_payload(&next(events).await);
        }
    };
    tokio::time::timeout(TIME_MAX, settled).await.expect("the view becomes what a query shows");
}

/// A site whose board is published as it stands.
async fn settled(count: usize) -> Site {
    let site = Site::with_board(count).await;
    until("the filled board is published", TIME_MAX, async || {
        next(&mut watch(&site, json!({})).await).await["data"]["boardChanges"]["totalCount"] == count
    })
    .await;
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_ask_the_same_share_one_execution_and_its_bytes() {
    let site = settled(3).await;
    let mut all = Vec::new();
    for n in 0..50 {
        // Who asks makes no difference, nor where a member has come from.
        let resume = if n % 2 == 0 { Value::Null } else { json!("1-0+") };
        all.push(site.payloads(LIVE, json!({ "resume": resume }), user(&format!("u{n}"))).await);
    }
    for events in &mut all {
        next(events).await;
    }
    let before = site.api.metrics().executions();
    order(&site, "one", "p0").await;
    let mut heard = Vec::new();
    for events in &mut all {
        heard.push(raw(events).await);
    }
    assert!(heard.iter().all(|payload| payload.as_ptr() == heard[0].as_ptr()), "the same bytes, not the like of them");
    assert_eq!(site.api.metrics().executions(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_depends_on_the_viewer_is_executed_for_each() {
    let site = settled(1).await;
    site.data("mutation { toggleLike(input: { productId: \"p0\" }) { liked } }", json!({})).await;
    let own =
        "subscription { boardChanges { ... on BoardSnapshot { entries { product { like { viewerHasLiked } } } } } }";
    for (name, liked) in [("ann", true), ("bob", false)] {
        let mut events = site.payloads(own, json!({}), user(name)).await;
        let entry = &next(&mut events).await["data"]["boardChanges"]["entries"][0];
        assert_eq!(entry["product"]["like"]["viewerHasLiked"], liked, "{name}");
    }
    let mut anonymous = site.payloads(own, json!({}), Caller::default()).await;
    let entry = &next(&mut anonymous).await["data"]["boardChanges"]["entries"][0];
    assert_eq!(entry["product"]["like"]["viewerHasLiked"], Value::Null);
}

/// The schema's types, as introspection tells them.
struct Types(BTreeMap<String, Value>);

impl Types {
    async fn of(site: &Site) -> Self {
        let inner = "kind name ofType { kind name ofType { kind name ofType { kind name } } }";
        let query = format!(
            "{{ __schema {{ types {{ name kind possibleTypes {{ name }} fields {{ name type {{ {inner} }}
                args {{ name defaultValue type {{ kind }} }} }} }} }} }}"
        );
        let types = site.data(&query, json!({})).await["__schema"]["types"].clone();
        let named = |one: &Value| (one["name"].as_str().unwrap().to_owned(), one.clone());
        Self(types.as_array().unwrap().iter().map(named).collect())
    }

    fn fields(&self, name: &str) -> &[Value] {
        self.0[name]["fields"].as_array().map_or(&[], Vec::as_slice)
    }

    /// A field's innermost type.
    fn inner<'a>(&self, field: &'a Value) -> &'a str {
        let mut of = &field["type"];
        while !of["ofType"].is_null() {
            of = &of["ofType"];
        }
        of["name"].as_str().unwrap()
    }

    /// For every field below a subscription, by the shortest way: a document that selects it, and the event it is of.
    fn documents(&self) -> Vec<(String, String, String)> {
        let mut documents = Vec::new();
        let mut seen = HashSet::new();
        let mut queue: VecDeque<(String, String, String, String)> = VecDeque::new();
        let is_shared = |of: &str, field: &Value| !VIEWER_FIELDS.contains(&(of, field["name"].as_str().unwrap()));
        for root in self.fields("Subscription").iter().filter(|root| is_shared("Subscription", root)) {
            let event = self.inner(root).to_owned();
            let head = format!("subscription {{ {} {{ ", call(root));
            let kinds = self.0[&event]["possibleTypes"].as_array().cloned().unwrap_or_default();
            if kinds.is_empty() {
                queue.push_back((event.clone(), format!("{head} __typename "), "} }".to_owned(), event));
            }
            for kind in kinds {
                let kind = kind["name"].as_str().unwrap().to_owned();
                let head = format!("{head} __typename ... on {kind} {{ ");
                queue.push_back((kind.clone(), head, "} } }".to_owned(), kind));
            }
        }
        while let Some((of, head, tail, event)) = queue.pop_front() {
            if !seen.insert(of.clone()) {
                continue;
            }
            for field in self.fields(&of).iter().filter(|field| is_shared(&of, field)) {
                let name = field["name"].as_str().unwrap();
                let inner = self.inner(field);
                let selected = if self.fields(inner).is_empty() { "" } else { "{ __typename }" };
                documents.push((
                    format!("{of}.{name}"),
                    format!("{head}{} {selected}{tail}", call(field)),
                    event.clone(),
                ));
                if !selected.is_empty() {
                    let head = format!("{head}{} {{ ", call(field));
                    queue.push_back((inner.to_owned(), head, format!("}} {tail}"), event.clone()));
                }
            }
        }
        documents
    }
}

/// A field with the arguments that it can't do without.
fn call(field: &Value) -> String {
    let needed = field["args"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|argument| argument["type"]["kind"] == "NON_NULL" && argument["defaultValue"].is_null());
    let given = needed.map(|argument| match argument["name"].as_str().unwrap() {
        "productIds" => "productIds: [\"p0\"]".to_owned(),
        name => format!("{name}: \"p0\""),
    });
    let given: Vec<_> = given.collect();
    let arguments = if given.is_empty() { String::new() } else { format!("({})", given.join(", ")) };
    format!("{}{arguments}", field["name"].as_str().unwrap())
}

/// A field that depends on the viewer, and is not declared to, fails where it is executed for everyone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_field_that_depends_on_the_viewer_is_ever_shared() {
    let site = settled(3).await;
    let types = Types::of(&site).await;
    for (of, name) in VIEWER_FIELDS {
        assert!(types.fields(of).iter().any(|field| field["name"] == name), "{of}.{name} is declared and not there");
    }
    let documents = types.documents();
    for covered in
        ["LikeState.count", "BoardDelta.changes", "BoardHeartbeat.freshness", "RankChange.product", "Board.isCurrent"]
    {
        assert!(documents.iter().any(|(field, ..)| field == covered), "{covered} is not among {documents:?}");
    }
    let mut open = Vec::new();
    for (field, query, event) in documents {
        let events =
            [site.payloads(&query, json!({}), user("ann")).await, site.payloads(&query, json!({}), user("bob")).await];
        open.push((field, event, events));
    }
    let mut waiting = Vec::new();
    for (field, event, mut events) in open {
        let first = [raw(&mut events[0]).await, raw(&mut events[1]).await];
        waiting.push((field, event, events, first));
    }
    order(&site, "one", "p0").await;
    // Whoever has the snapshot is waiting for a delta now, and then for a heartbeat: all of them side by side.
    let heard = waiting.into_iter().map(async |(field, event, mut events, mut heard)| {
        while !is_of_event(&field, &event, &heard) {
            heard = [raw(&mut events[0]).await, raw(&mut events[1]).await];
        }
    });
    futures_util::future::join_all(heard).await;
}

/// Whether what two viewers have heard is the event meant; it must be shared between them, and no failure.
fn is_of_event(field: &str, event: &str, heard: &[Payload; 2]) -> bool {
    assert_eq!(heard[0].as_ptr(), heard[1].as_ptr(), "{field} is not shared");
    let payload: Value = serde_json::from_slice(&heard[0]).unwrap();
    assert!(payload.get("errors").is_none(), "{field} depends on the viewer, or fails: {payload}");
    payload["data"].as_object().unwrap().values().next().unwrap()["__typename"] == event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_is_given_exactly_what_was_missed() {
    let site = settled(5).await;
    let mut view = View::default();
    let mut events = watch(&site, json!({})).await;
    let snapshot = next(&mut events).await;
    view.take_payload(&snapshot);
    let position = snapshot["data"]["boardChanges"]["position"].clone();
    drop(events);
    let mut others = watch(&site, json!({ "maxRate": 99 })).await;
    next(&mut others).await;
    for n in 0..3 {
        order(&site, &format!("away-{n}"), &format!("p{n}")).await;
        next_news(&mut others).await;
    }
    let mut events = watch(&site, json!({ "resume": position })).await;
    let missed = next(&mut events).await;
    assert_eq!(missed["data"]["boardChanges"]["__typename"], "BoardDelta", "one merged delta: {missed}");
    assert_eq!(missed["data"]["boardChanges"]["fromSeq"], snapshot["data"]["boardChanges"]["seq"]);
    view.take_payload(&missed);
    follow(&site, &mut view, &mut events).await;
    assert_eq!(view.reasons, ["INITIAL"]);
    // Nothing was missed, so nothing is said until something happens.
    let position = missed["data"]["boardChanges"]["position"].clone();
    let mut again = watch(&site, json!({ "resume": position })).await;
    order(&site, "later", "p4").await;
    let delta = next_news(&mut again).await;
    assert_eq!(delta["data"]["boardChanges"]["__typename"], "BoardDelta", "{delta}");
    view.take_payload(&delta);
    follow(&site, &mut view, &mut again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_leads_nowhere_is_a_gap() {
    let site = settled(2).await;
    for (position, reason) in [("1-999999", "GAP"), ("1-1+", "GAP"), ("0-7", "RECOVERED"), ("99-1", "GAP")] {
        let first = next(&mut watch(&site, json!({ "resume": position })).await).await;
        assert_eq!(first["data"]["boardChanges"]["reason"], reason, "{position}: {first}");
    }
    // The very state that is shown, of another board or of a ledger that went back.
    let shown = next(&mut watch(&site, json!({})).await).await;
    let shown = shown["data"]["boardChanges"]["position"].as_str().unwrap();
    let (epoch, rest) = shown.split_once('.').unwrap();
    let (_, seq) = rest.split_once('-').unwrap();
    for other in [format!("{epoch}-{seq}"), format!("{epoch}.0-{seq}"), format!("{epoch}.1-{seq}")] {
        let first = next(&mut watch(&site, json!({ "resume": other })).await).await;
        assert_eq!(first["data"]["boardChanges"]["reason"], "GAP", "{other} for {shown}: {first}");
    }
    let first = raw(&mut watch(&site, json!({ "resume": "yesterday" })).await).await;
    let refused: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(told(&refused["errors"][0]), json!({ "code": "BAD_USER_INPUT", "argument": "resume" }));
}

/// Pages are read while the board moves all the time, and each is continued live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_on_live_without_a_gap() {
    let site = settled(8).await;
    let mut followed = Vec::new();
    for round in 0..40 {
        order(&site, &format!("o{round}"), &format!("p{}", round * 5 % 8)).await;
        let query = match round % 2 {
            0 => "{ ranking(first: 10) { period { position } nodes { productId score } } }",
            _ => "{ board { current { position entries(first: 10) { nodes { productId score } } } } }",
        };
        let page = site.data(query, json!({})).await;
        let (position, nodes) = match round % 2 {
            0 => (&page["ranking"]["period"]["position"], &page["ranking"]["nodes"]),
            _ => (&page["board"]["current"]["position"], &page["board"]["current"]["entries"]["nodes"]),
        };
        let view = View::of_page(position.as_str().unwrap(), nodes);
        followed.push((view, watch(&site, json!({ "resume": position })).await));
    }
    for (mut view, mut events) in followed {
        follow(&site, &mut view, &mut events).await;
        assert!(view.reasons.iter().all(|reason| reason == "GAP" || reason == "LAGGED"), "{:?}", view.reasons);
    }
    let page = site.data("{ ranking { period { position } } }", json!({})).await;
    until("a board at rest has an exact position", TIME_MAX, async || {
        let page = site.data("{ ranking { period { position } } }", json!({})).await;
        !page["ranking"]["period"]["position"].as_str().unwrap().ends_with('+')
    })
    .await;
    assert!(page["ranking"]["period"]["position"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_behind_is_given_the_newest_and_told_why() {
    let site = settled(3).await;
    let (mut slow, mut quick) = (watch(&site, json!({})).await, watch(&site, json!({})).await);
    let mut view = View::default();
    view.take_payload(&next(&mut slow).await);
    next(&mut quick).await;
    for n in 0..3 {
        order(&site, &format!("o{n}"), &format!("p{n}")).await;
        next_news(&mut quick).await;
    }
    let caught_up = next(&mut slow).await;
    assert_eq!(caught_up["data"]["boardChanges"]["reason"], "LAGGED", "{caught_up}");
    view.take_payload(&caught_up);
    assert_eq!(view.shown, ranking(&site, 10).await);
    order(&site, "more", "p0").await;
    view.take_payload(&next_news(&mut slow).await);
    assert_eq!(view.reasons, ["INITIAL", "LAGGED"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slower_rate_merges_what_falls_in_between() {
    let site = settled(3).await;
    let (mut slow, mut quick) =
        (watch(&site, json!({ "maxRate": 0.5 })).await, watch(&site, json!({ "maxRate": 50 })).await);
    let (mut view, mut all) = (View::default(), View::default());
    view.take_payload(&next(&mut slow).await);
    all.take_payload(&next(&mut quick).await);
    for n in 0..6 {
        order(&site, &format!("o{n}"), &format!("p{}", n % 3)).await;
        all.take_payload(&next_news(&mut quick).await);
    }
    follow(&site, &mut view, &mut slow).await;
    assert_eq!(view.reasons, ["INITIAL"]);
    assert!(view.deltas < all.deltas, "{} and {}", view.deltas, all.deltas);
    for bad in [0.0, -1.0, 1e9] {
        let refused = raw(&mut watch(&site, json!({ "maxRate": bad })).await).await;
        assert!(String::from_utf8_lossy(&refused).contains("maxRate"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_board_is_said_to_be_alive() {
    let site = settled(1).await;
    let query =
        "subscription { boardChanges { __typename seq ... on BoardHeartbeat { freshness { source degraded } } } }";
    let mut events = site.payloads(query, json!({}), user("ann")).await;
    let seq = next(&mut events).await["data"]["boardChanges"]["seq"].clone();
    let alive =
        json!({ "__typename": "BoardHeartbeat", "seq": seq, "freshness": { "source": "ENGINE", "degraded": false } });
    assert_eq!(next(&mut events).await["data"]["boardChanges"], alive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_is_followed_below_the_visible_top() {
    let site = settled(120).await;
    let query = "subscription { productRank(productId: \"p0\") { productId rank previousRank score } }";
    let mut events = site.payloads(query, json!({}), user("ann")).await;
    let rank = |event: &Value| event["data"]["productRank"].clone();
    let first = json!({ "productId": "p0", "rank": 120, "previousRank": null, "score": 0.1 });
    assert_eq!(rank(&next(&mut events).await), first);
    order(&site, "one", "p0").await;
    let now = json!({ "productId": "p0", "rank": 115, "previousRank": 120, "score": 0.7 });
    assert_eq!(rank(&next(&mut events).await), now);
    let stock = "mutation { upsertProducts(input: { products: [{ id: \"new\", name: \"New\" }] }) { upserted } }";
    site.data(stock, json!({})).await;
    let off = "subscription { productRank(productId: \"new\") { rank score } }";
    let first = next(&mut site.payloads(off, json!({}), user("ann")).await).await;
    assert_eq!(rank(&first), json!({ "rank": null, "score": null }));
}

/// Scores of a half-life fade while ranks stand still, so they are told as they are when something moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_is_followed_while_its_score_fades() {
    let site = settled(3).await;
    let query =
        "subscription { productRank(board: \"trending\", productId: \"p0\") { productId rank previousRank score } }";
    let mut events = site.payloads(query, json!({}), user("ann")).await;
    let told = |event: &Value| {
        let told = event["data"]["productRank"].clone();
        (told["rank"].clone(), told["previousRank"].clone(), told["score"].as_f64().unwrap())
    };
    let (rank, previous, before) = told(&next(&mut events).await);
    assert_eq!((rank, previous), (json!(3), Value::Null));
    assert!(0.08 < before && before <= 0.1, "{before}");
    order(&site, "one", "p0").await;
    let (rank, after) = loop {
        let (rank, _, score) = told(&next(&mut events).await);
        if score > before {
            break (rank, score);
        }
    };
    assert_eq!(rank, json!(1));
    // A quarter of an hour is the most that an order can have faded for, and an hour takes half.
    assert!(0.5 < after && after <= before + 0.6, "{after}");
    let shown = "{ product(id: \"p0\") { entry(board: \"trending\") { rank score } } }";
    let shown = site.data(shown, json!({})).await["product"]["entry"].clone();
    assert_eq!(shown["rank"], 1);
    assert!((after - shown["score"].as_f64().unwrap()).abs() < 0.01, "{after} {shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_likes_come_whole() {
    let site = settled(2).await;
    let query = "subscription { likes(productIds: [\"p1\", \"p0\", \"p1\"]) { productId count } }";
    let mut events = site.payloads(query, json!({}), user("ann")).await;
    let like = |event: Value| event["data"]["likes"].clone();
    assert_eq!(like(next(&mut events).await), json!({ "productId": "p0", "count": 0 }));
    assert_eq!(like(next(&mut events).await), json!({ "productId": "p1", "count": 0 }));
    for (liked, count) in [(true, 1), (false, 0)] {
        let set = format!("mutation {{ setLike(input: {{ productId: \"p1\", liked: {liked} }}) {{ liked }} }}");
        site.data(&set, json!({})).await;
        assert_eq!(like(next(&mut events).await), json!({ "productId": "p1", "count": count }));
    }
    for bad in ["[]", "[\"\"]"] {
        let query = format!("subscription {{ likes(productIds: {bad}) {{ count }} }}");
        let refused = raw(&mut site.payloads(&query, json!({}), user("ann")).await).await;
        assert!(String::from_utf8_lossy(&refused).contains("BAD_USER_INPUT"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_rate_delays_neither_what_is_there_nor_signs_of_life() {
    let site = settled(2).await;
    let began = std::time::Instant::now();
    let query = "subscription { productRank(productId: \"p0\", maxRate: 0.02) { rank } }";
    let first = next(&mut site.payloads(query, json!({}), user("ann")).await).await;
    assert_eq!(first["data"]["productRank"]["rank"], 2);
    assert!(began.elapsed() < Duration::from_secs(10), "not the 50 s between two events: {:?}", began.elapsed());
    let mut slow = watch(&site, json!({ "maxRate": 0.02 })).await;
    next(&mut slow).await;
    order(&site, "one", "p0").await;
    // The first change comes at once; the second has to wait, and the stream is alive all the same.
    assert_eq!(next_news(&mut slow).await["data"]["boardChanges"]["__typename"], "BoardDelta");
    order(&site, "two", "p1").await;
    assert_eq!(next(&mut slow).await["data"]["boardChanges"]["__typename"], "BoardHeartbeat");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_misses_a_switch_is_told_its_reason() {
    let site = settled(3).await;
    let (mut slow, mut quick) = (watch(&site, json!({})).await, watch(&site, json!({})).await);
    next(&mut slow).await;
    next(&mut quick).await;
    order(&site, "one", "p0").await;
    next_news(&mut quick).await;
    let weigh = "mutation { adjustWeights(input: { weights: [{ signal: ORDER, weight: 2 }], note: \"test\" })
        { version userErrors { message } } }";
    assert_eq!(site.data(weigh, json!({})).await["adjustWeights"]["version"], 1);
    assert_eq!(next_news(&mut quick).await["data"]["boardChanges"]["reason"], "REWEIGHTED");
    let missed = next(&mut slow).await;
    assert_eq!(missed["data"]["boardChanges"]["reason"], "REWEIGHTED", "not LAGGED: {missed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_field_may_stand_in_a_fragment() {
    let site = settled(1).await;
    let query = "subscription Live { ...Root } fragment Root on Subscription { boardChanges { ...Event } }
        fragment Event on BoardEvent { __typename seq }";
    let first = next(&mut site.payloads(query, json!({}), user("ann")).await).await;
    assert_eq!(first["data"]["boardChanges"]["__typename"], "BoardSnapshot");
}
