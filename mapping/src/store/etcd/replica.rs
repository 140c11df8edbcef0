//! What this Map-Server knows of the common state: which revision of each key it has, which keys it is changing itself: pure.
//!
//! A change by another Map-Server is told once, and never while an own change of the same key is under way, since only the outcome of that
//! says which of the two is the later one.

use std::collections::{HashMap, HashSet, VecDeque};

use super::transaction::{Current, Key, NONCES, Outcome, Part, Value};

/// A change to tell the state machine.
pub(super) type Told = (Key, Value);

/// The revisions of every key.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// Revision of the last change known; negative for a key that is gone, until no older change of it can arrive any more.
    known: HashMap<Key, i64>,
    gone: VecDeque<(i64, Key)>,
    pending: HashMap<Key, Pending>,
    /// Keys whose last change was not taken: the state machine has them otherwise than etcd.
    stale: HashSet<Key>,
    /// Changes told so far, and of the keys told last the number of the telling.
    told: u64,
    to_tell: VecDeque<Told>,
    recent: HashMap<Key, u64>,
    recent_order: VecDeque<(u64, Key)>,
    /// Every change up to here was seen.
    position: i64,
}

/// A key with own changes under way.
#[derive(Debug, Default)]
struct Pending {
    changes: u32,
    /// Something was told meanwhile that the own changes come after.
    crossed: bool,
    /// What others did to it meanwhile.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    revision: i64,
    value: Value,
    /// The state machine has it otherwise, whatever the revision.
    forced: bool,
}

impl Replica {
    /// The revision of `key` for a change that was decided after `seen` changes were told: 0 = there is none, -1 = the key has changed since.
    pub(super) fn revision(&self, key: &[u8], seen: u64) -> i64 {
        if self.recent.get(key).is_some_and(|&number| number > seen) {
            return -1;
        }
        self.known.get(key).copied().unwrap_or(0).max(0)
    }

    /// How many changes were told.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// The next change to tell the state machine.
    pub(super) fn poll_told(&mut self) -> Option<Told> {
        self.to_tell.pop_front()
    }

    /// Changes of this part, decided after `seen` changes were told, are under way.
    pub(super) fn begin(&mut self, part: &Part, seen: u64) {
        for (key, _) in &part.changes {
            // The state machine takes what it was told last after its own change, though that one counts.
            let crossed = self.recent.get(key).is_some_and(|&number| number > seen);
            let pending = self.pending.entry(key.clone()).or_default();
            pending.changes += 1;
            pending.crossed |= crossed;
            self.stale.remove(key);
        }
    }

    /// They ended.
    pub(super) fn end(&mut self, part: &Part, outcome: Outcome) {
        match outcome {
            Outcome::Kept(revisions) => {
                for ((key, value), revision) in part.changes.iter().zip(revisions) {
                    self.know(key, value.is_some(), revision);
                    if self.pending.get(key).is_some_and(|pending| pending.crossed) {
                        self.hold(key, Held { revision, value: value.clone(), forced: true });
                    }
                    self.resolve(key);
                }
            }
            Outcome::Refused(current) => {
                let mut current: HashMap<Key, Current> =
                    current.into_iter().map(|current| (current.key.clone(), current)).collect();
                for (key, _) in &part.changes {
                    if let Some(Current { value, revision, .. }) = current.remove(key) {
                        self.hold(key, Held { revision, value, forced: true });
                    }
                    self.resolve(key);
                }
            }
        }
    }

    /// A key at the start, before anything else.
    pub(super) fn load(&mut self, key: Key, revision: i64) {
        self.known.insert(key, revision);
    }

    /// A change that etcd told.
    pub(super) fn observe(&mut self, key: Key, value: Value, revision: i64) {
        self.take(key, value, revision, false);
    }

