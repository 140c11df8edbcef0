//! `show nat`.

use std::net::IpAddr;

use ::xtr::view::{NatRlocView, NatSiteView, NatView};

use super::super::columns::Align::{Left, Right};
use super::super::columns::{clock, clock_or, table};

/// Own RLOCs of an xTR, and sites of an RTR.
pub(super) fn text(view: &NatView) -> String {
    let mut parts = Vec::new();
    if !view.rlocs.is_empty() {
        parts.push(rlocs(&view.rlocs));
    }
    if !view.sites.is_empty() {
        parts.push(sites(&view.sites));
    }
    if view.unverified > 0 {
        parts.push(format!("Map-Registers that await their Map-Notify: {}\n", view.unverified));
    }
    if parts.is_empty() {
        return "Nobody behind a NAT is registered through this router.\n".to_owned();
    }
    parts.join("\n")
}

fn rlocs(rlocs: &[NatRlocView]) -> String {
    let header = [
        ("RLOC", Left),
        ("State", Left),
        ("Since", Right),
        ("Seen as", Left),
        ("RTR", Left),
        ("RTT", Right),
        ("Keepalive", Right),
        ("Other RTRs", Left),
    ];
    let row = |own: &NatRlocView| {
        let others: Vec<String> =
            own.rtrs.iter().filter(|rtr| Some(**rtr) != own.rtr).map(IpAddr::to_string).collect();
        vec![
            own.rloc.to_string(),
            own.state.clone(),
            clock(own.since_seconds),
            own.seen_as.map_or_else(|| "-".to_owned(), |seen| seen.to_string()),
            own.rtr.map_or_else(|| "-".to_owned(), |rtr| rtr.to_string()),
            own.rtt_us.map_or_else(|| "-".to_owned(), milliseconds),
            clock_or(own.last_seconds, "-"),
            others.join(", "),
        ]
    };
    table(0, &header, &rlocs.iter().map(row).collect::<Vec<_>>())
}

fn sites(sites: &[NatSiteView]) -> String {
    let header = [
        ("EID-prefix", Left),
        ("Translated", Left),
        ("Private", Left),
        ("Since", Right),
        ("Keepalive", Right),
        ("Expires", Right),
        ("RTT", Right),
        ("xTR-ID", Left),
    ];
    let row = |site: &NatSiteView| {
        vec![
            site.prefix.to_string(),
            site.translated.to_string(),
            site.private.to_string(),
            clock(site.since_seconds),
            clock(site.last_seconds),
            clock(site.expires_seconds),
            milliseconds(site.rtt_us),
            site.xtr_id.clone(),
        ]
    };
    table(0, &header, &sites.iter().map(row).collect::<Vec<_>>())
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03}ms", us / 1000, us % 1000)
}
