//! Map-Request: answer it, or pass it on to an ETR (RFC 9301 §8.3, §8.4).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::discard::Discard;
use crate::eid::EidPrefix;
use crate::resolver::negative::least_specific;
use crate::resolver::{Lookup, is_martian, map_reply};
use crate::timers::{NEGATIVE_TTL_MINUTES, UNREGISTERED_TTL_MINUTES, control_payload_limit};
use crate::transmit::{SourcePort, Transmit};
use crate::wire::{
    Action, CONTROL_PORT, EidRecord, EncapsulatedControlMessage, MapReply, RequestedEid,
};

use super::registry::Entry;
use super::subscription::Subscribing;
use super::{Count, MapServer};

/// More-specifics that one reply could have room for: a record takes at least 16 octets.
const MAX_MORE_SPECIFICS: usize = 80;

/// What becomes of one record of a Map-Request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Answered from the registry, or negatively.
    Records(Vec<EidRecord>),
    /// The ETR at this locator answers.
    Etr(IpAddr),
}

impl MapServer {
    pub(super) fn handle_encapsulated(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        ecm: EncapsulatedControlMessage,
    ) {
        match Lookup::new(ecm, &self.own, local) {
            Ok(lookup) => self.handle_lookup(now, from, &lookup),
            Err(reason) => self.discard(from.ip(), reason),
        }
    }

    /// Every record is processed (RQ-03), and counts against the source's share like a message of its own (MS-23). The answers go in
    /// one Map-Reply, since the ITR forgets the nonce with the first.
    fn handle_lookup(&mut self, now: Instant, from: SocketAddr, lookup: &Lookup) {
        self.count(Count::MapRequests);
        self.admission.asked(now, from.ip());
        let mut answered: Vec<Vec<EidRecord>> = Vec::new();
        let mut etrs: Vec<IpAddr> = Vec::new();
        for (at, RequestedEid { eid, notify }) in lookup.request.records.iter().enumerate() {
            // The first was paid for when the message was admitted.
            if at > 0
                && let Err(reason) = self.admission.record(now, from.ip())
            {
                self.discard(from.ip(), reason);
                break;
            }
            let Some(prefix) = eid.prefix() else {
                self.discard(from.ip(), Discard::UnsupportedEid);
                continue;
            };
            let answer = match notify.then(|| self.subscribe(now, from, lookup, &prefix)) {
                Some(Subscribing::Done) => continue,
                Some(Subscribing::Refused(answer)) => Answer::Records(vec![answer]),
                Some(Subscribing::Impossible) | None => self.answer(&prefix, lookup),
            };
            match answer {
                Answer::Records(records) if !answered.contains(&records) => answered.push(records),
                Answer::Etr(etr) if !etrs.contains(&etr) => etrs.push(etr),
                Answer::Records(_) | Answer::Etr(_) => {}
            }
        }
        for etr in etrs {
            self.forward(lookup, etr);
        }
        if answered.is_empty() {
            return;
        }
        if let Err(reason) = self.reply(now, lookup, answered) {
            self.discard(from.ip(), reason);
        }
    }

    pub(super) fn answer(&self, asked: &EidPrefix, lookup: &Lookup) -> Answer {
        let Some((prefix, entry)) = self.registered(asked) else {
            return self.negative(asked, self.sites.configured(asked), lookup);
        };
        let etr = self.choose_etr(entry, lookup);
        match etr {
            Some(etr) if lookup.request.authoritative || !entry.proxy_reply() => Answer::Etr(etr),
            _ => Answer::Records(self.mapping(asked, prefix, entry, lookup)),
        }
    }

