//! A TCP session that lives on while things happen: small records there and back, each compared.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::tcp;
use crate::lab::namespace::Namespace;

/// Between two records.
const PERIOD: Duration = Duration::from_millis(5);
/// A session that is silent for so long is dead.
const STALL: Duration = Duration::from_secs(15);
/// Octets of a record.
const RECORD: usize = 512;

/// A session that goes on until it is told to finish.
pub(crate) struct Session {
    stop: Arc<AtomicBool>,
    server: JoinHandle<io::Result<()>>,
    writer: JoinHandle<io::Result<u64>>,
    reader: JoinHandle<io::Result<Survived>>,
}

/// A session that has ended well.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survived {
    /// Records that came back.
    pub(crate) records: u64,
    /// The longest wait for one.
    pub(crate) longest_wait: Duration,
}

impl std::fmt::Display for Survived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wait = self.longest_wait.as_secs_f64() * 1e3;
        write!(f, "{} records there and back, longest wait {wait:.0} ms", self.records)
    }
}

impl Session {
    /// Connects from `source` in `client` to `address` in `server` and starts to talk.
    pub(crate) fn start(
        (client, source): (&Namespace, IpAddr),
        (server, address): (&Namespace, IpAddr),
    ) -> io::Result<Self> {
        let listener = server.run(move || TcpListener::bind((address, 0)))??;
        let target = listener.local_addr()?;
        let server = thread::spawn(move || echo(tcp::accept(&listener, STALL)?));
        let stream = client.run(move || tcp::connect(source, target, STALL))??;
        stream.set_nodelay(true)?;
        let stop = Arc::<AtomicBool>::default();
        let mut sending = stream.try_clone()?;
        let stopped = stop.clone();
        let writer = thread::spawn(move || write(&mut sending, &stopped));
        let reader = thread::spawn(move || read(stream));
        Ok(Self { stop, server, writer, reader })
    }

    /// Ends the session in order; an error if it broke, stalled, or brought a wrong or no octet.
    pub(crate) fn finish(self) -> io::Result<Survived> {
        fn joined<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
            thread.join().map_err(|_| io::Error::other("a session's thread panicked"))?
        }
        self.stop.store(true, Ordering::Release);
        let written = joined(self.writer)?;
        let survived = joined(self.reader)?;
        joined(self.server)?;
        match survived.records == written {
            true => Ok(survived),
            false => Err(io::Error::other(format!(
                "{} of {written} records came back",
                survived.records
            ))),
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0u8; 16 * RECORD];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.shutdown(Shutdown::Write),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

fn write(stream: &mut TcpStream, stop: &AtomicBool) -> io::Result<u64> {
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        stream.write_all(&record(number))?;
        number += 1;
        thread::sleep(PERIOD);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(number)
}

fn read(mut stream: TcpStream) -> io::Result<Survived> {
    let mut survived = Survived::default();
    let mut buffer = [0u8; RECORD];
    let mut last = Instant::now();
    loop {
        match stream.read_exact(&mut buffer) {
            Ok(()) if buffer == record(survived.records) => {}
            Ok(()) => return Err(io::Error::other("an octet came back changed")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(survived),
            Err(error) => return Err(error),
        }
        survived.records += 1;
        survived.longest_wait = survived.longest_wait.max(last.elapsed());
        last = Instant::now();
    }
}

fn record(number: u64) -> [u8; RECORD] {
    let mut record = [number as u8; RECORD];
    record[..8].copy_from_slice(&number.to_be_bytes());
    record
}
