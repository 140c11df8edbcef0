//! A steady one-way stream of numbered datagrams, a thousand a second, and what became of them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lab::namespace::Namespace;

/// Between two datagrams.
pub(crate) const PERIOD: Duration = Duration::from_millis(1);
/// How long the last datagrams may be under way.
const LAST: Duration = Duration::from_millis(500);
/// How long the receiver waits before it looks whether it is over.
const IDLE: Duration = Duration::from_millis(20);
/// Octets of a datagram: its number, and something to carry.
const LENGTH: usize = 64;

/// A running stream. Its sockets stay in their namespaces whatever happens to the links there.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    seen: Mutex<Seen>,
}

/// What became of a stream's datagrams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// When each was sent; its number is its place. One that the kernel refused counts as sent.
    pub(crate) sent: Vec<Instant>,
    /// What arrived, in that order: number and time.
    pub(crate) arrived: Vec<(u64, Instant)>,
}

impl Stream {
    /// Starts to send from `source` in `from` to `destination` in `to`.
    pub(crate) fn start(
        (from, source): (&Namespace, IpAddr),
        (to, destination): (&Namespace, IpAddr),
    ) -> io::Result<Self> {
        let receiving = to.run(move || UdpSocket::bind((destination, 0)))??;
        receiving.set_read_timeout(Some(IDLE))?;
        let target = receiving.local_addr()?;
        let sending = from.run(move || UdpSocket::bind((source, 0)))??;
        let shared = Arc::new(Shared::default());
        let receiver = thread::spawn({
            let shared = shared.clone();
            move || shared.receive(&receiving)
        });
        let sender = thread::spawn({
            let shared = shared.clone();
            move || shared.send(&sending, target)
        });
        Ok(Self { shared, sender, receiver })
    }

    /// What became of it so far; what is under way counts as lost.
    pub(crate) fn so_far(&self) -> Seen {
        self.shared.seen().clone()
    }

    /// Waits until a datagram sent after `begin` has arrived; when it arrived, or `None` if none did within `limit`.
    pub(crate) fn arrival_after(&self, begin: Instant, limit: Duration) -> Option<Instant> {
        let deadline = Instant::now() + limit;
        loop {
            let arrival = self.shared.seen().arrival_after(begin);
            if arrival.is_some() || Instant::now() > deadline {
                return arrival;
            }
            thread::sleep(PERIOD);
        }
    }

    /// Stops sending, waits for what is under way.
    pub(crate) fn finish(self) -> io::Result<Seen> {
        let Self { shared, sender, receiver } = self;
        let panicked = |_| io::Error::other("a stream's thread panicked");
        shared.stop_sending.store(true, Ordering::Release);
        sender.join().map_err(panicked)?;
        let deadline = Instant::now() + LAST;
        while shared.seen().lost() > 0 && Instant::now() < deadline {
            thread::sleep(PERIOD);
        }
        shared.stop_receiving.store(true, Ordering::Release);
        receiver.join().map_err(panicked)?;
        let seen = shared.seen().clone();
        Ok(seen)
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, socket: &UdpSocket, target: SocketAddr) {
        let begin = Instant::now();
        let mut content = [0u8; LENGTH];
        let mut number = 0u64;
        while !self.stop_sending.load(Ordering::Acquire) {
            content[..8].copy_from_slice(&number.to_be_bytes());
            self.seen().sent.push(Instant::now());
            // What the kernel refuses is a datagram that does not arrive.
            let _ = socket.send_to(&content, target);
            number += 1;
            let next = begin + PERIOD * u32::try_from(number).unwrap_or(u32::MAX);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn receive(&self, socket: &UdpSocket) {
        let mut content = [0u8; 2 * LENGTH];
        while !self.stop_receiving.load(Ordering::Acquire) {
            let Ok((LENGTH, _)) = socket.recv_from(&mut content) else { continue };
            let number = content[..8].try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX);
            self.seen().arrived.push((number, Instant::now()));
        }
    }
}

impl Seen {
    /// Datagrams that were sent and never arrived.
    pub(crate) fn lost(&self) -> usize {
        self.sent.len().saturating_sub(self.distinct())
    }

