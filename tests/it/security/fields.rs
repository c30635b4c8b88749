//! Every field of the schema, for every kind of caller, over every transport: who may see it, and what the others get.
//!
//! The fields are those that a running server tells of; one that is not in the table fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::ask::{Asking, Live, Transport, code};
use super::schema::{INTROSPECTION, Schema, Way};
use super::tokens::{claims, signed_by_secret};
use crate::auth::guarded_with;
use crate::support::stack::{Server, Stack};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Anyone,
    /// Anyone may ask; there is something only for somebody signed in.
    Viewer,
    SignedIn,
    Ingest,
    Admin,
}

/// Fields by their type.
const TABLE: &[(&str, Who, &str)] = &[
    ("Admin", Who::Admin, "weightRules weightPreview productRules deadLetters auditLog verify system"),
    ("AuditConnection", Who::Admin, "edges nodes pageInfo"),
    ("AuditEdge", Who::Admin, "cursor node"),
    ("AuditEntry", Who::Admin, "nodeId id at actor action target before after note"),
    (
        "Board",
        Who::Anyone,
        "nodeId id title window halfLife category brand timeZone carryOver weights isCurrent nextRollAt current period periods",
    ),
    ("BoardDelta", Who::Anyone, "position seq at fromSeq totalCount changes"),
    ("BoardEvent", Who::Anyone, "position seq at"),
    ("BoardHeartbeat", Who::Anyone, "position seq at freshness"),
    ("BoardPreview", Who::Admin, "board topOverlap kendallTau"),
    ("BoardPayload", Who::Admin, "board fromPeriod userErrors"),
    ("BoardSnapshot", Who::Anyone, "position seq at reason period totalCount entries"),
    ("DeadLetter", Who::Admin, "nodeId id position entry error at"),
    ("DeadLetterConnection", Who::Admin, "edges nodes pageInfo"),
    ("DeadLetterEdge", Who::Admin, "cursor node"),
    ("EngineStatus", Who::Admin, "kind up epoch usedBytes maxBytes full"),
    ("EventResult", Who::Ingest, "eventId status error"),
    ("Explanation", Who::Admin, "total lines"),
    ("Freshness", Who::Anyone, "source asOf degraded"),
    ("LedgerStatus", Who::Admin, "kind up"),
    ("LikeEvent", Who::Anyone, "productId product count at"),
    ("LikePayload", Who::SignedIn, "product liked likeCount changed at durability userErrors"),
    ("LikeState", Who::Anyone, "count"),
    ("LikeState", Who::Viewer, "viewerHasLiked viewerLikedAt"),
    ("Money", Who::Anyone, "amount currency"),
    ("Movement", Who::Anyone, "direction previousRank places"),
    ("Mutation", Who::SignedIn, "toggleLike setLike"),
    ("Mutation", Who::Ingest, "recordEvents upsertProducts"),
    (
        "Mutation",
        Who::Admin,
        "adjustWeights cancelWeights saveBoard deleteBoard setProductRule rebuildBoard replayDeadLetters repair",
    ),
    ("Node", Who::Anyone, "nodeId"),
    ("PageInfo", Who::Anyone, "hasNextPage hasPreviousPage startCursor endCursor"),
    ("Period", Who::Anyone, "nodeId id board key startsAt endsAt status freshness position entries entry around"),
    ("PeriodConnection", Who::Anyone, "edges nodes pageInfo"),
    ("PeriodEdge", Who::Anyone, "cursor node"),
    ("Product", Who::Anyone, "nodeId id name imageUrl price category brand createdAt like currentRank entry"),
    ("ProductConnection", Who::Viewer, "edges pageInfo totalCount nodes"),
    ("ProductEdge", Who::Viewer, "cursor node likedAt"),
    ("ProductRankEvent", Who::Anyone, "at productId rank previousRank score"),
    ("ProductRule", Who::Admin, "nodeId id productId board excluded boost until createdBy createdAt note"),
    ("ProductRulePayload", Who::Admin, "rule userErrors"),
    ("Query", Who::Anyone, "product products board boards ranking node nodes"),
    ("Query", Who::Viewer, "viewer"),
    ("Query", Who::Admin, "admin"),
    ("RankChange", Who::Anyone, "kind productId fromRank toRank score product entry"),
    ("RankMove", Who::Admin, "productId product rankBefore rankAfter scoreBefore scoreAfter"),
    ("RankingConnection", Who::Anyone, "edges nodes pageInfo totalCount period"),
    ("RankingEdge", Who::Anyone, "cursor node"),
    ("RankingEntry", Who::Anyone, "nodeId id rank score productId product movement"),
    ("RankingEntry", Who::Admin, "explanation"),
    ("RecordEventsPayload", Who::Ingest, "recorded duplicates rejected results durability"),
    ("RepairPayload", Who::Admin, "likes activity users userErrors"),
    ("ReplayPayload", Who::Admin, "replayed userErrors"),
    ("ScoreLine", Who::Admin, "source signal count weight points note"),
    ("Subscription", Who::Anyone, "boardChanges productRank likes weightsChanged"),
    ("SystemStatus", Who::Admin, "engine ledger pending oldestPendingMs projectionLagMs deadLetters subscriptions"),
    ("UpsertProductsPayload", Who::Ingest, "upserted userErrors"),
    ("UserError", Who::SignedIn, "code message path"),
    ("VerifyReport", Who::Admin, "checked differing rows"),
    ("VerifyRow", Who::Admin, "target board productId userId expected actual"),
    ("Viewer", Who::Viewer, "nodeId id roles likes"),
    ("Weight", Who::Anyone, "signal weight"),
    ("WeightPreview", Who::Admin, "boards moves"),
    ("WeightRule", Who::Anyone, "nodeId id version board weights from until hours createdAt cancelled"),
    ("WeightRule", Who::Admin, "createdBy note"),
    ("WeightRuleConnection", Who::Admin, "edges nodes pageInfo"),
    ("WeightRuleEdge", Who::Admin, "cursor node"),
    ("WeightsPayload", Who::Admin, "rule version userErrors"),
];

