//! The map-cache: EID-prefix to mapping, bounded, with expiry (RFC 9301 §5.4, §5.5; RFC 9300 §6).
use super::locator::{Candidate, Via};
use super::migration::Gone;
use super::own::OwnRlocs;
use super::status_bits;
use crate::counters::TrafficCounters;
use crate::drops::DropReason;
use crate::fib::{LocatorSet, Verdict};
use crate::marks::StatusBits;
use mapping::eid::{Eid, EidPrefix, EidTable, MapVersion};
use mapping::timers;
use mapping::wire::{Action, EidRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a mapping says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// Its locators with an address, sorted; at least one.
    Locators(Vec<Candidate>),
    /// No locators: a negative mapping.
    Negative(Action),
}

impl Mapping {
    /// Reads a record: locators without an address or with a martian one are ignored (CW-08, CW-33);
    /// with none left the record counts as one without locators (CW-09, MC-16).
    pub(super) fn from_record(record: &EidRecord, own: &OwnRlocs) -> Self {
        let mut locators: Vec<Candidate> = record
            .locators
            .iter()
            .zip(0..=u8::MAX)
            .filter_map(|(locator, ordinal)| {
                Some(Candidate {
                    address: locator.address.rloc()?,
                    priority: locator.priority,
                    weight: locator.weight,
                    reachable: locator.reachable,
                    ordinal,
                    via: Via::Usual,
                })
            })
            .filter(|locator| !own.is_martian(locator.address))
            .collect();
        locators.sort_by_key(|locator| locator.address);
        locators.dedup_by_key(|locator| locator.address);
        if !locators.is_empty() {
            Self::Locators(locators)
        } else if record.locators.is_empty() {
            Self::Negative(record.action)
        } else {
            Self::Negative(Action::NoAction)
        }
    }

    pub(super) fn locators(&self) -> &[Candidate] {
        match self {
            Self::Locators(locators) => locators,
            Self::Negative(_) => &[],
        }
    }
}

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) mapping: Mapping,
    /// First learned.
    pub(super) learned: Instant,
    pub(super) expires: Instant,
    /// What the forwarding table was told.
    pub(super) verdict: Verdict,
    /// What the table of sources was told, if there is one.
    pub(super) senders: Option<Arc<LocatorSet>>,
    /// Whether the mapping came protected by LISP-SEC.
    pub(super) secured: bool,
    /// The coarse clock at the last packet sent before `verdict` became one that sends none.
    pub(super) used_before: u32,
    /// Whether `verdict` leads to the use-petr set.
    pub(super) to_petr: bool,
    /// The version of the mapping; Null without Map-Versioning.
    pub(super) version: MapVersion,
    /// Which of its locators its site says are up.
    pub(super) status_bits: StatusBits,
    /// When that changed.
    pub(super) status_changed: Option<Instant>,
    /// Counters per locator, kept across updates of the entry.
    pub(super) traffic: BTreeMap<IpAddr, Arc<TrafficCounters>>,
    /// Packets and octets of locators the mapping no longer has.
    pub(super) retired: (u64, u64),
    /// `last_used` when the mapping was last confirmed: a larger value now means it is in use (MC-25).
    used_mark: u32,
    timer: Instant,
}

impl Entry {
    /// The engine's coarse clock at the last packet sent by it, or verified with it; 0 = none.
    pub(super) fn last_used(&self) -> u32 {
        let sent = match &self.verdict {
            Verdict::Encapsulate(set) => set.last_used.load(Ordering::Relaxed),
            _ => self.used_before,
        };
        let verified = self.senders.as_ref().map_or(0, |set| set.last_used.load(Ordering::Relaxed));
        sent.max(verified)
    }

    /// Whether a packet used the entry since the mapping was last confirmed.
    pub(super) fn is_in_use(&self) -> bool {
        self.last_used() > self.used_mark
    }

    /// Whether its site says that this locator is down.
    pub(super) fn is_said_down(&self, rloc: IpAddr) -> bool {
        let is_down = |locator: &Candidate| !self.status_bits.is_up(locator.ordinal);
        self.mapping.locators().iter().any(|l| l.address == rloc && is_down(l))
    }

