//! Distinguished names (RFC 9735): registered and answered like EID-prefixes, but for what needs addresses.
//!
//! A name is found by its longest registered beginning (CW-32). The Map-Server answers for names itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use crate::discard::Discard;
use crate::eid::{NamePrefix, NameTable};
use crate::resolver::{Lookup, map_reply};
use crate::timers::{MAX_NAMES, MAX_REGISTRANTS, NEGATIVE_TTL_MINUTES, UNREGISTERED_TTL_MINUTES};
use crate::transmit::{SourcePort, Transmit};
use crate::wire::{Action, EidField, EidRecord};

use super::event::{Event, NameChange};
use super::register::{Sender, Terms};
use super::registry::{Entry, PerSite, Registrant, Registration, Second};
use super::replay::Freshness;
use super::site::SiteIndex;
use super::{Count, MapServer};

/// The registered names.
#[derive(Debug, Default)]
pub(super) struct Names {
    table: NameTable<Entry>,
    /// By the first expiry of each.
    expiries: BTreeSet<(Second, NamePrefix)>,
    per_site: PerSite,
}

impl Names {
    pub(super) fn get(&self, name: &NamePrefix) -> Option<&Entry> {
        self.table.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Registrations of one site.
    pub(super) fn len_of(&self, site: SiteIndex) -> usize {
        self.per_site.get(site)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= MAX_NAMES
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NamePrefix, &Entry)> {
        self.table.iter()
    }

    /// The names that `name` begins with, and itself.
    pub(super) fn covering<'a>(
        &'a self,
        name: &NamePrefix,
    ) -> impl Iterator<Item = (&'a NamePrefix, &'a Entry)> {
        self.table.covering(name)
    }

    pub(super) fn next_expiry(&self) -> Option<Second> {
        self.expiries.first().map(|(second, _)| *second)
    }

    /// Adds or refreshes a registration, by the rules of [`Entry::put`]; `site_limit` is how many its site may have.
    pub(super) fn register(
        &mut self,
        name: &NamePrefix,
        new: Registration,
        site_limit: usize,
    ) -> Result<Stored, Discard> {
        let (site, site_is_full) = (new.site, self.len_of(new.site) >= site_limit);
        let Some(entry) = self.table.get_mut(name) else {
            if self.table.len() >= MAX_NAMES {
                return Err(Discard::RegistryFull);
            }
            if site_is_full {
                return Err(Discard::SiteFull);
            }
            self.per_site.add(site);
            let first = new.expires;
            self.expiries.insert((first, name.clone()));
            self.table.insert(name.clone(), Entry::new(new, first));
            return Ok(Stored { change: Some(NameChange::Registered), replaced: Vec::new() });
        };
        let registrations = entry.registrations();
        let own = registrations.iter().find(|r| r.registrant == new.registrant);
        let merged = new.merge && registrations.iter().all(|registration| registration.merge);
        if own.is_none() && registrations.len() >= MAX_REGISTRANTS {
            return Err(Discard::RegistryFull);
        }
        let of_site = own.is_some_and(|own| own.site == site)
            || (!merged && registrations.iter().any(|registration| registration.site == site));
        if site_is_full && !of_site {
            return Err(Discard::SiteFull);
        }
        let put = entry.put(new);
        put.own.iter().chain(put.replaced()).for_each(|gone| self.per_site.subtract(gone.site));
        self.per_site.add(site);
        self.reschedule(name);
        let replaced = put.replaced().iter().map(|other| other.registrant).collect();
        Ok(Stored { change: put.changed.then_some(NameChange::Changed), replaced })
    }

    /// Removes the registration of one xTR.
    pub(super) fn withdraw(
        &mut self,
        name: &NamePrefix,
        registrant: Registrant,
    ) -> Option<Registration> {
        let entry = self.table.get_mut(name)?;
        let at = entry.registrations().iter().position(|r| r.registrant == registrant)?;
        let removed = entry.edit(|list| list.remove(at));
        self.per_site.subtract(removed.site);
        self.reschedule(name);
        Some(removed)
    }

    /// Shows an entry to `revise`, which may change what its registrations remember of their sites, and nothing else.
    pub(super) fn revise(&mut self, name: &NamePrefix, revise: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.table.get_mut(name) {
            revise(entry);
        }
    }

    /// Removes one registration that is due, if there is one.
    fn expire(&mut self, now: Second) -> Option<(NamePrefix, Registration)> {
        let (_, name) = self.expiries.first().filter(|(second, _)| *second <= now)?.clone();
        let registrations = self.table.get(&name)?.registrations();
        let due = registrations.iter().find(|r| r.expires <= now)?.registrant;
        self.withdraw(&name, due).map(|removed| (name, removed))
    }

    /// Puts the entry where its first expiry is, or removes it when it is empty.
    fn reschedule(&mut self, name: &NamePrefix) {
        let Some(entry) = self.table.get_mut(name) else { return };
        self.expiries.remove(&(entry.scheduled, name.clone()));
        match entry.first_expiry() {
            Some(first) => {
                entry.scheduled = first;
                self.expiries.insert((first, name.clone()));
            }
            None => drop(self.table.remove(name)),
        }
    }
}

