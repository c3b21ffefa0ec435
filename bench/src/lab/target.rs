//! The process under test: starts it on its core in its namespace, programs it, and ends it by its process id.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sluice_table::protocol::{Client, Request, Response, Role};

use super::net::{self, MEDIA, SFU_DEVICE};
use super::plan::Cast;
use super::{Arguments, Target, rtpengine};
use crate::error::BenchError;
use crate::keys::Session;

/// Core of the process under test; the generator has core 0.
pub(crate) const CORE: usize = 1;
const PATIENCE: Duration = Duration::from_secs(10);

/// A running process under test.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    directory: tempfile::TempDir,
    /// Session for the generator: where to send what.
    pub(crate) sends: Session,
    /// Session for the sink: the receivers that exist.
    pub(crate) receives: Session,
}

impl Process {
    /// Starts the target of a run and programs it for the cast.
    pub(crate) fn start(arguments: &Arguments, target: Target, cast: &Cast) -> Result<Process, BenchError> {
        let directory = tempfile::Builder::new().prefix("sluice-lab-").tempdir_in("/dev/shm");
        let directory = directory.map_err(BenchError::system("making a directory in /dev/shm"))?;
        match target {
            Target::Xdp | Target::Udp | Target::UdpGso => forwarder(arguments, target, cast, directory),
            Target::Bare => bare(arguments, cast, directory),
            Target::Rtpengine => engine(cast, directory),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the forwarder dropped, by reason; empty for others.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let groups = Client::connect(&socket(self.directory.path()), Role::Table, Some(Duration::from_secs(5)))
            .and_then(|mut client| client.call(Request::Counters));
        let Ok(Response::Counters(groups)) = groups else { return BTreeMap::new() };
        let counters = groups.into_iter().filter(|group| group.group == "drops").flat_map(|group| group.counters);
        counters.filter(|(_, count)| *count > 0).collect()
    }

    fn wait_ready(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<(), BenchError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                let why = format!("it ended with {status}:\n{}", self.log_tail());
                return Err(BenchError::Refused { what: what.to_owned(), why });
            }
            if ready() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let why = format!("no answer within {} s:\n{}", PATIENCE.as_secs(), self.log_tail());
        Err(BenchError::Refused { what: what.to_owned(), why })
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        crate::child::end(&mut self.child);
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("table.sock")
}

/// `command` in the forwarder's namespace, on its core if `pin`, its log in the directory.
fn inside(directory: &Path, pin: bool) -> Result<Command, BenchError> {
    let log = std::fs::File::create(directory.join("log")).map_err(BenchError::system("making a log file"))?;
    // `ip netns exec` and `taskset` become the command: the child's process id is the command's.
    let mut command = Command::new("ip");
    command.args(["netns", "exec", net::SFU]);
    if pin {
        command.args(["taskset", "-c", &CORE.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // SAFETY: between fork and exec only a system call without memory is made. The setting survives exec: if this
    // process is killed, the one under test goes with it.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    Ok(command)
}

fn forwarder(
    arguments: &Arguments,
    target: Target,
    cast: &Cast,
    directory: tempfile::TempDir,
) -> Result<Process, BenchError> {
    let what = "starting sluice-forwarder";
    let binary = arguments.forwarder.clone().map_or_else(beside, Ok)?;
    let (path, state) = (directory.path().join("forwarder.toml"), directory.path().join("state"));
    let legs = (cast.session.publishers.len() + cast.session.receivers.len()).max(1_024);
    let streams = cast.session.receivers.len().max(1_024);
    let config = format!(
        "workers = {}\nio = \"{}\"\npolling = \"{}\"\nprovider = \"{}\"\nsegmentation = {}\nsocket = \"{}\"\nstate = \"{}\"\n\
         [capacity]\nlegs = {legs}\ningress = {streams}\negress = {streams}\n",
        arguments.workers,
        if target == Target::Xdp { "xdp" } else { "udp" },
        arguments.polling.name(),
        arguments.provider,
        target == Target::UdpGso,
        socket(directory.path()).display(),
        state.display(),
    );
    std::fs::write(&path, config).map_err(BenchError::system(what))?;
    let mut command = inside(directory.path(), arguments.workers == 1)?;
    let child = command.arg(binary).arg("--config").arg(&path).spawn().map_err(BenchError::system(what))?;
    let socket = socket(directory.path());
    let mut process = Process { child, directory, sends: cast.session.clone(), receives: cast.real() };
    let mut client = None;
    process.wait_ready(what, || {
        client = Client::connect(&socket, Role::Table, Some(PATIENCE)).ok();
        client.is_some()
    })?;
    if let Some(mut client) = client {
        let table = Box::new(cast.table()?);
        let applied = client.call(Request::Apply { table, dry_run: false });
        applied.map_err(|error| BenchError::Refused {
            what: "programming the forwarder".to_owned(),
            why: format!("{error}; {}\n{}", error.hint(), process.log_tail()),
        })?;
    }
    Ok(process)
}

/// `sluice-forwarder` in the directory of this binary.
fn beside() -> Result<PathBuf, BenchError> {
    let what = "finding sluice-forwarder";
    let own = std::env::current_exe().map_err(BenchError::system(what))?;
    let path = own.with_file_name("sluice-forwarder");
    if path.exists() {
        return Ok(path);
    }
    let why = format!("{} does not exist; build it (cargo build --release -p sluice-forwarder)", path.display());
    Err(BenchError::Refused { what: what.to_owned(), why })
}

fn bare(arguments: &Arguments, cast: &Cast, directory: tempfile::TempDir) -> Result<Process, BenchError> {
    let what = "starting the baseline forwarder";
    let own = std::env::current_exe().map_err(BenchError::system(what))?;
    let mut command = inside(directory.path(), true)?;
    command.arg(own).args(["bare", "--interface", SFU_DEVICE, "--endpoint", &MEDIA.to_string()]);
    command.args(["--copies", &arguments.fanout.to_string(), "--polling", arguments.polling.name()]);
    for one in &cast.session.publishers {
        command.args(["--from", &one.local.to_string()]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(BenchError::system(what))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        // Ends with the process at the latest.
        let _ = BufReader::new(output).read_line(&mut line);
    }
    let mut process = Process { child, directory, sends: cast.session.clone(), receives: cast.turned_around() };
    process.wait_ready(what, || line.trim() == "ready")?;
    Ok(process)
}

fn engine(cast: &Cast, directory: tempfile::TempDir) -> Result<Process, BenchError> {
    let what = "starting rtpengine";
    let mut command = inside(directory.path(), true)?;
    command.args(rtpengine::COMMAND_LINE).arg(format!("--interface={}", MEDIA.ip()));
    let child = command.spawn().map_err(|error| BenchError::Refused {
        what: what.to_owned(),
        why: format!("{error}; install Debian's rtpengine-daemon"),
    })?;
    let mut process = Process { child, directory, sends: cast.session.clone(), receives: cast.real() };
    let mut control = None;
    process.wait_ready(what, || {
        control = rtpengine::Control::open().ok();
        control.is_some()
    })?;
    if let Some(mut control) = control {
        let (sends, receives) = rtpengine::program(&mut control, cast).map_err(|error| BenchError::Refused {
            what: "programming rtpengine".to_owned(),
            why: format!("{error}\n{}", process.log_tail()),
        })?;
        (process.sends, process.receives) = (sends, receives);
    }
    Ok(process)
}
