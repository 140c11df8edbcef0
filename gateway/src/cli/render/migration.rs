//! `show migration`: who travels inside whom, which way, and to which sites.

use ::mapping::migration::{Family, Offer, OfferView, RegistryMigrationView, SiteOfferView};
use ::xtr::migration::{MigrationView, SiteTrafficView, Way};

use super::super::columns::Align::{Left, Right};
use super::super::columns::table;
use super::in_instance;
use crate::migration::Report;

/// The report in words.
pub(super) fn text(report: &Report) -> String {
    match report {
        Report::Registry(view) => registry(view),
        Report::Router(view) => router(view),
    }
}

/// A share in percent with one decimal.
fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

fn inside(inner: Family, outer: Family) -> String {
    format!("{} in {}", inner.name(), outer.name())
}

fn router(view: &MigrationView) -> String {
    let mut text = String::new();
    let whole: u64 = view.sent.iter().map(|class| class.octets).sum();
    let sent: Vec<Vec<String>> = view
        .sent
        .iter()
        .map(|class| {
            vec![
                inside(class.inner, class.outer),
                class.way.name().to_owned(),
                class.packets.to_string(),
                class.octets.to_string(),
                share(class.octets, whole),
            ]
        })
        .collect();
    let header =
        [("Sent", Left), ("Way", Left), ("Packets", Right), ("Octets", Right), ("Share", Right)];
    text += &table(0, &header, &sent);
    let whole: u64 = view.received.iter().map(|class| class.octets).sum();
    let received: Vec<Vec<String>> = view
        .received
        .iter()
        .map(|class| {
            vec![
                inside(class.inner, class.outer),
                class.packets.to_string(),
                class.octets.to_string(),
                share(class.octets, whole),
            ]
        })
        .collect();
    text.push('\n');
    text += &table(
        0,
        &[("Received", Left), ("Packets", Right), ("Octets", Right), ("Share", Right)],
        &received,
    );
    text.push('\n');
    text += &summary(view);
    text.push('\n');
    text += &offers("EID-prefixes in the map-cache", &view.offers);
    if !view.sites.is_empty() {
        text.push('\n');
        text += &sites(view);
    }
    text
}

/// The three shares that a migration is judged by.
fn summary(view: &MigrationView) -> String {
    let whole: u64 = view.sent.iter().map(|class| class.octets).sum();
    let sum = |is_wanted: &dyn Fn(&::xtr::migration::SentClassView) -> bool| {
        let wanted = view.sent.iter().filter(|class| is_wanted(class));
        share(wanted.map(|class| class.octets).sum(), whole)
    };
    format!(
        "Of octets sent: {} IPv6, {} over IPv6, {} through a PETR\n",
        sum(&|class| class.inner == Family::Ipv6),
        sum(&|class| class.outer == Family::Ipv6),
        sum(&|class| class.way == Way::Petr)
    )
}

const OFFERS: [Offer; 4] = [Offer::Ipv4, Offer::Ipv6, Offer::Both, Offer::None];

