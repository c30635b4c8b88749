//! Rules of validation that apollo-compiler lacks, or has otherwise ([specification, 5](https://spec.graphql.org/draft/#sec-Validation)).

use std::collections::{HashMap, HashSet};

use apollo_compiler::ast::{self, Argument, Definition, Document, InputValueDefinition, Type, Value as Literal};
use apollo_compiler::executable::{DirectiveList, ExecutableDocument, Operation, Selection, SelectionSet};
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::{DiagnosticList, Valid, WithErrors};
use apollo_compiler::{Node, Schema};

use super::coerce::{Coercion, Given};
use super::definitions::Definitions;
use crate::graphql::errors::Failure;

/// Refuses a document with a literal that its type can't have (5.6.1), an input field twice (5.6.3), a variable where its type
/// does not fit (5.8.5), or a subscription with more than one root field (5.2.4.1).
pub fn check(definitions: &Definitions, document: &ExecutableDocument) -> Result<(), Failure> {
    let rules = Rules { definitions };
    let mut fragments = HashMap::new();
    for (name, fragment) in &document.fragments {
        let mut part = Part::default();
        rules.directives(&fragment.directives, &mut part)?;
        rules.selections(&fragment.selection_set, &mut part)?;
        fragments.insert(name.as_str(), part);
    }
    for operation in document.operations.iter() {
        let mut part = Part::default();
        rules.directives(&operation.directives, &mut part)?;
        rules.selections(&operation.selection_set, &mut part)?;
        for variable in &operation.variables {
            if let Some(default) = &variable.default_value {
                rules.literal(&variable.name, &variable.ty, None, default, &mut Part::default())?;
            }
            rules.directives(&variable.directives, &mut part)?;
        }
        positions(operation, &part, &fragments)?;
        if operation.is_subscription() {
            one_root(document, operation)?;
        }
    }
    Ok(())
}

/// The document after all, where validation has found nothing but what [`check`] knows better: apollo-compiler counts a
/// subscription's root fields as often as they stand. And unlike graphql-js it lets no `__typename` share its response key with
/// a field of another type, on another object.
pub fn pardon(
    found: WithErrors<ExecutableDocument>,
    parsed: &Document,
    schema: &Valid<Schema>,
) -> Result<Valid<ExecutableDocument>, DiagnosticList> {
    let has_only = |errors: &DiagnosticList, known: &[&str]| {
        let mut names = errors.iter().map(|diagnostic| diagnostic.error.unstable_error_name());
        names.all(|name| name.is_some_and(|name| known.contains(&name)))
    };
    const ROOTS: &str = "SubscriptionUsesMultipleFields";
    let is_pardoned = has_only(&found.errors, &[ROOTS])
        || has_only(&found.errors, &[ROOTS, "ConflictingFieldType"]) && {
            let mut plain = parsed.clone();
            plain.definitions.iter_mut().for_each(name_types_plainly);
            let checked = plain.to_executable(schema).map(|plain| plain.validate(schema).err());
            checked.is_ok_and(|found| found.is_none_or(|found| has_only(&found.errors, &[ROOTS])))
        };
    if is_pardoned {
        return Ok(Valid::assume_valid(found.partial));
    }
    Err(found.errors)
}

/// Takes the aliases of `__typename` away.
fn name_types_plainly(definition: &mut Definition) {
    fn selections(set: &mut [ast::Selection]) {
        for selection in set {
            match selection {
                ast::Selection::Field(field) => {
                    let field = field.make_mut();
                    if field.name == "__typename" {
                        field.alias = None;
                    }
                    selections(&mut field.selection_set);
                }
                ast::Selection::InlineFragment(inline) => selections(&mut inline.make_mut().selection_set),
                ast::Selection::FragmentSpread(_) => {}
            }
        }
    }
    match definition {
        Definition::OperationDefinition(operation) => selections(&mut operation.make_mut().selection_set),
        Definition::FragmentDefinition(fragment) => selections(&mut fragment.make_mut().selection_set),
        _ => {}
    }
}

/// What an operation or a fragment holds, without the fragments that it spreads.
#[derive(Default)]
struct Part<'a> {
    uses: Vec<Use<'a>>,
    spreads: Vec<&'a str>,
}

/// A variable, and what stands in its place otherwise.
struct Use<'a> {
    variable: &'a str,
    ty: &'a Type,
    has_default: bool,
}

struct Rules<'a> {
    definitions: &'a Definitions,
}

impl<'a> Rules<'a> {
    fn selections(&self, set: &'a SelectionSet, part: &mut Part<'a>) -> Result<(), Failure> {
        for selection in &set.selections {
            self.directives(selection.directives(), part)?;
            match selection {
                Selection::Field(field) => {
                    // The field's definition lives as long as the document.
                    self.arguments(&field.definition.arguments, &field.arguments, part)?;
                    self.selections(&field.selection_set, part)?;
                }
                Selection::InlineFragment(inline) => self.selections(&inline.selection_set, part)?,
                Selection::FragmentSpread(spread) => part.spreads.push(&spread.fragment_name),
            }
        }
        Ok(())
    }

    fn directives(&self, directives: &'a DirectiveList, part: &mut Part<'a>) -> Result<(), Failure> {
        for directive in directives {
            if let Some(defined) = self.definitions.schema().directive_definitions.get(&directive.name) {
                self.arguments(&defined.arguments, &directive.arguments, part)?;
            }
        }
        Ok(())
    }

