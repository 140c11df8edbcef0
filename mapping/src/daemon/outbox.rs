//! Datagrams out: many with one system call, in order for every destination.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::transmit::Transmit;

use super::sockets::Sockets;

/// Most datagrams that the kernel cuts one message into.
const MAX_SEGMENTS: usize = 64;
/// Most octets of such a message: what one datagram can have, less the headers.
const MAX_RUN: usize = 65_000;
/// Most datagrams given to the kernel with one system call.
const MOST: usize = 64;

/// Datagrams on their way out.
pub(super) struct Outbox {
    /// The socket and the datagram.
    waiting: Vec<(usize, Transmit)>,
    /// Payloads that are needed no more.
    pub(super) spent: Vec<Vec<u8>>,
    /// Whether the kernel cuts messages into datagrams.
    segmentation: bool,
    /// The socket whose send queue is full.
    blocked: Option<usize>,
    /// Datagrams sent.
    pub(super) datagrams: u64,
    /// System calls that sent them.
    pub(super) bursts: u64,
    /// Times a send queue was full.
    pub(super) full: u64,
}

/// Datagrams from the start of a list, and how they go.
enum Step {
    /// So many of equal size to one destination, the last one may be shorter: as one message.
    Run(usize),
    /// So many others.
    Several(usize),
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            waiting: Vec::new(),
            spent: Vec::new(),
            segmentation: true,
            blocked: None,
            datagrams: 0,
            bursts: 0,
            full: 0,
        }
    }

    /// Takes a datagram that leaves with the next [`Self::flush`].
    pub(super) fn push(&mut self, socket: usize, transmit: Transmit) {
        self.waiting.push((socket, transmit));
    }

    /// The socket to wait for before anything more is sent.
    pub(super) const fn blocked(&self) -> Option<usize> {
        self.blocked
    }

    /// Sends everything, or as much as the send queues take; what cannot be sent is told to `failed`.
    pub(super) fn flush(
        &mut self,
        sockets: &Sockets,
        mut failed: impl FnMut(SocketAddr, &io::Error),
    ) {
        self.blocked = None;
        if self.waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        // Stable: the order for one destination stays.
        waiting.sort_by_key(|(socket, transmit)| (*socket, transmit.destination));
        let mut sent = 0;
        while let Some((socket, _)) = waiting.get(sent) {
            let rest = &waiting[sent..];
            let of_socket = rest.partition_point(|(other, _)| other == socket);
            let bound = &sockets.bound[*socket].socket;
            match self.send_some(bound, &rest[..of_socket], &mut failed) {
                0 => {
                    self.blocked = Some(*socket);
                    self.full += 1;
                    break;
                }
                count => sent += count,
            }
        }
        self.spent.extend(waiting.drain(..sent).map(|(_, transmit)| transmit.payload));
        self.waiting = waiting;
    }

    /// Sends some from the start of `list` and says how many are done, be they sent or failed; 0 if the send queue is full.
    fn send_some(
        &mut self,
        socket: &UdpSocket,
        list: &[(usize, Transmit)],
        failed: &mut impl FnMut(SocketAddr, &io::Error),
    ) -> usize {
        let result = match self.next_step(list) {
            Step::Run(count) => match send_run(socket, &list[..count]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    // Not every path takes runs: too large for its MTU, or an interface that cannot compute checksums.
                    self.segmentation &= error.kind() != io::ErrorKind::InvalidInput;
                    send_several(socket, &list[..count])
                }
                result => result.map(|()| count),
            },
            Step::Several(count) => send_several(socket, &list[..count]),
        };
        match result {
            Ok(count) => {
                self.datagrams += count as u64;
                self.bursts += 1;
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                failed(list[0].1.destination, &error);
                1
            }
        }
    }

    fn next_step(&self, list: &[(usize, Transmit)]) -> Step {
        match run(list) {
            count if count > 1 && self.segmentation => Step::Run(count),
            _ if !self.segmentation => Step::Several(list.len().min(MOST)),
            _ => {
                let limit = list.len().min(MOST);
                let next_run = (1..limit).find(|&at| run(&list[at..]) > 1);
                Step::Several(next_run.unwrap_or(limit))
            }
        }
    }
}

