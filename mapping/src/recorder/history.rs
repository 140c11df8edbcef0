//! Every counter over time, in rings of fixed length.
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::view::CountersView;

/// The rings: how often a sample is taken, and how many are kept. 10 minutes, 2 hours, 1 day.
pub const RINGS: [(Duration, usize); 3] = [
    (Duration::from_secs(2), 300),
    (Duration::from_secs(30), 240),
    (Duration::from_secs(300), 288),
];

/// Most counters kept; a daemon has some 200. Those that come later are not kept.
pub const MOST_COUNTERS: usize = 512;

/// What all rings take when full, octets, without the names of the counters.
pub(super) const MOST_OCTETS: usize =
    (RINGS[0].1 + RINGS[1].1 + RINGS[2].1) * MOST_COUNTERS * size_of::<u64>();

/// Counters over time.
#[derive(Debug)]
pub struct History {
    /// In the order in which they were seen first, which is their place in a sample.
    places: BTreeMap<String, usize>,
    rings: [Ring; RINGS.len()],
}

#[derive(Debug)]
struct Ring {
    interval: Duration,
    length: usize,
    due: Instant,
    samples: VecDeque<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    /// By place; a counter that was not there yet has none.
    values: Box<[u64]>,
}

impl History {
    /// Empty; the first sample is due at once.
    pub fn new(now: Instant) -> Self {
        let rings = RINGS.map(|(interval, length)| Ring {
            interval,
            length,
            due: now,
            samples: VecDeque::new(),
        });
        Self { places: BTreeMap::new(), rings }
    }

    /// When the next sample is due.
    pub fn poll_timeout(&self) -> Instant {
        self.rings.iter().map(|ring| ring.due).min().expect("there are rings")
    }

    /// Keeps the counters in the rings whose time it is.
    pub fn record(&mut self, now: Instant, counters: &CountersView) {
        for name in counters.keys() {
            let place = self.places.len();
            if place < MOST_COUNTERS && !self.places.contains_key(name) {
                self.places.insert(name.clone(), place);
            }
        }
        let mut values = vec![0; self.places.len()].into_boxed_slice();
        for (name, value) in counters {
            if let Some(&place) = self.places.get(name) {
                values[place] = *value;
            }
        }
        for ring in self.rings.iter_mut().filter(|ring| ring.due <= now) {
            ring.keep(now, values.clone());
        }
    }

    /// The samples of these counters, of all if none is named.
    ///
    /// # Errors
    /// A counter that there is not, by its name.
    pub fn view(&self, now: Instant, counters: &[String]) -> Result<HistoryView, String> {
        let chosen: Vec<(&String, usize)> = if counters.is_empty() {
            self.places.iter().map(|(name, place)| (name, *place)).collect()
        } else {
            let find = |name| match self.places.get_key_value(name) {
                Some((name, place)) => Ok((name, *place)),
                None => {
                    Err(format!("there is no counter {name:?}: `isthmus show counters` lists them"))
                }
            };
            counters.iter().map(find).collect::<Result<_, _>>()?
        };
        Ok(HistoryView { rings: self.rings.iter().map(|ring| ring.view(now, &chosen)).collect() })
    }
}

impl Ring {
    fn keep(&mut self, now: Instant, values: Box<[u64]>) {
        if self.samples.len() >= self.length {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: now, values });
        // After a pause the old beat would ask for many samples at once.
        self.due = (self.due + self.interval).max(now + self.interval / 2);
    }

    fn view(&self, now: Instant, chosen: &[(&String, usize)]) -> RingView {
        let ages = self.samples.iter().map(|sample| millis(now, sample.at)).collect();
        let of_counter = |(name, place): &(&String, usize)| {
            let values = self.samples.iter().map(|sample| sample.values.get(*place).copied());
            ((*name).clone(), values.collect())
        };
        RingView {
            interval_seconds: self.interval.as_secs(),
            length: self.length,
            age_milliseconds: ages,
            counters: chosen.iter().map(of_counter).collect(),
        }
    }
}

fn millis(now: Instant, at: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)
}

/// Counters over time, as `isthmus history` prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// From the finest to the coarsest.
    pub rings: Vec<RingView>,
}

/// One ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingView {
    /// Between two samples.
    pub interval_seconds: u64,
    /// Samples kept at most.
    pub length: usize,
    /// How old each sample is, the oldest first.
    pub age_milliseconds: Vec<u64>,
    /// By counter its value in each sample.
    pub counters: BTreeMap<String, CounterHistory>,
}

/// The value of a counter in each sample, the oldest first; `None` before it was seen first.
pub type CounterHistory = Vec<Option<u64>>;
