//! SM-01 to SM-03, SM-09, RP-13: own mappings change, and RLOCs that still send for what moved.
use super::super::map_cache::Mapping;
use super::*;
use mapping::auth;
use mapping::wire::{AuthenticationData, EidField, MapNotify, MapRegister};
use std::sync::atomic::Ordering;

const SECOND: &str = "192.0.2.2";
const CLOCK: u32 = 1000;

/// Two RLOCs, and three remote sites of which two got data in the last minute.
pub(super) fn multihomed() -> Node {
    let rlocs = vec![own("a", OWN_V4), own("b", SECOND)];
    let mut node = Node::new(ControlConfig { rlocs, map_servers: vec![server()], ..config() });
    node.advance(Duration::ZERO);
    acknowledge(&mut node);
    for (net, last_used) in [(2, CLOCK - 5), (3, CLOCK - 60), (4, CLOCK - 61), (5, 0)] {
        let record = record(&format!("10.{net}.0.0/16"), 60, &[&format!("198.51.100.{net}0")]);
        node.learn(&format!("10.{net}.0.9"), vec![record]);
        node.set(&format!("10.{net}.0.0/16")).last_used.store(last_used, Ordering::Relaxed);
    }
    node.advance(seconds(4));
    node.take_sent();
    node
}

pub(super) fn registers(node: &mut Node) -> Vec<MapRegister> {
    let sent = node.take_sent().into_iter();
    sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
        Ok(Message::MapRegister(register)) => Some(register),
        _ => None,
    })
    .collect()
}

/// The Map-Server acknowledges the Map-Register just sent.
pub(super) fn acknowledge(node: &mut Node) -> MapRegister {
    let register = registers(node).pop().expect("a Map-Register");
    let algorithm = Algorithm::HmacSha256Hkdf;
    let authentication = AuthenticationData::zeroed(1, algorithm.id(), auth::MAC_LEN);
    let notify = MapNotify {
        nonce: register.nonce,
        authentication,
        records: register.records.clone(),
        identity: None,
    };
    let mut octets = Message::MapNotify(notify).to_vec();
    auth::sign(&mut octets, &server().secret, algorithm).expect("signed");
    node.receive_octets(control_port(OWN_V4), control_port(SERVER), &octets);
    register
}

pub(super) fn smrs(node: &mut Node) -> Vec<(Transmit, MapRequest)> {
    let sent = node.take_sent().into_iter();
    sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
        Ok(Message::MapRequest(request)) if request.smr => Some((transmit, request)),
        _ => None,
    })
    .collect()
}

#[test]
fn rp_13_a_lost_rloc_is_registered_as_unusable_at_once() {
    let mut node = multihomed();
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, CLOCK);
    node.drain();
    let register = acknowledge(&mut node);
    let locators: Vec<_> = register.records[0]
        .locators
        .iter()
        .map(|l| (l.address.rloc(), l.reachable, l.priority))
        .collect();
    assert_eq!(locators, [(Some(ip(OWN_V4)), false, 255), (Some(ip(SECOND)), true, 1)]);
    assert_eq!(node.set("10.2.0.0/16").adjacencies[0].source, ip(SECOND));
    node.miss("10.9.0.9");
    let request = node.take_sent().pop().expect("a lookup");
    assert_eq!(request.source, ip(SECOND));
    // Up again: as before.
    node.control.set_own_rloc(node.now, ip(OWN_V4), true, CLOCK);
    node.drain();
    let register = acknowledge(&mut node);
    assert!(register.records[0].locators.iter().all(|locator| locator.reachable));
    assert_eq!(node.set("10.2.0.0/16").adjacencies[0].source, ip(OWN_V4));
}

#[test]
fn sm_01_sm_02_sm_09_active_rlocs_are_solicited_once_the_change_is_registered() {
    let mut node = multihomed();
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, CLOCK);
    node.drain();
    assert!(node.sent.iter().all(|(_, t)| t.destination == control_port(SERVER)));
    acknowledge(&mut node);
    let sent = smrs(&mut node);
    let rlocs: Vec<_> = sent.iter().map(|(transmit, _)| transmit.destination).collect();
    assert_eq!(rlocs, [control_port("198.51.100.20"), control_port("198.51.100.30")]);
    let (transmit, smr) = &sent[0];
    assert_eq!(transmit.source, ip(SECOND));
    assert!(smr.dont_map_reply && !smr.smr_invoked && !smr.probe);
    assert_eq!(smr.source_eid, Address::from(ip("10.1.0.0")));
    assert_eq!(smr.records.len(), 1);
    assert_eq!(smr.records[0].eid, EidField::from(prefix("10.2.0.0/16")));
}

