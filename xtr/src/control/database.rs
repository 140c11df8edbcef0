//! Own mappings, as they are now: the EID-prefixes that this node registers, answers for and delivers.
//!
//! They begin with the configured ones. Whatever comes, changes or goes later is registered at once (TTL 0 when it goes, RG-17), known to
//! the forwarding table at once, and told to those that sent or got packets lately (SM-01).
use super::ControlPlane;
use super::etr::Registration;
use crate::config::LocalEid;
use crate::fib::{FibUpdate, Verdict};
use mapping::eid::{Eid, EidPrefix, EidTable};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// How an own mapping came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is configured.
    Configured,
    /// A host of a dynamic-EID range is here (DY-01).
    Dynamic,
}

/// An own mapping. Its locators are those of the node that its locator-set names, with what is known of them now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnMapping {
    /// The EID-prefix and its locator-set.
    pub eid: LocalEid,
    /// How it came to be.
    pub origin: Origin,
}

impl OwnMapping {
    /// A mapping of the configuration.
    pub const fn configured(eid: LocalEid) -> Self {
        Self { eid, origin: Origin::Configured }
    }

    /// The mapping of a host that is here.
    pub const fn dynamic(eid: LocalEid) -> Self {
        Self { eid, origin: Origin::Dynamic }
    }
}

/// Own mappings by EID-prefix.
#[derive(Debug, Default)]
pub(super) struct Database {
    mappings: EidTable<OwnMapping>,
    /// Gone, but not yet for every Map-Server.
    leaving: BTreeMap<EidPrefix, OwnMapping>,
}

impl Database {
    pub(super) fn new(eids: &[LocalEid]) -> Self {
        let mut database = Self::default();
        for eid in eids {
            database.mappings.insert(eid.prefix, OwnMapping::configured(eid.clone()));
        }
        database
    }

    pub(super) fn get(&self, prefix: &EidPrefix) -> Option<&OwnMapping> {
        self.mappings.get(prefix)
    }

    pub(super) fn lookup(&self, eid: Eid) -> Option<(EidPrefix, &OwnMapping)> {
        self.mappings.lookup(eid)
    }

    pub(super) fn longest_match(&self, prefix: &EidPrefix) -> Option<(EidPrefix, &OwnMapping)> {
        self.mappings.longest_match(prefix)
    }

    pub(super) fn covered_by(
        &self,
        prefix: &EidPrefix,
    ) -> impl Iterator<Item = (EidPrefix, &OwnMapping)> {
        self.mappings.covered_by(prefix)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EidPrefix, &OwnMapping)> {
        self.mappings.iter()
    }

    /// What a Map-Server is to be told of a prefix, and whether that it is gone.
    pub(super) fn registered(&self, prefix: &EidPrefix) -> Option<(&OwnMapping, bool)> {
        let present = self.mappings.get(prefix).map(|mapping| (mapping, false));
        present.or_else(|| self.leaving.get(prefix).map(|mapping| (mapping, true)))
    }
}

/// Whether the Map-Servers are told that an own mapping is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// With TTL 0.
    Withdraw,
    /// They know: somebody else registered it.
    None,
}

impl ControlPlane {
    /// The own mappings, sorted by EID-prefix.
    pub fn own_mappings(&self) -> impl Iterator<Item = &OwnMapping> {
        self.database.iter().map(|(_, mapping)| mapping)
    }

    /// Inserts an own mapping, or puts it in the place of the one with the same EID-prefix. Call [`Self::handle_timeout`] as
    /// [`Self::poll_timeout`] says: mappings set together are registered together.
    pub fn set_own_mapping(&mut self, now: Instant, mapping: OwnMapping) {
        let prefix = mapping.eid.prefix;
        if self.database.get(&prefix) == Some(&mapping) {
            return;
        }
        self.database.leaving.remove(&prefix);
        self.database.mappings.insert(prefix, mapping);
        if self.cache.get(&prefix).is_some() {
            // What is here is nowhere else; the own mapping shows in its place.
            self.remove_entry(now, &prefix);
        } else {
            self.fib_updates.push_back(FibUpdate::Insert(prefix, Verdict::Native));
        }
        self.update_own_versions(now);
        self.register_mapping(now, prefix);
        self.solicit_correspondents(now, prefix);
    }

    /// Takes an own mapping out and withdraws its registration.
    pub fn remove_own_mapping(&mut self, now: Instant, prefix: &EidPrefix) {
        self.drop_own_mapping(now, prefix, Farewell::Withdraw);
        self.solicit_correspondents(now, *prefix);
    }

    /// Takes an own mapping out that somebody else has registered by now: those that send to it need not be told, nor a Map-Server.
    pub fn forget_own_mapping(&mut self, now: Instant, prefix: &EidPrefix) {
        self.drop_own_mapping(now, prefix, Farewell::None);
    }

    /// Takes an own mapping out that somebody else has registered by now, and any registration of it that is still on its way.
    pub(super) fn withdraw_own_mapping(&mut self, now: Instant, prefix: &EidPrefix) {
        self.drop_own_mapping(now, prefix, Farewell::Withdraw);
    }

    /// Tells the Map-Servers that a host which is no own mapping is not here: they seem to think so.
    pub(super) fn withdraw_stray(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        locator_set: Vec<String>,
    ) {
        if self.database.registered(&prefix).is_some() {
            return;
        }
        let mapping = OwnMapping::dynamic(LocalEid { prefix, locator_set });
        self.database.leaving.insert(prefix, mapping);
        for server in 0..self.config.map_servers.len() {
            let index = self.queue(now, server, prefix, true);
            self.registrations[index].was_known = true;
        }
    }

