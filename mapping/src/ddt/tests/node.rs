//! DD-02 to DD-09: what a DDT node and a DDT Map-Server answer.

use super::world::{Site, register, sites};
use super::*;
use crate::config::MappingConfig;
use crate::server::{Count, MapServer};
use crate::timers::control_payload_limit;
use crate::wire::{EidField, EidRecord, MapReply};

const NODE: &str = "192.0.2.201";
const ETR: &str = "198.51.100.11";

/// Authoritative for 10/8, 10.1/16 delegated to nodes, 10.2/16 to a Map-Server, a hint for 172.16/12; a site has 10.5.1/24 and
/// 10.5.2/24; in instance 7, 10.1/16 is someone else's.
fn config() -> MappingConfig {
    let mut config = MappingConfig::new("node", ips(&[NODE]));
    config.sites = sites(&[
        Site { prefix: "10.5.1.0/24", etr: ETR },
        Site { prefix: "10.5.2.0/24", etr: ETR },
    ]);
    config.ddt = DdtConfig {
        authoritative: vec![
            authoritative("10.0.0.0/8", false),
            AuthoritativePrefix {
                peers: ips(&["192.0.2.202"]),
                ..authoritative("10.5.2.0/23", true)
            },
            AuthoritativePrefix {
                instance_id: InstanceId::new(7),
                ..authoritative("10.0.0.0/8", true)
            },
        ],
        delegations: vec![
            delegation("10.1.0.0/16", &["192.0.2.11", "192.0.2.12"], false),
            delegation("10.2.0.0/16", &["192.0.2.101"], true),
            Delegation {
                prefix: in_instance(7, "10.1.0.0/16"),
                rlocs: ips(&["192.0.2.77"]),
                map_server: true,
            },
        ],
        hints: vec![delegation("172.16.0.0/12", &["192.0.2.99"], true)],
        ..DdtConfig::default()
    };
    config
}

struct Bench {
    server: MapServer,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { server: MapServer::new(config(), [1; 32]), now: Instant::now() }
    }

    fn register(&mut self, registered: &str) {
        let octets = register(1, prefix(registered), ETR, false);
        self.input(ETR, &octets);
    }

    fn input(&mut self, from: &str, octets: &[u8]) -> Vec<Transmit> {
        let local = SocketAddr::new(ip(NODE), CONTROL_PORT);
        self.server.handle_input(self.now, local, SocketAddr::new(ip(from), 40_001), octets);
        std::iter::from_fn(|| self.server.poll_transmit()).collect()
    }

    fn ask(&mut self, nonce: u64, asked: EidPrefix) -> Vec<Transmit> {
        let mut ecm = ecm(nonce, asked, ITR);
        ecm.ddt_originated = true;
        self.input(RESOLVER, &octets(&ecm))
    }

    /// The record of the Map-Referral, which is the last thing sent.
    fn referral(&mut self, asked: &str) -> ReferralRecord {
        let sent = self.ask(5, host(asked));
        let referral = referral_of(sent.last().unwrap());
        assert_eq!(referral.records.len(), 1);
        referral.records[0].clone()
    }
}

#[test]
fn dd_02_every_ddt_map_request_is_answered_with_its_nonce() {
    let mut bench = Bench::new();
    bench.register("10.5.1.0/24");
    let asked = ["10.1.2.3", "10.2.2.3", "10.9.9.9", "10.5.1.1", "10.5.2.1", "192.168.1.1"];
    for (nonce, eid) in asked.into_iter().enumerate() {
        let sent = bench.ask(nonce as u64, host(eid));
        let answer = sent.last().unwrap();
        assert_eq!(referral_of(answer).nonce, nonce as u64, "{eid}");
        assert_eq!(answer.destination, SocketAddr::new(ip(RESOLVER), 40_001));
        assert_eq!(answer.source, ip(NODE));
    }
    assert_eq!(bench.server.get(Count::MapReferrals), 6);
}

