//! The DR variant: an EID-prefix is swapped from one locator-set to another as a whole, and every correspondent follows.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::configuration::{Keys, WHOLE};
use super::plan::{HOST_E, HOST_P, P, whole_prefix};
use super::{Bed, FAMILIES, LIMIT, SECOND, SOLICITED, Site, ms, wire};
use crate::lab::capture::{Capture, Frame};
use crate::lab::network::wait_for;
use crate::lab::pressure::patiently;
use crate::lab::probe::session::Session;
use crate::lab::probe::stream::Stream;
use crate::lab::report::Checks;

impl Bed<'_> {
    /// Two sites that are solicited, each with TCP sessions, and a subscriber that only sends.
    pub(super) fn whole_prefix(&self, checks: &mut Checks) -> io::Result<()> {
        let mut at = 0;
        patiently(checks, |checks| {
            at = 1 - at;
            self.swap(checks, at)
        })
    }

    fn swap(&self, checks: &mut Checks, at: usize) -> io::Result<()> {
        let host_p = self.network.namespace("host-p")?;
        let xtr_p = self.network.daemon_in("xtr-p")?;
        let mut sessions = Vec::new();
        for site in [&self.c, &self.d] {
            for (n, family) in FAMILIES.into_iter().enumerate() {
                let session =
                    Session::start((&site.host, site.addresses[n]), (&host_p, HOST_P[n]))?;
                sessions.push((format!("{family}, {}", site.name), session));
            }
        }
        let streams =
            [0, 1].map(|n| Stream::start((&self.e.host, HOST_E[n]), (&host_p, HOST_P[n])));
        thread::sleep(Duration::from_millis(500));
        let mark = self.core.mark();
        let change = Capture::clock();
        let text = whole_prefix(&Keys::of(self.network), at);
        self.network.daemons().configure(&xtr_p, &text)?;
        let taken = xtr_p.reload()?;
        let shown = taken.clone().unwrap_or_else(|error| error);
        let place = ["DC1", "DC2"][at];
        checks.that(
            format!("locator-set of a whole prefix to {place}, isthmus reload"),
            "taken over",
            shown,
            taken.is_ok(),
        );
        for prefix in WHOLE {
            for site in [&self.c, &self.d, &self.e] {
                let rloc = P[at].to_string();
                let moved = wait_for(SOLICITED + LIMIT, || Ok(site.knows(prefix)? == rloc))?;
                let text = format!("mapping of {prefix} at {}", site.name);
                checks.that(text, &rloc, site.knows(prefix)?, moved);
            }
        }
        thread::sleep(Duration::from_millis(200));
        let frames = self.core.since(mark);
        for n in 0..2 {
            for site in [&self.c, &self.d, &self.e] {
                followed(checks, &frames, (site, n), (at, change))?;
            }
        }
        for (name, session) in sessions {
            let survived = session.finish();
            let passed = survived.is_ok();
            let shown = survived.map_or_else(|error| error.to_string(), |s| s.to_string());
            checks.that(format!("its TCP session lives on, {name}"), "every record", shown, passed);
        }
        for (stream, family) in streams.into_iter().zip(FAMILIES) {
            let seen = stream?.finish()?;
            let shown = format!("{} of {}", seen.lost(), seen.sent.len());
            let text = format!("lost from the subscriber meanwhile, {family}");
            checks.that(text, 0, shown, seen.lost() == 0);
        }
        Ok(())
    }
}

/// From the word that told a site to the first packet to the new locator, and the last one to the old. Before its turn to be solicited comes,
/// an RLOC-probe may tell it, or it asks because packets come from a locator that it does not know.
fn followed(
    checks: &mut Checks,
    frames: &[Frame],
    (site, n): (&Site, usize),
    (at, change): (usize, SystemTime),
) -> io::Result<()> {
    let prefix: IpNet = WHOLE[n].parse().map_err(io::Error::other)?;
    // The answer to a probe of the old locator says that one, too, as not to be used.
    let is_new = |(time, rlocs): (SystemTime, Vec<IpAddr>)| rlocs.contains(&P[at]).then_some(time);
    let smr = wire::solicitations(frames, site.rloc, prefix).first().map(|(time, _)| *time);
    let notify = wire::notifies(frames, site.rloc, prefix).into_iter().find_map(is_new);
    let replied =
        |probe| wire::replies(frames, site.rloc, prefix, probe).into_iter().find_map(is_new);
    let words = [
        ("SMR", smr),
        ("publication", notify),
        ("answer to its RLOC-probe", replied(true)),
        ("answer to its own question", replied(false)),
    ];
    let words = words.into_iter().filter_map(|(word, time)| Some((time?, word)));
    let told = words.min();
    let last = wire::data(frames, site.rloc, P[1 - at], HOST_P[n]).last().copied();
    let first = wire::data(frames, site.rloc, P[at], HOST_P[n]).first().copied();
    let after = wire::between(told.map(|(time, _)| time), first.max(last));
    let since = wire::between(Some(change), first);
    checks.that(
        format!("{} follows to {}, {}", site.name, P[at], FAMILIES[n]),
        "within 1 s of the word that told it",
        format!(
            "{} after the {}; {} after the reload began",
            after.map_or("never".to_owned(), ms),
            told.map_or("-", |(_, word)| word),
            since.map_or("never".to_owned(), ms)
        ),
        first.is_some() && after.is_some_and(|after| after <= SECOND),
    );
    Ok(())
}
