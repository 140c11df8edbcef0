//! The HTTP end: `GET /metrics`, nothing else.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mapping::admin::{Query, Request as Question};
use mapping::telemetry::MetricsView;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::process::Process;
use super::{Format, text};
use crate::admin::server::ask;

/// Scrapers served at a time; more wait in the listen queue.
const CLIENTS: usize = 4;
/// A connection is closed after so long, whatever happens on it: a scraper comes again.
const CONNECTION: Duration = Duration::from_secs(120);
/// A request has to be there within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bound endpoint.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Where it is.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves scrapers until `questions` is closed by the daemon.
    pub async fn serve(self, questions: mpsc::Sender<Question>) {
        let seats = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(seat) = seats.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = questions.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let questions = questions.clone();
                    tokio::spawn(async move {
                        converse(stream, questions).await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics endpoint cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, questions: mpsc::Sender<Question>) {
    let ended = questions.clone();
    let service = service_fn(move |request| {
        let questions = questions.clone();
        async move { Ok::<_, Infallible>(answer(&request, &questions).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A scraper that goes away in the middle is its own business.
        _ = timeout(CONNECTION, connection) => {}
        () = ended.closed() => {}
    }
}

async fn answer(
    request: &Request<Incoming>,
    questions: &mpsc::Sender<Question>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::wanted(accept.unwrap_or_default());
    let view = match ask(Query::Metrics, questions).await {
        Ok(view) => serde_json::from_value::<MetricsView>(view).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    let process = Process::read().inspect_err(|error| tracing::debug!(%error, "own figures"));
    match view {
        Ok(view) => {
            respond(StatusCode::OK, format.content_type(), text(view, process.ok(), format))
        }
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{error}\n")),
    }
}

fn plain(status: StatusCode, said: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", said.to_owned())
}

fn respond(status: StatusCode, content: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
