//! What a document may ask for. Each limit is named in the error that refuses a document, so that its author knows which.

use super::guards::Explanations;

/// Limits of one document. The defaults leave several times what this schema's own pages and tools need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Tokens of the text, counted before it is parsed.
    pub tokens: usize,
    /// Fields, fragments and spreads, once every fragment stands wherever it is spread.
    pub nodes: usize,
    /// Fields within fields.
    pub depth: usize,
    /// Fields under another name: with them a document can ask for the same thing again and again.
    pub aliases: usize,
    /// Directives, fragments spread out.
    pub directives: usize,
    /// What it may cost, in units of 10 µs of the time of server and stores: seldom more than 100 ms, and several times what
    /// any page asks for.
    pub cost: usize,
    /// Whether `__schema` and `__type` are answered.
    pub introspection: bool,
    /// Who may ask for the explanation of a score.
    pub explanations: Explanations,
}

impl DocumentLimits {
    pub const DEFAULT: Self = Self {
        tokens: 2_000,
        nodes: 5_000,
        depth: 12,
        aliases: 30,
        directives: 20,
        cost: 3_000,
        introspection: true,
        explanations: Explanations::Anyone,
    };

    /// Bytes of a document: names here have up to 14 letters, and what is indented widely still stays below 32 bytes a
    /// token.
    pub const fn text_len_max(&self) -> usize {
        self.tokens * 32
    }
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
