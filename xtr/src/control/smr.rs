//! Solicit-Map-Requests: received from those whose mappings changed, sent when own mappings change (RFC 9301 §6.1).
use super::itr::Purpose;
use super::limit::TokenBucket;
use super::{ControlPlane, Event};
use crate::fib::Verdict;
use mapping::discard::Discard;
use mapping::eid::{EidPrefix, InstanceId};
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
/// RLOCs that SMRs wait for; more are left to expiry, probing and the next packet.
const MAX_RLOCS: usize = 65_536;
/// SMRs per second of one node in total: a change that concerns every correspondent, or packets from spoofed sources, must not make a
/// flood.
const SMRS_PER_SECOND: u32 = 1_000;

/// An SMR to send: the own EID-prefix that changed, and the EID-prefix behind the RLOC. For a PITR, which has none behind it, that is the
/// own one again.
type Solicitation = (EidPrefix, EidPrefix);

/// SMRs to be sent, at most one per RLOC in 3 s (SM-03).
#[derive(Debug)]
pub(super) struct Solicitor {
    waiting: BTreeMap<IpAddr, VecDeque<Solicitation>>,
    /// When each RLOC of `waiting` has its turn.
    timers: BTreeSet<(Instant, IpAddr)>,
    /// RLOCs that had an SMR: until when they get no other, and what it was about.
    resting: BTreeMap<IpAddr, (Instant, EidPrefix)>,
    /// The same, in the order of time.
    rested: VecDeque<(Instant, IpAddr)>,
    bucket: TokenBucket,
    /// No SMR before: the bucket was empty.
    blocked: Option<Instant>,
}

impl Solicitor {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            timers: BTreeSet::new(),
            resting: BTreeMap::new(),
            rested: VecDeque::new(),
            bucket: TokenBucket::new(now, SMRS_PER_SECOND),
            blocked: None,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let first = self.timers.first()?.0;
        Some(self.blocked.map_or(first, |blocked| first.max(blocked)))
    }

    /// Lets an SMR wait for `due` and for its RLOC's turn; false if there is no room.
    fn add(&mut self, due: Instant, rloc: IpAddr, what: Solicitation) -> bool {
        if self.waiting.len() >= MAX_RLOCS && !self.waiting.contains_key(&rloc) {
            return false;
        }
        let waiting = self.waiting.entry(rloc).or_default();
        if waiting.is_empty() {
            let due = self.resting.get(&rloc).map_or(due, |&(until, _)| due.max(until));
            self.timers.insert((due, rloc));
        }
        let known = waiting.iter().any(|(own, _)| *own == what.0);
        if !known && waiting.len() < MAX_WAITING {
            waiting.push_back(what);
            return true;
        }
        known
    }

    /// Whether the RLOC heard of this EID-prefix less than 3 s ago.
    fn has_just_heard(&self, now: Instant, rloc: IpAddr, own: &EidPrefix) -> bool {
        self.resting.get(&rloc).is_some_and(|(until, heard)| *until > now && heard == own)
    }

    fn rest(&mut self, until: Instant, rloc: IpAddr, own: EidPrefix) {
        self.resting.insert(rloc, (until, own));
        self.rested.push_back((until, rloc));
    }

    /// Forgets who has rested long enough.
    fn purge(&mut self, now: Instant) {
        while let Some(&(until, rloc)) = self.rested.front()
            && until <= now
        {
            self.rested.pop_front();
            self.resting.remove(&rloc);
        }
    }
}

impl ControlPlane {
    /// Verifies through the mapping system whatever an SMR says changed; the SMR itself changes nothing (SM-04, SM-07). Anyone may
    /// send one: a Map-Server does it for its sites.
    pub(super) fn handle_smr(&mut self, now: Instant, from: IpAddr, request: &MapRequest) {
        self.count("smrs_received");
        // SM-08: deployed senders put the changed EID in the source-EID; RFC 6830 means the record.
        let source = request.source_eid.eid().map(|eid| self.to_verify(eid.host_prefix()));
        let prefixes: Vec<EidPrefix> = match source.flatten() {
            Some(prefix) => vec![prefix],
            None => request
                .records
                .iter()
                .filter_map(|record| record.eid.prefix())
                .filter_map(|prefix| self.to_verify(prefix))
                .collect(),
        };
        if prefixes.is_empty() {
            return self.discard(Discard::SmrWithoutCacheEntry);
        }
        for prefix in prefixes {
            self.event(Event::SmrReceived { prefix, from });
            self.start_lookup(now, prefix, Purpose::SmrInvoked);
        }
    }

    /// What to ask for when an SMR tells that `told` changed: the mapping in the map-cache; what was told if that lies further inside, since
    /// it may have a mapping of its own by now; nothing if neither is in use (SM-06).
    fn to_verify(&self, told: EidPrefix) -> Option<EidPrefix> {
        let (cached, _) = self.cache.longest_match(&told)?;
        Some(if cached.first() == told.first() { cached } else { told })
    }

    /// Tells `rloc`, which still sends for `own` although that EID-prefix is elsewhere now, to ask for it anew: one data-triggered SMR.
    /// `remote` is the EID-prefix behind `rloc`, `own` again if it is not known. Nothing happens if it was told in the last 3 s; what is
    /// new to it waits for its turn (SM-03).
    pub fn solicit(&mut self, now: Instant, rloc: IpAddr, own: EidPrefix, remote: EidPrefix) {
        if self.own.is_martian(rloc) || self.own.contains(rloc) {
            return;
        }
        if !self.solicitor.has_just_heard(now, rloc, &own) {
            self.enqueue_smr(now, rloc, (own, remote));
            self.run_smrs(now);
        }
    }

