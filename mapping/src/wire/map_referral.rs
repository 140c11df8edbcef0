//! Map-Referral of a Delegated Database Tree (RFC 8111 §6).

use super::codepoints::{MAX_COUNT, MAX_SIGNATURES, kind, record, referral};
use super::reader::Reader;
use super::record::{counted, decode_locators, encode_locators};
use super::writer::flag;
use super::{EidField, LocatorRecord, WireError, open};

/// Type 6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapReferral {
    /// Nonce of the DDT Map-Request.
    pub nonce: u64,
    /// Referrals; at most 255 are encoded.
    pub records: Vec<ReferralRecord>,
}

/// What a DDT node says about an XEID-prefix (RFC 8111 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReferralAction {
    /// 0: delegated to DDT nodes.
    NodeReferral,
    /// 1: delegated to DDT Map-Servers.
    MsReferral,
    /// 2: registered here, the Map-Request was forwarded.
    MsAck,
    /// 3: configured here, registered by nobody.
    MsNotRegistered,
    /// 4: authoritative, delegated to nobody.
    DelegationHole,
    /// 5.
    NotAuthoritative,
    /// 6 or 7.
    Unassigned(u8),
}

/// One record of a Map-Referral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferralRecord {
    /// Record TTL in minutes.
    pub ttl_minutes: u32,
    /// ACT.
    pub action: ReferralAction,
    /// A-bit.
    pub authoritative: bool,
    /// I-bit: not to be cached.
    pub incomplete: bool,
    /// Map-Version Number, 12 bits, 0 = not used.
    pub map_version: u16,
    /// The XEID-prefix.
    pub eid: EidField,
    /// The referral set; at most 255 are encoded, sorted by address.
    pub referrals: Vec<LocatorRecord>,
    /// Signatures over the record; at most 15 are encoded.
    pub signatures: Vec<ReferralSignature>,
}

/// A signature over a record (RFC 8111 §6.4.1); kept, not verified here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferralSignature {
    /// Original Record TTL in minutes.
    pub original_ttl_minutes: u32,
    /// Signature Expiration, seconds since 1970.
    pub expiration: u32,
    /// Signature Inception, seconds since 1970.
    pub inception: u32,
    /// Key Tag.
    pub key_tag: u16,
    /// Sig-Algorithm (1 = RSA-SHA1, 2 = RSA-SHA256).
    pub algorithm: u8,
    /// The signature, at most 65535 octets.
    pub signature: Vec<u8>,
}

impl ReferralAction {
    /// The action of a 3-bit ACT field; higher bits are ignored.
    pub const fn from_code(code: u8) -> Self {
        match code & 7 {
            0 => Self::NodeReferral,
            1 => Self::MsReferral,
            2 => Self::MsAck,
            3 => Self::MsNotRegistered,
            4 => Self::DelegationHole,
            5 => Self::NotAuthoritative,
            other => Self::Unassigned(other),
        }
    }

    /// The 3-bit ACT field.
    pub const fn code(self) -> u8 {
        match self {
            Self::NodeReferral => 0,
            Self::MsReferral => 1,
            Self::MsAck => 2,
            Self::MsNotRegistered => 3,
            Self::DelegationHole => 4,
            Self::NotAuthoritative => 5,
            Self::Unassigned(code) => code & 7,
        }
    }
}

impl MapReferral {
    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (record_count, records) = counted(&self.records);
        out.extend_from_slice(&[kind::MAP_REFERRAL << 4, 0, 0, record_count]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        for record in records {
            record.encode(out);
        }
    }

    /// Parses a message of this type; octets after it are ignored.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let (mut reader, [_, _, _, record_count]) = open(octets, kind::MAP_REFERRAL)?;
        let nonce = reader.u64("nonce")?;
        let mut records = Vec::new();
        for _ in 0..record_count {
            records.push(ReferralRecord::decode(&mut reader)?);
        }
        Ok(Self { nonce, records })
    }
}

impl ReferralRecord {
    /// A record with A=0, I=0, version 0, without referrals and signatures.
    pub fn new(eid: impl Into<EidField>, action: ReferralAction, ttl_minutes: u32) -> Self {
        Self {
            ttl_minutes,
            action,
            authoritative: false,
            incomplete: false,
            map_version: 0,
            eid: eid.into(),
            referrals: Vec::new(),
            signatures: Vec::new(),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let ttl_minutes = reader.u32("Record TTL")?;
        let [referral_count, mask_len, flags, _] = reader.array("Referral Count")?;
        let counts_and_version = reader.u16("Map-Version Number")?;
        let eid = EidField::decode(reader, mask_len)?;
        let referrals = decode_locators(reader, referral_count)?;
        let mut signatures = Vec::new();
        for _ in 0..counts_and_version >> referral::SIG_COUNT_SHIFT {
            signatures.push(ReferralSignature::decode(reader)?);
        }
        Ok(Self {
            ttl_minutes,
            action: ReferralAction::from_code(flags >> 5),
            authoritative: flags & record::AUTHORITATIVE != 0,
            incomplete: flags & referral::INCOMPLETE != 0,
            map_version: counts_and_version & record::MAP_VERSION,
            eid,
            referrals,
            signatures,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let referrals = &self.referrals[..self.referrals.len().min(MAX_COUNT)];
        let signatures = &self.signatures[..self.signatures.len().min(MAX_SIGNATURES)];
        let version = (signatures.len() as u16) << referral::SIG_COUNT_SHIFT
            | self.map_version & record::MAP_VERSION;
        out.extend_from_slice(&self.ttl_minutes.to_be_bytes());
        out.extend_from_slice(&[
            referrals.len() as u8,
            self.eid.mask_len(),
            self.action.code() << 5
                | flag(self.authoritative, record::AUTHORITATIVE)
                | flag(self.incomplete, referral::INCOMPLETE),
            0,
        ]);
        out.extend_from_slice(&version.to_be_bytes());
        self.eid.encode(out);
        encode_locators(referrals, out);
        for signature in signatures {
            signature.encode(out);
        }
    }
}

impl ReferralSignature {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let original_ttl_minutes = reader.u32("Original Record TTL")?;
        let expiration = reader.u32("Signature Expiration")?;
        let inception = reader.u32("Signature Inception")?;
        let key_tag = reader.u16("Key Tag")?;
        let length = reader.u16("Sig Length")?;
        let [algorithm, _, _, _] = reader.array("Sig-Algorithm")?;
        let signature = reader.take(length.into(), "Signature")?.to_vec();
        Ok(Self { original_ttl_minutes, expiration, inception, key_tag, algorithm, signature })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let signature = &self.signature[..self.signature.len().min(u16::MAX.into())];
        out.extend_from_slice(&self.original_ttl_minutes.to_be_bytes());
        out.extend_from_slice(&self.expiration.to_be_bytes());
        out.extend_from_slice(&self.inception.to_be_bytes());
        out.extend_from_slice(&self.key_tag.to_be_bytes());
        out.extend_from_slice(&(signature.len() as u16).to_be_bytes());
        out.extend_from_slice(&[self.algorithm, 0, 0, 0]);
        out.extend_from_slice(signature);
    }
}
