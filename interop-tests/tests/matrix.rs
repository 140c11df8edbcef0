//! Each role by Isthmus or by another implementation, four family combinations: data both ways.
//!
//! Every test prints the rows of the table that it has seen; `README.md` says where the other implementations come from.

use std::thread;
use std::time::{Duration, Instant};

use interop_tests::matrix::network::Network;
use interop_tests::matrix::plan::{Family, Lispers, Plan, Role};
use interop_tests::matrix::watch::{Mark, Packet};
use interop_tests::matrix::{Cell, conclude, exchange};
use interop_tests::peers::Program::{self, Isthmus, LispersNet, Oor, Vpp};
use interop_tests::site::or_skip;
use ipnet::IpNet;
use mapping::admin::Query;
use mapping::wire::{EidField, Message, Tolerance};

const ONE: Role = Role::Site(1);
const TWO: Role = Role::Site(2);
/// More than two of OOR's probe periods of 30 s, and more than the 45 s after which it takes a silent PETR for down.
const PROBE_PERIODS: Duration = Duration::from_secs(75);
/// How long a cache may take to follow: OOR says that it moved 4 s later.
const FOLLOWING: Duration = Duration::from_secs(30);

/// How long lispers.net may take to register for the first time.
const ENCRYPTED: Duration = Duration::from_secs(75);

/// The network, if everybody who plays is there.
fn network(plan: Plan) -> Option<Network> {
    let there = plan.roles().into_iter().all(|(_, program)| program.or_skip());
    there.then(|| or_skip(Network::bring_up(plan))).flatten()
}

