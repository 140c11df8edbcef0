//! Map-Register: authenticate, judge record by record, store, acknowledge, tell those who are affected (RFC 9301 §8.2).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::auth::Covered;
use crate::config::Profile;
use crate::discard::Discard;
use crate::eid::{EidPrefix, MapVersion};
use crate::timers::{RECEIVER_CHOSEN_TTL, TTL_RECEIVER_CHOOSES, control_payload_limit};
use crate::transmit::Transmit;
use crate::wire::{Action, EidRecord, MapNotifyAck, MapRegister, Message, Tolerance, XtrIdentity};

use super::event::{Event, Refusal, Subject};
use super::nat::ThroughRtr;
use super::notify::{Due, MapNotifyBody, USUAL_NOTIFY, signed_notify_in, to_control_port};
use super::registry::{Locators, Outcome, Registered, Registrant, Registration};
use super::replay::{Checked, Freshness, Nonces, Peer};
use super::site::{Signer, Signing, SiteIndex, nobodys};
use super::{Count, MapServer};

/// Configured EID-prefixes whose sites' keys are tried on one message: a message has the records of one site, unless something is
/// wrong.
const MAX_CANDIDATE_PREFIXES: usize = 4;

/// Registrations that one call of [`MapServer::handle_due`] looks at, most of which were refreshed, and how many such looks one that
/// expires is worth: a million of them, due in the same second, hold up messages for a fraction of a millisecond each time.
const LOOKS_AT_ONCE: usize = 512;
const LOOKS_PER_EXPIRY: usize = 4;

/// Who sent an authentic Map-Register.
pub(super) struct Sender {
    pub(super) site: SiteIndex,
    signing: Signing,
    pub(super) registrant: Registrant,
    pub(super) from: SocketAddr,
    local: IpAddr,
    /// The ETR's own address, if `from` is an RTR that relayed the message.
    behind: Option<IpAddr>,
}

/// What a Map-Register says of all its records.
pub(super) struct Terms {
    proxy_reply: bool,
    merge: bool,
    security_capable: bool,
    use_ttl: bool,
    /// xTR-ID and Site-ID beyond the reach of the MAC.
    unproved: Option<XtrIdentity>,
}

impl MapServer {
    /// A message that is readable only if the Length of its JSON LCAFs is not believed: a Map-Register of lispers.net with telemetry.
    pub(super) fn handle_json_length(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        octets: &[u8],
    ) {
        let mended = Tolerance { json_length: true, ..Tolerance::NONE };
        match Message::parse_with(octets, mended) {
            Ok(Message::MapRegister(register)) => {
                self.count(Count::MapRegisters);
                self.handle_register(now, local, (from, None), register, (octets, mended));
            }
            _ => self.discard(from.ip(), Discard::JsonLength),
        }
    }

    /// `octets` are what `register` was read from, with this tolerance.
    pub(super) fn handle_register(
        &mut self,
        now: Instant,
        local: IpAddr,
        (from, behind): (SocketAddr, Option<IpAddr>),
        mut register: MapRegister,
        (octets, read_with): (&[u8], Tolerance),
    ) {
        let authenticated = self.authenticate(now, from.ip(), &register, octets);
        let (site, signing) = match authenticated {
            Ok(found) => found,
            Err((site, reason)) => return self.refuse_message(now, site, from, &register, reason),
        };
        if read_with.json_length {
            if self.sites.get(site).config.profile != Profile::LispersNet {
                let reason = Discard::JsonLength;
                return self.refuse_message(now, Some(site), from, &register, reason);
            }
            self.count(Count::JsonLengthsMended);
        }
        for prefix in register.records.iter().filter_map(|record| record.eid.prefix()) {
            self.review_covering(now, &prefix);
        }
        let covered = register.identity.filter(|_| signing.covered == Covered::Message);
        let registrant = covered.map_or(Registrant::Source(from.ip()), Registrant::xtr);
        let sender = Sender { site, signing, registrant, from, local, behind };
        let freshness = match self.judge_message(now, &sender, &register) {
            Ok(freshness) => freshness,
            Err(reason) => {
                return self.refuse_message(now, Some(site), from, &register, reason);
            }
        };
        let terms = Terms {
            proxy_reply: register.proxy_reply || self.sites.get(site).config.force_proxy_reply,
            merge: register.merge,
            security_capable: register.security_capable,
            use_ttl: register.use_ttl,
            unproved: register.identity.filter(|_| covered.is_none()),
        };
        let mut accepted = std::mem::take(&mut register.records);
        accepted.retain_mut(|record| {
            match self.accept(now, &sender, &terms, record, freshness) {
                // RP-14: no Map-Notify tells an ACT.
                Ok(()) => record.action = Action::NoAction,
                Err(reason) => {
                    let subject = match reason {
                        Discard::LocatorRefused => self.sites.refused_locator(site, record),
                        _ => None,
                    };
                    let (prefix, subject) = (record.eid.prefix(), subject.map(Subject::Locator));
                    let site = Some(site);
                    self.refuse(now, site, (prefix, from.ip()), reason, subject);
                    return false;
                }
            }
            true
        });
        self.sites.get_mut(site).last_register = Some(now);
        if register.want_map_notify && !accepted.is_empty() {
            self.acknowledge(&sender, &register, accepted);
        }
    }

