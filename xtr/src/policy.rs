//! What a role lets through the data plane; the roles implement it, the engine asks it.
use crate::drops::DropReason;
use mapping::eid::{EidPrefix, InstanceId};
use std::net::IpAddr;
use std::sync::Arc;

pub mod prefix_set;
pub mod site;
pub mod switch;

pub use prefix_set::PrefixSet;
pub use site::SitePolicy;
pub use switch::{PolicyFollower, PolicySwitch, Rules};

/// A role's admission rules: pure, no state per flow, called per packet (allocation-free).
pub trait Policy: Send + Sync + 'static {
    /// A packet from the native or site side (the TUN): in which instance to look `destination` up, or why not.
    fn admit_native(&self, source: IpAddr, destination: IpAddr) -> Result<InstanceId, DropReason>;

    /// A decapsulated packet: where it goes on, or why not.
    fn admit_decapsulated(
        &self,
        outer_source: IpAddr,
        instance_id: InstanceId,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Onward, DropReason>;

    /// Whether a decapsulated packet must come from a locator of its inner source's mapping (PE-04, DE-23).
    fn checks_registration(&self) -> bool {
        false
    }

    /// Whether a host with this address comes and goes: the forwarding table knows where it is (DY-01).
    fn roams(&self, _address: IpAddr) -> bool {
        false
    }

    /// What `Verdict::Native` means here: `Ok` = hand it to the kernel, `Err` = drop.
    fn admit_native_forward(&self) -> Result<(), DropReason>;

    /// The EID-prefixes that [`Onward::DeliverOwn`] and [`Onward::Follow`] number, in that order.
    fn own_prefixes(&self) -> Vec<EidPrefix> {
        Vec::new()
    }

    /// For explanations, not on the packet path: which rule decides in [`Self::admit_native`], as a phrase.
    fn native_rule(&self, _source: IpAddr, _destination: IpAddr) -> String {
        "the role's rules".to_owned()
    }

    /// For explanations, not on the packet path: which rule decides in [`Self::admit_decapsulated`], as a phrase.
    fn decapsulated_rule(
        &self,
        _outer_source: IpAddr,
        _instance_id: InstanceId,
        _source: IpAddr,
        _destination: IpAddr,
    ) -> String {
        "the role's rules".to_owned()
    }
}

/// Rules whose role is not known where they are used.
impl Policy for Arc<dyn Policy> {
    fn admit_native(&self, source: IpAddr, destination: IpAddr) -> Result<InstanceId, DropReason> {
        (**self).admit_native(source, destination)
    }

    fn admit_decapsulated(
        &self,
        outer_source: IpAddr,
        instance_id: InstanceId,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Onward, DropReason> {
        (**self).admit_decapsulated(outer_source, instance_id, source, destination)
    }

    fn checks_registration(&self) -> bool {
        (**self).checks_registration()
    }

    fn roams(&self, address: IpAddr) -> bool {
        (**self).roams(address)
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        (**self).admit_native_forward()
    }

    fn own_prefixes(&self) -> Vec<EidPrefix> {
        (**self).own_prefixes()
    }

    fn native_rule(&self, source: IpAddr, destination: IpAddr) -> String {
        (**self).native_rule(source, destination)
    }

    fn decapsulated_rule(
        &self,
        outer_source: IpAddr,
        instance_id: InstanceId,
        source: IpAddr,
        destination: IpAddr,
    ) -> String {
        (**self).decapsulated_rule(outer_source, instance_id, source, destination)
    }
}

/// Where a decapsulated packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// To the kernel through the TUN, which forwards it.
    Deliver,
    /// The same, to an EID of the own EID-prefix with this number ([`Policy::own_prefixes`]): counted for it.
    DeliverOwn(u32),
    /// Back into the forwarding table and out encapsulated (RTR).
    Reencapsulate,
    /// To a host that comes and goes: to the kernel if it is here, counted for the EID-prefix with this number; after it if it is not (DY-04).
    Follow(u32),
}
