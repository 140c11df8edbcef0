//! A whole tree with two levels of nodes, several Map-Servers and xTRs: under loss, crashes, loops and storms.

use super::world::{Site, World};
use super::*;
use crate::timers::{MAX_REFERRAL_RLOCS, PENDING_LOOKUPS_PER_SOURCE};

const ROOTS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// Level one: 10/8.
const UPPER: [&str; 2] = ["192.0.2.11", "192.0.2.12"];
/// Level two: 10.16/12.
const LOWER: [&str; 2] = ["192.0.2.21", "192.0.2.22"];
/// Of 10.1/16, both of them.
const PAIR: [&str; 2] = ["192.0.2.31", "192.0.2.32"];
/// Of 10.16/16 and 10.17/16.
const SINGLE: [&str; 2] = ["192.0.2.41", "192.0.2.42"];
const RESOLVERS: [&str; 2] = ["192.0.2.51", "192.0.2.52"];
const ITRS: [&str; 3] = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];

const SITES: [Site; 6] = [
    Site { prefix: "10.1.0.0/24", etr: "198.51.100.101" },
    Site { prefix: "10.1.1.0/24", etr: "198.51.100.102" },
    Site { prefix: "10.16.0.0/24", etr: "198.51.100.103" },
    Site { prefix: "10.16.1.0/24", etr: "198.51.100.104" },
    Site { prefix: "10.17.0.0/24", etr: "198.51.100.105" },
    Site { prefix: "10.17.1.0/24", etr: "198.51.100.106" },
];

fn tree(seed: u8, loss: f64) -> World {
    let mut world = World::new(seed, loss);
    let node = |own: &str, delegations: Vec<Delegation>| DdtConfig {
        authoritative: vec![authoritative(own, true)],
        delegations,
        ..DdtConfig::default()
    };
    for root in ROOTS {
        world.add(root, &[], node("0.0.0.0/0", vec![delegation("10.0.0.0/8", &UPPER, false)]));
    }
    for upper in UPPER {
        let delegations =
            vec![delegation("10.1.0.0/16", &PAIR, true), delegation("10.16.0.0/12", &LOWER, false)];
        world.add(upper, &[], node("10.0.0.0/8", delegations));
    }
    for lower in LOWER {
        let delegations = vec![
            delegation("10.16.0.0/16", &SINGLE[..1], true),
            delegation("10.17.0.0/16", &SINGLE[1..], true),
        ];
        world.add(lower, &[], node("10.16.0.0/12", delegations));
    }
    for (at, address) in PAIR.into_iter().enumerate() {
        let mut ddt = node("10.1.0.0/16", Vec::new());
        ddt.authoritative[0].peers = ips(&[PAIR[1 - at]]);
        world.add(address, &SITES[..2], ddt);
    }
    world.add(SINGLE[0], &SITES[2..4], node("10.16.0.0/16", Vec::new()));
    world.add(SINGLE[1], &SITES[4..], node("10.17.0.0/16", Vec::new()));
    for resolver in RESOLVERS {
        let ddt = DdtConfig { resolver: true, roots: ips(&ROOTS), ..DdtConfig::default() };
        world.add(resolver, &[], ddt);
    }
    world.run(seconds(1));
    world
}

/// Every ITR looks for an EID of every site and for some that do not exist; how many answers are missing.
fn look_for_everything(world: &mut World, host: u8) -> usize {
    let mut expected = Vec::new();
    for (at, itr) in ITRS.into_iter().enumerate() {
        for site in SITES {
            let base = site.prefix.trim_end_matches("0/24");
            world.look_for(&format!("{base}{host}"), itr, RESOLVERS[at % 2]);
            expected.push(Some(prefix(site.prefix)));
        }
        for nowhere in ["10.16.9", "10.200.3", "172.16.1"] {
            world.look_for(&format!("{nowhere}.{host}"), itr, RESOLVERS[at % 2]);
            expected.push(None);
        }
    }
    world.run(seconds(45));
    let mut missing = 0;
    for (answer, expected) in world.answers().into_iter().zip(expected) {
        match (answer, expected) {
            (Some(record), Some(site)) => assert_eq!(record.eid.prefix(), Some(site)),
            (Some(record), None) => assert!(record.is_negative(), "{record:?}"),
            (None, _) => missing += 1,
        }
    }
    missing
}

fn assert_nothing_pending(world: &World) {
    for resolver in RESOLVERS {
        assert!(world.server(resolver).referrals_view(world.now).pending.is_empty());
    }
}

#[test]
fn dd_18_every_lookup_is_answered_although_packets_are_lost() {
    for (seed, loss) in [(1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3)] {
        let mut world = tree(seed, loss);
        world.sent.clear();
        for host in [7, 8] {
            assert_eq!(look_for_everything(&mut world, host), 0, "loss {loss}");
        }
        world.run(seconds(60));
        assert_nothing_pending(&world);
    }
}

