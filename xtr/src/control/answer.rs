//! Map-Requests and RLOC-probes answered: the ETR's, and the PETR's (RFC 9301 §5.5, §7.1).
use super::limit::TokenBucket;
use super::secure::Seal;
use super::{ControlPlane, OwnMapping};
use crate::config::LocalEid;
use mapping::discard::Discard;
use mapping::eid::EidPrefix;
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{Action, EidField, EidRecord, LocatorRecord, MapReply, MapRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Probes answered per second in total.
const PROBE_REPLIES_PER_SECOND: u32 = 2_000;
/// (RLOC, EID-prefix) pairs remembered; beyond it no other is answered until the oldest is forgotten.
const TRACKED_REPLIES: usize = 65_536;
/// More-specifics beside the mapping that was asked for: 255 records is the most that a Map-Reply counts.
const MAX_MORE_SPECIFICS: usize = 254;

/// One Map-Reply per destination RLOC and EID-prefix in 3 s on average, with a burst of [`timers::MAP_REPLY_BURST`] for an ITR whose answers are
/// lost (RP-15, §27 item 19); the arithmetic is there.
#[derive(Debug)]
pub(super) struct ReplyLimiter {
    /// When what was sent is paid for.
    until: BTreeMap<(IpAddr, EidPrefix), Instant>,
    order: BTreeSet<(Instant, IpAddr, EidPrefix)>,
    probes: TokenBucket,
}

impl ReplyLimiter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            until: BTreeMap::new(),
            order: BTreeSet::new(),
            probes: TokenBucket::new(now, PROBE_REPLIES_PER_SECOND),
        }
    }

    fn admit(&mut self, now: Instant, rloc: IpAddr, prefix: EidPrefix) -> bool {
        self.purge(now);
        let before = self.until.get(&(rloc, prefix)).copied();
        let most = timers::MAP_REPLY_INTERVAL * (timers::MAP_REPLY_BURST - 1);
        if before.map_or(self.until.len() >= TRACKED_REPLIES, |until| until > now + most) {
            return false;
        }
        if let Some(before) = before {
            self.order.remove(&(before, rloc, prefix));
        }
        let until = before.unwrap_or(now) + timers::MAP_REPLY_INTERVAL;
        self.until.insert((rloc, prefix), until);
        self.order.insert((until, rloc, prefix));
        true
    }

    pub(super) fn purge(&mut self, now: Instant) {
        while let Some(&(until, rloc, prefix)) = self.order.first() {
            if until > now {
                return;
            }
            self.order.pop_first();
            self.until.remove(&(rloc, prefix));
        }
    }
}

/// How a Map-Request came.
#[derive(Debug)]
pub(super) enum Origin {
    /// Directly.
    Plain,
    /// In an ECM, with what its answer is to be signed with if it is protected.
    Encapsulated(Option<Seal>),
}

impl Origin {
    fn seal(&self) -> Option<&Seal> {
        match self {
            Self::Plain => None,
            Self::Encapsulated(seal) => seal.as_ref(),
        }
    }
}

impl ControlPlane {
    /// A Map-Request that is no SMR. `from` is its source: the inner one if it came encapsulated.
    pub(super) fn handle_map_request(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        request: &MapRequest,
        origin: Origin,
    ) {
        if request.map_data.is_some() {
            self.discard(Discard::MapDataIgnored); // MC-31; the request itself is answered.
        }
        if request.dont_map_reply {
            return self.discard(Discard::DontMapReply);
        }
        let encapsulated = matches!(origin, Origin::Encapsulated(_));
        let Some(destination) = self.reply_destination(from, request, encapsulated) else { return };
        self.count("map_requests_received");
        if request.probe {
            return self.answer_probe(now, local, destination, request);
        }
        for requested in &request.records {
            match requested.eid.prefix() {
                Some(prefix) => {
                    if encapsulated {
                        self.host_asked_for(now, &prefix);
                    }
                    let reply = MapReply::new(request.nonce, Vec::new());
                    self.answer(now, (local, destination), reply, prefix, origin.seal());
                }
                None => self.discard(Discard::UnsupportedEid),
            }
        }
    }

    /// Where the reply goes: the first ITR-RLOC of a family of ours (RP-03), at the request's source port (RP-04). A probe may come
    /// without ITR-RLOCs; it was not encapsulated, so its source can be answered.
    fn reply_destination(
        &mut self,
        from: SocketAddr,
        request: &MapRequest,
        encapsulated: bool,
    ) -> Option<SocketAddr> {
        let reachable = |rloc: &IpAddr| self.own.for_family(*rloc).is_some();
        let rloc = request.rlocs().find(reachable);
        let destination = match rloc {
            Some(rloc) if self.own.is_martian(rloc) || from.port() == 0 => {
                self.discard(Discard::ItrRlocMartian);
                return None;
            }
            Some(rloc) => rloc,
            None if request.probe && !encapsulated && request.rlocs().next().is_none() => from.ip(),
            None => {
                self.discard(Discard::NoItrRloc);
                return None;
            }
        };
        Some(SocketAddr::new(destination, from.port()))
    }

    /// The mapping of one requested EID-prefix (RP-06 to RP-09).
    fn answer(
        &mut self,
        now: Instant,
        (local, destination): (IpAddr, SocketAddr),
        mut reply: MapReply,
        requested: EidPrefix,
        seal: Option<&Seal>,
    ) {
        let Some((matched, _)) = self.database.longest_match(&requested) else {
            return self.discard(Discard::NotAuthoritative);
        };
        if !self.replies.admit(now, destination.ip(), matched) {
            return self.discard(Discard::ReplyRateLimited);
        }
        reply.records.push(self.own_record(matched, None));
        let within = self.database_within(&matched).take(MAX_MORE_SPECIFICS);
        reply.records.extend(within.map(|prefix| self.own_record(prefix, None)));
        if seal.is_some() {
            self.count("protected_map_replies_sent");
        }
        self.send_reply(local, destination, reply, seal);
    }

