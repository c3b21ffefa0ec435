//! The state machine of the dialect: calls, conferences, and what ends them. HTTP requests are handled in
//! [`super::http`], messages of channels in [`super::channel`].

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use sluice_table::{Change, EntryKind, Name};

use super::allocation::Allocations;
use super::call::{Call, Stage};
use super::capacity::Pools;
use super::counters::{Counters, Reason};
use super::room::Room;
use super::{Action, Event, WireConfig};
use crate::conference::{self, Connection, ParticipantId, Path};
use crate::dialect::Random;

/// Label of the channel of a call.
pub const CHANNEL: &str = "calling-3.0";

/// The dialect: every conference of this process and its calls.
#[derive(Debug)]
pub struct Wire {
    pub(super) config: WireConfig,
    pub(super) rooms: HashMap<Arc<str>, Room>,
    pub(super) calls: HashMap<ParticipantId, Call>,
    pub(super) allocations: Allocations,
    /// Calls that wait for their answer.
    pub(super) setups: BTreeSet<(Instant, ParticipantId)>,
    /// When which conference has something to do.
    agenda: BTreeSet<(Instant, Arc<str>)>,
    /// Whose leg has which address.
    tuples: HashMap<(Name, SocketAddr), ParticipantId>,
    pub(super) next_participant: u64,
    pub(super) next_conference: u64,
    first_conference: u64,
    seqno: u64,
    pub(super) counters: Counters,
    pub(super) draining: bool,
    drained: bool,
    /// Whether media can be set up now.
    pub(super) available: bool,
    /// What the forwarder has room for, once it said so.
    pub(super) capacity: Option<Pools>,
    /// What is kept free in it for calls that answered.
    pub(super) reserved: Pools,
    /// Until then clients may come back to calls that an earlier process had.
    pub(super) resumes: Option<Instant>,
}

/// What one event is handled with.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    /// Milliseconds since 1970.
    pub(super) wall: u64,
    pub(super) random: &'a mut dyn Random,
    pub(super) actions: &'a mut Vec<Action>,
}

impl Wire {
    /// A dialect without conferences.
    pub fn new(config: WireConfig) -> Wire {
        Wire {
            rooms: HashMap::new(),
            calls: HashMap::new(),
            allocations: Allocations::default(),
            setups: BTreeSet::new(),
            agenda: BTreeSet::new(),
            tuples: HashMap::new(),
            next_participant: 1,
            next_conference: config.first_conference,
            first_conference: config.first_conference,
            seqno: 0,
            counters: Counters::default(),
            draining: false,
            drained: false,
            available: true,
            capacity: None,
            reserved: Pools::default(),
            resumes: None,
            config,
        }
    }

    /// Whether a table row of this name is, or was, one of ours.
    pub fn owns(&self, row: &Name) -> bool {
        let conference = row.0.strip_prefix('c').and_then(|rest| rest.split_once('/')).map(|(number, _)| number);
        let conference = conference.and_then(|number| number.parse::<u64>().ok());
        conference.is_some_and(|number| (self.first_conference..self.next_conference).contains(&number))
    }

    /// Whose leg has this name.
    pub fn participant_of_leg(&self, leg: &Name) -> Option<ParticipantId> {
        self.participant_of_row(leg).filter(|_| leg.as_str().bytes().filter(|b| *b == b'/').count() == 1)
    }

    /// Whose leg or stream a row of this name is.
    pub fn participant_of_row(&self, row: &Name) -> Option<ParticipantId> {
        let (_, rest) = row.as_str().split_once("/p").filter(|_| self.owns(row))?;
        let number = rest.split('/').next()?;
        let participant = ParticipantId(number.parse().ok()?);
        self.calls.contains_key(&participant).then_some(participant)
    }

    /// Handles one event; adds what follows to `actions`. `wall` is in milliseconds since 1970.
    pub fn handle(
        &mut self,
        now: Instant,
        wall: u64,
        event: Event,
        random: &mut dyn Random,
        actions: &mut Vec<Action>,
    ) {
        let turn = &mut Turn { now, wall, random, actions };
        match event {
            Event::Http { request, method, path, body, client } => {
                self.http(turn, request, &method, &path, &body, client);
            }
            Event::Connected { participant, connection } => self.connected(turn, participant, connection),
            Event::Moved { participant, path } => self.moved(turn, participant, path),
            Event::ChannelOpen { participant } => self.channel_open(turn, participant),
            Event::Message { participant, text } => self.message(turn, participant, &text),
            Event::Closed { participant, reason } => {
                if self.calls.contains_key(&participant) {
                    *self.counters.closed.entry(reason).or_default() += 1;
                }
                self.end(turn, participant, Reason::TransportClosed);
            }
            Event::Tick => self.tick(turn),
            Event::Drain => self.draining = true,
            Event::Kick { participant } => self.end(turn, participant, Reason::Kicked),
            Event::Reprogram { present, only } => self.reprogram(turn, present, only),
        }
        if self.draining && !self.drained && self.calls.is_empty() {
            self.drained = true;
            actions.push(Action::Drained);
        }
    }

