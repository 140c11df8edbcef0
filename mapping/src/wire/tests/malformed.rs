//! Rules on addresses, EID fields and encapsulation; what is refused and how it is called.

use super::*;
use crate::wire::vectors::*;

fn eid_of(mask_len: u8, eid: &str) -> Result<EidField, WireError> {
    MapRequest::parse(&request_for(mask_len, &octets(eid)))
        .map(|mut request| request.records.remove(0).eid)
}

fn locator_of(locator: &str) -> Result<EidRecord, WireError> {
    MapReply::parse(&reply_with_locator(&octets(locator))).map(|mut reply| reply.records.remove(0))
}

#[test]
fn cw_07_unknown_afi_drops_the_message() {
    assert_eq!(eid_of(0, "00 03 00 00"), Err(WireError::UnknownAfi(3)));
    assert_eq!(locator_of("00 10 00 00"), Err(WireError::UnknownAfi(16)));
    let in_list = "40 03 00 00 01 00 00 04 00 03 00 00";
    assert_eq!(locator_of(in_list), Err(WireError::UnknownAfi(3)));
}

#[test]
fn cw_08_cw_09_unrecognised_lcaf_locator_is_ignored() {
    let geo = "40 03 11 22 05 33 00 03 aa bb cc";
    let record = locator_of(geo).unwrap();
    assert_eq!(record.locators.len(), 1);
    assert!(record.is_negative());
    assert_eq!(record.action, Action::NativelyForward);
    let mut encoded = Vec::new();
    record.locators[0].address.encode(&mut encoded);
    assert_eq!(encoded, octets(geo));
}

/// `{192.0.2.1, JSON, 192.0.2.1}` as lispers.net writes telemetry: the Length of the JSON LCAF is `length`, its parts have 12 octets.
fn list_with_json(length: u8) -> String {
    let json = format!("40 03 00 00 0e 00 00 {length:02x} 00 04 7b 20 20 7d 00 01 c0 00 02 01");
    format!("40 03 00 00 01 00 00 1a 00 01 c0 00 02 01 {json}")
}

#[test]
fn cw_20_the_length_of_a_json_lcaf_is_its_parts_for_a_tolerated_peer_alone() {
    let mended = Tolerance { json_length: true, ..Tolerance::NONE };
    let well = reply_with_locator(&octets(&list_with_json(12)));
    let parsed = Message::parse(&well);
    let Ok(Message::MapReply(reply)) = &parsed else { panic!("{parsed:?}") };
    assert_eq!(reply.records[0].locators[0].address.rloc(), Some(ip("192.0.2.1")));
    assert_eq!(Message::parse_with(&well, mended), parsed);
    // Too short by two, as with an address; too long by two, as without one.
    for length in [10, 14] {
        let wrong = reply_with_locator(&octets(&list_with_json(length)));
        assert_eq!(Message::parse(&wrong), Err(WireError::JsonLength), "{length}");
        assert_eq!(Message::parse_with(&wrong, mended), parsed, "{length}");
        for end in 0..wrong.len() {
            assert!(Message::parse_with(&wrong[..end], mended).is_err(), "{length} {end}");
        }
    }
    // JSON that ends nowhere.
    let mut endless = reply_with_locator(&octets(&list_with_json(10)));
    let at = endless.len() - 12;
    endless[at] = 0xff;
    assert!(Message::parse_with(&endless, mended).is_err());
}

#[test]
fn cw_12_the_bit_of_an_encrypted_map_register_means_nothing_if_it_can_be_read() {
    let plain = octets(super::super::vectors::C10);
    let marked = with_bits(&plain, &[(2, 0x20)]);
    assert!(Message::parse(&plain).is_ok());
    assert_eq!(Message::parse(&marked), Message::parse(&plain));
    let encrypted = |octets: &[u8]| {
        let (header, rest) = octets.split_at(4);
        let rest: Vec<u8> = rest.iter().map(|octet| octet ^ 0xa5).collect();
        [header, &rest].concat()
    };
    assert_eq!(Message::parse(&encrypted(&marked)), Err(WireError::EncryptedRegister));
    let unmarked = Message::parse(&encrypted(&plain));
    assert!(matches!(unmarked, Err(WireError::Truncated(_))), "{unmarked:?}");
}

