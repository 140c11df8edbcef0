//! Encapsulated Control Message (RFC 9301 §5.8).
use super::WireError;
use std::net::SocketAddr;

/// Type 8. The inner message stays octets: a Map-Resolver forwards it unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncapsulatedControlMessage {
    /// S-bit: LISP-SEC authentication data from its AD Type on, kept as it came (RFC 9303).
    pub security: Option<Vec<u8>>,
    /// D-bit: originated by a DDT client.
    pub ddt_originated: bool,
    /// E-bit: forward to the ETR.
    pub to_etr: bool,
    /// M-bit: destined to the Map-Server.
    pub to_map_server: bool,
    /// Inner IP source and UDP source port.
    pub source: SocketAddr,
    /// Inner IP destination and UDP destination port.
    pub destination: SocketAddr,
    /// The inner UDP payload.
    pub message: Vec<u8>,
}

impl EncapsulatedControlMessage {
    /// Appends the message to `out`, with inner lengths and checksums computed.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    /// Parses a message of this type; inner lengths and checksums are verified (EC-03, EC-10; EC-04, EC-08 refused here).
    pub fn parse(_octets: &[u8]) -> Result<Self, WireError> {
        unimplemented!()
    }
}
