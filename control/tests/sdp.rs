//! Session descriptions of real peers, read and written back, and mangled.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sluice_control::dialect::wire::answer::answer;
use sluice_control::dialect::wire::offer::Offered;
use sluice_control::sdp::{
    Alternative, Attribute, CandidateLine, Direction, Limits, MediaKind, RidDirection, SdpError, SessionDescription,
};
use sluice_control::transport::{CandidateKind, HashFunction, Setup};

fn corpora() -> Vec<(String, String)> {
    let directory = format!("{}/tests/sdp", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut corpora: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "sdp"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    corpora.sort();
    assert!(corpora.len() >= 19, "corpora are missing: {}", corpora.len());
    corpora
}

fn corpus(name: &str) -> SessionDescription {
    let (_, text) = corpora().into_iter().find(|(found, _)| found == name).unwrap();
    SessionDescription::parse(&text).unwrap()
}

/// Wraps attribute lines into a description.
fn with(lines: &str) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{lines}")
}

fn first(line: &str) -> Result<Attribute, SdpError> {
    SessionDescription::parse(&with(line)).map(|mut description| description.attributes.remove(0))
}

/// Nothing of what real peers say is lost: their lines come out as they went in.
#[test]
fn real_descriptions_are_written_as_they_were_read() {
    for (name, text) in corpora() {
        let description = SessionDescription::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = description.to_string();
        assert_eq!(SessionDescription::parse(&written).as_ref(), Ok(&description), "{name}");
        let differs = text.lines().zip(written.lines()).find(|(read, wrote)| read != wrote);
        assert_eq!(written, text, "{name}: {differs:?}");
    }
}

/// Line ends may be LF; the last may be missing.
#[test]
fn line_ends_do_not_matter() {
    for (name, text) in corpora() {
        let description = SessionDescription::parse(&text).unwrap();
        assert_eq!(SessionDescription::parse(&text.replace("\r\n", "\n")).as_ref(), Ok(&description), "{name}");
        assert_eq!(SessionDescription::parse(text.trim_end()).as_ref(), Ok(&description), "{name}");
        assert!(!description.to_string().replace("\r\n", "").contains(['\r', '\n']), "{name}");
    }
}

#[test]
fn chromium_offer_with_layers() {
    let description = corpus("chromium-offer-simulcast");
    let video = &description.media[0];
    assert_eq!((&video.kind, description.direction(video)), (&MediaKind::Video, Direction::SendOnly));
    let rids: Vec<_> = video.rids().map(|rid| (rid.id.as_str(), rid.direction)).collect();
    assert_eq!(rids, [("q", RidDirection::Send), ("h", RidDirection::Send), ("f", RidDirection::Send)]);
    let send = &video.simulcast().unwrap().send;
    let sent: Vec<_> = send.iter().map(|stream| stream[0].rid.as_str()).collect();
    assert_eq!(sent, ["q", "h", "f"]);
    let vp8 = video.payload_types().find(|at| video.is(*at, "vp8")).unwrap();
    assert!(video.rtx().any(|(_, repaired)| repaired == vp8));
    assert!(video.feedback(vp8, "nack pli") && !video.feedback(vp8, "ccm tmmbr"));
    let remote = description.remote_description().unwrap();
    assert_eq!((remote.setup, remote.max_message_size), (Setup::ActPass, 65_536));
    assert_eq!(remote.fingerprints[0].hash, HashFunction::Sha256);
}

#[test]
fn chromium_offer_without_media() {
    let description = corpus("chromium-offer-data");
    assert_eq!((description.media.len(), &description.media[0].kind), (1, &MediaKind::Application));
    assert_eq!(description.remote_description().unwrap().max_message_size, 262_144);
}

/// Firefox says what its transport is at the session's level.
#[test]
fn firefox_offer() {
    let description = corpus("firefox-offer");
    let remote = description.remote_description().unwrap();
    assert_eq!((remote.fingerprints.len(), remote.max_message_size), (1, 1_073_741_823));
    assert!(remote.candidates.iter().all(|candidate| candidate.kind == CandidateKind::Host));
    assert!(!remote.candidates.is_empty());
}

