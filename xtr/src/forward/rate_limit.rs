//! PURE. Token buckets per locator and per site: one worker's own, without lock, in tables of fixed size.
use super::Forwarder;
use crate::drops::DropReason;
use crate::fib::LocatorSet;
use crate::packet::FlowHasher;
use crate::policy::Policy;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Packets per second; `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// To every locator, and from every outer source.
    pub per_locator: Option<u32>,
    /// To every mapping, and from it where sources are looked up.
    pub per_site: Option<u32>,
}

impl RateLimits {
    /// One worker's share.
    #[must_use]
    pub fn share(self, workers: u32) -> Self {
        let share = |rate: Option<u32>| rate.map(|rate| rate.div_ceil(workers.max(1)));
        Self { per_locator: share(self.per_locator), per_site: share(self.per_site) }
    }
}

/// The buckets of one worker.
#[derive(Debug)]
pub(super) struct Limiter {
    to_locator: Option<Buckets<IpAddr>>,
    from_locator: Option<Buckets<IpAddr>>,
    to_site: Option<Buckets<usize>>,
    from_site: Option<Buckets<usize>>,
    hasher: FlowHasher,
}

impl Limiter {
    pub(super) fn new(limits: RateLimits, started: Instant, seed: [u8; 32]) -> Self {
        Self {
            to_locator: limits.per_locator.map(|rate| Buckets::new(rate, started)),
            from_locator: limits.per_locator.map(|rate| Buckets::new(rate, started)),
            to_site: limits.per_site.map(|rate| Buckets::new(rate, started)),
            from_site: limits.per_site.map(|rate| Buckets::new(rate, started)),
            hasher: FlowHasher::new(seed),
        }
    }
}

impl<P: Policy> Forwarder<P> {
    /// Drops what exceeds `limits`, which are this worker's share.
    #[must_use]
    pub fn limit_rates(mut self, limits: RateLimits) -> Self {
        if limits != RateLimits::default() {
            let (started, seed) = (self.settings.started, self.settings.seed);
            self.limiter = Some(Box::new(Limiter::new(limits, started, seed)));
        }
        self
    }

    /// `packets` to a locator of `set`.
    #[inline]
    pub(super) fn limit_outgoing(
        &mut self,
        now: Instant,
        set: &LocatorSet,
        rloc: IpAddr,
        packets: u64,
    ) -> Result<(), DropReason> {
        let Some(limiter) = &mut self.limiter else { return Ok(()) };
        let place = limiter.hasher.hash_address(rloc);
        let site = site(set);
        // What one bucket refuses costs nothing of the other.
        let (to_site, to_locator) = (&mut limiter.to_site, &mut limiter.to_locator);
        if !is_open(to_locator, now, place, rloc) {
            return Err(DropReason::LocatorRateLimited);
        }
        if !take(to_site, now, place_of(site), site, packets) {
            return Err(DropReason::SiteRateLimited);
        }
        take(to_locator, now, place, rloc, packets);
        Ok(())
    }

    /// One packet from an outer source.
    #[inline]
    pub(super) fn limit_incoming(&mut self, now: Instant, rloc: IpAddr) -> Result<(), DropReason> {
        let Some(limiter) = &mut self.limiter else { return Ok(()) };
        let place = limiter.hasher.hash_address(rloc);
        take(&mut limiter.from_locator, now, place, rloc, 1)
            .then_some(())
            .ok_or(DropReason::LocatorRateLimited)
    }

    /// Packets whose source is of the site with this key.
    pub(super) fn limit_site(
        &mut self,
        now: Instant,
        site: usize,
        packets: u64,
    ) -> Result<(), DropReason> {
        let Some(limiter) = &mut self.limiter else { return Ok(()) };
        take(&mut limiter.from_site, now, place_of(site), site, packets)
            .then_some(())
            .ok_or(DropReason::SiteRateLimited)
    }
}

fn take<K: Copy + Eq>(
    buckets: &mut Option<Buckets<K>>,
    now: Instant,
    place: u64,
    key: K,
    packets: u64,
) -> bool {
    buckets.as_mut().is_none_or(|buckets| buckets.take(now, place, key, packets))
}

/// Whether a bucket would give something.
fn is_open<K: Copy + Eq>(buckets: &Option<Buckets<K>>, now: Instant, place: u64, key: K) -> bool {
    buckets.as_ref().is_none_or(|buckets| buckets.is_open(now, place, key))
}

/// A mapping is known by where it lies: its next version starts with a full bucket.
pub(super) fn site(set: &LocatorSet) -> usize {
    std::ptr::from_ref(set).addr()
}

fn place_of(site: usize) -> u64 {
    (site as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Keys that share a place in a table.
const WAYS: usize = 4;
/// Places in a table.
const SETS: usize = 1024;
/// What a full bucket holds, as time at its rate; but never fewer packets than a super-packet stands for, twice.
const BURST: Duration = Duration::from_millis(100);
const MIN_BURST: u64 = 128;

/// A key, and when its bucket is full again.
type Entry<K> = Option<(K, u64)>;

/// Buckets as the time at which each will be full again (GCRA), nanoseconds since the start.
#[derive(Debug)]
struct Buckets<K> {
    per_packet: u64,
    burst: u64,
    started: Instant,
    table: Box<[[Entry<K>; WAYS]]>,
}

impl<K: Copy + Eq> Buckets<K> {
    fn new(rate: u32, started: Instant) -> Self {
        let per_packet = 1_000_000_000 / u64::from(rate.max(1));
        let burst = (BURST.as_nanos() as u64).max(MIN_BURST * per_packet);
        Self { per_packet, burst, started, table: vec![[None; WAYS]; SETS].into() }
    }

    /// Whether [`Self::take`] would take something.
    fn is_open(&self, now: Instant, place: u64, key: K) -> bool {
        let now = now.saturating_duration_since(self.started).as_nanos() as u64;
        let mut set = self.table[place as usize % SETS].iter().flatten();
        let full_at = set.find(|(known, _)| *known == key).map_or(0, |&(_, full_at)| full_at);
        full_at.saturating_sub(now) < self.burst
    }

    /// Takes tokens for all of `packets` if the bucket is not empty.
    fn take(&mut self, now: Instant, place: u64, key: K, packets: u64) -> bool {
        let now = now.saturating_duration_since(self.started).as_nanos() as u64;
        let set = &mut self.table[place as usize % SETS];
        let known = set.iter().position(|entry| entry.is_some_and(|(known, _)| known == key));
        // The one that is full the soonest says the least: its place is taken.
        let way = known.unwrap_or_else(|| {
            (0..WAYS).min_by_key(|&way| set[way].map_or(0, |(_, full_at)| full_at)).unwrap_or(0)
        });
        let full_at = known.and(set[way]).map_or(now, |(_, full_at)| full_at.max(now));
        let allowed = full_at - now < self.burst;
        let full_at = if allowed { full_at + packets * self.per_packet } else { full_at };
        set[way] = Some((key, full_at));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let start = Instant::now();
        let mut buckets = Buckets::new(1000, start);
        let mut taken = |at: u64| {
            let now = start + Duration::from_millis(at);
            (0..1000).filter(|_| buckets.take(now, 5, 'a', 1)).count()
        };
        assert_eq!(taken(0), 128);
        assert_eq!(taken(0), 0);
        assert_eq!(taken(50), 50);
        assert_eq!(taken(10_000), 128);
    }

    #[test]
    fn keys_do_not_disturb_each_other_and_a_full_table_still_works() {
        let start = Instant::now();
        let mut buckets = Buckets::new(1000, start);
        while buckets.take(start, 5, 0, 1) {}
        assert!(buckets.take(start, 5, 1, 1) && !buckets.take(start, 5, 0, 1));
        for key in 2..100 {
            assert!(buckets.take(start, 5, key, 1), "a new one starts full");
        }
        assert!(!buckets.take(start, 5, 0, 1), "the emptiest one keeps its place");
    }

    #[test]
    fn a_super_packet_takes_what_it_stands_for() {
        let start = Instant::now();
        let mut buckets = Buckets::new(1000, start);
        let allowed = (0..10).filter(|_| buckets.take(start, 1, 'a', 64)).count();
        assert_eq!(allowed, 2);
    }

    #[test]
    fn to_ask_takes_nothing() {
        let start = Instant::now();
        let mut buckets = Buckets::new(1000, start);
        assert!(buckets.is_open(start, 1, 'a'));
        while buckets.take(start, 1, 'a', 1) {
            assert!(buckets.is_open(start, 1, 'b'));
        }
        assert!(!buckets.is_open(start, 1, 'a'));
        assert!(buckets.is_open(start + Duration::from_millis(2), 1, 'a'));
    }

    #[test]
    fn workers_share_a_rate() {
        let limits = RateLimits { per_locator: Some(1000), per_site: None };
        assert_eq!(limits.share(3).per_locator, Some(334));
        assert_eq!(limits.share(0), limits);
    }
}
