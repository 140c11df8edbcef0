//! Where the Authentication Data of an encoded message lies, for `auth`.

use std::ops::Range;

use super::WireError;
use super::codepoints::kind;
use super::info::is_reply;
use super::reader::Reader;
use super::record::skip_records;

/// The types that carry Authentication Data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignedKind {
    Register = 0,
    Notify,
    NotifyAck,
    InfoRequest,
    InfoReply,
}

/// Offsets into one encoded message of these types.
#[derive(Clone, Debug)]
pub(crate) struct SignedLayout {
    pub(crate) kind: SignedKind,
    pub(crate) nonce: u64,
    pub(crate) algorithm_id: u8,
    /// Where the MAC lies.
    pub(crate) mac: Range<usize>,
    record_count: u8,
}

impl SignedLayout {
    /// Steps over an unknown algorithm by the field's length (AU-12).
    pub(crate) fn of(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets);
        let [first, _, _, record_count] = reader.array("message header")?;
        let kind = match first >> 4 {
            kind::MAP_REGISTER => SignedKind::Register,
            kind::MAP_NOTIFY => SignedKind::Notify,
            kind::MAP_NOTIFY_ACK => SignedKind::NotifyAck,
            kind::INFO if is_reply(octets) => SignedKind::InfoReply,
            kind::INFO => SignedKind::InfoRequest,
            other => return Err(WireError::UnsupportedType(other)),
        };
        let nonce = reader.u64("nonce")?;
        let [_, algorithm_id] = reader.array("Key ID")?;
        let length = usize::from(reader.u16("Authentication Data Length")?);
        let start = octets.len() - reader.rest().len();
        reader.take(length, "Authentication Data")?;
        Ok(Self { kind, nonce, algorithm_id, mac: start..start + length, record_count })
    }

    /// Where the last RLOC-Record of `octets`, those of [`Self::of`], ends; a message without any is covered whole.
    pub(crate) fn records_end(&self, octets: &[u8]) -> Result<usize, WireError> {
        if matches!(self.kind, SignedKind::InfoRequest | SignedKind::InfoReply) {
            return Ok(octets.len());
        }
        let mut reader = Reader::new(octets);
        reader.take(self.mac.end, "Authentication Data")?;
        skip_records(&mut reader, self.record_count)?;
        Ok(octets.len() - reader.rest().len())
    }
}
