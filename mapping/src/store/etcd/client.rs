//! Calls to whichever endpoint answers.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::proto::{self, AuthenticateRequest, AuthenticateResponse, WatchRequest, WatchResponse};
use crate::config::ClusterConfig;

/// How long opening a watch may take.
const WATCH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// An endpoint that says nothing for so long is asked whether it lives, and has as long to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The largest message taken, octets: a page of a listing, or the events of one revision.
const MAX_MESSAGE: usize = 64 << 20;

/// The endpoints of one etcd cluster.
pub(super) struct Client {
    endpoints: Vec<(String, Channel)>,
    /// The endpoint in use.
    current: AtomicUsize,
    user: Option<AuthenticateRequest>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

/// A call that failed: which endpoint, and why.
pub(super) type CallError = String;

impl Client {
    /// Connects to nothing yet; to be called inside a runtime.
    ///
    /// # Errors
    /// An endpoint is no `HOST:PORT`, or the password is no text.
    pub(super) fn new(config: &ClusterConfig) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let mut endpoints = Vec::new();
        for name in &config.endpoints {
            let endpoint = Endpoint::from_shared(format!("http://{name}"))
                .map_err(|error| invalid(format!("etcd endpoint {name}: {error}")))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true);
            endpoints.push((name.clone(), endpoint.connect_lazy()));
        }
        if endpoints.is_empty() {
            return Err(invalid("no etcd endpoint".to_owned()));
        }
        let user = match &config.user {
            None => None,
            Some((name, password)) => {
                let password = std::str::from_utf8(password.octets())
                    .map_err(|_| invalid("the password for etcd is not UTF-8".to_owned()))?;
                Some(AuthenticateRequest { name: name.clone(), password: password.to_owned() })
            }
        };
        Ok(Self { endpoints, current: AtomicUsize::new(0), user, token: Mutex::new(None) })
    }

    /// One call to the endpoint in use, which has as long as `patience`; after a failure the next one is in use.
    pub(super) async fn call<Q, A>(
        &self,
        path: &'static str,
        message: Q,
        patience: Duration,
    ) -> Result<A, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let at = self.current.load(Ordering::Relaxed);
        let answer = async {
            let request = self.authorized(at, Request::new(message)).await?;
            self.unary(at, path, request).await
        };
        self.judge(at, timeout(patience, answer).await.unwrap_or_else(|_| Err(late(patience))))
    }

    /// Opens a watch at the endpoint in use and names it; one that has lost its leader ends the watch.
    pub(super) async fn watch(
        &self,
        create: proto::WatchCreateRequest,
    ) -> Result<(&str, Streaming<WatchResponse>), CallError> {
        let at = self.current.load(Ordering::Relaxed);
        let first = WatchRequest { create: Some(create) };
        // The watch lives as long as the requests do not end.
        let requests = tokio_stream::once(first).chain(tokio_stream::pending());
        let stream = async {
            let mut request = self.authorized(at, Request::new(requests)).await?;
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            let mut grpc = self.ready(at).await?;
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let path = PathAndQuery::from_static(proto::WATCH);
            Ok(grpc.streaming(request, path, codec).await?.into_inner())
        };
        let stream =
            timeout(WATCH_TIMEOUT, stream).await.unwrap_or_else(|_| Err(late(WATCH_TIMEOUT)));
        self.judge(at, stream).map(|stream| (self.endpoints[at].0.as_str(), stream))
    }

    /// As a failed call: the next endpoint is in use, unless another call has seen to that.
    pub(super) fn give_up(&self, name: &str, status: &Status) -> CallError {
        let at = self.endpoints.iter().position(|(other, _)| other == name).unwrap_or(0);
        self.failed(at, status)
    }

    /// The endpoint in use.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoints[self.current.load(Ordering::Relaxed)].0
    }

    async fn unary<Q, A>(
        &self,
        at: usize,
        path: &'static str,
        request: Request<Q>,
    ) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let mut grpc = self.ready(at).await?;
        Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    async fn ready(&self, at: usize) -> Result<Grpc<Channel>, Status> {
        let mut grpc =
            Grpc::new(self.endpoints[at].1.clone()).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    /// Adds the token, which is asked for when there is none.
    async fn authorized<Q>(
        &self,
        at: usize,
        mut request: Request<Q>,
    ) -> Result<Request<Q>, Status> {
        let Some(user) = &self.user else { return Ok(request) };
        let known = self.token().clone();
        let token = match known {
            Some(token) => token,
            None => {
                let question = Request::new(user.clone());
                let answer: AuthenticateResponse =
                    self.unary(at, proto::AUTHENTICATE, question).await?;
                let token = MetadataValue::try_from(answer.token)
                    .map_err(|_| Status::internal("a token that is no text"))?;
                *self.token() = Some(token.clone());
                token
            }
        };
        request.metadata_mut().insert("token", token);
        Ok(request)
    }

    fn token(&self) -> MutexGuard<'_, Option<MetadataValue<Ascii>>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge<A>(&self, at: usize, result: Result<A, Status>) -> Result<A, CallError> {
        result.map_err(|status| self.failed(at, &status))
    }

    fn failed(&self, at: usize, status: &Status) -> CallError {
        let next = (at + 1) % self.endpoints.len();
        // Another call may have moved on already.
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        // Tokens expire, and those of one kind are known to one member only.
        *self.token() = None;
        format!("{}: {}", self.endpoints[at].0, explain(status))
    }
}

fn late(patience: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer in {} ms", patience.as_millis()))
}

/// The innermost cause, which is what an operator can do something about.
fn explain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}
