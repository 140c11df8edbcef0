//! Two sites whose headers say versions, Locator-Status-Bits and nonces, and somebody outside of the core who would like to
//! (RFC 9302, RFC 9300 §10).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use mapping::eid::{InstanceId, MapVersion};
use xtr::marks::{HeaderMarks, Tag};
use xtr::packet::lisp;
use xtr::view::MapCacheEntryView;

use crate::lab::capture::{Capture, Mark};
use crate::lab::daemons::Daemon;
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::network::{Access, Network, Plan, wait_for};
use crate::lab::probe::craft::{self, Header};
use crate::lab::probe::ping::{lost, ping};
use crate::lab::report::Checks;
use crate::lab::topology::SITE_LINK;

/// In one line.
pub(crate) const TITLE: &str =
    "what headers say of mappings and paths, in a core where it is believed";

/// The network.
pub(crate) static PLAN: Plan = Plan { name: "trusted-core", drawing: DRAWING, build };

const DRAWING: &str = r"
     host-a 2001:db8:e001::10                         host-b 2001:db8:e002::10
        |                                                |
      xtr-a  198.51.100.11 (core0)                     xtr-b  198.51.100.21
        |    198.51.100.12 (core1)                       |
     ===+================== core ========================+======== ms 198.51.100.2
                              |
                           outside  203.0.113.66: no RLOC of the trusted core
";

const CORE: IpAddr = v4(198, 51, 100, 254);
const CORE6: IpAddr = v6(0xc0, 0x254);
const MS: IpAddr = v4(198, 51, 100, 2);
const A: [IpAddr; 2] = [v4(198, 51, 100, 11), v4(198, 51, 100, 12)];
const B: IpAddr = v4(198, 51, 100, 21);
const OUTSIDE: IpAddr = v4(203, 0, 113, 66);
const HOST_A: IpAddr = v6(0xe001, 0x10);
const HOST_B: IpAddr = v6(0xe002, 0x10);
/// The versions that the sites' mappings begin with.
const VERSION_A: u16 = 7;
const VERSION_B: u16 = 70;

const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// An RLOC is solicited once in three seconds.
const LIMIT: Duration = Duration::from_secs(4);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(site: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host))
}

fn build(network: &mut Network) -> io::Result<()> {
    let core = network.core("core", CORE, CORE6)?;
    let ms = network.node("ms")?;
    network.access(&core, &ms, Access::of(&ms, "core0", &[MS]))?;
    let (xtr_a, xtr_b) = (network.router("xtr-a")?, network.router("xtr-b")?);
    network.access(&core, &xtr_a, Access { at_core: "a-0", at_router: "core0", rlocs: &A[..1] })?;
    network.access(&core, &xtr_a, Access { at_core: "a-1", at_router: "core1", rlocs: &A[1..] })?;
    network.access(&core, &xtr_b, Access::of(&xtr_b, "core0", &[B]))?;
    let outside = network.node("outside")?;
    network.access(&core, &outside, Access::of(&outside, "core0", &[OUTSIDE]))?;
    let (host_a, host_b) = (network.node("host-a")?, network.node("host-b")?);
    network.site(&xtr_a, &host_a, &[(v6(0xe001, 1), HOST_A, 64)])?;
    network.site(&xtr_b, &host_b, &[(v6(0xe002, 1), HOST_B, 64)])?;
    let keys = [network.key("a")?, network.key("b")?];
    let ms = network.daemon("mapping", &ms, &map_server(&keys))?;
    network.daemon("xtr", &xtr_a, &xtr("xtr-a", &keys[0], &A, ("e001", VERSION_A)))?;
    network.daemon("xtr", &xtr_b, &xtr("xtr-b", &keys[1], &[B], ("e002", VERSION_B)))?;
    network.wait_for_registrations(&ms, 2)?;
    network.capture(core.namespace(), true)?;
    Ok(())
}

fn map_server([a, b]: &[String; 2]) -> String {
    let site = |name: &str, key: &str, eids: &str| {
        format!(
            "\n[[site]]\nname = \"{name}\"\nkeys = [{{ id = 1, file = \"{key}\" }}]\neid-prefixes = [\"2001:db8:{eids}::/48\"]\n"
        )
    };
    let sites = [site("a", a, "e001"), site("b", b, "e002")].concat();
    format!("[mapping]\nname = \"ms\"\nlisten = [\"{MS}\"]\n{sites}")
}

