//! Consecutive packets of one flow into one TUN super-packet, without copying payload: the inverse of [`super::segment`].

use super::checksum::{self, Sum};
use super::headers::{Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, VirtioNetHeader, protocol};
use super::inner::{Family, Fragment, Inner};
use std::ops::Range;
use zerocopy::native_endian::U16;

/// The most packets in one super-packet.
pub const MAX_PACKETS: usize = 64;
/// The most octets in one super-packet, headers included.
const MAX_OCTETS: usize = u16::MAX as usize;
/// IPv6 and the longest TCP header: nothing with IP options or extension headers is merged.
const MAX_HEADERS: usize = Ipv6Header::LEN + 60;

/// What became of a packet offered to a [`Coalescer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It merges with nothing and nothing of its flow is pending: write it as it is behind a zero virtio-net header.
    Alone,
    /// It is the first of a new super-packet; its payload is this range of it.
    Started(Range<usize>),
    /// It was appended to the pending super-packet; its payload is this range of it.
    Joined(Range<usize>),
    /// [`Coalescer::take`] and write what is pending, then offer it again.
    Refused,
}

/// A finished super-packet: write `virtio`, `headers`, then the payload ranges in the order they were offered.
#[derive(Debug)]
pub struct Merged<'a> {
    /// The virtio-net header; all zero when there is only one packet.
    pub virtio: VirtioNetHeader,
    /// IP and transport header.
    pub headers: &'a [u8],
    /// How many packets it stands for.
    pub packets: usize,
    /// Octets of `headers` and payload.
    pub octets: usize,
}

/// At most one super-packet in the making.
///
/// It merges TCP segments in sequence that carry only ACK or PSH, and UDP datagrams of one size (the last may be smaller), if
/// all other header fields but IPv4 ID of a DF packet are equal and every checksum is right; so the kernel, cutting it again,
/// makes the same packets. To merge interleaved flows keep several and choose by flow hash: the order within a flow then holds.
#[derive(Clone, Debug)]
pub struct Coalescer {
    headers: [u8; MAX_HEADERS],
    headers_len: usize,
    transport_offset: usize,
    segment_size: usize,
    payload_len: usize,
    packets: usize,
    /// TCP: the sequence number that follows.
    next_sequence: u32,
    /// Nothing may follow: the last packet was short or had PSH.
    closed: bool,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}

impl Coalescer {
    /// With nothing pending.
    pub const fn new() -> Self {
        Self {
            headers: [0; MAX_HEADERS],
            headers_len: 0,
            transport_offset: 0,
            segment_size: 0,
            payload_len: 0,
            packets: 0,
            next_sequence: 0,
            closed: false,
        }
    }

    /// How many packets are pending.
    #[inline]
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Offers the next packet, after [`super::decapsulate::apply`]; `inner` are its headers. On [`Offer::Started`] and [`Offer::Joined`]
    /// the caller keeps the payload range (and the buffer) until the super-packet is written. A packet that nothing can join (the
    /// last of a batch with nothing pending) need not be offered: it would be summed for nothing.
    #[inline]
    pub fn offer(&mut self, packet: &[u8], inner: &Inner) -> Offer {
        let candidate = Candidate::read(packet, inner);
        if self.packets == 0 {
            return match candidate {
                Some(candidate) if candidate.checksums_are_valid(inner) => self.start(&candidate),
                _ => Offer::Alone,
            };
        }
        match candidate {
            Some(candidate)
                if self.precedes(&candidate) && candidate.checksums_are_valid(inner) =>
            {
                self.join(&candidate)
            }
            // Another flow's packet that starts nothing may overtake.
            None if !self.may_be_same_flow(inner) => Offer::Alone,
            _ => Offer::Refused,
        }
    }

