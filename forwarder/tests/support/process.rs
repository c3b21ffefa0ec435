//! The real forwarder as a process, a network around it, and peers with sockets of their own. Never looks inside
//! the process: everything is learned from packets, the table protocol and the kernel.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "each test file uses its part")]

use std::fmt::Write as _;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sluice_table::protocol::{Client, ClientError, Request, Response, Role, Snapshot, Status};
use sluice_table::{Endpoint, Table};

use crate::support::name;

/// Longer than anything here takes on a busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the forwarder and its peers are.
pub struct Lab {
    pub name: &'static str,
    /// Namespaces of the forwarder and of its peers; `None` on the host's loopback.
    inside: Option<File>,
    outside: Option<File>,
    pub local: SocketAddr,
    pub interface: &'static str,
    pub peer_ip: IpAddr,
    /// Another address that peers can send from.
    pub other_ip: IpAddr,
    pub dir: tempfile::TempDir,
}

/// Runs `test` over the loopback by kernel sockets, then over a veth pair by `AF_XDP`.
pub fn each_lab(test: fn(&Lab)) {
    test(&loopback());
    if let Some(lab) = veth() {
        test(&lab);
    }
}

pub fn loopback() -> Lab {
    let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
    Lab {
        name: "udp",
        inside: None,
        outside: None,
        local: probe.local_addr().unwrap(),
        interface: "lo",
        peer_ip: "127.0.0.1".parse().unwrap(),
        other_ip: "127.0.0.2".parse().unwrap(),
        dir: directory(),
    }
}

/// A veth pair between two namespaces without names, which end with the lab. `None`, said on stderr, where that is
/// not allowed and this is not CI.
pub fn veth() -> Option<Lab> {
    let (inside, outside) = match (new_namespace(), new_namespace()) {
        (Ok(inside), Ok(outside)) => (inside, outside),
        (Err(error), _) | (_, Err(error)) => {
            assert!(std::env::var_os("CI").is_none(), "CI must allow network namespaces: {error}");
            eprintln!("skipped: a network namespace needs CAP_SYS_ADMIN: {error}");
            return None;
        }
    };
    let lab = Lab {
        name: "xdp",
        inside: Some(inside),
        outside: Some(outside),
        local: "192.0.2.1:5004".parse().unwrap(),
        interface: "port0",
        peer_ip: "192.0.2.2".parse().unwrap(),
        other_ip: "192.0.2.3".parse().unwrap(),
        dir: directory(),
    };
    let into = format!("/proc/{}/fd/{}", std::process::id(), lab.outside.as_ref().unwrap().as_raw_fd());
    lab.inside(|| {
        run("ip link add port0 address 02:00:00:00:00:01 type veth peer name peer0");
        run("ip link set peer0 address 02:00:00:00:00:02");
        run(&format!("ip link set peer0 netns {into}"));
        run("ip link set lo up");
        run("ip addr add 192.0.2.1/24 dev port0");
        run("ip link set port0 up");
    });
    lab.outside(|| {
        run("ip link set lo up");
        run("ip addr add 192.0.2.2/24 dev peer0");
        run("ip addr add 192.0.2.3/24 dev peer0");
        run("ip link set peer0 up");
    });
    Some(lab)
}

impl Lab {
    pub fn is_xdp(&self) -> bool {
        self.inside.is_some()
    }

    /// Runs `work` where the forwarder is.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(self.inside.as_ref(), work)
    }

    /// Runs `work` where the peers are.
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(self.outside.as_ref(), work)
    }

    /// A peer's socket with a free port.
    pub fn peer(&self) -> UdpSocket {
        self.peer_at(self.peer_ip)
    }

    pub fn peer_at(&self, ip: IpAddr) -> UdpSocket {
        let socket = self.outside(|| UdpSocket::bind((ip, 0))).unwrap();
        let size: i32 = 64 << 20;
        for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
            // SAFETY: the value is a local of the size given.
            let done =
                unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const size).cast(), 4) };
            if done == 0 {
                break;
            }
        }
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// A table with the endpoint "media" and nothing else.
    pub fn table(&self) -> Table {
        let mut table = Table::default();
        let endpoint = Endpoint { interface: self.interface.to_owned(), address: self.local };
        table.endpoints.insert(name("media"), endpoint);
        table
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("table.sock")
    }

    /// The forwarder's interface as the kernel numbers it.
    pub fn ifindex(&self) -> u32 {
        let device = std::ffi::CString::new(self.interface).unwrap();
        self.inside(|| {
            // SAFETY: a terminated string.
            unsafe { libc::if_nametoindex(device.as_ptr()) }
        })
    }
}

