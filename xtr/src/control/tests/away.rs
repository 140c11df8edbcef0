//! Hosts of dynamic-EID ranges that are at another site: what is believed, checked, bounded and forgotten.
use super::mobility::{range, seen};
use super::soliciting::{acknowledge, registers};
use super::*;

const HOST: &str = "172.16.4.7/32";
const OTHER: &str = "198.51.100.77";

/// An xTR with a range of which `own` is an EID-prefix, registered.
fn site(own: &str) -> Node {
    let eids = vec![LocalEid { prefix: prefix(own), locator_set: Vec::new() }];
    let mut node = Node::new(ControlConfig { eids, map_servers: vec![server()], ..config() });
    node.control.set_dynamic_ranges(node.now, &[range(false)]);
    node.advance(Duration::ZERO);
    acknowledge(&mut node);
    node.sent.retain(|(_, sent)| sent.destination == control_port(RESOLVER));
    if !node.sent.is_empty() {
        node.answer(vec![record(own, 1440, &[OWN_V4])]);
    }
    node.take_sent();
    node
}

fn arrives(node: &mut Node, host: &str) {
    node.control.handle_host(node.now, &seen(host, Detection::Arp));
    node.control.handle_timeout(node.now);
    node.drain();
}

/// The Map-Server says by itself where a host is.
fn told(node: &mut Node, record: &EidRecord) {
    node.control.host_registered(node.now, 0, record);
    node.control.handle_timeout(node.now);
    node.drain();
}

fn at(host: &str, rloc: &str) -> EidRecord {
    record(&format!("{host}/32"), 1440, &[rloc])
}

fn places(node: &Node) -> Vec<(String, String)> {
    let views = node.control.mobility_view(node.now);
    views.into_iter().map(|view| (view.eid.to_string(), view.place)).collect()
}

fn place_is(node: &Node, place: &str) -> bool {
    places(node) == [("172.16.4.7".to_owned(), place.to_owned())]
}

fn changes(node: &mut Node) -> Vec<HostChange> {
    std::iter::from_fn(|| node.control.poll_host_change()).collect()
}

fn is_probe(change: &HostChange) -> bool {
    matches!(change, HostChange::Probe { .. })
}

#[test]
fn dy_03_a_host_that_is_said_to_be_elsewhere_is_asked_and_stays_if_it_answers() {
    let mut node = site("10.1.0.0/16");
    arrives(&mut node, "172.16.4.7");
    acknowledge(&mut node);
    changes(&mut node);
    told(&mut node, &at("172.16.4.7", OTHER));
    assert!(place_is(&node, "away"));
    let done = changes(&mut node);
    assert!(matches!(done[0], HostChange::Away { .. }) && is_probe(&done[1]), "{done:?}");
    node.take_sent();
    arrives(&mut node, "172.16.4.7");
    assert!(place_is(&node, "here"));
    assert_eq!(registers(&mut node)[0].records[0].eid.prefix(), Some(prefix(HOST)));
}

#[test]
fn dy_03_a_host_is_here_or_away_and_no_timer_of_one_stops_the_other() {
    let mut node = site("10.1.0.0/16");
    arrives(&mut node, "172.16.4.7");
    acknowledge(&mut node);
    // As when a configuration named it for a while: the host is here, and no own mapping any more.
    node.control.forget_own_mapping(node.now, &prefix(HOST));
    node.learn("172.16.4.7", vec![at("172.16.4.7", OTHER)]);
    assert!(place_is(&node, "away"));
    for _ in 0..200 {
        node.control.handle_host(node.now, &seen("172.16.4.7", Detection::Arp));
        node.advance(Duration::from_secs(1));
    }
    assert_eq!(places(&node).len(), 1);
}

#[test]
fn dy_03_what_a_map_server_says_before_it_acknowledged_the_host_is_contested_once() {
    let mut node = site("10.1.0.0/16");
    arrives(&mut node, "172.16.4.7");
    let first = registers(&mut node).pop().expect("registered");
    told(&mut node, &at("172.16.4.7", OTHER));
    assert!(place_is(&node, "here"), "the Map-Server may not know yet");
    let again = registers(&mut node).pop().expect("registered again");
    assert!(again.nonce > first.nonce && again.records[0].ttl_minutes != 0);
    told(&mut node, &at("172.16.4.7", OTHER));
    assert!(place_is(&node, "away"), "it insists");
}

