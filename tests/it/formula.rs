//! The formula, however it is reached: increments in any interleaving, a rebuild, a preview and the lines of an
//! explanation give the same points as whole numbers, on both engines and both ledgers.
//!
//! Random steps are driven by hand: events and likes enter the journal, sync and projection follow when it is their turn,
//! rules come and go, the clock goes on. After each step every board that shows anything is explained, wherever ledger and
//! board stand by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use acclaim::domain::{
    Basis, Board, BoardId, Event, Factor, Hours, PageStart, Place, Points, ProductId, Signal, Timestamp, UserId, Weight,
};
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::{Desired, Engine, EngineLimits};
use acclaim::ledger::{Ledger, NewProduct};
use acclaim::pipeline::{App, EventResult, LikeResult, Moment, NewEvent, Settings, Trial, project, sync};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use tokio_util::sync::CancellationToken;

use crate::support::node::{order, product};
use crate::support::stack::{Setup, Stack};
use crate::support::until;

const LIMIT: Duration = Duration::from_secs(20);
/// Enough products to meet, few enough to be hit again and again.
const PRODUCTS: usize = 6;
const HOUR_MS: i64 = 3_600_000;

#[test]
fn every_way_to_a_score_gives_the_same_embedded() {
    agree(Setup::Embedded, 16);
}

#[test]
fn every_way_to_a_score_gives_the_same_on_servers() {
    agree(Setup::Servers, 8);
}

fn agree(setup: Setup, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Shrinking repeats whole runs, so only a few times.
    let config = Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(step(), 4..14);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let mut world = World::new(setup).await;
            for step in &steps {
                world.take(step).await;
                world.explain_all().await;
            }
            world.sync().await;
            world.project().await;
            world.compare_all().await;
            world.app.stop(LIMIT).await;
        });
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{why}\nafter {steps:#?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Producers' events: signal, product, count, and how long ago.
    Record(Vec<(Signal, usize, i64, i64)>),
    /// Takes back the n-th event recorded so far.
    Reverse(usize),
    /// Users' likes, toggled.
    Like(Vec<(usize, usize)>),
    /// A rule of weights: whether for one board, which, the weights, from and until as hours from now, hours of the day.
    Weigh(Option<usize>, Vec<(Signal, i64)>, Option<i64>, Option<i64>, Option<Vec<i32>>),
    /// Takes back the n-th rule of weights.
    Cancel(usize),
    /// A product's rule: which product, whether for one board, excluded, boost in millionths, until as hours from now.
    Lift(usize, Option<usize>, bool, Option<i64>, Option<i64>),
    Sync,
    Project,
    /// The clock goes on, and periods end.
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let signal = || prop::sample::select(vec![Signal::View, Signal::Cart, Signal::Share, Signal::Order]);
    let any_signal = || prop::sample::select(Signal::ALL.to_vec());
    // Mostly of the last hours, some of earlier periods.
    let ago = prop_oneof![6 => 0..3 * HOUR_MS, 2 => 0..40 * HOUR_MS, 1 => 0..800 * HOUR_MS];
    // A few as large as may be, which leads beyond what ranks tell apart.
    let count = prop_oneof![8 => 1..50_i64, 1 => Just(Event::COUNT_MAX)];
    let event = (signal(), 0..PRODUCTS, count, ago);
    let weight = prop_oneof![4 => Just(0), 4 => 1..3_000_000_i64, 1 => Just(Weight::MAX.millionths())];
    let weight = (any_signal(), weight);
    let boost = prop_oneof![8 => 0..5_000_000_i64, 1 => Just(Factor::MAX.millionths())];
    let few_boards = || prop::option::of(0..BOARDS.len());
    let hours = prop::option::of(prop::collection::vec(0..24, 1..8));
    let offset = || prop::option::of(-30..30_i64);
    prop_oneof![
        6 => prop::collection::vec(event, 1..20).prop_map(Step::Record),
        2 => (0..40_usize).prop_map(Step::Reverse),
        4 => prop::collection::vec((0..4_usize, 0..PRODUCTS), 1..6).prop_map(Step::Like),
        3 => (few_boards(), prop::collection::vec(weight, 1..4), offset(), offset(), hours)
            .prop_map(|(board, weights, from, until, hours)| Step::Weigh(board, weights, from, until, hours)),
        1 => (0..4_usize).prop_map(Step::Cancel),
        1 => (0..PRODUCTS, few_boards(), any::<bool>(), prop::option::of(boost), offset())
            .prop_map(|(product, board, excluded, boost, until)| Step::Lift(product, board, excluded, boost, until)),
        3 => Just(Step::Sync),
        3 => Just(Step::Project),
        1 => (1..30_i64).prop_map(|hours| Step::Wait(hours * HOUR_MS / 2)),
    ]
}