#[test]
fn aiortc_offer() {
    let remote = corpus("aiortc-offer").remote_description().unwrap();
    let hashes: Vec<_> = remote.fingerprints.iter().map(|fingerprint| fingerprint.hash).collect();
    assert_eq!(hashes, [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512]);
}

#[test]
fn simulcast_has_pauses_and_alternatives() {
    let Ok(Attribute::Simulcast(simulcast)) = first("a=simulcast: recv a;~b,c send d") else { panic!("not read") };
    let one = |rid: &str, paused| Alternative { rid: rid.to_owned(), paused };
    assert_eq!(simulcast.recv, [vec![one("a", false)], vec![one("b", true), one("c", false)]]);
    assert_eq!(simulcast.send, [vec![one("d", false)]]);
    assert_eq!(simulcast.to_string(), "send d recv a;~b,c");
    let many = format!("send a{}", ";a".repeat(64));
    for wrong in ["send", "send a send b", "sendrecv a", "send a;;b", "send ~~a", "", "send a recv", &many] {
        let error = first(&format!("a=simulcast:{wrong}")).unwrap_err();
        assert!(matches!(error, SdpError::Malformed { line: 5, what: "a=simulcast", .. }), "{wrong}: {error}");
    }
}

#[test]
fn candidates_of_other_kinds_are_left_out() {
    let line = |text: &str| CandidateLine::parse(text).unwrap();
    let usable = |text: &str| line(text).candidate().map(|candidate| (candidate.address.to_string(), candidate.kind));
    assert_eq!(
        usable("candidate:842163049 1 udp 1677729535 203.0.113.9 43333 typ srflx raddr 10.0.0.2 rport 5 generation 0"),
        Some(("203.0.113.9:43333".to_owned(), CandidateKind::ServerReflexive))
    );
    assert_eq!(
        usable("1 1 UDP 7 2001:db8::7 9 typ relay"),
        Some(("[2001:db8::7]:9".to_owned(), CandidateKind::Relayed))
    );
    for unusable in [
        "1 1 udp 7 6f1f0a52-0000-4000-8000-000000000001.local 9 typ host",
        "1 1 tcp 7 192.0.2.1 9 typ host tcptype active",
        "1 2 udp 7 192.0.2.1 9 typ host",
        "1 1 udp 0 192.0.2.1 9 typ host",
        "1 1 udp 7 192.0.2.1 0 typ host",
        "1 1 udp 7 0.0.0.0 9 typ host",
        "1 1 udp 7 255.255.255.255 9 typ host",
        "1 1 udp 7 ff02::1 9 typ host",
        "1 1 udp 7 192.0.2.1 9 typ other",
    ] {
        assert_eq!(usable(unusable), None, "{unusable}");
        assert_eq!(line(&line(unusable).to_string()), line(unusable));
    }
    for wrong in
        ["", "1 1 udp 7 192.0.2.1 9 host", "1 1 udp -7 192.0.2.1 9 typ host", "1 1 udp 7 192.0.2.1 65536 typ host"]
    {
        assert!(CandidateLine::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn lines_that_cannot_be_read_are_named() {
    for (line, what) in [
        ("a=ice-ufrag:abc", "a=ice-ufrag"),
        ("a=ice-ufrag:a:b:c", "a=ice-ufrag"),
        ("a=ice-pwd:short", "a=ice-pwd"),
        ("a=setup:both", "a=setup"),
        ("a=fingerprint:sha-256 AB:CD", "a=fingerprint"),
        ("a=fingerprint:sha-256 +A", "a=fingerprint"),
        ("a=rtpmap:128 VP8/90000", "a=rtpmap"),
        ("a=rtpmap:96 VP8", "a=rtpmap"),
        ("a=fmtp:96", "a=fmtp"),
        ("a=rtcp-fb:96", "a=rtcp-fb"),
        ("a=extmap:0 urn:x", "a=extmap"),
        ("a=extmap:256 urn:x", "a=extmap"),
        ("a=extmap:1/both urn:x", "a=extmap"),
        ("a=ssrc:4294967296 cname:x", "a=ssrc"),
        ("a=ssrc-group:FID 1 x", "a=ssrc-group"),
        ("a=rid:a both", "a=rid"),
        ("a=candidate:1 1 udp", "a=candidate"),
        ("a=sctp-port:65536", "a=sctp-port"),
        ("a=max-message-size:-1", "a=max-message-size"),
        ("a=:x", "a="),
        ("m=audio x RTP/AVP 0", "m="),
        ("nothing", "the line"),
        ("A=x", "the line"),
        ("a=x\0y", "the line"),
        ("a=x\ry", "the line"),
    ] {
        match SessionDescription::parse(&with(line)) {
            Err(SdpError::Malformed { line: 5, what: named, expected }) => {
                assert_eq!(named, what, "{line}");
                assert!(!expected.is_empty());
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    let error = SessionDescription::parse("o=- 1 1 IN IP4 0\r\n").unwrap_err();
    assert_eq!(error.to_string(), "line 1: the first line cannot be read; expected v=0");
    assert!(matches!(SessionDescription::parse(""), Err(SdpError::Missing { what: "v=0", .. })));
    assert!(matches!(SessionDescription::parse("v=0\n"), Err(SdpError::Missing { what: "o=", .. })));
    assert!(matches!(SessionDescription::parse(&with("s=x")), Err(SdpError::Repeated { line: 5, what: "s=" })));
}

/// What is not known, or known only in another form, passes through word for word.
#[test]
fn unknown_lines_pass_through() {
    let lines = "a=x-google-flag:conference\r\na=rtcp-mux:x\r\na=extmap-allow-mixed:true\r\na=fingerprint:sha-1 AB\r\n\
                 a=ptime:2.5\r\na=unknown\r\nm=text 9 X/Y z\r\ni=a title\r\nz=1 2\r\na=odd: value \r\n";
    let description = SessionDescription::parse(&with(lines)).unwrap();
    assert_eq!(description.attributes.len(), 6);
    assert!(description.attributes.iter().all(|attribute| matches!(attribute, Attribute::Other { .. })));
    assert_eq!(description.to_string(), with(lines));
}

#[test]
fn sizes_are_bounded() {
    let limits = Limits { bytes: 2_000, lines: 30, media: 2, candidates: 2, formats: 3, fingerprints: 1 };
    let parse = |lines: &str| SessionDescription::parse_within(&with(lines), &limits);
    let long = format!("a=x:{}", "y".repeat(2_000));
    assert!(matches!(parse(&long), Err(SdpError::TooLong { limit: 2_000, .. })));
    assert!(parse(&"a=x\n".repeat(26)).is_ok());
    assert!(matches!(parse(&"a=x\n".repeat(27)), Err(SdpError::TooMany { line: 31, what: "lines", limit: 30 })));
    let error = parse(&"m=audio 9 X 0\n".repeat(3)).unwrap_err();
    assert_eq!(error.to_string(), "line 7: more than 2 media sections; send fewer");
    let candidate = |port| format!("a=candidate:1 1 udp 7 192.0.2.1 {port} typ host\n");
    let three = [1, 2, 3].map(candidate).concat();
    assert!(matches!(parse(&three), Err(SdpError::TooMany { line: 7, what: "candidates", limit: 2 })));
    assert!(parse(&candidate(1).repeat(5)).is_ok(), "the same one again does not count");
    assert!(matches!(parse("m=audio 9 X 0 1 2 3"), Err(SdpError::TooMany { line: 5, limit: 3, .. })));
    let fingerprint = |byte: &str| format!("a=fingerprint:sha-256 {}{byte}\n", "00:".repeat(31));
    assert!(parse(&fingerprint("01").repeat(3)).is_ok());
    let two = fingerprint("01") + &fingerprint("02");
    assert!(matches!(parse(&two), Err(SdpError::TooMany { line: 6, what: "fingerprints", limit: 1 })));
}

/// A password is in the text that is sent, and nowhere else.
#[test]
fn passwords_are_not_printed() {
    let password = "abcdefghijklmnopqrstuvwx";
    let description = SessionDescription::parse(&with(&format!("a=ice-pwd:{password}"))).unwrap();
    assert!(!format!("{description:?}").contains(password));
    assert!(description.to_string().contains(password));
    let error = SessionDescription::parse(&with(&format!("a=ice-pwd:{password}!"))).unwrap_err();
    assert!(!format!("{error:?} {error}").contains(password));
}

#[test]
fn bundled_sections_share_one_transport() {
    let (_, text) = corpora().into_iter().find(|(name, _)| name == "chromium-offer").unwrap();
    let description = SessionDescription::parse(&text).unwrap();
    let whole = description.remote_description().unwrap();
    // At the session's level alone, or in the first section alone.
    let own = |line: &&str| {
        ["a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=setup"].iter().any(|name| line.starts_with(name))
    };
    let shared: Vec<&str> = text.lines().filter(own).take(4).collect();
    let rest: Vec<&str> = text.lines().filter(|line| !own(line)).collect();
    let at = rest.iter().position(|line| line.starts_with("m=")).unwrap();
    for at in [at, at + 1] {
        let moved = [&rest[..at], &shared[..], &rest[at..]].concat().join("\n");
        assert_eq!(SessionDescription::parse(&moved).unwrap().remote_description().as_ref(), Ok(&whole));
    }
    let last = text.rfind("a=setup:actpass").unwrap();
    let differing = format!("{}{}", &text[..last], text[last..].replace("setup:actpass", "setup:passive"));
    let error = SessionDescription::parse(&differing).unwrap().remote_description().unwrap_err();
    assert_eq!(error, SdpError::Contradiction { mid: "2".to_owned(), what: "a=setup" });
}

/// A section speaks once, however often its group names it; mids nobody has are left out.
#[test]
fn a_group_may_repeat_mids() {
    let (_, text) = corpora().into_iter().find(|(name, _)| name == "chromium-offer").unwrap();
    let repeated = text.replace("a=group:BUNDLE 0 1 2", &format!("a=group:BUNDLE 1{}", " 0 1 9".repeat(20_000)));
    let description = SessionDescription::parse(&repeated).unwrap();
    let mids: Vec<_> = description.bundled().iter().filter_map(|media| media.mid()).collect();
    assert_eq!(mids, ["1", "0"]);
}

/// Mangles a text: bytes overwritten, pieces cut out, repeated and moved.
fn mangled() -> impl Strategy<Value = String> {
    let corpora = corpora();
    let edits = prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12);
    (0..corpora.len(), edits).prop_map(move |(at, edits)| {
        let mut bytes = corpora[at].1.clone().into_bytes();
        for (kind, from, to) in edits {
            if bytes.is_empty() {
                break;
            }
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let (low, high) = (from.min(to), from.max(to).min(from.min(to) + 200));
            match kind % 6 {
                0 => bytes[from] = kind,
                1 => drop(bytes.drain(low..high)),
                2 => {
                    let piece = bytes[low..high].to_vec();
                    bytes.splice(to..to, piece);
                }
                3 => bytes[from] = b" \r\n:;,~/=0"[usize::from(kind) % 10],
                4 => bytes.truncate(from),
                _ => bytes.insert(from, b"9"[0]),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(8), cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is read at all reads the same once written.
    #[test]
    fn mangled_descriptions_round_trip_or_fail(text in mangled()) {
        let offered = Offered { audio: 5, video: 9, simulcast: true };
        let _ = answer(&text, &offered, &Limits::default());
        if let Ok(description) = SessionDescription::parse(&text) {
            let _ = description.remote_description();
            prop_assert_eq!(SessionDescription::parse(&description.to_string()), Ok(description));
        }
    }

    /// Single lines, where edits of whole descriptions rarely get far.
    #[test]
    fn mangled_attributes_round_trip_or_fail(
        name in prop::sample::select(vec![
            "group", "mid", "msid", "ice-ufrag", "ice-options", "candidate", "fingerprint", "setup", "rtpmap", "fmtp",
            "rtcp-fb", "extmap", "ssrc", "ssrc-group", "rid", "simulcast", "sctp-port", "max-message-size", "ptime", "x",
        ]),
        value in "[ 0-9a-d:;,~/*=\\.\u{e9}]{0,24}|[0-9]{1,3} [a-c]{1,4}/[0-9]{1,6}(/[0-9a ]{0,3})?|(send|recv) [~a-c;,]{1,8}( (send|recv) [a-c]{1,3} ?)?|[a-c]{1,3} (send|recv)( [a-c= ]{0,6})?",
    ) {
        let text = with(&format!("a={name}:{value}"));
        if let Ok(description) = SessionDescription::parse(&text) {
            prop_assert_eq!(SessionDescription::parse(&description.to_string()), Ok(description));
        }
    }
}
