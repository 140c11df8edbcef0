//! Changes that could not be written.

use std::collections::BTreeMap;

use crate::store::ChangeLog;

/// Octets of pending changes that go into one frame.
const FRAME: usize = 1 << 20;
/// Memory of an entry besides its octets, about.
const ENTRY: usize = 96;

/// The last change of each key that could not be written.
#[derive(Default)]
pub(super) struct Pending {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    octets: usize,
    overflowed: bool,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether changes were lost: what the state machine knows and what is kept will not agree again in this process.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Adds changes, in no more than `limit` octets of memory.
    pub(super) fn add(&mut self, changes: &ChangeLog, limit: usize) {
        for (key, value) in changes.iter() {
            self.remove(key);
            let octets = weight(key, value);
            if self.overflowed || self.octets + octets > limit {
                // Nothing of it will be written, so nothing of it is needed.
                (self.overflowed, self.octets) = (true, 0);
                return self.changes.clear();
            }
            self.octets += octets;
            self.changes.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
    }

    /// Some of the changes, as many as one frame should have.
    pub(super) fn chunk(&self) -> ChangeLog {
        let mut log = ChangeLog::default();
        for (key, value) in &self.changes {
            match value {
                Some(value) => log.put(key, value),
                None => log.delete(key),
            }
            if log.as_octets().len() >= FRAME {
                break;
            }
        }
        log
    }

    /// These are written now.
    pub(super) fn forget(&mut self, written: &ChangeLog) {
        written.iter().for_each(|(key, _)| self.remove(key));
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.changes.remove(key) {
            self.octets -= weight(key, value.as_deref());
        }
    }
}

fn weight(key: &[u8], value: Option<&[u8]>) -> usize {
    ENTRY + key.len() + value.map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_changes_hold_the_last_of_each_key_within_their_bound() {
        let mut pending = Pending::default();
        for round in 0..1_000_u32 {
            let mut log = ChangeLog::default();
            log.put(b"a", &round.to_be_bytes());
            log.put(b"b", &round.to_be_bytes());
            log.delete(b"b");
            pending.add(&log, 2 * (ENTRY + 5));
        }
        let chunk = pending.chunk();
        let last = 999_u32.to_be_bytes();
        assert!(chunk.iter().eq([(&b"a"[..], Some(&last[..])), (b"b", None)]));
        pending.forget(&chunk);
        assert_eq!(
            (pending.octets, pending.is_empty(), pending.has_overflowed()),
            (0, true, false)
        );
        let mut log = ChangeLog::default();
        log.put(b"a", &[0; 100]);
        pending.add(&log, ENTRY + 100);
        assert!(pending.has_overflowed() && pending.is_empty());
    }
}
