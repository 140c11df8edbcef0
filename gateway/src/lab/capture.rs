//! Watching the wire: a packet socket in a namespace, read by a thread into bounded memory and, if wished, a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::decode::{self, Datagram};
use super::namespace::Namespace;
use super::pcap::{PcapWriter, SNAP_LENGTH};

/// Frames kept per namespace; older ones are forgotten.
const FRAMES_KEPT: usize = 65536;
/// Octets looked at per frame; more goes to the file only.
const OCTETS_DECODED: usize = 320;
/// How long the reader waits before it reports that nothing more is there.
const IDLE: Duration = Duration::from_millis(4);
/// Longest wait for the reader to catch up.
const CATCH_UP: Duration = Duration::from_secs(2);
/// `PACKET_OUTGOING` of packet(7): a frame this namespace sends.
const PACKET_OUTGOING: u8 = 4;
/// The EtherTypes that matter here.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
/// See [`ETHERTYPE_IPV4`].
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A frame that arrived in a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The EtherType.
    pub(crate) ethertype: u16,
    /// When the kernel saw it.
    pub(crate) time: SystemTime,
    /// The IP packet, if it is one.
    pub(crate) datagram: Option<Datagram>,
}

/// A point in a capture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// A running capture of what arrives in one namespace.
pub(crate) struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ring: Mutex<Ring>,
    idle_rounds: AtomicU64,
    stop: AtomicBool,
}

#[derive(Default)]
struct Ring {
    frames: VecDeque<Frame>,
    forgotten: u64,
}

/// What the capture thread owns.
struct Reader {
    socket: OwnedFd,
    shared: Arc<Shared>,
    file: Option<PcapWriter<BufWriter<File>>>,
    /// Whether sent frames go to the file too: in a host yes, in a router each would be there twice.
    file_has_sent: bool,
}

impl Capture {
    /// Starts to watch every link of `namespace`.
    pub(crate) fn start(
        namespace: &Namespace,
        directory: Option<&Path>,
        is_router: bool,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let file = directory
            .map(|directory| {
                PcapWriter::create(&directory.join(format!("{}.pcap", namespace.name())))
            })
            .transpose()?;
        let socket = namespace.run(packet_socket)??;
        let reader = Reader { socket, shared: shared.clone(), file, file_has_sent: !is_router };
        let thread = thread::Builder::new()
            .name(format!("capture-{}", namespace.name()))
            .spawn(move || reader.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The clock of [`Frame::time`].
    #[allow(
        clippy::disallowed_methods,
        reason = "the kernel says when a frame came by the time of day"
    )]
    pub(crate) fn clock() -> SystemTime {
        SystemTime::now()
    }

    /// Now: everything that arrived before is behind the mark.
    pub(crate) fn mark(&self) -> Mark {
        self.catch_up();
        let ring = self.ring();
        Mark(ring.forgotten + ring.frames.len() as u64)
    }

    /// Everything that arrived since `mark`.
    pub(crate) fn since(&self, mark: Mark) -> Vec<Frame> {
        self.catch_up();
        self.seen_since(mark)
    }

    /// The IP packets that arrived since `mark`.
    pub(crate) fn datagrams_since(&self, mark: Mark) -> Vec<Datagram> {
        self.since(mark).into_iter().filter_map(|frame| frame.datagram).collect()
    }

    /// Waits until `enough` of what arrived since `mark`, or the deadline; returns what arrived.
    pub(crate) fn wait(
        &self,
        mark: Mark,
        limit: Duration,
        enough: impl Fn(&[Frame]) -> bool,
    ) -> Vec<Frame> {
        let deadline = Instant::now() + limit;
        loop {
            let frames = self.seen_since(mark);
            if enough(&frames) || Instant::now() >= deadline {
                return frames;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn seen_since(&self, Mark(mark): Mark) -> Vec<Frame> {
        let ring = self.ring();
        let skip = mark.saturating_sub(ring.forgotten) as usize;
        ring.frames.iter().skip(skip).cloned().collect()
    }

    /// Waits until the reader found its socket empty at a moment that began after this call.
    fn catch_up(&self) {
        let target = self.shared.idle_rounds.load(Ordering::Acquire) + 2;
        let deadline = Instant::now() + CATCH_UP;
        while self.shared.idle_rounds.load(Ordering::Acquire) < target && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread has no result; a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

impl Reader {
    fn run(mut self) {
        let mut buffer = vec![0u8; SNAP_LENGTH];
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.receive(&mut buffer) {
                Ok(Some(received)) => self.take(&received, &buffer),
                Ok(None) => {
                    self.shared.idle_rounds.fetch_add(1, Ordering::AcqRel);
                }
                Err(error) => {
                    tracing::warn!(%error, "capture ended");
                    break;
                }
            }
        }
        if let Some(Err(error)) = self.file.as_mut().map(PcapWriter::flush) {
            tracing::warn!(%error, "capture file is incomplete");
        }
    }

    /// The next frame, or `None` when nothing came for a moment.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let mut slices = [IoSliceMut::new(buffer)];
        let message = match recvmsg::<LinkAddr>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        ) {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let time = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => {
                Some(SystemTime::UNIX_EPOCH + Duration::from(time))
            }
            _ => None,
        });
        Ok(Some(Received {
            length: message.bytes,
            time: time.unwrap_or(SystemTime::UNIX_EPOCH),
            sent: message.address.is_some_and(|from| from.pkttype() == PACKET_OUTGOING),
        }))
    }

    fn take(&mut self, received: &Received, buffer: &[u8]) {
        let frame = &buffer[..received.length.min(buffer.len())];
        if let Some(file) = self.file.as_mut().filter(|_| !received.sent || self.file_has_sent)
            && let Err(error) = file.frame(received.time, frame, received.length)
        {
            tracing::warn!(%error, "capture file is incomplete");
            self.file = None;
        }
        if received.sent || frame.len() < 14 {
            return;
        }
        let frame = Frame {
            ethertype: u16::from_be_bytes([frame[12], frame[13]]),
            time: received.time,
            datagram: decode::datagram(&frame[14..frame.len().min(14 + OCTETS_DECODED)]),
        };
        let mut ring = self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.frames.len() == FRAMES_KEPT {
            ring.frames.pop_front();
            ring.forgotten += 1;
        }
        ring.frames.push_back(frame);
    }
}

struct Received {
    length: usize,
    time: SystemTime,
    sent: bool,
}

/// A socket that sees every frame of every link of the calling thread's namespace.
fn packet_socket() -> io::Result<OwnedFd> {
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    // Forcing needs privilege over the first user namespace; without it the kernel's own limit holds.
    if setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &(8 << 20))?;
    }
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    let idle = TimeVal::microseconds(IDLE.as_micros() as i64);
    setsockopt(&socket, sockopt::ReceiveTimeout, &idle)?;
    Ok(socket)
}
