//! A map whose entries go when their time is up.
//!
//! An entry counts as gone from its time on, by the caller's clock; its memory follows within another span of the same
//! length, because every write clears away a few that are due. Invariant: each key stands once in `due`.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::domain::Timestamp;

/// A write adds one key at most, so clearing two a write keeps up, and no single write is long.
const CLEARED_PER_WRITE: usize = 2;

pub struct Expiring<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// When to look at a key. A key that was kept longer in the meantime is put back with its new time.
    due: VecDeque<(Timestamp, K)>,
}

struct Slot<V> {
    until: Timestamp,
    /// `None` where it was taken out before its time.
    value: Option<V>,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { slots: HashMap::new(), due: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Expiring<K, V> {
    /// Every key that stands here, some of which may be gone.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.slots.keys()
    }

    pub fn get<Q>(&self, key: &Q, at: Timestamp) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slots.get(key).filter(|slot| at < slot.until)?.value.as_ref()
    }

    /// The value, to be changed, and its time, to be set anew.
    pub fn get_mut<Q>(&mut self, key: &Q, at: Timestamp) -> Option<(&mut V, &mut Timestamp)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Slot { until, value } = self.slots.get_mut(key).filter(|slot| at < slot.until)?;
        Some((value.as_mut()?, until))
    }

    /// Puts a value in, in place of the one there was.
    pub fn put(&mut self, key: K, value: V, at: Timestamp, until: Timestamp) {
        let slot = Slot { until, value: Some(value) };
        if self.slots.insert(key.clone(), slot).is_none() {
            self.due.push_back((until, key));
        }
        self.clear_due(at);
    }

    /// Takes a value out if it meets a condition.
    pub fn take_if<Q>(&mut self, key: &Q, condition: impl FnOnce(&V) -> bool)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.value.take_if(|value| condition(value));
        }
    }

    fn clear_due(&mut self, at: Timestamp) {
        for _ in 0..CLEARED_PER_WRITE {
            let Some((_, key)) = self.due.pop_front_if(|(due, _)| *due <= at) else { return };
            match self.slots.get(&key) {
                Some(Slot { until, value: Some(_) }) if at < *until => self.due.push_back((*until, key)),
                _ => drop(self.slots.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_is_in_use() {
        let mut map = Expiring::default();
        let at = Timestamp::from_ms;
        for ms in 0..10_000 {
            map.put(ms, (), at(ms), at(ms + 100));
            assert_eq!(map.get(&ms, at(ms + 99)), Some(&()));
            assert_eq!(map.get(&ms, at(ms + 100)), None);
            assert!(map.slots.len() <= 102 && map.due.len() == map.slots.len(), "{} at {ms}", map.slots.len());
        }
    }

    #[test]
    fn what_is_touched_stays_and_has_one_place_in_the_queue() {
        let mut map = Expiring::default();
        let at = Timestamp::from_ms;
        map.put("kept", 0, at(0), at(100));
        for ms in 0..10_000 {
            let (value, until) = map.get_mut("kept", at(ms)).expect("touched all the time");
            *value += 1;
            *until = at(ms + 100);
            map.put("again", 1, at(ms), at(ms + 100));
            map.take_if("again", |_| true);
            assert_eq!(map.get("again", at(ms)), None);
            assert!(map.due.len() <= 2 && map.slots.len() <= 2);
        }
        assert_eq!(map.get("kept", at(10_000)), Some(&10_000));
        assert_eq!(map.get("kept", at(10_099)), None);
    }
}
