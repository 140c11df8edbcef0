//! What an operator who migrates wants to know: which traffic takes which way. Told in parts, so that a million entries stop nobody.
use super::ControlPlane;
use super::locator::Candidate;
use super::map_cache::{Entry, load};
use crate::counters::{Families, Traffic};
use crate::migration::{
    MigrationView, ReceivedClassView, RlocTrafficView, SentClassView, SiteTrafficView, Way,
};
use crate::view::{LocatorView, MapCacheEntryView};
use mapping::eid::EidPrefix;
use mapping::migration::{Family, Offer, OfferView};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Instant;

/// Addresses known to have been PETRs: more than a set of them ever has, unless its names wander.
const MOST_PETRS: usize = 1_024;

/// What was sent by inner family, outer family and way.
type Sent = BTreeMap<(Family, Family, Way), Traffic>;

/// What entries and locators had carried that are no more.
#[derive(Debug, Default)]
pub(super) struct Gone {
    sent: Sent,
    /// Every RLOC that was in the use-petr set.
    petrs: BTreeSet<IpAddr>,
}

impl Gone {
    /// From now on this is an RLOC of a PETR.
    pub(super) fn note_petr(&mut self, rloc: IpAddr) {
        if self.petrs.len() < MOST_PETRS {
            self.petrs.insert(rloc);
        }
    }

    /// Counters of an entry go.
    pub(super) fn count(
        &mut self,
        prefix: &EidPrefix,
        locators: &[Candidate],
        rloc: IpAddr,
        (packets, octets): (u64, u64),
    ) {
        if packets > 0 {
            let class = self.class(prefix, locators, rloc);
            *self.sent.entry(class).or_default() += Traffic { packets, octets };
        }
    }

    fn class(
        &self,
        prefix: &EidPrefix,
        locators: &[Candidate],
        rloc: IpAddr,
    ) -> (Family, Family, Way) {
        let is_own = || locators.iter().any(|locator| locator.address == rloc);
        let way = if self.petrs.contains(&rloc) && !is_own() { Way::Petr } else { Way::Direct };
        (Family::of(prefix.prefix().addr()), Family::of(rloc), way)
    }
}

/// A part of the report in the making.
#[derive(Default)]
struct Part {
    sent: Sent,
    offers: BTreeMap<(Family, Offer), u64>,
    rlocs: BTreeMap<IpAddr, Traffic>,
    view: MigrationView,
}

impl Part {
    fn add(&mut self, gone: &Gone, prefix: EidPrefix, entry: &Entry) {
        self.view.entries += 1;
        let locators = entry.mapping.locators();
        let offer = Offer::of(locators.iter().map(|locator| locator.address));
        *self.offers.entry((Family::of(prefix.prefix().addr()), offer)).or_default() += 1;
        let mut site = SiteTrafficView {
            prefix: prefix.prefix(),
            instance_id: prefix.instance_id().get(),
            locators: offer,
            packets: 0,
            octets: 0,
            over_ipv4: 0,
            over_ipv6: 0,
            through_petr: 0,
        };
        for (&rloc, counters) in &entry.traffic {
            let (packets, octets) = load(counters);
            if packets == 0 {
                continue;
            }
            let traffic = Traffic { packets, octets };
            let class = gone.class(&prefix, locators, rloc);
            *self.sent.entry(class).or_default() += traffic;
            *self.rlocs.entry(rloc).or_default() += traffic;
            (site.packets, site.octets) = (site.packets + packets, site.octets + octets);
            match class.1 {
                Family::Ipv4 => site.over_ipv4 += octets,
                Family::Ipv6 => site.over_ipv6 += octets,
            }
            if class.2 == Way::Petr {
                site.through_petr += octets;
            }
        }
        if site.packets > 0 {
            self.view.sites.push(site);
        }
    }

    fn finish(mut self) -> MigrationView {
        let sent = |((inner, outer, way), Traffic { packets, octets })| SentClassView {
            inner,
            outer,
            way,
            packets,
            octets,
        };
        self.view.sent = self.sent.into_iter().map(sent).collect();
        let offer = |((inner, locators), mappings)| OfferView { inner, locators, mappings };
        self.view.offers = self.offers.into_iter().map(offer).collect();
        let rloc = |(rloc, Traffic { packets, octets })| RlocTrafficView { rloc, packets, octets };
        self.view.rlocs = self.rlocs.into_iter().map(rloc).collect();
        self.view.keep_largest();
        self.view
    }
}

