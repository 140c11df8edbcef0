//! S2: an IPv6 site behind an IPv4 provider and a host on the IPv6 Internet that knows nothing of LISP.

use std::io;
use std::time::Duration;

use super::{mtu, wire};
use crate::lab::addresses::{
    CORE4, CORE6, EID_AGGREGATES, HOST_N6, PXTR4, PXTR6, SITE_A, SITE_B, host,
};
use crate::lab::decode::Datagram;
use crate::lab::link;
use crate::lab::probe::craft::{self, Header};
use crate::lab::probe::ping::{Answer, lost, ping};
use crate::lab::probe::udp::{EchoServer, flows};
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str = "IPv6 site A <-> a host on the IPv6 Internet, through PETR and PITR";

const FIRST_LIMIT: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1);
const PINGS: usize = 20;
/// UDP flows of two echoes each.
const FLOWS: u16 = 100;
/// The routing protocol number of the routes this product owns.
const PROTOCOL: u8 = 204;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    paths(lab, checks)?;
    announcement(lab, checks)?;
    abuse(lab, checks)?;
    from_the_core(lab, checks)
}

fn paths(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (core, internet, host_n) =
        (&lab.captures.core4, &lab.captures.internet, &lab.captures.host_n);
    let pxtr = lab.daemons.named("pxtr")?;
    let host_a = lab.host(SITE_A);
    let header = Header::new(SITE_A.host6(0), HOST_N6);
    let (encap_before, decap_before) = (pxtr.counter("pitr_encap")?, pxtr.counter("petr_decap")?);
    let (mark, native_mark, n_mark) = (core.mark(), internet.mark(), host_n.mark());

    let first = ping(host_a, header, 100, FIRST_LIMIT)?;
    checks.that("the very first ping, destination not LISP", "reply", first, first.is_reply());
    checks.equal("lost of 20 more pings", 0, lost(host_a, header, 100, PINGS)?);

    let packets = core.datagrams_since(mark);
    let out = wire::encapsulated(&packets, SITE_A.rloc, PXTR4);
    let out = wire::carrying(&out, header.source, header.destination);
    let text = format!("left of the PETR: IPv6 in IPv4, {} -> {PXTR4}", SITE_A.rloc);
    checks.equal(text, PINGS + 1, out.len());
    let native = internet.datagrams_since(native_mark);
    let between = |packets: &[Datagram], source, destination| {
        let matching =
            packets.iter().filter(|p| p.source == source && p.destination == destination);
        matching.cloned().collect::<Vec<_>>()
    };
    let right = between(&native, header.source, header.destination);
    checks.equal("right of the PETR: plain IPv6, source not translated", PINGS + 1, right.len());
    // 64, xTR-A: 63, core: 62, the PETR's kernel: 61.
    let hop_limits = wire::distinct(right.iter().map(|packet| packet.hop_limit));
    checks.equal("hop limit 64 of the host, right of the PETR", "61".into(), hop_limits);
    let arrived = between(&host_n.datagrams_since(n_mark), header.source, header.destination);
    checks.equal("requests at host N", PINGS + 1, arrived.len());
    let returned = between(&native, header.destination, header.source);
    checks.equal("replies come back to the PITR as plain IPv6", PINGS + 1, returned.len());
    let back = wire::encapsulated(&packets, PXTR4, SITE_A.rloc);
    let back = wire::carrying(&back, header.destination, header.source);
    let text = format!("left of the PITR: IPv6 in IPv4, {PXTR4} -> {}", SITE_A.rloc);
    checks.equal(text, PINGS + 1, back.len());

    let server = EchoServer::start(&lab.topology.host_n, HOST_N6)?;
    let missing = flows(host_a, header.source, server.address(), (FLOWS, 2, 64))?;
    checks.equal("lost of 200 UDP echoes", 0, missing);
    let packets = core.datagrams_since(mark);
    let seen = wire::encapsulated(&packets, PXTR4, SITE_A.rloc).len() as u64;
    lab.wait_for(LIMIT, || Ok(pxtr.counter("pitr_encap")? - encap_before >= seen))?;
    let counted = pxtr.counter("pitr_encap")? - encap_before;
    checks.equal("counter pitr_encap equals the packets captured", seen, counted);
    let seen = wire::encapsulated(&packets, SITE_A.rloc, PXTR4).len() as u64;
    let counted = pxtr.counter("petr_decap")? - decap_before;
    checks.equal("counter petr_decap equals the packets captured", seen, counted);

    let answer = ping(&lab.topology.host_n, Header::new(HOST_N6, SITE_A.host6(1)), 1500, LIMIT)?;
    checks.equal("IPv6 of 1500 octets from host N", Answer::TooBig(1464), answer);
    mtu::transfer(checks, (host_a, header.source), (&lab.topology.host_n, HOST_N6))?;
    Ok(())
}

/// What a BGP daemon beside the gateway would find to announce.
fn announcement(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let mut routes: Vec<_> = link::routes_of_protocol(&lab.topology.pxtr, PROTOCOL)?
        .iter()
        .map(ToString::to_string)
        .collect();
    routes.sort();
    let mut expected = EID_AGGREGATES.map(String::from).to_vec();
    expected.sort();
    checks.equal(
        "routes of protocol 204: the aggregates and no site's prefix",
        expected.join(", "),
        routes.join(", "),
    );
    Ok(())
}

