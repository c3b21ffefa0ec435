//! What a client answered, read into everything a conference needs to know about it. Never decides what follows.

use sluice_table::{ExtensionIds, Ssrc};

use crate::transport::RemoteDescription;

/// A client's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireAnswer {
    /// How to reach the client.
    pub remote: RemoteDescription,
    /// Audio it sends; `None` if it refused that section or has nothing to send.
    pub audio: Option<AudioIn>,
    /// Video it sends; `None` if it refused that section or has nothing to send.
    pub video: Option<VideoIn>,
    /// The slots of audio in the order they were offered.
    pub audio_slots: Vec<SlotAnswer>,
    /// The slots of video in the order they were offered.
    pub video_slots: Vec<SlotAnswer>,
    /// Header extensions agreed anywhere in the description; bundled sections share their ids.
    pub extensions: ExtensionIds,
}

/// Audio a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioIn {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Payload types it may use, preferred first; at least one.
    pub payload_types: Vec<u8>,
    /// Clock rate in Hz of the first.
    pub clock_rate: u32,
    /// Feedback it takes for this stream.
    pub feedback: FeedbackIn,
    /// Header extensions of this section.
    pub extensions: ExtensionIds,
}

/// Video a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoIn {
    /// How its streams are told apart.
    pub streams: VideoStreams,
    /// Payload types it may use, RTX left out, preferred first; at least one.
    pub payload_types: Vec<u8>,
    /// RTX payload types to the ones they restore; empty if it refused RTX.
    pub rtx: Vec<(u8, u8)>,
    /// Clock rate in Hz of the first payload type.
    pub clock_rate: u32,
    /// Feedback it takes for this stream.
    pub feedback: FeedbackIn,
    /// Header extensions of this section.
    pub extensions: ExtensionIds,
}

/// How the streams of a video section are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoStreams {
    /// By these rids on their first packets, lowest layer first; at least one.
    Rids(Vec<String>),
    /// By announced SSRC: one layer, and its RTX stream if there is one.
    Ssrc {
        /// The stream.
        ssrc: Ssrc,
        /// Its RTX stream.
        rtx: Option<Ssrc>,
    },
}

/// Feedback messages a section agreed to (RFC 4585 §4.2, RFC 5104 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedbackIn {
    /// `nack`.
    pub nack: bool,
    /// `nack pli`.
    pub pli: bool,
    /// `ccm fir`.
    pub fir: bool,
    /// `transport-cc`.
    pub transport_cc: bool,
    /// `goog-remb`.
    pub remb: bool,
}

/// What a client answered to one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotAnswer {
    /// Whether it takes the slot's stream.
    pub accepted: bool,
    /// Payload types it takes, RTX left out; empty if not accepted.
    pub payload_types: Vec<u8>,
    /// Payload types to the RTX payload types that repair them; empty if it refused RTX.
    pub rtx: Vec<(u8, u8)>,
    /// Feedback it will send for this stream.
    pub feedback: FeedbackIn,
    /// Header extensions of this section.
    pub extensions: ExtensionIds,
}
