//! PURE. When RLOC-probes go: two queues, so that what watches over traffic never waits behind what does not (PB-18).
//!
//! The intervals stretch with the number of locators so that regular probes stay below the pace of their queue; its bucket is the hard
//! bound, and what lies between them is for repetitions.
use super::limit::TokenBucket;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Which queue a locator's next probe waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It carries traffic, or is about to.
    Guard,
    /// It carries none.
    Background,
}

/// Probes per second of one queue.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Regular ones.
    pace: u32,
    /// All of them.
    bound: u32,
}

const GUARD: Rate = Rate { pace: 1_000, bound: 2_000 };
const BACKGROUND: Rate = Rate { pace: 200, bound: 500 };

/// The probes to come.
#[derive(Debug)]
pub(super) struct Schedule {
    guard: Queue,
    background: Queue,
}

#[derive(Debug)]
struct Queue {
    timers: BTreeSet<(Instant, IpAddr)>,
    pace: u32,
    bucket: TokenBucket,
    /// None before: the bucket was empty.
    blocked: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { guard: Queue::new(now, GUARD), background: Queue::new(now, BACKGROUND) }
    }

    /// When [`Self::pop_due`] has something next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [&self.guard, &self.background].into_iter().filter_map(Queue::next_timeout).min()
    }

    pub(super) fn insert(&mut self, (class, due): (Class, Instant), rloc: IpAddr) {
        self.queue(class).timers.insert((due, rloc));
    }

    pub(super) fn remove(&mut self, (class, due): (Class, Instant), rloc: IpAddr) {
        self.queue(class).timers.remove(&(due, rloc));
    }

    /// Takes out a locator whose probe is due, as far as the rates allow.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<IpAddr> {
        self.guard.pop_due(now).or_else(|| self.background.pop_due(now))
    }

    /// Between two probes of one locator when `wanted` is what the configuration says.
    pub(super) fn interval(&self, class: Class, wanted: Duration) -> Duration {
        let queue = self.queue_ref(class);
        let locators = u32::try_from(queue.timers.len()).unwrap_or(u32::MAX);
        wanted.max(Duration::from_secs(1) * locators / queue.pace)
    }

    /// Whether so many locators wait that those learned together should not be probed together for ever.
    pub(super) fn is_crowded(&self, class: Class) -> bool {
        let queue = self.queue_ref(class);
        queue.timers.len() > queue.pace as usize / 2
    }

    const fn queue(&mut self, class: Class) -> &mut Queue {
        match class {
            Class::Guard => &mut self.guard,
            Class::Background => &mut self.background,
        }
    }

    const fn queue_ref(&self, class: Class) -> &Queue {
        match class {
            Class::Guard => &self.guard,
            Class::Background => &self.background,
        }
    }
}

impl Queue {
    fn new(now: Instant, rate: Rate) -> Self {
        Self {
            timers: BTreeSet::new(),
            pace: rate.pace,
            bucket: TokenBucket::new(now, rate.bound),
            blocked: None,
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let first = self.timers.first()?.0;
        Some(self.blocked.map_or(first, |blocked| first.max(blocked)))
    }

    fn pop_due(&mut self, now: Instant) -> Option<IpAddr> {
        self.blocked = None;
        let &(due, rloc) = self.timers.first()?;
        if due > now {
            return None;
        }
        if let Err(later) = self.bucket.take(now) {
            self.blocked = Some(later);
            return None;
        }
        self.timers.pop_first();
        Some(rloc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rloc(index: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + index).into()
    }

    #[test]
    fn pb_18_what_watches_over_traffic_does_not_wait_behind_ten_thousand_idle_locators() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        (0..10_000).for_each(|index| schedule.insert((Class::Background, now), rloc(index)));
        let mut sent = 0;
        while schedule.pop_due(now).is_some() {
            sent += 1;
        }
        assert_eq!(sent, BACKGROUND.bound);
        schedule.insert((Class::Guard, now), rloc(20_000));
        assert_eq!(schedule.next_timeout(), Some(now));
        assert_eq!(schedule.pop_due(now), Some(rloc(20_000)));
        let second = now + Duration::from_secs(1);
        let sent = std::iter::from_fn(|| schedule.pop_due(second)).count();
        assert!(sent <= BACKGROUND.bound as usize, "{sent}");
    }

    #[test]
    fn pb_18_intervals_stretch_with_the_number_of_locators() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        let second = Duration::from_secs(1);
        (0..1_000).for_each(|index| schedule.insert((Class::Guard, now), rloc(index)));
        assert_eq!(schedule.interval(Class::Guard, second), second);
        (1_000..10_000).for_each(|index| schedule.insert((Class::Guard, now), rloc(index)));
        assert_eq!(schedule.interval(Class::Guard, second), 10 * second);
        assert_eq!(schedule.interval(Class::Background, second), second);
    }
}
