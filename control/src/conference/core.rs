//! The state machine of one conference. Every event makes at most one transaction of the forwarder's table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use sluice_table::{Change, Entry, EntryKind, Hears, Name, Table};

use super::agreement::bits;
use super::ledger::Ledger;
use super::member::{Member, Names, name};
use super::{Action, Connection, Description, Event, ParticipantId, Path, Refusal, Subscription, rows};

/// How large a conference may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConferenceLimits {
    /// Participants, 1 to `members`.
    pub participants: usize,
    /// Streams of the loudest speakers a participant is sent.
    pub audio_slots: usize,
    /// Member numbers there are, at most [`Hears::MEMBERS`]. Numbers of those who left are only used again when all
    /// others were, so many more of them than participants save table changes.
    pub members: u16,
    /// How long new agreements and subscriptions wait for more before the forwarder is told of them: in a conference
    /// everyone agrees to a newcomer and subscribes to it at about the same time. What ends is told at once.
    pub settle: Duration,
}

impl Default for ConferenceLimits {
    fn default() -> Self {
        ConferenceLimits {
            participants: 5_000,
            audio_slots: 5,
            members: Hears::MEMBERS,
            settle: Duration::from_millis(5),
        }
    }
}

/// One conference: who is in it and the rows that follow.
#[derive(Debug)]
pub struct Conference {
    id: u64,
    pub(super) limits: ConferenceLimits,
    pub(super) members: BTreeMap<ParticipantId, Member>,
    /// Who has which member number.
    numbers: Vec<Option<ParticipantId>>,
    /// Numbers of those who left that may still be set in rows the forwarder was told.
    stale: BTreeSet<u16>,
    /// Numbers that are in no row.
    free: Vec<u16>,
    /// Slots that want a publisher's picture.
    subscribers: HashMap<ParticipantId, BTreeSet<(ParticipantId, usize)>>,
    deadlines: BTreeSet<(Instant, ParticipantId)>,
    connected: usize,
    /// Legs that are to be told of new agreements, and when.
    pub(super) unsettled: BTreeSet<ParticipantId>,
    pub(super) settles: Option<Instant>,
    /// Group the audio streams compete in, and the sources that carry the loudest.
    group: Name,
    sources: Vec<Name>,
    ledger: Ledger,
}

impl Conference {
    /// An empty conference. Its number starts the names of its rows and is never used again while the process lives.
    pub fn new(id: u64, limits: ConferenceLimits) -> Conference {
        let members = limits.members.clamp(1, Hears::MEMBERS);
        Conference {
            id,
            limits: ConferenceLimits { members, participants: limits.participants.min(usize::from(members)), ..limits },
            members: BTreeMap::new(),
            numbers: Vec::new(),
            stale: BTreeSet::new(),
            free: Vec::new(),
            subscribers: HashMap::new(),
            deadlines: BTreeSet::new(),
            connected: 0,
            unsettled: BTreeSet::new(),
            settles: None,
            group: name(&format!("c{id}/a")),
            sources: (0..limits.audio_slots).map(|at| name(&format!("c{id}/a{at}"))).collect(),
            ledger: Ledger::default(),
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Participants in it.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a participant is in it.
    pub fn contains(&self, participant: ParticipantId) -> bool {
        self.members.contains_key(&participant)
    }

    /// Whether nobody else can come in.
    pub fn is_full(&self) -> bool {
        self.members.len() >= self.limits.participants
    }

    /// Whether two participants agree to exchange media.
    pub fn agreed(&self, one: ParticipantId, other: ParticipantId) -> bool {
        let (Some(one), Some(other)) = (self.members.get(&one), self.members.get(&other)) else { return false };
        one.hears.contains(other.number)
    }

    /// Everyone a participant exchanges media with.
    pub fn peers(&self, participant: ParticipantId) -> impl Iterator<Item = ParticipantId> + '_ {
        let hears = self.members.get(&participant).map(|member| &member.hears);
        hears.into_iter().flat_map(bits).filter_map(|number| self.holder(number))
    }

    /// What a participant sends and takes.
    pub fn description(&self, participant: ParticipantId) -> Option<&Description> {
        self.members.get(&participant).map(|member| &*member.description)
    }

    /// How a participant is reached; `None` before it is connected.
    pub fn connection(&self, participant: ParticipantId) -> Option<&Connection> {
        self.members.get(&participant)?.connection.as_deref()
    }

    /// What a participant wants on its video slots.
    pub fn subscriptions(&self, participant: ParticipantId) -> &[Option<Subscription>] {
        self.members.get(&participant).map_or(&[], |member| &member.wants)
    }

    /// When [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let gone = self.deadlines.first().map(|(at, _)| *at);
        [gone, self.settles].into_iter().flatten().min()
    }

    /// The rows the forwarder was told.
    pub fn table(&self) -> &Table {
        self.ledger.table()
    }

