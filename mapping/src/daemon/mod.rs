//! The shell around the state machine: sockets, clock, store, admin requests, log. The only async code of this crate.
//!
//! One turn of the loop: a burst of datagrams from one socket ([`inbox`]) goes through the state machine with one time, its changes
//! go to the store as one batch, and what it has to say leaves as a burst ([`outbox`]); the messages that wait for the store leave
//! when it says that the batch is kept.

mod inbox;
mod log;
mod outbox;
mod queue;
mod record;
mod reload;
mod sockets;
mod state;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until};

use crate::admin::{PART, Part, Query, Request};
use crate::clock::Epoch;
use crate::config::MappingConfig;
use crate::recorder::{Recorder, Told};
use crate::server::MapServer;
use crate::store::{Store, StoreEvent};
use crate::timers::MAX_WAITING_FOR_STORE;
use crate::view::{CountersView, StatusView};

use inbox::Inbox;
use log::EventLog;
use outbox::Outbox;
use reload::Fixed;
pub use reload::Reload;
use sockets::Sockets;

/// Bursts between two looks at what else there is to do: under load the sockets are always readable.
const BURSTS_PER_LOOK: u32 = 4;
/// EID-prefixes in a part of the migration report: each costs little.
const MIGRATION_PART: usize = 4_000;

/// Serves `config` until `shutdown`; calls `ready` once every socket is bound and the state is restored.
///
/// # Errors
/// An address of `listen` cannot be bound, or `listen` is empty; `state-dir` cannot be used (`InvalidInput`), is in use (`ResourceBusy`), or
/// holds what cannot be understood (`InvalidData`).
pub async fn run(
    config: MappingConfig,
    requests: mpsc::Receiver<Request>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let (_, reloads) = mpsc::channel(1);
    run_reloadable(config, requests, reloads, shutdown, ready).await
}

/// As [`run`], and takes over another configuration whenever `reloads` brings one.
///
/// # Errors
/// As [`run`].
pub async fn run_reloadable(
    config: MappingConfig,
    mut requests: mpsc::Receiver<Request>,
    reloads: mpsc::Receiver<Reload>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let (listen, name) = (config.listen.clone(), config.name.clone());
    let fixed = Fixed::of(&config);
    // Without its state it would answer negatively for every site: until it has it, nobody is to ask it but operators.
    let (server, store) = tokio::select! {
        restored = state::restore(config) => restored?,
        () = &mut shutdown => return Ok(()),
        () = state::put_off(&mut requests) => return Ok(()),
    };
    let sockets = Sockets::bind(&listen).await?;
    let started = Instant::now();
    ready();
    let mut daemon = Daemon {
        name,
        fixed,
        server,
        store,
        degraded: None,
        sockets,
        inbox: Inbox::new(),
        outbox: Outbox::new(),
        started,
        log: EventLog::default(),
        recorder: recorder(started),
    };
    daemon.serve(requests, reloads, shutdown).await;
    Ok(())
}

struct Daemon {
    name: String,
    fixed: Fixed,
    server: MapServer,
    store: Box<dyn Store>,
    /// Why the store keeps nothing at the moment.
    degraded: Option<String>,
    sockets: Sockets,
    inbox: Inbox,
    outbox: Outbox,
    started: Instant,
    log: EventLog,
    recorder: Recorder,
}

/// Why the loop woke up.
enum Wake {
    Shutdown,
    /// A question; `None`: nobody can ask any more.
    Asked(Option<Request>),
    /// Another configuration; `None`: there will be none any more.
    Reload(Option<Reload>),
    Stored(StoreEvent),
    /// Nothing came until the time of [`MapServer::handle_timeout`].
    Due,
    /// The full send queue has room again.
    Writable,
    /// This socket has something to read.
    Readable(usize),
}

