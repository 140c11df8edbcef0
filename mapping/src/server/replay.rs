//! Replay protection: the last accepted nonce of every peer (RFC 9301 §5.6).

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::discard::Discard;
use crate::timers::{MAX_NONCES, RETRANSMISSION_WINDOW};

use super::registry::Registrant;
use super::site::SiteIndex;

/// Whose nonces are counted: one xTR with one key of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) site: SiteIndex,
    pub(super) key_id: u8,
    pub(super) registrant: Registrant,
}

/// An authentic Map-Register that is no replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Its nonce is greater than every one before.
    New,
    /// The same message again, since its Map-Notify may have been lost (AU-18).
    Retransmission,
}

#[derive(Clone, Debug)]
struct Last {
    nonce: u64,
    mac: Vec<u8>,
    at: Instant,
    order: u64,
}

/// The last accepted nonce of every peer; at the bound the peer heard longest ago is forgotten.
#[derive(Debug, Default)]
pub(super) struct ReplayGuard {
    peers: HashMap<Peer, Last>,
    by_age: BTreeMap<u64, Peer>,
    order: u64,
}

impl ReplayGuard {
    /// Judges an authentic message; a new one is remembered.
    ///
    /// # Errors
    /// [`Discard::Replayed`] unless the nonce is greater than the last one, or the message is the last one again (AU-16, AU-18).
    pub(super) fn check(
        &mut self,
        now: Instant,
        peer: Peer,
        nonce: u64,
        mac: &[u8],
    ) -> Result<Freshness, Discard> {
        if let Some(last) = self.peers.get(&peer) {
            let recent = now < last.at + RETRANSMISSION_WINDOW;
            if nonce == last.nonce && mac == last.mac && recent {
                return Ok(Freshness::Retransmission);
            }
            if nonce <= last.nonce {
                return Err(Discard::Replayed);
            }
            self.by_age.remove(&last.order);
        } else if self.peers.len() >= MAX_NONCES
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.peers.remove(&oldest);
        }
        self.order += 1;
        self.by_age.insert(self.order, peer);
        self.peers.insert(peer, Last { nonce, mac: mac.to_vec(), at: now, order: self.order });
        Ok(Freshness::New)
    }
}
