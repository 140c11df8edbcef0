//! The forwarding path with an output that only counts, and packets of every kind.
use crate::ip;
use crate::node::udp_packet;
use ipnet::IpNet;
use mapping::eid::{EidPrefix, EidTable, InstanceId, MapVersion};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};
use xtr::config::TrustedCore;
use xtr::counters::{CounterSnapshot, Traffic, WorkerCounters};
use xtr::drops::DropReason;
use xtr::fib::{Adjacency, FibReader, FibUpdate, FibWriter, LocatorSet, Verdict};
use xtr::forward::{Forwarder, HoldLimits, Outer, Output, PathMtus, Settings};
use xtr::marks::{
    EntryMarks, HeaderMarks, Nonces, OwnMark, SharedMarks, StatusBits, Tag, TrustedMarks,
};
use xtr::packet::icmp::Rate;
use xtr::packet::{Inner, Marking, OuterFields, lisp};
use xtr::policy::{Onward, Policy};
use xtr::punt::{self, PuntReceiver};

const OWN: &str = "198.51.100.1";
const PEER: &str = "198.51.100.2";
/// What a worker forwards between two looks at the table.
const BATCH: usize = 64;

/// One kind of packet.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) is_dropped: bool,
    /// A frame of the TUN, or a datagram.
    octets: Vec<u8>,
    from_core: bool,
    fields: OuterFields,
}

fn native(name: &'static str, is_dropped: bool, virtio: [u8; 10], packet: Vec<u8>) -> Sample {
    let octets = [&virtio[..], &packet].concat();
    Sample { name, is_dropped, octets, from_core: false, fields: OuterFields { ttl: 0, tos: 0 } }
}

fn core(name: &'static str, is_dropped: bool, tos: u8, packet: Vec<u8>) -> Sample {
    let octets = [&lisp::encode(InstanceId::DEFAULT)[..], &packet].concat();
    Sample { name, is_dropped, octets, from_core: true, fields: OuterFields { ttl: 64, tos } }
}

fn packet(source: &str, destination: &str, len: usize) -> Vec<u8> {
    let [from, to] = [(ip(source), 5000), (ip(destination), 7000)].map(SocketAddr::from);
    udp_packet(from, to, 60, 0, &vec![7; len])
}

/// IPv4 without DF; its header checksum is the kernel's business.
fn may_fragment(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] = 0;
    packet
}

/// A UDP super-packet's virtio-net header.
fn super_packet(size: u16, transport: u16) -> [u8; 10] {
    let mut virtio = [1, 5, 0, 0, 0, 0, 0, 0, 6, 0];
    virtio[4..6].copy_from_slice(&size.to_ne_bytes());
    virtio[6..8].copy_from_slice(&transport.to_ne_bytes());
    virtio
}

