//! Scalars that GraphQL lacks.

use async_graphql::{InputType, InputValueError, InputValueResult, Pos, Scalar, ScalarType, Value};

use crate::domain::Timestamp;

/// Whether a value is one of a scalar of this API, and if not, why.
pub fn check(scalar: &str, value: &Value) -> Result<(), String> {
    fn parses<T: ScalarType + InputType>(value: &Value) -> Result<(), String> {
        <T as ScalarType>::parse(value.clone())
            .map(drop)
            .map_err(|error| error.into_server_error(Pos::default()).message)
    }
    match scalar {
        "DateTime" => parses::<DateTime>(value),
        "Decimal" => parses::<Decimal>(value),
        "Duration" => parses::<Duration>(value),
        "Long" => parses::<Long>(value),
        _ => Err(format!("{scalar} is no scalar of this API")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DateTime(pub Timestamp);

/// RFC 3339, UTC, millisecond precision.
#[Scalar]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => Timestamp::parse(text).map(Self).map_err(|_| {
                let message = format!("{text:?} is not an instant in RFC 3339 up to 9999-12-30T22:00:00Z");
                InputValueError::custom(message)
            }),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// Kept as text until the input that holds it is checked, so that one bad number refuses its own row and no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decimal(pub String);

/// A decimal number written as a string, for example "29.90".
#[Scalar]
impl ScalarType for Decimal {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Kept as text until the input that holds it is checked, as [`Decimal`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Duration(pub String);

/// ISO 8601 duration, for example PT1H.
#[Scalar]
impl ScalarType for Duration {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Whole numbers that may outgrow GraphQL's 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Long(pub i64);

impl Long {
    /// The largest whole number that JavaScript keeps exactly.
    const MAX: u64 = (1 << 53) - 1;
}

impl From<u64> for Long {
    fn from(number: u64) -> Self {
        Self(number.min(Self::MAX) as i64)
    }
}

/// A whole number up to 2^53 - 1.
#[Scalar]
impl ScalarType for Long {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(number) => match number.as_i64() {
                Some(whole) if whole.unsigned_abs() <= Self::MAX => Ok(Self(whole)),
                _ => Err(InputValueError::custom(format!("{number} is not a whole number up to 2^53 - 1"))),
            },
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// GraphQL's `Int` for a count or rank. A board of over 2^31 products does not fit into any engine.
pub fn int(number: u64) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
