//! `xtr.toml`: `[xtr]`, `[[eid]]`, `[data]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mapping::auth::Covered;
use mapping::config::Profile;
use mapping::eid::{EidPrefix, InstanceId, MapVersion};
use mapping::timers;
use xtr::config::{ControlConfig, HostConfig, Intake, LocalEid, MapServer};
use xtr::config::{Nat, NatPlane, OwnRloc, Petr};
use xtr::config::{RingIntake, Role, RouterConfig};

use super::mapping::{default_algorithms, peer_algorithm, state_dir};
use super::node::{Node, Table, nearest};
use super::overlap::{Claims, Nesting};
use super::trusted_core::{self, Versions};
use super::{
    Environment, dynamic_eid, gateway::owned_text, lisp_sec, nat, peers, router, secret,
    subscription, values,
};

/// The bounds of `registration-interval`.
const REGISTRATION_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// Reads the sections of an xTR.
pub(crate) fn read(root: &Table<'_>, environment: &Environment) -> RouterConfig {
    let table = root.get("xtr").and_then(|node| node.table());
    let mut control = ControlConfig { proxy_reply: true, ..ControlConfig::of(Role::Xtr) };
    let mut name = String::new();
    let mut state = None;
    // Locator names stay known when a locator is refused, so that one mistake is one line.
    let mut names = Vec::new();
    if let Some(table) = &table {
        name = table.or("name", "xtr".to_owned(), owned_text);
        state = table.get("state-dir").and_then(|node| state_dir(&node, environment));
        (names, control.rlocs) = own_rlocs(table, environment);
        control.map_resolvers = router::map_resolvers(table);
        control.map_servers = map_servers(table, environment);
        control.use_petr = table.get("use-petr").map(|n| n.list_of(petr)).unwrap_or_default();
        control.proxy_itrs =
            table.get("proxy-itrs").map(|n| n.list_of(values::endpoint)).unwrap_or_default();
        control.proxy_reply = table.or("proxy-reply", true, Node::boolean);
        control.registration_interval =
            table.or("registration-interval", timers::REGISTRATION_INTERVAL, |node| {
                values::duration(node, REGISTRATION_INTERVALS)
            });
        control.probe = router::probe(table);
        control.record_ttl_minutes = table.or("record-ttl", control.record_ttl_minutes, record_ttl);
        control.map_cache_limit = super::map_cache_limit(table);
        control.timeout_by_ttl = table.or("timeout-by-ttl", false, Node::boolean);
        control.identity = subscription::identity(table);
        control.merge = table.or("merge", false, Node::boolean);
        control.subscribe = subscription::subscribe(table, environment, table.has("map-servers"));
        control.peers = peers::read(table);
        control.lisp_sec = lisp_sec::of_router(table, environment, &control.map_servers);
    }
    let addresses: Vec<IpAddr> = control.rlocs.iter().map(|rloc| rloc.address).collect();
    let (mut data, path_mtu) =
        router::data(root, table.as_ref(), (addresses.clone(), Role::Xtr), environment);
    control.trusted_core.clone_from(&data.trusted_core);
    trusted_core::check_merge(root, control.trusted_core.as_ref(), control.merge);
    control.path_mtu = path_mtu;
    let versions = Versions::new(control.trusted_core.as_ref(), table.as_ref());
    let sites =
        Site { rlocs: &addresses, names: &names, tun: &data.tun_name, environment, versions };
    let mut host = HostConfig::default();
    let mut configured = BTreeMap::new();
    control.eids = read_eids(root, &sites, &mut host, &mut configured);
    dynamic_eid::read(
        root,
        (&addresses, &control.eids),
        &mut host,
        |node, interfaces| site_interfaces(node, &sites, interfaces),
        |node| locator_set(node, &names),
    );
    if let Some(core) = &mut control.trusted_core {
        core.versions = configured;
    }
    if let Some(table) = &table {
        let is_set = root.get("eid").is_some_and(|eids| eids.writes("interfaces"));
        data.intake = router::intake(table, ("eid.interfaces", is_set), environment, || {
            let ranges = host.ranges.iter().map(|range| range.range.prefix());
            let families: Vec<IpNet> = host.site_prefixes.iter().copied().chain(ranges).collect();
            let mut ring = RingIntake::of_site(host.site_interfaces.clone(), &families);
            // Which hosts of a range stay in the site, only the forwarding table knows.
            ring.leave.retain(|left| {
                host.site_prefixes.contains(left)
                    || host.ranges.iter().all(|range| range.range.prefix() != *left)
            });
            ring
        });
        check_ring_of_gateways(table, &data.intake, host.gateways.len());
    }
    if let Some(found) = table.as_ref().and_then(nat::of_xtr) {
        control.nat = Some(Nat::Xtr(found));
        data.nat = NatPlane::Xtr;
    }
    if let Some(table) = table {
        table.finish();
    }
    RouterConfig { name, state_dir: state, control, data, host }
}

