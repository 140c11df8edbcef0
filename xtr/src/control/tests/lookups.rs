//! RQ, SM, MC-02, MC-06, MC-25, MC-27, MC-32.
use super::*;
use crate::config::Peer;
use mapping::wire::{EidField, Lcaf};
use std::sync::atomic::Ordering;

#[test]
fn rq_10_ec_01_a_lookup_is_encapsulated_to_the_map_resolver() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    let (transmit, ecm, request) = node.take_lookup();
    assert_eq!(transmit.destination, control_port(RESOLVER));
    assert_eq!(transmit.source, ip(OWN_V4));
    assert_eq!(transmit.source_port, SourcePort::Ephemeral);
    assert_eq!(ecm.destination, control_port("10.2.0.9"));
    assert_eq!(ecm.source.ip(), ip(OWN_V4));
    assert_eq!(request.records.len(), 1, "RQ-02");
    assert_eq!(request.records[0].eid, EidField::from(prefix("10.2.0.9/32")), "RQ-07");
    assert_eq!(request.source_eid, Address::from(ip("10.1.0.5")), "RQ-09");
    assert_eq!(request.itr_rlocs, [Address::from(ip(OWN_V4))], "RQ-05");
    assert!(!request.pitr && !request.probe && !request.authoritative && !request.local_xtr);
}

/// What the test node asks for a packet from 10.1.0.5 to 10.2.0.9.
fn lookup_of(config: ControlConfig) -> MapRequest {
    let mut node = Node::new(config);
    node.miss("10.2.0.9");
    node.take_lookup().2
}

/// The Map-Requests sent plainly, by their destination.
fn plain_requests(node: &mut Node) -> Vec<(SocketAddr, MapRequest)> {
    let sent = node.take_sent().into_iter();
    sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
        Ok(Message::MapRequest(request)) => Some((transmit.destination, request)),
        _ => None,
    })
    .collect()
}

/// A node whose one mapping is in use and about to expire; the second locator is worse.
fn refreshing() -> Node {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.set("10.2.0.0/16").last_used.store(5, Ordering::Relaxed);
    node.take_sent();
    node.advance(seconds(9 * 60));
    node
}

#[test]
fn rq_02_rq_07_rq_09_a_miss_asks_for_the_destination_in_the_name_of_the_source() {
    let request = lookup_of(config());
    assert_eq!(request.records.len(), 1);
    assert_eq!(request.records[0].eid, EidField::from(prefix("10.2.0.9/32")));
    assert_eq!(request.source_eid, Address::from(ip("10.1.0.5")));
    let mut node = Node::new(config());
    let source = ip("2001:db8:e001::5");
    let punt = Punt::Miss { destination: eid("2001:db8:e002::1"), source };
    node.control.handle_punt(node.now, &punt);
    node.drain();
    let request = node.take_lookup().2;
    assert_eq!(request.records.len(), 1);
    assert_eq!(request.records[0].eid, EidField::from(prefix("2001:db8:e002::1/128")));
    assert_eq!(request.source_eid, Address::from(source));
}

/// A Map-Reply whose locator is `{PEER, JSON with PEER}`, the JSON LCAF said to be two octets too short, as of lispers.net.
fn reply_with_telemetry(nonce: u64) -> Vec<u8> {
    let IpAddr::V4(peer) = ip(PEER) else { unreachable!("PEER is IPv4") };
    let body = [&[0, 4][..], b"{  }", &[0, 1], &peer.octets()].concat();
    let json = Lcaf::Unknown { rsvd1: 0, flags: 0, kind: 14, rsvd2: 0, body };
    let mut told = record("10.2.0.0/16", 10, &[PEER]);
    told.locators[0].address =
        Address::Lcaf(Lcaf::AfiList(vec![ip(PEER).into(), Address::Lcaf(json)]));
    let mut octets = Message::MapReply(MapReply::new(nonce, vec![told])).to_vec();
    let at = octets.windows(4).position(|octets| octets == [14, 0, 0, 12]).expect("a JSON LCAF");
    octets[at + 3] -= 2;
    octets
}

