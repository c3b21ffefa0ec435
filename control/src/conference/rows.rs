//! Table rows of a participant. Pure functions of a member; never keeps state.

use sluice_table::{
    Egress, Entry, Ingress, KeyFrameRequest, Kind, Learn, Leg, LegKind, Name, Remote, Repair, Source, StreamRole,
};

use super::member::Member;
use super::{Layer, Quality, VideoIn, VideoSlot};

/// RTP clock of the audio slots, in Hz (RFC 7587: Opus is always at 48 kHz).
pub(super) const AUDIO_CLOCK: u32 = 48_000;

/// The leg; `None` before it is connected.
pub(super) fn leg(member: &Member) -> Option<Entry> {
    let connection = member.connection.as_ref()?;
    let mut feedback = member.description.feedback;
    if member.description.video.is_some() {
        // Without key frames nobody sees anything; a peer that did not offer a way gets the commonest one.
        feedback.key_frame = feedback.key_frame.or(Some(KeyFrameRequest::Pli));
    }
    feedback.transport_cc &= member.description.extensions.transport_cc.is_some();
    Some(Entry::Leg(Leg {
        endpoint: connection.endpoint.clone(),
        kind: LegKind::Client,
        remote: Remote::Fixed(*connection.ice.tuples.first()?),
        inbound: Some(connection.inbound.clone()),
        outbound: Some(connection.outbound.clone()),
        accept_key_reuse: false,
        extensions: member.description.extensions,
        limits: member.description.limits,
        ice: Some(connection.ice.clone()),
        feedback,
        member: Some(member.number),
        hears: Some(member.hears.clone()),
    }))
}

/// What the participant sends: streams, rules and the source of its picture.
pub(super) fn incoming(member: &Member, group: &Name) -> Vec<(Name, Entry)> {
    let mut rows = Vec::new();
    let names = &member.names;
    if let Some(audio) = &member.description.audio {
        rows.push((
            names.audio.clone(),
            Entry::Ingress(Ingress {
                leg: names.leg.clone(),
                ssrc: audio.ssrc,
                kind: Kind::Audio,
                clock_rate: audio.clock_rate,
                payload_types: audio.payload_types.clone(),
                role: StreamRole { announced: None, candidate: Some(group.clone()), repairs: None },
            }),
        ));
    }
    if let Some(video) = &member.description.video {
        for (at, layer) in video.layers.iter().enumerate() {
            rows.extend(layer_rows(member, video, at, layer));
        }
        rows.push((
            names.video.clone(),
            Entry::Source(Source {
                kind: Kind::Video,
                clock_rate: video.clock_rate,
                input: None,
                layers: (0..video.layers.len()).map(|at| names.layer(at)).collect(),
                select: None,
            }),
        ));
    }
    rows
}

fn layer_rows(member: &Member, video: &VideoIn, at: usize, layer: &Layer) -> Vec<(Name, Entry)> {
    let names = &member.names;
    let mut rows = Vec::new();
    let role = StreamRole { announced: Some(video.announced), candidate: None, repairs: None };
    let repair = StreamRole {
        repairs: Some(Repair { stream: names.layer(at), payload_types: video.rtx_payload_types.clone() }),
        ..StreamRole::default()
    };
    let rtx_types: Vec<u8> = video.rtx_payload_types.iter().map(|(rtx, _)| *rtx).collect();
    match layer {
        Layer::Rid(rid) => {
            let rule = |rid: Option<&String>, repaired_rid: Option<&String>, payload_types: Vec<u8>, role| {
                Entry::Learn(Learn {
                    leg: names.leg.clone(),
                    mid: None,
                    rid: rid.cloned(),
                    repaired_rid: repaired_rid.cloned(),
                    kind: Kind::Video,
                    clock_rate: video.clock_rate,
                    payload_types,
                    role,
                })
            };
            rows.push((names.layer(at), rule(Some(rid), None, video.payload_types.clone(), role)));
            if !rtx_types.is_empty() && member.description.extensions.repaired_rid.is_some() {
                rows.push((names.repair(at), rule(None, Some(rid), rtx_types, repair)));
            }
        }
        Layer::Ssrc { ssrc, rtx } => {
            let stream = |ssrc, payload_types, role| {
                Entry::Ingress(Ingress {
                    leg: names.leg.clone(),
                    ssrc,
                    kind: Kind::Video,
                    clock_rate: video.clock_rate,
                    payload_types,
                    role,
                })
            };
            rows.push((names.layer(at), stream(*ssrc, video.payload_types.clone(), role)));
            if let (Some(rtx), false) = (rtx, rtx_types.is_empty()) {
                rows.push((names.repair(at), stream(*rtx, rtx_types, repair)));
            }
        }
    }
    rows
}

/// The streams of the loudest speakers.
pub(super) fn audio_slots(member: &Member, sources: &[Name]) -> Vec<(Name, Entry)> {
    let slots = member.description.slots.audio.iter().zip(sources).enumerate();
    let row = |(at, (ssrc, source)): (usize, (&sluice_srtp::Ssrc, &Name))| {
        let egress = Egress {
            leg: member.names.leg.clone(),
            ssrc: *ssrc,
            source: source.clone(),
            payload_types: Vec::new(),
            first_sequence: None,
            mid: None,
            csrc: true,
            dscp: None,
            layer: None,
            rtx: None,
            history: 0,
        };
        (member.names.audio_slot(at), Entry::Egress(egress))
    };
    slots.map(row).collect()
}

/// The stream sent on a video slot.
pub(super) fn video_slot(member: &Member, slot: &VideoSlot, publisher: &Member, quality: Quality) -> Entry {
    Entry::Egress(Egress {
        leg: member.names.leg.clone(),
        ssrc: slot.ssrc,
        source: publisher.names.video.clone(),
        payload_types: Vec::new(),
        first_sequence: None,
        mid: None,
        csrc: true,
        dscp: None,
        layer: top_layer(quality),
        rtx: slot.rtx.clone(),
        history: slot.history,
    })
}

/// The highest layer of a picture that may be sent; `None` for the highest there is.
pub(super) fn top_layer(quality: Quality) -> Option<u8> {
    match quality {
        Quality::Low => Some(0),
        Quality::Any | Quality::High => None,
    }
}

/// A conference's audio slot.
pub(super) fn audio_source(group: &Name) -> Entry {
    Entry::Source(Source {
        kind: Kind::Audio,
        clock_rate: AUDIO_CLOCK,
        input: None,
        layers: Vec::new(),
        select: Some(group.clone()),
    })
}
