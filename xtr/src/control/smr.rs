//! Solicit-Map-Requests received (RFC 9301 §6.1).
use super::ControlPlane;
use super::itr::Purpose;
use mapping::discard::Discard;
use mapping::eid::EidPrefix;
use mapping::wire::MapRequest;
use std::time::Instant;

impl ControlPlane {
    /// Verifies through the mapping system whatever an SMR says changed; the SMR itself changes nothing (SM-04, SM-07). Anyone may
    /// send one: a Map-Server does it for its sites.
    pub(super) fn handle_smr(&mut self, now: Instant, request: &MapRequest) {
        self.count("smrs_received");
        let source = request.source_eid.eid();
        let cached = source.and_then(|eid| self.cache.lookup(eid)).map(|(prefix, _)| prefix);
        // SM-08: deployed senders put the changed EID in the source-EID; RFC 6830 means the record.
        let prefixes: Vec<EidPrefix> = match cached {
            Some(prefix) => vec![prefix],
            None => request
                .records
                .iter()
                .filter_map(|record| record.eid.prefix())
                .filter_map(|prefix| self.cache.longest_match(&prefix).map(|(found, _)| found))
                .collect(),
        };
        if prefixes.is_empty() {
            return self.discard(Discard::SmrWithoutCacheEntry);
        }
        for prefix in prefixes {
            self.start_lookup(now, prefix, Purpose::SmrInvoked);
        }
    }
}
