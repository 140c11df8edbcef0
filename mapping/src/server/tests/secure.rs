//! LISP-SEC between ITR, Map-Server and ETR (RFC 9303), with an ITR and an ETR made of the pure functions.

use super::*;
use crate::config::{ItrKey, LispSec};
use crate::sec::{self, Otk, Requested, hmac_id, kdf_id};
use crate::wire::security::{EcmSecurity, EidAd};
use crate::wire::{Action, EidField};

const ITR_KEY: &str = "secret of the ITRs";

fn itr_secret() -> Secret {
    Secret::new(ITR_KEY.as_bytes().to_vec())
}

fn secured(required: bool) -> Bench {
    let mut config = config();
    let itr_keys = vec![
        ItrKey { id: 4, secret: Secret::new(b"the secret before".to_vec()) },
        ItrKey { id: 5, secret: itr_secret() },
        ItrKey { id: 5, secret: Secret::new(b"the secret to come".to_vec()) },
    ];
    config.lisp_sec = LispSec { itr_keys, required };
    Bench::with(config)
}

/// A registration with the P- and S-bits as given.
fn registered(bench: &mut Bench, nonce: u64, proxy: bool, signs: bool, record: EidRecord) {
    let register = register(nonce, vec![record]).xtr(u128::from(nonce)).edit(|message| {
        (message.proxy_reply, message.security_capable, message.merge) = (proxy, signs, true);
    });
    assert!(!bench.register(&register).is_empty(), "accepted");
}

/// A protected Map-Request in the making.
struct Protected {
    request: MapRequest,
    otk: Otk,
    security: EcmSecurity,
}

impl Protected {
    fn new(nonce: u64, eids: &[&str]) -> Self {
        let otk = Otk::new([nonce as u8 ^ 0x5a; 16]);
        let wrapped = sec::wrap(&otk, nonce, &itr_secret());
        let security = EcmSecurity {
            requested_hmac: hmac_id::SHA_256_128,
            key_id: 5,
            wrapping_id: wrapped.wrapping_id,
            preamble: wrapped.preamble,
            otk: wrapped.otk,
            eid_ad: EidAd::request(kdf_id::HKDF_SHA256),
        };
        Self { request: request(nonce, eids, &[ITR]), otk, security }
    }

    fn asking(mut self, hmac_id: u16, kdf_id: u16) -> Self {
        (self.security.requested_hmac, self.security.eid_ad.kdf_id) = (hmac_id, kdf_id);
        self
    }

    fn requested(&self) -> Requested {
        let (hmac_id, kdf_id) = (self.security.requested_hmac, self.security.eid_ad.kdf_id);
        Requested { hmac_id, kdf_id }
    }

    fn ask(&self, bench: &mut Bench) -> Vec<Transmit> {
        let mut ecm = ecm(&self.request);
        ecm.security = Some(self.security.to_vec());
        bench.input(ITR, 40_001, &ecm.to_octets())
    }

    /// The records of the protected answer, and what is vouched for.
    fn answer(&self, bench: &mut Bench) -> (Vec<EidRecord>, sec::Authorized) {
        let sent = self.ask(bench);
        assert_eq!(sent.len(), 1);
        assert!(sent[0].payload.len() <= 548, "CW-06");
        let authorized = sec::open_reply(&sent[0].payload, &self.otk, self.requested()).unwrap();
        (reply(&sent[0]).records, authorized)
    }
}

/// What the ETR with `secret` makes of a forwarded request: its authentication data and the MS-OTK.
fn at_etr(sent: &[Transmit], secret: &str) -> (EncapsulatedControlMessage, EcmSecurity, Otk) {
    assert_eq!(sent.len(), 1);
    let ecm = EncapsulatedControlMessage::parse(&sent[0].payload).unwrap();
    let security = EcmSecurity::parse(ecm.security.as_ref().unwrap()).unwrap();
    let nonce = ecm.map_request().unwrap().nonce;
    let secret = Secret::new(secret.as_bytes().to_vec());
    let ms_otk = sec::unwrap(&security, nonce, &secret).unwrap();
    (ecm, security, ms_otk)
}

