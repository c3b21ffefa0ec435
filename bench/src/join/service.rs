//! The processes under test: `sluice-forwarder` and `sluice-control` in the lab's namespace, on their cores. Starts them,
//! reads what they use, and ends them by their process ids.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice_table::protocol::{Client, CounterGroup, Request, Response, Role};

use super::Arguments;
use crate::error::BenchError;
use crate::guard;
use crate::lab::net::{self, MEDIA, SFU, SFU_DEVICE};
use crate::latency::Latency;

const PATIENCE: Duration = Duration::from_secs(20);
const HTTP_PORT: u16 = 8_080;
const MEDIA_PORT: u16 = 3_480;
/// Inside the node's namespace.
const METRICS: &str = "127.0.0.1:49090";

/// Where clients ask.
pub(super) fn http() -> SocketAddr {
    SocketAddr::new(MEDIA.ip(), HTTP_PORT)
}

/// Both processes.
#[derive(Debug)]
pub(super) struct Service {
    /// Ended first.
    control: Process,
    forwarder: Process,
    /// The forwarder's core.
    softirq: Option<u32>,
    directory: tempfile::TempDir,
}

/// A thread that measures commits.
#[derive(Debug)]
pub(super) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Latency>,
}

impl Probe {
    /// Ends it and returns what it measured.
    pub(super) fn end(self) -> Latency {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Latency::new())
    }
}

/// What the processes used so far, in nanoseconds of CPU and KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) control_cpu: u64,
    pub(super) forwarder_cpu: u64,
    /// Of the forwarder's core: what its own context did not get to.
    pub(super) softirq_cpu: u64,
    pub(super) control_rss: u64,
}

impl Service {
    /// Starts both and waits until clients are answered.
    pub(super) fn start(arguments: &Arguments) -> Result<Service, BenchError> {
        let directory = tempfile::Builder::new().prefix("sluice-join-").tempdir_in("/dev/shm");
        let directory = directory.map_err(BenchError::system("making a directory in /dev/shm"))?;
        let at = directory.path();
        let write = |name: &str, text: String| {
            let path = at.join(name);
            fs::write(&path, text).map_err(BenchError::system(format!("writing {name}")))?;
            Ok::<_, BenchError>(path)
        };
        let state = at.join("control");
        fs::DirBuilder::new().mode(0o700).create(&state).map_err(BenchError::system("making a state directory"))?;
        let forwarder = write("forwarder.toml", forwarder(arguments, at))?;
        let control = write("control.toml", control(arguments, at))?;
        let binary = beside(arguments.forwarder.as_deref(), "sluice-forwarder")?;
        let forwarder = Process::start(
            at,
            "forwarder",
            arguments.forwarder_core,
            &binary,
            &["--config".as_ref(), forwarder.as_path()],
        )?;
        let binary = beside(arguments.control.as_deref(), "sluice-control")?;
        let control = Process::start(
            at,
            "control",
            arguments.control_core,
            &binary,
            &["--config".as_ref(), control.as_path(), "--state".as_ref(), state.as_path()],
        )?;
        let mut service =
            Service { control, forwarder, softirq: guard::softirq_thread(arguments.forwarder_core), directory };
        service.wait_ready()?;
        Ok(service)
    }

    fn wait_ready(&mut self) -> Result<(), BenchError> {
        let end = Instant::now() + PATIENCE;
        let what = "starting the service";
        loop {
            for one in [&mut self.forwarder, &mut self.control] {
                if let Ok(Some(status)) = one.child.try_wait() {
                    let why = format!("{} ended with {status}:\n{}", one.name, one.log_tail());
                    return Err(BenchError::Refused { what: what.to_owned(), why });
                }
            }
            if listens().unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > end {
                let why = format!("no answer:\n{}\n{}", self.control.log_tail(), self.forwarder.log_tail());
                return Err(BenchError::Refused { what: what.to_owned(), why });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn used(&self) -> Used {
        Used {
            control_cpu: guard::process_cpu(self.control.child.id()),
            forwarder_cpu: guard::process_cpu(self.forwarder.child.id()),
            softirq_cpu: self.softirq.map_or(0, guard::process_cpu),
            control_rss: rss(
                &fs::read_to_string(format!("/proc/{}/status", self.control.child.id())).unwrap_or_default()
            ),
        }
    }

    /// A table connection beside control's.
    pub(super) fn table(&self) -> Result<Client, BenchError> {
        let path = self.directory.path().join("table.sock");
        Client::connect(&path, Role::Table, Some(PATIENCE)).map_err(BenchError::refused("connecting to the forwarder"))
    }

    /// The forwarder's counters by group and name.
    pub(super) fn counters(&self) -> Result<BTreeMap<(String, String), u64>, BenchError> {
        let what = "reading the forwarder's counters";
        let mut client = self.table()?;
        let answer = client.call(Request::Counters).map_err(BenchError::refused(what))?;
        let Response::Counters(groups) = answer else {
            return Err(BenchError::refused(what)(client.unexpected("counters")));
        };
        let named = |group: CounterGroup| {
            let of = group.group;
            group.counters.into_iter().map(move |(name, count)| ((of.clone(), name), count))
        };
        Ok(groups.into_iter().flat_map(named).collect())
    }

    /// Commits nothing, again and again, until the guard is dropped: how long the forwarder takes for a transaction
    /// beside control's, and no row changes.
    pub(super) fn probe(&self, every: Duration) -> Result<Probe, BenchError> {
        let mut client = self.table()?;
        let what = "probing commits";
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
            let mut taken = Latency::new();
            for id in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                // Ids of control count from 1 and never get here.
                let request = Request::Transaction { id: u64::MAX / 2 + id, changes: Vec::new() };
                if client.call(request).is_err() {
                    break;
                }
                taken.record(start.elapsed().as_nanos() as i64);
                std::thread::sleep(every);
            }
            taken
        });
        Ok(Probe { stop, thread: thread.map_err(BenchError::system(what))? })
    }

