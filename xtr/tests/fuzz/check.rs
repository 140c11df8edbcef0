//! What a packet must look like, in the plainest possible code: nothing here is shared with what it judges.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The headers of a well-formed packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) total: usize,
    /// IPv4 header with options, or 40.
    pub(crate) header: usize,
    /// Where the transport header starts.
    pub(crate) transport: usize,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) more: bool,
    /// Octets into the datagram that it is a fragment of.
    pub(crate) offset: usize,
    /// The IPv4 header checksum is right.
    pub(crate) sound: bool,
}

impl Seen {
    /// `None` unless version and lengths are possible.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::v4(packet),
            6 => Self::v6(packet),
            _ => None,
        }
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.more || self.offset > 0
    }

    /// No IP options, no extension headers.
    pub(crate) fn is_plain(&self) -> bool {
        self.transport == if self.is_v6() { 40 } else { 20 }
    }

    fn v4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet[0] & 15) * 4;
        if packet.len() < 20 || header < 20 {
            return None;
        }
        let total = usize::from(word(packet, 2));
        if total < header || total > packet.len() {
            return None;
        }
        let fragment = word(packet, 6);
        Some(Self {
            source: Ipv4Addr::from_bits(
                u32::from(word(packet, 12)) << 16 | u32::from(word(packet, 14)),
            )
            .into(),
            destination: Ipv4Addr::from_bits(
                u32::from(word(packet, 16)) << 16 | u32::from(word(packet, 18)),
            )
            .into(),
            total,
            header,
            transport: header,
            protocol: packet[9],
            ttl: packet[8],
            tos: packet[1],
            id: word(packet, 4),
            dont_fragment: fragment & 0x4000 != 0,
            more: fragment & 0x2000 != 0,
            offset: usize::from(fragment & 0x1fff) * 8,
            sound: sum(&packet[..header]) == 0xffff,
        })
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        if packet.len() < 40 || packet.len() < 40 + usize::from(word(packet, 4)) {
            return None;
        }
        let address = |at: usize| -> IpAddr {
            let mut octets = [0; 16];
            octets.copy_from_slice(&packet[at..at + 16]);
            Ipv6Addr::from(octets).into()
        };
        let mut seen = Self {
            source: address(8),
            destination: address(24),
            total: 40 + usize::from(word(packet, 4)),
            header: 40,
            transport: 40,
            protocol: packet[6],
            ttl: packet[7],
            tos: packet[0] << 4 | packet[1] >> 4,
            id: 0,
            dont_fragment: true,
            more: false,
            offset: 0,
            sound: true,
        };
        for _ in 0..8 {
            let rest = &packet[seen.transport..seen.total];
            if seen.offset > 0 || rest.len() < 4 {
                break;
            }
            let len = match seen.protocol {
                44 => 8,
                51 => 8 + 4 * usize::from(rest[1]),
                0 | 43 | 60 | 135 => 8 + 8 * usize::from(rest[1]),
                _ => break,
            };
            if rest.len() < len {
                break;
            }
            if seen.protocol == 44 {
                seen.offset = usize::from(word(rest, 2) & 0xfff8);
                seen.more = rest[3] & 1 != 0;
            }
            seen.protocol = rest[0];
            seen.transport += len;
        }
        Some(seen)
    }
}

/// The ones' complement sum, one 16-bit word after the other.
pub(crate) fn sum(octets: &[u8]) -> u16 {
    let mut sum = 0u64;
    let mut pairs = octets.chunks_exact(2);
    for pair in &mut pairs {
        sum += u64::from(pair[0]) << 8 | u64::from(pair[1]);
    }
    if let [last] = pairs.remainder() {
        sum += u64::from(*last) << 8;
    }
    fold(sum)
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header's sum.
pub(crate) fn pseudo(seen: &Seen, transport_len: usize) -> u64 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => u64::from(sum(&address.octets())),
        IpAddr::V6(address) => u64::from(sum(&address.octets())),
    };
    address(seen.source)
        + address(seen.destination)
        + u64::from(seen.protocol)
        + (transport_len >> 16) as u64
        + (transport_len & 0xffff) as u64
}

/// Whether the TCP or UDP checksum of a whole plain packet is right.
pub(crate) fn transport_is_sound(packet: &[u8], seen: &Seen) -> bool {
    let transport = &packet[seen.transport..seen.total];
    fold(pseudo(seen, transport.len()) + u64::from(sum(transport))) == 0xffff
}

pub(crate) fn word(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

pub(crate) fn long(octets: &[u8], at: usize) -> u32 {
    u32::from(word(octets, at)) << 16 | u32::from(word(octets, at + 2))
}

/// What the outgoing ECN field is to be by inner and outer (RFC 6040 Figure 4); `None` = drop.
pub(crate) fn ecn(inner: u8, outer: u8) -> Option<u8> {
    const FIGURE_4: [[Option<u8>; 4]; 4] = [
        // outer Not-ECT, ECT(1), ECT(0), CE
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    FIGURE_4[usize::from(inner & 3)][usize::from(outer & 3)]
}