#[test]
fn se_09_se_12_se_13_a_protected_proxy_reply() {
    let mut bench = secured(true);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    let asked = Protected::new(9, &["10.1.2.3/32"]);
    let (records, authorized) = asked.answer(&mut bench);
    assert_eq!(rlocs_of(&records[0]), [ip(ETR)]);
    assert!(!authorized.etr_cant_sign);
    assert_eq!(authorized.prefixes, [EidField::from(eid_prefix("10.1.0.0/16"))]);
    assert_eq!(bench.server.get(Count::ProtectedMapRequests), 1);
    assert_eq!(bench.server.get(Count::ProtectedReplies), 1);
}

#[test]
fn se_09_one_etr_with_the_p_bit_is_enough_and_the_e_bit_stays_off() {
    let mut bench = secured(true);
    registered(&mut bench, 1, false, false, record("10.1.0.0/16", &[ETR]));
    registered(&mut bench, 2, true, false, record("10.1.0.0/16", &[OTHER_ETR]));
    let mut asked = Protected::new(9, &["10.1.2.3/32"]);
    asked.request.authoritative = true;
    let (records, authorized) = asked.answer(&mut bench);
    assert_eq!(records[0].locators.len(), 2);
    assert!(!authorized.etr_cant_sign, "even with the A-bit: rule 1 of RFC 9303 §6.7 comes first");
}

#[test]
fn se_08_se_10_ms_15_an_etr_that_signs_is_asked_with_its_own_wrapping() {
    let mut bench = secured(true);
    registered(&mut bench, 1, false, true, record("10.1.0.0/16", &[ETR]));
    let asked = Protected::new(9, &["10.1.2.3/32"]);
    let sent = asked.ask(&mut bench);
    assert_eq!(sent[0].destination, SocketAddr::new(ip(ETR), CONTROL_PORT));
    let (ecm, security, ms_otk) = at_etr(&sent, "secret-a");
    let mut expected = Vec::new();
    asked.request.encode(&mut expected);
    assert_eq!(ecm.message, expected, "MR-05: the Map-Request itself is unchanged");
    assert_eq!(security.key_id, 1);
    assert_eq!(ms_otk, sec::ms_otk(&asked.otk, kdf_id::HKDF_SHA256).unwrap());
    assert_ne!(security.otk, asked.security.otk, "the ITR-OTK stays here");
    let eid_ad = sec::eid_ad_octets(ecm.security.as_ref().unwrap()).unwrap();
    let body = sec::verify_eid_ad(eid_ad, &asked.otk).unwrap().body.unwrap();
    assert!(!body.etr_cant_sign);
    assert_eq!(body.prefixes, [EidField::from(eid_prefix("10.1.0.0/16"))]);
    assert_eq!(bench.server.get(Count::ProtectedForwards), 1);
}

#[test]
fn se_10_only_those_that_sign_are_asked_and_the_e_bit_tells_of_the_others() {
    let mut bench = secured(true);
    registered(&mut bench, 1, false, true, record("10.1.0.0/16", &[ETR]));
    registered(&mut bench, 2, false, false, record("10.1.0.0/16", &[OTHER_ETR]));
    for nonce in 10..16 {
        let asked = Protected::new(nonce, &["10.1.2.3/32"]);
        let sent = asked.ask(&mut bench);
        assert_eq!(sent[0].destination.ip(), ip(ETR));
        let (_, security, _) = at_etr(&sent, "secret-a");
        assert!(security.eid_ad.body.unwrap().etr_cant_sign);
    }
}

#[test]
fn se_11_when_none_signs_the_answer_is_negative_with_the_e_bit() {
    let mut bench = secured(true);
    registered(&mut bench, 1, false, false, record("10.1.0.0/16", &[ETR]));
    let (records, authorized) = Protected::new(9, &["10.1.2.3/32"]).answer(&mut bench);
    assert!(records[0].is_negative() && authorized.etr_cant_sign);
    assert_eq!((records[0].action, records[0].ttl_minutes), (Action::DropAuthFailure, 1), "MS-13");
    assert_eq!(records[0].eid.prefix(), Some(eid_prefix("10.1.0.0/16")));
    registered(&mut bench, 2, false, true, record("10.1.128.0/24", &[OTHER_ETR]));
    let (records, authorized) = Protected::new(10, &["10.1.2.3/32"]).answer(&mut bench);
    let narrowed = records[0].eid.prefix().unwrap();
    assert_eq!(narrowed, eid_prefix("10.1.0.0/17"), "the other ETR's prefix is not hidden");
    assert_eq!(authorized.intersection(&narrowed), Some(narrowed));
}

