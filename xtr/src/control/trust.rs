//! What LISP headers say in a trusted core: what the data plane is to say and to believe, and what comes of what it heard.
//!
//! Off unless configured; then nothing here exists (MV-17, DH-14 to DH-16).
use super::ControlPlane;
use super::echo_nonce::Peer;
use super::locator::{Candidate, Locator};
use super::map_cache::Entry;
use super::version::{OwnVersion, Stale};
use crate::config::TrustedCore;
use crate::marks::{EntryMarks, HeaderMarks, Nonces, OwnMark, Tag, TrustedMarks};
use crate::policy::PrefixSet;
use mapping::eid::{Eid, EidPrefix, EidTable, MapVersion};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The state of a trusted core.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) core: TrustedCore,
    /// Its seconds are counted from here.
    pub(super) started: Instant,
    rlocs: PrefixSet,
    /// Own mappings.
    pub(super) own: BTreeMap<EidPrefix, OwnVersion>,
    /// When something about an own mapping changes by itself.
    pub(super) own_timers: BTreeSet<(Instant, EidPrefix)>,
    /// ITRs that use an old version of an own mapping.
    pub(super) stale: BTreeMap<(IpAddr, EidPrefix), Stale>,
    /// Nobody is told of an impossible version before.
    pub(super) quiet_until: Option<Instant>,
    /// When something is to be done about the nonces of a locator.
    pub(super) echo_timers: BTreeSet<(Instant, IpAddr)>,
    /// Nonces under way: no two are the same (DH-13).
    pub(super) nonces: HashMap<u32, Arc<Nonces>>,
    /// Whether the workers are to be told of own mappings, or of peers.
    pub(super) changed: bool,
    pub(super) peers_changed: bool,
    /// Whether versions are to be kept.
    pub(super) versions_changed: bool,
    peers: Arc<HashMap<IpAddr, Arc<Nonces>>>,
}

impl Trust {
    pub(super) fn new(core: TrustedCore, now: Instant) -> Self {
        Self {
            started: now,
            rlocs: core.rlocs.iter().copied().collect(),
            core,
            own: BTreeMap::new(),
            own_timers: BTreeSet::new(),
            stale: BTreeMap::new(),
            quiet_until: None,
            echo_timers: BTreeSet::new(),
            nonces: HashMap::new(),
            changed: true,
            peers_changed: false,
            versions_changed: false,
            peers: Arc::default(),
        }
    }

    pub(super) fn covers(&self, rloc: IpAddr) -> bool {
        self.rlocs.contains(rloc)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let own = self.own_timers.first().map(|&(due, _)| due);
        let echo = self.echo_timers.first().map(|&(due, _)| due);
        own.into_iter().chain(echo).min()
    }

    /// What the workers are to know of an entry that encapsulates to some of `locators`, which are PETRs if `to_petr`: their mappings, if
    /// they have any, have nothing to do with the EIDs behind them.
    pub(super) fn marks_of(
        &self,
        entry: &Entry,
        to_petr: bool,
        locators: &[Candidate],
        known: &BTreeMap<IpAddr, Locator>,
    ) -> EntryMarks {
        let nonces = |candidate: &Candidate| {
            let peer = known.get(&candidate.address)?.peer.as_ref()?;
            Some((candidate.address, Arc::clone(&peer.nonces)))
        };
        let has_version = self.core.map_versioning && !to_petr;
        EntryMarks {
            version: if has_version { entry.version } else { MapVersion::NULL },
            status_bits: self.core.status_bits.then_some(entry.status_bits).filter(|_| !to_petr),
            trusted: locators.iter().filter_map(nonces).collect(),
        }
    }
}

impl ControlPlane {
    /// What the workers are to know from now on, if that is news.
    pub fn poll_marks(&mut self) -> Option<TrustedMarks> {
        let trust = self.trust.as_deref_mut()?;
        if std::mem::take(&mut trust.peers_changed) {
            let peer = |(&rloc, locator): (&IpAddr, &Locator)| {
                Some((rloc, Arc::clone(&locator.peer.as_ref()?.nonces)))
            };
            trust.peers = Arc::new(self.locators.iter().filter_map(peer).collect());
            trust.changed = true;
        }
        if !std::mem::take(&mut trust.changed) {
            return None;
        }
        let mut own: EidTable<OwnMark> = EidTable::default();
        // Those without a version last: a host that is here has none of its own, and may be reached by the mapping that covers it.
        let mut mappings: Vec<_> = trust.own.iter().collect();
        mappings.sort_by_key(|(_, mapping)| mapping.version.is_null());
        for (&prefix, mapping) in mappings {
            let is_covered = own.longest_match(&prefix).is_some();
            if mapping.version.is_null() && trust.core.map_versioning && is_covered {
                continue;
            }
            let mark = OwnMark {
                version: mapping.version,
                refuses_older: mapping.refuses_older,
                status_bits: mapping.status_bits().filter(|_| trust.core.status_bits),
            };
            own.insert(prefix, mark);
        }
        let refused = trust.stale.iter().filter(|(_, stale)| stale.refused).map(|(key, _)| *key);
        let (peers, requests) = (Arc::clone(&trust.peers), trust.nonces.clone());
        Some(TrustedMarks { own, refused: refused.collect(), peers, requests })
    }

    /// A remote RLOC came into use.
    pub(super) fn start_trusting(&mut self, rloc: IpAddr) {
        let Some(trust) = self.trust.as_deref_mut().filter(|trust| trust.covers(rloc)) else {
            return;
        };
        if let Some(locator) = self.locators.get_mut(&rloc) {
            locator.peer = Some(Peer::default());
            trust.peers_changed |= trust.core.echo_nonce;
        }
    }

    /// A header that says something new.
    pub(super) fn handle_marked(
        &mut self,
        now: Instant,
        rloc: IpAddr,
        source: Eid,
        destination: IpAddr,
        marks: &HeaderMarks,
    ) {
        let Some(trust) = &self.trust else { return };
        if !trust.covers(rloc) {
            return;
        }
        let mut source_version = MapVersion::NULL;
        if let Tag::Versions { source: version, destination: own } = marks.tag
            && trust.core.map_versioning
        {
            source_version = version;
            self.destination_version(
                now,
                rloc,
                source,
                Eid { address: destination, ..source },
                own,
            );
        }
        let Some((prefix, entry)) = self.cache.lookup(source) else { return }; // MV-16
        if source_version.is_newer_than(entry.version) {
            return self.source_version_is_newer(now, prefix);
        }
        let uses_versions = self.trust.as_ref().is_some_and(|trust| trust.core.map_versioning);
        let goes_with =
            !uses_versions || (!source_version.is_null() && source_version == entry.version);
        if let Some(received) = marks.status_bits
            && goes_with
        {
            self.status_bits_received(now, prefix, received);
        }
    }

    /// Does what is due.
    pub(super) fn run_trust(&mut self, now: Instant) {
        if self.trust.is_some() {
            self.run_own_versions(now);
            self.run_echo_nonces(now);
        }
    }
}
