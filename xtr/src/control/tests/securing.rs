//! LISP-SEC (RFC 9303): lookups as an ITR, answers as an ETR.
use super::*;
use crate::config::LispSec;
use mapping::sec::{self, Otk, Requested, hmac_id, kdf_id};
use mapping::wire::security::{EcmSecurity, EidAd, EidAdBody};
use mapping::wire::{EidField, MacField};

const EID: &str = "10.2.0.9";
const SITE: &str = "10.2.0.0/16";

fn itr_secret() -> Secret {
    Secret::new(b"secret of the ITRs".to_vec())
}

fn secured(required: bool) -> ControlConfig {
    let lisp_sec = LispSec { key_id: 5, secret: itr_secret(), required };
    ControlConfig { lisp_sec: Some(lisp_sec), ..config() }
}

/// A Map-Request as the Map-Server sees it.
struct Asked {
    nonce: u64,
    otk: Otk,
    requested: Requested,
    security: EcmSecurity,
}

fn asked(node: &mut Node) -> Asked {
    let (_, ecm, request) = node.take_lookup();
    let octets = ecm.security.expect("protected");
    let security = EcmSecurity::parse(&octets).expect("LISP-SEC data");
    let otk = sec::unwrap(&security, request.nonce, &itr_secret()).expect("wrapped for its nonce");
    let (hmac_id, kdf_id) = (security.requested_hmac, security.eid_ad.kdf_id);
    Asked { nonce: request.nonce, otk, requested: Requested { hmac_id, kdf_id }, security }
}

fn eid_ad(otk: &Otk, ids: Requested, prefixes: &[&str], etr_cant_sign: bool) -> EidAd {
    let prefixes = prefixes.iter().map(|text| EidField::from(prefix(text))).collect();
    let hmac = MacField::zeroed(16);
    let body = EidAdBody { etr_cant_sign, hmac_id: ids.hmac_id, prefixes, hmac };
    let mut eid_ad = EidAd { kdf_id: ids.kdf_id, body: Some(body) };
    sec::sign_eid_ad(&mut eid_ad, otk).unwrap();
    eid_ad
}

impl Asked {
    /// The answer, with `ids` and with what the Map-Server vouches for.
    fn answer(&self, ids: Requested, records: Vec<EidRecord>, vouched: &[&str]) -> Vec<u8> {
        self.answer_with(ids, records, vouched, false)
    }

    fn answer_with(
        &self,
        ids: Requested,
        records: Vec<EidRecord>,
        vouched: &[&str],
        cant_sign: bool,
    ) -> Vec<u8> {
        let eid_ad = eid_ad(&self.otk, ids, vouched, cant_sign).to_vec();
        let ms_otk = sec::ms_otk(&self.otk, ids.kdf_id).unwrap();
        let reply = MapReply::new(self.nonce, records);
        sec::protect_reply(reply, &eid_ad, &ms_otk, ids.hmac_id).unwrap()
    }

    fn genuine(&self) -> Vec<u8> {
        self.answer(self.requested, vec![record(SITE, 1440, &[PEER])], &[SITE])
    }
}

fn receive(node: &mut Node, octets: &[u8]) {
    node.receive_octets(control_port(OWN_V4), control_port(PEER), octets);
}

fn is_secured(node: &Node, text: &str) -> bool {
    node.control.cache.get(&prefix(text)).expect("cached").secured
}

#[test]
fn se_01_se_02_every_map_request_has_a_key_of_its_own() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let first = asked(&mut node);
    assert_eq!((first.security.key_id, first.security.wrapping_id), (5, 2));
    assert_eq!(first.security.eid_ad, EidAd::request(kdf_id::HKDF_SHA256));
    assert!(first.security.to_vec().ends_with(&[0, 4, 0, 2]), "SE-02: EID-AD Length 4");
    assert_eq!(first.requested.hmac_id, hmac_id::SHA_256_128, "SE-14");
    node.advance(seconds(1));
    let second = asked(&mut node);
    assert!(first.otk != second.otk && first.nonce != second.nonce);
    receive(&mut node, &first.genuine());
    assert!(is_secured(&node, SITE), "the answer to either counts");
    assert_eq!(node.control.counters_view()["protected_map_replies_received"], 1);
}

