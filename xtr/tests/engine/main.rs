//! The data plane on a real kernel: every test makes its own network namespaces and needs the privilege to do so.
//!
//! ```text
//! one namespace:   local EID on lo --route--> TUN -- engine -- own RLOC on lo <--UDP/4341--> peer RLOC on lo, played by the test
//! two namespaces:  EID -- TUN -- engine -- RLOC ---veth--- RLOC -- engine -- TUN -- EID
//! ```
use ipnet::IpNet;
use mapping::eid::{EidPrefix, InstanceId};
use namespace::Namespace;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use std::io::{IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xtr::config::DataConfig;
use xtr::counters::CounterSnapshot;
use xtr::drops::DropReason;
use xtr::engine::Engine;
use xtr::fib::{Adjacency, FibUpdate, FibWriter, LocatorSet, Verdict};
use xtr::packet::{checksum, lisp};
use xtr::policy::{Onward, Policy};
use xtr::punt::{self, Punt, PuntReceiver};

mod namespace;

const TUN: &str = "lisp0";
const PATIENCE: Duration = Duration::from_secs(10);

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
        Err(DropReason::NativeWouldLoop)
    }
}

/// Addresses of one combination of families.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    local_eid: IpAddr,
    remote_eid: IpAddr,
    own_rloc: IpAddr,
    peer_rloc: IpAddr,
}

impl Addresses {
    fn new(inner_v4: bool, outer_v4: bool) -> Self {
        let ip = |text: &str| text.parse().expect("an address");
        let (local_eid, remote_eid) = if inner_v4 {
            (ip("192.0.2.1"), ip("203.0.113.9"))
        } else {
            (ip("2001:db8:a::1"), ip("2001:db8:b::9"))
        };
        let (own_rloc, peer_rloc) = if outer_v4 {
            (ip("198.51.100.1"), ip("198.51.100.2"))
        } else {
            (ip("2001:db8:c0::1"), ip("2001:db8:c0::2"))
        };
        Self { local_eid, remote_eid, own_rloc, peer_rloc }
    }

    fn all() -> impl Iterator<Item = Self> {
        [(true, true), (true, false), (false, true), (false, false)]
            .into_iter()
            .map(|(inner, outer)| Self::new(inner, outer))
    }

    fn swapped(self) -> Self {
        Self {
            local_eid: self.remote_eid,
            remote_eid: self.local_eid,
            own_rloc: self.peer_rloc,
            peer_rloc: self.own_rloc,
        }
    }
}

