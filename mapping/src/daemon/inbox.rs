//! Datagrams in: many with one system call.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Most messages taken from one socket before the others get their turn.
const MOST: usize = 64;
/// Fewest messages asked for: what is asked for costs, even if it does not come.
const FEWEST: usize = 4;
/// Room for the largest datagram, or a run of datagrams that the kernel coalesced.
const ROOM: usize = 1 << 16;

/// Where datagrams are received into.
pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// Messages to ask for: twice what came last.
    ask: usize,
    /// System calls that brought something.
    pub(super) bursts: u64,
    /// Datagrams received.
    pub(super) datagrams: u64,
    /// Bursts that left something behind: the daemon is the bottleneck.
    pub(super) full_bursts: u64,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let buffer = vec![0; MOST * ROOM];
        Self { buffer, ask: FEWEST, bursts: 0, datagrams: 0, full_bursts: 0 }
    }

    /// Gives what `socket` has to `each`, one datagram at a time, up to a burst; whether it was a whole one, which left more there.
    #[must_use]
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        each: impl FnMut(SocketAddr, &[u8]),
    ) -> bool {
        let (ask, full) = (self.ask, self.full_bursts);
        // An error is an ICMP error that an earlier datagram caused, or the news that there is nothing: nothing was received.
        let _ = socket.try_io(Interest::READABLE, || {
            match self.take(socket.as_raw_fd(), each)? {
                // The queue is empty: no need to ask again before the kernel says so.
                taken if taken < ask => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        self.full_bursts > full
    }

    /// Messages taken; each is one datagram or a run of them.
    fn take(&mut self, fd: RawFd, mut each: impl FnMut(SocketAddr, &[u8])) -> io::Result<usize> {
        let ask = self.ask;
        // The kernel shortens the room for control data in the headers, so they serve once.
        let mut headers = MultiHeaders::preallocate(ask, Some(cmsg_space!(i32)));
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffer
            .chunks_exact_mut(ROOM)
            .take(ask)
            .map(|room| [IoSliceMut::new(room)])
            .collect();
        let messages = recvmmsg(fd, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let mut taken = 0;
        for message in messages {
            taken += 1;
            let Some(from) = message.address.as_ref().and_then(address) else {
                continue;
            };
            let octets = message.iovs().next().unwrap_or_default();
            let size = segment_size(&message).unwrap_or(octets.len()).max(1);
            let mut datagrams = octets.chunks(size);
            // An empty datagram is one too.
            let first = datagrams.next().unwrap_or_default();
            for datagram in std::iter::once(first).chain(datagrams) {
                self.datagrams += 1;
                each(from, datagram);
            }
        }
        self.bursts += 1;
        self.full_bursts += u64::from(taken == ask && ask == MOST);
        self.ask = (taken * 2).clamp(FEWEST, MOST);
        Ok(taken)
    }
}

/// The size of every datagram of a coalesced run but the last.
fn segment_size(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<usize> {
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
        _ => None,
    })
}

/// The address without scope and flow label, which are of no meaning to a peer.
fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || from.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    let v6 = || from.as_sockaddr_in6();
    v4().or_else(|| v6().map(|v6| SocketAddr::new(v6.ip().to_canonical(), v6.port())))
}
