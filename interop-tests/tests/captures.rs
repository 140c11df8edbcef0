//! Every control message that real peers sent in the captures: what parses, what does not by design, and what is encoded again
//! to the same octets. `captures/README.md` says what the files show.

use std::collections::BTreeMap;

use interop_tests::captures::{Datagram, control_datagrams, datagrams};
use mapping::auth::{self, AuthError, Covered};
use mapping::config::{Algorithm, Secret};
use mapping::wire::{
    Address, CONTROL_PORT, DATA_PORT, Lcaf, Message, Tolerance, WireError, XtrIdentity,
};
use xtr::marks::Tag;
use xtr::packet::lisp;

/// Control messages per capture.
const COUNTS: [(&str, usize); 18] = [
    ("lispers-base-v4rloc.pcap", 38),
    ("lispers-iid-lcaf.pcap", 52),
    ("lispers-pubsub-encrreg.pcap", 27),
    ("lispers-pxtr-rlocprobe-noncecho.pcap", 52),
    ("lispers-v6rloc-noprobe.pcap", 20),
    ("oor-ctl-dual.pcap", 60),
    ("oor-ctl-rloc4.pcap", 44),
    ("oor-ctl-rloc6.pcap", 44),
    ("oor-iid77.pcap", 14),
    ("oor-neg-petr-rloc4.pcap", 4),
    ("oor-petr-probe-loc.pcap", 16),
    ("oor-petr-probe-neg.pcap", 16),
    ("oor-proxyreply.pcap", 12),
    ("oor-smr-x1.pcap", 6),
    ("oor-smr-x2.pcap", 14),
    ("vpp-pitr-rloc4.pcap", 14),
    ("vpp-rloc4.pcap", 25),
    ("vpp-rloc6.pcap", 25),
];

/// What is refused even from a peer whose zero inner checksum is tolerated, and why: (capture, frame, error).
const REFUSED: [(&str, usize, WireError); 7] = [
    // Info-Replies: the length of the NAT-Traversal LCAF ends within the host name that follows.
    ("lispers-base-v4rloc.pcap", 38, WireError::Truncated("distinguished name")),
    ("lispers-base-v4rloc.pcap", 44, WireError::Truncated("distinguished name")),
    ("lispers-base-v4rloc.pcap", 50, WireError::Truncated("distinguished name")),
    // ECMs without an inner IP header (for distinguished names), and an encrypted Map-Register.
    ("lispers-iid-lcaf.pcap", 56, WireError::Malformed("inner IP version")),
    ("lispers-iid-lcaf.pcap", 67, WireError::Malformed("inner IP version")),
    ("lispers-pubsub-encrreg.pcap", 1, WireError::EncryptedRegister),
    // A negative Map-Reply for a multicast EID (LCAF type 9): RFC 9306 §3.
    ("lispers-pxtr-rlocprobe-noncecho.pcap", 76, WireError::UnknownEid(9)),
];

/// What is encoded otherwise than it came, outside the inner IP header and UDP checksum of ECMs.
fn is_odd(capture: &str, octets: &[u8]) -> bool {
    match (capture, octets[0] >> 4) {
        // IID mask-len 0 for one Instance ID, and locators in no order.
        ("lispers-iid-lcaf.pcap", 2..=4) => true,
        // A hop count in the reserved third octet of replies to RLOC-probes.
        ("lispers-pxtr-rlocprobe-noncecho.pcap", 2) => octets[2] != 0,
        // Publications with a second record that the Record Count leaves out.
        ("lispers-pubsub-encrreg.pcap", 4) => octets[3] == 1 && octets.len() == 132,
        _ => false,
    }
}

const TOLERANT: Tolerance = Tolerance::LISPERS_NET;

#[test]
fn cw_02_every_capture_has_its_control_messages() {
    let mut counts = BTreeMap::new();
    for datagram in control_datagrams() {
        *counts.entry(datagram.capture).or_insert(0) += 1;
    }
    let expected: BTreeMap<String, usize> =
        COUNTS.iter().map(|&(capture, count)| (capture.to_owned(), count)).collect();
    assert_eq!(counts, expected);
}

#[test]
fn cw_21_every_control_message_parses_or_is_refused_by_design() {
    let mut refused = Vec::new();
    for Datagram { capture, frame, payload, .. } in control_datagrams() {
        if let Err(error) = Message::parse_with(&payload, TOLERANT) {
            refused.push((capture, frame, error));
        }
    }
    let expected: Vec<_> =
        REFUSED.iter().map(|&(capture, frame, error)| (capture.to_owned(), frame, error)).collect();
    assert_eq!(refused, expected);
}

#[test]
fn ec_03_only_lispers_net_sends_zero_inner_checksums() {
    let mut zero = 0;
    for Datagram { capture, frame, payload, .. } in control_datagrams() {
        let tolerance = Tolerance { json_length: false, ..TOLERANT };
        let Ok(message) = Message::parse_with(&payload, tolerance) else { continue };
        let strict = Message::parse(&payload);
        if capture.starts_with("lispers") && payload[0] >> 4 == 8 {
            assert_eq!(strict, Err(WireError::ZeroChecksum), "{capture} {frame}");
            zero += 1;
        } else {
            assert_eq!(strict, Ok(message), "{capture} {frame}");
        }
    }
    assert_eq!(zero, 58);
}

