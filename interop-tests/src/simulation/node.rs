//! One node: a state machine, and what its host would give it.
use super::movers::asked;
use mapping::clock::Epoch;
use mapping::config::MappingConfig;
use mapping::eid::{Eid, EidPrefix, EidTable};
use mapping::server::MapServer;
use mapping::transmit::Transmit;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xtr::config::{ControlConfig, DynamicRange};
use xtr::control::{ControlPlane, Event};
use xtr::drops::DropReason;
use xtr::fib::{FibUpdate, Verdict};

/// How a Map-Server comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// With what it kept.
    Kept,
    /// With nothing: its disk is gone too.
    Empty,
}

/// What runs on a node.
#[derive(Debug)]
pub(super) enum Machine {
    Server(Box<MapServer>),
    Router(Box<ControlPlane>),
    /// Crashed, or not started yet.
    Off,
}

/// What a node is started with.
#[derive(Debug)]
pub(super) enum Config {
    Server(Box<MappingConfig>),
    Router(Box<ControlConfig>, Vec<DynamicRange>),
}

/// Something that a node did beside sending.
#[derive(Debug)]
pub(super) enum Notice {
    /// The forwarding table has an answer for this EID-prefix: a mapping with locators, or something else.
    Installed(EidPrefix, bool),
    /// A lookup was given up.
    Unanswered(EidPrefix),
    /// A host came or left: own mappings are others now.
    OwnMappings,
    /// A host of a dynamic-EID range is asked for a sign of life.
    HostAsked(Eid),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) config: Config,
    /// Of a router.
    pub(super) fib: EidTable<Verdict>,
    /// Of a Map-Server: its disk.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// When it was started last, and how often.
    pub(super) boots: u32,
    /// Nodes of different islands do not hear each other; 0 is the mainland.
    pub(super) island: u32,
    /// When its timer is set to.
    pub(super) armed: Option<Duration>,
}

impl Node {
    pub(super) fn new(config: Config) -> Self {
        Self {
            machine: Machine::Off,
            config,
            fib: EidTable::default(),
            kept: BTreeMap::new(),
            boots: 0,
            island: 0,
            armed: None,
        }
    }

    /// Starts it; `nanoseconds` is the time of day.
    pub(super) fn start(
        &mut self,
        now: Instant,
        epoch: Epoch,
        nanoseconds: u64,
        seed: [u8; 32],
        how: Restart,
    ) {
        self.stop();
        self.boots += 1;
        self.machine = match &self.config {
            Config::Router(config, ranges) => {
                let config = ControlConfig::clone(config);
                let mut control = ControlPlane::new(config, now, seed, nanoseconds);
                control.set_dynamic_ranges(now, ranges);
                Machine::Router(Box::new(control))
            }
            Config::Server(config) => {
                let mut server = MapServer::durable(MappingConfig::clone(config), seed, epoch);
                if how == Restart::Empty {
                    self.kept.clear();
                }
                for (key, value) in &self.kept {
                    server.restore(now, key, value).expect("what was kept is understood");
                }
                Machine::Server(Box::new(server))
            }
        };
    }

    /// Crashes it.
    pub(super) fn stop(&mut self) {
        self.machine = Machine::Off;
        self.fib = EidTable::default();
        self.armed = None;
    }

    pub(super) fn is_on(&self) -> bool {
        !matches!(self.machine, Machine::Off)
    }

    pub(super) fn router(&mut self) -> Option<&mut ControlPlane> {
        match &mut self.machine {
            Machine::Router(control) => Some(control),
            Machine::Server(_) | Machine::Off => None,
        }
    }

    pub(super) fn control(&self) -> Option<&ControlPlane> {
        match &self.machine {
            Machine::Router(control) => Some(control),
            Machine::Server(_) | Machine::Off => None,
        }
    }

    pub(super) fn handle_input(
        &mut self,
        now: Instant,
        to: SocketAddr,
        from: SocketAddr,
        payload: &[u8],
    ) {
        match &mut self.machine {
            Machine::Server(server) => server.handle_input(now, to, from, payload),
            Machine::Router(control) => control.handle_input(now, to, from, payload),
            Machine::Off => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.machine {
            Machine::Server(server) => server.handle_timeout(now),
            Machine::Router(control) => control.handle_timeout(now),
            Machine::Off => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Server(server) => server.poll_timeout(),
            Machine::Router(control) => control.poll_timeout(),
            Machine::Off => None,
        }
    }

    /// Takes out what it wants sent and what it noticed, and keeps what it wants kept.
    pub(super) fn drain(&mut self, sent: &mut VecDeque<Transmit>, notices: &mut Vec<Notice>) {
        match &mut self.machine {
            Machine::Off => {}
            Machine::Server(server) => {
                while let Some(transmit) = server.poll_transmit() {
                    sent.push_back(transmit);
                }
                while let Some(batch) = server.take_batch() {
                    for (key, value) in batch.changes.iter() {
                        match value {
                            Some(value) => drop(self.kept.insert(key.to_vec(), value.to_vec())),
                            None => drop(self.kept.remove(key)),
                        }
                    }
                    sent.extend(batch.transmits);
                }
                while server.poll_event().is_some() {}
            }
            Machine::Router(control) => {
                while let Some(transmit) = control.poll_transmit() {
                    sent.push_back(transmit);
                }
                while let Some(update) = control.poll_fib_update() {
                    notices.extend(own_changed(&self.fib, &update));
                    match update {
                        FibUpdate::Insert(prefix, verdict) => {
                            if !verdict.is_miss() {
                                let found = is_mapping(&verdict);
                                notices.push(Notice::Installed(prefix, found));
                            }
                            self.fib.insert(prefix, verdict);
                        }
                        FibUpdate::Remove(prefix) => drop(self.fib.remove(&prefix)),
                    }
                }
                while let Some(change) = control.poll_host_change() {
                    notices.extend(asked(&change));
                }
                while let Some(event) = control.poll_event() {
                    if let Event::LookupUnanswered(prefix) = event {
                        notices.push(Notice::Unanswered(prefix));
                    }
                }
            }
        }
    }

    /// Whether the forwarding table has an entry for an EID that the next packet asks about all the same.
    pub(super) fn is_doubted(&self, destination: Eid) -> bool {
        self.fib.lookup(destination).is_some_and(|(_, verdict)| verdict.is_miss())
    }

    /// What the forwarding table makes of a packet.
    pub(super) fn forward(&self, destination: Eid) -> Option<&Verdict> {
        self.fib.lookup(destination).map(|(_, verdict)| verdict).filter(|v| !v.is_miss())
    }
}

/// Whether it comes of a mapping with locators, be they usable or not.
fn is_mapping(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Encapsulate(_)
            | Verdict::Drop(DropReason::NoUsableLocator | DropReason::NoCommonRlocFamily)
    )
}

/// Whether an own mapping of a single host comes or goes with an update.
fn own_changed(fib: &EidTable<Verdict>, update: &FibUpdate) -> Option<Notice> {
    let (prefix, is_own) = match update {
        FibUpdate::Insert(prefix, verdict) => (prefix, matches!(verdict, Verdict::Native)),
        FibUpdate::Remove(prefix) => (prefix, false),
    };
    let was_own = matches!(fib.get(prefix), Some(Verdict::Native));
    let is_host = *prefix == prefix.first().host_prefix();
    (is_host && was_own != is_own).then_some(Notice::OwnMappings)
}
