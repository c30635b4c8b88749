//! Forty documents of all kinds, and the shop that they are asked of.

use serde_json::{Value, json};

use super::support::stack::Server;

pub struct Document {
    pub name: &'static str,
    /// `{n}` in it is another number each time.
    query: String,
    variables: fn(u64) -> Value,
    /// Who ask it at the same time.
    pub clients: usize,
}

impl Document {
    pub fn operation(&self, number: u64) -> (String, Value) {
        (self.query.replace("{n}", &(number % 300 + 1).to_string()), (self.variables)(number))
    }
}

const ROW: &str = "rank score productId";
const PRODUCT: &str = "id name imageUrl price { amount currency } category brand createdAt";
const EXPLANATION: &str = "explanation { total lines { source signal count weight points note } }";
const INTROSPECTION: &str = "{ __schema { queryType { name } types { kind name description
  fields(includeDeprecated: true) { name description args { ...V } type { ...T } isDeprecated deprecationReason }
  inputFields { ...V } interfaces { ...T } enumValues { name description isDeprecated deprecationReason }
  possibleTypes { ...T } } directives { name description locations args { ...V } } } }
  fragment V on __InputValue { name description type { ...T } defaultValue }
  fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } }";

fn nothing(_: u64) -> Value {
    json!({})
}

fn ids(_: u64) -> Value {
    json!({ "ids": (0..100).map(|n| format!("p{n}")).collect::<Vec<_>>() })
}

fn events(number: u64, count: u64) -> Value {
    let event = |n: u64| json!({ "id": format!("{}-{number}-{n}", std::process::id()), "signal": "VIEW", "productId": format!("p{}", (number + n) % 2_000) });
    json!({ "input": { "events": (0..count).map(event).collect::<Vec<_>>() } })
}

pub fn documents() -> Vec<Document> {
    let query = |name, query: String| Document { name, query, variables: nothing, clients: 4 };
    let of_ids = |name, selection: &str| Document {
        name,
        query: format!("query($ids: [ID!]!) {{ products(ids: $ids) {{ {selection} }} }}"),
        variables: ids,
        clients: 4,
    };
    let page =
        |name, first: u32, row: &str| query(name, format!("{{ ranking(first: {first}) {{ nodes {{ {row} }} }} }}"));
    let of_board = |name, board: &str, row: &str| {
        query(name, format!("{{ ranking(board: \"{board}\", first: 100, fromRank: {{n}}) {{ nodes {{ {row} }} }} }}"))
    };
    let record = |name, variables: fn(u64) -> Value| Document {
        name,
        query: "mutation($input: RecordEventsInput!) { recordEvents(input: $input) { recorded } }".to_owned(),
        variables,
        clients: 16,
    };
    let change = |name, query: &str| Document { name, query: query.to_owned(), variables: nothing, clients: 32 };
    vec![
        query("a name", "{ __typename }".to_owned()),
        query("viewer", "{ viewer { id roles } }".to_owned()),
        query("a product", format!("{{ product(id: \"p{{n}}\") {{ {PRODUCT} }} }}")),
        query("a product's likes", "{ product(id: \"p{n}\") { like { count viewerHasLiked } } }".to_owned()),
        query("a product's rank", "{ product(id: \"p{n}\") { currentRank } }".to_owned()),
        of_ids("100 ids", "id"),
        of_ids("100 products", PRODUCT),
        of_ids("100 products' likes", "id like { count viewerHasLiked viewerLikedAt }"),
        of_ids("100 products' places", "id entry { rank score movement { direction places } }"),
        query("boards", "{ boards { id title window } }".to_owned()),
        query(
            "boards in full",
            "{ boards { id title window halfLife timeZone carryOver isCurrent nextRollAt weights { id version note } } }"
                .to_owned(),
        ),
        query("a page of each board", format!("{{ boards {{ current {{ key entries {{ nodes {{ {ROW} }} }} }} }} }}")),
        page("the first place", 1, ROW),
        page("a page of 20 with products", 20, &format!("{ROW} product {{ name imageUrl price {{ amount currency }} }}")),
        page("a page of 100", 100, ROW),
        page("100 with products", 100, &format!("{ROW} product {{ {PRODUCT} }}")),
        page("100 with likes", 100, &format!("{ROW} product {{ name like {{ count viewerHasLiked }} }}")),
        page("100 with movement", 100, &format!("{ROW} movement {{ direction previousRank places }}")),
        page("100 ids of places", 100, "nodeId id"),
        page("100 ranks elsewhere", 100, "product { currentRank(board: \"weekly\") }"),
        query(
            "100 edges",
            format!("{{ ranking(first: 100) {{ edges {{ cursor node {{ {ROW} }} }} pageInfo {{ endCursor }} }} }}"),
        ),
        query("far down", format!("{{ ranking(first: 50, fromRank: {{n}}) {{ totalCount nodes {{ {ROW} }} }} }}")),
        query("around a product", format!("{{ board {{ current {{ around(productId: \"p{{n}}\") {{ {ROW} }} }} }} }}")),
        query("a place", "{ board { current { entry(productId: \"p{n}\") { rank score } } } }".to_owned()),
        query(
            "the open period",
            "{ board { current { key position status startsAt endsAt freshness { source asOf } } } }".to_owned(),
        ),
        query("periods", "{ board(id: \"hourly\") { periods { nodes { key status startsAt endsAt } } } }".to_owned()),
        query(
            "pages of periods",
            format!("{{ board(id: \"hourly\") {{ periods {{ nodes {{ key entries {{ nodes {{ {ROW} }} }} }} }} }} }}"),
        ),
        query(
            "one explanation",
            format!("{{ ranking(first: 1, fromRank: {{n}}) {{ nodes {{ {ROW} {EXPLANATION} }} }} }}"),
        ),
        query(
            "20 explanations",
            format!("{{ ranking(first: 20, fromRank: {{n}}) {{ nodes {{ {ROW} {EXPLANATION} }} }} }}"),
        ),
        of_board("100 explanations of a day", "daily", &format!("{ROW} {EXPLANATION}")),
        of_board("100 explanations of all time", "all-time", &format!("{ROW} {EXPLANATION}")),
        query(
            "what a viewer likes",
            "{ viewer { likes(first: 100) { totalCount edges { likedAt node { id name } } } } }".to_owned(),
        ),
        query(
            "five pages at once",
            format!(
                "{{ {} }}",
                (0..5).map(|n| format!("r{n}: ranking(first: 100) {{ nodes {{ {ROW} product {{ name }} }} }} ")).collect::<String>()
            ),
        ),
        query("names of types", "{ __schema { types { name kind } } }".to_owned()),
        query("the schema", INTROSPECTION.to_owned()),
        query("rules", "{ admin { weightRules { nodes { id version note } } } }".to_owned()),
        query("the audit log", "{ admin { auditLog { nodes { id at actor action } } } }".to_owned()),
        query(
            "the system",
            "{ admin { system { engine { kind up epoch } pending deadLetters subscriptions } } }".to_owned(),
        ),
        query(
            "a preview of a day",
            "{ admin { weightPreview(input: { board: \"daily\", weights: [{ signal: ORDER, weight: 0.{n} }], note: \"n\" }) {
              boards { topOverlap } moves { productId rankBefore rankAfter } } } }"
                .to_owned(),
        ),
        change("a like", "mutation { toggleLike(input: { productId: \"p{n}\" }) { liked } }"),
        change(
            "a like with its product",
            "mutation { toggleLike(input: { productId: \"p{n}\" }) { liked likeCount changed at durability product { id name } } }",
        ),
        record("an event", |number| events(number, 1)),
        record("100 events", |number| events(number, 100)),
        record("500 events", |number| events(number, 500)),
    ]
}

