//! Map-cache entries that the operator wants forgotten: the next packet asks anew.
use super::ControlPlane;
use mapping::eid::EidPrefix;
use std::time::Instant;

impl ControlPlane {
    /// Forgets every entry, those within an EID-prefix, or, for a single EID that has none of its own, the one that it is found by; with
    /// them those that cover them, which would take their traffic; how many. Lookups that pause after tries in vain (RQ-13) may be made
    /// at once. Entries of hosts that are away, and those that xTRs behind NATs keep alive by their own Map-Registers, stay: the one is
    /// watched over, and for the other there is nobody to ask.
    pub fn clear_map_cache(&mut self, now: Instant, which: Option<&EidPrefix>) -> usize {
        let mut doomed: Vec<EidPrefix> = match which {
            None => self.cache.iter().map(|(prefix, _)| prefix).collect(),
            Some(prefix) => {
                let exact = self.cache.get(prefix).map(|_| *prefix);
                exact.into_iter().chain(self.cache.more_specifics(prefix).map(|(p, _)| p)).collect()
            }
        };
        if let Some(prefix) = which
            && doomed.is_empty()
            && prefix.prefix().prefix_len() == prefix.prefix().max_prefix_len()
        {
            doomed.extend(self.cache.longest_match(prefix).map(|(found, _)| found));
        }
        doomed.retain(|prefix| !self.is_registered_here(prefix));
        let cleared = doomed.into_iter().map(|prefix| self.evict(now, prefix)).sum();
        self.lookups.end_pauses(now);
        cleared
    }
}
