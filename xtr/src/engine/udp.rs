//! The UDP sockets of one worker: one per own RLOC to receive on port 4341, and the pool of source ports to send from.
use super::sys::{attach_reuseport_program, set_option, set_words};
use crate::config::{DataConfig, NatPlane};
use crate::forward::Outer;
use crate::packet::{Family, lisp};
use mapping::wire::CONTROL_PORT;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

/// The first port of the dynamic range, from which the pool is taken (EN-16).
const FIRST_DYNAMIC_PORT: u16 = 49_152;
/// Asked for in both directions; the default receive buffer holds 256 small packets.
const SOCKET_BUFFER: i32 = 16 << 20;

/// Linux's values that libc lacks.
const UDP_NO_CHECK6_TX: i32 = 101;
const UDP_NO_CHECK6_RX: i32 = 102;
const ICMP_FILTER: i32 = 1;
const ICMPV6_FILTER: i32 = 1;

const ICMP_UNREACHABLE: u32 = 3;
const ICMPV6_UNREACHABLE: u32 = 1;
const ICMPV6_TOO_BIG: u32 = 2;

/// All sockets of one worker, for each own RLOC in the order of the configuration.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Bound to port 4341.
    pub(super) receive: Vec<Socket>,
    /// As [`SendSockets`] numbers them.
    pub(super) send: Vec<Socket>,
    /// Raw sockets for reports about our packets, one per family; empty without the privilege. The workers share them: one takes a
    /// report, and it does not matter which.
    pub(super) icmp: Arc<[(Family, Socket)]>,
}

impl Sockets {
    /// Binds them all in the caller's network namespace.
    pub(super) fn open(
        config: &DataConfig,
        ports: &PortPool,
        icmp: Arc<[(Family, Socket)]>,
    ) -> io::Result<Self> {
        let mut sockets = Self { receive: Vec::new(), send: Vec::new(), icmp };
        for &rloc in &config.rlocs {
            sockets.receive.push(receive_socket(rloc, lisp::DATA_PORT)?);
            for index in 0..ports.len() {
                let socket = send_socket(rloc, ports.port(index), config.zero_udp_checksum)?;
                dont_fragment(&socket, rloc, true)?;
                sockets.send.push(socket);
            }
            let fragmenting = send_socket(rloc, ports.port(0), config.zero_udp_checksum)?;
            dont_fragment(&fragmenting, rloc, false)?;
            sockets.send.push(fragmenting);
            if ports.translates {
                for whole in [true, false] {
                    let socket = send_socket(rloc, CONTROL_PORT, config.zero_udp_checksum)?;
                    keep_arrivals(&socket)?;
                    dont_fragment(&socket, rloc, whole)?;
                    sockets.send.push(socket);
                }
            }
        }
        Ok(sockets)
    }
}

/// The sockets to send from, per own RLOC: one for each port of the pool, then one whose packets may be fragmented outside (MT-08); in an
/// RTR two more on port 4342, of which the second may be fragmented.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendSockets {
    pool_len: u16,
    translates: bool,
}

impl SendSockets {
    const fn per_rloc(self) -> usize {
        self.pool_len as usize + if self.translates { 3 } else { 1 }
    }

    /// The index of the socket that a packet leaves through.
    pub(super) fn of(self, outer: &Outer) -> usize {
        self.index(outer, outer.may_fragment)
    }

    /// As [`Self::of`], for the packets of the flow that need not be fragmented.
    pub(super) fn of_flow(self, outer: &Outer) -> usize {
        self.index(outer, false)
    }

    fn index(self, outer: &Outer, may_fragment: bool) -> usize {
        let fragmenting = usize::from(self.pool_len);
        let socket = match (outer.translated, may_fragment) {
            (Some(_), _) if self.translates => fragmenting + 1 + usize::from(may_fragment),
            (_, true) => fragmenting,
            (_, false) => usize::from(outer.port.min(self.pool_len)),
        };
        outer.own_rloc * self.per_rloc() + socket
    }
}

/// Copies of a worker's sockets on port 4341 by which the control plane sends: a socket of its own there would be given packets.
#[derive(Clone, Debug, Default)]
pub(super) struct DataPorts(Arc<Mutex<Vec<(IpAddr, Socket)>>>);

