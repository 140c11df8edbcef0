//! What differs between two versions of a configuration file, and what of that a running daemon can take over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use toml_edit::{Document, Item, TableLike, Value};

use super::report::{Finding, Report};

/// Keys of an xTR that may change while it runs; `*` stands for one name, and what is below a key goes with it.
pub(crate) const OF_XTR: &[&str] = &[
    "log",
    "eid",
    "dynamic-eid",
    "xtr.name",
    "xtr.map-servers",
    "xtr.map-resolvers",
    "xtr.use-petr",
    "xtr.proxy-itrs",
    "xtr.peers",
    "xtr.probe",
    "xtr.map-cache-limit",
    "xtr.lisp-sec",
    "xtr.subscribe.key-id",
    "xtr.subscribe.key-file",
    "xtr.subscribe.key-env",
    "xtr.subscribe.algorithm",
    "xtr.subscribe.accept-unsubscribed",
    "xtr.rlocs.*.priority",
    "xtr.rlocs.*.weight",
    "xtr.rlocs.*.mpriority",
    "xtr.rlocs.*.mweight",
    "xtr.record-ttl",
    "xtr.registration-interval",
    "xtr.proxy-reply",
    "xtr.merge",
    "xtr.timeout-by-ttl",
];

/// Keys of a gateway that may change while it runs.
pub(crate) const OF_GATEWAY: &[&str] = &[
    "log",
    "gateway.name",
    "gateway.map-resolvers",
    "gateway.peers",
    "gateway.probe",
    "gateway.map-cache-limit",
    "gateway.lisp-sec",
    "gateway.subscribe.key-id",
    "gateway.subscribe.key-file",
    "gateway.subscribe.key-env",
    "gateway.subscribe.algorithm",
    "gateway.subscribe.accept-unsubscribed",
    "pitr.announce.withdraw-when-unhealthy",
    "pitr.announce.after",
    "pitr.announce.drain",
    "pitr.eid-aggregates",
    "pitr.accept-from",
    "pitr.reject-source-in-aggregates",
    "petr.accept-from.rlocs",
    "petr.accept-from.eids",
    "petr.allow-private-destinations",
    "rtr.eid-prefixes",
];

/// Keys of a Map-Server and Map-Resolver that may change while it runs.
pub(crate) const OF_MAPPING: &[&str] = &[
    "log",
    "site",
    "subscriber",
    "subscriptions",
    "lisp-sec",
    "nat",
    "mapping.name",
    "mapping.registration-timeout",
    "mapping.clients",
];

/// Keys below those that may change, which may not.
const FIXED: &[&str] = &["log.format"];

/// One key that two versions of a file have otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// The key's path; of a list of tables, each goes by its name, prefix, address or number, so that one that comes or goes moves no other.
    pub(crate) key: String,
    /// Its value before; `None` if it was not there, empty of a section.
    pub(crate) before: Option<String>,
    /// Its value after.
    pub(crate) after: Option<String>,
    /// Where it is in the file after, or was in the one before.
    #[serde(skip)]
    path: String,
}

impl Change {
    /// Whether a daemon takes it over while it runs.
    pub(crate) fn is_one_of(&self, changeable: &[&str]) -> bool {
        let is_fixed = FIXED.iter().any(|fixed| covers(fixed, &self.path));
        !is_fixed && changeable.iter().any(|may| covers(may, &self.path))
    }
}

