//! Map-Register (RFC 9301 §5.6).
use super::{EidRecord, WireError};

/// Key ID, Algorithm ID and MAC of a Map-Register, Map-Notify or Map-Notify-Ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationData {
    /// Key ID.
    pub key_id: u8,
    /// Algorithm ID (RFC 9301 §12.5).
    pub algorithm_id: u8,
    /// The MAC.
    pub mac: Vec<u8>,
}

/// xTR-ID and Site-ID (RFC 9301 §5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct XtrIdentity {
    /// xTR-ID.
    pub xtr_id: u128,
    /// Site-ID.
    pub site_id: u64,
}

/// Type 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRegister {
    /// P-bit: the Map-Server is to answer Map-Requests itself.
    pub proxy_reply: bool,
    /// S-bit: LISP-SEC capable.
    pub security_capable: bool,
    /// E-bit: EID-notify.
    pub eid_notify: bool,
    /// T-bit: time out by Record TTL.
    pub use_ttl: bool,
    /// a-bit: merge.
    pub merge: bool,
    /// M-bit: want a Map-Notify.
    pub want_map_notify: bool,
    /// Nonce.
    pub nonce: u64,
    /// Authentication data.
    pub authentication: AuthenticationData,
    /// Mappings.
    pub records: Vec<EidRecord>,
    /// I-bit.
    pub identity: Option<XtrIdentity>,
}

impl MapRegister {
    /// Appends the message to `out`; `authentication.mac` goes in as it is (see `auth` for signing the octets).
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    /// Parses a message of this type.
    pub fn parse(_octets: &[u8]) -> Result<Self, WireError> {
        unimplemented!()
    }
}
