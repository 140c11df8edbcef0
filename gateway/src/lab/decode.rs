//! A small decoder of its own for what the lab captures, so that the product's parser is not its own witness.
//!
//! `pnet_packet` reads the IP, UDP and ICMP headers. It checks no version and no length, so that is done here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use pnet_packet::Packet;
use pnet_packet::icmp::IcmpPacket;
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{Ipv4Flags, Ipv4Packet};
use pnet_packet::ipv6::{FragmentPacket, Ipv6Packet};
use pnet_packet::udp::{self, UdpPacket};

/// UDP port of LISP data packets (RFC 9300 §5.3).
pub(crate) const LISP_DATA: u16 = 4341;
/// UDP port of LISP control messages (RFC 9301 §5).
pub(crate) const LISP_CONTROL: u16 = 4342;

/// An IP packet as far as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// The upper protocol, behind a Fragment header if there is one.
    pub(crate) protocol: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) more_fragments: bool,
    /// In octets.
    pub(crate) fragment_offset: u16,
    /// In octets, with the IP header.
    pub(crate) length: usize,
    pub(crate) payload: Payload,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Udp(Udp),
    Tcp {
        source_port: u16,
        destination_port: u16,
    },
    Icmp(Icmp),
    /// A non-first fragment, another protocol, or too short to tell.
    Opaque,
}

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Udp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) checksum: u16,
    /// Whether the checksum fits the datagram; `None` if it is 0 or not all was captured.
    pub(crate) checksum_is_right: Option<bool>,
    pub(crate) content: Content,
}

/// What a UDP datagram carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Lisp(Lisp),
    Control(Control),
    Other,
}

/// A LISP-encapsulated packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lisp {
    /// The LISP header.
    pub(crate) header: [u8; 8],
    /// N, L, E, V, I, R, K, K.
    pub(crate) flags: u8,
    /// Without the I-bit: 0.
    pub(crate) instance_id: u32,
    pub(crate) inner: Box<Datagram>,
    /// The inner packet's octets, as far as captured.
    pub(crate) octets: Vec<u8>,
}

/// A LISP control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Asked for this EID; whether it is an RLOC-probe.
    MapRequest {
        probe: bool,
        /// The source-EID of a Solicit-Map-Request; `None` of any other Map-Request.
        solicits: Option<IpAddr>,
        eid: Option<IpNet>,
    },
    MapReply {
        probe: bool,
        records: Vec<Record>,
    },
    MapRegister {
        records: Vec<Record>,
    },
    MapNotify {
        records: Vec<Record>,
    },
    /// An Encapsulated Control Message with the packet inside.
    Encapsulated(Box<Datagram>),
    /// Another type.
    Other(u8),
}

/// A mapping record of a Map-Reply, Map-Register or Map-Notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) ttl_minutes: u32,
    pub(crate) locator_count: u8,
    pub(crate) action: u8,
    pub(crate) eid: Option<IpNet>,
    /// Those of its locators that are plain addresses.
    pub(crate) rlocs: Vec<IpAddr>,
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// Identifier and sequence number of an echo, the MTU of a Packet Too Big.
    pub(crate) rest: u32,
}

/// An IP packet; `None` if it has no whole IP header of version 4 or 6.
pub(crate) fn datagram(octets: &[u8]) -> Option<Datagram> {
    match octets.first()? >> 4 {
        4 => ipv4(octets),
        6 => ipv6(octets),
        _ => None,
    }
}

/// The checksum that belongs into a whole UDP datagram, never 0 (RFC 768); `None` if it has no whole header
/// or the addresses are of two families.
pub(crate) fn udp_checksum(addresses: (IpAddr, IpAddr), datagram: &[u8]) -> Option<u16> {
    let datagram = UdpPacket::new(datagram)?;
    let checksum = match addresses {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            udp::ipv4_checksum(&datagram, &source, &destination)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            udp::ipv6_checksum(&datagram, &source, &destination)
        }
        _ => return None,
    };
    Some(if checksum == 0 { 0xffff } else { checksum })
}

impl Datagram {
    /// The two low bits of the traffic class (RFC 3168).
    pub(crate) fn ecn(&self) -> u8 {
        self.traffic_class & 3
    }

    /// The six high bits of the traffic class.
    pub(crate) fn dscp(&self) -> u8 {
        self.traffic_class >> 2
    }

