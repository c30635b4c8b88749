//! Cursors: opaque to clients, a place in an order inside. They name no offset, so a page follows rightly on a list that
//! has moved since.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::errors::Failure;
use crate::domain::{Place, Points, ProductId, Timestamp};

/// Where a page ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cursor {
    /// In a ranking, by what its points rank as.
    Place(Place),
    /// In what a viewer likes.
    Like(Timestamp, ProductId),
    /// In the list of weight rules.
    Rule(i32),
    /// In the audit log.
    Audit(i64),
    /// In the list of dead letters.
    Letter(String),
    /// In the list of a board's periods: those follow that ended before this.
    Period(Timestamp),
}

impl Cursor {
    pub fn encode(&self) -> String {
        opaque(&match self {
            Self::Place(place) => format!("p:{}:{}", place.points.ranked(), place.product),
            Self::Like(at, product) => format!("l:{}:{product}", at.as_ms()),
            Self::Rule(version) => format!("w:{version}"),
            Self::Audit(id) => format!("a:{id}"),
            Self::Letter(id) => format!("d:{id}"),
            Self::Period(before) => format!("t:{}", before.as_ms()),
        })
    }

    pub fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (kind, rest) = text.split_once(':')?;
        let number_and_product = || {
            let (number, product) = rest.split_once(':')?;
            Some((number.parse::<i64>().ok()?, ProductId::new(product).ok()?))
        };
        match kind {
            "p" => {
                let (millionths, product) = number_and_product()?;
                let points = Points::from_millionths(millionths.into());
                (points.ranked() == millionths).then_some(Self::Place(Place { product, points }))
            }
            "l" => number_and_product().map(|(ms, product)| Self::Like(Timestamp::from_ms(ms), product)),
            "w" => rest.parse().ok().map(Self::Rule),
            "a" => rest.parse().ok().map(Self::Audit),
            "d" => Some(Self::Letter(rest.to_owned())),
            "t" => rest.parse().ok().map(|ms| Self::Period(Timestamp::from_ms(ms))),
            _ => None,
        }
    }
}

/// Reads the argument `after` as the kind of cursor that `pick` takes.
pub fn after<T>(text: Option<String>, pick: impl FnOnce(Cursor) -> Option<T>) -> Result<Option<T>, Failure> {
    let Some(text) = text else { return Ok(None) };
    match Cursor::decode(&text).and_then(pick) {
        Some(place) => Ok(Some(place)),
        None => Err(Failure::bad("after", "not a cursor of this list")),
    }
}

/// Hides a text's make-up from clients, so that none comes to lean on it.
pub fn opaque(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        let product = ProductId::new("85123A:x").unwrap();
        let cursors = [
            Cursor::Place(Place { product: product.clone(), points: Points::from_millionths(-1_200_000) }),
            Cursor::Like(Timestamp::from_ms(1_290_000_000_123), product),
            Cursor::Rule(7),
            Cursor::Audit(8),
            Cursor::Letter("3:1-7".to_owned()),
            Cursor::Period(Timestamp::from_ms(-1)),
        ];
        for cursor in cursors {
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
    }

    #[test]
    fn foreign_and_broken_cursors_are_refused() {
        for text in ["p:1", "p:x:a", "p:1:", "p:9007199254740992:a", "q:1:a", "", "w:99999999999"] {
            assert_eq!(Cursor::decode(&opaque(text)), None, "{text}");
        }
        assert_eq!(Cursor::decode("not base64!"), None);
        let rule = Cursor::Rule(1).encode();
        let as_place = after(Some(rule), |cursor| match cursor {
            Cursor::Place(place) => Some(place),
            _ => None,
        });
        assert!(as_place.is_err());
    }
}