#[test]
fn cw_20_json_of_a_wrong_length_is_taken_of_peers_of_lispers_net_alone() {
    let learned = |peers: &[(&str, Profile)], from: &str| {
        let peer = |&(text, profile): &(&str, _)| Peer {
            prefix: text.parse().expect("a prefix"),
            profile,
        };
        let peers = peers.iter().map(peer).collect();
        let mut node = Node::new(ControlConfig { peers, ..config() });
        node.miss("10.2.0.9");
        let octets = reply_with_telemetry(node.take_lookup().2.nonce);
        node.receive_octets(control_port(OWN_V4), control_port(from), &octets);
        let mended = node.control.counters_view().get("json_lengths_mended").copied().unwrap_or(0);
        (node.cached(), node.discarded(Discard::JsonLength), mended)
    };
    let exactly = format!("{PEER}/32");
    let learnt = (vec!["10.2.0.0/16".to_owned()], 0, 1);
    let refused = (Vec::new(), 1, 0);
    assert_eq!(learned(&[(&exactly, Profile::LispersNet)], PEER), learnt);
    assert_eq!(learned(&[(&exactly, Profile::LispersNet)], SERVER), refused);
    for others in [Profile::Rfc9301, Profile::Oor, Profile::Vpp] {
        assert_eq!(learned(&[(&exactly, others)], PEER), refused);
    }
    assert_eq!(learned(&[], PEER), refused);
}

#[test]
fn rq_05_the_itr_rlocs_are_all_own_rlocs_that_can_be_used() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2"), own("c", OWN_V6)];
    let all = [OWN_V4, "192.0.2.2", OWN_V6].map(|rloc| Address::from(ip(rloc)));
    assert_eq!(lookup_of(ControlConfig { rlocs: rlocs.clone(), ..config() }).itr_rlocs, all);
    let mut node = Node::new(ControlConfig { rlocs, ..config() });
    node.control.set_own_rloc(node.now, ip("192.0.2.2"), false, 1);
    node.miss("10.2.0.9");
    let asked = node.take_lookup().2.itr_rlocs;
    assert_eq!(asked, [OWN_V4, OWN_V6].map(|rloc| Address::from(ip(rloc))));
}

#[test]
fn rq_08_rq_09_rq_11_a_refresh_asks_the_site_itself_for_the_cached_prefix() {
    let mut node = refreshing();
    let (destination, request) = plain_requests(&mut node).remove(0);
    assert_eq!(destination, control_port(PEER));
    assert_eq!(request.records.len(), 1, "RQ-02");
    assert_eq!(request.records[0].eid, EidField::from(prefix("10.2.0.0/16")));
    assert_eq!(request.source_eid, Address::None);
}

#[test]
fn rq_08_rq_09_rq_11_a_probe_asks_the_locator_for_the_cached_prefix() {
    let config = ControlConfig { probe: Some(crate::config::ProbeConfig::default()), ..config() };
    let mut node = Node::new(config);
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    node.advance(seconds(120));
    let (destination, request) = plain_requests(&mut node).remove(0);
    assert!(request.probe);
    assert_eq!(destination, control_port(PEER));
    assert_eq!(request.records.len(), 1, "RQ-02");
    assert_eq!(request.records[0].eid, EidField::from(prefix("10.2.0.0/16")));
    assert_eq!(request.source_eid, Address::None);
}

#[test]
fn rq_16_rq_17_a_lookup_may_be_answered_by_anybody_and_claims_no_part_in_a_rloc_set() {
    for role in [Role::Xtr, Role::Proxy] {
        let eids = if role == Role::Xtr { config().eids } else { Vec::new() };
        let request = lookup_of(ControlConfig { role, eids, ..config() });
        assert!(!request.authoritative && !request.local_xtr);
    }
    let refresh = plain_requests(&mut refreshing()).remove(0).1;
    assert!(!refresh.local_xtr);
}

