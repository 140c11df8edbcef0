//! Packets that wait for their mapping, so that the first packet to an unknown EID is not lost.
//!
//! A flood of misses must cost those that hit, or miss for good reason, as little as possible: whether anything waits for an EID is
//! mostly told without looking for it, a change of the table has only so many EIDs looked up per turn, and no source gets more than
//! its share of the room.
use super::registered::Arrival;
use crate::counters::Traffic;
use crate::drops::DropReason;
use mapping::eid::Eid;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
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
    /// On whose share it counts.
    pub(super) payer: IpAddr,
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
    /// How many EIDs with packets hash to each place: where there are none, none of them is waited for.
    places: Box<[u16; PLACES]>,
    /// What the sources of each place have of the room.
    shares: Box<[Share; SHARES]>,
    recheck: Recheck,
    /// Lookups left in this turn.
    budget: usize,
}

#[derive(Debug)]
struct Waiting {
    frames: VecDeque<Held>,
    punted: Instant,
    /// Whose share the EID counts on: the place of who missed first. Each packet counts on that of its own sender.
    share: usize,
}

/// Part of the room, by source.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    eids: u16,
    packets: u16,
}

/// How far the EIDs with packets have been looked up since the table changed.
#[derive(Clone, Copy, Debug)]
enum Recheck {
    Done,
    /// From the first; `again` = the table changed meanwhile.
    After {
        last: Option<Eid>,
        again: bool,
    },
}

/// Places of [`Hold::places`]: several times the packets that are held.
const PLACES: usize = 8192;
/// Places of [`Hold::shares`].
const SHARES: usize = 1024;
/// No source (place of sources) gets more than this part of the room.
const SHARE: usize = 8;
/// EIDs looked at per turn: a few microseconds.
const LOOKUPS_PER_TURN: usize = 64;

impl Hold {
    /// Shares are counted in 16 bits, and so is what there can be of either.
    pub(super) fn new(limits: HoldLimits) -> Self {
        let most = usize::from(u16::MAX);
        let limits =
            HoldLimits { packets: limits.packets.min(most), eids: limits.eids.min(most), ..limits };
        Self {
            limits,
            eids: BTreeMap::new(),
            released: VecDeque::new(),
            buffers: 0,
            octets: 0,
            packets: 0,
            next_expiry: None,
            places: Box::new([0; PLACES]),
            shares: Box::new([Share::default(); SHARES]),
            recheck: Recheck::Done,
            budget: LOOKUPS_PER_TURN,
        }
    }

    /// Packets held or released but not yet taken, segments counted each.
    pub(super) const fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether packets wait for `eid`.
    pub(super) fn is_waiting(&self, eid: &Eid) -> bool {
        self.places[place(eid)] > 0
            && self.eids.get(eid).is_some_and(|wait| !wait.frames.is_empty())
    }

    /// Whether a punt for `eid` is due now: the first, or the last is long enough ago. Says why not when nobody may be added. `source` is
    /// who pays for it.
    pub(super) fn punt_due(
        &self,
        now: Instant,
        eid: &Eid,
        source: IpAddr,
    ) -> Result<bool, DropReason> {
        let share = usize::from(self.shares[share(source)].eids);
        match self.eids.get(eid) {
            Some(waiting) => Ok(now >= waiting.punted + self.limits.punt_interval),
            None if self.eids.len() >= self.limits.eids || share >= part(self.limits.eids) => {
                Err(DropReason::MapCacheMissHoldFull)
            }
            None => Ok(true),
        }
    }

    /// Remembers that `eid` was punted, for a packet from `source`.
    pub(super) fn punted(&mut self, now: Instant, eid: Eid, source: IpAddr) {
        let shares = &mut self.shares;
        let waiting = self.eids.entry(eid).or_insert_with(|| {
            let share = share(source);
            shares[share].eids += 1;
            Waiting { frames: VecDeque::new(), punted: now, share }
        });
        waiting.punted = now;
        self.expire_at(now + self.limits.punt_interval);
    }

    /// Holds a copy of `parts`, one frame, for an EID that was punted; it counts on the share of `payer`.
    pub(super) fn push(
        &mut self,
        now: Instant,
        (eid, payer): (Eid, IpAddr),
        parts: [&[u8]; 2],
        traffic: Traffic,
        from: Waits,
    ) -> Result<(), DropReason> {
        let len = parts[0].len() + parts[1].len();
        let Some(waiting) = self.eids.get_mut(&eid) else {
            return Err(DropReason::MapCacheMissHoldFull);
        };
        let share = &mut self.shares[share(payer)];
        if waiting.frames.len() >= self.limits.packets_per_eid
            || usize::from(share.packets) >= part(self.limits.packets)
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
        self.places[place(&eid)] += u16::from(waiting.frames.is_empty());
        share.packets += 1;
        waiting.frames.push_back(Held {
            eid,
            frame,
            traffic,
            from_core,
            arrival,
            payer,
            since: now,
        });
        self.buffers += 1;
        self.octets += len;
        self.packets += traffic.packets;
        self.expire_at(now + self.limits.timeout);
        Ok(())
    }