fn offers(title: &str, views: &[OfferView]) -> String {
    let row = |inner: Family| {
        let cells = OFFERS.iter().map(|offer| count(views, inner, *offer).to_string());
        std::iter::once(inner.name().to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let header = [
        (title, Left),
        ("RLOCs IPv4 only", Right),
        ("IPv6 only", Right),
        ("both", Right),
        ("none", Right),
    ];
    table(0, &header, &[row(Family::Ipv4), row(Family::Ipv6)])
}

fn count(views: &[OfferView], inner: Family, locators: Offer) -> u64 {
    let of_it = views.iter().filter(|view| (view.inner, view.locators) == (inner, locators));
    of_it.map(|view| view.mappings).sum()
}

fn sites(view: &MigrationView) -> String {
    let row = |site: &SiteTrafficView| {
        vec![
            in_instance(site.instance_id, site.prefix),
            site.locators.name().to_owned(),
            site.packets.to_string(),
            site.octets.to_string(),
            share(site.over_ipv4, site.octets),
            share(site.over_ipv6, site.octets),
            share(site.through_petr, site.octets),
        ]
    };
    let rows: Vec<_> = view.sites.iter().map(row).collect();
    let header = [
        ("Sent for EID-prefix", Left),
        ("RLOCs", Left),
        ("Packets", Right),
        ("Octets", Right),
        ("Over IPv4", Right),
        ("Over IPv6", Right),
        ("Through a PETR", Right),
    ];
    table(0, &header, &rows) + &left_out(view.sites_left_out)
}

fn left_out(sites: u64) -> String {
    match sites {
        0 => String::new(),
        sites => format!("and {sites} with less\n"),
    }
}

fn registry(view: &RegistryMigrationView) -> String {
    let mut text = offers("Registered EID-prefixes", &view.offers);
    if view.by_site.is_empty() {
        return text;
    }
    text.push('\n');
    let families = |site: &SiteOfferView, inner: Family| {
        let counts = OFFERS.iter().map(|offer| (count(&site.offers, inner, *offer), offer.name()));
        let said: Vec<String> =
            counts.filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
        if said.is_empty() { "-".to_owned() } else { said.join(", ") }
    };
    let row = |site: &SiteOfferView| {
        vec![site.site.clone(), families(site, Family::Ipv4), families(site, Family::Ipv6)]
    };
    let rows: Vec<_> = view.by_site.iter().map(row).collect();
    let header =
        [("Site", Left), ("IPv4 EID-prefixes, by RLOCs", Left), ("IPv6 EID-prefixes", Left)];
    text += &table(0, &header, &rows);
    if view.sites_left_out > 0 {
        text += &format!("and {} more sites\n", view.sites_left_out);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn op_01_the_migration_of_a_router_is_shown() {
        let report = serde_json::from_value(json!({
            "entries": 3,
            "sent": [
                {"inner": "ipv6", "outer": "ipv4", "way": "direct", "packets": 6, "octets": 600},
                {"inner": "ipv6", "outer": "ipv4", "way": "petr", "packets": 2, "octets": 200},
                {"inner": "ipv6", "outer": "ipv6", "way": "direct", "packets": 2, "octets": 200},
            ],
            "received": [{"inner": "ipv6", "outer": "ipv4", "packets": 5, "octets": 500}],
            "offers": [
                {"inner": "ipv6", "locators": "ipv4", "mappings": 1},
                {"inner": "ipv6", "locators": "both", "mappings": 1},
                {"inner": "ipv4", "locators": "none", "mappings": 1},
            ],
            "rlocs": [],
            "sites": [{"prefix": "2001:db8:e002::/48", "instance_id": 0, "locators": "both", "packets": 8, "octets": 800,
                "over_ipv4": 600, "over_ipv6": 200, "through_petr": 0}],
            "sites_left_out": 2,
        }))
        .unwrap();
        let expected = "\
Sent          Way             Packets  Octets   Share
IPv6 in IPv4  direct                6     600  60.0 %
IPv6 in IPv4  through a PETR        2     200  20.0 %
IPv6 in IPv6  direct                2     200  20.0 %

Received      Packets  Octets    Share
IPv6 in IPv4        5     500  100.0 %

Of octets sent: 100.0 % IPv6, 20.0 % over IPv6, 20.0 % through a PETR

EID-prefixes in the map-cache  RLOCs IPv4 only  IPv6 only  both  none
IPv4                                         0          0     0     1
IPv6                                         1          0     1     0

Sent for EID-prefix  RLOCs  Packets  Octets  Over IPv4  Over IPv6  Through a PETR
2001:db8:e002::/48   both         8     800     75.0 %     25.0 %           0.0 %
and 2 with less
";
        assert_eq!(text(&report), expected);
    }

    #[test]
    fn op_01_the_migration_of_a_registry_is_shown() {
        let offers = json!([
            {"inner": "ipv4", "locators": "ipv4", "mappings": 2},
            {"inner": "ipv6", "locators": "both", "mappings": 1},
        ]);
        let report = serde_json::from_value(json!({
            "registered": 3, "offers": offers, "by_site": [{"site": "a", "offers": offers}], "sites_left_out": 0,
        }))
        .unwrap();
        let expected = "\
Registered EID-prefixes  RLOCs IPv4 only  IPv6 only  both  none
IPv4                                   2          0     0     0
IPv6                                   0          0     1     0

Site  IPv4 EID-prefixes, by RLOCs  IPv6 EID-prefixes
a     2 IPv4 only                  1 both
";
        assert_eq!(text(&report), expected);
    }
}
