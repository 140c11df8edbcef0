//! MC-03 to MC-19, MC-26, PE-11, PE-12, EN-24, EN-25, PB-16, PB-17.
use super::*;
use crate::drops::DropReason;
use std::sync::atomic::Ordering;

#[test]
fn mc_03_an_entry_lives_for_its_ttl() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.advance(seconds(599));
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
    node.advance(seconds(1));
    assert!(node.cached().is_empty());
    assert!(!node.fib.contains_key(&prefix("10.2.0.0/16")));
}

#[test]
fn mc_04_ttl_0_removes_the_entry_at_once() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.advance(seconds(2));
    node.control.start_lookup(node.now, prefix("10.2.0.0/16"), super::itr::Purpose::SmrInvoked);
    node.drain();
    node.answer(vec![record("10.2.0.0/16", 0, &[PEER])]);
    assert!(node.cached().is_empty());
    assert!(!node.fib.contains_key(&prefix("10.2.0.0/16")));
    assert!(node.control.locators.is_empty());
}

#[test]
fn mc_05_a_ttl_of_all_ones_is_a_day() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", u32::MAX, &[PEER])]);
    assert_eq!(node.control.map_cache_view(node.now)[0].expires_seconds, Some(24 * 3600));
}

#[test]
fn mc_07_a_less_specific_answer_for_a_cached_prefix_replaces_what_it_covers() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/24", 60, &[PEER])]);
    node.learn("10.2.1.9", vec![record("10.2.1.0/24", 60, &[PEER])]);
    node.advance(seconds(2));
    node.control.start_lookup(node.now, prefix("10.2.0.0/24"), super::itr::Purpose::SmrInvoked);
    node.drain();
    node.answer(vec![record("10.2.0.0/16", 60, &[PEER])]);
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
    assert_eq!(node.fib.len(), 3, "two own prefixes and the new entry");
}

#[test]
fn mc_08_more_specifics_are_added_beside_the_less_specific() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.advance(seconds(2));
    node.control.start_lookup(node.now, prefix("10.2.0.0/16"), super::itr::Purpose::SmrInvoked);
    node.drain();
    node.answer(vec![
        record("10.2.0.0/16", 60, &[PEER]),
        record("10.2.1.0/24", 60, &["192.0.2.66"]),
    ]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.1.0/24"]);
}

#[test]
fn mc_09_a_later_less_specific_expires_with_its_more_specifics() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/24", 10, &[PEER])]);
    node.learn("10.2.1.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.0.0/24"]);
    assert_eq!(node.control.map_cache_view(node.now)[0].expires_seconds, Some(600));
}

#[test]
fn mc_08_a_refresh_leaves_more_specifics_alone() {
    let mut node = Node::new(config());
    node.learn("10.2.1.9", vec![record("10.2.1.0/24", 10, &["192.0.2.66"])]);
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    node.advance(seconds(2));
    node.control.start_lookup(node.now, prefix("10.2.0.0/16"), super::itr::Purpose::SmrInvoked);
    node.drain();
    node.answer(vec![record("10.2.0.0/16", 1440, &[PEER])]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.1.0/24"]);
    assert_eq!(node.control.map_cache_view(node.now)[0].expires_seconds, Some(86_400));
}

#[test]
fn mc_10_mc_11_mc_12_mc_13_mc_14_mc_15_every_action_has_its_verdict() {
    use DropReason::{ActionAuthFailure, ActionDrop, ActionNoAction, ActionPolicyDenied};
    for (action, reason) in [
        (Action::NoAction, ActionNoAction),
        (Action::Drop, ActionDrop),
        (Action::DropPolicyDenied, ActionPolicyDenied),
        (Action::DropAuthFailure, ActionAuthFailure),
        (Action::Unassigned(6), ActionNoAction),
        (Action::Unassigned(7), ActionNoAction),
    ] {
        let mut node = Node::new(config());
        node.learn("10.2.0.9", vec![negative("10.2.0.0/16", 10, action)]);
        assert_eq!(node.dropped("10.2.0.0/16"), reason);
        let counted = matches!(action, Action::Unassigned(_));
        assert_eq!(node.control.counters_view().contains_key("unassigned_actions"), counted);
    }
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![negative("10.2.0.0/16", 10, Action::NativelyForward)]);
    assert!(matches!(node.fib[&prefix("10.2.0.0/16")], Verdict::Native));
    node.learn("10.3.0.9", vec![negative("10.3.0.0/16", 10, Action::SendMapRequest)]);
    assert!(matches!(node.fib[&prefix("10.3.0.0/16")], Verdict::Miss));
}

