//! The committed schema is the one that the code serves.

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};

#[test]
fn every_mutation_takes_one_input() {
    let document = parse_schema(acclaim::graphql::sdl()).unwrap();
    let mutation = document.definitions.into_iter().find_map(|definition| match definition {
        TypeSystemDefinition::Type(found) if found.node.name.node == "Mutation" => Some(found.node.kind),
        _ => None,
    });
    let Some(TypeKind::Object(mutation)) = mutation else { panic!("there is no type Mutation") };
    for field in mutation.fields {
        let field = field.node;
        let arguments = field.arguments.iter().map(|argument| &argument.node);
        let shown: Vec<_> = arguments.map(|it| (it.name.node.as_str(), it.ty.node.to_string())).collect();
        let [("input", given)] = &shown[..] else { panic!("{}: {shown:?}", field.name.node) };
        assert!(given.ends_with("Input!"), "{}: {given}", field.name.node);
    }
}

#[test]
fn schema_graphql_is_not_stale() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql")).unwrap();
    assert!(
        committed == acclaim::graphql::sdl(),
        "schema.graphql is stale; write it anew with: cargo run -- schema > schema.graphql"
    );
}
