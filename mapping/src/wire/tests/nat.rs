//! NAT traversal on the wire, by the drawings of draft-ermagan-lisp-nat-traversal §4.

use super::*;
use crate::auth;
use crate::config::{Algorithm, Secret};

const REQUEST: &str = "70000000 0102030405060708 01 02 0010 00000000000000000000000000000000 \
    00000000 00 18 0001 cb007100 0000";
const REPLY: &str = "78000000 0102030405060708 01 02 0010 00000000000000000000000000000000 \
    0000000a 00 18 0001 cb007100 \
    4003 0000 07 00 001e 10f6 4e21 0001 c6336401 0001 c6336402 0000 0001 c6336403 0001 c6336404";

fn request() -> InfoRequest {
    InfoRequest {
        nonce: 0x0102_0304_0506_0708,
        authentication: AuthenticationData::zeroed(1, 2, 16),
        ttl_minutes: 0,
        eid: prefix("203.0.113.0/24").into(),
        sender: Address::None,
    }
}

fn reply() -> InfoReply {
    let InfoRequest { nonce, authentication, eid, .. } = request();
    let nat = NatTraversal {
        ms_port: 4342,
        etr_port: 20_001,
        global_etr: address("198.51.100.1"),
        ms: address("198.51.100.2"),
        private_etr: Address::None,
        rtrs: vec![address("198.51.100.3"), address("198.51.100.4")],
    };
    InfoReply { nonce, authentication, ttl_minutes: 10, eid, nat }
}

#[test]
fn nt_01_an_info_request_on_the_wire() {
    let expected = octets(REQUEST);
    assert_eq!(Message::InfoRequest(request()).to_vec(), expected);
    assert_eq!(Message::parse(&expected), Ok(Message::InfoRequest(request())));
    assert_eq!(
        InfoReply::parse(&expected),
        Err(WireError::Malformed("R-bit")),
        "the R-bit says which it is"
    );
}

#[test]
fn nt_02_an_info_reply_on_the_wire() {
    let expected = octets(REPLY);
    assert_eq!(Message::InfoReply(reply()).to_vec(), expected);
    assert_eq!(Message::parse(&expected), Ok(Message::InfoReply(reply())));
    let nat = reply().nat;
    assert_eq!(nat.global(), Some("198.51.100.1:20001".parse().unwrap()));
    assert_eq!(nat.rtr_addresses().collect::<Vec<_>>(), [ip("198.51.100.3"), ip("198.51.100.4")]);
    // Whatever is cut off is missed, except where the list of RTRs may end.
    for len in 0..expected.len() {
        assert!(Message::parse(&expected[..len]).is_err(), "{len}");
    }
    let mut other = expected.clone();
    other[48] = 1;
    assert!(InfoReply::parse(&other).is_err(), "another LCAF");
    let mut short = expected;
    short[51] = 0x1c;
    assert!(InfoReply::parse(&short).is_err(), "an RTR cut off");
}

#[test]
fn nt_02_the_mac_covers_a_whole_info_message() {
    let key = Secret::new(b"secret".to_vec());
    for algorithm in Algorithm::STRONG {
        let authentication = AuthenticationData::zeroed(1, algorithm.id(), 16);
        let message = InfoReply { authentication, ..reply() };
        let mut octets = Message::InfoReply(message).to_vec();
        auth::sign_covering(&mut octets, &key, algorithm, auth::Covered::Message).unwrap();
        assert_eq!(auth::verify(&octets, &key, &[algorithm]), Ok(auth::Covered::Message));
        for at in [0, 4, octets.len() - 1] {
            let mut changed = octets.clone();
            changed[at] ^= 4;
            assert!(auth::verify(&changed, &key, &[algorithm]).is_err(), "{at}");
        }
        assert!(auth::verify(&octets[..octets.len() - 6], &key, &[algorithm]).is_err());
    }
}

#[test]
fn nt_04_nt_06_the_bits_of_an_ecm_that_passes_an_rtr() {
    let port = |text: &str| text.parse().unwrap();
    let notify = Message::MapRegister(MapRegister::new(7)).to_vec();
    let plain =
        EncapsulatedControlMessage::new(port("10.0.0.2:4342"), port("198.51.100.2:4342"), notify);
    for (to_rtr, relayed, second) in [(true, false, 0x40), (false, true, 0x20), (false, false, 0)] {
        let ecm = EncapsulatedControlMessage { to_rtr, relayed, ..plain.clone() };
        let encoded = Message::Encapsulated(ecm.clone()).to_vec();
        assert_eq!(encoded[..4], [0x80, second, 0, 0]);
        assert_eq!(Message::parse(&encoded), Ok(Message::Encapsulated(ecm)));
    }
}

#[test]
fn nt_07_ms_rtr_authentication_data_lies_before_the_inner_header() {
    let key = Secret::new(b"between us".to_vec());
    let notify = Message::MapNotify(MapNotify {
        nonce: 9,
        authentication: AuthenticationData::zeroed(1, 2, 16),
        records: Vec::new(),
        identity: None,
    })
    .to_vec();
    let mac = key.prepared().mac_of(&notify, Algorithm::HmacSha256).unwrap();
    let authentication =
        AuthenticationData { key_id: 3, algorithm_id: 2, mac: MacField::from(&mac[..16]) };
    let data = RtrAuthentication { authentication }.to_vec();
    assert_eq!(data[..8], [2, 0, 0, 0, 3, 2, 0, 16]);
    let port = |text: &str| text.parse().unwrap();
    let ecm = EncapsulatedControlMessage {
        security: Some(data.clone()),
        to_rtr: true,
        ..EncapsulatedControlMessage::new(port("198.51.100.2:4342"), port("10.0.0.2:4342"), notify)
    };
    let encoded = Message::Encapsulated(ecm.clone()).to_vec();
    assert_eq!(encoded[..2], [0x88, 0x40]);
    let Ok(Message::Encapsulated(parsed)) = Message::parse(&encoded) else { panic!("no ECM") };
    assert_eq!(parsed, ecm);
    let found = RtrAuthentication::parse(&data).unwrap().authentication;
    let verify = |octets: &[u8], mac: &[u8]| {
        key.prepared().verify_mac_of(octets, Algorithm::HmacSha256, mac)
    };
    assert_eq!(verify(&parsed.message, &found.mac), Ok(()));
    assert!(verify(&parsed.message[1..], &found.mac).is_err());
    assert!(verify(&parsed.message, &found.mac[..8]).is_err(), "too short a MAC");
    for len in 0..encoded.len() {
        assert!(Message::parse(&encoded[..len]).is_err(), "{len}");
    }
    assert!(RtrAuthentication::parse(&data[..23]).is_err());
    assert!(RtrAuthentication::parse(&[&[1][..], &data[1..]].concat()).is_err(), "LISP-SEC");
}

#[test]
fn nt_08_a_datagram_with_its_headers() {
    for (from, to) in
        [("198.51.100.2:4342", "10.0.0.2:4342"), ("[2001:db8::2]:4342", "[2001:db8::3]:4342")]
    {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let mut packet = Vec::new();
        encode_datagram(from, to, b"message", &mut packet);
        assert_eq!(decode_datagram(&packet), Ok((from, to, &b"message"[..])));
        for at in [packet.len() - 1, packet.len() - 9] {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert!(decode_datagram(&changed).is_err(), "{at}");
        }
        for len in 0..packet.len() {
            assert!(decode_datagram(&packet[..len]).is_err(), "{len}");
        }
    }
}
