//! I1: IPv4 islands over an IPv6 core.

use std::io;
use std::time::Duration;

use super::mtu::SizedPath;
use super::wire;
use crate::lab::addresses::{SITE_C, SITE_D};
use crate::lab::decode::Datagram;
use crate::lab::offload;
use crate::lab::probe::craft::{self, Header};
use crate::lab::probe::ping::{lost, ping};
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str = "IPv4 site C6 <-> IPv4 site D6 over the IPv6 core";

/// Core MTU 1500 less 40 + 8 + 8 octets of encapsulation.
const FITS: usize = 1444;
const FIRST_LIMIT: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1);
const PINGS: usize = 20;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    addresses_and_headers(lab, checks)?;
    zero_checksum(lab, checks)?;
    let path = SizedPath { lab, from: SITE_C, to: SITE_D, core: &lab.captures.core6, fits: FITS };
    path.ipv4(checks)
}

fn addresses_and_headers(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (core, to_host) = (&lab.captures.core6, lab.host_capture(SITE_D));
    let (source, destination) = (SITE_C.host4(0), SITE_D.host4(0));
    let header = Header::new(source, destination);
    let (mark, host_mark) = (core.mark(), to_host.mark());

    let first = ping(lab.host(SITE_C), header, 100, FIRST_LIMIT)?;
    checks.that("the very first ping, mapping unknown", "reply", first, first.is_reply());
    checks.equal("lost of 20 more pings", 0, lost(lab.host(SITE_C), header, 100, PINGS)?);

    let frames = core.since(mark);
    let packets = wire::datagrams(&frames);
    checks.equal("native IPv4 frames in the core", 0, wire::native_frames(&frames, false));
    checks.equal("packets in the core that are not LISP", 0, wire::strangers(&packets));
    let all = wire::encapsulated(&packets, SITE_C.rloc, SITE_D.rloc);
    let requests = wire::carrying(&all, source, destination);
    let text = format!("IPv4 in IPv6/UDP/4341, {} -> {}", SITE_C.rloc, SITE_D.rloc);
    checks.equal(text, PINGS + 1, requests.len());
    let hop_limits = wire::distinct(requests.iter().map(|(outer, _)| outer.hop_limit));
    checks.equal("TTL 64 of the host, outer hop limit: a copy", "63".into(), hop_limits);
    let arrived = to_host.datagrams_since(host_mark);
    let arrived = arrived.iter().filter(|p| p.source == source && p.destination == destination);
    let ttls = wire::distinct(arrived.map(|packet| packet.hop_limit));
    checks.equal("TTL at the far host (two xTRs and one core router)", "61".into(), ttls);
    let unsummed = requests.iter().filter_map(|(outer, _)| outer.udp());
    let unsummed = unsummed.filter(|udp| udp.checksum == 0).count();
    checks.equal("UDP checksums of zero sent (configured: computed)", 0, unsummed);
    if offload::can_compute_checksums() {
        checks.equal("outer UDP checksums that are wrong", 0, wire::wrong_checksums(&all));
    }
    Ok(())
}

/// RFC 6935, RFC 6936: an ETR takes LISP data over IPv6 without a UDP checksum.
fn zero_checksum(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let to_host = lab.host_capture(SITE_D);
    let mark = to_host.mark();
    let probe = Header::new(SITE_C.host4(4), SITE_D.host4(4));
    let inner = craft::echo_request(&probe, 0x4c42, 1, 100);
    let packet = craft::lisp(&Header::new(SITE_C.rloc, SITE_D.rloc), 50_000, &inner, false);
    craft::send(&lab.topology.core6, packet, SITE_D.rloc)?;
    let is_probe = |p: &Datagram| p.source == probe.source && p.destination == probe.destination;
    let frames = to_host.wait(mark, LIMIT, |frames| wire::datagrams(frames).iter().any(is_probe));
    let arrived = wire::datagrams(&frames).iter().filter(|packet| is_probe(packet)).count();
    checks.equal("a packet with UDP checksum zero is accepted", 1, arrived);
    Ok(())
}
