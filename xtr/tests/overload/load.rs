//! Floods of small packets, and meters of what they do.
use crate::namespace::Namespace;
use crate::node::{Node, udp_packet};
use ipnet::{IpNet, Ipv6Net};
use mapping::eid::{EidPrefix, InstanceId};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use nix::unistd::Pid;
use std::fs;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use xtr::counters::TrafficCounters;
use xtr::fib::{Adjacency, FibUpdate, LocatorSet, Verdict};
use xtr::packet::lisp;

/// Datagrams of one send from a peer.
const TRAIN: u64 = 32;
/// A subnet that every test knows.
pub(crate) const ONE_SUBNET: u16 = 1;
/// Subnets from here on are known to nobody.
pub(crate) const UNKNOWN: u16 = 0x8000;

/// A remote EID; its subnet is one mapping.
pub(crate) fn eid(subnet: u16, number: u32) -> Ipv6Addr {
    let [high, low] = [number >> 16, number].map(|half| half as u16);
    Ipv6Addr::new(0x2001, 0xdb8, 0xb, subnet, 0, 0, high, low)
}

/// The update that maps a subnet to the peer, and what will have gone there.
pub(crate) fn mapping(node: &Node, subnet: u16) -> (FibUpdate, Arc<TrafficCounters>) {
    let traffic = Arc::<TrafficCounters>::default();
    let adjacency = Adjacency {
        source: node.addresses.own_rloc,
        destination: node.addresses.peer_rloc,
        weight: 1,
        mtu: 1500,
        traffic: Arc::clone(&traffic),
        ports: Default::default(),
        used: Arc::default(),
    };
    let set = LocatorSet::new([adjacency], 0);
    let prefix = IpNet::V6(Ipv6Net::new(eid(subnet, 0), 64).expect("a prefix"));
    let prefix = EidPrefix::new(InstanceId::DEFAULT, prefix);
    (FibUpdate::Insert(prefix, Verdict::Encapsulate(Arc::new(set))), traffic)
}

/// Maps a subnet.
pub(crate) fn learn(node: &mut Node, subnet: u16) -> Arc<TrafficCounters> {
    let (update, traffic) = mapping(node, subnet);
    node.fib.apply([update]);
    node.engine().wake();
    traffic
}

pub(crate) fn packets(traffic: &TrafficCounters) -> u64 {
    traffic.packets.load(Ordering::Relaxed)
}

/// Where packets go: one EID of a subnet after the other.
#[derive(Clone, Copy)]
pub(crate) struct Targets {
    pub(crate) subnet: u16,
    pub(crate) count: u32,
}

/// Sends something; says how many packets that was.
pub(crate) trait Sender: Send {
    fn send(&mut self, targets: Targets, number: u64) -> u64;
}

/// A host of the site, through the TUN.
pub(crate) struct Host {
    socket: UdpSocket,
}

impl Host {
    pub(crate) fn new(node: &Node) -> Self {
        Self { socket: node.socket(node.addresses.local_eid, 0) }
    }
}

impl Host {
    /// As [`Sender::send`], but 0 when there is no way.
    pub(crate) fn try_send(&mut self, targets: Targets, number: u64) -> u64 {
        let to = eid(targets.subnet, (number % u64::from(targets.count)) as u32);
        u64::from(self.socket.send_to(&[7; 16], SocketAddr::new(to.into(), 7000)).is_ok())
    }
}

impl Sender for Host {
    fn send(&mut self, targets: Targets, number: u64) -> u64 {
        let to = eid(targets.subnet, (number % u64::from(targets.count)) as u32);
        self.socket.send_to(&[7; 16], SocketAddr::new(to.into(), 7000)).expect("sent");
        1
    }
}

/// A peer that sends LISP packets in trains, much faster than anybody can forward them.
pub(crate) struct Peer {
    socket: UdpSocket,
    own: SockaddrIn,
    datagram: Vec<u8>,
    train: Vec<u8>,
}

impl Peer {
    /// `number` makes it another peer: its RLOC and its flow.
    pub(crate) fn new(node: &Node, number: u8) -> Self {
        let rloc = Ipv4Addr::new(198, 51, 100, 100 + number);
        node.namespace.add_addresses("lo", vec![(rloc.into(), 32)]);
        let IpAddr::V4(own) = node.addresses.own_rloc else { panic!("an IPv4 RLOC") };
        let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
        let from = SocketAddr::new(node.addresses.local_eid, 5000 + u16::from(number));
        let to = SocketAddr::new(eid(0, 0).into(), 7000);
        datagram.extend(udp_packet(from, to, 60, 0, &[7; 16]));
        Self {
            socket: node.socket(rloc.into(), 50_000),
            own: SocketAddrV4::new(own, lisp::DATA_PORT).into(),
            train: Vec::with_capacity(datagram.len() * TRAIN as usize),
            datagram,
        }
    }
}

