//! Intake by ring: the native side is a real interface with a host behind it.
//!
//! ```text
//! host --native0-- engine -- own RLOC on lo <--UDP/4341--> peer RLOC on lo, played by the test
//! ```
use crate::namespace::Namespace;
use crate::node::{
    Addresses, Arrived, Node, Open, PATIENCE, POISON, config, host_len, mapping_of, non_zero,
    receive, wide_prefix,
};
use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xtr::config::{DataConfig, Intake, RingIntake};
use xtr::counters::CounterSnapshot;
use xtr::drops::DropReason;
use xtr::engine::Engine;
use xtr::fib::FibWriter;
use xtr::packet::{Inner, checksum, lisp};
use xtr::policy::Onward;
use xtr::punt;

const NATIVE: &str = "native0";
const WORKERS: usize = 2;

/// Both ends of the native link: the engine's and the host's.
fn link(v4: bool) -> [(IpAddr, u8); 2] {
    let ip = |text: &str| text.parse().expect("an address");
    if v4 {
        [(ip("198.18.0.1"), 24), (ip("198.18.0.2"), 24)]
    } else {
        [(ip("2001:db8:5::1"), 64), (ip("2001:db8:5::2"), 64)]
    }
}

fn ring(addresses: Addresses) -> DataConfig {
    let (network, len) = wide_prefix(addresses.remote_eid);
    let ring = RingIntake {
        interfaces: vec![NATIVE.to_owned()],
        take: vec![IpNet::new(network, len).expect("a prefix")],
        leave: Vec::new(),
    };
    DataConfig { intake: Intake::Ring(ring), ..config(addresses, WORKERS) }
}

/// An engine with a host on its native side.
struct Border {
    node: Node,
    host: Namespace,
}

impl Border {
    fn new(addresses: Addresses) -> Option<Self> {
        let (namespace, host) = (Namespace::new()?, Namespace::new()?);
        let rlocs = [addresses.own_rloc, addresses.peer_rloc];
        namespace.add_addresses("lo", rlocs.map(|rloc| (rloc, host_len(rloc))).to_vec());
        namespace.join(&host, NATIVE);
        namespace.forward();
        let [own, other] = link(addresses.remote_eid.is_ipv4());
        namespace.add_addresses(NATIVE, vec![own]);
        host.add_addresses(NATIVE, vec![other]);
        host.add_gateway(wide_prefix(addresses.remote_eid), own.0);
        let mut node = Node::start(namespace, addresses, ring(addresses), Onward::Deliver);
        node.learn(1500);
        node.take_native(&[own.0]);
        Some(Self { node, host })
    }

    /// A socket of the host on the native side.
    fn socket(&self) -> UdpSocket {
        let [_, (address, _)] = link(self.node.addresses.remote_eid.is_ipv4());
        let socket = self.host.run(move || UdpSocket::bind((address, 0))).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.node.addresses.remote_eid, 7000)
    }
}

impl Node {
    /// Lets the rings take packets.
    pub(crate) fn take_native(&mut self, local: &[IpAddr]) {
        let mut engine = self.engine.take().expect("running");
        let local = local.to_vec();
        // Interfaces are those of the namespace.
        let engine = self.namespace.run(move || engine.take_native(&local).map(|()| engine));
        self.engine = Some(engine.expect("the rings open"));
    }
}

/// Packets from hosts: the kernel of a router has something to say to other routers on the TUN, which goes nowhere.
fn from_hosts(counters: &CounterSnapshot) -> u64 {
    counters.native_in.packets - counters.dropped(DropReason::InnerDestinationMartian)
}

/// The UDP payload of what came encapsulated, after its checks.
fn unwrap(arrived: &Arrived, hops: u8) -> &[u8] {
    let packet = &arrived.payload[8..];
    let inner = Inner::parse(packet).expect("a packet");
    assert_eq!((inner.ttl, arrived.ttl), (hops, hops), "one hop is taken");
    if inner.source.is_ipv4() {
        assert_eq!(checksum::internet(&packet[..inner.header_len]), [0, 0]);
    }
    let udp = &packet[inner.transport_offset..inner.total_len];
    let sum = checksum::pseudo_header(inner.source, inner.destination, 17, udp.len());
    assert!(sum.add_octets(udp).is_valid(), "a partial checksum is completed");
    &udp[8..]
}

