//! The inner packet: what a router needs to know of it, read once.

use super::headers::{Ipv4Header, Ipv6Header, protocol};
use crate::drops::DropReason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::FromBytes;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[inline]
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Whether a packet is a fragment, and which. An IPv6 atomic fragment (RFC 6946) counts as whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment.
    Whole,
    /// The fragment at offset 0.
    First,
    /// Any other fragment: it has no transport header.
    Later,
}

/// What was read from the headers of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The packet's own length in octets; what follows it in the buffer is to be trimmed (DE-06).
    pub total_len: usize,
    /// IPv4 header with options, or 40.
    pub header_len: usize,
    /// Where the transport header starts: `header_len`, or after the IPv6 extension headers.
    pub transport_offset: usize,
    /// What is at `transport_offset`.
    pub protocol: u8,
    /// TTL or Hop Limit.
    pub ttl: u8,
    /// DSCP and ECN: the IPv4 TOS octet or the IPv6 Traffic Class.
    pub tos: u8,
    /// The IPv6 flow label, 0 for none and in IPv4.
    pub flow_label: u32,
    /// Routers must not fragment it: DF, and always in IPv6.
    pub dont_fragment: bool,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Source and destination port of TCP, UDP or SCTP, when they are present.
    pub ports: Option<(u16, u16)>,
}

/// IPv6 extension headers looked at before giving up on the transport header.
const MAX_EXTENSION_HEADERS: usize = 8;

impl Inner {
    /// Reads the packet at the start of `bytes`. Fails with [`DropReason::InnerMalformed`] when version, header length or
    /// total length is impossible (DE-05).
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        match bytes.first().map(|octet| octet >> 4) {
            Some(4) => Self::parse_ipv4(bytes),
            Some(6) => Self::parse_ipv6(bytes),
            _ => Err(DropReason::InnerMalformed),
        }
    }

    /// The family of its addresses.
    #[inline]
    pub const fn family(&self) -> Family {
        Family::of(&self.source)
    }

    #[inline]
    fn parse_ipv4(bytes: &[u8]) -> Result<Self, DropReason> {
        let (header, _) =
            Ipv4Header::ref_from_prefix(bytes).map_err(|_| DropReason::InnerMalformed)?;
        let header_len = usize::from(header.version_ihl & 0x0f) * 4;
        let total_len = usize::from(header.total_len.get());
        if header_len < Ipv4Header::LEN || total_len < header_len || total_len > bytes.len() {
            return Err(DropReason::InnerMalformed);
        }
        let flags_offset = header.flags_offset.get();
        let fragment = fragment_kind(
            flags_offset & Ipv4Header::OFFSET_MASK != 0,
            flags_offset & Ipv4Header::MF != 0,
        );
        Ok(Self {
            source: IpAddr::V4(Ipv4Addr::from(header.source)),
            destination: IpAddr::V4(Ipv4Addr::from(header.destination)),
            total_len,
            header_len,
            transport_offset: header_len,
            protocol: header.protocol,
            ttl: header.ttl,
            tos: header.tos,
            flow_label: 0,
            dont_fragment: flags_offset & Ipv4Header::DF != 0,
            fragment,
            ports: ports(&bytes[header_len..total_len], header.protocol, fragment),
        })
    }

    #[inline]
    fn parse_ipv6(bytes: &[u8]) -> Result<Self, DropReason> {
        let (header, _) =
            Ipv6Header::ref_from_prefix(bytes).map_err(|_| DropReason::InnerMalformed)?;
        let total_len = Ipv6Header::LEN + usize::from(header.payload_len.get());
        let packet = bytes.get(..total_len).ok_or(DropReason::InnerMalformed)?;
        let mut transport = Transport {
            protocol: header.next_header,
            offset: Ipv6Header::LEN,
            fragment: Fragment::Whole,
        };
        if is_extension(header.next_header) {
            transport.walk(packet);
        }
        Ok(Self {
            source: IpAddr::V6(Ipv6Addr::from(header.source)),
            destination: IpAddr::V6(Ipv6Addr::from(header.destination)),
            total_len,
            header_len: Ipv6Header::LEN,
            transport_offset: transport.offset,
            protocol: transport.protocol,
            ttl: header.hop_limit,
            tos: header.traffic_class(),
            flow_label: header.flow_label(),
            dont_fragment: true,
            fragment: transport.fragment,
            ports: ports(&packet[transport.offset..], transport.protocol, transport.fragment),
        })
    }
}

/// Where an IPv6 packet's transport header is.
struct Transport {
    protocol: u8,
    offset: usize,
    fragment: Fragment,
}

impl Transport {
    /// Walks the extension headers; stops at the first that is cut short or at the bound, leaving `protocol` an extension
    /// header's number (the packet is still a good packet to a router).
    #[cold]
    fn walk(&mut self, packet: &[u8]) {
        for _ in 0..MAX_EXTENSION_HEADERS {
            if !is_extension(self.protocol) || self.fragment == Fragment::Later {
                return;
            }
            let rest = &packet[self.offset..];
            let Some(&[next, extension_len, high, low]) = rest.first_chunk::<4>() else { return };
            let len = match self.protocol {
                protocol::FRAGMENT => 8,
                protocol::AUTHENTICATION => (usize::from(extension_len) + 2) * 4,
                _ => (usize::from(extension_len) + 1) * 8,
            };
            if rest.len() < len {
                return;
            }
            if self.protocol == protocol::FRAGMENT {
                let offset_more = u16::from_be_bytes([high, low]);
                self.fragment = fragment_kind(offset_more & 0xfff8 != 0, offset_more & 1 != 0);
            }
            self.protocol = next;
            self.offset += len;
        }
    }
}

#[inline]
fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
    )
}

#[inline]
fn fragment_kind(has_offset: bool, more: bool) -> Fragment {
    match (has_offset, more) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::Whole,
    }
}

#[inline]
fn ports(transport: &[u8], number: u8, fragment: Fragment) -> Option<(u16, u16)> {
    if fragment == Fragment::Later
        || !matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
    {
        return None;
    }
    let &[a, b, c, d] = transport.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