#[test]
fn mc_16_the_action_is_read_only_without_locators() {
    let mut node = Node::new(config());
    let mut record = record("10.2.0.0/16", 10, &[PEER]);
    record.action = Action::Drop;
    node.learn("10.2.0.9", vec![record]);
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
}

#[test]
fn cw_09_cw_33_cw_34_locators_that_are_all_ignored_count_as_none() {
    let mut node = Node::new(config());
    let mut named = record("10.2.0.0/16", 10, &[PEER]);
    named.locators[0].address = Address::Name(b"rloc".to_vec());
    node.learn("10.2.0.9", vec![named]);
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::ActionNoAction);
    // CW-08: beside a good one it is skipped. CW-33: so is a broadcast or multicast address.
    let mut mixed = record("10.3.0.0/16", 10, &[PEER, "255.255.255.255", "224.0.0.1"]);
    mixed.locators.push(LocatorRecord::new(Address::Name(b"rloc".to_vec()), 0, 1));
    node.learn("10.3.0.9", vec![mixed]);
    assert_eq!(node.destinations("10.3.0.0/16"), [PEER]);
}

#[test]
fn mc_17_mc_18_mc_19_mc_23_only_the_best_usable_priority_carries_traffic() {
    let mut node = Node::new(config());
    let mut record = record(
        "10.2.0.0/16",
        10,
        &["192.0.2.70", "192.0.2.71", "192.0.2.72", "192.0.2.73", "192.0.2.74"],
    );
    record.locators[0].reachable = false; // MC-17
    (record.locators[0].priority, record.locators[1].priority) = (0, 255); // MC-18
    record.locators[2].priority = 2;
    (record.locators[3].priority, record.locators[4].priority) = (1, 1);
    node.learn("10.2.0.9", vec![record]);
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.73", "192.0.2.74"]);
    // PB-16, PB-17, MC-23: without a route a locator is down; the next priority follows.
    node.control.set_path(node.now, ip("192.0.2.73"), None);
    node.drain();
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.74"]);
    node.control.set_path(node.now, ip("192.0.2.74"), None);
    node.drain();
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.72"]);
    node.control.set_path(node.now, ip("192.0.2.72"), None);
    node.drain();
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::NoUsableLocator);
    node.control.set_path(node.now, ip("192.0.2.73"), Some(1400));
    node.drain();
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.73"]);
    assert_eq!(node.set("10.2.0.0/16").adjacencies[0].mtu, 1400);
}

#[test]
fn en_25_without_a_common_family_packets_are_dropped() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &["2001:db8::7"])]);
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::NoCommonRlocFamily);
    // With an own RLOC of the family they are not.
    let rlocs = vec![own("core4", OWN_V4), own("core6", OWN_V6)];
    let mut node = Node::new(ControlConfig { rlocs, ..config() });
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &["2001:db8::7"])]);
    assert_eq!(node.set("10.2.0.0/16").adjacencies[0].source, ip(OWN_V6));
}

#[test]
fn en_24_an_own_address_as_locator_is_a_loop() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[OWN_V4])]);
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::EncapsulationLoop);
    assert!(matches!(node.fib[&prefix("10.1.0.0/16")], Verdict::Native), "own EIDs stay here");
}

#[test]
fn pe_11_pe_12_ni_09_non_lisp_destinations_go_to_a_petr() {
    let use_petr = vec![petr("192.0.2.200")];
    let mut node = Node::new(ControlConfig { use_petr, ..config() });
    node.learn("10.2.0.9", vec![negative("10.2.0.0/16", 10, Action::NativelyForward)]);
    node.learn("10.3.0.9", vec![record("10.3.0.0/16", 10, &["2001:db8::7"])]);
    node.learn("10.4.0.9", vec![record("10.4.0.0/16", 10, &[PEER])]);
    node.learn("10.5.0.9", vec![negative("10.5.0.0/16", 10, Action::Drop)]);
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.200"]);
    // A provider's uRPF sees an address of its own.
    assert_eq!(node.set("10.2.0.0/16").adjacencies[0].source, ip(OWN_V4));
    assert_eq!(node.destinations("10.3.0.0/16"), ["192.0.2.200"]);
    assert_eq!(node.destinations("10.4.0.0/16"), [PEER]);
    assert_eq!(node.dropped("10.5.0.0/16"), DropReason::ActionDrop);
    // PB-19: all locators down.
    node.control.set_path(node.now, ip(PEER), None);
    node.drain();
    assert_eq!(node.destinations("10.4.0.0/16"), ["192.0.2.200"]);
    // The PETR down: nothing leaves natively.
    node.control.set_path(node.now, ip("192.0.2.200"), None);
    node.drain();
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::NoUsableLocator);
    assert_eq!(node.dropped("10.3.0.0/16"), DropReason::NoCommonRlocFamily);
    node.control.set_path(node.now, ip("192.0.2.200"), Some(1500));
    node.drain();
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.200"]);
    assert_eq!(node.destinations("10.4.0.0/16"), ["192.0.2.200"]);
    node.control.set_path(node.now, ip(PEER), Some(1500));
    node.drain();
    assert_eq!(node.destinations("10.4.0.0/16"), [PEER]);
}