/// Those that are shipped, one of a category in another zone, and one with the shortest half-life.
const BOARDS: [&str; 8] = ["daily", "hourly", "weekly", "monthly", "all-time", "trending", "mugs", "burst"];

struct World {
    app: Arc<App>,
    stack: Stack,
    clock: Arc<AtomicI64>,
    events: Vec<NewEvent>,
    /// Whether there are likes that the ledger may not have: boards count these when it has.
    likes_wait: AtomicBool,
    weight_rules: Vec<i32>,
    version: i32,
}

impl World {
    async fn new(setup: Setup) -> Self {
        let stack = Stack::new(setup).await;
        let limits = EngineLimits { like_rate: 0, ..EngineLimits::default() };
        let engine: Arc<dyn Engine> = match &stack.redis {
            Some(redis) => Arc::new(redis.engine("acc", limits).await),
            None => Arc::new(MemoryEngine::new(limits)),
        };
        let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
        ledger.migrate().await.unwrap();
        stack
            .sql(
                "INSERT INTO boards (id, title, time_window, half_life_ms, category, time_zone, carry_over, revision) VALUES
                 ('mugs', 'Mugs', 'DAY', NULL, 'mugs', 'Asia/Kathmandu', 500001, 1),
                 ('burst', 'Burst', 'HALF_LIFE', 300000, NULL, 'UTC', 0, 1)",
            )
            .await;
        let now = Timestamp::parse("2026-11-22T12:07:08.901Z").unwrap();
        let clock = Arc::new(AtomicI64::new(now.as_ms()));
        let shown = clock.clone();
        let clocked: acclaim::pipeline::Clock = Arc::new(move || Timestamp::from_ms(shown.load(Ordering::Relaxed)));
        // Nobody syncs while a like is answered.
        let settings = Settings { ack_timeout: Duration::ZERO, clock: clocked, ..Settings::default() };
        let app = App::open(engine, ledger, settings).await.unwrap();
        let new = |n: usize| NewProduct {
            id: nth(n),
            name: format!("Product {n}"),
            image_url: None,
            price: None,
            category: n.is_multiple_of(2).then(|| "mugs".to_owned()),
            brand: None,
        };
        app.upsert_products(&(0..PRODUCTS).map(new).collect::<Vec<_>>()).await.unwrap();
        // What the first periods start with.
        for id in ["daily", "mugs"] {
            let definitions = app.definitions();
            let definition = definitions.board(&BoardId::new(id).unwrap()).unwrap();
            let before = definition.board.period_before(&definition.board.period_at(now)).unwrap();
            let place = |n: usize| Place { product: nth(n), points: Points::from_millionths(7_000_001 - n as i128) };
            let places: Vec<_> = (0..3).map(place).collect();
            app.ledger().write_results(definition, &before, &places, Basis::default()).await.unwrap();
        }
        Self {
            app,
            stack,
            clock,
            events: Vec::new(),
            likes_wait: AtomicBool::new(false),
            weight_rules: Vec::new(),
            version: 0,
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Record(rows) => {
                let now = self.app.now();
                let first = self.events.len();
                let event = |(n, (signal, product, count, ago)): (usize, &(Signal, usize, i64, i64))| NewEvent {
                    signal: *signal,
                    count: *count,
                    ..order(&format!("e{}", first + n), nth(*product).as_str(), Some(now.minus_ms(*ago)))
                };
                let events: Vec<_> = rows.iter().enumerate().map(event).collect();
                let (results, _) = self.app.record(&events).await.unwrap();
                assert!(results.iter().all(|result| *result == EventResult::Recorded), "{results:?}");
                self.events.extend(events);
            }
            Step::Reverse(n) => {
                let Some(original) = self.events.get(*n).cloned() else { return };
                let reversal = order(&format!("r{n}"), original.product.as_str(), None);
                let reversal = NewEvent { signal: original.signal, reverses: Some(original.id), ..reversal };
                let (results, _) = self.app.record(&[reversal]).await.unwrap();
                assert!(matches!(results[..], [EventResult::Recorded | EventResult::Duplicate]), "{results:?}");
            }
            Step::Like(toggles) => {
                for (user, product) in toggles {
                    let user = UserId::new(&format!("user-{user}")).unwrap();
                    let done = self.app.like(&user, &nth(*product), Desired::Toggled, None).await.unwrap();
                    assert!(matches!(done, LikeResult::Done { changed: true, .. }), "{done:?}");
                    self.likes_wait.store(true, Ordering::Relaxed);
                }
            }
            Step::Weigh(board, weights, from, until, hours) => self.weigh(*board, weights, *from, *until, hours).await,
            Step::Cancel(n) => {
                let Some(rule) = self.weight_rules.get(*n).copied() else { return };
                let at = self.sql_instant(Some(self.app.now()));
                let version = self.version + 1;
                self.add_rule(&format!(
                    "INSERT INTO weight_rules (version, weights, cancels, created_by, created_at, note)
                     SELECT {version}, '{{}}', {rule}, 'ann', {at}, 'cancelled'
                     WHERE NOT EXISTS (SELECT 1 FROM weight_rules WHERE cancels = {rule})"
                ))
                .await;
            }
            Step::Lift(product, board, excluded, boost, until) => {
                let version = self.version + 1;
                let (now, board) = (self.app.now(), sql_text(board.map(|board| BOARDS[board])));
                let (at, until) =
                    (self.sql_instant(Some(now)), self.sql_instant(until.map(|hours| now.plus_ms(hours * HOUR_MS))));
                let boost = boost.map_or("NULL".to_owned(), |boost| boost.to_string());
                self.add_rule(&format!(
                    "INSERT INTO product_rules
                         (version, product_id, board, excluded, boost, until_at, created_by, created_at, note)
                     VALUES ({version}, '{}', {board}, {excluded}, {boost}, {until}, 'ann', {at}, 'lifted')",
                    nth(*product)
                ))
                .await;
            }
            Step::Sync => self.sync().await,
            Step::Project => self.project().await,
            Step::Wait(ms) => {
                self.clock.fetch_add(*ms, Ordering::Relaxed);
                // A period is closed when the ledger has all that had come by then.
                self.sync().await;
                self.project().await;
            }
        }
    }

