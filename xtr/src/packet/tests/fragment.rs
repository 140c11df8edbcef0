use super::super::{Fragments, Inner};
use super::support::{Build, Transport, payload, rfc1071, udp};
use proptest::prelude::*;

/// Every fragment of `packet` as a packet of its own.
fn fragments(packet: &[u8], limit: usize) -> Option<Vec<Vec<u8>>> {
    let inner = Inner::parse(packet).unwrap();
    let mut fragments = Fragments::new(packet, &inner, limit)?;
    let mut whole = Vec::new();
    let mut scratch = [0xee; 60];
    loop {
        let remaining = fragments.remaining();
        let Some(piece) = fragments.next_into(packet, &mut scratch) else {
            assert_eq!(remaining, 0);
            return Some(whole);
        };
        assert_eq!(remaining, fragments.remaining() + 1);
        let mut fragment = scratch[..piece.headers_len].to_vec();
        fragment.extend_from_slice(&packet[piece.payload.clone()]);
        assert_eq!(fragment.len(), piece.total_len());
        whole.push(fragment);
    }
}

/// Checks each fragment's header; its offset in octets, more flag, and payload.
fn opened(fragment: &[u8]) -> (usize, bool, &[u8]) {
    let inner = Inner::parse(fragment).unwrap();
    assert_eq!(inner.total_len, fragment.len());
    assert_eq!(rfc1071(&fragment[..inner.header_len]), 0xffff);
    let word = u16::from_be_bytes([fragment[6], fragment[7]]);
    (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0, &fragment[inner.header_len..])
}

/// Puts the payload together again; panics on gaps, overlaps or more than one end.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (i, fragment) in fragments.iter().enumerate() {
        let (offset, more, data) = opened(fragment);
        assert_eq!(offset, payload.len());
        assert_eq!(more, i + 1 < fragments.len());
        payload.extend_from_slice(data);
    }
    payload
}

fn fragmentable(payload_len: usize) -> Build {
    let mut build = Build::v4(udp(), payload(payload_len));
    build.flags_offset = 0;
    build
}

#[test]
fn mt_03_two_fragments_of_about_equal_size() {
    let packet = fragmentable(1472).bytes();
    let pieces = fragments(&packet, 1464).unwrap();
    assert_eq!(pieces.len(), 2);
    assert_eq!([pieces[0].len(), pieces[1].len()], [20 + 744, 20 + 736]);
    assert_eq!(reassembled(&pieces), packet[20..]);
    for piece in &pieces {
        // Same ID, TTL, protocol and addresses.
        assert_eq!((&piece[4..6], &piece[8..10]), (&packet[4..6], &packet[8..10]));
        assert_eq!(piece[12..20], packet[12..20]);
    }
}