/// What fields are asked with: good enough to be run, so that nothing but the role can be in the way.
const ARGUMENTS: &[(&str, &str)] = &[
    ("Admin.weightPreview", "(input: { weights: [{ signal: VIEW, weight: 100 }], note: \"why\" })"),
    ("Mutation.adjustWeights", "(input: { weights: [{ signal: CART, weight: 1 }], note: \"why\" })"),
    ("Mutation.cancelWeights", "(input: { id: \"1\", note: \"why\" })"),
    ("Mutation.deleteBoard", "(input: { id: \"mine\", note: \"why\" })"),
    ("Mutation.rebuildBoard", "(input: { id: \"daily\" })"),
    ("Mutation.recordEvents", "(input: { events: [{ id: \"e1\", signal: VIEW, productId: \"p0\" }] })"),
    ("Mutation.repair", "(input: {})"),
    ("Mutation.replayDeadLetters", "(input: {})"),
    ("Mutation.saveBoard", "(input: { id: \"mine\", title: \"Mine\", window: DAY })"),
    ("Mutation.setLike", "(input: { productId: \"p1\", liked: true })"),
    ("Mutation.setProductRule", "(input: { productId: \"p0\", boost: 1.5, note: \"why\" })"),
    // Something for its userErrors.
    ("Mutation.toggleLike", "(input: { productId: \"unknown\" })"),
    (
        "Mutation.upsertProducts",
        "(input: { products: [{ id: \"p0\", name: \"Changed\", price: \"1\", currency: \"EUR\" }] })",
    ),
    ("Period.around", "(productId: \"p0\")"),
    ("Period.entry", "(productId: \"p0\")"),
    // Of the product p0.
    ("Query.node", "(nodeId: \"WyIxcCIsInAwIl0\")"),
    ("Query.nodes", "(nodeIds: [\"WyIxcCIsInAwIl0\"])"),
    ("Query.product", "(id: \"p0\")"),
    ("Query.products", "(ids: [\"p0\"])"),
    ("Subscription.likes", "(productIds: [\"p0\"])"),
    ("Subscription.productRank", "(productId: \"p0\")"),
];

