//! The sockets: bound patiently, filtered, polled in turn.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use crate::transmit::{SourcePort, Transmit};
use crate::wire::CONTROL_PORT;

/// How long an address may be in use, or not there yet, when the daemon starts.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to bind.
pub(super) const BIND_RETRY: Duration = Duration::from_millis(50);
/// Octets the kernel may hold for a socket while messages come in bursts: small ones for some 50 ms at a million per second.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Octets the kernel may hold for a socket on their way out.
const SEND_BUFFER: usize = 4 << 20;

/// One bound socket.
pub(super) struct Bound {
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    port: SourcePort,
}

/// For every own address one socket on port 4342 and one on a random port.
pub(super) struct Sockets {
    pub(super) bound: Vec<Bound>,
    /// Where the last search for a readable socket ended, so that each gets its turn.
    turn: usize,
}

impl Sockets {
    pub(super) async fn bind(addresses: &[IpAddr]) -> io::Result<Self> {
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on"));
        }
        let patience = Instant::now() + BIND_PATIENCE;
        let mut bound = Vec::new();
        for &address in addresses {
            for (number, port) in [(CONTROL_PORT, SourcePort::Control), (0, SourcePort::Ephemeral)]
            {
                let socket = bind_patiently(SocketAddr::new(address, number), patience).await?;
                bound.push(Bound { local: socket.local_addr()?, socket, port });
            }
        }
        Ok(Self { bound, turn: 0 })
    }

    /// Finds a socket with something to read, the next one in turn.
    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        let count = self.bound.len();
        for step in 1..=count {
            let at = (self.turn + step) % count;
            if self.bound[at].socket.poll_recv_ready(context).is_ready() {
                self.turn = at;
                return Poll::Ready(at);
            }
        }
        Poll::Pending
    }

    /// The socket that `transmit` leaves through.
    pub(super) fn of(&self, transmit: &Transmit) -> Option<usize> {
        let fits = |b: &Bound| b.port == transmit.source_port && b.local.ip() == transmit.source;
        self.bound.iter().position(fits)
    }
}

/// A process that just ended may hold the port still, and a new IPv6 address may be tentative still.
async fn bind_patiently(address: SocketAddr, patience: Instant) -> io::Result<UdpSocket> {
    loop {
        match bind_now(address) {
            Err(error) if is_transient(&error) && Instant::now() < patience => {
                tokio::time::sleep(BIND_RETRY).await;
            }
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot bind {address}: {error}"),
                ));
            }
            Ok(socket) => return Ok(socket),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

fn bind_now(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    } else {
        refuse_zero_checksums(&socket)?;
    }
    enlarge_buffers(&socket)?;
    // Runs of datagrams of one sender come as one message; an old kernel delivers them one by one.
    let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// With CAP_NET_ADMIN what is asked for, else what the kernel's limit allows.
fn enlarge_buffers(socket: &Socket) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        socket.set_send_buffer_size(SEND_BUFFER)?;
    }
    Ok(())
}

/// Refuses datagrams without a UDP checksum (CW-05); over IPv6 the kernel does so itself.
///
/// A classic socket filter sees a datagram from its UDP header on: the checksum is the half-word at offset 6.
fn refuse_zero_checksums(socket: &Socket) -> io::Result<()> {
    const LOAD_HALF_WORD: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const CHECKSUM_OFFSET: u32 = 6;
    socket.attach_filter(&[
        SockFilter::new(LOAD_HALF_WORD, 0, 0, CHECKSUM_OFFSET),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}
