//! What monitoring wants to know of the sites.
use std::time::Instant;

use super::MapServer;
use super::views::seconds;
use crate::discard::DiscardCounters;
use crate::telemetry::{MOST_SERIES, SeriesView};

impl MapServer {
    /// Values for each of the first [`MOST_SERIES`] sites, and how many sites have none.
    pub fn series(&self, now: Instant) -> (Vec<SeriesView>, u64) {
        let mut series = Vec::new();
        for (index, site) in self.sites.iter().take(MOST_SERIES) {
            let labels = [("site", &*site.name)];
            let mut add = |metric, value| series.push(SeriesView::new(metric, &labels, value));
            add("site_registrations", self.registrations_of(index) as f64);
            // Counters stay far below 2^53.
            add("site_records_accepted_total", site.accepted as f64);
            add("site_records_refused_total", site.refused as f64);
            if let Some(last) = site.last_register {
                add("site_last_register_age_seconds", seconds(now, last) as f64);
            }
        }
        let sites = self.sites.iter().count();
        (series, sites.saturating_sub(MOST_SERIES) as u64)
    }

    /// Why messages and records were discarded.
    pub const fn discards(&self) -> &DiscardCounters {
        &self.discards
    }
}
