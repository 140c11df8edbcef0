//! Encapsulated Control Message (RFC 9301 §5.8).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::codepoints::{ecm as bit, kind, map_request};
use super::reader::Reader;
use super::writer::{flag, saturated};
use super::{DATA_PORT, MapRequest, WireError, open};

/// IP protocol number of UDP.
const UDP: u8 = 17;
/// TTL or hop limit of the inner header.
const INNER_TTL: u8 = 64;
const ECM_HEADER: usize = 4;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// Type 8. The inner message stays octets: a Map-Resolver forwards it unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncapsulatedControlMessage {
    /// S-bit: authentication data from its AD Type on, kept as it came: LISP-SEC (RFC 9303), or MS-RTR
    /// ([`RtrAuthentication`](super::RtrAuthentication)).
    pub security: Option<Vec<u8>>,
    /// D-bit: originated by a DDT client.
    pub ddt_originated: bool,
    /// E-bit: forward to the ETR.
    pub to_etr: bool,
    /// M-bit: destined to the Map-Server.
    pub to_map_server: bool,
    /// R-bit: to be processed by an RTR (draft-ermagan-lisp-nat-traversal §4.3, §4.4).
    pub to_rtr: bool,
    /// N-bit: a Map-Register relayed by an RTR.
    pub relayed: bool,
    /// Inner IP source and UDP source port.
    pub source: SocketAddr,
    /// Inner IP destination and UDP destination port; of the same family as `source` (else both are encoded as IPv6, IPv4-mapped).
    pub destination: SocketAddr,
    /// The inner UDP payload.
    pub message: Vec<u8>,
}

/// What of the wire rules is relaxed for a known peer; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// Accept an ECM whose inner UDP checksum is zero, as lispers.net sends.
    pub zero_inner_checksum: bool,
    /// Accept a Map-Request whose I-bit is followed by an xTR-ID alone, as lispers.net subscribes; the Site-ID is then 0.
    pub subscription_without_site_id: bool,
    /// Take a JSON LCAF (RFC 8060 §4.15) to be as long as its parts, whatever its Length: that of lispers.net is that of other parts.
    pub json_length: bool,
}

impl Tolerance {
    /// Nothing is relaxed; the default.
    pub const NONE: Self = Self {
        zero_inner_checksum: false,
        subscription_without_site_id: false,
        json_length: false,
    };
    /// What lispers.net needs.
    pub const LISPERS_NET: Self =
        Self { zero_inner_checksum: true, subscription_without_site_id: true, json_length: true };
}

impl EncapsulatedControlMessage {
    /// `message` between `source` and `destination` with every flag off.
    pub fn new(source: SocketAddr, destination: SocketAddr, message: Vec<u8>) -> Self {
        Self {
            security: None,
            ddt_originated: false,
            to_etr: false,
            to_map_server: false,
            to_rtr: false,
            relayed: false,
            source,
            destination,
            message,
        }
    }

    /// The inner message as the Map-Request it has to be (EC-09).
    ///
    /// # Errors
    /// [`WireError::UnsupportedType`] for any other type.
    pub fn map_request(&self) -> Result<MapRequest, WireError> {
        self.map_request_with(Tolerance::default())
    }

    /// As [`Self::map_request`], with `tolerance` for a known peer.
    ///
    /// # Errors
    /// As [`Self::map_request`].
    pub fn map_request_with(&self, tolerance: Tolerance) -> Result<MapRequest, WireError> {
        MapRequest::parse_with(&self.message, tolerance)
    }

    /// Whether the inner message is a Map-Register, on its way through an RTR.
    pub fn carries_register(&self) -> bool {
        self.message.first().is_some_and(|first| first >> 4 == kind::MAP_REGISTER)
    }

