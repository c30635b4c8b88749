//! Values: few names, so that what is kept of them stays bounded, and now and then what no type should take.

use async_graphql::Value;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

pub const PRODUCTS: usize = 50;
pub const USERS: usize = 40;
const EVENTS: usize = 300;

/// How often a value is not what it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Soundness {
    Sound,
    Wild,
}

impl Soundness {
    pub fn is_wild(self, likelihood: f64, rng: &mut StdRng) -> bool {
        self == Self::Wild && rng.random_bool(likelihood)
    }
}

const STRINGS: [&str; 16] = [
    "",
    " ",
    "\0",
    "a\u{0}b",
    "\u{feff}",
    "\u{202e}gnol",
    "é",
    "👩‍👩‍👧‍👦",
    "\u{1f}\u{7f}\u{85}",
    "'; DROP TABLE events; --",
    "../../etc/passwd",
    "{\"a\":1}",
    "NaN",
    "1e400",
    "2026-11-25T00:00:00Z",
    "-0",
];
const TIMES: [&str; 12] = [
    "2026-11-25T12:00:00Z",
    "2026-11-24T23:59:59.999Z",
    "2000-01-01T00:00:00Z",
    "1999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999Z",
    "0000-01-01T00:00:00Z",
    "-009999-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-11-25T25:00:00Z",
    "2026-11-25T12:00:00+14:00",
    "2026-11-25",
    "12",
];
const INTS: [i64; 14] = [
    0,
    1,
    -1,
    99,
    100,
    101,
    500,
    1_000_001,
    i32::MAX as i64,
    i32::MIN as i64,
    i32::MAX as i64 + 1,
    i64::MAX,
    i64::MIN,
    1 << 53,
];
const FLOATS: [f64; 12] = [
    0.0,
    -0.0,
    0.1,
    1.0,
    -1.0,
    1e-7,
    0.000_000_1,
    1_000.0,
    1_000.000_001,
    1e308,
    f64::MIN_POSITIVE,
    9_007_199_254.740_993,
];

pub fn product(rng: &mut StdRng) -> String {
    format!("p{}", rng.random_range(0..PRODUCTS))
}

fn id(name: &str, rng: &mut StdRng) -> String {
    match name {
        "board" => ["daily", "hourly", "all-time", "trending", "weekly", "fuzz-1", "fuzz-2", "nothing"]
            .choose(rng)
            .copied()
            .unwrap_or_default()
            .to_owned(),
        "userId" => format!("u{}", rng.random_range(0..USERS)),
        "reverses" => format!("e{}", rng.random_range(0..EVENTS)),
        // Of boards, rules, events and products.
        "id" => match rng.random_range(0..4) {
            0 => format!("fuzz-{}", rng.random_range(0..3)),
            1 => rng.random_range(0..50).to_string(),
            2 => format!("e{}", rng.random_range(0..EVENTS)),
            _ => product(rng),
        },
        _ => product(rng),
    }
}

/// A value of a scalar type, for an argument or a field of this name.
pub fn scalar(ty: &str, name: &str, soundness: Soundness, rng: &mut StdRng) -> Value {
    if soundness.is_wild(0.3, rng) {
        return anything(0, rng);
    }
    let int = |number: i64| Value::from(number);
    match (ty, name) {
        ("Boolean", _) => Value::Boolean(rng.random()),
        ("Int", "hours") => int(rng.random_range(0..24)),
        ("Int" | "Long", _) => int(rng.random_range(1..8)),
        ("Float", "carryOver") => Value::from(rng.random_range(0..=10) as f64 / 10.0),
        ("Float", _) => Value::from(rng.random_range(1..1_000) as f64 / 100.0),
        ("DateTime", _) => Value::from(jiff::Timestamp::now().to_string()),
        ("Duration", _) => Value::from(["PT1H", "PT5M", "P1D"].choose(rng).copied().unwrap_or_default()),
        ("Decimal", _) => Value::from(format!("{}.{:02}", rng.random_range(0..99), rng.random_range(0..99))),
        ("ID", _) => Value::from(id(name, rng)),
        ("String", "timeZone") => {
            Value::from(["UTC", "Europe/London", "Asia/Kathmandu"].choose(rng).copied().unwrap_or_default())
        }
        ("String", "idempotencyKey") => Value::from(format!("k{}", rng.random_range(0..500))),
        ("String", "currency") => Value::from("GBP"),
        ("String", "category" | "brand") => Value::from(["Kitchen", "Lights"].choose(rng).copied().unwrap_or_default()),
        ("String", "key" | "fromPeriod") => {
            Value::from(["2026-11-24", "2026-11", "2026-W48", "2026-11-25T10"].choose(rng).copied().unwrap_or_default())
        }
        _ => Value::from("fuzz"),
    }
}

/// Of whatever type.
fn anything(level: usize, rng: &mut StdRng) -> Value {
    match rng.random_range(0..if level < 3 { 11 } else { 9 }) {
        0 => Value::Null,
        1 => Value::Boolean(rng.random()),
        2 | 3 => Value::from(INTS.choose(rng).copied().unwrap_or_default()),
        4 => Value::from(FLOATS.choose(rng).copied().unwrap_or_default()),
        5 => Value::from(TIMES.choose(rng).copied().unwrap_or_default()),
        6 => Value::from("x".repeat([63, 64, 65, 128, 129, 500, 501, 2_049, 5_000].choose(rng).copied().unwrap_or(0))),
        7 | 8 => Value::from(STRINGS.choose(rng).copied().unwrap_or_default()),
        9 => Value::List((0..rng.random_range(0..3)).map(|_| anything(level + 1, rng)).collect()),
        _ => Value::Object([(async_graphql::Name::new("a"), anything(level + 1, rng))].into_iter().collect()),
    }
}
