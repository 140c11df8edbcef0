//! EID mobility: hosts of the dynamic-EID ranges come, are registered as host prefixes while they are here, and go (DY-01 to DY-05).
//!
//! A host of a range that is part of an own EID-prefix is at home, and needs no registration of its own, unless it comes back from
//! elsewhere. Where a host went is what the Map-Server says of it: that is a map-cache entry like any other, and the data plane sends what
//! still comes for the host after it (`away`). A host that comes back too often is left where it is for a while (`moves`).
//!
//! Whoever watches the site's links tells of hosts with [`ControlPlane::handle_host`] and [`ControlPlane::handle_host_gone`]; the data plane
//! tells of packets. What the host's routing is to do about it comes out of [`ControlPlane::poll_host_change`].
use super::away::{Away, RECHECKS_PER_SECOND};
use super::database::OwnMapping;
use super::limit::TokenBucket;
use super::moves::{Move, Moves};
use super::{ControlPlane, Event};
use crate::config::{DynamicRange, LocalEid};
use crate::view::HostView;
use mapping::eid::{Eid, EidPrefix, EidTable, InstanceId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Hosts seen per second that are looked at; a burst beyond it is heard when the hosts speak again.
const SIGHTINGS_PER_SECOND: u32 = 1_000;

/// How a host was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// It sent a packet through this router.
    Data,
    /// ARP (RFC 826), gratuitous or not.
    Arp,
    /// Neighbor Discovery (RFC 4861), solicited or not.
    Nd,
    /// A DHCP server gave it its address.
    Lease,
}

impl Detection {
    /// As `show mobility` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Arp => "arp",
            Self::Nd => "nd",
            Self::Lease => "lease",
        }
    }
}

/// A host is on a link of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSeen {
    /// The site interface, if it is known.
    pub interface: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// How it was found.
    pub how: Detection,
}

/// A host is on a link of the site no longer: its link went, or it does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostGone {
    /// The site interface, if it is known.
    pub interface: Option<String>,
    /// Its address.
    pub address: IpAddr,
}

/// What the host side is to do about an EID of a dynamic-EID range. The last word about an EID counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// It is here: a host route leads to it, on the first of these interfaces if the host side knows no better; packets of the site to it stay
    /// in the site.
    Here {
        /// The EID.
        eid: Eid,
        /// Where it may be.
        interfaces: Vec<String>,
    },
    /// It is at another site: packets of this site to it go into the TUN, and ARP and ND for it are answered on these interfaces.
    Away {
        /// The EID.
        eid: Eid,
        /// Where it is asked for.
        interfaces: Vec<String>,
    },
    /// Neither: whatever was installed for it is taken out.
    Forget {
        /// The EID.
        eid: Eid,
    },
    /// Ask it for a sign of life on these interfaces (ARP or ND), and tell of the answer as of any other host.
    Probe {
        /// The EID.
        eid: Eid,
        /// Where it may be.
        interfaces: Vec<String>,
    },
}

/// The dynamic-EID ranges and their hosts.
#[derive(Debug)]
pub(super) struct Mobility {
    pub(super) ranges: Vec<DynamicRange>,
    /// How many hosts of each are here, and away.
    present: Vec<(usize, usize)>,
    /// Indexes of `ranges`; what is seen of a host does not say its instance, and no two ranges share an address.
    by_address: EidTable<usize>,
    pub(super) here: BTreeMap<EidPrefix, Here>,
    /// Never one that is here.
    pub(super) away: BTreeMap<EidPrefix, Away>,
    timers: BTreeSet<(Instant, EidPrefix)>,
    moves: Moves,
    pub(super) changes: VecDeque<HostChange>,
    sightings: TokenBucket,
    pub(super) rechecks: TokenBucket,
}

/// A host that is here.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) range: usize,
    pub(super) since: Instant,
    pub(super) how: Detection,
    /// A Map-Server that had not acknowledged it yet spoke of another site.
    pub(super) contested: bool,
    pub(super) heard: Instant,
    pub(super) interface: Option<String>,
    /// Its timer.
    pub(super) due: Instant,
}

