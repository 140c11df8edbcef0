//! Sockets that stand for ETRs and ITRs: they send trains of messages and count the answers by their nonces.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mapping::wire::CONTROL_PORT;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
};

use super::messages::Messages;
use super::meter::percentile;

/// After this long without any answer, what is outstanding counts as lost.
const SILENCE: Duration = Duration::from_millis(1_500);
/// Below so many messages per second, the time of one is known to a millisecond only.
const SLOW: f64 = 2_000.0;
/// Consecutive messages of one sender that leave with one system call.
const LONGEST_TRAIN: usize = 32;
/// Most sockets to read before anything is sent, and if sending must be in time.
const READ_AT_ONCE: usize = 256;
const READ_IN_TIME: usize = 16;
const QUARTER: Duration = Duration::from_millis(250);
/// Octets each socket may hold.
const RECEIVE_BUFFER: usize = 8 << 20;

/// How fast to send.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as answers come, with at most so many outstanding.
    Window(usize),
    /// So many messages per second: a train leaves when its first message is due, and from then on its answers are late, whether it
    /// left in time or not.
    Rate(f64),
}

/// What became of some messages.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Messages sent.
    pub sent: usize,
    /// Messages answered.
    pub answered: usize,
    /// From the first one sent to the last answer.
    pub elapsed: Duration,
    /// How long each answer took, sorted.
    pub latencies: Vec<Duration>,
    /// How long 99 of 100 answers took at most, for each quarter of a second.
    pub quarters: Vec<Duration>,
}

/// One socket per sender.
pub struct Senders {
    sockets: Vec<UdpSocket>,
    epoll: Epoll,
    buffer: Vec<u8>,
    server: SockaddrStorage,
}

impl Senders {
    /// Binds port 4342 of every one of `addresses`, to send to `server`.
    pub fn bind(addresses: &[IpAddr], server: IpAddr) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let mut sockets = Vec::new();
        for (at, &address) in addresses.iter().enumerate() {
            let socket = open(address)?;
            if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
            }
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
            sockets.push(socket);
        }
        let server = SocketAddr::new(server, CONTROL_PORT).into();
        Ok(Self { sockets, epoll, buffer: vec![0; 1 << 16], server })
    }

    /// Sends `messages`, whose first nonce is `first`, and waits for the answers.
    pub fn run(&mut self, messages: &Messages, first: u64, pace: Pace) -> io::Result<Outcome> {
        let started = Instant::now();
        let mut run = Run {
            first,
            started,
            sent_at: vec![None; messages.len()],
            sent: 0,
            ends: Vec::new(),
            outcome: Outcome::default(),
        };
        let mut heard = started;
        while run.outcome.answered < messages.len() {
            let now = Instant::now();
            let before = run.outcome.answered;
            let may_send = run.allowance(now, pace).min(messages.len());
            while run.sent < may_send {
                let (end, since) = match pace {
                    Pace::Window(_) => (may_send, None),
                    Pace::Rate(rate) => (messages.len(), Some(run.due(rate))),
                };
                if !self.send_train(messages, &mut run, end, since)? {
                    break;
                }
            }
            self.drain(&mut run, pace)?;
            // Nothing outstanding, and nothing due: no wonder that nothing comes.
            let idle = run.outstanding() == 0 && run.sent < messages.len();
            if run.outcome.answered > before || idle {
                heard = heard.max(now);
            }
            if now > heard + SILENCE {
                if run.sent == messages.len() {
                    break;
                }
                // Lost: the window opens for the rest.
                run.outcome.sent += run.outstanding();
                heard = now;
            }
        }
        run.outcome.elapsed = run.outcome.elapsed.max(Duration::from_nanos(1));
        run.outcome.sent = run.sent;
        run.outcome.quarters = run.quarters();
        run.outcome.latencies.sort_unstable();
        Ok(run.outcome)
    }

    /// Consecutive messages of one sender, whose answers take as long as from `since`, or from now; false if its send queue is full.
    fn send_train(
        &self,
        messages: &Messages,
        run: &mut Run,
        end: usize,
        since: Option<Instant>,
    ) -> io::Result<bool> {
        let sender = messages.senders[run.sent];
        let end = end.min(run.sent + LONGEST_TRAIN);
        let same = messages.senders[run.sent..end].iter().take_while(|&&s| s == sender).count();
        let range = run.sent..run.sent + same;
        let size = messages.size as u16;
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let control = if same > 1 { &control[..] } else { &[] };
        let octets = [IoSlice::new(messages.octets(range.clone()))];
        let socket = self.sockets[usize::from(sender)].as_raw_fd();
        let since = since.unwrap_or_else(Instant::now);
        match sendmsg(socket, &octets, control, MsgFlags::MSG_DONTWAIT, Some(&self.server)) {
            Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(false),
            result => result?,
        };
        run.sent_at[range].fill(Some(since));
        run.sent += same;
        Ok(true)
    }

    fn drain(&mut self, run: &mut Run, pace: Pace) -> io::Result<()> {
        // A slow sender leaves the core to others.
        let patience: EpollTimeout = match pace {
            Pace::Rate(rate) if rate < SLOW => 1_u8.into(),
            _ => EpollTimeout::ZERO,
        };
        let mut ready = [EpollEvent::empty(); READ_AT_ONCE];
        let most = match pace {
            Pace::Window(_) => READ_AT_ONCE,
            Pace::Rate(_) => READ_IN_TIME,
        };
        let count = match self.epoll.wait(&mut ready[..most], patience) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        for event in &ready[..count] {
            let socket = self.sockets[event.data() as usize].as_raw_fd();
            let mut control = cmsg_space!(i32);
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = match recvmsg::<()>(socket, &mut slices, Some(&mut control), flags) {
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => continue,
                result => result?,
            };
            let size = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                _ => None,
            });
            let length = message.bytes;
            let now = Instant::now();
            for answer in self.buffer[..length].chunks(size.unwrap_or(length).max(1)) {
                run.answer(now, answer);
            }
        }
        Ok(())
    }
}