    /// Finishes the pending super-packet; its headers are valid until the next offer. `None` when nothing is pending.
    #[inline]
    pub fn take(&mut self) -> Option<Merged<'_>> {
        let packets = std::mem::take(&mut self.packets);
        let virtio = match packets {
            0 => return None,
            1 => VirtioNetHeader::default(),
            _ => self.finish(),
        };
        Some(Merged {
            virtio,
            headers: &self.headers[..self.headers_len],
            packets,
            octets: self.headers_len + self.payload_len,
        })
    }

    #[inline]
    fn start(&mut self, candidate: &Candidate<'_>) -> Offer {
        self.headers[..candidate.headers.len()].copy_from_slice(candidate.headers);
        self.headers_len = candidate.headers.len();
        self.transport_offset = candidate.transport_offset;
        self.segment_size = candidate.payload.len();
        self.payload_len = candidate.payload.len();
        self.packets = 1;
        self.next_sequence = candidate.sequence().wrapping_add(candidate.payload.len() as u32);
        self.closed = candidate.has_push();
        Offer::Started(candidate.payload_range())
    }

    #[inline]
    fn join(&mut self, candidate: &Candidate<'_>) -> Offer {
        self.payload_len += candidate.payload.len();
        self.packets += 1;
        self.next_sequence = self.next_sequence.wrapping_add(candidate.payload.len() as u32);
        if candidate.has_push() {
            self.headers[self.transport_offset + 13] |= TcpHeader::PSH;
            self.closed = true;
        }
        self.closed |= candidate.payload.len() < self.segment_size;
        Offer::Joined(candidate.payload_range())
    }

    /// Whether `candidate` may follow what is pending, its checksums aside.
    #[inline]
    fn precedes(&self, candidate: &Candidate<'_>) -> bool {
        let octets = self.headers_len + self.payload_len + candidate.payload.len();
        !self.closed
            && self.packets < MAX_PACKETS
            && octets <= MAX_OCTETS
            && candidate.payload.len() <= self.segment_size
            && candidate.headers.len() == self.headers_len
            && candidate.transport_offset == self.transport_offset
            && self.same_network(candidate)
            && self.same_transport(candidate)
    }

    #[inline]
    fn same_network(&self, candidate: &Candidate<'_>) -> bool {
        let (ours, theirs) = (&self.headers, candidate.headers);
        if candidate.transport_offset == Ipv6Header::LEN {
            // All but the payload length.
            return ours[..4] == theirs[..4] && ours[6..40] == theirs[6..40];
        }
        // All but total length, ID and checksum.
        let same = ours[..2] == theirs[..2]
            && ours[6..10] == theirs[6..10]
            && ours[12..20] == theirs[12..20];
        // The ID of a packet that is never fragmented means nothing (RFC 6864 §4.1); otherwise it must count up, as it will again.
        let id = |header: &[u8]| u16::from_be_bytes([header[4], header[5]]);
        let dont_fragment = theirs[6] & (Ipv4Header::DF >> 8) as u8 != 0;
        same && (dont_fragment || id(theirs) == id(ours).wrapping_add(self.packets as u16))
    }

    #[inline]
    fn same_transport(&self, candidate: &Candidate<'_>) -> bool {
        let ours = &self.headers[self.transport_offset..self.headers_len];
        let theirs = candidate.transport();
        if candidate.protocol == protocol::UDP {
            return ours[..4] == theirs[..4];
        }
        // All but sequence number, PSH and checksum; pending PSH never gets here, it closes.
        ours[..4] == theirs[..4]
            && ours[8..13] == theirs[8..13]
            && ours[14..16] == theirs[14..16]
            && ours[18..] == theirs[18..]
            && candidate.sequence() == self.next_sequence
    }

    /// Whether overtaking the pending super-packet could reorder a flow.
    #[inline]
    fn may_be_same_flow(&self, inner: &Inner) -> bool {
        let transport = &self.headers[self.transport_offset..];
        let pending = (
            u16::from_be_bytes([transport[0], transport[1]]),
            u16::from_be_bytes([transport[2], transport[3]]),
        );
        match (inner.source, inner.destination) {
            (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
                self.transport_offset == Ipv4Header::LEN
                    && self.headers[12..16] == source.octets()
                    && self.headers[16..20] == destination.octets()
                    && inner.ports.is_none_or(|ports| ports == pending)
            }
            (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
                self.transport_offset == Ipv6Header::LEN
                    && self.headers[8..24] == source.octets()
                    && self.headers[24..40] == destination.octets()
                    && inner.ports.is_none_or(|ports| ports == pending)
            }
            _ => true,
        }
    }

    /// Makes the headers those of the whole: lengths, IPv4 checksum, and the pseudo-header's sum in the transport checksum.
    #[inline]
    fn finish(&mut self) -> VirtioNetHeader {
        let transport_len = self.headers_len - self.transport_offset + self.payload_len;
        let (ip, transport) = self.headers[..self.headers_len].split_at_mut(self.transport_offset);
        let is_v4 = ip.len() == Ipv4Header::LEN;
        let number = if is_v4 { ip[9] } else { ip[6] };
        if is_v4 {
            let total_len = (ip.len() + transport_len) as u16;
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = checksum::internet(ip);
            ip[10..12].copy_from_slice(&checksum);
        } else {
            ip[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
        }
        let pseudo = pseudo_header(ip, number, transport_len);
        let (gso_type, csum_offset) = match (number, is_v4) {
            (protocol::UDP, _) => {
                transport[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
                (VirtioNetHeader::GSO_UDP_L4, checksum::UDP_CHECKSUM_OFFSET)
            }
            (_, true) => (VirtioNetHeader::GSO_TCPV4, checksum::TCP_CHECKSUM_OFFSET),
            (_, false) => (VirtioNetHeader::GSO_TCPV6, checksum::TCP_CHECKSUM_OFFSET),
        };
        let field = usize::from(csum_offset);
        transport[field..field + 2].copy_from_slice(&pseudo.partial());
        VirtioNetHeader {
            flags: VirtioNetHeader::NEEDS_CSUM,
            gso_type,
            hdr_len: U16::new(self.headers_len as u16),
            gso_size: U16::new(self.segment_size as u16),
            csum_start: U16::new(self.transport_offset as u16),
            csum_offset: U16::new(csum_offset),
        }
    }
}

/// A packet that may be merged, its checksums not verified yet.
struct Candidate<'a> {
    /// IP header without options or extension headers, and transport header.
    headers: &'a [u8],
    payload: &'a [u8],
    transport_offset: usize,
    protocol: u8,
}

