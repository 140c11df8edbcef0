//! The state machine against the requirements, with messages as octets and injected time.

mod durable;
mod lispers;
mod names;
mod nat;
mod notify;
mod policy;
mod random;
mod register;
mod request;
mod resolving;
mod secure;
mod subscription;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::*;
use crate::auth;
use crate::config::{Algorithm, Secret, Site, SiteKey, SitePrefix};
use crate::eid::{EidPrefix, InstanceId};
use crate::wire::{
    Address, AuthenticationData, EidRecord, EncapsulatedControlMessage, Lcaf, LocatorRecord,
    MapNotify, MapNotifyAck, MapRegister, MapReply, MapRequest, RequestedEid, XtrIdentity,
};

const ETR: &str = "198.51.100.11";
const OTHER_ETR: &str = "198.51.100.12";
const ITR: &str = "198.51.100.99";
const OWN: &str = "198.51.100.2";
const OWN6: &str = "2001:db8:c0::2";
/// The inner UDP source port of Map-Requests.
const ITR_PORT: u16 = 50_123;

/// Site `a` has 10.1/16 with more-specifics, 10.9/16 and a v6 prefix without; `b` shares 10.1/16 and has 10.2/16 and, inside a
/// prefix of `a`, 10.9.200/24.
fn config() -> MappingConfig {
    let prefix = |text, accept_more_specifics| SitePrefix {
        prefix: eid_prefix(text),
        accept_more_specifics,
    };
    let prefixes_a = vec![
        prefix("10.1.0.0/16", true),
        prefix("10.9.0.0/16", false),
        prefix("2001:db8:e001::/48", false),
    ];
    let prefixes_b = vec![
        prefix("10.1.0.0/16", true),
        prefix("10.2.0.0/16", true),
        prefix("10.9.200.0/24", false),
    ];
    let mut config = MappingConfig::new("ms", vec![ip(OWN), ip(OWN6)]);
    config.sites = vec![
        Site::new("a", vec![key(1, "secret-a"), key(2, "secret-a2")], prefixes_a),
        Site {
            allowed_locators: vec!["198.51.100.0/24".parse().unwrap()],
            ..Site::new("b", vec![key(1, "secret-b")], prefixes_b)
        },
    ];
    config
}

fn key(id: u8, secret: &str) -> SiteKey {
    SiteKey {
        id,
        secret: Secret::new(secret.as_bytes().to_vec()),
        algorithms: vec![Algorithm::HmacSha256, Algorithm::HmacSha256Hkdf],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn eid_prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().unwrap())
}

fn locator(rloc: &str) -> LocatorRecord {
    let mut locator = LocatorRecord::new(ip(rloc), 1, 100);
    locator.local = true;
    locator.reachable = true;
    locator
}

fn record(prefix: &str, rlocs: &[&str]) -> EidRecord {
    EidRecord::new(eid_prefix(prefix), 1_440, rlocs.iter().map(|rloc| locator(rloc)).collect())
}

/// A Map-Register in the making.
#[derive(Clone)]
struct Register {
    message: MapRegister,
    secret: &'static str,
    algorithm: Algorithm,
    covered: auth::Covered,
    from: &'static str,
}

fn register(nonce: u64, records: Vec<EidRecord>) -> Register {
    Register {
        message: MapRegister {
            proxy_reply: true,
            security_capable: false,
            eid_notify: false,
            use_ttl: false,
            merge: false,
            want_map_notify: true,
            nonce,
            authentication: AuthenticationData::zeroed(1, 3, auth::MAC_LEN),
            records,
            identity: None,
        },
        secret: "secret-a",
        algorithm: Algorithm::HmacSha256Hkdf,
        covered: auth::Covered::Message,
        from: ETR,
    }
}

impl Register {
    fn edit(mut self, edit: impl FnOnce(&mut MapRegister)) -> Self {
        edit(&mut self.message);
        self
    }

    fn signed_by(mut self, secret: &'static str) -> Self {
        self.secret = secret;
        self
    }

    fn from(mut self, from: &'static str) -> Self {
        self.from = from;
        self
    }

    fn xtr(self, xtr_id: u128) -> Self {
        self.edit(|message| message.identity = Some(XtrIdentity { xtr_id, site_id: 7 }))
    }