/// Port 4342 of `address`, even if a Map-Server in the same namespace has that port of every address.
fn open(address: IpAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, CONTROL_PORT)))?;
    Ok(socket.into())
}

struct Run {
    first: u64,
    started: Instant,
    sent_at: Vec<Option<Instant>>,
    sent: usize,
    /// Answers by the end of each quarter of a second.
    ends: Vec<usize>,
    /// `sent` counts what is given up until the run ends.
    outcome: Outcome,
}

impl Run {
    fn outstanding(&self) -> usize {
        // What was given up may be answered still.
        self.sent.saturating_sub(self.outcome.answered + self.outcome.sent)
    }

    /// How many may have been sent by `now`.
    fn allowance(&self, now: Instant, pace: Pace) -> usize {
        match pace {
            Pace::Window(window) => self.sent + window.saturating_sub(self.outstanding()),
            Pace::Rate(rate) => {
                1 + (now.duration_since(self.started).as_secs_f64() * rate) as usize
            }
        }
    }

    /// When the next message has to leave.
    fn due(&self, rate: f64) -> Instant {
        self.started + Duration::from_secs_f64(self.sent as f64 / rate)
    }

    /// Map-Notify and Map-Reply have their nonce at the same place.
    fn answer(&mut self, now: Instant, answer: &[u8]) {
        let nonce = answer.get(4..12).and_then(|nonce| nonce.try_into().ok());
        let Some(nonce) = nonce.map(u64::from_be_bytes) else { return };
        let Some(sent_at) = nonce
            .checked_sub(self.first)
            .and_then(|at| self.sent_at.get_mut(at as usize))
            .and_then(Option::take)
        else {
            return;
        };
        self.outcome.elapsed = now.duration_since(self.started);
        let quarter = (self.outcome.elapsed.as_nanos() / QUARTER.as_nanos()) as usize;
        while self.ends.len() < quarter {
            self.ends.push(self.outcome.latencies.len());
        }
        self.outcome.answered += 1;
        self.outcome.latencies.push(now.duration_since(sent_at));
    }

    /// Of the whole quarters of a second.
    fn quarters(&self) -> Vec<Duration> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let quarter = |(&start, &end): (&usize, &usize)| {
            let mut latencies = self.outcome.latencies[start..end].to_vec();
            latencies.sort_unstable();
            percentile(&latencies, 0.99)
        };
        starts.zip(&self.ends).map(quarter).collect()
    }
}
