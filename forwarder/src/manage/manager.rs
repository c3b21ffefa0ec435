//! The management thread: requests in, commits out, reports in, events out. One writer of everything that is not
//! a packet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use sluice_srtp::provider::AnyProvider;
use sluice_table::protocol::{
    Event, EventRecord, PacketMessage, Refusal, Refused, Request, Response, Snapshot, TABLE_LIMIT, encode,
};
use sluice_table::{Change, EntryKind, Name, Remote, Table};

use super::endpoints::Endpoints;
use super::indexes::Indexes;
use super::packets::{PacketCounts, PacketLink};
use super::planner::{Deps, Learned, Plan, Planner};
use super::router::Router;
use super::selection::Selection;
use super::tracing::TraceAsk;
use crate::engine::event::Event as EngineEvent;
use crate::engine::staged::Generation;
use crate::engine::{Command, Nanos};
use crate::hops::{Hops, RESOLVE_AGAIN};
use crate::worker::run::monotonic;
use crate::worker::{Order, Reading, Report, WorkerHandle};

/// How long workers may take to carry a commit out.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often reports are fetched when no request comes and no worker rings.
const TICK: Duration = Duration::from_millis(5);
/// Transaction ids remembered, so that a repeated one is not applied twice.
const REMEMBERED: usize = 1_024;

/// Something for the management thread to do.
#[derive(Debug)]
pub enum Ask {
    /// A request and where its answer goes.
    Request(Box<Request>, Sender<Response>),
    /// The table's generation.
    Generation(Sender<u64>),
    /// Events from now on.
    Subscribe(SyncSender<EventRecord>),
    /// A packet connection, which takes the place of the one before.
    Packets(PacketLink),
    /// The packet connection has something.
    PacketsWaiting,
    /// A worker reported something that should not wait for the next tick.
    ReportsWaiting,
    /// A trace; the answer says whether it started.
    Trace(TraceAsk, Sender<Response>),
    /// End.
    Stop,
}

/// What was fixed at start.
#[derive(Debug)]
pub struct Fixed {
    /// The provider's name.
    pub provider: String,
    /// Why this provider.
    pub provider_note: String,
    /// How workers wait.
    pub polling: crate::config::Polling,
}

/// A stream that a learn rule made.
#[derive(Clone, Copy, Debug)]
pub(super) struct LearnedStream {
    pub worker: u8,
    pub slot: u32,
    pub source: u32,
    pub ssrc: sluice_srtp::Ssrc,
}

/// What steering knows of a leg.
#[derive(Clone, Debug)]
struct Steered {
    endpoint: Name,
    tuples: Vec<SocketAddr>,
    slot: u32,
    learns: bool,
}