#[test]
fn se_05_a_secret_that_changed_protects_the_next_lookup() {
    let mut node = Node::new(secured(true));
    let secret = Secret::new(b"next secret of the ITRs".to_vec());
    let lisp_sec = LispSec { key_id: 5, secret: secret.clone(), required: true };
    node.control
        .reconfigure(node.now, &ControlConfig { lisp_sec: Some(lisp_sec), ..secured(true) });
    node.drain();
    node.sent.clear();
    node.miss(EID);
    let (_, ecm, request) = node.take_lookup();
    let security = EcmSecurity::parse(&ecm.security.expect("protected")).expect("LISP-SEC data");
    assert!(sec::unwrap(&security, request.nonce, &itr_secret()).is_err());
    assert!(sec::unwrap(&security, request.nonce, &secret).is_ok());
}

#[test]
fn se_01_pi_14_a_proxy_protects_its_lookups_too() {
    let config = ControlConfig { role: Role::Proxy, eids: Vec::new(), ..secured(true) };
    let mut node = Node::new(config);
    node.miss(EID);
    let asked = asked(&mut node);
    receive(&mut node, &asked.genuine());
    assert!(is_secured(&node, SITE));
}

#[test]
fn se_17_a_reply_without_lisp_sec_is_discarded() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let asked = asked(&mut node);
    node.reply(asked.nonce, vec![record(SITE, 1440, &[PEER])]);
    assert!(node.cached().is_empty());
    assert_eq!(node.discarded(Discard::SecurityMissing), 1);
    assert!(matches!(node.events[..], [Event::ReplyRefused { .. }]));
    receive(&mut node, &asked.genuine());
    assert_eq!(node.cached(), [SITE], "the forged one did not take its place");
}

#[test]
fn se_18_a_reply_changed_in_any_octet_is_discarded() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let asked = asked(&mut node);
    let genuine = asked.genuine();
    for at in 0..genuine.len() {
        for bit in 0..8 {
            let mut forged = genuine.clone();
            forged[at] ^= 1 << bit;
            receive(&mut node, &forged);
            assert!(node.cached().is_empty(), "octet {at}, bit {bit}");
        }
    }
    for short in 0..genuine.len() {
        receive(&mut node, &genuine[..short]);
        receive(&mut node, &[&genuine[..], &genuine[..short.min(7) + 1]].concat());
    }
    assert!(node.cached().is_empty());
    for reason in [Discard::EidAdForged, Discard::PacketAdForged, Discard::SecurityDowngraded] {
        assert!(node.discarded(reason) > 0, "{reason}");
    }
    let told = node.events.iter().filter(|e| matches!(e, Event::ReplyRefused { .. })).count();
    assert!((1..10).contains(&told), "{told} lines of log at one moment");
    receive(&mut node, &genuine);
    assert_eq!(node.cached(), [SITE]);
}

#[test]
fn se_18_a_reply_signed_with_another_key_is_discarded() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let asked = asked(&mut node);
    let other = Asked { otk: Otk::new([9; 16]), ..asked };
    receive(&mut node, &other.genuine());
    assert_eq!(node.discarded(Discard::EidAdForged), 1);
    assert!(node.cached().is_empty());
}

#[test]
fn se_19_a_replayed_reply_matches_nothing() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let asked = asked(&mut node);
    let short = asked.answer(asked.requested, vec![record(SITE, 1, &[PEER])], &[SITE]);
    receive(&mut node, &short);
    receive(&mut node, &short);
    assert_eq!(node.discarded(Discard::NonceUnknown), 1);
    node.advance(seconds(61));
    assert!(node.cached().is_empty());
    receive(&mut node, &short);
    assert!(node.cached().is_empty(), "nor later");
    assert_eq!(node.discarded(Discard::NonceUnknown), 2);
}

