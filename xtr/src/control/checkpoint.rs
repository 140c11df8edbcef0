//! PURE. Mappings that a restart brings back: they are used at once, and verified soon.
//!
//! A mapping from before lives for [`VERIFIED_WITHIN`] at most. As with every entry, one that is in use is asked for again before it ends,
//! with all that a Map-Reply must prove; one that is not goes. Locators begin as unprobed ones and are probed at once; a
//! subscription is made anew with that Map-Request.
//!
//! Not kept: what is nobody's, since somebody may register it meanwhile; own EID-prefixes and hosts of own ranges; what is registered here or lies
//! behind a NAT, since only its xTR can prove where it is.
use super::ControlPlane;
use super::locator::{Candidate, Via};
use super::map_cache::{Entry, Mapping};
use ipnet::IpNet;
use mapping::eid::{EidPrefix, InstanceId};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a mapping from before is believed: each a random time of these bounds, so that not all are verified together.
const VERIFIED_WITHIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(120));

/// A mapping as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMapping {
    instance_id: u32,
    prefix: IpNet,
    /// Of its Record TTL, when it was kept.
    seconds_left: u64,
    /// It came protected by LISP-SEC.
    #[serde(default)]
    secured: bool,
    #[serde(default)]
    version: u16,
    locators: Vec<KeptLocator>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptLocator {
    address: IpAddr,
    priority: u8,
    weight: u8,
    reachable: bool,
    ordinal: u8,
}

impl ControlPlane {
    /// At most so many mappings, those first that carried traffic last.
    pub fn kept_mappings(&self, now: Instant, most: usize) -> Vec<KeptMapping> {
        let mut entries: Vec<(EidPrefix, &Entry)> =
            self.cache.iter().filter(|(prefix, entry)| self.is_kept(prefix, entry)).collect();
        if entries.len() > most {
            entries.select_nth_unstable_by_key(most, |(_, entry)| Reverse(entry.last_used()));
            entries.truncate(most);
        }
        entries.into_iter().map(|(prefix, entry)| kept(now, prefix, entry)).collect()
    }

    /// Whether what changed since `mark` is worth keeping, and the mark of now.
    pub fn mappings_changed(&self, mark: u64) -> (bool, u64) {
        let of = |name| self.counters.get(name).copied().unwrap_or_default();
        let now = of("map_cache_added") + of("map_cache_updated");
        (now != mark, now)
    }

    /// Takes over mappings that were kept `age` ago, as far as this configuration allows; how many.
    pub fn restore(&mut self, now: Instant, age: Duration, mappings: &[KeptMapping]) -> usize {
        let needs_protection = self.requires_protection();
        let mut restored = 0;
        for kept in mappings.iter().take(self.config.map_cache_limit) {
            let left = Duration::from_secs(kept.seconds_left).saturating_sub(age);
            let Some(instance_id) = InstanceId::new(kept.instance_id) else { continue };
            let prefix = EidPrefix::new(instance_id, kept.prefix.trunc());
            if left.is_zero() || (needs_protection && !kept.secured) || self.is_here(&prefix) {
                continue;
            }
            let locators: Vec<Candidate> = kept
                .locators
                .iter()
                .map(candidate)
                .filter(|l| !self.own.is_martian(l.address))
                .collect();
            if locators.is_empty() || self.cache.get(&prefix).is_some() {
                continue;
            }
            let (least, most) = VERIFIED_WITHIN;
            let life = self.rng.random_range(least..most).min(left);
            self.install_entry(now, prefix, Mapping::Locators(locators), now + life);
            self.note_version(now, prefix, kept.version);
            if let Some(entry) = self.cache.get_mut(&prefix) {
                entry.secured = kept.secured;
                restored += 1;
            }
        }
        restored
    }

    fn is_kept(&self, prefix: &EidPrefix, entry: &Entry) -> bool {
        let locators = entry.mapping.locators();
        !locators.is_empty()
            && locators.iter().all(|locator| locator.via == Via::Usual)
            && !self.is_registered_here(prefix)
            && !self.is_here(prefix)
    }

    /// Whether it is, or lies in, what the site has itself.
    fn is_here(&self, prefix: &EidPrefix) -> bool {
        self.database.iter().any(|(own, _)| own.covers(prefix))
            || self.mobility.range_of_host(prefix).is_some()
    }
}

fn kept(now: Instant, prefix: EidPrefix, entry: &Entry) -> KeptMapping {
    let locator = |locator: &Candidate| KeptLocator {
        address: locator.address,
        priority: locator.priority,
        weight: locator.weight,
        reachable: locator.reachable,
        ordinal: locator.ordinal,
    };
    KeptMapping {
        instance_id: prefix.instance_id().get(),
        prefix: prefix.prefix(),
        seconds_left: entry.expires.saturating_duration_since(now).as_secs(),
        secured: entry.secured,
        version: entry.version.get(),
        locators: entry.mapping.locators().iter().map(locator).collect(),
    }
}

const fn candidate(kept: &KeptLocator) -> Candidate {
    Candidate {
        address: kept.address,
        priority: kept.priority,
        weight: kept.weight,
        reachable: kept.reachable,
        ordinal: kept.ordinal,
        via: Via::Usual,
    }
}
