//! State that survives: a crash is a new Map-Server that is given what the last one had kept.

use std::collections::BTreeMap;

use super::*;
use crate::clock::Epoch;

/// A Map-Server whose changes are kept in a map.
struct Lasting {
    bench: Bench,
    epoch: Epoch,
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    written: Vec<Vec<u8>>,
}

impl Lasting {
    fn new() -> Self {
        let now = Instant::now();
        let epoch = Epoch::new(now, Duration::from_secs(1_800_000_000));
        let server = MapServer::durable(config(), [1; 32], epoch);
        let bench = Bench { server, now };
        Self { bench, epoch, kept: BTreeMap::new(), written: Vec::new() }
    }

    /// What is sent once the changes are kept, after they are.
    fn keep(&mut self) -> Vec<Transmit> {
        let Some(batch) = self.bench.server.take_batch() else { return Vec::new() };
        for (key, value) in batch.changes.iter() {
            self.written.push(key.to_vec());
            match value {
                Some(value) => drop(self.kept.insert(key.to_vec(), value.to_vec())),
                None => drop(self.kept.remove(key)),
            }
        }
        batch.transmits
    }

    fn register(&mut self, register: &Register) -> Vec<Transmit> {
        assert!(self.bench.register(register).is_empty(), "nothing leaves before it is kept");
        self.keep()
    }

    fn advance(&mut self, seconds: u64) {
        self.bench.advance(seconds);
        self.keep();
    }

    /// The process ends without warning; another one starts `seconds` later, with `config`.
    fn restart(&mut self, seconds: u64, config: MappingConfig) {
        self.bench.now += Duration::from_secs(seconds);
        self.bench.server = MapServer::durable(config, [2; 32], self.epoch);
        for (key, value) in &self.kept {
            self.bench.server.restore(self.bench.now, key, value).unwrap();
        }
        self.bench.advance(0);
        self.keep();
    }

    fn keys(&self, family: u8) -> usize {
        self.kept.keys().filter(|key| key[0] == family).count()
    }
}

#[test]
fn ms_24_answers_are_the_same_after_a_crash() {
    let mut lasting = Lasting::new();
    let mut first = record("10.1.0.0/16", &[ETR, "2001:db8::11"]);
    first.map_version = 7;
    first.ttl_minutes = 60;
    first.locators[1].reachable = false;
    let records = vec![first, record("10.1.2.0/24", &[OTHER_ETR]), record("10.9.0.0/16", &[])];
    let part = |rloc, xtr| {
        let records = vec![record("10.1.0.7/32", &[rloc])];
        register(2, records).xtr(xtr).edit(|message| message.merge = true)
    };
    assert_eq!(lasting.register(&register(1, records).xtr(1)).len(), 1);
    lasting.register(&part(ETR, 2));
    lasting.register(&part(OTHER_ETR, 3));
    lasting.advance(20);
    let eids = ["10.1.0.1/32", "10.1.0.7/32", "10.1.2.0/24", "10.9.0.0/16", "10.200.0.1/32"];
    let mut before = Vec::new();
    for eid in eids {
        before.push(lasting.bench.reply_to(9, eid));
    }
    let views = lasting.bench.server.registrations_view(lasting.bench.now);
    lasting.restart(5, config());
    for (eid, before) in eids.iter().zip(before) {
        assert_eq!(lasting.bench.reply_to(9, eid), before, "{eid}");
    }
    let after = lasting.bench.server.registrations_view(lasting.bench.now);
    assert_eq!(after.len(), views.len());
    for (after, before) in after.iter().zip(&views) {
        assert_eq!(after.uptime_seconds, before.uptime_seconds + 5);
        assert!(
            after.expires_seconds <= 180 && after.expires_seconds + 6 >= before.expires_seconds
        );
        assert_eq!((&after.xtr_id, &after.source), (&before.xtr_id, &before.source));
    }
}

