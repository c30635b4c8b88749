//! What variables hold, weighed before anything walks or copies them.
//!
//! async-graphql copies a variable's whole value at each place that names it, row by row, so a long list that is named often
//! costs more than the bytes that a client has sent let expect.

use async_graphql::{Name, Value, Variables};
use async_graphql_value::Value as Input;

use super::normal::{Object, Selection};
use crate::graphql::errors::Failure;

/// Weight of all variables that an operation declares: a value and each 32 bytes of text weigh 1. 500 events or products
/// that fill a body of a megabyte weigh less.
const WEIGHT_MAX: usize = 40_000;
/// Weight of the copies that executing an operation may make: the fullest call names its variable once.
const COPIES_MAX: usize = 2 * WEIGHT_MAX;
const TEXT_LEN: usize = 32;
/// Rows that a list is taken to have.
const ROWS: usize = 100;

/// The weight of variables; refuses too large ones without looking at all of them.
pub fn check<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<usize, Failure> {
    let mut left = WEIGHT_MAX;
    match values.into_iter().all(|value| take(value, &mut left)) {
        true => Ok(WEIGHT_MAX - left),
        false => Err(Failure::too_many("variables", WEIGHT_MAX, "the variables hold too many values")),
    }
}

/// Takes a value's weight off what is left; false where that is not enough.
fn take(value: &Value, left: &mut usize) -> bool {
    let own = match value {
        Value::String(text) => 1 + text.len() / TEXT_LEN,
        _ => 1,
    };
    let Some(rest) = left.checked_sub(own) else { return false };
    *left = rest;
    match value {
        Value::List(items) => items.iter().all(|item| take(item, left)),
        Value::Object(fields) => fields.values().all(|field| take(field, left)),
        _ => true,
    }
}

fn of(value: &Value) -> usize {
    let mut left = usize::MAX;
    take(value, &mut left);
    usize::MAX - left
}

/// How often an operation's fields name each variable, rows included.
pub fn uses(root: &Object) -> Vec<(Name, usize)> {
    let mut uses = Vec::new();
    in_object(root, 1, &mut uses);
    uses
}

/// Refuses what would be copied too often. Each step is given all variables, of which `whole` is the weight.
pub fn check_copies(variables: &Variables, whole: usize, uses: &[(Name, usize)], steps: usize) -> Result<(), Failure> {
    let given = whole.saturating_mul(steps);
    let times = uses.iter().map(|(_, times)| *times).fold(0, usize::saturating_add);
    // As a rule all of them together are light enough.
    if given.saturating_add(whole.saturating_mul(times)) <= COPIES_MAX {
        return Ok(());
    }
    let named = uses.iter().filter_map(|(name, times)| Some(of(variables.get(name)?).saturating_mul(*times)));
    match named.fold(given, usize::saturating_add) {
        copies if copies > COPIES_MAX => {
            let message = "the document names long variables too often, or under lists";
            Err(Failure::too_many("variableUses", COPIES_MAX, message))
        }
        _ => Ok(()),
    }
}

fn in_object(object: &Object, rows: usize, uses: &mut Vec<(Name, usize)>) {
    for field in &object.fields {
        field.arguments.iter().for_each(|(_, value)| in_value(value, rows, uses));
        let rows = if field.ty.is_list() { rows.saturating_mul(ROWS) } else { rows };
        match &field.selection {
            Selection::Leaf => {}
            Selection::Object(inner) => in_object(inner, rows, uses),
            Selection::Abstract(_, objects) => objects.iter().for_each(|inner| in_object(inner, rows, uses)),
        }
    }
}

fn in_value(value: &Input, rows: usize, uses: &mut Vec<(Name, usize)>) {
    match value {
        Input::Variable(name) => uses.push((name.clone(), rows)),
        Input::List(items) => items.iter().for_each(|item| in_value(item, rows, uses)),
        Input::Object(fields) => fields.values().for_each(|field| in_value(field, rows, uses)),
        _ => {}
    }
}
