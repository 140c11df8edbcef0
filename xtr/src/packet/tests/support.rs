//! Builds packets field by field and checks them with the plainest possible RFC 1071 sum.

use std::net::IpAddr;

/// A packet to build; `bytes()` gives it with every checksum right.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) flags_offset: u16,
    pub(crate) ip_options: Vec<u8>,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Tcp { ports: (u16, u16), sequence: u32, flags: u8, options: Vec<u8> },
    Udp { ports: (u16, u16) },
    Raw { protocol: u8 },
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

impl Build {
    pub(crate) fn v4(transport: Transport, payload: Vec<u8>) -> Self {
        Self {
            source: ip("198.51.100.7"),
            destination: ip("203.0.113.5"),
            tos: 0,
            ttl: 64,
            id: 0x1234,
            flags_offset: 0x4000,
            ip_options: Vec::new(),
            transport,
            payload,
        }
    }

    pub(crate) fn v6(transport: Transport, payload: Vec<u8>) -> Self {
        Self {
            source: ip("2001:db8:1::7"),
            destination: ip("2001:db8:2::5"),
            ..Self::v4(transport, payload)
        }
    }

    pub(crate) fn family(is_v6: bool, transport: Transport, payload: Vec<u8>) -> Self {
        if is_v6 { Self::v6(transport, payload) } else { Self::v4(transport, payload) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut transport = self.transport_header();
        transport.extend_from_slice(&self.payload);
        if let Some((number, field)) = self.checksum_field() {
            let sum = !pseudo_and_data(self.source, self.destination, number, &transport);
            let sum = if number == 17 && sum == 0 { 0xffff } else { sum };
            transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut packet = self.ip_header(transport.len());
        packet.extend_from_slice(&transport);
        packet
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::Raw { protocol } => protocol,
        }
    }

    fn checksum_field(&self) -> Option<(u8, usize)> {
        match self.transport {
            Transport::Tcp { .. } => Some((6, 16)),
            Transport::Udp { .. } => Some((17, 6)),
            Transport::Raw { .. } => None,
        }
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        match &self.transport {
            Transport::Tcp { ports, sequence, flags, options } => {
                header.extend(ports.0.to_be_bytes());
                header.extend(ports.1.to_be_bytes());
                header.extend(sequence.to_be_bytes());
                header.extend(0x0102_0304u32.to_be_bytes());
                header.extend([((20 + options.len()) / 4 * 16) as u8, *flags]);
                header.extend([0x20, 0x00, 0, 0, 0, 0]);
                header.extend(options);
            }
            Transport::Udp { ports } => {
                header.extend(ports.0.to_be_bytes());
                header.extend(ports.1.to_be_bytes());
                header.extend((8 + self.payload.len() as u16).to_be_bytes());
                header.extend([0, 0]);
            }
            Transport::Raw { .. } => {}
        }
        header
    }

    fn ip_header(&self, transport_len: usize) -> Vec<u8> {
        let mut header = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + self.ip_options.len();
                header.extend([0x40 | (header_len / 4) as u8, self.tos]);
                header.extend(((header_len + transport_len) as u16).to_be_bytes());
                header.extend(self.id.to_be_bytes());
                header.extend(self.flags_offset.to_be_bytes());
                header.extend([self.ttl, self.protocol(), 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.ip_options);
                let sum = !rfc1071(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let word = 6 << 28 | u32::from(self.tos) << 20 | 0x54321;
                header.extend(word.to_be_bytes());
                header.extend((transport_len as u16).to_be_bytes());
                header.extend([self.protocol(), self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
            }
            _ => panic!("mixed families"),
        }
        header
    }
}

/// The ones' complement sum, one 16-bit word at a time.
pub(crate) fn rfc1071(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of pseudo-header and transport data.
pub(crate) fn pseudo_and_data(source: IpAddr, destination: IpAddr, number: u8, data: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, number]);
    bytes.extend(data);
    rfc1071(&bytes)
}

/// Asserts that lengths and checksums of a whole plain TCP or UDP packet are right.
#[track_caller]
pub(crate) fn assert_intact(packet: &[u8]) {
    let (header_len, total_len, number, source, destination): (_, _, _, IpAddr, IpAddr) =
        if packet[0] >> 4 == 4 {
            let header_len = usize::from(packet[0] & 15) * 4;
            assert_eq!(rfc1071(&packet[..header_len]), 0xffff, "IPv4 header checksum");
            let total_len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let source: [u8; 4] = packet[12..16].try_into().unwrap();
            let destination: [u8; 4] = packet[16..20].try_into().unwrap();
            (header_len, total_len, packet[9], source.into(), destination.into())
        } else {
            let total_len = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            let source: [u8; 16] = packet[8..24].try_into().unwrap();
            let destination: [u8; 16] = packet[24..40].try_into().unwrap();
            (40, total_len, packet[6], source.into(), destination.into())
        };
    assert_eq!(total_len, packet.len(), "length");
    let transport = &packet[header_len..];
    let sum = pseudo_and_data(source, destination, number, transport);
    assert_eq!(sum, 0xffff, "transport checksum");
    if number == 17 {
        let len = usize::from(u16::from_be_bytes([transport[4], transport[5]]));
        assert_eq!(len, transport.len(), "UDP length");
        assert_ne!(transport[6..8], [0, 0]);
    }
}

pub(crate) fn tcp(sequence: u32, flags: u8) -> Transport {
    // No-operation, no-operation, timestamps: what every Linux segment carries.
    let options = vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4];
    Transport::Tcp { ports: (40000, 443), sequence, flags, options }
}

pub(crate) fn udp() -> Transport {
    Transport::Udp { ports: (40000, 443) }
}
