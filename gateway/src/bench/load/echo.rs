//! Single packets through an idle network: how long they take.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::namespace::Namespace;

/// Between two packets, so that everything has come to rest.
const PAUSE: Duration = Duration::from_millis(1);
/// A packet that took longer is lost.
const LOST: Duration = Duration::from_millis(200);
/// How often a receiver without packets looks whether it shall stop.
const IDLE: Duration = Duration::from_millis(20);
/// Octets of payload.
const LENGTH: usize = 16;

/// What became of packets that were sent one at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// How long each took, sorted.
    pub(crate) sorted: Vec<Duration>,
    /// How many never came.
    pub(crate) lost: usize,
}

impl Times {
    /// The time that this share of the packets did not exceed, in microseconds; `None` if none came.
    pub(crate) fn quantile_us(&self, share: f64) -> Option<f64> {
        let last = self.sorted.len().checked_sub(1)?;
        Some(self.sorted[(last as f64 * share).round() as usize].as_secs_f64() * 1e6)
    }

    fn add(&mut self, took: Option<Duration>) {
        match took {
            Some(took) => self.sorted.push(took),
            None => self.lost += 1,
        }
    }

    fn in_order(mut self) -> Self {
        self.sorted.sort();
        self
    }
}

/// Round trips from `source` to an echo server, one at a time for as long as `time`.
pub(crate) fn round_trips(
    namespace: &Namespace,
    source: IpAddr,
    server: SocketAddr,
    time: Duration,
) -> io::Result<Times> {
    namespace.run(move || {
        let socket = UdpSocket::bind((source, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(LOST))?;
        let (begin, mut times) = (Instant::now(), Times::default());
        let mut number = 0u64;
        while begin.elapsed() < time {
            number += 1;
            times.add(round_trip(&socket, number)?);
            thread::sleep(PAUSE);
        }
        Ok(times.in_order())
    })?
}

/// Sends one packet and waits for its own echo; late ones of others are passed over.
fn round_trip(socket: &UdpSocket, number: u64) -> io::Result<Option<Duration>> {
    let mut content = [0; LENGTH];
    content[..8].copy_from_slice(&number.to_be_bytes());
    let mut buffer = [0; LENGTH];
    let sent = Instant::now();
    socket.send(&content)?;
    while sent.elapsed() < LOST {
        if socket.recv(&mut buffer).is_ok() && buffer == content {
            return Ok(Some(sent.elapsed()));
        }
    }
    Ok(None)
}

/// The first packet to each of `destinations`, one at a time: how long until it has arrived in `receiver`.
pub(crate) fn first_packets(
    (sender, source): (&Namespace, IpAddr),
    receiver: &Namespace,
    destinations: Vec<IpAddr>,
) -> io::Result<Times> {
    let any: SocketAddr = if source.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = receiver.run(move || UdpSocket::bind(any))??;
    socket.set_read_timeout(Some(IDLE))?;
    let port = socket.local_addr()?.port();
    let (arrival, arrivals) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let receiving = receiver.spawn(move || {
        let mut buffer = [0; LENGTH];
        while !stopped.load(Ordering::Acquire) {
            let received = socket.recv(&mut buffer);
            // The one who listens is the one who stops this thread.
            let _ = received.map(|_| arrival.send((Instant::now(), buffer)));
        }
    })?;
    let times = sender.run(move || {
        let socket = UdpSocket::bind((source, 0))?;
        let mut times = Times::default();
        for (number, destination) in destinations.into_iter().enumerate() {
            let mut content = [0; LENGTH];
            content[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let sent = Instant::now();
            socket.send_to(&content, (destination, port))?;
            times.add(arrival_of(&content, sent, &arrivals));
            thread::sleep(PAUSE * 10);
        }
        Ok(times.in_order())
    })?;
    stop.store(true, Ordering::Release);
    // A panic of the thread has been printed.
    let _ = receiving.join();
    times
}

fn arrival_of(
    content: &[u8; LENGTH],
    sent: Instant,
    arrivals: &mpsc::Receiver<(Instant, [u8; LENGTH])>,
) -> Option<Duration> {
    loop {
        let (at, found) = arrivals.recv_timeout(LOST.saturating_sub(sent.elapsed())).ok()?;
        if found == *content {
            return Some(at - sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let sorted = (1..=101).map(Duration::from_micros).collect();
        let times = Times { sorted, lost: 0 };
        assert!((times.quantile_us(0.5).unwrap() - 51.0).abs() < 1e-6);
        assert!((times.quantile_us(0.99).unwrap() - 100.0).abs() < 1e-6);
        assert_eq!(Times::default().quantile_us(0.5), None);
    }
}
