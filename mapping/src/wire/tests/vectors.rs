//! Every vector, decoded and encoded.

use super::*;
use crate::wire::vectors::*;

const NONCE: u64 = 0x0102_0304_0506_0708;
const REGISTER_NONCE: u64 = 0x1122_3344_5566_7788;

/// The vector means `message`, and `message` is encoded as the vector.
fn assert_vector(vector: &str, message: &Message) {
    let vector = octets(vector);
    assert_eq!(Message::parse(&vector).as_ref(), Ok(message));
    assert_eq!(message.to_vec(), vector);
}

fn c4() -> MapRequest {
    MapRequest {
        pitr: true,
        source_eid: address("198.51.100.7"),
        ..MapRequest::new(
            NONCE,
            vec![address("192.0.2.1")],
            vec![RequestedEid::new(prefix("203.0.113.5/32"))],
        )
    }
}

fn local(text: &str) -> LocatorRecord {
    LocatorRecord { local: true, ..LocatorRecord::new(ip(text), 1, 100) }
}

/// The record that the Map-Register vectors share.
fn registered() -> EidRecord {
    EidRecord {
        authoritative: true,
        ..EidRecord::new(prefix("203.0.113.0/24"), 1440, vec![local("192.0.2.129")])
    }
}

/// Key ID, Algorithm ID and MAC as they stand in the vector; what the MAC is worth is tested in `auth`.
fn authentication(vector: &str) -> AuthenticationData {
    let vector = octets(vector);
    let length = usize::from(vector[15]);
    AuthenticationData {
        key_id: vector[12],
        algorithm_id: vector[13],
        mac: vector[16..16 + length].into(),
    }
}

fn register(vector: &str) -> MapRegister {
    MapRegister {
        proxy_reply: true,
        security_capable: false,
        eid_notify: false,
        use_ttl: false,
        merge: false,
        want_map_notify: true,
        nonce: REGISTER_NONCE,
        authentication: authentication(vector),
        records: vec![registered()],
        identity: None,
    }
}

fn notify(vector: &str) -> MapNotify {
    MapNotify {
        nonce: REGISTER_NONCE,
        authentication: authentication(vector),
        records: vec![registered()],
        identity: None,
    }
}

#[test]
fn tv_c4_map_request_of_a_pitr() {
    assert_vector(C4, &Message::MapRequest(c4()));
}

#[test]
fn tv_c5_encapsulated_map_request() {
    let port = |address| (ip(address), CONTROL_PORT).into();
    let ecm = EncapsulatedControlMessage::new(port("192.0.2.1"), port("203.0.113.5"), octets(C4));
    assert_eq!(ecm.map_request(), Ok(c4()));
    assert_vector(C5, &Message::Encapsulated(ecm));
}

#[test]
fn tv_c6_map_reply() {
    let record = EidRecord {
        authoritative: true,
        ..EidRecord::new(
            prefix("203.0.113.0/24"),
            1440,
            vec![
                LocatorRecord { weight: 75, ..local("192.0.2.129") },
                LocatorRecord::new(ip("2001:db8:b::1"), 1, 25),
            ],
        )
    };
    assert!(!record.is_negative());
    assert_vector(C6, &Message::MapReply(MapReply::new(NONCE, vec![record])));
}

#[test]
fn tv_c7_negative_map_reply() {
    let record = EidRecord::negative(prefix("198.51.100.0/24"), Action::NativelyForward, 15);
    assert!(record.is_negative());
    assert_vector(C7, &Message::MapReply(MapReply::new(NONCE, vec![record])));
}

#[test]
fn tv_c8_to_c12_map_registers() {
    for vector in [C8, C9, C10, C11, C12] {
        assert_vector(vector, &Message::MapRegister(register(vector)));
    }
}

#[test]
fn tv_c13_map_notify() {
    assert_vector(C13, &Message::MapNotify(notify(C13)));
}

#[test]
fn tv_c14_map_notify_ack() {
    assert_vector(C14, &Message::MapNotifyAck(MapNotifyAck(notify(C14))));
}

