//! Messages of the channel: who agrees to whom, who wants to see whom, properties, signs of life.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::call::{Agreed, Stage, User};
use super::counters::Reason;
use super::machine::Turn;
use super::message::{Message, MessageError, Participant, Stream, entries, is_id};
use super::{Action, Wire, reply};
use crate::conference::{self, ParticipantId, Quality, Subscription};

impl Wire {
    /// Handles a message; one that cannot be read is counted and left out.
    pub(super) fn message(&mut self, turn: &mut Turn<'_>, participant: ParticipantId, text: &[u8]) {
        let limits = self.config.limits;
        let Some(call) = self.calls.get_mut(&participant).filter(|call| call.stage == Stage::Open) else { return };
        let listed = self.rooms.get(&call.room).map_or(0, |room| room.order.len());
        let longest = limits.message + listed * limits.message_per_participant;
        if text.len() > longest.min(limits.message_most) {
            return self.end(turn, participant, Reason::MessageSize);
        }
        if !call.bucket.take(turn.now, limits.message_rate, limits.message_burst) {
            return self.end(turn, participant, Reason::MessageRate);
        }
        self.counters.messages += 1;
        let Ok(message) = Message::read(text) else { return self.counters.count(Reason::MessageMalformed) };
        let room = call.room.clone();
        match (message.kind.as_str(), message.resp) {
            ("PING", false) => self.ping(turn, &room, participant),
            ("PING" | "HANGUP" | "SETUP" | "UPDATE" | "CONFCONN", true) => {}
            ("PROPSYNC", _) => self.propsync(turn, &room, participant, message),
            ("CONFPART", true) => {
                let list = message.participants.unwrap_or(RawValue::NULL);
                match self.agreed_to(&room, participant, list) {
                    Ok(event) => self.run(turn, &room, event),
                    Err(_) => self.counters.count(Reason::MessageMalformed),
                }
            }
            ("CONFSTREAMS", _) => self.confstreams(turn, participant, &message),
            ("HANGUP", false) => {
                self.respond(turn, participant, "HANGUP");
                self.end(turn, participant, Reason::Hangup);
            }
            _ => self.counters.count(Reason::MessageUnexpected),
        }
    }

    fn ping(&mut self, turn: &mut Turn<'_>, room: &Arc<str>, participant: ParticipantId) {
        self.respond(turn, participant, "PING");
        let deadline = turn.now + self.config.limits.alive;
        self.run(turn, room, conference::Event::Alive { participant, deadline });
    }

    fn respond(&self, turn: &mut Turn<'_>, participant: ParticipantId, kind: &str) {
        if let Some(call) = self.calls.get(&participant) {
            let text = reply::plain(kind, &call.room, &call.user.user, &call.user.client).into();
            turn.actions.push(Action::Send { participant, text });
        }
    }

    /// Keeps a client's properties and tells everyone it exchanges media with, unless they know them.
    fn propsync(&mut self, turn: &mut Turn<'_>, room: &Arc<str>, participant: ParticipantId, message: Message<'_>) {
        let Some(properties) = message.props.0 else { return self.counters.count(Reason::MessageMalformed) };
        let (Some(state), Some(call)) = (self.rooms.get_mut(room), self.calls.get_mut(&participant)) else { return };
        let text = reply::propsync(room, &call.user.user, &call.user.client, &properties);
        if text == call.properties {
            return;
        }
        if text.len() > self.config.limits.properties {
            return self.counters.count(Reason::PropertiesSize);
        }
        let muted = properties.get("muted").is_some_and(|m| m.as_str() == Some("true") || m.as_bool() == Some(true));
        if std::mem::replace(&mut call.muted, muted) != muted {
            state.stale();
        }
        let text = Bytes::from(text);
        call.properties = text.clone();
        let to = state.core.peers(participant);
        turn.actions.extend(to.map(|participant| Action::Send { participant, text: text.clone() }));
    }

