//! Packets that wait for their mapping, so that the first packet to an unknown EID is not lost.
use super::registered::Arrival;
use crate::counters::Traffic;
use crate::drops::DropReason;
use mapping::eid::Eid;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The bounds of one worker's hold.
#[derive(Clone, Copy, Debug)]
pub struct HoldLimits {
    /// Packets held per EID.
    pub packets_per_eid: usize,
    /// Packets (buffers; a super-packet is one) held in all.
    pub packets: usize,
    /// Octets held in all.
    pub octets: usize,
    /// EIDs remembered, with or without packets.
    pub eids: usize,
    /// How long a packet waits.
    pub timeout: Duration,
    /// The least time between two punts for one EID.
    pub punt_interval: Duration,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self {
            packets_per_eid: 16,
            packets: 1024,
            octets: 2 << 20,
            eids: 4096,
            timeout: Duration::from_secs(12),
            punt_interval: Duration::from_secs(1),
        }
    }
}

/// A packet that waits: room for a header of 10 octets, then the packet.
#[derive(Debug)]
pub struct Held {
    /// The EID it waits for.
    pub(super) eid: Eid,
    /// The virtio-net header's room and the packet.
    pub frame: Box<[u8]>,
    /// What it stands for: itself, or the segments of a super-packet.
    pub(super) traffic: Traffic,
    /// It came from the core.
    pub(super) from_core: bool,
    /// It waits for the mapping of its source, not of its destination.
    pub(super) arrival: Option<Arrival>,
    /// When it came.
    pub(super) since: Instant,
}

/// What a packet that waits came through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waits {
    /// The TUN; it waits for its destination's mapping.
    FromNative,
    /// The core; it waits for its destination's mapping.
    FromCore,
    /// The core; it waits for its source's mapping.
    Unverified(Arrival),
}

/// All packets one worker holds, and what was punted when. Bounded in every direction.
#[derive(Debug)]
pub(super) struct Hold {
    limits: HoldLimits,
    eids: BTreeMap<Eid, Waiting>,
    /// Packets whose mapping came, in the order they are to leave.
    released: VecDeque<Held>,
    buffers: usize,
    octets: usize,
    /// Packets as counted, segments of super-packets each.
    packets: u64,
    next_expiry: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    frames: VecDeque<Held>,
    punted: Instant,
}

impl Hold {
    pub(super) fn new(limits: HoldLimits) -> Self {
        Self {
            limits,
            eids: BTreeMap::new(),
            released: VecDeque::new(),
            buffers: 0,
            octets: 0,
            packets: 0,
            next_expiry: None,
        }
    }

    /// Packets held or released but not yet taken, segments counted each.
    pub(super) const fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether packets wait for `eid`.
    pub(super) fn is_waiting(&self, eid: &Eid) -> bool {
        !self.eids.is_empty() && self.eids.get(eid).is_some_and(|wait| !wait.frames.is_empty())
    }

    /// Whether a punt for `eid` is due now: the first, or the last is long enough ago. Says why not when nobody may be added.
    pub(super) fn punt_due(&self, now: Instant, eid: &Eid) -> Result<bool, DropReason> {
        match self.eids.get(eid) {
            Some(waiting) => Ok(now >= waiting.punted + self.limits.punt_interval),
            None if self.eids.len() < self.limits.eids => Ok(true),
            None => Err(DropReason::MapCacheMissHoldFull),
        }
    }

    /// Remembers that `eid` was punted.
    pub(super) fn punted(&mut self, now: Instant, eid: Eid) {
        let waiting =
            self.eids.entry(eid).or_insert(Waiting { frames: VecDeque::new(), punted: now });
        waiting.punted = now;
        self.expire_at(now + self.limits.punt_interval);
    }

    /// Holds a copy of `parts`, one frame, for an EID that was punted.
    pub(super) fn push(
        &mut self,
        now: Instant,
        eid: Eid,
        parts: [&[u8]; 2],
        traffic: Traffic,
        from: Waits,
    ) -> Result<(), DropReason> {
        let len = parts[0].len() + parts[1].len();
        let Some(waiting) = self.eids.get_mut(&eid) else {
            return Err(DropReason::MapCacheMissHoldFull);
        };
        if waiting.frames.len() >= self.limits.packets_per_eid
            || self.buffers >= self.limits.packets
            || self.octets + len > self.limits.octets
        {
            return Err(DropReason::MapCacheMissHoldFull);
        }
        let frame = parts.concat().into_boxed_slice();
        let (from_core, arrival) = match from {
            Waits::FromNative => (false, None),
            Waits::FromCore => (true, None),
            Waits::Unverified(arrival) => (true, Some(arrival)),
        };
        waiting.frames.push_back(Held { eid, frame, traffic, from_core, arrival, since: now });
        self.buffers += 1;
        self.octets += len;
        self.packets += traffic.packets;
        self.expire_at(now + self.limits.timeout);
        Ok(())
    }

    /// Releases the packets of every EID for which `resolved` says so, and forgets those EIDs.
    pub(super) fn release(&mut self, mut resolved: impl FnMut(&Eid) -> bool) {
        let released = &mut self.released;
        self.eids.retain(|eid, waiting| {
            let resolved = resolved(eid);
            if resolved {
                released.append(&mut waiting.frames);
            }
            !resolved
        });
    }

    /// The next released packet.
    pub(super) fn pop_released(&mut self) -> Option<Held> {
        let held = self.released.pop_front()?;
        self.forget(&held);
        Some(held)
    }