#[test]
fn rp_19_more_records_than_were_asked_for_are_taken_if_they_concern_the_request() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    let inside = (0..40).map(|net| record(&format!("10.2.{net}.0/24"), 60, &[PEER]));
    let mut records: Vec<EidRecord> = inside.collect();
    records.push(record("10.2.0.0/16", 60, &[PEER]));
    records.push(record("10.9.0.0/16", 60, &[PEER]));
    node.answer(records);
    assert_eq!(node.cached().len(), 41);
    assert!(!node.cached().contains(&"10.9.0.0/16".to_owned()), "MC-32");
    assert_eq!(node.discarded(Discard::ReplyPrefixMismatch), 1);
}

#[test]
fn ec_05_the_inner_header_has_the_family_of_the_eid() {
    let mut node = Node::new(config());
    let source = ip("2001:db8:e001::5");
    let punt = Punt::Miss { destination: eid("2001:db8:e002::1"), source };
    node.control.handle_punt(node.now, &punt);
    node.drain();
    let (_, ecm, _) = node.take_lookup();
    assert_eq!(ecm.destination, control_port("2001:db8:e002::1"));
    assert_eq!(ecm.source.ip(), source);
}

#[test]
fn rq_15_pi_04_a_proxy_sets_the_p_bit() {
    let mut node = Node::new(ControlConfig { role: Role::Proxy, eids: vec![], ..config() });
    node.miss("10.2.0.9");
    assert!(node.take_lookup().2.pitr);
}

#[test]
fn rq_01_every_map_request_has_its_own_nonce() {
    let mut node = Node::new(config());
    let mut nonces = BTreeSet::new();
    for host in 1..=50 {
        node.miss(&format!("10.2.0.{host}"));
        nonces.insert(node.take_lookup().2.nonce);
    }
    assert_eq!(nonces.len(), 50);
}

#[test]
fn rq_12_rq_13_one_per_second_then_ten_retransmissions_then_a_pause() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    for _ in 0..600 {
        node.advance(Duration::from_millis(100));
        node.miss("10.2.0.9"); // Traffic goes on.
    }
    let times: Vec<Duration> = node.sent.iter().map(|(at, _)| *at - node.start).collect();
    assert_eq!(times[..11], (0..=10).map(seconds).collect::<Vec<_>>());
    assert_eq!(times[11], seconds(40));
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= seconds(1)));
    assert!(node.events.contains(&Event::LookupUnanswered(prefix("10.2.0.9/32"))));
}

#[test]
fn rq_21_an_unanswered_request_moves_to_the_next_map_resolver() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    assert_eq!(node.take_one().destination, control_port(RESOLVER));
    node.advance(seconds(1));
    let (transmit, _, request) = node.take_lookup();
    assert_eq!(transmit.destination, control_port(RESOLVER_2));
    node.reply(request.nonce, vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.miss("10.3.0.9");
    assert_eq!(node.take_one().destination, control_port(RESOLVER_2), "the one that answers");
}

#[test]
fn rq_22_packets_join_the_pending_lookup() {
    let mut node = Node::new(config());
    for _ in 0..5 {
        node.miss("10.2.0.9");
    }
    node.take_lookup();
}

#[test]
fn rq_14_a_reply_to_any_transmission_counts_once() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    let first = node.take_lookup().2.nonce;
    node.advance(seconds(1));
    let second = node.take_lookup().2.nonce;
    node.reply(first, vec![record("10.2.0.0/16", 60, &[PEER])]);
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
    node.reply(second, vec![record("10.2.0.0/16", 60, &["192.0.2.66"])]);
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
    assert_eq!(node.discarded(Discard::NonceUnknown), 1);
}

