//! Every field that is an admin's alone is refused to everybody else, in whatever way it is asked for.

use std::collections::BTreeSet;

use acclaim::domain::UserId;
use acclaim::graphql::guards::{Caller, Role};
use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::graphql::Site;

/// Mutations that need no admin.
const OF_OTHERS: [&str; 4] = ["toggleLike", "setLike", "recordEvents", "upsertProducts"];

/// An operation for each field: good enough to be run, so that nothing but the role can be in its way.
const READ: [(&str, &str); 7] = [
    ("weightRules", "{ nodes { id } }"),
    ("weightPreview", "(input: { weights: [{ signal: VIEW, weight: 1 }] }) { topOverlap }"),
    ("productRules", "{ id }"),
    ("deadLetters", "{ nodes { id } }"),
    ("auditLog", "{ nodes { id } }"),
    ("verify", "{ checked }"),
    ("system", "{ pending subscriptions }"),
];
const WRITE: [(&str, &str); 8] = [
    ("adjustWeights", "(input: { weights: [{ signal: VIEW, weight: 1 }], note: \"why\" }) { version }"),
    ("cancelWeights", "(id: \"1\", note: \"why\") { version }"),
    ("saveBoard", "(input: { id: \"mine\", title: \"Mine\", window: DAY }) { board { id } }"),
    ("setProductRule", "(input: { productId: \"p0\", excluded: true, note: \"why\" }) { rule { id } }"),
    ("rebuildBoard", "(id: \"daily\") { board { id } }"),
    ("replayDeadLetters", "{ replayed }"),
    ("repair", "{ likes activity }"),
    ("deleteBoard", "(id: \"mine\", note: \"why\") { board { id } }"),
];

/// The fields of an object type of the schema.
fn fields_of(name: &str) -> BTreeSet<String> {
    let schema = async_graphql::parser::parse_schema(acclaim::graphql::sdl()).unwrap();
    let fields = schema.definitions.into_iter().find_map(|definition| match definition {
        TypeSystemDefinition::Type(found) if found.node.name.node == name => match found.node.kind {
            TypeKind::Object(object) => Some(object.fields),
            _ => None,
        },
        _ => None,
    });
    fields.unwrap().into_iter().map(|field| field.node.name.node.to_string()).collect()
}

async fn ask(site: &Site, query: &str, user: Option<&str>, roles: &[Role]) -> Value {
    let caller = Caller { user: user.map(|name| UserId::new(name).unwrap()), roles: roles.to_vec() };
    let payload = site.payloads(query, json!({}), caller).await.next().await.unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_an_admins_is_nobody_elses() {
    let listed = |cases: &[(&str, &str)]| cases.iter().map(|(field, _)| (*field).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(fields_of("Admin"), listed(&READ), "every field is tried here");
    let mut mutations = fields_of("Mutation");
    mutations.retain(|field| !OF_OTHERS.contains(&field.as_str()));
    assert_eq!(mutations, listed(&WRITE), "every mutation is tried here");

    let site = Site::with_board(1).await;
    let reading = READ.iter().map(|(field, rest)| format!("{{ admin {{ {field} {rest} }} }}"));
    let writing = WRITE.iter().map(|(field, rest)| format!("mutation {{ {field} {rest} }}"));
    let asked: Vec<_> = reading.chain(writing).collect();
    let others: [(&[Role], Option<&str>, &str); 5] = [
        (&[Role::User], Some("uma"), "FORBIDDEN"),
        (&[Role::Ingest], Some("ines"), "FORBIDDEN"),
        (&[Role::User, Role::Ingest], Some("both"), "FORBIDDEN"),
        (&[], Some("nothing"), "FORBIDDEN"),
        (&[], None, "UNAUTHENTICATED"),
    ];
    for query in &asked {
        for (roles, user, code) in others {
            let answer = ask(&site, query, user, roles).await;
            assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{roles:?} {query}: {answer}");
            assert!(answer["data"].is_null(), "{answer}");
        }
    }
    // An admin is refused nothing, and finds that nothing was done before.
    let untouched = site.data("{ boards { id } admin { auditLog { nodes { id } } } }", json!({})).await;
    assert_eq!(untouched["admin"]["auditLog"]["nodes"], json!([]));
    assert!(untouched["boards"].as_array().unwrap().iter().all(|board| board["id"] != "mine"), "{untouched}");
    for query in &asked {
        let answer = ask(&site, query, Some("ann"), &[Role::Admin]).await;
        assert!(answer.get("errors").is_none(), "{query}: {answer}");
    }
}