/// The last part of a JSON LCAF, AFI 0, is beyond its Length: read by the book, it is one more address of the list around it.
#[test]
fn cw_20_json_of_lispers_net_is_two_octets_longer_than_its_length() {
    let mut mended = 0;
    for Datagram { capture, frame, payload, .. } in control_datagrams() {
        let by_the_book = json(&Message::parse(&payload).ok());
        let by_its_parts = json(&Message::parse_with(&payload, TOLERANT).ok());
        assert_eq!(by_the_book.len(), by_its_parts.len(), "{capture} {frame}");
        for (book, parts) in by_the_book.iter().zip(&by_its_parts) {
            assert_eq!(capture, "lispers-iid-lcaf.pcap", "{frame}");
            assert_eq!(parts.strip_suffix(&[0, 0]), Some(&book[..]), "{frame}");
            assert_eq!(usize::from(u16::from_be_bytes([parts[0], parts[1]])) + 4, parts.len());
            mended += 1;
        }
    }
    assert!(mended >= 4, "{mended}");
}

/// The bodies of the JSON LCAFs in the locators of a message.
fn json(message: &Option<Message>) -> Vec<Vec<u8>> {
    let records = match message {
        Some(Message::MapRegister(register)) => &register.records,
        Some(Message::MapNotify(notify)) => &notify.records,
        Some(Message::MapReply(reply)) => &reply.records,
        _ => return Vec::new(),
    };
    let lists = records.iter().flat_map(|record| &record.locators).filter_map(|locator| {
        match &locator.address {
            Address::Lcaf(Lcaf::AfiList(list)) => Some(list),
            _ => None,
        }
    });
    let bodies = lists.flatten().filter_map(|address| match address {
        Address::Lcaf(Lcaf::Unknown { kind: 14, body, .. }) => Some(body.clone()),
        _ => None,
    });
    bodies.collect()
}

#[test]
fn messages_are_encoded_to_the_octets_they_came_in() {
    let (mut same, mut odd) = (0, 0);
    for Datagram { capture, frame, payload, .. } in control_datagrams() {
        let Ok(message) = Message::parse_with(&payload, TOLERANT) else { continue };
        let encoded = message.to_vec();
        if is_odd(&capture, &payload) {
            assert_ne!(encoded, payload, "{capture} {frame}");
            odd += 1;
        } else {
            assert_eq!(comparable(&encoded), comparable(&payload), "{capture} {frame}");
            same += 1;
        }
        let again = Message::parse(&encoded).map(|message| message.to_vec());
        assert_eq!(again, Ok(encoded), "{capture} {frame}");
    }
    assert_eq!((same, odd), (448, 28));
}

#[test]
fn ec_05_encapsulated_map_requests_parse_and_are_encoded_to_the_same_octets() {
    let (mut requests, mut subscriptions) = (0, 0);
    for Datagram { capture, frame, payload, .. } in control_datagrams() {
        let Ok(Message::Encapsulated(ecm)) = Message::parse_with(&payload, TOLERANT) else {
            continue;
        };
        assert_eq!(ecm.destination.port(), CONTROL_PORT, "{capture} {frame}");
        let request = match ecm.map_request() {
            Ok(request) => request,
            // lispers.net subscribes with an xTR-ID but without the Site-ID of RFC 9437 §4.
            Err(WireError::Truncated("Site-ID")) => {
                assert_eq!(capture, "lispers-pubsub-encrreg.pcap", "{frame}");
                let identity = ecm.map_request_with(TOLERANT).map(|request| request.identity);
                assert!(matches!(identity, Ok(Some(XtrIdentity { site_id: 0, .. }))), "{frame}");
                subscriptions += 1;
                continue;
            }
            // A Map-Request for a multicast EID: RFC 9306 §3.
            Err(WireError::UnknownEid(9)) => {
                assert_eq!((capture.as_str(), frame), ("lispers-pxtr-rlocprobe-noncecho.pcap", 75));
                continue;
            }
            Err(error) => panic!("{capture} {frame}: {error}"),
        };
        if capture != "lispers-iid-lcaf.pcap" {
            let mut encoded = Vec::new();
            request.encode(&mut encoded);
            assert_eq!(encoded, ecm.message, "{capture} {frame}");
        }
        requests += 1;
    }
    assert_eq!((requests, subscriptions), (105, 2));
}

