//! Packets made by hand, for header fields that a normal socket does not let one choose.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pnet_packet::Packet;
use pnet_packet::icmp::echo_request::{IcmpCodes, MutableEchoRequestPacket};
use pnet_packet::icmp::{self, IcmpPacket, IcmpType, IcmpTypes};
use pnet_packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{self, Ipv4Flags, Ipv4Packet, MutableIpv4Packet};
use pnet_packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet_packet::udp::{MutableUdpPacket, UdpPacket};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::decode;
use crate::lab::namespace::Namespace;

/// `IPPROTO_RAW`: the sender writes the IP header.
const RAW: i32 = 255;

/// The IP header fields of a crafted packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// IPv4 only.
    pub(crate) dont_fragment: bool,
}

impl Header {
    /// A normal packet: hop limit 64, DF, traffic class 0.
    pub(crate) fn new(source: IpAddr, destination: IpAddr) -> Self {
        Self { source, destination, hop_limit: 64, traffic_class: 0, dont_fragment: true }
    }

    /// Octets of the IP header.
    pub(crate) fn length(&self) -> usize {
        if self.source.is_ipv4() {
            Ipv4Packet::minimum_packet_size()
        } else {
            Ipv6Packet::minimum_packet_size()
        }
    }

    /// The packet with this header, `protocol` and `payload`; `None` if it is too long for IP or the
    /// addresses are of two families.
    pub(super) fn packet(&self, protocol: IpNextHeaderProtocol, payload: &[u8]) -> Option<Vec<u8>> {
        let mut packet = vec![0; self.length()];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = u16::try_from(packet.len() + payload.len()).ok()?;
                let mut header = MutableIpv4Packet::new(&mut packet)?;
                self.fill_ipv4(&mut header, (source, destination), protocol, length);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = u16::try_from(payload.len()).ok()?;
                let mut header = MutableIpv6Packet::new(&mut packet)?;
                self.fill_ipv6(&mut header, (source, destination), protocol, length);
            }
            _ => return None,
        }
        packet.extend(payload);
        Some(packet)
    }

    fn fill_ipv4(
        &self,
        header: &mut MutableIpv4Packet<'_>,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        protocol: IpNextHeaderProtocol,
        total_length: u16,
    ) {
        header.set_version(4);
        header.set_header_length(5);
        header.set_dscp(self.traffic_class >> 2);
        header.set_ecn(self.traffic_class & 3);
        header.set_total_length(total_length);
        header.set_flags(if self.dont_fragment { Ipv4Flags::DontFragment } else { 0 });
        header.set_ttl(self.hop_limit);
        header.set_next_level_protocol(protocol);
        header.set_source(source);
        header.set_destination(destination);
        header.set_checksum(ipv4::checksum(&header.to_immutable()));
    }

    fn fill_ipv6(
        &self,
        header: &mut MutableIpv6Packet<'_>,
        (source, destination): (Ipv6Addr, Ipv6Addr),
        protocol: IpNextHeaderProtocol,
        payload_length: u16,
    ) {
        header.set_version(6);
        header.set_traffic_class(self.traffic_class);
        header.set_payload_length(payload_length);
        header.set_next_header(protocol);
        header.set_hop_limit(self.hop_limit);
        header.set_source(source);
        header.set_destination(destination);
    }
}

/// An echo request of `length` octets in all (IP header included); empty if IP cannot carry it.
pub(crate) fn echo_request(header: &Header, id: u16, sequence: u16, length: usize) -> Vec<u8> {
    echo_packet(header, id, sequence, length).unwrap_or_default()
}

/// A UDP datagram; its checksum is computed, or 0 if not `with_checksum`. Empty if IP cannot carry it.
pub(crate) fn udp(
    header: &Header,
    ports: (u16, u16),
    payload: &[u8],
    with_checksum: bool,
) -> Vec<u8> {
    udp_packet(header, ports, payload, with_checksum).unwrap_or_default()
}

/// `inner` behind a LISP header (no flags, Instance ID 0), UDP 4341 and the outer `header`.
pub(crate) fn lisp(
    header: &Header,
    source_port: u16,
    inner: &[u8],
    with_checksum: bool,
) -> Vec<u8> {
    let mut payload = vec![0; 8];
    payload.extend(inner);
    udp(header, (source_port, decode::LISP_DATA), &payload, with_checksum)
}

