//! How many live connections (WebSockets and event streams) a user, and an address, may hold.
//!
//! Invariant: a place is given back when its [`Admitted`] is dropped, however the connection ends.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use super::limits::Limits;
use crate::domain::UserId;
use crate::graphql::errors::Failure;

/// The connections of one server.
pub struct Admission {
    per_user: usize,
    per_address: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_user: HashMap<UserId, usize>,
    by_address: HashMap<IpAddr, usize>,
}

impl Admission {
    pub fn new(limits: &Limits) -> Arc<Self> {
        Self::of(limits.connections_per_user, limits.connections_per_address)
    }

    /// For a server on loopback, where everyone has the same address and nobody has to prove a name.
    pub fn unlimited() -> Arc<Self> {
        Self::of(0, 0)
    }

    fn of(per_user: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { per_user, per_address, held: Mutex::default() })
    }

    /// A place for a connection from an address, if it has one left.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Failure> {
        let mut admitted = Admitted { admission: self.clone(), address: None, user: None };
        if self.per_address > 0 {
            let block = block(address);
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
}

impl Admitted {
    /// Counts the connection as one of this user's too, once it is known whose it is.
    pub fn sign_in(&mut self, user: &UserId) -> Result<(), Failure> {
        if self.admission.per_user > 0 && self.user.is_none() {
            let mut held = self.admission.held.lock().expect("no panic happens under this lock");
            take(&mut held.by_user, user, self.admission.per_user)
                .map_err(|full| full("connectionsPerUser", "this user has too many live connections"))?;
            self.user = Some(user.clone());
        }
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut held = self.admission.held.lock().expect("no panic happens under this lock");
        if let Some(address) = &self.address {
            give_back(&mut held.by_address, address);
        }
        if let Some(user) = &self.user {
            give_back(&mut held.by_user, user);
        }
    }
}

/// Who has one IPv6 address has the 64 bits behind its network's too (RFC 4291, section 2.5.4).
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
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

fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
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
        let admission = Admission::of(1, 2);
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
        let admission = Admission::of(0, 1);
        let _held = admission.admit(address("2001:db8::1")).unwrap();
        assert_eq!(limit(admission.admit(address("2001:db8::ffff:1"))), "connectionsPerAddress");
        assert_eq!(limit(admission.admit(address("2001:db8:0:1::1"))), "none");
        let _mapped = admission.admit(address("::ffff:203.0.113.1")).unwrap();
        assert_eq!(limit(admission.admit(address("203.0.113.1"))), "connectionsPerAddress");
    }

    #[test]
    fn zero_means_no_limit() {
        let admission = Admission::unlimited();
        let mut held: Vec<_> = (0..1_000).map(|_| admission.admit(address("127.0.0.1")).unwrap()).collect();
        let ann = UserId::new("ann").unwrap();
        assert!(held.iter_mut().all(|admitted| admitted.sign_in(&ann).is_ok()));
    }
}