/// Hits, drops and everything between.
pub(crate) fn packets() -> Vec<Sample> {
    let (v4, v6) = ("192.0.2.1", "2001:db8:a::1");
    let plain = [0; 10];
    let mut encrypted = core("an encrypted packet", true, 0, packet("203.0.113.9", v4, 64));
    encrypted.octets[0] = 3;
    let mut nested = lisp::encode(InstanceId::DEFAULT).to_vec();
    nested.extend(packet("203.0.113.9", v4, 64));
    let [from, to] = [(ip(PEER), 50_000), (ip(OWN), lisp::DATA_PORT)].map(SocketAddr::from);
    vec![
        native("an IPv4 hit", false, plain, packet(v4, "203.0.113.9", 64)),
        native("an IPv6 hit", false, plain, packet(v6, "2001:db8:b::9", 64)),
        native("a large hit", false, plain, packet(v6, "2001:db8:b::9", 1300)),
        native(
            "a partial checksum",
            false,
            [1, 0, 0, 0, 0, 0, 20, 0, 6, 0],
            packet(v4, "203.0.113.9", 64),
        ),
        native(
            "an IPv4 super-packet",
            false,
            super_packet(1200, 20),
            packet(v4, "203.0.113.9", 9_000),
        ),
        native(
            "an IPv6 super-packet",
            false,
            super_packet(1200, 40),
            packet(v6, "2001:db8:b::9", 9_000),
        ),
        native(
            "a packet in fragments",
            false,
            plain,
            may_fragment(packet(v4, "203.0.113.9", 3_000)),
        ),
        native(
            "segments in fragments",
            false,
            super_packet(2_000, 20),
            may_fragment(packet(v4, "203.0.113.9", 9_000)),
        ),
        native("a locator of two", false, plain, packet(v4, "203.0.114.9", 64)),
        native("forwarded natively", false, plain, packet(v4, "203.0.115.9", 64)),
        native("too big", true, plain, packet(v6, "2001:db8:b::9", 1_600)),
        native("no usable locator", true, plain, packet(v4, "203.0.116.9", 64)),
        native("a miss beyond the bound", true, plain, packet(v4, "203.0.117.9", 64)),
        native("a martian", true, plain, packet(v4, "127.0.0.1", 64)),
        native("refused by the policy", true, plain, packet("192.0.2.66", "203.0.113.9", 64)),
        native("malformed", true, plain, vec![0x45; 30]),
        core("decapsulated IPv4", false, 0, packet("203.0.113.9", v4, 64)),
        core("decapsulated IPv6", false, 0, packet("2001:db8:b::9", v6, 64)),
        core("sent on", false, 0, packet("203.0.114.9", "203.0.113.9", 64)),
        core("nested", false, 0, udp_packet(from, to, 60, 0, &nested)),
        core("marked over what cannot be marked", true, 3, packet("203.0.113.9", v4, 64)),
        encrypted,
    ]
}

/// What headers say in a trusted core.
pub(crate) fn marked() -> Vec<Sample> {
    let versions = |source: u16, destination: u16| HeaderMarks {
        tag: Tag::Versions {
            source: MapVersion::from_bits(source),
            destination: MapVersion::from_bits(destination),
        },
        status_bits: Some(StatusBits::of_word(1)),
    };
    let nonce = |request| HeaderMarks { tag: Tag::Nonce { nonce: 7, request }, status_bits: None };
    let core = |name, is_dropped, marks: &HeaderMarks| {
        let mut sample = core(name, is_dropped, 0, packet("203.0.113.9", "192.0.2.1", 64));
        let header = lisp::encode_marked(InstanceId::DEFAULT, marks);
        sample.octets[..header.len()].copy_from_slice(&header);
        sample
    };
    vec![
        core("current versions", false, &versions(9, 5)),
        core("an old version", false, &versions(9, 4)),
        core("a newer source version", false, &versions(10, 5)),
        core("an impossible version", true, &versions(9, 6)),
        core("an old source version", true, &versions(8, 5)),
        core("an echo", false, &nonce(false)),
        native("to be marked", false, [0; 10], packet("192.0.2.1", "203.0.113.9", 64)),
        core("a request for an echo", false, &nonce(true)),
        native("an echo to be sent", false, [0; 10], packet("192.0.2.1", "203.0.113.9", 64)),
    ]
}

/// Lets everything through but one source; what goes to the remote EIDs is sent on.
#[derive(Debug)]
struct Rules;

impl Policy for Rules {
    fn admit_native(&self, source: IpAddr, _: IpAddr) -> Result<InstanceId, DropReason> {
        match source == IpAddr::from([192, 0, 2, 66]) {
            true => Err(DropReason::SourceNotEid),
            false => Ok(InstanceId::DEFAULT),
        }
    }

    fn admit_decapsulated(
        &self,
        _: IpAddr,
        _: InstanceId,
        _: IpAddr,
        destination: IpAddr,
    ) -> Result<Onward, DropReason> {
        match destination == IpAddr::from([203, 0, 113, 9]) {
            true => Ok(Onward::Reencapsulate),
            false => Ok(Onward::Deliver),
        }
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Ok(())
    }
}

