//! Another configuration while Map-Registers and lookups come: all of it is taken over, or nothing changes.

use std::time::Instant;

use crate::config::MappingConfig;
use crate::discard::Discard;
use crate::eid::{EidPrefix, NamePrefix};
use crate::resolver::{Clients, ItrKeys};
use crate::wire::EidField;

use super::event::{Event, NameChange, Refusal};
use super::nat::Rtrs;
use super::registry::{Entry, Registrant, Registration};
use super::site::{Signing, Sites};
use super::{Count, MapServer};

/// What becomes of a registration.
enum Fate {
    /// It stays as it is.
    Stays,
    /// It stays, and what answers to it are signed with is another key now, or none.
    Signed(Option<Signing>),
    /// A rule forbids it.
    Ends(Discard),
}

impl MapServer {
    /// Takes over sites with their keys, subscribers and the bounds of subscriptions, clients, keys of LISP-SEC, RTRs, and how long
    /// registrations live from their next refresh on. `listen`, `state_dir`, `cluster` and `ddt` are to be those from before.
    ///
    /// Registrations, nonces, subscriptions and counters stay; a registration that the sites allow no longer ends, and those who are
    /// concerned are told, as of any other that ends.
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
        self.review_registrations(now);
        self.review_names();
    }

    fn review_registrations(&mut self, now: Instant) {
        let mut ended: Vec<(EidPrefix, Registrant, Discard)> = Vec::new();
        let sites = &self.sites;
        self.registry.revise(|prefix, entry| {
            revise(sites, entry, prefix.into(), |registrant, reason| {
                ended.push((prefix, registrant, reason));
            });
        });
        for (prefix, registrant, reason) in ended {
            let Some(gone) = self.registry.withdraw(&prefix, registrant) else { continue };
            self.revoked(&gone, Some(prefix), reason);
            self.tell_of_removal(now, prefix, registrant);
        }
    }

    fn review_names(&mut self) {
        let mut ended: Vec<(NamePrefix, Registrant, Discard)> = Vec::new();
        let sites = &self.sites;
        self.names.revise(|name, entry| {
            revise(sites, entry, name.into(), |registrant, reason| {
                ended.push((name.clone(), registrant, reason));
            });
        });
        for (name, registrant, reason) in ended {
            let Some(gone) = self.names.withdraw(&name, registrant) else { continue };
            let site = self.sites.get(gone.site).name.clone();
            self.forget_name(&name, registrant);
            self.revoked(&gone, None, reason);
            let change = NameChange::Withdrawn;
            self.event(Event::Name { site, name, source: gone.source, change });
        }
    }

    fn revoked(&mut self, gone: &Registration, prefix: Option<EidPrefix>, reason: Discard) {
        self.count(Count::Revoked);
        let site = Some(self.sites.get(gone.site).name.clone());
        let source = gone.source;
        self.event(Event::Revoked(Refusal { site, prefix, source, reason, subject: None }));
    }
}

/// Puts the registrations of one EID in the terms of other sites; tells those that they do not allow.
fn revise(
    sites: &Sites,
    entry: &mut Entry,
    eid: EidField,
    mut ends: impl FnMut(Registrant, Discard),
) {
    let fates: Vec<Fate> =
        entry.registrations().iter().map(|one| fate(sites, one, eid.clone())).collect();
    let stay = |fate: &Fate| matches!(fate, Fate::Stays);
    if fates.iter().all(stay) {
        return;
    }
    for (registration, fate) in entry.registrations().iter().zip(&fates) {
        if let Fate::Ends(reason) = fate {
            ends(registration.registrant, *reason);
        }
    }
    entry.edit(|list| {
        for (registration, fate) in list.iter_mut().zip(fates) {
            if let Fate::Signed(signing) = fate {
                registration.signing = signing;
            }
        }
    });
}

fn fate(sites: &Sites, registration: &Registration, eid: EidField) -> Fate {
    let site = &sites.get(registration.site).config;
    if site.admin_down {
        return Fate::Ends(Discard::SiteDown);
    }
    if let Err(reason) = sites.judge(registration.site, &registration.record(eid)) {
        return Fate::Ends(reason);
    }
    let signing = registration.signing.and_then(|signing| {
        let Signing { key_id, algorithm, mac_len, covered, .. } = signing;
        sites.rejoin(registration.site, key_id, algorithm, mac_len, covered)
    });
    if signing == registration.signing { Fate::Stays } else { Fate::Signed(signing) }
}
