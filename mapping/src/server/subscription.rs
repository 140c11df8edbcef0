//! Publish/subscribe (RFC 9437): who is told of a change in a mapping.

use std::time::Instant;

use crate::eid::EidPrefix;

use super::MapServer;

impl MapServer {
    /// The mapping of `prefix` changed or is no more.
    pub(super) fn mapping_changed(&mut self, now: Instant, prefix: EidPrefix) {
        let _ = (now, prefix);
    }
}
