//! A TCP transfer both ways with every octet compared.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::lab::namespace::Namespace;

/// Octets per write and per comparison.
const CHUNK: usize = 64 * 1024;
/// How long a single read, write or the connection may usually take.
const STALL: Duration = Duration::from_secs(5);

/// A transfer that ended well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// Octets in each direction.
    pub(crate) octets: usize,
    /// For both directions together.
    pub(crate) took: Duration,
}

impl std::fmt::Display for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabits = self.octets as f64 * 16.0 / 1e6 / self.took.as_secs_f64();
        write!(f, "{} MB each way, {megabits:.0} Mbit/s", self.octets / 1_000_000)
    }
}

/// Sends `octets` from client to server, then the same number back; fails on a stall or on a wrong octet.
pub(crate) fn transfer(
    client: (&Namespace, IpAddr),
    server: (&Namespace, IpAddr),
    octets: usize,
) -> io::Result<Transfer> {
    transfer_with(client, server, octets, STALL)
}

/// As [`transfer`], over a path that may stall for up to `stall`.
pub(crate) fn transfer_with(
    (client, client_address): (&Namespace, IpAddr),
    (server, server_address): (&Namespace, IpAddr),
    octets: usize,
    stall: Duration,
) -> io::Result<Transfer> {
    let listener = server.run(move || TcpListener::bind((server_address, 0)))??;
    let target = listener.local_addr()?;
    let serving = thread::spawn(move || {
        let mut stream = accept(&listener, stall)?;
        receive(&mut stream, octets, 1)?;
        send(&mut stream, octets, 2)
    });
    let begin = Instant::now();
    let outcome = client.run(move || -> io::Result<()> {
        let mut stream = connect(client_address, target, stall)?;
        send(&mut stream, octets, 1)?;
        receive(&mut stream, octets, 2)
    })?;
    let served = serving.join().map_err(|_| io::Error::other("the TCP server panicked"))?;
    outcome.and(served)?;
    Ok(Transfer { octets, took: begin.elapsed() })
}

/// Waits for one connection, but not for ever.
pub(crate) fn accept(listener: &TcpListener, stall: Duration) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + stall;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return limited(stream, stall);
            }
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Connects; every later read and write takes at most `stall`.
pub(crate) fn connect(
    source: IpAddr,
    target: SocketAddr,
    stall: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&target.into(), stall)?;
    limited(socket.into(), stall)
}

fn limited(stream: TcpStream, stall: Duration) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(stall))?;
    stream.set_write_timeout(Some(stall))?;
    Ok(stream)
}

fn send(stream: &mut TcpStream, octets: usize, seed: u64) -> io::Result<()> {
    let mut content = Content(seed);
    let mut left = octets;
    while left > 0 {
        let chunk = content.next(left.min(CHUNK));
        stream.write_all(&chunk)?;
        left -= chunk.len();
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(stream: &mut TcpStream, octets: usize, seed: u64) -> io::Result<()> {
    let mut content = Content(seed);
    let mut buffer = vec![0u8; CHUNK];
    let mut left = octets;
    while left > 0 {
        let chunk = &mut buffer[..left.min(CHUNK)];
        stream.read_exact(chunk)?;
        if *chunk != content.next(chunk.len()) {
            return Err(io::Error::other("an octet arrived changed"));
        }
        left -= chunk.len();
    }
    Ok(())
}

/// A reproducible stream of octets (xorshift64).
struct Content(u64);

impl Content {
    fn next(&mut self, length: usize) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(length + 8);
        while chunk.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.extend(self.0.to_ne_bytes());
        }
        chunk.truncate(length);
        chunk
    }
}