#[test]
fn tv_c15_c16_map_registers_with_identity() {
    for vector in [C15, C16] {
        let identity =
            Some(XtrIdentity { xtr_id: 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f, site_id: 100 });
        assert_vector(vector, &Message::MapRegister(MapRegister { identity, ..register(vector) }));
    }
}

#[test]
fn tv_c17_cw_24_eid_in_an_instance() {
    let eid = in_instance(42, "203.0.113.0/24");
    let field = octets(C17);
    let message = request_for(24, &field);
    let request = MapRequest::parse(&message).unwrap();
    assert_eq!(request.records[0].eid.prefix(), Some(eid));
    let mut encoded = Vec::new();
    request.encode(&mut encoded);
    assert_eq!(encoded, message);
    assert_eq!(Address::from(eid).eid(), Some(eid.first()));
}

#[test]
fn tv_c18_distinguished_name_eid() {
    let message = request_for(40, &octets(C18));
    let request = MapRequest::parse(&message).unwrap();
    let name = Address::Name(b"ietf".to_vec());
    assert_eq!(request.records[0].eid, EidField::Other { address: name, mask_len: 40 });
    let name = NamePrefix::whole(InstanceId::DEFAULT, "ietf").unwrap();
    assert_eq!(request.records[0].eid.name().as_ref(), Some(&name));
    assert_eq!(EidField::from(&name), request.records[0].eid);
    let mut encoded = Vec::new();
    request.encode(&mut encoded);
    assert_eq!(encoded, message);
}

#[test]
fn cw_24_a_name_in_an_instance() {
    let name = NamePrefix::whole(InstanceId::new(1000).unwrap(), "host-1").unwrap();
    let field = EidField::from(&name);
    assert_eq!((field.name(), field.mask_len(), field.prefix()), (Some(name), 56, None));
    let message = request_for(56, &octets("4003 0000 02 20 000d 000003e8 0011 686f73742d31 00"));
    let request = MapRequest::parse(&message).unwrap();
    assert_eq!(request.records[0].eid, field);
    assert_eq!(EidField::from(prefix("203.0.113.0/24")).name(), None);
}

#[test]
fn cw_27_a_range_of_instances_on_the_wire() {
    let range = InstanceRange::new(0x100, 24).unwrap();
    let message = request_for(0, &octets("4003 0000 02 18 0006 000001ff 0000"));
    let request = MapRequest::parse(&message).unwrap();
    assert_eq!(request.records[0].eid, EidField::from(range));
    assert_eq!(request.records[0].eid.instance_range(), Some(range));
    assert_eq!(EidField::from(prefix("203.0.113.0/24")).instance_range(), None);
}

#[test]
fn eids_are_shown_as_operators_write_them() {
    let shown = |mask_len, eid: &str| {
        let request = MapRequest::parse(&request_for(mask_len, &octets(eid))).unwrap();
        request.records[0].eid.to_string()
    };
    for (mask_len, eid, expected) in [
        (24, "0001 cb007100", "203.0.113.0/24"),
        (24, "4003 0000 02 20 000a 0000002a 0001 cb007100", "[42]203.0.113.0/24"),
        (40, "0011 6965746600", "'ietf'"),
        (56, "4003 0000 02 20 000d 000003e8 0011 686f73742d31 00", "[1000]'host-1'"),
        (0, "4003 0000 02 18 0006 00000100 0000", "[256/24]"),
        (48, "0006 020000000001", "02:00:00:00:00:01/48"),
        (0, "4003 0000 01 00 000a 0001 cb007100 0011 6100", "{203.0.113.0, 'a'}/0"),
        (32, "0000", "none/32"),
    ] {
        assert_eq!(shown(mask_len, eid), expected);
    }
}

#[test]
fn dd_02_dd_03_tv_c23_map_referral() {
    let node = LocatorRecord::new(ip("192.0.2.101"), 1, 100);
    let record = ReferralRecord {
        authoritative: true,
        referrals: vec![node],
        ..ReferralRecord::new(prefix("2001:db8::/32"), ReferralAction::MsReferral, 1440)
    };
    assert_vector(C23, &Message::MapReferral(MapReferral { nonce: NONCE, records: vec![record] }));
}

