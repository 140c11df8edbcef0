//! Nodes, the datagrams between them, and the clock.
use super::node::{Config, Node, Notice, Restart};
use super::observer::Observer;
use super::queue::Queue;
use super::weather::Weather;
use mapping::clock::Epoch;
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::CONTROL_PORT;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The source port of Map-Registers and ECMs.
const EPHEMERAL_PORT: u16 = 40_000;
/// The time of day at the start, seconds since 1970.
const START: u64 = 1_800_000_000;
/// What a node may do in one moment; more and it would never end.
const MOST_AT_ONCE: u32 = 100_000;

/// A node of a [`Network`].
pub(super) type NodeId = u32;

#[derive(Debug)]
enum Event<T> {
    Arrival(Box<Datagram>),
    /// Of a node, in the run that it had then.
    Timer(NodeId, u32),
    Task(T),
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

/// `T` is what those who use the network schedule for themselves.
#[derive(Debug)]
pub(super) struct Network<T> {
    start: Instant,
    epoch: Epoch,
    pub(super) now: Duration,
    queue: Queue<Event<T>>,
    pub(super) rng: StdRng,
    pub(super) weather: Weather,
    pub(super) nodes: Vec<Node>,
    homes: HashMap<IpAddr, NodeId>,
    /// Addresses that nothing comes to or from, without a word to anybody.
    pub(super) silent: BTreeSet<IpAddr>,
    pub(super) observer: Observer,
    notices: Vec<Notice>,
    noticed: Vec<(Duration, NodeId, Notice)>,
    sent: VecDeque<Transmit>,
    trace: DefaultHasher,
    busy: (Duration, u32),
}

impl<T> Network<T> {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        let start = Instant::now();
        Self {
            start,
            epoch: Epoch::new(start, Duration::from_secs(START)),
            now: Duration::ZERO,
            queue: Queue::new(),
            rng: StdRng::seed_from_u64(seed),
            weather,
            nodes: Vec::new(),
            homes: HashMap::new(),
            silent: BTreeSet::new(),
            observer: Observer::default(),
            notices: Vec::new(),
            noticed: Vec::new(),
            sent: VecDeque::new(),
            trace: DefaultHasher::new(),
            busy: (Duration::ZERO, 0),
        }
    }

    /// The moment that state machines are told.
    pub(super) fn instant(&self) -> Instant {
        self.start + self.now
    }

    /// The data plane's clock, whole seconds, never 0.
    pub(super) fn clock(&self) -> u32 {
        self.now.as_secs() as u32 + 1
    }

    /// Of everything sent so far.
    pub(super) fn digest(&self) -> u64 {
        self.trace.finish()
    }

    pub(super) fn add(&mut self, config: Config, addresses: Vec<IpAddr>) -> NodeId {
        let id = self.nodes.len() as NodeId;
        for &address in &addresses {
            let before = self.homes.insert(address, id);
            assert!(before.is_none(), "{address} is taken");
        }
        self.nodes.push(Node::new(config));
        id
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn home(&self, address: IpAddr) -> Option<NodeId> {
        self.homes.get(&address).copied()
    }

    pub(super) fn start(&mut self, id: NodeId, how: Restart) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let now = self.instant();
        let time_of_day = Duration::from_secs(START) + self.now;
        self.observer.forget(id);
        let node = &mut self.nodes[id as usize];
        node.start(now, self.epoch, time_of_day.as_nanos() as u64, seed, how);
        self.settle(id);
    }

    pub(super) fn stop(&mut self, id: NodeId) {
        self.nodes[id as usize].stop();
    }

    /// Lets somebody do something to a node, then sends what comes of it.
    pub(super) fn with<R>(&mut self, id: NodeId, act: impl FnOnce(&mut Node, Instant) -> R) -> R {
        let now = self.instant();
        let result = act(&mut self.nodes[id as usize], now);
        self.settle(id);
        result
    }

    pub(super) fn schedule(&mut self, at: Duration, task: T) {
        self.queue.schedule(at, Event::Task(task));
    }

