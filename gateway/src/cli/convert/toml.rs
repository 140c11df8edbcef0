//! A draft as TOML, one file per role, its notes as comments.

use std::fmt::Write;

use ipnet::IpNet;
use mapping::config::Profile;

use super::Part;
use super::draft::{Draft, Eid, Family, Key, Locator, Note, Place, Range, Site};
use crate::config::quoted;

/// Stands for an own address that is not told: of no use, so that nobody forgets it (RFC 5737).
const PLACEHOLDER: &str = "192.0.2.1";

/// A file and the key files that it names.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) part: Part,
    pub(super) text: String,
    /// Name and secret.
    pub(super) keys: Vec<(String, String)>,
}

/// A file for each role that the draft has; `source` is the name of what it was made of.
pub(super) fn write(draft: &Draft, source: &str) -> Vec<Written> {
    let mut written = Vec::new();
    if draft.is_pitr || draft.is_petr {
        written.push(Writer::new(Part::Gateway, draft, source).gateway());
    }
    if draft.is_xtr {
        written.push(Writer::new(Part::Xtr, draft, source).xtr());
    }
    if draft.is_mapping {
        written.push(Writer::new(Part::Mapping, draft, source).mapping());
    }
    written
}

struct Writer<'a> {
    part: Part,
    draft: &'a Draft,
    source: &'a str,
    text: String,
    keys: Vec<(String, String)>,
    /// What this role lacks.
    lacks: Vec<String>,
}

impl<'a> Writer<'a> {
    fn new(part: Part, draft: &'a Draft, source: &'a str) -> Self {
        Self { part, draft, source, text: String::new(), keys: Vec::new(), lacks: Vec::new() }
    }

    // Writing to a String cannot fail.
    fn line(&mut self, line: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{line}");
    }

    fn lack(&mut self, what: &str) {
        self.lacks.push(what.to_owned());
    }

    fn gateway(mut self) -> Written {
        self.begin("gateway");
        let rlocs: Vec<String> = self
            .draft
            .locators
            .iter()
            .filter_map(|locator| match &locator.place {
                Place::Address(address) => Some(quoted(&address.to_string())),
                Place::Interface(..) => None,
            })
            .collect();
        if rlocs.is_empty() {
            self.lack("rlocs: the addresses that LISP packets come to and go from are not told; write this host's");
            self.line(format_args!("rlocs = [\"{PLACEHOLDER}\"]"));
        } else {
            self.line(format_args!("rlocs = [{}]", rlocs.join(", ")));
        }
        self.router();
        let aggregates = match self.draft.aggregates.is_empty() {
            true => {
                self.lack(
                    "eid-aggregates: the EID space is not told; write what is to be announced",
                );
                vec!["203.0.113.0/24".parse().expect("a prefix")]
            }
            false => self.draft.aggregates.clone(),
        };
        if self.draft.is_pitr {
            self.line(format_args!("\n[pitr]\neid-aggregates = {}", list(&aggregates)));
        }
        if self.draft.is_petr {
            self.line(format_args!("\n[petr]\naccept-from = {{ eids = {} }}", list(&aggregates)));
        }
        self.end()
    }

    fn xtr(mut self) -> Written {
        self.begin("xtr");
        self.locators();
        self.map_servers();
        self.router();
        let petrs: Vec<String> = self
            .draft
            .petrs
            .iter()
            .map(|petr| {
                format!(
                    "{{ address = {}, priority = {}, weight = {} }}",
                    quoted(&petr.address),
                    petr.priority,
                    petr.weight
                )
            })
            .collect();
        if !petrs.is_empty() {
            self.line(format_args!("use-petr = [{}]", petrs.join(", ")));
        }
        if !self.draft.pitrs.is_empty() {
            let pitrs: Vec<String> = self.draft.pitrs.iter().map(|text| quoted(text)).collect();
            self.line(format_args!("proxy-itrs = [{}]", pitrs.join(", ")));
        }
        if let Some(proxy_reply) = self.draft.proxy_reply {
            self.line(format_args!("proxy-reply = {proxy_reply}"));
        }
        if let Some(minutes) = self.draft.record_ttl_minutes {
            self.line(format_args!("record-ttl = \"{minutes}m\""));
        }
        for eid in &self.draft.eids {
            self.eid(eid);
        }
        for range in &self.draft.ranges {
            self.range(range);
        }
        self.end()
    }

