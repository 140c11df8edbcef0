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
    /// An EID-Prefix of nothing but an unrecognised LCAF type (RFC 9306 §3, CW-10).
    #[error("EID-prefix of unrecognised LCAF type {0}")]
    UnknownEid(u8),
    /// A Vendor-Specific LCAF whose OUI is not understood (RFC 9306 §4, CW-11).
    #[error("vendor-specific LCAF of unknown OUI {0:#08x}")]
    UnknownVendor(u32),
    /// A mask length beyond its family's width (CW-17).
    #[error("mask length {0} is beyond the address width")]
    MaskLength(u8),
    /// LCAF nested beyond the limit (CW-20).
    #[error("LCAF nested too deep")]
    Nesting,
    /// A checksum inside an ECM does not verify (EC-03).
    #[error("wrong {0}")]
    Checksum(&'static str),
    /// The inner UDP checksum of an ECM is zero (EC-03, CW-05).
    #[error("inner UDP checksum is zero")]
    ZeroChecksum,
    /// An inner UDP port of an ECM is 4341 (EC-04).
    #[error("inner UDP port is the data port")]
    DataPort,
    /// A Map-Request with the P-bit inside an ECM (EC-06).
    #[error("RLOC-probe inside an encapsulated control message")]
    EncapsulatedProbe,
    /// An ECM inside an ECM (EC-08).
    #[error("encapsulated control message inside another")]
    NestedEncapsulation,
    /// A JSON LCAF whose Length is not that of its parts (RFC 8060 §4.15), as lispers.net writes it, so that nothing after it is where it should be.
    #[error("wrong length of a JSON LCAF")]
    JsonLength,
    /// A Map-Register that cannot be read, with a reserved bit by which lispers.net says that it is encrypted.
    #[error("Map-Register is encrypted")]
    EncryptedRegister,
    /// Anything else that makes the named field malformed.
    #[error("malformed {0}")]
    Malformed(&'static str),
}
