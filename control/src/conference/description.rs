//! What a participant sends and takes, as plain values. Never derived from a session description here.

use std::collections::BTreeSet;

use sluice_srtp::Ssrc;
use sluice_table::validate::{CLOCK_RATES, MAX_PAYLOAD_TYPES, MAX_SDES};
use sluice_table::{ExtensionIds, Feedback, Limits, Rtx, Source};

/// What a participant sends and takes. Fixed while the participant lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its microphone, if it has one.
    pub audio: Option<AudioIn>,
    /// Its camera or screen, if it has one.
    pub video: Option<VideoIn>,
    /// The streams it can be sent.
    pub slots: Slots,
    /// Header extension ids of its leg.
    pub extensions: ExtensionIds,
    /// RTCP the forwarder sends it unasked.
    pub feedback: Feedback,
    /// Policing of its leg.
    pub limits: Limits,
}

/// An audio stream a participant sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioIn {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Payload types it may carry, 0 to 127, at least one.
    pub payload_types: Vec<u8>,
    /// RTP clock in Hz.
    pub clock_rate: u32,
}

/// One picture a participant sends, in one or more encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoIn {
    /// SSRC the other participants know it by.
    pub announced: Ssrc,
    /// Its encodings, lowest first, 1 to [`Source::MAX_LAYERS`].
    pub layers: Vec<Layer>,
    /// Payload types it may carry, 0 to 127, at least one.
    pub payload_types: Vec<u8>,
    /// RTX payload types to the ones they restore; empty without RTX.
    pub rtx_payload_types: Vec<(u8, u8)>,
    /// RTP clock in Hz.
    pub clock_rate: u32,
}

/// One encoding of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Announced by header extension (RFC 8852), 1 to 16 printable characters.
    Rid(String),
    /// Announced by SSRC.
    Ssrc {
        /// Of the encoding.
        ssrc: Ssrc,
        /// Of its RTX stream.
        rtx: Option<Ssrc>,
    },
}

/// The streams a participant can be sent; all SSRCs differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// SSRCs of the loudest speakers' streams.
    pub audio: Vec<Ssrc>,
    /// Streams it subscribes on; `None` where it refused one, so that the others keep their places.
    pub video: Vec<Option<VideoSlot>>,
}

/// A stream a participant subscribes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSlot {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its repair stream.
    pub rtx: Option<Rtx>,
    /// Packets kept to be sent again, 0 to 1,024.
    pub history: u16,
}

/// Why a description cannot become table rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// A stream without payload types, with too many or with one above 127.
    #[error("a stream needs 1 to 128 payload types between 0 and 127")]
    PayloadTypes,
    /// A clock rate of 0 or beyond 1 MHz.
    #[error("a clock rate is out of range; expected 1 to 1000000 Hz")]
    ClockRate,
    /// No layer, too many or two with one rid.
    #[error("video needs 1 to 4 layers with different rids")]
    Layers,
    /// A rid that no header extension can carry.
    #[error("a rid must be 1 to 16 printable ASCII characters")]
    Rid,
    /// Layers by rid without the extension that announces them.
    #[error("layers by rid need the header extension rtp-stream-id; agree on an id for it")]
    RidExtension,
    /// One SSRC for two streams of one direction.
    #[error("two streams of one direction have the same SSRC")]
    Ssrc,
    /// One id for two header extensions, or id 0.
    #[error("header extension ids must differ and be 1 to 255")]
    Extensions,
}

impl Description {
    /// Whether rows can be made of it.
    pub fn check(&self) -> Result<(), DescriptionError> {
        let mut ids = BTreeSet::new();
        let e = &self.extensions;
        let listed = [
            e.mid,
            e.rid,
            e.repaired_rid,
            e.audio_level,
            e.transport_cc,
            e.abs_send_time,
            e.dependency_descriptor,
            e.frame_descriptor,
            e.video_orientation,
        ];
        if !listed.into_iter().flatten().all(|id| id != 0 && ids.insert(id)) {
            return Err(DescriptionError::Extensions);
        }
        let mut incoming = BTreeSet::new();
        if let Some(audio) = &self.audio {
            stream(&audio.payload_types, audio.clock_rate)?;
            incoming.insert(audio.ssrc);
        }
        if let Some(video) = &self.video {
            self.check_video(video, &mut incoming)?;
        }
        let mut outgoing = BTreeSet::new();
        let repairs = self.slots.video.iter().flatten().filter_map(|slot| slot.rtx.as_ref()).map(|rtx| rtx.ssrc);
        let video = self.slots.video.iter().flatten().map(|slot| slot.ssrc);
        if !self.slots.audio.iter().copied().chain(video).chain(repairs).all(|ssrc| outgoing.insert(ssrc)) {
            return Err(DescriptionError::Ssrc);
        }
        Ok(())
    }

    fn check_video(&self, video: &VideoIn, incoming: &mut BTreeSet<Ssrc>) -> Result<(), DescriptionError> {
        stream(&video.payload_types, video.clock_rate)?;
        if !video.rtx_payload_types.is_empty() {
            stream(&video.rtx_payload_types.iter().map(|(rtx, _)| *rtx).collect::<Vec<_>>(), video.clock_rate)?;
        }
        if video.layers.is_empty() || video.layers.len() > Source::MAX_LAYERS {
            return Err(DescriptionError::Layers);
        }
        let mut rids = BTreeSet::new();
        for layer in &video.layers {
            match layer {
                Layer::Rid(rid) => {
                    if rid.is_empty() || rid.len() > MAX_SDES || !rid.bytes().all(|b| b.is_ascii_graphic()) {
                        return Err(DescriptionError::Rid);
                    }
                    if self.extensions.rid.is_none() {
                        return Err(DescriptionError::RidExtension);
                    }
                    if !rids.insert(rid) {
                        return Err(DescriptionError::Layers);
                    }
                }
                Layer::Ssrc { ssrc, rtx } => {
                    if !std::iter::once(*ssrc).chain(*rtx).all(|ssrc| incoming.insert(ssrc)) {
                        return Err(DescriptionError::Ssrc);
                    }
                }
            }
        }
        Ok(())
    }
}

fn stream(payload_types: &[u8], clock_rate: u32) -> Result<(), DescriptionError> {
    if payload_types.is_empty() || payload_types.len() > MAX_PAYLOAD_TYPES || payload_types.iter().any(|p| *p > 127) {
        return Err(DescriptionError::PayloadTypes);
    }
    if CLOCK_RATES.contains(&clock_rate) { Ok(()) } else { Err(DescriptionError::ClockRate) }
}