    /// Judges an authentic message as a whole: the site's state, the nonce, the Map-Versions.
    fn judge_message(
        &mut self,
        now: Instant,
        sender: &Sender,
        register: &MapRegister,
    ) -> Result<Freshness, Discard> {
        let config = &self.sites.get(sender.site).config;
        if config.admin_down {
            return Err(Discard::SiteDown);
        }
        let nonces = Nonces::of(config.profile);
        let Sender { site, signing, registrant, .. } = *sender;
        let peer = Peer { site, key_id: signing.key_id, registrant };
        let mac = &register.authentication.mac;
        let Checked { freshness, forgotten } =
            self.replay.check(now, peer, nonces, register.nonce, mac)?;
        match freshness {
            Freshness::New => {
                // A retransmission may come from anywhere: whoever saw the message can send it again.
                self.admission.registered(now, sender.from.ip());
                if nonces != Nonces::Constant {
                    self.keep_nonce(now, &peer, register.nonce, mac);
                }
            }
            Freshness::Retransmission => self.count(Count::Retransmissions),
        }
        if let Some(forgotten) = forgotten {
            self.forget_nonce(&forgotten);
        }
        if register.records.iter().any(|record| self.is_older_version(registrant, record)) {
            return Err(Discard::MapVersionOlder);
        }
        Ok(freshness)
    }

    pub(super) fn handle_notify_ack(
        &mut self,
        now: Instant,
        from: SocketAddr,
        ack: &MapNotifyAck,
        octets: &[u8],
    ) {
        match self.notifier.acknowledge(ack, octets) {
            Ok(()) => self.count(Count::MapNotifyAcks),
            Err(Discard::AckNotExpected) => self.handle_publication_ack(now, from, ack, octets),
            Err(reason) => self.discard(from.ip(), reason),
        }
    }

    /// A Map-Notify-Ack that nobody waits for.
    ///
    /// lispers.net acknowledges acknowledgements too, with nothing but its xTR-ID and Site-ID.
    pub(super) fn refuse_notify_ack(
        &mut self,
        from: SocketAddr,
        ack: &MapNotifyAck,
        reason: Discard,
    ) {
        let bare = ack.0.records.is_empty() && ack.0.identity.is_some();
        if reason == Discard::AckNotExpected && bare && self.sites.has_profile(Profile::LispersNet)
        {
            self.count(Count::NeedlessMapNotifyAcks);
        } else {
            self.discard(from.ip(), reason);
        }
    }

    /// Drops expired registrations and repeats unacknowledged Map-Notifies.
    pub(super) fn handle_due(&mut self, now: Instant) {
        let mut looks = if self.durability.cut_off { 0 } else { LOOKS_AT_ONCE };
        while let Some((prefix, expired)) = self.registry.expire(now, &mut looks) {
            looks = looks.saturating_sub(LOOKS_PER_EXPIRY);
            let site = self.sites.get(expired.site).name.clone();
            self.count(Count::Expired);
            self.event(Event::Expired { site, prefix, source: expired.source });
            self.tell_of_removal(now, prefix, expired.registrant);
        }
        if !self.durability.cut_off {
            self.handle_due_names(now);
        }
        while let Some(due) = self.notifier.take_due(now) {
            match due {
                Due::Retransmit(transmit) => {
                    self.count(Count::MapNotifyRetransmissions);
                    self.transmits.push_back(transmit);
                }
                Due::GivenUp { prefix, destination } => {
                    self.event(Event::NotifyUnacknowledged { prefix, destination });
                }
            }
        }
    }

