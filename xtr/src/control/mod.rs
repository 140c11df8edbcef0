//! The control plane of a tunnel router: one pure state machine without clock, I/O or randomness of its own.
//!
//! | file | what |
//! |---|---|
//! | `map_cache` | EID-prefix to mapping, expiry, bound |
//! | `locator` | what is known of every remote RLOC; which locators carry traffic |
//! | `forwarding` | mapping to verdict: the only writer of forwarding-table updates |
//! | `stranded` | mappings without a usable locator, which are doubted |
//! | `itr` | lookups: Map-Requests, their retries and limits, Map-Replies |
//! | `probe`, `probe_schedule`, `round_trip`, `loss` | RLOC-probes sent and their answers; when; how long they took; how many get lost |
//! | `ways` | from which own RLOC a remote one is reached |
//! | `resolver_watch` | whether any Map-Resolver answers |
//! | `hint` | what ICMP says of an RLOC, until a probe says better |
//! | `path_mtu`, `path_probe` | the path MTU of every remote RLOC, found out by padded RLOC-probes |
//! | `heard`, `former` | remote ITRs that send to us; RLOCs that data went to until lately |
//! | `smr` | Solicit-Map-Requests received, and sent when own locators change |
//! | `reconfigure`, `peers` | another configuration in one step: of the own side, and whom we talk to |
//! | `checkpoint` | mappings that a restart brings back |
//! | `clear` | map-cache entries forgotten because the operator wants it |
//! | `database` | own mappings, which come and go |
//! | `nat` | whether own RLOCs are behind NATs, and the RTR that carries through; `rtr`: carrying others through theirs |
//! | `mobility`, `away`, `moves`, `ranges` | hosts of dynamic-EID ranges that come and go; those that are elsewhere; how often they may move; other ranges |
//! | `etr` | registration with the Map-Servers |
//! | `secure` | LISP-SEC: one-time keys, replies verified and signed |
//! | `answer` | Map-Requests and RLOC-probes answered |
//! | `subscribe` | subscriptions to mappings, and publications received |
//! | `own` | own RLOCs and whether the host can use them |
//! | `trust` | what headers say in a trusted core: `version` map-versions, `status_bits`, `echo_nonce` |
//! | `limit` | token buckets |
//! | `show`, `traffic`, `nat_view` | views for the operator |
//! | `measure` | what monitoring and `isthmus top` ask for |
//! | `migration` | which traffic takes which way; lists in parts for the web page |
//!
//! Drive it like every state machine of the suite: feed [`ControlPlane::handle_input`] and [`ControlPlane::handle_punt`], call
//! [`ControlPlane::handle_timeout`] at [`ControlPlane::poll_timeout`], and after each of them drain the three queues
//! ([`ControlPlane::poll_transmit`], [`ControlPlane::poll_fib_update`], [`ControlPlane::poll_event`]).
mod answer;
mod away;
mod checkpoint;
mod clear;
mod database;
mod echo_nonce;
mod etr;
mod explain;
mod former;
mod forwarding;
mod heard;
mod hint;
mod itr;
mod limit;
mod locator;
mod loss;
mod map_cache;
mod measure;
mod migration;
mod mobility;
mod moves;
mod nat;
mod nat_view;
mod own;
mod path_mtu;
mod path_probe;
mod peers;
mod probe;
mod probe_schedule;
mod ranges;
mod reconfigure;
mod resolver_watch;
mod round_trip;
mod rtr;
mod secure;
mod show;
mod smr;
mod status_bits;
mod stranded;
mod subscribe;
#[cfg(test)]
mod tests;
mod traffic;
mod trust;
mod version;
mod ways;

pub use checkpoint::KeptMapping;
pub use database::{Origin as MappingOrigin, OwnMapping};
pub use mobility::{Detection, HostChange, HostGone, HostSeen};

use crate::config::{ControlConfig, Endpoint, MapServer, Peer, Role};
use crate::fib::{FibUpdate, LocatorTables, Verdict};
use crate::punt::Punt;
use answer::{Origin, ReplyLimiter};
use database::Database;
use etr::Registration;
use former::Former;
use heard::Heard;
use itr::Lookups;
use limit::TokenBucket;
use locator::{Candidate, Locator, Path, Why};
use map_cache::{Due, MapCache};
use mapping::config::Profile;
use mapping::discard::{Discard, DiscardCounters};
use mapping::eid::{EidPrefix, MapVersion};
use mapping::timers;
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::{CONTROL_PORT, Message, Tolerance, WireError, XtrIdentity};
use measure::Measured;
use mobility::Mobility;
use nat::Nat;
use own::OwnRlocs;
use path_probe::PathProbes;
use probe_schedule::Schedule;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use resolver_watch::ResolverWatch;
use rtr::Rtr;
use smr::Solicitor;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use stranded::Stranded;
use subscribe::Subscriptions;
use trust::Trust;

