//! How far ledger and count of likes have come, and the requests that wait for it.
//!
//! Invariant: a wait ends with [`End::Passed`] only when the very entry was passed within its own epoch, by a commit that told
//! what it refused, and was not refused. A change of epoch ends every older wait: whether such an entry was saved is not
//! known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::domain::Position;
use crate::engine::Progress;

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Passed,
    /// The ledger did not take the entry.
    Refused,
    /// The ledger has passed the entry, and whether it took it was not told, or not yet.
    Untold,
    /// The epoch ended before.
    Unknown,
}

/// Refused entries that a line remembers, for those who begin to wait after the line has passed: a commit's, of which
/// hardly any is refused. What is before those remembered counts as untold.
const REFUSED_MAX: usize = 4_096;

/// One line for each partition, of the ledger and of the count of likes.
pub struct Waits {
    ledger: Vec<Line>,
    likes: Vec<Line>,
}

impl Waits {
    pub fn new(partitions: u16) -> Self {
        let lines = || (0..partitions).map(|_| Line::default()).collect();
        Self { ledger: lines(), likes: lines() }
    }

    pub fn reach(&self, progress: Progress) {
        let (lines, partition) = match progress {
            Progress::Ledger { partition, .. } | Progress::Refused { partition, .. } => (&self.ledger, partition),
            Progress::Likes { partition, .. } => (&self.likes, partition),
        };
        // A partition that is not there is another installation's, with the same prefix by mistake.
        let Some(line) = lines.get(usize::from(partition)) else { return };
        match progress {
            Progress::Refused { position, .. } => line.refuse(position),
            Progress::Ledger { from, position, .. } => {
                line.reach(from, position);
                // Whoever tells this has corrected the engine before.
                line.lock().correct(position);
            }
            // Nothing is ever refused there.
            Progress::Likes { position, .. } => line.reach(Position::default(), position),
        }
    }

    /// How far the ledger is known to have come.
    pub fn in_ledger(&self, partition: u16) -> Position {
        self.ledger[usize::from(partition)].lock().reached
    }

    /// Ends once the ledger has passed the position.
    pub async fn ledger(&self, partition: u16, position: Position) -> End {
        self.ledger[usize::from(partition)].wait(position).await
    }

    /// How a wait for the position would end, where the ledger has passed it.
    pub fn verdict(&self, partition: u16, position: Position) -> Option<End> {
        self.ledger[usize::from(partition)].lock().verdict(position)
    }

    /// Takes note of how far the ledger has come, as it was read there: what was refused on the way is told by others, and the
    /// engine may have yet to be corrected of it.
    pub fn catch_up(&self, partition: u16, position: Position) {
        if let Some(line) = self.ledger.get(usize::from(partition)) {
            line.reach(position, position);
        }
    }

    /// Up to where the engine was corrected of what the ledger has refused.
    pub fn corrected(&self, partition: u16) -> Position {
        self.ledger[usize::from(partition)].lock().corrected
    }

    /// Whether the ledger has refused, or may have, an entry of a partition behind what was corrected when the engine said
    /// something of it, which may rest on that entry.
    pub fn has_refused_since(&self, partition: u16, corrected: Position) -> bool {
        let line = self.ledger[usize::from(partition)].lock();
        line.untold > corrected || line.refused.last().is_some_and(|last| *last > corrected)
    }

    /// Ends once the count of likes has passed the position.
    pub async fn likes(&self, partition: u16, position: Position) -> End {
        self.likes[usize::from(partition)].wait(position).await
    }
}

#[derive(Default)]
struct Line(Mutex<LineState>);

#[derive(Default)]
struct LineState {
    reached: Position,
    corrected: Position,
    /// Up to here something was passed by a commit that nothing was heard of, or was refused and is forgotten.
    untold: Position,
    /// In order of position, so that progress wakes only those it concerns.
    waiting: BTreeMap<(Position, u64), oneshot::Sender<End>>,
    tickets: u64,
    /// The last [`REFUSED_MAX`].
    refused: BTreeSet<Position>,
}

impl LineState {
    fn correct(&mut self, position: Position) {
        self.corrected = position.max(self.corrected);
    }

    fn verdict(&self, position: Position) -> Option<End> {
        if self.reached.epoch > position.epoch {
            return Some(End::Unknown);
        }
        let end = match self.refused.contains(&position) {
            true => End::Refused,
            false if position <= self.untold => End::Untold,
            false => End::Passed,
        };
        (self.reached >= position).then_some(end)
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.0.lock().expect("nothing panics while it holds a line")
    }

    fn refuse(&self, position: Position) {
        let mut line = self.lock();
        line.refused.insert(position);
        if line.refused.len() > REFUSED_MAX {
            let forgotten = line.refused.pop_first().expect("there is more than none");
            line.untold = line.untold.max(forgotten);
        }
    }

    fn reach(&self, from: Position, position: Position) {
        let mut line = self.lock();
        if position <= line.reached {
            return;
        }
        if from > line.reached {
            line.untold = from;
        }
        line.reached = position;
        let later = line.waiting.split_off(&(position, u64::MAX));
        for ((waited, _), waiter) in std::mem::replace(&mut line.waiting, later) {
            let end = line.verdict(waited).expect("what was waited for is passed");
            // A waiter that gave up has dropped its end, which is no loss.
            waiter.send(end).ok();
        }
    }