    /// When [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let setup = self.setups.first().map(|(at, _)| *at);
        let room = self.agenda.first().map(|(at, _)| *at);
        [setup, room].into_iter().flatten().min()
    }

    /// What was refused and done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The configuration.
    pub fn config(&self) -> &WireConfig {
        &self.config
    }

    /// Whether new calls are turned away.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Says whether media can be set up; while it cannot, nobody comes in.
    pub fn set_available(&mut self, available: bool) {
        self.available = available;
    }

    /// Says what the forwarder has room for; nobody comes in beyond it.
    pub fn set_capacity(&mut self, capacity: Pools) {
        self.capacity = Some(capacity);
    }

    /// What is kept free in the forwarder for calls that answered.
    pub fn reserved(&self) -> &Pools {
        &self.reserved
    }

    /// Says until when clients may come back to calls that an earlier process had. Their tokens were good when they
    /// came in first; that process knew their conference, this one does not.
    pub fn set_resumes(&mut self, until: Instant) {
        self.resumes = Some(until);
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, participant)) = self.setups.first().copied()
            && at <= turn.now
        {
            self.setups.remove(&(at, participant));
            self.end(turn, participant, Reason::SetupTimeout);
        }
        while let Some((at, room)) = self.agenda.first().cloned()
            && at <= turn.now
        {
            self.run(turn, &room, conference::Event::Tick);
            self.broadcast(turn, &room);
            self.schedule(&room);
        }
    }

    /// Gives a conference an event and does what follows.
    pub(super) fn run(&mut self, turn: &mut Turn<'_>, room: &Arc<str>, event: conference::Event) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        let mut actions = Vec::new();
        state.core.handle(turn.now, event, &mut actions);
        for action in actions {
            match action {
                conference::Action::Table(changes) => turn.actions.push(Action::Table(changes)),
                conference::Action::Agreed(one, other) => self.exchange(turn, one, other),
                conference::Action::TimedOut(participant) => {
                    let open = self.calls.get(&participant).is_some_and(|call| call.stage == Stage::Open);
                    self.end(turn, participant, if open { Reason::PingTimeout } else { Reason::ConnectTimeout });
                }
                // The limits were checked before the answer was taken; whoever slipped through has no place.
                conference::Action::Refused(participant, _) => self.end(turn, participant, Reason::ConferenceFull),
            }
        }
        self.schedule(room);
    }

    /// Keeps the agenda in step with what a conference waits for.
    pub(super) fn schedule(&mut self, room: &Arc<str>) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        let next = state.next_deadline();
        if next == state.scheduled {
            return;
        }
        if let Some(at) = std::mem::replace(&mut state.scheduled, next) {
            self.agenda.remove(&(at, room.clone()));
        }
        if let Some(at) = next {
            self.agenda.insert((at, room.clone()));
        }
    }

    fn connected(&mut self, turn: &mut Turn<'_>, participant: ParticipantId, connection: Box<Connection>) {
        let Some(call) = self.calls.get_mut(&participant).filter(|call| call.stage == Stage::Answered) else { return };
        call.stage = Stage::Connected;
        let room = call.room.clone();
        self.allocations.remove(participant);
        self.take_tuples(turn, participant, &connection.endpoint, &connection.ice.tuples);
        self.run(turn, &room, conference::Event::Connected { participant, connection });
        turn.actions.push(Action::OpenChannel { participant, label: CHANNEL });
    }

    fn moved(&mut self, turn: &mut Turn<'_>, participant: ParticipantId, path: Box<Path>) {
        let Some(call) = self.calls.get(&participant).filter(|call| call.stage >= Stage::Connected) else { return };
        let room = call.room.clone();
        self.take_tuples(turn, participant, &path.endpoint, &path.ice.tuples);
        self.run(turn, &room, conference::Event::Moved { participant, path });
    }

    /// An address belongs to one leg. Whoever proved last that it is there has it.
    fn take_tuples(&mut self, turn: &mut Turn<'_>, participant: ParticipantId, endpoint: &Name, tuples: &[SocketAddr]) {
        let mut others = BTreeSet::new();
        let new: Vec<_> = tuples.iter().map(|tuple| (endpoint.clone(), *tuple)).collect();
        let old = self.calls.get_mut(&participant).map(|call| std::mem::replace(&mut call.tuples, new.clone()));
        for tuple in old.into_iter().flatten() {
            self.tuples.remove(&tuple);
        }
        for tuple in new {
            if let Some(other) = self.tuples.insert(tuple, participant)
                && other != participant
            {
                others.insert(other);
            }
        }
        for other in others {
            self.lose_tuples(turn, other);
        }
    }

    /// Leaves a call the addresses that are still its own.
    fn lose_tuples(&mut self, turn: &mut Turn<'_>, participant: ParticipantId) {
        let Some(call) = self.calls.get_mut(&participant) else { return };
        let room = call.room.clone();
        call.tuples.retain(|tuple| self.tuples.get(tuple) == Some(&participant));
        let left: Vec<SocketAddr> = call.tuples.iter().map(|(_, tuple)| *tuple).collect();
        let connection = self.rooms.get(&room).and_then(|room| room.core.connection(participant));
        match connection {
            Some(connection) if !left.is_empty() => {
                let mut ice = connection.ice.clone();
                ice.tuples = left;
                let path = Box::new(Path { endpoint: connection.endpoint.clone(), ice });
                self.run(turn, &room, conference::Event::Moved { participant, path });
            }
            _ => self.end(turn, participant, Reason::TupleTaken),
        }
    }

    fn channel_open(&mut self, turn: &mut Turn<'_>, participant: ParticipantId) {
        let Some(call) = self.calls.get_mut(&participant).filter(|call| call.stage == Stage::Connected) else { return };
        call.stage = Stage::Open;
        let (room, user) = (call.room.clone(), call.user.clone());
        self.counters.participants += 1;
        let deadline = turn.now + self.config.limits.alive;
        self.run(turn, &room, conference::Event::Alive { participant, deadline });
        self.take_over(turn, &room, participant);
        let (Some(state), Some(call)) = (self.rooms.get_mut(&room), self.calls.get_mut(&participant)) else { return };
        let first = state.list(participant, call);
        if first {
            self.counters.conferences += 1;
        }
        self.send_list(turn, &room, &[participant], first);
        if let Some(state) = self.rooms.get_mut(&room) {
            state.announce(turn.now, &self.config.limits);
        }
        let waiting = self.rooms.get(&room).and_then(|room| room.interest.get(&user)).cloned().unwrap_or_default();
        for subscriber in waiting.into_iter().chain([participant]) {
            self.resubscribe(turn, subscriber);
        }
        self.schedule(&room);
    }

    /// The user's older calls end now that this one carries it; what they wanted and said stays.
    fn take_over(&mut self, turn: &mut Turn<'_>, room: &Arc<str>, participant: ParticipantId) {
        let Some(user) = self.calls.get(&participant).map(|call| call.user.clone()) else { return };
        let older = self.rooms.get(room).and_then(|room| room.users.get(&user)).cloned().unwrap_or_default();
        for old in older.into_iter().filter(|old| *old < participant) {
            let said = self.calls.get(&old).map(|old| (old.wants.clone(), old.properties.clone(), old.muted));
            if let (Some(said), Some(call)) = (said, self.calls.get_mut(&participant)) {
                (call.wants, call.properties, call.muted) = said;
            }
            self.end(turn, old, Reason::Replaced);
        }
        let Some(state) = self.rooms.get_mut(room) else { return };
        for (user, _) in self.calls.get(&participant).iter().flat_map(|call| call.wants.iter().flatten()) {
            state.interest.entry(user.clone()).or_default().insert(participant);
        }
    }

    /// Sends the list to those that do not know the newest one, if it is time.
    fn broadcast(&mut self, turn: &mut Turn<'_>, room: &Arc<str>) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        if state.due.is_some_and(|due| due <= turn.now) {
            let behind = state.behind(turn.now, &self.calls);
            self.send_list(turn, room, &behind, false);
        }
    }

    fn send_list(&mut self, turn: &mut Turn<'_>, room: &Arc<str>, to: &[ParticipantId], should_start: bool) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        if to.is_empty() {
            return;
        }
        let head = (turn.wall, &mut self.seqno, self.config.public_url.as_str());
        let text = state.text(&self.calls, should_start, head, turn.random);
        for participant in to {
            if let Some(call) = self.calls.get_mut(participant) {
                call.listed = state.version;
                self.counters.lists += 1;
                self.counters.list_bytes += text.len() as u64;
                turn.actions.push(Action::SendList { participant: *participant, text: text.clone() });
            }
        }
    }

    /// Two that agreed get to know each other's properties.
    fn exchange(&mut self, turn: &mut Turn<'_>, one: ParticipantId, other: ParticipantId) {
        for (from, to) in [(one, other), (other, one)] {
            let Some(call) = self.calls.get(&from).filter(|call| !call.properties.is_empty()) else { continue };
            turn.actions.push(Action::Send { participant: to, text: call.properties.clone() });
        }
    }

    /// Ends a call, whatever its stage.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>, participant: ParticipantId, reason: Reason) {
        let Some(call) = self.calls.remove(&participant) else { return };
        self.counters.count(reason);
        self.allocations.remove(participant);
        if call.stage == Stage::Offered {
            self.setups.remove(&(call.since + self.config.limits.setup, participant));
        }
        for tuple in &call.tuples {
            if self.tuples.get(tuple) == Some(&participant) {
                self.tuples.remove(tuple);
            }
        }
        self.run(turn, &call.room, conference::Event::Leave { participant });
        self.reserved -= call.reserved;
        if let Some(room) = self.rooms.get_mut(&call.room).filter(|room| room.core.is_empty()) {
            self.reserved -= std::mem::take(&mut room.reserved);
        }
        turn.actions.push(Action::Close { participant });
        let Some(room) = self.rooms.get_mut(&call.room) else { return };
        room.pictures.remove(&call.video.0);
        if let Some(ids) = room.users.get_mut(&call.user) {
            ids.retain(|id| *id != participant);
            if ids.is_empty() {
                room.users.remove(&call.user);
            }
        }
        for (user, _) in call.wants.iter().flatten() {
            if let Some(waiting) = room.interest.get_mut(user) {
                waiting.remove(&participant);
                if waiting.is_empty() {
                    room.interest.remove(user);
                }
            }
        }
        if call.place.is_some() {
            room.unlist(&call);
            room.announce(turn.now, &self.config.limits);
        }
        if room.is_empty() {
            if let Some(at) = room.scheduled {
                self.agenda.remove(&(at, call.room.clone()));
            }
            self.rooms.remove(&call.room);
        } else {
            self.schedule(&call.room);
        }
    }

    /// One transaction a conference; rows of conferences that are over go first.
    fn reprogram(&self, turn: &mut Turn<'_>, present: Vec<(EntryKind, Name)>, only: Option<u64>) {
        let meant = |number: u64| only.is_none_or(|only| only == number);
        let mut known: HashMap<u64, Vec<(EntryKind, Name)>> = HashMap::new();
        for (kind, name) in present.into_iter().filter(|(kind, _)| *kind != EntryKind::Endpoint) {
            // Calls of an earlier process go on until whoever asked for this removes them.
            if let Some(number) = conference_of(&name).filter(|number| self.owns(&name) && meant(*number)) {
                known.entry(number).or_default().push((kind, name));
            }
        }
        let mut rooms: Vec<_> = self.rooms.values().map(|room| &room.core).filter(|core| meant(core.id())).collect();
        rooms.sort_by_key(|core| core.id());
        let mut transactions = Vec::new();
        for core in rooms {
            let mut changes = core.whole();
            let stale = known.remove(&core.id()).unwrap_or_default();
            let table = core.table();
            let stale = stale.into_iter().filter(|(kind, name)| table.get(*kind, name).is_none());
            changes.extend(stale.map(|(kind, name)| Change::Remove(kind, name)));
            transactions.push(changes);
        }
        let mut gone: Vec<_> = known.into_iter().collect();
        gone.sort_by_key(|(number, _)| *number);
        let gone = gone.into_iter().map(|(_, rows)| rows.into_iter().map(|(k, n)| Change::Remove(k, n)).collect());
        let transactions = gone.chain(transactions).filter(|changes: &Vec<Change>| !changes.is_empty());
        turn.actions.extend(transactions.map(Action::Table));
    }
}

/// The conference a row's name says it is of.
fn conference_of(name: &Name) -> Option<u64> {
    let (number, _) = name.as_str().strip_prefix('c')?.split_once('/')?;
    number.parse().ok()
}
