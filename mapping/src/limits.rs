//! Rate limits with injected time; every table in here is bounded.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// A token bucket as one point in time: when it would be full again (generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    full_at: Option<Instant>,
}

/// The rate and depth of a [`TokenBucket`].
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    interval: Duration,
    depth: Duration,
}

impl Rate {
    /// `per_second` tokens a second, `burst` at once; both at least 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, depth: interval * burst.max(1) }
    }

    /// The rate and the burst halved `times` times, at most 31.
    #[must_use]
    pub fn slowed(self, times: u32) -> Self {
        let interval = self.interval * (1 << times.min(31));
        Self { interval, depth: self.depth.max(interval) }
    }

    /// One token every `interval`, `burst` at once; `burst` at least 1.
    pub fn every(interval: Duration, burst: u32) -> Self {
        Self { interval, depth: interval * burst.max(1) }
    }
}

impl TokenBucket {
    /// A full bucket.
    pub const fn new() -> Self {
        Self { full_at: None }
    }

    /// Takes one token if there is one.
    pub fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        let full_at = from + rate.interval;
        if full_at.duration_since(now) > rate.depth {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }

    /// Whether less than half of the tokens are left.
    pub fn is_low(&self, now: Instant, rate: Rate) -> bool {
        self.full_at.is_some_and(|full_at| full_at.saturating_duration_since(now) > rate.depth / 2)
    }

    /// Whether every token is there, so that the bucket need not be remembered.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

impl Default for TokenBucket {
    fn default() -> Self {
        Self::new()
    }
}

/// One [`TokenBucket`] per key, for at most `capacity` keys; the keys beyond share one bucket, so that none goes unlimited.
#[derive(Clone, Debug)]
pub struct KeyedBuckets<K> {
    rate: Rate,
    capacity: usize,
    buckets: HashMap<K, TokenBucket>,
    overflow: TokenBucket,
    swept: Option<Instant>,
}

/// Between two searches for full buckets to forget, when the table is at its capacity.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl<K: Eq + Hash> KeyedBuckets<K> {
    /// An empty table of `capacity` buckets, each with `rate`.
    pub fn new(rate: Rate, capacity: usize) -> Self {
        let overflow = TokenBucket::new();
        Self { rate, capacity, buckets: HashMap::new(), overflow, swept: None }
    }

    /// Takes one token of `key` if there is one.
    pub fn take(&mut self, now: Instant, key: K) -> bool {
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(now, self.rate);
        }
        if self.buckets.len() >= self.capacity {
            self.sweep(now);
        }
        if self.buckets.len() >= self.capacity {
            return self.overflow.take(now, self.rate);
        }
        self.buckets.entry(key).or_default().take(now, self.rate)
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

/// A hash that nobody can aim at who does not know the seed; cheap, and no proof of anything.
#[derive(Clone, Copy)]
pub struct Scatter {
    seed: [u64; 2],
}

impl Scatter {
    /// The hash of `seed`.
    pub const fn new(seed: [u64; 2]) -> Self {
        // Odd, so that nothing is multiplied by zero.
        Self { seed: [seed[0], seed[1] | 1] }
    }

    /// The hash of one value.
    pub fn of(&self, value: &impl Hash) -> u64 {
        let mut hasher = Scattering { state: self.seed[0], factor: self.seed[1] };
        value.hash(&mut hasher);
        hasher.finish()
    }
}

impl std::fmt::Debug for Scatter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scatter(..)")
    }
}

struct Scattering {
    state: u64,
    factor: u64,
}

/// Both halves of the product.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Hasher for Scattering {
    fn write(&mut self, octets: &[u8]) {
        for chunk in octets.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;
        self.state = fold(self.state ^ word, self.factor).wrapping_add(INCREMENT);
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        fold(self.state, self.factor ^ self.state.rotate_left(32))
    }
}

/// Nanoseconds since the first moment asked about.
#[derive(Clone, Copy, Debug, Default)]
struct Since(Option<Instant>);

impl Since {
    fn nanoseconds(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(*self.0.get_or_insert(now));
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// In coarse steps from 1 on; 32 bits of them are 9 years.
    fn tick(&mut self, now: Instant) -> u32 {
        u32::try_from(self.nanoseconds(now) / TICK + 1).unwrap_or(u32::MAX)
    }
}

/// The nanoseconds of a coarse step, 67 ms.
const TICK: u64 = 1 << 26;

fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_nanos() / u128::from(TICK)).unwrap_or(u32::MAX)
}

