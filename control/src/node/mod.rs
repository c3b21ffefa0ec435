//! The owner of every peer connection and conference: turns requests, packets and time into actions. One writer, no
//! locks; never touches a socket, a clock or a source of randomness itself.

mod act;
mod awake;
mod counters;
mod deadlines;
mod orphans;
mod peers;
mod program;
mod repair;
mod report;
mod routes;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_table::Change;
use sluice_table::protocol::{Capacity, Event as TableEvent, EventRecord, PacketInReason, PacketMessage, Refused};

use crate::conference::ParticipantId;
use crate::dialect::Random;
use crate::dialect::wire::{self, Wire};
use crate::http::{Answer, Request};
use crate::link::LinkEvent;
use crate::transport::{
    DtlsVersion, Identity, Limits as TransportLimits, LocalCandidate, Output as TransportOutput, TransportStatus,
};

use awake::Awake;
pub use counters::{Count, Counters};
use deadlines::Deadlines;
use orphans::Orphans;
use peers::Peers;
use repair::Repair;

/// When endpoints that the forwarder refused are tried again.
const ENDPOINTS_AGAIN: Duration = Duration::from_secs(2);

/// What a node is made of.
#[derive(Debug)]
pub struct Settings {
    /// Our certificate.
    pub identity: Arc<Identity>,
    /// Where media arrives, preferred first, with the interface of each.
    pub locals: Vec<(LocalCandidate, String)>,
    /// DTLS versions.
    pub dtls: DtlsVersion,
    /// Bounds of a transport.
    pub limits: TransportLimits,
    /// How long calls of an earlier process go on in the forwarder before their rows are removed.
    pub orphan_timeout: Duration,
    /// Number of the first transaction. The forwarder remembers numbers: those of an earlier process must not come again.
    pub first_transaction: u64,
}

/// What a node wants done.
#[derive(Debug)]
pub enum Output {
    /// Answer a request.
    Reply {
        /// The request's number.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// Send a transaction to the forwarder.
    Transaction {
        /// Its number.
        id: u64,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Ask for the forwarder's table as it is behind all transactions so far; [`LinkEvent::Table`] answers.
    AskTable,
    /// Send a packet by the forwarder.
    Packet(PacketMessage),
}

/// Time and chance, as the edge hands them in.
pub struct Context<'a> {
    /// Monotonic time.
    pub now: Instant,
    /// Milliseconds of the Unix epoch.
    pub wall_ms: u64,
    /// Randomness.
    pub random: &'a mut dyn Random,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The node.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    wire: Wire,
    peers: Peers,
    deadlines: Deadlines,
    orphans: Orphans,
    repair: Repair,
    awake: Awake,
    /// Participants whose transports have something to tell.
    restless: VecDeque<ParticipantId>,
    drained: bool,
    /// Participants whose keys a transaction brings, to be released when it is committed.
    keyed: HashMap<u64, Vec<ParticipantId>>,
    next_transaction: u64,
    up: bool,
    /// Whether the forwarder was ever connected.
    was_up: bool,
    /// Why the forwarder refused the endpoints, if it did.
    endpoints_refused: Option<Refused>,
    endpoints_transaction: Option<u64>,
    /// When refused endpoints are tried again.
    endpoints_again: Option<Instant>,
    counters: Counters,
    actions: Vec<wire::Action>,
    outputs: Vec<Output>,
}

impl Node {
    /// A node without participants.
    pub fn new(settings: Settings, wire: Wire) -> Node {
        let (orphans, next_transaction) = (Orphans::new(settings.orphan_timeout), settings.first_transaction);
        Node {
            settings,
            wire,
            peers: Peers::default(),
            deadlines: Deadlines::default(),
            orphans,
            repair: Repair::default(),
            awake: Awake::default(),
            restless: VecDeque::new(),
            drained: false,
            keyed: HashMap::new(),
            next_transaction,
            up: false,
            was_up: false,
            endpoints_refused: None,
            endpoints_transaction: None,
            endpoints_again: None,
            counters: Counters::default(),
            actions: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// What is to be done since the last call.
    pub fn outputs(&mut self) -> std::vec::Drain<'_, Output> {
        self.outputs.drain(..)
    }

    /// What the node counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The Wire dialect's state, for reports.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Peer connections there are, those not yet used included.
    pub fn transports(&self) -> usize {
        self.peers.len()
    }

    /// A participant's transport as it is now.
    pub fn transport_status(&mut self, participant: ParticipantId) -> Option<TransportStatus> {
        self.peers.get_mut(participant).map(|peer| peer.transport.status())
    }

    /// Whether the last call of a draining node ended.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether the forwarder is connected and took our endpoints; the reason if not.
    pub fn ready(&self) -> Result<(), String> {
        match (&self.endpoints_refused, self.up) {
            (Some(refused), _) => Err(format!("{refused}; {}", refused.hint)),
            (None, false) => Err("the forwarder is not connected".to_owned()),
            (None, true) if self.endpoints_transaction.is_some() => Err("the forwarder opens the endpoints".to_owned()),
            (None, true) => Ok(()),
        }
    }

    /// Why the forwarder refused the endpoints, if it did.
    pub fn endpoints_refused(&self) -> Option<&Refused> {
        self.endpoints_refused.as_ref()
    }

    /// Where media arrives, with the interface of each address.
    pub fn locals(&self) -> &[(LocalCandidate, String)] {
        &self.settings.locals
    }

    /// When [`Node::handle_timeout`] is to be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let orphans = self.awake.wake_at(self.orphans.deadline()).filter(|_| self.up);
        let wire = self.awake.wake_at(self.wire.next_deadline());
        let own = [self.deadlines.next(), wire, orphans, self.endpoints_again];
        own.into_iter().flatten().min()
    }

