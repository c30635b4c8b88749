//! Checks that several inputs share. What is wrong is noted with its path and the checks go on, so that a caller is told
//! of everything at once.

use async_graphql::ID;

use super::errors::UserError;
use crate::domain::{BoardId, ProductId};

/// Longest note, in bytes: a reason, not a report.
const NOTE_LEN_MAX: usize = 500;
/// Longest category or brand, in bytes: they name boards' scopes and stand in lists.
const LABEL_LEN_MAX: usize = 64;

/// What is wrong with a text of one line, if anything.
pub fn text_problem(text: &str, len_max: usize) -> Option<String> {
    if text.is_empty() {
        return Some("must not be empty".to_owned());
    }
    if text.len() > len_max {
        return Some(format!("has {} bytes; at most {len_max} are allowed", text.len()));
    }
    // Postgres has no place for a NUL, and the rest only ever come from a broken export.
    text.chars().any(char::is_control).then(|| "holds a control character".to_owned())
}

/// What is wrong with a category or brand, if anything.
pub fn label_problem(label: &str) -> Option<String> {
    text_problem(label, LABEL_LEN_MAX)
}

/// Checks the note that says why something is changed. It may have several lines.
pub fn check_note(note: &str, errors: &mut Vec<UserError>) {
    let len = note.len();
    let is_foreign = |char: char| char.is_control() && !matches!(char, '\n' | '\r' | '\t');
    if note.trim().is_empty() || len > NOTE_LEN_MAX || note.chars().any(is_foreign) {
        let message = format!("say why, in 1 to {NOTE_LEN_MAX} bytes of text; these are {len}");
        errors.push(UserError::invalid("note", message));
    }
}

/// The note that may say why, empty where none is given.
pub fn optional_note(note: Option<String>) -> Result<String, UserError> {
    let Some(note) = note else { return Ok(String::new()) };
    let mut errors = Vec::new();
    check_note(&note, &mut errors);
    errors.pop().map_or(Ok(note), Err)
}

/// The id of a board that there is; `is_board` says whether there is one.
pub fn board(path: &str, id: &ID, is_board: impl Fn(&BoardId) -> bool, errors: &mut Vec<UserError>) -> Option<BoardId> {
    let found = BoardId::new(id).map_err(|error| UserError::invalid(path, error)).and_then(|board| {
        let unknown = || UserError::not_found(path, format!("there is no board {board}"));
        if is_board(&board) { Ok(board) } else { Err(unknown()) }
    });
    found.map_err(|error| errors.push(error)).ok()
}

/// The id of a product, which may be unknown.
pub fn product(path: &str, id: &ID, errors: &mut Vec<UserError>) -> Option<ProductId> {
    ProductId::new(id).map_err(|error| errors.push(UserError::invalid(path, error))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_something() {
        let is_good = |note: &str| {
            let mut errors = Vec::new();
            check_note(note, &mut errors);
            errors.is_empty()
        };
        assert!(is_good("why") && is_good("for two reasons:\n1.\t2.") && is_good(&"x".repeat(500)));
        assert!(!is_good("") && !is_good(" \n") && !is_good("a\0b") && !is_good(&"x".repeat(501)));
    }
}
