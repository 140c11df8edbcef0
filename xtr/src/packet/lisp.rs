//! The LISP data header (RFC 9300 §5.3). In the public Internet profile (§4.1) only the I-bit and the Instance ID are ever sent or heeded;
//! [`encode_marked`] and [`marks`] are for trusted cores.

use super::headers::{Ipv4Header, LispHeader, UdpHeader, protocol};
use super::inner::{Fragment, Inner};
use crate::drops::DropReason;
use crate::marks::{HeaderMarks, StatusBits, Tag};
use mapping::eid::{InstanceId, MapVersion};
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

/// The same with marks. Never both N and V (DH-02, DH-05); beside an Instance ID there is room for eight Locator-Status-Bits (DH-07, DH-08).
pub fn encode_marked(instance_id: InstanceId, marks: &HeaderMarks) -> [u8; HEADER_LEN] {
    let (tag_flags, tag) = match marks.tag {
        Tag::None => (0, 0),
        Tag::Nonce { nonce, request: true } => (LispHeader::N | LispHeader::E, nonce),
        Tag::Nonce { nonce, request: false } => (LispHeader::N, nonce),
        Tag::Versions { source, destination } => {
            (LispHeader::V, u32::from(source.get()) << 12 | u32::from(destination.get()))
        }
    };
    let (instance_flag, instance) = match instance_id {
        InstanceId::DEFAULT => (0, 0),
        id => (LispHeader::I, id.get() << 8),
    };
    let (status_flag, bits) = match marks.status_bits {
        None => (0, 0),
        Some(status) if instance_flag == 0 => (LispHeader::L, status.bits),
        Some(status) => (LispHeader::L, status.bits & 0xff),
    };
    let [_, nonce @ ..] = tag.to_be_bytes();
    let header = LispHeader {
        flags: tag_flags | instance_flag | status_flag,
        nonce,
        instance_lsbs: U32::new(instance | bits),
    };
    zerocopy::transmute!(header)
}

/// What the header of the LISP packet in `datagram` says beside the instance; nothing if it is too short.
///
/// With N and V the 24 bits are a nonce (DH-03), without either they are nothing (DH-06); E says something only with N (DH-04).
pub fn marks(datagram: &[u8]) -> HeaderMarks {
    let Ok((header, _)) = LispHeader::ref_from_prefix(datagram) else {
        return HeaderMarks::default();
    };
    let has = |flag: u8| header.flags & flag != 0;
    let [a, b, c] = header.nonce;
    let bits = u32::from_be_bytes([0, a, b, c]);
    let tag = if has(LispHeader::N) {
        Tag::Nonce { nonce: bits, request: has(LispHeader::E) }
    } else if has(LispHeader::V) {
        Tag::Versions {
            source: MapVersion::from_bits((bits >> 12) as u16),
            destination: MapVersion::from_bits(bits as u16),
        }
    } else {
        Tag::None
    };
    let status = header.instance_lsbs.get();
    let status_bits = has(LispHeader::L).then(|| match has(LispHeader::I) {
        true => StatusBits::of_octet(status as u8),
        false => StatusBits::of_word(status),
    });
    HeaderMarks { tag, status_bits }
}

/// The instance of the LISP packet in `datagram`, a UDP payload; the inner packet starts at [`HEADER_LEN`].
///
/// Nonce, map-versions and Locator-Status-Bits are not looked at (DH-06, DH-09 to DH-11, DH-15, DH-16); I=0 is instance 0
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
