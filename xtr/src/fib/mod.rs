//! The forwarding table: EID to verdict. Written by the control plane, read by the workers without a lock.
//!
//! `trie` is the longest-prefix match in the memory of `cells`; its results are numbers of `verdicts`. `table` holds two copies of both,
//! one to read while the other is written. `recent` is what each reader remembers, `select` chooses the locator of a flow.
use crate::counters::TrafficCounters;
use crate::drops::DropReason;
use crate::marks::EntryMarks;
use mapping::eid::EidPrefix;
use std::net::IpAddr;
use std::sync::Arc;

mod cells;
mod recent;
mod select;
mod table;
mod trie;
mod verdicts;

pub use select::{LocatorTables, select};
pub use table::{FibReader, FibReaderFactory, FibView, FibWriter};

/// What to do with a packet for an EID.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Encapsulate to one of these.
    Encapsulate(Arc<LocatorSet>),
    /// Forward natively.
    Native,
    /// Drop and count.
    Drop(DropReason),
    /// Nothing known (or ACT Send-Map-Request): ask the control plane.
    Miss,
}

impl Verdict {
    /// Whether nothing is known.
    pub const fn is_miss(&self) -> bool {
        matches!(self, Self::Miss)
    }
}

/// The usable locators of one mapping: best priority only, reachable, of a family we have.
#[derive(Debug)]
pub struct LocatorSet {
    /// At least one; sorted by address.
    pub adjacencies: Box<[Adjacency]>,
    /// When the entry last carried a packet, in whole seconds of the engine's coarse clock; 0 = never.
    pub last_used: std::sync::atomic::AtomicU32,
    /// In a trusted core, what LISP headers say of the mapping.
    pub marks: Option<Box<EntryMarks>>,
    /// Which adjacency a flow takes; none for fewer than two.
    table: Option<Arc<select::Table>>,
}

impl LocatorSet {
    /// A set by itself of `adjacencies`, sorted by address, last used at `last_used`; see [`LocatorTables::locator_set`] for one
    /// that takes the place of another.
    pub fn new(adjacencies: impl Into<Box<[Adjacency]>>, last_used: u32) -> Self {
        let adjacencies = adjacencies.into();
        let table = select::first_table(&adjacencies);
        Self { adjacencies, last_used: last_used.into(), marks: None, table }
    }

    /// With these marks.
    #[must_use]
    pub fn with_marks(self, marks: Option<EntryMarks>) -> Self {
        Self { marks: marks.map(Box::new), ..self }
    }
}

/// One locator to encapsulate to.
#[derive(Debug)]
pub struct Adjacency {
    /// Own RLOC, same family as `destination`.
    pub source: IpAddr,
    /// The remote RLOC.
    pub destination: IpAddr,
    /// Weight among the set; all equal (0 included) means an even split (MC-21).
    pub weight: u8,
    /// L: the largest outer packet towards this locator, octets.
    pub mtu: u16,
    /// What went this way; shared by successive versions of the entry.
    pub traffic: Arc<TrafficCounters>,
    /// From which port to which.
    pub ports: Ports,
    /// When the locator last carried a packet of any entry, on the clock of [`LocatorSet::last_used`]; shared by all of them.
    pub used: Arc<std::sync::atomic::AtomicU32>,
}

/// The outer UDP ports towards a locator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// From the port of the flow to 4341.
    #[default]
    ByFlow,
    /// From one port to 4341, whatever the flow: behind a NAT every port is a binding (draft-ermagan-lisp-nat-traversal §5.1.3).
    Static,
    /// From 4342 to this port, which a NAT has translated 4341 to (§5.3.1).
    Translated(u16),
}

/// A change to the forwarding table.
#[derive(Clone, Debug)]
pub enum FibUpdate {
    /// Insert or replace.
    Insert(EidPrefix, Verdict),
    /// Remove exactly this prefix.
    Remove(EidPrefix),
}

#[cfg(test)]
mod tests;
