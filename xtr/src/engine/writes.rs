//! What the worker is about to write to the TUN: single packets, and super-packets merged from consecutive segments of a flow.
use super::buffers::BufferRef;
use super::outbound::{Current, EMPTY_IOVEC};
use crate::counters::{Traffic, WorkerCounters};
use crate::drops::DropReason;
use crate::packet::coalesce::MAX_PACKETS;
use crate::packet::{Coalescer, Inner, MAX_HEADERS_LEN, Offer, VirtioNetHeader};
use libc::iovec;
use std::ops::Range;
use zerocopy::IntoBytes;

/// Writes one worker can have under way.
const WRITES: u16 = 256;
/// Flows merged at a time: so many sets, a power of two, each with so many ways. Two flows that shared a place would end each other's
/// super-packets with every packet.
const SETS: usize = 64;
const WAYS: usize = 8;
/// Room for the virtio-net header and the headers of a super-packet.
const HEAD_LEN: usize = VirtioNetHeader::LEN + MAX_HEADERS_LEN;

/// One write, and everything it points at. Stays in place while the kernel has it.
struct Write {
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// The first is for the head.
    iovecs: [iovec; MAX_PACKETS + 1],
    iovec_count: usize,
    buffers: [BufferRef; MAX_PACKETS],
    buffer_count: usize,
    traffic: Traffic,
}

/// A super-packet that still grows.
#[derive(Default)]
struct Merger {
    coalescer: Coalescer,
    write: Option<u16>,
    /// Of the flow that it is, or was last, for.
    flow_hash: u64,
}

/// All writes of one worker.
pub(super) struct Writes {
    slots: Box<[Write]>,
    free: Vec<u16>,
    /// Begun since the last flush, in order.
    queue: Vec<u16>,
    mergers: Box<[Merger]>,
    /// The mergers used since the last flush, some of them more than once.
    used: Vec<u16>,
    /// Which way of a set goes next when all are in use.
    victim: u8,
}

