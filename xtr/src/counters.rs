//! Counters that one worker writes and anyone reads.
use std::sync::atomic::AtomicU64;

/// Packets and octets (inner) sent to one locator for one EID-prefix.
#[derive(Debug, Default)]
pub struct TrafficCounters {
    /// Packets.
    pub packets: AtomicU64,
    /// Inner octets.
    pub octets: AtomicU64,
}
