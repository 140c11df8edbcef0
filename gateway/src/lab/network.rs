//! A network that a scenario describes for itself, built piece by piece, and what a scenario then finds in it.
//!
//! A scenario names its [`Plan`]; the lab brings the plan's network up when one of its scenarios is chosen, runs those
//! that are, and takes it down before the next network. A plan is a name, a drawing and one function:
//!
//! ```text
//! pub(crate) static PLAN: Plan = Plan { name: "failover", drawing: DRAWING, build };
//!
//! fn build(network: &mut Network) -> io::Result<()> {
//!     let core = network.core("core", CORE4, CORE6)?;            // routes, answers as CORE4 and CORE6
//!     let ms = network.node("ms")?;                              // a namespace; network.router("r") forwards too
//!     network.access(&core, &ms, Access::of(&ms, "core0", &[MS]))?;
//!     let xtr = network.router("xtr-m")?;
//!     let p = Access { at_core: "m-p", at_router: "isp-p", rlocs: &[RLOC_P] };
//!     let relay = network.access_through_relay(&core, &xtr, p)?; // as access(), over a wire with a length
//!     relay.delay(Duration::from_millis(5));
//!     let host = network.node("host-m")?;
//!     network.site(&xtr, &host, &[(GATEWAY, HOST, 64)])?;        // xtr's lan0, host's eth0, default routes
//!     let key = network.key("m")?;                               // a fresh key; returns the path of its file
//!     let ms = network.daemon("mapping", &ms, &text_of(&key))?;  // waits until it answers
//!     network.daemon("xtr", &xtr, &text)?;
//!     network.wait_for_registrations(&ms, 2)?;
//!     network.capture(core.namespace(), true)?;                  // what arrives there, with --pcap in a file too
//!     Ok(())
//! }
//! ```
//!
//! A router with several accesses sends what carries the RLOC of one of them through that one while it has a carrier,
//! everything else through the first that has one. The scenario gets the network and finds every piece by its name:
//! [`Network::namespace`], [`Network::daemon_in`], [`Network::capture_of`], [`Network::relay_to`] (by the access's
//! `at_core`). The pieces are shared, so that it can keep them and still add more of any kind.
//!
//! What moves: [`link::hand_over`] takes a link to another router; [`Relay::cut`] takes the carrier of a router's access;
//! [`Relay::blackhole`] and [`Relay::lose`] lose packets silently; [`Relay::delay`] is the length of the wire.
//!
//! What measures, in [`probe`](super::probe): `stream::Stream`, 1000 numbered datagrams a second one way (start one
//! each way), with loss, outage, duplicates and reordering; `session::Session`, a TCP session that lives on;
//! `many::send` and `many::locators`, thousands of flows and which locator each took on the wire.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mapping::admin::Query;
use tempfile::TempDir;

use super::addresses::{CORE6_LINK_LOCAL, host, net};
use super::capture::Capture;
use super::daemons::{Daemon, Daemons};
use super::link;
use super::namespace::Namespace;
use super::offload;
use super::processes::Running;
use super::relay::{self, Relay};
use super::topology::{
    CORE_MTU, EVERYWHERE, HOST_LINK, NO_IPV6, ROUTER, SITE_LINK, SITE_MTU, default_of,
};

/// How long all registrations may take.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);
/// Metric of a router's first default route, and the distance to the next one's.
const METRIC: u32 = 100;
/// Table for what carries the RLOCs of a router's first access; the next one's is one higher.
const TABLE: u32 = 300;
/// A dead link's routes must not be taken: what a routing daemon would see to.
const DEAD_LINKS: &[(&str, &str)] = &[
    ("ipv4/conf/all/ignore_routes_with_linkdown", "1"),
    ("ipv4/conf/default/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/all/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/default/ignore_routes_with_linkdown", "1"),
];

/// A network that scenarios name.
pub(crate) struct Plan {
    /// As in `isthmus lab --list`, and the directory of its capture files.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) drawing: &'static str,
    /// Brings it up.
    pub(crate) build: fn(&mut Network) -> io::Result<()>,
}