fn plan(core: Family, mapping: Program, sites: [Program; 2]) -> Plan {
    Plan {
        core,
        mapping,
        sites: sites.map(Some),
        proxy: None,
        mover: None,
        lispers: Lispers::Plain,
    }
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
fn default_probes(network: &Network, mark: Mark) -> (usize, usize) {
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

/// Locators in an AFI list with what the peer can add to them.
fn embellished_sites(core: Family, mapping: Program, xtrs: [Program; 2], lispers: Lispers) {
    let embellished = Plan { lispers, ..plan(core, mapping, xtrs) };
    let Some(network) = network(embellished) else { return };
    both_families(&network, (ONE, TWO));
}

/// Map-Registers that our Map-Server cannot read: it says why, and serves the others.
fn encrypted_site(core: Family, mapping: Program, xtrs: [Program; 2]) {
    let encrypted = Plan { lispers: Lispers::Encrypted, ..plan(core, mapping, xtrs) };
    let Some(network) = network(encrypted) else { return };
    let mut cell = Cell::new(&network, format!("site 1 encrypts its Map-Registers over {core}"));
    let server = network.daemon(Role::Mapping).expect("ours");
    let refused = || {
        let drops = server.ask(&Query::Drops).expect("drops");
        let drops = drops.as_array().map(Vec::as_slice).unwrap_or_default().to_vec();
        drops.into_iter().find(|drop| drop["reason"] == "register_encrypted")
    };
    let mark = network.core().mark();
    let begin = Instant::now();
    while refused().is_none() && begin.elapsed() < ENCRYPTED {
        thread::sleep(Duration::from_millis(100));
    }
    let packets = network.core().since(mark);
    if refused().is_none() && !packets.iter().any(|p| p.source == network.rloc(ONE)) {
        cell.limitation =
            Some("lispers.net 0.607 fails where it encrypts, with any Python, and sends nothing");
    }
    cell.seen = refused().map_or_else(String::new, |drop| drop["count"].to_string() + " refused");
    cell.expect(refused().is_some(), "no register_encrypted in show drops");
    let told = server.log().contains("encryption-key");
    cell.expect(told, "the log does not say what to do");
    let registrations = server.ask(&Query::Registrations).expect("registrations");
    let count = registrations.as_array().map_or(0, Vec::len);
    cell.expect(count == 2, format!("{count} registrations, not those of site 2 alone"));
    cell.conclude(&network);
}

/// Sites of two other makes, which nothing but ours brings together: with each other, and with who knows nothing of LISP.
fn foreign_sites(core: Family, mapping: Program, xtrs: [Program; 2]) {
    let plan = Plan { proxy: Some(Isthmus), ..plan(core, mapping, xtrs) };
    let Some(network) = network(plan) else { return };
    for ends in [(ONE, TWO), (ONE, Role::Proxy), (TWO, Role::Proxy)] {
        both_families(&network, ends);
    }
}

/// Our site moves, and the peer goes on as before whatever our SMR makes it ask: no packet is lost by that.
fn ignored_solicitation(core: Family, mapping: Program, xtrs: [Program; 2]) {
    let Some(mut network) = network(Plan { mover: Some(ONE), ..plan(core, mapping, xtrs) }) else {
        return;
    };
    let mut cell = Cell::new(&network, format!("our site moves over {core}"));
    both_families(&network, (ONE, TWO));
    let mark = network.core().mark();
    network.relocate(ONE).expect("it can move");
    let begin = Instant::now();
    let (mut lost, mut sent, mut followed) = (0, 0, None);
    while begin.elapsed() < FOLLOWING {
        for inner in Family::BOTH.into_iter().filter(|&i| network.plan().limitation(i).is_none()) {
            let ends = [ONE, TWO].map(|role| network.host(role, inner).expect("a host"));
            let mark = network.core().mark();
            let answers = [ends[0].ping(&ends[1]), ends[1].ping(&ends[0])];
            lost += answers.iter().filter(|answer| !matches!(answer, Ok(true))).count();
            sent += answers.len();
            let there = network.rloc(ONE);
            let packets = network.core().since(mark);
            if packets.iter().any(|p| p.destination == there && p.inner().is_some()) {
                followed.get_or_insert(begin.elapsed());
            }
        }
        thread::sleep(Duration::from_millis(500));
    }
    let packets = network.core().since(mark);
    let to_peer = |p: &&Packet| p.is_control() && p.destination == network.rloc(TWO);
    let solicited = packets.iter().filter(to_peer).filter(|p| is_smr(&p.payload)).count();
    let asked = packets.iter().filter(|p| p.source == network.rloc(TWO)).filter(|p| is_lookup(p));
    let asked = asked.count();
    cell.expect(solicited > 0, "no SMR sent");
    cell.expect(lost == 0, format!("{lost} of {sent} pings lost"));
    let follows = followed.map_or_else(
        || "its packets still go to the old RLOC".to_owned(),
        |after| format!("its first packet to the new RLOC {:.1} s later", after.as_secs_f32()),
    );
    cell.seen = format!(
        "{solicited} SMRs, {asked} Map-Requests for it within {FOLLOWING:?}, {follows}; {sent} pings"
    );
    cell.conclude(&network);
}

fn is_smr(payload: &[u8]) -> bool {
    matches!(Message::parse(payload), Ok(Message::MapRequest(request)) if request.smr)
}

/// A Map-Request to the Map-Resolver.
fn is_lookup(packet: &Packet) -> bool {
    let tolerance = Tolerance::LISPERS_NET;
    packet.is_control()
        && matches!(Message::parse_with(&packet.payload, tolerance), Ok(Message::Encapsulated(_)))
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
    lispers_site_with_names(Isthmus, [LispersNet, Isthmus], Lispers::Named) = embellished_sites;
    lispers_site_with_telemetry(Isthmus, [LispersNet, Isthmus], Lispers::Telemetry) = embellished_sites;
    lispers_site_that_encrypts(Isthmus, [LispersNet, Isthmus]) = encrypted_site;
    isthmus_moves_away_from_lispers(Isthmus, [Isthmus, LispersNet]) = ignored_solicitation;
    oor_and_lispers(Isthmus, [Oor, LispersNet]) = foreign_sites;
    lispers_map_server_of_oor(LispersNet, [Oor, Isthmus]) = sites;
    lispers_map_server(LispersNet, [Isthmus, Isthmus]) = sites;
    lispers_site_and_map_server(LispersNet, [LispersNet, Isthmus]) = sites;
    lispers_site_and_non_lisp(Isthmus, LispersNet, Isthmus) = non_lisp;
    lispers_proxy(Isthmus, Isthmus, LispersNet) = non_lisp;
    vpp_site(Isthmus, [Vpp, Isthmus]) = sites;
    vpp_sites(Isthmus, [Vpp, Vpp]) = sites;
    vpp_and_oor(Isthmus, [Vpp, Oor]) = sites;
    vpp_and_lispers(Isthmus, [Vpp, LispersNet]) = sites;
    vpp_site_and_non_lisp(Isthmus, Vpp, Isthmus) = non_lisp;
    vpp_proxy(Isthmus, Isthmus, Vpp) = non_lisp;
    isthmus_moves_away_from_vpp(Isthmus, [Isthmus, Vpp]) = ignored_solicitation;
}
