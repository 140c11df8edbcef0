//! What hosts send: echo requests, and bounded streams of numbered datagrams.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// How long an echo may take: some peers need a third of a second.
const ECHO: Duration = Duration::from_secs(1);
/// Between two datagrams of a stream.
const PACE: Duration = Duration::from_millis(4);
/// How long after the last datagram the stream is over.
const LAST: Duration = Duration::from_secs(2);
/// Octets of a datagram.
const LENGTH: usize = 512;

/// A host, by one of its addresses.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// The address.
    pub address: IpAddr,
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Host<'_> {
    /// Sends one echo request; whether it was answered.
    ///
    /// # Errors
    /// What the kernel said, but not for a destination that cannot be reached now.
    pub fn ping(&self, to: &Host<'_>) -> io::Result<bool> {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (source, destination) = (self.address, to.address);
        self.namespace.run(move || ping(source, destination, number))?
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        let address = self.address;
        self.namespace.run(move || UdpSocket::bind((address, 0)))?
    }
}

fn ping(source: IpAddr, destination: IpAddr, number: u16) -> io::Result<bool> {
    let (family, protocol) = match source {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let raw = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    // The same calls as for UDP; the port is not looked at.
    let socket = UdpSocket::from(raw);
    rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
    if let Err(error) = socket.send_to(&request(source, number), (destination, 0)) {
        return if is_unreachable(&error) { Ok(false) } else { Err(error) };
    }
    let deadline = Instant::now() + ECHO;
    let mut buffer = [0; 2048];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
    {
        socket.set_read_timeout(Some(left))?;
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        // A raw ICMP socket delivers the IPv4 header too, but no IPv6 header.
        let header = if source.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let reply = if source.is_ipv4() { 0 } else { 129 };
        let message = buffer[..length].get(header..).unwrap_or_default();
        if from.ip() == destination
            && message.first() == Some(&reply)
            && message.get(4..6) == Some(&number.to_be_bytes()[..])
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable)
}

/// An echo request of 64 octets; the kernel sums ICMPv6.
fn request(source: IpAddr, number: u16) -> [u8; 64] {
    let mut message = [0x5a; 64];
    message[..8].copy_from_slice(&[8, 0, 0, 0, 0, 0, 0, 1]);
    message[4..6].copy_from_slice(&number.to_be_bytes());
    if source.is_ipv6() {
        message[0] = 128;
        return message;
    }
    let sum: u32 =
        message.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// Sends `count` datagrams each way at the same time; how many different ones arrived, of the first host's and of the
/// second's.
///
/// # Errors
/// What the kernel said.
pub fn both_ways(one: &Host<'_>, two: &Host<'_>, count: u32) -> io::Result<[u32; 2]> {
    let sockets = [one.socket()?, two.socket()?];
    for (socket, peer) in [(&sockets[0], &sockets[1]), (&sockets[1], &sockets[0])] {
        socket.connect(peer.local_addr()?)?;
    }
    let sent = AtomicBool::new(false);
    thread::scope(|scope| {
        let senders = sockets.each_ref().map(|socket| scope.spawn(move || send(socket, count)));
        let over = &sent;
        let receivers =
            sockets.each_ref().map(|socket| scope.spawn(move || receive(socket, count, over)));
        let senders = senders.map(|sender| sender.join().map_err(panicked));
        sent.store(true, Ordering::Release);
        senders.into_iter().collect::<io::Result<()>>()?;
        let [at_one, at_two] = receivers.map(|receiver| receiver.join().map_err(panicked));
        Ok([at_two?, at_one?])
    })
}

fn send(socket: &UdpSocket, count: u32) {
    let mut content = [0; LENGTH];
    for number in 0..count {
        content[..4].copy_from_slice(&number.to_be_bytes());
        // What the kernel refuses is a datagram that does not arrive.
        let _ = socket.send(&content);
        thread::sleep(PACE);
    }
}

/// Until all are there, or the last one was sent long ago.
fn receive(socket: &UdpSocket, count: u32, sent: &AtomicBool) -> u32 {
    let mut seen = HashSet::new();
    let mut buffer = [0; LENGTH];
    let mut over = None;
    // An error is an ICMP message or a pause.
    let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
    while seen.len() < count as usize && over.is_none_or(|over| Instant::now() < over) {
        if over.is_none() && sent.load(Ordering::Acquire) {
            over = Some(Instant::now() + LAST);
        }
        if let Ok(LENGTH) = socket.recv(&mut buffer) {
            seen.insert([buffer[0], buffer[1], buffer[2], buffer[3]]);
        }
    }
    u32::try_from(seen.len()).unwrap_or(u32::MAX)
}

fn panicked<T>(_: T) -> io::Error {
    io::Error::other("a thread of the stream panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_an_echo_request_makes_its_sum_all_ones() {
        let message = request(IpAddr::from([192, 0, 2, 1]), 0xfedc);
        let words = message.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
