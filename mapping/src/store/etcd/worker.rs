//! The thread that talks to etcd.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::client::Client;
use super::queue::{Flight, Queue};
use super::replica::Replica;
use super::transaction::{self, Answer, Outcome, Part, Reconsidered};
use super::watcher::{Heard, Watcher};
use super::{LONGEST_BACKOFF, MAX_WAITING_OCTETS, PATIENCE, SHORTEST_BACKOFF, Shared};
use crate::config::ClusterConfig;
use crate::store::StoreEvent;

/// How often the state of things is judged.
const TICK: Duration = Duration::from_millis(250);
/// How long an endpoint may take for a transaction, at first (an ETR waits a second for its Map-Notify) and at most (etcd may be slow).
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);
const LONGEST_PATIENCE: Duration = Duration::from_secs(4);
/// What the watcher may say ahead.
const MAX_HEARD: usize = 64;

/// Every entry at the start.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;
type Loaded = io::Result<Entries>;

/// Runs until the store is dropped.
pub(super) fn run(
    config: ClusterConfig,
    shared: Arc<Shared>,
    events: mpsc::Sender<StoreEvent>,
    loaded: oneshot::Sender<Loaded>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        // Whoever waits for the entries is gone only if the daemon is.
        Err(error) => return drop(loaded.send(Err(error))),
    };
    runtime.block_on(async {
        let client = match Client::new(&config) {
            Ok(client) => Arc::new(client),
            Err(error) => return drop(loaded.send(Err(error))),
        };
        let prefix: Arc<[u8]> = config.prefix.as_bytes().into();
        let (heard, hears) = mpsc::channel(MAX_HEARD);
        let (relist, relists) = watch::channel(0);
        let watcher = Watcher {
            client: Arc::clone(&client),
            prefix: prefix.to_vec(),
            heard,
            relist: relists,
        };
        tokio::spawn(watcher.run());
        let worker = Worker {
            shared,
            client,
            prefix,
            events,
            hears,
            relist,
            queue: Queue::default(),
            replica: Replica::default(),
            flights: JoinSet::new(),
            started: HashMap::new(),
            loading: Some((loaded, Vec::new())),
            listed: HashSet::new(),
            down: Some((Instant::now(), "not connected yet".to_owned())),
            watched_at: String::new(),
            relist_wanted: false,
            degraded: false,
            refused: 0,
        };
        // It ends when nobody is there to be told.
        let _ = worker.work().await;
    });
}

struct Worker {
    shared: Arc<Shared>,
    client: Arc<Client>,
    prefix: Arc<[u8]>,
    events: mpsc::Sender<StoreEvent>,
    hears: mpsc::Receiver<Heard>,
    relist: watch::Sender<u64>,
    queue: Queue,
    replica: Replica,
    flights: JoinSet<(Flight, Vec<Outcome>)>,
    started: HashMap<Id, Instant>,
    /// Until the first listing is complete.
    loading: Option<(oneshot::Sender<Loaded>, Entries)>,
    listed: HashSet<transaction::Key>,
    /// Since when, and why, changes of others are not told.
    down: Option<(Instant, String)>,
    watched_at: String,
    /// A listing was asked for and is not complete.
    relist_wanted: bool,
    degraded: bool,
    /// Batches that came after what another Map-Server did.
    refused: u64,
}

/// The store was dropped.
struct Closed;

