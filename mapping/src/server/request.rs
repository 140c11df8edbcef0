//! Map-Request: answer it, or pass it on to an ETR (RFC 9301 §8.3, §8.4).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::discard::Discard;
use crate::eid::{EidPrefix, NamePrefix};
use crate::resolver::negative::least_specific;
use crate::resolver::{Lookup, is_martian, map_reply};
use crate::timers::{
    MAX_VOUCHED_PREFIXES, NEGATIVE_TTL_MINUTES, UNREGISTERED_TTL_MINUTES, control_payload_limit,
};
use crate::transmit::{SourcePort, Transmit};
use crate::wire::{
    Action, CONTROL_PORT, EidRecord, EncapsulatedControlMessage, MapReply, MapRequest, RequestedEid,
};

use super::registry::{Entry, Registration};
use super::secure::{self, Voucher};
use super::site::Signer;
use super::subscription::Subscribing;
use super::{Count, MapServer};

/// More-specifics that one reply could have room for: a record takes at least 16 octets.
const MAX_MORE_SPECIFICS: usize = 80;
/// Octets before the first record of a Map-Reply.
const REPLY_HEADER: usize = 12;

/// What becomes of one record of a Map-Request.
#[derive(Debug)]
pub(super) enum Answer {
    /// Answered from the registry, or negatively.
    Told(Told),
    /// An ETR answers.
    Etr(Ask),
}

/// An answer of the Map-Server's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) records: Vec<EidRecord>,
    voucher: Voucher,
}

/// An ETR to be asked.
#[derive(Debug)]
pub(super) struct Ask {
    rloc: IpAddr,
    voucher: Voucher,
    /// The key it registered with; `None` when the request is not protected.
    signer: Option<Signer>,
}

impl MapServer {
    pub(super) fn handle_encapsulated(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        mut ecm: EncapsulatedControlMessage,
    ) {
        if !self.clients.admit(from.ip()) {
            return self.discard(from.ip(), Discard::ClientUnknown);
        }
        let security = ecm.security.take();
        let tolerance = self.clients.tolerance(from.ip());
        let mut lookup = match Lookup::new(ecm, &self.own, local, tolerance) {
            Ok(lookup) => lookup,
            Err(reason) => return self.discard(from.ip(), reason),
        };
        match self.itr_keys.protection(security.as_deref(), lookup.request.nonce) {
            Ok(protection) => {
                lookup.protection = protection;
                lookup.security = security;
                match lookup.ddt {
                    true => self.handle_ddt_request(now, from, &lookup, true),
                    false => self.handle_lookup(now, from, &lookup),
                }
            }
            Err(reason) => {
                self.discard(from.ip(), reason);
                if lookup.ddt {
                    self.handle_ddt_request(now, from, &lookup, false);
                }
                if reason == Discard::OtkKeyUnknown {
                    self.deny(now, from, &lookup);
                }
            }
        }
    }

    /// A Map-Request outside an ECM: a lookup of a client that knows no better (MR-09).
    pub(super) fn handle_plain_request(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        request: &MapRequest,
        octets: &[u8],
    ) {
        if !request.probe && !request.smr && self.clients.admit_plain(from.ip()) {
            let eid = request.records.first().and_then(|record| record.eid.prefix());
            let destination = eid.map_or(local, |prefix| prefix.first().address);
            let destination = SocketAddr::new(destination, CONTROL_PORT);
            let ecm = EncapsulatedControlMessage::new(from, destination, octets.to_vec());
            return self.handle_encapsulated(now, local, from, ecm);
        }
        let reason = match (request.probe, request.smr) {
            (true, _) => Discard::ProbeRefused,
            (_, true) => Discard::SmrRefused,
            _ => Discard::PlainMapRequest,
        };
        self.discard(from.ip(), reason);
    }

