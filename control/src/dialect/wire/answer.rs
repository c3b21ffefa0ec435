//! What a client answered, read into everything a conference needs to know about it. Never decides what follows.

use std::collections::{BTreeMap, HashMap};

use sluice_table::{ExtensionIds, Source, Ssrc};

use super::offer::{AUDIO_MID, DATA_MID, HIGH_RID, LOW_RID, Offered, VIDEO_MID};
use crate::sdp::{self, Direction, Media, MediaKind, RidDirection, SdpError, SessionDescription};
use crate::transport::{RemoteDescription, Setup};

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
#[allow(clippy::struct_excessive_bools, reason = "each message is agreed by itself")]
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

/// Why an answer was refused; the text tells the client's developer what to send instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The description cannot be read, or lacks or contradicts what a transport needs.
    #[error("the answer's description: {0}")]
    Description(#[from] SdpError),
    /// `a=setup:actpass`.
    #[error("the answer says a=setup:actpass; an answer chooses active or passive")]
    Undecided,
    /// A section nobody offered.
    #[error("section {section} of the answer was not offered; answer with the offer's sections and mids, in its order")]
    NotOffered {
        /// Its number, from 1.
        section: usize,
    },
    /// Two sections with one mid.
    #[error("the answer has two sections with the mid {mid:?}")]
    RepeatedMid {
        /// The mid.
        mid: String,
    },
    /// The section is about something else than the one offered.
    #[error("section {mid:?} is not {expected}, which was offered")]
    Kind {
        /// Its mid.
        mid: String,
        /// What was offered.
        expected: &'static str,
    },
    /// No data channel.
    #[error("the answer rejects or lacks the section \"data\"; a call needs its data channel")]
    NoDataChannel,
    /// A section that sends or receives without a usable payload type.
    #[error("section {mid:?} has no payload type with a=rtpmap in its m= line")]
    NoPayloadType {
        /// Its mid.
        mid: String,
    },
    /// Nothing says which packets are this section's.
    #[error("section {mid:?} sends, but says neither a=ssrc nor, for layers, a=rid with send")]
    NoStream {
        /// Its mid.
        mid: String,
    },
    /// Layers cannot be told apart.
    #[error("section {mid:?} sends layers without the header extension urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id")]
    NoRidExtension {
        /// Its mid.
        mid: String,
    },
    /// `a=simulcast` and `a=rid` do not fit.
    #[error("section {mid:?} must name each rid of a=simulcast:send once, with its own a=rid, at most {most} in all")]
    Layers {
        /// Its mid.
        mid: String,
        /// [`Source::MAX_LAYERS`].
        most: usize,
    },
    /// Two header extensions with one id, or one with two.
    #[error("section {mid:?} gives header extension id {id} another meaning than the sections it is bundled with")]
    Extensions {
        /// Its mid.
        mid: String,
        /// The id.
        id: u8,
    },
    /// Two streams with one SSRC.
    #[error("section {mid:?} uses an SSRC that another stream of the description has")]
    RepeatedSsrc {
        /// Its mid.
        mid: String,
    },
}

/// Reads a client's answer to an offer.
///
/// Sections are found by their mids, and by their places where mids are missing. A slot without a section counts as
/// not accepted. `limits` bound the text.
///
/// # Errors
/// See [`AnswerError`].
pub fn answer(text: &str, offered: &Offered, limits: &sdp::Limits) -> Result<WireAnswer, AnswerError> {
    let description = SessionDescription::parse_within(text, limits)?;
    let remote = description.remote_description()?;
    if remote.setup == Setup::ActPass {
        return Err(AnswerError::Undecided);
    }
    let sections = Sections::of(&description, offered)?;
    if sections.find(DATA_MID, &MediaKind::Application)?.is_none_or(Media::rejected) {
        return Err(AnswerError::NoDataChannel);
    }
    let mut agreed = Agreed::default();
    let sends = |media: &Media| !media.rejected() && description.direction(media).sends();
    let receives = |media: &Media| !media.rejected() && description.direction(media).receives();
    let audio = match sections.find(AUDIO_MID, &MediaKind::Audio)? {
        Some(media) if sends(media) => Some(audio_in(media, &mut agreed)?),
        _ => None,
    };
    let video = match sections.find(VIDEO_MID, &MediaKind::Video)? {
        Some(media) if sends(media) => Some(video_in(media, &mut agreed)?),
        _ => None,
    };
    if let (Some(audio), Some(VideoIn { streams: VideoStreams::Ssrc { ssrc, rtx }, .. })) = (&audio, &video)
        && (*ssrc == audio.ssrc || *rtx == Some(audio.ssrc) || *rtx == Some(*ssrc))
    {
        return Err(AnswerError::RepeatedSsrc { mid: VIDEO_MID.to_owned() });
    }
    let mut slots = Vec::new();
    for at in 1..=offered.audio + offered.video {
        let kind = if at <= offered.audio { MediaKind::Audio } else { MediaKind::Video };
        let mid = at.to_string();
        slots.push(match sections.find(&mid, &kind)? {
            Some(media) if receives(media) => slot(&mid, media, &mut agreed)?,
            _ => SlotAnswer::default(),
        });
    }
    let video_slots = slots.split_off(offered.audio);
    Ok(WireAnswer { remote, audio, video, audio_slots: slots, video_slots, extensions: agreed.ids })
}

