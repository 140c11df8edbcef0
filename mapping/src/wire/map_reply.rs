//! Map-Reply (RFC 9301 §5.4).

use super::codepoints::{kind, map_reply as bit};
use super::record::{counted, decode_records};
use super::writer::flag;
use super::{EidRecord, Tolerance, WireError, open_with};

/// Type 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapReply {
    /// P-bit.
    pub probe: bool,
    /// E-bit.
    pub echo_nonce: bool,
    /// Nonce of the Map-Request.
    pub nonce: u64,
    /// Mappings; at most 255 are encoded.
    pub records: Vec<EidRecord>,
    /// S-bit: LISP-SEC authentication data from its AD Type on, kept as it came (RFC 9303).
    pub security: Option<Vec<u8>>,
}

impl MapReply {
    /// A reply with every flag off.
    pub fn new(nonce: u64, records: Vec<EidRecord>) -> Self {
        Self { probe: false, echo_nonce: false, nonce, records, security: None }
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (record_count, records) = counted(&self.records);
        out.extend_from_slice(&[
            kind::MAP_REPLY << 4
                | flag(self.probe, bit::PROBE)
                | flag(self.echo_nonce, bit::ECHO_NONCE)
                | flag(self.security.is_some(), bit::SECURITY),
            0,
            0,
            record_count,
        ]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        for record in records {
            record.encode(out);
        }
        if let Some(security) = &self.security {
            out.extend_from_slice(security);
        }
    }

    /// Parses a message of this type; without the S-bit, octets after the last record are ignored.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        Self::parse_with(octets, Tolerance::NONE)
    }

    /// As [`Self::parse`], with `tolerance` for a known peer.
    pub fn parse_with(octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        let (mut reader, [flags, _, _, record_count]) =
            open_with(octets, kind::MAP_REPLY, tolerance)?;
        let nonce = reader.u64("nonce")?;
        let records = decode_records(&mut reader, record_count)?;
        let security = match flags & bit::SECURITY {
            0 => None,
            _ if reader.is_empty() => return Err(WireError::Truncated("authentication data")),
            _ => Some(reader.rest().to_vec()),
        };
        Ok(Self {
            probe: flags & bit::PROBE != 0,
            echo_nonce: flags & bit::ECHO_NONCE != 0,
            nonce,
            records,
            security,
        })
    }
}
