//! What subscribers may share: which documents select nothing that depends on the viewer, and what of a request is one
//! member's alone.
//!
//! Invariant: a field that depends on the viewer stands in [`VIEWER_FIELDS`]. One that is forgotten there is found by
//! [`Caller::of`](super::guards::Caller::of), which fails where an operation runs for everyone.

use std::collections::HashSet;
use std::convert::Infallible;

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, Field, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, Request, Value};

use super::errors::Failure;
use crate::domain::FeedPosition;

/// Every field below a subscription whose answer depends on who asks, by type and name.
pub const VIEWER_FIELDS: [(&str, &str); 2] = [("LikeState", "viewerHasLiked"), ("LikeState", "viewerLikedAt")];

/// Whether a document selects no field that depends on the viewer, in any of its operations and fragments.
pub fn is_for_everyone(document: &ExecutableDocument) -> bool {
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    !operations.chain(fragments).any(selects_viewer_field)
}

fn selects_viewer_field(set: &SelectionSet) -> bool {
    set.items.iter().any(|item| match &item.node {
        Selection::Field(field) => {
            VIEWER_FIELDS.iter().any(|(_, name)| field.node.name.node == *name)
                || selects_viewer_field(&field.node.selection_set.node)
        }
        Selection::InlineFragment(inline) => selects_viewer_field(&inline.node.selection_set.node),
        // Every fragment of the document is looked at by itself.
        Selection::FragmentSpread(_) => false,
    })
}

/// The operation that a request means; `None` where that is not clear, which the schema refuses.
pub fn operation<'a>(document: &'a ExecutableDocument, request: &Request) -> Option<&'a OperationDefinition> {
    let mut operations = document.operations.iter();
    let chosen = match &request.operation_name {
        Some(wanted) => operations.find(|(name, _)| name.is_some_and(|name| name == wanted.as_str()))?,
        None => operations.next().filter(|_| operations.next().is_none())?,
    };
    Some(&chosen.1.node)
}

/// A subscription's one root field, wherever fragments have put it. GraphQL allows no second one (5.2.3.1).
pub fn root_field<'a>(
    document: &'a ExecutableDocument,
    operation: &'a OperationDefinition,
) -> Result<&'a Positioned<Field>, Failure> {
    let mut fields = Vec::new();
    collect(document, &operation.selection_set.node, &mut Vec::new(), &mut fields);
    match fields[..] {
        [field] => Ok(field),
        _ => Err(Failure::bad("query", "a subscription has exactly one field at its root")),
    }
}

fn collect<'a>(
    document: &'a ExecutableDocument,
    set: &'a SelectionSet,
    inside: &mut Vec<&'a Name>,
    fields: &mut Vec<&'a Positioned<Field>>,
) {
    for item in &set.items {
        match &item.node {
            Selection::Field(field) => fields.push(field),
            Selection::InlineFragment(inline) => collect(document, &inline.node.selection_set.node, inside, fields),
            Selection::FragmentSpread(spread) => {
                let name = &spread.node.fragment_name.node;
                let Some(fragment) = document.fragments.get(name).filter(|_| !inside.contains(&name)) else { continue };
                inside.push(name);
                collect(document, &fragment.node.selection_set.node, inside, fields);
                inside.pop();
            }
        }
    }
}

