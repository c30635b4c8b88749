//! Global ids: each names one object of the whole graph, its type included. Opaque to clients.

use async_graphql::ID;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::{BoardId, ProductId, UserId};
use crate::graphql::cursor::opaque;

/// What a global id names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NodeId {
    Product(ProductId),
    Board(BoardId),
    /// By board and key.
    Period(BoardId, String),
    /// By board, key of the period, and product.
    Entry(BoardId, String, ProductId),
    Viewer(UserId),
    /// By version.
    WeightRule(i32),
    /// What is in force on a board, by the version of the newest rule that has a say.
    InForce(BoardId, i32),
    /// By version.
    ProductRule(i32),
    AuditEntry(i64),
    DeadLetter(String),
}

impl NodeId {
    /// A list in JSON: the format's version with the kind, then what names the object, so that no part can be taken for
    /// another.
    pub fn encode(&self) -> ID {
        let text = |parts: &[&str]| ID(opaque(&serde_json::to_string(parts).expect("texts are JSON")));
        match self {
            Self::Product(product) => text(&["1p", product.as_str()]),
            Self::Board(board) => text(&["1b", board.as_str()]),
            Self::Period(board, key) => text(&["1t", board.as_str(), key]),
            Self::Entry(board, key, product) => text(&["1e", board.as_str(), key, product.as_str()]),
            Self::Viewer(user) => text(&["1v", user.as_str()]),
            Self::WeightRule(version) => text(&["1w", &version.to_string()]),
            Self::InForce(board, version) => text(&["1f", board.as_str(), &version.to_string()]),
            Self::ProductRule(version) => text(&["1r", &version.to_string()]),
            Self::AuditEntry(id) => text(&["1a", &id.to_string()]),
            Self::DeadLetter(id) => text(&["1d", id]),
        }
    }

    /// `None` for what this API did not give out.
    pub fn decode(id: &ID) -> Option<Self> {
        let parts: Vec<String> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(id.as_bytes()).ok()?).ok()?;
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        let board = |id: &str| BoardId::new(id).ok();
        Some(match parts[..] {
            ["1p", product] => Self::Product(ProductId::new(product).ok()?),
            ["1b", id] => Self::Board(board(id)?),
            ["1t", id, key] => Self::Period(board(id)?, key.to_owned()),
            ["1e", id, key, product] => Self::Entry(board(id)?, key.to_owned(), ProductId::new(product).ok()?),
            ["1v", user] => Self::Viewer(UserId::new(user).ok()?),
            ["1w", version] => Self::WeightRule(version.parse().ok()?),
            ["1f", id, version] => Self::InForce(board(id)?, version.parse().ok()?),
            ["1r", version] => Self::ProductRule(version.parse().ok()?),
            ["1a", id] => Self::AuditEntry(id.parse().ok()?),
            ["1d", id] => Self::DeadLetter(id.to_owned()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back() {
        let (board, product) = (BoardId::daily(), ProductId::new("a:b\",\"c").unwrap());
        let ids = [
            NodeId::Product(product.clone()),
            NodeId::Board(board.clone()),
            NodeId::Period(board.clone(), "2026-11-01T01-04:00".to_owned()),
            NodeId::Entry(board.clone(), "2026-11-01T01-04:00".to_owned(), product),
            NodeId::Viewer(UserId::new("ann").unwrap()),
            NodeId::WeightRule(7),
            NodeId::InForce(board, 0),
            NodeId::ProductRule(8),
            NodeId::AuditEntry(9),
            NodeId::DeadLetter("3:1-7.2".to_owned()),
        ];
        for id in ids {
            assert_eq!(NodeId::decode(&id.encode()), Some(id));
        }
    }

    #[test]
    fn what_was_not_given_out_names_nothing() {
        let encoded = [
            r#"["1p",""]"#,
            r#"["1p"]"#,
            r#"["2p","a"]"#,
            r#"["1p","a","b"]"#,
            r#"["1w","x"]"#,
            r#"["1b","_likes"]"#,
            "{}",
            "",
        ];
        for text in encoded {
            assert_eq!(NodeId::decode(&ID(opaque(text))), None, "{text}");
        }
        assert_eq!(NodeId::decode(&ID("not base64!".to_owned())), None);
    }
}
