//! `join`: synthetic Wire clients join conferences of a real control and forwarder. Measures what a join costs and how
//! long it takes. The clients run on one thread, which leaves the other core to the processes under test.

mod answer;
mod client;
mod commit;
mod http;
mod media;
mod message;
mod service;
mod streams;
mod tally;
mod voice;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use sluice_control::transport::Identity;
use sluice_table::Name;

use crate::clock;
use crate::error::BenchError;
use crate::generate::{print_json, provider};
use crate::lab::net::{self, Net, PEER, PEER_IP};
use client::World;
use service::{Service, Used};
use tally::{Agreements, Report, Tally};

/// Time between two commits of the probe.
const PROBE: Duration = Duration::from_millis(100);

/// How the node's packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Io {
    /// By kernel sockets.
    Udp,
    /// By `AF_XDP`.
    Xdp,
}

impl Io {
    fn name(self) -> &'static str {
        match self {
            Io::Udp => "udp",
            Io::Xdp => "xdp",
        }
    }
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Conferences
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    conferences: u32,
    /// Participants of each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    participants: u32,
    /// Time over which they come, evenly, in seconds; 0 is all at once
    #[arg(long, default_value_t = 20.0, value_parser = over)]
    over: f64,
    /// Video streams each asks for
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(0..=32))]
    watch: u32,
    /// Milliseconds between two packets of audio of each conference's first participant; 0 is silence
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    audio_ms: u32,
    /// Seconds that all stay idle, for memory and idle CPU
    #[arg(long, default_value_t = 6.0, value_parser = over)]
    hold: f64,
    /// Seconds of media afterwards: everybody sends audio and two layers and is sent five speakers and whom it watches
    /// (shape `wire`); 0 is none
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=600))]
    media: u32,
    /// Seconds that the lists may take to be complete after the last came
    #[arg(long, default_value_t = 60.0, value_parser = over)]
    patience: f64,
    /// How the node's packets travel
    #[arg(long, value_enum, default_value = "udp")]
    io: Io,
    /// HTTPS with a new session for each client; plain HTTP shows what control itself costs
    #[arg(long)]
    tls: bool,
    /// Core of the clients
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Core of control
    #[arg(long, default_value_t = 1)]
    control_core: usize,
    /// Core of the forwarder
    #[arg(long, default_value_t = 1)]
    forwarder_core: usize,
    /// Seed of the clients' credentials
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The forwarder; the one beside this binary unless given
    #[arg(long, value_name = "PATH")]
    forwarder: Option<PathBuf>,
    /// Control; the one beside this binary unless given
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print JSON too
    #[arg(long)]
    json: bool,
}

fn over(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| (0.0..=3_600.0).contains(value)).ok_or("expected 0 to 3600".to_owned())
}

/// Measures and prints the report.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    more_files()?;
    let net = Net::up(1)?;
    let service = Service::start(arguments)?;
    let measured = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("clients".to_owned());
        let thread = thread.spawn_scoped(scope, || clients(arguments, &net, &service));
        match thread.map_err(BenchError::system("starting the clients"))?.join() {
            Ok(report) => report,
            Err(_) => Err(BenchError::Refused { what: "joining".to_owned(), why: "the thread panicked".to_owned() }),
        }
    });
    for problem in service.problems() {
        eprintln!("sluice-bench: {problem}");
    }
    let report = measured?;
    report.print();
    if arguments.json { print_json(&report) } else { Ok(()) }
}

/// Every client has a socket.
fn more_files() -> Result<(), BenchError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the given structure.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if done {
        Ok(())
    } else {
        Err(BenchError::system("raising the limit of open files")(std::io::Error::last_os_error()))
    }
}