    /// The UDP datagram inside, if it is one.
    pub(crate) fn udp(&self) -> Option<&Udp> {
        match &self.payload {
            Payload::Udp(udp) => Some(udp),
            _ => None,
        }
    }

    /// The LISP data packet inside, if it is one.
    pub(crate) fn lisp(&self) -> Option<&Lisp> {
        match &self.udp()?.content {
            Content::Lisp(lisp) => Some(lisp),
            _ => None,
        }
    }

    /// The LISP control message inside, if it is one; that of an Encapsulated Control Message is the inner one.
    pub(crate) fn control(&self) -> Option<&Control> {
        match &self.udp()?.content {
            Content::Control(Control::Encapsulated(inner)) => inner.control(),
            Content::Control(control) => Some(control),
            _ => None,
        }
    }

    /// The ICMP message inside, if it is one.
    pub(crate) fn icmp(&self) -> Option<&Icmp> {
        match &self.payload {
            Payload::Icmp(icmp) => Some(icmp),
            _ => None,
        }
    }

    /// Protocol, addresses and ports.
    pub(crate) fn flow(&self) -> (u8, IpAddr, u16, IpAddr, u16) {
        let (source_port, destination_port) = match &self.payload {
            Payload::Udp(udp) => (udp.source_port, udp.destination_port),
            Payload::Tcp { source_port, destination_port } => (*source_port, *destination_port),
            _ => (0, 0),
        };
        (self.protocol, self.source, source_port, self.destination, destination_port)
    }
}

fn ipv4(octets: &[u8]) -> Option<Datagram> {
    let header = Ipv4Packet::new(octets)?;
    let header_length = usize::from(header.get_header_length()) * 4;
    if header_length < Ipv4Packet::minimum_packet_size() {
        return None;
    }
    let mut packet = Datagram {
        source: header.get_source().into(),
        destination: header.get_destination().into(),
        hop_limit: header.get_ttl(),
        traffic_class: header.get_dscp() << 2 | header.get_ecn(),
        protocol: header.get_next_level_protocol().0,
        dont_fragment: header.get_flags() & Ipv4Flags::DontFragment != 0,
        more_fragments: header.get_flags() & Ipv4Flags::MoreFragments != 0,
        fragment_offset: header.get_fragment_offset() * 8,
        length: usize::from(header.get_total_length()),
        payload: Payload::Opaque,
    };
    packet.payload = payload(&packet, octets.get(header_length..packet.length.min(octets.len()))?);
    Some(packet)
}

fn ipv6(octets: &[u8]) -> Option<Datagram> {
    let header = Ipv6Packet::new(octets)?;
    let header_length = Ipv6Packet::minimum_packet_size();
    let mut packet = Datagram {
        source: header.get_source().into(),
        destination: header.get_destination().into(),
        hop_limit: header.get_hop_limit(),
        traffic_class: header.get_traffic_class(),
        protocol: header.get_next_header().0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        length: header_length + usize::from(header.get_payload_length()),
        payload: Payload::Opaque,
    };
    let mut rest = octets.get(header_length..packet.length.min(octets.len()))?;
    if header.get_next_header() == IpNextHeaderProtocols::Ipv6Frag {
        let fragment = FragmentPacket::new(rest)?;
        packet.protocol = fragment.get_next_header().0;
        // Not get_fragment_offset(): that leaves a reserved bit in.
        packet.fragment_offset = fragment.get_fragment_offset_with_flags() & 0xfff8;
        packet.more_fragments = !fragment.is_last_fragment();
        rest = rest.get(FragmentPacket::minimum_packet_size()..)?;
    }
    packet.payload = payload(&packet, rest);
    Some(packet)
}

fn payload(packet: &Datagram, octets: &[u8]) -> Payload {
    if packet.fragment_offset != 0 {
        return Payload::Opaque;
    }
    let decoded = match IpNextHeaderProtocol(packet.protocol) {
        IpNextHeaderProtocols::Udp => udp(packet, octets).map(Payload::Udp),
        // No TcpPacket: an ICMP error may quote as little as 8 octets.
        IpNextHeaderProtocols::Tcp => u16_at(octets, 0)
            .zip(u16_at(octets, 2))
            .map(|(source_port, destination_port)| Payload::Tcp { source_port, destination_port }),
        IpNextHeaderProtocols::Icmp | IpNextHeaderProtocols::Icmpv6 => {
            icmp(octets).map(Payload::Icmp)
        }
        _ => None,
    };
    decoded.unwrap_or(Payload::Opaque)
}

