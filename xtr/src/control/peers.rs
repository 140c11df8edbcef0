//! Another configuration of those whom we talk to: Map-Servers, Map-Resolvers, PETRs, PITRs, and how locators are probed.
use super::ControlPlane;
use super::locator::Reachability;
use crate::config::{ControlConfig, MapServer, ProbeConfig};
use mapping::eid::EidPrefix;
use std::net::IpAddr;
use std::time::{Duration, Instant};

impl ControlPlane {
    /// Takes over what differs; what is known of peers that stay is kept.
    pub(super) fn take_peers(&mut self, now: Instant, config: &ControlConfig) {
        if self.config.map_servers != config.map_servers {
            self.take_map_servers(now, &config.map_servers);
        }
        if self.config.map_resolvers != config.map_resolvers {
            self.config.map_resolvers.clone_from(&config.map_resolvers);
            self.lookups.begin_with_the_first();
            self.lookups.end_pauses(now);
            self.lookups.retry_now(now);
            self.resolver_watch.begin_anew(now);
        }
        if self.config.use_petr != config.use_petr {
            self.config.use_petr.clone_from(&config.use_petr);
            self.refresh_petrs(now);
            // With the last PETR, or without the first, other mappings may be bridged than those that were.
            self.own_side_changed(now);
        }
        self.config.proxy_itrs.clone_from(&config.proxy_itrs);
        self.config.peers.clone_from(&config.peers);
        if self.config.probe != config.probe {
            self.take_probe(now, config.probe);
        }
        self.config.map_cache_limit = config.map_cache_limit;
        self.cache.set_limit(config.map_cache_limit);
        if self.cache.is_beyond_limit() {
            self.make_room(now);
        }
    }

    /// The last Map-Server that goes is told so: beside others it may keep its registrations in one place with them, and forgets the site by itself
    /// (MS-03). One that comes gets every own mapping, and one whose key or way of signing is another
    /// gets them anew.
    fn take_map_servers(&mut self, now: Instant, wanted: &[MapServer]) {
        let mut places: Vec<Option<usize>> = Vec::with_capacity(self.config.map_servers.len());
        for server in &self.config.map_servers {
            let same = |place: &usize| {
                wanted[*place].endpoint == server.endpoint && !places.contains(&Some(*place))
            };
            places.push((0..wanted.len()).find(same));
        }
        for (server, place) in places.iter().enumerate() {
            if place.is_none() && wanted.is_empty() && self.nat().is_none() {
                self.take_leave(server);
            }
        }
        let before = std::mem::replace(&mut self.config.map_servers, wanted.to_vec());
        let is_other = |server: usize, place: usize| before[server] != wanted[place];
        self.registrations.retain_mut(|registration| {
            let server = registration.server;
            let Some(place) = places[server] else { return false };
            registration.server = place;
            if is_other(server, place) {
                registration.begin_anew(now);
            }
            true
        });
        self.forget_left();
        let own: Vec<EidPrefix> = self.database.iter().map(|(prefix, _)| prefix).collect();
        for new in (0..wanted.len()).filter(|place| !places.contains(&Some(*place))) {
            if !self.is_proxy() {
                for prefix in &own {
                    self.queue(now, new, *prefix, false);
                }
            }
        }
        self.look_for_nats(now);
    }

    fn take_probe(&mut self, now: Instant, wanted: Option<ProbeConfig>) {
        let before = std::mem::replace(&mut self.config.probe, wanted);
        let rlocs: Vec<IpAddr> = self.remote_rlocs().collect();
        for rloc in rlocs {
            match (before, wanted) {
                (None, _) => self.start_probing(now, rloc),
                (Some(_), None) => self.end_probing(now, rloc),
                (Some(_), Some(config)) => self.probe_as(now, rloc, config),
            }
        }
    }

    /// What probes said of a locator is believed no longer: nobody would find out that it is over.
    fn end_probing(&mut self, now: Instant, rloc: IpAddr) {
        self.stop_probing(rloc);
        if let Some(locator) = self.locators.get_mut(&rloc) {
            locator.set_reachability(now, Reachability::Unprobed);
            locator.tries = 0;
        }
        self.locator_changed(now, rloc);
    }

    /// The next probe comes within the new interval.
    fn probe_as(&mut self, now: Instant, rloc: IpAddr, config: ProbeConfig) {
        let Some(locator) = self.locators.get(&rloc) else { return };
        let Some((class, due)) = locator.due else { return };
        let interval = match locator.is_active(now) {
            true => config.interval,
            false => config.idle_interval,
        };
        let soon = now + self.spread(interval);
        self.schedule_probe(rloc, class, due.min(soon));
    }

    fn spread(&mut self, interval: Duration) -> Duration {
        use rand::RngExt;
        self.rng.random_range(Duration::ZERO..interval)
    }
}