    /// The site and key that a message was signed with.
    fn authenticate(
        &mut self,
        now: Instant,
        source: IpAddr,
        register: &MapRegister,
        octets: &[u8],
    ) -> Result<(SiteIndex, Signing), (Option<SiteIndex>, Discard)> {
        if register.records.is_empty() {
            return Err((None, Discard::Malformed));
        }
        // Nearly always right, and found without a list.
        let likeliest = self.sites.likeliest(&register.records);
        let mut refusal = None;
        if let Some(site) = likeliest {
            match self.try_site(now, source, site, register, octets) {
                Ok(signing) => return Ok((site, signing)),
                Err(reason) => refusal = Some((Some(site), reason)),
            }
        }
        for site in self.sites.candidates(&register.records, MAX_CANDIDATE_PREFIXES) {
            if Some(site) == likeliest {
                continue;
            }
            match self.try_site(now, source, site, register, octets) {
                Ok(signing) => return Ok((site, signing)),
                // The first site's reason tells most, unless another one had the key at least.
                Err(reason) if refusal.is_none_or(|(_, first)| first == Discard::KeyUnknown) => {
                    refusal = Some((Some(site), reason));
                }
                Err(_) => {}
            }
        }
        let eids = register.records.iter().map(|record| nobodys(&record.eid));
        Err(refusal.unwrap_or_else(|| {
            // Of records that nobody knows, one that somebody could register tells most.
            let reason = eids.min_by_key(|reason| *reason != Discard::NotASite);
            (None, reason.unwrap_or(Discard::NotASite))
        }))
    }

    fn try_site(
        &mut self,
        now: Instant,
        source: IpAddr,
        site: SiteIndex,
        register: &MapRegister,
        octets: &[u8],
    ) -> Result<Signing, Discard> {
        self.admission.site(now, site, source)?;
        self.sites.authenticate(site, &register.authentication, octets)
    }

    /// MS-19: a Map-Version before the registered one, of this xTR if locator-sets are merged.
    fn is_older_version(&self, registrant: Registrant, record: &EidRecord) -> bool {
        if record.map_version == 0 {
            return false;
        }
        let entry = match record.eid.prefix() {
            Some(prefix) => self.registry.get(&prefix),
            None => record.eid.name().and_then(|name| self.names.get(&name)),
        };
        let registered = entry.map_or(&[][..], |entry| entry.registrations());
        let known = match registered {
            [only] => Some(only),
            several => several.iter().find(|other| other.registrant == registrant),
        };
        known.is_some_and(|known| is_older(record.map_version, known.map_version))
    }

    /// Judges one record and, unless its message is a retransmission, stores it.
    fn accept(
        &mut self,
        now: Instant,
        sender: &Sender,
        terms: &Terms,
        record: &EidRecord,
        freshness: Freshness,
    ) -> Result<(), Discard> {
        if let Some(name) = record.eid.name() {
            return self.accept_name(now, sender, terms, record, &name, freshness);
        }
        self.sites.judge(sender.site, record)?;
        let prefix = record.eid.prefix().ok_or(Discard::UnsupportedEid)?;
        let withdrawn = record.ttl_minutes == 0;
        if freshness == Freshness::Retransmission {
            let held = withdrawn || self.registry.get(&prefix).is_some();
            return self.make_sure_held(sender, held, self.registry.is_full());
        }
        if withdrawn {
            self.withdraw(now, sender, prefix);
        } else {
            self.store(now, sender, terms, record, prefix)?;
        }
        self.sites.get_mut(sender.site).accepted += 1;
        self.count(Count::RecordsAccepted);
        Ok(())
    }

    /// A retransmission is acknowledged unless the first message was refused for want of room.
    pub(super) fn make_sure_held(
        &self,
        sender: &Sender,
        is_held: bool,
        is_full: bool,
    ) -> Result<(), Discard> {
        if is_held {
            return Ok(());
        }
        let limit = self.sites.get(sender.site).config.max_registrations;
        if is_full {
            Err(Discard::RegistryFull)
        } else if self.registrations_of(sender.site) >= limit {
            Err(Discard::SiteFull)
        } else {
            Ok(())
        }
    }

    /// Registrations of one site, of EID-prefixes and of names.
    pub(super) fn registrations_of(&self, site: SiteIndex) -> usize {
        self.registry.len_of(site) + self.names.len_of(site)
    }

