//! LISP-SEC authentication data (RFC 9303 §6.1, §6.2): what the S-bit of an ECM and of a Map-Reply announces.
//!
//! [`EncapsulatedControlMessage`](super::EncapsulatedControlMessage) and [`MapReply`](super::MapReply) hold it as octets, since MACs
//! are over octets; here they get a meaning. The computations are in [`sec`](crate::sec).

use std::fmt;
use std::ops::Range;

use super::codepoints::{ecm, security as code};
use super::reader::Reader;
use super::record::counted;
use super::writer::{flag, saturated};
use super::{EidField, MacField, WireError};

/// The authentication data of an ECM.
#[derive(Clone, PartialEq, Eq)]
pub struct EcmSecurity {
    /// Requested HMAC ID; 0 = no preference.
    pub requested_hmac: u16,
    /// Key ID of the pre-shared secret that the One-Time Key is wrapped with.
    pub key_id: u8,
    /// OTK Wrapping ID.
    pub wrapping_id: u8,
    /// One-Time-Key Preamble; 0 if the key is not encrypted.
    pub preamble: u64,
    /// One-Time Key, wrapped or not; never printed.
    pub otk: [u8; 16],
    /// EID-AD.
    pub eid_ad: EidAd,
}

/// EID Authentication Data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EidAd {
    /// KDF ID; 0 = no preference.
    pub kdf_id: u16,
    /// What a Map-Server vouches for; `None` in the 4 octets that an ITR sends.
    pub body: Option<EidAdBody>,
}

/// The EID-prefixes a Map-Server vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EidAdBody {
    /// E-bit: an ETR of the EID-prefix does not speak LISP-SEC.
    pub etr_cant_sign: bool,
    /// EID HMAC ID.
    pub hmac_id: u16,
    /// The EID-prefixes; at most 255 are encoded.
    pub prefixes: Vec<EidField>,
    /// EID HMAC.
    pub hmac: MacField,
}

/// The authentication data of a Map-Reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplySecurity {
    /// EID-AD.
    pub eid_ad: EidAd,
    /// PKT HMAC ID.
    pub packet_hmac_id: u16,
    /// PKT HMAC.
    pub packet_hmac: MacField,
}

/// Where the EID-AD lies in authentication data, from its EID-AD Length on.
pub(crate) fn eid_ad_range(security: &[u8], before: usize) -> Result<Range<usize>, WireError> {
    let mut reader = Reader::new(security);
    reader.take(before, "EID-AD")?;
    let length = take_length_and_all(&mut reader, "EID-AD Length", "EID-AD")?.len();
    Ok(before..before + length)
}

/// The octets before the EID-AD of an ECM: AD header and OTK-AD of 24 octets of key.
pub(crate) const ECM_EID_AD: usize = 32;
/// The octets before the EID-AD of a Map-Reply.
pub(crate) const REPLY_EID_AD: usize = 4;

impl EcmSecurity {
    /// Parses all of `octets`, as [`EncapsulatedControlMessage::security`](super::EncapsulatedControlMessage::security) holds them.
    ///
    /// # Errors
    /// [`WireError::Malformed`] for another AD Type, a One-Time Key of other than 128 bits, or a length that does not fit exactly.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets);
        if reader.u8("ECM AD Type")? != ecm::AD_TYPE_LISP_SEC {
            return Err(WireError::Malformed("ECM AD Type"));
        }
        reader.u8("ECM AD Type")?;
        let requested_hmac = reader.u16("Requested HMAC ID")?;
        if reader.u16("OTK Length")? != code::OTK_LEN {
            return Err(WireError::Malformed("OTK Length"));
        }
        let [key_id, wrapping_id] = reader.array("OTK Wrapping ID")?;
        let preamble = reader.u64("One-Time-Key Preamble")?;
        let otk = reader.array("One-Time Key")?;
        let eid_ad = EidAd::decode(&mut reader)?;
        end(reader, "EID-AD Length")?;
        Ok(Self { requested_hmac, key_id, wrapping_id, preamble, otk, eid_ad })
    }

    /// The octets that go into an ECM.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![ecm::AD_TYPE_LISP_SEC, 0];
        out.extend_from_slice(&self.requested_hmac.to_be_bytes());
        out.extend_from_slice(&code::OTK_LEN.to_be_bytes());
        out.extend_from_slice(&[self.key_id, self.wrapping_id]);
        out.extend_from_slice(&self.preamble.to_be_bytes());
        out.extend_from_slice(&self.otk);
        self.eid_ad.encode(&mut out);
        out
    }
}

impl fmt::Debug for EcmSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcmSecurity")
            .field("requested_hmac", &self.requested_hmac)
            .field("key_id", &self.key_id)
            .field("wrapping_id", &self.wrapping_id)
            .field("eid_ad", &self.eid_ad)
            .finish_non_exhaustive()
    }
}

