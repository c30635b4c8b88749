//! The normal form of an operation: what it asks of each object, field by field.
//!
//! Fields are collected, so that each response key stands once; fragments are inlined; directives are resolved for the given
//! variables; arguments are coerced to their types. Below an interface there is one [`Object`] for each type that a value can
//! have. ([Specification, 6.3.2 CollectFields](https://spec.graphql.org/draft/#CollectFields()))

use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Write};

use apollo_compiler::Node;
use apollo_compiler::ast::{Argument, FieldDefinition, Type, Value as Literal};
use apollo_compiler::executable::{self, DirectiveList, ExecutableDocument, Operation, SelectionSet};
use apollo_compiler::parser::{LineColumn, SourceMap, SourceSpan};
use apollo_compiler::schema::ExtendedType;
use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{ExecutableDocument as Lowered, OperationType};
use async_graphql::{Name, Pos, Value, Variables};
use async_graphql_value::Value as Input;

use super::coerce::{Coercion, Given};
use super::definitions::Definitions;
use super::{lower, weight};
use crate::graphql::errors::Failure;
use crate::graphql::limits::DocumentLimits;

/// An operation, for one set of given variables.
#[derive(Debug)]
pub struct NormalForm {
    pub kind: OperationType,
    pub root: Object,
    /// Equal for operations that ask for the same, whatever their documents look like. Without `resume`, which is one
    /// subscriber's alone.
    pub text: String,
    /// The variables that `text` names.
    pub variables: BTreeSet<Name>,
    /// The argument `resume` of a subscription.
    pub resume: Option<Input>,
    /// What async-graphql executes: one document, or one for each field of a mutation, in order.
    pub steps: Vec<Step>,
    /// How often each variable is named, rows included.
    pub(super) uses: Vec<(Name, usize)>,
    pub field_count: usize,
}

/// Root fields that are executed together.
#[derive(Debug)]
pub struct Step {
    pub document: Lowered,
    /// The root fields' places in [`NormalForm::root`].
    pub fields: std::ops::Range<usize>,
}

impl Step {
    /// Whether no resolver is asked.
    pub fn is_empty(&self) -> bool {
        self.document.operations.iter().all(|(_, operation)| operation.node.selection_set.node.items.is_empty())
    }

    pub fn request(&self, variables: Variables) -> async_graphql::Request {
        let mut request = async_graphql::Request::new(String::new()).variables(variables);
        request.set_parsed_query(self.document.clone());
        request
    }
}

/// What is asked of an object.
#[derive(Debug, PartialEq)]
pub struct Object {
    pub type_name: Name,
    pub fields: Vec<Field>,
    /// Why its fields can't be told: a directive is not given what it needs. Such an object has no value.
    pub failure: Option<(Failure, Pos)>,
}

/// A field, once for its response key.
#[derive(Debug, PartialEq)]
pub struct Field {
    pub key: Name,
    pub name: Name,
    pub ty: Type,
    pub pos: Pos,
    pub arguments: Vec<(Name, Input)>,
    pub source: Source,
    pub selection: Selection,
}

/// Where a field's value comes from.
#[derive(Debug, PartialEq)]
pub enum Source {
    Resolver,
    /// `__typename`, which the normal form knows.
    TypeName,
    /// `__schema` and `__type`.
    Introspection,
    /// Nowhere: an argument's value can't be had from the given variables.
    Invalid(Failure),
}

/// What is asked of a field's value.
#[derive(Debug, PartialEq)]
pub enum Selection {
    Leaf,
    Object(Object),
    /// An interface or union: by the type of the value.
    Abstract(Name, Vec<Object>),
}

