//! `peers` of a tunnel router: which others deviate from RFC 9301, and how.

use mapping::config::Profile;
use xtr::config::Peer;

use super::node::{Node, Table};
use super::values;

/// Reads the list of `{ prefix, profile }`.
pub(crate) fn read(table: &Table<'_>) -> Vec<Peer> {
    let Some(node) = table.get("peers") else { return Vec::new() };
    let peers = node.list_of(|node| Some((node.clone(), peer(node)?)));
    for (at, (node, peer)) in peers.iter().enumerate() {
        if let Some((earlier, _)) = peers[..at].iter().find(|(_, p)| p.prefix == peer.prefix) {
            let line = earlier.report().line(earlier.path());
            let what = format!("{} is already given in line {line}", peer.prefix);
            node.error(&what, "give it once");
        }
    }
    peers.into_iter().map(|(_, peer)| peer).collect()
}

fn peer(node: &Node<'_>) -> Option<Peer> {
    let table = node.table()?;
    let prefix =
        table.require("prefix", "\"ADDRESS/LENGTH\"").and_then(|node| values::prefix(&node));
    let profile = table.require("profile", "\"lispers.net\"").and_then(|node| profile(&node));
    table.finish();
    Some(Peer { prefix: prefix?, profile: profile? })
}

/// Of the others, nothing has to be relaxed where only their Map-Replies are read.
fn profile(node: &Node<'_>) -> Option<Profile> {
    match node.text()? {
        "lispers.net" => Some(Profile::LispersNet),
        other => {
            node.error(
                &format!("{other:?} is no profile of a peer"),
                "write \"lispers.net\"; tunnel routers of other makes need no entry",
            );
            None
        }
    }
}
