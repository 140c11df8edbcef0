//! What survives a restart: every change as a key and a value, and the way back.
//!
//! Each accepted Map-Register costs one small entry, its nonce. A registration is written when it changes, and when a refresh has
//! moved its expiry so far that a restart would end it too early: about every second time. [`kept_grace`] makes up for the rest.

use std::time::Instant;

use crate::clock::Epoch;
use crate::discard::Discard;
use crate::eid::{EidPrefix, NamePrefix};
use crate::store::{Batch, ChangeLog};
use crate::transmit::Transmit;
use crate::wire::EidField;

use super::event::Event;
use super::kept::{self, KeptNonce, KeptRegistration, KeptSigning};
use super::registry::{Locators, Registrant, Registration, Timeline, kept_grace};
use super::replay::{Peer, kept_mac};
use super::subscription::kept::{PAST, SUBSCRIPTION};
use super::{MapServer, Refusal};

/// A kept key or value that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state entry {key:02x?} cannot be understood")]
pub struct StateError {
    /// The key.
    pub key: Vec<u8>,
}

/// The changes since the last batch, and the messages that wait for them. Nothing without an epoch.
#[derive(Debug, Default)]
pub(super) struct Durability {
    pub(super) epoch: Option<Epoch>,
    pub(super) changes: ChangeLog,
    /// Keys are written here before they are logged.
    key: Vec<u8>,
    held: Vec<Transmit>,
    /// Refreshes that other Map-Servers accepted are not seen: nothing may expire.
    pub(super) cut_off: bool,
}

impl MapServer {
    /// Takes one kept entry, before anything else happens.
    ///
    /// What the configuration does not allow any more is left alone and told as [`Event::NotRestored`]; it goes with its time.
    ///
    /// # Errors
    /// The entry is of no kind known here, or does not decode.
    pub fn restore(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let understood = self.take_entry(now, key, Some(value), Origin::Own);
        understood.ok_or_else(|| StateError { key: key.to_vec() })
    }

