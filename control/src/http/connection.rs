//! One connection: TLS, HTTP/1.1, and why it ended. Never outlives its time-outs.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::counters::Count;
use super::guard::Guarded;
use super::request::respond;
use super::server::{Shared, stopped};

pub(super) async fn run(shared: Arc<Shared>, stream: TcpStream, peer: IpAddr, stop: watch::Receiver<bool>) {
    // Answers are small; without this a second one could wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &shared.tls else { return serve(&shared, stream, peer, stop).await };
    match timeout(shared.tls_timeout, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => serve(&shared, stream, peer, stop).await,
        Ok(Err(_)) => shared.counters.add(Count::TlsFailed),
        Err(_) => shared.counters.add(Count::TlsSlow),
    }
}

async fn serve<S>(shared: &Arc<Shared>, stream: S, peer: IpAddr, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let read = Arc::new(AtomicU64::new(0));
    // Bytes that were read when the last request had been taken in.
    let used = Arc::new(AtomicU64::new(0));
    let stream = Guarded::new(stream, Arc::clone(&read), shared.write_timeout, Arc::clone(&shared.counters));
    let service = service_fn(|request| {
        let (shared, read, used) = (Arc::clone(shared), Arc::clone(&read), Arc::clone(&used));
        async move {
            let response = respond(&shared, peer, request).await;
            used.store(read.load(Ordering::Relaxed), Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.header_timeout)
        .max_buf_size(shared.header_limit)
        .max_headers(shared.header_count);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    let Err(error) = ended else { return };
    let count = if error.is_timeout() {
        if read.load(Ordering::Relaxed) == used.load(Ordering::Relaxed) { Count::Idle } else { Count::HeadSlow }
    } else if error.is_parse_too_large() {
        Count::HeadTooLarge
    } else if error.is_parse() {
        Count::Malformed
    } else {
        Count::Aborted
    };
    shared.counters.add(count);
}