fn host_len(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn wide_prefix(address: IpAddr) -> (IpAddr, u8) {
    let prefix = IpNet::new(address, if address.is_ipv4() { 24 } else { 48 }).expect("a prefix");
    (prefix.network(), prefix.prefix_len())
}

fn config(addresses: Addresses, queues: usize) -> DataConfig {
    DataConfig {
        rlocs: vec![addresses.own_rloc],
        tun_name: TUN.to_owned(),
        queues: Some(queues),
        source_ports: 16,
        zero_udp_checksum: false,
        copy_dscp: true,
        copy_ecn: true,
    }
}

/// A running engine in its namespace, with what the control plane would hold.
struct Node {
    namespace: Namespace,
    engine: Option<Engine>,
    fib: FibWriter,
    punts: PuntReceiver,
    addresses: Addresses,
}

impl Node {
    fn start(namespace: Namespace, addresses: Addresses, config: DataConfig) -> Self {
        let (fib, factory) = FibWriter::new();
        let (sender, punts) = punt::queue(64);
        let engine = namespace
            .run(move || Engine::start(&config, Arc::new(Open), &factory, sender))
            .expect("the engine starts");
        assert_eq!(engine.tun_name(), TUN);
        namespace.add_addresses("lo", vec![(addresses.local_eid, host_len(addresses.local_eid))]);
        let route = wide_prefix(addresses.remote_eid);
        namespace.add_route(route, TUN, addresses.local_eid);
        Self { namespace, engine: Some(engine), fib, punts, addresses }
    }

    /// Alone: own and peer RLOC on `lo`.
    fn alone(addresses: Addresses) -> Option<Self> {
        let namespace = Namespace::new()?;
        let rlocs = [addresses.own_rloc, addresses.peer_rloc];
        namespace.add_addresses("lo", rlocs.map(|rloc| (rloc, host_len(rloc))).to_vec());
        Some(Self::start(namespace, addresses, config(addresses, 1)))
    }

    /// Two, joined by a veth pair, each with the other's EIDs mapped.
    fn pair(addresses: Addresses, change: impl Fn(DataConfig) -> DataConfig) -> Option<[Self; 2]> {
        let (left, right) = (Namespace::new()?, Namespace::new()?);
        left.join(&right, "core0");
        let rloc_len = if addresses.own_rloc.is_ipv4() { 24 } else { 64 };
        left.add_addresses("core0", vec![(addresses.own_rloc, rloc_len)]);
        right.add_addresses("core0", vec![(addresses.peer_rloc, rloc_len)]);
        let mut pair =
            [(left, addresses), (right, addresses.swapped())].map(|(namespace, addresses)| {
                Self::start(namespace, addresses, change(config(addresses, 2)))
            });
        pair.iter_mut().for_each(|node| node.learn(1500));
        Some(pair)
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("running")
    }

    fn learn(&mut self, mtu: u16) {
        let Addresses { remote_eid, own_rloc, peer_rloc, .. } = self.addresses;
        let (network, len) = wide_prefix(remote_eid);
        let prefix =
            EidPrefix::new(InstanceId::DEFAULT, IpNet::new(network, len).expect("a prefix"));
        let adjacency = Adjacency {
            source: own_rloc,
            destination: peer_rloc,
            weight: 100,
            mtu,
            traffic: Arc::default(),
        };
        let set = LocatorSet { adjacencies: Box::new([adjacency]), last_used: 0.into() };
        self.fib.apply([FibUpdate::Insert(prefix, Verdict::Encapsulate(Arc::new(set)))]);
        self.engine().wake();
    }

    fn socket(&self, address: IpAddr, port: u16) -> UdpSocket {
        let socket = self
            .namespace
            .run(move || UdpSocket::bind(SocketAddr::new(address, port)))
            .expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    /// Plays the peer's ETR.
    fn peer_socket(&self) -> UdpSocket {
        let socket = self.socket(self.addresses.peer_rloc, lisp::DATA_PORT);
        if self.addresses.peer_rloc.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true).expect("option");
            setsockopt(&socket, sockopt::IpRecvTos, &true).expect("option");
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true).expect("option");
            setsockopt(&socket, sockopt::Ipv6RecvTClass, &true).expect("option");
        }
        socket
    }

    /// Waits until all packets are out, then checks that none got lost on the books.
    fn settled(&self, done: impl Fn(&CounterSnapshot) -> bool) -> CounterSnapshot {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.engine().counters();
            if done(&counters) && counters.is_conserved() {
                return counters;
            }
            assert!(Instant::now() < deadline, "{:#?}", non_zero(&counters));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn non_zero(counters: &CounterSnapshot) -> Vec<(String, u64)> {
    counters.by_name().into_iter().filter(|(_, value)| *value > 0).collect()
}

/// What arrived at the peer.
#[derive(Debug)]
struct Arrived {
    payload: Vec<u8>,
    source: SocketAddr,
    ttl: u8,
    tos: u8,
}

fn receive(socket: &UdpSocket) -> Arrived {
    let mut buffer = vec![0; 65_536];
    let mut control = nix::cmsg_space!([u8; 64]);
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut control),
        MsgFlags::empty(),
    )
    .expect("a packet arrives");
    let (mut ttl, mut tos) = (0, 0);
    for message in message.cmsgs().expect("complete") {
        match message {
            ControlMessageOwned::Ipv4Ttl(value) => ttl = value as u8,
            ControlMessageOwned::Ipv6HopLimit(value) => ttl = value as u8,
            ControlMessageOwned::Ipv4Tos(value) => tos = value,
            ControlMessageOwned::Ipv6TClass(value) => tos = value as u8,
            _ => {}
        }
    }
    let address = message.address.expect("a source");
    let source = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::from(std::net::SocketAddrV4::from(*v4)),
        (_, Some(v6)) => SocketAddr::from(std::net::SocketAddrV6::from(*v6)),
        _ => panic!("not an internet address"),
    };
    let len = message.bytes;
    buffer.truncate(len);
    Arrived { payload: buffer, source, ttl, tos }
}

