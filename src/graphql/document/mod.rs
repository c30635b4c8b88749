//! Documents: parsed, validated and brought into a normal form, once each.
//!
//! ```text
//! text ──> size limits ──> apollo-compiler: parse, validate ──> normal form ──> what async-graphql executes
//! ```
//!
//! A site sends some dozens of different documents for ever. Everything that looks at one (execution, the answer, sharing)
//! looks at its [`NormalForm`]: fields collected, fragments inlined, directives resolved, arguments coerced.
//!
//! Invariant: nothing is executed that is not valid by the specification, and within the limits of [`DocumentLimits`].

mod coerce;
mod cost;
mod definitions;
mod introspection;
mod lower;
mod normal;
mod rules;
mod size;
mod text;
mod weight;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apollo_compiler::ast;
use apollo_compiler::executable::{ExecutableDocument, Operation};
use apollo_compiler::validation::{DiagnosticList, Valid};
use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::OperationType;
use async_graphql::{Name, Pos, Response, ServerError, Value, Variables};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Deserialize;

use super::apart;
use super::errors::Failure;
use super::limits::DocumentLimits;
use coerce::Coercion;
pub use definitions::Definitions;
pub use lower::TYPE_KEY;
pub use normal::{Field, NormalForm, Object, Selection, Source, Step};

/// Documents kept: a site sends some dozens of different ones.
const DOCUMENTS_MAX: usize = 1_000;
/// Bytes that a token becomes in a parsed document, about.
const TOKEN_LEN: u64 = 250;
/// Bytes of all documents kept, about. One counts as at least its share, so that this bounds their number as well.
const DOCUMENTS_LEN_MAX: u64 = 32 << 20;
/// Longest document kept, in bytes: longer than any that people write, shorter than what a flood would fill memory with.
const DOCUMENT_LEN_MAX: usize = 4_096;
/// Bytes that a field becomes in a normal form, with what is executed for it, about.
const FIELD_LEN: u64 = 800;

/// Variables of more weight take over a millisecond to be looked at.
const LONG_WEIGHT: usize = 2_000;

/// Documents of more tokens may take over a millisecond to be brought into their normal form.
const LONG_TOKENS: usize = 200;

/// What a client asks to have executed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    pub query: String,
    pub operation_name: Option<String>,
    pub variables: Variables,
}

impl Request {
    pub fn new(query: impl Into<String>) -> Self {
        Self { query: query.into(), ..Self::default() }
    }

    pub fn variables(self, variables: Variables) -> Self {
        Self { variables, ..self }
    }
}

/// A valid document.
#[derive(Debug)]
pub struct Document {
    /// Tells documents apart in the cache of normal forms.
    id: u64,
    valid: Valid<ExecutableDocument>,
    tokens: usize,
}

/// An operation that can be executed with the given variables.
#[derive(Clone)]
pub struct Prepared {
    pub form: Arc<NormalForm>,
    /// Those that the operation declares, coerced to their types, defaults filled in.
    pub variables: Variables,
    /// In units of 10 µs of the time of server and stores.
    pub cost: u64,
}

/// A normal form depends on which variables are given, and on those that directives look at.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FormKey {
    document: u64,
    operation_name: Option<String>,
    given: String,
}

#[derive(Clone)]
struct DocumentWeight;

impl Weighter<String, Arc<Document>> for DocumentWeight {
    fn weight(&self, _: &String, document: &Arc<Document>) -> u64 {
        (document.tokens as u64 * TOKEN_LEN).max(DOCUMENTS_LEN_MAX / DOCUMENTS_MAX as u64)
    }
}

#[derive(Clone)]
struct FormWeight;

impl Weighter<FormKey, Arc<NormalForm>> for FormWeight {
    fn weight(&self, _: &FormKey, form: &Arc<NormalForm>) -> u64 {
        (form.field_count as u64 * FIELD_LEN).max(DOCUMENTS_LEN_MAX / DOCUMENTS_MAX as u64)
    }
}

/// The documents seen lately, by their text, and their normal forms.
pub struct Documents {
    definitions: &'static Definitions,
    valid: Cache<String, Arc<Document>, DocumentWeight>,
    forms: Cache<FormKey, Arc<NormalForm>, FormWeight>,
    limits: DocumentLimits,
}