/// A gateway of `[[dynamic-eid]]` is an interface of its own, with a ring of its own.
fn check_ring_of_gateways(table: &Table<'_>, intake: &Intake, gateways: usize) {
    let Intake::Ring(ring) = intake else { return };
    let (interfaces, most) = (ring.interfaces.len(), RingIntake::MAX_INTERFACES);
    if interfaces + gateways > most
        && let Some(node) = table.get("intake")
    {
        node.error(
            &format!(
                "{interfaces} interfaces and {gateways} gateways of [[dynamic-eid]] are more than {most} rings"
            ),
            "write \"tun\", or give fewer of either",
        );
    }
}

/// Whole minutes, as the Record TTL has them.
fn record_ttl(node: &Node<'_>) -> Option<u32> {
    let minute = Duration::from_secs(60);
    let ttl = values::duration(node, minute..=minute * 60 * 24 * 30)?;
    if ttl.as_secs() % 60 != 0 || ttl.subsec_nanos() != 0 {
        node.error(
            "is not whole minutes",
            "the Record TTL counts minutes, so write \"1440m\" or \"24h\"",
        );
        return None;
    }
    u32::try_from(ttl.as_secs() / 60).ok()
}

/// Every locator name of the file, and the locators that are right.
fn own_rlocs(table: &Table<'_>, environment: &Environment) -> (Vec<String>, Vec<OwnRloc>) {
    let example = "{ core = { address = \"ADDRESS\" } }";
    let Some(node) = table.require("rlocs", example) else { return Default::default() };
    let Some(rlocs) = node.table() else { return Default::default() };
    let entries = rlocs.entries();
    if entries.is_empty() {
        node.error("has no locator", &format!("write rlocs = {example}"));
    }
    let mut found = Vec::new();
    for (name, node) in &entries {
        if let Some((place, rloc)) = own_rloc(name, node, environment) {
            found.push((place, rloc));
        }
    }
    let addresses: Vec<_> =
        found.iter().map(|(place, rloc)| (place.clone(), rloc.address)).collect();
    router::check_distinct(&addresses);
    let names = entries.iter().map(|(name, _)| (*name).to_owned()).collect();
    (names, found.into_iter().map(|(_, rloc)| rloc).collect())
}

