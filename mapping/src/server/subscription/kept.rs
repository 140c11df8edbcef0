//! The durable form of subscriptions: keys and values as octets, numbers in network order.
//!
//! ```text
//!   's' EID-prefix xTR-ID Site-ID      subscription: version 1, nonce, times, flags, addresses, PubSubKey if it has one
//!   'p' 0 EID-prefix xTR-ID Site-ID    last nonce of a subscription that is no more: version 1, nonce
//!   'p' 1 hash                         a one-time key that was used: version 1
//! ```
//!
//! A configured key goes by its Site-ID. A PubSubKey is kept, since nothing else could sign for its xTR after a restart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::IpNet;

use crate::clock::Epoch;
use crate::config::Secret;
use crate::eid::{EidPrefix, InstanceId};
use crate::server::MapServer;
use crate::wire::XtrIdentity;

use super::keyring::UsedKey;
use super::publisher::Publication;
use super::table::{Association, Subscription};

/// The first octet of the key of a subscription.
pub(in crate::server) const SUBSCRIPTION: u8 = b's';
/// The first octet of the key of what is left of past subscriptions.
pub(in crate::server) const PAST: u8 = b'p';

const VERSION: u8 = 1;
const NONCE: u8 = 0;
const USED_KEY: u8 = 1;

const MUTED: u8 = 1;
const UNSETTLED: u8 = 2;

const CONFIGURED: u8 = 0;
const DERIVED: u8 = 1;
const UNAUTHENTICATED: u8 = 2;

impl MapServer {
    /// Logs a subscription as it is now.
    pub(super) fn keep_subscription(&mut self, prefix: &EidPrefix, xtr: XtrIdentity) {
        let Some(epoch) = self.durability.epoch else { return };
        if let Some(subscription) = self.subscriptions.table.get(prefix, xtr) {
            let value = encode(subscription, &epoch);
            self.durability.changes.put(&key(&[SUBSCRIPTION], prefix, xtr), &value);
            self.durability.changes.delete(&key(&[PAST, NONCE], prefix, xtr));
        }
    }

    /// Logs that a subscription is no more.
    pub(super) fn forget_subscription(&mut self, prefix: &EidPrefix, xtr: XtrIdentity) {
        if self.durability.epoch.is_some() {
            self.durability.changes.delete(&key(&[SUBSCRIPTION], prefix, xtr));
        }
    }

    /// Remembers the last nonce of a subscription that is no more (PS-17).
    pub(super) fn remember_nonce(&mut self, xtr: XtrIdentity, prefix: EidPrefix, nonce: u64) {
        let forgotten = self.subscriptions.table.remember((xtr, prefix), nonce);
        if self.durability.epoch.is_none() {
            return;
        }
        let value = [&[VERSION][..], &nonce.to_be_bytes()].concat();
        self.durability.changes.put(&key(&[PAST, NONCE], &prefix, xtr), &value);
        if let Some((xtr, prefix)) = forgotten {
            self.durability.changes.delete(&key(&[PAST, NONCE], &prefix, xtr));
        }
    }

    /// Remembers that a one-time key was used (PS-22).
    pub(super) fn use_key(&mut self, hash: UsedKey) {
        let forgotten = self.subscriptions.used_keys.insert(hash);
        if self.durability.epoch.is_none() {
            return;
        }
        self.durability.changes.put(&used_key(&hash), &[VERSION]);
        if let Some(forgotten) = forgotten {
            self.durability.changes.delete(&used_key(&forgotten));
        }
    }

    /// Takes a kept subscription, or one that another Map-Server of the cluster changed; `None` if it cannot be understood.
    ///
    /// What was not acknowledged when it was kept is sent again, if this node is the one that kept it (`restored`).
    pub(in crate::server) fn take_subscription(
        &mut self,
        now: Instant,
        octets: &[u8],
        value: Option<&[u8]>,
        restored: bool,
    ) -> Option<()> {
        let mut reader = Reader(octets.strip_prefix(&[SUBSCRIPTION])?);
        let (prefix, xtr) = reader.target()?;
        let Some(value) = value else {
            self.subscriptions.publisher.cancel(xtr, &prefix);
            self.subscriptions.table.remove(&prefix, xtr);
            return Some(());
        };
        let mut subscription = decode(value, now, &self.durability.epoch?)?;
        let again = restored && subscription.unsettled && !subscription.muted;
        // Nobody knows which of the more-specifics was not acknowledged.
        subscription.untold = again;
        self.subscriptions.table.insert(prefix, xtr, subscription);
        if again {
            let publication = Publication { xtr, subscribed: prefix, prefix, inherited: true };
            self.subscriptions.publisher.enqueue(now, publication);
        }
        Some(())
    }

