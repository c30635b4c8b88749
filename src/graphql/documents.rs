//! Documents, parsed once each: a site sends some dozens of different ones for ever, and parsing one costs as much as a
//! simple query does.
//!
//! Invariant: nothing is validated or run that has not passed here, where it is found out whether a document is too large
//! to be looked at any closer.

use std::sync::Arc;

use apollo_parser::{Lexer, TokenKind};
use async_graphql::Request;
use async_graphql::parser::types::{DocumentOperations, ExecutableDocument, OperationType};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::errors::Failure;
use super::expansion;
use super::limits::DocumentLimits;

/// Documents kept: a site sends some dozens of different ones.
const DOCUMENTS_MAX: usize = 1_000;
/// Bytes that a token becomes in a parsed document, about.
const TOKEN_LEN: u64 = 250;
/// Bytes of all documents kept, about. One counts as at least its share, so that this bounds their number as well.
const DOCUMENTS_LEN_MAX: u64 = 32 << 20;
/// Longest document kept, in bytes: longer than any that people write, shorter than what a flood would fill memory with.
const DOCUMENT_LEN_MAX: usize = 4_096;
/// Brackets within brackets. The parser follows them by recursion; lists and objects inside arguments are as deep as any
/// that are of use, and selections have their own, smaller limit.
const BRACKETS_MAX: usize = 50;

/// A document that may be looked at closer.
#[derive(Clone)]
pub struct Prepared {
    pub document: Arc<ExecutableDocument>,
    /// The text without what means nothing (spaces, commas, comments): equal for documents that say the same word by word.
    pub normal: Arc<str>,
    tokens: usize,
}

#[derive(Clone)]
struct Weight;

impl Weighter<String, Prepared> for Weight {
    fn weight(&self, _: &String, prepared: &Prepared) -> u64 {
        (prepared.tokens as u64 * TOKEN_LEN).max(DOCUMENTS_LEN_MAX / DOCUMENTS_MAX as u64)
    }
}

impl Prepared {
    /// What the operation of that name does; `None` where it is not clear which is meant, which the schema explains.
    pub fn kind(&self, name: Option<&str>) -> Option<OperationType> {
        let operation = match (&self.document.operations, name) {
            (DocumentOperations::Single(operation), None) => Some(operation),
            (DocumentOperations::Multiple(named), Some(name)) => named.get(name),
            (DocumentOperations::Multiple(named), None) if named.len() == 1 => named.values().next(),
            _ => None,
        };
        operation.map(|operation| operation.node.ty)
    }
}

/// The documents seen lately, by their text.
pub struct Documents {
    seen: Cache<String, Prepared, Weight>,
    limits: DocumentLimits,
}

impl Documents {
    pub fn new(limits: DocumentLimits) -> Self {
        Self { seen: Cache::with_weighter(DOCUMENTS_MAX, DOCUMENTS_LEN_MAX, Weight), limits }
    }

    pub fn limits(&self) -> &DocumentLimits {
        &self.limits
    }

    /// What would be run; `None` for what can't be parsed or is too large, which runs nothing.
    pub fn kind(&self, request: &mut Request) -> Option<OperationType> {
        let prepared = match self.seen.get(request.query.as_str()) {
            Some(prepared) => prepared,
            None => self.parse(request).ok().flatten()?,
        };
        prepared.kind(request.operation_name.as_deref())
    }

    /// Puts the parsed document into the request, and returns it. `None` for one that can't be parsed, which the schema
    /// refuses in the same words as on any other way.
    pub fn parse(&self, request: &mut Request) -> Result<Option<Prepared>, Failure> {
        if let Some(prepared) = self.seen.get(request.query.as_str()) {
            request.set_parsed_query(ExecutableDocument::clone(&prepared.document));
            return Ok(Some(prepared));
        }
        let (normal, tokens) = normalised(&request.query, &self.limits)?;
        let Ok(document) = request.parsed_query() else { return Ok(None) };
        expansion::check(document, &self.limits)?;
        let prepared =
            Prepared { document: Arc::new(ExecutableDocument::clone(document)), normal: normal.into(), tokens };
        if request.query.len() <= DOCUMENT_LEN_MAX {
            self.seen.insert(request.query.clone(), prepared.clone());
        }
        Ok(Some(prepared))
    }
}

