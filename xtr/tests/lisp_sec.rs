//! LISP-SEC from end to end (RFC 9303): an ITR, a Map-Server that is Map-Resolver too, and an ETR, on a network that loses, delays,
//! repeats, and has somebody on it.
//!
//! ```text
//!   ITR 192.0.2.1 --- [ loss, delay, the attacker ] --- 198.51.100.2 Map-Server --- ETR 192.0.2.2 (10.2.0.0/16)
//! ```
use mapping::config::{
    Algorithm, ItrKey, LispSec, MappingConfig, Secret, Site, SiteKey, SitePrefix,
};
use mapping::discard::Discard;
use mapping::eid::{Eid, EidPrefix, InstanceId};
use mapping::server::MapServer;
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::{CONTROL_PORT, LocatorRecord, MapReply, Message};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use xtr::config::{ControlConfig, Endpoint, LispSec as RouterLispSec, LocalEid, OwnRloc, Role};
use xtr::control::ControlPlane;
use xtr::punt::Punt;

const SERVER: &str = "198.51.100.2";
const ITR: &str = "192.0.2.1";
const ETR: &str = "192.0.2.2";
const ATTACKER: &str = "192.0.2.66";
const SITE: &str = "10.2.0.0/16";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("prefix"))
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// What somebody on the path makes of a datagram: those that arrive instead.
type Attack = Box<dyn FnMut(&Transmit) -> Vec<Vec<u8>>>;

struct Network {
    now: Instant,
    rng: StdRng,
    loss_percent: u32,
    server: MapServer,
    itr: ControlPlane,
    etr: ControlPlane,
    datagrams: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    attack: Attack,
    /// Map-Replies as they were sent to the ITR.
    replies: Vec<Vec<u8>>,
}

fn router(address: &str, eid: Option<&str>, proxy_reply: bool, required: bool) -> ControlConfig {
    let endpoint = Endpoint::Address(ip(SERVER));
    let server = xtr::config::MapServer {
        endpoint: endpoint.clone(),
        key_id: 1,
        secret: secret("of the site"),
        algorithm: Algorithm::HmacSha256Hkdf,
        profile: mapping::config::Profile::Rfc9301,
        covers: mapping::auth::Covered::Message,
    };
    let lisp_sec = RouterLispSec { key_id: 7, secret: secret("of the ITRs"), required };
    ControlConfig {
        rlocs: vec![OwnRloc::new("core4", ip(address), 1, 100)],
        map_resolvers: vec![endpoint],
        map_servers: eid.map(|_| server).into_iter().collect(),
        eids: eid
            .map(|eid| LocalEid { prefix: prefix(eid), locator_set: Vec::new() })
            .into_iter()
            .collect(),
        proxy_reply,
        lisp_sec: Some(lisp_sec),
        ..ControlConfig::of(if eid.is_some() { Role::Xtr } else { Role::Proxy })
    }
}

impl Network {
    /// LISP-SEC required on all three.
    fn new(seed: u8, proxy_reply: bool) -> Self {
        Self::with(seed, proxy_reply, |_, _| {})
    }

    fn with(
        seed: u8,
        proxy_reply: bool,
        edit: impl FnOnce(&mut ControlConfig, &mut ControlConfig),
    ) -> Self {
        let now = Instant::now();
        let key = SiteKey {
            id: 1,
            secret: secret("of the site"),
            algorithms: vec![Algorithm::HmacSha256Hkdf],
        };
        let prefixes = vec![SitePrefix { prefix: prefix(SITE), accept_more_specifics: true }];
        let mut mapping = MappingConfig::new("ms", vec![ip(SERVER)]);
        mapping.sites = vec![Site::new("b", vec![key], prefixes)];
        let itr_keys = vec![ItrKey { id: 7, secret: secret("of the ITRs") }];
        mapping.lisp_sec = LispSec { itr_keys, required: true };
        let mut itr = router(ITR, None, false, true);
        let mut etr = router(ETR, Some(SITE), proxy_reply, true);
        edit(&mut itr, &mut etr);
        let mut network = Self {
            now,
            rng: StdRng::from_seed([seed; 32]),
            loss_percent: 0,
            server: MapServer::new(mapping, [seed; 32]),
            itr: ControlPlane::new(itr, now, [seed ^ 0x55; 32], 1_000),
            etr: ControlPlane::new(etr, now, [seed ^ 0xaa; 32], 1_000),
            datagrams: BTreeMap::new(),
            sent: 0,
            attack: Box::new(|transmit| vec![transmit.payload.clone()]),
            replies: Vec::new(),
        };
        network.run(Duration::from_secs(30));
        network
    }

