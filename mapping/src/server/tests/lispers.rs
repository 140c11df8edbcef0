//! What lispers.net writes otherwise than RFC 8060 has it, and what it encrypts.

use super::*;
use crate::config::Profile;

/// JSON, as lispers.net has it for telemetry.
const TELEMETRY: &[u8] = br#"{ "type" : "telemetry", "sub-type" : "timestamps" }"#;

/// A Map-Server whose first site has this profile.
fn of_profile(profile: Profile) -> Bench {
    let mut config = config();
    config.sites[0].profile = profile;
    Bench::with(config)
}

/// A Map-Register with `{ETR, JSON with ETR}` for a locator, whose JSON LCAF is said to be two octets too short.
fn telemetry(nonce: u64, secret: &'static str) -> Vec<u8> {
    let mut body = u16::try_from(TELEMETRY.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(TELEMETRY);
    body.extend_from_slice(&[0, 1, 198, 51, 100, 11]);
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let json = Lcaf::Unknown { rsvd1: 0, flags: 0, kind: 14, rsvd2: 0, body };
    let list = Lcaf::AfiList(vec![ip(ETR).into(), Address::Lcaf(json)]);
    let mut locator = locator(ETR);
    locator.address = Address::Lcaf(list);
    let mut record = record("10.1.0.0/16", &[]);
    record.locators = vec![locator];
    let register = register(nonce, vec![record]).xtr(5);
    let mut octets = register.octets();
    let said = [&[14, 0][..], &length].concat();
    let at = octets.windows(4).position(|octets| octets == said).unwrap() + 3;
    octets[at] -= 2;
    let secret = Secret::new(secret.as_bytes().to_vec());
    auth::sign_covering(&mut octets, &secret, register.algorithm, register.covered).unwrap();
    octets
}

#[test]
fn cw_20_json_of_a_wrong_length_is_taken_of_lispers_net_and_passed_on_with_the_right_one() {
    assert_eq!(ETR, "198.51.100.11");
    let mut bench = of_profile(Profile::LispersNet);
    let sent = bench.input(ETR, 40_000, &telemetry(1, "secret-a"));
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip(ETR)]);
    assert_eq!(bench.server.get(Count::JsonLengthsMended), 1);
    // Strictly read.
    assert_eq!(rlocs_of(&notify(&sent[0]).records[0]), [ip(ETR)]);
    assert_eq!(rlocs_of(&bench.reply_to(1, "10.1.0.1/32")[0]), [ip(ETR)]);
}

#[test]
fn cw_20_json_of_a_wrong_length_is_refused_without_the_profile_and_the_reason_told() {
    for profile in [Profile::Rfc9301, Profile::Oor, Profile::Vpp] {
        let mut bench = of_profile(profile);
        assert!(bench.input(ETR, 40_000, &telemetry(1, "secret-a")).is_empty());
        assert_eq!(bench.discarded(Discard::JsonLength), 1);
        let told = &bench.server.refusals_view(bench.now)[0];
        assert_eq!((told.site.as_deref(), told.reason.as_str()), (Some("a"), "json_length"));
        assert!(told.help.contains("lispers.net"), "{}", told.help);
        assert!(bench.prefixes().is_empty());
    }
}

#[test]
fn au_11_json_of_a_wrong_length_does_not_hide_a_wrong_key() {
    let mut bench = of_profile(Profile::LispersNet);
    assert!(bench.input(ETR, 40_000, &telemetry(1, "guess")).is_empty());
    assert_eq!(bench.discarded(Discard::AuthenticationFailed), 1);
    assert_eq!(bench.server.get(Count::JsonLengthsMended), 0);
}

#[test]
fn cw_20_json_of_a_wrong_length_elsewhere_is_dropped() {
    let mut bench = of_profile(Profile::LispersNet);
    let mut reply = telemetry(1, "secret-a");
    // A Map-Reply has its records where a Map-Register has Key ID, Algorithm ID and MAC.
    reply.drain(12..32);
    reply[0] = 0x20;
    assert!(bench.input(ETR, CONTROL_PORT, &reply).is_empty());
    assert_eq!(bench.discarded(Discard::JsonLength), 1);
}

#[test]
fn cw_12_an_encrypted_map_register_is_refused_by_name() {
    for profile in [Profile::Rfc9301, Profile::LispersNet] {
        let mut bench = of_profile(profile);
        let mut octets = register(1, vec![record("10.1.0.0/16", &[ETR])]).octets();
        octets[2] |= 0x20;
        octets[4..].iter_mut().for_each(|octet| *octet ^= 0xa5);
        assert!(bench.input(ETR, 40_000, &octets).is_empty());
        assert_eq!(bench.discarded(Discard::RegisterEncrypted), 1);
        let told = bench.events().iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains("encryption-key"), "{told}");
    }
}
