//! NAT traversal: Info-Requests, and Map-Registers that come through an RTR.

use super::*;
use crate::config::{Profile, Rtr, RtrKey};
use crate::wire::vectors::octets;
use crate::wire::{InfoReply, InfoRequest, MacField, RtrAuthentication};

const RTR: &str = "198.51.100.50";
const KEYLESS_RTR: &str = "198.51.100.51";
/// The NAT's address, and the ETR's behind it.
const GLOBAL: &str = "192.0.2.77";
const INSIDE: &str = "10.99.0.2";
const RTR_SECRET: &[u8] = b"between the two";

fn bench() -> Bench {
    let key = RtrKey {
        id: 9,
        secret: Secret::new(RTR_SECRET.to_vec()),
        algorithm: Algorithm::HmacSha256,
        profile: Profile::Rfc9301,
    };
    let mut config = config();
    config.rtrs =
        vec![Rtr { address: ip(RTR), key: Some(key) }, Rtr { address: ip(KEYLESS_RTR), key: None }];
    Bench::with(config)
}

fn info_request(eid: &str, secret: &str, algorithm: Algorithm) -> Vec<u8> {
    let message = InfoRequest {
        nonce: 77,
        authentication: AuthenticationData::zeroed(1, algorithm.id(), algorithm.mac_len()),
        ttl_minutes: 0,
        eid: eid_prefix(eid).into(),
        sender: Address::None,
    };
    let mut octets = Message::InfoRequest(message).to_vec();
    let secret = Secret::new(secret.as_bytes().to_vec());
    auth::sign_covering(&mut octets, &secret, algorithm, auth::Covered::Message).unwrap();
    octets
}

/// `register` as the RTR relays it.
fn relayed(register: &Register) -> EncapsulatedControlMessage {
    let port = |text, port| SocketAddr::new(ip(text), port);
    EncapsulatedControlMessage {
        relayed: true,
        ..EncapsulatedControlMessage::new(
            port(INSIDE, 4_999),
            port(OWN, CONTROL_PORT),
            register.octets(),
        )
    }
}

fn through(transmit: &Transmit) -> EncapsulatedControlMessage {
    EncapsulatedControlMessage::parse(&transmit.payload).unwrap()
}

#[test]
fn nt_02_an_info_request_is_answered_with_what_was_seen_and_the_rtrs() {
    let mut bench = bench();
    for algorithm in Algorithm::STRONG {
        let octets = info_request("10.1.2.0/24", "secret-a", algorithm);
        let sent = bench.input(GLOBAL, 20_001, &octets);
        assert_eq!(sent.len(), 1);
        let destination = SocketAddr::new(ip(GLOBAL), 20_001);
        assert_eq!((sent[0].source, sent[0].destination), (ip(OWN), destination));
        assert_eq!(sent[0].source_port, crate::transmit::SourcePort::Control);
        let reply = InfoReply::parse(&sent[0].payload).unwrap();
        assert_eq!((reply.nonce, reply.eid), (77, eid_prefix("10.1.2.0/24").into()));
        assert_eq!(reply.nat.global(), Some(destination));
        assert_eq!((reply.nat.ms, reply.nat.ms_port), (ip(OWN).into(), CONTROL_PORT));
        assert_eq!(reply.nat.private_etr, Address::None);
        assert_eq!(reply.nat.rtrs, [ip(RTR).into(), ip(KEYLESS_RTR).into()]);
        let secret = Secret::new(b"secret-a".to_vec());
        assert!(auth::verify(&sent[0].payload, &secret, &[algorithm]).is_ok());
    }
    assert_eq!(bench.server.get(Count::InfoReplies), 2);
}

#[test]
fn nt_02_nobody_else_is_answered() {
    let mut bench = bench();
    let algorithm = Algorithm::HmacSha256;
    let good = info_request("10.1.2.0/24", "secret-a", algorithm);
    let mut changed = good.clone();
    changed[4] ^= 1;
    let longer = [good.as_slice(), &[0]].concat();
    for (octets, reason) in [
        (info_request("10.1.2.0/24", "secret-x", algorithm), Discard::AuthenticationFailed),
        (info_request("192.0.2.0/24", "secret-a", algorithm), Discard::NotASite),
        (changed, Discard::AuthenticationFailed),
        (longer, Discard::AuthenticationFailed),
    ] {
        let before = bench.discarded(reason);
        assert!(bench.input(GLOBAL, 20_001, &octets).is_empty(), "{reason}");
        assert_eq!(bench.discarded(reason), before + 1, "{reason}");
    }
    let mut without = Bench::new();
    assert!(without.input(GLOBAL, 20_001, &good).is_empty());
    assert_eq!(without.discarded(Discard::NatNotConfigured), 1);
}

