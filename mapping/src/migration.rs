//! PURE. How far a migration is, as a registry sees it: which sites can be reached over which family. The JSON of `isthmus show migration`,
//! which a daemon tells in parts that add up.
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Sites, or RLOCs, that a sum keeps.
pub const MOST_SITES: usize = 256;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// Which families the locators of a mapping have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offer {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both.
    Both,
    /// There is no locator: a negative mapping.
    None,
}

impl Offer {
    /// Of these locators.
    pub fn of(locators: impl Iterator<Item = IpAddr>) -> Self {
        let (mut ipv4, mut ipv6) = (false, false);
        for address in locators {
            (ipv4, ipv6) = (ipv4 || address.is_ipv4(), ipv6 || address.is_ipv6());
        }
        match (ipv4, ipv6) {
            (true, true) => Self::Both,
            (true, false) => Self::Ipv4,
            (false, true) => Self::Ipv6,
            (false, false) => Self::None,
        }
    }

    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4 only",
            Self::Ipv6 => "IPv6 only",
            Self::Both => "both",
            Self::None => "none",
        }
    }
}

/// EID-prefixes of a family whose locators have these families.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// Of the EID-prefixes.
    pub inner: Family,
    /// Of their locators.
    pub locators: Offer,
    /// How many.
    pub mappings: u64,
}

/// What of one site is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteOfferView {
    /// Its name.
    pub site: String,
    /// Its EID-prefixes.
    pub offers: Vec<OfferView>,
}

/// The report of a Map-Server, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryMigrationView {
    /// EID-prefixes registered.
    pub registered: u64,
    /// All of them by family.
    pub offers: Vec<OfferView>,
    /// By site, sorted; no more than [`MOST_SITES`].
    pub by_site: Vec<SiteOfferView>,
    /// Sites that are registered and not in `by_site`.
    pub sites_left_out: u64,
}

impl RegistryMigrationView {
    /// The sum of all parts.
    pub fn of(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = parts.into_iter().fold(Self::default(), Self::plus);
        sum.sites_left_out = sum.by_site.len().saturating_sub(MOST_SITES) as u64;
        sum.by_site.truncate(MOST_SITES);
        sum
    }

    /// Adds a part, with all of its sites.
    #[must_use]
    pub fn plus(mut self, part: Self) -> Self {
        self.registered += part.registered;
        add_offers(&mut self.offers, part.offers);
        let key = |site: &SiteOfferView| site.site.clone();
        merge(&mut self.by_site, part.by_site, key, |sum, more| {
            add_offers(&mut sum.offers, more.offers);
        });
        self
    }
}

/// Adds up EID-prefixes by family.
pub fn add_offers(sum: &mut Vec<OfferView>, more: Vec<OfferView>) {
    let key = |offer: &OfferView| (offer.inner, offer.locators);
    merge(sum, more, key, |sum, more| sum.mappings += more.mappings);
}

/// Adds up what has the same key; sorted by it.
pub fn merge<T, K: Ord>(
    into: &mut Vec<T>,
    from: Vec<T>,
    key: impl Fn(&T) -> K,
    add: impl Fn(&mut T, T),
) {
    let known = std::mem::take(into).into_iter().map(|one| (key(&one), one));
    let mut by_key: BTreeMap<K, T> = known.collect();
    for one in from {
        match by_key.get_mut(&key(&one)) {
            Some(sum) => add(sum, one),
            None => {
                by_key.insert(key(&one), one);
            }
        }
    }
    into.extend(by_key.into_values());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_01_parts_of_a_registry_add_up() {
        let offer = |locators, mappings| OfferView { inner: Family::Ipv6, locators, mappings };
        let part = |sites: std::ops::Range<u32>| RegistryMigrationView {
            registered: 2,
            offers: vec![offer(Offer::Ipv4, 1), offer(Offer::Both, 1)],
            by_site: sites
                .map(|n| SiteOfferView {
                    site: format!("{n:03}"),
                    offers: vec![offer(Offer::Both, 1)],
                })
                .collect(),
            sites_left_out: 0,
        };
        let sum = RegistryMigrationView::of([part(0..300), part(0..2)]);
        assert_eq!(sum.registered, 4);
        assert_eq!(sum.offers, [offer(Offer::Ipv4, 2), offer(Offer::Both, 2)]);
        assert_eq!(sum.by_site[0].offers, [offer(Offer::Both, 2)]);
        assert_eq!((sum.by_site.len(), sum.sites_left_out), (MOST_SITES, 300 - MOST_SITES as u64));
    }

    #[test]
    fn op_01_what_locators_offer() {
        let of = |list: &[&str]| Offer::of(list.iter().map(|text| text.parse().unwrap()));
        assert_eq!(of(&["192.0.2.1"]), Offer::Ipv4);
        assert_eq!(of(&["2001:db8::1"]), Offer::Ipv6);
        assert_eq!(of(&["192.0.2.1", "2001:db8::1"]), Offer::Both);
        assert_eq!(of(&[]), Offer::None);
    }
}
