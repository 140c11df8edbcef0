//! What the outer header takes from the inner one. The kernel builds the outer IP and UDP headers; [`build`] does it here for tests and benches.

use super::checksum;
use super::headers::{Ipv4Header, Ipv6Header, UdpHeader, protocol};
use super::inner::Inner;
use super::lisp;
use mapping::eid::InstanceId;
use std::net::{Ipv4Addr, Ipv6Addr};
use zerocopy::IntoBytes;
use zerocopy::network_endian::{U16, U32};

/// The fields of an outer header that depend on the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OuterFields {
    /// TTL or Hop Limit.
    pub ttl: u8,
    /// DSCP and ECN: TOS or Traffic Class.
    pub tos: u8,
}

/// How the DSCP crosses the tunnel (RFC 2983 §3, §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dscp {
    /// Uniform model: from the inner to the outer header (EN-06) and back (DE-09).
    #[default]
    Copy,
    /// Pipe model: this code point outside, 0 to 63; the inner one is kept.
    Fixed(u8),
}

/// How DSCP and ECN are marked on the outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marking {
    /// Uniform or pipe model.
    pub dscp: Dscp,
    /// Copy ECN (normal mode, EN-08); otherwise the outer one is Not-ECT (compatibility mode, EN-09).
    pub copy_ecn: bool,
}

impl Default for Marking {
    fn default() -> Self {
        Self { dscp: Dscp::Copy, copy_ecn: true }
    }
}

/// The DSCP bits of a TOS octet.
pub(crate) const DSCP: u8 = 0xfc;
/// The ECN bits of a TOS octet.
pub(crate) const ECN: u8 = 0x03;

impl Marking {
    /// The outer fields for `inner`: TTL a copy (EN-04), DSCP and ECN as configured.
    #[inline]
    pub fn outer_fields(self, inner: &Inner) -> OuterFields {
        let dscp = match self.dscp {
            Dscp::Copy => inner.tos & DSCP,
            Dscp::Fixed(code_point) => code_point << 2,
        };
        let ecn = if self.copy_ecn { inner.tos & ECN } else { 0 };
        OuterFields { ttl: inner.ttl, tos: dscp | ecn }
    }
}

/// The two ends of an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterAddresses {
    /// IPv4; DF is set (EN-10), the ID is 0 (EN-11).
    V4 {
        /// Own RLOC.
        source: Ipv4Addr,
        /// Remote RLOC.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Own RLOC.
        source: Ipv6Addr,
        /// Remote RLOC.
        destination: Ipv6Addr,
        /// 20 bits, 0 for none (EN-18).
        flow_label: u32,
    },
}

/// A whole encapsulated packet into `out` (cleared first), UDP checksum 0 (EN-20). `packet` must fit behind the headers in 65 535 octets.
pub fn build(
    addresses: OuterAddresses,
    fields: OuterFields,
    source_port: u16,
    instance_id: InstanceId,
    packet: &[u8],
    out: &mut Vec<u8>,
) {
    out.clear();
    let udp_len = (UdpHeader::LEN + lisp::HEADER_LEN + packet.len()) as u16;
    match addresses {
        OuterAddresses::V4 { source, destination } => {
            let mut header = Ipv4Header {
                version_ihl: 0x45,
                tos: fields.tos,
                total_len: U16::new(Ipv4Header::LEN as u16 + udp_len),
                id: U16::ZERO,
                flags_offset: U16::new(Ipv4Header::DF),
                ttl: fields.ttl,
                protocol: protocol::UDP,
                checksum: U16::ZERO,
                source: source.octets(),
                destination: destination.octets(),
            };
            header.checksum = U16::from_bytes(checksum::internet(header.as_bytes()));
            out.extend_from_slice(header.as_bytes());
        }
        OuterAddresses::V6 { source, destination, flow_label } => {
            let class = u32::from(fields.tos) << 20;
            let header = Ipv6Header {
                version_class_label: U32::new(6 << 28 | class | (flow_label & 0x000f_ffff)),
                payload_len: U16::new(udp_len),
                next_header: protocol::UDP,
                hop_limit: fields.ttl,
                source: source.octets(),
                destination: destination.octets(),
            };
            out.extend_from_slice(header.as_bytes());
        }
    }
    let udp = UdpHeader {
        source_port: U16::new(source_port),
        destination_port: U16::new(lisp::DATA_PORT),
        len: U16::new(udp_len),
        checksum: U16::ZERO,
    };
    out.extend_from_slice(udp.as_bytes());
    out.extend_from_slice(&lisp::encode(instance_id));
    out.extend_from_slice(packet);
}
