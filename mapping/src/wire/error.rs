//! Why octets are not a message.

/// Why a control message was refused; each names the missing or wrong datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    /// The message ends inside the named field.
    #[error("message ends inside {0}")]
    Truncated(&'static str),
    /// A type this node does not handle (CW-13).
    #[error("message type {0} is not supported")]
    UnsupportedType(u8),
    /// An AFI without a known length (CW-07).
    #[error("address family {0} is not known")]
    UnknownAfi(u16),
    /// A mask length beyond its family's width (CW-17).
    #[error("mask length {0} is beyond the address width")]
    MaskLength(u8),
    /// LCAF nested beyond the limit (CW-20).
    #[error("LCAF nested too deep")]
    Nesting,
    /// Anything else that makes the named field malformed.
    #[error("malformed {0}")]
    Malformed(&'static str),
}
