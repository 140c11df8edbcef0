//! What the three role verbs share: configuration, logs, admin socket, signals, the service manager.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mapping::admin::Request;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::lifecycle::{Lifecycle, Role, Signals, Version};
use super::logging::Levels;
use super::{Failure, doctor, logging, service};
use crate::admin::{self, server};
use crate::config::{self, Host, RoleConfig, Service};
use crate::{metrics, web};
use ::xtr::config::{Intake, RouterConfig};
use ::xtr::daemon::{End, Predecessor, Reload};
use ::xtr::host::privileges::{self, Needs};
use ::xtr::policy::Policy;

/// Questions that may wait for the daemon.
const WAITING_QUESTIONS: usize = 32;

/// How a daemon is run.
#[derive(Debug, Args)]
#[command(
    after_help = "The daemon stays in the foreground, logs to standard error and tells systemd when it \
is ready and alive. SIGTERM and SIGINT end it in order; a second one ends it at once. SIGHUP has it reload its configuration, see \
isthmus reload --help; SIGUSR1 has it write what it knows to its log; SIGUSR2 has it give way to its \
successor, to which systemd passes the tunnel device, so that no route goes."
)]
pub(crate) struct DaemonArgs {
    /// The configuration file [default: /etc/isthmus/ROLE.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin socket [default: /run/isthmus/ROLE.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Become this user before anything is read or opened, with the capabilities that the role needs and no other
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    log: logging::LogArgs,
}

/// What a daemon is given to live with.
pub(crate) struct Surroundings {
    /// Questions from the admin socket.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Resolves when the daemon is to end.
    pub(crate) shutdown: std::pin::Pin<Box<dyn Future<Output = End>>>,
    /// What the process before left.
    pub(crate) predecessor: Predecessor,
    /// To be called once it works.
    pub(crate) ready: Box<dyn FnOnce()>,
}

/// A daemon that is about to start.
pub(crate) struct Prepared {
    /// What was read.
    pub(crate) config: RoleConfig,
    version: Version,
    levels: Levels,
    /// What it has beside its work.
    service: Service,
}

/// Reads the configuration of `role`, and starts logs.
pub(crate) fn prepare(args: &DaemonArgs, role: &'static str) -> Result<Prepared, Failure> {
    let not_understood = |error| Failure::Usage(format!("--log: {error}"));
    logging::check(&args.log).map_err(not_understood)?;
    change_user(args, role)?;
    let path = config_path(args, role);
    let host = Host::read().map_err(|e| Failure::Failed(format!("own addresses: {e}")))?;
    // One that cannot be read is an error of `load`.
    let text = config::read_file(&path).unwrap_or_default();
    let loaded = match text.is_empty() {
        true => config::load(&path, Some(host)),
        false => config::load_text(&path, &text, Some(host)),
    };
    let loaded = loaded.map_err(|refused| Failure::BadConfiguration(refused.errors))?;
    keep_capabilities(&loaded.config)?;
    let levels = logging::start(&args.log, &loaded.service, role).map_err(not_understood)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let found = loaded.config.role();
    if found != role {
        let path = path.display();
        return Err(Failure::Usage(format!(
            "{path} configures the role {found}; run `isthmus {found} --config {path}`"
        )));
    }
    let version = Version::new(&path, text, &loaded);
    Ok(Prepared { config: loaded.config, version, levels, service: loaded.service })
}

/// Becomes the user that is asked for: what that user cannot read, a reload could not either.
fn change_user(args: &DaemonArgs, role: &str) -> Result<(), Failure> {
    let Some(user) = &args.user else { return Ok(()) };
    let needs = match role {
        "mapping" => privileges::OF_MAP_SERVER,
        _ => privileges::OF_ROUTER,
    };
    // Only the usual directory is ours to give away.
    let directory = admin::socket_of(role).parent().map(Path::to_path_buf);
    let directory = directory.filter(|_| args.socket.is_none());
    privileges::become_user(user, needs, directory.as_deref()).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::NoPrivilege(format!("--user: {error}")),
        io::ErrorKind::NotFound => Failure::Usage(format!("--user: {error}")),
        _ => Failure::Failed(format!("--user: {error}")),
    })
}

/// Takes the capabilities that this configuration needs, and gives up all others: CAP_BPF is for `intake = "ring"` alone. Root is left as it is.
fn keep_capabilities(config: &RoleConfig) -> Result<(), Failure> {
    let of_router = |router: &RouterConfig| match router.data.intake {
        Intake::Ring(_) => privileges::OF_ROUTER,
        Intake::Tun => privileges::WITHOUT_RING,
    };
    let needs: Needs = match config {
        RoleConfig::Gateway(config) => of_router(&config.router),
        RoleConfig::Xtr(config) => of_router(config),
        RoleConfig::Mapping(_) => privileges::OF_MAP_SERVER,
    };
    if privileges::is_root() {
        return Ok(());
    }
    privileges::keep_only(needs).map_err(|error| Failure::Failed(format!("capabilities: {error}")))
}

fn config_path(args: &DaemonArgs, role: &str) -> PathBuf {
    let usual = || PathBuf::from(format!("/etc/isthmus/{role}.toml"));
    args.config.clone().unwrap_or_else(usual)
}