    /// Datagrams that arrived more than once, each time counted.
    pub(crate) fn duplicates(&self) -> usize {
        self.arrived.len() - self.distinct()
    }

    /// Datagrams that arrived after one with a higher number (RFC 4737 §3.3), duplicates not counted.
    pub(crate) fn reordered(&self) -> usize {
        let (mut highest, mut seen, mut count) = (None, BTreeSet::new(), 0);
        for &(number, _) in &self.arrived {
            if seen.insert(number) {
                count += usize::from(highest > Some(number));
                highest = highest.max(Some(number));
            }
        }
        count
    }

    /// The longest time without an arrival, from the first arrival to the last.
    pub(crate) fn outage(&self) -> Duration {
        let gaps = self.arrived.windows(2).map(|pair| pair[1].1 - pair[0].1);
        gaps.max().unwrap_or_default()
    }

    /// The longest time without an arrival that ended after `begin` and began before `end`.
    pub(crate) fn outage_between(&self, begin: Instant, end: Instant) -> Duration {
        let pairs = self.arrived.windows(2).map(|pair| (pair[0].1, pair[1].1));
        let gaps = pairs.filter(|(last, next)| *next > begin && *last < end);
        gaps.map(|(last, next)| next - last).max().unwrap_or_default()
    }

    /// When the first datagram that was sent after `begin` arrived.
    pub(crate) fn arrival_after(&self, begin: Instant) -> Option<Instant> {
        let first = self.sent.partition_point(|sent| *sent < begin) as u64;
        self.arrived.iter().find(|(number, _)| *number >= first).map(|(_, time)| *time)
    }

    /// How many datagrams that were sent between two moments never arrived.
    pub(crate) fn lost_between(&self, begin: Instant, end: Instant) -> usize {
        let arrived: BTreeSet<u64> = self.arrived.iter().map(|(number, _)| *number).collect();
        let first = self.sent.partition_point(|sent| *sent < begin) as u64;
        let behind = self.sent.partition_point(|sent| *sent < end) as u64;
        (first..behind).filter(|number| !arrived.contains(number)).count()
    }

    fn distinct(&self) -> usize {
        self.arrived.iter().map(|(number, _)| *number).collect::<BTreeSet<_>>().len()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, .. } = self;
        write!(
            f,
            "{} sent, {} lost, {} twice, {} out of order, outage {:.1} ms",
            sent.len(),
            self.lost(),
            self.duplicates(),
            self.reordered(),
            self.outage().as_secs_f64() * 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_outage_duplicates_and_reordering_are_told_apart() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let sent = (0..10).map(at).collect();
        // 4 and 5 are lost, 7 overtakes 6, 8 comes twice.
        let arrived = [(0, 0), (1, 1), (2, 2), (3, 3), (7, 7), (6, 8), (8, 8), (8, 9), (9, 9)];
        let arrived = arrived.map(|(number, ms)| (number, at(ms))).to_vec();
        let seen = Seen { sent, arrived };
        assert_eq!((seen.lost(), seen.duplicates(), seen.reordered()), (2, 1, 1));
        assert_eq!(seen.outage(), Duration::from_millis(4));
        assert_eq!(seen.outage_between(at(8), at(9)), Duration::from_millis(1));
        assert_eq!(seen.arrival_after(at(4)), Some(at(7)));
        assert_eq!(seen.lost_between(at(0), at(4)), 0);
        assert_eq!(seen.lost_between(at(4), at(6)), 2);
        assert_eq!(seen.to_string(), "10 sent, 2 lost, 1 twice, 1 out of order, outage 4.0 ms");
    }

    #[test]
    fn nothing_that_arrived_is_all_lost() {
        let seen = Seen { sent: vec![Instant::now(); 3], arrived: Vec::new() };
        assert_eq!((seen.lost(), seen.outage()), (3, Duration::ZERO));
        assert_eq!(seen.arrival_after(seen.sent[0]), None);
    }
}