/// A network that is up or being built. Dropping it ends its daemons, then everything else.
pub(crate) struct Network {
    daemons: Daemons,
    started: Vec<Arc<Daemon>>,
    relays: Vec<Arc<Relay>>,
    captures: Vec<(&'static str, Arc<Capture>)>,
    namespaces: Vec<Arc<Namespace>>,
    /// Routers, with how many accesses each has.
    accesses: Vec<(&'static str, u32)>,
    pcap: Option<PathBuf>,
}

/// A routed core.
#[derive(Clone)]
pub(crate) struct Core {
    namespace: Arc<Namespace>,
    address4: IpAddr,
}

/// A link between a core and a router.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    /// The link's name in the core; at most 15 characters, one of a kind.
    pub(crate) at_core: &'static str,
    /// The link's name in the router.
    pub(crate) at_router: &'static str,
    /// The router's addresses on it: its RLOCs, of both families if wished.
    pub(crate) rlocs: &'a [IpAddr],
}

impl<'a> Access<'a> {
    /// The only access of `router`: in the core the link has the router's name.
    pub(crate) fn of(router: &Namespace, at_router: &'static str, rlocs: &'a [IpAddr]) -> Self {
        Self { at_core: router.name(), at_router, rlocs }
    }
}

impl Core {
    /// Its namespace.
    pub(crate) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }
}

impl Network {
    /// Brings up what `plan` describes; with `pcap`, captures are written into a directory of the plan's name there.
    pub(crate) fn bring_up(
        plan: &Plan,
        running: Arc<Running>,
        pcap: Option<&Path>,
    ) -> io::Result<Self> {
        let pcap = pcap.map(|directory| directory.join(plan.name));
        if let Some(directory) = &pcap {
            fs::create_dir_all(directory)?;
        }
        let directory = TempDir::with_prefix("isthmus-lab-")?;
        let mut network = Self {
            daemons: Daemons::none(running, directory)?,
            started: Vec::new(),
            relays: Vec::new(),
            captures: Vec::new(),
            namespaces: Vec::new(),
            accesses: Vec::new(),
            pcap,
        };
        (plan.build)(&mut network)
            .map_err(|error| io::Error::other(format!("{error}\n{}", network.logs())))?;
        Ok(network)
    }

    /// A namespace with nothing but a loopback link.
    pub(crate) fn node(&mut self, name: &'static str) -> io::Result<Arc<Namespace>> {
        let namespace = Arc::new(Namespace::create(name)?);
        link::settings(&namespace, EVERYWHERE)?;
        link::up(&namespace, "lo")?;
        self.namespaces.push(namespace.clone());
        Ok(namespace)
    }

    /// A namespace that forwards both families.
    pub(crate) fn router(&mut self, name: &'static str) -> io::Result<Arc<Namespace>> {
        let namespace = self.node(name)?;
        link::settings(&namespace, ROUTER)?;
        link::settings(&namespace, DEAD_LINKS)?;
        Ok(namespace)
    }

    /// A core, which answers and sends ICMP as `address4` and `address6`.
    pub(crate) fn core(
        &mut self,
        name: &'static str,
        address4: IpAddr,
        address6: IpAddr,
    ) -> io::Result<Core> {
        let namespace = self.router(name)?;
        link::address(&namespace, "lo", host(address4))?;
        link::address(&namespace, "lo", host(address6))?;
        Ok(Core { namespace, address4 })
    }

    /// Joins a router (or a server) to a core: RLOCs, a route to each of them, default routes.
    pub(crate) fn access(
        &mut self,
        core: &Core,
        router: &Namespace,
        access: Access<'_>,
    ) -> io::Result<()> {
        let near = (core.namespace.as_ref(), access.at_core);
        link::connect(CORE_MTU, near, (router, access.at_router))?;
        for (namespace, name) in [near, (router, access.at_router)] {
            link::wire_sized(namespace, name)?;
            if offload::can_compute_checksums() {
                offload::compute_checksums(namespace, name)?;
            }
            link::up(namespace, name)?;
        }
        self.addresses_and_routes(core, router, access)
    }

