use super::super::checksum::pseudo_header;
use super::super::{Inner, Offload, Segments, VirtioNetHeader};
use super::support::{Build, Transport, assert_intact, ip, payload, pseudo_and_data, tcp, udp};
use crate::drops::DropReason::InnerMalformed;
use proptest::prelude::*;
use std::net::Ipv6Addr;
use zerocopy::FromZeros;
use zerocopy::native_endian::U16;

pub(super) fn virtio(gso_type: u8, gso_size: usize) -> VirtioNetHeader {
    VirtioNetHeader {
        flags: VirtioNetHeader::NEEDS_CSUM,
        gso_type,
        gso_size: U16::new(gso_size as u16),
        ..VirtioNetHeader::new_zeroed()
    }
}

/// Every segment as a packet of its own, each checked.
pub(super) fn segments(packet: &[u8], virtio: &VirtioNetHeader) -> Vec<Vec<u8>> {
    let inner = Inner::parse(packet).unwrap();
    let mut segments = Segments::new(packet, &inner, virtio).unwrap();
    let mut scratch = [0xee; super::super::MAX_HEADERS_LEN];
    let mut whole = Vec::new();
    let count = segments.remaining();
    while let Some(piece) = segments.next_into(packet, &mut scratch) {
        assert_eq!(piece.headers_len, segments.headers_len());
        let mut segment = scratch[..piece.headers_len].to_vec();
        segment.extend_from_slice(&packet[piece.payload.clone()]);
        assert!(segment.len() <= segments.packet_len());
        assert_intact(&segment);
        whole.push(segment);
    }
    assert_eq!((whole.len(), segments.remaining()), (count, 0));
    whole
}

fn gso_tcp(is_v6: bool) -> u8 {
    if is_v6 { VirtioNetHeader::GSO_TCPV6 } else { VirtioNetHeader::GSO_TCPV4 }
}

/// Where the transport header starts.
fn transport(segment: &[u8]) -> &[u8] {
    &segment[Inner::parse(segment).unwrap().transport_offset..]
}

#[test]
fn en_29_tcp_segments_are_whole_packets() {
    for is_v6 in [false, true] {
        let build = Build::family(is_v6, tcp(0xffff_ff00, 0x10), payload(5000));
        let made = segments(&build.bytes(), &virtio(gso_tcp(is_v6), 1400));
        assert_eq!(made.len(), 4);
        for (i, segment) in made.iter().enumerate() {
            let start = i * 1400;
            let mut expected = build.clone();
            expected.id = build.id + i as u16;
            expected.transport = tcp(0xffff_ff00u32.wrapping_add(start as u32), 0x10);
            expected.payload = build.payload[start..(start + 1400).min(5000)].to_vec();
            assert_eq!(*segment, expected.bytes());
        }
    }
}

#[test]
fn en_29_fin_and_psh_are_on_the_last_and_cwr_on_the_first() {
    for is_v6 in [false, true] {
        // CWR, ECE, ACK, PSH, FIN.
        let packet = Build::family(is_v6, tcp(1, 0xd9), payload(3000)).bytes();
        let gso_type = gso_tcp(is_v6) | VirtioNetHeader::GSO_ECN;
        let made = segments(&packet, &virtio(gso_type, 1000));
        let flags: Vec<u8> = made.iter().map(|segment| transport(segment)[13]).collect();
        assert_eq!(flags, [0xd0, 0x50, 0x59]);
    }
}

#[test]
fn en_29_one_segment_keeps_all_flags() {
    let packet = Build::v4(tcp(1, 0xd9), payload(300)).bytes();
    assert_eq!(segments(&packet, &virtio(VirtioNetHeader::GSO_TCPV4, 1000)), [packet]);
}

#[test]
fn en_29_ipv4_ids_count_up() {
    let mut build = Build::v4(tcp(1, 0x10), payload(3000));
    build.id = 0xffff;
    let made = segments(&build.bytes(), &virtio(VirtioNetHeader::GSO_TCPV4, 1000));
    let ids: Vec<u16> = made.iter().map(|s| u16::from_be_bytes([s[4], s[5]])).collect();
    assert_eq!(ids, [0xffff, 0, 1]);
}

