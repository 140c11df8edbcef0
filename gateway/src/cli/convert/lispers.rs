//! lispers.net's `lisp.config`.

use std::time::Duration;

use mapping::config::Profile;

use super::blocks::{self, Line, Node};
use super::draft::{Draft, Key, MapServer, Place, Probe, SitePrefix, is_yes, prefix};

/// A line like this ends, and in a file of its own making begins, what it reads.
const DOTTED: &str = "#---";

/// Between two of its RLOC-probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Reads a file.
pub(super) fn read(text: &str) -> Draft {
    let mut draft = Draft { name: Some("lispers".to_owned()), ..Draft::default() };
    let (first, text) = commands(text);
    let nodes = blocks::read(&text, first);
    for node in &nodes {
        match node {
            Node::Block(line, inner) => command(&mut draft, line, inner),
            Node::Value(line) | Node::List(line, _) | Node::Other(line) => {
                draft.note(line.number, &line.key, "not understood");
            }
        }
    }
    if draft.probe.is_none() && draft.is_xtr {
        // Off unless it is switched on.
        draft.probe = Some(None);
    }
    if draft.is_xtr {
        draft.remark(
            "name the site's interfaces in [[eid]] interfaces, so that their traffic is taken",
        );
    }
    draft
}

/// What it reads of the file, and the number of its first line.
fn commands(text: &str) -> (usize, String) {
    let lines: Vec<&str> = text.lines().collect();
    let dotted: Vec<usize> =
        (0..lines.len()).filter(|&at| lines[at].trim_start().starts_with(DOTTED)).collect();
    let (from, to) = match dotted[..] {
        [] => (0, lines.len()),
        [only] => (0, only),
        [first, second, ..] => (first + 1, second),
    };
    (from + 1, lines[from..to].join("\n"))
}

fn command(draft: &mut Draft, line: &Line, inner: &[Node]) {
    match line.key.as_str() {
        "lisp enable" => enable(draft, inner),
        "lisp xtr-parameters" => parameters(draft, inner),
        "lisp map-resolver" => {
            for one in draft.values(inner) {
                match one.key.as_str() {
                    "address" | "dns-name" => draft.map_resolver(&one.value),
                    _ => draft.note(one.number, said(&one), "no equivalent"),
                }
            }
        }
        "lisp map-server" => map_server(draft, line, inner),
        "lisp database-mapping" => database_mapping(draft, line, inner),
        "lisp map-cache" => map_cache(draft, line, inner),
        "lisp site" => site(draft, line, inner),
        "lisp debug" => {
            let debug = draft.values(inner).iter().any(|one| is_yes(&one.value));
            draft.level = debug.then_some("debug");
        }
        "lisp user-account" => {
            draft.note(
                line.number,
                &line.key,
                "the admin socket asks for no password: its group may use it",
            );
        }
        key if key.starts_with("lisp ddt") || key.starts_with("lisp referral") => {
            draft.note(line.number, key, "write [ddt], see configs/mapping-ddt.toml");
        }
        key => draft.note(line.number, key, "no equivalent"),
    }
}

fn enable(draft: &mut Draft, inner: &[Node]) {
    for one in draft.values(inner).into_iter().filter(|one| is_yes(&one.value)) {
        match one.key.as_str() {
            "itr" | "etr" => draft.is_xtr = true,
            "map-server" | "map-resolver" => draft.is_mapping = true,
            "rtr" => {
                draft.is_petr = true;
                draft.note(
                    one.number,
                    said(&one),
                    "write [rtr] eid-prefixes, and nat for xTRs behind NATs",
                );
            }
            _ => draft.note(one.number, said(&one), "write [ddt], see configs/mapping-ddt.toml"),
        }
    }
}

fn parameters(draft: &mut Draft, inner: &[Node]) {
    for one in draft.values(inner) {
        match (one.key.as_str(), is_yes(&one.value)) {
            ("rloc-probing", true) => {
                draft.probe = Some(Some(Probe { interval: PROBE_INTERVAL, tries: 3 }));
            }
            ("rloc-probing", false) => draft.probe = Some(None),
            ("nonce-echoing", true) => draft.note(
                one.number,
                said(&one),
                "echo-noncing is for a trusted core: [data] trusted-core, with the RLOCs of it",
            ),
            ("nat-traversal", true) => draft.note(
                one.number,
                said(&one),
                "write nat-traversal = true, and xtr-id and site-id, which it needs",
            ),
            ("data-plane-security", true) => {
                draft.note(one.number, said(&one), "there is no encryption of packets here");
            }
            (_, true) => draft.note(one.number, said(&one), "no equivalent"),
            (_, false) => {}
        }
    }
}