/// What became of a registration of a name.
#[derive(Debug)]
pub(super) struct Stored {
    /// `None`: it lives longer now, and nothing else.
    change: Option<NameChange>,
    pub(super) replaced: Vec<Registrant>,
}

impl MapServer {
    /// Judges one record with a name and, unless its message is a retransmission, stores it.
    pub(super) fn accept_name(
        &mut self,
        now: Instant,
        sender: &Sender,
        terms: &Terms,
        record: &EidRecord,
        name: &NamePrefix,
        freshness: Freshness,
    ) -> Result<(), Discard> {
        self.sites.judge(sender.site, record)?;
        self.review_names_of(name);
        let withdrawn = record.ttl_minutes == 0;
        if freshness == Freshness::Retransmission {
            let held = withdrawn || self.names.get(name).is_some();
            return self.make_sure_held(sender, held, self.names.is_full());
        }
        if withdrawn {
            if self.names.withdraw(name, sender.registrant).is_some() {
                self.count(Count::Withdrawn);
                self.forget_name(name, sender.registrant);
                self.tell_of_name(sender, name, NameChange::Withdrawn);
            }
        } else {
            let registration = self.registration(now, sender, terms, record);
            let limit = self.sites.get(sender.site).config.max_registrations;
            let limit = limit.saturating_sub(self.registry.len_of(sender.site));
            let Stored { change, replaced } = self.names.register(name, registration, limit)?;
            for other in replaced {
                self.forget_name(name, other);
            }
            self.keep_name(name, sender.registrant);
            if let Some(change) = change {
                self.tell_of_name(sender, name, change);
            }
        }
        self.sites.get_mut(sender.site).accepted += 1;
        self.count(Count::RecordsAccepted);
        Ok(())
    }

    fn tell_of_name(&mut self, sender: &Sender, name: &NamePrefix, change: NameChange) {
        let site = self.sites.get(sender.site).name.clone();
        self.event(Event::Name { site, name: name.clone(), source: sender.from.ip(), change });
    }

    pub(super) fn next_name_expiry(&self) -> Option<Instant> {
        self.names.next_expiry().and_then(|second| self.registry.instant(second))
    }

    /// Drops the expired registrations of names.
    pub(super) fn handle_due_names(&mut self, now: Instant) {
        let Some(timeline) = self.registry.known_timeline() else { return };
        while let Some((name, expired)) = self.names.expire(timeline.floor(now)) {
            let site = self.sites.get(expired.site).name.clone();
            self.count(Count::Expired);
            self.forget_name(&name, expired.registrant);
            let change = NameChange::Expired;
            self.event(Event::Name { site, name, source: expired.source, change });
        }
    }

    /// Answers a lookup of names, all in one Map-Reply.
    pub(super) fn answer_names(
        &mut self,
        now: Instant,
        from: SocketAddr,
        lookup: &Lookup,
        names: &[NamePrefix],
    ) {
        names.iter().for_each(|name| self.review_names_of(name));
        if let Err(reason) = self.reply_names(now, lookup, names) {
            self.discard(from.ip(), reason);
        }
    }

    fn reply_names(
        &mut self,
        now: Instant,
        lookup: &Lookup,
        names: &[NamePrefix],
    ) -> Result<(), Discard> {
        if lookup.protection.is_some() {
            // What a Map-Server vouches for in LISP-SEC are EID-prefixes.
            return Err(Discard::UnsupportedEid);
        }
        if lookup.request.dont_map_reply {
            return Err(Discard::DontMapReply);
        }
        let requester = lookup.requester(&self.own).ok_or(Discard::NoItrRloc)?;
        let rloc = requester.destination.ip();
        let mut records: Vec<EidRecord> = Vec::new();
        for name in names {
            let record = self.record_of_name(name);
            let mut octets = Vec::new();
            record.encode(&mut octets);
            let value = self.scatter.of(&octets);
            let fresh = !self.recent_replies.contains(now, &(rloc, name), value);
            if fresh && !records.iter().any(|known| known.eid == record.eid) {
                self.recent_replies.record(now, &(rloc, name), value);
                records.push(record);
            }
        }
        if records.is_empty() || !self.replies.take(now, &rloc) {
            return Err(Discard::ReplyRateLimited);
        }
        let negative = records.iter().all(|record| record.is_negative());
        self.count(if negative { Count::NegativeMapReplies } else { Count::MapReplies });
        let (_, payload) = map_reply(self.payload(), lookup.request.nonce, records, rloc, 0);
        self.transmits.push_back(Transmit {
            source: requester.source,
            source_port: SourcePort::Control,
            destination: requester.destination,
            payload,
        });
        Ok(())
    }

    /// The longest registered beginning of `name` (CW-32), or a negative record of it (MS-10, MS-11).
    fn record_of_name(&self, name: &NamePrefix) -> EidRecord {
        if let Some((found, entry)) = self.names.table.longest_match(name) {
            return entry.record(EidField::from(found));
        }
        let ttl_minutes =
            if self.sites.has_name(name) { UNREGISTERED_TTL_MINUTES } else { NEGATIVE_TTL_MINUTES };
        EidRecord::negative(name, Action::NativelyForward, ttl_minutes)
    }
}