#[test]
fn en_29_udp_segments_are_datagrams_of_one_size() {
    for is_v6 in [false, true] {
        let build = Build::family(is_v6, udp(), payload(2500));
        let made = segments(&build.bytes(), &virtio(VirtioNetHeader::GSO_UDP_L4, 1200));
        let sizes: Vec<usize> = made.iter().map(|segment| transport(segment).len()).collect();
        assert_eq!(sizes, [1208, 1208, 108]);
        let data: Vec<u8> = made.iter().flat_map(|s| transport(s)[8..].to_vec()).collect();
        assert_eq!(data, build.payload);
    }
}

#[test]
fn en_28_the_checksum_found_in_the_super_packet_does_not_matter() {
    let mut packet = Build::v4(tcp(1, 0x10), payload(3000)).bytes();
    let expected = segments(&packet, &virtio(VirtioNetHeader::GSO_TCPV4, 1000));
    packet[36..38].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(segments(&packet, &virtio(VirtioNetHeader::GSO_TCPV4, 1000)), expected);
}

#[test]
fn en_29_octets_after_the_packet_are_no_payload() {
    let packet = Build::v6(tcp(1, 0x10), payload(1500)).bytes();
    let expected = segments(&packet, &virtio(VirtioNetHeader::GSO_TCPV6, 1000));
    let mut padded = packet.clone();
    padded.extend([0; 700]);
    assert_eq!(segments(&padded, &virtio(VirtioNetHeader::GSO_TCPV6, 1000)), expected);
}

#[test]
fn en_29_a_virtio_header_that_contradicts_the_packet_is_refused() {
    let refused = |packet: &[u8], virtio: VirtioNetHeader| {
        let inner = Inner::parse(packet).unwrap();
        assert_eq!(Segments::new(packet, &inner, &virtio).err(), Some(InnerMalformed));
    };
    let v4 = Build::v4(tcp(1, 0x10), payload(100)).bytes();
    let v6 = Build::v6(tcp(1, 0x10), payload(100)).bytes();
    refused(&v4, virtio(VirtioNetHeader::GSO_TCPV6, 50));
    refused(&v6, virtio(VirtioNetHeader::GSO_TCPV4, 50));
    refused(&v4, virtio(VirtioNetHeader::GSO_UDP_L4, 50));
    refused(&v4, virtio(VirtioNetHeader::GSO_TCPV4, 0));
    refused(&v4, virtio(3, 50));
    refused(&v4, virtio(VirtioNetHeader::GSO_NONE, 50));
    // A fragment.
    let mut build = Build::v4(tcp(1, 0x10), payload(100));
    build.flags_offset = 0x2000;
    refused(&build.bytes(), virtio(VirtioNetHeader::GSO_TCPV4, 50));
    // A TCP header shorter than possible, or longer than the packet.
    for words in [0, 4, 15] {
        let mut packet = Build::v4(tcp(1, 0x10), vec![]).bytes();
        packet[32] = words << 4;
        refused(&packet, virtio(VirtioNetHeader::GSO_TCPV4, 50));
    }
    for len in 0..20 {
        let cut = Build::v4(Transport::Raw { protocol: 6 }, vec![0x50; len]).bytes();
        refused(&cut, virtio(VirtioNetHeader::GSO_TCPV4, 50));
    }
}

#[test]
fn en_29_headers_longer_than_the_scratch_are_refused() {
    // Destination Options of 240 octets.
    let mut body = vec![17, 29];
    body.resize(240, 0);
    body.extend([0x9c, 0x40, 1, 0xbb, 0, 100, 0, 0]);
    body.extend([0; 92]);
    let packet = Build::v6(Transport::Raw { protocol: 60 }, body).bytes();
    let inner = Inner::parse(&packet).unwrap();
    let refused = Segments::new(&packet, &inner, &virtio(VirtioNetHeader::GSO_UDP_L4, 50));
    assert_eq!(refused.err(), Some(InnerMalformed));
}

