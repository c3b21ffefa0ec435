//! The engine's state and its step: commands are applied, bursts taken in, other workers served, fan-outs run.

use std::sync::Arc;

use arrayvec::ArrayVec;
use sluice_srtp::Ssrc;
use sluice_srtp::provider::Provider;
use sluice_table::DropReason;

use super::cell::{Slab, SlabMemory};
use super::command::{Command, Garbage};
use super::counters::Counters;
use super::cursor::{Cursors, Held};
use super::early::Early;
use super::event::Event;
use super::feedback::FeedbackState;
use super::inputs::Inputs;
use super::learn::Learned;
use super::link::Link;
use super::link::Message;
use super::list::{List, Places};
use super::map::FlatMap;
use super::outgoing::{Outgoing, OutgoingQueue};
use super::ports::Ports;
use super::receive::{Input, Path};
use super::rows::{EgressRow, IngressRow, LegRow, StreamKey, TupleKey, TupleOwner};
use super::staged::{Generation, Staged};
use super::stun::StunState;
use super::time::Nanos;
use super::trace::{Row, Tap};
use crate::io::{BURST, RxFrame};
use crate::wire::frame::{Address, FrameError, parse};

/// Frames one step sends at most.
pub const STEP_FRAMES: u32 = 256;
/// Messages of another worker one step takes at most.
const STEP_MESSAGES: usize = BURST;
/// Events held until the worker fetches them.
pub const MAX_EVENTS: usize = 1024;

/// Sizes of everything a worker holds; fixed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Endpoints.
    pub endpoints: usize,
    /// Legs owned by this worker.
    pub legs: usize,
    /// Tuples of all workers.
    pub tuples: usize,
    /// Ingress streams of this worker's legs.
    pub ingress: usize,
    /// Ingress streams that learn rules can make, beside those.
    pub learned: usize,
    /// Egress streams of this worker's legs.
    pub egress: usize,
    /// Lists: ingress streams and virtual sources of all workers.
    pub lists: usize,
    /// Opened packets waiting for receivers or other workers.
    pub cells: usize,
}

impl Capacity {
    /// Packets kept to be sent again, in all streams together: twice as many as may wait to be sent.
    pub fn history(&self) -> usize {
        self.cells * 2
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity {
            endpoints: 16,
            legs: 1024,
            tuples: 8192,
            ingress: 8192,
            learned: 1024,
            egress: 16_384,
            lists: 16_384,
            cells: 4096,
        }
    }
}

/// A leg that is found by SSRC because its address is not known yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    pub endpoint: u16,
    pub ssrc: Ssrc,
    pub owner: TupleOwner,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepOutcome {
    /// Frames submitted.
    pub sent: u32,
    /// Whether fan-outs are still waiting for credit or budget.
    pub waiting: bool,
    /// When the engine next has something to do by itself; [`Nanos::NEVER`] if nothing is due.
    pub deadline: Nanos,
}

/// One worker's engine.
#[derive(Debug)]
pub struct Engine<C> {
    pub(super) worker: u8,
    pub(super) generation: Generation,
    pub(super) crypto: C,
    pub(super) endpoints: Vec<Option<Address>>,
    pub(super) tuples: FlatMap<TupleKey, u32>,
    pub(super) tuple_rows: Vec<Staged<TupleOwner>>,
    free_tuples: Vec<u32>,
    pub(super) listeners: Vec<Listener>,
    pub(super) legs: Vec<LegRow>,
    pub(super) streams: FlatMap<StreamKey, u32>,
    pub(super) ingress: Vec<IngressRow>,
    pub(super) learned: Learned,
    pub(super) early: Early,
    pub(super) lists: Vec<List>,
    places: Places,
    pub(super) egress: Vec<EgressRow>,
    pub(super) slab: Slab,
    /// Every worker's slab memory, by worker.
    pub(super) memories: Vec<Arc<SlabMemory>>,
    pub(super) links: Vec<Option<Arc<Link>>>,
    pub(super) cursors: Cursors,
    pub(super) counters: Counters,
    pub(super) outgoing: OutgoingQueue,
    pub(super) stun: StunState,
    pub(super) feedback: FeedbackState,
    /// The running trace, if any.
    pub(super) tap: Option<Box<Tap>>,
    events: Vec<Event>,
    garbage: Vec<Garbage>,
}