#[test]
fn pe_11_the_petr_is_chosen_by_priority() {
    let mut use_petr = vec![petr("192.0.2.200"), petr("192.0.2.201"), petr("192.0.2.202")];
    use_petr[0].priority = 2;
    let mut node = Node::new(ControlConfig { use_petr, ..config() });
    node.learn("10.2.0.9", vec![negative("10.2.0.0/16", 10, Action::NativelyForward)]);
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.201", "192.0.2.202"]);
}

#[test]
fn pe_11_a_petr_given_by_name_is_followed() {
    let endpoint = Endpoint::Name("petr.example.net".to_owned());
    let use_petr = vec![Petr { endpoint, priority: 1, weight: 1 }];
    let mut node = Node::new(ControlConfig { use_petr, ..config() });
    node.learn("10.2.0.9", vec![negative("10.2.0.0/16", 10, Action::NativelyForward)]);
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::NoUsableLocator);
    for address in ["192.0.2.200", "192.0.2.201"] {
        node.control.set_name(node.now, "petr.example.net", &[ip(address)]);
        node.drain();
        assert_eq!(node.destinations("10.2.0.0/16"), [address]);
    }
    assert_eq!(node.control.remote_rlocs().collect::<Vec<_>>(), [ip("192.0.2.201")]);
}

#[test]
fn mc_26_counters_and_last_use_survive_an_update() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER, "192.0.2.66"])]);
    let before = node.set("10.2.0.0/16");
    before.last_used.store(5, Ordering::Relaxed);
    for adjacency in &before.adjacencies {
        adjacency.traffic.add_shared(3, 300);
    }
    node.control.set_path(node.now, ip(PEER), Some(1400));
    node.drain();
    let after = node.set("10.2.0.0/16");
    assert_eq!(after.last_used.load(Ordering::Relaxed), 5);
    assert!(Arc::ptr_eq(&before.adjacencies[1].traffic, &after.adjacencies[1].traffic));
    node.advance(seconds(2));
    node.control.start_lookup(node.now, prefix("10.2.0.0/16"), super::itr::Purpose::SmrInvoked);
    node.drain();
    node.answer(vec![record("10.2.0.0/16", 10, &[PEER])]);
    let view = node.control.map_cache_view(node.now).remove(0);
    assert_eq!((view.packets, view.octets), (6, 600));
    assert_eq!((view.locators[0].packets, view.locators.len()), (3, 1));
    assert_eq!(view.uptime_seconds, 2);
}

/// What the table of sources says of an EID-prefix.
fn senders(node: &mut Node) -> BTreeMap<EidPrefix, Result<Vec<String>, crate::drops::DropReason>> {
    let mut table = BTreeMap::new();
    while let Some(update) = node.control.poll_source_update() {
        match update {
            FibUpdate::Insert(prefix, Verdict::Encapsulate(set)) => {
                let all = set.adjacencies.iter().map(|one| one.destination.to_string()).collect();
                table.insert(prefix, Ok(all));
            }
            FibUpdate::Insert(prefix, Verdict::Drop(reason)) => {
                table.insert(prefix, Err(reason));
            }
            FibUpdate::Insert(prefix, other) => panic!("{prefix} is {other:?}"),
            FibUpdate::Remove(prefix) => drop(table.remove(&prefix)),
        }
    }
    table
}

