//! What one message costs a Map-Server with a million registrations, and what memory those take.
//!
//! Everything but I/O: limits, parsing, MAC, replay check, registry, the log of durable changes, the signed answer.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv6Net};
use mapping::auth::{self, Covered};
use mapping::clock::Epoch;
use mapping::config::{Algorithm, MappingConfig, Secret, Site, SiteKey, SitePrefix};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::server::{Count, MapServer};
use mapping::wire::{
    AuthenticationData, CONTROL_PORT, EidRecord, EncapsulatedControlMessage, LocatorRecord,
    MapRegister, MapRequest, RequestedEid,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const REGISTRATIONS: u32 = 1_000_000;
const SITES: u32 = 1_000;
const OWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)), CONTROL_PORT);
/// Messages made before the clock runs.
const BURST: u64 = 20_000;
/// Messages between two batches for the store.
const BATCH: usize = 64;
/// Time between two messages: no source exceeds its share.
const STEP: Duration = Duration::from_micros(20);

/// A Map-Server with its clock.
struct Bench {
    server: MapServer,
    now: Instant,
    nonce: u64,
    rng: StdRng,
}

fn address(number: u32) -> Ipv6Addr {
    // The site is in the upper half, so that the prefixes of a site do not come in a row.
    let (site, prefix) = (number % SITES, number / SITES);
    Ipv6Addr::from_bits(0x2400 << 112 | u128::from(site) << 96 | u128::from(prefix) << 80)
}

fn eid_prefix(address: Ipv6Addr, length: u8) -> EidPrefix {
    let net = Ipv6Net::new(address, length).expect("a length of IPv6");
    EidPrefix::new(InstanceId::DEFAULT, IpNet::V6(net))
}

/// The xTR of a site.
fn xtr(site: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0xc612_0000 + site).into(), CONTROL_PORT)
}

fn secret() -> Secret {
    Secret::new(b"a secret of thirty-two octets...".to_vec())
}

fn config() -> MappingConfig {
    let mut config = MappingConfig::new("bench", vec![OWN.ip()]);
    config.sites = (0..SITES)
        .map(|site| {
            let prefix = eid_prefix(address(site), 32);
            let prefix = SitePrefix { prefix, accept_more_specifics: true };
            let algorithms = vec![Algorithm::HmacSha256, Algorithm::HmacSha256Hkdf];
            let key = SiteKey { id: 1, secret: secret(), algorithms };
            Site::new(format!("site-{site}"), vec![key], vec![prefix])
        })
        .collect();
    config
}

fn register(number: u32, nonce: u64, algorithm: Algorithm) -> Vec<u8> {
    let locator = LocatorRecord::new(xtr(number % SITES).ip(), 1, 100);
    let record = EidRecord::new(eid_prefix(address(number), 48), 1_440, vec![locator]);
    let message = MapRegister {
        proxy_reply: true,
        security_capable: false,
        eid_notify: false,
        use_ttl: true,
        merge: false,
        want_map_notify: true,
        nonce,
        authentication: AuthenticationData::zeroed(1, algorithm.id(), auth::MAC_LEN),
        records: vec![record],
        identity: None,
    };
    let mut octets = Vec::new();
    message.encode(&mut octets);
    auth::sign_covering(&mut octets, &secret(), algorithm, Covered::Message).expect("it signs");
    octets
}

fn request(address: Ipv6Addr, nonce: u64, itr: Ipv4Addr) -> Vec<u8> {
    let eid = RequestedEid::new(eid_prefix(address, 128));
    let mut inner = Vec::new();
    MapRequest::new(nonce, vec![IpAddr::from(itr).into()], vec![eid]).encode(&mut inner);
    let source = SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5).into(), 50_000);
    let destination = SocketAddr::new(address.into(), CONTROL_PORT);
    let mut octets = Vec::new();
    EncapsulatedControlMessage::new(source, destination, inner).encode(&mut octets);
    octets
}

/// Processor time of this thread: other work on the host is no cost of a message.
fn busy() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("the kernel counts");
    let micros = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    micros(usage.user_time()) + micros(usage.system_time())
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4_096
}

impl Bench {
    fn loaded() -> Self {
        let now = Instant::now();
        let epoch = Epoch::new(now, Duration::from_secs(1_800_000_000));
        let server = MapServer::durable(config(), [1; 32], epoch);
        let mut bench = Self { server, now, nonce: 0, rng: StdRng::from_seed([2; 32]) };
        let before = resident();
        for number in 0..REGISTRATIONS {
            bench.nonce += 1;
            let octets = register(number, bench.nonce, Algorithm::HmacSha256);
            bench.input(xtr(number % SITES), &octets);
            if number % BATCH as u32 == 0 {
                bench.take();
            }
        }
        bench.take();
        let grown = resident().saturating_sub(before);
        let held = bench.server.counters_view()["registrations"];
        assert_eq!(held, u64::from(REGISTRATIONS), "every registration is accepted");
        println!("memory: {} octets of RSS per registration", grown / held.max(1));
        bench
    }