impl NormalForm {
    /// `variables` are coerced. Refuses what becomes too large.
    pub(super) fn of(
        definitions: &Definitions,
        document: &ExecutableDocument,
        operation: &Operation,
        variables: &Variables,
        limits: &DocumentLimits,
    ) -> Result<Self, Failure> {
        let kind = super::kind_of(operation);
        let variables = Some(variables);
        let mut builder = Builder { definitions, document, variables, field_count: 0, field_count_max: limits.nodes };
        let mut root = builder.object(operation.object_type(), &[&operation.selection_set])?;
        let field_count = builder.field_count;
        let mut resume = None;
        if kind == OperationType::Subscription {
            let [field] = &mut root.fields[..] else {
                return Err(Failure::bad("query", "a subscription has exactly one field at its root"));
            };
            let given = field.arguments.iter().position(|(name, _)| name == "resume");
            resume = given.map(|index| field.arguments.remove(index).1);
        }
        let mut named = BTreeSet::new();
        name_variables(&root, &mut named);
        let text = Text(kind, &root).to_string();
        let steps = lower::steps(definitions, operation, kind, &root);
        let uses = weight::uses(&root);
        Ok(Self { kind, root, text, variables: named, resume, steps, uses, field_count })
    }

    /// Refuses fields that can't be one because their arguments differ, whatever directives leave out of them.
    pub(super) fn check(
        definitions: &Definitions,
        document: &ExecutableDocument,
        operation: &Operation,
        limits: &DocumentLimits,
    ) -> Result<(), Failure> {
        let variables = None;
        let mut builder = Builder { definitions, document, variables, field_count: 0, field_count_max: limits.nodes };
        builder.object(operation.object_type(), &[&operation.selection_set]).map(drop)
    }

    /// Whether a resolver is asked for a field of an object type.
    pub fn asks_for(&self, is_asked: impl Fn(&str, &str) -> bool) -> bool {
        fn any(object: &Object, is_asked: &dyn Fn(&str, &str) -> bool) -> bool {
            object.fields.iter().any(|field| {
                is_asked(&object.type_name, &field.name)
                    || match &field.selection {
                        Selection::Leaf => false,
                        Selection::Object(inner) => any(inner, is_asked),
                        Selection::Abstract(_, objects) => objects.iter().any(|inner| any(inner, is_asked)),
                    }
            })
        }
        any(&self.root, &is_asked)
    }
}

struct Builder<'a> {
    definitions: &'a Definitions,
    document: &'a ExecutableDocument,
    /// `None` where directives are not looked at.
    variables: Option<&'a Variables>,
    field_count: usize,
    /// An interface's fields stand below each of its types, so a normal form can be larger than its document.
    field_count_max: usize,
}

type Collected<'a> = IndexMap<&'a str, Vec<&'a executable::Field>>;