/// An inner UDP packet with correct checksums.
fn udp_packet(
    source: SocketAddr,
    destination: SocketAddr,
    ttl: u8,
    tos: u8,
    data: &[u8],
) -> Vec<u8> {
    let udp_len = (8 + data.len()) as u16;
    let mut udp = Vec::new();
    udp.extend_from_slice(&source.port().to_be_bytes());
    udp.extend_from_slice(&destination.port().to_be_bytes());
    udp.extend_from_slice(&udp_len.to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(data);
    let sum =
        checksum::pseudo_header(source.ip(), destination.ip(), 17, udp.len()).add_octets(&udp);
    udp[6..8].copy_from_slice(&sum.complement());
    let mut packet = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, tos];
            header.extend_from_slice(&(20 + udp_len).to_be_bytes());
            header.extend_from_slice(&[0, 1, 0x40, 0, ttl, 17, 0, 0]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            let checksum = checksum::internet(&header);
            header[10..12].copy_from_slice(&checksum);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60 | tos >> 4, tos << 4, 0, 0];
            header.extend_from_slice(&udp_len.to_be_bytes());
            header.extend_from_slice(&[17, ttl]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header
        }
        _ => panic!("one family"),
    };
    packet.extend_from_slice(&udp);
    packet
}

#[test]
fn en_01_en_02_en_04_en_08_en_13_native_packets_come_out_encapsulated() {
    for addresses in Addresses::all() {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1500);
        let peer = node.peer_socket();
        let host = node.socket(addresses.local_eid, 5000);
        let (ttl, tos) = (37, 0xb8 | 0b10);
        if addresses.local_eid.is_ipv4() {
            setsockopt(&host, sockopt::Ipv4Ttl, &ttl).expect("option");
            setsockopt(&host, sockopt::Ipv4Tos, &tos).expect("option");
        } else {
            setsockopt(&host, sockopt::Ipv6Ttl, &ttl).expect("option");
            setsockopt(&host, sockopt::Ipv6TClass, &tos).expect("option");
        }
        let to = SocketAddr::new(addresses.remote_eid, 7000);
        let mut ports = Vec::new();
        for round in 0..20u8 {
            let data = vec![round; 1 + usize::from(round) * 60];
            host.send_to(&data, to).expect("sent");
            let arrived = receive(&peer);
            assert_eq!(arrived.source.ip(), addresses.own_rloc);
            assert_eq!(
                (i32::from(arrived.ttl), i32::from(arrived.tos)),
                (ttl, tos),
                "{addresses:?}"
            );
            assert_eq!(arrived.payload[..8], [0; 8], "no flag is set in instance 0");
            let from = SocketAddr::new(addresses.local_eid, 5000);
            let expected = udp_packet(from, to, 37, 0xba, &data);
            let got = &arrived.payload[8..];
            let skip = if from.is_ipv4() { 12 } else { 4 };
            assert_eq!(got.len(), expected.len());
            assert_eq!(
                got[skip..],
                expected[skip..],
                "but for ID, checksum and flow label, as sent"
            );
            ports.push(arrived.source.port());
        }
        assert!(ports.iter().all(|&port| port == ports[0] && port >= 49_152), "{ports:?}");
        let counters = node.settled(|counters| counters.core_out.packets == 20);
        assert_eq!((counters.native_in.packets, counters.encapsulated), (20, 20));
    }
}

#[test]
fn de_01_de_07_de_09_lisp_packets_come_out_of_the_tun() {
    for addresses in Addresses::all() {
        let Some(node) = Node::alone(addresses) else { return };
        let peer = node.peer_socket();
        let host = node.socket(addresses.local_eid, 7000);
        let from = SocketAddr::new(addresses.remote_eid, 5000);
        let to = SocketAddr::new(addresses.local_eid, 7000);
        for round in 0..20u8 {
            let data = vec![round; usize::from(round) * 60];
            let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
            datagram.extend(udp_packet(from, to, 60, 0, &data));
            peer.send_to(&datagram, SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT))
                .expect("sent");
            let mut buffer = [0; 2000];
            let (len, source) = host.recv_from(&mut buffer).unwrap_or_else(|error| {
                let counters = non_zero(&node.engine().counters());
                panic!("{addresses:?}, round {round}: {error}: {counters:?}")
            });
            assert_eq!((&buffer[..len], source), (&data[..], from), "{addresses:?}");
        }
        let counters = node.settled(|counters| counters.native_out.packets == 20);
        assert_eq!((counters.core_in.packets, counters.decapsulated), (20, 20));
        assert_eq!(counters.dropped_total(), 0, "{:?}", non_zero(&counters));
    }
}