/// One locator with the node its address is written at.
fn own_rloc<'a>(
    name: &str,
    node: &Node<'a>,
    environment: &Environment,
) -> Option<(Node<'a>, OwnRloc)> {
    let table = node.table()?;
    let place = match (table.get("address"), table.get("interface")) {
        (Some(address), None) => {
            let value = values::rloc(&address);
            if let Some(value) = value {
                router::check_on_host(&address, value, environment);
            }
            value.map(|value| (address, value))
        }
        (None, Some(interface)) => {
            let value = address_of_interface(&interface, table.get("family"), environment);
            value.map(|value| (interface, value))
        }
        (Some(_), Some(interface)) => {
            interface.error("given beside address", "keep one of the two");
            None
        }
        (None, None) => {
            table.error("has no address", "write address = \"ADDRESS\" or interface = \"NAME\"");
            None
        }
    };
    if let Some(family) = table.get("family")
        && table.has("address")
    {
        family.error(
            "given beside address",
            "family chooses among the addresses of an interface only",
        );
    }
    let priority = table.or("priority", 1, values::octet);
    let weight = table.or("weight", 100, values::octet);
    let multicast_priority = table.or("mpriority", 255, values::octet);
    let multicast_weight = table.or("mweight", 0, values::octet);
    table.finish();
    let (node, address) = place?;
    let own = OwnRloc::new(name, address, priority, weight);
    Some((node, OwnRloc { multicast_priority, multicast_weight, ..own }))
}

/// The locator that an interface has now; offline, `None` without complaint.
fn address_of_interface(
    node: &Node<'_>,
    family: Option<Node<'_>>,
    environment: &Environment,
) -> Option<IpAddr> {
    let name = values::interface(node)?;
    let wanted = match family {
        Some(family) => Some(is_ipv6(&family)?),
        None => None,
    };
    let host = environment.host.as_ref()?;
    if !router::check_interface(node, &name, environment) {
        return None;
    }
    let candidates: Vec<IpAddr> = host
        .locators_of(&name)
        .filter(|address| wanted.is_none_or(|ipv6| address.is_ipv6() == ipv6))
        .collect();
    let Some(&first) = candidates.first() else {
        node.error(
            &format!("{name} has no address that can be an RLOC"),
            "assign one, or write address = \"ADDRESS\"",
        );
        return None;
    };
    if candidates.iter().any(|address| address.is_ipv6() != first.is_ipv6()) {
        node.error(
            &format!("{name} has addresses of both families"),
            "add family = \"ipv4\" or family = \"ipv6\"",
        );
        return None;
    }
    if candidates.len() > 1 {
        node.warning(&format!(
            "{name} has {} addresses, the RLOC is {first}; write address = \"ADDRESS\" to be sure",
            candidates.len()
        ));
    }
    Some(first)
}

fn is_ipv6(node: &Node<'_>) -> Option<bool> {
    match node.text()? {
        "ipv4" => Some(false),
        "ipv6" => Some(true),
        other => {
            node.error(&format!("{other:?} is no address family"), "write \"ipv4\" or \"ipv6\"");
            None
        }
    }
}

fn map_servers(table: &Table<'_>, environment: &Environment) -> Vec<MapServer> {
    let example = "[{ address = \"ADDRESS\", key-id = 1, key-file = \"PATH\" }]";
    let Some(node) = table.require("map-servers", example) else { return Vec::new() };
    node.list_of(|node| {
        let table = node.table()?;
        let endpoint =
            table.require("address", "\"ADDRESS\"").and_then(|node| values::endpoint(&node));
        let key_id = table.require("key-id", "1").and_then(|node| values::octet(&node));
        let secret = secret::read(&table, "key-file", "key-env", environment);
        let profile = table.or("profile", Profile::default(), values::profile);
        let algorithm = match table.get("algorithm") {
            Some(node) => peer_algorithm(&node, profile),
            None => default_algorithms(profile).first().copied(),
        };
        let covers = table.or("mac-covers", Covered::Message, mac_covers);
        table.finish();
        Some(MapServer {
            endpoint: endpoint?,
            key_id: key_id?,
            secret: secret?,
            algorithm: algorithm?,
            covers,
            profile,
        })
    })
}

/// What the MAC of Map-Registers with an xTR-ID covers; without one there is no difference.
fn mac_covers(node: &Node<'_>) -> Option<Covered> {
    match node.text()? {
        "message" => Some(Covered::Message),
        "records" => Some(Covered::Records),
        other => {
            node.error(
                &format!("{other:?} is no part of a message"),
                "write \"message\" or \"records\"",
            );
            None
        }
    }
}

