//! The forwarding table: what PERFORMANCE targets call "map-cache 1 M IPv6 prefixes", and smaller ones, and IPv4.
//!
//! Before the timings it prints, per table, the memory of one EID-prefix (right for the first table only: later ones reuse its pages),
//! the slowest of many updates, and what a lookup of a recent destination takes while updates come in.
//! `cargo bench -p xtr --bench fib -- v6/1M` measures one table.
#![allow(clippy::print_stderr, reason = "a benchmark reports there")]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mapping::eid::{EidPrefix, InstanceId};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xtr::fib::{Adjacency, FibReader, FibUpdate, FibWriter, LocatorSet, Verdict};

/// Destinations looked up per view, as a worker's batch does.
const BATCH: u64 = 64;
/// Locator-sets that the prefixes share.
const SETS: u64 = 256;

/// A family: how to make the host in prefix `i`, and the prefix's length.
struct Family {
    name: &'static str,
    host: fn(u64) -> IpAddr,
    mask_len: u8,
}

const V6: Family = Family { name: "v6", host: v6_host, mask_len: 48 };
const V4: Family = Family { name: "v4", host: v4_host, mask_len: 24 };

/// In the /48 numbered `i`, at random in 2001::/16.
fn v6_host(i: u64) -> IpAddr {
    let scattered = u128::from(scramble(i) >> 32);
    Ipv6Addr::from_bits(0x2001 << 112 | scattered << 80 | 1).into()
}

/// In the /24 numbered `i`, anywhere; no two are the same.
fn v4_host(i: u64) -> IpAddr {
    let scattered = (i as u32).wrapping_mul(0x009e_3779) ^ (i as u32) >> 9;
    Ipv4Addr::from_bits(scattered << 8 | 1).into()
}

/// The finalizer of SplitMix64.
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn locator_set(i: u64) -> Arc<LocatorSet> {
    let adjacency = Adjacency {
        source: Ipv4Addr::new(198, 51, 100, 1).into(),
        destination: Ipv4Addr::from_bits(0xcb00_7100 | i as u32 & 0xff).into(),
        weight: 1,
        mtu: 1500,
        traffic: Arc::default(),
        ports: Default::default(),
        used: Arc::default(),
    };
    Arc::new(LocatorSet::new([adjacency], 0))
}

struct Table {
    family: &'static Family,
    prefixes: u64,
    sets: Vec<Arc<LocatorSet>>,
    writer: FibWriter,
    reader: FibReader,
}

impl Table {
    fn new(family: &'static Family, prefixes: u64) -> Self {
        let (writer, factory) = FibWriter::new();
        let reader = factory.reader();
        let sets = (0..SETS).map(locator_set).collect();
        let mut table = Self { family, prefixes, sets, writer, reader };
        let before = resident();
        let started = Instant::now();
        for i in 0..prefixes {
            table.apply(i);
        }
        let (took, octets) = (started.elapsed(), resident().saturating_sub(before));
        eprintln!(
            "{}/{}: filled in {took:.2?}, {} octets per prefix",
            family.name,
            human(prefixes),
            octets / prefixes
        );
        table
    }

    fn prefix(&self, i: u64) -> EidPrefix {
        let net = match (self.family.host)(i) {
            IpAddr::V4(host) => IpNet::V4(Ipv4Net::new(host, self.family.mask_len).unwrap()),
            IpAddr::V6(host) => IpNet::V6(Ipv6Net::new(host, self.family.mask_len).unwrap()),
        };
        EidPrefix::new(InstanceId::DEFAULT, net)
    }

    fn apply(&mut self, i: u64) {
        let set = Arc::clone(&self.sets[(i % SETS) as usize]);
        self.writer.apply([FibUpdate::Insert(self.prefix(i), Verdict::Encapsulate(set))]);
    }

    fn remove(&mut self, i: u64) {
        self.writer.apply([FibUpdate::Remove(self.prefix(i))]);
    }

    /// A prefix comes, another goes, one changes: the slowest of each.
    fn slowest_updates(&mut self) {
        let mut times: Vec<Duration> = Vec::new();
        for round in 0..50_000 {
            let i = scramble(round) % self.prefixes;
            for update in [Self::apply, Self::remove, Self::apply] {
                let started = Instant::now();
                update(self, i);
                times.push(started.elapsed());
            }
        }
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        eprintln!(
            "{}/{}: update median {:.2?}, 99.9 % {:.2?}, slowest {:.2?}",
            self.family.name,
            human(self.prefixes),
            at(0.5),
            at(0.999),
            at(1.0)
        );
    }
}

