//! Mutations: what is well formed, made less so.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

const PIECES: [&str; 40] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\"\"\"",
    "\\",
    "\\u0000",
    "\\uD800",
    "\\u{110000}",
    "...",
    "$",
    "$v0",
    "@",
    "@skip(if: true)",
    "@include(if: $v0)",
    "@deprecated",
    "!",
    "|",
    "&",
    "=",
    "#",
    "\u{feff}",
    "\0",
    "null",
    "true",
    "-",
    "0",
    "1e999",
    "-9223372036854775809",
    "99999999999999999999999999",
    "... on",
    "fragment F on Query { __typename }",
    "__schema",
    "__typename",
    "🦀",
];

/// A text with one to four changes.
pub fn text(text: &str, rng: &mut StdRng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..rng.random_range(1..=4) {
        change(&mut chars, rng, |rng| {
            let piece = PIECES.choose(rng).copied().unwrap_or_default();
            let times = if rng.random_ratio(1, 30) { 60 } else { 1 };
            piece.repeat(times).chars().collect()
        });
    }
    chars.into_iter().collect()
}

/// The same for bytes, which need not be a text afterwards.
pub fn bytes(bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        change(&mut bytes, rng, |rng| match rng.random_range(0..3) {
            0 => vec![rng.random()],
            _ => PIECES.choose(rng).copied().unwrap_or_default().as_bytes().to_vec(),
        });
    }
    bytes
}

fn change<T: Clone>(all: &mut Vec<T>, rng: &mut StdRng, piece: impl Fn(&mut StdRng) -> Vec<T>) {
    let from = rng.random_range(0..=all.len());
    let to = (from + rng.random_range(0..12)).min(all.len());
    match rng.random_range(0..6) {
        0 => drop(all.drain(from..to)),
        1 => {
            let copied = all[from..to].to_vec();
            all.splice(from..from, copied);
        }
        2 => {
            let new = piece(rng);
            all.splice(from..from, new);
        }
        3 => {
            let new = piece(rng);
            all.splice(from..to, new);
        }
        4 => {
            // A piece from elsewhere.
            let other = rng.random_range(0..=all.len());
            let moved = all[other..(other + 20).min(all.len())].to_vec();
            all.splice(from..from, moved);
        }
        _ if rng.random_ratio(1, 3) => all.truncate(from),
        _ => all.swap_with(from, rng),
    }
}

trait Swap {
    fn swap_with(&mut self, at: usize, rng: &mut StdRng);
}

impl<T> Swap for Vec<T> {
    fn swap_with(&mut self, at: usize, rng: &mut StdRng) {
        if at < self.len() {
            let other = rng.random_range(0..self.len());
            self.swap(at, other);
        }
    }
}
