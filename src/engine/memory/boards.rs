//! What one board keeps: the generation shown, the one being built, and the states published.
//!
//! Invariant: the scores of a generation and its cursors change together.

use std::collections::VecDeque;

use crate::domain::{Cursors, FeedState, PageStart, Place, Points, ProductId, Standings};
use crate::engine::{Apply, BoardSurvey, Build, Entries, Generation, Page};

/// Published states kept for clients that come back: one minute of ticks of 100 ms.
const HISTORY_MAX: usize = 600;

#[derive(Default)]
pub struct BoardState {
    /// Generations begun so far.
    begun: u64,
    shown: Option<(Generation, Scores)>,
    building: Option<(u64, Scores)>,
    /// Oldest first.
    history: VecDeque<FeedState>,
    /// States published so far.
    seq: u64,
}

#[derive(Default)]
struct Scores {
    standings: Standings,
    cursors: Cursors,
    computed_at: Cursors,
}

impl BoardState {
    pub fn survey(&self) -> BoardSurvey {
        let shown = self.shown.iter().map(|(generation, scores)| (generation.number, scores.cursors.clone()));
        let building = self.building.iter().map(|(number, scores)| (*number, scores.cursors.clone()));
        BoardSurvey {
            shown: self.shown.as_ref().map(|(generation, _)| generation.clone()),
            computed_at: self.shown.as_ref().map(|(_, scores)| scores.computed_at.clone()).unwrap_or_default(),
            cursors: shown.chain(building).collect(),
        }
    }

    pub fn begin(&mut self, cursors: &Cursors) -> u64 {
        self.begun += 1;
        self.building = Some((self.begun, Scores { cursors: cursors.clone(), ..Scores::default() }));
        self.begun
    }

    pub fn load(&mut self, generation: u64, scores: &[(ProductId, Points)]) -> bool {
        let Some(building) = self.building(generation) else { return false };
        scores.iter().for_each(|(product, points)| building.standings.set(product, *points));
        true
    }

    pub fn set_cursors(&mut self, generation: u64, cursors: &Cursors) -> bool {
        let Some(building) = self.building(generation) else { return false };
        (building.cursors, building.computed_at) = (cursors.clone(), cursors.clone());
        true
    }

    pub fn apply(&mut self, batch: &Apply) -> bool {
        let shown = self.shown.iter_mut().map(|(generation, scores)| (generation.number, scores));
        let building = self.building.iter_mut().map(|(number, scores)| (*number, scores));
        let Some((_, scores)) = shown.chain(building).find(|(number, _)| *number == batch.generation) else {
            return false;
        };
        if !batch.moves.iter().all(|step| scores.cursors.get(&step.partition) == Some(&step.from)) {
            return false;
        }
        scores.cursors.extend(batch.moves.iter().map(|step| (step.partition, step.to)));
        batch.deltas.iter().for_each(|(product, delta)| scores.standings.add(product, *delta));
        true
    }

    pub fn switch(&mut self, generation: u64, build: &Build) -> bool {
        let Some((number, scores)) = self.building.take_if(|(number, _)| *number == generation) else { return false };
        self.shown = Some((Generation { number, build: build.clone() }, scores));
        true
    }

    pub fn drop(&mut self) {
        *self = Self { begun: self.begun, seq: self.seq, ..Self::default() };
    }

    pub fn page(&self, start: &PageStart, count: u64) -> Option<Page> {
        let (generation, scores) = self.shown.as_ref()?;
        let rows = scores.standings.rows(start, count);
        Some(Page { generation: generation.clone(), cursors: scores.cursors.clone(), seq: self.seq, rows })
    }

    pub fn entries(&self, products: &[ProductId]) -> Option<Entries> {
        let (generation, scores) = self.shown.as_ref()?;
        let entries = products.iter().map(|product| scores.standings.entry(product)).collect();
        Some(Entries { generation: generation.clone(), cursors: scores.cursors.clone(), entries })
    }

    pub fn whole(&self) -> Option<(Generation, Cursors, Vec<Place>)> {
        let (generation, scores) = self.shown.as_ref()?;
        Some((generation.clone(), scores.cursors.clone(), scores.standings.iter().collect()))
    }

    pub fn publish(&mut self, state: &FeedState) -> bool {
        let is_shown = self.shown.as_ref().is_some_and(|(generation, _)| generation.number == state.generation);
        if !is_shown || state.seq != self.seq + 1 {
            return false;
        }
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(state.clone());
        self.seq = state.seq;
        true
    }

    pub fn published(&self) -> Option<FeedState> {
        self.history.back().cloned()
    }

    pub fn published_at(&self, seq: u64) -> Option<FeedState> {
        let index = self.history.binary_search_by_key(&seq, |state| state.seq).ok()?;
        Some(self.history[index].clone())
    }

    fn building(&mut self, generation: u64) -> Option<&mut Scores> {
        self.building.as_mut().filter(|(number, _)| *number == generation).map(|(_, scores)| scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Basis, BoardId, SnapshotReason, Timestamp};

    #[test]
    fn the_history_keeps_the_last_minute_of_ticks() {
        let mut board = BoardState::default();
        let reason = SnapshotReason::Initial;
        let build = Build { epoch: 1, period: "all".to_owned(), revision: 0, basis: Basis::default(), reason };
        let generation = board.begin(&Cursors::new());
        assert!(board.switch(generation, &build));
        for seq in 1..=1_000 {
            let state = FeedState {
                board: BoardId::daily(),
                epoch: 1,
                history: None,
                seq,
                generation,
                reason,
                period: build.period.clone(),
                at: Timestamp::from_ms(0),
                basis: Basis::default(),
                cursors: Cursors::new(),
                total: 0,
                places: Vec::new(),
            };
            assert!(board.publish(&state));
        }
        assert_eq!(board.history.len(), HISTORY_MAX);
        assert_eq!(board.history.front().map(|state| state.seq), Some(401));
        assert_eq!(board.seq, 1_000);
    }
}
