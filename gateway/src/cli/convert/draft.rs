//! What another implementation's configuration says, in our words.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mapping::config::Profile;

use super::blocks::{Line, Node};

/// A configuration in the making. What is not there was not said.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) level: Option<&'static str>,
    /// It has EID-prefixes of its own.
    pub(super) is_xtr: bool,
    pub(super) is_mapping: bool,
    pub(super) is_pitr: bool,
    pub(super) is_petr: bool,
    pub(super) locators: Vec<Locator>,
    pub(super) map_servers: Vec<MapServer>,
    pub(super) map_resolvers: Vec<String>,
    pub(super) petrs: Vec<Petr>,
    pub(super) pitrs: Vec<String>,
    pub(super) eids: Vec<Eid>,
    pub(super) ranges: Vec<Range>,
    pub(super) sites: Vec<Site>,
    /// What a PITR takes.
    pub(super) aggregates: Vec<IpNet>,
    /// `Some(None)`: none.
    pub(super) probe: Option<Option<Probe>>,
    pub(super) proxy_reply: Option<bool>,
    pub(super) record_ttl_minutes: Option<u32>,
    pub(super) map_cache_limit: Option<u32>,
    /// Lines without equivalent.
    pub(super) notes: Vec<Note>,
}

/// A line, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Its number; `None` of what concerns no single line.
    pub(super) number: Option<usize>,
    /// The line, never with a secret.
    pub(super) line: String,
    /// Why it has no equivalent, and what there is instead.
    pub(super) why: String,
}

/// Where a locator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Address(IpAddr),
    /// An interface, and the family of its address.
    Interface(String, Option<Family>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// An own locator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Locator {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) priority: u8,
    pub(super) weight: u8,
}

/// A shared secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) id: u8,
    /// `None` if it is not told in clear text.
    pub(super) secret: Option<String>,
    pub(super) algorithm: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapServer {
    pub(super) address: String,
    pub(super) key: Key,
    pub(super) profile: Profile,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Petr {
    pub(super) address: String,
    pub(super) priority: u8,
    pub(super) weight: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Eid {
    pub(super) prefix: IpNet,
    pub(super) instance_id: u32,
    /// Names of its locators; none = all.
    pub(super) locators: Vec<String>,
    pub(super) interfaces: Vec<String>,
}

/// EIDs whose hosts come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) range: IpNet,
    pub(super) instance_id: u32,
    pub(super) locators: Vec<String>,
    pub(super) interfaces: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) keys: Vec<Key>,
    pub(super) prefixes: Vec<SitePrefix>,
    pub(super) allowed_locators: Vec<IpNet>,
    pub(super) profile: Profile,
    pub(super) force_proxy_reply: bool,
    pub(super) admin_down: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SitePrefix {
    pub(super) prefix: IpNet,
    pub(super) instance_id: u32,
    pub(super) accept_more_specifics: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) interval: Duration,
    pub(super) tries: u32,
}

impl Draft {
    /// The values of a block; what else is in it is noted.
    pub(super) fn values(&mut self, inner: &[Node]) -> Vec<Line> {
        let mut values = Vec::new();
        for node in inner {
            match node {
                Node::Value(line) => values.push(line.clone()),
                Node::List(line, _) | Node::Block(line, _) | Node::Other(line) => {
                    self.note(line.number, &line.key, "no equivalent");
                }
            }
        }
        values
    }

    /// Notes a line that has no equivalent.
    pub(super) fn note(&mut self, number: usize, line: impl Into<String>, why: impl Into<String>) {
        self.notes.push(Note { number: Some(number), line: line.into(), why: why.into() });
    }

    /// Notes what concerns no single line.
    pub(super) fn remark(&mut self, why: impl Into<String>) {
        self.notes.push(Note { number: None, line: String::new(), why: why.into() });
    }

    /// The name of the own locator at a place. One place has one priority and weight here: those that came first.
    pub(super) fn locator(
        &mut self,
        number: usize,
        place: Place,
        (priority, weight): (u8, u8),
    ) -> String {
        if let Some(known) = self.locators.iter().find(|known| known.place == place) {
            let name = known.name.clone();
            if (known.priority, known.weight) != (priority, weight) {
                let before = format!("priority {}, weight {}", known.priority, known.weight);
                self.note(
                    number,
                    format!("priority {priority}, weight {weight}"),
                    format!("a locator has the same for all EID-prefixes: {before} stay"),
                );
            }
            return name;
        }
        let name = match &place {
            Place::Address(_) => format!("rloc{}", self.locators.len() + 1),
            Place::Interface(interface, family) => {
                let name = interface.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                match family {
                    Some(Family::V6) => format!("{name}-v6"),
                    _ => name,
                }
            }
        };
        self.locators.push(Locator { name: name.clone(), place, priority, weight });
        name
    }

    /// Another EID-prefix, or more locators of one that is there.
    pub(super) fn eid(&mut self, prefix: IpNet, instance_id: u32, locators: Vec<String>) {
        self.is_xtr = true;
        let same = |eid: &&mut Eid| eid.prefix == prefix && eid.instance_id == instance_id;
        match self.eids.iter_mut().find(same) {
            Some(eid) => {
                for name in locators {
                    if !eid.locators.contains(&name) {
                        eid.locators.push(name);
                    }
                }
            }
            None => self.eids.push(Eid { prefix, instance_id, locators, interfaces: Vec::new() }),
        }
    }

    /// Another PETR; one address serves both families.
    pub(super) fn petr(&mut self, address: &str, priority: u8, weight: u8) {
        if self.petrs.iter().all(|petr| petr.address != address) {
            let address = address.to_owned();
            self.petrs.push(Petr { address, priority, weight });
        }
    }

    /// Adds a peer once.
    pub(super) fn map_resolver(&mut self, address: &str) {
        if !self.map_resolvers.iter().any(|known| known == address) {
            self.map_resolvers.push(address.to_owned());
        }
    }

    /// Another Map-Server, once per address.
    pub(super) fn map_server(&mut self, server: MapServer) {
        if self.map_servers.iter().all(|known| known.address != server.address) {
            self.map_servers.push(server);
        }
    }

    /// The site of this name.
    pub(super) fn site(&mut self, name: &str) -> &mut Site {
        self.is_mapping = true;
        let at = self.sites.iter().position(|site| site.name == name).unwrap_or_else(|| {
            self.sites.push(Site { name: name.to_owned(), ..Site::default() });
            self.sites.len() - 1
        });
        &mut self.sites[at]
    }
}

/// A prefix, or an address for its host prefix; host bits are cut off.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse::<IpNet>().map(|prefix| prefix.trunc())).ok()
}

/// Words that other implementations have for yes and no.
pub(super) fn is_yes(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "yes" | "on" | "true" | "1")
}
