//! EID-Record and RLOC-Record (RFC 9301 §5.4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::codepoints::{MAX_COUNT, record};
use super::reader::Reader;
use super::writer::flag;
use super::{Address, Lcaf, WireError};
use crate::eid::{EidPrefix, InstanceId, InstanceRange, NamePrefix};

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EidRecord {
    /// Record TTL in minutes.
    pub ttl_minutes: u32,
    /// ACT; meaningful only without locators, and encoded only then (RP-14).
    pub action: Action,
    /// A-bit.
    pub authoritative: bool,
    /// Map-Version Number, 12 bits, 0 = not used.
    pub map_version: u16,
    /// The EID-prefix.
    pub eid: EidField,
    /// The locator-set; at most 255 are encoded, sorted by address (RFC 9301 §5.5).
    pub locators: Vec<LocatorRecord>,
}

/// An RLOC-Record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl Action {
    /// The action of a 3-bit ACT field; higher bits are ignored.
    pub const fn from_code(code: u8) -> Self {
        match code & 7 {
            0 => Self::NoAction,
            1 => Self::NativelyForward,
            2 => Self::SendMapRequest,
            3 => Self::Drop,
            4 => Self::DropPolicyDenied,
            5 => Self::DropAuthFailure,
            other => Self::Unassigned(other),
        }
    }

    /// The name of the action, as an operator reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAction => "no-action",
            Self::NativelyForward => "natively-forward",
            Self::SendMapRequest => "send-map-request",
            Self::Drop => "drop",
            Self::DropPolicyDenied => "drop-policy-denied",
            Self::DropAuthFailure => "drop-auth-failure",
            Self::Unassigned(_) => "unassigned",
        }
    }

    /// The 3-bit ACT field.
    pub const fn code(self) -> u8 {
        match self {
            Self::NoAction => 0,
            Self::NativelyForward => 1,
            Self::SendMapRequest => 2,
            Self::Drop => 3,
            Self::DropPolicyDenied => 4,
            Self::DropAuthFailure => 5,
            Self::Unassigned(code) => code & 7,
        }
    }
}

impl EidField {
    /// The EID-prefix, if this is an IP prefix in an instance of 24 bits.
    pub const fn prefix(&self) -> Option<EidPrefix> {
        match self {
            Self::Prefix(prefix) => Some(*prefix),
            Self::Other { .. } => None,
        }
    }

    /// The distinguished name, if this is one, bare or in an instance of 24 bits, that [`NamePrefix::new`] takes.
    pub fn name(&self) -> Option<NamePrefix> {
        let Self::Other { address, mask_len } = self else { return None };
        let (instance_id, name) = match address {
            Address::Name(name) => (InstanceId::DEFAULT, name),
            Address::Lcaf(Lcaf::InstanceId { instance_id, address, .. }) => match &**address {
                Address::Name(name) => (InstanceId::new(*instance_id)?, name),
                _ => return None,
            },
            _ => return None,
        };
        NamePrefix::new(instance_id, name, *mask_len)
    }

    /// The range of instances, if this is one: LCAF type 2 without an address (CW-27).
    pub fn instance_range(&self) -> Option<InstanceRange> {
        match self {
            Self::Other {
                address: Address::Lcaf(Lcaf::InstanceId { mask_len, instance_id, address }),
                ..
            } if **address == Address::None => InstanceRange::new(*instance_id, *mask_len),
            _ => None,
        }
    }

    /// EID mask-len; with an Instance ID, that of the address in it (RFC 8060 §4.1).
    pub fn mask_len(&self) -> u8 {
        match self {
            Self::Prefix(prefix) => prefix.mask_len(),
            Self::Other { mask_len, .. } => *mask_len,
        }
    }

    /// What a mask length and an address mean together: bits beyond the mask are zeroed (CW-18).
    ///
    /// # Errors
    /// [`WireError::MaskLength`] beyond the address width (CW-17), [`WireError::UnknownEid`] for an unrecognised LCAF type (CW-10).
    pub fn new(mut address: Address, mask_len: u8) -> Result<Self, WireError> {
        mask(&mut address, mask_len)?;
        Ok(match address.eid().map(|eid| (eid.instance_id, IpNet::new(eid.address, mask_len))) {
            Some((instance_id, Ok(prefix))) => Self::Prefix(EidPrefix::new(instance_id, prefix)),
            Some(_) | None => Self::Other { address, mask_len },
        })
    }

    /// EID mask-len is given: it precedes the address, not always directly.
    pub(super) fn decode(reader: &mut Reader<'_>, mask_len: u8) -> Result<Self, WireError> {
        Self::new(Address::decode(reader)?, mask_len)
    }

    /// Appends the AFI and address, without the mask length.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        Address::from(self).encode(out);
    }
}

impl fmt::Display for EidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return name.fmt(f);
        }
        if let Some(range) = self.instance_range() {
            return range.fmt(f);
        }
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Other { address, mask_len } => write!(f, "{address}/{mask_len}"),
        }
    }
}