    /// Those of a client's list that it agrees to and that are who it thinks they are.
    fn agreed_to(
        &mut self,
        room: &Arc<str>,
        participant: ParticipantId,
        list: &RawValue,
    ) -> Result<conference::Event, MessageError> {
        let losses = self.rooms.get(room).map_or(0, |room| room.losses);
        let before = self.calls.get_mut(&participant).and_then(|call| call.agreed.take());
        let known = before.filter(|before| before.begins(losses, list.get()));
        let mut end = known.map_or(0, |known| known.end);
        let mut peers = Vec::new();
        let mut whole = true;
        for entry in entries(list, end) {
            let (entry, behind) = entry?;
            end = behind;
            if entry.authorized.0 {
                let meant = self.meant(room, &entry);
                // One that is nobody now may be somebody when the list comes again.
                whole &= meant.is_some();
                peers.extend(meant);
            }
        }
        if whole && let Some(call) = self.calls.get_mut(&participant) {
            call.agreed = Some(Agreed::new(losses, list.get(), end));
        }
        Ok(match known {
            Some(_) => conference::Event::AuthoriseMore { participant, peers },
            None => conference::Event::Authorise { participant, peers },
        })
    }

    /// Whom an entry means, if it is who the client thinks it is.
    fn meant(&self, room: &Arc<str>, entry: &Participant<'_>) -> Option<ParticipantId> {
        let user = (entry.userid.0.as_deref()?, entry.clientid.0.as_deref().unwrap_or("_"));
        let id = self.rooms.get(room)?.listed(&user, &self.calls)?;
        let call = self.calls.get(&id)?;
        let same = |told: Option<u64>, ours: u32| told.is_none_or(|told| told == u64::from(ours));
        let audio = call.audio.map_or(0, |ssrc| ssrc.0);
        (same(entry.ssrc_audio.0, audio) && same(entry.ssrc_video.0, call.video.0)).then_some(id)
    }

    fn confstreams(&mut self, turn: &mut Turn<'_>, participant: ParticipantId, message: &Message<'_>) {
        let Some(call) = self.calls.get_mut(&participant) else { return };
        let list = match (message.mode.as_str(), &message.streams.0) {
            (None | Some("list"), Some(list)) => list,
            (None | Some("list"), None) => return self.counters.count(Reason::MessageMalformed),
            (Some(_), _) => return self.counters.count(Reason::MessageUnexpected),
        };
        let wants: Vec<_> = list.iter().take(call.streams.video.len()).map(wanted).collect();
        let before = std::mem::replace(&mut call.wants, wants);
        let (room, own) = (call.room.clone(), call.user.clone());
        let Some(state) = self.rooms.get_mut(&room) else { return };
        for (user, _) in before.into_iter().flatten() {
            if let Some(waiting) = state.interest.get_mut(&user) {
                waiting.remove(&participant);
                if waiting.is_empty() {
                    state.interest.remove(&user);
                }
            }
        }
        for (user, _) in call.wants.iter().flatten().filter(|(user, _)| *user != own) {
            state.interest.entry(user.clone()).or_default().insert(participant);
        }
        self.resubscribe(turn, participant);
    }

    /// Finds out again which calls the users are that a client wants to see.
    pub(super) fn resubscribe(&mut self, turn: &mut Turn<'_>, participant: ParticipantId) {
        let Some(call) = self.calls.get(&participant) else { return };
        let Some(state) = self.rooms.get(&call.room) else { return };
        let find = |want: &Option<(User, Quality)>| {
            let (user, quality) = want.as_ref().filter(|(user, _)| *user != call.user)?;
            let publisher = state.listed(user, &self.calls)?;
            Some(Subscription { publisher, quality: *quality })
        };
        let slots = call.wants.iter().map(find).collect();
        let room = call.room.clone();
        self.run(turn, &room, conference::Event::Subscribe { participant, slots });
    }
}

fn wanted(stream: &Stream) -> Option<(User, Quality)> {
    let user = stream.userid.as_str().filter(|user| is_id(user))?;
    let client = stream.clientid.as_str().filter(|client| is_id(client)).unwrap_or("_");
    let quality = match stream.quality.0 {
        Some(1) => Quality::Low,
        Some(2) => Quality::High,
        _ => Quality::Any,
    };
    Some((User::new(user, client), quality))
}