    /// A client's request.
    pub fn request(&mut self, context: &mut Context<'_>, id: u64, request: Request) {
        self.wake(context);
        let available = self.ready().is_ok();
        self.wire.set_available(available);
        let event = wire::Event::Http {
            request: wire::RequestId(id),
            method: request.method,
            path: request.path,
            body: request.body.to_vec(),
            client: request.client,
        };
        self.tell(context, event);
        self.settle(context);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, context: &mut Context<'_>) {
        self.wake(context);
        while let Some(participant) = self.deadlines.pop(context.now) {
            let Some(peer) = self.peers.get_mut(participant) else { continue };
            if peer.ends.is_some_and(|at| at <= context.now) {
                self.end(context.now, participant);
                continue;
            }
            peer.transport.handle_timeout(context.now);
            self.stir(participant);
        }
        if self.awake.is_due(context.now, self.wire.next_deadline()) {
            self.tell(context, wire::Event::Tick);
        }
        let orphans = if self.up { self.orphans.take(self.awake.now(context.now)) } else { Vec::new() };
        for changes in orphans {
            tracing::info!(rows = changes.len(), "removing what an earlier control process left in the forwarder");
            self.transaction(changes);
        }
        if self.endpoints_again.take_if(|at| *at <= context.now).is_some() && self.up {
            // Every row stands on an endpoint: those that were refused meanwhile are written again.
            self.program(context, Vec::new());
        }
        self.settle(context);
    }

    /// Stops letting new participants in.
    pub fn drain(&mut self, context: &mut Context<'_>) {
        self.wake(context);
        self.tell(context, wire::Event::Drain);
        self.settle(context);
    }

    /// Puts a participant out.
    pub fn kick(&mut self, context: &mut Context<'_>, participant: ParticipantId) {
        self.wake(context);
        self.tell(context, wire::Event::Kick { participant });
        self.settle(context);
    }

    /// News of the forwarder, and what follows.
    pub fn link(&mut self, context: &mut Context<'_>, event: LinkEvent) {
        self.hear(context, event);
        self.settle(context);
    }

    /// News of the forwarder. [`Node::settle`] has to follow; several events before it are answered together.
    pub fn hear(&mut self, context: &mut Context<'_>, event: LinkEvent) {
        self.wake(context);
        match event {
            LinkEvent::Up(snapshot) => self.link_up(context, &snapshot),
            LinkEvent::Down(reason) => {
                tracing::warn!(reason, "the forwarder is not connected; if it runs, so do its calls");
                self.up = false;
                // Looked for again in the next snapshot.
                self.orphans.forget();
                self.repair.forget();
            }
            LinkEvent::Gap(snapshot) => {
                self.counters.add(Count::EventsMissed);
                let present = orphans::rows(&snapshot);
                self.tell(context, wire::Event::Reprogram { present, only: None });
            }
            LinkEvent::Table(snapshot) => self.repair(context, &snapshot),
            LinkEvent::Committed { id, result } => self.committed(context, id, result),
            LinkEvent::Event(EventRecord { event, .. }) => self.table_event(context, event),
            LinkEvent::Packet(packet) => self.packet(context, packet),
        }
    }