impl<C: Provider> Engine<C> {
    /// An empty engine for worker `worker` of `workers`. `seed` keys the hash maps and transaction ids; it must be
    /// secret and random outside of tests.
    pub fn new(worker: u8, workers: u8, crypto: C, capacity: &Capacity, seed: [u64; 2]) -> Self {
        let slab = Slab::new(capacity.cells);
        let memories = (0..workers.max(worker + 1)).map(|_| slab.memory().clone()).collect();
        let fill = |n: usize| (0..n as u32).rev().collect::<Vec<_>>();
        Engine {
            worker,
            generation: Generation::default(),
            crypto,
            endpoints: vec![None; capacity.endpoints],
            tuples: FlatMap::new(capacity.tuples, seed),
            tuple_rows: std::iter::repeat_with(Staged::default).take(capacity.tuples).collect(),
            free_tuples: fill(capacity.tuples),
            listeners: Vec::new(),
            legs: std::iter::repeat_with(LegRow::default).take(capacity.legs).collect(),
            streams: FlatMap::new(capacity.ingress + capacity.learned, seed),
            ingress: std::iter::repeat_with(IngressRow::default).take(capacity.ingress + capacity.learned).collect(),
            early: Early::new(capacity.legs, capacity.cells),
            learned: Learned::new(capacity.ingress as u32, capacity.learned as u32),
            lists: std::iter::repeat_with(List::default).take(capacity.lists).collect(),
            places: Places::new(capacity.egress),
            egress: std::iter::repeat_with(EgressRow::default).take(capacity.egress).collect(),
            cursors: Cursors::new(capacity.cells * usize::from(workers.max(1)), capacity.lists),
            slab,
            memories,
            links: std::iter::repeat_with(|| None).take(usize::from(workers)).collect(),
            counters: Counters::default(),
            outgoing: OutgoingQueue::new(),
            stun: StunState::new(capacity.legs, worker, seed),
            feedback: FeedbackState::new(capacity, worker, seed),
            tap: None,
            events: Vec::with_capacity(MAX_EVENTS),
            garbage: Vec::with_capacity(MAX_EVENTS),
        }
    }

    /// Joins two workers' engines by queues; done once for every pair, before either runs.
    pub fn connect(a: &mut Engine<C>, b: &mut Engine<C>) {
        let cells = a.slab.free().max(b.slab.free());
        let (to_b, to_a) = Link::pair(a.slab.memory(), b.slab.memory(), cells);
        a.memories[usize::from(b.worker)] = b.slab.memory().clone();
        b.memories[usize::from(a.worker)] = a.slab.memory().clone();
        a.links[usize::from(b.worker)] = Some(Arc::new(to_b));
        b.links[usize::from(a.worker)] = Some(Arc::new(to_a));
    }

    /// One round: a received burst in, other workers' packets in, up to [`STEP_FRAMES`] frames out. The caller
    /// releases the received frames afterwards.
    pub fn step<P: Ports>(&mut self, now: Nanos, rx: &[RxFrame], path: Path, ports: &mut P) -> StepOutcome {
        self.receive(now, rx, path);
        self.exchange(now);
        self.send(now, ports, STEP_FRAMES)
    }