/// A token bucket per key, in memory that never grows: keys share buckets by hash. Each key has two halves of a bucket in different
/// places, so that hardly anybody shares both with somebody who floods; a flood of keys, each with little, slows nobody down.
#[derive(Clone, Debug)]
pub struct ScatteredBuckets {
    interval: u64,
    depth: u64,
    since: Since,
    scatter: Scatter,
    /// When each would be full again, in nanoseconds.
    full_at: Box<[u64]>,
}

impl ScatteredBuckets {
    /// `count` halves of buckets, rounded up to a power of two; a whole bucket has `rate`, whose burst is at least 2.
    pub fn new(rate: Rate, count: usize, scatter: Scatter) -> Self {
        let nanoseconds = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4);
        Self {
            interval: 2 * nanoseconds(rate.interval),
            depth: nanoseconds(rate.depth).max(2 * nanoseconds(rate.interval)),
            since: Since::default(),
            scatter,
            full_at: vec![0; count.max(1).next_power_of_two()].into(),
        }
    }

    /// Takes one token of `key` if there is one.
    pub fn take(&mut self, now: Instant, key: &impl Hash) -> bool {
        let now = self.since.nanoseconds(now);
        let hash = self.scatter.of(key);
        let places = [hash, hash.rotate_left(32)].map(|h| h as usize & (self.full_at.len() - 1));
        places.into_iter().any(|at| {
            let full_at = self.full_at[at].max(now) + self.interval;
            let there = full_at - now <= self.depth;
            if there {
                self.full_at[at] = full_at;
            }
            there
        })
    }
}

/// Keys that are known, since they were met again some time after they were met first, in memory that never grows.
///
/// Whoever is known stays so until not met for the lifetime: a flood of newcomers displaces newcomers only.
#[derive(Clone, Debug)]
pub struct Acquaintances {
    probation: u32,
    lifetime: u32,
    since: Since,
    scatter: Scatter,
    sets: Box<[AcquaintanceSet]>,
}

/// The keys of one hash: looking for one costs one access to memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct AcquaintanceSet([Acquaintance; Acquaintances::WAYS]);

#[derive(Clone, Copy, Debug, Default)]
struct Acquaintance {
    tag: u64,
    /// The tick when met first.
    first: u32,
    /// The tick when met last; 0 = nobody.
    last: u32,
}

impl Acquaintances {
    const WAYS: usize = 4;

    /// Room for `count` keys, rounded up; times count in steps of 67 ms. One is known when met again at least `probation` after it
    /// was met first; with none, at once, and then it takes the place of the one not met for longest if there is no other.
    pub fn new(probation: Duration, lifetime: Duration, count: usize, scatter: Scatter) -> Self {
        let sets = count.div_ceil(Self::WAYS).max(1).next_power_of_two();
        Self {
            probation: ticks(probation),
            lifetime: ticks(lifetime),
            since: Since::default(),
            scatter,
            sets: vec![AcquaintanceSet::default(); sets].into(),
        }
    }

    /// Whether `key` is known.
    pub fn contains(&mut self, now: Instant, key: &impl Hash) -> bool {
        let (now, tag) = (self.since.tick(now), self.scatter.of(key));
        let AcquaintanceSet(set) = &self.sets[tag as usize & (self.sets.len() - 1)];
        set.iter().any(|one| one.tag == tag && self.is_known(now, one))
    }

    /// Meets `key`.
    pub fn meet(&mut self, now: Instant, key: &impl Hash) {
        let (now, tag) = (self.since.tick(now), self.scatter.of(key));
        let at = tag as usize & (self.sets.len() - 1);
        let AcquaintanceSet(set) = self.sets[at];
        let present = |one: &Acquaintance| one.tag == tag && self.is_present(now, one);
        if let Some(way) = set.iter().position(present) {
            self.sets[at].0[way].last = now;
            return;
        }
        let cheapest = |way: &usize| (self.is_known(now, &set[*way]), set[*way].last);
        let way = (0..Self::WAYS).min_by_key(cheapest).unwrap_or_default();
        if self.probation == 0 || !self.is_known(now, &set[way]) {
            self.sets[at].0[way] = Acquaintance { tag, first: now, last: now };
        }
    }