    /// Adds a rule, which is looked at first: where the change is made, it does what was foretold. One for all boards is
    /// looked at on one of them, in turn.
    async fn weigh(
        &mut self,
        board: Option<usize>,
        weights: &[(Signal, i64)],
        from: Option<i64>,
        until: Option<i64>,
        hours: &Option<Vec<i32>>,
    ) {
        let now = self.app.now();
        let mut set: Vec<(Signal, Weight)> = Vec::new();
        for (signal, millionths) in weights {
            if set.iter().all(|(known, _)| known != signal) {
                set.push((*signal, Weight::from_millionths(*millionths)));
            }
        }
        let instant = |hours: Option<i64>| hours.map(|hours| now.plus_ms(hours * HOUR_MS + 1));
        let (from, until) =
            (instant(from), instant(until).filter(|until| instant(from).is_none_or(|from| from < *until)));
        let own = board.map(|board| self.board(BOARDS[board]).id.clone());
        let hours = hours.as_ref().map(|hours| Hours::new(hours).unwrap());
        let trial = Trial { board: own, weights: set.clone(), from, until, hours };
        self.sync().await;
        let looked_at = self.board(BOARDS[board.unwrap_or(self.version as usize % BOARDS.len())]);
        let foretold = self.app.weight_preview(&looked_at, &trial, 100).await.unwrap();
        let names: Vec<_> =
            set.iter().map(|(signal, weight)| format!("\"{}\": {}", signal.name(), weight.millionths())).collect();
        let hours = sql_text(trial.hours.map(|hours| format!("{:?}", hours.iter().collect::<Vec<_>>())).as_deref());
        let version = self.version + 1;
        let (at, from, until) = (self.sql_instant(Some(now)), self.sql_instant(from), self.sql_instant(until));
        let board = sql_text(board.map(|board| BOARDS[board]));
        self.add_rule(&format!(
            "INSERT INTO weight_rules (version, board, weights, from_at, until_at, hours, created_by, created_at, note)
             VALUES ({version}, {board}, '{{{}}}', {from}, {until}, {hours}, 'ann', {at}, 'weighed')",
            names.join(", ")
        ))
        .await;
        self.weight_rules.push(version);
        self.project().await;
        let after = foretold.moves.iter().filter(|step| step.rank_after.is_some());
        let after: Vec<_> = after.map(|step| (step.product.clone(), step.points_after)).collect();
        assert_eq!(self.shown(&looked_at).await, after, "{} under {trial:?}", looked_at.id);
    }