#[test]
fn dd_10_the_cache_makes_later_lookups_short() {
    let mut world = tree(1, 0.0);
    world.sent.clear();
    look_for_everything(&mut world, 7);
    let first = world.sent.len();
    world.sent.clear();
    look_for_everything(&mut world, 8);
    assert!(world.sent.len() < first, "{} then {first}", world.sent.len());
    let to_roots =
        world.sent.iter().filter(|sent| ROOTS.iter().any(|root| ip(root) == sent.to.ip()));
    assert_eq!(to_roots.count(), 0);
}

#[test]
fn dd_18_one_node_of_every_pair_may_die() {
    let mut world = tree(5, 0.05);
    assert_eq!(look_for_everything(&mut world, 7), 0);
    for dead in [ROOTS[0], UPPER[1], LOWER[0], PAIR[0]] {
        world.crash(dead);
    }
    assert_eq!(look_for_everything(&mut world, 8), 0);
    // What was learned is over: all is searched again with half of the nodes.
    world.run(seconds(86_400));
    assert_eq!(look_for_everything(&mut world, 9), 0);
    for dead in [ROOTS[0], UPPER[1], LOWER[0], PAIR[0]] {
        world.start(dead);
    }
    for dead in [ROOTS[1], UPPER[0], LOWER[1], PAIR[1]] {
        world.crash(dead);
    }
    world.run(seconds(180));
    assert_eq!(look_for_everything(&mut world, 10), 0);
    assert_nothing_pending(&world);
}

#[test]
fn dd_18_a_dead_map_server_leaves_only_its_own_sites_unanswered() {
    let mut world = tree(6, 0.0);
    world.crash(SINGLE[1]);
    let missing = look_for_everything(&mut world, 7);
    assert_eq!(missing, 2 * ITRS.len(), "the two sites of that Map-Server, silently");
    world.start(SINGLE[1]);
    world.run(seconds(70));
    assert_eq!(look_for_everything(&mut world, 8), 0);
}

#[test]
fn dd_12_a_circle_of_delegations_ends_at_once() {
    let mut world = tree(7, 0.0);
    // The lower nodes give 10.18/16 back to the upper ones, who hint at the lower ones.
    let circle = |rlocs: &[&str]| delegation("10.18.0.0/16", rlocs, false);
    for upper in UPPER {
        let delegations = vec![delegation("10.16.0.0/12", &LOWER, false), circle(&LOWER)];
        let ddt = DdtConfig {
            authoritative: vec![authoritative("10.0.0.0/8", true)],
            delegations,
            ..DdtConfig::default()
        };
        world.add(upper, &[], ddt);
    }
    for lower in LOWER {
        let ddt = DdtConfig {
            authoritative: vec![authoritative("10.16.0.0/12", true)],
            delegations: vec![circle(&UPPER)],
            ..DdtConfig::default()
        };
        world.add(lower, &[], ddt);
    }
    world.sent.clear();
    world.look_for("10.18.0.1", ITRS[0], RESOLVERS[0]);
    world.run(seconds(20));
    let answer = world.answers().remove(0).unwrap();
    assert!(answer.is_negative());
    assert_eq!((answer.eid.prefix(), answer.ttl_minutes), (Some(host("10.18.0.1")), 1));
    assert!(world.sent.len() < 20, "{} packets", world.sent.len());
    assert!(
        world.server(RESOLVERS[0]).drops_view().iter().any(|drop| drop.reason == "referral_loop")
    );
}

#[test]
fn dd_19_a_storm_of_lookups_at_dead_nodes_is_bounded() {
    let mut world = tree(8, 0.0);
    for dead in UPPER {
        world.crash(dead);
    }
    world.sent.clear();
    let lookups = 3 * PENDING_LOOKUPS_PER_SOURCE;
    for at in 0..lookups {
        let eid = format!("10.{}.{}.1", 32 + at / 250, at % 250);
        world.look_for(&eid, ITRS[0], RESOLVERS[0]);
    }
    world.run(seconds(3));
    let pending = world.server(RESOLVERS[0]).referrals_view(world.now).pending.len();
    assert_eq!(pending, PENDING_LOOKUPS_PER_SOURCE);
    // Others are served meanwhile: what does not need the dead nodes.
    world.look_for("172.16.0.1", ITRS[1], RESOLVERS[0]);
    world.run(seconds(57));
    assert!(world.answers().pop().unwrap().is_some());
    let from_resolver = world.sent.iter().filter(|sent| sent.from.ip() == ip(RESOLVERS[0])).count();
    let per_lookup = 3 * MAX_REFERRAL_RLOCS;
    assert!(from_resolver < lookups * per_lookup, "{from_resolver} packets");
    assert_nothing_pending(&world);
}
