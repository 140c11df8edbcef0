//! Info-Request, Info-Reply and what the latter tells: NAT-Traversal LCAF (draft-ermagan-lisp-nat-traversal §4.1, §4.2; RFC 8060 §4.4).

use std::net::{IpAddr, SocketAddr};

use super::codepoints::{info as bit, kind, lcaf};
use super::reader::Reader;
use super::writer::with_length;
use super::{Address, AuthenticationData, EidField, Lcaf, WireError, open};

/// Type 7 with R=0: asks a Map-Server how the sender looks from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    /// Nonce.
    pub nonce: u64,
    /// Authentication data: Key ID and Algorithm ID share what the draft calls a Key ID of 16 bits.
    pub authentication: AuthenticationData,
    /// TTL, minutes; means nothing in a request.
    pub ttl_minutes: u32,
    /// An EID-prefix of the site whose key signs.
    pub eid: EidField,
    /// AFI 0; lispers.net says its host name here.
    pub sender: Address,
}

/// Type 7 with R=1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoReply {
    /// That of the request.
    pub nonce: u64,
    /// Authentication data.
    pub authentication: AuthenticationData,
    /// For how many minutes the list of RTRs may be kept.
    pub ttl_minutes: u32,
    /// That of the request.
    pub eid: EidField,
    /// What the Map-Server saw, and the RTRs.
    pub nat: NatTraversal,
}

/// LCAF type 7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatTraversal {
    /// The port the Info-Request came to.
    pub ms_port: u16,
    /// The port it came from, as the Map-Server saw it.
    pub etr_port: u16,
    /// The address it came from, as the Map-Server saw it.
    pub global_etr: Address,
    /// The address it came to.
    pub ms: Address,
    /// AFI 0 in an Info-Reply.
    pub private_etr: Address,
    /// RTRs that the ETR may use.
    pub rtrs: Vec<Address>,
}

impl InfoRequest {
    /// Appends the message to `out`; `authentication.mac` goes in as it is (see `auth` for signing the octets).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { nonce, authentication, ttl_minutes, eid, sender } = self;
        encode_common(0, *nonce, authentication, (*ttl_minutes, eid), out);
        sender.encode(out);
    }

    /// Parses a message of this type.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let (mut reader, common) = Common::decode(octets, false)?;
        let Common { nonce, authentication, ttl_minutes, eid } = common;
        let sender = match reader.is_empty() {
            true => Address::None,
            false => Address::decode(&mut reader)?,
        };
        Ok(Self { nonce, authentication, ttl_minutes, eid, sender })
    }
}

impl InfoReply {
    /// Appends the message to `out`; `authentication.mac` goes in as it is (see `auth` for signing the octets).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { nonce, authentication, ttl_minutes, eid, nat } = self;
        encode_common(bit::REPLY, *nonce, authentication, (*ttl_minutes, eid), out);
        nat.encode(out);
    }

    /// Parses a message of this type.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let (mut reader, common) = Common::decode(octets, true)?;
        let Common { nonce, authentication, ttl_minutes, eid } = common;
        let nat = NatTraversal::of(&Address::decode(&mut reader)?)?;
        Ok(Self { nonce, authentication, ttl_minutes, eid, nat })
    }
}

impl NatTraversal {
    /// Where the request came from, if that was a port of an IP address.
    pub fn global(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.global_etr.rloc()?, self.etr_port))
    }

    /// The RTRs that have an IP address.
    pub fn rtr_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.rtrs.iter().filter_map(Address::rloc)
    }

    /// Reads the body of an LCAF that was kept octet for octet.
    fn of(address: &Address) -> Result<Self, WireError> {
        let body = match address {
            Address::Lcaf(Lcaf::Unknown { kind: lcaf::NAT_TRAVERSAL, body, .. }) => body,
            _ => return Err(WireError::Malformed("NAT-Traversal LCAF")),
        };
        let mut reader = Reader::new(body);
        let ms_port = reader.u16("MS UDP Port Number")?;
        let etr_port = reader.u16("ETR UDP Port Number")?;
        let global_etr = Address::decode(&mut reader)?;
        let ms = Address::decode(&mut reader)?;
        let private_etr = Address::decode(&mut reader)?;
        let mut rtrs = Vec::new();
        while !reader.is_empty() {
            rtrs.push(Address::decode(&mut reader)?);
        }
        Ok(Self { ms_port, etr_port, global_etr, ms, private_etr, rtrs })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        body.extend_from_slice(&self.ms_port.to_be_bytes());
        body.extend_from_slice(&self.etr_port.to_be_bytes());
        let fixed = [&self.global_etr, &self.ms, &self.private_etr];
        fixed.into_iter().chain(&self.rtrs).for_each(|address| address.encode(&mut body));
        let kind = lcaf::NAT_TRAVERSAL;
        Address::Lcaf(Lcaf::Unknown { rsvd1: 0, flags: 0, kind, rsvd2: 0, body }).encode(out);
    }
}

/// Whether the message of type 7 in `octets` is a reply.
pub(super) fn is_reply(octets: &[u8]) -> bool {
    octets.first().is_some_and(|first| first & bit::REPLY != 0)
}

/// What both have before their end.
struct Common {
    nonce: u64,
    authentication: AuthenticationData,
    ttl_minutes: u32,
    eid: EidField,
}

impl Common {
    fn decode(octets: &[u8], reply: bool) -> Result<(Reader<'_>, Self), WireError> {
        let (mut reader, _) = open(octets, kind::INFO)?;
        if is_reply(octets) != reply {
            return Err(WireError::Malformed("R-bit"));
        }
        let nonce = reader.u64("nonce")?;
        let authentication = AuthenticationData::decode(&mut reader)?;
        let ttl_minutes = reader.u32("TTL")?;
        let [_, mask_len] = reader.array("EID mask-len")?;
        let eid = EidField::decode(&mut reader, mask_len)?;
        Ok((reader, Self { nonce, authentication, ttl_minutes, eid }))
    }
}

fn encode_common(
    reply: u8,
    nonce: u64,
    authentication: &AuthenticationData,
    (ttl_minutes, eid): (u32, &EidField),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&[kind::INFO << 4 | reply, 0, 0, 0]);
    out.extend_from_slice(&nonce.to_be_bytes());
    authentication.encode(out);
    out.extend_from_slice(&ttl_minutes.to_be_bytes());
    out.extend_from_slice(&[0, eid.mask_len()]);
    eid.encode(out);
}

/// MS-RTR authentication data: what stands after the first 4 octets of an ECM with S=1 that brings an RTR a Map-Notify
/// (draft-ermagan-lisp-nat-traversal §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtrAuthentication {
    /// Key ID, Algorithm ID and MAC of the Map-Notify.
    pub authentication: AuthenticationData,
}

impl RtrAuthentication {
    /// As it stands in [`EncapsulatedControlMessage::security`](super::EncapsulatedControlMessage::security).
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![super::codepoints::ecm::AD_TYPE_RTR, 0, 0, 0];
        let AuthenticationData { key_id, algorithm_id, mac } = &self.authentication;
        out.extend_from_slice(&[*key_id, *algorithm_id]);
        with_length(&mut out, |out| out.extend_from_slice(mac));
        out
    }

    /// Parses authentication data of this type.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets);
        let [ad_type, ..] = reader.array::<4>("ECM AD Type")?;
        if ad_type != super::codepoints::ecm::AD_TYPE_RTR {
            return Err(WireError::Malformed("ECM AD Type"));
        }
        let authentication = AuthenticationData::decode(&mut reader)?;
        Ok(Self { authentication })
    }
}
