//! Locator-Status-Bits of remote sites (RFC 9300 §10).
use super::ControlPlane;
use super::locator::Candidate;
use crate::marks::StatusBits;
use mapping::eid::EidPrefix;
use mapping::timers;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

/// All locators of a mapping, up.
pub(super) fn all_up(locators: &[Candidate]) -> StatusBits {
    let none = StatusBits { bits: 0, known: 0 };
    locators.iter().fold(none, |bits, locator| bits.with(locator.ordinal, true))
}

/// The locators, those whose bit is 0 as unreachable.
pub(super) fn heeded(locators: &[Candidate], status: StatusBits) -> Cow<'_, [Candidate]> {
    if status.bits == status.known {
        return Cow::Borrowed(locators);
    }
    let heeded = locators.iter().map(|locator| Candidate {
        reachable: locator.reachable && status.is_up(locator.ordinal),
        ..*locator
    });
    Cow::Owned(heeded.collect())
}

impl ControlPlane {
    /// The site of an entry says which of its locators are up: nothing goes to the others until their bits return (DH-17, DH-19), at most
    /// one change a second (DH-20). Those that went are probed at once, so that the operator sees whether they are gone for all.
    pub(super) fn status_bits_received(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        received: StatusBits,
    ) {
        let heeds = self.trust.as_ref().is_some_and(|trust| trust.core.status_bits);
        let Some(entry) = self.cache.get_mut(&prefix).filter(|_| heeds) else { return };
        let changed = entry.status_bits.difference(received);
        let resting =
            entry.status_changed.is_some_and(|at| now < at + timers::STATUS_BITS_INTERVAL);
        if changed == 0 || resting {
            return;
        }
        entry.status_bits.bits ^= changed;
        entry.status_changed = Some(now);
        let status = entry.status_bits;
        let went: Vec<IpAddr> = entry
            .mapping
            .locators()
            .iter()
            .filter(|locator| {
                locator.ordinal < 32
                    && changed & 1 << locator.ordinal != 0
                    && !status.is_up(locator.ordinal)
            })
            .map(|locator| locator.address)
            .collect();
        self.count("status_bits_changes");
        self.update_verdict(now, prefix, false);
        for rloc in went {
            self.verify_locator(now, rloc);
        }
    }
}
