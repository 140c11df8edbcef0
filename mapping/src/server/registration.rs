//! One registration, in as few octets as a million of them need.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::timers::MAX_LOCATORS;
use crate::wire::{Action, Address, EidField, EidRecord, LocatorRecord, XtrIdentity};

use super::site::{Signing, SiteIndex};

/// Who registers: the xTR-ID and Site-ID when the MAC covers them, else the source RLOC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Registrant {
    /// xTR-ID and Site-ID, in network order: a registration has no room for the padding of integers.
    Xtr([u8; 16], [u8; 8]),
    /// Source address of the Map-Register.
    Source(IpAddr),
}

impl Registrant {
    pub(super) fn xtr(identity: XtrIdentity) -> Self {
        Self::Xtr(identity.xtr_id.to_be_bytes(), identity.site_id.to_be_bytes())
    }

    pub(super) fn identity(&self) -> Option<XtrIdentity> {
        match self {
            Self::Xtr(xtr_id, site_id) => Some(XtrIdentity {
                xtr_id: u128::from_be_bytes(*xtr_id),
                site_id: u64::from_be_bytes(*site_id),
            }),
            Self::Source(_) => None,
        }
    }
}

/// A second of a [`Timeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Second(u32);

/// Time in seconds of 32 bits, a century from `base` and three decades back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    base: Instant,
}

impl Timeline {
    /// The second of `base`.
    const BASE: u32 = 1 << 30;

    pub(super) fn new(base: Instant) -> Self {
        Self { base }
    }

    /// The last second that is not after `at`.
    pub(super) fn floor(&self, at: Instant) -> Second {
        match at.checked_duration_since(self.base) {
            Some(after) => Second(Self::BASE.saturating_add(whole(after))),
            None => {
                let before = self.base.duration_since(at);
                let back = whole(before).saturating_add(u32::from(before.subsec_nanos() > 0));
                Second(Self::BASE.saturating_sub(back))
            }
        }
    }

    /// The first second that is not before `at`.
    pub(super) fn ceil(&self, at: Instant) -> Second {
        let floor = self.floor(at);
        if self.instant(floor) < at { Second(floor.0.saturating_add(1)) } else { floor }
    }

    pub(super) fn instant(&self, second: Second) -> Instant {
        match second.0.checked_sub(Self::BASE) {
            Some(after) => self.base + Duration::from_secs(after.into()),
            None => {
                let back = Duration::from_secs((Self::BASE - second.0).into());
                self.base.checked_sub(back).unwrap_or(self.base)
            }
        }
    }
}

impl Second {
    pub(super) fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

fn whole(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// What one xTR registered for one EID-prefix.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) registrant: Registrant,
    pub(super) site: SiteIndex,
    /// `None` when the key is no longer configured.
    pub(super) signing: Option<Signing>,
    /// xTR-ID and Site-ID that the MAC does not cover: to be given back, not to be trusted.
    pub(super) unproved: Option<Box<XtrIdentity>>,
    pub(super) source: IpAddr,
    /// The own address that the Map-Register came to.
    pub(super) local: IpAddr,
    pub(super) since: Second,
    pub(super) expires: Second,
    /// When it expires by the durable state.
    pub(super) kept_until: Second,
    /// How long it lives without refresh.
    pub(super) lifetime_seconds: u32,
    pub(super) ttl_minutes: u32,
    pub(super) proxy_reply: bool,
    pub(super) merge: bool,
    /// S-bit: the xTR speaks LISP-SEC (RFC 9303 §6.3).
    pub(super) security_capable: bool,
    /// What an ITR is to do when there is no locator.
    pub(super) action: Action,
    pub(super) map_version: u16,
    pub(super) locators: Locators,
}

impl Registration {
    /// What a Map-Notify to the xTR carries after the records.
    pub(super) fn identity(&self) -> Option<XtrIdentity> {
        self.registrant.identity().or_else(|| self.unproved.as_deref().copied())
    }