#[test]
fn cw_08_the_rest_of_the_record_is_used() {
    let mut message = reply_with_locator(&octets("40 03 00 00 05 00 00 00"));
    message[16] = 2;
    message.extend(octets("01 64 ff 00 00 01 00 01 c0 00 02 01"));
    let reply = MapReply::parse(&message).unwrap();
    let usable: Vec<IpAddr> = reply.records[0].usable_locators().map(|(rloc, _)| rloc).collect();
    assert_eq!(usable, [ip("192.0.2.1")]);
}

#[test]
fn cw_10_unrecognised_lcaf_eid_drops_the_message() {
    assert_eq!(eid_of(0, "40 03 00 00 09 00 00 00"), Err(WireError::UnknownEid(9)));
    let in_instance = "40 03 00 00 02 20 00 0c 00 00 00 2a 40 03 00 00 09 00 00 00";
    assert_eq!(eid_of(0, in_instance), Err(WireError::UnknownEid(9)));
    let in_list = "40 03 00 00 01 00 00 08 40 03 00 00 09 00 00 00";
    assert_eq!(eid_of(0, in_list), Err(WireError::UnknownEid(9)));
    let with_address = "40 03 00 00 01 00 00 0e 40 03 00 00 09 00 00 00 00 01 c0 00 02 01";
    assert!(eid_of(0, with_address).is_ok());
}

#[test]
fn cw_11_vendor_lcaf_drops_the_message() {
    let vendor = "40 03 00 00 ff 00 00 06 00 00 1b c5 00 00";
    assert_eq!(locator_of(vendor), Err(WireError::UnknownVendor(0x1bc5)));
    assert_eq!(eid_of(0, vendor), Err(WireError::UnknownVendor(0x1bc5)));
}

#[test]
fn cw_13_other_types_are_not_supported() {
    for kind in [0, 9, 10, 11, 12, 13, 14, 15] {
        let error = WireError::UnsupportedType(kind);
        assert_eq!(Message::parse(&[kind << 4, 0, 0, 0]), Err(error));
    }
    assert_eq!(MapReply::parse(&octets(C4)), Err(WireError::UnsupportedType(1)));
}

#[test]
fn cw_15_cw_16_known_lengths() {
    for (text, expected) in [
        ("00 00", Address::None),
        ("00 01 c0 00 02 01", address("192.0.2.1")),
        ("00 02 20010db8 00000000 00000000 00000001", address("2001:db8::1")),
        ("00 06 02 00 00 00 00 01", Address::Mac([2, 0, 0, 0, 0, 1])),
    ] {
        let record = locator_of(text).unwrap();
        assert_eq!(record.locators[0].address, expected);
        let whole = octets(text);
        for end in 0..whole.len() {
            let cut = MapReply::parse(&reply_with_locator(&whole[..end]));
            assert!(matches!(cut, Err(WireError::Truncated(_))));
        }
    }
}

#[test]
fn cw_17_mask_length_beyond_the_width() {
    let ipv4 = "00 01 c0 00 02 01";
    let ipv6 = "00 02 20010db8 00000000 00000000 00000001";
    let mac = "00 06 02 00 00 00 00 01";
    for (width, eid) in [(32, ipv4), (128, ipv6), (48, mac), (40, C18), (32, C17)] {
        assert!(eid_of(width, eid).is_ok(), "{eid}");
        assert_eq!(eid_of(width + 1, eid), Err(WireError::MaskLength(width + 1)), "{eid}");
    }
    let mut register = octets(C12);
    register[37] = 33;
    assert_eq!(Message::parse(&register), Err(WireError::MaskLength(33)));
}

