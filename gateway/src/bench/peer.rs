//! Other LISP implementations, which nobody has to have: a command from an environment variable runs them.
//!
//! `ISTHMUS_BENCH_PEER_NAME` holds a shell command that is run in each of the two gateways and stays in the
//! foreground until SIGTERM. It finds in its environment where it is and what it is to do; see [`environment`].

use std::collections::BTreeMap;
use std::io;
use std::process::Command;

use super::bed::{Bed, CORE_LINK, EDGE_LINK, FAR, NEAR, Place, SINK, rloc};
use super::contender::start_mapping_system;
use super::family::Version;
use crate::lab::daemons::Daemons;

/// What the name of a peer's variable begins with; the rest is the contender's name.
pub(crate) const VARIABLE_PREFIX: &str = "ISTHMUS_BENCH_PEER_";

/// The peers among environment variables: their names in lower case, and their commands.
pub(crate) fn peers(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let peer = |(name, command): (String, String)| {
        let name = name.strip_prefix(VARIABLE_PREFIX)?.to_lowercase();
        // A contender's name is also the beginning of the names of its files.
        let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (fits && !name.is_empty() && !command.is_empty()).then_some((name, command))
    };
    variables.filter_map(peer).collect()
}

/// Starts a mapping system and the command in both gateways; returns the two process groups.
pub(crate) fn start(
    bed: &Bed,
    command: &str,
    outer: Version,
    daemons: &Daemons,
) -> io::Result<[u32; 2]> {
    start_mapping_system(std::env::current_exe()?, bed, outer, daemons)?;
    let keys = daemons.directory().display().to_string();
    let start = |namespace, place| {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).envs(environment(place, outer, &keys));
        daemons.run(namespace, shell)
    };
    Ok([start(&bed.gw1, Place::Near)?, start(&bed.gw2, Place::Far)?])
}

/// What the command is told.
///
/// | variable | |
/// |---|---|
/// | `GATEWAY` | 1 (encapsulates) or 2 |
/// | `RLOC`, `PEER_RLOC` | own locator, the other gateway's |
/// | `SINK_RLOC` | second locator of gateway 2, for `SINK_EIDS` |
/// | `EIDS`, `PEER_EIDS`, `SINK_EIDS` | EID-prefixes, IPv6 and IPv4, separated by a space |
/// | `EDGE_LINK`, `CORE_LINK` | links to the host and to the core |
/// | `MAP_SERVER`, `MAP_RESOLVER` | their address |
/// | `KEY_FILE` | the site's key (Key ID 1, HMAC-SHA-256-128) |
fn environment(place: Place, outer: Version, keys: &str) -> Vec<(&'static str, String)> {
    let (number, own, other, own_site, other_site) = match place {
        Place::Near => ("1", Place::Near, Place::Far, NEAR, FAR),
        _ => ("2", Place::Far, Place::Near, FAR, NEAR),
    };
    let eids =
        |site: &crate::lab::addresses::Site| format!("{} {}", site.prefix6(), site.prefix4());
    let mapping_system = rloc(Place::MappingSystem, outer).to_string();
    vec![
        ("GATEWAY", number.to_owned()),
        ("RLOC", rloc(own, outer).to_string()),
        ("PEER_RLOC", rloc(other, outer).to_string()),
        ("SINK_RLOC", rloc(Place::Sink, outer).to_string()),
        ("EIDS", eids(own_site)),
        ("PEER_EIDS", eids(other_site)),
        ("SINK_EIDS", eids(SINK)),
        ("EDGE_LINK", EDGE_LINK.to_owned()),
        ("CORE_LINK", CORE_LINK.to_owned()),
        ("MAP_SERVER", mapping_system.clone()),
        ("MAP_RESOLVER", mapping_system),
        ("KEY_FILE", format!("{keys}/site-{}.key", own_site.name)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_come_from_variables_with_the_prefix() {
        let variables = [
            ("ISTHMUS_BENCH_PEER_OOR", "exec oor"),
            ("ISTHMUS_BENCH_PEER_EMPTY", ""),
            ("ISTHMUS_BENCH_PEER_", "exec nothing"),
            ("ISTHMUS_BENCH_PEER_../X", "exec nothing"),
            ("PATH", "/bin"),
        ];
        let found = peers(variables.into_iter().map(|(n, c)| (n.to_owned(), c.to_owned())));
        assert_eq!(found, BTreeMap::from([("oor".to_owned(), "exec oor".to_owned())]));
    }

    #[test]
    fn each_gateway_is_told_its_own_side() {
        let of = |place, name| {
            let environment = environment(place, Version::V4, "/k");
            environment.into_iter().find(|(n, _)| *n == name).unwrap().1
        };
        assert_eq!(of(Place::Near, "RLOC"), of(Place::Far, "PEER_RLOC"));
        assert_eq!(of(Place::Near, "PEER_EIDS"), of(Place::Far, "EIDS"));
        assert_ne!(of(Place::Near, "KEY_FILE"), of(Place::Far, "KEY_FILE"));
    }
}
