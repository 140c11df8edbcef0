//! NAT traversal, the RTR's part (draft-ermagan-lisp-nat-traversal §5.3): it relays the Map-Registers of xTRs behind NATs, and once their
//! Map-Server has acknowledged one, sends packets for their EIDs to the address and port that the NAT has given them.
//!
//! A Map-Register proves nothing here: only its Map-Notify, which the Map-Server signs for this RTR, makes a registration or moves one.
use super::locator::{Candidate, Via};
use super::map_cache::{Mapping, lifetime};
use super::{ControlPlane, Event};
use crate::config::{self, NatRtr, RtrMapServer};
use crate::packet::lisp;
use mapping::config::Algorithm;
use mapping::discard::Discard;
use mapping::eid::{EidPrefix, InstanceId};
use mapping::limits::{Rate, Scatter, ScatteredBuckets};
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{
    CONTROL_PORT, EidRecord, EncapsulatedControlMessage, MapNotify, MapRegister, Message,
    RtrAuthentication,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Buckets that addresses share.
const SOURCES: usize = 4096;

/// The xTRs behind NATs.
#[derive(Debug)]
pub(super) struct Rtr {
    config: NatRtr,
    sources: ScatteredBuckets,
    /// Map-Registers relayed, unverified.
    pending: BTreeMap<Key, Pending>,
    /// When they were, oldest first.
    order: VecDeque<(Instant, Key)>,
    sites: BTreeMap<EidPrefix, BTreeMap<WayKey, Way>>,
    /// When ways end.
    ends: BTreeSet<(Instant, EidPrefix, WayKey)>,
}

/// By what a Map-Notify is matched with its Map-Register: xTR-ID, nonce, and own address of the xTR.
type Key = (u128, u64, IpAddr);
/// xTR-ID, and own address of the xTR.
type WayKey = (u128, IpAddr);

/// A Map-Register that awaits its Map-Notify.
#[derive(Debug)]
struct Pending {
    sent: Instant,
    map_server: IpAddr,
    /// The own RLOC it came to.
    local: IpAddr,
    translated: SocketAddr,
    records: Vec<Claim>,
    /// Own addresses of the xTR that its records name.
    listed: BTreeSet<IpAddr>,
}

/// What a record of a Map-Register says of the way it came.
#[derive(Debug)]
struct Claim {
    prefix: EidPrefix,
    ttl_minutes: u32,
    priority: u8,
    weight: u8,
}

/// A verified way to an xTR.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The own RLOC that the NAT lets through.
    pub(super) local: IpAddr,
    pub(super) translated: SocketAddr,
    pub(super) map_server: IpAddr,
    pub(super) since: Instant,
    pub(super) last: Instant,
    pub(super) ends: Instant,
    /// From Map-Register to Map-Notify.
    pub(super) round_trip: Duration,
    nonce: u64,
    priority: u8,
    weight: u8,
}

impl Rtr {
    pub(super) fn new(config: NatRtr, seed: [u64; 2]) -> Self {
        let rate =
            Rate::new(timers::RTR_REGISTERS_PER_SECOND, 2 * timers::RTR_REGISTERS_PER_SECOND);
        Self {
            config,
            sources: ScatteredBuckets::new(rate, SOURCES, Scatter::new(seed)),
            pending: BTreeMap::new(),
            order: VecDeque::new(),
            sites: BTreeMap::new(),
            ends: BTreeSet::new(),
        }
    }

    /// EID-prefix, xTR-ID, own address of the xTR, and the way to it.
    pub(super) fn ways(&self) -> impl Iterator<Item = (EidPrefix, u128, IpAddr, &Way)> {
        self.sites.iter().flat_map(|(&prefix, ways)| {
            ways.iter().map(move |(&(xtr_id, private), way)| (prefix, xtr_id, private, way))
        })
    }

    pub(super) fn unverified(&self) -> usize {
        self.pending.len()
    }

    fn map_server(&self, address: IpAddr) -> Option<&RtrMapServer> {
        self.config.map_servers.iter().find(|server| server.address == address)
    }

    fn serves(&self, prefix: &EidPrefix) -> bool {
        prefix.instance_id() == self.config.instance_id
            && self.config.eid_prefixes.iter().any(|served| served.contains(&prefix.prefix()))
    }

    fn way(&self, prefix: &EidPrefix, key: WayKey) -> Option<&Way> {
        self.sites.get(prefix)?.get(&key)
    }

