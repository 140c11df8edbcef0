//! Packet work without I/O: what the engine does to octets between a read and a write.
//!
//! Nothing here allocates on the per-packet path, panics on input, reads a clock or touches the system. The engine calls, in order:
//!
//! | direction | calls |
//! |---|---|
//! | encapsulation | [`Inner::parse`], [`martian`], [`FlowHasher::hash`] and [`flow::source_port_index`], [`mtu::check`], then per packet [`checksum::complete`], [`segment::Segments`] or [`fragment::Fragments`], [`lisp::encode`], [`Marking::outer_fields`] |
//! | decapsulation | [`lisp::parse`], [`Inner::parse`], [`martian`], [`decapsulate::apply`], [`Coalescer::offer`] |
//! | an ICMP error | [`icmp::may_answer`], [`IcmpLimiter::allow`], [`icmp::build`] |
//!
//! The outer IP and UDP headers are the kernel's: [`outer`] only says what to ask it for.

pub mod arrival;
pub mod checksum;
pub mod coalesce;
pub mod decapsulate;
pub mod flow;
pub mod fragment;
pub mod headers;
pub mod icmp;
pub mod inner;
pub mod lisp;
pub mod martian;
pub mod mtu;
pub mod outer;
pub mod segment;

#[cfg(test)]
pub(crate) mod tests;

pub use coalesce::{Coalescer, Merged, Offer};
pub use flow::FlowHasher;
pub use fragment::Fragments;
pub use headers::VirtioNetHeader;
pub use icmp::{IcmpError, IcmpLimiter};
pub use inner::{Family, Fragment, Inner};
pub use mtu::Fit;
pub use outer::{Dscp, Marking, OuterFields};
pub use segment::{Offload, Segments};

/// One packet to emit without copying its payload: headers in the caller's scratch, payload still where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Octets written at the start of the scratch: IP header and, in a segment, the transport header.
    pub headers_len: usize,
    /// The payload that follows, a range of the original packet.
    pub payload: std::ops::Range<usize>,
}

impl Piece {
    /// Octets of the packet.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.headers_len + self.payload.len()
    }
}

/// The most octets of headers a [`Piece`] can have, and so the scratch it needs.
pub const MAX_HEADERS_LEN: usize = 256;
