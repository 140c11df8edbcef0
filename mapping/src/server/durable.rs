//! What survives a restart: every change as a key and a value, and the way back.

use std::time::Instant;

use crate::clock::Epoch;
use crate::store::{Batch, ChangeLog};
use crate::transmit::Transmit;

use super::MapServer;
use super::subscription::kept;

/// A kept key or value that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state entry {key:02x?} cannot be understood")]
pub struct StateError {
    /// The key.
    pub key: Vec<u8>,
}

/// The changes since the last batch, and the messages that wait for them. Nothing without an epoch.
#[derive(Debug, Default)]
pub(super) struct Durability {
    pub(super) epoch: Option<Epoch>,
    pub(super) changes: ChangeLog,
    held: Vec<Transmit>,
}

impl MapServer {
    /// Takes one kept entry, before anything else happens.
    ///
    /// # Errors
    /// The entry is of no kind known here, or does not decode.
    pub fn restore(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.take_entry(now, key, Some(value), true).ok_or_else(|| StateError { key: key.to_vec() })
    }

    /// `None` if it cannot be understood.
    fn take_entry(
        &mut self,
        now: Instant,
        key: &[u8],
        value: Option<&[u8]>,
        restored: bool,
    ) -> Option<()> {
        match *key.first()? {
            kept::SUBSCRIPTION => self.take_subscription(now, key, value, restored),
            kept::PAST => self.take_past(key, value),
            _ => None,
        }
    }

    /// What to keep since the last call, with the messages to send once it is kept; `None` when there is neither.
    pub fn take_batch(&mut self) -> Option<Batch> {
        let Durability { changes, held, .. } = &mut self.durability;
        if changes.is_empty() && held.is_empty() {
            return None;
        }
        Some(Batch { changes: std::mem::take(changes), transmits: std::mem::take(held) })
    }

    /// Sends a message that must not leave before the changes logged so far are kept.
    pub(super) fn transmit_once_kept(&mut self, transmit: Transmit) {
        match self.durability.epoch {
            Some(_) => self.durability.held.push(transmit),
            None => self.transmits.push_back(transmit),
        }
    }
}
