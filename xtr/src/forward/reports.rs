//! PURE. ICMP errors about our encapsulated packets: what routers on the way, and the remote hosts, say of a locator.
use super::{Forwarder, PathReport, Reported};
use crate::fib::FibView;
use crate::packet::Family;
use crate::policy::Policy;
use crate::punt::Punt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// About one locator, one hint in this time is passed on.
const SAME_LOCATOR: Duration = Duration::from_millis(100);
/// Hints passed on per second.
const PER_SECOND: u32 = 100;

impl<P: Policy> Forwarder<P> {
    /// An ICMP error of `sender`, without IP header. The packet it quotes must be one that we could have sent (MT-12). True if it was
    /// believed: if it lowered the MTU of a locator (MT-11), or is passed on as a hint about its reachability (PB-14, PB-15).
    pub fn handle_icmp(
        &mut self,
        now: Instant,
        fib: &FibView<'_>,
        sender: IpAddr,
        message: &[u8],
        owns_port: impl FnOnce(u16) -> bool,
    ) -> bool {
        let Some(report) = PathReport::parse(Family::of(&sender), message) else { return false };
        let rloc = report.destination;
        let is_ours = self.settings.rlocs.contains(&report.source)
            && owns_port(report.source_port)
            && fib.is_locator(rloc);
        match report.what {
            _ if !is_ours => false,
            Reported::Mtu(mtu) => {
                let lowered = self.path_mtus.report(now, rloc, mtu);
                if lowered {
                    self.counters.path_mtu_lowered();
                }
                lowered
            }
            Reported::Unreachable => self.pass_hint(now, rloc, false),
            // Only the host itself knows that.
            Reported::NoPort => sender == rloc && self.pass_hint(now, rloc, true),
        }
    }

    fn pass_hint(&mut self, now: Instant, rloc: IpAddr, by_host: bool) -> bool {
        self.hints.admit(now, rloc) && self.punts.send(Punt::Unreachable { rloc, by_host }).is_ok()
    }
}

/// Bounds the hints: routers send an error per packet.
#[derive(Debug, Default)]
pub(super) struct Hints {
    last: Option<(Instant, IpAddr)>,
    /// Since when, and how many.
    counted: Option<(Instant, u32)>,
}

impl Hints {
    fn admit(&mut self, now: Instant, rloc: IpAddr) -> bool {
        let repeated = |(at, about): (Instant, IpAddr)| about == rloc && now < at + SAME_LOCATOR;
        let (since, count) = match self.counted {
            Some((since, count)) if now < since + Duration::from_secs(1) => (since, count),
            _ => (now, 0),
        };
        if self.last.is_some_and(repeated) || count >= PER_SECOND {
            return false;
        }
        (self.last, self.counted) = (Some((now, rloc)), Some((since, count + 1)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pb_14_hints_are_bounded() {
        let now = Instant::now();
        let mut hints = Hints::default();
        let rloc = |index: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0xc633_6400 + index));
        assert!(hints.admit(now, rloc(1)));
        assert!(!hints.admit(now + Duration::from_millis(99), rloc(1)), "said already");
        assert!(hints.admit(now + Duration::from_millis(100), rloc(1)));
        let at = now + Duration::from_millis(200);
        let passed = (0..1000).filter(|&index| hints.admit(at, rloc(index))).count();
        assert_eq!(passed as u32, PER_SECOND - 2);
        assert!(hints.admit(now + Duration::from_secs(1), rloc(1)));
    }
}
