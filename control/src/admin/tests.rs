//! The administration over real sockets, with a node that is a task and no forwarder.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::*;
use crate::config;
use crate::link::{self, LinkConfig};

fn row(id: &str) -> ParticipantRow {
    ParticipantRow {
        id: id.to_owned(),
        conference: "abc".to_owned(),
        user: "u1".to_owned(),
        state: ParticipantState::Joined,
        tuple: Some("192.0.2.1:5000".parse().unwrap()),
        dtls: Some("1.2".to_owned()),
        profile: Some("aes256-gcm".to_owned()),
        rtt_ms: Some(12.5),
        streams_in: 3,
        streams_out: 14,
        joined_ms: Some(1000),
    }
}

fn answer(query: Query, draining: &mut bool) -> Report {
    match query {
        Query::Status => Report::Status(NodeStatus { draining: *draining, participants: 2, ..NodeStatus::default() }),
        Query::Conferences => Report::Conferences(Vec::new()),
        Query::Participants { .. } => Report::Participants(vec![row("p7")]),
        Query::Show { participant } | Query::Kick { participant } if participant != "p7" => {
            Report::NotFound { what: format!("participant {participant}") }
        }
        Query::Show { .. } => Report::Show(Box::new(ShowReport {
            participant: row("p7"),
            leg: Some("1/p7".to_owned()),
            local_candidates: vec!["192.0.2.9:3480 host".to_owned()],
            remote_candidates: Vec::new(),
            pair: None,
            path: None,
            remarks: Vec::new(),
            notes: Vec::new(),
            streams: Vec::new(),
        })),
        Query::Kick { participant } => Report::Kicked { participant },
        Query::Drain => {
            *draining = true;
            Report::Draining { conferences: 1, participants: 2 }
        }
        Query::Metrics => Report::Metrics(NodeMetrics {
            participants: 2,
            conferences: 1,
            participants_total: 20,
            conferences_total: 10,
            gauges: vec![("allocations".to_owned(), 5)],
            counters: vec![("token_expired".to_owned(), 3)],
        }),
    }
}

/// A running administration; the events keep the link's task alive.
async fn start(dir: &std::path::Path) -> (Server, link::Events) {
    let (node, mut asked) = mpsc::channel::<Asked>(8);
    tokio::spawn(async move {
        let mut draining = false;
        while let Some((query, reply)) = asked.recv().await {
            let _ = reply.send(answer(query, &mut draining));
        }
    });
    let (link, events) = link::spawn(LinkConfig::new(dir.join("none.sock")));
    let config = config::Admin { listen: Some("127.0.0.1:0".parse().unwrap()), socket: dir.join("control.sock") };
    let sources = Sources { node, link, http: std::sync::Arc::default() };
    (Server::start(&config, sources).await.unwrap(), events)
}

async fn get(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn ask(server: &Server, query: Query) -> Reply {
    let path = server.socket().to_owned();
    let asked = tokio::task::spawn_blocking(move || client::ask(&path, &query, Duration::from_secs(20)));
    asked.await.unwrap().unwrap()
}

#[tokio::test]
async fn metrics_and_health() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _events) = start(dir.path()).await;
    let text = get(&server, "GET /metrics").await;
    for line in [
        "HTTP/1.1 200 OK",
        "\nsft_participants 2\n",
        "\nsft_calls 1\n",
        "\nsft_participants_total 20\n",
        "\nsft_calls_total 10\n",
        "\nsft_uptime 0\n",
        &format!("\nsft_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")),
        "\nsluice_allocations 5\n",
        "\nsluice_control_total{reason=\"token_expired\"} 3\n",
        "\nsluice_http_total{reason=\"body_too_large\"} 0\n",
        "\nsluice_forwarder_up 0\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    assert!(get(&server, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    let ready = get(&server, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("not connected"), "{ready}");
    assert!(get(&server, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(get(&server, "POST /metrics").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn the_command_asks_and_orders() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _events) = start(dir.path()).await;
    let mode = std::fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something else was left in the directory");
    let Reply::Status(status) = ask(&server, Query::Status).await else { panic!("no status") };
    assert_eq!((status.pid, status.forwarder_connected, status.node.participants), (std::process::id(), false, 2));
    let listed = ask(&server, Query::Participants { conference: None }).await;
    assert_eq!(listed, Reply::Report(Report::Participants(vec![row("p7")])));
    let shown = ask(&server, Query::Show { participant: "p7".to_owned() }).await;
    assert!(matches!(shown, Reply::Report(Report::Show(r)) if r.local_candidates.len() == 1 && r.path.is_none()));
    let missing = ask(&server, Query::Kick { participant: "p9".to_owned() }).await;
    assert!(matches!(missing, Reply::Failed { message, .. } if message == "there is no participant p9"));
    let drained = ask(&server, Query::Drain).await;
    assert_eq!(drained, Reply::Report(Report::Draining { conferences: 1, participants: 2 }));
    assert!(get(&server, "GET /readyz").await.contains("draining"));
}

#[tokio::test]
async fn garbage_is_answered_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _events) = start(dir.path()).await;
    let long = vec![b'x'; 80 << 10];
    for text in [&b"nonsense\n"[..], b"{\"query\":\"nothing\"}\n", &long, &[0xff, b'\n']] {
        let mut stream = UnixStream::connect(server.socket()).await.unwrap();
        // The server may hang up before it has taken all of a line that is too long.
        let _ = stream.write_all(text).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("\"failed\"") && answer.contains("this is no query"), "{answer}");
    }
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone_and_an_old_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _events) = start(dir.path()).await;
    let (node, _asked) = mpsc::channel::<Asked>(1);
    let (link, _events_too) = link::spawn(LinkConfig::new(dir.path().join("none.sock")));
    let config = config::Admin { listen: None, socket: server.socket().to_owned() };
    let sources = || Sources { node: node.clone(), link: link.clone(), http: std::sync::Arc::default() };
    let refused = Server::start(&config, sources()).await.unwrap_err();
    assert!(matches!(refused, AdminError::Taken(_)), "{refused}");
    drop(server);
    assert!(!config.socket.exists());
    drop(std::os::unix::net::UnixListener::bind(&config.socket).unwrap());
    let again = Server::start(&config, sources()).await.unwrap();
    assert_eq!(again.address(), None);
}