/// What differs, in the order of the keys; both texts are TOML, or there is nothing in them.
pub(crate) fn changes(before: &str, after: &str) -> Vec<Change> {
    let (before, after) = (leaves(before), leaves(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |key: &String| {
        let (old, new) = (before.get(key), after.get(key));
        if old.map(|leaf| &leaf.text) == new.map(|leaf| &leaf.text) {
            return None;
        }
        let text = |leaf: Option<&Leaf>| leaf.map(|leaf| leaf.text.clone());
        let path = new.or(old)?.path.clone();
        Some(Change { key: key.clone(), before: text(old), after: text(new), path })
    };
    keys.into_iter().filter_map(change).collect()
}

/// A finding for each of `changes` that a running daemon cannot take over, at its line in `text`.
pub(crate) fn refused(
    path: &Path,
    text: &str,
    changes: &[Change],
    changeable: &[&str],
) -> Vec<Finding> {
    let Ok(report) = Report::new(path, text) else { return Vec::new() };
    for change in changes.iter().filter(|change| !change.is_one_of(changeable)) {
        report.error(
            &change.path,
            "cannot change while the daemon runs; restart it, or take the change back and reload",
        );
    }
    report.into_findings().0
}

/// Whether `key` is, or is below, the key `pattern`.
fn covers(pattern: &str, key: &str) -> bool {
    let mut parts = key.split('.').map(|part| part.split('[').next().unwrap_or(part));
    pattern
        .split('.')
        .all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
}

/// A value, and where it stands.
#[derive(Debug)]
struct Leaf {
    path: String,
    text: String,
}

/// Every value of a file by its key: numbers and words, whatever way they are written.
fn leaves(text: &str) -> BTreeMap<String, Leaf> {
    let mut leaves = BTreeMap::new();
    if let Ok(document) = Document::parse(text) {
        of_table(&mut leaves, &Place::default(), document.as_table());
    }
    leaves
}

/// A key as it is told, and by numbers only.
#[derive(Clone, Debug, Default)]
struct Place {
    key: String,
    path: String,
}

impl Place {
    fn child(&self, name: &str) -> Self {
        let join = |path: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        Self { key: join(&self.key), path: join(&self.path) }
    }

    fn element(&self, at: usize, label: Option<&String>) -> Self {
        let path = format!("{}[{at}]", self.path);
        let key = match label {
            Some(label) => format!("{}[{label}]", self.key),
            None => format!("{}[{at}]", self.key),
        };
        Self { key, path }
    }
}

fn of_table(leaves: &mut BTreeMap<String, Leaf>, place: &Place, table: &dyn TableLike) {
    for (name, item) in table.iter() {
        of_item(leaves, place.child(name), item);
    }
}

fn of_item(leaves: &mut BTreeMap<String, Leaf>, place: Place, item: &Item) {
    match item {
        Item::Table(table) => {
            of_table(leaves, &place, table);
            // That an empty section is there may matter.
            leaves.insert(place.key, Leaf { path: place.path, text: String::new() });
        }
        Item::ArrayOfTables(tables) => {
            let labels = labels(tables.iter().map(|table| table as &dyn TableLike));
            for (at, table) in tables.iter().enumerate() {
                of_table(leaves, &place.element(at, labels[at].as_ref()), table);
            }
        }
        Item::Value(value) => of_value(leaves, place, value),
        Item::None => {}
    }
}

/// By what each of a list of tables goes; `None` if it has nothing that no other has.
fn labels<'a>(tables: impl Iterator<Item = &'a dyn TableLike>) -> Vec<Option<String>> {
    const NAMES: [&str; 5] = ["name", "prefix", "range", "address", "id"];
    let labels: Vec<Option<String>> = tables
        .map(|table| {
            let found = NAMES.iter().find_map(|name| table.get(name)?.as_value());
            found.map(scalar).filter(|label| !label.is_empty())
        })
        .collect();
    let is_only =
        |label: &&String| labels.iter().flatten().filter(|other| other == label).count() == 1;
    labels.iter().map(|label| label.as_ref().filter(is_only).cloned()).collect()
}

fn of_value(leaves: &mut BTreeMap<String, Leaf>, place: Place, value: &Value) {
    match value {
        Value::InlineTable(table) => of_table(leaves, &place, table),
        Value::Array(array) => {
            let empty = toml_edit::InlineTable::new();
            let table = |value: &'_ Value| value.as_inline_table().is_some();
            let labels = match array.iter().all(table) {
                true => labels(
                    array
                        .iter()
                        .map(|value| value.as_inline_table().unwrap_or(&empty) as &dyn TableLike),
                ),
                false => vec![None; array.len()],
            };
            for (at, element) in array.iter().enumerate() {
                of_value(leaves, place.element(at, labels[at].as_ref()), element);
            }
        }
        _ => {}
    }
    leaves.insert(place.key, Leaf { path: place.path, text: scalar(value) });
}

/// A value as it is told; empty of what holds others.
fn scalar(value: &Value) -> String {
    match value {
        Value::InlineTable(_) | Value::Array(_) => String::new(),
        Value::String(text) => format!("{:?}", text.value()),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => number.value().to_string(),
        Value::Boolean(boolean) => boolean.value().to_string(),
        Value::Datetime(time) => time.value().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "[xtr]\nname = \"m\"\n\
        rlocs = { p = { address = \"192.0.2.1\", weight = 50 }, q = { address = \"192.0.2.2\" } }\n\
        map-resolvers = [\"192.0.2.9\"]\n\n[[eid]]\nprefix = \"2001:db8::/48\"\n";

    fn keys(before: &str, after: &str) -> Vec<String> {
        changes(before, after).into_iter().map(|change| change.key).collect()
    }

    fn refused(after: &str) -> Vec<String> {
        let changed = changes(BEFORE, after);
        let findings = super::refused(Path::new("xtr.toml"), after, &changed, OF_XTR);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_values_in_other_words_are_no_change() {
        let after = "# a comment\n[xtr]\nmap-resolvers = [ \"192.0.2.9\", ]\nname = 'm'\n\
            [xtr.rlocs]\np = { weight = 0x32, address = \"192.0.2.1\" }\n[xtr.rlocs.q]\naddress = \"192.0.2.2\"\n\
            [[eid]]\nprefix = \"2001:db8::/48\"\n";
        assert_eq!(keys(BEFORE, after), [""; 0]);
    }

    #[test]
    fn weights_and_eid_prefixes_may_change() {
        let after = BEFORE.replace("weight = 50", "weight = 70, priority = 2, mweight = 1")
            + "[[eid]]\nprefix = \"203.0.113.0/24\"\nlocator-set = [\"p\"]\n";
        assert_eq!(
            keys(BEFORE, &after),
            [
                "eid[\"203.0.113.0/24\"].locator-set",
                "eid[\"203.0.113.0/24\"].locator-set[0]",
                "eid[\"203.0.113.0/24\"].prefix",
                "xtr.rlocs.p.mweight",
                "xtr.rlocs.p.priority",
                "xtr.rlocs.p.weight"
            ]
        );
        assert_eq!(refused(&after), [""; 0]);
    }

    #[test]
    fn what_cannot_change_is_named_with_its_line() {
        let after = BEFORE
            .replace("name = \"m\"", "state-dir = \"/s\"")
            .replace("address = \"192.0.2.2\"", "interface = \"eth1\"");
        let what =
            "cannot change while the daemon runs; restart it, or take the change back and reload";
        assert_eq!(
            refused(&after),
            [
                format!("xtr.toml:2: xtr.state-dir: {what}"),
                format!("xtr.toml:3: xtr.rlocs.q.address: {what}"),
                format!("xtr.toml:3: xtr.rlocs.q.interface: {what}"),
            ]
        );
        assert_eq!(refused(&BEFORE.replace("[xtr]", "[data]\n[xtr]")).len(), 1);
    }

    #[test]
    fn dy_01_ranges_of_hosts_may_come_change_and_go() {
        let range = "[[dynamic-eid]]\nrange = \"172.16.4.0/24\"\ninterfaces = [\"lan0\"]\nlimit = 7\n\
            gateway = { mac = \"00:00:5e:00:01:01\", addresses = [\"172.16.4.1\"] }\n";
        assert_eq!(refused(&(BEFORE.to_owned() + range)), [""; 0]);
        let with = BEFORE.to_owned() + range;
        let after = with.replace("limit = 7", "limit = 8").replace("4.1\"", "4.2\"");
        let changed = changes(&with, &after);
        let range = "dynamic-eid[\"172.16.4.0/24\"]";
        assert_eq!(
            keys(&with, &after),
            [format!("{range}.gateway.addresses[0]"), format!("{range}.limit")]
        );
        assert!(super::refused(Path::new("xtr.toml"), &after, &changed, OF_XTR).is_empty());
    }

    #[test]
    fn a_section_that_comes_or_goes_is_a_change() {
        let gateway = "[gateway]\nname = \"g\"\n[rtr]\neid-prefixes = [\"2001:db8::/32\"]\n";
        let changed = changes(gateway, "[gateway]\nname = \"g\"\n");
        let findings = super::refused(Path::new("g.toml"), "[gateway]\n", &changed, OF_GATEWAY);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].key, "rtr");
    }

    #[test]
    fn one_that_comes_or_goes_moves_no_other() {
        let site = |name: &str, prefix: &str| {
            format!(
                "[[site]]\nname = \"{name}\"\nkeys = [{{ id = 1, file = \"{name}.key\" }}]\neid-prefixes = [\"{prefix}\"]\n"
            )
        };
        let (a, b, c) =
            (site("a", "10.1.0.0/16"), site("b", "10.2.0.0/16"), site("c", "10.3.0.0/16"));
        assert_eq!(keys(&(a.clone() + &b), &(b.clone() + &a)), [""; 0]);
        let changed = changes(&(a.clone() + &b), &(c + &b.replace("id = 1", "id = 2")));
        let told: Vec<_> = changed
            .iter()
            .filter(|change| change.key.ends_with("id"))
            .map(|change| (&*change.key, change.before.as_deref(), change.after.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("site[\"a\"].keys[1].id", Some("1"), None),
                ("site[\"b\"].keys[1].id", Some("1"), None),
                ("site[\"b\"].keys[2].id", None, Some("2")),
                ("site[\"c\"].keys[1].id", None, Some("1")),
            ]
        );
        assert!(changed.iter().all(|change| change.is_one_of(OF_MAPPING)), "{changed:?}");
    }

    #[test]
    fn peers_and_levels_may_change_and_their_order_is_a_change() {
        let after = BEFORE.replace("[\"192.0.2.9\"]", "[\"192.0.2.8\", \"192.0.2.9\"]")
            + "[log]\nlevel = \"debug\"\n";
        assert_eq!(refused(&after), [""; 0]);
        assert_eq!(
            keys(BEFORE, &after),
            ["log", "log.level", "xtr.map-resolvers[0]", "xtr.map-resolvers[1]"]
        );
    }
}