/// Five days of views and orders, boards of other windows, and a user with likes.
pub async fn fill(server: &Server) {
    for (id, window) in [("hourly", "HOUR"), ("weekly", "WEEK"), ("monthly", "MONTH")] {
        let save = "mutation($input: BoardInput!) { saveBoard(input: $input) { userErrors { message } } }";
        let input = json!({ "input": { "id": id, "title": id, "window": window } });
        server.graphql("admin", save, input).await;
    }
    let now = jiff::Timestamp::now();
    for number in 0..200_u64 {
        let event = |n: u64| {
            let turn = number * 500 + n;
            // A few products get most of it.
            let product = 2_000 * (turn * 7_919 % 1_000) * (turn * 104_729 % 1_000) / 1_000_000;
            let before = jiff::SignedDuration::from_secs((turn * 3_571 % 432_000) as i64);
            json!({
                "id": format!("filled-{turn}"),
                "signal": if turn.is_multiple_of(4) { "ORDER" } else { "VIEW" },
                "productId": format!("p{product}"),
                "occurredAt": (now - before).to_string(),
            })
        };
        let input = json!({ "input": { "events": (0..500).map(event).collect::<Vec<_>>() } });
        let record = "mutation($input: RecordEventsInput!) { recordEvents(input: $input) { recorded rejected } }";
        let recorded = server.graphql("shop", record, input).await;
        assert_eq!(recorded["recordEvents"]["rejected"], 0);
    }
    // Closed hours, with their results.
    let from = (now - jiff::SignedDuration::from_hours(40)).strftime("%Y-%m-%dT%HZ").to_string();
    let rebuild =
        "mutation($input: RebuildBoardInput!) { rebuildBoard(input: $input) { fromPeriod userErrors { message } } }";
    let rebuilt = server.graphql("admin", rebuild, json!({ "input": { "id": "hourly", "fromPeriod": from } })).await;
    assert_eq!(rebuilt["rebuildBoard"]["userErrors"], json!([]));
    let closed = "{ board(id: \"hourly\") { isCurrent periods { nodes { key } } } }";
    super::support::until("hours have results", std::time::Duration::from_secs(60), async || {
        let board = server.graphql("reader", closed, json!({})).await;
        board["board"]["isCurrent"] == true && board["board"]["periods"]["nodes"].as_array().unwrap().len() == 20
    })
    .await;
    for number in 0..500 {
        let like = "mutation($id: ID!) { setLike(input: { productId: $id, liked: true }) { liked } }";
        let user = format!("asker-{}-{number}", number % 4);
        server.graphql(&user, like, json!({ "id": format!("p{}", number % 100) })).await;
    }
}
