//! What the outer header does to the inner one at the end of the tunnel: TTL (RFC 9300 §5.3), DSCP, ECN (RFC 6040 §4.2).

use super::checksum;
use super::inner::{Family, Inner};
use super::outer::{DSCP, Dscp, ECN, Marking, OuterFields};
use crate::drops::DropReason;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// What [`apply`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The ECN combination is one that Figure 4 of RFC 6040 marks as unused: count it (DE-14).
    pub unusual_ecn: bool,
}

/// Applies the received outer fields to the inner packet and to `inner`: TTL becomes the smaller one (DE-07), DSCP the outer one in the
/// uniform model (DE-09), ECN as in Figure 4 whatever the marking (DE-10); the IPv4 checksum follows (DE-15).
///
/// `packet` must be what `inner` was parsed from. Fails with [`DropReason::EcnNotEctCe`], the packet unchanged (DE-11).
#[inline]
pub fn apply(
    packet: &mut [u8],
    inner: &mut Inner,
    outer: OuterFields,
    marking: Marking,
) -> Result<Applied, DropReason> {
    let (ecn, unusual_ecn) = egress_ecn(inner.tos & ECN, outer.tos & ECN)?;
    let dscp = match marking.dscp {
        Dscp::Copy => outer.tos,
        Dscp::Fixed(_) => inner.tos,
    } & DSCP;
    set_tos(packet, inner, dscp | ecn);
    set_ttl(packet, inner, inner.ttl.min(outer.ttl));
    Ok(Applied { unusual_ecn })
}

/// Takes one off the TTL or Hop Limit, as forwarding does (EN-32). Fails with [`DropReason::HopLimitExceeded`] on 0 and 1, the packet
/// unchanged (EN-05).
#[inline]
pub fn decrement_ttl(packet: &mut [u8], inner: &mut Inner) -> Result<(), DropReason> {
    if inner.ttl <= 1 {
        return Err(DropReason::HopLimitExceeded);
    }
    set_ttl(packet, inner, inner.ttl - 1);
    Ok(())
}

/// The outgoing ECN field by inner and outer, and whether the combination is unusual (RFC 6040 Figure 4).
#[inline]
fn egress_ecn(inner: u8, outer: u8) -> Result<(u8, bool), DropReason> {
    match (inner, outer) {
        (NOT_ECT, CE) => Err(DropReason::EcnNotEctCe),
        (NOT_ECT, ECT_0 | ECT_1) => Ok((NOT_ECT, true)),
        (ECT_1, ECT_0) => Ok((ECT_1, true)),
        (CE, ECT_1) => Ok((CE, true)),
        (ECT_0, ECT_1) => Ok((ECT_1, false)),
        (ECT_0 | ECT_1, CE) => Ok((CE, false)),
        (inner, _) => Ok((inner, false)),
    }
}

#[inline]
fn set_tos(packet: &mut [u8], inner: &mut Inner, tos: u8) {
    if tos == inner.tos {
        return;
    }
    inner.tos = tos;
    match inner.family() {
        Family::V4 => replace_word_v4(packet, 0, |word| [word[0], tos]),
        Family::V6 => {
            if let Some([first, second, ..]) = packet.first_chunk_mut::<2>() {
                *first = *first & 0xf0 | tos >> 4;
                *second = *second & 0x0f | tos << 4;
            }
        }
    }
}

#[inline]
fn set_ttl(packet: &mut [u8], inner: &mut Inner, ttl: u8) {
    if ttl == inner.ttl {
        return;
    }
    inner.ttl = ttl;
    match inner.family() {
        Family::V4 => replace_word_v4(packet, 8, |word| [ttl, word[1]]),
        Family::V6 => {
            if let Some(hop_limit) = packet.get_mut(7) {
                *hop_limit = ttl;
            }
        }
    }
}

/// Replaces the 16-bit word at `offset` of an IPv4 header and mends the header checksum.
#[inline]
fn replace_word_v4(packet: &mut [u8], offset: usize, change: impl FnOnce([u8; 2]) -> [u8; 2]) {
    let Some(header) = packet.first_chunk_mut::<20>() else { return };
    let old = [header[offset], header[offset + 1]];
    let new = change(old);
    let checksum = checksum::update([header[10], header[11]], old, new);
    header[offset..offset + 2].copy_from_slice(&new);
    header[10..12].copy_from_slice(&checksum);
}
