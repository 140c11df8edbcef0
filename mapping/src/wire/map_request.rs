//! Map-Request (RFC 9301 §5.2, RFC 9437 §4).

use std::net::IpAddr;

use super::codepoints::{MAX_ITR_RLOCS, XTR_ID_LEN, kind, map_request as bit};
use super::reader::Reader;
use super::record::counted;
use super::writer::flag;
use super::{Address, EidField, EidRecord, Tolerance, WireError, XtrIdentity, open};

/// Type 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// A-bit.
    pub authoritative: bool,
    /// P-bit.
    pub probe: bool,
    /// S-bit.
    pub smr: bool,
    /// p-bit: sent by a PITR.
    pub pitr: bool,
    /// s-bit.
    pub smr_invoked: bool,
    /// L-bit.
    pub local_xtr: bool,
    /// D-bit.
    pub dont_map_reply: bool,
    /// Nonce.
    pub nonce: u64,
    /// Source-EID, AFI 0 = none.
    pub source_eid: Address,
    /// 1 to 32; an empty list is encoded as one AFI 0 (RFC 9437 §5), more than 32 as the first 32.
    pub itr_rlocs: Vec<Address>,
    /// Requested EIDs; at most 255 are encoded.
    pub records: Vec<RequestedEid>,
    /// M-bit: the sender's own mapping (never used unverified).
    pub map_data: Option<EidRecord>,
    /// I-bit (RFC 9437): xTR-ID and Site-ID.
    pub identity: Option<XtrIdentity>,
}

/// One record of a Map-Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedEid {
    /// N-bit (RFC 9437): subscribe.
    pub notify: bool,
    /// The EID-prefix asked for.
    pub eid: EidField,
}

impl RequestedEid {
    /// A record without the N-bit.
    pub fn new(eid: impl Into<EidField>) -> Self {
        Self { notify: false, eid: eid.into() }
    }
}

impl MapRequest {
    /// A request for `records` with every flag off and no Source-EID.
    pub fn new(nonce: u64, itr_rlocs: Vec<Address>, records: Vec<RequestedEid>) -> Self {
        Self {
            authoritative: false,
            probe: false,
            smr: false,
            pitr: false,
            smr_invoked: false,
            local_xtr: false,
            dont_map_reply: false,
            nonce,
            source_eid: Address::None,
            itr_rlocs,
            records,
            map_data: None,
            identity: None,
        }
    }

    /// The first ITR-RLOC of the same family as `family_of`, if any.
    pub fn itr_rloc_for(&self, family_of: IpAddr) -> Option<IpAddr> {
        self.rlocs().find(|rloc| rloc.is_ipv4() == family_of.is_ipv4())
    }

    /// The ITR-RLOCs that are IP addresses, in the order of the message.
    pub fn rlocs(&self) -> impl Iterator<Item = IpAddr> {
        self.itr_rlocs.iter().filter_map(Address::rloc)
    }

    /// Whether this ends subscriptions: an N-bit, and no ITR-RLOC but one of AFI 0 (RFC 9437 §5).
    pub fn unsubscribes(&self) -> bool {
        self.itr_rlocs == [Address::None] && self.records.iter().any(|record| record.notify)
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        const NO_RLOC: &[Address] = &[Address::None];
        let itr_rlocs = match self.itr_rlocs.get(..MAX_ITR_RLOCS) {
            Some(first) => first,
            None if self.itr_rlocs.is_empty() => NO_RLOC,
            None => &self.itr_rlocs,
        };
        let (record_count, records) = counted(&self.records);
        out.extend_from_slice(&[
            kind::MAP_REQUEST << 4
                | flag(self.authoritative, bit::AUTHORITATIVE)
                | flag(self.map_data.is_some(), bit::MAP_DATA)
                | flag(self.probe, bit::PROBE)
                | flag(self.smr, bit::SMR),
            flag(self.pitr, bit::PITR)
                | flag(self.smr_invoked, bit::SMR_INVOKED)
                | flag(self.identity.is_some(), bit::XTR_ID),
            flag(self.local_xtr, bit::LOCAL_XTR)
                | flag(self.dont_map_reply, bit::DONT_MAP_REPLY)
                | (itr_rlocs.len() - 1) as u8 & bit::IRC,
            record_count,
        ]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        self.source_eid.encode(out);
        for rloc in itr_rlocs {
            rloc.encode(out);
        }
        for record in records {
            out.extend_from_slice(&[flag(record.notify, bit::NOTIFY), record.eid.mask_len()]);
            record.eid.encode(out);
        }
        if let Some(map_data) = &self.map_data {
            map_data.encode(out);
        }
        if let Some(identity) = &self.identity {
            identity.encode(out);
        }
    }

    /// Parses a message of this type; octets after it are ignored.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        Self::parse_with(octets, Tolerance::default())
    }

    /// As [`Self::parse`], with `tolerance` for a known peer.
    pub fn parse_with(octets: &[u8], tolerance: Tolerance) -> Result<Self, WireError> {
        let (mut reader, [flags, pitr_flags, irc_flags, record_count]) =
            open(octets, kind::MAP_REQUEST)?;
        let nonce = reader.u64("nonce")?;
        let source_eid = Address::decode(&mut reader)?;
        let mut itr_rlocs = Vec::new();
        for _ in 0..=irc_flags & bit::IRC {
            itr_rlocs.push(Address::decode(&mut reader)?);
        }
        let mut records = Vec::new();
        for _ in 0..record_count {
            records.push(RequestedEid::decode(&mut reader)?);
        }
        let map_data = match flags & bit::MAP_DATA {
            0 => None,
            _ => Some(EidRecord::decode(&mut reader)?),
        };
        let identity = match pitr_flags & bit::XTR_ID {
            0 => None,
            _ if tolerance.subscription_without_site_id && reader.rest().len() == XTR_ID_LEN => {
                Some(XtrIdentity { xtr_id: reader.u128("xTR-ID")?, site_id: 0 })
            }
            _ => Some(XtrIdentity::decode(&mut reader)?),
        };
        Ok(Self {
            authoritative: flags & bit::AUTHORITATIVE != 0,
            probe: flags & bit::PROBE != 0,
            smr: flags & bit::SMR != 0,
            pitr: pitr_flags & bit::PITR != 0,
            smr_invoked: pitr_flags & bit::SMR_INVOKED != 0,
            local_xtr: irc_flags & bit::LOCAL_XTR != 0,
            dont_map_reply: irc_flags & bit::DONT_MAP_REPLY != 0,
            nonce,
            source_eid,
            itr_rlocs,
            records,
            map_data,
            identity,
        })
    }
}

impl RequestedEid {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let [flags, mask_len] = reader.array("EID mask-len")?;
        let eid = EidField::decode(reader, mask_len)?;
        Ok(Self { notify: flags & bit::NOTIFY != 0, eid })
    }
}
