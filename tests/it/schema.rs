//! The committed schema is the one that the code serves.

#[test]
fn schema_graphql_is_not_stale() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql")).unwrap();
    assert!(
        committed == acclaim::graphql::sdl(),
        "schema.graphql is stale; write it anew with: cargo run -- schema > schema.graphql"
    );
}