#[test]
fn au_17_an_accepted_nonce_is_refused_after_a_crash() {
    let mut lasting = Lasting::new();
    let registration = |nonce| register(nonce, vec![record("10.9.0.0/16", &[ETR])]).xtr(1);
    lasting.register(&registration(41));
    lasting.register(&registration(42));
    lasting.restart(2, config());
    assert!(lasting.register(&registration(41)).is_empty(), "older");
    let other = register(42, vec![record("10.9.0.0/16", &[OTHER_ETR])]).xtr(1);
    assert!(lasting.register(&other).is_empty(), "same nonce, other message");
    assert_eq!(lasting.bench.discarded(Discard::Replayed), 2);
    assert_eq!(lasting.register(&registration(43)).len(), 1);
    lasting.restart(4_000, config());
    assert!(lasting.register(&registration(43)).is_empty(), "however long ago");
}

#[test]
fn au_18_a_retransmission_is_acknowledged_across_a_crash() {
    let mut lasting = Lasting::new();
    let registration = register(7, vec![record("10.9.0.0/16", &[ETR])]).xtr(1);
    let before = lasting.register(&registration);
    lasting.restart(2, config());
    assert_eq!(lasting.register(&registration), before, "the Map-Notify may have been lost");
    lasting.restart(120, config());
    assert!(lasting.register(&registration).is_empty(), "only for a while");
}

#[test]
fn ms_24_a_crash_before_the_write_loses_what_was_not_acknowledged() {
    let mut lasting = Lasting::new();
    let registration = register(7, vec![record("10.9.0.0/16", &[ETR])]);
    assert!(lasting.bench.register(&registration).is_empty());
    lasting.restart(1, config());
    assert_eq!(lasting.register(&registration).len(), 1, "the ETR sends it again");
}

#[test]
fn ms_24_a_refresh_writes_its_nonce_and_seldom_the_registration() {
    let mut lasting = Lasting::new();
    let prefixes: Vec<_> = (0..10).map(|i| format!("10.1.{i}.0/24")).collect();
    let records: Vec<_> = prefixes.iter().map(|prefix| record(prefix, &[ETR])).collect();
    lasting.register(&register(1, records.clone()));
    assert_eq!(lasting.written.len(), 11);
    for nonce in 2..=7 {
        lasting.advance(60);
        lasting.written.clear();
        lasting.register(&register(nonce, records.clone()));
        assert!([1, 11].contains(&lasting.written.len()), "{}", lasting.written.len());
        let kept = lasting.written.len() == 11;
        assert_eq!(kept, nonce % 2 == 1, "every second time");
    }
    lasting.restart(150, config());
    assert_eq!(lasting.bench.prefixes().len(), 10, "restored with grace");
    lasting.advance(180);
    assert!(lasting.bench.prefixes().is_empty(), "but for no other lifetime");
    assert_eq!((lasting.keys(b'r'), lasting.keys(b'n')), (0, 1));
}

#[test]
fn ms_03_what_expired_meanwhile_is_not_answered_nor_kept() {
    let mut lasting = Lasting::new();
    lasting.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]));
    lasting.restart(3_600, config());
    assert!(lasting.bench.prefixes().is_empty());
    assert_eq!(lasting.keys(b'r'), 0);
}

#[test]
fn ms_21_a_withdrawn_registration_does_not_come_back() {
    let mut lasting = Lasting::new();
    lasting.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]));
    let mut gone = record("10.9.0.0/16", &[]);
    gone.ttl_minutes = 0;
    lasting.register(&register(2, vec![gone]));
    lasting.restart(1, config());
    assert!(lasting.bench.prefixes().is_empty());
}

#[test]
fn ms_18_a_replaced_registration_does_not_come_back() {
    let mut lasting = Lasting::new();
    lasting.register(&register(1, vec![record("10.1.0.7/32", &[ETR])]).xtr(1));
    lasting.register(&register(1, vec![record("10.1.0.7/32", &[OTHER_ETR])]).xtr(2));
    assert_eq!(lasting.keys(b'r'), 1);
    lasting.restart(1, config());
    assert_eq!(lasting.bench.rlocs("10.1.0.7/32"), [ip(OTHER_ETR)]);
}

