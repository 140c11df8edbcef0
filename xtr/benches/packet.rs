//! Packet work without I/O, one core: what PERFORMANCE targets call "packet work".

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mapping::eid::{EidPrefix, InstanceId};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use xtr::counters::Traffic;
use xtr::drops::DropReason;
use xtr::fib::{Adjacency, FibReader, FibUpdate, FibWriter, LocatorSet, Verdict};
use xtr::forward::{Forwarder, HoldLimits, Outer, Output, Settings};
use xtr::packet::icmp::Rate;
use xtr::packet::outer::{self, OuterAddresses};
use xtr::packet::{
    Coalescer, Family, FlowHasher, Inner, MAX_HEADERS_LEN, Marking, Offer, OuterFields, Segments,
    VirtioNetHeader, checksum, decapsulate, flow, headers, lisp, martian, mtu,
};
use xtr::policy::{Onward, Policy};
use xtr::punt;
use zerocopy::IntoBytes;

/// Packets per measured round: more than the branch predictor learns by heart, less than the first-level cache.
const FLOWS: usize = 256;
const PORTS: u16 = 64;

/// A 64-octet IPv6 UDP packet of flow `i`, its checksum right.
fn small_packet(i: usize) -> Vec<u8> {
    let mut packet = vec![0; 64];
    packet[0] = 0x60;
    packet[4..8].copy_from_slice(&[0, 24, headers::protocol::UDP, 64]);
    packet[8..24].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet[24..40].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    packet[40..42].copy_from_slice(&(1024 + i as u16).to_be_bytes());
    packet[42..46].copy_from_slice(&[0x01, 0xbb, 0, 24]);
    complete_checksum(&mut packet, 6);
    packet
}

/// Fills in the pseudo-header's sum, then the checksum.
fn complete_checksum(packet: &mut [u8], csum_offset: u16) {
    let inner = Inner::parse(packet).unwrap();
    let len = packet.len() - inner.transport_offset;
    let field = inner.transport_offset + usize::from(csum_offset);
    let sum = checksum::pseudo_header(inner.source, inner.destination, inner.protocol, len);
    packet[field..field + 2].copy_from_slice(&sum.partial());
    checksum::complete(packet, inner.transport_offset as u16, csum_offset).unwrap();
}

