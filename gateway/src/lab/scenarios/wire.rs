//! Questions about what was captured, as several scenarios ask them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::lab::capture::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame};
use crate::lab::decode::{Control, Datagram, LISP_CONTROL, LISP_DATA, Lisp};

/// ICMPv6 types that keep an IPv6 link itself running: MLD and neighbour discovery.
const LINK_UPKEEP: [u8; 7] = [130, 131, 132, 133, 135, 136, 143];

/// A LISP data packet: the outer packet and the LISP part.
pub(crate) type Encapsulated<'a> = (&'a Datagram, &'a Lisp);

/// The LISP data packets between two RLOCs, in order.
pub(crate) fn encapsulated(
    packets: &[Datagram],
    source: IpAddr,
    destination: IpAddr,
) -> Vec<Encapsulated<'_>> {
    packets
        .iter()
        .filter(|packet| packet.source == source && packet.destination == destination)
        .filter_map(|packet| packet.lisp().map(|lisp| (packet, lisp)))
        .collect()
}

/// Those of them that carry packets between two inner addresses.
pub(crate) fn carrying<'a>(
    encapsulated: &[Encapsulated<'a>],
    source: IpAddr,
    destination: IpAddr,
) -> Vec<Encapsulated<'a>> {
    let carries = |(_, lisp): &&Encapsulated<'a>| {
        lisp.inner.source == source && lisp.inner.destination == destination
    };
    encapsulated.iter().filter(carries).copied().collect()
}

/// Map-Requests (no RLOC-probes) of one xTR for an EID-prefix around `eid`, encapsulated ones included.
pub(crate) fn map_requests(packets: &[Datagram], xtr: IpAddr, eid: IpAddr) -> usize {
    let asks = |packet: &&Datagram| match packet.control() {
        Some(Control::MapRequest { probe: false, eid: Some(asked), .. }) => asked.contains(&eid),
        _ => false,
    };
    packets.iter().filter(|packet| packet.source == xtr).filter(asks).count()
}

/// Outer UDP datagrams whose checksum does not fit them.
pub(crate) fn wrong_checksums(encapsulated: &[Encapsulated<'_>]) -> usize {
    let outer = encapsulated.iter().filter_map(|(outer, _)| outer.udp());
    outer.filter(|udp| udp.checksum_is_right == Some(false)).count()
}

/// The IP packets of frames.
pub(crate) fn datagrams(frames: &[Frame]) -> Vec<Datagram> {
    frames.iter().filter_map(|frame| frame.datagram.clone()).collect()
}

/// Frames in an IPv4 core that are native IPv6, or the other way round.
pub(crate) fn native_frames(frames: &[Frame], core_is_v4: bool) -> usize {
    let foreign = if core_is_v4 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    frames.iter().filter(|frame| frame.ethertype == foreign).count()
}

/// IP packets that are neither LISP data nor LISP control nor a link's own upkeep.
pub(crate) fn strangers(packets: &[Datagram]) -> usize {
    let belongs = |packet: &&Datagram| match (packet.udp(), packet.icmp()) {
        (Some(udp), _) => {
            udp.destination_port == LISP_DATA
                || udp.destination_port == LISP_CONTROL
                || udp.source_port == LISP_CONTROL
        }
        (_, Some(icmp)) => packet.source.is_ipv6() && LINK_UPKEEP.contains(&icmp.kind),
        _ => false,
    };
    packets.iter().filter(|packet| !belongs(packet)).count()
}

/// The distinct values of something, for people: `63`, or `62, 63` where one was expected.
pub(crate) fn distinct<T: Ord + ToString>(values: impl Iterator<Item = T>) -> String {
    let values: BTreeSet<T> = values.collect();
    if values.is_empty() {
        return String::from("none seen");
    }
    let shown: Vec<_> = values.iter().map(T::to_string).collect();
    shown.join(", ")
}

/// How the outer UDP source ports depend on the inner flows.
pub(crate) struct PortSpread {
    /// Inner flows seen.
    pub(crate) flows: usize,
    /// Flows that had more than one source port.
    pub(crate) unstable: usize,
    /// Flows per source port that was used.
    pub(crate) flows_per_port: Vec<u64>,
}

/// The source ports of UDP flows among LISP data packets.
pub(crate) fn port_spread(encapsulated: &[Encapsulated<'_>]) -> PortSpread {
    let mut ports_of_flow: BTreeMap<_, BTreeSet<u16>> = BTreeMap::new();
    for (outer, lisp) in encapsulated {
        if let (Some(outer), Some(_)) = (outer.udp(), lisp.inner.udp()) {
            ports_of_flow.entry(lisp.inner.flow()).or_default().insert(outer.source_port);
        }
    }
    let mut flows_of_port: BTreeMap<u16, u64> = BTreeMap::new();
    for port in ports_of_flow.values().filter_map(BTreeSet::first) {
        *flows_of_port.entry(*port).or_default() += 1;
    }
    PortSpread {
        flows: ports_of_flow.len(),
        unstable: ports_of_flow.values().filter(|ports| ports.len() > 1).count(),
        flows_per_port: flows_of_port.into_values().collect(),
    }
}

/// The least specific prefix that contains `eid` and none of `known` (RFC 9301 §8.4); `None` if one contains it.
pub(crate) fn negative_prefix(eid: IpAddr, known: &[IpNet]) -> Option<IpNet> {
    let host = IpNet::from(eid);
    (0..=host.max_prefix_len())
        .filter_map(|length| IpNet::new(eid, length).ok())
        .map(|prefix| prefix.trunc())
        .find(|prefix| !known.iter().any(|known| prefix.contains(known) || known.contains(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_negative_prefix_is_the_least_specific_one_beside_all_known() {
        let known: Vec<IpNet> =
            ["2001:db8:e001::/48", "2001:db8:e004::/48"].map(|p| p.parse().unwrap()).to_vec();
        for (eid, expected) in [
            ("2001:db8:dead::1", Some("2001:db8:c000::/35")),
            ("2001:db8:ffff::80", Some("2001:db8:f000::/36")),
            ("3000::1", Some("3000::/4")),
            ("2001:db8:e001::1", None),
            ("192.0.2.1", Some("0.0.0.0/0")),
        ] {
            let expected = expected.map(|prefix| prefix.parse().unwrap());
            assert_eq!(negative_prefix(eid.parse().unwrap(), &known), expected, "{eid}");
        }
    }

    #[test]
    fn distinct_values_are_listed_once() {
        assert_eq!(distinct([63, 63].into_iter()), "63");
        assert_eq!(distinct([63, 62].into_iter()), "62, 63");
        assert_eq!(distinct(std::iter::empty::<u8>()), "none seen");
    }
}
