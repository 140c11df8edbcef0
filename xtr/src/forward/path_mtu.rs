//! PURE. What routers on the way report of a locator, and the path MTU per locator that comes of it (stateful mode, RFC 9300 §7.2).
//!
//! A report is believed only if it quotes a packet that we could have sent (MT-12); it can only lower the configured L, and ages out.
use crate::packet::headers::{Ipv4Header, Ipv6Header, UdpHeader, protocol};
use crate::packet::mtu::IPV6_MIN_MTU;
use crate::packet::{Family, lisp};
use arc_swap::ArcSwap;
use mapping::wire::CONTROL_PORT;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerocopy::FromBytes;

/// How long a lowered MTU holds: not less than 5 minutes (MT-15, RFC 8201 §4).
const LIFETIME: Duration = Duration::from_secs(600);
/// The smallest IPv4 estimate (MT-13, RFC 1191 §3).
const IPV4_MIN_MTU: u16 = 68;
/// Locators remembered; a report about one more is ignored.
const MAX_LOCATORS: usize = 1024;

/// What an ICMP message says about one of our encapsulated packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// Outer source of the quoted packet: to be an own RLOC.
    pub source: IpAddr,
    /// Outer source port: to be of the pool.
    pub source_port: u16,
    /// The locator it was on its way to.
    pub destination: IpAddr,
    /// What became of it.
    pub what: Reported,
}

/// What became of a packet that did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// Too large: so many octets get through.
    Mtu(u16),
    /// The network or the host cannot be reached (RFC 9301 §7(1)).
    Unreachable,
    /// The host has nobody at that port (RFC 9301 §7(3)).
    NoPort,
}

/// ICMPv4 destination unreachable: of network and host, unreachable and unknown; of port; too large.
const V4_UNREACHABLE: u8 = 3;
const V4_NO_PATH: [u8; 4] = [0, 1, 6, 7];
const V4_NO_PORT: u8 = 3;
const V4_TOO_BIG: u8 = 4;
/// ICMPv6 destination unreachable: no route, address unreachable; no port. Too large is a type of its own.
const V6_UNREACHABLE: u8 = 1;
const V6_NO_PATH: [u8; 2] = [0, 3];
const V6_NO_PORT: u8 = 4;
const V6_TOO_BIG: u8 = 2;

impl PathReport {
    /// Reads an ICMP message that says why a packet did not get through, without IP header. `None` for everything else, and when the
    /// quoted packet is no LISP data or the MTU is impossible (MT-13).
    pub fn parse(family: Family, message: &[u8]) -> Option<Self> {
        let (head, quoted) = message.split_at_checked(8)?;
        let &[kind, code, _, _, a, b, c, d] = head else { return None };
        match family {
            Family::V4 if kind == V4_UNREACHABLE => {
                let what = match code {
                    V4_TOO_BIG => possible_v4(u16::from_be_bytes([c, d]))?,
                    V4_NO_PORT => Reported::NoPort,
                    _ if V4_NO_PATH.contains(&code) => Reported::Unreachable,
                    _ => return None,
                };
                Self::quoting_v4(what, quoted)
            }
            Family::V6 => {
                let what = match (kind, code) {
                    (V6_TOO_BIG, _) => possible_v6(u32::from_be_bytes([a, b, c, d]))?,
                    (V6_UNREACHABLE, V6_NO_PORT) => Reported::NoPort,
                    (V6_UNREACHABLE, _) if V6_NO_PATH.contains(&code) => Reported::Unreachable,
                    _ => return None,
                };
                Self::quoting_v6(what, quoted)
            }
            Family::V4 => None,
        }
    }

    fn quoting_v4(what: Reported, quoted: &[u8]) -> Option<Self> {
        let (header, _) = Ipv4Header::ref_from_prefix(quoted).ok()?;
        let header_len = usize::from(header.version_ihl & 0x0f) * 4;
        if header.version_ihl >> 4 != 4 || header.protocol != protocol::UDP {
            return None;
        }
        let (source, destination) = (header.source.into(), header.destination.into());
        Self::quoting_udp(source, destination, what, quoted.get(header_len..)?)
    }

    fn quoting_v6(what: Reported, quoted: &[u8]) -> Option<Self> {
        let (header, udp) = Ipv6Header::ref_from_prefix(quoted).ok()?;
        if quoted[0] >> 4 != 6 || header.next_header != protocol::UDP {
            return None;
        }
        Self::quoting_udp(header.source.into(), header.destination.into(), what, udp)
    }

    fn quoting_udp(
        source: IpAddr,
        destination: IpAddr,
        what: Reported,
        udp: &[u8],
    ) -> Option<Self> {
        let (udp, _) = UdpHeader::ref_from_prefix(udp).ok()?;
        let to = udp.destination_port.get();
        // An RTR's packets go from port 4342 to whatever port a NAT has.
        let translated = udp.source_port.get() == CONTROL_PORT && to != CONTROL_PORT;
        (to == lisp::DATA_PORT || translated).then_some(Self {
            source,
            source_port: udp.source_port.get(),
            destination,
            what,
        })
    }
}