    /// Takes note that this process runs.
    fn wake(&mut self, context: &Context<'_>) {
        let due = self.next_timeout();
        if let Some(slept) = self.awake.call(context.now, due) {
            tracing::warn!(?slept, "this process did not run; participants get as much more time");
            self.counters.add(Count::Stalls);
        }
    }

    /// Says what the forwarder has room for.
    pub fn set_capacity(&mut self, capacity: &[Capacity]) {
        self.wire.set_capacity(wire::Pools::of_forwarder(capacity));
    }

    fn table_event(&mut self, context: &mut Context<'_>, event: TableEvent) {
        match event {
            TableEvent::ConsentLost { leg } => {
                if let Some(participant) = self.wire.participant_of_leg(&leg) {
                    self.counters.add(Count::ConsentLost);
                    self.finish(context, participant, "consent_lost");
                }
            }
            TableEvent::KeyWearing { leg, .. } => {
                // Only a new connection brings another key.
                if let Some(participant) = self.wire.participant_of_leg(&leg) {
                    self.finish(context, participant, "key_worn");
                }
            }
            TableEvent::EndpointIo { endpoint, mode, why } => {
                tracing::info!(%endpoint, %mode, why, "an endpoint's way to the wire changed");
            }
            _ => {}
        }
    }

    fn packet(&mut self, context: &mut Context<'_>, packet: PacketMessage) {
        let PacketMessage::PacketIn { endpoint, leg, from, reason, bytes } = packet else {
            self.counters.add(Count::RtcpIgnored);
            return;
        };
        let of_leg = leg.as_ref().and_then(|leg| self.wire.participant_of_leg(leg));
        if reason == PacketInReason::Dtls && of_leg.is_none() {
            // An address is somebody's once its check was answered; that of one just before may be waiting for it.
            self.settle(context);
        }
        let participant = match (reason, of_leg) {
            (PacketInReason::Dtls, Some(participant)) => Some(participant),
            (_, of_leg) => self.peers.find(&endpoint, from, &bytes).or(of_leg),
        };
        let Some(participant) = participant else {
            self.counters.add(if reason == PacketInReason::Dtls { Count::DtlsUnknown } else { Count::StunUnknown });
            return;
        };
        if let Some(peer) = self.peers.get_mut(participant) {
            peer.transport.handle_datagram(context.now, &endpoint, from, &bytes);
            self.stir(participant);
        }
    }

    /// Ends a participant from this side.
    fn finish(&mut self, context: &mut Context<'_>, participant: ParticipantId, reason: &'static str) {
        self.end(context.now, participant);
        self.tell(context, wire::Event::Closed { participant, reason });
    }

    /// Ends a transport at once.
    fn end(&mut self, now: Instant, participant: ParticipantId) {
        if let Some(peer) = self.peers.get_mut(participant) {
            peer.transport.close(now);
            while let Some(output) = peer.transport.poll(now) {
                match output {
                    TransportOutput::Datagram { endpoint, to, bytes } => {
                        self.outputs.push(Output::Packet(PacketMessage::PacketOut { endpoint, to, bytes }));
                    }
                    TransportOutput::Closed(reason) => self.counters.closed(reason),
                    _ => {}
                }
            }
        }
        self.peers.remove(participant);
        self.deadlines.set(participant, None);
    }

    /// Tells the dialect and does what it wants; returns the last transaction that came of it.
    fn tell(&mut self, context: &mut Context<'_>, event: wire::Event) -> Option<u64> {
        let mut actions = std::mem::take(&mut self.actions);
        let now = self.awake.now(context.now);
        self.wire.handle(now, context.wall_ms, event, context.random, &mut actions);
        let mut transaction = None;
        for action in actions.drain(..) {
            transaction = self.act(context, action).or(transaction);
        }
        self.actions = actions;
        transaction
    }

    fn transaction(&mut self, changes: Vec<Change>) -> u64 {
        let id = self.next_transaction;
        self.next_transaction += 1;
        // Without endpoints everything is refused; everything is written again when there are some.
        let hopeless = self.endpoints_refused.is_some() && self.endpoints_transaction.is_none();
        if hopeless || self.repair.send(id, &changes) {
            self.counters.add(Count::Transactions);
            self.outputs.push(Output::Transaction { id, changes });
        }
        id
    }
}