#[test]
fn ms_10_ms_11_negative_answers_are_protected_too() {
    let mut bench = secured(true);
    for (nonce, eid, hole) in
        [(9, "10.3.0.1/32", "10.3.0.0/16"), (10, "10.2.0.1/32", "10.2.0.0/16")]
    {
        let (records, authorized) = Protected::new(nonce, &[eid]).answer(&mut bench);
        assert!(records[0].is_negative() && !authorized.etr_cant_sign);
        assert_eq!(records[0].eid.prefix(), Some(eid_prefix(hole)));
        assert_eq!(authorized.intersection(&eid_prefix(hole)), Some(eid_prefix(hole)));
    }
}

#[test]
fn se_12_every_answered_prefix_is_vouched_for() {
    let mut bench = secured(true);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    registered(&mut bench, 2, true, true, record("10.1.16.0/24", &[ETR]));
    let asked = Protected::new(9, &["10.1.2.3/32", "10.3.0.1/32"]);
    let (records, authorized) = asked.answer(&mut bench);
    assert_eq!(records.len(), 3);
    for record in records {
        let prefix = record.eid.prefix().unwrap();
        assert_eq!(authorized.intersection(&prefix), Some(prefix), "{prefix}");
    }
}

#[test]
fn se_13_se_14_se_15_ids_are_negotiated() {
    let mut bench = secured(true);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    let none = (hmac_id::NO_PREFERENCE, kdf_id::NO_PREFERENCE);
    let old = (hmac_id::SHA_1_96, kdf_id::HKDF_SHA1_128);
    for (at, (hmac, kdf)) in [none, old, (2, 1), (1, 2)].into_iter().enumerate() {
        bench.advance(4);
        let asked = Protected::new(20 + at as u64, &["10.1.2.3/32"]).asking(hmac, kdf);
        let sent = asked.ask(&mut bench);
        sec::open_reply(&sent[0].payload, &asked.otk, asked.requested()).unwrap();
    }
    bench.advance(4);
    let unknown = Protected::new(30, &["10.1.2.3/32"]).asking(77, 78);
    let sent = unknown.ask(&mut bench);
    let anything = Requested::default();
    sec::open_reply(&sent[0].payload, &unknown.otk, anything).unwrap();
    let security = reply(&sent[0]).security.unwrap();
    let security = crate::wire::security::ReplySecurity::parse(&security).unwrap();
    assert_eq!((security.packet_hmac_id, security.eid_ad.kdf_id), (2, 2), "what is supported");
}

#[test]
fn se_04_a_key_in_the_clear_is_refused() {
    let mut bench = secured(false);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    for key_id in [5, 0] {
        let mut asked = Protected::new(9, &["10.1.2.3/32"]);
        let null = sec::wrap_null(&asked.otk);
        asked.security.wrapping_id = null.wrapping_id;
        (asked.security.preamble, asked.security.otk) = (null.preamble, null.otk);
        asked.security.key_id = key_id;
        assert!(asked.ask(&mut bench).is_empty());
    }
    assert_eq!(bench.discarded(Discard::KeyUnwrapped), 2);
}