#[test]
fn cw_18_bits_beyond_the_mask_are_zeroed() {
    for (mask_len, dirty, clean) in [
        (24, "00 01 cb 00 71 ff", "00 01 cb 00 71 00"),
        (0, "00 01 cb 00 71 ff", "00 01 00 00 00 00"),
        (
            33,
            "00 02 20010db8 ffffffff ffffffff ffffffff",
            "00 02 20010db8 80000000 00000000 00000000",
        ),
        (20, "00 06 ff ff ff ff ff ff", "00 06 ff ff f0 00 00 00"),
        (
            8,
            "40 03 00 00 02 20 00 0a 00 00 00 2a 00 01 cb 00 71 05",
            "40 03 00 00 02 20 00 0a 00 00 00 2a 00 01 cb 00 00 00",
        ),
    ] {
        let dirty = eid_of(mask_len, dirty).unwrap();
        assert_eq!(Ok(&dirty), eid_of(mask_len, clean).as_ref());
        let mut encoded = Vec::new();
        dirty.encode(&mut encoded);
        assert_eq!(encoded, octets(clean));
    }
}

#[test]
fn cw_19_counts_beyond_the_end() {
    for (vector, at) in [(C4, 3), (C6, 3), (C6, 16), (C12, 3), (C12, 36), (C13, 3)] {
        let mut message = octets(vector);
        message[at] = 255;
        assert!(matches!(Message::parse(&message), Err(WireError::Truncated(_))), "{vector}");
    }
}

#[test]
fn cw_20_lcaf_stays_in_its_length_and_nests_to_four() {
    let nested = |levels: usize| {
        let mut address = address("192.0.2.1");
        for _ in 0..levels {
            address = Address::Lcaf(Lcaf::AfiList(vec![address]));
        }
        let mut encoded = Vec::new();
        address.encode(&mut encoded);
        MapReply::parse(&reply_with_locator(&encoded))
    };
    assert_eq!(nested(4).unwrap().records[0].usable_locators().count(), 1);
    assert_eq!(nested(5), Err(WireError::Nesting));
    assert_eq!(nested(4000), Err(WireError::Nesting));
    let short = "40 03 00 00 02 20 00 09 00 00 00 2a 00 01 cb 00 71 00";
    assert_eq!(eid_of(24, short), Err(WireError::Truncated("IPv4 address")));
    let long = "40 03 00 00 02 20 00 0b 00 00 00 2a 00 01 cb 00 71 00 00";
    assert_eq!(eid_of(24, long), Err(WireError::Malformed("LCAF length")));
}

#[test]
fn cw_22_cw_23_locators_are_sorted_on_encode() {
    let addresses = [
        Address::Lcaf(Lcaf::Unknown { rsvd1: 0, flags: 0, kind: 5, rsvd2: 0, body: vec![] }),
        Address::Lcaf(Lcaf::AfiList(vec![address("192.0.2.1")])),
        Address::Name(b"a".to_vec()),
        address("2001:db8::1"),
        address("203.0.113.9"),
        Address::Lcaf(Lcaf::AfiList(vec![address("10.0.0.1")])),
        address("2001:db8::"),
        address("9.255.255.255"),
    ];
    let order = [7, 4, 6, 3, 2, 5, 1, 0];
    let locators =
        addresses.iter().map(|address| LocatorRecord::new(address.clone(), 1, 1)).collect();
    let record = EidRecord::new(prefix("203.0.113.0/24"), 1, locators);
    let mut message = Vec::new();
    MapReply::new(0, vec![record]).encode(&mut message);
    let parsed = MapReply::parse(&message).unwrap();
    let sorted: Vec<&Address> = parsed.records[0].locators.iter().map(|l| &l.address).collect();
    assert_eq!(sorted, order.map(|at: usize| &addresses[at]));
}

