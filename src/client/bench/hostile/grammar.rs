//! Documents that a schema allows, made and changed at random: as large as its limits let them be.

use std::collections::HashMap;
use std::fmt::Write;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, ClientError};

/// What the schema says of itself. Types in lists in lists are not in it.
const SCHEMA: &str = "{ __schema { types { name possibleTypes { name }
  fields { name args { name type { kind } } type { name ofType { name ofType { name ofType { name } } } } } } } }";
/// What there is to ask for.
const KNOWN: &str = "{ boards { id nodeId } ranking(first: 100) { nodes { nodeId productId product { nodeId } } } }";
/// The schema itself is described with fields of their own names, which are in no type's list.
const INTROSPECTION: &[(&str, &str)] = &[("__schema", "__Schema"), ("__type", "__Type")];
/// Deeper ones are refused.
const DEPTH_MAX: usize = 11;

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct TypeRef {
    name: Option<String>,
    of_type: Option<Box<TypeRef>>,
}

#[derive(Deserialize, Clone)]
struct Argument {
    name: String,
    #[serde(rename = "type")]
    ty: Kind,
}

#[derive(Deserialize, Clone)]
struct Kind {
    kind: String,
}

#[derive(Deserialize, Clone)]
struct Field {
    name: String,
    args: Vec<Argument>,
    #[serde(rename = "type")]
    ty: TypeRef,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Type {
    name: String,
    fields: Option<Vec<Field>>,
    possible_types: Option<Vec<Named>>,
}

/// What documents are made of.
pub struct Grammar {
    types: HashMap<String, Vec<Field>>,
    /// The types that an interface's values have.
    possible: HashMap<String, Vec<String>>,
    boards: Vec<String>,
    products: Vec<String>,
    nodes: Vec<String>,
}

/// A field that is asked for, or, without a name, a fragment on a type.
#[derive(Clone)]
struct Selection {
    on: String,
    field: Option<String>,
    inner: Vec<Selection>,
}

/// A document whose arguments are chosen anew each time that it is written.
#[derive(Clone)]
pub struct Document(Vec<Selection>);

impl TypeRef {
    fn inner_name(&self) -> &str {
        match (&self.of_type, &self.name) {
            (Some(inner), _) => inner.inner_name(),
            (None, name) => name.as_deref().unwrap_or_default(),
        }
    }
}

impl Grammar {
    /// Asks a server for its schema and for what it has.
    pub async fn read(client: &Client) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        struct Schema {
            #[serde(rename = "__schema")]
            schema: Types,
        }
        #[derive(Deserialize)]
        struct Types {
            types: Vec<Type>,
        }
        #[derive(Deserialize)]
        struct Known {
            boards: Vec<Board>,
            ranking: Ranking,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Board {
            id: String,
            node_id: String,
        }
        #[derive(Deserialize)]
        struct Ranking {
            nodes: Vec<Entry>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry {
            node_id: String,
            product_id: String,
            product: Option<Product>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Product {
            node_id: String,
        }
        let Schema { schema } = client.call(SCHEMA, &json!({})).await?;
        let known: Known = client.call(KNOWN, &json!({})).await?;
        let mut grammar = Self {
            types: HashMap::new(),
            possible: HashMap::new(),
            boards: known.boards.iter().map(|board| board.id.clone()).collect(),
            products: known.ranking.nodes.iter().map(|entry| entry.product_id.clone()).collect(),
            nodes: known.boards.into_iter().map(|board| board.node_id).collect(),
        };
        for entry in known.ranking.nodes {
            grammar.nodes.extend(entry.product.map(|product| product.node_id));
            grammar.nodes.push(entry.node_id);
        }
        for Type { name, fields, possible_types } in schema.types {
            if let Some(possible) = possible_types {
                grammar.possible.insert(name.clone(), possible.into_iter().map(|ty| ty.name).collect());
            }
            grammar.types.insert(name, fields.unwrap_or_default());
        }
        Ok(grammar)
    }

    /// A document of one to four fields.
    pub fn document(&self, rng: &mut StdRng) -> Document {
        Document((0..rng.random_range(1..=4)).map(|_| self.selection("Query", 1, rng)).collect())
    }

    /// A document that differs from another in one place.
    pub fn changed(&self, document: &Document, rng: &mut StdRng) -> Document {
        let mut changed = document.clone();
        let mut places = 0;
        changed.0.iter().for_each(|selection| selection.count(&mut places));
        let roots = &mut changed.0;
        match rng.random_range(0..4) {
            // The same again, under another name.
            0 => roots.push(roots.choose(rng).cloned().unwrap_or_else(|| self.selection("Query", 1, rng))),
            1 => roots.push(self.selection("Query", 1, rng)),
            2 if roots.len() > 1 => drop(roots.remove(rng.random_range(0..roots.len()))),
            _ => {
                let mut place = rng.random_range(0..places);
                roots.iter_mut().for_each(|selection| self.grow(selection, &mut place, 1, rng));
            }
        }
        changed
    }

    /// Asks for more below the selection at a place.
    fn grow(&self, selection: &mut Selection, place: &mut usize, depth: usize, rng: &mut StdRng) {
        if *place == 0
            && let Some(ty) = self.type_of(selection).filter(|ty| self.is_composite(ty))
        {
            let more = self.selection(&ty, depth + 1, rng);
            if !selection.inner.iter().any(|inner| inner.field == more.field && more.field.is_some()) {
                selection.inner.push(more);
            }
        }
        *place = place.wrapping_sub(1);
        selection.inner.iter_mut().for_each(|inner| self.grow(inner, place, depth + 1, rng));
    }