    /// The octets that [`Self::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let ip_header = match (self.source, self.destination) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => IPV4_HEADER,
            _ => IPV6_HEADER,
        };
        let security = self.security.as_ref().map_or(0, Vec::len);
        ECM_HEADER + security + ip_header + UDP_HEADER + self.message.len()
    }

    /// Appends the message to `out`, with inner lengths and checksums computed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[
            kind::ENCAPSULATED << 4
                | flag(self.security.is_some(), bit::SECURITY)
                | flag(self.ddt_originated, bit::DDT_ORIGINATED)
                | flag(self.to_etr, bit::TO_ETR)
                | flag(self.to_map_server, bit::TO_MAP_SERVER),
            flag(self.to_rtr, bit::TO_RTR) | flag(self.relayed, bit::RELAYED),
            0,
            0,
        ]);
        if let Some(security) = &self.security {
            out.extend_from_slice(security);
        }
        encode_datagram(self.source, self.destination, &self.message, out);
    }

    /// Parses a message of this type; inner lengths and checksums are verified (EC-03, EC-10; EC-04, EC-06, EC-08 refused here).
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        Self::parse_with(octets, Tolerance::default())
    }

    /// As [`Self::parse`], with `tolerance` for a known peer.
    pub fn parse_with(octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        let (mut reader, [flags, nat_flags, ..]) = open(octets, kind::ENCAPSULATED)?;
        let security = match flags & bit::SECURITY {
            0 => None,
            _ => Some(take_security(&mut reader)?.to_vec()),
        };
        let (source, destination, mut datagram) = decode_ip(&mut reader)?;
        let message = decode_udp(source, destination, &mut datagram, tolerance)?;
        refuse_inner(message.payload)?;
        Ok(Self {
            security,
            ddt_originated: flags & bit::DDT_ORIGINATED != 0,
            to_etr: flags & bit::TO_ETR != 0,
            to_map_server: flags & bit::TO_MAP_SERVER != 0,
            to_rtr: nat_flags & bit::TO_RTR != 0,
            relayed: nat_flags & bit::RELAYED != 0,
            source: SocketAddr::new(source, message.source_port),
            destination: SocketAddr::new(destination, message.destination_port),
            message: message.payload.to_vec(),
        })
    }
}

/// Appends an IP packet with a UDP datagram that carries `message`: lengths and checksums computed, TTL 64, no ports refused.
///
/// Addresses of different families are both encoded as IPv6, IPv4-mapped.
pub fn encode_datagram(
    source: SocketAddr,
    destination: SocketAddr,
    message: &[u8],
    out: &mut Vec<u8>,
) {
    let udp_length = saturated(UDP_HEADER + message.len());
    let pseudo = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            encode_ipv4(from, to, udp_length, out);
            pseudo_sum_v4(from, to, udp_length)
        }
        (from, to) => {
            let (from, to) = (as_ipv6(from), as_ipv6(to));
            encode_ipv6(from, to, udp_length, out);
            pseudo_sum_v6(from, to, udp_length)
        }
    };
    let mut udp = [0; UDP_HEADER];
    udp[..2].copy_from_slice(&source.port().to_be_bytes());
    udp[2..4].copy_from_slice(&destination.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
    let checksum = match checksum(pseudo + sum(&udp) + sum(message)) {
        0 => u16::MAX,
        checksum => checksum,
    };
    udp[6..].copy_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(&udp);
    out.extend_from_slice(message);
}

/// Reads an IP packet with a UDP datagram: where it is from, where to, and what it carries, lengths and checksums verified as in an ECM.
///
/// # Errors
/// [`WireError`] for anything else, a fragment and port 4341 included.
pub fn decode_datagram(packet: &[u8]) -> Result<(SocketAddr, SocketAddr, &[u8]), WireError> {
    let (source, destination, mut datagram) = decode_ip(&mut Reader::new(packet))?;
    let inner = decode_udp(source, destination, &mut datagram, Tolerance::default())?;
    let source = SocketAddr::new(source, inner.source_port);
    Ok((source, SocketAddr::new(destination, inner.destination_port), inner.payload))
}

