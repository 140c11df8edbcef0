//! `mapping.toml`: `[mapping]` and `[[site]]`; `[ddt]` has a file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mapping::config::{Algorithm, MappingConfig, Site, SiteKey, SitePrefix};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::timers;

use super::node::{Node, Table};
use super::overlap::{Claims, Nesting};
use super::{Environment, cluster, ddt, gateway::owned_text, router, secret, values};

/// The bounds of `registration-timeout`.
const REGISTRATION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3)..=Duration::from_secs(86_400);

/// Reads the sections of a Map-Server and Map-Resolver.
pub(crate) fn read(root: &Table<'_>, environment: &Environment) -> MappingConfig {
    let mut config = MappingConfig::new("", Vec::new());
    if let Some(table) = root.get("mapping").and_then(|node| node.table()) {
        config.name = table.or("name", "mapping".to_owned(), owned_text);
        config.listen = listen(&table, environment);
        config.registration_timeout =
            table.or("registration-timeout", timers::REGISTRATION_TIMEOUT, |node| {
                values::duration(node, REGISTRATION_TIMEOUTS)
            });
        config.state_dir = table.get("state-dir").and_then(|node| state_dir(&node, environment));
        table.finish();
    }
    cluster::read(root, environment, &mut config);
    let mut claims = Claims::default();
    let mut names = BTreeMap::new();
    let sites = root.get("site").and_then(|node| node.list()).unwrap_or_default();
    for (number, node) in sites.iter().enumerate() {
        if let Some(table) = node.table() {
            config.sites.push(read_site(&table, number, &mut names, &mut claims, environment));
            table.finish();
        }
    }
    config.ddt = ddt::read(root, &config);
    config
}

/// A relative path starts at the file's directory. Whether the daemon may write there only the daemon can tell.
fn state_dir(node: &Node<'_>, environment: &Environment) -> Option<PathBuf> {
    let path = environment.directory.join(node.text()?);
    if environment.host.is_none() {
        return Some(path);
    }
    let shown = path.display();
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => return Some(path),
        Ok(_) => node.error(&format!("{shown} is not a directory"), "name a directory"),
        Err(error) => {
            let instead = format!("make it with `install -d -m 0700 {shown}`");
            node.error(&format!("{shown} cannot be used: {error}"), &instead);
        }
    }
    None
}

fn listen(table: &Table<'_>, environment: &Environment) -> Vec<IpAddr> {
    let Some(node) = table.require("listen", "[\"ADDRESS\"]") else { return Vec::new() };
    let addresses = node.list_of(|node| {
        let address = values::address(node)?;
        if address.is_unspecified() {
            node.error(
                &format!("{address} is every address"),
                "name each: an answer must leave from the address that was asked",
            );
            return None;
        }
        if address.is_multicast() {
            node.error(&format!("{address} is multicast"), "write a unicast address");
            return None;
        }
        Some((node.clone(), address))
    });
    for (node, address) in &addresses {
        router::check_on_host(node, *address, environment);
    }
    router::check_distinct(&addresses);
    addresses.into_iter().map(|(_, address)| address).collect()
}

fn read_site(
    table: &Table<'_>,
    number: usize,
    names: &mut BTreeMap<String, usize>,
    claims: &mut Claims,
    environment: &Environment,
) -> Site {
    let name = site_name(table, names);
    let keys = table
        .require("keys", "[{ id = 1, file = \"PATH\" }]")
        .map(|node| read_keys(&node, environment))
        .unwrap_or_default();
    let prefixes = table
        .require("eid-prefixes", "[\"ADDRESS/LENGTH\"]")
        .map(|node| node.list_of(|node| Some((node.clone(), site_prefix(node)?))))
        .unwrap_or_default();
    let shown = format!("site {name:?}");
    for (node, site_prefix) in &prefixes {
        claims.claim(
            node,
            site_prefix.prefix,
            (number, &shown),
            Nesting::Allowed,
            "give every address to one site only",
        );
    }
    let allowed_locators =
        table.get("allowed-locators").map(|n| n.list_of(values::prefix)).unwrap_or_default();
    let prefixes = prefixes.into_iter().map(|(_, prefix)| prefix).collect();
    Site { allowed_locators, ..Site::new(name, keys, prefixes) }
}

fn site_name(table: &Table<'_>, names: &mut BTreeMap<String, usize>) -> String {
    let Some(node) = table.require("name", "\"NAME\"") else { return String::new() };
    let Some(name) = owned_text(&node) else { return String::new() };
    let line = node.report().line(node.path());
    if let Some(earlier) = names.get(&name) {
        node.error(
            &format!("{name:?} is already the name of the site in line {earlier}"),
            "give every site its own name",
        );
    } else {
        names.insert(name.clone(), line);
    }
    name
}

fn read_keys(node: &Node<'_>, environment: &Environment) -> Vec<SiteKey> {
    let mut keys: Vec<SiteKey> = Vec::new();
    for node in node.list().unwrap_or_default() {
        let Some(table) = node.table() else { continue };
        let id = table.require("id", "1");
        let number = id.as_ref().and_then(values::octet);
        if let (Some(id), Some(number)) = (&id, number)
            && keys.iter().any(|key| key.id == number)
        {
            id.error(&format!("key ID {number} is given twice"), "number the keys of a site apart");
        }
        let secret = secret::read(&table, "file", "env", environment);
        let algorithms = table
            .get("algorithms")
            .map(|node| node.list_of(values::algorithm))
            .unwrap_or_else(|| vec![Algorithm::HmacSha256Hkdf, Algorithm::HmacSha256]);
        table.finish();
        if let (Some(id), Some(secret)) = (number, secret) {
            keys.push(SiteKey { id, secret, algorithms });
        }
    }
    keys
}

/// `"PREFIX"`, or `{ prefix, instance-id, accept-more-specifics }`.
fn site_prefix(node: &Node<'_>) -> Option<SitePrefix> {
    if !node.is_table() {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, values::eid_prefix(node)?);
        return Some(SitePrefix { prefix, accept_more_specifics: false });
    }
    let table = node.table()?;
    let prefix = table.require("prefix", "\"ADDRESS/LENGTH\"").and_then(|n| values::eid_prefix(&n));
    let instance_id = table.or("instance-id", InstanceId::DEFAULT, values::instance_id);
    let accept_more_specifics = table.or("accept-more-specifics", false, Node::boolean);
    table.finish();
    Some(SitePrefix { prefix: EidPrefix::new(instance_id, prefix?), accept_more_specifics })
}
