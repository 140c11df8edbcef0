//! The referral cache of a DDT Map-Resolver (RFC 8111 §7.3.1): what is configured, and what was learned until its TTL is over.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::config::{DdtConfig, Delegation};
use super::step::{Ranked, ranked};
use crate::eid::{EidPrefix, EidTable};
use crate::resolver::negative::Occupied;

/// What is known about an XEID-prefix; the actions of RFC 8111 §6.1 that can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Delegated to DDT nodes.
    Node,
    /// Delegated to DDT Map-Servers.
    MapServer,
    /// A DDT Map-Server has sites there.
    Acknowledged,
    /// Configured, but registered by nobody.
    NotRegistered,
    /// Delegated to nobody.
    Hole,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Where every search can begin anew: `roots`, or a delegation of this node itself.
    Root,
    /// A configured hint.
    Hint,
    /// A Map-Referral of this node.
    Learned(IpAddr),
}

/// What the cache says about an XEID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The XEID-prefix; `None` = every one.
    pub(crate) prefix: Option<EidPrefix>,
    /// What is known about it.
    pub(crate) kind: Kind,
    /// The RLOCs of the nodes to ask, the ones to prefer first.
    pub(crate) rlocs: Vec<Ranked>,
    /// Who said so.
    pub(crate) origin: Origin,
    /// Until when; `None` = configured.
    pub(crate) expires: Option<Instant>,
}

/// The referral cache: at most `capacity` learned entries.
#[derive(Debug)]
pub(crate) struct ReferralCache {
    roots: Option<Entry>,
    own: EidTable<Entry>,
    hints: EidTable<Entry>,
    learned: EidTable<Entry>,
    expiries: BTreeSet<(Instant, EidPrefix)>,
    capacity: usize,
}

impl Kind {
    /// Whether the answer is that there is no mapping (DD-11).
    pub(crate) fn is_negative(self) -> bool {
        matches!(self, Self::NotRegistered | Self::Hole)
    }

    /// Whether its RLOCs are Map-Servers, which get the LISP-SEC data of the request (DD-13).
    pub(crate) fn is_map_server(self) -> bool {
        matches!(self, Self::MapServer | Self::Acknowledged)
    }

    /// As `show referrals` calls it: the action of RFC 8111 §6.1.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Node => "node-referral",
            Self::MapServer => "ms-referral",
            Self::Acknowledged => "ms-ack",
            Self::NotRegistered => "ms-not-registered",
            Self::Hole => "delegation-hole",
        }
    }
}

impl Entry {
    /// The mask length of its prefix, 0 for the root.
    pub(crate) fn mask_len(&self) -> u8 {
        self.prefix.map_or(0, |prefix| prefix.mask_len())
    }

    fn configured(delegation: &Delegation, origin: Origin) -> Self {
        Self {
            prefix: Some(delegation.prefix),
            kind: if delegation.map_server { Kind::MapServer } else { Kind::Node },
            rlocs: ranked(&delegation.rlocs),
            origin,
            expires: None,
        }
    }
}

impl ReferralCache {
    /// What `config` knows beforehand; own delegations count too, since this node is their parent (DD-10).
    pub(crate) fn new(config: &DdtConfig, capacity: usize) -> Self {
        let table = |delegations: &[Delegation], origin| {
            let mut table = EidTable::default();
            for delegation in delegations {
                table.insert(delegation.prefix, Entry::configured(delegation, origin));
            }
            table
        };
        let roots = (!config.roots.is_empty()).then(|| Entry {
            prefix: None,
            kind: Kind::Node,
            rlocs: ranked(&config.roots),
            origin: Origin::Root,
            expires: None,
        });
        Self {
            roots,
            own: table(&config.delegations, Origin::Root),
            hints: table(&config.hints, Origin::Hint),
            learned: EidTable::default(),
            expiries: BTreeSet::new(),
            capacity,
        }
    }

    /// The longest match for `asked`; of equals, what was learned.
    pub(crate) fn find(&self, now: Instant, asked: &EidPrefix) -> Option<&Entry> {
        let alive = |entry: &&Entry| entry.expires.is_none_or(|expires| now < expires);
        // The longest learned entry may be over already while a shorter one is not.
        let learned = self.learned.covering(asked).map(|(_, entry)| entry).filter(alive).last();
        let own = self.own.longest_match(asked).map(|(_, entry)| entry);
        let hint = self.hints.longest_match(asked).map(|(_, entry)| entry);
        let candidates = self.roots.iter().chain(hint).chain(own).chain(learned);
        candidates.max_by_key(|entry| entry.mask_len())
    }

    /// Where to begin anew, forgetting what was learned (DD-17): the own delegation, else the roots, else the hint.
    pub(crate) fn begin(&self, asked: &EidPrefix) -> Option<&Entry> {
        let own = self.own.longest_match(asked).map(|(_, entry)| entry);
        let hint = self.hints.longest_match(asked).map(|(_, entry)| entry);
        own.or(self.roots.as_ref()).or(hint)
    }

    /// Keeps a referral about `prefix` for `ttl`; what would expire first makes room.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        mut entry: Entry,
        ttl: Duration,
    ) {
        if ttl.is_zero() {
            return;
        }
        self.forget(&prefix);
        while self.learned.len() >= self.capacity {
            let Some(&(_, oldest)) = self.expiries.first() else { return };
            self.forget(&oldest);
        }
        let expires = now + ttl;
        entry.prefix = Some(prefix);
        entry.expires = Some(expires);
        self.expiries.insert((expires, prefix));
        self.learned.insert(prefix, entry);
    }

    /// Drops what was learned about exactly `prefix`.
    pub(crate) fn forget(&mut self, prefix: &EidPrefix) {
        if let Some(expires) = self.learned.remove(prefix).and_then(|entry| entry.expires) {
            self.expiries.remove(&(expires, *prefix));
        }
    }

    /// Drops what is over at `now`.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(at, prefix)) = self.expiries.first()
            && at <= now
        {
            self.forget(&prefix);
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Learned entries.
    pub(crate) fn len(&self) -> usize {
        self.expiries.len()
    }

    /// Every entry: the roots, own delegations, hints, what was learned; each in the order of the prefixes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let tables = [&self.own, &self.hints, &self.learned];
        self.roots.iter().chain(tables.into_iter().flat_map(|t| t.iter().map(|(_, entry)| entry)))
    }
}

impl Occupied for ReferralCache {
    fn within(&self, prefix: &EidPrefix) -> bool {
        [&self.own, &self.hints, &self.learned].iter().any(|table| table.within(prefix))
    }
}
