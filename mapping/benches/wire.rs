//! What one control message costs: parsing, encoding, signing and verifying, in nanoseconds.
//!
//! `cargo bench -p mapping --bench wire`

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use mapping::auth::{Covered, PreparedKey};
use mapping::config::{Algorithm, Secret};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::sec::{self, Otk, Requested, hmac_id, kdf_id};
use mapping::wire::{
    AuthenticationData, EidAd, EidAdBody, EidRecord, EncapsulatedControlMessage, LocatorRecord,
    MacField, MapRegister, MapReply, MapRequest, Message, RequestedEid,
};

const SECRET: &[u8] = b"lisp-shared-secret";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str) -> EidPrefix {
    let net: IpNet = text.parse().expect("a prefix");
    EidPrefix::new(InstanceId::DEFAULT, net)
}

fn record() -> EidRecord {
    let locators = vec![
        LocatorRecord::new(ip("192.0.2.129"), 1, 75),
        LocatorRecord::new(ip("2001:db8:b::1"), 1, 25),
    ];
    EidRecord::new(prefix("203.0.113.0/24"), 1440, locators)
}

/// A Map-Register with one record of two locators, not signed yet.
fn register(algorithm: Algorithm) -> Vec<u8> {
    let register = MapRegister {
        proxy_reply: true,
        security_capable: false,
        eid_notify: false,
        use_ttl: false,
        merge: false,
        want_map_notify: true,
        nonce: 0x1122_3344_5566_7788,
        authentication: AuthenticationData::zeroed(1, algorithm.id(), algorithm.mac_len()),
        records: vec![record()],
        identity: None,
    };
    Message::MapRegister(register).to_vec()
}

fn map_request() -> Vec<u8> {
    let rlocs = vec![ip("192.0.2.1").into(), ip("2001:db8:a::1").into()];
    let eid = RequestedEid::new(prefix("203.0.113.5/32"));
    let request = MapRequest::new(0x0102_0304_0506_0708, rlocs, vec![eid]);
    let ports = |address| SocketAddr::new(ip(address), 4342);
    let message = Message::MapRequest(request).to_vec();
    let ecm = EncapsulatedControlMessage::new(ports("192.0.2.1"), ports("203.0.113.5"), message);
    Message::Encapsulated(ecm).to_vec()
}

fn codec(c: &mut Criterion) {
    let octets = register(Algorithm::HmacSha256Hkdf);
    c.bench_function("parse Map-Register, 1 record", |b| {
        b.iter(|| Message::parse(black_box(&octets)));
    });
    let octets = map_request();
    c.bench_function("parse Map-Request in an ECM", |b| {
        b.iter(|| match Message::parse(black_box(&octets)) {
            Ok(Message::Encapsulated(ecm)) => ecm.map_request().ok(),
            _ => None,
        });
    });
    let reply = MapReply::new(1, vec![record()]);
    let mut out = Vec::with_capacity(1500);
    c.bench_function("encode Map-Reply, 1 record", |b| {
        b.iter(|| {
            out.clear();
            black_box(&reply).encode(&mut out);
            out.len()
        });
    });
    let octets = Message::MapReply(reply).to_vec();
    c.bench_function("parse Map-Reply, 1 record", |b| {
        b.iter(|| Message::parse(black_box(&octets)));
    });
}

fn authentication(c: &mut Criterion) {
    let key = PreparedKey::new(SECRET);
    for algorithm in Algorithm::ALL {
        let mut octets = register(algorithm);
        let id = algorithm.id();
        c.bench_function(&format!("sign Map-Register, algorithm {id}"), |b| {
            b.iter(|| key.sign(black_box(&mut octets), algorithm, Covered::Records));
        });
        c.bench_function(&format!("verify Map-Register, algorithm {id}"), |b| {
            b.iter(|| key.verify(black_box(&octets), &[algorithm]));
        });
    }
}

fn lisp_sec(c: &mut Criterion) {
    let (otk, secret) = (Otk::new([7; 16]), Secret::new(SECRET.to_vec()));
    let ms_otk = sec::ms_otk(&otk, kdf_id::HKDF_SHA256).expect("a known KDF");
    let body = EidAdBody {
        etr_cant_sign: false,
        hmac_id: hmac_id::SHA_256_128,
        prefixes: vec![prefix("203.0.113.0/24").into()],
        hmac: MacField::zeroed(0),
    };
    let mut eid_ad = EidAd { kdf_id: kdf_id::HKDF_SHA256, body: Some(body) };
    sec::sign_eid_ad(&mut eid_ad, &otk).expect("signed");
    let eid_ad = eid_ad.to_vec();
    let protect = || {
        let reply = MapReply::new(1, vec![record()]);
        sec::protect_reply(reply, &eid_ad, &ms_otk, hmac_id::SHA_256_128).expect("protected")
    };
    c.bench_function("wrap one-time key", |b| b.iter(|| sec::wrap(black_box(&otk), 1, &secret)));
    c.bench_function("protect Map-Reply", |b| b.iter(protect));
    let reply = protect();
    c.bench_function("open protected Map-Reply", |b| {
        b.iter(|| sec::open_reply(black_box(&reply), &otk, Requested::default()));
    });
}

criterion_group!(wire, codec, authentication, lisp_sec);
criterion_main!(wire);
