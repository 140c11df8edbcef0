//! From the core to the TUN, or back.
use super::*;
use crate::packet::Dscp;

#[test]
fn de_04_de_17_a_good_packet_is_delivered() {
    for packet in [Build::v4(udp(), payload(30)), Build::v6(tcp(1, 0x10), payload(30))] {
        let mut bench = Bench::new();
        bench.core(PEER_V4, FIELDS, &lisp(0, &packet.bytes()));
        assert_eq!(bench.out.delivered, [packet.bytes()]);
        assert_eq!(bench.counters().decapsulated, 1);
    }
}

#[test]
fn de_05_what_cannot_be_a_packet_is_dropped() {
    let whole = lisp(0, &Build::v4(udp(), payload(30)).bytes());
    for (datagram, reason) in [
        (&whole[..0], DropReason::LispHeaderTruncated),
        (&whole[..8], DropReason::LispHeaderTruncated),
        (&whole[..27], DropReason::LispHeaderTruncated),
        (&whole[..whole.len() - 1], DropReason::InnerMalformed),
        (&[0; 40], DropReason::InnerMalformed),
    ] {
        let mut bench = Bench::new();
        bench.core(PEER_V4, FIELDS, datagram);
        bench.assert_dropped(reason);
    }
}

#[test]
fn de_06_trailing_octets_are_trimmed() {
    let mut bench = Bench::new();
    let packet = Build::v6(udp(), payload(30)).bytes();
    bench.core(PEER_V4, FIELDS, &[&lisp(0, &packet)[..], &[0xff; 5]].concat());
    assert_eq!(bench.out.delivered, [packet]);
}

#[test]
fn de_07_de_09_de_13_outer_fields_reach_the_inner_packet() {
    let mut bench = Bench::new();
    let packet = Build { ttl: 60, tos: 0b10, ..Build::v4(udp(), payload(8)) };
    let outer = OuterFields { ttl: 9, tos: 0xb8 | 0b11 };
    bench.core(PEER_V4, outer, &lisp(0, &packet.bytes()));
    let expected = Build { ttl: 9, tos: 0xbb, ..packet.clone() };
    assert_eq!(bench.out.delivered, [expected.bytes()]);
    bench.core(PEER_V4, OuterFields { ttl: 200, tos: 0 }, &lisp(0, &packet.bytes()));
    assert_eq!(bench.out.delivered[1][8], 60, "the larger TTL is not taken over");
}

#[test]
fn de_11_congestion_that_nobody_can_be_told_of_drops() {
    let mut bench = Bench::new();
    let packet = Build::v4(udp(), payload(8)).bytes();
    bench.core(PEER_V4, OuterFields { ttl: 64, tos: 0b11 }, &lisp(0, &packet));
    bench.assert_dropped(DropReason::EcnNotEctCe);
}

#[test]
fn de_14_unused_ecn_combinations_are_counted() {
    let mut bench = Bench::new();
    let packet = Build::v4(udp(), payload(8)).bytes();
    bench.core(PEER_V4, OuterFields { ttl: 64, tos: 0b01 }, &lisp(0, &packet));
    assert_eq!(bench.counters().ecn_unused_combination, 1);
}

#[test]
fn de_16_an_unknown_instance_is_dropped() {
    let rules = Rules { unknown_instances: [77].into(), ..Rules::default() };
    let mut bench = Bench::with(rules);
    bench.core(PEER_V4, FIELDS, &lisp(77, &Build::v4(udp(), payload(8)).bytes()));
    bench.assert_dropped(DropReason::InstanceUnknown);
}

#[test]
fn de_19_a_foreign_destination_is_dropped() {
    let foreign = "203.0.113.0/24".parse().expect("a prefix");
    let rules = Rules { foreign_destinations: vec![foreign], ..Rules::default() };
    let mut bench = Bench::with(rules);
    bench.core(PEER_V4, FIELDS, &lisp(0, &Build::v4(udp(), payload(8)).bytes()));
    bench.assert_dropped(DropReason::DestinationNotLocalEid);
}

#[test]
fn de_20_de_21_de_22_martians_are_dropped() {
    let good = Build::v4(udp(), payload(8));
    for (outer, source, destination, reason) in [
        ("127.0.0.1", "192.0.2.1", "192.0.2.2", DropReason::OuterSourceMartian),
        (OWN_V6, "192.0.2.1", "192.0.2.2", DropReason::OuterSourceMartian),
        (PEER_V4, "0.0.0.0", "192.0.2.2", DropReason::InnerSourceMartian),
        (PEER_V4, OWN_V4, "192.0.2.2", DropReason::InnerSourceMartian),
        (PEER_V4, "192.0.2.1", "224.0.0.5", DropReason::InnerDestinationMartian),
        (PEER_V4, "192.0.2.1", "127.0.0.1", DropReason::InnerDestinationMartian),
        (PEER_V4, "192.0.2.1", OWN_V4, DropReason::InnerDestinationMartian),
    ] {
        let mut bench = Bench::new();
        let packet = Build { source: ip(source), destination: ip(destination), ..good.clone() };
        bench.core(outer, FIELDS, &lisp(0, &packet.bytes()));
        bench.assert_dropped(reason);
    }
}

