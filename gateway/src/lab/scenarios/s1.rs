//! S1: IPv6 (and IPv4) between two sites over an IPv4 core.

use std::io;
use std::time::Duration;

use super::mtu::SizedPath;
use super::wire::{self, PortSpread};
use crate::lab::addresses::{SITE_A, SITE_B};
use crate::lab::decode::Datagram;
use crate::lab::offload;
use crate::lab::probe::craft::{self, Header};
use crate::lab::probe::ping::{lost, ping};
use crate::lab::probe::udp::{EchoServer, flows};
use crate::lab::report::Checks;
use crate::lab::session::Lab;
use crate::lab::statistics::evenness;

/// In one line.
pub(crate) const TITLE: &str = "IPv6 site A <-> IPv6 site B over the IPv4 core";

/// Core MTU 1500 less 20 + 8 + 8 octets of encapsulation.
const FITS: usize = 1464;
const FIRST_LIMIT: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1);
/// DSCP Expedited Forwarding.
const EF: u8 = 46;
const ECT_0: u8 = 2;
const CE: u8 = 3;
const PINGS: usize = 20;
const FLOWS: u16 = 1000;
/// The source-port pool's default size.
const PORTS: usize = 64;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    addresses_and_headers(lab, checks)?;
    congestion_experienced(lab, checks)?;
    source_ports(lab, checks)?;
    let path = SizedPath { lab, from: SITE_A, to: SITE_B, core: &lab.captures.core4, fits: FITS };
    path.ipv6(checks)?;
    path.ipv4(checks)
}

fn addresses_and_headers(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let core = &lab.captures.core4;
    let (from_host, to_host) = (lab.host(SITE_A), lab.host_capture(SITE_B));
    let (source, destination) = (SITE_A.host6(0), SITE_B.host6(0));
    let header = Header { traffic_class: EF << 2 | ECT_0, ..Header::new(source, destination) };
    let (mark, host_mark) = (core.mark(), to_host.mark());

    let first = ping(from_host, header, 100, FIRST_LIMIT)?;
    checks.that("the very first ping, mapping unknown", "reply", first, first.is_reply());
    checks.equal("lost of 20 more pings", 0, lost(from_host, header, 100, PINGS)?);
    let v4 = Header::new(SITE_A.host4(0), SITE_B.host4(0));
    let first = ping(from_host, v4, 100, FIRST_LIMIT)?;
    checks.that("the very first ping of IPv4 EIDs", "reply", first, first.is_reply());

    let frames = core.since(mark);
    let packets = wire::datagrams(&frames);
    checks.equal("native IPv6 frames in the core", 0, wire::native_frames(&frames, true));
    checks.equal("packets in the core that are not LISP", 0, wire::strangers(&packets));
    let all = wire::encapsulated(&packets, SITE_A.rloc, SITE_B.rloc);
    let requests = wire::carrying(&all, source, destination);
    let text = format!("IPv6 in IPv4/UDP/4341, {} -> {}", SITE_A.rloc, SITE_B.rloc);
    checks.equal(text, PINGS + 1, requests.len());
    let replies = wire::encapsulated(&packets, SITE_B.rloc, SITE_A.rloc);
    let replies = wire::carrying(&replies, destination, source);
    checks.equal("and the replies the other way", PINGS + 1, replies.len());

    let asked = wire::map_requests(&packets, SITE_A.rloc, destination);
    checks.equal("Map-Requests of site A for the destination", 1, asked);

    let inner = wire::distinct(requests.iter().map(|(_, lisp)| lisp.inner.hop_limit));
    checks.equal("hop limit 64 of the host, inner on the wire", "63".into(), inner);
    let outer = wire::distinct(requests.iter().map(|(outer, _)| outer.hop_limit));
    checks.equal("hop limit, outer: a copy of the inner one", "63".into(), outer);
    let arrived = arrivals(&to_host.datagrams_since(host_mark), &header);
    // 64, xTR-A forwards: 63, the core forwards the outer packet: 62, which xTR-B copies inward and forwards: 61.
    let hop_limits = wire::distinct(arrived.iter().map(|packet| packet.hop_limit));
    checks.equal(
        "hop limit at the far host (two xTRs and one core router)",
        "61".into(),
        hop_limits,
    );

    let dscp = wire::distinct(requests.iter().map(|(outer, _)| outer.dscp()));
    checks.equal("DSCP EF, outer", EF.to_string(), dscp);
    let dscp = wire::distinct(arrived.iter().map(Datagram::dscp));
    checks.equal("DSCP EF, at the far host", EF.to_string(), dscp);
    let ecn = wire::distinct(requests.iter().map(|(outer, _)| outer.ecn()));
    checks.equal("ECN ECT(0), outer", ECT_0.to_string(), ecn);
    let fragmentable = requests.iter().filter(|(outer, _)| !outer.dont_fragment).count();
    checks.equal("outer packets without DF", 0, fragmentable);
    if offload::can_compute_checksums() {
        checks.equal("outer UDP checksums that are wrong", 0, wire::wrong_checksums(&all));
    }
    let flags = requests.iter().filter(|(_, lisp)| lisp.flags != 0 || lisp.instance_id != 0);
    checks.equal("LISP headers with a flag or an Instance ID", 0, flags.count());
    Ok(())
}

