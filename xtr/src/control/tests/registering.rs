//! RG rows, AU on the ETR side, CW-06, OP-04.
use super::*;
use crate::view::RegistrationState;
use mapping::auth;
use mapping::wire::{AuthenticationData, MapNotify, MapRegister};

fn registering() -> ControlConfig {
    ControlConfig { map_servers: vec![server()], ..config() }
}

fn started(config: ControlConfig) -> Node {
    let mut node = Node::new(config);
    node.advance(Duration::ZERO);
    node
}

fn register_of(transmit: &Transmit) -> MapRegister {
    match Message::parse(&transmit.payload) {
        Ok(Message::MapRegister(register)) => register,
        other => panic!("{other:?}"),
    }
}

/// A Map-Notify as the Map-Server signs it.
fn notify(nonce: u64, records: Vec<EidRecord>, key: &[u8]) -> Vec<u8> {
    let algorithm = Algorithm::HmacSha256Hkdf;
    let authentication = AuthenticationData::zeroed(1, algorithm.id(), auth::MAC_LEN);
    let notify = MapNotify { nonce, authentication, records, identity: None };
    let mut octets = Message::MapNotify(notify).to_vec();
    auth::sign(&mut octets, &Secret::new(key.to_vec()), algorithm).expect("signed");
    octets
}

fn receive_notify(node: &mut Node, octets: &[u8]) {
    node.receive_octets(control_port(OWN_V4), control_port(SERVER), octets);
}

#[test]
fn au_19_the_profile_of_a_map_server_is_shown() {
    for profile in Profile::ALL {
        let map_servers = vec![MapServer { profile, ..server() }];
        let node = Node::new(ControlConfig { map_servers, ..config() });
        let views = node.control.registrations_view(node.now);
        assert!(views.iter().all(|view| view.profile == profile.name()) && !views.is_empty());
    }
    let loosened = Profile::ALL.map(|profile| MapServer { profile, ..server() }.loosened());
    assert_eq!(loosened.map(|text| text.is_some()), [false, true, true, true]);
    let prefix = "192.0.2.0/24".parse().expect("a prefix");
    let loosened = Profile::ALL.map(|profile| crate::config::Peer { prefix, profile }.loosened());
    assert_eq!(loosened.map(|text| text.is_some()), [false, false, true, false]);
}

#[test]
fn rg_01_a_map_register_carries_every_prefix_and_is_signed() {
    let mut node = started(registering());
    let transmit = node.take_one();
    assert_eq!(transmit.destination, control_port(SERVER));
    assert_eq!(transmit.source_port, SourcePort::Ephemeral);
    let register = register_of(&transmit);
    assert!(register.want_map_notify && !register.proxy_reply && !register.merge);
    let prefixes: Vec<_> = register.records.iter().filter_map(|r| r.eid.prefix()).collect();
    assert_eq!(prefixes, [prefix("10.1.0.0/16"), prefix("2001:db8:e001::/48")]);
    let locator = &register.records[0].locators[0];
    assert!(locator.local && locator.reachable && !locator.probed, "PB-09");
    let verified = auth::verify(&transmit.payload, &server().secret, &[Algorithm::HmacSha256Hkdf]);
    assert!(verified.is_ok());
    assert!(register.nonce > NONCE_BASE, "RG-14");
}

#[test]
fn rg_02_rg_03_the_interval_is_20_s_at_first_and_60_s_later() {
    let mut node = started(registering());
    let mut last = None;
    let mut gaps = Vec::new();
    for _ in 0..10_000 {
        for (at, transmit) in std::mem::take(&mut node.sent) {
            let register = register_of(&transmit);
            receive_notify(&mut node, &notify(register.nonce, register.records, b"site key"));
            gaps.extend(last.replace(at).map(|last| (at - last).as_millis()));
        }
        node.advance(Duration::from_millis(100));
    }
    assert!(gaps.iter().all(|gap| *gap == 20_000 || *gap == 60_000), "{gaps:?}");
    assert_eq!(gaps.iter().filter(|gap| **gap == 20_000).count(), 15, "within 5 minutes");
}