impl Mobility {
    pub(super) fn new(now: Instant, ranges: &[DynamicRange]) -> Self {
        let mut by_address = EidTable::default();
        for (index, range) in ranges.iter().enumerate() {
            by_address.insert(untagged(range.range), index);
        }
        Self {
            ranges: ranges.to_vec(),
            by_address,
            present: vec![(0, 0); ranges.len()],
            here: BTreeMap::new(),
            away: BTreeMap::new(),
            timers: BTreeSet::new(),
            moves: Moves::default(),
            changes: VecDeque::new(),
            sightings: TokenBucket::new(now, SIGHTINGS_PER_SECOND),
            rechecks: TokenBucket::new(now, RECHECKS_PER_SECOND),
        }
    }

    /// Takes over what does not depend on the ranges.
    pub(super) fn take_from(&mut self, before: &mut Self) {
        std::mem::swap(&mut self.moves, &mut before.moves);
        std::mem::swap(&mut self.changes, &mut before.changes);
        std::mem::swap(&mut self.sightings, &mut before.sightings);
        std::mem::swap(&mut self.rechecks, &mut before.rechecks);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// The range that an address is in, and its EID.
    fn range_of(&self, address: IpAddr) -> Option<(usize, Eid)> {
        let (_, &index) = self.by_address.lookup(Eid::new(InstanceId::DEFAULT, address))?;
        Some((index, Eid::new(self.ranges[index].range.instance_id(), address)))
    }

    /// The range of an EID-prefix that is one host of it.
    pub(super) fn range_of_host(&self, prefix: &EidPrefix) -> Option<usize> {
        if self.ranges.is_empty() || *prefix != prefix.first().host_prefix() {
            return None;
        }
        let (index, eid) = self.range_of(prefix.prefix().addr())?;
        (eid == prefix.first()).then_some(index)
    }

    /// The locator-set of a range.
    pub(super) fn locator_set_of(&self, range: &EidPrefix) -> Option<&Vec<String>> {
        let found = self.ranges.iter().find(|known| known.range == *range);
        found.map(|range| &range.locator_set)
    }

    pub(super) fn is_away(&self, prefix: &EidPrefix) -> bool {
        self.away.contains_key(prefix)
    }

    /// Hosts of a range that are away.
    pub(super) fn away_in(&self, range: usize) -> usize {
        self.present[range].1
    }

    pub(super) fn insert_here(&mut self, prefix: EidPrefix, here: Here) {
        self.present[here.range].0 += 1;
        self.timers.insert((here.due, prefix));
        self.here.insert(prefix, here);
    }

    pub(super) fn remove_here(&mut self, prefix: &EidPrefix) -> Option<Here> {
        let here = self.here.remove(prefix)?;
        self.present[here.range].0 -= 1;
        self.timers.remove(&(here.due, *prefix));
        Some(here)
    }

    pub(super) fn insert_away(&mut self, prefix: EidPrefix, away: Away) {
        self.present[away.range].1 += 1;
        self.timers.insert((away.due, prefix));
        self.away.insert(prefix, away);
    }

    pub(super) fn remove_away(&mut self, prefix: &EidPrefix) -> Option<Away> {
        let away = self.away.remove(prefix)?;
        self.present[away.range].1 -= 1;
        self.timers.remove(&(away.due, *prefix));
        Some(away)
    }

    pub(super) fn reschedule_away(&mut self, prefix: EidPrefix, due: Instant) {
        if let Some(away) = self.away.get_mut(&prefix) {
            self.timers.remove(&(away.due, prefix));
            away.due = due;
            self.timers.insert((due, prefix));
        }
    }

    fn reschedule(&mut self, prefix: EidPrefix, due: Instant) {
        if let Some(here) = self.here.get_mut(&prefix) {
            self.timers.remove(&(here.due, prefix));
            here.due = due;
            self.timers.insert((due, prefix));
        }
    }

    /// The interfaces to look for a host on, the likeliest first.
    fn interfaces(&self, here: &Here) -> Vec<String> {
        let others = self.ranges[here.range].interfaces.iter();
        let others = others.filter(|name| Some(*name) != here.interface.as_ref());
        here.interface.iter().chain(others).cloned().collect()
    }
}

/// How long a host may be silent before it is asked for a sign of life.
fn patience(range: &DynamicRange) -> Duration {
    range.timeout / 3
}

fn untagged(prefix: EidPrefix) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, prefix.prefix())
}

