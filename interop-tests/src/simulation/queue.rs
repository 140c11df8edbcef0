//! What is to happen, in its order.
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Events by time; those of one moment in the order they were scheduled.
#[derive(Debug)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Scheduled<T>>,
    scheduled: u64,
}

#[derive(Debug)]
struct Scheduled<T> {
    nanos: u64,
    number: u64,
    event: T,
}

impl<T> Scheduled<T> {
    fn key(&self) -> u128 {
        u128::from(self.nanos) << 64 | u128::from(self.number)
    }
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0 }
    }

    pub(super) fn schedule(&mut self, at: Duration, event: T) {
        self.scheduled += 1;
        // Five hundred years.
        let nanos = at.as_nanos() as u64;
        self.heap.push(Scheduled { nanos, number: self.scheduled, event });
    }

    /// The next event, if it is due by `end`.
    pub(super) fn pop_until(&mut self, end: Duration) -> Option<(Duration, T)> {
        if Duration::from_nanos(self.heap.peek()?.nanos) > end {
            return None;
        }
        self.heap.pop().map(|scheduled| (Duration::from_nanos(scheduled.nanos), scheduled.event))
    }
}

impl<T> Ord for Scheduled<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        other.key().cmp(&self.key())
    }
}

impl<T> PartialOrd for Scheduled<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Scheduled<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Scheduled<T> {}