/// Counts what comes out.
#[derive(Default)]
struct Count {
    packets: u64,
}

impl Output for Count {
    fn encapsulated(&mut self, _: &Outer, _: &[u8], _: &[u8]) -> Result<(), DropReason> {
        self.packets += 1;
        Ok(())
    }

    fn forwarded(&mut self, _: &[u8], traffic: Traffic) -> Result<(), DropReason> {
        self.packets += traffic.packets;
        Ok(())
    }

    fn delivered(&mut self, _: u64, _: &Inner, _: &[u8]) -> Result<(), DropReason> {
        self.packets += 1;
        Ok(())
    }
}

pub(crate) struct Path {
    forwarder: Forwarder<Rules>,
    counters: Arc<WorkerCounters>,
    path_mtus: Arc<PathMtus>,
    fib: Option<FibWriter>,
    reader: FibReader,
    _punts: PuntReceiver,
    now: Instant,
    out: Count,
    /// Where a packet lies while it is forwarded.
    buffer: Vec<u8>,
    /// To an EID of which nothing is known.
    miss: [u8; 10 + 48 + 64],
}

impl Path {
    pub(crate) fn new() -> Self {
        let (mut fib, factory) = FibWriter::new();
        fib.apply([
            insert("203.0.113.0/24", encapsulate(&[PEER])),
            insert("2001:db8:b::/48", encapsulate(&[PEER])),
            insert("203.0.114.0/24", encapsulate(&[PEER, "198.51.100.3"])),
            insert("203.0.115.0/24", Verdict::Native),
            insert("203.0.116.0/24", Verdict::Drop(DropReason::NoUsableLocator)),
        ]);
        // Nobody ever reads the punts: the queue is soon full.
        let (sender, punts) = punt::queue(punt::DEFAULT_CAPACITY);
        let counters = Arc::<WorkerCounters>::default();
        let path_mtus = Arc::<PathMtus>::default();
        let now = Instant::now();
        let settings = Settings {
            rlocs: vec![ip(OWN)],
            source_ports: 64,
            marking: Marking::default(),
            hold: HoldLimits::default(),
            seed: [7; 32],
            icmp_rate: Rate::default(),
            started: now,
            control_in_data: false,
        };
        let mut miss = [0; 10 + 48 + 64];
        miss[10..].copy_from_slice(&packet("2001:db8:a::1", "2001:db8:ffff::1", 64));
        let (shared, mtus) = (Arc::clone(&counters), Arc::clone(&path_mtus));
        Self {
            forwarder: Forwarder::new(settings, Arc::new(Rules), shared, mtus, sender),
            counters,
            path_mtus,
            fib: Some(fib),
            reader: factory.reader(),
            _punts: punts,
            now,
            out: Count::default(),
            buffer: vec![0; 65_536],
            miss,
        }
    }

    /// In a trusted core that has everything on: versions, bits, an own request for an echo.
    pub(crate) fn trusting() -> Self {
        let mut path = Self::new();
        let core = TrustedCore {
            rlocs: vec!["198.51.100.0/24".parse().expect("a prefix")],
            map_versioning: true,
            status_bits: true,
            echo_nonce: true,
            ..TrustedCore::default()
        };
        let nonces = Arc::<Nonces>::default();
        let version = MapVersion::from_bits;
        let marks = EntryMarks {
            version: version(9),
            status_bits: Some(StatusBits::all_up(1)),
            trusted: [(ip(PEER), Arc::clone(&nonces))].into(),
        };
        let Verdict::Encapsulate(set) = encapsulate(&[PEER]) else { return path };
        let Some(set) = Arc::into_inner(set) else { return path };
        let set = Verdict::Encapsulate(Arc::new(set.with_marks(Some(marks))));
        if let Some(fib) = &mut path.fib {
            fib.apply([insert("203.0.113.0/24", set)]);
        }
        let own = OwnMark {
            version: version(5),
            refuses_older: false,
            status_bits: Some(StatusBits::all_up(1)),
        };
        let mut mappings = EidTable::default();
        let prefix = "192.0.2.0/24".parse().expect("a prefix");
        mappings.insert(EidPrefix::new(InstanceId::DEFAULT, prefix), own);
        let shared = Arc::<SharedMarks>::default();
        let peers = Arc::new(HashMap::from([(ip(PEER), nonces)]));
        shared.store(TrustedMarks { own: mappings, peers, ..TrustedMarks::default() });
        path.forwarder = path.forwarder.trust_core(&core, shared);
        path
    }