    /// Runs the statement that adds a rule under the next version, as one change of rules.
    async fn add_rule(&mut self, insert: &str) {
        self.version += 1;
        let raise = "UPDATE boards SET revision = revision + 1 WHERE id <> '_likes'";
        self.stack.sql(&format!("{insert}; UPDATE versions SET rules = {}; {raise}", self.version)).await;
        self.follow_definitions().await;
    }

    /// Until the node knows the definitions that the ledger has.
    async fn follow_definitions(&self) {
        let stored = self.app.ledger().definitions().await.unwrap();
        self.app.engine().announce_definitions().await.unwrap();
        until("the node knows the rules", LIMIT, async || *self.app.definitions() == stored).await;
    }

    async fn sync(&self) {
        let finish = CancellationToken::new();
        finish.cancel();
        let partitions: Vec<u16> = (0..self.app.engine().limits().partitions).collect();
        sync(&self.app, &partitions, &finish).await.unwrap();
        self.likes_wait.store(false, Ordering::Relaxed);
    }

    /// Projects until every board shows what it should, and has folded all that is in the journal.
    async fn project(&self) {
        let (finish, epoch) = (CancellationToken::new(), self.app.epoch().unwrap());
        let projection = tokio::spawn({
            let (app, finish) = (self.app.clone(), finish.clone());
            let likes_wait = self.likes_wait.swap(false, Ordering::Relaxed);
            // A period that has ended is closed when the ledger has caught up with the journal.
            async move {
                let partitions: Vec<u16> = (0..app.engine().limits().partitions).collect();
                let (projected, synced) = tokio::join!(project(&app, epoch, &finish), async {
                    if likes_wait || needs_close(&app).await { sync(&app, &partitions, &finish).await } else { Ok(()) }
                });
                projected.and(synced).unwrap();
            }
        });
        until("every board is up to date", LIMIT, async || self.is_up_to_date().await).await;
        finish.cancel();
        projection.await.unwrap();
    }

    async fn is_up_to_date(&self) -> bool {
        let ends = self.app.engine().survey().await.unwrap().partitions;
        let now = self.app.now();
        for definition in &self.app.definitions().boards {
            let survey = self.app.engine().board(&definition.board.id).await.unwrap();
            let Some(shown) = survey.shown else { return false };
            let rules = &self.app.definitions().rules;
            let ended = rules.next_end(&definition.board.id, shown.build.basis).is_some_and(|at| at <= now);
            let cursors = &survey.cursors.iter().find(|(number, _)| *number == shown.number).unwrap().1;
            let is_whole = (0..).zip(&ends).all(|(partition, end)| Some(cursors[&partition]) == end.last);
            if shown.build.revision != definition.revision
                || shown.build.period != definition.board.period_at(now).key
                || ended
                || !is_whole
            {
                return false;
            }
        }
        true
    }

    fn board(&self, id: &str) -> Arc<Board> {
        self.app.board(&BoardId::new(id).unwrap()).unwrap()
    }

