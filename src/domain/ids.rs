//! Identifiers: validated once at the edge, then cheap to clone and compare.
//!
//! Invariant: an id is never empty, never longer than its limit and holds no control character, so it can stand in a
//! Redis key, a line of text and a SQL column without escaping.

use std::sync::Arc;

/// Why a text can not be an id; the message names the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {len} bytes; at most {max} are allowed")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error("{what} holds a control character")]
    ControlCharacter { what: &'static str },
    #[error("{what} may hold only a-z, 0-9 and -")]
    Charset { what: &'static str },
}

fn check(text: &str, what: &'static str, max: usize) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    if text.len() > max {
        return Err(InvalidId::TooLong { what, len: text.len(), max });
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidId::ControlCharacter { what });
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest id, in bytes.
            pub const LEN_MAX: usize = $max;

            /// Whether a text can be such an id.
            pub fn check(text: &str) -> Result<(), InvalidId> {
                check(text, $what, $max)
            }

            /// Takes an id from outside.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                Self::check(text)?;
                Ok(Self(text.into()))
            }

            /// Takes an id that was validated before it was stored.
            pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

id!(
    /// A product, by the shop's own id. 64 bytes hold every stock code, UUID and URL slug in use.
    ProductId, "the product id", 64
);
id!(
    /// A person, by the identity provider's `sub`. 128 bytes hold a UUID, an e-mail address or an issuer-scoped id.
    UserId, "the user id", 128
);
id!(
    /// What a client repeats to make a retry harmless. 64 bytes hold a UUID or a hash in hexadecimal.
    IdempotencyKey, "the idempotency key", 64
);
id!(
    /// An event. A producer's id is at most 128 bytes; 256 hold the id of a like, made of its key and user.
    EventId, "the event id", 256
);

impl EventId {
    /// Longest id a producer may choose, in bytes.
    pub const PRODUCER_LEN_MAX: usize = 128;
    const LIKE_PREFIX: &str = "like:";

    /// Takes a producer's id. The ids of likes are a name space of their own, closed to producers.
    pub fn from_producer(text: &str) -> Result<Self, InvalidId> {
        check(text, "the event id", Self::PRODUCER_LEN_MAX)?;
        if text.starts_with(Self::LIKE_PREFIX) {
            return Err(InvalidId::Charset { what: "an event id that begins with \"like:\" is a like's; the rest" });
        }
        Ok(Self(text.into()))
    }

    /// The id of the event that a like or unlike writes: the same user and key always give the same id, so that the
    /// ledger itself refuses a second effect. The key's length comes first because both parts may hold a colon.
    pub fn of_like(user: &UserId, key: &IdempotencyKey) -> Self {
        Self(format!("{}{}:{key}:{user}", Self::LIKE_PREFIX, key.as_str().len()).into())
    }

    /// The idempotency key, where this is the id of a like.
    pub fn like_key(&self) -> Option<IdempotencyKey> {
        self.like_parts().map(|(key, _)| IdempotencyKey(key.into()))
    }

    /// Whether the id is in the name space of likes.
    pub fn is_of_like(&self) -> bool {
        self.0.starts_with(Self::LIKE_PREFIX)
    }

    /// The idempotency key, where this is exactly what [`Self::of_like`] makes of it and this user.
    pub fn like_of(&self, user: &UserId) -> Option<&str> {
        let (key, rest) = self.like_parts()?;
        let is_canonical = self.0.strip_prefix(Self::LIKE_PREFIX)?.split_once(':')?.0 == key.len().to_string();
        (is_canonical && rest.strip_prefix(':')? == user.as_str()).then_some(key)
    }

    /// The key, and what stands behind it.
    fn like_parts(&self) -> Option<(&str, &str)> {
        let (len, rest) = self.0.strip_prefix(Self::LIKE_PREFIX)?.split_once(':')?;
        rest.split_at_checked(len.parse().ok()?)
    }
}

/// A board: 1 to 32 of `a-z 0-9 -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct BoardId(Arc<str>);

impl BoardId {
    pub const LEN_MAX: usize = 32;

    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let what = "the board id";
        check(text, what, Self::LEN_MAX)?;
        if !text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err(InvalidId::Charset { what });
        }
        Ok(Self(text.into()))
    }

    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The hidden board that counts likes. Its underscore keeps it apart from every board a person can name.
    pub fn likes() -> Self {
        Self("_likes".into())
    }

    pub fn daily() -> Self {
        Self("daily".into())
    }

    /// Hidden boards are projected like any other and never shown.
    pub fn is_hidden(&self) -> bool {
        self.0.starts_with('_')
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for BoardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_like_gives_its_key_back_and_no_two_are_alike() {
        let like =
            |user: &str, key: &str| EventId::of_like(&UserId::new(user).unwrap(), &IdempotencyKey::new(key).unwrap());
        assert_eq!(like("u", "a:b").like_key().unwrap().as_str(), "a:b");
        assert_ne!(like("b:c", "a"), like("c", "a:b"));
        let longest = like(&"u".repeat(UserId::LEN_MAX), &"k".repeat(IdempotencyKey::LEN_MAX));
        assert!(longest.as_str().len() <= EventId::LEN_MAX);
        assert!(EventId::from_producer(longest.as_str()).is_err());
        assert_eq!(EventId::from_producer("536365-0").unwrap().like_key(), None);
    }

    #[test]
    fn limits_count_bytes() {
        assert!(ProductId::new(&"é".repeat(32)).is_ok());
        assert!(ProductId::new(&"é".repeat(33)).is_err());
        assert!(ProductId::new("").is_err());
        assert!(ProductId::new("a\nb").is_err());
        assert!(BoardId::new("Daily").is_err());
    }
}
