//! RLOCs that data went to lately and that it goes to no longer: their mapping went, or another locator took over. Their site has own mappings
//! in its map-cache like everybody that gets data now, so it is told when those change (RFC 9301 §6.1).
use super::ControlPlane;
use super::smr::is_same_kind;
use crate::fib::{LocatorSet, Verdict};
use mapping::eid::{EidPrefix, InstanceId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// RLOCs remembered; beyond it those that got data longest ago make room.
const MAX_FORMER: usize = 16_384;

/// An RLOC, and the instance and family (IPv4 or not) of the EIDs behind it.
type Key = (IpAddr, InstanceId, bool);

/// RLOCs that data went to.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// When last, on the data plane's coarse clock, and one of the EID-prefixes behind each.
    by_key: BTreeMap<Key, (u32, EidPrefix)>,
    order: BTreeSet<(u32, Key)>,
}

impl Former {
    fn note(&mut self, rloc: IpAddr, remote: EidPrefix, last: u32) {
        let key = (rloc, remote.instance_id(), remote.prefix().addr().is_ipv4());
        match self.by_key.get(&key) {
            Some(&(known, _)) if known >= last => return,
            Some(&(known, _)) => drop(self.order.remove(&(known, key))),
            None if self.by_key.len() >= MAX_FORMER => {
                if let Some((_, oldest)) = self.order.pop_first() {
                    self.by_key.remove(&oldest);
                }
            }
            None => {}
        }
        self.by_key.insert(key, (last, remote));
        self.order.insert((last, key));
    }

    /// Those that got data since; the others are forgotten.
    pub(super) fn since(&mut self, clock: u32) -> impl Iterator<Item = (IpAddr, EidPrefix)> {
        while let Some(&(last, key)) = self.order.first()
            && last < clock
        {
            self.order.pop_first();
            self.by_key.remove(&key);
        }
        self.by_key.iter().map(|(&(rloc, ..), &(_, remote))| (rloc, remote))
    }
}

impl ControlPlane {
    /// The RLOCs that got data since then for EIDs of the kinds that changed, and get none now.
    pub(super) fn formerly_used(
        &mut self,
        clock: u32,
        changed: &[EidPrefix],
    ) -> Vec<(IpAddr, EidPrefix)> {
        let all = self.former.since(clock);
        all.filter(|(_, remote)| changed.iter().any(|own| is_same_kind(own, remote))).collect()
    }

    /// What `before` sent goes by `after` from now on: remembers the RLOCs that it leaves.
    pub(super) fn note_former(
        &mut self,
        remote: EidPrefix,
        before: &LocatorSet,
        after: Option<&Verdict>,
    ) {
        let still = match after {
            Some(Verdict::Encapsulate(set)) => &*set.adjacencies,
            _ => &[],
        };
        let last_of_set = before.last_used.load(Ordering::Relaxed);
        for adjacency in &before.adjacencies {
            let last = adjacency.used.load(Ordering::Relaxed).min(last_of_set);
            let is_left = still.iter().all(|kept| kept.destination != adjacency.destination);
            if last != 0 && is_left {
                self.former.note(adjacency.destination, remote, last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    fn rloc(index: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + index).into()
    }

    #[test]
    fn sm_01_former_rlocs_are_remembered_in_bounds_and_the_oldest_make_room() {
        let remote = EidPrefix::new(InstanceId::DEFAULT, IpNet::from(rloc(7)));
        let mut former = Former::default();
        let count = MAX_FORMER as u32;
        (1..=count + 10).for_each(|index| former.note(rloc(index), remote, index));
        assert_eq!((former.by_key.len(), former.order.len()), (MAX_FORMER, MAX_FORMER));
        assert_eq!(former.since(0).next(), Some((rloc(11), remote)));
        former.note(rloc(11), remote, count + 11);
        former.note(rloc(11), remote, 1);
        let since: Vec<_> = former.since(count + 10).map(|(rloc, _)| rloc).collect();
        assert_eq!(since, [rloc(11), rloc(count + 10)]);
        assert_eq!((former.by_key.len(), former.order.len()), (2, 2));
    }
}