impl Documents {
    pub fn new(limits: DocumentLimits) -> Self {
        Self {
            definitions: Definitions::of_the_api(),
            valid: Cache::with_weighter(DOCUMENTS_MAX, DOCUMENTS_LEN_MAX, DocumentWeight),
            forms: Cache::with_weighter(DOCUMENTS_MAX, DOCUMENTS_LEN_MAX, FormWeight),
            limits,
        }
    }

    /// The operation that a request asks for, with its cost where there are so many boards, or a response that says why it is
    /// refused; and the units that it has taken to find that out.
    pub fn prepare(&self, request: Request, boards: usize) -> (Result<Prepared, Box<Response>>, u64) {
        let (document, mut read) = match self.valid.get(request.query.as_str()) {
            Some(known) => (Ok(known), 0),
            None => (apart(|| self.parse(&request.query)), cost::of_document(request.query.len())),
        };
        let prepared = document.and_then(|document| self.operation(request, document, boards, &mut read));
        (prepared, read)
    }

    fn operation(
        &self,
        request: Request,
        document: Arc<Document>,
        boards: usize,
        read: &mut u64,
    ) -> Result<Prepared, Box<Response>> {
        let operation = document.valid.operations.get(request.operation_name.as_deref());
        let operation = operation.map_err(|error| refused(Failure::bad("operationName", error.message())))?;
        let declared = operation.variables.iter().filter_map(|variable| request.variables.get(variable.name.as_str()));
        let weight = weight::check(declared).map_err(refused)?;
        let coercion = Coercion { definitions: self.definitions };
        let coerced = || coercion.variables(operation, &request.variables).map_err(refused);
        let variables = if weight > LONG_WEIGHT { apart(coerced)? } else { coerced()? };
        let key = FormKey {
            document: document.id,
            operation_name: request.operation_name.clone(),
            given: given(operation, &variables),
        };
        let form = match self.forms.get(&key) {
            Some(form) => form,
            None => {
                let make = || NormalForm::of(self.definitions, &document.valid, operation, &variables, &self.limits);
                let form = if document.tokens > LONG_TOKENS { apart(make) } else { make() };
                let form = Arc::new(form.map_err(refused)?);
                *read += cost::of_form(form.field_count);
                // A document that is not kept has another id next time.
                if request.query.len() <= DOCUMENT_LEN_MAX {
                    self.forms.insert(key, form.clone());
                }
                form
            }
        };
        weight::check_copies(&variables, weight, &form.uses, form.steps.len()).map_err(refused)?;
        let cost = cost::of(&form.root, &variables, boards);
        if cost > self.limits.cost as u64 {
            let message = "the operation asks for too much: what a field costs, times the rows that it is asked for";
            return Err(refused(Failure::too_many("cost", self.limits.cost, message)));
        }
        Ok(Prepared { form, variables, cost })
    }

    fn parse(&self, query: &str) -> Result<Arc<Document>, Box<Response>> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let (text, tokens) = text::read(query, &self.limits).map_err(refused)?;
        let parsed = ast::Document::parse(&*text, "query").map_err(|found| invalid(&found.errors))?;
        // Before validation, which walks a fragment at each place that spreads it.
        size::check(&parsed, &self.limits).map_err(refused)?;
        let schema = self.definitions.schema();
        let executable = parsed.to_executable(schema).map_err(|found| invalid(&found.errors))?;
        rules::check(self.definitions, &executable).map_err(refused)?;
        let valid = executable.validate(schema);
        let valid = valid.or_else(|found| rules::pardon(found, &parsed, schema).map_err(|found| invalid(&found)))?;
        rules::check_introspection(&valid).map_err(refused)?;
        for operation in valid.operations.iter() {
            NormalForm::check(self.definitions, &valid, operation, &self.limits).map_err(refused)?;
        }
        let document = Arc::new(Document { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), valid, tokens });
        if query.len() <= DOCUMENT_LEN_MAX {
            self.valid.insert(query.to_owned(), document.clone());
        }
        Ok(document)
    }
}

impl Prepared {
    /// What `__schema` and `__type` answer, by response key. The schema describes itself without a resolver.
    pub fn introspection(&self) -> IndexMap<Name, Value> {
        introspection::answer(Definitions::of_the_api(), &self.form, &self.variables)
    }
}