    /// Takes a received burst in.
    pub fn receive(&mut self, now: Nanos, rx: &[RxFrame], path: Path) {
        self.run_early(now);
        for burst in rx.chunks(BURST) {
            let mut inputs: ArrayVec<Input<'_>, BURST> = ArrayVec::new();
            for frame in burst {
                self.counters.received += 1;
                match parse(frame) {
                    Ok(datagram) => {
                        let Some(endpoint) = self.endpoint_of(datagram.destination) else {
                            self.counters.drop(DropReason::NotOurs);
                            continue;
                        };
                        let payload = &frame[datagram.payload_at..datagram.payload_at + datagram.payload_len];
                        inputs.push(Input { endpoint, remote: datagram.source, payload, path, frame: Some(frame) });
                    }
                    Err(error) => self.counters.drop(match error {
                        FrameError::Truncated => DropReason::Truncated,
                        FrameError::NotUdp => DropReason::BadIp,
                        FrameError::Malformed => DropReason::BadUdp,
                    }),
                }
            }
            self.ingest(now, &inputs);
        }
    }

    /// Takes in what other workers sent: packets of our legs, opened packets for our receivers, cells back.
    pub fn exchange(&mut self, now: Nanos) {
        for worker in 0..self.links.len() {
            // Ingesting a stray may send to any link, so ours is shared rather than borrowed.
            let Some(link) = self.links[worker].clone() else { continue };
            while let Some(cell) = link.returned() {
                self.slab.release(cell);
            }
            let mut inputs: ArrayVec<Input<'_>, BURST> = ArrayVec::new();
            let mut strays: ArrayVec<super::cell::CellId, BURST> = ArrayVec::new();
            for _ in 0..STEP_MESSAGES {
                match link.receive() {
                    Some(Message::Opened(cell)) => {
                        let meta = &link.memory.read(cell).meta;
                        let held = Held { worker: worker as u8, cell };
                        if !self.cursors.push(&mut self.lists, held, meta.list, meta.kind, now) {
                            self.counters.drop(DropReason::QueueFull);
                            link.give_back(cell);
                        } else if self.feedback.history.wants(meta.kind) {
                            self.feedback.history.keep_clear(link.memory.read(cell));
                        }
                    }
                    Some(Message::Stray { cell, len, endpoint, remote }) => {
                        self.counters.stray_in += 1;
                        let payload = &link.memory.read(cell).payload[..usize::from(len)];
                        inputs.push(Input { endpoint, remote, payload, path: Path::Stray, frame: None });
                        strays.push(cell);
                    }
                    Some(Message::Anchor(anchor)) => self.take_anchor(anchor),
                    None => break,
                }
            }
            if !inputs.is_empty() {
                self.ingest(now, &inputs);
                for cell in strays {
                    link.give_back(cell);
                }
            }
        }
    }

    /// Keeps consent, sends control's packets, runs fan-outs.
    pub fn send<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> StepOutcome {
        self.counters.steps += 1;
        self.keep_consent(now);
        let early = self.early.deadline();
        if early <= now {
            self.run_early(now);
            self.expire_early(now);
        }
        let mut first = self.send_outgoing(now, ports, budget);
        if self.feedback.timers.next() <= now {
            first += self.send_feedback(now, ports, budget - first);
        }
        let sent = first + self.transmit(now, ports, budget - first);
        let waiting = !self.cursors.is_empty() || !self.outgoing.is_empty();
        let deadline = self.stun.timers.next().min(self.feedback.timers.next()).min(self.early.deadline());
        StepOutcome { sent, waiting, deadline }
    }

    #[inline(always)]
    fn endpoint_of(&self, destination: Address) -> Option<u16> {
        self.endpoints.iter().position(|e| *e == Some(destination)).map(|at| at as u16)
    }

