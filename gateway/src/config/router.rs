//! What the gateway and xtr files share: `tun`, `[data]`, timers, peers, locators.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use xtr::config::{
    DEFAULT_MTU, DataConfig, Endpoint, Intake, PathMtuConfig, ProbeConfig, RingIntake, Role,
};
use xtr::forward::RateLimits;
use xtr::packet::Dscp;
use xtr::packet::icmp::Rate;

use super::node::{Node, Table, nearest};
use super::{Environment, trusted_core, values};

/// The engine's default TUN device.
const DEFAULT_TUN: &str = "isthmus0";
/// The bounds of the intervals of `probe`.
const PROBE_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// `map-resolvers`: required, at least one.
pub(crate) fn map_resolvers(table: &Table<'_>) -> Vec<Endpoint> {
    table
        .require("map-resolvers", "[\"ADDRESS\"]")
        .map(|node| node.list_of(values::endpoint))
        .unwrap_or_default()
}

/// `probe`: `{ interval, idle-interval, tries, hold-down }`, or `"off"`.
pub(crate) fn probe(table: &Table<'_>) -> Option<ProbeConfig> {
    table.or("probe", Some(ProbeConfig::default()), |node| match node.as_text() {
        Some("off") => Some(None),
        Some(text) => {
            let instead = "write \"off\" or { interval = \"1s\", tries = 3 }";
            node.error(&format!("{text:?} is no way to probe"), instead);
            None
        }
        None => read_probe(node).map(Some),
    })
}

fn read_probe(node: &Node<'_>) -> Option<ProbeConfig> {
    let table = node.table()?;
    let usual = ProbeConfig::default();
    let interval = |key: &'static str, default: Duration| {
        table.or(key, default, |node| values::duration(node, PROBE_INTERVALS))
    };
    let number = |key: &'static str, default: u32, most: i64| {
        table.or(key, default, |node| {
            node.integer(1..=most).and_then(|number| u32::try_from(number).ok())
        })
    };
    let often = interval("interval", usual.interval);
    let config = ProbeConfig {
        interval: often,
        idle_interval: interval("idle-interval", usual.idle_interval.max(often)),
        tries: number("tries", usual.tries, 10),
        hold_down: number("hold-down", usual.hold_down, 100),
    };
    if config.idle_interval < config.interval
        && let Some(node) = table.get("idle-interval")
    {
        node.error(
            "is shorter than interval",
            "locators without traffic are probed as often as the others at most",
        );
    }
    table.finish();
    Some(config)
}

/// `tun` of the role's table and the `[data]` section.
pub(crate) fn data(
    root: &Table<'_>,
    role: Option<&Table<'_>>,
    (rlocs, kind): (Vec<IpAddr>, Role),
    environment: &Environment,
) -> (DataConfig, PathMtuConfig) {
    let (tun_name, queues) = role
        .and_then(|role| role.get("tun"))
        .and_then(|node| node.table())
        .map(|table| {
            let name = table.or("name", DEFAULT_TUN.to_owned(), values::interface);
            let queues = table.or("queues", None, |node| auto_or_number(node, "queues"));
            table.finish();
            (name, queues)
        })
        .unwrap_or_else(|| (DEFAULT_TUN.to_owned(), None));
    let (count, cpus) = role.map_or((None, Vec::new()), |role| workers(role, queues, environment));
    let mut config =
        DataConfig { rlocs, tun_name, queues: count.or(queues), cpus, ..DataConfig::default() };
    let mut path_mtu = PathMtuConfig { probe: true, ..PathMtuConfig::default() };
    if let Some(table) = root.get("data").and_then(|node| node.table()) {
        config.source_ports = table.or("source-ports", config.source_ports, |node| {
            node.integer(1..=1024).and_then(|value| u16::try_from(value).ok())
        });
        config.zero_udp_checksum = table.or("udp-checksum", false, udp_checksum);
        config.dscp = table.or("dscp", Dscp::Copy, dscp);
        config.copy_ecn = table.or("copy-ecn", true, Node::boolean);
        config.log_unusual_ecn = table.or("log-unusual-ecn", true, Node::boolean);
        config.icmp_rate = table.or("icmp-errors", config.icmp_rate, icmp_errors);
        config.rate_limits = table.or("rate-limit", RateLimits::default(), rate_limits);
        config.trusted_core =
            table.get("trusted-core").and_then(|node| trusted_core::read(&node, kind));
        path_mtu = read_path_mtu(&table, &mut config);
        table.finish();
    }
    (config, path_mtu)
}

