//! From a verdict to packets behind LISP headers: locator, MTU, segments, fragments.
use super::{Forwarder, Outer, Output, Step, Work};
use crate::counters::{Families, Traffic, WorkerCounters};
use crate::drops::DropReason;
use crate::fib::{Adjacency, LocatorSet, Ports, select};
use crate::packet::{
    Family, Fit, Fragments, IcmpError, Inner, MAX_HEADERS_LEN, Offload, Segments, checksum, flow,
    lisp, mtu,
};
use crate::policy::Policy;
use mapping::eid::InstanceId;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Room for the headers of one piece; and, only for a segment that must itself be fragmented, for the whole segment.
#[derive(Debug)]
pub(super) struct Scratch {
    headers: [u8; lisp::HEADER_LEN + MAX_HEADERS_LEN],
    fragment_headers: [u8; lisp::HEADER_LEN + MAX_HEADERS_LEN],
    segment: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            headers: [0; lisp::HEADER_LEN + MAX_HEADERS_LEN],
            fragment_headers: [0; lisp::HEADER_LEN + MAX_HEADERS_LEN],
            segment: Vec::new(),
        }
    }
}

impl<P: Policy> Forwarder<P> {
    /// Sends one packet or super-packet to a locator of `set`.
    pub(super) fn encapsulate<O: Output>(
        &mut self,
        now: Instant,
        set: &LocatorSet,
        instance_id: InstanceId,
        mut work: Work<'_>,
        out: &mut O,
    ) {
        let (adjacency, outer) = match self.route(set, &work, out) {
            Ok(route) => route,
            Err(reason) => return self.discard(reason, work.traffic.packets, out),
        };
        let mtu = self.path_mtus.effective(now, &adjacency.destination, adjacency.mtu);
        let limit = mtu::inner_limit(mtu, Family::of(&adjacency.destination));
        let segments = match self.prepare(&mut work) {
            Ok(segments) => segments,
            Err(reason) => return self.discard(reason, work.traffic.packets, out),
        };
        let len = segments.as_ref().map_or(work.inner.total_len, Segments::packet_len);
        let fit = mtu::check(&work.inner, len, limit);
        out.step(Step::Sized { mtu, limit, len, fit });
        if let Fit::TooBig(mtu) = fit {
            self.answer(now, &work, IcmpError::TooBig(mtu), out);
            return self.discard(DropReason::PacketTooBig, work.traffic.packets, out);
        }
        // What does not go out counts for nothing.
        if let Err(reason) =
            self.limit_outgoing(now, set, adjacency.destination, work.traffic.packets)
        {
            return self.discard(reason, work.traffic.packets, out);
        }
        let to = (set, adjacency.destination);
        let lisp = self.lisp_header(to, instance_id, work.inner.source, out);
        let mut emit = Emit {
            outer: Outer { may_fragment: fit == Fit::FitsFragmentedOutside, ..outer },
            lisp,
            counters: &self.counters,
            out,
            sent: Traffic::default(),
        };
        let fragment_to = (fit == Fit::Fragment).then_some(limit);
        match (segments, fragment_to) {
            (None, None) => emit.whole(&mut work),
            (None, Some(limit)) => {
                emit.fragments(work.packet(), &work.inner, limit, &mut self.scratch.headers);
            }
            (Some(segments), None) => {
                emit.segments(segments, work.packet(), &mut self.scratch.headers);
            }
            (Some(segments), Some(limit)) => {
                emit.fragmented_segments(segments, work.packet(), limit, &mut self.scratch);
            }
        }
        let sent = emit.sent;
        if O::IS_LIVE {
            let families =
                Families::of(work.inner.source.is_ipv6(), adjacency.destination.is_ipv6());
            self.count_sent(set, adjacency, work.from_core, families, sent);
        }
    }

