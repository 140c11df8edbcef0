//! Another set of dynamic-EID ranges while hosts of theirs are here, and away.
use super::ControlPlane;
use super::away::Away;
use super::database::{Origin, OwnMapping};
use super::etr::Registration;
use super::mobility::{Here, HostChange, Mobility};
use crate::config::{DynamicRange, LocalEid};
use mapping::eid::EidPrefix;
use std::time::Instant;

impl ControlPlane {
    /// From now on hosts of these ranges are looked after. What is known of hosts stays as far as their range does: one that is in none any
    /// more, or on an interface that is none of its range's, is withdrawn; one with another locator-set is registered anew.
    pub fn set_dynamic_ranges(&mut self, now: Instant, ranges: &[DynamicRange]) {
        if self.mobility.ranges == ranges {
            return;
        }
        let mut fresh = Mobility::new(now, ranges);
        fresh.take_from(&mut self.mobility);
        let before = std::mem::replace(&mut self.mobility, fresh);
        for (prefix, here) in before.here {
            let interfaces = &before.ranges[here.range].interfaces;
            self.keep_here(now, prefix, here, interfaces);
        }
        for (prefix, away) in before.away {
            match self.mobility.range_of_host(&prefix) {
                Some(range) => self.mobility.insert_away(prefix, Away { range, ..away }),
                None => self.forget_host(prefix),
            }
        }
        self.find_away(now);
        let is_new =
            |range: &&DynamicRange| before.ranges.iter().all(|old| old.range != range.range);
        if ranges.iter().any(|range| is_new(&range)) {
            let own: Vec<EidPrefix> = self.config.eids.iter().map(|own| own.prefix).collect();
            for own in own {
                // As long as no Map-Server has it, its acknowledgement has us ask.
                let has = |one: &Registration| one.is_known_there() && one.prefixes.contains(&own);
                if self.registrations.iter().any(has) {
                    self.ask_who_left(now, own);
                }
            }
        }
    }

    /// A host that was here stays if its range does; `interfaces` are those that the range had.
    fn keep_here(&mut self, now: Instant, prefix: EidPrefix, here: Here, interfaces: &[String]) {
        let range = self.mobility.range_of_host(&prefix).filter(|&range| {
            let allowed = &self.mobility.ranges[range].interfaces;
            here.interface.as_ref().is_none_or(|name| allowed.contains(name))
        });
        let Some(range) = range else {
            self.count("dynamic_eids_unconfigured");
            self.forget_host(prefix);
            return self.remove_own_mapping(now, &prefix);
        };
        let config = &self.mobility.ranges[range];
        let eid = LocalEid { prefix, locator_set: config.locator_set.clone() };
        let is_elsewhere = config.interfaces != interfaces;
        self.mobility.insert_here(prefix, Here { range, due: now, ..here });
        if is_elsewhere {
            self.tell_host_here(prefix);
        }
        if self.database.get(&prefix).is_none_or(|own| own.origin == Origin::Dynamic) {
            self.set_own_mapping(now, OwnMapping::dynamic(eid));
        }
    }

    fn forget_host(&mut self, prefix: EidPrefix) {
        self.mobility.changes.push_back(HostChange::Forget { eid: prefix.first() });
    }

    /// Hosts of new ranges that the map-cache has at other sites.
    fn find_away(&mut self, now: Instant) {
        let is_one = |prefix: &EidPrefix| {
            self.mobility.range_of_host(prefix).is_some()
                && !self.mobility.here.contains_key(prefix)
                && self.database.get(prefix).is_none()
        };
        let elsewhere: Vec<EidPrefix> = self
            .cache
            .iter()
            .filter(|(prefix, entry)| !entry.mapping.locators().is_empty() && is_one(prefix))
            .map(|(prefix, _)| prefix)
            .collect();
        elsewhere.into_iter().for_each(|prefix| self.host_is_away(now, prefix));
    }
}
