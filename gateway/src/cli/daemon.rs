//! What the three role verbs share: configuration, logs, admin socket, signals, the service manager.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mapping::admin::{Query, Request};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Failure, logging, reload};
use crate::admin::{self, server};
use crate::config::{self, Host, RoleConfig, Service};
use crate::metrics;
use ::xtr::policy::Policy;

/// Questions that may wait for the daemon.
const WAITING_QUESTIONS: usize = 32;

/// How a daemon is run.
#[derive(Debug, Args)]
#[command(
    after_help = "The daemon stays in the foreground, logs to standard error and tells systemd when it \
is ready and alive. SIGTERM and SIGINT end it in order; a second one ends it at once. SIGHUP has a gateway or an xTR reload \
its configuration, see isthmus reload --help; a Map-Server it ends."
)]
pub(crate) struct DaemonArgs {
    /// The configuration file [default: /etc/isthmus/ROLE.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin socket [default: /run/isthmus/ROLE.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    log: logging::LogArgs,
}

/// What a daemon is given to live with.
pub(crate) struct Surroundings {
    /// Questions from the admin socket.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Resolves when the daemon is to stop.
    pub(crate) shutdown: std::pin::Pin<Box<dyn Future<Output = ()>>>,
    /// To be called once it works.
    pub(crate) ready: Box<dyn FnOnce()>,
}

/// The configuration of a daemon.
pub(crate) struct Prepared {
    /// Its role's.
    pub(crate) config: RoleConfig,
    /// Logs and metrics.
    pub(crate) service: Service,
    /// The text of the file.
    text: String,
}

/// Reads the configuration of `role` and starts logs as it says.
pub(crate) fn prepare(args: &DaemonArgs, role: &'static str) -> Result<Prepared, Failure> {
    let no_filter = |error| Failure::Usage(format!("--log: {error}"));
    logging::check(&args.log).map_err(no_filter)?;
    let path = config_path(args, role);
    let host = Host::read().map_err(|e| Failure::Failed(format!("own addresses: {e}")))?;
    // One that cannot be read is an error of `load`.
    let text = config::read_file(&path).unwrap_or_default();
    let loaded = match text.is_empty() {
        true => config::load(&path, Some(host)),
        false => config::load_text(&path, &text, Some(host)),
    };
    let loaded = loaded.map_err(|refused| Failure::BadConfiguration(refused.errors))?;
    logging::start(&args.log, &loaded.service, role).map_err(no_filter)?;
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
    Ok(Prepared { config: loaded.config, service: loaded.service, text })
}

fn config_path(args: &DaemonArgs, role: &str) -> PathBuf {
    let usual = || PathBuf::from(format!("/etc/isthmus/{role}.toml"));
    args.config.clone().unwrap_or_else(usual)
}

/// Runs `daemon` with its surroundings until it ends. A hangup ends it like the other signals.
pub(crate) fn run<F, T>(
    args: &DaemonArgs,
    role: &'static str,
    service: &Service,
    daemon: impl FnOnce(Surroundings) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    live(args, role, service, None, daemon)
}

/// Runs a tunnel router, which reads its configuration anew when it is asked to, or gets a hangup.
pub(crate) fn run_router<P: Policy>(
    args: &DaemonArgs,
    role: &'static str,
    reloading: reload::Role<P>,
) -> Result<(), Failure> {
    let Prepared { config, service, text } = prepare(args, role)?;
    let Some((config, policy)) = (reloading.read)(config) else {
        return Err(Failure::Failed("the configuration is of another role".to_owned()));
    };
    let (sender, reloads) = mpsc::channel(1);
    let reloader = reload::Reloader::new(&config_path(args, role), text, reloading, sender);
    let between: Between = Box::new(move |requests, daemon, hangups| {
        tokio::spawn(reloader.serve(requests, daemon, hangups));
    });
    live(args, role, &service, Some(between), |around| async move {
        let Surroundings { requests, shutdown, ready } = around;
        ::xtr::daemon::run_reloadable(config, policy, requests, reloads, shutdown, ready)
            .await
            .map_err(|error| super::xtr::failure(&error))
    })
}

/// Stands between the admin socket and the daemon, and heeds hangups.
type Between = Box<dyn FnOnce(mpsc::Receiver<Request>, mpsc::Sender<Request>, Signal)>;

fn live<F, T>(
    args: &DaemonArgs,
    role: &'static str,
    service: &Service,
    between: Option<Between>,
    daemon: impl FnOnce(Surroundings) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("runtime: {error}")))?;
    runtime.block_on(async {
        let socket = args.socket.clone().unwrap_or_else(|| admin::socket_of(role));
        let server =
            server::Server::bind(&socket).map_err(|error| socket_failure(&socket, error))?;
        let (sender, mut requests) = mpsc::channel(WAITING_QUESTIONS);
        let watchdog = sender.clone();
        if let Some(address) = service.metrics {
            let metrics = metrics::server::Server::bind(address).await;
            let metrics = metrics.map_err(|error| metrics_failure(address, &error))?;
            tokio::spawn(metrics.serve(sender.clone()));
        }
        let serving = tokio::spawn(server.serve(sender));
        let no_signals = |error| Failure::Failed(format!("signals: {error}"));
        let signals = Signals::new(between.is_none()).map_err(no_signals)?;
        if let Some(between) = between {
            let hangups = signal(SignalKind::hangup()).map_err(no_signals)?;
            let (daemon, passed_on) = mpsc::channel(1);
            between(std::mem::replace(&mut requests, passed_on), daemon, hangups);
        }
        let ready = Box::new(move || {
            tracing::info!(role, socket = %socket.display(), "ready");
            notify(&[NotifyState::Ready]);
            if let Some(period) = sd_notify::watchdog_enabled() {
                tokio::spawn(feed_watchdog(period, watchdog));
            }
        });
        let result =
            daemon(Surroundings { requests, shutdown: Box::pin(signals.wait()), ready }).await;
        // The daemon dropped its end of the questions, so the server ends and removes its socket.
        let _ = timeout(Duration::from_secs(1), serving).await;
        if result.is_ok() {
            tracing::info!(role, "stopped");
        }
        result
    })
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

fn metrics_failure(address: SocketAddr, error: &io::Error) -> Failure {
    let text = format!("metrics at {address}: {error}");
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => Failure::Misfit(text),
        _ => Failure::Failed(text),
    }
}

/// The signals that end a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn new(hangup_ends: bool) -> io::Result<Self> {
        let hangup = hangup_ends.then(|| signal(SignalKind::hangup()));
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: hangup.transpose()?,
        })
    }

    /// Resolves at the first signal; the second ends the process without ceremony.
    async fn wait(mut self) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping");
        notify(&[NotifyState::Stopping]);
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(i32::from(super::FAILED));
        });
    }

    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Tells systemd that the daemon lives, as long as it answers questions.
async fn feed_watchdog(period: Duration, requests: mpsc::Sender<Request>) {
    let mut ticks = interval(period / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !requests.is_closed() {
        ticks.tick().await;
        let answer = timeout(period / 3, server::ask(Query::Status, &requests)).await;
        if let Ok(Ok(_)) = answer {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Without systemd this does nothing; a systemd that does not listen is not the daemon's trouble.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "service manager not told");
    }
}