    fn arguments(
        &self,
        defined: &'a [Node<InputValueDefinition>],
        given: &'a [Node<Argument>],
        part: &mut Part<'a>,
    ) -> Result<(), Failure> {
        for argument in given {
            // One that is not defined is refused by validation.
            if let Some(defined) = defined.iter().find(|defined| defined.name == argument.name) {
                self.literal(&argument.name, &defined.ty, Some(defined), &argument.value, part)?;
            }
        }
        Ok(())
    }

    fn literal(
        &self,
        name: &str,
        ty: &'a Type,
        defined: Option<&'a InputValueDefinition>,
        literal: &'a Literal,
        part: &mut Part<'a>,
    ) -> Result<(), Failure> {
        self.visit(ty, defined, literal, part);
        let coerced = Coercion { definitions: self.definitions }.literal(ty, literal, &|_| Given::Value);
        coerced.map(drop).map_err(|mismatch| mismatch.of(name))
    }

    /// Notes the variables in a literal.
    fn visit(
        &self,
        ty: &'a Type,
        defined: Option<&'a InputValueDefinition>,
        literal: &'a Literal,
        part: &mut Part<'a>,
    ) {
        match literal {
            Literal::Variable(variable) => {
                let has_default = defined.is_some_and(|defined| defined.default_value.is_some());
                part.uses.push(Use { variable, ty, has_default });
            }
            Literal::List(items) if ty.is_list() => {
                items.iter().for_each(|item| self.visit(ty.item_type(), None, item, part));
            }
            Literal::Object(fields) => {
                let Some(ExtendedType::InputObject(object)) = self.definitions.ty(ty.inner_named_type()) else {
                    return;
                };
                for (name, value) in fields {
                    if let Some(field) = object.fields.get(name) {
                        self.visit(&field.ty, Some(field), value, part);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether each variable of an operation fits where it is used, in the fragments that it spreads as well.
fn positions(operation: &Operation, part: &Part<'_>, fragments: &HashMap<&str, Part<'_>>) -> Result<(), Failure> {
    let mut reached = HashSet::new();
    let mut parts = vec![part];
    while let Some(part) = parts.pop() {
        for used in &part.uses {
            // One that is not defined is refused by validation.
            let Some(variable) = operation.variables.iter().find(|known| known.name == used.variable) else { continue };
            let has_default = variable.default_value.as_ref().is_some_and(|default| !default.is_null());
            let fits = match (used.ty.is_non_null() && !variable.ty.is_non_null(), has_default || used.has_default) {
                (true, false) => false,
                (true, true) => variable.ty.is_assignable_to(&used.ty.clone().nullable()),
                (false, _) => variable.ty.is_assignable_to(used.ty),
            };
            if !fits {
                let message = format!("the variable has the type {}, and {} is needed", variable.ty, used.ty);
                return Err(Failure::bad(variable.name.to_string(), message));
            }
        }
        let new = part.spreads.iter().filter(|name| reached.insert(**name));
        parts.extend(new.filter_map(|name| fragments.get(name)));
    }
    Ok(())
}

fn one_root(document: &ExecutableDocument, operation: &Operation) -> Result<(), Failure> {
    let keys: HashSet<_> = operation.root_fields(document).map(|field| field.response_key()).collect();
    if keys.len() != 1 {
        return Err(Failure::bad("query", "a subscription has exactly one field at its root"));
    }
    Ok(())
}

/// Lists within lists of the schema's parts: types lead to one another, and an answer could grow without end.
const INTROSPECTION_LISTS_MAX: usize = 2;

/// Refuses `__schema` and `__type` with more lists within lists, as graphql-js's MaxIntrospectionDepthRule does; the
/// document must be valid. apollo-compiler's rule passes over some fragments that are spread twice.
pub fn check_introspection(document: &ExecutableDocument) -> Result<(), Failure> {
    let mut lists = Lists { document, known: HashMap::new() };
    let operations = document.operations.iter().map(|operation| &operation.selection_set);
    let fragments = document.fragments.values().map(|fragment| &fragment.selection_set);
    operations.chain(fragments).try_for_each(|set| lists.check(set))
}

struct Lists<'a> {
    document: &'a ExecutableDocument,
    /// How many lists within lists each fragment has.
    known: HashMap<&'a str, usize>,
}

impl<'a> Lists<'a> {
    fn check(&mut self, set: &'a SelectionSet) -> Result<(), Failure> {
        for selection in &set.selections {
            match selection {
                Selection::Field(field) if matches!(field.name.as_str(), "__schema" | "__type") => {
                    if self.within(&field.selection_set) > INTROSPECTION_LISTS_MAX {
                        return Err(Failure::bad("query", "introspection asks for lists within lists too deep"));
                    }
                }
                Selection::Field(field) => self.check(&field.selection_set)?,
                Selection::InlineFragment(inline) => self.check(&inline.selection_set)?,
                // Every fragment of the document is checked by itself.
                Selection::FragmentSpread(_) => {}
            }
        }
        Ok(())
    }

    fn within(&mut self, set: &'a SelectionSet) -> usize {
        let depths = set.selections.iter().map(|selection| match selection {
            Selection::Field(field) => {
                let is_list = matches!(field.name.as_str(), "fields" | "interfaces" | "possibleTypes" | "inputFields");
                usize::from(is_list) + self.within(&field.selection_set)
            }
            Selection::InlineFragment(inline) => self.within(&inline.selection_set),
            Selection::FragmentSpread(spread) => self.within_fragment(&spread.fragment_name),
        });
        depths.max().unwrap_or(0)
    }

    fn within_fragment(&mut self, name: &'a str) -> usize {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        let fragment = self.document.fragments.get(name);
        let depth = fragment.map_or(0, |fragment| self.within(&fragment.selection_set));
        self.known.insert(name, depth);
        depth
    }
}
