//! `isthmus reload`: a running daemon reads its configuration anew; and the daemon's side of it.

use std::path::{Path, PathBuf};

use ::xtr::config::RouterConfig;
use ::xtr::daemon::Reload;
use ::xtr::policy::Policy;
use clap::Args;
use mapping::admin::{Part, Query, Request};
use serde_json::{Value, json};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::show::{self, RoleName};
use super::{Failure, print};
use crate::admin::client::{self, AskError};
use crate::config::{self, Finding, Host, RoleConfig};

/// Which daemon is to reload.
#[derive(Debug, Args)]
#[command(
    after_help = "The daemon reads its file anew and checks all of it. Either everything that changed is taken over, without a
packet lost, or nothing is: a mistake, or a key that cannot change while the daemon runs, is named with its line. The same
as SIGHUP, which says in the log what became of it.

At run time may change: of an xTR [[eid]], [[dynamic-eid]], priority, weight, mpriority and mweight of its rlocs, record-ttl,
registration-interval, proxy-reply, merge, timeout-by-ttl; of a gateway the EID-prefixes of [pitr], [petr] and [rtr], and whose packets
it takes; of both, what is in the key files."
)]
pub(crate) struct ReloadArgs {
    /// The admin socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    socket: Option<PathBuf>,
    /// The daemon's role, when several run on this host
    #[arg(long, value_enum)]
    role: Option<RoleName>,
}

/// Has the daemon reload, and prints what it took over.
pub(crate) fn run(args: &ReloadArgs) -> Result<(), Failure> {
    let socket = show::socket(args.socket.as_deref(), args.role)?;
    let answer = client::ask(&socket, &Query::Reload).map_err(|error| match error {
        AskError::Refused(text) => Failure::Misfit(text),
        other => show::ask_failure(other, &socket),
    })?;
    let changed = answer["changed"].as_array().map(Vec::as_slice).unwrap_or_default();
    if changed.is_empty() {
        return print("nothing changed; what is in the key files is in force\n");
    }
    let keys: Vec<_> = changed.iter().filter_map(Value::as_str).collect();
    print(&format!("taken over: {}\n", keys.join(", ")))
}

/// How a role reads its file anew.
pub(crate) struct Role<P> {
    /// Its keys that may change.
    pub(crate) changeable: &'static [&'static str],
    /// What its daemon takes of a configuration; `None` if that is of another role.
    pub(crate) read: fn(RoleConfig) -> Option<(RouterConfig, P)>,
}

/// Reads the file of a running daemon anew.
pub(crate) struct Reloader<P> {
    path: PathBuf,
    /// As the daemon has it.
    text: String,
    role: Role<P>,
    reloads: mpsc::Sender<Reload<P>>,
}

impl<P: Policy> Reloader<P> {
    /// For the daemon that has started with the file at `path`, whose content was `text`, and hears from `reloads`.
    pub(crate) fn new(
        path: &Path,
        text: String,
        role: Role<P>,
        reloads: mpsc::Sender<Reload<P>>,
    ) -> Self {
        Self { path: path.to_path_buf(), text, role, reloads }
    }

    /// Passes `requests` on to the daemon, but for those to reload; these, and hangups, are seen to here. Ends with the daemon.
    pub(crate) async fn serve(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        daemon: mpsc::Sender<Request>,
        mut hangups: Signal,
    ) {
        loop {
            let request = tokio::select! {
                () = daemon.closed() => return,
                request = requests.recv() => request,
                _ = hangups.recv() => {
                    match self.reload().await {
                        Ok(view) => tracing::info!(changed = %view["changed"], "configuration reloaded"),
                        Err(text) => tracing::error!("configuration not reloaded: {text}"),
                    }
                    continue;
                }
            };
            match request {
                None => return,
                Some(Request { query: Query::Reload, reply, .. }) => {
                    // Whoever asked may be gone by now.
                    let _ = reply.send(self.reload().await.map(Part::from));
                }
                Some(request) => {
                    if daemon.send(request).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// All or nothing.
    async fn reload(&mut self) -> Result<Value, String> {
        let host = Host::read().map_err(|error| format!("own addresses: {error}"))?;
        let text = config::read_file(&self.path)
            .map_err(|problem| format!("{}: {problem}", self.path.display()))?;
        let loaded = config::load_text(&self.path, &text, Some(host))
            .map_err(|refused| listed(&refused.errors))?;
        let changed = config::changed_keys(&self.text, &text);
        let refused = config::refused_keys(&self.path, &text, &changed, self.role.changeable);
        if !refused.is_empty() {
            return Err(listed(&refused));
        }
        let (config, policy) = (self.role.read)(loaded.config)
            .ok_or_else(|| format!("{}: is of another role now", self.path.display()))?;
        let (reply, taken) = oneshot::channel();
        let stopping = || String::from("the daemon is stopping");
        let reload = Reload { config, policy, reply };
        self.reloads.send(reload).await.map_err(|_| stopping())?;
        taken.await.map_err(|_| stopping())??;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        self.text = text;
        Ok(json!({ "changed": changed }))
    }
}

fn listed(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
