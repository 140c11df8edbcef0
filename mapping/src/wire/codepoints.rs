//! Every code point, flag and wire limit of the control messages, each with its source.

/// Message types, the first 4 bits (RFC 9301 §5.1).
pub(super) mod kind {
    pub(in crate::wire) const MAP_REQUEST: u8 = 1;
    pub(in crate::wire) const MAP_REPLY: u8 = 2;
    pub(in crate::wire) const MAP_REGISTER: u8 = 3;
    pub(in crate::wire) const MAP_NOTIFY: u8 = 4;
    pub(in crate::wire) const MAP_NOTIFY_ACK: u8 = 5;
    pub(in crate::wire) const MAP_REFERRAL: u8 = 6;
    /// Info-Request and Info-Reply (draft-ermagan-lisp-nat-traversal §4.1).
    pub(in crate::wire) const INFO: u8 = 7;
    pub(in crate::wire) const ENCAPSULATED: u8 = 8;
}

/// Address families (IANA address family numbers).
pub(super) mod afi {
    pub(in crate::wire) const NONE: u16 = 0;
    pub(in crate::wire) const IPV4: u16 = 1;
    pub(in crate::wire) const IPV6: u16 = 2;
    pub(in crate::wire) const MAC: u16 = 6;
    pub(in crate::wire) const NAME: u16 = 17;
    pub(in crate::wire) const LCAF: u16 = 16387;
}

/// LCAF types that are looked into (RFC 8060 §4, RFC 9306 §4).
pub(super) mod lcaf {
    pub(in crate::wire) const AFI_LIST: u8 = 1;
    pub(in crate::wire) const INSTANCE_ID: u8 = 2;
    pub(in crate::wire) const NAT_TRAVERSAL: u8 = 7;
    pub(in crate::wire) const JSON: u8 = 14;
    pub(in crate::wire) const VENDOR_SPECIFIC: u8 = 255;
}

/// Flags of a Map-Request by octet (RFC 9301 §5.2, RFC 9437 §4).
pub(super) mod map_request {
    pub(in crate::wire) const AUTHORITATIVE: u8 = 0x08;
    pub(in crate::wire) const MAP_DATA: u8 = 0x04;
    pub(in crate::wire) const PROBE: u8 = 0x02;
    pub(in crate::wire) const SMR: u8 = 0x01;
    pub(in crate::wire) const PITR: u8 = 0x80;
    pub(in crate::wire) const SMR_INVOKED: u8 = 0x40;
    pub(in crate::wire) const XTR_ID: u8 = 0x10;
    pub(in crate::wire) const LOCAL_XTR: u8 = 0x40;
    pub(in crate::wire) const DONT_MAP_REPLY: u8 = 0x20;
    pub(in crate::wire) const IRC: u8 = 0x1f;
    /// N-bit, in the first octet of a record.
    pub(in crate::wire) const NOTIFY: u8 = 0x80;
}

/// Flags of a Map-Reply, octet 0 (RFC 9301 §5.4).
pub(super) mod map_reply {
    pub(in crate::wire) const PROBE: u8 = 0x08;
    pub(in crate::wire) const ECHO_NONCE: u8 = 0x04;
    pub(in crate::wire) const SECURITY: u8 = 0x02;
}

/// Flags of a Map-Register, octets 0 and 2 (RFC 9301 §5.6).
pub(super) mod map_register {
    pub(in crate::wire) const PROXY_REPLY: u8 = 0x08;
    pub(in crate::wire) const SECURITY: u8 = 0x04;
    pub(in crate::wire) const XTR_ID: u8 = 0x02;
    /// Reserved; of lispers.net, everything from the nonce on is encrypted.
    pub(in crate::wire) const ENCRYPTED: u8 = 0x20;
    pub(in crate::wire) const EID_NOTIFY: u8 = 0x10;
    pub(in crate::wire) const USE_TTL: u8 = 0x08;
    pub(in crate::wire) const MERGE: u8 = 0x04;
    pub(in crate::wire) const WANT_MAP_NOTIFY: u8 = 0x01;
}

/// Flags of an ECM, octet 0 (RFC 9301 §5.8, §12.6).
pub(super) mod ecm {
    pub(in crate::wire) const SECURITY: u8 = 0x08;
    pub(in crate::wire) const DDT_ORIGINATED: u8 = 0x04;
    pub(in crate::wire) const TO_ETR: u8 = 0x02;
    pub(in crate::wire) const TO_MAP_SERVER: u8 = 0x01;
    /// AD Type of LISP-SEC (RFC 9303 §8.1).
    pub(in crate::wire) const AD_TYPE_LISP_SEC: u8 = 1;
    /// AD Type of MS-RTR authentication data (draft-ermagan-lisp-nat-traversal §4.4).
    pub(in crate::wire) const AD_TYPE_RTR: u8 = 2;
    /// R and N, octet 1: where Open Overlay Router has them. The draft's "6th and 7th bit" are E and M by now (RFC 9301 §12.6).
    pub(in crate::wire) const TO_RTR: u8 = 0x40;
    pub(in crate::wire) const RELAYED: u8 = 0x20;
}

/// Flags of an Info-Request and Info-Reply, octet 0 (draft-ermagan-lisp-nat-traversal §4.1).
pub(super) mod info {
    pub(in crate::wire) const REPLY: u8 = 0x08;
}

/// EID-Record (RFC 9301 §5.4): A-bit in the octet that begins with ACT; the width of a Map-Version Number.
pub(super) mod record {
    pub(in crate::wire) const AUTHORITATIVE: u8 = 0x10;
    pub(in crate::wire) const MAP_VERSION: u16 = 0x0fff;
    pub(in crate::wire) const LOCAL: u16 = 0x0004;
    pub(in crate::wire) const PROBED: u16 = 0x0002;
    pub(in crate::wire) const REACHABLE: u16 = 0x0001;
}

/// Record of a Map-Referral (RFC 8111 §6.4): its bits beside those of [`record`], and where SigCnt lies.
pub(super) mod referral {
    pub(in crate::wire) const INCOMPLETE: u8 = 0x08;
    pub(in crate::wire) const SIG_COUNT_SHIFT: u32 = 12;
}

/// LISP-SEC authentication data (RFC 9303 §6.1, §6.2).
pub(super) mod security {
    /// MR AD Type (RFC 9303 §8.2).
    pub(in crate::wire) const REPLY_AD_TYPE: u8 = 1;
    pub(in crate::wire) const ETR_CANT_SIGN: u8 = 0x80;
    /// Preamble and One-Time Key.
    pub(in crate::wire) const OTK_LEN: u16 = 24;
    /// EID-AD Length and KDF ID; PKT-AD Length and PKT HMAC ID.
    pub(in crate::wire) const AD_HEADER: usize = 4;
}

/// The deepest LCAF nesting accepted (CW-20).
pub(super) const MAX_LCAF_DEPTH: u8 = 4;
/// The most ITR-RLOCs of a Map-Request (RFC 9301 §5.2: a 5-bit count, minus one).
pub(super) const MAX_ITR_RLOCS: usize = 32;
/// The most records of a message and locators of a record: an 8-bit count.
pub(super) const MAX_COUNT: usize = 255;
/// The most signatures of a record: a 4-bit count.
pub(super) const MAX_SIGNATURES: usize = 15;
/// The octets of an xTR-ID.
pub(super) const XTR_ID_LEN: usize = 16;
/// The octets of an xTR-ID and a Site-ID.
pub(super) const IDENTITY_LEN: usize = 24;
