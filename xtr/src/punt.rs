//! What the data plane tells the control plane, over a bounded queue.
use mapping::eid::Eid;
use std::net::IpAddr;

/// One message upward.
#[derive(Debug)]
pub enum Punt {
    /// No mapping for `destination`; packets may be held for it.
    Miss {
        /// The EID to resolve.
        destination: Eid,
        /// The inner source of the packet that missed.
        source: IpAddr,
    },
    /// An ICMP error to send: the ICMP message without IP header, checksum left 0 for ICMPv6 (the kernel fills it).
    IcmpError {
        /// The inner source it goes to.
        destination: IpAddr,
        /// ICMPv4 or ICMPv6 message, by the family of `destination`.
        message: Box<[u8]>,
    },
}
