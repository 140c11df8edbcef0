//! Well-formed control messages to damage: what real peers sent, and what no capture shows.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use mapping::auth;
use mapping::config::{Algorithm, Secret};
use mapping::eid::{EidPrefix, InstanceId, InstanceRange, NamePrefix};
use mapping::sec::{self, Otk, hmac_id, kdf_id};
use mapping::wire::{
    Address, AuthenticationData, CONTROL_PORT, EcmSecurity, EidAd, EidAdBody, EidField, EidRecord,
    EncapsulatedControlMessage, LocatorRecord, MacField, MapNotify, MapNotifyAck, MapReferral,
    MapRegister, MapReply, MapRequest, Message, ReferralAction, ReferralRecord, ReferralSignature,
    RequestedEid, XtrIdentity,
};

use crate::captures::control_datagrams;

/// Nonce of every message made here.
pub const NONCE: u64 = 0x0102_0304_0506_0708;

/// The control messages of the captures, and one of every kind that they lack.
pub fn control_messages() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = control_datagrams().into_iter().map(|d| d.payload).collect();
    corpus.extend(made());
    corpus
}

/// One message of every kind that the captures lack.
pub fn made() -> Vec<Vec<u8>> {
    let mut messages = signed();
    messages.extend([protected_reply(), protected_request(), vouched_request()]);
    messages.extend([subscription(), map_referral(2), named_reply()]);
    messages
}

/// The secret of [`signed`] and of the wrapped One-Time Keys.
pub fn secret() -> Secret {
    Secret::new(b"lisp-shared-secret".to_vec())
}

/// The ITR-OTK of [`protected_reply`].
pub fn itr_otk() -> Otk {
    Otk::new([0x5a; 16])
}

/// Map-Registers, Map-Notifies and Map-Notify-Acks signed with every algorithm over the whole message, with and without xTR-ID.
pub fn signed() -> Vec<Vec<u8>> {
    let identity = XtrIdentity { xtr_id: 7, site_id: 9 };
    let mut messages = Vec::new();
    for algorithm in Algorithm::ALL {
        for mac_len in [algorithm.mac_len(), algorithm.untruncated_mac_len()] {
            let authentication = AuthenticationData::zeroed(1, algorithm.id(), mac_len);
            for identity in [None, Some(identity)] {
                for message in unsigned(&authentication, identity) {
                    let mut octets = message.to_vec();
                    let covered = auth::Covered::Message;
                    auth::sign_covering(&mut octets, &secret(), algorithm, covered)
                        .expect("a message of the right algorithm is signed");
                    messages.push(octets);
                }
            }
        }
    }
    messages
}

/// A Map-Reply with a verifiable EID-AD and PKT-AD.
pub fn protected_reply() -> Vec<u8> {
    let ms_otk = sec::ms_otk(&itr_otk(), kdf_id::HKDF_SHA256).expect("a known KDF");
    let reply = MapReply::new(NONCE, vec![record("203.0.113.0/24"), record("2001:db8::/32")]);
    sec::protect_reply(reply, &eid_ad().to_vec(), &ms_otk, hmac_id::SHA_256_128)
        .expect("a known HMAC")
}

/// The ECM of an ITR that speaks LISP-SEC.
pub fn protected_request() -> Vec<u8> {
    let requested = vec![RequestedEid::new(prefix("203.0.113.5/32"))];
    let request = MapRequest::new(NONCE, vec![ip("192.0.2.1").into()], requested);
    encapsulated(request, Some(security(EidAd::request(kdf_id::HKDF_SHA256))))
}

/// The ECM of a Map-Server to an ETR.
pub fn vouched_request() -> Vec<u8> {
    let requested = vec![RequestedEid::new(prefix("2001:db8::5/128"))];
    let request = MapRequest::new(NONCE, vec![ip("2001:db8:a::1").into()], requested);
    encapsulated(request, Some(security(eid_ad())))
}

/// A subscription to a name, an EID-prefix in an instance and a range of instances.
fn subscription() -> Vec<u8> {
    let instance_id = InstanceId::new(1000).expect("24 bits");
    let name = NamePrefix::whole(instance_id, "host-1").expect("a short name");
    let in_instance = EidPrefix::new(instance_id, prefix("203.0.113.0/24").prefix());
    let range = InstanceRange::new(0x100, 24).expect("24 bits of 32");
    let eids = [EidField::from(&name), in_instance.into(), range.into()];
    let requested = eids.map(|eid| RequestedEid { notify: true, eid }).into();
    let identity = Some(XtrIdentity { xtr_id: 7, site_id: 9 });
    let request = MapRequest {
        map_data: Some(record("198.51.100.0/24")),
        identity,
        ..MapRequest::new(NONCE, vec![ip("192.0.2.1").into(), Address::None], requested)
    };
    encapsulated(request, None)
}

