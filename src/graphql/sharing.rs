//! What subscribers may share: which operations ask for nothing that depends on the viewer, and what of one is a subscriber's
//! alone.
//!
//! Invariant: a field that depends on the viewer stands in [`VIEWER_FIELDS`]. One that is forgotten there is found by
//! [`Caller::of`](super::guards::Caller::of), which fails where an operation runs for everyone.

use async_graphql::{Value, Variables};

use super::document::NormalForm;
use super::errors::Failure;
use crate::domain::FeedPosition;

/// Every field below a subscription whose answer depends on who asks, by type and name.
pub const VIEWER_FIELDS: [(&str, &str); 8] = [
    ("LikeState", "viewerHasLiked"),
    ("LikeState", "viewerLikedAt"),
    // Roles decide on these.
    ("Board", "weights"),
    ("WeightRule", "createdBy"),
    ("WeightRule", "note"),
    ("Subscription", "weightsChanged"),
    ("RankingEntry", "explanation"),
    ("ScoreLine", "note"),
];

/// Whether an operation asks for no field that depends on the viewer.
pub fn is_for_everyone(form: &NormalForm) -> bool {
    !form.asks_for(|ty, field| VIEWER_FIELDS.contains(&(ty, field)))
}

/// The position that one subscriber resumes from.
pub fn resume(form: &NormalForm, variables: &Variables) -> Result<Option<FeedPosition>, Failure> {
    let bad = || Failure::bad("resume", "it is not a position that this API gave out");
    let Some(given) = &form.resume else { return Ok(None) };
    let given = given.clone().into_const_with(|name| variables.get(&name).cloned().ok_or_else(bad))?;
    match given {
        Value::Null => Ok(None),
        Value::String(position) => position.parse().map(Some).map_err(|_| bad()),
        _ => Err(bad()),
    }
}
