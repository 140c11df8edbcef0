//! EID-Record and RLOC-Record (RFC 9301 §5.4).
use super::Address;
use crate::eid::EidPrefix;

/// What a map-cache entry without locators means (RFC 9301 §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// 0.
    NoAction,
    /// 1.
    NativelyForward,
    /// 2.
    SendMapRequest,
    /// 3.
    Drop,
    /// 4.
    DropPolicyDenied,
    /// 5.
    DropAuthFailure,
    /// 6 or 7.
    Unassigned(u8),
}

/// The EID-prefix field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EidField {
    /// An IP prefix, in instance 0 or wrapped in LCAF type 2.
    Prefix(EidPrefix),
    /// Any other well-formed EID, kept as it came.
    Other {
        /// The EID's address.
        address: Address,
        /// EID mask-len.
        mask_len: u8,
    },
}

/// An EID-Record with its RLOC-Records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EidRecord {
    /// Record TTL in minutes.
    pub ttl_minutes: u32,
    /// ACT; meaningful only without locators.
    pub action: Action,
    /// A-bit.
    pub authoritative: bool,
    /// Map-Version Number, 12 bits, 0 = not used.
    pub map_version: u16,
    /// The EID-prefix.
    pub eid: EidField,
    /// The locator-set.
    pub locators: Vec<LocatorRecord>,
}

/// An RLOC-Record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatorRecord {
    /// Unicast priority, 255 = not for unicast.
    pub priority: u8,
    /// Unicast weight.
    pub weight: u8,
    /// Multicast priority, 255 = not for multicast.
    pub multicast_priority: u8,
    /// Multicast weight.
    pub multicast_weight: u8,
    /// L: local to the sender.
    pub local: bool,
    /// p: this locator was probed.
    pub probed: bool,
    /// R: reachable.
    pub reachable: bool,
    /// Loc-AFI and Locator.
    pub address: Address,
}
