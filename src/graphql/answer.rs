//! Writes an answer by walking the normal form: its order is the document's, and a field without a value is null, or makes
//! its parent null ([specification, 6.4.4 Handling Execution Errors]).
//!
//! Errors are those of fields that the walk comes to, as graphql-js executes synchronous resolvers: what stands below a place
//! that has become null, behind the field that made it so, is not reported.
//!
//! [specification, 6.4.4 Handling Execution Errors]: https://spec.graphql.org/draft/#sec-Handling-Execution-Errors

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use apollo_compiler::ast::Type;
use async_graphql::indexmap::IndexMap;
use async_graphql::{Error, Name, PathSegment, Pos, Response, ServerError, Value};
use serde::Serialize;

use super::document::{Field, NormalForm, Object, Selection, Source, TYPE_KEY};
use super::errors::{self, Failure};
use super::executor::Payload;
use crate::pipeline::AppError;

/// The answer to an operation, ready to be sent.
pub struct Answer {
    pub payload: Payload,
    /// The code of its first error, or `OK`.
    pub code: &'static str,
    /// The errors of an operation that was refused as a whole.
    pub refusal: Option<Vec<ServerError>>,
    /// Whether `data` is null.
    pub is_null: bool,
}

/// A response that is nothing but errors: it has no `data`, not even null. Errors of a field say that a subscription could not
/// begin, which graphql-js answers and does not refuse.
impl From<Response> for Answer {
    fn from(refused: Response) -> Self {
        #[derive(Serialize)]
        struct Refused<'a> {
            errors: &'a [ServerError],
        }
        let code = errors::outcome(&refused);
        let mut payload = Vec::new();
        write_json(&mut payload, &Refused { errors: &refused.errors });
        let payload = payload.into();
        let is_refusal = refused.errors.iter().all(|error| error.path.is_empty());
        Self { payload, code, refusal: is_refusal.then_some(refused.errors), is_null: true }
    }
}

/// Writes one answer, step by step.
pub struct Writer<'a> {
    walk: Walk<'a>,
    form: &'a NormalForm,
    is_null: bool,
}

impl<'a> Writer<'a> {
    /// `introspection` is what `__schema` and `__type` answer; `request_id` is for what fails here.
    pub fn new(form: &'a NormalForm, introspection: &'a IndexMap<Name, Value>, request_id: &'a str) -> Self {
        let mut out = Vec::with_capacity(LEN_USUAL);
        out.extend(DATA);
        let failures = Failures::default();
        let mut walk = Walk { out, path: Vec::new(), failures, errors: Vec::new(), introspection, request_id };
        let is_null = walk.expect_sound(&form.root).is_err();
        Self { walk, form, is_null }
    }

    /// Writes what a step has given. Where it is false, the operation has come to nothing and the next steps are not to be
    /// executed.
    pub fn step(&mut self, fields: Range<usize>, executed: Response) -> bool {
        self.walk.failures = Failures::of(executed.errors);
        let none = IndexMap::new();
        let values = match &executed.data {
            Value::Object(values) => values,
            _ => &none,
        };
        self.is_null = self.walk.fields(&self.form.root, fields, values).is_err();
        !self.is_null
    }

    pub fn finish(self) -> Answer {
        let Walk { mut out, errors, .. } = self.walk;
        if self.is_null {
            out.truncate(DATA.len() - 1);
            out.extend(b"null");
        } else {
            out.push(b'}');
        }
        out.push(b'}');
        if !errors.is_empty() {
            // They come first, so that nobody overlooks them behind a long page (specification, 7.1).
            let mut with_errors = Vec::with_capacity(out.len() + LEN_USUAL);
            with_errors.extend(b"{\"errors\":");
            write_json(&mut with_errors, &errors);
            with_errors.push(b',');
            with_errors.extend(&out[1..]);
            out = with_errors;
        }
        let code = errors.first().map_or("OK", errors::code_name);
        Answer { payload: out.into(), code, refusal: None, is_null: self.is_null }
    }
}

/// How every answer begins.
const DATA: &[u8] = b"{\"data\":{";

/// Bytes that most answers fit into: a page of 20 rows with products has 2.6 KB.
const LEN_USUAL: usize = 4_096;

/// A place that can't be null has no value.
struct Missing;

