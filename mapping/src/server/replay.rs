//! Replay protection: the last accepted nonce of every peer (RFC 9301 §5.6).

use std::time::Instant;

use hashbrown::HashTable;

use crate::config::Profile;
use crate::discard::Discard;
use crate::limits::Scatter;
use crate::timers::{MAX_NONCES, RETRANSMISSION_WINDOW};

use super::registry::Registrant;
use super::site::SiteIndex;

/// Whose nonces are counted: one xTR with one key of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// What a peer's nonces are (AU-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nonces {
    /// Each greater than the one before.
    Increasing,
    /// Each another.
    Random,
    /// Always the same: nothing can be told from them.
    Constant,
}

impl Nonces {
    pub(super) fn of(profile: Profile) -> Self {
        match profile {
            Profile::Rfc9301 => Self::Increasing,
            Profile::Oor | Profile::Vpp => Self::Random,
            Profile::LispersNet => Self::Constant,
        }
    }
}

/// The last accepted Map-Register of a peer.
#[derive(Clone, Copy, Debug)]
struct Last {
    nonce: u64,
    /// The first octets of its MAC: with the nonce, enough to know it again.
    mac: [u8; KEPT_MAC_LEN],
    at: Instant,
    /// The greatest nonce that another Map-Server of the cluster accepted since.
    elsewhere: u64,
}

const KEPT_MAC_LEN: usize = 16;

/// No slot.
const NONE: u32 = u32::MAX;

/// A peer, and its neighbours in the order of the last message.
#[derive(Debug)]
struct Known {
    peer: Peer,
    last: Last,
    older: u32,
    newer: u32,
}

/// The last accepted nonce of every peer; at the bound the peer heard longest ago is forgotten.
#[derive(Debug)]
pub(super) struct ReplayGuard {
    capacity: usize,
    peers: Vec<Known>,
    index: HashTable<u32>,
    oldest: u32,
    newest: u32,
    scatter: Scatter,
}

/// What [`ReplayGuard::check`] found.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) freshness: Freshness,
    /// The peer that was forgotten to make room.
    pub(super) forgotten: Option<Peer>,
}

impl ReplayGuard {
    /// Remembers at most [`MAX_NONCES`] peers.
    pub(super) fn new(scatter: Scatter) -> Self {
        Self::with_capacity(MAX_NONCES, scatter)
    }

    fn with_capacity(capacity: usize, scatter: Scatter) -> Self {
        Self {
            capacity: capacity.max(1),
            peers: Vec::new(),
            index: HashTable::new(),
            oldest: NONE,
            newest: NONE,
            scatter,
        }
    }

    /// Judges an authentic message; a new one is remembered.
    ///
    /// # Errors
    /// [`Discard::Replayed`] unless the nonce is greater than the last one, or the message is the last one again (AU-16, AU-18);
    /// of random nonces, unless it is another one than the last.
    pub(super) fn check(
        &mut self,
        now: Instant,
        peer: Peer,
        nonces: Nonces,
        nonce: u64,
        mac: &[u8],
    ) -> Result<Checked, Discard> {
        let mac = kept_mac(mac);
        if nonces == Nonces::Constant {
            return Ok(Checked { freshness: Freshness::New, forgotten: None });
        }
        let slot = self.find(&peer);
        if let Some(Known { last, .. }) = slot.map(|slot| &self.peers[slot as usize]) {
            let recent = now < last.at + RETRANSMISSION_WINDOW;
            if nonce == last.nonce && mac == last.mac && recent {
                let freshness = Freshness::Retransmission;
                return Ok(Checked { freshness, forgotten: None });
            }
            let replayed = match nonces {
                Nonces::Increasing => nonce <= last.nonce.max(last.elsewhere),
                Nonces::Random | Nonces::Constant => nonce == last.nonce || nonce == last.elsewhere,
            };
            if replayed {
                return Err(Discard::Replayed);
            }
        }
        let forgotten = self.remember(slot, peer, Last { nonce, mac, at: now, elsewhere: 0 });
        Ok(Checked { freshness: Freshness::New, forgotten })
    }

