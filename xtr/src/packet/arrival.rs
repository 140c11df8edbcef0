//! A frame as an AF_PACKET ring has it, into the form a TUN gives: what the kernel does between an interface and the TUN is done here.

use super::checksum;
use super::headers::{Ipv4Header, VirtioNetHeader};
use crate::drops::DropReason;
use zerocopy::{FromBytes, IntoBytes};

/// Octets of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;

/// Octets before the packet: virtio-net header and Ethernet header.
pub const HEADERS_LEN: usize = VirtioNetHeader::LEN + ETHERNET_LEN;

/// `frame` is a virtio-net header whose offsets count from the Ethernet header, the Ethernet header, and an IP packet. Checks the IPv4
/// header's checksum (RFC 1812 §5.2.2), takes one hop off (EN-05), and returns virtio-net header and packet without Ethernet.
///
/// Fails with [`DropReason::InnerMalformed`] or [`DropReason::HopLimitExceeded`].
#[inline]
pub fn take(frame: &mut [u8]) -> Result<&mut [u8], DropReason> {
    const MALFORMED: DropReason = DropReason::InnerMalformed;
    let mut virtio = VirtioNetHeader::read_from_prefix(frame).map_err(|_| MALFORMED)?.0;
    for offset in [&mut virtio.csum_start, &mut virtio.hdr_len] {
        offset.set(offset.get().saturating_sub(ETHERNET_LEN as u16));
    }
    let frame = frame.get_mut(ETHERNET_LEN..).ok_or(MALFORMED)?;
    let (header, packet) = frame.split_at_mut_checked(VirtioNetHeader::LEN).ok_or(MALFORMED)?;
    header.copy_from_slice(virtio.as_bytes());
    take_hop(packet)?;
    Ok(frame)
}

#[inline]
fn take_hop(packet: &mut [u8]) -> Result<(), DropReason> {
    match packet.first().map(|octet| octet >> 4) {
        Some(4) => {
            let header_len = usize::from(packet[0] & 0x0f) * 4;
            let header = packet.get_mut(..header_len).ok_or(DropReason::InnerMalformed)?;
            if header_len < Ipv4Header::LEN || checksum::internet(header) != [0, 0] {
                return Err(DropReason::InnerMalformed);
            }
            let old = [header[8], header[9]];
            let new = [taken(old[0])?, old[1]];
            let sum = checksum::update([header[10], header[11]], old, new);
            header[8] = new[0];
            header[10..12].copy_from_slice(&sum);
        }
        Some(6) => {
            let hop_limit = packet.get_mut(7).ok_or(DropReason::InnerMalformed)?;
            *hop_limit = taken(*hop_limit)?;
        }
        _ => return Err(DropReason::InnerMalformed),
    }
    Ok(())
}

#[inline]
fn taken(ttl: u8) -> Result<u8, DropReason> {
    if ttl <= 1 { Err(DropReason::HopLimitExceeded) } else { Ok(ttl - 1) }
}