fn super_packet(payload_len: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; 40 + 32 + payload_len];
    packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    packet[4..6].copy_from_slice(&((32 + payload_len) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&[headers::protocol::TCP, 64]);
    packet[8..24].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet[24..40].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    packet[52..54].copy_from_slice(&[0x80, headers::TcpHeader::ACK]);
    packet[58..72].copy_from_slice(&[0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet
}

fn tso(segment_size: u16) -> VirtioNetHeader {
    VirtioNetHeader {
        flags: VirtioNetHeader::NEEDS_CSUM,
        gso_type: VirtioNetHeader::GSO_TCPV6,
        gso_size: segment_size.into(),
        ..VirtioNetHeader::default()
    }
}

fn encapsulation(c: &mut Criterion) {
    let packets: Vec<Vec<u8>> = (0..FLOWS).map(small_packet).collect();
    let hasher = FlowHasher::new([7; 32]);
    let (instance, limit) = (InstanceId::new(42).unwrap(), mtu::inner_limit(1500, Family::V4));
    let mut group = c.benchmark_group("encapsulation");
    group.throughput(Throughput::Elements(FLOWS as u64));
    group.bench_function("64-octet v6 in v4, fields only", |b| {
        b.iter(|| {
            for packet in &packets {
                let inner = Inner::parse(black_box(packet)).unwrap();
                martian::inner_destination(inner.destination, &[]).unwrap();
                let port = flow::source_port_index(hasher.hash(&inner), PORTS);
                let fit = mtu::check(&inner, inner.total_len, limit);
                let fields = Marking::default().outer_fields(&inner);
                black_box((port, fit, fields, lisp::encode(instance)));
            }
        });
    });
    group.bench_function("64-octet v6 in v4, outer packet built", |b| {
        let mut out = Vec::with_capacity(2048);
        let addresses = OuterAddresses::V4 {
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: Ipv4Addr::new(192, 0, 2, 129),
        };
        b.iter(|| {
            for packet in &packets {
                let inner = Inner::parse(black_box(packet)).unwrap();
                martian::inner_destination(inner.destination, &[]).unwrap();
                let port = 49152 + flow::source_port_index(hasher.hash(&inner), PORTS);
                let fields = Marking::default().outer_fields(&inner);
                outer::build(addresses, fields, port, instance, packet, &mut out);
                black_box(&out);
            }
        });
    });
    group.finish();
}

fn decapsulation(c: &mut Criterion) {
    let mut datagrams: Vec<Vec<u8>> = (0..FLOWS)
        .map(|i| [&lisp::encode(InstanceId::new(42).unwrap())[..], &small_packet(i)].concat())
        .collect();
    let outer = OuterFields { ttl: 60, tos: 0 };
    let mut group = c.benchmark_group("decapsulation");
    group.throughput(Throughput::Elements(FLOWS as u64));
    group.bench_function("64-octet v6 in v4, checks and rules", |b| {
        b.iter(|| {
            for datagram in &mut datagrams {
                // What a fresh packet has: a higher TTL inside.
                datagram[lisp::HEADER_LEN + 7] = 64;
                let instance = lisp::parse(black_box(datagram)).unwrap();
                let packet = &mut datagram[lisp::HEADER_LEN..];
                let mut inner = Inner::parse(packet).unwrap();
                martian::inner_source(inner.source, &[]).unwrap();
                martian::inner_destination(inner.destination, &[]).unwrap();
                decapsulate::apply(packet, &mut inner, outer, Marking::default()).unwrap();
                black_box((instance, inner));
            }
        });
    });
    group.finish();
    let trains: Vec<Vec<u8>> = (0..FLOWS).map(|i| small_packet(i / 16)).collect();
    let mut group = c.benchmark_group("coalescing");
    group.throughput(Throughput::Elements(FLOWS as u64));
    group.bench_function("64-octet UDP in trains of 16", |b| {
        let mut coalescer = Coalescer::new();
        b.iter(|| {
            for packet in &trains {
                let inner = Inner::parse(black_box(packet)).unwrap();
                if coalescer.offer(packet, &inner) == Offer::Refused {
                    black_box(coalescer.take());
                    black_box(coalescer.offer(packet, &inner));
                }
            }
            black_box(coalescer.take());
        });
    });
    group.finish();
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [24, 64, 1440, 65535] {
        let bytes = vec![0xa5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} octets"), |b| {
            b.iter(|| checksum::internet(black_box(&bytes)));
        });
    }
    group.finish();
}

fn super_packets(c: &mut Criterion) {
    const SEGMENT: usize = 1380;
    let packet = super_packet(46 * SEGMENT);
    let inner = Inner::parse(&packet).unwrap();
    let mut segments = Vec::new();
    let mut scratch = [0; MAX_HEADERS_LEN];
    let mut cut = Segments::new(&packet, &inner, &tso(SEGMENT as u16)).unwrap();
    while let Some(piece) = cut.next_into(&packet, &mut scratch) {
        segments.push([&scratch[..piece.headers_len], &packet[piece.payload]].concat());
    }
    let mut group = c.benchmark_group("super-packet of 46 segments");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("cut", |b| {
        b.iter(|| {
            let inner = Inner::parse(black_box(&packet)).unwrap();
            let mut cut = Segments::new(&packet, &inner, &tso(SEGMENT as u16)).unwrap();
            while let Some(piece) = cut.next_into(&packet, &mut scratch) {
                black_box((&scratch, piece));
            }
        });
    });
    group.bench_function("merge", |b| {
        let mut coalescer = Coalescer::new();
        b.iter(|| {
            for segment in &segments {
                let inner = Inner::parse(black_box(segment)).unwrap();
                black_box(coalescer.offer(segment, &inner));
            }
            assert_eq!(coalescer.take().map(|merged| merged.packets), Some(segments.len()));
        });
    });
    group.finish();
}

