//! The seven classic exercises: what a learner does by `EXERCISES.md`, done, and what the page says compared with what is.
//!
//! The page is the script: its blocks of commands run in order. In between, what it tells of the wire is looked for there.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::lab::capture::{Capture, ETHERTYPE_IPV6, Mark};
use crate::lab::link;
use crate::lab::network::{Network, Plan};
use crate::lab::probe::many::{self, Flows};
use crate::lab::report::Checks;
use crate::lab::walk::Walk;

use super::wire;

mod plan;

use plan::{HOSTS, P, PXTR, Q, Q6, XTR_1, XTR_1_6};

pub(crate) use plan::PLANS;

/// The walk-through.
const PAGE: &str = include_str!("../../../EXERCISES.md");
/// In one line each.
pub(crate) const TITLES: [&str; 7] = [
    "exercise 1: the parts of a LISP network, and proxy services",
    "exercise 2: IPv4 sites",
    "exercise 3: IPv6 sites over an IPv4 core",
    "exercise 4: a site and the IPv4 Internet that knows nothing of LISP",
    "exercise 5: a site and the IPv6 Internet, over an IPv4 core",
    "exercise 6: a site with two providers, both IPv4",
    "exercise 7: a site with an IPv4 and an IPv6 provider",
];
/// Packets of `ping -c 3`, the count of most steps.
const PINGS: usize = 3;
const FLOWS: u16 = 1_000;
/// Packets in a second.
const RATE: u32 = 4_000;
/// Octets of a packet, IP header included.
const LENGTH: usize = 200;
/// What 4 standard deviations of 1000 flows are, in percentage points.
const POINTS: f64 = 6.5;
/// The routing protocol number of the routes that this product owns.
const OWN_ROUTES: u8 = 204;

/// What an exercise does.
type Exercise = fn(&mut Network, &mut Checks) -> io::Result<()>;

/// What is run as each of them.
pub(crate) const RUNS: [Exercise; 7] =
    [parts, ipv4_sites, ipv6_sites, native_ipv4, native_ipv6, two_ipv4, both_families];

/// Its network, too.
pub(crate) const fn plan(number: usize) -> &'static Plan {
    &PLANS[number - 1]
}

/// The pieces that an exercise looks at.
struct Bed<'a> {
    network: &'a Network,
    core: Arc<Capture>,
    walk: Walk<'a>,
}

impl<'a> Bed<'a> {
    fn of(network: &'a Network, number: usize) -> io::Result<Self> {
        let heading = format!("## {number}. ");
        Ok(Self {
            network,
            core: network.capture_of("core")?,
            walk: Walk::of(network, &HOSTS, PAGE, &heading),
        })
    }

    /// Packets in the core from one RLOC to another that carry something between two hosts, since `mark`.
    fn carried(&self, mark: Mark, (from, to): (IpAddr, IpAddr), hosts: (IpAddr, IpAddr)) -> usize {
        let packets = self.core.datagrams_since(mark);
        wire::carrying(&wire::encapsulated(&packets, from, to), hosts.0, hosts.1).len()
    }

    /// Packets in the core that no LISP router sent, since `mark`.
    fn native(&self, mark: Mark) -> usize {
        let packets = self.core.datagrams_since(mark);
        let own = HOSTS.iter().flat_map(|(_, addresses)| addresses);
        let own: Vec<&IpAddr> = own.collect();
        packets.iter().filter(|packet| own.contains(&&packet.source)).count()
    }

    /// Percent of the flows from host 1 to host 2 that take each of `locators`.
    fn shares(
        &self,
        family: usize,
        first_port: u16,
        locators: [IpAddr; 2],
    ) -> io::Result<[f64; 2]> {
        let flows = Flows {
            source: HOSTS[0].1[family],
            destination: HOSTS[1].1[family],
            first_port,
            count: FLOWS,
            length: LENGTH,
        };
        let mark = self.core.mark();
        let (from, to) = (self.network.namespace("host-1")?, self.network.namespace("host-2")?);
        flows.send(&from, &to, (1, RATE))?;
        let seen = many::locators(&self.core.datagrams_since(mark), &flows);
        let of = |locator: IpAddr| {
            let count = seen.values().filter(|taken| taken.contains(&locator)).count();
            100.0 * count as f64 / seen.len().max(1) as f64
        };
        Ok(locators.map(of))
    }

    fn shared(
        &self,
        checks: &mut Checks,
        (family, first_port): (usize, u16),
        locators: [IpAddr; 2],
        wanted: [f64; 2],
    ) -> io::Result<()> {
        let seen = self.shares(family, first_port, locators)?;
        let good = seen.iter().zip(wanted).all(|(seen, wanted)| (seen - wanted).abs() <= POINTS);
        let text = format!("shares of {FLOWS} flows: {} and {}", locators[0], locators[1]);
        let [p, q] = wanted;
        let expected = format!("{p} % and {q} %, within {POINTS} points");
        checks.that(text, expected, format!("{:.1} % and {:.1} %", seen[0], seen[1]), good);
        Ok(())
    }
}

/// The addresses of hosts 1, 2 and N in a family: 0 IPv4, 1 IPv6.
fn hosts(family: usize) -> [IpAddr; 3] {
    [0, 1, 2].map(|host: usize| HOSTS[host].1[family])
}