#[test]
fn dd_02_a_request_for_several_eids_is_answered_for_each() {
    let mut bench = Bench::new();
    let records = ["10.1.2.3", "10.9.9.9"].map(|eid| RequestedEid::new(host(eid))).to_vec();
    let name = EidField::Other { address: Address::Name(b"printer".to_vec()), mask_len: 56 };
    let records = [records, vec![RequestedEid::new(name.clone())]].concat();
    let request = MapRequest::new(9, vec![Address::from(ip(ITR))], records);
    let mut ecm = ecm(9, host("10.1.2.3"), ITR);
    ecm.ddt_originated = true;
    ecm.message.clear();
    request.encode(&mut ecm.message);
    let sent = bench.input(RESOLVER, &octets(&ecm));
    assert_eq!(sent.len(), 1);
    let answers = referral_of(&sent[0]).records;
    assert_eq!(answers[0].action, ReferralAction::NodeReferral);
    assert_eq!(answers[1].action, ReferralAction::DelegationHole);
    assert_eq!((answers[2].action, &answers[2].eid), (ReferralAction::NotAuthoritative, &name));
}

/// Its source may be spoofed.
#[test]
fn dd_02_a_request_for_many_eids_is_answered_with_one_packet() {
    let mut bench = Bench::new();
    let records = vec![RequestedEid::new(host("10.1.2.3")); 255];
    let request = MapRequest::new(9, vec![Address::from(ip(ITR))], records);
    let mut ecm = ecm(9, host("10.1.2.3"), ITR);
    ecm.ddt_originated = true;
    ecm.message.clear();
    request.encode(&mut ecm.message);
    let sent = bench.input(RESOLVER, &octets(&ecm));
    assert_eq!(sent.len(), 1);
    assert!(sent[0].payload.len() <= control_payload_limit(ip(RESOLVER)));
    assert!(referral_of(&sent[0]).records.len() > 1);
}

#[test]
fn dd_03_a_delegation_is_answered_with_its_prefix_and_nodes() {
    let mut bench = Bench::new();
    let node = bench.referral("10.1.2.3");
    assert_eq!(
        (node.action, node.eid.prefix()),
        (ReferralAction::NodeReferral, Some(prefix("10.1.0.0/16")))
    );
    assert_eq!(rlocs_of(&node), ips(&["192.0.2.11", "192.0.2.12"]));
    assert!(node.authoritative && !node.incomplete);
    let map_server = bench.referral("10.2.2.3");
    assert_eq!(map_server.action, ReferralAction::MsReferral);
    assert_eq!(map_server.eid.prefix(), Some(prefix("10.2.0.0/16")));
    let hint = bench.referral("172.17.0.1");
    assert_eq!((hint.action, hint.authoritative), (ReferralAction::MsReferral, false));
}

#[test]
fn dd_03_delegations_are_per_instance() {
    let mut bench = Bench::new();
    let sent = bench.ask(5, in_instance(7, "10.1.2.3/32"));
    let record = &referral_of(&sent[0]).records[0];
    assert_eq!(record.eid.prefix(), Some(in_instance(7, "10.1.0.0/16")));
    assert_eq!(rlocs_of(record), ips(&["192.0.2.77"]));
    let sent = bench.ask(6, in_instance(8, "10.1.2.3/32"));
    assert_eq!(referral_of(&sent[0]).records[0].action, ReferralAction::NotAuthoritative);
}

