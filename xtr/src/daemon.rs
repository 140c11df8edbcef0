//! The running tunnel router: the only place where control plane, data plane and host meet.
//!
//! One task owns everything. It waits for a control message, a punt of the data plane, a question of the operator, news of DNS or of the
//! kernel, or a timer; lets the control plane handle it; and carries out what the control plane wants: datagrams, changes of the
//! forwarding table, path look-ups. The data plane never waits for it.
use crate::config::{Endpoint, HostConfig, Intake, Role, RouterConfig};
use crate::control::{ControlPlane, Event, HostSeen};
use crate::drops::DropReason;
use crate::engine::Engine;
use crate::fib::FibWriter;
use crate::host::changes::{Change, Changes};
use crate::host::lan::{Gateways, Lan};
use crate::host::map_versions::{self, MapVersions};
use crate::host::names::{Names, Resolved};
use crate::host::nonces::Nonces;
use crate::host::routing::Routing;
use crate::host::sockets::{ControlSockets, Datagram, IcmpSockets};
use crate::host::udp_errors::UdpErrors;
use crate::host::underlay::{self, Netlink, PathAnswer, PathQuestion};
use crate::host::{check_privileges, sysctl};
use crate::policy::Policy;
use crate::punt::{self, Punt, PuntReceiver};
use crate::tap::Tapper;
use health::Announcement;
use mapping::admin::{DropCount, Query, Request};
use mapping::view::{CountersView, StatusView};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use underlay_watch::Watch;

mod health;
mod lan;
mod underlay_watch;

mod reload;

pub use reload::Reload;

/// How long an orderly end waits for Map-Servers to acknowledge the deregistration.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
/// Control messages and path answers handled before the forwarding table is written and others get their turn.
const BATCH: usize = 256;
/// Between two log lines about unanswered lookups.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How often the data plane's health is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// Lists of questions about paths waiting: what comes meanwhile joins the next list, so that a slow kernel is asked everything once.
const PATH_QUESTIONS: usize = 1;
/// Answers about paths under way.
const PATH_ANSWERS: usize = 64;

/// Why a tunnel router could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The process lacks a capability.
    #[error("missing privilege: {0}")]
    MissingPrivilege(String),
    /// The configuration does not fit this host.
    #[error("bad configuration: {0}")]
    Configuration(String),
    /// The kernel refused something.
    #[error("{0}")]
    Runtime(#[source] io::Error),
}

impl DaemonError {
    /// The exit code of the process: 77, 78 or 1.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::MissingPrivilege(_) => 77,
            Self::Configuration(_) => 78,
            Self::Runtime(_) => 1,
        }
    }
}

impl From<io::Error> for DaemonError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::MissingPrivilege(error.to_string()),
            io::ErrorKind::AddrNotAvailable => Self::Configuration(error.to_string()),
            _ => Self::Runtime(error),
        }
    }
}

/// Runs a tunnel router until `shutdown` completes, then deregisters, withdraws its routes and stops forwarding; a proxy goes on forwarding
/// for [`HostConfig::drain`](crate::config::HostConfig::drain) when its routes are withdrawn. `ready` is called once
/// its sockets are bound and the data plane runs.
///
/// # Errors
/// [`DaemonError`] if it cannot start, or if the data plane fails later: whoever supervises the process starts it anew.
pub async fn run<P: Policy>(
    config: RouterConfig,
    policy: P,
    requests: mpsc::Receiver<Request>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    let (_, reloads) = mpsc::channel(1);
    run_reloadable(config, policy, requests, reloads, shutdown, ready).await
}

/// As [`run`], and takes over another configuration whenever `reloads` brings one.
///
/// # Errors
/// As [`run`].
pub async fn run_reloadable<P: Policy>(
    config: RouterConfig,
    policy: P,
    requests: mpsc::Receiver<Request>,
    reloads: mpsc::Receiver<Reload<P>>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    let policy = Arc::new(policy);
    let mut daemon = Daemon::start(config, Arc::clone(&policy)).await?;
    ready();
    let outcome = daemon.serve(policy, requests, reloads, shutdown).await;
    daemon.finish().await;
    outcome
}