    /// What to relay and remember, or why not (NT-06).
    fn admit(
        &mut self,
        now: Instant,
        (local, from): (IpAddr, SocketAddr),
        ecm: &EncapsulatedControlMessage,
        register: &MapRegister,
    ) -> Result<(Key, Pending), Discard> {
        if !self.sources.take(now, &from.ip()) {
            return Err(Discard::SourceRateLimited);
        }
        let (map_server, private) = (ecm.destination.ip(), ecm.source.ip());
        if self.map_server(map_server).is_none() || ecm.destination.port() != CONTROL_PORT {
            return Err(Discard::RelayRefused);
        }
        let identity = register.identity.filter(|identity| identity.xtr_id != 0);
        let Some(identity) = identity.filter(|_| register.want_map_notify) else {
            return Err(Discard::XtrUnidentified);
        };
        let records = claims(&register.records, private);
        if records.is_empty() || !records.iter().all(|claim| self.serves(&claim.prefix)) {
            return Err(Discard::NatEidRefused);
        }
        let key = (identity.xtr_id, register.nonce, private);
        let way_key = (identity.xtr_id, private);
        // Who recorded a Map-Register could have its xTR's packets sent to himself by sending it again.
        let is_moved = |way: &Way| way.nonce == register.nonce && way.translated != from;
        let known = records.iter().filter_map(|claim| self.way(&claim.prefix, way_key));
        let under_way = self.pending.get(&key);
        if known.clone().any(is_moved) || under_way.is_some_and(|it| it.translated != from) {
            return Err(Discard::Replayed);
        }
        let limit = match known.count() {
            0 => timers::RTR_PENDING_LIMIT / 2,
            _ => timers::RTR_PENDING_LIMIT,
        };
        let fresh = records.iter().filter(|claim| !self.sites.contains_key(&claim.prefix)).count();
        if self.pending.len() >= limit || self.sites.len() + fresh > timers::RTR_REGISTRATIONS_LIMIT
        {
            return Err(Discard::NatFull);
        }
        let listed = private_locators(&register.records);
        Ok((key, Pending { sent: now, map_server, local, translated: from, records, listed }))
    }

    fn remember(&mut self, now: Instant, key: Key, pending: Pending) {
        if self.pending.insert(key, pending).is_none() {
            self.order.push_back((now + timers::RTR_PENDING, key));
        }
    }

    /// The Map-Notify of `key` is verified: its ways are open now. Returns the EID-prefixes they lead to, and those that were moved.
    fn verified(
        &mut self,
        now: Instant,
        key: Key,
        notify: &MapNotify,
    ) -> Option<(SocketAddr, IpAddr, Vec<EidPrefix>, Vec<Moved>)> {
        let pending = self.pending.remove(&key)?;
        let way_key = (key.0, key.2);
        let mut changed = Vec::new();
        let mut moved = Vec::new();
        for claim in &pending.records {
            let prefix = claim.prefix;
            let accepted = notify.records.iter().any(|record| record.eid.prefix() == Some(prefix));
            if !accepted {
                continue;
            }
            changed.push(prefix);
            self.forget_unlisted(&prefix, key.0, &pending.listed);
            let before = self.close(&prefix, way_key);
            if claim.ttl_minutes == 0 {
                continue;
            }
            let since = match &before {
                Some(way) if way.translated == pending.translated => way.since,
                Some(way) => {
                    moved.push(Moved { prefix, from: way.translated });
                    now
                }
                None => now,
            };
            let ends = now + self.config.timeout.min(lifetime(claim.ttl_minutes));
            let way = Way {
                local: pending.local,
                translated: pending.translated,
                map_server: pending.map_server,
                since,
                last: now,
                ends,
                round_trip: now.saturating_duration_since(pending.sent),
                nonce: key.1,
                priority: claim.priority,
                weight: claim.weight,
            };
            self.ends.insert((ends, prefix, way_key));
            self.sites.entry(prefix).or_default().insert(way_key, way);
        }
        Some((pending.translated, pending.local, changed, moved))
    }

    /// An xTR no longer has an address that it had: what the NAT made of it is void.
    fn forget_unlisted(&mut self, prefix: &EidPrefix, xtr_id: u128, listed: &BTreeSet<IpAddr>) {
        if listed.is_empty() {
            return;
        }
        let gone = |key: &&WayKey| key.0 == xtr_id && !listed.contains(&key.1);
        let gone: Vec<WayKey> = self
            .sites
            .get(prefix)
            .into_iter()
            .flat_map(|ways| ways.keys().filter(gone))
            .copied()
            .collect();
        for key in gone {
            self.close(prefix, key);
        }
    }

