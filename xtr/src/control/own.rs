//! The node's own RLOCs.
use crate::config::OwnRloc;
use std::net::IpAddr;

/// Own RLOCs in the order of their names: the first of a family is preferred as source.
#[derive(Clone, Debug)]
pub(super) struct OwnRlocs(Vec<OwnRloc>);

impl OwnRlocs {
    pub(super) fn new(mut rlocs: Vec<OwnRloc>) -> Self {
        rlocs.sort_by(|one, other| one.name.cmp(&other.name));
        Self(rlocs)
    }

    /// The own RLOC to send from towards `destination`: same family.
    pub(super) fn for_family(&self, destination: IpAddr) -> Option<IpAddr> {
        self.addresses().find(|address| address.is_ipv4() == destination.is_ipv4())
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().map(|rloc| rloc.address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &OwnRloc> {
        self.0.iter()
    }

    /// Whether `address` can be no peer's RLOC (CW-33, CW-34, RP-20). Loopback is one only where we live on loopback ourselves.
    pub(super) fn is_martian(&self, address: IpAddr) -> bool {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        let loopback = address.is_loopback() && !self.addresses().any(|own| own.is_loopback());
        address.is_unspecified() || address.is_multicast() || broadcast || loopback
    }
}
