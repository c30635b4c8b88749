//! A document's text, before it is parsed: what is found here costs no more than reading it twice.
//!
//! apollo-parser's grammar differs from the specification's and graphql-js's in a few places. What it refuses by mistake is
//! written in another way here, everything else staying in its place; what it takes by mistake is refused.

use std::borrow::Cow;
use std::ops::Range;

use apollo_parser::{Lexer, Token, TokenKind};

use crate::graphql::errors::Failure;
use crate::graphql::limits::DocumentLimits;

/// Brackets within brackets. The parser follows them by recursion; lists and objects inside arguments are as deep as any
/// that are of use, and selections have their own, smaller limit.
const BRACKETS_MAX: usize = 50;
/// Digits of `\u{...}`, as in graphql-js.
const ESCAPE_DIGITS_MAX: usize = 8;
/// What an empty selection asks for. graphql-js takes one, and answers an empty object.
const EMPTY_SELECTION: &str = "{__typename@skip(if:true)}";

/// The text to parse, and how many tokens it has that mean something; refuses one that has too many.
pub fn read<'a>(text: &'a str, limits: &DocumentLimits) -> Result<(Cow<'a, str>, usize), Failure> {
    if text.len() > limits.text_len_max() {
        return Err(Failure::too_many("documentLength", limits.text_len_max(), "the document has too many bytes"));
    }
    let (mut tokens, mut commas, mut brackets) = (Vec::new(), Vec::new(), 0_usize);
    // The name of the argument whose value comes next, if it has one.
    let mut name = "query";
    for token in Lexer::new(text) {
        let token =
            token.map_err(|error| Failure::bad("query", format!("{} at {}", error.message(), error.index())))?;
        match token.kind() {
            TokenKind::Whitespace | TokenKind::Comment | TokenKind::Eof => continue,
            TokenKind::Comma => {
                commas.push(token.index());
                continue;
            }
            TokenKind::LCurly | TokenKind::LParen | TokenKind::LBracket => brackets += 1,
            TokenKind::Name => name = token.data(),
            // JSON can't say infinity, so no resolver can be given it.
            TokenKind::Float if token.data().parse().is_ok_and(f64::is_infinite) => {
                let message = format!("{} is beyond the numbers that there are", token.data());
                return Err(Failure::bad(name.to_owned(), message));
            }
            TokenKind::RCurly | TokenKind::RParen | TokenKind::RBracket => brackets = brackets.saturating_sub(1),
            TokenKind::StringValue if !token.data().starts_with("\"\"\"") => check_escapes(token.data())?,
            _ => {}
        }
        tokens.push(token);
        if tokens.len() > limits.tokens {
            return Err(Failure::too_many("tokens", limits.tokens, "the document has too many tokens"));
        }
        if brackets > BRACKETS_MAX {
            return Err(Failure::too_many("brackets", BRACKETS_MAX, "the document has too many brackets in brackets"));
        }
    }
    Ok((rewrite(text, &tokens, &commas)?, tokens.len()))
}

fn check_escapes(string: &str) -> Result<(), Failure> {
    let mut rest = string;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at + 1..];
        if let Some(digits) = escape.strip_prefix("u{")
            && digits.find('}').is_none_or(|len| len > ESCAPE_DIGITS_MAX)
        {
            return Err(Failure::bad("query", format!("\\u{{...}} has at most {ESCAPE_DIGITS_MAX} digits")));
        }
        // What is escaped is no beginning of an escape.
        rest = &escape[escape.chars().next().map_or(0, char::len_utf8)..];
    }
    Ok(())
}

/// What a bracket holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Selection,
    Variables,
    /// Arguments, or fields of an input object: names, each with a value.
    Named,
    List,
}

