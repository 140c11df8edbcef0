//! LISP control messages on the wire (RFC 9301, RFC 8060, RFC 8111, RFC 9303, RFC 9304, RFC 9437, draft-ermagan-lisp-nat-traversal).
//!
//! [`Message::parse`] is the single entry for what comes from the network; every message type has its own file, named as the RFC
//! names it, with `parse` and `encode`. Code points are in one file.
//!
//! # The contract of all parsing
//!
//! - No input panics, loops, or makes the parser allocate more than a constant factor of the input's length (CW-21): every octet
//!   is read through a bounded reader, a field with a length is parsed within it, LCAF nesting is limited, and a count reserves
//!   no more than the octets left can hold.
//! - A message is parsed whole or refused whole (CW-19), with a [`WireError`] that names what is missing or wrong.
//! - Reserved bits and fields are ignored (CW-12) and encoded as zero.
//! - What is well formed but not understood (an LCAF type in a locator, a distinguished name, ACT 6) is kept, for the caller to
//!   ignore and to encode again.
//!
//! Encoding does not fail: counts and lengths that no datagram can hold are cut to what their field holds. Locators are sorted on
//! the way out (RFC 9301 §5.5), so that `parse(encode(m)) == m` holds for every `m` whose locators are sorted.

mod codepoints;
mod mac;
mod reader;
mod signed;
mod writer;

pub mod address;
pub mod ecm;
pub mod error;
pub mod info;
pub mod map_notify;
pub mod map_referral;
pub mod map_register;
pub mod map_reply;
pub mod map_request;
pub mod record;
pub mod security;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod vectors;

pub use address::{Address, Lcaf};
pub use ecm::{EncapsulatedControlMessage, Tolerance, decode_datagram, encode_datagram};
pub use error::WireError;
pub use info::{InfoReply, InfoRequest, NatTraversal, RtrAuthentication};
pub use mac::MacField;
pub use map_notify::{MapNotify, MapNotifyAck};
pub use map_referral::{MapReferral, ReferralAction, ReferralRecord, ReferralSignature};
pub use map_register::{AuthenticationData, MapRegister, XtrIdentity};
pub use map_reply::MapReply;
pub use map_request::{MapRequest, RequestedEid};
pub use record::{Action, EidField, EidRecord, LocatorRecord};
pub use security::{EcmSecurity, EidAd, EidAdBody, ReplySecurity};

pub(crate) use signed::{SignedKind, SignedLayout};

use codepoints::kind;
use reader::Reader;

/// The UDP port of control messages (RFC 9301 §12.1).
pub const CONTROL_PORT: u16 = 4342;
/// The UDP port of LISP data packets (RFC 9300 §19.1).
pub const DATA_PORT: u16 = 4341;

/// One control message: the UDP payload on port 4342.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    MapRequest(MapRequest),
    /// Type 2.
    MapReply(MapReply),
    /// Type 3.
    MapRegister(MapRegister),
    /// Type 4.
    MapNotify(MapNotify),
    /// Type 5.
    MapNotifyAck(MapNotifyAck),
    /// Type 6.
    MapReferral(MapReferral),
    /// Type 7, R=0.
    InfoRequest(InfoRequest),
    /// Type 7, R=1.
    InfoReply(InfoReply),
    /// Type 8.
    Encapsulated(EncapsulatedControlMessage),
}

impl Message {
    /// Parses a whole UDP payload. Never panics, never allocates more than a constant factor of `octets`.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        Self::parse_with(octets, Tolerance::default())
    }

    /// As [`Self::parse`], with `tolerance` for a known peer.
    ///
    /// # Errors
    /// [`WireError::JsonLength`] for what is readable with [`Tolerance::json_length`] alone; [`WireError::EncryptedRegister`].
    pub fn parse_with(octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        Self::parse_as(octets, tolerance).map_err(|error| {
            let mended = Tolerance { json_length: true, ..tolerance };
            if tolerance != mended && Self::parse_as(octets, mended).is_ok() {
                WireError::JsonLength
            } else if map_register::is_marked_encrypted(octets) {
                WireError::EncryptedRegister
            } else {
                error
            }
        })
    }

    fn parse_as(octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        let first = octets.first().copied().ok_or(WireError::Truncated("message type"))?;
        match first >> 4 {
            kind::MAP_REQUEST => MapRequest::parse_with(octets, tolerance).map(Self::MapRequest),
            kind::MAP_REPLY => MapReply::parse_with(octets, tolerance).map(Self::MapReply),
            kind::MAP_REGISTER => MapRegister::parse_with(octets, tolerance).map(Self::MapRegister),
            kind::MAP_NOTIFY => MapNotify::parse_with(octets, tolerance).map(Self::MapNotify),
            kind::MAP_NOTIFY_ACK => MapNotifyAck::parse(octets).map(Self::MapNotifyAck),
            kind::MAP_REFERRAL => MapReferral::parse(octets).map(Self::MapReferral),
            kind::INFO if info::is_reply(octets) => InfoReply::parse(octets).map(Self::InfoReply),
            kind::INFO => InfoRequest::parse(octets).map(Self::InfoRequest),
            kind::ENCAPSULATED => {
                EncapsulatedControlMessage::parse_with(octets, tolerance).map(Self::Encapsulated)
            }
            other => Err(WireError::UnsupportedType(other)),
        }
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::MapRequest(message) => message.encode(out),
            Self::MapReply(message) => message.encode(out),
            Self::MapRegister(message) => message.encode(out),
            Self::MapNotify(message) => message.encode(out),
            Self::MapNotifyAck(message) => message.encode(out),
            Self::MapReferral(message) => message.encode(out),
            Self::InfoRequest(message) => message.encode(out),
            Self::InfoReply(message) => message.encode(out),
            Self::Encapsulated(message) => message.encode(out),
        }
    }

    /// The message as a UDP payload.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

/// The first 4 octets of a message that has to be of type `kind`, and a reader of what follows.
fn open(octets: &[u8], kind: u8) -> Result<(Reader<'_>, [u8; 4]), WireError> {
    open_with(octets, kind, Tolerance::NONE)
}

/// As [`open`], with `tolerance` for a known peer.
fn open_with(
    octets: &[u8],
    kind: u8,
    tolerance: Tolerance,
) -> Result<(Reader<'_>, [u8; 4]), WireError> {
    let mut reader = Reader::tolerant(octets, tolerance);
    let header: [u8; 4] = reader.array("message header")?;
    match header[0] >> 4 {
        found if found == kind => Ok((reader, header)),
        other => Err(WireError::UnsupportedType(other)),
    }
}