/// `mtu` and `path-mtu`.
fn read_path_mtu(table: &Table<'_>, config: &mut DataConfig) -> PathMtuConfig {
    let mut path_mtu = table.or("mtu", PathMtuConfig::default(), mtu);
    path_mtu.probe = true;
    if let Some(node) = table.get("path-mtu") {
        (config.path_mtu_icmp, path_mtu.probe) = path_mtu_mode(&node).unwrap_or((true, true));
    }
    if !config.path_mtu_icmp && !path_mtu.probe {
        // RFC 9300 §7.1: with nobody to say better.
        path_mtu.ipv4 = path_mtu.ipv4.or(Some(DEFAULT_MTU));
        path_mtu.ipv6 = path_mtu.ipv6.or(Some(DEFAULT_MTU));
    }
    path_mtu
}

/// `{ ipv4, ipv6 }`.
fn mtu(node: &Node<'_>) -> Option<PathMtuConfig> {
    let table = node.table()?;
    let octets = |key: &'static str, least: i64| {
        table.or(key, None, |node| {
            node.integer(least..=65_535).and_then(|mtu| u16::try_from(mtu).ok()).map(Some)
        })
    };
    let (ipv4, ipv6) = (octets("ipv4", 576), octets("ipv6", 1280));
    table.finish();
    Some(PathMtuConfig { ipv4, ipv6, probe: false })
}

/// `"stateless"`, or which ways of learning it are used: ICMP, probes.
fn path_mtu_mode(node: &Node<'_>) -> Option<(bool, bool)> {
    const INSTEAD: &str = "write \"stateless\" or { icmp = true, probe = true }";
    if let Some(text) = node.as_text() {
        if text == "stateless" {
            return Some((false, false));
        }
        node.error(&format!("{text:?} is no way to know the path MTU"), INSTEAD);
        return None;
    }
    let table = node.table_or(INSTEAD)?;
    let mode = (table.or("icmp", true, Node::boolean), table.or("probe", true, Node::boolean));
    table.finish();
    Some(mode)
}

/// `intake`: where native packets come in. `is_set` says whether the key `interfaces_key` is there; by ring, it has to be.
pub(crate) fn intake(
    table: &Table<'_>,
    (interfaces_key, is_set): (&str, bool),
    environment: &Environment,
    ring: impl FnOnce() -> RingIntake,
) -> Intake {
    let Some(node) = table.get("intake") else { return Intake::Tun };
    match node.text() {
        Some("ring") if !is_set => node.error(
            &format!("\"ring\" needs {interfaces_key}"),
            "name there the interfaces that the packets come from, or write \"tun\"",
        ),
        Some("ring") => {
            let ring = ring();
            let is_ethernet =
                |name: &str| environment.host.as_ref().is_none_or(|host| host.is_ethernet(name));
            for name in ring.interfaces.iter().filter(|name| !is_ethernet(name)) {
                let what = format!("\"ring\" takes Ethernet frames, and {name} has none");
                let instead = format!("take {name} out of {interfaces_key}, or write \"tun\"");
                node.error(&what, &instead);
            }
            if ring.interfaces.len() <= RingIntake::MAX_INTERFACES {
                return Intake::Ring(ring);
            }
            let most = RingIntake::MAX_INTERFACES;
            node.error(
                &format!("{interfaces_key} names more than {most} interfaces"),
                "write \"tun\": rings are for a few interfaces",
            );
        }
        Some("tun") | None => {}
        Some(other) => {
            node.error(&format!("{other:?} is no intake"), "write \"tun\" or \"ring\"");
        }
    }
    Intake::Tun
}

/// `workers` of the role's table: how many, and the cores they run on. A worker has one queue: `tun.queues` may say the same.
fn workers(
    role: &Table<'_>,
    queues: Option<usize>,
    environment: &Environment,
) -> (Option<usize>, Vec<usize>) {
    let example = "write a table such as { count = \"auto\", cpus = [2, 3] }";
    let Some(table) = role.get("workers").and_then(|node| node.table_or(example)) else {
        return (None, Vec::new());
    };
    let count = table.get("count").and_then(|node| {
        let count = auto_or_number(&node, "workers")?;
        if let (Some(count), Some(queues)) = (count, queues)
            && count != queues
        {
            node.error(
                &format!("{count} workers cannot have {queues} queues"),
                "every worker has one queue: leave tun.queues out",
            );
        }
        count
    });
    let cpus = table.get("cpus").map(|node| cpus(&node, environment)).unwrap_or_default();
    table.finish();
    (count, cpus)
}

/// Cores that are there, each once.
fn cpus(node: &Node<'_>, environment: &Environment) -> Vec<usize> {
    let seen = RefCell::new(Vec::new());
    node.list_of(|node| {
        let cpu = node.integer(0..=1023).and_then(|value| usize::try_from(value).ok())?;
        if seen.borrow().contains(&cpu) {
            node.error(
                &format!("CPU {cpu} is given twice"),
                "two workers on a core slow each other",
            );
            return None;
        }
        seen.borrow_mut().push(cpu);
        if let Some(host) = &environment.host
            && !host.has_cpu(cpu)
        {
            let instead = "write CPUs that `lscpu` lists as on-line";
            node.error(&format!("this host has no CPU {cpu} on-line"), instead);
            return None;
        }
        Some(cpu)
    })
}