/// The text with everything in other words that apollo-parser has trouble with.
fn rewrite<'a>(text: &'a str, tokens: &[Token<'a>], commas: &[usize]) -> Result<Cow<'a, str>, Failure> {
    // Behind `...` and before the colon of an alias, apollo-parser takes a comma for a token.
    let mut edits: Vec<(Range<usize>, &str)> = commas.iter().map(|at| (*at..at + 1, " ")).collect();
    let mut open = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let kind = |index: Option<usize>| index.and_then(|index| tokens.get(index)).map(Token::kind);
        let (before, after) = (kind(index.checked_sub(1)), kind(Some(index + 1)));
        let inside = open.last().copied();
        match token.kind() {
            TokenKind::LCurly => {
                let is_value = matches!(before, Some(TokenKind::Colon | TokenKind::Eq)) || inside == Some(Inside::List);
                open.push(if is_value { Inside::Named } else { Inside::Selection });
                if !is_value && after == Some(TokenKind::RCurly) {
                    edits.push((token.index()..tokens[index + 1].index() + 1, EMPTY_SELECTION));
                }
            }
            TokenKind::LParen if matches!(after, Some(TokenKind::Dollar | TokenKind::StringValue)) => {
                open.push(Inside::Variables);
            }
            TokenKind::LParen => open.push(Inside::Named),
            TokenKind::LBracket => open.push(Inside::List),
            TokenKind::RCurly | TokenKind::RParen | TokenKind::RBracket => drop(open.pop()),
            // apollo-parser leaves out an argument or input field without a value.
            TokenKind::Name
                if inside == Some(Inside::Named)
                    && !matches!(before, Some(TokenKind::Colon | TokenKind::Dollar))
                    && after != Some(TokenKind::Colon) =>
            {
                let message = format!("it has no value at {}", token.index());
                return Err(Failure::bad(token.data().to_owned(), message));
            }
            // A description: apollo-parser knows those of types alone.
            TokenKind::StringValue if describes(inside, before, after, tokens.get(index + 1)) => {
                let end = token.index() + token.data().len();
                edits.push((token.index()..end, ""));
            }
            _ => {}
        }
    }
    if edits.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    edits.sort_by_key(|(range, _)| range.start);
    let (mut out, mut done) = (String::with_capacity(text.len() + EMPTY_SELECTION.len()), 0);
    for (range, instead) in edits {
        // A comma inside what is replaced already.
        if range.start < done {
            continue;
        }
        out.push_str(&text[done..range.start]);
        if instead.is_empty() {
            // Lines keep their numbers.
            let blank = |c| if matches!(c, '\n' | '\r') { c } else { ' ' };
            out.extend(text[range.clone()].chars().map(blank));
        } else {
            out.push_str(instead);
        }
        done = range.end;
    }
    out.push_str(&text[done..]);
    Ok(Cow::Owned(out))
}

/// Whether a string describes an operation, a fragment or a variable.
fn describes(
    inside: Option<Inside>,
    before: Option<TokenKind>,
    after: Option<TokenKind>,
    next: Option<&Token<'_>>,
) -> bool {
    match inside {
        None => {
            matches!(before, None | Some(TokenKind::RCurly))
                && next.is_some_and(|next| matches!(next.data(), "query" | "mutation" | "subscription" | "fragment"))
        }
        Some(Inside::Variables) => before != Some(TokenKind::Eq) && after == Some(TokenKind::Dollar),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<&'static str> {
        match read(text, &DocumentLimits::default()) {
            Ok(_) => None,
            Err(Failure::LimitExceeded { limit, .. }) => Some(limit),
            Err(_) => Some("bad"),
        }
    }

    #[test]
    fn a_number_beyond_all_is_refused_by_its_name() {
        let argument = |text: &str| match read(text, &DocumentLimits::default()) {
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

    fn as_parsed(text: &str) -> String {
        read(text, &DocumentLimits::default()).unwrap().0.into_owned()
    }

    #[test]
    fn what_the_parser_has_trouble_with_is_written_in_another_way() {
        assert_eq!(as_parsed("{ a: viewer { id } }"), "{ a: viewer { id } }");
        assert_eq!(
            as_parsed("{ a ,: viewer { ..., F ... ,on Viewer { id } } }"),
            "{ a  : viewer { ...  F ...  on Viewer { id } } }"
        );
        assert_eq!(
            as_parsed("\"a, b\" query { a(b: \"c, d\", # e, f\n) }"),
            "       query { a(b: \"c, d\"  # e, f\n) }"
        );
        assert_eq!(as_parsed("{ a } \"\"\"b\nc\"\"\" fragment F on A { b }"), "{ a }     \n     fragment F on A { b }");
        assert_eq!(
            as_parsed("query(\"a\" $b: C = \"d\" \"e\" $f: G) { h }"),
            "query(    $b: C = \"d\"     $f: G) { h }"
        );
        assert_eq!(as_parsed("{ , }"), EMPTY_SELECTION);
        assert_eq!(
            as_parsed("{ a { } b(c: { }, d: [{ }]) }"),
            format!("{{ a {EMPTY_SELECTION} b(c: {{ }}  d: [{{ }}]) }}")
        );
        // Only where one may stand.
        for not_described in ["\"a\" { b }", "\"a\" \"b\" query { c }", "query \"a\" query { b }"] {
            assert!(as_parsed(not_described).contains('"'), "{not_described}");
        }
    }

    #[test]
    fn what_the_parser_takes_by_mistake_is_refused() {
        for bad in [
            "{ a(b) }",
            "{ a(b: 1 c) }",
            "{ a(b b: 1) }",
            "{ a(b: { c: 1 d }) }",
            "{ a(b: [{ c }]) }",
            "{ a @skip(if) }",
            "query($a: B = { c }) { d }",
            r#"{ a(b: "\u{000000041}") }"#,
            r#"{ a(b: "\\\u{000000041}") }"#,
        ] {
            assert_eq!(refused(bad), Some("bad"), "{bad}");
        }
        for good in [
            "query A($a: B = C @d(e: F), $g: [H!]) { i(j: K, l: [M N], o: { p: Q }) @r(s: $a) { t: u v } }",
            r#"{ a(b: "\u{00000041} \\u{000000041}", c: """\u{000000041}""") }"#,
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
    }
}