    fn close(&mut self, prefix: &EidPrefix, key: WayKey) -> Option<Way> {
        let ways = self.sites.get_mut(prefix)?;
        let way = ways.remove(&key)?;
        if ways.is_empty() {
            self.sites.remove(prefix);
        }
        self.ends.remove(&(way.ends, *prefix, key));
        Some(way)
    }

    fn forget(&mut self, prefix: &EidPrefix) -> bool {
        let Some(ways) = self.sites.remove(prefix) else { return false };
        for (key, way) in ways {
            self.ends.remove(&(way.ends, *prefix, key));
        }
        true
    }

    fn next_timeout(&self) -> Option<Instant> {
        let pending = self.order.front().map(|&(end, _)| end);
        let way = self.ends.first().map(|&(end, ..)| end);
        [pending, way].into_iter().flatten().min()
    }

    /// Forgets what is over; returns the EID-prefixes whose ways ended.
    fn expire(&mut self, now: Instant) -> Vec<EidPrefix> {
        while let Some(&(_, key)) = self.order.front().filter(|(end, _)| *end <= now) {
            self.order.pop_front();
            self.pending.remove(&key);
        }
        let mut changed = Vec::new();
        while let Some(&(_, prefix, key)) = self.ends.first().filter(|(end, ..)| *end <= now) {
            self.close(&prefix, key);
            changed.push(prefix);
        }
        changed
    }

    fn candidates(&self, prefix: &EidPrefix) -> Vec<Candidate> {
        let candidate = |way: &Way| Candidate {
            address: way.translated.ip(),
            priority: way.priority,
            weight: way.weight,
            reachable: true,
            ordinal: 0,
            via: Via::Translated(way.local, way.translated.port()),
        };
        let ways = self.sites.get(prefix).into_iter().flat_map(BTreeMap::values);
        let mut candidates: Vec<Candidate> = ways.map(candidate).collect();
        candidates.sort_by_key(|candidate| candidate.address);
        candidates
    }
}

/// An xTR that is reached elsewhere now.
struct Moved {
    prefix: EidPrefix,
    from: SocketAddr,
}

/// The EID-prefixes of a Map-Register from `private`, with the priority and weight that its record has for that address; none of a
/// message that has a record of anything else.
fn claims(records: &[EidRecord], private: IpAddr) -> Vec<Claim> {
    let claim = |record: &EidRecord| {
        let own = record.locators.iter().find(|locator| locator.address.rloc() == Some(private));
        // An xTR that registers the RTR alone says nothing of its own addresses.
        let (priority, weight) = own.map_or((1, 100), |own| (own.priority, own.weight));
        Some(Claim {
            prefix: record.eid.prefix()?,
            ttl_minutes: record.ttl_minutes,
            priority: priority.min(254),
            weight,
        })
    };
    records.iter().map(claim).collect::<Option<_>>().unwrap_or_default()
}

fn private_locators(records: &[EidRecord]) -> BTreeSet<IpAddr> {
    let locators = records.iter().flat_map(|record| &record.locators);
    locators.filter(|locator| !locator.reachable).filter_map(|l| l.address.rloc()).collect()
}

impl ControlPlane {
    pub(super) fn rtr(&self) -> Option<&Rtr> {
        self.rtr.as_deref()
    }

    pub(super) fn make_rtr(&mut self) {
        if let Some(config::Nat::Rtr(config)) = self.config.nat.clone() {
            let seed = [self.next_nonce(), self.next_nonce()];
            self.rtr = Some(Box::new(Rtr::new(config, seed)));
        }
    }

    /// Other EID-prefixes may be served from now on, those that are stay until they end; the Map-Servers' secrets may be others.
    pub(super) fn reconfigure_rtr(&mut self, wanted: Option<&config::Nat>) {
        if let (Some(rtr), Some(config::Nat::Rtr(wanted))) = (&mut self.rtr, wanted) {
            rtr.config.eid_prefixes.clone_from(&wanted.eid_prefixes);
            for (server, wanted) in rtr.config.map_servers.iter_mut().zip(&wanted.map_servers) {
                server.key.secret = wanted.key.secret.clone();
            }
        }
    }