impl DataPorts {
    /// None unless there is NAT traversal to do.
    pub(super) fn of(sockets: &Sockets, config: &DataConfig) -> io::Result<Self> {
        if config.nat != NatPlane::Xtr {
            return Ok(Self::default());
        }
        let copy = |(&rloc, socket): (&IpAddr, &Socket)| Ok((rloc, socket.try_clone()?));
        let copies = config.rlocs.iter().zip(&sockets.receive).map(copy);
        Ok(Self(Arc::new(Mutex::new(copies.collect::<io::Result<_>>()?))))
    }

    /// Sends from the socket of `source`; `None` if there is none.
    pub(super) fn send(
        &self,
        source: IpAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) -> Option<io::Result<()>> {
        let sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, socket) = sockets.iter().find(|(rloc, _)| *rloc == source)?;
        Some(socket.send_to(payload, &destination.into()).map(drop))
    }

    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The outer source ports of the process, the same for every worker so that a flow's port does not depend on the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortPool {
    len: u16,
    stride: u16,
    offset: u16,
    /// Port 4342 is one as well, towards ports that a NAT has translated.
    translates: bool,
}

impl PortPool {
    /// `len` ports (1 to 1024) spread over 49152 to 65535, shifted by `seed` within their stride.
    pub(super) fn new(len: u16, seed: u16) -> Self {
        let len = len.clamp(1, 1024);
        let stride = (u16::MAX - FIRST_DYNAMIC_PORT) / len;
        Self { len, stride, offset: seed % stride.max(1), translates: false }
    }

    /// With port 4342 if `translates`.
    pub(super) const fn translating(self, translates: bool) -> Self {
        Self { translates, ..self }
    }

    /// The sockets that these ports need.
    pub(super) const fn sockets(&self) -> SendSockets {
        SendSockets { pool_len: self.len, translates: self.translates }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    /// Whether `port` is of the pool.
    pub(super) fn contains(&self, port: u16) -> bool {
        (0..self.len).any(|index| self.port(index) == port)
            || self.translates && port == CONTROL_PORT
    }

    /// The port numbered `index`, below `len`.
    pub(super) const fn port(&self, index: u16) -> u16 {
        FIRST_DYNAMIC_PORT + index * self.stride + self.offset
    }
}

/// The control plane reads port 4342, and has bound it first: it alone is given what comes there.
fn keep_arrivals(socket: &Socket) -> io::Result<()> {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let to_the_first = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 }];
    attach_reuseport_program(socket.as_fd(), &to_the_first)
}

/// A socket that tells TTL, TOS and the size of what it merged.
pub(super) fn receive_socket(rloc: IpAddr, port: u16) -> io::Result<Socket> {
    let socket = bound_socket(rloc, port)?;
    let option = |level, name| set_option(socket.as_fd(), level, name, 1);
    match rloc {
        IpAddr::V4(_) => {
            option(libc::IPPROTO_IP, libc::IP_RECVTTL)?;
            option(libc::IPPROTO_IP, libc::IP_RECVTOS)?;
        }
        IpAddr::V6(_) => {
            option(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)?;
            option(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
            option(libc::IPPROTO_UDP, UDP_NO_CHECK6_RX)?;
        }
    }
    option(libc::IPPROTO_UDP, libc::UDP_GRO)?;
    force_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
    Ok(socket)
}

/// The ICMP sockets of the families of `rlocs`. Without CAP_NET_RAW there are none: the configured MTUs hold (MT-11), and what is
/// unreachable shows by probes alone (PB-14).
pub(super) fn icmp_sockets(rlocs: &[IpAddr]) -> Vec<(Family, Socket)> {
    let mut families = vec![Family::V4, Family::V6];
    families.retain(|&family| rlocs.iter().any(|rloc| Family::of(rloc) == family));
    let open = |family| match icmp_socket(family) {
        Ok(socket) => Some((family, socket)),
        Err(error) => {
            tracing::warn!(%error, "ICMP errors about LISP packets cannot be received");
            None
        }
    };
    families.into_iter().filter_map(open).collect()
}

/// Only the types that say why a packet did not get through pass its filter: destination unreachable, and Packet Too Big.
fn icmp_socket(family: Family) -> io::Result<Socket> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    match family {
        Family::V4 => {
            let blocked = !(1u32 << ICMP_UNREACHABLE);
            set_option(socket.as_fd(), libc::SOL_RAW, ICMP_FILTER, blocked as i32)?;
        }
        Family::V6 => {
            // One bit per type, set = blocked; 256 bits as eight words.
            let mut blocked = [u32::MAX; 8];
            blocked[0] &= !(1 << ICMPV6_UNREACHABLE | 1 << ICMPV6_TOO_BIG);
            set_words(socket.as_fd(), libc::SOL_ICMPV6, ICMPV6_FILTER, &blocked)?;
        }
    }
    Ok(socket)
}