/// Lets everything through.
struct Open;

impl Policy for Open {
    fn admit_native(&self, _: IpAddr, _: IpAddr) -> Result<InstanceId, DropReason> {
        Ok(InstanceId::DEFAULT)
    }

    fn admit_decapsulated(
        &self,
        _: IpAddr,
        _: InstanceId,
        _: IpAddr,
        _: IpAddr,
    ) -> Result<Onward, DropReason> {
        Ok(Onward::Deliver)
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Ok(())
    }
}

/// Looks at what it gets, and forgets it.
struct Nowhere;

impl Output for Nowhere {
    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        black_box((outer, headers, payload));
        Ok(())
    }

    fn forwarded(&mut self, frame: &[u8], traffic: Traffic) -> Result<(), DropReason> {
        black_box((frame, traffic));
        Ok(())
    }

    fn delivered(&mut self, hash: u64, inner: &Inner, packet: &[u8]) -> Result<(), DropReason> {
        black_box((hash, inner, packet));
        Ok(())
    }
}

const RLOC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 129);

fn settings() -> Settings {
    Settings {
        rlocs: vec![RLOC.into()],
        source_ports: PORTS,
        marking: Marking::default(),
        hold: HoldLimits::default(),
        seed: [7; 32],
        icmp_rate: Rate::default(),
        control_in_data: false,
        started: Instant::now(),
    }
}

/// The whole path of a packet but for system calls.
fn forwarding(c: &mut Criterion) {
    let (mut fib, readers) = FibWriter::new();
    let adjacency = Adjacency {
        source: RLOC.into(),
        destination: PEER.into(),
        weight: 1,
        mtu: 1500,
        traffic: Arc::default(),
        ports: Default::default(),
        used: Arc::default(),
    };
    let set = LocatorSet::new([adjacency], 0);
    let prefix = EidPrefix::new(InstanceId::DEFAULT, "2001:db8:2::/48".parse().unwrap());
    fib.apply([FibUpdate::Insert(prefix, Verdict::Encapsulate(Arc::new(set)))]);
    let forwarder = Forwarder::new(
        settings(),
        Arc::new(Open),
        Arc::default(),
        Arc::default(),
        punt::queue(16).0,
    );
    let mut group = c.benchmark_group("forwarding");
    group.throughput(Throughput::Elements(FLOWS as u64));
    let mut reader = readers.reader();
    forward(&mut group, "from native", forwarder, &mut reader);
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn forward(
    group: &mut Group<'_>,
    name: &str,
    mut forwarder: Forwarder<Open>,
    reader: &mut FibReader,
) {
    let now = Instant::now();
    let header = VirtioNetHeader::default();
    let mut frames: Vec<Vec<u8>> =
        (0..FLOWS).map(|i| [header.as_bytes(), &small_packet(i)].concat()).collect();
    group.bench_function(format!("64-octet v6 in v4, {name}"), |b| {
        b.iter(|| {
            forwarder.handle_timeout(now);
            let mut view = reader.enter();
            for frame in &mut frames {
                // The LISP header goes over it.
                frame[..VirtioNetHeader::LEN].fill(0);
                forwarder.from_native(now, &mut view, frame, &mut Nowhere);
            }
        });
    });
    let mut datagrams: Vec<Vec<u8>> = (0..FLOWS)
        .map(|i| [&lisp::encode(InstanceId::DEFAULT)[..], &small_packet(i)].concat())
        .collect();
    let fields = OuterFields { ttl: 64, tos: 0 };
    group.bench_function(format!("64-octet v6 in v4, {name}, decapsulated"), |b| {
        b.iter(|| {
            forwarder.handle_timeout(now);
            let mut view = reader.enter();
            for datagram in &mut datagrams {
                let out = &mut Nowhere;
                forwarder.from_core(now, &mut view, PEER.into(), fields, datagram, out);
            }
        });
    });
}

criterion_group!(benches, encapsulation, decapsulation, checksums, super_packets, forwarding);
criterion_main!(benches);
