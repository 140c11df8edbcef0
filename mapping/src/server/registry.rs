//! The registry: which xTR registered which EID-prefix with which locators, until when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::eid::{EidPrefix, EidTable};
use crate::resolver::negative::Occupied;
use crate::timers::{
    CONTROL_PACKET_IPV6, MAX_LOCATORS, MAX_REGISTERED_OCTETS, MAX_REGISTRANTS, MAX_REGISTRATIONS,
};
use crate::wire::{EidRecord, LocatorRecord, XtrIdentity};

use super::site::{Signing, SiteIndex};

/// Who registers: the xTR-ID and Site-ID when the MAC covers them, else the source RLOC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Registrant {
    /// xTR-ID and Site-ID.
    Xtr(u128, u64),
    /// Source address of the Map-Register.
    Source(IpAddr),
}

/// What one xTR registered for one EID-prefix.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) registrant: Registrant,
    pub(super) site: SiteIndex,
    /// `None` when the key is no longer configured.
    pub(super) signing: Option<Signing>,
    pub(super) identity: Option<XtrIdentity>,
    pub(super) source: IpAddr,
    /// The own address that the Map-Register came to.
    pub(super) local: IpAddr,
    pub(super) since: Instant,
    pub(super) expires: Instant,
    /// How long it lives without refresh.
    pub(super) lifetime: Duration,
    /// When it expires by the durable state; `None` of a new one, for the registry to fill.
    pub(super) kept_until: Option<Instant>,
    pub(super) ttl_minutes: u32,
    pub(super) proxy_reply: bool,
    pub(super) merge: bool,
    /// S-bit: the xTR speaks LISP-SEC (RFC 9303 §6.3).
    pub(super) security_capable: bool,
    pub(super) map_version: u16,
    pub(super) locators: Vec<LocatorRecord>,
}

impl Registration {
    /// What its locators take of the bound on octets.
    fn octets(&self) -> usize {
        self.locators.iter().map(LocatorRecord::encoded_len).sum()
    }

    /// Whether the durable state has to tell `self` in place of `older`: anything else than the expiry is different, or the expiry
    /// is so much later that a restart would end the registration too early, the grace of [`kept_grace`] included.
    fn must_be_kept(&self, older: &Self) -> bool {
        let grace = kept_grace(self.lifetime);
        older.kept_until.is_none_or(|kept_until| self.expires >= kept_until + grace)
            || self.differs(older)
            || self.locators != older.locators
            || (self.site, self.signing, self.identity, self.source, self.local)
                != (older.site, older.signing, older.identity, older.source, older.local)
            || (self.proxy_reply, self.merge, self.security_capable, self.lifetime)
                != (older.proxy_reply, older.merge, older.security_capable, older.lifetime)
    }

    /// Whether a Map-Reply made of `other` may read differently.
    fn differs(&self, other: &Self) -> bool {
        self.locators != other.locators
            || self.ttl_minutes != other.ttl_minutes
            || self.map_version != other.map_version
    }
}

/// How much later than kept a registration may expire: a refresh that changes nothing need not be written each time.
pub(super) fn kept_grace(lifetime: Duration) -> Duration {
    lifetime / 2
}

/// The registrations of one EID-prefix, oldest first: one, or several that are merged (MS-17).
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    registrations: Vec<Registration>,
}

impl Entry {
    pub(super) fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// Whether any ETR asked the Map-Server to answer for it (MS-14).
    pub(super) fn proxy_reply(&self) -> bool {
        self.registrations.iter().any(|registration| registration.proxy_reply)
    }

    /// The mapping as a non-authoritative record (RP-10, RP-11): of a locator that two xTRs registered, the newest.
    pub(super) fn record(&self, prefix: EidPrefix) -> EidRecord {
        let mut locators: Vec<LocatorRecord> = Vec::new();
        for locator in self.registrations.iter().rev().flat_map(|r| &r.locators) {
            if !locators.iter().any(|other| other.address == locator.address) {
                locators.push(LocatorRecord { local: false, probed: false, ..locator.clone() });
            }
        }
        locators.truncate(MAX_LOCATORS);
        let ttl_minutes = self.registrations.iter().map(|r| r.ttl_minutes).min().unwrap_or(0);
        let map_version = self.registrations.last().map_or(0, |r| r.map_version);
        let mut record = EidRecord::new(prefix, ttl_minutes, locators);
        record.map_version = map_version;
        record
    }

    /// [`Self::record`] with its locators in the order of the wire, to compare.
    fn mapping(&self, prefix: EidPrefix) -> EidRecord {
        let mut record = self.record(prefix);
        record.locators.sort_by(|a, b| a.address.cmp(&b.address));
        record
    }
}

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

