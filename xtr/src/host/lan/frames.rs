//! PURE. What frames of ARP (RFC 826, RFC 5227) and Neighbor Discovery (RFC 4861, RFC 4862) say of a host, and the few frames we send.
//!
//! Whoever is on the link can send anything: only what those RFCs would let pass is believed, and nothing in a frame makes the parser
//! panic. Whether an address may move is decided elsewhere.
use crate::packet::checksum;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// EtherTypes.
pub const ARP: u16 = 0x0806;
/// See [`ARP`].
pub const IPV6: u16 = 0x86dd;

const ETHERNET: usize = 14;
const ARP_LEN: usize = 28;
const IPV6_HEADER: usize = 40;
/// Neighbor Solicitation and Advertisement without options (RFC 4861 §4.3, §4.4).
const ND_LEN: usize = 24;
const ICMPV6: u8 = 58;
/// Nothing that was forwarded arrives with it (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Flags of a Neighbor Advertisement.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Of one station, and not all zeros.
    pub const fn is_station(self) -> bool {
        let Self([first, b, c, d, e, f]) = self;
        first & 1 == 0 && (first | b | c | d | e | f) != 0
    }

    /// The link-local address made of it (RFC 4291 Appendix A), which is what the kernel makes too.
    pub const fn link_local(self) -> Ipv6Addr {
        let Self([a, b, c, d, e, f]) = self;
        Ipv6Addr::from_bits(u128::from_be_bytes([
            0xfe,
            0x80,
            0,
            0,
            0,
            0,
            0,
            0,
            a ^ 2,
            b,
            c,
            0xff,
            0xfe,
            d,
            e,
            f,
        ]))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = ();

    /// Six pairs of hexadecimal digits with colons.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let is_pair = |part: &&str| part.len() == 2 && !part.starts_with('+');
            let part = parts.next().filter(is_pair).ok_or(())?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(Self(octets)) }
    }
}

/// What one frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saying {
    /// The station that sent it.
    pub mac: Mac,
    /// It was sent to one station, not to all: it does not cross an extended subnet to another router.
    pub to_one: bool,
    /// The address that the sender has, or is about to have.
    pub has: IpAddr,
    /// The sender does not have it yet (ARP probe, duplicate address detection): nobody may be told otherwise by us.
    pub tentative: bool,
    /// The address whose station it asks for.
    pub asks_for: Option<IpAddr>,
}

/// Why a frame is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSane;

/// Reads an Ethernet frame of ARP or Neighbor Discovery; `None` for another kind of frame.
pub fn parse(frame: &[u8]) -> Option<Result<Saying, NotSane>> {
    let (header, payload) = frame.split_at_checked(ETHERNET)?;
    let destination = mac_at(header, 0)?;
    let source = mac_at(header, 6)?;
    let said = match u16::from_be_bytes([header[12], header[13]]) {
        ARP => arp(payload, source),
        IPV6 if payload.get(6) == Some(&ICMPV6) => match payload.get(IPV6_HEADER)? {
            &SOLICITATION | &ADVERTISEMENT => neighbour_discovery(payload, source),
            _ => return None,
        },
        _ => return None,
    };
    let said = said.filter(|saying| saying.mac.is_station());
    Some(said.map(|saying| Saying { to_one: destination.is_station(), ..saying }).ok_or(NotSane))
}

fn arp(payload: &[u8], source: Mac) -> Option<Saying> {
    let packet = payload.get(..ARP_LEN)?;
    let (head, body) = packet.split_at(8);
    let is_request = match head {
        [0, 1, 8, 0, 6, 4, 0, 1] => true,
        [0, 1, 8, 0, 6, 4, 0, 2] => false,
        _ => return None,
    };
    let (sender, target) = (v4_at(body, 6)?, v4_at(body, 16)?);
    let mac = mac_at(body, 0).filter(|mac| *mac == source)?;
    let (has, tentative) = match (sender.is_unspecified(), is_request) {
        // RFC 5227 §2.1.1.
        (true, true) => (target, true),
        (true, false) => return None,
        (false, _) => (sender, false),
    };
    let asks = is_request && !tentative && target != sender && is_host_v4(target);
    is_host_v4(has).then_some(Saying {
        mac,
        to_one: false,
        has: has.into(),
        tentative,
        asks_for: asks.then_some(target.into()),
    })
}

