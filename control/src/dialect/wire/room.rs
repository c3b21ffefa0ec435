//! One conference as its clients see it: who is listed, in which order, and when the others are told.
//! Never makes table rows; the conference it holds does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_table::Ssrc;

use super::call::{Call, User, UserKey};
use super::capacity::Pools;
use super::config::WireLimits;
use super::reply::{self, ListHead};
use crate::conference::{Conference, ParticipantId};
use crate::dialect::Random;

/// One conference.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) core: Conference,
    /// Calls of each user, oldest first: at most one with an open channel and one that replaces it.
    pub(super) users: HashMap<User, Vec<ParticipantId>>,
    /// Who waits for which user's picture.
    pub(super) interest: HashMap<User, BTreeSet<ParticipantId>>,
    /// Those listed: all with an open channel, in the order they came.
    pub(super) order: BTreeMap<u64, ParticipantId>,
    /// SSRCs invented for pictures.
    pub(super) pictures: BTreeSet<u32>,
    next_place: u64,
    started: bool,
    /// Entries of everyone listed; `None` after a change that does not just add one.
    entries: Option<String>,
    /// Counts those who went: what users and SSRCs of a list meant may then have changed.
    pub(super) losses: u64,
    /// Counts changes of the list.
    pub(super) version: u64,
    text: Option<(u64, Bytes)>,
    /// When those that do not know the newest list are told.
    pub(super) due: Option<Instant>,
    last: Option<Instant>,
    /// What the agenda says about this room.
    pub(super) scheduled: Option<Instant>,
    /// What is kept free in the forwarder for the conference itself.
    pub(super) reserved: Pools,
}

impl Room {
    pub(super) fn new(core: Conference) -> Room {
        Room {
            core,
            users: HashMap::new(),
            interest: HashMap::new(),
            order: BTreeMap::new(),
            pictures: BTreeSet::new(),
            next_place: 0,
            started: false,
            entries: Some(String::new()),
            losses: 0,
            version: 0,
            text: None,
            due: None,
            last: None,
            scheduled: None,
            reserved: Pools::default(),
        }
    }

    /// An SSRC for a picture that no other here has.
    pub(super) fn invent(&mut self, random: &mut dyn Random) -> Ssrc {
        loop {
            let ssrc = random.number() as u32;
            if ssrc != 0 && self.pictures.insert(ssrc) {
                return Ssrc(ssrc);
            }
        }
    }

    /// Whether nobody has a call.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// When something has to be done.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.due, self.core.next_deadline()].into_iter().flatten().min()
    }

    /// The listed call of a user.
    pub(super) fn listed(&self, user: &dyn UserKey, calls: &HashMap<ParticipantId, Call>) -> Option<ParticipantId> {
        let ids = self.users.get(user)?;
        ids.iter().copied().find(|id| calls.get(id).is_some_and(|call| call.place.is_some()))
    }

    /// What the conference itself takes of the forwarder as soon as somebody is in it, unless that is kept free already.
    pub(super) fn brings(&self, limits: &WireLimits) -> Pools {
        let lists = limits.conference.audio_slots as u64;
        if self.reserved == Pools::default() { Pools { lists, ..Pools::default() } } else { Pools::default() }
    }

    /// Lists a call at the end; whether it is the first of a conference that did not start yet.
    pub(super) fn list(&mut self, id: ParticipantId, call: &mut Call) -> bool {
        let place = self.next_place;
        self.next_place += 1;
        call.place = Some(place);
        self.order.insert(place, id);
        self.version += 1;
        if let Some(entries) = &mut self.entries {
            append(entries, call, place);
        }
        let first = self.order.len() == 1 && !self.started;
        self.started = true;
        first
    }

    /// Takes a call off the list.
    pub(super) fn unlist(&mut self, call: &Call) {
        if let Some(place) = call.place {
            self.order.remove(&place);
            self.version += 1;
            self.losses += 1;
            self.entries = None;
        }
    }

    /// An entry changed in a way the others are told by other means.
    pub(super) fn stale(&mut self) {
        self.entries = None;
        self.text = None;
    }

    /// Plans to tell the others.
    pub(super) fn announce(&mut self, now: Instant, limits: &WireLimits) {
        if self.due.is_some() {
            return;
        }
        let soon = now + limits.broadcast_least;
        self.due = Some(self.last.map_or(soon, |last| soon.max(last + self.interval(limits))));
    }

    /// Least time between broadcasts. What one costs grows with the square of the participants, so the interval grows
    /// fast at first and slower towards the most: parts of it are `1 - (1 - share)²`.
    fn interval(&self, limits: &WireLimits) -> Duration {
        let full = limits.broadcast_full.clamp(1, 1 << 15) as u32;
        let share = self.order.len().min(full as usize) as u32;
        let more = limits.broadcast_most.saturating_sub(limits.broadcast_least);
        limits.broadcast_least + more.mul_f64(f64::from(share * (2 * full - share)) / f64::from(full * full))
    }

    /// Those to be told now.
    pub(super) fn behind(&mut self, now: Instant, calls: &HashMap<ParticipantId, Call>) -> Vec<ParticipantId> {
        self.due = None;
        self.last = Some(now);
        let behind = |id: &ParticipantId| calls.get(id).is_some_and(|call| call.listed < self.version);
        self.order.values().copied().filter(behind).collect()
    }

    /// The newest list; the same text for all who ask before it changes.
    pub(super) fn text(
        &mut self,
        calls: &HashMap<ParticipantId, Call>,
        should_start: bool,
        head: (u64, &mut u64, &str),
        random: &mut dyn Random,
    ) -> Bytes {
        if let Some((version, text)) = &self.text
            && *version == self.version
            && !should_start
        {
            return text.clone();
        }
        let (timestamp, seqno, url) = head;
        *seqno += 1;
        let mut entropy = [0; 16];
        random.fill(&mut entropy);
        let order = &self.order;
        let entries = self.entries.get_or_insert_with(|| {
            let mut entries = String::new();
            for (place, id) in order {
                if let Some(call) = calls.get(id) {
                    append(&mut entries, call, *place);
                }
            }
            entries
        });
        let head = ListHead { should_start, timestamp, seqno: *seqno, entropy, url };
        let text = Bytes::from(reply::confpart(&head, entries));
        if !should_start {
            self.text = Some((self.version, text.clone()));
        }
        text
    }
}

fn append(entries: &mut String, call: &Call, place: u64) {
    if !entries.is_empty() {
        entries.push(',');
    }
    let audio = call.audio.map_or(0, |ssrc| ssrc.0);
    entries.push_str(&reply::entry(&call.user.user, &call.user.client, audio, call.video.0, place, call.muted));
}