    /// Takes all locators as up, until their site says otherwise.
    pub(super) fn forget_status_bits(&mut self) {
        self.status_bits = status_bits::all_up(self.mapping.locators());
        self.status_changed = None;
    }

    /// Packets and inner octets in total.
    pub(super) fn traffic_total(&self) -> (u64, u64) {
        self.traffic.values().fold(self.retired, |(packets, octets), counters| {
            let (p, o) = load(counters);
            (packets + p, octets + o)
        })
    }

    /// Forgets the counters of locators that are gone, but not what they counted.
    fn retire(&mut self, prefix: &EidPrefix, gone: &mut Gone, keep: impl Fn(IpAddr) -> bool) {
        let retired = &mut self.retired;
        let locators = self.mapping.locators();
        self.traffic.retain(|&address, counters| {
            let kept = keep(address);
            if !kept {
                let (packets, octets) = load(counters);
                gone.count(prefix, locators, address, (packets, octets));
                *retired = (retired.0 + packets, retired.1 + octets);
            }
            kept
        });
    }
}

/// Packets and octets of a counter.
pub(super) fn load(counters: &TrafficCounters) -> (u64, u64) {
    (counters.packets.load(Ordering::Relaxed), counters.octets.load(Ordering::Relaxed))
}

/// What a due timer of an entry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The entry is over.
    Expired(EidPrefix),
    /// The entry is about to expire: refresh it if it is in use.
    Refresh(EidPrefix),
}

/// All entries.
#[derive(Debug)]
pub(super) struct MapCache {
    entries: EidTable<Entry>,
    timers: BTreeSet<(Instant, EidPrefix)>,
    len: usize,
    limit: usize,
    gone: Gone,
}

