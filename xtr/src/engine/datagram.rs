//! What a multishot receive puts into a buffer: a header, the source address, ancillary data, the payload.
use crate::packet::{Inner, OuterFields, checksum};
use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct io_uring_recvmsg_out`.
pub(super) const HEADER_LEN: usize = 16;
/// Room for the source address: `struct sockaddr_in6`.
pub(super) const NAME_LEN: usize = 28;
/// Room for TTL, TOS and segment size with their headers, and to spare.
pub(super) const CONTROL_LEN: usize = 128;
/// Where the payload starts.
pub(super) const PAYLOAD_START: usize = HEADER_LEN + NAME_LEN + CONTROL_LEN;
/// Room for it.
pub(super) const ROOM: usize = super::buffers::BUFFER_LEN - PAYLOAD_START;

/// What was received: one datagram, or several of one size (the last may be smaller) from one sender with equal outer fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Outer source address.
    pub(super) source: IpAddr,
    /// Outer TTL and TOS.
    pub(super) fields: OuterFields,
    /// Octets per datagram.
    pub(super) segment_size: usize,
    /// The datagrams, one after the other.
    pub(super) payload: &'a mut [u8],
}

/// What a multishot receive puts first, for a `recvmsg` that filled `message` and received `len` octets.
pub(super) fn header(message: &libc::msghdr, len: u32) -> [u8; HEADER_LEN] {
    let lengths = [message.msg_namelen, message.msg_controllen as u32, len];
    let words = lengths.into_iter().chain([message.msg_flags as u32]);
    let mut header = [0; HEADER_LEN];
    for (room, word) in header.chunks_exact_mut(4).zip(words) {
        room.copy_from_slice(&word.to_ne_bytes());
    }
    header
}

/// Reads the buffer; `None` when something was cut off or is missing.
pub(super) fn parse(buffer: &mut [u8]) -> Option<Received<'_>> {
    let (head, payload) = buffer.split_at_mut_checked(PAYLOAD_START)?;
    let (header, rest) = head.split_at(HEADER_LEN);
    let (name, control) = rest.split_at(NAME_LEN);
    let word = |index: usize| read_u32(&header[4 * index..]);
    let (control_len, payload_len, flags) = (word(1)? as usize, word(2)? as usize, word(3)?);
    let cut_off = flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) as u32 != 0;
    if cut_off || payload_len > payload.len() {
        return None;
    }
    let source = source(name)?;
    let ancillary = Ancillary::parse(control.get(..control_len)?);
    let fields = OuterFields { ttl: ancillary.ttl?, tos: ancillary.tos? };
    let segment_size = ancillary.segment_size.filter(|&size| size > 0).unwrap_or(payload_len);
    let payload = &mut payload[..payload_len];
    Some(Received { source, fields, segment_size: segment_size.max(1), payload })
}

/// Sender and payload, of a socket that gives no ancillary data; `None` when something was cut off.
pub(super) fn raw(buffer: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (head, payload) = buffer.split_at_checked(PAYLOAD_START)?;
    let (len, flags) = (read_u32(&head[8..])? as usize, read_u32(&head[12..])?);
    if flags & libc::MSG_TRUNC as u32 != 0 {
        return None;
    }
    Some((source(&head[HEADER_LEN..])?, payload.get(..len)?))
}

/// The ICMP message in an IPv4 packet, if its checksum is right: a raw socket gets the packet whole and unchecked.
pub(super) fn icmpv4(packet: &[u8]) -> Option<&[u8]> {
    let ip = Inner::parse(packet).ok()?;
    let message = packet.get(ip.header_len..ip.total_len)?;
    (checksum::internet(message) == [0, 0]).then_some(message)
}

fn source(name: &[u8]) -> Option<IpAddr> {
    let family = c_int::from(u16::from_ne_bytes(*name.first_chunk()?));
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(*name.get(4..)?.first_chunk::<4>()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(*name.get(8..)?.first_chunk::<16>()?).into()),
        _ => None,
    }
}

#[derive(Default)]
struct Ancillary {
    ttl: Option<u8>,
    tos: Option<u8>,
    segment_size: Option<usize>,
}

impl Ancillary {
    /// Walks `struct cmsghdr`s: length, level, type, data, each aligned to a word.
    fn parse(mut control: &[u8]) -> Self {
        const WORD: usize = size_of::<usize>();
        let mut found = Self::default();
        while let Some(length) = control.first_chunk::<WORD>() {
            let len = usize::from_ne_bytes(*length);
            let Some(message) = control.get(WORD..len) else { break };
            let (Some(level), Some(kind)) =
                (read_u32(message), read_u32(message.get(4..).unwrap_or(&[])))
            else {
                break;
            };
            found.take(level as c_int, kind as c_int, &message[8..]);
            let Some(rest) = control.get(len.next_multiple_of(WORD)..) else { break };
            control = rest;
        }
        found
    }

    fn take(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        // The kernel writes IPv4's TOS as an octet, everything else as an int.
        let number = read_u32(data).or(data.first().map(|&octet| u32::from(octet)));
        let Some(number) = number else { return };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                self.ttl = Some(number as u8);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => self.tos = data.first().copied(),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => self.tos = Some(number as u8),
            (libc::IPPROTO_UDP, libc::UDP_GRO) => self.segment_size = Some(number as usize),
            _ => {}
        }
    }
}

fn read_u32(octets: &[u8]) -> Option<u32> {
    octets.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
        let mut out = (size_of::<usize>() + 8 + data.len()).to_ne_bytes().to_vec();
        out.extend_from_slice(&level.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(size_of::<usize>()), 0);
        out
    }

    fn buffer(flags: u32, control: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [16, control.len() as u32, payload.len() as u32, flags] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        out.extend_from_slice(&[0x10, 0xf5, 192, 0, 2, 7]);
        out.resize(HEADER_LEN + NAME_LEN, 0);
        out.extend_from_slice(control);
        out.resize(PAYLOAD_START, 0);
        out.extend_from_slice(payload);
        out
    }

    fn control() -> Vec<u8> {
        let mut control = message(libc::IPPROTO_IP, libc::IP_TTL, &63i32.to_ne_bytes());
        control.extend(message(libc::IPPROTO_IP, libc::IP_TOS, &[0x2e]));
        control.extend(message(libc::IPPROTO_UDP, libc::UDP_GRO, &3i32.to_ne_bytes()));
        control
    }

    #[test]
    fn source_fields_and_segments_are_read() {
        let mut buffer = buffer(0, &control(), b"abcdefgh");
        let received = parse(&mut buffer).expect("complete");
        assert_eq!(received.source, IpAddr::from([192, 0, 2, 7]));
        assert_eq!(received.fields, OuterFields { ttl: 63, tos: 0x2e });
        assert_eq!((received.segment_size, &*received.payload), (3, &b"abcdefgh"[..]));
    }

    #[test]
    fn what_is_cut_off_or_missing_is_refused() {
        assert!(parse(&mut buffer(libc::MSG_TRUNC as u32, &control(), b"abc")).is_none());
        assert!(parse(&mut buffer(libc::MSG_CTRUNC as u32, &control(), b"abc")).is_none());
        let ttl = message(libc::IPPROTO_IP, libc::IP_TTL, &63i32.to_ne_bytes());
        assert!(parse(&mut buffer(0, &ttl, b"abc")).is_none(), "no TOS");
        let whole = buffer(0, &control(), b"abc");
        for len in 0..whole.len() {
            assert!(parse(&mut whole[..len].to_vec()).is_none(), "{len}");
        }
    }

    #[test]
    fn mt_12_an_icmp_message_is_believed_only_with_its_checksum() {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        packet.extend_from_slice(&[3, 4, 0, 0, 0, 0, 5, 0]);
        assert_eq!(icmpv4(&packet), None, "no checksum");
        let checksum = checksum::internet(&packet[20..]);
        packet[22..24].copy_from_slice(&checksum);
        assert_eq!(icmpv4(&packet), Some(&packet[20..]));
        assert_eq!(icmpv4(&[&packet[..], &[7; 3]].concat()), Some(&packet[20..]), "trimmed");
        packet[27] ^= 1;
        assert_eq!(icmpv4(&packet), None);
    }

    #[test]
    fn broken_ancillary_data_does_no_harm() {
        for len in [0usize, 1, 8, 15, 16, 17, 1000, usize::MAX] {
            let mut control = control();
            control[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            let _ = parse(&mut buffer(0, &control, b"abc"));
        }
    }
}