    fn is_present(&self, now: u32, one: &Acquaintance) -> bool {
        one.last > 0 && now.saturating_sub(one.last) < self.lifetime
    }

    fn is_known(&self, now: u32, one: &Acquaintance) -> bool {
        self.is_present(now, one) && one.last - one.first >= self.probation
    }
}

/// What was done lately, no more often than once per `period` on average, in memory that never grows: where keys crowd, the older one is
/// forgotten early.
///
/// A key takes 8 octets, so that looking for one costs one access to memory; two keys are taken for the same once in 10^12.
#[derive(Clone, Debug)]
pub struct Recent {
    period: u64,
    burst: u64,
    since: Since,
    scatter: Scatter,
    /// 24 bits of the key, 16 of the value, 24 of the time when all is paid for; 0 = nothing.
    done: Box<[u64]>,
}

impl Recent {
    /// 24 bits of ticks are 12 days.
    const TIME: u64 = (1 << 24) - 1;

    /// An empty memory of `count` keys, rounded up to a power of two; `period` counts in steps of 67 ms. `burst`, at least 1, is how
    /// often something may be done in a row.
    pub fn new(period: Duration, burst: u32, count: usize, scatter: Scatter) -> Self {
        let burst = u64::from(burst.max(1));
        let period = u64::from(ticks(period)).min(Self::TIME / 2 / burst);
        let done = vec![0; count.max(1).next_power_of_two()].into();
        Self { period, burst, since: Since::default(), scatter, done }
    }

    /// Whether `value` was recorded for `key` as often as it may be.
    pub fn contains(&mut self, now: Instant, key: &impl Hash, value: u64) -> bool {
        let (.., owed) = self.place(now, key, value);
        owed > self.period * (self.burst - 1)
    }

    /// Records `value` for `key`.
    pub fn record(&mut self, now: Instant, key: &impl Hash, value: u64) {
        let (at, tag, now, owed) = self.place(now, key, value);
        self.done[at] = tag | (now + owed + self.period) & Self::TIME;
    }

    /// The place of a key, what stands there but for the time, the time now, and how long until all is paid for.
    fn place(&mut self, now: Instant, key: &impl Hash, value: u64) -> (usize, u64, u64, u64) {
        let now = u64::from(self.since.tick(now)) & Self::TIME;
        let hash = self.scatter.of(key);
        let tag = hash & !0xff_ffff_ffff | (self.scatter.of(&value) & 0xffff) << 24;
        let at = hash as usize & (self.done.len() - 1);
        let found = self.done[at];
        let owed = (found & Self::TIME).wrapping_sub(now) & Self::TIME;
        let is_it = found != 0 && found & !Self::TIME == tag;
        // What lies in the past seems far ahead.
        let owed = if is_it && owed <= self.period * self.burst { owed } else { 0 };
        (at, tag, now, owed)
    }
}