/// A Map-Referral to DDT Map-Servers with `signatures`, and of a hole.
pub fn map_referral(signatures: usize) -> Vec<u8> {
    let signature = ReferralSignature {
        original_ttl_minutes: 1440,
        expiration: 0x6b49_d200,
        inception: 0x6b48_8080,
        key_tag: 1,
        algorithm: 2,
        signature: vec![0xaa; 64],
    };
    let delegated = ReferralRecord {
        authoritative: true,
        referrals: record("203.0.113.0/24").locators,
        signatures: vec![signature; signatures],
        ..ReferralRecord::new(prefix("2001:db8::/32"), ReferralAction::MsReferral, 1440)
    };
    let hole = ReferralRecord {
        incomplete: true,
        ..ReferralRecord::new(prefix("203.0.113.0/25"), ReferralAction::DelegationHole, 15)
    };
    Message::MapReferral(MapReferral { nonce: NONCE, records: vec![delegated, hole] }).to_vec()
}

/// A Map-Reply for a distinguished name.
pub fn named_reply() -> Vec<u8> {
    let name = NamePrefix::whole(InstanceId::DEFAULT, "ietf").expect("a short name");
    let record = EidRecord { eid: EidField::from(&name), ..record("203.0.113.0/24") };
    Message::MapReply(MapReply::new(NONCE, vec![record])).to_vec()
}

fn unsigned(authentication: &AuthenticationData, identity: Option<XtrIdentity>) -> [Message; 3] {
    let records = vec![record("203.0.113.0/24"), record("2001:db8::/32")];
    let notify =
        MapNotify { nonce: NONCE, authentication: authentication.clone(), records, identity };
    let register = MapRegister {
        proxy_reply: true,
        security_capable: true,
        eid_notify: false,
        use_ttl: false,
        merge: true,
        want_map_notify: true,
        nonce: NONCE,
        authentication: authentication.clone(),
        records: notify.records.clone(),
        identity,
    };
    let ack = MapNotifyAck(notify.clone());
    [Message::MapRegister(register), Message::MapNotify(notify), Message::MapNotifyAck(ack)]
}

fn security(eid_ad: EidAd) -> EcmSecurity {
    let wrapped = sec::wrap(&itr_otk(), NONCE, &secret());
    EcmSecurity {
        requested_hmac: hmac_id::SHA_256_128,
        key_id: 1,
        wrapping_id: wrapped.wrapping_id,
        preamble: wrapped.preamble,
        otk: wrapped.otk,
        eid_ad,
    }
}

fn eid_ad() -> EidAd {
    let body = EidAdBody {
        etr_cant_sign: false,
        hmac_id: hmac_id::SHA_256_128,
        prefixes: vec![prefix("203.0.113.0/24").into(), prefix("2001:db8::/32").into()],
        hmac: MacField::zeroed(0),
    };
    let mut eid_ad = EidAd { kdf_id: kdf_id::HKDF_SHA256, body: Some(body) };
    sec::sign_eid_ad(&mut eid_ad, &itr_otk()).expect("a known HMAC");
    eid_ad
}

fn encapsulated(request: MapRequest, security: Option<EcmSecurity>) -> Vec<u8> {
    let port = |text| SocketAddr::new(ip(text), CONTROL_PORT);
    let message = Message::MapRequest(request).to_vec();
    let ecm = EncapsulatedControlMessage {
        security: security.map(|security| security.to_vec()),
        ..EncapsulatedControlMessage::new(port("192.0.2.1"), port("203.0.113.5"), message)
    };
    Message::Encapsulated(ecm).to_vec()
}

fn record(text: &str) -> EidRecord {
    let locators =
        ["192.0.2.129", "2001:db8:b::1"].map(|address| LocatorRecord::new(ip(address), 1, 50));
    EidRecord::new(prefix(text), 1440, locators.into())
}

fn prefix(text: &str) -> EidPrefix {
    let net: IpNet = text.parse().expect("a prefix");
    EidPrefix::new(InstanceId::DEFAULT, net)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
