//! `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever starts and watches us, in plain HTTP/1; and the
//! console for who runs us.

pub mod console;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::metrics::Metrics;

/// Connections at a time; more wait in the listener's backlog. Prometheus needs one.
const MAX_CONNECTIONS: usize = 64;
/// A connection carries one request, and this is all the time it has.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// After a failed accept, which is a lack of file descriptors more often than not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const INDEX: &str = "causeway\n\n/metrics  for Prometheus\n/healthz  200 while the process runs\n\
                     /readyz   200 while clients can be served, 503 and why otherwise\n";

/// May clients be sent here?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// For people: the text says why.
    NotReady(String),
}

/// Serves until `shutdown` resolves; connections that are open then are cut.
pub async fn serve<R>(listener: TcpListener, metrics: Arc<Metrics>, ready: R, shutdown: impl Future<Output = ()>)
where
    R: Fn() -> Readiness + Send + Sync + 'static,
{
    let pages = Arc::new(Pages { metrics, ready });
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            accepted = accept(&listener, &slots) => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Some((stream, slot)) => {
                let pages = Arc::clone(&pages);
                connections.spawn(async move {
                    answer(stream, pages).await;
                    drop(slot);
                });
            }
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is a slot for it. Cancel safe.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, Slot)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "metrics listener cannot accept");
            None
        }
    }
}

async fn answer<R>(stream: TcpStream, pages: Arc<Pages<R>>)
where
    R: Fn() -> Readiness + Send + Sync + 'static,
{
    let service = service_fn(|request| {
        let response = pages.page(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIMEOUT)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "metrics connection"),
        Err(_) => tracing::debug!("metrics connection took too long"),
    }
}

struct Pages<R> {
    metrics: Arc<Metrics>,
    ready: R,
}

impl<R: Fn() -> Readiness> Pages<R> {
    fn page(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/" | "/metrics" | "/healthz" | "/readyz") {
            return text(StatusCode::NOT_FOUND, TEXT, format!("not found; there is\n\n{INDEX}"));
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/metrics" => text(StatusCode::OK, METRICS_TEXT, self.metrics.render()),
            "/healthz" => text(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => match (self.ready)() {
                Readiness::Ready => text(StatusCode::OK, TEXT, "ready\n".to_owned()),
                Readiness::NotReady(why) => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
            },
            _ => text(StatusCode::OK, TEXT, INDEX.to_owned()),
        }
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    struct Server {
        address: SocketAddr,
        ready: Arc<AtomicBool>,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = oneshot::channel::<()>();
        let seen = Arc::clone(&ready);
        let readiness = move || {
            if seen.load(Ordering::Relaxed) { Readiness::Ready } else { Readiness::NotReady("no node".to_owned()) }
        };
        let shutdown = async move {
            stopped.await.ok();
        };
        let task = tokio::spawn(serve(listener, Metrics::new(2).unwrap(), readiness, shutdown));
        Server { address, ready, stop, task }
    }

    /// Sends `request` and reads to the end of the connection.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may answer and close before it has read everything.
        stream.write_all(request.as_bytes()).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn every_path_answers_what_it_should() {
        let server = start().await;
        let check = async |line: &str, status: &str, part: &str| {
            let answer = ask(server.address, &format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
            assert!(answer.contains(part), "{line}: {answer}");
        };
        check("GET /metrics", "200", "\ncauseway_clients 0\n").await;
        check("GET /metrics", "200", "content-type: text/plain; version=0.0.4").await;
        check("GET /healthz", "200", "ok").await;
        check("GET /readyz", "200", "ready").await;
        check("GET /readyz?verbose", "200", "ready").await;
        check("GET /", "200", "/metrics").await;
        check("HEAD /metrics", "200", "content-length").await;
        check("GET /nothing", "404", "/metrics").await;
        check("POST /metrics", "405", "allow: GET, HEAD").await;
        server.ready.store(false, Ordering::Relaxed);
        check("GET /readyz", "503", "not ready: no node").await;
        check("GET /healthz", "200", "ok").await;
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_and_the_next_one_is_served() {
        let server = start().await;
        let many = "X: y\r\n".repeat(MAX_HEADERS + 1);
        let long = "y".repeat(MAX_HEADER_BYTES * 2);
        for request in [
            "\0\0\0\u{8}\u{4}\u{d2}\u{16}/\r\n\r\n".to_owned(),
            format!("GET /metrics HTTP/1.1\r\n{many}\r\n"),
            format!("GET /metrics HTTP/1.1\r\nX: {long}\r\n\r\n"),
            format!("GET /{long} HTTP/1.1\r\n\r\n"),
        ] {
            let answer = ask(server.address, &request).await;
            assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        }
        let answer = ask(server.address, "GET /healthz HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_dawdles_is_cut() {
        let server = start().await;
        let mut dawdler = TcpStream::connect(server.address).await.unwrap();
        dawdler.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
        // Time is paused: it passes as soon as everybody waits, so this ends at once or, without the limit, never.
        let mut answer = Vec::new();
        dawdler.read_to_end(&mut answer).await.ok();
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn it_ends_when_told_to() {
        let server = start().await;
        server.stop.send(()).unwrap();
        server.task.await.unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