    fn mapping(mut self) -> Written {
        self.begin("mapping");
        self.lack("listen: the addresses that it serves on are not told; write this host's");
        self.line(format_args!("listen = [\"{PLACEHOLDER}\"]"));
        for site in &self.draft.sites {
            self.site(site);
        }
        self.end()
    }

    fn begin(&mut self, section: &str) {
        if let Some(level) = self.draft.level {
            self.line(format_args!("[log]\nlevel = \"{level}\"\n"));
        }
        self.line(format_args!("[{section}]"));
        if let Some(name) = &self.draft.name {
            self.line(format_args!("name = {}", quoted(name)));
        }
    }

    /// What an xTR and a gateway have in common.
    fn router(&mut self) {
        let resolvers = &self.draft.map_resolvers;
        if resolvers.is_empty() {
            self.lack("map-resolvers: none is told");
            self.line(format_args!("map-resolvers = [\"{PLACEHOLDER}\"]"));
        } else {
            let resolvers: Vec<String> = resolvers.iter().map(|text| quoted(text)).collect();
            self.line(format_args!("map-resolvers = [{}]", resolvers.join(", ")));
        }
        match self.draft.probe {
            None => {}
            Some(None) => self.line("probe = \"off\""),
            Some(Some(probe)) => {
                let seconds = probe.interval.as_secs();
                let idle = seconds.max(10);
                self.line(format_args!(
                    "probe = {{ interval = \"{seconds}s\", idle-interval = \"{idle}s\", tries = {} }}",
                    probe.tries
                ));
            }
        }
        if let Some(limit) = self.draft.map_cache_limit {
            self.line(format_args!("map-cache-limit = {limit}"));
        }
    }

    fn locators(&mut self) {
        if self.draft.locators.is_empty() {
            self.lack("rlocs: no own locator is told");
            self.line(format_args!("rlocs = {{ core = {{ address = \"{PLACEHOLDER}\" }} }}"));
            return;
        }
        let locator = |locator: &Locator| {
            let place = match &locator.place {
                Place::Address(address) => format!("address = \"{address}\""),
                Place::Interface(name, None) => format!("interface = {}", quoted(name)),
                Place::Interface(name, Some(family)) => {
                    let family = if *family == Family::V4 { "ipv4" } else { "ipv6" };
                    format!("interface = {}, family = \"{family}\"", quoted(name))
                }
            };
            let Locator { name, priority, weight, .. } = locator;
            format!("{name} = {{ {place}, priority = {priority}, weight = {weight} }}")
        };
        let locators: Vec<String> = self.draft.locators.iter().map(locator).collect();
        self.line(format_args!("rlocs = {{ {} }}", locators.join(", ")));
    }

    fn map_servers(&mut self) {
        if self.draft.map_servers.is_empty() {
            self.lack("map-servers: none is told");
            let file = self.key("site", None);
            self.line(format_args!(
                "map-servers = [{{ address = \"{PLACEHOLDER}\", key-id = 1, key-file = \"{file}\" }}]"
            ));
            return;
        }
        let mut servers = Vec::new();
        for (number, server) in self.draft.map_servers.iter().enumerate() {
            let file = self.key(&format!("map-server-{}", number + 1), server.key.secret.as_ref());
            let profile = match server.profile {
                Profile::Rfc9301 => String::new(),
                other => format!(", profile = \"{}\"", other.name()),
            };
            servers.push(format!(
                "{{ address = {}, key-id = {}, key-file = \"{file}\", algorithm = \"{}\"{profile} }}",
                quoted(&server.address),
                server.key.id,
                server.key.algorithm
            ));
        }
        self.line(format_args!("map-servers = [{}]", servers.join(", ")));
    }

