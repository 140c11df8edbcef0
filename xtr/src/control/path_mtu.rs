//! PURE. The path MTU towards one remote RLOC, found out without ICMP (RFC 8899, RFC 9300 §7.2, MT-16).
//!
//! A path probe is an RLOC-probe with octets after the message, which an ETR ignores, in an outer packet that nobody may fragment. Its
//! answer, small as it is, proves that a packet of that size arrives.
//!
//! ```text
//!          answered                      answered: it is the size
//! Confirm ---------> Idle       Small ---------------------------> Search, upward, to the first size without answer --> Idle
//!   ^  \ never                    ^ \ never: it is the ETR, or an outage: no verdict
//!   |   \________________________/   \---------------------------------------------------------------------------------> Idle
//!   +--- Idle, after an interval; but below the ceiling, once in 10 minutes, Search
//! ```
use std::time::{Duration, Instant};

/// What a probe without answer waits for before the next (RFC 8899 §5.1.1), beside the round-trip time.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes of one size without answer that count as lost (RFC 8899 §5.1.2: MAX_PROBES).
const MAX_PROBES: u32 = 3;
/// A lowered estimate is tried upward after this time (MT-15; RFC 8899 §5.1.1: PMTU_RAISE_TIMER).
const RAISE_INTERVAL: Duration = Duration::from_secs(600);
/// A size that is lost on no path: tells a path with a smaller MTU from an ETR that does not answer.
const SMALL: u16 = 512;
/// What every IPv6 path carries.
const IPV6_FLOOR: u16 = 1280;
/// Sizes tried on the way up: MTUs of links, and those less the headers of common tunnels.
const LADDER: [u16; 19] = [
    576, 1006, 1200, 1280, 1320, 1350, 1380, 1400, 1420, 1440, 1460, 1472, 1480, 1492, 1500, 2002,
    4352, 8166, 9000,
];

/// How a discovery goes about its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Of the RLOC's last probe.
    pub(super) round_trip: Duration,
    /// Between two confirmations.
    pub(super) interval: Duration,
}

/// What is to be done after an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Send a probe in a packet of so many octets.
    pub(super) probe: Option<u16>,
    /// The estimate is another one now.
    pub(super) changed: bool,
}

/// What is known of one path.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    /// The largest packet that our own side sends, octets.
    ceiling: u16,
    /// The least that is ever estimated.
    floor: u16,
    estimate: u16,
    confirmed: bool,
    phase: Phase,
    /// Probes sent in this phase for its size.
    tries: u32,
    due: Instant,
    raise_at: Instant,
    /// Rounds in a row in which not even small probes were answered.
    silent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until `due`.
    Idle,
    /// Does the estimate get through?
    Confirm,
    /// It does not; does anything?
    Small,
    /// `works` gets through; does `size`?
    Search { works: u16, size: u16 },
}

impl Discovery {
    /// Takes `ceiling` for the path MTU and confirms that from `due` on.
    pub(super) fn new(ipv6: bool, ceiling: u16, due: Instant) -> Self {
        Self {
            ceiling,
            floor: if ipv6 { IPV6_FLOOR } else { SMALL },
            estimate: ceiling,
            confirmed: false,
            phase: Phase::Idle,
            tries: 0,
            due,
            raise_at: due,
            silent: 0,
        }
    }

    /// The largest outer packet to send, octets.
    pub(super) const fn estimate(&self) -> u16 {
        self.estimate
    }

    /// Whether a packet of that size was seen to arrive.
    pub(super) const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether the estimate is in doubt now.
    pub(super) const fn is_searching(&self) -> bool {
        match self.phase {
            Phase::Small => true,
            Phase::Search { works, .. } => works < self.estimate,
            Phase::Idle | Phase::Confirm => false,
        }
    }

    /// When [`Self::handle_timeout`] is next to be called.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Our own side's largest packet is another one now. True if the estimate changed.
    pub(super) fn set_ceiling(&mut self, now: Instant, ceiling: u16) -> bool {
        if ceiling == self.ceiling {
            return false;
        }
        let before = self.estimate;
        if before == self.ceiling || before > ceiling {
            self.estimate = ceiling;
        }
        self.ceiling = ceiling;
        self.confirmed &= self.estimate == before;
        self.raise_at = now;
        self.rest(now);
        self.estimate != before
    }

    /// A router said so, and the data plane believed it (MT-11). True if the estimate changed.
    pub(super) fn reported(&mut self, now: Instant, mtu: u16) -> bool {
        if mtu >= self.estimate {
            return false;
        }
        self.estimate = mtu;
        self.confirmed = false;
        self.raise_at = now + RAISE_INTERVAL;
        self.rest(now);
        true
    }