/// A verified UDP datagram.
struct Datagram<'a> {
    source_port: u16,
    destination_port: u16,
    payload: &'a [u8],
}

/// What may never travel in an ECM: another ECM (EC-08), an RLOC-probe (EC-06).
fn refuse_inner(payload: &[u8]) -> Result<(), WireError> {
    let first = payload.first().copied().ok_or(WireError::Truncated("inner message"))?;
    match first >> 4 {
        kind::ENCAPSULATED => Err(WireError::NestedEncapsulation),
        kind::MAP_REQUEST if first & map_request::PROBE != 0 => Err(WireError::EncapsulatedProbe),
        _ => Ok(()),
    }
}

/// The ECM authentication data, whose inner lengths say where it ends (RFC 9303 §6.1, draft-ermagan-lisp-nat-traversal §4.4).
fn take_security<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    /// Octets before the OTK-AD that OTK Length counts.
    const FIXED: usize = 8;
    /// Octets before the MS-RTR Authentication Data.
    const RTR_FIXED: usize = 8;
    let mut ahead = *reader;
    match ahead.u8("ECM AD Type")? {
        bit::AD_TYPE_LISP_SEC => {}
        bit::AD_TYPE_RTR => {
            ahead.take(RTR_FIXED - 3, "MS-RTR Key ID")?;
            let length = usize::from(ahead.u16("MS-RTR Authentication Data Length")?);
            return reader.take(RTR_FIXED + length, "MS-RTR Authentication Data");
        }
        // The length of another type's data is not known, so the inner header cannot be found.
        _ => return Err(WireError::Malformed("ECM AD Type")),
    }
    ahead.take(3, "Requested HMAC ID")?;
    let otk_length = usize::from(ahead.u16("OTK Length")?);
    ahead.take(2, "OTK Wrapping ID")?;
    ahead.take(otk_length, "One-Time Key")?;
    // EID-AD Length counts itself.
    let eid_ad_length = usize::from(ahead.u16("EID-AD Length")?);
    if eid_ad_length < 4 {
        return Err(WireError::Malformed("EID-AD Length"));
    }
    reader.take(FIXED + otk_length + eid_ad_length, "EID-AD")
}

/// The inner IP header; what is returned of the octets is the IP payload, strictly.
fn decode_ip<'a>(reader: &mut Reader<'a>) -> Result<(IpAddr, IpAddr, Reader<'a>), WireError> {
    match reader.rest().first().map(|octet| octet >> 4) {
        Some(4) => decode_ipv4(reader),
        Some(6) => decode_ipv6(reader),
        Some(_) => Err(WireError::Malformed("inner IP version")),
        None => Err(WireError::Truncated("inner IP header")),
    }
}

fn decode_ipv4<'a>(reader: &mut Reader<'a>) -> Result<(IpAddr, IpAddr, Reader<'a>), WireError> {
    const FIELD: &str = "inner IPv4 header";
    let header_len = usize::from(reader.rest().first().map_or(0, |octet| octet & 0x0f)) * 4;
    if header_len < IPV4_HEADER {
        return Err(WireError::Malformed("inner IPv4 header length"));
    }
    let header_octets = reader.take(header_len, FIELD)?;
    if checksum(sum(header_octets)) != 0 {
        return Err(WireError::Checksum("inner IPv4 header checksum"));
    }
    let mut header = Reader::new(header_octets);
    header.u16(FIELD)?;
    let total_length = usize::from(header.u16(FIELD)?);
    header.u16(FIELD)?;
    let fragment = header.u16(FIELD)?;
    let [_, protocol] = header.array(FIELD)?;
    header.u16(FIELD)?;
    let source: [u8; 4] = header.array(FIELD)?;
    let destination: [u8; 4] = header.array(FIELD)?;
    // More fragments, or an offset: a fragment has no whole UDP datagram. The other two bits do not matter.
    if fragment & 0x3fff != 0 {
        return Err(WireError::Malformed("inner IPv4 fragment"));
    }
    if protocol != UDP {
        return Err(WireError::Malformed("inner IP protocol"));
    }
    let payload = total_length
        .checked_sub(header_len)
        .ok_or(WireError::Malformed("inner IPv4 total length"))?;
    Ok((source.into(), destination.into(), reader.sub(payload, "inner IPv4 packet")?))
}