/// The tokens that mean something, with a space between them, and how many; refuses a text that has too many of them.
pub fn normalised(text: &str, limits: &DocumentLimits) -> Result<(String, usize), Failure> {
    if text.len() > limits.text_len_max() {
        return Err(Failure::too_many("documentLength", limits.text_len_max(), "the document has too many bytes"));
    }
    let mut normal = String::with_capacity(text.len());
    let (mut tokens, mut brackets) = (0, 0_usize);
    // What the value that comes next is called, if it has a name.
    let mut name = "query";
    for token in Lexer::new(text) {
        let token =
            token.map_err(|error| Failure::bad("query", format!("{} at {}", error.message(), error.index())))?;
        match token.kind() {
            TokenKind::Whitespace | TokenKind::Comment | TokenKind::Comma | TokenKind::Eof => continue,
            TokenKind::LCurly | TokenKind::LParen | TokenKind::LBracket => brackets += 1,
            TokenKind::Name => name = token.data(),
            // The parser would refuse it too, without saying where.
            TokenKind::Int | TokenKind::Float if token.data().parse().is_ok_and(f64::is_infinite) => {
                let message = format!("{} is beyond the numbers that there are", token.data());
                return Err(Failure::bad(name.to_owned(), message));
            }
            TokenKind::RCurly | TokenKind::RParen | TokenKind::RBracket => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        tokens += 1;
        if tokens > limits.tokens {
            return Err(Failure::too_many("tokens", limits.tokens, "the document has too many tokens"));
        }
        if brackets > BRACKETS_MAX {
            return Err(Failure::too_many("brackets", BRACKETS_MAX, "the document has too many brackets in brackets"));
        }
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(token.data());
    }
    Ok((normal, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        normalised(text, &DocumentLimits::default()).unwrap().0
    }

    fn refused(text: &str) -> Option<&'static str> {
        match normalised(text, &DocumentLimits::default()) {
            Ok(_) => None,
            Err(Failure::LimitExceeded { limit, .. }) => Some(limit),
            Err(_) => Some("bad"),
        }
    }

    #[test]
    fn a_number_beyond_all_is_refused_by_its_name() {
        let argument = |text: &str| match normalised(text, &DocumentLimits::default()) {
            Err(Failure::BadInput { argument, .. }) => Some(argument.into_owned()),
            _ => None,
        };
        assert_eq!(argument("{ a(weights: [{ signal: VIEW, weight: 1e400 }]) }"), Some("weight".to_owned()));
        assert_eq!(argument("{ a(weight: -1.5e999) }"), Some("weight".to_owned()));
        assert_eq!(argument("{ a(weight: 1e300) }"), None);
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        let spread =
            "# the top\nquery Top($n: Int = 3,) {\r\n\tranking(first: $n,, board:\"a  b\") { ...on X{rank} } }";
        let dense = "query Top($n:Int=3){ranking(first:$n board:\"a  b\"){...on X{rank}}}";
        assert_eq!(normal(spread), normal(dense));
        assert_eq!(
            normal(dense),
            "query Top ( $ n : Int = 3 ) { ranking ( first : $ n board : \"a  b\" ) { ... on X { rank } } }"
        );
        assert_ne!(normal("{ a(b: \"c\") }"), normal("{ a(b: \"c \") }"));
    }

    #[test]
    fn tokens_are_counted_before_anything_is_parsed() {
        assert_eq!(refused(&format!("{{ {} }}", "a,,, # b\n".repeat(1_998))), None);
        assert_eq!(refused(&format!("{{ {} }}", "a ".repeat(1_999))), Some("tokens"));
        assert_eq!(refused(&format!("{{ {} }}", "a".repeat(64_000))), Some("documentLength"));
        assert_eq!(refused(&format!("{{ a(b: {}) }}", "[".repeat(49))), Some("brackets"));
        assert_eq!(refused("{ a(b: \"never closed) }"), Some("bad"));
        assert_eq!(refused("{ a(b: 01) }"), Some("bad"));
    }

    #[test]
    fn a_flood_of_large_documents_is_not_kept() {
        let documents = Documents::new(DocumentLimits::default());
        for n in 0..500 {
            documents.parse(&mut Request::new(format!("{{ a{n} {} }}", "a ".repeat(1_900)))).unwrap();
        }
        assert!(documents.seen.weight() <= DOCUMENTS_LEN_MAX && documents.seen.len() < 100, "{}", documents.seen.len());
    }

    #[test]
    fn a_document_is_parsed_once_and_its_operations_are_told_apart() {
        let documents = Documents::new(DocumentLimits::default());
        let text = "query A { a } mutation B { b } subscription C { c }";
        let parse = |text: &str| documents.parse(&mut Request::new(text)).unwrap().unwrap();
        let first = parse(text);
        assert!(Arc::ptr_eq(&first.document, &parse(text).document));
        assert_eq!(first.kind(Some("B")), Some(OperationType::Mutation));
        assert_eq!(first.kind(Some("C")), Some(OperationType::Subscription));
        assert_eq!((first.kind(None), first.kind(Some("D"))), (None, None));
        assert_eq!(parse("{ a }").kind(None), Some(OperationType::Query));
        assert_eq!(parse("mutation B { b }").kind(None), Some(OperationType::Mutation));
    }
}
