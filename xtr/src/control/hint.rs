//! What routers, and the RLOC's own host, say of an RLOC: hints, until a probe says better (RFC 9301 §7, PB-14, PB-15).
use super::ControlPlane;
use super::locator::{Reachability, Why};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Without probing nothing can overrule a hint but time.
pub(super) const HOLDS_FOR: Duration = Duration::from_secs(30);
/// A probe that overruled a hint is believed for so long, whatever comes: hints can be forged, if with some luck.
pub(super) const DOUBTED_FOR: Duration = Duration::from_secs(10);

impl ControlPlane {
    /// An ICMP error about data sent to `rloc`, as far as the data plane could check it (MT-12).
    pub(super) fn handle_hint(&mut self, now: Instant, rloc: IpAddr, why: Why) {
        let Some(locator) = self.locators.get(&rloc) else { return };
        if locator.is_down() {
            return;
        }
        if locator.doubted_until.is_some_and(|until| now < until) {
            return self.count("unreachable_reports_doubted");
        }
        self.count("unreachable_reports");
        self.give_up(now, rloc, why);
    }

    /// The time of a hint is over, and nothing was probed.
    pub(super) fn hint_is_over(&mut self, now: Instant, rloc: IpAddr) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if locator.is_down() {
            locator.set_reachability(now, Reachability::Unprobed);
            self.locator_changed(now, rloc);
        }
    }
}