/// Events kept for the daemon; older ones make room.
const MAX_EVENTS: usize = timers::MAX_EVENTS;

/// Something that humans or the host side want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A remote RLOC came into use: its path is wanted ([`ControlPlane::set_path`]).
    LocatorAdded(IpAddr),
    /// A remote RLOC answers probes (again).
    LocatorUp(IpAddr),
    /// A remote RLOC stopped answering probes.
    LocatorDown(IpAddr),
    /// The underlay has no route to a remote RLOC any more (PB-16).
    LocatorNoRoute(IpAddr),
    /// The underlay has a route to it again.
    LocatorRouted(IpAddr),
    /// A remote RLOC is reached from another own RLOC now.
    LocatorRerouted {
        /// The remote RLOC.
        rloc: IpAddr,
        /// The own RLOC.
        source: IpAddr,
    },
    /// A Map-Server acknowledged this prefix for the first time, or again after trouble.
    Registered {
        /// The EID-prefix.
        prefix: EidPrefix,
        /// The Map-Server.
        map_server: IpAddr,
    },
    /// A Map-Server did not acknowledge this prefix in three tries.
    RegistrationUnanswered {
        /// The EID-prefix.
        prefix: EidPrefix,
        /// The Map-Server.
        map_server: IpAddr,
    },
    /// A Map-Server acknowledged the Map-Register without this prefix.
    RegistrationRefused {
        /// The EID-prefix.
        prefix: EidPrefix,
        /// The Map-Server.
        map_server: IpAddr,
    },
    /// No Map-Resolver answered for this EID-prefix; the next try comes in 30 s at the earliest (RQ-13).
    LookupUnanswered(EidPrefix),
    /// A Map-Reply, or a record of it, is not what LISP-SEC lets pass (SE-18, SE-21).
    ReplyRefused {
        /// The EID-prefix that was asked for; of a refused record, its own.
        prefix: EidPrefix,
        /// Where the Map-Reply came from.
        from: IpAddr,
        /// Why.
        reason: Discard,
    },
    /// A Map-Server refuses to publish this EID-prefix to us: what its operator allows, or the key, has to be looked at.
    SubscriptionRefused(EidPrefix),
    /// A publication was not newer than the last one: somebody may have recorded and repeated it (PS-14).
    PublicationReplayed {
        /// The EID-prefix.
        prefix: EidPrefix,
        /// Where it came from.
        map_server: IpAddr,
    },
    /// The path MTU towards a remote RLOC is another one now.
    PathMtu {
        /// The remote RLOC.
        rloc: IpAddr,
        /// The largest outer packet towards it, octets.
        mtu: u16,
    },
    /// A remote RLOC sends packets, but does not echo the nonce it was asked to.
    EchoMissing(IpAddr),
    /// A packet came with a version of an own mapping that there was never (RFC 9302 §7.1).
    ImpossibleMapVersion {
        /// The own EID-prefix.
        prefix: EidPrefix,
        /// Where it came from.
        rloc: IpAddr,
        /// The version it names.
        version: MapVersion,
        /// The version there is.
        own: MapVersion,
    },
    /// An own RLOC is behind a NAT (NT-03).
    NatFound {
        /// The own RLOC.
        rloc: IpAddr,
        /// How a Map-Server sees it.
        global: SocketAddr,
        /// The RTR that will carry it; there may be none for it.
        rtr: Option<IpAddr>,
    },
    /// An own RLOC is no longer behind a NAT.
    NatGone(IpAddr),
    /// No Map-Server says how an own RLOC is seen: it is not registered.
    NatUnknown(IpAddr),
    /// The RTR of an own RLOC carries what comes and goes.
    RtrAnswered {
        /// The own RLOC.
        rloc: IpAddr,
        /// The RTR.
        rtr: IpAddr,
    },
    /// The RTR of an own RLOC does not answer; the next one is tried.
    RtrUnanswered {
        /// The own RLOC.
        rloc: IpAddr,
        /// The RTR.
        rtr: IpAddr,
    },
    /// A Data-Map-Notify with another xTR-ID came (NT-09).
    NotifyOfOther {
        /// The RTR it came from.
        rtr: IpAddr,
        /// Whose it is.
        identity: XtrIdentity,
    },
    /// To an RTR, the NAT before an xTR gave it another address or port.
    NatSiteMoved {
        /// The EID-prefix.
        prefix: EidPrefix,
        /// Where it was.
        from: SocketAddr,
        /// Where it is.
        to: SocketAddr,
    },
    /// To an RTR, nobody keeps the way to an EID-prefix behind a NAT open any more.
    NatSiteGone(EidPrefix),
    /// A host of a dynamic-EID range came back too often in a short time: perhaps two hosts have its address. It is left where it is for a
    /// while.
    HostHeldDown(EidPrefix),
    /// The map-cache is at its bound: the least recently used entries made room (MC-27).
    MapCacheFull,
    /// Somebody says that a mapping in use changed: it is asked for anew (SM-04).
    SmrReceived {
        /// The EID-prefix that is asked for.
        prefix: EidPrefix,
        /// Who says so.
        from: IpAddr,
    },
    /// A remote RLOC is told that an own mapping changed (SM-01).
    SmrSent {
        /// The own EID-prefix.
        prefix: EidPrefix,
        /// The remote RLOC.
        rloc: IpAddr,
    },
    /// A host of a dynamic-EID range is here now (DY-01).
    HostArrived {
        /// The host.
        prefix: EidPrefix,
        /// What showed it.
        how: Detection,
    },
    /// A host of a dynamic-EID range gave no sign of life for too long (DY-05), or is known to be gone.
    HostLeft(EidPrefix),
    /// A host of a dynamic-EID range is at another site (DY-03).
    HostAway(EidPrefix),
}