#[test]
fn se_20_other_ids_are_asked_for_at_the_usual_distance() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let old = Requested { hmac_id: hmac_id::SHA_1_96, kdf_id: kdf_id::HKDF_SHA1_128 };
    let first = asked(&mut node);
    let records = || vec![record(SITE, 1440, &[PEER])];
    let older_hmac = Requested { kdf_id: kdf_id::HKDF_SHA256, ..old };
    receive(&mut node, &first.answer(older_hmac, records(), &[SITE]));
    assert_eq!(node.discarded(Discard::SecurityDowngraded), 1);
    assert!(node.take_sent().is_empty(), "RQ-12");
    node.advance(seconds(1));
    let second = asked(&mut node);
    assert_eq!(second.requested, older_hmac);
    receive(&mut node, &second.answer(old, records(), &[SITE]));
    node.advance(seconds(1));
    let third = asked(&mut node);
    assert_eq!(third.requested, old);
    receive(&mut node, &third.answer(old, records(), &[SITE]));
    assert_eq!(node.cached(), [SITE]);
}

#[test]
fn se_21_tv_r4_only_what_the_map_server_vouches_for_is_used() {
    let mut node = Node::new(secured(true));
    node.miss("2001:db8:103::1");
    let asked = asked(&mut node);
    let claimed = ["2001:db8:102::/48", "2001:db8:103::/48", "2001:db8:200::/40"];
    let records = claimed.iter().map(|claimed| record(claimed, 1440, &[PEER])).collect();
    let vouched = ["2001:db8:103::/48", "2001:db8:203::/48"];
    receive(&mut node, &asked.answer(asked.requested, records, &vouched));
    assert_eq!(node.cached(), ["2001:db8:103::/48"]);
    assert_eq!(node.discarded(Discard::PrefixOverclaimed), 2);
}

#[test]
fn se_21_an_etr_cannot_claim_more_than_its_prefix() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let asked = asked(&mut node);
    let overclaim = vec![record("10.0.0.0/8", 1440, &[PEER])];
    receive(&mut node, &asked.answer(asked.requested, overclaim, &[SITE]));
    assert!(node.cached().is_empty());
    let Some(Event::ReplyRefused { prefix: told, reason, .. }) = node.events.last() else {
        panic!("{:?}", node.events);
    };
    assert_eq!((*told, *reason), (prefix("10.0.0.0/8"), Discard::PrefixOverclaimed));
    receive(&mut node, &asked.genuine());
    assert_eq!(node.cached(), [SITE]);
}

#[test]
fn se_22_an_etr_that_cannot_sign_is_done_without_where_required() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let asked = asked(&mut node);
    let denied = vec![negative(SITE, 1, Action::DropAuthFailure)];
    receive(&mut node, &asked.answer_with(asked.requested, denied, &[SITE], true));
    assert!(is_secured(&node, SITE));
    assert_eq!(node.dropped(SITE), crate::drops::DropReason::ActionAuthFailure);
    node.advance(seconds(10));
    assert!(node.take_sent().is_empty());
}

#[test]
fn se_22_otherwise_it_is_asked_without_lisp_sec() {
    let mut node = Node::new(secured(false));
    node.miss(EID);
    let first = asked(&mut node);
    let denied = vec![negative(SITE, 1, Action::DropAuthFailure)];
    let answer = first.answer_with(first.requested, denied, &[SITE], true);
    let mut forged = answer.clone();
    *forged.last_mut().unwrap() ^= 1;
    receive(&mut node, &forged);
    node.advance(seconds(1));
    let second = asked(&mut node);
    assert!(second.nonce != first.nonce, "a forged E-bit downgrades nothing");
    receive(&mut node, &answer);
    assert!(node.cached().is_empty() && node.take_sent().is_empty());
    node.advance(seconds(1));
    let (_, ecm, request) = node.take_lookup();
    assert!(ecm.security.is_none());
    node.reply(request.nonce, vec![record(SITE, 1440, &[PEER])]);
    assert!(!is_secured(&node, SITE));
    assert_eq!(node.control.counters_view()["lisp_sec_downgrades"], 1);
    node.miss("10.3.0.9");
    asked(&mut node);
}