/// What arrived at a host for one of the lab's probes.
fn arrivals(packets: &[Datagram], probe: &Header) -> Vec<Datagram> {
    packets
        .iter()
        .filter(|p| p.source == probe.source && p.destination == probe.destination)
        .cloned()
        .collect()
}

/// A congested core router is played by packets that enter the core already marked.
fn congestion_experienced(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let to_host = lab.host_capture(SITE_B);
    let xtr_b = lab.daemons.named("xtr-b")?;
    let outer = Header { traffic_class: CE, ..Header::new(SITE_A.rloc, SITE_B.rloc) };
    let send = |traffic_class: u8, destination: u8| {
        let probe =
            Header { traffic_class, ..Header::new(SITE_A.host6(4), SITE_B.host6(destination)) };
        let inner = craft::echo_request(&probe, 0x4c42, 1, 100);
        let packet = craft::lisp(&outer, 50_000, &inner, true);
        craft::send(&lab.topology.core4, packet, SITE_B.rloc).map(|()| probe)
    };

    let mark = to_host.mark();
    let probe = send(ECT_0, 4)?;
    let arrived_for = |probe: Header| {
        let frames = to_host
            .wait(mark, LIMIT, |frames| !arrivals(&wire::datagrams(frames), &probe).is_empty());
        arrivals(&wire::datagrams(&frames), &probe)
    };
    let ecn = wire::distinct(arrived_for(probe).iter().map(Datagram::ecn));
    checks.equal("outer CE over inner ECT(0): ECN at the far host", CE.to_string(), ecn);

    let before = xtr_b.drops("ecn_not_ect_ce")?;
    let probe = send(0, 5)?;
    let grown = lab.wait_for(LIMIT, || Ok(xtr_b.drops("ecn_not_ect_ce")? > before))?;
    let dropped = xtr_b.drops("ecn_not_ect_ce")? - before;
    checks.that(
        "outer CE over inner Not-ECT: dropped and counted",
        1,
        dropped,
        grown && dropped == 1,
    );
    let arrived = arrivals(&to_host.datagrams_since(mark), &probe).len();
    checks.equal("outer CE over inner Not-ECT: arrived at the far host", 0, arrived);
    Ok(())
}

fn source_ports(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (lost, spread) = sample_flows(lab)?;
    checks.equal("lost of 2000 UDP echoes on 1000 flows", 0, lost);
    checks.equal("flows seen in the core", usize::from(FLOWS), spread.flows);
    checks.equal("flows whose outer source port changed", 0, spread.unstable);
    let ports = spread.flows_per_port.len();
    checks.that("outer source ports in use", format!(">= {PORTS}"), ports, ports >= PORTS);
    let (mut observed, mut even) = judge_spread(&spread);
    if !even {
        // One sample in a hundred fails by chance. An uneven choice of ports fails with other flows too.
        let (again, even_again) = judge_spread(&sample_flows(lab)?.1);
        observed = format!("{observed}; other flows: {again}");
        even = even_again;
    }
    checks.that("they are used evenly (chi-square test)", "p > 0.01", observed, even);
    Ok(())
}

/// Sends UDP on many flows, to a new port each time this is called; returns the echoes lost and what the core saw.
fn sample_flows(lab: &Lab) -> io::Result<(usize, PortSpread)> {
    let core = &lab.captures.core4;
    let server = EchoServer::start(lab.host(SITE_B), SITE_B.host6(0))?;
    let mark = core.mark();
    let lost = flows(lab.host(SITE_A), SITE_A.host6(0), server.address(), (FLOWS, 2, 64))?;
    let packets = core.datagrams_since(mark);
    let spread = wire::port_spread(&wire::encapsulated(&packets, SITE_A.rloc, SITE_B.rloc));
    Ok((lost, spread))
}

fn judge_spread(spread: &PortSpread) -> (String, bool) {
    match evenness(&spread.flows_per_port) {
        Some(evenness) => (
            format!("chi-square {:.1}, p = {:.3}", evenness.chi_square, evenness.probability),
            evenness.probability > 0.01,
        ),
        None => ("too few ports to tell".to_owned(), false),
    }
}
