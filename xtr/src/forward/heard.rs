//! PURE. Who sends data for own EIDs: told to the control plane once in a while, which tells them when own mappings change (RFC 9301 §6.1).
use super::{Arrival, Forwarder};
use crate::packet::Inner;
use crate::policy::Policy;
use crate::punt::Punt;
use mapping::eid::Eid;
use std::net::IpAddr;
use std::time::Duration;

/// How often the control plane is told of the same RLOC.
pub const HEARD_AGAIN: Duration = Duration::from_secs(20);
/// The same on the coarse clock.
const AGAIN: u32 = HEARD_AGAIN.as_secs() as u32;
/// RLOCs that a worker remembers; two of the same place are told of more often.
const PLACES: usize = 1_024;
/// Told per second by one worker: sources can be forged.
const PER_SECOND: u32 = 128;

/// What one worker told.
#[derive(Debug)]
pub(super) struct Heard {
    /// The RLOC that data came from last, and until when nothing is to be told of it: what comes comes in batches.
    last: Option<(IpAddr, u32)>,
    /// By the hash of the RLOC: that, and when it was told.
    told: Box<[(u64, u32)]>,
    second: u32,
    count: u32,
}

impl Default for Heard {
    fn default() -> Self {
        Self { last: None, told: vec![(0, 0); PLACES].into(), second: 0, count: 0 }
    }
}

impl Heard {
    #[inline]
    fn is_known(&self, rloc: IpAddr, clock: u32) -> bool {
        self.last.is_some_and(|(last, until)| last == rloc && clock < until)
    }

    /// Whether the control plane is to be told of the RLOC with this hash.
    fn is_due(&mut self, rloc: IpAddr, key: u64, clock: u32) -> bool {
        if self.second != clock {
            (self.second, self.count) = (clock, 0);
        }
        let place = &mut self.told[key as usize % PLACES];
        let is_told = place.1 != 0 && place.0 == key && clock < place.1 + AGAIN;
        if !is_told && self.count >= PER_SECOND {
            self.last = Some((rloc, clock + 1));
            return false;
        }
        if !is_told {
            *place = (key, clock);
            self.count += 1;
        }
        self.last = Some((rloc, place.1 + AGAIN));
        !is_told
    }

    /// There was no room to tell of it.
    fn untold(&mut self, key: u64) {
        self.last = None;
        self.told[key as usize % PLACES] = (0, 0);
    }
}

impl<P: Policy> Forwarder<P> {
    /// A packet for an own EID was delivered.
    #[inline]
    pub(super) fn hear(&mut self, arrival: &Arrival, inner: &Inner) {
        if !self.heard.is_known(arrival.source, self.clock) {
            self.hear_of(arrival, inner);
        }
    }

    #[cold]
    fn hear_of(&mut self, arrival: &Arrival, inner: &Inner) {
        let rloc = arrival.source;
        let key = self.hasher.hash_address(rloc);
        if self.heard.is_due(rloc, key, self.clock) {
            let source = Eid::new(arrival.instance_id, inner.source);
            if self.punts.send_for_others(Punt::Heard { rloc, source }).is_err() {
                self.heard.untold(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rloc(index: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xc633_6400 + index).into()
    }

    #[test]
    fn sm_01_the_control_plane_hears_of_an_rloc_once_in_a_while_and_in_bounds() {
        let mut heard = Heard::default();
        assert!(heard.is_due(rloc(1), 1, 5));
        assert!(!heard.is_due(rloc(1), 1, 5));
        assert!(heard.is_known(rloc(1), 4 + AGAIN));
        assert!(!heard.is_known(rloc(1), 5 + AGAIN));
        assert!(!heard.is_due(rloc(1), 1, 4 + AGAIN));
        assert!(heard.is_due(rloc(1), 1, 5 + AGAIN));
        let of_one_second = |heard: &mut Heard, clock| {
            (10..2_000).filter(|&index| heard.is_due(rloc(index), index.into(), clock)).count()
        };
        assert_eq!(of_one_second(&mut heard, 100), PER_SECOND as usize);
        assert_eq!(of_one_second(&mut heard, 101), PER_SECOND as usize);
        // One that found no room is told of as soon as there is.
        assert!(!heard.is_due(rloc(5), 5, 101));
        assert!(heard.is_due(rloc(5), 5, 102));
        heard.untold(5);
        assert!(!heard.is_known(rloc(5), 102) && heard.is_due(rloc(5), 5, 102));
    }
}
