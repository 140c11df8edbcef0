//! AFI-encoded addresses and LCAF (RFC 8060).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An AFI and what follows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
        unimplemented!()
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
