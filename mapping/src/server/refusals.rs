//! The newest refused registrations, for `show registrations --refused`.

use std::collections::VecDeque;
use std::time::Instant;

use crate::timers::MAX_REFUSALS;

use super::event::Refusal;

/// How many of the newest are looked through for the same refusal: a peer repeats itself, and few do so at a time.
const LOOK_BACK: usize = 16;

/// A refusal and how often it came.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) last: Instant,
    pub(super) count: u64,
}

/// The newest refusals, each kind once while it repeats; the oldest make room.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Refused>);

impl Refusals {
    pub(super) fn add(&mut self, now: Instant, refusal: &Refusal) {
        let known = self.0.iter_mut().rev().take(LOOK_BACK).find(|known| known.refusal == *refusal);
        if let Some(known) = known {
            known.count += 1;
            known.last = now;
            return;
        }
        if self.0.len() >= MAX_REFUSALS {
            self.0.pop_front();
        }
        self.0.push_back(Refused { refusal: refusal.clone(), last: now, count: 1 });
    }

    /// Newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Refused> {
        self.0.iter().rev()
    }
}
