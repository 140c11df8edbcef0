//! What crosses the core: every packet that arrives there, kept in bounded memory, and with `ISTHMUS_PCAP=DIRECTORY` in a
//! capture file per network.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use gateway::lab::namespace::Namespace;
use mapping::wire::CONTROL_PORT;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::plan::Family;

/// Port of LISP data packets (RFC 9300 §5.1).
pub const DATA_PORT: u16 = 4341;
/// Packets kept; later ones are not.
const KEPT: usize = 100_000;
/// Octets kept of each; enough for every control message.
const SNAP: usize = 640;
/// `PACKET_OUTGOING` of packet(7): the same packet on its way out.
const PACKET_OUTGOING: u8 = 4;

/// A packet in the core.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination.
    pub destination: IpAddr,
    /// UDP source and destination port.
    pub ports: Option<(u16, u16)>,
    /// The UDP payload; no more than the first few hundred octets.
    pub payload: Vec<u8>,
}

impl Packet {
    /// The family inside, of a LISP data packet.
    pub fn inner(&self) -> Option<Family> {
        self.ports.filter(|&(_, to)| to == DATA_PORT)?;
        match self.payload.get(8)? >> 4 {
            4 => Some(Family::V4),
            6 => Some(Family::V6),
            _ => None,
        }
    }

    /// Whether it is a control message.
    pub fn is_control(&self) -> bool {
        self.ports.is_some_and(|(from, to)| from == CONTROL_PORT || to == CONTROL_PORT)
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// Watches until it is dropped.
pub struct Watch {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Of what arrives on any link of `namespace`; `name` is that of the capture file.
    ///
    /// # Errors
    /// What the kernel said, also of the file.
    pub fn start(namespace: &Namespace, name: &str) -> io::Result<Self> {
        let socket = namespace.run(packet_socket)??;
        let mut file = std::env::var_os("ISTHMUS_PCAP")
            .map(|directory| capture_file(&PathBuf::from(directory).join(format!("{name}.pcap"))))
            .transpose()?;
        let (packets, stop) = (Arc::<Mutex<Vec<Packet>>>::default(), Arc::<AtomicBool>::default());
        let (kept, stopped) = (packets.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut buffer = [0; 65536];
            while !stopped.load(Ordering::Acquire) {
                let Some(frame) = receive(&socket, &mut buffer) else { continue };
                if let Some(file) = &mut file {
                    // A file that cannot be written shows by its size.
                    let _ = record(file, frame);
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < KEPT {
                    kept.extend(parse(&frame[..frame.len().min(SNAP)]));
                }
            }
        });
        Ok(Self { packets, stop, thread: Some(thread) })
    }

    /// Now.
    pub fn mark(&self) -> Mark {
        Mark(self.packets().len())
    }

    /// What arrived since then; waits a moment for what is under way.
    pub fn since(&self, Mark(mark): Mark) -> Vec<Packet> {
        thread::sleep(Duration::from_millis(100));
        self.packets()[mark..].to_vec()
    }

    fn packets(&self) -> std::sync::MutexGuard<'_, Vec<Packet>> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has no result; a panic was printed.
            let _ = thread.join();
        }
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    // Without the privilege to force it the kernel's own limit holds.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20));
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
    Ok(socket)
}

/// The next frame that arrived; `None` for one that leaves, or when nothing came.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    use std::os::fd::AsRawFd;
    let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer).ok()?;
    let leaves = from.is_some_and(|from| from.pkttype() == PACKET_OUTGOING);
    (!leaves).then(|| &buffer[..length])
}

/// A little-endian pcap file with microseconds and Ethernet link type.
fn capture_file(path: &std::path::Path) -> io::Result<File> {
    let mut file = File::create(path)?;
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65536, 1];
    file.write_all(&header.map(u32::to_le_bytes).concat())?;
    Ok(file)
}

#[allow(clippy::disallowed_methods, reason = "a capture file has the time of day")]
fn record(file: &mut File, frame: &[u8]) -> io::Result<()> {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let header = [seconds, time.subsec_micros(), length, length];
    file.write_all(&[&header.map(u32::to_le_bytes).concat(), frame].concat())
}

/// The IP packet of an Ethernet frame.
fn parse(frame: &[u8]) -> Option<Packet> {
    let packet = frame.get(14..)?;
    let (source, destination, protocol, rest) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 15) * 4;
            let at = |from: usize| {
                Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(from..from + 4)?).ok()?))
            };
            (at(12)?, at(16)?, *packet.get(9)?, packet.get(header..)?)
        }
        [0x86, 0xdd] => {
            let at = |from: usize| {
                Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(from..from + 16)?).ok()?))
            };
            (at(8)?, at(24)?, *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let is_udp = protocol == 17 && rest.len() >= 8;
    let ports = is_udp
        .then(|| (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]])));
    let payload = ports.and_then(|_| rest.get(8..)).unwrap_or_default().to_vec();
    Some(Packet { source, destination, ports, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_packet_tells_what_is_inside() {
        let mut frame = vec![0; 14];
        frame[12..].copy_from_slice(&[0x08, 0x00]);
        let mut header = [0; 20];
        (header[0], header[9], header[15], header[19]) = (0x45, 17, 1, 2);
        frame.extend(header);
        frame.extend([0x10, 0xf5, 0x10, 0xf5, 0, 0, 0, 0]);
        frame.extend([0; 8]);
        frame.push(0x60);
        let packet = parse(&frame).unwrap();
        assert_eq!(packet.inner(), Some(Family::V6));
        assert_eq!(packet.destination, IpAddr::from([0, 0, 0, 2]));
        assert!(!packet.is_control());
        for length in 0..frame.len() {
            let _ = parse(&frame[..length]);
        }
    }
}
