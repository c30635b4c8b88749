//! Verifying what the engine holds of users' likes against the ledger, user by user, while likes pour in.
//!
//! A difference counts only where a user's likes stood still: read before and after the ledger was, with all that the journal
//! had before the first reading in the ledger by then. Who is at it all the while is not judged.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;
use super::{App, AppError, Result};
use crate::domain::{Position, ProductId, UserId};
use crate::ledger::{Difference, FoldCheck};

/// Users looked at in one check, the first that the engine gives: some minutes, on a server that serves others meanwhile.
const USERS_MAX: u64 = 1_000_000;
/// Pages asked for in one check: as many keys as Redis would hold at 20 GB, most of which are nobody's likes.
const PAGES_MAX: usize = 100_000;
/// Users compared at once: one query, and some calls to the engine.
const COMPARED: usize = 200;
/// How often users who differ, or have just clicked, are looked at.
const LOOKS: usize = 5;
const LOOK_WAIT: Duration = Duration::from_millis(50);
/// How long the ledger may take to come to where the journal was: beyond that it is away.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Differences that are listed; the rest are counted.
const LISTED_MAX: usize = 100;

/// What was found, and of whom.
pub struct Held {
    pub check: FoldCheck,
    pub users: Vec<UserId>,
}

impl App {
    /// Compares the likes of all users who are loaded; with `forgets`, those who differ are made to load anew.
    pub(super) async fn check_held(&self, forgets: bool) -> Result<Held> {
        let epoch = self.epoch()?;
        let mut held = Held { check: FoldCheck::default(), users: Vec::new() };
        let mut cursor = 0;
        for _ in 0..PAGES_MAX {
            let (users, next) = self.engine.loaded_users(cursor).await.map_err(Fault::from)?;
            for users in users.chunks(COMPARED) {
                let differing = self.compare_held(epoch, users).await?;
                held.check.checked += users.len() as u64;
                if differing.is_empty() {
                    continue;
                }
                held.check.differing += differing.len() as u64;
                let room = LISTED_MAX - held.check.rows.len();
                let mut users: Vec<_> = differing.iter().filter_map(|difference| difference.user.clone()).collect();
                held.check.rows.extend(differing.into_iter().take(room));
                users.dedup();
                if forgets {
                    self.engine.forget_likes(&users, self.now()).await.map_err(Fault::from)?;
                }
                held.users.extend(users);
            }
            cursor = next;
            if cursor == 0 || held.check.checked >= USERS_MAX {
                break;
            }
        }
        Ok(held)
    }

    /// What the engine holds of some users otherwise than the ledger.
    async fn compare_held(&self, epoch: u64, users: &[UserId]) -> Result<Vec<Difference>> {
        let mut suspects = users.to_vec();
        let mut differing = Vec::new();
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK_WAIT).await;
            }
            let before = self.held(epoch, &suspects).await?;
            self.until_ledger_has_the_journal(epoch).await?;
            // No answers of keys are wanted, and nothing was recorded tomorrow.
            let since = self.now().plus_ms(24 * 3_600_000);
            let stored = self.ledger.user_likes(&suspects, since).await?;
            let stored: HashMap<_, BTreeSet<_>> = stored
                .into_iter()
                .map(|user| (user.user, user.likes.into_iter().map(|(product, _)| product).collect()))
                .collect();
            let nothing = BTreeSet::new();
            let differs =
                |user: &UserId| before.get(user).is_some_and(|held| *held != *stored.get(user).unwrap_or(&nothing));
            suspects.retain(differs);
            if suspects.is_empty() {
                return Ok(Vec::new());
            }
            let after = self.held(epoch, &suspects).await?;
            let stood_still = suspects.iter().filter(|user| before.get(*user) == after.get(*user));
            differing = stood_still
                .flat_map(|user| differences(user, &before[user], stored.get(user).unwrap_or(&nothing)))
                .collect();
        }
        Ok(differing)
    }

    /// What users like as the engine holds it; who is not loaded is left out.
    async fn held(&self, epoch: u64, users: &[UserId]) -> Result<HashMap<UserId, BTreeSet<ProductId>>> {
        let held = self.engine.held_likes(epoch, users, self.now()).await;
        let held = held.map_err(|error| self.engine_error(epoch, error))?;
        let of_user =
            |(user, held): (&UserId, Option<Vec<ProductId>>)| Some((user.clone(), held?.into_iter().collect()));
        Ok(users.iter().zip(held).filter_map(of_user).collect())
    }

    /// Asks the ledger itself: what nobody told this node of must not keep it waiting.
    async fn until_ledger_has_the_journal(&self, epoch: u64) -> Result<()> {
        let survey = self.engine.survey().await.map_err(Fault::from)?;
        let written: Vec<_> = survey.partitions.iter().map(|here| here.last.unwrap_or_default()).collect();
        let began = Instant::now();
        loop {
            let state = self.ledger.state(self.engine.limits().partitions).await?;
            let has_come = |(partition, cursor): (&u16, &Position)| *cursor >= written[usize::from(*partition)];
            if state.epoch == epoch && state.cursors.iter().all(has_come) {
                return Ok(());
            }
            if state.epoch != epoch || began.elapsed() > CATCH_UP {
                return Err(AppError::Unavailable {
                    reason: "the ledger is behind the journal; users' likes can be verified when it has caught up"
                        .to_owned(),
                    retry_after_ms: 1_000,
                });
            }
            tokio::time::sleep(LOOK_WAIT).await;
        }
    }
}

fn differences(user: &UserId, held: &BTreeSet<ProductId>, stored: &BTreeSet<ProductId>) -> Vec<Difference> {
    let difference = |product: &ProductId| Difference {
        product: product.clone(),
        user: Some(user.clone()),
        expected: i64::from(stored.contains(product)),
        actual: i64::from(held.contains(product)),
    };
    held.symmetric_difference(stored).map(difference).collect()
}
