//! RLOC-probing: one probe per RLOC serves every mapping that names it (RFC 9301 §7.1).
use super::locator::{Candidate, Locator, Probe, Reachability};
use super::map_cache::Mapping;
use super::{ControlPlane, Event};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mapping::discard::Discard;
use mapping::eid::{EidPrefix, InstanceId, MapVersion};
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{CONTROL_PORT, EidRecord, MapReply, Message};
use rand::RngExt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Probes sent per second in total (PB-18).
pub(super) const PROBES_PER_SECOND: u32 = 1_000;
/// A new RLOC is probed within this time, spread so that a reply with many locators makes no burst.
const FIRST_PROBE_WITHIN: Duration = Duration::from_millis(500);
/// First wait between probes of a locator that is down; doubles up to the probe interval (PB-11).
const DOWN_RETRY_FIRST: Duration = Duration::from_secs(2);
/// Nonces remembered per RLOC: more than answers can be under way.
const MAX_OUTSTANDING: usize = 4;

impl ControlPlane {
    pub(super) fn start_probing(&mut self, now: Instant, rloc: IpAddr) {
        if self.config.probe_interval.is_some() {
            let delay = self.rng.random_range(Duration::ZERO..FIRST_PROBE_WITHIN);
            self.schedule_probe(rloc, now + delay);
        }
    }

    /// Forgets timer and nonces of an RLOC.
    pub(super) fn stop_probing(&mut self, rloc: IpAddr) {
        self.stop_path_discovery(rloc);
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if let Some(due) = locator.due.take() {
            self.probe_timers.remove(&(due, rloc));
        }
        for probe in locator.outstanding.drain(..) {
            self.probe_nonces.remove(&probe.nonce);
        }
    }

