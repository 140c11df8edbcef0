//! What monitoring wants to know of the sites.
use std::collections::BTreeMap;
use std::time::Instant;

use super::MapServer;
use super::site::SiteIndex;
use super::views::seconds;
use crate::discard::DiscardCounters;
use crate::eid::EidPrefix;
use crate::migration::{Family, Offer, OfferView, RegistryMigrationView, SiteOfferView};
use crate::telemetry::{MOST_SERIES, SeriesView};

impl MapServer {
    /// Values for each of the first [`MOST_SERIES`] sites, and how many sites have none.
    pub fn series(&self, now: Instant) -> (Vec<SeriesView>, u64) {
        let mut series = Vec::new();
        for (index, site) in self.sites.iter().take(MOST_SERIES) {
            let labels = [("site", &*site.name)];
            let mut add = |metric, value| series.push(SeriesView::new(metric, &labels, value));
            add("site_registrations", self.registrations_of(index) as f64);
            // Counters stay far below 2^53.
            add("site_records_accepted_total", site.accepted as f64);
            add("site_records_refused_total", site.refused as f64);
            if let Some(last) = site.last_register {
                add("site_last_register_age_seconds", seconds(now, last) as f64);
            }
        }
        let sites = self.sites.iter().count();
        (series, sites.saturating_sub(MOST_SERIES) as u64)
    }

    /// Over which families the EID-prefixes of each site can be reached: of at most `most` EID-prefixes; `after` which one to go on, as the
    /// part before said.
    pub fn migration_part(
        &self,
        after: Option<EidPrefix>,
        most: usize,
    ) -> (RegistryMigrationView, Option<EidPrefix>) {
        let mut offers: BTreeMap<(Family, Offer), u64> = BTreeMap::new();
        let mut sites: BTreeMap<SiteIndex, BTreeMap<(Family, Offer), u64>> = BTreeMap::new();
        let (mut registered, mut next) = (0, None);
        for (prefix, entry) in self.registry.iter_after(after) {
            let registrations = entry.registrations();
            let locators = registrations.iter().flat_map(|registration| registration.locators());
            let offer = Offer::of(locators.filter_map(|locator| locator.address.rloc()));
            let class = (Family::of(prefix.prefix().addr()), offer);
            *offers.entry(class).or_default() += 1;
            if let Some(first) = registrations.first() {
                *sites.entry(first.site).or_default().entry(class).or_default() += 1;
            }
            registered += 1;
            if registered >= most as u64 {
                next = Some(prefix);
                break;
            }
        }
        let views = |offers: BTreeMap<(Family, Offer), u64>| -> Vec<OfferView> {
            let view = |((inner, locators), mappings)| OfferView { inner, locators, mappings };
            offers.into_iter().map(view).collect()
        };
        let mut by_site: Vec<SiteOfferView> = sites
            .into_iter()
            .map(|(index, offers)| SiteOfferView {
                site: self.sites.get(index).name.to_string(),
                offers: views(offers),
            })
            .collect();
        by_site.sort_by(|one, other| one.site.cmp(&other.site));
        let view =
            RegistryMigrationView { registered, offers: views(offers), by_site, sites_left_out: 0 };
        (view, next)
    }

    /// Why messages and records were discarded.
    pub const fn discards(&self) -> &DiscardCounters {
        &self.discards
    }
}
