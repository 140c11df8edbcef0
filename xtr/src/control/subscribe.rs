//! Subscriptions to the mappings in the map-cache: the xTR's side of publish and subscribe (RFC 9437).
//!
//! Every lookup asks for a subscription too. The Map-Notify that acknowledges it says what was subscribed: the EID-prefix of the
//! mapping, or the hole that the EID lies in. From then on every change comes as a publication, until the entry leaves the map-cache.
//! When nothing is subscribed in the end, since the Map-Server cannot or will not, the Map-Reply counts as ever.
use super::itr::Purpose;
use super::map_cache::{Mapping, lifetime};
use super::secure::PREFERRED;
use super::{ControlPlane, Event};
use crate::config::NotifyKey;
use crate::view::{OwnSubscriptionView, SubscriptionState};
use mapping::auth;
use mapping::config::{Algorithm, Secret};
use mapping::discard::Discard;
use mapping::eid::{EidPrefix, EidTable};
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{
    Action, Address, AuthenticationData, CONTROL_PORT, EidRecord, EncapsulatedControlMessage,
    MapNotify, MapNotifyAck, MapRequest, Message,
};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Map-Requests of one lookup that count on from the last nonce; more mean that the Map-Server has had a later one.
const COUNTED_TRIES: u32 = 3;
/// Map-Requests that give up a subscription.
const UNSUBSCRIBE_TRIES: u32 = 3;

/// The last Map-Notify about one EID-prefix.
#[derive(Clone, Debug)]
struct Seen {
    nonce: u64,
    mac: Vec<u8>,
}

#[derive(Debug)]
struct Subscription {
    /// The last nonce that either side used (PS-03).
    nonce: u64,
    /// Publications about EID-prefixes not seen yet must be newer.
    floor: u64,
    seen: BTreeMap<EidPrefix, Seen>,
    /// When the Map-Server forgets it by itself: it is to something that is not registered (PS-10).
    ends: Option<Instant>,
    /// Not asked for by us (PS-23).
    foreign: bool,
    /// The PubSubKey of the one-time key that it was asked for with (PS-21).
    key: Option<Secret>,
    map_server: Option<IpAddr>,
    since: Instant,
    /// When it is renewed, or ends.
    due: Instant,
    publications: u64,
}

/// A subscription being given up (PS-16).
#[derive(Debug)]
struct Farewell {
    nonce: u64,
    tries: u32,
    due: Instant,
    /// What its confirmation is signed with, when there is no other key.
    key: Option<Secret>,
}

/// What a Map-Notify is to a subscription.
enum News {
    Fresh,
    /// The same message again: only its acknowledgement was lost.
    Copy,
    Replay,
}

/// Every own subscription, by what was subscribed.
#[derive(Debug)]
pub(super) struct Subscriptions {
    table: EidTable<Subscription>,
    timers: BTreeSet<(Instant, EidPrefix)>,
    farewells: BTreeMap<EidPrefix, Farewell>,
    farewell_nonces: HashMap<u64, EidPrefix>,
    start: Instant,
    /// Seconds since 1970 at `start`.
    start_seconds: u64,
    last_fresh: u64,
}

impl Subscriptions {
    /// `time_of_day` is in nanoseconds.
    pub(super) fn new(now: Instant, time_of_day: u64) -> Self {
        Self {
            table: EidTable::default(),
            timers: BTreeSet::new(),
            farewells: BTreeMap::new(),
            farewell_nonces: HashMap::new(),
            start: now,
            start_seconds: time_of_day / 1_000_000_000,
            last_fresh: 0,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|&(due, _)| due);
        let farewell = self.farewells.values().map(|farewell| farewell.due).min();
        [timer, farewell].into_iter().flatten().min()
    }