impl From<EidPrefix> for EidField {
    fn from(prefix: EidPrefix) -> Self {
        Self::Prefix(prefix)
    }
}

impl From<&NamePrefix> for EidField {
    fn from(name: &NamePrefix) -> Self {
        let address = Address::Name(name.name().to_vec());
        let address = match name.instance_id() {
            InstanceId::DEFAULT => address,
            instance_id => Address::whole_instance(instance_id, address),
        };
        Self::Other { address, mask_len: name.mask_len() }
    }
}

impl From<InstanceRange> for EidField {
    fn from(range: InstanceRange) -> Self {
        let address = Address::Lcaf(Lcaf::InstanceId {
            mask_len: range.mask_len(),
            instance_id: range.first(),
            address: Box::new(Address::None),
        });
        Self::Other { address, mask_len: 0 }
    }
}

impl EidRecord {
    /// The octets of the shortest: EID-Prefix-AFI 0, no locators.
    const MIN_LEN: usize = 12;

    /// A record without locators: version 0, A=0.
    pub fn negative(eid: impl Into<EidField>, action: Action, ttl_minutes: u32) -> Self {
        Self {
            ttl_minutes,
            action,
            authoritative: false,
            map_version: 0,
            eid: eid.into(),
            locators: Vec::new(),
        }
    }

    /// A record with locators: version 0, A=0.
    pub fn new(eid: impl Into<EidField>, ttl_minutes: u32, locators: Vec<LocatorRecord>) -> Self {
        Self { locators, ..Self::negative(eid, Action::NoAction, ttl_minutes) }
    }

    /// The locators that hold an IP address, in wire order; the others are ignored (CW-08).
    pub fn usable_locators(&self) -> impl Iterator<Item = (IpAddr, &LocatorRecord)> {
        self.locators.iter().filter_map(|locator| Some((locator.address.rloc()?, locator)))
    }

    /// Whether no locator is usable: `action` then decides (CW-09).
    pub fn is_negative(&self) -> bool {
        self.usable_locators().next().is_none()
    }

    /// The record that `octets` are, all of them.
    pub(crate) fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets);
        let record = Self::decode(&mut reader)?;
        reader.is_empty().then_some(record).ok_or(WireError::Malformed("EID-Record length"))
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let ttl_minutes = reader.u32("Record TTL")?;
        let locator_count = reader.u8("Locator Count")?;
        let mask_len = reader.u8("EID mask-len")?;
        let [flags, _] = reader.array("ACT")?;
        let map_version = reader.u16("Map-Version Number")? & record::MAP_VERSION;
        let eid = EidField::decode(reader, mask_len)?;
        let locators = decode_locators(reader, locator_count)?;
        let authoritative = flags & record::AUTHORITATIVE != 0;
        let action = Action::from_code(flags >> 5);
        Ok(Self { ttl_minutes, action, authoritative, map_version, eid, locators })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let locators = &self.locators[..self.locators.len().min(MAX_COUNT)];
        let action = if locators.is_empty() { self.action.code() << 5 } else { 0 };
        out.extend_from_slice(&self.ttl_minutes.to_be_bytes());
        out.extend_from_slice(&[
            locators.len() as u8,
            self.eid.mask_len(),
            action | flag(self.authoritative, record::AUTHORITATIVE),
            0,
        ]);
        out.extend_from_slice(&(self.map_version & record::MAP_VERSION).to_be_bytes());
        self.eid.encode(out);
        encode_locators(locators, out);
    }
}

impl LocatorRecord {
    /// The octets before Loc-AFI.
    const FIXED_LEN: usize = 6;
    /// The octets of the shortest: Loc-AFI 0.
    const MIN_LEN: usize = Self::FIXED_LEN + 2;

