//! Each role by Isthmus or by another implementation, four family combinations: data both ways.
//!
//! Every test prints the rows of the table that it has seen; `README.md` says where the other implementations come from.

use std::thread;
use std::time::{Duration, Instant};

use interop_tests::matrix::network::Network;
use interop_tests::matrix::plan::{Family, Plan, Role};
use interop_tests::matrix::{Cell, conclude, exchange};
use interop_tests::peers::Program::{self, Isthmus, LispersNet, Oor, Vpp};
use interop_tests::site::or_skip;
use ipnet::IpNet;
use mapping::admin::Query;
use mapping::wire::{EidField, Message};

const ONE: Role = Role::Site(1);
const TWO: Role = Role::Site(2);
/// More than two of OOR's probe periods of 30 s, and more than the 45 s after which it takes a silent PETR for down.
const PROBE_PERIODS: Duration = Duration::from_secs(75);
/// How long a cache may take to follow: OOR says that it moved 4 s later.
const FOLLOWING: Duration = Duration::from_secs(30);

/// The network, if everybody who plays is there.
fn network(plan: Plan) -> Option<Network> {
    let there = plan.roles().into_iter().all(|(_, program)| program.or_skip());
    there.then(|| or_skip(Network::bring_up(plan))).flatten()
}

fn plan(core: Family, mapping: Program, sites: [Program; 2]) -> Plan {
    Plan { core, mapping, sites: sites.map(Some), proxy: None, mover: None, embellished: false }
}

/// Both inner families between the hosts of two roles.
fn both_families(network: &Network, ends: (Role, Role)) {
    let cell = |inner| exchange(network, ends, inner).expect("a network that works");
    conclude(Family::BOTH.map(cell), network);
}

fn sites(core: Family, mapping: Program, xtrs: [Program; 2]) {
    let Some(network) = network(plan(core, mapping, xtrs)) else { return };
    both_families(&network, (ONE, TWO));
}

/// A site and a host that knows nothing of LISP, for so long that whoever probes its PETR has done so twice.
fn non_lisp(core: Family, mapping: Program, site: Program, proxy: Program) {
    let sites = [Some(site), None];
    let plan = Plan { sites, proxy: Some(proxy), ..plan(core, mapping, [site, site]) };
    let Some(mut network) = network(plan) else { return };
    let mark = network.core().mark();
    both_families(&network, (ONE, Role::Proxy));
    let mut cell =
        Cell::new(&network, format!("site 1 and non-LISP host over {core} for {PROBE_PERIODS:?}"));
    let (begin, mut sent, mut lost) = (Instant::now(), 0, 0);
    while begin.elapsed() < PROBE_PERIODS {
        for inner in Family::BOTH.into_iter().filter(|&inner| plan.limitation(inner).is_none()) {
            let ends = [ONE, Role::Proxy].map(|role| network.host(role, inner).expect("a host"));
            let answers = [ends[0].ping(&ends[1]), ends[1].ping(&ends[0])];
            lost += answers.iter().filter(|answer| !matches!(answer, Ok(true))).count();
            sent += 2;
        }
        thread::sleep(Duration::from_secs(1));
    }
    cell.expect(lost == 0, format!("{lost} of {sent} pings lost"));
    let probes = default_probes(&network, mark);
    if site == Oor {
        cell.expect(probes.0 >= 4, format!("{probes:?} probes for 0/0 and ::/0"));
        cell.expect(probes.0 == probes.1, format!("{probes:?} probes for 0/0 and ::/0 answered"));
    }
    cell.seen =
        format!("{sent} pings; {} probes for 0/0 and ::/0, {} answered", probes.0, probes.1);
    cell.conclude(&network);
    both_families(&network, (ONE, Role::Proxy));
    if site == Oor {
        moves(&mut network, (ONE, Role::Proxy));
    }
}

/// RLOC-probes for 0.0.0.0/0 and ::/0, and answers to them.
fn default_probes(network: &Network, mark: interop_tests::matrix::watch::Mark) -> (usize, usize) {
    let packets = network.core().since(mark);
    let (mut asked, mut answered) = (0, 0);
    for packet in packets.iter().filter(|packet| packet.is_control()) {
        match Message::parse(&packet.payload) {
            Ok(Message::MapRequest(request)) if request.probe => {
                asked += request.records.iter().filter(|record| is_everything(&record.eid)).count();
            }
            Ok(Message::MapReply(reply)) if reply.probe => {
                answered +=
                    reply.records.iter().filter(|record| is_everything(&record.eid)).count();
            }
            _ => {}
        }
    }
    (asked, answered)
}