#[test]
fn se_17_locators_of_some_that_sign_are_used_in_spite_of_the_e_bit() {
    let mut node = Node::new(secured(false));
    node.miss(EID);
    let asked = asked(&mut node);
    let records = vec![record(SITE, 1440, &[PEER])];
    receive(&mut node, &asked.answer_with(asked.requested, records, &[SITE], true));
    assert_eq!(node.destinations(SITE), [PEER]);
    assert!(is_secured(&node, SITE));
}

#[test]
fn se_17_a_refresh_goes_through_the_mapping_system() {
    let mut node = Node::new(secured(true));
    node.miss(EID);
    let first = asked(&mut node);
    let records = vec![record(SITE, 2, &[PEER])];
    receive(&mut node, &first.answer(first.requested, records, &[SITE]));
    node.set(SITE).last_used.store(50, std::sync::atomic::Ordering::Relaxed);
    node.advance(seconds(105));
    let (transmit, ecm, _) = node.take_lookup();
    assert!(transmit.destination.ip() != ip(PEER) && ecm.security.is_some());
}

#[test]
fn se_17_a_probe_reply_changes_nothing_that_was_proved() {
    let mut node = Node::new(ControlConfig {
        probe: Some(ProbeConfig {
            interval: seconds(20),
            idle_interval: seconds(20),
            ..ProbeConfig::default()
        }),
        ..secured(true)
    });
    node.miss(EID);
    let first = asked(&mut node);
    receive(&mut node, &first.genuine());
    let probe = loop {
        let mut probes = node.take_sent().into_iter().filter_map(|sent| {
            let Ok(Message::MapRequest(request)) = Message::parse(&sent.payload) else {
                return None;
            };
            request.probe.then_some(request.nonce)
        });
        if let Some(nonce) = probes.next_back() {
            break nonce;
        }
        node.advance(Duration::from_millis(500));
    };
    let mut answer = MapReply::new(probe, vec![record(SITE, 1440, &[PEER, "192.0.2.66"])]);
    answer.probe = true;
    answer.records[0].locators[0].probed = true;
    node.receive(control_port(PEER), &Message::MapReply(answer));
    assert_eq!(node.control.counters_view()["probe_replies_received"], 1);
    assert_eq!(node.destinations(SITE), [PEER], "nobody proved the other locator");
}

// The ETR.

fn etr(required: bool) -> Node {
    let mut config = secured(required);
    let mut other = server();
    (other.endpoint, other.secret) = (Endpoint::Address(ip(RESOLVER_2)), Secret::new(vec![8; 16]));
    config.map_servers = vec![other, server()];
    let mut node = Node::new(config);
    node.advance(seconds(0));
    node.sent.clear();
    node
}

/// A protected Map-Request for one of our EIDs, as a Map-Server with the site's key passes it on; what came is in `edit`'s hands.
fn passed_on(node: &mut Node, edit: impl FnOnce(&mut EcmSecurity)) -> (Otk, Requested, Vec<u8>) {
    let (nonce, otk) = (77, Otk::new([3; 16]));
    let ids = Requested { hmac_id: 2, kdf_id: 2 };
    let wrapped = sec::wrap(&sec::ms_otk(&otk, ids.kdf_id).unwrap(), nonce, &server().secret);
    let mut security = EcmSecurity {
        requested_hmac: ids.hmac_id,
        key_id: 1,
        wrapping_id: wrapped.wrapping_id,
        preamble: wrapped.preamble,
        otk: wrapped.otk,
        eid_ad: eid_ad(&otk, ids, &["10.1.0.0/16"], false),
    };
    edit(&mut security);
    let mut message = Vec::new();
    request(nonce, "10.1.0.5/32").encode(&mut message);
    let inner = SocketAddr::new(ip("10.1.0.5"), CONTROL_PORT);
    let mut ecm = EncapsulatedControlMessage::new(control_port(PEER), inner, message);
    ecm.security = Some(security.to_vec());
    node.receive(control_port(SERVER), &Message::Encapsulated(ecm));
    (otk, ids, security.eid_ad.to_vec())
}

