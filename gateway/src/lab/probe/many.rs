//! Thousands of UDP flows between two hosts, one packet at a time, and which locator each took on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::craft::{self, Header};
use crate::lab::decode::Datagram;
use crate::lab::namespace::Namespace;

/// Destination port of all flows.
const PORT: u16 = 4_000;
/// Packets sent without a pause.
const BURST: u32 = 16;
/// Packets under way. With more of them a machine that is busy otherwise would let the queue of a tunnel device (500 packets) run over.
const WINDOW: u64 = 400;
/// `IPPROTO_RAW`: the sender writes the IP header.
const RAW: i32 = 255;
/// Without an arrival for so long, nothing is under way any more.
const QUIET: Duration = Duration::from_millis(300);
/// How long the sink waits before it looks whether it is over.
const IDLE: Duration = Duration::from_millis(20);
/// Receive buffer of the sink, in octets.
const BUFFER: usize = 16 << 20;

/// Flows that differ in their source port only, so that the same ones can be sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flows {
    /// Where they come from.
    pub(crate) source: IpAddr,
    /// Where they go to.
    pub(crate) destination: IpAddr,
    /// Source port of the first one.
    pub(crate) first_port: u16,
    /// How many, so that the ports do not run out.
    pub(crate) count: u16,
    /// Octets of each packet, its IP and UDP headers included.
    pub(crate) length: usize,
}

/// What was sent and what came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    /// Packets sent.
    pub(crate) sent: u64,
    /// Packets that arrived.
    pub(crate) arrived: u64,
}

/// Flows that are sent over and over until told to finish.
pub(crate) struct Ongoing {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<u64>>,
    sink: Sink,
}

/// Counts what arrives for the flows.
struct Sink {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Flows {
    /// Sends `rounds` packets of every flow from `from`, `rate` in a second, and waits for what arrives in `to`.
    pub(crate) fn send(
        self,
        from: &Namespace,
        to: &Namespace,
        (rounds, rate): (u32, u32),
    ) -> io::Result<Delivery> {
        let sink = Sink::start(to, self.destination)?;
        let arrived = sink.arrived.clone();
        let sent = from.run(move || -> io::Result<u64> {
            let mut sender = Sender::new(self, rate, arrived)?;
            (0..rounds).try_for_each(|_| sender.round(&AtomicBool::new(false)))?;
            Ok(sender.sent)
        })??;
        Ok(Delivery { sent, arrived: sink.finish(sent)? })
    }

    /// Starts to send round after round, `rate` packets in a second.
    pub(crate) fn start(self, from: &Namespace, to: &Namespace, rate: u32) -> io::Result<Ongoing> {
        let sink = Sink::start(to, self.destination)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, arrived) = (stop.clone(), sink.arrived.clone());
        let sender = from.spawn(move || {
            let mut sender = Sender::new(self, rate, arrived)?;
            while !stopped.load(Ordering::Acquire) {
                sender.round(&stopped)?;
            }
            Ok(sender.sent)
        })?;
        Ok(Ongoing { stop, sender, sink })
    }
}

impl Ongoing {
    /// Stops sending and waits for what is under way.
    pub(crate) fn finish(self) -> io::Result<Delivery> {
        self.stop.store(true, Ordering::Release);
        let sent = self.sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
        Ok(Delivery { sent, arrived: self.sink.finish(sent)? })
    }
}

/// The locators that each flow took, by its source port.
pub(crate) type LocatorsOfFlows = BTreeMap<u16, BTreeSet<IpAddr>>;

/// The locators that the LISP data packets of `flows` were sent to.
pub(crate) fn locators<'a>(
    packets: impl IntoIterator<Item = &'a Datagram>,
    flows: &Flows,
) -> LocatorsOfFlows {
    let mut locators = LocatorsOfFlows::new();
    for packet in packets {
        let Some(inner) = packet.lisp().map(|lisp| &lisp.inner) else { continue };
        if let Some(udp) = inner.udp()
            && (inner.source, inner.destination) == (flows.source, flows.destination)
        {
            locators.entry(udp.source_port).or_default().insert(packet.destination);
        }
    }
    locators
}

