//! The node's own RLOCs.
use crate::config::OwnRloc;
use std::net::IpAddr;

/// Own RLOCs in the order of their names: the first of a family that is up is preferred as source.
#[derive(Clone, Debug)]
pub(super) struct OwnRlocs(Vec<State>);

/// An own RLOC and whether the host can use it.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) rloc: OwnRloc,
    pub(super) up: bool,
}

impl OwnRlocs {
    pub(super) fn new(mut rlocs: Vec<OwnRloc>) -> Self {
        rlocs.sort_by(|one, other| one.name.cmp(&other.name));
        Self(rlocs.into_iter().map(|rloc| State { rloc, up: true }).collect())
    }

    /// Puts other names, priorities and weights in place; what is known of each address stays.
    pub(super) fn reconfigure(&mut self, rlocs: Vec<OwnRloc>) {
        let down: Vec<IpAddr> =
            self.0.iter().filter(|state| !state.up).map(|state| state.rloc.address).collect();
        *self = Self::new(rlocs);
        for address in down {
            self.set_up(address, false);
        }
    }

    /// Notes whether the host can use an own RLOC; `true` if that is news.
    pub(super) fn set_up(&mut self, address: IpAddr, up: bool) -> bool {
        let mut changed = false;
        for state in self.0.iter_mut().filter(|state| state.rloc.address == address) {
            changed |= state.up != up;
            state.up = up;
        }
        changed
    }

    /// The own RLOC to send from towards `destination`: same family. With all of the family down, still the first.
    pub(super) fn for_family(&self, destination: IpAddr) -> Option<IpAddr> {
        let of_family =
            || self.0.iter().filter(|state| state.rloc.address.is_ipv4() == destination.is_ipv4());
        of_family()
            .find(|state| state.up)
            .or_else(|| of_family().next())
            .map(|state| state.rloc.address)
    }

    /// Whether an own RLOC of the family of `destination` is up.
    pub(super) fn can_send(&self, destination: IpAddr) -> bool {
        let of_family = |state: &State| state.rloc.address.is_ipv4() == destination.is_ipv4();
        self.0.iter().any(|state| state.up && of_family(state))
    }

    /// Whether it is an own RLOC that is up.
    pub(super) fn is_up(&self, address: IpAddr) -> bool {
        self.0.iter().any(|state| state.up && state.rloc.address == address)
    }

    /// The own RLOCs of the family of `destination` that are up.
    pub(super) fn up_of_family(&self, destination: IpAddr) -> impl Iterator<Item = IpAddr> {
        let of_family = move |state: &&State| state.rloc.address.is_ipv4() == destination.is_ipv4();
        self.0.iter().filter(|state| state.up).filter(of_family).map(|state| state.rloc.address)
    }

    /// As [`Self::for_family`], but in turn: the own RLOC for the try after so many that had no answer.
    pub(super) fn in_turn(&self, destination: IpAddr, unanswered: usize) -> Option<IpAddr> {
        let up = self.up_of_family(destination).count().max(1);
        self.up_of_family(destination).nth(unanswered % up).or_else(|| self.for_family(destination))
    }

    /// Where replies may be sent to: the RLOCs that are up, or all if none is.
    pub(super) fn reachable(&self) -> impl Iterator<Item = IpAddr> {
        let any_up = self.0.iter().any(|state| state.up);
        self.0.iter().filter(move |state| state.up || !any_up).map(|state| state.rloc.address)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().map(|state| state.rloc.address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &State> {
        self.0.iter()
    }

    /// Whether `address` can be no peer's RLOC (CW-33, CW-34, RP-20). Loopback is one only where we live on loopback ourselves.
    pub(super) fn is_martian(&self, address: IpAddr) -> bool {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        // Without an interface a link-local address says nothing.
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let loopback = address.is_loopback() && !self.addresses().any(|own| own.is_loopback());
        address.is_unspecified() || address.is_multicast() || broadcast || link_local || loopback
    }
}