    pub(super) fn next_rtr(&self) -> Option<Instant> {
        self.rtr()?.next_timeout()
    }

    /// Ends what nobody kept alive.
    pub(super) fn run_rtr(&mut self, now: Instant) {
        let Some(rtr) = &mut self.rtr else { return };
        for prefix in rtr.expire(now) {
            self.show_ways(now, prefix);
            if self.rtr().is_some_and(|rtr| !rtr.sites.contains_key(&prefix)) {
                self.event(Event::NatSiteGone(prefix));
            }
        }
    }

    /// An ECM with the R-bit: from an xTR behind a NAT a Map-Register, from a Map-Server a Map-Notify.
    pub(super) fn handle_ecm_to_rtr(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        ecm: &EncapsulatedControlMessage,
    ) {
        if self.rtr.is_none() {
            return self.discard(Discard::UnexpectedInner);
        }
        match Message::parse(&ecm.message) {
            Ok(Message::MapRegister(register)) => {
                self.relay_register(now, local, from, ecm, &register);
            }
            Ok(Message::MapNotify(notify)) => self.relay_notify(now, from.ip(), ecm, &notify),
            Ok(_) => self.discard(Discard::UnexpectedInner),
            Err(error) => self.discard(error.into()),
        }
    }

    /// NT-06: the Map-Register goes on as it is, in a new ECM.
    fn relay_register(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        ecm: &EncapsulatedControlMessage,
        register: &MapRegister,
    ) {
        let map_server = ecm.destination;
        let source = Some(local).filter(|local| local.is_ipv4() == map_server.is_ipv4());
        let source = source.or_else(|| self.own.for_family(map_server.ip()));
        let Some(rtr) = &mut self.rtr else { return };
        let (key, pending) = match rtr.admit(now, (local, from), ecm, register) {
            Ok(admitted) => admitted,
            Err(reason) => return self.discard(reason),
        };
        rtr.remember(now, key, pending);
        let Some(source) = source else { return self.discard(Discard::RelayRefused) };
        let relayed = EncapsulatedControlMessage {
            security: None,
            to_rtr: false,
            relayed: true,
            ..ecm.clone()
        };
        let mut payload = Vec::with_capacity(relayed.encoded_len());
        relayed.encode(&mut payload);
        self.count("map_registers_relayed");
        self.transmit(source, SourcePort::Control, map_server, payload);
    }

    /// NT-08: a Map-Notify that its Map-Server signed for us opens the way, and goes there.
    fn relay_notify(
        &mut self,
        now: Instant,
        from: IpAddr,
        ecm: &EncapsulatedControlMessage,
        notify: &MapNotify,
    ) {
        if let Err(reason) = self.prove(from, ecm) {
            return self.discard(reason);
        }
        let Some(identity) = notify.identity else { return self.discard(Discard::XtrUnidentified) };
        let key = (identity.xtr_id, notify.nonce, ecm.destination.ip());
        let Some(rtr) = &mut self.rtr else { return };
        if rtr.pending.get(&key).is_some_and(|pending| pending.map_server != from) {
            return self.discard(Discard::MapServerUnknown);
        }
        let Some((translated, local, changed, moved)) = rtr.verified(now, key, notify) else {
            return self.relay_news(now, ecm, notify, identity.xtr_id);
        };
        for Moved { prefix, from } in moved {
            self.event(Event::NatSiteMoved { prefix, from, to: translated });
        }
        for prefix in changed {
            self.show_ways(now, prefix);
        }
        self.send_data_map_notify(local, translated, ecm);
    }

    /// MS-RTR authentication data: over the whole Map-Notify (§4.4).
    fn prove(&self, from: IpAddr, ecm: &EncapsulatedControlMessage) -> Result<(), Discard> {
        let server = self.rtr().and_then(|rtr| rtr.map_server(from));
        let key = &server.ok_or(Discard::MapServerUnknown)?.key;
        let data = ecm.security.as_deref().ok_or(Discard::NatUnproved)?;
        let told = RtrAuthentication::parse(data)?.authentication;
        if told.key_id != key.id {
            return Err(Discard::KeyUnknown);
        }
        if Algorithm::from_id(told.algorithm_id) != Some(key.algorithm) {
            return Err(Discard::AlgorithmRefused);
        }
        key.secret.prepared().verify_mac_of(&ecm.message, key.algorithm, told.mac.as_ref())?;
        Ok(())
    }

