//! State that survives: what the Map-Server wants kept, as keys and values, and the stores that keep it.
//!
//! The state machine knows what a key means ([`crate::server`]), a store does not. The state machine logs its changes; the shell
//! takes them in batches, gives them to a [`Store`] and sends what waits for them once the store says that they are kept.

#[cfg(feature = "cluster")]
pub mod etcd;
pub mod journal;

use std::io;
use std::task::{Context, Poll};

use crate::transmit::Transmit;

/// Changes of durable state in the order they happened: the last one of a key counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeLog {
    /// Per change: length of the key (2 octets), length of the value plus one, 0 for a deletion (4 octets), key, value.
    octets: Vec<u8>,
}

/// One change: the key, and the new value; `None` deletes.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// The longest key, octets.
pub const MAX_KEY: usize = 512;
/// The longest value, octets: more than any control message holds.
pub const MAX_VALUE: usize = 128 * 1024;

const HEADER: usize = 6;

impl ChangeLog {
    /// Logs that `key` now has `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.push(key, Some(value));
    }

    /// Logs that `key` is no more.
    pub fn delete(&mut self, key: &[u8]) {
        self.push(key, None);
    }

    /// The changes so far; room for as many again is left behind.
    pub fn take(&mut self) -> Self {
        let room = self.octets.len();
        Self { octets: std::mem::replace(&mut self.octets, Vec::with_capacity(room)) }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Forgets the changes, keeps the memory.
    pub fn clear(&mut self) {
        self.octets.clear();
    }

    /// Every change, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let mut rest = self.octets.as_slice();
        std::iter::from_fn(move || {
            let (change, after) = decode(rest)?;
            rest = after;
            Some(change)
        })
    }

    /// The encoded changes, for a journal; [`Self::from_octets`] reads them back.
    pub fn as_octets(&self) -> &[u8] {
        &self.octets
    }

    /// The changes that `octets` encode; `None` unless every octet belongs to a whole change.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let mut rest = octets;
        while !rest.is_empty() {
            rest = decode(rest)?.1;
        }
        Some(Self { octets: octets.to_vec() })
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        debug_assert!(key.len() <= MAX_KEY && value.is_none_or(|value| value.len() <= MAX_VALUE));
        let length = value.map_or(0, |value| value.len() as u32 + 1);
        self.octets.extend_from_slice(&(key.len() as u16).to_be_bytes());
        self.octets.extend_from_slice(&length.to_be_bytes());
        self.octets.extend_from_slice(key);
        self.octets.extend_from_slice(value.unwrap_or_default());
    }
}

fn decode(octets: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let (header, rest) = octets.split_first_chunk::<HEADER>()?;
    let key_length = usize::from(u16::from_be_bytes([header[0], header[1]]));
    let value_length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
    let (key, rest) = rest.split_at_checked(key_length)?;
    if value_length == 0 {
        return Some(((key, None), rest));
    }
    let (value, rest) = rest.split_at_checked(value_length as usize - 1)?;
    Some(((key, Some(value)), rest))
}

/// Changes, and the messages that must not leave before the changes are kept: an acknowledged registration is never lost.
///
/// A shared store ([`Store::is_shared`]) keeps a batch whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What changed.
    pub changes: ChangeLog,
    /// What to send then.
    pub transmits: Vec<Transmit>,
}

/// What a store has to say.
#[derive(Debug)]
pub enum StoreEvent {
    /// The changes of a batch are kept; its messages may leave. Batches come back in the order they were given.
    Kept(Vec<Transmit>),
    /// This key has another value than the state machine knows: another Map-Server of the cluster changed it, or a batch that changed it
    /// was refused because another Map-Server was first (the batch is not [`Self::Kept`] then, its messages never leave).
    Changed {
        /// The key.
        key: Vec<u8>,
        /// Its value; `None` when it is no more.
        value: Option<Vec<u8>>,
    },
    /// Changes cannot be kept now, for this reason: registrations are not acknowledged until [`StoreEvent::Recovered`].
    Degraded(String),
    /// Changes are kept again.
    Recovered,
}

/// Where durable state lives.
pub trait Store: Send {
    /// Every key and value that is kept, each once, before anything is submitted.
    ///
    /// # Errors
    /// The state is corrupt or cannot be read; the error says where and what to do.
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()>;

    /// Keeps the changes of `batch`; [`Self::poll_event`] says when that is done. Never blocks for longer than a write to a file.
    fn submit(&mut self, batch: Batch);

    /// The next thing to say; registers the waker when there is none.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<StoreEvent>;

    /// Messages of submitted batches of which nothing is known yet: they neither left nor were given up.
    fn waiting(&self) -> usize;

    /// Whether other Map-Servers change the same state. Then
    ///
    /// - each received message needs a batch of its own, so that a replay among them is refused alone;
    /// - nothing may expire between [`StoreEvent::Degraded`] and [`StoreEvent::Recovered`]: refreshes that others accepted are not seen.
    fn is_shared(&self) -> bool {
        false
    }

    /// What an operator should know of it now, a sentence each, for `show status`.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Keeps nothing: for a Map-Server without `state-dir`, whose sites register anew after a restart.
#[derive(Debug, Default)]
pub struct Forgetful {
    kept: std::collections::VecDeque<Vec<Transmit>>,
}

impl Store for Forgetful {
    fn load(&mut self, _: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        Ok(())
    }

    fn submit(&mut self, batch: Batch) {
        self.kept.push_back(batch.transmits);
    }

    fn waiting(&self) -> usize {
        self.kept.iter().map(Vec::len).sum()
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<StoreEvent> {
        self.kept.pop_front().map_or(Poll::Pending, |kept| Poll::Ready(StoreEvent::Kept(kept)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_log_gives_back_what_was_logged_and_refuses_a_torn_one() {
        let mut log = ChangeLog::default();
        log.put(b"a", b"1");
        log.put(b"b", b"");
        log.delete(b"a");
        let expected: Vec<Change<'_>> = vec![(b"a", Some(b"1")), (b"b", Some(b"")), (b"a", None)];
        assert_eq!(log.iter().collect::<Vec<_>>(), expected);
        assert_eq!(ChangeLog::from_octets(log.as_octets()).as_ref(), Some(&log));
        for length in 1..log.as_octets().len() {
            let whole = ChangeLog::from_octets(&log.as_octets()[..length]);
            assert!(whole.is_none_or(|log| log.iter().count() < 3), "{length}");
        }
    }
}