/// Where the inner destination address is.
const DESTINATION: std::ops::Range<usize> = 8 + 24..8 + 40;

impl Sender for Peer {
    fn send(&mut self, targets: Targets, number: u64) -> u64 {
        self.train.clear();
        for index in 0..TRAIN {
            let to = eid(targets.subnet, ((number + index) % u64::from(targets.count)) as u32);
            self.datagram[DESTINATION].copy_from_slice(&to.octets());
            self.train.extend_from_slice(&self.datagram);
        }
        let size = self.datagram.len() as u16;
        let iov = [IoSlice::new(&self.train)];
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let fd = self.socket.as_raw_fd();
        sendmsg(fd, &iov, &control, MsgFlags::empty(), Some(&self.own)).expect("sent");
        TRAIN
    }
}

/// Hits and misses from one thread, each at its own pace, so that neither waits for the other's turn on the core; returns how many hits.
pub(crate) fn flood_both(
    senders: (&mut impl Sender, &mut impl Sender),
    targets: (Targets, Targets),
    rates: (f64, f64),
    duration: Duration,
) -> u64 {
    let start = Instant::now();
    let (mut hits, mut misses) = (0, 0);
    loop {
        let elapsed = start.elapsed();
        if elapsed >= duration {
            return hits;
        }
        let due = |rate: f64| (rate * elapsed.as_secs_f64()) as u64;
        let (hits_due, misses_due) = (due(rates.0), due(rates.1));
        if hits >= hits_due && misses >= misses_due {
            std::thread::sleep(Duration::from_micros(100));
        }
        for _ in 0..32 {
            if hits < hits_due {
                hits += senders.0.send(targets.0, hits);
            }
            if misses < misses_due {
                misses += senders.1.send(targets.1, misses);
            }
        }
    }
}

/// The core that workers have to themselves while something is measured, and the one that everything is sent from; `None` if there is one.
pub(crate) fn cores() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    Some((cores.next()?, cores.next()?))
}

/// Keeps the calling thread on one core.
pub(crate) fn pin(core: usize) {
    let mut only = CpuSet::new();
    only.set(core).expect("a core");
    sched_setaffinity(Pid::from_raw(0), &only).expect("pinned");
}

/// Has a thread run before everything else on its core, as where nothing else is to run there.
pub(crate) fn prefer(thread: Pid) {
    let thread = thread.to_string();
    let preferred = Command::new("chrt").args(["-f", "-p", "1", &thread]).status();
    if !preferred.is_ok_and(|status| status.success()) {
        println!("thread {thread} shares its core: chrt did not work");
    }
}

/// The worker's threads.
pub(crate) fn workers() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let is_worker = |task: &fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.starts_with("isthmus-w")
    };
    let workers = tasks.filter(is_worker);
    workers.filter_map(|task| task.file_name().to_str()?.parse().ok().map(Pid::from_raw)).collect()
}

/// Sends at `rate` packets a second (as fast as it can without) for `duration`; returns how many.
pub(crate) fn flood(
    sender: &mut impl Sender,
    targets: Targets,
    rate: Option<f64>,
    duration: Duration,
) -> u64 {
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= duration {
            return sent;
        }
        let due = rate.map_or(u64::MAX, |rate| (rate * elapsed.as_secs_f64()) as u64);
        if sent >= due {
            std::thread::sleep(Duration::from_micros(300));
        }
        for _ in 0..32 {
            if sent < due {
                sent += sender.send(targets, sent);
            }
        }
    }
}

/// How long the worker was ready to run and got no core.
pub(crate) fn worker_waited() -> Duration {
    let waited = workers().into_iter().filter_map(|thread| {
        let read = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
        read.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(waited.sum())
}

/// How long this machine's cores stood still because another one had them.
pub(crate) fn stolen() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string("/proc/stat").expect("/proc");
    let ticks = text.split_ascii_whitespace().nth(8).and_then(|number| number.parse::<u32>().ok());
    TICK * ticks.expect("a number")
}

/// Resident memory of this process, octets.
pub(crate) fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib = line.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

/// Packets that the kernel dropped because nobody read the device in time.
pub(crate) fn device_drops(namespace: &Namespace, name: &'static str) -> u64 {
    namespace.run(move || {
        let text = fs::read_to_string("/proc/thread-self/net/dev").expect("/proc");
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let numbers = line.expect("the device").trim_start_matches(':').split_ascii_whitespace();
        numbers.filter_map(|number| number.parse::<u64>().ok()).nth(11).expect("a number")
    })
}

/// How alike the shares are: 1 = all equal (Jain).
pub(crate) fn fairness(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let squares: f64 = shares.iter().map(|&share| (share as f64).powi(2)).sum();
    sum * sum / (squares * shares.len() as f64)
}