#[test]
fn en_01_en_05_packets_of_an_interface_are_taken_once() {
    for addresses in Addresses::all() {
        let Some(border) = Border::new(addresses) else { return };
        let (peer, host) = (border.node.peer_socket(), border.socket());
        let mut sent = 0;
        for round in 0..40u8 {
            for len in [1, 18, 64, 150, 200, 700, 1200, 1390] {
                host.send_to(&vec![round; len], border.remote()).expect("sent");
            }
            for len in [1, 18, 64, 150, 200, 700, 1200, 1390] {
                assert_eq!(unwrap(&receive(&peer), 63), vec![round; len], "{addresses:?}");
                sent += 1;
            }
        }
        let counters = border.node.settled(|counters| counters.core_out.packets == sent);
        assert_eq!((counters.ring_frames, from_hosts(&counters)), (sent, sent));
    }
}

#[test]
fn the_rings_of_a_failed_worker_go_with_it_and_the_other_takes_its_flows() {
    let Some(border) = Border::new(Addresses::new(true, true)) else { return };
    let peer = border.node.peer_socket();
    let hosts: Vec<UdpSocket> = (0..24).map(|_| border.socket()).collect();
    hosts[0].send_to(b"x", SocketAddr::new(POISON, 9)).expect("sent");
    let failed = || border.node.engine().worker_views().iter().any(|view| view.failure.is_some());
    let deadline = Instant::now() + PATIENCE;
    while !failed() {
        assert!(Instant::now() < deadline, "nobody fails");
        std::thread::sleep(Duration::from_millis(5));
    }
    for (flow, host) in (0u8..).zip(&hosts) {
        host.send_to(&[flow; 30], border.remote()).expect("sent");
        assert_eq!(unwrap(&receive(&peer), 63), [flow; 30], "flow {flow}");
    }
}

#[test]
fn en_28_super_packets_of_an_interface_become_packets() {
    for addresses in Addresses::all() {
        let Some(border) = Border::new(addresses) else { return };
        let (peer, host) = (border.node.peer_socket(), border.socket());
        setsockopt(&host, sockopt::UdpGsoSegment, &1000).expect("option");
        for round in 0..100u8 {
            // Between them small ones: they stay in order.
            host.send_to(&vec![round; 40_300], border.remote()).expect("sent");
            host.send_to(&[round, 1], border.remote()).expect("sent");
            for _ in 0..40 {
                assert_eq!(unwrap(&receive(&peer), 63), vec![round; 1000], "{addresses:?}");
            }
            assert_eq!(unwrap(&receive(&peer), 63), vec![round; 300]);
            assert_eq!(unwrap(&receive(&peer), 63), [round, 1]);
        }
        let counters = border.node.settled(|counters| counters.core_out.packets == 4200);
        assert_eq!((counters.ring_frames, from_hosts(&counters)), (200, 4200));
    }
}

#[test]
fn packets_larger_than_a_frame_are_taken_whole() {
    let addresses = Addresses::new(false, true);
    let Some(mut border) = Border::new(addresses) else { return };
    border.node.namespace.set_mtu(NATIVE, 9000);
    border.host.set_mtu(NATIVE, 9000);
    border.node.forget();
    border.node.learn(9100);
    let (peer, host) = (border.node.peer_socket(), border.socket());
    for round in 0..100u8 {
        for len in [1900, 1945, 1946, 1947, 1948, 1949, 1950, 2000, 8900, 1] {
            host.send_to(&vec![round; len], border.remote()).expect("sent");
            assert_eq!(unwrap(&receive(&peer), 63), vec![round; len]);
        }
    }
    let counters = border.node.settled(|counters| counters.core_out.packets == 1000);
    assert_eq!((counters.ring_frames, from_hosts(&counters)), (1000, 1000));
}

#[test]
fn fragments_of_an_interface_stay_fragments() {
    for addresses in [Addresses::new(true, true), Addresses::new(false, true)] {
        let Some(mut border) = Border::new(addresses) else { return };
        border.node.forget();
        border.node.learn(1600);
        let (peer, host) = (border.node.peer_socket(), border.socket());
        host.send_to(&[7; 4000], border.remote()).expect("sent");
        let mut octets = 0;
        for _ in 0..3 {
            let arrived = receive(&peer);
            let inner = Inner::parse(&arrived.payload[8..]).expect("a packet");
            assert_ne!(inner.fragment, xtr::packet::Fragment::Whole);
            octets += inner.total_len - inner.transport_offset;
        }
        assert_eq!(octets, 4008);
        border.node.settled(|counters| counters.ring_frames == 3);
    }
}