#[test]
fn rg_04_rg_12_the_same_octets_go_again_and_fresh_ones_have_a_higher_nonce() {
    let mut config = registering();
    config.registration_interval = seconds(20);
    let mut node = started(config);
    node.advance(seconds(200));
    let sent: Vec<(u64, MapRegister, Vec<u8>)> = node
        .sent
        .iter()
        .map(|(at, t)| ((*at - node.start).as_secs(), register_of(t), t.payload.clone()))
        .collect();
    let times: Vec<u64> = sent.iter().map(|(at, _, _)| *at).collect();
    assert_eq!(times[..6], [0, 1, 3, 7, 15, 20]);
    assert!(sent[..5].iter().all(|(_, _, octets)| *octets == sent[0].2));
    assert!(sent[5].1.nonce > sent[0].1.nonce);
    assert!(sent.windows(2).all(|pair| pair[1].1.nonce >= pair[0].1.nonce));
    let late = times.iter().filter(|at| **at > 100).count();
    assert!(late <= 6, "a silent Map-Server is not pestered: {times:?}");
}

#[test]
fn rg_05_every_map_register_wants_a_map_notify() {
    let mut node = started(registering());
    let mut seen = 0;
    for _ in 0..60 {
        for transmit in node.take_sent() {
            let register = register_of(&transmit);
            assert!(register.want_map_notify);
            receive_notify(&mut node, &notify(register.nonce, register.records, b"site key"));
            seen += 1;
        }
        node.advance(seconds(10));
    }
    assert!(seen > 18, "quick ones and steady ones: {seen}");
}

#[test]
fn rg_07_timing_out_by_ttl_is_an_option() {
    let config = ControlConfig { timeout_by_ttl: true, ..registering() };
    for (config, expected) in [(registering(), false), (config, true)] {
        let register = register_of(&started(config).take_one());
        assert_eq!(register.use_ttl, expected);
        assert_eq!(register.records[0].ttl_minutes, 1440);
    }
}

#[test]
fn rg_14_the_first_nonce_is_beyond_the_base_and_the_last_one_is_known() {
    let mut node = started(registering());
    let register = register_of(&node.take_one());
    assert_eq!(register.nonce, NONCE_BASE + 1);
    assert_eq!(node.control.last_register_nonce(), register.nonce);
    node.advance(seconds(300));
    let last = node.take_sent().iter().map(|sent| register_of(sent).nonce).max();
    assert_eq!(Some(node.control.last_register_nonce()), last);
}

#[test]
fn rg_15_rg_19_au_11_only_a_verified_and_matching_map_notify_counts() {
    let mut node = started(registering());
    let register = register_of(&node.take_one());
    let state = |node: &Node| node.control.registrations_view(node.now)[0].state;
    receive_notify(&mut node, &notify(register.nonce, register.records.clone(), b"wrong key"));
    assert_eq!(node.discarded(Discard::AuthenticationFailed), 1);
    assert_eq!(state(&node), RegistrationState::Pending);
    let good = notify(register.nonce, register.records.clone(), b"site key");
    node.receive_octets(control_port(OWN_V4), control_port("198.51.100.77"), &good);
    assert_eq!(node.discarded(Discard::MapServerUnknown), 1);
    // At the source port of the Map-Register too.
    node.receive_octets(SocketAddr::new(ip(OWN_V4), 40_000), control_port(SERVER), &good);
    assert_eq!(state(&node), RegistrationState::Registered);
    receive_notify(&mut node, &good);
    assert_eq!(node.discarded(Discard::NonceUnknown), 1, "a second copy");
    assert!(node.take_sent().is_empty());
    assert!(
        node.events
            .contains(&Event::Registered { prefix: prefix("10.1.0.0/16"), map_server: ip(SERVER) })
    );
}

