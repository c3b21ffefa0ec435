//! The typed handle to one loaded program and its maps. One handle serves one interface.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::maps::{HashMap, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use sluice_xdp_layout::maps::{self, map_ipv4};
use sluice_xdp_layout::{
    ACCEPT_UNKNOWN, Config, EndpointKey, EndpointValue, Plain, TupleKey, TupleValue, VERDICTS, Verdict,
};

use super::{AttachMode, SteeringError, attach, object};

/// What the program is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Room for endpoints.
    pub endpoints: u32,
    /// Room for validated tuples.
    pub tuples: u32,
    /// Limits for strangers.
    pub config: Config,
}

impl Default for Options {
    fn default() -> Self {
        Options { endpoints: maps::MAX_ENDPOINTS, tuples: maps::MAX_TUPLES, config: Config::DEFAULT }
    }
}

/// A layout type as the loader wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Raw<T>(T);

// SAFETY: `Plain` promises a type that may be copied byte by byte.
unsafe impl<T: Plain> aya::Pod for Raw<T> {}

/// A loaded program with its tables.
pub struct Steering {
    ebpf: Ebpf,
    endpoints: HashMap<MapData, Raw<EndpointKey>, Raw<EndpointValue>>,
    tuples: HashMap<MapData, Raw<TupleKey>, Raw<TupleValue>>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    link: Option<(FdLink, AttachMode, u32)>,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Steering {
    /// Checks, loads and verifies the embedded program. Nothing is attached yet.
    pub fn load(options: &Options) -> Result<Self, SteeringError> {
        object::check(object::embedded())?;
        let config = Raw(options.config);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(maps::ENDPOINTS, options.endpoints)
            .map_max_entries(maps::TUPLES, options.tuples)
            .override_global(maps::CONFIG, &config, true)
            .load(object::embedded())
            .map_err(|error| SteeringError::Load(Box::new(error)))?;
        let program = program_mut(&mut ebpf)?;
        program.load().map_err(refused)?;
        Ok(Steering {
            endpoints: typed(take(&mut ebpf, maps::ENDPOINTS)?, maps::ENDPOINTS)?,
            tuples: typed(take(&mut ebpf, maps::TUPLES)?, maps::TUPLES)?,
            sockets: typed(take(&mut ebpf, maps::SOCKETS)?, maps::SOCKETS)?,
            counters: typed(take(&mut ebpf, maps::COUNTERS)?, maps::COUNTERS)?,
            ebpf,
            link: None,
        })
    }

    /// Attaches the program to an interface; see [`SteeringError::Foreign`] for one that has a program already.
    pub fn attach(&mut self, ifindex: u32) -> Result<AttachMode, SteeringError> {
        if self.link.is_some() {
            return Err(SteeringError::AlreadyAttached);
        }
        let (link, mode) = attach::attach(program_mut(&mut self.ebpf)?, ifindex)?;
        self.link = Some((link, mode.clone(), ifindex));
        Ok(mode)
    }

    /// Detaches the program. The tables stay.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// How the program is attached, if it is.
    pub fn mode(&self) -> Option<&AttachMode> {
        self.link.as_ref().map(|(_, mode, _)| mode)
    }

    /// Index of the interface the program is attached to.
    pub fn ifindex(&self) -> Option<u32> {
        self.link.as_ref().map(|(.., ifindex)| *ifindex)
    }

    /// Adds an endpoint or changes whether it accepts RTP and RTCP of unknown tuples.
    pub fn insert_endpoint(&mut self, local: SocketAddr, accept_unknown: bool) -> Result<(), SteeringError> {
        let value = EndpointValue { flags: if accept_unknown { ACCEPT_UNKNOWN } else { 0 } };
        self.endpoints
            .insert(Raw(endpoint_key(local)), Raw(value), 0)
            .map_err(|error| failed(format!("steering endpoint {local}"), error))
    }

    /// Removes an endpoint; returns whether it was there.
    pub fn remove_endpoint(&mut self, local: SocketAddr) -> Result<bool, SteeringError> {
        removed(self.endpoints.remove(&Raw(endpoint_key(local))), || format!("removing endpoint {local}"))
    }

    /// Adds a validated tuple; `leg` is for whoever lists the map.
    pub fn insert_tuple(&mut self, local: SocketAddr, remote: SocketAddr, leg: u32) -> Result<(), SteeringError> {
        self.tuples
            .insert(Raw(tuple_key(local, remote)), Raw(TupleValue { leg }), 0)
            .map_err(|error| failed(format!("steering tuple {local} <- {remote}"), error))
    }

    /// Removes a tuple; returns whether it was there.
    pub fn remove_tuple(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<bool, SteeringError> {
        removed(self.tuples.remove(&Raw(tuple_key(local, remote))), || format!("removing tuple {local} <- {remote}"))
    }

    /// Gives packets of a receive queue to the `AF_XDP` socket `fd`, which must be bound to that queue. The
    /// kernel takes the entry out when the socket closes.
    pub fn register_socket(&mut self, queue: u32, fd: BorrowedFd<'_>) -> Result<(), SteeringError> {
        self.sockets
            .set(queue, fd.as_raw_fd(), 0)
            .map_err(|error| failed(format!("registering the socket of queue {queue}"), error))
    }

    /// Stops giving packets of a queue to a socket.
    pub fn unregister_socket(&mut self, queue: u32) -> Result<(), SteeringError> {
        removed(self.sockets.unset(queue), || format!("unregistering the socket of queue {queue}")).map(|_| ())
    }

    /// Packets per verdict since the program was loaded, summed over CPUs.
    pub fn tally(&self) -> Result<Tally, SteeringError> {
        let mut tally = Tally([0; VERDICTS.len()]);
        for (index, total) in tally.0.iter_mut().enumerate() {
            let values = self
                .counters
                .get(&(index as u32), 0)
                .map_err(|error| failed("reading the verdict counters".to_owned(), error))?;
            *total = values.iter().copied().fold(0, u64::wrapping_add);
        }
        Ok(tally)
    }

    /// Runs the program once over `frame` without a network (`BPF_PROG_TEST_RUN`); returns the XDP action.
    pub fn test_run(&mut self, frame: &[u8]) -> Result<u32, SteeringError> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        let program = program_mut(&mut self.ebpf)?;
        let result = program.test_run(options).map_err(|error| SteeringError::Program(Box::new(error)))?;
        Ok(result.return_value)
    }
}

/// Packets per verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally([u64; VERDICTS.len()]);

impl Tally {
    /// Packets that met `verdict`.
    pub fn get(&self, verdict: Verdict) -> u64 {
        self.0[verdict.index() as usize]
    }

