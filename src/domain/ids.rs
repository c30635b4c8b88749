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
    /// Who sends events: what a token names, as long as a user's id.
    Producer, "the producer", 128
);
id!(
    /// An event. A producer's id is at most 128 bytes; 320 hold it with its producer's name, and the id of a like, made of its
    /// key and user.
    EventId, "the event id", 320
);

impl EventId {
    /// Longest id a producer may choose, in bytes.
    pub const PRODUCER_LEN_MAX: usize = 128;
    const LIKE_PREFIX: &str = "like:";
    const PRODUCER_PREFIX: &str = "by:";

    /// Takes an id as a producer sends it. The ids of likes are a name space of their own, closed to producers, and so are those
    /// that carry a producer.
    pub fn from_producer(text: &str) -> Result<Self, InvalidId> {
        check(text, "the event id", Self::PRODUCER_LEN_MAX)?;
        if text.starts_with(Self::LIKE_PREFIX) {
            return Err(InvalidId::Charset { what: "an event id that begins with \"like:\" is a like's; the rest" });
        }
        if text.starts_with(Self::PRODUCER_PREFIX) {
            return Err(InvalidId::Charset {
                what: "an event id that begins with \"by:\" names its producer; the rest",
            });
        }
        Ok(Self(text.into()))
    }

    /// The id as it is stored of an event that belongs to a producer: no two producers' ids are ever the same. The name's length
    /// comes first because both parts may hold a colon.
    #[must_use]
    pub fn of(&self, producer: &Producer) -> Self {
        Self(format!("{}{}:{producer}:{self}", Self::PRODUCER_PREFIX, producer.as_str().len()).into())
    }

    /// The id as its producer has sent it, where this is one that carries its producer.
    pub fn as_sent(&self) -> Option<Self> {
        let (len, rest) = self.0.strip_prefix(Self::PRODUCER_PREFIX)?.split_once(':')?;
        let (producer, sent) = rest.split_at_checked(len.parse().ok()?)?;
        let sent = sent.strip_prefix(':')?;
        (len == producer.len().to_string() && !producer.is_empty() && !sent.is_empty()).then(|| Self(sent.into()))
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
    fn the_id_of_a_producers_event_carries_both_and_no_two_are_alike() {
        let sent = |id: &str| EventId::from_producer(id).unwrap();
        let of = |producer: &str, id: &str| sent(id).of(&Producer::new(producer).unwrap());
        assert_eq!(of("shop", "o:1").as_str(), "by:4:shop:o:1");
        assert_eq!(of("shop", "o:1").as_sent(), Some(sent("o:1")));
        assert_ne!(of("a:b", "c"), of("a", "b:c"));
        assert_eq!(of("a:b", "c").as_sent(), Some(sent("c")));
        let longest = of(&"p".repeat(Producer::LEN_MAX), &"i".repeat(EventId::PRODUCER_LEN_MAX));
        assert!(EventId::check(longest.as_str()).is_ok());
        assert!(EventId::from_producer("by:4:shop:o1").is_err());
        for plain in
            ["o1", "by:", "by:4:shop", "by:4:shop:", "by:5:shop:o1", "by:04:shop:o1", "by:0::o1", "by:x:shop:o1"]
        {
            assert_eq!(EventId::from_stored(plain).as_sent(), None, "{plain}");
        }
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