/// The control plane of an xTR or a proxy.
#[derive(Debug)]
pub struct ControlPlane {
    config: ControlConfig,
    own: OwnRlocs,
    database: Database,
    mobility: Mobility,
    /// Addresses of the configured names.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// The zero of the engine's coarse clock.
    clock_zero: Instant,
    rng: StdRng,
    cache: MapCache,
    stranded: Stranded,
    petrs: Vec<Candidate>,
    locator_tables: LocatorTables,
    locators: BTreeMap<IpAddr, Locator>,
    probes: Schedule,
    probe_nonces: HashMap<u64, IpAddr>,
    /// When it is looked at next which locators carry traffic.
    watch_due: Instant,
    path_probes: PathProbes,
    lookups: Lookups,
    resolver_watch: ResolverWatch,
    refusals_told: TokenBucket,
    registrations: Vec<Registration>,
    first_register_nonce: u64,
    register_nonce: u64,
    quick_until: Instant,
    shutting_down: bool,
    replies: ReplyLimiter,
    solicitor: Solicitor,
    heard: Heard,
    former: Former,
    measured: Measured,
    subscriptions: Subscriptions,
    /// In a trusted core.
    trust: Option<Box<Trust>>,
    /// Of an xTR that may be behind a NAT.
    nat: Option<Box<Nat>>,
    /// Of an RTR.
    rtr: Option<Box<Rtr>>,
    transmits: VecDeque<Transmit>,
    fib_updates: VecDeque<FibUpdate>,
    /// Which RLOCs may send for which EIDs, if somebody wants to know.
    source_updates: Option<VecDeque<FibUpdate>>,
    events: VecDeque<Event>,
    discards: DiscardCounters,
    counters: BTreeMap<&'static str, u64>,
}

