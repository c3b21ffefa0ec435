//! Both processes on the loopback, and synthetic Wire clients with sockets of their own. Never looks inside the
//! processes: everything is learned from HTTP, packets, the table protocol and the kernel.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "each test file uses its part"
)]

pub mod client;
pub mod media;
pub mod node;
pub mod stun;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sluice_table::protocol::{Client as TableClient, Request, Response, Role, Snapshot};

/// Longer than anything here takes on a busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_mins(1);
pub const CONV: &str = "daf7fc78ccf0e1cc96a45c1c08b87607";

/// Waits until it is so; panics when that never comes.
#[track_caller]
pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The forwarder's binary, beside ours; built by the cargo that runs the tests, because it is another package's.
fn forwarder() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let path = Path::new(env!("CARGO_BIN_EXE_sluice-control")).with_file_name("sluice-forwarder");
        if let Some(cargo) = std::env::var_os("CARGO") {
            let mut command = Command::new(cargo);
            command.args(["build", "--quiet", "--package", "sluice-forwarder", "--bin", "sluice-forwarder"]);
            if path.parent().is_some_and(|dir| dir.ends_with("release")) {
                command.arg("--release");
            }
            assert!(command.status().unwrap().success(), "sluice-forwarder does not build");
        }
        assert!(path.exists(), "{} is missing; `cargo build -p sluice-forwarder`", path.display());
        path
    };
    BUILT.get_or_init(build).clone()
}

/// A process of ours; killed when dropped.
pub struct Process {
    child: Child,
    ended: bool,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        Process { child: command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap(), ended: false }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: our own child, which was not waited for yet.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    pub fn is_alive(&mut self) -> bool {
        self.ended |= self.child.try_wait().unwrap().is_some();
        !self.ended
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.ended = true;
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_alive() {
            self.kill();
        }
    }
}

/// Both processes and where they listen.
pub struct Lab {
    pub http: SocketAddr,
    pub media: SocketAddr,
    pub control: Process,
    pub forwarder: Process,
    dir: tempfile::TempDir,
    /// More of control's configuration.
    more: String,
}

/// An answer of the public listener.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

impl Lab {
    /// Starts both and waits until calls are taken. `more` is TOML that follows the table `[limits]`.
    pub fn start(more: &str) -> Lab {
        let dir = tempfile::Builder::new().prefix("sluice-test-").tempdir_in("/dev/shm");
        let dir = dir.or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let media = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let forwarder = start_forwarder(dir.path());
        let mut lab = Lab {
            http,
            media,
            control: start_control(dir.path(), http, media, more),
            forwarder,
            dir,
            more: more.to_owned(),
        };
        lab.wait_ready();
        lab
    }

    pub fn restart_control(&mut self) {
        self.control = start_control(self.dir.path(), self.http, self.media, &self.more);
    }

    pub fn restart_forwarder(&mut self) {
        self.forwarder = start_forwarder(self.dir.path());
    }

