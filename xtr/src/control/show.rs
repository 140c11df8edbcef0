//! What the operator sees of the control plane.
use super::ControlPlane;
use super::etr::Registration;
use super::locator::{self, Candidate, Locator, Reachability, Why};
use super::map_cache::{Entry, Mapping, load};
use crate::fib::Verdict;
use crate::view::{
    CountersView, LocatorState, LocatorView, MapCacheEntryView, OwnRegistrationView, PathMtuState,
    RegistrationState, Via,
};
use mapping::eid::EidPrefix;
use mapping::wire::Action;
use std::net::IpAddr;
use std::time::Instant;

impl ControlPlane {
    /// `show map-cache`.
    pub fn map_cache_view(&self, now: Instant) -> Vec<MapCacheEntryView> {
        self.map_cache_part(now, None, usize::MAX).0
    }

    /// At most `most` entries of it; `after` which one to go on, as the part before said.
    pub fn map_cache_part(
        &self,
        now: Instant,
        after: Option<EidPrefix>,
        most: usize,
    ) -> (Vec<MapCacheEntryView>, Option<EidPrefix>) {
        let mut views = Vec::new();
        for (prefix, entry) in self.cache.iter_after(after) {
            views.push(self.entry_view(now, prefix, entry));
            if views.len() >= most {
                return (views, Some(prefix));
            }
        }
        (views, None)
    }

    /// `show locators`: every remote RLOC in use, with the traffic of all entries.
    pub fn locators_view(&self, now: Instant) -> Vec<LocatorView> {
        self.locators
            .iter()
            .map(|(&address, locator)| {
                let mut best = self.petrs.iter().find(|petr| petr.address == address).copied();
                let (mut packets, mut octets) = (0, 0);
                for entry in self.entries_towards(locator) {
                    if let Some(counters) = entry.traffic.get(&address) {
                        let (p, o) = load(counters);
                        (packets, octets) = (packets + p, octets + o);
                    }
                    for candidate in entry.mapping.locators() {
                        if candidate.address == address
                            && best.is_none_or(|best| candidate.priority < best.priority)
                        {
                            best = Some(*candidate);
                        }
                    }
                }
                let nobody = Candidate {
                    address,
                    priority: 255,
                    weight: 0,
                    reachable: true,
                    ordinal: 0,
                    via: locator::Via::Usual,
                };
                let mut view = self.locator_view(now, &best.unwrap_or(nobody), locator.petr);
                view.mappings = locator.users.len() as u64;
                (view.packets, view.octets) = (packets, octets);
                view
            })
            .collect()
    }

    /// What the Map-Servers make of an own mapping: the worst of it.
    pub(super) fn registration_of(&self, prefix: &EidPrefix) -> Option<RegistrationState> {
        let of_it = self.registrations.iter().filter(|known| !known.withdrawal);
        of_it
            .filter(|registration| registration.prefixes.contains(prefix))
            .map(|known| known.state(prefix, self.map_server_address(known).is_some()))
            .min_by_key(|state| *state == RegistrationState::Registered)
    }

    /// `show registrations` on an xTR.
    pub fn registrations_view(&self, now: Instant) -> Vec<OwnRegistrationView> {
        let mut views: Vec<OwnRegistrationView> = Vec::new();
        for registration in self.registrations.iter().filter(|known| !known.withdrawal) {
            let address = self.map_server_address(registration);
            let map_server = self.map_server_name(registration);
            let profile = self.config.map_servers[registration.server].profile.name();
            for prefix in &registration.prefixes {
                views.push(OwnRegistrationView {
                    prefix: prefix.prefix(),
                    instance_id: prefix.instance_id().get(),
                    map_server: map_server.clone(),
                    profile: profile.to_owned(),
                    address,
                    state: registration.state(prefix, address.is_some()),
                    last_acknowledged_seconds: registration
                        .last_acknowledged
                        .map(|at| now.saturating_duration_since(at).as_secs()),
                    next_seconds: registration.next.saturating_duration_since(now).as_secs(),
                    refusals: registration.refusals(prefix),
                    unanswered: registration.unanswered,
                });
            }
        }
        views.sort_by(|one, other| {
            (one.instance_id, one.prefix, &one.map_server).cmp(&(
                other.instance_id,
                other.prefix,
                &other.map_server,
            ))
        });
        views
    }

