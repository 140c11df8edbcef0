//! PURE. Whether who sent a packet through the tunnel may: the mapping of its inner source must name its outer source (PE-04, DE-23).
//!
//! The mappings come from the mapping system, by EID of the source; a source without mapping is punted like any other miss, and its
//! first packets wait. Nothing is learned from the packets themselves (DH-16).
use super::hold::{Held, Hold, Waits};
use super::{Forwarder, HoldLimits, Output, Step, Work, rate_limit};
use crate::drops::DropReason;
use crate::fib::{FibReader, Verdict};
use crate::policy::{Onward, Policy};
use crate::punt::Punt;
use mapping::eid::{Eid, InstanceId};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;
use zerocopy::IntoBytes;

/// Where a decapsulated packet came from, and goes to once its source is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) instance_id: InstanceId,
    pub(super) onward: Onward,
    /// Source of the header before the LISP header.
    pub(super) source: IpAddr,
    /// Source of the datagram: another one in a nested packet.
    pub(super) sender: IpAddr,
}

/// Who may send what, and who waits for the answer to that.
#[derive(Debug)]
pub(super) struct Sources {
    reader: FibReader,
    pub(super) waiting: Hold,
}

/// What the mapping system says of a packet's source.
enum Standing {
    /// It may; its site's key among the rate limits.
    Registered(usize),
    /// The outer source is none of the site's locators, as far as we know.
    ElsewhereRegistered,
    NotRegistered,
    Unknown,
}

impl Sources {
    pub(super) fn new(reader: FibReader, limits: HoldLimits) -> Self {
        Self { reader, waiting: Hold::new(limits) }
    }

    /// `clock` is the coarse clock: an entry that packets are verified with is in use.
    fn standing(&mut self, eid: Eid, arrival: &Arrival, clock: u32) -> Standing {
        match self.reader.enter().lookup(eid.instance_id, eid.address) {
            Verdict::Encapsulate(set) => {
                let has = |rloc| set.adjacencies.iter().any(|one| one.destination == rloc);
                // What is inside the tunnel cannot vouch for whoever sent the packet.
                if has(arrival.source) && has(arrival.sender) {
                    // Workers share it: written once a second, not per packet.
                    if set.last_used.load(Ordering::Relaxed) != clock {
                        set.last_used.store(clock, Ordering::Relaxed);
                    }
                    Standing::Registered(rate_limit::site(set))
                } else {
                    Standing::ElsewhereRegistered
                }
            }
            Verdict::Miss => Standing::Unknown,
            Verdict::Native | Verdict::Drop(_) => Standing::NotRegistered,
        }
    }

    fn is_registered(&mut self, eid: Eid) -> bool {
        matches!(self.reader.enter().lookup(eid.instance_id, eid.address), Verdict::Encapsulate(_))
    }

    fn is_known(&mut self, eid: Eid) -> bool {
        !self.reader.enter().lookup(eid.instance_id, eid.address).is_miss()
    }

    /// The next packet whose source is known by now.
    pub(super) fn next_released(&mut self) -> Option<Held> {
        if self.waiting.is_rechecking() {
            let Self { reader, waiting } = self;
            let mut view = reader.enter();
            waiting.release(|eid| !view.lookup(eid.instance_id, eid.address).is_miss());
        }
        self.waiting.pop_released()
    }
}

impl<P: Policy> Forwarder<P> {
    /// Takes packets from the core only if the mapping of their inner source, looked up in the table of `reader`, has their outer source
    /// among its locators.
    #[must_use]
    pub fn check_sources(mut self, reader: FibReader) -> Self {
        self.sources = Some(Sources::new(reader, self.settings.hold));
        self
    }

    /// Whether a packet may go on now: its source is registered, or nobody asks. It may wait instead (`Ok(false)`).
    pub(super) fn verify_source(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        work: &Work<'_>,
        is_new: bool,
        out: &mut impl Output,
    ) -> Result<bool, DropReason> {
        let Some(sources) = &mut self.sources else { return Ok(true) };
        let eid = Eid::new(arrival.instance_id, work.inner.source);
        if is_new && sources.waiting.is_waiting(&eid) {
            // Behind those that came before, even if the mapping is there by now.
            let held = self.hold_unverified(now, eid, arrival, work, out);
            if let Some(sources) = &mut self.sources
                && sources.is_known(eid)
            {
                sources.waiting.release_one(&eid);
            }
            return held.map(|()| false);
        }
        match sources.standing(eid, arrival, self.clock) {
            Standing::Registered(site) => {
                let destination = Eid::new(arrival.instance_id, work.inner.destination);
                if arrival.onward == Onward::Deliver && sources.is_registered(destination) {
                    return Err(DropReason::PetrDestinationIsEid);
                }
                out.step(Step::Registered(eid));
                self.limit_site(now, site, work.traffic.packets).map(|()| true)
            }
            Standing::NotRegistered => Err(DropReason::PetrSourceNotRegistered),
            Standing::ElsewhereRegistered => {
                self.punt_moved(now, eid, arrival.sender);
                Err(DropReason::PetrRlocNotOfSite)
            }
            Standing::Unknown => self.hold_unverified(now, eid, arrival, work, out).map(|()| false),
        }
    }

    /// Punts the source's EID if that is due and holds the packet.
    fn hold_unverified(
        &mut self,
        now: Instant,
        eid: Eid,
        arrival: &Arrival,
        work: &Work<'_>,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let Some(sources) = &mut self.sources else { return Ok(()) };
        if sources.waiting.punt_due(now, &eid, arrival.sender)? {
            let source = work.inner.destination;
            self.punts
                .send_for_others(Punt::SourceUnknown { source: eid, destination: source })
                .map_err(|_| DropReason::PuntQueueFull)?;
            sources.waiting.punted(now, eid, arrival.sender);
        }
        let parts = [work.virtio.as_bytes(), work.packet()];
        let waits = Waits::Unverified(*arrival);
        sources.waiting.push(now, (eid, arrival.sender), parts, work.traffic, waits)?;
        out.step(Step::Held);
        self.counters.set_held(self.held());
        Ok(())
    }

    /// The site may have moved, and its mapping be old: asks anew, as rarely as for any other EID.
    #[cold]
    fn punt_moved(&mut self, now: Instant, eid: Eid, sender: IpAddr) {
        let Some(sources) = &mut self.sources else { return };
        if sources.waiting.punt_due(now, &eid, sender) == Ok(true)
            && self.punts.send_for_others(Punt::SourceMoved { source: eid }).is_ok()
        {
            sources.waiting.punted(now, eid, sender);
        }
    }
}
