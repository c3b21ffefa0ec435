//! From a client's answer to what a conference knows of a participant. Never reads a session description.

use sluice_table::{Feedback, KeyFrameRequest, Rtx, Ssrc};

use super::answer::{VideoStreams, WireAnswer};
use super::call::Streams;
use super::config::WireLimits;
use crate::conference::{AudioIn, Description, Layer, Slots, VideoIn, VideoSlot};

/// What a participant sends and takes by its answer. `picture` is the SSRC the others know its video by.
pub(super) fn describe(answer: &WireAnswer, streams: &Streams, picture: Ssrc, limits: &WireLimits) -> Description {
    let audio = answer.audio.as_ref();
    let video = answer.video.as_ref();
    let fed = [audio.map(|a| a.feedback), video.map(|v| v.feedback)];
    let transport_cc = fed.into_iter().flatten().any(|feedback| feedback.transport_cc);
    let key_frame = video.map(|v| match v.feedback {
        f if f.fir && !f.pli => KeyFrameRequest::Fir,
        _ => KeyFrameRequest::Pli,
    });
    Description {
        audio: audio.map(|audio| AudioIn {
            ssrc: audio.ssrc,
            payload_types: audio.payload_types.clone(),
            clock_rate: audio.clock_rate,
        }),
        video: video.map(|video| VideoIn {
            announced: picture,
            layers: match &video.streams {
                VideoStreams::Rids(rids) => rids.iter().cloned().map(Layer::Rid).collect(),
                VideoStreams::Ssrc { ssrc, rtx } => vec![Layer::Ssrc { ssrc: *ssrc, rtx: *rtx }],
            },
            payload_types: video.payload_types.clone(),
            rtx_payload_types: video.rtx.clone(),
            clock_rate: video.clock_rate,
        }),
        slots: slots(answer, streams, limits),
        extensions: answer.extensions,
        feedback: Feedback {
            reports: true,
            transport_cc: transport_cc && answer.extensions.transport_cc.is_some(),
            nack: video.is_some_and(|video| video.feedback.nack),
            key_frame,
        },
        limits: limits.leg,
    }
}

fn slots(answer: &WireAnswer, streams: &Streams, limits: &WireLimits) -> Slots {
    let audio = streams.audio.iter().zip(&answer.audio_slots);
    let video = streams.video.iter().zip(&answer.video_slots).map(|((ssrc, rtx_ssrc), answer)| {
        answer.accepted.then(|| VideoSlot {
            ssrc: *ssrc,
            rtx: (!answer.rtx.is_empty()).then(|| Rtx { ssrc: *rtx_ssrc, payload_types: answer.rtx.clone() }),
            history: if answer.feedback.nack { limits.history.min(1_024) } else { 0 },
        })
    });
    Slots {
        audio: audio.filter(|(_, answer)| answer.accepted).map(|(ssrc, _)| *ssrc).collect(),
        video: video.collect(),
    }
}
