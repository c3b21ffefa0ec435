//! The listener over real sockets on loopback.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{Http, Origins, Tls};

fn plain() -> Http {
    Http {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls: Tls::Off,
        body_limit: 1000,
        header_limit: 8192,
        ..Http::default()
    }
}

/// A server whose node answers with what it was asked.
async fn echo(config: &Http) -> Server {
    let (incoming, mut requests) = mpsc::channel::<Incoming>(16);
    tokio::spawn(async move {
        while let Some(Incoming { request, reply }) = requests.recv().await {
            let r = &request;
            let text = format!("{} {} ?{} {} {}", r.method, r.path, r.query, r.client, r.body.len());
            let _ = reply.send(Answer::new(200, "text/plain", text));
        }
    });
    Server::start(config, None, incoming).await.unwrap()
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.addresses()[0]).await.unwrap()
}

/// Sends, then reads to the end of the connection.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("no end");
    String::from_utf8(answer).unwrap()
}

async fn ask(server: &Server, text: &str) -> String {
    exchange(&mut connect(server).await, text).await
}

#[track_caller]
fn has(answer: &str, parts: &[&str]) {
    for part in parts {
        assert!(answer.contains(part), "{part:?} is not in {answer}");
    }
}

#[tokio::test]
async fn a_request_reaches_the_node_and_its_answer_the_client() {
    let server = echo(&plain()).await;
    let answer = ask(
        &server,
        "POST /pre%20fix/sft/abc?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    )
    .await;
    has(&answer, &["HTTP/1.1 200", "content-type: text/plain", "POST /pre fix/sft/abc ?x=1 127.0.0.1 3"]);
    // Two on one connection, the second chunked.
    let answer = ask(
        &server,
        "GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    )
    .await;
    has(&answer, &["GET /a ? 127.0.0.1 0", "POST /b ? 127.0.0.1 4"]);
    assert_eq!(server.counters().get(Count::Requests), 3);
}

#[tokio::test]
async fn limits_are_answered_and_counted() {
    let server = echo(&plain()).await;
    let long = "x".repeat(9000);
    let chunked =
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2328\r\n{long}\r\n0\r\n\r\n");
    let many: String = (0..80).map(|n| ["x-", &n.to_string(), ": 1\r\n"].concat()).collect();
    let cases = [
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n".to_owned(), "413", Count::BodyTooLarge),
        (chunked, "413", Count::BodyTooLarge),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nx: {long}\r\n\r\n"), "431", Count::HeadTooLarge),
        (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), "431", Count::HeadTooLarge),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n"), "431", Count::HeadTooLarge),
        ("BREW / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned(), "405", Count::BadMethod),
        ("GET /%zz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned(), "400", Count::BadPath),
        ("GET /%ff HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned(), "400", Count::BadPath),
        ("GET /% HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned(), "400", Count::BadPath),
        ("nonsense\r\n\r\n".to_owned(), "400", Count::Malformed),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), "400", Count::Malformed),
    ];
    for (text, status, count) in cases {
        let before = server.counters().get(count);
        let answer = ask(&server, &text).await;
        let head: String = text.chars().take(40).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head:?}: {answer}");
        assert_eq!(server.counters().get(count), before + 1, "{head:?}: {:?}", server.counters().all());
    }
    let answer = ask(&server, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n").await;
    has(&answer, &["\"error\":\"body_too_large\"", "longer than 1000 bytes", "connection: close"]);
    assert_eq!(server.counters().get(Count::Requests), 0);
}

#[tokio::test]
async fn the_slow_are_cut_and_counted() {
    let short = Duration::from_millis(150);
    let config = Http { header_timeout: short, body_timeout: short, ..plain() };
    let server = echo(&config).await;
    assert_eq!(ask(&server, "GET / HTTP/1.1\r\nHos").await, "");
    assert_eq!(server.counters().get(Count::HeadSlow), 1);
    let answer = ask(&server, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc").await;
    has(&answer, &["HTTP/1.1 408", "\"error\":\"body_slow\""]);
    assert_eq!(server.counters().get(Count::BodySlow), 1);
    // Unused ones are closed as well, but nobody is to blame.
    assert_eq!(ask(&server, "").await, "");
    has(&ask(&server, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").await, &["HTTP/1.1 200"]);
    assert_eq!((server.counters().get(Count::Idle), server.counters().get(Count::HeadSlow)), (2, 1));
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    let config = Http { write_timeout: Duration::from_millis(100), ..plain() };
    let (incoming, mut requests) = mpsc::channel::<Incoming>(16);
    tokio::spawn(async move {
        while let Some(Incoming { reply, .. }) = requests.recv().await {
            let _ = reply.send(Answer::new(200, "text/plain", vec![b'x'; 32 << 20]));
        }
    });
    let server = Server::start(&config, None, incoming).await.unwrap();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    while server.counters().get(Count::ReaderSlow) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < 32 << 20);
}

#[tokio::test]
async fn a_full_queue_is_503_and_silence_is_504() {
    let config = Http { answer_timeout: Duration::from_millis(150), ..plain() };
    let (incoming, mut requests) = mpsc::channel::<Incoming>(1);
    let server = Server::start(&config, None, incoming).await.unwrap();
    let text = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    has(&ask(&server, text).await, &["HTTP/1.1 504", "\"error\":\"unanswered\""]);
    has(&ask(&server, text).await, &["HTTP/1.1 503", "\"error\":\"overloaded\"", "retry-after: 1"]);
    drop(requests.recv().await);
    let given_up = async {
        drop(requests.recv().await);
    };
    let (answer, ()) = tokio::join!(ask(&server, text), given_up);
    has(&answer, &["HTTP/1.1 503", "\"error\":\"given_up\""]);
    drop(requests);
    has(&ask(&server, text).await, &["HTTP/1.1 503", "stopping"]);
}

#[tokio::test]
async fn browsers_of_allowed_origins_may_call() {
    let preflight = "OPTIONS /sft/x HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example\r\n\
                     Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\
                     Connection: close\r\n\r\n";
    let post = "POST /sft/x HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example\r\nContent-Length: 0\r\n\
                Connection: close\r\n\r\n";
    let server = echo(&plain()).await;
    let answer = ask(&server, preflight).await;
    has(&answer, &["HTTP/1.1 204", "access-control-allow-origin: *", "access-control-allow-headers: Content-Type"]);
    has(&ask(&server, post).await, &["HTTP/1.1 200", "access-control-allow-origin: *", "expose-headers: Location"]);
    // Errors as well: otherwise a browser shows none.
    let refused = post.replace("Content-Length: 0", "Content-Length: 5000");
    has(&ask(&server, &refused).await, &["HTTP/1.1 413", "access-control-allow-origin: *"]);
    assert_eq!(server.counters().get(Count::Preflights), 1);

    let origins = Origins::List(vec!["https://app.example".into()]);
    let public_url = Some("https://sft.example/x".parse().unwrap());
    let server = echo(&Http { allowed_origins: origins, public_url, ..plain() }).await;
    has(&ask(&server, post).await, &["HTTP/1.1 200", "allow-origin: https://app.example", "vary: Origin"]);
    has(&ask(&server, &post.replace("app.example", "sft.example")).await, &["HTTP/1.1 200"]);
    let answer = ask(&server, &post.replace("app.example", "evil.example")).await;
    has(&answer, &["HTTP/1.1 403", "\"error\":\"bad_origin\""]);
    assert!(!answer.contains("access-control"), "{answer}");
    let native = post.replace("Origin: https://app.example\r\n", "");
    has(&ask(&server, &native).await, &["HTTP/1.1 200"]);
}

#[tokio::test]
async fn connections_are_limited() {
    let config = Http { max_connections: 3, max_connections_per_address: 2, ..plain() };
    let server = echo(&config).await;
    let held = [connect(&server).await, connect(&server).await];
    while server.counters().get(Count::Connections) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&server, "").await, "");
    assert_eq!(server.counters().get(Count::TooManyFromAddress), 1);
    drop(held);
    let text = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    // Freed as soon as the server noticed.
    while !ask(&server, text).await.contains("HTTP/1.1 200") {}

    let trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = echo(&Http { trusted_proxies, ..config }).await;
    let _held = [connect(&server).await, connect(&server).await, connect(&server).await];
    while server.counters().get(Count::Connections) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&server, "").await, "");
    let counters = server.counters();
    assert_eq!((counters.get(Count::TooManyConnections), counters.get(Count::TooManyFromAddress)), (1, 0));
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=192.0.2.7\r\nConnection: close\r\n\r\n";
    has(&ask(&echo(&plain()).await, text).await, &[" 127.0.0.1 0"]);
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    has(&ask(&echo(&Http { trusted_proxies, ..plain() }).await, text).await, &[" 192.0.2.7 0"]);
}

fn connector(certificate: &CertificateDer<'static>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn tls_with_a_certificate_that_stays() {
    use rustls::pki_types::pem::PemObject;
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let config = Http { tls: Tls::SelfSigned, tls_timeout: Duration::from_millis(200), ..plain() };
    let (incoming, mut requests) = mpsc::channel::<Incoming>(16);
    let server = Server::start(&config, Some(dir.path()), incoming.clone()).await.unwrap();
    tokio::spawn(async move {
        while let Some(Incoming { reply, .. }) = requests.recv().await {
            let _ = reply.send(Answer::new(200, "text/plain", "secret"));
        }
    });
    let path = dir.path().join("https.pem");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let certificate = CertificateDer::from_pem_slice(&std::fs::read(&path).unwrap()).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(&certificate).connect(name.clone(), connect(&server).await).await.unwrap();
    let text = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    has(&exchange(&mut stream, text).await, &["HTTP/1.1 200", "secret"]);

    // Plain HTTP, garbage and silence.
    ask(&server, text).await;
    assert_eq!(ask(&server, "").await, "");
    assert_eq!((server.counters().get(Count::TlsFailed), server.counters().get(Count::TlsSlow)), (1, 1));

    let fingerprint = server.fingerprint().unwrap();
    assert!(fingerprint.to_string().starts_with("sha-256 "));
    drop(server);
    let again = Server::start(&config, Some(dir.path()), incoming).await.unwrap();
    assert_eq!(again.fingerprint().unwrap(), fingerprint);
    assert!(!again.reload().unwrap());
}

#[tokio::test]
async fn certificate_files_are_read_again_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    };
    write();
    let tls = Tls::Files { certificate: certificate.clone(), key: key.clone() };
    let server = echo(&Http { tls, ..plain() }).await;
    let first = server.fingerprint();
    write();
    assert!(server.reload().unwrap());
    let second = server.fingerprint();
    assert_ne!(first, second);
    // A mistake changes nothing.
    std::fs::write(&key, "no key").unwrap();
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("k.pem"), "{error}");
    assert_eq!(server.fingerprint(), second);
}

#[tokio::test]
async fn shutdown_lets_requests_end() {
    let (incoming, mut requests) = mpsc::channel::<Incoming>(16);
    let server = Server::start(&plain(), None, incoming).await.unwrap();
    let address = server.addresses()[0];
    let mut stream = connect(&server).await;
    let mut idle = connect(&server).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let Incoming { reply, .. } = requests.recv().await.unwrap();
    let stopping = tokio::spawn(server.shutdown(Duration::from_secs(20)));
    // The idle one ends at once, the other one after its answer.
    assert_eq!(exchange(&mut idle, "").await, "");
    reply.send(Answer::new(200, "text/plain", "last")).unwrap();
    has(&exchange(&mut stream, "").await, &["last"]);
    stopping.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
