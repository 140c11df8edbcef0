//! NAT traversal: `[nat]` of `mapping.toml`, `nat-traversal` of `[xtr]`, `nat` of a gateway's `[rtr]`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mapping::config::{Algorithm, Profile, Rtr, RtrKey};
use mapping::eid::InstanceId;
use mapping::timers;
use xtr::config::{NatRtr, NatXtr, RtrMapServer};

use super::node::{Node, Table};
use super::{Environment, mapping::peer_algorithm, router, secret, values};

/// The bounds of `keepalive`: the draft's two minutes, or a NAT forgets.
const KEEPALIVES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(119);
/// The bounds of `timeout`.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3)..=Duration::from_secs(3600);

/// `nat-traversal` of an xTR: `true`, or a table.
pub(crate) fn of_xtr(table: &Table<'_>) -> Option<NatXtr> {
    let node = table.get("nat-traversal")?;
    let mut keepalive = timers::NAT_KEEPALIVE;
    if node.is_table() {
        let own = node.table()?;
        keepalive = own.or("keepalive", keepalive, |node| values::duration(node, KEEPALIVES));
        own.finish();
    } else if node.as_text().is_some() {
        return node.wrong_type("write true, or { keepalive = \"20s\" }");
    } else if !node.boolean()? {
        return None;
    }
    if !table.has("xtr-id") || !table.has("site-id") {
        node.error(
            "needs a name for this router",
            "add xtr-id = \"HEXADECIMAL DIGITS\", which no other router has, and site-id = 1",
        );
    }
    Some(NatXtr { keepalive })
}

/// `nat` of a gateway's `[rtr]`, which serves these EID-prefixes.
pub(crate) fn of_rtr(
    table: &Table<'_>,
    environment: &Environment,
    (instance_id, eid_prefixes): (InstanceId, &[IpNet]),
) -> Option<NatRtr> {
    const INSTEAD: &str =
        "write { map-servers = [{ address = \"ADDRESS\", key-id = 1, key-file = \"PATH\" }] }";
    let own = table.get("nat")?.table_or(INSTEAD)?;
    let servers = own
        .require("map-servers", "[{ address = \"ADDRESS\", key-id = 1, key-file = \"PATH\" }]")
        .map(|node| node.list_of(|node| keyed(node, environment)))
        .unwrap_or_default();
    router::check_distinct(
        &servers.iter().map(|(node, address, _)| (node.clone(), *address)).collect::<Vec<_>>(),
    );
    let timeout =
        own.or("timeout", timers::REGISTRATION_TIMEOUT, |node| values::duration(node, TIMEOUTS));
    own.finish();
    let map_servers =
        servers.into_iter().map(|(_, address, key)| RtrMapServer { address, key }).collect();
    Some(NatRtr { map_servers, instance_id, eid_prefixes: eid_prefixes.to_vec(), timeout })
}

/// Reads `[nat]` of a Map-Server: the RTRs it tells xTRs of, and takes relayed Map-Registers from.
pub(crate) fn rtrs(root: &Table<'_>, environment: &Environment) -> Vec<Rtr> {
    let Some(table) = root.get("nat").and_then(|node| node.table()) else { return Vec::new() };
    let rtrs = table
        .require("rtrs", "[{ address = \"ADDRESS\", key-id = 1, key-file = \"PATH\" }]")
        .map(|node| node.list_of(|node| keyed(node, environment)))
        .unwrap_or_default();
    router::check_distinct(
        &rtrs.iter().map(|(node, address, _)| (node.clone(), *address)).collect::<Vec<_>>(),
    );
    table.finish();
    rtrs.into_iter().map(|(_, address, key)| Rtr { address, key: Some(key) }).collect()
}

/// The other side, an RTR or a Map-Server, and the secret shared with it.
fn keyed<'a>(node: &Node<'a>, environment: &Environment) -> Option<(Node<'a>, IpAddr, RtrKey)> {
    let table = node.table()?;
    let place = table.require("address", "\"ADDRESS\"");
    let address = place.as_ref().and_then(values::rloc);
    let key = rtr_key(&table, environment);
    table.finish();
    Some((place?, address?, key?))
}

/// The secret that a Map-Server and an RTR share: without one, whoever can send from an address of the other's could have a site's
/// packets sent to himself.
fn rtr_key(table: &Table<'_>, environment: &Environment) -> Option<RtrKey> {
    let id = table.require("key-id", "1").and_then(|node| values::octet(&node));
    let secret = secret::read(table, "key-file", "key-env", environment);
    let profile = table.or("profile", Profile::default(), values::profile);
    let algorithm = match table.get("algorithm") {
        Some(node) => peer_algorithm(&node, profile).and_then(|algorithm| direct(&node, algorithm)),
        None => {
            Some(if profile == Profile::Oor { Algorithm::HmacSha1 } else { Algorithm::HmacSha256 })
        }
    };
    Some(RtrKey { id: id?, secret: secret?, algorithm: algorithm?, profile })
}

/// What the two tell each other has no nonce to make a key of.
fn direct(node: &Node<'_>, algorithm: Algorithm) -> Option<Algorithm> {
    if algorithm == Algorithm::HmacSha256Hkdf {
        node.error(
            "is not defined between a Map-Server and an RTR",
            "write \"hmac-sha-256-128\", which is the default",
        );
        return None;
    }
    Some(algorithm)
}