    /// Applies one command.
    pub fn command(&mut self, command: Command) {
        let (now, next) = (self.generation, Generation(self.generation.0 + 1));
        match command {
            Command::Endpoint { slot, address } => {
                if let Some(endpoint) = self.endpoints.get_mut(usize::from(slot)) {
                    *endpoint = address;
                }
            }
            Command::Leg { slot, config } => {
                let old = self.legs[slot as usize].config.stage(now, next, config);
                self.garbage.extend(old.map(Garbage::Leg));
            }
            Command::Tuple { key, owner } => self.stage_tuple(key, owner),
            Command::Ingress { slot, config } => {
                if let Some(config) = &config {
                    let key = StreamKey { leg: config.leg, ssrc: config.ssrc };
                    let inserted = self.streams.insert(key, slot);
                    debug_assert!(inserted.is_ok(), "the management thread counts streams");
                    self.feedback.add_ingress(config.leg, slot);
                }
                let old = self.ingress[slot as usize].config.stage(now, next, config);
                self.garbage.extend(old.map(Garbage::Ingress));
            }
            Command::Workers { list, workers } => self.lists[list as usize].workers = workers,
            Command::Egress { slot, config } => {
                if let Some(config) = &config {
                    self.feedback.add_egress(slot, config);
                }
                let row = &mut self.egress[slot as usize];
                let here = row.config.get(now).map(|config| config.list);
                if let Some(list) = config.as_ref().map(|config| config.list)
                    && here != Some(list)
                {
                    self.places.add(slot, &mut self.lists[list as usize].members);
                }
                let old = row.config.stage(now, next, config);
                self.garbage.extend(old.map(Garbage::Egress));
            }
            Command::Input { list, inputs } => {
                let here = self.lists[list as usize].inputs.get(now).copied();
                for input in inputs.iter().flat_map(Inputs::lists) {
                    if here.is_none_or(|here| here.position(*input).is_none()) {
                        self.lists[*input as usize].attached.add(list);
                    }
                }
                self.lists[list as usize].inputs.stage(now, next, inputs);
            }
            Command::Grow { list, attached, storage } => {
                let list = &mut self.lists[list as usize];
                let members = if attached { &mut list.attached } else { &mut list.members };
                self.garbage.push(Garbage::Storage(members.grow(storage)));
            }
            Command::Listen { owner, endpoint, ssrc } => {
                self.listeners.retain(|l| l.owner != owner || l.ssrc != ssrc);
                self.listeners.extend(endpoint.map(|endpoint| Listener { endpoint, ssrc, owner }));
            }
            Command::Flip(generation) => {
                self.generation = generation;
                self.early.flipped();
                self.emit(Event::Flipped(generation));
            }
            Command::SweepLeg(slot) => {
                self.forget_outdated(slot);
                self.forget_early(slot);
                let row = &mut self.legs[slot as usize];
                let old = row.config.sweep(now);
                if row.config.get(now).is_none() {
                    *row = LegRow::default();
                }
                let gone = row.config.get(now).is_none();
                self.garbage.extend(old.map(Garbage::Leg));
                self.follow_ice(slot);
                self.feedback.follow_leg(slot, gone);
                if gone {
                    self.stun.timers.clear(slot);
                    self.forget_outgoing(slot);
                }
            }
            Command::Rtcp { leg, bytes } => self.queue_outgoing(Outgoing::Rtcp { leg, bytes }),
            Command::KeyFrame { leg, list, new } => self.want_key_frame(leg, list, new),
            Command::KeepIndex { leg, ssrc, source, index } => self.keep_index(StreamKey { leg, ssrc }, source, index),
            Command::Packet { leg, to, bytes } => self.queue_outgoing(Outgoing::Packet { leg, to, bytes }),
            Command::SweepTuple(key) => self.sweep_tuple(key),
            Command::SweepIngress(slot) => self.sweep_ingress(slot),
            Command::SweepEgress(slots) => {
                for slot in slots {
                    self.sweep_egress(slot);
                }
            }
            Command::SweepInput(list) => {
                let row = &mut self.lists[list as usize].inputs;
                let (old, current) = (row.sweep(now), row.get(now).copied());
                for input in old.iter().flat_map(Inputs::lists) {
                    if current.is_none_or(|current| current.position(*input).is_none()) {
                        self.lists[*input as usize].attached.remove(list);
                    }
                }
            }
        }
    }