    /// When [`Self::expire`] is next to be called.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Throws out what waited too long and returns it.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Held> {
        if self.next_expiry.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        let mut next: Option<Instant> = None;
        let limits = self.limits;
        self.eids.retain(|_, waiting| {
            let due = |held: &Held| held.since + limits.timeout <= now;
            let count = waiting.frames.iter().take_while(|held| due(held)).count();
            expired.extend(waiting.frames.drain(..count));
            let until = match waiting.frames.front() {
                Some(held) => held.since + limits.timeout,
                None => waiting.punted + limits.punt_interval,
            };
            if until > now {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
            until > now
        });
        // Not more than ten passes a second over the table, whatever is in it.
        self.next_expiry = next.map(|next| next.max(now + EXPIRY_GRANULARITY));
        expired.iter().for_each(|held| self.forget(held));
        expired
    }

    /// Throws out everything; returns the packets that were lost, segments counted each.
    pub(super) fn clear(&mut self) -> u64 {
        let lost = self.packets;
        *self = Self::new(self.limits);
        lost
    }

    fn expire_at(&mut self, at: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(at, |next| next.min(at)));
    }

    fn forget(&mut self, held: &Held) {
        self.buffers -= 1;
        self.octets -= held.frame.len();
        self.packets -= held.traffic.packets;
    }
}

const EXPIRY_GRANULARITY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::eid::InstanceId;
    use std::net::Ipv4Addr;

    fn eid(last: u8) -> Eid {
        Eid::new(InstanceId::DEFAULT, Ipv4Addr::new(192, 0, 2, last).into())
    }

    fn hold(packets: usize, octets: usize, eids: usize) -> Hold {
        Hold::new(HoldLimits {
            packets_per_eid: 2,
            packets,
            octets,
            eids,
            timeout: Duration::from_secs(12),
            punt_interval: Duration::from_secs(1),
        })
    }

    fn push(hold: &mut Hold, now: Instant, eid: Eid, octet: u8) -> Result<(), DropReason> {
        hold.push(now, eid, [&[0; 10], &[octet; 90]], Traffic::packet(90), Waits::FromNative)
    }

    #[test]
    fn packets_leave_in_the_order_they_came() {
        let now = Instant::now();
        let mut hold = hold(8, 10_000, 8);
        hold.punted(now, eid(1));
        hold.punted(now, eid(2));
        push(&mut hold, now, eid(1), 1).expect("room");
        push(&mut hold, now, eid(2), 9).expect("room");
        push(&mut hold, now, eid(1), 2).expect("room");
        assert_eq!(hold.packets(), 3);
        hold.release(|&found| found == eid(1));
        let payload = |held: Held| held.frame[10];
        assert_eq!(hold.pop_released().map(payload), Some(1));
        assert_eq!(hold.pop_released().map(payload), Some(2));
        assert!(hold.pop_released().is_none());
        assert!(hold.is_waiting(&eid(2)) && !hold.is_waiting(&eid(1)));
        assert_eq!(hold.packets(), 1);
    }

    #[test]
    fn mc_27_every_bound_holds() {
        let now = Instant::now();
        let full = Err(DropReason::MapCacheMissHoldFull);
        let mut by_eid = hold(8, 10_000, 8);
        by_eid.punted(now, eid(1));
        assert!(
            push(&mut by_eid, now, eid(1), 0).is_ok() && push(&mut by_eid, now, eid(1), 0).is_ok()
        );
        assert_eq!(push(&mut by_eid, now, eid(1), 0), full);

        let mut by_octets = hold(8, 150, 8);
        by_octets.punted(now, eid(1));
        assert!(push(&mut by_octets, now, eid(1), 0).is_ok());
        assert_eq!(push(&mut by_octets, now, eid(1), 0), full);

        let mut by_count = hold(1, 10_000, 8);
        by_count.punted(now, eid(1));
        by_count.punted(now, eid(2));
        assert!(push(&mut by_count, now, eid(1), 0).is_ok());
        assert_eq!(push(&mut by_count, now, eid(2), 0), full);

        let mut by_table = hold(8, 10_000, 1);
        by_table.punted(now, eid(1));
        assert_eq!(by_table.punt_due(now, &eid(2)), Err(DropReason::MapCacheMissHoldFull));
    }

    #[test]
    fn one_punt_per_eid_and_interval() {
        let now = Instant::now();
        let mut hold = hold(8, 10_000, 8);
        assert_eq!(hold.punt_due(now, &eid(1)), Ok(true));
        hold.punted(now, eid(1));
        assert_eq!(hold.punt_due(now + Duration::from_millis(999), &eid(1)), Ok(false));
        assert_eq!(hold.punt_due(now + Duration::from_secs(1), &eid(1)), Ok(true));
    }

    #[test]
    fn packets_expire_and_leave_nothing_behind() {
        let now = Instant::now();
        let mut hold = hold(8, 10_000, 8);
        hold.punted(now, eid(1));
        push(&mut hold, now, eid(1), 0).expect("room");
        push(&mut hold, now + Duration::from_secs(5), eid(1), 0).expect("room");
        assert_eq!(hold.expire(now + Duration::from_secs(11)).len(), 0);
        let at = hold.poll_timeout().expect("packets wait");
        assert_eq!(at, now + Duration::from_secs(12));
        assert_eq!(hold.expire(at).len(), 1);
        assert_eq!(hold.expire(now + Duration::from_secs(17)).len(), 1);
        assert_eq!((hold.packets(), hold.buffers, hold.octets, hold.eids.len()), (0, 0, 0, 0));
        assert_eq!(hold.poll_timeout(), None);
    }
}