/// The document with an operation's root field where the executor looks for it: it passes over fragments there.
pub fn with_root_field(
    document: &ExecutableDocument,
    request: &Request,
    field: &Positioned<Field>,
) -> ExecutableDocument {
    let mut document = document.clone();
    let operation = match (&mut document.operations, &request.operation_name) {
        (DocumentOperations::Single(operation), _) => Some(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get_mut(name.as_str()),
        (DocumentOperations::Multiple(operations), None) => operations.values_mut().next(),
    };
    if let Some(operation) = operation {
        let item = Positioned::new(Selection::Field(field.clone()), field.pos);
        operation.node.selection_set.node.items = vec![item];
    }
    // A fragment that nobody spreads any more would be refused.
    let mut spread = HashSet::new();
    for (_, operation) in document.operations.iter() {
        collect_spread(&document, &operation.node.selection_set.node, &mut spread);
    }
    document.fragments.retain(|name, _| spread.contains(name));
    document
}

fn collect_spread(document: &ExecutableDocument, set: &SelectionSet, spread: &mut HashSet<Name>) {
    for item in &set.items {
        match &item.node {
            Selection::Field(field) => collect_spread(document, &field.node.selection_set.node, spread),
            Selection::InlineFragment(inline) => collect_spread(document, &inline.node.selection_set.node, spread),
            Selection::FragmentSpread(found) => {
                let name = &found.node.fragment_name.node;
                if let Some(fragment) = document.fragments.get(name).filter(|_| spread.insert(name.clone())) {
                    collect_spread(document, &fragment.node.selection_set.node, spread);
                }
            }
        }
    }
}

/// The position that one member resumes from, and the variable that says so, if it says nothing else: members who differ
/// in no more than that share everything that follows.
pub fn resume(field: &Field, request: &Request, normal: &str) -> Result<(Option<FeedPosition>, Option<Name>), Failure> {
    let bad = || Failure::bad("resume", "it is not a position that this API gave out");
    let Some((_, argument)) = field.arguments.iter().find(|(name, _)| name.node == "resume") else {
        return Ok((None, None));
    };
    let mut variable = None;
    let given = argument.node.clone().into_const_with(|name| {
        let value = request.variables.get(&name).cloned().unwrap_or_default();
        variable = Some(name);
        Ok::<_, Infallible>(value)
    });
    let held = match given {
        Ok(Value::Null) => None,
        Ok(Value::String(position)) => Some(position.parse().map_err(|_| bad())?),
        Ok(_) => return Err(bad()),
    };
    Ok((held, variable.filter(|name| uses(normal, name) == 2)))
}

/// How often a variable is named in a normalised document, its definition included.
fn uses(normal: &str, name: &str) -> usize {
    let tokens = normal.split(' ');
    tokens.clone().zip(tokens.skip(1)).filter(|pair| *pair == ("$", name)).count()
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;
    use crate::graphql::DocumentLimits;
    use crate::graphql::documents::normalised;

    #[test]
    fn what_the_viewer_sees_is_shared_with_nobody() {
        let everyone = |query: &str| is_for_everyone(&parse_query(query).unwrap());
        assert!(everyone(
            "subscription { boardChanges { seq ... on BoardSnapshot { entries { product { like { count } } } } } }"
        ));
        assert!(!everyone(
            "subscription { boardChanges { ... on BoardSnapshot { entries { product { like { x: viewerHasLiked } } } } } }"
        ));
        assert!(!everyone(
            "subscription { ...A } fragment A on Subscription { boardChanges { ...B } } fragment B on X { y { viewerLikedAt } }"
        ));
    }

    fn root(query: &str) -> Result<String, Failure> {
        let (document, request) = (parse_query(query).unwrap(), Request::new(query));
        let field = root_field(&document, operation(&document, &request).unwrap())?;
        let lifted = with_root_field(&document, &request, field);
        let items = &operation(&lifted, &request).unwrap().selection_set.node.items;
        assert!(matches!(&items[..], [item] if matches!(item.node, Selection::Field(_))));
        Ok(field.node.name.node.to_string())
    }

    #[test]
    fn a_subscription_has_one_root_field() {
        assert_eq!(root("subscription { likes { count } }").unwrap(), "likes");
        let spread = "subscription { ...A } fragment A on Subscription { ... { likes { count } } }";
        assert_eq!(root(spread).unwrap(), "likes");
        assert!(root("subscription { likes { count } more: likes { count } }").is_err());
        assert!(root("subscription { ...A } fragment A on Subscription { ...A }").is_err());
    }

    #[test]
    fn members_differ_in_what_they_resume_from() {
        let resumed = |query: &str, variables: serde_json::Value| {
            let request = Request::new(query).variables(async_graphql::Variables::from_json(variables));
            let document = parse_query(query).unwrap();
            let operation = operation(&document, &request).unwrap();
            let normal = normalised(query, &DocumentLimits::default()).unwrap().0;
            let (held, variable) = resume(&root_field(&document, operation)?.node, &request, &normal)?;
            Ok::<_, Failure>((held.map(|held| held.to_string()), variable.map(|name| name.to_string())))
        };
        let own = "subscription($r: String, $re: ID) { boardChanges(board: $re, resume: $r) { seq } }";
        let held = Some("1-7".to_owned());
        assert_eq!(resumed(own, serde_json::json!({ "r": "1-7" })), Ok((held.clone(), Some("r".to_owned()))));
        assert_eq!(resumed(own, serde_json::json!({ "r": null })), Ok((None, Some("r".to_owned()))));
        assert!(resumed(own, serde_json::json!({ "r": 7 })).is_err());
        assert!(resumed(own, serde_json::json!({ "r": "yesterday" })).is_err());
        let twice = "subscription($r: String) { boardChanges(board: $r, resume: $r) { seq } }";
        assert_eq!(resumed(twice, serde_json::json!({ "r": "1-7" })), Ok((held.clone(), None)));
        let literal = "subscription { boardChanges(resume: \"1-7\") { seq } }";
        assert_eq!(resumed(literal, serde_json::json!({})), Ok((held, None)));
    }
}