    fn stage_tuple(&mut self, key: TupleKey, owner: Option<TupleOwner>) {
        let row = match self.tuples.get(key) {
            Some(row) => row,
            None if owner.is_none() => return,
            None => {
                let Some(row) = self.free_tuples.pop() else { return };
                let inserted = self.tuples.insert(key, row);
                debug_assert!(inserted.is_ok(), "as many rows as entries");
                row
            }
        };
        let next = Generation(self.generation.0 + 1);
        self.tuple_rows[row as usize].stage(self.generation, next, owner);
    }

    fn sweep_tuple(&mut self, key: TupleKey) {
        let Some(row) = self.tuples.get(key) else { return };
        let staged = &mut self.tuple_rows[row as usize];
        staged.sweep(self.generation);
        if staged.get(self.generation).is_none() {
            self.tuples.remove(key);
            self.free_tuples.push(row);
        }
    }

    fn sweep_ingress(&mut self, slot: u32) {
        let row = &mut self.ingress[slot as usize];
        let old = row.config.sweep(self.generation);
        if row.config.get(self.generation).is_none() {
            if let Some(old) = &old {
                self.streams.remove(StreamKey { leg: old.leg, ssrc: old.ssrc });
            }
            *row = IngressRow::default();
            self.feedback.remove_ingress(slot);
        }
        self.garbage.extend(old.map(Garbage::Ingress));
    }

    fn sweep_egress(&mut self, slot: u32) {
        let row = &mut self.egress[slot as usize];
        let Some(old) = row.config.sweep(self.generation) else { return };
        let list = row.config.get(self.generation).map(|config| config.list);
        if list != Some(old.list) {
            self.places.remove(slot, &mut self.lists[old.list as usize].members);
        }
        if list.is_none() {
            *row = EgressRow::default();
            self.feedback.remove_egress(old.leg, slot, old.ssrc);
        }
        self.garbage.push(Garbage::Egress(old));
    }

    /// Queues an event for the management thread; counts it as dropped when nobody fetches them.
    pub(super) fn emit(&mut self, event: Event) {
        // A commit waits for its flip, and there is one at a time.
        if self.events.len() < MAX_EVENTS || matches!(event, Event::Flipped(_)) {
            self.events.push(event);
        } else {
            self.counters.drop(DropReason::QueueFull);
        }
    }

    /// Gives something to be freed elsewhere.
    pub(super) fn discard(&mut self, garbage: Option<Garbage>) {
        self.garbage.extend(garbage);
    }

    /// Events since the last call.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    /// What was replaced since the last call.
    pub fn garbage(&mut self) -> std::vec::Drain<'_, Garbage> {
        self.garbage.drain(..)
    }

    /// The worker's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Starts or ends a trace; returns the one before.
    pub fn set_tap(&mut self, tap: Option<Box<Tap>>) -> Option<Box<Tap>> {
        std::mem::replace(&mut self.tap, tap)
    }

    /// Swaps traced rows for an empty vector; returns how many were missed.
    pub fn take_trace(&mut self, empty: &mut Vec<Row>) -> u64 {
        self.tap.as_mut().map_or(0, |tap| tap.take(empty))
    }

    /// Packets whose fan-out is not finished.
    pub fn waiting(&self) -> usize {
        self.cursors.waiting()
    }

    /// The crypto provider.
    pub fn crypto(&self) -> &C {
        &self.crypto
    }

    /// The generation in force.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Free cells; all of them when no packet is held anywhere.
    pub fn free_cells(&self) -> usize {
        self.slab.free()
    }

    /// An ingress stream's slot.
    pub fn ingress_row(&self, slot: u32) -> Option<&IngressRow> {
        self.ingress.get(slot as usize)
    }

    /// An egress stream's slot.
    pub fn egress_row(&self, slot: u32) -> Option<&EgressRow> {
        self.egress.get(slot as usize)
    }

    /// A leg's slot.
    pub fn leg_row(&self, slot: u32) -> Option<&LegRow> {
        self.legs.get(slot as usize)
    }
}