    fn input(&mut self, from: SocketAddr, octets: &[u8]) {
        self.now += STEP;
        self.server.handle_input(self.now, OWN, from, octets);
    }

    /// What the shell does after a burst.
    fn take(&mut self) -> usize {
        let mut sent = self.server.take_batch().map_or(0, |batch| black_box(batch).transmits.len());
        while let Some(transmit) = self.server.poll_transmit() {
            black_box(transmit);
            sent += 1;
        }
        while let Some(event) = self.server.poll_event() {
            black_box(event);
        }
        sent
    }

    /// The time that `count` messages take which `make` makes before; every one is answered.
    fn time(&mut self, count: u64, make: impl Fn(&mut Self) -> (SocketAddr, Vec<u8>)) -> Duration {
        let mut total = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            let burst: Vec<_> = (0..left.min(BURST)).map(|_| make(self)).collect();
            let start = busy();
            let mut answered = 0;
            for batch in burst.chunks(BATCH) {
                for (from, octets) in batch {
                    self.input(*from, octets);
                }
                answered += self.take();
            }
            total += busy().saturating_sub(start);
            // Few lookups repeat what was just answered (RP-15).
            assert!(answered >= burst.len() / 100 * 99, "{:?}", self.server.drops_view());
            left -= burst.len() as u64;
        }
        total
    }

    /// What a reload costs: it is reviewed in turns, between which messages are taken.
    fn reload(&mut self, what: &str, config: MappingConfig) {
        let mut start = busy();
        self.server.reconfigure(self.now, config);
        let first = busy().saturating_sub(start);
        let (mut turns, mut total, mut longest) = (0, Duration::ZERO, Duration::ZERO);
        while self.server.poll_timeout().is_some_and(|due| due <= self.now) {
            start = busy();
            self.server.handle_timeout(self.now);
            self.take();
            let turn = busy().saturating_sub(start);
            (turns, total, longest) = (turns + 1, total + turn, longest.max(turn));
        }
        let left = self.server.counters_view()["registrations"];
        println!(
            "reload, {what}: {first:?}, then {turns} turns of {longest:?} at most, {total:?} in all; {left} registrations left"
        );
    }

    fn refresh(&mut self, algorithm: Algorithm) -> (SocketAddr, Vec<u8>) {
        let number = self.rng.random_range(0..REGISTRATIONS);
        self.nonce += 1;
        (xtr(number % SITES), register(number, self.nonce, algorithm))
    }

    fn lookup(&mut self, address: Ipv6Addr) -> (SocketAddr, Vec<u8>) {
        let source = Ipv4Addr::from_bits(0xc613_0000 + self.rng.random_range(0..50_000_u32));
        // Nobody asks the same twice in a while (RP-15).
        let itr = Ipv4Addr::from_bits(0x3000_0000 + self.rng.random_range(0..1_u32 << 24));
        let octets = request(address, self.rng.random(), itr);
        (SocketAddr::new(source.into(), CONTROL_PORT), octets)
    }
}

fn messages(criterion: &mut Criterion) {
    let mut bench = Bench::loaded();
    let mut group = criterion.benchmark_group("server with 1 M registrations");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, algorithm) in [
        ("register and notify, HMAC-SHA-256", Algorithm::HmacSha256),
        ("register and notify, HKDF", Algorithm::HmacSha256Hkdf),
    ] {
        group.bench_function(name, |b| {
            b.iter_custom(|count| bench.time(count, |bench| bench.refresh(algorithm)));
        });
    }
    group.bench_function("proxy Map-Reply", |b| {
        b.iter_custom(|count| {
            bench.time(count, |bench| {
                let number = bench.rng.random_range(0..REGISTRATIONS);
                let host = u128::from(bench.rng.random::<u64>());
                bench.lookup(Ipv6Addr::from_bits(address(number).to_bits() | host))
            })
        });
    });
    group.bench_function("negative Map-Reply", |b| {
        b.iter_custom(|count| {
            bench.time(count, |bench| {
                let address = 0x2600 << 112 | bench.rng.random::<u128>() >> 16;
                bench.lookup(Ipv6Addr::from_bits(address))
            })
        });
    });
    group.finish();
    println!("Map-Notifies sent: {}", bench.server.get(Count::MapNotifies));
    let mut edited = config();
    edited.sites.iter_mut().for_each(|site| site.keys[0].id = 2);
    bench.reload("another key", edited.clone());
    edited.sites.truncate(SITES as usize / 2);
    bench.reload("half of the sites gone", edited);
}

criterion_group!(benches, messages);
criterion_main!(benches);