impl ControlPlane {
    /// A control plane with an empty map-cache that starts registering at once. `register_nonce_base` must be greater than any nonce
    /// used with the same keys before (RG-14): the time of day in nanoseconds is. `seed` must be unpredictable (RQ-01).
    pub fn new(
        config: ControlConfig,
        now: Instant,
        seed: [u8; 32],
        register_nonce_base: u64,
    ) -> Self {
        let mut control = Self {
            own: OwnRlocs::new(config.rlocs.clone()),
            database: Database::new(&config.eids),
            mobility: Mobility::new(now, &[]),
            clock_zero: now,
            names: BTreeMap::new(),
            rng: StdRng::from_seed(seed),
            cache: MapCache::new(config.map_cache_limit),
            stranded: Stranded::default(),
            petrs: Vec::new(),
            locator_tables: LocatorTables::default(),
            locators: BTreeMap::new(),
            probes: Schedule::new(now),
            probe_nonces: HashMap::new(),
            watch_due: now,
            path_probes: PathProbes::new(now),
            lookups: Lookups::new(now),
            resolver_watch: ResolverWatch::default(),
            refusals_told: TokenBucket::new(now, secure::REFUSALS_TOLD_PER_SECOND),
            registrations: Vec::new(),
            first_register_nonce: register_nonce_base,
            register_nonce: register_nonce_base,
            quick_until: now + timers::QUICK_REGISTRATION_PERIOD,
            shutting_down: false,
            replies: ReplyLimiter::new(now),
            solicitor: Solicitor::new(now),
            heard: Heard::default(),
            former: Former::default(),
            measured: Measured::new(),
            subscriptions: Subscriptions::new(now, register_nonce_base),
            trust: config.trusted_core.clone().map(|core| Box::new(Trust::new(core, now))),
            nat: None,
            rtr: None,
            transmits: VecDeque::new(),
            fib_updates: VecDeque::new(),
            source_updates: None,
            events: VecDeque::new(),
            discards: DiscardCounters::default(),
            counters: BTreeMap::new(),
            config,
        };
        control.install_own_prefixes();
        control.update_own_versions(now);
        control.make_nat(now);
        control.make_rtr();
        control.registrations = control.plan_registrations(now);
        control.refresh_petrs(now);
        control
    }

    /// The data plane started at `zero`: [`LocatorSet::last_used`](crate::fib::LocatorSet) counts whole seconds from then, plus 1.
    pub const fn set_clock_zero(&mut self, zero: Instant) {
        self.clock_zero = zero;
    }

    /// A datagram that came to `local` from `from`: a control message, accepted only if either port is 4342 (CW-03).
    pub fn handle_input(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        payload: &[u8],
    ) {
        self.count("messages_received");
        if local.port() != CONTROL_PORT && from.port() != CONTROL_PORT {
            return self.discard(Discard::WrongPort);
        }
        if self.own.is_martian(from.ip()) {
            return self.discard(Discard::SourceMartian);
        }
        let tolerance = self.tolerance(from.ip());
        let mut parsed = Message::parse_with(payload, tolerance);
        if parsed == Err(WireError::JsonLength) && self.may_miscount_json(from.ip()) {
            self.count("json_lengths_mended");
            parsed = Message::parse_with(payload, Tolerance { json_length: true, ..tolerance });
        }
        match parsed {
            Err(error) => self.discard(error.into()),
            Ok(Message::MapRequest(request)) if request.smr => {
                self.handle_smr(now, from.ip(), &request);
            }
            Ok(Message::MapRequest(request)) if !request.probe && self.requires_protection() => {
                self.discard(Discard::SecurityMissing);
            }
            Ok(Message::MapRequest(request)) => {
                self.handle_map_request(now, local.ip(), from, &request, Origin::Plain);
            }
            Ok(Message::Encapsulated(ecm)) if ecm.to_rtr => {
                self.handle_ecm_to_rtr(now, local.ip(), from, &ecm);
            }
            Ok(Message::Encapsulated(ecm)) => match ecm.map_request() {
                Err(_) => self.discard(Discard::UnexpectedInner),
                Ok(request) if request.probe => self.discard(Discard::ProbeRefused),
                Ok(request) if request.smr => self.discard(Discard::SmrRefused),
                Ok(request) => match self.open_request(from.ip(), &ecm, request.nonce) {
                    Err(reason) => self.discard(reason),
                    Ok(seal) => {
                        let origin = Origin::Encapsulated(seal);
                        self.handle_map_request(now, local.ip(), ecm.source, &request, origin);
                    }
                },
            },
            Ok(Message::MapReply(reply)) => {
                self.handle_map_reply(now, from.ip(), &reply, payload);
            }
            Ok(Message::MapNotify(notify)) => {
                self.handle_map_notify(now, local, from, &notify, payload);
            }
            Ok(Message::InfoReply(reply)) => {
                self.handle_info_reply(now, local, from.ip(), &reply, payload);
            }
            Ok(
                Message::MapRegister(_)
                | Message::MapNotifyAck(_)
                | Message::MapReferral(_)
                | Message::InfoRequest(_),
            ) => {
                self.discard(Discard::UnexpectedMessage);
            }
        }
    }

