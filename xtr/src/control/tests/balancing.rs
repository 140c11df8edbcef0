//! MC-17 to MC-24 as a whole: which locators of a mapping carry traffic, and what is counted for each.
use super::*;
use crate::counters::Traffic;
use crate::drops::DropReason;
use crate::fib::select;
use crate::view::SentView;
use ipnet::IpNet;
use std::sync::atomic::Ordering;

const SITE: &str = "10.2.0.0/16";

/// A mapping of these locators: address, priority, weight.
fn mapping(locators: &[(&str, u8, u8)]) -> EidRecord {
    let addresses: Vec<_> = locators.iter().map(|(address, ..)| *address).collect();
    let mut record = record(SITE, 60, &addresses);
    for (address, priority, weight) in locators {
        let of_address = |l: &&mut LocatorRecord| l.address.rloc() == Some(ip(address));
        let locator = record.locators.iter_mut().find(of_address).expect("a locator");
        (locator.priority, locator.weight) = (*priority, *weight);
    }
    record
}

fn node(locators: &[(&str, u8, u8)]) -> Node {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![mapping(locators)]);
    node
}

/// The mapping is another one now.
fn learn_again(node: &mut Node, locators: &[(&str, u8, u8)]) {
    node.advance(seconds(4));
    node.sent.clear();
    node.control.start_lookup(node.now, prefix(SITE), itr::Purpose::SmrInvoked);
    node.drain();
    node.answer(vec![mapping(locators)]);
}

/// Percent of 10 000 flows by locator.
fn shares(node: &Node) -> BTreeMap<IpAddr, f64> {
    let (set, hasher) = (node.set(SITE), crate::packet::FlowHasher::new([3; 32]));
    let mut shares = BTreeMap::new();
    for flow in 0..10_000u32 {
        let hash = hasher.hash_address(IpAddr::V4(flow.into()));
        let chosen = select(&set, hash).expect("a locator").destination;
        *shares.entry(chosen).or_default() += 0.01;
    }
    shares
}

fn assert_shares(node: &Node, wanted: &[(&str, f64)]) {
    let shares = shares(node);
    assert_eq!(shares.len(), wanted.len(), "{shares:?}");
    for (address, share) in wanted {
        assert!((shares[&ip(address)] - share).abs() <= 1.5, "{address}: {shares:?}");
    }
}

#[test]
fn mc_20_a_changed_mapping_moves_the_shares_and_only_so_many_flows() {
    let mut node = node(&[("192.0.2.70", 1, 50), ("192.0.2.71", 1, 50)]);
    assert_shares(&node, &[("192.0.2.70", 50.0), ("192.0.2.71", 50.0)]);
    let before = node.set(SITE);
    learn_again(&mut node, &[("192.0.2.70", 1, 70), ("192.0.2.71", 1, 30)]);
    assert_shares(&node, &[("192.0.2.70", 70.0), ("192.0.2.71", 30.0)]);
    let (after, hasher) = (node.set(SITE), crate::packet::FlowHasher::new([3; 32]));
    let moved = (0..10_000u32).filter(|flow| {
        let hash = hasher.hash_address(IpAddr::V4((*flow).into()));
        let chosen = |set| select(set, hash).expect("a locator").destination;
        chosen(&before) != chosen(&after)
    });
    let moved = moved.count();
    assert!((1_880..=2_120).contains(&moved), "{moved} of 10 000 flows moved");
}

#[test]
fn mc_18_a_mapping_of_priority_255_alone_carries_nothing() {
    let node = node(&[("192.0.2.70", 255, 100), ("192.0.2.71", 255, 0)]);
    assert_eq!(node.dropped(SITE), DropReason::NoUsableLocator);
}

#[test]
fn mc_20_a_family_that_cannot_be_reached_leaves_its_share_to_the_others() {
    let locators = [("192.0.2.70", 1, 25), ("192.0.2.71", 1, 25), ("2001:db8::7", 1, 50)];
    assert_shares(&node(&locators), &[("192.0.2.70", 50.0), ("192.0.2.71", 50.0)]);
}

#[test]
fn mc_22_a_locator_of_weight_zero_takes_over_when_the_others_are_down() {
    let mut node = node(&[("192.0.2.70", 1, 0), ("192.0.2.71", 1, 50)]);
    assert_shares(&node, &[("192.0.2.71", 100.0)]);
    node.control.set_path(node.now, ip("192.0.2.71"), None);
    node.drain();
    assert_shares(&node, &[("192.0.2.70", 100.0)]);
}

#[test]
fn mc_28_a_mapping_that_covers_the_map_resolver_leads_no_map_request_astray() {
    let mut node = Node::new(config());
    let around = IpNet::new(ip(RESOLVER), 24).expect("prefix").trunc().to_string();
    node.learn(RESOLVER, vec![record(&around, 60, &[PEER])]);
    node.miss("10.3.0.9");
    let request = node.take_lookup().0;
    assert_eq!(request.destination, control_port(RESOLVER));
    assert_eq!(request.source, ip(OWN_V4));
}

#[test]
fn mc_26_traffic_is_shown_by_locator_and_that_of_former_ones_is_not_lost() {
    let mut node = node(&[("192.0.2.70", 1, 50), ("192.0.2.71", 1, 50)]);
    for (adjacency, packets) in node.set(SITE).adjacencies.iter().zip([3, 5]) {
        adjacency.traffic.add_shared(packets, packets * 100);
    }
    let sent = |node: &Node| node.control.traffic_view(&[]).sent;
    let line = |rloc: Option<&str>, packets: u64| SentView {
        prefix: SITE.parse().expect("prefix"),
        instance_id: 0,
        rloc: rloc.map(ip),
        packets,
        octets: packets * 100,
    };
    assert_eq!(sent(&node), [line(Some("192.0.2.70"), 3), line(Some("192.0.2.71"), 5)]);
    learn_again(&mut node, &[("192.0.2.70", 1, 50)]);
    assert_eq!(sent(&node), [line(Some("192.0.2.70"), 3), line(None, 5)]);
    assert_eq!(node.set(SITE).last_used.load(Ordering::Relaxed), 0);
}

#[test]
fn rp_12_what_arrives_is_shown_with_the_locator_as_it_is_registered() {
    let mut config = config();
    config.rlocs.push(own("q", "192.0.2.2"));
    config.eids[0].locator_set = vec!["q".to_owned()];
    (config.rlocs[1].weight, config.rlocs[1].multicast_priority) = (70, 9);
    let node = Node::new(config);
    let traffic = Traffic { packets: 2, octets: 300 };
    let own = prefix("10.1.0.0/16");
    let arrived = [(own, ip(OWN_V4), traffic), (own, ip("192.0.2.2"), traffic)];
    let view = node.control.traffic_view(&arrived).arrived;
    assert_eq!((view[0].packets, view[0].octets, &view[0].locator), (2, 300, &None));
    let locator = view[1].locator.as_ref().expect("of the set");
    assert_eq!((locator.priority, locator.weight), (1, 70));
    assert_eq!((locator.multicast_priority, locator.multicast_weight), (9, 0));
}
