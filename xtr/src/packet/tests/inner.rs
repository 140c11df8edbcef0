use super::super::{Family, Fragment, Inner};
use super::support::{Build, Transport, ip, payload, tcp, udp};
use crate::drops::DropReason::InnerMalformed;
use proptest::prelude::*;

#[test]
fn de_05_truncation_at_every_octet_is_malformed() {
    for build in [Build::v4(tcp(1, 0x10), payload(40)), Build::v6(udp(), payload(40))] {
        let packet = build.bytes();
        for len in 0..packet.len() {
            assert_eq!(Inner::parse(&packet[..len]), Err(InnerMalformed), "{len}");
        }
        assert!(Inner::parse(&packet).is_ok());
    }
}

#[test]
fn de_05_a_version_other_than_4_and_6_is_malformed() {
    let mut packet = Build::v4(udp(), payload(40)).bytes();
    for version in (0..16).filter(|&version| version != 4 && version != 6) {
        packet[0] = version << 4 | 5;
        assert_eq!(Inner::parse(&packet), Err(InnerMalformed), "{version}");
    }
}

#[test]
fn de_05_a_header_length_below_5_words_or_beyond_the_packet_is_malformed() {
    let mut packet = Build::v4(udp(), payload(4)).bytes();
    for words in [0, 1, 4, 9, 15] {
        packet[0] = 0x40 | words;
        assert_eq!(Inner::parse(&packet), Err(InnerMalformed), "{words}");
    }
}

#[test]
fn de_05_a_total_length_below_the_header_is_malformed() {
    let mut packet = Build::v4(udp(), payload(4)).bytes();
    packet[2..4].copy_from_slice(&19u16.to_be_bytes());
    assert_eq!(Inner::parse(&packet), Err(InnerMalformed));
}

#[test]
fn de_06_trailing_octets_are_not_part_of_the_packet() {
    for build in [Build::v4(udp(), payload(9)), Build::v6(udp(), payload(9))] {
        let packet = build.bytes();
        let mut padded = packet.clone();
        padded.extend([0xaa; 30]);
        let inner = Inner::parse(&padded).unwrap();
        assert_eq!(inner.total_len, packet.len());
        assert_eq!(Ok(inner), Inner::parse(&packet));
    }
}

#[test]
fn every_field_of_an_ipv4_packet_is_read() {
    let mut build = Build::v4(tcp(1, 0x10), payload(5));
    (build.tos, build.ttl) = (0xb9, 63);
    build.ip_options = vec![1, 1, 1, 0];
    let inner = Inner::parse(&build.bytes()).unwrap();
    assert_eq!((inner.source, inner.destination), (ip("198.51.100.7"), ip("203.0.113.5")));
    assert_eq!((inner.header_len, inner.transport_offset, inner.total_len), (24, 24, 61));
    assert_eq!((inner.tos, inner.ttl, inner.protocol), (0xb9, 63, 6));
    assert_eq!(inner.ports, Some((40000, 443)));
    assert_eq!(inner.family(), Family::V4);
    assert!(inner.dont_fragment);
}

#[test]
fn every_field_of_an_ipv6_packet_is_read() {
    let mut build = Build::v6(udp(), payload(5));
    (build.tos, build.ttl) = (0xb9, 63);
    let inner = Inner::parse(&build.bytes()).unwrap();
    assert_eq!((inner.source, inner.destination), (ip("2001:db8:1::7"), ip("2001:db8:2::5")));
    assert_eq!((inner.header_len, inner.transport_offset, inner.total_len), (40, 40, 53));
    assert_eq!((inner.tos, inner.ttl, inner.protocol), (0xb9, 63, 17));
    assert_eq!(inner.ports, Some((40000, 443)));
    assert_eq!((inner.family(), inner.fragment), (Family::V6, Fragment::Whole));
    assert!(inner.dont_fragment);
}

#[test]
fn en_15_only_a_first_or_whole_packet_has_ports() {
    let mut build = Build::v4(udp(), payload(16));
    for (flags_offset, fragment) in [
        (0x0000, Fragment::Whole),
        (0x4000, Fragment::Whole),
        (0x2000, Fragment::First),
        (0x2001, Fragment::Later),
        (0x0001, Fragment::Later),
    ] {
        build.flags_offset = flags_offset;
        let inner = Inner::parse(&build.bytes()).unwrap();
        assert_eq!(inner.fragment, fragment);
        assert_eq!(inner.ports.is_some(), fragment != Fragment::Later);
        assert_eq!(inner.dont_fragment, flags_offset == 0x4000);
    }
}