#[test]
fn de_05_de_28_bad_packets_are_dropped_and_counted() {
    let addresses = Addresses::new(true, true);
    let Some(node) = Node::alone(addresses) else { return };
    let peer = node.peer_socket();
    let own = SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT);
    peer.send_to(&[], own).expect("sent");
    peer.send_to(&[0; 12], own).expect("sent");
    peer.send_to(&[0; 60], own).expect("sent");
    let counters = node.settled(|counters| counters.core_in.packets == 3);
    assert_eq!(counters.dropped(DropReason::LispHeaderTruncated), 2);
    assert_eq!(counters.dropped(DropReason::InnerMalformed), 1);
}

#[test]
fn the_first_packet_is_held_until_its_mapping_comes() {
    let addresses = Addresses::new(false, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    let peer = node.peer_socket();
    let host = node.socket(addresses.local_eid, 5000);
    for data in [&b"first"[..], &[b'x'; 1000], b"third"] {
        host.send_to(data, SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
    }
    let counters = node.settled(|counters| counters.held == 3);
    assert_eq!(counters.native_in.packets, 3);
    match node.punts.pop() {
        Some(Punt::Miss { destination, source }) => {
            assert_eq!(destination.address, addresses.remote_eid);
            assert_eq!(source, addresses.local_eid);
        }
        other => panic!("{other:?}"),
    }
    assert!(node.punts.pop().is_none(), "one punt for one EID");
    node.learn(1500);
    assert!(receive(&peer).payload.ends_with(b"first"));
    assert!(receive(&peer).payload.ends_with(&[b'x'; 1000]));
    assert!(receive(&peer).payload.ends_with(b"third"));
    let counters = node.settled(|counters| counters.held == 0);
    assert_eq!((counters.core_out.packets, counters.dropped_total()), (3, 0));
}

#[test]
fn mt_06_mt_07_too_big_packets_are_answered() {
    for addresses in [Addresses::new(true, true), Addresses::new(false, true)] {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1400);
        let host = node.socket(addresses.local_eid, 5000);
        host.send_to(&[7; 1380], SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
        let counters = node.settled(|counters| counters.native_in.packets > 0);
        assert_eq!(counters.dropped(DropReason::PacketTooBig), 1, "{:?}", non_zero(&counters));
        match node.punts.pop() {
            Some(Punt::IcmpError { destination, message }) => {
                assert_eq!(destination, addresses.local_eid);
                assert_eq!(message[4..8], 1364u32.to_be_bytes());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn mt_11_mt_14_a_report_from_the_path_lowers_the_mtu() {
    for addresses in [Addresses::new(false, true), Addresses::new(true, false)] {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1500);
        let peer = node.peer_socket();
        let host = node.socket(addresses.local_eid, 5000);
        let to = SocketAddr::new(addresses.remote_eid, 7000);
        host.send_to(&[7; 1300], to).expect("fits");
        let arrived = receive(&peer);
        let v4 = addresses.own_rloc.is_ipv4();
        let [domain, protocol] = if v4 { [libc::AF_INET, 1] } else { [libc::AF_INET6, 58] };
        let message = too_big(addresses, arrived.source.port(), 1300);
        let router = SocketAddr::new(addresses.peer_rloc, 0);
        let own = SocketAddr::new(addresses.own_rloc, 0);
        node.namespace.run(move || {
            let socket =
                socket2::Socket::new(domain.into(), socket2::Type::RAW, Some(protocol.into()))
                    .expect("a raw socket");
            socket.bind(&router.into()).expect("an own address");
            socket.send_to(&message, &own.into()).expect("sent");
        });
        node.settled(|counters| counters.path_mtu_lowered == 1);
        host.send_to(&[7; 1350], to).expect("sent");
        let counters = node.settled(|counters| counters.native_in.packets == 2);
        assert_eq!(counters.dropped(DropReason::PacketTooBig), 1, "{:?}", non_zero(&counters));
        match node.punts.pop() {
            Some(Punt::IcmpError { message, .. }) => {
                let inner_mtu: u32 = if v4 { 1300 - 36 } else { 1300 - 56 };
                // An IPv6 source cannot be told less than 1280.
                let told = if v4 { inner_mtu.max(1280) } else { inner_mtu };
                assert_eq!(message[4..8], told.to_be_bytes());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn mt_10_an_own_interface_smaller_than_l_is_found_out() {
    let addresses = Addresses::new(false, false);
    let Some([client, server]) = Node::pair(addresses, |config| config) else { return };
    client.namespace.set_mtu("core0", 1400);
    let host = client.socket(addresses.local_eid, 5000);
    let remote = server.socket(addresses.remote_eid, 7000);
    let to = SocketAddr::new(addresses.remote_eid, 7000);
    host.send_to(&[7; 1380], to).expect("sent");
    let counters = client.settled(|counters| counters.dropped(DropReason::SendFailed) == 1);
    assert_eq!(counters.path_mtu_lowered, 1);
    host.send_to(&[7; 1380], to).expect("sent");
    client.settled(|counters| counters.dropped(DropReason::PacketTooBig) == 1);
    assert!(matches!(client.punts.pop(), Some(Punt::IcmpError { .. })));
    host.send_to(&[7; 1200], to).expect("sent");
    assert_eq!(remote.recv(&mut [0; 2000]).expect("what fits arrives"), 1200);
}

/// What a router says about a packet of ours that it could not pass on.
fn too_big(addresses: Addresses, port: u16, mtu: u16) -> Vec<u8> {
    let from = SocketAddr::new(addresses.own_rloc, port);
    let to = SocketAddr::new(addresses.peer_rloc, lisp::DATA_PORT);
    let quoted = udp_packet(from, to, 60, 0, &[0; 100]);
    let kind = if addresses.own_rloc.is_ipv4() { [3, 4] } else { [2, 0] };
    let mut message = [&kind[..], &[0, 0, 0, 0], &mtu.to_be_bytes(), &quoted].concat();
    if addresses.own_rloc.is_ipv4() {
        let checksum = checksum::internet(&message);
        message[2..4].copy_from_slice(&checksum);
    }
    message
}

#[test]
fn a_removed_tun_ends_the_worker_with_a_reason() {
    let addresses = Addresses::new(true, true);
    let Some(node) = Node::alone(addresses) else { return };
    assert_eq!(node.engine().failure(), None);
    node.namespace.delete_link(TUN);
    let deadline = Instant::now() + PATIENCE;
    while node.engine().failure().is_none() {
        assert!(Instant::now() < deadline, "the removal goes unnoticed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn en_29_tcp_bulk_arrives_intact_in_bursts() {
    for addresses in Addresses::all() {
        let Some([client, server]) = Node::pair(addresses, |config| config) else { return };
        bulk(&client, &server);
        let sent = client.settled(|counters| counters.core_out.packets > 0);
        let received = server.settled(|counters| counters.core_in.packets > 0);
        println!("{addresses:?}\n{:?}\n{:?}", non_zero(&sent), non_zero(&received));
        assert_eq!(sent.native_in, sent.core_out, "octets count as on the wire");
        assert_eq!(received.core_in, received.native_out);
        assert!(sent.core_out.packets > 4 * sent.core_bursts, "super-packets leave as bursts");
        assert!(received.native_out.packets > 4 * received.native_writes, "and are merged again");
    }
}

#[test]
fn de_02_en_20_zero_checksums_are_sent_and_accepted() {
    for addresses in [Addresses::new(false, true), Addresses::new(true, false)] {
        let zero = |config| DataConfig { zero_udp_checksum: true, ..config };
        let Some([client, server]) = Node::pair(addresses, zero) else { return };
        bulk(&client, &server);
        let sent = client.settled(|counters| counters.core_out.packets > 0);
        assert_eq!(sent.core_out.packets, sent.core_bursts, "such a socket cannot send bursts");
        assert_eq!(sent.dropped(DropReason::SendFailed), 0, "{:?}", non_zero(&sent));
    }
}

#[test]
fn a_flow_stays_in_order() {
    let addresses = Addresses::new(false, true);
    let Some([client, server]) = Node::pair(addresses, |config| config) else { return };
    let host = client.socket(addresses.local_eid, 5000);
    let remote = server.socket(addresses.remote_eid, 7000);
    let mut number = 0u32;
    for round in 0..40u32 {
        for index in 0..50 {
            let len = 4 + ((round * 50 + index) * 37 % 1300) as usize;
            let mut data = vec![0; len];
            data[..4].copy_from_slice(&(round * 50 + index).to_be_bytes());
            if index % 7 == 0 {
                let class = if index % 2 == 0 { 0 } else { 0xb8 };
                setsockopt(&host, sockopt::Ipv6TClass, &class).expect("option");
            }
            host.send_to(&data, SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
        }
        for _ in 0..50 {
            let mut buffer = [0; 2000];
            let len = remote.recv(&mut buffer).expect("arrives");
            assert!(buffer[..len].starts_with(&number.to_be_bytes()), "packet {number}");
            number += 1;
        }
    }
}

#[test]
fn the_data_plane_works_without_a_control_plane() {
    let addresses = Addresses::new(true, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    node.learn(1500);
    let peer = node.peer_socket();
    let host = node.socket(addresses.local_eid, 5000);
    // Nobody reads the punts; hits go on.
    for number in 0..200u16 {
        let unknown: IpAddr = "203.0.112.1".parse().expect("an address");
        let _ = host.send_to(&[0; 10], SocketAddr::new(unknown, number));
        host.send_to(&number.to_be_bytes(), SocketAddr::new(addresses.remote_eid, 7000))
            .expect("sent");
        assert!(receive(&peer).payload.ends_with(&number.to_be_bytes()));
    }
    // The table's writer is gone: everything is a miss, nothing breaks.
    let (empty, _) = FibWriter::new();
    node.fib = empty;
    host.send_to(b"x", SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
    let counters = node.settled(|counters| counters.held == 1);
    assert_eq!(counters.dropped_total(), 0);
}

#[test]
fn an_engine_restarts_at_once() {
    let addresses = Addresses::new(true, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    for _ in 0..3 {
        node.engine.take().expect("running").stop();
        let config = config(addresses, 2);
        let (_, factory) = FibWriter::new();
        let engine = node
            .namespace
            .run(move || Engine::start(&config, Arc::new(Open), &factory, punt::queue(1).0))
            .expect("restarts");
        assert_eq!(engine.workers(), 2);
        node.engine = Some(engine);
    }
}

#[test]
fn a_failed_start_says_what_failed() {
    let Some(namespace) = Namespace::new() else { return };
    let config = config(Addresses::new(true, true), 1);
    let error = namespace
        .run(move || {
            let (_, factory) = FibWriter::new();
            Engine::start(&config, Arc::new(Open), &factory, punt::queue(1).0)
        })
        .expect_err("the RLOC is on no interface");
    assert!(error.to_string().contains("198.51.100.1 port 4341"), "{error}");
}

const BULK: usize = 10_000_000;

fn bulk(client: &Node, server: &Node) {
    let address = SocketAddr::new(client.addresses.remote_eid, 8000);
    let listener = server.namespace.run(move || TcpListener::bind(address)).expect("a listener");
    limit_segments(&listener);
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut received = Vec::with_capacity(BULK);
        stream.read_to_end(&mut received).expect("all of it");
        received
    });
    let sent: Vec<u8> =
        (0..BULK as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let data = sent.clone();
    client.namespace.run(move || {
        let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        limit_segments(&socket);
        socket.connect_timeout(&address.into(), PATIENCE).expect("connected");
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&data).expect("taken");
    });
    let received = receiver.join().expect("received");
    assert_eq!(received.len(), sent.len());
    assert!(received == sent, "octets changed on the way");
}

/// As Packet Too Big would, had the test a control plane to send it.
fn limit_segments(socket: &impl std::os::fd::AsFd) {
    socket2::SockRef::from(socket).set_tcp_mss(1380).expect("an MSS");
}
