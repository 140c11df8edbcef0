//! A TUN super-packet into the packets it stands for (EN-28, EN-29), without copying payload.

use super::checksum::{self, Sum};
use super::headers::{Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, VirtioNetHeader, protocol};
use super::inner::{Family, Fragment, Inner};
use super::{MAX_HEADERS_LEN, Piece};
use crate::drops::DropReason;

/// What the virtio-net header before a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: the packet is complete.
    None,
    /// Its checksum is partial: [`super::checksum::complete`] it.
    Checksum {
        /// Where the transport header starts.
        csum_start: u16,
        /// Where the checksum field is from there.
        csum_offset: u16,
    },
    /// It is a super-packet: cut it with [`Segments`].
    Segment,
}

impl Offload {
    /// Reads the virtio-net header.
    #[inline]
    pub fn of(virtio: &VirtioNetHeader) -> Self {
        if virtio.gso_type & !VirtioNetHeader::GSO_ECN != VirtioNetHeader::GSO_NONE {
            Self::Segment
        } else if virtio.flags & VirtioNetHeader::NEEDS_CSUM != 0 {
            Self::Checksum {
                csum_start: virtio.csum_start.get(),
                csum_offset: virtio.csum_offset.get(),
            }
        } else {
            Self::None
        }
    }
}

/// The segments of one super-packet, in order. Each is a whole packet with correct lengths and checksums.
#[derive(Clone, Debug)]
pub struct Segments {
    family: Family,
    protocol: u8,
    transport_offset: usize,
    headers_len: usize,
    segment_size: usize,
    /// End of the payload.
    end: usize,
    /// Start of the next segment's payload.
    next: usize,
    /// Segments still to come.
    remaining: usize,
    /// Segments already given.
    index: u16,
    /// Addresses and protocol of the pseudo-header; the length is added per segment.
    pseudo: Sum,
}

impl Segments {
    /// The segments of `packet`, whose headers are `inner` and whose virtio-net header is `virtio`.
    ///
    /// Fails with [`DropReason::InnerMalformed`] when the two contradict each other: another protocol or family, no segment size,
    /// headers cut short or longer than [`MAX_HEADERS_LEN`], a fragment.
    #[inline]
    pub fn new(packet: &[u8], inner: &Inner, virtio: &VirtioNetHeader) -> Result<Self, DropReason> {
        let family = inner.family();
        let expected = match (virtio.gso_type & !VirtioNetHeader::GSO_ECN, family) {
            (VirtioNetHeader::GSO_TCPV4, Family::V4) | (VirtioNetHeader::GSO_TCPV6, Family::V6) => {
                protocol::TCP
            }
            (VirtioNetHeader::GSO_UDP_L4, _) => protocol::UDP,
            _ => return Err(DropReason::InnerMalformed),
        };
        let packet = packet.get(..inner.total_len).ok_or(DropReason::InnerMalformed)?;
        let headers_len = headers_len(packet, inner).ok_or(DropReason::InnerMalformed)?;
        let segment_size = usize::from(virtio.gso_size.get());
        if inner.protocol != expected
            || inner.fragment != Fragment::Whole
            || segment_size == 0
            || headers_len > MAX_HEADERS_LEN
        {
            return Err(DropReason::InnerMalformed);
        }
        Ok(Self {
            family,
            protocol: expected,
            transport_offset: inner.transport_offset,
            headers_len,
            segment_size,
            end: packet.len(),
            next: headers_len,
            remaining: (packet.len() - headers_len).div_ceil(segment_size).max(1),
            index: 0,
            pseudo: pseudo_header(packet, inner, virtio),
        })
    }

    /// Octets of headers, the same in every segment: at most [`MAX_HEADERS_LEN`].
    #[inline]
    pub fn headers_len(&self) -> usize {
        self.headers_len
    }

    /// Payload octets of every segment but the last, which may have fewer.
    #[inline]
    pub fn segment_size(&self) -> usize {
        self.segment_size
    }

    /// Octets of the largest segment, headers included: what [`super::mtu::check`] judges.
    #[inline]
    pub fn packet_len(&self) -> usize {
        self.headers_len + self.segment_size.min(self.end - self.headers_len)
    }

