//! The guard against Map-Requests that come back: two Map-Servers may each take the other for the ETR.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::timers::{FORWARD_MEMORY, MAX_FORWARDS, TRACKED_FORWARDS};

/// How often each Map-Request was passed on lately, by its nonce and the ITR-RLOC it asks the answer to: two generations that take
/// turns.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    young: HashMap<(u64, IpAddr), u8>,
    old: HashMap<(u64, IpAddr), u8>,
    rotated: Option<Instant>,
}

impl Forwards {
    /// Whether the Map-Request may be passed on once more. An ITR's retransmission with the same nonce is, a few times.
    pub(crate) fn admit(&mut self, now: Instant, nonce: u64, itr_rloc: IpAddr) -> bool {
        let due = self.rotated.is_none_or(|rotated| now >= rotated + FORWARD_MEMORY);
        if due || self.young.len() >= TRACKED_FORWARDS / 2 {
            self.old = std::mem::take(&mut self.young);
            self.rotated = Some(now);
        }
        let key = (nonce, itr_rloc);
        let before = self.old.get(&key).copied().unwrap_or(0);
        let passed = self.young.entry(key).or_insert(before);
        *passed = passed.saturating_add(1);
        *passed <= MAX_FORWARDS
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_that_comes_back_is_passed_on_a_few_times_only() {
        let (start, rloc) = (Instant::now(), IpAddr::from(Ipv4Addr::LOCALHOST));
        let mut forwards = Forwards::default();
        let passed = (0..100).filter(|_| forwards.admit(start, 7, rloc)).count();
        assert_eq!(passed, usize::from(MAX_FORWARDS));
        assert!(forwards.admit(start, 8, rloc), "another request");
        assert!(!forwards.admit(start + FORWARD_MEMORY, 7, rloc), "the older half counts still");
        let later = start + 3 * FORWARD_MEMORY + Duration::from_secs(1);
        assert!(forwards.admit(later, 9, rloc));
        assert!(forwards.admit(later + FORWARD_MEMORY, 7, rloc));
        for nonce in 0..2 * TRACKED_FORWARDS as u64 {
            forwards.admit(later, nonce, rloc);
            assert!(forwards.young.len() + forwards.old.len() <= TRACKED_FORWARDS + 1);
        }
    }
}