    /// The locator of the packet's flow and the outer header towards it.
    fn route<'a>(
        &self,
        set: &'a LocatorSet,
        work: &Work<'_>,
        out: &mut impl Output,
    ) -> Result<(&'a Adjacency, Outer), DropReason> {
        let inner = &work.inner;
        let hash = self.hasher.hash(inner);
        let adjacency = select(set, hash).ok_or(DropReason::NoUsableLocator)?;
        let rlocs = &self.settings.rlocs;
        let own_rloc = rlocs.iter().position(|rloc| *rloc == adjacency.source);
        let own_rloc = own_rloc.ok_or(DropReason::NoUsableLocator)?;
        let outer = Outer {
            own_rloc,
            destination: adjacency.destination,
            port: match adjacency.ports {
                Ports::ByFlow => flow::source_port_index(hash, self.settings.source_ports),
                Ports::Static | Ports::Translated(_) => 0,
            },
            translated: match adjacency.ports {
                Ports::Translated(port) => Some(port),
                Ports::ByFlow | Ports::Static => None,
            },
            fields: self.settings.marking.outer_fields(inner),
            may_fragment: false,
        };
        out.step(Step::Chosen { set, adjacency, flow_hash: hash, outer: &outer });
        if rlocs.contains(&adjacency.destination) {
            return Err(DropReason::EncapsulationLoop);
        }
        if lisp::is_data(inner) && lisp::nesting(work.packet(), inner) >= lisp::MAX_NESTING {
            return Err(DropReason::NestedTooDeep);
        }
        Ok((adjacency, outer))
    }

    /// Completes a partial checksum; the segments of a super-packet.
    #[inline(always)]
    fn prepare(&self, work: &mut Work<'_>) -> Result<Option<Segments>, DropReason> {
        match Offload::of(&work.virtio) {
            Offload::None => Ok(None),
            Offload::Checksum { csum_start, csum_offset } => {
                // Nothing may be written over the headers that the packet was judged by.
                if usize::from(csum_start) < work.inner.transport_offset {
                    return Err(DropReason::InnerMalformed);
                }
                checksum::complete(work.packet_mut(), csum_start, csum_offset)?;
                Ok(None)
            }
            Offload::Segment => Segments::new(work.packet(), &work.inner, &work.virtio).map(Some),
        }
    }

    fn count_sent(
        &self,
        set: &LocatorSet,
        adjacency: &Adjacency,
        from_core: bool,
        families: Families,
        sent: Traffic,
    ) {
        if sent.packets == 0 {
            return;
        }
        if from_core {
            self.counters.reencapsulated(families, sent.packets);
        } else {
            self.counters.encapsulated(families, sent.packets);
        }
        adjacency.traffic.add_shared(sent.packets, sent.octets);
        // Workers share the lines: write them once a second, not per packet.
        for last_used in [&set.last_used, &*adjacency.used] {
            if last_used.load(Ordering::Relaxed) != self.clock {
                last_used.store(self.clock, Ordering::Relaxed);
            }
        }
    }
}

/// Hands the pieces of one packet to the output and counts them.
struct Emit<'a, O> {
    outer: Outer,
    lisp: [u8; lisp::HEADER_LEN],
    counters: &'a WorkerCounters,
    out: &'a mut O,
    sent: Traffic,
}

impl<O: Output> Emit<'_, O> {
    /// The packet as it is: its LISP header goes right before it, over what is no longer needed.
    fn whole(&mut self, work: &mut Work<'_>) {
        let start = work.start - lisp::HEADER_LEN;
        work.frame[start..work.start].copy_from_slice(&self.lisp);
        let end = work.start + work.inner.total_len;
        self.emit(&[], &work.frame[start..end]);
    }

    fn segments(&mut self, mut segments: Segments, packet: &[u8], scratch: &mut [u8]) {
        scratch[..lisp::HEADER_LEN].copy_from_slice(&self.lisp);
        while let Some(piece) = segments.next_into(packet, &mut scratch[lisp::HEADER_LEN..]) {
            self.emit(&scratch[..lisp::HEADER_LEN + piece.headers_len], &packet[piece.payload]);
        }
    }

    fn fragments(&mut self, packet: &[u8], inner: &Inner, limit: usize, scratch: &mut [u8]) {
        let Some(mut fragments) = Fragments::new(packet, inner, limit) else {
            return self.dropped(DropReason::PacketTooBig);
        };
        self.counters.fragments_created((fragments.remaining() as u64).saturating_sub(1));
        scratch[..lisp::HEADER_LEN].copy_from_slice(&self.lisp);
        while let Some(piece) = fragments.next_into(packet, &mut scratch[lisp::HEADER_LEN..]) {
            self.emit(&scratch[..lisp::HEADER_LEN + piece.headers_len], &packet[piece.payload]);
        }
    }

    /// IPv4 segments without DF that are larger than the path: each is put together, then fragmented.
    #[cold]
    fn fragmented_segments(
        &mut self,
        mut segments: Segments,
        packet: &[u8],
        limit: usize,
        scratch: &mut Scratch,
    ) {
        while let Some(piece) = segments.next_into(packet, &mut scratch.headers) {
            scratch.segment.clear();
            scratch.segment.extend_from_slice(&scratch.headers[..piece.headers_len]);
            scratch.segment.extend_from_slice(&packet[piece.payload]);
            match Inner::parse(&scratch.segment) {
                Ok(inner) if inner.total_len <= limit => {
                    self.emit(&self.lisp.clone(), &scratch.segment);
                }
                Ok(inner) => {
                    let headers = &mut scratch.fragment_headers;
                    self.fragments(&scratch.segment, &inner, limit, headers);
                }
                Err(reason) => self.dropped(reason),
            }
        }
    }

    fn dropped(&mut self, reason: DropReason) {
        self.out.step(Step::Dropped(reason));
        self.counters.dropped(reason, 1);
    }

    fn emit(&mut self, headers: &[u8], payload: &[u8]) {
        match self.out.encapsulated(&self.outer, headers, payload) {
            Ok(()) => {
                self.sent += Traffic::packet(headers.len() + payload.len() - lisp::HEADER_LEN);
            }
            Err(reason) => self.dropped(reason),
        }
    }
}
