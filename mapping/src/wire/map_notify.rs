//! Map-Notify and Map-Notify-Ack (RFC 9301 §5.7).

use super::codepoints::{IDENTITY_LEN, kind};
use super::record::{counted, decode_records};
use super::{AuthenticationData, EidRecord, Tolerance, WireError, XtrIdentity, open_with};

/// Type 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapNotify {
    /// Nonce.
    pub nonce: u64,
    /// Authentication data.
    pub authentication: AuthenticationData,
    /// Mappings; at most 255 are encoded.
    pub records: Vec<EidRecord>,
    /// The 24-octet trailer that deployed Map-Servers echo, with or without the I-bit.
    pub identity: Option<XtrIdentity>,
}

/// Type 5: the same shape as the Map-Notify it acknowledges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapNotifyAck(pub MapNotify);

impl MapNotify {
    /// Appends the message to `out`; `authentication.mac` goes in as it is (see `auth` for signing the octets).
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_as(kind::MAP_NOTIFY, out);
    }

    /// Parses a message of this type.
    ///
    /// Exactly 24 octets after the last record are xTR-ID and Site-ID; any other number is ignored.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        Self::parse_with(octets, Tolerance::NONE)
    }

    /// As [`Self::parse`], with `tolerance` for a known peer.
    pub fn parse_with(octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        Self::parse_as(kind::MAP_NOTIFY, octets, tolerance)
    }

    fn encode_as(&self, kind: u8, out: &mut Vec<u8>) {
        let (record_count, records) = counted(&self.records);
        out.extend_from_slice(&[kind << 4, 0, 0, record_count]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        self.authentication.encode(out);
        for record in records {
            record.encode(out);
        }
        if let Some(identity) = &self.identity {
            identity.encode(out);
        }
    }

    fn parse_as(kind: u8, octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        let (mut reader, [_, _, _, record_count]) = open_with(octets, kind, tolerance)?;
        let nonce = reader.u64("nonce")?;
        let authentication = AuthenticationData::decode(&mut reader)?;
        let records = decode_records(&mut reader, record_count)?;
        let identity = match reader.rest().len() {
            IDENTITY_LEN => Some(XtrIdentity::decode(&mut reader)?),
            _ => None,
        };
        Ok(Self { nonce, authentication, records, identity })
    }
}

impl MapNotifyAck {
    /// Appends the message to `out`; `authentication.mac` goes in as it is (see `auth` for signing the octets).
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode_as(kind::MAP_NOTIFY_ACK, out);
    }

    /// Parses a message of this type; trailing octets as for [`MapNotify::parse`].
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        MapNotify::parse_as(kind::MAP_NOTIFY_ACK, octets, Tolerance::NONE).map(Self)
    }
}
