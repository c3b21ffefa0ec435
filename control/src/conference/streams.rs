//! What a conference wants of one participant's streams, as administration shows it. Never changes anything, and never
//! knows what packets there are.

use sluice_table::Name;

use super::rows::top_layer;
use super::{Conference, Layer, ParticipantId, Quality};

/// A video slot that something is wanted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its place.
    pub slot: usize,
    /// Row of the stream it is sent as.
    pub stream: Name,
    /// Whose picture.
    pub publisher: ParticipantId,
    /// Which encoding of it.
    pub quality: Quality,
    /// The picture's encodings, lowest first.
    pub layers: Vec<LayerView>,
    /// Place in `layers` of the highest that may be sent.
    pub top: usize,
    /// Why there is no such row, if there is none.
    pub idle: Option<&'static str>,
}

/// One encoding of a participant's picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerView {
    /// Its rid, or `video` where there is only one that is told by SSRC.
    pub label: String,
    /// Row of its stream, or of the rule that finds it.
    pub row: Name,
}

impl Conference {
    /// Encodings of a participant's picture, lowest first.
    pub fn layers(&self, participant: ParticipantId) -> Vec<LayerView> {
        let Some(member) = self.members.get(&participant) else { return Vec::new() };
        let layers = member.description.video.iter().flat_map(|video| &video.layers);
        let view = |(at, layer): (usize, &Layer)| LayerView {
            label: match layer {
                Layer::Rid(rid) => rid.clone(),
                Layer::Ssrc { .. } => "video".to_owned(),
            },
            row: member.names.layer(at),
        };
        layers.enumerate().map(view).collect()
    }

    /// Row of a participant's microphone, if it has one.
    pub fn microphone(&self, participant: ParticipantId) -> Option<Name> {
        let member = self.members.get(&participant)?;
        member.description.audio.as_ref().map(|_| member.names.audio.clone())
    }

    /// Rows of the streams of the loudest speakers that a participant is sent.
    pub fn audio_slots(&self, participant: ParticipantId) -> Vec<Name> {
        let Some(member) = self.members.get(&participant) else { return Vec::new() };
        (0..member.description.slots.audio.len()).map(|at| member.names.audio_slot(at)).collect()
    }

    /// The video slots a participant wants something on.
    pub fn video_slots(&self, participant: ParticipantId) -> Vec<SlotView> {
        let Some(member) = self.members.get(&participant) else { return Vec::new() };
        let view = |(slot, want): (usize, &Option<super::Subscription>)| {
            let want = (*want)?;
            let publisher = self.members.get(&want.publisher);
            let layers = self.layers(want.publisher);
            let idle = match publisher {
                None => Some("is gone"),
                Some(other) if !member.hears.contains(other.number) => Some("did not agree yet, or was not agreed to"),
                Some(other) if other.description.video.is_none() => Some("sends no video"),
                Some(other) if other.connection.is_none() => Some("is not connected yet"),
                Some(_) if member.connection.is_none() => Some("has to wait until this one is connected"),
                Some(_) if member.description.slots.video.get(slot).is_none_or(Option::is_none) => {
                    Some("cannot be shown: its answer refused this slot")
                }
                Some(_) => None,
            };
            let most = layers.len().saturating_sub(1);
            Some(SlotView {
                slot,
                stream: member.names.video_slot(slot),
                publisher: want.publisher,
                quality: want.quality,
                top: top_layer(want.quality).map_or(most, |top| usize::from(top).min(most)),
                layers,
                idle,
            })
        };
        member.wants.iter().enumerate().filter_map(view).collect()
    }
}
