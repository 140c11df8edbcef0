//! What differs between two versions of a configuration file, and what of that a running daemon can take over.

use std::collections::BTreeMap;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, Value};

use super::report::{Finding, Report};

/// Keys of an xTR that may change while it runs; `*` stands for one name, and what is below a key goes with it.
pub(crate) const OF_XTR: &[&str] = &[
    "eid",
    "dynamic-eid",
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
    "pitr.eid-aggregates",
    "pitr.accept-from",
    "pitr.reject-source-in-aggregates",
    "petr.accept-from.rlocs",
    "petr.accept-from.eids",
    "petr.allow-private-destinations",
    "rtr.eid-prefixes",
];

/// The keys that differ, in the order of their paths; both texts are TOML, or there is none.
pub(crate) fn changed_keys(before: &str, after: &str) -> Vec<String> {
    let (before, after) = (leaves(before), leaves(after));
    let mut changed: Vec<String> = before
        .iter()
        .filter(|(key, value)| after.get(*key) != Some(value))
        .chain(after.iter().filter(|(key, _)| !before.contains_key(*key)))
        .map(|(key, _)| key.clone())
        .collect();
    changed.sort();
    changed
}

/// A finding for each of `changed` that is not among the `changeable`, at its line in `text`.
pub(crate) fn refused_keys(
    path: &Path,
    text: &str,
    changed: &[String],
    changeable: &[&str],
) -> Vec<Finding> {
    let Ok(report) = Report::new(path, text) else { return Vec::new() };
    for key in changed.iter().filter(|key| !changeable.iter().any(|may| covers(may, key))) {
        report.error(
            key,
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

/// Every value of a file by its path: numbers and words, whatever way they are written.
fn leaves(text: &str) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    if let Ok(document) = Document::parse(text) {
        of_table(&mut leaves, "", document.as_table());
    }
    leaves
}

fn of_table(leaves: &mut BTreeMap<String, String>, path: &str, table: &dyn TableLike) {
    for (name, item) in table.iter() {
        let child = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        of_item(leaves, child, item);
    }
}

fn of_item(leaves: &mut BTreeMap<String, String>, path: String, item: &Item) {
    match item {
        Item::Table(table) => {
            of_table(leaves, &path, table);
            // That an empty section is there may matter.
            leaves.insert(path, String::new());
        }
        Item::ArrayOfTables(tables) => {
            for (at, table) in tables.iter().enumerate() {
                of_table(leaves, &format!("{path}[{at}]"), table);
            }
        }
        Item::Value(value) => of_value(leaves, path, value),
        Item::None => {}
    }
}

fn of_value(leaves: &mut BTreeMap<String, String>, path: String, value: &Value) {
    let text = match value {
        Value::InlineTable(table) => {
            of_table(leaves, &path, table);
            String::new()
        }
        Value::Array(array) => {
            for (at, element) in array.iter().enumerate() {
                of_value(leaves, format!("{path}[{at}]"), element);
            }
            String::new()
        }
        Value::String(text) => format!("{:?}", text.value()),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => number.value().to_string(),
        Value::Boolean(boolean) => boolean.value().to_string(),
        Value::Datetime(time) => time.value().to_string(),
    };
    leaves.insert(path, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "[xtr]\nname = \"m\"\n\
        rlocs = { p = { address = \"192.0.2.1\", weight = 50 }, q = { address = \"192.0.2.2\" } }\n\
        map-resolvers = [\"192.0.2.9\"]\n\n[[eid]]\nprefix = \"2001:db8::/48\"\n";

    fn refused(after: &str) -> Vec<String> {
        let changed = changed_keys(BEFORE, after);
        let findings = refused_keys(Path::new("xtr.toml"), after, &changed, OF_XTR);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_values_in_other_words_are_no_change() {
        let after = "# a comment\n[xtr]\nmap-resolvers = [ \"192.0.2.9\", ]\nname = 'm'\n\
            [xtr.rlocs]\np = { weight = 0x32, address = \"192.0.2.1\" }\n[xtr.rlocs.q]\naddress = \"192.0.2.2\"\n\
            [[eid]]\nprefix = \"2001:db8::/48\"\n";
        assert_eq!(changed_keys(BEFORE, after), [""; 0]);
    }

    #[test]
    fn weights_and_eid_prefixes_may_change() {
        let after = BEFORE.replace("weight = 50", "weight = 70, priority = 2, mweight = 1")
            + "[[eid]]\nprefix = \"203.0.113.0/24\"\nlocator-set = [\"p\"]\n";
        assert_eq!(
            changed_keys(BEFORE, &after),
            [
                "eid[1].locator-set",
                "eid[1].locator-set[0]",
                "eid[1].prefix",
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
            .replace("[\"192.0.2.9\"]", "[\"192.0.2.9\", \"192.0.2.8\"]")
            .replace("address = \"192.0.2.2\"", "interface = \"eth1\"");
        let what =
            "cannot change while the daemon runs; restart it, or take the change back and reload";
        assert_eq!(
            refused(&after),
            [
                format!("xtr.toml:3: xtr.rlocs.q.address: {what}"),
                format!("xtr.toml:3: xtr.rlocs.q.interface: {what}"),
                format!("xtr.toml:4: xtr.map-resolvers[1]: {what}"),
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
        let changed = changed_keys(&with, &after);
        assert_eq!(changed, ["dynamic-eid[0].gateway.addresses[0]", "dynamic-eid[0].limit"]);
        assert!(refused_keys(Path::new("xtr.toml"), &after, &changed, OF_XTR).is_empty());
    }

    #[test]
    fn a_section_that_comes_or_goes_is_a_change() {
        let gateway = "[gateway]\nname = \"g\"\n[rtr]\neid-prefixes = [\"2001:db8::/32\"]\n";
        let changed = changed_keys(gateway, "[gateway]\nname = \"g\"\n");
        let findings = refused_keys(Path::new("g.toml"), "[gateway]\n", &changed, OF_GATEWAY);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].key, "rtr");
    }
}
