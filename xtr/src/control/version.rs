//! Map-Versioning: the versions of own mappings, and what headers say of versions (RFC 9302).
use super::itr::Purpose;
use super::map_cache::lifetime;
use super::trust::Trust;
use super::{ControlPlane, Event, MappingOrigin};
use crate::config::{ControlConfig, KeptVersion, TrustedCore};
use crate::marks::StatusBits;
use mapping::eid::{Eid, EidPrefix, MapVersion};
use mapping::timers;
use mapping::wire::LocatorRecord;
use rand::RngExt;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two events about impossible versions.
const EVENT_INTERVAL: Duration = Duration::from_secs(10);

/// After a restart a mapping that is another one, or may have been, goes on so much later: a crash loses fewer changes.
const SKIPPED: u16 = 16;

/// An own mapping and its version.
#[derive(Debug)]
pub(super) struct OwnVersion {
    /// Null without Map-Versioning.
    pub(super) version: MapVersion,
    /// What it is the version of.
    locators: Vec<LocatorRecord>,
    /// When no cache can have an older one any more (MV-12).
    older_until: Instant,
    pub(super) refuses_older: bool,
    /// The use-LSB timer (DH-22).
    no_bits_until: Option<Instant>,
}

impl OwnVersion {
    /// To be sent with its packets, unless the use-LSB timer runs.
    pub(super) fn status_bits(&self) -> Option<StatusBits> {
        let all = StatusBits::all_up(self.locators.len());
        let bits = self
            .locators
            .iter()
            .zip(0..)
            .fold(all, |bits, (locator, ordinal)| bits.with(ordinal, locator.reachable));
        self.no_bits_until.is_none().then_some(bits)
    }

    /// Its timer: there is one at a time.
    fn next_timeout(&self) -> Option<Instant> {
        let older = (!self.refuses_older).then_some(self.older_until);
        older.into_iter().chain(self.no_bits_until).min()
    }
}

impl Trust {
    /// Forgets own mappings that are gone; whether there were any.
    fn forget_own(&mut self, is_gone: impl Fn(&EidPrefix) -> bool) -> bool {
        let (before, timers) = (self.own.len(), &mut self.own_timers);
        self.own.retain(|known, own| {
            let goes = is_gone(known);
            if let Some(due) = own.next_timeout().filter(|_| goes) {
                timers.remove(&(due, *known));
            }
            !goes
        });
        self.own.len() != before
    }
}

/// An ITR that uses an old version of an own mapping.
#[derive(Debug)]
pub(super) struct Stale {
    /// SMRs sent to it.
    sent: u32,
    next: Instant,
    pub(super) refused: bool,
}

impl ControlPlane {
    /// The version of an own mapping, for records (RP-17): 0 where there are none.
    pub(super) fn map_version(&self, prefix: &EidPrefix) -> u16 {
        let own = self.trust.as_ref().and_then(|trust| trust.own.get(prefix));
        own.map_or(0, |own| own.version.get())
    }

    /// The versions of own mappings.
    pub fn map_versions(&self) -> impl Iterator<Item = (EidPrefix, MapVersion)> {
        let own = self.trust.iter().flat_map(|trust| &trust.own);
        own.map(|(prefix, own)| (*prefix, own.version)).filter(|(_, version)| !version.is_null())
    }

    /// The versions of own mappings, if any changed: to be kept for the next start ([`TrustedCore::kept`]).
    pub fn poll_map_versions(&mut self) -> Option<BTreeMap<EidPrefix, KeptVersion>> {
        let trust = self.trust.as_deref_mut()?;
        let versions = trust.own.iter().filter(|(_, own)| !own.version.is_null());
        let kept = |(prefix, own): (&EidPrefix, &OwnVersion)| {
            let locators = in_words(&own.locators);
            (*prefix, KeptVersion { version: own.version, locators })
        };
        std::mem::take(&mut trust.versions_changed).then(|| versions.map(kept).collect())
    }

