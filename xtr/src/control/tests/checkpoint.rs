//! OP-04: mappings that a restart brings back.
use super::*;
use crate::config::LispSec;

/// What a router keeps that learned a site with two locators and what is nobody's.
fn kept() -> Vec<KeptMapping> {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER, "192.0.2.78"])]);
    node.learn("10.3.0.9", vec![negative("10.3.0.0/16", 15, Action::NativelyForward)]);
    let kept = node.control.kept_mappings(node.now, 10);
    assert_eq!(kept.len(), 1, "what is nobody's is asked anew: {kept:?}");
    kept
}

fn restore(node: &mut Node, age: u64, kept: &[KeptMapping]) -> usize {
    let restored = node.control.restore(node.now, seconds(age), kept);
    node.drain();
    restored
}

#[test]
fn op_04_a_restored_mapping_is_used_at_once_and_verified_within_two_minutes() {
    let mut node = Node::new(config());
    assert_eq!(restore(&mut node, 60, &kept()), 1);
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER, "192.0.2.78"]);
    assert!(node.events.contains(&Event::LocatorAdded(ip(PEER))), "its path is wanted");
    assert!(node.take_sent().is_empty());
    node.set("10.2.0.0/16").last_used.store(5, std::sync::atomic::Ordering::Relaxed);
    node.advance(seconds(120));
    let asked = node.take_sent();
    assert!(!asked.is_empty(), "one in use is asked for again");
    let mut idle = Node::new(config());
    restore(&mut idle, 60, &kept());
    idle.advance(seconds(120));
    assert!(idle.take_sent().is_empty() && idle.cached().is_empty(), "another one goes");
}

#[test]
fn op_04_the_record_ttl_ends_as_it_would_have() {
    let mut node = Node::new(config());
    assert_eq!(restore(&mut node, 1440 * 60, &kept()), 0);
    assert_eq!(restore(&mut node, 1440 * 60 - 10, &kept()), 1);
    node.advance(seconds(11));
    assert!(node.cached().is_empty());
}

#[test]
fn op_04_nothing_comes_back_that_the_configuration_no_longer_allows() {
    let kept = kept();
    let own = vec![LocalEid { prefix: prefix("10.2.0.0/15"), locator_set: Vec::new() }];
    let mut node = Node::new(ControlConfig { eids: own, ..config() });
    assert_eq!(restore(&mut node, 1, &kept), 0, "the site's own now");
    let secret = Secret::new(b"itr key".to_vec());
    let lisp_sec = |required| Some(LispSec { key_id: 5, secret: secret.clone(), required });
    let mut node = Node::new(ControlConfig { lisp_sec: lisp_sec(true), ..config() });
    assert_eq!(restore(&mut node, 1, &kept), 0, "it was not protected");
    let mut node = Node::new(ControlConfig { lisp_sec: lisp_sec(false), ..config() });
    assert_eq!(restore(&mut node, 1, &kept), 1);
    assert!(!node.control.map_cache_part(node.now, None, 10).0[0].secured);
    let mut node = Node::new(ControlConfig { map_cache_limit: 1, ..config() });
    let twice = [kept[0].clone(), kept[0].clone()];
    assert_eq!(restore(&mut node, 1, &twice), 1);
}

#[test]
fn op_04_of_many_mappings_those_used_last_are_kept() {
    let mut node = Node::new(config());
    for (second, used) in [(10, 3), (11, 9), (12, 6)] {
        let (host, eid) = (format!("10.{second}.0.9"), format!("10.{second}.0.0/16"));
        node.learn(&host, vec![record(&eid, 1440, &[PEER])]);
        node.set(&eid).last_used.store(used, std::sync::atomic::Ordering::Relaxed);
    }
    let kept = node.control.kept_mappings(node.now, 2);
    let mut again = Node::new(config());
    restore(&mut again, 1, &kept);
    assert_eq!(again.cached(), ["10.11.0.0/16", "10.12.0.0/16"]);
    let (changed, mark) = node.control.mappings_changed(0);
    assert!(changed && !node.control.mappings_changed(mark).0);
}
