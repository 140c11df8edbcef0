//! What the data plane tells by its counters, looked at at a bounded rate.
use super::{Daemon, HEALTH_INTERVAL, LOG_INTERVAL};
use crate::drops::DropReason;
use std::time::Instant;

impl Daemon {
    /// Tells the control plane what the data plane was told of path MTUs, at most once a second.
    pub(super) fn watch_path_reports(&mut self, now: Instant) {
        if self.reports.due.is_some_and(|due| now < due) {
            return;
        }
        self.reports.due = Some(now + HEALTH_INTERVAL);
        let seen = self.engine.counters().path_mtu_lowered;
        if std::mem::replace(&mut self.reports.seen, seen) != seen {
            for (rloc, mtu) in self.engine.path_mtus().reported(now) {
                self.control.set_reported_mtu(now, rloc, mtu);
            }
        }
    }

    /// DE-14: what RFC 6040 §4.2 wants logged, at a bounded rate, with a switch.
    pub(super) fn watch_ecn(&mut self, now: Instant) {
        if !self.config.data.log_unusual_ecn || self.ecn.due.is_some_and(|due| now < due) {
            return;
        }
        self.ecn.due = Some(now + LOG_INTERVAL);
        let counters = self.engine.counters();
        let seen = (counters.ecn_unused_combination, counters.dropped(DropReason::EcnNotEctCe));
        let before = std::mem::replace(&mut self.ecn.seen, seen);
        if seen != before {
            tracing::warn!(
                delivered = seen.0 - before.0,
                dropped = seen.1 - before.1,
                "packets with a combination of inner and outer ECN that no tunnel makes: something on the path rewrites ECN"
            );
        }
    }
}

/// What the control plane was last told of path MTUs.
#[derive(Debug, Default)]
pub(super) struct ReportWatch {
    due: Option<Instant>,
    /// How many reports lowered one.
    seen: u64,
}

/// What was last logged of ECN.
#[derive(Debug, Default)]
pub(super) struct EcnWatch {
    due: Option<Instant>,
    /// Unusual combinations delivered, and dropped.
    seen: (u64, u64),
}