#[test]
fn dd_04_dd_09_every_action_and_the_incomplete_bit_survive_with_and_without_referrals() {
    for code in 0..8 {
        let action = ReferralAction::from_code(code);
        assert_eq!(action.code(), code);
        for referrals in [Vec::new(), vec![local("192.0.2.1"), local("2001:db8::1")]] {
            let record = ReferralRecord {
                incomplete: true,
                map_version: 0xabc,
                referrals,
                ..ReferralRecord::new(prefix("203.0.113.0/24"), action, 15)
            };
            let message = MapReferral { nonce: NONCE, records: vec![record] };
            let octets = Message::MapReferral(message.clone()).to_vec();
            assert_eq!(octets[18], code << 5 | 0x08);
            assert_eq!(MapReferral::parse(&octets), Ok(message));
        }
    }
}

#[test]
fn dd_20_signatures_follow_the_record() {
    let signature = ReferralSignature {
        original_ttl_minutes: 1440,
        expiration: 0x6b49_d200,
        inception: 0x6b48_8080,
        key_tag: 0x1234,
        algorithm: 2,
        signature: vec![0xaa; 5],
    };
    let record = ReferralRecord {
        signatures: vec![signature; 2],
        ..ReferralRecord::new(prefix("203.0.113.0/24"), ReferralAction::MsAck, 1440)
    };
    let message = MapReferral { nonce: NONCE, records: vec![record.clone(), record] };
    let encoded = Message::MapReferral(message.clone()).to_vec();
    let section = octets("000005a0 6b49d200 6b488080 1234 0005 02 000000 aaaaaaaaaa");
    assert_eq!(encoded[20] >> 4, 2);
    assert_eq!(encoded[28..53], section);
    assert_eq!(MapReferral::parse(&encoded), Ok(message));
    for end in 0..encoded.len() {
        assert!(matches!(MapReferral::parse(&encoded[..end]), Err(WireError::Truncated(_))));
    }
}

#[test]
fn se_02_the_authentication_data_of_an_itr() {
    let security = EcmSecurity {
        requested_hmac: 2,
        key_id: 1,
        wrapping_id: 2,
        preamble: 0xd455_0f73_43fc_2d12,
        otk: octets("9ae0641a2ab368a23106ff3fc35c792a").try_into().unwrap(),
        eid_ad: EidAd::request(2),
    };
    let expected =
        octets("01 00 0002 0018 01 02 d4550f7343fc2d12 9ae0641a2ab368a23106ff3fc35c792a 0004 0002");
    assert_eq!(security.to_vec(), expected);
    assert_eq!(EcmSecurity::parse(&expected), Ok(security.clone()));
    let ecm = EncapsulatedControlMessage {
        security: Some(expected),
        ..EncapsulatedControlMessage::parse(&octets(C5)).unwrap()
    };
    let parsed = Message::parse(&Message::Encapsulated(ecm.clone()).to_vec());
    assert_eq!(parsed, Ok(Message::Encapsulated(ecm)));
    assert!(!format!("{security:?}").contains("154"), "the key is not printed");
}

#[test]
fn se_12_se_16_the_authentication_data_of_a_reply() {
    let body = EidAdBody {
        etr_cant_sign: true,
        hmac_id: 2,
        prefixes: vec![prefix("203.0.113.0/24").into(), prefix("2001:db8::/32").into()],
        hmac: [0xee; 16].as_slice().into(),
    };
    let security = ReplySecurity {
        eid_ad: EidAd { kdf_id: 2, body: Some(body) },
        packet_hmac_id: 1,
        packet_hmac: [0xdd; 12].as_slice().into(),
    };
    let expected = octets(
        "01 000000 0034 0002 02 80 0002 \
         00 18 0001 cb007100 00 20 0002 20010db8 00000000 00000000 00000000 \
         eeeeeeee eeeeeeee eeeeeeee eeeeeeee 0010 0001 dddddddd dddddddd dddddddd",
    );
    assert_eq!(security.to_vec(), expected);
    assert_eq!(ReplySecurity::parse(&expected), Ok(security));
    let reply = MapReply { security: Some(expected), ..MapReply::new(NONCE, vec![registered()]) };
    let parsed = Message::parse(&Message::MapReply(reply.clone()).to_vec());
    assert_eq!(parsed, Ok(Message::MapReply(reply)));
}