/// What `updates` a second cost a worker that looks up a million recent destinations a second, `flows` of them different.
fn hit_share(table: &mut Table, flows: u64, updates: u32) {
    const SECONDS: u32 = 2;
    const RATE: u64 = 1_000_000;
    let destinations: Vec<IpAddr> = (0..flows.min(table.prefixes)).map(table.family.host).collect();
    let between = RATE / u64::from(updates);
    let (mut next, mut spent) = (0, Duration::ZERO);
    for round in 0..u64::from(SECONDS * updates) {
        let i = scramble(round) % table.prefixes;
        match round % 3 {
            0 => table.remove(i),
            _ => table.apply(i),
        }
        let started = Instant::now();
        for _ in 0..between / BATCH {
            let mut view = table.reader.enter();
            for _ in 0..BATCH {
                next = (next + 1) % destinations.len();
                black_box(view.lookup(InstanceId::DEFAULT, destinations[next]));
            }
        }
        spent += started.elapsed();
    }
    let lookups = u64::from(SECONDS * updates) * (between / BATCH) * BATCH;
    eprintln!(
        "{}/{}: {flows} destinations again and again, {updates} updates/s: {:.1} ns per lookup",
        table.family.name,
        human(table.prefixes),
        spent.as_nanos() as f64 / lookups as f64
    );
}

/// Octets of memory that this process has in use.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    4096 * pages
}

fn human(number: u64) -> String {
    match number {
        1_000_000.. => format!("{}M", number / 1_000_000),
        1_000.. => format!("{}k", number / 1_000),
        _ => number.to_string(),
    }
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, table: &mut Table) {
    let (prefixes, host) = (table.prefixes, table.family.host);
    let mut next = 0;
    let mut uniform = move || {
        next = (next + 7919) % prefixes;
        host(next)
    };
    let name = |what: &str| format!("{}/{}/{what}", table.family.name, human(prefixes));
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function(name("uniform one by one"), |bencher| {
        bencher.iter(|| {
            let mut view = table.reader.enter();
            for _ in 0..BATCH {
                black_box(view.lookup(InstanceId::DEFAULT, uniform()));
            }
        });
    });
    let mut batch = Vec::new();
    group.bench_function(name("uniform batch"), |bencher| {
        bencher.iter(|| {
            let mut view = table.reader.enter();
            batch.clear();
            batch.extend((0..BATCH).map(|_| (InstanceId::DEFAULT, uniform())));
            view.warm(batch.iter().copied());
            for &(instance_id, destination) in &batch {
                black_box(view.lookup(instance_id, destination));
            }
        });
    });
    let recent: Vec<IpAddr> = (0..BATCH).map(|i| host(i % prefixes)).collect();
    group.bench_function(name("recent"), |bencher| {
        bencher.iter(|| {
            let mut view = table.reader.enter();
            for &destination in &recent {
                black_box(view.lookup(InstanceId::DEFAULT, destination));
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    let mut next = 0;
    group.bench_function(name("update"), |bencher| {
        bencher.iter(|| {
            next = (next + 7919) % prefixes;
            table.apply(next);
        });
    });
    group.throughput(Throughput::Elements(2));
    group.bench_function(name("remove and insert"), |bencher| {
        bencher.iter(|| {
            next = (next + 7919) % prefixes;
            table.remove(next);
            table.apply(next);
        });
    });
}

fn benchmark(criterion: &mut Criterion) {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut group = criterion.benchmark_group("fib");
    group.sample_size(20).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_millis(1000));
    for (family, prefixes) in
        [&V6, &V4].into_iter().flat_map(|f| [1_000_000, 10_000, 1].map(|n| (f, n)))
    {
        let name = format!("{}/{}", family.name, human(prefixes));
        if wanted
            .iter()
            .all(|wanted| name.contains(wanted) || wanted.starts_with(&format!("{name}/")))
        {
            let mut table = Table::new(family, prefixes);
            table.slowest_updates();
            for updates in [1, 100, 10_000] {
                hit_share(&mut table, 500, updates);
            }
            measure(&mut group, &mut table);
        }
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
