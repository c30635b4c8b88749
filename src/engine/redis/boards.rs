//! The steps of boards. All keys of a board share one hash slot, so each step is one script.

use redis::Value;

use super::exact::Exact;
use super::keys::{BoardKey, Key};
use super::link::{Args, BULK_LIMIT, STEP_LIMIT, limit_for};
use super::reply::{self, flag, generation, parse, tuple, unexpected};
use super::{RedisEngine, script};
use crate::domain::{BoardId, Cursors, PageStart, Place, Points, ProductId, Rows};
use crate::engine::{Apply, BoardSurvey, Build, Entries, Generation, Page, Result};

/// Scores that one call brings: some 5 ms of Redis' time, during which likes wait.
const LOAD_SCORES_MAX: usize = 5_000;

/// A rank, or a count of places, beyond any board: what Lua's numbers hold exactly.
const PLACES_MAX: u64 = 1 << 53;

/// What a board shows.
const SHOWN: [BoardKey; 4] = [BoardKey::Meta, BoardKey::Scores, BoardKey::Cursor, BoardKey::Beyond];

/// What a board shows, and what is being built.
const BOTH: [BoardKey; 7] = [
    BoardKey::Meta,
    BoardKey::Scores,
    BoardKey::Cursor,
    BoardKey::Beyond,
    BoardKey::NextScores,
    BoardKey::NextCursor,
    BoardKey::NextBeyond,
];

impl RedisEngine {
    pub(super) fn board_keys<const N: usize>(&self, board: &BoardId, keys: [BoardKey; N]) -> [String; N] {
        keys.map(|key| self.keys.name(&Key::Board(board.clone(), key)))
    }

    pub(super) async fn do_board(&self, board: &BoardId) -> Result<BoardSurvey> {
        let keys = self.board_keys(board, [BoardKey::Meta, BoardKey::Cursor, BoardKey::NextCursor]);
        let reply = self.link.eval(&script::BOARD, &keys, &Args::default(), STEP_LIMIT).await?;
        let [shown, shown_cursors, building, building_cursors, computed_at] = tuple(reply)?;
        let mut survey = BoardSurvey::default();
        if shown != Value::Nil {
            let shown = generation(shown)?;
            survey.cursors.push((shown.number, reply::cursors(shown_cursors)?));
            survey.shown = Some(shown);
            survey.computed_at = reply::listed_cursors(&computed_at)?;
        }
        if building != Value::Nil {
            survey.cursors.push((parse(&building)?, reply::cursors(building_cursors)?));
        }
        Ok(survey)
    }

    pub(super) async fn do_begin_generation(&self, board: &BoardId, cursors: &Cursors) -> Result<u64> {
        let keys =
            self.board_keys(board, [BoardKey::Meta, BoardKey::NextScores, BoardKey::NextCursor, BoardKey::NextBeyond]);
        let mut args = Args::default();
        push_cursors(&mut args, cursors);
        parse(&self.link.eval(&script::BEGIN_GENERATION, &keys, &args, STEP_LIMIT).await?)
    }

    pub(super) async fn do_load_scores(
        &self,
        board: &BoardId,
        generation: u64,
        scores: &[(ProductId, Points)],
    ) -> Result<bool> {
        let keys = self.board_keys(board, [BoardKey::Meta, BoardKey::NextScores, BoardKey::NextBeyond]);
        // At least one call, so that an empty chunk too says whether the generation is being built.
        let mut rest = scores;
        loop {
            let (chunk, later) = rest.split_at(rest.len().min(LOAD_SCORES_MAX));
            let mut args = Args::default();
            let has_large = chunk.iter().any(|(_, points)| Exact(*points).is_large());
            args.push(generation).push(u8::from(has_large));
            for (product, points) in chunk {
                args.push(Exact(*points)).push(product);
            }
            let is_building = flag(&self.link.eval(&script::LOAD_SCORES, &keys, &args, BULK_LIMIT).await?)?;
            if !is_building || later.is_empty() {
                return Ok(is_building);
            }
            rest = later;
        }
    }

    pub(super) async fn do_set_cursors(&self, board: &BoardId, generation: u64, cursors: &Cursors) -> Result<bool> {
        let keys = self.board_keys(board, [BoardKey::Meta, BoardKey::NextCursor]);
        let mut args = Args::default();
        args.push(generation);
        push_cursors(&mut args, cursors);
        flag(&self.link.eval(&script::SET_CURSORS, &keys, &args, STEP_LIMIT).await?)
    }

