//! A document's text, before it is parsed: what is found here costs no more than reading it once.

use apollo_parser::{Lexer, TokenKind};

use crate::graphql::errors::Failure;
use crate::graphql::limits::DocumentLimits;

/// Brackets within brackets. The parser follows them by recursion; lists and objects inside arguments are as deep as any
/// that are of use, and selections have their own, smaller limit.
const BRACKETS_MAX: usize = 50;

/// How many tokens a text has that mean something; refuses one that has too many.
pub fn check(text: &str, limits: &DocumentLimits) -> Result<usize, Failure> {
    if text.len() > limits.text_len_max() {
        return Err(Failure::too_many("documentLength", limits.text_len_max(), "the document has too many bytes"));
    }
    let (mut tokens, mut brackets) = (0, 0_usize);
    // The name of the argument whose value comes next, if it has one.
    let mut name = "query";
    for token in Lexer::new(text) {
        let token =
            token.map_err(|error| Failure::bad("query", format!("{} at {}", error.message(), error.index())))?;
        match token.kind() {
            TokenKind::Whitespace | TokenKind::Comment | TokenKind::Comma | TokenKind::Eof => continue,
            TokenKind::LCurly | TokenKind::LParen | TokenKind::LBracket => brackets += 1,
            TokenKind::Name => name = token.data(),
            // JSON can't say infinity, so no resolver can be given it.
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
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<&'static str> {
        match check(text, &DocumentLimits::default()) {
            Ok(_) => None,
            Err(Failure::LimitExceeded { limit, .. }) => Some(limit),
            Err(_) => Some("bad"),
        }
    }

    #[test]
    fn a_number_beyond_all_is_refused_by_its_name() {
        let argument = |text: &str| match check(text, &DocumentLimits::default()) {
            Err(Failure::BadInput { argument, .. }) => Some(argument.into_owned()),
            _ => None,
        };
        assert_eq!(argument("{ a(weights: [{ signal: VIEW, weight: 1e400 }]) }"), Some("weight".to_owned()));
        assert_eq!(argument("{ a(weight: -1.5e999) }"), Some("weight".to_owned()));
        assert_eq!(argument("{ a(weight: 1e300) }"), None);
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
}
