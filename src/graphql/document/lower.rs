//! From the normal form to what async-graphql executes: a document without fragments by name, directives or duplicates.

use apollo_compiler::executable::Operation;
use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, Field as LoweredField, InlineFragment, OperationDefinition, OperationType,
    Selection as LoweredSelection, SelectionSet, Type, TypeCondition, VariableDefinition,
};
use async_graphql::{Name, Pos, Positioned};

use super::definitions::Definitions;
use super::normal::{Field, Object, Selection, Source, Step};

/// The response key of a value's type where the answer depends on it. No document can ask for a key like this.
pub const TYPE_KEY: &str = "@type";

/// The parts of an operation that are executed one after another; none where it can't be told what is asked.
pub fn steps(definitions: &Definitions, operation: &Operation, kind: OperationType, root: &Object) -> Vec<Step> {
    if root.failure.is_some() {
        return Vec::new();
    }
    let len = root.fields.len();
    // Fields of a mutation are executed in order, and none after one that fails and can't be null.
    let ranges: Vec<_> = match kind {
        OperationType::Mutation => (0..len).map(|field| field..field + 1).collect(),
        OperationType::Query | OperationType::Subscription => std::iter::once(0..len).collect(),
    };
    let lowering = Lowering { definitions };
    let variables: Vec<_> = operation
        .variables
        .iter()
        .filter_map(|variable| {
            let definition = VariableDefinition {
                name: at(Pos::default(), Name::new(&variable.name)),
                var_type: at(Pos::default(), Type::new(&variable.ty.to_string())?),
                directives: Vec::new(),
                default_value: None,
            };
            Some(at(Pos::default(), definition))
        })
        .collect();
    ranges
        .into_iter()
        .map(|fields| {
            let items: Vec<_> = root.fields[fields.clone()].iter().filter_map(|field| lowering.field(field)).collect();
            let operation = OperationDefinition {
                ty: kind,
                variable_definitions: variables.clone(),
                directives: Vec::new(),
                selection_set: at(Pos::default(), SelectionSet { items }),
            };
            let operations = DocumentOperations::Single(at(Pos::default(), operation));
            Step { document: ExecutableDocument { operations, fragments: Default::default() }, fields }
        })
        .collect()
}

struct Lowering<'a> {
    definitions: &'a Definitions,
}

impl Lowering<'_> {
    /// `None` for what no resolver answers.
    fn field(&self, field: &Field) -> Option<Positioned<LoweredSelection>> {
        if field.source != Source::Resolver {
            return None;
        }
        let items = match &field.selection {
            Selection::Leaf => Vec::new(),
            Selection::Object(object) => {
                let mut items = self.fields(&object.fields);
                if items.is_empty() {
                    // async-graphql answers an empty object as it answers none.
                    items.push(type_key(field.pos));
                }
                items
            }
            Selection::Abstract(ty, objects) => self.by_type(ty, objects, field.pos),
        };
        let pos = field.pos;
        let arguments = field.arguments.iter().map(|(name, value)| (at(pos, name.clone()), at(pos, value.clone())));
        let lowered = LoweredField {
            alias: (field.key != field.name).then(|| at(pos, field.key.clone())),
            name: at(pos, field.name.clone()),
            arguments: arguments.collect(),
            directives: Vec::new(),
            selection_set: at(pos, SelectionSet { items }),
        };
        Some(at(pos, LoweredSelection::Field(at(pos, lowered))))
    }

    fn fields(&self, fields: &[Field]) -> Vec<Positioned<LoweredSelection>> {
        fields.iter().filter_map(|field| self.field(field)).collect()
    }

    /// Fields that are the same for all types stand once, so that they cost once.
    fn by_type(&self, interface: &Name, objects: &[Object], pos: Pos) -> Vec<Positioned<LoweredSelection>> {
        let mut items = vec![type_key(pos)];
        let is_common = |field: &Field| {
            self.definitions.field(interface, &field.name).is_some()
                && objects.iter().all(|object| object.fields.contains(field))
        };
        let common = objects.first().map_or(&[][..], |object| &object.fields);
        items.extend(common.iter().filter(|field| is_common(field)).filter_map(|field| self.field(field)));
        for object in objects {
            let own = object.fields.iter().filter(|field| !is_common(field));
            let own: Vec<_> = own.filter_map(|field| self.field(field)).collect();
            if own.is_empty() {
                continue;
            }
            let inline = InlineFragment {
                type_condition: Some(at(pos, TypeCondition { on: at(pos, object.type_name.clone()) })),
                directives: Vec::new(),
                selection_set: at(pos, SelectionSet { items: own }),
            };
            items.push(at(pos, LoweredSelection::InlineFragment(at(pos, inline))));
        }
        items
    }
}

fn type_key(pos: Pos) -> Positioned<LoweredSelection> {
    let field = LoweredField {
        alias: Some(at(pos, Name::new(TYPE_KEY))),
        name: at(pos, Name::new("__typename")),
        arguments: Vec::new(),
        directives: Vec::new(),
        selection_set: at(pos, SelectionSet::default()),
    };
    at(pos, LoweredSelection::Field(at(pos, field)))
}

fn at<T>(pos: Pos, node: T) -> Positioned<T> {
    Positioned::new(node, pos)
}