/// RFC 4861 §7.1.1 and §7.1.2.
fn neighbour_discovery(packet: &[u8], mac: Mac) -> Option<Saying> {
    let header = packet.get(..IPV6_HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let message = packet.get(IPV6_HEADER..IPV6_HEADER + length).filter(|m| m.len() >= ND_LEN)?;
    let (source, destination) = (v6_at(header, 8)?, v6_at(header, 24)?);
    let pseudo = checksum::pseudo_header(source.into(), destination.into(), ICMPV6, length);
    let is_sane = header[0] >> 4 == 6
        && header[7] == HOP_LIMIT
        && message[1] == 0
        && pseudo.add_octets(message).is_valid()
        && !source.is_multicast();
    let target = v6_at(message, 8).filter(|target| is_sane && !target.is_multicast())?;
    let (has, tentative, asks_for) = if message[0] == SOLICITATION {
        let link_layer = option(message, SOURCE_LINK_LAYER).ok()?;
        if source.is_unspecified() {
            (link_layer.is_none() && destination == solicited_node(target)).then_some(())?;
            (target, true, None)
        } else {
            // Without it a station that knows us only makes sure that we are still there.
            link_layer.is_none_or(|link_layer| link_layer == mac).then_some(())?;
            (link_layer.is_some() || !destination.is_multicast()).then_some(())?;
            (source, false, Some(target).filter(|target| *target != source))
        }
    } else {
        let link_layer = option(message, TARGET_LINK_LAYER).ok()?;
        let solicited = message[4] & SOLICITED != 0;
        (!destination.is_multicast() || !solicited && link_layer.is_some()).then_some(())?;
        link_layer.is_none_or(|link_layer| link_layer == mac).then_some(())?;
        (target, false, None)
    };
    (!has.is_unspecified() && !has.is_loopback()).then_some(Saying {
        mac,
        to_one: false,
        has: has.into(),
        tentative,
        asks_for: asks_for.map(IpAddr::from),
    })
}

/// The Ethernet address in an option of this kind; an error if any option is broken.
fn option(message: &[u8], kind: u8) -> Result<Option<Mac>, NotSane> {
    let mut found = None;
    let mut rest = &message[ND_LEN..];
    while !rest.is_empty() {
        let length = rest.get(1).map_or(0, |units| usize::from(*units) * 8);
        if length == 0 || length > rest.len() {
            return Err(NotSane);
        }
        let (this, next) = rest.split_at(length);
        if this[0] == kind && length == 8 {
            found = mac_at(this, 2);
        }
        rest = next;
    }
    Ok(found)
}

/// The multicast group that asks for `address` (RFC 4291 §2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., d, e, f] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, d, e, f])
}

/// Says that `address` is at `mac`: to `asker` who has asked, or to everybody whose table says otherwise.
pub fn answer(mac: Mac, address: IpAddr, asker: Option<(Mac, IpAddr)>) -> Option<Vec<u8>> {
    match (address, asker) {
        (IpAddr::V4(address), None) => {
            // An announcement is a request (RFC 5227 §2.3).
            Some(arp_frame(Mac::BROADCAST, mac, 1, (mac, address), (Mac([0; 6]), address)))
        }
        (IpAddr::V4(address), Some((to, IpAddr::V4(asker)))) => {
            Some(arp_frame(to, mac, 2, (mac, address), (to, asker)))
        }
        (IpAddr::V6(address), None) => {
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let to = Mac([0x33, 0x33, 0, 0, 0, 1]);
            Some(advertisement((to, all_nodes), mac, address, OVERRIDE))
        }
        // Whoever is a proxy leaves precedence to the host itself (RFC 4861 §7.2.8).
        (IpAddr::V6(address), Some((to, IpAddr::V6(asker)))) => {
            Some(advertisement((to, asker), mac, address, SOLICITED))
        }
        _ => None,
    }
}

/// Asks everybody for `target`, from an own address of its family. An ARP request from 0.0.0.0 asks too, and teaches nobody anything
/// (RFC 5227 §2.1).
pub fn question(mac: Mac, own: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => {
            Some(arp_frame(Mac::BROADCAST, mac, 1, (mac, own), (Mac([0; 6]), target)))
        }
        (IpAddr::V6(own), IpAddr::V6(target)) => {
            let group = solicited_node(target);
            let [.., c, d, e, f] = group.octets();
            let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            message.extend(target.octets());
            message.extend([SOURCE_LINK_LAYER, 1]);
            message.extend(mac.0);
            Some(icmpv6((Mac([0x33, 0x33, c, d, e, f]), group), (mac, own), message))
        }
        _ => None,
    }
}

fn arp_frame(
    to: Mac,
    from: Mac,
    operation: u8,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
) -> Vec<u8> {
    let mut frame = ethernet(to, from, ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(address.octets());
    }
    frame
}

fn advertisement(
    (to, destination): (Mac, Ipv6Addr),
    mac: Mac,
    target: Ipv6Addr,
    flags: u8,
) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([TARGET_LINK_LAYER, 1]);
    message.extend(mac.0);
    icmpv6((to, destination), (mac, mac.link_local()), message)
}

/// `message` in a frame of its own, with its checksum.
fn icmpv6(
    (to, destination): (Mac, Ipv6Addr),
    (from, source): (Mac, Ipv6Addr),
    mut message: Vec<u8>,
) -> Vec<u8> {
    let pseudo = checksum::pseudo_header(source.into(), destination.into(), ICMPV6, message.len());
    let sum = pseudo.add_octets(&message).complement();
    message[2..4].copy_from_slice(&sum);
    let mut frame = ethernet(to, from, IPV6);
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + IPV6_HEADER + ND_LEN + 8);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(kind.to_be_bytes());
    frame
}

/// An address that a host can have: neither multicast nor broadcast, "this network" or loopback.
fn is_host_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

fn mac_at(octets: &[u8], at: usize) -> Option<Mac> {
    octets.get(at..at + 6)?.try_into().ok().map(Mac)
}

fn v4_at(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    let address: [u8; 4] = octets.get(at..at + 4)?.try_into().ok()?;
    Some(address.into())
}

fn v6_at(octets: &[u8], at: usize) -> Option<Ipv6Addr> {
    let address: [u8; 16] = octets.get(at..at + 16)?.try_into().ok()?;
    Some(address.into())
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
