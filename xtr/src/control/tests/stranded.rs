//! Mappings without a usable locator, which may be out of date: PB-19 and what keeps Map-Requests few.
use super::*;
use crate::drops::DropReason;
use mapping::wire::EidField;
use std::sync::atomic::Ordering;

const SITE: &str = "10.2.0.0/16";
const MOVED_TO: &str = "192.0.2.99";

/// A mapping with one locator, which the underlay has no route to any more.
fn stranded(config: ControlConfig) -> Node {
    let mut node = Node::new(config);
    node.learn("10.2.0.9", vec![record(SITE, 1440, &[PEER])]);
    lose(&mut node);
    node
}

fn lose(node: &mut Node) {
    node.control.set_path(node.now, ip(PEER), None);
    node.drain();
}

/// Packets go to the site once a second for so long; what is asked is answered with `record`, if with anything. When the Map-Requests were sent.
fn send(node: &mut Node, by: Duration, answer: Option<&EidRecord>) -> Vec<Duration> {
    let (begin, mut asked) = (node.now, Vec::new());
    while node.now < begin + by {
        node.advance(seconds(1));
        if node.fib.get(&prefix(SITE)).is_some_and(Verdict::is_miss) {
            node.miss("10.2.0.9");
            assert!(!node.fib[&prefix(SITE)].is_miss(), "one packet is enough");
        }
        while !node.sent.is_empty() {
            asked.push(node.now - begin);
            let (_, _, request) = node.take_lookup();
            assert_eq!(request.records[0].eid, EidField::from(prefix(SITE)), "RQ-08");
            if let Some(record) = answer {
                node.reply(request.nonce, vec![record.clone()]);
            }
        }
    }
    asked
}

#[test]
fn pb_19_a_mapping_without_a_usable_locator_is_looked_up_anew_while_packets_use_it() {
    let mut node = stranded(config());
    assert_eq!(node.dropped(SITE), DropReason::NoUsableLocator);
    let moved = record(SITE, 1440, &[MOVED_TO]);
    assert_eq!(send(&mut node, seconds(20), Some(&moved)), [], "it may be back at once");
    assert_eq!(send(&mut node, seconds(30), Some(&moved)).len(), 1);
    assert_eq!(node.destinations(SITE), [MOVED_TO]);
    assert_eq!(send(&mut node, seconds(3_600), None), [], "now it is of use");
}

#[test]
fn pb_19_a_mapping_of_another_family_is_looked_up_anew_too() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record(SITE, 1440, &["2001:db8::77"])]);
    assert_eq!(node.dropped(SITE), DropReason::NoCommonRlocFamily);
    let moved = record(SITE, 1440, &[MOVED_TO]);
    assert_eq!(send(&mut node, seconds(60), Some(&moved)).len(), 1);
    assert_eq!(node.destinations(SITE), [MOVED_TO]);
}

#[test]
fn pb_19_without_packets_nobody_is_asked() {
    let mut node = stranded(config());
    node.advance(seconds(3_600));
    assert!(node.take_sent().is_empty());
    assert_eq!(send(&mut node, seconds(1), None).len(), 1, "the next packet asks");
    assert_eq!(node.dropped(SITE), DropReason::NoUsableLocator, "meanwhile its source is told");
}

#[test]
fn pb_19_the_same_answer_is_asked_for_at_longer_and_longer_intervals() {
    let mut node = stranded(config());
    let same = record(SITE, 1440, &[PEER]);
    let asked = send(&mut node, seconds(3_600), Some(&same));
    assert!((8..16).contains(&asked.len()), "{asked:?}");
    let gaps: Vec<Duration> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(gaps[0] >= seconds(60) && gaps[1] >= seconds(120), "{gaps:?}");
    assert!(gaps[4..].iter().all(|gap| (300..=452).contains(&gap.as_secs())), "{gaps:?}");
    // Once it was of use, it is believed as long as at first.
    node.control.set_path(node.now, ip(PEER), Some(1500));
    node.drain();
    assert_eq!(node.destinations(SITE), [PEER]);
    lose(&mut node);
    assert_eq!(send(&mut node, seconds(50), Some(&same)).len(), 1);
}