impl ControlPlane {
    /// A host was seen. It is registered if it is in a dynamic-EID range, on one of its interfaces, and was not here (DY-01).
    pub fn handle_host(&mut self, now: Instant, host: &HostSeen) {
        let Some((index, eid)) = self.mobility.range_of(host.address) else { return };
        let range = &self.mobility.ranges[index];
        if host.interface.as_ref().is_some_and(|name| !range.interfaces.contains(name)) {
            return self.count("hosts_on_other_interfaces");
        }
        if self.mobility.sightings.take(now).is_err() {
            return self.count("hosts_ignored_rate_limited");
        }
        let prefix = eid.host_prefix();
        let due = now + patience(range);
        if let Some(here) = self.mobility.here.get_mut(&prefix) {
            here.heard = now;
            if host.interface.is_some() && here.interface != host.interface {
                here.interface.clone_from(&host.interface);
                self.tell_host_here(prefix);
            }
            return self.mobility.reschedule(prefix, due);
        }
        if self.is_at_home(&prefix) && !self.mobility.is_away(&prefix) {
            return;
        }
        // On a link that reaches other sites only a packet to this router tells on which side the host is.
        if range.extended_subnet && host.how != Detection::Data {
            return;
        }
        if !self.mobility.is_away(&prefix) || self.may_move(now, prefix) {
            self.host_arrived(now, index, prefix, host);
        }
    }

    /// Whether a host that was elsewhere may come back: two hosts with one address would have the sites register it in turns.
    fn may_move(&mut self, now: Instant, prefix: EidPrefix) -> bool {
        let until = match self.mobility.moves.note(now, prefix) {
            Move::Free => return true,
            Move::HeldFromNow(until) => {
                self.count("dynamic_eids_held_down");
                self.event(Event::HostHeldDown(prefix));
                until
            }
            Move::Held(until) => until,
        };
        self.count("host_moves_refused");
        if let Some(away) = self.mobility.away.get_mut(&prefix)
            && !std::mem::replace(&mut away.was_refused, true)
        {
            self.mobility.reschedule_away(prefix, until);
        }
        false
    }

    /// A host is gone from where it was.
    pub fn handle_host_gone(&mut self, now: Instant, host: &HostGone) {
        let Some((_, eid)) = self.mobility.range_of(host.address) else { return };
        let prefix = eid.host_prefix();
        let Some(here) = self.mobility.here.get(&prefix) else { return };
        if host.interface.is_none() || here.interface.is_none() || here.interface == host.interface
        {
            self.host_left(now, prefix);
        }
    }

    /// The hosts of dynamic-EID ranges: those that are here, then those that left, each sorted by address.
    pub fn mobility_view(&self, now: Instant) -> Vec<HostView> {
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let rlocs = |prefix: &EidPrefix| -> Vec<IpAddr> {
            let entry = self.cache.get(prefix).map(|entry| entry.mapping.locators());
            entry.unwrap_or_default().iter().map(|locator| locator.address).collect()
        };
        let here = self.mobility.here.iter().map(|(prefix, here)| HostView {
            eid: prefix.prefix().addr(),
            instance_id: prefix.instance_id().get(),
            place: "here".to_owned(),
            since_seconds: seconds(here.since),
            heard_seconds: Some(seconds(here.heard)),
            detected_by: Some(here.how.name().to_owned()),
            interface: here.interface.clone(),
            rlocs: self.rlocs_of(prefix),
            registration: self.registration_of(prefix),
            held_seconds: None,
        });
        let away = self.mobility.away.iter().map(|(prefix, away)| HostView {
            eid: prefix.prefix().addr(),
            instance_id: prefix.instance_id().get(),
            place: "away".to_owned(),
            since_seconds: seconds(away.since),
            heard_seconds: None,
            detected_by: None,
            interface: None,
            rlocs: rlocs(prefix),
            registration: None,
            held_seconds: self
                .mobility
                .moves
                .held_until(now, prefix)
                .map(|until| until.saturating_duration_since(now).as_secs()),
        });
        here.chain(away).collect()
    }

