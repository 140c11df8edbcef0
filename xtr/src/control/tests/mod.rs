//! Tests by requirement id, under a simulated clock.
mod answering;
mod away;
mod balancing;
mod checkpoint;
mod database;
mod echo_nonce;
mod lookups;
mod mappings;
mod measuring;
mod migration;
mod mobility;
mod path_mtu;
mod peers;
mod probing;
mod reachability;
mod reconfiguring;
mod registering;
mod securing;
mod soliciting;
mod stranded;
mod subscribing;
mod trust;

use super::*;
use crate::config::{LocalEid, MapServer, OwnRloc, Petr, ProbeConfig};
use crate::fib::LocatorSet;
use mapping::config::{Algorithm, Profile, Secret};
use mapping::eid::{Eid, InstanceId};
use mapping::wire::{
    Action, Address, EidRecord, EncapsulatedControlMessage, LocatorRecord, MapReply, MapRequest,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) const OWN_V4: &str = "192.0.2.1";
pub(super) const OWN_V6: &str = "2001:db8:c0::1";
pub(super) const RESOLVER: &str = "198.51.100.2";
pub(super) const RESOLVER_2: &str = "198.51.100.3";
pub(super) const SERVER: &str = "198.51.100.9";
pub(super) const PEER: &str = "192.0.2.77";
pub(super) const NONCE_BASE: u64 = 1_000;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub(super) fn prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("prefix"))
}

pub(super) fn eid(text: &str) -> Eid {
    Eid::new(InstanceId::DEFAULT, ip(text))
}

pub(super) fn control_port(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), CONTROL_PORT)
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn own(name: &str, address: &str) -> OwnRloc {
    OwnRloc::new(name, ip(address), 1, 100)
}

pub(super) fn server() -> MapServer {
    MapServer {
        endpoint: Endpoint::Address(ip(SERVER)),
        key_id: 1,
        secret: Secret::new(b"site key".to_vec()),
        algorithm: Algorithm::HmacSha256Hkdf,
        covers: mapping::auth::Covered::Message,
        profile: Profile::Rfc9301,
    }
}

/// An xTR with one IPv4 RLOC, one EID-prefix per family, two Map-Resolvers, no Map-Server, no probing.
pub(super) fn config() -> ControlConfig {
    ControlConfig {
        rlocs: vec![own("core4", OWN_V4)],
        map_resolvers: vec![Endpoint::Address(ip(RESOLVER)), Endpoint::Address(ip(RESOLVER_2))],
        eids: ["10.1.0.0/16", "2001:db8:e001::/48"]
            .map(|text| LocalEid { prefix: prefix(text), locator_set: Vec::new() })
            .to_vec(),
        ..ControlConfig::of(Role::Xtr)
    }
}

pub(super) fn petr(address: &str) -> Petr {
    Petr { endpoint: Endpoint::Address(ip(address)), priority: 1, weight: 100 }
}

pub(super) fn locator(address: &str) -> LocatorRecord {
    LocatorRecord::new(ip(address), 1, 100)
}

/// The node under test with its clock; what it sends is collected.
pub(super) struct Node {
    pub(super) control: ControlPlane,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) fib: BTreeMap<EidPrefix, Verdict>,
    pub(super) sent: Vec<(Instant, Transmit)>,
    pub(super) events: Vec<Event>,
    pub(super) path_probes: Vec<Transmit>,
}

impl Node {
    pub(super) fn new(config: ControlConfig) -> Self {
        let start = Instant::now();
        let control = ControlPlane::new(config, start, [7; 32], NONCE_BASE);
        let (fib, sent, events) = (BTreeMap::new(), Vec::new(), Vec::new());
        let path_probes = Vec::new();
        let mut node = Self { control, now: start, start, fib, sent, events, path_probes };
        node.drain();
        node
    }