/// `packet` in LISP data addressed to us.
fn wrapped(packet: &[u8]) -> Build {
    let data = Transport::Udp { ports: (50_000, 4341) };
    Build {
        source: ip("198.51.100.3"),
        destination: ip(OWN_V4),
        ..Build::v4(data, lisp(0, packet))
    }
}

#[test]
fn de_24_a_nested_packet_is_decapsulated_once_more() {
    let innermost = Build { ttl: 50, ..Build::v6(udp(), payload(8)) };
    let mut bench = Bench::new();
    bench.core(
        PEER_V4,
        OuterFields { ttl: 33, tos: 0 },
        &lisp(0, &wrapped(&innermost.bytes()).bytes()),
    );
    assert_eq!(bench.out.delivered, [Build { ttl: 33, ..innermost.clone() }.bytes()]);
    let mut bench = Bench::new();
    let thrice = wrapped(&wrapped(&innermost.bytes()).bytes()).bytes();
    bench.core(PEER_V4, FIELDS, &lisp(0, &thrice));
    bench.assert_dropped(DropReason::NestedTooDeep);
}

#[test]
fn pe_04_the_sender_of_a_nested_packet_must_be_accepted_too() {
    let innermost = Build::v6(udp(), payload(8)).bytes();
    let nested = lisp(0, &wrapped(&innermost).bytes());
    let mut bench =
        Bench::with(Rules { foreign_rlocs: vec![ip("198.51.100.66")], ..Rules::default() });
    bench.core("198.51.100.66", FIELDS, &nested);
    bench.assert_dropped(DropReason::PetrRlocNotAccepted);
}

#[test]
fn de_14_unused_ecn_combinations_are_counted_around_a_nested_packet_too() {
    let mut bench = Bench::new();
    let innermost = Build::v6(udp(), payload(8)).bytes();
    let outer = OuterFields { ttl: 64, tos: 0b01 };
    bench.core(PEER_V4, outer, &lisp(0, &wrapped(&innermost).bytes()));
    assert_eq!(bench.counters().ecn_unused_combination, 1);
}

#[test]
fn dh_12_an_encrypted_packet_is_dropped() {
    let mut datagram = lisp(0, &Build::v4(udp(), payload(8)).bytes());
    datagram[0] |= 1;
    let mut bench = Bench::new();
    bench.core(PEER_V4, FIELDS, &datagram);
    bench.assert_dropped(DropReason::KeyIdUnknown);
}

fn rtr() -> Bench {
    let all = vec!["0.0.0.0/0".parse().expect("a prefix"), "::/0".parse().expect("a prefix")];
    Bench::with(Rules { reencapsulate: all, native_forward: true, ..Rules::default() })
}

#[test]
fn en_27_en_32_en_33_re_encapsulation_keeps_the_instance_and_takes_one_hop() {
    let mut bench = rtr();
    let set = LocatorSet::new([adjacency(PEER_V6, 1500)], 0);
    bench.verdict(9, "203.0.113.0/24", Verdict::Encapsulate(Arc::new(set)));
    let packet = Build { ttl: 60, tos: 0b10, ..Build::v4(udp(), payload(8)) };
    bench.core(PEER_V4, OuterFields { ttl: 40, tos: 0b11 }, &lisp(9, &packet.bytes()));
    let [(outer, datagram)] = &bench.out.sent[..] else { panic!("one packet") };
    assert_eq!(
        (outer.destination, outer.fields),
        (ip(PEER_V6), OuterFields { ttl: 39, tos: 0b11 })
    );
    assert_eq!(datagram[..], lisp(9, &Build { ttl: 39, tos: 0b11, ..packet }.bytes()));
    let counters = bench.counters();
    assert_eq!((counters.reencapsulated, counters.encapsulated), (1, 0));
}

#[test]
fn en_32_the_last_hop_is_answered() {
    let mut bench = rtr();
    bench.map("203.0.113.0/24", PEER_V6, 1500);
    let packet = Build::v4(udp(), payload(8));
    bench.core(PEER_V4, OuterFields { ttl: 1, tos: 0 }, &lisp(0, &packet.bytes()));
    bench.assert_dropped(DropReason::HopLimitExceeded);
    assert_eq!(bench.icmp_errors()[0].0, packet.source);
}

