use ipnet::IpNet;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::eid::InstanceId;
use crate::wire::vectors::{SECRET, octets};
use crate::wire::{EidRecord, LocatorRecord, Message};

const NONCE: u64 = 0x0102_0304_0506_0708;

fn secret() -> Secret {
    Secret::new(SECRET.to_vec())
}

fn otk() -> Otk {
    Otk(octets("00112233445566778899aabbccddeeff").try_into().unwrap())
}

fn prefix(text: &str) -> EidPrefix {
    let net: IpNet = text.parse().unwrap();
    EidPrefix::new(InstanceId::DEFAULT, net)
}

fn request(wrapped: &WrappedOtk) -> EcmSecurity {
    EcmSecurity {
        requested_hmac: hmac_id::SHA_256_128,
        key_id: 1,
        wrapping_id: wrapped.wrapping_id,
        preamble: wrapped.preamble,
        otk: wrapped.otk,
        eid_ad: EidAd::request(kdf_id::HKDF_SHA256),
    }
}

fn eid_ad(kdf_id: u16, hmac_id: u16, prefixes: &[&str]) -> EidAd {
    let body = EidAdBody {
        etr_cant_sign: false,
        hmac_id,
        prefixes: prefixes.iter().map(|text| prefix(text).into()).collect(),
        hmac: MacField::zeroed(0),
    };
    let mut eid_ad = EidAd { kdf_id, body: Some(body) };
    sign_eid_ad(&mut eid_ad, &otk()).unwrap();
    eid_ad
}

/// A Map-Reply for `prefixes` protected as Map-Server and ETR do it.
fn protected(kdf_id: u16, hmac_id: u16) -> Vec<u8> {
    let locators = vec![LocatorRecord::new(std::net::IpAddr::from([192, 0, 2, 1]), 1, 100)];
    let record = EidRecord::new(prefix("2001:db8:103::/48"), 1440, locators);
    let eid_ad = eid_ad(kdf_id, hmac_id, &["2001:db8:103::/48", "2001:db8:203::/48"]);
    let ms_otk = ms_otk(&otk(), kdf_id).unwrap();
    protect_reply(MapReply::new(NONCE, vec![record]), &eid_ad.to_vec(), &ms_otk, hmac_id).unwrap()
}

#[test]
fn tv_r6_hkdf_without_salt() {
    // RFC 5869 A.3: SHA-256, zero-length salt and info; A.7: SHA-1, salt not provided.
    assert_eq!(
        hkdf::<Hmac<Sha256>>(&[&[0x0b; 22]]).to_vec(),
        octets("8da4e775a563c18f715f802a063c5a31")
    );
    assert_eq!(
        hkdf::<Hmac<Sha1>>(&[&[0x0c; 10], &[0x0c; 12]]).to_vec(),
        octets("2c91117204d745f3500d636a62f64f0a")
    );
}

