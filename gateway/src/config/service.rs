//! What every role has beside its work: `[log]`, `[metrics]` and `[web]`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Environment;
use super::node::{Node, Table};
use super::router::check_on_host;
use crate::cli::LogFormat;
use crate::web::WebConfig;

/// Logs, metrics and web page of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// How it logs; the command line goes before it.
    pub log_format: Option<LogFormat>,
    /// What it logs; the command line goes before it.
    pub log_level: Option<String>,
    /// Where it serves metrics; `None` = nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where it shows itself to browsers, and to whose; `None` = nowhere.
    pub web: Option<WebConfig>,
}

/// Reads all sections, wherever they are.
pub(crate) fn read(root: &Table<'_>, environment: &Environment) -> Service {
    let mut service = Service::default();
    if let Some(table) = root.get("log").and_then(|node| node.table()) {
        service.log_format = table.get("format").and_then(|node| format(&node));
        service.log_level = table.get("level").and_then(|node| level(&node));
        table.finish();
    }
    if let Some(table) = root.get("metrics").and_then(|node| node.table()) {
        service.metrics = table.get("listen").and_then(|node| metrics(&node, environment));
        table.finish();
    }
    if let Some(table) = root.get("web").and_then(|node| node.table()) {
        service.web = web(&table, environment);
        table.finish();
    }
    service
}

fn web(table: &Table<'_>, environment: &Environment) -> Option<WebConfig> {
    let accept_from = table.get("accept-from").map(|node| node.list_of(prefix));
    let hosts = table.get("hosts").map(|node| node.list_of(host_name)).unwrap_or_default();
    // An empty section is one whose lines wait to be wanted.
    let node = match accept_from.is_none() && hosts.is_empty() {
        true => table.get("listen")?,
        false => table.require("listen", "\"127.0.0.1:8043\"")?,
    };
    let listen = address(&node, "\"127.0.0.1:8043\" or \"[::1]:8043\"")?;
    if !listen.ip().is_loopback() {
        if accept_from.is_none() {
            node.error(
                "other hosts reach this address, and the page has no password",
                "listen on 127.0.0.1 or [::1], or name in `accept-from` who may read EID-prefixes, RLOCs and traffic: accept-from = [\"192.0.2.0/24\"]",
            );
            return None;
        }
        node.warning(
            "whoever is in `accept-from` can read the page, EID-prefixes, RLOCs and traffic among it: it has no password, and HTTP hides nothing on the way",
        );
        if !listen.ip().is_unspecified() {
            check_on_host(&node, listen.ip(), environment);
        }
    } else if let (Some(_), Some(node)) = (&accept_from, table.get("accept-from")) {
        node.warning("is of no use: other hosts do not reach a loopback address");
    }
    Some(WebConfig { listen, accept_from: accept_from.unwrap_or_default(), hosts })
}

fn prefix(node: &Node<'_>) -> Option<IpNet> {
    let text = node.text()?;
    let host = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let prefix = text.parse::<IpNet>().ok().or_else(host);
    if prefix.is_none() {
        node.error(
            &format!("{text:?} is no prefix"),
            "write \"192.0.2.0/24\" or \"2001:db8::/32\"",
        );
    }
    prefix.map(|prefix| prefix.trunc())
}

/// As a browser writes it: letters, digits, hyphens and dots.
fn host_name(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !text.chars().all(is_part) || text.starts_with(['.', '-']) {
        node.error(
            &format!("{text:?} is no name of a host"),
            "write what stands in the browser between http:// and the port: \"pxtr1.example.net\"",
        );
        return None;
    }
    Some(text.to_ascii_lowercase())
}

fn format(node: &Node<'_>) -> Option<LogFormat> {
    match node.text()? {
        "human" => Some(LogFormat::Human),
        "json" => Some(LogFormat::Json),
        other => {
            node.error(&format!("{other:?} is no format"), "write \"human\" or \"json\"");
            None
        }
    }
}

fn level(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    if let Err(error) = crate::cli::log_filter(text) {
        node.error(
            &format!("{text:?} is no level: {error}"),
            "write error, warn, info, debug or trace, or levels by module such as \"info,xtr=debug\"",
        );
        return None;
    }
    Some(text.to_owned())
}

fn address(node: &Node<'_>, examples: &str) -> Option<SocketAddr> {
    let text = node.text()?;
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    if address.is_none() {
        node.error(&format!("{text:?} is no address with a port"), &format!("write {examples}"));
    }
    address
}

fn metrics(node: &Node<'_>, environment: &Environment) -> Option<SocketAddr> {
    let address = address(node, "\"127.0.0.1:9643\" or \"[::1]:9643\"")?;
    if !address.ip().is_loopback() {
        node.warning(
            "everybody who reaches this address can read the metrics, EID-prefixes and RLOCs among them: metrics have no password",
        );
        if !address.ip().is_unspecified() {
            check_on_host(node, address.ip(), environment);
        }
    }
    Some(address)
}
