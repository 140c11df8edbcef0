//! `show nat`.
use super::ControlPlane;
use super::nat::{Finding, Nat, Place};
use super::rtr::Rtr;
use crate::view::{NatRlocView, NatSiteView, NatView};
use std::net::IpAddr;
use std::time::{Duration, Instant};

impl ControlPlane {
    /// `show nat`; `None` where there is no NAT traversal.
    pub fn nat_view(&self, now: Instant) -> Option<NatView> {
        let (nat, rtr) = (self.nat(), self.rtr());
        if nat.is_none() && rtr.is_none() {
            return None;
        }
        let findings = nat.into_iter().flat_map(Nat::findings);
        Some(NatView {
            rlocs: findings.map(|(rloc, finding)| rloc_view(now, rloc, finding)).collect(),
            sites: rtr.map(|rtr| sites(now, rtr)).unwrap_or_default(),
            unverified: rtr.map_or(0, Rtr::unverified) as u64,
        })
    }
}

fn rloc_view(now: Instant, rloc: IpAddr, finding: &Finding) -> NatRlocView {
    let behind = match &finding.place {
        Place::Behind(behind) => Some(behind),
        Place::Unknown | Place::Outside => None,
    };
    let state = match (&finding.place, behind.and_then(|behind| behind.rtr())) {
        (Place::Unknown, _) => "unknown",
        (Place::Outside, _) => "outside",
        (Place::Behind(_), None) => "no-rtr",
        (Place::Behind(behind), Some(_)) if behind.acknowledged.is_some() => "registered",
        (Place::Behind(_), Some(_)) => "pending",
    };
    let last = behind.and_then(|behind| behind.acknowledged);
    NatRlocView {
        rloc,
        state: state.to_owned(),
        since_seconds: now.saturating_duration_since(finding.since).as_secs(),
        seen_as: behind.map(|behind| behind.global),
        info_rtt_us: finding.round_trip.map(micros),
        rtr: behind.and_then(|behind| behind.rtr()),
        rtrs: behind.map(|behind| behind.rtrs.clone()).unwrap_or_default(),
        rtt_us: behind.and_then(|behind| behind.round_trip).map(micros),
        last_seconds: last.map(|last| now.saturating_duration_since(last).as_secs()),
    }
}

fn sites(now: Instant, rtr: &Rtr) -> Vec<NatSiteView> {
    rtr.ways()
        .map(|(prefix, xtr_id, private, way)| NatSiteView {
            prefix: prefix.prefix(),
            xtr_id: format!("{xtr_id:032x}"),
            private,
            translated: way.translated,
            rtr: way.local,
            map_server: way.map_server,
            since_seconds: now.saturating_duration_since(way.since).as_secs(),
            last_seconds: now.saturating_duration_since(way.last).as_secs(),
            expires_seconds: way.ends.saturating_duration_since(now).as_secs(),
            rtt_us: micros(way.round_trip),
        })
        .collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
