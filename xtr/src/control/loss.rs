//! PURE. How many RLOC-probes get lost on the way to an RLOC that is alive, and how many in a row therefore tell that it is not (PB-10).
//!
//! On a clean path that is the number of the configuration. On one that loses a share of the probes it is the number that would go
//! unanswered by mere chance once in [`ODDS`] times, so that a bad path is used while it is better than none: half of the probes lost makes
//! it 12. What stays unanswered until the RLOC is given up says nothing of the path, and is not counted.

/// How many runs of unanswered probes there may be for one that is mistaken for an outage.
const ODDS: f64 = 4_000.0;
/// Never more tries than the configured ones times this.
const MOST: u32 = 4;

/// What became of the last 64 probes that were sent to a living RLOC: a bit is set for one that was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    recent: u64,
}

impl Loss {
    /// One of `probes` probes since the last answer was answered: taken for the last of them. None if the answer comes late.
    pub(super) fn answered(&mut self, probes: u32) {
        let lost = probes.saturating_sub(1).min(u64::BITS - 1);
        self.recent = self.recent << lost | ((1 << lost) - 1);
        self.recent <<= 1;
    }

    /// Of the last probes, percent.
    pub(super) fn percent(self) -> u8 {
        (self.recent.count_ones() * 100 / u64::BITS) as u8
    }

    /// Probes without answer in a row that bring the RLOC down, where `least` are configured.
    pub(super) fn tries(self, least: u32) -> u32 {
        let most = least.saturating_mul(MOST);
        let share = f64::from(self.recent.count_ones()) / f64::from(u64::BITS);
        let (mut chance, mut tries) = (1.0, 0);
        while chance > 1.0 / ODDS && tries < most {
            (chance, tries) = (chance * share, tries + 1);
        }
        tries.max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lost: u32) -> Loss {
        let mut loss = Loss::default();
        for _ in 0..u64::BITS - lost {
            loss.answered(1);
        }
        loss.answered(lost + 1);
        Loss { recent: loss.recent >> 1 }
    }

    #[test]
    fn pb_10_the_more_probes_a_path_loses_the_more_have_to_be_lost() {
        let tries = |lost: u32| after(lost).tries(3);
        assert_eq!([0, 1, 4, 5, 8, 16, 32].map(tries), [3, 3, 3, 4, 4, 6, 12]);
        assert_eq!(tries(63), 12, "there is a bound");
        assert_eq!(after(32).percent(), 50);
        assert_eq!([1, 5, 20].map(|least| after(0).tries(least)), [1, 5, 20]);
        assert_eq!(after(63).tries(100), 400);
    }

    #[test]
    fn pb_10_a_path_that_got_better_is_a_clean_one_again() {
        let mut loss = Loss::default();
        (0..40).for_each(|_| loss.answered(2));
        assert_eq!(loss.tries(3), 12);
        (0..64).for_each(|_| loss.answered(1));
        assert_eq!((loss.tries(3), loss.percent()), (3, 0));
        loss.answered(0);
        loss.answered(u32::MAX);
        assert_eq!(loss.percent(), 98);
    }
}
