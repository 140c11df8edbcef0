//! RP rows, PB-04 to PB-07, PE-09, RQ-03, RQ-06, RQ-18.
use super::*;
use crate::config::LocalEid;
use mapping::wire::{EidField, RequestedEid};

/// The database of TV-R1.
fn tv_r1() -> ControlConfig {
    let eids = ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:1:1::/64", "2001:db8:1:2::/64"];
    let local = |text: &str| LocalEid { prefix: prefix(text), locator_set: Vec::new() };
    ControlConfig { eids: eids.into_iter().map(local).collect(), ..config() }
}

fn reply_of(transmit: &Transmit) -> MapReply {
    match Message::parse(&transmit.payload) {
        Ok(Message::MapReply(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

fn prefixes(reply: &MapReply) -> Vec<String> {
    reply.records.iter().filter_map(|r| r.eid.prefix()).map(|p| p.to_string()).collect()
}

#[test]
fn rp_07_tv_r1_more_specifics_come_along() {
    let mut node = Node::new(tv_r1());
    let from = SocketAddr::new(ip(PEER), 61_000);
    node.receive(from, &Message::MapRequest(request(1, "2001:db8:1:1::1/128")));
    let transmit = node.take_one();
    assert_eq!(prefixes(&reply_of(&transmit)), ["2001:db8:1:1::/64"]);
    node.receive(from, &Message::MapRequest(request(2, "2001:db8:1:5::5/128")));
    assert_eq!(
        prefixes(&reply_of(&node.take_one())),
        ["2001:db8:1::/48", "2001:db8:1:1::/64", "2001:db8:1:2::/64"]
    );
}

#[test]
fn rp_07_of_thousands_of_hosts_as_many_come_along_as_fit() {
    let mut node = Node::new(config());
    for host in 0..4_096u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a01_0100 + host);
        let prefix = Eid::new(InstanceId::DEFAULT, address.into()).host_prefix();
        let eid = LocalEid { prefix, locator_set: Vec::new() };
        node.control.set_own_mapping(node.now, OwnMapping::dynamic(eid));
    }
    node.drain();
    node.take_sent();
    let from = SocketAddr::new(ip(PEER), 61_000);
    node.receive(from, &Message::MapRequest(request(1, "10.1.0.1/32")));
    let transmit = node.take_one();
    let (octets, limit) = (transmit.payload.len(), timers::control_payload_limit(ip(PEER)));
    assert!((limit * 9 / 10..=limit).contains(&octets), "{octets} of {limit}");
    let records = reply_of(&transmit).records;
    assert_eq!(records[0].eid.prefix(), Some(prefix("10.1.0.0/16")));
}

#[test]
fn rp_02_to_rp_17_a_map_reply_of_the_etr() {
    let mut node = Node::new(config());
    let from = SocketAddr::new(ip("192.0.2.55"), 61_000);
    node.receive(from, &Message::MapRequest(request(77, "10.1.2.3/32")));
    let transmit = node.take_one();
    assert_eq!(transmit.destination, SocketAddr::new(ip(PEER), 61_000), "RP-03, RP-04");
    assert_eq!((transmit.source, transmit.source_port), (ip(OWN_V4), SourcePort::Control));
    let reply = reply_of(&transmit);
    assert_eq!((reply.nonce, reply.probe, reply.echo_nonce), (77, false, false));
    let record = &reply.records[0];
    assert_eq!(record.eid, EidField::from(prefix("10.1.0.0/16")), "RP-06");
    assert_eq!((record.ttl_minutes, record.authoritative, record.map_version), (1440, true, 0));
    let locator = &record.locators[0];
    assert_eq!(locator.address, Address::from(ip(OWN_V4)));
    assert!(locator.local && locator.reachable && !locator.probed);
}

#[test]
fn rp_05_a_reply_leaves_from_an_own_rloc_of_the_destinations_family_the_one_asked_if_it_can() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2"), own("c", OWN_V6)];
    let mut node = Node::new(ControlConfig { rlocs, ..config() });
    let ask = |node: &mut Node, nonce: u64, local: &str, itr_rloc: &str| {
        node.advance(seconds(3));
        let mut request = request(nonce, "10.1.0.1/32");
        request.itr_rlocs = vec![Address::from(ip(itr_rloc))];
        let octets = Message::MapRequest(request).to_vec();
        node.receive_octets(control_port(local), control_port(PEER), &octets);
        node.take_one().source
    };
    assert_eq!(ask(&mut node, 1, "192.0.2.2", PEER), ip("192.0.2.2"));
    assert_eq!(ask(&mut node, 2, OWN_V6, PEER), ip(OWN_V4));
    assert_eq!(ask(&mut node, 3, OWN_V4, "2001:db8::77"), ip(OWN_V6));
    // Its link is down: what comes there by another one is answered from an RLOC that works.
    node.control.set_own_rloc(node.now, ip("192.0.2.2"), false, 1);
    assert_eq!(ask(&mut node, 4, "192.0.2.2", PEER), ip(OWN_V4));
}

#[test]
fn rp_09_rp_12_the_etr_is_authoritative_for_its_prefixes_and_says_which_locators_are_its_own() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2"), own("c", OWN_V6)];
    let mut node = Node::new(ControlConfig { rlocs, ..tv_r1() });
    node.receive(control_port(PEER), &Message::MapRequest(request(1, "2001:db8:1::/48")));
    let records = reply_of(&node.take_one()).records;
    assert_eq!(records.len(), 3);
    for record in records {
        assert!(record.authoritative, "RP-09");
        assert_eq!(record.locators.len(), 3);
        assert!(record.locators.iter().all(|locator| locator.local), "RP-12");
    }
}