#[test]
fn se_16_the_etr_copies_the_eid_ad_and_signs_the_whole_reply() {
    let mut node = etr(true);
    let (otk, ids, eid_ad) = passed_on(&mut node, |_| {});
    let sent = node.take_one();
    assert_eq!(sent.destination.ip(), ip(PEER));
    let authorized = sec::open_reply(&sent.payload, &otk, ids).expect("the ITR accepts it");
    assert_eq!(authorized.prefixes, [EidField::from(prefix("10.1.0.0/16"))]);
    let security = MapReply::parse(&sent.payload).unwrap().security.unwrap();
    assert_eq!(security[4..4 + eid_ad.len()], eid_ad);
    assert_eq!(node.control.counters_view()["protected_map_replies_sent"], 1);
}

#[test]
fn se_14_the_etr_signs_with_the_hmac_asked_for_or_its_own() {
    for (requested, used) in [(1, 1), (2, 2), (0, 2), (99, 2)] {
        let mut node = etr(true);
        let (otk, ids, _) = passed_on(&mut node, |security| security.requested_hmac = requested);
        let sent = node.take_one();
        sec::open_reply(&sent.payload, &otk, Requested { hmac_id: used, ..ids }).unwrap();
    }
}

#[test]
fn se_04_se_06_the_etr_discards_what_does_not_unwrap() {
    let mut node = etr(true);
    passed_on(&mut node, |security| security.wrapping_id = 1);
    passed_on(&mut node, |security| security.otk[0] ^= 1);
    passed_on(&mut node, |security| security.key_id = 3);
    passed_on(&mut node, |security| security.eid_ad = EidAd::request(2));
    assert!(node.take_sent().is_empty());
    for reason in [
        Discard::KeyUnwrapped,
        Discard::OtkForged,
        Discard::OtkKeyUnknown,
        Discard::SecurityMalformed,
    ] {
        assert_eq!(node.discarded(reason), 1, "{reason}");
    }
}

#[test]
fn se_23_an_etr_that_requires_lisp_sec_answers_nothing_else_but_probes() {
    let plain = |node: &mut Node, probe: bool| {
        let mut request = request(8, "10.1.0.5/32");
        request.probe = probe;
        node.receive(control_port(PEER), &Message::MapRequest(request));
    };
    let encapsulated = |node: &mut Node| {
        let mut message = Vec::new();
        request(9, "10.1.0.5/32").encode(&mut message);
        let inner = SocketAddr::new(ip("10.1.0.5"), CONTROL_PORT);
        let ecm = EncapsulatedControlMessage::new(control_port(PEER), inner, message);
        node.receive(control_port(SERVER), &Message::Encapsulated(ecm));
    };
    let mut node = etr(true);
    plain(&mut node, false);
    encapsulated(&mut node);
    assert!(node.take_sent().is_empty());
    assert_eq!(node.discarded(Discard::SecurityMissing), 2);
    plain(&mut node, true);
    assert_eq!(node.take_sent().len(), 1);
    let mut node = etr(false);
    encapsulated(&mut node);
    assert!(MapReply::parse(&node.take_one().payload).unwrap().security.is_none());
}

#[test]
fn rg_11_the_s_bit_says_that_lisp_sec_is_spoken() {
    for (on, config) in [(true, secured(true)), (false, config())] {
        let mut node = Node::new(ControlConfig { map_servers: vec![server()], ..config });
        node.advance(seconds(1));
        let sent = node.take_sent();
        let Ok(Message::MapRegister(register)) = Message::parse(&sent[0].payload) else { panic!() };
        assert_eq!(register.security_capable, on);
    }
}
