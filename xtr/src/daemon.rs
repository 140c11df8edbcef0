//! The running tunnel router: the only place where control plane, data plane and host meet.
//!
//! One task owns everything. It waits for a control message, a punt of the data plane, a question of the operator, news of DNS or of the
//! kernel, or a timer; lets the control plane handle it; and carries out what the control plane wants: datagrams, changes of the
//! forwarding table, path look-ups. The data plane never waits for it.
use crate::config::{Role, RouterConfig};
use crate::control::{ControlPlane, Event, HostSeen};
use crate::engine::Engine;
use crate::fib::FibWriter;
use crate::host::changes::{Change, Changes};
use crate::host::checkpoint::Checkpoint;
use crate::host::lan::{Gateways, Lan};
use crate::host::map_versions::MapVersions;
use crate::host::names::{Names, Resolved};
use crate::host::nonces::Nonces;
use crate::host::routing::Routing;
use crate::host::sockets::{ControlSockets, Datagram, IcmpSockets};
use crate::host::udp_errors::UdpErrors;
use crate::host::underlay::{Netlink, PathAnswer, PathQuestion};
use crate::policy::Policy;
use crate::punt::{self, Punt, PuntReceiver};
use crate::tap::Tapper;
use health::Announcement;
use mapping::admin::Request;
use mapping::recorder::Told;
use observe::{EcnWatch, ReportWatch};
use record::Record;
use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use underlay_watch::Watch;
use upkeep::Upkeep;

mod answers;
mod events;
mod health;
mod interfaces;
mod lan;
mod nat;
mod observe;
mod record;
mod reload;
mod restart;
mod start;
mod underlay_watch;
mod upkeep;

pub use reload::Reload;
pub use restart::{End, Keep, Predecessor};

/// How long an orderly end waits for Map-Servers to acknowledge the deregistration.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
/// Control messages and path answers handled before the forwarding table is written and others get their turn.
const BATCH: usize = 256;
/// Between two log lines about the same kind of trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How often the data plane's health is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

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
    let shutdown = async {
        shutdown.await;
        End::Stop
    };
    run_service(config, policy, (requests, reloads), Predecessor::None, shutdown, ready).await
}

/// As [`run_reloadable`], and follows on what a process before left; `shutdown` says how this one is to end.
///
/// # Errors
/// As [`run`].
pub async fn run_service<P: Policy>(
    config: RouterConfig,
    policy: P,
    (requests, reloads): (mpsc::Receiver<Request>, mpsc::Receiver<Reload<P>>),
    predecessor: Predecessor,
    shutdown: impl Future<Output = End>,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    let policy = Arc::new(policy);
    let mut daemon = Daemon::start(config, Arc::clone(&policy), predecessor).await?;
    ready();
    match daemon.serve(policy, requests, reloads, shutdown).await {
        Ok(End::Restart(keep)) => daemon.give_way(keep).await,
        Ok(End::Stop) => daemon.finish().await,
        Err(error) => {
            daemon.finish().await;
            return Err(error);
        }
    }
    Ok(())
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
    upkeep: Upkeep,
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
    checkpoint: Checkpoint,
    /// The map-cache when it was kept last, see [`ControlPlane::mappings_changed`].
    kept_mark: u64,
    gateways: Gateways,
    lan: Option<Lan>,
    record: Record,
}

impl Daemon {
    async fn serve<P: Policy>(
        &mut self,
        mut policy: Arc<P>,
        mut requests: mpsc::Receiver<Request>,
        mut reloads: mpsc::Receiver<Reload<P>>,
        shutdown: impl Future<Output = End>,
    ) -> Result<End, DaemonError> {
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
                return Ok(End::Stop);
            }
            tokio::select! {
                end = &mut shutdown, if !ending => {
                    (ending, reloading) = (true, false);
                    if matches!(end, End::Restart(_)) || !self.drain(Instant::now()).await {
                        return Ok(end);
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
        next = next.min(self.record.next_timeout());
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
        self.record.heard(now);
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
                    self.record.tell(Told::warning(
                        "name-unresolved",
                        &name,
                        "the last good answer stays in use",
                    ));
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
        self.keep_map_cache(now);
        self.tapper.handle_timeout(now);
        self.watch_underlay(now).await;
        self.watch_health(now).await;
        self.look_after_routing(now).await;
        self.keep_record(now);
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
                | Punt::ControlInData { .. }
                | Punt::Heard { .. }
                | Punt::Left { .. }
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
            self.record.converged();
            self.engine.wake();
        }
        if let Some(marks) = self.control.poll_marks() {
            self.engine.set_marks(marks);
        }
        while let Some(transmit) = self.control.poll_transmit() {
            if let Err(error) = self.send(&transmit) {
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
            self.keep(&event);
        }
        self.ask_paths(Instant::now());
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
        self.close_map_cache();
        self.close().await;
    }

    /// What every end has in common.
    async fn close(mut self) {
        self.path_task.abort();
        self.nonces.close(Instant::now(), unix_nanos(), self.control.last_register_nonce());
        self.map_versions.close();
        self.engine.stop();
        self.gateways.remove().await;
        tracing::info!("stopped");
    }
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

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Xtr => "xtr",
        Role::Proxy => "gateway",
    }
}

/// The time of day, seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    unix_nanos() / 1_000_000_000
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
