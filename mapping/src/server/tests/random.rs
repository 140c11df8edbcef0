//! Random operations, seeded: damaged messages change nothing, and the tables stay in step.

use rand::RngExt;
use rand::rngs::StdRng;

use super::*;
use crate::eid::EidTable;

const PREFIXES: [&str; 5] =
    ["10.1.0.0/16", "10.1.1.0/24", "10.1.1.7/32", "10.9.0.0/16", "2001:db8:e001::/48"];
const ETRS: [&str; 3] = [ETR, OTHER_ETR, "198.51.100.13"];

/// A dumb oracle: a list of (prefix, xTR, merge, end of life, RLOC).
#[derive(Default)]
struct Oracle(Vec<(EidPrefix, u128, bool, Instant, IpAddr)>);

impl Oracle {
    fn register(&mut self, now: Instant, prefix: EidPrefix, xtr: u128, merge: bool, rloc: IpAddr) {
        let merged = merge && self.0.iter().filter(|e| e.0 == prefix).all(|e| e.2);
        self.0.retain(|e| e.0 != prefix || (merged && e.1 != xtr));
        self.0.push((prefix, xtr, merge, now + timers::REGISTRATION_TIMEOUT, rloc));
    }

    fn withdraw(&mut self, prefix: EidPrefix, xtr: u128) {
        self.0.retain(|e| e.0 != prefix || e.1 != xtr);
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|e| e.3 > now);
    }
}

#[test]
fn ms_17_ms_18_the_registry_agrees_with_a_dumb_oracle() {
    let mut rng = StdRng::from_seed([3; 32]);
    let (mut bench, mut oracle) = (Bench::new(), Oracle::default());
    for nonce in 1..4_000_u64 {
        let text = PREFIXES[rng.random_range(0..PREFIXES.len())];
        let (xtr, merge) = (rng.random_range(0..3_u128), rng.random_bool(0.8));
        let rloc = ETRS[xtr as usize];
        let withdraw = rng.random_bool(0.2);
        let mut record = record(text, &[rloc]);
        if withdraw {
            record.ttl_minutes = 0;
            oracle.withdraw(eid_prefix(text), xtr);
        } else {
            oracle.register(bench.now, eid_prefix(text), xtr, merge, ip(rloc));
        }
        let message = register(nonce, vec![record]).xtr(xtr).from(rloc);
        bench.register(&message.edit(|message| message.merge = merge));
        bench.advance(rng.random_range(0..40));
        oracle.expire(bench.now);
        compare(&bench, &oracle, nonce);
    }
    assert!(bench.server.get(Count::Expired) > 50 && bench.server.get(Count::Withdrawn) > 50);
    bench.advance(300);
    assert_eq!(bench.server.poll_timeout(), None, "no timer is left behind");
}

fn compare(bench: &Bench, oracle: &Oracle, round: u64) {
    let registry = &bench.server.registry;
    assert_eq!(registry.len(), oracle.0.len(), "round {round}");
    assert_eq!(registry.octets, oracle.0.len() * 12, "one IPv4 locator each");
    let mut expected: EidTable<Vec<(u128, IpAddr)>> = EidTable::default();
    for &(prefix, xtr, _, _, rloc) in &oracle.0 {
        match expected.get_mut(&prefix) {
            Some(entry) => entry.push((xtr, rloc)),
            None => drop(expected.insert(prefix, vec![(xtr, rloc)])),
        }
    }
    assert_eq!(registry.prefix_count(), expected.len(), "round {round}");
    for (prefix, entry) in registry.iter_after(None) {
        let found: Vec<_> = entry
            .registrations()
            .iter()
            .map(|r| {
                let identity = r.registrant.identity().expect("every xTR here has an xTR-ID");
                (identity.xtr_id, r.locators().next().unwrap().address.rloc().unwrap())
            })
            .collect();
        assert_eq!(Some(&found), expected.get(&prefix), "round {round}: {prefix}");
    }
}

#[test]
fn cw_21_damaged_messages_change_nothing() {
    let mut rng = StdRng::from_seed([4; 32]);
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]).xtr(1));
    let before = bench.rlocs("10.9.0.0/16");
    let good = [
        register(2, vec![record("10.9.0.0/16", &[OTHER_ETR])]).xtr(1).octets(),
        ecm(&request(1, &["10.9.0.1/32"], &[ITR])).to_octets(),
        register(3, vec![record("10.1.0.0/16", &[OTHER_ETR]), record("10.9.0.0/16", &[])]).octets(),
    ];
    for round in 0..20_000 {
        let mut octets = good[round % good.len()].clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..octets.len());
            octets[at] ^= 1 << rng.random_range(0..8);
        }
        if rng.random_bool(0.2) {
            octets.truncate(rng.random_range(0..octets.len()));
        }
        if good.contains(&octets) {
            continue;
        }
        let sent = bench.input(OTHER_ETR, 40_000, &octets);
        // Only a lookup may still be one, about something else; with the D-bit a Map-Referral comes besides (DD-06).
        let most = if octets.first().is_some_and(|first| first & 0xf4 == 0x84) { 2 } else { 1 };
        assert!(sent.len() <= most && (sent.is_empty() || octets[0] >> 4 == 8), "round {round}");
        bench.now += Duration::from_millis(1);
    }
    assert_eq!(bench.rlocs("10.9.0.0/16"), before);
    assert_eq!(bench.server.registry.len(), 1);
}