    /// A nonce greater than all before, those before a restart too: seconds since 1970, then 32 bits that nobody can guess.
    fn fresh_nonce(&mut self, now: Instant, unpredictable: u32) -> u64 {
        let seconds = self.start_seconds + now.saturating_duration_since(self.start).as_secs();
        let nonce = (seconds << 32) | u64::from(unpredictable);
        self.last_fresh = nonce.max(self.last_fresh.saturating_add(1));
        self.last_fresh
    }

    fn schedule(&mut self, prefix: EidPrefix, due: Instant) {
        if let Some(subscription) = self.table.get_mut(&prefix) {
            self.timers.remove(&(subscription.due, prefix));
            subscription.due = due;
            self.timers.insert((due, prefix));
        }
    }

    fn insert(&mut self, prefix: EidPrefix, subscription: Subscription) {
        self.remove(&prefix);
        self.timers.insert((subscription.due, prefix));
        self.table.insert(prefix, subscription);
    }

    fn remove(&mut self, prefix: &EidPrefix) -> Option<Subscription> {
        let removed = self.table.remove(prefix)?;
        self.timers.remove(&(removed.due, *prefix));
        Some(removed)
    }

    fn forget_farewell(&mut self, prefix: &EidPrefix) {
        if let Some(farewell) = self.farewells.remove(prefix) {
            self.farewell_nonces.remove(&farewell.nonce);
        }
    }
}

impl Subscription {
    fn judge(&self, prefix: &EidPrefix, notify: &MapNotify) -> News {
        let Some(seen) = self.seen.get(prefix) else {
            return if notify.nonce > self.floor { News::Fresh } else { News::Replay };
        };
        if notify.nonce > seen.nonce {
            return News::Fresh;
        }
        let same = notify.nonce == seen.nonce && seen.mac[..] == notify.authentication.mac[..];
        if same { News::Copy } else { News::Replay }
    }
}

impl ControlPlane {
    pub(super) fn subscribes(&self) -> bool {
        self.config.subscribe.is_some() && self.config.identity.is_some()
    }

    /// Makes a Map-Request for the mapping system a subscription (PS-01).
    pub(super) fn ask_for_subscription(&self, request: &mut MapRequest) {
        request.identity = self.config.identity;
        for record in &mut request.records {
            record.notify = true;
        }
    }

    /// The nonce of the `sent`-th Map-Request that subscribes to `prefix` (PS-03).
    pub(super) fn subscription_nonce(
        &mut self,
        now: Instant,
        prefix: &EidPrefix,
        sent: u32,
    ) -> u64 {
        self.subscriptions.forget_farewell(prefix);
        let unpredictable = self.rng.random();
        match self.subscriptions.table.get_mut(prefix) {
            Some(subscription) if sent <= COUNTED_TRIES => {
                subscription.nonce = subscription.nonce.wrapping_add(1);
                subscription.nonce
            }
            _ => self.subscriptions.fresh_nonce(now, unpredictable),
        }
    }

    /// A Map-Notify that concerns a subscription; false if it does not.
    pub(super) fn handle_subscription_notify(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        notify: &MapNotify,
        octets: &[u8],
    ) -> bool {
        if !self.subscribes() {
            return false;
        }
        let requested = self.lookups.requested(notify.nonce);
        let farewell = self.subscriptions.farewell_nonces.get(&notify.nonce).copied();
        let foreign = notify
            .records
            .first()
            .and_then(|record| record.eid.prefix())
            .is_some_and(|prefix| self.database.longest_match(&prefix).is_none());
        if requested.is_none() && farewell.is_none() && !foreign {
            return false;
        }
        let derived = self.derived_key(requested, farewell, notify);
        let key = match self.authenticate_publication(notify, octets, derived.as_ref()) {
            Ok(key) => key,
            Err(reason) => {
                self.discard(reason);
                return true;
            }
        };
        let derived = derived.filter(|derived| *derived == key.secret);
        let outcome = match (requested, farewell) {
            (Some(requested), _) => self.subscribed(now, from.ip(), requested, notify, derived),
            (None, Some(prefix)) => {
                self.subscriptions.forget_farewell(&prefix);
                Ok(())
            }
            (None, None) => self.published(now, from.ip(), notify),
        };
        match outcome {
            Ok(()) => self.acknowledge_notify(local, from, &key, notify),
            Err(reason) => self.discard(reason),
        }
        true
    }