    /// What its locators take of the bound on octets.
    pub(super) fn octets(&self) -> usize {
        self.locators.octets().len()
    }

    /// The locators, in wire order.
    pub(super) fn locators(&self) -> impl Iterator<Item = LocatorRecord> {
        LocatorRecord::parse_all(self.locators.octets())
    }

    /// As it was registered for `eid`.
    pub(super) fn record(&self, eid: impl Into<EidField>) -> EidRecord {
        let mut record = EidRecord::new(eid, self.ttl_minutes, self.locators().collect());
        record.map_version = self.map_version;
        record.action = self.action;
        record
    }

    /// Whether a Map-Reply made of `other` may read differently.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.locators != other.locators
            || self.ttl_minutes != other.ttl_minutes
            || self.map_version != other.map_version
            || self.action != other.action
    }

    /// Whether the durable state has to tell `self` in place of `older`: anything else than the expiry is different, or the expiry
    /// is so much later that a restart would end the registration too early, the grace of [`kept_grace`] included.
    pub(super) fn must_be_kept(&self, older: &Self) -> bool {
        self.expires >= older.kept_until.plus(kept_grace(self.lifetime_seconds))
            || self.differs(older)
            || (self.site, self.signing, &self.unproved, self.source, self.local)
                != (older.site, older.signing, &older.unproved, older.source, older.local)
            || (self.proxy_reply, self.merge, self.security_capable, self.lifetime_seconds)
                != (older.proxy_reply, older.merge, older.security_capable, older.lifetime_seconds)
    }
}

/// How many seconds later than kept a registration may expire: a refresh that changes nothing need not be written each time.
pub(super) fn kept_grace(lifetime_seconds: u32) -> u32 {
    lifetime_seconds / 2
}

/// RLOC-Records as on the wire, sorted, each locator once; the usual few need no memory of their own.
#[derive(Clone, Debug)]
pub(super) enum Locators {
    Few { length: u8, octets: [u8; Self::ROOM] },
    Many(Box<[u8]>),
}

impl Locators {
    /// Two IPv4 locators, or one IPv6 locator.
    const ROOM: usize = 30;

    /// The locators of `record` that are of use (CW-08).
    pub(super) fn of(record: &EidRecord) -> Self {
        let usable = || record.usable_locators().map(|(_, locator)| locator);
        let mut octets = Vec::with_capacity(Self::ROOM);
        if usable().is_sorted_by(|a, b| a.address < b.address) {
            usable().for_each(|locator| locator.encode(&mut octets));
        } else {
            let mut sorted: Vec<&LocatorRecord> = usable().collect();
            sorted.sort_by(|a, b| a.address.cmp(&b.address));
            sorted.dedup_by(|a, b| a.address == b.address);
            sorted.iter().for_each(|locator| locator.encode(&mut octets));
        }
        if octets.len() > Self::ROOM {
            return Self::Many(octets.into());
        }
        let mut few = [0; Self::ROOM];
        few[..octets.len()].copy_from_slice(&octets);
        Self::Few { length: octets.len() as u8, octets: few }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.octets().is_empty()
    }

    fn octets(&self) -> &[u8] {
        match self {
            Self::Few { length, octets } => &octets[..usize::from(*length)],
            Self::Many(octets) => octets,
        }
    }
}

impl PartialEq for Locators {
    fn eq(&self, other: &Self) -> bool {
        self.octets() == other.octets()
    }
}

/// The registrations of one EID-prefix, oldest first: one, or several that are merged (MS-17).
#[derive(Clone, Debug)]
pub(super) struct Entry {
    held: Held,
    /// When the registry looks at it again.
    pub(super) scheduled: Second,
}

/// What [`Entry::put`] did.
#[derive(Debug)]
pub(super) struct Put {
    /// The registration of the same xTR before.
    pub(super) own: Option<Registration>,
    /// Those of other xTRs before.
    pub(super) others: Vec<Registration>,
    /// Whether the others are there still.
    merged: bool,
    /// Whether the mapping is another now.
    pub(super) changed: bool,
}

