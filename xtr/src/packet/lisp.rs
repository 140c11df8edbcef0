//! The LISP data header in the public Internet profile (RFC 9300 §4.1, §5.3): only the I-bit and the Instance ID are ever sent or heeded.

use super::headers::{Ipv4Header, LispHeader, UdpHeader, protocol};
use super::inner::{Fragment, Inner};
use crate::drops::DropReason;
use mapping::eid::InstanceId;
use zerocopy::FromBytes;
use zerocopy::network_endian::U32;

/// Octets of the header.
pub const HEADER_LEN: usize = LispHeader::LEN;
/// The UDP destination port of LISP data (EN-02).
pub const DATA_PORT: u16 = 4341;
/// LISP headers a packet may carry (EN-23, DE-24).
pub const MAX_NESTING: usize = 2;

/// The header of a packet of `instance_id`: N, L, E, V, R and KK are 0 (DH-14), I is set for any instance but 0 (EN-27).
#[inline]
pub fn encode(instance_id: InstanceId) -> [u8; HEADER_LEN] {
    let header = if instance_id == InstanceId::DEFAULT {
        LispHeader { flags: 0, nonce: [0; 3], instance_lsbs: U32::ZERO }
    } else {
        LispHeader {
            flags: LispHeader::I,
            nonce: [0; 3],
            instance_lsbs: U32::new(instance_id.get() << 8),
        }
    };
    zerocopy::transmute!(header)
}

/// The instance of the LISP packet in `datagram`, a UDP payload; the inner packet starts at [`HEADER_LEN`].
///
/// Nonce, map-versions and Locator-Status-Bits are ignored (DH-03, DH-04, DH-06, DH-09 to DH-11, DH-15, DH-16); I=0 is instance 0
/// (DE-17). Fails with [`DropReason::LispHeaderTruncated`] when no inner header can follow (DE-05), with
/// [`DropReason::KeyIdUnknown`] when the packet is encrypted (DH-12).
#[inline]
pub fn parse(datagram: &[u8]) -> Result<InstanceId, DropReason> {
    let (header, rest) =
        LispHeader::ref_from_prefix(datagram).map_err(|_| DropReason::LispHeaderTruncated)?;
    if rest.len() < Ipv4Header::LEN {
        return Err(DropReason::LispHeaderTruncated);
    }
    if header.flags & LispHeader::KK != 0 {
        return Err(DropReason::KeyIdUnknown);
    }
    if header.flags & LispHeader::I == 0 {
        return Ok(InstanceId::DEFAULT);
    }
    InstanceId::new(header.instance_lsbs.get() >> 8).ok_or(DropReason::InstanceUnknown)
}

/// How many LISP headers the packet already carries, counted up to [`MAX_NESTING`] (EN-23).
#[inline]
pub fn nesting(packet: &[u8], inner: &Inner) -> usize {
    if is_data(inner) { 1 + usize::from(nested_again(packet, inner)) } else { 0 }
}

/// Whether the packet is itself LISP data.
#[inline]
pub fn is_data(inner: &Inner) -> bool {
    inner.protocol == protocol::UDP
        && inner.fragment != Fragment::Later
        && matches!(inner.ports, Some((_, DATA_PORT)))
}

#[cold]
fn nested_again(packet: &[u8], inner: &Inner) -> bool {
    packet
        .get(inner.transport_offset + UdpHeader::LEN + HEADER_LEN..inner.total_len)
        .and_then(|bytes| Inner::parse(bytes).ok())
        .is_some_and(|nested| is_data(&nested))
}