/// What a per-source limit counts by: an IPv4 address, or the /64 of an IPv6 address, since one host may use all of it.
pub fn source_key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let (start, rate) = (Instant::now(), Rate::new(10, 3));
        let mut bucket = TokenBucket::new();
        let given = (0..10).filter(|_| bucket.take(start, rate)).count();
        assert_eq!(given, 3);
        assert!(!bucket.take(start + Duration::from_millis(99), rate));
        assert!(bucket.take(start + Duration::from_millis(100), rate));
        assert!(!bucket.take(start + Duration::from_millis(100), rate));
        let given = (0..10).filter(|_| bucket.take(start + Duration::from_secs(60), rate)).count();
        assert_eq!(given, 3, "an idle bucket holds no more than its burst");
    }

    #[test]
    fn keys_beyond_the_capacity_share_a_bucket_until_others_idle() {
        let start = Instant::now();
        let mut buckets = KeyedBuckets::new(Rate::new(1, 1), 2);
        assert!(buckets.take(start, 1) && buckets.take(start, 2));
        assert!(buckets.take(start, 3));
        assert!(!buckets.take(start, 4), "3 used the shared token");
        assert!(!buckets.take(start, 1));
        let later = start + Duration::from_secs(5);
        assert!(buckets.take(later, 5) && buckets.take(later, 6));
        assert!(buckets.buckets.len() <= 2);
    }

    const SCATTER: Scatter = Scatter::new([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);

    #[test]
    fn a_hash_spreads_neighbours_and_depends_on_the_seed() {
        let addresses: Vec<IpAddr> =
            (0..4_096_u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).into()).collect();
        let slots: std::collections::HashSet<u64> =
            addresses.iter().map(|address| SCATTER.of(address) % 65_536).collect();
        assert!(slots.len() > 3_900, "{}", slots.len());
        let other = Scatter::new([1, 2]);
        let same = addresses.iter().filter(|a| SCATTER.of(a) % 64 == other.of(a) % 64).count();
        assert!((20..150).contains(&same), "{same}");
    }

    #[test]
    fn a_flood_of_keys_slows_nobody_down_who_is_not_flooding() {
        let start = Instant::now();
        let mut buckets = ScatteredBuckets::new(Rate::new(10, 20), 1_024, SCATTER);
        let (mut refused, mut strangers) = (0, 0);
        for step in 0..10_000_u32 {
            let now = start + Duration::from_millis(step.into());
            strangers += u32::from(buckets.take(now, &(step % 5_000 + 10)));
            refused += u32::from(!buckets.take(now, &"flooder"));
            if step % 200 == 0 {
                assert!(buckets.take(now, &"honest"), "{step}");
            }
        }
        assert!(refused > 9_800, "{refused}");
        assert_eq!(strangers, 10_000, "each comes once in 5 s");
    }

    #[test]
    fn an_acquaintance_is_met_twice_and_forgotten_when_met_no_more() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut known = Acquaintances::new(second, second * 10, 1_024, SCATTER);
        known.meet(start, &7);
        known.meet(start + second / 2, &7);
        assert!(!known.contains(start + second / 2, &7));
        known.meet(start + second, &7);
        assert!(known.contains(start + second * 10, &7));
        assert!(!known.contains(start + second * 11, &7));
        known.meet(start + second * 11, &7);
        assert!(!known.contains(start + second * 11, &7), "a stranger again");
    }

    #[test]
    fn newcomers_do_not_displace_who_is_known() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut known = Acquaintances::new(second, second * 100, 1_024, SCATTER);
        for at in [start, start + second] {
            (0..50).for_each(|key| known.meet(at, &key));
        }
        (50..100_000).for_each(|key| known.meet(start + second * 2, &key));
        assert!((0..50).all(|key| known.contains(start + second * 2, &key)));
        assert_eq!(known.sets.len() * Acquaintances::WAYS, 1_024);
    }

    #[test]
    fn without_probation_the_newest_are_known() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut known = Acquaintances::new(Duration::ZERO, second * 100, 1_024, SCATTER);
        (0..100_000).for_each(|key| known.meet(start, &key));
        known.meet(start + second, &"last");
        assert!(known.contains(start + second, &"last"));
    }

    #[test]
    fn recent_remembers_the_last_value_for_its_period() {
        let start = Instant::now();
        let mut recent = Recent::new(Duration::from_secs(3), 1, 8, SCATTER);
        recent.record(start, &1, 5);
        assert!(recent.contains(start + Duration::from_secs(2), &1, 5));
        assert!(!recent.contains(start + Duration::from_secs(2), &1, 6));
        assert!(!recent.contains(start + Duration::from_secs(3), &1, 5));
        recent.record(start, &1, 6);
        assert!(!recent.contains(start, &1, 5), "the way back is news too");
    }

    #[test]
    fn recent_allows_a_burst_and_keeps_the_period_on_average() {
        let start = Instant::now();
        let mut recent = Recent::new(Duration::from_secs(3), 11, 8, SCATTER);
        let mut done = 0;
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            if !recent.contains(now, &1, 5) {
                recent.record(now, &1, 5);
                done += 1;
                assert!(second > 10 || done == second + 1, "an ITR that asks eleven times");
            }
        }
        assert!((1_190..=1_240).contains(&done), "{done} in an hour");
    }

    #[test]
    fn ms_23_an_ipv6_source_counts_by_its_64() {
        let key = |text: &str| source_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
