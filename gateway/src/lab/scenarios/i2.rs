//! I2: an IPv4 site behind an IPv6-only provider and a host on the IPv4 Internet.

use std::io;
use std::time::Duration;

use super::{mtu, wire};
use crate::lab::addresses::{HOST_N4, PXTR6, SITE_C};
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{Answer, lost, ping};
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str =
    "IPv4 site C6 <-> a host on the IPv4 Internet, through PETR and PITR";

const FIRST_LIMIT: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1);
const PINGS: usize = 20;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (core, internet) = (&lab.captures.core6, &lab.captures.internet);
    let (host, host_n) = (lab.host(SITE_C), &lab.topology.host_n);
    let header = Header::new(SITE_C.host4(0), HOST_N4);
    let (mark, native_mark) = (core.mark(), internet.mark());

    let first = ping(host, header, 100, FIRST_LIMIT)?;
    checks.that("the very first ping, destination not LISP", "reply", first, first.is_reply());
    checks.equal("lost of 20 more pings", 0, lost(host, header, 100, PINGS)?);

    let frames = core.since(mark);
    let packets = wire::datagrams(&frames);
    checks.equal("native IPv4 frames in the core", 0, wire::native_frames(&frames, false));
    let out = wire::encapsulated(&packets, SITE_C.rloc, PXTR6);
    let out = wire::carrying(&out, header.source, header.destination);
    let text = format!("left of the PETR: IPv4 in IPv6, {} -> {PXTR6}", SITE_C.rloc);
    checks.equal(text, PINGS + 1, out.len());
    let native = internet.datagrams_since(native_mark);
    let right: Vec<_> = native
        .iter()
        .filter(|p| p.source == header.source && p.destination == header.destination)
        .collect();
    checks.equal("right of the PETR: plain IPv4, source not translated", PINGS + 1, right.len());
    let ttls = wire::distinct(right.iter().map(|packet| packet.hop_limit));
    checks.equal("TTL 64 of the host, right of the PETR", "61".into(), ttls);
    let back = wire::encapsulated(&packets, PXTR6, SITE_C.rloc);
    let back = wire::carrying(&back, header.destination, header.source);
    let text = format!("left of the PITR: IPv4 in IPv6, {PXTR6} -> {}", SITE_C.rloc);
    checks.equal(text, PINGS + 1, back.len());

    let answer = ping(host_n, Header::new(HOST_N4, SITE_C.host4(1)), 1500, LIMIT)?;
    checks.equal("IPv4 of 1500 octets with DF from host N", Answer::TooBig(1444), answer);
    mtu::transfer(checks, (host, header.source), (host_n, HOST_N4))
}
