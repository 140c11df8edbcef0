//! Packets with octets changed at random go through everything: nothing panics, nothing is altered that should not be.

use super::super::{
    Fragments, IcmpError, Inner, MAX_HEADERS_LEN, Marking, OuterFields, Segments, checksum,
    decapsulate, icmp, lisp,
};
use super::coalesce::{cut, written};
use super::segment::virtio;
use super::support::{Build, payload, tcp, udp};
use proptest::prelude::*;

/// A valid packet with some octets of its headers replaced, perhaps cut short or padded.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((0usize..90, any::<u8>()), 0..4);
    (any::<bool>(), any::<bool>(), 0usize..200, changes, 0usize..300).prop_map(
        |(is_v6, is_udp, len, changes, end)| {
            let transport = if is_udp { udp() } else { tcp(1000, 0x10) };
            let mut packet = Build::family(is_v6, transport, payload(len)).bytes();
            for (at, value) in changes {
                if let Some(octet) = packet.get_mut(at) {
                    *octet = value;
                }
            }
            if end > 150 {
                packet.resize(end, 0xaa);
            }
            packet
        },
    )
}

/// The packet without what follows it, and without the ID if DF makes it meaningless.
fn canonical(packet: &[u8]) -> Vec<u8> {
    let Ok(inner) = Inner::parse(packet) else { return packet.to_vec() };
    let mut packet = packet[..inner.total_len].to_vec();
    if packet[0] >> 4 == 4 && inner.dont_fragment {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

proptest! {
    #[test]
    fn nothing_panics(
        packet in damaged(), gso_type: u8, gso_size in 1usize..3000, limit in 0usize..300,
        csum_start: u16, csum_offset: u16, ttl: u8, tos: u8,
    ) {
        let _ = lisp::parse(&packet);
        let mut packet = packet;
        let _ = checksum::complete(&mut packet.clone(), csum_start % 300, csum_offset % 300);
        let Ok(mut inner) = Inner::parse(&packet) else { return Ok(()) };
        lisp::nesting(&packet, &inner);
        let mut scratch = [0; MAX_HEADERS_LEN];
        for gso_type in [gso_type, 1, 4, 5] {
            let cut = Segments::new(&packet, &inner, &virtio(gso_type, gso_size));
            let Ok(mut segments) = cut else { continue };
            while let Some(piece) = segments.next_into(&packet, &mut scratch) {
                prop_assert!(piece.payload.end <= inner.total_len);
            }
        }
        if let Some(mut fragments) = Fragments::new(&packet, &inner, limit) {
            while let Some(piece) = fragments.next_into(&packet, &mut scratch) {
                prop_assert!(piece.total_len() <= limit);
            }
        }
        for error in [IcmpError::TooBig(1400), IcmpError::HopLimitExceeded] {
            icmp::may_answer(error, &inner, &packet);
            icmp::build(error, &inner, &packet);
        }
        let outer = OuterFields { ttl, tos };
        if decapsulate::apply(&mut packet, &mut inner, outer, Marking::default()).is_ok() {
            prop_assert_eq!(Inner::parse(&packet), Ok(inner));
        }
    }

    #[test]
    fn a_coalescer_alters_nothing_but_meaningless_ids(
        packets in proptest::collection::vec(damaged(), 1..6),
        good in proptest::collection::vec(0usize..3, 0..6),
    ) {
        let mut all: Vec<Vec<u8>> =
            packets.into_iter().filter(|packet| Inner::parse(packet).is_ok()).collect();
        let mut sequence = 1000;
        for place in good {
            let len = 100 * (place + 1);
            let packet = Build::v4(tcp(sequence, 0x10), payload(len)).bytes();
            all.insert(place.min(all.len()), packet);
            sequence += len as u32;
        }
        let mut before: Vec<_> = all.iter().map(|packet| canonical(packet)).collect();
        let mut after: Vec<_> =
            cut(&written(&all)).iter().map(|packet| canonical(packet)).collect();
        // Packets of other flows may overtake.
        before.sort();
        after.sort();
        prop_assert_eq!(before, after);
    }
}
