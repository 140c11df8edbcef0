//! What the data plane tells the control plane, over a bounded queue.
use crate::marks::HeaderMarks;
use crossbeam_queue::ArrayQueue;
use mapping::eid::Eid;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Messages that fit in the queue by default: a few hundred kilobytes, more than the control plane resolves in a second.
pub const DEFAULT_CAPACITY: usize = 4096;

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
    /// Packets from a source without mapping came through a tunnel, where sources are checked; packets may be held for it.
    SourceUnknown {
        /// The inner source, the EID to resolve.
        source: Eid,
        /// The inner destination of the packet.
        destination: IpAddr,
    },
    /// Packets of a registered source come from an RLOC that is none of its mapping: the mapping may be old.
    SourceMoved {
        /// The inner source.
        source: Eid,
    },
    /// In a trusted core: a header that says something the control plane should look at. At most once a second for the same reason.
    Marked {
        /// Outer source.
        rloc: IpAddr,
        /// Inner source.
        source: Eid,
        /// Inner destination, in the same instance.
        destination: IpAddr,
        /// What the header says.
        marks: HeaderMarks,
    },
    /// A host of a dynamic-EID range that is not known to be here has sent a packet through this router (DY-01).
    HostSpoke {
        /// Its address.
        source: IpAddr,
    },
    /// A control message came behind a LISP header, as RTRs send Map-Notifies through NATs (NT-08).
    ControlInData {
        /// The own RLOC it came to.
        local: IpAddr,
        /// Outer source.
        rloc: IpAddr,
        /// What follows the LISP header: an IP packet.
        packet: Box<[u8]>,
    },
    /// Data for an own EID came from an RLOC; once in a while ([`HEARD_AGAIN`](crate::forward::HEARD_AGAIN)) for each.
    Heard {
        /// The remote RLOC.
        rloc: IpAddr,
        /// The inner source.
        source: Eid,
    },
    /// A packet from the core was for a host of a dynamic-EID range that is at another site (DY-04). At most once a second for the same
    /// sender and host.
    Left {
        /// The host.
        destination: Eid,
        /// Inner source.
        source: IpAddr,
        /// Outer source.
        rloc: IpAddr,
        /// The host is said to be just there: the packet was dropped.
        returns: bool,
    },
    /// An ICMP error came about a LISP packet of ours: a hint about the RLOC that it was sent to.
    Unreachable {
        /// The remote RLOC.
        rloc: IpAddr,
        /// The RLOC's own host says that nobody takes LISP packets there (PB-15); otherwise a router, that it cannot be reached (PB-14).
        by_host: bool,
    },
    /// An ICMP error to send: the ICMP message without IP header, checksum left 0 for ICMPv6 (the kernel fills it).
    IcmpError {
        /// The inner source it goes to.
        destination: IpAddr,
        /// ICMPv4 or ICMPv6 message, by the family of `destination`.
        message: Box<[u8]>,
    },
}

/// A queue of at most `capacity` messages (at least 1); many senders, one receiver.
pub fn queue(capacity: usize) -> (PuntSender, PuntReceiver) {
    let shared = Arc::new(Shared { queue: ArrayQueue::new(capacity.max(1)), wake: Notify::new() });
    (PuntSender(Arc::clone(&shared)), PuntReceiver(shared))
}

/// The data plane's end. Never blocks, works with nobody at the other end.
#[derive(Clone, Debug)]
pub struct PuntSender(Arc<Shared>);

impl PuntSender {
    /// As [`Self::send`], for what anyone in the core can bring about by lying about addresses: half of the queue is enough for that.
    pub fn send_for_others(&self, punt: Punt) -> Result<(), Punt> {
        if self.0.queue.len() >= self.0.queue.capacity().div_ceil(2) {
            return Err(punt);
        }
        self.send(punt)
    }

    /// Queues `punt` and wakes the receiver; gives it back when the queue is full.
    pub fn send(&self, punt: Punt) -> Result<(), Punt> {
        self.0.queue.push(punt)?;
        self.0.wake.notify_one();
        Ok(())
    }
}

/// The control plane's end: drain with [`Self::pop`] until `None`, then await [`Self::notified`], and again.
#[derive(Debug)]
pub struct PuntReceiver(Arc<Shared>);

impl PuntReceiver {
    /// The oldest message, if any.
    pub fn pop(&self) -> Option<Punt> {
        self.0.queue.pop()
    }

    /// Ready once a message was queued since the last time this was ready; no wake-up is lost. Cancel-safe.
    pub fn notified(&self) -> Notified<'_> {
        self.0.wake.notified()
    }
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Punt>,
    wake: Notify,
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::eid::InstanceId;
    use std::net::Ipv4Addr;

    fn miss(last: u8) -> Punt {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        Punt::Miss { destination: Eid::new(InstanceId::DEFAULT, address), source: address }
    }

    #[test]
    fn full_queue_gives_the_message_back() {
        let (sender, receiver) = queue(2);
        assert!(sender.send(miss(1)).is_ok());
        assert!(sender.send(miss(2)).is_ok());
        assert!(sender.send(miss(3)).is_err());
        assert!(receiver.pop().is_some());
        assert!(sender.send(miss(4)).is_ok());
    }

    #[test]
    fn mc_27_what_others_bring_about_leaves_half_of_the_queue() {
        let (sender, receiver) = queue(4);
        assert!(sender.send_for_others(miss(1)).is_ok());
        assert!(sender.send_for_others(miss(2)).is_ok());
        assert!(sender.send_for_others(miss(3)).is_err());
        assert!(sender.send(miss(4)).is_ok());
        assert!(receiver.pop().is_some() && receiver.pop().is_some());
        assert!(sender.send_for_others(miss(5)).is_ok());
    }

    #[tokio::test]
    async fn a_message_sent_before_waiting_wakes() {
        let (sender, receiver) = queue(2);
        assert!(sender.send(miss(1)).is_ok());
        receiver.notified().await;
        assert!(receiver.pop().is_some());
        assert!(receiver.pop().is_none());
    }
}
