use super::super::decapsulate::{Applied, apply, decrement_ttl};
use super::super::{Dscp, Inner, Marking, OuterFields};
use super::support::{Build, assert_intact, payload, tcp};
use crate::drops::DropReason::{self, EcnNotEctCe, HopLimitExceeded};
use proptest::prelude::*;

fn packet(is_v6: bool, tos: u8, ttl: u8) -> Vec<u8> {
    let mut build = Build::family(is_v6, tcp(1, 0x10), payload(33));
    (build.tos, build.ttl) = (tos, ttl);
    build.bytes()
}

/// Applies and checks that `inner` and the packet agree and are intact.
fn applied(
    packet: &mut [u8],
    outer: OuterFields,
    marking: Marking,
) -> Result<(Inner, Applied), DropReason> {
    let mut inner = Inner::parse(packet).unwrap();
    let found = apply(packet, &mut inner, outer, marking)?;
    assert_intact(packet);
    assert_eq!(Inner::parse(packet), Ok(inner));
    Ok((inner, found))
}

#[test]
fn de_07_the_smaller_ttl_wins() {
    for is_v6 in [false, true] {
        for (inner, outer, expected) in [(64, 60, 60), (60, 64, 60), (7, 7, 7), (255, 1, 1)] {
            let mut packet = packet(is_v6, 0, inner);
            let outer = OuterFields { ttl: outer, tos: 0 };
            let (inner, _) = applied(&mut packet, outer, Marking::default()).unwrap();
            assert_eq!(inner.ttl, expected);
        }
    }
}

#[test]
fn de_09_outer_dscp_replaces_the_inner_one_unless_switched_off() {
    for is_v6 in [false, true] {
        for (dscp, expected) in
            [(Dscp::Copy, 0x28), (Dscp::Fixed(0), 0xb8), (Dscp::Fixed(46), 0xb8)]
        {
            let mut packet = packet(is_v6, 0xb8, 64);
            let marking = Marking { dscp, copy_ecn: true };
            let outer = OuterFields { ttl: 64, tos: 0x28 };
            let (inner, _) = applied(&mut packet, outer, marking).unwrap();
            assert_eq!(inner.tos, expected);
        }
    }
}

const N: u8 = 0;
const E1: u8 = 1;
const E0: u8 = 2;
const C: u8 = 3;

/// TV-R5: inner, outer, outgoing (`None` = drop), to be logged.
const FIGURE_4: [(u8, u8, Option<u8>, bool); 16] = [
    (N, N, Some(N), false),
    (N, E0, Some(N), true),
    (N, E1, Some(N), true),
    (N, C, None, true),
    (E0, N, Some(E0), false),
    (E0, E0, Some(E0), false),
    (E0, E1, Some(E1), false),
    (E0, C, Some(C), false),
    (E1, N, Some(E1), false),
    (E1, E0, Some(E1), true),
    (E1, E1, Some(E1), false),
    (E1, C, Some(C), false),
    (C, N, Some(C), false),
    (C, E0, Some(C), false),
    (C, E1, Some(C), true),
    (C, C, Some(C), false),
];

#[test]
fn tv_r5_de_10_de_12_de_13_de_14_ecn_is_figure_4() {
    for is_v6 in [false, true] {
        for (inner, outer, expected, log) in FIGURE_4 {
            let mut packet = packet(is_v6, 0xb8 | inner, 64);
            let outer_fields = OuterFields { ttl: 64, tos: 0xb8 | outer };
            match (applied(&mut packet, outer_fields, Marking::default()), expected) {
                (Ok((inner, found)), Some(expected)) => {
                    assert_eq!(inner.tos, 0xb8 | expected);
                    assert_eq!(found.unusual_ecn, log, "{inner:?} {outer}");
                }
                (Err(EcnNotEctCe), None) => {}
                (got, _) => panic!("{inner} {outer}: {got:?}"),
            }
        }
    }
}

#[test]
fn de_11_outer_ce_over_not_ect_is_dropped_and_the_packet_unchanged() {
    for is_v6 in [false, true] {
        let mut packet = packet(is_v6, 0xb8, 64);
        let before = packet.clone();
        let outer = OuterFields { ttl: 1, tos: C };
        assert_eq!(applied(&mut packet, outer, Marking::default()).err(), Some(EcnNotEctCe));
        assert_eq!(packet, before);
    }
}

#[test]
fn en_09_the_egress_follows_figure_4_whatever_its_own_marking() {
    let mut packet = packet(false, E0, 64);
    let marking = Marking { dscp: Dscp::Fixed(0), copy_ecn: false };
    let (inner, _) = applied(&mut packet, OuterFields { ttl: 64, tos: C }, marking).unwrap();
    assert_eq!(inner.tos, C);
}

#[test]
fn en_05_a_ttl_of_0_or_1_is_not_decremented() {
    for is_v6 in [false, true] {
        for ttl in [0, 1] {
            let mut packet = packet(is_v6, 0, ttl);
            let before = packet.clone();
            let mut inner = Inner::parse(&packet).unwrap();
            assert_eq!(decrement_ttl(&mut packet, &mut inner), Err(HopLimitExceeded));
            assert_eq!(packet, before);
        }
    }
}

#[test]
fn en_32_re_encapsulation_sends_the_received_outer_ttl_less_one() {
    for is_v6 in [false, true] {
        let mut packet = packet(is_v6, 0, 64);
        let received = OuterFields { ttl: 40, tos: 0 };
        let (mut inner, _) = applied(&mut packet, received, Marking::default()).unwrap();
        decrement_ttl(&mut packet, &mut inner).unwrap();
        assert_intact(&packet);
        assert_eq!(Marking::default().outer_fields(&inner).ttl, 39);
    }
}

#[test]
fn en_33_re_encapsulation_carries_the_congestion_mark_on() {
    let mut packet = packet(false, E0, 64);
    let received = OuterFields { ttl: 64, tos: C };
    let (inner, _) = applied(&mut packet, received, Marking::default()).unwrap();
    assert_eq!(Marking::default().outer_fields(&inner).tos, C);
}

proptest! {
    #[test]
    fn de_15_the_ipv4_checksum_stays_right(
        tos: u8, ttl: u8, id: u16, outer_tos: u8, outer_ttl: u8, copy_dscp: bool,
    ) {
        let mut build = Build::v4(tcp(1, 0x10), payload(3));
        (build.tos, build.ttl, build.id) = (tos, ttl, id);
        let mut packet = build.bytes();
        let outer = OuterFields { ttl: outer_ttl, tos: outer_tos };
        let dscp = if copy_dscp { Dscp::Copy } else { Dscp::Fixed(tos >> 2) };
        // `applied` judges the checksum.
        let _ = applied(&mut packet, outer, Marking { dscp, copy_ecn: true });
    }

    #[test]
    fn de_15_a_wrong_ipv4_checksum_stays_wrong(outer_tos in 0u8..3, outer_ttl: u8) {
        let mut packet = packet(false, 1, 200);
        packet[10] ^= 0x40;
        let mut inner = Inner::parse(&packet).unwrap();
        let outer = OuterFields { ttl: outer_ttl, tos: outer_tos };
        apply(&mut packet, &mut inner, outer, Marking::default()).unwrap();
        prop_assert_ne!(super::support::rfc1071(&packet[..20]), 0xffff);
    }
}
