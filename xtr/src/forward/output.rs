//! Where forwarded packets go: the engine's batches, or a test's lists.
use super::Step;
use crate::counters::Traffic;
use crate::drops::DropReason;
use crate::packet::{Inner, OuterFields};
use std::net::IpAddr;

/// What the kernel is to put on an encapsulated packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Index of the own RLOC it comes from.
    pub own_rloc: usize,
    /// The remote RLOC, of the same family.
    pub destination: IpAddr,
    /// Index of the source port in the pool.
    pub port: u16,
    /// The destination port if a NAT has translated 4341 to it; the packet then comes from port 4342.
    pub translated: Option<u16>,
    /// TTL and TOS.
    pub fields: OuterFields,
    /// DF may be 0: it is larger than the path but must not be refused (MT-08).
    pub may_fragment: bool,
}

/// Takes packets in order; what one flow gave comes out in that order. Counts what really left (`core_out`, `native_out`) or why not.
///
/// The slices either lie in the buffer that the packet came in, which stays until they are sent, or must be copied.
/// `Err`: nothing was taken; the caller counts the drop.
pub trait Output {
    /// Whether what is given to it leaves: only then is it traffic of its locator, and its mapping in use.
    const IS_LIVE: bool = true;

    /// Told of everything that happens to a packet, before it comes out or is dropped.
    #[inline(always)]
    fn step(&mut self, _step: Step<'_>) {}

    /// Sends `headers` followed by `payload` as one UDP payload: LISP header and inner packet.
    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason>;

    /// Writes a frame back to the TUN as it came: virtio-net header and packet, `traffic` in all.
    fn forwarded(&mut self, frame: &[u8], traffic: Traffic) -> Result<(), DropReason>;

    /// Writes one decapsulated packet to the TUN, perhaps merged with others of its flow.
    fn delivered(&mut self, flow_hash: u64, inner: &Inner, packet: &[u8])
    -> Result<(), DropReason>;
}