impl Worker {
    async fn work(mut self) -> Result<(), Closed> {
        let shared = Arc::clone(&self.shared);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shared.changed.notified() => self.take()?,
                Some(landed) = self.flights.join_next_with_id() => self.land(landed),
                Some(heard) = self.hears.recv() => self.hear(heard),
                _ = tick.tick() => self.judge().await?,
            }
            self.start();
            self.report().await?;
        }
    }

    /// Takes what was submitted.
    fn take(&mut self) -> Result<(), Closed> {
        let mut waiting = self.shared.waiting();
        if waiting.closed {
            return Err(Closed);
        }
        let (seen, batches) = (waiting.seen, std::mem::take(&mut waiting.batches));
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        for (batch, seen) in batches {
            self.queue.push(batch, seen, &mut self.replica);
        }
        for key in lost {
            self.replica.lost(key);
        }
        self.replica.seen(self.queue.oldest_seen().unwrap_or(seen));
        Ok(())
    }

    /// Starts every transaction that may be under way.
    fn start(&mut self) {
        while let Some(flight) = self.queue.start(&self.replica) {
            let (client, shared) = (Arc::clone(&self.client), Arc::clone(&self.shared));
            let prefix = Arc::clone(&self.prefix);
            let handle = self.flights.spawn(fly(client, shared, prefix, flight));
            self.started.insert(handle.id(), Instant::now());
        }
    }

    fn land(&mut self, landed: Result<(Id, (Flight, Vec<Outcome>)), tokio::task::JoinError>) {
        // Flights are not cancelled, and one that panics ends the process's use of this store: nothing is acknowledged any more.
        if let Ok((id, (flight, outcomes))) = landed {
            self.started.remove(&id);
            self.queue.finish(&flight, outcomes, &mut self.replica);
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Listing => {
                self.listed.clear();
                if let Some((_, entries)) = &mut self.loading {
                    entries.clear();
                    self.replica = Replica::default();
                }
            }
            Heard::Page(kvs) => {
                for kv in kvs {
                    let Some(key) = self.own_key(&kv.key) else { continue };
                    match &mut self.loading {
                        Some((_, entries)) => {
                            self.replica.load(key.clone(), kv.mod_revision);
                            entries.push((key.into(), kv.value));
                        }
                        None => {
                            self.listed.insert(key.clone());
                            self.replica.list(key, kv.value, kv.mod_revision);
                        }
                    }
                }
            }
            Heard::Listed(revision) => {
                self.relist_wanted = false;
                match self.loading.take() {
                    Some((loaded, entries)) => {
                        self.replica.advance(revision);
                        // Whoever waits for the entries is gone only if the daemon is.
                        drop(loaded.send(Ok(entries)));
                    }
                    None => self.replica.listed(&std::mem::take(&mut self.listed), revision),
                }
            }
            Heard::Up(endpoint) => {
                self.watched_at = endpoint;
                self.down = None;
            }
            Heard::Changes(changes) => {
                for (key, value, revision) in changes {
                    if let Some(key) = self.own_key(&key) {
                        self.replica.observe(key, value, revision);
                    }
                }
            }
            Heard::Position(revision) => self.replica.advance(revision),
            Heard::Down(reason) => {
                self.shared.waiting().trouble.clone_from(&reason);
                let since = self.down.take().map_or_else(Instant::now, |(since, _)| since);
                self.down = Some((since, reason));
            }
        }
    }

    /// Tells the state machine what is to be told: first what others did, then what was kept.
    async fn report(&mut self) -> Result<(), Closed> {
        while let Some((key, value)) = self.replica.poll_told() {
            self.tell(StoreEvent::Changed { key: key.into(), value }).await?;
        }
        while let Some(ended) = self.queue.pop(&self.replica) {
            self.shared.give_back(&ended);
            match ended.kept {
                Some(transmits) => self.tell(StoreEvent::Kept(transmits)).await?,
                None => {
                    self.refused += 1;
                    tracing::debug!("a change was refused: another Map-Server was first");
                }
            }
        }
        Ok(())
    }

    /// Finds out whether everything works, and tells when that changes.
    async fn judge(&mut self) -> Result<(), Closed> {
        self.take()?;
        let (octets, trouble) = {
            let waiting = self.shared.waiting();
            (waiting.octets, waiting.trouble.clone())
        };
        if self.replica.is_stale() && !self.relist_wanted && octets < MAX_WAITING_OCTETS / 2 {
            self.relist_wanted = true;
            self.relist.send_modify(|number| *number += 1);
        }
        let stuck = self.started.values().any(|started| started.elapsed() >= PATIENCE);
        let reason = match &self.down {
            Some((since, reason)) if since.elapsed() >= PATIENCE => {
                Some(format!("etcd cannot be watched ({reason})"))
            }
            _ if stuck => Some(format!("etcd takes no changes ({trouble})")),
            _ if self.replica.is_stale() || self.relist_wanted => {
                Some("more changes waited for etcd than are held".to_owned())
            }
            _ => None,
        };
        self.describe(reason.is_some());
        match reason {
            Some(reason) if !self.degraded => {
                self.degraded = true;
                self.tell(StoreEvent::Degraded(reason)).await
            }
            None if self.degraded => {
                self.degraded = false;
                self.report().await?;
                self.tell(StoreEvent::Recovered).await
            }
            _ => Ok(()),
        }
    }

    fn describe(&self, cut_off: bool) {
        let (entries, waiting) = (self.replica.len(), self.queue.len());
        let mut status = match cut_off {
            true => format!(
                "Cut off from the cluster: lookups are answered from memory, nothing expires, {waiting} batches of changes wait."
            ),
            false => format!(
                "Cluster: {entries} entries in etcd, watched at {}, written at {}, {waiting} batches of changes wait.",
                self.watched_at,
                self.client.endpoint()
            ),
        };
        if self.refused > 0 {
            let refused = self.refused;
            status += &format!(
                " {refused} came too late: another Map-Server had accepted something newer."
            );
        }
        self.shared.waiting().status = status;
    }

    async fn tell(&self, event: StoreEvent) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }

    fn own_key(&self, key: &[u8]) -> Option<transaction::Key> {
        key.strip_prefix(&*self.prefix).map(transaction::Key::from)
    }
}