#[test]
fn rp_01_a_foreign_eid_gets_no_reply() {
    let mut node = Node::new(config());
    node.receive(control_port(PEER), &Message::MapRequest(request(1, "10.9.0.1/32")));
    node.receive(control_port(PEER), &Message::MapRequest(request(2, "0.0.0.0/0")));
    assert!(node.take_sent().is_empty());
    assert_eq!(node.discarded(Discard::NotAuthoritative), 2);
}

#[test]
fn rp_04_an_encapsulated_request_is_answered_at_its_inner_port() {
    let mut node = Node::new(config());
    let inner = Message::MapRequest(request(1, "10.1.0.1/32")).to_vec();
    let source = SocketAddr::new(ip("192.0.2.99"), 62_000);
    let ecm = EncapsulatedControlMessage::new(source, control_port("10.1.0.1"), inner);
    node.receive(control_port(SERVER), &Message::Encapsulated(ecm));
    assert_eq!(node.take_one().destination, SocketAddr::new(ip(PEER), 62_000));
}

#[test]
fn ec_03_only_a_map_server_of_lispers_net_may_leave_out_the_inner_checksum() {
    let answered = |profile, sender: &str| {
        let map_servers = vec![MapServer { profile, ..server() }];
        let mut node = Node::new(ControlConfig { map_servers, ..config() });
        let inner = Message::MapRequest(request(1, "10.1.0.1/32")).to_vec();
        let source = SocketAddr::new(ip("192.0.2.99"), 62_000);
        let ecm = EncapsulatedControlMessage::new(source, control_port("10.1.0.1"), inner);
        let mut octets = Message::Encapsulated(ecm).to_vec();
        // After four octets of the message's own and 20 + 6 of the inner headers.
        octets[30..32].fill(0);
        node.receive_octets(control_port(OWN_V4), control_port(sender), &octets);
        let is_reply =
            |t: &Transmit| matches!(Message::parse(&t.payload), Ok(Message::MapReply(_)));
        (node.take_sent().iter().any(is_reply), node.discarded(Discard::InnerChecksum))
    };
    assert_eq!(answered(Profile::LispersNet, SERVER), (true, 0));
    assert_eq!(answered(Profile::LispersNet, PEER), (false, 1));
    assert_eq!(answered(Profile::Rfc9301, SERVER), (false, 1));
}

