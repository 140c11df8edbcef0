//! One step of a search through the tree: a referral set, its nodes asked one after another (RFC 8111 §7.3.2).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::eid::EidPrefix;
use crate::timers::{DDT_SILENCE, DDT_TRIES, MAX_REFERRAL_RLOCS, MAX_SILENT_RLOCS};
use crate::wire::{Address, Lcaf, ReferralRecord};

/// An RLOC and its priority, lower before higher.
pub(crate) type Ranked = (u8, IpAddr);

/// The nodes of a referral set and what became of asking them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Whether they are Map-Servers, which get the LISP-SEC data (DD-13).
    pub(crate) secure: bool,
    /// The prefix they are asked about as the ones that know; `None` = every one, as a root's.
    pub(crate) within: Option<EidPrefix>,
    nodes: Vec<Node>,
    at: usize,
    unregistered: Option<EidPrefix>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    rloc: IpAddr,
    tries: u32,
    /// It said MS-NOT-REGISTERED.
    denied: bool,
}

impl Step {
    /// The first [`MAX_REFERRAL_RLOCS`] of `rlocs`, in this order.
    pub(crate) fn new(rlocs: Vec<IpAddr>, secure: bool, within: Option<EidPrefix>) -> Self {
        let node = |rloc| Node { rloc, tries: 0, denied: false };
        let nodes = rlocs.into_iter().take(MAX_REFERRAL_RLOCS).map(node).collect();
        Self { secure, within, nodes, at: 0, unregistered: None }
    }

    /// Whether there is nobody to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node whose turn it is.
    pub(crate) fn current(&self) -> Option<IpAddr> {
        self.nodes.get(self.at).map(|node| node.rloc)
    }

    /// As [`Self::current`], and counts a try.
    pub(crate) fn ask(&mut self) -> Option<IpAddr> {
        let node = self.nodes.get_mut(self.at)?;
        node.tries += 1;
        Some(node.rloc)
    }

    /// Whether the node at `rloc` was asked in this step.
    pub(crate) fn was_asked(&self, rloc: IpAddr) -> bool {
        self.nodes.iter().any(|node| node.rloc == rloc && node.tries > 0)
    }

    /// How often any of them was asked.
    pub(crate) fn tries(&self) -> u32 {
        self.nodes.iter().map(|node| node.tries).sum()
    }

    /// Turns to the next node that may be asked once more (DD-18); false when there is none.
    pub(crate) fn retry(&mut self) -> bool {
        self.turn(|node| node.tries < DDT_TRIES && !node.denied)
    }

    /// The node at `rloc` has no registration of `prefix`: turns to the next that was not asked yet (DD-15); false when all were.
    pub(crate) fn not_registered(&mut self, rloc: IpAddr, prefix: EidPrefix) -> bool {
        for node in self.nodes.iter_mut().filter(|node| node.rloc == rloc) {
            node.denied = true;
        }
        // Of several, the answer that says least about others.
        if self.unregistered.is_none_or(|known| known.mask_len() < prefix.mask_len()) {
            self.unregistered = Some(prefix);
        }
        self.turn(|node| node.tries == 0)
    }

    /// The longest prefix that a node of this step said is not registered.
    pub(crate) fn unregistered(&self) -> Option<EidPrefix> {
        self.unregistered
    }

    /// The next node from here on, round and round, that `may` be asked.
    fn turn(&mut self, may: impl Fn(&Node) -> bool) -> bool {
        let count = self.nodes.len();
        let next =
            (1..=count).map(|ahead| (self.at + ahead) % count).find(|&at| may(&self.nodes[at]));
        if let Some(next) = next {
            self.at = next;
        }
        next.is_some()
    }
}

/// The RLOCs that did not answer lately: asked after the others, so that a dead node does not delay every lookup.
#[derive(Debug, Default)]
pub(crate) struct Silence(BTreeMap<IpAddr, Instant>);

impl Silence {
    /// `rloc` let a request time out.
    pub(crate) fn silent(&mut self, now: Instant, rloc: IpAddr) {
        if self.0.len() >= MAX_SILENT_RLOCS {
            self.0.retain(|_, since| now < *since + DDT_SILENCE);
        }
        if self.0.len() < MAX_SILENT_RLOCS {
            self.0.insert(rloc, now);
        }
    }

    /// `rloc` said something.
    pub(crate) fn heard(&mut self, rloc: IpAddr) {
        self.0.remove(&rloc);
    }

    /// `rlocs` by priority, those of equal priority by `turn`, so that they share the load; the silent ones last.
    pub(crate) fn order(&self, now: Instant, mut rlocs: Vec<Ranked>, turn: u64) -> Vec<IpAddr> {
        let is_silent =
            |rloc: &IpAddr| self.0.get(rloc).is_some_and(|since| now < *since + DDT_SILENCE);
        let count = rlocs.len().max(1) as u64;
        rlocs.rotate_left(usize::try_from(turn % count).unwrap_or(0));
        rlocs.sort_by_key(|(priority, rloc)| (is_silent(rloc), *priority));
        rlocs.into_iter().map(|(_, rloc)| rloc).collect()
    }
}

/// RLOCs of equal priority.
pub(crate) fn ranked(rlocs: &[IpAddr]) -> Vec<Ranked> {
    rlocs.iter().map(|&rloc| (1, rloc)).collect()
}

/// The RLOCs of a record that can be asked; priority 255 is not to be used.
pub(crate) fn usable_rlocs(record: &ReferralRecord) -> Vec<Ranked> {
    let mut usable: Vec<Ranked> = Vec::new();
    for referral in record.referrals.iter().filter(|referral| referral.priority < u8::MAX) {
        if let Some(rloc) = referral_rloc(&referral.address)
            && !usable.iter().any(|(_, other)| *other == rloc)
        {
            usable.push((referral.priority, rloc));
        }
    }
    usable.sort_by_key(|(priority, _)| *priority);
    usable.truncate(MAX_REFERRAL_RLOCS);
    usable
}

/// The RLOC of a referral: itself, or what a Security Key LCAF holds beside a node's public key (RFC 8111 §6.4, RFC 8060 §4.7).
fn referral_rloc(address: &Address) -> Option<IpAddr> {
    const SECURITY_KEY: u8 = 11;
    const BEFORE_KEY_LENGTH: usize = 4;
    let Address::Lcaf(Lcaf::Unknown { kind: SECURITY_KEY, body, .. }) = address else {
        return address.rloc();
    };
    let length: [u8; 2] = body.get(BEFORE_KEY_LENGTH..BEFORE_KEY_LENGTH + 2)?.try_into().ok()?;
    let after = body.get(BEFORE_KEY_LENGTH + 2 + usize::from(u16::from_be_bytes(length))..)?;
    match after {
        [0, 1, octets @ ..] => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        [0, 2, octets @ ..] => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}
