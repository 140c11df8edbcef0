use super::super::{Inner, lisp};
use super::support::{Build, Transport, payload, udp};
use crate::drops::DropReason::{KeyIdUnknown, LispHeaderTruncated};
use crate::marks::{HeaderMarks, StatusBits, Tag};
use mapping::eid::{InstanceId, MapVersion};

fn datagram(header: [u8; 8]) -> Vec<u8> {
    let mut datagram = header.to_vec();
    datagram.extend([0; 20]);
    datagram
}

fn instance(value: u32) -> InstanceId {
    InstanceId::new(value).unwrap()
}

#[test]
fn dh_01_the_instance_flag_is_bit_4() {
    assert_eq!(lisp::encode(instance(42)), [0x08, 0, 0, 0, 0, 0, 42, 0]);
}

#[test]
fn dh_02_dh_05_dh_06_dh_08_dh_09_dh_14_nothing_but_the_instance_is_ever_sent() {
    for value in [1, 42, 0x0012_3456, InstanceId::MAX] {
        let header = lisp::encode(instance(value));
        assert_eq!(header[..4], [0x08, 0, 0, 0]);
        assert_eq!(header[4..7], value.to_be_bytes()[1..]);
        // The low 8 bits are Locator-Status-Bits.
        assert_eq!(header[7], 0);
    }
}

#[test]
fn gp_02_gp_04_the_p_bit_of_gpe_is_never_sent_and_the_header_is_that_of_rfc_9300() {
    const P: u8 = 0x04;
    let tags = [
        Tag::None,
        Tag::Nonce { nonce: 0x00ff_ffff, request: true },
        Tag::Versions {
            source: MapVersion::from_bits(0xfff),
            destination: MapVersion::from_bits(0xfff),
        },
    ];
    for tag in tags {
        for status_bits in [None, Some(StatusBits::of_word(u32::MAX))] {
            for value in [0, 42, InstanceId::MAX] {
                let header =
                    lisp::encode_marked(instance(value), &HeaderMarks { tag, status_bits });
                assert_eq!(header[0] & P, 0);
                assert_eq!(lisp::parse(&datagram(header)), Ok(instance(value)));
                assert_eq!(lisp::marks(&datagram(header)).tag, tag);
            }
        }
    }
}

#[test]
fn dh_10_en_27_instance_0_is_sent_as_all_zero() {
    assert_eq!(lisp::encode(InstanceId::DEFAULT), [0; 8]);
}

#[test]
fn dh_03_dh_04_dh_06_dh_07_dh_09_dh_10_dh_11_dh_15_other_flags_change_nothing() {
    for flags in 0u8..=255 {
        if flags & 0x03 != 0 {
            continue;
        }
        let parsed = lisp::parse(&datagram([flags, 0xde, 0xad, 0xbe, 0, 0, 42, 0xff]));
        let expected = if flags & 0x08 != 0 { instance(42) } else { InstanceId::DEFAULT };
        assert_eq!(parsed, Ok(expected), "{flags:#x}");
    }
}

#[test]
fn dh_12_an_encrypted_packet_is_refused() {
    for key_id in 1..=3 {
        let refused = lisp::parse(&datagram([key_id | 0x08, 0, 0, 0, 0, 0, 42, 0]));
        assert_eq!(refused, Err(KeyIdUnknown));
    }
}

#[test]
fn de_05_a_datagram_without_room_for_an_inner_header_is_truncated() {
    let whole = datagram(lisp::encode(instance(42)));
    for len in 0..whole.len() {
        assert_eq!(lisp::parse(&whole[..len]), Err(LispHeaderTruncated), "{len}");
    }
    assert_eq!(lisp::parse(&whole), Ok(instance(42)));
}

#[test]
fn de_17_without_the_instance_flag_the_packet_belongs_to_instance_0() {
    let parsed = lisp::parse(&datagram([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
    assert_eq!(parsed, Ok(InstanceId::DEFAULT));
}

#[test]
fn en_27_every_instance_survives_the_round_trip() {
    for value in [0, 1, 255, 256, 0x00ab_cdef, InstanceId::MAX] {
        let parsed = lisp::parse(&datagram(lisp::encode(instance(value))));
        assert_eq!(parsed, Ok(instance(value)));
    }
}

/// `packet` behind a LISP header, in UDP to port 4341.
fn encapsulated(packet: &[u8]) -> Vec<u8> {
    let mut body = lisp::encode(InstanceId::DEFAULT).to_vec();
    body.extend_from_slice(packet);
    Build::v6(Transport::Udp { ports: (50000, 4341) }, body).bytes()
}

#[test]
fn en_23_de_24_nested_headers_are_counted_up_to_two() {
    let plain = Build::v4(udp(), payload(30)).bytes();
    let once = encapsulated(&plain);
    let twice = encapsulated(&once);
    let thrice = encapsulated(&twice);
    for (packet, expected) in [(plain, 0), (once, 1), (twice, 2), (thrice, lisp::MAX_NESTING)] {
        let inner = Inner::parse(&packet).unwrap();
        assert_eq!(lisp::nesting(&packet, &inner), expected);
        assert_eq!(lisp::is_data(&inner), expected > 0);
    }
}

#[test]
fn en_23_a_cut_short_nested_packet_counts_once() {
    let packet = Build::v4(Transport::Udp { ports: (50000, 4341) }, vec![0; 3]).bytes();
    assert_eq!(lisp::nesting(&packet, &Inner::parse(&packet).unwrap()), 1);
}
