//! Lookups: Map-Requests sent, and the Map-Replies to them (RFC 9301 §5.2 to §5.5).
use super::limit::TokenBucket;
use super::map_cache::{Entry, Mapping, lifetime};
use super::secure::{PREFERRED, Protection};
use super::{ControlPlane, Event};
use crate::fib::Verdict;
use mapping::discard::Discard;
use mapping::eid::{Eid, EidPrefix};
use mapping::sec::{Authorized, Requested};
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{
    Action, Address, CONTROL_PORT, EidField, EidRecord, EncapsulatedControlMessage, MapReply,
    MapRequest, Message, RequestedEid,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Refreshes sent to the locators themselves (RQ-11) before the Map-Resolvers are asked: a site may let its Map-Server answer.
const DIRECT_TRIES: u32 = 3;
/// Lookups outstanding for others' sake, or for want of a locator: at one Map-Request each per second they leave half of the total rate to packets that go out.
const PENDING_FOR_OTHERS: usize = timers::MAP_REQUESTS_PER_SECOND as usize / 2;
/// Most ITR-RLOCs of one Map-Request (RQ-04).
const MAX_ITR_RLOCS: usize = 32;

/// Why an EID-prefix is being looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A packet from this source missed (RQ-07, RQ-09).
    Miss(IpAddr),
    /// A packet to this destination came through a tunnel from an EID that is to be verified (PE-04).
    Verify(IpAddr),
    /// Packets from an EID come from another RLOC than its mapping's.
    Moved,
    /// The entry is in use and about to expire (MC-25).
    Refresh,
    /// The entry has been of no use for a while, and packets use it.
    Doubted,
    /// An SMR came (SM-04).
    SmrInvoked,
    /// For a subscription, or to renew one (RFC 9437 §5).
    Subscribe,
    /// A host of a dynamic-EID range is away: is it still (DY-04)? Or: which hosts of an own EID-prefix are?
    Away,
}

impl Purpose {
    /// Between two Map-Requests for the same EID-prefix (RQ-12, SM-05).
    fn interval(self) -> Duration {
        match self {
            Self::Miss(_)
            | Self::Verify(_)
            | Self::Moved
            | Self::Refresh
            | Self::Doubted
            | Self::Subscribe
            | Self::Away => timers::MAP_REQUEST_INTERVAL,
            Self::SmrInvoked => timers::SMR_INVOKED_INTERVAL,
        }
    }

    /// Whether anyone in the core can bring it about, by lying about addresses, or one outage for many EID-prefixes at once.
    const fn is_for_others(self) -> bool {
        matches!(self, Self::Verify(_) | Self::Moved | Self::Doubted | Self::SmrInvoked)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Unanswered; `due` is the next transmission.
    Asking,
    /// Answered, or given up for now: nothing is sent before `due` (RQ-12, RQ-13).
    Resting,
}

#[derive(Debug)]
struct Lookup {
    purpose: Purpose,
    phase: Phase,
    due: Instant,
    last_sent: Option<Instant>,
    /// The first Map-Request of what is being asked.
    first_sent: Option<Instant>,
    sent: u32,
    /// Every Map-Request that may still be answered (RQ-14).
    outstanding: Vec<Outstanding>,
    /// The IDs to ask for next (SE-20).
    ids: Requested,
    /// Ask without LISP-SEC: no ETR of the EID-prefix can sign, and the configuration allows to do without (SE-22).
    unprotected: bool,
    /// The Map-Resolver to ask next.
    resolver: usize,
    /// Asked for again while resting.
    again: Option<Purpose>,
    /// Subscribing was refused: an answer will do.
    plain: bool,
}

/// A Map-Request on its way.
#[derive(Debug)]
struct Outstanding {
    nonce: u64,
    /// The Map-Resolver it went to, if any.
    via: Option<usize>,
    /// The turn among own RLOCs.
    way: usize,
    protection: Option<Protection>,
}

/// The outstanding lookups, by requested EID-prefix.
#[derive(Debug)]
pub(super) struct Lookups {
    lookups: BTreeMap<EidPrefix, Lookup>,
    timers: BTreeSet<(Instant, EidPrefix)>,
    nonces: HashMap<u64, EidPrefix>,
    /// What is being asked for others' sake.
    for_others: BTreeSet<EidPrefix>,
    bucket: TokenBucket,
    /// No Map-Request before: the bucket was empty.
    blocked: Option<Instant>,
    /// The Map-Resolver that answered last.
    preferred: usize,
    /// The turn among own RLOCs that got the last answer.
    way: usize,
}

impl Lookups {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lookups: BTreeMap::new(),
            timers: BTreeSet::new(),
            nonces: HashMap::new(),
            for_others: BTreeSet::new(),
            bucket: TokenBucket::new(now, timers::MAP_REQUESTS_PER_SECOND),
            blocked: None,
            preferred: 0,
            way: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lookups.values().filter(|lookup| lookup.phase == Phase::Asking).count()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let first = self.timers.first()?.0;
        Some(self.blocked.map_or(first, |blocked| first.max(blocked)))
    }

