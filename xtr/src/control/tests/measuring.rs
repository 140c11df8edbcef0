//! What monitoring and `isthmus top` see: OP-01, RFC 7052.
use super::*;
use crate::counters::TrafficCounters;
use std::collections::BTreeMap;

#[test]
fn op_01_resolution_is_measured_from_the_first_map_request() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    node.take_sent();
    node.advance(seconds(1));
    let (_, _, again) = node.take_lookup();
    node.advance(Duration::from_millis(3));
    node.reply(again.nonce, vec![record("10.2.0.0/16", 10, &[PEER])]);
    let view = node.control.resolution_view();
    assert_eq!((view.count, view.sum_micros), (1, 1_003_000));
    let bucket = view.buckets.iter().find(|(_, count)| *count > 0);
    assert_eq!(bucket, Some(&(2_500_000, 1)));
}

#[test]
fn op_01_the_map_cache_s_churn_is_counted() {
    let mut node = Node::new(config());
    let counted = |node: &Node| {
        let counters = node.control.counters_view();
        ["map_cache_added", "map_cache_updated", "map_cache_removed"]
            .map(|name| counters.get(name).copied().unwrap_or_default())
    };
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    assert_eq!(counted(&node), [1, 0, 0]);
    node.advance(seconds(700));
    assert_eq!(counted(&node), [1, 0, 1]);
}

#[test]
fn op_01_the_eids_that_carried_most_come_first() {
    let mut node = Node::new(config());
    for net in 2..6 {
        let eid = format!("10.{net}.0.0/16");
        node.learn(&format!("10.{net}.0.9"), vec![record(&eid, 60, &[PEER])]);
        let entry = node.control.cache.get_mut(&prefix(&eid)).expect("an entry");
        let counters = Arc::new(TrafficCounters::default());
        counters.add_shared(1, [0, 0, 300, 0, 500, 400][net]);
        entry.traffic = BTreeMap::from([(ip(PEER), counters)]);
    }
    let tops = |most| -> Vec<_> {
        let views = node.control.top_eids(node.now, most);
        views.iter().map(|view| (view.prefix.to_string(), view.octets)).collect()
    };
    let expected = [("10.4.0.0/16", 500), ("10.5.0.0/16", 400), ("10.2.0.0/16", 300)];
    let expected = expected.map(|(eid, octets)| (eid.to_owned(), octets));
    assert_eq!(tops(10), expected, "one that carried nothing is none");
    assert_eq!(tops(2), expected[..2]);
    assert_eq!(tops(0), []);
}

#[test]
fn op_01_locators_and_registrations_have_series() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    let (series, left_out) = node.control.series(node.now);
    assert_eq!(left_out, 0);
    let of_peer = |metric: &str| {
        let mut found = series.iter().filter(|series| series.metric == metric);
        found.find(|series| series.labels["rloc"] == PEER).map(|series| series.value)
    };
    assert_eq!(of_peer("locator_mappings"), Some(1.0));
    assert_eq!(of_peer("locator_up"), Some(1.0));
    assert_eq!(of_peer("locator_rtt_seconds"), None, "no probe was answered yet");
}

#[test]
fn sm_04_a_solicitation_is_an_event_with_its_source() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    let mut smr = request(0, "10.1.0.0/16");
    (smr.smr, smr.source_eid) = (true, Address::from(ip("10.2.0.0")));
    node.receive(control_port(PEER), &Message::MapRequest(smr));
    let solicited = Event::SmrReceived { prefix: prefix("10.2.0.0/16"), from: ip(PEER) };
    assert!(node.events.contains(&solicited), "{:?}", node.events);
}

#[test]
fn pb_16_a_locator_without_a_route_is_an_event() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.control.set_path(node.now, ip(PEER), None);
    node.drain();
    assert!(node.events.contains(&Event::LocatorNoRoute(ip(PEER))), "{:?}", node.events);
    let trouble = node.control.trouble_of(ip(PEER));
    assert_eq!(trouble.as_deref(), Some("the underlay has no route to it"));
    node.control.set_path(node.now, ip(PEER), Some(1500));
    node.drain();
    assert!(node.events.contains(&Event::LocatorRouted(ip(PEER))), "{:?}", node.events);
    assert_eq!(node.control.trouble_of(ip(PEER)), None);
}
