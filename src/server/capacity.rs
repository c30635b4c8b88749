//! What all callers together may hold of this server: connections, requests in flight, and bytes of bodies.
//!
//! Invariant: what is held is given back when its place is dropped, however a request or connection ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::Limits;
use super::peers::{Proxies, block, is_public};
use crate::graphql::errors::Failure;
use crate::pipeline::Metrics;

/// Bytes of a body that are not counted: a page's operation with its variables. So those who hold large bodies take nothing
/// from those who click.
const SMALL_BODY_LEN: usize = 16 << 10;
/// Of connections one address, and of bodies all who are not signed in, may hold no more than this part.
const SHARE: usize = 4;

pub struct Capacity {
    in_flight: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    strangers_bodies: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    most: Most,
    /// Connections of each public address, or network of IPv6.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    /// Which may hold as many as there are: everybody comes through them.
    proxies: Proxies,
    metrics: Arc<Metrics>,
}

struct Most {
    in_flight: usize,
    bodies_len: usize,
    connections: usize,
}

/// How much of each is taken.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    pub in_flight: usize,
    pub bodies_len: usize,
    pub connections: usize,
}

impl Capacity {
    pub fn new(limits: &Limits, proxies: Proxies, metrics: Arc<Metrics>) -> Arc<Self> {
        let most = Most { in_flight: limits.in_flight, bodies_len: limits.bodies_len, connections: limits.connections };
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Arc::new(Self {
            in_flight: semaphore(most.in_flight),
            bodies: semaphore(most.bodies_len),
            strangers_bodies: semaphore(most.bodies_len / SHARE),
            connections: semaphore(most.connections),
            most,
            by_address: Mutex::default(),
            proxies,
            metrics,
        })
    }

    /// A place for a query or mutation, if there is one.
    pub fn request(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = self.in_flight.clone().try_acquire_owned();
        permit.map_err(|_| {
            self.metrics.limited("in_flight");
            Failure::Overloaded { limit: "requestsInFlight", value: self.most.in_flight }
        })
    }

    /// Room for a body, which is empty yet.
    pub fn body(&self, is_strangers: bool) -> BodyRoom {
        let pools = [Some(&self.bodies), is_strangers.then_some(&self.strangers_bodies)].into_iter().flatten();
        let pools = pools.map(|pool| (pool.clone(), None)).collect();
        BodyRoom { pools, counted: 0, most: self.most.bodies_len, metrics: self.metrics.clone() }
    }

    /// A place for a connection, if there is one left, and its address has not taken its part of them. Private addresses may
    /// be proxies.
    pub fn connection(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPlace> {
        let place = self.place(peer);
        if place.is_none() {
            self.metrics.limited("connections");
        }
        place
    }

    fn place(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPlace> {
        let permit = self.connections.clone().try_acquire_owned().ok()?;
        let peer = peer.to_canonical();
        let address = (is_public(peer) && !self.proxies.trusts(peer)).then(|| block(peer));
        if let Some(address) = address {
            let mut by_address = self.by_address.lock().expect("no panic happens under this lock");
            let count = by_address.entry(address).or_default();
            if *count >= (self.most.connections / SHARE).max(1) {
                return None;
            }
            *count += 1;
        }
        Some(ConnectionPlace { capacity: self.clone(), address, _permit: permit })
    }

    pub fn taken(&self) -> Taken {
        Taken {
            in_flight: self.most.in_flight - self.in_flight.available_permits(),
            bodies_len: self.most.bodies_len - self.bodies.available_permits(),
            connections: self.most.connections - self.connections.available_permits(),
        }
    }
}

/// Room that a body holds. Dropping it gives the room back.
pub struct BodyRoom {
    /// Of which it takes room, and what it has taken.
    pools: Vec<(Arc<Semaphore>, Option<OwnedSemaphorePermit>)>,
    counted: usize,
    most: usize,
    metrics: Arc<Metrics>,
}

impl BodyRoom {
    /// Makes room for `len` bytes in all.
    pub fn grow_to(&mut self, len: usize) -> Result<(), Failure> {
        let more = len.saturating_sub(SMALL_BODY_LEN).saturating_sub(self.counted);
        let full = || {
            self.metrics.limited("bodies");
            Failure::Overloaded { limit: "bodiesLength", value: self.most }
        };
        let permits = u32::try_from(more).map_err(|_| full())?;
        for (pool, held) in &mut self.pools {
            let permits = pool.clone().try_acquire_many_owned(permits).map_err(|_| full())?;
            match held {
                Some(held) => held.merge(permits),
                None => *held = Some(permits),
            }
        }
        self.counted += more;
        Ok(())
    }
}

/// A connection's place. Dropping it gives the place back.
pub struct ConnectionPlace {
    capacity: Arc<Capacity>,
    address: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut by_address = self.capacity.by_address.lock().expect("no panic happens under this lock");
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(in_flight: usize, bodies_len: usize, connections: usize) -> Arc<Capacity> {
        Capacity::new(
            &Limits { in_flight, bodies_len, connections, ..Limits::default() },
            Proxies::default(),
            Arc::default(),
        )
    }

    #[test]
    fn places_are_given_back() {
        let capacity = capacity(2, 0, 8);
        let first = capacity.request().unwrap();
        let _second = capacity.request().unwrap();
        assert_eq!(capacity.request().err(), Some(Failure::Overloaded { limit: "requestsInFlight", value: 2 }));
        drop(first);
        assert!(capacity.request().is_ok());
        assert_eq!(capacity.taken().in_flight, 1);
    }

    #[test]
    fn one_address_takes_no_more_than_its_part_of_the_connections() {
        let capacity = capacity(1, 0, 8);
        let from = |text: &str| capacity.connection(text.parse().unwrap());
        let held = [from("203.0.113.1"), from("203.0.113.1")];
        assert!(
            held.iter().all(Option::is_some) && from("203.0.113.1").is_none() && from("::ffff:203.0.113.1").is_none()
        );
        let others: Vec<_> = (0..6).map(|_| from("10.0.0.1").unwrap()).collect();
        assert!(from("203.0.113.2").is_none(), "all are taken");
        drop(others);
        assert!(from("203.0.113.2").is_some() && from("203.0.113.1").is_none());
        drop(held);
        assert!(from("203.0.113.1").is_some());
        assert!(capacity.by_address.lock().unwrap().is_empty());
        assert_eq!(capacity.taken().connections, 0);
    }

    #[test]
    fn large_bodies_share_what_there_is_and_small_ones_always_fit() {
        let capacity = capacity(1, 100_000, 1);
        let grown = |is_strangers, len| {
            let mut body = capacity.body(is_strangers);
            body.grow_to(len).map(|()| body)
        };
        let mut importer = grown(false, 50_000).unwrap();
        importer.grow_to(60_000).unwrap();
        assert_eq!(capacity.taken().bodies_len, 60_000 - SMALL_BODY_LEN);
        let stranger = grown(true, SMALL_BODY_LEN + 25_000).unwrap();
        assert!(grown(true, SMALL_BODY_LEN + 1).is_err(), "strangers have a part of it");
        assert!(grown(false, SMALL_BODY_LEN + 31_385).is_err());
        let _page = grown(true, SMALL_BODY_LEN).unwrap();
        drop(stranger);
        assert!(grown(true, SMALL_BODY_LEN + 1).is_ok() && grown(false, SMALL_BODY_LEN + 50_000).is_ok());
        drop(importer);
        assert_eq!((capacity.taken().bodies_len, capacity.strangers_bodies.available_permits()), (0, 25_000));
    }
}
