//! The flight recorder of a Map-Server: what of its life is kept for `isthmus events`, and what monitoring asks for.
use std::collections::BTreeMap;
use std::time::Instant;

use super::Daemon;
use crate::recorder::Told;
use crate::server::{Event, NameChange, Refusal};
use crate::telemetry::MetricsView;

impl Daemon {
    /// Takes a sample of every counter when it is time.
    pub(super) fn keep_record(&mut self, now: Instant) {
        if self.recorder.poll_timeout() <= now {
            let mut counters = self.counters();
            counters.extend(self.server.discards().as_counters());
            self.recorder.handle_timeout(now, || counters);
        }
    }

    /// The answer to [`Query::Metrics`](crate::admin::Query::Metrics).
    pub(super) fn metrics(&self, now: Instant) -> MetricsView {
        let (series, left_out) = self.server.series(now);
        MetricsView {
            status: self.status(now),
            counters: self.counters(),
            drops: Vec::new(),
            discards: self.server.discards().all(),
            histograms: BTreeMap::new(),
            series,
            left_out,
        }
    }
}

/// What kind of event it is; of noise that anybody can make, none: it is counted.
pub(super) const fn kind(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Registered { .. } => "registered",
        Event::Changed { .. } => "registration-changed",
        Event::Withdrawn { .. } => "registration-withdrawn",
        Event::Expired { .. } => "registration-expired",
        Event::Refused(_) => "registration-refused",
        Event::NotRestored(_) => "registration-not-restored",
        Event::Name { change, .. } => match change {
            NameChange::Registered => "registered",
            NameChange::Changed => "registration-changed",
            NameChange::Withdrawn => "registration-withdrawn",
            NameChange::Expired => "registration-expired",
        },
        Event::WeakAlgorithm { .. } => "weak-algorithm",
        Event::LooseProfile { .. } | Event::LooseClient(_) => "loose-profile",
        Event::NotifyUnacknowledged { .. } => "map-notify-unacknowledged",
        Event::LookupFailed { .. } => "lookup-failed",
        Event::Subscribed { .. } => "subscribed",
        Event::Unsubscribed { .. } => "unsubscribed",
        Event::Discarded { .. } => return None,
    })
}

/// What is kept of an event of this kind.
pub(super) fn told(kind: &'static str, event: &Event) -> Told {
    match event {
        Event::Registered { site, prefix, source }
        | Event::Changed { site, prefix, source }
        | Event::Withdrawn { site, prefix, source } => {
            Told::info(kind, prefix, format!("site {site}, by {source}"))
        }
        Event::Expired { site, prefix, source } => {
            Told::warning(kind, prefix, format!("site {site}, not refreshed by {source}"))
        }
        Event::Refused(refusal) | Event::NotRestored(refusal) => told_of_refusal(kind, refusal),
        Event::Name { site, name, source, .. } => {
            Told::info(kind, name, format!("site {site}, by {source}"))
        }
        Event::WeakAlgorithm { site } => Told::warning(kind, site, "may register with HMAC-SHA-1"),
        Event::LooseProfile { site, profile, loosened } => {
            Told::warning(kind, site, format!("{profile}: {loosened}"))
        }
        Event::LooseClient(told) => Told::warning(kind, "clients", told),
        Event::NotifyUnacknowledged { prefix, destination } => {
            Told::warning(kind, prefix, format!("by {destination}"))
        }
        Event::LookupFailed { asked, node, reason } => {
            Told::warning(kind, asked, format!("last at {node}: {reason}"))
        }
        Event::Subscribed { prefix, xtr } => Told::info(kind, prefix, format!("by {xtr}")),
        Event::Unsubscribed { prefix, xtr, why } => {
            Told::info(kind, prefix, format!("{xtr}: {why}"))
        }
        Event::Discarded { source, reason } => Told::info(kind, source, reason),
    }
}

fn told_of_refusal(kind: &'static str, refusal: &Refusal) -> Told {
    let Refusal { site, prefix, source, reason, subject } = refusal;
    let prefix = prefix.map_or_else(|| source.to_string(), |prefix| prefix.to_string());
    let site = site.as_ref().map_or_else(String::new, |site| format!(" (site {site})"));
    let subject = subject.map_or_else(String::new, |subject| format!(", {subject}"));
    Told::warning(kind, prefix, format!("from {source}{site}: {reason}{subject}"))
}
