//! Whether an inner packet fits the path to its locator, and what to do when not (RFC 9300 §7).

use super::headers::{Ipv4Header, Ipv6Header, LispHeader, UdpHeader};
use super::inner::{Family, Inner};

/// The smallest MTU of an IPv6 link (RFC 8200 §5).
pub const IPV6_MIN_MTU: usize = 1280;

/// H: what encapsulation adds with an outer header of `outer`, octets.
#[inline]
pub const fn overhead(outer: Family) -> usize {
    let ip = match outer {
        Family::V4 => Ipv4Header::LEN,
        Family::V6 => Ipv6Header::LEN,
    };
    ip + UdpHeader::LEN + LispHeader::LEN
}

/// S: the largest inner packet when the largest outer one is `mtu` (L) octets (RFC 9300 §7.1).
#[inline]
pub const fn inner_limit(mtu: u16, outer: Family) -> usize {
    (mtu as usize).saturating_sub(overhead(outer))
}

/// What to do with an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Encapsulate it.
    Fits,
    /// Encapsulate it in an outer packet that may be fragmented: IPv6 of at most 1280 octets over a smaller path (MT-08).
    FitsFragmentedOutside,
    /// Split it with [`super::Fragments`] first: IPv4 with DF=0 (MT-03).
    Fragment,
    /// Drop it and tell the source this MTU in octets: IPv4 with DF=1 (MT-06) or IPv6 (MT-07).
    TooBig(u16),
}

/// What to do with a packet of `len` octets, `inner` its headers, when `limit` (S) octets fit. For a super-packet pass the length of
/// its largest segment ([`super::Segments::packet_len`]).
#[inline]
pub fn check(inner: &Inner, len: usize, limit: usize) -> Fit {
    if len <= limit { Fit::Fits } else { oversize(inner, len, limit) }
}

#[cold]
fn oversize(inner: &Inner, len: usize, limit: usize) -> Fit {
    match inner.family() {
        Family::V6 if len <= IPV6_MIN_MTU => Fit::FitsFragmentedOutside,
        Family::V6 => Fit::TooBig(limit.clamp(IPV6_MIN_MTU, MAX_MTU) as u16),
        // A fragment needs room for at least 8 octets behind its header.
        Family::V4 if !inner.dont_fragment && limit >= inner.header_len + 8 => Fit::Fragment,
        Family::V4 => Fit::TooBig(limit.min(MAX_MTU) as u16),
    }
}

const MAX_MTU: usize = u16::MAX as usize;