/// ICMP Destination Unreachable (RFC 792) about `quoted`, the beginning of an IPv4 packet; empty if IP cannot carry it.
pub(crate) fn unreachable(header: &Header, code: u8, quoted: &[u8]) -> Vec<u8> {
    unreachable_packet(header, code, quoted).unwrap_or_default()
}

/// Sends a whole IP packet from `namespace`; its source need not be an address there.
pub(crate) fn send(namespace: &Namespace, packet: Vec<u8>, destination: IpAddr) -> io::Result<()> {
    namespace.run(move || {
        let family = Domain::for_address(SocketAddr::new(destination, 0));
        let socket = Socket::new(family, Type::RAW, Some(Protocol::from(RAW)))?;
        socket.send_to(&packet, &SocketAddr::new(destination, 0).into()).map(drop)
    })?
}

fn echo_packet(header: &Header, id: u16, sequence: u16, length: usize) -> Option<Vec<u8>> {
    let least = MutableEchoRequestPacket::minimum_packet_size();
    let mut message = vec![0x5a; length.saturating_sub(header.length()).max(least)];
    // An ICMPv6 echo has the layout of an ICMP echo (RFC 4443 §4.1).
    let mut echo = MutableEchoRequestPacket::new(&mut message)?;
    echo.set_icmp_code(IcmpCodes::NoCode);
    echo.set_identifier(id);
    echo.set_sequence_number(sequence);
    let (protocol, checksum) = match (header.source, header.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            echo.set_icmp_type(IcmpTypes::EchoRequest);
            let message = IcmpPacket::new(echo.packet())?;
            (IpNextHeaderProtocols::Icmp, icmp::checksum(&message))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            echo.set_icmp_type(IcmpType(Icmpv6Types::EchoRequest.0));
            let message = Icmpv6Packet::new(echo.packet())?;
            (IpNextHeaderProtocols::Icmpv6, icmpv6::checksum(&message, &source, &destination))
        }
        _ => return None,
    };
    echo.set_checksum(checksum);
    header.packet(protocol, &message)
}