    /// Takes a change that another Map-Server of the cluster made to the common state; `None` deletes.
    ///
    /// Those who are affected are told by the Map-Server that accepted the registration.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn apply(
        &mut self,
        now: Instant,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let understood = self.take_entry(now, key, value, Origin::Other);
        understood.ok_or_else(|| StateError { key: key.to_vec() })
    }

    /// Whether changes by the other Map-Servers of the cluster cannot be seen now.
    ///
    /// Nothing expires meanwhile: a registration that may well be refreshed elsewhere is a better answer than a negative one. Those who ask
    /// find out by the locators' reachability, and by the TTL.
    pub fn set_cut_off(&mut self, cut_off: bool) {
        self.durability.cut_off = cut_off;
    }

    /// What to keep since the last call, with the messages to send once it is kept; `None` when there is neither.
    pub fn take_batch(&mut self) -> Option<Batch> {
        let Durability { changes, held, .. } = &mut self.durability;
        if changes.is_empty() && held.is_empty() {
            return None;
        }
        let transmits = std::mem::replace(held, Vec::with_capacity(held.len()));
        Some(Batch { changes: changes.take(), transmits })
    }

    /// Sends a message that must not leave before the changes logged so far are kept.
    pub(super) fn transmit_once_kept(&mut self, transmit: Transmit) {
        match self.durability.epoch {
            Some(_) => self.durability.held.push(transmit),
            None => self.transmits.push_back(transmit),
        }
    }

    /// Logs the registration as it is now.
    pub(super) fn keep_registration(&mut self, prefix: &EidPrefix, registrant: Registrant) {
        let Some((epoch, timeline)) = self.durability.epoch.zip(self.registry.known_timeline())
        else {
            return;
        };
        let registrations = self.registry.get(prefix).map_or(&[][..], |e| e.registrations());
        if let Some(registration) = registrations.iter().find(|r| r.registrant == registrant) {
            let site = &self.sites.get(registration.site).name;
            let value = registration.kept(site, *prefix, &epoch, &timeline).encode();
            let Durability { key, changes, .. } = &mut self.durability;
            kept::registration_key(key, prefix, registrant);
            changes.put(key, &value);
        }
    }

    /// Logs that the registration is no more.
    pub(super) fn forget_registration(&mut self, prefix: &EidPrefix, registrant: Registrant) {
        let Durability { epoch, key, changes, .. } = &mut self.durability;
        if epoch.is_some() {
            kept::registration_key(key, prefix, registrant);
            changes.delete(key);
        }
    }

    /// Logs the registration of a name as it is now.
    pub(super) fn keep_name(&mut self, name: &NamePrefix, registrant: Registrant) {
        let Some((epoch, timeline)) = self.durability.epoch.zip(self.registry.known_timeline())
        else {
            return;
        };
        let registrations = self.names.get(name).map_or(&[][..], |entry| entry.registrations());
        if let Some(registration) = registrations.iter().find(|r| r.registrant == registrant) {
            let site = &self.sites.get(registration.site).name;
            let value = registration.kept(site, name, &epoch, &timeline).encode();
            let Durability { key, changes, .. } = &mut self.durability;
            kept::name_key(key, name, registrant);
            changes.put(key, &value);
        }
    }

    /// Logs that the registration of a name is no more.
    pub(super) fn forget_name(&mut self, name: &NamePrefix, registrant: Registrant) {
        let Durability { epoch, key, changes, .. } = &mut self.durability;
        if epoch.is_some() {
            kept::name_key(key, name, registrant);
            changes.delete(key);
        }
    }

    /// Logs the last accepted nonce of `peer`.
    pub(super) fn keep_nonce(&mut self, now: Instant, peer: &Peer, nonce: u64, mac: &[u8]) {
        let Durability { epoch: Some(epoch), key, changes, .. } = &mut self.durability else {
            return;
        };
        let value = KeptNonce { nonce, at: epoch.unix_millis(now), mac: kept_mac(mac) };
        kept::nonce_key(key, &self.sites.get(peer.site).name, peer.key_id, peer.registrant);
        changes.put(key, &value.encode());
    }

    /// Logs that the nonces of `peer` are not remembered any more.
    pub(super) fn forget_nonce(&mut self, peer: &Peer) {
        let Durability { epoch, key, changes, .. } = &mut self.durability;
        if epoch.is_some() {
            kept::nonce_key(key, &self.sites.get(peer.site).name, peer.key_id, peer.registrant);
            changes.delete(key);
        }
    }

    /// `None` if it cannot be understood.
    fn take_entry(
        &mut self,
        now: Instant,
        key: &[u8],
        value: Option<&[u8]>,
        origin: Origin,
    ) -> Option<()> {
        match *key.first()? {
            SUBSCRIPTION => self.take_subscription(now, key, value, origin == Origin::Own),
            PAST => self.take_past(key, value),
            kept::REGISTRATION => {
                let (prefix, registrant) = kept::parse_registration_key(key)?;
                match value {
                    Some(value) => self.take_registration(now, prefix, registrant, value, origin),
                    None => {
                        self.registry.withdraw(&prefix, registrant);
                        Some(())
                    }
                }
            }
            kept::NAME => self.take_name(now, key, value, origin),
            kept::NONCE => {
                let (site, key_id, registrant) = kept::parse_nonce_key(key)?;
                let Some(value) = value else {
                    // What was accepted here alone was refused, or all Map-Servers forget together.
                    if let Some(site) = self.sites.named(site) {
                        self.replay.forget(&Peer { site, key_id, registrant });
                    }
                    return Some(());
                };
                let KeptNonce { nonce, at, mac } = KeptNonce::parse(value)?;
                // The nonces of a site that is configured again later are valid then.
                let Some(site) = self.sites.named(site) else { return Some(()) };
                let at = self.durability.epoch?.instant(at).map_or(now, |at| at.min(now));
                let peer = Peer { site, key_id, registrant };
                if let Some(forgotten) = self.replay.restore(peer, nonce, mac, at) {
                    self.forget_nonce(&forgotten);
                }
                Some(())
            }
            _ => None,
        }
    }

    fn take_registration(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        registrant: Registrant,
        value: &[u8],
        origin: Origin,
    ) -> Option<()> {
        let epoch = self.durability.epoch?;
        let kept =
            KeptRegistration::parse(value).filter(|k| k.record.eid.prefix() == Some(prefix))?;
        if kept.is_over(&epoch, now) {
            // Nobody refreshed it while there was nobody to ask.
            if origin == Origin::Own {
                self.forget_registration(&prefix, registrant);
            }
            return Some(());
        }
        match self.rejoin(now, registrant, &kept, epoch) {
            Ok((registration, limit)) => {
                let limit = limit.saturating_sub(self.names.len_of(registration.site));
                match self.registry.register(now, prefix, registration, limit) {
                    Ok(registered) if origin == Origin::Own => {
                        for replaced in registered.replaced {
                            self.forget_registration(&prefix, replaced);
                        }
                    }
                    Ok(_) => {}
                    Err(reason) => self.not_restored(&kept, reason),
                }
            }
            Err(reason) => self.not_restored(&kept, reason),
        }
        Some(())
    }

    fn take_name(
        &mut self,
        now: Instant,
        key: &[u8],
        value: Option<&[u8]>,
        origin: Origin,
    ) -> Option<()> {
        let (instance_id, octets, registrant) = kept::parse_name_key(key)?;
        let Some(value) = value else {
            let name = NamePrefix::new(instance_id, octets, 0)?;
            self.names.withdraw(&name, registrant);
            return Some(());
        };
        let epoch = self.durability.epoch?;
        let kept = KeptRegistration::parse(value)?;
        let name = kept.record.eid.name()?;
        if (name.instance_id(), name.name()) != (instance_id, octets) {
            return None;
        }
        if kept.is_over(&epoch, now) {
            if origin == Origin::Own {
                self.forget_name(&name, registrant);
            }
            return Some(());
        }
        let joined = self.rejoin(now, registrant, &kept, epoch);
        let stored = joined.and_then(|(registration, limit)| {
            let limit = limit.saturating_sub(self.registry.len_of(registration.site));
            self.names.register(&name, registration, limit)
        });
        match stored {
            Ok(stored) if origin == Origin::Own => {
                for replaced in stored.replaced {
                    self.forget_name(&name, replaced);
                }
            }
            Ok(_) => {}
            Err(reason) => self.not_restored(&kept, reason),
        }
        Some(())
    }

    fn not_restored(&mut self, kept: &KeptRegistration<'_>, reason: Discard) {
        self.event(Event::NotRestored(Refusal {
            site: Some(kept.site.into()),
            prefix: kept.record.eid.prefix(),
            source: kept.source,
            reason,
            subject: None,
        }));
    }

    /// A kept registration in the terms of the configuration as it is now, with the bound of its site; or the rule that forbids it.
    fn rejoin(
        &mut self,
        now: Instant,
        registrant: Registrant,
        kept: &KeptRegistration<'_>,
        epoch: Epoch,
    ) -> Result<(Registration, usize), Discard> {
        let site = self.sites.named(kept.site).ok_or(Discard::NotASite)?;
        let config = &self.sites.get(site).config;
        let (limit, forced) = (config.max_registrations, config.force_proxy_reply);
        if config.admin_down {
            return Err(Discard::SiteDown);
        }
        self.sites.judge(site, &kept.record)?;
        let timeline = self.registry.timeline(now);
        let lifetime = kept.lifetime_seconds;
        let kept_until = timeline.ceil(epoch.instant(kept.expires).unwrap_or(now));
        let signing =
            kept.signing.and_then(|KeptSigning { key_id, algorithm, mac_len, covered }| {
                self.sites.rejoin(site, key_id, algorithm, mac_len, covered)
            });
        let since = epoch.instant(kept.since).map_or(now, |since| since.min(now));
        let registration = Registration {
            registrant,
            site,
            signing,
            unproved: kept.identity.filter(|_| registrant.identity().is_none()).map(Box::new),
            source: kept.source,
            local: kept.local,
            since: timeline.floor(since),
            // A clock that was set back lets nothing live longer than if it had just been refreshed.
            expires: kept_until.plus(kept_grace(lifetime)).min(timeline.ceil(now).plus(lifetime)),
            kept_until,
            lifetime_seconds: lifetime,
            ttl_minutes: kept.record.ttl_minutes,
            proxy_reply: kept.proxy_reply || forced,
            merge: kept.merge,
            security_capable: kept.security_capable,
            action: kept.record.action,
            map_version: kept.record.map_version,
            locators: Locators::of(&kept.record),
        };
        Ok((registration, limit))
    }
}