    /// Makes the configured mappings these and no others; dynamic ones stay, but for those whose EID-prefix is configured now.
    pub fn set_configured_mappings(&mut self, now: Instant, eids: &[LocalEid]) {
        let wanted: BTreeSet<EidPrefix> = eids.iter().map(|eid| eid.prefix).collect();
        let is_configured = |mapping: &OwnMapping| mapping.origin == Origin::Configured;
        let gone: Vec<EidPrefix> = self
            .database
            .iter()
            .filter(|(prefix, mapping)| is_configured(mapping) && !wanted.contains(prefix))
            .map(|(prefix, _)| prefix)
            .collect();
        for prefix in gone {
            self.remove_own_mapping(now, &prefix);
        }
        for eid in eids {
            self.set_own_mapping(now, OwnMapping::configured(eid.clone()));
        }
    }

    /// Takes an own mapping out without telling those who send to it.
    fn drop_own_mapping(&mut self, now: Instant, prefix: &EidPrefix, farewell: Farewell) {
        let Some(mapping) = self.database.mappings.remove(prefix) else { return };
        self.update_own_versions(now);
        if self.cache.get(prefix).is_some() {
            self.show_entry(now, *prefix);
        } else {
            self.fib_updates.push_back(FibUpdate::Remove(*prefix));
        }
        let servers = self.release(now, prefix);
        if farewell == Farewell::Withdraw && !servers.is_empty() {
            self.database.leaving.insert(*prefix, mapping);
            for server in servers {
                let index = self.queue(now, server, *prefix, true);
                self.registrations[index].was_known = true;
            }
        }
    }

    /// The remote RLOCs that got data in the last minute learn that an own mapping changed (SM-01).
    pub(super) fn solicit_correspondents(&mut self, now: Instant, prefix: EidPrefix) {
        self.solicit_changed(now, self.clock_at(now), &[prefix]);
    }

    /// Registers one own mapping anew with every Map-Server (RG-03).
    pub(super) fn register_mapping(&mut self, now: Instant, prefix: EidPrefix) {
        let known = self.release(now, &prefix);
        if self.is_proxy() {
            return;
        }
        for server in 0..self.config.map_servers.len() {
            let index = self.queue(now, server, prefix, false);
            self.registrations[index].was_known |= known.contains(&server);
        }
    }

    /// Takes a prefix out of every Map-Register that is to be sent, first or again; the Map-Servers that may have had it.
    fn release(&mut self, now: Instant, prefix: &EidPrefix) -> Vec<usize> {
        let mut servers = Vec::new();
        for registration in &mut self.registrations {
            let Some(at) = registration.prefixes.iter().position(|known| known == prefix) else {
                continue;
            };
            registration.prefixes.remove(at);
            registration.forget(prefix);
            if registration.is_known_there() {
                servers.push(registration.server);
            }
            registration.contents_changed(now);
        }
        self.registrations.retain(|registration| !registration.prefixes.is_empty());
        servers
    }

    /// Puts a prefix into a Map-Register to one Map-Server that goes out at once; which one.
    fn queue(&mut self, now: Instant, server: usize, prefix: EidPrefix, withdrawal: bool) -> usize {
        for index in 0..self.registrations.len() {
            let waiting = &self.registrations[index];
            if waiting.server == server
                && waiting.withdrawal == withdrawal
                && waiting.is_unsent()
                && waiting.next <= now
            {
                let mut prefixes = waiting.prefixes.clone();
                prefixes.push(prefix);
                if self.fits(server, &prefixes) {
                    prefixes.sort_unstable();
                    self.registrations[index].prefixes = prefixes;
                    return index;
                }
            }
        }
        let mut registration = Registration::new(server, vec![prefix], now);
        registration.withdrawal = withdrawal;
        self.registrations.push(registration);
        self.registrations.len() - 1
    }

    /// After an acknowledgement: a withdrawal is over, and what went alone goes with others from now on.
    pub(super) fn tidy_registrations(&mut self, index: usize) {
        let Some(registration) = self.registrations.get(index) else { return };
        if registration.withdrawal {
            self.registrations.remove(index);
            return self.forget_left();
        }
        if self.shutting_down {
            return;
        }
        let server = registration.server;
        for other in 0..self.registrations.len() {
            let candidate = &self.registrations[other];
            if other == index || candidate.server != server || !candidate.is_settled() {
                continue;
            }
            let mut together = candidate.prefixes.clone();
            together.extend_from_slice(&self.registrations[index].prefixes);
            if self.fits(server, &together) {
                together.sort_unstable();
                let joined = self.registrations.remove(index);
                let into = if other > index { other - 1 } else { other };
                self.registrations[into].join(joined, together);
                return;
            }
        }
    }

    /// A Map-Server that does not hear of a withdrawal forgets the registration by itself (MS-03).
    pub(super) fn forget_vain_withdrawals(&mut self, now: Instant) {
        let before = self.registrations.len();
        self.registrations.retain(|registration| !registration.is_vain_withdrawal(now));
        if self.registrations.len() != before {
            self.forget_left();
        }
    }

    fn forget_left(&mut self) {
        let pending: BTreeSet<EidPrefix> = self
            .registrations
            .iter()
            .filter(|registration| registration.withdrawal)
            .flat_map(|registration| registration.prefixes.iter().copied())
            .collect();
        self.database.leaving.retain(|prefix, _| pending.contains(prefix));
    }
}