/// `KEY`, or `[KEY-ID]KEY`.
fn key(text: &str, kind: &str) -> Key {
    let with_id = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let parsed = with_id.and_then(|(id, secret)| Some((id.parse().ok()?, secret)));
    let (id, secret) = parsed.unwrap_or((0, text));
    let algorithm = if kind == "sha2" { "hmac-sha-256-128" } else { "hmac-sha-1-96" };
    Key { id, secret: Some(secret.to_owned()), algorithm }
}

fn map_server(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let (mut address, mut secret, mut kind) = (None, None, String::from("sha2"));
    for one in draft.values(inner) {
        match one.key.as_str() {
            "address" | "dns-name" => address = Some(one.value),
            "authentication-key" => secret = Some(one.value),
            "authentication-type" => kind = one.value,
            "proxy-reply" => draft.proxy_reply = Some(is_yes(&one.value)),
            // Always, respectively never, here.
            "want-map-notify" | "ms-name" => {}
            _ if !is_yes(&one.value) => {}
            "merge-registrations" => {
                draft.note(one.number, said(&one), "write merge = true, and xtr-id and site-id");
            }
            _ => draft.note(one.number, said(&one), "no equivalent"),
        }
    }
    let Some(address) = address else {
        return draft.note(line.number, &line.key, "has no address");
    };
    let key = match secret {
        Some(secret) => key(&secret, &kind),
        None => Key { secret: None, ..key("", &kind) },
    };
    draft.map_server(MapServer { address, key, profile: Profile::LispersNet });
}

fn database_mapping(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let (mut prefixes, mut locators) = (Vec::new(), Vec::new());
    for node in inner {
        match node {
            Node::Block(Line { key, .. }, parts) if key == "prefix" => {
                prefixes.extend(eid_prefix(draft, parts));
            }
            Node::Block(head, parts) if head.key == "rloc" => {
                locators.extend(locator(draft, head, parts));
            }
            Node::Block(one, _) | Node::Value(one) | Node::List(one, _) | Node::Other(one) => {
                draft.note(one.number, &one.key, "no equivalent");
            }
        }
    }
    if prefixes.is_empty() {
        return draft.note(line.number, &line.key, "has no EID-prefix that is registered here");
    }
    for (prefix, instance_id) in prefixes {
        if prefix.prefix_len() == 0 {
            draft.is_pitr = true;
            draft.note(
                line.number,
                format!("eid-prefix = {prefix}"),
                "an ITR of everything is a PITR: see gateway.toml, and write its eid-aggregates",
            );
        } else {
            draft.eid(prefix, instance_id, locators.clone());
        }
    }
    if draft.is_pitr && draft.eids.is_empty() {
        draft.is_xtr = false;
    }
}

fn eid_prefix(draft: &mut Draft, inner: &[Node]) -> Option<(ipnet::IpNet, u32)> {
    let (mut eid, mut instance_id) = (None, 0);
    for one in draft.values(inner) {
        match one.key.as_str() {
            "eid-prefix" => match prefix(&one.value) {
                Some(prefix) => eid = Some(prefix),
                None => {
                    draft.note(one.number, said(&one), "only addresses are EIDs of an xTR here");
                }
            },
            "instance-id" => match one.value.parse() {
                Ok(number) => instance_id = number,
                Err(_) => draft.note(one.number, said(&one), "write a section for each instance"),
            },
            "dynamic-eid" if is_yes(&one.value) => draft.note(
                one.number,
                said(&one),
                "write a section [[dynamic-eid]] with the range and its interfaces",
            ),
            "ms-name" => {
                draft.note(one.number, said(&one), "all EID-prefixes go to all map-servers");
            }
            _ if is_yes(&one.value) => draft.note(one.number, said(&one), "no equivalent"),
            _ => {}
        }
    }
    eid.map(|eid| (eid, instance_id))
}

fn locator(draft: &mut Draft, head: &Line, inner: &[Node]) -> Option<String> {
    let (mut place, mut priority, mut weight) = (None, 1, 100);
    for one in draft.values(inner) {
        match one.key.as_str() {
            "address" => place = one.value.parse().ok().map(Place::Address),
            "interface" => place = Some(Place::Interface(one.value, None)),
            "priority" => priority = one.value.parse().unwrap_or(priority),
            "weight" => weight = one.value.parse().unwrap_or(weight),
            _ => draft.note(one.number, said(&one), "no equivalent"),
        }
    }
    let Some(place) = place else {
        draft.note(head.number, &head.key, "an RLOC-record without address is not registered here");
        return None;
    };
    Some(draft.locator(head.number, place, (priority, weight)))
}

