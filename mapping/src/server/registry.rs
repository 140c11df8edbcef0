//! The registry: which xTR registered which EID-prefix with which locators, until when.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::discard::Discard;
use crate::eid::{EidPrefix, EidTable, Slot};
use crate::resolver::negative::Occupied;
use crate::timers::{
    CONTROL_PACKET_IPV6, MAX_REGISTERED_OCTETS, MAX_REGISTRANTS, MAX_REGISTRATIONS,
};

pub(super) use super::registration::{
    Entry, Locators, Registrant, Registration, Second, Timeline, kept_grace,
};
use super::site::SiteIndex;

/// What a registration changed.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing in the mapping: it lives longer now.
    Refreshed,
    /// The EID-prefix is registered for the first time.
    New,
    /// The mapping is another now; these are the registrations of other xTRs that it was before.
    Changed(Vec<Registration>),
}

/// What became of a registration.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) outcome: Outcome,
    /// The xTRs whose registrations it replaced.
    pub(super) replaced: Vec<Registrant>,
    /// Whether the durable state has to be told.
    pub(super) keep: bool,
}

/// Every registration, found by prefix and by expiry.
#[derive(Debug)]
pub(super) struct Registry {
    capacity: usize,
    /// Of all locators, and the bound on it.
    pub(super) octets: usize,
    max_octets: usize,
    len: usize,
    per_site: PerSite,
    table: EidTable<Entry>,
    agenda: Agenda,
    timeline: Option<Timeline>,
}

/// When to look at which entry.
///
/// Every entry is in here once: a refresh moves the expiry, not the entry. When its time comes it is found to live longer and gets
/// another time. What was removed meanwhile is found to be gone.
#[derive(Debug, Default)]
struct Agenda {
    seconds: BTreeMap<Second, Vec<Slot>>,
    len: usize,
}

/// Entries are looked at again after so many seconds at the latest, so that what was removed is not remembered for longer.
const HORIZON: u32 = 256;
/// Items of the agenda that may be out of date, before it is made anew.
const MAX_STALE: usize = 4_096;

impl Default for Registry {
    fn default() -> Self {
        Self::with_bounds(MAX_REGISTRATIONS, MAX_REGISTERED_OCTETS)
    }
}

impl Occupied for Registry {
    fn within(&self, prefix: &EidPrefix) -> bool {
        self.table.within(prefix)
    }
}

impl Registry {
    /// An empty registry of at most `capacity` registrations with at most `max_octets` of locators.
    pub(super) fn with_bounds(capacity: usize, max_octets: usize) -> Self {
        Self {
            capacity,
            octets: 0,
            max_octets,
            len: 0,
            per_site: PerSite::default(),
            table: EidTable::default(),
            agenda: Agenda::default(),
            timeline: None,
        }
    }

    pub(super) fn get(&self, prefix: &EidPrefix) -> Option<&Entry> {
        self.table.get(prefix)
    }

    pub(super) fn longest_match(&self, prefix: &EidPrefix) -> Option<(EidPrefix, &Entry)> {
        self.table.longest_match(prefix)
    }

    /// The longest registered prefix that covers `prefix` and is shorter.
    pub(super) fn parent(&self, prefix: &EidPrefix) -> Option<(EidPrefix, &Entry)> {
        self.table.covering(prefix).filter(|(found, _)| found != prefix).last()
    }

    /// The registered prefixes that are `prefix` or cover it, least specific first.
    pub(super) fn covering(&self, prefix: &EidPrefix) -> impl Iterator<Item = (EidPrefix, &Entry)> {
        self.table.covering(prefix)
    }

    /// The registered more-specifics of `prefix`.
    pub(super) fn more_specifics(
        &self,
        prefix: &EidPrefix,
    ) -> impl Iterator<Item = (EidPrefix, &Entry)> {
        let own = *prefix;
        self.table.covered_by(prefix).filter(move |(found, _)| *found != own)
    }

    pub(super) fn covered_by(
        &self,
        prefix: &EidPrefix,
    ) -> impl Iterator<Item = (EidPrefix, &Entry)> {
        self.table.covered_by(prefix)
    }

    /// In the order of the prefixes, those that come after `prefix`.
    pub(super) fn iter_after(
        &self,
        prefix: Option<EidPrefix>,
    ) -> impl Iterator<Item = (EidPrefix, &Entry)> {
        self.table.iter_after(prefix)
    }

