//! A Map-Server and tunnel routers on a simulated network: one thread, one clock that we move, seeded loss, delay and duplication.
//!
//! ```text
//!   10.1.0.0/16 -- xTR 192.0.2.1 --+-- 198.51.100.2 Map-Server/Map-Resolver
//!   10.2.0.0/16 -- xTR 192.0.2.2 --+
//!       (natives) PITR 192.0.2.3 --+
//! ```
use mapping::clock::Epoch;
use mapping::config::{Algorithm, MappingConfig, Profile, Secret, Site, SiteKey, SitePrefix};
use mapping::discard::Discard;
use mapping::eid::{Eid, EidPrefix, InstanceId};
use mapping::server::MapServer;
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::CONTROL_PORT;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use xtr::config::{ControlConfig, Endpoint, LocalEid, OwnRloc, ProbeConfig, Role};
use xtr::control::ControlPlane;
use xtr::fib::{FibUpdate, Verdict};
use xtr::punt::Punt;
use xtr::view::{LocatorState, RegistrationState};

#[path = "simulation/mobility.rs"]
mod mobility;
#[path = "simulation/subscriptions.rs"]
mod subscriptions;

const SERVER: &str = "198.51.100.2";
const EPHEMERAL_PORT: u16 = 40_000;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("prefix"))
}

fn key() -> Secret {
    Secret::new(b"one key for all sites".to_vec())
}

/// What the network does to a datagram.
#[derive(Clone, Copy)]
struct Weather {
    loss_percent: u32,
    duplicate_percent: u32,
    delay_micros: (u64, u64),
}

const FAIR: Weather = Weather { loss_percent: 0, duplicate_percent: 0, delay_micros: (500, 501) };
const FOUL: Weather =
    Weather { loss_percent: 30, duplicate_percent: 20, delay_micros: (100, 400_000) };

enum Node {
    Server(Box<MapServer>),
    Router(Box<ControlPlane>, BTreeMap<EidPrefix, Verdict>),
}

struct Network {
    now: Instant,
    epoch: Epoch,
    /// What the Map-Server wants to survive.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    weather: Weather,
    rng: StdRng,
    nodes: BTreeMap<IpAddr, Node>,
    /// Under way, by arrival; the number keeps equal times apart.
    datagrams: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    /// Nodes that are cut off.
    cut: Vec<IpAddr>,
    mapping: MappingConfig,
}

impl Network {
    fn new(seed: u8, weather: Weather, proxy_reply: bool, ttl_minutes: u32) -> Self {
        Self::with(seed, weather, proxy_reply, ttl_minutes, |_| {}, |_, _| {})
    }

    /// As [`Self::new`], with changes of the Map-Server's and each router's configuration.
    fn with(
        seed: u8,
        weather: Weather,
        proxy_reply: bool,
        ttl_minutes: u32,
        server: impl FnOnce(&mut MappingConfig),
        router: impl Fn(u64, &mut ControlConfig),
    ) -> Self {
        let now = Instant::now();
        let epoch = Epoch::new(now, Duration::from_secs(1_800_000_000));
        let site = |name: &str, eid: &str| {
            let key = SiteKey { id: 1, secret: key(), algorithms: vec![Algorithm::HmacSha256Hkdf] };
            let prefixes = vec![SitePrefix { prefix: prefix(eid), accept_more_specifics: false }];
            Site::new(name, vec![key], prefixes)
        };
        let mut mapping = MappingConfig::new("ms", vec![ip(SERVER)]);
        mapping.sites = vec![site("a", "10.1.0.0/16"), site("b", "10.2.0.0/16")];
        server(&mut mapping);
        let server = MapServer::durable(mapping.clone(), [seed; 32], epoch);
        let server = Node::Server(Box::new(server));
        let mut network = Self {
            now,
            epoch,
            kept: BTreeMap::new(),
            weather,
            rng: StdRng::from_seed([seed; 32]),
            nodes: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            sent: 0,
            cut: Vec::new(),
            mapping,
        };
        network.nodes.insert(ip(SERVER), server);
        for (number, (role, eid)) in [
            (Role::Xtr, Some("10.1.0.0/16")),
            (Role::Xtr, Some("10.2.0.0/16")),
            (Role::Proxy, None),
        ]
        .into_iter()
        .enumerate()
        {
            let address = ip(&format!("192.0.2.{}", number + 1));
            let mut config = router_config(role, address, eid, proxy_reply, ttl_minutes);
            router(number as u64 + 1, &mut config);
            let seed = [seed.wrapping_add(number as u8 + 1); 32];
            let control = Box::new(ControlPlane::new(config, now, seed, 1_000_000));
            network.nodes.insert(address, Node::Router(control, BTreeMap::new()));
        }
        network.collect();
        network
    }

