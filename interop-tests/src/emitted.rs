//! One message of every kind that the suite sends, by name, for an independent dissector to read.

use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{
    Action, Address, AuthenticationData, CONTROL_PORT, EidRecord, EncapsulatedControlMessage,
    InfoReply, InfoRequest, LocatorRecord, MapNotify, MapNotifyAck, MapReferral, MapRegister,
    MapReply, MapRequest, Message, NatTraversal, ReferralAction, ReferralRecord, RequestedEid,
    RtrAuthentication, XtrIdentity,
};

use crate::corpus::{self, NONCE};

/// A message and its name.
pub type Named = (&'static str, Vec<u8>);

/// All of them.
pub fn all() -> Vec<Named> {
    let mut all = requests();
    all.extend(replies());
    all.extend(registrations());
    all.extend(nat());
    all.extend(referrals());
    all
}

/// Lookups, probes, solicitations, subscriptions.
fn requests() -> Vec<Named> {
    let plain = |probe, smr, smr_invoked| MapRequest {
        probe,
        smr,
        smr_invoked,
        source_eid: ip("203.0.113.1").into(),
        ..request(false)
    };
    let identity = Some(XtrIdentity { xtr_id: 7, site_id: 9 });
    let subscription = MapRequest { identity, ..request(true) };
    let unsubscription = MapRequest { itr_rlocs: vec![Address::None], ..subscription.clone() };
    let pitr = MapRequest { pitr: true, ..request(false) };
    let in_instance = MapRequest {
        records: vec![RequestedEid::new(prefix(1000, "203.0.113.5/32"))],
        ..request(false)
    };
    let whole = |request: MapRequest| Message::MapRequest(request).to_vec();
    vec![
        ("RLOC-probe", whole(plain(true, false, false))),
        ("SMR", whole(plain(false, true, false))),
        ("SMR-invoked Map-Request in an ECM", encapsulated(whole(plain(false, false, true)))),
        ("Map-Request of a PITR in an ECM", encapsulated(whole(pitr))),
        ("Map-Request in an instance in an ECM", encapsulated(whole(in_instance))),
        ("subscription in an ECM", encapsulated(whole(subscription))),
        ("unsubscription in an ECM", encapsulated(whole(unsubscription))),
        ("Map-Request with LISP-SEC in an ECM", corpus::protected_request()),
        ("Map-Request with EID-AD in an ECM", corpus::vouched_request()),
    ]
}

/// Positive, negative, to probes, secured.
fn replies() -> Vec<Named> {
    let records = vec![record(0, "203.0.113.0/24"), record(0, "2001:db8::/32")];
    let reply = MapReply::new(NONCE, records);
    let probe = MapReply { probe: true, ..reply.clone() };
    let in_instance = MapReply::new(NONCE, vec![record(1000, "2001:db8::/32")]);
    let negative = |action| {
        let eid = prefix(0, "2001:db8:dead::/48");
        let negative = EidRecord { action, ..EidRecord::new(eid, 15, Vec::new()) };
        Message::MapReply(MapReply::new(NONCE, vec![negative])).to_vec()
    };
    vec![
        ("Map-Reply", Message::MapReply(reply).to_vec()),
        ("Map-Reply to an RLOC-probe", Message::MapReply(probe).to_vec()),
        ("Map-Reply in an instance", Message::MapReply(in_instance).to_vec()),
        ("Map-Reply Natively-Forward", negative(Action::NativelyForward)),
        ("Map-Reply Drop/Policy-Denied", negative(Action::DropPolicyDenied)),
        ("Map-Reply Drop/Auth-Failure", negative(Action::DropAuthFailure)),
        ("Map-Reply with LISP-SEC", corpus::protected_reply()),
        ("Map-Reply for a name", corpus::named_reply()),
    ]
}

/// Map-Register, Map-Notify, Map-Notify-Ack; those with and without xTR-ID.
fn registrations() -> Vec<Named> {
    let authentication = AuthenticationData::zeroed(1, 2, 16);
    let mut all = Vec::new();
    for identity in [None, Some(XtrIdentity { xtr_id: 7, site_id: 9 })] {
        let named = |without, with| if identity.is_none() { without } else { with };
        let notify = MapNotify {
            nonce: NONCE,
            authentication: authentication.clone(),
            records: vec![record(0, "203.0.113.0/24"), record(1000, "2001:db8::/32")],
            identity,
        };
        let register = MapRegister {
            proxy_reply: true,
            security_capable: true,
            eid_notify: false,
            use_ttl: true,
            merge: true,
            want_map_notify: true,
            nonce: NONCE,
            authentication: authentication.clone(),
            records: notify.records.clone(),
            identity,
        };
        let gone = EidRecord { ttl_minutes: 0, ..record(0, "203.0.113.0/24") };
        let withdrawal = MapRegister { records: vec![gone], ..register.clone() };
        all.extend([
            (
                named("Map-Register", "Map-Register with xTR-ID"),
                Message::MapRegister(register).to_vec(),
            ),
            (
                named("Map-Register TTL 0", "Map-Register TTL 0 with xTR-ID"),
                Message::MapRegister(withdrawal).to_vec(),
            ),
            (
                named("Map-Notify", "Map-Notify with xTR-ID"),
                Message::MapNotify(notify.clone()).to_vec(),
            ),
            (
                named("Map-Notify-Ack", "Map-Notify-Ack with xTR-ID"),
                Message::MapNotifyAck(MapNotifyAck(notify)).to_vec(),
            ),
        ]);
    }
    all
}

/// Info-Request and Info-Reply, and what an RTR relays.
fn nat() -> Vec<Named> {
    let authentication = AuthenticationData::zeroed(1, 2, 16);
    let eid = prefix(0, "203.0.113.0/24");
    let request = InfoRequest {
        nonce: NONCE,
        authentication: authentication.clone(),
        ttl_minutes: 0,
        eid: eid.into(),
        sender: Address::None,
    };
    let nat = NatTraversal {
        ms_port: CONTROL_PORT,
        etr_port: 40_000,
        global_etr: ip("192.0.2.7").into(),
        ms: ip("192.0.2.2").into(),
        private_etr: Address::None,
        rtrs: vec![ip("198.51.100.9").into(), ip("2001:db8:c0::9").into()],
    };
    let reply = InfoReply {
        nonce: NONCE,
        authentication: authentication.clone(),
        ttl_minutes: 1440,
        eid: eid.into(),
        nat,
    };
    let [register, notify] = ["Map-Register", "Map-Notify"].map(|wanted| {
        let found = registrations().into_iter().find(|(name, _)| *name == wanted);
        found.map(|(_, octets)| octets).unwrap_or_default()
    });
    let relayed = EncapsulatedControlMessage { relayed: true, to_rtr: true, ..ecm(register) };
    let acknowledged = EncapsulatedControlMessage {
        to_rtr: true,
        security: Some(RtrAuthentication { authentication }.to_vec()),
        ..ecm(notify)
    };
    vec![
        ("Info-Request", Message::InfoRequest(request).to_vec()),
        ("Info-Reply", Message::InfoReply(reply).to_vec()),
        ("Map-Register relayed by an RTR", Message::Encapsulated(relayed).to_vec()),
        ("Map-Notify to an RTR", Message::Encapsulated(acknowledged).to_vec()),
    ]
}

/// LISP-DDT: a lookup of a Map-Resolver, and every kind of answer.
fn referrals() -> Vec<Named> {
    let lookup = EncapsulatedControlMessage {
        ddt_originated: true,
        ..ecm(Message::MapRequest(request(false)).to_vec())
    };
    let referral = |action| {
        let referrals = match action {
            ReferralAction::NodeReferral | ReferralAction::MsReferral | ReferralAction::MsAck => {
                record(0, "203.0.113.0/24").locators
            }
            _ => Vec::new(),
        };
        let eid = prefix(0, "2001:db8::/32");
        let record = ReferralRecord { referrals, ..ReferralRecord::new(eid, action, 15) };
        Message::MapReferral(MapReferral { nonce: NONCE, records: vec![record] }).to_vec()
    };
    vec![
        ("DDT Map-Request in an ECM", Message::Encapsulated(lookup).to_vec()),
        ("Map-Referral NODE-REFERRAL", referral(ReferralAction::NodeReferral)),
        ("Map-Referral MS-REFERRAL", referral(ReferralAction::MsReferral)),
        ("Map-Referral MS-ACK", referral(ReferralAction::MsAck)),
        ("Map-Referral MS-NOT-REGISTERED", referral(ReferralAction::MsNotRegistered)),
        ("Map-Referral DELEGATION-HOLE", referral(ReferralAction::DelegationHole)),
        ("Map-Referral NOT-AUTHORITATIVE", referral(ReferralAction::NotAuthoritative)),
    ]
}

fn request(notify: bool) -> MapRequest {
    let records = vec![RequestedEid { notify, eid: prefix(0, "203.0.113.5/32").into() }];
    MapRequest::new(NONCE, vec![ip("192.0.2.1").into(), ip("2001:db8:a::1").into()], records)
}

fn encapsulated(message: Vec<u8>) -> Vec<u8> {
    Message::Encapsulated(ecm(message)).to_vec()
}

fn ecm(message: Vec<u8>) -> EncapsulatedControlMessage {
    let at = |text| std::net::SocketAddr::new(ip(text), CONTROL_PORT);
    EncapsulatedControlMessage::new(at("192.0.2.1"), at("203.0.113.5"), message)
}

fn record(instance_id: u32, text: &str) -> EidRecord {
    let locators =
        ["192.0.2.129", "2001:db8:b::1"].map(|address| LocatorRecord::new(ip(address), 1, 50));
    EidRecord::new(prefix(instance_id, text), 1440, locators.into())
}

fn prefix(instance_id: u32, text: &str) -> EidPrefix {
    let instance_id = InstanceId::new(instance_id).expect("24 bits");
    EidPrefix::new(instance_id, text.parse().expect("a prefix"))
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}