    /// The registration that decides about `asked`. MS-22: not if a longer configured prefix of another site does, registered or not.
    pub(super) fn registered(&self, asked: &EidPrefix) -> Option<(EidPrefix, &Entry)> {
        let configured = self.sites.configured(asked);
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
    ) -> Vec<EidRecord> {
        let mut records = vec![entry.record(prefix)];
        let mut told = true;
        for (more, entry) in self.registry.more_specifics(&prefix).take(MAX_MORE_SPECIFICS) {
            told &= entry.proxy_reply();
            records.push(entry.record(more));
        }
        let to = lookup.requester(&self.own).map_or(lookup.local, |to| to.destination.ip());
        if records.len() == 1 || (told && encoded(&records).len() <= control_payload_limit(to)) {
            return records;
        }
        match least_specific(asked, prefix.mask_len() + 1, &[&self.registry]) {
            Some(narrowed) => vec![entry.record(narrowed)],
            // More-specifics lie within what was asked for: as many as fit.
            None => records,
        }
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
            Some(hole) => Answer::Records(vec![EidRecord::negative(
                hole,
                Action::NativelyForward,
                ttl_minutes,
            )]),
            // A prefix was asked for that is partly a site's: answered for its first EID.
            None => {
                let first = asked.first().host_prefix();
                if first == *asked {
                    Answer::Records(Vec::new())
                } else {
                    self.answer(&first, lookup)
                }
            }
        }
    }

    /// An ETR that can be sent the Map-Request, in one packet (CW-06), and can answer it (MS-15).
    ///
    /// `None` when there is none: then the Map-Server answers itself, since nobody else can. That is so too when no locator is of
    /// the family of an ITR-RLOC: the ETR could not reach the ITR. Retransmissions come with new nonces and so try other ETRs.
    fn choose_etr(&self, entry: &Entry, lookup: &Lookup) -> Option<IpAddr> {
        let locators = entry.registrations().iter().flat_map(|registration| &registration.locators);
        if !locators.filter_map(|l| l.address.rloc()).any(|rloc| lookup.has_family_of(rloc)) {
            return None;
        }
        let askable: Vec<IpAddr> = entry
            .reachable()
            .into_iter()
            .filter(|&rloc| self.own.source_for(rloc, lookup.local).is_some())
            .filter(|&rloc| !self.own.contains(rloc) && !is_martian(rloc, lookup.local))
            .filter(|&rloc| lookup.ecm.encoded_len() <= control_payload_limit(rloc))
            .collect();
        let matching: Vec<IpAddr> =
            askable.iter().copied().filter(|&rloc| lookup.has_family_of(rloc)).collect();
        let choice = if matching.is_empty() { &askable } else { &matching };
        let turn = usize::try_from(lookup.request.nonce % choice.len().max(1) as u64).ok()?;
        choice.get(turn).copied()
    }

    /// Re-encapsulates the inner message (MS-15, MR-05).
    fn forward(&mut self, lookup: &Lookup, etr: IpAddr) {
        let Some(source) = self.own.source_for(etr, lookup.local) else {
            return;
        };
        let mut payload = Vec::new();
        lookup.ecm.encode(&mut payload);
        self.count(Count::MapRequestsForwarded);
        self.transmits.push_back(Transmit {
            source,
            source_port: SourcePort::Ephemeral,
            destination: SocketAddr::new(etr, CONTROL_PORT),
            payload,
        });
    }

    /// Sends what was not just sent to the same ITR-RLOC.
    fn reply(
        &mut self,
        now: Instant,
        lookup: &Lookup,
        answered: Vec<Vec<EidRecord>>,
    ) -> Result<(), Discard> {
        if lookup.request.dont_map_reply {
            return Err(Discard::DontMapReply);
        }
        let requester = lookup.requester(&self.own).ok_or(Discard::NoItrRloc)?;
        let rloc = requester.destination.ip();
        let (mut records, mut told): (Vec<EidRecord>, Vec<_>) = (Vec::new(), Vec::new());
        for answer in answered {
            let Some(prefix) = answer.first().and_then(|record| record.eid.prefix()) else {
                continue;
            };
            let (key, value) = ((rloc, prefix), fingerprint(&answer));
            if self.recent_replies.contains(now, &key, value) {
                continue;
            }
            told.push((key, value));
            for record in answer {
                if !records.iter().any(|other| other.eid == record.eid) {
                    records.push(record);
                }
            }
        }
        if records.is_empty() || !self.replies.take(now, &rloc) {
            return Err(Discard::ReplyRateLimited);
        }
        for (key, value) in told {
            self.recent_replies.record(now, &key, value);
        }
        let negative = records.iter().all(|record| record.is_negative());
        self.count(if negative { Count::NegativeMapReplies } else { Count::MapReplies });
        let payload = map_reply(self.payload(), lookup.request.nonce, records, rloc);
        self.transmits.push_back(Transmit {
            source: requester.source,
            source_port: SourcePort::Control,
            destination: requester.destination,
            payload,
        });
        Ok(())
    }
}

fn encoded(records: &[EidRecord]) -> Vec<u8> {
    let mut octets = Vec::new();
    MapReply::new(0, records.to_vec()).encode(&mut octets);
    octets
}

/// Equal for equal answers: RP-15 limits repetition; a mapping that has changed is told at once.
fn fingerprint(records: &[EidRecord]) -> u64 {
    let mut hasher = DefaultHasher::new();
    records.hash(&mut hasher);
    hasher.finish()
}
