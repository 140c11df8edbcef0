//! Subscriptions by LISP-SEC: the one-time key of a lookup is the key of the association.
use super::*;

/// A protected subscription of an xTR that shares no key but the ITRs' one.
fn protected(nonce: u64, eid: &str, otk: &Otk) -> Vec<u8> {
    let wrapped = sec::wrap(otk, nonce, &Secret::new(b"secret of the ITRs".to_vec()));
    let security = EcmSecurity {
        requested_hmac: sec::hmac_id::SHA_256_128,
        key_id: 5,
        wrapping_id: wrapped.wrapping_id,
        preamble: wrapped.preamble,
        otk: wrapped.otk,
        eid_ad: EidAd::request(sec::kdf_id::HKDF_SHA256),
    };
    let mut ecm = ecm(&subscription(nonce, eid, XtrIdentity { xtr_id: 5, site_id: 5 }));
    ecm.security = Some(security.to_vec());
    ecm.to_octets()
}

fn with_itr_keys() -> Bench {
    let mut config = with_subscribers();
    let secret = Secret::new(b"secret of the ITRs".to_vec());
    config.lisp_sec = LispSec { itr_keys: vec![ItrKey { id: 5, secret }], required: false };
    let mut bench = bench_of(config);
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    bench
}

fn signed_with(transmit: &Transmit, otk: &Otk, nonce: u64) {
    let wrapping_id = sec::wrapping_id::AES_KEY_WRAP_128_HKDF_SHA256;
    let key = sec::pubsub_key(otk, nonce, wrapping_id).unwrap();
    auth::verify(&transmit.payload, &key, &[Algorithm::HmacSha256]).unwrap();
    assert_eq!(notify(transmit).authentication.key_id, 0);
}

#[test]
fn ps_21_without_a_shared_key_the_one_time_key_makes_one() {
    let mut bench = with_itr_keys();
    let otk = Otk::new([7; 16]);
    let sent = bench.input(ITR, 40_001, &protected(50, "10.1.0.1/32", &otk));
    signed_with(&sent[0], &otk, 50);
    assert_eq!(shown(&notify(&sent[0])), mapping("10.1.0.0/16", ETR));
    let sent = bench.register(&register(2, vec![record("10.1.0.0/16", &[OTHER_ETR])]));
    let published: Vec<_> = sent.iter().filter(|t| t.destination.ip() == ip(ITR)).collect();
    signed_with(published[0], &otk, 50);
    assert_eq!(notify(published[0]).nonce, 51);
    // A fresh key makes a new association, even when the xTR has lost its nonces (PS-04).
    let fresh = Otk::new([8; 16]);
    let sent = bench.input(ITR, 40_001, &protected(3, "10.1.0.1/32", &fresh));
    signed_with(&sent[0], &fresh, 3);
    assert_eq!(bench.subscriptions()[0].nonce, "0000000000000003");
}

#[test]
fn ps_22_a_one_time_key_makes_one_association_only() {
    let mut bench = with_itr_keys();
    let otk = Otk::new([7; 16]);
    let first = protected(50, "10.1.0.1/32", &otk);
    assert_eq!(bench.input(ITR, 40_001, &first).len(), 1);
    assert!(bench.input(ITR, 40_001, &first).is_empty(), "a copy is dropped silently");
    assert_eq!(bench.discarded(Discard::SubscriptionReplayed), 1);
    let sent = bench.input(ITR, 40_001, &protected(60, "10.1.0.1/32", &otk));
    assert_eq!(reply(&sent[0]).records[0].action, Action::DropAuthFailure);
    assert_eq!(bench.discarded(Discard::SubscriptionKeyReused), 1);
    assert_eq!(bench.subscriptions()[0].nonce, "0000000000000032", "as before");
}