    /// Registered EID-prefixes.
    pub(super) fn prefix_count(&self) -> usize {
        self.table.len()
    }

    /// Registrations: one per EID-prefix and xTR.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Registrations of one site.
    pub(super) fn len_of(&self, site: SiteIndex) -> usize {
        self.per_site.get(site)
    }

    /// Whether there is no room for another registration of any size that one control packet can carry.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.capacity || self.octets + CONTROL_PACKET_IPV6 > self.max_octets
    }

    /// The time that registrations count in; it starts with the first question.
    pub(super) fn timeline(&mut self, now: Instant) -> Timeline {
        *self.timeline.get_or_insert_with(|| Timeline::new(now))
    }

    /// The time that registrations count in, once there was one.
    pub(super) fn known_timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// The moment of a second that one of the registrations names.
    pub(super) fn instant(&self, second: Second) -> Option<Instant> {
        self.timeline.map(|timeline| timeline.instant(second))
    }

    /// Adds or refreshes a registration: beside those of other xTRs if all ask for merging (MS-17), else in their place (MS-18).
    ///
    /// `site_limit` is how many its site may have.
    pub(super) fn register(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        new: Registration,
        site_limit: usize,
    ) -> Result<Registered, Discard> {
        let now = self.timeline(now).floor(now);
        let slot = self.table.slot(&prefix);
        let entry = slot.and_then(|slot| self.table.at(slot)).map(|(_, entry)| entry);
        self.make_sure_of_room(entry, &new, site_limit)?;
        let expires = new.expires;
        let Some(slot) = slot else {
            let scheduled = expires.min(now.plus(HORIZON));
            self.add(&new);
            let slot = self.table.insert_new(prefix, Entry::new(new, scheduled));
            self.schedule(slot, scheduled);
            return Ok(Registered { outcome: Outcome::New, replaced: Vec::new(), keep: true });
        };
        let registered = self.replace(slot, new);
        if self.table.at(slot).is_some_and(|(_, entry)| expires < entry.scheduled) {
            self.schedule(slot, expires);
        }
        Ok(registered)
    }

    /// Puts `new` into the entry in `slot`.
    fn replace(&mut self, slot: Slot, mut new: Registration) -> Registered {
        let Some(entry) = self.table.at_mut(slot) else {
            return Registered { outcome: Outcome::Refreshed, replaced: Vec::new(), keep: false };
        };
        let registrations = entry.registrations();
        let own = registrations.iter().find(|r| r.registrant == new.registrant);
        let mut keep = true;
        if let Some(own) = own {
            keep = new.must_be_kept(own);
            new.since = own.since;
            if !keep {
                new.kept_until = own.kept_until;
            }
        }
        let same = own.is_some_and(|own| !new.differs(own));
        if same && let Some(only) = entry.only_mut() {
            let sites = (std::mem::replace(&mut only.site, new.site), new.site);
            *only = new;
            self.move_between(sites);
            return Registered { outcome: Outcome::Refreshed, replaced: Vec::new(), keep };
        }
        let added = new.clone();
        let put = entry.put(new);
        put.own.iter().chain(put.replaced()).for_each(|gone| self.subtract(gone));
        self.add(&added);
        let replaced = put.replaced().iter().map(|other| other.registrant).collect();
        let outcome = if put.changed { Outcome::Changed(put.others) } else { Outcome::Refreshed };
        Registered { outcome, replaced, keep }
    }

    /// Removes the registration of one xTR (MS-21); what is left of others is in the table still.
    pub(super) fn withdraw(
        &mut self,
        prefix: &EidPrefix,
        registrant: Registrant,
    ) -> Option<Registration> {
        let entry = self.table.get_mut(prefix)?;
        let at = entry.registrations().iter().position(|r| r.registrant == registrant)?;
        let removed = entry.edit(|list| list.remove(at));
        if entry.registrations().is_empty() {
            self.table.remove(prefix);
        }
        self.subtract(&removed);
        if self.len == 0 {
            self.agenda = Agenda::default();
        }
        Some(removed)
    }

    /// Shows an entry to `revise`, which may change what its registrations remember of their sites, and nothing else.
    pub(super) fn revise(&mut self, prefix: &EidPrefix, revise: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.table.get_mut(prefix) {
            revise(entry);
        }
    }

    /// When to call [`Self::expire`]: a registration expires then, or is found to live on.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let (second, _) = self.agenda.seconds.first_key_value()?;
        self.instant(*second)
    }

    /// Removes one registration that is due, if there is one among the next `looks` entries that are to be looked at.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        looks: &mut usize,
    ) -> Option<(EidPrefix, Registration)> {
        let now = self.timeline?.floor(now);
        loop {
            *looks = looks.checked_sub(1)?;
            let mut first =
                self.agenda.seconds.first_entry().filter(|first| *first.key() <= now)?;
            let second = *first.key();
            let Some(slot) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            self.agenda.len -= 1;
            let Some((prefix, entry)) = self.table.at(slot).filter(|(_, e)| e.scheduled == second)
            else {
                continue;
            };
            let due = entry.registrations().iter().find(|r| r.expires <= now);
            let removed = match due.map(|due| due.registrant) {
                Some(registrant) => self.withdraw(&prefix, registrant),
                None => None,
            };
            let next = self.table.at(slot).filter(|(found, _)| *found == prefix);
            if let Some(expiry) = next.and_then(|(_, entry)| entry.first_expiry()) {
                self.schedule(slot, expiry.min(now.plus(HORIZON)));
            }
            if let Some(removed) = removed {
                return Some((prefix, removed));
            }
        }
    }

    /// Whether the bounds allow `new` for a prefix that has `entry`.
    fn make_sure_of_room(
        &self,
        entry: Option<&Entry>,
        new: &Registration,
        site_limit: usize,
    ) -> Result<(), Discard> {
        let registrations = entry.map_or(&[][..], Entry::registrations);
        let own = registrations.iter().find(|r| r.registrant == new.registrant);
        let growth = new.octets().saturating_sub(own.map_or(0, Registration::octets));
        if growth > 0 && self.octets + growth > self.max_octets {
            return Err(Discard::RegistryFull);
        }
        let merged = new.merge && registrations.iter().all(|registration| registration.merge);
        let added = entry.is_none() || (merged && own.is_none());
        if added && (self.is_full() || registrations.len() >= MAX_REGISTRANTS) {
            return Err(Discard::RegistryFull);
        }
        let of_site = own.is_some_and(|own| own.site == new.site)
            || (!merged && registrations.iter().any(|r| r.site == new.site));
        if !of_site && self.len_of(new.site) >= site_limit {
            return Err(Discard::SiteFull);
        }
        Ok(())
    }

    fn add(&mut self, registration: &Registration) {
        self.len += 1;
        self.octets += registration.octets();
        self.per_site.add(registration.site);
    }

    /// One registration belongs to another site now.
    fn move_between(&mut self, (from, to): (SiteIndex, SiteIndex)) {
        if from != to {
            self.per_site.subtract(from);
            self.per_site.add(to);
        }
    }

    fn subtract(&mut self, registration: &Registration) {
        self.len -= 1;
        self.octets -= registration.octets();
        self.per_site.subtract(registration.site);
    }

    fn schedule(&mut self, slot: Slot, at: Second) {
        if let Some(entry) = self.table.at_mut(slot) {
            entry.scheduled = at;
        }
        self.agenda.add(slot, at);
        if self.agenda.len > 2 * self.table.len() + MAX_STALE {
            self.agenda = Agenda::default();
            for (slot, entry) in self.table.slots() {
                self.agenda.add(slot, entry.scheduled);
            }
        }
    }
}

/// How many registrations each site has.
#[derive(Debug, Default)]
pub(super) struct PerSite(Vec<u32>);

impl PerSite {
    pub(super) fn get(&self, site: SiteIndex) -> usize {
        self.0.get(site.place()).copied().unwrap_or(0) as usize
    }

    pub(super) fn add(&mut self, site: SiteIndex) {
        let at = site.place();
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += 1;
    }

    pub(super) fn subtract(&mut self, site: SiteIndex) {
        if let Some(count) = self.0.get_mut(site.place()) {
            *count -= 1;
        }
    }
}

impl Agenda {
    fn add(&mut self, slot: Slot, at: Second) {
        self.seconds.entry(at).or_default().push(slot);
        self.len += 1;
    }
}
