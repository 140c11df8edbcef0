//! Open Overlay Router's `oor.conf` (libconfuse), and LISPmob's `lispd.conf`.

use std::time::Duration;

use mapping::config::Profile;

use super::blocks::{self, Line, Node};
use super::draft::{Draft, Family, Key, MapServer, Place, Probe, SitePrefix, is_yes, prefix};

/// Its authentication: HMAC-SHA-1-96 with Key ID 0, whatever the file says.
const ALGORITHM: &str = "hmac-sha-1-96";
const KEY_ID: u8 = 0;

/// Reads a file.
pub(super) fn read(text: &str) -> Draft {
    let mut draft = Draft { name: Some("oor".to_owned()), ..Draft::default() };
    for node in blocks::read(text, 1) {
        match &node {
            Node::Value(line) => value(&mut draft, line),
            Node::List(line, values) => list(&mut draft, line, values),
            Node::Block(line, inner) => block(&mut draft, line, inner),
            Node::Other(line) => draft.note(line.number, &line.key, "not understood"),
        }
    }
    if draft.is_xtr {
        draft.remark(
            "name the site's interfaces in [[eid]] interfaces, so that their traffic is taken",
        );
    }
    if !draft.map_servers.is_empty() || !draft.sites.is_empty() {
        draft.remark("HMAC-SHA-1 is weak: once both ends can, leave profile and algorithm out and give a new key");
    }
    draft
}

fn value(draft: &mut Draft, line: &Line) {
    let Line { number, key, value } = line;
    match key.as_str() {
        "debug" => draft.level = (value != "0" && !value.is_empty()).then_some("debug"),
        "operating-mode" => mode(draft, line),
        "map-resolver" => draft.map_resolver(value),
        "proxy-itrs" => draft.pitrs.push(value.clone()),
        "encapsulation" if value == "LISP" => {}
        "nat_traversal_support" | "nat_aware" if !is_yes(value) => {}
        "nat_traversal_support" | "nat_aware" => draft.note(
            *number,
            said(line),
            "write nat-traversal = true, and xtr-id and site-id, which it needs",
        ),
        "log-file" => draft.note(*number, said(line), "logs go to standard error, or the journal"),
        "map-request-retries" => {
            draft.note(*number, said(line), "the tries are those of RFC 9301");
        }
        "ipv6-scope" => {
            draft.note(*number, said(line), "write the address, if the interface has several");
        }
        _ => draft.note(*number, said(line), "no equivalent"),
    }
}

fn mode(draft: &mut Draft, line: &Line) {
    match line.value.to_ascii_uppercase().as_str() {
        "XTR" => draft.is_xtr = true,
        "MN" => {
            draft.is_xtr = true;
            draft.note(
                line.number,
                said(line),
                "a mobile node is an xTR whose EID is on its own lo",
            );
        }
        "MS" | "MR" => draft.is_mapping = true,
        "RTR" => {
            draft.is_petr = true;
            draft.note(
                line.number,
                said(line),
                "write [rtr] eid-prefixes, and nat for xTRs behind NATs",
            );
        }
        _ => {
            draft.is_mapping = true;
            draft.note(line.number, said(line), "write [ddt], see configs/mapping-ddt.toml");
        }
    }
}

fn list(draft: &mut Draft, line: &Line, values: &[Line]) {
    match line.key.as_str() {
        "map-resolver" => values.iter().for_each(|one| draft.map_resolver(&one.value)),
        "proxy-itrs" => draft.pitrs.extend(values.iter().map(|one| one.value.clone())),
        key => draft.note(line.number, key, "no equivalent"),
    }
}

fn block(draft: &mut Draft, line: &Line, inner: &[Node]) {
    match line.key.as_str() {
        "map-server" => map_server(draft, line, inner),
        "rloc-probing" => rloc_probing(draft, inner),
        "database-mapping" => database_mapping(draft, line, inner),
        "proxy-etr" | "proxy-etr-ipv4" | "proxy-etr-ipv6" => proxy_etr(draft, line, inner),
        "lisp-site" => site(draft, line, inner),
        key => draft.note(line.number, format!("{key} {{ .. }}"), "no equivalent"),
    }
}

fn map_server(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let (mut address, mut secret) = (None, None);
    for one in draft.values(inner) {
        match one.key.as_str() {
            "address" => address = Some(one.value),
            "key" => secret = Some(one.value),
            "key-type" if one.value == "1" => {}
            "proxy-reply" => draft.proxy_reply = Some(is_yes(&one.value)),
            _ => draft.note(one.number, said(&one), "no equivalent"),
        }
    }
    let Some(address) = address else {
        return draft.note(line.number, &line.key, "has no address");
    };
    draft.is_xtr = true;
    let key = Key { id: KEY_ID, secret, algorithm: ALGORITHM };
    draft.map_server(MapServer { address, key, profile: Profile::Oor });
}