#[test]
fn rp_15_one_reply_in_three_seconds_per_rloc_and_prefix_but_for_a_burst() {
    let mut node = Node::new(config());
    for nonce in 0..15 {
        node.receive(control_port(PEER), &Message::MapRequest(request(nonce, "10.1.0.1/32")));
    }
    node.receive(control_port(PEER), &Message::MapRequest(request(19, "2001:db8:e001::1/128")));
    assert_eq!(node.take_sent().len(), 12, "eleven, as often as an ITR asks in a row");
    assert_eq!(node.discarded(Discard::ReplyRateLimited), 4);
    node.advance(seconds(3));
    for nonce in 20..22 {
        node.receive(control_port(PEER), &Message::MapRequest(request(nonce, "10.1.0.1/32")));
    }
    assert_eq!(node.take_sent().len(), 1);
}

#[test]
fn rq_03_every_record_is_processed() {
    let mut node = Node::new(config());
    let mut both = request(1, "10.1.0.1/32");
    both.records.push(RequestedEid::new(prefix("2001:db8:e001::1/128")));
    node.receive(control_port(PEER), &Message::MapRequest(both));
    assert_eq!(node.take_sent().len(), 2);
}

#[test]
fn rq_06_no_usable_itr_rloc_no_reply() {
    let mut node = Node::new(config());
    let mut other_family = request(1, "10.1.0.1/32");
    other_family.itr_rlocs = vec![Address::from(ip("2001:db8::7"))];
    node.receive(control_port(PEER), &Message::MapRequest(other_family));
    assert_eq!(node.discarded(Discard::NoItrRloc), 1);
    for martian in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0"] {
        let mut request = request(1, "10.1.0.1/32");
        request.itr_rlocs = vec![Address::from(ip(martian))];
        node.receive(control_port(PEER), &Message::MapRequest(request));
    }
    assert_eq!(node.discarded(Discard::ItrRlocMartian), 4, "RP-20");
    assert!(node.take_sent().is_empty());
}

#[test]
fn rp_03_the_first_itr_rloc_of_an_own_family_is_answered() {
    let mut node = Node::new(config());
    let mut request = request(1, "10.1.0.1/32");
    request.itr_rlocs = ["2001:db8::7", "192.0.2.8", "192.0.2.9"].map(|a| ip(a).into()).to_vec();
    node.receive(control_port(PEER), &Message::MapRequest(request));
    assert_eq!(node.take_one().destination, control_port("192.0.2.8"));
}

#[test]
fn rq_18_a_request_with_the_d_bit_is_not_answered() {
    let mut node = Node::new(config());
    let mut request = request(1, "10.1.0.1/32");
    request.dont_map_reply = true;
    node.receive(control_port(PEER), &Message::MapRequest(request));
    assert!(node.take_sent().is_empty());
    assert_eq!(node.discarded(Discard::DontMapReply), 1);
}

#[test]
fn pb_04_to_pb_07_a_probe_is_answered_by_the_probed_rloc() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2"), own("c", OWN_V6)];
    let mut node = Node::new(ControlConfig { rlocs, ..config() });
    let mut probe = request(5, "10.1.0.0/16");
    probe.probe = true;
    let octets = Message::MapRequest(probe).to_vec();
    for _ in 0..3 {
        // Not held back by RP-15.
        node.receive_octets(control_port("192.0.2.2"), SocketAddr::new(ip(PEER), 50_000), &octets);
        let transmit = node.take_one();
        assert_eq!(transmit.source, ip("192.0.2.2"), "PB-05");
        assert_eq!(transmit.destination, SocketAddr::new(ip(PEER), 50_000));
        let reply = reply_of(&transmit);
        assert!(reply.probe && reply.nonce == 5 && reply.records.iter().all(|r| r.authoritative));
        let probed: Vec<_> = reply.records[0].locators.iter().filter(|l| l.probed).collect();
        assert_eq!(probed.len(), 1);
        assert_eq!(probed[0].address, Address::from(ip("192.0.2.2")));
        assert_eq!(reply.records[0].locators.len(), 3, "PB-06");
    }
}

