use hkdf::Hkdf;

use super::*;
use crate::wire::vectors::{C8, C9, C10, C11, C12, C13, C14, C15, C16, SECRET, octets};
use crate::wire::{AuthenticationData, MapRegister, Message};

fn secret() -> Secret {
    Secret::new(SECRET.to_vec())
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac: Hmac<Sha256> = keyed(key);
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// The vector with its MAC field zeroed, as `encode` leaves it.
fn unsigned(vector: &[u8]) -> Vec<u8> {
    let layout = SignedLayout::of(vector).unwrap();
    let mut message = vector.to_vec();
    message[layout.mac].fill(0);
    message
}

#[test]
fn tv_r6_hkdf_sha_256() {
    let input = [0x0b; 22];
    let salt = octets("000102030405060708090a0b0c");
    let info = octets("f0f1f2f3f4f5f6f7f8f9");
    let mut output = [0; 42];
    Hkdf::<Sha256>::new(Some(&salt), &input).expand(&info, &mut output).unwrap();
    let expected =
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
    assert_eq!(output.to_vec(), octets(expected));
}

#[test]
fn tv_r7_hmac_sha_256() {
    let whole = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
    assert_eq!(hmac(&[0x0b; 20], b"Hi There"), octets(whole));
    let truncated = "a3b6167473100ee06e0c796c2955552b";
    assert_eq!(hmac(&[0x0c; 20], b"Test With Truncation")[..MAC_LEN], octets(truncated));
}

#[test]
fn au_01_au_02_au_03_au_05_tv_c8_to_c16_vectors_sign_to_the_same_octets() {
    for (vector, algorithm, covered) in [
        (C8, Algorithm::HmacSha1, Covered::Records),
        (C9, Algorithm::HmacSha1, Covered::Records),
        (C10, Algorithm::HmacSha256, Covered::Records),
        (C11, Algorithm::HmacSha256, Covered::Records),
        (C12, Algorithm::HmacSha256Hkdf, Covered::Records),
        (C13, Algorithm::HmacSha256Hkdf, Covered::Records),
        (C14, Algorithm::HmacSha256Hkdf, Covered::Records),
        (C15, Algorithm::HmacSha256, Covered::Records),
        (C16, Algorithm::HmacSha256, Covered::Message),
    ] {
        let vector = octets(vector);
        let mut message = unsigned(&vector);
        sign_covering(&mut message, &secret(), algorithm, covered).unwrap();
        assert_eq!(message, vector);
    }
}

#[test]
fn au_06_key_is_used_as_it_is_without_kdf() {
    let vector = octets(C10);
    assert_eq!(hmac(SECRET, &unsigned(&vector))[..MAC_LEN], vector[16..32]);
}

#[test]
fn au_07_au_08_per_message_keys() {
    let nonce = 0x1122_3344_5566_7788;
    for (kind, expected) in [
        (SignedKind::Register, "831b640bbb16ac32e326d34954320861e226b716fb3229b4971bd1954b1d359c"),
        (SignedKind::Notify, "ad6db0073d932223a54144656470e9abb3f72e67bc49b754ea74ef7d36c0f8bf"),
        (SignedKind::NotifyAck, "247df4acdf282c4ae01195222f249eefcd4b1e960d98f2c2d2462f736f252100"),
    ] {
        assert_eq!(per_message_key(SECRET, nonce, kind).to_vec(), octets(expected));
    }
}

#[test]
fn au_05_verification_reports_the_reach() {
    let all = &Algorithm::ALL;
    for vector in [C8, C9, C10, C11, C12, C13, C14, C16] {
        assert_eq!(verify(&octets(vector), &secret(), all), Ok(Covered::Message));
    }
    assert_eq!(verify(&octets(C15), &secret(), all), Ok(Covered::Records));
}

#[test]
fn au_05_identity_that_was_not_covered_can_be_forged_and_is_reported_so() {
    let forged = |vector: &str| {
        let mut message = octets(vector);
        *message.last_mut().unwrap() ^= 1;
        verify(&message, &secret(), &Algorithm::ALL)
    };
    assert_eq!(forged(C15), Ok(Covered::Records));
    assert_eq!(forged(C16), Err(AuthError::Mismatch));
}

#[test]
fn au_11_any_changed_octet_fails() {
    for vector in [C8, C9, C10, C11, C12, C13, C14, C16] {
        let genuine = octets(vector);
        for at in 0..genuine.len() {
            let mut message = genuine.clone();
            message[at] ^= 0x01;
            assert!(verify(&message, &secret(), &Algorithm::ALL).is_err(), "octet {at}");
        }
        let other = Secret::new(b"another-secret".to_vec());
        assert_eq!(verify(&genuine, &other, &Algorithm::ALL), Err(AuthError::Mismatch));
    }
}

#[test]
fn au_08_a_map_register_does_not_verify_as_a_map_notify() {
    let mut message = octets(C12);
    message[0] = 0x40;
    message[2] = 0;
    assert_eq!(verify(&message, &secret(), &Algorithm::ALL), Err(AuthError::Mismatch));
}

#[test]
fn au_12_unknown_algorithm_is_parsed_past_and_not_authentic() {
    let mut message = octets(C10);
    message[13] = 200;
    assert!(Message::parse(&message).is_ok());
    assert_eq!(verify(&message, &secret(), &Algorithm::ALL), Err(AuthError::Algorithm(200)));
}

#[test]
fn au_13_au_14_only_the_permitted_lengths() {
    for (algorithm, permitted) in [
        (Algorithm::HmacSha1, [12, 20]),
        (Algorithm::HmacSha256, [16, 32]),
        (Algorithm::HmacSha256Hkdf, [16, 32]),
    ] {
        assert_eq!([algorithm.mac_len(), algorithm.untruncated_mac_len()], permitted);
        for length in 0..=40 {
            let Ok(mut register) = MapRegister::parse(&octets(C10)) else { panic!("vector") };
            register.authentication = AuthenticationData::zeroed(1, algorithm.id(), length);
            let mut message = Vec::new();
            register.encode(&mut message);
            let signed = sign(&mut message, &secret(), algorithm);
            let verified = verify(&message, &secret(), &Algorithm::ALL);
            if permitted.contains(&length) {
                assert_eq!(signed, Ok(()));
                assert_eq!(verified, Ok(Covered::Message));
            } else {
                assert_eq!(signed, Err(AuthError::Length(length)));
                assert_eq!(verified, Err(AuthError::Length(length)));
            }
        }
    }
}

#[test]
fn au_03_au_04_au_15_other_algorithms_are_refused() {
    let hkdf_only = &[Algorithm::HmacSha256Hkdf];
    assert_eq!(verify(&octets(C10), &secret(), hkdf_only), Err(AuthError::Algorithm(2)));
    assert_eq!(verify(&octets(C12), &secret(), hkdf_only), Ok(Covered::Message));
    assert_eq!(verify(&octets(C8), &secret(), &Algorithm::STRONG), Err(AuthError::Algorithm(1)));
    assert_eq!(verify(&octets(C8), &secret(), &[Algorithm::HmacSha1]), Ok(Covered::Message));
    let mut none = octets(C10);
    none[13] = 0;
    assert_eq!(verify(&none, &secret(), &Algorithm::ALL), Err(AuthError::Algorithm(0)));
    assert_eq!(
        sign(&mut octets(C10), &secret(), Algorithm::HmacSha256Hkdf),
        Err(AuthError::Algorithm(2))
    );
}

#[test]
fn au_11_other_messages_and_cut_ones_are_malformed() {
    let genuine = octets(C12);
    for end in 0..genuine.len() {
        let cut = verify(&genuine[..end], &secret(), &Algorithm::ALL);
        assert!(matches!(cut, Err(AuthError::Malformed(_))), "{end}");
    }
    let mut reply = genuine;
    reply[0] = 0x20;
    assert_eq!(
        verify(&reply, &secret(), &Algorithm::ALL),
        Err(AuthError::Malformed(WireError::UnsupportedType(2)))
    );
}

#[test]
fn au_20_a_secret_is_not_printed() {
    let printed = format!("{:?} {:?}", secret(), secret().prepared());
    assert_eq!(printed, "Secret(..) PreparedKey(..)");
}