    /// The type of what stands below a selection.
    fn type_of(&self, selection: &Selection) -> Option<String> {
        let Some(name) = &selection.field else { return Some(selection.on.clone()) };
        if let Some((_, ty)) = INTROSPECTION.iter().find(|(field, _)| field == name) {
            return Some((*ty).to_owned());
        }
        let fields = self.types.get(&selection.on)?;
        Some(fields.iter().find(|field| field.name == *name)?.ty.inner_name().to_owned())
    }

    fn is_composite(&self, ty: &str) -> bool {
        self.types.get(ty).is_some_and(|fields| !fields.is_empty()) || self.possible.contains_key(ty)
    }

    /// Something that may be asked of a type.
    fn selection(&self, on: &str, depth: usize, rng: &mut StdRng) -> Selection {
        let of_type = |on: &str, field: Option<String>| Selection { on: on.to_owned(), field, inner: Vec::new() };
        if let Some(possible) = self.possible.get(on).filter(|_| rng.random_bool(0.8)) {
            let ty = possible.choose(rng).expect("an interface has types");
            let mut fragment = of_type(ty, None);
            fragment.inner.push(self.selection(ty, depth + 1, rng));
            return fragment;
        }
        if on == "Query" && rng.random_bool(0.05) {
            let (field, ty) = INTROSPECTION.choose(rng).expect("it has two");
            let mut described = of_type(on, Some((*field).to_owned()));
            described.inner.push(self.selection(ty, depth + 1, rng));
            return described;
        }
        // What only an admin may ask is no document of an attacker.
        let fields: Vec<_> = self.types.get(on).into_iter().flatten().filter(|field| field.name != "admin").collect();
        let composite = |field: &&&Field| self.is_composite(field.ty.inner_name());
        let (inner, leaves): (Vec<&Field>, Vec<&Field>) = fields.iter().partition(composite);
        let goes_on = depth < DEPTH_MAX && !inner.is_empty() && (leaves.is_empty() || rng.random_bool(0.6));
        let chosen = if goes_on { inner.choose(rng) } else { leaves.choose(rng) };
        let Some(field) = chosen else { return of_type(on, Some("__typename".to_owned())) };
        let mut selection = of_type(on, Some(field.name.clone()));
        if goes_on {
            for _ in 0..rng.random_range(1..=2) {
                let more = self.selection(field.ty.inner_name(), depth + 1, rng);
                if !selection.inner.iter().any(|inner| inner.field == more.field) {
                    selection.inner.push(more);
                }
            }
        }
        selection
    }

    /// The document's text, with arguments chosen anew.
    pub fn write(&self, document: &Document, rng: &mut StdRng) -> String {
        let mut text = "{".to_owned();
        for (number, selection) in document.0.iter().enumerate() {
            if selection.field.is_some() {
                write!(text, "a{number}:").expect("a string takes all");
            }
            self.write_selection(selection, &mut text, rng);
        }
        text + "}"
    }

    fn write_selection(&self, selection: &Selection, text: &mut String, rng: &mut StdRng) {
        match &selection.field {
            None => write!(text, "... on {}", selection.on).expect("a string takes all"),
            Some(name) => {
                text.push_str(name);
                let fields = self.types.get(&selection.on).into_iter().flatten();
                let arguments = fields.filter(|field| field.name == *name).flat_map(|field| &field.args);
                let mut given: Vec<_> =
                    arguments.filter_map(|argument| self.argument(selection, argument, rng)).collect();
                if name == "__type" {
                    given.push("name:\"Period\"".to_owned());
                }
                if !given.is_empty() {
                    write!(text, "({})", given.join(",")).expect("a string takes all");
                }
            }
        }
        if selection.inner.is_empty() {
            text.push(' ');
            return;
        }
        text.push('{');
        selection.inner.iter().for_each(|inner| self.write_selection(inner, text, rng));
        text.push('}');
    }

    fn argument(&self, selection: &Selection, argument: &Argument, rng: &mut StdRng) -> Option<String> {
        let quoted =
            |known: &[String], rng: &mut StdRng| format!("\"{}\"", known.choose(rng).map_or("", String::as_str));
        let all =
            |known: &[String]| format!("[\"{}\"]", known.iter().take(100).cloned().collect::<Vec<_>>().join("\",\""));
        let is_of_product = selection.field.as_deref() == Some("product");
        let value = match argument.name.as_str() {
            "first" | "top" => "100".to_owned(),
            "radius" => "50".to_owned(),
            "fromRank" => rng.random_range(1..300).to_string(),
            "id" if is_of_product => quoted(&self.products, rng),
            "productId" => quoted(&self.products, rng),
            "id" | "board" => quoted(&self.boards, rng),
            "ids" => all(&self.products),
            "nodeId" => quoted(&self.nodes, rng),
            "nodeIds" => all(&self.nodes),
            "key" => format!("\"2026-{:02}-{:02}\"", rng.random_range(1..=12), rng.random_range(1..=28)),
            "includeDeprecated" => "true".to_owned(),
            _ if argument.ty.kind == "NON_NULL" => "\"\"".to_owned(),
            _ => return None,
        };
        Some(format!("{}:{value}", argument.name))
    }
}

impl Selection {
    fn count(&self, places: &mut usize) {
        *places += 1;
        self.inner.iter().for_each(|inner| inner.count(places));
    }
}