    /// Own mappings may have changed: each that did gets its next version (MV-03), and no Locator-Status-Bits are sent for a while if a
    /// locator came or went (DH-22). To be called before they are told to anybody.
    pub(super) fn update_own_versions(&mut self, now: Instant) {
        if self.trust.is_none() {
            return;
        }
        let current: Vec<(EidPrefix, Vec<LocatorRecord>)> = self
            .database
            .iter()
            .map(|(prefix, _)| (prefix, self.own_record(prefix, None).locators))
            .collect();
        let older_until = now + lifetime(self.config.record_ttl_minutes);
        let database = &self.database;
        // A host that is here has been elsewhere, with versions that nobody here knows.
        let is_configured = |prefix: &EidPrefix| {
            database.get(prefix).is_some_and(|own| own.origin == MappingOrigin::Configured)
        };
        let Some(trust) = &mut self.trust else { return };
        let mut changed = trust.forget_own(|known| database.get(known).is_none());
        for (prefix, locators) in current {
            let Some(own) = trust.own.get_mut(&prefix) else {
                let version = match first_version(&trust.core, &prefix, &locators) {
                    _ if !trust.core.map_versioning || !is_configured(&prefix) => MapVersion::NULL,
                    Some(version) => version,
                    None => MapVersion::from_bits(self.rng.random_range(1..=MapVersion::MAX)),
                };
                let own = OwnVersion {
                    version,
                    locators,
                    older_until,
                    refuses_older: false,
                    no_bits_until: None,
                };
                trust.own.insert(prefix, own);
                trust.own_timers.insert((older_until, prefix));
                changed = true;
                continue;
            };
            if own.locators == locators {
                continue;
            }
            if let Some(due) = own.next_timeout() {
                trust.own_timers.remove(&(due, prefix));
            }
            let addresses = |locators: &[LocatorRecord]| -> Vec<_> {
                locators.iter().map(|locator| locator.address.clone()).collect()
            };
            if addresses(&own.locators) != addresses(&locators) {
                own.no_bits_until = Some(now + trust.core.use_lsb_timer);
            }
            if !own.version.is_null() {
                own.version = own.version.next();
            }
            (own.locators, own.older_until, own.refuses_older) = (locators, older_until, false);
            trust.own_timers.extend(own.next_timeout().map(|due| (due, prefix)));
            trust.stale.retain(|(_, stale_for), _| *stale_for != prefix);
            changed = true;
        }
        trust.changed |= changed;
        trust.versions_changed |= changed;
    }

    /// Another configuration: versions newer than those there are take their place, to be told; of the rest, own mappings that come later
    /// begin with theirs.
    pub(super) fn adopt_versions(&mut self, config: &ControlConfig) -> Vec<EidPrefix> {
        let (Some(trust), Some(core)) = (&mut self.trust, &config.trusted_core) else {
            return Vec::new();
        };
        let mut adopted = Vec::new();
        for (&prefix, &version) in &core.versions {
            if let Some(own) = trust.own.get_mut(&prefix)
                && version.is_newer_than(own.version)
            {
                own.version = version;
                adopted.push(prefix);
            }
        }
        trust.core.versions.clone_from(&core.versions);
        trust.changed |= !adopted.is_empty();
        trust.versions_changed |= !adopted.is_empty();
        adopted
    }

    /// Own mappings whose older versions are over (MV-12), or whose use-LSB timer is.
    pub(super) fn run_own_versions(&mut self, now: Instant) {
        let Some(trust) = &mut self.trust else { return };
        while let Some(&(due, prefix)) = trust.own_timers.first() {
            if due > now {
                return;
            }
            trust.own_timers.pop_first();
            let Some(own) = trust.own.get_mut(&prefix) else { continue };
            if own.older_until <= now && !own.refuses_older {
                own.refuses_older = true;
                trust.stale.retain(|(_, stale_for), _| *stale_for != prefix);
            }
            own.no_bits_until = own.no_bits_until.filter(|until| *until > now);
            trust.own_timers.extend(own.next_timeout().map(|due| (due, prefix)));
            trust.changed = true;
        }
    }

