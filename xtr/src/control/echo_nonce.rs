//! Echo-noncing: the data plane's own proof that a locator can be reached, and reaches us (RFC 9300 §10.1).
//!
//! Now and then a locator whose ETR said that it echoes nonces (E=1 in a Map-Reply) is requested to. If packets keep coming from it
//! without the echo, it is probed, and the answer decides (the RFC lets other algorithms override). Without RLOC-probing it is
//! used for a while only where no other locator is left. No packets at all say nothing.
use super::locator::Why;
use super::{ControlPlane, Event};
use crate::config::Role;
use crate::marks::{Echo, Nonces};
use mapping::timers;
use mapping::wire::MapReply;
use rand::RngExt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first request after an ETR said that it echoes comes within this time.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Requests under way at a time.
const MOST_REQUESTS: usize = 1024;

/// A locator in the trusted core.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) nonces: Arc<Nonces>,
    /// Its ETR said E=1 (DH-25).
    capable: bool,
    phase: Phase,
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    /// In Echo-Nonce-request state since then, with this nonce.
    Requesting(Instant, u32),
}

impl ControlPlane {
    /// Whether Map-Replies to this RLOC say E=1 (RP-16): only where what it then sends is heeded.
    pub(super) fn offers_echo(&self, rloc: IpAddr) -> bool {
        let offers = |trust: &super::trust::Trust| trust.core.echo_nonce && trust.covers(rloc);
        self.trust.as_deref().is_some_and(offers)
    }

    /// What a Map-Reply says of the ETR that sent it: of its own locators (L=1) and of the one that was probed (DH-25).
    pub(super) fn note_echo_offer(&mut self, now: Instant, reply: &MapReply) {
        if !self.requests_echoes() {
            return;
        }
        let local = reply.records.iter().flat_map(|record| &record.locators);
        for locator in local.filter(|locator| locator.local || locator.probed) {
            if let Some(rloc) = locator.address.rloc() {
                self.set_echo_offer(now, rloc, reply.echo_nonce);
            }
        }
    }

    /// Only a node that is ITR and ETR can (RFC 9300 §10.1); a PITR never sets the E-bit (PI-12).
    fn requests_echoes(&self) -> bool {
        let on = self.trust.as_ref().is_some_and(|trust| trust.core.echo_nonce);
        on && self.config.role == Role::Xtr
    }

    fn set_echo_offer(&mut self, now: Instant, rloc: IpAddr, capable: bool) {
        let Some(peer) = self.locators.get_mut(&rloc).and_then(|l| l.peer.as_mut()) else { return };
        let was_capable = std::mem::replace(&mut peer.capable, capable);
        if capable && !was_capable && peer.phase == Phase::Idle {
            let delay = self.rng.random_range(Duration::ZERO..FIRST_WITHIN);
            self.schedule_echo(rloc, now + delay);
        }
    }

    /// Forgets the timer and the nonce of a locator.
    pub(super) fn stop_echoes(&mut self, rloc: IpAddr) {
        let Some(trust) = &mut self.trust else { return };
        let Some(peer) = self.locators.get_mut(&rloc).and_then(|l| l.peer.as_mut()) else { return };
        trust.peers_changed = true;
        if let Some(due) = peer.due.take() {
            trust.echo_timers.remove(&(due, rloc));
        }
        if let Phase::Requesting(_, nonce) = peer.phase {
            trust.nonces.remove(&nonce);
            trust.changed = true;
        }
    }

    pub(super) fn run_echo_nonces(&mut self, now: Instant) {
        while let Some((due, rloc)) =
            self.trust.as_ref().and_then(|trust| trust.echo_timers.first().copied())
        {
            if due > now {
                return;
            }
            if let Some(trust) = &mut self.trust {
                trust.echo_timers.pop_first();
            }
            self.echo_due(now, rloc);
        }
    }

    fn echo_due(&mut self, now: Instant, rloc: IpAddr) {
        let Some(peer) = self.locators.get_mut(&rloc).and_then(|l| l.peer.as_mut()) else { return };
        peer.due = None;
        match peer.phase {
            Phase::Idle if peer.capable => self.request_echo(now, rloc),
            Phase::Idle => {}
            Phase::Requesting(since, nonce) => {
                let state = peer.nonces.state();
                if state == Echo::Awaited
                    && now < since + timers::ECHO_NONCE_PATIENCE
                    && peer.capable
                {
                    return self.schedule_echo(rloc, now + timers::ECHO_NONCE_CHECK);
                }
                peer.nonces.cancel();
                peer.phase = Phase::Idle;
                if let Some(trust) = &mut self.trust {
                    trust.nonces.remove(&nonce);
                    trust.changed = true;
                }
                match state {
                    Echo::Missing => self.echo_missing(now, rloc),
                    Echo::Received => {
                        self.count("echo_nonces_received");
                        self.schedule_next_request(now, rloc);
                    }
                    Echo::Awaited => self.schedule_next_request(now, rloc),
                }
            }
        }
    }

    /// DH-13: random, and no other locator has the same.
    fn request_echo(&mut self, now: Instant, rloc: IpAddr) {
        let Some(trust) = &mut self.trust else { return };
        let Some(peer) = self.locators.get_mut(&rloc).and_then(|l| l.peer.as_mut()) else { return };
        if trust.nonces.len() >= MOST_REQUESTS {
            return self.schedule_echo(rloc, now + timers::ECHO_NONCE_CHECK);
        }
        let mut nonce = self.rng.random_range(0..1 << 24);
        while trust.nonces.contains_key(&nonce) {
            nonce = self.rng.random_range(0..1 << 24);
        }
        trust.nonces.insert(nonce, Arc::clone(&peer.nonces));
        trust.changed = true;
        peer.nonces.request(nonce);
        peer.phase = Phase::Requesting(now, nonce);
        self.count("echo_nonces_requested");
        self.schedule_echo(rloc, now + timers::ECHO_NONCE_CHECK);
    }

    /// DH-26.
    fn echo_missing(&mut self, now: Instant, rloc: IpAddr) {
        self.count("echo_nonces_missing");
        self.event(Event::EchoMissing(rloc));
        if self.config.probe.is_some() {
            self.schedule_next_request(now, rloc);
            self.verify_locator(now, rloc);
        } else {
            // As soon as it is used again.
            self.schedule_echo(rloc, now + super::hint::HOLDS_FOR);
            self.give_up(now, rloc, Why::NotEchoed);
        }
    }

    fn schedule_next_request(&mut self, now: Instant, rloc: IpAddr) {
        let percent = self
            .rng
            .random_range(100 - timers::PROBE_JITTER_PERCENT..=100 + timers::PROBE_JITTER_PERCENT);
        self.schedule_echo(rloc, now + timers::ECHO_NONCE_INTERVAL * percent / 100);
    }

    fn schedule_echo(&mut self, rloc: IpAddr, due: Instant) {
        let Some(trust) = &mut self.trust else { return };
        let Some(peer) = self.locators.get_mut(&rloc).and_then(|l| l.peer.as_mut()) else { return };
        // Together with others: whatever changes, the workers are told of.
        let into_second = due.saturating_duration_since(trust.started).subsec_nanos();
        let due =
            due + Duration::from_nanos(u64::from((1_000_000_000 - into_second) % 1_000_000_000));
        if let Some(before) = peer.due.replace(due) {
            trust.echo_timers.remove(&(before, rloc));
        }
        trust.echo_timers.insert((due, rloc));
    }
}