#[test]
fn ms_01_what_the_configuration_no_longer_allows_is_reported_not_answered() {
    let mut lasting = Lasting::new();
    let records = vec![record("10.1.2.0/24", &[ETR]), record("10.9.0.0/16", &[ETR])];
    lasting.register(&register(1, records));
    let mut narrower = config();
    narrower.sites[0].eid_prefixes.remove(1);
    narrower.sites.reverse();
    lasting.restart(1, narrower);
    assert_eq!(lasting.bench.prefixes(), ["10.1.2.0/24"]);
    let views = lasting.bench.server.registrations_view(lasting.bench.now);
    assert_eq!(views[0].site, "a", "by name, whatever its place");
    let told: Vec<_> = lasting.bench.events().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("10.9.0.0/16 (site a)") && told[0].contains("not_a_site"), "{told:?}");
    let mut renamed = config();
    renamed.sites[0].name = "renamed".to_owned();
    lasting.restart(1, renamed);
    assert!(lasting.bench.prefixes().is_empty(), "another site does not inherit");
}

#[test]
fn ms_08_without_its_key_a_registration_stays_but_nobody_is_told() {
    let mut lasting = Lasting::new();
    let first = register(1, vec![record("10.1.0.7/32", &[ETR])]).xtr(1);
    lasting.register(&first);
    let mut rolled = config();
    rolled.sites[0].keys.remove(0);
    lasting.restart(1, rolled);
    assert_eq!(lasting.bench.rlocs("10.1.0.7/32"), [ip(ETR)]);
    let to = register(1, vec![record("10.1.0.7/32", &[OTHER_ETR])])
        .xtr(2)
        .from(OTHER_ETR)
        .signed_by("secret-b");
    let sent = lasting.register(&to);
    assert_eq!(sent.len(), 1, "the acknowledgement only");
    assert_eq!(sent[0].destination.ip(), ip(OTHER_ETR));
}

#[test]
fn ms_08_the_previous_etr_is_told_after_a_crash_too() {
    let mut lasting = Lasting::new();
    lasting.register(&register(1, vec![record("10.1.0.7/32", &[ETR])]).xtr(1));
    lasting.restart(1, config());
    let to = register(1, vec![record("10.1.0.7/32", &[OTHER_ETR])]).xtr(2).from(OTHER_ETR);
    let sent = lasting.register(&to);
    let told = sent.iter().find(|transmit| transmit.destination.ip() == ip(ETR)).unwrap();
    let secret = Secret::new(b"secret-a".to_vec());
    auth::verify(&told.payload, &secret, &[Algorithm::HmacSha256Hkdf]).unwrap();
}

#[test]
fn ms_24_two_map_servers_of_a_cluster_answer_alike() {
    let (mut one, mut two) = (Lasting::new(), Lasting::new());
    let now = one.bench.now;
    let follow = |from: &mut Lasting, to: &mut Lasting, register: &Register| {
        from.bench.register(register);
        let batch = from.bench.server.take_batch().unwrap();
        for (key, value) in batch.changes.iter() {
            to.bench.server.apply(now, key, value).unwrap();
        }
        batch.transmits.len()
    };
    let at = |nonce, rloc| register(nonce, vec![record("10.9.0.0/16", &[rloc])]).xtr(1);
    assert_eq!(follow(&mut one, &mut two, &at(10, ETR)), 1);
    assert_eq!(two.bench.rlocs("10.9.0.0/16"), [ip(ETR)]);
    assert!(two.register(&at(9, OTHER_ETR)).is_empty(), "older than what the other accepted");
    assert_eq!(follow(&mut two, &mut one, &at(11, OTHER_ETR)), 1);
    assert_eq!(one.bench.rlocs("10.9.0.0/16"), [ip(OTHER_ETR)]);
    assert_eq!(one.register(&at(10, ETR)).len(), 1, "its own last message may be repeated");
    assert_eq!(one.bench.rlocs("10.9.0.0/16"), [ip(OTHER_ETR)], "and changes nothing");
    let mut gone = record("10.9.0.0/16", &[]);
    gone.ttl_minutes = 0;
    follow(&mut one, &mut two, &register(12, vec![gone]).xtr(1));
    assert!(two.bench.prefixes().is_empty());
    assert!(two.bench.server.take_batch().is_none(), "what another keeps is not kept again");
}

