use super::super::checksum::{Sum, complete, internet, pseudo_header, update};
use super::support::{Build, assert_intact, payload, pseudo_and_data, rfc1071, tcp, udp};
use crate::drops::DropReason::InnerMalformed;
use proptest::prelude::*;

/// Replaces a complete checksum by the pseudo-header's sum, as the kernel hands it over.
fn make_partial(packet: &mut [u8], csum_offset: usize) -> u16 {
    let is_v6 = packet[0] >> 4 == 6;
    let (start, number) = if is_v6 { (40, packet[6]) } else { (20, packet[9]) };
    let build = Build::family(is_v6, udp(), vec![]);
    let len = packet.len() - start;
    let sum = pseudo_header(build.source, build.destination, number, len).partial();
    packet[start + csum_offset..start + csum_offset + 2].copy_from_slice(&sum);
    start as u16
}

#[test]
fn en_28_partial_checksums_are_completed() {
    for is_v6 in [false, true] {
        for len in [0, 1, 2, 7, 64, 1399, 1400] {
            for (transport, csum_offset) in [(tcp(9, 0x18), 16), (udp(), 6)] {
                let mut packet = Build::family(is_v6, transport, payload(len)).bytes();
                let whole = packet.clone();
                let start = make_partial(&mut packet, csum_offset);
                complete(&mut packet, start, csum_offset as u16).unwrap();
                assert_eq!(packet, whole);
                assert_intact(&packet);
            }
        }
    }
}

#[test]
fn en_28_a_checksum_field_outside_the_packet_is_refused() {
    let mut packet = Build::v4(udp(), payload(10)).bytes();
    let before = packet.clone();
    for (start, offset) in [(20, 17), (37, 0), (38, 0), (u16::MAX, u16::MAX), (0, u16::MAX)] {
        assert_eq!(complete(&mut packet, start, offset), Err(InnerMalformed));
    }
    assert_eq!(packet, before);
}

#[test]
fn en_21_a_udp_checksum_of_zero_is_written_as_all_ones() {
    // Find a payload word that makes the sum all ones.
    let mut build = Build::v4(udp(), vec![0, 0]);
    let packet = build.bytes();
    build.payload = packet[26..28].to_vec();
    let mut packet = build.bytes();
    assert_eq!(packet[26..28], [0xff, 0xff]);
    make_partial(&mut packet, 6);
    complete(&mut packet, 20, 6).unwrap();
    assert_eq!(packet[26..28], [0xff, 0xff]);
}

#[test]
fn sums_of_nothing_and_of_all_ones() {
    assert_eq!(internet(&[]), [0xff, 0xff]);
    assert_eq!(internet(&[0xff; 70_000]), [0, 0]);
    assert!(Sum::default().add_octets(&[0xff; 64]).is_valid());
}

proptest! {
    #[test]
    fn the_sum_is_that_of_rfc_1071(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for start in 0..bytes.len().min(9) {
            prop_assert_eq!(internet(&bytes[start..]), (!rfc1071(&bytes[start..])).to_be_bytes());
        }
    }

    #[test]
    fn sums_add_up(
        bytes in proptest::collection::vec(any::<u8>(), 2..400),
        split in any::<proptest::sample::Index>(),
    ) {
        let (head, tail) = bytes.split_at(split.index(bytes.len()) & !1);
        let sum = Sum::default().add_octets(head).add_octets(tail);
        prop_assert_eq!(sum.complement(), internet(&bytes));
    }

    #[test]
    fn an_incremental_update_equals_a_new_sum(
        bytes in proptest::collection::vec(any::<u8>(), 20), word in 0usize..10, new: [u8; 2],
    ) {
        // A header never is all zero, the one case in which the two zeros differ (RFC 1624 §3).
        let mut bytes = bytes;
        bytes[0] = 0x45;
        prop_assume!(word != 0);
        let before = internet(&bytes);
        let old = [bytes[2 * word], bytes[2 * word + 1]];
        bytes[2 * word..2 * word + 2].copy_from_slice(&new);
        prop_assert_eq!(update(before, old, new), internet(&bytes));
    }

    #[test]
    fn the_pseudo_header_is_summed(len in 0usize..70_000, number: u8, is_v6: bool) {
        let build = Build::family(is_v6, udp(), vec![]);
        let zeros = vec![0; len];
        let expected = pseudo_and_data(build.source, build.destination, number, &zeros);
        let got = pseudo_header(build.source, build.destination, number, len).partial();
        prop_assert_eq!(u16::from_be_bytes(got), expected);
    }
}
