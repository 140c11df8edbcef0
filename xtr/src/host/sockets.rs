//! Sockets of the control plane.
use crate::engine::udp::dont_fragment;
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::CONTROL_PORT;
use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The largest control message taken in; anything longer is cut and then refused by the parser.
const MAX_MESSAGE: usize = 65_535;
/// Datagrams waiting for the control plane; beyond it they wait, and are dropped, in the socket.
const QUEUE: usize = 256;
/// Receive buffer asked for, octets.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How long a new address (duplicate address detection) or a dying predecessor may keep a socket from being bound.
const BIND_TRIES: u32 = 30;
const BIND_RETRY: Duration = Duration::from_millis(100);

/// A control message that came in.
#[derive(Debug)]
pub struct Datagram {
    /// Own address and port.
    pub local: SocketAddr,
    /// The sender.
    pub from: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// Per own RLOC one socket on port 4342, one on a port of the kernel's choice, and another one that never fragments; all read.
#[derive(Debug)]
pub struct ControlSockets {
    sockets: Vec<OfRloc>,
    _readers: JoinSet<()>,
}

#[derive(Debug)]
struct OfRloc {
    rloc: IpAddr,
    control: Arc<UdpSocket>,
    ephemeral: Arc<UdpSocket>,
    path_probes: Arc<UdpSocket>,
}

impl ControlSockets {
    /// Binds and starts reading into the returned queue. If `share`, the data plane can send from port 4342 too: its sockets, bound later,
    /// are given nothing.
    ///
    /// # Errors
    /// The address that could not be bound, and why.
    pub async fn bind(
        rlocs: &[IpAddr],
        share: bool,
    ) -> io::Result<(Self, mpsc::Receiver<Datagram>)> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut sockets = Vec::new();
        let mut readers = JoinSet::new();
        for &rloc in rlocs {
            let control = Arc::new(bind_patiently(SocketAddr::new(rloc, CONTROL_PORT)).await?);
            if share {
                // Only now, so that no other process has the port too.
                SockRef::from(&*control).set_reuse_port(true)?;
            }
            let ephemeral = Arc::new(bind_patiently(SocketAddr::new(rloc, 0)).await?);
            let path_probes = bind_patiently(SocketAddr::new(rloc, 0)).await?;
            dont_fragment(&SockRef::from(&path_probes), rloc, true)?;
            let path_probes = Arc::new(path_probes);
            for socket in [&control, &ephemeral, &path_probes] {
                readers.spawn(read(Arc::clone(socket), socket.local_addr()?, sender.clone()));
            }
            sockets.push(OfRloc { rloc, control, ephemeral, path_probes });
        }
        Ok((Self { sockets, _readers: readers }, receiver))
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// What the kernel said; `AddrNotAvailable` if the source is no RLOC of ours.
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let sockets = self.of(transmit.source)?;
        let socket = match transmit.source_port {
            SourcePort::Control => &sockets.control,
            SourcePort::Ephemeral => &sockets.ephemeral,
            // The data plane's.
            SourcePort::Data => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        socket.try_send_to(&transmit.payload, transmit.destination).map(drop)
    }

    /// Sends a path probe without waiting: whole or not at all.
    ///
    /// # Errors
    /// As [`Self::send`]; EMSGSIZE if it does not fit the interface.
    pub fn send_path_probe(&self, transmit: &Transmit) -> io::Result<()> {
        let socket = &self.of(transmit.source)?.path_probes;
        socket.try_send_to(&transmit.payload, transmit.destination).map(drop)
    }