/// Everything that runs.
struct Daemon {
    config: RouterConfig,
    started: Instant,
    control: ControlPlane,
    engine: Engine,
    tapper: Tapper,
    fib: FibWriter,
    /// Who may send for which EIDs, where that is checked.
    sources: Option<FibWriter>,
    punts: PuntReceiver,
    sockets: ControlSockets,
    datagrams: mpsc::Receiver<Datagram>,
    icmp: IcmpSockets,
    names: Names,
    netlink: Netlink,
    changes: Changes,
    routing: Routing,
    path_questions: mpsc::Sender<Vec<PathQuestion>>,
    path_answers: mpsc::Receiver<PathAnswer>,
    path_task: JoinHandle<()>,
    watch: Watch,
    announcement: Announcement,
    /// Interfaces (by index) that have, or had, an own RLOC.
    own_links: HashSet<u32>,
    /// What could not be set up at the start.
    notes: Vec<String>,
    /// No unanswered lookup is logged before.
    quiet_until: Option<Instant>,
    /// What the kernel had refused before we started.
    udp_errors: UdpErrors,
    ecn: EcnWatch,
    reports: ReportWatch,
    nonces: Nonces,
    map_versions: MapVersions,
    gateways: Gateways,
    lan: Option<Lan>,
}

impl Daemon {
    async fn start<P: Policy>(
        mut config: RouterConfig,
        policy: Arc<P>,
    ) -> Result<Self, DaemonError> {
        check_privileges()
            .map_err(|name| DaemonError::MissingPrivilege(format!("{name} is needed")))?;
        let netlink = Netlink::open()?;
        check_host(&netlink, &config).await?;
        let mut gateways = lan::gateways(&netlink, &mut config).await?;
        match Self::start_on(netlink, config, policy).await {
            Ok(mut daemon) => {
                let tun = daemon.engine.tun_index();
                match lan::start(&daemon.netlink, &daemon.config, &gateways, tun).await {
                    Ok(lan) => {
                        (daemon.lan, daemon.gateways) = (lan, gateways);
                        Ok(daemon)
                    }
                    Err(error) => {
                        daemon.gateways = gateways;
                        daemon.finish().await;
                        Err(error.into())
                    }
                }
            }
            Err(error) => {
                gateways.remove().await;
                Err(error)
            }
        }
    }

