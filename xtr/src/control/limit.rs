//! Token buckets: how often the control plane may do something in total.
use std::time::{Duration, Instant};

/// `rate` tokens per second, at most `rate` saved up.
#[derive(Debug)]
pub(super) struct TokenBucket {
    interval: Duration,
    window: Duration,
    /// When the bucket is full again, were nothing taken: the later, the emptier.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket; `rate` is at least 1.
    pub(super) fn new(now: Instant, rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, window: Duration::from_secs(1), full_at: now }
    }

    /// Takes one token; otherwise says when there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.max(now) + self.interval;
        if full_at > now + self.window {
            return Err(now + (full_at - (now + self.window)));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rq_23_a_bucket_bounds_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start, 100);
        assert_eq!((0..1000).filter(|_| bucket.take(start).is_ok()).count(), 100);
        let next = bucket.take(start).expect_err("empty");
        assert_eq!(next, start + Duration::from_millis(10));
        assert!(bucket.take(next).is_ok());
        let later = start + Duration::from_millis(510);
        assert_eq!((0..1000).filter(|_| bucket.take(later).is_ok()).count(), 50);
    }
}