    /// Every change up to `revision` was observed.
    pub(super) fn advance(&mut self, revision: i64) {
        self.position = self.position.max(revision);
        while self.gone.front().is_some_and(|(at, _)| *at <= self.position) {
            if let Some((at, key)) = self.gone.pop_front()
                && self.known.get(&key) == Some(&-at)
            {
                self.known.remove(&key);
            }
        }
    }

    /// A key of a listing of the state at one revision.
    pub(super) fn list(&mut self, key: Key, value: Vec<u8>, revision: i64) {
        let stale = self.stale.contains(&key);
        self.take(key, Some(value), revision, stale);
    }

    /// The listing of the state at `revision` had the keys `listed` and no other.
    pub(super) fn listed(&mut self, listed: &HashSet<Key>, revision: i64) {
        let mut missing: Vec<Key> = self
            .known
            .keys()
            .chain(&self.stale)
            .filter(|k| !listed.contains(*k))
            .cloned()
            .collect();
        missing.sort_unstable();
        missing.dedup();
        for key in missing {
            let stale = self.stale.contains(&key);
            self.take(key, None, revision, stale);
        }
        self.advance(revision);
    }

    /// A change of `key` was given up before it was begun.
    pub(super) fn lost(&mut self, key: Key) {
        self.stale.insert(key);
    }

    /// Whether the state machine has keys otherwise than etcd.
    pub(super) fn is_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// The state machine has been given the first `seen` of the told changes.
    pub(super) fn seen(&mut self, seen: u64) {
        while self.recent_order.front().is_some_and(|(number, _)| *number <= seen) {
            if let Some((number, key)) = self.recent_order.pop_front()
                && self.recent.get(&key) == Some(&number)
            {
                self.recent.remove(&key);
            }
        }
    }

    /// Keys that there are.
    pub(super) fn len(&self) -> usize {
        self.known.len().saturating_sub(self.gone.len())
    }

    fn take(&mut self, key: Key, value: Value, revision: i64, forced: bool) {
        let known = self.known.get(&key).map_or(0, |known| known.abs());
        if revision <= known && !(forced && revision == known) {
            return;
        }
        let held = Held { revision, value, forced };
        if self.pending.contains_key(&key) {
            return self.hold(&key, held);
        }
        self.tell(&key, held);
    }

    fn hold(&mut self, key: &Key, held: Held) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        match &mut pending.held {
            Some(before) if before.revision > held.revision => before.forced |= held.forced,
            slot => *slot = Some(held),
        }
    }

    /// One own change of `key` ended; with the last one, what others did later counts.
    fn resolve(&mut self, key: &Key) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        pending.changes = pending.changes.saturating_sub(1);
        if pending.changes > 0 {
            return;
        }
        let held = self.pending.remove(key).and_then(|pending| pending.held);
        let known = self.known.get(key).map_or(0, |known| known.abs());
        if let Some(held) = held
            && (held.revision > known || (held.forced && held.revision == known))
        {
            self.tell(key, held);
        }
    }

    fn know(&mut self, key: &Key, exists: bool, revision: i64) {
        if self.known.get(key).is_some_and(|known| known.abs() > revision) {
            return;
        }
        if exists {
            self.known.insert(key.clone(), revision);
        } else if revision <= self.position {
            self.known.remove(key);
        } else {
            self.known.insert(key.clone(), -revision);
            self.gone.push_back((revision, key.clone()));
        }
    }

    fn tell(&mut self, key: &Key, held: Held) {
        self.know(key, held.value.is_some(), held.revision);
        self.stale.remove(key);
        if held.forced && key.first() == Some(&NONCES) && held.value.is_some() {
            // A message that was refused must not be known again as one that was accepted (AU-18).
            self.told += 1;
            self.to_tell.push_back((key.clone(), None));
        }
        self.told += 1;
        self.recent.insert(key.clone(), self.told);
        self.recent_order.push_back((self.told, key.clone()));
        self.to_tell.push_back((key.clone(), held.value));
    }
}