fn parts(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network, 1)?;
    bed.walk.steps(checks, 4)?;
    let mut routes: Vec<_> =
        link::routes_of_protocol(&*bed.network.namespace("pxtr")?, OWN_ROUTES)?
            .iter()
            .map(ToString::to_string)
            .collect();
    routes.sort();
    let expected = "2001:db8:e000::/36, 203.0.113.0/24".to_owned();
    checks.equal("routes of protocol 204 in pxtr", expected, routes.join(", "));
    bed.walk.steps(checks, 3)?;
    bed.walk.end(checks);
    Ok(())
}

/// Exercises 2 and 3 differ in the family of the hosts only.
fn sites(bed: &mut Bed<'_>, checks: &mut Checks, family: usize) -> io::Result<()> {
    let [host_1, host_2, _] = hosts(family);
    bed.walk.steps(checks, 1)?;
    let mark = bed.core.mark();
    bed.walk.steps(checks, 1)?;
    let asked = wire::map_requests(&bed.core.datagrams_since(mark), XTR_1, host_2);
    checks.equal("Map-Requests of xtr-1 for host 2", 1, asked);
    let there = bed.carried(mark, (XTR_1, P), (host_1, host_2));
    checks.equal(format!("requests in the core, {XTR_1} -> {P}"), PINGS, there);
    let back = bed.carried(mark, (P, XTR_1), (host_2, host_1));
    checks.equal(format!("replies in the core, {P} -> {XTR_1}"), PINGS, back);
    checks.equal("packets of the hosts that were not encapsulated", 0, bed.native(mark));
    Ok(())
}

fn ipv4_sites(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network, 2)?;
    sites(&mut bed, checks, 0)?;
    bed.walk.steps(checks, 3)?;
    let mark = bed.core.mark();
    bed.walk.steps(checks, 1)?;
    let asked = wire::map_requests(&bed.core.datagrams_since(mark), XTR_1, HOSTS[1].1[0]);
    checks.equal("Map-Requests of xtr-1 after the map-cache was cleared", 1, asked);
    bed.walk.steps(checks, 1)?;
    bed.walk.end(checks);
    Ok(())
}

fn ipv6_sites(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network, 3)?;
    let mark = bed.core.mark();
    sites(&mut bed, checks, 1)?;
    let frames = bed.core.since(mark);
    let native = frames.iter().filter(|frame| {
        frame.ethertype == ETHERTYPE_IPV6
            && frame.datagram.as_ref().is_some_and(|packet| packet.udp().is_some())
    });
    checks.equal("LISP packets of IPv6 in the core", 0, native.count());
    bed.walk.steps(checks, 3)?;
    bed.walk.end(checks);
    Ok(())
}

/// Exercises 4 and 5 differ in the family of the hosts only.
fn native(bed: &mut Bed<'_>, checks: &mut Checks, family: usize) -> io::Result<()> {
    let [host_1, _, host_n] = hosts(family);
    let mark = bed.core.mark();
    let at_n = bed.network.capture_of("host-n")?;
    let mark_n = at_n.mark();
    bed.walk.steps(checks, 1)?;
    let out = bed.carried(mark, (XTR_1, PXTR), (host_1, host_n));
    checks.equal(format!("requests in the core, {XTR_1} -> {PXTR}"), PINGS, out);
    let back = bed.carried(mark, (PXTR, XTR_1), (host_n, host_1));
    checks.equal(format!("replies in the core, {PXTR} -> {XTR_1}"), PINGS, back);
    let arrived = at_n.datagrams_since(mark_n);
    let arrived = arrived.iter().filter(|packet| packet.source == host_1).count();
    checks.equal(format!("requests at host N from {host_1}, not translated"), PINGS, arrived);
    Ok(())
}

fn native_ipv4(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network, 4)?;
    native(&mut bed, checks, 0)?;
    bed.walk.steps(checks, 5)?;
    bed.walk.end(checks);
    Ok(())
}

fn native_ipv6(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network, 5)?;
    native(&mut bed, checks, 1)?;
    bed.walk.steps(checks, 4)?;
    bed.walk.end(checks);
    Ok(())
}

/// Exercises 6 and 7 differ in the family of the second provider.
fn two_providers(bed: &mut Bed<'_>, checks: &mut Checks, q: IpAddr) -> io::Result<()> {
    bed.walk.steps(checks, 2)?;
    bed.shared(checks, (0, 10_000), [P, q], [50.0, 50.0])?;
    bed.walk.steps(checks, 2)?;
    bed.shared(checks, (0, 20_000), [P, q], [75.0, 25.0])?;
    bed.walk.steps(checks, 2)?;
    bed.shared(checks, (0, 30_000), [P, q], [0.0, 100.0])
}

fn two_ipv4(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network, 6)?;
    two_providers(&mut bed, checks, Q)?;
    bed.walk.steps(checks, 3)?;
    bed.shared(checks, (0, 40_000), [P, Q], [100.0, 0.0])?;
    bed.walk.end(checks);
    Ok(())
}

fn both_families(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network, 7)?;
    let mark = bed.core.mark();
    two_providers(&mut bed, checks, Q6)?;
    let over6 = bed.core.datagrams_since(mark);
    let inner4 = wire::encapsulated(&over6, XTR_1_6, Q6);
    let inner4 = inner4.iter().filter(|(_, lisp)| lisp.inner.source.is_ipv4()).count();
    checks.that("IPv4 packets in IPv6 packets", "some", inner4, inner4 > 0);
    bed.shared(checks, (1, 10_000), [P, Q6], [0.0, 100.0])?;
    bed.walk.steps(checks, 2)?;
    bed.walk.end(checks);
    Ok(())
}