    /// The control plane's part of `show counters`.
    pub fn counters_view(&self) -> CountersView {
        let mut counters: CountersView =
            self.counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        counters.insert("map_cache_entries".to_owned(), self.cache.len() as u64);
        counters.insert("lookups_outstanding".to_owned(), self.lookups.len() as u64);
        counters.insert("remote_rlocs".to_owned(), self.locators.len() as u64);
        counters
    }

    /// What keeps the control plane from doing its work, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.map_resolvers().is_empty() {
            notes.push(
                "No Map-Resolver can be reached: none has an address of an own family.".to_owned(),
            );
        }
        for registration in self.registrations.iter().filter(|known| !known.withdrawal) {
            let address = self.map_server_address(registration);
            for prefix in &registration.prefixes {
                let state = registration.state(prefix, address.is_some());
                let what = match state {
                    RegistrationState::Registered | RegistrationState::Pending => continue,
                    RegistrationState::Unresolved => "has no address that can be reached.",
                    RegistrationState::Unanswered => {
                        "does not answer: is it running, is there a path to it, and do key, key-id, algorithm and EID-prefix \
                         agree with its site?"
                    }
                    RegistrationState::Refused => "acknowledged the message without this prefix.",
                };
                let server = self.map_server_name(registration);
                notes.push(format!("{prefix} is not registered: Map-Server {server} {what}"));
            }
        }
        notes
    }

    /// As configured.
    fn map_server_name(&self, registration: &Registration) -> String {
        self.config.map_servers[registration.server].endpoint.to_string()
    }

    fn entries_towards<'a>(
        &'a self,
        locator: &'a Locator,
    ) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
        if locator.petr {
            return Box::new(self.cache.iter().map(|(_, entry)| entry));
        }
        Box::new(locator.users.iter().filter_map(|prefix| self.cache.get(prefix)))
    }

    pub(super) fn entry_view(
        &self,
        now: Instant,
        prefix: EidPrefix,
        entry: &Entry,
    ) -> MapCacheEntryView {
        let mut locators: Vec<LocatorView> = entry
            .mapping
            .locators()
            .iter()
            .map(|candidate| self.locator_view(now, candidate, false))
            .collect();
        if entry.to_petr {
            locators.extend(self.petrs.iter().map(|petr| self.locator_view(now, petr, true)));
        }
        for view in &mut locators {
            view.mappings = 1;
            if view.unusable.is_none() && entry.is_said_down(view.address) {
                view.unusable =
                    Some("its site says that it is down: Locator-Status-Bit 0".to_owned());
            }
            if let Some(counters) = entry.traffic.get(&view.address) {
                (view.packets, view.octets) = load(counters);
            }
        }
        let (packets, octets) = entry.traffic_total();
        MapCacheEntryView {
            prefix: prefix.prefix(),
            instance_id: prefix.instance_id().get(),
            uptime_seconds: now.saturating_duration_since(entry.learned).as_secs(),
            expires_seconds: Some(entry.expires.saturating_duration_since(now).as_secs()),
            via: match entry.mapping {
                Mapping::Locators(_) => Via::MapReply,
                Mapping::Negative(_) => Via::Negative,
            },
            state: state_name(&entry.mapping).to_owned(),
            forwarding: forwarding_name(entry),
            secured: entry.secured,
            map_version: entry.version.get(),
            packets,
            octets,
            locators,
        }
    }

    pub(super) fn locator_view(
        &self,
        now: Instant,
        candidate: &Candidate,
        petr: bool,
    ) -> LocatorView {
        let address = candidate.address;
        let known = self.locators.get(&address);
        let state = self.locator_state(candidate, known);
        LocatorView {
            address,
            state,
            priority: candidate.priority,
            weight: candidate.weight,
            since_seconds: known
                .map_or(0, |locator| now.saturating_duration_since(locator.since).as_secs()),
            rtt_micros: known
                .and_then(|locator| locator.round_trip)
                .map(|rtt| u64::try_from(rtt.smoothed().as_micros()).unwrap_or(u64::MAX)),
            probes_sent: known.map_or(0, |locator| locator.probes.0),
            probes_answered: known.map_or(0, |locator| locator.probes.1),
            probe_loss_percent: known.map_or(0, |locator| locator.loss.percent()),
            last_probe_reply_seconds: known
                .and_then(|locator| locator.last_reply)
                .map(|at| now.saturating_duration_since(at).as_secs()),
            packets: 0,
            octets: 0,
            mtu: known.map_or(crate::config::DEFAULT_MTU, Locator::mtu),
            path_mtu: known.map_or(PathMtuState::Assumed, Locator::path_mtu_state),
            mappings: 0,
            petr,
            unusable: self.unusable(state, candidate.priority, known),
        }
    }

    pub(super) fn unusable(
        &self,
        state: LocatorState,
        priority: u8,
        known: Option<&Locator>,
    ) -> Option<String> {
        match known.map(|locator| locator.reachability) {
            Some(Reachability::Recovering(answers)) if state == LocatorState::Recovering => {
                let needed = self.config.probe.map_or(1, |probe| probe.hold_down);
                Some(format!("answered {answers} of {needed} RLOC-probes since it was down"))
            }
            Some(Reachability::Down(why)) => why_unusable(state, priority, why),
            _ => why_unusable(state, priority, Why::Unanswered),
        }
    }

    fn locator_state(&self, candidate: &Candidate, known: Option<&Locator>) -> LocatorState {
        let address: IpAddr = candidate.address;
        if self.own.contains(address) {
            LocatorState::Own
        } else if self.own.for_family(address).is_none() {
            LocatorState::NoFamily
        } else if !candidate.reachable {
            LocatorState::Unreachable
        } else {
            known.map_or(LocatorState::Unprobed, Locator::state)
        }
    }
}