    /// Every record is processed (RQ-03), and counts against the source's share like a message of its own (MS-23). The answers go in
    /// one Map-Reply, since the ITR forgets the nonce with the first.
    pub(super) fn handle_lookup(&mut self, now: Instant, from: SocketAddr, lookup: &Lookup) {
        self.count(Count::MapRequests);
        self.admission.asked(now, from.ip());
        if lookup.protection.is_some() {
            self.count(Count::ProtectedMapRequests);
        }
        let mut answered: Vec<Told> = Vec::new();
        let mut etrs: Vec<Ask> = Vec::new();
        let mut names: Vec<NamePrefix> = Vec::new();
        for (at, requested) in lookup.request.records.iter().enumerate() {
            // The first was paid for when the message was admitted.
            if at > 0
                && let Err(reason) = self.admission.record(now, from.ip())
            {
                self.discard(from.ip(), reason);
                break;
            }
            let Some(prefix) = requested.eid.prefix() else {
                match requested.eid.name() {
                    Some(name) => names.push(name),
                    None => self.discard(from.ip(), Discard::UnsupportedEid),
                }
                continue;
            };
            self.review_around(now, &prefix);
            if self.resolve(now, from, lookup, requested, &prefix) {
                continue;
            }
            self.tell_asker(now, lookup, &prefix);
            let answer = match requested.notify.then(|| self.subscribe(now, from, lookup, &prefix))
            {
                Some(Subscribing::Done) => continue,
                Some(Subscribing::Refused(record)) => Answer::Told(Told::of(prefix, record)),
                Some(Subscribing::Impossible) | None => self.answer(&prefix, lookup),
            };
            match answer {
                Answer::Told(told) if !answered.contains(&told) => answered.push(told),
                Answer::Etr(ask) => match etrs.iter_mut().find(|other| other.rloc == ask.rloc) {
                    Some(other) => other.voucher.join(ask.voucher),
                    None => etrs.push(ask),
                },
                Answer::Told(_) => {}
            }
        }
        // Names beside EID-prefixes would need a second Map-Reply of the same nonce.
        if !names.is_empty() && answered.is_empty() && etrs.is_empty() {
            return self.answer_names(now, from, lookup, &names);
        }
        for ask in etrs {
            if let Err(reason) = self.forward(now, lookup, ask) {
                self.discard(from.ip(), reason);
            }
        }
        if answered.is_empty() {
            return;
        }
        if let Err(reason) = self.reply(now, lookup, answered) {
            self.discard(from.ip(), reason);
        }
    }

    /// MS-13: the ITR's authentication fails, and neither rule of LISP-SEC says to be silent about it.
    fn deny(&mut self, now: Instant, from: SocketAddr, lookup: &Lookup) {
        let denied = |requested: &RequestedEid| {
            let host = requested.eid.prefix()?.first().host_prefix();
            Some(Told::negative(host, Action::DropAuthFailure, UNREGISTERED_TTL_MINUTES))
        };
        let answered: Vec<Told> =
            lookup.request.records.iter().take(1).filter_map(denied).collect();
        if let Err(reason) = self.reply(now, lookup, answered) {
            self.discard(from.ip(), reason);
        }
    }

    pub(super) fn answer(&self, asked: &EidPrefix, lookup: &Lookup) -> Answer {
        let (configured, down) = self.sites.state_of(asked);
        if let Some(configured) = configured.filter(|_| down) {
            return self.denied(asked, configured, lookup);
        }
        let Some((prefix, entry)) = self.registered_within(asked, configured) else {
            return self.negative(asked, configured, lookup);
        };
        match lookup.protection {
            Some(_) => self.protected_answer(asked, prefix, entry, lookup),
            None => {
                let wanted = lookup.request.authoritative || !self.is_proxied(entry);
                match wanted.then(|| self.choose_etr(prefix, entry, lookup)).flatten() {
                    Some(ask) => Answer::Etr(ask),
                    None => Answer::Told(self.mapping(asked, prefix, entry, lookup)),
                }
            }
        }
    }

    /// The rules of RFC 9303 §6.7, in their order (SE-09, SE-10, SE-11). The first one outranks the A-bit (MS-16).
    fn protected_answer(
        &self,
        asked: &EidPrefix,
        prefix: EidPrefix,
        entry: &Entry,
        lookup: &Lookup,
    ) -> Answer {
        if self.is_proxied(entry) {
            return Answer::Told(self.mapping(asked, prefix, entry, lookup));
        }
        if entry.registrations().iter().any(|registration| registration.security_capable) {
            return match self.choose_etr(prefix, entry, lookup) {
                Some(ask) => Answer::Etr(ask),
                // None of them can be reached: the Map-Server answers, since nobody else can.
                None => Answer::Told(self.mapping(asked, prefix, entry, lookup)),
            };
        }
        // A record of the whole prefix would hide the more-specifics in it, which others registered.
        let narrowed = match self.registry.more_specifics(&prefix).next() {
            Some(_) => least_specific(asked, prefix.mask_len() + 1, &[&self.registry]),
            None => Some(prefix),
        };
        let denied = narrowed.unwrap_or_else(|| asked.first().host_prefix());
        let mut told = Told::negative(denied, Action::DropAuthFailure, UNREGISTERED_TTL_MINUTES);
        told.voucher = Voucher::new(prefix, true);
        Answer::Told(told)
    }

