//! Own mappings that come, change and go at run time: RG-03, RG-12, RG-17, SM-01, CW-06.
use super::*;
use crate::view::RegistrationState;
use mapping::auth;
use mapping::wire::{AuthenticationData, MapNotify, MapRegister};
use std::sync::atomic::Ordering;

const VM: &str = "10.9.0.7/32";
const CORRESPONDENT: &str = "198.51.100.20";

/// Registered, with one remote site that got data just now.
fn settled() -> Node {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2")];
    let mut node = Node::new(ControlConfig { rlocs, map_servers: vec![server()], ..config() });
    node.advance(Duration::ZERO);
    acknowledge(&mut node);
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[CORRESPONDENT])]);
    node.set("10.2.0.0/16").last_used.store(5, Ordering::Relaxed);
    node.advance(seconds(4));
    node.take_sent();
    node
}

fn registers(node: &mut Node) -> Vec<MapRegister> {
    let sent = node.take_sent().into_iter();
    sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
        Ok(Message::MapRegister(register)) => Some(register),
        _ => None,
    })
    .collect()
}

fn prefixes(register: &MapRegister) -> Vec<String> {
    let prefixes = register.records.iter().filter_map(|record| record.eid.prefix());
    prefixes.map(|prefix| prefix.to_string()).collect()
}

fn confirm(node: &mut Node, register: &MapRegister) {
    let algorithm = Algorithm::HmacSha256Hkdf;
    let authentication = AuthenticationData::zeroed(1, algorithm.id(), auth::MAC_LEN);
    let records = register.records.clone();
    let notify = MapNotify { nonce: register.nonce, authentication, records, identity: None };
    let mut octets = Message::MapNotify(notify).to_vec();
    auth::sign(&mut octets, &server().secret, algorithm).expect("signed");
    node.receive_octets(control_port(OWN_V4), control_port(SERVER), &octets);
}

/// The Map-Server acknowledges the Map-Register just sent.
fn acknowledge(node: &mut Node) -> MapRegister {
    let register = registers(node).pop().expect("a Map-Register");
    confirm(node, &register);
    register
}

fn set(node: &mut Node, text: &str, locators: &[&str]) {
    let locator_set = locators.iter().map(|name| (*name).to_owned()).collect();
    let eid = LocalEid { prefix: prefix(text), locator_set };
    node.control.set_own_mapping(node.now, OwnMapping::dynamic(eid));
    node.advance(Duration::ZERO);
    node.drain();
}

fn remove(node: &mut Node, text: &str) {
    node.control.remove_own_mapping(node.now, &prefix(text));
    node.advance(Duration::ZERO);
    node.drain();
}

fn smrs(node: &mut Node) -> Vec<(SocketAddr, Address)> {
    let sent = node.take_sent().into_iter();
    sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
        Ok(Message::MapRequest(request)) if request.smr => {
            Some((transmit.destination, request.source_eid))
        }
        _ => None,
    })
    .collect()
}

#[test]
fn rg_03_sm_01_a_new_mapping_is_registered_alone_and_at_once() {
    let mut node = settled();
    set(&mut node, VM, &["b"]);
    assert!(matches!(node.fib.get(&prefix(VM)), Some(Verdict::Native)));
    let register = acknowledge(&mut node);
    assert_eq!(prefixes(&register), [VM]);
    assert_eq!(register.records[0].locators.len(), 1);
    let told = smrs(&mut node);
    assert_eq!(told, [(control_port(CORRESPONDENT), Address::from(ip("10.9.0.7")))]);
    let states: Vec<_> =
        node.control.registrations_view(node.now).iter().map(|view| view.state).collect();
    assert_eq!(states, [RegistrationState::Registered; 3]);
}

#[test]
fn cw_06_what_came_alone_is_refreshed_with_the_others() {
    let mut node = settled();
    set(&mut node, VM, &[]);
    acknowledge(&mut node);
    node.take_sent();
    node.advance(seconds(20));
    // One Map-Register, and again while nobody answers.
    let refreshed = registers(&mut node);
    assert!(!refreshed.is_empty());
    for register in &refreshed {
        assert_eq!(prefixes(register), ["10.1.0.0/16", VM, "2001:db8:e001::/48"]);
    }
}

#[test]
fn rg_12_the_same_mapping_again_is_no_change_and_another_is_told() {
    let mut node = settled();
    set(&mut node, VM, &["a"]);
    let first = acknowledge(&mut node);
    set(&mut node, VM, &["a"]);
    assert!(registers(&mut node).is_empty());
    set(&mut node, VM, &["b"]);
    let second = acknowledge(&mut node);
    assert_eq!(prefixes(&second), [VM]);
    assert!(second.nonce > first.nonce);
    assert_eq!(second.records[0].locators[0].address, Address::from(ip("192.0.2.2")));
}

