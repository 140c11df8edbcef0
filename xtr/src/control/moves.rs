//! How often a host may move: one address that two hosts use, at two sites, must not make a storm of registrations.
use mapping::eid::EidPrefix;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Moves that a host may make at once, and the time in which it earns another one.
const MOVES: u32 = 10;
const MOVE_INTERVAL: Duration = Duration::from_secs(3);
/// How long a host that moves more often is left where it was said to be last.
pub(super) const HOLD_DOWN: Duration = Duration::from_secs(10);

/// The moves of hosts that came back from elsewhere lately.
#[derive(Debug, Default)]
pub(super) struct Moves {
    hosts: BTreeMap<EidPrefix, Host>,
    /// How many there may be before those that have rested are forgotten.
    purge_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Host {
    /// When it has all its moves again.
    rested: Instant,
    held_until: Option<Instant>,
}

/// Whether a host may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// It may.
    Free,
    /// It has moved too often: from now on it may not, until then.
    HeldFromNow(Instant),
    /// Not until then.
    Held(Instant),
}

impl Moves {
    /// A host has come back.
    pub(super) fn note(&mut self, now: Instant, prefix: EidPrefix) -> Move {
        if self.hosts.len() >= self.purge_at {
            self.hosts.retain(|_, host| host.rested > now);
            self.purge_at = self.hosts.len() * 2 + 64;
        }
        let host = self.hosts.entry(prefix).or_insert(Host { rested: now, held_until: None });
        if let Some(until) = host.held_until.filter(|until| now < *until) {
            return Move::Held(until);
        }
        let rested = host.rested.max(now) + MOVE_INTERVAL;
        if rested > now + MOVE_INTERVAL * MOVES {
            host.held_until = Some(now + HOLD_DOWN);
            return Move::HeldFromNow(now + HOLD_DOWN);
        }
        *host = Host { rested, held_until: None };
        Move::Free
    }

    /// Until when a host may not move.
    pub(super) fn held_until(&self, now: Instant, prefix: &EidPrefix) -> Option<Instant> {
        self.hosts.get(prefix)?.held_until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::eid::InstanceId;

    fn host(last: u32) -> EidPrefix {
        let address = std::net::Ipv4Addr::from_bits(0xac10_0400 + last);
        EidPrefix::new(InstanceId::DEFAULT, ipnet::IpNet::from(std::net::IpAddr::V4(address)))
    }

    #[test]
    fn dy_01_a_move_a_second_is_free_and_a_storm_is_not() {
        let start = Instant::now();
        let mut moves = Moves::default();
        // Ten moves at 1/s are five arrivals at each of two sites.
        for second in (0..10).step_by(2) {
            let now = start + Duration::from_secs(second);
            assert_eq!(moves.note(now, host(1)), Move::Free);
        }
        let free = (0..1000).filter(|_| moves.note(start, host(2)) == Move::Free).count();
        assert_eq!(free as u32, MOVES);
        let until = start + HOLD_DOWN;
        assert_eq!(moves.held_until(start, &host(2)), Some(until));
        assert_eq!(moves.note(until - Duration::from_millis(1), host(2)), Move::Held(until));
        assert_eq!(moves.note(until, host(2)), Move::Free);
        assert_eq!(moves.held_until(until, &host(2)), None);
        assert_eq!(moves.note(start, host(1)), Move::Free, "another one moves");
    }

    #[test]
    fn hosts_that_have_rested_are_forgotten() {
        let mut now = Instant::now();
        let mut moves = Moves::default();
        for round in 0..100 {
            for last in 0..50 {
                moves.note(now, host(round * 50 + last));
            }
            now += MOVE_INTERVAL;
        }
        assert!(moves.hosts.len() < 300, "{}", moves.hosts.len());
    }
}
