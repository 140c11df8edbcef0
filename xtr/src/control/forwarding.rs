//! From mappings to verdicts, and into the forwarding table.
use super::locator::{self, Candidate, Locator, Via};
use super::map_cache::{Entry, Mapping};
use super::status_bits;
use super::stranded;
use super::{ControlPlane, Event};
use crate::drops::DropReason;
use crate::fib::{Adjacency, FibUpdate, Verdict};
use mapping::eid::EidPrefix;
use mapping::wire::Action;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

impl ControlPlane {
    /// Inserts or replaces an entry and tells the forwarding table.
    pub(super) fn install_entry(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        mapping: Mapping,
        expires: Instant,
    ) {
        if self.keeps_ways(&prefix, &mapping) {
            return;
        }
        self.install_proved(now, prefix, mapping, expires);
    }

    /// As [`Self::install_entry`], whatever an RTR knows of the EID-prefix.
    pub(super) fn install_proved(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        mapping: Mapping,
        expires: Instant,
    ) {
        if self.database.get(&prefix).is_some() {
            // Others learn it from the mapping system; here it is the own mapping that counts.
            return;
        }
        if self.mobility.is_away(&prefix) && mapping.locators().is_empty() {
            // A host that is at no other site.
            return self.remove_entry(now, &prefix);
        }
        if self.cache.get(&prefix).is_none() && self.cache.is_full() {
            self.make_room(now);
            self.event(Event::MapCacheFull);
        }
        let before: Vec<IpAddr> = self.locators_of(&prefix);
        let after: Vec<IpAddr> = mapping.locators().iter().map(|l| l.address).collect();
        let returned = self.offered_again(&prefix, &mapping);
        let petrs = &self.petrs;
        let is_petr = |address| petrs.iter().any(|petr| petr.address == address);
        let entries = self.cache.len();
        self.cache.insert(now, prefix, mapping, expires, is_petr);
        self.count(if self.cache.len() > entries {
            "map_cache_added"
        } else {
            "map_cache_updated"
        });
        for address in after {
            self.track(now, address, |locator| {
                locator.users.insert(prefix);
            });
        }
        for address in before {
            let gone = self.cache.get(&prefix).is_none_or(|entry| {
                entry.mapping.locators().iter().all(|kept| kept.address != address)
            });
            if gone {
                self.untrack(address, |locator| {
                    locator.users.remove(&prefix);
                });
            }
        }
        for address in returned {
            self.hasten_probe(now, address);
        }
        if !self.cache.get(&prefix).is_none_or(|entry| entry.mapping.locators().is_empty()) {
            self.host_is_away(now, prefix);
        }
        self.update_source(prefix);
        self.update_verdict(now, prefix, true);
    }

    /// Removes the entries that were used longest ago (MC-27).
    pub(super) fn make_room(&mut self, now: Instant) {
        for victim in self.cache.least_recently_used() {
            for _ in 0..self.evict(now, victim) {
                self.count("map_cache_evictions");
            }
        }
    }

    /// Removes an entry and those that cover it, which would take its traffic; how many.
    pub(super) fn evict(&mut self, now: Instant, victim: EidPrefix) -> usize {
        let covering: Vec<EidPrefix> =
            self.cache.covering(&victim).map(|(prefix, _)| prefix).collect();
        let mut evicted = 0;
        for victim in covering.into_iter().chain([victim]) {
            // The site's own hosts would look for a host that is away in vain, and nobody else knows what is registered here.
            let stays = self.mobility.is_away(&victim) || self.is_registered_here(&victim);
            if self.cache.get(&victim).is_some() && !stays {
                self.remove_entry(now, &victim);
                self.entry_left(now, &victim);
                evicted += 1;
            }
        }
        evicted
    }

    /// The locators that the site offers and did not offer before: whatever kept them down may be over.
    fn offered_again(&self, prefix: &EidPrefix, mapping: &Mapping) -> Vec<IpAddr> {
        let offers = |locators: &[Candidate], address: IpAddr| {
            let locator = locators.iter().find(|locator| locator.address == address);
            locator.is_some_and(|locator| locator.reachable && locator.priority != 255)
        };
        let before = self.cache.get(prefix).map(|entry| entry.mapping.locators());
        let before = before.unwrap_or_default();
        let after = mapping.locators().iter().map(|locator| locator.address);
        after
            .filter(|address| offers(mapping.locators(), *address) && !offers(before, *address))
            .collect()
    }

