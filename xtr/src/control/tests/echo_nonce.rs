//! Echo-noncing in a trusted core: DH-13, DH-23 to DH-27, RP-16, PI-12.
use super::trust::*;
use super::*;
use crate::config::TrustedCore;
use crate::marks::{Nonces, Tag};
use mapping::wire::RequestedEid;

/// The ETR at A answers, saying whether it echoes.
fn answer_from(node: &mut Node, echo_nonce: bool) {
    let mut record = site(9);
    record.locators[0].local = true;
    node.sent.clear();
    let mut smr = MapRequest::new(1, vec![], vec![RequestedEid::new(prefix(OWN))]);
    (smr.smr, smr.dont_map_reply) = (true, true);
    smr.source_eid = Address::from(&mapping::wire::EidField::from(eid("10.2.0.9").host_prefix()));
    node.receive(control_port(A), &Message::MapRequest(smr));
    let (_, _, request) = node.take_lookup();
    let mut reply = MapReply::new(request.nonce, vec![record]);
    reply.echo_nonce = echo_nonce;
    node.receive(control_port(A), &Message::MapReply(reply));
    node.sent.clear();
}

fn request_of(nonces: &Nonces, clock: u32) -> Option<u32> {
    match nonces.tag(clock, true) {
        Some(Tag::Nonce { nonce, request: true }) => Some(nonce),
        _ => None,
    }
}

#[test]
fn dh_25_only_an_etr_that_says_so_is_asked_to_echo() {
    let mut node = node();
    answer_from(&mut node, false);
    node.advance(seconds(200));
    assert_eq!(request_of(&nonces(&node, A), 1), None);
    answer_from(&mut node, true);
    node.advance(seconds(1));
    assert!(request_of(&nonces(&node, A), 1).is_some());
    assert_eq!(request_of(&nonces(&node, B), 1), None, "L=0: not the one that answered");
    node.advance(seconds(3));
    answer_from(&mut node, false);
    node.advance(seconds(2));
    assert_eq!(request_of(&nonces(&node, A), 3), None, "not any more");
}

#[test]
fn dh_13_nonces_are_random_and_no_two_locators_have_the_same() {
    let mut node = node();
    let mut seen = std::collections::BTreeSet::new();
    answer_from(&mut node, true);
    for round in 0..20 {
        while request_of(&nonces(&node, A), round + 1).is_none() {
            node.advance(seconds(1));
        }
        let nonce = request_of(&nonces(&node, A), round + 1).expect("a request");
        assert_eq!(node.control.trust.as_ref().expect("on").nonces.len(), 1);
        seen.insert(nonce);
        nonces(&node, A).echoed(nonce);
        node.advance(seconds(1));
        assert!(node.control.trust.as_ref().expect("on").nonces.is_empty());
    }
    assert_eq!(seen.len(), 20);
    assert_eq!(node.control.counters_view()["echo_nonces_received"], 20);
}

/// Packets keep coming from A, none with the echo.
fn deny_echo(node: &mut Node) {
    let nonces = nonces(node, A);
    while request_of(&nonces, 10).is_none() {
        node.advance(seconds(1));
    }
    nonces.received(20, Tag::None);
    node.advance(seconds(1));
}

#[test]
fn dh_26_a_missing_echo_marks_the_path_unreachable_where_nothing_else_can_tell() {
    let mut node = node();
    answer_from(&mut node, true);
    deny_echo(&mut node);
    assert!(node.events.contains(&Event::EchoMissing(ip(A))));
    assert_eq!(node.destinations(SITE), [B]);
    node.advance(seconds(30));
    assert_eq!(node.destinations(SITE), [A, B], "tried again");
    node.advance(seconds(600));
    assert_eq!(node.destinations(SITE), [A, B], "no traffic at all says nothing");
}

#[test]
fn dh_26_with_probing_the_probe_decides() {
    let mut node = probed();
    deny_echo(&mut node);
    let probes =
        |node: &Node| node.sent.iter().filter(|(_, t)| t.destination.ip() == ip(A)).count();
    assert_eq!((node.destinations(SITE).len(), probes(&node)), (2, 1), "in use, but probed");
    answer_probes(&mut node);
    node.advance(seconds(10));
    assert_eq!(node.destinations(SITE), [A, B]);
    deny_echo(&mut node);
    node.advance(seconds(10));
    assert_eq!(node.destinations(SITE), [B], "the probe was not answered either");
}

#[test]
fn rp_16_replies_offer_to_echo_only_if_on_and_only_within_the_core() {
    let offers = |core: Option<TrustedCore>, to: &str| {
        let mut node = Node::new(ControlConfig { trusted_core: core, ..config() });
        let mut request = request(1, OWN);
        request.itr_rlocs = vec![Address::from(ip(to))];
        node.receive(control_port(to), &Message::MapRequest(request));
        let transmit = node.take_one();
        let Ok(Message::MapReply(reply)) = Message::parse(&transmit.payload) else {
            panic!("a reply");
        };
        reply.echo_nonce
    };
    assert!(offers(Some(core()), PEER));
    assert!(!offers(Some(core()), "203.0.113.7"), "what it sent then would not be heeded");
    assert!(!offers(Some(TrustedCore { echo_nonce: false, ..core() }), PEER));
    assert!(!offers(None, PEER), "the default");
}

#[test]
fn pi_12_a_proxy_requests_no_echo() {
    let config = ControlConfig { role: Role::Proxy, eids: vec![], ..trusting(core()) };
    let mut node = Node::new(config);
    learn(&mut node, 9);
    answer_from(&mut node, true);
    node.advance(seconds(100));
    assert_eq!(request_of(&nonces(&node, A), 1), None);
    assert!(marks(&mut node).own.is_empty());
}