#[test]
fn rg_15_a_prefix_left_out_is_refused() {
    let mut node = started(registering());
    let mut register = register_of(&node.take_one());
    register.records.truncate(1);
    receive_notify(&mut node, &notify(register.nonce, register.records, b"site key"));
    let view = node.control.registrations_view(node.now);
    assert_eq!(view[0].state, RegistrationState::Registered);
    assert_eq!((view[1].state, view[1].refusals), (RegistrationState::Refused, 1));
    assert_eq!(node.control.notes().len(), 1);
}

#[test]
fn rg_16_an_unsolicited_map_notify_is_acknowledged_per_copy() {
    let mut node = started(registering());
    node.take_sent();
    let octets = notify(u64::MAX / 3, vec![record("10.1.0.0/16", 60, &[PEER])], b"site key");
    for _ in 0..2 {
        receive_notify(&mut node, &octets);
        let transmit = node.take_one();
        assert_eq!(transmit.destination, control_port(SERVER));
        assert_eq!(transmit.source_port, SourcePort::Control);
        let Ok(Message::MapNotifyAck(ack)) = Message::parse(&transmit.payload) else { panic!() };
        assert_eq!(ack.0.nonce, u64::MAX / 3);
        assert_eq!(ack.0.records.len(), 1);
        let algorithms = [Algorithm::HmacSha256Hkdf];
        assert!(auth::verify(&transmit.payload, &server().secret, &algorithms).is_ok());
    }
    receive_notify(&mut node, &notify(u64::MAX / 3, vec![], b"wrong key"));
    assert!(node.take_sent().is_empty());
}

#[test]
fn au_15_another_algorithm_than_the_configured_is_refused() {
    let mut node = started(registering());
    let register = register_of(&node.take_one());
    let authentication = AuthenticationData::zeroed(1, 2, auth::MAC_LEN);
    let notify =
        MapNotify { nonce: register.nonce, authentication, records: vec![], identity: None };
    let mut octets = Message::MapNotify(notify).to_vec();
    auth::sign(&mut octets, &server().secret, Algorithm::HmacSha256).expect("signed");
    receive_notify(&mut node, &octets);
    assert_eq!(node.discarded(Discard::AlgorithmRefused), 1);
}

fn with_many_prefixes() -> ControlConfig {
    let eids = (0..200u32)
        .map(|net| LocalEid {
            prefix: EidPrefix::new(
                InstanceId::DEFAULT,
                format!("10.{net}.0.0/16").parse().expect("prefix"),
            ),
            locator_set: Vec::new(),
        })
        .collect();
    ControlConfig { eids, ..registering() }
}

#[test]
fn rg_12_a_message_overtaken_by_a_later_nonce_goes_again_with_a_new_one() {
    let mut node = started(with_many_prefixes());
    let mut registers: Vec<MapRegister> = node.take_sent().iter().map(register_of).collect();
    let last = registers.iter().map(|register| register.nonce).max().expect("several");
    let lost = registers.remove(0);
    for register in registers {
        receive_notify(&mut node, &notify(register.nonce, register.records, b"site key"));
    }
    node.advance(seconds(2));
    let again = register_of(&node.take_one());
    assert_eq!(again.records, lost.records);
    assert!(again.nonce > last, "a replay to the Map-Server");
}

#[test]
fn cw_06_many_prefixes_go_in_several_messages_that_fit_any_path() {
    let mut node = started(with_many_prefixes());
    let sent = node.take_sent();
    assert!(sent.len() > 1);
    assert!(sent.iter().all(|transmit| transmit.payload.len() + 28 <= 576));
    let registers: Vec<MapRegister> = sent.iter().map(register_of).collect();
    assert_eq!(registers.iter().map(|register| register.records.len()).sum::<usize>(), 200);
    let nonces: BTreeSet<u64> = registers.iter().map(|register| register.nonce).collect();
    assert_eq!(nonces.len(), registers.len());
}

