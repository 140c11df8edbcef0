//! Map-Request (RFC 9301 §5.2, RFC 9437 §4).
use super::{Address, EidField, EidRecord, WireError, XtrIdentity};
use std::net::IpAddr;

/// Type 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// A-bit.
    pub authoritative: bool,
    /// P-bit.
    pub probe: bool,
    /// S-bit.
    pub smr: bool,
    /// p-bit: sent by a PITR.
    pub pitr: bool,
    /// s-bit.
    pub smr_invoked: bool,
    /// L-bit.
    pub local_xtr: bool,
    /// D-bit.
    pub dont_map_reply: bool,
    /// Nonce.
    pub nonce: u64,
    /// Source-EID, AFI 0 = none.
    pub source_eid: Address,
    /// 1 to 32.
    pub itr_rlocs: Vec<Address>,
    /// Requested EIDs.
    pub records: Vec<RequestedEid>,
    /// M-bit: the sender's own mapping (never used unverified).
    pub map_data: Option<EidRecord>,
    /// I-bit (RFC 9437): xTR-ID and Site-ID.
    pub identity: Option<XtrIdentity>,
}

/// One record of a Map-Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedEid {
    /// N-bit (RFC 9437): subscribe.
    pub notify: bool,
    /// The EID-prefix asked for.
    pub eid: EidField,
}

impl MapRequest {
    /// The first ITR-RLOC of the same family as `family_of`, if any.
    pub fn itr_rloc_for(&self, _family_of: IpAddr) -> Option<IpAddr> {
        unimplemented!()
    }
    /// Appends the message to `out`.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    /// Parses a message of this type.
    pub fn parse(_octets: &[u8]) -> Result<Self, WireError> {
        unimplemented!()
    }
}
