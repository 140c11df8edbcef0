//! The flight recorder: what the counters were, and what happened when, in bounded memory. Pure: time is an argument.
//!
//! [`History`] keeps every counter in three rings of fixed length: every 2 s for 10 minutes, every 30 s for 2 hours, every 5 min for a
//! day. [`Events`] keeps the last [`MOST_EVENTS`] events. Both together never take more than [`MOST_OCTETS`].
mod events;
mod history;
#[cfg(test)]
mod tests;

pub use events::{EventView, Events, EventsView, MOST_EVENTS, Severity, Told};
pub use history::{CounterHistory, History, HistoryView, MOST_COUNTERS, RINGS, RingView};

use std::time::{Duration, Instant};

use crate::view::CountersView;

/// What a flight recorder takes when all of it is full, octets: texts at their longest.
pub const MOST_OCTETS: usize = history::MOST_OCTETS + events::MOST_OCTETS;
const _: () = assert!(MOST_OCTETS < 6 << 20);

/// History and events of one daemon.
#[derive(Debug)]
pub struct Recorder {
    history: History,
    events: Events,
}

impl Recorder {
    /// Records from `now` on, which is `unix` after 1970-01-01T00:00Z.
    pub fn new(now: Instant, unix: Duration) -> Self {
        Self { history: History::new(now), events: Events::new(now, unix) }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        self.history.poll_timeout()
    }

    /// Keeps the counters if it is time.
    pub fn handle_timeout(&mut self, now: Instant, counters: impl FnOnce() -> CountersView) {
        if self.history.poll_timeout() <= now {
            self.history.record(now, &counters());
        }
    }

    /// Keeps an event, unless there were too many of its kind.
    pub fn tell(&mut self, now: Instant, told: Told) {
        if self.events.admits(now, told.kind) {
            self.events.keep(now, told);
        }
    }

    /// As [`Self::tell`], for what comes so often that it is put into words only if it is kept.
    pub fn tell_of(&mut self, now: Instant, kind: &'static str, told: impl FnOnce() -> Told) {
        if self.events.admits(now, kind) {
            self.events.keep(now, told());
        }
    }

    /// The answer to `isthmus history`.
    ///
    /// # Errors
    /// A counter that there is not, by its name.
    pub fn history_view(&self, now: Instant, counters: &[String]) -> Result<HistoryView, String> {
        self.history.view(now, counters)
    }

    /// The answer to `isthmus events`: those after the one with this number.
    pub fn events_view(&self, after: Option<u64>) -> EventsView {
        self.events.after(after)
    }
}
