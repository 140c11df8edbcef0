//! Path probes: when they are sent, to whom, and what their answers change ([`super::path_mtu`] decides).
use super::limit::TokenBucket;
use super::locator::Standing;
use super::path_mtu::{Discovery, Outcome, Pace};
use super::round_trip::RoundTrip;
use super::{ControlPlane, Event};
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::{CONTROL_PORT, Message};
use rand::RngExt;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Path probes sent per second in total.
const PATH_PROBES_PER_SECOND: u32 = 200;
/// The first probe goes within this time of the RLOC's first answer, spread.
const FIRST_WITHIN: Duration = Duration::from_millis(200);
/// Nonces remembered per RLOC: as many as probes of one size are sent.
const MAX_OUTSTANDING: usize = 3;

/// Path probes under way.
#[derive(Debug)]
pub(super) struct PathProbes {
    timers: BTreeSet<(Instant, IpAddr)>,
    nonces: HashMap<u64, (IpAddr, u16)>,
    bucket: TokenBucket,
    /// None before: the bucket was empty.
    blocked: Option<Instant>,
    transmits: VecDeque<Transmit>,
}

impl PathProbes {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            timers: BTreeSet::new(),
            nonces: HashMap::new(),
            bucket: TokenBucket::new(now, PATH_PROBES_PER_SECOND),
            blocked: None,
            transmits: VecDeque::new(),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let first = self.timers.first()?.0;
        Some(self.blocked.map_or(first, |blocked| first.max(blocked)))
    }
}

impl ControlPlane {
    /// The next path probe: to be sent so that nobody fragments it, not even our own host.
    pub fn poll_path_probe(&mut self) -> Option<Transmit> {
        self.path_probes.transmits.pop_front()
    }

    /// A router reported this path MTU, octets, and the data plane believed it (MT-11).
    pub fn set_reported_mtu(&mut self, now: Instant, rloc: IpAddr, mtu: u16) {
        let locator = self.locators.get_mut(&rloc);
        let Some(discovery) = locator.and_then(|locator| locator.discovery.as_mut()) else {
            return;
        };
        let before = discovery.due();
        if discovery.reported(now, mtu) {
            self.reschedule_path_probe(rloc, Some(before));
            self.path_mtu_changed(now, rloc);
        }
    }

    /// An RLOC answers (again).
    pub(super) fn start_path_discovery(&mut self, now: Instant, rloc: IpAddr) {
        if !self.config.path_mtu.probe || self.config.probe.is_none() {
            return;
        }
        let due = now + self.rng.random_range(Duration::ZERO..FIRST_WITHIN);
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        let before = locator.discovery.as_ref().map(Discovery::due);
        let ceiling = locator.ceiling();
        locator
            .discovery
            .get_or_insert_with(|| Discovery::new(rloc.is_ipv6(), ceiling, due))
            .resume(due);
        self.reschedule_path_probe(rloc, before);
    }

