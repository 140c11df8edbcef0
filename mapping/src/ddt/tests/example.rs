//! TV-R10: the tree of RFC 8111 §9 and its lookups, packet by packet.

use super::world::{Site, World};
use super::*;
use crate::wire::{Action, EidRecord, MapReply};

const ROOT1: &str = "192.0.2.1";
const ROOT2: &str = "192.0.2.2";
const NODE1: &str = "192.0.2.11";
const NODE2: &str = "192.0.2.12";
const MAP_SERVER1: &str = "192.0.2.101";
const NODE3: &str = "192.0.2.201";
const MAP_SERVER2: &str = "192.0.2.211";
const MAP_SERVER3: &str = "192.0.2.221";
const RESOLVER1: &str = "192.0.2.250";
const RESOLVER2: &str = "192.0.2.251";
const ITR1: &str = "198.51.100.1";
const ITR2: &str = "198.51.100.2";

const SITES: [Site; 6] = [
    Site { prefix: "2001:db8:103::/48", etr: "198.51.100.101" },
    Site { prefix: "2001:db8:104::/48", etr: "198.51.100.102" },
    Site { prefix: "2001:db8:500:1::/64", etr: "198.51.100.103" },
    Site { prefix: "2001:db8:500:2::/64", etr: "198.51.100.104" },
    Site { prefix: "2001:db8:501:8::/64", etr: "198.51.100.105" },
    Site { prefix: "2001:db8:501:9::/64", etr: "198.51.100.106" },
];

fn tree() -> World {
    let mut world = World::new(1, 0.0);
    let node = |own: &str, delegations: Vec<Delegation>| DdtConfig {
        authoritative: vec![authoritative(own, true)],
        delegations,
        ..DdtConfig::default()
    };
    for root in [ROOT1, ROOT2] {
        let delegations = vec![delegation("2001:db8::/32", &[NODE1, NODE2], false)];
        world.add(root, &[], node("::/0", delegations));
    }
    for address in [NODE1, NODE2] {
        let delegations = vec![
            delegation("2001:db8:100::/40", &[MAP_SERVER1], true),
            delegation("2001:db8:500::/40", &[NODE3], false),
        ];
        world.add(address, &[], node("2001:db8::/32", delegations));
    }
    let delegations = vec![
        delegation("2001:db8:500::/48", &[MAP_SERVER2], true),
        delegation("2001:db8:501::/48", &[MAP_SERVER3], true),
    ];
    world.add(NODE3, &[], node("2001:db8:500::/40", delegations));
    world.add(MAP_SERVER1, &SITES[..2], node("2001:db8:100::/40", Vec::new()));
    world.add(MAP_SERVER2, &SITES[2..4], node("2001:db8:500::/48", Vec::new()));
    world.add(MAP_SERVER3, &SITES[4..], node("2001:db8:501::/48", Vec::new()));
    for resolver in [RESOLVER1, RESOLVER2] {
        let roots = ips(&[ROOT1, ROOT2]);
        world.add(resolver, &[], DdtConfig { resolver: true, roots, ..DdtConfig::default() });
    }
    world.run(seconds(1));
    world
}

/// Looks `eid` up and returns the answer and what happened on the way: `address`, and the Map-Referral it sent.
fn lookup(
    world: &mut World,
    eid: &str,
    itr: &'static str,
    resolver: &str,
) -> (EidRecord, Vec<(IpAddr, ReferralAction, EidPrefix)>) {
    world.sent.clear();
    world.look_for(eid, itr, resolver);
    world.run(seconds(2));
    let answer = world.answers().remove(0).unwrap();
    let referrals = world.sent.iter().filter_map(|sent| {
        let Ok(Message::MapReferral(referral)) = Message::parse(&sent.payload) else { return None };
        let record = &referral.records[0];
        assert_eq!(sent.to.ip(), ip(resolver));
        Some((sent.from.ip(), record.action, record.eid.prefix().unwrap()))
    });
    (answer, referrals.collect())
}

fn is_one_of(address: IpAddr, nodes: [&str; 2]) -> bool {
    nodes.iter().any(|node| ip(node) == address)
}

