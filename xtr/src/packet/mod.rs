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
//! ```text
//! impl Segments {
//!     /// Err(InnerMalformed) when the virtio header contradicts the packet.
//!     pub fn new(packet: &[u8], inner: &Inner, virtio: &VirtioNetHeader) -> Result<Self, DropReason>;
//!     pub fn headers_len(&self) -> usize;          // same for every segment
//!     pub fn packet_len(&self) -> usize;           // largest segment, headers included: give it to mtu::check
//!     pub fn segment_size(&self) -> usize;         // payload octets of all but the last
//!     pub fn count(&self) -> usize;                // how many remain
//!     /// Writes the next segment's complete IP+L4 headers to the start of `scratch` (>= headers_len octets; put it right behind the LISP header).
//!     pub fn next_into(&mut self, packet: &[u8], scratch: &mut [u8]) -> Option<Piece>;
//! }
//! impl Fragments {
//!     pub fn new(packet: &[u8], inner: &Inner, limit: usize) -> Option<Self>;   // None: cannot be fragmented to `limit`
//!     pub fn count(&self) -> usize;
//!     pub fn next_into(&mut self, packet: &[u8], scratch: &mut [u8]) -> Option<Piece>;
//! }
//! pub enum Offer {
//!     Alone,                    // cannot be merged with anything: write it by itself with VirtioNetHeader::default().  Nothing of its flow is pending.
//!     Started(Range<usize>),    // first of a new super-packet; payload range of `packet`
//!     Joined(Range<usize>),     // appended; payload range of `packet`
//!     Refused,                  // `take()` what is pending, write it, then offer the packet again
//! }
//! impl Coalescer {             // one pending super-packet; keep several, slot = flow hash % N, so that order within a flow holds
//!     pub fn new() -> Self;
//!     pub fn offer(&mut self, packet: &[u8], inner: &Inner) -> Offer;   // after decapsulate::apply
//!     pub fn is_empty(&self) -> bool;
//!     pub fn count(&self) -> usize;                 // packets pending
//!     /// Finishes: virtio header and merged headers, valid until the next offer; payload follows as the ranges you kept.
//!     pub fn take(&mut self) -> Option<Merged<'_>>; // Merged { virtio: VirtioNetHeader, headers: &[u8], packets: usize, octets: usize }
//! }
//! pub enum IcmpError { TooBig(u16), HopLimitExceeded, HostUnreachable, Prohibited }
//! /// The ICMP message without IP header for Punt::IcmpError (ICMPv6 checksum 0).
//! pub fn icmp::build(error: IcmpError, inner: &Inner, packet: &[u8]) -> Box<[u8]>;
//! pub fn icmp::may_answer(error: IcmpError, inner: &Inner, packet: &[u8]) -> bool;   // MT-19
//! impl IcmpLimiter { pub fn new(config: RateLimit, seed?) -> Self; pub fn allow(&mut self, now: Instant, source: IpAddr) -> bool; }
//! ```
//!
//! The outer IP and UDP headers are the kernel's: [`outer`] only says what to ask it for.

pub mod checksum;
pub mod decapsulate;
pub mod flow;
pub mod headers;
pub mod inner;
pub mod lisp;
pub mod martian;
pub mod mtu;
pub mod outer;
pub mod segment;

pub use flow::FlowHasher;
pub use headers::VirtioNetHeader;
pub use inner::{Family, Fragment, Inner};
pub use mtu::Fit;
pub use outer::{Marking, OuterFields};
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
    /// Octets of the whole packet.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.headers_len + self.payload.len()
    }
}

/// The most octets of headers a [`Piece`] can have, and so the scratch it needs.
pub const MAX_HEADERS_LEN: usize = 256;