/// `"auto"` (one per core) or a number of `what`.
fn auto_or_number(node: &Node<'_>, what: &str) -> Option<Option<usize>> {
    match node.as_text() {
        Some("auto") => Some(None),
        Some(text) => {
            node.error(&format!("{text:?} is no number of {what}"), "write \"auto\" or 1 to 256");
            None
        }
        None => node.integer(1..=256).and_then(|value| usize::try_from(value).ok()).map(Some),
    }
}

/// `{ per-locator, per-site }`, packets per second.
fn rate_limits(node: &Node<'_>) -> Option<RateLimits> {
    const INSTEAD: &str =
        "write { per-locator = 1000000 } or { per-site = 1000000 }, packets per second";
    let table = node.table_or(INSTEAD)?;
    if !table.has("per-locator") && !table.has("per-site") && table.entries().is_empty() {
        node.error("limits nothing", INSTEAD);
    }
    let rate = |key: &'static str| {
        table.or(key, None, |node| {
            node.integer(1..=1_000_000_000).and_then(|rate| u32::try_from(rate).ok()).map(Some)
        })
    };
    let limits = RateLimits { per_locator: rate("per-locator"), per_site: rate("per-site") };
    table.finish();
    Some(limits)
}

/// `{ per-second, burst }`.
fn icmp_errors(node: &Node<'_>) -> Option<Rate> {
    let table = node.table()?;
    let number = |key: &'static str, default: u32| {
        table.or(key, default, |node| {
            node.integer(1..=1_000_000).and_then(|n| u32::try_from(n).ok())
        })
    };
    let usual = Rate::default();
    let rate = Rate {
        per_second: number("per-second", usual.per_second),
        burst: number("burst", usual.burst),
    };
    table.finish();
    Some(rate)
}

/// `"copy"` (uniform model) or a code point (pipe model).
fn dscp(node: &Node<'_>) -> Option<Dscp> {
    match node.as_text() {
        Some("copy") => Some(Dscp::Copy),
        Some(text) => {
            node.error(&format!("{text:?} is no DSCP"), "write \"copy\" or a code point, 0 to 63");
            None
        }
        None => node.integer(0..=63).and_then(|value| u8::try_from(value).ok()).map(Dscp::Fixed),
    }
}

fn udp_checksum(node: &Node<'_>) -> Option<bool> {
    match node.text()? {
        "computed" => Some(false),
        "zero" => Some(true),
        other => {
            node.error(
                &format!("{other:?} is no way to fill the checksum"),
                "write \"computed\" or \"zero\"",
            );
            None
        }
    }
}

/// Reports an address that this host does not have; offline, nothing is known of the host.
pub(crate) fn check_on_host(node: &Node<'_>, address: IpAddr, environment: &Environment) {
    if let Some(host) = &environment.host
        && !host.has_address(address)
    {
        node.error(
            &format!("{address} is not an address of this host"),
            "assign it to an interface first, or write one that `ip address` lists",
        );
    }
}

/// Reports an interface that this host does not have, and returns whether it has it; offline, every interface is taken to be there.
pub(crate) fn check_interface(node: &Node<'_>, name: &str, environment: &Environment) -> bool {
    let Some(host) = environment.host.as_ref().filter(|host| !host.has_interface(name)) else {
        return true;
    };
    let instead = match nearest(name, host.interfaces()) {
        Some(other) => format!("did you mean {other:?}?"),
        None => "write one that `ip link` lists".to_owned(),
    };
    node.error(&format!("this host has no interface {name}"), &instead);
    false
}

/// Reports own addresses given twice.
pub(crate) fn check_distinct(addresses: &[(Node<'_>, IpAddr)]) {
    for (at, (node, address)) in addresses.iter().enumerate() {
        if addresses[..at].iter().any(|(_, earlier)| earlier == address) {
            node.error(&format!("{address} is given twice"), "give every address once");
        }
    }
}

/// Reports a prefix that contains an own RLOC: packets to that locator would be encapsulated to itself (EN-24).
pub(crate) fn check_holds_no_rloc(node: &Node<'_>, prefix: IpNet, rlocs: &[IpAddr]) {
    for rloc in rlocs.iter().filter(|rloc| prefix.contains(*rloc)) {
        node.error(
            &format!("{prefix} contains the own RLOC {rloc}"),
            "EIDs and RLOCs are separate address spaces: correct one of them",
        );
    }
}