    /// All verdicts with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        VERDICTS.iter().map(|verdict| (*verdict, self.get(*verdict)))
    }
}

/// The sixteen bytes of an address as they stand in the maps.
fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => map_ipv4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn endpoint_key(local: SocketAddr) -> EndpointKey {
    EndpointKey::new(address(local.ip()), local.port())
}

fn tuple_key(local: SocketAddr, remote: SocketAddr) -> TupleKey {
    TupleKey::new(address(local.ip()), local.port(), address(remote.ip()), remote.port())
}

/// Lines of the verifier's log that are told at once; before them comes every instruction it looked at.
const LAST_WORDS: usize = 3;

/// Why the program was not loaded, in few words.
fn refused(error: ProgramError) -> SteeringError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            tracing::debug!(%log, "the verifier's log");
            SteeringError::Verifier { last: last_words(&log), source: io_error }
        }
        other => SteeringError::Program(Box::new(other)),
    }
}

/// The end of a verifier's log without its statistics.
fn last_words(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let worth = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    let said = log.lines().map(str::trim).filter(worth);
    let mut last: Vec<String> = said.rev().take(LAST_WORDS).map(|line| line.chars().take(200).collect()).collect();
    last.reverse();
    if last.is_empty() { "nothing".to_owned() } else { last.join("; ") }
}

fn program_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp, SteeringError> {
    ebpf.program_mut(maps::PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or(SteeringError::Missing(maps::PROGRAM))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, SteeringError> {
    ebpf.take_map(name).ok_or(SteeringError::Missing(name))
}

fn typed<T: TryFrom<aya::maps::Map, Error = MapError>>(
    map: aya::maps::Map,
    name: &'static str,
) -> Result<T, SteeringError> {
    T::try_from(map).map_err(|error| failed(format!("opening map {name}"), error))
}

fn failed(what: String, error: MapError) -> SteeringError {
    SteeringError::Map { what, source: Box::new(error) }
}

/// A missing entry is an answer, not an error.
fn removed(result: Result<(), MapError>, what: impl FnOnce() -> String) -> Result<bool, SteeringError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(failed(what(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_the_end_is_told() {
        let mut log = "5: (bf) r1 = r2 ; R1_w=pkt(off=0,r=14)\n".repeat(5_000);
        log.push_str(
            "R4 pointer -= pointer prohibited\nverification time 321 usec\nstack depth 232\nprocessed 12 insns\n",
        );
        let last = last_words(&log);
        assert!(last.ends_with("; R4 pointer -= pointer prohibited") && last.len() < 700, "{last}");
        assert_eq!(last_words("\n"), "nothing");
    }
}