/// ICMP or ICMPv6: the layout is the same (RFC 4443 §2.1).
fn icmp(octets: &[u8]) -> Option<Icmp> {
    let message = IcmpPacket::new(octets)?;
    let rest = u32_at(message.payload(), 0)?;
    Some(Icmp { kind: message.get_icmp_type().0, code: message.get_icmp_code().0, rest })
}

fn udp(packet: &Datagram, octets: &[u8]) -> Option<Udp> {
    let datagram = UdpPacket::new(octets)?;
    let (source_port, destination_port) = (datagram.get_source(), datagram.get_destination());
    let checksum = datagram.get_checksum();
    let whole = octets
        .get(..usize::from(datagram.get_length()))
        .filter(|_| checksum != 0 && !packet.more_fragments);
    let addresses = (packet.source, packet.destination);
    let checksum_is_right = whole.map(|whole| udp_checksum(addresses, whole) == Some(checksum));
    let content = match (source_port, destination_port) {
        (_, LISP_DATA) => lisp(datagram.payload()).map_or(Content::Other, Content::Lisp),
        (LISP_CONTROL, _) | (_, LISP_CONTROL) => {
            control(datagram.payload()).map_or(Content::Other, Content::Control)
        }
        _ => Content::Other,
    };
    Some(Udp { source_port, destination_port, checksum, checksum_is_right, content })
}

fn lisp(octets: &[u8]) -> Option<Lisp> {
    let (&header, octets) = octets.split_first_chunk::<8>()?;
    let instance_id = if header[0] & 0x08 != 0 { u32_at(&header, 4)? >> 8 } else { 0 };
    let inner = Box::new(datagram(octets)?);
    Some(Lisp { header, flags: header[0], instance_id, inner, octets: octets.to_vec() })
}

/// RFC 9301 §5.1.
fn control(octets: &[u8]) -> Option<Control> {
    let kind = octets.first()? >> 4;
    Some(match kind {
        1 => Control::MapRequest {
            probe: octets[0] & 2 != 0,
            solicits: address(octets.get(12..)?).filter(|_| octets[0] & 1 != 0),
            eid: requested_eid(octets),
        },
        2 => {
            let records = records(octets, octets.get(12..).unwrap_or_default());
            Control::MapReply { probe: octets[0] & 8 != 0, records }
        }
        3 => Control::MapRegister { records: authenticated_records(octets) },
        4 => Control::MapNotify { records: authenticated_records(octets) },
        8 => Control::Encapsulated(Box::new(datagram(octets.get(4..)?)?)),
        other => Control::Other(other),
    })
}

/// The first EID of a Map-Request (RFC 9301 §5.2).
fn requested_eid(octets: &[u8]) -> Option<IpNet> {
    let itr_rlocs = usize::from(octets.get(2)? & 0x1f) + 1;
    let mut rest = octets.get(12..)?;
    rest = skip_address(rest)?;
    for _ in 0..itr_rlocs {
        rest = skip_address(rest)?;
    }
    prefix(*rest.get(1)?, rest.get(2..)?)
}

/// The records behind the authentication data of a Map-Register or Map-Notify (RFC 9301 §5.6, §5.7).
fn authenticated_records(octets: &[u8]) -> Vec<Record> {
    let length = u16_at(octets, 14).map_or(0, usize::from);
    records(octets, octets.get(16 + length..).unwrap_or_default())
}

/// The records of a message (RFC 9301 §5.4), which begin with `rest`, until one that cannot be read.
fn records(message: &[u8], mut rest: &[u8]) -> Vec<Record> {
    let count = message.get(3).copied().unwrap_or(0);
    let mut found = Vec::new();
    for _ in 0..count {
        let Some((record, after)) = record(rest) else { break };
        found.push(record);
        rest = after;
    }
    found
}

fn record(octets: &[u8]) -> Option<(Record, &[u8])> {
    let locator_count = *octets.get(4)?;
    let mask_length = *octets.get(5)?;
    let eid_field = octets.get(10..)?;
    let mut record = Record {
        ttl_minutes: u32_at(octets, 0)?,
        locator_count,
        action: octets.get(6)? >> 5,
        eid: prefix(mask_length, eid_field),
        rlocs: Vec::new(),
    };
    let mut rest = skip_address(eid_field)?;
    for _ in 0..locator_count {
        let locator = rest.get(6..)?;
        record.rlocs.extend(address(locator));
        rest = skip_address(locator)?;
    }
    Some((record, rest))
}

