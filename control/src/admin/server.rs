//! Starts the administration and finds the answers: from the node, the listener, the link and the forwarder.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::AdminError;
use super::metrics::{Known, render};
use super::query::{NodeMetrics, NodeStatus, Query, Reply, Report, Status};
use super::{merge, serve};
use crate::config::Admin;
use crate::{http, link};

/// A query on its way to the node, and where the report goes.
pub type Asked = (Query, oneshot::Sender<Report>);

/// How long the node may take to answer.
const NODE: Duration = Duration::from_secs(5);

/// Where answers come from.
#[derive(Debug)]
pub struct Sources {
    /// The node.
    pub node: mpsc::Sender<Asked>,
    /// The forwarder.
    pub link: link::Link,
    /// The public listener.
    pub http: Arc<http::Counters>,
}

/// Answers queries.
#[derive(Debug)]
pub(super) struct Desk {
    sources: Sources,
    started: Instant,
}

/// The running administration; dropping it ends it and removes its socket.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    socket: PathBuf,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens for metrics and for the command.
    pub async fn start(config: &Admin, sources: Sources) -> Result<Server, AdminError> {
        let desk = Arc::new(Desk { sources, started: Instant::now() });
        let mut server = Server { address: None, socket: config.socket.clone(), tasks: Vec::new() };
        let listener = bind(&config.socket)?;
        server.tasks.push(tokio::spawn(serve::socket(listener, Arc::clone(&desk))));
        if let Some(address) = config.listen {
            let failed = |source| AdminError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            server.address = Some(listener.local_addr().map_err(failed)?);
            server.tasks.push(tokio::spawn(serve::http(listener, desk)));
        }
        Ok(server)
    }

    /// Where metrics are, if anywhere.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The command's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if !self.tasks.is_empty() {
            // A socket that is left behind is replaced at the next start.
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// Makes the socket, 0600 from its first moment: it gets its name only then.
fn bind(path: &Path) -> Result<UnixListener, AdminError> {
    let failed = |source| AdminError::Socket { path: path.to_owned(), source };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(AdminError::Taken(path.to_owned())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
        Err(e) => return Err(failed(e)),
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    let hidden = path.with_extension(format!("{}.d", std::process::id()));
    DirBuilder::new().mode(0o700).create(&hidden).map_err(failed)?;
    let inner = hidden.join("s");
    let made = UnixListener::bind(&inner).and_then(|listener| {
        fs::set_permissions(&inner, Permissions::from_mode(0o600))?;
        fs::rename(&inner, path)?;
        Ok(listener)
    });
    // Empty unless the above failed.
    let _ = fs::remove_dir_all(&hidden);
    made.map_err(failed)
}

impl Desk {
    async fn node(&self, query: Query) -> Result<Report, String> {
        let (answer, answered) = oneshot::channel();
        let behind = || "the node is overloaded or stopped; look at the log of sluice-control".to_owned();
        self.sources.node.try_send((query, answer)).map_err(|_| behind())?;
        match timeout(NODE, answered).await {
            Ok(Ok(report)) => Ok(report),
            _ => Err(behind()),
        }
    }

    async fn node_status(&self) -> Result<NodeStatus, String> {
        match self.node(Query::Status).await? {
            Report::Status(status) => Ok(status),
            _ => Err("the node gave an unexpected answer; report this".to_owned()),
        }
    }

    /// Whether the node answers.
    pub(super) async fn healthy(&self) -> Result<(), String> {
        self.node_status().await.map(|_| ())
    }

    /// Whether new clients are welcome.
    pub(super) async fn ready(&self) -> Result<(), String> {
        if self.node_status().await?.draining {
            return Err("draining".to_owned());
        }
        if !self.sources.link.is_up() {
            return Err("the forwarder is not connected".to_owned());
        }
        Ok(())
    }

    /// Answers the command.
    pub(super) async fn reply(&self, query: Query) -> Reply {
        if query == Query::Status {
            return match self.node_status().await {
                Ok(node) => Reply::Status(Status {
                    software: env!("CARGO_PKG_VERSION").to_owned(),
                    pid: std::process::id(),
                    uptime_ms: self.started.elapsed().as_millis() as u64,
                    forwarder_connected: self.sources.link.is_up(),
                    node,
                }),
                Err(message) => failed(message),
            };
        }
        match self.node(query).await {
            Ok(Report::Show(mut report)) => {
                let link = &self.sources.link;
                let (status, legs, streams) = tokio::join!(link.status(), link.legs(), link.streams());
                // Without the forwarder the report is what the node knows.
                if let Ok(legs) = legs {
                    merge::leg(&mut report, &legs, status.ok().as_ref());
                }
                if let Ok(streams) = streams {
                    merge::streams(&mut report, &streams);
                }
                Reply::Report(Report::Show(report))
            }
            Ok(Report::NotFound { what }) => Reply::Failed {
                message: format!("there is no {what}"),
                hint: "`sluice conferences` and `sluice participants` list what there is".to_owned(),
            },
            Ok(report) => Reply::Report(report),
            Err(message) => failed(message),
        }
    }

    /// Everything for Prometheus.
    pub(super) async fn metrics(&self) -> Result<String, String> {
        let Sources { link, http, .. } = &self.sources;
        let (node, status, groups) = tokio::join!(self.node(Query::Metrics), link.status(), link.forwarder_counters());
        let node = match node? {
            Report::Metrics(metrics) => metrics,
            _ => NodeMetrics::default(),
        };
        let forwarder = status.ok().zip(groups.ok());
        Ok(render(&Known {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.started.elapsed().as_secs(),
            node: &node,
            http: http.all(),
            link: link.counters().all(),
            forwarder: forwarder.as_ref().map(|(status, groups)| (status, groups.as_slice())),
        }))
    }
}

fn failed(message: String) -> Reply {
    Reply::Failed { message, hint: "try again; if it stays, restart sluice-control".to_owned() }
}