struct Sender {
    flows: Flows,
    socket: Socket,
    target: SocketAddr,
    pause: Duration,
    next: Instant,
    sent: u64,
    arrived: Arc<AtomicU64>,
    /// Sent, but not waited for any more.
    given_up: u64,
}

impl Sender {
    fn new(flows: Flows, rate: u32, arrived: Arc<AtomicU64>) -> io::Result<Self> {
        let target = SocketAddr::new(flows.destination, 0);
        let socket =
            Socket::new(Domain::for_address(target), Type::RAW, Some(Protocol::from(RAW)))?;
        let pause = Duration::from_secs(1) * BURST / rate.max(1);
        let (next, sent, given_up) = (Instant::now(), 0, 0);
        Ok(Self { flows, socket, target, pause, next, sent, arrived, given_up })
    }

    fn round(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let header = Header::new(self.flows.source, self.flows.destination);
        let payload = vec![0x5a; self.flows.length.saturating_sub(header.length() + 8)];
        for flow in 0..self.flows.count {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let ports = (self.flows.first_port.saturating_add(flow), PORT);
            let packet = craft::udp(&header, ports, &payload, true);
            self.socket.send_to(&packet, &self.target.into())?;
            self.sent += 1;
            if self.sent.is_multiple_of(u64::from(BURST)) {
                // What the machine was late for is not made up for in one burst.
                self.next = self.next.max(Instant::now() - self.pause) + self.pause;
                thread::sleep(self.next.saturating_duration_since(Instant::now()));
                self.wait_for_window();
            }
        }
        Ok(())
    }

    fn wait_for_window(&mut self) {
        let missing = |this: &Self| {
            this.sent.saturating_sub(this.given_up + this.arrived.load(Ordering::Acquire))
        };
        let deadline = Instant::now() + QUIET;
        while missing(self) > WINDOW {
            if Instant::now() > deadline {
                self.given_up += missing(self);
                return;
            }
            thread::sleep(self.pause);
        }
    }
}

impl Sink {
    fn start(namespace: &Namespace, address: IpAddr) -> io::Result<Self> {
        let socket = namespace.run(move || UdpSocket::bind((address, PORT)))??;
        socket.set_read_timeout(Some(IDLE))?;
        // Forcing needs privilege over the first user namespace; without it the kernel's own limit holds.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
        }
        let (stop, arrived) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (stopped, count) = (stop.clone(), arrived.clone());
        let thread = thread::spawn(move || {
            let mut buffer = [0u8; 2048];
            while !stopped.load(Ordering::Acquire) {
                if socket.recv(&mut buffer).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { stop, arrived, thread })
    }

    /// Waits for the last of `sent` packets; returns how many came.
    fn finish(self, sent: u64) -> io::Result<u64> {
        let count = || self.arrived.load(Ordering::Relaxed);
        let (mut last, mut since) = (count(), Instant::now());
        while last < sent && since.elapsed() < QUIET {
            thread::sleep(IDLE);
            if count() != last {
                (last, since) = (count(), Instant::now());
            }
        }
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| io::Error::other("the sink panicked"))?;
        Ok(self.arrived.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::decode;

    #[test]
    fn flows_are_counted_by_the_locator_they_took() {
        let [itr, p, q, source, destination] =
            ["198.51.100.11", "198.51.100.21", "198.51.100.22", "192.0.2.1", "192.0.2.2"]
                .map(|address| address.parse::<IpAddr>().unwrap());
        let packet = |port: u16, locator: IpAddr| {
            let inner = craft::udp(&Header::new(source, destination), (port, 7), b"x", true);
            let outer = craft::lisp(&Header::new(itr, locator), 50_000, &inner, true);
            decode::datagram(&outer).unwrap()
        };
        let packets = [packet(1, p), packet(2, q), packet(1, p), packet(2, p)];
        let flows = Flows { source, destination, first_port: 1, count: 2, length: 29 };
        let locators = locators(&packets, &flows);
        assert_eq!(locators[&1], BTreeSet::from([p]));
        assert_eq!(locators[&2], BTreeSet::from([p, q]));
    }
}
