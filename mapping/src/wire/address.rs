//! AFI-encoded addresses and LCAF (RFC 8060).

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::codepoints::{MAX_LCAF_DEPTH, afi, lcaf};
use super::reader::Reader;
use super::writer::with_length;
use super::{EidField, WireError};
use crate::eid::{Eid, EidPrefix, InstanceId};

/// The IID mask-len of one whole Instance ID (RFC 8060 §4.1).
const WHOLE_INSTANCE: u8 = 32;

/// An AFI and what follows it; ordered as locators are on the wire: by AFI, LCAF type, address (RFC 9301 §5.5, RFC 8060 §3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// AFI 0: no address.
    None,
    /// AFI 1.
    Ipv4(Ipv4Addr),
    /// AFI 2.
    Ipv6(Ipv6Addr),
    /// AFI 6.
    Mac([u8; 6]),
    /// AFI 17: a distinguished name, without its NUL (RFC 9735).
    Name(Vec<u8>),
    /// AFI 16387.
    Lcaf(Lcaf),
}

/// A LISP canonical address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lcaf {
    /// Type 1.
    AfiList(Vec<Address>),
    /// Type 2. `mask_len` is the IID mask-len; `address` is `None` for a range.
    InstanceId {
        /// IID mask-len.
        mask_len: u8,
        /// 32 bits on the wire.
        instance_id: u32,
        /// The address in that instance.
        address: Box<Address>,
    },
    /// Any other type, kept octet for octet.
    Unknown {
        /// Rsvd1.
        rsvd1: u8,
        /// Flags.
        flags: u8,
        /// Type.
        kind: u8,
        /// Rsvd2.
        rsvd2: u8,
        /// The body, `Length` octets.
        body: Vec<u8>,
    },
}

impl Address {
    /// The address as an RLOC: itself, or the first IP address of an AFI list; `None` when it holds none (the locator is then ignored, RFC 9306 §3).
    pub fn rloc(&self) -> Option<IpAddr> {
        match self {
            Self::Ipv4(address) => Some((*address).into()),
            Self::Ipv6(address) => Some((*address).into()),
            Self::Lcaf(Lcaf::AfiList(list)) => list.iter().find_map(Self::rloc),
            Self::None | Self::Mac(_) | Self::Name(_) | Self::Lcaf(_) => None,
        }
    }

    /// The address as an EID: an IP address, bare (instance 0) or in LCAF type 2; else `None`.
    pub fn eid(&self) -> Option<Eid> {
        match self {
            Self::Ipv4(address) => Some(Eid::new(InstanceId::DEFAULT, (*address).into())),
            Self::Ipv6(address) => Some(Eid::new(InstanceId::DEFAULT, (*address).into())),
            Self::Lcaf(Lcaf::InstanceId { instance_id, address, .. }) => {
                let instance_id = InstanceId::new(*instance_id)?;
                match **address {
                    Self::Ipv4(address) => Some(Eid::new(instance_id, address.into())),
                    Self::Ipv6(address) => Some(Eid::new(instance_id, address.into())),
                    _ => None,
                }
            }
            Self::None | Self::Mac(_) | Self::Name(_) | Self::Lcaf(_) => None,
        }
    }

    /// `address` in `instance_id`: bare in instance 0, else LCAF type 2 (CW-24).
    fn in_instance(instance_id: InstanceId, address: IpAddr) -> Self {
        if instance_id == InstanceId::DEFAULT {
            return address.into();
        }
        Self::whole_instance(instance_id, address.into())
    }

    /// `address` in LCAF type 2.
    pub(super) fn whole_instance(instance_id: InstanceId, address: Self) -> Self {
        Self::Lcaf(Lcaf::InstanceId {
            mask_len: WHOLE_INSTANCE,
            instance_id: instance_id.get(),
            address: Box::new(address),
        })
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Self::decode_at(reader, MAX_LCAF_DEPTH)
    }