#[test]
fn tv_r8_aes_key_wrap() {
    let key: [u8; 16] = octets("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
    let mut wrapped = [0; 24];
    KwAes128::new(&key.into()).wrap_key(&otk().0, &mut wrapped).unwrap();
    let expected = "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5";
    assert_eq!(wrapped.to_vec(), octets(expected));
}

#[test]
fn se_05_tv_c19_wrapping() {
    assert_eq!(key_wrap_key(NONCE, &secret()).to_vec(), octets("a44614b6da7d521932d1d862bdea7e79"));
    let wrapped = wrap(&otk(), NONCE, &secret());
    assert_eq!(wrapped.wrapping_id, 2);
    let fields = [wrapped.preamble.to_be_bytes().as_slice(), &wrapped.otk].concat();
    assert_eq!(fields, octets("d4550f7343fc2d129ae0641a2ab368a23106ff3fc35c792a"));
    assert_eq!(unwrap(&request(&wrapped), NONCE, &secret()), Ok(otk()));
}

#[test]
fn se_06_another_iv_is_refused() {
    let wrapped = wrap(&otk(), NONCE, &secret());
    let other = Secret::new(b"another-secret".to_vec());
    assert_eq!(unwrap(&request(&wrapped), NONCE, &other), Err(SecError::Unwrap));
    assert_eq!(unwrap(&request(&wrapped), NONCE + 1, &secret()), Err(SecError::Unwrap));
    for bit in 0..128 {
        let mut damaged = request(&wrapped);
        damaged.otk[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(unwrap(&damaged, NONCE, &secret()), Err(SecError::Unwrap));
    }
    let damaged = EcmSecurity { preamble: wrapped.preamble ^ 1, ..request(&wrapped) };
    assert_eq!(unwrap(&damaged, NONCE, &secret()), Err(SecError::Unwrap));
}

#[test]
fn se_03_se_04_null_key_wrap_is_known_and_refused_without_transport_protection() {
    let request = request(&wrap_null(&otk()));
    assert_eq!((request.wrapping_id, request.preamble), (1, 0));
    assert_eq!(unwrap(&request, NONCE, &secret()), Err(SecError::Unencrypted));
    assert_eq!(unwrap_null(&request), Ok(otk()));
    let unknown = EcmSecurity { wrapping_id: 3, ..request };
    assert_eq!(unwrap(&unknown, NONCE, &secret()), Err(SecError::Wrapping(3)));
    assert_eq!(unwrap_null(&unknown), Err(SecError::Wrapping(3)));
}

#[test]
fn se_13_se_15_both_kdfs_derive_the_ms_otk() {
    let strong = ms_otk(&otk(), kdf_id::HKDF_SHA256).unwrap();
    let old = ms_otk(&otk(), kdf_id::HKDF_SHA1_128).unwrap();
    assert!(strong != old && strong != otk() && old != otk());
    assert_eq!(ms_otk(&otk(), 0), Err(SecError::Kdf(0)));
    assert_eq!(ms_otk(&otk(), 3), Err(SecError::Kdf(3)));
    assert_eq!([0, 1, 2, 9].map(choose_kdf), [2, 1, 2, 2]);
}

#[test]
fn se_14_both_hmacs_protect_and_the_stronger_is_preferred() {
    for (hmac_id, len) in [(hmac_id::SHA_1_96, 12), (hmac_id::SHA_256_128, 16)] {
        let eid_ad = eid_ad(2, hmac_id, &["2001:db8::/32"]);
        assert_eq!(eid_ad.body.as_ref().map(|body| body.hmac.len()), Some(len));
        assert_eq!(verify_eid_ad(&eid_ad.to_vec(), &otk()), Ok(eid_ad));
    }
    assert_eq!([0, 1, 2, 9].map(choose_hmac), [2, 1, 2, 2]);
    let mut unknown = eid_ad(2, 2, &[]);
    unknown.body.as_mut().unwrap().hmac_id = 9;
    assert_eq!(sign_eid_ad(&mut unknown, &otk()), Err(SecError::Hmac(9)));
    assert_eq!(verify_eid_ad(&unknown.to_vec(), &otk()), Err(SecError::Hmac(9)));
}

#[test]
fn se_12_the_eid_hmac_covers_the_eid_ad_from_its_length_on_with_the_field_zero() {
    let signed = eid_ad(2, 2, &["203.0.113.0/24"]);
    let octets_of = signed.to_vec();
    let head = octets("0020 0002 01 00 0002 00 18 0001 cb007100");
    assert_eq!(octets_of[..16], head);
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&otk().0).unwrap();
    mac.update(&head);
    mac.update(&[0; 16]);
    assert_eq!(octets_of[16..], mac.finalize().into_bytes()[..16]);
}

#[test]
fn se_12_bits_without_meaning_are_covered_too() {
    // A Map-Server that sets unassigned bits, or leaves host bits in the prefix, is verified over what it sent.
    let mut sent =
        octets("0020 0002 01 7f 0002 55 18 0001 cb007163 00000000000000000000000000000000");
    fill_last(&mut sent, 2, &otk()).unwrap();
    let eid_ad = verify_eid_ad(&sent, &otk()).unwrap();
    assert_eq!(eid_ad.body.unwrap().prefixes, [prefix("203.0.113.0/24").into()]);
    sent[5] ^= 1;
    assert_eq!(verify_eid_ad(&sent, &otk()), Err(SecError::EidMismatch));
}

#[test]
fn se_16_se_18_a_protected_reply_verifies_and_no_changed_octet_does() {
    for (kdf_id, hmac_id) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let reply = protected(kdf_id, hmac_id);
        let Ok(Message::MapReply(parsed)) = Message::parse(&reply) else { panic!("no reply") };
        assert!(parsed.security.is_some());
        let authorized = open_reply(&reply, &otk(), Requested::default()).unwrap();
        assert_eq!(authorized.prefixes.len(), 2);
        assert!(!authorized.etr_cant_sign);
        assert_eq!(verify_reply(&reply, &ms_otk(&otk(), kdf_id).unwrap()), Ok(()));
        for bit in 0..reply.len() * 8 {
            let mut changed = reply.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open_reply(&changed, &otk(), Requested::default()).is_err(), "bit {bit}");
        }
        let longer = [reply.as_slice(), &[0]].concat();
        assert!(open_reply(&longer, &otk(), Requested::default()).is_err());
        for end in 0..reply.len() {
            assert!(open_reply(&reply[..end], &otk(), Requested::default()).is_err(), "end {end}");
        }
        let other = Otk([7; 16]);
        let refused = open_reply(&reply, &other, Requested::default());
        assert_eq!(refused, Err(SecError::EidMismatch));
    }
}

#[test]
fn se_16_an_encoded_reply_is_signed_in_place() {
    let genuine = protected(2, 2);
    let mut reply = genuine.clone();
    let at = reply.len() - 16;
    reply[at..].fill(0xee);
    assert_eq!(sign_reply(&mut reply, &ms_otk(&otk(), 2).unwrap()), Ok(()));
    assert_eq!(reply, genuine);
    let mut plain = Vec::new();
    MapReply::new(NONCE, Vec::new()).encode(&mut plain);
    assert_eq!(sign_reply(&mut plain, &otk()), Err(SecError::Unprotected));
}