fn unreachable_packet(header: &Header, code: u8, quoted: &[u8]) -> Option<Vec<u8>> {
    let mut message = vec![IcmpTypes::DestinationUnreachable.0, code, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    let checksum = icmp::checksum(&IcmpPacket::new(&message)?);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    header.packet(IpNextHeaderProtocols::Icmp, &message)
}

fn udp_packet(
    header: &Header,
    (source_port, destination_port): (u16, u16),
    payload: &[u8],
    with_checksum: bool,
) -> Option<Vec<u8>> {
    let mut octets = vec![0; UdpPacket::minimum_packet_size()];
    octets.extend(payload);
    let length = u16::try_from(octets.len()).ok()?;
    let mut datagram = MutableUdpPacket::new(&mut octets)?;
    datagram.set_source(source_port);
    datagram.set_destination(destination_port);
    datagram.set_length(length);
    if with_checksum {
        let addresses = (header.source, header.destination);
        datagram.set_checksum(decode::udp_checksum(addresses, datagram.packet())?);
    }
    header.packet(IpNextHeaderProtocols::Udp, &octets)
}

#[cfg(test)]
mod tests {
    use pnet_packet::util;

    use super::*;
    use crate::lab::decode::{Payload, datagram};

    #[test]
    fn a_crafted_packet_decodes_to_what_was_asked_for() {
        for (source, destination) in
            [("203.0.113.10", "203.0.113.74"), ("2001:db8:e001::10", "2001:db8:e002::10")]
        {
            let header = Header {
                traffic_class: 0xb9,
                hop_limit: 9,
                ..Header::new(source.parse().unwrap(), destination.parse().unwrap())
            };
            let octets = echo_request(&header, 7, 8, 1280);
            assert_eq!(octets.len(), 1280);
            let packet = datagram(&octets).unwrap();
            assert_eq!((packet.hop_limit, packet.traffic_class, packet.length), (9, 0xb9, 1280));
            assert_eq!(packet.icmp().unwrap().rest, 0x0007_0008);
            let outer = datagram(&lisp(&header, 50000, &octets[..200], false)).unwrap();
            assert!(matches!(&outer.payload, Payload::Udp(udp) if udp.checksum == 0));
        }
    }

    fn header(source: &str, destination: &str) -> Header {
        Header::new(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        // A word index out of the packet: none is left out.
        let no_word = usize::MAX;
        let source = Ipv4Addr::new(192, 0, 2, 1);
        let destination = Ipv4Addr::new(192, 0, 2, 2);
        let packet = udp(&Header::new(source.into(), destination.into()), (1, 2), b"odd", true);
        assert_eq!(util::checksum(&packet[..20], no_word), 0);
        let protocol = IpNextHeaderProtocols::Udp;
        let datagram = &packet[20..];
        assert_eq!(util::ipv4_checksum(datagram, no_word, &[], &source, &destination, protocol), 0);
    }

    /// Expected values come from a sum of 16-bit words by hand (RFC 1071), not from the crate.
    #[test]
    fn the_checksums_of_crafted_packets_are_those_of_rfc_1071() {
        let v4 = header("192.0.2.1", "192.0.2.2");
        let v6 = header("2001:db8::1", "2001:db8::2");
        let marked = Header { traffic_class: 0xb8, hop_limit: 63, ..v4 };
        let packet = udp(&marked, (1, 2), b"odd", true);
        assert_eq!(packet[10..12], [0xb7, 0x12]);
        assert_eq!(packet[26..28], [0xa8, 0x6c]);
        assert_eq!(udp(&v6, (1, 2), b"odd", true)[46..48], [0xd0, 0xfb]);
        assert_eq!(echo_request(&v4, 7, 8, 30)[22..24], [0x9d, 0x96]);
        assert_eq!(echo_request(&v6, 7, 8, 50)[42..44], [0xc9, 0xdc]);
    }

    #[test]
    fn an_icmp_error_quotes_what_it_is_about() {
        let quoted = udp(&header("192.0.2.2", "192.0.2.3"), (1, 2), b"odd", false);
        let packet = unreachable(&header("192.0.2.1", "192.0.2.2"), 3, &quoted);
        assert_eq!(packet[20..22], [3, 3]);
        assert_eq!(packet[28..], quoted);
        assert_eq!(util::checksum(&packet[20..], usize::MAX), 0);
    }

    #[test]
    fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
        let packet = udp(&header("192.0.2.1", "192.0.2.2"), (31704, 2), b"", true);
        assert_eq!(packet[26..28], [0xff, 0xff]);
        assert_eq!(datagram(&packet).unwrap().udp().unwrap().checksum_is_right, Some(true));
    }

    #[test]
    fn the_octets_of_a_crafted_packet_are_those_of_the_rfcs() {
        let fragmentable = Header {
            traffic_class: 0xb9,
            dont_fragment: false,
            ..header("192.0.2.1", "192.0.2.2")
        };
        let packet = udp(&fragmentable, (1, 2), b"odd", false);
        assert_eq!(packet[..10], [0x45, 0xb9, 0, 31, 0, 0, 0, 0, 64, 17]);
        assert_eq!(packet[12..20], [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(packet[20..], [0, 1, 0, 2, 0, 11, 0, 0, b'o', b'd', b'd']);
        let marked = Header { traffic_class: 0xb9, ..header("2001:db8::1", "2001:db8::2") };
        let packet = echo_request(&marked, 7, 8, 0);
        assert_eq!(packet[..8], [0x6b, 0x90, 0, 0, 0, 8, 58, 64]);
        assert_eq!(packet[40..42], [128, 0]);
        assert_eq!(packet[44..], [0, 7, 0, 8]);
    }

    #[test]
    fn what_ip_cannot_carry_is_not_crafted() {
        let v4 = header("192.0.2.1", "192.0.2.2");
        assert_eq!(echo_request(&v4, 1, 1, 65535).len(), 65535);
        assert!(echo_request(&v4, 1, 1, 65536).is_empty());
        assert!(udp(&v4, (1, 2), &[0; 65508], true).is_empty());
        assert!(echo_request(&header("192.0.2.1", "2001:db8::2"), 1, 1, 100).is_empty());
        assert!(udp(&header("2001:db8::1", "192.0.2.2"), (1, 2), b"", true).is_empty());
    }
}