    /// Waits until a call is taken.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let message = client::confconn("ready0000", "nobody", false).to_string();
        while self.try_post("127.9.9.9", "ready0000", &message).is_none_or(|answer| answer.status != 200) {
            assert!(self.control.is_alive() && self.forwarder.is_alive(), "a process ended at the start");
            assert!(Instant::now() < deadline, "no call is taken");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn assert_alive(&mut self) {
        assert!(self.control.is_alive(), "control ended");
        assert!(self.forwarder.is_alive(), "the forwarder ended");
    }

    /// A connection to the public listener from an address of the loopback.
    pub fn connect(&self, from: &str) -> std::io::Result<TcpStream> {
        connect_from(from.parse().unwrap(), self.http)
    }

    /// Sends bytes as they are and reads what comes until the end or `patience`.
    pub fn raw(&self, bytes: &[u8], patience: Duration) -> Vec<u8> {
        let mut stream = self.connect("127.0.0.1").unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        // A listener that refuses early closes before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    fn try_post(&self, from: &str, convid: &str, body: &str) -> Option<Answer> {
        let mut stream = self.connect(from).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /sft/{convid} HTTP/1.1\r\nhost: sluice\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        Some(Answer { status, body })
    }

    #[track_caller]
    pub fn post_from(&self, from: &str, convid: &str, body: &str) -> Answer {
        self.try_post(from, convid, body).expect("an answer")
    }

    #[track_caller]
    pub fn post(&self, message: &serde_json::Value) -> Answer {
        self.post_from("127.0.0.1", message["sessid"].as_str().unwrap(), &message.to_string())
    }

    fn table(&self) -> TableClient {
        TableClient::connect(&self.dir.path().join("table.sock"), Role::Table, Some(PATIENCE)).unwrap()
    }

    /// The forwarder's counters by "group.name".
    pub fn counters(&self) -> BTreeMap<String, u64> {
        match self.table().call(Request::Counters).unwrap() {
            Response::Counters(groups) => groups
                .into_iter()
                .flat_map(|g| g.counters.into_iter().map(move |(name, n)| (format!("{}.{name}", g.group), n)))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Runs the command against both processes; what it prints.
    #[track_caller]
    pub fn sluice(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.env("SLUICE_SOCKET", self.dir.path().join("table.sock"));
        command.env("SLUICE_CONTROL_SOCKET", self.dir.path().join("control.sock"));
        let ran = command.args(args).output().unwrap();
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    /// What the forwarder counted since, without zeros.
    pub fn counted(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let grown = |(key, n): (String, u64)| {
            let grown = n.saturating_sub(before.get(&key).copied().unwrap_or(0));
            (grown > 0).then_some((key, grown))
        };
        self.counters().into_iter().filter_map(grown).collect()
    }

    /// The forwarder's table without keys.
    pub fn snapshot(&self) -> Snapshot {
        match self.table().call(Request::Snapshot).unwrap() {
            Response::Snapshot(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    }
}

fn start_forwarder(dir: &Path) -> Process {
    let file = dir.join("forwarder.toml");
    let capacity = "[capacity]\nlegs = 256\ningress = 512\negress = 4096\nsources = 512\nlearned = 512\n";
    std::fs::write(&file, capacity).unwrap();
    let mut command = Command::new(forwarder());
    command.arg("--config").arg(file).args(["--io", "udp", "--polling", "interrupt", "--workers", "1"]);
    command.arg("--socket").arg(dir.join("table.sock")).arg("--state").arg(dir.join("state"));
    command.env("SLUICE_LOG", std::env::var("SLUICE_LOG").unwrap_or_else(|_| "error".to_owned()));
    Process::start(&mut command)
}

fn start_control(dir: &Path, http: SocketAddr, media: SocketAddr, more: &str) -> Process {
    let file = dir.join("control.toml");
    let text = format!(
        "[http]\nlisten = \"{http}\"\ntls = \"off\"\nheader_timeout = 1\nbody_timeout = 1\n\
         [media]\naddresses = [{{ interface = \"lo\", address = \"127.0.0.1\" }}]\nport = {port}\n\
         [forwarder]\nsocket = \"{socket}\"\ntimeout = 2\n[admin]\nlisten = \"off\"\nsocket = \"{admin}\"\n\
         [limits]\n{more}\n",
        port = media.port(),
        socket = dir.join("table.sock").display(),
        admin = dir.join("control.sock").display(),
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-control"));
    command.arg("--config").arg(file).arg("--state").arg(dir.join("control"));
    command.env("SLUICE_LOG", std::env::var("SLUICE_LOG").unwrap_or_else(|_| "error".to_owned()));
    Process::start(&mut command)
}

/// Connects from a given address, which the standard library cannot.
fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    use std::os::fd::{FromRawFd as _, OwnedFd};
    let (IpAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    let address = |ip: Ipv4Addr, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    };
    let (local, remote) = (address(from, 0), address(*to.ip(), to.port()));
    let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: plain system calls on locals of the size given; the descriptor is owned at once.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        if libc::bind(fd, (&raw const local).cast(), size) != 0
            || libc::connect(fd, (&raw const remote).cast(), size) != 0
        {
            return Err(std::io::Error::last_os_error());
        }
        Ok(TcpStream::from(socket))
    }
}