#[test]
fn pe_04_de_23_every_locator_of_a_mapping_may_send_whether_we_would_use_it_or_not() {
    let mut node = Node::new(config());
    node.control.track_sources();
    let mut known = record("10.2.0.0/16", 10, &["192.0.2.70", "192.0.2.71", "2001:db8::7"]);
    known.locators[0].reachable = false;
    known.locators[1].priority = 9;
    node.learn("10.2.0.9", vec![known]);
    node.learn("10.9.0.9", vec![negative("10.9.0.0/16", 15, Action::NativelyForward)]);
    let table = senders(&mut node);
    let all = ["192.0.2.70", "192.0.2.71", "2001:db8::7"].map(str::to_owned).to_vec();
    assert_eq!(table[&prefix("10.2.0.0/16")], Ok(all));
    assert_eq!(table[&prefix("10.9.0.0/16")], Err(DropReason::PetrSourceNotRegistered));
    // What becomes of a locator changes nothing; a mapping that goes does.
    node.control.set_path(node.now, ip("192.0.2.71"), None);
    node.drain();
    assert!(senders(&mut node).is_empty());
    node.learn("10.3.0.9", vec![record("10.3.0.0/16", 1, &["192.0.2.70"])]);
    assert!(senders(&mut node).contains_key(&prefix("10.3.0.0/16")));
    node.advance(seconds(61));
    assert!(
        matches!(node.control.poll_source_update(), Some(FibUpdate::Remove(gone)) if gone == prefix("10.3.0.0/16"))
    );
}

#[test]
fn pe_04_a_source_that_moved_has_its_mapping_looked_up_anew() {
    let mut node = Node::new(config());
    node.control.track_sources();
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &["192.0.2.70"])]);
    node.sent.clear();
    node.advance(seconds(2));
    let punt = Punt::SourceMoved { source: eid("10.2.0.9") };
    node.control.handle_punt(node.now, &punt);
    node.control.handle_timeout(node.now);
    node.drain();
    assert!(!node.take_sent().is_empty(), "somebody is asked");
    let stranger = Punt::SourceMoved { source: eid("10.66.0.9") };
    node.control.handle_punt(node.now, &stranger);
    node.control.handle_timeout(node.now);
    node.drain();
    assert!(node.take_sent().is_empty(), "nothing is known of it, so nothing can be old");
}

#[test]
fn mc_27_a_mapping_that_verifies_sources_is_in_use() {
    let mut node = Node::new(ControlConfig { map_cache_limit: 3, ..config() });
    node.control.track_sources();
    for net in 2..=4 {
        node.learn(
            &format!("10.{net}.0.9"),
            vec![record(&format!("10.{net}.0.0/16"), 60, &[PEER])],
        );
    }
    while let Some(FibUpdate::Insert(verified, Verdict::Encapsulate(set))) =
        node.control.poll_source_update()
    {
        let used = if verified == prefix("10.3.0.0/16") { 0 } else { 9 };
        set.last_used.store(used, Ordering::Relaxed);
    }
    node.learn("10.5.0.9", vec![record("10.5.0.0/16", 60, &[PEER])]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.4.0.0/16", "10.5.0.0/16"]);
}

#[test]
fn mc_27_lies_about_sources_leave_half_of_the_map_requests_to_packets_that_go_out() {
    let mut node = Node::new(config());
    node.control.track_sources();
    for host in 0..10_000u32 {
        let source = IpAddr::from(std::net::Ipv4Addr::from(0x0a09_0000 + host));
        let source = Eid::new(InstanceId::DEFAULT, source);
        let punt = Punt::SourceUnknown { source, destination: ip("203.0.113.7") };
        node.control.handle_punt(node.now, &punt);
    }
    node.drain();
    assert_eq!(node.take_sent().len(), 500);
    assert_eq!(node.discarded(Discard::PendingFull), 9_500);
    node.advance(seconds(5));
    node.take_sent();
    node.miss("10.2.0.9");
    let asked = node.take_sent().into_iter().any(|sent| {
        let Ok(Message::Encapsulated(ecm)) = Message::parse(&sent.payload) else { return false };
        ecm.destination == control_port("10.2.0.9")
    });
    assert!(asked, "at once");
    // Those without an answer make room in the end.
    node.advance(seconds(60));
    node.take_sent();
    let punt = Punt::SourceUnknown { source: eid("10.77.0.1"), destination: ip("203.0.113.7") };
    node.control.handle_punt(node.now, &punt);
    node.drain();
    assert_eq!(node.take_sent().len(), 1);
}
