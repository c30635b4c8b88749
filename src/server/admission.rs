//! How many live connections (WebSockets and event streams) a user, and an address, may hold, and how many single products a
//! caller may follow over all of them.
//!
//! Invariant: a place is given back when its [`Admitted`] is dropped, however the connection ends; and what is followed when its
//! [`Following`] is.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::limits::Limits;
use super::peers::block;
use crate::domain::UserId;
use crate::graphql::errors::Failure;
use crate::live::FOLLOWED_PER_CALLER_MAX;

/// The connections of one server.
pub struct Admission {
    per_user: usize,
    per_address: usize,
    /// Whether who is not signed in is known by an address. Behind a proxy all have the same, and each connection is taken for
    /// another caller.
    knows_addresses: bool,
    /// So far.
    connections: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_user: HashMap<UserId, usize>,
    by_address: HashMap<IpAddr, usize>,
    followed: HashMap<Follower, usize>,
}

/// Who follows products.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Follower {
    User(UserId),
    Address(IpAddr),
    Connection(u64),
}

impl Admission {
    pub fn new(limits: &Limits) -> Arc<Self> {
        let knows_addresses = limits.connections_per_address > 0;
        Self::of(limits.connections_per_user, limits.connections_per_address, knows_addresses)
    }

    /// For a server on loopback, where everyone has the same address and nobody has to prove a name.
    pub fn unlimited() -> Arc<Self> {
        Self::of(0, 0, true)
    }

    fn of(per_user: usize, per_address: usize, knows_addresses: bool) -> Arc<Self> {
        let (connections, held) = (AtomicU64::default(), Mutex::default());
        Arc::new(Self { per_user, per_address, knows_addresses, connections, held })
    }

    /// A place for a connection from an address, if it has one left.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Failure> {
        let (block, connection) = (block(address), self.connections.fetch_add(1, Ordering::Relaxed));
        let follower = if self.knows_addresses { Follower::Address(block) } else { Follower::Connection(connection) };
        let mut admitted = Admitted { admission: self.clone(), address: None, user: None, follower };
        if self.per_address > 0 {
            let mut held = self.held.lock().expect("no panic happens under this lock");
            take(&mut held.by_address, &block, self.per_address)
                .map_err(|full| full("connectionsPerAddress", "this address has too many live connections"))?;
            admitted.address = Some(block);
        }
        Ok(admitted)
    }
}

/// A connection's place. Dropping it gives the place back.
pub struct Admitted {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
    user: Option<UserId>,
    follower: Follower,
}

impl Admitted {
    /// Counts the connection as one of this user's too, once it is known whose it is.
    pub fn sign_in(&mut self, user: &UserId) -> Result<(), Failure> {
        self.follower = Follower::User(user.clone());
        if self.admission.per_user > 0 && self.user.is_none() {
            let mut held = self.admission.held.lock().expect("no panic happens under this lock");
            take(&mut held.by_user, user, self.admission.per_user)
                .map_err(|full| full("connectionsPerUser", "this user has too many live connections"))?;
            self.user = Some(user.clone());
        }
        Ok(())
    }
}

impl Admitted {
    /// What the connection's caller follows, to be counted where the connection's operations run.
    pub fn follows(&self) -> Follows {
        Follows { admission: self.admission.clone(), follower: self.follower.clone() }
    }
}

/// A caller's count of followed products.
#[derive(Clone)]
pub struct Follows {
    admission: Arc<Admission>,
    follower: Follower,
}

impl Follows {
    /// Counts `count` more, if the caller may follow so many.
    pub fn more(&self, count: usize) -> Result<Following, Failure> {
        let mut held = self.admission.held.lock().expect("no panic happens under this lock");
        let followed = held.followed.get(&self.follower).copied().unwrap_or(0);
        if followed + count > FOLLOWED_PER_CALLER_MAX {
            let message = "you follow as many single products as one caller may";
            return Err(Failure::too_many("followedProductsPerCaller", FOLLOWED_PER_CALLER_MAX, message));
        }
        if count > 0 {
            held.followed.insert(self.follower.clone(), followed + count);
        }
        Ok(Following { follows: self.clone(), count })
    }
}

/// Products that a caller follows. Dropping it gives them back.
pub struct Following {
    follows: Follows,
    count: usize,
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut held = self.follows.admission.held.lock().expect("no panic happens under this lock");
        give_back(&mut held.followed, &self.follows.follower, self.count);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut held = self.admission.held.lock().expect("no panic happens under this lock");
        if let Some(address) = &self.address {
            give_back(&mut held.by_address, address, 1);
        }
        if let Some(user) = &self.user {
            give_back(&mut held.by_user, user, 1);
        }
    }
}