    /// A Map-Notify that nobody asked for: an xTR that is still registered through us gets it; one that is not is looked up anew (§5.3).
    fn relay_news(
        &mut self,
        now: Instant,
        ecm: &EncapsulatedControlMessage,
        notify: &MapNotify,
        xtr_id: u128,
    ) {
        let mut to = None;
        let mut departed = Vec::new();
        for record in &notify.records {
            let Some(prefix) = record.eid.prefix() else { continue };
            let ways = self.rtr().and_then(|rtr| rtr.sites.get(&prefix));
            let Some(ways) = ways else { continue };
            let is_here = |address: IpAddr| self.own.contains(address);
            if !record.locators.iter().filter_map(|l| l.address.rloc()).any(is_here) {
                departed.push(prefix);
            } else if to.is_none() {
                let way = ways.iter().find(|((id, _), _)| *id == xtr_id);
                to = way.map(|((_, private), way)| (*private, way.local, way.translated));
            }
        }
        if to.is_none() && departed.is_empty() {
            return self.discard(Discard::NonceUnknown);
        }
        for prefix in departed {
            if self.rtr.as_mut().is_some_and(|rtr| rtr.forget(&prefix)) {
                self.remove_entry(now, &prefix);
                self.event(Event::NatSiteGone(prefix));
            }
        }
        if let Some((private, local, translated)) = to {
            let port = ecm.destination.port();
            let destination = SocketAddr::new(private, port);
            let ecm = EncapsulatedControlMessage { destination, ..ecm.clone() };
            self.send_data_map_notify(local, translated, &ecm);
        }
    }

    /// The Map-Notify behind a LISP header, from port 4342 through the NAT.
    fn send_data_map_notify(
        &mut self,
        local: IpAddr,
        translated: SocketAddr,
        ecm: &EncapsulatedControlMessage,
    ) {
        let plain =
            EncapsulatedControlMessage::new(ecm.source, ecm.destination, ecm.message.clone());
        let mut octets = Vec::with_capacity(plain.encoded_len());
        plain.encode(&mut octets);
        let Some(control) = InstanceId::new(InstanceId::MAX) else { return };
        let payload = [&lisp::encode(control)[..], octets.get(4..).unwrap_or_default()].concat();
        self.count("data_map_notifies_sent");
        self.transmit(local, SourcePort::Control, translated, payload);
    }

    /// Tells the forwarding table where an EID-prefix behind a NAT is, or that it is nowhere any more (NT-12).
    fn show_ways(&mut self, now: Instant, prefix: EidPrefix) {
        let Some(rtr) = &self.rtr else { return };
        let candidates = rtr.candidates(&prefix);
        let ends =
            rtr.sites.get(&prefix).into_iter().flat_map(BTreeMap::values).map(|way| way.ends);
        match ends.max() {
            Some(ends) => {
                // The end of the way is what ends the entry.
                let expires = ends + Duration::from_secs(1);
                let mapping = Mapping::Locators(candidates);
                match self.cache.get(&prefix) {
                    Some(entry) if entry.mapping == mapping => {
                        self.cache.set_expiry(now, &prefix, expires);
                    }
                    _ => self.install_proved(now, prefix, mapping, expires),
                }
            }
            None => self.remove_entry(now, &prefix),
        }
    }

    /// NT-13: a mapping of an EID-prefix that is registered through us says nothing new if it leads to us; otherwise its site has moved.
    /// True if there is nothing to do.
    pub(super) fn keeps_ways(&mut self, prefix: &EidPrefix, mapping: &Mapping) -> bool {
        let Some(rtr) = &mut self.rtr else { return false };
        if !rtr.sites.contains_key(prefix) {
            return false;
        }
        let own = &self.own;
        let leads_here = mapping.locators().iter().any(|locator| own.contains(locator.address));
        if !leads_here {
            rtr.forget(prefix);
            self.event(Event::NatSiteGone(*prefix));
        }
        leads_here
    }

    /// Whether an EID-prefix is behind a NAT and registered through us.
    pub(super) fn is_registered_here(&self, prefix: &EidPrefix) -> bool {
        self.rtr().is_some_and(|rtr| rtr.sites.contains_key(prefix))
    }

    /// Whether an RLOC is the outside of a NAT with an xTR behind it.
    pub(super) fn is_translated(&self, rloc: IpAddr) -> bool {
        self.rtr().is_some_and(|rtr| rtr.ways().any(|(.., way)| way.translated.ip() == rloc))
    }
}