/// Everything that an operation which is refused might have changed.
const STATE: &str = "{
    boards { id title } products(ids: [\"p0\", \"p1\"]) { id name like { count } } ranking { nodes { productId score } }
    admin { weightRules { nodes { id cancelled } } productRules { id } deadLetters { nodes { id } } auditLog { nodes { id } } }
}";

struct Caller {
    name: &'static str,
    roles: &'static [&'static str],
    token: Option<String>,
}

impl Caller {
    fn all() -> Vec<Self> {
        let holders: [(&str, &[&str]); 5] = [
            // Somebody known is a user.
            ("guest", &[]),
            ("ann", &["USER"]),
            ("shop", &["INGEST"]),
            ("both", &["USER", "INGEST"]),
            ("boss", &["ADMIN"]),
        ];
        let holders = holders.map(|(name, roles)| {
            let mut claims = claims(name);
            claims["roles"] = json!(roles);
            Self { name, roles, token: Some(signed_by_secret(&claims)) }
        });
        std::iter::once(Self { name: "nobody", roles: &[], token: None }).chain(holders).collect()
    }

    /// The code with which this caller is refused.
    fn refusal(&self, who: Who) -> Option<&'static str> {
        let may = match who {
            Who::Anyone | Who::Viewer => true,
            Who::SignedIn => self.token.is_some(),
            Who::Ingest => self.roles.contains(&"INGEST"),
            Who::Admin => self.roles.contains(&"ADMIN"),
        };
        match (may, &self.token) {
            (true, _) => None,
            (false, Some(_)) => Some("FORBIDDEN"),
            (false, None) => Some("UNAUTHENTICATED"),
        }
    }
}

fn who(table: &BTreeMap<(String, String), Who>, of: &str, field: &str) -> Who {
    table[&(of.to_owned(), field.to_owned())]
}

fn arguments(of: &str, field: &str) -> &'static str {
    let name = format!("{of}.{field}");
    ARGUMENTS.iter().find(|(named, _)| *named == name).map_or("", |(_, arguments)| arguments)
}

/// A document that asks for one field, by a way to its type.
fn document(schema: &Schema, way: &Way, of: &str, field: &str, gives: &str) -> String {
    let asked = format!("{field}{} {}", arguments(of, field), schema.selection(gives, &|_| false));
    let inside =
        way.iter().rev().fold(asked, |inside, (of, field)| format!("{field}{} {{ {inside} }}", arguments(of, field)));
    let is_mutation = way.first().map_or(of, |(root, _)| root) == "Mutation";
    format!("{} {{ {inside} }}", if is_mutation { "mutation" } else { "query" })
}