/// Runs `daemon` with its surroundings until it ends. It is sent other configurations while it runs.
pub(crate) fn run<M, F>(
    args: &DaemonArgs,
    prepared: Prepared,
    role: Role<M>,
    daemon: impl FnOnce(RoleConfig, Surroundings, mpsc::Receiver<M>) -> F,
) -> Result<(), Failure>
where
    M: Send + 'static,
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("runtime: {error}")))?;
    runtime.block_on(live(args, prepared, role, daemon))
}

async fn live<M, F>(
    args: &DaemonArgs,
    prepared: Prepared,
    role: Role<M>,
    daemon: impl FnOnce(RoleConfig, Surroundings, mpsc::Receiver<M>) -> F,
) -> Result<(), Failure>
where
    M: Send + 'static,
    F: Future<Output = Result<(), Failure>>,
{
    let Prepared { config, version, levels, service } = prepared;
    let name = role.name;
    let predecessor = service::predecessor();
    doctor::examine(&config).await;
    let socket = args.socket.clone().unwrap_or_else(|| admin::socket_of(name));
    let server = server::Server::bind(&socket).map_err(|error| socket_failure(&socket, error))?;
    let (sender, asked) = mpsc::channel(WAITING_QUESTIONS);
    let watchdog = sender.clone();
    if let Some(address) = service.metrics {
        let metrics = metrics::server::Server::bind(address).await;
        let metrics = metrics.map_err(|error| http_failure("metrics", address, &error))?;
        tokio::spawn(metrics.serve(sender.clone()));
    }
    if let Some(config) = service.web {
        let address = config.listen;
        let page = web::server::Server::bind(config).await;
        let page = page.map_err(|error| http_failure("web page", address, &error))?;
        tokio::spawn(page.serve(sender.clone()));
    }
    let serving = tokio::spawn(server.serve(sender));
    let no_signals = |error| Failure::Failed(format!("signals: {error}"));
    let ends = EndSignals::new().map_err(no_signals)?;
    let others = Signals {
        hangup: signal(SignalKind::hangup()).map_err(no_signals)?,
        dump: signal(SignalKind::user_defined1()).map_err(no_signals)?,
    };
    let (passed_on, requests) = mpsc::channel(1);
    let (orders, reloads) = mpsc::channel(1);
    tokio::spawn(Lifecycle::new(role, version, levels, orders).serve(asked, passed_on, others));
    let ready = Box::new(move || {
        tracing::info!(role = name, socket = %socket.display(), "ready");
        service::ready("working");
        if let Some(period) = sd_notify::watchdog_enabled() {
            tokio::spawn(service::feed_watchdog(period, watchdog));
        }
    });
    let around = Surroundings { requests, shutdown: Box::pin(ends.wait()), predecessor, ready };
    let result = daemon(config, around, reloads).await;
    // The daemon dropped its end of the questions, so the server ends and removes its socket.
    let _ = timeout(Duration::from_secs(1), serving).await;
    if result.is_ok() {
        tracing::info!(role = name, "stopped");
    }
    result
}

/// Runs a tunnel router, whose part of the configuration `read` finds.
pub(crate) fn run_router<P: Policy>(
    args: &DaemonArgs,
    role: Role<Reload<P>>,
    read: fn(RoleConfig) -> Option<(RouterConfig, P)>,
) -> Result<(), Failure> {
    let prepared = prepare(args, role.name)?;
    run(args, prepared, role, |config, around, reloads| async move {
        let (config, policy) = read(config).ok_or_else(of_another_role)?;
        let Surroundings { requests, shutdown, predecessor, ready } = around;
        let asked = (requests, reloads);
        ::xtr::daemon::run_service(config, policy, asked, predecessor, shutdown, ready)
            .await
            .map_err(|error| super::xtr::failure(&error))
    })
}

pub(crate) fn of_another_role() -> Failure {
    Failure::Failed("the configuration is of another role".to_owned())
}

/// An I/O error of a daemon's start or run, by what the operator can do about it.
pub(crate) fn io_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::NoPrivilege(format!(
            "{error}: a privilege is missing; run as root, or with CAP_NET_ADMIN and CAP_NET_RAW"
        )),
        io::ErrorKind::AddrNotAvailable => Failure::Misfit(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    }
}

fn socket_failure(socket: &Path, error: io::Error) -> Failure {
    let text = format!("admin socket {}: {error}", socket.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::NoPrivilege(format!("{text}; run as root, or name another with --socket"))
        }
        _ => Failure::Failed(text),
    }
}

fn http_failure(what: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let text = format!("{what} at {address}: {error}");
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => Failure::Misfit(text),
        _ => Failure::Failed(text),
    }
}

/// The signals that end a daemon.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    restart: Signal,
}

impl EndSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            restart: signal(SignalKind::user_defined2())?,
        })
    }

    /// Resolves at the first signal; the second ends the process without ceremony.
    async fn wait(mut self) -> End {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping");
        let is_restart = name == RESTART;
        let status = if is_restart { "giving way to the next process" } else { "draining" };
        service::notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(i32::from(super::FAILED));
        });
        if is_restart { End::Restart(Box::new(service::keep)) } else { End::Stop }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.restart.recv() => RESTART,
        }
    }
}

/// The signal that asks for the way of `systemctl restart`.
const RESTART: &str = "SIGUSR2";
