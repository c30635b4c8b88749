//! How far ledger and count of likes have come, and the requests that wait for it.
//!
//! Invariant: a wait ends with true only when the very entry was passed within its own epoch. A change of epoch ends
//! every older wait with false: whether such an entry was saved is not known here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::domain::Position;
use crate::engine::Progress;

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
        let (lines, partition, position) = match progress {
            Progress::Ledger { partition, position } => (&self.ledger, partition, position),
            Progress::Likes { partition, position } => (&self.likes, partition, position),
        };
        // A partition that is not there is another installation's, with the same prefix by mistake.
        if let Some(line) = lines.get(usize::from(partition)) {
            line.reach(position);
        }
    }

    /// How far the ledger is known to have come.
    pub fn in_ledger(&self, partition: u16) -> Position {
        self.ledger[usize::from(partition)].lock().reached
    }

    /// True once the ledger has passed the position.
    pub async fn ledger(&self, partition: u16, position: Position) -> bool {
        self.ledger[usize::from(partition)].wait(position).await
    }

    /// True once the count of likes has passed the position.
    pub async fn likes(&self, partition: u16, position: Position) -> bool {
        self.likes[usize::from(partition)].wait(position).await
    }
}

#[derive(Default)]
struct Line(Mutex<LineState>);

#[derive(Default)]
struct LineState {
    reached: Position,
    /// In order of position, so that progress wakes only those it concerns.
    waiting: BTreeMap<(Position, u64), oneshot::Sender<bool>>,
    tickets: u64,
}

impl LineState {
    fn verdict(&self, position: Position) -> Option<bool> {
        if self.reached.epoch > position.epoch {
            return Some(false);
        }
        (self.reached >= position).then_some(true)
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.0.lock().expect("nothing panics while it holds a line")
    }

    fn reach(&self, position: Position) {
        let mut line = self.lock();
        if position <= line.reached {
            return;
        }
        line.reached = position;
        let later = line.waiting.split_off(&(position, u64::MAX));
        for ((waited, _), waiter) in std::mem::replace(&mut line.waiting, later) {
            // A waiter that gave up has dropped its end, which is no loss.
            waiter.send(waited.epoch == position.epoch).ok();
        }
    }

    async fn wait(&self, position: Position) -> bool {
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
        receiver.await.unwrap_or(false)
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
        line.reach(at(1, 5));
        assert!(line.wait(at(1, 5)).await);
        let (first, second) = (line.wait(at(1, 6)), line.wait(at(1, 9)));
        tokio::pin!(second);
        let progress = async { line.reach(at(1, 7)) };
        assert!(tokio::join!(first, progress).0);
        assert!(timeout(Duration::from_millis(5), &mut second).await.is_err());
        line.reach(at(1, 9));
        assert!(second.await);
        assert!(line.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_new_epoch_never_passes_for_a_commit() {
        let line = Line::default();
        let wait = line.wait(at(1, 6));
        let progress = async { line.reach(at(2, 100)) };
        assert!(!tokio::join!(wait, progress).0);
        assert!(!line.wait(at(1, 1)).await);
    }

    #[tokio::test]
    async fn giving_up_leaves_nothing_behind() {
        let line = Line::default();
        assert!(timeout(Duration::from_millis(1), line.wait(at(1, 1))).await.is_err());
        assert!(line.lock().waiting.is_empty());
    }
}