fn is_everything(eid: &EidField) -> bool {
    eid.prefix().is_some_and(|prefix| prefix.prefix().prefix_len() == 0)
}

/// The first role's site moves, and the second follows: its traffic, and its map-cache if it is ours.
fn moves(network: &mut Network, (mover, follower): (Role, Role)) {
    let what = format!("{mover} moves over {}, {follower} follows", network.plan().core);
    let mut cell = Cell::new(network, what);
    both_families(network, (mover, follower));
    network.relocate(mover).expect("it can move");
    let begin = Instant::now();
    for inner in Family::BOTH {
        let follows = || follows(network, (mover, follower), inner);
        while !follows() && begin.elapsed() < FOLLOWING {}
        cell.expect(follows(), format!("{inner} of {follower} does not follow"));
    }
    cell.seen = format!("followed {:.1} s later", begin.elapsed().as_secs_f32());
    cell.conclude(network);
    both_families(network, (mover, follower));
}

/// Whether a ping from `follower` to `mover` goes where the latter is now, and is answered.
fn follows(network: &Network, (mover, follower): (Role, Role), inner: Family) -> bool {
    if let Ok(daemon) = network.daemon(follower) {
        let cache = daemon.ask(&Query::MapCache).expect("a map-cache");
        let best = best_locator(&cache, &network.plan().network(mover, inner));
        if best != Some(network.rloc(mover).to_string()) {
            thread::sleep(Duration::from_millis(50));
            return false;
        }
    }
    let ends = [follower, mover].map(|role| network.host(role, inner).expect("a host"));
    let mark = network.core().mark();
    let answered = ends[0].ping(&ends[1]).expect("a network");
    let there = network.rloc(mover);
    let packets = network.core().since(mark);
    answered && packets.iter().any(|p| p.destination == there && p.inner() == Some(inner))
}

/// The locator with the best priority in the entry for `prefix`.
fn best_locator(cache: &serde_json::Value, prefix: &IpNet) -> Option<String> {
    let entry = cache.as_array()?.iter().find(|entry| entry["prefix"] == prefix.to_string())?;
    let best = entry["locators"].as_array()?.iter().min_by_key(|one| one["priority"].as_u64())?;
    Some(best["address"].as_str()?.to_owned())
}

/// A site of ours, or another, moves under the eyes of the other one.
fn site_moves(core: Family, mapping: Program, xtrs: [Program; 2]) {
    let mover = (xtrs[0] == Isthmus).then_some(ONE);
    let Some(mut network) = network(Plan { mover, ..plan(core, mapping, xtrs) }) else { return };
    moves(&mut network, (ONE, TWO));
}

/// Locators with LCAFs of every kind that the peer has, and the address that all of them are about.
fn embellished_sites(core: Family, mapping: Program, xtrs: [Program; 2]) {
    let embellished = Plan { embellished: true, ..plan(core, mapping, xtrs) };
    let Some(network) = network(embellished) else { return };
    both_families(&network, (ONE, TWO));
}

/// A test for each of the two cores.
macro_rules! over_both_cores {
    ($($name:ident($($argument:expr),*) = $test:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn over_ipv4() {
                $test(Family::V4, $($argument),*);
            }

            #[test]
            fn over_ipv6() {
                $test(Family::V6, $($argument),*);
            }
        }
    )* };
}

over_both_cores! {
    isthmus_alone(Isthmus, [Isthmus, Isthmus]) = sites;
    isthmus_moves(Isthmus, [Isthmus, Isthmus]) = site_moves;
    oor_site(Isthmus, [Oor, Isthmus]) = sites;
    oor_map_server(Oor, [Isthmus, Isthmus]) = sites;
    oor_site_and_map_server(Oor, [Oor, Isthmus]) = sites;
    oor_sites(Isthmus, [Oor, Oor]) = sites;
    oor_site_and_non_lisp(Isthmus, Oor, Isthmus) = non_lisp;
    oor_moves(Isthmus, [Oor, Isthmus]) = site_moves;
    isthmus_moves_away_from_oor(Isthmus, [Isthmus, Oor]) = site_moves;
    lispers_site(Isthmus, [LispersNet, Isthmus]) = sites;
    lispers_site_with_everything(Isthmus, [LispersNet, Isthmus]) = embellished_sites;
    lispers_map_server(LispersNet, [Isthmus, Isthmus]) = sites;
    lispers_site_and_map_server(LispersNet, [LispersNet, Isthmus]) = sites;
    lispers_site_and_non_lisp(Isthmus, LispersNet, Isthmus) = non_lisp;
    lispers_proxy(Isthmus, Isthmus, LispersNet) = non_lisp;
    vpp_site(Isthmus, [Vpp, Isthmus]) = sites;
}