/// The answer's sections by the mids they were offered with.
struct Sections<'a>(HashMap<String, &'a Media>);

impl<'a> Sections<'a> {
    fn of(description: &'a SessionDescription, offered: &Offered) -> Result<Sections<'a>, AnswerError> {
        let fixed = [AUDIO_MID, VIDEO_MID, DATA_MID].map(str::to_owned);
        let mids: Vec<String> =
            fixed.into_iter().chain((1..=offered.audio + offered.video).map(|at| at.to_string())).collect();
        let mut sections = HashMap::new();
        for (at, media) in description.media.iter().enumerate() {
            let mid = match media.mid() {
                Some(mid) => mids.iter().find(|known| *known == mid),
                None => mids.get(at),
            };
            let mid = mid.ok_or(AnswerError::NotOffered { section: at + 1 })?;
            if sections.insert(mid.clone(), media).is_some() {
                return Err(AnswerError::RepeatedMid { mid: mid.clone() });
            }
        }
        Ok(Sections(sections))
    }

    fn find(&self, mid: &str, kind: &MediaKind) -> Result<Option<&'a Media>, AnswerError> {
        match self.0.get(mid) {
            Some(media) if media.kind != *kind => Err(AnswerError::Kind {
                mid: mid.to_owned(),
                expected: match kind {
                    MediaKind::Audio => "audio",
                    MediaKind::Video => "video",
                    _ => "a data channel",
                },
            }),
            section => Ok(section.copied()),
        }
    }
}

fn audio_in(media: &Media, agreed: &mut Agreed) -> Result<AudioIn, AnswerError> {
    let (payload_types, clock_rate) = payload_types(AUDIO_MID, media)?;
    let ssrc = media.ssrcs().next().ok_or(AnswerError::NoStream { mid: AUDIO_MID.to_owned() })?;
    let extensions = agreed.add(AUDIO_MID, media)?;
    Ok(AudioIn { ssrc, feedback: feedback(media, &payload_types), payload_types, clock_rate, extensions })
}

fn video_in(media: &Media, agreed: &mut Agreed) -> Result<VideoIn, AnswerError> {
    let (payload_types, clock_rate) = payload_types(VIDEO_MID, media)?;
    let extensions = agreed.add(VIDEO_MID, media)?;
    let rtx: Vec<(u8, u8)> = media.rtx().collect();
    let rids = rids(media)?;
    let streams = if rids.is_empty() {
        let ssrc = media.ssrcs().next().ok_or(AnswerError::NoStream { mid: VIDEO_MID.to_owned() })?;
        VideoStreams::Ssrc { ssrc, rtx: media.repairing(ssrc).filter(|_| !rtx.is_empty()) }
    } else if extensions.rid.is_none() {
        return Err(AnswerError::NoRidExtension { mid: VIDEO_MID.to_owned() });
    } else {
        VideoStreams::Rids(rids)
    };
    let feedback = feedback(media, &payload_types);
    Ok(VideoIn { streams, payload_types, rtx, clock_rate, feedback, extensions })
}