#[test]
fn rq_12_rq_13_a_doubted_mapping_is_asked_for_like_any_other() {
    let mut node = stranded(config());
    let asked = send(&mut node, seconds(60), None);
    assert_eq!(asked.len(), 11, "{asked:?}");
    assert!(asked.windows(2).all(|two| two[1] - two[0] >= seconds(1)), "{asked:?}");
    assert_eq!(node.dropped(SITE), DropReason::NoUsableLocator);
}

#[test]
fn pb_19_a_late_miss_asks_nothing() {
    let mut node = stranded(config());
    node.miss("10.2.0.9");
    assert!(node.take_sent().is_empty());
}

#[test]
fn pb_19_what_a_petr_carries_is_looked_up_anew_and_goes_on_meanwhile() {
    let petr = "192.0.2.200";
    let mut node = stranded(ControlConfig { use_petr: vec![super::petr(petr)], ..config() });
    assert_eq!(node.destinations(SITE), [petr]);
    assert_eq!(send(&mut node, seconds(600), None), [], "nobody sends");
    let clock = node.control.clock_at(node.now);
    node.set(SITE).last_used.store(clock, Ordering::Relaxed);
    let moved = record(SITE, 1440, &[MOVED_TO]);
    assert_eq!(send(&mut node, seconds(50), Some(&moved)).len(), 1);
    assert_eq!(node.destinations(SITE), [MOVED_TO]);
}

#[test]
fn pb_19_while_the_own_side_is_down_nothing_is_doubted() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record(SITE, 1440, &[PEER])]);
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, 1);
    node.drain();
    assert_eq!(node.dropped(SITE), DropReason::NoCommonRlocFamily);
    assert_eq!(send(&mut node, seconds(600), None), []);
    assert_eq!(node.dropped(SITE), DropReason::NoCommonRlocFamily);
    node.control.set_own_rloc(node.now, ip(OWN_V4), true, 600);
    node.drain();
    assert_eq!(node.destinations(SITE), [PEER]);
    node.advance(seconds(600));
    assert_eq!(node.destinations(SITE), [PEER], "nothing is left of it");
}

#[test]
fn pb_19_two_hundred_entries_of_one_dead_locator_cost_no_request_without_packets() {
    let mut node = Node::new(config());
    for site in 0..200 {
        let (host, site) = (format!("10.9.{site}.7"), format!("10.9.{site}.0/24"));
        node.learn(&host, vec![record(&site, 1440, &[PEER])]);
    }
    lose(&mut node);
    node.advance(seconds(3_600));
    assert!(node.take_sent().is_empty());
    node.miss("10.9.17.7");
    assert_eq!(node.take_sent().len(), 1, "each for itself");
    for entry in node.cached() {
        node.control.remove_entry(node.now, &prefix(&entry));
    }
    assert_eq!(node.control.stranded.next_timeout(), None);
}

#[test]
fn pb_19_rq_22_an_outage_of_many_sites_leaves_room_for_new_destinations() {
    const SITES: usize = 600;
    let mut node = Node::new(config());
    let sites = (0..SITES).map(|site| format!("10.{}.{}", 8 + site / 256, site % 256));
    let sites: Vec<String> = sites.collect();
    for site in &sites {
        node.learn(&format!("{site}.7"), vec![record(&format!("{site}.0/24"), 1440, &[PEER])]);
    }
    lose(&mut node);
    node.advance(seconds(60));
    let doubted = sites.iter().filter(|site| node.fib[&prefix(&format!("{site}.0/24"))].is_miss());
    assert_eq!(doubted.count(), SITES);
    sites.iter().for_each(|site| node.miss(&format!("{site}.7")));
    assert!(node.control.counters_view()["mappings_doubted"] < SITES as u64);
    assert!(sites.iter().all(|site| !node.fib[&prefix(&format!("{site}.0/24"))].is_miss()));
    node.advance(seconds(1));
    node.take_sent();
    node.miss("10.200.0.7");
    node.take_lookup();
}
