//! What is on a frame: tables made of two looks at a daemon.

use std::collections::BTreeMap;
use std::time::Instant;

use ::mapping::admin::DropCount;
use ::mapping::eid::{EidPrefix, InstanceId};
use ::mapping::recorder::{EventView, Severity};
use ::mapping::view::{CountersView, SiteView, StatusView};
use ::xtr::view::{LocatorState, LocatorView, MapCacheEntryView};

use super::super::columns::Align::{self, Left, Right};
use super::super::columns::{clock, clock_or, milliseconds};

/// What a daemon said at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) status: StatusView,
    pub(super) counters: CountersView,
    pub(super) drops: Vec<DropCount>,
    pub(super) locators: Vec<LocatorView>,
    pub(super) eids: Vec<MapCacheEntryView>,
    pub(super) sites: Vec<SiteView>,
    pub(super) events: Vec<EventView>,
    pub(super) last_event: Option<u64>,
}

/// One screen.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) notes: Vec<String>,
    /// Why it is not renewed.
    pub(super) trouble: Option<String>,
    pub(super) paused: bool,
    pub(super) traffic: Section,
    pub(super) churn: Section,
    /// Top EIDs of a tunnel router, sites of a Map-Server.
    pub(super) main: Section,
    /// None in a Map-Server.
    pub(super) locators: Option<Section>,
    pub(super) drops: Section,
    pub(super) events: Section,
}

/// One table.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) columns: &'static [(&'static str, Align)],
    pub(super) rows: Vec<(Mood, Vec<String>)>,
    /// What is said when there is no row.
    pub(super) empty: &'static str,
    /// Whether the last column may go on in further lines.
    pub(super) wraps: bool,
}

/// How a row is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Usual,
    /// Nothing goes on there.
    Quiet,
    /// Somebody should look at it.
    Bad,
}

impl Frame {
    /// What happened between two looks.
    pub(super) fn new(before: &Seen, now: &Seen) -> Self {
        let rates = Rates::new(before, now);
        let status = &now.status;
        let health = if status.healthy { "healthy" } else { "NOT healthy" };
        let is_router = status.role != "mapping";
        Self {
            title: format!(
                "{} ({}), version {}, uptime {}, {health}",
                status.name,
                status.role,
                status.version,
                clock(status.uptime_seconds)
            ),
            notes: status.notes.clone(),
            trouble: None,
            paused: false,
            traffic: if is_router { traffic(&rates) } else { messages(&rates) },
            churn: if is_router { churn(&rates) } else { registry(&rates) },
            main: if is_router { eids(before, now) } else { sites(&now.sites) },
            locators: is_router.then(|| locators(&now.locators)),
            drops: drops(before, now),
            events: events(&now.events),
        }
    }
}

/// Counters and how fast they grow.
struct Rates<'a> {
    seconds: f64,
    before: &'a CountersView,
    now: &'a CountersView,
}

impl<'a> Rates<'a> {
    fn new(before: &'a Seen, now: &'a Seen) -> Self {
        let seconds = seconds(before, now);
        Self { seconds, before: &before.counters, now: &now.counters }
    }

    fn level(&self, name: &str) -> u64 {
        self.now.get(name).copied().unwrap_or_default()
    }

    /// Per second.
    fn of(&self, name: &str) -> f64 {
        let before = self.before.get(name).copied().unwrap_or_default();
        per_second(self.level(name).saturating_sub(before), self.seconds)
    }
}

