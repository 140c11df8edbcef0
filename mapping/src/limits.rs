//! Rate limits with injected time; every table in here is bounded.

use std::collections::HashMap;
use std::hash::Hash;
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

/// What was done lately, remembered for at least `period` and for at most `capacity` keys: two generations that take turns.
#[derive(Clone, Debug)]
pub struct Recent<K, V> {
    period: Duration,
    capacity: usize,
    young: HashMap<K, (Instant, V)>,
    old: HashMap<K, (Instant, V)>,
    rotated: Option<Instant>,
}

impl<K: Eq + Hash, V: PartialEq> Recent<K, V> {
    /// An empty memory; at `capacity` the older half is forgotten early.
    pub fn new(period: Duration, capacity: usize) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { period, capacity, young, old, rotated: None }
    }

    /// Whether `value` was recorded for `key` less than `period` ago.
    pub fn contains(&self, now: Instant, key: &K, value: &V) -> bool {
        self.young
            .get(key)
            .or_else(|| self.old.get(key))
            .is_some_and(|(at, recorded)| now < *at + self.period && recorded == value)
    }

    /// Records `value` for `key`.
    pub fn record(&mut self, now: Instant, key: K, value: V) {
        let due = self.rotated.is_none_or(|rotated| now >= rotated + self.period);
        if due || self.young.len() >= self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
            self.rotated = Some(now);
        }
        self.young.insert(key, (now, value));
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

    #[test]
    fn recent_remembers_for_its_period_and_within_its_capacity() {
        let start = Instant::now();
        let mut recent = Recent::new(Duration::from_secs(3), 8);
        recent.record(start, 1, 'a');
        assert!(recent.contains(start + Duration::from_secs(2), &1, &'a'));
        assert!(!recent.contains(start + Duration::from_secs(2), &1, &'b'));
        assert!(!recent.contains(start + Duration::from_secs(3), &1, &'a'));
        for key in 0..1_000 {
            recent.record(start + Duration::from_secs(4), key, 'a');
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
    }

    #[test]
    fn ms_23_an_ipv6_source_counts_by_its_64() {
        let key = |text: &str| source_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
