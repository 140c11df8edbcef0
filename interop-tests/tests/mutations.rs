//! Damaged input stays harmless: no parser panics, what parses says the same after another round trip, and nothing damaged passes
//! for authentic.
//!
//! `ISTHMUS_FUZZ_PACKETS` and `ISTHMUS_FUZZ_SEED` make a longer or another run of every test here.

use std::collections::HashSet;
use std::env;

use interop_tests::{corpus, mutate};
use mapping::auth::{self, Covered};
use mapping::config::Algorithm;
use mapping::sec::{self, Requested};
use mapping::wire::{EcmSecurity, EidField, MapReply, Message, ReplySecurity, Tolerance};
use rand::SeedableRng;
use rand::rngs::StdRng;

const PACKETS: u64 = 300_000;
const SEED: u64 = 4342;

fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// How many packets, and the generator that damages them.
fn run() -> (u64, StdRng) {
    let seed = from_environment("ISTHMUS_FUZZ_SEED").unwrap_or(SEED);
    let packets = from_environment("ISTHMUS_FUZZ_PACKETS").unwrap_or(PACKETS);
    (packets, StdRng::seed_from_u64(seed))
}

#[test]
fn cw_21_no_damaged_control_message_panics_or_changes_in_a_round_trip() {
    let corpus = corpus::control_messages();
    let (packets, mut rng) = run();
    let mut parsed = 0;
    for _ in 0..packets {
        let packet = mutate::packet(&corpus, &mut rng);
        let Ok(message) = Message::parse_with(&packet, Tolerance::LISPERS_NET) else { continue };
        let encoded = message.to_vec();
        let again = Message::parse(&encoded).map(|message| message.to_vec());
        assert_eq!(again.as_ref(), Ok(&encoded), "{packet:02x?}");
        look_inside(&message);
        parsed += 1;
    }
    assert!(
        parsed > packets / 100,
        "only {parsed} of {packets} still parse: the damage is too great to test much"
    );
}

/// What lies in a message as octets, and what EIDs other than IP prefixes mean.
fn look_inside(message: &Message) {
    match message {
        Message::Encapsulated(ecm) => {
            for security in ecm.security.iter().filter_map(|octets| EcmSecurity::parse(octets).ok())
            {
                assert_eq!(EcmSecurity::parse(&security.to_vec()), Ok(security));
            }
            if let Ok(request) = ecm.map_request_with(Tolerance::LISPERS_NET) {
                look_inside(&Message::MapRequest(request));
            }
        }
        Message::MapReply(MapReply { security: Some(octets), records, .. }) => {
            if let Ok(security) = ReplySecurity::parse(octets) {
                assert_eq!(ReplySecurity::parse(&security.to_vec()), Ok(security));
            }
            records.iter().for_each(|record| understand(&record.eid));
        }
        Message::MapRequest(request) => {
            request.records.iter().for_each(|record| understand(&record.eid));
        }
        _ => {}
    }
}

fn understand(eid: &EidField) {
    if let Some(name) = eid.name() {
        assert_eq!(EidField::from(&name).name(), Some(name));
    }
    if let Some(range) = eid.instance_range() {
        assert_eq!(EidField::from(range).instance_range(), Some(range));
    }
}

#[test]
fn au_11_no_damaged_message_is_authentic() {
    let corpus = corpus::signed();
    let genuine: HashSet<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
    let (packets, mut rng) = run();
    for _ in 0..packets {
        let packet = mutate::packet(&corpus, &mut rng);
        match auth::verify(&packet, &corpus::secret(), &Algorithm::ALL) {
            Ok(Covered::Message) => assert!(genuine.contains(&*packet), "{packet:02x?}"),
            // A genuine message with octets added: they are said to prove nothing.
            Ok(Covered::Records) => {
                let begins = genuine.iter().any(|message| packet.starts_with(message));
                assert!(begins, "{packet:02x?}");
            }
            Err(_) => {}
        }
    }
}

#[test]
fn se_18_no_damaged_reply_opens() {
    let genuine = corpus::protected_reply();
    let corpus = [genuine.clone()];
    let (packets, mut rng) = run();
    assert!(sec::open_reply(&genuine, &corpus::itr_otk(), Requested::default()).is_ok());
    for _ in 0..packets {
        let packet = mutate::packet(&corpus, &mut rng);
        let opened = sec::open_reply(&packet, &corpus::itr_otk(), Requested::default());
        assert!(opened.is_err() || packet == genuine, "{packet:02x?}");
    }
}
