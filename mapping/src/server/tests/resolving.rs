//! The Map-Resolver's rules: who may ask, which site is shut down, what goes in a circle.

use super::*;
use crate::config::{Client, Profile};
use crate::transmit::SourcePort;
use crate::wire::Action;

fn client(prefix: &str, profile: Profile) -> Client {
    Client { prefix: prefix.parse().unwrap(), profile, plain_map_requests: false }
}

fn with_clients(clients: Vec<Client>) -> Bench {
    let mut config = config();
    config.clients = clients;
    let mut bench = Bench::with(config);
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    bench
}

/// The octets of an ECM with its inner UDP checksum zeroed, as lispers.net sends it.
fn without_checksum(request: &MapRequest) -> Vec<u8> {
    const INNER_UDP_CHECKSUM: usize = 4 + 20 + 6;
    let mut octets = ecm(request).to_octets();
    octets[INNER_UDP_CHECKSUM..INNER_UDP_CHECKSUM + 2].fill(0);
    octets
}

#[test]
fn ec_03_clients_of_a_profile_are_told_at_the_start_and_shown() {
    let clients = vec![
        client("198.51.100.0/24", Profile::Rfc9301),
        client("192.0.2.0/24", Profile::LispersNet),
    ];
    let mut bench = with_clients(clients);
    let told = bench.events().iter().map(ToString::to_string).collect::<Vec<_>>();
    let [only] = &told[..] else { panic!("{told:?}") };
    assert!(only.contains("client 192.0.2.0/24 has the profile lispers.net"), "{only}");
    let shown = bench.server.loose_clients();
    assert!(shown.len() == 1 && shown[0].contains("192.0.2.0/24"), "{shown:?}");
}

#[test]
fn mr_08_only_clients_are_answered() {
    let mut bench = with_clients(vec![client("198.51.100.0/24", Profile::Rfc9301)]);
    let octets = ecm(&request(1, &["10.1.0.1/32"], &[ITR])).to_octets();
    assert!(bench.input("192.0.2.1", 40_001, &octets).is_empty());
    assert_eq!(bench.discarded(Discard::ClientUnknown), 1);
    assert_eq!(bench.input(ITR, 40_001, &octets).len(), 1);
    let etr = register(2, vec![record("10.1.0.0/16", &[ETR])]).from("192.0.2.7");
    assert_eq!(bench.register(&etr).len(), 1, "sites are told apart by their keys");
}

#[test]
fn ec_03_a_zero_inner_checksum_is_for_lispers_net_only() {
    let mut bench = with_clients(vec![
        client("198.51.100.0/24", Profile::Rfc9301),
        client("192.0.2.0/24", Profile::LispersNet),
    ]);
    let octets = without_checksum(&request(1, &["10.1.0.1/32"], &[ITR]));
    assert!(bench.input(ITR, 40_001, &octets).is_empty());
    assert_eq!(bench.discarded(Discard::InnerChecksum), 1);
    assert_eq!(bench.input("192.0.2.1", 40_001, &octets).len(), 1);
}

#[test]
fn mr_09_plain_map_requests_are_lookups_of_clients_that_need_it() {
    let older = Client { plain_map_requests: true, ..client("192.0.2.0/24", Profile::Rfc9301) };
    let mut bench = with_clients(vec![client("198.51.100.0/24", Profile::Rfc9301), older]);
    let plain = |request: &MapRequest| {
        let mut octets = Vec::new();
        request.encode(&mut octets);
        octets
    };
    let lookup = request(1, &["10.1.0.1/32"], &["192.0.2.1"]);
    assert!(bench.input(ITR, CONTROL_PORT, &plain(&lookup)).is_empty());
    assert_eq!(bench.discarded(Discard::PlainMapRequest), 1);
    let sent = bench.input("192.0.2.1", ITR_PORT, &plain(&lookup));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].destination, SocketAddr::new(ip("192.0.2.1"), ITR_PORT));
    assert_eq!(sent[0].source_port, SourcePort::Control);
    let mut probe = lookup.clone();
    probe.probe = true;
    assert!(bench.input("192.0.2.1", ITR_PORT, &plain(&probe)).is_empty());
    assert_eq!(bench.discarded(Discard::ProbeRefused), 1);
    let unproxied = register(2, vec![record("10.9.0.0/16", &[ETR])]);
    bench.register(&unproxied.edit(|message| message.proxy_reply = false));
    let other = request(2, &["10.9.0.1/32"], &["192.0.2.1"]);
    let sent = bench.input("192.0.2.1", ITR_PORT, &plain(&other));
    let inner = EncapsulatedControlMessage::parse(&sent[0].payload).unwrap();
    assert_eq!(inner.message, plain(&other), "MR-05");
    assert_eq!(
        inner.source,
        SocketAddr::new(ip("192.0.2.1"), ITR_PORT),
        "where the ETR answers to"
    );
}

