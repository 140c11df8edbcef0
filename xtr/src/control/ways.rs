//! The ways out: from which own RLOC a remote one is reached, where there are several of its family.
//!
//! What goes to a remote RLOC has the first own RLOC of the family that is up as its source, and routing may well choose the ISP by it. A
//! probe without answer is repeated from every own RLOC of the family. When all tries from the one in use go unanswered, but another one
//! got an answer, it is the way that failed and not the remote RLOC: traffic takes the other way, until the first one has answered as many
//! probes in a row as a locator that was down has to.
use super::locator::Locator;
use super::own::OwnRlocs;
use super::{ControlPlane, Event};
use crate::config::ProbeConfig;
use std::net::IpAddr;
use std::time::Instant;

/// Ways that one RLOC is probed by.
const MAX_WAYS: usize = 4;

/// How one remote RLOC is reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    /// Another source than the preferred one.
    detour: Option<IpAddr>,
    /// A source that got an answer since the one in use got none.
    answered: Option<IpAddr>,
    /// Probes from the preferred source that were answered in a row, while there is a detour.
    recovered: u32,
    /// The last probe from the preferred source awaits its answer.
    awaited: bool,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It came the way that traffic goes.
    InUse,
    /// It came another way; traffic now goes that way.
    Turned,
    /// It came another way, which is noted.
    Elsewhere,
}

impl Ways {
    /// The source in use.
    pub(super) fn source(&self, own: &OwnRlocs, rloc: IpAddr) -> Option<IpAddr> {
        self.detour.filter(|detour| own.is_up(*detour)).or_else(|| own.for_family(rloc))
    }
}

impl Locator {
    /// The source of what goes to it.
    pub(super) fn source(&self, own: &OwnRlocs, rloc: IpAddr) -> Option<IpAddr> {
        self.ways.source(own, rloc)
    }

    /// Notes an answer that came to a probe from `source`.
    fn came(&mut self, own: &OwnRlocs, config: ProbeConfig, rloc: IpAddr, source: IpAddr) -> Came {
        if self.source(own, rloc) == Some(source) {
            self.ways.answered = None;
            return Came::InUse;
        }
        let preferred = own.for_family(rloc);
        if self.is_down() {
            self.ways = Ways {
                detour: Some(source).filter(|_| preferred != Some(source)),
                ..Ways::default()
            };
            return Came::Turned;
        }
        self.ways.answered = Some(source);
        if preferred == Some(source) && self.ways.detour.is_some() {
            self.ways.awaited = false;
            self.ways.recovered += 1;
            if self.ways.recovered >= config.hold_down {
                self.ways = Ways::default();
                return Came::Turned;
            }
        }
        Came::Elsewhere
    }
}

impl ControlPlane {
    /// The sources of the next probe. `doubt`: the last one had no answer.
    pub(super) fn probe_sources(&mut self, rloc: IpAddr, doubt: bool) -> Vec<IpAddr> {
        let preferred = self.own.for_family(rloc);
        let Some(locator) = self.locators.get_mut(&rloc) else { return Vec::new() };
        let Some(in_use) = locator.ways.source(&self.own, rloc) else { return Vec::new() };
        let mut sources = vec![in_use];
        if doubt {
            sources.extend(self.own.up_of_family(rloc).filter(|other| *other != in_use));
            sources.truncate(MAX_WAYS);
        } else if locator.ways.detour.is_some() {
            sources.extend(preferred.filter(|preferred| *preferred != in_use));
        }
        if locator.ways.detour.is_some() && std::mem::replace(&mut locator.ways.awaited, true) {
            locator.ways.recovered = 0;
        }
        sources
    }

    /// What an answer to a probe from `source` says of the way it came.
    pub(super) fn note_way(
        &mut self,
        now: Instant,
        config: ProbeConfig,
        rloc: IpAddr,
        source: IpAddr,
    ) -> Came {
        let Some(locator) = self.locators.get_mut(&rloc) else { return Came::Elsewhere };
        let was_down = locator.is_down();
        let came = locator.came(&self.own, config, rloc, source);
        if came == Came::Turned {
            self.turned(now, rloc, !was_down);
        }
        came
    }

    /// All tries went unanswered: whether another way did not, which traffic now takes.
    pub(super) fn take_other_way(&mut self, now: Instant, rloc: IpAddr) -> bool {
        let preferred = self.own.for_family(rloc);
        let Some(locator) = self.locators.get_mut(&rloc) else { return false };
        let answered = locator.ways.answered.take().filter(|source| self.own.is_up(*source));
        let Some(answered) =
            answered.filter(|source| locator.source(&self.own, rloc) != Some(*source))
        else {
            return false;
        };
        let detour = Some(answered).filter(|_| preferred != Some(answered));
        locator.ways = Ways { detour, ..Ways::default() };
        locator.tries = 0;
        self.turned(now, rloc, true);
        true
    }

    fn turned(&mut self, now: Instant, rloc: IpAddr, carries_traffic: bool) {
        let Some(source) = self.source_towards(rloc) else { return };
        self.count("locators_rerouted");
        self.event(Event::LocatorRerouted { rloc, source });
        if carries_traffic {
            self.locator_changed(now, rloc);
        }
    }
}
