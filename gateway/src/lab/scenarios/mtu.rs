//! Packet sizes around what a path carries, as several scenarios try them (RFC 9300 §7.1).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::wire;
use crate::lab::addresses::Site;
use crate::lab::capture::Capture;
use crate::lab::decode::Datagram;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{Answer, ping};
use crate::lab::probe::tcp;
use crate::lab::report::Checks;
use crate::lab::session::Lab;

const LIMIT: Duration = Duration::from_secs(1);
/// Octets of a TCP transfer in each direction.
pub(crate) const TRANSFER: usize = 10_000_000;
/// A jumbo frame's worth of octets, the MTU of the sites' links.
const JUMBO: usize = 9000;
/// Octets of an IPv4 header without options.
const IPV4_HEADER: usize = 20;

/// Two sites over a core that carries packets of 1500 octets; each test takes the next address of the far host,
/// because the sending host remembers a path MTU per destination.
pub(crate) struct SizedPath<'a> {
    /// The lab.
    pub(crate) lab: &'a Lab,
    /// The sending site.
    pub(crate) from: &'a Site,
    /// The receiving site.
    pub(crate) to: &'a Site,
    /// The core between them.
    pub(crate) core: &'a Capture,
    /// Largest inner packet that fits.
    pub(crate) fits: usize,
}