    fn of(&self, rloc: IpAddr) -> io::Result<&OfRloc> {
        let found = self.sockets.iter().find(|sockets| sockets.rloc == rloc);
        found.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

async fn read(socket: Arc<UdpSocket>, local: SocketAddr, queue: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        // An error here is a pending ICMP error about an earlier datagram; the socket lives on.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let datagram = Datagram { local, from, payload: buffer[..length].to_vec() };
        if queue.send(datagram).await.is_err() {
            return;
        }
    }
}

async fn bind_patiently(address: SocketAddr) -> io::Result<UdpSocket> {
    let mut tries = 0;
    loop {
        let error = match bind(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        tries += 1;
        let transient =
            matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable);
        if !transient || tries >= BIND_TRIES {
            return Err(io::Error::new(error.kind(), format!("bind UDP {address}: {error}")));
        }
        tokio::time::sleep(BIND_RETRY).await;
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    refuse_zero_checksums(&socket)?;
    // A smaller buffer than asked for still works.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Makes the kernel drop datagrams without a UDP checksum (CW-05; IPv6 sockets refuse them anyway).
///
/// # Errors
/// What the kernel said.
pub fn refuse_zero_checksums(socket: &Socket) -> io::Result<()> {
    /// Offset of the checksum in the UDP header, which is where a UDP socket's filter starts.
    const CHECKSUM: u32 = 6;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    socket.attach_filter(&[
        SockFilter::new(LOAD_HALF, 0, 0, CHECKSUM),
        SockFilter::new(JUMP_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Raw sockets for the ICMP errors of the data plane; the kernel adds the IP header with the right source (MT-18).
#[derive(Debug)]
pub struct IcmpSockets {
    v4: Socket,
    v6: Option<Socket>,
}

impl IcmpSockets {
    /// # Errors
    /// What the kernel said; without IPv6 in the kernel only ICMPv4 works.
    pub fn open() -> io::Result<Self> {
        let v4 = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        v4.set_nonblocking(true)?;
        // Nothing is read from it: the smallest buffer keeps copies of others' ICMP out of memory.
        let _ = v4.set_recv_buffer_size(0);
        let v6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).ok();
        if let Some(v6) = &v6 {
            v6.set_nonblocking(true)?;
            let _ = v6.set_recv_buffer_size(0);
        }
        Ok(Self { v4, v6 })
    }

    /// Sends one ICMP message.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn send(&self, destination: IpAddr, message: &[u8]) -> io::Result<()> {
        let socket = match (destination, &self.v6) {
            (IpAddr::V4(_), _) => &self.v4,
            (IpAddr::V6(_), Some(v6)) => v6,
            (IpAddr::V6(_), None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let address = SockAddr::from(SocketAddr::new(destination, 0));
        socket.send_to(message, &address).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn cw_05_a_datagram_without_checksum_is_dropped() {
        let receiver = bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).expect("bound");
        let address = receiver.local_addr().expect("address");
        // Through a raw socket the UDP header is ours: its checksum stays 0.
        let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else {
            println!("SKIP: raw sockets need CAP_NET_RAW");
            return;
        };
        let [high, low] = address.port().to_be_bytes();
        let without =
            [0x10, 0xf6, high, low, 0, 15, 0, 0, b'w', b'i', b't', b'h', b'o', b'u', b't'];
        raw.send_to(&without, &address.into()).expect("sent");
        let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        sender.send_to(b"with", address).expect("sent");
        let mut buffer = [0; 16];
        let received = tokio::time::timeout(Duration::from_secs(5), receiver.recv(&mut buffer));
        let length = received.await.expect("in time").expect("received");
        assert_eq!(&buffer[..length], b"with");
    }

    #[tokio::test]
    async fn cw_04_what_a_control_socket_sends_over_ipv4_has_a_checksum() {
        let sender = bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).expect("bound");
        let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else {
            println!("SKIP: raw sockets need CAP_NET_RAW");
            return;
        };
        raw.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let port = sender.local_addr().expect("address").port().to_be_bytes();
        let to = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        sender.send_to(b"with", to.local_addr().expect("address")).await.expect("sent");
        // It sees all of the loopback interface, from the IP header on.
        let mut packet = [0; 2_000];
        loop {
            let length = std::io::Read::read(&mut &raw, &mut packet).expect("in time");
            let udp = &packet[20..length];
            if udp[..2] == port {
                assert_ne!(udp[6..8], [0, 0], "none was computed");
                return;
            }
        }
    }

    #[tokio::test]
    async fn en_22_zero_checksums_are_for_the_data_port_alone_over_ipv6_too() {
        let here = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), 0);
        let (Ok(receiver), Ok(raw)) =
            (bind(here), Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::UDP)))
        else {
            println!("SKIP: raw sockets need CAP_NET_RAW, and the host IPv6");
            return;
        };
        let address = receiver.local_addr().expect("address");
        let [high, low] = address.port().to_be_bytes();
        let without =
            [0x10, 0xf6, high, low, 0, 15, 0, 0, b'w', b'i', b't', b'h', b'o', b'u', b't'];
        raw.send_to(&without, &SocketAddr::new(address.ip(), 0).into()).expect("sent");
        // What a control socket itself sends has a checksum, or it would not come through.
        let sender = bind(here).expect("bound");
        sender.send_to(b"with", address).await.expect("sent");
        let mut buffer = [0; 16];
        let received = tokio::time::timeout(Duration::from_secs(5), receiver.recv(&mut buffer));
        let length = received.await.expect("in time").expect("received");
        assert_eq!(&buffer[..length], b"with");
    }
}
