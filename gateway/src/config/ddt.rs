//! `[ddt]` of `mapping.toml`: the place in the Delegated Database Tree (RFC 8111).

use std::net::IpAddr;

use ipnet::IpNet;
use mapping::config::{MappingConfig, SitePrefix};
use mapping::ddt::{AuthoritativePrefix, DdtConfig, Delegation};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::timers::MAX_REFERRAL_RLOCS;

use super::node::{Node, Table};
use super::overlap::{Claims, Nesting};
use super::{router, values};

/// Reads `[ddt]`, when it is there; `config` has the addresses and sites already.
pub(crate) fn read(root: &Table<'_>, config: &MappingConfig) -> DdtConfig {
    let mut ddt = DdtConfig::default();
    let Some(table) = root.get("ddt").and_then(|node| node.table()) else { return ddt };
    refuse_signing(&table);
    let own = &config.listen;
    ddt.roots = table.get("roots").map(|node| rlocs(&node, own)).unwrap_or_default();
    ddt.authoritative = authoritative(&table, own);
    ddt.delegations = delegations(&table, config, &ddt.authoritative);
    ddt.hints = hints(&table, own, &ddt.authoritative);
    ddt.resolver = resolver(&table, &ddt);
    warn_of_sites_outside(root, config, &ddt.authoritative);
    table.finish();
    ddt
}

/// Lookups are followed when there is where to begin, unless the file says otherwise.
fn resolver(table: &Table<'_>, ddt: &DdtConfig) -> bool {
    let begins = !ddt.roots.is_empty() || !ddt.hints.is_empty();
    let Some(node) = table.get("resolver") else { return begins };
    let resolver = node.boolean().unwrap_or(begins);
    if resolver && !begins && ddt.delegations.is_empty() {
        node.error(
            "there is no node to begin a lookup with",
            "name the tree's roots = [\"ADDRESS\"]",
        );
    }
    if !resolver && !ddt.roots.is_empty() {
        node.error(
            "false, but there are roots",
            "leave one of them out: only a resolver has roots",
        );
    }
    resolver
}

fn authoritative(table: &Table<'_>, own: &[IpAddr]) -> Vec<AuthoritativePrefix> {
    // Prefixes of every instance are claimed apart from those of one.
    let (mut claims, mut everywhere) = (Claims::default(), Claims::default());
    sections(table, "authoritative", |table| {
        let node = table.require("prefix", "\"ADDRESS/LENGTH\"")?;
        let prefix = values::prefix(&node);
        let instance_id = instance_or_all(table);
        let peers = table.get("peers").map(|node| rlocs(&node, own)).unwrap_or_default();
        let complete = table.or("complete", false, Node::boolean);
        let (prefix, instance_id) = (prefix?, instance_id?);
        let claims = if instance_id.is_some() { &mut claims } else { &mut everywhere };
        let claimed = EidPrefix::new(instance_id.unwrap_or_default(), prefix);
        claims.claim(&node, claimed, (0, ""), Nesting::Allowed, "");
        Some(AuthoritativePrefix { prefix, instance_id, peers, complete })
    })
}

fn delegations(
    table: &Table<'_>,
    config: &MappingConfig,
    authoritative: &[AuthoritativePrefix],
) -> Vec<Delegation> {
    let mut claims = Claims::default();
    let sites = config.sites.iter().flat_map(|site| &site.eid_prefixes);
    let sites: Vec<EidPrefix> = sites.map(|configured| configured.prefix).collect();
    sections(table, "delegation", |table| {
        let (node, delegation) = read_delegation(table, &config.listen)?;
        let prefix = delegation.prefix;
        let instead = "delegate every address once";
        claims.claim(&node, prefix, (0, ""), Nesting::Refused, instead);
        if !authoritative.iter().any(|own| is_within(&prefix, own)) {
            node.error(
                &format!("{prefix} is in no [[ddt.authoritative]] prefix"),
                "delegate what this node is authoritative for, or make it a [[ddt.hint]]",
            );
        } else if authoritative.iter().any(|own| {
            own.instance_id == Some(prefix.instance_id()) && own.prefix == prefix.prefix()
        }) {
            node.error(
                &format!("{prefix} is all that this node is authoritative for there"),
                "delegate more-specifics of it",
            );
        }
        if let Some(site) = sites.iter().find(|site| prefix.covers(site)) {
            node.error(
                &format!("{prefix} holds {site} of a [[site]] here"),
                "delegate what is registered elsewhere",
            );
        }
        Some(delegation)
    })
}