impl Writes {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..WRITES).map(|_| Write::new()).collect(),
            free: (0..WRITES).rev().collect(),
            queue: Vec::with_capacity(usize::from(WRITES)),
            mergers: (0..SETS * WAYS).map(|_| Merger::default()).collect(),
            used: Vec::with_capacity(SETS * WAYS),
            victim: 0,
        }
    }

    /// How many more writes can begin.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Adds a frame as it is: virtio-net header and packet, `traffic` in all. Returns like [`super::outbound::Bursts::add`].
    pub(super) fn add_frame(
        &mut self,
        frame: &[u8],
        traffic: Traffic,
        current: &Current,
    ) -> Result<bool, DropReason> {
        let index = self.begin()?;
        let write = &mut self.slots[usize::from(index)];
        write.head_len = 0;
        write.traffic = traffic;
        Ok(write.push(frame, current))
    }

    /// Adds one packet, to a super-packet of its flow if it fits. Returns like [`super::outbound::Bursts::add`].
    pub(super) fn add_packet(
        &mut self,
        flow_hash: u64,
        inner: &Inner,
        packet: &[u8],
        current: &Current,
    ) -> Result<bool, DropReason> {
        let slot = self.merger_of(flow_hash);
        if self.mergers[slot].coalescer.packets() >= MAX_PACKETS {
            self.finish(slot);
        }
        let mut offer = self.mergers[slot].coalescer.offer(packet, inner);
        if matches!(offer, Offer::Refused) {
            self.finish(slot);
            offer = self.mergers[slot].coalescer.offer(packet, inner);
        }
        match offer {
            Offer::Joined(payload) => match self.mergers[slot].write {
                Some(index) => Ok(self.append(index, packet, payload, current)),
                None => Err(DropReason::BuffersExhausted),
            },
            Offer::Started(payload) => match self.begin() {
                Ok(index) => {
                    self.mergers[slot].write = Some(index);
                    self.used.push(slot as u16);
                    Ok(self.append(index, packet, payload, current))
                }
                Err(reason) => {
                    // Nothing may be left pending without a write to go into.
                    let _ = self.mergers[slot].coalescer.take();
                    Err(reason)
                }
            },
            Offer::Alone | Offer::Refused => {
                let index = self.begin()?;
                let write = &mut self.slots[usize::from(index)];
                write.set_head(VirtioNetHeader::default(), &[]);
                Ok(self.append(index, packet, 0..packet.len(), current))
            }
        }
    }

    /// Ends all super-packets and yields the writes in the order they must be submitted.
    pub(super) fn flush(&mut self) -> impl Iterator<Item = (u16, *const iovec, u32)> {
        while let Some(slot) = self.used.pop() {
            self.finish(usize::from(slot));
        }
        let slots = &mut self.slots;
        self.queue.drain(..).map(|index| {
            let (iovecs, count) = slots[usize::from(index)].message();
            (index, iovecs, count)
        })
    }

    /// A write is done: counts it, frees it, and gives back the buffers it pointed into.
    pub(super) fn completed(
        &mut self,
        index: u16,
        result: i32,
        counters: &WorkerCounters,
        mut release: impl FnMut(BufferRef),
    ) {
        let Some(write) = self.slots.get_mut(usize::from(index)) else { return };
        if result >= 0 {
            counters.native_write();
            counters.native_out(write.traffic);
        } else {
            counters.dropped(DropReason::TunWriteFailed, write.traffic.packets);
        }
        write.buffers[..write.buffer_count].iter().for_each(|&buffer| release(buffer));
        write.buffer_count = 0;
        self.free.push(index);
    }

    /// The merger of a flow: the one that has it, else a free one, else one whose flow has to end.
    fn merger_of(&mut self, flow_hash: u64) -> usize {
        let first = flow_hash as usize % SETS * WAYS;
        let ways = &self.mergers[first..first + WAYS];
        let own = |merger: &Merger| merger.write.is_some() && merger.flow_hash == flow_hash;
        let way = ways.iter().position(own);
        let way = way.or_else(|| ways.iter().position(|merger| merger.write.is_none()));
        let way = way.unwrap_or_else(|| {
            self.victim = self.victim.wrapping_add(1);
            let way = usize::from(self.victim) % WAYS;
            self.finish(first + way);
            way
        });
        self.mergers[first + way].flow_hash = flow_hash;
        first + way
    }

    fn begin(&mut self) -> Result<u16, DropReason> {
        let index = self.free.pop().ok_or(DropReason::BuffersExhausted)?;
        self.slots[usize::from(index)].clear();
        self.queue.push(index);
        Ok(index)
    }

    fn append(
        &mut self,
        index: u16,
        packet: &[u8],
        payload: Range<usize>,
        current: &Current,
    ) -> bool {
        let write = &mut self.slots[usize::from(index)];
        write.traffic += Traffic::packet(packet.len());
        write.push(&packet[payload], current)
    }

    fn finish(&mut self, slot: usize) {
        let merger = &mut self.mergers[slot];
        if let (Some(index), Some(merged)) = (merger.write.take(), merger.coalescer.take()) {
            self.slots[usize::from(index)].set_head(merged.virtio, merged.headers);
        }
    }
}

impl Write {
    fn new() -> Self {
        Self {
            head: [0; HEAD_LEN],
            head_len: 0,
            iovecs: [EMPTY_IOVEC; MAX_PACKETS + 1],
            iovec_count: 1,
            buffers: [BufferRef::default(); MAX_PACKETS],
            buffer_count: 0,
            traffic: Traffic::default(),
        }
    }

    fn clear(&mut self) {
        self.head_len = 0;
        self.iovec_count = 1;
        self.buffer_count = 0;
        self.traffic = Traffic::default();
    }

    fn set_head(&mut self, virtio: VirtioNetHeader, headers: &[u8]) {
        let end = VirtioNetHeader::LEN + headers.len();
        self.head[..VirtioNetHeader::LEN].copy_from_slice(virtio.as_bytes());
        self.head[VirtioNetHeader::LEN..end].copy_from_slice(headers);
        self.head_len = end;
    }

    /// Returns whether the buffer is new to this write.
    fn push(&mut self, octets: &[u8], current: &Current) -> bool {
        assert!(current.holds(octets), "written octets must stay until the write is done");
        if !octets.is_empty() {
            self.iovecs[self.iovec_count] =
                iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
            self.iovec_count += 1;
        }
        let known = self.buffers[..self.buffer_count].last() == Some(&current.buffer);
        if !known {
            self.buffers[self.buffer_count] = current.buffer;
            self.buffer_count += 1;
        }
        !known
    }

