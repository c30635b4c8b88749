//! The API's schema as apollo-compiler knows it: what documents are validated and normalised against.

use std::sync::LazyLock;

use apollo_compiler::ast::FieldDefinition;
use apollo_compiler::collections::HashMap;
use apollo_compiler::executable::{ExecutableDocument, Operation};
use apollo_compiler::introspection::partial_execute;
use apollo_compiler::request::coerce_variable_values;
use apollo_compiler::response::JsonMap;
use apollo_compiler::schema::{ExtendedType, Implementers};
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
            let schema = schema.expect("async-graphql writes a schema by the specification");
            Definitions { implementers: schema.implementers_map(), schema }
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

    /// Executes `__schema` and `__type` of a query.
    pub fn introspect(
        &self,
        document: &Valid<ExecutableDocument>,
        operation: &Operation,
        variables: JsonMap,
    ) -> Result<JsonMap, String> {
        let variables =
            coerce_variable_values(&self.schema, operation, &variables).map_err(|error| error.message().to_string())?;
        let answer = partial_execute(&self.schema, &self.implementers, document, operation, &variables)
            .map_err(|error| error.message().to_string())?;
        match answer.errors.first() {
            None => Ok(answer.data.unwrap_or_default()),
            Some(error) => Err(error.message.clone()),
        }
    }
}
