//! A VM moves between two data centres and keeps its addresses, its default gateway and its sessions (USE-CASES A).
//!
//! ```text
//!   host-c -- xtr-c --- core ---+--- relay --- xtr-1 -- DC1 -- vm
//!                        |      |                              | moves
//!                        ms     +--- relay --- xtr-2 -- DC2 ---+
//! ```
//! A move is the fabric's uplink, taken out of one data centre's bridge and plugged into the other's, as a live migration does it: the VM
//! sees no carrier come or go, and its tables and sockets stay as they are.
//!
//! | file | rows |
//! |---|---|
//! | `live` | 1 to 7a and 9: a VM that talks |
//! | `correspondents` | 7b, 7c and 8: a VM that is silent, a subscriber, a site that asks late |
//! | `cold` | the cold migration, and 10 |
//! | `whole_prefix` | the DR variant |
//! | `extended` | the same moves in a subnet that both data centres share |
//! | `tenants` | nobody else's packets |

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mapping::admin::Query;
use mapping::view::RegistrationView;

use crate::lab::addresses::host;
use crate::lab::capture::Capture;
use crate::lab::daemons::Daemon;
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::network::{Network, wait_for};
use crate::lab::probe::stream::{Seen, Stream};
use crate::lab::relay::Relay;
use crate::lab::report::Checks;

mod cold;
mod configuration;
mod correspondents;
mod extended;
mod live;
mod plan;
mod tenants;
mod whole_prefix;
mod wire;

use plan::{BRIDGE, CLIENT, HOST_D, HOST_E, UPLINKS, VM, XTR, XTR_C, XTR_D, XTR_E};

pub(crate) use plan::PLAN;

/// In one line.
pub(crate) const TITLE: &str =
    "a VM moves between data centres, IPv4 and IPv6, and keeps its sessions";

/// The routing protocol number of the routes to hosts.
const PROTOCOL: u8 = 204;
const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// An RLOC is solicited once in three seconds (RFC 9301 §6.1), so that its mapping of the second family may take that long; meanwhile the
/// former site sends the packets on.
const SOLICITED: Duration = Duration::from_secs(5);
/// How long anything else may take to be as it is to be.
const LIMIT: Duration = Duration::from_secs(2);
/// What no variant may exceed.
const SECOND: Duration = Duration::from_secs(1);
/// What is watched of a stream after a move.
const AFTER: Duration = Duration::from_millis(1500);
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Runs it.
pub(crate) fn run(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network)?;
    bed.first_packets(checks)?;
    bed.first_move(checks)?;
    bed.refused(checks)?;
    bed.across(checks)?;
    bed.asks_late(checks)?;
    bed.published(checks)?;
    bed.with_delay(checks, Duration::from_millis(25), Duration::from_millis(300))?;
    bed.with_delay(checks, Duration::from_millis(100), SECOND)?;
    let tenants = bed.tenants_begin()?;
    bed.ten_moves(checks)?;
    bed.tenants_end(checks, tenants)?;
    bed.notify_lost(checks)?;
    bed.cold(checks)?;
    bed.whole_prefix(checks)?;
    bed.powered_off(checks)?;
    bed.extended(checks)
}

/// The pieces that it uses.
struct Bed<'a> {
    network: &'a Network,
    core: Arc<Capture>,
    lan_captures: [Arc<Capture>; 2],
    c: Site,
    d: Site,
    e: Site,
    vm: Arc<Namespace>,
    stays: Arc<Namespace>,
    fabric: Arc<Namespace>,
    routers: [Arc<Namespace>; 2],
    relays: [Arc<Relay>; 2],
    ms: Arc<Daemon>,
    xtrs: [Arc<Daemon>; 2],
    /// In which data centre the VM is.
    at: usize,
}

/// Somebody who talks with the VM.
struct Site {
    name: &'static str,
    host: Arc<Namespace>,
    addresses: [IpAddr; 2],
    xtr: Arc<Daemon>,
    rloc: IpAddr,
}

impl Site {
    fn of(
        network: &Network,
        (host, xtr): (&'static str, &str),
        addresses: [IpAddr; 2],
        rloc: IpAddr,
    ) -> io::Result<Self> {
        let (xtr, namespace) = (network.daemon_in(xtr)?, network.namespace(host)?);
        Ok(Self { name: host, host: namespace, addresses, xtr, rloc })
    }

    /// The locators that its router sends packets for `prefix` to; empty without an entry.
    fn knows(&self, prefix: &str) -> io::Result<String> {
        let entries = self.xtr.ask(&Query::MapCache)?;
        let entry = entries.as_array().and_then(|entries| {
            entries.iter().find(|entry| entry["prefix"].as_str() == Some(prefix))
        });
        let rlocs = entry.and_then(|entry| entry["locators"].as_array().cloned());
        let rlocs = rlocs.unwrap_or_default();
        let rlocs = rlocs.iter().filter_map(|locator| locator["address"].as_str());
        Ok(rlocs.collect::<Vec<_>>().join(" "))
    }
}

/// Streams with their names.
struct Streams(Vec<(String, Stream)>);

impl Streams {
    /// Between the client and the VM, one way each, both families.
    fn start(bed: &Bed<'_>) -> io::Result<Self> {
        let mut streams = Vec::new();
        for (n, family) in FAMILIES.into_iter().enumerate() {
            let (client, vm) = ((&*bed.c.host, CLIENT[n]), (&*bed.vm, VM[n]));
            streams.push((format!("{family}, client to VM"), Stream::start(client, vm)?));
            streams.push((format!("{family}, VM to client"), Stream::start(vm, client)?));
        }
        Ok(Self(streams))
    }