    /// Products and scores as they are shown, in order.
    async fn shown(&self, board: &Arc<Board>) -> Vec<(ProductId, Points)> {
        let page = self.app.page(board, &PageStart::Rank(1), 100).await.unwrap();
        let score = |points| board.score(&page.reading.period, points, page.reading.freshness.as_of);
        page.rows.places.into_iter().map(|place| (place.product, score(place.points))).collect()
    }

    /// Every score that is shown is the sum of its lines, exactly, at the page's own moment.
    async fn explain_all(&self) {
        for board in BOARDS.map(|id| self.board(id)) {
            let page = self.app.page(&board, &PageStart::Rank(1), 100).await.unwrap();
            let reading = Arc::new(page.reading);
            let ids: Vec<_> = page.rows.places.iter().map(|place| place.product.clone()).collect();
            let tally = self.app.tally(&reading, &ids, Moment::AsRead).await.unwrap();
            let tally = tally.unwrap_or_else(|| panic!("{}: the journal has everything", board.id));
            for Place { product, points } in page.rows.places {
                let explanation = tally.explain(&reading, &product, points);
                let explanation = explanation.unwrap_or_else(|| panic!("{}: {product} at {points:?}", board.id));
                let lines: i128 = explanation.lines.iter().map(|line| line.points.millionths()).sum();
                let score = board.score(&reading.period, points, reading.freshness.as_of);
                assert_eq!(lines, score.millionths(), "{}: {product}: {explanation:#?}", board.id);
            }
        }
    }

    /// What increments have come to, what a preview says there is, and what a rebuild makes of it.
    async fn compare_all(&self) {
        let whole = async |board: &BoardId| self.app.engine().whole(board).await.unwrap().unwrap();
        let mut live = Vec::new();
        for id in BOARDS {
            let board = self.board(id);
            let weights = vec![(Signal::View, Weight::MAX)];
            let trial = Trial { board: Some(board.id.clone()), weights, from: None, until: None, hours: None };
            let present = self.app.weight_preview(&board, &trial, 100).await.unwrap();
            let before = present.moves.iter().filter(|step| step.rank_before.is_some());
            let mut before: Vec<_> =
                before.map(|step| (step.rank_before, step.product.clone(), step.points_before)).collect();
            before.sort_by_key(|(rank, ..)| *rank);
            let shown = self.shown(&board).await;
            let ranked = (1..).zip(shown).map(|(rank, (product, score))| (Some(rank), product, score));
            assert_eq!(before, ranked.collect::<Vec<_>>(), "{id}: the preview of what there is");
            live.push(whole(&board.id).await);
        }
        self.app.ledger().revise_boards().await.unwrap();
        self.follow_definitions().await;
        self.project().await;
        for (id, (generation, cursors, places)) in BOARDS.into_iter().zip(live) {
            let (rebuilt, cursors_rebuilt, places_rebuilt) = whole(&self.board(id).id).await;
            assert!(rebuilt.number > generation.number, "{id} was not rebuilt");
            assert_eq!((cursors_rebuilt, places_rebuilt), (cursors, places), "{id}");
        }
        assert_eq!(self.app.verify(None).await.unwrap().differing, 0);
    }

    fn sql_instant(&self, at: Option<Timestamp>) -> String {
        match (at, &self.stack.postgres) {
            (None, _) => "NULL".to_owned(),
            (Some(at), Some(_)) => format!("TIMESTAMPTZ '{at}'"),
            (Some(at), None) => (at.as_ms() * 1_000).to_string(),
        }
    }
}

/// Whether results are missing, which nobody writes before the ledger has caught up.
async fn needs_close(app: &App) -> bool {
    let now = app.now();
    for definition in &app.definitions().boards {
        let board = &definition.board;
        let Some(before) = board.period_before(&board.period_at(now)) else { continue };
        if !app.ledger().has_results(&board.id, &before.key).await.unwrap() {
            return true;
        }
    }
    false
}

fn nth(n: usize) -> ProductId {
    product(&format!("p{n}"))
}

fn sql_text(text: Option<&str>) -> String {
    text.map_or("NULL".to_owned(), |text| format!("'{text}'"))
}
