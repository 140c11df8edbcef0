//! What a daemon tells those who watch it from outside: the answer to [`Query::Metrics`](crate::admin::Query::Metrics), and the
//! histograms in it.
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::admin::DropCount;
use crate::view::{CountersView, StatusView};

/// Most locators, registrations or sites that have series of their own; of more, the first in their order have.
pub const MOST_SERIES: usize = 256;

/// Upper bounds for what takes a round trip or several, microseconds: 500 µs to 30 s.
pub const ROUND_TRIPS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Upper bounds for what happens inside one process, microseconds: 10 µs to 1 s.
pub const INSIDE: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    1_000_000,
];

/// How often something took how long.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: Box<[u64]>,
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Empty; `bounds` are the upper ends of its buckets, microseconds, growing.
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = vec![0; bounds.len()].into_boxed_slice();
        Self { bounds, counts, count: 0, sum: Duration::ZERO }
    }

    /// It took so long once more.
    pub fn observe(&mut self, took: Duration) {
        let place = self.bounds.partition_point(|bound| Duration::from_micros(*bound) < took);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// As it is shown.
    pub fn view(&self) -> HistogramView {
        HistogramView {
            count: self.count,
            sum_micros: u64::try_from(self.sum.as_micros()).unwrap_or(u64::MAX),
            buckets: self.bounds.iter().copied().zip(self.counts.iter().copied()).collect(),
        }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramView {
    /// How often.
    pub count: u64,
    /// All of it together, microseconds.
    pub sum_micros: u64,
    /// Upper bound in microseconds, and how often it took longer than the bound before and not longer than this. What took longer than the
    /// last bound is in `count` only.
    pub buckets: Vec<(u64, u64)>,
}

/// One value with its labels: of a locator, a registration, a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesView {
    /// The metric, without `isthmus_` before it.
    pub metric: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// The value in the unit that the metric's name says.
    pub value: f64,
}

impl SeriesView {
    /// A value of `metric` with these labels.
    pub fn new(metric: &str, labels: &[(&str, &str)], value: f64) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { metric: metric.to_owned(), labels: labels.iter().map(owned).collect(), value }
    }
}

/// Everything that a daemon has counted and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsView {
    /// Who says so.
    pub status: StatusView,
    /// As `show counters` has them.
    pub counters: CountersView,
    /// Packets dropped by the data plane, and by the kernel before it, by reason: those that never happened too. Empty in a daemon
    /// without a data plane.
    pub drops: Vec<DropCount>,
    /// Control messages discarded, by reason: those that never happened too.
    pub discards: Vec<DropCount>,
    /// By the name of their metric, without `isthmus_` before it and `_seconds` after it.
    pub histograms: BTreeMap<String, HistogramView>,
    /// Of locators, registrations and sites, at most [`MOST_SERIES`] of each.
    pub series: Vec<SeriesView>,
    /// How many of them have no series.
    pub left_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_into_the_first_bucket_that_is_large_enough() {
        let mut histogram = Histogram::new(&[10, 100]);
        for micros in [1, 10, 11, 100, 101] {
            histogram.observe(Duration::from_micros(micros));
        }
        let view = histogram.view();
        assert_eq!(view.buckets, [(10, 2), (100, 2)]);
        assert_eq!((view.count, view.sum_micros), (5, 223));
    }

    #[test]
    fn bounds_grow() {
        for bounds in [ROUND_TRIPS, INSIDE] {
            assert!(bounds.is_sorted());
        }
    }
}
