//! What an operation costs, told before it runs: the time that its fields take of server and stores.
//!
//! A field has a price for each object that is asked for it, and one for each time that objects ask together (siblings ask
//! their stores once). Below a list there are as many objects as it may have rows. Prices are medians of both set-ups;
//! `cargo bench --bench cost` shows what documents cost by this table beside what they took, within a factor of three.

use async_graphql::{Value, Variables};
use async_graphql_value::Value as Input;

use super::normal::{Field, Object, Selection, Source};
use crate::graphql::arguments::{RADIUS_MAX, ROWS_MAX};
use crate::graphql::types::audit::LETTERS_MAX;
use crate::graphql::types::record::EVENTS_MAX;
use crate::graphql::types::upsert::PRODUCTS_MAX;

/// Microseconds in a unit.
pub const UNIT: f64 = 10.0;
/// Resolving a field and writing its value.
const FIELD: f64 = 0.6;
/// As above, of an object.
const OBJECT: f64 = 1.2;
/// The schema's description of itself is at hand.
const DESCRIBED: f64 = 0.15;
/// Reading and checking a byte of a document that was not seen lately.
const NEW_BYTE: f64 = 0.2;
/// As above, of a field, wherever its fragment is spread: it is validated, collected and written for the executor.
const NEW_FIELD: f64 = 1.5;

/// Places of a page whose size is not given.
const FIRST: f64 = 20.0;
/// Most boards have a default, a rule of their own, and one to come.
const RULES: f64 = 3.0;
/// Ids in a list.
const IDS_MAX: usize = ROWS_MAX as usize;
/// Lines of an explanation: three signals, and what is carried over.
const LINES: f64 = 4.0;
/// Product rules that count at a time.
const PRODUCT_RULES: f64 = 20.0;

/// What one field takes, in microseconds.
struct Price {
    /// Each time that objects ask together.
    once: f64,
    /// For each object that is asked.
    each: f64,
    rows: Rows,
}

/// How many values a field may have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rows {
    One,
    About(f64),
    /// As the argument says.
    Number(&'static str),
    /// As many as the argument lists, at this place within it. More are refused by its name.
    Listed(&'static [&'static str], usize),
    /// The argument `radius` in both directions.
    Around,
    /// As many as the connection or payload that they belong to was asked for.
    OfParent,
    Boards,
}