fn hints(
    table: &Table<'_>,
    own: &[IpAddr],
    authoritative: &[AuthoritativePrefix],
) -> Vec<Delegation> {
    let mut claims = Claims::default();
    sections(table, "hint", |table| {
        let (node, hint) = read_delegation(table, own)?;
        claims.claim(&node, hint.prefix, (0, ""), Nesting::Allowed, "");
        if authoritative.iter().any(|own| is_within(&hint.prefix, own)) {
            node.error(
                &format!("this node is authoritative for {}", hint.prefix),
                "write it as [[ddt.delegation]]",
            );
        }
        Some(hint)
    })
}

/// `prefix`, `instance-id`, `rlocs`, `map-server`; also where findings about the prefix go.
fn read_delegation<'a>(table: &Table<'a>, own: &[IpAddr]) -> Option<(Node<'a>, Delegation)> {
    let node = table.require("prefix", "\"ADDRESS/LENGTH\"");
    let prefix = node.as_ref().and_then(values::prefix);
    let instance_id = table.or("instance-id", InstanceId::DEFAULT, values::instance_id);
    let rlocs = table.require("rlocs", "[\"ADDRESS\"]").map(|node| rlocs(&node, own));
    let map_server = table.or("map-server", false, Node::boolean);
    let prefix = EidPrefix::new(instance_id, prefix?);
    Some((node?, Delegation { prefix, rlocs: rlocs?, map_server }))
}

/// What `read` makes of each `[[ddt.KEY]]`.
fn sections<'a, T>(
    table: &Table<'a>,
    key: &'static str,
    mut read: impl FnMut(&Table<'a>) -> Option<T>,
) -> Vec<T> {
    let nodes = table.get(key).and_then(|node| node.list()).unwrap_or_default();
    let mut all = Vec::new();
    for table in nodes.iter().filter_map(|node| node.table()) {
        all.extend(read(&table));
        table.finish();
    }
    all
}

/// RLOCs of other nodes.
fn rlocs(node: &Node<'_>, own: &[IpAddr]) -> Vec<IpAddr> {
    let rlocs = node.list_of(|node| Some((node.clone(), values::rloc(node)?)));
    for (node, rloc) in rlocs.iter().filter(|(_, rloc)| own.contains(rloc)) {
        node.error(&format!("{rloc} is an own address"), "name the other nodes");
    }
    router::check_distinct(&rlocs);
    if rlocs.len() > MAX_REFERRAL_RLOCS {
        node.error(
            &format!("{} RLOCs", rlocs.len()),
            &format!("name at most {MAX_REFERRAL_RLOCS}: no more are asked"),
        );
    }
    rlocs.into_iter().map(|(_, rloc)| rloc).collect()
}

/// `None` in it = `"all"`.
fn instance_or_all(table: &Table<'_>) -> Option<Option<InstanceId>> {
    let Some(node) = table.get("instance-id") else { return Some(Some(InstanceId::DEFAULT)) };
    match node.as_text() {
        Some("all") => Some(None),
        Some(_) => node.wrong_type("write \"all\", or 0 to 16777215 without quotes"),
        None => values::instance_id(&node).map(Some),
    }
}

/// Other organisations find a site only in what was delegated to this node.
fn warn_of_sites_outside(
    root: &Table<'_>,
    config: &MappingConfig,
    authoritative: &[AuthoritativePrefix],
) {
    // Without any, this is a resolver of the tree and no part of it.
    if authoritative.is_empty() {
        return;
    }
    let nodes = root.get("site").and_then(|node| node.list()).unwrap_or_default();
    for (site, node) in config.sites.iter().zip(nodes) {
        let outside = |configured: &&SitePrefix| {
            !authoritative.iter().any(|own| is_within(&configured.prefix, own))
        };
        if let Some(configured) = site.eid_prefixes.iter().find(outside) {
            node.warning(&format!(
                "{} is in no [[ddt.authoritative]] prefix: nobody is referred here for it",
                configured.prefix
            ));
        }
    }
}

fn is_within(prefix: &EidPrefix, own: &AuthoritativePrefix) -> bool {
    let prefix_of: IpNet = prefix.prefix();
    own.prefix.contains(&prefix_of) && own.instance_id.is_none_or(|id| id == prefix.instance_id())
}

/// Signatures have to be RSA (RFC 8111 §6.4.1), whose pure implementation has an open advisory (RUSTSEC-2023-0071).
fn refuse_signing(table: &Table<'_>) {
    for key in ["signing-key", "trust-anchors"] {
        if let Some(node) = table.get(key) {
            node.error(
                "Map-Referrals are neither signed nor verified by this product",
                "leave it out, and keep the path to the other nodes safe",
            );
        }
    }
}