impl SizedPath<'_> {
    /// Inner IPv6: what fits passes, one octet more, 1500 and 9000 are answered by Packet Too Big; TCP copes.
    pub(crate) fn ipv6(&self, checks: &mut Checks) -> io::Result<()> {
        let fits = self.fits;
        self.passes(checks, 1280, (self.from.host6(0), self.to.host6(1)))?;
        self.passes(checks, fits, (self.from.host6(0), self.to.host6(1)))?;
        self.too_big(checks, fits + 1, (self.from.host6(0), self.to.host6(1)))?;
        self.too_big(checks, 1500, (self.from.host6(0), self.to.host6(2)))?;
        self.too_big(checks, JUMBO, (self.from.host6(0), self.to.host6(6)))?;
        self.transfer(checks, (self.from.host6(0), self.to.host6(0)))
    }

    /// Inner IPv4: the same with DF; without DF, 1500 octets travel as two halves
    /// and 9000 as fragments that fit.
    pub(crate) fn ipv4(&self, checks: &mut Checks) -> io::Result<()> {
        let fits = self.fits;
        self.passes(checks, 1280, (self.from.host4(0), self.to.host4(1)))?;
        self.passes(checks, fits, (self.from.host4(0), self.to.host4(1)))?;
        self.too_big(checks, fits + 1, (self.from.host4(0), self.to.host4(1)))?;
        self.too_big(checks, 1500, (self.from.host4(0), self.to.host4(2)))?;
        self.too_big(checks, JUMBO, (self.from.host4(0), self.to.host4(6)))?;
        self.halves(checks, (self.from.host4(3), self.to.host4(3)))?;
        self.many_fragments(checks, (self.from.host4(7), self.to.host4(7)))?;
        self.transfer(checks, (self.from.host4(0), self.to.host4(0)))
    }

    fn passes(
        &self,
        checks: &mut Checks,
        length: usize,
        (source, destination): (IpAddr, IpAddr),
    ) -> io::Result<()> {
        let answer = self.ping(Header::new(source, destination), length)?;
        let text = format!("IPv{} of {length} octets, not to be fragmented", version(source));
        checks.that(text, "reply", answer, answer.is_reply());
        Ok(())
    }

    fn too_big(
        &self,
        checks: &mut Checks,
        length: usize,
        (source, destination): (IpAddr, IpAddr),
    ) -> io::Result<()> {
        let expected = Answer::TooBig(self.fits as u32);
        let answer = self.ping(Header::new(source, destination), length)?;
        let text = format!("IPv{} of {length} octets, not to be fragmented", version(source));
        checks.equal(text, expected, answer);
        Ok(())
    }

    fn halves(
        &self,
        checks: &mut Checks,
        (source, destination): (IpAddr, IpAddr),
    ) -> io::Result<()> {
        let mark = self.core.mark();
        let header = Header { dont_fragment: false, ..Header::new(source, destination) };
        let answer = self.ping(header, 1500)?;
        checks.that(
            "IPv4 of 1500 octets that may be fragmented, there and back",
            "reply",
            answer,
            answer.is_reply(),
        );
        let packets = self.core.datagrams_since(mark);
        let all = wire::encapsulated(&packets, self.from.rloc, self.to.rloc);
        let fragments = wire::carrying(&all, source, destination);
        let sizes: Vec<_> =
            fragments.iter().map(|(_, lisp)| lisp.inner.length.to_string()).collect();
        let inner: Vec<&Datagram> = fragments.iter().map(|(_, lisp)| &*lisp.inner).collect();
        checks.that(
            "it travels as two encapsulated fragments of about equal size",
            "2 of about 760 octets",
            if sizes.is_empty() { "none seen".to_owned() } else { sizes.join(" + ") },
            are_halves(&inner, 1500),
        );
        let ports = fragments.iter().filter_map(|(outer, _)| outer.udp()).map(|u| u.source_port);
        let ports = wire::distinct(ports);
        let same = fragments.len() == 2 && !ports.contains(',');
        checks.that("both with the same outer source port", "one port", ports, same);
        Ok(())
    }

    /// MT-05: where two halves would not fit, as many fragments as are needed.
    fn many_fragments(
        &self,
        checks: &mut Checks,
        (source, destination): (IpAddr, IpAddr),
    ) -> io::Result<()> {
        let mark = self.core.mark();
        let header = Header { dont_fragment: false, ..Header::new(source, destination) };
        let answer = self.ping(header, JUMBO)?;
        let text = format!("IPv4 of {JUMBO} octets that may be fragmented, there and back");
        checks.that(text, "reply", answer, answer.is_reply());
        let packets = self.core.datagrams_since(mark);
        let all = wire::encapsulated(&packets, self.from.rloc, self.to.rloc);
        let fragments = wire::carrying(&all, source, destination);
        let largest = fragments.iter().map(|(outer, _)| outer.length).max().unwrap_or(0);
        checks.that(
            "its fragments fit the core",
            "7 or more, at most 1500 octets each",
            format!("{}, at most {largest} octets each", fragments.len()),
            fragments.len() >= 7 && largest <= 1500,
        );
        Ok(())
    }

    fn transfer(
        &self,
        checks: &mut Checks,
        (source, destination): (IpAddr, IpAddr),
    ) -> io::Result<()> {
        let client = (self.lab.host(self.from), source);
        let server = (self.lab.host(self.to), destination);
        transfer(checks, client, server)
    }

    fn ping(&self, header: Header, length: usize) -> io::Result<Answer> {
        ping(self.lab.host(self.from), header, length, LIMIT)
    }
}

/// A TCP transfer both ways as an acceptance.
pub(crate) fn transfer(
    checks: &mut Checks,
    client: (&crate::lab::namespace::Namespace, IpAddr),
    server: (&crate::lab::namespace::Namespace, IpAddr),
) -> io::Result<()> {
    let text = format!("TCP over IPv{}, 10 MB each way, every octet compared", version(client.1));
    match tcp::transfer(client, server, TRANSFER) {
        Ok(transfer) => checks.that(text, "complete", transfer, true),
        Err(error) => checks.that(text, "complete", error, false),
    }
    Ok(())
}

fn version(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// Whether two fragments make up a packet of `whole` octets, cut at the multiple of 8 next to its middle.
fn are_halves(fragments: &[&Datagram], whole: usize) -> bool {
    let [first, second] = fragments else { return false };
    let (first_load, second_load) = (first.length - IPV4_HEADER, second.length - IPV4_HEADER);
    first.more_fragments
        && first.fragment_offset == 0
        && !second.more_fragments
        && usize::from(second.fragment_offset) == first_load
        && first_load + second_load == whole - IPV4_HEADER
        && first_load.abs_diff(second_load) <= 16
}