/// Whose entry is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The own state of before, to be cleaned up too.
    Own,
    /// Another Map-Server's, who looks after it.
    Other,
}

impl KeptRegistration<'_> {
    /// Whether nobody refreshed it in time, as far as the durable state knows.
    fn is_over(&self, epoch: &Epoch, now: Instant) -> bool {
        let grace = u64::from(kept_grace(self.lifetime_seconds)) * 1_000;
        self.expires.saturating_add(grace) <= epoch.unix_millis(now)
    }
}

impl Registration {
    fn kept<'a>(
        &self,
        site: &'a str,
        eid: impl Into<EidField>,
        epoch: &Epoch,
        timeline: &Timeline,
    ) -> KeptRegistration<'a> {
        KeptRegistration {
            site,
            since: epoch.unix_millis(timeline.instant(self.since)),
            expires: epoch.unix_millis(timeline.instant(self.expires)),
            lifetime_seconds: self.lifetime_seconds,
            proxy_reply: self.proxy_reply,
            merge: self.merge,
            security_capable: self.security_capable,
            signing: self.signing.map(|signing| KeptSigning {
                key_id: signing.key_id,
                algorithm: signing.algorithm,
                mac_len: signing.mac_len,
                covered: signing.covered,
            }),
            identity: self.identity(),
            source: self.source,
            local: self.local,
            record: self.record(eid),
        }
    }
}
