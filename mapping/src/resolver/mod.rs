//! The Map-Resolver's side: who may ask, what counts as a lookup, where its answer goes (RFC 9301 §8.4, §5.5).

mod clients;
mod forwards;
pub(crate) mod negative;
mod protection;

use std::net::{IpAddr, SocketAddr};

use crate::discard::Discard;
use crate::timers::control_payload_limit;
use crate::wire::{
    CONTROL_PORT, EidRecord, EncapsulatedControlMessage, MapReply, MapRequest, RequestedEid,
    Tolerance,
};

pub(crate) use clients::Clients;
pub(crate) use forwards::Forwards;
pub(crate) use protection::{ItrKeys, Protection};

/// The addresses this node serves on.
#[derive(Clone, Debug)]
pub(crate) struct OwnAddresses(Vec<IpAddr>);

impl OwnAddresses {
    pub(crate) fn new(addresses: Vec<IpAddr>) -> Self {
        Self(addresses)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// The own address to reach `destination` from: the one the message came to, if the family fits (MR-07), else the first. In a cluster
    /// the message may have come to another Map-Server's.
    pub(crate) fn source_for(&self, destination: IpAddr, local: IpAddr) -> Option<IpAddr> {
        std::iter::once(local)
            .filter(|local| self.contains(*local))
            .chain(self.0.iter().copied())
            .find(|own| own.is_ipv4() == destination.is_ipv4())
    }
}

/// A Map-Request that is a lookup, out of its ECM.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    /// What is passed on to an ETR: the inner message with its octets unchanged (MS-15, MR-05), without LISP-SEC data, whose
    /// one-time key is for the hop it came over.
    pub(crate) ecm: EncapsulatedControlMessage,
    /// The ITR's one-time key, when the Map-Request is protected (RFC 9303 §6.6).
    pub(crate) protection: Option<Protection>,
    /// The Map-Request in it.
    pub(crate) request: MapRequest,
    /// The ITR-RLOCs that can be anybody's, in the order of the message; at least one. Of an unsubscription, which names none, the
    /// inner source address.
    pub(crate) itr_rlocs: Vec<IpAddr>,
    /// The own address that the ECM came to.
    pub(crate) local: IpAddr,
    /// D-bit of the ECM: a DDT client asks for a Map-Referral (RFC 8111 §5).
    pub(crate) ddt: bool,
    /// LISP-SEC data of the ECM as it came, for a DDT Map-Server (RFC 8111 §7.3.2).
    pub(crate) security: Option<Vec<u8>>,
}

/// Where a Map-Reply goes (RP-03, RP-04).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requester {
    /// Own source address.
    pub(crate) source: IpAddr,
    /// ITR-RLOC and inner UDP source port.
    pub(crate) destination: SocketAddr,
}

impl Lookup {
    /// Takes a lookup out of its ECM.
    ///
    /// # Errors
    /// What the Map-Resolver does not answer: other messages (EC-09), probes (RQ-20), SMRs, and requests that no reply could reach
    /// (RQ-06, RP-20). Whether it is protected is not looked at here.
    pub(crate) fn new(
        ecm: EncapsulatedControlMessage,
        own: &OwnAddresses,
        local: IpAddr,
        tolerance: Tolerance,
    ) -> Result<Self, Discard> {
        const MAP_REQUEST: u8 = 1;
        if ecm.message.first().is_none_or(|first| first >> 4 != MAP_REQUEST) {
            return Err(Discard::UnexpectedInner);
        }
        let request = MapRequest::parse_with(&ecm.message, tolerance)?;
        if request.probe {
            return Err(Discard::ProbeRefused);
        }
        if request.smr {
            return Err(Discard::SmrRefused);
        }
        let ddt = ecm.ddt_originated;
        let ecm = EncapsulatedControlMessage::new(ecm.source, ecm.destination, ecm.message);
        let reply_port = ecm.source.port();
        if reply_port == 0 || request.records.is_empty() {
            return Err(Discard::Malformed);
        }
        let mut martian = false;
        let mut itr_rlocs = Vec::new();
        let source = request.unsubscribes().then(|| ecm.source.ip());
        for rloc in request.rlocs().chain(source) {
            // A client on this host may ask; the Map-Resolver itself does not.
            let to_itself = own.contains(rloc) && reply_port == CONTROL_PORT;
            if to_itself || is_martian(rloc, local) {
                martian = true;
            } else {
                itr_rlocs.push(rloc);
            }
        }
        match itr_rlocs.is_empty() {
            true if martian => Err(Discard::ItrRlocMartian),
            true => Err(Discard::NoItrRloc),
            false => {
                let (protection, security) = (None, None);
                Ok(Self { ecm, protection, request, itr_rlocs, local, ddt, security })
            }
        }
    }

