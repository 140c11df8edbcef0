//! PURE. One verdict for the datagrams of one received train: the first is judged, and those whose headers say the same share its verdict.
//!
//! A verdict may be shared only while nothing but the headers and the role's rules make it: not while somebody taps, sources are
//! verified, rates limited or marks heeded. Then, and for whatever differs, each datagram is judged alone.
use super::{Forwarder, Output, lisp};
use crate::counters::{Families, Traffic};
use crate::fib::FibView;
use crate::packet::headers::{Ipv4Header, Ipv6Header, protocol};
use crate::packet::{FlowHasher, Fragment, Inner, OuterFields, decapsulate};
use crate::policy::{Onward, Policy};
use std::net::IpAddr;
use std::time::Instant;

/// Source and destination port.
const PORTS_LEN: usize = 4;
const V4_LEN: usize = lisp::HEADER_LEN + Ipv4Header::LEN + PORTS_LEN;
/// The longest headers that are compared: LISP, IPv6, ports.
const V6_LEN: usize = lisp::HEADER_LEN + Ipv6Header::LEN + PORTS_LEN;

/// The headers of a datagram that was delivered, and what became of it.
struct Shape {
    /// As they came.
    head: [u8; V6_LEN],
    inner: Inner,
    families: Families,
    flow_hash: u64,
    onward: Onward,
}

/// What shared a verdict, to be counted at once.
#[derive(Default)]
struct Shared {
    core_in: Traffic,
    delivered: Traffic,
}

impl<P: Policy> Forwarder<P> {
    /// The datagrams of one train, each of `segment_size` octets but the last, as [`Self::from_core`] would take one after the other.
    pub fn train_from_core(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        (source, outer): (IpAddr, OuterFields),
        (train, segment_size): (&mut [u8], usize),
        out: &mut impl Output,
    ) {
        let may_share = train.len() > segment_size
            && self.tap.is_none()
            && self.sources.is_none()
            && self.limiter.is_none()
            && self.trusted.is_none();
        let mut shape: Option<Shape> = None;
        let mut shared = Shared::default();
        for datagram in train.chunks_mut(segment_size.max(1)) {
            if let Some(shape) = &shape
                && let Some(inner) = shape.fits(datagram)
            {
                self.share(shape, inner, outer, datagram, &mut shared, out);
                continue;
            }
            self.count_shared(shape.as_ref(), std::mem::take(&mut shared));
            let headers = if may_share { headers(datagram) } else { None };
            self.went = None;
            self.from_core(now, fib, source, outer, datagram, out);
            shape = headers
                .zip(self.went)
                .map(|(headers, onward)| Shape::new(headers, source, onward, &self.hasher));
        }
        self.count_shared(shape.as_ref(), shared);
    }

    /// Delivers a datagram the way that another one went.
    #[inline]
    fn share(
        &self,
        shape: &Shape,
        mut inner: Inner,
        outer: OuterFields,
        datagram: &mut [u8],
        shared: &mut Shared,
        out: &mut impl Output,
    ) {
        shared.core_in += Traffic::packet(datagram.len() - lisp::HEADER_LEN);
        let packet = &mut datagram[lisp::HEADER_LEN..][..inner.total_len];
        let applied = decapsulate::apply(packet, &mut inner, outer, self.settings.marking);
        let delivered = applied.and_then(|applied| {
            if applied.unusual_ecn {
                self.counters.ecn_unused_combination();
            }
            out.delivered(shape.flow_hash, &inner, packet)
        });
        match delivered {
            Ok(()) => shared.delivered += Traffic::packet(inner.total_len),
            Err(reason) => self.discard(reason, 1, out),
        }
    }

    fn count_shared(&self, shape: Option<&Shape>, shared: Shared) {
        let Some(shape) = shape.filter(|_| shared.core_in.packets > 0) else { return };
        self.counters.core_in(shape.families, shared.core_in);
        self.counters.decapsulated(shared.delivered.packets);
        if let Onward::DeliverOwn(prefix) = shape.onward {
            self.arrivals.count(prefix, self.arrived_at, shared.delivered);
        }
    }
}

/// A datagram's headers, and what was read from the inner one.
type Headers = ([u8; V6_LEN], Inner);

/// The headers of a datagram whose verdict others may share: whole TCP or UDP behind a plain IP header, no LISP data again.
#[inline]
fn headers(datagram: &[u8]) -> Option<Headers> {
    let inner = Inner::parse(datagram.get(lisp::HEADER_LEN..)?).ok()?;
    let len = if inner.source.is_ipv4() { V4_LEN } else { V6_LEN };
    let is_plain = inner.transport_offset == len - PORTS_LEN - lisp::HEADER_LEN
        && matches!(inner.protocol, protocol::TCP | protocol::UDP)
        && inner.fragment == Fragment::Whole
        && inner.ports.is_some()
        && !lisp::is_data(&inner);
    let mut head = [0; V6_LEN];
    head[..len].copy_from_slice(datagram.get(..len)?);
    is_plain.then_some((head, inner))
}

impl Shape {
    fn new(
        (head, inner): Headers,
        outer_source: IpAddr,
        onward: Onward,
        hasher: &FlowHasher,
    ) -> Self {
        let families = Families::of(inner.source.is_ipv6(), outer_source.is_ipv6());
        Self { head, inner, families, flow_hash: hasher.hash(&inner), onward }
    }

    /// What [`Inner::parse`] would read from a datagram that says the same, but for lengths, IPv4 ID and checksum; `None` for any other.
    #[inline]
    fn fits(&self, datagram: &[u8]) -> Option<Inner> {
        let (head_len, total_len) = if self.inner.source.is_ipv4() {
            let ours = self.head.first_chunk::<V4_LEN>()?;
            let theirs = datagram.first_chunk::<V4_LEN>()?;
            let same = ours[..10] == theirs[..10]
                && ours[14..18] == theirs[14..18]
                && ours[20..] == theirs[20..];
            (same.then_some(V4_LEN)?, u16::from_be_bytes([theirs[10], theirs[11]]).into())
        } else {
            let (ours, theirs) = (&self.head, datagram.first_chunk::<V6_LEN>()?);
            let same = ours[..12] == theirs[..12] && ours[14..] == theirs[14..];
            let payload_len: usize = u16::from_be_bytes([theirs[12], theirs[13]]).into();
            (same.then_some(V6_LEN)?, Ipv6Header::LEN + payload_len)
        };
        let possible = head_len - lisp::HEADER_LEN..=datagram.len() - lisp::HEADER_LEN;
        possible.contains(&total_len).then_some(Inner { total_len, ..self.inner })
    }
}