#[test]
fn mc_06_a_reply_with_another_nonce_changes_nothing() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    let nonce = node.take_lookup().2.nonce;
    node.reply(nonce ^ 1, vec![record("10.2.0.0/16", 60, &[PEER])]);
    assert!(node.cached().is_empty());
    assert_eq!(node.discarded(Discard::NonceUnknown), 1);
}

#[test]
fn mc_32_records_must_cover_the_requested_eid() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    let nonce = node.take_lookup().2.nonce;
    node.reply(nonce, vec![record("10.9.0.0/16", 60, &[PEER])]);
    assert!(node.cached().is_empty());
    node.reply(
        nonce,
        vec![
            record("10.2.0.0/16", 60, &[PEER]),
            record("10.2.7.0/24", 60, &[PEER]),
            record("10.9.0.0/16", 60, &[PEER]),
        ],
    );
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.7.0/24"]);
    assert_eq!(node.discarded(Discard::ReplyPrefixMismatch), 2);
}

#[test]
fn rq_23_a_scan_cannot_flood_the_map_resolver() {
    let mut node = Node::new(config());
    for host in 0..5_000u32 {
        let punt = Punt::Miss {
            destination: Eid::new(InstanceId::DEFAULT, IpAddr::V4((0x0a02_0000 + host).into())),
            source: ip("10.1.0.5"),
        };
        node.control.handle_punt(node.now, &punt);
    }
    node.drain();
    assert_eq!(node.sent.len(), timers::MAP_REQUESTS_PER_SECOND as usize);
    node.advance(Duration::from_millis(100));
    let late = node.sent.len() - timers::MAP_REQUESTS_PER_SECOND as usize;
    assert_eq!(late, timers::MAP_REQUESTS_PER_SECOND as usize / 10);
}

#[test]
fn mc_27_pending_lookups_are_bounded() {
    let mut node = Node::new(config());
    for host in 0..timers::PENDING_LOOKUPS as u32 + 10 {
        let punt = Punt::Miss {
            destination: Eid::new(InstanceId::DEFAULT, IpAddr::V4((0x0a02_0000 + host).into())),
            source: ip("10.1.0.5"),
        };
        node.control.handle_punt(node.now, &punt);
    }
    assert_eq!(node.discarded(Discard::PendingFull), 10);
}

#[test]
fn mc_27_the_least_recently_used_entry_makes_room() {
    let mut node = Node::new(ControlConfig { map_cache_limit: 3, ..config() });
    for net in 2..=4 {
        let record = record(&format!("10.{net}.0.0/16"), 60, &[PEER]);
        node.learn(&format!("10.{net}.0.9"), vec![record]);
        node.set(&format!("10.{net}.0.0/16")).last_used.store(100 - net, Ordering::Relaxed);
    }
    node.learn("10.5.0.9", vec![record("10.5.0.0/16", 60, &[PEER])]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.3.0.0/16", "10.5.0.0/16"]);
    assert!(!node.fib.contains_key(&prefix("10.4.0.0/16")));
}

#[test]
fn mc_25_an_entry_in_use_is_refreshed_before_it_expires() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.set("10.2.0.0/16").last_used.store(17, Ordering::Relaxed);
    node.advance(seconds(9 * 60));
    let transmit = node.take_one();
    assert_eq!(transmit.destination, control_port(PEER), "RQ-11");
    let Ok(Message::MapRequest(request)) = Message::parse(&transmit.payload) else { panic!() };
    assert_eq!(request.records[0].eid, EidField::from(prefix("10.2.0.0/16")), "RQ-08");
    assert_eq!(request.source_eid, Address::None, "RQ-09");
    assert!(!request.probe);
    let reply = MapReply::new(request.nonce, vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.receive(control_port(PEER), &Message::MapReply(reply));
    node.advance(seconds(5 * 60));
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
    // Not used since: it goes.
    node.advance(seconds(6 * 60));
    assert!(node.cached().is_empty());
    assert!(node.take_sent().is_empty());
}

#[test]
fn mc_25_a_refresh_without_answer_goes_to_the_map_resolver() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 10, &[PEER])]);
    node.set("10.2.0.0/16").last_used.store(17, Ordering::Relaxed);
    node.advance(seconds(9 * 60 + 3));
    let sent = node.take_sent();
    assert_eq!(sent.len(), 4);
    assert!(sent[..3].iter().all(|transmit| transmit.destination == control_port(PEER)));
    assert_eq!(sent[3].destination, control_port(RESOLVER));
}

