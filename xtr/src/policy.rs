//! What a role lets through the data plane; the roles implement it, the engine asks it.
use crate::drops::DropReason;
use mapping::eid::InstanceId;
use std::net::IpAddr;

pub mod prefix_set;
pub mod site;

pub use prefix_set::PrefixSet;
pub use site::SitePolicy;

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

    /// What `Verdict::Native` means here: `Ok` = hand it to the kernel, `Err` = drop.
    fn admit_native_forward(&self) -> Result<(), DropReason>;
}

/// Where a decapsulated packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// To the kernel through the TUN, which forwards it.
    Deliver,
    /// Back into the forwarding table and out encapsulated (RTR).
    Reencapsulate,
}
