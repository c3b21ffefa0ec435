//! Conferences and participants as administration shows them. Never changes anything.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Wire;
use super::call::Call;
use crate::conference::{Conference, ParticipantId};

/// A conference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConferenceView {
    /// The id clients call it by.
    pub id: String,
    /// The number its rows' names start with, after a `c`.
    pub number: u64,
    /// Participants with an open channel.
    pub participants: usize,
    /// Calls that are not that far.
    pub connecting: usize,
    /// Rows it has in the table.
    pub rows: usize,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParticipantView {
    /// Its number, as [`super::Event::Kick`] takes it.
    pub participant: u64,
    /// Id of its conference.
    pub conference: String,
    /// Name of its leg.
    pub leg: String,
    /// Its user's id.
    pub user: String,
    /// Its client's id.
    pub client: String,
    /// `offered`, `answered`, `connected` or `open`.
    pub stage: &'static str,
    /// How long ago it asked to come in.
    pub age: Duration,
    /// Where its request came from.
    pub address: IpAddr,
    /// What it says it is.
    pub tool: String,
    /// SSRC of its audio.
    pub ssrc_audio: Option<u32>,
    /// SSRC the others know its picture by.
    pub ssrc_video: u32,
    /// Whether it is muted.
    pub muted: bool,
    /// How many it exchanges media with.
    pub peers: usize,
    /// Video streams it wants.
    pub wants: usize,
    /// Users it wants to see that are not here.
    pub absent: Vec<String>,
}

impl Wire {
    /// Every conference, by number.
    pub fn conferences(&self) -> Vec<ConferenceView> {
        let view = |(id, room): (&std::sync::Arc<str>, &super::room::Room)| ConferenceView {
            id: id.to_string(),
            number: room.core.id(),
            participants: room.order.len(),
            connecting: room.users.values().map(Vec::len).sum::<usize>() - room.order.len(),
            rows: room.core.table().len(),
        };
        let mut views: Vec<_> = self.rooms.iter().map(view).collect();
        views.sort_by_key(|view| view.number);
        views
    }

    /// Every call, oldest first; only those of one conference if an id is given.
    pub fn participants(&self, now: Instant, conference: Option<&str>) -> Vec<ParticipantView> {
        let mut ids: Vec<ParticipantId> = match conference {
            Some(id) => self.rooms.get(id).into_iter().flat_map(|r| r.users.values().flatten().copied()).collect(),
            None => self.calls.keys().copied().collect(),
        };
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.participant(now, id)).collect()
    }

    /// One call.
    pub fn participant(&self, now: Instant, participant: ParticipantId) -> Option<ParticipantView> {
        let call = self.calls.get(&participant)?;
        let core = self.rooms.get(&call.room).map(|room| &room.core);
        Some(ParticipantView {
            participant: participant.0,
            conference: call.room.to_string(),
            leg: core.map_or_else(String::new, |core| format!("c{}/{participant}", core.id())),
            user: call.user.user.to_string(),
            client: call.user.client.to_string(),
            stage: call.stage.name(),
            age: now.saturating_duration_since(call.since),
            address: call.client,
            tool: call.tool.to_string(),
            ssrc_audio: call.audio.map(|ssrc| ssrc.0),
            ssrc_video: call.video.0,
            muted: call.muted,
            peers: core.map_or(0, |core| core.peers(participant).count()),
            wants: call.wants.iter().flatten().count(),
            absent: self.absent(call),
        })
    }

    fn absent(&self, call: &Call) -> Vec<String> {
        let Some(room) = self.rooms.get(&call.room) else { return Vec::new() };
        let wanted = call.wants.iter().flatten().map(|(user, _)| user);
        let gone = wanted.filter(|user| **user != call.user && room.listed(*user, &self.calls).is_none());
        gone.map(|user| user.user.to_string()).collect()
    }

    /// The conference a participant is in.
    pub fn conference_of(&self, participant: ParticipantId) -> Option<&Conference> {
        let call = self.calls.get(&participant)?;
        self.rooms.get(&call.room).map(|room| &room.core)
    }

    /// The conference whose rows' names start with this number.
    pub fn numbered(&self, number: u64) -> Option<&Conference> {
        self.rooms.values().map(|room| &room.core).find(|core| core.id() == number)
    }

    /// Calls that wait for their transport.
    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }
}