#[test]
fn sm_04_an_smr_is_verified_through_the_mapping_system() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    let mut smr = request(0, "10.1.0.0/16");
    (smr.smr, smr.source_eid) = (true, Address::from(ip("10.2.0.0")));
    let message = Message::MapRequest(smr);
    node.advance(seconds(1));
    node.receive(control_port("192.0.2.66"), &message);
    let (transmit, _, invoked) = node.take_lookup();
    assert_eq!(transmit.destination, control_port(RESOLVER));
    assert!(invoked.smr_invoked && !invoked.smr);
    assert_eq!(invoked.records[0].eid, EidField::from(prefix("10.2.0.0/16")));
    node.reply(invoked.nonce, vec![record("10.2.0.0/16", 60, &["192.0.2.66"])]);
    assert_eq!(node.destinations("10.2.0.0/16"), ["192.0.2.66"]);
}

#[test]
fn sm_05_one_smr_invoked_map_request_in_three_seconds_and_the_last_change_is_seen() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.advance(seconds(1));
    let mut smr = request(0, "10.2.0.0/16");
    smr.smr = true;
    let message = Message::MapRequest(smr);
    node.receive(control_port(PEER), &message);
    let invoked = node.take_lookup().2;
    node.reply(invoked.nonce, vec![record("10.2.0.0/16", 60, &[PEER])]);
    for _ in 0..5 {
        node.receive(control_port(PEER), &message);
    }
    assert!(node.take_sent().is_empty());
    assert_eq!(node.discarded(Discard::SmrRateLimited), 5);
    node.advance(seconds(3));
    assert!(node.take_lookup().2.smr_invoked);
}

#[test]
fn sm_06_an_smr_for_something_not_cached_causes_nothing() {
    let mut node = Node::new(config());
    let mut smr = request(0, "10.2.0.0/16");
    smr.smr = true;
    node.receive(control_port(PEER), &Message::MapRequest(smr));
    assert!(node.take_sent().is_empty());
    assert_eq!(node.discarded(Discard::SmrWithoutCacheEntry), 1);
}

/// An SMR for an EID by its source-EID; the record is an EID-prefix of the receiver.
fn smr_of(source_eid: &str) -> MapRequest {
    let mut smr = request(0, "10.1.0.0/16");
    (smr.smr, smr.source_eid) = (true, Address::from(ip(source_eid)));
    smr
}

#[test]
fn sm_07_the_old_mapping_stays_in_use_until_the_reply() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.advance(seconds(1));
    let mut smr = smr_of("10.2.0.0");
    smr.map_data = Some(record("10.2.0.0/16", 60, &["192.0.2.66"]));
    node.receive(control_port("192.0.2.66"), &Message::MapRequest(smr));
    let invoked = node.take_lookup().2;
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
    // No answer ever: the SMR alone does no harm.
    node.advance(seconds(120));
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
    node.reply(invoked.nonce, vec![record("10.2.0.0/16", 60, &["192.0.2.66"])]);
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER], "too late: its nonce is forgotten");
}