    /// As [`Network::access`], over a wire with a length, which is 0 at first.
    pub(crate) fn access_through_relay(
        &mut self,
        core: &Core,
        router: &Namespace,
        access: Access<'_>,
    ) -> io::Result<Arc<Relay>> {
        let wire = Namespace::create(access.at_core)?;
        link::settings(&wire, NO_IPV6)?;
        let near = (core.namespace.as_ref(), access.at_core);
        link::connect(CORE_MTU, near, (&wire, relay::NEAR))?;
        link::connect(CORE_MTU, (&wire, relay::FAR), (router, access.at_router))?;
        for (namespace, name) in [near, (router, access.at_router)] {
            link::wire_sized(namespace, name)?;
            offload::compute_checksums(namespace, name)?;
            link::up(namespace, name)?;
        }
        link::up(&wire, relay::NEAR)?;
        link::up(&wire, relay::FAR)?;
        let relay = Arc::new(Relay::start(access.at_core, wire)?);
        self.relays.push(relay.clone());
        self.addresses_and_routes(core, router, access)?;
        Ok(relay)
    }

    /// Joins links of two nodes, which do not route, by a wire; both ends are up.
    pub(crate) fn wire(
        &mut self,
        name: &'static str,
        one: (&Namespace, &'static str),
        other: (&Namespace, &'static str),
    ) -> io::Result<Arc<Relay>> {
        let wire = Namespace::create(name)?;
        link::settings(&wire, NO_IPV6)?;
        link::connect(SITE_MTU, one, (&wire, relay::NEAR))?;
        link::connect(SITE_MTU, (&wire, relay::FAR), other)?;
        for (namespace, name) in [one, other] {
            link::wire_sized(namespace, name)?;
            offload::compute_checksums(namespace, name)?;
            link::up(namespace, name)?;
        }
        link::up(&wire, relay::NEAR)?;
        link::up(&wire, relay::FAR)?;
        let relay = Arc::new(Relay::start(name, wire)?);
        self.relays.push(relay.clone());
        Ok(relay)
    }

    fn addresses_and_routes(
        &mut self,
        core: &Core,
        router: &Namespace,
        Access { at_core, at_router, rlocs }: Access<'_>,
    ) -> io::Result<()> {
        let number = self.number_of_access(router.name());
        let gateway_of = |rloc: &IpAddr| match rloc {
            IpAddr::V4(_) => core.address4,
            IpAddr::V6(_) => CORE6_LINK_LOCAL,
        };
        link::address(&core.namespace, at_core, net(CORE6_LINK_LOCAL, 64))?;
        let mut gateways: Vec<IpAddr> = Vec::new();
        for rloc in rlocs {
            link::address(router, at_router, host(*rloc))?;
            link::route(&core.namespace, host(*rloc), None, at_core)?;
            link::rule_from(router, *rloc, TABLE + number)?;
            if !gateways.contains(&gateway_of(rloc)) {
                gateways.push(gateway_of(rloc));
            }
        }
        for gateway in gateways {
            let metric = METRIC * (number + 1);
            link::default_route(router, gateway, at_router, (metric, None))?;
            link::default_route(router, gateway, at_router, (metric, Some(TABLE + number)))?;
        }
        Ok(())
    }

    /// Counts a router's accesses, from 0.
    fn number_of_access(&mut self, router: &'static str) -> u32 {
        if let Some((_, count)) = self.accesses.iter_mut().find(|(name, _)| *name == router) {
            *count += 1;
            return *count;
        }
        self.accesses.push((router, 0));
        0
    }

    /// A site: the router's link `lan0`, the host's link `eth0`; each subnet is the router's address, the host's and the
    /// prefix length. The host's default routes lead to the first router of each family.
    pub(crate) fn site(
        &self,
        router: &Namespace,
        machine: &Namespace,
        subnets: &[(IpAddr, IpAddr, u8)],
    ) -> io::Result<()> {
        link::connect(SITE_MTU, (router, SITE_LINK), (machine, HOST_LINK))?;
        link::up(router, SITE_LINK)?;
        link::up(machine, HOST_LINK)?;
        let mut routed: Vec<IpNet> = Vec::new();
        for &(gateway, address, length) in subnets {
            link::address(router, SITE_LINK, net(gateway, length))?;
            link::address(machine, HOST_LINK, net(address, length))?;
            let everywhere = default_of(gateway);
            if !routed.contains(&everywhere) {
                link::route(machine, everywhere, Some(gateway), HOST_LINK)?;
                routed.push(everywhere);
            }
        }
        Ok(())
    }

    /// Makes a fresh key for the site (or subscriber) `name`; returns the file it is in.
    pub(crate) fn key(&self, name: &str) -> io::Result<String> {
        self.daemons.write_key(name)?;
        Ok(self.directory().join(format!("site-{name}.key")).display().to_string())
    }

    /// Where configuration files, keys, sockets and logs are.
    pub(crate) fn directory(&self) -> &Path {
        self.daemons.directory()
    }

    /// Starts a daemon of `role` with the configuration `text`, and waits until it answers.
    pub(crate) fn daemon(
        &mut self,
        role: &'static str,
        namespace: &Namespace,
        text: &str,
    ) -> io::Result<Arc<Daemon>> {
        let daemon = Arc::new(self.daemons.add(role, namespace, text)?);
        self.started.push(daemon.clone());
        Ok(daemon)
    }

    /// To kill, stop, restart and reconfigure daemons.
    pub(crate) fn daemons(&self) -> &Daemons {
        &self.daemons
    }

    /// Watches what arrives in `namespace`; `is_router` keeps what it sends out of the capture file.
    pub(crate) fn capture(
        &mut self,
        namespace: &Namespace,
        is_router: bool,
    ) -> io::Result<Arc<Capture>> {
        let capture = Arc::new(Capture::start(namespace, self.pcap.as_deref(), is_router)?);
        self.captures.push((namespace.name(), capture.clone()));
        Ok(capture)
    }

    /// Waits until `count` EID-prefixes are registered.
    pub(crate) fn wait_for_registrations(&self, ms: &Daemon, count: usize) -> io::Result<()> {
        let registered =
            || Ok(ms.ask(&Query::Registrations)?.as_array().map_or(0, Vec::len) >= count);
        if wait_for(REGISTRATION_LIMIT, registered)? {
            return Ok(());
        }
        Err(io::Error::other(format!("not all of {count} EID-prefixes are registered")))
    }

    /// The namespace of that name.
    pub(crate) fn namespace(&self, name: &str) -> io::Result<Arc<Namespace>> {
        found(name, self.namespaces.iter().find(|namespace| namespace.name() == name))
    }

    /// The daemon in the namespace of that name.
    pub(crate) fn daemon_in(&self, name: &str) -> io::Result<Arc<Daemon>> {
        found(name, self.started.iter().find(|daemon| daemon.name == name))
    }

    /// The capture in the namespace of that name.
    pub(crate) fn capture_of(&self, name: &str) -> io::Result<Arc<Capture>> {
        found(name, self.captures.iter().find(|(of, _)| *of == name).map(|(_, capture)| capture))
    }

    /// The relay of the access with that name in the core.
    pub(crate) fn relay_to(&self, name: &str) -> io::Result<Arc<Relay>> {
        found(name, self.relays.iter().find(|relay| relay.name() == name))
    }

    /// Every namespace but those of relays.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.iter().map(AsRef::as_ref)
    }

    /// The namespaces of relays: the wires that have a length.
    pub(crate) fn wires(&self) -> impl Iterator<Item = &Namespace> {
        self.relays.iter().map(|relay| relay.namespace())
    }

    /// Every daemon that was started.
    pub(crate) fn all_daemons(&self) -> impl Iterator<Item = &Daemon> {
        self.started.iter().map(AsRef::as_ref)
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self) -> String {
        self.all_daemons().map(Daemon::log_tail).collect()
    }
}

/// Polls `condition` until it holds; `false` if it does not within `limit`.
pub(crate) fn wait_for(
    limit: Duration,
    condition: impl Fn() -> io::Result<bool>,
) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
    Ok(true)
}

fn found<T>(name: &str, piece: Option<&Arc<T>>) -> io::Result<Arc<T>> {
    piece.cloned().ok_or_else(|| io::Error::other(format!("nothing of the kind is called {name}")))
}

#[cfg(test)]
mod tests;