/// Prices of what reads or writes, and rows of every list. What isn't here is at hand.
fn price(object: &str, field: &str) -> Price {
    use Rows::{About, Around, Boards, Listed, Number, OfParent, One};
    let (once, each, rows) = match (object, field) {
        ("Query", "product") => (20.0, 0.0, One),
        ("Query", "products") => (20.0, 0.0, Listed(&["ids"], IDS_MAX)),
        ("Query", "boards") => (5.0, 0.0, Boards),
        ("Query", "ranking") => (0.0, 65.0, Number("first")),
        ("Query", "node") => (50.0, 0.0, One),
        ("Query", "nodes") => (50.0, 0.0, Listed(&["nodeIds"], IDS_MAX)),
        ("Viewer", "roles") => (0.0, 0.0, About(2.0)),
        ("Viewer", "likes") => (0.0, 120.0, Number("first")),
        ("Board", "weights") => (0.0, 3.0, About(RULES)),
        ("Board", "isCurrent") => (0.0, 15.0, One),
        ("Board", "current") => (0.0, 30.0, One),
        ("Board", "period") => (0.0, 120.0, One),
        ("Board", "periods") => (0.0, 150.0, Number("first")),
        ("Period", "position") => (0.0, 110.0, One),
        ("Period", "entries") => (0.0, 65.0, Number("first")),
        ("Period", "entry") => (0.0, 50.0, One),
        ("Period", "around") => (0.0, 50.0, Around),
        ("RankingEntry" | "RankMove" | "RankChange" | "LikePayload" | "LikeEvent", "product") => (15.0, 0.5, One),
        ("RankingEntry", "movement") => (60.0, 4.0, One),
        ("RankingEntry", "explanation") => (600.0, 110.0, One),
        ("RankChange", "entry") => (0.0, 0.5, One),
        ("Explanation", "lines") => (0.0, 0.0, About(LINES)),
        ("LikeState", "count") => (30.0, 1.0, One),
        ("LikeState", "viewerHasLiked" | "viewerLikedAt") => (30.0, 1.0, One),
        ("Product", "currentRank" | "entry") => (40.0, 2.0, One),
        ("WeightRule", "weights") => (0.0, 0.0, About(3.0)),
        ("WeightRule", "hours") => (0.0, 0.0, About(1.0)),
        ("UserError", "path") => (0.0, 0.0, About(2.0)),
        (_, "userErrors") => (0.0, 0.0, About(1.0)),
        ("RankingConnection" | "PeriodConnection" | "ProductConnection", "edges" | "nodes") => (0.0, 0.0, OfParent),
        ("WeightRuleConnection" | "AuditConnection" | "DeadLetterConnection", "edges" | "nodes") => {
            (0.0, 0.0, OfParent)
        }
        ("BoardSnapshot", "entries") | ("BoardDelta", "changes") => (0.0, 0.0, OfParent),
        ("RecordEventsPayload", "results") | ("WeightPreview", "moves") => (0.0, 0.0, OfParent),

        ("Admin", "weightRules" | "auditLog" | "deadLetters") => (120.0, 0.0, Number("first")),
        ("Admin", "productRules") => (20.0, 0.0, About(PRODUCT_RULES)),
        ("Admin", "system") => (600.0, 0.0, One),
        // A board of some thousand products, computed twice. How large it is, nobody knows before: one is computed at a time.
        ("Admin", "weightPreview") => (8_000.0, 0.0, Number("top")),
        ("WeightPreview", "boards") => (0.0, 0.0, Boards),
        // It runs once for all who ask, apart from all else.
        ("Admin", "verify") => (10_000.0, 0.0, One),
        ("VerifyReport", "rows") => (0.0, 0.0, About(10.0)),

        ("Mutation", "toggleLike" | "setLike") => (600.0, 0.0, One),
        ("Mutation", "recordEvents") => (500.0, 0.0, Listed(&["input", "events"], EVENTS_MAX)),
        ("Mutation", "upsertProducts") => (500.0, 0.0, Listed(&["input", "products"], PRODUCTS_MAX)),
        ("Mutation", "replayDeadLetters") => (1_000.0, 0.0, Listed(&["input", "ids"], LETTERS_MAX)),
        ("Mutation", "rebuildBoard" | "repair") => (10_000.0, 0.0, One),
        ("Mutation", _) => (2_000.0, 0.0, One),

        // Its first event.
        ("Subscription", "boardChanges") => (120.0, 0.0, Number("top")),
        ("Subscription", "likes") => (120.0, 0.0, Listed(&["productIds"], IDS_MAX)),
        ("Subscription", _) => (150.0, 0.0, One),

        ("__Schema", "types") => (0.0, 0.0, About(110.0)),
        ("__Directive", "locations") => (0.0, 0.0, About(4.0)),
        ("__Schema", "directives") => (0.0, 0.0, About(6.0)),
        ("__Type", "fields") => (0.0, 0.0, About(4.0)),
        ("__Type", "inputFields" | "enumValues" | "possibleTypes" | "interfaces" | "ofType") => (0.0, 0.0, About(0.8)),
        ("__Field" | "__Directive", "args") => (0.0, 0.0, About(0.6)),
        _ => (0.0, 0.0, One),
    };
    Price { once, each, rows }
}

/// What each row that a mutation takes costs to write.
fn written(object: &str, field: &str) -> f64 {
    match (object, field) {
        ("Mutation", "recordEvents") => 45.0,
        ("Mutation", "upsertProducts") => 30.0,
        ("Mutation", "replayDeadLetters") => 100.0,
        // Each is followed.
        ("Subscription", "likes") => 2.0,
        _ => 0.0,
    }
}

