//! Input coercion: what variables and literals become as values of their types ([specification, 3.5 to 3.12 and 6.4.1]).
//!
//! apollo-compiler's own coercion refuses whole floats for Int, knows no custom scalar, and takes a list for one in a list.
//!
//! [specification, 3.5 to 3.12 and 6.4.1]: https://spec.graphql.org/draft/

use std::collections::HashSet;

use apollo_compiler::ast::{Type, Value as Literal};
use apollo_compiler::executable::Operation;
use apollo_compiler::schema::{ExtendedType, InputObjectType};
use async_graphql::indexmap::IndexMap;
use async_graphql::{Name, Number, Value, Variables};
use async_graphql_value::Value as Input;

use super::definitions::Definitions;
use crate::graphql::errors::Failure;
use crate::graphql::types::scalars;

/// What an operation is given for a variable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Given {
    Absent,
    Null,
    Value,
}

/// Why a value is not one of its type.
#[derive(Debug, PartialEq)]
pub struct Mismatch {
    /// From the variable or argument down to the value: `weights.0.weight`.
    path: Vec<String>,
    message: String,
}

impl Mismatch {
    fn new(message: impl ToString) -> Self {
        Self { path: Vec::new(), message: message.to_string() }
    }

    fn expected(ty: &Type, found: impl std::fmt::Display) -> Self {
        Self::new(format!("expected type \"{ty}\", found {found}"))
    }

    fn under(mut self, segment: impl ToString) -> Self {
        self.path.insert(0, segment.to_string());
        self
    }

    /// The refusal, for the argument or variable of that name.
    pub fn of(self, name: &str) -> Failure {
        let Self { path, message } = self.under(name);
        Failure::bad(path.join("."), message)
    }
}

#[derive(Clone, Copy)]
pub struct Coercion<'a> {
    pub definitions: &'a Definitions,
}

