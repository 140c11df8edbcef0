//! The Internet checksum (RFC 1071) and the pseudo-header of UDP and ICMPv6.

use std::net::IpAddr;

/// The checksum of `octets`; 0 if they contain their own right checksum.
pub(crate) fn internet(octets: &[u8]) -> u16 {
    let words = octets
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of an upper-layer packet, behind its pseudo-header.
pub(crate) fn upper_layer(
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    octets: &[u8],
) -> u16 {
    let mut covered = address_octets(source);
    covered.extend(address_octets(destination));
    covered.extend((octets.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(octets);
    internet(&covered)
}

/// The octets of an address.
pub(crate) fn address_octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