/// How many datagrams at the start of `list` can go as one message.
fn run(list: &[(usize, Transmit)]) -> usize {
    let Some((_, first)) = list.first() else {
        return 0;
    };
    let size = first.payload.len();
    let mut count = 1;
    for (_, next) in &list[1..] {
        let fits = count < MAX_SEGMENTS && (count + 1) * size <= MAX_RUN;
        if !fits || next.destination != first.destination || next.payload.len() > size {
            break;
        }
        count += 1;
        if next.payload.len() < size {
            break;
        }
    }
    count
}

fn send_run(socket: &UdpSocket, run: &[(usize, Transmit)]) -> io::Result<()> {
    let slices: Vec<IoSlice<'_>> = run.iter().map(|(_, t)| IoSlice::new(&t.payload)).collect();
    // A run is within 64 KiB.
    let size = run[0].1.payload.len() as u16;
    let control = [ControlMessage::UdpGsoSegments(&size)];
    let to = SockaddrStorage::from(run[0].1.destination);
    socket.try_io(Interest::WRITABLE, || {
        sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    })
}

/// How many were sent, at least one.
fn send_several(socket: &UdpSocket, list: &[(usize, Transmit)]) -> io::Result<usize> {
    if let [(_, only)] = list {
        return socket.try_send_to(&only.payload, only.destination).map(|_| 1);
    }
    let destinations: Vec<SocketAddrAny> =
        list.iter().map(|(_, t)| SocketAddrAny::from(t.destination)).collect();
    let slices: Vec<[IoSlice<'_>; 1]> =
        list.iter().map(|(_, t)| [IoSlice::new(&t.payload)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        list.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut headers: Vec<MMsgHdr<'_>> = destinations
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((to, slice), control)| MMsgHdr::new_with_addr(to, slice, control))
        .collect();
    socket.try_io(Interest::WRITABLE, || {
        Ok(sendmmsg(socket, &mut headers, SendFlags::DONTWAIT)?.max(1))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::transmit::SourcePort;

    fn list(of: &[(u8, usize)]) -> Vec<(usize, Transmit)> {
        let transmit = |&(host, size): &(u8, usize)| Transmit {
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            source_port: SourcePort::Control,
            destination: SocketAddr::new(Ipv4Addr::new(192, 0, 2, host).into(), 4342),
            payload: vec![0; size],
        };
        of.iter().map(|datagram| (0, transmit(datagram))).collect()
    }

    #[test]
    fn a_run_is_to_one_destination_and_only_its_last_datagram_is_shorter() {
        assert_eq!(run(&list(&[])), 0);
        assert_eq!(run(&list(&[(1, 50)])), 1);
        assert_eq!(run(&list(&[(1, 50), (1, 50), (1, 50)])), 3);
        assert_eq!(run(&list(&[(1, 50), (1, 40), (1, 40)])), 2);
        assert_eq!(run(&list(&[(1, 50), (1, 60)])), 1);
        assert_eq!(run(&list(&[(1, 50), (2, 50)])), 1);
        assert_eq!(run(&list(&[(1, 1_200); 200])), 54);
        assert_eq!(run(&list(&[(1, 50); 200])), MAX_SEGMENTS);
    }

    #[test]
    fn what_is_no_run_goes_up_to_the_next_run() {
        let mut outbox = Outbox::new();
        let mixed = list(&[(1, 50), (2, 50), (3, 50), (3, 50)]);
        assert!(matches!(outbox.next_step(&mixed), Step::Several(2)));
        assert!(matches!(outbox.next_step(&mixed[2..]), Step::Run(2)));
        outbox.segmentation = false;
        assert!(matches!(outbox.next_step(&mixed), Step::Several(4)));
    }
}
