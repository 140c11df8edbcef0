//! Who subscribed to what.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use crate::config::Secret;
use crate::eid::{EidPrefix, EidTable};
use crate::timers::MAX_SUBSCRIPTION_NONCES;
use crate::wire::XtrIdentity;

/// What authenticates Map-Notifies to one xTR (RFC 9437 §7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Association {
    /// The key that the configuration has for the Site-ID.
    Configured,
    /// The PubSubKey made of a one-time key (PS-21).
    Derived(Secret),
    /// Nothing, as lispers.net wants it.
    Unauthenticated,
}

/// One xTR's subscription to one EID-prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Subscription {
    /// The last nonce that either side used (PS-04, PS-11).
    pub(super) nonce: u64,
    /// Where Map-Notifies go, the most promising first; never empty.
    pub(super) rlocs: Vec<IpAddr>,
    /// UDP port there.
    pub(super) port: u16,
    /// The own address that it came to.
    pub(super) local: IpAddr,
    pub(super) association: Association,
    pub(super) since: Instant,
    /// When it ends by itself: it is to something that is not registered (PS-10).
    pub(super) ends: Option<Instant>,
    /// Nothing of this prefix is published to the xTR, though a covering one is subscribed (PS-18).
    pub(super) muted: bool,
    /// Something was sent that is not acknowledged.
    pub(super) unsettled: bool,
    /// Registered more-specifics are published as soon as anything is acknowledged.
    pub(super) untold: bool,
}

/// Every subscription, by prefix and xTR, and the last nonces of those that were.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_prefix: EidTable<BTreeMap<XtrIdentity, Subscription>>,
    len: usize,
    ends: BTreeSet<(Instant, EidPrefix, XtrIdentity)>,
    past: PastNonces,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, prefix: &EidPrefix, xtr: XtrIdentity) -> Option<&Subscription> {
        self.by_prefix.get(prefix)?.get(&xtr)
    }

    /// To change anything but its end.
    pub(super) fn get_mut(
        &mut self,
        prefix: &EidPrefix,
        xtr: XtrIdentity,
    ) -> Option<&mut Subscription> {
        self.by_prefix.get_mut(prefix)?.get_mut(&xtr)
    }

    /// Inserts or overwrites (PS-05).
    pub(super) fn insert(&mut self, prefix: EidPrefix, xtr: XtrIdentity, new: Subscription) {
        self.remove(&prefix, xtr);
        self.past.forget((xtr, prefix));
        if let Some(at) = new.ends {
            self.ends.insert((at, prefix, xtr));
        }
        if self.by_prefix.get(&prefix).is_none() {
            self.by_prefix.insert(prefix, BTreeMap::new());
        }
        if let Some(subscribers) = self.by_prefix.get_mut(&prefix) {
            subscribers.insert(xtr, new);
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, prefix: &EidPrefix, xtr: XtrIdentity) -> Option<Subscription> {
        let subscribers = self.by_prefix.get_mut(prefix)?;
        let removed = subscribers.remove(&xtr)?;
        if subscribers.is_empty() {
            self.by_prefix.remove(prefix);
        }
        self.len -= 1;
        if let Some(at) = removed.ends {
            self.ends.remove(&(at, *prefix, xtr));
        }
        Some(removed)
    }

    /// Sets when a subscription ends by itself; true if that is a change.
    pub(super) fn set_end(
        &mut self,
        prefix: EidPrefix,
        xtr: XtrIdentity,
        ends: Option<Instant>,
    ) -> bool {
        let Some(subscription) = self.get_mut(&prefix, xtr) else { return false };
        let before = std::mem::replace(&mut subscription.ends, ends);
        if let Some(at) = before {
            self.ends.remove(&(at, prefix, xtr));
        }
        if let Some(at) = ends {
            self.ends.insert((at, prefix, xtr));
        }
        before != ends
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _, _)| *at)
    }

    /// A subscription that has ended by itself at `now`.
    pub(super) fn ended(&self, now: Instant) -> Option<(EidPrefix, XtrIdentity)> {
        self.ends.first().filter(|(at, _, _)| *at <= now).map(|&(_, prefix, xtr)| (prefix, xtr))
    }

    /// The xTRs that want to know about `prefix`, each with the longest of its subscriptions that cover it (PS-12, PS-18).
    pub(super) fn audience(&self, prefix: &EidPrefix) -> Vec<(XtrIdentity, EidPrefix)> {
        let mut longest: BTreeMap<XtrIdentity, (EidPrefix, bool)> = BTreeMap::new();
        for (subscribed, subscribers) in self.by_prefix.covering(prefix) {
            for (&xtr, subscription) in subscribers {
                longest.insert(xtr, (subscribed, subscription.muted));
            }
        }
        longest
            .into_iter()
            .filter(|(_, (_, muted))| !muted)
            .map(|(xtr, (subscribed, _))| (xtr, subscribed))
            .collect()
    }

    /// The subscribed prefixes within `prefix`.
    pub(super) fn within(&self, prefix: &EidPrefix) -> Vec<EidPrefix> {
        let own = *prefix;
        self.by_prefix
            .covered_by(prefix)
            .map(|(subscribed, _)| subscribed)
            .filter(|subscribed| *subscribed != own)
            .collect()
    }

    /// The xTRs that subscribed to exactly `prefix`.
    pub(super) fn subscribers(&self, prefix: &EidPrefix) -> Vec<XtrIdentity> {
        self.by_prefix.get(prefix).map_or_else(Vec::new, |subscribers| {
            subscribers.iter().filter(|(_, s)| !s.muted).map(|(xtr, _)| *xtr).collect()
        })
    }

    /// Whether `xtr` has a subscription to a prefix that covers `prefix` and is shorter.
    pub(super) fn covered(&self, prefix: &EidPrefix, xtr: XtrIdentity) -> bool {
        self.by_prefix.covering(prefix).any(|(subscribed, subscribers)| {
            subscribed != *prefix && subscribers.get(&xtr).is_some_and(|s| !s.muted)
        })
    }

    /// The longest subscribed or muted prefix of `xtr` that covers `prefix`.
    pub(super) fn longest_of(&self, prefix: &EidPrefix, xtr: XtrIdentity) -> Option<EidPrefix> {
        let covering = self.by_prefix.covering(prefix);
        covering.filter(|(_, all)| all.contains_key(&xtr)).last().map(|(found, _)| found)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EidPrefix, XtrIdentity, &Subscription)> {
        self.by_prefix
            .iter()
            .flat_map(|(prefix, all)| all.iter().map(move |(xtr, s)| (prefix, *xtr, s)))
    }

    /// The last nonce of a subscription that is or was.
    pub(super) fn last_nonce(&self, prefix: &EidPrefix, xtr: XtrIdentity) -> Option<u64> {
        let held = self.get(prefix, xtr).map(|subscription| subscription.nonce);
        held.or_else(|| self.past.get((xtr, *prefix)))
    }

    /// Remembers the nonce of a subscription that is no more (PS-17); returns what was forgotten for it.
    pub(super) fn remember(&mut self, key: PastKey, nonce: u64) -> Option<PastKey> {
        self.past.remember(key, nonce)
    }

    pub(super) fn forget_past(&mut self, key: PastKey) {
        self.past.forget(key);
    }
}

