//! The tree against RFC 8111: its parts alone, its example (§9), and a whole one in a network that loses packets.

mod client;
mod example;
mod node;
mod random;
mod secure;
mod simulation;
mod world;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{AuthoritativePrefix, DdtConfig, Delegation};
use crate::eid::{EidPrefix, InstanceId};
use crate::transmit::Transmit;
use crate::wire::{
    Address, CONTROL_PORT, EncapsulatedControlMessage, LocatorRecord, MapReferral, MapRequest,
    Message, ReferralAction, ReferralRecord, RequestedEid,
};

const ITR: &str = "198.51.100.99";
const ITR_PORT: u16 = 50_123;
const RESOLVER: &str = "192.0.2.250";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn prefix(text: &str) -> EidPrefix {
    in_instance(0, text)
}

fn in_instance(instance_id: u32, text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::new(instance_id).unwrap(), text.parse().unwrap())
}

fn host(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, ip(text).into())
}

fn delegation(text: &str, rlocs: &[&str], map_server: bool) -> Delegation {
    Delegation { prefix: prefix(text), rlocs: ips(rlocs), map_server }
}

fn authoritative(text: &str, complete: bool) -> AuthoritativePrefix {
    AuthoritativePrefix {
        prefix: text.parse().unwrap(),
        instance_id: Some(InstanceId::DEFAULT),
        peers: Vec::new(),
        complete,
    }
}

/// A Map-Request of the ITR in its ECM.
fn ecm(nonce: u64, asked: EidPrefix, itr: &str) -> EncapsulatedControlMessage {
    let request =
        MapRequest::new(nonce, vec![Address::from(ip(itr))], vec![RequestedEid::new(asked)]);
    let mut message = Vec::new();
    request.encode(&mut message);
    let destination = asked.first().address;
    let source = if destination.is_ipv4() { ip("203.0.113.5") } else { ip("2001:db8:f::5") };
    EncapsulatedControlMessage::new(
        SocketAddr::new(source, ITR_PORT),
        SocketAddr::new(destination, CONTROL_PORT),
        message,
    )
}

fn octets(ecm: &EncapsulatedControlMessage) -> Vec<u8> {
    let mut octets = Vec::new();
    ecm.encode(&mut octets);
    octets
}

/// The DDT Map-Request in a datagram.
fn ddt_request(transmit: &Transmit) -> EncapsulatedControlMessage {
    let ecm = EncapsulatedControlMessage::parse(&transmit.payload).unwrap();
    assert!(ecm.ddt_originated, "DD-01: the D-bit");
    ecm
}

fn referral_of(transmit: &Transmit) -> MapReferral {
    match Message::parse(&transmit.payload).unwrap() {
        Message::MapReferral(referral) => referral,
        other => panic!("not a Map-Referral: {other:?}"),
    }
}

/// A record as a DDT node sends it.
fn record(action: ReferralAction, about: EidPrefix, ttl: u32, rlocs: &[&str]) -> ReferralRecord {
    let mut record = ReferralRecord::new(about, action, ttl);
    record.authoritative = true;
    record.referrals = rlocs.iter().map(|rloc| LocatorRecord::new(ip(rloc), 1, 100)).collect();
    record
}

fn rlocs_of(record: &ReferralRecord) -> Vec<IpAddr> {
    let mut rlocs: Vec<IpAddr> =
        record.referrals.iter().filter_map(|referral| referral.address.rloc()).collect();
    rlocs.sort_unstable();
    rlocs
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