    /// Takes what is left of a past subscription; `None` if it cannot be understood.
    pub(in crate::server) fn take_past(
        &mut self,
        octets: &[u8],
        value: Option<&[u8]>,
    ) -> Option<()> {
        let (kind, rest) = octets.strip_prefix(&[PAST])?.split_first()?;
        let value = match value {
            Some(value) => Some(value.strip_prefix(&[VERSION])?),
            None => None,
        };
        match *kind {
            NONCE => {
                let (prefix, xtr) = Reader(rest).target()?;
                match value {
                    Some(value) => {
                        let nonce = u64::from_be_bytes(value.try_into().ok()?);
                        self.subscriptions.table.remember((xtr, prefix), nonce);
                    }
                    None => self.subscriptions.table.forget_past((xtr, prefix)),
                }
            }
            USED_KEY => {
                let hash: UsedKey = rest.try_into().ok()?;
                // One that another Map-Server has no room for is remembered here.
                if value.is_some() {
                    self.subscriptions.used_keys.insert(hash);
                }
            }
            _ => return None,
        }
        Some(())
    }
}

fn used_key(hash: &UsedKey) -> Vec<u8> {
    [&[PAST, USED_KEY][..], hash].concat()
}

fn key(family: &[u8], prefix: &EidPrefix, xtr: XtrIdentity) -> Vec<u8> {
    let mut key = family.to_vec();
    key.extend_from_slice(&prefix.instance_id().get().to_be_bytes());
    key.push(prefix.mask_len());
    put_address(&mut key, prefix.first().address);
    key.extend_from_slice(&xtr.xtr_id.to_be_bytes());
    key.extend_from_slice(&xtr.site_id.to_be_bytes());
    key
}

fn encode(subscription: &Subscription, epoch: &Epoch) -> Vec<u8> {
    let Subscription {
        nonce, rlocs, port, local, association, since, ends, muted, unsettled, ..
    } = subscription;
    let mut value = vec![VERSION];
    value.extend_from_slice(&nonce.to_be_bytes());
    value.extend_from_slice(&epoch.unix_millis(*since).to_be_bytes());
    // Nothing ends in 1970.
    let ends = ends.map_or(0, |at| epoch.unix_millis(at));
    value.extend_from_slice(&ends.to_be_bytes());
    value.push((u8::from(*muted) * MUTED) | (u8::from(*unsettled) * UNSETTLED));
    value.extend_from_slice(&port.to_be_bytes());
    put_address(&mut value, *local);
    let rlocs = &rlocs[..rlocs.len().min(usize::from(u8::MAX))];
    value.push(u8::try_from(rlocs.len()).unwrap_or(u8::MAX));
    for rloc in rlocs {
        put_address(&mut value, *rloc);
    }
    match association {
        Association::Configured => value.push(CONFIGURED),
        Association::Derived(key) => {
            value.push(DERIVED);
            value.extend_from_slice(key.octets());
        }
        Association::Unauthenticated => value.push(UNAUTHENTICATED),
    }
    value
}

fn decode(value: &[u8], now: Instant, epoch: &Epoch) -> Option<Subscription> {
    let mut reader = Reader(value.strip_prefix(&[VERSION])?);
    let nonce = reader.u64()?;
    let since = epoch.instant(reader.u64()?).map_or(now, |since| since.min(now));
    let ends = match reader.u64()? {
        0 => None,
        millis => Some(epoch.instant(millis).unwrap_or(now)),
    };
    let flags = reader.u8()?;
    let port = u16::from_be_bytes(reader.array()?);
    let local = reader.address()?;
    let count = reader.u8()?;
    let rlocs = (0..count).map(|_| reader.address()).collect::<Option<Vec<_>>>()?;
    let association = match reader.u8()? {
        CONFIGURED => Association::Configured,
        DERIVED => Association::Derived(Secret::new(std::mem::take(&mut reader.0).to_vec())),
        UNAUTHENTICATED => Association::Unauthenticated,
        _ => return None,
    };
    reader.0.is_empty().then_some(Subscription {
        nonce,
        rlocs,
        port,
        local,
        association,
        since,
        ends,
        muted: flags & MUTED != 0,
        unsettled: flags & UNSETTLED != 0,
        untold: false,
    })
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend_from_slice(&address.octets());
        }
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (octets, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*octets)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn address(&mut self) -> Option<IpAddr> {
        match self.u8()? {
            4 => self.array::<4>().map(|octets| Ipv4Addr::from(octets).into()),
            6 => self.array::<16>().map(|octets| Ipv6Addr::from(octets).into()),
            _ => None,
        }
    }

    /// Prefix and xTR, and nothing after them.
    fn target(&mut self) -> Option<(EidPrefix, XtrIdentity)> {
        let instance_id = InstanceId::new(self.array().map(u32::from_be_bytes)?)?;
        let mask_len = self.u8()?;
        let prefix = IpNet::new(self.address()?, mask_len).ok()?;
        let xtr_id = u128::from_be_bytes(self.array()?);
        let identity = XtrIdentity { xtr_id, site_id: self.u64()? };
        self.0.is_empty().then(|| (EidPrefix::new(instance_id, prefix), identity))
    }
}
