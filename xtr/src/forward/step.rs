//! What is found out and decided about a packet on its way, for whoever explains or taps it.
use super::Outer;
use crate::drops::DropReason;
use crate::fib::{Adjacency, LocatorSet, Verdict};
use crate::marks::HeaderMarks;
use crate::packet::{Fit, IcmpError, Inner};
use crate::policy::Onward;
use mapping::eid::{Eid, InstanceId};
use std::net::IpAddr;

/// One thing found out or decided, in the order in which it happens. An [`Output`](super::Output) that does not listen costs nothing.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// From the core: there is a LISP header, and a sound packet behind it.
    Unwrapped {
        /// Source of the header before the LISP header.
        source: IpAddr,
        /// The instance it names.
        instance_id: InstanceId,
        /// The packet behind it.
        inner: &'a Inner,
        /// LISP headers taken off so far, this one included.
        depth: usize,
    },
    /// From the native side: the packet is sound.
    Parsed(&'a Inner),
    /// Source and destination are addresses of single hosts.
    NotMartian,
    /// From the native side: the policy lets it through, to be looked up in this instance.
    Admitted(InstanceId),
    /// From the core: the policy lets it through.
    Accepted(Onward),
    /// In a trusted core: what the LISP header says beside the instance, before anything comes of it.
    Marked(&'a HeaderMarks),
    /// From the core: the mapping of this inner source names the outer source.
    Registered(Eid),
    /// What the forwarding table says.
    LookedUp(Eid, &'a Verdict),
    /// A locator was chosen.
    Chosen {
        /// Among these.
        set: &'a LocatorSet,
        /// This one.
        adjacency: &'a Adjacency,
        /// By this flow hash.
        flow_hash: u64,
        /// The outer header.
        outer: &'a Outer,
    },
    /// Compared with the path MTU.
    Sized {
        /// L: the largest outer packet, octets.
        mtu: u16,
        /// S: the largest inner packet, octets.
        limit: usize,
        /// The packet, or the largest segment of a super-packet, octets.
        len: usize,
        /// What follows.
        fit: Fit,
    },
    /// It is a control message, and the control plane has it.
    Punted,
    /// It waits for its mapping.
    Held,
    /// The source is told, unless the rate of ICMP errors forbids it.
    Answered(IcmpError),
    /// It, or a piece of it, is dropped.
    Dropped(DropReason),
}
