//! Frames for floods: small UDP packets of many flows, plain or encapsulated as each contender does it.

use std::net::IpAddr;

use crate::bench::bed::{FAR, NEAR, Place, SINK, rloc};
use crate::bench::contender::{Method, VNI, VXLAN_PORT, VXLAN_STATIONS};
use crate::bench::family::{Family, Version};
use crate::lab::addresses::Site;
use crate::lab::capture::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::lab::probe::craft::{self, Header};

/// Flows of a flood.
pub(crate) const FLOWS: u16 = 64;
/// Length of the packets of a flood, IP header included.
pub(crate) const LENGTH: usize = 64;
/// Source port of the first flow.
const FIRST_PORT: u16 = 20_000;
/// Source port of the first flow's encapsulated packets, as RFC 9300 §5.3 wants one per flow.
const FIRST_OUTER_PORT: u16 = 50_000;
/// The discard service (RFC 863).
const DISCARD: u16 = 9;
/// Octets of a UDP header.
const UDP: usize = 8;

/// Packets from host 1 to the sink, one per flow.
pub(crate) fn native(inner: Version) -> Vec<Vec<u8>> {
    native_to(&[address(SINK, inner)])
}

/// Packets from host 1 to each of these destinations in turn, and to each at least once; all flows in turn, too.
pub(crate) fn native_to(destinations: &[IpAddr]) -> Vec<Vec<u8>> {
    let packet = |(destination, flow): (&IpAddr, u16)| {
        let version = if destination.is_ipv4() { Version::V4 } else { Version::V6 };
        let header = Header::new(address(NEAR, version), *destination);
        let payload = vec![0x5a; LENGTH - header.length() - UDP];
        craft::udp(&header, (FIRST_PORT + flow, DISCARD), &payload, true)
    };
    let flows = (0..FLOWS).cycle();
    let count = destinations.len().max(FLOWS.into());
    destinations.iter().cycle().zip(flows).take(count).map(packet).collect()
}

/// The same packets as gateway 1 would send them to gateway 2 by this method, without outer UDP checksum, as
/// RFC 9300 §5.3 and RFC 7348 §5 prefer.
pub(crate) fn encapsulated(method: &Method, family: Family) -> Vec<Vec<u8>> {
    let inner = native(family.inner);
    let outer = Header::new(rloc(Place::Near, family.outer), rloc(Place::Far, family.outer));
    let ports = FIRST_OUTER_PORT..;
    match method {
        Method::Plain => inner,
        Method::Vxlan => {
            let vxlan = |(packet, port): (&Vec<u8>, _)| {
                let mut payload = vec![8, 0, 0, 0];
                payload.extend((VNI << 8).to_be_bytes());
                payload.extend(frame(VXLAN_STATIONS[1], VXLAN_STATIONS[0], packet));
                craft::udp(&outer, (port, VXLAN_PORT), &payload, false)
            };
            inner.iter().zip(ports).map(vxlan).collect()
        }
        Method::Isthmus(_) | Method::Peer(_) => {
            let lisp = |(packet, port): (&Vec<u8>, _)| craft::lisp(&outer, port, packet, false);
            inner.iter().zip(ports).map(lisp).collect()
        }
    }
}

/// A packet in an Ethernet frame.
pub(crate) fn frame(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let is_ipv4 = packet.first().is_some_and(|octet| octet >> 4 == 4);
    let ethertype = if is_ipv4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    let mut frame = destination.to_vec();
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn address(site: &Site, version: Version) -> IpAddr {
    match version {
        Version::V4 => site.host4(0),
        Version::V6 => site.host6(0),
    }
}

/// The address of host 1.
pub(crate) fn near(version: Version) -> IpAddr {
    address(NEAR, version)
}

/// The address of host 2.
pub(crate) fn far(version: Version) -> IpAddr {
    address(FAR, version)
}

/// An address whose packets end when they leave the gateway under test.
pub(crate) fn sink(version: Version) -> IpAddr {
    address(SINK, version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::decode::{Content, Payload, datagram};

    #[test]
    fn a_flood_is_64_packets_of_64_octets_and_64_flows() {
        for version in [Version::V4, Version::V6] {
            let packets = native(version);
            assert_eq!(packets.len(), 64);
            assert!(packets.iter().all(|packet| packet.len() == 64));
            let mut distinct = packets.clone();
            distinct.dedup();
            assert_eq!(distinct.len(), 64);
        }
    }

    #[test]
    fn every_method_encapsulates_in_its_own_way() {
        for family in Family::ALL {
            let outer = if family.outer == Version::V4 { 20 } else { 40 };
            let length = |method| encapsulated(&method, family)[0].len();
            assert_eq!(length(Method::Plain), 64);
            assert_eq!(length(Method::Vxlan), 64 + 14 + 8 + 8 + outer);
            assert_eq!(length(Method::Isthmus(Default::default())), 64 + 8 + 8 + outer);
        }
        let lisp = &encapsulated(&Method::Isthmus(Default::default()), Family::MIGRATION)[0];
        let decoded = datagram(lisp).unwrap();
        let Payload::Udp(udp) = decoded.payload else { panic!("{decoded:?}") };
        assert!(matches!(udp.content, Content::Lisp(_)) && udp.checksum == 0, "{udp:?}");
    }
}