    fn octets(&self) -> Vec<u8> {
        let mut message = self.message.clone();
        message.authentication.algorithm_id = self.algorithm.id();
        let mut octets = Vec::new();
        message.encode(&mut octets);
        let secret = Secret::new(self.secret.as_bytes().to_vec());
        auth::sign_covering(&mut octets, &secret, self.algorithm, self.covered).unwrap();
        octets
    }
}

fn request(nonce: u64, eids: &[&str], itr_rlocs: &[&str]) -> MapRequest {
    let rlocs = itr_rlocs.iter().map(|rloc| Address::from(ip(rloc))).collect();
    let records = eids.iter().map(|eid| RequestedEid::new(eid_prefix(eid))).collect();
    MapRequest::new(nonce, rlocs, records)
}

/// A Map-Server with a clock.
struct Bench {
    server: MapServer,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: MappingConfig) -> Self {
        Self { server: MapServer::new(config, [1; 32]), now: Instant::now() }
    }

    fn input(&mut self, from: &str, port: u16, octets: &[u8]) -> Vec<Transmit> {
        let local = if from.contains(':') { OWN6 } else { OWN };
        let local = SocketAddr::new(ip(local), CONTROL_PORT);
        self.server.handle_input(self.now, local, SocketAddr::new(ip(from), port), octets);
        self.sent()
    }

    fn register(&mut self, register: &Register) -> Vec<Transmit> {
        self.input(register.from, 40_000, &register.octets())
    }

    fn ask(&mut self, request: &MapRequest) -> Vec<Transmit> {
        let octets = ecm(request).to_octets();
        self.input(ITR, 40_001, &octets)
    }

    fn ask_for(&mut self, nonce: u64, eid: &str) -> Vec<Transmit> {
        self.ask(&request(nonce, &[eid], &[ITR]))
    }

    /// The records of the only Map-Reply that a lookup leads to.
    fn reply_to(&mut self, nonce: u64, eid: &str) -> Vec<EidRecord> {
        let sent = self.ask_for(nonce, eid);
        assert_eq!(sent.len(), 1, "one Map-Reply to a request for {eid}");
        reply(&sent[0]).records
    }

    fn advance(&mut self, seconds: u64) -> Vec<Transmit> {
        let end = self.now + Duration::from_secs(seconds);
        let mut sent = Vec::new();
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.server.handle_timeout(at);
            sent.extend(self.sent());
        }
        self.now = end;
        sent
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.server.poll_transmit()).collect()
    }

    fn discarded(&self, reason: Discard) -> u64 {
        self.server.discards.get(reason)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    fn prefixes(&self) -> Vec<String> {
        let views = self.server.registrations_view(self.now);
        views.iter().filter_map(|view| Some(view.prefix?.to_string())).collect()
    }

    fn rlocs(&self, prefix: &str) -> Vec<IpAddr> {
        let record = self.server.registry.get(&eid_prefix(prefix)).unwrap();
        let record = record.record(eid_prefix(prefix));
        let mut rlocs: Vec<_> = record.usable_locators().map(|(rloc, _)| rloc).collect();
        rlocs.sort_unstable();
        rlocs
    }
}

trait ToOctets {
    fn to_octets(&self) -> Vec<u8>;
}

impl ToOctets for EncapsulatedControlMessage {
    fn to_octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        self.encode(&mut octets);
        octets
    }
}

fn ecm(request: &MapRequest) -> EncapsulatedControlMessage {
    let mut message = Vec::new();
    request.encode(&mut message);
    let destination = request.records[0].eid.prefix().map_or(ip(OWN), |p| p.first().address);
    let source = if destination.is_ipv4() { ip("203.0.113.5") } else { ip("2001:db8::5") };
    EncapsulatedControlMessage::new(
        SocketAddr::new(source, ITR_PORT),
        SocketAddr::new(destination, CONTROL_PORT),
        message,
    )
}

fn reply(transmit: &Transmit) -> MapReply {
    MapReply::parse(&transmit.payload).unwrap()
}

fn notify(transmit: &Transmit) -> MapNotify {
    MapNotify::parse(&transmit.payload).unwrap()
}

fn rlocs_of(record: &EidRecord) -> Vec<IpAddr> {
    record.usable_locators().map(|(rloc, _)| rloc).collect()
}