    /// What kept a locator from answering may be gone: no need to wait for the end of its backoff.
    pub(super) fn hasten_probe(&mut self, now: Instant, rloc: IpAddr) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if locator.reachability == Reachability::Down {
            locator.backoff = timers::PROBE_RETRY;
            self.start_probing(now, rloc);
        }
    }

    /// Something says that a locator in use may be gone: it is probed at once.
    pub(super) fn verify_locator(&mut self, now: Instant, rloc: IpAddr) {
        let in_use = |locator: &Locator| locator.reachability != Reachability::Down;
        if self.config.probe_interval.is_some() && self.locators.get(&rloc).is_some_and(in_use) {
            self.schedule_probe(rloc, now);
        }
    }

    pub(super) fn next_probe(&self) -> Option<Instant> {
        let first = self.probe_timers.first()?.0;
        Some(self.probes_blocked.map_or(first, |blocked| first.max(blocked)))
    }

    /// Sends the probes that are due, as far as the total rate allows.
    pub(super) fn run_probes(&mut self, now: Instant) {
        self.probes_blocked = None;
        while let Some(&(due, rloc)) = self.probe_timers.first() {
            if due > now {
                return;
            }
            if let Err(later) = self.probe_bucket.take(now) {
                self.probes_blocked = Some(later);
                return;
            }
            self.probe_timers.pop_first();
            self.probe_due(now, rloc);
        }
    }

    /// PB-10, PB-11.
    fn probe_due(&mut self, now: Instant, rloc: IpAddr) {
        let Some(interval) = self.config.probe_interval else { return };
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        locator.due = None;
        let fails = locator.tries >= timers::PROBE_TRIES;
        if fails && locator.reachability != Reachability::Down {
            locator.reachability = Reachability::Down;
            locator.backoff = DOWN_RETRY_FIRST.min(interval);
            let next = now + locator.backoff;
            self.schedule_probe(rloc, next);
            self.event(Event::LocatorDown(rloc));
            return self.locator_changed(now, rloc);
        }
        let wait = if locator.reachability == Reachability::Down {
            locator.backoff = (locator.backoff * 2).min(interval);
            locator.backoff
        } else {
            timers::PROBE_RETRY.min(interval)
        };
        if locator.tries > 0 {
            locator.turn = locator.turn.wrapping_add(1);
        }
        locator.tries = locator.tries.saturating_add(1);
        self.schedule_probe(rloc, now + wait);
        self.send_probe(now, rloc);
    }

    fn schedule_probe(&mut self, rloc: IpAddr, due: Instant) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if let Some(before) = locator.due.replace(due) {
            self.probe_timers.remove(&(before, rloc));
        }
        self.probe_timers.insert((due, rloc));
    }

    /// PB-01, PB-03.
    fn send_probe(&mut self, now: Instant, rloc: IpAddr) {
        let (Some(source), Some(prefix)) = (self.own.for_family(rloc), self.probed_prefix(rloc))
        else {
            return;
        };
        let nonce = self.next_nonce();
        let mut request = self.map_request(nonce, prefix);
        request.probe = true;
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if locator.outstanding.len() >= MAX_OUTSTANDING {
            let oldest = locator.outstanding.remove(0);
            self.probe_nonces.remove(&oldest.nonce);
        }
        locator.outstanding.push(Probe { nonce, sent: now, prefix });
        self.probe_nonces.insert(nonce, rloc);
        self.count("probes_sent");
        let payload = Message::MapRequest(request).to_vec();
        self.transmit(source, SourcePort::Control, SocketAddr::new(rloc, CONTROL_PORT), payload);
    }

    /// The cached EID-prefix to probe an RLOC with; the default prefix for a PETR.
    pub(super) fn probed_prefix(&self, rloc: IpAddr) -> Option<EidPrefix> {
        let locator = self.locators.get(&rloc)?;
        if !locator.users.is_empty() {
            return locator.users.iter().nth(locator.turn % locator.users.len()).copied();
        }
        let ipv6_only = !self.config.eids.is_empty()
            && self.config.eids.iter().all(|eid| matches!(eid.prefix.prefix(), IpNet::V6(_)));
        let everything =
            if ipv6_only { IpNet::V6(Ipv6Net::default()) } else { IpNet::V4(Ipv4Net::default()) };
        let instance_id =
            self.config.eids.first().map_or(InstanceId::DEFAULT, |eid| eid.prefix.instance_id());
        locator.petr.then(|| EidPrefix::new(instance_id, everything))
    }

    /// RP-18, PB-08, PB-12.
    pub(super) fn handle_probe_reply(&mut self, now: Instant, from: IpAddr, reply: &MapReply) {
        let Some(&probed) = self.probe_nonces.get(&reply.nonce) else {
            return self.discard(Discard::NonceUnknown);
        };
        if reply.records.iter().any(|record| !record.authoritative) {
            return self.discard(Discard::ProbeNotAuthoritative);
        }
        self.count("probe_replies_received");
        let probe = self.locators.get(&probed).and_then(|locator| {
            locator.outstanding.iter().find(|probe| probe.nonce == reply.nonce).copied()
        });
        self.forget_probe(probed, reply.nonce);
        let answering = reply
            .records
            .iter()
            .flat_map(EidRecord::usable_locators)
            .find(|(_, locator)| locator.probed)
            .map_or(from, |(address, _)| address);
        if !self.locators.contains_key(&answering) {
            return self.discard(Discard::ProbeUnknownLocator);
        }
        self.locator_answered(now, answering, probe.map(|probe| probe.sent));
        self.note_echo_offer(now, reply);
        let asked = probe.map(|probe| probe.prefix);
        for record in &reply.records {
            if record.eid.prefix().is_some() && record.eid.prefix() == asked {
                self.apply_probed_record(now, record);
            }
        }
    }

    /// One answer brings an RLOC up and starts a new interval.
    fn locator_answered(&mut self, now: Instant, rloc: IpAddr, sent: Option<Instant>) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        let was = std::mem::replace(&mut locator.reachability, Reachability::Up);
        locator.tries = 0;
        locator.last_reply = Some(now);
        locator.round_trip = sent.map(|sent| now.saturating_duration_since(sent));
        for probe in locator.outstanding.drain(..) {
            self.probe_nonces.remove(&probe.nonce);
        }
        if let Some(interval) = self.config.probe_interval {
            let percent = self.rng.random_range(
                100 - timers::PROBE_JITTER_PERCENT..=100 + timers::PROBE_JITTER_PERCENT,
            );
            self.schedule_probe(rloc, now + interval * percent / 100);
        }
        if was != Reachability::Up {
            self.event(Event::LocatorUp(rloc));
            self.start_path_discovery(now, rloc);
        }
        if was == Reachability::Down {
            self.locator_changed(now, rloc);
        }
    }

    fn forget_probe(&mut self, rloc: IpAddr, nonce: u64) {
        self.probe_nonces.remove(&nonce);
        if let Some(locator) = self.locators.get_mut(&rloc) {
            locator.outstanding.retain(|probe| probe.nonce != nonce);
        }
    }

    /// What an ETR says of the probed prefix updates the entry's locators, not its life. An answer that leaves out cached locators
    /// is the view of one ETR of several, and a PETR's answer about the default prefix is no mapping at all: both change nothing.
    fn apply_probed_record(&mut self, now: Instant, record: &EidRecord) {
        let Some(prefix) = record.eid.prefix() else { return };
        let Some(entry) = self.cache.get(&prefix) else { return };
        if entry.secured {
            return; // What was proved is not changed by what anybody on the way can say.
        }
        let Mapping::Locators(cached) = &entry.mapping else { return };
        let reported = Mapping::from_record(record, &self.own);
        let still_has =
            |known: &Candidate| reported.locators().iter().any(|new| new.address == known.address);
        if record.ttl_minutes == 0 || !cached.iter().all(still_has) {
            return;
        }
        let version = MapVersion::from_bits(record.map_version);
        let is_version_news = entry.version.is_null() || version.is_newer_than(entry.version);
        if reported != entry.mapping {
            let expires = entry.expires;
            self.install_entry(now, prefix, reported, expires);
        }
        if is_version_news {
            self.note_version(prefix, record.map_version);
        }
    }
}

impl Locator {
    /// The operator's words for it.
    pub(super) fn state(&self) -> crate::view::LocatorState {
        use super::locator::Path;
        use crate::view::LocatorState;
        match (self.path, self.reachability) {
            (Path::None, _) => LocatorState::NoRoute,
            (_, Reachability::Up) => LocatorState::Up,
            (_, Reachability::Unprobed) => LocatorState::Unprobed,
            (_, Reachability::Down) => LocatorState::Down,
        }
    }
}
