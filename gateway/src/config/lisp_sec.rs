//! LISP-SEC: `[lisp-sec]` of `mapping.toml`, and `lisp-sec` of the sections `[xtr]` and `[gateway]`.

use mapping::config::{ItrKey, LispSec, Secret, Site};
use xtr::config::{LispSec as RouterLispSec, MapServer};

use super::node::{Node, Table};
use super::{Environment, secret, values};

/// Why two secrets must differ (RFC 9303 §6.5).
const INDEPENDENT: &str = "or the ETRs could vouch for prefixes that are not theirs";

/// Reads `[lisp-sec]` of a Map-Server and Map-Resolver with these `sites`.
pub(crate) fn of_mapping(root: &Table<'_>, environment: &Environment, sites: &[Site]) -> LispSec {
    let Some(table) = root.get("lisp-sec").and_then(|node| node.table()) else {
        return LispSec::default();
    };
    let itr_keys = table
        .require("itr-keys", "[{ id = 1, file = \"PATH\" }]")
        .map(|node| node.list_of(|node| itr_key(node, environment, sites)))
        .unwrap_or_default();
    let required = table.or("required", false, Node::boolean);
    table.finish();
    LispSec { itr_keys, required }
}

/// A Key ID may name two secrets while one replaces the other.
fn itr_key(node: &Node<'_>, environment: &Environment, sites: &[Site]) -> Option<ItrKey> {
    let table = node.table()?;
    let id = table.require("id", "1").and_then(|node| values::octet(&node));
    let secret = secret::read(&table, "file", "env", environment);
    if let Some(secret) = secret.as_ref().filter(|secret| is_known(secret)) {
        let has = |site: &&Site| site.keys.iter().any(|key| key.secret == *secret);
        if let Some(site) = sites.iter().find(has) {
            let what = format!("is the secret of site {:?} too", site.name);
            let instead = format!("give the ITRs a secret of their own, {INDEPENDENT}");
            place(&table, node, ["file", "env"]).error(&what, &instead);
        }
    }
    table.finish();
    Some(ItrKey { id: id?, secret: secret? })
}

/// Reads `lisp-sec` of a tunnel router with these Map-Servers.
pub(crate) fn of_router(
    table: &Table<'_>,
    environment: &Environment,
    map_servers: &[MapServer],
) -> Option<RouterLispSec> {
    let node = table.get("lisp-sec")?;
    let table = node.table()?;
    let key_id = table.require("key-id", "1").and_then(|node| values::octet(&node));
    let secret = secret::read(&table, "key-file", "key-env", environment);
    if let Some(secret) = secret.as_ref().filter(|secret| is_known(secret))
        && map_servers.iter().any(|server| server.secret == *secret)
    {
        let instead = format!("use the secret of the Map-Resolver's itr-keys, {INDEPENDENT}");
        place(&table, &node, ["key-file", "key-env"])
            .error("is the secret of a Map-Server too", &instead);
    }
    let required = table.or("required", true, Node::boolean);
    table.finish();
    Some(RouterLispSec { key_id: key_id?, secret: secret?, required })
}

/// Offline no secret is read.
fn is_known(secret: &Secret) -> bool {
    *secret != Secret::new(Vec::new())
}

/// The key that names the secret.
fn place<'a>(table: &Table<'a>, whole: &Node<'a>, keys: [&'static str; 2]) -> Node<'a> {
    let written = keys.into_iter().find(|key| table.has(key));
    written.and_then(|key| table.get(key)).unwrap_or_else(|| whole.clone())
}
