//! How large a document is once its fragments are spread out.
//!
//! Validation and execution walk a fragment at each place that spreads it, so a few hundred bytes of fragments that spread
//! each other twice cost time and memory that double with each level. Here each fragment is walked once, and this is asked
//! before anything else looks at the document.

use std::collections::HashMap;

use async_graphql::Name;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};

/// Fields and spreads of a document, fragments spread out: some thirty times what a page full of detail selects.
pub const NODES_MAX: usize = 5_000;
/// Fragments inside fragments and selections inside selections: far beyond the depth that is allowed, and shallow enough
/// for any thread's stack.
const NESTING_MAX: usize = 200;

/// True where a document has more than [`NODES_MAX`] nodes, or nests deeper than anything that could be run.
pub fn is_too_large(document: &ExecutableDocument) -> bool {
    let mut counter = Counter { document, known: HashMap::new() };
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let nodes = operations.fold(0_usize, |nodes, set| nodes.saturating_add(counter.nodes(set, 0)));
    nodes > NODES_MAX
}

struct Counter<'a> {
    document: &'a ExecutableDocument,
    /// Nodes of each fragment; zero while it is being counted, since a circle is refused by validation anyway.
    known: HashMap<&'a Name, usize>,
}

impl<'a> Counter<'a> {
    fn nodes(&mut self, set: &'a SelectionSet, nesting: usize) -> usize {
        if nesting > NESTING_MAX {
            return usize::MAX;
        }
        let items = set.items.iter().map(|item| match &item.node {
            Selection::Field(field) => self.nodes(&field.node.selection_set.node, nesting + 1),
            Selection::InlineFragment(inline) => self.nodes(&inline.node.selection_set.node, nesting + 1),
            Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node, nesting + 1),
        });
        items.fold(0, |nodes, inside| nodes.saturating_add(inside).saturating_add(1))
    }

    fn fragment(&mut self, name: &'a Name, nesting: usize) -> usize {
        if let Some(nodes) = self.known.get(name) {
            return *nodes;
        }
        // One that is not defined is refused by validation.
        let Some(fragment) = self.document.fragments.get(name) else { return 0 };
        self.known.insert(name, 0);
        let nodes = self.nodes(&fragment.node.selection_set.node, nesting);
        self.known.insert(name, nodes);
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_too_large(query: &str) -> bool {
        super::is_too_large(&async_graphql::parser::parse_query(query).unwrap())
    }

    /// Fragments that spread the next one twice.
    fn doubling(levels: usize) -> String {
        let spread = |n: usize| format!("fragment F{n} on Query {{ ...F{} ...F{} }}\n", n + 1, n + 1);
        let fragments: String = (0..levels).map(spread).collect();
        format!("{{ ...F0 }}\n{fragments}fragment F{levels} on Query {{ __typename }}")
    }

    #[test]
    fn what_people_write_is_small() {
        assert!(!is_too_large("{ ranking { nodes { rank ...Detail } } } fragment Detail on RankingEntry { score }"));
        assert!(!is_too_large(&doubling(5)));
        assert!(!is_too_large("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"));
        assert!(!is_too_large("{ ...Nowhere }"));
    }

    #[test]
    fn what_doubles_at_each_level_is_large_and_found_at_once() {
        for levels in [12, 20, 60, 150] {
            assert!(is_too_large(&doubling(levels)), "{levels}");
        }
        let wide = format!("{{ {} }}", "a ".repeat(NODES_MAX + 1));
        assert!(is_too_large(&wide));
        // A chain as long as a body may be must not exhaust the stack.
        let chain: String = (0..20_000).map(|n| format!("fragment F{n} on Query {{ ...F{} }}\n", n + 1)).collect();
        assert!(is_too_large(&format!("{{ ...F0 }}\n{chain}")));
    }
}