    /// Who may send for an EID-prefix: any locator of its mapping, whether we could send there or not.
    fn update_source(&mut self, prefix: EidPrefix) {
        let Some(updates) = &mut self.source_updates else { return };
        let Some(entry) = self.cache.get_mut(&prefix) else { return };
        let last_used = entry.last_used();
        let verdict = match &entry.mapping {
            Mapping::Locators(locators) => {
                let senders: Vec<_> =
                    locators.iter().map(|locator| locator::sender(locator.address)).collect();
                // All weigh the same, so sets of one size share their table.
                let set = Arc::new(self.locator_tables.locator_set(None, senders, last_used));
                entry.senders = Some(Arc::clone(&set));
                Verdict::Encapsulate(set)
            }
            Mapping::Negative(_) => Verdict::Drop(DropReason::PetrSourceNotRegistered),
        };
        updates.push_back(FibUpdate::Insert(prefix, verdict));
    }

    /// Removes an entry from the map-cache and the forwarding table.
    pub(super) fn remove_entry(&mut self, _now: Instant, prefix: &EidPrefix) {
        let Some(entry) = self.cache.remove(prefix) else { return };
        self.stranded.remove(prefix);
        self.count("map_cache_removed");
        self.host_is_not_away(prefix);
        if let Verdict::Encapsulate(set) = &entry.verdict {
            self.note_former(*prefix, set, None);
        }
        for candidate in entry.mapping.locators() {
            self.untrack(candidate.address, |locator| {
                locator.users.remove(prefix);
            });
        }
        // An own EID-prefix under it shows again.
        let update = match self.database.get(prefix) {
            Some(_) => FibUpdate::Insert(*prefix, Verdict::Native),
            None => FibUpdate::Remove(*prefix),
        };
        self.fib_updates.push_back(update);
        if let Some(updates) = &mut self.source_updates {
            updates.push_back(FibUpdate::Remove(*prefix));
        }
    }

    /// Recomputes what depends on one remote RLOC.
    pub(super) fn locator_changed(&mut self, now: Instant, rloc: IpAddr) {
        let Some(locator) = self.locators.get(&rloc) else { return };
        let users: Vec<EidPrefix> = locator.users.iter().copied().collect();
        let petr = locator.petr;
        for prefix in users {
            self.update_verdict(now, prefix, false);
        }
        if petr {
            self.petr_changed(now);
        }
    }

    /// Recomputes everything: the own side changed.
    pub(super) fn own_side_changed(&mut self, now: Instant) {
        let prefixes: Vec<EidPrefix> = self.cache.iter().map(|(prefix, _)| prefix).collect();
        for prefix in prefixes {
            self.update_verdict(now, prefix, false);
        }
    }

    /// Reads the use-petr set anew from the configuration and the resolved names.
    pub(super) fn refresh_petrs(&mut self, now: Instant) {
        let mut petrs: Vec<Candidate> = Vec::new();
        for petr in &self.config.use_petr {
            for address in self.addresses_of(&petr.endpoint) {
                if petrs.iter().all(|known| known.address != address) {
                    let (priority, weight) = (petr.priority, petr.weight);
                    petrs.push(Candidate {
                        address,
                        priority,
                        weight,
                        reachable: true,
                        ordinal: 0,
                        via: Via::Usual,
                    });
                }
            }
        }
        let before = std::mem::replace(&mut self.petrs, petrs);
        let after: Vec<IpAddr> = self.petrs.iter().map(|petr| petr.address).collect();
        for &address in &after {
            self.cache.note_petr(address);
            self.track(now, address, |locator| locator.petr = true);
        }
        for petr in before {
            if !after.contains(&petr.address) {
                self.untrack(petr.address, |locator| locator.petr = false);
            }
        }
        self.petr_changed(now);
    }

    /// Everything that goes, or could go, to a PETR.
    fn petr_changed(&mut self, now: Instant) {
        let prefixes: Vec<EidPrefix> = self
            .cache
            .iter()
            .filter(|(_, entry)| {
                entry.to_petr || !matches!(entry.verdict, Verdict::Encapsulate(_) | Verdict::Miss)
            })
            .map(|(prefix, _)| prefix)
            .collect();
        for prefix in prefixes {
            self.update_verdict(now, prefix, false);
        }
    }

    /// Tells the forwarding table of an entry that something hid.
    pub(super) fn show_entry(&mut self, now: Instant, prefix: EidPrefix) {
        self.update_verdict(now, prefix, true);
    }