#[test]
fn tv_c20_smr() {
    let smr = MapRequest {
        smr: true,
        dont_map_reply: true,
        source_eid: address("203.0.113.0"),
        ..MapRequest::new(
            0xa1a2_a3a4_a5a6_a7a8,
            vec![address("192.0.2.129")],
            vec![RequestedEid::new(prefix("198.51.100.7/32"))],
        )
    };
    assert_vector(C20, &Message::MapRequest(smr));
}

#[test]
fn tv_c21_rloc_probe() {
    let probe = MapRequest {
        probe: true,
        pitr: true,
        ..MapRequest::new(
            0xb1b2_b3b4_b5b6_b7b8,
            vec![address("192.0.2.1")],
            vec![RequestedEid::new(prefix("203.0.113.0/24"))],
        )
    };
    assert_vector(C21, &Message::MapRequest(probe));
}

#[test]
fn tv_c22_rloc_probe_reply() {
    let locator = LocatorRecord { probed: true, ..local("192.0.2.129") };
    let record = EidRecord { locators: vec![locator], ..registered() };
    let reply = MapReply { probe: true, ..MapReply::new(0xb1b2_b3b4_b5b6_b7b8, vec![record]) };
    assert_vector(C22, &Message::MapReply(reply));
}

#[test]
fn tv_r14_rq_04_irc_is_the_number_of_itr_rlocs_minus_one() {
    for (irc, number) in [(0, 1), (1, 2), (31, 32)] {
        let rlocs: Vec<Address> =
            (0..number).map(|last| IpAddr::from([192, 0, 2, last]).into()).collect();
        let request = MapRequest { itr_rlocs: rlocs.clone(), ..c4() };
        let mut message = Vec::new();
        request.encode(&mut message);
        assert_eq!(message[2] & 0x1f, irc);
        assert_eq!(MapRequest::parse(&message).unwrap().itr_rlocs, rlocs);
    }
}

#[test]
fn rq_04_no_more_than_32_itr_rlocs_and_no_fewer_than_one_are_encoded() {
    let encode = |itr_rlocs| {
        let mut message = Vec::new();
        MapRequest { itr_rlocs, ..c4() }.encode(&mut message);
        MapRequest::parse(&message).unwrap()
    };
    assert_eq!(encode(vec![address("192.0.2.1"); 40]).itr_rlocs.len(), 32);
    let none = encode(Vec::new());
    assert_eq!(none.itr_rlocs, [Address::None]);
    assert_eq!(none.rlocs().count(), 0);
}

#[test]
fn rp_03_the_itr_rloc_of_a_family() {
    let itr_rlocs = vec![
        address("2001:db8::1"),
        Address::Lcaf(Lcaf::AfiList(vec![Address::Name(b"a".to_vec()), address("192.0.2.1")])),
        address("192.0.2.2"),
    ];
    let request = MapRequest { itr_rlocs, ..c4() };
    assert_eq!(request.itr_rloc_for(ip("10.0.0.1")), Some(ip("192.0.2.1")));
    assert_eq!(request.itr_rloc_for(ip("::1")), Some(ip("2001:db8::1")));
    let v6_only = MapRequest { itr_rlocs: vec![address("2001:db8::1")], ..request };
    assert_eq!(v6_only.itr_rloc_for(ip("10.0.0.1")), None);
}

