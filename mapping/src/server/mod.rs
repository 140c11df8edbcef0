//! Map-Server and Map-Resolver in one node (RFC 9301 §8): a pure state machine.

mod admission;
mod ddt;
mod durable;
mod elsewhere;
mod event;
mod kept;
mod measure;
mod names;
mod nat;
mod notify;
mod reconfigure;
mod refusals;
mod register;
mod registration;
mod registry;
mod replay;
mod request;
mod review;
mod secure;
mod site;
mod subscription;
#[cfg(test)]
mod tests;
mod views;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::Epoch;
use crate::config::MappingConfig;
use crate::discard::{Discard, DiscardCounters};
use crate::limits::{Rate, Recent, Scatter, ScatteredBuckets};
use crate::resolver::{Clients, Forwards, ItrKeys, OwnAddresses, is_martian};
use crate::timers;
use crate::transmit::Transmit;
use crate::wire::{CONTROL_PORT, Message, Tolerance, WireError};

pub use durable::StateError;
pub use event::{Event, NameChange, Refusal, Subject};
pub use views::Count;

use admission::Admission;
use ddt::Tree;
use durable::Durability;
use elsewhere::Elsewhere;
use names::Names;
use nat::Rtrs;
use notify::Notifier;
use refusals::Refusals;
use registry::Registry;
use replay::ReplayGuard;
use review::Review;
use site::Sites;
use subscription::Subscriptions;

/// A Map-Server and Map-Resolver.
///
/// Feed it datagrams and the time; take out what to send, what happened, and when to call again.
#[derive(Debug)]
pub struct MapServer {
    own: OwnAddresses,
    tree: Tree,
    clients: Clients,
    itr_keys: ItrKeys,
    rtrs: Rtrs,
    sites: Sites,
    registry: Registry,
    names: Names,
    replay: ReplayGuard,
    notifier: Notifier,
    elsewhere: Elsewhere,
    review: Option<Review>,
    subscriptions: Subscriptions,
    registration_timeout: Duration,
    admission: Admission,
    replies: ScatteredBuckets,
    recent_replies: Recent,
    forwards: Forwards,
    scatter: Scatter,
    rng: StdRng,
    transmits: VecDeque<Transmit>,
    spare: Vec<Vec<u8>>,
    events: VecDeque<Event>,
    discards: DiscardCounters,
    counts: [u64; Count::COUNT],
    durability: Durability,
    refusals: Refusals,
}

impl MapServer {
    /// An empty registry for the sites of `config` that nobody keeps; `seed` is for the nonces of unsolicited Map-Notifies.
    pub fn new(config: MappingConfig, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let scatter = Scatter::new(rng.random());
        let replies = Rate::new(timers::REPLIES_PER_SECOND, timers::REPLIES_BURST);
        let sites = Sites::new(config.sites.clone());
        let clients = Clients::new(config.clients.clone());
        let relaxed = clients.loosened().into_iter().map(Event::LooseClient);
        let events = sites.concessions().chain(relaxed).collect();
        Self {
            subscriptions: Subscriptions::new(&config, scatter),
            admission: Admission::new(config.sites.len(), scatter),
            tree: Tree::new(&config.ddt, &config.listen),
            own: OwnAddresses::new(config.listen),
            clients,
            itr_keys: ItrKeys::new(config.lisp_sec),
            rtrs: Rtrs::new(config.rtrs),
            sites,
            registry: Registry::default(),
            names: Names::default(),
            replay: ReplayGuard::new(scatter),
            notifier: Notifier::default(),
            elsewhere: Elsewhere::default(),
            review: None,
            registration_timeout: config.registration_timeout,
            replies: ScatteredBuckets::new(replies, timers::TRACKED_SOURCES, scatter),
            recent_replies: Recent::new(
                timers::MAP_REPLY_INTERVAL,
                timers::MAP_REPLY_BURST,
                timers::TRACKED_REPLIES,
                scatter,
            ),
            forwards: Forwards::default(),
            scatter,
            rng,
            transmits: VecDeque::new(),
            spare: Vec::new(),
            events,
            discards: DiscardCounters::default(),
            counts: [0; Count::COUNT],
            durability: Durability::default(),
            refusals: Refusals::default(),
        }
    }

    /// As [`Self::new`], with state that survives: [`Self::restore`] it first, then give every [`Self::take_batch`] to a store.
    pub fn durable(config: MappingConfig, seed: [u8; 32], epoch: Epoch) -> Self {
        let mut server = Self::new(config, seed);
        server.durability.epoch = Some(epoch);
        server
    }

