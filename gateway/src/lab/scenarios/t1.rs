//! T1: traffic engineering by priority and weight towards a site with several locators.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::wire;
use crate::lab::addresses::{M_POLICIES, SITE_A, m_host, m_rlocs};
use crate::lab::decode::Datagram;
use crate::lab::link;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{lost, ping};
use crate::lab::probe::udp::{EchoServer, flows};
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str =
    "inbound traffic of site M by priority and weight, and around a dead locator";

const FLOWS: u16 = 1000;
/// Site A probes every 500 ms (and up to a tenth more): three probes and the time to answer the last are 2.1 s.
const DETECTION: Duration = Duration::from_secs(3);
const RETURN: Duration = Duration::from_secs(5);
const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// One ping of the series that measures an outage.
const TICK: Duration = Duration::from_millis(50);
/// The locator-sets that share load, and the one with a primary and a backup.
const SHARING: [usize; 3] = [0, 1, 2];
const PRIMARY_BACKUP: usize = 3;
/// Flows of a fair choice stray this many standard deviations once in 16 000 times.
const SIGMAS: f64 = 4.0;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    SHARING.iter().try_for_each(|&policy| shares(lab, checks, policy))?;
    primary_and_backup(lab, checks)
}

fn shares(lab: &Lab, checks: &mut Checks, policy: usize) -> io::Result<()> {
    let weights: Vec<f64> =
        M_POLICIES[policy].iter().map(|&(_, weight)| f64::from(weight)).collect();
    let named = |list: Vec<String>| list.join("/");
    let name = named(weights.iter().map(ToString::to_string).collect());
    let chosen = locators_of_flows(lab, checks, policy, &format!("weights {name}"), FLOWS)?;
    let unstable = chosen.values().filter(|locators| locators.len() > 1).count();
    checks.equal(format!("weights {name}: flows that changed their locator"), 0, unstable);

    let total: f64 = weights.iter().sum();
    let count = chosen.len().max(1) as f64;
    let (mut expected, mut observed, mut fair) = (Vec::new(), Vec::new(), true);
    for (rloc, weight) in m_rlocs(policy).iter().zip(&weights) {
        let share = weight / total;
        let seen = chosen.values().filter(|locators| locators.first() == Some(rloc)).count() as f64;
        let deviation = (share * (1.0 - share) / count).sqrt();
        fair &= (seen / count - share).abs() <= SIGMAS * deviation;
        expected.push(format!("{:.1}", share * 100.0));
        observed.push(format!("{:.1}", seen / count * 100.0));
    }
    let expected = format!("{} %", named(expected));
    let text = format!("weights {name}: shares of 1000 flows, {expected} within 4 sigma");
    checks.that(text, expected, format!("{} %", named(observed)), fair);
    Ok(())
}

/// Which locators each of many new flows went to.
fn locators_of_flows(
    lab: &Lab,
    checks: &mut Checks,
    policy: usize,
    name: &str,
    count: u16,
) -> io::Result<BTreeMap<u16, BTreeSet<IpAddr>>> {
    let core = &lab.captures.core4;
    let server = EchoServer::start(&lab.topology.site_m.host, m_host(policy))?;
    let mark = core.mark();
    let lost = flows(lab.host(SITE_A), SITE_A.host6(0), server.address(), (count, 2, 64))?;
    checks.equal(format!("{name}: lost of {} UDP echoes", 2 * count), 0, lost);
    let mut chosen: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for packet in core.datagrams_since(mark) {
        let inner = packet.lisp().map(|lisp| lisp.inner.flow());
        if let Some((_, _, port, destination, _)) = inner
            && destination == m_host(policy)
        {
            chosen.entry(port).or_default().insert(packet.destination);
        }
    }
    Ok(chosen)
}

fn primary_and_backup(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let rlocs = m_rlocs(PRIMARY_BACKUP);
    let (primary, backup) = (rlocs[0], rlocs[1]);
    let chosen = locators_of_flows(lab, checks, PRIMARY_BACKUP, "priorities 1 and 2", 100)?;
    let used = wire::distinct(chosen.values().flatten());
    checks.equal("priorities 1 and 2: locators in use", primary.to_string(), used);

    let IpAddr::V4(address) = primary else { return Ok(()) };
    let header = Header::new(SITE_A.host6(0), m_host(PRIMARY_BACKUP));
    let first = ping(lab.host(SITE_A), header, 100, FIRST_LIMIT)?;
    checks.that("ping through the primary", "reply", first, first.is_reply());
    link::blackhole(&lab.topology.core4, address, None)?;
    let begin = Instant::now();
    let mut back = false;
    while !back && begin.elapsed() < DETECTION {
        back = ping(lab.host(SITE_A), header, 100, TICK)?.is_reply();
    }
    let outage = begin.elapsed().as_millis();
    checks.that(
        "the core silently drops what goes to the primary: outage",
        format!("at most {} ms", DETECTION.as_millis()),
        if back { format!("{outage} ms") } else { "still out".to_owned() },
        back,
    );
    let mark = lab.captures.core4.mark();
    let missing = lost(lab.host(SITE_A), header, 100, 5)?;
    let through = locators_used(&lab.captures.core4.datagrams_since(mark), &header);
    checks.equal("lost of 5 pings afterwards", 0, missing);
    checks.equal("they go through the backup", backup.to_string(), through);

    link::blackhole(&lab.topology.core4, address, Some(lab.topology.site_m.xtr.name()))?;
    returns(lab, checks, &header, primary)
}

/// The primary comes back: traffic returns to it and nothing is lost on the way.
fn returns(lab: &Lab, checks: &mut Checks, header: &Header, primary: IpAddr) -> io::Result<()> {
    let begin = Instant::now();
    let (mut missing, mut through) = (0, String::new());
    while through != primary.to_string() && begin.elapsed() < RETURN {
        let mark = lab.captures.core4.mark();
        missing += lost(lab.host(SITE_A), *header, 100, 1)?;
        through = locators_used(&lab.captures.core4.datagrams_since(mark), header);
    }
    let text = format!("the primary is back: locator in use within {} s", RETURN.as_secs());
    checks.equal(text, primary.to_string(), through);
    checks.equal("pings lost meanwhile", 0, missing);
    Ok(())
}

fn locators_used(packets: &[Datagram], header: &Header) -> String {
    let carries = |packet: &&Datagram| {
        packet.lisp().is_some_and(|lisp| lisp.inner.destination == header.destination)
    };
    wire::distinct(packets.iter().filter(carries).map(|packet| packet.destination))
}
