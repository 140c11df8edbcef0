//! Another configuration of the own side, taken over in one step: what changed is registered at once and told to those who send.
use super::ControlPlane;
use crate::config::ControlConfig;
use mapping::eid::EidPrefix;
use mapping::wire::LocatorRecord;
use std::time::Instant;

impl ControlPlane {
    /// Takes over the own locators, whose addresses must be those from before, Record TTL, registration interval, what Map-Registers ask
    /// for, and the Map-Servers' secrets. Everything else of `config` is left aside. What differs afterwards is registered at once
    /// (RG-03), and correspondents are solicited (SM-01). `clock` is the clock of [`LocatorSet::last_used`](crate::fib::LocatorSet).
    pub fn reconfigure(&mut self, now: Instant, clock: u32, config: &ControlConfig) {
        let before = self.own_mappings_as_told();
        let asks =
            |config: &ControlConfig| (config.record_ttl_minutes, config.proxy_reply, config.merge);
        let asks_otherwise = asks(&self.config) != asks(config);
        let rlocs_changed = self.config.rlocs != config.rlocs;
        self.config.record_ttl_minutes = config.record_ttl_minutes;
        self.config.registration_interval = config.registration_interval;
        (self.config.proxy_reply, self.config.merge) = (config.proxy_reply, config.merge);
        for (server, wanted) in self.config.map_servers.iter_mut().zip(&config.map_servers) {
            server.secret = wanted.secret.clone();
        }
        self.config.rlocs.clone_from(&config.rlocs);
        if rlocs_changed {
            self.own.reconfigure(config.rlocs.clone());
            self.own_side_changed();
        }
        self.update_own_versions(now);
        let changed = self.own_mappings_as_told() != before;
        if changed || asks_otherwise {
            self.register_change(now);
        }
        if changed {
            self.solicit_all(now, clock);
        }
    }

    /// What Map-Registers and Map-Replies say of every own mapping now.
    fn own_mappings_as_told(&self) -> Vec<(EidPrefix, Vec<LocatorRecord>)> {
        let prefixes = self.database.iter().map(|(prefix, _)| prefix);
        prefixes.map(|prefix| (prefix, self.own_record(prefix, None).locators)).collect()
    }
}
