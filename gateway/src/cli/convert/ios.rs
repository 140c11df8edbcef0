//! Cisco IOS and IOS XE: `router lisp` with its sections, and the older `ip lisp ..` and `lisp site ..`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mapping::config::Profile;

use super::draft::{Draft, Family, Key, MapServer, Place, Probe, Range, SitePrefix, prefix};

/// Reads a running configuration; what is not of LISP is passed over.
pub(super) fn read(text: &str) -> Draft {
    let mut reader = Reader::default();
    for (number, line) in (1..).zip(text.lines()) {
        reader.line(number, line);
    }
    reader.finish()
}

/// Where a line stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Outside of what concerns LISP.
    #[default]
    Global,
    Interface(String),
    Lisp,
    LocatorSet(String),
    EidTable,
    Site(String),
    DynamicEid(String),
}

#[derive(Debug, Default)]
struct Reader {
    draft: Draft,
    mode: Mode,
    /// Of the `eid-table` that is read.
    instance_id: u32,
    /// Locators by the name of their set.
    sets: BTreeMap<String, Vec<String>>,
    /// EID-prefixes whose locator-set may come later.
    pending: Vec<(usize, IpNet, u32, String)>,
    /// Ranges by the name of their dynamic-eid.
    ranges: Vec<(usize, String, IpNet, u32, String)>,
    /// Interfaces where hosts of a dynamic-eid are.
    mobility: Vec<(String, String)>,
    /// Interfaces that are named in the result: as Cisco calls them, and as they are written.
    named: BTreeMap<String, String>,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [first, ..] = words[..] else { return };
        if first.starts_with('!') {
            return;
        }
        if !line.starts_with(' ') {
            return self.global(number, &words);
        }
        match self.mode.clone() {
            Mode::Global => {}
            Mode::Interface(name) => {
                if let ["lisp", "mobility", dynamic, ..] = words[..] {
                    self.mobility.push((dynamic.to_owned(), name));
                }
            }
            mode => self.within(number, &words, mode),
        }
    }

    fn global(&mut self, number: usize, words: &[&str]) {
        self.mode = Mode::Global;
        match *words {
            ["hostname", name] => self.draft.name = Some(name.to_owned()),
            ["interface", name, ..] => self.mode = Mode::Interface(name.to_owned()),
            ["router", "lisp", ..] => (self.mode, self.instance_id) = (Mode::Lisp, 0),
            ["lisp", "site", name] => self.enter_site(name),
            ["ip", "lisp", ref rest @ ..] => self.command(number, words, "ipv4", rest),
            ["ipv6", "lisp", ref rest @ ..] => self.command(number, words, "ipv6", rest),
            ["lisp", ..] => self.note(number, words, "no equivalent"),
            _ => {}
        }
    }

    /// A line of `router lisp` or a section in it.
    fn within(&mut self, number: usize, words: &[&str], mode: Mode) {
        match *words {
            ["exit", ..] => {
                self.mode = match mode {
                    Mode::DynamicEid(_) => Mode::EidTable,
                    _ => Mode::Lisp,
                };
                return;
            }
            [word] if word.starts_with("exit-") => {
                self.mode = Mode::Lisp;
                return;
            }
            ["locator-set", name] => {
                self.sets.entry(name.to_owned()).or_default();
                self.mode = Mode::LocatorSet(name.to_owned());
                return;
            }
            ["eid-table", ref rest @ ..] => {
                let at = rest.iter().position(|word| *word == "instance-id");
                let id = at.and_then(|at| rest.get(at + 1)?.parse().ok());
                (self.instance_id, self.mode) = (id.unwrap_or(0), Mode::EidTable);
                if rest.first() == Some(&"vrf") {
                    self.note(
                        number,
                        words,
                        "instances share one routing table here: see interfaces of [[eid]]",
                    );
                }
                return;
            }
            ["site", name] => return self.enter_site(name),
            ["dynamic-eid", name] => {
                self.mode = Mode::DynamicEid(name.to_owned());
                return;
            }
            _ => {}
        }
        match mode {
            Mode::LocatorSet(set) => self.member(number, words, set),
            Mode::Site(name) => self.of_site(number, words, &name),
            Mode::DynamicEid(name) => self.of_dynamic_eid(number, words, name),
            _ => match *words {
                ["database-mapping", ref rest @ ..] => self.database_mapping(number, words, rest),
                ["map-cache", ref rest @ ..] => self.aggregate(number, words, rest),
                [family @ ("ipv4" | "ipv6"), ref rest @ ..] => {
                    self.command(number, words, family, rest);
                }
                ["loc-reach-algorithm", "rloc-probing"] => {
                    self.draft.probe =
                        Some(Some(Probe { interval: Duration::from_secs(60), tries: 3 }));
                }
                ["no", "loc-reach-algorithm", "rloc-probing"] => self.draft.probe = Some(None),
                ["locator-table", "default"] => {}
                _ => self.note(number, words, "no equivalent"),
            },
        }
    }

    fn enter_site(&mut self, name: &str) {
        self.draft.site(name).profile = Profile::Vpp;
        self.mode = Mode::Site(name.to_owned());
    }

    /// `ADDRESS priority P weight W`, or `IPv4-interface NAME priority P weight W`.
    fn member(&mut self, number: usize, words: &[&str], set: String) {
        if let Some(name) = self.locator(number, words) {
            self.sets.entry(set).or_default().push(name);
        }
    }

    fn locator(&mut self, number: usize, words: &[&str]) -> Option<String> {
        let interface = |family: &str| match family.to_ascii_lowercase().as_str() {
            "ipv4-interface" => Some(Family::V4),
            "ipv6-interface" => Some(Family::V6),
            _ => None,
        };
        let place = match *words {
            [kind, name, ..] if interface(kind).is_some() => {
                Place::Interface(self.called(name), interface(kind))
            }
            [address, ..] if address.parse::<IpAddr>().is_ok() => {
                Place::Address(address.parse().ok()?)
            }
            _ => {
                self.note(number, words, "no locator of this router");
                return None;
            }
        };
        let of = |key: &str, usual: u8| value(words, key).unwrap_or(usual);
        Some(self.draft.locator(number, place, (of("priority", 1), of("weight", 100))))
    }

    /// `PREFIX locator-set NAME`, or `PREFIX LOCATOR ..`.
    fn database_mapping(&mut self, number: usize, words: &[&str], rest: &[&str]) {
        let Some(eid) = rest.first().and_then(|text| prefix(text)) else {
            return self.note(number, words, "no prefix");
        };
        match rest[1..] {
            ["locator-set", set, ..] => {
                self.pending.push((number, eid, self.instance_id, set.to_owned()));
            }
            ref locator => {
                if let Some(name) = self.locator(number, locator) {
                    self.draft.eid(eid, self.instance_id, vec![name]);
                }
            }
        }
    }

    fn of_dynamic_eid(&mut self, number: usize, words: &[&str], name: String) {
        match *words {
            ["database-mapping", eid, "locator-set", set, ..] if prefix(eid).is_some() => {
                let Some(range) = prefix(eid) else { return };
                self.ranges.push((number, name, range, self.instance_id, set.to_owned()));
            }
            _ => self.note(number, words, "no equivalent"),
        }
    }

    /// `PREFIX map-request`: what a PITR asks for.
    fn aggregate(&mut self, number: usize, words: &[&str], rest: &[&str]) {
        match *rest {
            [eid, "map-request", ..] => match prefix(eid) {
                Some(eid) if eid.prefix_len() > 0 => self.draft.aggregates.push(eid),
                // An xTR asks for everything anyway; a PITR should not.
                _ => {}
            },
            _ => self.note(
                number,
                words,
                "the mapping system fills the map-cache, nothing else does",
            ),
        }
    }

    /// What begins with `ipv4`, `ip lisp` and the like.
    fn command(&mut self, number: usize, words: &[&str], family: &str, rest: &[&str]) {
        match *rest {
            ["itr"] | ["etr"] | ["itr-etr"] => self.draft.is_xtr = true,
            ["itr", "map-resolver", address, ..] => self.draft.map_resolver(address),
            ["etr", "map-server", address, ref key @ ..] => self.map_server(number, address, key),
            ["etr", "map-cache-ttl", minutes] => {
                self.draft.record_ttl_minutes = minutes.parse().ok();
            }
            ["use-petr", address, ..] => {
                let of = |key: &str, usual: u8| value(rest, key).unwrap_or(usual);
                self.draft.petr(address, of("priority", 1), of("weight", 100));
            }
            ["map-cache-limit", limit, ..] => self.draft.map_cache_limit = limit.parse().ok(),
            ["map-server"] | ["map-resolver"] => self.draft.is_mapping = true,
            ["proxy-itr", ref locators @ ..] => {
                self.draft.is_pitr = true;
                self.own(number, locators);
            }
            ["proxy-etr"] => self.draft.is_petr = true,
            ["database-mapping", ref mapping @ ..] => self.database_mapping(number, words, mapping),
            ["map-cache", ref entry @ ..] => self.aggregate(number, words, entry),
            ["alt-vrf", ..] => self.note(number, words, "there is no ALT any more: map-resolvers"),
            ["nat-traversal", ..] => self.note(
                number,
                words,
                "write nat-traversal = true, and xtr-id and site-id, which it needs",
            ),
            _ => self.note(number, words, &format!("no equivalent for {family}")),
        }
    }

    /// The RLOCs of a PITR.
    fn own(&mut self, number: usize, addresses: &[&str]) {
        for address in addresses.iter().filter_map(|text| text.parse().ok()) {
            self.draft.locator(number, Place::Address(address), (1, 100));
        }
    }

    /// `key [TYPE] SECRET [hash-function NAME] [proxy-reply]`.
    fn map_server(&mut self, number: usize, address: &str, rest: &[&str]) {
        self.draft.is_xtr = true;
        if rest.contains(&"proxy-reply") {
            self.draft.proxy_reply = Some(true);
        }
        let at = rest.iter().position(|word| *word == "key");
        let Some(at) = at else {
            // Another line of the same Map-Server.
            return;
        };
        let key = self.key(number, &rest[at + 1..]);
        let profile = match key.algorithm {
            "hmac-sha-1-96" => Profile::Vpp,
            _ => Profile::Rfc9301,
        };
        self.draft.map_server(MapServer { address: address.to_owned(), key, profile });
    }

    /// `[TYPE] SECRET ..`; types other than 0 are not clear text.
    fn key(&mut self, number: usize, words: &[&str]) -> Key {
        let strong = words.iter().any(|word| word.starts_with("sha2") || *word == "sha-256");
        let algorithm = if strong { "hmac-sha-256-128" } else { "hmac-sha-1-96" };
        let clear = match *words {
            ["0", secret, ..] => Some(secret),
            [kind @ ("6" | "7"), _, ..] => {
                let why =
                    format!("type {kind} is not clear text: write the secret into the key file");
                self.draft.note(number, "key", why);
                None
            }
            [secret, ..] => Some(secret),
            [] => None,
        };
        Key { id: 1, secret: clear.map(str::to_owned), algorithm }
    }

    fn of_site(&mut self, number: usize, words: &[&str], name: &str) {
        match *words {
            ["authentication-key", ref rest @ ..] => {
                let key = self.key(number, rest);
                let site = self.draft.site(name);
                if key.algorithm != "hmac-sha-1-96" {
                    site.profile = Profile::Rfc9301;
                }
                site.keys = vec![key];
            }
            ["eid-prefix", ref rest @ ..] => {
                let (instance_id, rest) = match *rest {
                    ["instance-id", id, ref rest @ ..] => (id.parse().unwrap_or(0), rest),
                    ref rest => (0, rest),
                };
                let Some(eid) = rest.first().and_then(|text| prefix(text)) else {
                    return self.note(number, words, "no prefix");
                };
                let accept_more_specifics = rest.contains(&"accept-more-specifics");
                let one = SitePrefix { prefix: eid, instance_id, accept_more_specifics };
                self.draft.site(name).prefixes.push(one);
            }
            ["allowed-locator" | "allowed-locators", ref rest @ ..] => {
                let locators: Vec<IpNet> = rest.iter().filter_map(|text| prefix(text)).collect();
                self.draft.site(name).allowed_locators.extend(locators);
            }
            ["description", ..] => {}
            _ => self.note(number, words, "no equivalent"),
        }
    }

    fn finish(mut self) -> Draft {
        for (number, eid, instance_id, set) in std::mem::take(&mut self.pending) {
            match self.sets.get(&set) {
                Some(locators) => self.draft.eid(eid, instance_id, locators.clone()),
                None => self.draft.note(number, format!("locator-set {set}"), "is defined nowhere"),
            }
        }
        for (number, name, range, instance_id, set) in std::mem::take(&mut self.ranges) {
            let on = self.mobility.iter().filter(|(dynamic, _)| *dynamic == name);
            let on: Vec<String> = on.map(|(_, interface)| interface.clone()).collect();
            let interfaces: Vec<String> = on.iter().map(|name| self.called(name)).collect();
            if interfaces.is_empty() {
                self.draft.note(
                    number,
                    format!("dynamic-eid {name}"),
                    "no interface has lisp mobility for it: write [[dynamic-eid]] with its interfaces",
                );
                continue;
            }
            let locators = self.sets.get(&set).cloned().unwrap_or_default();
            self.draft.ranges.push(Range { range, instance_id, locators, interfaces });
        }
        if self.draft.eids.is_empty() && self.draft.ranges.is_empty() {
            // A Map-Resolver of a PITR makes no site.
            self.draft.is_xtr = false;
        }
        for (theirs, ours) in &self.named {
            self.draft
                .remark(format!("interface {theirs} is written as {ours}: write this host's"));
        }
        let weak = |key: &Key| key.algorithm == "hmac-sha-1-96";
        let of_sites = self.draft.sites.iter().flat_map(|site| &site.keys);
        let of_servers = self.draft.map_servers.iter().map(|server| &server.key);
        if of_sites.chain(of_servers).any(weak) {
            self.draft.remark(
                "the profile vpp lets HMAC-SHA-1 pass, as IOS signs unless told sha2: once both ends sign with \
                 HMAC-SHA-256, leave it and the algorithm out",
            );
        }
        self.draft
    }

    /// An interface by a name that Linux could have: `Gi0-1`.
    fn called(&mut self, name: &str) -> String {
        let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
        let (kind, place) = name.split_at(digits);
        let place = place.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let kind: String = kind.chars().filter(char::is_ascii_alphabetic).take(2).collect();
        let short: String = (kind + &place).chars().take(15).collect();
        self.named.insert(name.to_owned(), short.clone());
        short
    }

    fn note(&mut self, number: usize, words: &[&str], why: &str) {
        let secret = words.iter().position(|word| *word == "key" || *word == "authentication-key");
        let said = secret.map_or(words, |at| &words[..=at]);
        self.draft.note(number, said.join(" "), why);
    }
}

/// The number after a word.
fn value(words: &[&str], key: &str) -> Option<u8> {
    let at = words.iter().position(|word| *word == key)?;
    words.get(at + 1)?.parse().ok()
}