impl<'a> Builder<'a> {
    fn object(&mut self, type_name: &str, sets: &[&'a SelectionSet]) -> Result<Object, Failure> {
        let mut collected = Collected::new();
        let mut spread = HashSet::new();
        let collect = |set: &&'a SelectionSet| self.collect(type_name, set, &mut spread, &mut collected);
        let failure = sets.iter().try_for_each(collect).err();
        if failure.is_some() {
            collected.clear();
        }
        let fields = collected.into_iter().map(|(key, fields)| self.field(type_name, key, &fields));
        Ok(Object { type_name: Name::new(type_name), fields: fields.collect::<Result<_, _>>()?, failure })
    }

    fn collect(
        &self,
        type_name: &str,
        set: &'a SelectionSet,
        spread: &mut HashSet<&'a str>,
        collected: &mut Collected<'a>,
    ) -> Result<(), (Failure, Pos)> {
        for selection in &set.selections {
            if !self.is_included(selection.directives())? {
                continue;
            }
            let inner = match selection {
                executable::Selection::Field(field) => {
                    collected.entry(field.response_key().as_str()).or_default().push(field);
                    continue;
                }
                executable::Selection::InlineFragment(inline) => &inline.selection_set,
                executable::Selection::FragmentSpread(named) => {
                    let name = named.fragment_name.as_str();
                    let Some(fragment) = self.document.fragments.get(name) else { continue };
                    if !spread.insert(name) {
                        continue;
                    }
                    &fragment.selection_set
                }
            };
            if self.definitions.applies(&inner.ty, type_name) {
                self.collect(type_name, inner, spread, collected)?;
            }
        }
        Ok(())
    }

    fn is_included(&self, directives: &DirectiveList) -> Result<bool, (Failure, Pos)> {
        let Some(variables) = self.variables else { return Ok(true) };
        let holds = |directive: &str, otherwise: bool| {
            let given = directives.get(directive).and_then(|directive| directive.specified_argument_by_name("if"));
            let Some(condition) = given else { return Ok(otherwise) };
            let argument = match &**condition {
                Literal::Boolean(is) => return Ok(*is),
                Literal::Variable(name) => match variables.get(name.as_str()) {
                    Some(Value::Boolean(is)) => return Ok(*is),
                    _ => name.to_string(),
                },
                _ => "if".to_owned(),
            };
            let failure = Failure::bad(argument, format!("@{directive} needs true or false"));
            Err((failure, place(&self.document.sources, condition.location())))
        };
        Ok(!holds("skip", false)? && holds("include", true)?)
    }

    fn field(&mut self, type_name: &str, key: &str, fields: &[&'a executable::Field]) -> Result<Field, Failure> {
        self.field_count += 1;
        if self.field_count > self.field_count_max {
            let message = "the document has too many fields with its fragments spread out";
            return Err(Failure::too_many("nodes", self.field_count_max, message));
        }
        let first = fields[0];
        if let Some(other) = fields.iter().find(|other| !have_same_arguments(&self.document.sources, first, other)) {
            let message = format!("{} is asked for with different arguments under one name", other.name);
            return Err(Failure::bad(key.to_owned(), message));
        }
        let (key, name) = (Name::new(key), Name::new(&first.name));
        let start = first.alias.as_ref().unwrap_or(&first.name);
        let pos = place(&self.document.sources, start.location());
        let source = match first.name.as_str() {
            "__typename" => Source::TypeName,
            "__schema" | "__type" => Source::Introspection,
            _ => Source::Resolver,
        };
        if source == Source::TypeName {
            let ty = first.definition.ty.clone();
            return Ok(Field { key, name, ty, pos, arguments: Vec::new(), source, selection: Selection::Leaf });
        }
        // An interface may be less strict than the type that implements it.
        let definition = self.definitions.field(type_name, &first.name).unwrap_or(&first.definition);
        let (source, arguments) = match self.arguments(definition, first) {
            Ok(arguments) => (source, arguments),
            Err(failure) => (Source::Invalid(failure), Vec::new()),
        };
        let sets: Vec<_> = fields.iter().map(|field| &field.selection_set).collect();
        let selection = match self.definitions.ty(definition.ty.inner_named_type()) {
            Some(ExtendedType::Object(object)) => Selection::Object(self.object(&object.name, &sets)?),
            Some(ty @ (ExtendedType::Interface(_) | ExtendedType::Union(_))) => {
                let possible = self.definitions.possible_types(ty);
                let objects = possible.into_iter().map(|name| self.object(name, &sets));
                Selection::Abstract(Name::new(ty.name()), objects.collect::<Result<_, _>>()?)
            }
            _ => Selection::Leaf,
        };
        Ok(Field { key, name, ty: definition.ty.clone(), pos, arguments, source, selection })
    }

    /// The arguments that are given, coerced (CoerceArgumentValues). Resolvers know the defaults of the others.
    fn arguments(
        &self,
        definition: &FieldDefinition,
        field: &executable::Field,
    ) -> Result<Vec<(Name, Input)>, Failure> {
        let coercion = Coercion { definitions: self.definitions };
        let given = |name: &str| match self.variables.and_then(|variables| variables.get(name)) {
            None => Given::Absent,
            Some(Value::Null) => Given::Null,
            Some(_) => Given::Value,
        };
        let mut arguments = Vec::new();
        for defined in &definition.arguments {
            let Some(argument) = field.arguments.iter().find(|argument| argument.name == defined.name) else {
                continue;
            };
            if !defined.is_required()
                && matches!(&*argument.value, Literal::Variable(name) if given(name) == Given::Absent)
            {
                continue;
            }
            let coerced = coercion.literal(&defined.ty, &argument.value, &given);
            let coerced = coerced.map_err(|mismatch| mismatch.of(&defined.name))?;
            arguments.extend(coerced.map(|value| (Name::new(&defined.name), value)));
        }
        Ok(arguments)
    }
}

/// Longest line that is looked at for a column: a field costs next to nothing, however long its document is.
const LINE_LEN_MAX: usize = 1_000;

/// A place in a document. Columns are UTF-16 units as graphql-js counts them, and bytes far into a long line.
fn place(sources: &SourceMap, span: Option<SourceSpan>) -> Pos {
    let found = span.and_then(|span| Some((span, span.line_column_range(sources)?.start)));
    let Some((span, LineColumn { line, column })) = found else { return Pos::default() };
    let source = sources.get(&span.file_id());
    let before =
        source.and_then(|source| source.source_text().get((span.offset() + 1).checked_sub(column)?..span.offset()));
    let units = before.filter(|before| before.len() <= LINE_LEN_MAX).map(|before| before.encode_utf16().count() + 1);
    Pos { line, column: units.unwrap_or(column) }
}

/// 5.3.2. apollo-compiler takes a list for one that goes on behind its end, and a block string for another one.
fn have_same_arguments(sources: &SourceMap, one: &executable::Field, other: &executable::Field) -> bool {
    let has = |argument: &Node<Argument>| {
        let there = other.specified_argument_by_name(&argument.name);
        there.is_some_and(|value| is_same(sources, value, &argument.value))
    };
    one.arguments.len() == other.arguments.len() && one.arguments.iter().all(has)
}

/// Whether two values are written alike, but for the order of an object's fields.
fn is_same(sources: &SourceMap, one: &Node<Literal>, other: &Node<Literal>) -> bool {
    match (&**one, &**other) {
        (Literal::List(one), Literal::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(sources, one, other))
        }
        (Literal::Object(one), Literal::Object(other)) => {
            let has = |(name, value): &(apollo_compiler::Name, Node<Literal>)| {
                other.iter().any(|(known, there)| known == name && is_same(sources, value, there))
            };
            one.len() == other.len() && one.iter().all(has)
        }
        (Literal::String(_), Literal::String(_)) => one == other && is_block(sources, one) == is_block(sources, other),
        _ => one == other,
    }
}

/// Whether a string stands in a document as a block.
fn is_block(sources: &SourceMap, string: &Node<Literal>) -> bool {
    let text = string.location().and_then(|span| sources.get(&span.file_id())?.source_text().get(span.offset()..));
    text.is_some_and(|text| text.starts_with("\"\"\""))
}

fn name_variables(object: &Object, named: &mut BTreeSet<Name>) {
    fn in_value(value: &Input, named: &mut BTreeSet<Name>) {
        match value {
            Input::Variable(name) => drop(named.insert(name.clone())),
            Input::List(items) => items.iter().for_each(|item| in_value(item, named)),
            Input::Object(fields) => fields.values().for_each(|field| in_value(field, named)),
            _ => {}
        }
    }
    for field in &object.fields {
        field.arguments.iter().for_each(|(_, value)| in_value(value, named));
        match &field.selection {
            Selection::Leaf => {}
            Selection::Object(inner) => name_variables(inner, named),
            Selection::Abstract(_, objects) => objects.iter().for_each(|inner| name_variables(inner, named)),
        }
    }
}

/// A normal form, as text.
struct Text<'a>(OperationType, &'a Object);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        write_object(f, self.1)
    }
}

fn write_object(f: &mut fmt::Formatter<'_>, object: &Object) -> fmt::Result {
    f.write_char('{')?;
    if let Some((failure, _)) = &object.failure {
        write!(f, "!{failure:?}")?;
    }
    for field in &object.fields {
        write!(f, "{}:{}", field.key, field.name)?;
        for (name, value) in &field.arguments {
            write!(f, "({name}:{value})")?;
        }
        // It answers otherwise than a field that is given no arguments.
        if let Source::Invalid(failure) = &field.source {
            write!(f, "!{failure:?}")?;
        }
        match &field.selection {
            Selection::Leaf => f.write_char(' ')?,
            Selection::Object(inner) => write_object(f, inner)?,
            Selection::Abstract(_, objects) => {
                for inner in objects {
                    f.write_str(&inner.type_name)?;
                    write_object(f, inner)?;
                }
            }
        }
    }
    f.write_char('}')
}