impl<'a> Candidate<'a> {
    /// `None` for what is never merged: other protocols, fragments, IP options, extension headers, no payload, TCP flags other
    /// than ACK and PSH, urgent data, UDP without a checksum or with a length that disagrees.
    #[inline]
    fn read(packet: &'a [u8], inner: &Inner) -> Option<Self> {
        let plain = match inner.family() {
            Family::V4 => Ipv4Header::LEN,
            Family::V6 => Ipv6Header::LEN,
        };
        if inner.transport_offset != plain || inner.fragment != Fragment::Whole {
            return None;
        }
        let packet = packet.get(..inner.total_len)?;
        let transport = packet.get(plain..)?;
        let transport_header_len = match inner.protocol {
            protocol::TCP => {
                let fixed = transport.first_chunk::<{ TcpHeader::LEN }>()?;
                let len = usize::from(fixed[12] >> 4) * 4;
                let mergeable = fixed[13] & !TcpHeader::PSH == TcpHeader::ACK
                    && fixed[18..20] == [0, 0]
                    && len >= TcpHeader::LEN;
                mergeable.then_some(len)?
            }
            protocol::UDP => {
                let fixed = transport.first_chunk::<{ UdpHeader::LEN }>()?;
                let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
                let mergeable = len == transport.len() && fixed[6..8] != [0, 0];
                mergeable.then_some(UdpHeader::LEN)?
            }
            _ => return None,
        };
        let (headers, payload) = packet.split_at_checked(plain + transport_header_len)?;
        (!payload.is_empty()).then_some(Self {
            headers,
            payload,
            transport_offset: plain,
            protocol: inner.protocol,
        })
    }

    /// A wrong checksum must stay wrong on the way out, so such a packet is not merged.
    #[inline]
    fn checksums_are_valid(&self, inner: &Inner) -> bool {
        let (ip, transport) = self.headers.split_at(self.transport_offset);
        let network_is_valid =
            inner.family() == Family::V6 || Sum::default().add_octets(ip).is_valid();
        let transport_len = transport.len() + self.payload.len();
        network_is_valid
            && pseudo_header(ip, self.protocol, transport_len)
                .add_octets(transport)
                .add_octets(self.payload)
                .is_valid()
    }

    #[inline]
    fn transport(&self) -> &'a [u8] {
        &self.headers[self.transport_offset..]
    }

    #[inline]
    fn sequence(&self) -> u32 {
        match *self.transport() {
            [_, _, _, _, a, b, c, d, ..] => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    #[inline]
    fn has_push(&self) -> bool {
        self.protocol == protocol::TCP && self.transport()[13] & TcpHeader::PSH != 0
    }

    #[inline]
    fn payload_range(&self) -> Range<usize> {
        self.headers.len()..self.headers.len() + self.payload.len()
    }
}

/// The pseudo-header's sum from a plain IP header, whose addresses end it.
#[inline]
fn pseudo_header(ip: &[u8], number: u8, transport_len: usize) -> Sum {
    let addresses = if ip.len() == Ipv4Header::LEN { &ip[12..] } else { &ip[8..] };
    Sum::default().add_octets(addresses).add_u16(u16::from(number)).add_u16(transport_len as u16)
}
