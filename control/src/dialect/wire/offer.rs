//! The description the SFU offers to one client: where to send, and one section for every stream it may be sent.
//! Never reads what the client answers; [`super::answer`] does.

use std::net::SocketAddr;

use sluice_table::Ssrc;

use crate::sdp::{
    Alternative, Attribute, Direction, Extmap, Group, Media, MediaKind, Msid, Password, Rid, RidDirection,
    RtcpFeedback, Rtpmap, SessionDescription, Simulcast, SsrcAttribute, SsrcGroup,
};
use crate::transport::{Candidate, CandidateKind, Credentials, Fingerprint, Setup};

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

/// Header extensions of an offer: clients answer with the ids offered.
pub const EXTENSIONS: [(u8, &str); 6] = [
    (1, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
    (2, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
    (3, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"),
    (4, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
    (5, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"),
    (11, "http://www.webrtc.org/experiments/rtp-hdrext/generic-frame-descriptor-00"),
];

/// Largest data channel message we take, in bytes; the same as browsers.
pub const MAX_MESSAGE_SIZE: u64 = 262_144;

/// Writes the offer of an SFU to one client: where it sends (mids `audio`, `video` and `data`), then a sendonly section
/// for each stream it may be sent, all bundled. We are the ICE offerer and accept either DTLS role.
pub fn offer(parameters: &OfferParameters<'_>) -> String {
    let mut description = SessionDescription::new(parameters.session_id, parameters.session_version);
    let slots = parameters.audio.len() + parameters.video.len();
    let mids = [AUDIO_MID, VIDEO_MID, DATA_MID].into_iter().map(str::to_owned);
    let mids = mids.chain((1..=slots).map(|at| at.to_string())).collect();
    description.attributes = vec![
        // From the configuration: more than one line would be lines of the description.
        Attribute::Tool(parameters.tool.lines().next().unwrap_or_default().to_owned()),
        Attribute::ExtmapAllowMixed,
        Attribute::IceOptions(vec!["trickle".to_owned()]),
        Attribute::Group(Group { semantics: "BUNDLE".to_owned(), mids }),
    ];
    description.media = vec![audio_in(parameters), video_in(parameters), data(parameters)];
    for (at, slot) in parameters.audio.iter().enumerate() {
        description.media.push(audio_out(parameters, slot, at + 1));
    }
    for (at, slot) in parameters.video.iter().enumerate() {
        description.media.push(video_out(parameters, slot, parameters.audio.len() + at + 1));
    }
    description.to_string()
}

const RTP: &str = "UDP/TLS/RTP/SAVPF";

fn section(parameters: &OfferParameters<'_>, kind: MediaKind, protocol: &str, formats: &[&str], mid: &str) -> Media {
    let mut media = Media::new(kind, protocol, formats);
    media.attributes = vec![
        Attribute::Mid(mid.to_owned()),
        Attribute::IceUfrag(parameters.credentials.ufrag.clone()),
        Attribute::IcePassword(Password(parameters.credentials.password.clone())),
        Attribute::Fingerprint(parameters.fingerprint.clone()),
        Attribute::Setup(Setup::ActPass),
    ];
    media
}

fn audio(parameters: &OfferParameters<'_>, mid: &str, direction: Direction, extensions: &[u8]) -> Media {
    let mut media = section(parameters, MediaKind::Audio, RTP, &["111"], mid);
    media.attributes.extend([Attribute::Direction(direction), Attribute::RtcpMux]);
    media.attributes.extend(extensions.iter().filter_map(|id| extension(*id)));
    media.attributes.extend([
        rtpmap(OPUS, "opus", 48_000, Some("2")),
        // Clients ask for constant bit rate behind exactly this end.
        fmtp(OPUS, "stereo=0;sprop-stereo=0;useinbandfec=1"),
        feedback(OPUS, "transport-cc"),
        Attribute::Ptime(40),
    ]);
    media
}

fn video(parameters: &OfferParameters<'_>, mid: &str, direction: Direction, extensions: &[u8]) -> Media {
    let mut media = section(parameters, MediaKind::Video, RTP, &["100", "101"], mid);
    media.attributes.extend([Attribute::Direction(direction), Attribute::RtcpMux, Attribute::RtcpRsize]);
    media.attributes.extend(extensions.iter().filter_map(|id| extension(*id)));
    media.attributes.push(rtpmap(VP8, "VP8", 90_000, None));
    let messages = ["transport-cc", "ccm fir", "nack", "nack pli"];
    media.attributes.extend(messages.map(|message| feedback(VP8, message)));
    media.attributes.extend([rtpmap(VP8_RTX, "rtx", 90_000, None), fmtp(VP8_RTX, "apt=100")]);
    media
}

fn audio_in(parameters: &OfferParameters<'_>) -> Media {
    let mut media = audio(parameters, AUDIO_MID, Direction::RecvOnly, &[1, 2, 3]);
    let candidates = host_candidates(parameters.candidates);
    media.attributes.extend(candidates.iter().map(|candidate| Attribute::Candidate(candidate.into())));
    if !candidates.is_empty() {
        media.attributes.push(Attribute::EndOfCandidates);
    }
    media
}

fn video_in(parameters: &OfferParameters<'_>) -> Media {
    let mut media = video(parameters, VIDEO_MID, Direction::RecvOnly, &[2, 3, 4, 5, 11]);
    // Nothing is sent here. Without an msid beside the ones of the slots' SSRCs some builds of Chromium answer without
    // layers; 156 does not need it.
    media.attributes.push(Attribute::Msid(Msid { stream: "-".to_owned(), track: Some("vtrack".to_owned()) }));
    if parameters.simulcast {
        for id in [LOW_RID, HIGH_RID] {
            let rid = Rid { id: id.to_owned(), direction: RidDirection::Recv, restrictions: None };
            media.attributes.push(Attribute::Rid(rid));
        }
        let stream = |rid: &str| vec![Alternative { rid: rid.to_owned(), paused: false }];
        let recv = vec![stream(LOW_RID), stream(HIGH_RID)];
        media.attributes.push(Attribute::Simulcast(Simulcast { send: Vec::new(), recv }));
    }
    media
}

fn data(parameters: &OfferParameters<'_>) -> Media {
    let mut media = section(parameters, MediaKind::Application, "UDP/DTLS/SCTP", &["webrtc-datachannel"], DATA_MID);
    media.attributes.extend([Attribute::SctpPort(5000), Attribute::MaxMessageSize(MAX_MESSAGE_SIZE)]);
    media
}

fn audio_out(parameters: &OfferParameters<'_>, slot: &AudioSlot, mid: usize) -> Media {
    let mut media = audio(parameters, &mid.to_string(), Direction::SendOnly, &[1, 2, 3]);
    announce(&mut media, slot.ssrc, &slot.label);
    media
}

fn video_out(parameters: &OfferParameters<'_>, slot: &VideoSlot, mid: usize) -> Media {
    let mut media = video(parameters, &mid.to_string(), Direction::SendOnly, &[2, 3, 11]);
    let ssrcs = vec![slot.ssrc, slot.rtx_ssrc];
    media.attributes.push(Attribute::SsrcGroup(SsrcGroup { semantics: "FID".to_owned(), ssrcs }));
    announce(&mut media, slot.ssrc, &slot.label);
    announce(&mut media, slot.rtx_ssrc, &slot.label);
    media
}

/// Clients find the track of an SSRC by the msid of the SSRC, not by that of the section.
fn announce(media: &mut Media, ssrc: Ssrc, label: &str) {
    for attribute in [format!("cname:{label}"), format!("msid:{label} {label}")] {
        media.attributes.push(Attribute::Ssrc(SsrcAttribute { ssrc, attribute: Some(attribute) }));
    }
}

/// Host candidates of RFC 8445 §5.1.2.1: the first address is preferred.
fn host_candidates(addresses: &[SocketAddr]) -> Vec<Candidate> {
    let numbered = addresses.iter().zip((1..=65_535_u32).rev()).enumerate();
    numbered
        .map(|(at, (address, preference))| Candidate {
            address: *address,
            kind: CandidateKind::Host,
            priority: (126 << 24) | (preference << 8) | 255,
            foundation: (at + 1).to_string(),
        })
        .collect()
}

fn extension(id: u8) -> Option<Attribute> {
    let (id, uri) = EXTENSIONS.iter().find(|(at, _)| *at == id)?;
    Some(Attribute::Extmap(Extmap { id: u16::from(*id), direction: None, uri: (*uri).to_owned(), attributes: None }))
}

fn rtpmap(payload_type: u8, encoding: &str, clock_rate: u32, channels: Option<&str>) -> Attribute {
    let (encoding, channels) = (encoding.to_owned(), channels.map(str::to_owned));
    Attribute::Rtpmap(Rtpmap { payload_type, encoding, clock_rate, channels })
}

fn fmtp(payload_type: u8, parameters: &str) -> Attribute {
    Attribute::Fmtp { format: payload_type.to_string(), parameters: parameters.to_owned() }
}

fn feedback(payload_type: u8, message: &str) -> Attribute {
    Attribute::RtcpFeedback(RtcpFeedback { payload_type: Some(payload_type), value: message.to_owned() })
}