/// Whose nonce, for what.
pub(super) type PastKey = (XtrIdentity, EidPrefix);

/// The last nonces of removed subscriptions; at the bound the oldest is forgotten.
#[derive(Debug, Default)]
struct PastNonces {
    nonces: HashMap<PastKey, Past>,
    /// When each was removed; what was forgotten meanwhile is there still.
    order: VecDeque<(u64, PastKey)>,
    serial: u64,
}

#[derive(Debug)]
struct Past {
    nonce: u64,
    serial: u64,
}

impl PastNonces {
    fn get(&self, key: PastKey) -> Option<u64> {
        self.nonces.get(&key).map(|past| past.nonce)
    }

    fn remember(&mut self, key: PastKey, nonce: u64) -> Option<PastKey> {
        if let Some(past) = self.nonces.get_mut(&key) {
            past.nonce = nonce;
            return None;
        }
        self.serial += 1;
        self.nonces.insert(key, Past { nonce, serial: self.serial });
        self.order.push_back((self.serial, key));
        if self.order.len() > 2 * MAX_SUBSCRIPTION_NONCES {
            let nonces = &self.nonces;
            self.order.retain(|&(serial, key)| is_current(nonces, serial, key));
        }
        if self.nonces.len() <= MAX_SUBSCRIPTION_NONCES {
            return None;
        }
        while let Some((serial, oldest)) = self.order.pop_front() {
            if is_current(&self.nonces, serial, oldest) {
                self.nonces.remove(&oldest);
                return Some(oldest);
            }
        }
        None
    }

    fn forget(&mut self, key: PastKey) {
        self.nonces.remove(&key);
    }
}

fn is_current(nonces: &HashMap<PastKey, Past>, serial: u64, key: PastKey) -> bool {
    nonces.get(&key).is_some_and(|past| past.serial == serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(xtr_id: u128) -> PastKey {
        let xtr = XtrIdentity { xtr_id, site_id: 1 };
        (xtr, EidPrefix::new(Default::default(), "10.0.0.0/8".parse().unwrap()))
    }

    #[test]
    fn ps_17_who_comes_and_goes_makes_nobody_elses_nonce_forgotten() {
        let mut past = PastNonces::default();
        past.remember(key(1), 50);
        for nonce in 0..MAX_SUBSCRIPTION_NONCES as u64 * 2 {
            past.remember(key(2), nonce);
            past.forget(key(2));
        }
        assert_eq!(past.get(key(1)), Some(50));
        assert!(past.order.len() <= 2 * MAX_SUBSCRIPTION_NONCES);
    }

    #[test]
    fn ps_17_at_the_bound_the_oldest_nonce_is_forgotten() {
        let mut past = PastNonces::default();
        past.remember(key(0), 1);
        past.remember(key(1), 1);
        past.forget(key(0));
        past.remember(key(0), 2);
        for xtr_id in 2..MAX_SUBSCRIPTION_NONCES as u128 {
            assert_eq!(past.remember(key(xtr_id), 1), None);
        }
        assert_eq!(past.remember(key(u128::MAX), 1), Some(key(1)));
        assert_eq!((past.get(key(0)), past.get(key(1))), (Some(2), None));
    }
}