/// The bound on registrations is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Every registration, found by prefix and by expiry.
#[derive(Debug)]
pub(super) struct Registry {
    capacity: usize,
    /// Of all locators, and the bound on it.
    pub(super) octets: usize,
    max_octets: usize,
    table: EidTable<Entry>,
    expiries: BTreeSet<(Instant, EidPrefix, Registrant)>,
}

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
        let (table, expiries) = (EidTable::default(), BTreeSet::new());
        Self { capacity, octets: 0, max_octets, table, expiries }
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

    pub(super) fn iter(&self) -> impl Iterator<Item = (EidPrefix, &Entry)> {
        self.table.iter()
    }

    /// Registered EID-prefixes.
    pub(super) fn prefix_count(&self) -> usize {
        self.table.len()
    }

    /// Registrations: one per EID-prefix and xTR.
    pub(super) fn len(&self) -> usize {
        self.expiries.len()
    }

    /// Whether there is no room for another registration of any size that one control packet can carry.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.capacity || self.octets + CONTROL_PACKET_IPV6 > self.max_octets
    }

    /// What `new` takes beyond what its xTR has for `prefix` already.
    fn growth(&self, prefix: &EidPrefix, new: &Registration) -> usize {
        let registrations = self.table.get(prefix).map_or(&[][..], Entry::registrations);
        let own = registrations.iter().find(|r| r.registrant == new.registrant);
        new.octets().saturating_sub(own.map_or(0, Registration::octets))
    }

    /// Adds or refreshes a registration: beside those of other xTRs if all ask for merging (MS-17), else in their place (MS-18).
    pub(super) fn register(
        &mut self,
        prefix: EidPrefix,
        mut new: Registration,
    ) -> Result<Registered, Full> {
        let full = self.is_full();
        if self.octets + self.growth(&prefix, &new) > self.max_octets {
            return Err(Full);
        }
        let Some(entry) = self.table.get_mut(&prefix) else {
            if full {
                return Err(Full);
            }
            self.octets += new.octets();
            self.expiries.insert((new.expires, prefix, new.registrant));
            new.kept_until.get_or_insert(new.expires);
            self.table.insert(prefix, Entry { registrations: vec![new] });
            return Ok(Registered { outcome: Outcome::New, replaced: Vec::new(), keep: true });
        };
        let merged = new.merge && entry.registrations.iter().all(|registration| registration.merge);
        let own = entry.registrations.iter().position(|r| r.registrant == new.registrant);
        if merged && own.is_none() && (full || entry.registrations.len() >= MAX_REGISTRANTS) {
            return Err(Full);
        }
        let replaces_others = !merged && entry.registrations.len() > usize::from(own.is_some());
        let changed = replaces_others || own.is_none_or(|at| entry.registrations[at].differs(&new));
        let before = changed.then(|| entry.mapping(prefix));
        let mut keep = true;
        if let Some(own) = own.map(|at| entry.registrations.remove(at)) {
            self.octets -= own.octets();
            self.expiries.remove(&(own.expires, prefix, own.registrant));
            new.since = own.since;
            keep = new.must_be_kept(&own);
            if !keep {
                new.kept_until = new.kept_until.or(own.kept_until);
            }
        }
        new.kept_until.get_or_insert(new.expires);
        let mut replaced = Vec::new();
        let others = if !changed {
            Vec::new()
        } else if merged {
            entry.registrations.clone()
        } else {
            for other in &entry.registrations {
                self.octets -= other.octets();
                self.expiries.remove(&(other.expires, prefix, other.registrant));
                replaced.push(other.registrant);
            }
            std::mem::take(&mut entry.registrations)
        };
        self.octets += new.octets();
        self.expiries.insert((new.expires, prefix, new.registrant));
        entry.registrations.push(new);
        // Every ETR of a site may register the locators of all of them (RG-06): the same mapping again is no change.
        let outcome = match before {
            Some(before) if before != entry.mapping(prefix) => Outcome::Changed(others),
            _ => Outcome::Refreshed,
        };
        Ok(Registered { outcome, replaced, keep })
    }

    /// Removes the registration of one xTR (MS-21); what is left of others is in the table still.
    pub(super) fn withdraw(
        &mut self,
        prefix: &EidPrefix,
        registrant: Registrant,
    ) -> Option<Registration> {
        let entry = self.table.get_mut(prefix)?;
        let at = entry.registrations.iter().position(|r| r.registrant == registrant)?;
        let removed = entry.registrations.remove(at);
        if entry.registrations.is_empty() {
            self.table.remove(prefix);
        }
        self.octets -= removed.octets();
        self.expiries.remove(&(removed.expires, *prefix, registrant));
        Some(removed)
    }

    /// When the next registration expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _, _)| *at)
    }

    /// Removes one registration that is due, if there is one.
    pub(super) fn expire(&mut self, now: Instant) -> Option<(EidPrefix, Registration)> {
        let &(at, prefix, registrant) = self.expiries.first()?;
        if at > now {
            return None;
        }
        self.expiries.pop_first();
        self.withdraw(&prefix, registrant).map(|removed| (prefix, removed))
    }
}
