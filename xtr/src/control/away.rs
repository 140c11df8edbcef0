//! Hosts of dynamic-EID ranges that are at another site (DY-03, DY-04).
//!
//! A host is away as long as the map-cache has its EID alone, with locators: what brings such an entry into the map-cache makes it away,
//! what takes the entry out ends that. Three things keep two sites from taking a host to be at each other for long:
//!
//! - what a Map-Server says by itself is believed at once, unless it has not yet acknowledged that the host came here: it may not have
//!   known. Then it is told once more, and what it says next is believed;
//! - a host that was here and is said to be elsewhere is asked for a sign of life: whoever answers is here, and registered again;
//! - the mapping system is asked who has left when the home of a range is registered;
//! - the mapping system is asked for every host that is away once in a while, and at once when a packet for it would go back to where it
//!   came from. A request that the Map-Server hands to us says that it has the host here, which it is told not to be so.
use super::itr::Purpose;
use super::map_cache::{Mapping, lifetime};
use super::mobility::{Detection, HostChange, HostSeen};
use super::{ControlPlane, Event};
use crate::config::DynamicRange;
use mapping::eid::{Eid, EidPrefix};
use mapping::wire::EidRecord;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often the mapping system is asked whether a host that is away still is.
pub(super) const RECHECK: Duration = Duration::from_secs(60);
/// How long a withdrawal may take before the mapping system is asked again.
const WITHDRAWN: Duration = Duration::from_secs(2);
/// Such questions per second; the rest waits.
pub(super) const RECHECKS_PER_SECOND: u32 = 100;

/// A host that is away.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) range: usize,
    pub(super) since: Instant,
    /// Its timer.
    pub(super) due: Instant,
    /// How it was found when it was here.
    pub(super) was: Option<Detection>,
    /// It was seen here, but has moved too often: it is asked for a sign of life when that is over.
    pub(super) was_refused: bool,
    /// The Map-Servers were told that it is not here, though they had not said so.
    pub(super) disowned: bool,
}

impl ControlPlane {
    /// A packet from `source` behind `rloc` came for a host that is elsewhere: one data-triggered SMR, at the pace of all SMRs (SM-03). If
    /// the host `returns`, which is to say that it should be at `rloc` itself, neither router can believe its map-cache.
    pub(super) fn handle_left(
        &mut self,
        now: Instant,
        (host, rloc): (Eid, IpAddr),
        source: IpAddr,
        returns: bool,
    ) {
        let prefix = host.host_prefix();
        let known = self.cache.lookup(host).map(|(found, _)| found);
        let own = self.database.lookup(host).map(|(own, _)| own);
        // It may have come back, or been forgotten, since.
        let Some(known) = known else { return };
        if own.is_some_and(|own| own.mask_len() >= known.mask_len()) {
            return;
        }
        self.count("moved_hosts_sent_to");
        let behind =
            if self.is_pitr(rloc) { prefix } else { Eid { address: source, ..host }.host_prefix() };
        self.solicit(now, rloc, prefix, behind);
        if returns {
            self.count("moved_hosts_sent_back");
            self.start_lookup(now, known, Purpose::Away);
        }
    }

    /// Map-Server number `server` says who has registered a host now (DY-03): another site, or nobody any more.
    pub(super) fn host_registered(&mut self, now: Instant, server: usize, record: &EidRecord) {
        let Some(prefix) = record.eid.prefix() else { return };
        let Some(range) = self.mobility.range_of_host(&prefix) else { return };
        if self.has_own_locator(record) {
            return;
        }
        if record.ttl_minutes == 0 || record.locators.is_empty() {
            return self.host_vanished(now, prefix);
        }
        if self.is_contested(now, server, prefix) {
            return;
        }
        let was = self.host_departed(now, &prefix);
        if self.database.get(&prefix).is_some() {
            return; // Configured: it is always here.
        }
        // What was asked before is answered with what was before.
        self.lookups.void(&prefix);
        let mapping = Mapping::from_record(record, &self.own);
        self.install_entry(now, prefix, mapping, now + lifetime(record.ttl_minutes));
        let interfaces = self.mobility.ranges[range].interfaces.clone();
        if let Some(how) = was {
            if let Some(away) = self.mobility.away.get_mut(&prefix) {
                away.was = Some(how);
            }
            let probe = HostChange::Probe { eid: prefix.first(), interfaces };
            self.mobility.changes.push_back(probe);
        }
        self.solicit_correspondents(now, prefix);
    }

    /// Nobody has registered a host: it is where its EID-prefix is. That may be old news, so the mapping system is asked.
    fn host_vanished(&mut self, now: Instant, prefix: EidPrefix) {
        if self.mobility.away.contains_key(&prefix) {
            self.lookups.void(&prefix);
            self.remove_entry(now, &prefix);
            self.start_lookup(now, prefix, Purpose::Away);
        }
    }

    /// Whether a Map-Server spoke of a host before it heard that the host came here, as far as is known. It is told once more; what it
    /// says after that holds.
    fn is_contested(&mut self, now: Instant, server: usize, prefix: EidPrefix) -> bool {
        let is_news = self.registrations.iter().any(|registration| {
            registration.server == server
                && registration.is_first_outstanding()
                && registration.prefixes.contains(&prefix)
        });
        let Some(here) = self.mobility.here.get_mut(&prefix) else { return false };
        if !is_news || std::mem::replace(&mut here.contested, true) {
            return false;
        }
        self.count("dynamic_eids_contested");
        self.register_mapping(now, prefix);
        true
    }

