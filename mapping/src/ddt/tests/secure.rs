//! LISP-SEC through the tree: a Map-Resolver without any key, a Map-Server that answers nothing unprotected.

use super::world::{Site, register, sites};
use super::*;
use crate::config::{ItrKey, LispSec, MappingConfig, Secret};
use crate::sec::{self, Otk, hmac_id, kdf_id};
use crate::server::MapServer;
use crate::wire::MapReply;
use crate::wire::security::{EcmSecurity, EidAd};

const MAP_SERVER: &str = "192.0.2.101";
const ETR: &str = "198.51.100.11";

struct Bench {
    resolver: MapServer,
    map_server: MapServer,
    now: Instant,
}

fn secret() -> Secret {
    Secret::new(b"shared by ITR and Map-Server".to_vec())
}

impl Bench {
    fn new() -> Self {
        let mut resolver = MappingConfig::new("mr", ips(&[RESOLVER]));
        resolver.ddt =
            DdtConfig { resolver: true, roots: ips(&[MAP_SERVER]), ..DdtConfig::default() };
        let mut map_server = MappingConfig::new("ms", ips(&[MAP_SERVER]));
        map_server.sites = sites(&[Site { prefix: "10.1.0.0/16", etr: ETR }]);
        map_server.ddt.authoritative = vec![authoritative("10.0.0.0/8", true)];
        map_server.lisp_sec =
            LispSec { itr_keys: vec![ItrKey { id: 5, secret: secret() }], required: true };
        let now = Instant::now();
        let mut bench = Self {
            resolver: MapServer::new(resolver, [1; 32]),
            map_server: MapServer::new(map_server, [2; 32]),
            now,
        };
        let octets = register(1, prefix("10.1.0.0/16"), ETR, true);
        bench.tell_map_server(ETR, &octets);
        bench
    }

    fn tell_map_server(&mut self, from: &str, octets: &[u8]) -> Vec<Transmit> {
        let (local, from) = addresses(MAP_SERVER, from);
        self.map_server.handle_input(self.now, local, from, octets);
        std::iter::from_fn(|| self.map_server.poll_transmit()).collect()
    }

    fn tell_resolver(&mut self, from: &str, octets: &[u8]) -> Vec<Transmit> {
        let (mut local, mut from) = addresses(RESOLVER, from);
        if from.ip() == ip(MAP_SERVER) {
            // An answer.
            (local, from) =
                (SocketAddr::new(local.ip(), 41_000), SocketAddr::new(from.ip(), CONTROL_PORT));
        }
        self.resolver.handle_input(self.now, local, from, octets);
        std::iter::from_fn(|| self.resolver.poll_transmit()).collect()
    }
}

fn addresses(local: &str, from: &str) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(ip(local), CONTROL_PORT), SocketAddr::new(ip(from), 40_001))
}

fn protected(nonce: u64, eid: &str) -> EncapsulatedControlMessage {
    let wrapped = sec::wrap(&Otk::new([0x5a; 16]), nonce, &secret());
    let security = EcmSecurity {
        requested_hmac: hmac_id::SHA_256_128,
        key_id: 5,
        wrapping_id: wrapped.wrapping_id,
        preamble: wrapped.preamble,
        otk: wrapped.otk,
        eid_ad: EidAd::request(kdf_id::HKDF_SHA256),
    };
    let mut ecm = ecm(nonce, host(eid), ITR);
    ecm.security = Some(security.to_vec());
    ecm
}

#[test]
fn dd_14_the_authentication_data_reaches_the_map_server_and_protects_the_answer() {
    let mut bench = Bench::new();
    let asked = protected(7, "10.1.2.3");
    let first = bench.tell_resolver(ITR, &octets(&asked));
    assert_eq!(ddt_request(&first[0]).security, None, "DD-01");

    let sent = bench.tell_map_server(RESOLVER, &first[0].payload);
    assert_eq!(sent.len(), 1, "nothing unprotected is answered, but the resolver is (DD-02)");
    assert_eq!(referral_of(&sent[0]).records[0].action, ReferralAction::MsAck);

    let second = bench.tell_resolver(MAP_SERVER, &sent[0].payload);
    assert_eq!(ddt_request(&second[0]).security, asked.security, "as the ITR sent it");
    let sent = bench.tell_map_server(RESOLVER, &second[0].payload);
    let reply = MapReply::parse(&sent[0].payload).unwrap();
    assert_eq!((reply.nonce, sent[0].destination.ip()), (7, ip(ITR)));
    assert!(reply.security.is_some(), "signed for the ITR");

    assert!(bench.tell_resolver(MAP_SERVER, &sent[1].payload).is_empty());
    assert!(bench.resolver.referrals_view(bench.now).pending.is_empty());
    let again = bench.tell_resolver(ITR, &octets(&protected(8, "10.1.9.9")));
    assert!(ddt_request(&again[0]).security.is_some(), "DD-13: the cached MS-ACK");
}
