//! Views as text for people: the shapes that operators of LISP routers know.

mod subscriptions;

use std::collections::BTreeMap;
use std::fmt::Write;

use ::mapping::admin::{DropCount, Query};
use ::mapping::eid::{EidPrefix, InstanceId};
use ::mapping::view::{RefusalView, RegistrationView, SiteView, StatusView, WorkerView};
use ::xtr::view::{LocatorView, MapCacheEntryView, OwnRegistrationView};
use ipnet::IpNet;
use serde_json::Value;

mod ddt;
mod host;
mod migration;
mod mobility;
mod nat;
mod traffic;

use super::columns::Align::{Left, Right};
use super::columns::{clock, clock_or, milliseconds, table};

/// The answer to `query` as text.
pub(crate) fn view(query: &Query, view: Value) -> Result<String, serde_json::Error> {
    Ok(match query {
        Query::MapCache => map_cache(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Sites => sites(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Registrations if is_own(&view) => {
            own_registrations(&serde_json::from_value::<Vec<_>>(view)?)
        }
        Query::Registrations => registrations(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Refusals => refusals(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Subscriptions if is_own_subscription(&view) => {
            subscriptions::own(&serde_json::from_value::<Vec<_>>(view)?)
        }
        Query::Subscriptions => subscriptions::of_others(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Locators => locators(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Mobility => mobility::hosts(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Nat => nat::text(&serde_json::from_value(view)?),
        Query::Referrals => ddt::referrals(&serde_json::from_value(view)?),
        Query::Delegations => ddt::delegations(&serde_json::from_value(view)?),
        Query::Counters => counters(&serde_json::from_value(view)?),
        Query::Drops => drops(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Status => status(&serde_json::from_value(view)?),
        Query::Explain(_) => super::explain::text(&serde_json::from_value(view)?),
        Query::Traffic => traffic::traffic(&serde_json::from_value(view)?),
        Query::Migration => migration::text(&serde_json::from_value(view)?),
        Query::FindMappings { .. } => map_cache(&serde_json::from_value::<Vec<_>>(view)?),
        Query::RemoteRlocs => locators(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Interfaces => host::interfaces(&serde_json::from_value::<Vec<_>>(view)?),
        Query::Config => host::config(&view),
        Query::Tap(_)
        | Query::ClearMapCache { .. }
        | Query::Reload
        | Query::Apply { .. }
        | Query::Confirm
        | Query::Undo
        | Query::Keep(_)
        | Query::Metrics => format!("{view}\n"),
        Query::History { counters } => {
            let view = serde_json::from_value(view)?;
            match counters.is_empty() {
                true => super::history::summary(&view),
                false => super::history::details(&view),
            }
        }
        Query::Events { .. } => super::events::text(&serde_json::from_value(view)?),
        Query::TopEids { .. } => map_cache(&serde_json::from_value::<Vec<_>>(view)?),
        Query::TapNext { .. } => super::tap::text(&serde_json::from_value(view)?),
    })
}

/// Whether the registrations are an xTR's own: those name the Map-Server they are at.
fn is_own(view: &Value) -> bool {
    view.get(0).is_some_and(|first| first.get("map_server").is_some())
}

/// Whether the subscriptions are a tunnel router's own: those have a renewal.
fn is_own_subscription(view: &Value) -> bool {
    view.get(0).is_some_and(|first| first.get("renewal_seconds").is_some())
}

fn in_instance(instance_id: u32, prefix: IpNet) -> String {
    match InstanceId::new(instance_id) {
        Some(id) => EidPrefix::new(id, prefix).to_string(),
        None => format!("[{instance_id}]{prefix}"),
    }
}

fn counted(count: impl ToString, one: &str, many: &str) -> String {
    let count = count.to_string();
    if count == "1" { format!("1 {one}") } else { format!("{count} {many}") }
}

fn map_cache(entries: &[MapCacheEntryView]) -> String {
    let mut text = format!("LISP map-cache, {}\n", counted(entries.len(), "entry", "entries"));
    for entry in entries {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\n{}, uptime: {}, expires: {}, via {}, {}{}{}\n  forwarding: {}, {}, {} octets",
            in_instance(entry.instance_id, entry.prefix),
            clock(entry.uptime_seconds),
            clock_or(entry.expires_seconds, "never"),
            entry.via.name(),
            entry.state,
            if entry.secured { ", secured" } else { "" },
            match entry.map_version {
                0 => String::new(),
                version => format!(", map-version {version}"),
            },
            entry.forwarding,
            counted(entry.packets, "packet", "packets"),
            entry.octets,
        );
        if entry.locators.is_empty() {
            continue;
        }
        let header = [
            ("Locator", Left),
            ("State", Left),
            ("Pri/Wgt", Right),
            ("RTT", Right),
            ("Packets", Right),
            ("Octets", Right),
            ("MTU", Right),
            ("", Left),
        ];
        let rows: Vec<_> = entry.locators.iter().map(locator_of_entry).collect();
        text += &table(2, &header, &rows);
    }
    text
}

fn locator_of_entry(locator: &LocatorView) -> Vec<String> {
    vec![
        locator.address.to_string(),
        locator.state.name().to_owned(),
        format!("{}/{}", locator.priority, locator.weight),
        rtt(locator),
        locator.packets.to_string(),
        locator.octets.to_string(),
        locator.mtu.to_string(),
        remarks(locator),
    ]
}

fn rtt(locator: &LocatorView) -> String {
    locator.rtt_micros.map_or_else(|| "-".to_owned(), milliseconds)
}

fn remarks(locator: &LocatorView) -> String {
    let petr = locator.petr.then_some("PETR");
    petr.into_iter().chain(locator.unusable.as_deref()).collect::<Vec<_>>().join(", ")
}

fn locators(locators: &[LocatorView]) -> String {
    if locators.is_empty() {
        return "No locator: the map-cache is empty.\n".to_owned();
    }
    let header = [
        ("Locator", Left),
        ("State", Left),
        ("Since", Right),
        ("Pri/Wgt", Right),
        ("RTT", Right),
        ("Probes", Right),
        ("Answered", Right),
        ("Last", Right),
        ("Mappings", Right),
        ("Packets", Right),
        ("Octets", Right),
        ("MTU", Right),
        ("", Left),
    ];
    let row = |locator: &LocatorView| {
        let mut row = locator_of_entry(locator);
        row.splice(
            4..4,
            [
                locator.probes_sent.to_string(),
                locator.probes_answered.to_string(),
                clock_or(locator.last_probe_reply_seconds, "never"),
                locator.mappings.to_string(),
            ],
        );
        row.insert(2, clock(locator.since_seconds));
        row
    };
    table(0, &header, &locators.iter().map(row).collect::<Vec<_>>())
}

fn sites(sites: &[SiteView]) -> String {
    let mut text = format!("LISP sites, {}\n", counted(sites.len(), "site", "sites"));
    for site in sites {
        let _ = writeln!(
            text,
            "\n{}: {}, last Map-Register {}, {} accepted, {} refused",
            site.name,
            counted(site.registered, "EID-prefix registered", "EID-prefixes registered"),
            site.last_register_seconds.map_or("never".to_owned(), |s| format!("{} ago", clock(s))),
            site.accepted,
            site.refused,
        );
        if !site.eid_names.is_empty() {
            let _ = writeln!(text, "  names: {}", site.eid_names.join(", "));
        }
        for note in &site.notes {
            let _ = writeln!(text, "  note: {note}");
        }
        if !site.profile.is_empty() && site.profile != "rfc9301" {
            let _ = writeln!(text, "  profile: {}", site.profile);
        }
        if !site.refused_by.is_empty() {
            let rules: Vec<_> =
                site.refused_by.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
            let _ = writeln!(text, "  refused by: {}", rules.join(", "));
        }
        if let Some(refusal) = &site.last_refusal {
            let _ = writeln!(text, "  last refusal: {refusal}");
        }
        let header = [("EID-prefix", Left), ("More-specifics", Left), ("Registered", Right)];
        let rows: Vec<_> = site
            .eid_prefixes
            .iter()
            .map(|prefix| {
                let more = if prefix.accept_more_specifics { "accepted" } else { "refused" };
                vec![prefix.prefix.to_string(), more.to_owned(), prefix.registered.to_string()]
            })
            .collect();
        text += &table(2, &header, &rows);
    }
    text
}

fn registrations(registrations: &[RegistrationView]) -> String {
    let count = counted(registrations.len(), "registration", "registrations");
    let mut text = format!("LISP registrations, {count}\n");
    for registration in registrations {
        let mut flags = vec![format!("ttl {} min", registration.ttl_minutes)];
        flags.extend(registration.proxy_reply.then(|| "proxy-reply".to_owned()));
        if registration.locators.is_empty() && !registration.action.is_empty() {
            flags.push(format!("action {}", registration.action));
        }
        flags.extend(registration.merge.then(|| "merge".to_owned()));
        flags.extend(registration.xtr_id.as_ref().map(|id| format!("xTR-ID {id}")));
        if registration.map_version != 0 {
            flags.push(format!("map-version {}", registration.map_version));
        }
        let _ = writeln!(
            text,
            "\n{}, uptime: {}, expires: {}, site {}, from {}\n  {}",
            registration
                .prefix
                .map(|prefix| prefix.to_string())
                .or_else(|| registration.name.clone())
                .unwrap_or_default(),
            clock(registration.uptime_seconds),
            clock(registration.expires_seconds),
            registration.site,
            registration.source,
            flags.join(", "),
        );
        let rows: Vec<_> = registration
            .locators
            .iter()
            .map(|locator| {
                vec![
                    locator.rloc.to_string(),
                    if locator.reachable { "up" } else { "unreachable" }.to_owned(),
                    format!("{}/{}", locator.priority, locator.weight),
                    format!("{}/{}", locator.multicast_priority, locator.multicast_weight),
                ]
            })
            .collect();
        if !rows.is_empty() {
            let header =
                [("Locator", Left), ("State", Left), ("Pri/Wgt", Right), ("MPri/MWgt", Right)];
            text += &table(2, &header, &rows);
        }
    }
    text
}

fn refusals(refusals: &[RefusalView]) -> String {
    if refusals.is_empty() {
        return "No registration was refused.\n".to_owned();
    }
    let count = counted(refusals.len(), "kind", "kinds");
    let mut text = format!("LISP registrations refused, newest first, {count}\n");
    for refusal in refusals {
        let prefix = refusal.prefix.map_or("an EID".to_owned(), |prefix| prefix.to_string());
        let _ = writeln!(
            text,
            "\n{prefix} from {}, site {}, {}, last {} ago\n  {}{}: {}",
            refusal.source,
            refusal.site.as_deref().unwrap_or("unknown"),
            counted(refusal.count, "time", "times"),
            clock(refusal.age_seconds),
            refusal.reason,
            refusal.subject.as_ref().map(|subject| format!(", {subject}")).unwrap_or_default(),
            refusal.help,
        );
    }
    text
}

fn own_registrations(registrations: &[OwnRegistrationView]) -> String {
    let header = [
        ("EID-prefix", Left),
        ("Map-Server", Left),
        ("State", Left),
        ("Acknowledged", Right),
        ("Next", Right),
        ("Refusals", Right),
        ("Unanswered", Right),
    ];
    let rows: Vec<_> = registrations
        .iter()
        .map(|registration| {
            let server = match registration.address {
                Some(address) if address.to_string() != registration.map_server => {
                    format!("{} ({address})", registration.map_server)
                }
                _ => registration.map_server.clone(),
            };
            let server = match registration.profile.as_str() {
                "" | "rfc9301" => server,
                profile => format!("{server}, {profile}"),
            };
            vec![
                in_instance(registration.instance_id, registration.prefix),
                server,
                registration.state.name().to_owned(),
                clock_or(registration.last_acknowledged_seconds, "never"),
                clock(registration.next_seconds),
                registration.refusals.to_string(),
                registration.unanswered.to_string(),
            ]
        })
        .collect();
    table(0, &header, &rows)
}

fn counters(counters: &BTreeMap<String, u64>) -> String {
    let rows: Vec<_> =
        counters.iter().map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
    table(0, &[("Counter", Left), ("Value", Right)], &rows)
}

fn drops(drops: &[DropCount]) -> String {
    if drops.is_empty() {
        return "Nothing was dropped.\n".to_owned();
    }
    let rows: Vec<_> = drops
        .iter()
        .map(|drop| vec![drop.reason.clone(), drop.count.to_string(), drop.help.clone()])
        .collect();
    table(0, &[("Reason", Left), ("Count", Right), ("Meaning", Left)], &rows)
}

fn status(status: &StatusView) -> String {
    let health = if status.healthy { "healthy" } else { "not healthy" };
    let mut text = format!(
        "{} ({}), version {}, uptime {}, {health}\n",
        status.name,
        status.role,
        status.version,
        clock(status.uptime_seconds),
    );
    if let Some(intake) = &status.intake {
        let _ = writeln!(text, "  native packets come by {intake}");
    }
    for peer in &status.peers {
        let _ = writeln!(text, "  peer {peer}");
    }
    for note in &status.notes {
        let _ = writeln!(text, "  {note}");
    }
    if !status.workers.is_empty() {
        let row = |worker: &WorkerView| {
            let cpu = worker.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
            let state = worker.failure.as_ref().map_or("running", |_| "failed");
            vec![worker.number.to_string(), cpu, state.to_owned(), worker.packets.to_string()]
        };
        let columns = [("Worker", Right), ("CPU", Right), ("State", Left), ("Packets", Right)];
        let rows: Vec<_> = status.workers.iter().map(row).collect();
        text += &table(2, &columns, &rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(query: Query, value: Value) -> String {
        view(&query, value).expect("a view")
    }

    fn locator(address: &str, petr: bool, unusable: Option<&str>) -> Value {
        json!({
            "address": address, "state": if unusable.is_some() { "down" } else { "up" },
            "priority": 1, "weight": 100, "rtt_micros": unusable.is_none().then_some(1234),
            "since_seconds": 3600, "probes_sent": 61, "probes_answered": 60,
            "last_probe_reply_seconds": 62, "packets": 10, "octets": 1000, "mtu": 1500,
            "mappings": 1, "petr": petr, "unusable": unusable,
        })
    }

    #[test]
    fn op_01_map_cache_keeps_the_shape_operators_know() {
        let value = json!([
            {
                "prefix": "2001:db8:e002::/48", "instance_id": 0, "uptime_seconds": 62,
                "expires_seconds": 86338, "via": "map-reply", "state": "complete",
                "forwarding": "encapsulate", "packets": 10, "octets": 1000,
                "locators": [
                    locator("198.51.100.12", false, None),
                    locator("198.51.100.13", false, Some("probes go unanswered")),
                ],
            },
            {
                "prefix": "0.0.0.0/0", "instance_id": 7, "uptime_seconds": 0,
                "expires_seconds": null, "via": "negative", "state": "forward-native",
                "forwarding": "encapsulate-to-petr", "packets": 0, "octets": 0,
                "locators": [locator("198.51.100.1", true, None)],
            },
        ]);
        let expected = "\
LISP map-cache, 2 entries

2001:db8:e002::/48, uptime: 00:01:02, expires: 23:58:58, via map-reply, complete
  forwarding: encapsulate, 10 packets, 1000 octets
  Locator        State  Pri/Wgt       RTT  Packets  Octets   MTU
  198.51.100.12  up       1/100  1.234 ms       10    1000  1500
  198.51.100.13  down     1/100         -       10    1000  1500  probes go unanswered

[7]0.0.0.0/0, uptime: 00:00:00, expires: never, via negative, forward-native
  forwarding: encapsulate-to-petr, 0 packets, 0 octets
  Locator       State  Pri/Wgt       RTT  Packets  Octets   MTU
  198.51.100.1  up       1/100  1.234 ms       10    1000  1500  PETR
";
        assert_eq!(shown(Query::MapCache, value), expected);
        assert_eq!(shown(Query::MapCache, json!([])), "LISP map-cache, 0 entries\n");
    }

    #[test]
    fn op_01_locators_say_when_they_last_answered() {
        let value = json!([locator("198.51.100.12", false, None)]);
        let expected = "\
Locator        State     Since  Pri/Wgt       RTT  Probes  Answered      Last  Mappings  Packets  Octets   MTU
198.51.100.12  up     01:00:00    1/100  1.234 ms      61        60  00:01:02         1       10    1000  1500
";
        assert_eq!(shown(Query::Locators, value), expected);
    }

    #[test]
    fn op_01_own_registrations_name_their_map_server() {
        let value = json!([{
            "prefix": "203.0.113.0/26", "instance_id": 0, "map_server": "ms.example.net",
            "address": "198.51.100.2", "state": "registered", "last_acknowledged_seconds": 5,
            "next_seconds": 55, "refusals": 0, "unanswered": 0,
        }]);
        let expected = "\
EID-prefix      Map-Server                     State       Acknowledged      Next  Refusals  Unanswered
203.0.113.0/26  ms.example.net (198.51.100.2)  registered      00:00:05  00:00:55         0           0
";
        assert_eq!(shown(Query::Registrations, value), expected);
    }

    #[test]
    fn op_01_registrations_name_site_and_source() {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, "203.0.113.0/26".parse().unwrap());
        let value = json!([{
            "prefix": prefix, "site": "a", "source": "198.51.100.11", "xtr_id": null,
            "uptime_seconds": 60, "expires_seconds": 120, "ttl_minutes": 1440,
            "proxy_reply": true, "merge": false, "map_version": 0,
            "locators": [
                {"rloc": "198.51.100.11", "priority": 1, "weight": 50, "reachable": true},
            ],
        }]);
        let expected = "\
LISP registrations, 1 registration

203.0.113.0/26, uptime: 00:01:00, expires: 00:02:00, site a, from 198.51.100.11
  ttl 1440 min, proxy-reply
  Locator        State  Pri/Wgt  MPri/MWgt
  198.51.100.11  up        1/50      255/0
";
        assert_eq!(shown(Query::Registrations, value), expected);
    }

    #[test]
    fn op_01_sites_say_why_the_last_registration_was_refused() {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, "203.0.113.0/26".parse().unwrap());
        let value = json!([{
            "name": "a", "registered": 1, "accepted": 3, "refused": 1,
            "last_register_seconds": 9, "last_refusal": "wrong key from 198.51.100.66",
            "eid_prefixes": [{"prefix": prefix, "accept_more_specifics": true, "registered": 1}],
        }]);
        let expected = "\
LISP sites, 1 site

a: 1 EID-prefix registered, last Map-Register 00:00:09 ago, 3 accepted, 1 refused
  last refusal: wrong key from 198.51.100.66
  EID-prefix      More-specifics  Registered
  203.0.113.0/26  accepted                 1
";
        assert_eq!(shown(Query::Sites, value), expected);
    }

    #[test]
    fn op_01_refusals_say_site_source_prefix_and_rule() {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, "203.0.113.0/26".parse().unwrap());
        let value = json!([{
            "site": "a", "prefix": prefix, "source": "198.51.100.66", "reason": "key_unknown",
            "help": "Compare key-id at both ends.", "age_seconds": 5, "count": 2,
        }]);
        let expected = "\
LISP registrations refused, newest first, 1 kind

203.0.113.0/26 from 198.51.100.66, site a, 2 times, last 00:00:05 ago
  key_unknown: Compare key-id at both ends.
";
        assert_eq!(shown(Query::Refusals, value.clone()), expected);
        assert_eq!(shown(Query::Refusals, json!([])), "No registration was refused.\n");
        let mut named = value;
        named[0]["reason"] = "locator_refused".into();
        named[0]["subject"] = "locator 192.0.2.9".into();
        let text = shown(Query::Refusals, named);
        assert!(text.contains("locator_refused, locator 192.0.2.9: Compare"), "{text}");
    }

    #[test]
    fn op_01_drops_say_what_to_do() {
        let value = json!([{"reason": "source_not_eid", "count": 3, "help": "Check [[eid]]."}]);
        let expected = "Reason          Count  Meaning\nsource_not_eid      3  Check [[eid]].\n";
        assert_eq!(shown(Query::Drops, value), expected);
        assert_eq!(shown(Query::Drops, json!([])), "Nothing was dropped.\n");
    }

    #[test]
    fn op_01_status_and_counters() {
        let value = json!({
            "role": "gateway", "name": "pxtr1", "version": "0.1.0", "uptime_seconds": 93_600,
            "healthy": false, "notes": ["no map-resolver answers"],
        });
        let expected = "pxtr1 (gateway), version 0.1.0, uptime 1d02h, not healthy\n  no map-resolver answers\n";
        assert_eq!(shown(Query::Status, value), expected);
        let value = json!({"pitr_encap": 12, "petr_decap": 3});
        let expected = "Counter     Value\npetr_decap      3\npitr_encap     12\n";
        assert_eq!(shown(Query::Counters, value), expected);
    }
}
