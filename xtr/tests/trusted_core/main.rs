//! Tunnel routers in a trusted core, each with its control plane and its forwarding path, that have nothing but the headers of data packets
//! to learn of changes from: no probing, and nobody counts as recently used when a mapping changes.
use network::{A, A2, B, EIDS_B, Flow, Network, PROXY, ip, prefix};
use std::net::IpAddr;
use std::time::Duration;
use xtr::config::TrustedCore;
use xtr::drops::DropReason;
use xtr::marks::Tag;

mod network;

fn all_on() -> TrustedCore {
    TrustedCore {
        rlocs: vec!["192.0.2.0/24".parse().expect("prefix")],
        map_versioning: true,
        status_bits: true,
        echo_nonce: true,
        use_lsb_timer: Duration::from_secs(300),
        ..TrustedCore::default()
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Where `router` sends now, of the last packets.
fn destinations(network: &mut Network, router: &str) -> Vec<IpAddr> {
    let history = &network.router(router).history;
    let mut recent: Vec<_> = history.iter().rev().take(40).map(|(to, _)| *to).collect();
    recent.sort();
    recent.dedup();
    recent
}

fn set_rloc(network: &mut Network, rloc: &str, up: bool) {
    let now = network.now;
    network.router(A).control.set_own_rloc(now, ip(rloc), up, 1_000_000);
    network.exchange();
}

#[test]
fn with_everything_on_and_nothing_wrong_every_packet_arrives() {
    let mut network = Network::new(&all_on(), &[Flow::AToB, Flow::BToA, Flow::ProxyToA]);
    network.run(seconds(300));
    for (name, router) in &network.routers {
        assert_eq!(router.counters().dropped_total(), 0, "{name}: {:?}", router.counters());
    }
    assert_eq!(network.router(B).delivered(), 15_000);
    assert_eq!(network.router(A).delivered(), 30_000);
    for name in [A, B] {
        let router = network.router(name);
        assert!(router.count("echo_nonces_received") >= 8, "{name}");
        assert_eq!(router.count("echo_nonces_missing"), 0, "{name}");
        let with =
            |tag: fn(&Tag) -> bool| router.history.iter().filter(|(_, m)| tag(&m.tag)).count();
        let versions = with(|tag| matches!(tag, Tag::Versions { .. }));
        let requests = with(|tag| matches!(tag, Tag::Nonce { request: true, .. }));
        let echoes = with(|tag| matches!(tag, Tag::Nonce { request: false, .. }));
        assert!(requests > 0 && echoes > 0 && versions > 13_000, "{versions} {requests} {echoes}");
        assert_eq!(router.count("map_requests_sent"), 1, "nothing has to be asked again");
    }
}

#[test]
fn mv_10_sm_04_a_change_is_learned_from_the_version_in_a_data_packet() {
    let mut network = Network::new(&all_on(), &[Flow::BToA, Flow::ProxyToA]);
    network.run(seconds(10));
    for name in [B, PROXY] {
        assert_eq!(destinations(&mut network, name), [ip(A), ip(A2)], "{name}");
    }
    set_rloc(&mut network, A2, false);
    network.run(seconds(5));
    for name in [B, PROXY] {
        assert_eq!(destinations(&mut network, name), [ip(A)], "{name}");
    }
    assert!(network.router(A).count("smrs_sent") >= 2);
    assert_eq!(network.router(A).counters().dropped_total(), 0, "an old version is delivered");
}

#[test]
fn mv_14_a_change_of_the_sender_is_learned_from_its_own_packets() {
    let mut network = Network::new(&all_on(), &[Flow::AToB, Flow::BToA]);
    network.run(seconds(10));
    network.flows = vec![Flow::AToB];
    network.smrs_lost = true;
    set_rloc(&mut network, A2, false);
    network.run(seconds(3));
    assert_eq!(network.router(B).count("newer_map_versions"), 1);
    network.flows = vec![Flow::BToA];
    network.run(seconds(2));
    assert_eq!(destinations(&mut network, B), [ip(A)]);
}

#[test]
fn dh_19_status_bits_alone_move_traffic_without_any_request() {
    let core = TrustedCore { map_versioning: false, echo_nonce: false, ..all_on() };
    let mut network = Network::new(&core, &[Flow::AToB, Flow::BToA]);
    network.run(seconds(10));
    let asked = network.router(B).count("map_requests_sent");
    network.smrs_lost = true;
    set_rloc(&mut network, A2, false);
    network.run(seconds(2));
    assert_eq!(destinations(&mut network, B), [ip(A)]);
    set_rloc(&mut network, A2, true);
    network.run(seconds(3));
    assert_eq!(destinations(&mut network, B), [ip(A), ip(A2)]);
    assert_eq!(network.router(B).count("map_requests_sent"), asked);
}

#[test]
fn dh_26_a_one_way_path_is_found_by_the_missing_echo() {
    let mut network = Network::new(&all_on(), &[Flow::AToB, Flow::BToA]);
    network.run(seconds(10));
    // What B sends to A's first locator is lost; A's packets still come from there.
    network.lost = vec![(B, A)];
    let before = network.router(A).delivered();
    let mut away = 0;
    for _ in 0..60 {
        network.run(seconds(1));
        away += u32::from(destinations(&mut network, B) == [ip(A2)]);
    }
    assert!(away >= 20, "{away} of 60 s");
    assert!(network.router(B).count("echo_nonces_missing") >= 1);
    assert!(network.router(A).delivered() > before);
    // A unidirectional flow says nothing.
    let mut network = Network::new(&all_on(), &[Flow::BToA]);
    network.lost = vec![(B, A)];
    network.run(seconds(120));
    assert_eq!(destinations(&mut network, B), [ip(A), ip(A2)]);
}

#[test]
fn pi_12_a_proxy_says_nothing_of_a_source() {
    let mut network = Network::new(&all_on(), &[Flow::ProxyToA]);
    network.run(seconds(100));
    for (_, marks) in &network.router(PROXY).history {
        assert!(marks.status_bits.is_none());
        let Tag::Versions { source, destination } = marks.tag else { panic!("{marks:?}") };
        assert!(source.is_null() && !destination.is_null());
    }
}

#[test]
fn mv_15_a_forged_older_source_version_is_dropped_and_changes_nothing() {
    let mut network = Network::new(&all_on(), &[Flow::AToB, Flow::BToA]);
    network.run(seconds(5));
    // B's database goes back: another router of the same site, say, that was not told.
    let old = TrustedCore {
        versions: [(prefix(EIDS_B), mapping::eid::MapVersion::from_bits(1))].into(),
        ..all_on()
    };
    let mut other = Network::new(&old, &[Flow::BToA]);
    other.now = network.now;
    other.run(seconds(1));
    let stranger = other.routers.remove(B).expect("a router");
    let number = |router: &network::Router| {
        let found = router.control.map_versions().find(|(own, _)| *own == prefix(EIDS_B));
        found.expect("own").1
    };
    assert!(number(network.router(B)).is_newer_than(number(&stranger)), "choose another seed");
    network.routers.insert(B, stranger);
    let before = network.router(A).counters().dropped(DropReason::SourceVersionOlder);
    network.run(seconds(1));
    assert!(network.router(A).counters().dropped(DropReason::SourceVersionOlder) > before);
}