#[test]
fn sm_08_the_eid_is_the_source_eid_if_that_is_cached_else_the_record() {
    for (source_eid, told, asked) in [
        ("10.2.0.0", "10.1.0.0/16", "10.2.0.0/16"),
        // Inside a cached mapping: it may have one of its own by now.
        ("10.2.0.77", "10.1.0.0/16", "10.2.0.77/32"),
        ("10.9.0.0", "10.2.0.0/16", "10.2.0.0/16"),
        ("10.9.0.0", "10.2.128.0/17", "10.2.128.0/17"),
    ] {
        let mut node = Node::new(config());
        node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
        node.advance(seconds(1));
        let mut smr = smr_of(source_eid);
        smr.records[0].eid = EidField::from(prefix(told));
        node.receive(control_port("192.0.2.66"), &Message::MapRequest(smr));
        assert_eq!(node.take_lookup().2.records[0].eid, EidField::from(prefix(asked)));
    }
}

#[test]
fn sm_08_an_eid_that_left_a_cached_prefix_gets_a_mapping_of_its_own_and_loses_it_again() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.advance(seconds(1));
    node.receive(control_port(PEER), &Message::MapRequest(smr_of("10.2.0.77")));
    node.answer(vec![record("10.2.0.77/32", 60, &["192.0.2.66"])]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.0.77/32"]);
    node.advance(seconds(10));
    node.receive(control_port("192.0.2.66"), &Message::MapRequest(smr_of("10.2.0.77")));
    node.answer(vec![record("10.2.0.0/16", 60, &[PEER])]);
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
    assert!(!node.fib.contains_key(&prefix("10.2.0.77/32")));
}

#[test]
fn mc_07_the_longest_match_of_an_eid_replaces_what_is_cached_between_them() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/24", 60, &[PEER])]);
    node.learn("10.2.1.9", vec![record("10.2.1.0/24", 60, &[PEER])]);
    node.advance(seconds(1));
    node.receive(control_port(PEER), &Message::MapRequest(smr_of("10.2.0.77")));
    node.answer(vec![record("10.2.0.0/16", 60, &["192.0.2.66"])]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.1.0/24"]);
}

#[test]
fn sm_10_an_smr_that_wants_a_reply_is_looked_up_and_not_answered() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.advance(seconds(1));
    let smr = smr_of("10.2.0.0");
    assert!(!smr.dont_map_reply);
    node.receive(control_port(PEER), &Message::MapRequest(smr));
    let (transmit, _, invoked) = node.take_lookup();
    assert_eq!(transmit.destination, control_port(RESOLVER));
    assert!(invoked.smr_invoked);
    assert_eq!(node.control.counters_view().get("map_replies_sent"), None);
}

#[test]
fn mc_28_names_are_asked_once_they_have_an_address() {
    let name = "mr.example.net".to_owned();
    let mut node =
        Node::new(ControlConfig { map_resolvers: vec![Endpoint::Name(name.clone())], ..config() });
    node.miss("10.2.0.9");
    assert!(node.take_sent().is_empty());
    assert!(!node.control.notes().is_empty());
    node.control.set_name(node.now, &name, &[ip("2001:db8::53"), ip(RESOLVER)]);
    node.control.handle_timeout(node.now);
    node.drain();
    assert_eq!(node.take_lookup().0.destination, control_port(RESOLVER));
    node.control.set_name(node.now, &name, &[]);
    node.advance(seconds(1));
    assert_eq!(node.take_lookup().0.destination, control_port(RESOLVER), "the last good answer");
}

#[test]
fn cw_03_one_port_must_be_the_control_port() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    let nonce = node.take_lookup().2.nonce;
    let reply = Message::MapReply(MapReply::new(nonce, vec![record("10.2.0.0/16", 60, &[PEER])]));
    let (local, from) = (SocketAddr::new(ip(OWN_V4), 50_000), SocketAddr::new(ip(PEER), 50_001));
    node.receive_octets(local, from, &reply.to_vec());
    assert_eq!(node.discarded(Discard::WrongPort), 1);
    node.receive_octets(local, control_port(PEER), &reply.to_vec());
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
}