#[test]
fn dy_03_a_refresh_that_is_on_its_way_does_not_bring_a_host_back() {
    let mut node = site("10.1.0.0/16");
    arrives(&mut node, "172.16.4.7");
    acknowledge(&mut node);
    node.control.register_change(node.now);
    node.drain();
    assert!(!registers(&mut node).is_empty(), "refreshed, not acknowledged yet");
    told(&mut node, &at("172.16.4.7", OTHER));
    let sent = registers(&mut node);
    let of_host = |register: &mapping::wire::MapRegister| {
        let mut records = register.records.iter();
        records.find(|record| record.eid.prefix() == Some(prefix(HOST))).map(|r| r.ttl_minutes)
    };
    assert!(sent.iter().filter_map(of_host).eq([0]), "withdrawn: {sent:?}");
    // Without one on its way there is nothing to withdraw.
    let mut node = site("10.1.0.0/16");
    arrives(&mut node, "172.16.4.7");
    acknowledge(&mut node);
    told(&mut node, &at("172.16.4.7", OTHER));
    assert!(registers(&mut node).iter().filter_map(of_host).next().is_none());
}

#[test]
fn dy_04_the_mapping_system_is_asked_for_hosts_that_are_away() {
    let mut node = site("172.16.4.0/24");
    told(&mut node, &at("172.16.4.7", OTHER));
    node.take_sent();
    let asks = |node: &mut Node| -> Vec<EidPrefix> {
        let sent = node.take_sent().into_iter();
        sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
            Ok(Message::Encapsulated(ecm)) => ecm.map_request().ok()?.records[0].eid.prefix(),
            _ => None,
        })
        .collect()
    };
    node.advance(seconds(59));
    assert!(asks(&mut node).is_empty());
    node.advance(seconds(1));
    let lookup = node.sent.iter().position(|(_, sent)| sent.destination == control_port(RESOLVER));
    let (_, lookup) = node.sent.swap_remove(lookup.expect("asked"));
    node.sent.clear();
    let Ok(Message::Encapsulated(ecm)) = Message::parse(&lookup.payload) else { panic!("no ECM") };
    let request = ecm.map_request().expect("a Map-Request");
    assert_eq!(request.records[0].eid.prefix(), Some(prefix(HOST)));
    assert!(!request.smr_invoked);
    // It is still there: nothing changes. It moved on: its packets follow.
    node.reply(request.nonce, vec![at("172.16.4.7", "198.51.100.78")]);
    assert_eq!(node.destinations(HOST), ["198.51.100.78"]);
    assert!(place_is(&node, "away"));
    // Nobody has it any more: the answer is the covering EID-prefix, the site's own.
    changes(&mut node);
    node.advance(seconds(60));
    let nonce = node.sent.iter().find_map(|(_, sent)| match Message::parse(&sent.payload) {
        Ok(Message::Encapsulated(ecm)) => ecm.map_request().ok().map(|request| request.nonce),
        _ => None,
    });
    node.reply(nonce.expect("asked again"), vec![record("172.16.4.0/24", 1440, &[OWN_V4])]);
    assert!(places(&node).is_empty());
    assert!(matches!(changes(&mut node)[..], [HostChange::Forget { .. }]));
    assert!(!node.fib.contains_key(&prefix(HOST)));
}

#[test]
fn dy_03_the_home_of_a_range_asks_who_has_left_it_and_believes_no_more_than_that() {
    let eids = vec![LocalEid { prefix: prefix("172.16.4.0/24"), locator_set: Vec::new() }];
    let mut node = Node::new(ControlConfig { eids, map_servers: vec![server()], ..config() });
    node.control.set_dynamic_ranges(node.now, &[range(false)]);
    node.advance(Duration::ZERO);
    acknowledge(&mut node);
    let (_, _, request) = node.take_lookup();
    assert_eq!(request.records[0].eid.prefix(), Some(prefix("172.16.4.0/24")));
    let records = vec![
        record("172.16.4.0/24", 1440, &[OWN_V4]),
        record("172.16.4.128/25", 1440, &[OTHER]),
        at("172.16.4.7", OTHER),
    ];
    node.reply(request.nonce, records);
    assert!(place_is(&node, "away"));
    assert_eq!(node.destinations(HOST), [OTHER]);
    assert!(!node.fib.contains_key(&prefix("172.16.4.128/25")));
    assert!(matches!(node.fib[&prefix("172.16.4.0/24")], Verdict::Native));
    // A host that comes back is no home.
    arrives(&mut node, "172.16.4.7");
    acknowledge(&mut node);
    assert!(node.take_sent().iter().all(|sent| sent.destination != control_port(RESOLVER)));
}

#[test]
fn dy_04_an_answer_about_one_host_leaves_the_others_away() {
    let mut node = site("172.16.4.0/24");
    told(&mut node, &at("172.16.4.7", OTHER));
    told(&mut node, &at("172.16.4.8", OTHER));
    node.take_sent();
    let punt = Punt::Left {
        destination: eid("172.16.4.7"),
        source: ip("203.0.113.9"),
        rloc: ip(OTHER),
        returns: true,
    };
    node.control.handle_punt(node.now, &punt);
    node.drain();
    node.sent.retain(|(_, sent)| sent.destination == control_port(RESOLVER));
    node.answer(vec![record("172.16.4.0/24", 1440, &[OWN_V4]), at("172.16.4.8", "198.51.100.66")]);
    let away = ("172.16.4.8".to_owned(), "away".to_owned());
    assert_eq!(places(&node), [away]);
    assert_eq!(node.destinations("172.16.4.8/32"), [OTHER], "what was told outdoes what was asked");
}