    /// The RLOC answers (again): soon see whether the estimate holds.
    pub(super) fn resume(&mut self, due: Instant) {
        if self.phase == Phase::Idle {
            self.due = self.due.min(due);
        }
    }

    /// The RLOC does not answer at all: no probe says anything.
    pub(super) fn pause(&mut self, now: Instant, pace: Pace) {
        self.rest(now + pace.interval);
    }

    /// Sends the next probe, or gives the last one up.
    pub(super) fn handle_timeout(&mut self, now: Instant, pace: Pace) -> Outcome {
        let before = self.estimate;
        match self.phase {
            Phase::Idle => self.begin(now),
            _ if self.tries >= MAX_PROBES => self.lost(now, pace),
            Phase::Search { works, .. } if self.tries > 0 && self.estimate > works => {
                // A size that got no answer at once will hardly get one: packets are being lost meanwhile.
                self.estimate = works;
                self.confirmed = true;
            }
            _ => {}
        }
        let probe = self.size();
        if probe.is_some() {
            self.tries += 1;
            self.due = now + PROBE_TIMEOUT.max(2 * pace.round_trip);
        }
        Outcome { probe, changed: self.estimate != before }
    }

    /// A probe of `size` octets was answered; the next is due at once.
    pub(super) fn answered(&mut self, now: Instant, size: u16, pace: Pace) -> Outcome {
        let before = self.estimate;
        self.silent = 0;
        match self.phase {
            Phase::Search { size: asked, .. } if size == asked => {
                if size > self.estimate {
                    self.estimate = size;
                }
                self.confirmed |= size == self.estimate;
                self.climb(now, size, pace);
            }
            // Late, but it shows that nothing is wrong.
            _ if size >= self.estimate => {
                self.estimate = size.min(self.ceiling);
                self.confirmed = true;
                self.rest(now + pace.interval);
            }
            Phase::Small if size == SMALL => self.climb(now, self.floor, pace),
            _ => {}
        }
        Outcome { probe: None, changed: self.estimate != before }
    }

    /// The size that is being asked about.
    const fn size(&self) -> Option<u16> {
        match self.phase {
            Phase::Idle => None,
            Phase::Confirm => Some(self.estimate),
            Phase::Small => Some(SMALL),
            Phase::Search { size, .. } => Some(size),
        }
    }

    fn begin(&mut self, now: Instant) {
        let below = self.estimate < self.ceiling && now >= self.raise_at;
        let phase = match next_size(self.estimate, self.ceiling, true).filter(|_| below) {
            Some(size) => Phase::Search { works: self.estimate, size },
            None => Phase::Confirm,
        };
        self.enter(now, phase);
    }

    fn lost(&mut self, now: Instant, pace: Pace) {
        match self.phase {
            Phase::Confirm if self.estimate <= self.floor => self.rest(now + pace.interval),
            Phase::Confirm => self.enter(now, Phase::Small),
            Phase::Search { works, .. } => {
                self.estimate = works;
                self.raise_at = now + RAISE_INTERVAL;
                self.rest(now + pace.interval);
            }
            Phase::Small | Phase::Idle => {
                let wait = pace.interval * 2u32.pow(self.silent.min(6));
                self.silent += 1;
                self.rest(now + wait.min(RAISE_INTERVAL));
            }
        }
    }

    /// `works` gets through: on to the next size, if there is one below what does not.
    fn climb(&mut self, now: Instant, works: u16, pace: Pace) {
        let next = if works < self.estimate {
            next_size(works, self.estimate, false)
        } else {
            next_size(works, self.ceiling, true)
        };
        match next {
            Some(size) => self.enter(now, Phase::Search { works, size }),
            None => {
                self.estimate = works;
                self.confirmed = true;
                self.raise_at = now + RAISE_INTERVAL;
                self.rest(now + pace.interval);
            }
        }
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        (self.phase, self.tries, self.due) = (phase, 0, now);
    }

    fn rest(&mut self, until: Instant) {
        self.enter(until, Phase::Idle);
    }
}

/// The next size to try above `works`: a common one below `limit`, then `limit` itself if that may work.
fn next_size(works: u16, limit: u16, limit_may_work: bool) -> Option<u16> {
    let common = LADDER.into_iter().find(|&size| size > works && size < limit);
    common.or(Some(limit).filter(|_| limit_may_work && limit > works))
}