/// One more for a key, or what makes the failure.
fn take<K: Hash + Eq + Clone>(
    counts: &mut HashMap<K, usize>,
    key: &K,
    most: usize,
) -> Result<(), impl FnOnce(&'static str, &str) -> Failure + use<K>> {
    let count = counts.entry(key.clone()).or_default();
    if *count >= most {
        return Err(move |limit, message: &str| Failure::too_many(limit, most, message));
    }
    *count += 1;
    Ok(())
}

fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K, given: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count -= given;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limit<T>(result: Result<T, Failure>) -> &'static str {
        match result {
            Ok(_) => "none",
            Err(Failure::LimitExceeded { limit, .. }) => limit,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn places_are_given_back() {
        let admission = Admission::of(1, 2, true);
        let (home, away) = (address("203.0.113.1"), address("203.0.113.2"));
        let ann = UserId::new("ann").unwrap();
        let mut first = admission.admit(home).unwrap();
        let second = admission.admit(home).unwrap();
        assert_eq!(limit(admission.admit(home)), "connectionsPerAddress");
        let mut third = admission.admit(away).unwrap();
        assert_eq!(limit(first.sign_in(&ann)), "none");
        assert_eq!(limit(first.sign_in(&ann)), "none", "the same connection");
        assert_eq!(limit(third.sign_in(&ann)), "connectionsPerUser");
        drop((first, second));
        assert_eq!(limit(third.sign_in(&ann)), "none");
        drop(third);
        let held = admission.held.lock().unwrap();
        assert!(held.by_user.is_empty() && held.by_address.is_empty(), "nothing is kept of whoever has gone");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let admission = Admission::of(0, 1, true);
        let _held = admission.admit(address("2001:db8::1")).unwrap();
        assert_eq!(limit(admission.admit(address("2001:db8::ffff:1"))), "connectionsPerAddress");
        assert_eq!(limit(admission.admit(address("2001:db8:0:1::1"))), "none");
        let _mapped = admission.admit(address("::ffff:203.0.113.1")).unwrap();
        assert_eq!(limit(admission.admit(address("203.0.113.1"))), "connectionsPerAddress");
    }

    #[test]
    fn what_a_caller_follows_is_counted_over_all_its_connections() {
        let admission = Admission::of(0, 9, true);
        let (home, away) = (address("203.0.113.1"), address("203.0.113.2"));
        let [first, second, other] = [home, home, away].map(|from| admission.admit(from).unwrap());
        let mut signed_in = admission.admit(home).unwrap();
        signed_in.sign_in(&UserId::new("ann").unwrap()).unwrap();
        let all = first.follows().more(FOLLOWED_PER_CALLER_MAX).unwrap();
        assert_eq!(limit(second.follows().more(1)), "followedProductsPerCaller");
        assert_eq!(limit(second.follows().more(0)), "none");
        for stranger in [&other, &signed_in] {
            assert_eq!(limit(stranger.follows().more(FOLLOWED_PER_CALLER_MAX)), "none");
        }
        // It is the subscription that counts, and not the connection.
        drop(first);
        assert_eq!(limit(second.follows().more(1)), "followedProductsPerCaller");
        drop(all);
        assert_eq!(limit(second.follows().more(FOLLOWED_PER_CALLER_MAX)), "none");
        assert!(admission.held.lock().unwrap().followed.is_empty());
    }

    #[test]
    fn behind_a_proxy_each_connection_is_a_caller() {
        let admission = Admission::of(0, 0, false);
        let [first, second] = [(); 2].map(|()| admission.admit(address("203.0.113.1")).unwrap());
        let _all = first.follows().more(FOLLOWED_PER_CALLER_MAX).unwrap();
        assert_eq!(limit(first.follows().more(1)), "followedProductsPerCaller");
        assert_eq!(limit(second.follows().more(1)), "none");
    }

    #[test]
    fn zero_means_no_limit() {
        let admission = Admission::unlimited();
        let mut held: Vec<_> = (0..1_000).map(|_| admission.admit(address("127.0.0.1")).unwrap()).collect();
        let ann = UserId::new("ann").unwrap();
        assert!(held.iter_mut().all(|admitted| admitted.sign_in(&ann).is_ok()));
    }
}