fn petr(node: &Node<'_>) -> Option<Petr> {
    let table = node.table()?;
    let endpoint = table.require("address", "\"ADDRESS\"").and_then(|node| values::endpoint(&node));
    let priority = table.or("priority", 1, values::octet);
    let weight = table.or("weight", 100, values::octet);
    table.finish();
    Some(Petr { endpoint: endpoint?, priority, weight })
}

/// What the `[[eid]]` sections refer to.
struct Site<'a> {
    rlocs: &'a [IpAddr],
    names: &'a [String],
    tun: &'a str,
    environment: &'a Environment,
    versions: Versions,
}

fn read_eids(
    root: &Table<'_>,
    site: &Site<'_>,
    host: &mut HostConfig,
    versions: &mut BTreeMap<EidPrefix, MapVersion>,
) -> Vec<LocalEid> {
    let example = "[{ prefix = \"ADDRESS/LENGTH\" }], or better a section [[eid]]";
    let Some(sections) = root.require("eid", example) else { return Vec::new() };
    let mut claims = Claims::default();
    let mut eids = Vec::new();
    for node in sections.list().unwrap_or_default() {
        let Some(table) = node.table() else { continue };
        let place = table.require("prefix", "\"ADDRESS/LENGTH\"");
        let prefix = place.as_ref().and_then(values::eid_prefix);
        let instance_id = table.or("instance-id", InstanceId::DEFAULT, values::instance_id);
        let locator_set =
            table.get("locator-set").map(|n| locator_set(&n, site.names)).unwrap_or_default();
        let version = site.versions.read(&table);
        if let Some(node) = table.get("interfaces") {
            site_interfaces(&node, site, &mut host.site_interfaces);
        }
        table.finish();
        let (Some(place), Some(prefix)) = (place, prefix) else { continue };
        router::check_holds_no_rloc(&place, prefix, site.rlocs);
        claim(&mut claims, &place, prefix, instance_id);
        host.site_prefixes.push(prefix);
        let prefix = EidPrefix::new(instance_id, prefix);
        versions.extend(version.map(|version| (prefix, version)));
        eids.push(LocalEid { prefix, locator_set });
    }
    eids
}

/// A packet from the site says its instance by its source address only, so instances must not share addresses.
fn claim(claims: &mut Claims, node: &Node<'_>, prefix: IpNet, instance_id: InstanceId) {
    let owner = usize::try_from(instance_id.get()).unwrap_or_default();
    claims.claim(
        node,
        EidPrefix::new(InstanceId::DEFAULT, prefix),
        (owner, &format!("instance {instance_id}")),
        Nesting::Allowed,
        "give every address to one instance only",
    );
}

/// The name of a locator, or a list of names.
fn locator_set(node: &Node<'_>, names: &[String]) -> Vec<String> {
    let one = |node: &Node<'_>| {
        let name = owned_text(node)?;
        if !names.contains(&name) {
            let known = names.iter().map(String::as_str);
            let instead = match nearest(&name, known) {
                Some(other) => format!("did you mean {other:?}?"),
                None => format!("write one of: {}", names.join(", ")),
            };
            node.error(&format!("no locator is named {name:?} in xtr.rlocs"), &instead);
            return None;
        }
        Some(name)
    };
    if node.as_text().is_some() { one(node).into_iter().collect() } else { node.list_of(one) }
}

fn site_interfaces(node: &Node<'_>, site: &Site<'_>, interfaces: &mut Vec<String>) {
    for node in node.list().unwrap_or_default() {
        let Some(name) = values::interface(&node) else { continue };
        if name == site.tun {
            node.error(&format!("{name} is the tunnel device"), "write an interface of the site");
            continue;
        }
        if router::check_interface(&node, &name, site.environment) && !interfaces.contains(&name) {
            interfaces.push(name);
        }
    }
}
