//! What the control plane knows of one EID, for explanations.
use super::ControlPlane;
use crate::explain::{Background, Mapping};
use mapping::eid::Eid;
use std::net::IpAddr;
use std::time::Instant;

/// The control plane at one moment.
#[derive(Debug)]
pub struct Known<'a> {
    control: &'a ControlPlane,
    now: Instant,
}

impl ControlPlane {
    /// What is known now.
    pub fn known(&self, now: Instant) -> Known<'_> {
        Known { control: self, now }
    }
}

impl Background for Known<'_> {
    fn mapping_of(&self, eid: Eid) -> Mapping {
        let control = self.control;
        let cached = control.cache.lookup(eid);
        let own = control.database.lookup(eid).map(|(prefix, _)| prefix);
        // An entry of the same length hides the own EID-prefix.
        let own =
            own.filter(|own| cached.is_none_or(|(prefix, _)| own.mask_len() > prefix.mask_len()));
        let entry = match own {
            Some(_) => None,
            None => cached.map(|(prefix, entry)| control.entry_view(self.now, prefix, entry)),
        };
        let (asking, turn) = control.lookups.turn_of(&eid.host_prefix());
        let resolvers: Vec<IpAddr> = control.map_resolvers();
        let resolver = resolvers.get(turn % resolvers.len().max(1)).copied();
        Mapping { entry, own, asking, resolver }
    }
}
