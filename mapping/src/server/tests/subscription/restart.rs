//! Subscriptions in a store, and what is left of them after a restart.
use super::*;

/// A Map-Server whose every change goes into a map, as into a store.
struct Kept {
    config: MappingConfig,
    bench: Bench,
    epoch: Epoch,
    entries: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Kept {
    fn new() -> Self {
        Self::with(with_subscribers())
    }

    fn with(config: MappingConfig) -> Self {
        let now = Instant::now();
        let epoch = Epoch::new(now, Duration::from_secs(1_800_000_000));
        let server = MapServer::durable(config.clone(), [1; 32], epoch);
        Self { config, bench: Bench { server, now }, epoch, entries: Default::default() }
    }

    fn sent(&mut self, mut sent: Vec<Transmit>) -> Vec<Transmit> {
        while let Some(batch) = self.bench.server.take_batch() {
            for (key, value) in batch.changes.iter() {
                match value {
                    Some(value) => drop(self.entries.insert(key.to_vec(), value.to_vec())),
                    None => drop(self.entries.remove(key)),
                }
            }
            sent.extend(batch.transmits);
        }
        sent
    }

    fn ask(&mut self, request: &MapRequest) -> Vec<Transmit> {
        let sent = self.bench.ask(request);
        self.sent(sent)
    }

    fn register(&mut self, register: &Register) -> Vec<Transmit> {
        let sent = self.bench.register(register);
        self.sent(sent)
    }

    fn acknowledge(&mut self, transmit: &Transmit) {
        let sent = self.bench.acknowledge(transmit);
        self.sent(sent);
    }

    fn advance(&mut self, seconds: u64) -> Vec<Transmit> {
        let sent = self.bench.advance(seconds);
        self.sent(sent)
    }

    /// The process dies; another one begins with what was kept of subscriptions.
    fn restart(&mut self) {
        let mut server = MapServer::durable(self.config.clone(), [2; 32], self.epoch);
        for (key, value) in &self.entries {
            if matches!(key[0], b's' | b'p') {
                server.restore(self.bench.now, key, value).unwrap();
            }
        }
        self.bench.server = server;
    }
}

#[test]
fn ps_05_subscriptions_survive_a_restart() {
    let mut kept = Kept::new();
    kept.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    for (nonce, eid) in [(50, "10.1.0.1/32"), (60, "10.200.0.1/32"), (70, "2001:db8:e001::1/128")] {
        let sent = kept.ask(&subscription(nonce, eid, XTR));
        kept.acknowledge(&sent[0]);
    }
    kept.ask(&unsubscription(51, "10.1.7.0/24", XTR));
    kept.advance(100);
    let before = kept.bench.subscriptions();
    assert_eq!(before.len(), 4);
    kept.restart();
    assert_eq!(kept.bench.subscriptions(), before);
    assert!(kept.ask(&subscription(50, "10.200.0.1/32", XTR)).is_empty(), "no replay");
    assert!(kept.advance(1).is_empty(), "everything was acknowledged");
    let sent = kept.register(&register(1, vec![record("10.1.0.0/16", &[OTHER_ETR])]));
    let published = kept.bench.published(&sent);
    assert_eq!((published[0].nonce, shown(&published[0])), (51, mapping("10.1.0.0/16", OTHER_ETR)));
}

#[test]
fn ps_11_what_was_not_acknowledged_is_published_again_after_a_restart() {
    let mut kept = Kept::new();
    kept.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    let sent = kept.ask(&subscription(50, "10.1.0.1/32", XTR));
    kept.acknowledge(&sent[0]);
    kept.register(&register(2, vec![record("10.1.0.0/16", &[OTHER_ETR])]));
    kept.restart();
    kept.bench.register(&register(1, vec![record("10.1.0.0/16", &[OTHER_ETR])]));
    let sent = kept.advance(1);
    let published = kept.bench.published(&sent);
    assert!(published.iter().all(|notify| notify.nonce > 51));
    assert_eq!(shown(published.last().unwrap()), mapping("10.1.0.0/16", OTHER_ETR));
}

#[test]
fn ps_11_what_waited_for_its_turn_is_published_after_a_restart() {
    let mut config = with_subscribers();
    config.subscriptions.notifies_per_second = 1;
    let mut kept = Kept::with(config);
    kept.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    for xtr in [XTR, OTHER_XTR] {
        let sent = kept.ask(&subscription(50, "10.1.0.1/32", xtr));
        kept.acknowledge(&sent[0]);
    }
    kept.advance(5);
    let sent = kept.register(&register(2, vec![record("10.1.0.0/16", &[OTHER_ETR])]));
    let published: Vec<_> =
        sent.into_iter().filter(|transmit| transmit.destination.ip() == ip(ITR)).collect();
    assert_eq!(published.len(), 1, "the other has to wait");
    kept.acknowledge(&published[0]);
    kept.restart();
    assert!(kept.bench.server.subscriptions.queued() >= 1);
}

#[test]
fn ps_17_past_nonces_survive_a_restart() {
    let mut kept = Kept::new();
    kept.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    kept.ask(&subscription(50, "10.1.0.1/32", XTR));
    kept.ask(&unsubscription(51, "10.1.0.0/16", XTR));
    assert!(!kept.entries.keys().any(|key| key[0] == b's'));
    kept.restart();
    kept.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    assert!(kept.ask(&subscription(51, "10.1.0.1/32", XTR)).is_empty());
    assert_eq!(kept.ask(&subscription(52, "10.1.0.1/32", XTR)).len(), 1);
    assert!(!kept.entries.keys().any(|key| key[0] == b'p'), "it is in the subscription now");
}

#[test]
fn kept_entries_of_any_octets_are_refused_or_taken_without_panic() {
    let mut kept = Kept::new();
    kept.ask(&subscription(60, "10.200.0.1/32", XTR));
    let entries = kept.entries.clone();
    for (key, value) in &entries {
        for length in 0..value.len() {
            let refused = kept.bench.server.restore(kept.bench.now, key, &value[..length]);
            assert!(refused.is_err(), "{length}");
        }
        for length in 0..key.len() {
            assert!(kept.bench.server.restore(kept.bench.now, &key[..length], value).is_err());
        }
    }
}