    /// Own mappings changed: tells every remote RLOC that got data in the last minute or that data came from, and every configured PITR (SM-01). To an RLOC go those
    /// of the family and instance of the EIDs behind it. `clock` is the clock of [`LocatorSet::last_used`](crate::fib::LocatorSet).
    pub fn solicit_changed(&mut self, now: Instant, clock: u32, changed: &[EidPrefix]) {
        let due = if self.is_all_acknowledged() { now } else { now + SETTLE };
        for ((rloc, ..), remote) in self.correspondents(now, clock, changed) {
            for own in changed.iter().filter(|own| is_same_kind(own, &remote)) {
                let behind = if self.is_pitr(rloc) { *own } else { remote };
                self.enqueue_smr(due, rloc, (*own, behind));
            }
        }
        for rloc in self.proxy_itrs() {
            for own in changed {
                self.enqueue_smr(due, rloc, (*own, *own));
            }
        }
        self.run_smrs(now);
    }

    fn enqueue_smr(&mut self, due: Instant, rloc: IpAddr, what: Solicitation) {
        if !self.solicitor.add(due, rloc, what) {
            self.count("smrs_not_sent");
        }
    }

    /// The RLOCs that got data in the last minute from EIDs of the kinds that changed, or sent it to them, each with one of the EID-prefixes
    /// behind it per kind.
    fn correspondents(
        &mut self,
        now: Instant,
        clock: u32,
        changed: &[EidPrefix],
    ) -> BTreeMap<(IpAddr, InstanceId, bool), EidPrefix> {
        let active = u32::try_from(timers::SMR_ACTIVE_PERIOD.as_secs()).unwrap_or(u32::MAX);
        let mut found = BTreeMap::new();
        let kind = |remote: &EidPrefix| (remote.instance_id(), remote.prefix().addr().is_ipv4());
        for (remote, entry) in self.cache.iter() {
            let Verdict::Encapsulate(set) = &entry.verdict else { continue };
            let last_used = entry.last_used();
            let is_active = last_used != 0 && clock.saturating_sub(last_used) <= active;
            if !is_active || !changed.iter().any(|own| is_same_kind(own, &remote)) {
                continue;
            }
            let (instance_id, is_ipv4) = kind(&remote);
            for adjacency in &set.adjacencies {
                found.entry((adjacency.destination, instance_id, is_ipv4)).or_insert(remote);
            }
        }
        let formerly = self.formerly_used(clock.saturating_sub(active), changed);
        for (rloc, remote) in formerly.into_iter().chain(self.heard_lately(now, changed)) {
            let (instance_id, is_ipv4) = kind(&remote);
            found.entry((rloc, instance_id, is_ipv4)).or_insert(remote);
        }
        found
    }

    /// Whether what lies behind an RLOC is the non-LISP Internet: a PETR gets data, and the PITR that it often is caches our EIDs.
    pub(super) fn is_pitr(&self, rloc: IpAddr) -> bool {
        self.petrs.iter().any(|petr| petr.address == rloc)
    }

    /// The addresses of the configured PITRs.
    fn proxy_itrs(&self) -> Vec<IpAddr> {
        self.config.proxy_itrs.iter().flat_map(|endpoint| self.addresses_of(endpoint)).collect()
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
            .map(|&rloc| {
                let due = solicitor.resting.get(&rloc).map_or(now, |&(until, _)| until.max(now));
                (due, rloc)
            })
            .collect();
        self.run_smrs(now);
    }

    /// Sends the SMRs that are due.
    pub(super) fn run_smrs(&mut self, now: Instant) {
        self.solicitor.purge(now);
        self.solicitor.blocked = None;
        while let Some(&(due, rloc)) = self.solicitor.timers.first() {
            if due > now {
                return;
            }
            if let Err(later) = self.solicitor.bucket.take(now) {
                self.solicitor.blocked = Some(later);
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
                self.solicitor.rest(now + timers::SMR_INTERVAL, rloc, own);
                self.send_smr(rloc, own, remote);
            }
        }
    }

    /// SM-02, SM-09: straight to the RLOC, no answer wanted, the changed EID as source-EID, the remote one as record.
    fn send_smr(&mut self, rloc: IpAddr, own: EidPrefix, remote: EidPrefix) {
        let Some(source) = self.source_towards(rloc) else { return };
        let nonce = self.next_nonce();
        let mut request = self.map_request(nonce, remote);
        (request.smr, request.dont_map_reply) = (true, true);
        request.source_eid = Address::from(&EidField::from(own.first().host_prefix()));
        self.count("smrs_sent");
        self.event(Event::SmrSent { prefix: own, rloc });
        let payload = Message::MapRequest(request).to_vec();
        self.transmit(source, SourcePort::Control, SocketAddr::new(rloc, CONTROL_PORT), payload);
    }
}

/// Whether packets go between two EID-prefixes: of one instance and one family.
pub(super) fn is_same_kind(one: &EidPrefix, other: &EidPrefix) -> bool {
    one.instance_id() == other.instance_id()
        && one.prefix().addr().is_ipv4() == other.prefix().addr().is_ipv4()
}
