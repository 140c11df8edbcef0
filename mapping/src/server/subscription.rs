//! Publish and subscribe: xTRs that are told of every change of a mapping (RFC 9437).
//!
//! A subscription is to the EID-prefix that the lookup was answered with: a registered one, the part of one that has no registered
//! more-specifics, or a hole; a lookup of a prefix that holds several registered ones subscribes to itself. What is published is
//! the mapping as it is when its turn comes, so changes in quick succession become one Map-Notify.

pub(super) mod kept;
mod keyring;
mod publisher;
mod table;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::auth;
use crate::config::{MappingConfig, SubscriptionLimits};
use crate::discard::Discard;
use crate::eid::EidPrefix;
use crate::limits::{Rate, Scatter, ScatteredBuckets};
use crate::resolver::{Lookup, shrink};
use crate::sec::{self, Otk};
use crate::timers::{self, control_payload_limit};
use crate::transmit::{SourcePort, Transmit};
use crate::view::SubscriptionView;
use crate::wire::{
    Action, AuthenticationData, CONTROL_PORT, EidRecord, LocatorRecord, MapNotify, MapNotifyAck,
    XtrIdentity,
};

use super::event::Event;
use super::request::{Answer, Told};
use super::site::Signer;
use super::views::seconds;
use super::{Count, MapServer};

use keyring::{Keyring, UsedKeys};
use publisher::{Due, Publication, Publisher, Sent};
use table::{Association, Subscription, Table};

/// At most what a record takes without its locators.
const RECORD_LEN: usize = 48;
/// Records that go into one Map-Notify are fewer.
const MAX_PARTS: usize = 80;

/// What became of a record with the N-bit.
#[derive(Debug)]
pub(super) enum Subscribing {
    /// A Map-Notify answers it, or nothing does.
    Done,
    /// The Map-Reply has this record (PS-09).
    Refused(EidRecord),
    /// Answered as if it had no N-bit.
    Impossible,
}

/// Why there is no subscription.
enum Obstacle {
    Silence(Discard),
    Refusal(Discard, Action),
    Ordinary(Option<Discard>),
}

/// Subscriptions and what is on its way to subscribers.
#[derive(Debug)]
pub(super) struct Subscriptions {
    limits: SubscriptionLimits,
    table: Table,
    keyring: Keyring,
    used_keys: UsedKeys,
    requests: ScatteredBuckets,
    publisher: Publisher,
}

impl Subscriptions {
    pub(super) fn new(config: &MappingConfig, scatter: Scatter) -> Self {
        let limits = config.subscriptions;
        let rate = Rate::new(timers::SUBSCRIPTIONS_PER_SECOND, timers::SUBSCRIPTIONS_BURST);
        Self {
            limits,
            table: Table::default(),
            keyring: Keyring::new(config),
            used_keys: UsedKeys::default(),
            requests: ScatteredBuckets::new(rate, timers::TRACKED_SUBSCRIBERS, scatter),
            publisher: Publisher::new(limits.notifies_per_second),
        }
    }

    /// Takes over the keys and bounds of another configuration. A subscription whose key is gone ends when there is something to publish.
    pub(super) fn reconfigure(&mut self, config: &MappingConfig) {
        self.keyring = Keyring::new(config);
        if self.limits != config.subscriptions {
            self.limits = config.subscriptions;
            self.publisher.set_pace(self.limits.notifies_per_second);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.publisher.queued()
    }

    pub(super) fn pending(&self) -> usize {
        self.publisher.pending()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.table.next_end(), self.publisher.next_due()].into_iter().flatten().min()
    }

    /// Whether there is no room for another Map-Notify, or, if one `adds`, for another subscription (PS-19).
    fn is_full(&self, adds: bool) -> bool {
        (adds && self.len() >= self.limits.max)
            || self.pending() >= timers::MAX_PENDING_PUBLICATIONS
    }

    /// What Map-Notifies to `xtr` are signed with; `Err` when its key is no more.
    fn signer(&self, xtr: XtrIdentity, association: &Association) -> Result<Option<Signer>, ()> {
        match association {
            Association::Configured => self.keyring.signer(xtr.site_id).map(Some).ok_or(()),
            Association::Derived(key) => Ok(Some(keyring::derived_signer(key))),
            Association::Unauthenticated => Ok(None),
        }
    }
}

