//! The process around the data plane: makes workers, the management thread and the table socket from a
//! configuration.

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use sluice_srtp::{AnyProvider, ProviderError, ProviderKind};

use crate::config::Config;
use crate::engine::Engine;
use crate::hops::{Hops, HopsError};
use crate::index_file::store::{IndexStore, StoreError};
use crate::index_file::{IndexFile, IndexFileError, MAX_ROWS};
use crate::io::UdpIo;
use crate::io::udp::UdpOptions;
use crate::manage::endpoints::Endpoints;
use crate::manage::indexes::Indexes;
use crate::manage::manager::{Ask, Fixed, Manager};
use crate::manage::serve::{self, ServeError};
use crate::manage::{Planner, PlannerConfig};
use crate::worker::run::{Worker, WorkerOptions};
use crate::worker::{WorkerHandle, WorkerPorts};

/// Why the forwarder did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The crypto provider does not work here.
    #[error("crypto provider {0}")]
    Provider(#[from] ProviderError),
    /// Routes cannot be asked for.
    #[error("routes and neighbours cannot be watched")]
    Hops(#[from] HopsError),
    /// The table socket cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// An expected interface is missing.
    #[error("there is no interface {0}; `ip link` lists them")]
    Interface(String),
    /// The index file cannot be used.
    #[error(transparent)]
    IndexFile(#[from] IndexFileError),
    /// The index file contradicts itself.
    #[error("index file: {0}")]
    Indexes(#[from] StoreError),
    /// The system refused something.
    #[error("{what}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// A running data plane.
#[derive(Debug)]
pub struct Running {
    asks: Sender<Ask>,
    manager: Option<JoinHandle<()>>,
    socket: PathBuf,
}

impl Running {
    /// Stops workers and removes the socket. Programs detach as their descriptors close.
    pub fn stop(mut self) {
        let _ = self.asks.send(Ask::Stop);
        if let Some(manager) = self.manager.take() {
            let _ = manager.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Checks that an interface exists.
pub fn check_interface(name: &str) -> Result<(), StartError> {
    if std::path::Path::new("/sys/class/net").join(name).exists() {
        Ok(())
    } else {
        Err(StartError::Interface(name.to_owned()))
    }
}

/// Starts everything.
pub fn start(config: &Config) -> Result<Running, StartError> {
    no_core_dumps();
    let kind = match config.provider.as_str() {
        "best" => ProviderKind::best(),
        name => name.parse().unwrap_or(ProviderKind::Portable),
    };
    let note = match (config.provider.as_str(), kind) {
        ("best", ProviderKind::Portable) => match AnyProvider::new(ProviderKind::IpsecMb) {
            Err(error) => format!("chosen because {error}"),
            Ok(_) => "chosen as the best there is".to_owned(),
        },
        ("best", _) => "chosen as the best there is".to_owned(),
        _ => "asked for".to_owned(),
    };
    let seed = random_words().map_err(|source| StartError::System { what: "reading random numbers", source })?;
    // The socket comes after what another forwarder may hold: one that cannot start leaves none behind.
    let indexes = open_indexes(config)?;
    let hops = Hops::open()?;
    let crypto = AnyProvider::new(kind)?;
    let listener = serve::bind(&config.socket)?;
    let capacity = config.capacity.per_worker(config.workers);
    let workers = spawn_workers(config, kind, &capacity, seed)?;
    tracing::info!(provider = %kind, note, workers = config.workers, "data plane started");
    let fixed = Fixed { provider: kind.to_string(), provider_note: note, polling: config.polling };
    let planner = Planner::new(PlannerConfig { workers: config.workers, capacity });
    let endpoints = Endpoints::new(config.io, config.polling.into(), config.huge_pages);
    let (asks, received) = channel();
    for worker in &workers {
        let asks = asks.clone();
        // Once the management thread has ended there is nobody to hurry.
        worker.on_urgent(Box::new(move || drop(asks.send(Ask::ReportsWaiting))));
    }
    let manager = std::thread::Builder::new()
        .name("manager".to_owned())
        .spawn(move || {
            let random = random_numbers();
            Manager::new(planner, endpoints, workers, crypto, indexes, hops, random, fixed).run(&received);
        })
        .map_err(|source| StartError::System { what: "starting the management thread", source })?;
    let for_server = asks.clone();
    std::thread::Builder::new()
        .name("table-accept".to_owned())
        .spawn(move || serve::accept(&listener, &for_server))
        .map_err(|source| StartError::System { what: "starting the table server", source })?;
    Ok(Running { asks, manager: Some(manager), socket: config.socket.clone() })
}

fn spawn_workers(
    config: &Config,
    kind: ProviderKind,
    capacity: &crate::engine::Capacity,
    seed: [u64; 2],
) -> Result<Vec<WorkerHandle>, StartError> {
    let mut engines = Vec::new();
    for worker in 0..config.workers {
        engines.push(Engine::new(worker, config.workers, AnyProvider::new(kind)?, capacity, seed));
    }
    for a in 0..engines.len() {
        let (left, right) = engines.split_at_mut(a + 1);
        for b in right {
            Engine::connect(&mut left[a], b);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut workers = Vec::new();
    for (n, engine) in engines.into_iter().enumerate() {
        let options =
            UdpOptions { segmentation: config.segmentation, poll: config.polling.into(), ..UdpOptions::default() };
        let udp = UdpIo::new(Vec::new(), &options)
            .map_err(|source| StartError::System { what: "making memory for kernel sockets", source })?;
        let cpu =
            config.cpus.get(n).copied().or((config.cpus.is_empty() && config.workers > 1 && n < cores).then_some(n));
        let options = WorkerOptions { poll: config.polling.into(), cpu };
        let worker = Worker::spawn(n as u8, engine, WorkerPorts::new(udp), options)
            .map_err(|source| StartError::System { what: "starting a worker thread", source })?;
        workers.push(worker);
    }
    Ok(workers)
}

/// Keys live in this process's memory; they must not end in a core file.
fn no_core_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a readable local; failing leaves the system's default.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

fn random_words<const N: usize>() -> std::io::Result<[u64; N]> {
    let mut words = [0u64; N];
    // SAFETY: as many writable bytes as said, of which any value is valid; the call returns all of them, up to 256, or
    // an error.
    let got = unsafe { libc::getrandom(words.as_mut_ptr().cast(), size_of_val(&words), 0) };
    if got == size_of_val(&words) as isize { Ok(words) } else { Err(std::io::Error::last_os_error()) }
}

/// Numbers for first sequence numbers, fetched many at a time: a large table takes one for each stream.
fn random_numbers() -> Box<dyn FnMut() -> u64> {
    let mut words = [0u64; 32];
    let mut left = 0;
    Box::new(move || {
        if left == 0 {
            words = random_words().unwrap_or_default();
            left = words.len();
        }
        left -= 1;
        words[left]
    })
}

/// The index file: a row for each stream and direction and one for each key, twice over so that keys which were
/// given up are remembered for a while.
fn open_indexes(config: &Config) -> Result<Box<dyn Indexes + Send>, StartError> {
    let c = &config.capacity;
    let rows = ((c.ingress + c.learned + c.egress + c.legs * 4) * 2).min(MAX_ROWS as usize) as u32;
    let file = IndexFile::open(&config.state.join("indexes"), rows)?;
    Ok(Box::new(IndexStore::new(std::sync::Arc::new(file))?))
}