    /// On a host that has everything that is configured.
    async fn start_on<P: Policy>(
        netlink: Netlink,
        config: RouterConfig,
        policy: Arc<P>,
    ) -> Result<Self, DaemonError> {
        let refused = underlay_without_native(&netlink, &config).await?;
        let changes = Changes::listen()?;
        let rlocs: Vec<IpAddr> = config.control.rlocs.iter().map(|rloc| rloc.address).collect();
        let (sockets, datagrams) = ControlSockets::bind(&rlocs).await?;
        let icmp = IcmpSockets::open()?;
        let gateways = Gateways::none(netlink.handle());
        let (mut fib, readers) = FibWriter::new();
        let (sender, punts) = punt::queue(punt::DEFAULT_CAPACITY);
        let now = Instant::now();
        let nonces = open_nonces(&config, now)?;
        let (map_versions, kept) = open_versions(&config)?;
        let mut control_config = config.control.clone();
        if let Some(core) = &mut control_config.trusted_core {
            core.kept = kept;
        }
        let mut control = ControlPlane::new(control_config, now, rand::random(), nonces.base());
        fib.apply(std::iter::from_fn(|| control.poll_fib_update()));
        let (sources, source_readers) = if policy.checks_registration() {
            control.track_sources();
            let (writer, readers) = FibWriter::new();
            (Some(writer), Some(readers))
        } else {
            (None, None)
        };
        let mut engine = Engine::start_checking(
            &config.data,
            policy,
            &readers,
            source_readers.as_ref(),
            sender,
        )?;
        control.set_clock_zero(engine.started());
        control.set_dynamic_ranges(now, &config.host.ranges);
        let mut routing = Routing::new(netlink.handle());
        let installed = routing.install(&config.host, engine.tun_index(), &refused).await;
        if let Err(error) = installed {
            routing.remove().await;
            engine.stop();
            return Err(error.into());
        }
        let opened = take_native(&netlink, &mut engine).await;
        if let Err(error) = opened {
            routing.remove().await;
            engine.stop();
            return Err(error.into());
        }
        let notes = sysctl::configure_tun(engine.tun_name());
        for note in notes.iter().chain(&switch_notes(&config.host)) {
            tracing::warn!("{note}");
        }
        let (path_questions, questions) = mpsc::channel(PATH_QUESTIONS);
        let (answers, path_answers) = mpsc::channel(PATH_ANSWERS);
        let (handle, tun) = (netlink.handle(), engine.tun_index());
        let path_task = tokio::spawn(underlay::answer_paths(handle, tun, questions, answers));
        let mut daemon = Self {
            names: Names::follow(&names_of(&config)),
            started: now,
            watch: Watch::new(now),
            announcement: Announcement::default(),
            own_links: HashSet::new(),
            quiet_until: None,
            udp_errors: UdpErrors::read(),
            ecn: EcnWatch::default(),
            reports: ReportWatch::default(),
            config,
            control,
            tapper: engine.tapper(),
            engine,
            fib,
            sources,
            punts,
            sockets,
            datagrams,
            icmp,
            netlink,
            changes,
            routing,
            path_questions,
            path_answers,
            path_task,
            notes,
            nonces,
            map_versions,
            gateways,
            lan: None,
        };
        if daemon.watches_health() {
            daemon.control.watch_resolvers(now);
        }
        Ok(daemon)
    }

    async fn serve<P: Policy>(
        &mut self,
        mut policy: Arc<P>,
        mut requests: mpsc::Receiver<Request>,
        mut reloads: mpsc::Receiver<Reload<P>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), DaemonError> {
        let mut shutdown = pin!(shutdown);
        let (mut asking, mut reloading, mut ending) = (true, true, false);
        loop {
            self.carry_out();
            if let Some(failure) = self.engine.failure() {
                return Err(DaemonError::Runtime(io::Error::other(format!(
                    "no data-plane worker is left: {failure}"
                ))));
            }
            if self.announcement.end().is_some_and(|end| end <= Instant::now()) {
                return Ok(());
            }
            tokio::select! {
                () = &mut shutdown, if !ending => {
                    (ending, reloading) = (true, false);
                    if !self.drain(Instant::now()).await {
                        return Ok(());
                    }
                }
                request = requests.recv(), if asking => match request {
                    Some(request) => self.answer(request),
                    None => asking = false,
                },
                reload = reloads.recv(), if reloading => match reload {
                    Some(reload) => self.reload(&mut policy, reload).await,
                    None => reloading = false,
                },
                input = self.next_input() => self.handle(input).await,
            }
        }
    }

    /// Whatever happens next. Cancel-safe.
    async fn next_input(&mut self) -> Input {
        let mut next = self.watch.next_timeout().min(Instant::now() + HEALTH_INTERVAL);
        next = self.control.poll_timeout().map_or(next, |timeout| timeout.min(next));
        next = self.announcement.end().map_or(next, |end| end.min(next));
        tokio::select! {
            Some(datagram) = self.datagrams.recv() => Input::Datagram(datagram),
            () = self.punts.notified() => Input::Punts,
            Some(answer) = self.path_answers.recv() => Input::Path(answer),
            resolved = self.names.next() => Input::Name(resolved),
            host = lan::next(&mut self.lan) => Input::Host(host),
            change = self.changes.next() => Input::HostChanged(change),
            () = tokio::time::sleep_until(next.into()) => Input::Timeout,
        }
    }