/// The ETR that answered, which was asked with the ITR's own Map-Request.
fn assert_answered_by(world: &World, site: Site, answer: &EidRecord) {
    assert_eq!(answer.eid.prefix(), Some(prefix(site.prefix)));
    let asked = world.sent.iter().filter(|sent| sent.to.ip() == ip(site.etr)).count();
    assert_eq!(asked, 1, "one Map-Request reached the ETR");
    let replies = world.sent.iter().filter(|sent| MapReply::parse(&sent.payload).is_ok());
    assert_eq!(replies.count(), 1, "one Map-Reply went to the ITR");
}

#[test]
fn tv_r10_the_lookups_of_the_example() {
    use ReferralAction::{DelegationHole, MsAck, MsReferral, NodeReferral};
    let mut world = tree();

    // §9.1: root, node, Map-Server.
    let (answer, way) = lookup(&mut world, "2001:db8:103:1::1", ITR1, RESOLVER1);
    assert_answered_by(&world, SITES[0], &answer);
    assert!(is_one_of(way[0].0, [ROOT1, ROOT2]) && is_one_of(way[1].0, [NODE1, NODE2]));
    assert_eq!((way[0].1, way[0].2), (NodeReferral, prefix("2001:db8::/32")));
    assert_eq!((way[1].1, way[1].2), (MsReferral, prefix("2001:db8:100::/40")));
    assert_eq!(way[2..], [(ip(MAP_SERVER1), MsAck, prefix("2001:db8:103::/48"))]);

    // §9.2: one node more.
    let (answer, way) = lookup(&mut world, "2001:db8:501:8:4::1", ITR2, RESOLVER2);
    assert_answered_by(&world, SITES[4], &answer);
    assert!(is_one_of(way[0].0, [ROOT1, ROOT2]) && is_one_of(way[1].0, [NODE1, NODE2]));
    assert_eq!((way[1].1, way[1].2), (NodeReferral, prefix("2001:db8:500::/40")));
    let rest = [
        (ip(NODE3), MsReferral, prefix("2001:db8:501::/48")),
        (ip(MAP_SERVER3), MsAck, prefix("2001:db8:501:8::/64")),
    ];
    assert_eq!(way[2..], rest);

    // §9.3: the cached MS-REFERRAL leads straight to the Map-Server.
    let (answer, way) = lookup(&mut world, "2001:db8:104:2::2", ITR1, RESOLVER1);
    assert_answered_by(&world, SITES[1], &answer);
    assert_eq!(way, [(ip(MAP_SERVER1), MsAck, prefix("2001:db8:104::/48"))]);

    // §9.4: the cached NODE-REFERRAL leads to an intermediate node.
    let (answer, way) = lookup(&mut world, "2001:db8:500:2:4::1", ITR2, RESOLVER2);
    assert_answered_by(&world, SITES[3], &answer);
    let expected = [
        (ip(NODE3), MsReferral, prefix("2001:db8:500::/48")),
        (ip(MAP_SERVER2), MsAck, prefix("2001:db8:500:2::/64")),
    ];
    assert_eq!(way, expected);

    // §9.5: an EID that does not exist.
    let (answer, way) = lookup(&mut world, "2001:db8:500::1", ITR2, RESOLVER2);
    assert_eq!(way, [(ip(MAP_SERVER2), DelegationHole, prefix("2001:db8:500::/64"))]);
    let negative = EidRecord::negative(prefix("2001:db8:500::/64"), Action::NativelyForward, 15);
    assert_eq!(answer, negative);
    let view = world.server(RESOLVER2).referrals_view(world.now);
    let hole = view.cache.iter().find(|entry| entry.action == "delegation-hole").unwrap();
    assert_eq!(
        (hole.prefix, hole.source),
        (Some(prefix("2001:db8:500::/64")), Some(ip(MAP_SERVER2)))
    );
    assert!(view.pending.is_empty());

    // The negative entry answers the next one at once.
    let (answer, way) = lookup(&mut world, "2001:db8:500::2", ITR1, RESOLVER2);
    assert_eq!(answer, negative);
    assert_eq!(way, []);
}
