//! ICMP echo with chosen size, hop limit, traffic class and DF, and the errors that come back for it.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::craft::{self, Header};
use crate::lab::decode;
use crate::lab::namespace::Namespace;

/// What came back for an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The echo reply, after this time.
    Reply(Duration),
    /// ICMPv6 Packet Too Big, or ICMPv4 "fragmentation needed", with this MTU.
    TooBig(u32),
    /// Another ICMP error: type and code.
    Error(u8, u8),
    /// Nothing in time.
    Nothing,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(after) => write!(f, "reply in {:.1} ms", after.as_secs_f64() * 1e3),
            Self::TooBig(mtu) => write!(f, "packet too big, MTU {mtu}"),
            Self::Error(kind, code) => write!(f, "ICMP error type {kind} code {code}"),
            Self::Nothing => f.write_str("no answer"),
        }
    }
}

impl Answer {
    /// Whether the echo came back.
    pub(crate) fn is_reply(self) -> bool {
        matches!(self, Self::Reply(_))
    }
}

/// Sends one echo request of `length` octets (IP header included) from `namespace` and waits for what comes back.
pub(crate) fn ping(
    namespace: &Namespace,
    header: Header,
    length: usize,
    limit: Duration,
) -> io::Result<Answer> {
    static NEXT_ID: AtomicU16 = AtomicU16::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let listener = namespace.run(move || icmp_listener(header.source))??;
    let packet = craft::echo_request(&header, id, 1, length);
    let begin = Instant::now();
    match craft::send(namespace, packet, header.destination) {
        Ok(()) => {}
        // The host itself knows that the packet does not fit.
        Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {}
        Err(error) => return Err(error),
    }
    let key = u32::from(id) << 16 | 1;
    let mut buffer = vec![0u8; 65536];
    while let Some(left) = limit.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        listener.set_read_timeout(Some(left))?;
        let received = match (&listener).read(&mut buffer) {
            Ok(received) => &buffer[..received],
            Err(error) if is_timeout(&error) => break,
            Err(error) => return Err(error),
        };
        if let Some(answer) = answer_in(received, &header, key, begin) {
            return Ok(answer);
        }
    }
    Ok(Answer::Nothing)
}

/// Pings `count` times in a row, waiting for each answer; returns how many were not answered.
pub(crate) fn lost(
    namespace: &Namespace,
    header: Header,
    length: usize,
    count: usize,
) -> io::Result<usize> {
    let mut lost = 0;
    for _ in 0..count {
        lost += usize::from(!ping(namespace, header, length, Duration::from_secs(1))?.is_reply());
    }
    Ok(lost)
}

fn icmp_listener(source: IpAddr) -> io::Result<Socket> {
    let protocol = if source.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(source, 0)), Type::RAW, Some(protocol))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    Ok(socket)
}

fn answer_in(received: &[u8], request: &Header, key: u32, begin: Instant) -> Option<Answer> {
    // A raw ICMP socket delivers the IPv4 header too, but no IPv6 header.
    let message = match request.source {
        IpAddr::V4(_) => received.get(usize::from(received.first()? & 15) * 4..)?,
        IpAddr::V6(_) => received,
    };
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let rest = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
    let is_v4 = request.source.is_ipv4();
    match (is_v4, kind) {
        (true, 0) | (false, 129) => (rest == key).then(|| Answer::Reply(begin.elapsed())),
        (true, 3 | 11) | (false, 1..=4) => {
            let quoted = decode::datagram(message.get(8..)?)?;
            if quoted.destination != request.destination || quoted.icmp()?.rest != key {
                return None;
            }
            Some(match (is_v4, kind, code) {
                (true, 3, 4) => Answer::TooBig(rest & 0xffff),
                (false, 2, _) => Answer::TooBig(rest),
                _ => Answer::Error(kind, code),
            })
        }
        _ => None,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