#[test]
fn de_18_re_encapsulation_stays_in_its_instance() {
    let mut bench = rtr();
    bench.map("203.0.113.0/24", PEER_V6, 1500);
    bench.core(PEER_V4, FIELDS, &lisp(5, &Build::v4(udp(), payload(8)).bytes()));
    assert_eq!(bench.misses()[0].instance_id.get(), 5);
    assert_eq!(bench.counters().held, 1);
}

#[test]
fn a_native_verdict_delivers_what_came_from_the_core() {
    let mut bench = rtr();
    bench.verdict(0, "203.0.113.0/24", Verdict::Native);
    let packet = Build::v4(udp(), payload(8));
    bench.core(PEER_V4, FIELDS, &lisp(0, &packet.bytes()));
    assert_eq!(bench.out.delivered, [Build { ttl: 63, ..packet }.bytes()]);
    assert_eq!(bench.counters().decapsulated, 1);
}

/// RFC 6040 Figure 4: inner, outer, outgoing (`None` = drop), whether the combination is to be counted and logged.
const FIGURE_4: [(u8, u8, Option<u8>, bool); 16] = [
    (0b00, 0b00, Some(0b00), false),
    (0b00, 0b10, Some(0b00), true),
    (0b00, 0b01, Some(0b00), true),
    (0b00, 0b11, None, true),
    (0b10, 0b00, Some(0b10), false),
    (0b10, 0b10, Some(0b10), false),
    (0b10, 0b01, Some(0b01), false),
    (0b10, 0b11, Some(0b11), false),
    (0b01, 0b00, Some(0b01), false),
    (0b01, 0b10, Some(0b01), true),
    (0b01, 0b01, Some(0b01), false),
    (0b01, 0b11, Some(0b11), false),
    (0b11, 0b00, Some(0b11), false),
    (0b11, 0b10, Some(0b11), false),
    (0b11, 0b01, Some(0b11), true),
    (0b11, 0b11, Some(0b11), false),
];

#[test]
fn de_10_de_11_de_12_de_13_de_14_de_15_every_cell_of_figure_4_in_every_mode_delivered_and_counted()
{
    for (inner, outer, outgoing, unusual) in FIGURE_4 {
        for (dscp, expected_dscp) in [(Dscp::Copy, 0x28), (Dscp::Fixed(46), 0x48)] {
            for copy_ecn in [true, false] {
                for build in [Build::v4(udp(), payload(9)), Build::v6(udp(), payload(9))] {
                    let marking = Marking { dscp, copy_ecn };
                    let mut bench = Bench::configured(Rules::default(), marking, 8);
                    let build = Build { tos: 0x48 | inner, ..build };
                    let fields = OuterFields { ttl: 64, tos: 0x28 | outer };
                    bench.core(PEER_V4, fields, &lisp(0, &build.bytes()));
                    let counters = bench.counters();
                    if let Some(outgoing) = outgoing {
                        let expected = Build { tos: expected_dscp | outgoing, ..build };
                        assert_eq!(bench.out.delivered, [expected.bytes()], "{inner} {outer}");
                        assert_eq!(counters.ecn_unused_combination, u64::from(unusual));
                    } else {
                        bench.assert_dropped(DropReason::EcnNotEctCe);
                        assert_eq!(counters.ecn_unused_combination, 0, "counted as a drop");
                    }
                }
            }
        }
    }
}

#[test]
fn dh_16_mc_29_what_data_packets_say_of_mappings_is_ignored() {
    let rules = Rules { native_forward: true, ..Rules::default() };
    let mut bench = Bench::with(rules);
    let set = bench.map("203.0.113.0/24", PEER_V4, 1500);
    let packet = Build::v4(udp(), payload(30)).bytes();
    // Every flag but KK: nonce, LSBs, echo, map-versions, instance, reserved. A stranger's RLOC, too, for gleaning.
    for flags in (0..=255u8).filter(|flags| flags & 0x03 == 0) {
        for source in [PEER_V4, "198.51.100.77"] {
            let mut datagram = lisp(0, &packet);
            datagram[..4].copy_from_slice(&[flags, 0x12, 0x34, 0x56]);
            datagram[7] = 0xa5;
            bench.core(source, FIELDS, &datagram);
        }
    }
    let counters = bench.counters();
    assert_eq!((counters.decapsulated, counters.dropped_total()), (128, 0));
    assert!(bench.punts.pop().is_none(), "nobody is told anything");
    assert_eq!(set.adjacencies.len(), 1);
    // The inner source stays unknown: nothing was gleaned.
    let mut view = bench.reader.enter();
    assert!(view.lookup(InstanceId::DEFAULT, ip("198.51.100.7")).is_miss());
}