#[test]
fn dd_03_a_root_is_authoritative_in_every_instance() {
    let mut config = MappingConfig::new("root", ips(&[NODE]));
    let everywhere = AuthoritativePrefix { instance_id: None, ..authoritative("0.0.0.0/0", true) };
    config.ddt.authoritative = vec![everywhere];
    config.ddt.delegations = vec![Delegation {
        prefix: in_instance(9, "10.0.0.0/8"),
        ..delegation("10.0.0.0/8", &["192.0.2.11"], false)
    }];
    let mut bench = Bench { server: MapServer::new(config, [1; 32]), now: Instant::now() };
    let sent = bench.ask(1, in_instance(9, "10.1.1.1/32"));
    assert_eq!(referral_of(&sent[0]).records[0].action, ReferralAction::NodeReferral);
    let sent = bench.ask(2, in_instance(10, "10.1.1.1/32"));
    let hole = &referral_of(&sent[0]).records[0];
    assert_eq!(hole.action, ReferralAction::DelegationHole);
    assert_eq!(hole.eid.prefix(), Some(in_instance(10, "0.0.0.0/0")));
    let sent = bench.ask(3, in_instance(9, "11.1.1.1/32"));
    assert_eq!(referral_of(&sent[0]).records[0].eid.prefix(), Some(in_instance(9, "11.0.0.0/8")));
}

#[test]
fn dd_04_a_hole_is_the_largest_prefix_without_delegation_or_site() {
    let mut bench = Bench::new();
    let hole = bench.referral("10.128.0.1");
    assert_eq!(hole.action, ReferralAction::DelegationHole);
    assert_eq!(hole.eid.prefix(), Some(prefix("10.128.0.0/9")));
    assert!(hole.referrals.is_empty() && hole.authoritative && !hole.incomplete);
    let between_sites = bench.referral("10.5.0.1");
    assert_eq!(between_sites.action, ReferralAction::DelegationHole);
    assert_eq!(between_sites.eid.prefix(), Some(prefix("10.5.0.0/24")));
}

#[test]
fn dd_05_elsewhere_the_node_is_not_authoritative() {
    let record = Bench::new().referral("192.168.1.1");
    assert_eq!(record.action, ReferralAction::NotAuthoritative);
    assert_eq!(record.eid.prefix(), Some(host("192.168.1.1")));
    assert_eq!((record.ttl_minutes, record.incomplete), (0, true));
    assert!(record.referrals.is_empty());
}

#[test]
fn dd_06_a_registered_eid_is_forwarded_and_acknowledged() {
    let mut bench = Bench::new();
    bench.register("10.5.1.0/24");
    let sent = bench.ask(77, host("10.5.1.9"));
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].destination, SocketAddr::new(ip(ETR), CONTROL_PORT));
    let forwarded = EncapsulatedControlMessage::parse(&sent[0].payload).unwrap();
    assert!(!forwarded.ddt_originated, "the ETR is no DDT node");
    assert_eq!(forwarded.message, ecm(77, host("10.5.1.9"), ITR).message);
    let record = &referral_of(&sent[1]).records[0];
    assert_eq!(
        (record.action, record.eid.prefix()),
        (ReferralAction::MsAck, Some(prefix("10.5.1.0/24")))
    );
}

#[test]
fn dd_06_a_proxy_reply_goes_to_the_itr_and_the_ack_to_the_resolver() {
    let mut bench = Bench::new();
    bench.input(ETR, &register(1, prefix("10.5.1.0/24"), ETR, true));
    let sent = bench.ask(78, host("10.5.1.9"));
    let reply = MapReply::parse(&sent[0].payload).unwrap();
    assert_eq!(sent[0].destination, SocketAddr::new(ip(ITR), ITR_PORT));
    assert_eq!((reply.nonce, reply.records.len()), (78, 1));
    assert_eq!(referral_of(&sent[1]).records[0].action, ReferralAction::MsAck);
}

#[test]
fn dd_07_an_unregistered_eid_of_a_site_is_said_to_be_so() {
    let mut bench = Bench::new();
    let sent = bench.ask(5, host("10.5.2.9"));
    assert_eq!(sent.len(), 1, "no Map-Reply: that is the resolver's");
    let record = &referral_of(&sent[0]).records[0];
    assert_eq!(record.action, ReferralAction::MsNotRegistered);
    assert_eq!(record.eid.prefix(), Some(prefix("10.5.2.0/24")));
}