    /// `depth` is how many more LCAFs may open.
    fn decode_at(reader: &mut Reader<'_>, depth: u8) -> Result<Self, WireError> {
        match reader.u16("AFI")? {
            afi::NONE => Ok(Self::None),
            afi::IPV4 => Ok(Self::Ipv4(reader.array::<4>("IPv4 address")?.into())),
            afi::IPV6 => Ok(Self::Ipv6(reader.array::<16>("IPv6 address")?.into())),
            afi::MAC => Ok(Self::Mac(reader.array("MAC address")?)),
            afi::NAME => Ok(Self::Name(take_name(reader)?.to_vec())),
            afi::LCAF => {
                let depth = depth.checked_sub(1).ok_or(WireError::Nesting)?;
                Lcaf::decode(reader, depth).map(Self::Lcaf)
            }
            other => Err(WireError::UnknownAfi(other)),
        }
    }

    /// Steps over an address; an LCAF is not looked into.
    pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), WireError> {
        let length = match reader.u16("AFI")? {
            afi::NONE => 0,
            afi::IPV4 => 4,
            afi::IPV6 => 16,
            afi::MAC => 6,
            afi::NAME => return take_name(reader).map(drop),
            afi::LCAF => {
                reader.take(4, "LCAF header")?;
                reader.u16("LCAF length")?.into()
            }
            other => return Err(WireError::UnknownAfi(other)),
        };
        reader.take(length, "address").map(drop)
    }

    /// The octets that [`Self::encode`] appends.
    pub(super) fn encoded_len(&self) -> usize {
        const AFI: usize = 2;
        const LCAF_HEADER: usize = 6;
        const INSTANCE_ID: usize = 4;
        AFI + match self {
            Self::None => 0,
            Self::Ipv4(_) => 4,
            Self::Ipv6(_) => 16,
            Self::Mac(octets) => octets.len(),
            Self::Name(name) => name.iter().take_while(|&&octet| octet != 0).count() + 1,
            Self::Lcaf(lcaf) => {
                LCAF_HEADER
                    + match lcaf {
                        Lcaf::AfiList(list) => list.iter().map(Self::encoded_len).sum(),
                        Lcaf::InstanceId { address, .. } => INSTANCE_ID + address.encoded_len(),
                        Lcaf::Unknown { body, .. } => body.len(),
                    }
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.afi().to_be_bytes());
        match self {
            Self::None => {}
            Self::Ipv4(address) => out.extend_from_slice(&address.octets()),
            Self::Ipv6(address) => out.extend_from_slice(&address.octets()),
            Self::Mac(address) => out.extend_from_slice(address),
            Self::Name(name) => {
                out.extend(name.iter().copied().take_while(|&octet| octet != 0));
                out.push(0);
            }
            Self::Lcaf(lcaf) => lcaf.encode(out),
        }
    }

    const fn afi(&self) -> u16 {
        match self {
            Self::None => afi::NONE,
            Self::Ipv4(_) => afi::IPV4,
            Self::Ipv6(_) => afi::IPV6,
            Self::Mac(_) => afi::MAC,
            Self::Name(_) => afi::NAME,
            Self::Lcaf(_) => afi::LCAF,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Ipv4(address) => address.fmt(f),
            Self::Ipv6(address) => address.fmt(f),
            Self::Mac([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Self::Name(name) => write!(f, "'{}'", name.escape_ascii()),
            Self::Lcaf(Lcaf::InstanceId { instance_id, address, .. }) => {
                write!(f, "[{instance_id}]{address}")
            }
            Self::Lcaf(Lcaf::AfiList(list)) => {
                let texts: Vec<String> = list.iter().map(Self::to_string).collect();
                write!(f, "{{{}}}", texts.join(", "))
            }
            Self::Lcaf(Lcaf::Unknown { kind, .. }) => write!(f, "LCAF type {kind}"),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

impl From<Eid> for Address {
    fn from(eid: Eid) -> Self {
        Self::in_instance(eid.instance_id, eid.address)
    }
}

impl From<EidPrefix> for Address {
    fn from(prefix: EidPrefix) -> Self {
        Self::in_instance(prefix.instance_id(), prefix.prefix().network())
    }
}

impl From<&EidField> for Address {
    fn from(eid: &EidField) -> Self {
        match eid {
            EidField::Prefix(prefix) => (*prefix).into(),
            EidField::Other { address, .. } => address.clone(),
        }
    }
}

impl Lcaf {
    /// The LCAF type.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::AfiList(_) => lcaf::AFI_LIST,
            Self::InstanceId { .. } => lcaf::INSTANCE_ID,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// What follows the AFI; the body cannot be left (CW-20).
    fn decode(reader: &mut Reader<'_>, depth: u8) -> Result<Self, WireError> {
        let [rsvd1, flags, kind, rsvd2] = reader.array("LCAF header")?;
        let length = reader.u16("LCAF length")?.into();
        let length = match kind {
            lcaf::JSON if reader.tolerance().json_length => json_len(*reader).unwrap_or(length),
            _ => length,
        };
        let mut body = reader.sub(length, "LCAF body")?;
        match kind {
            lcaf::AFI_LIST => {
                let mut list = Vec::new();
                while !body.is_empty() {
                    list.push(Address::decode_at(&mut body, depth)?);
                }
                Ok(Self::AfiList(list))
            }
            lcaf::INSTANCE_ID => {
                let instance_id = body.u32("Instance ID")?;
                let address = Box::new(Address::decode_at(&mut body, depth)?);
                if !body.is_empty() {
                    return Err(WireError::Malformed("LCAF length"));
                }
                Ok(Self::InstanceId { mask_len: rsvd2, instance_id, address })
            }
            lcaf::VENDOR_SPECIFIC => Err(WireError::UnknownVendor(body.u32("OUI")? & 0x00ff_ffff)),
            _ => Ok(Self::Unknown { rsvd1, flags, kind, rsvd2, body: body.rest().to_vec() }),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let header = match self {
            Self::AfiList(_) => [0, 0, lcaf::AFI_LIST, 0],
            Self::InstanceId { mask_len, .. } => [0, 0, lcaf::INSTANCE_ID, *mask_len],
            Self::Unknown { rsvd1, flags, kind, rsvd2, .. } => [*rsvd1, *flags, *kind, *rsvd2],
        };
        out.extend_from_slice(&header);
        with_length(out, |out| match self {
            Self::AfiList(list) => list.iter().for_each(|address| address.encode(out)),
            Self::InstanceId { instance_id, address, .. } => {
                out.extend_from_slice(&instance_id.to_be_bytes());
                address.encode(out);
            }
            Self::Unknown { body, .. } => out.extend_from_slice(body),
        });
    }
}

impl Ord for Lcaf {
    fn cmp(&self, other: &Self) -> Ordering {
        // The type leads; within one type, any total order that agrees with Eq will do.
        self.kind().cmp(&other.kind()).then_with(|| match (self, other) {
            (Self::AfiList(a), Self::AfiList(b)) => a.cmp(b),
            (
                Self::InstanceId { mask_len, instance_id, address },
                Self::InstanceId { mask_len: mask_len_b, instance_id: instance_id_b, address: b },
            ) => (instance_id, address, mask_len).cmp(&(instance_id_b, b, mask_len_b)),
            (
                Self::Unknown { rsvd1, flags, rsvd2, body, .. },
                Self::Unknown {
                    rsvd1: rsvd1_b, flags: flags_b, rsvd2: rsvd2_b, body: body_b, ..
                },
            ) => (body, rsvd1, flags, rsvd2).cmp(&(body_b, rsvd1_b, flags_b, rsvd2_b)),
            (Self::Unknown { .. }, _) => Ordering::Greater,
            (_, _) => Ordering::Less,
        })
    }
}

impl PartialOrd for Lcaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The octets of the parts of a JSON LCAF: JSON length, JSON, an address (RFC 8060 §4.15); `None` if they are not there.
fn json_len(mut reader: Reader<'_>) -> Option<usize> {
    let whole = reader.rest().len();
    let length = reader.u16("JSON length").ok()?;
    reader.take(length.into(), "JSON").ok()?;
    Address::skip(&mut reader).ok()?;
    Some(whole - reader.rest().len())
}

/// A name ends with its first NUL (RFC 9735 §3); one NUL alone is the empty name.
fn take_name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let end = reader
        .rest()
        .iter()
        .position(|&octet| octet == 0)
        .ok_or(WireError::Truncated("distinguished name"))?;
    let name = reader.take(end, "distinguished name")?;
    reader.u8("distinguished name")?;
    Ok(name)
}
