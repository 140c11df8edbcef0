//! Changes that are made together or not at all, and the conditions they depend on: pure.
//!
//! Everything is written under a condition, so that a write which is repeated because its answer was lost, or which arrives late,
//! never undoes what another Map-Server did meanwhile.

use std::collections::{HashMap, HashSet};

use super::proto::{
    Compare, DeleteRangeRequest, EQUAL, LESS, MOD_REVISION, Operation, PutRequest, RangeRequest,
    RequestOp, Target, TxnRequest, TxnResponse, VALUE,
};
use crate::store::ChangeLog;

/// A key without the cluster's prefix.
pub(super) type Key = Box<[u8]>;
/// A value; `None` = no such key.
pub(super) type Value = Option<Vec<u8>>;

/// Operations that one transaction may have (etcd's own default of `max-txn-ops`).
pub(super) const MAX_OPERATIONS: usize = 128;
/// Octets of keys and values that one transaction may have: less than etcd's default of 1.5 MiB per request.
pub(super) const MAX_OCTETS: usize = 1 << 20;

/// Keys of this family hold the last accepted nonce of a peer.
pub(super) const NONCES: u8 = b'n';
/// Nonce values start with this version octet and the nonce in 8 octets, so that they sort as the nonces do.
const NONCE_VERSION: u8 = 1;
const NONCE_LEN: usize = 9;

/// What has to hold for changes to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// The key was last changed at this revision; 0 = there is none.
    Unchanged(Key, i64),
    /// The key's value is less than these octets.
    Ascends(Key, Vec<u8>),
    /// The key has this value.
    Holds(Key, Vec<u8>),
}

/// Changes under the same guards, one per key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) guards: Vec<Guard>,
    pub(super) changes: Vec<(Key, Value)>,
    /// Of keys and values.
    pub(super) octets: usize,
}

/// The state of a key as etcd told it: the value, and the revision when it got it; for a key that is not there, when that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) revision: i64,
}

/// How a part ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The changes are made; per change the revision.
    Kept(Vec<i64>),
    /// None is made; this is what counts instead.
    Refused(Vec<Current>),
}

/// What to do with a part whose guards did not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reconsidered {
    /// Nothing more.
    Ended(Outcome),
    /// Try again with other guards.
    Again,
}

impl Guard {
    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Unchanged(key, _) | Self::Ascends(key, _) | Self::Holds(key, _) => key,
        }
    }

    fn compare(&self, prefix: &[u8]) -> Compare {
        let (result, target, union) = match self {
            Self::Unchanged(_, revision) => (EQUAL, MOD_REVISION, Target::ModRevision(*revision)),
            Self::Ascends(_, bound) => (LESS, VALUE, Target::Value(bound.clone())),
            Self::Holds(_, value) => (EQUAL, VALUE, Target::Value(value.clone())),
        };
        Compare { result, target, key: [prefix, self.key()].concat(), union: Some(union) }
    }
}

impl Part {
    /// The parts that the changes of one batch are made in, one after the other.
    ///
    /// With an accepted nonce among them, all depend on that nonce being greater than what any Map-Server accepted (AU-16). Without,
    /// each change is alone and depends on its key being as it was when the change was decided. [`Self::aim`] says which revision that is.
    pub(super) fn split(changes: &ChangeLog) -> Vec<Self> {
        let changes = last_of_each_key(changes);
        let nonce = changes.iter().find(|(key, value)| nonce_bound(key, *value).is_some()).copied();
        let Some((nonce_key, Some(nonce_value))) = nonce else {
            return changes
                .into_iter()
                .map(|(key, value)| Self::under(Guard::Unchanged(key.into(), 0), key, value))
                .collect();
        };
        let guard = Guard::Unchanged(nonce_key.into(), 0);
        let mut parts = Vec::new();
        let mut part = Self::under(guard, nonce_key, Some(nonce_value));
        for (key, value) in changes.into_iter().filter(|(key, _)| *key != nonce_key) {
            let octets = key.len() + value.map_or(0, <[u8]>::len);
            if part.changes.len() >= MAX_OPERATIONS || part.octets + octets > MAX_OCTETS {
                let guard = Guard::Holds(nonce_key.into(), nonce_value.to_vec());
                parts.push(std::mem::replace(&mut part, Self::under(guard, key, value)));
            } else {
                part.push(key, value);
            }
        }
        parts.push(part);
        parts
    }

    /// Sets the guards by the revisions that the state machine knew, as `known` tells: 0 = no such key, -1 = changed since.
    pub(super) fn aim(&mut self, known: impl Fn(&[u8]) -> i64) {
        for guard in &mut self.guards {
            let key = guard.key().clone();
            let change = self.changes.iter().find(|(other, _)| *other == key);
            let bound = change.and_then(|(key, value)| nonce_bound(key, value.as_deref()));
            match (&guard, bound, known(&key)) {
                (Guard::Holds(..), _, _) => {}
                (_, Some(bound), revision) if revision != 0 => {
                    *guard = Guard::Ascends(key, bound.to_vec());
                }
                (_, _, revision) => *guard = Guard::Unchanged(key, revision),
            }
        }
    }

    /// Whether the part can be made in one transaction with `others` before it.
    pub(super) fn fits(&self, others: &[Self]) -> bool {
        let sum = |of: fn(&Self) -> usize| others.iter().map(of).sum::<usize>() + of(self);
        // What has to hold after a part is made cannot be asked before it is.
        let waits = self.guards.iter().any(|guard| {
            matches!(guard, Guard::Holds(key, _) if others.iter().any(|p| p.keys().any(|k| k == key)))
        });
        !waits
            && sum(|part| part.changes.len()) <= MAX_OPERATIONS
            && sum(|part| part.octets) <= MAX_OCTETS
    }