impl EidAd {
    /// What an ITR sends: the KDF ID alone (SE-02).
    pub const fn request(kdf_id: u16) -> Self {
        Self { kdf_id, body: None }
    }

    /// Parses all of `octets`, from EID-AD Length to the end of the EID HMAC.
    ///
    /// # Errors
    /// [`WireError`] when a length or count does not fit exactly.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets);
        let eid_ad = Self::decode(&mut reader)?;
        end(reader, "EID-AD Length")?;
        Ok(eid_ad)
    }

    /// From EID-AD Length to the end of the EID HMAC.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let octets = take_length_and_all(reader, "EID-AD Length", "EID-AD")?;
        let mut reader = Reader::new(octets);
        reader.u16("EID-AD Length")?;
        let kdf_id = reader.u16("KDF ID")?;
        let body = match reader.is_empty() {
            true => None,
            false => Some(EidAdBody::decode(&mut reader)?),
        };
        Ok(Self { kdf_id, body })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        with_own_length(out, |out| {
            out.extend_from_slice(&self.kdf_id.to_be_bytes());
            if let Some(body) = &self.body {
                body.encode(out);
            }
        });
    }
}

impl EidAdBody {
    /// `reader` ends with the EID-AD.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let [count, flags] = reader.array("EID-AD Record Count")?;
        let hmac_id = reader.u16("EID HMAC ID")?;
        let mut prefixes = Vec::new();
        for _ in 0..count {
            let [_, mask_len] = reader.array("EID mask-len")?;
            prefixes.push(EidField::decode(reader, mask_len)?);
        }
        let etr_cant_sign = flags & code::ETR_CANT_SIGN != 0;
        Ok(Self { etr_cant_sign, hmac_id, prefixes, hmac: reader.rest().into() })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (count, prefixes) = counted(&self.prefixes);
        out.extend_from_slice(&[count, flag(self.etr_cant_sign, code::ETR_CANT_SIGN)]);
        out.extend_from_slice(&self.hmac_id.to_be_bytes());
        for prefix in prefixes {
            out.extend_from_slice(&[0, prefix.mask_len()]);
            prefix.encode(out);
        }
        out.extend_from_slice(&self.hmac);
    }
}

impl ReplySecurity {
    /// Parses all of `octets`, as [`MapReply::security`](super::MapReply::security) holds them.
    ///
    /// # Errors
    /// [`WireError::Malformed`] for another AD Type, or a length that does not fit exactly.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets);
        let [kind, _, _, _] = reader.array("MR AD Type")?;
        if kind != code::REPLY_AD_TYPE {
            return Err(WireError::Malformed("MR AD Type"));
        }
        let eid_ad = EidAd::decode(&mut reader)?;
        let mut packet = Reader::new(take_length_and_all(&mut reader, "PKT-AD Length", "PKT-AD")?);
        end(reader, "PKT-AD Length")?;
        packet.u16("PKT-AD Length")?;
        let packet_hmac_id = packet.u16("PKT HMAC ID")?;
        Ok(Self { eid_ad, packet_hmac_id, packet_hmac: packet.rest().into() })
    }

    /// The octets that go into a Map-Reply.
    pub fn to_vec(&self) -> Vec<u8> {
        encode_reply(&self.eid_ad.to_vec(), self.packet_hmac_id, &self.packet_hmac)
    }
}

/// The authentication data of a Map-Reply with an EID-AD that is copied octet for octet (RFC 9303 §6.8).
pub(crate) fn encode_reply(eid_ad: &[u8], packet_hmac_id: u16, packet_hmac: &[u8]) -> Vec<u8> {
    let mut out = vec![code::REPLY_AD_TYPE, 0, 0, 0];
    out.extend_from_slice(eid_ad);
    with_own_length(&mut out, |out| {
        out.extend_from_slice(&packet_hmac_id.to_be_bytes());
        out.extend_from_slice(packet_hmac);
    });
    out
}

/// What a length field that counts itself spans, the field included.
fn take_length_and_all<'a>(
    reader: &mut Reader<'a>,
    length: &'static str,
    field: &'static str,
) -> Result<&'a [u8], WireError> {
    let mut ahead = *reader;
    let octets = usize::from(ahead.u16(length)?);
    if octets < code::AD_HEADER {
        return Err(WireError::Malformed(length));
    }
    reader.take(octets, field)
}

/// As `with_length`, for a length field that counts itself.
fn with_own_length(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    content(out);
    let length = saturated(out.len() - at);
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

fn end(reader: Reader<'_>, field: &'static str) -> Result<(), WireError> {
    if reader.is_empty() { Ok(()) } else { Err(WireError::Malformed(field)) }
}
