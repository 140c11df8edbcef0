//! M1: paths of every size, with the core's ICMP and without.
//!
//! ```text
//!   host-a -9000- xtr-a -9000- core4 -MTU- xtr-b -9000- host-b      and the same from site C6 to D6 through core6, at the same time
//! ```
//! What is too large for the second link vanishes in the core: with ICMP blocked, only a path probe can find that out.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use mapping::admin::Query;
use serde_json::Value;

use super::mtu::TRANSFER;
use super::wire;
use crate::lab::addresses::{SITE_A, SITE_B, SITE_C, SITE_D, Site};
use crate::lab::capture::Capture;
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::ping;
use crate::lab::probe::tcp::transfer_with;
use crate::lab::report::Checks;
use crate::lab::session::Lab;
use crate::lab::topology::{CORE_MTU, TO_CORE4, TO_CORE6};

/// In one line.
pub(crate) const TITLE: &str =
    "core MTUs of 9000, 1500, 1400 and 1280, ICMP blocked and allowed, both cores";

/// The sites' links to the core where nothing is to be learned.
const JUMBO: u32 = 9000;
/// The least of all.
const LEAST: u32 = 1280;
/// Downward: a path MTU that was learned holds for ten minutes.
const SMALLER: [u32; 3] = [1500, 1400, LEAST];
const LIMIT: Duration = Duration::from_secs(3);
/// How long a path may stall until its size is found out: RFC 8899 wants three probes, a second apart, before it is doubted.
const STALL: Duration = Duration::from_secs(20);

/// One core and two sites at it.
struct Path<'a> {
    lab: &'a Lab,
    name: &'static str,
    core: &'a Namespace,
    capture: &'a Capture,
    link: &'static str,
    from: &'a Site,
    to: &'a Site,
    /// Inner IPv6 over the IPv4 core, inner IPv4 over the IPv6 core.
    host: fn(&Site, u8) -> IpAddr,
}

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let paths = [
        Path {
            lab,
            name: "core4",
            core: &lab.topology.core4,
            capture: &lab.captures.core4,
            link: TO_CORE4,
            from: SITE_A,
            to: SITE_B,
            host: Site::host6,
        },
        Path {
            lab,
            name: "core6",
            core: &lab.topology.core6,
            capture: &lab.captures.core6,
            link: TO_CORE6,
            from: SITE_C,
            to: SITE_D,
            host: Site::host4,
        },
    ];
    for path in &paths {
        path.ping(checks)?;
        path.near(JUMBO)?;
        path.far(JUMBO)?;
        path.silence(true)?;
    }
    jumbo(&paths, checks, "ICMP blocked", 8)?;
    for (number, mtu) in SMALLER.into_iter().enumerate() {
        both(&paths, |path| path.far(mtu))?;
        if number > 0 {
            // The first time the transfer begins while nobody knows yet.
            found_out(&paths, checks, mtu)?;
        }
        transfers(&paths, checks, &format!("{mtu}, ICMP blocked"), 8)?;
    }
    for path in &paths {
        path.silence(false)?;
        path.far(JUMBO)?;
        // Who starts anew knows nothing of the path.
        path.restart()?;
        path.ping(checks)?;
    }
    jumbo(&paths, checks, "ICMP allowed", 9)?;
    for mtu in SMALLER {
        both(&paths, |path| path.far(mtu))?;
        transfers(&paths, checks, &format!("{mtu}, ICMP allowed"), 9)?;
    }
    for path in &paths {
        path.far(JUMBO)?;
        path.restart()?;
        path.ping(checks)?;
        let text = format!(
            "{}: the path MTU, started anew beside a kernel that remembers {LEAST}",
            path.name
        );
        checks.equal(text, JUMBO, path.knows(JUMBO)?);
    }
    for path in &paths {
        path.near(CORE_MTU)?;
        path.far(CORE_MTU)?;
    }
    Ok(())
}