    /// The ITR-RLOC to reply to: one of the family that the request came over, since that path works, else any that we have.
    pub(crate) fn requester(&self, own: &OwnAddresses) -> Option<Requester> {
        let same_family = |rloc: &&IpAddr| rloc.is_ipv4() == self.local.is_ipv4();
        let first = self.itr_rlocs.iter().find(same_family);
        first.into_iter().chain(&self.itr_rlocs).find_map(|&rloc| {
            let source = own.source_for(rloc, self.local)?;
            Some(Requester { source, destination: SocketAddr::new(rloc, self.ecm.source.port()) })
        })
    }

    /// The lookup of one of several records, as a Map-Request of its own.
    pub(crate) fn of_record(&self, record: &RequestedEid) -> Self {
        let mut one = self.clone();
        if one.request.records.len() > 1 {
            one.request.records = vec![record.clone()];
            one.ecm.message.clear();
            one.request.encode(&mut one.ecm.message);
        }
        one
    }

    /// The octets of [`Self::ddt_map_request`].
    pub(crate) fn ddt_len(&self, secure: bool) -> usize {
        let security = self.security.as_ref().filter(|_| secure);
        self.ecm.encoded_len() + security.map_or(0, Vec::len)
    }

    /// A DDT Map-Request with the inner message unchanged, with the LISP-SEC data if it goes to a Map-Server (DD-01, DD-13).
    pub(crate) fn ddt_map_request(&self, secure: bool) -> Vec<u8> {
        let mut ecm = self.ecm.clone();
        ecm.ddt_originated = true;
        ecm.security = self.security.clone().filter(|_| secure);
        let mut payload = Vec::new();
        ecm.encode(&mut payload);
        payload
    }

    /// Whether any ITR-RLOC is of the family of `address`.
    pub(crate) fn has_family_of(&self, address: IpAddr) -> bool {
        self.itr_rlocs.iter().any(|rloc| rloc.is_ipv4() == address.is_ipv4())
    }
}

/// Whether nobody can be reached at `address` from this node (RP-20); loopback is nobody's unless the message came over it.
pub(crate) fn is_martian(address: IpAddr, local: IpAddr) -> bool {
    let loopback = address.is_loopback();
    if loopback && local.is_loopback() {
        return false;
    }
    let reserved = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4.is_link_local(),
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some()
        }
    };
    loopback || reserved || address.is_multicast()
}

/// A Map-Reply within what may be sent without knowing the path MTU (CW-06), all records with the same TTL, the lowest (RP-08), with
/// `room` octets to spare for what is appended.
///
/// What does not fit is left out: first records from the last one on, then of the only record the locators that carry traffic
/// last. The caller sees to it that records which must stay together fit.
///
/// In the memory of `payload`.
pub(crate) fn map_reply(
    mut payload: Vec<u8>,
    nonce: u64,
    mut records: Vec<EidRecord>,
    destination: IpAddr,
    room: usize,
) -> (MapReply, Vec<u8>) {
    let ttl_minutes = records.iter().map(|record| record.ttl_minutes).min().unwrap_or(0);
    for record in &mut records {
        record.ttl_minutes = ttl_minutes;
    }
    let mut reply = MapReply::new(nonce, records);
    loop {
        payload.clear();
        reply.encode(&mut payload);
        let fits = payload.len() + room <= control_payload_limit(destination);
        if fits || !shrink(&mut reply.records) {
            return (reply, payload);
        }
    }
}

/// Leaves out what can be missed most; false when nothing is left to leave out.
pub(crate) fn shrink(records: &mut Vec<EidRecord>) -> bool {
    if records.len() > 1 {
        records.pop();
        return true;
    }
    let Some(locators) = records.first_mut().map(|record| &mut record.locators) else {
        return false;
    };
    let worst =
        (0..locators.len()).max_by_key(|&at| (!locators[at].reachable, locators[at].priority, at));
    worst.map(|at| locators.remove(at)).is_some()
}
