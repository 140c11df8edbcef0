//! A flood from addresses that are not the sender's own: whole IPv4 packets through a raw socket.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mapping::wire::CONTROL_PORT;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Where the source address and the UDP checksum are in a packet.
const SOURCE: usize = 12;
const CHECKSUM: usize = IPV4_HEADER + 6;
/// Packets with one system call.
const BURST: usize = 64;

/// Sends the same messages again and again, each time from another address.
pub struct Flood {
    socket: OwnedFd,
    target: SocketAddrAny,
    /// Packets without source, and the sum of what their UDP checksum covers.
    packets: Vec<(Vec<u8>, u32)>,
    first_source: u32,
    sources: u32,
    sent: u64,
}

impl Flood {
    /// `messages` to port 4342 of `target`, from so many addresses from `first_source` on.
    ///
    /// # Errors
    /// Without the privilege of raw sockets.
    pub fn new(
        target: Ipv4Addr,
        messages: &[Vec<u8>],
        first_source: Ipv4Addr,
        sources: u32,
    ) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::Inet, SockType::Raw);
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        Ok(Self {
            socket,
            target: SocketAddr::new(target.into(), 0).into(),
            packets: messages.iter().map(|message| packet(target, message)).collect(),
            first_source: first_source.to_bits(),
            sources: sources.max(1),
            sent: 0,
        })
    }

    /// Sends for so long, not more than `rate` packets per second; how many were sent.
    ///
    /// # Errors
    /// The kernel refuses a packet for another reason than a full queue.
    pub fn run(&mut self, duration: Duration, rate: f64) -> io::Result<u64> {
        let (started, before) = (Instant::now(), self.sent);
        while started.elapsed() < duration {
            let allowed = (started.elapsed().as_secs_f64() * rate) as u64;
            if self.sent - before + BURST as u64 > allowed {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            self.burst()?;
        }
        Ok(self.sent - before)
    }

    fn burst(&mut self) -> io::Result<()> {
        let packets: Vec<Vec<u8>> =
            (0..BURST as u64).map(|at| self.packet(self.sent + at)).collect();
        let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|p| [IoSlice::new(p)]).collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
            packets.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut headers: Vec<MMsgHdr<'_>> = slices
            .iter()
            .zip(&mut controls)
            .map(|(slice, control)| MMsgHdr::new_with_addr(&self.target, slice, control))
            .collect();
        match sendmmsg(&self.socket, &mut headers, SendFlags::DONTWAIT) {
            Ok(count) => self.sent += count as u64,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Packet number `number`.
    fn packet(&self, number: u64) -> Vec<u8> {
        let (packet, sum) = &self.packets[(number % self.packets.len() as u64) as usize];
        // Far apart, so that no table finds neighbours.
        let spread = (number as u32).wrapping_mul(0x9e37_79b1) % self.sources;
        let source = self.first_source + spread;
        let mut packet = packet.clone();
        packet[SOURCE..SOURCE + 4].copy_from_slice(&source.to_be_bytes());
        let mut sum = sum + (source >> 16) + (source & 0xffff);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = match !(sum as u16) {
            0 => u16::MAX,
            checksum => checksum,
        };
        packet[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        packet
    }
}

/// The packet without its source, and the sum of everything else that the UDP checksum covers.
fn packet(target: Ipv4Addr, message: &[u8]) -> (Vec<u8>, u32) {
    let udp_length = (UDP_HEADER + message.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(IPV4_HEADER as u16 + udp_length).to_be_bytes());
    // No identification, no fragment, TTL 64, UDP; the kernel computes the header's checksum.
    packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(&target.octets());
    for field in [CONTROL_PORT, CONTROL_PORT, udp_length, 0] {
        packet.extend_from_slice(&field.to_be_bytes());
    }
    packet.extend_from_slice(message);
    let covered = &packet[IPV4_HEADER - 4..];
    let words = covered.chunks(2).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high, ..] => u32::from(*high) << 8,
        [] => 0,
    });
    let sum = words.sum::<u32>() + 17 + u32::from(udp_length);
    (packet, sum)
}