    /// A host that was here is registered by another site; how it had been found.
    fn host_departed(&mut self, now: Instant, prefix: &EidPrefix) -> Option<Detection> {
        let here = self.mobility.remove_here(prefix)?;
        let is_under_way = |registration: &super::Registration| {
            registration.is_outstanding() && registration.prefixes.contains(prefix)
        };
        if self.registrations.iter().any(is_under_way) {
            // A Map-Register that is on its way would bring it back.
            self.withdraw_own_mapping(now, prefix);
        } else {
            self.forget_own_mapping(now, prefix);
        }
        Some(here.how)
    }

    /// A Map-Server has an own EID-prefix: which hosts of its ranges are elsewhere? Who died without a word has forgotten them, and is not new
    /// to the Map-Server, which tells the owner for the asking (DY-02); any other may name them in its Map-Reply (RFC 9301 §5.5).
    pub(super) fn ask_who_left(&mut self, now: Instant, prefix: EidPrefix) {
        let is_home =
            |range: &DynamicRange| prefix.covers(&range.range) || range.range.covers(&prefix);
        let is_configured = self.config.eids.iter().any(|own| own.prefix == prefix);
        if is_configured && self.mobility.ranges.iter().any(is_home) {
            self.start_lookup(now, prefix, Purpose::Away);
        }
    }

    /// The map-cache has an entry for a host of a range: it is away.
    pub(super) fn host_is_away(&mut self, now: Instant, prefix: EidPrefix) {
        let Some(range) = self.mobility.range_of_host(&prefix) else { return };
        if self.mobility.away.contains_key(&prefix) {
            return;
        }
        if self.mobility.away_in(range) >= self.mobility.ranges[range].limit {
            // Its packets find it all the same.
            return self.count("dynamic_eids_away_over_limit");
        }
        self.mobility.remove_here(&prefix);
        self.count("dynamic_eids_moved_away");
        self.event(Event::HostAway(prefix));
        let away = Away {
            range,
            since: now,
            due: now + RECHECK,
            was: None,
            was_refused: false,
            disowned: false,
        };
        self.mobility.insert_away(prefix, away);
        let interfaces = self.mobility.ranges[range].interfaces.clone();
        self.mobility.changes.push_back(HostChange::Away { eid: prefix.first(), interfaces });
    }

    /// The map-cache has no entry for a host any more.
    pub(super) fn host_is_not_away(&mut self, prefix: &EidPrefix) {
        if self.mobility.remove_away(prefix).is_some() {
            self.count("dynamic_eids_away_removed");
            self.mobility.changes.push_back(HostChange::Forget { eid: prefix.first() });
        }
    }

    /// The mapping system answered with a record of its own for a host of a range; whether there is nothing more to do about it: what was
    /// asked for another one's sake may be older than what is known, and a host that is here needs no entry.
    pub(super) fn host_looked_up(
        &mut self,
        now: Instant,
        requested: EidPrefix,
        prefix: EidPrefix,
        record: &EidRecord,
    ) -> bool {
        let Some(range) = self.mobility.range_of_host(&prefix) else { return false };
        if !self.has_own_locator(record) {
            return prefix != requested && self.mobility.is_away(&prefix);
        }
        if prefix != requested || self.mobility.here.contains_key(&prefix) {
            return true;
        }
        // Whoever registered it last was this router.
        let was = self.mobility.away.get(&prefix).and_then(|away| away.was);
        self.remove_entry(now, &prefix);
        match was {
            Some(how) => {
                let host = HostSeen { interface: None, address: prefix.prefix().addr(), how };
                self.host_arrived(now, range, prefix, &host);
            }
            None => self.disown(now, prefix, range),
        }
        true
    }

    /// Whether an answer to what was asked of an own EID-prefix says nothing of a host.
    pub(super) fn is_of_own(&self, requested: &EidPrefix, prefix: &EidPrefix) -> bool {
        self.database.get(requested).is_some() && self.mobility.range_of_host(prefix).is_none()
    }

    /// A Map-Server handed us a request for a host that is away: it has the host here.
    pub(super) fn host_asked_for(&mut self, now: Instant, prefix: &EidPrefix) {
        let Some(away) = self.mobility.away.get_mut(prefix) else { return };
        if std::mem::replace(&mut away.disowned, true) {
            return;
        }
        let range = away.range;
        self.mobility.reschedule_away(*prefix, now + WITHDRAWN);
        self.disown(now, *prefix, range);
    }

    fn disown(&mut self, now: Instant, prefix: EidPrefix, range: usize) {
        self.count("dynamic_eids_disowned");
        let locator_set = self.mobility.ranges[range].locator_set.clone();
        self.withdraw_stray(now, prefix, locator_set);
    }

    /// The timer of a host that is away.
    pub(super) fn check_away(&mut self, now: Instant, prefix: EidPrefix) {
        let Some(away) = self.mobility.away.get_mut(&prefix) else { return };
        if std::mem::take(&mut away.was_refused) {
            let interfaces = self.mobility.ranges[away.range].interfaces.clone();
            let probe = HostChange::Probe { eid: prefix.first(), interfaces };
            self.mobility.changes.push_back(probe);
            return self.mobility.reschedule_away(prefix, now + RECHECK);
        }
        match self.mobility.rechecks.take(now) {
            Ok(()) => {
                away.disowned = false;
                self.mobility.reschedule_away(prefix, now + RECHECK);
                self.start_lookup(now, prefix, Purpose::Away);
            }
            Err(later) => self.mobility.reschedule_away(prefix, later),
        }
    }

    fn has_own_locator(&self, record: &EidRecord) -> bool {
        let rlocs = record.locators.iter().filter_map(|locator| locator.address.rloc());
        rlocs.into_iter().any(|rloc| self.own.contains(rloc))
    }
}
