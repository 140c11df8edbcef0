//! The Authentication Data field of a message.

use std::fmt;
use std::ops::Deref;

/// The longest MAC that any algorithm here has (HMAC-SHA-256, untruncated).
const INLINE: usize = 32;

/// The octets of a MAC; up to 32, all that a known algorithm has, take no heap.
#[derive(Clone)]
pub struct MacField(Repr);

#[derive(Clone)]
enum Repr {
    Inline {
        len: u8,
        octets: [u8; INLINE],
    },
    /// The field of an unknown algorithm, kept as it came (AU-12).
    Long(Box<[u8]>),
}

impl MacField {
    /// `len` zero octets, for `auth` to fill.
    pub fn zeroed(len: usize) -> Self {
        match u8::try_from(len) {
            Ok(short) if len <= INLINE => Self(Repr::Inline { len: short, octets: [0; INLINE] }),
            _ => Self(Repr::Long(vec![0; len].into())),
        }
    }
}

impl From<&[u8]> for MacField {
    fn from(mac: &[u8]) -> Self {
        let mut field = Self::zeroed(mac.len());
        match &mut field.0 {
            Repr::Inline { octets, .. } => octets[..mac.len()].copy_from_slice(mac),
            Repr::Long(octets) => octets.copy_from_slice(mac),
        }
        field
    }
}

impl Deref for MacField {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, octets } => &octets[..usize::from(*len)],
            Repr::Long(octets) => octets,
        }
    }
}

impl PartialEq for MacField {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for MacField {}

impl fmt::Debug for MacField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacField(")?;
        self.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        f.write_str(")")
    }
}