#[test]
fn cw_25_an_instance_id_above_24_bits_is_no_prefix() {
    let text = "40 03 00 00 02 20 00 0a 01 00 00 2a 00 01 cb 00 71 05";
    let eid = eid_of(24, text).unwrap();
    assert_eq!((eid.prefix(), eid.mask_len()), (None, 24));
    let largest = "40 03 00 00 02 20 00 0a 00 ff ff ff 00 01 cb 00 71 05";
    assert_eq!(
        eid_of(24, largest).unwrap().prefix(),
        Some(in_instance(InstanceId::MAX, "203.0.113.0/24"))
    );
}

#[test]
fn cw_27_a_range_of_instances() {
    let range = |mask_len, instance_id| {
        let address = Box::new(Address::None);
        EidField::new(Address::Lcaf(Lcaf::InstanceId { mask_len, instance_id, address }), 0)
    };
    assert_eq!(range(24, 0x0000_01ff), range(24, 0x0000_0100));
    assert_eq!(range(0, 0xffff_ffff), range(0, 0));
    assert_eq!(range(33, 0), Err(WireError::MaskLength(33)));
}

#[test]
fn cw_28_cw_30_names_end_with_their_first_nul() {
    let empty = locator_of("00 11 00").unwrap();
    assert_eq!(empty.locators[0].address, Address::Name(Vec::new()));
    assert_eq!(locator_of("00 11 61 62"), Err(WireError::Truncated("distinguished name")));
    let mut encoded = Vec::new();
    Address::Name(b"ab\0cd".to_vec()).encode(&mut encoded);
    assert_eq!(encoded, octets("00 11 61 62 00"));
}

#[test]
fn cw_31_a_name_in_a_list_ends_with_its_nul() {
    let list = "40 03 00 00 01 00 00 0b 00 11 61 00 00 01 c0 00 02 01 00";
    // The octet after the IPv4 address is no address, so the list is cut.
    assert_eq!(locator_of(list), Err(WireError::Truncated("AFI")));
    let list = "40 03 00 00 01 00 00 0a 00 11 61 00 00 01 c0 00 02 01";
    assert_eq!(locator_of(list).unwrap().usable_locators().count(), 1);
}

#[test]
fn probe_of_afi_0_is_kept() {
    let eid = eid_of(32, "00 00").unwrap();
    assert_eq!(eid, EidField::Other { address: Address::None, mask_len: 32 });
}

/// The ECM of TV-C5 with a Map-Request of one RLOC over IPv6.
fn ecm_v6() -> EncapsulatedControlMessage {
    EncapsulatedControlMessage::new(
        "[2001:db8::1]:50000".parse().unwrap(),
        "[2001:db8:1::1]:4342".parse().unwrap(),
        octets(C4),
    )
}

fn parse_ecm(octets: &[u8]) -> Result<EncapsulatedControlMessage, WireError> {
    EncapsulatedControlMessage::parse(octets)
}

fn encoded(ecm: &EncapsulatedControlMessage) -> Vec<u8> {
    let mut out = Vec::new();
    ecm.encode(&mut out);
    out
}

#[test]
fn ec_02_inner_version_is_read_after_the_authentication_data() {
    let mut security = vec![1, 0, 0, 2, 0, 24, 1, 1];
    security.extend([0x60; 24]);
    security.extend([0, 4, 0, 2]);
    let ecm = EncapsulatedControlMessage { security: Some(security), ..ecm_v6() };
    let message = encoded(&ecm);
    assert_eq!(message[0], 0x88);
    assert_eq!(parse_ecm(&message), Ok(ecm));
    for end in 0..message.len() {
        assert!(matches!(parse_ecm(&message[..end]), Err(WireError::Truncated(_))));
    }
    let mut unknown = message.clone();
    unknown[4] = 3;
    assert_eq!(parse_ecm(&unknown), Err(WireError::Malformed("ECM AD Type")));
    let mut other_version = octets(C5);
    other_version[4] = 0x55;
    assert_eq!(parse_ecm(&other_version), Err(WireError::Malformed("inner IP version")));
}

