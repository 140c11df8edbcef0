//! Where the forwarding path puts the packets of one buffer: into bursts and writes that point there.
use super::buffers::BufferRef;
use super::outbound::{Bursts, Current};
use super::writes::Writes;
use crate::counters::Traffic;
use crate::drops::DropReason;
use crate::forward::{Outer, Output};
use crate::packet::Inner;

/// The slots of one worker, while one buffer is being forwarded.
pub(super) struct Outbound<'a> {
    bursts: &'a mut Bursts,
    writes: &'a mut Writes,
    current: Current,
    /// Operations that point into the buffer.
    operations: u16,
}

impl<'a> Outbound<'a> {
    pub(super) fn new(
        bursts: &'a mut Bursts,
        writes: &'a mut Writes,
        buffer: BufferRef,
        octets: &[u8],
    ) -> Self {
        let current = Current { buffer, start: octets.as_ptr(), len: octets.len() };
        Self { bursts, writes, current, operations: 0 }
    }

    /// How many operations point into the buffer now.
    pub(super) const fn operations(&self) -> u16 {
        self.operations
    }

    fn added(&mut self, result: Result<bool, DropReason>) -> Result<(), DropReason> {
        self.operations += u16::from(result?);
        Ok(())
    }
}

impl Output for Outbound<'_> {
    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let result = self.bursts.add(outer, headers, payload, &self.current);
        self.added(result)
    }

    fn forwarded(&mut self, frame: &[u8], traffic: Traffic) -> Result<(), DropReason> {
        let result = self.writes.add_frame(frame, traffic, &self.current);
        self.added(result)
    }

    fn delivered(
        &mut self,
        flow_hash: u64,
        inner: &Inner,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let result = self.writes.add_packet(flow_hash, inner, packet, &self.current);
        self.added(result)
    }
}