    /// A packet came with this version of an own mapping, from an ITR at `rloc`.
    pub(super) fn destination_version(
        &mut self,
        now: Instant,
        rloc: IpAddr,
        source: Eid,
        destination: Eid,
        version: MapVersion,
    ) {
        let Some(trust) = &mut self.trust else { return };
        let covering = trust
            .own
            .iter()
            .filter(|(prefix, own)| !own.version.is_null() && prefix.contains(destination));
        let Some((&prefix, own)) = covering.max_by_key(|(prefix, _)| prefix.mask_len()) else {
            return;
        };
        if version.is_newer_than(own.version) {
            // MV-09.
            if trust.quiet_until.is_none_or(|until| until <= now) {
                trust.quiet_until = Some(now + EVENT_INTERVAL);
                let own = own.version;
                self.event(Event::ImpossibleMapVersion { prefix, rloc, version, own });
            }
        } else if own.version.is_newer_than(version) && !own.refuses_older {
            self.tell_of_newer_version(now, rloc, source, prefix);
        }
    }

    /// MV-10, MV-11: an SMR, at most every three seconds; ten of them unheeded, its packets are refused, and it is told every 30 s.
    fn tell_of_newer_version(&mut self, now: Instant, rloc: IpAddr, source: Eid, own: EidPrefix) {
        let remote = self.cache.lookup(source).map(|(prefix, _)| prefix);
        let remote = remote.unwrap_or_else(|| source.host_prefix());
        let Some(trust) = &mut self.trust else { return };
        let key = (rloc, own);
        if trust.stale.len() >= timers::TRACKED_STALE_ITRS && !trust.stale.contains_key(&key) {
            // Those that came round are over by now; whoever is refused stays so.
            trust
                .stale
                .retain(|_, stale| stale.refused || stale.next + timers::STALE_VERSION_PAUSE > now);
            if trust.stale.len() >= timers::TRACKED_STALE_ITRS {
                // It is told all the same, at the pace of all SMRs (SM-03), but not refused.
                self.count("stale_map_versions_untracked");
                return self.solicit(now, rloc, own, remote);
            }
        }
        let stale = trust.stale.entry(key).or_insert(Stale { sent: 0, next: now, refused: false });
        if stale.next > now {
            return;
        }
        if stale.sent >= timers::STALE_VERSION_SMRS && !stale.refused {
            stale.refused = true;
            trust.changed = true;
        }
        stale.sent = stale.sent.saturating_add(1);
        stale.next = now
            + match stale.refused {
                false => timers::SMR_INTERVAL,
                true => timers::STALE_VERSION_PAUSE,
            };
        self.count("stale_map_versions");
        self.solicit(now, rloc, own, remote);
    }

    /// MV-14: the source's mapping has changed.
    pub(super) fn source_version_is_newer(&mut self, now: Instant, prefix: EidPrefix) {
        self.count("newer_map_versions");
        self.start_lookup(now, prefix, Purpose::Refresh);
    }

    /// The version that a record of a remote mapping carries.
    pub(super) fn note_version(&mut self, now: Instant, prefix: EidPrefix, version: u16) {
        let Some(trust) = &self.trust else { return };
        let version = match trust.core.map_versioning {
            true => MapVersion::from_bits(version),
            false => MapVersion::NULL,
        };
        let Some(entry) = self.cache.get_mut(&prefix) else { return };
        if entry.version != version {
            entry.version = version;
            // They were about another list.
            entry.forget_status_bits();
            self.update_verdict(now, prefix, false);
        }
    }
}

/// The version that a mapping begins with (MV-04): the one of an earlier run or the configured one, whichever is newer.
fn first_version(
    core: &TrustedCore,
    prefix: &EidPrefix,
    locators: &[LocatorRecord],
) -> Option<MapVersion> {
    let kept = core.kept.get(prefix).map(|kept| match kept.locators == in_words(locators) {
        true => kept.version,
        false => kept.version.advanced(SKIPPED),
    });
    let configured = core.versions.get(prefix).copied();
    let versions = [kept, configured].into_iter().flatten().filter(|version| !version.is_null());
    versions
        .reduce(|kept, configured| if configured.is_newer_than(kept) { configured } else { kept })
}

fn in_words(locators: &[LocatorRecord]) -> String {
    locators.iter().fold(String::new(), |mut words, locator| {
        let LocatorRecord {
            priority, weight, multicast_priority, multicast_weight, reachable, ..
        } = locator;
        let address = locator.address.rloc().map_or_else(String::new, |rloc| rloc.to_string());
        // Writing to a String cannot fail.
        let _ = write!(
            words,
            "{address} {priority}/{weight} {multicast_priority}/{multicast_weight} {}; ",
            if *reachable { "up" } else { "down" },
        );
        words
    })
}
