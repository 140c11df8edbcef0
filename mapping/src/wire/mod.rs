//! LISP control messages on the wire (RFC 9301, RFC 8060, RFC 9304).
pub mod address;
pub mod ecm;
pub mod error;
pub mod map_notify;
pub mod map_register;
pub mod map_reply;
pub mod map_request;
pub mod record;

pub use address::{Address, Lcaf};
pub use ecm::EncapsulatedControlMessage;
pub use error::WireError;
pub use map_notify::{MapNotify, MapNotifyAck};
pub use map_register::{AuthenticationData, MapRegister, XtrIdentity};
pub use map_reply::MapReply;
pub use map_request::MapRequest;
pub use record::{Action, EidField, EidRecord, LocatorRecord};

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
    /// Type 8.
    Encapsulated(EncapsulatedControlMessage),
}

impl Message {
    /// Parses a whole UDP payload. Never panics, never allocates more than a constant factor of `octets`.
    pub fn parse(_octets: &[u8]) -> Result<Self, WireError> {
        unimplemented!()
    }
}
