//! What one caller may take of this server: a bucket of units that fills at a steady rate.
//!
//! A unit is 10 µs of the time of server and stores. A caller is a user, or, where nobody is signed in, an address.
//! Invariant: nobody takes more than a bucket at once, nor more than its rate for long; and what is kept of a caller goes
//! when its bucket is full again, so that a crowd of callers that come once leaves nothing behind.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::auth::Identity;
use super::limits::Limits;
use super::peers::{Proxies, block};
use crate::domain::UserId;
use crate::graphql::errors::Failure;
use crate::graphql::guards::Role;

/// Units of a request, whatever it asks for: reading it, finding out who calls, writing the answer.
pub const REQUEST: u64 = 5;
/// Units of a message on a socket that asks for nothing.
pub const MESSAGE: u64 = 1;
/// Reading JSON of so many bytes takes a unit.
const BYTES_PER_UNIT: u64 = 1_000;
/// Whoever records events or administers does so for a whole shop: an import of 10,000 events a second stays below it.
const TRUSTED_FACTOR: u64 = 10;
/// The longest that a debt lasts: a page left open overnight does not lock its user out in the morning.
const DEBT_MAX: Duration = Duration::from_secs(10);
/// Callers that are looked through at the least, to forget those whose buckets are full.
const SWEPT_MIN: usize = 1_000;

/// Who pays for a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payer {
    who: Who,
    is_trusted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    User(UserId),
    Address(IpAddr),
}

impl Payer {
    /// `None` where nobody can be told from others: an address that may be a proxy's, and nobody signed in. A name that
    /// nobody has to prove is none.
    pub fn of(identity: &Identity, is_proved: bool, address: IpAddr, proxies: &Proxies) -> Option<Self> {
        let who = match &identity.caller.user {
            Some(user) if is_proved => Who::User(user.clone()),
            _ => Who::Address(proxies.tells_callers_apart(address).then(|| block(address))?),
        };
        let is_trusted =
            is_proved && identity.caller.roles.iter().any(|role| matches!(role, Role::Ingest | Role::Admin));
        Some(Self { who, is_trusted })
    }

    fn units(&self, units: u64) -> u64 {
        if self.is_trusted { units.div_ceil(TRUSTED_FACTOR) } else { units }
    }
}

/// Units of reading JSON of so many bytes.
pub fn of_bytes(len: usize) -> u64 {
    len as u64 / BYTES_PER_UNIT
}

/// All callers' buckets.
pub struct Budgets {
    /// Units a second; 0 for no limit.
    rate: u64,
    burst: u64,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// When each will be full; those that are not here are.
    full_at: HashMap<Who, Instant>,
    /// How many were left when they were last looked through.
    swept: usize,
}

impl Budgets {
    pub fn new(limits: &Limits) -> Self {
        Self { rate: limits.budget_rate, burst: limits.budget_burst, buckets: Mutex::default() }
    }

    /// Takes units from a caller's bucket, or says when there will be so many.
    pub fn take(&self, payer: Option<&Payer>, units: u64) -> Result<(), Failure> {
        let Some(payer) = payer.filter(|_| self.rate > 0) else { return Ok(()) };
        // More than a bucket holds would never be there.
        let units = payer.units(units).min(self.burst);
        let (now, whole) = (Instant::now(), self.fills_in(self.burst));
        let mut buckets = self.buckets.lock().expect("no panic happens under this lock");
        let full_at = buckets.full_at(&payer.who, now) + self.fills_in(units);
        let wait = (full_at - now).saturating_sub(whole);
        if !wait.is_zero() {
            return Err(Failure::OverBudget { retry_after_ms: wait.as_millis().try_into().unwrap_or(u64::MAX).max(1) });
        }
        buckets.fill_at(&payer.who, full_at, now);
        Ok(())
    }

    /// Takes units for what has been done already, and says how long the caller has to pause if there were not so many.
    pub fn owe(&self, payer: Option<&Payer>, units: u64) -> Option<Duration> {
        let payer = payer.filter(|_| self.rate > 0)?;
        let (now, whole) = (Instant::now(), self.fills_in(self.burst));
        let mut buckets = self.buckets.lock().expect("as above");
        let full_at = buckets.full_at(&payer.who, now) + self.fills_in(payer.units(units));
        let full_at = full_at.min(now + whole + DEBT_MAX);
        buckets.fill_at(&payer.who, full_at, now);
        Some((full_at - now).saturating_sub(whole)).filter(|pause| !pause.is_zero())
    }

    /// How many callers are known at present.
    pub fn callers(&self) -> usize {
        self.buckets.lock().expect("as above").full_at.len()
    }

    fn fills_in(&self, units: u64) -> Duration {
        Duration::from_nanos(units.saturating_mul(1_000_000_000) / self.rate)
    }
}

impl Buckets {
    fn full_at(&self, who: &Who, now: Instant) -> Instant {
        self.full_at.get(who).copied().unwrap_or(now).max(now)
    }

