//! Map-Notify and Map-Notify-Ack (RFC 9301 §5.7).
use super::{AuthenticationData, EidRecord, WireError, XtrIdentity};

/// Type 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapNotify {
    /// Nonce.
    pub nonce: u64,
    /// Authentication data.
    pub authentication: AuthenticationData,
    /// Mappings.
    pub records: Vec<EidRecord>,
    /// The 24-octet trailer that deployed Map-Servers echo, with or without the I-bit.
    pub identity: Option<XtrIdentity>,
}

/// Type 5: the same shape as the Map-Notify it acknowledges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapNotifyAck(pub MapNotify);

impl MapNotify {
    /// Appends the message to `out`.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    /// Parses a message of this type.
    pub fn parse(_octets: &[u8]) -> Result<Self, WireError> {
        unimplemented!()
    }
}

impl MapNotifyAck {
    /// Appends the message to `out`.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    /// Parses a message of this type.
    pub fn parse(_octets: &[u8]) -> Result<Self, WireError> {
        unimplemented!()
    }
}