#[test]
fn pb_05_a_probe_reply_has_the_address_that_it_leaves_from() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2"), own("c", OWN_V6)];
    let mut node = Node::new(ControlConfig { rlocs, ..config() });
    // The RLOC asked; another one, when the reply goes by the other family.
    for (asked, itr, source) in [
        (OWN_V4, PEER, OWN_V4),
        ("192.0.2.2", PEER, "192.0.2.2"),
        ("192.0.2.2", "2001:db8:c0::77", OWN_V6),
        (OWN_V6, PEER, OWN_V4),
    ] {
        let mut probe = request(5, "10.1.0.0/16");
        (probe.probe, probe.itr_rlocs) = (true, vec![Address::from(ip(itr))]);
        let octets = Message::MapRequest(probe).to_vec();
        node.receive_octets(control_port(asked), control_port(PEER), &octets);
        let transmit = node.take_one();
        assert_eq!((transmit.source, transmit.destination.ip()), (ip(source), ip(itr)), "{asked}");
    }
}

#[test]
fn pb_06_a_probe_reply_carries_the_mapping_of_what_was_asked_for() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2")];
    let mut node = Node::new(ControlConfig { rlocs, ..tv_r1() });
    for (asked, mapping) in [
        ("2001:db8:1:1::/64", "2001:db8:1:1::/64"),
        ("2001:db8:1:1::7/128", "2001:db8:1:1::/64"),
        ("2001:db8:7::/48", "2001:db8::/32"),
    ] {
        let mut probe = request(5, asked);
        probe.probe = true;
        node.receive(control_port(PEER), &Message::MapRequest(probe));
        let reply = reply_of(&node.take_one());
        assert_eq!(prefixes(&reply), [mapping]);
        let locators = reply.records[0].locators.iter();
        let locators: Vec<_> = locators.map(|l| (l.address.rloc(), l.priority, l.weight)).collect();
        let expected = [(Some(ip(OWN_V4)), 1, 100), (Some(ip("192.0.2.2")), 1, 100)];
        assert_eq!(locators, expected, "{asked}");
    }
}

#[test]
fn pb_09_only_a_probe_reply_says_which_locator_was_probed() {
    let mut node = Node::new(ControlConfig { map_servers: vec![server()], ..config() });
    node.advance(seconds(1));
    node.miss("10.2.0.9");
    let mut probe = request(5, "10.1.0.0/16");
    probe.probe = true;
    node.receive(control_port(PEER), &Message::MapRequest(probe));
    node.receive(control_port(PEER), &Message::MapRequest(request(6, "10.1.0.0/16")));
    let (mut registers, mut requests, mut replies) = (0, 0, Vec::new());
    for transmit in node.take_sent() {
        match Message::parse(&transmit.payload).expect("a message") {
            Message::MapRegister(register) => {
                registers += 1;
                let mut locators = register.records.iter().flat_map(|record| &record.locators);
                assert!(locators.all(|locator| !locator.probed));
            }
            Message::Encapsulated(ecm) => {
                requests += 1;
                assert!(ecm.map_request().expect("one").map_data.is_none());
            }
            Message::MapReply(reply) => replies.push((
                reply.probe,
                reply.records[0].locators.iter().any(|locator| locator.probed),
            )),
            other => panic!("{other:?}"),
        }
    }
    assert!(registers > 0 && requests > 0);
    assert_eq!(replies, [(true, true), (false, false)]);
}