fn abuse(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let pxtr = lab.daemons.named("pxtr")?;
    let internet = &lab.captures.internet;
    let mark = internet.mark();

    let before = pxtr.drops("petr_source_not_accepted")?;
    let forged = Header::new("2001:db8:bad::1".parse().map_err(io::Error::other)?, HOST_N6);
    let inner = craft::echo_request(&forged, 0x4c42, 1, 100);
    let packet = craft::lisp(&Header::new(SITE_A.rloc, PXTR4), 50_000, &inner, true);
    craft::send(&lab.topology.core4, packet, PXTR4)?;
    lab.wait_for(LIMIT, || Ok(pxtr.drops("petr_source_not_accepted")? > before))?;
    let dropped = pxtr.drops("petr_source_not_accepted")? - before;
    checks.equal("PETR: a source that is no EID is dropped and counted", 1, dropped);
    let native = internet.datagrams_since(mark);
    let leaked = native.iter().filter(|packet| packet.source == forged.source).count();
    checks.equal("and seen on the native side", 0, leaked);

    let before = pxtr.drops("petr_rloc_not_accepted")?;
    let stranger = Header::new("192.88.99.1".parse().map_err(io::Error::other)?, PXTR4);
    let inner = craft::echo_request(&Header::new(SITE_A.host6(0), HOST_N6), 0x4c42, 1, 100);
    craft::send(&lab.topology.core4, craft::lisp(&stranger, 50_000, &inner, true), PXTR4)?;
    lab.wait_for(LIMIT, || Ok(pxtr.drops("petr_rloc_not_accepted")? > before))?;
    let dropped = pxtr.drops("petr_rloc_not_accepted")? - before;
    checks.equal("PETR: an RLOC of no site is dropped and counted", 1, dropped);

    let before = pxtr.drops("petr_rloc_not_of_site")?;
    let neighbour = Header::new(SITE_B.rloc, PXTR4);
    craft::send(&lab.topology.core4, craft::lisp(&neighbour, 50_000, &inner, true), PXTR4)?;
    lab.wait_for(LIMIT, || Ok(pxtr.drops("petr_rloc_not_of_site")? > before))?;
    let dropped = pxtr.drops("petr_rloc_not_of_site")? - before;
    checks.equal("PETR: an EID from the RLOC of another site is dropped and counted", 1, dropped);

    let before = pxtr.drops("source_in_aggregate")?;
    let spoofed = Header::new(SITE_A.host6(0), SITE_B.host6(0));
    let packet = craft::echo_request(&spoofed, 0x4c42, 1, 100);
    craft::send(&lab.topology.internet, packet, spoofed.destination)?;
    lab.wait_for(LIMIT, || Ok(pxtr.drops("source_in_aggregate")? > before))?;
    let dropped = pxtr.drops("source_in_aggregate")? - before;
    checks.equal("PITR: an EID as native source is dropped and counted", 1, dropped);
    Ok(())
}

/// Native packets for an EID out of the cores: the gateway's interfaces there hold RLOCs and are no native side (PI-07).
fn from_the_core(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let pxtr = lab.daemons.named("pxtr")?;
    let (core4, core6) = (&lab.captures.core4, &lab.captures.core6);
    let host_mark = lab.host_capture(SITE_A).mark();
    let (mark4, mark6) = (core4.mark(), core6.mark());
    let before = pxtr.counter("pitr_encap")?;
    let cores = [
        (&lab.topology.core4, PXTR4, Header::new(CORE4, SITE_A.host4(7)), Answer::Error(3, 1)),
        (&lab.topology.core6, PXTR6, Header::new(CORE6, SITE_A.host6(7)), Answer::Error(1, 0)),
    ];
    for (core, gateway, header, expected) in cores {
        let (eid, link) = (host(header.destination), lab.topology.pxtr.name());
        link::route(core, eid, Some(gateway), link)?;
        let answer = ping(core, header, 100, LIMIT);
        link::unroute(core, eid, Some(gateway), link)?;
        let text = format!("PITR: a native ping from {} to an EID", core.name());
        checks.equal(text, expected, answer?);
    }
    let encapsulated = pxtr.counter("pitr_encap")? - before;
    checks.equal("packets from the cores that the PITR encapsulated", 0, encapsulated);
    let packets = [core4.datagrams_since(mark4), core6.datagrams_since(mark6)].concat();
    let eids = [SITE_A.host4(7), SITE_A.host6(7)];
    let carried = packets.iter().filter_map(Datagram::lisp);
    let carried = carried.filter(|lisp| eids.contains(&lisp.inner.destination)).count();
    let asked: usize = eids
        .iter()
        .flat_map(|&eid| [PXTR4, PXTR6].map(|own| wire::map_requests(&packets, own, eid)))
        .sum();
    checks.equal("LISP data and Map-Requests for it in the cores", 0, carried + asked);
    let arrived = lab.host_capture(SITE_A).datagrams_since(host_mark);
    let arrived = arrived.iter().filter(|packet| eids.contains(&packet.destination)).count();
    checks.equal("and at the site's host", 0, arrived);
    Ok(())
}
