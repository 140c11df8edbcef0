//! What `lig` asks for: an EID, the addresses of a name, or the EID-prefixes of this site.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use ::mapping::admin::Query;
use ::mapping::eid::EidPrefix;
use ::mapping::wire::CONTROL_PORT;
use ::xtr::config::{Endpoint, RouterConfig};
use ipnet::IpNet;
use serde::Serialize;

use super::super::{FAILED, Failure, print, print_json, show};
use super::{Found, Key, LigArgs, ask};
use crate::admin::{client, socket_of};
use crate::config::{self, Environment, Host, RoleConfig};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Eid(IpNet),
    Name(String),
    /// `self`: the own EID-prefixes (RFC 6835 §4.1).
    Myself,
}

pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    if text == "self" {
        return Ok(Target::Myself);
    }
    let name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // An address that was mistyped is no name.
    let like_an_address = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    match super::super::clear::eid(text) {
        Ok(eid) => Ok(Target::Eid(eid)),
        Err(_) if !text.is_empty() && !like_an_address && text.chars().all(name) => {
            Ok(Target::Name(text.to_owned()))
        }
        Err(error) => Err(format!("{error}, a DNS name, or self")),
    }
}

/// The addresses that the host's resolver has for a name, sorted.
pub(super) fn addresses_of(name: &str) -> Result<Vec<IpAddr>, Failure> {
    let failed = |error| Failure::Failed(format!("{name}: {error}"));
    let mut addresses: Vec<IpAddr> =
        (name, CONTROL_PORT).to_socket_addrs().map_err(failed)?.map(|one| one.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// What the mapping system knows of one own EID-prefix.
#[derive(Debug, Serialize)]
struct Own {
    /// Whether a locator of this host is among those of the mapping, up and of use.
    ok: bool,
    #[serde(flatten)]
    found: Found,
}

/// Looks up the own EID-prefixes; the exit status tells whether all are registered with a locator of this host.
pub(super) fn look_at_self(args: &LigArgs, key: Option<&Key>) -> Result<(), Failure> {
    let router = own_router(args)?;
    let resolvers: Vec<Endpoint> = match &args.resolver {
        Some(resolver) => vec![resolver.clone()],
        None => router.control.map_resolvers.clone(),
    };
    let host = Host::read().map_err(|error| Failure::Failed(format!("own addresses: {error}")))?;
    let mut all = Vec::new();
    for eid in &router.control.eids {
        let found = ask(args, &resolvers, eid.prefix, key)?;
        all.push(Own { ok: is_here(&found, &eid.prefix, &host), found });
    }
    let failed = all.iter().filter(|own| !own.ok).count();
    if args.json {
        print_json(&all)?;
    } else {
        for own in &all {
            let verdict = match own.ok {
                true => "self: registered, with a locator of this host",
                false => {
                    "self: NOT registered with a locator of this host that is up: isthmus show registrations"
                }
            };
            print(&format!("{}{verdict}\n\n", own.found.text()))?;
        }
    }
    if failed > 0 { Err(Failure::Silent(FAILED)) } else { Ok(()) }
}

/// Whether the mapping of `eid` has a locator of this host that carries traffic.
fn is_here(found: &Found, eid: &EidPrefix, host: &Host) -> bool {
    let prefix = eid.to_string();
    let of_it = found.records.iter().filter(|record| record.prefix == prefix);
    of_it.flat_map(|record| &record.locators).any(|locator| {
        let own = locator.address.parse().is_ok_and(|address| host.has_address(address));
        own && locator.reachable && locator.priority < 255
    })
}

/// What runs in the daemon behind `socket`.
pub(super) fn running(socket: &Path) -> Result<RoleConfig, Failure> {
    let view =
        client::ask(socket, &Query::Config).map_err(|error| show::ask_failure(error, socket))?;
    let text = view["text"].as_str().unwrap_or_default();
    let environment = Environment { directory: Path::new("/").to_path_buf(), host: None };
    Ok(config::parse(Path::new("running.toml"), text, &environment).map_err(bad)?.config)
}

fn bad(refused: config::Refused) -> Failure {
    Failure::BadConfiguration(refused.errors)
}

/// The xTR of this host: as `--config` has it, or as it runs.
fn own_router(args: &LigArgs) -> Result<RouterConfig, Failure> {
    let config = match &args.config {
        Some(file) => config::load(file, None).map_err(bad)?.config,
        None => running(&args.socket.clone().unwrap_or_else(|| socket_of("xtr")))?,
    };
    match config {
        RoleConfig::Xtr(router) => Ok(*router),
        other => Err(Failure::Usage(format!(
            "self is what an xTR has, and that is the configuration of the role {}",
            other.role()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_no_name() {
        assert_eq!(parse_target("self"), Ok(Target::Myself));
        assert_eq!(parse_target("www.example.net"), Ok(Target::Name("www.example.net".to_owned())));
        assert_eq!(parse_target("192.0.2.7/24"), Ok(Target::Eid("192.0.2.0/24".parse().unwrap())));
        for wrong in ["", "192.0.2", "192.0.2.256", "2001:db8::g", "10.0.0.0/33", "a b"] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }
}