/// A static map-cache entry for everything is how it knows its PETRs.
fn map_cache(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let (mut everything, mut rlocs, mut asks) = (false, Vec::new(), false);
    for node in inner {
        let Node::Block(head, parts) = node else { continue };
        let parts = draft.values(parts);
        let of = |key: &str| parts.iter().find(|one| one.key == key).map(|one| one.value.clone());
        let number = |key: &str, usual: u8| of(key).and_then(|n| n.parse().ok()).unwrap_or(usual);
        match head.key.as_str() {
            "prefix" => {
                let prefix = of("eid-prefix").and_then(|text| prefix(&text));
                everything |= prefix.is_some_and(|prefix| prefix.prefix_len() == 0);
                asks |= of("send-map-request").is_some_and(|text| is_yes(&text));
            }
            "rloc" => {
                let address = of("address");
                rlocs
                    .extend(address.map(|one| (one, number("priority", 1), number("weight", 100))));
            }
            key => draft.note(head.number, key, "no equivalent"),
        }
    }
    match everything && !rlocs.is_empty() {
        true => {
            for (one, priority, weight) in &rlocs {
                draft.petr(one, *priority, *weight);
            }
        }
        // What is not known is asked for anyway.
        false if asks => {}
        false => {
            draft.note(
                line.number,
                &line.key,
                "the mapping system fills the map-cache, nothing else does",
            );
        }
    }
}

fn site(draft: &mut Draft, line: &Line, inner: &[Node]) {
    let mut name = format!("site-{}", draft.sites.len() + 1);
    let (mut secret, mut kind) = (None, String::from("sha2"));
    let (mut prefixes, mut rlocs, mut forced, mut down) = (Vec::new(), Vec::new(), false, false);
    for node in inner {
        match node {
            Node::Value(one) => match one.key.as_str() {
                "site-name" => name.clone_from(&one.value),
                "authentication-key" => secret = Some(one.value.clone()),
                "authentication-type" => kind.clone_from(&one.value),
                "shutdown" => down = is_yes(&one.value),
                "description" => {}
                _ => draft.note(one.number, said(one), "no equivalent"),
            },
            Node::Block(head, parts) if head.key == "allowed-prefix" => {
                let parts = draft.values(parts);
                let of =
                    |key: &str| parts.iter().find(|one| one.key == key).map(|o| o.value.as_str());
                forced |= of("force-proxy-reply").is_some_and(is_yes);
                match of("eid-prefix").and_then(prefix) {
                    Some(prefix) => prefixes.push(SitePrefix {
                        prefix,
                        instance_id: of("instance-id").and_then(|id| id.parse().ok()).unwrap_or(0),
                        accept_more_specifics: of("accept-more-specifics").is_some_and(is_yes),
                    }),
                    None => draft.note(
                        head.number,
                        &head.key,
                        "write eid-names for distinguished names",
                    ),
                }
            }
            Node::Block(Line { key, .. }, parts) if key == "allowed-rloc" => {
                for one in draft.values(parts) {
                    match prefix(&one.value) {
                        Some(prefix) if one.key == "address" => rlocs.push(prefix),
                        _ => draft.note(one.number, said(&one), "no equivalent"),
                    }
                }
            }
            Node::Block(one, _) | Node::List(one, _) | Node::Other(one) => {
                draft.note(one.number, &one.key, "no equivalent");
            }
        }
    }
    if prefixes.is_empty() {
        return draft.note(line.number, format!("{} {name}", line.key), "has no EID-prefix");
    }
    let site = draft.site(&name);
    site.keys = secret.map(|secret| key(&secret, &kind)).into_iter().collect();
    (site.profile, site.force_proxy_reply, site.admin_down) = (Profile::LispersNet, forced, down);
    (site.prefixes, site.allowed_locators) = (prefixes, rlocs);
}

/// As it stands in the file; of a secret, the key alone.
fn said(line: &Line) -> String {
    let secret = ["authentication-key", "password", "encryption-key"].contains(&line.key.as_str());
    if secret { line.key.clone() } else { format!("{} = {}", line.key, line.value) }
}