#[test]
fn en_05_the_kernel_answers_when_the_last_hop_is_used_up() {
    for addresses in [Addresses::new(true, true), Addresses::new(false, true)] {
        let Some(border) = Border::new(addresses) else { return };
        let host = border.socket();
        if addresses.remote_eid.is_ipv4() {
            setsockopt(&host, sockopt::Ipv4Ttl, &1).expect("option");
            setsockopt(&host, sockopt::Ipv4RecvErr, &true).expect("option");
        } else {
            setsockopt(&host, sockopt::Ipv6Ttl, &1).expect("option");
            setsockopt(&host, sockopt::Ipv6RecvErr, &true).expect("option");
        }
        host.send_to(&[1], border.remote()).expect("sent");
        let error = host.recv(&mut [0; 10]).expect_err("an ICMP error");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "Time Exceeded");
        let counters = border.node.settled(|_| true);
        assert_eq!(from_hosts(&counters), 0, "{:?}", non_zero(&counters));
    }
}

#[test]
fn what_is_not_for_the_ring_stays_with_the_kernel() {
    for addresses in [Addresses::new(true, true), Addresses::new(false, true)] {
        let Some(mut border) = Border::new(addresses) else { return };
        let v4 = addresses.remote_eid.is_ipv4();
        // Behind another interface, outside the aggregates.
        let Some(far) = Namespace::new() else { return };
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let [near_end, far_end] = match v4 {
            true => [(ip("198.18.1.1"), 24), (ip("198.18.1.2"), 24)],
            false => [(ip("2001:db8:6::1"), 64), (ip("2001:db8:6::2"), 64)],
        };
        border.node.namespace.join(&far, "far0");
        border.node.namespace.add_addresses("far0", vec![near_end]);
        far.add_addresses("far0", vec![far_end]);
        let [own, _] = link(v4);
        border.host.add_gateway((far_end.0, host_len(far_end.0)), own.0);
        // An address of this host inside them.
        let (network, _) = wide_prefix(addresses.remote_eid);
        let inside = match network {
            IpAddr::V4(network) => IpAddr::from((network.to_bits() | 0x77).to_be_bytes()),
            IpAddr::V6(network) => IpAddr::from((network.to_bits() | 0x77).to_be_bytes()),
        };
        border.node.namespace.add_addresses("lo", vec![(inside, host_len(inside))]);
        border.node.take_native(&[own.0, inside]);
        let listener = |namespace: &Namespace, address: IpAddr| {
            let socket = namespace.run(move || UdpSocket::bind((address, 7000))).expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        };
        let listeners = [listener(&far, far_end.0), listener(&border.node.namespace, inside)];
        let host = border.socket();
        for (socket, address) in listeners.iter().zip([far_end.0, inside]) {
            for number in 0..50u8 {
                host.send_to(&[number], SocketAddr::new(address, 7000)).expect("sent");
            }
            let mut buffer = [0; 10];
            for number in 0..50u8 {
                assert_eq!(socket.recv(&mut buffer).expect("arrives"), 1);
                assert_eq!(buffer[0], number);
            }
            socket.set_nonblocking(true).expect("a switch");
            assert_eq!(socket.recv(&mut buffer).expect_err("once").kind(), ErrorKind::WouldBlock);
        }
        let counters = border.node.settled(|_| true);
        assert_eq!(from_hosts(&counters), 0, "{:?}", non_zero(&counters));
    }
}

#[test]
fn packets_of_this_host_come_by_the_tun_as_ever() {
    let addresses = Addresses::new(false, true);
    let Some(border) = Border::new(addresses) else { return };
    let peer = border.node.peer_socket();
    let (own, host) = (border.node.socket(addresses.local_eid, 5000), border.socket());
    for number in 0..50u8 {
        own.send_to(&[number; 20], border.remote()).expect("sent");
        assert_eq!(unwrap(&receive(&peer), 64), [number; 20], "no hop was made yet");
        host.send_to(&[number; 30], border.remote()).expect("sent");
        assert_eq!(unwrap(&receive(&peer), 63), [number; 30]);
    }
    let counters = border.node.settled(|counters| from_hosts(counters) == 100);
    assert_eq!(counters.ring_frames, 50);
}

#[test]
fn a_flood_of_an_interface_is_conserved() {
    const FLOOD: u64 = 100_000;
    let addresses = Addresses::new(true, true);
    let Some(border) = Border::new(addresses) else { return };
    let host = border.socket();
    // One send per train of 100: faster than the workers.
    setsockopt(&host, sockopt::UdpGsoSegment, &20).expect("option");
    for _ in 0..FLOOD / 100 {
        host.send_to(&[9; 2000], border.remote()).expect("sent");
    }
    setsockopt(&host, sockopt::UdpGsoSegment, &0).expect("option");
    for _ in 0..FLOOD {
        host.send_to(&[9; 20], border.remote()).expect("sent");
    }
    // What the ring had no room for is known a second later.
    let counters = border.node.settled(|counters| {
        let lost = counters.dropped(DropReason::NativeRingFull);
        counters.ring_frames + lost == FLOOD + FLOOD / 100
    });
    println!("{:?}", non_zero(&counters));
    let cut_off = counters.dropped(DropReason::NativeCutOff);
    assert!(cut_off <= FLOOD / 100, "only trains are too large for a frame");
}

