//! Documents by the grammar: the schema's own fields, arguments and types, put together at random, with values that are
//! sometimes sound and sometimes at or beyond a limit.

use std::collections::HashMap;
use std::sync::Mutex;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, FieldDefinition, InputValueDefinition, Type, TypeKind, TypeSystemDefinition,
};
use async_graphql::{Name, Positioned, Value};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::values::{Soundness, scalar};

/// Fields that make a server work long, or keep something for good: one in so many of those that are picked is taken. Without
/// that, a run would measure how boards are rebuilt.
const RARE: [(&str, u32); 11] = [
    ("repair", 2_000),
    ("verify", 2_000),
    ("rebuildBoard", 300),
    ("saveBoard", 300),
    ("deleteBoard", 300),
    ("replayDeadLetters", 100),
    ("adjustWeights", 200),
    ("cancelWeights", 100),
    ("setProductRule", 200),
    ("weightPreview", 20),
    ("upsertProducts", 10),
];

pub struct Grammar {
    shapes: HashMap<String, Shape>,
    /// Cursors, positions and global ids that the server has given: it takes no others.
    given: Mutex<Vec<String>>,
}

/// The fields that they stand in.
const GIVEN: [&str; 5] = ["position", "cursor", "startCursor", "endCursor", "nodeId"];
/// Those that are kept, the newest of them.
const GIVEN_MAX: usize = 500;

enum Shape {
    /// An object, or an interface with those who are it.
    Fields {
        fields: Vec<FieldDefinition>,
        of: Vec<String>,
    },
    Union(Vec<String>),
    Enum(Vec<Name>),
    Input(Vec<InputValueDefinition>),
    Scalar,
}

/// A document, and what is sent with it.
pub struct Operation {
    pub document: String,
    pub variables: Value,
    pub name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Root {
    Query,
    Mutation,
    Subscription,
}

fn bare<T>(all: Vec<Positioned<T>>) -> Vec<T> {
    all.into_iter().map(|one| one.node).collect()
}

impl Grammar {
    /// Of a schema, and of what describes it.
    pub fn new(schema: &str, introspection: &str) -> anyhow::Result<Self> {
        let mut shapes = HashMap::new();
        let mut implements: HashMap<String, Vec<String>> = HashMap::new();
        let described = "type Described { __schema: __Schema! __type(name: String!): __Type }";
        for definition in parse_schema(format!("{schema} {introspection} {described}"))?.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let name = definition.node.name.node.to_string();
            let shape = match definition.node.kind {
                TypeKind::Scalar => Shape::Scalar,
                TypeKind::Object(object) => {
                    for interface in &object.implements {
                        implements.entry(interface.node.to_string()).or_default().push(name.clone());
                    }
                    Shape::Fields { fields: bare(object.fields), of: Vec::new() }
                }
                TypeKind::Interface(interface) => Shape::Fields { fields: bare(interface.fields), of: Vec::new() },
                TypeKind::Union(union) => {
                    Shape::Union(union.members.iter().map(|member| member.node.to_string()).collect())
                }
                TypeKind::Enum(values) => {
                    Shape::Enum(values.values.into_iter().map(|value| value.node.value.node).collect())
                }
                TypeKind::InputObject(input) => Shape::Input(bare(input.fields)),
            };
            shapes.insert(name, shape);
        }
        for (interface, members) in implements {
            if let Some(Shape::Fields { of, .. }) = shapes.get_mut(&interface) {
                *of = members;
            }
        }
        // Each type is asked for a field as often as for another, so that these come up now and then.
        if let Some(Shape::Fields { fields: described, .. }) = shapes.remove("Described")
            && let Some(Shape::Fields { fields, .. }) = shapes.get_mut("Query")
        {
            fields.extend(described);
        }
        Ok(Self { shapes, given: Mutex::default() })
    }