impl Daemon {
    async fn serve(
        &mut self,
        mut requests: mpsc::Receiver<Request>,
        mut reloads: mpsc::Receiver<Reload>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut alarm = Alarm::new();
        let (mut admin_open, mut reloading) = (true, true);
        let mut bursts = 0;
        loop {
            let due = self.server.poll_timeout().unwrap_or(self.recorder.poll_timeout());
            alarm.set(due.min(self.recorder.poll_timeout()));
            let wake = tokio::select! {
                biased;
                () = &mut shutdown => Wake::Shutdown,
                request = requests.recv(), if admin_open => Wake::Asked(request),
                reload = reloads.recv(), if reloading => Wake::Reload(reload),
                wake = poll_fn(|context| self.poll_wake(context, &mut alarm)) => wake,
            };
            let now = Instant::now();
            match wake {
                Wake::Shutdown => return,
                Wake::Asked(Some(request)) => self.answer(now, request),
                Wake::Asked(None) => admin_open = false,
                Wake::Reload(Some(reload)) => self.reload(now, reload),
                Wake::Reload(None) => reloading = false,
                Wake::Stored(event) => self.stored(now, event),
                Wake::Due | Wake::Writable => {}
                Wake::Readable(at) => {
                    self.receive(now, at);
                    bursts += 1;
                }
            }
            // Some of what is due in every turn: what came in gets its turn between, however much is due, and the reverse.
            if self.server.poll_timeout().is_some_and(|due| due <= now) {
                self.server.handle_timeout(now);
            }
            self.flush(now);
            self.keep_record(now);
            if bursts >= BURSTS_PER_LOOK {
                bursts = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// What there is to do: first what must not wait behind a flood.
    fn poll_wake(&mut self, context: &mut Context<'_>, alarm: &mut Alarm) -> Poll<Wake> {
        if let Poll::Ready(event) = self.store.poll_event(context) {
            return Poll::Ready(Wake::Stored(event));
        }
        let sockets = match self.outbox.blocked() {
            // Nothing more is taken in before what came of it has left.
            Some(at) => {
                self.sockets.bound[at].socket.poll_send_ready(context).map(|_| Wake::Writable)
            }
            None => self.sockets.poll_readable(context).map(Wake::Readable),
        };
        if sockets.is_pending() && alarm.poll(context).is_ready() {
            return Poll::Ready(Wake::Due);
        }
        sockets
    }

    /// Takes a burst from one socket that has something.
    fn receive(&mut self, now: Instant, at: usize) {
        let Self { server, store, sockets, inbox, .. } = self;
        let bound = &sockets.bound[at];
        let is_shared = store.is_shared();
        let behind = inbox.receive(&bound.socket, |from, payload| {
            server.handle_input(now, bound.local, from, payload);
            if is_shared && let Some(batch) = server.take_batch() {
                store.submit(batch);
            }
        });
        server.burst(now, behind);
    }

    fn stored(&mut self, now: Instant, event: StoreEvent) {
        match event {
            StoreEvent::Kept(transmits) => {
                for transmit in transmits {
                    self.send(now, transmit);
                }
            }
            StoreEvent::Changed { key, value } => {
                if let Err(error) = self.server.apply(now, &key, value.as_deref()) {
                    tracing::error!(%error, "another Map-Server of the cluster wrote it");
                }
            }
            StoreEvent::Degraded(reason) => {
                self.server.set_cut_off(self.store.is_shared());
                tracing::error!(reason, "state cannot be kept: registrations are not acknowledged");
                self.recorder.tell(now, Told::error("state-not-kept", "", &reason));
                self.degraded = Some(reason);
            }
            StoreEvent::Recovered => {
                tracing::warn!("state is kept again");
                self.recorder.tell(now, Told::info("state-kept", "", "the store works again"));
                self.server.set_cut_off(false);
                self.degraded = None;
            }
        }
    }

    fn send(&mut self, now: Instant, transmit: crate::transmit::Transmit) {
        match self.sockets.of(&transmit) {
            Some(socket) => self.outbox.push(socket, transmit),
            None => {
                let error = io::ErrorKind::AddrNotAvailable.into();
                self.log.send_failed(now, transmit.destination, &error);
                self.server.send_failed();
            }
        }
    }

    /// Gives away what the state machine has: changes, messages, events.
    fn flush(&mut self, now: Instant) {
        if let Some(batch) = self.server.take_batch() {
            self.store.submit(batch);
        }
        self.server.shed_registers(self.store.waiting() > MAX_WAITING_FOR_STORE);
        while let Some(transmit) = self.server.poll_transmit() {
            self.send(now, transmit);
        }
        let Self { server, sockets, outbox, log, .. } = self;
        outbox.flush(sockets, |destination, error| {
            log.send_failed(now, destination, error);
            server.send_failed();
        });
        for payload in outbox.spent.drain(..) {
            server.recycle(payload);
        }
        while let Some(event) = self.server.poll_event() {
            if let Some(kind) = record::kind(&event) {
                self.recorder.tell_of(now, kind, || record::told(kind, &event));
            }
            self.log.write(now, &event);
        }
    }

    fn answer(&mut self, now: Instant, request: Request) {
        let mut next = None;
        let answer = match request.query {
            Query::Sites => json(&self.server.sites_view(now)),
            Query::Registrations => {
                let views;
                (views, next) = self.server.registrations_part(now, request.after, PART);
                json(&views)
            }
            Query::Migration => {
                let part;
                (part, next) = self.server.migration_part(request.after, MIGRATION_PART);
                json(&[part])
            }
            Query::Refusals => json(&self.server.refusals_view(now)),
            Query::Referrals => json(&self.server.referrals_view(now)),
            Query::Delegations => json(&self.server.delegations_view()),
            Query::Subscriptions => json(&self.server.subscriptions_view(now)),
            Query::Counters => json(&self.counters()),
            Query::Drops => json(&self.server.drops_view()),
            Query::Status => json(&self.status(now)),
            Query::Mobility => Err(
                "a Map-Server has no hosts behind it: ask a site's tunnel router, with `--role xtr`".to_owned(),
            ),
            Query::Nat => Err(
                "a Map-Server has no NAT to pass: ask a tunnel router, with `--role gateway` or `--role xtr`".to_owned(),
            ),
            Query::MapCache
            | Query::FindMappings { .. }
            | Query::ClearMapCache { .. }
            | Query::RemoteRlocs
            | Query::Locators => Err(
                "a Map-Server has no map-cache: ask a tunnel router, with `--role gateway` or `--role xtr`".to_owned(),
            ),
            Query::Config | Query::Reload | Query::Apply { .. } | Query::Confirm | Query::Undo => {
                Err("the configuration did not come from a file".to_owned())
            }
            Query::Metrics => json(&self.metrics(now)),
            Query::History { counters } => {
                self.recorder.history_view(now, &counters).and_then(|view| json(&view))
            }
            Query::Events { after } => json(&self.recorder.events_view(after)),
            Query::Keep(told) => {
                self.recorder.tell(now, told);
                Ok(Value::Null)
            }
            Query::Explain(_)
            | Query::Interfaces
            | Query::Traffic
            | Query::TopEids { .. }
            | Query::Tap(_)
            | Query::TapNext { .. } => {
                Err(
                    "a Map-Server forwards no packets: ask a tunnel router, with `--role gateway` or `--role xtr`".to_owned(),
                )
            }
        };
        // The operator may have gone already.
        drop(request.reply.send(answer.map(|view| Part { view, next })));
    }

    /// The state machine's counters and those of the sockets.
    fn counters(&self) -> CountersView {
        let mut view = self.server.counters_view();
        let Self { inbox, outbox, .. } = self;
        view.extend(
            [
                ("receive_bursts", inbox.bursts),
                ("receive_bursts_full", inbox.full_bursts),
                ("receive_queue_drops", queue::receive_drops(&self.sockets.bound)),
                ("messages_waiting_for_store", self.store.waiting() as u64),
                ("send_bursts", outbox.bursts),
                ("messages_sent", outbox.datagrams),
                ("send_queue_full", outbox.full),
            ]
            .map(|(name, count)| (name.to_owned(), count)),
        );
        view
    }

    fn status(&self, now: Instant) -> StatusView {
        let (sites, silent) = self.server.site_counts();
        let mut notes = Vec::new();
        if let Some(reason) = &self.degraded {
            notes.push(format!(
                "State cannot be kept: {reason}. Registrations are not acknowledged."
            ));
        }
        notes.extend(self.store.notes());
        if sites == 0 && !self.server.is_in_a_tree() {
            notes.push("No site is configured: every lookup is answered negatively.".to_owned());
        }
        if silent > 0 {
            notes.push(format!("{silent} of {sites} sites have no registration."));
        }
        StatusView {
            role: "mapping".to_owned(),
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            healthy: self.degraded.is_none(),
            intake: None,
            peers: self.server.loose_clients(),
            notes,
            workers: Vec::new(),
        }
    }
}

/// The flight recorder of a daemon that starts now.
fn recorder(now: Instant) -> Recorder {
    let millis = Epoch::of_host().unix_millis(now);
    Recorder::new(now, Duration::from_millis(millis))
}

/// Wakes the loop when the state machine wants it; early rather than anew for every registration that moves the next expiry.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Alarm {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep_until(Instant::now().into())), armed: None }
    }

    fn set(&mut self, wanted: Instant) {
        if self.armed.is_none_or(|armed| wanted < armed) {
            self.sleep.as_mut().reset(wanted.into());
            self.armed = Some(wanted);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.armed.is_none() {
            return Poll::Pending;
        }
        let polled = self.sleep.as_mut().poll(context);
        if polled.is_ready() {
            self.armed = None;
        }
        polled
    }
}

fn json(view: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(view).map_err(|error| error.to_string())
}
