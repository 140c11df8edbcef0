//! IPv4 fragmentation before encapsulation (RFC 9300 §7.1, RFC 791 §3.2), without copying payload.

use super::checksum::Sum;
use super::headers::Ipv4Header;
use super::inner::{Family, Inner};
use super::{MAX_HEADERS_LEN, Piece};

/// The fragments of one IPv4 packet, in order: two of about equal size (MT-03), or as many as it takes (MT-05).
#[derive(Clone, Debug)]
pub struct Fragments {
    header_len: usize,
    /// Payload octets of every fragment but the last: a multiple of 8.
    size: usize,
    /// End of the payload.
    end: usize,
    /// Start of the next fragment's payload.
    next: usize,
    /// What the flags and offset field of the original said.
    flags_offset: u16,
    /// The options that every fragment carries, padded to words.
    copied_options: [u8; MAX_OPTIONS],
    copied_options_len: usize,
    /// The sum of the original header: all ones, which adds nothing, unless its checksum is wrong.
    header_sum: Sum,
}

const MAX_OPTIONS: usize = 40;
const _: () = assert!(Ipv4Header::LEN + MAX_OPTIONS <= MAX_HEADERS_LEN);

impl Fragments {
    /// Splits `packet`, whose headers are `inner`, into fragments of at most `limit` octets each. It may be a fragment itself.
    ///
    /// `None` when that cannot be: IPv6 or DF=1 (MT-09), no room for 8 octets of payload, or a fragment that ends beyond the largest
    /// datagram.
    pub fn new(packet: &[u8], inner: &Inner, limit: usize) -> Option<Self> {
        if inner.family() != Family::V4 || inner.dont_fragment {
            return None;
        }
        let packet = packet.get(..inner.total_len)?;
        let header = packet.get(..inner.header_len)?;
        let flags_offset = u16::from_be_bytes([*header.get(6)?, *header.get(7)?]);
        let payload_len = packet.len() - header.len();
        let most = limit.checked_sub(header.len())? & !7;
        let start = usize::from(flags_offset & Ipv4Header::OFFSET_MASK) * 8;
        if most == 0 || payload_len == 0 || start + payload_len > usize::from(u16::MAX) {
            return None;
        }
        let count = payload_len.div_ceil(most).max(2);
        let (copied_options, copied_options_len) = copied_options(&header[Ipv4Header::LEN..]);
        Some(Self {
            header_len: header.len(),
            size: payload_len.div_ceil(count).next_multiple_of(8),
            end: packet.len(),
            next: header.len(),
            flags_offset,
            copied_options,
            copied_options_len,
            header_sum: Sum::default().add_octets(header),
        })
    }

    /// How many fragments are still to come.
    pub fn remaining(&self) -> usize {
        (self.end - self.next).div_ceil(self.size)
    }

    /// Writes the next fragment's header to the start of `scratch` and says which octets of `packet` follow it. `packet` is what
    /// the fragments were made from. `None` after the last one, and when `scratch` is shorter than a header (60 octets always do).
    pub fn next_into(&mut self, packet: &[u8], scratch: &mut [u8]) -> Option<Piece> {
        if self.next >= self.end {
            return None;
        }
        let payload = self.next..self.end.min(self.next + self.size);
        let header_len = if self.next == self.header_len {
            scratch.get_mut(..self.header_len)?.copy_from_slice(packet.get(..self.header_len)?);
            self.header_len
        } else {
            let len = Ipv4Header::LEN + self.copied_options_len;
            let header = scratch.get_mut(..len)?;
            header[..Ipv4Header::LEN].copy_from_slice(packet.get(..Ipv4Header::LEN)?);
            header[Ipv4Header::LEN..]
                .copy_from_slice(&self.copied_options[..self.copied_options_len]);
            len
        };
        self.finish_header(&mut scratch[..header_len], &payload);
        self.next = payload.end;
        Some(Piece { headers_len: header_len, payload })
    }

    fn finish_header(&self, header: &mut [u8], payload: &std::ops::Range<usize>) {
        let total_len = (header.len() + payload.len()) as u16;
        let units = ((payload.start - self.header_len) / 8) as u16;
        let more = if payload.end < self.end { Ipv4Header::MF } else { 0 };
        let flags_offset = (self.flags_offset + units) | more;
        header[0] = 0x40 | (header.len() / 4) as u8;
        header[2..4].copy_from_slice(&total_len.to_be_bytes());
        header[6..8].copy_from_slice(&flags_offset.to_be_bytes());
        header[10..12].fill(0);
        // A header that arrived damaged must not leave as if it were sound: what its sum was off by, these are off by.
        let sum = self.header_sum.add_octets(header);
        header[10..12].copy_from_slice(&sum.complement());
    }
}

/// The options whose copied flag is set, padded with End of Option List to whole words; stops at the first malformed one.
fn copied_options(mut options: &[u8]) -> ([u8; MAX_OPTIONS], usize) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut copied = [END; MAX_OPTIONS];
    let mut len = 0;
    while let Some(&kind) = options.first() {
        let option_len = match (kind, options.get(1)) {
            (END, _) => break,
            (NO_OPERATION, _) => 1,
            (_, Some(&option_len)) if option_len >= 2 => usize::from(option_len),
            _ => break,
        };
        let Some((option, rest)) = options.split_at_checked(option_len) else { break };
        if kind & COPIED != 0 {
            copied[len..len + option_len].copy_from_slice(option);
            len += option_len;
        }
        options = rest;
    }
    (copied, len.next_multiple_of(4))
}