    /// Whether `prefix` is being asked for, and which Map-Resolver is next.
    pub(super) fn turn_of(&self, prefix: &EidPrefix) -> (bool, usize) {
        match self.lookups.get(prefix) {
            Some(lookup) => (lookup.phase == Phase::Asking, lookup.resolver),
            None => (false, self.preferred),
        }
    }

    /// Whether `prefix` is being asked for, or was lately.
    pub(super) fn is_known(&self, prefix: &EidPrefix) -> bool {
        self.lookups.contains_key(prefix)
    }

    /// The turn among own RLOCs of the Map-Request that is being sent.
    fn way_of(&self, prefix: &EidPrefix) -> usize {
        let tries = self.lookups.get(prefix).map_or(0, |lookup| lookup.sent.saturating_sub(1));
        self.way.wrapping_add(tries as usize)
    }

    /// What the Map-Request with this nonce asked for.
    pub(super) fn requested(&self, nonce: u64) -> Option<EidPrefix> {
        self.nonces.get(&nonce).copied()
    }

    /// Whether the Map-Request with this nonce went to an ETR itself.
    fn was_direct(&self, prefix: &EidPrefix, nonce: u64) -> bool {
        let direct = |sent: &Outstanding| sent.nonce == nonce && sent.via.is_none();
        self.lookups.get(prefix).is_some_and(|lookup| lookup.outstanding.iter().any(direct))
    }

    /// Asks at once where nobody could be asked so far: a pause after tries that were never sent spares nobody (RQ-13).
    pub(super) fn retry_now(&mut self, now: Instant) {
        let mut waiting = Vec::new();
        for (prefix, lookup) in &mut self.lookups {
            if lookup.last_sent.is_none() {
                (lookup.phase, lookup.sent) = (Phase::Asking, 0);
                waiting.push(*prefix);
            }
        }
        for prefix in waiting {
            self.reschedule(prefix, now);
        }
    }

    /// Whom is asked is another question now, or the operator wants to know: no pause after tries in vain is waited for.
    pub(super) fn end_pauses(&mut self, now: Instant) {
        let is_paused = |lookup: &Lookup| {
            lookup.phase == Phase::Resting && lookup.sent > timers::MAP_REQUEST_RETRIES
        };
        let paused = self.lookups.iter_mut().filter(|(_, lookup)| is_paused(lookup));
        let mut again = Vec::new();
        for (prefix, lookup) in paused {
            (lookup.phase, lookup.sent) = (Phase::Asking, 0);
            again.push(*prefix);
        }
        for prefix in again {
            self.reschedule(prefix, now);
        }
    }

    /// The Map-Resolvers are others now: the first of them comes first.
    pub(super) fn begin_with_the_first(&mut self) {
        self.preferred = 0;
        for lookup in self.lookups.values_mut() {
            lookup.resolver = 0;
        }
    }

    fn reschedule(&mut self, prefix: EidPrefix, due: Instant) {
        if let Some(lookup) = self.lookups.get_mut(&prefix) {
            self.timers.remove(&(lookup.due, prefix));
            lookup.due = due;
            self.timers.insert((due, prefix));
        }
    }

    fn forget_nonces(&mut self, prefix: &EidPrefix) {
        if let Some(lookup) = self.lookups.get_mut(prefix) {
            for outstanding in lookup.outstanding.drain(..) {
                self.nonces.remove(&outstanding.nonce);
            }
        }
    }

