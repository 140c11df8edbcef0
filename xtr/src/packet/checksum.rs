//! The internet checksum (RFC 1071), whole, partial and incremental (RFC 1624).
//!
//! Sums are kept in host byte order as they are in memory: the ones' complement sum does not care, so no octet is ever swapped.
//! A checksum is therefore an octet pair as it is on the wire, `[u8; 2]`, never a number.

use super::headers::protocol;
use crate::drops::DropReason;
use std::net::IpAddr;

/// A running ones' complement sum over whole 16-bit words in memory order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds octets that start at an even offset of what is summed; an odd last octet is padded with 0.
    #[inline]
    #[must_use]
    pub fn add_octets(self, bytes: &[u8]) -> Self {
        self.add_word(sum_octets(bytes))
    }

    /// Adds one 16-bit number.
    #[inline]
    #[must_use]
    pub fn add_u16(self, value: u16) -> Self {
        self.add_word(u64::from(value.to_be()))
    }

    /// The checksum field for what was summed: the complement.
    #[inline]
    pub fn complement(self) -> [u8; 2] {
        (!fold(self.0)).to_ne_bytes()
    }

    /// The folded sum itself: what a partial checksum field holds (virtio `NEEDS_CSUM`).
    #[inline]
    pub fn partial(self) -> [u8; 2] {
        fold(self.0).to_ne_bytes()
    }

    /// Whether what was summed includes a correct checksum field.
    #[inline]
    pub fn is_valid(self) -> bool {
        fold(self.0) == 0xffff
    }

    #[inline]
    fn add_word(self, word: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(word);
        Self(sum + u64::from(carry))
    }
}

/// The checksum of `bytes`, whose checksum field holds 0.
#[inline]
pub fn internet(bytes: &[u8]) -> [u8; 2] {
    Sum::default().add_octets(bytes).complement()
}

/// The pseudo-header of TCP, UDP and ICMPv6 (RFC 768, RFC 8200 §8.1); `transport_len` is header and payload in octets.
#[inline]
pub fn pseudo_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport_len: usize,
) -> Sum {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Sum::default().add_octets(&source.octets()).add_octets(&destination.octets())
        }
        (source, destination) => {
            Sum::default().add_octets(&octets_v6(source)).add_octets(&octets_v6(destination))
        }
    };
    addresses
        .add_u16(u16::from(protocol))
        .add_u16((transport_len >> 16) as u16)
        .add_u16(transport_len as u16)
}

/// The checksum field after one 16-bit word it covers changed from `old` to `new` (RFC 1624 eqn. 3).
#[inline]
pub fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = u64::from(!u16::from_ne_bytes(checksum))
        + u64::from(!u16::from_ne_bytes(old))
        + u64::from(u16::from_ne_bytes(new));
    (!fold(sum)).to_ne_bytes()
}

/// Completes a partial checksum (EN-28): the field at `csum_start + csum_offset` holds the pseudo-header's sum, everything from
/// `csum_start` to the end of `packet` (trim it first, DE-06) is summed over it. Fails with [`DropReason::InnerMalformed`] when the
/// field lies outside `packet`.
#[inline]
pub fn complete(packet: &mut [u8], csum_start: u16, csum_offset: u16) -> Result<(), DropReason> {
    let start = usize::from(csum_start);
    let field = start + usize::from(csum_offset);
    if field + 2 > packet.len() {
        return Err(DropReason::InnerMalformed);
    }
    let mut checksum = internet(&packet[start..]);
    // Only UDP has "no checksum", and says it with 0 (RFC 768); for TCP both zeros mean the same.
    if checksum == [0, 0] && csum_offset == UDP_CHECKSUM_OFFSET {
        checksum = [0xff, 0xff];
    }
    packet[field..field + 2].copy_from_slice(&checksum);
    Ok(())
}

/// Where the checksum field is in a UDP header.
pub(crate) const UDP_CHECKSUM_OFFSET: u16 = 6;
/// Where the checksum field is in a TCP header.
pub(crate) const TCP_CHECKSUM_OFFSET: u16 = 16;

/// What to write into the field of `protocol`: a computed UDP 0 is sent as 0xffff (EN-21).
#[inline]
pub(crate) fn transport_field(number: u8, sum: Sum) -> [u8; 2] {
    match sum.complement() {
        [0, 0] if number == protocol::UDP => [0xff, 0xff],
        checksum => checksum,
    }
}

#[inline]
fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The ones' complement sum in 64-bit words.
#[inline]
fn sum_octets(bytes: &[u8]) -> u64 {
    const LANES: usize = 4;
    let (blocks, rest) = bytes.as_chunks::<{ 8 * LANES }>();
    // Independent accumulators break the carry chain; u128 holds the carries of any slice without a check per word.
    let mut lanes = [0u128; LANES];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u128::from(u64::from_ne_bytes(*word));
        }
    }
    let (words, tail) = rest.as_chunks::<8>();
    for word in words {
        lanes[0] += u128::from(u64::from_ne_bytes(*word));
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    lanes[1] += u128::from(u64::from_ne_bytes(last));
    let total = lanes.iter().sum::<u128>();
    let (sum, carry) = ((total >> 64) as u64).overflowing_add(total as u64);
    sum + u64::from(carry)
}
