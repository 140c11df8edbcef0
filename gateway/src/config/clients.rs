//! `clients` of `[mapping]`: who may ask, and how a client deviates from RFC 9301.

use ipnet::IpNet;
use mapping::config::{Client, Profile};

use super::node::{Node, Table};
use super::values;

/// Reads the list; empty = everybody may ask.
pub(crate) fn read(table: &Table<'_>) -> Vec<Client> {
    let Some(node) = table.get("clients") else { return Vec::new() };
    let clients = node.list_of(|node| Some((node.clone(), client(node)?)));
    for (at, (node, client)) in clients.iter().enumerate() {
        let line = |node: &Node<'_>| node.report().line(node.path());
        if let Some((earlier, _)) = clients[..at].iter().find(|(_, c)| c.prefix == client.prefix) {
            let what = format!("{} is already given in line {}", client.prefix, line(earlier));
            node.error(&what, "give it once");
        }
    }
    clients.into_iter().map(|(_, client)| client).collect()
}

/// `"PREFIX"`, or `{ prefix, profile, plain-map-requests }`.
fn client(node: &Node<'_>) -> Option<Client> {
    let of =
        |prefix: IpNet| Client { prefix, profile: Profile::default(), plain_map_requests: false };
    if !node.is_table() {
        return values::prefix(node).map(of);
    }
    let table = node.table()?;
    let prefix =
        table.require("prefix", "\"ADDRESS/LENGTH\"").and_then(|node| values::prefix(&node));
    let profile = table.or("profile", Profile::default(), profile);
    let plain_map_requests = table.or("plain-map-requests", false, Node::boolean);
    table.finish();
    Some(Client { profile, plain_map_requests, ..of(prefix?) })
}

fn profile(node: &Node<'_>) -> Option<Profile> {
    match node.text()? {
        "rfc9301" => Some(Profile::Rfc9301),
        "lispers.net" => Some(Profile::LispersNet),
        other => {
            node.error(
                &format!("{other:?} is no profile of a client"),
                "write \"rfc9301\" or \"lispers.net\"",
            );
            None
        }
    }
}