/// What follows an AFI-encoded address.
fn skip_address(octets: &[u8]) -> Option<&[u8]> {
    let length = match u16_at(octets, 0)? {
        0 => 0,
        1 => 4,
        2 => 16,
        16387 => 6 + usize::from(u16_at(octets, 6)?),
        _ => return None,
    };
    octets.get(2 + length..)
}

fn prefix(mask_length: u8, octets: &[u8]) -> Option<IpNet> {
    IpNet::new(address(octets)?, mask_length).ok()
}

/// An AFI-encoded address of IP.
fn address(octets: &[u8]) -> Option<IpAddr> {
    match u16_at(octets, 0)? {
        1 => ipv4_at(octets, 2).map(IpAddr::V4),
        2 => ipv6_at(octets, 2).map(IpAddr::V6),
        _ => None,
    }
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

fn ipv4_at(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    u32_at(octets, at).map(Ipv4Addr::from)
}

fn ipv6_at(octets: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = octets.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outer IPv4 198.51.100.11 -> .12, UDP 49152 -> 4341, LISP with Instance ID 7, inner IPv6 UDP 1000 -> 2000.
    fn encapsulated() -> Vec<u8> {
        let mut packet = vec![
            0x45, 0xb8, 0x00, 0x54, 0x00, 0x00, 0x40, 0x00, 0x3f, 0x11, 0x00, 0x00, 198, 51, 100,
            11, 198, 51, 100, 12, 0xc0, 0x00, 0x10, 0xf5, 0x00, 0x40, 0x12, 0x34, 0x08, 0, 0, 0, 0,
            0, 7, 0,
        ];
        packet.extend([0x6b, 0x80, 0, 0, 0, 8, 17, 62]);
        packet.extend("2001:db8:e001::10".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8:e002::10".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([0x03, 0xe8, 0x07, 0xd0, 0, 8, 0xab, 0xcd]);
        packet
    }

    #[test]
    fn a_lisp_packet_is_taken_apart() {
        let packet = datagram(&encapsulated()).unwrap();
        assert_eq!(packet.source, "198.51.100.11".parse::<IpAddr>().unwrap());
        assert_eq!((packet.hop_limit, packet.dscp(), packet.ecn()), (63, 46, 0));
        assert!(packet.dont_fragment);
        let udp = packet.udp().unwrap();
        assert_eq!((udp.source_port, udp.checksum), (49152, 0x1234));
        let lisp = packet.lisp().unwrap();
        assert_eq!((lisp.flags, lisp.instance_id), (8, 7));
        assert_eq!((lisp.inner.hop_limit, lisp.inner.traffic_class), (62, 0xb8));
        assert_eq!(lisp.inner.flow().2, 1000);
        assert_eq!(lisp.octets.len(), 48);
    }

    #[test]
    fn no_prefix_of_a_packet_makes_the_decoder_panic() {
        let packet = encapsulated();
        for length in 0..packet.len() {
            let _ = datagram(&packet[..length]);
        }
        assert_eq!(datagram(&packet[..19]), None);
        assert_eq!(datagram(&[0x50; 64]), None);
    }

    #[test]
    fn no_header_length_or_total_length_leads_out_of_the_packet() {
        let packet = encapsulated();
        for header_length in 0..=15 {
            for total_length in [0u16, 19, 20, 36, 84, 0xffff] {
                let mut bent = packet.clone();
                bent[0] = 0x40 | header_length;
                bent[2..4].copy_from_slice(&total_length.to_be_bytes());
                let decoded = datagram(&bent);
                let fits = (5..=15).contains(&header_length)
                    && usize::from(header_length) * 4 <= usize::from(total_length);
                assert_eq!(decoded.is_some(), fits, "{header_length} {total_length}");
            }
        }
    }

    #[test]
    fn a_udp_length_shorter_than_its_header_is_a_wrong_checksum() {
        let mut packet = encapsulated();
        assert_eq!(datagram(&packet).unwrap().udp().unwrap().checksum_is_right, Some(false));
        packet[24..26].copy_from_slice(&[0, 7]);
        assert_eq!(datagram(&packet).unwrap().udp().unwrap().checksum_is_right, Some(false));
        packet[24..26].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(datagram(&packet).unwrap().udp().unwrap().checksum_is_right, None);
    }

    #[test]
    fn the_fragments_of_both_families_are_told_apart() {
        let mut v4 = encapsulated();
        v4[6..8].copy_from_slice(&[0x20, 0x02]);
        let packet = datagram(&v4).unwrap();
        assert_eq!((packet.dont_fragment, packet.more_fragments), (false, true));
        assert_eq!((packet.fragment_offset, &packet.payload), (16, &Payload::Opaque));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 16, 44, 64];
        v6.extend([0; 32]);
        // Offset 0 with the reserved bits set and More Fragments.
        v6.extend([17, 0, 0x00, 0x07, 0, 0, 0, 9]);
        v6.extend([0x03, 0xe8, 0x07, 0xd0, 0, 8, 0xab, 0xcd]);
        let packet = datagram(&v6).unwrap();
        assert_eq!((packet.protocol, packet.fragment_offset), (17, 0));
        assert!(packet.more_fragments);
        assert_eq!(packet.udp().unwrap().source_port, 1000);
        v6[42..44].copy_from_slice(&[0x05, 0x98]);
        let packet = datagram(&v6).unwrap();
        assert_eq!((packet.fragment_offset, packet.more_fragments), (1432, false));
        assert_eq!(packet.payload, Payload::Opaque);
    }

    #[test]
    fn the_ports_of_a_tcp_header_quoted_in_part_are_read() {
        let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        packet.extend([0x03, 0xe8, 0x07, 0xd0, 0, 0, 0, 1]);
        let decoded = datagram(&packet).unwrap();
        let ports = Payload::Tcp { source_port: 1000, destination_port: 2000 };
        assert_eq!(decoded.payload, ports);
    }

    #[test]
    fn a_negative_map_reply_is_taken_apart() {
        // The vector TV-C7: 198.51.100.0/24, ACT 1, TTL 15 minutes, no locator.
        let mut message = vec![0x20, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        message.extend([0, 0, 0, 15, 0, 24, 0x20, 0, 0, 0, 0, 1, 198, 51, 100, 0]);
        let Some(Control::MapReply { records, probe: false }) = control(&message) else {
            panic!("no Map-Reply")
        };
        assert_eq!(
            records,
            [Record {
                ttl_minutes: 15,
                locator_count: 0,
                action: 1,
                eid: Some("198.51.100.0/24".parse().unwrap()),
                rlocs: Vec::new(),
            }]
        );
    }

    #[test]
    fn a_map_request_in_an_ecm_names_its_eid() {
        let mut request = vec![0x10, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        request.extend([0, 0, 0, 1, 198, 51, 100, 11]);
        request.extend([0, 32, 0, 1, 203, 0, 113, 70]);
        let mut inner = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        inner.extend([0x10, 0xf6, 0x10, 0xf6, 0, 0, 0, 0]);
        inner.extend(&request);
        inner[3] = inner.len() as u8;
        let mut message = vec![0x80, 0, 0, 0];
        message.extend(inner);
        let Some(Control::Encapsulated(packet)) = control(&message) else { panic!("no ECM") };
        let eid = Some("203.0.113.70/32".parse().unwrap());
        let wanted = Control::MapRequest { probe: false, solicits: None, eid };
        assert_eq!(packet.control(), Some(&wanted));
        let mut solicitation = request[..12].to_vec();
        solicitation[0] |= 1;
        solicitation.extend([0, 1, 172, 16, 4, 7]);
        solicitation.extend(&request[14..]);
        let solicits = Some("172.16.4.7".parse().unwrap());
        let wanted = Control::MapRequest { probe: false, solicits, eid };
        assert_eq!(control(&solicitation), Some(wanted));
    }

    #[test]
    fn the_records_of_a_map_notify_are_behind_its_authentication_data() {
        let mut message = vec![0x40, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 0, 16];
        message.extend([0xaa; 16]);
        message.extend([0, 0, 5, 160, 1, 32, 0x10, 0, 0, 0, 0, 1, 172, 16, 4, 7]);
        message.extend([1, 100, 255, 0, 0, 5, 0, 1, 10, 200, 7, 42]);
        let record = Record {
            ttl_minutes: 1440,
            locator_count: 1,
            action: 0,
            eid: Some("172.16.4.7/32".parse().unwrap()),
            rlocs: vec!["10.200.7.42".parse().unwrap()],
        };
        assert_eq!(control(&message), Some(Control::MapNotify { records: vec![record] }));
        for length in 0..message.len() {
            let _ = control(&message[..length]);
        }
    }
}