#[test]
fn ec_03_inner_checksums_are_verified() {
    for at in 4..24 {
        let mut message = octets(C5);
        message[at] ^= 0x01;
        assert!(parse_ecm(&message).is_err(), "octet {at} of the inner IPv4 header");
    }
    for mut message in [octets(C5), encoded(&ecm_v6())] {
        *message.last_mut().unwrap() ^= 1;
        assert_eq!(parse_ecm(&message), Err(WireError::Checksum("inner UDP checksum")));
    }
}

#[test]
fn ec_03_zero_inner_checksum_only_for_a_tolerated_peer() {
    let tolerance = Tolerance { zero_inner_checksum: true, ..Tolerance::default() };
    for (mut message, at) in [(octets(C5), 30), (encoded(&ecm_v6()), 50)] {
        message[at..at + 2].fill(0);
        assert_eq!(Message::parse(&message), Err(WireError::ZeroChecksum));
        assert!(Message::parse_with(&message, tolerance).is_ok());
    }
    let mut wrong = octets(C5);
    wrong[30] ^= 1;
    assert!(Message::parse_with(&wrong, tolerance).is_err());
}

#[test]
fn ec_03_the_checksum_sent_is_never_zero() {
    // Whatever 16-bit word completes the sum to 0xffff gives a computed checksum of zero.
    let mut ecm = ecm_v6();
    ecm.message.extend([0, 0]);
    let message = encoded(&ecm);
    let checksum = [message[50], message[51]];
    let end = ecm.message.len();
    ecm.message[end - 2..].copy_from_slice(&checksum);
    let message = encoded(&ecm);
    assert_eq!(message[50..52], [0xff, 0xff]);
    assert_eq!(parse_ecm(&message), Ok(ecm));
}

#[test]
fn ec_04_neither_inner_port_is_4341() {
    for (source, destination) in [(DATA_PORT, CONTROL_PORT), (CONTROL_PORT, DATA_PORT)] {
        let mut ecm = ecm_v6();
        ecm.source.set_port(source);
        ecm.destination.set_port(destination);
        assert_eq!(parse_ecm(&encoded(&ecm)), Err(WireError::DataPort));
    }
}

#[test]
fn ec_06_an_encapsulated_probe_is_refused() {
    let ecm = EncapsulatedControlMessage { message: octets(C21), ..ecm_v6() };
    assert_eq!(parse_ecm(&encoded(&ecm)), Err(WireError::EncapsulatedProbe));
    // The same bit is S-bit, not P-bit, in another message.
    let ecm = EncapsulatedControlMessage { message: octets(C15), ..ecm_v6() };
    assert_eq!(parse_ecm(&encoded(&ecm)), Ok(ecm));
}

#[test]
fn ec_07_flags_as_registered() {
    for (octet, ddt_originated, to_etr, to_map_server) in
        [(0x84, true, false, false), (0x82, false, true, false), (0x81, false, false, true)]
    {
        let ecm = EncapsulatedControlMessage { ddt_originated, to_etr, to_map_server, ..ecm_v6() };
        let message = encoded(&ecm);
        assert_eq!(message[0], octet);
        assert_eq!(parse_ecm(&message), Ok(ecm));
    }
}

#[test]
fn ec_08_ecm_in_ecm_is_refused() {
    let ecm = EncapsulatedControlMessage { message: octets(C5), ..ecm_v6() };
    assert_eq!(parse_ecm(&encoded(&ecm)), Err(WireError::NestedEncapsulation));
}

#[test]
fn ec_09_only_a_map_request_is_taken_from_an_ecm() {
    let ecm = EncapsulatedControlMessage { message: octets(C6), ..ecm_v6() };
    assert_eq!(ecm.map_request(), Err(WireError::UnsupportedType(2)));
}