fn seconds(before: &Seen, now: &Seen) -> f64 {
    now.at.saturating_duration_since(before.at).as_secs_f64()
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn mood(is_moving: bool) -> Mood {
    if is_moving { Mood::Usual } else { Mood::Quiet }
}

fn traffic(rates: &Rates<'_>) -> Section {
    let sides = [
        ("from native side", "native_in"),
        ("to core", "core_out"),
        ("from core", "core_in"),
        ("to native side", "native_out"),
    ];
    let rows = sides.map(|(said, name)| {
        let packets = rates.of(&format!("{name}_packets"));
        let bits = rates.of(&format!("{name}_octets")) * 8.0;
        let total = rates.level(&format!("{name}_packets"));
        let cells = vec![said.to_owned(), short(packets), short(bits), total.to_string()];
        (mood(packets > 0.0), cells)
    });
    Section {
        title: "Traffic".to_owned(),
        columns: &[("", Left), ("packets/s", Right), ("bit/s", Right), ("packets", Right)],
        rows: rows.into(),
        empty: "",
        wraps: false,
    }
}

fn rate_rows(rates: &Rates<'_>, names: &[(&str, &str)]) -> Vec<(Mood, Vec<String>)> {
    let row = |(said, name): &(&str, &str)| {
        let rate = rates.of(name);
        let cells = vec![(*said).to_owned(), short(rate), rates.level(name).to_string()];
        (mood(rate > 0.0), cells)
    };
    names.iter().map(row).collect()
}

const RATE_COLUMNS: &[(&str, Align)] = &[("", Left), ("per s", Right), ("total", Right)];

fn churn(rates: &Rates<'_>) -> Section {
    let rows = rate_rows(
        rates,
        &[
            ("added", "map_cache_added"),
            ("confirmed", "map_cache_updated"),
            ("removed", "map_cache_removed"),
            ("lookups", "map_requests_sent"),
            ("SMRs", "smrs_received"),
        ],
    );
    let title = format!(
        "Map-cache: {} entries, {} lookups, {} packets held",
        rates.level("map_cache_entries"),
        rates.level("lookups_outstanding"),
        rates.level("held")
    );
    Section { title, columns: RATE_COLUMNS, rows, empty: "", wraps: false }
}

fn messages(rates: &Rates<'_>) -> Section {
    let rows = rate_rows(
        rates,
        &[
            ("received", "messages_received"),
            ("sent", "messages_sent"),
            ("Map-Registers", "map_registers_received"),
            ("lookups", "map_requests_received"),
            ("discarded", "messages_discarded"),
        ],
    );
    Section { title: "Messages".to_owned(), columns: RATE_COLUMNS, rows, empty: "", wraps: false }
}

fn registry(rates: &Rates<'_>) -> Section {
    let rows = rate_rows(
        rates,
        &[
            ("records accepted", "records_accepted"),
            ("withdrawn", "registrations_withdrawn"),
            ("expired", "registrations_expired"),
            ("Map-Replies", "map_replies_sent"),
            ("negative", "negative_map_replies_sent"),
        ],
    );
    let title = format!(
        "Registry: {} EID-prefixes, {} subscriptions",
        rates.level("eid_prefixes_registered"),
        rates.level("subscriptions")
    );
    Section { title, columns: RATE_COLUMNS, rows, empty: "", wraps: false }
}

fn eid(instance: u32, prefix: ipnet::IpNet) -> String {
    InstanceId::new(instance)
        .map_or_else(|| prefix.to_string(), |id| EidPrefix::new(id, prefix).to_string())
}

fn eids(before: &Seen, now: &Seen) -> Section {
    let seconds = seconds(before, now);
    let known: BTreeMap<_, _> =
        before.eids.iter().map(|e| ((e.instance_id, e.prefix), (e.packets, e.octets))).collect();
    let mut rated: Vec<_> = now
        .eids
        .iter()
        .map(|entry| {
            let place = (entry.instance_id, entry.prefix);
            // One that was not among the first may have carried all of it before.
            let was = known.get(&place).copied().unwrap_or((entry.packets, entry.octets));
            let packets = per_second(entry.packets.saturating_sub(was.0), seconds);
            let bits = per_second(entry.octets.saturating_sub(was.1), seconds) * 8.0;
            (bits, packets, entry)
        })
        .collect();
    // The order of equals is that of the daemon: by octets.
    rated.sort_by(|one, other| other.0.total_cmp(&one.0));
    let rows = rated.into_iter().map(|(bits, packets, entry)| {
        let cells = vec![
            eid(entry.instance_id, entry.prefix),
            short(packets),
            short(bits),
            short(entry.octets as f64),
            entry.forwarding.clone(),
        ];
        let is_dropped = entry.forwarding.starts_with("drop:");
        (if is_dropped { Mood::Bad } else { mood(packets > 0.0) }, cells)
    });
    Section {
        title: "Top EIDs".to_owned(),
        columns: &[
            ("EID-prefix", Left),
            ("packets/s", Right),
            ("bit/s", Right),
            ("octets", Right),
            ("forwarding", Left),
        ],
        rows: rows.collect(),
        empty: "Nothing was encapsulated yet.",
        wraps: false,
    }
}

fn sites(sites: &[SiteView]) -> Section {
    let row = |site: &SiteView| {
        let cells = vec![
            site.name.clone(),
            site.registered.to_string(),
            clock_or(site.last_register_seconds, "never"),
            site.accepted.to_string(),
            site.refused.to_string(),
            site.last_refusal.clone().unwrap_or_default(),
        ];
        (if site.registered == 0 { Mood::Bad } else { Mood::Usual }, cells)
    };
    Section {
        title: format!("Sites: {}", sites.len()),
        columns: &[
            ("Site", Left),
            ("Registered", Right),
            ("Last", Right),
            ("Accepted", Right),
            ("Refused", Right),
            ("Last refusal", Left),
        ],
        rows: sites.iter().map(row).collect(),
        empty: "No site is configured.",
        wraps: false,
    }
}

fn locators(locators: &[LocatorView]) -> Section {
    let is_up = |view: &LocatorView| {
        matches!(view.state, LocatorState::Up | LocatorState::Unprobed) && view.unusable.is_none()
    };
    let up = locators.iter().filter(|view| is_up(view)).count();
    let mut sorted: Vec<&LocatorView> = locators.iter().collect();
    sorted.sort_by_key(|view| is_up(view));
    let row = |view: &&LocatorView| {
        let cells = vec![
            view.address.to_string(),
            view.state.name().to_owned(),
            clock(view.since_seconds),
            view.rtt_micros.map_or_else(|| "-".to_owned(), milliseconds),
            format!("{}/{}", view.probes_answered, view.probes_sent),
            view.unusable.clone().unwrap_or_default(),
        ];
        (if is_up(view) { Mood::Usual } else { Mood::Bad }, cells)
    };
    Section {
        title: format!("Locators: {up} of {} up", locators.len()),
        columns: &[
            ("RLOC", Left),
            ("State", Left),
            ("Since", Right),
            ("RTT", Right),
            ("Answered", Right),
            ("Why", Left),
        ],
        rows: sorted.iter().map(row).collect(),
        empty: "No locator: the map-cache is empty.",
        wraps: false,
    }
}

fn drops(before: &Seen, now: &Seen) -> Section {
    let seconds = seconds(before, now);
    let was: BTreeMap<&str, u64> =
        before.drops.iter().map(|drop| (drop.reason.as_str(), drop.count)).collect();
    let mut rated: Vec<(f64, &DropCount)> = now
        .drops
        .iter()
        .map(|drop| {
            let before = was.get(drop.reason.as_str()).copied().unwrap_or_default();
            (per_second(drop.count.saturating_sub(before), seconds), drop)
        })
        .collect();
    rated.sort_by(|(one, a), (other, b)| {
        other.total_cmp(one).then(b.count.cmp(&a.count)).then(a.reason.cmp(&b.reason))
    });
    let rows = rated.into_iter().map(|(rate, drop)| {
        let cells =
            vec![drop.reason.clone(), short(rate), drop.count.to_string(), drop.help.clone()];
        (if rate > 0.0 { Mood::Bad } else { Mood::Quiet }, cells)
    });
    Section {
        title: "Drops".to_owned(),
        columns: &[("Reason", Left), ("per s", Right), ("total", Right), ("What it means", Left)],
        rows: rows.collect(),
        empty: "Nothing was dropped.",
        wraps: true,
    }
}

fn events(events: &[EventView]) -> Section {
    let row = |event: &EventView| {
        let seconds = event.unix_milliseconds / 1_000;
        let time =
            format!("{:02}:{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        let mood = if event.severity > Severity::Info { Mood::Bad } else { Mood::Usual };
        (mood, vec![time, event.kind.clone(), event.subject.clone(), event.cause.clone()])
    };
    Section {
        title: "Events, newest first (UTC)".to_owned(),
        columns: &[("Time", Left), ("Event", Left), ("Subject", Left), ("Cause", Left)],
        rows: events.iter().rev().map(row).collect(),
        empty: "Nothing happened yet.",
        wraps: false,
    }
}

/// Three digits and a letter for thousands.
pub(super) fn short(value: f64) -> String {
    const LETTERS: [&str; 5] = ["", " k", " M", " G", " T"];
    let (mut value, mut at) = (value, 0);
    while value >= 999.5 && at + 1 < LETTERS.len() {
        (value, at) = (value / 1_000.0, at + 1);
    }
    let digits = match value {
        _ if value == 0.0 || value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    let digits = if at == 0 && value.fract() == 0.0 { 0 } else { digits };
    format!("{value:.digits$}{}", LETTERS[at])
}