struct Walk<'a> {
    out: Vec<u8>,
    path: Vec<Segment<'a>>,
    failures: Failures,
    errors: Vec<ServerError>,
    introspection: &'a IndexMap<Name, Value>,
    request_id: &'a str,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Walk<'a> {
    /// Reports why an object can't have a value.
    fn expect_sound(&mut self, object: &Object) -> Result<(), Missing> {
        let Some((failure, pos)) = &object.failure else { return Ok(()) };
        self.report(failure, *pos);
        Err(Missing)
    }

    /// Reports what the document itself makes fail, at the present place.
    fn report(&mut self, failure: &Failure, pos: Pos) {
        let mut error = Error::from(failure.clone()).into_server_error(pos);
        error.path = self.path();
        errors::name(&mut error, self.request_id);
        self.errors.push(error);
    }

    fn object(&mut self, object: &'a Object, values: &IndexMap<Name, Value>) -> Result<(), Missing> {
        self.expect_sound(object)?;
        self.out.push(b'{');
        self.fields(object, 0..object.fields.len(), values)?;
        self.out.push(b'}');
        Ok(())
    }

    fn fields(
        &mut self,
        object: &'a Object,
        fields: Range<usize>,
        values: &IndexMap<Name, Value>,
    ) -> Result<(), Missing> {
        for index in fields {
            let field = &object.fields[index];
            // A name has nothing in it that JSON would escape.
            self.out.extend(if index > 0 { &b",\""[..] } else { b"\"" });
            self.out.extend(field.key.as_bytes());
            self.out.extend(b"\":");
            self.path.push(Segment::Key(&field.key));
            self.field(object, field, values)?;
            self.path.pop();
        }
        Ok(())
    }

    fn field(&mut self, object: &Object, field: &'a Field, values: &IndexMap<Name, Value>) -> Result<(), Missing> {
        match &field.source {
            Source::TypeName => {
                write_json(&mut self.out, object.type_name.as_str());
                Ok(())
            }
            Source::Introspection => {
                let value = self.introspection.get(&field.key).unwrap_or(&Value::Null);
                self.value(&field.ty, &field.selection, value)
            }
            Source::Invalid(failure) => {
                self.report(failure, field.pos);
                self.null(&field.ty)
            }
            Source::Resolver => match values.get(&field.key) {
                Some(value) => self.value(&field.ty, &field.selection, value),
                None => self.fail(&field.ty),
            },
        }
    }

    /// A value of a type, or null in its place.
    fn value(&mut self, ty: &Type, selection: &'a Selection, value: &Value) -> Result<(), Missing> {
        let (start, depth) = (self.out.len(), self.path.len());
        match self.present(ty, selection, value) {
            Err(Missing) if !ty.is_non_null() => {
                self.out.truncate(start);
                self.path.truncate(depth);
                self.out.extend(b"null");
                Ok(())
            }
            done => done,
        }
    }

    fn present(&mut self, ty: &Type, selection: &'a Selection, value: &Value) -> Result<(), Missing> {
        match (value, selection) {
            (Value::List(items), _) if ty.is_list() => {
                self.out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    self.path.push(Segment::Index(index));
                    self.value(ty.item_type(), selection, item)?;
                    self.path.pop();
                }
                self.out.push(b']');
                Ok(())
            }
            (Value::Object(values), Selection::Object(object)) => self.object(object, values),
            (Value::Object(values), Selection::Abstract(_, objects)) => {
                let is_of = |object: &&Object| matches!(values.get(TYPE_KEY), Some(Value::String(ty)) if *ty == *object.type_name);
                match objects.iter().find(is_of) {
                    Some(object) => self.object(object, values),
                    None => self.fail(ty),
                }
            }
            // async-graphql has null for an object whose fields have all failed.
            (Value::Null, Selection::Object(object)) if !ty.is_list() && self.failures.any_below(&self.path) => {
                self.object(object, &IndexMap::new())
            }
            (Value::Null, _) if ty.is_non_null() => self.fail(ty),
            (Value::Null, _) => {
                // An item of a list may fail by itself.
                self.errors.extend(self.failures.take_at(&self.path));
                self.out.extend(b"null");
                Ok(())
            }
            (value, _) => {
                write_json(&mut self.out, value);
                Ok(())
            }
        }
    }

    /// Reports why the present place has no value.
    fn fail(&mut self, ty: &Type) -> Result<(), Missing> {
        let error = self.failures.take(&self.path).unwrap_or_else(|| {
            let internal = AppError::Internal("a field has neither a value nor an error".to_owned());
            let mut error = Error::from(internal).into_server_error(Default::default());
            errors::name(&mut error, self.request_id);
            error.path = self.path();
            error
        });
        self.errors.push(error);
        self.null(ty)
    }

    fn null(&mut self, ty: &Type) -> Result<(), Missing> {
        if ty.is_non_null() {
            return Err(Missing);
        }
        self.out.extend(b"null");
        Ok(())
    }

    fn path(&self) -> Vec<PathSegment> {
        let owned = |segment: &Segment<'_>| match segment {
            Segment::Key(key) => PathSegment::Field((*key).to_owned()),
            Segment::Index(index) => PathSegment::Index(*index),
        };
        self.path.iter().map(owned).collect()
    }
}

/// The errors of an execution, by their paths as text.
#[derive(Default)]
struct Failures {
    errors: HashMap<String, ServerError>,
    /// Every place above one.
    above: HashSet<String>,
}

impl Failures {
    fn of(errors: Vec<ServerError>) -> Self {
        let mut failures = Self::default();
        for error in errors {
            let mut place = String::new();
            for segment in &error.path {
                failures.above.insert(place.clone());
                push_segment(
                    &mut place,
                    match segment {
                        PathSegment::Field(key) => Segment::Key(key),
                        PathSegment::Index(index) => Segment::Index(*index),
                    },
                );
            }
            failures.errors.entry(place).or_insert(error);
        }
        failures
    }