    /// The iovecs, without that of the head if there is none.
    fn message(&mut self) -> (*const iovec, u32) {
        self.iovecs[0] = iovec { iov_base: self.head.as_mut_ptr().cast(), iov_len: self.head_len };
        let skipped = usize::from(self.head_len == 0);
        (self.iovecs[skipped..].as_ptr(), (self.iovec_count - skipped) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::Pool;
    use super::*;
    use crate::packet::checksum;
    use std::net::IpAddr;

    /// A UDP packet of 60 octets, numbered in its payload, of flow `flow`.
    fn packet(flow: u8, number: u8) -> Vec<u8> {
        let mut packet = vec![0; 60];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 17]);
        packet[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        let sum = checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&sum);
        packet[20..26].copy_from_slice(&[0, flow, 0, 9, 0, 40]);
        packet[28] = number;
        let pseudo = checksum::pseudo_header(
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from([192, 0, 2, 2]),
            17,
            40,
        );
        let sum = pseudo.add_octets(&packet[20..]).complement();
        packet[26..28].copy_from_slice(&sum);
        packet
    }

    fn add(writes: &mut Writes, flow: u8, packet: &[u8], buffer: u16) -> bool {
        add_hashed(writes, u64::from(flow), packet, buffer)
    }

    fn add_hashed(writes: &mut Writes, flow_hash: u64, packet: &[u8], buffer: u16) -> bool {
        let buffer = BufferRef { pool: Pool::Udp, id: buffer };
        let current = Current { buffer, start: packet.as_ptr(), len: packet.len() };
        let inner = Inner::parse(packet).unwrap();
        writes.add_packet(flow_hash, &inner, packet, &current).unwrap()
    }

    /// Number of packets and of buffers per write, in order.
    fn flushed(writes: &mut Writes) -> Vec<(u64, usize)> {
        let order: Vec<u16> = writes.flush().map(|(index, ..)| index).collect();
        let write = |index: u16| &writes.slots[usize::from(index)];
        order
            .into_iter()
            .map(|index| (write(index).traffic.packets, write(index).buffer_count))
            .collect()
    }

    #[test]
    fn de_02_single_datagrams_of_a_flow_become_one_write_each_buffer_used_once() {
        // What UDP GRO does not merge, because the outer checksum is zero, comes in a buffer per packet.
        let packets: Vec<Vec<u8>> = (0..3 * 70).map(|n| packet((n % 3) as u8, n as u8)).collect();
        let mut writes = Writes::new();
        for (buffer, packet) in (0..).zip(&packets) {
            assert!(add(&mut writes, (buffer % 3) as u8, packet, buffer), "the buffer must stay");
        }
        // Three flows interleaved, 70 packets each: at most MAX_PACKETS in a write, the first ones first.
        let max = MAX_PACKETS as u64;
        let counts = flushed(&mut writes);
        let expected = [max, max, max, 70 - max, 70 - max, 70 - max].map(|n| (n, n as usize));
        assert_eq!(counts, expected);
    }

    #[test]
    fn flows_of_one_set_do_not_end_each_others_super_packets() {
        const ROUNDS: usize = 4;
        let flows = WAYS as u8;
        let packets: Vec<Vec<u8>> =
            (0..ROUNDS).flat_map(|n| (0..flows).map(move |flow| packet(flow, n as u8))).collect();
        let mut writes = Writes::new();
        for (buffer, packet) in (0..).zip(&packets) {
            let flow = u64::from(buffer) % u64::from(flows);
            add_hashed(&mut writes, flow * SETS as u64, packet, buffer);
        }
        assert_eq!(flushed(&mut writes), vec![(ROUNDS as u64, ROUNDS); WAYS]);
        assert!(writes.used.is_empty(), "nothing is left to finish");
    }

    #[test]
    fn with_more_flows_than_ways_nothing_is_lost() {
        let flows = 3 * WAYS as u8;
        let packets: Vec<Vec<u8>> = (0..2 * flows).map(|n| packet(n % flows, n / flows)).collect();
        let mut writes = Writes::new();
        for (buffer, packet) in (0..).zip(&packets) {
            let flow = u64::from(buffer) % u64::from(flows);
            add_hashed(&mut writes, flow * SETS as u64, packet, buffer);
        }
        let counts = flushed(&mut writes);
        assert_eq!(counts.iter().map(|(packets, _)| packets).sum::<u64>(), 2 * u64::from(flows));
    }

    #[test]
    fn a_packet_that_cannot_be_merged_keeps_its_place_in_its_flow() {
        let mut broken = packet(1, 1);
        broken[59] ^= 1;
        let packets = [packet(1, 0), broken, packet(1, 2), packet(1, 3)];
        let mut writes = Writes::new();
        for (buffer, packet) in (0..).zip(&packets) {
            add(&mut writes, 1, packet, buffer);
        }
        assert_eq!(flushed(&mut writes), [(1, 1), (1, 1), (2, 2)]);
    }
}
