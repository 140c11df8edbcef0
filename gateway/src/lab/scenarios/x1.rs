//! X1: two sites whose providers have no address family in common, through a re-encapsulating router.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::{mtu, wire};
use crate::lab::addresses::{PXTR4, PXTR6, SITE_A, SITE_B, SITE_C};
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{Answer, lost, ping};
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str =
    "site A (IPv4 provider) <-> site C6 (IPv6 provider), re-encapsulated";

const FIRST_LIMIT: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1);
const PINGS: usize = 10;
/// Octet of the IPv6 header that a router may change: the hop limit.
const HOP_LIMIT: usize = 7;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    both_sides(lab, checks)?;
    let v4 = Header::new(SITE_A.host4(0), SITE_C.host4(0));
    let answer = ping(lab.host(SITE_A), v4, 100, FIRST_LIMIT)?;
    checks.that("the same with IPv4 EIDs", "reply", answer, answer.is_reply());
    let wide = Header::new(SITE_A.host6(0), SITE_C.host6(1));
    let answer = ping(lab.host(SITE_A), wide, 1464, LIMIT)?;
    checks.equal("1464 octets: fit the first core only", Answer::TooBig(1444), answer);
    let client = (lab.host(SITE_A), SITE_A.host6(0));
    mtu::transfer(checks, client, (lab.host(SITE_C), SITE_C.host6(0)))?;
    without_petr(lab, checks)
}

fn both_sides(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (core4, core6) = (&lab.captures.core4, &lab.captures.core6);
    let to_host = lab.host_capture(SITE_C);
    let header = Header::new(SITE_A.host6(0), SITE_C.host6(0));
    let (mark4, mark6, host_mark) = (core4.mark(), core6.mark(), to_host.mark());
    let first = ping(lab.host(SITE_A), header, 100, FIRST_LIMIT)?;
    checks.that("the very first ping, mapping unknown", "reply", first, first.is_reply());
    checks.equal("lost of 10 more pings", 0, lost(lab.host(SITE_A), header, 100, PINGS)?);

    let (packets4, packets6) = (core4.datagrams_since(mark4), core6.datagrams_since(mark6));
    let probes = |packets, from: IpAddr, to: IpAddr| {
        let all = wire::encapsulated(packets, from, to);
        wire::carrying(&all, header.source, header.destination)
    };
    let (left, right) =
        (probes(&packets4, SITE_A.rloc, PXTR4), probes(&packets6, PXTR6, SITE_C.rloc));
    let text = format!("left: IPv6 in IPv4, {} -> {PXTR4}", SITE_A.rloc);
    checks.equal(text, PINGS + 1, left.len());
    let text = format!("right: IPv6 in IPv6, {PXTR6} -> {}", SITE_C.rloc);
    checks.equal(text, PINGS + 1, right.len());
    let same = left.iter().zip(&right).filter(|((_, left), (_, right))| {
        without_hop_limit(&left.octets) == without_hop_limit(&right.octets)
    });
    checks.equal("inner packets equal octet for octet but the hop limit", PINGS + 1, same.count());
    let hop_limits = wire::distinct(left.iter().map(|(outer, _)| outer.hop_limit));
    checks.equal("outer hop limit, left", "63".into(), hop_limits);
    // The core's router makes 62 of it, the re-encapsulating router one less (EN-32).
    let hop_limits = wire::distinct(right.iter().map(|(outer, _)| outer.hop_limit));
    checks.equal("outer hop limit, right: the received one less 1", "61".into(), hop_limits);
    let arrived = to_host.datagrams_since(host_mark);
    let arrived =
        arrived.iter().filter(|p| p.source == header.source && p.destination == header.destination);
    let hop_limits = wire::distinct(arrived.map(|packet| packet.hop_limit));
    // After 61: the IPv6 core 60, xTR-C 59.
    checks.equal(
        "hop limit at the far host (three LISP routers, two cores)",
        "59".into(),
        hop_limits,
    );
    Ok(())
}

/// An xTR without use-petr cannot help it, but has to say so.
fn without_petr(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let xtr_b = lab.daemons.named("xtr-b")?;
    let before = xtr_b.drops("no_common_rloc_family")?;
    let header = Header::new(SITE_B.host6(0), SITE_C.host6(0));
    let answer = ping(lab.host(SITE_B), header, 100, LIMIT)?;
    checks.that(
        "site B, no PETR configured: ping to site C6",
        "no reply",
        answer,
        !answer.is_reply(),
    );
    lab.wait_for(LIMIT, || Ok(xtr_b.drops("no_common_rloc_family")? > before))?;
    let dropped = xtr_b.drops("no_common_rloc_family")? - before;
    checks.equal("and counted as no_common_rloc_family", 1, dropped);
    Ok(())
}

fn without_hop_limit(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet.iter_mut().skip(HOP_LIMIT).take(1).for_each(|octet| *octet = 0);
    packet
}