/// Makes the changes of a flight, for as long as it takes.
async fn fly(
    client: Arc<Client>,
    shared: Arc<Shared>,
    prefix: Arc<[u8]>,
    flight: Flight,
) -> (Flight, Vec<Outcome>) {
    let attempt = Attempt { client, shared, prefix };
    let mut outcomes = Vec::with_capacity(flight.parts.len());
    match attempt.once(&flight.parts).await {
        Answer::Kept(kept) => outcomes = kept,
        // One of them was refused: each for itself.
        Answer::Conflict(_) => {
            for part in &flight.parts {
                outcomes.push(attempt.alone(part.clone()).await);
            }
        }
    }
    (flight, outcomes)
}

struct Attempt {
    client: Arc<Client>,
    shared: Arc<Shared>,
    prefix: Arc<[u8]>,
}

impl Attempt {
    async fn alone(&self, mut part: Part) -> Outcome {
        loop {
            match self.once(std::slice::from_ref(&part)).await {
                Answer::Kept(mut kept) => {
                    if let Some(outcome) = kept.pop() {
                        return outcome;
                    }
                }
                Answer::Conflict(current) => {
                    if let Reconsidered::Ended(outcome) = part.reconsider(&current) {
                        return outcome;
                    }
                }
            }
        }
    }

    /// One transaction, repeated at the next endpoint until one answers.
    async fn once(&self, parts: &[Part]) -> Answer {
        let request = transaction::request(&self.prefix, parts);
        let (mut backoff, mut patience) = (SHORTEST_BACKOFF, SHORTEST_PATIENCE);
        loop {
            let answer = self.client.call(super::proto::TXN, request.clone(), patience).await;
            let reason = match answer {
                Ok(response) => match transaction::read(parts, response) {
                    Some(answer) => return answer,
                    None => "an answer that does not fit the request".to_owned(),
                },
                Err(reason) => reason,
            };
            self.shared.waiting().trouble = reason;
            sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            patience = (patience * 2).min(LONGEST_PATIENCE);
        }
    }
}