    /// The file of a secret, which is written beside this one if it is told.
    fn key(&mut self, name: &str, secret: Option<&String>) -> String {
        let known = secret.and_then(|secret| self.keys.iter().find(|(_, other)| other == secret));
        if let Some((file, _)) = known {
            return file.clone();
        }
        let file = format!("{}.key", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        match secret {
            Some(secret) => self.keys.push((file.clone(), secret.clone())),
            None => self.lack(&format!("{file}: the secret is not told in clear text")),
        }
        file
    }

    fn eid(&mut self, eid: &Eid) {
        self.line(format_args!("\n[[eid]]\nprefix = \"{}\"", eid.prefix));
        self.rest_of_eid(eid.instance_id, &eid.locators);
        if !eid.interfaces.is_empty() {
            self.line(format_args!("interfaces = {}", words(&eid.interfaces)));
        }
    }

    fn range(&mut self, range: &Range) {
        self.line(format_args!("\n[[dynamic-eid]]\nrange = \"{}\"", range.range));
        self.rest_of_eid(range.instance_id, &range.locators);
        self.line(format_args!("interfaces = {}", words(&range.interfaces)));
    }

    fn rest_of_eid(&mut self, instance_id: u32, locators: &[String]) {
        if instance_id != 0 {
            self.line(format_args!("instance-id = {instance_id}"));
        }
        // All of them is what is meant without.
        if !locators.is_empty() && locators.len() < self.draft.locators.len() {
            self.line(format_args!("locator-set = {}", words(locators)));
        }
    }

    fn site(&mut self, site: &Site) {
        self.line(format_args!("\n[[site]]\nname = {}", quoted(&site.name)));
        if site.profile != Profile::Rfc9301 {
            self.line(format_args!("profile = \"{}\"", site.profile.name()));
        }
        let mut keys = Vec::new();
        for Key { id, secret, algorithm } in &site.keys {
            let file = self.key(&format!("site-{}", site.name), secret.as_ref());
            keys.push(format!(
                "{{ id = {id}, file = \"{file}\", algorithms = [\"{algorithm}\"] }}"
            ));
        }
        if keys.is_empty() {
            let file = self.key(&format!("site-{}", site.name), None);
            keys.push(format!("{{ id = 1, file = \"{file}\" }}"));
        }
        self.line(format_args!("keys = [{}]", keys.join(", ")));
        let prefixes: Vec<String> = site
            .prefixes
            .iter()
            .map(|one| match (one.instance_id, one.accept_more_specifics) {
                (0, false) => format!("\"{}\"", one.prefix),
                (id, more) => format!(
                    "{{ prefix = \"{}\", instance-id = {id}, accept-more-specifics = {more} }}",
                    one.prefix
                ),
            })
            .collect();
        self.line(format_args!("eid-prefixes = [{}]", prefixes.join(", ")));
        if !site.allowed_locators.is_empty() {
            self.line(format_args!("allowed-locators = {}", list(&site.allowed_locators)));
        }
        if site.force_proxy_reply {
            self.line("force-proxy-reply = true");
        }
        if site.admin_down {
            self.line("admin-down = true");
        }
    }

    /// The notes go first: they are to be read.
    fn end(self) -> Written {
        let mut head = format!(
            "# Made of {} by isthmus convert. Look through the notes, then: isthmus check {}.toml\n",
            self.source,
            self.part.name()
        );
        for lack in &self.lacks {
            let _ = writeln!(head, "# TO BE FILLED IN: {lack}");
        }
        for Note { number, line, why } in &self.draft.notes {
            let _ = match number {
                Some(number) => writeln!(head, "# line {number}: {line}: {why}"),
                None => writeln!(head, "# {why}"),
            };
        }
        for (file, _) in &self.keys {
            let _ = writeln!(head, "# {file} holds a secret of {}; --out writes it", self.source);
        }
        head.push('\n');
        Written { part: self.part, text: head + &self.text, keys: self.keys }
    }
}

fn list(prefixes: &[IpNet]) -> String {
    let prefixes: Vec<String> = prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect();
    format!("[{}]", prefixes.join(", "))
}

fn words(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(", "))
}