    async fn handle(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Datagram(datagram) => self.handle_datagrams(now, datagram),
            Input::Punts => self.handle_punts(now),
            Input::Path(answer) => {
                self.path_answered(now, answer);
                for _ in 0..BATCH {
                    let Ok(answer) = self.path_answers.try_recv() else { break };
                    self.path_answered(now, answer);
                }
            }
            Input::Name(Resolved { name, addresses }) => {
                if addresses.is_empty() {
                    tracing::warn!(name, "cannot be resolved; the last good answer stays in use");
                }
                self.control.set_name(now, &name, &addresses);
            }
            Input::Host(host) => self.control.handle_host(now, &host),
            Input::HostChanged(change) => self.watch.changed(now, change),
            Input::Timeout => {}
        }
        if self.control.poll_timeout().is_some_and(|due| due <= now) {
            self.control.handle_timeout(now);
        }
        self.watch_path_reports(now);
        self.watch_ecn(now);
        self.nonces.keep(now, unix_nanos(), self.control.last_register_nonce());
        self.map_versions.keep(now, self.control.poll_map_versions());
        self.tapper.handle_timeout(now);
        self.watch_underlay(now).await;
        self.watch_health(now).await;
    }

    fn handle_datagrams(&mut self, now: Instant, first: Datagram) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(datagram) = next else { return };
            self.control.handle_input(now, datagram.local, datagram.from, &datagram.payload);
            next = self.datagrams.try_recv().ok();
        }
        if let Some(datagram) = next {
            self.control.handle_input(now, datagram.local, datagram.from, &datagram.payload);
        }
    }

    /// Drains the queue: a wake-up may stand for many messages. What comes beyond one full queue brings a wake-up of its own, so that a
    /// flood of misses keeps nobody else from their turn.
    fn handle_punts(&mut self, now: Instant) {
        for _ in 0..punt::DEFAULT_CAPACITY {
            let Some(punt) = self.punts.pop() else { return };
            match &punt {
                Punt::Miss { .. }
                | Punt::SourceMoved { .. }
                | Punt::SourceUnknown { .. }
                | Punt::Marked { .. }
                | Punt::HostSpoke { .. }
                | Punt::Unreachable { .. } => {
                    self.control.handle_punt(now, &punt);
                }
                Punt::IcmpError { destination, message } => {
                    if let Err(error) = self.icmp.send(*destination, message) {
                        tracing::debug!(%destination, %error, "ICMP error not sent");
                    }
                }
            }
        }
    }

    /// Does what the control plane wants done.
    fn carry_out(&mut self) {
        let updates: Vec<_> = std::iter::from_fn(|| self.control.poll_fib_update()).collect();
        let moved: Vec<_> = std::iter::from_fn(|| self.control.poll_source_update()).collect();
        if !updates.is_empty() || !moved.is_empty() {
            self.fib.apply(updates);
            if let Some(sources) = &mut self.sources {
                sources.apply(moved);
            }
            self.engine.wake();
        }
        if let Some(marks) = self.control.poll_marks() {
            self.engine.set_marks(marks);
        }
        while let Some(transmit) = self.control.poll_transmit() {
            if let Err(error) = self.sockets.send(&transmit) {
                let destination = transmit.destination;
                tracing::debug!(%destination, %error, "control message not sent");
                self.control.count_send_failure();
            }
        }
        while let Some(change) = self.control.poll_host_change() {
            if let Some(lan) = &mut self.lan {
                lan.apply(lan::change(change));
            }
        }
        while let Some(probe) = self.control.poll_path_probe() {
            // One that does not go is one that is not answered.
            if let Err(error) = self.sockets.send_path_probe(&probe) {
                let (destination, octets) = (probe.destination, probe.payload.len());
                tracing::debug!(%destination, octets, %error, "path probe not sent");
            }
        }
        while let Some(event) = self.control.poll_event() {
            if let Event::LocatorAdded(rloc) = event {
                self.watch.added(Instant::now(), rloc);
            }
            self.log(&event);
        }
        self.ask_paths(Instant::now());
    }

    fn log(&mut self, event: &Event) {
        match event {
            Event::LocatorAdded(rloc) => tracing::debug!(%rloc, "locator in use"),
            Event::LocatorUp(rloc) => tracing::info!(%rloc, "locator answers RLOC-probes"),
            Event::LocatorDown(rloc) => {
                tracing::info!(%rloc, "locator is down: RLOC-probes unanswered");
            }
            Event::LocatorRerouted { rloc, source } => {
                tracing::info!(%rloc, %source, "locator is reached from another own RLOC");
            }
            Event::Registered { prefix, map_server } => {
                tracing::info!(%prefix, %map_server, "registered");
            }
            Event::RegistrationUnanswered { prefix, map_server } => tracing::warn!(
                %prefix, %map_server,
                "registration unanswered: is the Map-Server running and is there a path to it? If so, compare key, key-id, algorithm and \
                 EID-prefix with its site"
            ),
            Event::RegistrationRefused { prefix, map_server } => {
                tracing::warn!(%prefix, %map_server, "the Map-Server does not accept this EID-prefix");
            }
            Event::LookupUnanswered(prefix) => {
                // Whoever scans EID space must not fill the log with it (CW-38).
                let now = Instant::now();
                if self.quiet_until.is_some_and(|until| now < until) {
                    return;
                }
                self.quiet_until = Some(now + LOG_INTERVAL);
                tracing::warn!(%prefix, "no Map-Resolver answers; next try in 30 s");
            }
            Event::ReplyRefused { prefix, from, reason } => {
                tracing::warn!(%prefix, %from, %reason, "Map-Reply refused: {}", reason.help());
            }
            Event::SubscriptionRefused(prefix) => {
                tracing::warn!(%prefix, "the Map-Server refuses the subscription; looked up without");
            }
            Event::PublicationReplayed { prefix, map_server } => {
                tracing::warn!(%prefix, %map_server, "a publication is not newer than the last one: replayed?");
            }
            Event::PathMtu { rloc, mtu } => tracing::info!(%rloc, mtu, "path MTU changed"),
            Event::EchoMissing(rloc) => {
                tracing::warn!(%rloc, "sends packets, but does not echo nonces: the path to it may be down");
            }
            Event::ImpossibleMapVersion { prefix, rloc, version, own } => {
                let (version, own) = (version.get(), own.get());
                tracing::warn!(%prefix, %rloc, version, own, "packets with a newer version of our mapping than there is are dropped");
            }
            Event::MapCacheFull => {
                tracing::debug!("map-cache full: the least recently used entries made room");
            }
        }
    }

    /// Tells the control plane what the data plane was told of path MTUs, at most once a second.
    fn watch_path_reports(&mut self, now: Instant) {
        if self.reports.due.is_some_and(|due| now < due) {
            return;
        }
        self.reports.due = Some(now + HEALTH_INTERVAL);
        let seen = self.engine.counters().path_mtu_lowered;
        if std::mem::replace(&mut self.reports.seen, seen) != seen {
            for (rloc, mtu) in self.engine.path_mtus().reported(now) {
                self.control.set_reported_mtu(now, rloc, mtu);
            }
        }
    }

    /// DE-14: what RFC 6040 §4.2 wants logged, at a bounded rate, with a switch.
    fn watch_ecn(&mut self, now: Instant) {
        if !self.config.data.log_unusual_ecn || self.ecn.due.is_some_and(|due| now < due) {
            return;
        }
        self.ecn.due = Some(now + LOG_INTERVAL);
        let counters = self.engine.counters();
        let seen = (counters.ecn_unused_combination, counters.dropped(DropReason::EcnNotEctCe));
        let before = std::mem::replace(&mut self.ecn.seen, seen);
        if seen != before {
            tracing::warn!(
                delivered = seen.0 - before.0,
                dropped = seen.1 - before.1,
                "packets with a combination of inner and outer ECN that no tunnel makes: something on the path rewrites ECN"
            );
        }
    }

    fn answer(&mut self, request: Request) {
        // Whoever asked may be gone by now.
        let _ = request.reply.send(self.view(&request.query));
    }

    fn view(&mut self, query: &Query) -> Result<Value, String> {
        let now = Instant::now();
        let json = match query {
            Query::Tap(query) => {
                serde_json::to_value(self.tapper.begin(now, time_of_day(), query)?)
            }
            Query::TapNext { session, stop } => {
                serde_json::to_value(self.tapper.fetch(now, *session, *stop)?)
            }
            Query::MapCache => serde_json::to_value(self.control.map_cache_view(now)),
            Query::Locators => serde_json::to_value(self.control.locators_view(now)),
            Query::Registrations if self.config.control.role == Role::Proxy => {
                return Err("a gateway registers no EID-prefixes and keeps no registrations: ask a tunnel router or a Map-Server".to_owned());
            }
            Query::Registrations => serde_json::to_value(self.control.registrations_view(now)),
            Query::Counters => serde_json::to_value(self.counters()),
            Query::Drops => serde_json::to_value(self.drops()),
            Query::Status => serde_json::to_value(self.status(now)),
            Query::Subscriptions => serde_json::to_value(self.control.subscriptions_view(now)),
            Query::Mobility => serde_json::to_value(self.control.mobility_view(now)),
            Query::Explain(question) => {
                let known = self.control.known(now);
                let explained = self.engine.explainer().explain(now, question, &known)?;
                serde_json::to_value(explained)
            }
            Query::Sites | Query::Refusals | Query::Referrals | Query::Delegations => {
                return Err(
                    "this daemon is no Map-Server: ask one, with `--role mapping`".to_owned()
                );
            }
            Query::Traffic => {
                serde_json::to_value(self.control.traffic_view(&self.engine.arrivals()))
            }
            Query::Reload => {
                return Err("the configuration did not come from a file".to_owned());
            }
        };
        json.map_err(|error| error.to_string())
    }

    /// Of the data plane and the control plane; encapsulation and decapsulation are named after the role that does them.
    fn counters(&self) -> CountersView {
        let mut counters = self.engine.counters().by_name();
        let names: &[_] = match self.config.control.role {
            Role::Xtr => &[("encapsulated", "itr_encap"), ("decapsulated", "etr_decap")],
            Role::Proxy => &[
                ("encapsulated", "pitr_encap"),
                ("decapsulated", "petr_decap"),
                ("reencapsulated", "rtr_reencap"),
            ],
        };
        for &(general, own) in names {
            if let Some(count) = counters.remove(general) {
                counters.insert(own.to_owned(), count);
            }
        }
        counters.extend(self.control.counters_view());
        counters.extend(self.lan.iter().flat_map(Lan::counters));
        let kernel = UdpErrors::read().since(self.udp_errors);
        counters.insert("kernel_udp_checksum_errors".to_owned(), kernel.checksum);
        counters.insert("kernel_udp_buffer_errors".to_owned(), kernel.buffer);
        counters
    }

    /// Packets dropped by the data plane, then what the kernel dropped before it, then control messages discarded (their names begin
    /// with `control_`).
    fn drops(&self) -> Vec<DropCount> {
        let counters = self.engine.counters();
        let packets = DropReason::ALL.iter().map(|&reason| DropCount {
            reason: reason.name().to_owned(),
            count: counters.dropped(reason),
            help: reason.help().to_owned(),
        });
        let messages = self.control.discards().non_zero().into_iter().map(|mut discard| {
            discard.reason.insert_str(0, "control_");
            discard
        });
        let kernel = UdpErrors::read().since(self.udp_errors);
        let kernel = [
            ("kernel_udp_checksum", kernel.checksum, KERNEL_CHECKSUM_HELP),
            ("kernel_udp_buffer", kernel.buffer, KERNEL_BUFFER_HELP),
        ]
        .map(|(reason, count, help)| DropCount {
            reason: reason.to_owned(),
            count,
            help: help.to_owned(),
        });
        packets.chain(kernel).filter(|drop| drop.count > 0).chain(messages).collect()
    }

    fn status(&self, now: Instant) -> StatusView {
        let mut notes = self.notes.clone();
        notes.extend(switch_notes(&self.config.host));
        notes.extend(
            self.watch
                .missing
                .iter()
                .map(|rloc| format!("RLOC {rloc} is down: its address or its link is gone.")),
        );
        notes.extend(self.announcement.note(now));
        let workers = self.engine.worker_views();
        notes.extend(workers.iter().filter_map(|worker| {
            let reason = worker.failure.as_ref()?;
            Some(format!(
                "Data-plane worker {} ended: {reason}. The others took its flows; restart the daemon to have it back.",
                worker.number
            ))
        }));
        notes.extend(self.nonces.notes(now, unix_nanos()));
        notes.extend(self.map_versions.notes());
        notes.extend(self.control.notes());
        StatusView {
            role: role_name(self.config.control.role).to_owned(),
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            healthy: notes.is_empty(),
            intake: Some(self.intake()),
            notes,
            workers,
        }
    }

    fn intake(&self) -> String {
        let tun = format!("TUN {}", self.engine.tun_name());
        match &self.config.data.intake {
            Intake::Tun => tun,
            Intake::Ring(ring) => format!("ring on {}, else {tun}", ring.interfaces.join(", ")),
        }
    }

    /// OP-04: a proxy attracts nothing any more before it stops; an xTR is gone from the mapping system before it stops.
    async fn finish(mut self) {
        if self.config.control.role == Role::Proxy {
            self.routing.remove().await;
        }
        let now = Instant::now();
        let patience = tokio::time::sleep(SHUTDOWN_PATIENCE);
        let mut patience = pin!(patience);
        self.control.shutdown(now);
        self.carry_out();
        while !self.control.is_deregistered() {
            tokio::select! {
                () = &mut patience => {
                    tracing::warn!("no Map-Server acknowledged the deregistration in time");
                    break;
                }
                input = self.next_input() => self.handle(input).await,
            }
            self.carry_out();
        }
        if let Some(lan) = self.lan.take() {
            lan.finish().await;
        }
        self.routing.remove().await;
        self.path_task.abort();
        self.nonces.close(Instant::now(), unix_nanos(), self.control.last_register_nonce());
        self.map_versions.close();
        self.engine.stop();
        self.gateways.remove().await;
        tracing::info!("stopped");
    }
}

