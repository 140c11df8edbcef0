//! RLOC-probing: one probe per RLOC serves every mapping that names it (RFC 9301 §7.1).
//!
//! ```text
//!               as many tries as configured, unanswered             answered
//! Unprobed, Up ---------------------------------------> Down -------------------> Recovering ---> Up
//!    |     ^                                            |  ^                           |  hold-down answers in a row
//!    |     +---- answered after all: late, or after ----+  |                           |
//!    |           what only a router said                   +------- unanswered --------+
//!    +---------- a router said so ------------------------>
//! ```
//!
//! On a path that loses probes all the time it takes more tries (`loss`).
//!
//! A locator that recovers carries what no other locator can carry, so that an outage of all ends with the first answer, and a path that
//! comes and goes moves nothing that goes well elsewhere.
//!
//! Locators that carry traffic are probed at one interval, the others at a longer one: the data plane notes on every locator when it
//! last sent to it, once a second.
use super::locator::{Candidate, Locator, Path, Probe, Reachability, Why};
use super::map_cache::Mapping;
use super::probe_schedule::Class;
use super::round_trip::RoundTrip;
use super::ways::Came;
use super::{ControlPlane, Event};
use crate::config::ProbeConfig;
use crate::view::LocatorState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mapping::discard::Discard;
use mapping::eid::{EidPrefix, InstanceId, MapVersion};
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{CONTROL_PORT, EidRecord, MapReply, Message};
use rand::RngExt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A new RLOC is probed within this time, spread so that a reply with many locators makes no burst.
const FIRST_PROBE_WITHIN: Duration = Duration::from_millis(500);
/// How often it is looked at which locators carry traffic, within these bounds: half the interval.
const WATCH: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A locator counts as carrying traffic for so long after it was last seen to.
const ACTIVE_FOR: Duration = Duration::from_secs(10);
/// One that is down is probed again after this part of the time that it has been down (PB-11).
const PATIENCE: u32 = 8;
/// For so long, one whose host refuses LISP packets is asked this often: a restart takes it less than a second.
const RESTARTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(250));
/// Nonces remembered per RLOC: more than answers can be under way.
const MAX_OUTSTANDING: usize = 12;

impl ControlPlane {
    pub(super) fn start_probing(&mut self, now: Instant, rloc: IpAddr) {
        if self.config.probe.is_some() && !self.is_beyond_nat(rloc) {
            let delay = self.rng.random_range(Duration::ZERO..FIRST_PROBE_WITHIN);
            self.schedule_probe(rloc, Class::Background, now + delay);
        }
    }

    /// Forgets timer and nonces of an RLOC.
    pub(super) fn stop_probing(&mut self, rloc: IpAddr) {
        self.stop_path_discovery(rloc);
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if let Some(due) = locator.due.take() {
            self.probes.remove(due, rloc);
        }
        for probe in locator.outstanding.drain(..) {
            self.probe_nonces.remove(&probe.nonce);
        }
    }

    /// What kept a locator from answering may be gone: no need to wait any longer.
    pub(super) fn hasten_probe(&mut self, now: Instant, rloc: IpAddr) {
        let Some(config) = self.config.probe else { return };
        let Some(locator) = self.locators.get_mut(&rloc).filter(|locator| locator.is_down()) else {
            return;
        };
        locator.patience_from = now;
        let within = FIRST_PROBE_WITHIN.min(config.interval);
        let delay = self.rng.random_range(Duration::ZERO..within);
        self.schedule_probe(rloc, Class::Guard, now + delay);
    }