#[test]
fn ec_10_inner_lengths_agree_with_the_octets() {
    let mut trailing = octets(C5);
    trailing.extend([0xaa; 3]);
    assert_eq!(parse_ecm(&trailing), parse_ecm(&octets(C5)));
    let mut trailing = encoded(&ecm_v6());
    trailing.extend([0xaa; 3]);
    assert_eq!(parse_ecm(&trailing), Ok(ecm_v6()));
    // UDP length of more than the IP packet, of less than its header.
    for (length, error) in [
        (41, WireError::Truncated("inner UDP datagram")),
        (7, WireError::Malformed("inner UDP length")),
    ] {
        let mut message = octets(C5);
        message[29] = length;
        message.extend([0; 8]);
        assert_eq!(parse_ecm(&message), Err(error));
    }
    let mut other_protocol = encoded(&ecm_v6());
    other_protocol[10] = 6;
    assert_eq!(parse_ecm(&other_protocol), Err(WireError::Malformed("inner IP protocol")));
}

#[test]
fn cw_19_lisp_sec_data_fits_its_lengths_exactly() {
    let ecm = octets(
        "01 00 0002 0018 01 01 0000000000000000 00112233445566778899aabbccddeeff \
         0020 0002 01 00 0002 00 18 0001 cb007100 00000000 00000000 00000000 00000000",
    );
    let reply = [&[1, 0, 0, 0], &ecm[32..], &octets("0014 0002"), &[0; 16]].concat();
    assert!(EcmSecurity::parse(&ecm).is_ok() && ReplySecurity::parse(&reply).is_ok());
    for end in 0..ecm.len() {
        assert!(EcmSecurity::parse(&ecm[..end]).is_err(), "{end}");
    }
    for end in 0..reply.len() {
        assert!(ReplySecurity::parse(&reply[..end]).is_err(), "{end}");
    }
    assert!(EcmSecurity::parse(&[ecm.as_slice(), &[0]].concat()).is_err());
    assert!(ReplySecurity::parse(&[reply.as_slice(), &[0]].concat()).is_err());
    for (at, octet, field) in
        [(0, 2, "ECM AD Type"), (5, 16, "OTK Length"), (33, 3, "EID-AD Length")]
    {
        let mut changed = ecm.clone();
        changed[at] = octet;
        assert_eq!(EcmSecurity::parse(&changed), Err(WireError::Malformed(field)));
    }
    for (at, octet, field) in [(0, 2, "MR AD Type"), (37, 3, "PKT-AD Length")] {
        let mut changed = reply.clone();
        changed[at] = octet;
        assert_eq!(ReplySecurity::parse(&changed), Err(WireError::Malformed(field)));
    }
    // More records than the EID-AD has room for: it cannot be left.
    let mut changed = reply;
    changed[8] = 9;
    assert!(ReplySecurity::parse(&changed).is_err());
}

#[test]
fn ps_02_an_xtr_id_alone_only_from_a_tolerated_peer() {
    let mut message = octets(C4);
    message[1] |= 0x10;
    message.extend([0xab; 16]);
    assert_eq!(MapRequest::parse(&message), Err(WireError::Truncated("Site-ID")));
    let request = MapRequest::parse_with(&message, Tolerance::LISPERS_NET).unwrap();
    let xtr_id = u128::from_be_bytes([0xab; 16]);
    assert_eq!(request.identity, Some(XtrIdentity { xtr_id, site_id: 0 }));
    message.pop();
    assert!(MapRequest::parse_with(&message, Tolerance::LISPERS_NET).is_err());
}

#[test]
fn au_12_a_long_authentication_data_is_kept() {
    for len in [0, 20, 32, 33, 300] {
        let mac: Vec<u8> = (0..len).map(|octet| octet as u8).collect();
        let field = MacField::from(mac.as_slice());
        assert_eq!((&*field, MacField::zeroed(len).len()), (mac.as_slice(), len));
        let mut register = MapRegister::parse(&octets(super::super::vectors::C10)).unwrap();
        register.authentication.mac = field;
        let mut encoded = Vec::new();
        register.encode(&mut encoded);
        assert_eq!(MapRegister::parse(&encoded), Ok(register));
    }
}