impl Put {
    /// The registrations of other xTRs that had to go.
    pub(super) fn replaced(&self) -> &[Registration] {
        if self.merged { &[] } else { &self.others }
    }
}

#[derive(Clone, Debug)]
enum Held {
    One(Registration),
    Several(Vec<Registration>),
}

impl Entry {
    pub(super) fn new(registration: Registration, scheduled: Second) -> Self {
        Self { held: Held::One(registration), scheduled }
    }

    pub(super) fn registrations(&self) -> &[Registration] {
        match &self.held {
            Held::One(registration) => std::slice::from_ref(registration),
            Held::Several(registrations) => registrations,
        }
    }

    /// The registration of the only xTR.
    pub(super) fn only_mut(&mut self) -> Option<&mut Registration> {
        match &mut self.held {
            Held::One(registration) => Some(registration),
            Held::Several(_) => None,
        }
    }

    /// Changes the list; it must not end up empty unless the entry goes.
    pub(super) fn edit<R>(&mut self, edit: impl FnOnce(&mut Vec<Registration>) -> R) -> R {
        let mut list = match std::mem::replace(&mut self.held, Held::Several(Vec::new())) {
            Held::One(registration) => vec![registration],
            Held::Several(registrations) => registrations,
        };
        let result = edit(&mut list);
        self.held = match list.pop() {
            Some(only) if list.is_empty() => Held::One(only),
            Some(last) => {
                list.push(last);
                Held::Several(list)
            }
            None => Held::Several(list),
        };
        result
    }

    /// Whether any ETR asked the Map-Server to answer for it (MS-14).
    pub(super) fn proxy_reply(&self) -> bool {
        self.registrations().iter().any(|registration| registration.proxy_reply)
    }

    /// The mapping as a non-authoritative record (RP-10, RP-11): of a locator that two xTRs registered, the newest.
    pub(super) fn record(&self, eid: impl Into<EidField>) -> EidRecord {
        let registrations = self.registrations();
        let mut locators: Vec<LocatorRecord> = Vec::new();
        for locator in registrations.iter().rev().flat_map(Registration::locators) {
            let several = registrations.len() > 1;
            if several && locators.iter().any(|other| other.address == locator.address) {
                continue;
            }
            locators.push(LocatorRecord { local: false, probed: false, ..locator });
        }
        locators.truncate(MAX_LOCATORS);
        let ttl_minutes = registrations.iter().map(|r| r.ttl_minutes).min().unwrap_or(0);
        let newest = registrations.last();
        let mut record = EidRecord::new(eid, ttl_minutes, locators);
        record.map_version = newest.map_or(0, |r| r.map_version);
        record.action = newest.map_or(Action::NoAction, |r| r.action);
        record
    }

    /// Adds or refreshes a registration: beside those of other xTRs if all ask for merging (MS-17), else in their place (MS-18).
    pub(super) fn put(&mut self, new: Registration) -> Put {
        let merged = new.merge && self.registrations().iter().all(|other| other.merge);
        let before = self.mapping();
        let (own, others) = self.edit(|list| {
            let own = list.iter().position(|r| r.registrant == new.registrant);
            let own = own.map(|at| list.remove(at));
            let others = if merged { list.clone() } else { std::mem::take(list) };
            list.push(new);
            (own, others)
        });
        // Every ETR of a site may register the locators of all of them (RG-06): the same mapping again is no change.
        let changed = before != self.mapping();
        Put { own, others, merged, changed }
    }

    /// [`Self::record`] of no EID with its locators in the order of the wire, to compare.
    fn mapping(&self) -> EidRecord {
        let mut record = self.record(EidField::Other { address: Address::None, mask_len: 0 });
        record.locators.sort_by(|a, b| a.address.cmp(&b.address));
        record
    }

    /// When the first of its registrations expires.
    pub(super) fn first_expiry(&self) -> Option<Second> {
        self.registrations().iter().map(|registration| registration.expires).min()
    }
}