/// Rids the client sends, lowest layer first; empty without layers.
fn rids(media: &Media) -> Result<Vec<String>, AnswerError> {
    let refused = || AnswerError::Layers { mid: VIDEO_MID.to_owned(), most: Source::MAX_LAYERS };
    let sent: Vec<&str> =
        media.rids().filter(|rid| rid.direction == RidDirection::Send).map(|rid| rid.id.as_str()).collect();
    let mut rids: Vec<&str> = match media.simulcast() {
        // Of alternatives the first is what a sender prefers.
        Some(simulcast) => {
            simulcast.send.iter().filter_map(|stream| stream.first()).map(|one| one.rid.as_str()).collect()
        }
        None => sent.clone(),
    };
    // Clients list layers in either order; unknown ones count as above the known.
    rids.sort_by_key(|rid| [LOW_RID, HIGH_RID].iter().position(|known| known == rid).unwrap_or(2));
    let mut unique = rids.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() != rids.len() || rids.len() > Source::MAX_LAYERS || rids.iter().any(|rid| !sent.contains(rid)) {
        return Err(refused());
    }
    Ok(rids.into_iter().map(str::to_owned).collect())
}

fn slot(mid: &str, media: &Media, agreed: &mut Agreed) -> Result<SlotAnswer, AnswerError> {
    let (payload_types, _) = payload_types(mid, media)?;
    Ok(SlotAnswer {
        accepted: true,
        feedback: feedback(media, &payload_types),
        rtx: media.rtx().map(|(rtx, repaired)| (repaired, rtx)).collect(),
        extensions: agreed.add(mid, media)?,
        payload_types,
    })
}

/// Payload types other than RTX, and the clock rate of the first.
fn payload_types(mid: &str, media: &Media) -> Result<(Vec<u8>, u32), AnswerError> {
    let refused = || AnswerError::NoPayloadType { mid: mid.to_owned() };
    let known = |at: &u8| media.codec(*at).is_some() && !media.is(*at, "rtx");
    let payload_types: Vec<u8> = media.payload_types().filter(known).collect();
    let first = payload_types.first().and_then(|first| media.codec(*first)).ok_or_else(refused)?;
    // The table takes no other clock rates.
    let clock_rate = Some(first.clock_rate).filter(|rate| (1..=1_000_000).contains(rate)).ok_or_else(refused)?;
    Ok((payload_types, clock_rate))
}

fn feedback(media: &Media, payload_types: &[u8]) -> FeedbackIn {
    let any = |message: &str| payload_types.iter().any(|at| media.feedback(*at, message));
    FeedbackIn {
        nack: any("nack"),
        pli: any("nack pli"),
        fir: any("ccm fir"),
        transport_cc: any("transport-cc"),
        remb: any("goog-remb"),
    }
}

/// Header extensions agreed so far. Bundled sections share one space of ids (RFC 8285 §5, RFC 9143 §9.1).
#[derive(Default)]
struct Agreed {
    ids: ExtensionIds,
    uris: BTreeMap<u8, String>,
}

impl Agreed {
    /// Adds a section's, and returns them.
    fn add(&mut self, mid: &str, media: &Media) -> Result<ExtensionIds, AnswerError> {
        let mut ids = ExtensionIds::default();
        for extension in media.extensions() {
            let Ok(id) = u8::try_from(extension.id) else { continue };
            if extension.direction == Some(Direction::Inactive) {
                continue;
            }
            if self.uris.entry(id).or_insert_with(|| extension.uri.clone()) != &extension.uri {
                return Err(AnswerError::Extensions { mid: mid.to_owned(), id });
            }
            for ids in [&mut ids, &mut self.ids] {
                let Some(place) = place(ids, &extension.uri) else { continue };
                if place.is_some_and(|known| known != id) {
                    return Err(AnswerError::Extensions { mid: mid.to_owned(), id });
                }
                *place = Some(id);
            }
        }
        Ok(ids)
    }
}

/// Where a known extension's id goes.
fn place<'a>(ids: &'a mut ExtensionIds, uri: &str) -> Option<&'a mut Option<u8>> {
    Some(match uri {
        "urn:ietf:params:rtp-hdrext:sdes:mid" => &mut ids.mid,
        "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" => &mut ids.rid,
        "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id" => &mut ids.repaired_rid,
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level" => &mut ids.audio_level,
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01" => &mut ids.transport_cc,
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time" => &mut ids.abs_send_time,
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension" => {
            &mut ids.dependency_descriptor
        }
        "http://www.webrtc.org/experiments/rtp-hdrext/generic-frame-descriptor-00" => &mut ids.frame_descriptor,
        "urn:3gpp:video-orientation" => &mut ids.video_orientation,
        _ => return None,
    })
}