#[test]
fn cw_12_reserved_bits_are_ignored() {
    let record = |at: usize| [(at + 6, 0x0f), (at + 7, 0xff), (at + 8, 0xf0)];
    let locator = |at: usize| [(at + 4, 0xff), (at + 5, 0xf8)];
    let request = vec![(1, 0x2f), (2, 0x80), (24, 0x7f)];
    let mut reply = vec![(0, 0x01), (1, 0xff), (2, 0xff)];
    reply.extend(record(12).into_iter().chain(locator(28)).chain(locator(40)));
    let mut register = vec![(0, 0x01), (1, 0xff), (2, 0xe2)];
    register.extend(record(32).into_iter().chain(locator(48)));
    let mut notify = vec![(0, 0x0f), (1, 0xff), (2, 0xff)];
    notify.extend(record(32).into_iter().chain(locator(48)));
    // R and N of NAT traversal are in the second octet.
    let ecm = vec![(1, 0x9f), (2, 0xff), (3, 0xff)];
    for (vector, reserved) in [
        (C4, &request),
        (C5, &ecm),
        (C6, &reply),
        (C12, &register),
        (C13, &notify),
        (C14, &notify),
        (C15, &register),
    ] {
        let clean = octets(vector);
        let message = Message::parse(&clean);
        assert!(message.is_ok());
        assert_eq!(Message::parse(&with_bits(&clean, reserved)), message);
    }
    let eid = octets(C17);
    assert_eq!(
        MapRequest::parse(&request_for(24, &with_bits(&eid, &[(2, 0xff), (3, 0xff)]))),
        MapRequest::parse(&request_for(24, &eid))
    );
}

#[test]
fn cw_19_a_message_cut_anywhere_is_refused() {
    for vector in [C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15, C16, C20, C21, C22] {
        let whole = octets(vector);
        for end in 0..whole.len() {
            let cut = Message::parse(&whole[..end]);
            assert!(matches!(cut, Err(WireError::Truncated(_))), "{end} of {vector}: {cut:?}");
        }
    }
}

#[test]
fn rp_14_act_is_zero_with_locators() {
    let record = EidRecord { action: Action::Drop, ..registered() };
    let mut message = Vec::new();
    MapReply::new(NONCE, vec![record]).encode(&mut message);
    assert_eq!(message[18] >> 5, 0);
    for code in 0..8 {
        assert_eq!(Action::from_code(code).code(), code);
    }
}

#[test]
fn rq_19_map_data_is_parsed_only_with_the_m_bit() {
    let request = MapRequest { map_data: Some(registered()), ..c4() };
    let mut message = Vec::new();
    request.encode(&mut message);
    assert_eq!(message[0], 0x14);
    assert_eq!(MapRequest::parse(&message), Ok(request));
    message[0] = 0x10;
    assert_eq!(MapRequest::parse(&message), Ok(c4()));
}

#[test]
fn rq_03_several_records_are_parsed() {
    let records: Vec<RequestedEid> =
        ["203.0.113.5/32", "2001:db8::/32"].map(|text| RequestedEid::new(prefix(text))).into();
    let request = MapRequest { records, ..c4() };
    let mut message = Vec::new();
    request.encode(&mut message);
    assert_eq!(MapRequest::parse(&message), Ok(request));
}

#[test]
fn ps_01_ps_02_subscription_carries_both_ids() {
    let identity = Some(XtrIdentity { xtr_id: 7, site_id: 9 });
    let records =
        vec![RequestedEid { notify: true, ..RequestedEid::new(prefix("203.0.113.0/24")) }];
    let request = MapRequest { identity, records, ..c4() };
    let mut message = Vec::new();
    request.encode(&mut message);
    assert_eq!((message[1], message[24]), (0x90, 0x80));
    assert_eq!(MapRequest::parse(&message).as_ref(), Ok(&request));
    message.truncate(message.len() - 24);
    assert_eq!(MapRequest::parse(&message), Err(WireError::Truncated("xTR-ID")));
}

#[test]
fn map_notify_trailer_needs_no_i_bit() {
    let mut message = octets(C13);
    message.extend((0..24).map(|octet| octet as u8));
    let notify = MapNotify::parse(&message).unwrap();
    assert_eq!(notify.identity.map(|identity| identity.site_id), Some(0x1011_1213_1415_1617));
    let mut encoded = Vec::new();
    notify.encode(&mut encoded);
    assert_eq!(encoded, message);
    message.push(0);
    assert_eq!(MapNotify::parse(&message).unwrap().identity, None);
}