    fn collect(&mut self) {
        let mut sent = Vec::new();
        while let Some(transmit) = self.server.poll_transmit() {
            sent.push(transmit);
        }
        for router in [&mut self.itr, &mut self.etr] {
            while let Some(transmit) = router.poll_transmit() {
                sent.push(transmit);
            }
            while router.poll_fib_update().is_some() || router.poll_event().is_some() {}
        }
        while self.server.poll_event().is_some() {}
        for transmit in sent {
            let is_reply = matches!(Message::parse(&transmit.payload), Ok(Message::MapReply(_)));
            let payloads = if is_reply && transmit.destination.ip() == ip(ITR) {
                self.replies.push(transmit.payload.clone());
                (self.attack)(&transmit)
            } else {
                vec![transmit.payload.clone()]
            };
            for payload in payloads {
                self.post(&transmit, payload);
            }
        }
    }

    fn post(&mut self, transmit: &Transmit, payload: Vec<u8>) {
        assert!(payload.len() <= 548, "CW-06");
        if self.rng.random_range(0..100) < self.loss_percent {
            return;
        }
        let delay = Duration::from_micros(self.rng.random_range(200..20_000));
        let port = match transmit.source_port {
            SourcePort::Control => CONTROL_PORT,
            SourcePort::Data => 4341,
            SourcePort::Ephemeral => 40_000,
        };
        self.sent += 1;
        let from = SocketAddr::new(transmit.source, port);
        let at = (self.now + delay, self.sent);
        self.datagrams.insert(at, (from, transmit.destination, payload));
    }

    fn run(&mut self, by: Duration) {
        let end = self.now + by;
        self.collect();
        loop {
            let arrival = self.datagrams.keys().next().map(|(at, _)| *at);
            let timers = [
                self.server.poll_timeout(),
                self.itr.poll_timeout(),
                self.etr.poll_timeout(),
                arrival,
            ];
            let Some(next) = timers.into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                let (_, (from, to, payload)) = self.datagrams.pop_first().expect("one is due");
                self.deliver(from, to, &payload);
            }
            self.server.handle_timeout(self.now);
            self.itr.handle_timeout(self.now);
            self.etr.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        if to.ip() == ip(SERVER) {
            self.server.handle_input(self.now, to, from, payload);
        } else if to.ip() == ip(ITR) {
            self.itr.handle_input(self.now, to, from, payload);
        } else if to.ip() == ip(ETR) {
            self.etr.handle_input(self.now, to, from, payload);
        }
    }

    fn miss(&mut self, eid: &str) {
        let destination = Eid::new(InstanceId::DEFAULT, ip(eid));
        self.itr.handle_punt(self.now, &Punt::Miss { destination, source: ip("203.0.113.7") });
    }

    /// The map-cache of the ITR: prefix, locators, whether it is secured.
    fn cached(&self) -> Vec<(String, Vec<IpAddr>, bool)> {
        let entry = |view: xtr::view::MapCacheEntryView| {
            let locators = view.locators.iter().map(|locator| locator.address).collect();
            (view.prefix.to_string(), locators, view.secured)
        };
        self.itr.map_cache_view(self.now).into_iter().map(entry).collect()
    }

    fn resolved() -> Vec<(String, Vec<IpAddr>, bool)> {
        vec![(SITE.to_owned(), vec![ip(ETR)], true)]
    }

    fn discarded(&self, reason: Discard) -> u64 {
        self.itr.discards().get(reason)
    }
}

#[test]
fn se_09_se_16_a_lookup_is_answered_by_etr_and_by_map_server() {
    for proxy_reply in [false, true] {
        let mut network = Network::new(1, proxy_reply);
        network.miss("10.2.0.9");
        network.run(Duration::from_secs(1));
        assert_eq!(network.cached(), Network::resolved(), "proxy-reply {proxy_reply}");
        assert_eq!(network.discarded(Discard::SecurityMissing), 0);
    }
}

#[test]
fn ms_10_negative_answers_are_proved_too() {
    let mut network = Network::new(2, true);
    network.miss("10.9.0.9");
    network.run(Duration::from_secs(1));
    let cached = network.cached();
    assert_eq!(cached.len(), 1);
    assert!(cached[0].1.is_empty() && cached[0].2);
}

#[test]
fn se_01_lookups_succeed_under_loss() {
    for seed in 0..20 {
        let mut network = Network::new(seed, seed % 2 == 0);
        network.loss_percent = 30;
        network.miss("10.2.0.9");
        network.run(Duration::from_secs(25));
        assert_eq!(network.cached(), Network::resolved(), "seed {seed}");
    }
}