/// The rest of a test below, in a process that is killed.
#[test]
fn an_engine_to_be_killed() {
    if std::env::var_os(TO_BE_KILLED).is_none() {
        return;
    }
    let addresses = Addresses::new(true, true);
    let (mut fib, factory) = FibWriter::new();
    fib.apply([mapping_of(addresses, 1500)]);
    let (sender, _punts) = punt::queue(64);
    let policy = Arc::new(Open { onward: Onward::Deliver });
    let mut engine = Engine::start(&ring(addresses), policy, &factory, sender).expect("starts");
    engine.take_native(&[]).expect("the rings open");
    println!("{TO_BE_KILLED}");
    std::thread::sleep(6 * PATIENCE);
}

const TO_BE_KILLED: &str = "ISTHMUS_ENGINE_TO_BE_KILLED";

#[test]
fn a_killed_process_leaves_nothing_that_swallows_packets() {
    let addresses = Addresses::new(true, true);
    let (Some(gateway), Some(host), Some(far)) =
        (Namespace::new(), Namespace::new(), Namespace::new())
    else {
        return;
    };
    gateway.join(&host, NATIVE);
    gateway.join(&far, "far0");
    gateway.forward();
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let [own, other] = link(true);
    let aggregate = wide_prefix(addresses.remote_eid);
    gateway.add_addresses("lo", vec![(addresses.own_rloc, 32), (addresses.peer_rloc, 32)]);
    gateway.add_addresses(NATIVE, vec![own]);
    host.add_addresses(NATIVE, vec![other]);
    host.add_gateway(aggregate, own.0);
    // Whom the kernel would send the EIDs to.
    gateway.add_addresses("far0", vec![(ip("198.18.1.1"), 24)]);
    far.add_addresses("far0", vec![(ip("198.18.1.2"), 24)]);
    far.add_addresses("lo", vec![(addresses.remote_eid, 32)]);
    gateway.add_gateway(aggregate, ip("198.18.1.2"));
    let mut child = gateway.run(|| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "packet_ring::an_engine_to_be_killed", "--nocapture"]);
        command.env(TO_BE_KILLED, "1").stdout(Stdio::piped()).spawn().expect("it starts")
    });
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let ready = output.lines().map_while(Result::ok).any(|line| line.ends_with(TO_BE_KILLED));
    assert!(ready, "the engine starts");
    let bind = |namespace: &Namespace, address, port| {
        let socket = namespace.run(move || UdpSocket::bind((address, port))).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        socket
    };
    let (sender, native) = (bind(&host, other.0, 0), bind(&far, addresses.remote_eid, 7000));
    let peer = bind(&gateway, addresses.peer_rloc, lisp::DATA_PORT);
    let send = |number: u8| {
        sender.send_to(&[number; 100], (addresses.remote_eid, 7000)).expect("sent");
    };
    let mut buffer = [0; 200];
    for number in 0..20 {
        send(number);
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert_eq!(peer.recv(&mut buffer).expect("encapsulated"), 136);
    }
    assert!(native.recv(&mut buffer).is_err(), "and not forwarded as well");
    child.kill().expect("killed");
    let killed = Instant::now();
    child.wait().expect("gone");
    // The process is gone: so is what it kept from the kernel.
    for number in 0..20 {
        send(number);
        assert_eq!(native.recv(&mut buffer).expect("the kernel forwards"), 100);
        assert_eq!(buffer[0], number);
    }
    println!("forwarded by the kernel {:?} after the kill", killed.elapsed());
}

#[test]
fn the_packets_are_the_kernels_again_when_the_engine_is_gone() {
    let addresses = Addresses::new(true, true);
    let Some(mut border) = Border::new(addresses) else { return };
    let (peer, host) = (border.node.peer_socket(), border.socket());
    host.send_to(&[1; 100], border.remote()).expect("sent");
    assert_eq!(unwrap(&receive(&peer), 63), [1; 100]);
    border.node.engine.take().expect("running").stop();
    // Now the EID is an address of this host: the kernel delivers.
    let eid = addresses.remote_eid;
    border.node.namespace.add_addresses("lo", vec![(eid, host_len(eid))]);
    let socket = border.node.socket(eid, 7000);
    let deadline = Instant::now() + PATIENCE;
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    while Instant::now() < deadline {
        host.send_to(&[2; 100], border.remote()).expect("sent");
        if socket.recv(&mut [0; 200]).is_ok() {
            return;
        }
    }
    panic!("the kernel gets no packets");
}
