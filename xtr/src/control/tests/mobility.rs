//! Hosts of dynamic-EID ranges: seen, registered, withdrawn, gone elsewhere.
use super::*;
use crate::config::DynamicRange;

pub(super) fn range(extended_subnet: bool) -> DynamicRange {
    DynamicRange {
        range: "172.16.4.0/24".parse::<ipnet::IpNet>().map(prefix_of).expect("prefix"),
        locator_set: Vec::new(),
        interfaces: vec!["lan0".to_owned()],
        timeout: DynamicRange::TIMEOUT,
        limit: 2,
        extended_subnet,
    }
}

fn prefix_of(prefix: ipnet::IpNet) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, prefix)
}

fn control(extended_subnet: bool) -> (Instant, ControlPlane) {
    let now = Instant::now();
    let mut control = ControlPlane::new(config(), now, [7; 32], 1);
    control.set_dynamic_ranges(now, &[range(extended_subnet)]);
    (now, control)
}

pub(super) fn seen(address: &str, how: Detection) -> HostSeen {
    let address = address.parse().expect("address");
    HostSeen { interface: Some("lan0".to_owned()), address, how }
}

fn is_here(control: &ControlPlane, host: &str) -> bool {
    control.own_mappings().any(|own| own.eid.prefix.prefix().to_string() == host)
}

#[test]
fn dy_01_a_host_of_a_range_is_registered_as_a_host_route_at_once() {
    let (now, mut control) = control(false);
    control.handle_host(now, &seen("172.16.4.7", Detection::Arp));
    assert!(is_here(&control, "172.16.4.7/32"));
    assert!(matches!(control.poll_host_change(), Some(HostChange::Here { .. })));
    // Neither outside the range nor on another interface, and no more than the limit.
    control.handle_host(now, &seen("172.16.5.9", Detection::Data));
    let elsewhere =
        HostSeen { interface: Some("lan1".to_owned()), ..seen("172.16.4.8", Detection::Arp) };
    control.handle_host(now, &elsewhere);
    assert!(!is_here(&control, "172.16.5.9/32") && !is_here(&control, "172.16.4.8/32"));
    for host in ["172.16.4.8", "172.16.4.9"] {
        control.handle_host(now, &seen(host, Detection::Arp));
    }
    assert!(is_here(&control, "172.16.4.8/32") && !is_here(&control, "172.16.4.9/32"));
}

#[test]
fn dy_01_on_an_extended_subnet_only_a_packet_tells_where_a_host_is() {
    let (now, mut control) = control(true);
    control.handle_host(now, &seen("172.16.4.7", Detection::Arp));
    assert!(!is_here(&control, "172.16.4.7/32"));
    control.handle_host(now, &seen("172.16.4.7", Detection::Data));
    assert!(is_here(&control, "172.16.4.7/32"));
}

#[test]
fn dy_05_a_host_that_is_not_heard_is_asked_and_then_withdrawn() {
    let (now, mut control) = control(false);
    control.handle_host(now, &seen("172.16.4.7", Detection::Arp));
    control.handle_timeout(now + DynamicRange::TIMEOUT / 2);
    let changes: Vec<HostChange> = std::iter::from_fn(|| control.poll_host_change()).collect();
    assert!(changes.iter().any(|change| matches!(change, HostChange::Probe { .. })));
    assert!(is_here(&control, "172.16.4.7/32"));
    control.handle_timeout(now + DynamicRange::TIMEOUT);
    assert!(!is_here(&control, "172.16.4.7/32"));
    let changes: Vec<HostChange> = std::iter::from_fn(|| control.poll_host_change()).collect();
    assert!(changes.iter().any(|change| matches!(change, HostChange::Forget { .. })));
}

#[test]
fn dy_03_a_host_that_another_site_registered_is_away_and_comes_back() {
    let (now, mut control) = control(false);
    control.handle_host(now, &seen("172.16.4.7", Detection::Arp));
    let eid = EidPrefix::new(InstanceId::DEFAULT, "172.16.4.7/32".parse().expect("prefix"));
    let locator = mapping::wire::LocatorRecord::new(
        "198.51.100.77".parse::<IpAddr>().expect("address"),
        1,
        100,
    );
    let record = mapping::wire::EidRecord::new(eid, 1440, vec![locator]);
    control.host_registered(now, 0, &record);
    assert!(!is_here(&control, "172.16.4.7/32"));
    let changes: Vec<HostChange> = std::iter::from_fn(|| control.poll_host_change()).collect();
    assert!(changes.iter().any(|one| matches!(one, HostChange::Away { .. })), "{changes:?}");
    let view = control.mobility_view(now);
    assert_eq!((view.len(), view[0].place.as_str()), (1, "away"));
    control.handle_host(now, &seen("172.16.4.7", Detection::Data));
    assert!(is_here(&control, "172.16.4.7/32"));
    assert_eq!(control.mobility_view(now)[0].place, "here");
}