fn clients(arguments: &Arguments, net: &Net, service: &Service) -> Result<Report, BenchError> {
    net::enter(PEER)?;
    core_affinity::set_for_current(core_affinity::CoreId { id: arguments.core });
    let what = "preparing the clients";
    let identity = Arc::new(Identity::generate().map_err(BenchError::refused(what))?);
    let world = Rc::new(World {
        http: service::http(),
        tls: arguments.tls.then(http::connector).transpose()?,
        local: PEER_IP,
        fingerprint: World::fingerprint(&identity),
        identity,
        provider: Rc::new(RefCell::new(provider("best")?)),
        endpoint: Name::new("client").map_err(BenchError::refused(what))?,
        seed: arguments.seed,
        participants: arguments.participants,
        watch: arguments.watch,
        audio_ms: arguments.audio_ms,
        tally: RefCell::new(Tally::new()),
        watch_for: RefCell::default(),
        runs: (arguments.media > 0).then(|| tokio::sync::watch::Sender::new(None)),
        rooms: (0..arguments.conferences).map(|_| RefCell::new(Agreements::new(arguments.participants))).collect(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::system(what))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, stage(arguments, net, service, &world))
}

/// Readings at one moment.
struct Mark {
    at: Instant,
    thread: u64,
    used: Used,
}

impl Mark {
    fn take(service: &Service) -> Mark {
        Mark { at: Instant::now(), thread: clock::thread_cpu(), used: service.used() }
    }
}

/// Lets everybody join, then stay a while.
async fn stage(arguments: &Arguments, net: &Net, service: &Service, world: &Rc<World>) -> Result<Report, BenchError> {
    let total = arguments.conferences * arguments.participants;
    let start = Mark::take(service);
    let link = service.link();
    let probe = service.probe(PROBE)?;
    for at in 0..total {
        let due = start.at + Duration::from_secs_f64(arguments.over * f64::from(at) / f64::from(total));
        tokio::time::sleep_until(due.into()).await;
        if net.stop().load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        tokio::task::spawn_local(client::run(world.clone(), at % arguments.conferences, at / arguments.conferences));
    }
    let limit = Instant::now() + Duration::from_secs_f64(arguments.patience);
    while Instant::now() < limit {
        {
            let tally = world.tally.borrow();
            let hearing = arguments.audio_ms == 0 || tally.hearing >= total - arguments.conferences;
            if (tally.complete == total && hearing) || tally.failures() == total {
                break;
            }
        }
        if net.stop().load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let joined = Mark::take(service);
    let commits = probe.end();
    let linked = service.link();
    tokio::time::sleep(Duration::from_secs_f64(arguments.hold)).await;
    let idle = Mark::take(service);
    let commits_to_packets = commit::measure(world, service.table()?).await?;
    let counted = |name: &str| Some(linked.get(name)?.saturating_sub(link.get(name).copied().unwrap_or(0)) as f64);
    let mut report = report(arguments, &world.tally.borrow(), &[start, joined, idle]);
    report.commit_us = commits.percentiles();
    report.commit_to_packet_us = commits_to_packets.percentiles();
    if let (Some(transactions), Some(micros)) = (counted("transactions"), counted("commit_us")) {
        report.transactions_per_join = Some(transactions / f64::from(report.joined.max(1)));
        report.control_commit_mean_us = Some(micros / transactions.max(1.0));
    }
    if arguments.media > 0 {
        report.media = Some(media::measure(arguments, net, service, world).await?);
    }
    Ok(report)
}

fn report(arguments: &Arguments, tally: &Tally, [start, joined, idle]: &[Mark; 3]) -> Report {
    let joins = f64::from(tally.open.max(1));
    let seconds = |from: &Mark, to: &Mark| to.at.duration_since(from.at).as_secs_f64().max(1e-9);
    let control = joined.used.control_cpu.saturating_sub(start.used.control_cpu) as f64;
    let forwarder = joined.used.forwarder_cpu.saturating_sub(start.used.forwarder_cpu) as f64;
    let own = joined.thread.saturating_sub(start.thread) as f64;
    let opening = tally.last_open.map_or(f64::MAX, |last| last.duration_since(start.at).as_secs_f64().max(1e-9));
    let idle_cpu = idle.used.control_cpu.saturating_sub(joined.used.control_cpu) as f64 / 1e3;
    Report {
        conferences: arguments.conferences,
        participants_each: arguments.participants,
        over_s: arguments.over,
        tls: arguments.tls,
        watch: arguments.watch,
        joined: tally.open,
        failed: tally.failed.clone(),
        seconds: seconds(start, joined),
        joins_per_second: f64::from(tally.open) / opening,
        control_cpu_ms_per_join: control / joins / 1e6,
        joins_per_core_second: f64::from(tally.open) / (control / 1e9).max(1e-9),
        forwarder_cpu_ms_per_join: forwarder / joins / 1e6,
        generator_cpu: own / 1e9 / seconds(start, joined),
        confconn_us: tally.confconn.percentiles(),
        setup_us: tally.setup.percentiles(),
        answer_to_channel_us: tally.channel.percentiles(),
        answer_to_list_us: tally.listed.percentiles(),
        agreed_to_packet_us: tally.heard.percentiles(),
        commit_to_packet_us: None,
        audio_ms: arguments.audio_ms,
        lists_per_join: tally.lists as f64 / joins,
        list_bytes_per_join: tally.list_bytes as f64 / joins,
        transactions_per_join: None,
        commit_us: None,
        control_commit_mean_us: None,
        hearing: tally.hearing,
        rtp_received: tally.received,
        rtp_sent: tally.sent,
        control_rss_kib: idle.used.control_rss,
        control_rss_kib_per_participant: idle.used.control_rss.saturating_sub(start.used.control_rss) as f64 / joins,
        control_idle_cpu_us_per_participant_second: idle_cpu / joins / seconds(joined, idle),
        media: None,
    }
}
