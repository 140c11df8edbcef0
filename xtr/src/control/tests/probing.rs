//! PB rows, RP-18.
use super::*;
use crate::view::LocatorState;
use mapping::wire::EidField;

fn probing() -> ControlConfig {
    ControlConfig { probe: Some(ProbeConfig::default()), ..config() }
}

fn probes(node: &mut Node) -> Vec<(Transmit, MapRequest)> {
    let requests = node.take_sent().into_iter().filter_map(|transmit| {
        match Message::parse(&transmit.payload) {
            Ok(Message::MapRequest(request)) if request.probe => Some((transmit, request)),
            _ => None,
        }
    });
    requests.collect()
}

fn probe_reply(nonce: u64, mut record: EidRecord, probed: &str) -> Message {
    for locator in &mut record.locators {
        locator.probed = locator.address.rloc() == Some(ip(probed));
    }
    let mut reply = MapReply::new(nonce, vec![record]);
    reply.probe = true;
    Message::MapReply(reply)
}

/// One entry whose locator was just probed for the first time.
fn probed_once() -> (Node, u64) {
    let mut node = Node::new(probing());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    node.advance(Duration::from_millis(500));
    let nonce = probes(&mut node).remove(0).1.nonce;
    (node, nonce)
}

#[test]
fn pb_01_pb_03_a_probe_goes_plain_to_the_rloc_with_the_cached_prefix() {
    let mut node = Node::new(probing());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    node.advance(Duration::from_millis(500));
    let (transmit, request) = probes(&mut node).remove(0);
    assert_eq!((transmit.source, transmit.destination), (ip(OWN_V4), control_port(PEER)));
    assert_eq!(request.records[0].eid, EidField::from(prefix("10.2.0.0/16")));
    assert_eq!(request.source_eid, Address::None);
}

#[test]
fn pb_10_three_unanswered_tries_declare_a_locator_down_and_one_answer_brings_it_up() {
    let (mut node, nonce) = probed_once();
    node.receive(
        control_port(PEER),
        &probe_reply(nonce, record("10.2.0.0/16", 1440, &[PEER]), PEER),
    );
    assert_eq!(node.control.locators_view(node.now)[0].state, LocatorState::Up);
    assert!(node.control.locators_view(node.now)[0].rtt_micros.is_some());
    node.advance(seconds(53));
    assert!(probes(&mut node).is_empty());
    node.advance(seconds(14) + seconds(3));
    assert_eq!(node.dropped("10.2.0.0/16"), crate::drops::DropReason::NoUsableLocator, "PB-17");
    assert!(node.events.contains(&Event::LocatorDown(ip(PEER))));
    assert!(probes(&mut node).len() >= 3);
    // PB-11: probing goes on, ever slower.
    node.advance(seconds(600));
    let later = probes(&mut node);
    assert!((10..=30).contains(&later.len()), "{}", later.len());
    let nonce = later.last().expect("probes").1.nonce;
    node.receive(
        control_port(PEER),
        &probe_reply(nonce, record("10.2.0.0/16", 1440, &[PEER]), PEER),
    );
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
}

#[test]
fn pb_10_a_locator_that_never_answered_is_given_up_at_the_pace_of_its_probes() {
    let interval = Duration::from_millis(500);
    let probe = ProbeConfig { interval, idle_interval: interval, ..ProbeConfig::default() };
    let mut node = Node::new(ControlConfig { probe: Some(probe), ..config() });
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    // The first probe within half a second, then three tries.
    node.advance(4 * interval);
    assert!(node.events.contains(&Event::LocatorDown(ip(PEER))));
}

#[test]
fn pb_10_the_interval_is_jittered() {
    let mut gaps = BTreeSet::new();
    let (mut node, mut nonce) = probed_once();
    for _ in 0..10 {
        node.receive(
            control_port(PEER),
            &probe_reply(nonce, record("10.2.0.0/16", 1440, &[PEER]), PEER),
        );
        let from = node.now;
        let next = node.control.next_probe().expect("a probe");
        let gap = next - from;
        assert!((seconds(54)..=seconds(66)).contains(&gap), "{gap:?}");
        gaps.insert(gap);
        node.advance(gap);
        nonce = probes(&mut node).remove(0).1.nonce;
    }
    assert!(gaps.len() > 3);
}

#[test]
fn pb_08_the_locator_with_the_p_bit_is_updated_else_the_source_of_the_reply() {
    let other = "192.0.2.66";
    for (marked, source, up) in [(other, PEER, other), ("none", other, other), (PEER, other, PEER)]
    {
        let mut node = Node::new(probing());
        node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER, other])]);
        node.advance(Duration::from_millis(500));
        let (_, request) = probes(&mut node)
            .into_iter()
            .find(|(transmit, _)| transmit.destination == control_port(PEER))
            .expect("a probe");
        let mut record = record("10.2.0.0/16", 1440, &[PEER, other]);
        for locator in &mut record.locators {
            locator.probed =
                locator.address.rloc().map(|a| a.to_string()) == Some(marked.to_owned());
        }
        let mut reply = MapReply::new(request.nonce, vec![record]);
        reply.probe = true;
        node.receive(control_port(source), &Message::MapReply(reply));
        for view in node.control.locators_view(node.now) {
            assert_eq!(view.state == LocatorState::Up, view.address == ip(up), "{marked} {source}");
        }
    }
}

#[test]
fn rp_18_a_probe_reply_without_authority_is_dropped() {
    let (mut node, nonce) = probed_once();
    let mut record = record("10.2.0.0/16", 1440, &[PEER]);
    record.authoritative = false;
    node.receive(control_port(PEER), &probe_reply(nonce, record, PEER));
    assert_eq!(node.control.locators_view(node.now)[0].state, LocatorState::Unprobed);
    assert_eq!(node.discarded(Discard::ProbeNotAuthoritative), 1);
}

