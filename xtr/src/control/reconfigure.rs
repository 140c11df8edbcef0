//! Another configuration of the own side, taken over in one step: what changed is registered at once and told to those who send.
use super::ControlPlane;
use crate::config::ControlConfig;
use mapping::eid::EidPrefix;
use mapping::wire::LocatorRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

impl ControlPlane {
    /// Takes over the own locators, whose addresses must be those from before, the own EID-prefixes, Record TTL, registration interval,
    /// what Map-Registers ask for, and every secret. Everything else of `config` is left aside. A mapping that differs
    /// afterwards is registered at once (RG-03), and its correspondents are solicited (SM-01).
    pub fn reconfigure(&mut self, now: Instant, config: &ControlConfig) {
        let before = self.own_mappings_as_told();
        let asks = |config: &ControlConfig| {
            let flags = (config.proxy_reply, config.merge, config.timeout_by_ttl);
            (config.record_ttl_minutes, flags)
        };
        let asks_otherwise = asks(&self.config) != asks(config);
        let rlocs_changed = self.config.rlocs != config.rlocs;
        self.config.record_ttl_minutes = config.record_ttl_minutes;
        self.config.registration_interval = config.registration_interval;
        (self.config.proxy_reply, self.config.merge) = (config.proxy_reply, config.merge);
        self.config.timeout_by_ttl = config.timeout_by_ttl;
        self.take_secrets(config);
        self.reconfigure_rtr(config.nat.as_ref());
        self.config.rlocs.clone_from(&config.rlocs);
        self.config.eids.clone_from(&config.eids);
        if rlocs_changed {
            self.own.reconfigure(config.rlocs.clone());
            self.own_side_changed(now);
        }
        self.update_own_versions(now);
        let newer = self.adopt_versions(config);
        self.set_configured_mappings(now, &config.eids);
        if asks_otherwise {
            self.register_change(now);
        }
        let changed: BTreeSet<EidPrefix> = self
            .own_mappings_as_told()
            .into_iter()
            .filter(|(prefix, locators)| before.get(prefix).is_some_and(|old| old != locators))
            .map(|(prefix, _)| prefix)
            .chain(newer)
            .collect();
        for prefix in changed {
            self.register_mapping(now, prefix);
            self.solicit_correspondents(now, prefix);
        }
        self.run_registrations(now);
    }

    /// Their Key IDs and algorithms stay.
    fn take_secrets(&mut self, config: &ControlConfig) {
        for (server, wanted) in self.config.map_servers.iter_mut().zip(&config.map_servers) {
            server.secret = wanted.secret.clone();
        }
        if let (Some(lisp_sec), Some(wanted)) = (&mut self.config.lisp_sec, &config.lisp_sec) {
            lisp_sec.secret = wanted.secret.clone();
        }
        let key_of = |config: &ControlConfig| config.subscribe.as_ref()?.key.clone();
        if let (Some(subscribe), Some(wanted)) = (&mut self.config.subscribe, key_of(config))
            && let Some(key) = &mut subscribe.key
        {
            key.secret = wanted.secret;
        }
    }

    /// What Map-Registers and Map-Replies say of every own mapping now.
    fn own_mappings_as_told(&self) -> BTreeMap<EidPrefix, Vec<LocatorRecord>> {
        let told = self.own_mappings().map(|own| (own.eid.prefix, self.own_locators(&own.eid)));
        told.collect()
    }
}
