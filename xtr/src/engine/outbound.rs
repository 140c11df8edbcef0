//! What the worker is about to send: bursts of encapsulated packets, one system call each.
//!
//! A burst is what one `sendmsg` with UDP_SEGMENT takes: packets to one locator from one source port with equal TTL and TOS, all of
//! one size but the last, which may be smaller. A flow has one locator and port, and its bursts are queued in the order they were
//! begun, so its packets stay in order.
use super::buffers::BufferRef;
use super::udp::SendSockets;
use crate::counters::{Traffic, WorkerCounters};
use crate::drops::DropReason;
use crate::forward::Outer;
use crate::packet::{Family, OuterFields, lisp, mtu};
use libc::{c_int, c_void, iovec};
use socket2::SockAddr;
use std::net::{IpAddr, SocketAddr};

/// Bursts one worker can have under way.
const BURSTS: u16 = 256;
/// What every kernel with UDP_SEGMENT takes; newer ones take 128.
const MAX_SEGMENTS: u16 = 64;
/// The largest IPv4 UDP payload.
const MAX_OCTETS: usize = 65_507;
/// Octets per burst for headers and for packets too small to point at.
const SCRATCH_LEN: usize = 16 << 10;
/// A payload up to this long is copied: cheaper than another iovec, and its buffer is free at once.
const COPY_LEN: usize = 192;
/// Slots of the table of bursts that still take packets; a power of two.
const OPEN_SLOTS: usize = 1024;

/// A burst: the packets, and everything `sendmsg` points at. Stays in place while the kernel has it.
pub(super) struct Burst {
    socket: usize,
    destination: IpAddr,
    /// 4341, or what a NAT has translated it to.
    port: u16,
    fields: OuterFields,
    closed: bool,
    segment_size: usize,
    segments: u16,
    octets: usize,
    iovecs: [iovec; 2 * MAX_SEGMENTS as usize],
    iovec_count: usize,
    scratch: Box<[u8]>,
    scratch_used: usize,
    buffers: [BufferRef; MAX_SEGMENTS as usize],
    buffer_count: usize,
    name: SockAddr,
    control: Control,
    message: libc::msghdr,
}

/// All bursts of one worker.
pub(super) struct Bursts {
    slots: Box<[Burst]>,
    free: Vec<u16>,
    /// Begun since the last flush, in order.
    queue: Vec<u16>,
    open: Box<[OpenSlot]>,
    generation: u32,
    sockets: SendSockets,
    max_segments: u16,
}

#[derive(Clone, Copy, Default)]
struct OpenSlot {
    generation: u32,
    burst: u16,
}

impl Bursts {
    /// `zero_checksum` sockets cannot segment: then a burst is one packet.
    pub(super) fn new(sockets: SendSockets, zero_checksum: bool) -> Self {
        Self {
            slots: (0..BURSTS).map(|_| Burst::new()).collect(),
            free: (0..BURSTS).rev().collect(),
            queue: Vec::with_capacity(usize::from(BURSTS)),
            open: vec![OpenSlot::default(); OPEN_SLOTS].into(),
            generation: 1,
            sockets,
            max_segments: if zero_checksum { 1 } else { MAX_SEGMENTS },
        }
    }

    /// How many more bursts can begin.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Adds one packet. `current` is the buffer `payload` may point into; returns whether it does now for the first time in a
    /// burst, so that the buffer must stay for one more operation.
    pub(super) fn add(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
        current: &Current,
    ) -> Result<bool, DropReason> {
        let pointed = (payload.len() > COPY_LEN && current.holds(payload)).then_some(current);
        let len = headers.len() + payload.len();
        let copied = if pointed.is_some() { headers.len() } else { len };
        if copied > SCRATCH_LEN || len > MAX_OCTETS {
            return Err(DropReason::BuffersExhausted);
        }
        let socket = self.sockets.of(outer);
        // The slot of the flow even if this packet takes another socket: it ends the burst before it, which nothing may join any more.
        let flow_socket =
            self.sockets.of_flow(outer) ^ usize::from(outer.translated.unwrap_or(0)) << 16;
        let slot = open_slot(flow_socket, outer.destination);
        let open = self.open[slot];
        let max_segments = if outer.may_fragment { 1 } else { self.max_segments };
        let fits = |burst: &Burst| {
            burst.socket == socket
                && burst.destination == outer.destination
                && burst.port == outer.translated.unwrap_or(lisp::DATA_PORT)
                && burst.fields == outer.fields
                && burst.takes(len, copied, max_segments)
        };
        let index =
            if open.generation == self.generation && fits(&self.slots[usize::from(open.burst)]) {
                open.burst
            } else {
                let index = self.free.pop().ok_or(DropReason::BuffersExhausted)?;
                self.slots[usize::from(index)].begin(socket, outer, len);
                self.queue.push(index);
                self.open[slot] = OpenSlot { generation: self.generation, burst: index };
                index
            };
        Ok(self.slots[usize::from(index)].push(headers, payload, pointed))
    }