    /// Lets time pass: datagrams arrive and timers fire in their order.
    fn run(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let arrival = self.datagrams.keys().next().map(|(at, _)| *at);
            let timer = self.nodes.values().filter_map(Node::poll_timeout).min();
            let Some(next) = [arrival, timer].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (from, to, payload)) = self.datagrams.pop_first().expect("one is due");
                if let Some(node) = self.nodes.get_mut(&to.ip()) {
                    node.handle_input(self.now, to, from, &payload);
                }
            }
            for node in self.nodes.values_mut() {
                if node.poll_timeout().is_some_and(|due| due <= self.now) {
                    node.handle_timeout(self.now);
                }
            }
            self.collect();
        }
        self.now = end;
    }

    /// Puts what the nodes want sent under way.
    fn collect(&mut self) {
        let mut sent = Vec::new();
        for node in self.nodes.values_mut() {
            while let Some(transmit) = node.poll_transmit() {
                sent.push(transmit);
            }
            if let Node::Server(server) = node {
                while let Some(batch) = server.take_batch() {
                    for (key, value) in batch.changes.iter() {
                        match value {
                            Some(value) => drop(self.kept.insert(key.to_vec(), value.to_vec())),
                            None => drop(self.kept.remove(key)),
                        }
                    }
                    sent.extend(batch.transmits);
                }
            }
            node.drain();
        }
        for Transmit { source, source_port, destination, payload } in sent {
            let port = match source_port {
                SourcePort::Control => CONTROL_PORT,
                SourcePort::Data => 4341,
                SourcePort::Ephemeral => EPHEMERAL_PORT,
            };
            assert!(payload.len() <= 548, "CW-06");
            let copies = if self.chance(self.weather.duplicate_percent) { 2 } else { 1 };
            for _ in 0..copies {
                let lost = self.chance(self.weather.loss_percent)
                    || self.cut.contains(&source)
                    || self.cut.contains(&destination.ip());
                if lost {
                    continue;
                }
                let (least, most) = self.weather.delay_micros;
                let delay = Duration::from_micros(self.rng.random_range(least..most));
                self.sent += 1;
                let from = SocketAddr::new(source, port);
                self.datagrams
                    .insert((self.now + delay, self.sent), (from, destination, payload.clone()));
            }
        }
    }

    /// The Map-Server dies without a word.
    fn kill_server(&mut self) {
        self.nodes.remove(&ip(SERVER));
    }

    /// The Map-Server starts anew and knows nothing.
    fn start_server(&mut self) {
        let server = Node::Server(Box::new(MapServer::new(self.mapping.clone(), [99; 32])));
        self.nodes.insert(ip(SERVER), server);
    }

    /// The Map-Server starts anew with what it kept.
    fn restore_server(&mut self) {
        let mut server = MapServer::durable(self.mapping.clone(), [98; 32], self.epoch);
        for (key, value) in &self.kept {
            server.restore(self.now, key, value).expect("what was kept");
        }
        self.nodes.insert(ip(SERVER), Node::Server(Box::new(server)));
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn router(&mut self, address: &str) -> (&mut ControlPlane, &BTreeMap<EidPrefix, Verdict>) {
        match self.nodes.get_mut(&ip(address)) {
            Some(Node::Router(control, fib)) => (control, fib),
            _ => panic!("{address} is no router"),
        }
    }

    /// A packet for `destination` missed at a router.
    fn miss(&mut self, router: &str, destination: &str) {
        let now = self.now;
        let destination = Eid::new(InstanceId::DEFAULT, ip(destination));
        let punt = Punt::Miss { destination, source: ip("10.1.0.5") };
        self.router(router).0.handle_punt(now, &punt);
        self.collect();
    }

    fn destinations(&mut self, router: &str, eid: &str) -> Vec<IpAddr> {
        match self.router(router).1.get(&prefix(eid)) {
            Some(Verdict::Encapsulate(set)) => {
                set.adjacencies.iter().map(|a| a.destination).collect()
            }
            _ => Vec::new(),
        }
    }

    fn registration(&mut self, router: &str) -> RegistrationState {
        let now = self.now;
        self.router(router).0.registrations_view(now)[0].state
    }

    fn locator(&mut self, router: &str) -> LocatorState {
        let now = self.now;
        self.router(router).0.locators_view(now)[0].state
    }
}