/// What a lookup with the N-bit is about.
struct Subject {
    prefix: EidPrefix,
    records: Vec<EidRecord>,
    /// Some registered more-specifics do not fit in the first Map-Notify.
    more: bool,
    /// Nothing is registered there.
    hole: bool,
}

impl MapServer {
    /// Takes a record with the N-bit of a Map-Request (RFC 9437 §5).
    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        from: SocketAddr,
        lookup: &Lookup,
        asked: &EidPrefix,
    ) -> Subscribing {
        let Some(xtr) = lookup.request.identity else { return Subscribing::Impossible };
        let outcome = if lookup.request.unsubscribes() {
            self.unsubscribe_now(now, from, lookup, xtr, asked)
        } else {
            self.subscribe_now(now, from, lookup, xtr, asked)
        };
        match outcome {
            Ok(()) => Subscribing::Done,
            Err(Obstacle::Silence(reason)) => {
                self.discard(from.ip(), reason);
                Subscribing::Done
            }
            Err(Obstacle::Refusal(reason, action)) => {
                self.discard(from.ip(), reason);
                Subscribing::Refused(EidRecord::negative(*asked, action, self.hole_ttl_minutes()))
            }
            Err(Obstacle::Ordinary(reason)) => {
                if let Some(reason) = reason {
                    self.discard(from.ip(), reason);
                }
                Subscribing::Impossible
            }
        }
    }

    /// Tells the subscribers of `prefix` what became of its mapping: to call after every change and removal in the registry.
    pub(super) fn mapping_changed(&mut self, now: Instant, prefix: EidPrefix) {
        if self.subscriptions.len() == 0 {
            return;
        }
        let registered = self.registry.get(&prefix).is_some();
        let mut publications = Vec::new();
        for (xtr, subscribed) in self.subscriptions.table.audience(&prefix) {
            if subscribed == prefix {
                self.end_by_itself(now, prefix, xtr, !registered);
            }
            publications.push(Publication { xtr, subscribed, prefix, inherited: false });
        }
        // Subscriptions to parts of it.
        for part in self.subscriptions.table.within(&prefix) {
            let governing = self.registered(&part).map(|(governing, _)| governing);
            if governing.is_some_and(|governing| governing.mask_len() > prefix.mask_len()) {
                continue;
            }
            for xtr in self.subscriptions.table.subscribers(&part) {
                self.end_by_itself(now, part, xtr, governing.is_none());
                publications.push(Publication {
                    xtr,
                    subscribed: part,
                    prefix: part,
                    inherited: true,
                });
            }
        }
        for publication in &publications {
            self.subscriptions.publisher.enqueue(now, *publication);
        }
        self.publish(now);
        self.keep_waiting(&publications);
    }

    pub(super) fn handle_publication_ack(
        &mut self,
        now: Instant,
        from: SocketAddr,
        ack: &MapNotifyAck,
        octets: &[u8],
    ) {
        match self.subscriptions.publisher.acknowledge(ack, octets) {
            Ok(Publication { xtr, subscribed, .. }) => {
                self.count(Count::PublicationAcks);
                self.tell_the_rest(now, xtr, subscribed);
                self.settle(xtr, &subscribed);
            }
            Err(reason) => self.refuse_notify_ack(from, ack, reason),
        }
    }

    /// Ends what has outlived itself, repeats what is not acknowledged, sends what waits for its turn.
    pub(super) fn handle_due_subscriptions(&mut self, now: Instant) {
        while let Some((prefix, xtr)) = self.subscriptions.table.ended(now) {
            self.count(Count::SubscriptionsRemoved);
            self.remove_subscription(&prefix, xtr, "nothing was registered for its lifetime");
        }
        while let Some(due) = self.subscriptions.publisher.take_due(now) {
            match due {
                Due::Retransmit(transmit) => {
                    self.count(Count::PublicationRetransmissions);
                    self.transmits.push_back(transmit);
                }
                Due::GivenUp(sent) => self.give_up(&sent),
            }
        }
        self.publish(now);
    }

    /// Every subscription, in the order of prefixes and xTRs.
    pub fn subscriptions_view(&self, now: Instant) -> Vec<SubscriptionView> {
        let publisher = &self.subscriptions.publisher;
        self.subscriptions
            .table
            .iter()
            .map(|(prefix, xtr, subscription)| SubscriptionView {
                prefix,
                xtr_id: format!("{:032x}", xtr.xtr_id),
                site_id: xtr.site_id,
                subscriber: self.subscriptions.keyring.name(xtr.site_id).map(str::to_owned),
                itr_rlocs: subscription.rlocs.clone(),
                since_seconds: seconds(now, subscription.since),
                ends_seconds: subscription.ends.map(|at| seconds(at, now)),
                nonce: format!("{:016x}", subscription.nonce),
                unacknowledged: publisher.unacknowledged(xtr, &prefix),
                muted: subscription.muted,
            })
            .collect()
    }

    fn subscribe_now(
        &mut self,
        now: Instant,
        from: SocketAddr,
        lookup: &Lookup,
        xtr: XtrIdentity,
        asked: &EidPrefix,
    ) -> Result<(), Obstacle> {
        let Some(subject) = self.subject(asked, lookup) else {
            self.leave_to_etr(from, lookup, xtr, asked);
            return Err(Obstacle::Ordinary(None));
        };
        let association = self.associate(from, lookup, xtr, &subject.prefix)?;
        let held = self.subscriptions.table.get(&subject.prefix, xtr).is_some();
        if self.subscriptions.is_full(!held) || !self.subscriptions.requests.take(now, &xtr) {
            return Err(Obstacle::Ordinary(Some(Discard::SubscriptionLimit)));
        }
        let rlocs = self.preferred_rlocs(lookup);
        if rlocs.is_empty() {
            return Err(Obstacle::Ordinary(Some(Discard::NoItrRloc)));
        }
        // With a nonce before that of the Map-Request they would count as replays.
        let unacknowledged = self.subscriptions.publisher.cancel(xtr, &subject.prefix);
        let since =
            self.subscriptions.table.get(&subject.prefix, xtr).map_or(now, |held| held.since);
        let subscription = Subscription {
            nonce: lookup.request.nonce,
            rlocs,
            port: match association {
                Association::Unauthenticated => lookup.ecm.source.port(),
                _ => CONTROL_PORT,
            },
            local: lookup.local,
            association,
            since,
            ends: subject.hole.then(|| now + self.subscriptions.limits.lifetime),
            muted: false,
            unsettled: true,
            untold: subject.more,
        };
        self.subscriptions.table.insert(subject.prefix, xtr, subscription);
        if !held {
            self.event(Event::Subscribed { prefix: subject.prefix, xtr });
        }
        self.count(Count::Subscriptions);
        self.keep_subscription(&subject.prefix, xtr);
        self.acknowledge_subscription(now, xtr, subject, unacknowledged);
        Ok(())
    }

    /// An ETR answers: to the xTR its Map-Reply says that there is no subscription (PS-09), so what is published to one from before, of when
    /// the Map-Server answered, it would take for replays, and a covering subscription would stay in its shadow.
    fn leave_to_etr(
        &mut self,
        from: SocketAddr,
        lookup: &Lookup,
        xtr: XtrIdentity,
        asked: &EidPrefix,
    ) {
        let held = self.subscriptions.table.get(asked, xtr).is_some_and(|held| !held.muted);
        if held && self.associate(from, lookup, xtr, asked).is_ok() {
            self.count(Count::SubscriptionsRemoved);
            self.remove_subscription(asked, xtr, "its ETR answers by itself now");
        }
    }

    /// PS-06; what does not fit is published once it is acknowledged.
    fn acknowledge_subscription(
        &mut self,
        now: Instant,
        xtr: XtrIdentity,
        subject: Subject,
        unacknowledged: Vec<EidPrefix>,
    ) {
        let Subject { prefix, records, .. } = subject;
        let publication = Publication { xtr, subscribed: prefix, prefix, inherited: false };
        self.send_notify(now, publication, records);
        for more in unacknowledged.into_iter().filter(|other| *other != prefix) {
            let publication =
                Publication { xtr, subscribed: prefix, prefix: more, inherited: false };
            self.subscriptions.publisher.enqueue(now, publication);
        }
        self.publish(now);
    }

    /// PS-16, PS-18.
    fn unsubscribe_now(
        &mut self,
        now: Instant,
        from: SocketAddr,
        lookup: &Lookup,
        xtr: XtrIdentity,
        asked: &EidPrefix,
    ) -> Result<(), Obstacle> {
        // What the xTR knows of it is the prefix that it was told; a less-specific one is not ended by it.
        let association = self.associate(from, lookup, xtr, asked)?;
        let nonce = lookup.request.nonce;
        let held = self.subscriptions.table.get(asked, xtr).filter(|held| !held.muted).cloned();
        let mute = held.is_none() && self.subscriptions.table.covered(asked, xtr);
        let adds = mute && self.subscriptions.table.get(asked, xtr).is_none();
        if self.subscriptions.is_full(adds) || !self.subscriptions.requests.take(now, &xtr) {
            return Err(Obstacle::Ordinary(Some(Discard::SubscriptionLimit)));
        }
        let to = self.source_rloc(from, lookup, held.as_ref());
        if held.is_some() {
            self.count(Count::SubscriptionsRemoved);
            self.remove_subscription(asked, xtr, "the xTR asked for it");
        } else if mute {
            let muted = Subscription {
                nonce,
                rlocs: vec![to.ip()],
                port: CONTROL_PORT,
                local: lookup.local,
                association: association.clone(),
                since: now,
                ends: None,
                muted: true,
                unsettled: false,
                untold: false,
            };
            self.subscriptions.table.insert(*asked, xtr, muted);
            self.keep_subscription(asked, xtr);
        }
        if !mute {
            self.remember_nonce(xtr, *asked, nonce);
        }
        let record = self.record_of(asked, true);
        let Ok(signer) = self.subscriptions.signer(xtr, &association) else { return Ok(()) };
        let payload = encode_notify(nonce, vec![record], signer.as_ref(), to.ip());
        let source = self.own.source_for(to.ip(), lookup.local).unwrap_or(lookup.local);
        self.count(Count::MapNotifies);
        let transmit = notify_to((source, to), payload);
        self.transmit_once_kept(transmit.clone());
        let publication = Publication { xtr, subscribed: *asked, prefix: *asked, inherited: true };
        let sent = Sent { publication, nonce, transmit, signer, alternatives: VecDeque::new() };
        self.subscriptions.publisher.watch(now, sent);
        Ok(())
    }

    /// The address that an unsubscription came from: the inner source if that is an RLOC we know, since the outer one may be a
    /// Map-Resolver's.
    fn source_rloc(
        &self,
        from: SocketAddr,
        lookup: &Lookup,
        held: Option<&Subscription>,
    ) -> SocketAddr {
        let inner = lookup.ecm.source.ip();
        let known = held.is_some_and(|held| held.rlocs.contains(&inner));
        let usable = known && self.own.source_for(inner, lookup.local).is_some();
        let port = held.map_or(CONTROL_PORT, |held| held.port);
        SocketAddr::new(if usable { inner } else { from.ip() }, port)
    }

    /// What `asked` leads to; `None` when an ETR is to answer.
    fn subject(&self, asked: &EidPrefix, lookup: &Lookup) -> Option<Subject> {
        let within = || {
            let parts = self.registry.covered_by(asked).take(MAX_PARTS);
            let parts = parts.filter(|(prefix, entry)| self.may_stay(prefix, entry));
            parts.map(|(prefix, entry)| entry.record(prefix))
        };
        if self.registered(asked).is_none() && within().next().is_some() {
            // A prefix that holds registered ones, and is itself none.
            let limit = control_payload_limit(lookup.local) / 2;
            let (mut records, mut more, mut octets) = (Vec::new(), false, 0);
            for record in within() {
                octets += RECORD_LEN
                    + record.locators.iter().map(LocatorRecord::encoded_len).sum::<usize>();
                more = octets > limit && !records.is_empty();
                if more {
                    break;
                }
                records.push(record);
            }
            more |= self.review.is_some();
            return Some(Subject { prefix: *asked, records, more, hole: false });
        }
        let Answer::Told(Told { mut records, .. }) = self.answer(asked, lookup) else {
            return None;
        };
        let first = records.first_mut()?;
        let prefix = first.eid.prefix()?;
        let hole = self.registered(&prefix).is_none();
        if hole {
            // What the operator denies is denied to subscribers too.
            if first.action != Action::NativelyForward {
                return None;
            }
            first.ttl_minutes = self.hole_ttl_minutes();
        }
        Some(Subject { prefix, records, more: false, hole })
    }

    fn hole_ttl_minutes(&self) -> u32 {
        let seconds = self.subscriptions.limits.lifetime.as_secs();
        u32::try_from(seconds.div_ceil(60)).unwrap_or(u32::MAX).max(1)
    }

    /// The security association of a Map-Request, if it is fresh and may be (PS-04, PS-09, PS-22).
    fn associate(
        &mut self,
        from: SocketAddr,
        lookup: &Lookup,
        xtr: XtrIdentity,
        prefix: &EidPrefix,
    ) -> Result<Association, Obstacle> {
        let keyring = &self.subscriptions.keyring;
        // An unsubscription names no ITR-RLOC.
        let itr_rlocs: &[IpAddr] =
            if lookup.request.unsubscribes() { &[] } else { &lookup.itr_rlocs };
        if !keyring.permits(xtr.site_id, itr_rlocs) {
            let reason = Discard::SubscriptionRefused;
            return Err(Obstacle::Refusal(reason, Action::DropPolicyDenied));
        }
        let nonce = lookup.request.nonce;
        let last = self.subscriptions.table.last_nonce(prefix, xtr);
        let is_newer = last.is_none_or(|last| nonce > last);
        if !keyring.is_known(xtr.site_id) {
            let Some(protection) = &lookup.protection else {
                // lispers.net has no Site-ID, authenticates nothing, and its nonces do not count.
                if xtr.site_id == 0
                    && self.clients.tolerance(from.ip()).subscription_without_site_id
                {
                    return Ok(Association::Unauthenticated);
                }
                return Err(Obstacle::Ordinary(Some(Discard::SubscriptionUnkeyed)));
            };
            let (otk, wrapping_id) = (protection.otk.clone(), protection.wrapping_id);
            return self.derive_association(&otk, wrapping_id, nonce, is_newer);
        }
        if !is_newer {
            return Err(Obstacle::Silence(Discard::SubscriptionReplayed));
        }
        Ok(Association::Configured)
    }

    /// A fresh one-time key makes a new association, whatever the nonce was (PS-04). A used one with a nonce that is no newer is a
    /// copy of an earlier message, for which silence is right too.
    fn derive_association(
        &mut self,
        otk: &Otk,
        wrapping_id: u8,
        nonce: u64,
        is_newer: bool,
    ) -> Result<Association, Obstacle> {
        let fingerprint = otk.fingerprint();
        if self.subscriptions.used_keys.contains(&fingerprint) {
            return Err(match is_newer {
                true => Obstacle::Refusal(Discard::SubscriptionKeyReused, Action::DropAuthFailure),
                false => Obstacle::Silence(Discard::SubscriptionReplayed),
            });
        }
        let key = sec::pubsub_key(otk, nonce, wrapping_id).map_err(|_| {
            Obstacle::Refusal(Discard::SubscriptionUnkeyed, Action::DropAuthFailure)
        })?;
        self.use_key(fingerprint);
        Ok(Association::Derived(key))
    }

    /// ITR-RLOCs that an own address can reach, each once, those of the family that the request came over first.
    fn preferred_rlocs(&self, lookup: &Lookup) -> Vec<IpAddr> {
        let mut rlocs: Vec<IpAddr> = Vec::new();
        for &rloc in &lookup.itr_rlocs {
            if self.own.source_for(rloc, lookup.local).is_some() && !rlocs.contains(&rloc) {
                rlocs.push(rloc);
            }
        }
        rlocs.sort_by_key(|rloc| rloc.is_ipv4() != lookup.local.is_ipv4());
        rlocs
    }

    /// Sends what waits for its turn, as far as the pace allows. While registrations are reviewed nothing is: some may go.
    fn publish(&mut self, now: Instant) {
        if self.review.is_some() {
            return;
        }
        while let Some(publication) = self.subscriptions.publisher.next(now) {
            let Publication { xtr, subscribed, prefix, inherited } = publication;
            let Some(subscription) = self.subscriptions.table.get_mut(&subscribed, xtr) else {
                continue;
            };
            // PS-11.
            subscription.nonce = subscription.nonce.wrapping_add(1);
            subscription.unsettled = true;
            let record = self.record_of(&prefix, inherited);
            self.keep_subscription(&subscribed, xtr);
            self.count(Count::Publications);
            self.send_notify(now, publication, vec![record]);
        }
    }

    /// Notes which of them wait for their turn still, so that a restart does not forget them.
    fn keep_waiting(&mut self, publications: &[Publication]) {
        for publication in publications {
            let Publication { xtr, subscribed, .. } = *publication;
            let waits = self.subscriptions.publisher.is_queued(publication);
            let subscription = self.subscriptions.table.get_mut(&subscribed, xtr);
            if let Some(settled) = subscription.filter(|s| waits && !s.unsettled) {
                settled.unsettled = true;
                self.keep_subscription(&subscribed, xtr);
            }
        }
    }

    /// Publishes the registered more-specifics that were held back. Who subscribes proves nothing, who acknowledges has the key: nobody
    /// else is flooded in its name.
    fn tell_the_rest(&mut self, now: Instant, xtr: XtrIdentity, subscribed: EidPrefix) {
        let Subscriptions { table, publisher, .. } = &mut self.subscriptions;
        let Some(subscription) = table.get_mut(&subscribed, xtr) else { return };
        let proved = subscription.association != Association::Unauthenticated;
        if !proved || !std::mem::take(&mut subscription.untold) {
            return;
        }
        for (prefix, _) in self.registry.more_specifics(&subscribed) {
            if table.longest_of(&prefix, xtr) == Some(subscribed) {
                let publication = Publication { xtr, subscribed, prefix, inherited: false };
                publisher.enqueue(now, publication);
            }
        }
        self.publish(now);
    }

    /// The mapping of `prefix` as it is now; TTL 0 if it has none (PS-13).
    fn record_of(&self, prefix: &EidPrefix, inherited: bool) -> EidRecord {
        let entry = match inherited {
            true => self.registered(prefix).map(|(_, entry)| entry),
            false => self.registry.get(prefix),
        };
        entry.map_or_else(|| EidRecord::new(*prefix, 0, Vec::new()), |entry| entry.record(*prefix))
    }

    /// Sends a Map-Notify with the subscription's nonce and watches over it.
    fn send_notify(&mut self, now: Instant, publication: Publication, records: Vec<EidRecord>) {
        let Publication { xtr, subscribed, .. } = publication;
        let Some(subscription) = self.subscriptions.table.get(&subscribed, xtr) else { return };
        let Ok(signer) = self.subscriptions.signer(xtr, &subscription.association) else {
            return self.remove_subscription(
                &subscribed,
                xtr,
                "its key is not configured any more",
            );
        };
        let mut ways = self.ways(subscription);
        let Some(way) = ways.pop_front() else { return };
        let nonce = subscription.nonce;
        let payload = encode_notify(nonce, records, signer.as_ref(), way.1.ip());
        let transmit = notify_to(way, payload);
        self.transmit_once_kept(transmit.clone());
        let sent = Sent { publication, nonce, transmit, signer, alternatives: ways };
        self.subscriptions.publisher.watch(now, sent);
    }

    /// Own addresses and ITR-RLOCs. The own one that the subscription came to may be another Map-Server's, in a cluster.
    fn ways(&self, subscription: &Subscription) -> VecDeque<(IpAddr, SocketAddr)> {
        let own = |rloc| self.own.source_for(rloc, subscription.local);
        subscription
            .rlocs
            .iter()
            .filter_map(|&rloc| Some((own(rloc)?, SocketAddr::new(rloc, subscription.port))))
            .collect()
    }

    /// PS-08: the subscription goes, and the xTR is told once, so that it can subscribe again.
    fn give_up(&mut self, sent: &Sent) {
        let Publication { xtr, subscribed, .. } = sent.publication;
        let Some(subscription) = self.subscriptions.table.get(&subscribed, xtr) else { return };
        if subscription.muted {
            return;
        }
        if subscription.association == Association::Unauthenticated {
            // lispers.net acknowledges nothing.
            return self.settle(xtr, &subscribed);
        }
        let Some(way) = self.ways(subscription).pop_front() else { return };
        let mut record = EidRecord::negative(subscribed, Action::DropAuthFailure, 0);
        record.ttl_minutes = self.hole_ttl_minutes();
        let payload = encode_notify(sent.nonce, vec![record], sent.signer.as_ref(), way.1.ip());
        self.count(Count::SubscriptionsLost);
        self.remove_subscription(&subscribed, xtr, "the xTR acknowledges nothing");
        self.transmit_once_kept(notify_to(way, payload));
    }

    /// Removes a subscription with what is muted in it, and remembers its nonce.
    fn remove_subscription(&mut self, prefix: &EidPrefix, xtr: XtrIdentity, why: &'static str) {
        let Some(removed) = self.subscriptions.table.remove(prefix, xtr) else { return };
        self.subscriptions.publisher.cancel(xtr, prefix);
        self.forget_subscription(prefix, xtr);
        self.remember_nonce(xtr, *prefix, removed.nonce);
        self.event(Event::Unsubscribed { prefix: *prefix, xtr, why });
        if removed.muted {
            return;
        }
        for part in self.subscriptions.table.within(prefix) {
            let muted = self.subscriptions.table.get(&part, xtr).is_some_and(|part| part.muted);
            if muted && !self.subscriptions.table.covered(&part, xtr) {
                self.subscriptions.table.remove(&part, xtr);
                self.forget_subscription(&part, xtr);
            }
        }
    }

    /// A subscription to what is not registered is a temporary one (PS-10).
    fn end_by_itself(&mut self, now: Instant, prefix: EidPrefix, xtr: XtrIdentity, hole: bool) {
        let ends = hole.then(|| now + self.subscriptions.limits.lifetime);
        if self.subscriptions.table.set_end(prefix, xtr, ends) {
            self.keep_subscription(&prefix, xtr);
        }
    }

    /// Notes when everything sent for a subscription is acknowledged, so that a restart need not send it again.
    fn settle(&mut self, xtr: XtrIdentity, subscribed: &EidPrefix) {
        let publisher = &self.subscriptions.publisher;
        // What waits for its turn may be for this xTR too.
        if publisher.queued() > 0 || publisher.unacknowledged(xtr, subscribed) > 0 {
            return;
        }
        if let Some(subscription) = self.subscriptions.table.get_mut(subscribed, xtr) {
            subscription.unsettled = false;
            self.keep_subscription(subscribed, xtr);
        }
    }
}

fn notify_to((source, destination): (IpAddr, SocketAddr), payload: Vec<u8>) -> Transmit {
    Transmit { source, source_port: SourcePort::Control, destination, payload }
}

/// A Map-Notify to an xTR, within what may be sent without knowing the path MTU (CW-06).
fn encode_notify(
    nonce: u64,
    mut records: Vec<EidRecord>,
    signer: Option<&Signer>,
    destination: IpAddr,
) -> Vec<u8> {
    loop {
        let mut payload = Vec::new();
        let authentication = signer.map_or(AuthenticationData::zeroed(0, 0, 0), |signer| {
            AuthenticationData::zeroed(signer.key_id, signer.algorithm.id(), signer.mac_len)
        });
        let notify = MapNotify { nonce, authentication, records, identity: None };
        notify.encode(&mut payload);
        records = notify.records;
        let fits = payload.len() <= control_payload_limit(destination);
        if !fits && shrink(&mut records) {
            continue;
        }
        if let Some(signer) = signer {
            // Its own encoding has the layout and the length that signing needs.
            let signed =
                auth::sign_covering(&mut payload, &signer.secret, signer.algorithm, signer.covered);
            debug_assert!(signed.is_ok());
        }
        return payload;
    }
}