impl Coercion<'_> {
    /// The values of an operation's variables (CoerceVariableValues). What the operation does not declare is left out.
    pub fn variables(self, operation: &Operation, given: &Variables) -> Result<Variables, Failure> {
        let mut coerced = Variables::default();
        for variable in &operation.variables {
            let name = variable.name.as_str();
            let value = match (given.get(name), &variable.default_value) {
                (Some(value), _) => self.value(&variable.ty, value).map_err(|mismatch| mismatch.of(name))?,
                (None, Some(default)) => {
                    let default = self.literal(&variable.ty, default, &|_| Given::Absent);
                    let default = default.map_err(|mismatch| mismatch.of(name))?;
                    let constant = default.and_then(|value| value.into_const());
                    constant.ok_or_else(|| Failure::bad(name.to_owned(), "its default is no constant"))?
                }
                (None, None) if variable.ty.is_non_null() => {
                    return Err(Mismatch::expected(&variable.ty, "nothing").of(name));
                }
                (None, None) => continue,
            };
            coerced.insert(Name::new(name), value);
        }
        Ok(coerced)
    }

    /// A value that a client has sent as JSON.
    fn value(self, ty: &Type, value: &Value) -> Result<Value, Mismatch> {
        if *value == Value::Null {
            return if ty.is_non_null() { Err(Mismatch::expected(ty, "null")) } else { Ok(Value::Null) };
        }
        if ty.is_list() {
            let items = match value {
                Value::List(items) => items.as_slice(),
                single => std::slice::from_ref(single),
            };
            let coerced = items.iter().enumerate().map(|(index, item)| {
                self.value(ty.item_type(), item).map_err(|mismatch| match value {
                    Value::List(_) => mismatch.under(index),
                    _ => mismatch,
                })
            });
            return coerced.collect::<Result<_, _>>().map(Value::List);
        }
        match (self.definitions.ty(ty.inner_named_type()), value) {
            (Some(ExtendedType::InputObject(object)), Value::Object(fields)) => self.object(object, fields),
            (Some(ExtendedType::Enum(known)), Value::String(name)) if known.values.contains_key(name.as_str()) => {
                Ok(Value::Enum(Name::new(name)))
            }
            (Some(ExtendedType::Scalar(scalar)), Value::String(_) | Value::Number(_) | Value::Boolean(_)) => {
                leaf(scalar.name.as_str(), value.clone(), false).map_err(|message| match message {
                    Some(message) => Mismatch::new(message),
                    None => Mismatch::expected(ty, value),
                })
            }
            _ => Err(Mismatch::expected(ty, value)),
        }
    }

    fn object(self, object: &InputObjectType, given: &IndexMap<Name, Value>) -> Result<Value, Mismatch> {
        if let Some(unknown) = given.keys().find(|name| !object.fields.contains_key(name.as_str())) {
            return Err(Mismatch::new(format!("{} has no such field", object.name)).under(unknown));
        }
        let mut fields = IndexMap::new();
        for (name, field) in &object.fields {
            match given.get(name.as_str()) {
                Some(value) => {
                    let value = self.value(&field.ty, value).map_err(|mismatch| mismatch.under(name))?;
                    fields.insert(Name::new(name), value);
                }
                None if field.is_required() => return Err(Mismatch::expected(&field.ty, "nothing").under(name)),
                // The type's own default counts.
                None => {}
            }
        }
        Ok(Value::Object(fields))
    }

    /// A value as it stands in a document; `None` for a variable that is not given.
    pub fn literal(
        self,
        ty: &Type,
        literal: &Literal,
        given: &dyn Fn(&str) -> Given,
    ) -> Result<Option<Input>, Mismatch> {
        match literal {
            Literal::Variable(name) => {
                return match given(name) {
                    Given::Absent | Given::Null if ty.is_non_null() => {
                        Err(Mismatch::expected(ty, format_args!("nothing in the variable ${name}")))
                    }
                    Given::Absent => Ok(None),
                    Given::Null | Given::Value => Ok(Some(Input::Variable(Name::new(name)))),
                };
            }
            Literal::Null if ty.is_non_null() => return Err(Mismatch::expected(ty, "null")),
            Literal::Null => return Ok(Some(Input::Null)),
            _ => {}
        }
        if ty.is_list() {
            let Literal::List(items) = literal else {
                return Ok(self.literal(ty.item_type(), literal, given)?.map(|item| Input::List(vec![item])));
            };
            let items = items.iter().enumerate().map(|(index, item)| {
                let item = self.literal(ty.item_type(), item, given).map_err(|mismatch| mismatch.under(index))?;
                Ok(item.unwrap_or(Input::Null))
            });
            return items.collect::<Result<_, _>>().map(|items| Some(Input::List(items)));
        }
        let mismatch = || Mismatch::expected(ty, literal);
        match (self.definitions.ty(ty.inner_named_type()), literal) {
            (Some(ExtendedType::InputObject(object)), Literal::Object(fields)) => {
                self.object_literal(object, fields, given).map(Some)
            }
            (Some(ExtendedType::Enum(known)), Literal::Enum(name)) if known.values.contains_key(name) => {
                Ok(Some(Input::Enum(Name::new(name))))
            }
            (Some(ExtendedType::Scalar(scalar)), _) => {
                let (value, is_float) = match literal {
                    Literal::String(text) => (Value::String(text.clone()), false),
                    Literal::Boolean(is) => (Value::Boolean(*is), false),
                    // As long as one likes, since an ID is no number.
                    Literal::Int(number) if scalar.name == "ID" => (Value::String(number.as_str().to_owned()), false),
                    Literal::Int(number) => (Value::Number(number.as_str().parse().map_err(|_| mismatch())?), false),
                    Literal::Float(number) => (Value::Number(number.as_str().parse().map_err(|_| mismatch())?), true),
                    _ => return Err(mismatch()),
                };
                let coerced = leaf(scalar.name.as_str(), value, is_float);
                let coerced = coerced.map_err(|message| message.map_or_else(mismatch, Mismatch::new))?;
                Ok(Some(coerced.into()))
            }
            _ => Err(mismatch()),
        }
    }

    fn object_literal(
        self,
        object: &InputObjectType,
        literal: &[(apollo_compiler::Name, apollo_compiler::Node<Literal>)],
        given: &dyn Fn(&str) -> Given,
    ) -> Result<Input, Mismatch> {
        if let Some((unknown, _)) = literal.iter().find(|(name, _)| !object.fields.contains_key(name)) {
            return Err(Mismatch::new(format!("{} has no such field", object.name)).under(unknown));
        }
        let mut seen = HashSet::new();
        if let Some((twice, _)) = literal.iter().find(|(name, _)| !seen.insert(name)) {
            return Err(Mismatch::new("it stands twice").under(twice));
        }
        let mut fields = IndexMap::new();
        for (name, field) in &object.fields {
            let value = match literal.iter().find(|(known, _)| known == name).map(|(_, value)| &**value) {
                // Its type does not matter where it is not given: the field's default counts.
                Some(Literal::Variable(variable)) if given(variable) == Given::Absent => None,
                Some(value) => self.literal(&field.ty, value, given).map_err(|mismatch| mismatch.under(name))?,
                None => None,
            };
            match value {
                Some(value) => drop(fields.insert(Name::new(name), value)),
                None if field.is_required() => return Err(Mismatch::expected(&field.ty, "nothing").under(name)),
                None => {}
            }
        }
        Ok(Input::Object(fields))
    }
}

