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

/// What is kept of an event; of noise that anybody can make, nothing: it is counted.
pub(super) fn told(event: &Event) -> Option<Told> {
    Some(match event {
        Event::Registered { site, prefix, source } => {
            Told::info("registered", prefix, format!("site {site}, by {source}"))
        }
        Event::Changed { site, prefix, source } => {
            Told::info("registration-changed", prefix, format!("site {site}, by {source}"))
        }
        Event::Withdrawn { site, prefix, source } => {
            Told::info("registration-withdrawn", prefix, format!("site {site}, by {source}"))
        }
        Event::Expired { site, prefix, source } => Told::warning(
            "registration-expired",
            prefix,
            format!("site {site}, not refreshed by {source}"),
        ),
        Event::Refused(refusal) => told_of_refusal("registration-refused", refusal),
        Event::NotRestored(refusal) => told_of_refusal("registration-not-restored", refusal),
        Event::Name { site, name, source, change } => {
            let kind = match change {
                NameChange::Registered => "registered",
                NameChange::Changed => "registration-changed",
                NameChange::Withdrawn => "registration-withdrawn",
                NameChange::Expired => "registration-expired",
            };
            Told::info(kind, name, format!("site {site}, by {source}"))
        }
        Event::WeakAlgorithm { site } => {
            Told::warning("weak-algorithm", site, "may register with HMAC-SHA-1")
        }
        Event::LooseProfile { site, profile, loosened } => {
            Told::warning("loose-profile", site, format!("{profile}: {loosened}"))
        }
        Event::NotifyUnacknowledged { prefix, destination } => {
            Told::warning("map-notify-unacknowledged", prefix, format!("by {destination}"))
        }
        Event::LookupFailed { asked, node, reason } => {
            Told::warning("lookup-failed", asked, format!("last at {node}: {reason}"))
        }
        Event::Subscribed { prefix, xtr } => Told::info("subscribed", prefix, format!("by {xtr}")),
        Event::Unsubscribed { prefix, xtr, why } => {
            Told::info("unsubscribed", prefix, format!("{xtr}: {why}"))
        }
        Event::Discarded { .. } => return None,
    })
}

fn told_of_refusal(kind: &'static str, refusal: &Refusal) -> Told {
    let Refusal { site, prefix, source, reason, subject } = refusal;
    let prefix = prefix.map_or_else(|| source.to_string(), |prefix| prefix.to_string());
    let site = site.as_ref().map_or_else(String::new, |site| format!(" (site {site})"));
    let subject = subject.map_or_else(String::new, |subject| format!(", {subject}"));
    Told::warning(kind, prefix, format!("from {source}{site}: {reason}{subject}"))
}
