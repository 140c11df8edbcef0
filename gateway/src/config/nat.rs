//! NAT traversal: `[nat]` of `mapping.toml`.

use mapping::config::{Algorithm, Profile, Rtr, RtrKey};

use super::node::{Node, Table};
use super::{Environment, mapping::peer_algorithm, router, secret, values};

/// Reads `[nat]` of a Map-Server: the RTRs it tells xTRs of, and takes relayed Map-Registers from.
pub(crate) fn rtrs(root: &Table<'_>, environment: &Environment) -> Vec<Rtr> {
    let Some(table) = root.get("nat").and_then(|node| node.table()) else { return Vec::new() };
    let rtrs = table
        .require("rtrs", "[{ address = \"ADDRESS\", key-id = 1, key-file = \"PATH\" }]")
        .map(|node| node.list_of(|node| rtr(node, environment)))
        .unwrap_or_default();
    router::check_distinct(
        &rtrs.iter().map(|(node, rtr)| (node.clone(), rtr.address)).collect::<Vec<_>>(),
    );
    table.finish();
    rtrs.into_iter().map(|(_, rtr)| rtr).collect()
}

fn rtr<'a>(node: &Node<'a>, environment: &Environment) -> Option<(Node<'a>, Rtr)> {
    let table = node.table()?;
    let place = table.require("address", "\"ADDRESS\"");
    let address = place.as_ref().and_then(values::rloc);
    let key = rtr_key(&table, environment);
    table.finish();
    Some((place?, Rtr { address: address?, key: Some(key?) }))
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