fn xtr(name: &str, key: &str, rlocs: &[IpAddr], (eids, version): (&str, u16)) -> String {
    let rlocs: Vec<_> = rlocs
        .iter()
        .zip(0..)
        .map(|(rloc, n)| format!("r{n} = {{ address = \"{rloc}\", priority = 1, weight = 50 }}"))
        .collect();
    format!(
        "[xtr]\nname = \"{name}\"\nrlocs = {{ {} }}\n\
         map-servers = [{{ address = \"{MS}\", key-id = 1, key-file = \"{key}\" }}]\n\
         map-resolvers = [\"{MS}\"]\nproxy-reply = false\ntun = {{ queues = 1 }}\n\n\
         [[eid]]\nprefix = \"2001:db8:{eids}::/48\"\nmap-version = {version}\ninterfaces = [\"{SITE_LINK}\"]\n\n\
         [data]\ntrusted-core = {{ rlocs = [\"198.51.100.0/24\"], map-versioning = true, locator-status-bits = true, echo-nonce = true }}\n",
        rlocs.join(", ")
    )
}

/// Runs it.
pub(crate) fn run(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let bed = Bed {
        core: network.capture_of("core")?,
        routers: [network.namespace("xtr-a")?, network.namespace("xtr-b")?],
        host_a: network.namespace("host-a")?,
        outside: network.namespace("outside")?,
        xtrs: [network.daemon_in("xtr-a")?, network.daemon_in("xtr-b")?],
    };
    bed.versions(checks)?;
    bed.nonces(checks)?;
    bed.forged(checks)?;
    bed.locator_goes(checks)
}

/// The pieces that it uses.
struct Bed {
    core: Arc<Capture>,
    routers: [Arc<Namespace>; 2],
    host_a: Arc<Namespace>,
    outside: Arc<Namespace>,
    xtrs: [Arc<Daemon>; 2],
}

impl Bed {
    /// Both mappings' versions, and the source's Locator-Status-Bits, are in the headers of both directions.
    fn versions(&self, checks: &mut Checks) -> io::Result<()> {
        let there = Header::new(HOST_A, HOST_B);
        let first = ping(&self.host_a, there, 100, FIRST_LIMIT)?;
        checks.that("the first ping from A to B", "a reply", first, first.is_reply());
        let mark = self.core.mark();
        let missing = lost(&self.host_a, there, 100, 20)?;
        checks.equal("lost of 20 more", 0, missing);
        for (source, text, expected) in [
            (HOST_A, "headers from A to B", "map-version 7 to 70, locator-status-bits 0x3"),
            (HOST_B, "headers from B to A", "map-version 70 to 7, locator-status-bits 0x1"),
        ] {
            let headers: BTreeSet<String> = self
                .headers(mark, source)
                .filter(|marks| matches!(marks.tag, Tag::Versions { .. }))
                .map(|marks| marks.to_string())
                .collect();
            let seen = headers.into_iter().collect::<Vec<_>>().join(" and ");
            checks.equal(text, expected.to_owned(), seen);
        }
        Ok(())
    }

    /// The headers of the encapsulated packets from `source`.
    fn headers(&self, mark: Mark, source: IpAddr) -> impl Iterator<Item = HeaderMarks> {
        self.core.datagrams_since(mark).into_iter().filter_map(move |datagram| {
            let found = datagram.lisp()?;
            (found.inner.source == source).then(|| lisp::marks(&found.header))
        })
    }

    /// Each is asked to echo a nonce, and does.
    fn nonces(&self, checks: &mut Checks) -> io::Result<()> {
        let received = |xtr: &Daemon| xtr.counter("echo_nonces_received");
        let begin = Instant::now();
        let mut missing = 0;
        while begin.elapsed() < Duration::from_secs(10) {
            missing += lost(&self.host_a, Header::new(HOST_A, HOST_B), 100, 20)?;
            std::thread::sleep(Duration::from_millis(50));
            if received(&self.xtrs[0])? > 0 && received(&self.xtrs[1])? > 0 {
                break;
            }
        }
        for (xtr, name) in self.xtrs.iter().zip(["A", "B"]) {
            let (echoed, unanswered) = (received(xtr)?, xtr.counter("echo_nonces_missing")?);
            let text = format!("nonces echoed to {name}'s xTR, and missing");
            let observed = format!("{echoed} and {unanswered}");
            checks.that(text, "some and 0", observed, echoed > 0 && unanswered == 0);
        }
        checks.equal("pings lost meanwhile", 0, missing);
        Ok(())
    }