    /// Keeps the cursors, positions and global ids of an answer.
    pub fn learn(&self, answer: &serde_json::Value, rng: &mut StdRng) {
        match answer {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) if GIVEN.contains(&name.as_str()) => {
                            let mut given = self.given.lock().expect("nothing panics while it holds them");
                            if given.len() < GIVEN_MAX {
                                given.push(text.to_owned());
                            } else {
                                given[rng.random_range(0..GIVEN_MAX)] = text.to_owned();
                            }
                        }
                        Some(_) => {}
                        None => self.learn(value, rng),
                    }
                }
            }
            serde_json::Value::Array(all) => all.iter().for_each(|one| self.learn(one, rng)),
            _ => {}
        }
    }

    pub fn operation(&self, root: Root, soundness: Soundness, rng: &mut StdRng) -> Operation {
        let (keyword, ty) = match root {
            Root::Query => ("query", "Query"),
            Root::Mutation => ("mutation", "Mutation"),
            Root::Subscription => ("subscription", "Subscription"),
        };
        let mut writer = Writer {
            grammar: self,
            soundness,
            rng,
            variables: Vec::new(),
            fragments: String::new(),
            fragment_count: 0,
            room: 60,
        };
        let (mut depth, mut fields_max) = (writer.rng.random_range(1..8), 4);
        if root == Root::Subscription || writer.rng.random_bool(0.7) {
            fields_max = 1;
        } else if writer.rng.random_ratio(1, 40) {
            // Beyond what a document may be.
            (depth, fields_max, writer.room) = (16, 30, 3_000);
        }
        let selection = writer.selection(ty, depth, fields_max);
        let Writer { variables, fragments, rng, .. } = writer;
        let name = rng.random_bool(0.3).then(|| "Op".to_owned());
        let declared: Vec<_> = variables.iter().map(|(name, ty, _)| format!("${name}: {ty}")).collect();
        let declared = if declared.is_empty() { String::new() } else { format!("({})", declared.join(", ")) };
        let head = match (&name, root) {
            (None, Root::Query) if declared.is_empty() && rng.random_bool(0.5) => String::new(),
            _ => format!("{keyword} {}{declared} ", name.as_deref().unwrap_or_default()),
        };
        let document = format!("{head}{selection}{fragments}");
        let mut variables: async_graphql::indexmap::IndexMap<_, _> =
            variables.into_iter().map(|(name, _, value)| (Name::new(name), value)).collect();
        if rng.random_ratio(1, 30) {
            // What nobody has declared; some of it is more than anybody may send.
            let len = [1, 1_000, 50_000].choose(rng).copied().unwrap_or(1);
            variables.insert(Name::new("nobody"), Value::List(vec![Value::from("x"); len]));
        }
        Operation { document, variables: Value::Object(variables), name }
    }
}

struct Writer<'a> {
    grammar: &'a Grammar,
    soundness: Soundness,
    rng: &'a mut StdRng,
    variables: Vec<(String, String, Value)>,
    fragments: String,
    fragment_count: usize,
    /// Fields that may still be written.
    room: usize,
}

