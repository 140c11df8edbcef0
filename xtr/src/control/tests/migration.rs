//! How far a migration is, and long lists in parts: OP-01.
use super::*;
use crate::control::map_cache::Mapping;
use crate::counters::{Families, Traffic};
use crate::migration::{MigrationView, Way};
use mapping::migration::{Family, Offer};

const NOTHING: [Traffic; Families::COUNT] = [Traffic { packets: 0, octets: 0 }; Families::COUNT];

/// Packets go to a locator of an entry.
fn sent(node: &mut Node, eid: &str, rloc: &str, packets: u64) {
    let entry = node.control.cache.get_mut(&prefix(eid)).expect("an entry");
    entry.traffic.entry(ip(rloc)).or_default().add_shared(packets, 100 * packets);
}

fn report(node: &Node, most: usize) -> MigrationView {
    let received = [1, 2, 0, 4].map(|packets| Traffic { packets, octets: 10 * packets });
    let mut sum = MigrationView::default();
    let mut after = None;
    loop {
        let (part, next) = node.control.migration_part(after, most, &received);
        sum = sum.plus(part);
        after = next;
        if after.is_none() {
            return sum;
        }
    }
}

fn classes(report: &MigrationView) -> Vec<(Family, Family, Way, u64)> {
    let class = |c: &crate::migration::SentClassView| (c.inner, c.outer, c.way, c.octets);
    report.sent.iter().map(class).collect()
}

fn node() -> Node {
    let use_petr = vec![petr("192.0.2.200")];
    let mut node = Node::new(ControlConfig { use_petr, ..config() });
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.learn("10.3.0.9", vec![negative("10.3.0.0/16", 10, Action::NativelyForward)]);
    node.learn("10.4.0.9", vec![record("10.4.0.0/16", 10, &[PEER, "2001:db8::9"])]);
    sent(&mut node, "10.2.0.0/16", PEER, 5);
    sent(&mut node, "10.3.0.0/16", "192.0.2.200", 3);
    sent(&mut node, "10.4.0.0/16", "2001:db8::9", 1);
    node
}

#[test]
fn op_01_what_was_sent_is_told_by_family_and_way_in_any_number_of_parts() {
    use Family::{Ipv4, Ipv6};
    let node = node();
    let whole = report(&node, 100);
    let expected = [
        (Ipv4, Ipv4, Way::Direct, 500),
        (Ipv4, Ipv4, Way::Petr, 300),
        (Ipv4, Ipv6, Way::Direct, 100),
    ];
    assert_eq!(classes(&whole), expected);
    assert_eq!(whole.entries, 3);
    let received: Vec<_> =
        whole.received.iter().map(|class| (class.inner, class.outer, class.packets)).collect();
    assert_eq!(received, [(Ipv4, Ipv4, 1), (Ipv4, Ipv6, 2), (Ipv6, Ipv6, 4)]);
    let offers: Vec<_> =
        whole.offers.iter().map(|offer| (offer.locators, offer.mappings)).collect();
    assert_eq!(offers, [(Offer::Ipv4, 1), (Offer::Both, 1), (Offer::None, 1)]);
    let sites: Vec<_> = whole
        .sites
        .iter()
        .map(|site| (site.prefix.to_string(), site.octets, site.over_ipv6, site.through_petr))
        .collect();
    let site = |prefix: &str, octets, over_ipv6, petr| (prefix.to_owned(), octets, over_ipv6, petr);
    let expected = [
        site("10.2.0.0/16", 500, 0, 0),
        site("10.3.0.0/16", 300, 0, 300),
        site("10.4.0.0/16", 100, 100, 0),
    ];
    assert_eq!(sites, expected);
    for most in 1..4 {
        assert_eq!(report(&node, most), whole, "{most} at a time");
    }
}

#[test]
fn op_01_what_entries_had_sent_that_are_gone_still_counts() {
    let mut node = node();
    let before = classes(&report(&node, 100));
    // A locator goes, then an entry, then all of them and the PETR.
    let mapping = Mapping::from_record(&record("10.4.0.0/16", 10, &[PEER]), &node.control.own);
    let expires = node.now + seconds(600);
    node.control.install_proved(node.now, prefix("10.4.0.0/16"), mapping, expires);
    assert_eq!(classes(&report(&node, 100)), before);
    assert_eq!(report(&node, 100).sites.len(), 2, "what 10.4.0.0/16 sends now is counted anew");
    node.control.remove_entry(node.now, &prefix("10.2.0.0/16"));
    assert_eq!(classes(&report(&node, 100)), before);
    node.control.clear_map_cache(node.now, None);
    let after = report(&node, 100);
    assert_eq!((classes(&after), after.entries), (before, 0));
    assert!(after.sites.is_empty());
}

#[test]
fn op_01_entries_are_found_by_eid_prefix_and_by_rloc_in_parts() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.learn("10.3.0.9", vec![record("10.3.0.0/16", 10, &["192.0.2.99"])]);
    for net in 0..5 {
        let eid = format!("172.16.{net}.0/24");
        node.learn(&format!("172.16.{net}.9"), vec![record(&eid, 10, &[PEER])]);
    }
    let find = |within: Option<&str>, rloc: Option<&str>, most: usize| {
        let asked = (within.map(prefix), rloc.map(ip));
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (views, next) = node.control.find_mappings(node.now, asked, after, most);
            assert!(views.len() <= most.max(2), "{views:?}");
            found.extend(views.into_iter().map(|view| view.prefix.to_string()));
            after = next;
            if after.is_none() {
                return found;
            }
        }
    };
    for most in [1, 2, 3, 100] {
        assert_eq!(find(None, None, most).len(), 7, "{most}");
        assert_eq!(
            find(Some("10.3.0.9/32"), None, most),
            ["10.3.0.0/16"],
            "the one that covers it"
        );
        assert_eq!(find(Some("10.3.0.0/16"), None, most), ["10.3.0.0/16"], "itself");
        assert_eq!(find(Some("10.0.0.0/8"), None, most), ["10.2.0.0/16", "10.3.0.0/16"]);
        assert_eq!(find(Some("172.16.0.0/12"), None, most).len(), 5);
        assert_eq!(find(Some("192.168.0.0/16"), None, most).len(), 0);
        assert_eq!(find(None, Some(PEER), most).len(), 6);
        assert_eq!(find(Some("10.0.0.0/8"), Some(PEER), most), ["10.2.0.0/16"]);
        assert_eq!(find(None, Some("192.0.2.78"), most).len(), 0);
    }
}

#[test]
fn op_01_remote_rlocs_come_in_parts_without_a_look_at_their_entries() {
    let mut node = node();
    sent(&mut node, "10.2.0.0/16", PEER, 5);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (views, next) = node.control.remote_rlocs_part(node.now, after, 1);
        found.extend(views.iter().map(|v| (v.address, v.petr, v.mappings, v.unusable.is_some())));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let peer = found.iter().find(|rloc| rloc.0 == ip(PEER));
    assert_eq!(peer, Some(&(ip(PEER), false, 2, false)));
    let petr = found.iter().find(|rloc| rloc.0 == ip("192.0.2.200"));
    assert_eq!(petr, Some(&(ip("192.0.2.200"), true, 0, false)));
    assert_eq!(found.len(), 2, "one without a family of ours is none of them: {found:?}");
    let (report, _) = node.control.migration_part(None, 100, &NOTHING);
    assert!(report.received.is_empty());
}