    /// Ends all bursts and yields them in the order they must be submitted.
    pub(super) fn flush(&mut self) -> impl Iterator<Item = (u16, usize, *const libc::msghdr)> {
        self.generation = self.generation.wrapping_add(1);
        let slots = &mut self.slots;
        self.queue.drain(..).map(|index| {
            let burst = &mut slots[usize::from(index)];
            (index, burst.socket, burst.message())
        })
    }

    /// A burst is done: counts it, frees it, and gives back the buffers it pointed into. If our own interface refused its packets for
    /// their size, returns where they went and the octets of the largest, headers included.
    pub(super) fn completed(
        &mut self,
        index: u16,
        result: i32,
        counters: &WorkerCounters,
        mut release: impl FnMut(BufferRef),
    ) -> Option<(IpAddr, usize)> {
        let burst = self.slots.get_mut(usize::from(index))?;
        let segments = u64::from(burst.segments);
        if result >= 0 {
            let lisp_headers = usize::from(burst.segments) * lisp::HEADER_LEN;
            counters.core_burst();
            let octets = burst.octets.saturating_sub(lisp_headers) as u64;
            counters.core_out(Traffic { packets: segments, octets });
        } else {
            counters.dropped(send_failure(-result), segments);
            if -result == libc::EIO && burst.segments > 1 {
                // The path cannot segment (no checksum offload, IPsec): every packet on its own from now on.
                self.max_segments = 1;
            }
        }
        burst.buffers[..burst.buffer_count].iter().for_each(|&buffer| release(buffer));
        burst.buffer_count = 0;
        self.free.push(index);
        is_refused_for_size(-result, burst.segments).then(|| burst.largest_packet())
    }
}

/// Kernels before 6.14 say EINVAL when the segments of a burst exceed the interface's MTU.
fn is_refused_for_size(errno: c_int, segments: u16) -> bool {
    errno == libc::EMSGSIZE || errno == libc::EINVAL && segments > 1
}

fn send_failure(errno: c_int) -> DropReason {
    match errno {
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropReason::BuffersExhausted,
        _ => DropReason::SendFailed,
    }
}

fn open_slot(socket: usize, destination: IpAddr) -> usize {
    let bits = match destination {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(32)
        }
    };
    let socket = (socket as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (bits ^ socket).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The highest bits depend on all others.
    (mixed >> (u64::BITS - OPEN_SLOTS.ilog2())) as usize
}

