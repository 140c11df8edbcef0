//! UDP echo, one or many flows.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::namespace::Namespace;

/// Answers every datagram with its own content, until dropped.
pub(crate) struct EchoServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts to listen in `namespace`.
    pub(crate) fn start(namespace: &Namespace, address: IpAddr) -> io::Result<Self> {
        let socket = namespace.run(move || UdpSocket::bind((address, 0)))??;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = namespace.spawn(move || echo_until(&socket, &stopped))?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread has no result; a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

fn echo_until(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0u8; 65536];
    while !stop.load(Ordering::Acquire) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // A reply that cannot be sent shows as a lost echo at the client.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

/// Source port of the first flow; the others count up from it, below the kernel's own choices.
const FIRST_PORT: u16 = 20_000;

/// Sends `per_flow` datagrams of `size` octets on each of `flows` flows (one source port each) from `source`,
/// each after the echo of the one before; returns how many echoes did not come.
pub(crate) fn flows(
    namespace: &Namespace,
    source: IpAddr,
    server: SocketAddr,
    (flows, per_flow, size): (u16, u16, usize),
) -> io::Result<usize> {
    namespace.run(move || {
        let mut lost = 0;
        for flow in 0..flows {
            let socket = UdpSocket::bind((source, FIRST_PORT + flow))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            for number in 0..per_flow {
                let mut content = vec![0xa5; size];
                content[..2].copy_from_slice(&flow.to_be_bytes());
                content[2..4].copy_from_slice(&number.to_be_bytes());
                socket.send(&content)?;
                lost += usize::from(!echoed(&socket, &content));
            }
        }
        Ok(lost)
    })?
}

fn echoed(socket: &UdpSocket, content: &[u8]) -> bool {
    let mut buffer = [0u8; 65536];
    socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == content)
}

/// A steady flow of small datagrams to an echo server, one a millisecond, until it is told to finish.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Echoes>>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echoes {
    /// Datagrams sent.
    pub(crate) sent: u64,
    /// Echoes that came back.
    pub(crate) received: u64,
}

/// How long the last echoes may take.
const LAST_ECHOES: Duration = Duration::from_millis(500);

impl Stream {
    /// Starts to send from `source` in `namespace`.
    pub(crate) fn start(
        namespace: &Namespace,
        source: IpAddr,
        server: SocketAddr,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = namespace.spawn(move || {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(server)?;
            stream_until(&socket, &stopped)
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops sending and waits for the last echoes.
    pub(crate) fn finish(self) -> io::Result<Echoes> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| io::Error::other("the stream's thread panicked"))?
    }
}

fn stream_until(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<Echoes> {
    let mut echoes = Echoes { sent: 0, received: 0 };
    let mut buffer = [0u8; 64];
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    while !stop.load(Ordering::Acquire) {
        socket.send(&echoes.sent.to_be_bytes())?;
        echoes.sent += 1;
        if socket.recv(&mut buffer).is_ok() {
            echoes.received += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    socket.set_read_timeout(Some(LAST_ECHOES))?;
    while echoes.received < echoes.sent && socket.recv(&mut buffer).is_ok() {
        echoes.received += 1;
    }
    Ok(echoes)
}