#[test]
fn pb_12_a_probe_reply_updates_the_mapping_but_not_its_life() {
    let (mut node, nonce) = probed_once();
    let mut changed = record("10.2.0.0/16", 1440, &[PEER, "192.0.2.66"]);
    changed.locators[0].priority = 9;
    node.receive(control_port(PEER), &probe_reply(nonce, changed, PEER));
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.66"]);
    assert_eq!(node.control.map_cache_view(node.now)[0].expires_seconds, Some(86_399));
    // A record that lost a locator is one ETR's view; another prefix was not asked for.
    node.advance(seconds(1));
    let (transmit, request) = probes(&mut node).remove(0);
    let peer = transmit.destination;
    let partial = record("10.2.0.0/16", 1440, &["192.0.2.66"]);
    node.receive(peer, &probe_reply(request.nonce, partial, "192.0.2.66"));
    let everything = record("0.0.0.0/0", 1440, &["192.0.2.66"]);
    node.advance(seconds(70));
    let (_, request) = probes(&mut node).remove(0);
    node.receive(peer, &probe_reply(request.nonce, everything, "192.0.2.66"));
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
    assert_eq!(node.control.map_cache_view(node.now)[0].locators.len(), 2);
}

#[test]
fn pb_18_one_probe_per_rloc_serves_every_prefix() {
    let mut node = Node::new(probing());
    for net in 2..=20 {
        node.learn(
            &format!("10.{net}.0.9"),
            vec![record(&format!("10.{net}.0.0/16"), 1440, &[PEER])],
        );
    }
    node.advance(Duration::from_millis(600));
    assert!(probes(&mut node).len() <= 1);
    node.advance(seconds(5));
    assert_eq!(node.events.iter().filter(|e| **e == Event::LocatorDown(ip(PEER))).count(), 1);
    assert!(
        (2..=20)
            .all(|net| matches!(node.fib[&prefix(&format!("10.{net}.0.0/16"))], Verdict::Drop(_)))
    );
    // MC-26: a new entry with the same RLOC knows it is down.
    node.learn("10.30.0.9", vec![record("10.30.0.0/16", 1440, &[PEER])]);
    assert_eq!(node.dropped("10.30.0.0/16"), crate::drops::DropReason::NoUsableLocator);
}

#[test]
fn pe_11_petrs_are_probed_with_the_default_prefix_and_their_answer_is_no_mapping() {
    let mut node = Node::new(ControlConfig { use_petr: vec![petr("192.0.2.200")], ..probing() });
    node.advance(Duration::from_millis(500));
    let (transmit, request) = probes(&mut node).remove(0);
    assert_eq!(transmit.destination, control_port("192.0.2.200"));
    assert_eq!(request.records[0].eid, EidField::from(prefix("0.0.0.0/0")));
    let record = record("0.0.0.0/0", 1440, &["192.0.2.200"]);
    node.receive(transmit.destination, &probe_reply(request.nonce, record, "192.0.2.200"));
    assert_eq!(node.control.locators_view(node.now)[0].state, LocatorState::Up);
    assert!(node.cached().is_empty());
}

#[test]
fn pb_13_without_probing_locators_are_taken_as_up() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    node.advance(seconds(3600));
    assert!(node.take_sent().is_empty());
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
}

#[test]
fn pb_18_a_prefix_the_etr_no_longer_serves_does_not_take_its_rloc_down() {
    let mut node = Node::new(probing());
    for net in [2, 3] {
        let served = record(&format!("10.{net}.0.0/16"), 1440, &[PEER]);
        node.learn(&format!("10.{net}.0.9"), vec![served]);
    }
    let gone = EidField::from(prefix("10.2.0.0/16"));
    // The ETR answers for 10.3.0.0/16 only, and with a locator more than before (PB-12).
    let current = record("10.3.0.0/16", 1440, &[PEER, "192.0.2.66"]);
    for _ in 0..3000 {
        node.advance(Duration::from_millis(100));
        for (transmit, request) in probes(&mut node) {
            if request.records[0].eid != gone {
                let (to, reply) = (transmit.destination, current.clone());
                node.receive(to, &probe_reply(request.nonce, reply, &to.ip().to_string()));
            }
        }
    }
    assert!(!node.events.contains(&Event::LocatorDown(ip(PEER))), "{:?}", node.events);
    assert_eq!(node.destinations("10.3.0.0/16"), ["192.0.2.66", PEER], "PB-12");
}

/// A locator that has been down for so long that the next probe is far away.
fn long_down() -> Node {
    let mut node = Node::new(probing());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    node.advance(seconds(600));
    let wait = node.control.next_probe().expect("a probe") - node.now;
    node.advance(wait + seconds(1));
    node.take_sent();
    node
}

#[test]
fn pb_11_a_locator_that_is_down_is_probed_at_once_when_the_own_side_is_back() {
    let mut node = long_down();
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, 1);
    node.advance(seconds(1));
    assert!(probes(&mut node).is_empty());
    node.control.set_own_rloc(node.now, ip(OWN_V4), true, 1);
    node.advance(seconds(1));
    assert_eq!(probes(&mut node).len(), 1);
}

#[test]
fn pb_11_a_locator_that_is_down_is_probed_at_once_when_its_route_is_back() {
    let mut node = long_down();
    node.control.set_path(node.now, ip(PEER), None);
    node.advance(seconds(1));
    assert!(probes(&mut node).is_empty());
    node.control.set_path(node.now, ip(PEER), Some(1500));
    node.advance(seconds(1));
    assert_eq!(probes(&mut node).len(), 1);
}