    /// What is asked for a prefix now is not heeded when it is answered: something newer is known. The next Map-Request for it keeps its
    /// distance (RQ-12).
    pub(super) fn void(&mut self, prefix: &EidPrefix) {
        let Some(lookup) = self.lookups.get_mut(prefix).filter(|l| l.phase == Phase::Asking) else {
            return;
        };
        (lookup.phase, lookup.sent) = (Phase::Resting, 0);
        let due = lookup.last_sent.map_or(lookup.due, |sent| sent + lookup.purpose.interval());
        self.for_others.remove(prefix);
        self.forget_nonces(prefix);
        self.reschedule(*prefix, due);
    }

    /// What protects the Map-Request with `nonce`.
    pub(super) fn protection(&self, prefix: &EidPrefix, nonce: u64) -> Option<&Protection> {
        let mut outstanding = self.lookups.get(prefix)?.outstanding.iter();
        outstanding.find(|outstanding| outstanding.nonce == nonce)?.protection.as_ref()
    }

    /// The IDs that the next Map-Request of a lookup asks for.
    pub(super) fn ask_for(&mut self, prefix: &EidPrefix, ids: Requested) {
        if let Some(lookup) = self.lookups.get_mut(prefix) {
            lookup.ids = ids;
        }
    }

    /// Goes on without LISP-SEC, at the usual distance from what was sent last.
    fn downgrade(&mut self, prefix: EidPrefix) {
        let Some(lookup) = self.lookups.get_mut(&prefix) else { return };
        (lookup.phase, lookup.sent, lookup.unprotected) = (Phase::Asking, 0, true);
        let due = lookup.last_sent.map_or(lookup.due, |sent| sent + lookup.purpose.interval());
        self.forget_nonces(&prefix);
        self.reschedule(prefix, due);
    }

    fn remove(&mut self, prefix: &EidPrefix) {
        self.forget_nonces(prefix);
        self.for_others.remove(prefix);
        if let Some(lookup) = self.lookups.remove(prefix) {
            self.timers.remove(&(lookup.due, *prefix));
        }
    }
}

impl ControlPlane {
    /// A packet for `destination` found no mapping (MC-02).
    pub(super) fn handle_miss(&mut self, now: Instant, destination: Eid, source: IpAddr) {
        match self.cache.lookup(destination) {
            Some((prefix, entry)) if !entry.verdict.is_miss() => self.ask_if_doubted(now, prefix),
            _ => self.start_lookup(now, destination.host_prefix(), Purpose::Miss(source)),
        }
    }

    /// Somebody sends from an RLOC that is none of the mapping's: it may have changed.
    pub(super) fn handle_moved(&mut self, now: Instant, source: Eid) {
        if let Some((prefix, _)) = self.cache.lookup(source) {
            self.start_lookup(now, prefix, Purpose::Moved);
        }
    }

    /// A packet for `destination` came through a tunnel from `source`, of which nothing is known.
    pub(super) fn handle_unknown_source(&mut self, now: Instant, source: Eid, destination: IpAddr) {
        if self.cache.lookup(source).is_none_or(|(_, entry)| matches!(entry.verdict, Verdict::Miss))
        {
            self.start_lookup(now, source.host_prefix(), Purpose::Verify(destination));
        }
    }

    /// A mapping is about to expire (MC-25).
    pub(super) fn refresh_if_used(&mut self, now: Instant, prefix: EidPrefix) {
        if self.cache.get(&prefix).is_some_and(Entry::is_in_use) {
            self.start_lookup(now, prefix, Purpose::Refresh);
        }
    }