#[test]
fn dd_08_each_action_has_its_ttl() {
    let mut bench = Bench::new();
    bench.register("10.5.1.0/24");
    let expected = [
        ("10.1.2.3", ReferralAction::NodeReferral, 1_440),
        ("10.2.2.3", ReferralAction::MsReferral, 1_440),
        ("10.5.1.1", ReferralAction::MsAck, 1_440),
        ("10.5.2.1", ReferralAction::MsNotRegistered, 1),
        ("10.9.9.9", ReferralAction::DelegationHole, 15),
        ("192.168.1.1", ReferralAction::NotAuthoritative, 0),
    ];
    for (eid, action, ttl_minutes) in expected {
        let record = bench.referral(eid);
        assert_eq!((record.action, record.ttl_minutes), (action, ttl_minutes), "{eid}");
    }
}

#[test]
fn dd_09_a_map_server_names_its_peers_and_says_whether_they_are_all() {
    let mut bench = Bench::new();
    bench.register("10.5.1.0/24");
    let alone = bench.referral("10.5.1.1");
    assert!(alone.incomplete, "10/8 is not configured complete");
    assert_eq!(rlocs_of(&alone), ips(&[NODE]));
    for registered in [false, true] {
        if registered {
            let octets = register(2, prefix("10.5.2.0/24"), ETR, false);
            bench.input(ETR, &octets);
        }
        let complete = bench.referral("10.5.2.1");
        assert!(!complete.incomplete);
        assert_eq!(rlocs_of(&complete), ips(&[NODE, "192.0.2.202"]));
    }
}

#[test]
fn dd_09_a_set_that_does_not_fit_is_incomplete() {
    let mut config = MappingConfig::new("node", ips(&[NODE]));
    config.ddt.authoritative = vec![authoritative("10.0.0.0/8", true)];
    let many: Vec<String> = (0..40).map(|at| format!("2001:db8::{at:x}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    config.ddt.delegations = vec![delegation("10.1.0.0/16", &many, false)];
    let mut bench = Bench { server: MapServer::new(config, [1; 32]), now: Instant::now() };
    let sent = bench.ask(5, host("10.1.0.1"));
    assert!(sent[0].payload.len() <= 548);
    let record = &referral_of(&sent[0]).records[0];
    assert!(record.incomplete && record.referrals.len() > 15);
}

#[test]
fn dd_04_a_prefix_with_something_inside_is_answered_for_its_first_eid() {
    let mut bench = Bench::new();
    let sent = bench.ask(5, prefix("10.0.0.0/8"));
    let record = &referral_of(&sent[0]).records[0];
    assert_eq!(record.action, ReferralAction::DelegationHole);
    assert_eq!(record.eid.prefix(), Some(prefix("10.0.0.0/16")));
    let sent = bench.ask(6, prefix("10.4.0.0/15"));
    assert_eq!(referral_of(&sent[0]).records[0].eid.prefix(), Some(prefix("10.4.0.0/16")));
}

#[test]
fn dd_11_without_a_resolver_the_tree_is_not_answered_for() {
    let mut bench = Bench::new();
    let plain = |eid: &str| octets(&ecm(3, host(eid), ITR));
    assert!(bench.input(ITR, &plain("10.1.2.3")).is_empty(), "delegated: not ours to deny");
    assert!(bench.input(ITR, &plain("192.168.1.1")).is_empty(), "elsewhere in the tree");
    let sent = bench.input(ITR, &plain("10.128.0.1"));
    let reply = MapReply::parse(&sent[0].payload).unwrap();
    let expected =
        EidRecord::negative(prefix("10.128.0.0/9"), crate::wire::Action::NativelyForward, 15);
    assert_eq!(reply.records, [expected], "a hole of ours");
    let drops = bench.server.drops_view();
    assert!(drops.iter().any(|drop| drop.reason == "not_a_resolver" && drop.count == 2));
}