#[test]
fn ms_13_a_site_that_is_shut_down_is_denied() {
    let mut config = config();
    config.sites[1].admin_down = true;
    let mut bench = Bench::with(config);
    let denied = bench.reply_to(1, "10.2.3.4/32").remove(0);
    assert_eq!((denied.action, denied.ttl_minutes), (Action::DropPolicyDenied, 1));
    assert_eq!(denied.eid.prefix(), Some(eid_prefix("10.2.0.0/16")));
    let shared = bench.reply_to(2, "10.1.2.3/32").remove(0);
    assert_eq!(shared.action, Action::NativelyForward, "the other site of the prefix is up");
    let within = bench.reply_to(3, "10.9.200.1/32").remove(0);
    assert_eq!(within.action, Action::DropPolicyDenied);
    assert_eq!(within.eid.prefix(), Some(eid_prefix("10.9.200.0/24")));
}

#[test]
fn ms_14_proxy_service_can_be_forced() {
    let mut config = config();
    config.sites[0].force_proxy_reply = true;
    let mut bench = Bench::with(config);
    let register = register(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.register(&register.edit(|message| message.proxy_reply = false));
    assert_eq!(rlocs_of(&bench.reply_to(1, "10.1.2.3/32")[0]), [ip(ETR)]);
}

#[test]
fn ec_08_a_request_in_a_circle_is_passed_on_a_few_times_only() {
    let mut bench = Bench::new();
    let register = register(1, vec![record("10.1.0.0/16", &[OTHER_ETR])]);
    bench.register(&register.edit(|message| message.proxy_reply = false));
    let octets = ecm(&request(7, &["10.1.2.3/32"], &[ITR])).to_octets();
    let mut passed = 0;
    for _ in 0..100 {
        passed += bench.input(OTHER_ETR, 40_000, &octets).len();
    }
    assert_eq!(passed, usize::from(timers::MAX_FORWARDS));
    assert_eq!(bench.discarded(Discard::ForwardLoop), 100 - u64::from(timers::MAX_FORWARDS));
    assert_eq!(bench.ask_for(8, "10.1.2.3/32").len(), 1, "others are not held up");
}

/// What one forged request can make somebody receive, and how much of it there is in a second.
#[test]
fn rp_20_amplification_is_bounded() {
    let mut bench = Bench::new();
    for host in 0..40 {
        let rlocs: Vec<_> = (1..=9).map(|last| format!("198.51.100.{last}")).collect();
        let rlocs: Vec<_> = rlocs.iter().map(String::as_str).collect();
        bench.register(&register(host + 1, vec![record(&format!("10.1.{host}.0/24"), &rlocs)]));
    }
    let (mut asked, mut answered) = (0, 0);
    for nonce in 0..2_000_u64 {
        let eid = format!("10.1.{}.1/32", nonce % 40);
        let octets = ecm(&request(nonce, &[&eid], &["203.0.113.9"])).to_octets();
        asked += octets.len();
        let sent = bench.input(&format!("192.0.2.{}", nonce % 200 + 1), 40_000, &octets);
        for transmit in sent {
            assert!(transmit.payload.len() <= 548);
            answered += transmit.payload.len();
        }
    }
    assert!(answered < asked, "RP-15: {answered} octets in answer to {asked}");
}
