//! Time as a node has it: the ledger's, so that every node puts an event into the same bucket, and no period closes early
//! because one machine's clock is wrong.
//!
//! A node compares clocks each second and goes on from there by the time that has passed, so a step of its own clock changes
//! nothing. While the ledger is away the last comparison holds. With a ledger in a file there is one clock.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::{App, Clock};
use crate::domain::Timestamp;
use crate::engine::Engine;
use crate::ledger::{Ledger, LedgerKind};

/// A node whose clock is further from the ledger's does not lead: it may lose the ledger before it has compared clocks again.
const LEADS_WITHIN_MS: u64 = 1_000;
/// An answer that takes longer says too little about now, once there was a better one.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// How long a clock is waited for. It is asked each second.
const ASK_LIMIT: Duration = Duration::from_secs(1);
const UNKNOWN: i64 = i64::MIN;

/// A node's time, and how far the clocks of others are from its own.
pub struct Time {
    local: Clock,
    follows_ledger: bool,
    began: std::time::Instant,
    /// The ledger's time when `began` was.
    ledger_at_began_ms: AtomicI64,
    ledger_offset_ms: AtomicI64,
    redis_offset_ms: AtomicI64,
    is_told: AtomicBool,
}

/// How far other clocks are ahead of this node's, in milliseconds; `None` where there is none, or it was never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockOffsets {
    pub ledger_ms: Option<i64>,
    pub redis_ms: Option<i64>,
}

impl Time {
    pub fn new(local: Clock, follows_ledger: bool) -> Self {
        let [ledger_at_began_ms, ledger_offset_ms, redis_offset_ms] = [UNKNOWN; 3].map(AtomicI64::new);
        let (began, is_told) = (std::time::Instant::now(), AtomicBool::new(false));
        Self { local, follows_ledger, began, ledger_at_began_ms, ledger_offset_ms, redis_offset_ms, is_told }
    }

    pub fn now(&self) -> Timestamp {
        match self.ledger_at_began_ms.load(Ordering::Acquire) {
            UNKNOWN => (self.local)(),
            at_began => Timestamp::from_ms(at_began).plus_ms(self.began.elapsed().as_millis() as i64),
        }
    }

    pub fn offsets(&self) -> ClockOffsets {
        let known = |offset: &AtomicI64| Some(offset.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN);
        ClockOffsets { ledger_ms: known(&self.ledger_offset_ms), redis_ms: known(&self.redis_offset_ms) }
    }

    /// Whether this node's clock is so far from the ledger's that others should lead.
    fn is_off(&self) -> bool {
        self.offsets().ledger_ms.is_some_and(|offset| offset.unsigned_abs() > LEADS_WITHIN_MS)
    }

    /// Whether this node was never told the time of a ledger that has one.
    fn is_ignorant(&self, ledger: &Ledger) -> bool {
        self.follows_ledger && ledger.kind() == LedgerKind::Postgres && self.offsets().ledger_ms.is_none()
    }

    /// Compares clocks with the ledger and with Redis.
    pub async fn compare(&self, engine: &dyn Engine, ledger: &Ledger) {
        if !self.follows_ledger {
            return;
        }
        let (of_ledger, of_redis) = tokio::join!(self.ask(ledger.clock()), self.ask(engine.clock()));
        if let Some(seen) = of_redis {
            self.redis_offset_ms.store(seen.there_ms - seen.here_ms, Ordering::Relaxed);
        }
        let Some(seen) = of_ledger else { return };
        let is_known = self.ledger_at_began_ms.load(Ordering::Relaxed) != UNKNOWN;
        if is_known && seen.round_trip > ROUND_TRIP_MAX {
            return;
        }
        // First, so that whoever sees the new time sees how far off it is.
        self.ledger_offset_ms.store(seen.there_ms - seen.here_ms, Ordering::Release);
        // What agrees within its own error changes nothing, so that time does not tremble.
        let error_ms = seen.round_trip.as_millis() as u64 / 2 + 1;
        let (was, is) = (self.ledger_at_began_ms.load(Ordering::Relaxed), seen.there_ms - seen.since_began_ms);
        if !is_known || was.abs_diff(is) > error_ms {
            self.ledger_at_began_ms.store(is, Ordering::Release);
        }
        self.tell(seen.there_ms - seen.here_ms);
    }

    async fn ask<E>(&self, there: impl Future<Output = Result<Option<Timestamp>, E>>) -> Option<Seen> {
        let asked = std::time::Instant::now();
        let there_ms = timeout(ASK_LIMIT, there).await.ok()?.ok()??.as_ms();
        // Half of the way there and back has passed since that clock was read.
        let round_trip = asked.elapsed();
        let back = round_trip / 2;
        let since_began_ms = (self.began.elapsed().saturating_sub(back)).as_millis() as i64;
        Some(Seen { there_ms, here_ms: (self.local)().as_ms() - back.as_millis() as i64, since_began_ms, round_trip })
    }

    fn tell(&self, offset_ms: i64) {
        let is_off = self.is_off();
        match (is_off, self.is_told.swap(is_off, Ordering::Relaxed)) {
            (true, false) => tracing::warn!(
                offset_ms,
                "this machine's clock is over 1 s from the ledger's: buckets and periods follow the ledger's, and this server \
                 does not lead; have both follow NTP"
            ),
            (false, true) => tracing::info!(offset_ms, "this machine's clock agrees with the ledger's again"),
            _ => {}
        }
    }
}

/// Another clock and this node's at one instant.
struct Seen {
    there_ms: i64,
    here_ms: i64,
    since_began_ms: i64,
    round_trip: Duration,
}

impl App {
    /// The present time: the ledger's, as far as this node knows it.
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Whether this node may do the background work. A server whose engine is its own memory has nobody who could instead.
    pub(super) fn may_lead(&self) -> bool {
        self.engine.kind() == "memory" || !(self.time.is_off() || self.time.is_ignorant(&self.ledger))
    }
}