#[test]
fn pb_07_a_probed_rloc_outside_the_locator_set_is_still_named() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2")];
    let eids = vec![LocalEid { prefix: prefix("10.1.0.0/16"), locator_set: vec!["a".to_owned()] }];
    let mut node = Node::new(ControlConfig { rlocs, eids, ..config() });
    let mut probe = request(5, "10.1.0.0/16");
    probe.probe = true;
    let octets = Message::MapRequest(probe).to_vec();
    node.receive_octets(control_port("192.0.2.2"), control_port(PEER), &octets);
    let reply = reply_of(&node.take_one());
    let marks: Vec<_> = reply.records[0].locators.iter().map(|l| (l.priority, l.probed)).collect();
    assert_eq!(marks, [(1, false), (255, true)]);
}

#[test]
fn pe_09_a_petr_answers_probes_for_any_prefix_with_exactly_that_prefix() {
    let rlocs = vec![own("core4", OWN_V4), own("core6", OWN_V6)];
    let mut node = Node::new(ControlConfig { role: Role::Proxy, eids: vec![], rlocs, ..config() });
    for asked in ["0.0.0.0/0", "::/0", "10.7.0.0/16"] {
        let mut probe = request(5, asked);
        probe.probe = true;
        node.receive(control_port(PEER), &Message::MapRequest(probe));
        let reply = reply_of(&node.take_one());
        assert_eq!(prefixes(&reply), [asked]);
        let record = &reply.records[0];
        assert!(record.authoritative && reply.probe);
        assert_eq!(record.locators.len(), 1);
        assert!(record.locators[0].probed);
        assert_eq!(record.locators[0].address, Address::from(ip(OWN_V4)));
    }
    // With AFI 0 as the target, as lispers.net first probes; without ITR-RLOCs, at the source.
    let mut probe = request(6, "0.0.0.0/0");
    (probe.probe, probe.itr_rlocs) = (true, vec![Address::None]);
    probe.source_eid = Address::from(ip("10.9.0.0"));
    probe.records[0].eid = EidField::Other { address: Address::None, mask_len: 0 };
    node.receive(SocketAddr::new(ip("192.0.2.44"), 4444), &Message::MapRequest(probe));
    let transmit = node.take_one();
    assert_eq!(transmit.destination, SocketAddr::new(ip("192.0.2.44"), 4444));
    assert_eq!(reply_of(&transmit).records[0].eid.mask_len(), 0);
}

#[test]
fn pi_13_a_proxy_answers_no_lookup_and_registers_nothing() {
    let config = ControlConfig { role: Role::Proxy, map_servers: vec![server()], ..config() };
    let mut node = Node::new(ControlConfig { eids: vec![], ..config });
    node.receive(control_port(PEER), &Message::MapRequest(request(1, "10.1.0.1/32")));
    node.advance(seconds(120));
    assert!(node.take_sent().is_empty());
}

#[test]
fn ec_06_a_probe_in_an_ecm_is_dropped() {
    let mut node = Node::new(config());
    let mut probe = request(5, "10.1.0.0/16");
    probe.probe = true;
    let inner = Message::MapRequest(probe).to_vec();
    let ecm = EncapsulatedControlMessage::new(control_port(PEER), control_port("10.1.0.0"), inner);
    node.receive(control_port(SERVER), &Message::Encapsulated(ecm));
    assert!(node.take_sent().is_empty());
    assert_eq!(node.control.discards().total(), 1);
}

#[test]
fn mc_31_mapping_data_in_a_map_request_is_not_used_and_the_request_answered() {
    let mut node = Node::new(config());
    let mut asking = request(7, "10.1.0.0/16");
    asking.map_data = Some(record("10.7.0.0/16", 1440, &[PEER]));
    node.receive(control_port(PEER), &Message::MapRequest(asking));
    assert!(node.cached().is_empty(), "{:?}", node.cached());
    assert_eq!(node.discarded(Discard::MapDataIgnored), 1);
    assert!(matches!(Message::parse(&node.take_one().payload), Ok(Message::MapReply(_))));
}