#[test]
fn mt_04_both_fragments_are_of_one_flow() {
    let hasher = super::super::FlowHasher::new([3; 32]);
    let pieces = fragments(&fragmentable(1472).bytes(), 1464).unwrap();
    let hashes = [0, 1].map(|i: usize| hasher.hash(&Inner::parse(&pieces[i]).unwrap()));
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn mt_05_as_many_fragments_as_it_takes() {
    let packet = fragmentable(8972).bytes();
    let pieces = fragments(&packet, 1464).unwrap();
    assert_eq!(pieces.len(), 7);
    assert!(pieces.iter().all(|piece| piece.len() <= 1464));
    assert_eq!(reassembled(&pieces), packet[20..]);
}

#[test]
fn mt_09_df_and_ipv6_are_never_fragmented() {
    let with_df = Build::v4(udp(), payload(2000)).bytes();
    assert_eq!(fragments(&with_df, 1464), None);
    let v6 = Build::v6(udp(), payload(2000)).bytes();
    assert_eq!(fragments(&v6, 1464), None);
}

#[test]
fn a_fragment_is_fragmented_again() {
    let packet = fragmentable(4000).bytes();
    let outer_pieces = fragments(&packet, 2020).unwrap();
    let pieces: Vec<Vec<u8>> =
        outer_pieces.iter().flat_map(|piece| fragments(piece, 700).unwrap()).collect();
    assert_eq!(reassembled(&pieces), packet[20..]);
}

#[test]
fn options_are_copied_by_their_copied_flag() {
    let mut build = fragmentable(600);
    // Record Route (7, not copied), Loose Source Route (131, copied), Router Alert (148, copied), end.
    build.ip_options = vec![7, 3, 4, 131, 7, 4, 192, 0, 2, 9, 148, 4, 0, 0, 0, 0];
    let packet = build.bytes();
    let pieces = fragments(&packet, 400).unwrap();
    assert_eq!(pieces[0][20..36], packet[20..36]);
    for piece in &pieces[1..] {
        assert_eq!(piece[0], 0x48);
        assert_eq!(piece[20..32], [131, 7, 4, 192, 0, 2, 9, 148, 4, 0, 0, 0]);
    }
    assert_eq!(reassembled(&pieces), packet[36..]);
}

#[test]
fn malformed_options_end_the_copy() {
    for options in [[131, 0, 1, 2], [131, 1, 1, 2], [131, 9, 1, 2], [1, 1, 1, 131]] {
        let mut build = fragmentable(600);
        build.ip_options = options.to_vec();
        let packet = build.bytes();
        let pieces = fragments(&packet, 400).unwrap();
        assert_eq!(pieces[1][0], 0x45);
        assert_eq!(reassembled(&pieces), packet[24..]);
    }
}

#[test]
fn a_wrong_header_checksum_stays_wrong() {
    let mut packet = fragmentable(600).bytes();
    packet[8] ^= 0x10;
    for piece in fragments(&packet, 400).unwrap() {
        assert_ne!(rfc1071(&piece[..20]), 0xffff);
    }
}

#[test]
fn no_fragment_ends_beyond_the_largest_datagram() {
    let mut build = fragmentable(600);
    build.flags_offset = 0x1fff;
    assert_eq!(fragments(&build.bytes(), 400), None);
}

#[test]
fn a_limit_without_room_for_payload_is_refused() {
    let packet = fragmentable(600).bytes();
    assert_eq!(fragments(&packet, 27), None);
    assert_eq!(fragments(&packet, 0), None);
    assert!(fragments(&packet, 28).is_some());
    let empty = Build { flags_offset: 0, ..Build::v4(Transport::Raw { protocol: 99 }, vec![]) };
    assert_eq!(fragments(&empty.bytes(), 28), None);
}

#[test]
fn a_scratch_too_short_gives_nothing() {
    let packet = fragmentable(600).bytes();
    let inner = Inner::parse(&packet).unwrap();
    let mut fragments = Fragments::new(&packet, &inner, 400).unwrap();
    assert_eq!(fragments.next_into(&packet, &mut [0; 19]), None);
    assert!(fragments.next_into(&packet, &mut [0; 20]).is_some());
}

#[test]
fn mt_03_mt_05_every_size_around_every_limit_reassembles() {
    for header_options in [0, 4, 40] {
        for len in (1..200).chain(1400..1420) {
            let mut build = fragmentable(len.max(8) - 8);
            // Copied into every fragment: no operation of their own can be left out.
            build.ip_options = (0..header_options / 4).flat_map(|_| [148, 4, 0, 0]).collect();
            let packet = build.bytes();
            for limit in [28, 29, 35, 36, 67, 68, 75, 76, 100, 1231] {
                let Some(pieces) = fragments(&packet, limit) else {
                    assert!(limit < 28 + header_options);
                    continue;
                };
                assert_eq!(reassembled(&pieces), packet[20 + header_options..]);
                if packet.len() > limit {
                    assert!(pieces.iter().all(|piece| piece.len() <= limit), "{len} {limit}");
                }
            }
        }
    }
}

#[test]
fn mt_09_a_fragment_with_df_is_not_fragmented_again() {
    for flags_offset in [0x6000, 0x4010, 0x6010] {
        let build = Build { flags_offset, ..fragmentable(1000) };
        assert_eq!(fragments(&build.bytes(), 400), None);
    }
}

#[test]
fn the_largest_datagram_is_fragmented_and_its_reserved_bit_kept() {
    let mut build = fragmentable(65_507);
    build.flags_offset = 0x8000;
    let packet = build.bytes();
    assert_eq!(packet.len(), 65_535);
    let pieces = fragments(&packet, 68).unwrap();
    assert_eq!(pieces.len(), 65_515usize.div_ceil(48));
    assert_eq!(reassembled(&pieces), packet[20..]);
    assert!(pieces.iter().all(|piece| piece[6] & 0x80 != 0));
}

proptest! {
    #[test]
    fn fragments_reassemble_to_the_original(
        len in 1usize..3000, limit in 68usize..1600, start in 0u16..1000, more: bool,
    ) {
        let mut build = Build::v4(Transport::Raw { protocol: 253 }, payload(len));
        build.flags_offset = start | if more { 0x2000 } else { 0 };
        let packet = build.bytes();
        let pieces = fragments(&packet, limit).unwrap();
        let mut data = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= limit.max(packet.len()));
            let (offset, has_more, part) = opened(piece);
            prop_assert_eq!(offset, usize::from(start) * 8 + data.len());
            prop_assert_eq!(has_more, more || i + 1 < pieces.len());
            data.extend_from_slice(part);
        }
        prop_assert_eq!(&data, &build.payload);
        if packet.len() > limit {
            prop_assert!(pieces.len() >= 2 && pieces.iter().all(|piece| piece.len() <= limit));
        }
    }
}
