//! Map-Register: authenticate, judge record by record, store, acknowledge, tell those who are affected (RFC 9301 §8.2).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::auth::Covered;
use crate::discard::Discard;
use crate::eid::EidPrefix;
use crate::timers::{RECEIVER_CHOSEN_TTL, TTL_RECEIVER_CHOOSES, control_payload_limit};
use crate::wire::{Action, EidRecord, LocatorRecord, MapNotifyAck, MapRegister};

use super::event::{Event, Refusal};
use super::notify::{Due, signed_notify, signed_notify_in, to_control_port};
use super::registry::{Outcome, Registered, Registrant, Registration};
use super::replay::{Checked, Freshness, Peer};
use super::site::{Signing, SiteIndex};
use super::{Count, MapServer};

/// Configured EID-prefixes whose sites' keys are tried on one message: a message has the records of one site, unless something is
/// wrong.
const MAX_CANDIDATE_PREFIXES: usize = 4;

/// Who sent an authentic Map-Register.
struct Sender {
    site: SiteIndex,
    signing: Signing,
    registrant: Registrant,
    source: IpAddr,
    local: IpAddr,
}

impl MapServer {
    pub(super) fn handle_register(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        register: &MapRegister,
        octets: &[u8],
    ) {
        let source = from.ip();
        let (site, signing) = match self.authenticate(now, source, register, octets) {
            Ok(found) => found,
            Err((site, reason)) => return self.refuse_message(site, source, register, reason),
        };
        let registrant = match register.identity {
            Some(id) if signing.covered == Covered::Message => {
                Registrant::Xtr(id.xtr_id, id.site_id)
            }
            _ => Registrant::Source(source),
        };
        let peer = Peer { site, key_id: signing.key_id, registrant };
        let mac = &register.authentication.mac;
        let Checked { freshness, forgotten } =
            match self.replay.check(now, peer, register.nonce, mac) {
                Ok(checked) => checked,
                Err(reason) => return self.refuse_message(Some(site), source, register, reason),
            };
        if freshness == Freshness::New {
            self.keep_nonce(peer);
        }
        if let Some(forgotten) = forgotten {
            self.forget_nonce(forgotten);
        }
        self.admission.registered(now, source);
        if register.records.iter().any(|record| self.is_older_version(registrant, record)) {
            let reason = Discard::MapVersionOlder;
            return self.refuse_message(Some(site), source, register, reason);
        }
        if freshness == Freshness::Retransmission {
            self.count(Count::Retransmissions);
        }
        let sender = Sender { site, signing, registrant, source, local };
        let mut accepted = Vec::new();
        for record in &register.records {
            match self.accept(now, &sender, register, record, freshness) {
                Ok(()) => accepted.push(EidRecord { action: Action::NoAction, ..record.clone() }),
                Err(reason) => {
                    self.refuse(Some(site), record.eid.prefix(), source, reason);
                }
            }
        }
        self.sites.get_mut(site).last_register = Some(now);
        if register.want_map_notify && !accepted.is_empty() {
            self.acknowledge(&sender, register, accepted);
        }
    }

    pub(super) fn handle_notify_ack(
        &mut self,
        from: SocketAddr,
        ack: &MapNotifyAck,
        octets: &[u8],
    ) {
        match self.notifier.acknowledge(ack, octets) {
            Ok(()) => self.count(Count::MapNotifyAcks),
            Err(Discard::AckNotExpected) => self.handle_publication_ack(from, ack, octets),
            Err(reason) => self.discard(from.ip(), reason),
        }
    }

