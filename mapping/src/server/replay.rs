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

/// The last accepted Map-Register of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) nonce: u64,
    /// The first octets of its MAC: with the nonce, enough to know it again.
    pub(super) mac: [u8; KEPT_MAC_LEN],
    pub(super) at: Instant,
    /// The greatest nonce that another Map-Server of the cluster accepted since.
    elsewhere: u64,
    order: u64,
}

const KEPT_MAC_LEN: usize = 16;

/// The last accepted nonce of every peer; at the bound the peer heard longest ago is forgotten.
#[derive(Debug, Default)]
pub(super) struct ReplayGuard {
    peers: HashMap<Peer, Last>,
    by_age: BTreeMap<u64, Peer>,
    order: u64,
}

/// What [`ReplayGuard::check`] found.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) freshness: Freshness,
    /// The peer that was forgotten to make room.
    pub(super) forgotten: Option<Peer>,
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
    ) -> Result<Checked, Discard> {
        let mac = kept_mac(mac);
        if let Some(last) = self.peers.get(&peer) {
            let recent = now < last.at + RETRANSMISSION_WINDOW;
            if nonce == last.nonce && mac == last.mac && recent {
                let freshness = Freshness::Retransmission;
                return Ok(Checked { freshness, forgotten: None });
            }
            if nonce <= last.nonce.max(last.elsewhere) {
                return Err(Discard::Replayed);
            }
        }
        let forgotten = self.remember(peer, nonce, mac, now);
        Ok(Checked { freshness: Freshness::New, forgotten })
    }

    /// The last accepted Map-Register of `peer`.
    pub(super) fn last(&self, peer: Peer) -> Option<Last> {
        self.peers.get(&peer).copied()
    }

    /// Takes a nonce from the durable state; returns the peer that was forgotten to make room.
    ///
    /// A peer that is known here may still repeat what it sent here last, but nothing older than what was accepted elsewhere.
    pub(super) fn restore(
        &mut self,
        peer: Peer,
        nonce: u64,
        mac: [u8; KEPT_MAC_LEN],
        at: Instant,
    ) -> Option<Peer> {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.elsewhere = known.elsewhere.max(nonce);
            return None;
        }
        self.remember(peer, nonce, mac, at)
    }

    /// Forgets the nonces of `peer`.
    pub(super) fn forget(&mut self, peer: Peer) {
        if let Some(last) = self.peers.remove(&peer) {
            self.by_age.remove(&last.order);
        }
    }

    fn remember(
        &mut self,
        peer: Peer,
        nonce: u64,
        mac: [u8; KEPT_MAC_LEN],
        at: Instant,
    ) -> Option<Peer> {
        let mut forgotten = None;
        if let Some(last) = self.peers.get(&peer) {
            self.by_age.remove(&last.order);
        } else if self.peers.len() >= MAX_NONCES
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.peers.remove(&oldest);
            forgotten = Some(oldest);
        }
        self.order += 1;
        self.by_age.insert(self.order, peer);
        self.peers.insert(peer, Last { nonce, mac, at, elsewhere: 0, order: self.order });
        forgotten
    }
}

fn kept_mac(mac: &[u8]) -> [u8; KEPT_MAC_LEN] {
    let mut kept = [0; KEPT_MAC_LEN];
    let length = mac.len().min(KEPT_MAC_LEN);
    kept[..length].copy_from_slice(&mac[..length]);
    kept
}
