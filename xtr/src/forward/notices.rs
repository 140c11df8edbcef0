//! PURE. Bounds what one worker tells the control plane: one notice about the same thing per second, so many per second in all.

/// What one worker told the control plane in this second: `PLACES` notices at most. What shares a place with others may be told again.
#[derive(Debug)]
pub(super) struct Notices<const PLACES: usize> {
    told: [(u64, u32); PLACES],
    second: u32,
    count: usize,
}

impl<const PLACES: usize> Notices<PLACES> {
    pub(super) const fn new() -> Self {
        Self { told: [(0, 0); PLACES], second: 0, count: 0 }
    }

    /// Whether to tell of what `key` stands for, in this second of the coarse clock.
    pub(super) fn is_due(&mut self, key: u64, clock: u32) -> bool {
        if self.second != clock {
            (self.second, self.count) = (clock, 0);
        }
        let place = &mut self.told[key as usize % PLACES];
        if *place == (key, clock) || self.count >= PLACES {
            return false;
        }
        *place = (key, clock);
        self.count += 1;
        true
    }

    /// Takes back what [`Self::is_due`] said, for it could not be told.
    pub(super) fn not_told(&mut self, key: u64) {
        self.told[key as usize % PLACES] = (0, 0);
        self.count = self.count.saturating_sub(1);
    }
}
