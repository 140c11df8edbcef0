//! The Delegated Database Tree as text.

use std::fmt::Display;

use ::mapping::view::{DelegationsView, PendingReferralView, ReferralView, ReferralsView};

use super::super::columns::Align::{Left, Right};
use super::super::columns::{clock, clock_or, table};
use super::counted;

pub(super) fn referrals(view: &ReferralsView) -> String {
    let mut text =
        format!("LISP-DDT referral cache, {}\n", counted(view.cache.len(), "entry", "entries"));
    if !view.cache.is_empty() {
        let header = [
            ("XEID-prefix", Left),
            ("Action", Left),
            ("Expires", Right),
            ("From", Left),
            ("RLOCs", Left),
        ];
        text += "\n";
        text += &table(0, &header, &view.cache.iter().map(referral).collect::<Vec<_>>());
    }
    if !view.pending.is_empty() {
        let header = [
            ("Looking for", Left),
            ("ITR", Left),
            ("Asking", Left),
            ("Referred to", Left),
            ("Referrals", Right),
            ("Tries", Right),
            ("Age", Right),
        ];
        text += "\n";
        text += &table(0, &header, &view.pending.iter().map(pending).collect::<Vec<_>>());
    }
    text
}

pub(super) fn delegations(view: &DelegationsView) -> String {
    if view.authoritative.is_empty() && view.delegations.is_empty() {
        return "No part of the Delegated Database Tree is configured here.\n".to_owned();
    }
    let mut text = String::new();
    if !view.authoritative.is_empty() {
        let header =
            [("Authoritative", Left), ("Instance", Left), ("Peers", Left), ("Complete", Left)];
        let rows = view.authoritative.iter().map(|own| {
            let instance = own.instance_id.map_or_else(|| "all".to_owned(), |id| id.to_string());
            let complete = if own.complete { "yes" } else { "no" };
            vec![own.prefix.to_string(), instance, listed(&own.peers), complete.to_owned()]
        });
        text += &table(0, &header, &rows.collect::<Vec<_>>());
    }
    if !view.delegations.is_empty() {
        let header = [("Delegated", Left), ("To", Left), ("RLOCs", Left)];
        let rows = view.delegations.iter().map(|delegation| {
            let to = if delegation.map_server { "Map-Servers" } else { "nodes" };
            vec![delegation.prefix.to_string(), to.to_owned(), listed(&delegation.rlocs)]
        });
        if !text.is_empty() {
            text += "\n";
        }
        text += &table(0, &header, &rows.collect::<Vec<_>>());
    }
    text
}

fn referral(entry: &ReferralView) -> Vec<String> {
    vec![
        entry.prefix.map_or_else(|| "root".to_owned(), |prefix| prefix.to_string()),
        entry.action.clone(),
        clock_or(entry.expires_seconds, "never"),
        entry.source.map_or_else(|| "configuration".to_owned(), |source| source.to_string()),
        listed(&entry.rlocs),
    ]
}

fn pending(lookup: &PendingReferralView) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    vec![
        lookup.eid.to_string(),
        or_dash(lookup.itr.map(|itr| itr.to_string())),
        or_dash(lookup.asking.map(|asking| asking.to_string())),
        or_dash(lookup.referral.map(|referral| referral.to_string())),
        lookup.referrals.to_string(),
        lookup.tries.to_string(),
        clock(lookup.age_seconds),
    ]
}

fn listed(values: &[impl Display]) -> String {
    match values {
        [] => "-".to_owned(),
        values => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use ::mapping::admin::Query;
    use ::mapping::eid::{EidPrefix, InstanceId};
    use serde_json::{Value, json};

    fn shown(query: &Query, value: Value) -> String {
        super::super::view(query, value).unwrap()
    }

    fn prefix(instance_id: u32, text: &str) -> EidPrefix {
        EidPrefix::new(InstanceId::new(instance_id).unwrap(), text.parse().unwrap())
    }

    #[test]
    fn dd_10_referrals_say_what_is_known_from_whom_and_for_how_long() {
        let value = json!({
            "cache": [
                {"prefix": null, "action": "node-referral", "rlocs": ["192.0.2.1", "192.0.2.2"],
                 "expires_seconds": null, "source": null},
                {"prefix": prefix(7, "10.0.0.0/8"), "action": "ms-referral", "rlocs": ["192.0.2.101"],
                 "expires_seconds": 3_600, "source": "192.0.2.1"},
                {"prefix": prefix(0, "172.16.0.0/12"), "action": "delegation-hole", "rlocs": [],
                 "expires_seconds": 899, "source": "192.0.2.2"},
            ],
            "pending": [
                {"eid": prefix(0, "203.0.113.1/32"), "itr": "198.51.100.1", "asking": "192.0.2.1",
                 "referral": null, "referrals": 0, "tries": 2, "age_seconds": 1},
            ],
        });
        let expected = "\
LISP-DDT referral cache, 3 entries

XEID-prefix    Action            Expires  From           RLOCs
root           node-referral       never  configuration  192.0.2.1, 192.0.2.2
[7]10.0.0.0/8  ms-referral      01:00:00  192.0.2.1      192.0.2.101
172.16.0.0/12  delegation-hole  00:14:59  192.0.2.2      -

Looking for     ITR           Asking     Referred to  Referrals  Tries       Age
203.0.113.1/32  198.51.100.1  192.0.2.1  -                    0      2  00:00:01
";
        assert_eq!(shown(&Query::Referrals, value), expected);
        let empty = json!({"cache": [], "pending": []});
        assert_eq!(shown(&Query::Referrals, empty), "LISP-DDT referral cache, 0 entries\n");
    }

    #[test]
    fn dd_03_delegations_say_to_whom() {
        let value = json!({
            "authoritative": [
                {"prefix": "0.0.0.0/0", "instance_id": null, "peers": ["192.0.2.2"], "complete": true},
                {"prefix": "10.0.0.0/8", "instance_id": 7, "peers": [], "complete": false},
            ],
            "delegations": [
                {"prefix": prefix(7, "10.1.0.0/16"), "rlocs": ["192.0.2.11"], "map_server": true},
            ],
        });
        let expected = "\
Authoritative  Instance  Peers      Complete
0.0.0.0/0      all       192.0.2.2  yes
10.0.0.0/8     7         -          no

Delegated       To           RLOCs
[7]10.1.0.0/16  Map-Servers  192.0.2.11
";
        assert_eq!(shown(&Query::Delegations, value), expected);
        let empty = json!({"authoritative": [], "delegations": []});
        assert!(shown(&Query::Delegations, empty).starts_with("No part"));
    }
}