/// What an answer holds at a way's end, and how far it was found.
fn at_end<'a>(answer: &'a Value, names: &[&str]) -> (&'a Value, usize) {
    let mut at = &answer["data"];
    for (depth, name) in names.iter().enumerate() {
        while let Value::Array(list) = at {
            at = list.first().unwrap_or(&Value::Null);
        }
        match at.get(*name) {
            Some(inside) => at = inside,
            None => return (at, depth),
        }
    }
    (at, names.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_is_for_whom_the_table_says() {
    let settings =
        ["--like-rate", "0", "--connections-per-user", "0", "--connections-per-address", "0", "--budget", "0"];
    let (stack, server) = guarded_with(&settings).await;
    let callers = Caller::all();
    let boss = callers.last().unwrap().token.as_deref();
    let schema = Schema::of(&Asking::over(Transport::Http, &server, None).await.ask(INTROSPECTION).await);

    let table: BTreeMap<_, _> = TABLE
        .iter()
        .flat_map(|(of, who, fields)| fields.split(' ').map(|field| (((*of).to_owned(), field.to_owned()), *who)))
        .collect();
    let served: BTreeSet<_> = schema
        .types
        .iter()
        .flat_map(|(of, fields)| fields.iter().map(|field| (of.clone(), field.name.clone())))
        .collect();
    assert_eq!(served, table.keys().cloned().collect(), "every field stands in the table, and no other");

    // The least restricted way to each type, so that the field itself decides.
    let ways = schema.ways(|of, field| match (of, who(&table, of, field)) {
        ("Mutation", _) => 1_000,
        (_, Who::Anyone) => 1,
        (_, Who::Viewer) => 10,
        _ => 100,
    });
    prepare(&stack, &server, &callers).await;
    let mut reading = Vec::new();
    let mut writing = Vec::new();
    for (of, fields) in &schema.types {
        let Some((_, way)) = ways.get(of) else { continue };
        for field in fields {
            let document = document(&schema, way, of, &field.name, &field.gives);
            let mut names: Vec<_> = way.iter().map(|(_, field)| field.as_str()).collect();
            names.push(&field.name);
            let writes = document.starts_with("mutation");
            // Whoever may ask the mutation may read what it answers.
            let of_whom = if writes { who(&table, "Mutation", names[0]) } else { who(&table, of, &field.name) };
            let case = (document, of_whom, names);
            if writes { writing.push(case) } else { reading.push(case) }
        }
    }

    for transport in Transport::ALL {
        let before = Asking::over(transport, &server, boss).await.ask(STATE).await;
        assert!(before.get("errors").is_none(), "{before}");
        for caller in &callers {
            let mut asking = Asking::over(transport, &server, caller.token.as_deref()).await;
            for (document, who, names) in reading.iter().chain(&writing) {
                let Some(expected) = caller.refusal(*who) else { continue };
                let answer = asking.ask(document).await;
                let context = format!("{transport:?}, {}, {document}: {answer}", caller.name);
                assert_eq!(code(&answer), Some(expected), "{context}");
                let (found, depth) = at_end(&answer, names);
                assert!(found.is_null() || depth < names.len(), "{context}");
            }
        }
        let after = Asking::over(transport, &server, boss).await.ask(STATE).await;
        assert_eq!(after, before, "{transport:?}: what was refused has changed something");
    }
    for transport in Transport::ALL {
        plant_a_difference(&stack).await;
        for caller in &callers {
            let mut asking = Asking::over(transport, &server, caller.token.as_deref()).await;
            for (document, who, names) in reading.iter().filter(|(_, who, _)| caller.refusal(*who).is_none()) {
                let answer = asking.ask(document).await;
                let context = format!("{transport:?}, {}, {document}: {answer}", caller.name);
                assert!(answer.get("errors").is_none(), "{context}");
                let (found, depth) = at_end(&answer, names);
                if *who == Who::Viewer && caller.token.is_none() {
                    assert!(found.is_null(), "{context}");
                } else if *who != Who::Viewer || caller.name == "ann" {
                    assert_eq!(depth, names.len(), "{context}");
                }
                if document.contains("viewerHasLiked") && caller.token.is_some() {
                    assert_eq!(found.as_bool(), Some(caller.name == "ann"), "{context}");
                }
            }
        }
    }
    for transport in Transport::ALL {
        for caller in &callers {
            let mut asking = Asking::over(transport, &server, caller.token.as_deref()).await;
            for (document, _, names) in writing.iter().filter(|(_, who, _)| caller.refusal(*who).is_none()) {
                let answer = asking.ask(document).await;
                let context = format!("{transport:?}, {}, {document}: {answer}", caller.name);
                assert!(answer.get("errors").is_none() && at_end(&answer, names).1 == names.len(), "{context}");
            }
        }
    }
    // What no query reaches is told to subscribers, whole.
    let is_live = |name: &str| !ways.contains_key(name);
    let live = schema.types["Subscription"].iter().map(|field| {
        let (arguments, selected) = (arguments("Subscription", &field.name), schema.selection(&field.gives, &is_live));
        (field.name.as_str(), format!("subscription {{ {}{arguments} {selected} }}", field.name))
    });
    subscribe(&server, &callers, &live.collect::<Vec<_>>()).await;
}

/// Gives every list something to hold.
async fn prepare(stack: &Stack, server: &Server, callers: &[Caller]) {
    let by = async |name: &str, mutation: &str| {
        let token = callers.iter().find(|caller| caller.name == name).unwrap().token.as_deref();
        let answer =
            Asking::over(Transport::Http, server, token).await.ask(&format!("mutation {{ {mutation} }}")).await;
        assert!(answer.get("errors").is_none(), "{mutation}: {answer}");
    };
    by("shop", "upsertProducts(input: { products: [{ id: \"p0\", name: \"Mug\", price: \"2\", currency: \"EUR\" }, { id: \"p1\", name: \"Pot\" }] }) { upserted }").await;
    by("shop", "recordEvents(input: { events: [{ id: \"v\", signal: VIEW, productId: \"p1\" }, { id: \"o\", signal: ORDER, productId: \"p0\" }] }) { recorded }").await;
    by("ann", "setLike(input: { productId: \"p0\", liked: true }) { durability }").await;
    by("boss", "adjustWeights(input: { weights: [{ signal: SHARE, weight: 1 }], note: \"n\" }) { version }").await;
    by("boss", "setProductRule(input: { productId: \"p0\", boost: 2, note: \"n\" }) { rule { id } }").await;
    let at = acclaim::domain::Timestamp::now().as_ms() * 1_000;
    stack.sql(&format!("INSERT INTO dead_letters VALUES ('d', 0, 1, 999999, 'odd', 'it is odd', {at})")).await;
    // Boards follow within a moment.
    crate::support::until("the board shows both", Duration::from_secs(20), async || {
        let shown = "{ ranking { nodes { productId score } } }";
        let answer = Asking::over(Transport::Http, server, None).await.ask(shown).await;
        let nodes = &answer["data"]["ranking"]["nodes"];
        nodes[0]["productId"] == "p0" && nodes[1]["productId"] == "p1" && nodes[0]["score"].as_f64() > Some(1.0)
    })
    .await;
}

/// A like that no event tells of: something for verification to find.
async fn plant_a_difference(stack: &Stack) {
    stack.sql("INSERT OR REPLACE INTO likes VALUES ('ghost', 'p1', TRUE, 0, 0, 0)").await;
}

/// Every caller, on both live transports, until each kind of event has come.
async fn subscribe(server: &Server, callers: &[Caller], live: &[(&str, String)]) {
    let boss = callers.last().unwrap().token.as_deref();
    let ways = [Transport::WebSocket, Transport::EventStream].into_iter();
    let all: Vec<_> = ways
        .flat_map(|way| callers.iter().flat_map(move |caller| live.iter().map(move |one| (way, caller, one))))
        .collect();
    let waiting = AtomicUsize::new(all.len());
    let subscribers = all.iter().map(|(transport, caller, (field, document))| {
        let waiting = &waiting;
        async move {
            let mut wanted: BTreeSet<_> = match *field {
                "boardChanges" => ["BoardSnapshot", "BoardDelta", "BoardHeartbeat"].into(),
                "productRank" => ["ProductRankEvent"].into(),
                "likes" => ["LikeEvent"].into(),
                "weightsChanged" => ["WeightRule"].into(),
                other => panic!("{other} is new"),
            };
            let mut live = Live::open(*transport, server, caller.token.as_deref(), document).await;
            let mut waits = true;
            while !wanted.is_empty() {
                let event = live.next().await;
                assert!(event.get("errors").is_none(), "{transport:?}, {}, {document}: {event}", caller.name);
                wanted.remove(event["data"][*field]["__typename"].as_str().unwrap());
                // A heartbeat comes when nothing changes any more.
                if waits && wanted.iter().all(|kind| *kind == "BoardHeartbeat") {
                    waits = false;
                    waiting.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    });
    let changes = async {
        let mut asking = Asking::over(Transport::Http, server, boss).await;
        let shop = callers.iter().find(|caller| caller.name == "shop").unwrap().token.as_deref();
        let mut shop = Asking::over(Transport::Http, server, shop).await;
        for round in 0.. {
            if waiting.load(Ordering::SeqCst) == 0 {
                return;
            }
            shop.ask(&format!("mutation {{ recordEvents(input: {{ events: [{{ id: \"r{round}\", signal: VIEW, productId: \"p1\" }}] }}) {{ recorded }} }}")).await;
            asking.ask("mutation { adjustWeights(input: { weights: [{ signal: SHARE, weight: 2 }], note: \"n\" }) { version } }").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::join!(join_all(subscribers), changes);
    // One answer is all that HTTP has.
    for caller in callers {
        let mut asking = Asking::over(Transport::Http, server, caller.token.as_deref()).await;
        for (_, document) in live {
            assert_eq!(code(&asking.ask(document).await), Some("BAD_USER_INPUT"), "{document}");
        }
    }
}