/// 0 is what routers before RFC 1191 say: they do not know.
fn possible_v4(mtu: u16) -> Option<Reported> {
    (mtu != 0).then_some(Reported::Mtu(mtu.max(IPV4_MIN_MTU)))
}

fn possible_v6(mtu: u32) -> Option<Reported> {
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    (usize::from(mtu) >= IPV6_MIN_MTU).then_some(Reported::Mtu(mtu))
}

/// Common MTUs, largest first (RFC 1191 §7, and what tunnels and access lines have today).
const PLATEAUS: [u16; 18] = [
    32_000, 17_914, 9_000, 8_166, 4_352, 2_002, 1_500, 1_492, 1_480, 1_460, 1_420, 1_400, 1_350,
    1_280, 1_006, 508, 296, 68,
];

/// The lowered MTUs of all locators, shared by the workers. Costs one load per packet while there are none.
#[derive(Debug, Default)]
pub struct PathMtus {
    /// Reports of others change nothing.
    deaf: bool,
    any: AtomicBool,
    lowered: ArcSwap<BTreeMap<IpAddr, Lowered>>,
}

#[derive(Clone, Copy, Debug)]
struct Lowered {
    mtu: u16,
    until: Instant,
}

impl PathMtus {
    /// Believes what `listen` allows: with `false` only our own interfaces (MT-01).
    pub fn listening(listen: bool) -> Self {
        Self { deaf: !listen, ..Self::default() }
    }

    /// Takes a router's report that was checked (MT-11). True if it lowered something.
    pub fn report(&self, now: Instant, destination: IpAddr, mtu: u16) -> bool {
        !self.deaf && self.lower(now, destination, mtu)
    }

    /// L towards `destination`: `configured`, or less while a report says so (MT-10, MT-14).
    #[inline]
    pub fn effective(&self, now: Instant, destination: &IpAddr, configured: u16) -> u16 {
        if self.any.load(Ordering::Relaxed) {
            self.lowered_to(now, destination, configured)
        } else {
            configured
        }
    }

    #[cold]
    fn lowered_to(&self, now: Instant, destination: &IpAddr, configured: u16) -> u16 {
        match self.lowered.load().get(destination) {
            Some(lowered) if now < lowered.until => configured.min(lowered.mtu),
            _ => configured,
        }
    }

    /// Our own interface refused an outer packet of `len` octets: tries the next common MTU below. True if it lowered something.
    pub fn refused(&self, now: Instant, destination: IpAddr, len: usize) -> bool {
        let least = if destination.is_ipv4() { IPV4_MIN_MTU } else { IPV6_MIN_MTU as u16 };
        let below = PLATEAUS.into_iter().find(|&mtu| usize::from(mtu) < len);
        below.is_some_and(|mtu| mtu >= least && self.lower(now, destination, mtu))
    }

    /// What was reported and holds at `now`, by locator.
    pub fn reported(&self, now: Instant) -> Vec<(IpAddr, u16)> {
        let lowered = self.lowered.load();
        let holds = lowered.iter().filter(|(_, lowered)| now < lowered.until);
        holds.map(|(&rloc, lowered)| (rloc, lowered.mtu)).collect()
    }