    /// Peers whose nonce is remembered.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
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
        let slot = self.find(&peer);
        if let Some(slot) = slot {
            let last = &mut self.peers[slot as usize].last;
            last.elsewhere = last.elsewhere.max(nonce);
            return None;
        }
        self.remember(slot, peer, Last { nonce, mac, at, elsewhere: 0 })
    }

    /// Forgets the nonces of `peer`.
    pub(super) fn forget(&mut self, peer: &Peer) {
        let Some(slot) = self.find(peer) else { return };
        self.unlink(slot);
        self.unindex(peer, slot);
        let last = (self.peers.len() - 1) as u32;
        self.peers.swap_remove(slot as usize);
        // The last one lies in the free slot now.
        if let Some(Known { peer, older, newer, .. }) = self.peers.get(slot as usize) {
            let (peer, older, newer) = (*peer, *older, *newer);
            let hash = self.scatter.of(&peer);
            if let Some(place) = self.index.find_mut(hash, |&other| other == last) {
                *place = slot;
            }
            match self.peers.get_mut(older as usize) {
                Some(neighbour) => neighbour.newer = slot,
                None => self.oldest = slot,
            }
            match self.peers.get_mut(newer as usize) {
                Some(neighbour) => neighbour.older = slot,
                None => self.newest = slot,
            }
        }
    }

    fn find(&self, peer: &Peer) -> Option<u32> {
        let hash = self.scatter.of(peer);
        self.index.find(hash, |slot| self.peers[*slot as usize].peer == *peer).copied()
    }

    fn unindex(&mut self, peer: &Peer, slot: u32) {
        let hash = self.scatter.of(peer);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == slot) {
            found.remove();
        }
    }

    fn remember(&mut self, slot: Option<u32>, peer: Peer, last: Last) -> Option<Peer> {
        if let Some(slot) = slot {
            self.peers[slot as usize].last = last;
            self.unlink(slot);
            self.link(slot);
            return None;
        }
        let known = Known { peer, last, older: NONE, newer: NONE };
        let (slot, forgotten) = if self.peers.len() < self.capacity {
            self.peers.push(known);
            ((self.peers.len() - 1) as u32, None)
        } else {
            let slot = self.oldest;
            self.unlink(slot);
            let forgotten = std::mem::replace(&mut self.peers[slot as usize], known).peer;
            self.unindex(&forgotten, slot);
            (slot, Some(forgotten))
        };
        let Self { index, peers, scatter, .. } = self;
        index.insert_unique(scatter.of(&peer), slot, |&other| {
            scatter.of(&peers[other as usize].peer)
        });
        self.link(slot);
        forgotten
    }

    /// Takes a peer out of the order.
    fn unlink(&mut self, slot: u32) {
        let Known { older, newer, .. } = self.peers[slot as usize];
        match self.peers.get_mut(older as usize) {
            Some(neighbour) => neighbour.newer = newer,
            None => self.oldest = newer,
        }
        match self.peers.get_mut(newer as usize) {
            Some(neighbour) => neighbour.older = older,
            None => self.newest = older,
        }
    }

    /// Puts a peer at the new end of the order.
    fn link(&mut self, slot: u32) {
        let before = std::mem::replace(&mut self.newest, slot);
        match self.peers.get_mut(before as usize) {
            Some(neighbour) => neighbour.newer = slot,
            None => self.oldest = slot,
        }
        let known = &mut self.peers[slot as usize];
        (known.older, known.newer) = (before, NONE);
    }
}

/// The first octets of a MAC.
pub(super) fn kept_mac(mac: &[u8]) -> [u8; KEPT_MAC_LEN] {
    let mut kept = [0; KEPT_MAC_LEN];
    let length = mac.len().min(KEPT_MAC_LEN);
    kept[..length].copy_from_slice(&mac[..length]);
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::Ipv4Addr;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn peer(number: u32) -> Peer {
        let source = Ipv4Addr::from_bits(number).into();
        let registrant = Registrant::Source(source);
        Peer { site: SiteIndex::default(), key_id: 1, registrant }
    }

    #[test]
    fn au_16_the_guard_agrees_with_a_dumb_oracle() {
        let (mut guard, mut oracle) =
            (ReplayGuard::with_capacity(8, Scatter::new([3, 5])), VecDeque::new());
        let (mut rng, now) = (StdRng::from_seed([9; 32]), Instant::now());
        for _ in 0..20_000 {
            let (number, nonce) = (rng.random_range(0..12_u32), rng.random_range(0..60_u64));
            let known = oracle.iter().position(|(other, _)| *other == number);
            let fresh = known.is_none_or(|at| nonce > oracle[at].1);
            if rng.random_bool(0.1) {
                guard.forget(&peer(number));
                oracle.retain(|(other, _)| *other != number);
                continue;
            }
            // Every message has a MAC of its own: there is no retransmission among them.
            let mac = rng.random::<u128>().to_be_bytes();
            let checked = guard.check(now, peer(number), Nonces::Increasing, nonce, &mac);
            assert_eq!(checked.is_ok(), fresh);
            if fresh {
                known.map(|at| oracle.remove(at));
                oracle.push_back((number, nonce));
                let forgotten = if oracle.len() > 8 { oracle.pop_front() } else { None };
                let forgotten = forgotten.map(|(number, _)| peer(number));
                assert_eq!(checked.unwrap().forgotten, forgotten);
            }
            assert_eq!(guard.len(), oracle.len());
        }
    }
}