const KERNEL_CHECKSUM_HELP: &str = "The kernel dropped datagrams whose UDP checksum is wrong (RFC 9300 §5.3): since the start, in this network \
    namespace, whatever their port.";
const KERNEL_BUFFER_HELP: &str = "The kernel dropped datagrams because the receive buffer of their socket was full: since the start, in \
    this network namespace, whatever their port.";

/// What the control plane was last told of path MTUs.
#[derive(Debug, Default)]
struct ReportWatch {
    due: Option<Instant>,
    /// How many reports lowered one.
    seen: u64,
}

/// What was last logged of ECN.
#[derive(Debug, Default)]
struct EcnWatch {
    due: Option<Instant>,
    /// Unusual combinations delivered, and dropped.
    seen: (u64, u64),
}

/// What wakes the daemon.
enum Input {
    Datagram(Datagram),
    Host(HostSeen),
    Punts,
    Path(PathAnswer),
    Name(Resolved),
    HostChanged(Change),
    Timeout,
}

/// Lets the intake by ring begin, now that everything is in place.
async fn take_native(netlink: &Netlink, engine: &mut Engine) -> io::Result<()> {
    let own = underlay::own_addresses(&netlink.handle()).await?;
    engine.take_native(&own.into_keys().collect::<Vec<_>>())
}

