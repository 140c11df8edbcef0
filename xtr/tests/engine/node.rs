//! An engine in its namespace, and the packets the tests send and see.
use crate::namespace::Namespace;
use ipnet::IpNet;
use mapping::eid::{EidPrefix, InstanceId};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
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
use xtr::punt::{self, PuntReceiver};

pub(crate) const TUN: &str = "lisp0";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A destination that makes a worker panic, as a bug might.
pub(crate) const POISON: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));

/// Lets everything through; what comes from the core goes where `onward` says.
pub(crate) struct Open {
    pub(crate) onward: Onward,
}

impl Policy for Open {
    fn admit_native(&self, _: IpAddr, destination: IpAddr) -> Result<InstanceId, DropReason> {
        assert_ne!(destination, POISON, "poisoned on purpose");
        Ok(InstanceId::DEFAULT)
    }

    fn admit_decapsulated(
        &self,
        _: IpAddr,
        _: InstanceId,
        _: IpAddr,
        _: IpAddr,
    ) -> Result<Onward, DropReason> {
        Ok(self.onward)
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Err(DropReason::NativeWouldLoop)
    }
}

/// Addresses of one combination of families.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) local_eid: IpAddr,
    pub(crate) remote_eid: IpAddr,
    pub(crate) own_rloc: IpAddr,
    pub(crate) peer_rloc: IpAddr,
}

impl Addresses {
    pub(crate) fn new(inner_v4: bool, outer_v4: bool) -> Self {
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

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [(true, true), (true, false), (false, true), (false, false)]
            .into_iter()
            .map(|(inner, outer)| Self::new(inner, outer))
    }

    pub(crate) fn swapped(self) -> Self {
        Self {
            local_eid: self.remote_eid,
            remote_eid: self.local_eid,
            own_rloc: self.peer_rloc,
            peer_rloc: self.own_rloc,
        }
    }
}

pub(crate) fn host_len(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(crate) fn wide_prefix(address: IpAddr) -> (IpAddr, u8) {
    let prefix = IpNet::new(address, if address.is_ipv4() { 24 } else { 48 }).expect("a prefix");
    (prefix.network(), prefix.prefix_len())
}

fn remote_prefix(addresses: Addresses) -> EidPrefix {
    let (network, len) = wide_prefix(addresses.remote_eid);
    EidPrefix::new(InstanceId::DEFAULT, IpNet::new(network, len).expect("a prefix"))
}

/// The remote EIDs are at the peer.
pub(crate) fn mapping_of(addresses: Addresses, mtu: u16) -> FibUpdate {
    let adjacency = Adjacency {
        source: addresses.own_rloc,
        destination: addresses.peer_rloc,
        weight: 100,
        mtu,
        traffic: Arc::default(),
        ports: Default::default(),
        used: Arc::default(),
    };
    let set = LocatorSet::new([adjacency], 0);
    FibUpdate::Insert(remote_prefix(addresses), Verdict::Encapsulate(Arc::new(set)))
}

pub(crate) fn config(addresses: Addresses, queues: usize) -> DataConfig {
    DataConfig {
        rlocs: vec![addresses.own_rloc],
        tun_name: TUN.to_owned(),
        queues: Some(queues),
        source_ports: 16,
        ..DataConfig::default()
    }
}

/// A running engine in its namespace, with what the control plane would hold.
pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    pub(crate) engine: Option<Engine>,
    pub(crate) fib: FibWriter,
    pub(crate) punts: PuntReceiver,
    pub(crate) addresses: Addresses,
}

impl Node {
    pub(crate) fn start(
        namespace: Namespace,
        addresses: Addresses,
        config: DataConfig,
        onward: Onward,
    ) -> Self {
        let (fib, factory) = FibWriter::new();
        let (sender, punts) = punt::queue(64);
        let engine = namespace
            .run(move || Engine::start(&config, Arc::new(Open { onward }), &factory, sender))
            .expect("the engine starts");
        assert_eq!(engine.tun_name(), TUN);
        namespace.add_addresses("lo", vec![(addresses.local_eid, host_len(addresses.local_eid))]);
        let route = wide_prefix(addresses.remote_eid);
        namespace.add_route(route, TUN, addresses.local_eid);
        Self { namespace, engine: Some(engine), fib, punts, addresses }
    }

    /// Alone: own and peer RLOC on `lo`.
    pub(crate) fn alone(addresses: Addresses) -> Option<Self> {
        Self::alone_with(addresses, Onward::Deliver)
    }

    /// Alone, with a policy.
    pub(crate) fn alone_with(addresses: Addresses, onward: Onward) -> Option<Self> {
        Self::alone_configured(addresses, onward, config(addresses, 1))
    }

    /// Alone, with several workers.
    pub(crate) fn alone_with_workers(addresses: Addresses, workers: usize) -> Option<Self> {
        Self::alone_configured(addresses, Onward::Deliver, config(addresses, workers))
    }

    fn alone_configured(addresses: Addresses, onward: Onward, config: DataConfig) -> Option<Self> {
        let namespace = Namespace::new()?;
        let rlocs = [addresses.own_rloc, addresses.peer_rloc];
        namespace.add_addresses("lo", rlocs.map(|rloc| (rloc, host_len(rloc))).to_vec());
        Some(Self::start(namespace, addresses, config, onward))
    }

    /// Two, joined by a veth pair, each with the other's EIDs mapped.
    pub(crate) fn pair(
        addresses: Addresses,
        change: impl Fn(DataConfig) -> DataConfig,
    ) -> Option<[Self; 2]> {
        let (left, right) = (Namespace::new()?, Namespace::new()?);
        left.join(&right, "core0");
        let rloc_len = if addresses.own_rloc.is_ipv4() { 24 } else { 64 };
        left.add_addresses("core0", vec![(addresses.own_rloc, rloc_len)]);
        right.add_addresses("core0", vec![(addresses.peer_rloc, rloc_len)]);
        let mut pair =
            [(left, addresses), (right, addresses.swapped())].map(|(namespace, addresses)| {
                Self::start(namespace, addresses, change(config(addresses, 2)), Onward::Deliver)
            });
        pair.iter_mut().for_each(|node| node.learn(1500));
        Some(pair)
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("running")
    }

    pub(crate) fn forget(&mut self) {
        self.fib.apply([FibUpdate::Remove(remote_prefix(self.addresses))]);
        self.engine().wake();
    }

    pub(crate) fn learn(&mut self, mtu: u16) {
        self.fib.apply([mapping_of(self.addresses, mtu)]);
        self.engine().wake();
    }

    pub(crate) fn socket(&self, address: IpAddr, port: u16) -> UdpSocket {
        let socket = self
            .namespace
            .run(move || UdpSocket::bind(SocketAddr::new(address, port)))
            .expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    /// Plays the peer's ETR.
    pub(crate) fn peer_socket(&self) -> UdpSocket {
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
    pub(crate) fn settled(&self, done: impl Fn(&CounterSnapshot) -> bool) -> CounterSnapshot {
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

pub(crate) fn non_zero(counters: &CounterSnapshot) -> Vec<(String, u64)> {
    counters.by_name().into_iter().filter(|(_, value)| *value > 0).collect()
}

/// What arrived at the peer.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) payload: Vec<u8>,
    pub(crate) source: SocketAddr,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
}

pub(crate) fn receive(socket: &UdpSocket) -> Arrived {
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
pub(crate) fn udp_packet(
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