    /// Every key that the part reads or writes.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        let written = self.changes.iter().map(|(key, _)| key);
        written.chain(self.guards.iter().map(Guard::key))
    }

    /// What becomes of the part, whose guards did not hold, `current` being the state of its keys.
    pub(super) fn reconsider(&mut self, current: &[Current]) -> Reconsidered {
        let of = |key: &Key| current.iter().find(|current| current.key == *key);
        let mut revisions = Vec::with_capacity(self.changes.len());
        for (key, value) in &self.changes {
            if let Some(current) = of(key).filter(|current| current.value == *value) {
                revisions.push(current.revision);
            }
        }
        if revisions.len() == self.changes.len() {
            // An earlier attempt whose answer was lost, or the same message at another Map-Server.
            return Reconsidered::Ended(Outcome::Kept(revisions));
        }
        let mut again = false;
        for guard in &mut self.guards {
            let Some(current) = of(guard.key()) else { continue };
            let mine = self.changes.iter().find(|(key, _)| key == guard.key());
            let bound = mine.and_then(|(key, value)| nonce_bound(key, value.as_deref()));
            let better = match (bound, &current.value) {
                (Some(_), None) => Guard::Unchanged(current.key.clone(), 0),
                (Some(bound), Some(value)) if value.as_slice() < bound => {
                    Guard::Ascends(current.key.clone(), bound.to_vec())
                }
                _ => continue,
            };
            again |= *guard != better;
            *guard = better;
        }
        if again {
            return Reconsidered::Again;
        }
        Reconsidered::Ended(Outcome::Refused(current.to_vec()))
    }

    fn under(guard: Guard, key: &[u8], value: Option<&[u8]>) -> Self {
        let mut part = Self { guards: vec![guard], ..Self::default() };
        part.push(key, value);
        part
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.octets += key.len() + value.map_or(0, <[u8]>::len);
        self.changes.push((key.into(), value.map(<[u8]>::to_vec)));
    }
}

/// Of several changes of a key the last, in the order of the first.
fn last_of_each_key(changes: &ChangeLog) -> Vec<(&[u8], Option<&[u8]>)> {
    let mut at = HashMap::new();
    let mut last: Vec<(&[u8], Option<&[u8]>)> = Vec::new();
    for (key, value) in changes.iter() {
        match at.get(key) {
            Some(&index) => last[index] = (key, value),
            None => {
                at.insert(key, last.len());
                last.push((key, value));
            }
        }
    }
    last
}

/// What the former value has to be less than: the version octet and the nonce, so that an equal nonce is not less.
fn nonce_bound<'a>(key: &[u8], value: Option<&'a [u8]>) -> Option<&'a [u8]> {
    let bound = value?.get(..NONCE_LEN)?;
    (key.first() == Some(&NONCES) && bound[0] == NONCE_VERSION).then_some(bound)
}

/// The request that makes the changes of `parts` under all their guards, else reads every key; of a key that several parts have, the first guard
/// and the last change count.
pub(super) fn request(prefix: &[u8], parts: &[Part]) -> TxnRequest {
    let mut request = TxnRequest::default();
    let mut guarded = HashSet::new();
    for guard in parts.iter().flat_map(|part| &part.guards) {
        if guarded.insert(guard.key()) {
            request.compare.push(guard.compare(prefix));
        }
    }
    for (key, value) in last_of_all(parts) {
        let key = [prefix, key].concat();
        let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let write = match value {
            Some(value) => Operation::Put(PutRequest { key, value: value.clone() }),
            None => Operation::DeleteRange(DeleteRangeRequest { key }),
        };
        request.success.push(RequestOp { request: Some(write) });
        request.failure.push(RequestOp { request: Some(Operation::Range(read)) });
    }
    request
}

/// What each key is after all of `parts`, in the order of the request.
fn last_of_all(parts: &[Part]) -> Vec<(&Key, &Value)> {
    let mut at = HashMap::new();
    let mut last: Vec<(&Key, &Value)> = Vec::new();
    for (key, value) in parts.iter().flat_map(|part| &part.changes) {
        match at.get(key) {
            Some(&index) => last[index] = (key, value),
            None => {
                at.insert(key, last.len());
                last.push((key, value));
            }
        }
    }
    last
}

/// What the answer to [`request`] says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Every part is kept: the outcome of each.
    Kept(Vec<Outcome>),
    /// Some guard did not hold; the state of every key.
    Conflict(Vec<Current>),
}

/// Reads the answer to the request of `parts`; `None` when it is no such answer.
pub(super) fn read(parts: &[Part], response: TxnResponse) -> Option<Answer> {
    let revision = response.header?.revision;
    if response.succeeded {
        let kept = |part: &Part| Outcome::Kept(vec![revision; part.changes.len()]);
        return Some(Answer::Kept(parts.iter().map(kept).collect()));
    }
    let wanted = last_of_all(parts);
    if wanted.len() != response.responses.len() {
        return None;
    }
    let mut current = Vec::with_capacity(wanted.len());
    for ((key, _), answer) in wanted.iter().zip(response.responses) {
        let (value, revision) = match answer.range?.kvs.into_iter().next() {
            Some(kv) => (Some(kv.value), kv.mod_revision),
            None => (None, revision),
        };
        current.push(Current { key: (*key).clone(), value, revision });
    }
    if wanted.iter().zip(&current).all(|((_, value), current)| **value == current.value) {
        let found: HashMap<&Key, i64> = current.iter().map(|c| (&c.key, c.revision)).collect();
        let kept = |part: &Part| {
            Outcome::Kept(part.changes.iter().map(|(key, _)| found[key]).collect::<Vec<_>>())
        };
        return Some(Answer::Kept(parts.iter().map(kept).collect()));
    }
    Some(Answer::Conflict(current))
}
