//! PURE. The round-trip time to one RLOC, smoothed as RFC 6298 §2 does it.
use std::time::Duration;

/// More than this no answer is waited for.
const LONGEST: Duration = Duration::from_secs(10);

/// What the answered probes of one RLOC tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl RoundTrip {
    /// What one answer alone tells.
    pub(super) fn first(sample: Duration) -> Self {
        Self { smoothed: sample, variation: sample / 2 }
    }

    /// One more answer.
    pub(super) fn add(&mut self, sample: Duration) {
        let off = self.smoothed.abs_diff(sample);
        self.variation = self.variation * 3 / 4 + off / 4;
        self.smoothed = self.smoothed * 7 / 8 + sample / 8;
    }

    /// The smoothed round-trip time.
    pub(super) const fn smoothed(self) -> Duration {
        self.smoothed
    }

    /// An answer that comes later than this is hardly coming at all.
    pub(super) fn timeout(self) -> Duration {
        (self.smoothed + self.variation * 4).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pb_10_a_steady_round_trip_time_makes_a_tight_timeout_and_a_wild_one_a_wide_one() {
        let ms = Duration::from_millis;
        let mut steady = RoundTrip::first(ms(50));
        assert_eq!(steady.timeout(), ms(150));
        (0..50).for_each(|_| steady.add(ms(50)));
        assert_eq!(steady.smoothed(), ms(50));
        assert!(steady.timeout() < ms(51), "{steady:?}");
        let mut wild = steady;
        (0..50).for_each(|index| wild.add(ms(if index % 2 == 0 { 20 } else { 80 })));
        assert!((ms(40)..ms(60)).contains(&wild.smoothed()), "{wild:?}");
        assert!((ms(120)..ms(220)).contains(&wild.timeout()), "{wild:?}");
        wild.add(Duration::from_secs(3600));
        assert_eq!(wild.timeout(), LONGEST);
    }
}
