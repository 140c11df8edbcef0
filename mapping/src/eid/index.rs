//! Where the entries of a table lie, by their hash.

use super::Slot;

/// Hashes beside slots, in open addressing with linear probing: a search costs one access to memory in most cases, and none to the
/// entries when the table grows. At most three of four places are taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// The hash in the upper half, the slot in the lower one, or [`FREE`]; a power of two of them, or none.
    places: Vec<u64>,
    len: usize,
}

/// No entry has this slot: memory ends long before.
const FREE: u64 = u64::MAX;
const FIRST_PLACES: usize = 4;

impl Index {
    /// The slot with this hash for which `here` is true.
    pub(super) fn find(&self, hash: u32, here: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.position(hash, here).map(|at| slot_of(self.places[at]))
    }

    /// Adds a slot that is not in here.
    pub(super) fn insert(&mut self, hash: u32, slot: Slot) {
        if (self.len + 1) * 4 > self.places.len() * 3 {
            let room = (self.places.len() * 2).max(FIRST_PLACES);
            for place in std::mem::replace(&mut self.places, vec![FREE; room]) {
                if place != FREE {
                    self.put(place);
                }
            }
        }
        self.put(u64::from(hash) << 32 | u64::from(slot));
        self.len += 1;
    }

    /// Removes a slot.
    pub(super) fn remove(&mut self, hash: u32, slot: Slot) {
        let Some(mut hole) = self.position(hash, |other| other == slot) else { return };
        let mut at = self.after(hole);
        while self.places[at] != FREE {
            // What lies beyond the hole is found no more, unless it moves there or belongs behind it.
            if self.distance(self.home(self.places[at]), at) >= self.distance(hole, at) {
                self.places[hole] = self.places[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.places[hole] = FREE;
        self.len -= 1;
    }

    fn position(&self, hash: u32, here: impl Fn(Slot) -> bool) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.home(u64::from(hash) << 32);
        while self.places[at] != FREE {
            if self.places[at] >> 32 == u64::from(hash) && here(slot_of(self.places[at])) {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    fn put(&mut self, place: u64) {
        let mut at = self.home(place);
        while self.places[at] != FREE {
            at = self.after(at);
        }
        self.places[at] = place;
    }

    /// Where the search for the hash of `place` begins.
    fn home(&self, place: u64) -> usize {
        (place >> 32) as usize & (self.places.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    /// How far a search that begins at `from` goes to `to`.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.places.len() - 1)
    }
}

const fn slot_of(place: u64) -> Slot {
    place as Slot
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn the_index_agrees_with_a_dumb_oracle_however_hashes_crowd() {
        let mut rng = StdRng::from_seed([5; 32]);
        for crowd in [4_u32, 1_000, u32::MAX] {
            let (mut index, mut oracle) = (Index::default(), BTreeMap::new());
            for _ in 0..20_000 {
                let slot = rng.random_range(0..300);
                match oracle.remove(&slot) {
                    Some(hash) => index.remove(hash, slot),
                    None => {
                        // Close to the end of the table, so that searches go round it.
                        let hash = u32::MAX - rng.random_range(0..crowd);
                        index.insert(hash, slot);
                        oracle.insert(slot, hash);
                    }
                }
                let (asked, hash) = (rng.random_range(0..300), rng.random::<u32>());
                let known = oracle.get(&asked).copied();
                let found = index.find(known.unwrap_or(hash), |slot| slot == asked);
                assert_eq!(found, known.map(|_| asked));
                assert_eq!(index.len, oracle.len());
            }
        }
    }
}