/// An IPv6 TCP super-packet with this extension header, whose checksum field holds the sum of a pseudo-header with these addresses.
fn extended(number: u8, mut header: Vec<u8>, source: &str, destination: &str) -> Vec<u8> {
    let mut build = Build::v6(tcp(1, 0x18), payload(3000));
    (build.source, build.destination) = (ip(source), ip(destination));
    let mut transport = build.bytes().split_off(40);
    let partial = pseudo_header(build.source, build.destination, 6, transport.len()).partial();
    transport[16..18].copy_from_slice(&partial);
    header[0] = 6;
    header.extend(transport);
    Build::v6(Transport::Raw { protocol: number }, header).bytes()
}

#[test]
fn en_28_a_pseudo_header_with_other_addresses_than_the_ip_header_is_kept() {
    let plain = Build::v6(udp(), vec![]);
    let (source, destination) = (plain.source.to_string(), plain.destination.to_string());
    let (last, home) = ("2001:db8:ffff::9", "2001:db8:eeee::8");
    // A Routing header with one segment left: the final destination counts (RFC 8200 §8.1).
    let routing = [&[0, 2, 2, 1, 0, 0, 0, 0][..], &Ipv6Addr::octets(&last.parse().unwrap())];
    // A Home Address option: the home address counts (RFC 6275 §11.3.1).
    let address = [&[0, 2, 1, 2, 0, 0, 201, 16][..], &Ipv6Addr::octets(&home.parse().unwrap())];
    for (number, header, source, destination) in
        [(43, routing.concat(), &*source, last), (60, address.concat(), home, &*destination)]
    {
        let packet = extended(number, header, source, destination);
        let inner = Inner::parse(&packet).unwrap();
        let virtio = virtio(VirtioNetHeader::GSO_TCPV6, 1000);
        let mut segments = Segments::new(&packet, &inner, &virtio).unwrap();
        let mut scratch = [0; super::super::MAX_HEADERS_LEN];
        assert_eq!(segments.remaining(), 3);
        while let Some(piece) = segments.next_into(&packet, &mut scratch) {
            let headers = &scratch[inner.transport_offset..piece.headers_len];
            let segment = [headers, &packet[piece.payload]].concat();
            let sum = pseudo_and_data(ip(source), ip(destination), 6, &segment);
            assert_eq!(sum, 0xffff, "{number}");
        }
    }
}

#[test]
fn a_scratch_too_short_gives_nothing() {
    let packet = Build::v4(udp(), payload(100)).bytes();
    let inner = Inner::parse(&packet).unwrap();
    let virtio = virtio(VirtioNetHeader::GSO_UDP_L4, 50);
    let mut segments = Segments::new(&packet, &inner, &virtio).unwrap();
    assert_eq!(segments.next_into(&packet, &mut [0; 27]), None);
    assert!(segments.next_into(&packet, &mut [0; 28]).is_some());
}

#[test]
fn en_28_the_virtio_header_says_what_to_do() {
    assert_eq!(Offload::of(&VirtioNetHeader::default()), Offload::None);
    let mut partial = virtio(VirtioNetHeader::GSO_NONE, 0);
    (partial.csum_start, partial.csum_offset) = (U16::new(40), U16::new(16));
    let expected = Offload::Checksum { csum_start: 40, csum_offset: 16 };
    assert_eq!(Offload::of(&partial), expected);
    for gso_type in [1, 0x81, 4, 5] {
        assert_eq!(Offload::of(&virtio(gso_type, 1400)), Offload::Segment);
    }
}

proptest! {
    #[test]
    fn segments_carry_every_octet_once(
        len in 0usize..20_000, size in 1usize..3000, is_v6: bool, is_udp: bool,
    ) {
        let size = size.max(len / 200);
        prop_assume!(size > 0);
        let (transport, gso_type) = if is_udp {
            (udp(), VirtioNetHeader::GSO_UDP_L4)
        } else {
            (tcp(77, 0x18), gso_tcp(is_v6))
        };
        let build = Build::family(is_v6, transport, payload(len));
        let made = segments(&build.bytes(), &virtio(gso_type, size));
        let headers = build.bytes().len() - len;
        let data: Vec<u8> = made.iter().flat_map(|s| s[headers..].to_vec()).collect();
        prop_assert_eq!(data, build.payload);
        prop_assert_eq!(made.len(), len.div_ceil(size).max(1));
    }
}