fn rloc_probing(draft: &mut Draft, inner: &[Node]) {
    let mut probe = Probe { interval: Duration::from_secs(30), tries: 3 };
    for one in draft.values(inner) {
        let number = one.value.parse::<u32>().ok();
        match (one.key.as_str(), number) {
            ("rloc-probe-interval", Some(0)) => {
                draft.probe = Some(None);
                return;
            }
            ("rloc-probe-interval", Some(seconds)) => {
                probe.interval = Duration::from_secs(u64::from(seconds.clamp(1, 3600)));
            }
            ("rloc-probe-retries", Some(retries)) => probe.tries = (retries + 1).clamp(1, 10),
            _ => draft.note(one.number, said(&one), "probes are repeated by the round-trip time"),
        }
    }
    draft.probe = Some(Some(probe));
}

fn database_mapping(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let (mut eid, mut instance_id, mut locators) = (None, 0, Vec::new());
    for node in inner {
        match node {
            Node::Block(head, parts) if head.key == "rloc-address" || head.key == "rloc-iface" => {
                locators.extend(locator(draft, head, parts));
            }
            Node::Value(one) => match (one.key.as_str(), one.value.parse::<u32>().ok()) {
                ("eid-prefix", _) => eid = prefix(&one.value),
                ("iid", Some(iid)) => instance_id = iid,
                ("ttl", Some(minutes)) if draft.record_ttl_minutes.is_none_or(|t| t == minutes) => {
                    draft.record_ttl_minutes = Some(minutes.clamp(1, 43_200));
                }
                ("ttl", _) => draft.note(one.number, said(one), "all mappings have one record-ttl"),
                // From before OOR 1.0.
                ("rloc" | "interface", _) => {
                    let place = Place::Interface(one.value.clone(), None);
                    locators.push(draft.locator(one.number, place, (1, 100)));
                }
                _ => draft.note(one.number, said(one), "no equivalent"),
            },
            Node::Block(head, _) | Node::List(head, _) | Node::Other(head) => {
                draft.note(head.number, &head.key, "no equivalent");
            }
        }
    }
    match eid {
        Some(eid) => draft.eid(eid, instance_id, locators),
        None => draft.note(line.number, &line.key, "has no eid-prefix that is a prefix"),
    }
}

fn locator(draft: &mut Draft, head: &Line, inner: &[Node]) -> Option<String> {
    let (mut place, mut family) = (None, None);
    let (mut priority, mut weight) = (1, 100);
    for one in draft.values(inner) {
        match one.key.as_str() {
            "address" => place = one.value.parse().ok().map(Place::Address),
            "interface" => place = Some(Place::Interface(one.value, None)),
            "ip_version" => family = Some(if one.value == "6" { Family::V6 } else { Family::V4 }),
            "priority" => priority = one.value.parse().unwrap_or(priority),
            "weight" => weight = one.value.parse().unwrap_or(weight),
            _ => draft.note(one.number, said(&one), "no equivalent"),
        }
    }
    if let (Some(Place::Interface(_, of)), Some(_)) = (&mut place, family) {
        *of = family;
    }
    match place {
        Some(place) => Some(draft.locator(head.number, place, (priority, weight))),
        None => {
            draft.note(head.number, &head.key, "has no address that is one");
            None
        }
    }
}

fn proxy_etr(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let (mut address, mut priority, mut weight) = (None, 1, 100);
    for one in draft.values(inner) {
        match one.key.as_str() {
            "address" => address = Some(one.value),
            "priority" => priority = one.value.parse().unwrap_or(priority),
            "weight" => weight = one.value.parse().unwrap_or(weight),
            _ => draft.note(one.number, said(&one), "no equivalent"),
        }
    }
    match address {
        Some(address) => draft.petr(&address, priority, weight),
        None => draft.note(line.number, &line.key, "has no address"),
    }
}

fn site(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let (mut eid, mut secret, mut instance_id, mut more) = (None, None, 0, false);
    for one in draft.values(inner) {
        match one.key.as_str() {
            "eid-prefix" => eid = prefix(&one.value),
            "key" => secret = Some(one.value),
            "key-type" if one.value == "1" => {}
            "iid" => instance_id = one.value.parse().unwrap_or(0),
            "accept-more-specifics" => more = is_yes(&one.value),
            _ => draft.note(one.number, said(&one), "no equivalent"),
        }
    }
    let Some(eid) = eid else {
        return draft.note(line.number, &line.key, "has no eid-prefix that is a prefix");
    };
    // It has no names: who has the same key is the same site.
    let key = Key { id: KEY_ID, secret, algorithm: ALGORITHM };
    let known = draft.sites.iter().find(|site| site.keys.contains(&key));
    let name = known.map_or_else(|| format!("site-{}", draft.sites.len() + 1), |s| s.name.clone());
    let site = draft.site(&name);
    (site.keys, site.profile) = (vec![key], Profile::Oor);
    site.prefixes.push(SitePrefix { prefix: eid, instance_id, accept_more_specifics: more });
}

/// As it stands in the file; of a secret, the key alone.
fn said(line: &Line) -> String {
    match line.key.contains("key") && line.key != "key-type" {
        true => line.key.clone(),
        false => format!("{} = {}", line.key, line.value),
    }
}