    fn store(
        &mut self,
        now: Instant,
        sender: &Sender,
        terms: &Terms,
        record: &EidRecord,
        prefix: EidPrefix,
    ) -> Result<(), Discard> {
        let registration = self.registration(now, sender, terms, record);
        let limit = self.sites.get(sender.site).config.max_registrations;
        let limit = limit.saturating_sub(self.names.len_of(sender.site));
        let Registered { outcome, replaced, keep } =
            self.registry.register(now, prefix, registration, limit)?;
        let took_over = !replaced.is_empty();
        for other in replaced {
            self.forget_registration(&prefix, other);
        }
        if keep {
            self.keep_registration(&prefix, sender.registrant);
        }
        let (site, source) = (sender.site, sender.from.ip());
        if took_over {
            // What it was to hear of the others is over: it says itself that the EID-prefix is there.
            self.notifier.forget_target(source, &prefix);
        }
        match outcome {
            Outcome::Refreshed => {}
            Outcome::New => {
                let site = self.sites.get(site).name.clone();
                self.event(Event::Registered { site, prefix, source });
                self.mapping_changed(now, prefix);
                let covering = self.covering_registrations(&prefix);
                self.notify_others(now, prefix, sender.registrant, &covering);
                self.tell_what_is_elsewhere(now, prefix, sender.registrant);
            }
            Outcome::Changed(others) => {
                let site = self.sites.get(site).name.clone();
                self.event(Event::Changed { site, prefix, source });
                self.mapping_changed(now, prefix);
                // Whoever has the covering prefix sends after the EID where it is now, not where it was.
                let mut affected = self.covering_registrations(&prefix);
                affected
                    .retain(|one| !others.iter().any(|other| other.registrant == one.registrant));
                affected.extend(others);
                self.notify_others(now, prefix, sender.registrant, &affected);
            }
        }
        Ok(())
    }

    /// A registration of what `record` tells.
    pub(super) fn registration(
        &mut self,
        now: Instant,
        sender: &Sender,
        terms: &Terms,
        record: &EidRecord,
    ) -> Registration {
        let lifetime = if terms.use_ttl {
            ttl_duration(record.ttl_minutes)
        } else {
            self.registration_timeout
        };
        let timeline = self.registry.timeline(now);
        let expires = timeline.ceil(now + lifetime);
        let locators = Locators::of(record);
        Registration {
            registrant: sender.registrant,
            site: sender.site,
            signing: Some(sender.signing),
            unproved: terms.unproved.map(Box::new),
            source: sender.from.ip(),
            local: sender.local,
            since: timeline.floor(now),
            expires,
            kept_until: expires,
            lifetime_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            ttl_minutes: record.ttl_minutes,
            proxy_reply: terms.proxy_reply,
            merge: terms.merge,
            security_capable: terms.security_capable,
            // ACT decides only where there is no locator.
            action: if locators.is_empty() { record.action } else { Action::NoAction },
            map_version: record.map_version,
            locators,
        }
    }

    fn withdraw(&mut self, now: Instant, sender: &Sender, prefix: EidPrefix) {
        if self.registry.withdraw(&prefix, sender.registrant).is_some() {
            let site = self.sites.get(sender.site).name.clone();
            self.count(Count::Withdrawn);
            self.event(Event::Withdrawn { site, prefix, source: sender.from.ip() });
            self.tell_of_removal(now, prefix, sender.registrant);
        }
    }

    /// The ETRs that share what is left learn of it; if nothing is left, those of the covering registration do.
    pub(super) fn tell_of_removal(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        registrant: Registrant,
    ) {
        self.forget_registration(&prefix, registrant);
        self.review_covering(now, &prefix);
        self.mapping_changed(now, prefix);
        let affected = match self.registry.get(&prefix) {
            Some(entry) => entry.registrations().to_vec(),
            None => self.covering_registrations(&prefix),
        };
        self.notify_others(now, prefix, registrant, &affected);
    }

    /// The registrations that `prefix` was a part of: an EID that is registered alone has left the place of the covering prefix.
    ///
    /// Only within one configured EID-prefix: beyond it, overlapping sites have nothing to do with each other.
    fn covering_registrations(&self, prefix: &EidPrefix) -> Vec<Registration> {
        let configured = self.sites.configured(prefix);
        self.registry
            .parent(prefix)
            .filter(|(parent, _)| configured.is_some_and(|configured| configured.covers(parent)))
            .map_or_else(Vec::new, |(_, entry)| entry.registrations().to_vec())
    }

    /// Sends the mapping as it is now, TTL 0 if there is none, to every ETR of `previous` but the one that changed it (MS-08).
    pub(super) fn notify_others(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        changed_by: Registrant,
        previous: &[Registration],
    ) {
        let mapping = self
            .registry
            .get(&prefix)
            .map_or_else(|| EidRecord::new(prefix, 0, Vec::new()), |entry| entry.record(prefix));
        for other in previous.iter().filter(|other| other.registrant != changed_by) {
            // Without the key that it registered with nothing can be proved to it.
            let Some(signer) =
                other.signing.and_then(|signing| self.sites.signer(other.site, signing))
            else {
                continue;
            };
            // It may have registered with another Map-Server of the cluster.
            let Some(local) = self.own.source_for(other.source, other.local) else { continue };
            let nonce = self.rng.random();
            let records = vec![mapping.clone()];
            // The RTR knows the ETR's own address.
            let behind = self.rtrs.get(other.source).map(|rtr| rtr.address);
            let memory = Vec::with_capacity(USUAL_NOTIFY);
            let said = (nonce, records, other.identity());
            let transmit = self.notification(memory, said, &signer, (local, other.source, behind));
            let Some(transmit) =
                transmit.filter(|sent| sent.payload.len() <= control_payload_limit(other.source))
            else {
                self.count(Count::MapNotifiesTooLong);
                continue;
            };
            self.count(Count::UnsolicitedMapNotifies);
            self.transmit_once_kept(transmit.clone());
            self.notifier.watch(now, nonce, prefix, transmit, signer);
        }
    }

