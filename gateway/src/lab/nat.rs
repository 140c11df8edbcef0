//! A NAT on a wire of the lab, of the strictest kind: a binding for every pair of an inside port and a remote end, through which nobody
//! but that remote end gets in, and which is forgotten when nothing goes out by it for a while.
//!
//! It changes whole frames: UDP over IPv4, and ARP, by which both sides believe the other to be a neighbour. Nothing else of IPv4 passes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use pnet_packet::Packet;
use pnet_packet::ipv4::{self, MutableIpv4Packet};

use super::decode;
use super::relay::Way;

const ETHERNET: usize = 14;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// Where the ports of bindings begin.
const FIRST_PORT: u16 = 20_001;
/// Where ARP has the sender's and the target's IPv4 address.
const ARP_SENDER: usize = 14;
const ARP_TARGET: usize = 24;

/// The translator and what it remembers.
#[derive(Debug)]
pub(crate) struct Nat {
    inside: Ipv4Addr,
    outside: Ipv4Addr,
    /// A binding lasts so long after the last datagram that went out by it.
    idle: Duration,
    bindings: HashMap<Pair, Binding>,
    next_port: u16,
}

/// Inside port, remote address and port.
type Pair = (u16, Ipv4Addr, u16);

#[derive(Clone, Copy, Debug)]
struct Binding {
    port: u16,
    used: Instant,
}

impl Nat {
    /// What is `inside` is seen as `outside`.
    pub(crate) fn new(inside: Ipv4Addr, outside: Ipv4Addr, idle: Duration) -> Self {
        Self { inside, outside, idle, bindings: HashMap::new(), next_port: FIRST_PORT }
    }

    /// Forgets every binding; the next ones have other ports.
    pub(crate) fn forget(&mut self) {
        self.bindings.clear();
    }

    /// The outside port that an inside port has towards a remote end.
    pub(crate) fn port_of(&self, inside: u16, remote: (Ipv4Addr, u16)) -> Option<u16> {
        self.bindings.get(&(inside, remote.0, remote.1)).map(|binding| binding.port)
    }

    /// Translates a frame in place; false if it does not pass.
    pub(crate) fn translate(&mut self, now: Instant, way: Way, frame: &mut [u8]) -> bool {
        let Some((header, packet)) = frame.split_at_mut_checked(ETHERNET) else { return false };
        match [header[12], header[13]] {
            [0x08, 0x06] => self.arp(way, packet),
            [0x08, 0x00] => self.datagram(now, way, packet).is_some(),
            _ => true,
        }
    }

    fn arp(&self, way: Way, packet: &mut [u8]) -> bool {
        let (at, from, to) = match way {
            Way::ToCore => (ARP_SENDER, self.inside, self.outside),
            Way::ToMember => (ARP_TARGET, self.outside, self.inside),
        };
        let Some(address) = packet.get_mut(at..at + 4) else { return false };
        if *address == from.octets() {
            address.copy_from_slice(&to.octets());
        }
        true
    }