#[test]
fn ms_08_the_previous_etr_is_told_by_the_map_server_that_heard_of_the_new_one() {
    let (mut one, mut two) = (Lasting::new(), Lasting::new());
    let mut elsewhere = config();
    elsewhere.listen = vec![ip("198.51.100.200")];
    two.restart(0, elsewhere);
    one.register(&register(1, vec![record("10.1.0.7/32", &[ETR])]).xtr(1));
    for (key, value) in &one.kept {
        two.bench.server.apply(two.bench.now, key, Some(value)).unwrap();
    }
    let there = register(1, vec![record("10.1.0.7/32", &[OTHER_ETR])]).xtr(2).from(OTHER_ETR);
    let now = two.bench.now;
    let (local, from) = (ip("198.51.100.200"), SocketAddr::new(ip(OTHER_ETR), CONTROL_PORT));
    two.bench.server.handle_input(now, SocketAddr::new(local, CONTROL_PORT), from, &there.octets());
    let sent = two.keep();
    let told = sent.iter().find(|transmit| transmit.destination.ip() == ip(ETR)).unwrap();
    assert_eq!(told.source, local, "from an address that it has");
}

#[test]
fn au_16_a_message_that_the_cluster_refused_is_not_known_again_as_accepted() {
    let (mut one, mut two) = (Lasting::new(), Lasting::new());
    let now = one.bench.now;
    let at = |nonce, prefix| register(nonce, vec![record(prefix, &[ETR])]).xtr(1);
    two.register(&at(11, "10.9.0.0/16"));
    // At the same time the first one takes an older message, which the store refuses; then it is told what counts.
    one.register(&at(10, "10.8.0.0/16"));
    let keys: Vec<Vec<u8>> = one.kept.keys().cloned().collect();
    for key in keys {
        one.bench.server.apply(now, &key, None).unwrap();
    }
    for (key, value) in &two.kept {
        one.bench.server.apply(now, key, Some(value)).unwrap();
    }
    assert_eq!(one.bench.prefixes(), ["10.9.0.0/16"]);
    assert!(
        one.register(&at(10, "10.8.0.0/16")).is_empty(),
        "no retransmission of anything accepted"
    );
    assert_eq!(one.register(&at(11, "10.9.0.0/16")).len(), 1, "this one is, wherever");
}

#[test]
fn ms_24_nothing_expires_while_the_others_cannot_be_heard() {
    let mut lasting = Lasting::new();
    lasting.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]).xtr(1));
    lasting.bench.server.set_cut_off(true);
    lasting.advance(600);
    assert_eq!(lasting.bench.rlocs("10.9.0.0/16"), [ip(ETR)]);
    lasting.bench.server.set_cut_off(false);
    lasting.advance(0);
    assert!(lasting.bench.prefixes().is_empty());
}

#[test]
fn ms_24_what_is_not_understood_is_an_error_not_a_guess() {
    let mut lasting = Lasting::new();
    lasting.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]).xtr(1));
    let kept = lasting.kept.clone();
    let now = lasting.bench.now;
    let server = &mut lasting.bench.server;
    assert!(server.restore(now, b"", b"").is_err());
    assert!(server.restore(now, b"?", b"").is_err());
    for (key, value) in &kept {
        for length in 0..value.len() {
            assert!(server.restore(now, key, &value[..length]).is_err(), "{length}");
        }
        for length in 0..key.len() {
            assert!(server.restore(now, &key[..length], value).is_err(), "{length}");
        }
        let newer = [&[2], &value[1..]].concat();
        assert!(server.restore(now, key, &newer).is_err(), "another version");
        assert!(server.restore(now, key, value).is_ok());
    }
}

#[test]
fn au_20_no_secret_is_kept() {
    let mut lasting = Lasting::new();
    lasting.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]).xtr(1));
    for value in lasting.kept.values() {
        assert!(!value.windows(8).any(|octets| octets == b"secret-a"));
    }
}

#[test]
fn rg_11_whether_an_etr_speaks_lisp_sec_is_known_after_a_crash() {
    let mut lasting = Lasting::new();
    let signs = |lasting: &Lasting| {
        let registry = &lasting.bench.server.registry;
        registry.get(&eid_prefix("10.9.0.0/16")).unwrap().registrations()[0].security_capable
    };
    let registration = |nonce, signs| {
        let register = register(nonce, vec![record("10.9.0.0/16", &[ETR])]).xtr(1);
        register.edit(|message| message.security_capable = signs)
    };
    lasting.register(&registration(1, false));
    lasting.restart(1, config());
    assert!(!signs(&lasting));
    lasting.register(&registration(2, true));
    lasting.restart(1, config());
    assert!(signs(&lasting));
}
