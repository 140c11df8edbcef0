//! TCP flows that send as fast as they can.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::lab::namespace::Namespace;

/// Octets per write.
const WRITTEN: usize = 256 * 1024;
/// Octets per read.
const READ: usize = 1024 * 1024;
/// How long a connection may take to come up.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// How often a thread without traffic looks whether it shall stop.
const IDLE_MS: u8 = 50;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// The listener among the receiver's events.
const LISTENER: u64 = u64::MAX;

/// Flows under way; end when dropped.
pub(crate) struct Flows {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Flows {
    /// Connects `count` flows from `client` to `server` and starts to send; returns when all are up.
    pub(crate) fn start(
        (client, source): (&Namespace, IpAddr),
        (server, destination): (&Namespace, IpAddr),
        count: usize,
    ) -> io::Result<Self> {
        raise_descriptor_limit()?;
        let listener = server.run(move || listen(destination))??;
        let target = listener.local_addr()?;
        let mut flows =
            Self { received: Arc::default(), stop: Arc::default(), threads: Vec::with_capacity(2) };
        let (received, stop) = (flows.received.clone(), flows.stop.clone());
        flows.threads.push(server.spawn(move || {
            let outcome = receive_until(&listener, &received, &stop);
            unless_stopped(outcome, &stop)
        })?);
        let streams = client.run(move || {
            (0..count).map(|_| connect(source, target)).collect::<io::Result<Vec<_>>>()
        })??;
        let stop = flows.stop.clone();
        flows.threads.push(client.spawn(move || {
            let outcome = send_until(&streams, &stop);
            unless_stopped(outcome, &stop)
        })?);
        Ok(flows)
    }

    /// Octets that arrived so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the flows; fails if one of the threads did before.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| io::Error::other("a TCP thread panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // Whoever drops flows without finishing them has a failure to report already.
            let _ = thread.join();
        }
    }
}

/// A thousand flows need two thousand descriptors.
fn raise_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn connect(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&target.into(), CONNECTED_WITHIN)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn receive_until(
    listener: &TcpListener,
    received: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut buffer = vec![0; READ];
    while !stop.load(Ordering::Relaxed) {
        for token in ready(&epoll)? {
            if token == LISTENER {
                while let Some(stream) = would_block(listener.accept())? {
                    let (stream, _) = stream;
                    stream.set_nonblocking(true)?;
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, streams.len() as u64);
                    epoll.add(&stream, event)?;
                    streams.push(stream);
                }
            } else if let Some(mut stream) = streams.get(token as usize)
                && let Some(octets) = would_block(stream.read(&mut buffer))?
            {
                received.fetch_add(octets as u64, Ordering::Relaxed);
                if octets == 0 {
                    epoll.delete(stream)?;
                }
            }
        }
    }
    Ok(())
}

fn send_until(streams: &[TcpStream], stop: &AtomicBool) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (token, stream) in streams.iter().enumerate() {
        epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLOUT, token as u64))?;
    }
    let content = vec![0x5a; WRITTEN];
    while !stop.load(Ordering::Relaxed) {
        for token in ready(&epoll)? {
            if let Some(mut stream) = streams.get(token as usize) {
                would_block(stream.write(&content))?;
            }
        }
    }
    Ok(())
}

/// Whichever thread stops first breaks the other's connections.
fn unless_stopped(outcome: io::Result<()>, stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Ordering::Acquire) { Ok(()) } else { outcome }
}

fn ready(epoll: &Epoll) -> io::Result<Vec<u64>> {
    let mut events = [EpollEvent::empty(); 64];
    let count = match epoll.wait(&mut events, IDLE_MS) {
        Ok(count) => count,
        Err(Errno::EINTR) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(events[..count].iter().map(EpollEvent::data).collect())
}

fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
