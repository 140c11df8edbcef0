//! The shell around the state machine: sockets, clock, admin requests, log. The only async code of this crate.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::Level;

use crate::admin::{Query, Request};
use crate::config::MappingConfig;
use crate::discard::Discard;
use crate::limits::{Rate, TokenBucket};
use crate::server::{Event, MapServer};
use crate::transmit::{SourcePort, Transmit};
use crate::view::StatusView;
use crate::wire::CONTROL_PORT;

/// How long an address may be in use, or not there yet, when the daemon starts.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to bind.
const BIND_RETRY: Duration = Duration::from_millis(50);
/// Octets the kernel may hold for a socket while registrations come in bursts.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Datagrams taken from one socket before the others get their turn.
const BATCH: usize = 64;
/// Log lines per second of one kind that received packets may cause (CW-38), and how many at once.
const LOG_PER_SECOND: u32 = 10;
const LOG_BURST: u32 = 50;

/// Serves `config` until `shutdown`; calls `ready` once every socket is bound.
///
/// # Errors
/// An address of `listen` cannot be bound, or `listen` is empty.
pub async fn run(
    config: MappingConfig,
    requests: mpsc::Receiver<Request>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let sockets = Sockets::bind(&config.listen).await?;
    let started = Instant::now();
    let name = config.name.clone();
    let server = MapServer::new(config, rand::random());
    ready();
    let mut daemon = Daemon { name, server, sockets, started, log: EventLog::default() };
    daemon.serve(requests, shutdown).await;
    Ok(())
}

struct Daemon {
    name: String,
    server: MapServer,
    sockets: Sockets,
    started: Instant,
    log: EventLog,
}

impl Daemon {
    async fn serve(
        &mut self,
        mut requests: mpsc::Receiver<Request>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut buffer = vec![0; MAX_DATAGRAM];
        let mut admin_open = true;
        loop {
            let timeout = self.server.poll_timeout();
            tokio::select! {
                () = &mut shutdown => return,
                at = self.sockets.readable() => self.receive(at, &mut buffer),
                () = sleep_until(timeout) => self.server.handle_timeout(Instant::now()),
                request = requests.recv(), if admin_open => match request {
                    Some(request) => self.answer(request),
                    None => admin_open = false,
                },
            }
            self.flush();
        }
    }

    /// Takes a batch from one socket that has something.
    fn receive(&mut self, at: usize, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let bound = &self.sockets.bound[at];
            match bound.socket.try_recv_from(buffer) {
                Ok((length, from)) => {
                    let (local, from) = (bound.local, canonical(from));
                    self.server.handle_input(Instant::now(), local, from, &buffer[..length]);
                    self.flush();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error that an earlier datagram caused: nothing was received.
                Err(_) => {}
            }
        }
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.server.poll_transmit() {
            if let Err(error) = self.sockets.send(&transmit) {
                tracing::debug!(destination = %transmit.destination, %error, "cannot send");
                self.server.send_failed();
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.log.write(Instant::now(), &event);
        }
    }

    fn answer(&self, request: Request) {
        let now = Instant::now();
        let answer = match request.query {
            Query::Sites => json(&self.server.sites_view(now)),
            Query::Registrations => json(&self.server.registrations_view(now)),
            Query::Subscriptions => json(&self.server.subscriptions_view(now)),
            Query::Counters => json(&self.server.counters_view()),
            Query::Drops => json(&self.server.drops_view()),
            Query::Status => json(&self.status(now)),
            Query::MapCache | Query::Locators => Err("this role has no map-cache".to_owned()),
        };
        // The operator may have gone already.
        drop(request.reply.send(answer));
    }

    fn status(&self, now: Instant) -> StatusView {
        let sites = self.server.sites_view(now);
        let mut notes = Vec::new();
        if sites.is_empty() {
            notes.push("No site is configured: every lookup is answered negatively.".to_owned());
        }
        let silent = sites.iter().filter(|site| site.registered == 0).count();
        if silent > 0 {
            notes.push(format!("{silent} of {} sites have no registration.", sites.len()));
        }
        StatusView {
            role: "mapping".to_owned(),
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            healthy: true,
            notes,
        }
    }
}

fn json(view: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(view).map_err(|error| error.to_string())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The address without scope and flow label, which are of no meaning to a peer.
fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

struct Bound {
    socket: UdpSocket,
    local: SocketAddr,
    port: SourcePort,
}

/// For every own address one socket on port 4342 and one on a random port.
struct Sockets {
    bound: Vec<Bound>,
    /// Where the last search for a readable socket ended, so that each gets its turn.
    turn: usize,
}

impl Sockets {
    async fn bind(addresses: &[IpAddr]) -> io::Result<Self> {
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

    /// The index of a socket with something to read.
    async fn readable(&mut self) -> usize {
        poll_fn(|context| self.poll_readable(context)).await
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<usize> {
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

    /// A full send queue is an error like any other: peers retransmit.
    fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let bound = self
            .bound
            .iter()
            .find(|b| b.local.ip() == transmit.source && b.port == transmit.source_port)
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        bound.socket.try_send_to(&transmit.payload, transmit.destination).map(drop)
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
    // The kernel grants what its limit allows.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
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

/// Events to the log, no more than a reader can follow (CW-38); what anybody can cause has a share of its own.
#[derive(Default)]
struct EventLog {
    refusals: TokenBucket,
    changes: TokenBucket,
    suppressed: u64,
}

impl EventLog {
    fn write(&mut self, now: Instant, event: &Event) {
        let level = level(event);
        if level == Level::DEBUG && !tracing::enabled!(Level::DEBUG) {
            return;
        }
        let bucket = match event {
            Event::Refused(_) | Event::Discarded { .. } => &mut self.refusals,
            _ => &mut self.changes,
        };
        if !bucket.take(now, Rate::new(LOG_PER_SECOND, LOG_BURST)) {
            self.suppressed += 1;
            return;
        }
        if self.suppressed > 0 {
            tracing::info!(events = self.suppressed, "more events were not logged");
            self.suppressed = 0;
        }
        match level {
            Level::DEBUG => tracing::debug!("{event}"),
            Level::WARN => tracing::warn!("{event}"),
            _ => tracing::info!("{event}"),
        }
    }
}

/// Messages that are not understood have to be logged (CW-07, CW-10, CW-11); of other noise the counters tell enough.
fn level(event: &Event) -> Level {
    match event {
        Event::Discarded {
            reason: Discard::UnknownAfi | Discard::UnsupportedEid | Discard::UnknownVendor,
            ..
        }
        | Event::Refused(_)
        | Event::NotifyUnacknowledged { .. } => Level::WARN,
        Event::Discarded { .. } => Level::DEBUG,
        _ => Level::INFO,
    }
}

#[cfg(test)]
mod tests;