/// How many objects are asked, and how often they ask together.
#[derive(Clone, Copy)]
struct Asked {
    objects: f64,
    groups: f64,
    /// Rows that each connection above them was asked for.
    page: f64,
}

struct Prices<'a> {
    variables: &'a Variables,
    boards: f64,
}

/// Units that an operation takes. `boards` is how many there are.
pub fn of(root: &Object, variables: &Variables, boards: usize) -> u64 {
    let prices = Prices { variables, boards: boards as f64 };
    units(prices.of_object(root, Asked { objects: 1.0, groups: 1.0, page: 1.0 }))
}

/// Units of bringing an operation into its normal form.
pub fn of_form(field_count: usize) -> u64 {
    units(field_count as f64 * NEW_FIELD)
}

/// Units of reading a document that was not seen lately.
pub fn of_document(len: usize) -> u64 {
    units(len as f64 * NEW_BYTE)
}

fn units(micros: f64) -> u64 {
    (micros / UNIT).ceil() as u64
}

impl Prices<'_> {
    fn of_object(&self, object: &Object, asked: Asked) -> f64 {
        object.fields.iter().map(|field| self.of_field(&object.type_name, field, asked)).sum()
    }

    fn of_field(&self, object: &str, field: &Field, asked: Asked) -> f64 {
        let is_described = field.source == Source::Introspection || object.starts_with("__");
        let own = match &field.selection {
            _ if is_described => DESCRIBED,
            Selection::Leaf => FIELD,
            _ => OBJECT,
        };
        let Price { once, each, rows } = price(object, &field.name);
        let (rows, page) = match rows {
            Rows::OfParent => (asked.page, asked.page),
            // A page counts where its connection's lists are asked for.
            Rows::Number(_) => (1.0, self.count(rows, field)),
            Rows::Listed(..) if !field.ty.is_list() => (1.0, self.count(rows, field)),
            _ => (self.count(rows, field), asked.page),
        };
        let objects = asked.objects * rows;
        let below = Asked { objects, groups: if field.ty.is_list() { asked.objects } else { asked.groups }, page };
        let inner = match &field.selection {
            Selection::Leaf => 0.0,
            Selection::Object(inner) => self.of_object(inner, below),
            // A value has one of the types.
            Selection::Abstract(_, all) => all.iter().map(|inner| self.of_object(inner, below)).fold(0.0, f64::max),
        };
        let written = written(object, &field.name) * page;
        asked.groups * once + asked.objects * (each + written) + own * objects + inner
    }

    fn count(&self, rows: Rows, field: &Field) -> f64 {
        let argument = |name: &str| field.arguments.iter().find(|(given, _)| given == name).map(|(_, value)| value);
        // What is out of bounds is refused by its name.
        let most = f64::from(ROWS_MAX);
        match rows {
            Rows::One | Rows::OfParent => 1.0,
            Rows::About(rows) => rows,
            Rows::Boards => self.boards,
            Rows::Number(name) => argument(name).and_then(|value| self.number(value)).unwrap_or(FIRST).clamp(1.0, most),
            Rows::Around => {
                let radius = argument("radius").and_then(|value| self.number(value)).unwrap_or(5.0);
                2.0 * radius.clamp(0.0, f64::from(RADIUS_MAX)) + 1.0
            }
            Rows::Listed(path, most) => {
                let (name, inside) = path.split_first().expect("an argument has a name");
                argument(name).map_or(1.0, |value| self.len(value, inside)).min(most as f64)
            }
        }
    }

    fn number(&self, value: &Input) -> Option<f64> {
        match value {
            Input::Number(number) => number.as_f64(),
            Input::Variable(name) => match self.variables.get(name) {
                Some(Value::Number(number)) => number.as_f64(),
                _ => None,
            },
            _ => None,
        }
    }

    fn len(&self, value: &Input, inside: &[&str]) -> f64 {
        match (value, inside) {
            (Input::Variable(name), _) => self.variables.get(name).map_or(1.0, |value| given_len(value, inside)),
            (Input::Object(fields), [name, inside @ ..]) => {
                fields.get(*name).map_or(1.0, |value| self.len(value, inside))
            }
            (Input::List(items), []) => items.len() as f64,
            _ => 1.0,
        }
    }
}

