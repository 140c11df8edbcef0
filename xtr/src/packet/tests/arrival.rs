use super::support::{Build, assert_intact, payload, tcp, udp};
use crate::drops::DropReason;
use crate::packet::VirtioNetHeader;
use crate::packet::arrival::{ETHERNET_LEN, take};
use zerocopy::IntoBytes;

fn frame(virtio: VirtioNetHeader, packet: &[u8]) -> Vec<u8> {
    [virtio.as_bytes(), &[0xee; ETHERNET_LEN], packet].concat()
}

#[test]
fn en_05_a_hop_is_taken_and_the_rest_stays() {
    for is_v6 in [false, true] {
        for transport in [udp(), tcp(7, 0x10)] {
            let mut build = Build::family(is_v6, transport, payload(100));
            build.ttl = 64;
            let mut taken = frame(VirtioNetHeader::default(), &build.bytes());
            build.ttl = 63;
            let arrived = take(&mut taken).expect("a good packet");
            assert_eq!(arrived[..VirtioNetHeader::LEN], [0; VirtioNetHeader::LEN]);
            assert_eq!(arrived[VirtioNetHeader::LEN..], build.bytes());
            assert_intact(&arrived[VirtioNetHeader::LEN..]);
        }
    }
}

#[test]
fn en_28_offsets_count_from_the_packet() {
    let packet = Build::v4(udp(), payload(100)).bytes();
    let virtio = VirtioNetHeader {
        flags: VirtioNetHeader::NEEDS_CSUM,
        gso_type: VirtioNetHeader::GSO_UDP_L4,
        hdr_len: 42.into(),
        gso_size: 50.into(),
        csum_start: 34.into(),
        csum_offset: 6.into(),
    };
    let mut taken = frame(virtio, &packet);
    let arrived = take(&mut taken).expect("a good packet");
    let expected = VirtioNetHeader { hdr_len: 28.into(), csum_start: 20.into(), ..virtio };
    assert_eq!(arrived[..VirtioNetHeader::LEN], *expected.as_bytes());
}

#[test]
fn en_05_the_last_hop_ends_here() {
    for is_v6 in [false, true] {
        for ttl in [0, 1] {
            let mut build = Build::family(is_v6, udp(), payload(10));
            build.ttl = ttl;
            let mut taken = frame(VirtioNetHeader::default(), &build.bytes());
            assert_eq!(take(&mut taken).unwrap_err(), DropReason::HopLimitExceeded);
        }
    }
}

#[test]
fn a_broken_header_is_refused() {
    let packet = Build::v4(udp(), payload(10)).bytes();
    for bit in 0..160 {
        let mut broken = packet.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let mut taken = frame(VirtioNetHeader::default(), &broken);
        assert!(take(&mut taken).is_err(), "bit {bit}");
    }
    let whole = frame(VirtioNetHeader::default(), &packet);
    for len in 0..whole.len() - 18 {
        assert_eq!(take(&mut whole[..len].to_vec()).unwrap_err(), DropReason::InnerMalformed);
    }
}