    /// The link's counters by name; empty if control does not answer.
    #[allow(clippy::unused_self, reason = "they are this service's")]
    pub(super) fn link(&self) -> BTreeMap<String, u64> {
        link_counters(&get("/metrics").unwrap_or_default())
    }

    /// The last lines of both logs that tell of a problem.
    pub(super) fn problems(&self) -> Vec<String> {
        [&self.control, &self.forwarder].into_iter().flat_map(Process::problems).collect()
    }
}

fn forwarder(arguments: &Arguments, at: &Path) -> String {
    let legs = (arguments.conferences * arguments.participants * 2).max(1_024);
    format!(
        "workers = 1\nio = \"{}\"\npolling = \"interrupt\"\nsocket = \"{}\"\nstate = \"{}\"\n\
         [capacity]\nlegs = {legs}\ningress = {}\nlearned = {}\negress = {}\nsources = {}\n",
        arguments.io.name(),
        at.join("table.sock").display(),
        at.join("forwarder").display(),
        legs * 4,
        legs * 4,
        legs * 20,
        legs * 4,
    )
}

fn control(arguments: &Arguments, at: &Path) -> String {
    let tls = if arguments.tls { "self-signed" } else { "off" };
    let scheme = if arguments.tls { "https" } else { "http" };
    let (http, ip) = (http(), MEDIA.ip());
    // All clients have one address, which is no attack here.
    format!(
        "[http]\nlisten = \"{http}\"\npublic_url = \"{scheme}://{http}\"\ntls = \"{tls}\"\n\
         max_connections_per_address = 8192\n\
         [media]\naddresses = [{{ interface = \"{SFU_DEVICE}\", address = \"{ip}\" }}]\nport = {MEDIA_PORT}\n\
         [forwarder]\nsocket = \"{}\"\n[admin]\nlisten = \"{METRICS}\"\nsocket = \"{}\"\n\
         [limits]\nallocations_per_source = 20000\n[log]\nlevel = \"warn\"\n",
        at.join("table.sock").display(),
        at.join("control.sock").display(),
    )
}

/// Whether clients are answered. The listener opens once the node is there; until the forwarder took the endpoints, a
/// client's first check is only late.
fn listens() -> Result<bool, BenchError> {
    inside(|| Ok(TcpStream::connect_timeout(&http(), Duration::from_secs(1)).is_ok()))
}

/// Does something in the node's namespace, on a thread of its own: only that one changes its namespace.
fn inside<T: Send>(act: impl FnOnce() -> Result<T, BenchError> + Send) -> Result<T, BenchError> {
    let enter = || net::enter(SFU).and_then(|()| act());
    let panicked =
        || BenchError::Refused { what: "looking at the node".to_owned(), why: "the thread panicked".to_owned() };
    std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|_| Err(panicked()))
}

/// A request to the node's loopback listener; the whole response.
fn get(path: &str) -> Result<String, BenchError> {
    inside(|| {
        let ask = || {
            let address = METRICS.parse().map_err(std::io::Error::other)?;
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: {METRICS}\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        ask().map_err(BenchError::system(format!("asking http://{METRICS}{path}")))
    })
}

/// Values of `sluice_link_total` in Prometheus' text format.
fn link_counters(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("sluice_link_total{what=\"")?.split_once("\"} ")?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// `VmRSS` of `/proc/PID/status`, in KiB.
fn rss(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn beside(given: Option<&Path>, name: &str) -> Result<PathBuf, BenchError> {
    let what = || format!("finding {name}");
    let own = std::env::current_exe().map_err(BenchError::system(what()))?;
    let path = given.map_or_else(|| own.with_file_name(name), Path::to_owned);
    if path.exists() {
        return Ok(path);
    }
    let why = format!("{} does not exist; build it, or say where it is", path.display());
    Err(BenchError::Refused { what: what(), why })
}

/// A running process.
#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(
        directory: &Path,
        name: &'static str,
        core: usize,
        binary: &Path,
        arguments: &[&Path],
    ) -> Result<Process, BenchError> {
        let what = format!("starting {}", binary.display());
        let path = directory.join(name).with_extension("log");
        let log = File::create(&path).map_err(BenchError::system(what.clone()))?;
        // `ip netns exec` and `taskset` become the command: the child's process id is the command's.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", SFU, "taskset", "-c", &core.to_string()]).arg(binary).args(arguments);
        let copy = log.try_clone().map_err(BenchError::system(what.clone()))?;
        command.stdin(Stdio::null()).stdout(copy).stderr(log);
        // SAFETY: between fork and exec only a system call without memory is made. The setting survives exec: if this
        // process is killed, the one under test goes with it.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().map_err(BenchError::system(what))?;
        Ok(Process { name, child, log: path })
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn problems(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let bad = |line: &&str| line.contains("ERROR") || line.contains("WARN") || line.contains("panicked");
        text.lines().filter(bad).take(5).map(|line| format!("{}: {line}", self.name)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        crate::child::end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_counters_are_read() {
        assert_eq!(rss("Name:\tx\nVmHWM:\t  10 kB\nVmRSS:\t    1234 kB\n"), 1_234);
        let text =
            "# TYPE sluice_link_total counter\nsluice_link_total{what=\"transactions\"} 12\nother{what=\"x\"} 1\n";
        assert_eq!(link_counters(text), BTreeMap::from([("transactions".to_owned(), 12)]));
        assert_eq!((rss(""), link_counters("").len()), (0, 0));
    }
}
