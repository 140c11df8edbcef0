//! What the operator sees of the traffic to every locator, at either end.
use super::ControlPlane;
use super::map_cache::load;
use crate::config::LocalEid;
use crate::counters::Traffic;
use crate::view::{ArrivedView, OwnLocatorView, SentView, TrafficView};
use mapping::eid::EidPrefix;
use std::net::IpAddr;

impl ControlPlane {
    /// `show traffic`, with what the data plane has counted of arrivals.
    pub fn traffic_view(&self, arrived: &[(EidPrefix, IpAddr, Traffic)]) -> TrafficView {
        let arrived = arrived.iter().map(|&(prefix, rloc, traffic)| ArrivedView {
            prefix: prefix.prefix(),
            instance_id: prefix.instance_id().get(),
            rloc,
            locator: self.own_locator_view(&prefix, rloc),
            packets: traffic.packets,
            octets: traffic.octets,
        });
        let mut sent = Vec::new();
        for (prefix, entry) in self.cache.iter() {
            let lines = entry.traffic.iter().map(|(&rloc, counters)| (Some(rloc), load(counters)));
            let retired = (entry.retired != (0, 0)).then_some((None, entry.retired));
            for (rloc, (packets, octets)) in lines.chain(retired) {
                let (prefix, instance_id) = (prefix.prefix(), prefix.instance_id().get());
                sent.push(SentView { prefix, instance_id, rloc, packets, octets });
            }
        }
        TrafficView { arrived: arrived.collect(), sent }
    }

    fn own_locator_view(&self, prefix: &EidPrefix, rloc: IpAddr) -> Option<OwnLocatorView> {
        let locator_set = match self.database.get(prefix) {
            Some(own) => &own.eid.locator_set,
            None => self.mobility.locator_set_of(prefix)?,
        };
        let eid = LocalEid { prefix: *prefix, locator_set: locator_set.clone() };
        let locator = self
            .own_locators(&eid)
            .into_iter()
            .find(|locator| locator.address.rloc() == Some(rloc))?;
        Some(OwnLocatorView {
            priority: locator.priority,
            weight: locator.weight,
            multicast_priority: locator.multicast_priority,
            multicast_weight: locator.multicast_weight,
            reachable: locator.reachable,
        })
    }
}
