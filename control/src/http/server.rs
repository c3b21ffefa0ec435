//! Listens, accepts within limits, shuts down in order. Never reads a request itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::Incoming;
use super::connection;
use super::cors::Cors;
use super::counters::{Count, Counters};
use super::tls::Source;
use crate::config::{Cidr, Http};
use crate::transport::Fingerprint;

/// Why the listener cannot start, or its certificate cannot be read again.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; another process may hold the port, or set http.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}; check http.certificate, http.key and the state directory", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{}: {why}; expected PEM: a chain with the leaf first, and its private key", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No certificate can be made.
    #[error("a self-signed certificate cannot be made: {0}; set http.tls to \"files\"")]
    Make(String),
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) counters: Arc<Counters>,
    pub(super) tls: Option<Source>,
    pub(super) cors: Cors,
    pub(super) trusted: Vec<Cidr>,
    pub(super) body_limit: usize,
    pub(super) header_limit: usize,
    pub(super) header_count: usize,
    pub(super) tls_timeout: Duration,
    pub(super) header_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) answer_timeout: Duration,
    most: usize,
    most_of_address: usize,
    open: Mutex<Open>,
}

/// Connections that are open.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One open connection, for as long as it lives.
struct Ticket {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Ticket {
    fn take(shared: &Arc<Shared>, peer: IpAddr) -> Result<Ticket, Count> {
        let peer = peer.to_canonical();
        let exempt = shared.trusted.iter().any(|range| range.contains(peer));
        let address = site(peer);
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= shared.most {
            return Err(Count::TooManyConnections);
        }
        if !exempt && open.by_address.get(&address).is_some_and(|held| *held >= shared.most_of_address) {
            return Err(Count::TooManyFromAddress);
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Ok(Ticket { shared: Arc::clone(shared), address })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(held) = open.by_address.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// Who counts as one: an IPv4 address, or an IPv6 /64, which is what one subscriber has.
fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// A running listener; dropping it closes everything at once.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on every address of the configuration. Requests go to `incoming`; what does not fit is refused with
    /// 503. A self-signed certificate is kept in the directory `state`, or lasts as long as the process.
    pub async fn start(
        config: &Http,
        state: Option<&Path>,
        incoming: mpsc::Sender<Incoming>,
    ) -> Result<Server, HttpError> {
        let mut names = vec!["localhost".to_owned()];
        if let Some(host) =
            config.public_url.as_ref().and_then(|url| url.authority.parse::<http::uri::Authority>().ok())
        {
            names.push(host.host().trim_start_matches('[').trim_end_matches(']').to_owned());
        }
        names.extend(config.listen.iter().filter(|a| !a.ip().is_unspecified()).map(|a| a.ip().to_string()));
        let shared = Arc::new(Shared {
            incoming,
            counters: Arc::new(Counters::default()),
            tls: Source::open(&config.tls, state, names)?,
            cors: Cors::new(&config.allowed_origins, config.public_url.as_ref()),
            trusted: config.trusted_proxies.clone(),
            body_limit: config.body_limit,
            header_limit: config.header_limit,
            header_count: config.header_count,
            tls_timeout: config.tls_timeout,
            header_timeout: config.header_timeout,
            body_timeout: config.body_timeout,
            write_timeout: config.write_timeout,
            answer_timeout: config.answer_timeout,
            most: config.max_connections,
            most_of_address: config.max_connections_per_address,
            open: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut server = Server { addresses: Vec::new(), shared, stop, accepting: Vec::new() };
        for &address in &config.listen {
            let failed = |source| HttpError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            server.addresses.push(listener.local_addr().map_err(failed)?);
            let accepting = accept(listener, Arc::clone(&server.shared), stopped.clone());
            server.accepting.push(tokio::spawn(accepting));
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.shared.tls.is_some()
    }

    /// SHA-256 of the certificate in use; `None` without TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.shared.tls.as_ref().map(Source::fingerprint)
    }

    /// What it counted.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// Reads certificate and key files again; `false` if there are none. After an error the old ones stay in use.
    pub fn reload(&self) -> Result<bool, HttpError> {
        let Some(tls) = &self.shared.tls else { return Ok(false) };
        let reloaded = tls.reload()?;
        if reloaded {
            self.shared.counters.add(Count::Reloaded);
        }
        Ok(reloaded)
    }

    /// Stops accepting, lets requests that are under way end within `grace`, then closes everything.
    pub async fn shutdown(mut self, grace: Duration) {
        let _ = self.stop.send(true);
        let accepting = std::mem::take(&mut self.accepting);
        let aborts: Vec<_> = accepting.iter().map(JoinHandle::abort_handle).collect();
        let all = async {
            for task in accepting {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            for abort in aborts {
                abort.abort();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.accepting {
            task.abort();
        }
    }
}

/// Waits until the listener is to stop, or is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Accepts until told to stop, then waits for what is open. Being aborted closes it.
async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let given = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, peer)) = accepted {
                admit(&shared, stream, peer.ip(), &given, &mut connections);
            } else {
                shared.counters.add(Count::AcceptFailed);
                // Out of descriptors, most likely: it will not pass sooner.
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: IpAddr,
    stop: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    match Ticket::take(shared, peer) {
        Ok(ticket) => {
            shared.counters.add(Count::Connections);
            let (shared, stop) = (Arc::clone(shared), stop.clone());
            connections.spawn(async move {
                connection::run(shared, stream, peer, stop).await;
                drop(ticket);
            });
        }
        Err(count) => shared.counters.add(count),
    }
}
