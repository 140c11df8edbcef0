//! Who sends to us: remote ITRs that data came from lately. They have own mappings in their map-caches, whether we send to them or not, and
//! when those mappings change they are told like everybody that got data from us: one that only sends would go on sending to a locator that
//! lost its carrier until its probes find out.
use super::ControlPlane;
use super::smr::is_same_kind;
use mapping::eid::{Eid, EidPrefix};
use mapping::timers;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// RLOCs remembered; beyond it no other is until one was silent for a minute. Sources can be forged: known ones do not make room.
const MAX_HEARD: usize = 16_384;
/// Longer than RFC 9301 §6.1 says, by what the data plane waits until it tells of the same RLOC again.
const REMEMBERED_FOR: Duration =
    timers::SMR_ACTIVE_PERIOD.saturating_add(crate::forward::HEARD_AGAIN);

/// RLOCs that data came from.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// When last, and one of the EIDs behind each.
    by_rloc: BTreeMap<IpAddr, (Instant, Eid)>,
    order: BTreeSet<(Instant, IpAddr)>,
}

impl Heard {
    fn note(&mut self, now: Instant, rloc: IpAddr, source: Eid) {
        self.purge(now);
        let known = self.by_rloc.get(&rloc).map(|&(last, _)| last);
        match known {
            Some(last) => drop(self.order.remove(&(last, rloc))),
            None if self.by_rloc.len() >= MAX_HEARD => return,
            None => {}
        }
        self.by_rloc.insert(rloc, (now, source));
        self.order.insert((now, rloc));
    }

    fn purge(&mut self, now: Instant) {
        while let Some(&(last, rloc)) = self.order.first()
            && last + REMEMBERED_FOR < now
        {
            self.order.pop_first();
            self.by_rloc.remove(&rloc);
        }
    }

    fn lately(&self, now: Instant) -> impl Iterator<Item = (IpAddr, Eid)> {
        let is_recent = move |last: Instant| now <= last + REMEMBERED_FOR;
        let all = self.by_rloc.iter();
        all.filter(move |(_, (last, _))| is_recent(*last)).map(|(&rloc, &(_, eid))| (rloc, eid))
    }
}

impl ControlPlane {
    /// Data from `source` came through `rloc`.
    pub(super) fn handle_heard(&mut self, now: Instant, rloc: IpAddr, source: Eid) {
        if !self.own.is_martian(rloc) && !self.own.contains(rloc) {
            self.heard.note(now, rloc, source);
        }
    }

    /// The RLOCs that data came from lately, of EIDs of the kinds that changed, each with the EID-prefix behind it as far as it is known.
    pub(super) fn heard_lately(
        &self,
        now: Instant,
        changed: &[EidPrefix],
    ) -> Vec<(IpAddr, EidPrefix)> {
        let behind = |eid: Eid| {
            let cached = self.cache.lookup(eid).filter(|(_, e)| !e.mapping.locators().is_empty());
            cached.map_or_else(|| eid.host_prefix(), |(prefix, _)| prefix)
        };
        let all = self.heard.lately(now).map(|(rloc, eid)| (rloc, behind(eid)));
        all.filter(|(_, remote)| changed.iter().any(|own| is_same_kind(own, remote))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::eid::InstanceId;
    use std::net::Ipv4Addr;

    fn rloc(index: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + index).into()
    }

    #[test]
    fn sm_01_who_was_heard_is_remembered_for_a_minute_and_in_bounds() {
        let (start, eid) = (Instant::now(), Eid::new(InstanceId::DEFAULT, rloc(7)));
        let mut heard = Heard::default();
        (0..MAX_HEARD as u32 + 10).for_each(|index| heard.note(start, rloc(index), eid));
        assert_eq!(heard.lately(start).count(), MAX_HEARD);
        let later = start + REMEMBERED_FOR;
        heard.note(later, rloc(0), eid);
        assert_eq!(heard.lately(later).count(), MAX_HEARD);
        let over = later + Duration::from_secs(1);
        assert_eq!(heard.lately(over).map(|(rloc, _)| rloc).collect::<Vec<_>>(), [rloc(0)]);
        heard.note(over, rloc(99_999), eid);
        assert_eq!((heard.by_rloc.len(), heard.order.len()), (2, 2));
    }
}
