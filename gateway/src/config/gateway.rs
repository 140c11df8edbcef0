//! `gateway.toml`: `[gateway]`, `[pitr]`, `[petr]`, `[rtr]`, `[data]`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mapping::eid::InstanceId;
use xtr::config::{
    ControlConfig, HostConfig, Nat, NatPlane, OwnRloc, RingIntake, Role, RouterConfig,
};

use super::node::{Node, Table};
use super::{Environment, lisp_sec, nat, overlap, peers, router, subscription, values};
use crate::petr::PetrConfig;
use crate::pitr::PitrConfig;
use crate::proxy::ProxyConfig;
use crate::rtr::RtrConfig;

/// The kernel's number of the main routing table.
const MAIN_TABLE: u32 = 254;
/// The tables of this product.
const SITE_TABLE: i64 = xtr::host::routing::SITE_TABLE as i64;
const DRAIN_TABLE: i64 = xtr::host::routing::DRAIN_TABLE as i64;
/// How long something may be wrong before the aggregates are withdrawn, and the bounds of `announce.after`.
const DEFAULT_WITHDRAW_AFTER: Duration = Duration::from_secs(30);
const WITHDRAW_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);
/// How long a gateway that ends forwards what still comes, and the bounds of `announce.drain`.
const DEFAULT_DRAIN: Duration = Duration::from_secs(2);
const DRAIN: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
/// The default metric of announced aggregates.
const DEFAULT_METRIC: u32 = 120;

/// A gateway: the tunnel router and what its roles let through.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The tunnel router.
    pub router: RouterConfig,
    /// The roles' admission rules.
    pub proxy: ProxyConfig,
}

/// Reads the sections of a gateway.
pub(crate) fn read(root: &Table<'_>, environment: &Environment) -> GatewayConfig {
    let table = root.get("gateway").and_then(|node| node.table());
    let name = table.as_ref().map(|t| t.or("name", "gateway".to_owned(), owned_text));
    let rlocs = table.as_ref().map(|t| own_rlocs(t, environment)).unwrap_or_default();
    let map_resolvers = table.as_ref().map(router::map_resolvers).unwrap_or_default();
    let probe = table.as_ref().and_then(router::probe);
    let instance_id = table
        .as_ref()
        .map(|t| t.or("instance-id", InstanceId::DEFAULT, values::instance_id))
        .unwrap_or_default();
    let map_cache_limit =
        table.as_ref().map_or(ControlConfig::MAP_CACHE_LIMIT, super::map_cache_limit);
    let peers = table.as_ref().map(peers::read).unwrap_or_default();
    let lisp_sec = table.as_ref().and_then(|t| lisp_sec::of_router(t, environment, &[]));
    let identity = table.as_ref().and_then(subscription::identity);
    let subscribe =
        table.as_ref().and_then(|t| subscription::subscribe(t, environment, t.has("lisp-sec")));
    let state_dir = table.as_ref().and_then(|t| {
        t.get("state-dir").and_then(|node| super::mapping::state_dir(&node, environment))
    });
    let mut host = HostConfig {
        announce_table: MAIN_TABLE,
        announce_metric: DEFAULT_METRIC,
        withdraw_after: Some(DEFAULT_WITHDRAW_AFTER),
        drain: DEFAULT_DRAIN,
        ..HostConfig::default()
    };
    let pitr = root.get("pitr").and_then(|node| read_pitr(&node, &rlocs, environment, &mut host));
    let petr = root.get("petr").and_then(|node| read_petr(&node));
    let mut nat = None;
    let rtr = root.get("rtr").and_then(|node| {
        read_rtr(&node, root, &rlocs, |table, prefixes| {
            nat = nat::of_rtr(table, environment, (instance_id, prefixes));
        })
    });
    if !root.has("pitr")
        && !root.has("petr")
        && let Some(table) = &table
    {
        table.error(
            "the gateway has no role",
            "add [pitr] with eid-aggregates or [petr] with accept-from",
        );
    }
    let (mut data, path_mtu) =
        router::data(root, table.as_ref(), (rlocs.clone(), Role::Proxy), environment);
    if let Some(table) = &table {
        let is_set = root.get("pitr").is_some_and(|pitr| pitr.writes("native-interfaces"));
        data.intake =
            router::intake(table, ("pitr.native-interfaces", is_set), environment, || {
                RingIntake::of_proxy(host.native_interfaces.clone(), &host.announce)
            });
    }
    if nat.is_some() {
        data.nat = NatPlane::Rtr;
    }
    if let Some(table) = table {
        table.finish();
    }
    GatewayConfig {
        router: RouterConfig {
            name: name.unwrap_or_default(),
            state_dir,
            control: ControlConfig {
                rlocs: rlocs.iter().copied().map(proxy_rloc).collect(),
                map_resolvers,
                probe,
                path_mtu,
                map_cache_limit,
                lisp_sec,
                identity,
                subscribe,
                trusted_core: data.trusted_core.clone(),
                nat: nat.map(Nat::Rtr),
                peers,
                ..ControlConfig::of(Role::Proxy)
            },
            data,
            host,
        },
        proxy: ProxyConfig { own: rlocs, instance_id, pitr, petr, rtr },
    }
}

