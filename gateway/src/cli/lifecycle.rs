//! The daemon's side of its configuration: taken over anew, tried out, confirmed, undone, shown.
//!
//! ```text
//!   reload, SIGHUP         its own file -----\                                   /--> previous <--\
//!   apply                  a file that is sent ---> checked whole ---> running --                  -- undo
//!   apply --confirm-within ...        the same, and back by itself unless `confirm` comes in time
//! ```
//!
//! What runs is kept as it was read, secrets and all, and so is the configuration before: to return never needs a file. The daemon never writes
//! its configuration file: a restart reads what is there, also one in the middle of a trial.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mapping::admin::{Part, Query, Request};
use serde_json::{Value, json};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::dump;
use super::logging::Levels;
use super::service;
use crate::config::{self, Change, Finding, Host, RoleConfig};

mod told;

pub(super) use told::whole;

/// What may be taken over without being confirmed for this long at most.
pub(crate) const LONGEST_TRIAL: Duration = Duration::from_secs(24 * 3600);
/// When a return by itself failed, until the next try.
const RETRY: Duration = Duration::from_secs(5);

/// How a role takes over another configuration; `M` is what its daemon is sent.
#[derive(Clone, Copy)]
pub(crate) struct Role<M> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its keys that may change.
    pub(crate) changeable: &'static [&'static str],
    /// What its daemon is sent for a configuration; `None` if that is of another role.
    pub(crate) order: fn(RoleConfig, oneshot::Sender<Result<(), String>>) -> Option<M>,
}

/// A configuration that runs, or did.
#[derive(Clone)]
pub(crate) struct Version {
    file: PathBuf,
    text: String,
    config: RoleConfig,
    log: Option<String>,
    since: Instant,
}

impl Version {
    /// What was read from `file`.
    pub(crate) fn new(file: &Path, text: String, loaded: &config::Loaded) -> Self {
        let (config, log) = (loaded.config.clone(), loaded.service.log_level.clone());
        Self { file: file.to_path_buf(), text, config, log, since: Instant::now() }
    }
}

/// A configuration that goes by itself.
struct Trial {
    until: Instant,
    /// What returns.
    back: Version,
    /// What `undo` returns to after that.
    previous: Option<Version>,
}

/// The configuration of a running daemon.
pub(crate) struct Lifecycle<M> {
    role: Role<M>,
    /// The file that a restart reads.
    path: PathBuf,
    running: Version,
    previous: Option<Version>,
    trial: Option<Trial>,
    levels: Levels,
    orders: mpsc::Sender<M>,
}

/// The signals that are seen to here.
pub(crate) struct Signals {
    /// Read the file anew.
    pub(crate) hangup: Signal,
    /// Log what is known.
    pub(crate) dump: Signal,
}