/// The messages of `captures` with `algorithm_id` that one of `keys` signed over the whole message, and no other key did.
fn verified(captures: &str, algorithm: Algorithm, keys: &[&str]) -> usize {
    let keys: Vec<Secret> = keys.iter().map(|&key| Secret::new(key.into())).collect();
    let stranger = Secret::new(b"stranger".to_vec());
    let mut verified = 0;
    for Datagram { capture, frame, payload, .. } in control_datagrams() {
        if !capture.starts_with(captures) || !is_signed(&payload) || payload[13] != algorithm.id() {
            continue;
        }
        assert_eq!(usize::from(payload[15]), algorithm.untruncated_mac_len(), "{capture} {frame}");
        let results: Vec<_> =
            keys.iter().map(|key| auth::verify(&payload, key, &[algorithm])).collect();
        assert!(results.contains(&Ok(Covered::Message)), "{capture} {frame}: {results:?}");
        let refused = auth::verify(&payload, &stranger, &[algorithm]);
        assert_eq!(refused, Err(AuthError::Mismatch), "{capture} {frame}");
        verified += 1;
    }
    verified
}

#[test]
fn au_14_untruncated_sha_256_of_lispers_net_verifies() {
    let keys = ["lispers-key1", "lispers-key2"];
    assert_eq!(verified("lispers", Algorithm::HmacSha256, &keys), 47);
}

#[test]
fn au_03_au_14_untruncated_sha_1_of_oor_and_lispers_net_verifies() {
    assert_eq!(verified("oor", Algorithm::HmacSha1, &["lab-secret-1"]), 44);
    assert_eq!(verified("lispers", Algorithm::HmacSha1, &["lispers-key1", "lispers-key2"]), 3);
}

#[test]
fn au_03_au_04_au_15_cw_36_sha_1_and_no_authentication_are_refused_by_default() {
    let key = Secret::new(b"lab-secret-1".to_vec());
    let mut refused = BTreeMap::new();
    for Datagram { payload, .. } in control_datagrams() {
        if let Err(AuthError::Algorithm(id)) = auth::verify(&payload, &key, &Algorithm::STRONG) {
            *refused.entry(id).or_insert(0) += 1;
        }
    }
    assert_eq!(refused, BTreeMap::from([(0, 16), (1, 47)]));
}

/// A Map-Register, Map-Notify or Map-Notify-Ack that parses.
fn is_signed(octets: &[u8]) -> bool {
    matches!(
        Message::parse(octets),
        Ok(Message::MapRegister(_) | Message::MapNotify(_) | Message::MapNotifyAck(_))
    )
}

/// An ECM without its inner IP header and inner UDP checksum, which every sender fills in its own way; other messages whole.
fn comparable(octets: &[u8]) -> Vec<u8> {
    let mut octets = octets.to_vec();
    if octets[0] >> 4 == 8 {
        let header = if octets[4] >> 4 == 4 { 20 } else { 40 };
        octets.drain(4..4 + header);
        octets.drain(4 + 6..4 + 8);
    }
    octets
}

/// Whoever requests an echo puts the nonce on each packet until it comes back; the ETR puts it on its next one, and random nonces, which
/// are no echoes, on all others.
#[test]
fn dh_23_dh_24_lispers_net_echoes_the_nonce_that_it_is_asked_to() {
    let mut asked = BTreeMap::new();
    let (mut echoes, mut others) = (0, 0);
    for datagram in datagrams(DATA_PORT) {
        if datagram.capture != "lispers-pxtr-rlocprobe-noncecho.pcap" {
            continue;
        }
        let ends = (datagram.source.ip(), datagram.destination.ip());
        match lisp::marks(&datagram.payload).tag {
            Tag::Nonce { nonce, request: true } => drop(asked.insert(ends, nonce)),
            Tag::Nonce { nonce, .. } if asked.get(&(ends.1, ends.0)) == Some(&nonce) => echoes += 1,
            Tag::Nonce { .. } => others += 1,
            other => panic!("frame {}: {other:?}", datagram.frame),
        }
    }
    assert!(asked.len() >= 2 && echoes >= 2 && others > 10, "{asked:?} {echoes} {others}");
}

/// lispers.net has uses of its own for what RFC 9301 reserves: 0x8000 in Map-Requests, three bits from 0xe000 in Map-Registers, a hop count in Map-Replies.
/// Whichever of them are set, the message is the same.
#[test]
fn cw_12_private_flags_of_lispers_net_change_nothing() {
    let (mut tried, mut sent) = (0, 0);
    for Datagram { capture, frame, mut payload, .. } in control_datagrams() {
        let private: u8 = match payload[0] >> 4 {
            1 => 0x80,
            2 => 0xff,
            3 => 0xe0,
            _ => continue,
        };
        let Ok(message) = Message::parse_with(&payload, TOLERANT) else { continue };
        if capture.starts_with("lispers") {
            sent += usize::from(payload[2] & private != 0);
        }
        for flags in [0, private, private & 0xa0, private & 0x60] {
            payload[2] = payload[2] & !private | flags;
            let again = Message::parse_with(&payload, TOLERANT);
            assert_eq!(again.as_ref(), Ok(&message), "{capture} {frame} {flags:#x}");
            tried += 1;
        }
    }
    assert!(tried > 500 && sent >= 2, "{tried} {sent}");
}
