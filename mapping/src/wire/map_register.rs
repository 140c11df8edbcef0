//! Map-Register (RFC 9301 §5.6), and what it shares with Map-Notify and Map-Notify-Ack.

use std::fmt;

use super::codepoints::{kind, map_register as bit};
use super::reader::Reader;
use super::record::{counted, decode_records};
use super::writer::{flag, with_length};
use super::{EidRecord, MacField, Tolerance, WireError, open_with};

/// Key ID, Algorithm ID and MAC of a Map-Register, Map-Notify or Map-Notify-Ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationData {
    /// Key ID.
    pub key_id: u8,
    /// Algorithm ID (RFC 9301 §12.5).
    pub algorithm_id: u8,
    /// The MAC.
    pub mac: MacField,
}

/// xTR-ID and Site-ID (RFC 9301 §5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct XtrIdentity {
    /// xTR-ID.
    pub xtr_id: u128,
    /// Site-ID.
    pub site_id: u64,
}

impl fmt::Display for XtrIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xTR {:032x} (Site-ID {})", self.xtr_id, self.site_id)
    }
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
    /// Mappings; at most 255 are encoded.
    pub records: Vec<EidRecord>,
    /// I-bit.
    pub identity: Option<XtrIdentity>,
}

impl MapRegister {
    /// A message without records, every flag off, its authentication data empty.
    pub fn new(nonce: u64) -> Self {
        Self {
            proxy_reply: false,
            security_capable: false,
            eid_notify: false,
            use_ttl: false,
            merge: false,
            want_map_notify: false,
            nonce,
            authentication: AuthenticationData::zeroed(0, 0, 0),
            records: Vec::new(),
            identity: None,
        }
    }

    /// Appends the message to `out`; `authentication.mac` goes in as it is (see `auth` for signing the octets).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (record_count, records) = counted(&self.records);
        out.extend_from_slice(&[
            kind::MAP_REGISTER << 4
                | flag(self.proxy_reply, bit::PROXY_REPLY)
                | flag(self.security_capable, bit::SECURITY)
                | flag(self.identity.is_some(), bit::XTR_ID),
            0,
            flag(self.eid_notify, bit::EID_NOTIFY)
                | flag(self.use_ttl, bit::USE_TTL)
                | flag(self.merge, bit::MERGE)
                | flag(self.want_map_notify, bit::WANT_MAP_NOTIFY),
            record_count,
        ]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        self.authentication.encode(out);
        for record in records {
            record.encode(out);
        }
        if let Some(identity) = &self.identity {
            identity.encode(out);
        }
    }

    /// Parses a message of this type; octets after it are ignored.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        Self::parse_with(octets, Tolerance::NONE)
    }

    /// As [`Self::parse`], with `tolerance` for a known peer.
    pub fn parse_with(octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        let (mut reader, [flags, _, want_flags, record_count]) =
            open_with(octets, kind::MAP_REGISTER, tolerance)?;
        let nonce = reader.u64("nonce")?;
        let authentication = AuthenticationData::decode(&mut reader)?;
        let records = decode_records(&mut reader, record_count)?;
        let identity = match flags & bit::XTR_ID {
            0 => None,
            _ => Some(XtrIdentity::decode(&mut reader)?),
        };
        Ok(Self {
            proxy_reply: flags & bit::PROXY_REPLY != 0,
            security_capable: flags & bit::SECURITY != 0,
            eid_notify: want_flags & bit::EID_NOTIFY != 0,
            use_ttl: want_flags & bit::USE_TTL != 0,
            merge: want_flags & bit::MERGE != 0,
            want_map_notify: want_flags & bit::WANT_MAP_NOTIFY != 0,
            nonce,
            authentication,
            records,
            identity,
        })
    }
}

/// Whether a message is a Map-Register with the bit of encrypted ones: reserved, so that it means nothing where the message is readable.
pub(super) fn is_marked_encrypted(octets: &[u8]) -> bool {
    matches!(octets, [first, _, third, ..]
        if first >> 4 == kind::MAP_REGISTER && third & bit::ENCRYPTED != 0)
}

impl AuthenticationData {
    /// A zero-filled field of `mac_len` octets, for `auth::sign` to fill.
    pub fn zeroed(key_id: u8, algorithm_id: u8, mac_len: usize) -> Self {
        Self { key_id, algorithm_id, mac: MacField::zeroed(mac_len) }
    }

    /// Steps over an unknown algorithm by the field's length (AU-12).
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let [key_id, algorithm_id] = reader.array("Key ID")?;
        let length = reader.u16("Authentication Data Length")?;
        let mac = reader.take(length.into(), "Authentication Data")?.into();
        Ok(Self { key_id, algorithm_id, mac })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.key_id, self.algorithm_id]);
        with_length(out, |out| out.extend_from_slice(&self.mac));
    }
}

impl XtrIdentity {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { xtr_id: reader.u128("xTR-ID")?, site_id: reader.u64("Site-ID")? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.xtr_id.to_be_bytes());
        out.extend_from_slice(&self.site_id.to_be_bytes());
    }
}