pub(super) fn owned_text(node: &Node<'_>) -> Option<String> {
    node.text().map(str::to_owned)
}

/// A proxy registers nothing, so priority and weight of its locators are never sent.
fn proxy_rloc(address: IpAddr) -> OwnRloc {
    OwnRloc::new(address.to_string(), address, 1, 100)
}

fn own_rlocs(table: &Table<'_>, environment: &Environment) -> Vec<IpAddr> {
    let Some(node) = table.require("rlocs", "[\"ADDRESS\"]") else { return Vec::new() };
    let rlocs = node.list_of(|node| Some((node.clone(), values::rloc(node)?)));
    for (node, address) in &rlocs {
        router::check_on_host(node, *address, environment);
    }
    router::check_distinct(&rlocs);
    rlocs.into_iter().map(|(_, address)| address).collect()
}

fn read_pitr(
    node: &Node<'_>,
    rlocs: &[IpAddr],
    environment: &Environment,
    host: &mut HostConfig,
) -> Option<PitrConfig> {
    let table = node.table()?;
    let aggregates = table
        .require("eid-aggregates", "[\"ADDRESS/LENGTH\"]")
        .map(|node| node.list_of(|node| Some((node.clone(), values::eid_prefix(node)?))))
        .unwrap_or_default();
    overlap::check_list(&aggregates);
    for (node, prefix) in &aggregates {
        router::check_holds_no_rloc(node, *prefix, rlocs);
    }
    let eid_aggregates: Vec<IpNet> = aggregates.into_iter().map(|(_, prefix)| prefix).collect();
    if let Some(announce) = table.get("announce").and_then(|node| node.table()) {
        host.announce_table = announce.or("table", MAIN_TABLE, routing_table);
        host.announce_metric = announce.or("metric", DEFAULT_METRIC, |node| {
            node.integer(0..=i64::from(u32::MAX)).and_then(|value| u32::try_from(value).ok())
        });
        let withdraws = announce.or("withdraw-when-unhealthy", true, Node::boolean);
        let after = announce
            .or("after", DEFAULT_WITHDRAW_AFTER, |node| values::duration(node, WITHDRAW_AFTER));
        if let Some(node) = announce.get("after").filter(|_| !withdraws) {
            let instead = "leave it out, or write withdraw-when-unhealthy = true";
            node.error("given though nothing is ever withdrawn", instead);
        }
        host.withdraw_after = withdraws.then_some(after);
        host.drain = announce.or("drain", DEFAULT_DRAIN, |node| values::duration(node, DRAIN));
        announce.finish();
    }
    host.announce.clone_from(&eid_aggregates);
    if let Some(node) = table.get("native-interfaces") {
        host.native_interfaces = node.list_of(|node| native_interface(node, environment));
    }
    let accept_from =
        table.get("accept-from").map(|node| node.list_of(values::prefix)).unwrap_or_default();
    let reject_source_in_aggregates = table.or("reject-source-in-aggregates", true, Node::boolean);
    table.finish();
    Some(PitrConfig { eid_aggregates, accept_from, reject_source_in_aggregates })
}

