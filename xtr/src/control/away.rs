//! Hosts of dynamic-EID ranges that are at another site: who still sends here is told (DY-04).
use super::ControlPlane;
use super::itr::Purpose;
use mapping::eid::Eid;
use std::net::IpAddr;
use std::time::Instant;

impl ControlPlane {
    /// A packet from `source` behind `rloc` came for a host that is elsewhere: one data-triggered SMR, at the pace of all SMRs (SM-03). If
    /// the host `returns`, which is to say that it should be at `rloc` itself, neither router can believe its map-cache.
    pub(super) fn handle_left(
        &mut self,
        now: Instant,
        (host, rloc): (Eid, IpAddr),
        source: IpAddr,
        returns: bool,
    ) {
        let prefix = host.host_prefix();
        let known = self.cache.lookup(host).map(|(found, _)| found);
        let own = self.database.lookup(host).map(|(own, _)| own);
        // It may have come back, or been forgotten, since.
        let Some(known) = known else { return };
        if own.is_some_and(|own| own.mask_len() >= known.mask_len()) {
            return;
        }
        self.count("moved_hosts_sent_to");
        let behind =
            if self.is_pitr(rloc) { prefix } else { Eid { address: source, ..host }.host_prefix() };
        self.solicit(now, rloc, prefix, behind);
        if returns {
            self.count("moved_hosts_sent_back");
            self.start_lookup(now, known, Purpose::SmrInvoked);
        }
    }
}
