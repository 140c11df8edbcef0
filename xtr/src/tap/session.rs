//! One tap under way, and the switch that the workers look at.
use super::filter::Filter;
use super::record::Record;
use super::worker::Tap;
use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Records that one worker can leave until they are fetched: some 2 MiB, allocated when a tap begins.
const QUEUE_LEN: usize = 4096;

/// What is tapped, and what was found and not yet fetched.
#[derive(Debug)]
pub(crate) struct Session {
    /// At least 1.
    generation: u64,
    filter: Filter,
    /// One of so many packets that match, at least 1.
    sample: u64,
    outputs: bool,
    /// One queue per worker.
    queues: Box<[ArrayQueue<Record>]>,
    lost: AtomicU64,
}

impl Session {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(super) fn sample(&self) -> u64 {
        self.sample
    }

    pub(super) fn wants_outputs(&self) -> bool {
        self.outputs
    }

    /// Never blocks: what finds no room is counted as lost.
    pub(super) fn push(&self, worker: usize, record: Record) {
        let room = self.queues.get(worker).is_some_and(|queue| queue.push(record).is_ok());
        if !room {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the workers left, at most `limit` records, in the order of time as far as one call can tell.
    pub(super) fn fetch(&self, limit: usize) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for queue in &self.queues {
            let share = limit / self.queues.len().max(1);
            records.extend(std::iter::from_fn(|| queue.pop()).take(share.max(1)));
        }
        records.sort_by_key(|record| record.at);
        records
    }

    /// Records that found no room since this was last asked.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// Tells the workers whether to tap. They look once per batch: one relaxed load while nothing is tapped.
#[derive(Debug, Default)]
pub struct Switch {
    /// Of the session; 0 = off.
    generation: AtomicU64,
    session: ArcSwapOption<Session>,
    sessions: AtomicU64,
}

impl Switch {
    /// Begins a session; one that was under way ends.
    pub(super) fn begin(
        &self,
        filter: Filter,
        sample: u64,
        outputs: bool,
        workers: usize,
    ) -> Arc<Session> {
        let generation = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::new(Session {
            generation,
            filter,
            sample: sample.max(1),
            outputs,
            queues: (0..workers).map(|_| ArrayQueue::new(QUEUE_LEN)).collect(),
            lost: AtomicU64::new(0),
        });
        self.session.store(Some(Arc::clone(&session)));
        self.generation.store(generation, Ordering::Release);
        session
    }

    /// Ends the session.
    pub(super) fn end(&self) {
        self.generation.store(0, Ordering::Release);
        self.session.store(None);
    }

    /// For a worker, before every batch: keeps `tap` as the switch says.
    #[inline]
    pub(crate) fn follow(&self, now: Instant, worker: usize, tap: &mut Option<Box<Tap>>) {
        let wanted = self.generation.load(Ordering::Relaxed);
        if wanted != tap.as_ref().map_or(0, |tap| tap.generation()) {
            self.change(now, worker, tap);
        }
    }

    #[cold]
    fn change(&self, now: Instant, worker: usize, tap: &mut Option<Box<Tap>>) {
        *tap = self.session.load_full().map(|session| Box::new(Tap::new(session, worker, now)));
    }
}