    /// Takes one UDP datagram that came to `local`, one of the own addresses, from `from`.
    pub fn handle_input(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        payload: &[u8],
    ) {
        self.count(Count::MessagesReceived);
        if let Err(reason) = self.admit(now, local, from, payload) {
            return self.discard(from.ip(), reason);
        }
        match Message::parse_with(payload, self.clients.tolerance(from.ip())) {
            Err(WireError::JsonLength) => self.handle_json_length(now, local.ip(), from, payload),
            Err(error) => self.discard(from.ip(), error.into()),
            Ok(Message::MapRegister(register)) => {
                self.count(Count::MapRegisters);
                let written = (payload, Tolerance::NONE);
                self.handle_register(now, local.ip(), (from, None), register, written);
            }
            Ok(Message::MapNotifyAck(ack)) => self.handle_notify_ack(now, from, &ack, payload),
            Ok(Message::InfoRequest(request)) => {
                self.handle_info_request(now, local, from, request, payload);
            }
            Ok(Message::Encapsulated(ecm)) if ecm.carries_register() && !self.rtrs.is_empty() => {
                self.handle_relayed_register(now, local.ip(), from, &ecm);
            }
            Ok(Message::Encapsulated(ecm)) => {
                self.handle_encapsulated(now, local.ip(), from, ecm);
            }
            Ok(Message::MapRequest(request)) => {
                self.handle_plain_request(now, local.ip(), from, &request, payload);
            }
            Ok(Message::MapReferral(referral)) => {
                self.handle_referral(now, local, from.ip(), &referral);
            }
            Ok(Message::MapReply(_) | Message::MapNotify(_) | Message::InfoReply(_)) => {
                self.discard(from.ip(), Discard::UnexpectedMessage);
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_due(now);
        self.handle_due_elsewhere(now);
        self.handle_due_review(now);
        self.handle_due_subscriptions(now);
        self.handle_tree_due(now);
    }

    /// When [`Self::handle_timeout`] has something to do; `None` when nothing is waiting.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.registry.next_expiry().filter(|_| !self.durability.cut_off),
            self.next_name_expiry().filter(|_| !self.durability.cut_off),
            self.notifier.next_due(),
            self.elsewhere.next_due(),
            self.review.as_ref().map(Review::since),
            self.subscriptions.next_due(),
            self.tree.poll_timeout(),
        ];
        due.into_iter().flatten().min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Tells of a burst taken from a queue: `behind` if it left more there. A node that stays behind gives less to strangers (MS-23).
    pub fn burst(&mut self, now: Instant, behind: bool) {
        self.admission.turn(now, behind);
    }

    /// Refuses Map-Registers while `shed`: for as long as the store is behind. Lookups are answered still.
    pub const fn shed_registers(&mut self, shed: bool) {
        self.admission.shed_registers = shed;
    }

    /// Takes back the payload of a datagram that was sent, so that its memory serves again.
    pub fn recycle(&mut self, mut payload: Vec<u8>) {
        let usable = (1..=timers::CONTROL_PACKET_IPV6).contains(&payload.capacity());
        if usable && self.spare.len() < timers::SPARE_PAYLOADS {
            payload.clear();
            self.spare.push(payload);
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Counts a datagram that could not be sent.
    pub fn send_failed(&mut self) {
        self.discards.count(Discard::SendFailed);
    }

    /// Checks that need no parsing, before anything costs (MS-23).
    fn admit(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Discard> {
        const MAP_REGISTER: u8 = 3;
        if local.port() != CONTROL_PORT && from.port() != CONTROL_PORT {
            return Err(Discard::WrongPort);
        }
        if is_martian(from.ip(), local.ip()) && !from.ip().is_loopback() {
            return Err(Discard::SourceMartian);
        }
        match payload.first().map(|first| first >> 4) {
            Some(MAP_REGISTER) => self.admission.register(now, from.ip()),
            _ => self.admission.request(now, from.ip()),
        }
    }

    /// Empty memory for a payload.
    fn payload(&mut self) -> Vec<u8> {
        /// Most messages have fewer octets.
        const USUAL: usize = 256;
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(USUAL))
    }

    fn discard(&mut self, source: IpAddr, reason: Discard) {
        self.discards.count(reason);
        self.event(Event::Discarded { source, reason });
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= timers::MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn count(&mut self, count: Count) {
        self.counts[count as usize] += 1;
    }
}