    pub(super) fn drain(&mut self) {
        while let Some(transmit) = self.control.poll_transmit() {
            self.sent.push((self.now, transmit));
        }
        while let Some(probe) = self.control.poll_path_probe() {
            self.path_probes.push(probe);
        }
        while let Some(update) = self.control.poll_fib_update() {
            match update {
                FibUpdate::Insert(prefix, verdict) => drop(self.fib.insert(prefix, verdict)),
                FibUpdate::Remove(prefix) => drop(self.fib.remove(&prefix)),
            }
        }
        while let Some(event) = self.control.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass, running every timer at its time.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.control.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.control.handle_timeout(self.now);
            self.drain();
            assert!(
                self.control.poll_timeout().is_none_or(|next| next > self.now),
                "a timer that does not move on"
            );
        }
        self.now = end;
    }

    pub(super) fn miss(&mut self, destination: &str) {
        let punt = Punt::Miss { destination: eid(destination), source: ip("10.1.0.5") };
        self.control.handle_punt(self.now, &punt);
        self.control.handle_timeout(self.now);
        self.drain();
    }

    pub(super) fn receive(&mut self, from: SocketAddr, message: &Message) {
        self.receive_octets(control_port(OWN_V4), from, &message.to_vec());
    }

    pub(super) fn receive_octets(&mut self, local: SocketAddr, from: SocketAddr, octets: &[u8]) {
        self.control.handle_input(self.now, local, from, octets);
        self.control.handle_timeout(self.now);
        self.drain();
    }

    /// What was sent since the last call.
    pub(super) fn take_sent(&mut self) -> Vec<Transmit> {
        std::mem::take(&mut self.sent).into_iter().map(|(_, transmit)| transmit).collect()
    }

    pub(super) fn take_one(&mut self) -> Transmit {
        let mut sent = self.take_sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// The Map-Request inside the one ECM just sent.
    pub(super) fn take_lookup(&mut self) -> (Transmit, EncapsulatedControlMessage, MapRequest) {
        let transmit = self.take_one();
        let Ok(Message::Encapsulated(ecm)) = Message::parse(&transmit.payload) else {
            panic!("not an ECM: {transmit:?}");
        };
        let request = ecm.map_request().expect("a Map-Request");
        (transmit, ecm, request)
    }

    /// Answers the lookup just sent.
    pub(super) fn answer(&mut self, records: Vec<EidRecord>) {
        let (_, _, request) = self.take_lookup();
        self.reply(request.nonce, records);
    }

    pub(super) fn reply(&mut self, nonce: u64, records: Vec<EidRecord>) {
        self.receive(control_port(RESOLVER), &Message::MapReply(MapReply::new(nonce, records)));
    }

    /// Resolves `destination` to these records.
    pub(super) fn learn(&mut self, destination: &str, records: Vec<EidRecord>) {
        self.sent.clear();
        self.miss(destination);
        self.answer(records);
    }

    pub(super) fn set(&self, text: &str) -> Arc<LocatorSet> {
        match self.fib.get(&prefix(text)) {
            Some(Verdict::Encapsulate(set)) => Arc::clone(set),
            other => panic!("{text} is {other:?}"),
        }
    }

    pub(super) fn destinations(&self, text: &str) -> Vec<String> {
        self.set(text).adjacencies.iter().map(|a| a.destination.to_string()).collect()
    }

    pub(super) fn dropped(&self, text: &str) -> crate::drops::DropReason {
        match self.fib.get(&prefix(text)) {
            Some(Verdict::Drop(reason)) => *reason,
            other => panic!("{text} is {other:?}"),
        }
    }

    pub(super) fn discarded(&self, reason: Discard) -> u64 {
        self.control.discards().get(reason)
    }

    pub(super) fn cached(&self) -> Vec<String> {
        self.control.cache.iter().map(|(prefix, _)| prefix.to_string()).collect()
    }
}

pub(super) fn record(eid: &str, ttl: u32, locators: &[&str]) -> EidRecord {
    let mut record =
        EidRecord::new(prefix(eid), ttl, locators.iter().map(|text| locator(text)).collect());
    record.authoritative = true;
    record
}

pub(super) fn negative(eid: &str, ttl: u32, action: Action) -> EidRecord {
    EidRecord::negative(prefix(eid), action, ttl)
}

pub(super) fn request(nonce: u64, eid: &str) -> MapRequest {
    let rlocs = vec![Address::from(ip(PEER))];
    MapRequest::new(nonce, rlocs, vec![mapping::wire::RequestedEid::new(prefix(eid))])
}
