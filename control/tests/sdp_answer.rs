//! Answers of real peers to recorded offers, and answers that are refused.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;

use sluice_control::dialect::wire::answer::{AnswerError, FeedbackIn, VideoStreams, WireAnswer, answer};
use sluice_control::dialect::wire::offer::Offered;
use sluice_control::sdp::{Limits, SdpError};
use sluice_control::transport::Setup;
use sluice_table::{ExtensionIds, Ssrc};

const OFFERED: Offered = Offered { audio: 5, video: 9, simulcast: true };
const BARE: Offered = Offered { audio: 0, video: 0, simulcast: false };

fn text(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/sdp/{name}.sdp", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn read(name: &str) -> WireAnswer {
    answer(&text(name), &OFFERED, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn layers() -> VideoStreams {
    VideoStreams::Rids(vec!["l".to_owned(), "h".to_owned()])
}

const ALL: FeedbackIn = FeedbackIn { nack: true, pli: true, fir: true, transport_cc: true, remb: false };

/// Takes every slot with everything offered.
fn takes_all(answer: &WireAnswer) {
    assert_eq!((answer.audio_slots.len(), answer.video_slots.len()), (5, 9));
    for slot in &answer.audio_slots {
        assert!(slot.accepted && slot.payload_types == [111] && slot.rtx.is_empty());
        assert!(slot.feedback.transport_cc && slot.extensions.audio_level == Some(1));
    }
    for slot in &answer.video_slots {
        assert!(slot.accepted && slot.payload_types == [100]);
        assert_eq!((slot.rtx.as_slice(), slot.feedback), ([(100, 101)].as_slice(), ALL));
    }
}

#[test]
fn wire_client_with_layers() {
    let answer = read("wire-answer");
    let audio = answer.audio.as_ref().unwrap();
    assert_eq!(
        (audio.ssrc, audio.payload_types.as_slice(), audio.clock_rate),
        (Ssrc(2_731_971_888), [111].as_slice(), 48_000)
    );
    let video = answer.video.as_ref().unwrap();
    assert_eq!(
        (&video.streams, video.payload_types.as_slice(), video.clock_rate),
        (&layers(), [100].as_slice(), 90_000)
    );
    assert_eq!((video.rtx.as_slice(), video.feedback), ([(101, 100)].as_slice(), ALL));
    takes_all(&answer);
    let expected = ExtensionIds {
        audio_level: Some(1),
        abs_send_time: Some(2),
        transport_cc: Some(3),
        rid: Some(4),
        repaired_rid: Some(5),
        frame_descriptor: Some(11),
        ..ExtensionIds::default()
    };
    assert_eq!(answer.extensions, expected);
    assert_eq!(answer.video_slots[0].extensions.rid, None);

    let remote = &answer.remote;
    assert_eq!(
        (remote.setup, remote.credentials.ufrag.as_str(), remote.max_message_size),
        (Setup::Active, "DJkU", 262_144)
    );
    // TCP is left out.
    let addresses: Vec<SocketAddr> = remote.candidates.iter().map(|candidate| candidate.address).collect();
    assert_eq!(addresses, ["192.0.2.21:44877".parse().unwrap()]);
}

#[test]
fn wire_client_without_layers() {
    let answer = read("wire-answer-single");
    let streams = VideoStreams::Ssrc { ssrc: Ssrc(3_469_850_777), rtx: Some(Ssrc(388_627_880)) };
    assert_eq!(answer.video.as_ref().unwrap().streams, streams);
    takes_all(&answer);
}

#[test]
fn chromium() {
    let answer = read("chromium-answer-wire");
    assert_eq!(answer.video.as_ref().unwrap().streams, layers());
    assert_eq!(answer.remote.candidates.len(), 2);
    takes_all(&answer);

    let single = read("chromium-answer-wire-single");
    let streams = &single.video.as_ref().unwrap().streams;
    assert!(matches!(streams, VideoStreams::Ssrc { rtx: Some(_), .. }), "{streams:?}");
    takes_all(&single);
}

/// Who sends nothing still receives.
#[test]
fn chromium_without_devices() {
    let audio = read("chromium-answer-wire-audio");
    assert!(audio.audio.is_some() && audio.video.is_none());
    takes_all(&audio);
    let watching = read("chromium-answer-wire-watching");
    assert!(watching.audio.is_none() && watching.video.is_none());
    takes_all(&watching);
    // Tracks added before the offer is known are not put into a section that asks for layers.
    let early = read("chromium-answer-wire-early");
    assert!(early.audio.is_some() && early.video.is_none());
    takes_all(&early);
    let bare = answer(&text("chromium-answer-bare"), &BARE, &Limits::default()).unwrap();
    assert!(bare.audio.is_some() && bare.video.is_some() && bare.audio_slots.is_empty() && bare.video_slots.is_empty());
}

/// Firefox names SSRCs beside rids, limits rid extensions to one direction and knows fewer extensions.
#[test]
fn firefox() {
    let answer = read("firefox-answer-wire");
    let video = answer.video.as_ref().unwrap();
    assert_eq!(video.streams, layers());
    assert_eq!((video.extensions.rid, video.extensions.repaired_rid), (Some(4), Some(5)));
    assert_eq!((answer.extensions.frame_descriptor, answer.extensions.transport_cc), (None, Some(3)));
    assert!(answer.audio_slots.iter().chain(&answer.video_slots).all(|slot| slot.accepted));
    let single = read("firefox-answer-wire-single");
    assert!(matches!(single.video.as_ref().unwrap().streams, VideoStreams::Ssrc { rtx: Some(_), .. }));
}

/// aiortc has no layers, no transport-cc and repeats its candidates in every section.
#[test]
fn aiortc() {
    let answer = read("aiortc-answer-wire");
    let video = answer.video.as_ref().unwrap();
    assert!(matches!(video.streams, VideoStreams::Ssrc { rtx: Some(_), .. }));
    assert_eq!(video.feedback, FeedbackIn { nack: true, pli: true, ..FeedbackIn::default() });
    assert_eq!(answer.extensions.transport_cc, None);
    assert_eq!((answer.remote.candidates.len(), answer.remote.fingerprints.len()), (2, 3));
    assert!(answer.audio_slots.iter().chain(&answer.video_slots).all(|slot| slot.accepted));
    read("aiortc-answer-wire-single");
}

/// The recorded answer of a Wire client, changed.
fn changed(change: impl Fn(&str) -> Option<String>) -> Result<WireAnswer, AnswerError> {
    let lines: Vec<String> = text("wire-answer").split_inclusive('\n').filter_map(&change).collect();
    answer(&lines.concat(), &OFFERED, &Limits::default())
}

fn replaced(from: &str, to: &str) -> Result<WireAnswer, AnswerError> {
    let text = text("wire-answer");
    assert!(text.contains(from), "{from}");
    answer(&text.replace(from, to), &OFFERED, &Limits::default())
}

fn without(prefix: &str) -> Result<WireAnswer, AnswerError> {
    changed(|line| (!line.starts_with(prefix)).then(|| line.to_owned()))
}

#[test]
fn what_is_missing_is_named() {
    let missing = |prefix: &str| match without(prefix) {
        Err(AnswerError::Description(SdpError::Missing { what, .. })) => what,
        other => panic!("{prefix}: {other:?}"),
    };
    assert_eq!(missing("a=ice-ufrag"), "a=ice-ufrag");
    assert_eq!(missing("a=ice-pwd"), "a=ice-pwd");
    assert!(missing("a=fingerprint").starts_with("a=fingerprint"));
    let error = without("a=ssrc:").unwrap_err();
    assert_eq!(error, AnswerError::NoStream { mid: "audio".to_owned() });
    assert_eq!(error.to_string(), "section \"audio\" sends, but says neither a=ssrc nor, for layers, a=rid with send");
    let error = without("a=extmap:4 ").unwrap_err();
    assert_eq!(error, AnswerError::NoRidExtension { mid: "video".to_owned() });
    assert!(matches!(without("a=rid:h"), Err(AnswerError::Layers { .. })));
    assert!(matches!(without("a=rtpmap:111"), Err(AnswerError::NoPayloadType { .. })));
}

#[test]
fn what_contradicts_is_named() {
    assert_eq!(replaced("setup:active", "setup:actpass").unwrap_err(), AnswerError::Undecided);
    let error = replaced("a=mid:7\r", "a=mid:77\r").unwrap_err();
    assert_eq!(error, AnswerError::NotOffered { section: 10 });
    let error = replaced("a=mid:7\r", "a=mid:6\r").unwrap_err();
    assert_eq!(error, AnswerError::RepeatedMid { mid: "6".to_owned() });
    let error = replaced("m=application 9", "m=application 0").unwrap_err();
    assert_eq!(error, AnswerError::NoDataChannel);
    let error = replaced("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "a=extmap:3 urn:x").unwrap_err();
    assert_eq!(error, AnswerError::Extensions { mid: "video".to_owned(), id: 3 });
    let error = replaced("a=simulcast:send l;h", "a=simulcast:send l;l").unwrap_err();
    assert!(matches!(error, AnswerError::Layers { .. }));
    let error = replaced("m=application", "m=audio").unwrap_err();
    assert_eq!(error, AnswerError::Kind { mid: "data".to_owned(), expected: "a data channel" });
    let twice = text("wire-answer-single").replace("388627880", "3469850777");
    assert_eq!(
        answer(&twice, &OFFERED, &Limits::default()).unwrap_err(),
        AnswerError::RepeatedSsrc { mid: "video".to_owned() }
    );
}

/// Slots the client has no section for, rejects or pauses are not accepted; the others are.
#[test]
fn slots_may_be_refused() {
    let whole = text("wire-answer");
    let sixth = whole.find("a=mid:6\r").and_then(|at| whole[..at].rfind("m=video 9")).unwrap();
    let cut = answer(&whole[..sixth], &OFFERED, &Limits::default()).unwrap();
    assert!(cut.audio_slots.iter().all(|slot| slot.accepted));
    assert!(cut.video_slots.len() == 9 && cut.video_slots.iter().all(|slot| !slot.accepted));

    let rejected = format!("{}{}", &whole[..sixth], whole[sixth..].replacen("m=video 9", "m=video 0", 1));
    let rejected = answer(&rejected, &OFFERED, &Limits::default()).unwrap();
    let accepted: Vec<bool> = rejected.video_slots.iter().map(|slot| slot.accepted).collect();
    assert_eq!(accepted, [false, true, true, true, true, true, true, true, true]);

    let inactive = format!("{}{}", &whole[..sixth], whole[sixth..].replacen("a=recvonly", "a=inactive", 1));
    assert!(!answer(&inactive, &OFFERED, &Limits::default()).unwrap().video_slots[0].accepted);
}

/// Each slot says for itself what it agreed to.
#[test]
fn feedback_is_per_section() {
    let answer = changed(|line| (!line.starts_with("a=rtcp-fb:100 nack")).then(|| line.to_owned())).unwrap();
    let feedback = answer.video_slots[8].feedback;
    assert_eq!(feedback, FeedbackIn { fir: true, transport_cc: true, ..FeedbackIn::default() });
    let answer = changed(|line| (line != "a=fmtp:101 apt=100\r\n").then(|| line.to_owned())).unwrap();
    assert!(answer.video_slots.iter().all(|slot| slot.rtx.is_empty()) && answer.video.unwrap().rtx.is_empty());
}

/// What is listed and not known goes through: the codec is the conference's business.
#[test]
fn unknown_codecs_pass_through() {
    let answer = replaced("VP8/90000", "H267/90000").unwrap();
    assert_eq!(answer.video.unwrap().payload_types, [100]);
}