    /// All of them as one transaction for a forwarder that knows none.
    pub fn whole(&self) -> Vec<Change> {
        self.ledger.whole()
    }

    /// Handles one event; adds what follows to `actions`.
    pub fn handle(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Join { participant, description, deadline } => {
                if let Err(refusal) = self.join(participant, description, deadline) {
                    actions.push(Action::Refused(participant, refusal));
                }
            }
            Event::Connected { participant, connection } => self.connected(participant, connection),
            Event::Moved { participant, path } => self.moved(participant, *path),
            Event::Alive { participant, deadline } => self.alive(participant, deadline),
            Event::Authorise { participant, peers } => {
                return self.authorise(now, participant, Hears::default(), &peers, actions);
            }
            Event::AuthoriseMore { participant, peers } => {
                let allowed = self.members.get(&participant).map(|member| member.allows.clone()).unwrap_or_default();
                return self.authorise(now, participant, allowed, &peers, actions);
            }
            Event::Subscribe { participant, slots } => {
                self.subscribe(participant, slots);
                if self.ledger.only_adds() {
                    return self.soon(now, actions);
                }
            }
            Event::Leave { participant } => self.leave(participant),
            Event::Tick => {
                if self.settles.is_some_and(|at| at <= now) {
                    self.settle();
                }
                let mut gone = Vec::new();
                while let Some((at, participant)) = self.deadlines.first().copied()
                    && at <= now
                {
                    self.leave(participant);
                    gone.push(Action::TimedOut(participant));
                }
                self.commit(actions);
                actions.append(&mut gone);
            }
        }
        self.commit(actions);
    }

    /// Lets what was added wait for more.
    pub(super) fn soon(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.limits.settle.is_zero() {
            self.commit(actions);
        } else if !self.ledger.is_settled() {
            self.settles.get_or_insert(now + self.limits.settle);
        }
    }

    pub(super) fn commit(&mut self, actions: &mut Vec<Action>) {
        let changes = self.ledger.commit();
        if !changes.is_empty() {
            actions.push(Action::Table(changes));
        }
    }

    pub(super) fn holder(&self, number: u16) -> Option<ParticipantId> {
        self.numbers.get(usize::from(number)).copied().flatten()
    }

    fn join(
        &mut self,
        participant: ParticipantId,
        description: Box<Description>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        if self.members.contains_key(&participant) {
            return Err(Refusal::Present);
        }
        description.check()?;
        if self.is_full() {
            return Err(Refusal::Full(self.limits.participants));
        }
        let Some(number) = self.number() else { return Err(Refusal::Full(self.limits.participants)) };
        self.numbers[usize::from(number)] = Some(participant);
        self.deadlines.insert((deadline, participant));
        let member = Member {
            number,
            wants: vec![None; description.slots.video.len()],
            description,
            connection: None,
            allows: Hears::default(),
            hears: Hears::default(),
            deadline,
            names: Names::new(self.id, participant),
        };
        self.members.insert(participant, member);
        Ok(())
    }

    /// A member number that is set in no row.
    fn number(&mut self) -> Option<u16> {
        if self.numbers.len() < usize::from(self.limits.members) {
            self.numbers.push(None);
            return Some((self.numbers.len() - 1) as u16);
        }
        if self.free.is_empty() {
            // Whoever left is still set in the rows of those who heard it: they are all told at once.
            let told = &self.ledger.table().legs;
            let behind = |member: &&Member| {
                told.get(&member.names.leg).is_some_and(|leg| leg.hears.as_ref() != Some(&member.hears))
            };
            let legs: Vec<_> =
                self.members.values().filter(behind).map(|m| (m.names.leg.clone(), rows::leg(m))).collect();
            for (leg, row) in legs {
                if let Some(row) = row {
                    self.ledger.put(&leg, row);
                }
            }
            self.free.extend(std::mem::take(&mut self.stale));
        }
        self.free.pop()
    }

    fn connected(&mut self, participant: ParticipantId, connection: Box<Connection>) {
        let Some(member) = self.members.get_mut(&participant) else { return };
        let before = member.connection.is_some();
        if !member.connect(connection) {
            return;
        }
        if !before {
            self.connected += 1;
        }
        if self.connected == 1 {
            for source in &self.sources {
                self.ledger.put(source, rows::audio_source(&self.group));
            }
        }
        let Some(member) = self.members.get(&participant) else { return };
        if let Some(leg) = rows::leg(member) {
            self.ledger.put(&member.names.leg, leg);
        }
        for (name, row) in rows::incoming(member, &self.group) {
            self.ledger.put(&name, row);
        }
        for (name, row) in rows::audio_slots(member, &self.sources) {
            self.ledger.put(&name, row);
        }
        for slot in 0..member.wants.len() {
            self.refresh_slot(participant, slot);
        }
        for (subscriber, slot) in self.subscribers.get(&participant).cloned().unwrap_or_default() {
            self.refresh_slot(subscriber, slot);
        }
    }

    fn moved(&mut self, participant: ParticipantId, path: Path) {
        let Some(member) = self.members.get_mut(&participant) else { return };
        if member.relocate(path) {
            self.refresh_leg(participant);
        }
    }

    fn alive(&mut self, participant: ParticipantId, deadline: Instant) {
        let Some(member) = self.members.get_mut(&participant) else { return };
        self.deadlines.remove(&(member.deadline, participant));
        member.deadline = deadline;
        self.deadlines.insert((deadline, participant));
    }

    fn subscribe(&mut self, participant: ParticipantId, mut slots: Vec<Option<Subscription>>) {
        let Some(member) = self.members.get_mut(&participant) else { return };
        slots.resize(member.wants.len(), None);
        let before = std::mem::replace(&mut member.wants, slots.clone());
        for (slot, (old, new)) in before.into_iter().zip(slots).enumerate() {
            if old == new {
                continue;
            }
            if let Some(old) = old {
                self.unlink(old.publisher, participant, slot);
            }
            if let Some(new) = new {
                self.subscribers.entry(new.publisher).or_default().insert((participant, slot));
            }
            self.refresh_slot(participant, slot);
        }
    }

    fn unlink(&mut self, publisher: ParticipantId, subscriber: ParticipantId, slot: usize) {
        if let Some(slots) = self.subscribers.get_mut(&publisher) {
            slots.remove(&(subscriber, slot));
            if slots.is_empty() {
                self.subscribers.remove(&publisher);
            }
        }
    }

    fn leave(&mut self, participant: ParticipantId) {
        let Some(member) = self.members.remove(&participant) else { return };
        self.deadlines.remove(&(member.deadline, participant));
        for (slot, want) in member.wants.iter().enumerate() {
            if let Some(want) = want {
                self.unlink(want.publisher, participant, slot);
            }
            self.ledger.remove(EntryKind::Egress, &member.names.video_slot(slot));
        }
        // Others keep wanting it; its number is never used again, so their slots stay empty until they say otherwise.
        for (subscriber, slot) in self.subscribers.get(&participant).cloned().unwrap_or_default() {
            self.refresh_slot(subscriber, slot);
        }
        if member.connection.is_some() {
            self.remove_rows(&member);
        }
        for other in self.members.values_mut() {
            other.allows.remove(member.number);
            other.hears.remove(member.number);
        }
        self.unsettled.remove(&participant);
        if self.unsettled.is_empty() {
            self.settles = None;
        }
        self.numbers[usize::from(member.number)] = None;
        self.stale.insert(member.number);
    }

    fn remove_rows(&mut self, member: &Member) {
        self.connected -= 1;
        for (name, _) in rows::audio_slots(member, &self.sources) {
            self.ledger.remove(EntryKind::Egress, &name);
        }
        for (name, row) in rows::incoming(member, &self.group) {
            let kind = match row {
                Entry::Ingress(_) => EntryKind::Ingress,
                Entry::Learn(_) => EntryKind::Learn,
                _ => EntryKind::Source,
            };
            self.ledger.remove(kind, &name);
        }
        self.ledger.remove(EntryKind::Leg, &member.names.leg);
        if self.connected == 0 {
            for source in &self.sources {
                self.ledger.remove(EntryKind::Source, source);
            }
        }
    }

    pub(super) fn refresh_leg(&mut self, participant: ParticipantId) {
        let Some(member) = self.members.get(&participant) else { return };
        if let Some(row) = rows::leg(member) {
            self.ledger.put(&member.names.leg, row);
        }
    }

    /// Slots of one that want the other's picture.
    pub(super) fn refresh_pair(&mut self, subscriber: ParticipantId, publisher: ParticipantId) {
        let Some(slots) = self.subscribers.get(&publisher) else { return };
        let range = (subscriber, 0)..=(subscriber, usize::MAX);
        for slot in slots.range(range).map(|(_, slot)| *slot).collect::<Vec<_>>() {
            self.refresh_slot(subscriber, slot);
        }
    }

    fn refresh_slot(&mut self, subscriber: ParticipantId, slot: usize) {
        let Some(member) = self.members.get(&subscriber) else { return };
        let name = member.names.video_slot(slot);
        let wanted = member.wants.get(slot).copied().flatten();
        let row = wanted.and_then(|want| {
            let publisher = self.members.get(&want.publisher).filter(|p| p.publishes())?;
            let offered = member.description.slots.video.get(slot)?.as_ref()?;
            let flows = member.connection.is_some() && member.hears.contains(publisher.number);
            flows.then(|| rows::video_slot(member, offered, publisher, want.quality))
        });
        match row {
            Some(row) => self.ledger.put(&name, row),
            None => self.ledger.remove(EntryKind::Egress, &name),
        }
    }
}
