//! What every role has beside its work: `[log]` and `[metrics]`.

use std::net::SocketAddr;

use super::Environment;
use super::node::{Node, Table};
use super::router::check_on_host;
use crate::cli::LogFormat;

/// Logs and metrics of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// How it logs; the command line goes before it.
    pub log_format: Option<LogFormat>,
    /// What it logs; the command line goes before it.
    pub log_level: Option<String>,
    /// Where it serves metrics; `None` = nowhere.
    pub metrics: Option<SocketAddr>,
}

/// Reads both sections, wherever they are.
pub(crate) fn read(root: &Table<'_>, environment: &Environment) -> Service {
    let mut service = Service::default();
    if let Some(table) = root.get("log").and_then(|node| node.table()) {
        service.log_format = table.get("format").and_then(|node| format(&node));
        service.log_level = table.get("level").and_then(|node| level(&node));
        table.finish();
    }
    if let Some(table) = root.get("metrics").and_then(|node| node.table()) {
        service.metrics = table.get("listen").and_then(|node| address(&node, environment));
        table.finish();
    }
    service
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

fn address(node: &Node<'_>, environment: &Environment) -> Option<SocketAddr> {
    let text = node.text()?;
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    let Some(address) = address else {
        node.error(
            &format!("{text:?} is no address with a port"),
            "write \"127.0.0.1:9643\" or \"[::1]:9643\"",
        );
        return None;
    };
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