    fn fill_at(&mut self, who: &Who, full_at: Instant, now: Instant) {
        match self.full_at.get_mut(who) {
            Some(known) => *known = full_at,
            None => {
                self.full_at.insert(who.clone(), full_at);
                self.sweep(now);
            }
        }
    }

    /// Forgets full ones once there are twice as many as were left last time, so that each is looked at once on average.
    fn sweep(&mut self, now: Instant) {
        if self.full_at.len() > SWEPT_MIN.max(2 * self.swept) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.full_at.shrink_to(SWEPT_MIN);
            self.swept = self.full_at.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::graphql::guards::Caller;

    fn budgets(rate: u64, burst: u64) -> Budgets {
        Budgets::new(&Limits { budget_rate: rate, budget_burst: burst, ..Limits::default() })
    }

    fn payer(user: Option<&str>, roles: &[Role], address: &str) -> Option<Payer> {
        let user = user.map(|user| UserId::new(user).unwrap());
        let caller = Caller { user, roles: roles.to_vec(), producer: None };
        let identity = Identity::lasting(caller);
        Payer::of(&identity, true, address.parse().unwrap(), &Proxies::default())
    }

    fn retry(result: Result<(), Failure>) -> Option<u64> {
        match result {
            Ok(()) => None,
            Err(Failure::OverBudget { retry_after_ms }) => Some(retry_after_ms),
            Err(other) => panic!("{other}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_is_emptied_and_fills_again() {
        let budgets = budgets(1_000, 5_000);
        let ann = payer(Some("ann"), &[Role::User], "203.0.113.1");
        assert_eq!(retry(budgets.take(ann.as_ref(), 5_000)), None);
        assert_eq!(retry(budgets.take(ann.as_ref(), 500)), Some(500));
        advance(Duration::from_millis(499)).await;
        assert_eq!(retry(budgets.take(ann.as_ref(), 500)), Some(1));
        advance(Duration::from_millis(1)).await;
        assert_eq!(retry(budgets.take(ann.as_ref(), 500)), None);
        advance(Duration::from_secs(5)).await;
        assert_eq!(retry(budgets.take(ann.as_ref(), 1_000_000)), None, "a full bucket pays for anything");
        advance(Duration::from_secs(3_600)).await;
        assert_eq!(retry(budgets.take(ann.as_ref(), 5_000)), None);
        assert_eq!(retry(budgets.take(ann.as_ref(), 1)), Some(1), "and never holds more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_owes_pauses() {
        let budgets = budgets(1_000, 1_000);
        let ann = payer(Some("ann"), &[Role::User], "203.0.113.1");
        assert_eq!(budgets.owe(ann.as_ref(), 1_000), None);
        assert_eq!(budgets.owe(ann.as_ref(), 200), Some(Duration::from_millis(200)));
        advance(Duration::from_millis(300)).await;
        assert_eq!(retry(budgets.take(ann.as_ref(), 101)), Some(1));
        assert_eq!(retry(budgets.take(ann.as_ref(), 100)), None);
        assert_eq!(budgets.owe(None, 1_000_000), None);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_have_buckets_of_their_own() {
        let budgets = budgets(1_000, 1_000);
        let at_home = payer(None, &[], "2001:db8::1");
        assert_eq!(retry(budgets.take(at_home.as_ref(), 1_000)), None);
        let same_network = payer(None, &[], "2001:db8::ffff");
        assert!(retry(budgets.take(same_network.as_ref(), 1)).is_some());
        for other in [
            payer(None, &[], "2001:db8:0:1::1"),
            payer(None, &[], "203.0.113.1"),
            payer(Some("ann"), &[Role::User], "2001:db8::1"),
            payer(Some("bob"), &[Role::User], "2001:db8::1"),
        ] {
            assert_eq!(retry(budgets.take(other.as_ref(), 1_000)), None);
            assert!(retry(budgets.take(other.as_ref(), 1)).is_some());
        }
        // Whoever comes from behind the same wall can't be told apart.
        assert_eq!(payer(None, &[], "127.0.0.1"), None);
        let shop = payer(Some("shop"), &[Role::Ingest], "127.0.0.1");
        assert_eq!(retry(budgets.take(shop.as_ref(), 10_000)), None);
        assert!(retry(budgets.take(shop.as_ref(), 10)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_remembered_whose_bucket_is_full() {
        let budgets = budgets(1_000, 1_000);
        for n in 0..200_000_u32 {
            let payer = payer(None, &[], &std::net::Ipv4Addr::from_bits(0xcb00_0000 + n).to_string());
            assert_eq!(retry(budgets.take(payer.as_ref(), 1)), None);
            advance(Duration::from_micros(100)).await;
        }
        assert!(budgets.callers() <= SWEPT_MIN + 1, "{}", budgets.callers());
        assert_eq!(retry(self::budgets(0, 1).take(payer(None, &[], "203.0.113.1").as_ref(), u64::MAX)), None);
    }
}