    /// Starts or joins a lookup (RQ-22).
    pub(super) fn start_lookup(&mut self, now: Instant, prefix: EidPrefix, purpose: Purpose) {
        if let Some(lookup) = self.lookups.lookups.get_mut(&prefix) {
            let repeat = match lookup.phase {
                // A pause after ten tries is not cut short (RQ-13).
                Phase::Resting => lookup.sent <= timers::MAP_REQUEST_RETRIES,
                // The answer under way may be older than the change that the SMR tells of.
                Phase::Asking => purpose == Purpose::SmrInvoked,
            };
            if repeat {
                lookup.again = Some(purpose);
            }
            if purpose == Purpose::SmrInvoked {
                self.discard(Discard::SmrRateLimited);
            }
            return;
        }
        if self.lookups.lookups.len() >= timers::PENDING_LOOKUPS {
            return self.discard(Discard::PendingFull);
        }
        if purpose.is_for_others() {
            if self.lookups.for_others.len() >= PENDING_FOR_OTHERS {
                return self.discard(Discard::PendingFull);
            }
            self.lookups.for_others.insert(prefix);
        }
        let resolver = self.lookups.preferred;
        self.lookups.lookups.insert(prefix, Lookup::new(purpose, now, resolver));
        self.lookups.timers.insert((now, prefix));
        self.run_lookups(now);
    }

    /// Sends what is due, as far as the total rate allows (RQ-23).
    pub(super) fn run_lookups(&mut self, now: Instant) {
        self.lookups.blocked = None;
        while let Some(&(due, prefix)) = self.lookups.timers.first() {
            if due > now {
                return;
            }
            let Some(lookup) = self.lookups.lookups.get_mut(&prefix) else {
                self.lookups.timers.pop_first();
                continue;
            };
            if lookup.phase == Phase::Resting {
                let Some(purpose) = lookup.again else {
                    self.lookups.remove(&prefix);
                    continue;
                };
                *lookup = Lookup::new(purpose, due, self.lookups.preferred);
                if purpose.is_for_others() {
                    self.lookups.for_others.insert(prefix);
                }
            }
            if let Err(later) = self.lookups.bucket.take(now) {
                self.lookups.blocked = Some(later);
                self.discard(Discard::MapRequestRateLimited);
                return;
            }
            self.ask(now, prefix);
        }
    }

    /// One transmission of a lookup, or its end.
    fn ask(&mut self, now: Instant, prefix: EidPrefix) {
        let Some(lookup) = self.lookups.lookups.get_mut(&prefix) else { return };
        if lookup.sent > timers::MAP_REQUEST_RETRIES {
            lookup.phase = Phase::Resting;
            self.lookups.for_others.remove(&prefix);
            let until = lookup.last_sent.unwrap_or(now) + timers::MAP_REQUEST_PAUSE;
            self.lookups.forget_nonces(&prefix);
            self.lookups.reschedule(prefix, until);
            return self.event(Event::LookupUnanswered(prefix));
        }
        let purpose = lookup.purpose;
        let (plain, sent) = (lookup.plain, lookup.sent + 1);
        lookup.sent = sent;
        let (try_number, resolver) = (sent as usize - 1, lookup.resolver);
        let subscribe = !plain && self.subscribes();
        // What an ETR says directly proves nothing: with LISP-SEC the Map-Resolvers are asked.
        // A subscription goes through the mapping system; where nobody is there, the ETRs know their mapping still.
        let direct = matches!(purpose, Purpose::Refresh | Purpose::Moved)
            && !self.is_protected()
            && match subscribe {
                true => sent > DIRECT_TRIES && sent % 2 == 0,
                false => sent <= DIRECT_TRIES,
            };
        self.lookups.reschedule(prefix, now + purpose.interval());
        let nonce = match subscribe && !direct {
            true => self.subscription_nonce(now, &prefix, sent),
            false => self.next_nonce(),
        };
        let rlocs = if direct { self.usable_locators(&prefix) } else { Vec::new() };
        let resolvers = self.map_resolvers();
        let (via, protection) = if let Some(&rloc) = rlocs.get(try_number % rlocs.len().max(1)) {
            self.send_direct_request(prefix, nonce, rloc);
            (None, None)
        } else if let Some(&address) = resolvers.get(resolver % resolvers.len().max(1)) {
            let protection =
                self.send_encapsulated_request(prefix, purpose, nonce, subscribe, address);
            (Some(resolver % resolvers.len()), protection)
        } else {
            return;
        };
        self.lookups.nonces.insert(nonce, prefix);
        let way = self.lookups.way_of(&prefix);
        if let Some(lookup) = self.lookups.lookups.get_mut(&prefix) {
            lookup.last_sent = Some(now);
            lookup.first_sent.get_or_insert(now);
            lookup.outstanding.push(Outstanding { nonce, via, way, protection });
            if via.is_some() {
                lookup.resolver = resolver.wrapping_add(1); // RQ-21.
            }
        }
    }

