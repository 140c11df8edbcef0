//! ICMP errors to inner sources: what they say, when they are due, how many.

use super::checksum;
use super::flow::FlowHasher;
use super::headers::protocol;
use super::inner::{Family, Fragment, Inner};
use super::martian;
use super::mtu::IPV6_MIN_MTU;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An ICMP error this node originates (REQUIREMENTS §26.12); never Source Quench (MT-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// ICMPv4 3/4 or ICMPv6 2/0 with the MTU in octets; in ICMPv6 never below 1280 (MT-08).
    TooBig(u16),
    /// ICMPv4 11/0 or ICMPv6 3/0 (EN-05).
    HopLimitExceeded,
    /// ICMPv4 3/1 or ICMPv6 1/3 (EN-25).
    HostUnreachable,
}

/// The ICMP message about `packet`, without IP header: it quotes as much as fits 576 octets in all (IPv4) or 1280 (IPv6) (MT-17).
/// The ICMPv6 checksum is left 0: it needs the source address, which the kernel chooses (MT-18).
pub fn build(error: IcmpError, inner: &Inner, packet: &[u8]) -> Box<[u8]> {
    let quoted = &packet[..packet.len().min(inner.total_len)];
    let family = inner.family();
    let quoted = &quoted[..quoted.len().min(quote_limit(family))];
    let (kind, code) = type_and_code(error, family);
    let mut message = Vec::with_capacity(HEADER_LEN + quoted.len());
    message.extend_from_slice(&[kind, code, 0, 0]);
    let mtu = match (error, family) {
        (IcmpError::TooBig(mtu), Family::V4) => u32::from(mtu),
        (IcmpError::TooBig(mtu), Family::V6) => u32::from(mtu.max(IPV6_MIN_MTU as u16)),
        _ => 0,
    };
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(quoted);
    if family == Family::V4 {
        let checksum = checksum::internet(&message);
        message[2..4].copy_from_slice(&checksum);
    }
    message.into_boxed_slice()
}

/// Whether an ICMP error about this packet is allowed (MT-19): not about an ICMP error, a multicast or broadcast destination (an
/// ICMPv6 Packet Too Big is), a non-first fragment, or to a source that is no single host.
pub fn may_answer(error: IcmpError, inner: &Inner, packet: &[u8]) -> bool {
    let too_big_v6 = matches!(error, IcmpError::TooBig(_)) && inner.family() == Family::V6;
    let to_many = match inner.destination {
        IpAddr::V4(destination) => destination.is_multicast() || destination.is_broadcast(),
        IpAddr::V6(destination) => destination.is_multicast() && !too_big_v6,
    };
    !to_many
        && inner.fragment != Fragment::Later
        && martian::inner_source(inner.source, &[]).is_ok()
        && !is_icmp_error(inner, packet)
}

/// Octets of an ICMP error before what it quotes.
const HEADER_LEN: usize = 8;

/// What fits the whole message beside IP and ICMP header: 576 (RFC 1812 §4.3.2.3), 1280 (RFC 4443 §2.4(c)).
const fn quote_limit(family: Family) -> usize {
    match family {
        Family::V4 => 576 - 20 - HEADER_LEN,
        Family::V6 => IPV6_MIN_MTU - 40 - HEADER_LEN,
    }
}

const fn type_and_code(error: IcmpError, family: Family) -> (u8, u8) {
    match (error, family) {
        (IcmpError::TooBig(_), Family::V4) => (3, 4),
        (IcmpError::TooBig(_), Family::V6) => (2, 0),
        (IcmpError::HopLimitExceeded, Family::V4) => (11, 0),
        (IcmpError::HopLimitExceeded, Family::V6) => (3, 0),
        (IcmpError::HostUnreachable, Family::V4) => (3, 1),
        (IcmpError::HostUnreachable, Family::V6) => (1, 3),
    }
}

/// Destination Unreachable, Source Quench, Redirect, Time Exceeded, Parameter Problem; in ICMPv6 every type below 128 and
/// Redirect. A type that cannot be read counts as an error.
fn is_icmp_error(inner: &Inner, packet: &[u8]) -> bool {
    let kind = packet.get(inner.transport_offset).copied();
    match (inner.protocol, inner.family()) {
        (protocol::ICMP, Family::V4) => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        (protocol::ICMPV6, Family::V6) => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}

/// A token bucket's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second, at least 1.
    pub per_second: u32,
    /// Tokens of a full bucket, at least 1.
    pub burst: u32,
}

impl Default for Rate {
    /// 10 a second, burst 10 (MT-20).
    fn default() -> Self {
        Self { per_second: 10, burst: 10 }
    }
}

/// How many ICMP errors go out: a token bucket per family and one per inner source (RFC 4443 §2.4(f)), in a table of fixed size.
#[derive(Debug)]
pub struct IcmpLimiter {
    rate: Rate,
    hasher: FlowHasher,
    families: [Bucket; 2],
    sources: Box<[[Entry; WAYS]]>,
}

/// Sources that share a place in the table.
const WAYS: usize = 4;
/// Places in the table.
const SETS: usize = 256;

type Entry = Option<(IpAddr, Bucket)>;

impl IcmpLimiter {
    /// Every bucket full; `seed` keys the table.
    pub fn new(rate: Rate, seed: [u8; 32]) -> Self {
        Self {
            rate,
            hasher: FlowHasher::new(seed),
            families: [Bucket::default(); 2],
            sources: vec![[None; WAYS]; SETS].into_boxed_slice(),
        }
    }

    /// Whether an error to `source` may go out at `now`; if so it is counted. A source finds no place when all that share its place
    /// were answered a moment ago; it then gets nothing.
    pub fn allow(&mut self, now: Instant, source: IpAddr) -> bool {
        let family = &mut self.families[usize::from(source.is_ipv6())];
        let set = &mut self.sources[self.hasher.hash_address(source) as usize % SETS];
        let place = set
            .iter()
            .position(|entry| entry.is_some_and(|(known, _)| known == source))
            // A full bucket says nothing: its entry may go.
            .or_else(|| set.iter().position(|entry| entry.is_none_or(|(_, b)| b.is_full(now))));
        let Some(place) = place else { return false };
        let mut bucket = match set[place] {
            Some((known, bucket)) if known == source => bucket,
            _ => Bucket::default(),
        };
        let mut shared = *family;
        let allowed = bucket.take(now, self.rate) && shared.take(now, self.rate);
        if allowed {
            *family = shared;
            set[place] = Some((source, bucket));
        }
        allowed
    }
}

/// A token bucket as the time at which it will be full again (GCRA); `None` = full.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    fn is_full(self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }

    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        if full_at - now > interval * rate.burst.saturating_sub(1) {
            return false;
        }
        self.full_at = Some(full_at + interval);
        true
    }
}