fn jumbo(paths: &[Path<'_>], checks: &mut Checks, icmp: &str, host: u8) -> io::Result<()> {
    for path in paths {
        path.knows(JUMBO)?;
    }
    let marks: Vec<_> = paths.iter().map(|path| path.capture.mark()).collect();
    transfers(paths, checks, &format!("{JUMBO}, {icmp}"), host)?;
    for (path, mark) in paths.iter().zip(marks) {
        let packets = path.capture.datagrams_since(mark);
        let sent = wire::encapsulated(&packets, path.from.rloc, path.to.rloc);
        let largest = sent.iter().map(|(outer, _)| outer.length).max().unwrap_or(0);
        let text = format!("{}: largest packet of that", path.name);
        let fits = largest > JUMBO as usize - 100 && largest <= JUMBO as usize;
        checks.that(text, "close to 9000 octets", format!("{largest} octets"), fits);
    }
    Ok(())
}

fn transfers(paths: &[Path<'_>], checks: &mut Checks, what: &str, host: u8) -> io::Result<()> {
    let outcomes = thread::scope(|scope| {
        let running: Vec<_> =
            paths.iter().map(|path| scope.spawn(move || path.transfer(host))).collect();
        running.into_iter().map(|one| one.join()).collect::<Vec<_>>()
    });
    for (path, outcome) in paths.iter().zip(outcomes) {
        let text = format!("{} {what}: TCP, 10 MB each way, every octet compared", path.name);
        match outcome {
            Ok(Ok(done)) => checks.that(text, "complete", done, true),
            Ok(Err(error)) => checks.that(text, "complete", error, false),
            Err(_) => checks.that(text, "complete", "a panic", false),
        }
    }
    Ok(())
}

fn found_out(paths: &[Path<'_>], checks: &mut Checks, mtu: u32) -> io::Result<()> {
    for path in paths {
        let known = path.knows(mtu)?;
        let text = format!("{} {mtu}, ICMP blocked: the path MTU that was found out", path.name);
        checks.equal(text, mtu, known);
    }
    Ok(())
}

fn both(paths: &[Path<'_>], work: impl Fn(&Path<'_>) -> io::Result<()>) -> io::Result<()> {
    paths.iter().try_for_each(work)
}

impl Path<'_> {
    /// So that both routers know of each other.
    fn ping(&self, checks: &mut Checks) -> io::Result<()> {
        let header = Header::new((self.host)(self.from, 0), (self.host)(self.to, 0));
        let first = ping(self.lab.host(self.from), header, 100, LIMIT)?;
        checks.that(format!("{}: a ping first", self.name), "reply", first, first.is_reply());
        Ok(())
    }

    /// The sending site's router.
    fn restart(&self) -> io::Result<()> {
        let router = self.lab.xtr(self.from);
        let daemon = self.lab.daemons.named(router.name())?;
        self.lab.daemons.stop(daemon)?;
        self.lab.daemons.restart(daemon, router)
    }

    /// The sending site's link to the core.
    fn near(&self, mtu: u32) -> io::Result<()> {
        self.resize(self.lab.xtr(self.from), mtu)
    }

    /// The receiving site's link to the core; returns when that site's router knows it.
    fn far(&self, mtu: u32) -> io::Result<()> {
        let router = self.lab.xtr(self.to);
        self.resize(router, mtu)?;
        let fits = || Ok(self.mtu_at(router, self.from.rloc)? <= u64::from(mtu));
        self.lab.wait_for(LIMIT, fits).map(drop)
    }

    fn resize(&self, router: &Namespace, mtu: u32) -> io::Result<()> {
        link::mtu(self.core, router.name(), mtu)?;
        link::mtu(router, self.link, mtu)
    }

    /// Whether the core keeps quiet about what it discards.
    fn silence(&self, silent: bool) -> io::Result<()> {
        link::silence(self.core, self.from.rloc, silent)
    }

    /// Waits until the sending router knows this path MTU; returns what it knows.
    fn knows(&self, mtu: u32) -> io::Result<u32> {
        let router = self.lab.xtr(self.from);
        let known = || self.mtu_at(router, self.to.rloc);
        self.lab.wait_for(STALL, || Ok(known()? == u64::from(mtu)))?;
        u32::try_from(known()?).map_err(io::Error::other)
    }

    /// What the router in a namespace takes for the MTU towards a locator.
    fn mtu_at(&self, router: &Namespace, rloc: IpAddr) -> io::Result<u64> {
        let locators = self.lab.daemons.named(router.name())?.ask(&Query::Locators)?;
        let address = rloc.to_string();
        let found = locators
            .as_array()
            .and_then(|all| all.iter().find(|one| one["address"] == *address))
            .and_then(|locator| locator.get("mtu").and_then(Value::as_u64));
        found.ok_or_else(|| io::Error::other(format!("{} knows no {rloc}", router.name())))
    }

    fn transfer(&self, host: u8) -> io::Result<crate::lab::probe::tcp::Transfer> {
        let client = (self.lab.host(self.from), (self.host)(self.from, host));
        let server = (self.lab.host(self.to), (self.host)(self.to, host));
        transfer_with(client, server, TRANSFER, STALL)
    }
}
