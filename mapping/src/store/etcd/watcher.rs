//! Lists the common state, then tells every change of it; after an outage it lists again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tonic::{Status, Streaming};

use super::client::{CallError, Client};
use super::proto::{
    self, KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchResponse,
};
use super::{LONGEST_BACKOFF, PATIENCE, SHORTEST_BACKOFF};

/// Keys per page of a listing.
const PAGE: i64 = 2_000;
/// How long one page may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// What the watcher says.
#[derive(Debug)]
pub(super) enum Heard {
    /// A listing begins; what an earlier one said counts nothing.
    Listing,
    /// Some of its keys.
    Page(Vec<KeyValue>),
    /// It is complete: the state at this revision.
    Listed(i64),
    /// Changes are told from here on, by this endpoint.
    Up(String),
    /// Changes: key, value or `None`, revision.
    Changes(Vec<(Vec<u8>, Option<Vec<u8>>, i64)>),
    /// Every change up to this revision was told.
    Position(i64),
    /// Nothing is told at the moment, for this reason.
    Down(String),
}

/// The receiver is gone.
struct Gone;

/// Why a watch ended.
enum End {
    /// It begins anew with a listing.
    List,
    /// Another endpoint may do better.
    Failed(String),
}

pub(super) struct Watcher {
    pub(super) client: Arc<Client>,
    pub(super) prefix: Vec<u8>,
    pub(super) heard: mpsc::Sender<Heard>,
    /// Changes when a listing is wanted.
    pub(super) relist: watch::Receiver<u64>,
}

impl Watcher {
    /// Runs until nobody listens.
    pub(super) async fn run(mut self) {
        let _ = self.keep_watching().await;
    }

    async fn keep_watching(&mut self) -> Result<(), Gone> {
        let mut backoff = SHORTEST_BACKOFF;
        let mut position = None;
        let mut down_since = Instant::now();
        loop {
            let from = match position {
                Some(position) if down_since.elapsed() < PATIENCE => position,
                _ => {
                    self.relist.mark_unchanged();
                    match self.list().await? {
                        Ok(revision) => revision,
                        Err(reason) => {
                            self.rest(reason, &mut backoff).await?;
                            continue;
                        }
                    }
                }
            };
            position = Some(from);
            let reason = match self.open(from).await {
                Err(reason) => reason,
                Ok((name, stream)) => {
                    let mut reached = from;
                    let end = self.follow(&name, stream, &mut reached, &mut backoff).await?;
                    (position, down_since) = (Some(reached), Instant::now());
                    match end {
                        End::Failed(reason) => reason,
                        End::List => {
                            position = None;
                            continue;
                        }
                    }
                }
            };
            self.rest(reason, &mut backoff).await?;
        }
    }

    /// Every key, at one revision.
    async fn list(&self) -> Result<Result<i64, CallError>, Gone> {
        self.say(Heard::Listing).await?;
        let range_end = proto::end_of(&self.prefix);
        let (mut key, mut revision) = (self.prefix.clone(), 0);
        loop {
            let range_end = range_end.clone();
            let request = RangeRequest { key: key.clone(), range_end, limit: PAGE, revision };
            let page: RangeResponse =
                match self.client.call(proto::RANGE, request, PAGE_PATIENCE).await {
                    Ok(page) => page,
                    Err(error) => return Ok(Err(error)),
                };
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            let next = page.kvs.last().map(|kv| [kv.key.as_slice(), &[0]].concat());
            self.say(Heard::Page(page.kvs)).await?;
            match next {
                Some(next) if page.more => key = next,
                _ => break,
            }
        }
        self.say(Heard::Listed(revision)).await?;
        Ok(Ok(revision))
    }

    async fn open(&self, from: i64) -> Result<(String, Streaming<WatchResponse>), CallError> {
        let create = WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: proto::end_of(&self.prefix),
            start_revision: from + 1,
            fragment: true,
        };
        let (name, stream) = self.client.watch(create).await?;
        Ok((name.to_owned(), stream))
    }

    /// Tells what the stream tells until it ends.
    async fn follow(
        &mut self,
        name: &str,
        mut stream: Streaming<WatchResponse>,
        reached: &mut i64,
        backoff: &mut Duration,
    ) -> Result<End, Gone> {
        loop {
            let response = tokio::select! {
                response = stream.message() => response,
                Ok(()) = self.relist.changed() => return Ok(End::List),
            };
            let response = match response {
                Ok(Some(response)) => response,
                Ok(None) => return Ok(self.end(name, &Status::unavailable("the watch ended"))),
                Err(status) => return Ok(self.end(name, &status)),
            };
            if response.compact_revision != 0 {
                return Ok(End::List);
            }
            if response.canceled {
                return Ok(self.end(name, &Status::unavailable(response.cancel_reason)));
            }
            if response.created {
                *backoff = SHORTEST_BACKOFF;
                self.say(Heard::Up(name.to_owned())).await?;
            }
            self.tell(response, reached).await?;
        }
    }

    async fn tell(&self, response: WatchResponse, reached: &mut i64) -> Result<(), Gone> {
        let mut changes = Vec::with_capacity(response.events.len());
        for event in response.events {
            let Some(kv) = event.kv else { continue };
            // Of a revision that is told in pieces, all pieces are told again when the watch breaks between them.
            let told = if response.fragment { kv.mod_revision - 1 } else { kv.mod_revision };
            *reached = told.max(*reached);
            let value = (event.kind != proto::DELETE).then_some(kv.value);
            changes.push((kv.key, value, kv.mod_revision));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.say(Heard::Changes(changes)).await?;
        self.say(Heard::Position(*reached)).await
    }

    fn end(&self, name: &str, status: &Status) -> End {
        End::Failed(self.client.give_up(name, status))
    }

    /// Says why nothing is told, and waits a little longer than the last time.
    async fn rest(&self, reason: String, backoff: &mut Duration) -> Result<(), Gone> {
        self.say(Heard::Down(reason)).await?;
        sleep(*backoff).await;
        *backoff = (*backoff * 2).min(LONGEST_BACKOFF);
        Ok(())
    }

    async fn say(&self, heard: Heard) -> Result<(), Gone> {
        self.heard.send(heard).await.map_err(|_| Gone)
    }
}