/// An IPv6 packet with these extension headers before 8 octets of UDP.
fn extended(chain: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (i, (_, header)) in chain.iter().enumerate() {
        let start = body.len();
        body.extend_from_slice(header);
        body[start] = chain.get(i + 1).map_or(17, |(number, _)| *number);
    }
    body.extend([0x9c, 0x40, 0x01, 0xbb, 0, 8, 0, 0]);
    let first = chain.first().map_or(17, |(number, _)| *number);
    Build::v6(Transport::Raw { protocol: first }, body).bytes()
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let options = [0, 0, 1, 4, 0, 0, 0, 0];
    let authentication = [0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let packet = extended(&[(0, &options), (43, &options), (60, &options), (51, &authentication)]);
    let inner = Inner::parse(&packet).unwrap();
    assert_eq!((inner.protocol, inner.transport_offset), (17, 40 + 24 + 24));
    assert_eq!(inner.ports, Some((40000, 443)));
}

#[test]
fn no_next_header_and_encryption_end_the_walk() {
    for number in [59, 50] {
        let mut body = vec![number, 0, 1, 4, 0, 0, 0, 0];
        body.extend([0x9c, 0x40, 1, 0xbb, 0, 8, 0, 0]);
        let packet = Build::v6(Transport::Raw { protocol: 60 }, body).bytes();
        let inner = Inner::parse(&packet).unwrap();
        assert_eq!((inner.protocol, inner.transport_offset, inner.ports), (number, 48, None));
    }
}

#[test]
fn what_follows_the_header_of_a_later_ipv6_fragment_is_not_read() {
    // Payload that looks like a Destination Options header with ports behind it.
    let mut body = vec![60, 0, 0, 8, 0, 0, 0, 1];
    body.extend([17, 0, 1, 4, 0, 0, 0, 0, 0x9c, 0x40, 0x10, 0xf5, 0, 8, 0, 0]);
    let packet = Build::v6(Transport::Raw { protocol: 44 }, body).bytes();
    let inner = Inner::parse(&packet).unwrap();
    assert_eq!((inner.fragment, inner.transport_offset), (Fragment::Later, 48));
    assert_eq!(inner.ports, None);
    assert!(!super::super::lisp::is_data(&inner));
}

#[test]
fn ipv6_fragment_headers_are_told_apart() {
    for (offset_more, fragment) in [
        (0x0000u16, Fragment::Whole),
        (0x0001, Fragment::First),
        (0x0008, Fragment::Later),
        (0x0009, Fragment::Later),
    ] {
        let [high, low] = offset_more.to_be_bytes();
        let inner = Inner::parse(&extended(&[(44, &[0, 0, high, low, 1, 2, 3, 4])])).unwrap();
        assert_eq!(inner.fragment, fragment);
        assert_eq!(inner.ports.is_some(), fragment != Fragment::Later);
        assert_eq!((inner.protocol, inner.transport_offset), (17, 48));
    }
}

#[test]
fn a_chain_of_extension_headers_that_never_ends_is_only_not_understood() {
    let options: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let inner = Inner::parse(&extended(&[(60, options); 20])).unwrap();
    assert_eq!((inner.protocol, inner.ports), (60, None));
    let cut_short = Build::v6(Transport::Raw { protocol: 60 }, vec![17, 9, 0, 0]).bytes();
    let inner = Inner::parse(&cut_short).unwrap();
    assert_eq!((inner.protocol, inner.transport_offset), (60, 40));
}

proptest! {
    #[test]
    fn nothing_panics_and_every_offset_lies_inside(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x45u8), Just(0x60u8), any::<u8>()],
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        if version == 0x60 && bytes.len() > 6 {
            bytes[4] = 0;
        } else if bytes.len() > 3 {
            bytes[2] = 0;
        }
        if let Ok(inner) = Inner::parse(&bytes) {
            prop_assert!(inner.header_len <= inner.transport_offset);
            prop_assert!(inner.transport_offset <= inner.total_len);
            prop_assert!(inner.total_len <= bytes.len());
        }
    }
}