fn kind_of(operation: &Operation) -> OperationType {
    match operation.operation_type {
        ast::OperationType::Query => OperationType::Query,
        ast::OperationType::Mutation => OperationType::Mutation,
        ast::OperationType::Subscription => OperationType::Subscription,
    }
}

/// Which variables are given: a letter for each that is declared.
fn given(operation: &Operation, variables: &Variables) -> String {
    let letter = |value: Option<&Value>| match value {
        None => '-',
        Some(Value::Null) => '0',
        Some(Value::Boolean(true)) => 't',
        Some(Value::Boolean(false)) => 'f',
        Some(_) => 'v',
    };
    operation.variables.iter().map(|variable| letter(variables.get(variable.name.as_str()))).collect()
}

/// A refusal that names no place in the document.
fn refused(failure: impl Into<async_graphql::Error>) -> Box<Response> {
    let mut error = failure.into().into_server_error(Pos::default());
    error.locations.clear();
    Box::new(Response::from_errors(vec![error]))
}

/// Reasons why a document is refused: whoever mends the first ones sees the others next time.
const REASONS_MAX: usize = 20;

/// What parser and validation have found.
fn invalid(found: &DiagnosticList) -> Box<Response> {
    let errors = found.iter().take(REASONS_MAX).map(|diagnostic| {
        let found = diagnostic.to_json();
        let mut error = ServerError::new(found.message, None);
        error.locations = found.locations.iter().map(|at| Pos { line: at.line, column: at.column }).collect();
        error
    });
    Box::new(Response::from_errors(errors.collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prepare(query: &str, variables: serde_json::Value) -> Result<Prepared, Box<Response>> {
        let variables = Variables::from_json(variables);
        let request = Request::new(query).variables(variables);
        Documents::new(DocumentLimits::default()).prepare(request, 1).0
    }

    fn text(query: &str) -> String {
        prepare(query, json!({})).unwrap().form.text.clone()
    }

    fn is_refused(query: &str) -> bool {
        prepare(query, json!({})).is_err()
    }

    #[test]
    fn operations_that_ask_the_same_have_one_normal_form() {
        let plain = "subscription { boardChanges(board: \"daily\", top: 3) { seq ... on BoardSnapshot { reason } } }";
        let dressed = "subscription S { ...A } fragment A on Subscription { boardChanges(top: 3, board: \"daily\") { ...B seq } } \
                       fragment B on BoardEvent { seq ... on BoardSnapshot { reason @include(if: true) } }";
        assert_eq!(text(plain), text(dressed));
        assert_ne!(text(plain), text(&plain.replace("top: 3", "top: 4")));
        assert_ne!(text(plain), text(&plain.replace("seq ...", "s: seq ...")));
        let resumed = plain.replace("top: 3", "top: 3, resume: \"1-7\"");
        assert_eq!(text(plain), text(&resumed));
    }

    #[test]
    fn a_field_stands_once_with_all_that_is_asked_of_it() {
        let twice = "{ product(id: \"a\") { id } ...F } fragment F on Query { product(id: \"a\") { name id } }";
        assert_eq!(text(twice), "query{product:product(id:\"a\"){id:id name:name }}");
        assert_eq!(text("{ viewer { id @skip(if: true) } }"), "query{viewer:viewer{}}");
    }

    #[test]
    fn variables_are_coerced_or_refused() {
        let coerced = |ty: &str, value: serde_json::Value| {
            let query = format!("query($v: {ty}) {{ ranking(first: $v) {{ totalCount }} }}");
            let prepared = prepare(&query, json!({ "v": value, "w": 1 }));
            prepared.ok().map(|prepared| serde_json::to_value(&prepared.variables).unwrap())
        };
        assert_eq!(coerced("Int", json!(3.0)), Some(json!({ "v": 3 })));
        assert_eq!(coerced("Int", json!(null)), Some(json!({ "v": null })));
        for bad in [json!(3.5), json!("3"), json!(true), json!([3, 4]), json!(1_u64 << 31), json!({})] {
            assert_eq!(coerced("Int", bad.clone()), None, "{bad}");
        }
        assert_eq!(coerced("Int!", json!(null)), None);
        let id = |value| match prepare("query($i: ID!) { product(id: $i) { id } }", json!({ "i": value })) {
            Ok(prepared) => prepared.variables.get("i").cloned(),
            Err(_) => None,
        };
        for (sent, text) in [
            (json!(1e17), "100000000000000000"),
            (json!(1.5e25), "1.5e+25"),
            (json!(-0.0), "0"),
            (json!(9_007_199_254_740_993_u64), "9007199254740993"),
        ] {
            assert_eq!(id(sent), Some(Value::String(text.into())));
        }
        assert_eq!(id(json!(1.5)), None);
        let ids = |value| prepare("query($i: [ID!]!) { products(ids: $i) { id } }", json!({ "i": value }));
        assert_eq!(ids(json!(4)).unwrap().variables.get("i"), Some(&Value::List(vec![Value::String("4".into())])));
        assert!(ids(json!([null])).is_err() && ids(json!([["a"]])).is_err());
    }

    #[test]
    fn the_schema_describes_itself() {
        let query = "query($all: Boolean!) { __type(name: \"BoardEvent\") { kind isOneOf possibleTypes { name } \
                     fields(includeDeprecated: $all) { name type { kind ofType { name } } } } \
                     in: __type(name: \"BoardInput\") { isOneOf inputFields { name defaultValue } } no: __type(name: \"Nobody\") { name } }";
        let described = serde_json::to_value(prepare(query, json!({ "all": true })).unwrap().introspection()).unwrap();
        let board_event = &described["__type"];
        assert_eq!((&board_event["kind"], &board_event["isOneOf"]), (&json!("INTERFACE"), &json!(null)));
        let types = json!([{ "name": "BoardDelta" }, { "name": "BoardHeartbeat" }, { "name": "BoardSnapshot" }]);
        assert_eq!(board_event["possibleTypes"], types);
        let position = json!({ "name": "position", "type": { "kind": "NON_NULL", "ofType": { "name": "String" } } });
        assert!(board_event["fields"].as_array().unwrap().contains(&position), "{board_event}");
        assert_eq!(described["in"]["isOneOf"], false);
        let zone = json!({ "name": "timeZone", "defaultValue": "\"UTC\"" });
        assert!(described["in"]["inputFields"].as_array().unwrap().contains(&zone));
        assert_eq!(described["no"], json!(null));
        assert!(is_refused("{ __type(name: \"X\") { fields(includeDeprecated: null) { name } } }"));
        let deep = "fields { type { fields { type { fields { name } } } } }";
        assert!(is_refused(&format!("{{ __type(name: \"Query\") {{ {deep} }} }}")));
        let spread_twice = "{ __type(name: \"Query\") { ...A ofType { ...A possibleTypes { ...A } } } } \
                            fragment A on __Type { possibleTypes { possibleTypes { name } } }";
        assert!(is_refused(spread_twice));
        assert!(!is_refused(&spread_twice.replace(" possibleTypes { ...A }", "")));
    }

    #[test]
    fn an_absent_variable_is_no_argument_and_a_null_one_is() {
        let given = |variables| prepare("query($b: ID) { board(id: $b) { id } }", variables).unwrap().form.clone();
        assert_eq!(given(json!({})).text, "query{board:board{id:id }}");
        assert_eq!(given(json!({ "b": "x" })).text, "query{board:board(id:$b){id:id }}");
        let invalid = given(json!({ "b": null }));
        assert!(matches!(invalid.root.fields[0].source, Source::Invalid(_)));
        assert_ne!(invalid.text, given(json!({})).text, "they answer otherwise");
    }

    #[test]
    fn what_apollo_takes_and_the_specification_refuses_is_refused() {
        for bad in [
            "mutation { setLike(input: { productId: \"a\", productId: \"b\", liked: true }) { liked } }",
            "query($e: ID) { products(ids: [$e]) { id } }",
            "query($p: ID) { viewer { id } ...F } fragment F on Query { products(ids: [$p]) { id } }",
            "mutation($p: String) { saveBoard(input: { id: \"x\", title: $p, window: DAY }) { board { id } } }",
            "query($b: Boolean = null) { viewer @skip(if: $b) { id } }",
            "query($b: ID = [1]) { board(id: $b) { id } }",
            "{ products(ids: [\"a\"]) { id } products(ids: [\"a\", \"b\"]) { id } }",
            "{ product(id: \"a\") { id } product(id: \"\"\"a\"\"\") { id } }",
            "{ products(ids: [\"a\", \"b\"]) { id } products(ids: [\"a\"]) @skip(if: true) { id } }",
            "{ admin { weightRules(first: 9999999999) { nodes { id } } } }",
            "subscription { boardChanges { seq } other: boardChanges { seq } }",
        ] {
            assert!(is_refused(bad), "{bad}");
        }
        for good in [
            "query($p: ID!) { products(ids: [$p]) { id } }",
            "query($b: ID = \"daily\") { board(id: $b) { id } }",
            "query($b: Boolean = true) { viewer @skip(if: $b) { id } }",
            "{ product(id: \"a\") { id } product(id: \"\\u0061\") { id } }",
        ] {
            let refused = prepare(good, json!({ "p": "a" })).err();
            assert!(refused.is_none(), "{good}: {refused:?}");
        }
        let shared =
            "{ nodes(nodeIds: []) { ... on Product { x: __typename } ... on Board { x: isCurrent: category } } }";
        assert!(!is_refused(&shared.replace("isCurrent: ", "")));
        assert!(is_refused(&shared.replace("Board { x: isCurrent: category", "Product { x: category")));
        let twice = "subscription { weightsChanged { note } weightsChanged { id } }";
        assert_eq!(text(twice), "subscription{weightsChanged:weightsChanged{note:note id:id }}");
    }

    #[test]
    fn what_variables_hold_is_bounded_and_so_is_how_often_it_is_copied() {
        let refused = |query: &str, variables: serde_json::Value| match prepare(query, variables).err()?.errors[..] {
            [ref error] => match error.source::<Failure>() {
                Some(Failure::LimitExceeded { limit, .. }) => Some(*limit),
                _ => None,
            },
            _ => None,
        };
        let ids = |count: usize| json!({ "ids": vec!["a"; count], "other": vec!["a"; 300_000] });
        let once = "query($ids: [ID!]!) { products(ids: $ids) { id } }";
        assert_eq!(refused(once, ids(30_000)), None, "and what is not declared is not looked at");
        assert_eq!(refused(once, ids(200_000)), Some("variables"));
        let long = json!({ "ids": ["a".repeat(8_000_000)] });
        assert_eq!(refused(once, long), Some("variables"));
        let often: String = (0..20).map(|n| format!("p{n}: products(ids: $ids) {{ id }} ")).collect();
        let often = format!("query($ids: [ID!]!) {{ {often} }}");
        assert_eq!(refused(&often, ids(100)), None);
        assert_eq!(refused(&often, ids(30_000)), Some("variableUses"));
        let rows = "query($b: ID!) { boards { current { entries { nodes { product { currentRank(board: $b) } } } } } }";
        assert_eq!(refused(rows, json!({ "b": "daily" })), None);
        assert_eq!(refused(rows, json!({ "b": "x".repeat(2_000) })), Some("variableUses"));
    }

    #[test]
    fn a_flood_of_documents_is_not_kept() {
        let documents = Documents::new(DocumentLimits::default());
        for n in 0..500 {
            let ids = "a".repeat(n) + &" id".repeat(1_000);
            let query = format!("{{ v{n}: viewer {{ i: id {} }} }}", &ids[n..]);
            documents.prepare(Request::new(query), 1).0.unwrap();
        }
        assert!(
            documents.valid.weight() <= DOCUMENTS_LEN_MAX && documents.valid.len() < 200,
            "{}",
            documents.valid.len()
        );
        assert!(documents.forms.weight() <= DOCUMENTS_LEN_MAX);
    }

    #[test]
    fn a_document_is_validated_once_and_its_operations_are_told_apart() {
        let documents = Documents::new(DocumentLimits::default());
        let text = "query A { viewer { id } } mutation B { toggleLike(input: { productId: \"a\" }) { liked } }";
        let prepare = |name: Option<&str>| {
            let request = Request { operation_name: name.map(str::to_owned), ..Request::new(text) };
            documents.prepare(request, 1).0.ok()
        };
        let kind = |name| prepare(name).map(|prepared| prepared.form.kind);
        assert_eq!(kind(Some("A")), Some(OperationType::Query));
        assert_eq!(kind(Some("B")), Some(OperationType::Mutation));
        assert_eq!((kind(None), kind(Some("C"))), (None, None));
        let form = || prepare(Some("A")).unwrap().form;
        assert!(Arc::ptr_eq(&form(), &form()));
        assert_eq!(documents.valid.len(), 1);
    }
}