    /// What is due: renewals, ends, and Map-Requests that give up subscriptions.
    pub(super) fn run_subscriptions(&mut self, now: Instant) {
        while let Some(&(due, prefix)) = self.subscriptions.timers.first() {
            if due > now {
                break;
            }
            let ends = self.subscriptions.table.get(&prefix).and_then(|s| s.ends);
            if ends.is_some_and(|ends| ends <= now) {
                self.end_subscription(now, &prefix);
            } else if self.cache.get(&prefix).is_some() {
                let due = self.renewal(now, ends);
                self.subscriptions.schedule(prefix, due);
                self.start_lookup(now, prefix, Purpose::Subscribe);
            } else {
                self.unsubscribe(now, &prefix);
            }
        }
        let due: Vec<EidPrefix> = self
            .subscriptions
            .farewells
            .iter()
            .filter(|(_, farewell)| farewell.due <= now)
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in due {
            self.send_farewell(now, prefix);
        }
    }

    /// Own RLOCs changed: every Map-Server has to know where to send to now.
    pub(super) fn renew_subscriptions(&mut self, now: Instant) {
        let prefixes: Vec<EidPrefix> = self
            .subscriptions
            .table
            .iter()
            .filter(|(_, subscription)| !subscription.foreign)
            .map(|(prefix, _)| prefix)
            .collect();
        for prefix in prefixes {
            self.subscriptions.schedule(prefix, now);
        }
        self.run_subscriptions(now);
    }

    /// Whether an entry whose time is over has to stay: without it, a covering one that is kept up to date would hide what changed.
    pub(super) fn outlives_its_ttl(&mut self, now: Instant, prefix: &EidPrefix) -> bool {
        let covering = self
            .cache
            .covering(prefix)
            .find(|(covering, _)| self.is_subscribed(covering))
            .map(|(_, entry)| entry.expires);
        match covering.filter(|expires| *expires > now && self.is_subscribed(prefix)) {
            Some(expires) => {
                self.cache.set_expiry(now, prefix, expires);
                true
            }
            None => false,
        }
    }

    /// Whether exactly `prefix` is subscribed.
    pub(super) fn has_subscription(&self, prefix: &EidPrefix) -> bool {
        self.subscriptions.table.get(prefix).is_some()
    }

    /// Whether changes of `prefix` are published to us.
    fn is_subscribed(&self, prefix: &EidPrefix) -> bool {
        self.subscriptions.table.longest_match(prefix).is_some()
    }

    /// An entry left the map-cache, not by the word of the Map-Server: what is subscribed for its sake is given up.
    pub(super) fn entry_left(&mut self, now: Instant, prefix: &EidPrefix) {
        if self.has_subscription(prefix) {
            self.unsubscribe(now, prefix);
        }
    }

    /// A Map-Reply answered a lookup: there is no subscription, then. True if it refuses just that.
    pub(super) fn subscription_denied(
        &mut self,
        now: Instant,
        requested: EidPrefix,
        records: &[(EidPrefix, EidRecord)],
    ) -> bool {
        if !self.subscribes() {
            return false;
        }
        self.end_subscription(now, &requested);
        let refuses = |record: &EidRecord| {
            record.locators.is_empty()
                && matches!(record.action, Action::DropPolicyDenied | Action::DropAuthFailure)
        };
        records.iter().all(|(_, record)| refuses(record))
    }