    /// The key that an ETR registered with.
    fn signer_of(&self, registration: &Registration) -> Option<Signer> {
        self.sites.signer(registration.site, registration.signing?)
    }

    /// Whether the Map-Server answers for its ETRs (MS-14).
    fn is_proxied(&self, entry: &Entry) -> bool {
        entry.proxy_reply()
            || entry
                .registrations()
                .iter()
                .any(|registration| self.sites.get(registration.site).config.force_proxy_reply)
    }

    /// MS-13: the operator has shut the site down.
    fn denied(&self, asked: &EidPrefix, configured: EidPrefix, lookup: &Lookup) -> Answer {
        match least_specific(asked, configured.mask_len(), &[&self.sites.open()]) {
            Some(hole) => Answer::Told(Told::negative(
                hole,
                Action::DropPolicyDenied,
                UNREGISTERED_TTL_MINUTES,
            )),
            None => self.answer_for_first(asked, lookup),
        }
    }

    /// A prefix was asked for that several rules apply to: answered for its first EID.
    fn answer_for_first(&self, asked: &EidPrefix, lookup: &Lookup) -> Answer {
        let first = asked.first().host_prefix();
        if first == *asked {
            Answer::Told(Told { records: Vec::new(), voucher: Voucher::new(first, false) })
        } else {
            self.answer(&first, lookup)
        }
    }

    /// The registration that decides about `asked`. MS-22: not if a longer configured prefix of another site does, registered or not.
    pub(super) fn registered(&self, asked: &EidPrefix) -> Option<(EidPrefix, &Entry)> {
        self.registered_within(asked, self.sites.configured(asked))
    }

    /// As [`Self::registered`], when the longest configured EID-prefix is known.
    fn registered_within(
        &self,
        asked: &EidPrefix,
        configured: Option<EidPrefix>,
    ) -> Option<(EidPrefix, &Entry)> {
        self.registry.longest_match(asked).filter(|(prefix, entry)| {
            configured.is_none_or(|configured| {
                prefix.mask_len() >= configured.mask_len() || self.same_site(entry, &configured)
            })
        })
    }

    fn same_site(&self, entry: &Entry, configured: &EidPrefix) -> bool {
        entry.registrations().iter().any(|other| self.sites.owns(other.site, configured))
    }

    /// The mapping of `asked` and its more-specifics (RP-06, RP-07).
    ///
    /// A less-specific record in a map-cache hides the more-specifics that did not come with it. So when they do not fit in a
    /// message (CW-06), or are not ours to tell since their ETRs want to answer themselves, the record is narrowed to the largest
    /// prefix around `asked` that has none of them.
    fn mapping(
        &self,
        asked: &EidPrefix,
        prefix: EidPrefix,
        entry: &Entry,
        lookup: &Lookup,
    ) -> Told {
        let voucher = Voucher::new(prefix, false);
        let mut records = vec![entry.record(prefix)];
        let (mut alone, mut told) = (true, true);
        for (more, entry) in self.registry.more_specifics(&prefix).take(MAX_MORE_SPECIFICS) {
            let may_stay = self.may_stay(&more, entry);
            alone = false;
            told &= may_stay && self.is_proxied(entry);
            if may_stay {
                records.push(entry.record(more));
            }
        }
        if !(alone || told && self.fits(&records, &voucher, lookup)) {
            // Without a narrower one, more-specifics lie within what was asked for: as many as fit.
            if let Some(narrowed) = least_specific(asked, prefix.mask_len() + 1, &[&self.registry])
            {
                records = vec![entry.record(narrowed)];
            }
        }
        Told { records, voucher }
    }

    /// Whether all of `records` go into one Map-Reply.
    fn fits(&self, records: &[EidRecord], voucher: &Voucher, lookup: &Lookup) -> bool {
        let to = lookup.requester(&self.own).map_or(lookup.local, |to| to.destination.ip());
        let room = lookup.protection.as_ref().map_or(0, |_| secure::reply_octets(voucher));
        encoded(records).len() + room <= control_payload_limit(to)
    }