/// What is changed on the way is as good as lost: the lookup is repeated until something genuine comes through.
#[test]
fn se_18_a_reply_tampered_with_on_its_way_is_discarded() {
    for proxy_reply in [false, true] {
        let mut rng = StdRng::from_seed([9; 32]);
        let mut network = Network::new(3, proxy_reply);
        let mut at = 0;
        network.attack = Box::new(move |transmit| {
            let forged = |at: usize, bit: u32| {
                let mut forged = transmit.payload.clone();
                let at = at % forged.len();
                forged[at] ^= 1 << bit;
                forged
            };
            at += 40;
            (at - 40..at).map(|at| forged(at, rng.random_range(0..8))).collect()
        });
        network.miss("10.2.0.9");
        network.run(Duration::from_secs(20));
        assert!(network.replies.len() > 2, "RP-15 lets one pass in 3 s");
        assert!(network.cached().is_empty());
        network.attack = Box::new(|transmit| vec![transmit.payload.clone()]);
        network.run(Duration::from_secs(60));
        network.miss("10.2.0.9");
        network.run(Duration::from_secs(20));
        assert_eq!(network.cached(), Network::resolved());
    }
}

#[test]
fn se_17_a_reply_stripped_of_its_protection_is_discarded() {
    let mut network = Network::new(4, true);
    network.attack = Box::new(|transmit| {
        let Ok(mut reply) = MapReply::parse(&transmit.payload) else { return Vec::new() };
        reply.security = None;
        reply.records[0].locators = vec![LocatorRecord::new(ip(ATTACKER), 1, 100)];
        vec![Message::MapReply(reply).to_vec()]
    });
    network.miss("10.2.0.9");
    network.run(Duration::from_secs(20));
    assert!(network.cached().is_empty());
    assert!(network.discarded(Discard::SecurityMissing) > 0);
}

#[test]
fn se_19_a_reply_of_yesterday_is_worth_nothing() {
    let mut network = Network::new(5, true);
    network.miss("10.2.0.9");
    network.run(Duration::from_secs(1));
    let old = network.replies[0].clone();
    let of_old = MapReply::parse(&old).expect("a reply");
    network.run(Duration::from_secs(1_440 * 60 + 10));
    assert!(network.cached().is_empty());
    network.attack = Box::new(move |transmit| {
        let Ok(new) = MapReply::parse(&transmit.payload) else { return Vec::new() };
        // As it was, and with the nonce that is asked for now.
        let mut renamed = of_old.clone();
        renamed.nonce = new.nonce;
        vec![Message::MapReply(of_old.clone()).to_vec(), Message::MapReply(renamed).to_vec()]
    });
    network.miss("10.2.0.9");
    network.run(Duration::from_secs(20));
    assert!(network.cached().is_empty());
    assert!(network.discarded(Discard::NonceUnknown) > 0);
    assert!(network.discarded(Discard::EidAdForged) > 0);
}

/// An ETR knows the MS-OTK, not the ITR-OTK: it can sign any record, but vouch for none.
#[test]
fn se_21_an_etr_that_overclaims_gets_nothing() {
    let mut network = Network::with(6, false, |_, etr| {
        etr.eids[0].prefix = prefix("10.0.0.0/8");
    });
    network.run(Duration::from_secs(5));
    assert!(network.server.registrations_view(network.now).is_empty(), "MS-01: not its prefix");
    // The ETR that may register 10.2/16 and answers with 10/8: registered by one process, answered by another.
    let mut honest = Network::new(6, false);
    std::mem::swap(&mut honest.etr, &mut network.etr);
    honest.miss("10.2.0.9");
    honest.run(Duration::from_secs(20));
    assert!(!honest.replies.is_empty() && honest.cached().is_empty());
    assert!(honest.discarded(Discard::PrefixOverclaimed) > 0);
}

#[test]
fn se_22_an_etr_without_lisp_sec_is_reached_only_if_that_is_allowed() {
    for required in [true, false] {
        let mut network = Network::with(7, false, |itr, etr| {
            etr.lisp_sec = None;
            itr.lisp_sec.as_mut().expect("configured").required = required;
        });
        network.miss("10.2.0.9");
        network.run(Duration::from_secs(20));
        let asked_without =
            network.server.drops_view().iter().any(|d| d.reason == "lisp_sec_missing");
        assert_eq!(asked_without, !required, "the Map-Resolver of this test answers nobody else");
        if required {
            let cached = network.cached();
            assert!(cached[0].1.is_empty() && cached[0].2, "a proved denial: {cached:?}");
        }
    }
}

#[test]
fn se_06_an_itr_with_another_key_learns_nothing() {
    let mut network = Network::with(8, true, |itr, _| {
        itr.lisp_sec.as_mut().expect("configured").secret = secret("guessed");
    });
    network.miss("10.2.0.9");
    network.run(Duration::from_secs(20));
    assert!(network.cached().is_empty() && network.replies.is_empty());
    assert!(network.server.drops_view().iter().any(|drop| drop.reason == "otk_unwrap_failed"));
}
