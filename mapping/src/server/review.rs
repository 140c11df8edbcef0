//! What was registered under other rules is reviewed: some registrations at a time, so that messages get their turn between, however many
//! there are.
//!
//! Nobody is told of a registration that a rule forbids by now: what a message is about is reviewed before it is answered, a more-specific
//! whose turn has not come is told only if it may stay, and what subscribers are told waits for the end.

use std::time::Instant;

use crate::discard::Discard;
use crate::eid::{EidPrefix, NamePrefix};
use crate::wire::EidField;

use super::event::{Event, NameChange, Refusal};
use super::registry::{Entry, Registrant, Registration};
use super::site::{Signing, Sites};
use super::{Count, MapServer};

/// Entries that one call of [`MapServer::handle_due_review`] looks at, and how many such looks one that ends is worth: a million of them
/// hold up messages for a fraction of a millisecond each time.
const LOOKS_AT_ONCE: usize = 512;
const LOOKS_PER_END: usize = 4;
/// More-specifics that are reviewed before a lookup is answered: more than one message has room for.
const LOOKS_PER_LOOKUP: usize = 128;

/// A review that is under way.
#[derive(Debug)]
pub(super) struct Review {
    since: Instant,
    /// The last of the EID-prefixes that were reviewed, in their order.
    last: Option<EidPrefix>,
    /// The names that were not.
    names: Vec<NamePrefix>,
}

/// What becomes of a registration.
enum Fate {
    /// It stays as it is.
    Stays,
    /// It stays, and what answers to it are signed with is another key now, or none.
    Signed(Option<Signing>),
    /// A rule forbids it.
    Ends(Discard),
}

impl Review {
    /// When it was begun: it is always time to go on.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    fn is_done_with(&self, prefix: &EidPrefix) -> bool {
        self.last.is_some_and(|last| *prefix <= last)
    }
}

impl MapServer {
    /// The rules are others now: reviews what is registered, from the beginning.
    pub(super) fn begin_review(&mut self, now: Instant) {
        let names = self.names.iter().map(|(name, _)| name.clone()).collect();
        self.review = Some(Review { since: now, last: None, names });
        self.handle_due_review(now);
    }

    /// Reviews some more.
    pub(super) fn handle_due_review(&mut self, now: Instant) {
        let mut looks = LOOKS_AT_ONCE;
        while looks > 0
            && let Some(review) = &mut self.review
        {
            let next = self.registry.iter_after(review.last).next().map(|(prefix, _)| prefix);
            let ended = match next {
                Some(prefix) => {
                    review.last = Some(prefix);
                    self.review_entries(now, &[prefix])
                }
                None => match review.names.pop() {
                    Some(name) => self.review_name(&name),
                    None => {
                        self.review = None;
                        // It has waited for this.
                        self.handle_due_subscriptions(now);
                        0
                    }
                },
            };
            looks = looks.saturating_sub(1 + ended * LOOKS_PER_END);
        }
    }

    /// Reviews what governs `prefix`, and itself.
    pub(super) fn review_covering(&mut self, now: Instant, prefix: &EidPrefix) {
        let Some(review) = &self.review else { return };
        let covering = self.registry.covering(prefix).map(|(found, _)| found);
        let found: Vec<EidPrefix> = covering.filter(|found| !review.is_done_with(found)).collect();
        self.review_entries(now, &found);
    }

    /// Reviews what a lookup of `prefix` may be answered with.
    pub(super) fn review_around(&mut self, now: Instant, prefix: &EidPrefix) {
        self.review_covering(now, prefix);
        let Some(review) = &self.review else { return };
        let parts = self.registry.more_specifics(prefix).map(|(found, _)| found);
        let found: Vec<EidPrefix> =
            parts.take(LOOKS_PER_LOOKUP).filter(|found| !review.is_done_with(found)).collect();
        self.review_entries(now, &found);
    }

    /// Reviews the names that `name` begins with.
    pub(super) fn review_names_of(&mut self, name: &NamePrefix) {
        if self.review.is_none() {
            return;
        }
        let found: Vec<NamePrefix> =
            self.names.covering(name).map(|(found, _)| found.clone()).collect();
        for name in &found {
            self.review_name(name);
        }
    }

    /// Whether every registration of an entry may stay, as far as that is not known already.
    pub(super) fn may_stay(&self, prefix: &EidPrefix, entry: &Entry) -> bool {
        let Some(review) = self.review.as_ref().filter(|review| !review.is_done_with(prefix))
        else {
            return true;
        };
        debug_assert!(review.last.is_none_or(|last| last < *prefix));
        let ends = |one: &Registration| {
            matches!(fate(&self.sites, one, EidField::from(*prefix)), Fate::Ends(_))
        };
        !entry.registrations().iter().any(ends)
    }

    /// Ends what is forbidden, then tells of it; says how many that were.
    fn review_entries(&mut self, now: Instant, prefixes: &[EidPrefix]) -> usize {
        let mut ended: Vec<(EidPrefix, Registrant, Discard)> = Vec::new();
        let sites = &self.sites;
        for &prefix in prefixes {
            self.registry.revise(&prefix, |entry| {
                revise(sites, entry, prefix.into(), |registrant, reason| {
                    ended.push((prefix, registrant, reason));
                });
            });
        }
        let mut gone: Vec<(EidPrefix, Registration, Discard)> = Vec::with_capacity(ended.len());
        for (prefix, registrant, reason) in ended {
            if let Some(registration) = self.registry.withdraw(&prefix, registrant) {
                gone.push((prefix, registration, reason));
            }
        }
        for (prefix, registration, reason) in &gone {
            self.revoked(registration, Some(*prefix), *reason);
            self.tell_of_removal(now, *prefix, registration.registrant);
        }
        gone.len()
    }

    fn review_name(&mut self, name: &NamePrefix) -> usize {
        let mut ended: Vec<(Registrant, Discard)> = Vec::new();
        let sites = &self.sites;
        self.names.revise(name, |entry| {
            revise(sites, entry, name.into(), |registrant, reason| {
                ended.push((registrant, reason));
            });
        });
        let count = ended.len();
        for (registrant, reason) in ended {
            let Some(gone) = self.names.withdraw(name, registrant) else { continue };
            let site = self.sites.get(gone.site).name.clone();
            self.forget_name(name, registrant);
            self.revoked(&gone, None, reason);
            let change = NameChange::Withdrawn;
            self.event(Event::Name { site, name: name.clone(), source: gone.source, change });
        }
        count
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
