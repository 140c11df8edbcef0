//! A TUN super-packet into the packets it stands for (EN-28, EN-29), without copying payload.

use super::Piece;
use super::headers::VirtioNetHeader;
use super::inner::Inner;
use crate::drops::DropReason;

/// What the virtio-net header before a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: the packet is complete.
    None,
    /// Its checksum is partial: [`super::checksum::complete`] it.
    Checksum {
        /// Where the transport header starts.
        csum_start: u16,
        /// Where the checksum field is from there.
        csum_offset: u16,
    },
    /// It is a super-packet: cut it with [`Segments`].
    Segment,
}

impl Offload {
    /// Reads the virtio-net header.
    #[inline]
    pub fn of(virtio: &VirtioNetHeader) -> Self {
        if virtio.gso_type != VirtioNetHeader::GSO_NONE {
            Self::Segment
        } else if virtio.flags & VirtioNetHeader::NEEDS_CSUM != 0 {
            Self::Checksum {
                csum_start: virtio.csum_start.get(),
                csum_offset: virtio.csum_offset.get(),
            }
        } else {
            Self::None
        }
    }
}

/// The segments of one super-packet, in order.
#[derive(Clone, Debug)]
pub struct Segments {
    headers_len: usize,
    segment_size: usize,
    end: usize,
    next: usize,
}
