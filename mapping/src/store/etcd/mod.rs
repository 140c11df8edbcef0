//! One state for several Map-Servers, kept by an etcd cluster (v3 API).
//!
//! ```text
//!   state machine -- batches --> Etcd --> queue --> transactions --> etcd      batches come back kept, or were refused
//!                 <-- events --       <-- replica <-- listing, watch -- etcd   what the other Map-Servers changed
//! ```
//!
//! - A batch is acknowledged once a majority of etcd has it. It is written under conditions: an accepted nonce has to be greater than the one
//!   any other Map-Server accepted, and what is changed without a nonce has to be as it was when the change was decided. A batch whose
//!   condition does not hold is refused: it never comes back as kept, and the state machine is told what counts instead.
//! - Changes by others are told in the order they were made, once each.
//! - An endpoint that fails is left for the next one. While no endpoint answers, the state machine goes on with what it knows; batches wait, up
//!   to a bound. After an outage the whole state is listed and compared.
//!
//! [`transaction`], [`queue`] and [`replica`] are pure; [`client`], [`watcher`] and [`worker`] run on a thread of their own, so that a flood of
//! control messages does not keep the connections from being looked after.

mod client;
mod proto;
mod queue;
mod replica;
mod transaction;
mod watcher;
mod worker;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use super::{Batch, Store, StoreEvent};
use crate::config::ClusterConfig;
use queue::Ended;
use transaction::Key;

/// How long nothing may be written or told before the state machine is told: longer than an election takes.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a start may wait for etcd: less than service managers wait for a daemon.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between two lines in the log while a start waits.
const START_REMINDER: Duration = Duration::from_secs(5);
/// Between two attempts, at first and at most.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_millis(250);
/// Octets that may wait for etcd; beyond, changes are given up unacknowledged and read back later.
const MAX_WAITING_OCTETS: usize = 64 << 20;
/// Events that may wait for the state machine.
const MAX_EVENTS: usize = 1_024;

/// A store that several Map-Servers share.
#[derive(Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
    events: mpsc::Receiver<StoreEvent>,
    loaded: Vec<(Vec<u8>, Vec<u8>)>,
    /// Changes given to the state machine.
    seen: u64,
}

/// What the state machine's side and the worker have in common.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Batches, each with the changes that the state machine had been told when it made them.
    batches: VecDeque<(Batch, u64)>,
    /// Of every batch that has not come back.
    octets: usize,
    messages: usize,
    /// The keys of batches that were given up.
    lost: HashSet<Key>,
    seen: u64,
    /// In words.
    status: String,
    /// Why the last call failed.
    trouble: String,
    closed: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch came back, kept or refused.
    fn give_back(&self, ended: &Ended) {
        let mut waiting = self.waiting();
        waiting.octets = waiting.octets.saturating_sub(ended.octets);
        waiting.messages = waiting.messages.saturating_sub(ended.messages);
    }
}

impl Etcd {
    /// Reads the state of the cluster; waits for up to a minute for an endpoint that answers, and logs that it does.
    ///
    /// There is no start with less: a Map-Server that does not know the registrations would answer negatively for all of them.
    ///
    /// # Errors
    /// No endpoint answers in time, the configuration is unusable, or the thread cannot be made.
    pub async fn connect(config: ClusterConfig) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let (loaded, mut is_loaded) = oneshot::channel();
        // From here on, dropping it ends the thread.
        let mut etcd = Self { shared: Arc::clone(&shared), events, loaded: Vec::new(), seen: 0 };
        let endpoints = config.endpoints.join(", ");
        std::thread::Builder::new().name("etcd".to_owned()).spawn(move || {
            worker::run(config, shared, sender, loaded);
        })?;
        let mut waited = Duration::ZERO;
        loop {
            match tokio::time::timeout(START_REMINDER, &mut is_loaded).await {
                Ok(Ok(entries)) => {
                    etcd.loaded = entries?;
                    return Ok(etcd);
                }
                Ok(Err(_)) => return Err(io::Error::other("etcd: the worker ended")),
                Err(_) => waited += START_REMINDER,
            }
            let trouble = etcd.shared.waiting().trouble.clone();
            if waited >= START_PATIENCE {
                let text = format!(
                    "the registrations cannot be read from etcd at {endpoints} since {} s ({trouble}); answering without them would be wrong",
                    waited.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            tracing::warn!(%endpoints, %trouble, "waiting for etcd: no message is taken before its state is read");
        }
    }
}

impl Store for Etcd {
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        for (key, value) in std::mem::take(&mut self.loaded) {
            each(&key, &value);
        }
        Ok(())
    }

    fn submit(&mut self, batch: Batch) {
        let octets = queue::octets(&batch);
        let mut waiting = self.shared.waiting();
        if waiting.octets + octets > MAX_WAITING_OCTETS {
            waiting.lost.extend(batch.changes.iter().map(|(key, _)| Key::from(key)));
        } else {
            waiting.octets += octets;
            waiting.messages += batch.transmits.len();
            waiting.batches.push_back((batch, self.seen));
        }
        drop(waiting);
        self.shared.changed.notify_one();
    }

    fn waiting(&self) -> usize {
        self.shared.waiting().messages
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<StoreEvent> {
        match self.events.poll_recv(context) {
            Poll::Ready(Some(event)) => {
                if matches!(event, StoreEvent::Changed { .. }) {
                    self.seen += 1;
                    self.shared.waiting().seen = self.seen;
                }
                Poll::Ready(event)
            }
            // The worker ends after this side only.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn notes(&self) -> Vec<String> {
        vec![self.shared.waiting().status.clone()]
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.shared.waiting().closed = true;
        self.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