#[test]
fn se_16_the_etr_copies_the_eid_ad_octet_for_octet() {
    let eid_ad = eid_ad(2, 2, &["2001:db8::/32", "203.0.113.0/24"]);
    let ecm = EcmSecurity { eid_ad: eid_ad.clone(), ..request(&wrap(&otk(), NONCE, &secret())) };
    assert_eq!(eid_ad_octets(&ecm.to_vec()), Ok(eid_ad.to_vec().as_slice()));
    assert!(eid_ad_octets(&ecm.to_vec()[1..]).is_err());
}

#[test]
fn se_17_an_unprotected_reply_is_refused() {
    let mut plain = Vec::new();
    MapReply::new(NONCE, Vec::new()).encode(&mut plain);
    assert_eq!(open_reply(&plain, &otk(), Requested::default()), Err(SecError::Unprotected));
    // An EID-AD of an ITR: nothing vouched for.
    let bare = EidAd::request(2).to_vec();
    let ms_otk = ms_otk(&otk(), 2).unwrap();
    let reply = protect_reply(MapReply::new(NONCE, Vec::new()), &bare, &ms_otk, 2).unwrap();
    assert_eq!(open_reply(&reply, &otk(), Requested::default()), Err(SecError::Unprotected));
}

#[test]
fn se_20_other_ids_than_requested_are_told_apart() {
    let reply = protected(1, 1);
    let open = |hmac_id, kdf_id| open_reply(&reply, &otk(), Requested { hmac_id, kdf_id });
    assert_eq!(open(2, 1), Err(SecError::OtherHmac(1)));
    assert_eq!(open(1, 2), Err(SecError::OtherKdf(1)));
    assert!(open(1, 1).is_ok() && open(0, 0).is_ok() && open(0, 1).is_ok());
}

#[test]
fn se_21_tv_r4_a_record_is_used_within_what_was_authorised() {
    let authorized = Authorized {
        etr_cant_sign: false,
        prefixes: vec![prefix("2001:db8:103::/48").into(), prefix("2001:db8:203::/48").into()],
    };
    let used = |text| authorized.intersection(&prefix(text));
    assert_eq!(used("2001:db8:102::/48"), None);
    assert_eq!(used("2001:db8:103::/48"), Some(prefix("2001:db8:103::/48")));
    assert_eq!(used("2001:db8:200::/40"), None);
    assert_eq!(used("2001:db8:203:1::/64"), Some(prefix("2001:db8:203:1::/64")));
    let elsewhere =
        EidPrefix::new(InstanceId::new(7).unwrap(), prefix("2001:db8:103::/48").prefix());
    assert_eq!(authorized.intersection(&elsewhere), None);
}

#[test]
fn se_22_the_e_bit_reaches_the_itr() {
    let mut eid_ad = eid_ad(2, 2, &["203.0.113.0/24"]);
    eid_ad.body.as_mut().unwrap().etr_cant_sign = true;
    sign_eid_ad(&mut eid_ad, &otk()).unwrap();
    let ms_otk = ms_otk(&otk(), 2).unwrap();
    let reply = protect_reply(MapReply::new(NONCE, Vec::new()), &eid_ad.to_vec(), &ms_otk, 2);
    let authorized = open_reply(&reply.unwrap(), &otk(), Requested::default()).unwrap();
    assert!(authorized.etr_cant_sign);
}

#[test]
fn ps_21_the_key_of_a_subscription() {
    assert_eq!(pubsub_key(&otk(), NONCE, 1), Ok(Secret::new(otk().0.to_vec())));
    let derived = pubsub_key(&otk(), NONCE, 2).unwrap();
    let input = [otk().0.as_slice(), &NONCE.to_be_bytes()].concat();
    assert_eq!(derived, Secret::new(hkdf::<Hmac<Sha256>>(&[&input]).to_vec()));
    assert_ne!(pubsub_key(&otk(), NONCE + 1, 2), Ok(derived));
    assert_eq!(pubsub_key(&otk(), NONCE, 0), Err(SecError::Wrapping(0)));
}

#[test]
fn ps_22_a_used_key_is_known_again_by_its_fingerprint() {
    assert_eq!(otk().fingerprint(), otk().fingerprint());
    assert_ne!(otk().fingerprint(), Otk([0; 16]).fingerprint());
    assert_ne!(otk().fingerprint(), otk().0);
}

#[test]
fn se_01_keys_are_random_and_never_printed() {
    let mut rng = StdRng::seed_from_u64(9);
    let (first, second) = (Otk::random(&mut rng), Otk::random(&mut rng));
    assert_ne!(first, second);
    assert_eq!(format!("{first:?}"), "Otk(..)");
    let known = Otk([0x5a; 16]);
    let request = request(&wrap_null(&known));
    assert!(!format!("{request:?} {:?}", wrap_null(&known)).contains("90"));
}