    pub(super) async fn do_apply(&self, batch: &Apply) -> Result<bool> {
        let keys = self.board_keys(&batch.board, BOTH);
        let mut args = Args::default();
        let has_large = batch.deltas.iter().any(|(_, delta)| Exact(*delta).is_large());
        args.push(batch.generation).push(u8::from(has_large)).push(batch.moves.len());
        for step in &batch.moves {
            args.push(step.partition).push(step.from).push(step.to);
        }
        for (product, delta) in &batch.deltas {
            args.push(product).push(Exact(*delta));
        }
        flag(&self.link.eval(&script::APPLY, &keys, &args, limit_for(args.len())).await?)
    }

    pub(super) async fn do_switch(&self, board: &BoardId, generation: u64, build: &Build) -> Result<bool> {
        let keys = self.board_keys(board, BOTH);
        let mut args = Args::default();
        args.push(generation).push(build.epoch).push(&build.period).push(build.revision);
        args.push(build.basis.rules_version).push(build.basis.at.as_ms()).push(build.reason.name());
        flag(&self.link.eval(&script::SWITCH, &keys, &args, STEP_LIMIT).await?)
    }

    pub(super) async fn do_drop_board(&self, board: &BoardId) -> Result<()> {
        let keys = self.board_keys(board, BoardKey::ALL);
        self.link.eval(&script::DROP_BOARD, &keys, &Args::default(), STEP_LIMIT).await?;
        Ok(())
    }

    pub(super) async fn do_page(&self, board: &BoardId, start: &PageStart, count: u64) -> Result<Option<Page>> {
        let keys = self.board_keys(board, SHOWN);
        let mut args = Args::default();
        args.push(count.min(PLACES_MAX));
        match start {
            PageStart::Rank(rank) => args.push("rank").push(rank.min(&PLACES_MAX)),
            PageStart::After(place) => args.push("after").push(place.points.ranked()).push(&place.product),
            PageStart::Around { product, radius } => args.push("around").push(product).push(radius.min(&PLACES_MAX)),
        };
        let reply = self.link.eval(&script::PAGE, &keys, &args, limit_for(count.min(PLACES_MAX) as usize)).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let [build, cursors, seq, above, total, places] = tuple(reply)?;
        let rows =
            Rows { first_rank: parse::<u64>(&above)? + 1, places: reply::places(places)?, total: parse(&total)? };
        let (generation, cursors) = (generation(build)?, reply::cursors(cursors)?);
        Ok(Some(Page { generation, cursors, seq: parse(&seq)?, rows }))
    }

    pub(super) async fn do_entries(&self, board: &BoardId, products: &[ProductId]) -> Result<Option<Entries>> {
        let keys = self.board_keys(board, SHOWN);
        let mut args = Args::default();
        products.iter().for_each(|product| {
            args.push(product);
        });
        let reply = self.link.eval(&script::ENTRIES, &keys, &args, limit_for(products.len())).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let [build, cursors, entries] = tuple(reply)?;
        let entries = reply::pairs(entries, |rank, points| match rank {
            Value::Int(rank) => {
                let above = u64::try_from(*rank).map_err(|_| unexpected(&Value::Int(*rank)))?;
                Ok(Some((above + 1, reply::points(points)?)))
            }
            _ => Ok(None),
        })?;
        if entries.len() != products.len() {
            return Err(unexpected(&Value::Int(entries.len() as i64)));
        }
        Ok(Some(Entries { generation: generation(build)?, cursors: reply::cursors(cursors)?, entries }))
    }

    pub(super) async fn do_whole(&self, board: &BoardId) -> Result<Option<(Generation, Cursors, Vec<Place>)>> {
        let keys = self.board_keys(board, SHOWN);
        let reply = self.link.eval(&script::WHOLE, &keys, &Args::default(), BULK_LIMIT).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let [build, cursors, places] = tuple(reply)?;
        Ok(Some((generation(build)?, reply::cursors(cursors)?, reply::places(places)?)))
    }
}

fn push_cursors(args: &mut Args, cursors: &Cursors) {
    for (partition, position) in cursors {
        args.push(partition).push(position);
    }
}