impl ControlPlane {
    /// At most `most` entries' part of the report; `after` which one to go on, as the part before said. The first part has what `received`
    /// says, by [`Families`], and what former entries had sent.
    pub fn migration_part(
        &self,
        after: Option<EidPrefix>,
        most: usize,
        received: &[Traffic; Families::COUNT],
    ) -> (MigrationView, Option<EidPrefix>) {
        let gone = self.cache.gone();
        let mut part = Part::default();
        if after.is_none() {
            part.sent.clone_from(&gone.sent);
            part.view.received = received_view(received);
        }
        for (prefix, entry) in self.cache.iter_after(after) {
            part.add(gone, prefix, entry);
            if part.view.entries >= most as u64 {
                return (part.finish(), Some(prefix));
            }
        }
        (part.finish(), None)
    }

    /// Remote RLOCs in use, in their order, without what was sent to them; at most `most`. `after` which one to go on, as its host prefix.
    pub fn remote_rlocs_part(
        &self,
        now: Instant,
        after: Option<EidPrefix>,
        most: usize,
    ) -> (Vec<LocatorView>, Option<EidPrefix>) {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.first().address));
        let mut views = Vec::new();
        for (&address, locator) in self.locators.range((from, Bound::Unbounded)) {
            let petr = self.petrs.iter().find(|petr| petr.address == address).copied();
            let mut view =
                self.locator_view(now, &petr.unwrap_or_else(|| any(address)), locator.petr);
            view.mappings = locator.users.len() as u64;
            views.push(view);
            if views.len() >= most {
                let last = mapping::eid::Eid::new(mapping::eid::InstanceId::DEFAULT, address);
                return (views, Some(last.host_prefix()));
            }
        }
        (views, None)
    }

    /// At most `most` entries in a part of the EID space, or that use an RLOC; those that cover `within` come first. `after` which one to
    /// go on, as the part before said.
    pub fn find_mappings(
        &self,
        now: Instant,
        (within, rloc): (Option<EidPrefix>, Option<IpAddr>),
        after: Option<EidPrefix>,
        most: usize,
    ) -> (Vec<MapCacheEntryView>, Option<EidPrefix>) {
        let is_wanted = |prefix: &EidPrefix| within.is_none_or(|within| within.covers(prefix));
        let has_rloc = |entry: &Entry| {
            rloc.is_none_or(|rloc| entry.mapping.locators().iter().any(|l| l.address == rloc))
        };
        let mut found: Vec<(EidPrefix, &Entry)> = Vec::new();
        if let Some(rloc) = rloc {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let users = self.locators.get(&rloc).map(|locator| &locator.users);
            let users = users.into_iter().flat_map(|users| users.range((from, Bound::Unbounded)));
            let wanted = users.filter(|prefix| is_wanted(prefix)).take(most);
            found.extend(wanted.filter_map(|prefix| Some((*prefix, self.cache.get(prefix)?))));
        } else if let Some(within) = &within {
            let covering = self.cache.covering(within).filter(|_| after.is_none());
            found.extend(covering.filter(|(_, entry)| has_rloc(entry)));
            let itself = self.cache.get(within).filter(|_| after.is_none());
            found.extend(itself.map(|entry| (*within, entry)));
            let after = Some(after.map_or(*within, |after| after.max(*within)));
            let inside = self.cache.iter_after(after).take_while(|(prefix, _)| is_wanted(prefix));
            found.extend(inside.take(most));
        } else {
            found.extend(self.cache.iter_after(after).take(most));
        }
        let next = found.last().filter(|_| found.len() >= most).map(|(prefix, _)| *prefix);
        let view = |&(prefix, entry): &(EidPrefix, &Entry)| self.entry_view(now, prefix, entry);
        (found.iter().map(view).collect(), next)
    }
}

/// A locator whatever mappings say of it.
fn any(address: IpAddr) -> Candidate {
    let via = super::locator::Via::Usual;
    Candidate { address, priority: 0, weight: 0, reachable: true, ordinal: 0, via }
}

fn received_view(received: &[Traffic; Families::COUNT]) -> Vec<ReceivedClassView> {
    let pairs = [Family::Ipv4, Family::Ipv6]
        .map(|inner| [Family::Ipv4, Family::Ipv6].map(|outer| (inner, outer)))
        .concat();
    let view = |(inner, outer): (Family, Family)| {
        let families = Families::of(inner == Family::Ipv6, outer == Family::Ipv6);
        let Traffic { packets, octets } = received[families.index()];
        ReceivedClassView { inner, outer, packets, octets }
    };
    pairs.into_iter().map(view).filter(|class| class.packets > 0).collect()
}
