//! A thousand numbered datagrams a second from one namespace to another, each sent back.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;

const PORT: u16 = 7007;
const INTERVAL: Duration = Duration::from_millis(1);
/// How long an answer may be under way when the last datagram is sent.
const TAIL: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);

/// A stream that runs.
pub struct Stream {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<Vec<Instant>>>,
    receiver: JoinHandle<io::Result<Vec<u64>>>,
    answers: JoinHandle<io::Result<Vec<u64>>>,
}

/// What became of a stream.
pub struct Delivery {
    sent: Vec<Instant>,
    arrived: Vec<bool>,
    answered: Vec<bool>,
}

impl Stream {
    /// Sends from `source` in `from` to `destination` in `to`.
    ///
    /// # Errors
    /// An address is not there.
    pub fn start(
        (from, source): (&Namespace, IpAddr),
        (to, destination): (&Namespace, IpAddr),
    ) -> io::Result<Self> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let there = to.run(move || UdpSocket::bind((destination, PORT)))??;
        let here = from.run(move || UdpSocket::bind((source, 0)))??;
        for socket in [&there, &here] {
            socket.set_read_timeout(Some(LOOK))?;
        }
        let (finished, back) = (Arc::clone(&done), here.try_clone()?);
        let answers = thread::spawn(move || receive(&back, &finished, false));
        let finished = Arc::clone(&done);
        let receiver = thread::spawn(move || receive(&there, &finished, true));
        let stopped = Arc::clone(&stop);
        let to = SocketAddr::new(destination, PORT);
        let sender = thread::spawn(move || send(&here, to, &stopped));
        Ok(Self { stop, done, sender, receiver, answers })
    }

    /// Ends it, and waits for what is under way.
    ///
    /// # Errors
    /// A socket failed.
    pub fn finish(self) -> io::Result<Delivery> {
        let panicked = |_| io::Error::other("a thread of the stream panicked");
        self.stop.store(true, Ordering::Release);
        let sent = self.sender.join().map_err(panicked)??;
        thread::sleep(TAIL);
        self.done.store(true, Ordering::Release);
        let seen = |numbers: Vec<u64>| {
            let mut seen = vec![false; sent.len()];
            for number in numbers {
                if let Some(seen) = usize::try_from(number).ok().and_then(|at| seen.get_mut(at)) {
                    *seen = true;
                }
            }
            seen
        };
        let arrived = seen(self.receiver.join().map_err(panicked)??);
        let answered = seen(self.answers.join().map_err(panicked)??);
        Ok(Delivery { sent, arrived, answered })
    }
}

impl Delivery {
    /// Datagrams sent.
    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Those that did not arrive.
    pub fn lost(&self) -> usize {
        self.arrived.iter().filter(|arrived| !**arrived).count()
    }

    /// Those that did not arrive though they were sent before `end`.
    pub fn lost_before(&self, end: Instant) -> usize {
        self.sent.iter().zip(&self.arrived).filter(|(at, arrived)| **at < end && !**arrived).count()
    }

    /// When those that did not arrive were sent.
    pub fn losses(&self, begin: Instant) -> Vec<Duration> {
        let all = self.sent.iter().zip(&self.arrived);
        all.filter(|(_, arrived)| !**arrived).map(|(at, _)| *at - begin).collect()
    }

    /// Those whose answer did not come back.
    pub fn unanswered(&self) -> usize {
        self.answered.iter().filter(|answered| !**answered).count()
    }

    /// The longest time in which nothing that was sent arrived: from the first that was lost to the next that arrived.
    pub fn outage(&self) -> Duration {
        let (mut longest, mut begin) = (Duration::ZERO, None);
        for (at, arrived) in self.sent.iter().zip(&self.arrived) {
            match (arrived, begin) {
                (false, None) => begin = Some(*at),
                (false, Some(since)) => longest = longest.max(*at - since),
                (true, Some(since)) => {
                    longest = longest.max(*at - since);
                    begin = None;
                }
                (true, None) => {}
            }
        }
        longest
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool) -> io::Result<Vec<Instant>> {
    let mut sent = Vec::new();
    let mut due = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let number = sent.len() as u64;
        sent.push(Instant::now());
        socket.send_to(&number.to_be_bytes(), to)?;
        due += INTERVAL;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, done: &AtomicBool, answer: bool) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut buffer = [0; 64];
    while !done.load(Ordering::Acquire) {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        if let Ok(number) = <[u8; 8]>::try_from(&buffer[..length]) {
            numbers.push(u64::from_be_bytes(number));
        }
        if answer {
            // Without a way back this one has no answer, which is counted.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    Ok(numbers)
}