impl Writer<'_> {
    fn selection(&mut self, ty: &str, depth: usize, fields_max: usize) -> String {
        let grammar = self.grammar;
        let mut parts = Vec::new();
        match &grammar.shapes[ty] {
            Shape::Fields { fields, of } => {
                for _ in 0..self.rng.random_range(1..=fields_max) {
                    parts.extend(self.field(fields, depth));
                }
                if let Some(member) = of.choose(self.rng).filter(|_| depth > 0) {
                    parts.push(format!("... on {member} {}", self.selection(member, depth - 1, 3)));
                }
            }
            Shape::Union(members) => {
                if let Some(member) = members.choose(self.rng).filter(|_| depth > 0) {
                    parts.push(format!("... on {member} {}", self.selection(member, depth - 1, 3)));
                }
            }
            Shape::Enum(_) | Shape::Input(_) | Shape::Scalar => {}
        }
        if ty != "Subscription" && self.rng.random_bool(0.08) {
            // The same again, as fragments bring it together.
            parts.extend(parts.choose(self.rng).cloned());
        }
        // A subscription has one field at its root and no other.
        if parts.is_empty() || (ty != "Subscription" && self.rng.random_bool(0.1)) {
            parts.push("__typename".to_owned());
        }
        let selection = format!("{{ {} }}", parts.join(" "));
        if ty == "Subscription" || !self.rng.random_bool(0.05) {
            return selection;
        }
        self.fragment_count += 1;
        let name = format!("F{}", self.fragment_count);
        self.fragments.push_str(&format!(" fragment {name} on {ty} {selection}"));
        let twice = if self.rng.random_bool(0.1) { format!(" ...{name}") } else { String::new() };
        format!("{{ ...{name}{twice} }}")
    }

    fn field(&mut self, fields: &[FieldDefinition], depth: usize) -> Option<String> {
        self.room = self.room.checked_sub(1)?;
        let field = fields.choose(self.rng)?;
        let rarity = RARE.iter().find(|(name, _)| *name == field.name.node.as_str()).map_or(1, |(_, rarity)| *rarity);
        if !self.rng.random_ratio(1, rarity) {
            return None;
        }
        let inner = match &self.grammar.shapes.get(base(&field.ty.node)) {
            Some(Shape::Fields { .. } | Shape::Union(_)) if depth == 0 => return None,
            Some(Shape::Fields { .. } | Shape::Union(_)) => {
                format!(" {}", self.selection(base(&field.ty.node), depth - 1, 4))
            }
            _ => String::new(),
        };
        let arguments: Vec<_> = field
            .arguments
            .iter()
            .filter_map(|argument| {
                self.argument(&argument.node).map(|value| format!("{}: {value}", argument.node.name))
            })
            .collect();
        let arguments = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
        let alias =
            if self.rng.random_bool(0.08) { format!("a{}: ", self.rng.random_range(0..9)) } else { String::new() };
        let directive = match self.rng.random_range(0..40) {
            0 => " @include(if: true)",
            1 => " @skip(if: true)",
            _ => "",
        };
        Some(format!("{alias}{}{arguments}{directive}{inner}", field.name.node))
    }

    /// As it stands in the document; `None` for one that is left out.
    fn argument(&mut self, argument: &InputValueDefinition) -> Option<String> {
        let (name, ty) = (argument.name.node.as_str(), &argument.ty.node);
        let may_be_left_out = ty.nullable || argument.default_value.is_some();
        if may_be_left_out && self.rng.random_bool(0.5) {
            return None;
        }
        if self.soundness.is_wild(0.01, self.rng) {
            return Some("$undeclared".to_owned());
        }
        let of_type = ty.to_string();
        let known: Vec<_> =
            self.variables.iter().filter(|(_, known, _)| *known == of_type).map(|(name, ..)| name).collect();
        // One that is named again and again.
        if let Some(variable) = known.choose(self.rng)
            && self.rng.random_bool(0.5)
        {
            return Some(format!("${variable}"));
        }
        let value = self.value(name, ty);
        if !self.rng.random_bool(0.35) {
            return Some(value.to_string());
        }
        let variable = format!("v{}", self.variables.len());
        self.variables.push((variable.clone(), ty.to_string(), value));
        Some(format!("${variable}"))
    }

    fn value(&mut self, name: &str, ty: &Type) -> Value {
        if ty.nullable && self.rng.random_bool(0.1) || self.soundness.is_wild(0.02, self.rng) {
            return Value::Null;
        }
        let base = match &ty.base {
            BaseType::List(of) => {
                // Within what a body may hold: a longer one is refused before all of it was sent.
                let of_scalars = matches!(self.grammar.shapes.get(base(of)), None | Some(Shape::Scalar));
                let longest = match self.soundness.is_wild(0.02, self.rng) {
                    true if of_scalars => [600, 5_000].choose(self.rng).copied().unwrap_or(600),
                    true => 600,
                    false => 4,
                };
                let len = self.rng.random_range(0..=longest);
                return Value::List((0..len).map(|_| self.value(name, of)).collect());
            }
            BaseType::Named(base) => base.as_str(),
        };
        let grammar = self.grammar;
        match grammar.shapes.get(base) {
            Some(Shape::Enum(values)) => match values.choose(self.rng) {
                Some(value) if !self.soundness.is_wild(0.05, self.rng) => Value::Enum(value.clone()),
                _ => Value::Enum(Name::new("NONE_OF_THEM")),
            },
            Some(Shape::Input(fields)) => {
                let mut object = async_graphql::indexmap::IndexMap::new();
                for field in fields {
                    let may_be_left_out = field.ty.node.nullable || field.default_value.is_some();
                    if !(may_be_left_out && self.rng.random_bool(0.5) || self.soundness.is_wild(0.02, self.rng)) {
                        object.insert(field.name.node.clone(), self.value(field.name.node.as_str(), &field.ty.node));
                    }
                }
                Value::Object(object)
            }
            _ if ["after", "resume", "nodeId", "nodeIds"].contains(&name) && self.rng.random_bool(0.9) => {
                let given = grammar.given.lock().expect("as above");
                given.choose(self.rng).map_or(Value::Null, |given| Value::from(given.as_str()))
            }
            _ => scalar(base, name, self.soundness, self.rng),
        }
    }
}

/// The type's name, within whatever lists.
fn base(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name.as_str(),
        BaseType::List(of) => base(of),
    }
}
