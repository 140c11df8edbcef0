//! The tie between the monotonic clock that state machines run on and the time of day that survives a restart.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    instant: Instant,
    unix: Duration,
}

impl Epoch {
    /// `instant` is the moment `unix` after 1970-01-01T00:00Z.
    pub const fn new(instant: Instant, unix: Duration) -> Self {
        Self { instant, unix }
    }

    /// This moment by the host's clocks.
    #[expect(clippy::disallowed_methods, reason = "what survives a restart needs the time of day")]
    pub fn of_host() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(Instant::now(), unix)
    }

    /// Milliseconds from 1970 to `at`; 0 for what lies before.
    pub fn unix_millis(&self, at: Instant) -> u64 {
        let unix = match at.checked_duration_since(self.instant) {
            Some(after) => self.unix.saturating_add(after),
            None => self.unix.saturating_sub(self.instant.duration_since(at)),
        };
        u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment `millis` milliseconds after 1970; `None` when the monotonic clock cannot express it.
    pub fn instant(&self, millis: u64) -> Option<Instant> {
        let unix = Duration::from_millis(millis);
        match unix.checked_sub(self.unix) {
            Some(after) => self.instant.checked_add(after),
            None => self.instant.checked_sub(self.unix - unix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_the_way_there_and_back() {
        let start = Instant::now() + Duration::from_secs(1_000);
        let epoch = Epoch::new(start, Duration::from_secs(1_800_000_000));
        for at in [start, start + Duration::from_millis(1_500), start - Duration::from_secs(9)] {
            assert_eq!(epoch.instant(epoch.unix_millis(at)), Some(at));
        }
        assert_eq!(epoch.unix_millis(start), 1_800_000_000_000);
    }
}