#[test]
fn sm_01_a_silent_map_server_delays_smrs_but_does_not_stop_them() {
    let mut node = multihomed();
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, CLOCK);
    node.drain();
    assert!(smrs(&mut node).is_empty());
    node.advance(seconds(2));
    assert_eq!(smrs(&mut node).len(), 2);
}

#[test]
fn sm_03_one_smr_per_rloc_in_three_seconds() {
    let mut node = multihomed();
    let mut sent = 0;
    for round in 0..10 {
        node.control.set_own_rloc(node.now, ip(OWN_V4), round % 2 == 1, CLOCK);
        node.drain();
        acknowledge(&mut node);
        sent += smrs(&mut node).len();
        node.advance(Duration::from_millis(500));
        sent += smrs(&mut node).len();
    }
    // Five seconds of flapping: at 0 s and 3 s for each of two RLOCs.
    assert_eq!(sent, 4);
    node.advance(seconds(10));
    assert_eq!(smrs(&mut node).len(), 2, "the last change is told");
    node.advance(seconds(60));
    assert!(smrs(&mut node).is_empty());
}

#[test]
fn sm_01_only_what_changed_is_told() {
    let rlocs = vec![own("a", OWN_V4), own("b", SECOND)];
    let at = |text: &str, locator: &str| LocalEid {
        prefix: prefix(text),
        locator_set: vec![locator.to_owned()],
    };
    let eids = vec![at("10.1.0.0/16", "a"), at("10.11.0.0/16", "b"), at("2001:db8:e001::/48", "a")];
    let mut node = Node::new(ControlConfig { rlocs, eids, ..config() });
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.set("10.2.0.0/16").last_used.store(CLOCK, Ordering::Relaxed);
    node.take_sent();
    node.control.set_own_rloc(node.now, ip(SECOND), false, CLOCK);
    node.drain();
    let sent = smrs(&mut node);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.source_eid, Address::from(ip("10.11.0.0")));
    node.control.solicit_changed(node.now, CLOCK, &[]);
    node.control.solicit_changed(node.now, CLOCK, &[prefix("2001:db8:e001::/48")]);
    node.advance(seconds(30));
    assert!(smrs(&mut node).is_empty(), "no IPv6 EID lies behind an RLOC in use");
}

#[test]
fn sm_01_who_only_sends_is_told_as_well() {
    let mut node = multihomed();
    let heard = |node: &mut Node, rloc: &str, source: &str| {
        let punt = Punt::Heard { rloc: ip(rloc), source: eid(source) };
        node.control.handle_punt(node.now, &punt);
    };
    // One that got data long ago, one that nothing is known of, one of EIDs of another family, and who cannot be.
    heard(&mut node, "198.51.100.40", "10.4.0.7");
    heard(&mut node, "203.0.113.6", "10.6.0.7");
    heard(&mut node, "203.0.113.7", "2001:db8:e007::7");
    heard(&mut node, "224.0.0.1", "10.8.0.7");
    heard(&mut node, SECOND, "10.9.0.7");
    node.control.solicit_changed(node.now, CLOCK, &[prefix("10.1.0.0/16")]);
    node.drain();
    let sent: Vec<_> = smrs(&mut node)
        .into_iter()
        .map(|(transmit, smr)| (transmit.destination.ip(), smr.records[0].eid.clone()))
        .collect();
    let expected = [
        ("198.51.100.20", "10.2.0.0/16"),
        ("198.51.100.30", "10.3.0.0/16"),
        ("198.51.100.40", "10.4.0.0/16"),
        ("203.0.113.6", "10.6.0.7/32"),
    ];
    assert_eq!(sent, expected.map(|(rloc, net)| (ip(rloc), EidField::from(prefix(net)))));
    // Silent for long enough, it is forgotten.
    node.advance(seconds(120));
    node.control.solicit_changed(node.now, CLOCK + 120, &[prefix("10.1.0.0/16")]);
    node.drain();
    assert!(smrs(&mut node).is_empty());
}

