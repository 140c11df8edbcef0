//! `mapping.toml`: `[mapping]` and `[[site]]`; `[ddt]` has a file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mapping::config::{Algorithm, MappingConfig, Profile, Site, SiteKey, SiteName, SitePrefix};
use mapping::eid::{EidPrefix, InstanceId, NamePrefix};
use mapping::timers;

use super::node::{Node, Table};
use super::overlap::{Claims, Nesting};
use super::{
    Environment, clients, cluster, ddt, gateway::owned_text, lisp_sec, nat, router, secret,
    subscription, values,
};

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
        config.clients = clients::read(&table);
        config.state_dir = table.get("state-dir").and_then(|node| state_dir(&node, environment));
        table.finish();
    }
    cluster::read(root, environment, &mut config);
    let mut claims = Claims::default();
    let mut names = BTreeMap::new();
    let mut site_ids = subscription::SiteIds::default();
    let sites = root.get("site").and_then(|node| node.list()).unwrap_or_default();
    for (number, node) in sites.iter().enumerate() {
        if let Some(table) = node.table() {
            let mut site = read_site(&table, number, &mut names, &mut claims, environment);
            site.site_id = table.get("site-id").and_then(|node| site_ids.read(&node));
            config.sites.push(site);
            table.finish();
        }
    }
    config.lisp_sec = lisp_sec::of_mapping(root, environment, &config.sites);
    config.rtrs = nat::rtrs(root, environment);
    if let Some((first, second)) = config.shared_secret() {
        // AU-10. Which file is wrong only the operator can tell.
        let name = &config.sites[first].name;
        sites[second].warning(&format!(
            "a secret is the same as one of site {name:?}: who has it can register for both; give every site its own"
        ));
    }
    config.subscribers = subscription::subscribers(root, environment, &mut site_ids);
    config.subscriptions = subscription::limits(root);
    config.ddt = ddt::read(root, &config);
    config
}

/// A relative path starts at the file's directory. Whether the daemon may write there only the daemon can tell.
pub(super) fn state_dir(node: &Node<'_>, environment: &Environment) -> Option<PathBuf> {
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
    let profile = table.or("profile", Profile::default(), values::profile);
    let keys = table
        .require("keys", "[{ id = 1, file = \"PATH\" }]")
        .map(|node| read_keys(&node, profile, environment))
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
    Site {
        allowed_locators,
        eid_names: table
            .get("eid-names")
            .map(|node| node.list_of(site_name_prefix))
            .unwrap_or_default(),
        profile,
        admin_down: table.or("admin-down", false, Node::boolean),
        force_proxy_reply: table.or("force-proxy-reply", false, Node::boolean),
        max_registrations: table.or("max-registrations", timers::MAX_SITE_REGISTRATIONS, |node| {
            let most = i64::try_from(timers::MAX_REGISTRATIONS).ok()?;
            node.integer(1..=most).and_then(|value| usize::try_from(value).ok())
        }),
        ..Site::new(name, keys, prefixes)
    }
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

fn read_keys(node: &Node<'_>, profile: Profile, environment: &Environment) -> Vec<SiteKey> {
    let mut keys: Vec<SiteKey> = Vec::new();
    for node in node.list().unwrap_or_default() {
        let Some(table) = node.table() else { continue };
        let id = table.require("id", "1");
        let number = id.as_ref().and_then(values::octet);
        // Twice while one secret replaces the other under the same Key ID (AU-09).
        if let (Some(id), Some(number)) = (&id, number)
            && keys.iter().filter(|key| key.id == number).count() >= 2
        {
            id.error(
                &format!("key ID {number} is given more than twice"),
                "keep the old secret and the new one",
            );
        }
        let secret = secret::read(&table, "file", "env", environment);
        let algorithms = match table.get("algorithms") {
            Some(node) => node.list_of(|node| peer_algorithm(node, profile)),
            None => default_algorithms(profile),
        };
        table.finish();
        if let (Some(id), Some(secret)) = (number, secret) {
            keys.push(SiteKey { id, secret, algorithms });
        }
    }
    keys
}

/// What a peer can do; HMAC-SHA-1 without being asked for only where there is nothing else.
pub(super) fn default_algorithms(profile: Profile) -> Vec<Algorithm> {
    match profile {
        Profile::Rfc9301 => vec![Algorithm::HmacSha256Hkdf, Algorithm::HmacSha256],
        Profile::LispersNet | Profile::Vpp => vec![Algorithm::HmacSha256],
        Profile::Oor => vec![Algorithm::HmacSha1],
    }
}

/// An algorithm of a peer's key: HMAC-SHA-1 too, for one that is old (AU-03).
pub(super) fn peer_algorithm(node: &Node<'_>, profile: Profile) -> Option<Algorithm> {
    if node.as_text() != Some("hmac-sha-1-96") {
        return values::algorithm(node);
    }
    if profile == Profile::Rfc9301 {
        node.error(
            "HMAC-SHA-1 is not for a peer of the profile rfc9301 (RFC 9301 §1.1)",
            "give the peer's profile: \"oor\", \"lispers.net\" or \"vpp\"",
        );
        return None;
    }
    node.warning("HMAC-SHA-1 is weak: not for the public Internet (RFC 9301 §1.1)");
    Some(Algorithm::HmacSha1)
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

/// `"NAME"`, or `{ name, instance-id, accept-more-specifics }` (RFC 9735).
fn site_name_prefix(node: &Node<'_>) -> Option<SiteName> {
    if !node.is_table() {
        let name = distinguished_name(node, InstanceId::DEFAULT)?;
        return Some(SiteName { name, accept_more_specifics: false });
    }
    let table = node.table()?;
    let instance_id = table.or("instance-id", InstanceId::DEFAULT, values::instance_id);
    let name =
        table.require("name", "\"NAME\"").and_then(|node| distinguished_name(&node, instance_id));
    let accept_more_specifics = table.or("accept-more-specifics", false, Node::boolean);
    table.finish();
    Some(SiteName { name: name?, accept_more_specifics })
}

fn distinguished_name(node: &Node<'_>, instance_id: InstanceId) -> Option<NamePrefix> {
    let name = NamePrefix::whole(instance_id, node.text()?);
    if name.is_none() {
        let most = NamePrefix::MAX_LEN;
        node.error(
            "is no distinguished name (RFC 9735)",
            &format!("write up to {most} octets without NUL"),
        );
    }
    name
}