#[test]
fn rg_17_op_04_shutdown_deregisters_with_ttl_0() {
    let mut node = started(registering());
    let register = register_of(&node.take_one());
    receive_notify(&mut node, &notify(register.nonce, register.records, b"site key"));
    node.control.shutdown(node.now);
    node.drain();
    let goodbye = register_of(&node.take_one());
    assert!(goodbye.records.iter().all(|record| record.ttl_minutes == 0));
    assert!(goodbye.nonce > register.nonce);
    assert!(!node.control.is_deregistered());
    node.advance(seconds(1));
    assert_eq!(register_of(&node.take_one()).nonce, goodbye.nonce, "retransmitted");
    receive_notify(&mut node, &notify(goodbye.nonce, goodbye.records, b"site key"));
    assert!(node.control.is_deregistered());
    node.advance(seconds(300));
    assert!(node.take_sent().is_empty());
}

#[test]
fn rg_06_the_locator_set_of_a_prefix_is_what_is_configured() {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2")];
    let eids = vec![LocalEid { prefix: prefix("10.1.0.0/16"), locator_set: vec!["b".to_owned()] }];
    let mut node = started(ControlConfig { rlocs, eids, proxy_reply: true, ..registering() });
    let register = register_of(&node.take_one());
    assert!(register.proxy_reply);
    assert_eq!(register.records[0].locators.len(), 1);
    assert_eq!(register.records[0].locators[0].address, Address::from(ip("192.0.2.2")));
}

#[test]
fn a_silent_map_server_is_reported_and_its_next_address_tried() {
    let mut config = registering();
    config.map_servers[0].endpoint = Endpoint::Name("ms.example.net".to_owned());
    let mut node = started(config);
    assert!(node.take_sent().is_empty());
    assert_eq!(node.control.registrations_view(node.now)[0].state, RegistrationState::Unresolved);
    node.control.set_name(node.now, "ms.example.net", &[ip(SERVER), ip("198.51.100.10")]);
    node.advance(seconds(30));
    let view = node.control.registrations_view(node.now);
    assert_eq!(view[0].state, RegistrationState::Unanswered);
    assert!(node.control.notes()[0].contains("is it running, is there a path"));
    assert!(
        node.events.contains(&Event::RegistrationUnanswered {
            prefix: prefix("10.1.0.0/16"),
            map_server: ip("198.51.100.10")
        }) || node.events.contains(&Event::RegistrationUnanswered {
            prefix: prefix("10.1.0.0/16"),
            map_server: ip(SERVER)
        })
    );
    let used: BTreeSet<_> = node.take_sent().iter().map(|transmit| transmit.destination).collect();
    assert_eq!(used.len(), 2);
}

#[test]
fn rg_04_the_addresses_of_a_silent_map_server_are_tried_in_turn() {
    let mut config = registering();
    config.map_servers[0].endpoint = Endpoint::Name("ms.example.net".to_owned());
    let mut node = started(config);
    let addresses = [ip("198.51.100.9"), ip("198.51.100.10")];
    node.control.set_name(node.now, "ms.example.net", &addresses);
    node.advance(seconds(600));
    node.take_sent();
    // Whichever of them comes back is found.
    node.advance(seconds(121));
    let used: BTreeSet<_> =
        node.take_sent().iter().map(|transmit| transmit.destination.ip()).collect();
    assert_eq!(used, BTreeSet::from(addresses));
    assert_eq!(
        node.events.iter().filter(|e| matches!(e, Event::RegistrationUnanswered { .. })).count(),
        2,
        "told once per prefix"
    );
}

#[test]
fn au_14_a_legacy_map_server_gets_untruncated_macs() {
    for (profile, algorithm, octets) in [
        (Profile::Oor, Algorithm::HmacSha1, 20),
        (Profile::LispersNet, Algorithm::HmacSha256, 32),
        (Profile::Rfc9301, Algorithm::HmacSha256, 16),
    ] {
        let mut config = registering();
        config.map_servers[0].profile = profile;
        config.map_servers[0].algorithm = algorithm;
        let mut node = started(config);
        let transmit = node.take_one();
        assert_eq!(register_of(&transmit).authentication.mac.len(), octets);
        let verified = auth::verify(&transmit.payload, &server().secret, &[algorithm]);
        assert_eq!(verified, Ok(auth::Covered::Message));
    }
}