#[test]
fn cw_19_rubbish_is_counted_and_changes_nothing() {
    let mut node = Node::new(config());
    for octets in [&[][..], &[0x10], &[0x20; 5], &[0xf0; 40], &[0x80; 30]] {
        node.receive_octets(control_port(OWN_V4), control_port(PEER), octets);
    }
    assert_eq!(node.control.discards().total(), 5);
    assert!(node.take_sent().is_empty() && node.cached().is_empty());
}

#[test]
fn mc_12_send_map_request_asks_for_every_packet_within_the_rate() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![negative("10.2.0.0/16", 10, Action::SendMapRequest)]);
    for _ in 0..25 {
        node.miss("10.2.0.9");
        node.advance(Duration::from_millis(100));
    }
    assert_eq!(node.take_sent().len(), 2);
}

#[test]
fn rq_13_what_could_never_be_asked_is_asked_once_a_name_resolves() {
    let map_resolvers = vec![Endpoint::Name("mr.example.net".to_owned())];
    let mut node = Node::new(ControlConfig { map_resolvers, ..config() });
    node.miss("10.2.0.9");
    node.advance(seconds(15));
    assert!(node.take_sent().is_empty());
    node.control.set_name(node.now, "mr.example.net", &[ip(RESOLVER)]);
    node.miss("10.2.0.9");
    let (transmit, _, _) = node.take_lookup();
    assert_eq!(transmit.destination, control_port(RESOLVER));
}

#[test]
fn mc_27_every_evicted_entry_is_counted() {
    let mut node = Node::new(ControlConfig { map_cache_limit: 128, ..config() });
    for net in 0..129 {
        let eid = format!("10.2.{net}.9");
        node.learn(&eid, vec![record(&format!("10.2.{net}.0/24"), 1440, &[PEER])]);
    }
    let counters = node.control.counters_view();
    assert_eq!(counters["map_cache_entries"] + counters["map_cache_evictions"], 129);
}

/// A negative entry whose packets go to the PETR, in use, at the time of its refresh.
fn petr_entry_in_use() -> Node {
    let mut node = Node::new(ControlConfig { use_petr: vec![petr("192.0.2.200")], ..config() });
    node.learn("203.0.113.7", vec![negative("200.0.0.0/5", 15, Action::NativelyForward)]);
    node.set("200.0.0.0/5").last_used.store(17, Ordering::Relaxed);
    node.advance(seconds(15 * 60 - 90));
    node
}

#[test]
fn mc_25_an_entry_in_use_towards_a_petr_is_refreshed_too() {
    let mut node = petr_entry_in_use();
    let (transmit, _, request) = node.take_lookup();
    assert_eq!(transmit.destination, control_port(RESOLVER));
    assert_eq!(request.records[0].eid, EidField::from(prefix("200.0.0.0/5")), "RQ-08");
    node.reply(request.nonce, vec![negative("200.0.0.0/5", 15, Action::NativelyForward)]);
    node.advance(seconds(120));
    assert_eq!(node.destinations("200.0.0.0/5"), ["192.0.2.200"]);
    assert!(node.take_sent().is_empty());
}

#[test]
fn mc_25_a_refresh_that_finds_a_site_within_a_negative_entry_lets_it_expire() {
    let mut node = petr_entry_in_use();
    let (_, _, request) = node.take_lookup();
    node.reply(request.nonce, vec![negative("200.0.0.0/6", 15, Action::NativelyForward)]);
    assert_eq!(node.cached(), ["200.0.0.0/5"]);
    assert_eq!(node.discarded(Discard::ReplyPrefixMismatch), 1, "MC-32");
    node.advance(seconds(120));
    assert!(node.cached().is_empty());
    assert!(node.take_sent().is_empty(), "asking again finds the same");
    assert!(!node.events.iter().any(|event| matches!(event, Event::LookupUnanswered(_))));
}