    /// Something says what gets through; one above the current estimate changes nothing (MT-11, MT-13). True if it lowered something.
    pub fn lower(&self, now: Instant, destination: IpAddr, mtu: u16) -> bool {
        let current = self.lowered.load();
        let is_news = match current.get(&destination) {
            Some(known) => now >= known.until || mtu < known.mtu,
            None => true,
        };
        if !is_news {
            return false;
        }
        let mut lowered = BTreeMap::clone(&current);
        lowered.retain(|_, lowered| now < lowered.until);
        if lowered.len() >= MAX_LOCATORS && !lowered.contains_key(&destination) {
            return false;
        }
        lowered.insert(destination, Lowered { mtu, until: now + LIFETIME });
        self.lowered.store(lowered.into());
        self.any.store(true, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::OuterFields;
    use crate::packet::outer::{OuterAddresses, build};
    use mapping::eid::InstanceId;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const V4: OuterAddresses = OuterAddresses::V4 {
        source: Ipv4Addr::new(198, 51, 100, 1),
        destination: Ipv4Addr::new(198, 51, 100, 2),
    };
    const V6: OuterAddresses = OuterAddresses::V6 {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
        flow_label: 7,
    };

    fn quoted(addresses: OuterAddresses) -> Vec<u8> {
        let mut packet = Vec::new();
        let fields = OuterFields { ttl: 60, tos: 0 };
        build(addresses, fields, 50_001, InstanceId::DEFAULT, &[0x45; 40], &mut packet);
        packet
    }

    fn message(kind: u8, code: u8, mtu: u32, quoted: &[u8]) -> Vec<u8> {
        [&[kind, code, 0, 0][..], &mtu.to_be_bytes(), quoted].concat()
    }

    #[test]
    fn mt_11_reports_about_our_packets_are_read() {
        let report = PathReport::parse(Family::V4, &message(3, 4, 1400, &quoted(V4)[..28]));
        let report = report.expect("a report");
        assert_eq!((report.source_port, report.what), (50_001, Reported::Mtu(1400)));
        assert_eq!(report.source, Ipv4Addr::new(198, 51, 100, 1));
        assert_eq!(report.destination, Ipv4Addr::new(198, 51, 100, 2));
        let report = PathReport::parse(Family::V6, &message(2, 0, 1300, &quoted(V6)));
        let report = report.map(|report| (report.source_port, report.what));
        assert_eq!(report, Some((50_001, Reported::Mtu(1300))));
    }

    #[test]
    fn mt_12_other_packets_are_no_concern() {
        for (offset, value) in [(9, 6), (0, 0x65), (23, 0)] {
            let mut other = quoted(V4);
            other[offset] = value;
            assert_eq!(PathReport::parse(Family::V4, &message(3, 4, 1400, &other)), None);
        }
        for (kind, code) in [(3, 2), (3, 13), (11, 0), (4, 0)] {
            assert_eq!(
                PathReport::parse(Family::V4, &message(kind, code, 1400, &quoted(V4))),
                None
            );
        }
        let whole = message(3, 4, 1400, &quoted(V4)[..28]);
        for len in 0..whole.len() {
            assert_eq!(PathReport::parse(Family::V4, &whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn pb_14_pb_15_it_is_read_why_a_packet_did_not_get_through() {
        for (kind, code, what) in [
            (3, 0, Some(Reported::Unreachable)),
            (3, 1, Some(Reported::Unreachable)),
            (3, 3, Some(Reported::NoPort)),
            (3, 13, None),
        ] {
            let report = PathReport::parse(Family::V4, &message(kind, code, 0, &quoted(V4)[..28]));
            assert_eq!(report.map(|report| report.what), what, "{kind} {code}");
        }
        for (kind, code, what) in [
            (1, 0, Some(Reported::Unreachable)),
            (1, 3, Some(Reported::Unreachable)),
            (1, 4, Some(Reported::NoPort)),
            (1, 1, None),
            (3, 0, None),
        ] {
            let report = PathReport::parse(Family::V6, &message(kind, code, 0, &quoted(V6)));
            assert_eq!(report.map(|report| report.what), what, "{kind} {code}");
        }
    }

    #[test]
    fn mt_13_impossible_mtus_are_not_believed() {
        let v4 = |mtu| PathReport::parse(Family::V4, &message(3, 4, mtu, &quoted(V4)));
        assert_eq!(v4(0), None);
        assert_eq!(v4(40).map(|report| report.what), Some(Reported::Mtu(68)));
        let v6 = |mtu| PathReport::parse(Family::V6, &message(2, 0, mtu, &quoted(V6)));
        assert_eq!(v6(1279), None);
        assert_eq!(v6(1 << 20).map(|report| report.what), Some(Reported::Mtu(u16::MAX)));
    }

    #[test]
    fn mt_10_mt_13_mt_15_an_mtu_is_lowered_never_raised_and_ages_out() {
        let now = Instant::now();
        let paths = PathMtus::default();
        let [a, b] = [1, 2].map(|last| IpAddr::from([198, 51, 100, last]));
        assert_eq!(paths.effective(now, &a, 1500), 1500);
        assert!(paths.lower(now, a, 1400));
        assert_eq!(paths.effective(now, &a, 1500), 1400);
        assert_eq!(paths.effective(now, &a, 1300), 1300, "never above L");
        assert_eq!(paths.effective(now, &b, 1500), 1500, "another locator");
        assert!(!paths.lower(now, a, 1450));
        assert_eq!(paths.effective(now, &a, 1500), 1400);
        assert_eq!(paths.effective(now + Duration::from_secs(599), &a, 1500), 1400);
        assert_eq!(paths.effective(now + Duration::from_secs(600), &a, 1500), 1500);
        assert!(paths.lower(now + Duration::from_secs(601), a, 1450), "the old one is forgotten");
    }

    #[test]
    fn mt_10_a_refused_packet_lowers_the_mtu_step_by_step() {
        let now = Instant::now();
        let paths = PathMtus::default();
        let [v4, v6] = [IpAddr::from([198, 51, 100, 2]), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        assert!(paths.refused(now, v4, 1500));
        assert_eq!(paths.effective(now, &v4, 1500), 1492);
        assert!(!paths.refused(now, v4, 1496), "sent before that was known");
        assert!(paths.refused(now, v4, 1450));
        assert_eq!(paths.effective(now, &v4, 1500), 1420);
        assert!(!paths.refused(now, v4, 60));
        assert!(!paths.refused(now, v6, 1280), "IPv6 links carry 1280");
    }

    #[test]
    fn the_table_is_bounded() {
        let now = Instant::now();
        let paths = PathMtus::default();
        let locator = |i: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + i));
        for i in 0..MAX_LOCATORS as u32 {
            assert!(paths.lower(now, locator(i), 1400));
        }
        assert!(!paths.lower(now, locator(u32::MAX >> 8), 1400));
        assert!(paths.lower(now, locator(0), 1300), "a known one still counts");
    }
}