/// As [`Prices::len`], of a value without variables.
fn given_len(value: &Value, inside: &[&str]) -> f64 {
    match (value, inside) {
        (Value::Object(fields), [name, inside @ ..]) => fields.get(*name).map_or(1.0, |value| given_len(value, inside)),
        (Value::List(items), []) => items.len() as f64,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use apollo_compiler::schema::ExtendedType;
    use serde_json::json;

    use super::super::definitions::Definitions;
    use super::super::{Documents, Request};
    use super::*;
    use crate::graphql::DocumentLimits;

    fn cost(query: &str, variables: serde_json::Value) -> u64 {
        let limits = DocumentLimits { cost: usize::MAX, ..DocumentLimits::default() };
        let request = Request::new(query).variables(Variables::from_json(variables));
        let prepared = Documents::new(limits).prepare(request, 6).0.unwrap();
        of(&prepared.form.root, &prepared.variables, 6)
    }

    #[test]
    fn every_list_has_its_rows() {
        let definitions = Definitions::of_the_api();
        for (name, ty) in &definitions.schema().types {
            let ExtendedType::Object(object) = ty else { continue };
            for (field, definition) in &object.fields {
                if definition.ty.is_list() {
                    assert_ne!(price(name, field).rows, Rows::One, "{name}.{field}");
                }
            }
        }
    }

    #[test]
    fn a_list_costs_its_rows() {
        let page = |first: u32| cost("query($n: Int) { ranking(first: $n) { nodes { rank } } }", json!({ "n": first }));
        assert!(page(100) > page(20) && page(20) > page(1));
        assert_eq!(page(20), cost("{ ranking { nodes { rank } } }", json!({})));
        assert_eq!(
            page(100),
            cost("{ ranking(first: 1000000) { nodes { rank } } }", json!({})),
            "as many as there may be"
        );
        let ids: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        let by_ids = |ids: &[String]| cost("query($i: [ID!]!) { products(ids: $i) { id } }", json!({ "i": ids }));
        assert!(by_ids(&ids) >= by_ids(&ids[..1]) + 10);
        let events = |count: usize| {
            let event = json!({ "id": "e", "signal": "VIEW", "productId": "p" });
            let input = json!({ "i": { "events": vec![event; count] } });
            cost("mutation($i: RecordEventsInput!) { recordEvents(input: $i) { recorded } }", input)
        };
        assert!(events(500) > 10 * events(1));
    }

    #[test]
    fn what_stands_twice_costs_twice() {
        let once = "a: ranking { nodes { rank } }";
        let twice = format!("{{ {once} {} }}", once.replace("a:", "b:"));
        let once = cost(&format!("{{ {once} }}"), json!({}));
        assert!(cost(&twice, json!({})).abs_diff(2 * once) <= 1);
    }

    #[test]
    fn what_lies_below_lists_is_multiplied() {
        let deep = "{ boards { periods(first: 100) { nodes { entries(first: 100) { nodes { product { id } } } } } } }";
        assert!(cost(deep, json!({})) > 6 * 100 * 100 / 10, "{}", cost(deep, json!({})));
        assert!(cost("{ __schema { types { name } } }", json!({})) < 10);
        let all: String =
            (0..30).map(|n| format!("t{n}: __schema {{ types {{ name fields {{ name }} }} }} ")).collect();
        assert!(cost(&format!("{{ {all} }}"), json!({})) > 100);
    }
}
