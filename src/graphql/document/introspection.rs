//! Answers `__schema` and `__type` from the schema itself ([specification, 4](https://spec.graphql.org/draft/#sec-Introspection)).
//!
//! apollo-compiler can do so too, without `isOneOf` and what else graphql-js has.

use apollo_compiler::Node;
use apollo_compiler::ast::{
    DirectiveDefinition, DirectiveList, EnumValueDefinition, FieldDefinition, InputValueDefinition, Type,
};
use apollo_compiler::schema::ExtendedType;
use async_graphql::indexmap::IndexMap;
use async_graphql::{Name, Value, Variables};

use super::definitions::Definitions;
use super::normal::{Field, NormalForm, Object, Selection, Source};

/// The values of an operation's root fields that ask for the schema, by response key.
pub fn answer(definitions: &Definitions, form: &NormalForm, variables: &Variables) -> IndexMap<Name, Value> {
    let asked = form.root.fields.iter().filter(|field| field.source == Source::Introspection);
    asked.map(|field| (field.key.clone(), Asked { definitions, variables }.root(field))).collect()
}

/// What can be described.
#[derive(Clone, Copy)]
enum Described<'a> {
    Schema,
    Named(&'a ExtendedType),
    List(&'a Type),
    NonNull(&'a Type),
    Field(&'a FieldDefinition),
    Input(&'a InputValueDefinition),
    EnumValue(&'a EnumValueDefinition),
    Directive(&'a DirectiveDefinition),
}

struct Asked<'a> {
    definitions: &'a Definitions,
    variables: &'a Variables,
}

impl<'a> Asked<'a> {
    fn root(&self, field: &Field) -> Value {
        if field.name == "__schema" {
            return self.object(Some(Described::Schema), &field.selection);
        }
        let Some(Value::String(name)) = self.argument(field, "name") else { return Value::Null };
        self.object(self.definitions.ty(&name).map(Described::Named), &field.selection)
    }

    fn argument(&self, field: &Field, name: &str) -> Option<Value> {
        let (_, value) = field.arguments.iter().find(|(known, _)| known == name)?;
        value.clone().into_const_with(|variable| self.variables.get(&variable).cloned().ok_or(())).ok()
    }

    fn object(&self, described: Option<Described<'a>>, selection: &Selection) -> Value {
        let (Some(described), Selection::Object(Object { fields, .. })) = (described, selection) else {
            return Value::Null;
        };
        let asked = fields.iter().filter(|field| field.source == Source::Resolver);
        Value::Object(asked.map(|field| (field.key.clone(), self.field(described, field))).collect())
    }

    fn list(&self, items: impl IntoIterator<Item = Described<'a>>, selection: &Selection) -> Value {
        Value::List(items.into_iter().map(|item| self.object(Some(item), selection)).collect())
    }

    fn field(&self, described: Described<'a>, field: &Field) -> Value {
        match described {
            Described::Schema => self.of_schema(field),
            Described::Named(ty) => self.of_type(ty, field),
            Described::List(item) => match field.name.as_str() {
                "kind" => Value::Enum(Name::new("LIST")),
                "ofType" => self.ty(item, field),
                _ => Value::Null,
            },
            Described::NonNull(ty) => match field.name.as_str() {
                "kind" => Value::Enum(Name::new("NON_NULL")),
                "ofType" => self.nullable(ty, field),
                _ => Value::Null,
            },
            Described::Field(defined) => match field.name.as_str() {
                "name" => text(&defined.name),
                "description" => description(defined.description.as_ref()),
                "args" => self.inputs(defined.arguments.iter().map(|argument| &**argument), field),
                "type" => self.ty(&defined.ty, field),
                _ => deprecation(&defined.directives, field),
            },
            Described::Input(defined) => match field.name.as_str() {
                "name" => text(&defined.name),
                "description" => description(defined.description.as_ref()),
                "type" => self.ty(&defined.ty, field),
                "defaultValue" => {
                    let printed = defined.default_value.as_ref().map(|value| value.serialize().no_indent().to_string());
                    printed.map_or(Value::Null, Value::String)
                }
                _ => deprecation(&defined.directives, field),
            },
            Described::EnumValue(defined) => match field.name.as_str() {
                "name" => text(&defined.value),
                "description" => description(defined.description.as_ref()),
                _ => deprecation(&defined.directives, field),
            },
            Described::Directive(defined) => match field.name.as_str() {
                "name" => text(&defined.name),
                "description" => description(defined.description.as_ref()),
                "isRepeatable" => Value::Boolean(defined.repeatable),
                "locations" => {
                    let places = defined.locations.iter().map(|location| location.name());
                    let more = (defined.name == "deprecated").then_some("DIRECTIVE_DEFINITION");
                    Value::List(places.chain(more).map(|place| Value::Enum(Name::new(place))).collect())
                }
                "args" => self.inputs(defined.arguments.iter().map(|argument| &**argument), field),
                _ => deprecation(&DirectiveList::new(), field),
            },
        }
    }

    fn of_schema(&self, field: &Field) -> Value {
        let schema = self.definitions.schema();
        let root = |name: Option<&str>| {
            self.object(name.and_then(|name| self.definitions.ty(name)).map(Described::Named), &field.selection)
        };
        let defined = &schema.schema_definition;
        match field.name.as_str() {
            "description" => description(defined.description.as_ref()),
            "types" => self.list(schema.types.values().map(Described::Named), &field.selection),
            "queryType" => root(defined.query.as_ref().map(|query| query.name.as_str())),
            "mutationType" => root(defined.mutation.as_ref().map(|mutation| mutation.name.as_str())),
            "subscriptionType" => root(defined.subscription.as_ref().map(|subscription| subscription.name.as_str())),
            "directives" => {
                let directives = schema.directive_definitions.values();
                self.list(directives.map(|directive| Described::Directive(directive)), &field.selection)
            }
            _ => Value::Null,
        }
    }

    fn of_type(&self, ty: &'a ExtendedType, field: &Field) -> Value {
        let kind = match ty {
            ExtendedType::Scalar(_) => "SCALAR",
            ExtendedType::Object(_) => "OBJECT",
            ExtendedType::Interface(_) => "INTERFACE",
            ExtendedType::Union(_) => "UNION",
            ExtendedType::Enum(_) => "ENUM",
            ExtendedType::InputObject(_) => "INPUT_OBJECT",
        };
        let named = |names: Vec<&str>| {
            let types = names.into_iter().filter_map(|name| self.definitions.ty(name)).map(Described::Named);
            self.list(types, &field.selection)
        };
        match (field.name.as_str(), ty) {
            ("kind", _) => Value::Enum(Name::new(kind)),
            ("name", _) => text(ty.name()),
            ("description", _) => {
                description(ty.description().map(|description| &**description).map(Node::new_str).as_ref())
            }
            ("specifiedByURL", ExtendedType::Scalar(scalar)) => {
                let url =
                    scalar.directives.get("specifiedBy").and_then(|given| given.specified_argument_by_name("url"));
                url.and_then(|url| url.as_str()).map_or(Value::Null, text)
            }
            ("fields", ExtendedType::Object(object)) => {
                self.fields(object.fields.values().map(|field| &***field), field)
            }
            ("fields", ExtendedType::Interface(interface)) => {
                self.fields(interface.fields.values().map(|field| &***field), field)
            }
            ("interfaces", ExtendedType::Object(object)) => {
                named(object.implements_interfaces.iter().map(|name| name.as_str()).collect())
            }
            ("interfaces", ExtendedType::Interface(interface)) => {
                named(interface.implements_interfaces.iter().map(|name| name.as_str()).collect())
            }
            ("possibleTypes", ExtendedType::Interface(_) | ExtendedType::Union(_)) => {
                named(self.definitions.possible_types(ty).into_iter().map(|name| name.as_str()).collect())
            }
            ("enumValues", ExtendedType::Enum(known)) => {
                let values = known.values.values().filter(|value| self.shows(&value.directives, field));
                self.list(values.map(|value| Described::EnumValue(value)), &field.selection)
            }
            ("inputFields", ExtendedType::InputObject(object)) => {
                self.inputs(object.fields.values().map(|field| &***field), field)
            }
            ("isOneOf", ExtendedType::InputObject(object)) => Value::Boolean(object.directives.has("oneOf")),
            _ => Value::Null,
        }
    }

    fn fields(&self, fields: impl Iterator<Item = &'a FieldDefinition>, asked: &Field) -> Value {
        let shown = fields.filter(|field| self.shows(&field.directives, asked));
        self.list(shown.map(Described::Field), &asked.selection)
    }

    fn inputs(&self, inputs: impl Iterator<Item = &'a InputValueDefinition>, asked: &Field) -> Value {
        let shown = inputs.filter(|input| self.shows(&input.directives, asked));
        self.list(shown.map(Described::Input), &asked.selection)
    }

    /// Whether something is listed, deprecated or not.
    fn shows(&self, directives: &DirectiveList, asked: &Field) -> bool {
        !directives.has("deprecated") || self.argument(asked, "includeDeprecated") == Some(Value::Boolean(true))
    }

    fn ty(&self, ty: &'a Type, field: &Field) -> Value {
        match ty {
            Type::NonNullNamed(_) | Type::NonNullList(_) => self.object(Some(Described::NonNull(ty)), &field.selection),
            Type::Named(_) | Type::List(_) => self.nullable(ty, field),
        }
    }

    /// A type without the mark that it can't be null.
    fn nullable(&self, ty: &'a Type, field: &Field) -> Value {
        let described = match ty {
            Type::Named(name) | Type::NonNullNamed(name) => self.definitions.ty(name).map(Described::Named),
            Type::List(item) | Type::NonNullList(item) => Some(Described::List(item)),
        };
        self.object(described, &field.selection)
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn description(given: Option<&Node<str>>) -> Value {
    given.map_or(Value::Null, |given| text(given))
}

fn deprecation(directives: &DirectiveList, field: &Field) -> Value {
    let deprecated = directives.get("deprecated");
    match field.name.as_str() {
        "isDeprecated" => Value::Boolean(deprecated.is_some()),
        "deprecationReason" => deprecated.map_or(Value::Null, |deprecated| {
            let reason = deprecated.specified_argument_by_name("reason").and_then(|reason| reason.as_str());
            text(reason.unwrap_or("No longer supported"))
        }),
        _ => Value::Null,
    }
}
