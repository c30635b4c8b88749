//! How large a document is once its fragments are spread out.
//!
//! Validation and execution walk a fragment at each place that spreads it, so a few hundred bytes of fragments that spread
//! each other twice cost time and memory that double with each level. Here each fragment is walked once, and this is asked
//! before anything else looks at the document.

use std::collections::HashMap;

use apollo_compiler::ast::{Definition, Document, Field, FragmentDefinition, Selection};

use crate::graphql::errors::Failure;
use crate::graphql::limits::DocumentLimits;

/// Depth inside `__schema` and `__type`, which has nothing to do with how deep the data is: the query of GraphiQL and
/// other tools goes 15 deep.
const INTROSPECTION_DEPTH_MAX: usize = 16;
/// Selections inside selections, inline fragments and spreads among them. async-graphql walks them by recursion and stops
/// at 32 by itself; the introspection query has 15.
const NESTING_MAX: usize = 30;

/// Refuses a document that is too large in any way, or whose fragments go round in a circle.
pub fn check(document: &Document, limits: &DocumentLimits) -> Result<(), Failure> {
    let fragments = document.definitions.iter().filter_map(|definition| match definition {
        Definition::FragmentDefinition(fragment) => Some((fragment.name.as_str(), &**fragment)),
        _ => None,
    });
    let mut walk = Walk { fragments: fragments.collect(), known: HashMap::new() };
    let mut whole = Size::default();
    for definition in &document.definitions {
        match definition {
            Definition::OperationDefinition(operation) => {
                let in_variables = operation.variables.iter().map(|variable| variable.directives.len());
                whole.directives += operation.directives.len() + in_variables.sum::<usize>();
                whole = whole.beside(walk.selections(&operation.selection_set, 0)?);
            }
            // Validation looks at fragments that no operation spreads, too.
            Definition::FragmentDefinition(fragment) => {
                let fragment = walk.fragment(&fragment.name, 0)?;
                whole.nodes = whole.nodes.max(fragment.nodes);
                whole.nesting = whole.nesting.max(fragment.nesting);
            }
            _ => {}
        }
    }
    whole.check(limits)
}

/// The size of a part; of its fragments, each as often as it is spread.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    depth: usize,
    introspection_depth: usize,
    nesting: usize,
    aliases: usize,
    directives: usize,
}

impl Size {
    /// Two parts of one selection.
    fn beside(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            depth: self.depth.max(other.depth),
            introspection_depth: self.introspection_depth.max(other.introspection_depth),
            nesting: self.nesting.max(other.nesting),
            aliases: self.aliases.saturating_add(other.aliases),
            directives: self.directives.saturating_add(other.directives),
        }
    }

    /// A part with what stands around it.
    fn within(self, directives: usize) -> Self {
        Self {
            nodes: self.nodes.saturating_add(1),
            nesting: self.nesting + 1,
            directives: self.directives.saturating_add(directives),
            ..self
        }
    }

    fn within_field(self, field: &Field) -> Self {
        let mut size = self.within(field.directives.len());
        size.aliases = size.aliases.saturating_add(field.alias.is_some().into());
        if matches!(field.name.as_str(), "__schema" | "__type") {
            size.introspection_depth = size.introspection_depth.max(size.depth + 1);
            size.depth = 0;
        }
        size.depth += 1;
        size
    }

    fn check(&self, limits: &DocumentLimits) -> Result<(), Failure> {
        if self.introspection_depth > 0 && !limits.introspection {
            return Err(Failure::bad("query", "this server does not answer __schema and __type; see schema.graphql"));
        }
        let bounds = [
            ("nesting", self.nesting, NESTING_MAX, "the document nests its selections too deep"),
            ("nodes", self.nodes, limits.nodes, "the document has too many fields with its fragments spread out"),
            ("depth", self.depth, limits.depth, "the document has too many fields within fields"),
            ("introspectionDepth", self.introspection_depth, INTROSPECTION_DEPTH_MAX, "introspection goes too deep"),
            ("aliases", self.aliases, limits.aliases, "the document has too many aliases"),
            ("directives", self.directives, limits.directives, "the document has too many directives"),
        ];
        match bounds.into_iter().find(|(_, size, most, _)| size > most) {
            Some((limit, _, most, message)) => Err(Failure::too_many(limit, most, message)),
            None => Ok(()),
        }
    }
}

struct Walk<'a> {
    fragments: HashMap<&'a str, &'a FragmentDefinition>,
    /// The size of each fragment; none while it is being walked.
    known: HashMap<&'a str, Option<Size>>,
}

impl<'a> Walk<'a> {
    /// `nesting` is how deep this walk is at this point, which fragments that are known already do not add to.
    fn selections(&mut self, set: &'a [Selection], nesting: usize) -> Result<Size, Failure> {
        if nesting > NESTING_MAX {
            return Err(Failure::too_many("nesting", NESTING_MAX, "the document nests its selections too deep"));
        }
        let mut size = Size::default();
        for selection in set {
            size = size.beside(match selection {
                Selection::Field(field) => self.selections(&field.selection_set, nesting + 1)?.within_field(field),
                Selection::InlineFragment(inline) => {
                    self.selections(&inline.selection_set, nesting + 1)?.within(inline.directives.len())
                }
                Selection::FragmentSpread(spread) => {
                    self.fragment(&spread.fragment_name, nesting + 1)?.within(spread.directives.len())
                }
            });
        }
        Ok(size)
    }

