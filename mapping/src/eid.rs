//! The words everyone speaks: instance, EID, EID-prefix, RLOC, locator.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

mod index;
mod name;
mod table;
mod version;

pub use name::{InstanceRange, NamePrefix, NameTable};
pub use table::EidTable;
pub(crate) use table::Slot;
pub use version::MapVersion;

/// A routing locator: an address of the underlay (RFC 9300 §3).
pub type Rloc = IpAddr;

/// An Instance ID, 0 to 16 777 215: the 24 bits that the data header carries (RFC 9300 §5.3, RFC 8060 §4.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct InstanceId(u32);

impl InstanceId {
    /// The default instance, 0.
    pub const DEFAULT: Self = Self(0);
    /// The largest Instance ID.
    pub const MAX: u32 = 0x00ff_ffff;

    /// `None` above [`Self::MAX`].
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX { Some(Self(value)) } else { None }
    }

    /// The numeric value.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One endpoint identifier in its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Eid {
    /// The instance the address belongs to.
    pub instance_id: InstanceId,
    /// The address.
    pub address: IpAddr,
}

impl Eid {
    /// An EID in instance `instance_id`.
    pub const fn new(instance_id: InstanceId, address: IpAddr) -> Self {
        Self { instance_id, address }
    }

    /// The /32 or /128 that holds just this EID.
    pub fn host_prefix(self) -> EidPrefix {
        EidPrefix { instance_id: self.instance_id, prefix: IpNet::from(self.address) }
    }
}

impl fmt::Display for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(f, self.instance_id)?;
        self.address.fmt(f)
    }
}

/// An EID-prefix in its instance; the bits beyond the mask are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EidPrefix {
    instance_id: InstanceId,
    prefix: IpNet,
}

impl EidPrefix {
    /// Bits of `prefix` beyond its mask are cleared.
    pub fn new(instance_id: InstanceId, prefix: IpNet) -> Self {
        Self { instance_id, prefix: prefix.trunc() }
    }

    /// The instance.
    pub const fn instance_id(&self) -> InstanceId {
        self.instance_id
    }

    /// The prefix.
    pub const fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// The mask length in bits.
    pub fn mask_len(&self) -> u8 {
        self.prefix.prefix_len()
    }

    /// Whether `eid` lies in this prefix, instance included.
    pub fn contains(&self, eid: Eid) -> bool {
        self.instance_id == eid.instance_id && self.prefix.contains(&eid.address)
    }

    /// Whether `other` is this prefix or a more-specific of it, instance included.
    pub fn covers(&self, other: &Self) -> bool {
        self.instance_id == other.instance_id && self.prefix.contains(&other.prefix)
    }

    /// The first address of the prefix as an EID.
    pub fn first(&self) -> Eid {
        Eid::new(self.instance_id, self.prefix.network())
    }
}

impl fmt::Display for EidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(f, self.instance_id)?;
        self.prefix.fmt(f)
    }
}

/// `[iid]` before an address, as operators write it; nothing for the default instance.
fn write_instance(f: &mut fmt::Formatter<'_>, instance_id: InstanceId) -> fmt::Result {
    if instance_id == InstanceId::DEFAULT { Ok(()) } else { write!(f, "[{instance_id}]") }
}
