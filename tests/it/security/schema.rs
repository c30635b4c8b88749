//! The schema of a running server, and the shortest way to each of its types.

use std::collections::BTreeMap;

use serde_json::Value;

pub const INTROSPECTION: &str = "{ __schema { types { kind name possibleTypes { name }
    fields(includeDeprecated: true) { name type { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } }";

pub struct Field {
    pub name: String,
    /// The named type of what it gives.
    pub gives: String,
}

#[derive(Default)]
pub struct Schema {
    /// Of objects and interfaces.
    pub types: BTreeMap<String, Vec<Field>>,
    /// The objects that an interface stands for.
    members: BTreeMap<String, Vec<String>>,
}

/// From the root to a type: the fields on it, each with the type it stands in.
pub type Way = Vec<(String, String)>;

impl Schema {
    pub fn of(answer: &Value) -> Self {
        let mut schema = Self::default();
        for found in answer["data"]["__schema"]["types"].as_array().unwrap_or_else(|| panic!("{answer}")) {
            let name = found["name"].as_str().unwrap();
            let Some(fields) = found["fields"].as_array().filter(|_| !name.starts_with("__")) else { continue };
            let fields = fields.iter().map(|field| Field { name: text(&field["name"]), gives: named(&field["type"]) });
            schema.types.insert(name.to_owned(), fields.collect());
            if found["kind"] == "INTERFACE" {
                let members = found["possibleTypes"].as_array().unwrap();
                schema.members.insert(name.to_owned(), members.iter().map(|member| text(&member["name"])).collect());
            }
        }
        schema
    }

    /// The cheapest way to each type that a query or a mutation can reach.
    pub fn ways(&self, cost: impl Fn(&str, &str) -> u32) -> BTreeMap<String, (u32, Way)> {
        let roots = ["Query", "Mutation"].map(|root| (root.to_owned(), (0, Way::new())));
        let mut ways = BTreeMap::from(roots);
        loop {
            let mut shorter = Vec::new();
            for (from, (so_far, way)) in &ways {
                for field in self.types[from].iter().filter(|field| self.types.contains_key(&field.gives)) {
                    let whole = so_far + cost(from, &field.name);
                    if ways.get(&field.gives).is_none_or(|(known, _)| whole < *known) {
                        let mut way = way.clone();
                        way.push((from.clone(), field.name.clone()));
                        shorter.push((field.gives.clone(), (whole, way)));
                    }
                }
            }
            if shorter.is_empty() {
                return ways;
            }
            shorter.sort_by_key(|(_, (whole, _))| std::cmp::Reverse(*whole));
            ways.extend(shorter);
        }
    }

    /// What is selected of a value: nothing of a scalar, everything of a type for which `is_whole` holds.
    pub fn selection(&self, name: &str, is_whole: &dyn Fn(&str) -> bool) -> String {
        let Some(fields) = self.types.get(name) else { return String::new() };
        let mut selected = "{ __typename".to_owned();
        if is_whole(name) {
            for field in fields {
                selected += &format!(" {} {}", field.name, self.selection(&field.gives, is_whole));
            }
            for member in self.members.get(name).into_iter().flatten() {
                selected += &format!(" ... on {member} {}", self.selection(member, is_whole));
            }
        }
        selected + " }"
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn named(value: &Value) -> String {
    match value["ofType"] {
        Value::Null => text(&value["name"]),
        ref inner => named(inner),
    }
}