#[test]
fn sm_01_an_rloc_that_traffic_left_within_the_minute_is_told() {
    let mut node = multihomed();
    let used_at = |node: &Node, last: u32| {
        node.set("10.2.0.0/16").adjacencies[0].used.store(last, Ordering::Relaxed);
        node.set("10.2.0.0/16").last_used.store(last, Ordering::Relaxed);
    };
    let solicited = |node: &mut Node, clock: u32| -> Vec<IpAddr> {
        node.advance(seconds(4));
        node.take_sent();
        node.control.solicit_changed(node.now, clock, &[prefix("10.1.0.0/16")]);
        node.drain();
        smrs(node).into_iter().map(|(transmit, _)| transmit.destination.ip()).collect()
    };
    used_at(&node, CLOCK);
    // Its site moves to another locator, and then to none at all.
    let moved = record("10.2.0.0/16", 60, &["198.51.100.21"]);
    let mapping = Mapping::from_record(&moved, &node.control.own);
    let expires = node.now + seconds(3600);
    node.control.install_entry(node.now, prefix("10.2.0.0/16"), mapping, expires);
    node.drain();
    let [old, new, other] = ["198.51.100.20", "198.51.100.21", "198.51.100.30"].map(ip);
    assert_eq!(solicited(&mut node, CLOCK), [old, new, other]);
    used_at(&node, CLOCK + 30);
    node.control.remove_entry(node.now, &prefix("10.2.0.0/16"));
    node.drain();
    assert_eq!(solicited(&mut node, CLOCK + 60), [old, new]);
    assert_eq!(solicited(&mut node, CLOCK + 61), [new]);
    assert_eq!(solicited(&mut node, CLOCK + 91), [] as [IpAddr; 0]);
}

#[test]
fn sm_01_petrs_in_use_and_configured_pitrs_are_told() {
    let proxy_itrs = vec![
        Endpoint::Address(ip("192.0.2.210")),
        Endpoint::Name("pitr.example.net".to_owned()),
        Endpoint::Address(ip("2001:db8::210")),
    ];
    let use_petr = vec![petr("192.0.2.200")];
    let mut node = Node::new(ControlConfig { proxy_itrs, use_petr, ..config() });
    node.learn("8.8.8.8", vec![negative("8.0.0.0/7", 15, Action::NativelyForward)]);
    node.set("8.0.0.0/7").last_used.store(CLOCK, Ordering::Relaxed);
    node.control.set_name(node.now, "pitr.example.net", &[ip("192.0.2.211")]);
    node.take_sent();
    node.control.solicit_changed(node.now, CLOCK, &[prefix("10.1.0.0/16")]);
    node.drain();
    let sent = smrs(&mut node);
    let rlocs: Vec<_> = sent.iter().map(|(transmit, _)| transmit.destination.ip()).collect();
    assert_eq!(rlocs, ["192.0.2.200", "192.0.2.210", "192.0.2.211"].map(ip));
    for (_, smr) in sent {
        // What a PITR has cached is ours: either reading of the message finds it (SM-08).
        assert_eq!(smr.source_eid, Address::from(ip("10.1.0.0")));
        assert_eq!(smr.records[0].eid, EidField::from(prefix("10.1.0.0/16")));
    }
}

#[test]
fn sm_03_a_data_triggered_smr_goes_at_once_and_not_again_for_three_seconds() {
    let mut node = Node::new(config());
    let (moved, remote) = (prefix("10.1.0.7/32"), prefix("10.2.0.0/16"));
    for _ in 0..100 {
        node.control.solicit(node.now, ip(PEER), moved, remote);
    }
    node.drain();
    let sent = smrs(&mut node);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0.destination, control_port(PEER));
    assert!(sent[0].1.dont_map_reply);
    assert_eq!(sent[0].1.source_eid, Address::from(ip("10.1.0.7")));
    assert_eq!(sent[0].1.records[0].eid, EidField::from(remote));
    // Another EID has to wait for the RLOC's turn; another RLOC has not.
    node.control.solicit(node.now, ip(PEER), prefix("10.1.0.8/32"), remote);
    node.control.solicit(node.now, ip("192.0.2.78"), moved, moved);
    node.drain();
    assert_eq!(smrs(&mut node).len(), 1);
    node.advance(Duration::from_millis(2_999));
    assert!(smrs(&mut node).is_empty());
    node.advance(Duration::from_millis(1));
    assert_eq!(smrs(&mut node)[0].1.source_eid, Address::from(ip("10.1.0.8")));
    node.advance(seconds(60));
    assert!(smrs(&mut node).is_empty(), "what stopped needs no telling");
    node.control.solicit(node.now, ip(PEER), moved, remote);
    node.control.solicit(node.now, ip(OWN_V4), moved, remote);
    node.control.solicit(node.now, ip("224.0.0.1"), moved, remote);
    node.drain();
    assert_eq!(smrs(&mut node).len(), 1);
}

#[test]
fn sm_03_packets_from_spoofed_rlocs_make_no_flood_of_smrs() {
    let mut node = Node::new(config());
    for host in 0..100_000u32 {
        let rloc = IpAddr::from(std::net::Ipv4Addr::from(0x3700_0000 + host));
        node.control.solicit(node.now, rloc, prefix("10.1.0.7/32"), prefix("10.1.0.7/32"));
    }
    node.drain();
    assert_eq!(smrs(&mut node).len(), 1_000);
    assert!(node.control.counters_view()["smrs_not_sent"] > 30_000);
    node.advance(seconds(1));
    assert_eq!(smrs(&mut node).len(), 1_000);
}