    /// Forgets timer and nonces of an RLOC.
    pub(super) fn stop_path_discovery(&mut self, rloc: IpAddr) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if let Some(discovery) = locator.discovery.take() {
            self.path_probes.timers.remove(&(discovery.due(), rloc));
        }
        for nonce in locator.path_nonces.drain(..) {
            self.path_probes.nonces.remove(&nonce);
        }
    }

    /// The largest packet that our own side sends to an RLOC changed.
    pub(super) fn path_ceiling_changed(&mut self, now: Instant, rloc: IpAddr) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        let ceiling = locator.ceiling();
        let Some(discovery) = &mut locator.discovery else { return };
        let before = discovery.due();
        discovery.set_ceiling(now, ceiling);
        self.reschedule_path_probe(rloc, Some(before));
    }

    /// Sends the path probes that are due, as far as the total rate allows.
    pub(super) fn run_path_probes(&mut self, now: Instant) {
        self.path_probes.blocked = None;
        while let Some(&(due, rloc)) = self.path_probes.timers.first() {
            if due > now {
                return;
            }
            if let Err(later) = self.path_probes.bucket.take(now) {
                self.path_probes.blocked = Some(later);
                return;
            }
            self.path_probes.timers.pop_first();
            self.path_probe_due(now, rloc);
        }
    }

    fn path_probe_due(&mut self, now: Instant, rloc: IpAddr) {
        let Some(pace) = self.pace(rloc) else { return };
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        let usable = locator.standing() != Standing::Unusable;
        let Some(discovery) = &mut locator.discovery else { return };
        let outcome = if usable {
            discovery.handle_timeout(now, pace)
        } else {
            discovery.pause(now, pace);
            Outcome::default()
        };
        self.reschedule_path_probe(rloc, None);
        if let Some(size) = outcome.probe {
            self.send_path_probe(rloc, size);
        }
        if outcome.changed {
            self.path_mtu_changed(now, rloc);
        }
    }

    /// Whether the reply was to a path probe; if so, it is done with: a mapping is not what was asked for.
    pub(super) fn handle_path_reply(&mut self, now: Instant, nonce: u64) -> bool {
        let Some((rloc, size)) = self.path_probes.nonces.remove(&nonce) else { return false };
        self.count("path_probe_replies_received");
        let Some(pace) = self.pace(rloc) else { return true };
        let Some(locator) = self.locators.get_mut(&rloc) else { return true };
        locator.path_nonces.retain(|&known| known != nonce);
        let Some(discovery) = &mut locator.discovery else { return true };
        let before = discovery.due();
        let outcome = discovery.answered(now, size, pace);
        self.reschedule_path_probe(rloc, Some(before));
        if outcome.changed {
            self.path_mtu_changed(now, rloc);
        }
        true
    }

    fn pace(&mut self, rloc: IpAddr) -> Option<Pace> {
        let interval = self.config.probe?.idle_interval * self.rng.random_range(90..=110) / 100;
        let round_trip = self.locators.get(&rloc)?.round_trip;
        let round_trip = round_trip.map(RoundTrip::smoothed).unwrap_or_default();
        Some(Pace { round_trip, interval })
    }

    fn reschedule_path_probe(&mut self, rloc: IpAddr, before: Option<Instant>) {
        if let Some(before) = before {
            self.path_probes.timers.remove(&(before, rloc));
        }
        let discovery = self.locators.get(&rloc).and_then(|locator| locator.discovery.as_ref());
        if let Some(discovery) = discovery {
            self.path_probes.timers.insert((discovery.due(), rloc));
        }
    }

    /// A Map-Request with octets after it, in an outer packet of `size` octets (CW-06 allows it: it is how the path MTU becomes known).
    fn send_path_probe(&mut self, rloc: IpAddr, size: u16) {
        let (Some(source), Some(prefix)) = (self.source_towards(rloc), self.probed_prefix(rloc))
        else {
            return;
        };
        let nonce = self.next_nonce();
        let mut request = self.map_request(nonce, prefix);
        request.probe = true;
        let mut payload = Message::MapRequest(request).to_vec();
        let headers = if rloc.is_ipv4() { 20 + 8 } else { 40 + 8 };
        payload.resize(usize::from(size).saturating_sub(headers).max(payload.len()), 0);
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if locator.path_nonces.len() >= MAX_OUTSTANDING {
            self.path_probes.nonces.remove(&locator.path_nonces.remove(0));
        }
        locator.path_nonces.push(nonce);
        self.path_probes.nonces.insert(nonce, (rloc, size));
        self.count("path_probes_sent");
        self.path_probes.transmits.push_back(Transmit {
            source,
            source_port: SourcePort::Ephemeral,
            destination: SocketAddr::new(rloc, CONTROL_PORT),
            payload,
        });
    }

    fn path_mtu_changed(&mut self, now: Instant, rloc: IpAddr) {
        let Some(mtu) = self.locators.get(&rloc).map(|locator| locator.mtu()) else { return };
        self.event(Event::PathMtu { rloc, mtu });
        self.locator_changed(now, rloc);
    }
}