    /// Drops expired registrations and repeats unacknowledged Map-Notifies.
    pub(super) fn handle_due(&mut self, now: Instant) {
        while !self.durability.cut_off
            && let Some((prefix, expired)) = self.registry.expire(now)
        {
            let site = self.sites.get(expired.site).name.clone();
            self.count(Count::Expired);
            self.event(Event::Expired { site, prefix, source: expired.source });
            self.tell_of_removal(now, prefix, expired.registrant);
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
        let supported = register.records.iter().any(|record| record.eid.prefix().is_some());
        let mut refusal =
            (None, if supported { Discard::NotASite } else { Discard::UnsupportedEid });
        for site in self.sites.candidates(&register.records, MAX_CANDIDATE_PREFIXES) {
            let admitted = self.admission.site(now, site, source);
            let signing = admitted.and_then(|()| self.sites.authenticate(site, register, octets));
            match signing {
                Ok(signing) => return Ok((site, signing)),
                // The first site's reason tells most, unless another one had the key at least.
                Err(reason) if refusal.0.is_none() || refusal.1 == Discard::KeyUnknown => {
                    refusal = (Some(site), reason);
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// MS-19: a Map-Version before the registered one, of this xTR if locator-sets are merged.
    fn is_older_version(&self, registrant: Registrant, record: &EidRecord) -> bool {
        let registered = record
            .eid
            .prefix()
            .and_then(|prefix| self.registry.get(&prefix))
            .map_or(&[][..], |entry| entry.registrations());
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
        register: &MapRegister,
        record: &EidRecord,
        freshness: Freshness,
    ) -> Result<(), Discard> {
        let prefix = self.sites.judge(sender.site, record)?;
        let withdrawn = record.ttl_minutes == 0;
        if freshness == Freshness::Retransmission {
            let held =
                withdrawn || !self.registry.is_full() || self.registry.get(&prefix).is_some();
            return held.then_some(()).ok_or(Discard::RegistryFull);
        }
        if withdrawn {
            self.withdraw(now, sender, prefix);
        } else {
            self.store(now, sender, register, record, prefix)?;
        }
        self.sites.get_mut(sender.site).accepted += 1;
        self.count(Count::RecordsAccepted);
        Ok(())
    }

    fn store(
        &mut self,
        now: Instant,
        sender: &Sender,
        register: &MapRegister,
        record: &EidRecord,
        prefix: EidPrefix,
    ) -> Result<(), Discard> {
        let lifetime = if register.use_ttl {
            ttl_duration(record.ttl_minutes)
        } else {
            self.registration_timeout
        };
        let locators: Vec<LocatorRecord> =
            record.usable_locators().map(|(_, locator)| locator.clone()).collect();
        let registration = Registration {
            registrant: sender.registrant,
            site: sender.site,
            signing: Some(sender.signing),
            identity: register.identity,
            source: sender.source,
            local: sender.local,
            since: now,
            expires: now + lifetime,
            lifetime,
            kept_until: None,
            ttl_minutes: record.ttl_minutes,
            proxy_reply: register.proxy_reply,
            merge: register.merge,
            security_capable: register.security_capable,
            map_version: record.map_version,
            locators,
        };
        let Registered { outcome, replaced, keep } =
            self.registry.register(prefix, registration).map_err(|_| Discard::RegistryFull)?;
        for other in replaced {
            self.forget_registration(&prefix, other);
        }
        if keep {
            self.keep_registration(&prefix, sender.registrant);
        }
        let (site, source) = (self.sites.get(sender.site).name.clone(), sender.source);
        match outcome {
            Outcome::Refreshed => {}
            Outcome::New => {
                self.event(Event::Registered { site, prefix, source });
                self.mapping_changed(now, prefix);
                let covering = self.covering_registrations(&prefix);
                self.notify_others(now, prefix, sender.registrant, &covering);
            }
            Outcome::Changed(others) => {
                self.event(Event::Changed { site, prefix, source });
                self.mapping_changed(now, prefix);
                self.notify_others(now, prefix, sender.registrant, &others);
            }
        }
        Ok(())
    }

    fn withdraw(&mut self, now: Instant, sender: &Sender, prefix: EidPrefix) {
        if self.registry.withdraw(&prefix, sender.registrant).is_some() {
            let site = self.sites.get(sender.site).name.clone();
            self.count(Count::Withdrawn);
            self.event(Event::Withdrawn { site, prefix, source: sender.source });
            self.tell_of_removal(now, prefix, sender.registrant);
        }
    }

    /// The ETRs that share what is left learn of it; if nothing is left, those of the covering registration do.
    fn tell_of_removal(&mut self, now: Instant, prefix: EidPrefix, registrant: Registrant) {
        self.forget_registration(&prefix, registrant);
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
    fn notify_others(
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
            let nonce = self.rng.random();
            let records = vec![mapping.clone()];
            let payload = signed_notify(nonce, records, other.identity, &signer)
                .filter(|payload| payload.len() <= control_payload_limit(other.source));
            let Some(payload) = payload else {
                self.count(Count::MapNotifiesTooLong);
                continue;
            };
            let transmit = to_control_port(other.local, other.source, payload);
            self.count(Count::UnsolicitedMapNotifies);
            self.transmit_once_kept(transmit.clone());
            self.notifier.watch(now, nonce, prefix, transmit, signer);
        }
    }

    /// Same nonce, same accepted records (ACT aside: RP-14), signed as the Map-Register was (MS-05); never longer than it, so no CW-06 question.
    fn acknowledge(&mut self, sender: &Sender, register: &MapRegister, records: Vec<EidRecord>) {
        let memory = self.payload();
        let payload = self.sites.signer(sender.site, sender.signing).and_then(|signer| {
            signed_notify_in(memory, register.nonce, records, register.identity, &signer)
        });
        if let Some(payload) = payload {
            self.count(Count::MapNotifies);
            self.transmit_once_kept(to_control_port(sender.local, sender.source, payload));
        }
    }

    fn refuse_message(
        &mut self,
        site: Option<SiteIndex>,
        source: IpAddr,
        register: &MapRegister,
        reason: Discard,
    ) {
        let prefix = register.records.first().and_then(|record| record.eid.prefix());
        self.refuse(site, prefix, source, reason);
    }

    fn refuse(
        &mut self,
        site: Option<SiteIndex>,
        prefix: Option<EidPrefix>,
        source: IpAddr,
        reason: Discard,
    ) {
        self.discards.count(reason);
        let name = site.map(|site| self.sites.get(site).name.clone());
        let refusal = Refusal { site: name, prefix, source, reason };
        if let Some(site) = site {
            let state = self.sites.get_mut(site);
            state.refused += 1;
            state.last_refusal = Some(refusal.clone());
        }
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
    const HALF: u16 = 2048;
    const MASK: u16 = 0x0fff;
    if version == 0 || than == 0 || version == than {
        return false;
    }
    let ahead = than.wrapping_sub(version) & MASK;
    if than > version { ahead <= HALF } else { ahead < HALF }
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