fn why_unusable(state: LocatorState, priority: u8, why: Why) -> Option<String> {
    let reason = match state {
        LocatorState::Up | LocatorState::Unprobed | LocatorState::Recovering if priority == 255 => {
            "priority 255: not for unicast"
        }
        LocatorState::Up | LocatorState::Unprobed | LocatorState::Recovering => return None,
        LocatorState::Down => match why {
            Why::Unanswered => "RLOC-probes go unanswered",
            Why::Unreachable => "ICMP says that it cannot be reached",
            Why::NotLisp => "ICMP says that nobody there takes LISP packets",
            Why::NotEchoed => {
                "it sends packets, but does not echo nonces: used only if nothing else is left"
            }
        },
        LocatorState::NoRoute => "the underlay has no route to it",
        LocatorState::Unreachable => "the mapping says R=0",
        LocatorState::NoFamily => "no own RLOC of its address family",
        LocatorState::Own => "it is an own address",
    };
    Some(reason.to_owned())
}

fn state_name(mapping: &Mapping) -> &'static str {
    match mapping {
        Mapping::Locators(_) => "complete",
        Mapping::Negative(Action::NativelyForward) => "forward-native",
        Mapping::Negative(Action::SendMapRequest) => "send-map-request",
        Mapping::Negative(Action::Drop) => "drop",
        Mapping::Negative(Action::DropPolicyDenied) => "drop-policy-denied",
        Mapping::Negative(Action::DropAuthFailure) => "drop-auth-failure",
        Mapping::Negative(Action::NoAction | Action::Unassigned(_)) => "no-action",
    }
}

fn forwarding_name(entry: &Entry) -> String {
    match &entry.verdict {
        Verdict::Encapsulate(_) if entry.to_petr => "encapsulate-to-petr".to_owned(),
        Verdict::Encapsulate(_) => "encapsulate".to_owned(),
        Verdict::Native => "native".to_owned(),
        Verdict::Miss => "resolve".to_owned(),
        Verdict::Drop(reason) => format!("drop:{}", reason.name()),
    }
}