#[test]
fn nt_02_a_recorded_info_request_is_no_source_of_floods() {
    let mut bench = bench();
    let octets = info_request("10.1.2.0/24", "secret-a", Algorithm::HmacSha256);
    let most = timers::REPLIES_BURST as usize;
    let sent = (0..most + 500).filter(|_| !bench.input(GLOBAL, 20_001, &octets).is_empty()).count();
    assert_eq!(sent, most);
    assert_eq!(bench.discarded(Discard::ReplyRateLimited), 500);
}

#[test]
fn nt_07_a_relayed_map_register_is_acknowledged_through_the_rtr() {
    let mut bench = bench();
    let register = register(1, vec![record("10.1.2.0/24", &[RTR])]).xtr(0xabc);
    let sent = bench.input(RTR, CONTROL_PORT, &relayed(&register).to_octets());
    assert_eq!(bench.rlocs("10.1.2.0/24"), [ip(RTR)]);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].destination, SocketAddr::new(ip(RTR), CONTROL_PORT));
    let ecm = through(&sent[0]);
    assert!(ecm.to_rtr && !ecm.relayed);
    assert_eq!(ecm.source, SocketAddr::new(ip(OWN), CONTROL_PORT));
    assert_eq!(ecm.destination, SocketAddr::new(ip(INSIDE), CONTROL_PORT));
    assert_eq!(ecm.message[0], 0x48, "type 4 with the I-bit");
    let notify = MapNotify::parse(&ecm.message).unwrap();
    assert_eq!((notify.nonce, notify.records.len()), (1, 1));
    assert_eq!(notify.identity, Some(XtrIdentity { xtr_id: 0xabc, site_id: 7 }));
    let secret = Secret::new(b"secret-a".to_vec());
    let site = auth::verify(&ecm.message, &secret, &[Algorithm::HmacSha256Hkdf]);
    assert_eq!(site, Ok(auth::Covered::Message));
    let rtr = RtrAuthentication::parse(&ecm.security.unwrap()).unwrap().authentication;
    assert_eq!((rtr.key_id, rtr.algorithm_id, rtr.mac.len()), (9, 2, 16));
    let key = Secret::new(RTR_SECRET.to_vec());
    let verify = |octets: &[u8]| {
        key.prepared().verify_mac_of(octets, Algorithm::HmacSha256, &MacField::clone(&rtr.mac))
    };
    assert_eq!(verify(&ecm.message), Ok(()));
    assert!(verify(&ecm.message[..ecm.message.len() - 1]).is_err());
}

#[test]
fn nt_07_without_a_shared_secret_the_s_bit_is_clear() {
    let mut bench = bench();
    let register = register(1, vec![record("10.1.2.0/24", &[KEYLESS_RTR])]).xtr(0xabc);
    let sent = bench.input(KEYLESS_RTR, CONTROL_PORT, &relayed(&register).to_octets());
    let ecm = through(&sent[0]);
    assert!(ecm.to_rtr && ecm.security.is_none());
}

#[test]
fn nt_07_only_a_configured_rtr_relays_and_only_what_a_site_signed() {
    let mut bench = bench();
    let good = register(1, vec![record("10.1.2.0/24", &[RTR])]).xtr(0xabc);
    let mut unmarked = relayed(&good);
    unmarked.relayed = false;
    assert!(bench.input(RTR, CONTROL_PORT, &unmarked.to_octets()).is_empty());
    assert!(bench.input(GLOBAL, CONTROL_PORT, &relayed(&good).to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::RtrUnknown), 2);
    let forged = relayed(&good.clone().signed_by("secret-x"));
    assert!(bench.input(RTR, CONTROL_PORT, &forged.to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::AuthenticationFailed), 1);
    let mut cut = relayed(&good);
    cut.message.truncate(30);
    assert!(bench.input(RTR, CONTROL_PORT, &cut.to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::Truncated), 1);
    assert!(bench.prefixes().is_empty());
    // A replay is one through an RTR too.
    assert_eq!(bench.input(RTR, CONTROL_PORT, &relayed(&good).to_octets()).len(), 1);
    let newer = register(2, vec![record("10.1.2.0/24", &[RTR])]).xtr(0xabc);
    assert_eq!(bench.input(RTR, CONTROL_PORT, &relayed(&newer).to_octets()).len(), 1);
    assert!(bench.input(RTR, CONTROL_PORT, &relayed(&good).to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::Replayed), 1);
}