    /// The least-specific prefix around `asked` that is nobody's (MS-10, MS-12, MR-04), or that is a site's but not registered
    /// (MS-11): then the configured prefix itself, if nothing in it is registered.
    fn negative(
        &self,
        asked: &EidPrefix,
        configured: Option<EidPrefix>,
        lookup: &Lookup,
    ) -> Answer {
        let (hole, ttl_minutes) = match configured {
            Some(configured) => (
                least_specific(asked, configured.mask_len(), &[&self.registry]),
                UNREGISTERED_TTL_MINUTES,
            ),
            None => {
                (least_specific(asked, 0, &[&self.sites, &self.registry]), NEGATIVE_TTL_MINUTES)
            }
        };
        match hole {
            Some(hole) => Answer::Told(Told::negative(hole, Action::NativelyForward, ttl_minutes)),
            None => self.answer_for_first(asked, lookup),
        }
    }

    /// An ETR that can be sent the Map-Request, in one packet (CW-06), and can answer it (MS-15): a protected one only if it
    /// registered with the S-bit (SE-10).
    ///
    /// `None` when there is none: then the Map-Server answers itself, since nobody else can. That is so too when no locator is of
    /// the family of an ITR-RLOC: the ETR could not reach the ITR. Retransmissions come with new nonces and so try other ETRs.
    fn choose_etr(&self, prefix: EidPrefix, entry: &Entry, lookup: &Lookup) -> Option<Ask> {
        let locators = entry.registrations().iter().flat_map(Registration::locators);
        if !locators.filter_map(|l| l.address.rloc()).any(|rloc| lookup.has_family_of(rloc)) {
            return None;
        }
        let protected = lookup.protection.is_some();
        let registrations = entry.registrations();
        let cant_sign = protected && registrations.iter().any(|r| !r.security_capable);
        let voucher = Voucher::new(prefix, cant_sign);
        let room = if protected { secure::ecm_octets(&voucher) } else { 0 };
        let mut askable: Vec<(u8, IpAddr, usize)> = registrations
            .iter()
            .enumerate()
            .filter(|(_, registration)| registration.security_capable || !protected)
            .flat_map(|(at, r)| r.locators().map(move |locator| (at, locator)))
            .filter(|(_, locator)| locator.reachable)
            .filter_map(|(at, locator)| Some((locator.priority, locator.address.rloc()?, at)))
            .filter(|&(_, rloc, _)| self.own.source_for(rloc, lookup.local).is_some())
            .filter(|&(_, rloc, _)| !self.own.contains(rloc) && !is_martian(rloc, lookup.local))
            .filter(|&(_, rloc, _)| lookup.ecm.encoded_len() + room <= control_payload_limit(rloc))
            .collect();
        askable.sort_unstable();
        askable.dedup_by_key(|(priority, rloc, _)| (*priority, *rloc));
        if askable.iter().any(|&(_, rloc, _)| lookup.has_family_of(rloc)) {
            askable.retain(|&(_, rloc, _)| lookup.has_family_of(rloc));
        }
        let turn = usize::try_from(lookup.request.nonce % askable.len().max(1) as u64).ok()?;
        let &(_, rloc, at) = askable.get(turn)?;
        let signer = match protected {
            true => Some(self.signer_of(&registrations[at])?),
            false => None,
        };
        Some(Ask { rloc, voucher, signer })
    }

    /// Re-encapsulates the inner message (MS-15, MR-05), a protected one with new authentication data (RFC 9303 §6.7.1).
    fn forward(&mut self, now: Instant, lookup: &Lookup, ask: Ask) -> Result<(), Discard> {
        let source = self.own.source_for(ask.rloc, lookup.local).ok_or(Discard::NoItrRloc)?;
        let nonce = lookup.request.nonce;
        if !self.forwards.admit(now, nonce, lookup.itr_rlocs[0]) {
            return Err(Discard::ForwardLoop);
        }
        let mut ecm = lookup.ecm.clone();
        if let (Some(protection), Some(signer)) = (&lookup.protection, &ask.signer) {
            ecm.security = Some(secure::ecm_security(protection, nonce, signer, &ask.voucher)?);
            self.count(Count::ProtectedForwards);
        }
        let mut payload = Vec::with_capacity(ecm.encoded_len());
        ecm.encode(&mut payload);
        self.count(Count::MapRequestsForwarded);
        self.transmits.push_back(Transmit {
            source,
            source_port: SourcePort::Ephemeral,
            destination: SocketAddr::new(ask.rloc, CONTROL_PORT),
            payload,
        });
        Ok(())
    }