/// A node at whose site 172.16.4.7 was; now it is at `rloc`.
fn departed(rloc: &str) -> Node {
    let mut node = Node::new(config());
    node.control.set_dynamic_ranges(node.now, &[range(false)]);
    node.control.handle_host(node.now, &seen("172.16.4.7", Detection::Arp));
    moved(&mut node, rloc);
    node.take_sent();
    node
}

/// A Map-Server says that 172.16.4.7 is at `rloc` now.
fn moved(node: &mut Node, rloc: &str) {
    node.control.host_registered(node.now, 0, &record("172.16.4.7/32", 1440, &[rloc]));
    node.control.handle_timeout(node.now);
    node.drain();
}

/// 203.0.113.9 behind `rloc` sent a packet to 172.16.4.7.
fn sent_here(node: &mut Node, rloc: &str, returns: bool) {
    let (destination, source) = (eid("172.16.4.7"), ip("203.0.113.9"));
    let punt = Punt::Left { destination, source, rloc: ip(rloc), returns };
    node.control.handle_punt(node.now, &punt);
    node.control.handle_timeout(node.now);
    node.drain();
}

#[test]
fn dy_04_sm_09_whoever_sends_to_a_host_that_is_away_gets_a_data_triggered_smr() {
    let mut node = departed("198.51.100.77");
    assert_eq!(node.destinations("172.16.4.7/32"), ["198.51.100.77"]);
    sent_here(&mut node, PEER, false);
    let sent = soliciting::smrs(&mut node);
    let [(transmit, smr)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((transmit.source, transmit.destination), (ip(OWN_V4), control_port(PEER)));
    assert!(smr.dont_map_reply && !smr.smr_invoked);
    assert_eq!(smr.source_eid, Address::from(ip("172.16.4.7")));
    assert_eq!(smr.records[0].eid, mapping::wire::EidField::from(prefix("203.0.113.9/32")));
}

#[test]
fn dy_04_sm_03_data_triggered_smrs_go_once_in_three_seconds_to_one_rloc() {
    let mut node = departed("198.51.100.77");
    let mut sent = 0;
    for _ in 0..100 {
        sent_here(&mut node, PEER, false);
        node.advance(Duration::from_millis(100));
        sent += soliciting::smrs(&mut node).len();
    }
    assert_eq!(sent, 4, "at 0, 3, 6 and 9 s");
    // Others are told at once.
    sent_here(&mut node, "192.0.2.78", false);
    assert_eq!(soliciting::smrs(&mut node).len(), 1);
}

#[test]
fn dy_04_nobody_is_solicited_for_a_host_that_came_back_or_is_not_known() {
    let mut node = departed("198.51.100.77");
    node.control.handle_host(node.now, &seen("172.16.4.7", Detection::Data));
    sent_here(&mut node, PEER, false);
    assert!(soliciting::smrs(&mut node).is_empty(), "it is here");
    let mut node = Node::new(config());
    node.control.set_dynamic_ranges(node.now, &[range(false)]);
    sent_here(&mut node, PEER, false);
    assert!(soliciting::smrs(&mut node).is_empty(), "not known");
}

#[test]
fn dy_04_two_routers_that_have_the_host_at_the_other_both_ask() {
    let mut node = departed("198.51.100.77");
    sent_here(&mut node, "198.51.100.77", true);
    let sent = node.take_sent();
    let [smr, lookup] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(smr.destination, control_port("198.51.100.77"));
    assert_eq!(lookup.destination, control_port(RESOLVER));
    let Ok(Message::Encapsulated(ecm)) = Message::parse(&lookup.payload) else { panic!("no ECM") };
    let request = ecm.map_request().expect("a Map-Request");
    assert_eq!(request.records[0].eid, mapping::wire::EidField::from(prefix("172.16.4.7/32")));
}

#[test]
fn dy_01_a_host_is_shown_at_the_locators_of_its_range() {
    let config = ControlConfig { rlocs: vec![own("a", OWN_V4), own("b", "192.0.2.2")], ..config() };
    let mut node = Node::new(config);
    let only_b = DynamicRange { locator_set: vec!["b".to_owned()], ..range(false) };
    node.control.set_dynamic_ranges(node.now, &[only_b]);
    node.control.handle_host(node.now, &seen("172.16.4.7", Detection::Arp));
    assert_eq!(node.control.mobility_view(node.now)[0].rlocs, [ip("192.0.2.2")]);
    let traffic = crate::counters::Traffic { packets: 1, octets: 9 };
    let arrived = ["192.0.2.2", OWN_V4].map(|at| (prefix("172.16.4.0/24"), ip(at), traffic));
    let view = node.control.traffic_view(&arrived);
    let is_locator: Vec<bool> = view.arrived.iter().map(|one| one.locator.is_some()).collect();
    assert_eq!(is_locator, [true, false]);
}

#[test]
fn dy_01_other_ranges_keep_the_hosts_that_they_still_have() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2")];
    let map_servers = vec![server()];
    let mut node = Node::new(ControlConfig { rlocs, map_servers, ..config() });
    let other = DynamicRange { range: prefix("172.16.8.0/24"), ..range(false) };
    node.control.set_dynamic_ranges(node.now, &[range(false), other.clone()]);
    for host in ["172.16.4.7", "172.16.8.7"] {
        node.control.handle_host(node.now, &seen(host, Detection::Arp));
    }
    node.advance(Duration::ZERO);
    soliciting::acknowledge(&mut node);
    node.learn("172.16.12.9", vec![record("172.16.12.9/32", 1440, &["198.51.100.77"])]);
    node.control.host_registered(node.now, 0, &record("172.16.8.9/32", 1440, &["198.51.100.78"]));
    let places = |node: &Node| -> Vec<String> {
        let views = node.control.mobility_view(node.now).into_iter();
        views.map(|view| format!("{} {}", view.eid, view.place)).collect()
    };
    let changes = |node: &mut Node| -> Vec<HostChange> {
        std::iter::from_fn(|| node.control.poll_host_change()).collect()
    };
    assert_eq!(places(&node), ["172.16.4.7 here", "172.16.8.7 here", "172.16.8.9 away"]);
    changes(&mut node);
    node.take_sent();
    // The same in another order, with another timeout: nothing is to be done.
    let patient = DynamicRange { timeout: seconds(60), limit: 9, ..range(false) };
    node.control.set_dynamic_ranges(node.now, &[other.clone(), patient.clone()]);
    node.advance(Duration::ZERO);
    assert!(soliciting::registers(&mut node).is_empty());
    assert!(changes(&mut node).iter().all(|one| matches!(one, HostChange::Probe { .. })));
    assert_eq!(places(&node).len(), 3);
    // Another locator-set, and a range that comes: a host of it is known to be elsewhere.
    let only_b = DynamicRange { locator_set: vec!["b".to_owned()], ..patient };
    let third = DynamicRange { range: prefix("172.16.12.0/24"), ..range(false) };
    node.control.set_dynamic_ranges(node.now, &[only_b.clone(), other, third]);
    node.advance(Duration::ZERO);
    let registered = soliciting::registers(&mut node);
    let records: Vec<_> = registered.iter().flat_map(|register| &register.records).collect();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].eid.prefix(), Some(prefix("172.16.4.7/32")));
    assert_eq!(records[0].locators.len(), 1);
    assert!(places(&node).contains(&"172.16.12.9 away".to_owned()));
    // One goes: so do its hosts, withdrawn and with their routes; packets still find the one elsewhere.
    changes(&mut node);
    node.control.set_dynamic_ranges(node.now, std::slice::from_ref(&only_b));
    node.advance(Duration::ZERO);
    let gone: Vec<_> = changes(&mut node)
        .into_iter()
        .filter_map(|change| match change {
            HostChange::Forget { eid } => Some(eid.address.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(gone, ["172.16.8.7", "172.16.8.9", "172.16.12.9"]);
    assert_eq!(places(&node), ["172.16.4.7 here"]);
    assert_eq!(node.destinations("172.16.8.9/32"), ["198.51.100.78"]);
    let records = soliciting::registers(&mut node).remove(0).records;
    assert_eq!(
        (records[0].eid.prefix(), records[0].ttl_minutes),
        (Some(prefix("172.16.8.7/32")), 0)
    );
    // Its interface is none of the range's any more.
    let elsewhere = DynamicRange { interfaces: vec!["lan1".to_owned()], ..only_b };
    node.control.set_dynamic_ranges(node.now, &[elsewhere]);
    assert!(places(&node).is_empty());
}
