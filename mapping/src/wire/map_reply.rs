//! Map-Reply (RFC 9301 §5.4).
use super::{EidRecord, WireError};

/// Type 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapReply {
    /// P-bit.
    pub probe: bool,
    /// E-bit.
    pub echo_nonce: bool,
    /// Nonce of the Map-Request.
    pub nonce: u64,
    /// Mappings.
    pub records: Vec<EidRecord>,
    /// S-bit: LISP-SEC authentication data from its AD Type on, kept as it came (RFC 9303).
    pub security: Option<Vec<u8>>,
}

impl MapReply {
    /// Appends the message to `out`.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    /// Parses a message of this type.
    pub fn parse(_octets: &[u8]) -> Result<Self, WireError> {
        unimplemented!()
    }
}