#[test]
fn se_05_se_06_a_key_that_does_not_unwrap_discards_the_message() {
    let mut bench = secured(false);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    let mut forged = Protected::new(9, &["10.1.2.3/32"]);
    forged.security.otk[3] ^= 1;
    assert!(forged.ask(&mut bench).is_empty());
    let mut preamble = Protected::new(9, &["10.1.2.3/32"]);
    preamble.security.preamble ^= 1;
    assert!(preamble.ask(&mut bench).is_empty());
    let mut nonce = Protected::new(9, &["10.1.2.3/32"]);
    nonce.request.nonce ^= 1;
    assert!(nonce.ask(&mut bench).is_empty(), "the key is wrapped for its nonce");
    let mut other_key = Protected::new(9, &["10.1.2.3/32"]);
    other_key.security.key_id = 4;
    assert!(other_key.ask(&mut bench).is_empty());
    assert_eq!(bench.discarded(Discard::OtkForged), 4);
    let mut malformed = ecm(&forged.request);
    malformed.security = Some(forged.security.to_vec());
    malformed.security.as_mut().unwrap()[5] = 23;
    bench.input(ITR, 40_001, &malformed.to_octets());
    assert_eq!(bench.server.get(Count::MapReplies), 0);
}

#[test]
fn ms_13_an_unknown_key_id_is_told_as_an_authentication_failure() {
    let mut bench = secured(true);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    let mut asked = Protected::new(9, &["10.1.2.3/32"]);
    asked.security.key_id = 99;
    let sent = asked.ask(&mut bench);
    let reply = reply(&sent[0]);
    assert!(reply.security.is_none(), "there is no key to protect it with");
    assert_eq!(reply.records.len(), 1);
    assert_eq!(reply.records[0].action, Action::DropAuthFailure);
    assert_eq!(reply.records[0].eid.prefix(), Some(eid_prefix("10.1.2.3/32")));
    assert_eq!(bench.discarded(Discard::OtkKeyUnknown), 1);
}

#[test]
fn se_23_without_lisp_sec_nothing_is_answered_where_it_is_required() {
    let mut bench = secured(true);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    assert!(bench.ask_for(1, "10.1.2.3/32").is_empty());
    assert!(bench.ask_for(2, "10.3.2.3/32").is_empty());
    assert_eq!(bench.discarded(Discard::SecurityMissing), 2);
    let mut bench = secured(false);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    assert!(reply(&bench.ask_for(1, "10.1.2.3/32")[0]).security.is_none());
}

#[test]
fn se_03_a_map_server_without_keys_answers_as_one_without_lisp_sec() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    let sent = Protected::new(9, &["10.1.2.3/32"]).ask(&mut bench);
    assert!(reply(&sent[0]).security.is_none());
}

#[test]
fn rp_15_a_forged_request_does_not_take_the_protected_answer_away() {
    let mut bench = secured(false);
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &[ETR]));
    for nonce in 1..20 {
        let answered = nonce <= u64::from(timers::MAP_REPLY_BURST);
        let sent = bench.ask_for(nonce, "10.1.2.3/32").len();
        assert_eq!(sent, usize::from(answered), "anybody, in the ITR's name");
    }
    for nonce in 0..u64::from(timers::MAP_REPLY_BURST) {
        Protected::new(30 + nonce, &["10.1.2.3/32"]).answer(&mut bench);
    }
    assert!(Protected::new(60, &["10.1.2.3/32"]).ask(&mut bench).is_empty());
}

#[test]
fn cw_06_a_protected_reply_stays_within_576_octets() {
    let mut bench = secured(true);
    let rlocs: Vec<_> = (1..=35).map(|host| format!("198.51.100.{host}")).collect();
    let rlocs: Vec<_> = rlocs.iter().map(String::as_str).collect();
    registered(&mut bench, 1, true, true, record("10.1.0.0/16", &rlocs));
    let (records, _) = Protected::new(9, &["10.1.2.3/32"]).answer(&mut bench);
    assert!(records[0].locators.len() > 25);
    let eids: Vec<_> = (0..40).map(|at| format!("10.{}.0.1/32", 40 + at)).collect();
    let eids: Vec<_> = eids.iter().map(String::as_str).collect();
    Protected::new(10, &eids).answer(&mut bench);
}

#[test]
fn au_20_a_protection_does_not_print_its_key() {
    let asked = Protected::new(0x11, &["10.1.2.3/32"]);
    let shown = format!("{:?} {:?}", asked.otk, asked.security);
    assert!(!shown.contains("75, 75"), "{shown}");
}