    fn take(&mut self, path: &[Segment<'_>]) -> Option<ServerError> {
        if self.errors.is_empty() {
            return None;
        }
        let place = place(path);
        self.errors.remove(&place).or_else(|| {
            // A list fails as a whole where an item does.
            let start = format!("{place}.");
            let below = self.errors.keys().filter(|key| key.starts_with(&start)).min()?.clone();
            self.errors.remove(&below)
        })
    }

    /// The error of this very place.
    fn take_at(&mut self, path: &[Segment<'_>]) -> Option<ServerError> {
        if self.errors.is_empty() { None } else { self.errors.remove(&place(path)) }
    }

    fn any_below(&self, path: &[Segment<'_>]) -> bool {
        !self.above.is_empty() && self.above.contains(&place(path))
    }
}

fn place(path: &[Segment<'_>]) -> String {
    let mut place = String::new();
    path.iter().for_each(|segment| push_segment(&mut place, *segment));
    place
}

fn push_segment(place: &mut String, segment: Segment<'_>) {
    if !place.is_empty() {
        place.push('.');
    }
    match segment {
        Segment::Key(key) => place.push_str(key),
        Segment::Index(index) => write!(place, "{index}").expect("a string takes all text"),
    }
}

fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("an answer is made of strings, numbers and lists");
}

#[cfg(test)]
mod tests {
    use async_graphql::Pos;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::graphql::document::{Documents, Request};
    use crate::graphql::limits::DocumentLimits;

    /// What is answered where a resolver gave `data`, and the fields at `failed` an error.
    fn answered(query: &str, data: Json, failed: &[Json]) -> (String, Vec<Json>) {
        let prepared = Documents::new(DocumentLimits::default()).prepare(Request::new(query), 1).0.unwrap();
        let mut response = Response::new(Value::from_json(data).unwrap());
        response.errors = failed
            .iter()
            .map(|path| {
                let mut error = ServerError::new("no", Some(Pos::default()));
                error.path = serde_json::from_value(path.clone()).unwrap();
                error
            })
            .collect();
        let none = IndexMap::new();
        let mut writer = Writer::new(&prepared.form, &none, "id7");
        writer.step(0..prepared.form.root.fields.len(), response);
        let answer: Json = serde_json::from_slice(&writer.finish().payload).unwrap();
        let errors = answer.get("errors").and_then(Json::as_array).into_iter().flatten();
        (answer["data"].to_string(), errors.map(|error| error["path"].clone()).collect())
    }

    const TWO: &str = "{ products(ids: [\"a\", \"b\"]) { currentRank like { count viewerHasLiked } id } }";

    #[test]
    fn a_field_that_failed_is_null_where_it_can_be() {
        let query = "{ product(id: \"a\") { name currentRank id } }";
        let data = json!({ "product": { "id": "a", "name": "A" } });
        let failed = json!(["product", "currentRank"]);
        let expected = json!({ "product": { "name": "A", "currentRank": null, "id": "a" } }).to_string();
        assert_eq!(answered(query, data, std::slice::from_ref(&failed)), (expected, vec![failed]));
    }

    #[test]
    fn null_goes_up_to_the_next_place_that_can_be() {
        let row = |id: &str| json!({ "id": id, "currentRank": 1, "like": { "count": 2, "viewerHasLiked": false } });
        let mut first = row("a");
        first["like"].as_object_mut().unwrap().remove("count");
        first.as_object_mut().unwrap().remove("currentRank");
        let failed = [
            json!(["products", 0, "like", "count"]),
            json!(["products", 0, "currentRank"]),
            json!(["products", 0, "id"]),
        ];
        let (data, errors) = answered(TWO, json!({ "products": [first, row("b")] }), &failed);
        let expected = json!({ "products": [null, { "currentRank": 1, "like": { "count": 2, "viewerHasLiked": false }, "id": "b" }] });
        assert_eq!(serde_json::from_str::<Json>(&data).unwrap(), expected);
        // In the document's order, and none behind the one that made the row null.
        assert_eq!(errors, [json!(["products", 0, "currentRank"]), json!(["products", 0, "like", "count"])]);
    }

    #[test]
    fn nothing_is_left_where_a_root_field_can_not_be_null() {
        let query = "{ a: product(id: \"a\") { id } ranking { totalCount } boards { id } }";
        let data = json!({ "a": null, "boards": [] });
        let (data, errors) = answered(query, data, &[json!(["ranking"]), json!(["boards", 0, "id"])]);
        assert_eq!((data.as_str(), errors), ("null", vec![json!(["ranking"])]));
    }

    #[test]
    fn an_object_whose_fields_have_all_failed_is_still_one() {
        let query = "{ product(id: \"a\") { currentRank entry { rank } } }";
        let failed = [json!(["product", "currentRank"]), json!(["product", "entry"])];
        let expected = json!({ "product": { "currentRank": null, "entry": null } }).to_string();
        assert_eq!(answered(query, json!({ "product": null }), &failed), (expected, failed.to_vec()));
        let none = json!({ "product": null });
        assert_eq!(answered(query, none.clone(), &[]), (none.to_string(), vec![]));
    }
}