impl Burst {
    fn new() -> Self {
        Self {
            socket: 0,
            destination: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            port: lisp::DATA_PORT,
            fields: OuterFields { ttl: 0, tos: 0 },
            closed: true,
            segment_size: 0,
            segments: 0,
            octets: 0,
            iovecs: [EMPTY_IOVEC; 2 * MAX_SEGMENTS as usize],
            iovec_count: 0,
            scratch: vec![0; SCRATCH_LEN].into(),
            scratch_used: 0,
            buffers: [BufferRef::default(); MAX_SEGMENTS as usize],
            buffer_count: 0,
            name: SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0))),
            control: Control { octets: [0; 96], used: 0 },
            message: super::sys::empty_message(),
        }
    }

    fn begin(&mut self, socket: usize, outer: &Outer, len: usize) {
        self.socket = socket;
        self.destination = outer.destination;
        self.port = outer.translated.unwrap_or(lisp::DATA_PORT);
        self.fields = outer.fields;
        self.closed = false;
        self.segment_size = len;
        self.segments = 0;
        self.octets = 0;
        self.iovec_count = 0;
        self.scratch_used = 0;
        self.buffer_count = 0;
    }

    fn takes(&self, len: usize, copied: usize, max_segments: u16) -> bool {
        !self.closed
            && len <= self.segment_size
            && self.segments < max_segments
            && self.octets + len <= MAX_OCTETS
            && self.scratch_used + copied <= SCRATCH_LEN
    }

    /// Returns whether `pointed` is new among the buffers this burst points into.
    fn push(&mut self, headers: &[u8], payload: &[u8], pointed: Option<&Current>) -> bool {
        self.copy(headers);
        let mut new_buffer = false;
        match pointed {
            Some(current) => {
                self.push_iovec(payload.as_ptr(), payload.len());
                let known = self.buffers[..self.buffer_count].last() == Some(&current.buffer);
                if !known {
                    self.buffers[self.buffer_count] = current.buffer;
                    self.buffer_count += 1;
                    new_buffer = true;
                }
            }
            None => self.copy(payload),
        }
        let len = headers.len() + payload.len();
        self.segments += 1;
        self.octets += len;
        self.closed = len < self.segment_size;
        new_buffer
    }

    fn copy(&mut self, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let end = self.scratch_used + octets.len();
        let room = &mut self.scratch[self.scratch_used..end];
        room.copy_from_slice(octets);
        let start = room.as_ptr();
        self.push_iovec(start, octets.len());
        self.scratch_used = end;
    }

    fn push_iovec(&mut self, start: *const u8, len: usize) {
        if let Some(last) = self.iovecs[..self.iovec_count].last_mut()
            && last.iov_base.cast::<u8>().wrapping_add(last.iov_len).cast_const() == start
        {
            last.iov_len += len;
            return;
        }
        self.iovecs[self.iovec_count] =
            iovec { iov_base: start.cast_mut().cast::<c_void>(), iov_len: len };
        self.iovec_count += 1;
    }

    fn largest_packet(&self) -> (IpAddr, usize) {
        let overhead = mtu::overhead(Family::of(&self.destination)) - lisp::HEADER_LEN;
        (self.destination, self.segment_size + overhead)
    }

    /// Everything filled in; valid until the burst is begun anew.
    fn message(&mut self) -> *const libc::msghdr {
        self.name = SockAddr::from(SocketAddr::new(self.destination, self.port));
        let (ttl, tos) = (c_int::from(self.fields.ttl), c_int::from(self.fields.tos));
        self.control.clear();
        match self.destination {
            IpAddr::V4(_) => {
                self.control.push(libc::IPPROTO_IP, libc::IP_TTL, &ttl.to_ne_bytes());
                self.control.push(libc::IPPROTO_IP, libc::IP_TOS, &tos.to_ne_bytes());
            }
            IpAddr::V6(_) => {
                self.control.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &ttl.to_ne_bytes());
                self.control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos.to_ne_bytes());
            }
        }
        if self.segments > 1 {
            // At most MAX_OCTETS.
            let size = self.segment_size as u16;
            self.control.push(libc::IPPROTO_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
        self.message.msg_name = self.name.as_ptr().cast_mut().cast();
        self.message.msg_namelen = self.name.len();
        self.message.msg_iov = self.iovecs.as_mut_ptr();
        self.message.msg_iovlen = self.iovec_count as _;
        self.message.msg_control = self.control.octets.as_mut_ptr().cast();
        self.message.msg_controllen = self.control.used as _;
        &raw const self.message
    }
}

pub(super) const EMPTY_IOVEC: iovec = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// The buffer that the packet being forwarded lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) buffer: BufferRef,
    pub(super) start: *const u8,
    pub(super) len: usize,
}

impl Current {
    /// Whether `octets` lie in the buffer.
    pub(super) fn holds(&self, octets: &[u8]) -> bool {
        let range = self.start..self.start.wrapping_add(self.len);
        let octets = octets.as_ptr_range();
        range.start <= octets.start && octets.end <= range.end
    }
}