    /// The table changed: every EID with packets is to be looked up with [`Self::release`].
    pub(super) fn table_changed(&mut self) {
        self.recheck = match self.recheck {
            Recheck::Done => Recheck::After { last: None, again: false },
            Recheck::After { last, .. } => Recheck::After { last, again: last.is_some() },
        };
    }

    /// Another turn begins.
    pub(super) fn renew_budget(&mut self) {
        self.budget = LOOKUPS_PER_TURN;
    }

    /// Whether [`Self::release`] has more to do in the next turn.
    pub(super) const fn is_rechecking(&self) -> bool {
        !matches!(self.recheck, Recheck::Done)
    }

    /// Releases the packets of the EIDs for which `resolved` says so, and forgets those EIDs. Looks at so many per turn.
    pub(super) fn release(&mut self, mut resolved: impl FnMut(&Eid) -> bool) {
        while let Recheck::After { last, again } = self.recheck {
            if self.budget == 0 {
                return;
            }
            self.budget -= 1;
            let from = last.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.eids.range((from, Bound::Unbounded)).next();
            let Some((&eid, waiting)) = next else {
                self.recheck =
                    if again { Recheck::After { last: None, again: false } } else { Recheck::Done };
                continue;
            };
            self.recheck = Recheck::After { last: Some(eid), again };
            if !waiting.frames.is_empty() && resolved(&eid) {
                self.release_one(&eid);
            }
        }
    }