    /// Something says that a locator in use may be gone: it is probed at once.
    pub(super) fn verify_locator(&mut self, now: Instant, rloc: IpAddr) {
        let in_use = self.locators.get(&rloc).is_some_and(|locator| !locator.is_down());
        if self.config.probe.is_some() && in_use {
            self.schedule_probe(rloc, Class::Guard, now);
        }
    }

    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.probes.next_timeout()
    }

    /// Sends the probes that are due, as far as the total rates allow.
    pub(super) fn run_probes(&mut self, now: Instant) {
        self.watch_use(now);
        while let Some(rloc) = self.probes.pop_due(now) {
            self.probe_due(now, rloc);
        }
    }

    /// When it is looked at next which locators carry traffic.
    pub(super) fn next_watch(&self) -> Option<Instant> {
        let config = self.config.probe?;
        let differs = config.interval < config.idle_interval;
        (differs && !self.locators.is_empty()).then_some(self.watch_due)
    }

    /// Finds out which locators carry traffic now; those that did not before are probed soon.
    fn watch_use(&mut self, now: Instant) {
        let Some(config) = self.config.probe else { return };
        if self.next_watch().is_none_or(|due| due > now) {
            return;
        }
        let every = (config.interval / 2).clamp(WATCH.0, WATCH.1);
        self.watch_due = now + every;
        let mut awake = Vec::new();
        for (&rloc, locator) in &mut self.locators {
            let used = locator.used.load(Ordering::Relaxed);
            if std::mem::replace(&mut locator.used_seen, used) == used {
                continue;
            }
            if !locator.is_active(now) {
                awake.push(rloc);
            }
            locator.active_until = Some(now + ACTIVE_FOR);
        }
        for rloc in awake {
            self.guard(now, config, rloc);
        }
    }

    /// A locator began to carry traffic.
    fn guard(&mut self, now: Instant, config: ProbeConfig, rloc: IpAddr) {
        let within = match self.probes.is_crowded(Class::Guard) {
            true => self.probes.interval(Class::Guard, config.interval),
            false => FIRST_PROBE_WITHIN.min(config.interval),
        };
        let Some(locator) = self.locators.get(&rloc) else { return };
        let Some((Class::Background, due)) = locator.due else { return };
        if !locator.is_down() {
            let soon = now + self.rng.random_range(Duration::ZERO..within);
            self.schedule_probe(rloc, Class::Guard, due.min(soon));
        }
    }

    /// PB-10, PB-11.
    fn probe_due(&mut self, now: Instant, rloc: IpAddr) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        locator.due = None;
        let Some(config) = self.config.probe else { return self.hint_is_over(now, rloc) };
        if !self.own.can_send(rloc) {
            // Nothing can be learned; `hasten_probe` comes when that changes.
            let wait = self.jittered(config.interval);
            return self.schedule_probe(rloc, Class::Background, now + wait);
        }
        if locator.tries >= locator.loss.tries(config.tries) && !locator.is_down() {
            if !self.take_other_way(now, rloc) {
                return self.give_up(now, rloc, Why::Unanswered);
            }
            return self.schedule_after_answer(now, config, rloc, Reachability::Up, now);
        }
        let before = locator.tries;
        locator.tries = before.saturating_add(1);
        if before > 0 && matches!(locator.reachability, Reachability::Recovering(_)) {
            locator.reachability = Reachability::Recovering(0);
        }
        let class = locator.class(now, config);
        let wait = if locator.may_be_restarting(now) {
            RESTARTS.1.min(config.interval)
        } else if locator.is_down() {
            let down_for = now.saturating_duration_since(locator.patience_from);
            let wait = (down_for / PATIENCE).clamp(config.interval, config.idle_interval);
            self.jittered(self.probes.interval(Class::Background, wait))
        } else {
            let least = timers::PROBE_RETRY.min(config.interval / 2);
            let unknown = timers::PROBE_RETRY.min(config.interval);
            locator.round_trip.map_or(unknown, |rtt| rtt.timeout().max(least))
        };
        self.schedule_probe(rloc, class, now + wait);
        if let Some(locator) = self.locators.get_mut(&rloc) {
            locator.choose_asked(before > 0);
        }
        for source in self.probe_sources(rloc, before > 0) {
            self.send_probe(now, rloc, source);
        }
    }

    /// Traffic leaves a locator; probes show when it may come back.
    pub(super) fn give_up(&mut self, now: Instant, rloc: IpAddr, why: Why) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        locator.set_reachability(now, Reachability::Down(why));
        (locator.patience_from, locator.tries) = (now, 0);
        let (class, wait) = match (why, self.config.probe) {
            (Why::Unanswered, Some(config)) => (Class::Background, self.jittered(config.interval)),
            // A hint: a probe overrules it (PB-14, PB-15).
            (_, Some(_)) => (Class::Guard, Duration::ZERO),
            (_, None) => (Class::Background, super::hint::HOLDS_FOR),
        };
        self.schedule_probe(rloc, class, now + wait);
        self.event(Event::LocatorDown(rloc));
        self.locator_changed(now, rloc);
    }

    pub(super) fn schedule_probe(&mut self, rloc: IpAddr, class: Class, due: Instant) {
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if let Some(before) = locator.due.replace((class, due)) {
            self.probes.remove(before, rloc);
        }
        self.probes.insert((class, due), rloc);
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        let range = 100 - timers::PROBE_JITTER_PERCENT..=100 + timers::PROBE_JITTER_PERCENT;
        interval * self.rng.random_range(range) / 100
    }

    /// PB-01, PB-03.
    fn send_probe(&mut self, now: Instant, rloc: IpAddr, source: IpAddr) {
        let Some(prefix) = self.probed_prefix(rloc) else { return };
        let nonce = self.next_nonce();
        let mut request = self.map_request_from(source, nonce, prefix);
        request.probe = true;
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        locator.asked = Some(prefix);
        if locator.outstanding.len() >= MAX_OUTSTANDING {
            let oldest = locator.outstanding.remove(0);
            self.probe_nonces.remove(&oldest.nonce);
        }
        locator.outstanding.push(Probe { nonce, sent: now, source, prefix });
        locator.probes.0 += 1;
        self.probe_nonces.insert(nonce, rloc);
        self.count("probes_sent");
        let payload = Message::MapRequest(request).to_vec();
        self.transmit(source, SourcePort::Control, SocketAddr::new(rloc, CONTROL_PORT), payload);
    }

    /// The cached EID-prefix to probe an RLOC with; the default prefix for a PETR.
    pub(super) fn probed_prefix(&self, rloc: IpAddr) -> Option<EidPrefix> {
        let locator = self.locators.get(&rloc)?;
        if let Some(first) = locator.users.first() {
            return locator.asked.filter(|asked| locator.users.contains(asked)).or(Some(*first));
        }
        let mut own = self.database.iter().map(|(prefix, _)| prefix).peekable();
        let instance_id = own.peek().map_or(InstanceId::DEFAULT, EidPrefix::instance_id);
        let ipv6_only = own.peek().is_some() && own.all(|own| matches!(own.prefix(), IpNet::V6(_)));
        let everything =
            if ipv6_only { IpNet::V6(Ipv6Net::default()) } else { IpNet::V4(Ipv4Net::default()) };
        locator.petr.then(|| EidPrefix::new(instance_id, everything))
    }

    /// RP-18, PB-08, PB-12.
    pub(super) fn handle_probe_reply(&mut self, now: Instant, from: IpAddr, reply: &MapReply) {
        let Some(&probed) = self.probe_nonces.get(&reply.nonce) else {
            return self.discard(Discard::NonceUnknown);
        };
        if reply.records.iter().any(|record| !record.authoritative) {
            return self.discard(Discard::ProbeNotAuthoritative);
        }
        self.count("probe_replies_received");
        let probe = self.locators.get(&probed).and_then(|locator| {
            locator.outstanding.iter().find(|probe| probe.nonce == reply.nonce).copied()
        });
        self.forget_probe(probed, reply.nonce);
        let answering = reply
            .records
            .iter()
            .flat_map(EidRecord::usable_locators)
            .find(|(_, locator)| locator.probed)
            .map_or(from, |(address, _)| address);
        if !self.locators.contains_key(&answering) {
            return self.discard(Discard::ProbeUnknownLocator);
        }
        let probe_of_it = probe.filter(|_| answering == probed);
        if let (Some(probe), Some(config)) = (probe_of_it, self.config.probe)
            && self.note_way(now, config, probed, probe.source) == Came::Elsewhere
        {
            if let Some(locator) = self.locators.get_mut(&probed) {
                locator.probes.1 += 1;
            }
        } else {
            self.locator_answered(now, answering, probe_of_it.map(|probe| probe.sent));
        }
        self.note_echo_offer(now, reply);
        let asked = probe.map(|probe| probe.prefix);
        for record in &reply.records {
            if record.eid.prefix().is_some() && record.eid.prefix() == asked {
                self.apply_probed_record(now, record);
            }
        }
    }

    /// What an answer says of the RLOC; then a new interval begins. `sent`: when its probe left.
    fn locator_answered(&mut self, now: Instant, rloc: IpAddr, sent: Option<Instant>) {
        let Some(config) = self.config.probe else { return };
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        let was = locator.reachability;
        if !locator.is_down() {
            locator.loss.answered(locator.tries);
        }
        let is = locator.after_answer(config, sent);
        locator.set_reachability(now, is);
        (locator.tries, locator.last_reply) = (0, Some(now));
        locator.probes.1 += 1;
        if let Some(sample) = sent.map(|sent| now.saturating_duration_since(sent)) {
            match &mut locator.round_trip {
                Some(round_trip) => round_trip.add(sample),
                None => locator.round_trip = Some(RoundTrip::first(sample)),
            }
        }
        if is == Reachability::Up && matches!(was, Reachability::Down(_)) {
            locator.doubted_until = Some(now + super::hint::DOUBTED_FOR);
        }
        self.schedule_after_answer(now, config, rloc, was, sent.unwrap_or(now));
        if is == Reachability::Up && was != Reachability::Up {
            self.event(Event::LocatorUp(rloc));
            self.start_path_discovery(now, rloc);
        }
        if is != was && was != Reachability::Unprobed {
            self.locator_changed(now, rloc);
        }
    }

    fn schedule_after_answer(
        &mut self,
        now: Instant,
        config: ProbeConfig,
        rloc: IpAddr,
        was: Reachability,
        sent: Instant,
    ) {
        let Some(locator) = self.locators.get(&rloc) else { return };
        let class = locator.class(now, config);
        let wanted = match class {
            Class::Guard => config.interval,
            Class::Background => config.idle_interval,
        };
        let interval = self.probes.interval(class, wanted);
        let wait = if was == Reachability::Unprobed && self.probes.is_crowded(class) {
            self.rng.random_range(interval / 10..interval)
        } else {
            self.jittered(interval)
        };
        self.schedule_probe(rloc, class, (sent + wait).max(now));
    }

    fn forget_probe(&mut self, rloc: IpAddr, nonce: u64) {
        self.probe_nonces.remove(&nonce);
        if let Some(locator) = self.locators.get_mut(&rloc) {
            locator.outstanding.retain(|probe| probe.nonce != nonce);
        }
    }

    /// What an ETR says of the probed prefix updates the entry's locators, not its life. An answer that leaves out cached locators
    /// is the view of one ETR of several, one with an older version than the cached one is behind, and a PETR's answer about the default
    /// prefix is no mapping at all: all these change nothing.
    fn apply_probed_record(&mut self, now: Instant, record: &EidRecord) {
        let Some(prefix) = record.eid.prefix() else { return };
        let Some(entry) = self.cache.get(&prefix) else { return };
        if entry.secured {
            return; // What was proved is not changed by what anybody on the way can say.
        }
        let Mapping::Locators(cached) = &entry.mapping else { return };
        let reported = Mapping::from_record(record, &self.own);
        let still_has =
            |known: &Candidate| reported.locators().iter().any(|new| new.address == known.address);
        if record.ttl_minutes == 0 || !cached.iter().all(still_has) {
            return;
        }
        let version = MapVersion::from_bits(record.map_version);
        if entry.version.is_newer_than(version) {
            return;
        }
        let is_version_news = entry.version.is_null() || version.is_newer_than(entry.version);
        if reported != entry.mapping {
            let expires = entry.expires;
            self.install_entry(now, prefix, reported, expires);
        }
        if is_version_news {
            self.note_version(now, prefix, record.map_version);
        }
    }
}