    /// `show subscriptions`.
    pub fn subscriptions_view(&self, now: Instant) -> Vec<OwnSubscriptionView> {
        let seconds = |later: Instant, earlier| later.saturating_duration_since(earlier).as_secs();
        let view = |prefix: EidPrefix, state, subscription: &Subscription| OwnSubscriptionView {
            prefix: prefix.prefix(),
            instance_id: prefix.instance_id().get(),
            state,
            map_server: subscription.map_server,
            since_seconds: seconds(now, subscription.since),
            renewal_seconds: seconds(subscription.due, now),
            nonce: format!("{:016x}", subscription.nonce),
            publications: subscription.publications,
        };
        let mut views: Vec<OwnSubscriptionView> = self
            .subscriptions
            .table
            .iter()
            .map(|(prefix, subscription)| {
                let state = match subscription.ends {
                    _ if subscription.foreign => SubscriptionState::Foreign,
                    Some(_) => SubscriptionState::Temporary,
                    None => SubscriptionState::Subscribed,
                };
                view(prefix, state, subscription)
            })
            .collect();
        views.extend(self.subscriptions.farewells.iter().map(|(prefix, farewell)| {
            OwnSubscriptionView {
                prefix: prefix.prefix(),
                instance_id: prefix.instance_id().get(),
                state: SubscriptionState::Unsubscribing,
                map_server: None,
                since_seconds: 0,
                renewal_seconds: seconds(farewell.due, now),
                nonce: format!("{:016x}", farewell.nonce),
                publications: 0,
            }
        }));
        views
    }

    /// The Map-Notify that acknowledges a subscription (PS-07).
    fn subscribed(
        &mut self,
        now: Instant,
        from: IpAddr,
        requested: EidPrefix,
        notify: &MapNotify,
        key: Option<Secret>,
    ) -> Result<(), Discard> {
        let records = self.acceptable(now, from, requested, &notify.records, None);
        let Some((prefix, first)) = records.first().cloned() else {
            return Err(Discard::ReplyPrefixMismatch);
        };
        self.count("subscriptions_acknowledged");
        self.answered(requested, notify.nonce);
        let hole = first.locators.is_empty();
        let ends = hole.then(|| now + lifetime(first.ttl_minutes).min(timers::RECEIVER_CHOSEN_TTL));
        let due = self.renewal(now, ends);
        let mac = notify.authentication.mac.to_vec();
        let seen = Seen { nonce: notify.nonce, mac };
        match self.subscriptions.table.get_mut(&prefix) {
            Some(held) => {
                held.nonce = held.nonce.max(notify.nonce);
                (held.ends, held.map_server, held.foreign) = (ends, Some(from), false);
                if key.is_some() {
                    // Another association: its nonces begin anew.
                    (held.nonce, held.floor, held.key) = (notify.nonce, notify.nonce, key);
                    held.seen.clear();
                }
            }
            None => {
                let new = Subscription {
                    nonce: notify.nonce,
                    floor: notify.nonce,
                    seen: BTreeMap::new(),
                    ends,
                    foreign: false,
                    key,
                    map_server: Some(from),
                    since: now,
                    due,
                    publications: 0,
                };
                self.subscriptions.insert(prefix, new);
            }
        }
        self.subscriptions.schedule(prefix, due);
        if let Some(held) = self.subscriptions.table.get_mut(&prefix) {
            for (told, _) in &records {
                held.seen.insert(*told, seen.clone());
            }
        }
        let idle = self.idle(records.iter().map(|(prefix, _)| prefix));
        self.apply_records(now, requested, &records);
        self.keep_idle(now, idle);
        Ok(())
    }

