//! Answers to administration: what the node knows of conferences and participants. Changes nothing by itself.

use super::{Context, Node};
use crate::admin::{
    ConferenceRow, LayerNote, NodeMetrics, NodeStatus, Pair, ParticipantRow, ParticipantState, Query, Report,
    ShowReport, StreamNote,
};
use crate::conference::{Conference, LayerView, ParticipantId};
use crate::dialect::wire::ParticipantView;
use crate::transport::{Phase, TransportStatus};

impl Node {
    /// Answers a question or carries out an order.
    pub fn query(&mut self, context: &mut Context<'_>, query: &Query) -> Report {
        self.wake(context);
        match query {
            Query::Status => Report::Status(self.node_status()),
            Query::Conferences => Report::Conferences(self.conference_rows(context)),
            Query::Participants { conference } => {
                let known = |id: &String| self.wire.conferences().iter().any(|view| view.id == *id);
                match conference {
                    Some(id) if !known(id) => Report::NotFound { what: format!("conference {id}") },
                    _ => {
                        let views = self.wire.participants(self.awake.now(context.now), conference.as_deref());
                        Report::Participants(views.iter().map(|view| self.row(view)).collect())
                    }
                }
            }
            Query::Show { participant } => match self.view(context, participant) {
                Some(view) => Report::Show(Box::new(self.show(&view))),
                None => not_found(participant),
            },
            Query::Kick { participant } => match self.view(context, participant) {
                Some(view) => {
                    self.kick(context, ParticipantId(view.participant));
                    Report::Kicked { participant: participant.clone() }
                }
                None => not_found(participant),
            },
            Query::Drain => {
                self.drain(context);
                let NodeStatus { conferences, participants, .. } = self.node_status();
                Report::Draining { conferences, participants }
            }
            Query::Metrics => Report::Metrics(self.metrics()),
        }
    }

    fn view(&self, context: &Context<'_>, name: &str) -> Option<ParticipantView> {
        let number = name.strip_prefix('p')?.parse().ok()?;
        self.wire.participant(self.awake.now(context.now), ParticipantId(number))
    }

    fn node_status(&self) -> NodeStatus {
        let views = self.wire.conferences();
        NodeStatus {
            public_url: self.wire.config().public_url.clone(),
            draining: self.wire.is_draining(),
            conferences: views.iter().filter(|view| view.participants > 0).count() as u64,
            participants: views.iter().map(|view| view.participants as u64).sum(),
            allocations: self.wire.allocations() as u64,
        }
    }

    fn conference_rows(&self, context: &Context<'_>) -> Vec<ConferenceRow> {
        let row = |view: crate::dialect::wire::ConferenceView| {
            let oldest =
                self.wire.participants(self.awake.now(context.now), Some(&view.id)).iter().map(|p| p.age).max();
            ConferenceRow {
                dialect: "wire".to_owned(),
                participants: view.participants as u64,
                started_ms: oldest.unwrap_or_default().as_millis() as u64,
                state: if view.participants > 0 { "active" } else { "connecting" }.to_owned(),
                name: view.id,
            }
        };
        self.wire.conferences().into_iter().map(row).collect()
    }

    fn row(&mut self, view: &ParticipantView) -> ParticipantRow {
        let participant = ParticipantId(view.participant);
        let transport = self.transport_status(participant);
        let selected = transport.as_ref().and_then(|t| t.pairs.iter().find(|pair| pair.selected));
        let leaving = self.peers.get_mut(participant).is_some_and(|peer| peer.ends.is_some());
        let state = match (view.stage, &transport) {
            _ if leaving => ParticipantState::Leaving,
            ("open", _) => ParticipantState::Joined,
            ("connected", _) => ParticipantState::Connected,
            (_, Some(TransportStatus { phase: Phase::New, .. })) | ("offered", _) => ParticipantState::Allocated,
            _ => ParticipantState::Connecting,
        };
        ParticipantRow {
            id: participant.to_string(),
            conference: view.conference.clone(),
            user: view.user.clone(),
            state,
            tuple: selected.map(|pair| pair.remote),
            dtls: transport.as_ref().and_then(|t| t.dtls).map(str::to_owned),
            profile: transport.as_ref().and_then(|t| t.profile).map(|profile| profile.name().to_owned()),
            rtt_ms: selected.and_then(|pair| pair.rtt).map(|rtt| rtt.as_secs_f64() * 1_000.0),
            streams_in: u64::from(view.ssrc_audio.is_some()),
            streams_out: view.wants as u64,
            joined_ms: (state == ParticipantState::Joined).then_some(view.age.as_millis() as u64),
        }
    }

