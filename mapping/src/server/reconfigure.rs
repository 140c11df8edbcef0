//! Another configuration while Map-Registers and lookups come: all of it is taken over, or nothing changes.

use std::time::Instant;

use crate::config::MappingConfig;
use crate::resolver::{Clients, ItrKeys};

use super::MapServer;
use super::event::Event;
use super::nat::Rtrs;

impl MapServer {
    /// Takes over sites with their keys, subscribers and the bounds of subscriptions, clients, keys of LISP-SEC, RTRs, and how long
    /// registrations live from their next refresh on. `listen`, `state_dir`, `cluster` and `ddt` are to be those from before.
    ///
    /// Registrations, nonces, subscriptions and counters stay; a registration that the sites allow no longer ends, and those who are
    /// concerned are told, as of any other that ends. Messages are judged by the new rules at once; what was registered before is reviewed
    /// some at a time, what a message asks for first.
    pub fn reconfigure(&mut self, now: Instant, config: MappingConfig) {
        self.subscriptions.reconfigure(&config);
        let relaxed = self.clients.loosened();
        self.clients = Clients::new(config.clients);
        for client in self.clients.loosened() {
            if !relaxed.contains(&client) {
                self.event(Event::LooseClient(client));
            }
        }
        self.itr_keys = ItrKeys::new(config.lisp_sec);
        self.rtrs = Rtrs::new(config.rtrs);
        self.registration_timeout = config.registration_timeout;
        if self.sites.are(&config.sites) {
            return;
        }
        let before: Vec<Event> = self.sites.concessions().collect();
        self.sites.configure(config.sites);
        self.admission.set_sites(self.sites.places());
        let news: Vec<Event> =
            self.sites.concessions().filter(|event| !before.contains(event)).collect();
        news.into_iter().for_each(|event| self.event(event));
        self.begin_review(now);
    }
}