impl<M: Send + 'static> Lifecycle<M> {
    /// For a daemon that has started with `running`, and hears from `orders`.
    pub(crate) fn new(
        role: Role<M>,
        running: Version,
        levels: Levels,
        orders: mpsc::Sender<M>,
    ) -> Self {
        let path = running.file.clone();
        Self { role, path, running, previous: None, trial: None, levels, orders }
    }

    /// Passes `requests` on to the daemon, but for those that concern its configuration; these, and signals, are seen to here. Ends with
    /// the daemon.
    pub(crate) async fn serve(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        daemon: mpsc::Sender<Request>,
        mut signals: Signals,
    ) {
        loop {
            let until = self.trial.as_ref().map(|trial| trial.until);
            tokio::select! {
                () = daemon.closed() => return,
                request = requests.recv() => match request {
                    None => return,
                    Some(request) => self.handle(request, &daemon).await,
                },
                _ = signals.hangup.recv() => match self.order(Query::Reload, &daemon).await {
                    Ok(view) => tracing::info!(changed = %view["changed"], "configuration reloaded"),
                    Err(text) => tracing::error!("configuration not reloaded: {text}"),
                },
                _ = signals.dump.recv() => {
                    dump::log_text("configuration", &config::canonical(&self.running.text));
                    tokio::spawn(dump::log_state(daemon.clone()));
                }
                () = at(until) => self.return_by_itself(&daemon).await,
            }
        }
    }

    async fn handle(&mut self, request: Request, daemon: &mpsc::Sender<Request>) {
        let Request { query, after, reply } = request;
        let answer = match query {
            Query::Config => Ok(self.view()),
            Query::Reload | Query::Apply { .. } | Query::Confirm | Query::Undo => {
                self.order(query, daemon).await
            }
            Query::Status if self.note().is_some() => {
                tokio::spawn(ask_and_note(daemon.clone(), reply, self.note()));
                return;
            }
            query => {
                // A daemon that ends answers nobody.
                let _ = daemon.send(Request { query, after, reply }).await;
                return;
            }
        };
        // Whoever asked may be gone by now.
        let _ = reply.send(answer.map(Part::from));
    }

    /// Does what the operator orders, and has the daemon keep what became of it.
    async fn order(
        &mut self,
        query: Query,
        daemon: &mpsc::Sender<Request>,
    ) -> Result<Value, String> {
        let answer = match query.clone() {
            Query::Apply { file, text, confirm_within_seconds } => {
                let trial = confirm_within_seconds.map(Duration::from_secs);
                self.apply(Path::new(&file), text, trial).await
            }
            Query::Confirm => self.confirm(),
            Query::Undo => self.undo().await,
            _ => self.reload().await,
        };
        let file = self.running.file.display().to_string();
        if let Some(told) = told::of_order(&query, &answer, &file) {
            told::tell(daemon, told).await;
        }
        answer
    }

    /// Takes over what is in the file now.
    async fn reload(&mut self) -> Result<Value, String> {
        self.refuse_in_trial()?;
        let path = self.path.clone();
        let text =
            config::read_file(&path).map_err(|problem| format!("{}: {problem}", path.display()))?;
        let changes = self.change_to(&path, text).await?;
        Ok(json!({ "changed": keys(&changes), "changes": changes }))
    }

    /// Takes over what an operator sent.
    async fn apply(
        &mut self,
        file: &Path,
        text: String,
        trial: Option<Duration>,
    ) -> Result<Value, String> {
        self.refuse_in_trial()?;
        if trial.is_some_and(|trial| trial.is_zero() || trial > LONGEST_TRIAL) {
            return Err("a trial lasts from a second to a day".to_owned());
        }
        let (back, previous) = (self.running.clone(), self.previous.clone());
        let changes = self.change_to(file, text).await?;
        if let Some(length) = trial.filter(|_| !changes.is_empty()) {
            let until = Instant::now() + length;
            self.trial = Some(Trial { until, back, previous });
            tracing::warn!(
                file = %file.display(),
                "taken over for {} s unless it is confirmed", length.as_secs()
            );
        } else {
            tracing::info!(file = %file.display(), changed = ?keys(&changes), "configuration taken over");
        }
        Ok(json!({
            "changed": keys(&changes),
            "changes": changes,
            "unconfirmed_seconds": self.trial.is_some().then(|| trial.map(|trial| trial.as_secs())),
            "note": self.keeps_over_restart(),
        }))
    }

    fn confirm(&mut self) -> Result<Value, String> {
        if self.trial.take().is_none() {
            return Err("nothing waits for being confirmed".to_owned());
        }
        tracing::info!(file = %self.running.file.display(), "configuration confirmed");
        Ok(json!({ "note": self.keeps_over_restart() }))
    }

    /// Returns to the configuration before the last change; in a trial, to the one before it.
    async fn undo(&mut self) -> Result<Value, String> {
        let changes = if self.trial.is_some() {
            self.end_trial().await?
        } else {
            let wanted = self.previous.clone();
            let wanted = wanted.ok_or("no other configuration ran before this one")?;
            self.take_over(wanted).await?
        };
        tracing::info!(file = %self.running.file.display(), changed = ?keys(&changes), "configuration undone");
        Ok(json!({
            "changed": keys(&changes),
            "changes": changes,
            "note": self.keeps_over_restart(),
        }))
    }

    async fn return_by_itself(&mut self, daemon: &mpsc::Sender<Request>) {
        match self.end_trial().await {
            Ok(changes) => {
                let changed = keys(&changes);
                tracing::warn!(
                    ?changed,
                    "not confirmed in time: returned to the configuration of before"
                );
                let file = self.running.file.display().to_string();
                told::tell(daemon, told::of_return(&changed, &file)).await;
            }
            Err(error) => {
                tracing::error!(error, "not confirmed in time, and the return failed; tried again");
                if let Some(trial) = &mut self.trial {
                    trial.until = Instant::now() + RETRY;
                }
            }
        }
    }

    async fn end_trial(&mut self) -> Result<Vec<Change>, String> {
        let Some(trial) = &self.trial else { return Ok(Vec::new()) };
        let (back, previous) = (trial.back.clone(), trial.previous.clone());
        let changes = self.take_over(back).await?;
        self.previous = previous;
        self.trial = None;
        Ok(changes)
    }

    /// Reads and checks another configuration, and takes it over: all or nothing.
    async fn change_to(&mut self, file: &Path, text: String) -> Result<Vec<Change>, String> {
        let host = Host::read().map_err(|error| format!("own addresses: {error}"))?;
        let loaded = config::load_text(file, &text, Some(host))
            .map_err(|refused| listed(&refused.errors))?;
        let changes = self.take_over(Version::new(file, text, &loaded)).await?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(changes)
    }

    async fn take_over(&mut self, wanted: Version) -> Result<Vec<Change>, String> {
        service::reloading();
        let taken = self.take_over_now(wanted).await;
        service::ready("working");
        taken
    }

    async fn take_over_now(&mut self, wanted: Version) -> Result<Vec<Change>, String> {
        let changes = config::changes(&self.running.text, &wanted.text);
        let refused = config::refused(&wanted.file, &wanted.text, &changes, self.role.changeable);
        if !refused.is_empty() {
            return Err(listed(&refused));
        }
        let (reply, taken) = oneshot::channel();
        let order = (self.role.order)(wanted.config.clone(), reply).ok_or_else(|| {
            format!("{}: is not of the role {}", wanted.file.display(), self.role.name)
        })?;
        let stopping = || String::from("the daemon is stopping");
        self.orders.send(order).await.map_err(|_| stopping())?;
        taken.await.map_err(|_| stopping())??;
        if self.running.log != wanted.log {
            self.levels.take_over(wanted.log.as_deref());
        }
        let wanted = Version { since: Instant::now(), ..wanted };
        let before = std::mem::replace(&mut self.running, wanted);
        if !changes.is_empty() {
            self.previous = Some(before);
        }
        Ok(changes)
    }

    fn refuse_in_trial(&self) -> Result<(), String> {
        match &self.trial {
            Some(trial) => Err(format!(
                "a configuration waits for being confirmed for another {} s: confirm or undo it first",
                seconds_until(trial.until)
            )),
            None => Ok(()),
        }
    }

    /// What a restart would change, if it would.
    fn keeps_over_restart(&self) -> Option<String> {
        let path = self.path.display();
        match self.on_disk() {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "a restart reads {path}, which says otherwise: to keep what runs, put it there"
            )),
            Err(error) => Some(format!("a restart reads {path}, which cannot be read: {error}")),
        }
    }

    /// Whether the daemon's file says what runs.
    fn on_disk(&self) -> Result<bool, String> {
        let text = config::read_file(&self.path)?;
        Ok(text == self.running.text || config::changes(&self.running.text, &text).is_empty())
    }

    /// What `show status` says of it.
    fn note(&self) -> Option<String> {
        let file = self.running.file.display();
        if let Some(trial) = &self.trial {
            return Some(format!(
                "The configuration {file} is on trial: without `isthmus confirm` it goes in {} s.",
                seconds_until(trial.until)
            ));
        }
        (self.running.file != self.path).then(|| {
            format!(
                "What runs was taken over from {file}; a restart reads {}.",
                self.path.display()
            )
        })
    }

    fn view(&self) -> Value {
        json!({
            "role": self.role.name,
            "file": self.running.file,
            "read_at_restart": self.path,
            "on_disk": match self.on_disk() {
                Ok(true) => "the same",
                Ok(false) => "different",
                Err(_) => "unreadable",
            },
            "since_seconds": self.running.since.elapsed().as_secs(),
            "unconfirmed_seconds": self.trial.as_ref().map(|trial| seconds_until(trial.until)),
            "can_undo": self.trial.is_some() || self.previous.is_some(),
            "text": config::canonical(&self.running.text),
            "config": config::to_json(&self.running.text),
        })
    }
}

/// Asks the daemon for its status, and adds a note to it.
async fn ask_and_note(
    daemon: mpsc::Sender<Request>,
    reply: oneshot::Sender<Result<Part, String>>,
    note: Option<String>,
) {
    let (sender, answer) = oneshot::channel();
    if daemon.send(Request { query: Query::Status, after: None, reply: sender }).await.is_err() {
        return;
    }
    let Ok(mut answer) = answer.await else { return };
    if let Ok(part) = &mut answer
        && let Some(notes) = part.view["notes"].as_array_mut()
    {
        notes.extend(note.map(Value::from));
    }
    // Whoever asked may be gone by now.
    let _ = reply.send(answer);
}

/// At that time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn seconds_until(time: Instant) -> u64 {
    time.saturating_duration_since(Instant::now()).as_secs_f64().ceil() as u64
}

fn keys(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.key.as_str()).collect()
}

fn listed(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