    /// What the nodes noticed since the last call.
    pub(super) fn take_noticed(&mut self) -> Vec<(Duration, NodeId, Notice)> {
        std::mem::take(&mut self.noticed)
    }

    /// Lets time pass until a task is due, or `end`.
    pub(super) fn run_until(&mut self, end: Duration) -> Option<T> {
        while let Some((at, event)) = self.queue.pop_until(end) {
            self.now = at;
            match event {
                Event::Task(task) => return Some(task),
                Event::Arrival(datagram) => self.arrive(&datagram),
                Event::Timer(id, boots) => self.timer(id, boots),
            }
        }
        self.now = end;
        None
    }

    /// Whether a datagram can go from one address to another now, but for the weather.
    pub(super) fn connects(&self, from: IpAddr, to: IpAddr) -> bool {
        let (Some(sender), Some(receiver)) = (self.home(from), self.home(to)) else { return false };
        self.node(sender).island == self.node(receiver).island
            && (self.silent.is_empty()
                || !(self.silent.contains(&from) || self.silent.contains(&to)))
    }

    fn arrive(&mut self, datagram: &Datagram) {
        let Datagram { from, to, payload } = datagram;
        let Some(id) = self.home(to.ip()).filter(|_| self.connects(from.ip(), to.ip())) else {
            return;
        };
        if self.node(id).is_on() {
            self.observer.arrived(id, payload);
            self.with(id, |node, now| node.handle_input(now, *to, *from, payload));
        }
    }

    fn timer(&mut self, id: NodeId, boots: u32) {
        let node = &mut self.nodes[id as usize];
        if node.boots == boots && node.armed == Some(self.now) {
            node.armed = None;
            self.busy.1 = if self.busy.0 == self.now { self.busy.1 + 1 } else { 0 };
            self.busy.0 = self.now;
            assert!(self.busy.1 < MOST_AT_ONCE, "node {id} has always something to do");
            self.with(id, |node, now| node.handle_timeout(now));
        }
    }

    /// Puts what a node wants sent under way, and sets its timer.
    fn settle(&mut self, id: NodeId) {
        let mut sent = std::mem::take(&mut self.sent);
        let node = &mut self.nodes[id as usize];
        node.drain(&mut sent, &mut self.notices);
        if let Some(due) = node.poll_timeout() {
            let due = due.saturating_duration_since(self.start).max(self.now);
            if node.armed.is_none_or(|armed| due < armed) {
                node.armed = Some(due);
                let boots = node.boots;
                self.queue.schedule(due, Event::Timer(id, boots));
            }
        }
        let now = self.now;
        for notice in self.notices.drain(..) {
            match notice {
                Notice::OwnMappings => self.observer.own_mappings_changed(id),
                notice => self.noticed.push((now, id, notice)),
            }
        }
        for transmit in sent.drain(..) {
            self.send(id, transmit);
        }
        self.sent = sent;
    }

    fn send(&mut self, id: NodeId, transmit: Transmit) {
        self.observer.sent(self.now, id, &transmit);
        let Transmit { source, source_port, destination, payload } = transmit;
        (self.now, id, destination, &payload).hash(&mut self.trace);
        let port = match source_port {
            SourcePort::Control => CONTROL_PORT,
            SourcePort::Data => 4341,
            SourcePort::Ephemeral => EPHEMERAL_PORT,
        };
        if !self.connects(source, destination.ip()) {
            return;
        }
        let from = SocketAddr::new(source, port);
        let mut copies = self.weather.copies(&mut self.rng).peekable();
        let mut payload = Some(payload);
        while let Some(delay) = copies.next() {
            let copy = if copies.peek().is_some() { payload.clone() } else { payload.take() };
            let Some(payload) = copy else { return };
            let datagram = Datagram { from, to: destination, payload };
            self.queue.schedule(self.now + delay, Event::Arrival(Box::new(datagram)));
        }
    }
}
