//! The API's schema as apollo-compiler knows it: what documents are validated and normalised against.

use std::sync::LazyLock;

use apollo_compiler::ast::{self, Definition, FieldDefinition};
use apollo_compiler::collections::HashMap;
use apollo_compiler::schema::{Component, EnumType, ExtendedType, Implementers, ObjectType};
use apollo_compiler::validation::Valid;
use apollo_compiler::{Name, Schema};

/// The schema, and who implements its interfaces.
pub struct Definitions {
    schema: Valid<Schema>,
    implementers: HashMap<Name, Implementers>,
}

impl Definitions {
    /// Those of `schema.graphql`.
    pub fn of_the_api() -> &'static Self {
        static API: LazyLock<Definitions> = LazyLock::new(|| {
            let schema = Schema::parse_and_validate(crate::graphql::sdl(), "schema.graphql");
            let mut schema = schema.expect("async-graphql writes a schema by the specification").into_inner();
            describe_introspection(&mut schema);
            Definitions { implementers: schema.implementers_map(), schema: Valid::assume_valid(schema) }
        });
        &API
    }

    pub fn schema(&self) -> &Valid<Schema> {
        &self.schema
    }

    pub fn ty(&self, name: &str) -> Option<&ExtendedType> {
        self.schema.types.get(name)
    }

    /// A field that is defined on an object or interface itself.
    pub fn field(&self, ty: &str, field: &str) -> Option<&FieldDefinition> {
        let fields = match self.ty(ty)? {
            ExtendedType::Object(object) => &object.fields,
            ExtendedType::Interface(interface) => &interface.fields,
            _ => return None,
        };
        fields.get(field).map(|field| &***field)
    }

    /// The object types that a value of an interface or union can have, by name.
    pub fn possible_types<'a>(&'a self, ty: &'a ExtendedType) -> Vec<&'a Name> {
        let mut possible: Vec<_> = match ty {
            ExtendedType::Interface(interface) => {
                self.implementers.get(&interface.name).into_iter().flat_map(|known| &known.objects).collect()
            }
            ExtendedType::Union(union) => union.members.iter().map(|member| &member.name).collect(),
            _ => Vec::new(),
        };
        possible.sort();
        possible
    }

    /// Whether a fragment on `condition` applies to an object of a type.
    pub fn applies(&self, condition: &str, object: &str) -> bool {
        condition == object
            || self.ty(condition).is_some_and(|ty| self.possible_types(ty).iter().any(|name| *name == object))
    }
}

/// Puts graphql-js's introspection types and directives in the place of apollo-compiler's, which are those of an older draft.
fn describe_introspection(schema: &mut Schema) {
    let described = ast::Document::parse(include_str!("introspection.graphql"), "introspection.graphql");
    for definition in described.expect("a document by the grammar").definitions {
        match definition {
            Definition::ObjectTypeDefinition(object) => {
                let fields = object.fields.iter().map(|field| (field.name.clone(), Component::new((**field).clone())));
                let replaced = ObjectType {
                    description: object.description.clone(),
                    name: object.name.clone(),
                    implements_interfaces: Default::default(),
                    directives: Default::default(),
                    fields: fields.collect(),
                };
                schema.types.insert(object.name.clone(), ExtendedType::Object(replaced.into()));
            }
            Definition::EnumTypeDefinition(known) => {
                let values = known.values.iter().map(|value| (value.value.clone(), Component::new((**value).clone())));
                let replaced = EnumType {
                    description: known.description.clone(),
                    name: known.name.clone(),
                    directives: Default::default(),
                    values: values.collect(),
                };
                schema.types.insert(known.name.clone(), ExtendedType::Enum(replaced.into()));
            }
            Definition::DirectiveDefinition(directive) => {
                schema.directive_definitions.insert(directive.name.clone(), directive);
            }
            _ => {}
        }
    }
}
