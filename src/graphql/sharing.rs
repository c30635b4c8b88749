//! What subscribers may share: which operations ask for nothing that depends on the viewer, and what of one is a subscriber's
//! alone.
//!
//! Invariant: a field that depends on the viewer stands in [`VIEWER_FIELDS`]. One that is forgotten there is found by
//! [`Caller::of`](super::guards::Caller::of), which fails where an operation runs for everyone.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Value, Variables};

use super::document::NormalForm;
use super::errors::Failure;
use super::guards::Audience;
use crate::domain::FeedPosition;

/// Takes units of 10 µs from somebody's budget for what was done, and says for how long to pause.
pub type Toll = Arc<dyn Fn(u64) -> Option<Duration> + Send + Sync>;

/// What a group executes.
pub struct Execution {
    pub form: Arc<NormalForm>,
    pub variables: Variables,
    pub audience: Audience,
    /// Units of each execution, and who pays for them where it is one viewer's alone.
    pub cost: u64,
    pub toll: Option<Toll>,
}

/// The longest pause of a subscription whose viewer has spent a budget: as long as a debt lasts at most.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Charges what was executed, and waits for as long as it has to be waited for.
pub async fn pay(toll: Option<&Toll>, cost: u64) {
    if let Some(pause) = toll.and_then(|toll| toll(cost)) {
        tokio::time::sleep(pause.min(PAUSE_MAX)).await;
    }
}

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