impl Node {
    fn handle_input(&mut self, now: Instant, to: SocketAddr, from: SocketAddr, payload: &[u8]) {
        match self {
            Self::Server(server) => server.handle_input(now, to, from, payload),
            Self::Router(control, _) => control.handle_input(now, to, from, payload),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Server(server) => server.handle_timeout(now),
            Self::Router(control, _) => control.handle_timeout(now),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Server(server) => server.poll_timeout(),
            Self::Router(control, _) => control.poll_timeout(),
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        match self {
            Self::Server(server) => server.poll_transmit(),
            Self::Router(control, _) => control.poll_transmit(),
        }
    }

    fn drain(&mut self) {
        match self {
            Self::Server(server) => while server.poll_event().is_some() {},
            Self::Router(control, fib) => {
                while let Some(update) = control.poll_fib_update() {
                    match update {
                        FibUpdate::Insert(prefix, verdict) => drop(fib.insert(prefix, verdict)),
                        FibUpdate::Remove(prefix) => drop(fib.remove(&prefix)),
                    }
                }
                while control.poll_event().is_some() {}
            }
        }
    }
}

fn router_config(
    role: Role,
    address: IpAddr,
    eid: Option<&str>,
    proxy_reply: bool,
    ttl_minutes: u32,
) -> ControlConfig {
    let endpoint = Endpoint::Address(ip(SERVER));
    let server = xtr::config::MapServer {
        endpoint: endpoint.clone(),
        key_id: 1,
        secret: key(),
        algorithm: Algorithm::HmacSha256Hkdf,
        covers: mapping::auth::Covered::Message,
        profile: Profile::Rfc9301,
    };
    ControlConfig {
        rlocs: vec![OwnRloc::new("core4", address, 1, 100)],
        map_resolvers: vec![endpoint],
        map_servers: eid.map(|_| server).into_iter().collect(),
        eids: eid
            .map(|eid| LocalEid { prefix: prefix(eid), locator_set: Vec::new() })
            .into_iter()
            .collect(),
        probe: Some(ProbeConfig::default()),
        record_ttl_minutes: ttl_minutes,
        proxy_reply,
        ..ControlConfig::of(role)
    }
}

#[test]
fn sites_register_resolve_and_probe() {
    for proxy_reply in [false, true] {
        let mut network = Network::new(1, FAIR, proxy_reply, 1440);
        network.run(Duration::from_secs(1));
        assert_eq!(network.registration("192.0.2.1"), RegistrationState::Registered);
        assert_eq!(network.registration("192.0.2.2"), RegistrationState::Registered);
        network.miss("192.0.2.1", "10.2.0.9");
        network.miss("192.0.2.3", "10.1.0.9");
        network.run(Duration::from_millis(5));
        assert_eq!(network.destinations("192.0.2.1", "10.2.0.0/16"), [ip("192.0.2.2")]);
        assert_eq!(network.destinations("192.0.2.3", "10.1.0.0/16"), [ip("192.0.2.1")], "PITR");
        network.run(Duration::from_secs(1));
        assert_eq!(network.locator("192.0.2.1"), LocatorState::Up);
        assert_eq!(network.locator("192.0.2.3"), LocatorState::Up);
        let now = network.now;
        let rtt = network.router("192.0.2.1").0.locators_view(now)[0].rtt_micros;
        assert_eq!(rtt, Some(1000));
    }
}

#[test]
fn destinations_of_no_site_are_negative() {
    let mut network = Network::new(2, FAIR, false, 1440);
    network.run(Duration::from_secs(1));
    network.miss("192.0.2.1", "203.0.113.7");
    network.run(Duration::from_millis(5));
    let covering = |(prefix, verdict): (&EidPrefix, &Verdict)| {
        matches!(verdict, Verdict::Native)
            && prefix.contains(Eid::new(InstanceId::DEFAULT, ip("203.0.113.7")))
    };
    assert!(network.router("192.0.2.1").1.iter().any(covering));
}

#[test]
fn entries_in_use_are_refreshed_and_others_expire() {
    let mut network = Network::new(3, FAIR, false, 5);
    network.run(Duration::from_secs(1));
    for router in ["192.0.2.1", "192.0.2.3"] {
        network.miss(router, "10.2.0.9");
    }
    network.run(Duration::from_secs(1));
    let mut clock = 1;
    for _ in 0..30 {
        // Only the first router has traffic.
        if let Some(Verdict::Encapsulate(set)) =
            network.router("192.0.2.1").1.get(&prefix("10.2.0.0/16"))
        {
            clock += 60;
            set.last_used.store(clock, Ordering::Relaxed);
        }
        network.run(Duration::from_secs(60));
        assert_eq!(network.destinations("192.0.2.1", "10.2.0.0/16"), [ip("192.0.2.2")]);
    }
    assert!(network.destinations("192.0.2.3", "10.2.0.0/16").is_empty());
}

#[test]
fn a_site_that_goes_is_noticed_and_comes_back() {
    let mut network = Network::new(4, FAIR, false, 1440);
    network.run(Duration::from_secs(1));
    network.miss("192.0.2.1", "10.2.0.9");
    network.run(Duration::from_secs(1));
    network.cut.push(ip("192.0.2.2"));
    network.run(Duration::from_secs(75));
    assert!(network.destinations("192.0.2.1", "10.2.0.0/16").is_empty(), "PB-17");
    assert_eq!(network.locator("192.0.2.1"), LocatorState::Down);
    network.cut.clear();
    network.run(Duration::from_secs(61));
    assert_eq!(network.destinations("192.0.2.1", "10.2.0.0/16"), [ip("192.0.2.2")], "PB-11");
    // Its registration timed out meanwhile and was renewed: RG-02.
    network.run(Duration::from_secs(61));
    assert_eq!(network.registration("192.0.2.2"), RegistrationState::Registered);
}

#[test]
fn established_traffic_survives_the_mapping_system_and_registrations_come_back() {
    for (proxy_reply, outage) in [(false, 7), (true, 7), (false, 1800), (true, 1800)] {
        // With a TTL of a minute the entries are refreshed many times while nobody but the ETRs can answer.
        let mut network = Network::new(6, FAIR, proxy_reply, 1);
        network.run(Duration::from_secs(400));
        network.miss("192.0.2.1", "10.2.0.9");
        network.miss("192.0.2.2", "10.1.0.9");
        network.run(Duration::from_secs(1));
        network.kill_server();
        let established = |network: &mut Network, clock: u32| {
            for (router, eid, rloc) in [
                ("192.0.2.1", "10.2.0.0/16", "192.0.2.2"),
                ("192.0.2.2", "10.1.0.0/16", "192.0.2.1"),
            ] {
                let verdict = network.router(router).1.get(&prefix(eid));
                let Some(Verdict::Encapsulate(set)) = verdict else {
                    panic!("{router} has {verdict:?} in second {clock}");
                };
                assert_eq!(set.adjacencies[0].destination, ip(rloc));
                set.last_used.store(clock, Ordering::Relaxed);
            }
        };
        for clock in 1..=outage {
            established(&mut network, clock);
            network.run(Duration::from_secs(1));
        }
        network.start_server();
        for clock in 1..=61 {
            established(&mut network, outage + clock);
            network.run(Duration::from_secs(1));
        }
        for router in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(network.registration(router), RegistrationState::Registered, "{router}");
        }
        network.miss("192.0.2.3", "10.1.0.9");
        network.run(Duration::from_secs(1));
        assert_eq!(network.destinations("192.0.2.3", "10.1.0.0/16"), [ip("192.0.2.1")]);
    }
}