    /// Releases the packets of one EID, and forgets it.
    pub(super) fn release_one(&mut self, eid: &Eid) {
        let Some(mut waiting) = self.eids.remove(eid) else { return };
        self.shares[waiting.share].eids -= 1;
        for held in &waiting.frames {
            self.shares[share(held.payer)].packets -= 1;
        }
        self.places[place(eid)] -= u16::from(!waiting.frames.is_empty());
        self.released.append(&mut waiting.frames);
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
        let (shares, places) = (&mut self.shares, &mut self.places);
        self.eids.retain(|eid, waiting| {
            let due = |held: &Held| held.since + limits.timeout <= now;
            let count = waiting.frames.iter().take_while(|held| due(held)).count();
            for held in waiting.frames.drain(..count) {
                shares[share(held.payer)].packets -= 1;
                expired.push(held);
            }
            places[place(eid)] -= u16::from(count > 0 && waiting.frames.is_empty());
            let until = match waiting.frames.front() {
                Some(held) => held.since + limits.timeout,
                None => waiting.punted + limits.punt_interval,
            };
            if until > now {
                next = Some(next.map_or(until, |next| next.min(until)));
            } else {
                shares[waiting.share].eids -= 1;
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

/// What one source may have of `all`; a little is not shared.
const fn part(all: usize) -> usize {
    if all < SHARE * SHARE { all } else { all / SHARE }
}

fn place(eid: &Eid) -> usize {
    (scramble(eid.address) >> 32) as usize % PLACES
}

/// IPv6 sources of one /64 are one: whoever has one has them all.
fn share(source: IpAddr) -> usize {
    let site = match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    };
    (scramble(site) >> 32) as usize % SHARES
}

fn scramble(address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            ((bits >> 64) as u64).rotate_left(29) ^ bits as u64
        }
    };
    let mixed = (bits ^ bits >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

const EXPIRY_GRANULARITY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::eid::InstanceId;
    use std::net::Ipv4Addr;

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

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
        push_from(hold, now, eid, SOURCE, octet)
    }

    fn push_from(
        hold: &mut Hold,
        now: Instant,
        eid: Eid,
        payer: IpAddr,
        octet: u8,
    ) -> Result<(), DropReason> {
        let parts: [&[u8]; 2] = [&[0; 10], &[octet; 90]];
        hold.push(now, (eid, payer), parts, Traffic::packet(90), Waits::FromNative)
    }

    #[test]
    fn packets_leave_in_the_order_they_came() {
        let now = Instant::now();
        let mut hold = hold(8, 10_000, 8);
        hold.punted(now, eid(1), SOURCE);
        hold.punted(now, eid(2), SOURCE);
        push(&mut hold, now, eid(1), 1).expect("room");
        push(&mut hold, now, eid(2), 9).expect("room");
        push(&mut hold, now, eid(1), 2).expect("room");
        assert_eq!(hold.packets(), 3);
        hold.table_changed();
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
        by_eid.punted(now, eid(1), SOURCE);
        assert!(
            push(&mut by_eid, now, eid(1), 0).is_ok() && push(&mut by_eid, now, eid(1), 0).is_ok()
        );
        assert_eq!(push(&mut by_eid, now, eid(1), 0), full);

        let mut by_octets = hold(8, 150, 8);
        by_octets.punted(now, eid(1), SOURCE);
        assert!(push(&mut by_octets, now, eid(1), 0).is_ok());
        assert_eq!(push(&mut by_octets, now, eid(1), 0), full);

        let mut by_count = hold(1, 10_000, 8);
        by_count.punted(now, eid(1), SOURCE);
        by_count.punted(now, eid(2), SOURCE);
        assert!(push(&mut by_count, now, eid(1), 0).is_ok());
        assert_eq!(push(&mut by_count, now, eid(2), 0), full);

        let mut by_table = hold(8, 10_000, 1);
        by_table.punted(now, eid(1), SOURCE);
        assert_eq!(by_table.punt_due(now, &eid(2), SOURCE), Err(DropReason::MapCacheMissHoldFull));
    }

    #[test]
    fn one_punt_per_eid_and_interval() {
        let now = Instant::now();
        let mut hold = hold(8, 10_000, 8);
        assert_eq!(hold.punt_due(now, &eid(1), SOURCE), Ok(true));
        hold.punted(now, eid(1), SOURCE);
        assert_eq!(hold.punt_due(now + Duration::from_millis(999), &eid(1), SOURCE), Ok(false));
        assert_eq!(hold.punt_due(now + Duration::from_secs(1), &eid(1), SOURCE), Ok(true));
    }

    #[test]
    fn packets_expire_and_leave_nothing_behind() {
        let now = Instant::now();
        let mut hold = hold(8, 10_000, 8);
        hold.punted(now, eid(1), SOURCE);
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

    #[test]
    fn a_change_of_the_table_has_only_so_many_eids_looked_up_per_turn() {
        let now = Instant::now();
        let mut hold = hold(200, 100_000, 200);
        for last in 0..200 {
            let source = Ipv4Addr::new(198, 51, 100, last).into();
            hold.punted(now, eid(last), source);
            push_from(&mut hold, now, eid(last), source, last).expect("room");
        }
        hold.table_changed();
        let (mut turns, mut seen) = (0, Vec::new());
        while hold.is_rechecking() {
            hold.renew_budget();
            let before = seen.len();
            hold.release(|eid| {
                seen.push(*eid);
                eid.address == IpAddr::from([192, 0, 2, 150])
            });
            assert!(seen.len() - before <= LOOKUPS_PER_TURN);
            turns += 1;
            if turns == 2 {
                // Another change: those already looked at come again.
                hold.table_changed();
            }
        }
        assert_eq!(seen.len(), 200 + 199);
        assert!((7..10).contains(&turns), "{turns} turns");
        assert_eq!(hold.pop_released().map(|held| held.frame[10]), Some(150));
        assert!(hold.pop_released().is_none() && !hold.is_waiting(&eid(150)));
        assert!(hold.is_waiting(&eid(151)));
        assert_eq!(hold.expire(now + Duration::from_secs(12)).len(), 199);
        assert!(hold.places.iter().all(|&eids| eids == 0));
        assert!(hold.shares.iter().all(|share| share.eids == 0 && share.packets == 0));
    }

    #[test]
    fn mc_27_a_source_that_scans_leaves_room_for_others() {
        let now = Instant::now();
        let mut hold = hold(64, 100_000, 64);
        let taken = (0..64).filter(|&last| {
            let due = hold.punt_due(now, &eid(last), SOURCE) == Ok(true);
            if due {
                hold.punted(now, eid(last), SOURCE);
            }
            due && push(&mut hold, now, eid(last), 0).is_ok()
        });
        assert_eq!(taken.count(), 8);
        let other = Ipv4Addr::new(198, 51, 100, 8).into();
        assert_eq!(hold.punt_due(now, &eid(100), SOURCE), Err(DropReason::MapCacheMissHoldFull));
        assert_eq!(hold.punt_due(now, &eid(100), other), Ok(true));
        hold.punted(now, eid(100), other);
        assert!(push_from(&mut hold, now, eid(100), other, 0).is_ok());
        // All of a /64 are one.
        assert_eq!(
            share("2001:db8::1".parse().expect("an address")),
            share("2001:db8::ffff:1".parse().expect("an address"))
        );
    }

    #[test]
    fn mc_27_everybody_pays_for_their_own_packets_to_an_eid() {
        let now = Instant::now();
        let mut hold =
            Hold::new(HoldLimits { packets_per_eid: 64, ..hold(64, 100_000, 64).limits });
        let other = Ipv4Addr::new(198, 51, 100, 8).into();
        hold.punted(now, eid(1), SOURCE);
        while push_from(&mut hold, now, eid(1), other, 0).is_ok() {}
        assert_eq!(hold.shares[share(other)].packets, 8);
        assert!(push(&mut hold, now, eid(1), 0).is_ok(), "who missed first has a share still");
        hold.release_one(&eid(1));
        while hold.pop_released().is_some() {}
        assert!(hold.shares.iter().all(|share| share.packets == 0));
    }

    #[test]
    fn limits_beyond_what_shares_count_are_cut() {
        let hold = hold(1 << 20, 1, 1 << 20);
        assert_eq!((hold.limits.packets, hold.limits.eids), (65_535, 65_535));
    }
}