fn native_interface(node: &Node<'_>, environment: &Environment) -> Option<String> {
    let name = values::interface(node)?;
    router::check_interface(node, &name, environment).then_some(name)
}

/// `"main"` or the number of a table; 0, the kernel's own `local` table and ours are none to announce in.
fn routing_table(node: &Node<'_>) -> Option<u32> {
    const INSTEAD: &str = "write \"main\" or a table number other than 0, 255 and 4341 to 4343";
    match node.as_text() {
        Some("main") => Some(MAIN_TABLE),
        Some(text) => {
            node.error(&format!("{text:?} is no table this product knows by name"), INSTEAD);
            None
        }
        None => match node.integer(1..=i64::from(u32::MAX))? {
            255 => {
                node.error("255 is the kernel's local table", INSTEAD);
                None
            }
            SITE_TABLE..=DRAIN_TABLE => {
                node.error("4341 to 4343 are this product's own tables", INSTEAD);
                None
            }
            number => u32::try_from(number).ok(),
        },
    }
}

fn read_petr(node: &Node<'_>) -> Option<PetrConfig> {
    let table = node.table()?;
    let example = "{ eids = [\"ADDRESS/LENGTH\"] }: without it the PETR would relay for everybody";
    let mut config = PetrConfig {
        accept_from_rlocs: Vec::new(),
        accept_from_eids: Vec::new(),
        registered: false,
        allow_private_destinations: false,
    };
    if let Some(node) = table.require("accept-from", example) {
        read_accept_from(&node, &mut config);
    }
    config.allow_private_destinations =
        table.or("allow-private-destinations", false, Node::boolean);
    table.finish();
    Some(config)
}

/// `"registered"`, or prefixes, with or without it.
fn read_accept_from(node: &Node<'_>, config: &mut PetrConfig) {
    if let Some(text) = node.as_text() {
        config.registered = true;
        if text != "registered" {
            node.error(
                &format!("{text:?} is not whom packets are taken from"),
                "write \"registered\" or { eids = [\"ADDRESS/LENGTH\"] }",
            );
        }
        return;
    }
    let instead = "write \"registered\" or { eids = [\"ADDRESS/LENGTH\"] }";
    let Some(accept) = node.table_or(instead) else { return };
    config.registered = accept.or("registered", false, Node::boolean);
    config.accept_from_rlocs =
        accept.get("rlocs").map(|n| n.list_of(values::prefix)).unwrap_or_default();
    let eids = if config.registered {
        accept.get("eids")
    } else {
        accept.require("eids", "[\"ADDRESS/LENGTH\"]")
    };
    config.accept_from_eids = eids.map(|node| node.list_of(values::eid_prefix)).unwrap_or_default();
    accept.finish();
}

fn read_rtr(
    node: &Node<'_>,
    root: &Table<'_>,
    rlocs: &[IpAddr],
    read_nat: impl FnOnce(&Table<'_>, &[IpNet]),
) -> Option<RtrConfig> {
    let table = node.table()?;
    if !root.has("petr") {
        table.error(
            "an RTR needs [petr]",
            "add [petr] accept-from: packets are decapsulated by its rules before they are re-encapsulated",
        );
    }
    let prefixes = table
        .require("eid-prefixes", "[\"ADDRESS/LENGTH\"]")
        .map(|node| node.list_of(|node| Some((node.clone(), values::eid_prefix(node)?))))
        .unwrap_or_default();
    overlap::check_list(&prefixes);
    for (node, prefix) in &prefixes {
        router::check_holds_no_rloc(node, *prefix, rlocs);
    }
    let eid_prefixes: Vec<IpNet> = prefixes.into_iter().map(|(_, prefix)| prefix).collect();
    read_nat(&table, &eid_prefixes);
    table.finish();
    Some(RtrConfig { eid_prefixes })
}