    /// PB-04 to PB-07; on a proxy PE-09: exactly the EID asked for, whatever it is, with the probed locator.
    fn answer_probe(
        &mut self,
        now: Instant,
        local: IpAddr,
        destination: SocketAddr,
        request: &MapRequest,
    ) {
        if self.replies.probes.take(now).is_err() {
            return self.discard(Discard::ReplyRateLimited);
        }
        let Some(requested) = request.records.first() else { return };
        let record = if self.is_proxy() {
            let record = EidRecord {
                ttl_minutes: self.config.record_ttl_minutes,
                action: Action::NoAction,
                authoritative: true,
                map_version: 0,
                eid: requested.eid.clone(),
                locators: Vec::new(),
            };
            with_probed(record, local, 1)
        } else {
            // A prober may name its prefix in the source-EID and leave the record empty.
            let prefix = match &requested.eid {
                EidField::Prefix(prefix) => Some(*prefix),
                EidField::Other { .. } => request.source_eid.eid().map(|eid| eid.host_prefix()),
            };
            let matched = prefix.and_then(|prefix| self.database.longest_match(&prefix));
            let Some((matched, _)) = matched else {
                return self.discard(Discard::NotAuthoritative);
            };
            with_probed(self.own_record(matched, Some(local)), local, 255)
        };
        let mut reply = MapReply::new(request.nonce, vec![record]);
        reply.probe = true;
        self.send_reply(local, destination, reply, None);
    }

    fn database_within(&self, prefix: &EidPrefix) -> impl Iterator<Item = EidPrefix> {
        self.database
            .covered_by(prefix)
            .map(|(found, _)| found)
            .filter(move |found| found != prefix)
    }

    /// An own mapping as the ETR that owns it tells it (RP-09, RP-12, RP-13, RP-17).
    pub(super) fn own_record(&self, prefix: EidPrefix, probed: Option<IpAddr>) -> EidRecord {
        let mapping = self.database.get(&prefix);
        let locators = mapping.map_or_else(Vec::new, |mapping| self.own_locators(&mapping.eid));
        let mut record = EidRecord::new(prefix, self.config.record_ttl_minutes, locators);
        record.authoritative = true;
        record.map_version = self.map_version(&prefix);
        for locator in &mut record.locators {
            locator.probed = probed.is_some() && locator.address.rloc() == probed;
        }
        record
    }

    /// The own EID-prefixes with this own RLOC among their locators.
    pub(super) fn prefixes_at(&self, rloc: IpAddr) -> Vec<EidPrefix> {
        let is_at = |own: &&OwnMapping| {
            self.own_locators(&own.eid).iter().any(|locator| locator.address.rloc() == Some(rloc))
        };
        self.own_mappings().filter(is_at).map(|own| own.eid.prefix).collect()
    }

    /// The locators an own EID-prefix is registered and answered with.
    pub(super) fn own_locators(&self, eid: &LocalEid) -> Vec<LocatorRecord> {
        let chosen = |name: &String| eid.locator_set.is_empty() || eid.locator_set.contains(name);
        let mut own: Vec<_> = self.own.iter().filter(|own| chosen(&own.rloc.name)).collect();
        own.sort_by_key(|own| own.rloc.address);
        own.into_iter()
            .map(|own| {
                // Down is said twice: R=0 (RP-13), and by the priority for those who do not look at it.
                let priority = if own.up { own.rloc.priority } else { 255 };
                let mut locator = LocatorRecord::new(own.rloc.address, priority, own.rloc.weight);
                (locator.local, locator.reachable) = (true, own.up);
                locator.multicast_priority = own.rloc.multicast_priority;
                locator.multicast_weight = own.rloc.multicast_weight;
                locator
            })
            .collect()
    }

    /// Sends a Map-Reply from the address asked, if the family allows (RP-05, PB-05). Records beyond what fits go (CW-06): the first is
    /// the one asked for.
    fn send_reply(
        &mut self,
        local: IpAddr,
        destination: SocketAddr,
        mut reply: MapReply,
        seal: Option<&Seal>,
    ) {
        let asked = Some(local)
            .filter(|local| local.is_ipv4() == destination.is_ipv4())
            .filter(|local| self.own.reachable().any(|own| own == *local));
        let Some(source) = asked.or_else(|| self.own.for_family(destination.ip())) else {
            return self.discard(Discard::NoItrRloc);
        };
        reply.echo_nonce = self.offers_echo(destination.ip());
        let limit = timers::control_payload_limit(destination.ip());
        let payload = loop {
            let Some(payload) = self.reply_octets(reply.clone(), seal) else { return };
            if payload.len() <= limit || reply.records.len() <= 1 {
                break payload;
            }
            // They are of about one size: what is too much goes at once, for a site may have thousands of hosts.
            let fit = reply.records.len() * limit / payload.len();
            reply.records.truncate(fit.clamp(1, reply.records.len() - 1));
        };
        self.count("map_replies_sent");
        self.transmit(source, SourcePort::Control, destination, payload);
    }
}

/// Makes `probed` the one locator with the p-bit (PB-07), added with `priority` if the record does not have it.
fn with_probed(mut record: EidRecord, probed: IpAddr, priority: u8) -> EidRecord {
    if record.locators.iter().all(|locator| !locator.probed) {
        let mut locator =
            LocatorRecord::new(probed, priority, if priority == 255 { 0 } else { 100 });
        (locator.local, locator.probed) = (true, true);
        record.locators.push(locator);
    }
    record
}