fn send_socket(rloc: IpAddr, port: u16, zero_checksum: bool) -> io::Result<Socket> {
    let socket = bound_socket(rloc, port)?;
    if zero_checksum {
        match rloc {
            IpAddr::V4(_) => set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?,
            IpAddr::V6(_) => set_option(socket.as_fd(), libc::IPPROTO_UDP, UDP_NO_CHECK6_TX, 1)?,
        }
    }
    force_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
    // Nobody reads from it: what is sent to these ports must not pile up. The kernel makes 0 its minimum.
    socket.set_recv_buffer_size(0)?;
    Ok(socket)
}

/// Whether a socket's packets carry DF, and are refused when larger than the interface; of `rloc` counts the family.
///
/// # Errors
/// What the kernel said.
pub(crate) fn dont_fragment(socket: &Socket, rloc: IpAddr, on: bool) -> io::Result<()> {
    // PROBE sets DF and ignores the kernel's path MTU: the mapping's locator has its own (MT-10).
    let (level, option, value) = match (rloc, on) {
        (IpAddr::V4(_), true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        (IpAddr::V4(_), false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        (IpAddr::V6(_), true) => {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
        (IpAddr::V6(_), false) => {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
        }
    };
    set_option(socket.as_fd(), level, option, value)
}

fn bound_socket(rloc: IpAddr, port: u16) -> io::Result<Socket> {
    let domain = if rloc.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    if rloc.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(SocketAddr::new(rloc, port))).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot bind UDP {rloc} port {port}: {error}"))
    })?;
    Ok(socket)
}

/// Beyond the system's limit if privileged, else as much as it allows: a smaller buffer is no reason to fail.
fn force_buffer(socket: &Socket, force: i32, plain: i32) {
    let _ = set_option(socket.as_fd(), libc::SOL_SOCKET, force, SOCKET_BUFFER)
        .or_else(|_| set_option(socket.as_fd(), libc::SOL_SOCKET, plain, SOCKET_BUFFER));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::OuterFields;

    #[test]
    fn en_16_ports_are_distinct_and_in_the_dynamic_range() {
        for len in [0, 1, 2, 7, 64, 1000, 1024, u16::MAX] {
            for seed in [0, 1, 12_345, u16::MAX] {
                let pool = PortPool::new(len, seed);
                let ports: Vec<u16> = (0..pool.len()).map(|index| pool.port(index)).collect();
                assert!(ports.is_sorted_by(|a, b| a < b), "{len} {seed}");
                assert!(
                    ports.iter().all(|&port| port >= FIRST_DYNAMIC_PORT && pool.contains(port))
                );
                assert!(!pool.contains(lisp::DATA_PORT) && !pool.contains(0));
            }
        }
    }

    #[test]
    fn every_rloc_has_its_own_range_of_sockets() {
        let outer = |own_rloc, port, translated, may_fragment| Outer {
            own_rloc,
            destination: IpAddr::from([198, 51, 100, 2]),
            port,
            translated,
            fields: OuterFields { ttl: 64, tos: 0 },
            may_fragment,
        };
        let site = PortPool::new(64, 0).sockets();
        assert_eq!(site.of(&outer(0, 0, None, false)), 0);
        assert_eq!(site.of(&outer(0, 7, None, true)), 64);
        assert_eq!(site.of_flow(&outer(0, 7, None, true)), 7);
        assert_eq!(site.of(&outer(1, 0, None, false)), 65);
        let rtr = PortPool::new(64, 0).translating(true).sockets();
        assert_eq!(rtr.of(&outer(0, 63, None, false)), 63);
        assert_eq!(rtr.of(&outer(0, 0, Some(7), false)), 65);
        assert_eq!(rtr.of(&outer(0, 0, Some(7), true)), 66);
        assert_eq!(rtr.of_flow(&outer(0, 0, Some(7), true)), 65);
        assert_eq!(rtr.of(&outer(1, 0, None, false)), 67);
    }
}