    /// From a site to a VM that says nothing, both families.
    fn one_way(bed: &Bed<'_>, site: &Site) -> io::Result<Self> {
        let mut streams = Vec::new();
        for (n, family) in FAMILIES.into_iter().enumerate() {
            let (from, vm) = ((&*site.host, site.addresses[n]), (&*bed.vm, VM[n]));
            streams.push((format!("{family}, {} to VM", site.name), Stream::start(from, vm)?));
        }
        Ok(Self(streams))
    }

    fn finish(self) -> io::Result<Vec<(String, Seen)>> {
        // All at once: each waits for what is under way.
        let finishing = self.0.into_iter().map(|(name, stream)| {
            let seen = thread::spawn(move || stream.finish());
            (name, seen)
        });
        let finishing: Vec<_> = finishing.collect();
        let panicked = |_| io::Error::other("a stream's thread panicked");
        finishing
            .into_iter()
            .map(|(name, seen)| Ok((name, seen.join().map_err(panicked)??)))
            .collect()
    }
}

impl<'a> Bed<'a> {
    fn of(network: &'a Network) -> io::Result<Self> {
        let pair = |names: [&str; 2]| -> io::Result<_> {
            Ok([network.namespace(names[0])?, network.namespace(names[1])?])
        };
        Ok(Self {
            network,
            core: network.capture_of("core")?,
            lan_captures: [network.capture_of("dc1")?, network.capture_of("dc2")?],
            c: Site::of(network, ("host-c", "xtr-c"), CLIENT, XTR_C)?,
            d: Site::of(network, ("host-d", "xtr-d"), HOST_D, XTR_D)?,
            e: Site::of(network, ("host-e", "xtr-e"), HOST_E, XTR_E)?,
            vm: network.namespace("vm")?,
            stays: network.namespace("stays")?,
            fabric: network.namespace("fabric")?,
            routers: pair(["xtr-1", "xtr-2"])?,
            relays: [network.relay_to("to-dc1")?, network.relay_to("to-dc2")?],
            ms: network.daemon_in("ms")?,
            xtrs: [network.daemon_in("xtr-1")?, network.daemon_in("xtr-2")?],
            at: 0,
        })
    }

    /// Plugs the VM into the other data centre. When it was pulled out.
    fn move_vm(&mut self) -> io::Result<Instant> {
        let begin = Instant::now();
        link::unplug(&self.fabric, UPLINKS[self.at])?;
        link::plug(&self.fabric, UPLINKS[1 - self.at], BRIDGE)?;
        self.at = 1 - self.at;
        Ok(begin)
    }

    /// The name of the data centre that the VM is in.
    fn place(&self) -> &'static str {
        ["DC1", "DC2"][self.at]
    }

    /// Whoever is to know where the VM is, knows.
    fn settled(&self, checks: &mut Checks, when: &str) -> io::Result<()> {
        let rloc = XTR[self.at].to_string();
        for vm in VM {
            let prefix = host(vm).to_string();
            wait_for(LIMIT, || Ok(self.registered(&prefix)? == rloc))?;
            checks.equal(
                format!("{vm} is registered by, {when}"),
                rloc.clone(),
                self.registered(&prefix)?,
            );
            let router = &self.routers[self.at];
            let routed = || Ok(link::routes_of_protocol(router, PROTOCOL)?.contains(&host(vm)));
            let has_route = wait_for(LIMIT, routed)?;
            let old = link::routes_of_protocol(&self.routers[1 - self.at], PROTOCOL)?;
            let is_gone = !old.contains(&host(vm));
            checks.that(
                format!("host route to {vm}"),
                "there and nowhere else",
                format!("there: {has_route}, elsewhere: {}", !is_gone),
                has_route && is_gone,
            );
            wait_for(SOLICITED, || Ok(self.c.knows(&prefix)? == rloc))?;
            checks.equal("the client's mapping of it", rloc.clone(), self.c.knows(&prefix)?);
        }
        Ok(())
    }

    fn outages(
        &self,
        checks: &mut Checks,
        text: &str,
        streams: Vec<(String, Seen)>,
        (begin, limit): (Instant, Duration),
    ) {
        for (name, seen) in streams {
            let outage = seen.outage_between(begin, begin + AFTER);
            let lost = seen.lost_between(begin, begin + AFTER);
            let resumed = seen.arrived.last().is_some_and(|(_, at)| *at > begin + AFTER / 2);
            checks.that(
                format!("outage {text}, {name}"),
                format!("at most {} ms", limit.as_millis()),
                format!(
                    "{}, {lost} lost, {} twice, {} out of order",
                    ms(outage),
                    seen.duplicates(),
                    seen.reordered()
                ),
                resumed && outage <= limit,
            );
        }
    }

    /// Who has registered `prefix` in instance 0; empty for nobody.
    fn registered(&self, prefix: &str) -> io::Result<String> {
        let prefix: IpNet = prefix.parse().map_err(io::Error::other)?;
        let views: Vec<RegistrationView> =
            serde_json::from_value(self.ms.ask(&Query::Registrations)?)?;
        let is_it = |view: &&RegistrationView| {
            view.prefix
                .is_some_and(|found| found.prefix() == prefix && found.instance_id().get() == 0)
        };
        let sources: Vec<String> =
            views.iter().filter(is_it).map(|view| view.source.to_string()).collect();
        Ok(sources.join(" "))
    }
}

/// For people.
fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
