//! `[[dynamic-eid]]`: ranges of EIDs whose hosts come and go, and what they find on a link wherever they are.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mapping::eid::{EidPrefix, InstanceId};
use xtr::config::{DynamicRange, GatewayMac, HostConfig, LocalEid};
use xtr::host::lan::Mac;

use super::node::{Node, Table};
use super::overlap::{Claims, Nesting};
use super::{router, values};

/// The bounds of `timeout`: a host is asked for a sign of life three times before it is given up.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Reads the sections, beside the own EID-prefixes; `interfaces` and `locator_set` read these keys as in `[[eid]]`.
pub(crate) fn read(
    root: &Table<'_>,
    (rlocs, eids): (&[IpAddr], &[LocalEid]),
    host: &mut HostConfig,
    interfaces: impl Fn(&Node<'_>, &mut Vec<String>),
    locator_set: impl Fn(&Node<'_>) -> Vec<String>,
) {
    let Some(sections) = root.get("dynamic-eid") else { return };
    let mut claims = Claims::default();
    for (number, node) in sections.list().unwrap_or_default().into_iter().enumerate() {
        let Some(table) = node.table() else { continue };
        let place = table.require("range", "\"ADDRESS/LENGTH\"");
        let range = place.as_ref().and_then(values::eid_prefix);
        let instance_id = table.or("instance-id", InstanceId::DEFAULT, values::instance_id);
        let mut on = Vec::new();
        if let Some(node) = table.require("interfaces", "[\"NAME\"]") {
            interfaces(&node, &mut on);
        }
        let locator_set = table.get("locator-set").map(|n| locator_set(&n)).unwrap_or_default();
        let timeout =
            table.or("timeout", DynamicRange::TIMEOUT, |node| values::duration(node, TIMEOUTS));
        let limit = table.or("limit", DynamicRange::LIMIT, |node| {
            node.integer(1..=1_000_000).and_then(|limit| usize::try_from(limit).ok())
        });
        let extended_subnet = table.or("extended-subnet", false, Node::boolean);
        if let Some(node) = table.get("gateway") {
            gateway(&node, range, &on, &mut host.gateways);
        }
        if let Some(path) = table.get("leases").and_then(|node| node.text().map(PathBuf::from))
            && !host.leases.contains(&path)
        {
            host.leases.push(path);
        }
        table.finish();
        let (Some(place), Some(range)) = (place, range) else { continue };
        router::check_holds_no_rloc(&place, range, rlocs);
        let range = EidPrefix::new(instance_id, range);
        check_instance(&place, range, eids);
        claims.claim(
            &place,
            EidPrefix::new(InstanceId::DEFAULT, range.prefix()),
            (number, "another range"),
            Nesting::Refused,
            "give every address to one range only",
        );
        for name in &on {
            if !host.site_interfaces.contains(name) {
                host.site_interfaces.push(name.clone());
            }
        }
        let interfaces = on;
        host.ranges.push(DynamicRange {
            range,
            locator_set,
            interfaces,
            timeout,
            limit,
            extended_subnet,
        });
    }
}

/// What comes from the site does not say its instance: its addresses tell it, so that they are of one instance only.
fn check_instance(place: &Node<'_>, range: EidPrefix, eids: &[LocalEid]) {
    let (addresses, instance_id) = (range.prefix(), range.instance_id());
    let overlaps = |own: &IpNet| own.contains(&addresses) || addresses.contains(own);
    let other = eids.iter().map(|eid| eid.prefix);
    let other =
        other.filter(|own| own.instance_id() != instance_id).find(|own| overlaps(&own.prefix()));
    if let Some(other) = other {
        let (own, id) = (other.prefix(), other.instance_id().get());
        place.error(
            &format!("{addresses} shares addresses with the [[eid]] {own} of instance {id}"),
            &format!("write instance-id = {id}, or another range"),
        );
    }
}

/// `{ mac = "00:00:5e:00:01:01", addresses = [..] }`, on each of these interfaces.
fn gateway(
    node: &Node<'_>,
    range: Option<IpNet>,
    interfaces: &[String],
    gateways: &mut Vec<GatewayMac>,
) {
    let Some(table) = node.table() else { return };
    let mac = table.require("mac", "\"00:00:5e:00:01:01\"").and_then(|node| mac(&node));
    let addresses = table.require("addresses", "[\"ADDRESS\"]");
    let addresses = addresses.map(|node| gateway_addresses(&node, range)).unwrap_or_default();
    table.finish();
    let Some(mac) = mac else { return };
    for interface in interfaces {
        match gateways.iter_mut().find(|known| known.interface == *interface) {
            Some(known) if known.mac != mac => {
                let known = known.mac;
                node.error(
                    &format!("{interface} has the gateway {known} in another section"),
                    "write one gateway MAC per interface",
                );
            }
            Some(known) => {
                let new = addresses.iter().filter(|new| !known.addresses.contains(new));
                let new: Vec<IpAddr> = new.copied().collect();
                known.addresses.extend(new);
            }
            None => gateways.push(GatewayMac {
                interface: interface.clone(),
                mac,
                addresses: addresses.clone(),
            }),
        }
    }
}

/// The addresses that hosts of the range have as their default gateway.
fn gateway_addresses(node: &Node<'_>, range: Option<IpNet>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for node in node.list().unwrap_or_default() {
        let Some(address) = values::address(&node) else { continue };
        if let Some(range) = range {
            check_gateway_address(&node, address, range);
        }
        found.push((node, address));
    }
    router::check_distinct(&found);
    found.into_iter().map(|(_, address)| address).collect()
}

fn check_gateway_address(node: &Node<'_>, address: IpAddr, range: IpNet) {
    let instead = format!("write an address of {range}, which its hosts have as default gateway");
    let is_subnet_wide = |range: IpNet| match range {
        IpNet::V4(range) if range.prefix_len() < 31 => {
            [range.network(), range.broadcast()].map(IpAddr::V4).contains(&address)
        }
        IpNet::V4(_) => false,
        IpNet::V6(range) => range.prefix_len() < 127 && IpAddr::V6(range.network()) == address,
    };
    if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
        node.error(&format!("{address} is no host's address"), &instead);
    } else if address.is_ipv4() != range.addr().is_ipv4() {
        node.error(&format!("{address} is not of the family of {range}"), &instead);
    } else if is_subnet_wide(range) {
        node.error(&format!("{address} is the address of all of {range}"), &instead);
    } else if !range.contains(&address) {
        node.warning(&format!(
            "{address} is outside the range {range}: hosts find it only if their subnet is wider than the range"
        ));
    }
}

fn mac(node: &Node<'_>) -> Option<Mac> {
    let text = node.text()?;
    match text.parse::<Mac>() {
        Ok(mac) if mac.is_station() => Some(mac),
        Ok(_) => {
            node.error(
                &format!("{text} is the MAC of no single station"),
                "write one like \"00:00:5e:00:01:01\" (RFC 5798)",
            );
            None
        }
        Err(()) => {
            node.error(&format!("{text:?} is no MAC"), "write one like \"00:00:5e:00:01:01\"");
            None
        }
    }
}