#[test]
fn an_orderly_end_deregisters() {
    let mut network = Network::new(5, FAIR, false, 1440);
    network.run(Duration::from_secs(1));
    let now = network.now;
    network.router("192.0.2.2").0.shutdown(now);
    network.collect();
    network.run(Duration::from_millis(10));
    assert!(network.router("192.0.2.2").0.is_deregistered());
    network.miss("192.0.2.1", "10.2.0.9");
    network.run(Duration::from_secs(1));
    assert!(network.destinations("192.0.2.1", "10.2.0.0/16").is_empty());
}

#[test]
fn everything_converges_over_a_foul_network() {
    for seed in 10..40 {
        let mut network = Network::new(seed, FOUL, seed % 2 == 0, 1440);
        network.run(Duration::from_secs(60));
        for (router, destination, eid, rloc) in [
            ("192.0.2.1", "10.2.0.9", "10.2.0.0/16", "192.0.2.2"),
            ("192.0.2.2", "10.1.0.9", "10.1.0.0/16", "192.0.2.1"),
            ("192.0.2.3", "10.1.0.9", "10.1.0.0/16", "192.0.2.1"),
        ] {
            // Traffic misses until it is resolved, as it would; probes may declare the locator down for a while.
            let mut resolved = false;
            for _ in 0..90 {
                let now = network.now;
                let known = network.router(router).0.map_cache_view(now);
                if known.iter().all(|entry| entry.prefix != prefix(eid).prefix()) {
                    network.miss(router, destination);
                }
                network.run(Duration::from_secs(1));
                resolved |= network.destinations(router, eid) == [ip(rloc)];
            }
            assert!(resolved, "seed {seed}: {router} never resolved {eid}");
        }
        for router in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            let discards = network.router(router).0.discards().clone();
            // Duplicates are the only thing a foul network makes of good messages.
            let expected = [Discard::NonceUnknown, Discard::ReplyRateLimited];
            for (reason, count) in discards.iter() {
                assert!(count == 0 || expected.contains(&reason), "seed {seed}: {reason} {count}");
            }
        }
        // Fair weather again: all is well soon.
        network.weather = FAIR;
        network.run(Duration::from_secs(130));
        for router in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(network.registration(router), RegistrationState::Registered, "seed {seed}");
            assert_eq!(network.locator(router), LocatorState::Up, "seed {seed}");
        }
    }
}
