//! Solicit-Map-Requests: received from those whose mappings changed, sent when own mappings change (RFC 9301 §6.1).
use super::ControlPlane;
use super::itr::Purpose;
use crate::fib::Verdict;
use mapping::discard::Discard;
use mapping::eid::EidPrefix;
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{Address, CONTROL_PORT, EidField, MapRequest, Message};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long SMRs wait for the Map-Servers to acknowledge the change they tell of: a lookup before that would find the old mapping.
const SETTLE: Duration = Duration::from_secs(2);
/// SMRs waiting for one RLOC; more own EID-prefixes than this are left to expiry and probing.
const MAX_WAITING: usize = 64;

/// SMRs to be sent, at most one per RLOC in 3 s (SM-03).
#[derive(Debug, Default)]
pub(super) struct Solicitor {
    /// Per RLOC: own EID-prefix that changed, remote EID-prefix that lies behind the RLOC.
    waiting: BTreeMap<IpAddr, VecDeque<(EidPrefix, EidPrefix)>>,
    timers: BTreeSet<(Instant, IpAddr)>,
    /// RLOCs that had an SMR, until when they get no other.
    resting: BTreeMap<IpAddr, Instant>,
}

impl Solicitor {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    fn add(&mut self, due: Instant, rloc: IpAddr, what: (EidPrefix, EidPrefix)) {
        let waiting = self.waiting.entry(rloc).or_default();
        if waiting.is_empty() {
            let due = self.resting.get(&rloc).map_or(due, |&until| due.max(until));
            self.timers.insert((due, rloc));
        }
        let known = waiting.iter().any(|(own, _)| *own == what.0);
        if !known && waiting.len() < MAX_WAITING {
            waiting.push_back(what);
        }
    }
}

impl ControlPlane {
    /// Verifies through the mapping system whatever an SMR says changed; the SMR itself changes nothing (SM-04, SM-07). Anyone may
    /// send one: a Map-Server does it for its sites.
    pub(super) fn handle_smr(&mut self, now: Instant, request: &MapRequest) {
        self.count("smrs_received");
        let source = request.source_eid.eid();
        let cached = source.and_then(|eid| self.cache.lookup(eid)).map(|(prefix, _)| prefix);
        // SM-08: deployed senders put the changed EID in the source-EID; RFC 6830 means the record.
        let prefixes: Vec<EidPrefix> = match cached {
            Some(prefix) => vec![prefix],
            None => request
                .records
                .iter()
                .filter_map(|record| record.eid.prefix())
                .filter_map(|prefix| self.cache.longest_match(&prefix).map(|(found, _)| found))
                .collect(),
        };
        if prefixes.is_empty() {
            return self.discard(Discard::SmrWithoutCacheEntry);
        }
        for prefix in prefixes {
            self.start_lookup(now, prefix, Purpose::SmrInvoked);
        }
    }

    /// Tells every remote RLOC that got data in the last minute that own mappings changed (SM-01). The own EID-prefixes that matter
    /// there are those of the family and instance of the EIDs behind it.
    pub(super) fn solicit_all(&mut self, now: Instant, clock: u32) {
        let changed: Vec<EidPrefix> = self.database.iter().map(|(own, _)| own).collect();
        self.solicit_changed(now, clock, &changed);
    }

    /// As [`Self::solicit_all`], about these own EID-prefixes, of which some may be own no longer.
    pub fn solicit_changed(&mut self, now: Instant, clock: u32, changed: &[EidPrefix]) {
        let active = u32::try_from(timers::SMR_ACTIVE_PERIOD.as_secs()).unwrap_or(u32::MAX);
        let due = if self.is_all_acknowledged() { now } else { now + SETTLE };
        self.solicitor.resting.retain(|_, until| *until > now);
        for (remote, entry) in self.cache.iter() {
            let Verdict::Encapsulate(set) = &entry.verdict else { continue };
            let last_used = entry.last_used();
            if entry.to_petr || last_used == 0 || clock.saturating_sub(last_used) > active {
                continue;
            }
            let same_kind = |own: &EidPrefix| {
                own.instance_id() == remote.instance_id()
                    && own.prefix().addr().is_ipv4() == remote.prefix().addr().is_ipv4()
            };
            for &own in changed.iter().filter(|own| same_kind(own)) {
                for adjacency in &set.adjacencies {
                    self.solicitor.add(due, adjacency.destination, (own, remote));
                }
            }
        }
        self.run_smrs(now);
    }

    /// The Map-Servers know of the change: SMRs need not wait any longer.
    pub(super) fn registrations_settled(&mut self, now: Instant) {
        if self.solicitor.timers.is_empty() || !self.is_all_acknowledged() {
            return;
        }
        let solicitor = &mut self.solicitor;
        solicitor.timers = solicitor
            .waiting
            .keys()
            .map(|&rloc| (solicitor.resting.get(&rloc).map_or(now, |&until| until.max(now)), rloc))
            .collect();
        self.run_smrs(now);
    }

    /// One data-triggered SMR to `rloc`: `own` is not what it thinks. At most one per RLOC in 3 s.
    pub(super) fn solicit(
        &mut self,
        now: Instant,
        rloc: IpAddr,
        own: EidPrefix,
        remote: EidPrefix,
    ) {
        self.solicitor.resting.retain(|_, until| *until > now);
        self.solicitor.add(now, rloc, (own, remote));
        self.run_smrs(now);
    }

    /// Sends the SMRs that are due.
    pub(super) fn run_smrs(&mut self, now: Instant) {
        while let Some(&(due, rloc)) = self.solicitor.timers.first() {
            if due > now {
                return;
            }
            self.solicitor.timers.pop_first();
            let Some(waiting) = self.solicitor.waiting.get_mut(&rloc) else { continue };
            let next = waiting.pop_front();
            if waiting.is_empty() {
                self.solicitor.waiting.remove(&rloc);
            } else {
                self.solicitor.timers.insert((now + timers::SMR_INTERVAL, rloc));
            }
            if let Some((own, remote)) = next {
                self.solicitor.resting.insert(rloc, now + timers::SMR_INTERVAL);
                self.send_smr(rloc, own, remote);
            }
        }
    }

    /// SM-02, SM-09: straight to the RLOC, no answer wanted, the changed EID as source-EID, the remote one as record.
    fn send_smr(&mut self, rloc: IpAddr, own: EidPrefix, remote: EidPrefix) {
        let Some(source) = self.own.for_family(rloc) else { return };
        let nonce = self.next_nonce();
        let mut request = self.map_request(nonce, remote);
        (request.smr, request.dont_map_reply) = (true, true);
        request.source_eid = Address::from(&EidField::from(own.first().host_prefix()));
        self.count("smrs_sent");
        let payload = Message::MapRequest(request).to_vec();
        self.transmit(source, SourcePort::Control, SocketAddr::new(rloc, CONTROL_PORT), payload);
    }
}