    /// Same nonce, same accepted records (ACT aside: RP-14), signed as the Map-Register was (MS-05); never longer than it, so no CW-06 question.
    fn acknowledge(&mut self, sender: &Sender, register: &MapRegister, records: Vec<EidRecord>) {
        let memory = self.payload();
        let said = (register.nonce, records, register.identity);
        let path = (sender.local, sender.from.ip(), sender.behind);
        let transmit = self
            .sites
            .signer(sender.site, sender.signing)
            .and_then(|signer| self.notification(memory, said, &signer, path));
        if let Some(mut transmit) = transmit {
            self.count(Count::MapNotifies);
            // lispers.net listens where it sent from (REQUIREMENTS §27 item 1).
            let direct = sender.behind.is_none();
            if direct && self.sites.get(sender.site).config.profile == Profile::LispersNet {
                transmit.destination = sender.from;
            }
            self.transmit_once_kept(transmit);
        }
    }

    /// A Map-Notify of nonce, records and identity, from an own address to an ETR, which may be behind a NAT: then by its RTR.
    fn notification(
        &self,
        memory: Vec<u8>,
        (nonce, records, identity): (u64, Vec<EidRecord>, Option<XtrIdentity>),
        signer: &Signer,
        (local, to, behind): (IpAddr, IpAddr, Option<IpAddr>),
    ) -> Option<Transmit> {
        let said = MapNotifyBody { nonce, records, identity, flagged: behind.is_some() };
        let notify = signed_notify_in(memory, said, signer)?;
        match behind {
            None => Some(to_control_port(local, to, notify)),
            Some(etr) => ThroughRtr { rtr: self.rtrs.get(to)?, local, etr }.wrap(notify),
        }
    }

    fn refuse_message(
        &mut self,
        now: Instant,
        site: Option<SiteIndex>,
        from: SocketAddr,
        register: &MapRegister,
        reason: Discard,
    ) {
        let prefix = register.records.first().and_then(|record| record.eid.prefix());
        let algorithm = Subject::Algorithm(register.authentication.algorithm_id);
        let subject = (reason == Discard::AlgorithmRefused).then_some(algorithm);
        self.refuse(now, site, (prefix, from.ip()), reason, subject);
    }

    fn refuse(
        &mut self,
        now: Instant,
        site: Option<SiteIndex>,
        (prefix, source): (Option<EidPrefix>, IpAddr),
        reason: Discard,
        subject: Option<Subject>,
    ) {
        self.discards.count(reason);
        let name = site.map(|site| self.sites.get(site).name.clone());
        let refusal = Refusal { site: name, prefix, source, reason, subject };
        if let Some(site) = site {
            let state = self.sites.get_mut(site);
            state.count_refusal(reason);
            state.last_refusal = Some(refusal.clone());
        }
        self.refusals.add(now, &refusal);
        self.event(Event::Refused(refusal));
    }
}

/// MS-04.
fn ttl_duration(ttl_minutes: u32) -> Duration {
    if ttl_minutes == TTL_RECEIVER_CHOOSES {
        return RECEIVER_CHOSEN_TTL;
    }
    Duration::from_secs(u64::from(ttl_minutes) * 60)
}

/// Whether Map-Version `version` comes before `than`, 12 bits in a circle, 0 being no version (RFC 9302 §6).
fn is_older(version: u16, than: u16) -> bool {
    MapVersion::from_bits(than).is_newer_than(MapVersion::from_bits(version))
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn ms_19_versions_are_compared_in_a_circle() {
        for newer in [70, 71, 2117] {
            assert!(is_older(69, newer) && !is_older(newer, 69), "{newer}");
        }
        for older in [2118, 4095, 1, 68] {
            assert!(is_older(older, 69) && !is_older(69, older), "{older}");
        }
        assert!(!is_older(69, 69) && !is_older(0, 69) && !is_older(69, 0));
    }
}
