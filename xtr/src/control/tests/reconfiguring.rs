//! RG-03, SM-01: another configuration of the own side while the node runs.
use super::soliciting::{acknowledge, multihomed, registers, smrs};
use super::*;
use crate::config::OwnRloc;

const SECOND: &str = "192.0.2.2";

/// As [`multihomed`] begins.
fn configured() -> ControlConfig {
    let rlocs = vec![own("a", OWN_V4), own("b", SECOND)];
    ControlConfig { rlocs, map_servers: vec![server()], ..config() }
}

fn weighed(a: u8, b: u8) -> ControlConfig {
    let mut config = configured();
    (config.rlocs[0].weight, config.rlocs[1].weight) = (a, b);
    config
}

fn reconfigure(node: &mut Node, config: &ControlConfig) {
    node.control.reconfigure(node.now, config);
    node.drain();
}

#[test]
fn rg_03_sm_01_changed_weights_are_registered_and_told_at_once() {
    let mut node = multihomed();
    reconfigure(&mut node, &weighed(70, 30));
    let register = acknowledge(&mut node);
    assert_eq!(register.records.len(), 2);
    for record in &register.records {
        let weights: Vec<_> = record.locators.iter().map(|locator| locator.weight).collect();
        assert_eq!(weights, [70, 30]);
        assert_eq!(record.ttl_minutes, 1440);
    }
    let told: Vec<_> = smrs(&mut node).into_iter().map(|(smr, _)| smr.destination).collect();
    assert!(told.contains(&control_port("198.51.100.20")), "{told:?}");
    // The same again is no change.
    reconfigure(&mut node, &weighed(70, 30));
    node.advance(seconds(4));
    assert!(registers(&mut node).is_empty() && smrs(&mut node).is_empty());
}

#[test]
fn rg_03_only_the_mappings_that_changed_are_registered_anew() {
    let mut node = multihomed();
    let mut config = configured();
    config.eids[0].locator_set = vec!["b".to_owned()];
    reconfigure(&mut node, &config);
    let register = acknowledge(&mut node);
    assert_eq!(register.records.len(), 1);
    assert_eq!(register.records[0].eid.prefix(), Some(prefix("10.1.0.0/16")));
    let rlocs: Vec<_> = register.records[0].locators.iter().map(|l| l.address.rloc()).collect();
    assert_eq!(rlocs, [Some(ip(SECOND))]);
    // The weight of a locator that only the other EID-prefix has.
    config.rlocs[0].weight = 9;
    reconfigure(&mut node, &config);
    let register = acknowledge(&mut node);
    let prefixes: Vec<_> = register.records.iter().map(|record| record.eid.prefix()).collect();
    assert_eq!(prefixes, [Some(prefix("2001:db8:e001::/48"))]);
}

#[test]
fn rg_17_an_eid_prefix_that_goes_is_withdrawn_and_one_that_comes_is_registered() {
    let mut node = multihomed();
    let mut config = configured();
    config.eids[0].prefix = prefix("10.7.0.0/16");
    reconfigure(&mut node, &config);
    node.advance(Duration::ZERO);
    let mut records: Vec<_> = registers(&mut node)
        .into_iter()
        .flat_map(|register| register.records)
        .map(|record| (record.eid.prefix(), record.ttl_minutes))
        .collect();
    records.sort_unstable();
    assert_eq!(records, [(Some(prefix("10.1.0.0/16")), 0), (Some(prefix("10.7.0.0/16")), 1440)]);
    assert!(matches!(node.fib.get(&prefix("10.7.0.0/16")), Some(Verdict::Native)));
    assert!(!node.fib.contains_key(&prefix("10.1.0.0/16")));
}

#[test]
fn rp_13_a_locator_that_is_down_stays_down() {
    let mut node = multihomed();
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, 1);
    node.drain();
    acknowledge(&mut node);
    reconfigure(&mut node, &weighed(1, 2));
    let register = acknowledge(&mut node);
    let told: Vec<_> =
        register.records[0].locators.iter().map(|l| (l.reachable, l.priority, l.weight)).collect();
    assert_eq!(told, [(false, 255, 1), (true, 1, 2)]);
}

#[test]
fn rg_03_record_ttl_and_what_is_asked_of_the_map_server_are_told() {
    let mut node = multihomed();
    let config = ControlConfig { record_ttl_minutes: 5, proxy_reply: true, ..configured() };
    reconfigure(&mut node, &config);
    let register = acknowledge(&mut node);
    assert!(register.proxy_reply);
    assert!(register.records.iter().all(|record| record.ttl_minutes == 5));
}

#[test]
fn rg_10_rp_12_multicast_priority_and_weight_are_those_configured() {
    let mut node = multihomed();
    let mut config = configured();
    let rloc = config.rlocs[1].clone();
    config.rlocs[1] = OwnRloc { multicast_priority: 7, multicast_weight: 8, ..rloc };
    reconfigure(&mut node, &config);
    let register = acknowledge(&mut node);
    let told = |locators: &[LocatorRecord]| -> Vec<(u8, u8)> {
        locators.iter().map(|l| (l.multicast_priority, l.multicast_weight)).collect()
    };
    assert_eq!(told(&register.records[0].locators), [(255, 0), (7, 8)]);
    node.take_sent();
    node.receive(control_port(RESOLVER), &Message::MapRequest(request(1, "10.1.0.9/32")));
    let reply = node.take_one();
    let Ok(Message::MapReply(reply)) = Message::parse(&reply.payload) else {
        panic!("no Map-Reply");
    };
    assert_eq!(told(&reply.records[0].locators), [(255, 0), (7, 8)]);
}