impl MapCache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: EidTable::default(),
            timers: BTreeSet::new(),
            len: 0,
            limit: limit.max(1),
            gone: Gone::default(),
        }
    }

    /// What entries had sent that are no more.
    pub(super) const fn gone(&self) -> &Gone {
        &self.gone
    }

    /// From now on this is an RLOC of a PETR.
    pub(super) fn note_petr(&mut self, rloc: IpAddr) {
        self.gone.note_petr(rloc);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Another bound; [`Self::least_recently_used`] are then those beyond it.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    /// Whether there are more entries than the bound allows.
    pub(super) fn is_beyond_limit(&self) -> bool {
        self.len > self.limit
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    pub(super) fn get(&self, prefix: &EidPrefix) -> Option<&Entry> {
        self.entries.get(prefix)
    }

    pub(super) fn get_mut(&mut self, prefix: &EidPrefix) -> Option<&mut Entry> {
        self.entries.get_mut(prefix)
    }

    pub(super) fn lookup(&self, eid: Eid) -> Option<(EidPrefix, &Entry)> {
        self.entries.lookup(eid)
    }

    /// The longest entry that is `prefix` or covers it.
    pub(super) fn longest_match(&self, prefix: &EidPrefix) -> Option<(EidPrefix, &Entry)> {
        self.entries.longest_match(prefix)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EidPrefix, &Entry)> {
        self.entries.iter()
    }

    /// Those that come after `prefix`.
    pub(super) fn iter_after(
        &self,
        prefix: Option<EidPrefix>,
    ) -> impl Iterator<Item = (EidPrefix, &Entry)> {
        self.entries.iter_after(prefix)
    }

    /// The entries strictly inside `prefix`.
    pub(super) fn more_specifics<'a>(
        &'a self,
        prefix: &'a EidPrefix,
    ) -> impl Iterator<Item = (EidPrefix, &'a Entry)> {
        self.entries.covered_by(prefix).filter(move |(found, _)| found != prefix)
    }

    /// Inserts or confirms an entry; its verdict is left for the caller to compute. `still_known` tells which locators
    /// outside the mapping keep their counters (the use-petr set).
    pub(super) fn insert(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        mapping: Mapping,
        expires: Instant,
        still_known: impl Fn(IpAddr) -> bool,
    ) {
        let timer = refresh_time(now, expires);
        if let Some(entry) = self.entries.get_mut(&prefix) {
            self.timers.remove(&(entry.timer, prefix));
            entry.used_mark = entry.last_used();
            entry.retire(&prefix, &mut self.gone, |address| {
                still_known(address) || mapping.locators().iter().any(|l| l.address == address)
            });
            let ordinals = |mapping: &Mapping| -> Vec<_> {
                mapping.locators().iter().map(|l| (l.address, l.ordinal)).collect()
            };
            let is_same_list = ordinals(&entry.mapping) == ordinals(&mapping);
            (entry.mapping, entry.expires, entry.timer) = (mapping, expires, timer);
            if !is_same_list {
                entry.forget_status_bits();
            }
        } else {
            let entry = Entry {
                status_bits: status_bits::all_up(mapping.locators()),
                mapping,
                learned: now,
                expires,
                verdict: Verdict::Drop(DropReason::NoUsableLocator),
                senders: None,
                secured: false,
                used_before: 0,
                to_petr: false,
                version: MapVersion::NULL,
                status_changed: None,
                traffic: BTreeMap::new(),
                retired: (0, 0),
                used_mark: 0,
                timer,
            };
            self.entries.insert(prefix, entry);
            self.len += 1;
        }
        self.timers.insert((timer, prefix));
    }

    /// The entries that cover `prefix` and are less specific.
    pub(super) fn covering<'a>(
        &'a self,
        prefix: &'a EidPrefix,
    ) -> impl Iterator<Item = (EidPrefix, &'a Entry)> {
        self.entries.covering(prefix).filter(move |(found, _)| found != prefix)
    }

    /// Lets an entry live until then; what was confirmed stays as it is.
    pub(super) fn set_expiry(&mut self, now: Instant, prefix: &EidPrefix, expires: Instant) {
        let Some(entry) = self.entries.get_mut(prefix) else { return };
        self.timers.remove(&(entry.timer, *prefix));
        (entry.expires, entry.timer) = (expires, refresh_time(now, expires));
        self.timers.insert((entry.timer, *prefix));
    }

    pub(super) fn remove(&mut self, prefix: &EidPrefix) -> Option<Entry> {
        let mut entry = self.entries.remove(prefix)?;
        entry.retire(prefix, &mut self.gone, |_| false);
        self.timers.remove(&(entry.timer, *prefix));
        self.len -= 1;
        Some(entry)
    }

    /// The next entry whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        let &(timer, prefix) = self.timers.first()?;
        if timer > now {
            return None;
        }
        self.timers.pop_first();
        let entry = self.entries.get_mut(&prefix)?;
        let due = if entry.expires <= now {
            Due::Expired(prefix)
        } else {
            entry.timer = entry.expires;
            Due::Refresh(prefix)
        };
        self.timers.insert((entry.timer, prefix));
        Some(due)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(timer, _)| timer)
    }

    /// The least recently used entries to make room for one more (MC-27): a 64th of the table at once, so that the scan is paid once
    /// for many. Entries that were never encapsulated have no time of last use and count as unused, the oldest first.
    pub(super) fn least_recently_used(&self) -> Vec<EidPrefix> {
        let mut candidates: Vec<(u32, Instant, EidPrefix)> = self
            .entries
            .iter()
            .map(|(prefix, entry)| (entry.last_used(), entry.learned, prefix))
            .collect();
        let excess = self.len.saturating_sub(self.limit);
        let count = (self.limit / 64).max(1).max(excess).min(candidates.len());
        if count < candidates.len() {
            candidates.select_nth_unstable(count);
            candidates.truncate(count);
        }
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, _, prefix)| prefix).collect()
    }
}

/// How long a Record TTL lasts (MC-03, MC-05).
pub(super) fn lifetime(ttl_minutes: u32) -> Duration {
    if ttl_minutes == timers::TTL_RECEIVER_CHOOSES {
        timers::RECEIVER_CHOSEN_TTL
    } else {
        Duration::from_secs(u64::from(ttl_minutes) * 60)
    }
}

/// When to refresh an entry in use: a tenth of its life before it expires, within 15 s and 2 min.
fn refresh_time(now: Instant, expires: Instant) -> Instant {
    let life = expires.saturating_duration_since(now);
    let margin = (life / 10).clamp(Duration::from_secs(15), Duration::from_secs(120));
    now + life.saturating_sub(margin)
}