    /// A publication (PS-14, PS-15).
    fn published(&mut self, now: Instant, from: IpAddr, notify: &MapNotify) -> Result<(), Discard> {
        let mut records = Vec::new();
        for record in &notify.records {
            match record.eid.prefix() {
                Some(prefix) => records.push((prefix, record.clone())),
                None => self.discard(Discard::UnsupportedEid),
            }
        }
        let (first, record) = records.first().ok_or(Discard::UnsupportedEid)?;
        if record.locators.is_empty() && record.action == Action::DropAuthFailure {
            self.lost(now, first);
            return Ok(());
        }
        let subscribed = match self.subscriptions.table.longest_match(first) {
            Some((subscribed, _)) => subscribed,
            None => self.foreign_subscription(now, *first)?,
        };
        let Some(subscription) = self.subscriptions.table.get_mut(&subscribed) else {
            return Err(Discard::PublicationUnsubscribed);
        };
        match subscription.judge(first, notify) {
            News::Fresh => {}
            News::Copy => {
                self.count("publications_repeated");
                return Ok(());
            }
            News::Replay => {
                let (prefix, map_server) = (*first, from);
                self.event(Event::PublicationReplayed { prefix, map_server });
                return Err(Discard::PublicationReplayed);
            }
        }
        subscription.nonce = subscription.nonce.max(notify.nonce);
        subscription.map_server = Some(from);
        subscription.publications += 1;
        let mac = notify.authentication.mac.to_vec();
        for (prefix, _) in &records {
            subscription.seen.insert(*prefix, Seen { nonce: notify.nonce, mac: mac.clone() });
        }
        if subscription.seen.len() > self.config.map_cache_limit {
            // Whoever publishes that much: what comes late is asked for again with the next renewal.
            (subscription.floor, subscription.seen) = (subscription.nonce, BTreeMap::new());
        }
        self.count("publications_received");
        for (prefix, record) in records {
            if subscribed.covers(&prefix) {
                self.apply_publication(now, subscribed, prefix, &record);
            }
        }
        Ok(())
    }

    fn apply_publication(
        &mut self,
        now: Instant,
        subscribed: EidPrefix,
        prefix: EidPrefix,
        record: &EidRecord,
    ) {
        let is_own =
            self.database.longest_match(&prefix).is_some() && !self.mobility.is_away(&prefix);
        if record.ttl_minutes == 0 || is_own {
            self.remove_entry(now, &prefix);
        } else {
            let idle = self.idle(std::iter::once(&prefix));
            let mapping = Mapping::from_record(record, &self.own);
            self.install_entry(now, prefix, mapping, now + lifetime(record.ttl_minutes));
            self.note_version(now, prefix, record.map_version);
            self.keep_idle(now, idle);
        }
        let was_hole =
            self.subscriptions.table.get(&subscribed).is_some_and(|held| held.ends.is_some());
        if prefix == subscribed {
            // To what is not registered, a subscription is a temporary one at the Map-Server too.
            let gone = record.ttl_minutes == 0;
            let ends = gone.then(|| now + timers::TEMPORARY_SUBSCRIPTION);
            let due = self.renewal(now, ends);
            if let Some(held) = self.subscriptions.table.get_mut(&subscribed) {
                held.ends = ends;
            }
            self.subscriptions.schedule(subscribed, due);
        } else if was_hole && !record.locators.is_empty() && !is_own {
            // It appeared in a hole, the subscription to which does not last.
            self.start_lookup(now, prefix, Purpose::Subscribe);
        }
    }

    /// PS-08: the Map-Server gave the subscription up, since no acknowledgement came through.
    fn lost(&mut self, now: Instant, prefix: &EidPrefix) {
        self.count("subscriptions_lost");
        if self.cache.get(prefix).is_none() {
            self.subscriptions.remove(prefix);
        }
        // What covers it may hide the mapping that was missed.
        if self.cache.longest_match(prefix).is_some() {
            self.start_lookup(now, *prefix, Purpose::Subscribe);
        }
    }

    /// PS-23.
    fn foreign_subscription(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
    ) -> Result<EidPrefix, Discard> {
        let wanted = self.config.subscribe.as_ref().is_some_and(|s| s.accept_unsubscribed);
        if !wanted {
            return Err(Discard::PublicationUnsubscribed);
        }
        let foreign = Subscription {
            nonce: 0,
            floor: 0,
            seen: BTreeMap::new(),
            ends: None,
            foreign: true,
            key: None,
            map_server: None,
            since: now,
            due: now + FOREVER,
            publications: 0,
        };
        self.subscriptions.insert(prefix, foreign);
        Ok(prefix)
    }