#[test]
fn rg_17_a_removed_mapping_is_withdrawn_until_that_is_acknowledged() {
    let mut node = settled();
    set(&mut node, VM, &[]);
    acknowledge(&mut node);
    node.advance(seconds(4));
    node.take_sent();
    remove(&mut node, VM);
    assert!(!node.fib.contains_key(&prefix(VM)));
    let goodbye = registers(&mut node).pop().expect("a Map-Register");
    assert_eq!((prefixes(&goodbye), goodbye.records[0].ttl_minutes), (vec![VM.to_owned()], 0));
    assert_eq!(goodbye.records[0].locators.len(), 2, "as it was registered");
    node.advance(seconds(1));
    let again = registers(&mut node);
    assert!(again.iter().any(|register| prefixes(register) == [VM]), "retransmitted");
    again.iter().for_each(|register| confirm(&mut node, register));
    confirm(&mut node, &goodbye);
    node.advance(seconds(120));
    assert!(registers(&mut node).iter().all(|r| !prefixes(r).contains(&VM.to_owned())));
}

#[test]
fn rg_17_a_withdrawal_that_nobody_hears_ends() {
    let mut node = settled();
    set(&mut node, VM, &[]);
    acknowledge(&mut node);
    node.take_sent();
    remove(&mut node, VM);
    node.advance(seconds(1_000));
    let goodbyes = registers(&mut node);
    let goodbyes = goodbyes.iter().filter(|register| prefixes(register) == [VM]).count();
    assert_eq!(goodbyes, 6);
    node.advance(seconds(1_000));
    assert!(registers(&mut node).iter().all(|r| prefixes(r) != [VM]));
}

#[test]
fn rg_12_a_mapping_that_comes_back_overtakes_its_withdrawal() {
    let mut node = settled();
    set(&mut node, VM, &[]);
    acknowledge(&mut node);
    remove(&mut node, VM);
    let goodbye = registers(&mut node).pop().expect("a Map-Register");
    set(&mut node, VM, &[]);
    let back = acknowledge(&mut node);
    assert!(back.nonce > goodbye.nonce && back.records[0].ttl_minutes > 0);
    node.advance(seconds(60));
    assert!(registers(&mut node).iter().flat_map(|r| &r.records).all(|r| r.ttl_minutes > 0));
}

#[test]
fn rg_04_a_lost_map_register_does_not_bring_a_removed_mapping_back() {
    let mut node = settled();
    set(&mut node, VM, &[]);
    set(&mut node, "10.9.0.8/32", &[]);
    registers(&mut node);
    remove(&mut node, VM);
    node.advance(seconds(10));
    let later: Vec<_> = registers(&mut node).into_iter().flat_map(|r| r.records).collect();
    let ttl = |text: &str| -> BTreeSet<u32> {
        let of = later.iter().filter(|record| record.eid.prefix() == Some(prefix(text)));
        of.map(|record| record.ttl_minutes).collect()
    };
    assert_eq!(ttl(VM), BTreeSet::from([0]));
    assert_eq!(ttl("10.9.0.8/32"), BTreeSet::from([1440]));
}

#[test]
fn a_new_configuration_replaces_the_configured_mappings_only() {
    let mut node = settled();
    set(&mut node, VM, &[]);
    acknowledge(&mut node);
    let eids = ["10.1.0.0/16", "10.5.0.0/16"]
        .map(|text| LocalEid { prefix: prefix(text), locator_set: Vec::new() });
    node.control.set_configured_mappings(node.now, &eids);
    node.advance(Duration::ZERO);
    node.drain();
    let own: Vec<_> = node.control.own_mappings().map(|own| own.eid.prefix.to_string()).collect();
    assert_eq!(own, ["10.1.0.0/16", "10.5.0.0/16", VM]);
    let sent: Vec<_> = registers(&mut node)
        .iter()
        .flat_map(|r| r.records.clone())
        .map(|r| (r.eid.prefix().expect("a prefix").to_string(), r.ttl_minutes))
        .collect();
    let expected = [("10.5.0.0/16".to_owned(), 1440), ("2001:db8:e001::/48".to_owned(), 0)];
    assert!(expected.iter().all(|one| sent.contains(one)) && sent.len() == 2, "{sent:?}");
}