    /// How many segments are still to come.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Writes the next segment's headers to the start of `scratch` and says which octets of `packet` follow them. `packet` is what
    /// the segments were made from. `None` after the last one, and when `scratch` is shorter than [`Self::headers_len`].
    #[inline]
    pub fn next_into(&mut self, packet: &[u8], scratch: &mut [u8]) -> Option<Piece> {
        if self.remaining == 0 {
            return None;
        }
        let headers = scratch.get_mut(..self.headers_len)?;
        let range = self.next..self.end.min(self.next + self.segment_size);
        let payload = packet.get(range.clone())?;
        headers.copy_from_slice(packet.get(..self.headers_len)?);
        let (ip, transport) = headers.split_at_mut(self.transport_offset);
        set_length(ip, self.family, transport.len() + payload.len(), self.index);
        match self.protocol {
            protocol::TCP => self.tcp(transport, payload),
            _ => self.udp(transport, payload),
        }
        self.next = range.end;
        self.remaining -= 1;
        self.index = self.index.wrapping_add(1);
        Some(Piece { headers_len: self.headers_len, payload: range })
    }

    /// Sequence number, FIN and PSH only on the last segment, CWR only on the first (RFC 3168 §6.1.2), checksum.
    #[inline]
    fn tcp(&self, header: &mut [u8], payload: &[u8]) {
        let segment_len = header.len() + payload.len();
        let Some(fixed) = header.first_chunk_mut::<{ TcpHeader::LEN }>() else { return };
        let [_, _, _, _, a, b, c, d, ..] = *fixed;
        let offset = (self.next - self.headers_len) as u32;
        let sequence = u32::from_be_bytes([a, b, c, d]).wrapping_add(offset);
        fixed[4..8].copy_from_slice(&sequence.to_be_bytes());
        if self.remaining > 1 {
            fixed[13] &= !(TcpHeader::FIN | TcpHeader::PSH);
        }
        if self.index > 0 {
            fixed[13] &= !TcpHeader::CWR;
        }
        fixed[16..18].fill(0);
        let sum = self.pseudo.add_u16(segment_len as u16).add_octets(header).add_octets(payload);
        header[16..18].copy_from_slice(&sum.complement());
    }

    /// Length and checksum.
    #[inline]
    fn udp(&self, header: &mut [u8], payload: &[u8]) {
        let len = (header.len() + payload.len()) as u16;
        header[4..6].copy_from_slice(&len.to_be_bytes());
        header[6..8].fill(0);
        let sum = self.pseudo.add_u16(len).add_octets(header).add_octets(payload);
        header[6..8].copy_from_slice(&checksum::transport_field(protocol::UDP, sum));
    }
}

/// The pseudo-header's sum but for the length. IP options and extension headers can name other endpoints than the IP header (source
/// routes, RFC 8200 §8.1; home addresses): there the sum that the sender left in the checksum field is taken, less the length.
#[inline]
fn pseudo_header(packet: &[u8], inner: &Inner, virtio: &VirtioNetHeader) -> Sum {
    let plain = match inner.family() {
        Family::V4 => Ipv4Header::LEN,
        Family::V6 => Ipv6Header::LEN,
    };
    if inner.transport_offset != plain && virtio.flags & VirtioNetHeader::NEEDS_CSUM != 0 {
        let field = match inner.protocol {
            protocol::TCP => checksum::TCP_CHECKSUM_OFFSET,
            _ => checksum::UDP_CHECKSUM_OFFSET,
        };
        let transport = &packet[inner.transport_offset..];
        if let Some(partial) = transport.get(usize::from(field)..usize::from(field) + 2) {
            return Sum::default().add_octets(partial).add_u16(!(transport.len() as u16));
        }
    }
    checksum::pseudo_header(inner.source, inner.destination, inner.protocol, 0)
}

/// Octets up to the end of the transport header; `None` when it is cut short.
#[inline]
fn headers_len(packet: &[u8], inner: &Inner) -> Option<usize> {
    let transport = packet.get(inner.transport_offset..)?;
    let len = match inner.protocol {
        protocol::TCP => usize::from(transport.get(12)? >> 4) * 4,
        _ => UdpHeader::LEN,
    };
    let too_short = inner.protocol == protocol::TCP && len < TcpHeader::LEN;
    (!too_short && len <= transport.len()).then_some(inner.transport_offset + len)
}

/// Sets the length of an IP header (with extension headers) that `transport_len` octets follow, and in IPv4 adds `index` to the ID
/// and computes the header checksum.
#[inline]
fn set_length(ip: &mut [u8], family: Family, transport_len: usize, index: u16) {
    match family {
        Family::V4 => {
            let len = (ip.len() + transport_len) as u16;
            ip[2..4].copy_from_slice(&len.to_be_bytes());
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index);
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = checksum::internet(ip);
            ip[10..12].copy_from_slice(&checksum);
        }
        Family::V6 => {
            let len = (ip.len() - Ipv6Header::LEN + transport_len) as u16;
            ip[4..6].copy_from_slice(&len.to_be_bytes());
        }
    }
}
