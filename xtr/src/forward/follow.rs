//! PURE. Packets from the core for hosts that come and go: to the site while the host is here, after it when it is elsewhere (DY-04).
//!
//! Whoever still sends here is to ask the mapping system anew, which the control plane tells it. A packet never goes back to where it came
//! from: two routers that take a host to be at the other would pass it to and fro. A circle of three ends with the inner TTL, which every
//! one of them takes down.
use super::registered::Arrival;
use super::{Forwarder, Output, Work};
use crate::drops::DropReason;
use crate::fib::{FibView, LocatorSet, Verdict};
use crate::policy::Policy;
use crate::punt::Punt;
use mapping::eid::Eid;
use std::net::IpAddr;
use std::time::Instant;

impl<P: Policy> Forwarder<P> {
    /// Sends a packet from the core, for a host of the EID-prefix number `prefix`, where the forwarding table has the host.
    pub(super) fn follow<O: Output>(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        (arrival, prefix): (&Arrival, u32),
        work: Work<'_>,
        out: &mut O,
    ) {
        let eid = Eid::new(arrival.instance_id, work.inner.destination);
        let returns = match fib.lookup(eid.instance_id, eid.address) {
            Verdict::Native => {
                if self.deliver(&work, out) {
                    self.arrivals.count(prefix, self.arrived_at, work.traffic);
                    self.hear(arrival, &work.inner);
                }
                return;
            }
            Verdict::Encapsulate(set) => {
                Some(leads_to(set, arrival.source) || leads_to(set, arrival.sender))
            }
            Verdict::Drop(_) | Verdict::Miss => None,
        };
        if let Some(returns) = returns
            && O::IS_LIVE
        {
            self.tell_left(eid, work.inner.source, arrival.sender, returns);
        }
        if returns == Some(true) {
            return self.discard(DropReason::FollowedToSender, work.traffic.packets, out);
        }
        self.reencapsulate(now, fib, arrival.instance_id, work, out);
    }

    /// Whether a packet that waited would go back to where it came from now.
    pub(super) fn would_return(&self, fib: &mut FibView<'_>, eid: Eid, work: &Work<'_>) -> bool {
        work.from_core
            && self.policy.roams(eid.address)
            && match fib.lookup(eid.instance_id, eid.address) {
                Verdict::Encapsulate(set) => leads_to(set, work.payer),
                _ => false,
            }
    }

    /// Has the control plane tell `rloc` that a host is elsewhere, if that is due.
    #[cold]
    fn tell_left(&mut self, destination: Eid, source: IpAddr, rloc: IpAddr, returns: bool) {
        let key = self.hasher.hash_address(rloc).rotate_left(1)
            ^ self.hasher.hash_address(destination.address);
        let punt = Punt::Left { destination, source, rloc, returns };
        if self.left.is_due(key, self.clock) && self.punts.send_for_others(punt).is_err() {
            // The queue is full: the next packet tells.
            self.left.not_told(key);
        }
    }
}

/// Whether packets to this set may go to `rloc`.
fn leads_to(set: &LocatorSet, rloc: IpAddr) -> bool {
    set.adjacencies.iter().any(|adjacency| adjacency.destination == rloc)
}
