//! Both doors: HTTP for metrics and health, JSON lines for the command. Bounded in number, size and time.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::query::Reply;
use super::server::Desk;

/// Connections at a time, of each door.
const MOST: usize = 64;
/// Longest query, in bytes.
const LINE: u64 = 64 << 10;
/// How long one HTTP connection, or one query or reply of the socket, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Accepts HTTP connections for ever.
pub(super) async fn http(listener: TcpListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            // Whoever is cut off here was too slow; who asks again gets a new connection.
            let _ = timeout(PATIENCE, connection(stream, desk)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(|request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(respond(&desk, &request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 << 10);
    // Its peer is on this host and sees the end itself.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(desk: &Desk, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, kind, body) = if matches!(*request.method(), Method::GET | Method::HEAD) {
        match request.uri().path() {
            "/metrics" => match desk.metrics().await {
                Ok(text) => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
            },
            "/healthz" => health(desk.healthy().await),
            "/readyz" => health(desk.ready().await),
            _ => (StatusCode::NOT_FOUND, PLAIN, "here are /metrics, /healthz and /readyz\n".to_owned()),
        }
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET; the sluice command administers\n".to_owned())
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn health(checked: Result<(), String>) -> (StatusCode, &'static str, String) {
    match checked {
        Ok(()) => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
    }
}

/// Accepts the command's connections for ever.
pub(super) async fn socket(listener: UnixListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            // The command sees the end of its connection itself.
            let _ = lines(stream, &desk).await;
            drop(place);
        });
    }
}

async fn lines(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let taken = timeout(PATIENCE, (&mut read).take(LINE).read_until(b'\n', &mut line)).await??;
        if taken == 0 {
            return Ok(());
        }
        let understood = if line.last() == Some(&b'\n') {
            serde_json::from_slice(&line).map_err(|e| e.to_string())
        } else {
            Err(format!("longer than {LINE} bytes, or without an end"))
        };
        let ended = line.last() != Some(&b'\n');
        let reply = match understood {
            Ok(query) => desk.reply(query).await,
            Err(why) => Reply::Failed {
                message: format!("this is no query: {why}"),
                hint: "install sluice and sluice-control from the same release".to_owned(),
            },
        };
        let mut answer = serde_json::to_vec(&reply)?;
        answer.push(b'\n');
        timeout(PATIENCE, write.write_all(&answer)).await??;
        if ended {
            return Ok(());
        }
    }
}