/// A scalar's value; an error where it has another type, with a message where the scalar has its own. `is_float`: written
/// with a fraction or an exponent in a document, where it is no whole number even if it has no fraction.
fn leaf(scalar: &str, value: Value, is_float: bool) -> Result<Value, Option<String>> {
    match (scalar, &value) {
        ("Boolean", Value::Boolean(_)) | ("String" | "ID", Value::String(_)) => Ok(value),
        ("Float", Value::Number(number)) if number.as_f64().is_some_and(f64::is_finite) => Ok(value),
        ("Int", Value::Number(number)) if !is_float => {
            let whole = whole(number).and_then(|whole| i32::try_from(whole).ok());
            whole.map(|whole| Value::Number(whole.into())).ok_or(None)
        }
        ("ID", Value::Number(number)) => match whole(number) {
            Some(whole) => Ok(Value::String(whole.to_string())),
            None if number.is_u64() => Ok(Value::String(number.to_string())),
            None => match number.as_f64().filter(|float| float.fract() == 0.0) {
                Some(float) => Ok(Value::String(float_text(float))),
                None => Err(None),
            },
        },
        ("Boolean" | "String" | "ID" | "Float" | "Int", _) => Err(None),
        ("Long", Value::Number(number)) if !is_float => {
            let value = whole(number).map_or(value.clone(), |whole| Value::Number(whole.into()));
            scalars::check(scalar, &value).map(|()| value).map_err(Some)
        }
        _ => scalars::check(scalar, &value).map(|()| value).map_err(Some),
    }
}

/// A large whole number as JavaScript writes it (ECMA-262, Number::toString).
fn float_text(float: f64) -> String {
    match float.abs() < 1e21 {
        true => float.to_string(),
        false => format!("{float:e}").replace('e', "e+"),
    }
}

/// Largest number below which JSON numbers with a fraction of zero are exact.
const WHOLE_MAX: f64 = (1_u64 << 53) as f64;

/// The whole number that a JSON number stands for: `3.0` is 3.
fn whole(number: &Number) -> Option<i64> {
    let of_float = |float: f64| (float.fract() == 0.0 && float.abs() <= WHOLE_MAX).then_some(float as i64);
    number.as_i64().or_else(|| number.as_f64().and_then(of_float))
}
