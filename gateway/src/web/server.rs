//! The HTTP end of the page.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Query, Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mapping::admin::Request as Question;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::live::Live;
use super::search::{Asked, Search};
use super::{WebConfig, guard, page};

/// Connections at a time; more wait in the listen queue.
const CONNECTIONS: usize = 64;
/// Viewers at a time.
const VIEWERS: usize = 24;
/// A connection is closed after so long, whatever happens on it: the page comes again by itself.
const CONNECTION: Duration = Duration::from_secs(600);
/// A request has to be there within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bound endpoint.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    config: WebConfig,
}

/// What requests share.
#[derive(Clone, Debug)]
struct Shared {
    config: Arc<WebConfig>,
    live: Arc<Live>,
    search: Arc<Search>,
    viewers: Arc<Semaphore>,
}

/// The own address that a connection came to.
#[derive(Clone, Copy, Debug)]
struct Local(IpAddr);

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn bind(config: WebConfig) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(config.listen).await?, config })
    }

    /// Where it is.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves browsers until `questions` is closed by the daemon.
    pub async fn serve(self, questions: mpsc::Sender<Question>) {
        let Self { listener, config } = self;
        let live = Arc::new(Live::new());
        tokio::spawn(Arc::clone(&live).watch(questions.clone()));
        let shared = Shared {
            config: Arc::new(config),
            live,
            search: Arc::new(Search::new(questions.clone())),
            viewers: Arc::new(Semaphore::new(VIEWERS)),
        };
        let routes = routes(shared.clone());
        let seats = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(seat) = seats.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = questions.closed() => return,
            };
            match accepted {
                Ok((stream, peer)) if guard::admits(&shared.config, peer.ip()) => {
                    let (routes, questions) = (routes.clone(), questions.clone());
                    tokio::spawn(async move {
                        converse(stream, routes, questions).await;
                        drop(seat);
                    });
                }
                Ok((_, peer)) => tracing::debug!(%peer, "not in [web] accept-from"),
                Err(error) => {
                    tracing::warn!(%error, "web page cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, routes: Router, questions: mpsc::Sender<Question>) {
    let Ok(local) = stream.local_addr() else { return };
    let local = Local(local.ip());
    let routes = TowerToHyperService::new(routes);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(local);
        routes.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A browser that goes away in the middle is its own business.
        _ = timeout(CONNECTION, connection) => {}
        () = questions.closed() => {}
    }
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/", get(document))
        .route("/api/live", get(live))
        .route("/api/map-cache", get(mappings))
        .route("/api/registrations", get(registrations))
        .route("/api/history", get(history))
        .fallback(async || (StatusCode::NOT_FOUND, "there is nothing; the page is at /\n"))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), guarded))
        .with_state(shared)
}

/// Answers those who may ask, and tells browsers what they may do with the answer.
async fn guarded(
    State(shared): State<Shared>,
    Extension(Local(local)): Extension<Local>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    let mut response = match guard::check(&shared.config, local, method, path, headers) {
        Ok(()) => next.run(request).await,
        Err((status, said)) => (status, format!("{said}\n")).into_response(),
    };
    let is_refused_method = response.status() == StatusCode::METHOD_NOT_ALLOWED;
    let headers = response.headers_mut();
    if is_refused_method {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = HeaderValue::from_static(page::POLICY.as_str());
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    response
}

async fn document() -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], page::PAGE.as_str()).into_response()
}

/// What all viewers see, renewed for as long as this one looks.
async fn live(State(shared): State<Shared>) -> Response {
    let Ok(seat) = shared.viewers.clone().try_acquire_owned() else {
        let said = "too many viewers; try again later\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], said).into_response();
    };
    let viewer = (shared.live.subscribe(), seat, shared.live);
    let looks = stream::unfold(viewer, |mut viewer| async move {
        viewer.0.changed().await.ok()?;
        let look = viewer.0.borrow_and_update().clone();
        let message = look.map(|(_, message)| message).unwrap_or_default();
        Some((Ok::<Bytes, Infallible>(message), viewer))
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(looks)).into_response()
}

async fn mappings(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    found(shared.search.mappings(&asked).await)
}

async fn registrations(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    found(shared.search.registrations(&asked).await)
}

async fn history(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    found(shared.search.history(&asked).await)
}

fn found(answer: Result<Bytes, String>) -> Response {
    match answer {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(said) => {
            let body = serde_json::json!({"error": said}).to_string();
            let content = [(CONTENT_TYPE, "application/json")];
            (StatusCode::BAD_REQUEST, content, body).into_response()
        }
    }
}
