//! A client among nodes that say anything, at random: it stays bounded, and every lookup ends.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::client::SECURITY;
use super::*;
use crate::ddt::client::Client;
use crate::resolver::{Lookup, OwnAddresses};
use crate::timers::{DDT_TRIES, MAX_REFERRAL_RLOCS, MAX_REFERRALS};
use crate::wire::Tolerance;

const NODES: u8 = 6;

struct Chaos {
    client: Client,
    rng: StdRng,
    now: Instant,
    asked: Vec<(IpAddr, u64)>,
    sent: BTreeMap<u64, u32>,
}

fn node(at: u8) -> String {
    format!("192.0.2.{}", 1 + at)
}

impl Chaos {
    fn new(seed: u8) -> Self {
        let config = DdtConfig {
            resolver: true,
            roots: ips(&[&node(0), &node(1)]),
            hints: vec![delegation("10.0.0.0/9", &[&node(2)], false)],
            ..DdtConfig::default()
        };
        Self {
            client: Client::new(&config, ips(&[RESOLVER])),
            rng: StdRng::from_seed([seed; 32]),
            now: Instant::now(),
            asked: Vec::new(),
            sent: BTreeMap::new(),
        }
    }

    fn ask(&mut self, nonce: u64) {
        let eid = format!("10.{}.{}.1", self.rng.random_range(0..4), self.rng.random_range(0..3));
        let own = OwnAddresses::new(ips(&[RESOLVER]));
        let ecm = ecm(nonce, host(&eid), ITR);
        let mut lookup = Lookup::new(ecm, &own, ip(RESOLVER), Tolerance::default()).unwrap();
        lookup.security = self.rng.random_bool(0.3).then(|| SECURITY.to_vec());
        self.client.handle_request(self.now, ip(ITR), lookup, host(&eid)).unwrap();
    }

    /// Some node answers, mostly one that was asked, with anything.
    fn hear(&mut self) {
        let at = self.rng.random_range(0..self.asked.len().max(1));
        let Some(&(asked, nonce)) = self.asked.get(at) else { return };
        let from = match self.rng.random_bool(0.9) {
            true => asked,
            false => ip(&node(self.rng.random_range(0..NODES))),
        };
        let nonce = if self.rng.random_bool(0.95) { nonce } else { self.rng.random() };
        let records = (0..self.rng.random_range(0..3)).map(|_| self.record()).collect();
        self.client.handle_referral(self.now, from, true, &MapReferral { nonce, records });
    }

    fn record(&mut self) -> ReferralRecord {
        let second = self.rng.random_range(0..4);
        let third = self.rng.random_range(0..3);
        let length = self.rng.random_range(0..=32);
        let about = prefix(&format!("10.{second}.{third}.1/{length}"));
        let action = ReferralAction::from_code(self.rng.random_range(0..8));
        let mut rlocs = Vec::new();
        for _ in 0..self.rng.random_range(0..12) {
            rlocs.push(node(self.rng.random_range(0..NODES)));
        }
        let rlocs: Vec<&str> = rlocs.iter().map(String::as_str).collect();
        let ttl = [0, 1, 15, 1_440, u32::MAX][self.rng.random_range(0..5)];
        let mut record = record(action, about, ttl, &rlocs);
        record.incomplete = self.rng.random_bool(0.3);
        record
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            let nonce = ddt_request(&transmit).map_request().unwrap().nonce;
            *self.sent.entry(nonce).or_default() += 1;
            self.asked.push((transmit.destination.ip(), nonce));
        }
        let excess = self.asked.len().saturating_sub(64);
        self.asked.drain(..excess);
        while let Some(negative) = self.client.poll_negative() {
            assert!(negative.prefix.covers(&negative.asked));
            assert!((1..=15).contains(&negative.ttl_minutes));
        }
        while self.client.poll_failure().is_some() {}
    }
}

#[test]
fn dd_19_whatever_nodes_say_every_lookup_ends_and_little_is_sent() {
    // One step per referral followed, one from the root, one more with the LISP-SEC data.
    let most = (MAX_REFERRALS + 3) * DDT_TRIES * MAX_REFERRAL_RLOCS as u32;
    for seed in 0..8 {
        let mut chaos = Chaos::new(seed);
        for nonce in 0..3_000 {
            match chaos.rng.random_range(0..10) {
                0..3 => chaos.ask(nonce),
                3..9 => chaos.hear(),
                _ => {
                    chaos.now += Duration::from_millis(chaos.rng.random_range(0..2_000));
                    chaos.client.handle_timeout(chaos.now);
                }
            }
            chaos.drain();
            assert!(chaos.client.pending().len() <= 12, "one per EID and ITR");
        }
        while let Some(at) = chaos.client.poll_timeout() {
            chaos.now = chaos.now.max(at);
            chaos.client.handle_timeout(chaos.now);
            chaos.drain();
        }
        assert_eq!(chaos.client.pending().len(), 0, "seed {seed}");
        assert_eq!(chaos.client.cache().len(), 0, "everything learned is over");
        assert!(chaos.sent.values().all(|&count| count <= most), "seed {seed}");
    }
}