/// Ancillary data of one `sendmsg`, aligned as `struct cmsghdr` must be.
#[repr(align(8))]
struct Control {
    octets: [u8; 96],
    used: usize,
}

impl Control {
    const HEADER_LEN: usize = size_of::<usize>() + 2 * size_of::<c_int>();

    fn clear(&mut self) {
        self.used = 0;
    }

    /// Three messages with ints fit.
    fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let len = Self::HEADER_LEN + data.len();
        let aligned = len.next_multiple_of(size_of::<usize>());
        let room = &mut self.octets[self.used..self.used + aligned];
        let (length, rest) = room.split_at_mut(size_of::<usize>());
        length.copy_from_slice(&len.to_ne_bytes());
        rest[..4].copy_from_slice(&level.to_ne_bytes());
        rest[4..8].copy_from_slice(&kind.to_ne_bytes());
        rest[8..8 + data.len()].copy_from_slice(data);
        self.used += aligned;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bursts() -> Bursts {
        Bursts::new(super::super::udp::PortPool::new(4, 0).sockets(), false)
    }

    fn outer(port: u16, may_fragment: bool) -> Outer {
        Outer {
            own_rloc: 0,
            destination: IpAddr::from([198, 51, 100, 2]),
            port,
            translated: None,
            fields: OuterFields { ttl: 64, tos: 0 },
            may_fragment,
        }
    }

    fn add(bursts: &mut Bursts, outer: &Outer, len: usize) {
        let nowhere = Current { buffer: BufferRef::default(), start: std::ptr::null(), len: 0 };
        let new_buffer = bursts.add(outer, &[0; 8], &vec![0; len], &nowhere);
        assert_eq!(new_buffer, Ok(false), "all is copied");
    }

    /// Segments per burst, in the order of submission.
    fn segments(bursts: &mut Bursts) -> Vec<(u16, u16)> {
        let order: Vec<u16> = bursts.flush().map(|(index, ..)| index).collect();
        order.into_iter().map(|index| (index, bursts.slots[usize::from(index)].segments)).collect()
    }

    #[test]
    fn flows_of_many_ports_or_locators_keep_their_bursts_open() {
        let locator = |last: u8| [IpAddr::from([198, 51, 100, last]), IpAddr::from([0x20; 16])];
        for [v4, v6] in (0..=255).map(locator) {
            for destination in [v4, v6] {
                let slots: std::collections::HashSet<_> =
                    (0..64).map(|socket| open_slot(socket, destination)).collect();
                assert!(slots.len() >= 48, "{destination}: {}", slots.len());
            }
        }
        let slots: std::collections::HashSet<_> =
            (0..=255).map(|last| open_slot(7, locator(last)[0])).collect();
        assert!(slots.len() >= 192, "{}", slots.len());
    }

    #[test]
    fn mt_08_a_flow_stays_in_order_when_a_packet_may_be_fragmented_outside() {
        let mut bursts = bursts();
        for may_fragment in [false, true, false] {
            add(&mut bursts, &outer(1, may_fragment), 100);
        }
        let counts: Vec<u16> = segments(&mut bursts).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 1], "the third does not join the first");
    }

    #[test]
    fn mt_10_a_burst_too_large_for_the_interface_is_told_from_other_failures() {
        for (packets, errno, refused) in [
            (1, libc::EMSGSIZE, true),
            (2, libc::EMSGSIZE, true),
            (2, libc::EINVAL, true),
            (1, libc::EINVAL, false),
            (2, libc::ENETUNREACH, false),
        ] {
            let counters = WorkerCounters::default();
            let mut bursts = bursts();
            (0..packets).for_each(|_| add(&mut bursts, &outer(0, false), 100));
            let [(index, count)] = segments(&mut bursts)[..] else { panic!("one burst") };
            assert_eq!(count, packets);
            let told = bursts.completed(index, -errno, &counters, |_| panic!("no buffer"));
            let largest = (IpAddr::from([198, 51, 100, 2]), 108 + 28);
            assert_eq!(told, refused.then_some(largest), "{packets} packets, errno {errno}");
            assert_eq!(counters.snapshot().dropped(DropReason::SendFailed), u64::from(packets));
            assert_eq!(bursts.room(), usize::from(BURSTS));
        }
    }
}