    /// A reachable unicast locator: not for multicast (255/0), L=0, p=0, R=1.
    pub fn new(address: impl Into<Address>, priority: u8, weight: u8) -> Self {
        Self {
            priority,
            weight,
            multicast_priority: 255,
            multicast_weight: 0,
            local: false,
            probed: false,
            reachable: true,
            address: address.into(),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let [priority, weight, multicast_priority, multicast_weight] =
            reader.array("locator priority")?;
        let flags = reader.u16("locator flags")?;
        Ok(Self {
            priority,
            weight,
            multicast_priority,
            multicast_weight,
            local: flags & record::LOCAL != 0,
            probed: flags & record::PROBED != 0,
            reachable: flags & record::REACHABLE != 0,
            address: Address::decode(reader)?,
        })
    }

    /// The octets of this record in a message.
    pub(crate) fn encoded_len(&self) -> usize {
        Self::FIXED_LEN + self.address.encoded_len()
    }

    /// The records that `octets` are, up to the first that is none.
    pub(crate) fn parse_all(octets: &[u8]) -> impl Iterator<Item = Self> {
        let mut reader = Reader::new(octets);
        std::iter::from_fn(move || Self::decode(&mut reader).ok())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let bit = |set: bool, mask: u16| if set { mask } else { 0 };
        let flags = bit(self.local, record::LOCAL)
            | bit(self.probed, record::PROBED)
            | bit(self.reachable, record::REACHABLE);
        out.extend_from_slice(&[
            self.priority,
            self.weight,
            self.multicast_priority,
            self.multicast_weight,
        ]);
        out.extend_from_slice(&flags.to_be_bytes());
        self.address.encode(out);
    }
}

/// `count` EID-Records.
pub(super) fn decode_records(
    reader: &mut Reader<'_>,
    count: u8,
) -> Result<Vec<EidRecord>, WireError> {
    let mut records = Vec::with_capacity(reader.at_most(count, EidRecord::MIN_LEN));
    for _ in 0..count {
        records.push(EidRecord::decode(reader)?);
    }
    Ok(records)
}

/// Steps over `count` EID-Records, of which only the lengths are looked at.
pub(super) fn skip_records(reader: &mut Reader<'_>, count: u8) -> Result<(), WireError> {
    for _ in 0..count {
        reader.take(4, "Record TTL")?;
        let locator_count = reader.u8("Locator Count")?;
        reader.take(5, "EID mask-len")?;
        Address::skip(reader)?;
        for _ in 0..locator_count {
            reader.take(LocatorRecord::FIXED_LEN, "locator priority")?;
            Address::skip(reader)?;
        }
    }
    Ok(())
}

/// `count` RLOC-Records.
pub(super) fn decode_locators(
    reader: &mut Reader<'_>,
    count: u8,
) -> Result<Vec<LocatorRecord>, WireError> {
    let mut locators = Vec::with_capacity(reader.at_most(count, LocatorRecord::MIN_LEN));
    for _ in 0..count {
        locators.push(LocatorRecord::decode(reader)?);
    }
    Ok(locators)
}

/// Appends RLOC-Records sorted by address (CW-22); those of equal address keep their order.
pub(super) fn encode_locators(locators: &[LocatorRecord], out: &mut Vec<u8>) {
    if locators.is_sorted_by(|a, b| a.address <= b.address) {
        return locators.iter().for_each(|locator| locator.encode(out));
    }
    let mut sorted: Vec<&LocatorRecord> = locators.iter().collect();
    sorted.sort_by(|a, b| a.address.cmp(&b.address));
    sorted.into_iter().for_each(|locator| locator.encode(out));
}

/// The Record Count for `records` and those it counts.
pub(super) fn counted<T>(records: &[T]) -> (u8, &[T]) {
    let records = &records[..records.len().min(MAX_COUNT)];
    (records.len() as u8, records)
}

/// Checks `mask_len` against the width of `address` and zeroes what lies beyond it.
fn mask(address: &mut Address, mask_len: u8) -> Result<(), WireError> {
    let too_long = WireError::MaskLength(mask_len);
    match address {
        // No address has no width: deployed probes carry a mask length here.
        Address::None => {}
        Address::Ipv4(ip) => *ip = masked_v4(*ip, mask_len).ok_or(too_long)?,
        Address::Ipv6(ip) => *ip = masked_v6(*ip, mask_len).ok_or(too_long)?,
        Address::Mac(octets) => {
            let unused = 48_u8.checked_sub(mask_len).ok_or(too_long)?;
            let value = octets.iter().fold(0_u64, |value, &octet| value << 8 | u64::from(octet));
            let [_, _, kept @ ..] = (value >> unused << unused).to_be_bytes();
            *octets = kept;
        }
        Address::Name(name) => {
            let width = (name.len() + 1) * 8;
            if usize::from(mask_len) > width {
                return Err(too_long);
            }
        }
        Address::Lcaf(Lcaf::InstanceId { mask_len: iid_mask_len, instance_id, address }) => {
            if **address != Address::None {
                return mask(address, mask_len);
            }
            // A range of instances: only the leading bits count (CW-27).
            let unused = 32_u32
                .checked_sub((*iid_mask_len).into())
                .ok_or(WireError::MaskLength(*iid_mask_len))?;
            *instance_id &= u32::MAX.checked_shl(unused).unwrap_or(0);
        }
        Address::Lcaf(Lcaf::Unknown { kind, .. }) => return Err(WireError::UnknownEid(*kind)),
        Address::Lcaf(Lcaf::AfiList(list)) => {
            let kinds = || list.iter().map(unrecognised);
            if let (true, Some(Some(kind))) = (kinds().all(|kind| kind.is_some()), kinds().next()) {
                return Err(WireError::UnknownEid(kind));
            }
        }
    }
    Ok(())
}

/// The LCAF type of an address that is nothing but an unrecognised LCAF.
const fn unrecognised(address: &Address) -> Option<u8> {
    match address {
        Address::Lcaf(Lcaf::Unknown { kind, .. }) => Some(*kind),
        _ => None,
    }
}

fn masked_v4(address: Ipv4Addr, mask_len: u8) -> Option<Ipv4Addr> {
    Ipv4Net::new(address, mask_len).ok().map(|net| net.network())
}

fn masked_v6(address: Ipv6Addr, mask_len: u8) -> Option<Ipv6Addr> {
    Ipv6Net::new(address, mask_len).ok().map(|net| net.network())
}
