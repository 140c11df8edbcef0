//! NAT traversal, the Map-Server's part (draft-ermagan-lisp-nat-traversal §5.2): it tells ETRs how they look from outside, and takes
//! Map-Registers that an RTR relays. What it tells the ETR then goes through that RTR too.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::auth::{self, Covered};
use crate::config::{Rtr, RtrKey};
use crate::discard::Discard;
use crate::timers::{RTR_LIST_TTL_MINUTES, control_payload_limit};
use crate::transmit::{SourcePort, Transmit};
use crate::wire::{
    Action, Address, AuthenticationData, CONTROL_PORT, EidRecord, EncapsulatedControlMessage,
    InfoReply, InfoRequest, MacField, MapRegister, NatTraversal, RtrAuthentication, Tolerance,
};

use super::site::{Signer, nobodys};
use super::{Count, MapServer};

/// The RTRs that serve the sites of a Map-Server.
#[derive(Debug)]
pub(super) struct Rtrs(Vec<Rtr>);

impl Rtrs {
    pub(super) const fn new(rtrs: Vec<Rtr>) -> Self {
        Self(rtrs)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<&Rtr> {
        self.0.iter().find(|rtr| rtr.address == address)
    }
}

/// How a Map-Notify reaches an ETR that registered through an RTR.
#[derive(Debug)]
pub(super) struct ThroughRtr<'a> {
    pub(super) rtr: &'a Rtr,
    /// The own address it leaves from.
    pub(super) local: IpAddr,
    /// The ETR's own address, behind its NAT.
    pub(super) etr: IpAddr,
}

impl ThroughRtr<'_> {
    /// NT-07: in an ECM with R=1, and MS-RTR authentication data over the whole Map-Notify.
    pub(super) fn wrap(&self, notify: Vec<u8>) -> Option<Transmit> {
        let Self { rtr, local, etr } = self;
        let security = match &rtr.key {
            Some(key) => Some(authenticate(key, &notify)?),
            None => None,
        };
        let [source, destination] =
            [local, etr].map(|address| SocketAddr::new(*address, CONTROL_PORT));
        let ecm = EncapsulatedControlMessage {
            security,
            to_rtr: true,
            ..EncapsulatedControlMessage::new(source, destination, notify)
        };
        let mut payload = Vec::with_capacity(ecm.encoded_len());
        ecm.encode(&mut payload);
        (payload.len() <= control_payload_limit(rtr.address)).then_some(Transmit {
            source: *local,
            source_port: SourcePort::Control,
            destination: SocketAddr::new(rtr.address, CONTROL_PORT),
            payload,
        })
    }
}

fn authenticate(key: &RtrKey, notify: &[u8]) -> Option<Vec<u8>> {
    let mac = key.secret.prepared().mac_of(notify, key.algorithm).ok()?;
    let mac = MacField::from(&mac[..key.mac_len()]);
    let authentication =
        AuthenticationData { key_id: key.id, algorithm_id: key.algorithm.id(), mac };
    Some(RtrAuthentication { authentication }.to_vec())
}

impl MapServer {
    /// NT-02: who proves to be of a site is told what it looks like from here, and which RTRs there are.
    pub(super) fn handle_info_request(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        request: InfoRequest,
        octets: &[u8],
    ) {
        self.count(Count::InfoRequests);
        match self.info_reply(now, local, from, request, octets) {
            Ok(payload) => {
                self.count(Count::InfoReplies);
                self.transmits.push_back(Transmit {
                    source: local.ip(),
                    source_port: SourcePort::Control,
                    destination: from,
                    payload,
                });
            }
            Err(reason) => self.discard(from.ip(), reason),
        }
    }

    fn info_reply(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        request: InfoRequest,
        octets: &[u8],
    ) -> Result<Vec<u8>, Discard> {
        if self.rtrs.is_empty() {
            return Err(Discard::NatNotConfigured);
        }
        let signer = self.info_signer(now, from.ip(), &request, octets)?;
        // Somebody who recorded the request can have the reply sent to whom he likes: no more of them than of Map-Replies.
        if !self.replies.take(now, &from.ip()) {
            return Err(Discard::ReplyRateLimited);
        }
        let rtrs = self.rtrs.0.iter().map(|rtr| rtr.address);
        let reply = InfoReply {
            nonce: request.nonce,
            authentication: AuthenticationData::zeroed(
                signer.key_id,
                signer.algorithm.id(),
                signer.mac_len,
            ),
            ttl_minutes: RTR_LIST_TTL_MINUTES,
            eid: request.eid,
            nat: NatTraversal {
                ms_port: local.port(),
                etr_port: from.port(),
                global_etr: from.ip().into(),
                ms: local.ip().into(),
                private_etr: Address::None,
                rtrs: rtrs.map(Address::from).collect(),
            },
        };
        let mut payload = Vec::new();
        reply.encode(&mut payload);
        auth::sign_covering(&mut payload, &signer.secret, signer.algorithm, Covered::Message)?;
        Ok(payload)
    }

    /// The key of the site that the EID-prefix of an Info-Request belongs to, if it signed the message.
    fn info_signer(
        &mut self,
        now: Instant,
        source: IpAddr,
        request: &InfoRequest,
        octets: &[u8],
    ) -> Result<Signer, Discard> {
        let record = EidRecord::negative(request.eid.clone(), Action::NoAction, 0);
        let mut reason = nobodys(&request.eid);
        for site in self.sites.candidates(std::slice::from_ref(&record), 1) {
            self.admission.site(now, site, source)?;
            match self.sites.authenticate(site, &request.authentication, octets) {
                Ok(_) if self.sites.get(site).config.admin_down => return Err(Discard::SiteDown),
                Ok(signing) => return self.sites.signer(site, signing).ok_or(Discard::KeyUnknown),
                Err(refusal) => reason = refusal,
            }
        }
        Err(reason)
    }

    /// NT-07: a Map-Register in an ECM, as an RTR relays it.
    pub(super) fn handle_relayed_register(
        &mut self,
        now: Instant,
        local: IpAddr,
        from: SocketAddr,
        ecm: &EncapsulatedControlMessage,
    ) {
        if let Err(reason) = self.admission.register(now, from.ip()) {
            return self.discard(from.ip(), reason);
        }
        if !ecm.relayed || self.rtrs.get(from.ip()).is_none() {
            return self.discard(from.ip(), Discard::RtrUnknown);
        }
        match MapRegister::parse(&ecm.message) {
            Ok(register) => {
                self.count(Count::MapRegisters);
                self.count(Count::RelayedMapRegisters);
                let etr = Some(ecm.source.ip());
                self.handle_register(
                    now,
                    local,
                    (from, etr),
                    register,
                    (&ecm.message, Tolerance::NONE),
                );
            }
            Err(error) => self.discard(from.ip(), error.into()),
        }
    }
}