#[test]
fn dy_04_an_answer_to_what_was_asked_before_the_news_is_not_heeded() {
    let mut node = site("10.1.0.0/16");
    node.miss("172.16.4.7");
    let (_, _, request) = node.take_lookup();
    told(&mut node, &at("172.16.4.7", OTHER));
    node.reply(request.nonce, vec![at("172.16.4.7", "198.51.100.66")]);
    assert_eq!(node.destinations(HOST), [OTHER]);
    assert_eq!(node.discarded(Discard::NonceUnknown), 1);
}

#[test]
fn dy_04_a_request_for_a_host_that_the_map_server_has_here_by_mistake_is_set_right() {
    let mut node = site("10.1.0.0/16");
    told(&mut node, &at("172.16.4.7", OTHER));
    node.take_sent();
    for _ in 0..3 {
        let inner = Message::MapRequest(request(99, HOST)).to_vec();
        let ecm = EncapsulatedControlMessage::new(
            control_port(PEER),
            SocketAddr::new(ip("172.16.4.7"), CONTROL_PORT),
            inner,
        );
        node.receive(control_port(SERVER), &Message::Encapsulated(ecm));
    }
    let sent = registers(&mut node);
    assert_eq!(sent.len(), 1, "once");
    assert_eq!(sent[0].records[0].eid.prefix(), Some(prefix(HOST)));
    assert_eq!(sent[0].records[0].ttl_minutes, 0);
}

#[test]
fn dy_04_a_host_that_the_mapping_system_has_here_is_here_if_it_was() {
    for (was_here, now_here) in [(true, true), (false, false)] {
        let mut node = site("10.1.0.0/16");
        if was_here {
            arrives(&mut node, "172.16.4.7");
            acknowledge(&mut node);
        }
        told(&mut node, &at("172.16.4.7", OTHER));
        node.take_sent();
        node.advance(seconds(60));
        node.sent.retain(|(_, sent)| sent.destination == control_port(RESOLVER));
        node.answer(vec![at("172.16.4.7", OWN_V4)]);
        assert_eq!(!places(&node).is_empty(), now_here);
        let ttl = registers(&mut node)[0].records[0].ttl_minutes;
        assert_eq!(ttl == 0, !now_here, "registered, or withdrawn");
    }
}

#[test]
fn dy_03_hosts_that_are_away_are_bounded_by_the_limit_of_their_range() {
    let mut node = site("172.16.4.0/24");
    for last in 1..=5 {
        told(&mut node, &at(&format!("172.16.4.{last}"), OTHER));
    }
    assert_eq!(places(&node).len(), 2);
    assert_eq!(node.control.counters_view()["dynamic_eids_away_over_limit"], 3);
    assert_eq!(node.destinations("172.16.4.5/32"), [OTHER], "its packets find it");
    // One comes home, and there is room.
    arrives(&mut node, "172.16.4.1");
    told(&mut node, &at("172.16.4.6", OTHER));
    assert_eq!(places(&node).len(), 3);
}

#[test]
fn dy_03_a_host_without_place_ends_with_its_entry() {
    let mut node = site("172.16.4.0/24");
    told(&mut node, &record("172.16.4.7/32", 5, &[OTHER]));
    assert!(place_is(&node, "away"));
    changes(&mut node);
    node.advance(seconds(301));
    assert!(places(&node).is_empty());
    assert!(matches!(changes(&mut node)[..], [HostChange::Forget { .. }]));
}

#[test]
fn dy_01_an_address_that_is_in_two_places_is_left_in_one_for_a_while() {
    let mut node = site("172.16.4.0/24");
    for _ in 0..11 {
        told(&mut node, &at("172.16.4.7", OTHER));
        arrives(&mut node, "172.16.4.7");
        if place_is(&node, "here") {
            acknowledge(&mut node);
        }
    }
    assert!(place_is(&node, "away"));
    assert_eq!(node.events.iter().filter(|e| matches!(e, Event::HostHeldDown(_))).count(), 1);
    assert_eq!(node.control.mobility_view(node.now)[0].held_seconds, Some(10));
    node.take_sent();
    for _ in 0..100 {
        arrives(&mut node, "172.16.4.7");
    }
    assert!(registers(&mut node).is_empty(), "no storm");
    let counters = node.control.counters_view();
    let counted = ["dynamic_eids_held_down", "host_moves_refused"].map(|name| counters[name]);
    assert_eq!(counted, [1, 101]);
    // When that is over it is asked, and may come back.
    changes(&mut node);
    node.advance(seconds(10));
    assert!(changes(&mut node).iter().any(is_probe));
    arrives(&mut node, "172.16.4.7");
    assert!(place_is(&node, "here"));
}
