//! Events to the log, no more than a reader can follow (CW-38).

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tracing::Level;

use crate::discard::Discard;
use crate::limits::{Rate, TokenBucket};
use crate::server::Event;

/// Log lines per second of one kind that received packets may cause (CW-38), and how many at once.
const LOG_PER_SECOND: u32 = 10;
pub(super) const LOG_BURST: u32 = 50;

/// The log with its limits; what anybody can cause has a share of its own.
#[derive(Default)]
pub(super) struct EventLog {
    refusals: TokenBucket,
    changes: TokenBucket,
    failures: TokenBucket,
    pub(super) suppressed: u64,
}

impl EventLog {
    pub(super) fn write(&mut self, now: Instant, event: &Event) {
        let level = level(event);
        if level == Level::DEBUG && !tracing::enabled!(Level::DEBUG) {
            return;
        }
        let bucket = match event {
            Event::Refused(_) | Event::Discarded { .. } => &mut self.refusals,
            _ => &mut self.changes,
        };
        if !bucket.take(now, Rate::new(LOG_PER_SECOND, LOG_BURST)) {
            self.suppressed += 1;
            return;
        }
        self.tell_of_suppressed();
        match level {
            Level::DEBUG => tracing::debug!("{event}"),
            Level::WARN => tracing::warn!("{event}"),
            _ => tracing::info!("{event}"),
        }
    }

    /// A datagram that the kernel refused to send.
    pub(super) fn send_failed(&mut self, now: Instant, to: SocketAddr, error: &io::Error) {
        if !self.failures.take(now, Rate::new(LOG_PER_SECOND, LOG_BURST)) {
            self.suppressed += 1;
            return;
        }
        self.tell_of_suppressed();
        tracing::warn!(destination = %to, %error, "cannot send");
    }

    fn tell_of_suppressed(&mut self) {
        if self.suppressed > 0 {
            tracing::info!(events = self.suppressed, "more events were not logged");
            self.suppressed = 0;
        }
    }
}

/// Messages that are not understood have to be logged (CW-07, CW-10, CW-11); of other noise the counters tell enough.
pub(super) fn level(event: &Event) -> Level {
    match event {
        Event::Discarded {
            reason: Discard::UnknownAfi | Discard::UnsupportedEid | Discard::UnknownVendor,
            ..
        }
        | Event::Refused(_)
        | Event::NotRestored(_)
        | Event::WeakAlgorithm { .. }
        | Event::LooseProfile { .. }
        | Event::LooseClient(_)
        | Event::NotifyUnacknowledged { .. } => Level::WARN,
        Event::Discarded { .. } => Level::DEBUG,
        _ => Level::INFO,
    }
}