    /// Sends what was not just sent to the same ITR-RLOC.
    pub(super) fn reply(
        &mut self,
        now: Instant,
        lookup: &Lookup,
        answered: Vec<Told>,
    ) -> Result<(), Discard> {
        if lookup.request.dont_map_reply {
            return Err(Discard::DontMapReply);
        }
        let requester = lookup.requester(&self.own).ok_or(Discard::NoItrRloc)?;
        let rloc = requester.destination.ip();
        let reply = self.fresh_reply(now, lookup, rloc, answered)?;
        let Reply { payload, negative, told } = reply;
        if !self.replies.take(now, &rloc) {
            return Err(Discard::ReplyRateLimited);
        }
        for (key, value) in told {
            self.recent_replies.record(now, &key, value);
        }
        self.count(if negative { Count::NegativeMapReplies } else { Count::MapReplies });
        if lookup.protection.is_some() {
            self.count(Count::ProtectedReplies);
        }
        self.transmits.push_back(Transmit {
            source: requester.source,
            source_port: SourcePort::Control,
            destination: requester.destination,
            payload,
        });
        Ok(())
    }

    /// The Map-Reply with those of the answers that were not just told (RP-15). Who proves with a key that he is the ITR is told
    /// apart from everybody who may write its RLOC into a request.
    fn fresh_reply(
        &mut self,
        now: Instant,
        lookup: &Lookup,
        rloc: IpAddr,
        mut answered: Vec<Told>,
    ) -> Result<Reply, Discard> {
        let protection = lookup.protection.as_ref();
        let (nonce, salt) = (lookup.request.nonce, u64::from(protection.is_some()));
        let key = |told: &Told| {
            let prefix = told.records.first().and_then(|record| record.eid.prefix())?;
            Some((rloc, prefix))
        };
        let mut told = Vec::new();
        if let [_, _, ..] = answered[..] {
            answered.retain(|answer| {
                let Some(key) = key(answer) else { return false };
                let value = self.scatter.of(&encoded(&answer.records)) ^ salt;
                let fresh = !self.recent_replies.contains(now, &key, value);
                if fresh {
                    told.push((key, value));
                }
                fresh
            });
            answered.truncate(if protection.is_some() { MAX_VOUCHED_PREFIXES } else { usize::MAX });
        }
        let mut answered = answered.into_iter();
        let first = answered.next().ok_or(Discard::ReplyRateLimited)?;
        let only = told.is_empty().then(|| key(&first)).flatten();
        let Told { mut records, mut voucher } = first;
        for other in answered {
            voucher.join(other.voucher);
            for record in other.records {
                if !records.iter().any(|known| known.eid == record.eid) {
                    records.push(record);
                }
            }
        }
        if records.is_empty() {
            return Err(Discard::ReplyRateLimited);
        }
        let negative = records.iter().all(|record| record.is_negative());
        let room = protection.map_or(0, |_| secure::reply_octets(&voucher));
        let (reply, mut payload) = map_reply(self.payload(), nonce, records, rloc, room);
        if let Some(key) = only {
            // What was sent is what is compared: the header differs by its nonce each time.
            let value = self.scatter.of(&&payload[REPLY_HEADER..]) ^ salt;
            if self.recent_replies.contains(now, &key, value) {
                return Err(Discard::ReplyRateLimited);
            }
            told.push((key, value));
        }
        if let Some(protection) = protection {
            payload = secure::protect(reply, protection, &voucher)?;
        }
        Ok(Reply { payload, negative, told })
    }
}

/// A Map-Reply to be sent, and what is remembered of it.
struct Reply {
    payload: Vec<u8>,
    negative: bool,
    told: Vec<((IpAddr, EidPrefix), u64)>,
}

impl Told {
    /// One record without locators.
    pub(super) fn negative(prefix: EidPrefix, action: Action, ttl_minutes: u32) -> Self {
        Self::of(prefix, EidRecord::negative(prefix, action, ttl_minutes))
    }

    /// One record, about `prefix`.
    fn of(prefix: EidPrefix, record: EidRecord) -> Self {
        Self { records: vec![record], voucher: Voucher::new(prefix, false) }
    }
}

fn encoded(records: &[EidRecord]) -> Vec<u8> {
    let mut octets = Vec::new();
    MapReply::new(0, records.to_vec()).encode(&mut octets);
    octets
}
