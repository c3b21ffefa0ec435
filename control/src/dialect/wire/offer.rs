//! The description the SFU offers to one client: where to send, and one section for every stream it may be sent.
//! Never reads what the client answers; [`super::answer`] does.

use std::net::SocketAddr;

use sluice_table::Ssrc;

use crate::transport::{Credentials, Fingerprint};

/// Mid of the section the client sends audio on.
pub const AUDIO_MID: &str = "audio";
/// Mid of the section the client sends video on.
pub const VIDEO_MID: &str = "video";
/// Mid of the data channel's section.
pub const DATA_MID: &str = "data";
/// Payload type of Opus.
pub const OPUS: u8 = 111;
/// Payload type of VP8.
pub const VP8: u8 = 100;
/// Payload type of VP8's RTX.
pub const VP8_RTX: u8 = 101;
/// Name of the layer of half the size.
pub const LOW_RID: &str = "l";
/// Name of the layer of full size.
pub const HIGH_RID: &str = "h";

/// A stream of audio the client may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioSlot {
    /// Its SSRC, unique in the description.
    pub ssrc: Ssrc,
    /// Its stream and track id and cname: unique in the description, letters, digits and `-`.
    pub label: String,
}

/// A stream of video the client may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSlot {
    /// Its SSRC, unique in the description.
    pub ssrc: Ssrc,
    /// SSRC of its RTX stream, unique in the description.
    pub rtx_ssrc: Ssrc,
    /// Its stream and track id and cname: unique in the description, letters, digits and `-`.
    pub label: String,
}

/// What an offer is made of.
#[derive(Clone, Debug)]
pub struct OfferParameters<'a> {
    /// Session id of the `o=` line, below 2^63.
    pub session_id: u64,
    /// Session version of the `o=` line: 1, and one more for each further offer on the same connection.
    pub session_version: u64,
    /// The server and its version for `a=tool:`, e.g. [`TOOL`]. Clients read `sftd MAJOR.MINOR` at its start: from 2.1
    /// on they know the streams of this offer.
    pub tool: &'a str,
    /// Our ICE credentials.
    pub credentials: &'a Credentials,
    /// Our certificate's fingerprint.
    pub fingerprint: &'a Fingerprint,
    /// Addresses clients reach us at, the preferred one first.
    pub candidates: &'a [SocketAddr],
    /// Streams of audio to offer; their mids count from 1.
    pub audio: &'a [AudioSlot],
    /// Streams of video to offer; their mids go on where those of audio end.
    pub video: &'a [VideoSlot],
    /// Whether to ask for the two layers [`LOW_RID`] and [`HIGH_RID`].
    pub simulcast: bool,
}

/// A tool line that every client since selective video takes.
pub const TOOL: &str = "sftd 5.0.1 (x86_64/linux)";

impl OfferParameters<'_> {
    /// What [`super::answer::answer`] must know of this offer.
    pub fn offered(&self) -> Offered {
        Offered { audio: self.audio.len(), video: self.video.len(), simulcast: self.simulcast }
    }
}

/// What was offered, as far as the answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// How many streams of audio.
    pub audio: usize,
    /// How many streams of video.
    pub video: usize,
    /// Whether layers were asked for.
    pub simulcast: bool,
}