    fn fragment(&mut self, name: &'a str, nesting: usize) -> Result<Size, Failure> {
        match self.known.get(name) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return Err(Failure::bad("query", format!("the fragment {name} spreads itself"))),
            None => {}
        }
        // One that is not defined is refused by validation.
        let Some(fragment) = self.fragments.get(name).copied() else { return Ok(Size::default()) };
        self.known.insert(name, None);
        let mut size = self.selections(&fragment.selection_set, nesting)?;
        size.directives = size.directives.saturating_add(fragment.directives.len());
        self.known.insert(name, Some(size));
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit that refuses a document; "bad" for another reason.
    fn refused(query: &str) -> Option<&'static str> {
        refused_by(query, &DocumentLimits::default())
    }

    fn refused_by(query: &str, limits: &DocumentLimits) -> Option<&'static str> {
        match check(&Document::parse(query, "query").unwrap(), limits) {
            Ok(()) => None,
            Err(Failure::LimitExceeded { limit, .. }) => Some(limit),
            Err(_) => Some("bad"),
        }
    }

    /// Fragments that spread the next one twice.
    fn doubling(levels: usize) -> String {
        let spread = |n: usize| format!("fragment F{n} on Query {{ ...F{} ...F{} }}\n", n + 1, n + 1);
        let fragments: String = (0..levels).map(spread).collect();
        format!("{{ ...F0 }}\n{fragments}fragment F{levels} on Query {{ __typename }}")
    }

    fn nested(levels: usize) -> String {
        format!("{{ {} a {} }}", "a {".repeat(levels - 1), "}".repeat(levels - 1))
    }

    #[test]
    fn what_people_write_is_small() {
        assert_eq!(refused("{ ranking { nodes { rank ...Detail } } } fragment Detail on RankingEntry { score }"), None);
        assert_eq!(refused(&doubling(5)), None);
        assert_eq!(refused("{ ...Nowhere }"), None);
    }

    #[test]
    fn what_doubles_at_each_level_is_found_at_once() {
        assert_eq!(refused(&doubling(12)), Some("nodes"));
        for levels in [60, 150] {
            assert_eq!(refused(&doubling(levels)), Some("nesting"), "{levels}");
            // Nor may it stand in a fragment that nobody spreads.
            assert_eq!(refused(&doubling(levels).replacen("{ ...F0 }", "{ a }", 1)), Some("nesting"), "{levels}");
        }
        assert_eq!(refused(&format!("{{ {} }}", "a ".repeat(5_001))), Some("nodes"));
        // A long chain must not exhaust the stack.
        let chain: String = (0..20_000).map(|n| format!("fragment F{n} on Query {{ ...F{} }}\n", n + 1)).collect();
        assert_eq!(refused(&format!("{{ ...F0 }}\n{chain}")), Some("nesting"));
    }

    #[test]
    fn circles_are_named() {
        assert_eq!(refused("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"), Some("bad"));
        assert_eq!(refused("{ a } fragment A on Query { ...A }"), Some("bad"));
    }

    #[test]
    fn depth_counts_fields_through_fragments() {
        assert_eq!(refused(&nested(12)), None);
        assert_eq!(refused(&nested(13)), Some("depth"));
        let fragment = |levels: usize| format!("{{ a {{ ...F }} }} fragment F on A {}", nested(levels));
        assert_eq!(refused(&fragment(11)), None);
        assert_eq!(refused(&fragment(12)), Some("depth"));
    }

    #[test]
    fn introspection_has_a_depth_of_its_own_and_can_be_turned_off() {
        assert_eq!(refused(&format!("{{ __schema {} }}", nested(15))), None);
        assert_eq!(refused(&format!("{{ __schema {} }}", nested(16))), Some("introspectionDepth"));
        let off = DocumentLimits { introspection: false, ..DocumentLimits::default() };
        assert_eq!(refused_by("{ ...F } fragment F on Query { __schema { types { name } } }", &off), Some("bad"));
        assert_eq!(refused_by("{ __typename }", &off), None);
    }

    #[test]
    fn aliases_and_directives_count_wherever_they_are_spread() {
        let aliases = |count: usize| (0..count).map(|n| format!("a{n}: a ")).collect::<String>();
        assert_eq!(refused(&format!("{{ {} }}", aliases(30))), None);
        assert_eq!(refused(&format!("{{ {} }}", aliases(31))), Some("aliases"));
        let twice = |count: usize| format!("{{ b {{ ...F }} c {{ ...F }} }} fragment F on A {{ {} }}", aliases(count));
        assert_eq!(refused(&twice(15)), None);
        assert_eq!(refused(&twice(16)), Some("aliases"));
        let directives = |count: usize| format!("query @d {{ a {} }}", "@skip(if: false) ".repeat(count));
        assert_eq!(refused(&directives(19)), None);
        assert_eq!(refused(&directives(20)), Some("directives"));
    }
}