/// What is configured must exist.
async fn check_host(netlink: &Netlink, config: &RouterConfig) -> Result<(), DaemonError> {
    let present = underlay::own_addresses(&netlink.handle()).await?;
    for rloc in &config.control.rlocs {
        if !present.contains_key(&rloc.address) {
            let problem = format!("RLOC {} is on no interface of this host", rloc.address);
            return Err(DaemonError::Configuration(problem));
        }
    }
    let interfaces = underlay::interfaces(&netlink.handle()).await?;
    for name in config.host.site_interfaces.iter().chain(&config.host.native_interfaces) {
        if interfaces.values().all(|interface| interface.name != *name) {
            let problem = format!("interface {name} does not exist on this host");
            return Err(DaemonError::Configuration(problem));
        }
    }
    Ok(())
}

/// The interfaces from which a proxy takes no native packets (PI-07): those that hold an own RLOC and are not configured to be native too.
async fn underlay_without_native(
    netlink: &Netlink,
    config: &RouterConfig,
) -> io::Result<BTreeSet<String>> {
    if config.control.role != Role::Proxy {
        return Ok(BTreeSet::new());
    }
    let mut refused = underlay::interfaces_of(&netlink.handle(), &config.data.rlocs).await?;
    refused.retain(|name| !config.host.native_interfaces.contains(name));
    if !config.host.announce.is_empty() {
        tracing::info!(interfaces = ?refused, "no native packets are taken from the underlay");
    }
    Ok(refused)
}