    /// Sends the same packet `times` times, in batches as a worker does.
    pub(crate) fn send(&mut self, sample: &Sample, times: usize) {
        let mut left = times;
        while left > 0 {
            self.forwarder.handle_timeout(self.now);
            let mut view = self.reader.enter();
            for _ in 0..left.min(BATCH) {
                let octets = &mut self.buffer[..sample.octets.len()];
                octets.copy_from_slice(&sample.octets);
                if sample.from_core {
                    let (from, fields) = (IpAddr::from([198, 51, 100, 2]), sample.fields);
                    self.forwarder.from_core(
                        self.now,
                        &mut view,
                        from,
                        fields,
                        octets,
                        &mut self.out,
                    );
                } else {
                    self.forwarder.from_native(self.now, &mut view, octets, &mut self.out);
                }
            }
            left -= left.min(BATCH);
        }
    }

    /// One packet to every EID of `numbers`; none is known.
    pub(crate) fn miss_everywhere(&mut self, numbers: Range<u32>) {
        for number in numbers {
            let octets = &mut self.miss.clone();
            octets[10 + 36..10 + 40].copy_from_slice(&number.to_be_bytes());
            let mut view = self.reader.enter();
            self.forwarder.from_native(self.now, &mut view, octets, &mut self.out);
        }
    }

    pub(crate) fn counters(&self) -> CounterSnapshot {
        let mut counters = self.counters.snapshot();
        counters.core_out.packets = self.out.packets;
        counters
    }

    pub(crate) fn drops(&self) -> u64 {
        self.counters.snapshot().dropped_total()
    }

    /// Whatever others do with what they share with a worker, until `stop`.
    pub(crate) fn disturb<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        stop: &'scope AtomicBool,
    ) {
        let (counters, path_mtus) = (Arc::clone(&self.counters), Arc::clone(&self.path_mtus));
        let (mut fib, now) = (self.fib.take().expect("not disturbed before"), self.now);
        scope.spawn(move || {
            let mut round = 0u32;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                assert!(counters.snapshot().by_name().len() > 10);
                let other = IpAddr::from([10, 0, (round >> 8) as u8, round as u8]);
                path_mtus.lower(now + Duration::from_millis(round.into()), other, 1400);
                fib.apply([insert("198.18.0.0/15", encapsulate(&["198.51.100.9"]))]);
            }
        });
    }
}

fn insert(prefix: &str, verdict: Verdict) -> FibUpdate {
    let prefix: IpNet = prefix.parse().expect("a prefix");
    FibUpdate::Insert(EidPrefix::new(InstanceId::DEFAULT, prefix), verdict)
}

fn encapsulate(destinations: &[&str]) -> Verdict {
    let adjacencies: Vec<Adjacency> = destinations
        .iter()
        .map(|destination| Adjacency {
            source: ip(OWN),
            destination: ip(destination),
            weight: 50,
            mtu: 1500,
            traffic: Arc::default(),
            ports: Default::default(),
            used: Arc::default(),
        })
        .collect();
    Verdict::Encapsulate(Arc::new(LocatorSet::new(adjacencies, 0)))
}
