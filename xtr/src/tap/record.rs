//! What a tap keeps of a packet: fixed size, no pointers.
use crate::drops::DropReason;
use crate::packet::{Inner, OuterFields};
use mapping::admin::{Direction, Side, TapVerdict};
use std::net::IpAddr;
use std::time::Instant;

/// Octets kept of each packet, from the inner header or, on the core side, from the LISP header on.
pub const SNAP_LEN: usize = 256;

/// A packet on one side of the router.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at: Instant,
    pub(super) side: Side,
    pub(super) direction: Direction,
    pub(super) verdict: TapVerdict,
    pub(super) reason: Option<DropReason>,
    /// It waited for its mapping.
    pub(super) waited: bool,
    pub(super) inner: Option<Inner>,
    /// The remote RLOC, if there is one.
    pub(super) rloc: Option<IpAddr>,
    pub(super) outer: Option<OuterRecord>,
    /// Packets that left for it; of several, the first is shown.
    pub(super) pieces: u32,
    /// Octets of the packet, or of LISP header and packet.
    pub(super) len: usize,
    pub(super) kept: usize,
    pub(super) octets: [u8; SNAP_LEN],
}

/// The outer header of a packet on the core side.
#[derive(Clone, Copy, Debug)]
pub(super) struct OuterRecord {
    /// Index of the own RLOC; unknown of what came in.
    pub(super) own_rloc: Option<usize>,
    pub(super) remote: IpAddr,
    /// Index of the own source port; unknown of what came in.
    pub(super) port: Option<u16>,
    /// The destination port if a NAT has translated it; the source port is 4342 then.
    pub(super) translated: Option<u16>,
    pub(super) fields: OuterFields,
}

impl Record {
    pub(super) fn new(at: Instant, side: Side, direction: Direction) -> Self {
        Self {
            at,
            side,
            direction,
            verdict: TapVerdict::Dropped,
            reason: None,
            waited: false,
            inner: None,
            rloc: None,
            outer: None,
            pieces: 0,
            len: 0,
            kept: 0,
            octets: [0; SNAP_LEN],
        }
    }

    /// Keeps the start of `parts`, one after the other.
    pub(super) fn keep(&mut self, parts: [&[u8]; 2]) {
        (self.len, self.kept) = (parts[0].len() + parts[1].len(), 0);
        for part in parts {
            let room = &mut self.octets[self.kept..];
            let len = part.len().min(room.len());
            room[..len].copy_from_slice(&part[..len]);
            self.kept += len;
        }
    }
}