    /// Packets made by hand: what a router of the core is believed, nobody else is.
    fn forged(&self, checks: &mut Checks) -> io::Result<()> {
        let xtr = &self.xtrs[0];
        self.forge(B, VERSION_A + 1)?;
        let drops = || xtr.drops("map_version_newer");
        let dropped = wait_for(LIMIT, || Ok(drops()? >= 1))?;
        let text = "an impossible version of A's mapping, from the core: dropped";
        checks.that(text, 1, drops()?, dropped);
        let smrs = xtr.counter("smrs_sent")?;
        let told = wait_for(LIMIT, || {
            self.forge(B, VERSION_A - 1)?;
            Ok(xtr.counter("smrs_sent")? > smrs)
        })?;
        checks.that("an old one: an SMR is sent", "yes", if told { "yes" } else { "no" }, told);
        let before = xtr.counter("etr_decap")?;
        self.forge(OUTSIDE, VERSION_A + 1)?;
        let delivered = wait_for(LIMIT, || Ok(xtr.counter("etr_decap")? > before))?;
        let observed = if delivered { "delivered" } else { "not delivered" };
        checks.that(
            "the impossible one from outside the core: not looked at",
            "delivered",
            observed,
            delivered && drops()? == 1,
        );
        Ok(())
    }

    /// A packet of host B's for host A, from this RLOC; its header says this version of A's mapping.
    fn forge(&self, rloc: IpAddr, version: u16) -> io::Result<()> {
        let inner = craft::udp(&Header::new(HOST_B, HOST_A), (9, 9), b"forged", true);
        let tag =
            Tag::Versions { source: MapVersion::NULL, destination: MapVersion::from_bits(version) };
        let marks = HeaderMarks { tag, status_bits: None };
        let header = lisp::encode_marked(InstanceId::DEFAULT, &marks);
        let payload = [&header[..], &inner].concat();
        let outer = Header::new(rloc, A[0]);
        let packet = craft::udp(&outer, (50_000, lisp::DATA_PORT), &payload, true);
        let from = if rloc == B { &self.routers[1] } else { &self.outside };
        craft::send(from, packet, A[0])
    }

    /// One of A's locators goes: its mapping has the next version, and B's traffic goes to the other.
    fn locator_goes(&self, checks: &mut Checks) -> io::Result<()> {
        link::down(&self.routers[0], "core1")?;
        let there = Header::new(HOST_A, HOST_B);
        let (xtr_b, begin) = (&self.xtrs[1], Instant::now());
        let mut version = 0;
        while begin.elapsed() < LIMIT {
            ping(&self.host_a, there, 100, Duration::from_millis(200))?;
            version = version_of_a(xtr_b)?;
            if version > VERSION_A {
                break;
            }
        }
        checks.equal(
            "A's second locator loses its link: the version that B has",
            VERSION_A + 1,
            version,
        );
        let mark = self.core.mark();
        checks.equal("lost of 20 pings then", 0, lost(&self.host_a, there, 100, 20)?);
        let said = format!("map-version 70 to {}, locator-status-bits 0x1", VERSION_A + 1);
        let now = self.headers(mark, HOST_B).any(|marks| marks.to_string() == said);
        checks.that("headers from B to A", &said, if now { &said } else { "others" }, now);
        link::up(&self.routers[0], "core1")
    }
}

/// The version of A's mapping in the map-cache of a router.
fn version_of_a(xtr: &Daemon) -> io::Result<u16> {
    let entries: Vec<MapCacheEntryView> = serde_json::from_value(xtr.ask(&Query::MapCache)?)?;
    let of_a = entries.iter().find(|entry| entry.prefix.contains(&HOST_A));
    Ok(of_a.map_or(0, |entry| entry.map_version))
}