    /// Computes an entry's verdict; the forwarding table hears of it if it changed, or if `always`.
    pub(super) fn update_verdict(&mut self, now: Instant, prefix: EidPrefix, always: bool) {
        let Some(entry) = self.cache.get_mut(&prefix) else { return };
        let last_used = entry.last_used();
        let (own, known) = (&self.own, &self.locators);
        let before = match &entry.verdict {
            Verdict::Encapsulate(set) => Some(Arc::clone(set)),
            _ => None,
        };
        let tables = &mut self.locator_tables;
        let trust = self.trust.as_deref();
        let petrs = &self.petrs;
        let mut encapsulate = |entry: &Entry, adjacencies: Box<[Adjacency]>, to_petr| {
            let locators = if to_petr { petrs } else { entry.mapping.locators() };
            let marks = trust.map(|trust| trust.marks_of(entry, to_petr, locators, known));
            let set = tables.locator_set(before.as_deref(), adjacencies, last_used);
            Verdict::Encapsulate(Arc::new(set.with_marks(marks)))
        };
        let (mut verdict, mut to_petr) = (of_action(&entry.mapping), false);
        if let Mapping::Locators(locators) = &entry.mapping {
            let locators = status_bits::heeded(locators, entry.status_bits);
            verdict = match locator::select(own, known, &locators, &mut entry.traffic) {
                Ok(set) => encapsulate(entry, set, false),
                Err(reason) => Verdict::Drop(reason),
            };
        }
        let bridged = matches!(
            verdict,
            Verdict::Native
                | Verdict::Drop(DropReason::NoCommonRlocFamily | DropReason::NoUsableLocator)
        );
        if bridged && !self.config.use_petr.is_empty() {
            // With use-petr configured nothing leaves natively: a PETR that is down must not leak EIDs into the underlay.
            match locator::select(own, known, &self.petrs, &mut entry.traffic) {
                Ok(set) => (verdict, to_petr) = (encapsulate(entry, set, true), true),
                Err(_) if matches!(verdict, Verdict::Native) => {
                    verdict = Verdict::Drop(DropReason::NoUsableLocator);
                }
                Err(_) => {}
            }
        }
        if !always && same_verdict(&entry.verdict, &verdict) && entry.to_petr == to_petr {
            return;
        }
        (entry.verdict, entry.to_petr, entry.used_before) = (verdict.clone(), to_petr, last_used);
        let is_stranded = stranded::is_stranded(entry);
        if let Some(before) = before {
            self.note_former(prefix, &before, Some(&verdict));
        }
        self.verdict_told(now, prefix, is_stranded);
        self.fib_updates.push_back(FibUpdate::Insert(prefix, verdict));
    }

    fn locators_of(&self, prefix: &EidPrefix) -> Vec<IpAddr> {
        self.cache.get(prefix).map_or_else(Vec::new, |entry| {
            entry.mapping.locators().iter().map(|candidate| candidate.address).collect()
        })
    }

    /// Notes a use of a remote RLOC; a new one gets probed.
    fn track(&mut self, now: Instant, address: IpAddr, change: impl FnOnce(&mut Locator)) {
        if !locator::is_trackable(&self.own, address) {
            return;
        }
        let is_new = !self.locators.contains_key(&address);
        let assumed_mtu = self.config.path_mtu.ceiling(address, None);
        change(self.locators.entry(address).or_insert_with(|| Locator::new(now, assumed_mtu)));
        if is_new {
            self.start_trusting(address);
            self.start_probing(now, address);
            self.event(Event::LocatorAdded(address));
        }
    }

    /// Notes the end of a use; an RLOC without any is forgotten.
    fn untrack(&mut self, address: IpAddr, change: impl FnOnce(&mut Locator)) {
        let Some(locator) = self.locators.get_mut(&address) else { return };
        change(locator);
        if locator.users.is_empty() && !locator.petr {
            self.stop_probing(address);
            self.stop_echoes(address);
            self.locators.remove(&address);
        }
    }
}

/// What a mapping without locators makes of a packet (MC-10 to MC-15).
fn of_action(mapping: &Mapping) -> Verdict {
    match mapping {
        Mapping::Locators(_) => Verdict::Drop(DropReason::NoUsableLocator),
        Mapping::Negative(Action::NativelyForward) => Verdict::Native,
        Mapping::Negative(Action::SendMapRequest) => Verdict::Miss,
        Mapping::Negative(Action::Drop) => Verdict::Drop(DropReason::ActionDrop),
        Mapping::Negative(Action::DropPolicyDenied) => {
            Verdict::Drop(DropReason::ActionPolicyDenied)
        }
        Mapping::Negative(Action::DropAuthFailure) => Verdict::Drop(DropReason::ActionAuthFailure),
        Mapping::Negative(Action::NoAction | Action::Unassigned(_)) => {
            Verdict::Drop(DropReason::ActionNoAction)
        }
    }
}

fn same_verdict(one: &Verdict, other: &Verdict) -> bool {
    match (one, other) {
        (Verdict::Encapsulate(one), Verdict::Encapsulate(other)) => {
            locator::same_set(&one.adjacencies, &other.adjacencies) && one.marks == other.marks
        }
        (Verdict::Drop(one), Verdict::Drop(other)) => one == other,
        (Verdict::Native, Verdict::Native) | (Verdict::Miss, Verdict::Miss) => true,
        _ => false,
    }
}