    /// Entries that no packet used since they were last confirmed, with their end: to be told of a change is no use.
    fn idle<'a>(&self, prefixes: impl Iterator<Item = &'a EidPrefix>) -> Vec<(EidPrefix, Instant)> {
        prefixes
            .filter_map(|prefix| {
                let entry = self.cache.get(prefix).filter(|entry| !entry.is_in_use())?;
                Some((*prefix, entry.expires))
            })
            .collect()
    }

    fn keep_idle(&mut self, now: Instant, idle: Vec<(EidPrefix, Instant)>) {
        for (prefix, until) in idle {
            if self.cache.get(&prefix).is_some_and(|entry| entry.expires > until) {
                self.cache.set_expiry(now, &prefix, until);
            }
        }
    }

    /// When to renew: within a tenth of the interval either way, so that not everybody asks at once.
    fn renewal(&mut self, now: Instant, ends: Option<Instant>) -> Instant {
        const INTERVAL: Duration = timers::SUBSCRIPTION_RENEWAL;
        let jitter = INTERVAL / 5;
        let jitter = jitter.mul_f64(self.rng.random::<f64>());
        let renewal = now + INTERVAL - INTERVAL / 10 + jitter;
        ends.map_or(renewal, |ends| ends.min(renewal))
    }

    /// Forgets a subscription. Entries that were kept up to date by it alone are looked up again if in use, else removed.
    fn end_subscription(&mut self, now: Instant, prefix: &EidPrefix) {
        if self.subscriptions.remove(prefix).is_none() {
            return;
        }
        let orphans: Vec<(EidPrefix, bool)> = self
            .cache
            .more_specifics(prefix)
            .filter(|(orphan, _)| !self.is_subscribed(orphan))
            .map(|(orphan, entry)| (orphan, entry.is_in_use()))
            .collect();
        for (orphan, in_use) in orphans {
            if in_use {
                self.start_lookup(now, orphan, Purpose::Subscribe);
            } else {
                self.remove_entry(now, &orphan);
            }
        }
    }

    /// PS-16; what the Map-Server forgets by itself needs no word.
    fn unsubscribe(&mut self, now: Instant, prefix: &EidPrefix) {
        let held = self.subscriptions.table.get(prefix);
        let nonce = held.filter(|held| held.ends.is_none()).map(|held| held.nonce);
        self.end_subscription(now, prefix);
        // Under another subscription it would mean to hear nothing of this part (PS-18).
        if let Some(nonce) = nonce.filter(|_| !self.is_subscribed(prefix)) {
            let nonce = nonce.wrapping_add(1);
            self.subscriptions.forget_farewell(prefix);
            self.subscriptions.farewell_nonces.insert(nonce, *prefix);
            self.subscriptions
                .farewells
                .insert(*prefix, Farewell { nonce, tries: 0, due: now, key: None });
            self.send_farewell(now, *prefix);
        }
    }

    fn send_farewell(&mut self, now: Instant, prefix: EidPrefix) {
        let Some(farewell) = self.subscriptions.farewells.get_mut(&prefix) else { return };
        if farewell.tries == UNSUBSCRIBE_TRIES {
            return self.subscriptions.forget_farewell(&prefix);
        }
        farewell.tries += 1;
        let (tries, before) = (farewell.tries as usize, farewell.nonce);
        // The nonce of a Map-Request that was dropped would be a replay.
        let nonce = before.wrapping_add(u64::from(tries > 1));
        farewell.nonce = nonce;
        farewell.due = now + timers::MAP_REQUEST_INTERVAL * (1 << tries);
        self.subscriptions.farewell_nonces.remove(&before);
        self.subscriptions.farewell_nonces.insert(nonce, prefix);
        let resolvers = self.map_resolvers();
        let resolver = resolvers.get((tries - 1) % resolvers.len().max(1)).copied();
        let Some((resolver, source)) = resolver.zip(resolver.and_then(|r| self.own.for_family(r)))
        else {
            return;
        };
        let mut request = self.map_request(nonce, prefix);
        self.ask_for_subscription(&mut request);
        request.itr_rlocs = vec![Address::None];
        let eid = prefix.first().address;
        let inner_source = self.own.for_family(eid).unwrap_or(eid);
        let mut ecm = EncapsulatedControlMessage::new(
            SocketAddr::new(inner_source, CONTROL_PORT),
            SocketAddr::new(eid, CONTROL_PORT),
            Message::MapRequest(request).to_vec(),
        );
        let protection = self.protect(&mut ecm, nonce, PREFERRED);
        if let Some(farewell) = self.subscriptions.farewells.get_mut(&prefix) {
            farewell.key = protection.and_then(|protection| protection.pubsub_key(nonce));
        }
        self.count("unsubscriptions_sent");
        let payload = Message::Encapsulated(ecm).to_vec();
        let destination = SocketAddr::new(resolver, CONTROL_PORT);
        self.transmit(source, SourcePort::Ephemeral, destination, payload);
    }

    /// The key that signed a Map-Notify to a subscriber: that of the subscriptions, or of a Map-Server that we register with.
    fn authenticate_publication(
        &self,
        notify: &MapNotify,
        octets: &[u8],
        derived: Option<&Secret>,
    ) -> Result<NotifyKey, Discard> {
        let mut reason = Discard::KeyUnknown;
        let derived = derived.map(|secret| NotifyKey {
            key_id: 0,
            secret: secret.clone(),
            algorithm: Algorithm::HmacSha256,
        });
        for key in self.notify_keys().chain(derived) {
            if key.key_id != notify.authentication.key_id {
                continue;
            }
            match auth::verify(octets, &key.secret, &[key.algorithm]) {
                Ok(_) => return Ok(key),
                Err(error) => reason = error.into(),
            }
        }
        Err(reason)
    }

    /// The PubSubKey that a Map-Notify may be signed with: of the Map-Request that it answers, or of the subscription.
    fn derived_key(
        &self,
        requested: Option<EidPrefix>,
        farewell: Option<EidPrefix>,
        notify: &MapNotify,
    ) -> Option<Secret> {
        if let Some(requested) = requested {
            return self.lookups.protection(&requested, notify.nonce)?.pubsub_key(notify.nonce);
        }
        if let Some(farewell) = farewell {
            return self.subscriptions.farewells.get(&farewell)?.key.clone();
        }
        let first = notify.records.first()?.eid.prefix()?;
        self.subscriptions.table.longest_match(&first)?.1.key.clone()
    }

    fn notify_keys(&self) -> impl Iterator<Item = NotifyKey> {
        let own = self.config.subscribe.iter().flat_map(|subscribe| subscribe.key.clone());
        let servers = self.config.map_servers.iter().map(|server| NotifyKey {
            key_id: server.key_id,
            secret: server.secret.clone(),
            algorithm: server.algorithm,
        });
        own.chain(servers)
    }

    /// RG-16: same contents, own Authentication Data, once per copy received.
    fn acknowledge_notify(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        key: &NotifyKey,
        notify: &MapNotify,
    ) {
        let length = notify.authentication.mac.len();
        let authentication = AuthenticationData::zeroed(key.key_id, key.algorithm.id(), length);
        let ack = MapNotifyAck(MapNotify { authentication, ..notify.clone() });
        let mut octets = Message::MapNotifyAck(ack).to_vec();
        if auth::sign(&mut octets, &key.secret, key.algorithm).is_ok() {
            self.count("map_notify_acks_sent");
            self.transmit(local.ip(), SourcePort::Control, from, octets);
        }
    }
}

/// Longer than any process runs.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