    async fn wait(&self, position: Position) -> End {
        let (sender, receiver) = oneshot::channel();
        let _ticket = {
            let mut line = self.lock();
            if let Some(verdict) = line.verdict(position) {
                return verdict;
            }
            line.tickets += 1;
            let key = (position, line.tickets);
            line.waiting.insert(key, sender);
            Ticket { line: self, key }
        };
        receiver.await.unwrap_or(End::Unknown)
    }
}

/// Takes a waiter that gave up out of the line, so that a ledger away for long leaves no heap of them.
struct Ticket<'a> {
    line: &'a Line,
    key: (Position, u64),
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.line.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        Position::new(epoch, seq)
    }

    #[tokio::test]
    async fn a_wait_ends_when_its_position_is_passed_and_not_before() {
        let line = Line::default();
        line.reach(at(0, 0), at(1, 5));
        assert_eq!(line.wait(at(1, 5)).await, End::Passed);
        let (first, second) = (line.wait(at(1, 6)), line.wait(at(1, 9)));
        tokio::pin!(second);
        let progress = async { line.reach(at(1, 5), at(1, 7)) };
        assert_eq!(tokio::join!(first, progress).0, End::Passed);
        assert!(timeout(Duration::from_millis(5), &mut second).await.is_err());
        line.reach(at(1, 7), at(1, 9));
        assert_eq!(second.await, End::Passed);
        assert!(line.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_new_epoch_never_passes_for_a_commit() {
        let line = Line::default();
        let wait = line.wait(at(1, 6));
        let progress = async { line.reach(at(2, 0), at(2, 100)) };
        assert_eq!(tokio::join!(wait, progress).0, End::Unknown);
        assert_eq!(line.wait(at(1, 1)).await, End::Unknown);
    }

    #[tokio::test]
    async fn what_was_refused_never_passes_for_a_commit() {
        let line = Line::default();
        let waits = async { tokio::join!(line.wait(at(1, 1)), line.wait(at(1, 2)), line.wait(at(1, 3))) };
        let progress = async {
            line.refuse(at(1, 2));
            line.reach(at(0, 0), at(1, 3));
        };
        let (ends, ()) = tokio::join!(waits, progress);
        assert_eq!(ends, (End::Passed, End::Refused, End::Passed));
        assert_eq!(line.wait(at(1, 2)).await, End::Refused, "for those who come later, too");
    }

    #[tokio::test]
    async fn what_nobody_told_of_never_passes_for_a_commit() {
        let line = Line::default();
        line.reach(at(0, 0), at(1, 2));
        let waits = async { tokio::join!(line.wait(at(1, 3)), line.wait(at(1, 4)), line.wait(at(1, 6))) };
        let progress = async {
            line.refuse(at(1, 4));
            // Another node's commit up to 5 is seen in the ledger, and only then heard of; the next one is this node's own.
            line.reach(at(1, 5), at(1, 5));
            line.reach(at(1, 2), at(1, 5));
            line.reach(at(1, 5), at(1, 6));
        };
        let (ends, ()) = tokio::join!(waits, progress);
        assert_eq!(ends, (End::Untold, End::Refused, End::Passed));
        assert_eq!(line.wait(at(1, 5)).await, End::Untold, "for those who come later, too");
    }

    #[test]
    fn a_line_remembers_so_many_refusals_and_no_more() {
        let line = Line::default();
        (1..=2 * REFUSED_MAX as u64).for_each(|seq| line.refuse(at(1, seq)));
        let (last, mut line) = (2 * REFUSED_MAX as u64, line.lock());
        assert_eq!((line.refused.len(), line.refused.last()), (REFUSED_MAX, Some(&at(1, last))));
        line.reached = at(1, last);
        let ends = [1, REFUSED_MAX as u64, REFUSED_MAX as u64 + 1].map(|seq| line.verdict(at(1, seq)));
        assert_eq!(ends, [Some(End::Untold), Some(End::Untold), Some(End::Refused)]);
    }

    #[test]
    fn a_refusal_casts_doubt_until_the_engine_is_corrected() {
        let waits = Waits::new(1);
        let told = |from, position| Progress::Ledger { partition: 0, from: at(1, from), position: at(1, position) };
        waits.reach(told(0, 3));
        let before = waits.corrected(0);
        assert!(!waits.has_refused_since(0, before));
        waits.reach(Progress::Refused { partition: 0, position: at(1, 5) });
        assert!(waits.has_refused_since(0, waits.corrected(0)), "it is not corrected yet");
        waits.reach(told(3, 6));
        assert!(waits.has_refused_since(0, before), "what was said before rests on it");
        assert!(!waits.has_refused_since(0, waits.corrected(0)), "and nothing that is said from now on");
        waits.catch_up(0, at(1, 9));
        assert!(waits.has_refused_since(0, waits.corrected(0)), "nobody has told what was refused up to there");
        waits.reach(told(6, 9));
        assert!(!waits.has_refused_since(0, waits.corrected(0)));
    }

    #[tokio::test]
    async fn giving_up_leaves_nothing_behind() {
        let line = Line::default();
        assert!(timeout(Duration::from_millis(1), line.wait(at(1, 1))).await.is_err());
        assert!(line.lock().waiting.is_empty());
    }
}