    /// The own RLOCs that a host that is here is reached at.
    fn rlocs_of(&self, prefix: &EidPrefix) -> Vec<IpAddr> {
        let locators = self.own_record(*prefix, None).locators.into_iter();
        let used = locators.filter(|locator| locator.reachable && locator.priority != 255);
        used.filter_map(|locator| locator.address.rloc()).collect()
    }

    /// The next change that the host side is to make.
    pub fn poll_host_change(&mut self) -> Option<HostChange> {
        self.mobility.changes.pop_front()
    }

    pub(super) fn host_arrived(
        &mut self,
        now: Instant,
        range: usize,
        prefix: EidPrefix,
        host: &HostSeen,
    ) {
        let config = &self.mobility.ranges[range];
        if self.mobility.present[range].0 >= config.limit {
            return self.count("dynamic_eids_over_limit");
        }
        let eid = LocalEid { prefix, locator_set: config.locator_set.clone() };
        let due = now + patience(config);
        let here = Here {
            range,
            since: now,
            how: host.how,
            contested: false,
            heard: now,
            interface: host.interface.clone(),
            due,
        };
        self.mobility.remove_away(&prefix);
        self.mobility.insert_here(prefix, here);
        self.count("dynamic_eids_detected");
        self.event(Event::HostArrived { prefix, how: host.how });
        self.tell_host_here(prefix);
        self.set_own_mapping(now, OwnMapping::dynamic(eid));
    }

    /// Whether the host is in an own EID-prefix that is always here.
    fn is_at_home(&self, prefix: &EidPrefix) -> bool {
        self.config.eids.iter().any(|own| own.prefix.covers(prefix))
    }

    /// DY-05: it is withdrawn.
    fn host_left(&mut self, now: Instant, prefix: EidPrefix) {
        if self.mobility.remove_here(&prefix).is_none() {
            return;
        }
        self.count("dynamic_eids_expired");
        self.event(Event::HostLeft(prefix));
        self.mobility.changes.push_back(HostChange::Forget { eid: prefix.first() });
        self.remove_own_mapping(now, &prefix);
    }

    pub(super) fn tell_host_here(&mut self, prefix: EidPrefix) {
        let Some(here) = self.mobility.here.get(&prefix) else { return };
        let interfaces = self.mobility.interfaces(here);
        self.mobility.changes.push_back(HostChange::Here { eid: prefix.first(), interfaces });
    }

    /// Asks silent hosts for a sign of life, and gives up those that were silent for too long; looks after those that are away.
    pub(super) fn run_mobility(&mut self, now: Instant) {
        while let Some(&(due, prefix)) = self.mobility.timers.first() {
            if due > now {
                return;
            }
            self.mobility.timers.pop_first();
            let Some(here) = self.mobility.here.get(&prefix) else {
                self.check_away(now, prefix);
                continue;
            };
            let range = &self.mobility.ranges[here.range];
            if now >= here.heard + range.timeout {
                self.host_left(now, prefix);
                continue;
            }
            let next = (now + patience(range)).min(here.heard + range.timeout);
            let interfaces = self.mobility.interfaces(here);
            self.mobility.changes.push_back(HostChange::Probe { eid: prefix.first(), interfaces });
            self.mobility.reschedule(prefix, next);
        }
    }
}