/// Which switches of the host keep traffic from flowing now, although everything of ours is in place.
fn switch_notes(config: &HostConfig) -> Vec<String> {
    let prefixes = || config.announce.iter().chain(&config.site_prefixes);
    let ipv4 = prefixes().any(|prefix| prefix.addr().is_ipv4());
    let ipv6 = prefixes().any(|prefix| prefix.addr().is_ipv6());
    let both = !ipv4 && !ipv6;
    sysctl::check_host(ipv4 || both, ipv6 || both)
}

fn names_of(config: &RouterConfig) -> BTreeSet<String> {
    let control = &config.control;
    let servers = control.map_servers.iter().map(|server| &server.endpoint);
    let petrs = control.use_petr.iter().map(|petr| &petr.endpoint);
    let endpoints =
        control.map_resolvers.iter().chain(servers).chain(petrs).chain(&control.proxy_itrs);
    endpoints
        .filter_map(|endpoint| match endpoint {
            Endpoint::Name(name) => Some(name.clone()),
            Endpoint::Address(_) => None,
        })
        .collect()
}

/// Where this run's nonces begin, from `state-dir` if there is one.
fn open_nonces(config: &RouterConfig, now: Instant) -> Result<Nonces, DaemonError> {
    let role = role_name(config.control.role);
    let nonces = Nonces::open(config.state_dir.as_deref(), role, now, unix_nanos())
        .map_err(|error| DaemonError::Configuration(format!("state-dir: {error}")))?;
    for note in nonces.notes(now, unix_nanos()) {
        tracing::error!("{note}");
    }
    Ok(nonces)
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Xtr => "xtr",
        Role::Proxy => "gateway",
    }
}

/// The versions of own mappings in an earlier run, from `state-dir` if there is one.
fn open_versions(config: &RouterConfig) -> Result<map_versions::Opened, DaemonError> {
    let core = config.control.trusted_core.as_ref();
    let is_on = core.is_some_and(|core| core.map_versioning);
    let directory = config.state_dir.as_deref().filter(|_| is_on);
    MapVersions::open(directory)
        .map_err(|error| DaemonError::Configuration(format!("state-dir: {error}")))
}

/// The time of day, nanoseconds since 1970.
fn unix_nanos() -> u64 {
    let since_epoch = time_of_day().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[allow(
    clippy::disallowed_methods,
    reason = "nonces must grow across restarts, and captures are compared with others: only the time of day serves"
)]
fn time_of_day() -> SystemTime {
    SystemTime::now()
}
