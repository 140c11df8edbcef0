//! No packet costs an allocation, and no lock that anybody holds stops one: neither in the forwarding path nor in a whole engine.
//!
//! The allocator of this program counts what all threads ask of it, so it does without a test harness and its threads. A packet that must wait for its mapping
//! and an ICMP error are given memory of their own: both are bounded, see `a_flood_of_misses_allocates_up_to_its_bound`.
use path::{Path, Sample, marked, packets};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use xtr::packet::lisp;

#[path = "../engine/namespace.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod namespace;
#[path = "../engine/node.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod node;
mod path;

use node::{Addresses, Node, udp_packet};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Packets of each kind through the path: a million in all.
const ROUNDS: usize = 50_000;

/// Asserts that nobody allocates while `work` runs.
#[track_caller]
fn assert_no_allocation(what: &str, work: impl FnOnce()) {
    let region = Region::new(ALLOCATOR);
    work();
    let change = region.change();
    let asked = (change.allocations, change.reallocations, change.deallocations);
    assert_eq!(asked, (0, 0, 0), "{what}: allocations, reallocations, deallocations");
}

fn main() {
    every_kind_of_packet();
    a_flood_of_misses_allocates_up_to_its_bound();
    hits_flow_while_every_shared_thing_is_in_use();
    a_running_engine_does_not_allocate();
}

fn every_kind_of_packet() {
    let kinds = [(Path::new(), packets()), (Path::trusting(), marked())];
    let total: usize = kinds.into_iter().map(|(path, samples)| all_of(path, samples)).sum();
    assert!(total >= 1_000_000);
}

fn all_of(mut path: Path, samples: Vec<Sample>) -> usize {
    let mut total = 0;
    for sample in samples {
        // What is bounded reaches its bound: ICMP errors, packets held, the scratch for fragmented segments.
        path.send(&sample, 2_000);
        let before = path.drops();
        assert_no_allocation(sample.name, || path.send(&sample, ROUNDS));
        let counters = path.counters();
        assert!(counters.is_conserved(), "{}: {counters:#?}", sample.name);
        let dropped = path.drops() - before;
        assert_eq!(dropped > 0, sample.is_dropped, "{}: {dropped} drops", sample.name);
        total += ROUNDS;
    }
    println!("{total} packets or super-packets, 0 allocations: {:?}", path.counters().native_in);
    total
}

fn a_flood_of_misses_allocates_up_to_its_bound() {
    let mut path = Path::new();
    let region = Region::new(ALLOCATOR);
    path.miss_everywhere(0..10_000);
    let change = region.change();
    let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    println!("a flood of misses keeps {kept} octets in {} allocations", change.allocations);
    assert!(kept < 4 << 20, "{kept} octets");
    assert!(change.allocations < 20_000, "{} allocations", change.allocations);
    assert_no_allocation("misses beyond the bound", || path.miss_everywhere(10_000..1_000_000));
    assert!(path.counters().is_conserved());
}

fn hits_flow_while_every_shared_thing_is_in_use() {
    let mut path = Path::new();
    // Counters are read, path MTUs lowered and looked at, punts queued to the brim, the table written: all of it all the time.
    let sample = packets().into_iter().next().expect("a hit");
    path.send(&sample, 100);
    path.miss_everywhere(0..100_000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        path.disturb(scope, &stop);
        let before = path.drops();
        path.send(&sample, 200_000);
        assert_eq!(path.drops(), before, "no hit is lost");
        stop.store(true, Ordering::Relaxed);
    });
}

fn a_running_engine_does_not_allocate() {
    for addresses in [Addresses::new(false, true), Addresses::new(true, false)] {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1500);
        let exchange = Exchange::new(&node);
        exchange.run(500);
        let before = node.engine().counters();
        assert_no_allocation("a worker", || exchange.run(1_500));
        let counters = node.settled(|_| true);
        println!(
            "{} encapsulated, {} decapsulated by an engine: 0 allocations",
            counters.encapsulated - before.encapsulated,
            counters.decapsulated - before.decapsulated
        );
    }
}

/// Packets in both directions, in bursts, with nothing allocated on the way.
struct Exchange {
    host: UdpSocket,
    sink: UdpSocket,
    peer: UdpSocket,
    to_remote: SocketAddr,
    to_own: SocketAddr,
    datagram: Vec<u8>,
}

/// Fewer than the smallest queue on the way holds.
const BURST: usize = 32;

impl Exchange {
    fn new(node: &Node) -> Self {
        let Addresses { local_eid, remote_eid, own_rloc, .. } = node.addresses;
        let mut datagram = lisp::encode(mapping::eid::InstanceId::DEFAULT).to_vec();
        let [from, to] = [(remote_eid, 7000), (local_eid, 8000)].map(SocketAddr::from);
        datagram.extend(udp_packet(from, to, 60, 0, &[7; 64]));
        Self {
            host: node.socket(local_eid, 5000),
            sink: node.socket(local_eid, 8000),
            peer: node.peer_socket(),
            to_remote: SocketAddr::new(remote_eid, 7000),
            to_own: SocketAddr::new(own_rloc, lisp::DATA_PORT),
            datagram,
        }
    }

    fn run(&self, rounds: usize) {
        let mut buffer = [0; 2048];
        for _ in 0..rounds {
            for _ in 0..BURST {
                self.host.send_to(&[7; 100], self.to_remote).expect("sent");
                self.peer.send_to(&self.datagram, self.to_own).expect("sent");
            }
            for _ in 0..BURST {
                assert_eq!(self.sink.recv(&mut buffer).expect("decapsulated"), 64);
                self.peer.recv(&mut buffer).expect("encapsulated");
            }
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