    fn datagram(&mut self, now: Instant, way: Way, packet: &mut [u8]) -> Option<()> {
        let mut ip = MutableIpv4Packet::new(packet)?;
        let header_len = usize::from(ip.get_header_length()) * 4;
        let end = usize::from(ip.get_total_length());
        if ip.get_next_level_protocol().0 != UDP || ip.get_fragment_offset() != 0 {
            return None;
        }
        let (source, destination) = (ip.get_source(), ip.get_destination());
        let udp = ip.packet().get(header_len..end)?.first_chunk::<UDP_HEADER>()?;
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let (from, to) = (port(0), port(2));
        let (port_at, new_port) = match way {
            Way::ToCore if source == self.inside => {
                ip.set_source(self.outside);
                (header_len, self.bind(now, (from, destination, to)))
            }
            Way::ToMember if destination == self.outside => {
                ip.set_destination(self.inside);
                (header_len + 2, self.inside_port(now, (source, from), to)?)
            }
            _ => return None,
        };
        let checksum = ipv4::checksum(&ip.to_immutable());
        ip.set_checksum(checksum);
        let addresses = (IpAddr::V4(ip.get_source()), IpAddr::V4(ip.get_destination()));
        packet.get_mut(port_at..port_at + 2)?.copy_from_slice(&new_port.to_be_bytes());
        let udp = packet.get_mut(header_len..end)?;
        if udp[6..8] != [0, 0] {
            udp[6..8].fill(0);
            let checksum = decode::udp_checksum(addresses, udp)?;
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        Some(())
    }

    /// The outside port of a datagram that goes out.
    fn bind(&mut self, now: Instant, pair: Pair) -> u16 {
        let idle = self.idle;
        self.bindings.retain(|_, binding| now < binding.used + idle);
        let next = &mut self.next_port;
        let binding = self.bindings.entry(pair).or_insert_with(|| {
            let port = *next;
            *next = next.checked_add(1).unwrap_or(FIRST_PORT);
            Binding { port, used: now }
        });
        binding.used = now;
        binding.port
    }

    /// The inside port of a datagram that comes in from `remote` to the outside port `port`.
    fn inside_port(&self, now: Instant, remote: (Ipv4Addr, u16), port: u16) -> Option<u16> {
        let is_it = |(pair, binding): &(&Pair, &Binding)| {
            binding.port == port && (pair.1, pair.2) == remote && now < binding.used + self.idle
        };
        self.bindings.iter().find(is_it).map(|(pair, _)| pair.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::probe::craft::{self, Header};

    const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
    const RTR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const IDLE: Duration = Duration::from_secs(3);

    fn frame(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), with_checksum: bool) -> Vec<u8> {
        let header = Header::new(from.0.into(), to.0.into());
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend(craft::udp(&header, (from.1, to.1), b"octets", with_checksum));
        frame
    }

    #[test]
    fn what_goes_out_comes_back_to_its_own_port_and_nobody_else_gets_in() {
        let now = Instant::now();
        for with_checksum in [true, false] {
            let mut nat = Nat::new(INSIDE, OUTSIDE, IDLE);
            let mut out = frame((INSIDE, 4341), (RTR, 4342), with_checksum);
            assert!(nat.translate(now, Way::ToCore, &mut out));
            let port = nat.port_of(4341, (RTR, 4342)).expect("a binding");
            assert_eq!(out, frame((OUTSIDE, port), (RTR, 4342), with_checksum));
            let mut back = frame((RTR, 4342), (OUTSIDE, port), with_checksum);
            assert!(nat.translate(now, Way::ToMember, &mut back));
            assert_eq!(back, frame((RTR, 4342), (INSIDE, 4341), with_checksum));
            let other_port = frame((RTR, 4341), (OUTSIDE, port), with_checksum);
            let other_host = frame((Ipv4Addr::new(198, 51, 100, 2), 4342), (OUTSIDE, port), true);
            let past_it = frame((RTR, 4342), (INSIDE, 4341), true);
            for mut stranger in [other_port, other_host, past_it] {
                assert!(!nat.translate(now, Way::ToMember, &mut stranger));
            }
        }
    }

    #[test]
    fn a_binding_that_is_not_used_is_forgotten_and_the_next_has_another_port() {
        let now = Instant::now();
        let mut nat = Nat::new(INSIDE, OUTSIDE, IDLE);
        let out = || frame((INSIDE, 4341), (RTR, 4342), true);
        assert!(nat.translate(now, Way::ToCore, &mut out()));
        let first = nat.port_of(4341, (RTR, 4342)).expect("a binding");
        let mut late = frame((RTR, 4342), (OUTSIDE, first), true);
        assert!(!nat.translate(now + IDLE, Way::ToMember, &mut late));
        assert!(nat.translate(now + IDLE, Way::ToCore, &mut out()));
        assert_ne!(nat.port_of(4341, (RTR, 4342)), Some(first));
    }

    #[test]
    fn neighbours_find_each_other() {
        let mut nat = Nat::new(INSIDE, OUTSIDE, IDLE);
        let arp = |sender: Ipv4Addr, target: Ipv4Addr| {
            let mut frame = vec![0; ETHERNET + 28];
            (frame[12], frame[13]) = (0x08, 0x06);
            frame[ETHERNET + 14..ETHERNET + 18].copy_from_slice(&sender.octets());
            frame[ETHERNET + 24..ETHERNET + 28].copy_from_slice(&target.octets());
            frame
        };
        let mut asks = arp(INSIDE, RTR);
        assert!(nat.translate(Instant::now(), Way::ToCore, &mut asks));
        assert_eq!(asks, arp(OUTSIDE, RTR));
        let mut answers = arp(RTR, OUTSIDE);
        assert!(nat.translate(Instant::now(), Way::ToMember, &mut answers));
        assert_eq!(answers, arp(RTR, INSIDE));
    }
}