#[test]
fn nt_07_news_for_an_etr_behind_a_nat_go_through_its_rtr() {
    let mut bench = bench();
    let behind = register(1, vec![record("10.1.2.0/24", &[RTR])]).xtr(0xabc);
    bench.input(RTR, CONTROL_PORT, &relayed(&behind).to_octets());
    let elsewhere =
        register(2, vec![record("10.1.2.0/24", &[OTHER_ETR])]).from(OTHER_ETR).xtr(0xdef);
    let sent = bench.register(&elsewhere);
    let news: Vec<_> = sent.iter().filter(|sent| sent.destination.ip() == ip(RTR)).collect();
    assert_eq!(news.len(), 1);
    let ecm = through(news[0]);
    assert!(ecm.to_rtr && ecm.security.is_some());
    let notify = MapNotify::parse(&ecm.message).unwrap();
    assert_eq!(rlocs_of(&notify.records[0]), [ip(OTHER_ETR)]);
    assert_eq!(notify.identity.map(|identity| identity.xtr_id), Some(0xabc));
}

#[test]
fn nt_07_a_proxy_reply_names_the_rtr() {
    let mut bench = bench();
    let behind = register(1, vec![record("10.1.2.0/24", &[RTR])]).xtr(0xabc);
    bench.input(RTR, CONTROL_PORT, &relayed(&behind).to_octets());
    let told = bench.reply_to(5, "10.1.2.3/32");
    assert_eq!(rlocs_of(&told[0]), [ip(RTR)]);
}

// An xTR of Open Overlay Router behind a NAT, its RTR, and this Map-Server, all of whose messages were accepted.
const OOR_INFO_REQUEST: &str = "700000007733ae7be334101100010014de484fa7a046faeb8a21c654c53bd47612a127a000000000001a0001cb0071000000";
const INFO_REPLY_TO_OOR: &str = "780000007733ae7be3341011000100147d69b7f281c700faa4efc748cbdb543391f451470000000a001a0001cb0071004003 \
    00000700001810f6a0080001c633644d0001c633640200000001c6336409";
const OOR_RELAYED_REGISTER: &str = "802000004500008000024000ff1146d00a630002c633640210f610f6006cac6a3b000101bf3bbf6b1624399500010014e394 \
    098141d41d62460ffc019ef2d00b1dfc132d0000000a021a100000000001cb0071000164ff00000400010a6300020164ff00 \
    00010001c633640954370e38095a863b2ccf977ce280a6bd0000000000000000";
const NOTIFY_BY_OOR_RTR: &str = "884000000200000000010014cd38cb334e8463cb0aa3cf36f6fd5bab2220a1894500008000000000401145d3c63364020a63 \
    000210f610f6006c623548000001bf3bbf6b1624399500010014c31687b139675130bdd50c5666efa76440d77e030000000a \
    021a100000000001cb0071000164ff00000400010a6300020164ff0000010001c633640954370e38095a863b2ccf977ce280 \
    a6bd0000000000000000";

#[test]
fn nt_02_nt_07_open_overlay_router_registers_through_its_rtr() {
    let key = |secret: &[u8]| Secret::new(secret.to_vec());
    let site_key =
        SiteKey { id: 0, secret: key(b"sitekey"), algorithms: vec![Algorithm::HmacSha1] };
    let prefix = SitePrefix { prefix: eid_prefix("203.0.113.0/26"), accept_more_specifics: false };
    let mut config = MappingConfig::new("ms", vec![ip(OWN)]);
    config.sites =
        vec![Site { profile: Profile::Oor, ..Site::new("x", vec![site_key], vec![prefix]) }];
    let rtr = "198.51.100.9";
    let shared = RtrKey {
        id: 0,
        secret: key(b"rtrkey"),
        algorithm: Algorithm::HmacSha1,
        profile: Profile::Oor,
    };
    config.rtrs = vec![Rtr { address: ip(rtr), key: Some(shared) }];
    let mut bench = Bench::with(config);
    let sent = bench.input("198.51.100.77", 40_968, &octets(OOR_INFO_REQUEST));
    assert_eq!(sent[0].payload, octets(INFO_REPLY_TO_OOR));
    let sent = bench.input(rtr, CONTROL_PORT, &octets(OOR_RELAYED_REGISTER));
    assert_eq!(sent[0].payload, octets(NOTIFY_BY_OOR_RTR));
    assert_eq!(bench.prefixes(), ["203.0.113.0/26"]);
}
