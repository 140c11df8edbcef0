//! Packets made by hand, for header fields that a normal socket does not let one choose.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::checksum;
use crate::lab::namespace::Namespace;

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
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
        if self.source.is_ipv4() { 20 } else { 40 }
    }

    /// The packet with this header, `protocol` and `payload`.
    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet = vec![0x45, self.traffic_class];
                packet.extend(((20 + payload.len()) as u16).to_be_bytes());
                packet.extend([0, 0, if self.dont_fragment { 0x40 } else { 0 }, 0]);
                packet.extend([self.hop_limit, protocol, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                let checksum = checksum::internet(&packet);
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                packet.extend(payload);
                packet
            }
            (source, destination) => {
                let class = u32::from(self.traffic_class);
                let mut packet = (0x6000_0000 | class << 20).to_be_bytes().to_vec();
                packet.extend((payload.len() as u16).to_be_bytes());
                packet.extend([protocol, self.hop_limit]);
                packet.extend(checksum::address_octets(source));
                packet.extend(checksum::address_octets(destination));
                packet.extend(payload);
                packet
            }
        }
    }

    /// The checksum of `payload` behind this header's pseudo-header.
    fn checksum(&self, protocol: u8, payload: &[u8]) -> u16 {
        checksum::upper_layer((self.source, self.destination), protocol, payload)
    }
}

/// An echo request of `length` octets in all (IP header included).
pub(crate) fn echo_request(header: &Header, id: u16, sequence: u16, length: usize) -> Vec<u8> {
    let is_v4 = header.source.is_ipv4();
    let mut message = vec![if is_v4 { 8 } else { 128 }, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.resize(length.saturating_sub(header.length()).max(8), 0x5a);
    let checksum =
        if is_v4 { checksum::internet(&message) } else { header.checksum(ICMPV6, &message) };
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    header.packet(if is_v4 { ICMP } else { ICMPV6 }, &message)
}

/// A UDP datagram; its checksum is computed, or 0 if not `with_checksum`.
pub(crate) fn udp(
    header: &Header,
    (source_port, destination_port): (u16, u16),
    payload: &[u8],
    with_checksum: bool,
) -> Vec<u8> {
    let mut datagram = source_port.to_be_bytes().to_vec();
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    if with_checksum {
        let checksum = match header.checksum(UDP, &datagram) {
            0 => 0xffff,
            checksum => checksum,
        };
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
    header.packet(UDP, &datagram)
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
    let ports = (source_port, crate::lab::decode::LISP_DATA);
    udp(header, ports, &payload, with_checksum)
}

/// Sends a whole IP packet from `namespace`; its source need not be an address there.
pub(crate) fn send(namespace: &Namespace, packet: Vec<u8>, destination: IpAddr) -> io::Result<()> {
    namespace.run(move || {
        let family = Domain::for_address(SocketAddr::new(destination, 0));
        let socket = Socket::new(family, Type::RAW, Some(Protocol::from(RAW)))?;
        socket.send_to(&packet, &SocketAddr::new(destination, 0).into()).map(drop)
    })?
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        let header = Header::new("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let packet = udp(&header, (1, 2), b"odd", true);
        assert_eq!(checksum::internet(&packet[..20]), 0);
        assert_eq!(header.checksum(UDP, &packet[20..]), 0);
    }
}