    /// A message of the data plane. ICMP errors do not concern the control plane, they are the daemon's to send.
    pub fn handle_punt(&mut self, now: Instant, punt: &Punt) {
        match punt {
            Punt::Miss { destination, source } => self.handle_miss(now, *destination, *source),
            Punt::SourceMoved { source } => self.handle_moved(now, *source),
            Punt::SourceUnknown { source, destination } => {
                self.handle_unknown_source(now, *source, *destination);
            }
            Punt::Marked { rloc, source, destination, marks } => {
                self.handle_marked(now, *rloc, *source, *destination, marks);
            }
            Punt::Unreachable { rloc, by_host: false } => {
                self.handle_hint(now, *rloc, Why::Unreachable);
            }
            Punt::Unreachable { rloc, by_host: true } => {
                self.handle_hint(now, *rloc, Why::NotLisp);
            }
            Punt::HostSpoke { source } => self.handle_host(
                now,
                &HostSeen { interface: None, address: *source, how: Detection::Data },
            ),
            Punt::ControlInData { local, rloc, packet } => {
                self.handle_control_in_data(now, *local, *rloc, packet);
            }
            Punt::Heard { rloc, source } => self.handle_heard(now, *rloc, *source),
            Punt::Left { destination, source, rloc, returns } => {
                self.handle_left(now, (*destination, *rloc), *source, *returns);
            }
            Punt::IcmpError { .. } => {}
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.cache.pop_due(now) {
            match due {
                Due::Expired(prefix) if self.outlives_its_ttl(now, &prefix) => {}
                // Map-Registers are what refreshes it.
                Due::Refresh(prefix) if self.is_registered_here(&prefix) => {}
                Due::Expired(prefix) => {
                    self.remove_entry(now, &prefix);
                    self.entry_left(now, &prefix);
                }
                Due::Refresh(prefix) => self.refresh_if_used(now, prefix),
            }
        }
        self.run_stranded(now);
        self.run_subscriptions(now);
        self.run_trust(now);
        self.run_lookups(now);
        self.run_resolver_watch(now);
        self.run_probes(now);
        self.run_path_probes(now);
        self.run_mobility(now);
        self.run_nat(now);
        self.run_rtr(now);
        self.run_registrations(now);
        self.run_smrs(now);
        self.replies.purge(now);
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.cache.next_timeout(),
            self.stranded.next_timeout(),
            self.lookups.next_timeout(),
            self.resolver_watch.next_timeout(),
            self.next_probe(),
            self.next_watch(),
            self.path_probes.next_timeout(),
            self.mobility.next_timeout(),
            self.next_nat(),
            self.next_rtr(),
            self.next_registration(),
            self.solicitor.next_timeout(),
            self.subscriptions.next_timeout(),
            self.trust.as_ref().and_then(|trust| trust.next_timeout()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next change of the forwarding table.
    pub fn poll_fib_update(&mut self) -> Option<FibUpdate> {
        self.fib_updates.pop_front()
    }

    /// From now on, every mapping is also told to [`Self::poll_source_update`].
    pub fn track_sources(&mut self) {
        self.source_updates = Some(VecDeque::new());
    }

    /// The next change of the table of sources: by EID-prefix all locators of its mapping, usable or not, or that it is nobody's.
    pub fn poll_source_update(&mut self) -> Option<FibUpdate> {
        self.source_updates.as_mut()?.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The addresses a configured DNS name has now; an empty list changes nothing, so that a failing resolver does no harm.
    pub fn set_name(&mut self, now: Instant, name: &str, addresses: &[IpAddr]) {
        let mut addresses = addresses.to_vec();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() || self.names.get(name) == Some(&addresses) {
            return;
        }
        self.names.insert(name.to_owned(), addresses);
        self.lookups.retry_now(now);
        self.refresh_petrs(now);
        self.look_for_nats(now);
        self.refresh_map_servers(now);
    }

    /// What the underlay's routing says of a remote RLOC: the largest outer packet in octets, or `None` without a route (PB-16).
    pub fn set_path(&mut self, now: Instant, rloc: IpAddr, mtu: Option<u16>) {
        let path =
            mtu.map_or(Path::None, |mtu| Path::Mtu(self.config.path_mtu.ceiling(rloc, Some(mtu))));
        let Some(locator) = self.locators.get_mut(&rloc) else { return };
        if locator.path != path {
            let state = locator.state();
            let is_back = std::mem::replace(&mut locator.path, path) == Path::None;
            if locator.state() != state {
                locator.since = now;
            }
            let has_route = locator.path != Path::None;
            if is_back {
                self.event(Event::LocatorRouted(rloc));
                self.hasten_probe(now, rloc);
            } else if !has_route {
                self.event(Event::LocatorNoRoute(rloc));
            }
            self.path_ceiling_changed(now, rloc);
            self.locator_changed(now, rloc);
        }
    }

    /// Whether the host can use an own RLOC: its address is there and its interface has a carrier. A change is registered, and every
    /// remote RLOC that got data in the last minute is solicited (SM-01); once it is up again, remote RLOCs that are down are probed at
    /// once. `clock` is the clock of [`LocatorSet::last_used`](crate::fib::LocatorSet), whole seconds.
    pub fn set_own_rloc(&mut self, now: Instant, rloc: IpAddr, up: bool, clock: u32) {
        if self.own.set_up(rloc, up) {
            self.own_side_changed(now);
            self.look_for_nats(now);
            self.register_change(now);
            let changed = self.prefixes_at(rloc);
            self.solicit_changed(now, clock, &changed);
            self.renew_subscriptions(now);
            if up {
                let remote: Vec<IpAddr> = self.remote_rlocs().collect();
                remote.into_iter().for_each(|remote| self.hasten_probe(now, remote));
            }
        }
    }

    /// The own RLOC that is the source of what goes to `rloc`; `None` if there is none of its family.
    pub fn source_towards(&self, rloc: IpAddr) -> Option<IpAddr> {
        let source = |locator: &Locator| locator.source(&self.own, rloc);
        self.locators.get(&rloc).map_or_else(|| self.own.for_family(rloc), source)
    }

    /// The remote RLOCs in use, for which [`Self::set_path`] is worth calling.
    pub fn remote_rlocs(&self) -> impl Iterator<Item = IpAddr> {
        self.locators.keys().copied()
    }

    /// Counts a message the kernel refused to send.
    pub fn count_send_failure(&mut self) {
        self.discard(Discard::SendFailed);
    }

    /// Why messages were discarded.
    pub fn discards(&self) -> &DiscardCounters {
        &self.discards
    }

    fn is_proxy(&self) -> bool {
        self.config.role == Role::Proxy
    }

    fn discard(&mut self, reason: Discard) {
        self.discards.count(reason);
    }

    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The data plane's coarse clock.
    fn clock_at(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.clock_zero).as_secs();
        u32::try_from(seconds + 1).unwrap_or(u32::MAX)
    }

    fn next_nonce(&mut self) -> u64 {
        self.rng.next_u64()
    }

    fn transmit(
        &mut self,
        source: IpAddr,
        source_port: SourcePort,
        destination: SocketAddr,
        payload: Vec<u8>,
    ) {
        self.transmits.push_back(Transmit { source, source_port, destination, payload });
    }

    /// The addresses of an endpoint that own RLOCs can reach.
    fn addresses_of(&self, endpoint: &Endpoint) -> Vec<IpAddr> {
        let reachable = |address: &&IpAddr| self.own.for_family(**address).is_some();
        match endpoint {
            Endpoint::Address(address) => {
                Some(address).into_iter().filter(reachable).copied().collect()
            }
            Endpoint::Name(name) => {
                self.names.get(name).into_iter().flatten().filter(reachable).copied().collect()
            }
        }
    }

    /// What is relaxed for whoever sends from there: a Map-Server of lispers.net forwards Map-Requests without inner checksum (EC-03).
    fn tolerance(&self, from: IpAddr) -> Tolerance {
        let zero_inner_checksum = self.is_map_server_of_lispers_net(from);
        Tolerance { zero_inner_checksum, ..Tolerance::NONE }
    }

    /// Whether whoever sends from there may give JSON LCAFs a wrong Length (CW-20).
    fn may_miscount_json(&self, from: IpAddr) -> bool {
        let is_peer = |peer: &Peer| {
            peer.profile == Profile::LispersNet && peer.prefix.contains(&from.to_canonical())
        };
        self.config.peers.iter().any(is_peer) || self.is_map_server_of_lispers_net(from)
    }

    fn is_map_server_of_lispers_net(&self, from: IpAddr) -> bool {
        let is_lispers_net = |server: &MapServer| {
            server.profile == Profile::LispersNet
                && self.addresses_of(&server.endpoint).contains(&from)
        };
        self.config.map_servers.iter().any(is_lispers_net)
    }

    /// Own EID-prefixes are delivered, never encapsulated (EN-24).
    fn install_own_prefixes(&mut self) {
        for (prefix, _) in self.database.iter() {
            self.fib_updates.push_back(FibUpdate::Insert(prefix, Verdict::Native));
        }
    }
}