/// How to start a forwarder.
#[derive(Clone)]
pub struct Start {
    pub workers: u8,
    /// legs, ingress, egress, packets.
    pub capacity: [usize; 4],
    pub socket: PathBuf,
    pub state: PathBuf,
}

impl Start {
    pub fn of(lab: &Lab) -> Start {
        Start { workers: 1, capacity: [64, 64, 256, 4_096], socket: lab.socket(), state: lab.state() }
    }

    fn command(&self, lab: &Lab) -> Command {
        let [legs, ingress, egress, packets] = self.capacity;
        let mut config = String::new();
        write!(
            config,
            "[capacity]\nlegs = {legs}\ningress = {ingress}\negress = {egress}\nsources = 64\npackets = {packets}\n"
        )
        .unwrap();
        let file = lab.dir.path().join("forwarder.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-forwarder"));
        command.arg("--config").arg(file);
        command.args(["--io", lab.name, "--polling", "adaptive", "--workers", &self.workers.to_string()]);
        command.arg("--socket").arg(&self.socket).arg("--state").arg(&self.state);
        command.env("SLUICE_LOG", std::env::var("SLUICE_LOG").unwrap_or_else(|_| "error".to_owned()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts it and waits until it answers.
    pub fn start(&self, lab: &Lab) -> Forwarder {
        let mut command = self.command(lab);
        let child = lab.inside(move || command.spawn()).unwrap();
        let mut forwarder = Forwarder { child, socket: self.socket.clone(), ended: None };
        let deadline = Instant::now() + PATIENCE;
        while forwarder.connect().is_err() {
            assert!(!forwarder.has_ended(), "the forwarder ended at once: {:?}", forwarder.ended);
            assert!(Instant::now() < deadline, "the forwarder never answers");
            std::thread::sleep(Duration::from_millis(2));
        }
        forwarder
    }

    /// Starts one that must end by itself; its exit status and what it said.
    pub fn fails(&self, lab: &Lab) -> (ExitStatus, String) {
        let mut command = self.command(lab);
        command.stderr(Stdio::piped());
        let child = lab.inside(move || command.spawn()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A running forwarder; killed when dropped.
pub struct Forwarder {
    child: Child,
    socket: PathBuf,
    ended: Option<ExitStatus>,
}

impl Forwarder {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket, Role::Table, Some(PATIENCE))
    }

    pub fn client(&self) -> Client {
        self.connect().unwrap()
    }

    pub fn apply(&self, table: &Table) -> Result<u64, ClientError> {
        let request = Request::Apply { table: Box::new(table.clone()), dry_run: false };
        match self.client().call(request)? {
            Response::Applied { generation, .. } => Ok(generation),
            other => panic!("{other:?}"),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        match self.client().call(Request::Snapshot).unwrap() {
            // Its place in the sequence of events is no part of the table.
            Response::Snapshot(snapshot) => Snapshot { event_sequence: 0, ..*snapshot },
            other => panic!("{other:?}"),
        }
    }

    pub fn status(&self) -> Status {
        match self.client().call(Request::Status).unwrap() {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub fn counters(&self) -> Counters {
        match self.client().call(Request::Counters).unwrap() {
            Response::Counters(groups) => Counters(
                groups
                    .into_iter()
                    .flat_map(|g| g.counters.into_iter().map(move |(name, n)| (format!("{}.{name}", g.group), n)))
                    .collect(),
            ),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until nothing is received or held any more; the counters then.
    pub fn settled(&self) -> Counters {
        let deadline = Instant::now() + PATIENCE;
        let moving =
            |counters: &Counters| ["packets.", "drops.", "io.rx_", "io.tx_"].map(|prefix| counters.sum(prefix));
        let mut last = self.counters();
        loop {
            std::thread::sleep(Duration::from_millis(40));
            let now = self.counters();
            if moving(&now) == moving(&last) && self.status().ledger.held == 0 {
                return now;
            }
            assert!(Instant::now() < deadline, "the forwarder never rests");
            last = now;
        }
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// CPU time of the management thread.
    pub fn manager_cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().map(|task| task.unwrap().path());
        let is_manager = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "manager";
        let manager = tasks.into_iter().find(is_manager).unwrap();
        let times = std::fs::read_to_string(manager.join("schedstat")).unwrap();
        Duration::from_nanos(times.split_whitespace().next().unwrap().parse().unwrap())
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: our own child, which was not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0);
    }

    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_some()
    }

    /// kill -9, and waits for the end.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.ended = Some(self.child.wait().unwrap());
    }

    /// SIGTERM; how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "SIGTERM does not end it");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.ended.unwrap()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Counters by "group.name".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(pub std::collections::BTreeMap<String, u64>);

impl Counters {
    pub fn get(&self, key: &str) -> u64 {
        *self.0.get(key).unwrap_or_else(|| panic!("there is no counter {key}"))
    }

    /// Sum of all counters with a prefix.
    pub fn sum(&self, prefix: &str) -> u64 {
        self.0.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, n)| n).sum()
    }

    /// What counted up since, without zeros.
    pub fn since(&self, before: &Counters) -> Counters {
        let grown = |(key, n): (&String, &u64)| {
            let grown = n - before.0.get(key).copied().unwrap_or(0);
            (grown > 0).then(|| (key.clone(), grown))
        };
        Counters(self.0.iter().filter_map(grown).collect())
    }
}

/// Runs `work` in a thread of the namespace.
fn within<T: Send>(namespace: Option<&File>, work: impl FnOnce() -> T + Send) -> T {
    let Some(namespace) = namespace else { return work() };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: an open namespace; changes this thread only.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A new network namespace, kept by its descriptor.
fn new_namespace() -> std::io::Result<File> {
    let made = std::thread::spawn(|| {
        // SAFETY: changes the namespace of this thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        File::open("/proc/thread-self/ns/net")
    });
    made.join().unwrap()
}

/// A directory of our own, on tmpfs where there is one.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("sluice-test-").tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

/// Sends whole Ethernet frames from the peers' end of the veth pair.
pub struct Raw {
    socket: std::os::fd::OwnedFd,
    index: i32,
}

impl Raw {
    /// `None` on the loopback, which has no Ethernet.
    pub fn new(lab: &Lab) -> Option<Raw> {
        use std::os::fd::FromRawFd as _;
        lab.is_xdp().then(|| {
            lab.outside(|| {
                // SAFETY: plain system calls; the descriptor is checked and owned at once.
                let (socket, index) = unsafe {
                    let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
                    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
                    (std::os::fd::OwnedFd::from_raw_fd(fd), libc::if_nametoindex(c"peer0".as_ptr()))
                };
                Raw { socket, index: index as i32 }
            })
        })
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: an all-zero address is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = self.index;
        // SAFETY: frame and address live during the call and have the sizes given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }
}

/// The frame that carries `payload` from a peer to the forwarder's end of the veth pair.
pub fn frame_of(lab: &Lab, remote: SocketAddr, payload: &[u8]) -> Vec<u8> {
    use sluice_forwarder::io::headers::{Headers, write_udp_checksum};
    let headers = Headers {
        mac_destination: [2, 0, 0, 0, 0, 1],
        mac_source: [2, 0, 0, 0, 0, 2],
        ..Headers::new(remote, lab.local)
    };
    let mut frame = vec![0; headers.len() + payload.len()];
    let at = headers.write(&mut frame, payload.len()).unwrap();
    frame[at..].copy_from_slice(payload);
    assert!(write_udp_checksum(&mut frame));
    frame
}