impl Locator {
    /// Whether its host is there, and its tunnel router only gone for a moment, perhaps.
    fn may_be_restarting(&self, now: Instant) -> bool {
        self.reachability == Reachability::Down(Why::NotLisp)
            && now.saturating_duration_since(self.patience_from) < RESTARTS.0
    }

    /// The operator's words for it.
    pub(super) const fn state(&self) -> LocatorState {
        match (self.path, self.reachability) {
            (Path::None, _) => LocatorState::NoRoute,
            (_, Reachability::Up) => LocatorState::Up,
            (_, Reachability::Unprobed) => LocatorState::Unprobed,
            (_, Reachability::Recovering(_)) => LocatorState::Recovering,
            (_, Reachability::Down(_)) => LocatorState::Down,
        }
    }

    /// Changes what is known of it.
    pub(super) fn set_reachability(&mut self, now: Instant, reachability: Reachability) {
        let before = self.state();
        self.reachability = reachability;
        if self.state() != before {
            self.since = now;
        }
    }

    /// What it is once a probe sent at `sent` was answered.
    fn after_answer(&self, config: ProbeConfig, sent: Option<Instant>) -> Reachability {
        let answers = match self.reachability {
            Reachability::Unprobed | Reachability::Up => return Reachability::Up,
            // It was slow, not away.
            Reachability::Down(Why::Unanswered) if sent.is_some_and(|at| at < self.since) => {
                return Reachability::Up;
            }
            // The hint was wrong, or what it told of is over already.
            Reachability::Down(Why::Unreachable | Why::NotLisp | Why::NotEchoed)
                if self.tries <= config.tries =>
            {
                return Reachability::Up;
            }
            Reachability::Down(_) => 1,
            Reachability::Recovering(answers) => answers + 1,
        };
        match answers >= config.hold_down {
            true => Reachability::Up,
            false => Reachability::Recovering(answers),
        }
    }

    fn class(&self, now: Instant, config: ProbeConfig) -> Class {
        let guarded = match self.reachability {
            Reachability::Recovering(_) => true,
            Reachability::Down(_) => false,
            Reachability::Unprobed | Reachability::Up => {
                self.is_active(now) || config.interval >= config.idle_interval
            }
        };
        if guarded { Class::Guard } else { Class::Background }
    }

    /// Chooses the EID-prefix of the next probe: the same as before, or another one.
    fn choose_asked(&mut self, another: bool) {
        let Some(asked) = self.asked.filter(|_| another) else { return };
        let after = (Bound::Excluded(asked), Bound::Unbounded);
        self.asked = self.users.range(after).next().or(self.users.first()).copied();
    }
}
