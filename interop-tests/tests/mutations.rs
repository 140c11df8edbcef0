//! Damaged input stays harmless: no parser panics, and what parses says the same after another round trip.

use interop_tests::captures::control_datagrams;
use interop_tests::mutate;
use mapping::wire::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;

const PACKETS: usize = 300_000;

#[test]
fn cw_21_no_damaged_control_message_panics_or_changes_in_a_round_trip() {
    let corpus: Vec<Vec<u8>> = control_datagrams().into_iter().map(|d| d.payload).collect();
    let mut rng = StdRng::seed_from_u64(4342);
    let mut parsed = 0;
    for _ in 0..PACKETS {
        let packet = mutate::packet(&corpus, &mut rng);
        let Ok(message) = Message::parse(&packet) else { continue };
        let encoded = message.to_vec();
        let again = Message::parse(&encoded).map(|message| message.to_vec());
        assert_eq!(again.as_ref(), Ok(&encoded), "{packet:02x?}");
        parsed += 1;
    }
    assert!(
        parsed > PACKETS / 100,
        "only {parsed} of {PACKETS} still parse: the damage is too great to test much"
    );
}
