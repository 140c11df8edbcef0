use super::super::outer::{OuterAddresses, build};
use super::super::{Dscp, Inner, Marking, OuterFields};
use super::support::{Build, payload, udp};
use mapping::eid::InstanceId;

const C1: &str = "45b90020123440003f11c29fc6336407cb00710504d2138d000ce19c4c495350";
const C2: &str = "45b9004400004000 3f11b66dc0000201c0000281d43110f500300000080000000\
    0002a0045b90020123440003f11c29fc6336407cb00710504d2138d000ce19c4c495350";
const C3: &str = "6b9123450030113f20010db8000a0000000000000000000120010db8000b0000\
    0000000000000001d43110f5003000000800000000002a0045b90020123440003f11c29f\
    c6336407cb00710504d2138d000ce19c4c495350";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn built(addresses: OuterAddresses) -> Vec<u8> {
    let packet = hex(C1);
    let inner = Inner::parse(&packet).unwrap();
    let fields = Marking::default().outer_fields(&inner);
    let mut out = vec![0xee];
    build(addresses, fields, 0xd431, InstanceId::new(42).unwrap(), &packet, &mut out);
    out
}

#[test]
fn tv_c2_en_02_en_03_en_10_en_12_an_ipv4_outer_header_octet_for_octet() {
    let out = built(OuterAddresses::V4 {
        source: "192.0.2.1".parse().unwrap(),
        destination: "192.0.2.129".parse().unwrap(),
    });
    assert_eq!(out, hex(C2));
    // EN-26: the inner packet is untouched.
    assert_eq!(out[36..], hex(C1));
}

#[test]
fn tv_c3_en_18_en_20_an_ipv6_outer_header_octet_for_octet() {
    let out = built(OuterAddresses::V6 {
        source: "2001:db8:a::1".parse().unwrap(),
        destination: "2001:db8:b::1".parse().unwrap(),
        flow_label: 0x12345,
    });
    assert_eq!(out, hex(C3));
    assert_eq!(out[56..], hex(C1));
}

fn fields(tos: u8, ttl: u8, marking: Marking) -> OuterFields {
    let [v4, v6] = [Build::v4(udp(), payload(8)), Build::v6(udp(), payload(8))].map(|mut b| {
        (b.tos, b.ttl) = (tos, ttl);
        marking.outer_fields(&Inner::parse(&b.bytes()).unwrap())
    });
    assert_eq!(v4, v6);
    v4
}

#[test]
fn en_07_en_26_the_inner_packet_is_copied_octet_for_octet_whatever_its_marks() {
    for tos in [0x00, 0x01, 0x02, 0x03, 0xb8, 0xff] {
        for (is_v6, marking) in [
            (false, Marking::default()),
            (true, Marking::default()),
            (true, Marking { dscp: Dscp::Fixed(63), copy_ecn: false }),
        ] {
            let packet = Build { tos, ..Build::family(is_v6, udp(), vec![7; 33]) }.bytes();
            let fields = marking.outer_fields(&Inner::parse(&packet).unwrap());
            let addresses = OuterAddresses::V4 {
                source: "192.0.2.1".parse().unwrap(),
                destination: "192.0.2.129".parse().unwrap(),
            };
            let mut out = Vec::new();
            build(addresses, fields, 50_000, InstanceId::DEFAULT, &packet, &mut out);
            assert_eq!(out[36..], packet);
        }
    }
}

#[test]
fn en_04_outer_ttl_is_a_copy() {
    for ttl in [1, 2, 63, 255] {
        assert_eq!(fields(0, ttl, Marking::default()).ttl, ttl);
    }
}

#[test]
fn en_06_outer_dscp_is_a_copy_or_fixed() {
    for dscp in 0..64u8 {
        assert_eq!(fields(dscp << 2, 64, Marking::default()).tos >> 2, dscp);
        for code_point in [0, 1, 46, 63] {
            let fixed = Marking { dscp: Dscp::Fixed(code_point), copy_ecn: true };
            assert_eq!(fields(dscp << 2 | 1, 64, fixed).tos, code_point << 2 | 1);
        }
    }
}

/// RFC 6040 Figure 3: incoming ECN; outgoing outer ECN in normal mode and in compatibility mode. The inner one stays.
const FIGURE_3: [(u8, u8, u8); 4] =
    [(0b00, 0b00, 0b00), (0b10, 0b10, 0b00), (0b01, 0b01, 0b00), (0b11, 0b11, 0b00)];

#[test]
fn en_08_en_09_outer_ecn_is_figure_3_in_both_modes() {
    for (incoming, normal, compatible) in FIGURE_3 {
        for (copy_ecn, outer) in [(true, normal), (false, compatible)] {
            for dscp in [Dscp::Copy, Dscp::Fixed(46)] {
                let marking = Marking { dscp, copy_ecn };
                let got = fields(0xb8 | incoming, 64, marking).tos;
                assert_eq!(got, 0xb8 | outer, "{incoming:02b} {copy_ecn}");
            }
        }
    }
}