/// The management thread's state.
pub struct Manager {
    pub(super) planner: Planner,
    pub(super) endpoints: Endpoints,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) fixed: Fixed,
    pub(super) started: Instant,
    crypto: AnyProvider,
    indexes: Box<dyn Indexes + Send>,
    hops: Hops,
    random: Box<dyn FnMut() -> u64>,
    flipped: Vec<Generation>,
    #[allow(clippy::vec_box, reason = "readings travel boxed and go on boxed")]
    readings: Vec<Box<Reading>>,
    subscribers: Vec<SyncSender<EventRecord>>,
    pub(super) packets: Option<PacketLink>,
    pub(super) packet_counts: PacketCounts,
    events: u64,
    transactions: BTreeMap<u64, (u64, u64)>,
    /// What steering was last told, by leg.
    steered: HashMap<Name, Steered>,
    /// Endpoints at which legs still learn their address.
    learning: BTreeSet<Name>,
    /// Streams that learn rules made, by rule.
    pub(super) learned: BTreeMap<Name, LearnedStream>,
    /// Streams just learned, whose indexes are not kept yet.
    unkept: Vec<Learned>,
    pub(super) trace: Option<super::tracing::Running>,
    selection: Selection,
    last_select: Nanos,
    last_confirm: Instant,
    last_resolve: Instant,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Manager {
    /// A manager of running workers with empty tables.
    #[allow(clippy::too_many_arguments, reason = "each is owned from here on")]
    pub fn new(
        planner: Planner,
        endpoints: Endpoints,
        workers: Vec<WorkerHandle>,
        crypto: AnyProvider,
        indexes: Box<dyn Indexes + Send>,
        hops: Hops,
        random: Box<dyn FnMut() -> u64>,
        fixed: Fixed,
    ) -> Self {
        Manager {
            planner,
            endpoints,
            flipped: vec![Generation(0); workers.len()],
            workers,
            fixed,
            started: Instant::now(),
            crypto,
            indexes,
            hops,
            random,
            readings: Vec::new(),
            subscribers: Vec::new(),
            packets: None,
            packet_counts: PacketCounts::default(),
            events: 0,
            transactions: BTreeMap::new(),
            steered: HashMap::new(),
            learning: BTreeSet::new(),
            learned: BTreeMap::new(),
            unkept: Vec::new(),
            trace: None,
            selection: Selection::default(),
            last_select: Nanos(0),
            last_confirm: Instant::now(),
            last_resolve: Instant::now(),
        }
    }

    /// Serves until told to stop.
    pub fn run(mut self, asks: &Receiver<Ask>) {
        loop {
            match asks.recv_timeout(TICK) {
                Ok(Ask::Request(request, reply)) => {
                    let response = self.answer(*request).unwrap_or_else(Response::Refused);
                    let _ = reply.send(response);
                }
                Ok(Ask::Generation(reply)) => drop(reply.send(self.planner.generation().0)),
                Ok(Ask::Subscribe(subscriber)) => self.subscribers.push(subscriber),
                Ok(Ask::Packets(link)) => self.packets = Some(link),
                Ok(Ask::Trace(ask, reply)) => {
                    let started = self.start_trace(ask);
                    let _ = reply.send(started.map_or_else(Response::Refused, |()| Response::Ok));
                }
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Ask::PacketsWaiting | Ask::ReportsWaiting) | Err(RecvTimeoutError::Timeout) => {}
            }
            self.packets_down();
            self.fetch_trace();
            self.reports();
            self.keep_learned();
            self.select();
            self.follow_routes();
        }
        for worker in &mut self.workers {
            worker.stop();
        }
    }

    fn answer(&mut self, request: Request) -> Result<Response, Refused> {
        match request {
            Request::Apply { table, dry_run } => self.apply(&table, dry_run),
            Request::Clear => self.apply(&Table::default(), false),
            Request::Transaction { id, changes } => {
                let digest = digest(&changes);
                if let Some((known, generation)) = self.transactions.get(&id) {
                    if *known == digest {
                        return Ok(Response::Committed { id, generation: *generation });
                    }
                    let detail = format!("transaction {id} was other changes before");
                    return Err(Refused::new(Refusal::TransactionId, detail, "use a new id"));
                }
                let generation = self.commit(changes, false)?.0;
                self.transactions.insert(id, (digest, generation));
                while self.transactions.len() > REMEMBERED {
                    self.transactions.pop_first();
                }
                Ok(Response::Committed { id, generation })
            }
            Request::Snapshot => {
                let generation = self.planner.generation().0;
                Ok(Response::Snapshot(Box::new(Snapshot::of(self.planner.table(), generation, self.events))))
            }
            Request::Counters => Ok(Response::Counters(self.counters())),
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Legs => Ok(Response::Legs(self.leg_rows())),
            Request::Streams => Ok(Response::Streams(self.stream_rows())),
            Request::Trace { .. } | Request::Subscribe => Err(Refused::new(
                Refusal::BadMessage,
                "this request starts a stream and is served by the connection",
                "report this as a defect",
            )),
        }
    }

    fn apply(&mut self, table: &Table, dry_run: bool) -> Result<Response, Refused> {
        table.validate().map_err(Refused::invalid)?;
        let changes = self.planner.table().diff(table);
        let views = self.planner.table().describe(&changes);
        let mut generation = self.planner.generation().0;
        if !dry_run && !changes.is_empty() {
            generation = self.commit(changes, true)?.0;
        }
        Ok(Response::Applied { generation, changes: views })
    }

    /// Opens endpoints, plans, carries out, closes endpoints. On refusal the running table stays. `valid` says that the
    /// table the changes lead to was validated.
    fn commit(&mut self, changes: Vec<Change>, valid: bool) -> Result<Generation, Refused> {
        let before = self.planner.table().endpoints.clone();
        let mut opened = Vec::new();
        for (name, endpoint) in &self.endpoints_after(&changes)? {
            if before.get(name) == Some(endpoint) {
                continue;
            }
            if let Err(refusal) = self.endpoints.open(name, endpoint, &self.workers) {
                self.undo(&opened, &before);
                return Err(refusal);
            }
            opened.push(name.clone());
        }
        let made =
            self.with_deps(
                |planner, deps| {
                    if valid { planner.transact_valid(changes, deps) } else { planner.transact(changes, deps) }
                },
            );
        match made {
            Ok(plan) => {
                let generation = plan.generation;
                self.selection.follow(&plan.changes);
                self.steer(&plan.legs);
                let unlearns = plan.changes.iter().any(|change| change.row().0 == EntryKind::Learn);
                self.carry_out(plan)?;
                let gone: Vec<Name> =
                    before.keys().filter(|n| !self.planner.table().endpoints.contains_key(*n)).cloned().collect();
                for name in gone {
                    self.endpoints.close(&name, &self.workers);
                }
                if unlearns {
                    let table = self.planner.table();
                    self.learned.retain(|rule, _| table.learn.contains_key(rule));
                }
                self.publish(Event::TableChanged { generation: generation.0 });
                Ok(generation)
            }
            Err(refusal) => {
                self.undo(&opened, &before);
                Err(refusal)
            }
        }
    }

    /// The endpoints there will be. Changes that touch endpoints are rare, and are checked before any is opened.
    fn endpoints_after(&self, changes: &[Change]) -> Result<BTreeMap<Name, sluice_table::Endpoint>, Refused> {
        if changes.iter().all(|change| change.row().0 != EntryKind::Endpoint) {
            return Ok(BTreeMap::new());
        }
        let mut next = self.planner.table().clone();
        next.apply(changes).map_err(Refused::invalid)?;
        Ok(next.endpoints)
    }

    fn undo(&mut self, opened: &[Name], before: &BTreeMap<Name, sluice_table::Endpoint>) {
        for name in opened {
            self.endpoints.close(name, &self.workers);
            if let Some(endpoint) = before.get(name)
                && let Err(refusal) = self.endpoints.open(name, endpoint, &self.workers)
            {
                tracing::error!(endpoint = %name, %refusal, "an endpoint that was open cannot be opened again");
            }
        }
    }

    fn with_deps<T>(&mut self, work: impl FnOnce(&mut Planner, &mut Deps<'_, AnyProvider>) -> T) -> T {
        let mut router = Router { hops: &mut self.hops, interfaces: self.endpoints.interfaces(), now: monotonic() };
        let mut deps = Deps {
            crypto: &mut self.crypto,
            indexes: self.indexes.as_mut(),
            routes: &mut router,
            random: &mut self.random,
        };
        work(&mut self.planner, &mut deps)
    }

    /// Tells the XDP programs which tuples of these legs are known and where legs still learn.
    fn steer(&mut self, legs: &BTreeSet<Name>) {
        let (mut former, mut wanted) = (HashMap::new(), HashMap::new());
        let mut learners = false;
        let tuples = |of: &Steered| {
            let (endpoint, slot) = (of.endpoint.clone(), of.slot);
            of.tuples.iter().map(move |tuple| ((endpoint.clone(), *tuple), slot)).collect::<Vec<_>>()
        };
        for name in legs {
            if let Some(old) = self.steered.remove(name) {
                learners |= old.learns;
                former.extend(tuples(&old));
            }
            let Some(leg) = self.planner.table().legs.get(name) else { continue };
            let new = Steered {
                endpoint: leg.endpoint.clone(),
                tuples: self.planner.tuples(name).collect(),
                slot: self.planner.leg(name).map_or(0, |(_, slot)| slot),
                learns: leg.remote == Remote::Learn && self.planner.remote(name).is_none(),
            };
            learners |= new.learns;
            wanted.extend(tuples(&new));
            self.steered.insert(name.clone(), new);
        }
        for tuple in former.keys().filter(|tuple| !wanted.contains_key(*tuple)) {
            self.endpoints.dismiss(&tuple.0, tuple.1);
        }
        for (tuple, slot) in &wanted {
            if former.get(tuple) != Some(slot) {
                self.endpoints.admit(&tuple.0, tuple.1, *slot);
            }
        }
        if learners {
            let learning: BTreeSet<Name> =
                self.steered.values().filter(|leg| leg.learns).map(|leg| leg.endpoint.clone()).collect();
            for endpoint in self.learning.symmetric_difference(&learning) {
                self.endpoints.accept_unknown(endpoint, learning.contains(endpoint));
            }
            self.learning = learning;
        }
    }

    /// Stages on every worker, flips every worker, waits for all, sweeps. Atomic per worker, ordered across them.
    fn carry_out(&mut self, plan: Plan) -> Result<(), Refused> {
        let lost = |worker: u8| {
            tracing::error!(worker, "a worker takes no more orders");
            Refused::new(
                Refusal::Internal,
                format!("worker {worker} takes no more orders"),
                "restart the forwarder; the log says more",
            )
        };
        let Plan { generation, stage, sweep, .. } = plan;
        for (worker, commands) in self.workers.iter().zip(stage) {
            for command in commands {
                worker.order(Order::Engine(command)).map_err(|_| lost(worker.worker))?;
            }
            worker.wake();
        }
        for worker in &self.workers {
            worker.order(Order::Engine(Command::Flip(generation))).map_err(|_| lost(worker.worker))?;
            worker.wake();
        }
        let deadline = Instant::now() + PATIENCE;
        while self.flipped.iter().any(|g| *g < generation) {
            self.reports();
            if Instant::now() > deadline {
                return Err(lost(self.flipped.iter().position(|g| *g < generation).unwrap_or(0) as u8));
            }
            std::thread::yield_now();
        }
        for (worker, commands) in self.workers.iter().zip(sweep) {
            for command in commands {
                worker.order(Order::Engine(command)).map_err(|_| lost(worker.worker))?;
            }
            worker.wake();
        }
        Ok(())
    }

    /// Takes what workers reported.
    fn reports(&mut self) {
        for worker in 0..self.workers.len() {
            self.workers[worker].answer_bell();
            while let Some(report) = self.workers[worker].report() {
                match report {
                    Report::Event(event) => self.engine_event(worker as u8, event),
                    Report::Garbage(garbage) => drop(garbage),
                    Report::Closed(port) => drop(port),
                    Report::Ended(tap) => drop(tap),
                    Report::Trace(rows, missed) => self.traced(worker as u8, rows, missed),
                    Report::Read(reading) => self.readings.push(reading),
                }
            }
        }
    }

    fn engine_event(&mut self, worker: u8, event: EngineEvent) {
        match event {
            EngineEvent::Flipped(generation) => self.flipped[usize::from(worker)] = generation,
            EngineEvent::RemoteLearned { leg, remote } => {
                let Some(name) = self.planner.leg_name(worker, leg).cloned() else { return };
                let remote = SocketAddr::from(remote);
                if self.planner.learned(&name, remote) {
                    tracing::info!(leg = %name, %remote, "address learned from an authenticated packet");
                    self.restage(&BTreeSet::from([name.clone()]));
                    self.publish(Event::LegTuple { leg: name, address: remote });
                }
            }
            EngineEvent::StreamLearned { leg, rule, ssrc, slot, source, incarnation } => {
                self.unkept.push(Learned { worker, leg, rule, ssrc, source, incarnation });
                let names = (self.planner.rule_name(rule).cloned(), self.planner.leg_name(worker, leg).cloned());
                let (Some(rule), Some(leg)) = names else { return };
                tracing::info!(%rule, %leg, ssrc = ssrc.0, "stream learned");
                self.learned.insert(rule.clone(), LearnedStream { worker, slot, source, ssrc });
                self.publish(Event::StreamLearned { rule, leg, ssrc });
            }
            EngineEvent::StreamForgotten { leg, rule, ssrc } => {
                let names = (self.planner.rule_name(rule).cloned(), self.planner.leg_name(worker, leg).cloned());
                let (Some(rule), Some(leg)) = names else { return };
                if self.learned.get(&rule).is_some_and(|stream| stream.ssrc == ssrc) {
                    self.learned.remove(&rule);
                }
                self.publish(Event::StreamForgotten { rule, leg, ssrc });
            }
            EngineEvent::RtcpIn { leg, bytes } => {
                let Some(leg) = self.planner.leg_name(worker, leg).cloned() else { return };
                self.packet_up(PacketMessage::RtcpIn { leg, bytes: bytes.into() });
            }
            EngineEvent::PacketIn { leg, endpoint, from, reason, bytes } => {
                let leg = leg.and_then(|leg| self.planner.leg_name(worker, leg)).cloned();
                let Some(endpoint) = self.planner.endpoint_name(endpoint).cloned() else { return };
                let (from, bytes) = (SocketAddr::from(from), bytes.into());
                self.packet_up(PacketMessage::PacketIn { endpoint, leg, from, reason, bytes });
            }
            EngineEvent::KeyFrameWanted { source } => self.key_frame_wanted(source),
            EngineEvent::ConsentLost { leg } => {
                let Some(leg) = self.planner.leg_name(worker, leg).cloned() else { return };
                tracing::info!(%leg, "consent lost; nothing but checks is sent to the peer");
                self.publish(Event::ConsentLost { leg });
            }
            EngineEvent::ConsentBack { leg } => {
                let Some(leg) = self.planner.leg_name(worker, leg).cloned() else { return };
                tracing::info!(%leg, "consent is back");
                self.publish(Event::ConsentBack { leg });
            }
            EngineEvent::Level { list, level } => {
                if let Some(stream) = self.planner.stream_of(list) {
                    self.selection.heard(stream, level, monotonic());
                }
            }
        }
    }

    /// Gives streams that were learned rows which outlive the process. Between commits only: rows that a commit lets go
    /// are in use until it is in force.
    fn keep_learned(&mut self) {
        for stream in std::mem::take(&mut self.unkept) {
            if let Some(command) = self.planner.remember(&stream, self.indexes.as_mut()) {
                let worker = &self.workers[usize::from(stream.worker)];
                // Refused only by a worker that ended, and its streams with it.
                let _ = worker.order(Order::Engine(command));
                worker.wake();
            }
        }
    }

    /// Has slots carry who is to be heard now: one commit for all that changed.
    fn select(&mut self) {
        let now = monotonic();
        if self.selection.is_idle() || Duration::from_nanos(now.since(self.last_select).0) < TICK {
            return;
        }
        self.last_select = now;
        let choices = self.selection.tick(now);
        if choices.is_empty() {
            return;
        }
        let plan = self.planner.select(&choices);
        if !plan.is_empty()
            && let Err(refusal) = self.carry_out(plan)
        {
            tracing::error!(%refusal, "slots keep whom they carry");
        }
    }

    /// Has the owner of a source's leg ask for a key frame. Losing one is no harm: who needs it asks again.
    fn key_frame_wanted(&mut self, source: u32) {
        let learned = || self.learned.iter().find(|(_, stream)| stream.source == source);
        let command = self.planner.key_frame(source);
        let Some((worker, command)) = command.or_else(|| self.planner.key_frame_of_rule(learned()?.0)) else { return };
        let handle = &self.workers[usize::from(worker)];
        if handle.offer(Order::Engine(command)).is_ok() {
            handle.wake();
        }
    }

    fn restage(&mut self, legs: &BTreeSet<Name>) {
        match self.with_deps(|planner, deps| planner.restage(legs, deps)) {
            Ok(plan) => {
                self.steer(&plan.legs);
                if let Err(refusal) = self.carry_out(plan) {
                    tracing::error!(%refusal, "legs keep their old way out");
                }
            }
            Err(refusal) => tracing::error!(%refusal, "legs keep their old way out"),
        }
    }

    /// Follows routes and neighbours: legs whose way out changed are prepared again.
    fn follow_routes(&mut self) {
        let mut changed = self.hops.poll();
        if self.last_confirm.elapsed() > Duration::from_secs(1) {
            self.last_confirm = Instant::now();
            changed |= self.hops.confirm(monotonic());
        }
        // A neighbour that nobody asks for is forgotten, and path MTUs change without a word.
        if !changed && self.last_resolve.elapsed() < Duration::from_nanos(RESOLVE_AGAIN.0) {
            return;
        }
        self.last_resolve = Instant::now();
        let mut router = Router { hops: &mut self.hops, interfaces: self.endpoints.interfaces(), now: monotonic() };
        let moved = self.planner.moved(&mut router);
        if !moved.is_empty() {
            tracing::info!(legs = moved.len(), "next hops changed");
            self.restage(&moved);
        }
    }

    /// Has every worker fill in readings; waits for all of them, at most a second.
    pub(super) fn read(&mut self, readings: Vec<(u8, Reading)>) -> Vec<(u8, Box<Reading>)> {
        let mut expected: HashMap<u64, u8> = HashMap::new();
        for (tag, (worker, mut reading)) in readings.into_iter().enumerate() {
            reading.tag = tag as u64;
            let handle = &self.workers[usize::from(worker)];
            if handle.order(Order::Read(Box::new(reading))).is_ok() {
                expected.insert(tag as u64, worker);
            }
            handle.wake();
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut got = Vec::new();
        while !expected.is_empty() && Instant::now() < deadline {
            self.reports();
            for reading in self.readings.drain(..) {
                if let Some(worker) = expected.remove(&reading.tag) {
                    got.push((worker, reading));
                }
            }
            std::thread::yield_now();
        }
        got
    }

    /// The SSRC of a source that an egress stream carries.
    pub(super) fn source_ssrc(&self, source: u32) -> Option<sluice_srtp::Ssrc> {
        let learned = self.learned.values().find(|s| s.source == source);
        self.planner.source_ssrc(source).or(learned.map(|s| s.ssrc))
    }

    fn publish(&mut self, event: Event) {
        self.events += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let record = EventRecord { sequence: self.events, at_unix_ns: now.as_nanos() as u64, event };
        // One that does not keep up sees a gap in the sequence and takes a snapshot.
        let lost = &mut self.packet_counts.events_lost;
        self.subscribers.retain(|subscriber| match subscriber.try_send(record.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                *lost += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }
}

/// A digest of changes, to tell a repeated transaction from another one under its id.
fn digest(changes: &[sluice_table::Change]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    match encode(&changes, TABLE_LIMIT) {
        Ok(bytes) => bytes.hash(&mut hasher),
        // They came in a message of that size, so they fit into one.
        Err(error) => error.to_string().hash(&mut hasher),
    }
    hasher.finish()
}