    fn show(&mut self, view: &ParticipantView) -> ShowReport {
        let participant = ParticipantId(view.participant);
        let row = self.row(view);
        let transport = self.transport_status(participant);
        let pairs = transport.as_ref().map(|t| t.pairs.as_slice()).unwrap_or_default();
        let mut remote: Vec<String> = pairs
            .iter()
            .map(|pair| format!("{} {:?} {:?}", pair.remote, pair.kind, pair.state).to_lowercase())
            .collect();
        remote.dedup();
        let chosen = pairs.iter().find(|pair| pair.selected);
        let muted = if view.muted { "; is muted" } else { "" };
        let mut remarks = vec![format!("says it is {}; exchanges media with {} others{muted}", view.tool, view.peers)];
        if let Some(ignored) = transport.as_ref().map(|transport| transport.ignored)
            && ignored.forged + ignored.unexpected + ignored.malformed > 0
        {
            remarks.push(format!(
                "ignored {} forged, {} unexpected and {} unreadable checks",
                ignored.forged, ignored.unexpected, ignored.malformed
            ));
        }
        remarks.extend(view.absent.iter().map(|user| format!("wants to see {user}, who is not here")));
        let notes = self.wire.conference_of(participant).map(|c| notes(c, participant, &mut remarks));
        ShowReport {
            leg: Some(view.leg.clone()).filter(|_| matches!(view.stage, "connected" | "open")),
            local_candidates: self.settings.locals.iter().map(|(local, _)| local.advertised.to_string()).collect(),
            remote_candidates: remote,
            pair: chosen.map(|pair| Pair { local: pair.local, remote: pair.remote }),
            path: None,
            remarks,
            notes: notes.unwrap_or_default(),
            streams: Vec::new(),
            participant: row,
        }
    }

    fn metrics(&self) -> NodeMetrics {
        let status = self.node_status();
        let wire = self.wire.counters();
        let named = |name: &str, value: u64| (name.to_owned(), value);
        let mut counters = vec![
            named("wire_offers", wire.offers),
            named("wire_resumed", wire.resumed),
            named("wire_messages", wire.messages),
            named("wire_lists", wire.lists),
            named("wire_list_bytes", wire.list_bytes),
        ];
        counters.extend(wire.reasons().map(|(name, value)| (format!("wire_{name}"), value)));
        counters.extend(self.counters.named().map(|(name, value)| (format!("node_{name}"), value)));
        counters.extend(self.counters.closed_by_reason().map(|(name, value)| (format!("closed_{name}"), value)));
        NodeMetrics {
            participants: status.participants,
            conferences: status.conferences,
            participants_total: wire.participants,
            conferences_total: wire.conferences,
            gauges: vec![named("allocations", status.allocations), named("transports", self.transports() as u64)],
            counters,
        }
    }
}

/// What is wanted of each stream of a participant; what cannot be had is remarked on.
fn notes(conference: &Conference, participant: ParticipantId, remarks: &mut Vec<String>) -> Vec<StreamNote> {
    let audio = |stream: sluice_table::Name, what: String| StreamNote {
        stream: stream.to_string(),
        what,
        kind: "audio".to_owned(),
        ..StreamNote::default()
    };
    let layered = |layers: &[LayerView]| -> Vec<LayerNote> {
        layers.iter().map(|l| LayerNote { label: l.label.clone(), stream: l.row.to_string() }).collect()
    };
    let microphone = conference.microphone(participant);
    let mut notes: Vec<_> = microphone.into_iter().map(|name| audio(name, "microphone".to_owned())).collect();
    let own = conference.layers(participant);
    notes.extend(own.iter().enumerate().map(|(at, layer)| StreamNote {
        stream: layer.row.to_string(),
        what: "camera or screen".to_owned(),
        kind: "video".to_owned(),
        layers: layered(&own),
        top: at,
    }));
    let loudest = conference.audio_slots(participant).into_iter().enumerate();
    notes.extend(loudest.map(|(at, name)| audio(name, format!("one of the loudest, slot {}", at + 1))));
    for slot in conference.video_slots(participant) {
        let (number, publisher, quality) = (slot.slot + 1, slot.publisher, slot.quality.name());
        match slot.idle {
            Some(idle) => remarks.push(format!("video slot {number}: wants {publisher} as {quality}, who {idle}")),
            None => notes.push(StreamNote {
                stream: slot.stream.to_string(),
                what: format!("{publisher} wanted as {quality}"),
                kind: "video".to_owned(),
                layers: layered(&slot.layers),
                top: slot.top,
            }),
        }
    }
    notes
}

fn not_found(participant: &str) -> Report {
    Report::NotFound { what: format!("participant {participant}") }
}
