//! What monitoring and `isthmus top` want to know.
use super::ControlPlane;
use super::map_cache::Entry;
use crate::view::{LocatorState, MapCacheEntryView, RegistrationState};
use mapping::eid::EidPrefix;
use mapping::telemetry::{Histogram, HistogramView, MOST_SERIES, ROUND_TRIPS, SeriesView};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Most entries that [`ControlPlane::top_eids`] gives.
const MOST_TOP: usize = 1_000;

/// What the control plane measures.
#[derive(Debug)]
pub(super) struct Measured {
    resolution: Histogram,
}

impl Measured {
    pub(super) fn new() -> Self {
        Self { resolution: Histogram::new(ROUND_TRIPS) }
    }

    /// A lookup took so long, from its first Map-Request on.
    pub(super) fn resolved(&mut self, took: Duration) {
        self.resolution.observe(took);
    }
}

impl ControlPlane {
    /// From the first Map-Request of a lookup to the Map-Reply that answered it.
    pub fn resolution_view(&self) -> HistogramView {
        self.measured.resolution.view()
    }

    /// Why a remote RLOC carries nothing, in words.
    pub fn trouble_of(&self, rloc: IpAddr) -> Option<String> {
        let locator = self.locators.get(&rloc)?;
        self.unusable(locator.state(), 0, Some(locator))
    }

    /// The map-cache entries that carried most octets since they were learned, most first; of those with none, none.
    pub fn top_eids(&self, now: Instant, most: usize) -> Vec<MapCacheEntryView> {
        let most = most.min(MOST_TOP);
        let mut heap: BinaryHeap<Reverse<(u64, EidPrefix)>> = BinaryHeap::with_capacity(most + 1);
        for (prefix, entry) in self.cache.iter() {
            let octets = entry.traffic_total().1;
            if octets == 0 || heap.len() >= most && heap.peek().is_some_and(|l| octets <= l.0.0) {
                continue;
            }
            heap.push(Reverse((octets, prefix)));
            if heap.len() > most {
                heap.pop();
            }
        }
        let sorted = heap.into_sorted_vec();
        let entry = |prefix: &EidPrefix| -> Option<&Entry> { self.cache.get(prefix) };
        sorted
            .iter()
            .filter_map(|Reverse((_, prefix))| Some(self.entry_view(now, *prefix, entry(prefix)?)))
            .collect()
    }

    /// A value for each locator and each own registration, of at most [`MOST_SERIES`] each; and how many of them have none.
    pub fn series(&self, now: Instant) -> (Vec<SeriesView>, u64) {
        let mut series = Vec::new();
        for (rloc, locator) in self.locators.iter().take(MOST_SERIES) {
            let rloc = rloc.to_string();
            let labels = [("rloc", rloc.as_str())];
            let state = locator.state();
            let is_up = matches!(state, LocatorState::Up | LocatorState::Unprobed);
            let mut add = |metric, value| series.push(SeriesView::new(metric, &labels, value));
            add("locator_up", f64::from(u8::from(is_up)));
            add("locator_probes_sent_total", count(locator.probes.0));
            add("locator_probes_answered_total", count(locator.probes.1));
            add("locator_mappings", count(locator.users.len() as u64));
            add("locator_mtu_bytes", f64::from(locator.mtu()));
            if let Some(round_trip) = locator.round_trip {
                add("locator_rtt_seconds", round_trip.smoothed().as_secs_f64());
            }
        }
        let registrations = self.registrations_view(now);
        for view in registrations.iter().take(MOST_SERIES) {
            let (prefix, instance) = (view.prefix.to_string(), view.instance_id.to_string());
            let labels = [
                ("eid_prefix", prefix.as_str()),
                ("instance", instance.as_str()),
                ("map_server", view.map_server.as_str()),
            ];
            let is_registered = view.state == RegistrationState::Registered;
            let up = f64::from(u8::from(is_registered));
            series.push(SeriesView::new("registration_up", &labels, up));
        }
        let beyond = |all: usize| all.saturating_sub(MOST_SERIES) as u64;
        (series, beyond(self.locators.len()) + beyond(registrations.len()))
    }
}

/// Counters stay far below 2^53.
fn count(count: u64) -> f64 {
    count as f64
}
