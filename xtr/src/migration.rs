//! PURE. How far a migration is: which family travels inside which, directly or through a proxy, and to which sites. The JSON of
//! `isthmus show migration`, which a router tells in parts that add up.
use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;
use mapping::migration::{Family, MOST_SITES, Offer, OfferView, merge};
use serde::{Deserialize, Serialize};

/// How packets got to their destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// To a locator of the destination's own mapping.
    Direct,
    /// To a PETR: the destination is not in LISP, or has no locator of a family of ours.
    Petr,
}

impl Way {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Petr => "through a PETR",
        }
    }
}

/// What was sent one way, since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentClassView {
    /// Of the packets.
    pub inner: Family,
    /// Of the tunnel.
    pub outer: Family,
    /// Directly or not.
    pub way: Way,
    /// Packets.
    pub packets: u64,
    /// Their octets, without tunnel.
    pub octets: u64,
}

/// What came out of the core, since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedClassView {
    /// Of the packets.
    pub inner: Family,
    /// Of the tunnel.
    pub outer: Family,
    /// Packets, those that were dropped afterwards too.
    pub packets: u64,
    /// Their octets, without tunnel.
    pub octets: u64,
}

/// What one remote RLOC got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlocTrafficView {
    /// The RLOC.
    pub rloc: IpAddr,
    /// Packets.
    pub packets: u64,
    /// Their octets, without tunnel.
    pub octets: u64,
}

/// What one site, by its EID-prefix, got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteTrafficView {
    /// Its EID-prefix.
    pub prefix: IpNet,
    /// Its instance, 0 to 16 777 215.
    pub instance_id: u32,
    /// The families of its locators.
    pub locators: Offer,
    /// Packets.
    pub packets: u64,
    /// Their octets, without tunnel.
    pub octets: u64,
    /// Of `octets`, those over IPv4.
    pub over_ipv4: u64,
    /// Of `octets`, those over IPv6.
    pub over_ipv6: u64,
    /// Of `octets`, those that went to a PETR.
    pub through_petr: u64,
}

/// The report, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationView {
    /// Map-cache entries.
    pub entries: u64,
    /// What was sent: by entries that are there, and by those that were.
    pub sent: Vec<SentClassView>,
    /// What came.
    pub received: Vec<ReceivedClassView>,
    /// What the entries offer.
    pub offers: Vec<OfferView>,
    /// RLOCs that got most, the most first; no more than [`MOST_SITES`].
    pub rlocs: Vec<RlocTrafficView>,
    /// Sites that got most, the most first; no more than [`MOST_SITES`].
    pub sites: Vec<SiteTrafficView>,
    /// Sites with traffic that are not in `sites`.
    pub sites_left_out: u64,
}

impl MigrationView {
    /// The sum of all parts.
    pub fn of(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Self::default(), Self::plus)
    }

    /// Adds a part.
    #[must_use]
    pub fn plus(mut self, part: Self) -> Self {
        self.entries += part.entries;
        let key = |class: &SentClassView| (class.inner, class.outer, class.way);
        merge(&mut self.sent, part.sent, key, |sum, more| {
            sum.packets += more.packets;
            sum.octets += more.octets;
        });
        let key = |class: &ReceivedClassView| (class.inner, class.outer);
        merge(&mut self.received, part.received, key, |sum, more| {
            sum.packets += more.packets;
            sum.octets += more.octets;
        });
        let key = |offer: &OfferView| (offer.inner, offer.locators);
        merge(&mut self.offers, part.offers, key, |sum, more| sum.mappings += more.mappings);
        merge(
            &mut self.rlocs,
            part.rlocs,
            |rloc| rloc.rloc,
            |sum, more| {
                sum.packets += more.packets;
                sum.octets += more.octets;
            },
        );
        self.rlocs.sort_by_key(|rloc| (Reverse(rloc.octets), rloc.rloc));
        self.rlocs.truncate(MOST_SITES);
        self.sites.extend(part.sites);
        self.sites_left_out += part.sites_left_out;
        self.keep_largest();
        self
    }

    /// Leaves out the sites that got least, if there are too many.
    pub(crate) fn keep_largest(&mut self) {
        self.sites.sort_by_key(|site| (Reverse(site.octets), site.instance_id, site.prefix));
        self.sites_left_out += self.sites.len().saturating_sub(MOST_SITES) as u64;
        self.sites.truncate(MOST_SITES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(octets: u64) -> SiteTrafficView {
        SiteTrafficView {
            prefix: "2001:db8::/48".parse().unwrap(),
            instance_id: 0,
            locators: Offer::Ipv4,
            packets: 1,
            octets,
            over_ipv4: octets,
            over_ipv6: 0,
            through_petr: 0,
        }
    }

    #[test]
    fn op_01_parts_of_the_report_add_up() {
        let class = |packets| SentClassView {
            inner: Family::Ipv6,
            outer: Family::Ipv4,
            way: Way::Direct,
            packets,
            octets: 10 * packets,
        };
        let rloc =
            |octets| RlocTrafficView { rloc: "198.51.100.11".parse().unwrap(), packets: 1, octets };
        let part = |packets, sites: std::ops::Range<u64>| MigrationView {
            entries: 1,
            sent: vec![class(packets)],
            offers: vec![OfferView { inner: Family::Ipv6, locators: Offer::Ipv4, mappings: 3 }],
            rlocs: vec![rloc(packets)],
            sites: sites.map(site).collect(),
            ..MigrationView::default()
        };
        let sum = MigrationView::of([part(1, 0..200), part(2, 200..400)]);
        assert_eq!(sum.entries, 2);
        assert_eq!(sum.sent, [class(3)]);
        assert_eq!(sum.offers[0].mappings, 6);
        assert_eq!((sum.rlocs.len(), sum.rlocs[0].octets), (1, 3));
        assert_eq!((sum.sites.len(), sum.sites[0].octets), (MOST_SITES, 399));
        assert_eq!(sum.sites_left_out, 400 - MOST_SITES as u64);
    }
}
