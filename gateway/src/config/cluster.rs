//! `[cluster]` of `mapping.toml`: the etcd that keeps the state of several Map-Servers.

use mapping::config::{ClusterConfig, MappingConfig};

use super::node::{Node, Table};
use super::{Environment, gateway::owned_text, secret, values};

/// Where the state is when the file does not say.
const DEFAULT_PREFIX: &str = "/isthmus/";
/// The longest prefix of keys, octets.
const LONGEST_PREFIX: usize = 256;

/// What is wrong with TLS, and what would be right.
const NO_TLS: (&str, &str) =
    ("TLS to etcd is not spoken", "reach etcd over a network of its own or a tunnel, by HOST:PORT");

/// Reads the section, if there is one, into `config`.
pub(crate) fn read(root: &Table<'_>, environment: &Environment, config: &mut MappingConfig) {
    let Some(table) = root.get("cluster").and_then(|node| node.table()) else { return };
    if cfg!(not(feature = "cluster")) {
        table.error(
            "this program was built without clusters",
            "build it with the feature \"cluster\", or remove the section",
        );
    }
    if config.state_dir.is_some() {
        table.error(
            "stands beside mapping.state-dir",
            "keep one of the two: the state is in etcd or in a directory",
        );
    }
    refuse_tls(&table);
    let endpoints = table
        .require("endpoints", "[\"HOST:PORT\"]")
        .map(|node| read_endpoints(&node))
        .unwrap_or_default();
    let prefix = table.or("prefix", DEFAULT_PREFIX.to_owned(), prefix);
    let user = user(&table, environment);
    table.finish();
    config.cluster = Some(ClusterConfig { endpoints, prefix, user });
}

/// Better said here than found out by a connection that is refused.
fn refuse_tls(table: &Table<'_>) {
    for key in ["tls", "ca-file", "cert-file", "key-file"] {
        if table.has(key)
            && let Some(node) = table.get(key)
        {
            node.error(NO_TLS.0, NO_TLS.1);
        }
    }
}

fn read_endpoints(list: &Node<'_>) -> Vec<String> {
    let mut endpoints: Vec<String> = Vec::new();
    for (node, endpoint) in list.list_of(|node| Some((node.clone(), endpoint(node)?))) {
        if endpoints.contains(&endpoint) {
            node.error(&format!("{endpoint} is given twice"), "name each member once");
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() {
        list.error("no endpoint", "write [\"HOST:PORT\"], one for each member of the etcd cluster");
    }
    endpoints
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn endpoint(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    if text.starts_with("https://") {
        node.error(NO_TLS.0, NO_TLS.1);
        return None;
    }
    let rest = text.strip_prefix("http://").unwrap_or(text);
    let parts = rest.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        values::is_host(host).then_some((host, port))
    });
    match parts {
        Some((host, port)) => Some(format!("{host}:{port}")),
        None => {
            node.error(
                &format!("{text:?} is no endpoint of etcd"),
                "write HOST:PORT, such as \"192.0.2.1:2379\" or \"[2001:db8::1]:2379\"",
            );
            None
        }
    }
}

fn prefix(node: &Node<'_>) -> Option<String> {
    let prefix = owned_text(node)?;
    if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.ends_with('/') {
        node.error(
            &format!("{prefix:?} is no prefix of keys"),
            &format!("write one that ends with a slash, such as {DEFAULT_PREFIX:?}, up to {LONGEST_PREFIX} octets"),
        );
        return None;
    }
    Some(prefix)
}

fn user(table: &Table<'_>, environment: &Environment) -> Option<(String, mapping::config::Secret)> {
    const FILE: &str = "password-file";
    const VARIABLE: &str = "password-env";
    match table.get("user") {
        Some(user) => {
            let secret = secret::read(table, FILE, VARIABLE, environment);
            Some((owned_text(&user)?, secret?))
        }
        None => {
            if let Some(node) = table.get(FILE).or_else(|| table.get(VARIABLE)) {
                node.error("has no user", "write user = \"NAME\" too");
            }
            None
        }
    }
}
