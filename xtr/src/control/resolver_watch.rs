//! Whether any Map-Resolver answers: a proxy that attracts traffic which it cannot look up has to know (PI-16).
//!
//! Every Map-Resolver is asked for its own address: that is an RLOC and nobody's EID, so that it answers by itself, whatever becomes of
//! sites. What it answers is not put into the map-cache.
use super::ControlPlane;
use super::secure::PREFERRED;
use mapping::eid::{Eid, InstanceId};
use mapping::transmit::SourcePort;
use mapping::wire::{CONTROL_PORT, EncapsulatedControlMessage, Message};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Between two questions that are answered.
const EVERY: Duration = Duration::from_secs(10);
/// After one that is not.
const RETRY: Duration = Duration::from_secs(2);
/// Questions that may still be answered.
const MAX_OUTSTANDING: usize = 64;

/// What is known of the Map-Resolvers.
#[derive(Debug, Default)]
pub(super) struct ResolverWatch {
    /// When they are asked next; `None` while nobody wants to know.
    due: Option<Instant>,
    /// The first question since the last answer.
    asked: Option<Instant>,
    nonces: VecDeque<u64>,
}

impl ResolverWatch {
    pub(super) const fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The Map-Resolvers are others now: what is known of those from before says nothing of them.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.asked = None;
        if self.due.is_some() {
            self.due = Some(now);
        }
    }

    /// Whether the answer is to one of our questions.
    pub(super) fn handle_reply(&mut self, now: Instant, nonce: u64) -> bool {
        let is_ours = self.nonces.contains(&nonce);
        if is_ours {
            self.nonces.clear();
            self.asked = None;
            self.due = Some(now + EVERY);
        }
        is_ours
    }
}

impl ControlPlane {
    /// From now on the Map-Resolvers are asked whether they are there.
    pub fn watch_resolvers(&mut self, now: Instant) {
        self.resolver_watch.due.get_or_insert(now);
    }

    /// Nobody wants to know any more.
    pub fn forget_resolvers(&mut self) {
        self.resolver_watch = ResolverWatch::default();
    }

    /// Since when no Map-Resolver answers; `None` while one does, or if that is not watched.
    pub fn resolvers_silent_since(&self, now: Instant) -> Option<Instant> {
        self.resolver_watch.asked.filter(|asked| now.saturating_duration_since(*asked) >= RETRY)
    }

    /// Asks them if it is time.
    pub(super) fn run_resolver_watch(&mut self, now: Instant) {
        if self.resolver_watch.due.is_none_or(|due| due > now) {
            return;
        }
        self.resolver_watch.due = Some(now + RETRY);
        self.resolver_watch.asked.get_or_insert(now);
        for resolver in self.map_resolvers() {
            // One of the ways may be dead.
            let sources: Vec<IpAddr> = self.own.up_of_family(resolver).collect();
            sources.into_iter().for_each(|source| self.ask_resolver(source, resolver));
        }
    }

    fn ask_resolver(&mut self, source: IpAddr, resolver: IpAddr) {
        let nonce = self.next_nonce();
        let prefix = Eid::new(InstanceId::DEFAULT, resolver).host_prefix();
        let inner = Message::MapRequest(self.map_request_from(source, nonce, prefix)).to_vec();
        let from = SocketAddr::new(source, CONTROL_PORT);
        let to = SocketAddr::new(resolver, CONTROL_PORT);
        let mut ecm = EncapsulatedControlMessage::new(from, to, inner);
        // That there is an answer is enough: it proves nothing about EIDs.
        let _ = self.protect(&mut ecm, nonce, PREFERRED);
        let nonces = &mut self.resolver_watch.nonces;
        if nonces.len() >= MAX_OUTSTANDING {
            nonces.pop_front();
        }
        nonces.push_back(nonce);
        self.count("resolver_checks_sent");
        let payload = Message::Encapsulated(ecm).to_vec();
        self.transmit(source, SourcePort::Ephemeral, to, payload);
    }
}