    /// Map-Resolver addresses of our families, in the order of the configuration.
    pub(super) fn map_resolvers(&self) -> Vec<IpAddr> {
        self.config.map_resolvers.iter().flat_map(|endpoint| self.addresses_of(endpoint)).collect()
    }

    fn usable_locators(&self, prefix: &EidPrefix) -> Vec<IpAddr> {
        match self.cache.get(prefix).map(|entry| (&entry.verdict, entry.to_petr)) {
            Some((Verdict::Encapsulate(set), false)) => {
                set.adjacencies.iter().map(|adjacency| adjacency.destination).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A Map-Request of ours for one prefix (RQ-02, RQ-05, RQ-15 to RQ-17).
    pub(super) fn map_request(&self, nonce: u64, prefix: EidPrefix) -> MapRequest {
        let itr_rlocs = self.own.reachable().take(MAX_ITR_RLOCS).map(Address::from).collect();
        let mut request = MapRequest::new(nonce, itr_rlocs, vec![RequestedEid::new(prefix)]);
        request.pitr = self.is_proxy();
        request
    }

    /// A Map-Request of ours whose answer is to come to `source`.
    pub(super) fn map_request_from(
        &self,
        source: IpAddr,
        nonce: u64,
        prefix: EidPrefix,
    ) -> MapRequest {
        let mut request = self.map_request(nonce, prefix);
        // The first of the replier's family is taken (RP-03).
        request.itr_rlocs.sort_by_key(|rloc| rloc.rloc() != Some(source));
        request
    }

    /// RQ-11.
    fn send_direct_request(&mut self, prefix: EidPrefix, nonce: u64, rloc: IpAddr) {
        let Some(source) = self.source_towards(rloc) else { return };
        let request = self.map_request_from(source, nonce, prefix);
        let payload = Message::MapRequest(request).to_vec();
        self.count("map_requests_sent");
        let destination = SocketAddr::new(rloc, CONTROL_PORT);
        self.transmit(source, SourcePort::Control, destination, payload);
    }

    /// RQ-10, EC-01, EC-05.
    fn send_encapsulated_request(
        &mut self,
        prefix: EidPrefix,
        purpose: Purpose,
        nonce: u64,
        subscribe: bool,
        resolver: IpAddr,
    ) -> Option<Protection> {
        // An answer that did not come may have gone a way that is dead.
        let source = self.own.in_turn(resolver, self.lookups.way_of(&prefix))?;
        let mut request = self.map_request_from(source, nonce, prefix);
        if subscribe {
            self.ask_for_subscription(&mut request);
        }
        request.smr_invoked = purpose == Purpose::SmrInvoked;
        let eid = prefix.first();
        let mut inner_source = self.own.for_family(eid.address);
        if let Purpose::Miss(packet_source) | Purpose::Verify(packet_source) = purpose {
            let source_eid = Eid::new(eid.instance_id, packet_source).host_prefix();
            request.source_eid = Address::from(&EidField::from(source_eid));
            if packet_source.is_ipv4() == eid.address.is_ipv4() {
                inner_source = inner_source.or(Some(packet_source));
            }
        }
        // The inner header has the family of the EID; its source matters to nobody (RP-03).
        let inner_source = SocketAddr::new(inner_source.unwrap_or(eid.address), CONTROL_PORT);
        let inner_destination = SocketAddr::new(eid.address, CONTROL_PORT);
        let inner = Message::MapRequest(request).to_vec();
        let mut ecm = EncapsulatedControlMessage::new(inner_source, inner_destination, inner);
        let ids = self.lookups.lookups.get(&prefix).filter(|lookup| !lookup.unprotected);
        let ids = ids.map(|lookup| lookup.ids);
        let protection = ids.and_then(|ids| self.protect(&mut ecm, nonce, ids));
        self.count("map_requests_sent");
        let destination = SocketAddr::new(resolver, CONTROL_PORT);
        let payload = Message::Encapsulated(ecm).to_vec();
        self.transmit(source, SourcePort::Ephemeral, destination, payload);
        protection
    }

    /// A Map-Reply: to a probe or to a lookup, by its nonce (MC-06). `octets` are all of it.
    pub(super) fn handle_map_reply(
        &mut self,
        now: Instant,
        from: IpAddr,
        reply: &MapReply,
        octets: &[u8],
    ) {
        if self.handle_path_reply(now, reply.nonce) {
            return;
        }
        if self.resolver_watch.handle_reply(now, reply.nonce) {
            return self.count("resolver_checks_answered");
        }
        if reply.probe {
            return self.handle_probe_reply(now, from, reply);
        }
        let Some(&requested) = self.lookups.nonces.get(&reply.nonce) else {
            return self.discard(Discard::NonceUnknown);
        };
        let authorized = match self.verify_reply(requested, reply.nonce, octets) {
            Ok(authorized) => authorized,
            Err(reason) => return self.refuse_reply(now, requested, from, reason),
        };
        let cant_sign = authorized.as_ref().is_some_and(|authorized| authorized.etr_cant_sign);
        if cant_sign
            && !self.requires_protection()
            && reply.records.iter().all(EidRecord::is_negative)
        {
            self.count("lisp_sec_downgrades");
            return self.lookups.downgrade(requested);
        }
        let records = self.acceptable(now, from, requested, &reply.records, authorized.as_ref());
        if records.is_empty() {
            // Sites now lie within what was nobody's: the entry goes when its time comes, and the next packet asks for its own EID.
            let entry = self.cache.get(&requested);
            if entry.is_some_and(|entry| entry.mapping.locators().is_empty()) {
                self.answered(requested, reply.nonce);
            }
            return;
        }
        self.count("map_replies_received");
        if authorized.is_some() {
            self.count("protected_map_replies_received");
        }
        if !self.lookups.was_direct(&requested, reply.nonce)
            && self.subscription_denied(now, requested, &records)
            && self.ask_plainly(requested, reply.nonce)
        {
            return;
        }
        self.note_resolution(now, &requested);
        self.answered(requested, reply.nonce);
        self.apply_records(now, requested, &records);
        for (prefix, _) in &records {
            if let Some(entry) = self.cache.get_mut(prefix) {
                entry.secured = authorized.is_some();
            }
        }
        self.note_echo_offer(now, reply);
    }

    /// A Map-Reply answers what was asked since the first Map-Request.
    fn note_resolution(&mut self, now: Instant, requested: &EidPrefix) {
        let lookup = self.lookups.lookups.get_mut(requested);
        if let Some(first) = lookup.and_then(|lookup| lookup.first_sent.take()) {
            self.measured.resolved(now.saturating_duration_since(first));
        }
    }

    /// Asks again without subscribing; false if that was done already.
    fn ask_plainly(&mut self, requested: EidPrefix, nonce: u64) -> bool {
        let Some(lookup) = self.lookups.lookups.get(&requested).filter(|l| !l.plain) else {
            return false;
        };
        let (due, purpose) = (lookup.due, lookup.purpose);
        self.count("subscriptions_refused");
        self.event(Event::SubscriptionRefused(requested));
        self.answered(requested, nonce);
        if let Some(lookup) = self.lookups.lookups.get_mut(&requested) {
            *lookup = Lookup {
                plain: true,
                due: lookup.due,
                last_sent: lookup.last_sent,
                ..Lookup::new(purpose, lookup.due, self.lookups.preferred)
            };
        }
        self.lookups.reschedule(requested, due);
        true
    }

    /// The records of a reply that concern the request (MC-32) and that its Map-Server vouches for (SE-21), least specific first.
    pub(super) fn acceptable(
        &mut self,
        now: Instant,
        from: IpAddr,
        requested: EidPrefix,
        received: &[EidRecord],
        authorized: Option<&Authorized>,
    ) -> Vec<(EidPrefix, EidRecord)> {
        let mut records = Vec::new();
        for record in received {
            let Some(claimed) = record.eid.prefix() else {
                self.discard(Discard::UnsupportedEid);
                continue;
            };
            match authorized.map_or(Some(claimed), |by| by.intersection(&claimed)) {
                Some(prefix) => records.push((prefix, record.clone())),
                None => self.refuse_reply(now, claimed, from, Discard::PrefixOverclaimed),
            }
        }
        records.sort_by_key(|(prefix, _)| (prefix.mask_len(), *prefix));
        records.dedup_by_key(|(prefix, _)| *prefix);
        let covering: Vec<EidPrefix> =
            records.iter().map(|(prefix, _)| *prefix).filter(|p| p.covers(&requested)).collect();
        let total = records.len();
        records.retain(|(prefix, _)| covering.iter().any(|covering| covering.covers(prefix)));
        for _ in records.len()..total {
            self.discard(Discard::ReplyPrefixMismatch);
        }
        records
    }

    /// Ends a lookup (RQ-14); the next Map-Request for this prefix still keeps its distance (RQ-12).
    pub(super) fn answered(&mut self, requested: EidPrefix, nonce: u64) {
        let Some(lookup) = self.lookups.lookups.get_mut(&requested) else { return };
        let answering = lookup.outstanding.iter().find(|sent| sent.nonce == nonce);
        if let Some((resolver, way)) = answering.and_then(|sent| Some((sent.via?, sent.way))) {
            (self.lookups.preferred, self.lookups.way) = (resolver, way);
        }
        lookup.phase = Phase::Resting;
        lookup.sent = 0;
        let rest = lookup.purpose.interval();
        let until = lookup.last_sent.map_or(lookup.due, |sent| sent + rest);
        self.lookups.for_others.remove(&requested);
        self.lookups.forget_nonces(&requested);
        self.lookups.reschedule(requested, until);
    }

    /// Brings the records of a Map-Reply into the map-cache (MC-03 to MC-09).
    pub(super) fn apply_records(
        &mut self,
        now: Instant,
        requested: EidPrefix,
        records: &[(EidPrefix, EidRecord)],
    ) {
        // A request for a cached prefix asks whether it still exists; a miss asks nothing about its neighbours.
        let was_cached = self.cache.get(&requested).is_some();
        for (prefix, record) in records {
            if self.host_looked_up(now, requested, *prefix, record)
                || self.is_of_own(&requested, prefix)
            {
                continue;
            }
            if record.ttl_minutes == 0 {
                self.remove_entry(now, prefix);
                continue;
            }
            let within: Vec<(EidPrefix, Instant)> = self
                .cache
                .more_specifics(prefix)
                .map(|(found, entry)| (found, entry.expires))
                .filter(|(found, _)| records.iter().all(|(listed, _)| listed != found))
                .filter(|(found, _)| *found == requested || !self.has_subscription(found))
                // Who has the covering EID-prefix does not know where hosts went.
                .filter(|(found, _)| *found == requested || !self.mobility.is_away(found))
                .collect();
            let mut expires = now + lifetime(record.ttl_minutes);
            let is_wider = was_cached && *prefix != requested && prefix.covers(&requested);
            // The record is the longest match of what was asked for: what is cached between the two is no mapping any more.
            let (gone, within): (Vec<_>, Vec<_>) =
                within.into_iter().partition(|(found, _)| is_wider || found.covers(&requested));
            for (found, _) in gone {
                self.remove_entry(now, &found);
            }
            if is_wider {
                // Nothing is left inside it.
            } else if self.cache.get(prefix).is_some() {
                // A refresh: repliers that leave out more-specifics are common, what they say of theirs still holds.
            } else if let Some(earliest) = within.iter().map(|(_, expires)| *expires).min() {
                expires = expires.min(earliest);
            }
            let mapping = Mapping::from_record(record, &self.own);
            if matches!(mapping, Mapping::Negative(Action::Unassigned(_))) {
                self.count("unassigned_actions");
            }
            self.install_entry(now, *prefix, mapping, expires);
            self.note_version(now, *prefix, record.map_version);
        }
    }
}

impl Lookup {
    fn new(purpose: Purpose, due: Instant, resolver: usize) -> Self {
        Self {
            purpose,
            phase: Phase::Asking,
            due,
            last_sent: None,
            first_sent: None,
            sent: 0,
            outstanding: Vec::new(),
            ids: PREFERRED,
            unprotected: false,
            resolver,
            again: None,
            plain: purpose == Purpose::Away,
        }
    }
}
