//! The forwarding table with a million IPv6 EID-prefixes: what PERFORMANCE targets call "map-cache 1 M IPv6 prefixes".

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv6Net};
use mapping::eid::{EidPrefix, InstanceId};
use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use xtr::fib::{FibUpdate, FibWriter, Verdict};

const PREFIXES: u64 = 1_000_000;
/// Destinations looked up per view, as a worker's batch does.
const BATCH: u64 = 64;

/// The address of a host in the /48 numbered `i`, scattered over 2001::/16.
fn host(i: u64) -> Ipv6Addr {
    let scattered = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    Ipv6Addr::from_bits(0x2001_u128 << 112 | u128::from(scattered) << 80 | 1)
}

fn insert(i: u64) -> FibUpdate {
    let net = Ipv6Net::new(host(i), 48).unwrap();
    FibUpdate::Insert(EidPrefix::new(InstanceId::DEFAULT, IpNet::V6(net)), Verdict::Native)
}

fn benchmark(criterion: &mut Criterion) {
    let (mut writer, factory) = FibWriter::new();
    writer.apply((0..PREFIXES).map(insert));
    let mut reader = factory.reader();
    let mut group = criterion.benchmark_group("fib/1M");
    group.throughput(Throughput::Elements(BATCH));
    let mut next = 0;
    group.bench_function("lookup uniform", |bencher| {
        bencher.iter(|| {
            let mut view = reader.enter();
            for _ in 0..BATCH {
                next = (next + 7919) % PREFIXES;
                black_box(view.lookup(InstanceId::DEFAULT, IpAddr::V6(host(next))));
            }
        });
    });
    group.bench_function("lookup recent", |bencher| {
        bencher.iter(|| {
            let mut view = reader.enter();
            for i in 0..BATCH {
                black_box(view.lookup(InstanceId::DEFAULT, IpAddr::V6(host(i))));
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("update", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % PREFIXES;
            writer.apply([insert(next)]);
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
