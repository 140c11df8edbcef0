//! Map-cache entries with locators of which none is of use. The mapping may be another by now, with nobody to say so: an SMR is lost, or is
//! never sent to one that sends nothing; and it would be believed until its TTL ends. So it is doubted: after a while, and again at
//! longer and longer intervals, the next packet for it has the mapping system asked. Without packets nobody is asked, however many
//! entries a dead locator takes with it.
//!
//! The data plane tells of no packet that it drops. When an entry is doubted, the forwarding table is told that nothing is known of it, so that the next packet is
//! a miss; with that miss the entry's verdict is back. What goes to a PETR instead shows its use by itself, and goes on.
use super::ControlPlane;
use super::itr::Purpose;
use super::map_cache::{Entry, Mapping};
use crate::fib::{FibUpdate, Verdict};
use mapping::eid::EidPrefix;
use mapping::timers;
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// For how long a mapping is believed once its locators are of no use.
const FIRST: Duration = timers::MAP_REQUEST_PAUSE;
/// The longest such time; it doubles each time the mapping system is asked.
const LONGEST: Duration = Duration::from_secs(300);
/// How much longer it may be, so that what was stranded together is not asked for together.
const JITTER_PERCENT: u32 = 50;

/// The entries whose locators are of no use.
#[derive(Debug, Default)]
pub(super) struct Stranded {
    entries: BTreeMap<EidPrefix, Belief>,
    timers: BTreeSet<(Instant, EidPrefix)>,
}

#[derive(Debug)]
struct Belief {
    /// `None`: the next packet asks.
    until: Option<Instant>,
    /// How long it lasts, but for the jitter.
    lasts: Duration,
}

impl Stranded {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    pub(super) fn remove(&mut self, prefix: &EidPrefix) {
        if let Some(Belief { until: Some(until), .. }) = self.entries.remove(prefix) {
            self.timers.remove(&(until, *prefix));
        }
    }

    fn is_doubted(&self, prefix: &EidPrefix) -> bool {
        self.entries.get(prefix).is_some_and(|belief| belief.until.is_none())
    }

    fn believe(&mut self, prefix: EidPrefix, until: Instant, lasts: Duration) {
        self.remove(&prefix);
        self.entries.insert(prefix, Belief { until: Some(until), lasts });
        self.timers.insert((until, prefix));
    }
}

/// Whether an entry has locators, but packets take none of them.
pub(super) fn is_stranded(entry: &Entry) -> bool {
    matches!(entry.mapping, Mapping::Locators(_))
        && (entry.to_petr || matches!(entry.verdict, Verdict::Drop(_)))
}

impl ControlPlane {
    /// The forwarding table is being told of the verdict of an entry.
    pub(super) fn verdict_told(&mut self, now: Instant, prefix: EidPrefix, is_stranded: bool) {
        match self.stranded.entries.get(&prefix) {
            _ if !is_stranded => self.stranded.remove(&prefix),
            None => self.believe(now, prefix, FIRST),
            Some(&Belief { until: None, lasts }) => self.believe(now, prefix, lasts),
            Some(_) => {}
        }
    }

    /// A packet missed, though there is a verdict for it: the verdict is told, and the mapping system asked if it was for that.
    pub(super) fn ask_if_doubted(&mut self, now: Instant, prefix: EidPrefix) {
        if !self.stranded.is_doubted(&prefix) {
            return; // Resolved since the packet was looked at.
        }
        if let Some(entry) = self.cache.get(&prefix) {
            self.fib_updates.push_back(FibUpdate::Insert(prefix, entry.verdict.clone()));
        }
        self.ask_about_stranded(now, prefix);
    }

    /// Doubts the entries that were believed for long enough.
    pub(super) fn run_stranded(&mut self, now: Instant) {
        while let Some(&(due, prefix)) = self.stranded.timers.first() {
            if due > now {
                return;
            }
            let Some(lasts) = self.stranded.entries.get(&prefix).map(|belief| belief.lasts) else {
                self.stranded.timers.pop_first();
                continue;
            };
            let Some(entry) = self.cache.get(&prefix) else {
                self.stranded.remove(&prefix);
                continue;
            };
            let was_used = |entry: &Entry| {
                let since = u64::from(self.clock_at(now).saturating_sub(entry.last_used()));
                entry.last_used() != 0 && since <= 2 * lasts.as_secs()
            };
            let can_ask = self.own.iter().any(|own| own.up);
            if !can_ask || self.is_registered_here(&prefix) {
                // Nobody would answer, or nobody knows better.
                self.believe(now, prefix, lasts);
            } else if !entry.to_petr {
                self.stranded.timers.pop_first();
                self.stranded.entries.insert(prefix, Belief { until: None, lasts });
                self.fib_updates.push_back(FibUpdate::Insert(prefix, Verdict::Miss));
            } else if was_used(entry) {
                self.ask_about_stranded(now, prefix);
            } else {
                self.believe(now, prefix, lasts);
            }
        }
    }

    fn ask_about_stranded(&mut self, now: Instant, prefix: EidPrefix) {
        let lasts = self.stranded.entries.get(&prefix).map_or(FIRST, |belief| belief.lasts);
        self.start_lookup(now, prefix, Purpose::Doubted);
        if self.lookups.is_known(&prefix) {
            self.count("mappings_doubted");
            self.believe(now, prefix, (lasts * 2).min(LONGEST));
        } else {
            // An outage has doubted too many at once: new destinations go first.
            self.believe(now, prefix, lasts);
        }
    }

    fn believe(&mut self, now: Instant, prefix: EidPrefix, lasts: Duration) {
        let range = 100..=100 + JITTER_PERCENT;
        let until = now + lasts * self.rng.random_range(range) / 100;
        self.stranded.believe(prefix, until, lasts);
    }
}