fn decode_ipv6<'a>(reader: &mut Reader<'a>) -> Result<(IpAddr, IpAddr, Reader<'a>), WireError> {
    const FIELD: &str = "inner IPv6 header";
    reader.u32(FIELD)?;
    let payload = reader.u16(FIELD)?;
    let [next_header, _] = reader.array(FIELD)?;
    let source: [u8; 16] = reader.array(FIELD)?;
    let destination: [u8; 16] = reader.array(FIELD)?;
    if next_header != UDP {
        return Err(WireError::Malformed("inner IP protocol"));
    }
    Ok((source.into(), destination.into(), reader.sub(payload.into(), "inner IPv6 packet")?))
}

fn decode_udp<'a>(
    source: IpAddr,
    destination: IpAddr,
    packet: &mut Reader<'a>,
    tolerance: Tolerance,
) -> Result<Datagram<'a>, WireError> {
    const FIELD: &str = "inner UDP header";
    let mut ahead = *packet;
    let source_port = ahead.u16(FIELD)?;
    let destination_port = ahead.u16(FIELD)?;
    let length = ahead.u16(FIELD)?;
    let received = ahead.u16(FIELD)?;
    if source_port == DATA_PORT || destination_port == DATA_PORT {
        return Err(WireError::DataPort);
    }
    let datagram = packet.take(length.into(), "inner UDP datagram")?;
    let payload = datagram.get(UDP_HEADER..).ok_or(WireError::Malformed("inner UDP length"))?;
    let pseudo = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => pseudo_sum_v4(source, destination, length),
        (source, destination) => pseudo_sum_v6(as_ipv6(source), as_ipv6(destination), length),
    };
    match received {
        0 if tolerance.zero_inner_checksum => {}
        0 => return Err(WireError::ZeroChecksum),
        _ if checksum(pseudo + sum(datagram)) != 0 => {
            return Err(WireError::Checksum("inner UDP checksum"));
        }
        _ => {}
    }
    Ok(Datagram { source_port, destination_port, payload })
}

fn encode_ipv4(source: Ipv4Addr, destination: Ipv4Addr, udp_length: u16, out: &mut Vec<u8>) {
    let total_length = saturated(IPV4_HEADER + usize::from(udp_length));
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_length.to_be_bytes());
    header[8] = INNER_TTL;
    header[9] = UDP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let checksum = checksum(sum(&header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(&header);
}

fn encode_ipv6(source: Ipv6Addr, destination: Ipv6Addr, udp_length: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x60, 0, 0, 0]);
    out.extend_from_slice(&udp_length.to_be_bytes());
    out.extend_from_slice(&[UDP, INNER_TTL]);
    out.extend_from_slice(&source.octets());
    out.extend_from_slice(&destination.octets());
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn pseudo_sum_v4(source: Ipv4Addr, destination: Ipv4Addr, udp_length: u16) -> u64 {
    sum(&source.octets()) + sum(&destination.octets()) + u64::from(UDP) + u64::from(udp_length)
}

fn pseudo_sum_v6(source: Ipv6Addr, destination: Ipv6Addr, udp_length: u16) -> u64 {
    sum(&source.octets()) + sum(&destination.octets()) + u64::from(UDP) + u64::from(udp_length)
}

/// The 16-bit words of `octets` added up (RFC 1071); an odd last octet is padded with zero.
fn sum(octets: &[u8]) -> u64 {
    let words = octets.chunks_exact(2);
    let last = words.remainder().first().map_or(0, |&octet| u64::from(octet) << 8);
    words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>() + last
}

/// The one's complement of the folded sum.
fn checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
