//! Every registration ever made.
use mapping::eid::{Eid, EidPrefix, EidTable};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What xTRs ever said of their EID-prefixes, right or wrong, received or lost.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    registered: EidTable<BTreeSet<IpAddr>>,
}

impl Oracle {
    pub(super) fn register(&mut self, prefix: EidPrefix, rlocs: impl Iterator<Item = IpAddr>) {
        match self.registered.get_mut(&prefix) {
            Some(known) => known.extend(rlocs),
            None => drop(self.registered.insert(prefix, rlocs.collect())),
        }
    }

    /// Whether anybody ever registered this RLOC for this EID.
    pub(super) fn was_registered(&self, eid: Eid, rloc: IpAddr) -> bool {
        let host = eid.host_prefix();
        self.registered.covering(&host).any(|(_, rlocs)| rlocs.contains(&rloc))
    }
}
