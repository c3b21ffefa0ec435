//! Table files: the example, every error with its place, permissions, and damaged files.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::file::{Origin, load, parse};
use sluice_table::{Feedback, KeyFrameRequest, Kind, LegKind, Limits, Remote, Table};

const EXAMPLE: &str = include_str!("../../../docs/table-example.toml");

fn origin(mode: u32) -> Origin {
    Origin { file: PathBuf::from("dir/t.toml"), mode }
}

fn errors(text: &str) -> Vec<String> {
    match parse(text, &origin(0o600)) {
        Ok(_) => Vec::new(),
        Err(found) => found.0.iter().map(ToString::to_string).collect(),
    }
}

/// The example with `from`, which must occur, replaced by `to`.
#[track_caller]
fn with(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from:?} is not in the example");
    EXAMPLE.replacen(from, to, 1)
}

/// Asserts that the errors of a text are exactly these.
#[track_caller]
fn golden(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected);
}

#[test]
fn the_example_says_what_it_means() {
    let table = parse(EXAMPLE, &origin(0o600)).unwrap();
    assert_eq!((table.endpoints.len(), table.legs.len(), table.len()), (1, 3, 11));
    let alice = &table.legs["alice"];
    assert_eq!(alice.kind, LegKind::Client);
    assert_eq!(alice.remote, Remote::Fixed("192.0.2.10:5000".parse().unwrap()));
    assert_eq!(alice.limits, Limits { bits_per_second: 6_000_000, packets_per_second: 1_000, ..Limits::default() });
    let key = alice.inbound.as_ref().unwrap();
    assert_eq!((key.profile(), key.key()), (Profile::Aes128CmSha1_80, b"0123456789abcdef".as_slice()));
    assert_eq!(key.salt(), b"0123456789abcd");
    let bob = &table.legs["bob"];
    assert!(bob.accept_key_reuse && bob.inbound.is_none());
    assert_eq!(bob.outbound.as_ref().unwrap().key()[15], 15);
    assert_eq!((bob.extensions.mid, bob.extensions.transport_cc, bob.extensions.rid), (Some(4), Some(3), None));
    assert_eq!(table.legs["carol"].remote, Remote::Learn);
    let audio = &table.ingress["alice-audio"];
    assert_eq!((audio.ssrc, audio.kind, audio.clock_rate), (Ssrc(0x0a11_ce01), Kind::Audio, 48_000));
    assert_eq!(table.learn["carol-high"].clock_rate, 90_000);
    let video = &table.egress["bob/video"];
    assert_eq!((video.payload_types.as_slice(), video.first_sequence), ([(96, 100)].as_slice(), Some(1)));
    assert_eq!((video.mid.as_deref(), video.dscp, video.csrc), (Some("1"), Some(34), false));
    let rtx = video.rtx.as_ref().unwrap();
    assert_eq!((video.history, rtx.ssrc, rtx.payload_types.as_slice()), (512, Ssrc(2003), [(100, 101)].as_slice()));
}

#[test]
fn feedback_and_repair_are_spelled_out() {
    let extensions = "extensions = { mid = 4, transport_cc = 3 }";
    let feedback = "feedback = { reports = true, transport_cc = true, nack = true, key_frame = \"pli\" }";
    let table = parse(&with(extensions, &format!("{extensions}\n{feedback}")), &origin(0o600)).unwrap();
    let all = Feedback { reports: true, transport_cc: true, nack: true, key_frame: Some(KeyFrameRequest::Pli) };
    assert_eq!((table.legs["bob"].feedback, table.legs["carol"].feedback), (all, Feedback::default()));
    let text = with(
        "payload_types = [111]",
        "payload_types = [111]\nrepairs = { stream = \"alice-video\", payload_types = { 111 = 96 } }",
    );
    let table = parse(&text, &origin(0o600)).unwrap();
    let repair = table.ingress["alice-audio"].role.repairs.as_ref().unwrap();
    assert_eq!((&*repair.stream.0, repair.payload_types.as_slice()), ("alice-video", [(111, 96)].as_slice()));
    for (from, to, expected) in [
        (
            "history = 512",
            "history = 70000",
            "egress.bob/video.history: is 70000; expected a number of packets 0 to 1024",
        ),
        (
            extensions,
            &format!("{extensions}\nfeedback = {{ key_frame = \"sli\" }}"),
            "leg.bob.feedback.key_frame: is \"sli\"; expected \"pli\" or \"fir\"",
        ),
    ] {
        let found = errors(&with(from, to));
        assert!(found.len() == 1 && found[0].ends_with(expected), "{found:?}");
    }
}

#[test]
fn layers_groups_and_members_are_read() {
    let text = with("remote = \"192.0.2.11:5000\"", "remote = \"192.0.2.11:5000\"\nmember = 3\nhears = [0, 8191]")
        .replacen("input = \"alice-video\"", "layers = [\"alice-video\", \"carol-high\"]", 1)
        .replacen("ssrc = 0x0a11ce01", "ssrc = 0x0a11ce01\nannounced = 77\ncandidate = \"room\"", 1)
        .replacen("dscp = 34", "dscp = 34\nlayer = 1", 1)
        + "\n[[source]]\nname = \"slot\"\nkind = \"audio\"\nselect = \"room\"\n";
    let table = parse(&text, &origin(0o600)).unwrap();
    let bob = &table.legs["bob"];
    assert_eq!(bob.member, Some(3));
    assert_eq!(bob.hears, Some([0, 8191].into_iter().collect()));
    let layers: Vec<&str> = table.sources["speaker"].layers.iter().map(sluice_table::Name::as_str).collect();
    assert_eq!(layers, ["alice-video", "carol-high"]);
    assert_eq!(table.sources["slot"].select.as_ref().unwrap().as_str(), "room");
    let role = &table.ingress["alice-audio"].role;
    assert_eq!((role.announced, role.candidate.as_ref().unwrap().as_str()), (Some(Ssrc(77)), "room"));
    assert_eq!(table.egress["bob/video"].layer, Some(1));
    golden(
        &with("dscp = 34", "dscp = 34\nlayer = \"high\""),
        &["dir/t.toml:89:9: egress.bob/video.layer: is \"high\"; expected a layer 0 to 3"],
    );
    golden(
        &with("remote = \"192.0.2.11:5000\"", "remote = \"192.0.2.11:5000\"\nmember = 8192\nhears = [-1]"),
        &[
            "dir/t.toml:26:10: leg.bob.member: is 8192; expected a member number 0 to 8191",
            "dir/t.toml:27:9: leg.bob.hears: is a value of type array; expected a list of member numbers such as [0, 7]",
        ],
    );
}

#[test]
fn an_empty_file_is_an_empty_table() {
    assert_eq!(parse("", &origin(0o644)).unwrap(), Table::default());
}

#[test]
fn not_toml_names_the_place() {
    let found = errors("[[leg]\nname = \"a\"\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("dir/t.toml:1:"), "{found:?}");
    assert!(found[0].contains("not TOML"), "{found:?}");
}

#[test]
fn unknown_keys_are_errors_with_the_key_that_was_meant() {
    golden(
        &with("remote = \"192.0.2.10:5000\"", "remtoe = \"192.0.2.10:5000\""),
        &[
            "dir/t.toml:13:1: leg.alice.remote: missing; expected remote = \"ip:port\" or learn_remote = true",
            "dir/t.toml:16:1: leg.alice.remtoe: unknown key; did you mean \"remote\"?",
        ],
    );
    golden("[[egres]]\nname = \"a\"\n", &["dir/t.toml:1:3: egres: unknown key; did you mean \"egress\"?"]);
    golden(
        &with("extensions = { mid = 4,", "extensions = { midd = 4,"),
        &["dir/t.toml:29:16: leg.bob.extensions.midd: unknown key; did you mean \"mid\"?"],
    );
    golden(
        "[[source]]\nname = \"s\"\nkind = \"audio\"\ncolour = 3\n",
        &[
            "dir/t.toml:4:1: source.s.colour: unknown key; expected one of name, kind, clock_rate, input, layers, select",
        ],
    );
}

#[test]
fn wrong_values_say_what_was_expected() {
    golden(
        &with("ssrc = 2001", "ssrc = -1"),
        &["dir/t.toml:75:8: egress.bob/audio.ssrc: is -1; expected an SSRC 0 to 4294967295"],
    );
    golden(
        &with("remote = \"192.0.2.11:5000\"", "remote = \"bob.example:5000\""),
        &["dir/t.toml:25:10: leg.bob.remote: is \"bob.example:5000\"; expected an address and port such as \
           \"192.0.2.1:3478\" or \"[2001:db8::1]:3478\""],
    );
    golden(
        &with("payload_types = { 111 = 109 }", "payload_types = { 111 = 309 }"),
        &["dir/t.toml:77:25: egress.bob/audio.payload_types.111: expected payload types 0 to 127 on both sides, such \
           as 96 = 100"],
    );
    golden(
        &with("payload_types = [111]", "payload_types = [111, \"x\"]"),
        &["dir/t.toml:46:17: ingress.alice-audio.payload_types: is a value of type array; expected a list of payload \
           types 0 to 127 such as [96, 97]"],
    );
    golden("leg = 3\n", &["dir/t.toml:1:7: leg: expected rows that start with [[leg]]"]);
    golden(
        "[[source]]\nkind = \"audio\"\nname = \"a b\"\n",
        &["dir/t.toml:3:8: source.name: is \"a b\"; expected 1 to 120 printable ASCII characters without spaces"],
    );
    golden(
        "[[source]]\nname = \"s\"\nkind = \"audio\"\n[[source]]\nname = \"s\"\nkind = \"video\"\n",
        &["dir/t.toml:5:8: source.s.name: is the name of the source at line 1 already"],
    );
    golden(
        &with("learn_remote = true", "learn_remote = true\nremote = \"192.0.2.9:9\""),
        &["dir/t.toml:35:16: leg.carol.learn_remote: remote is given too; expected one of them"],
    );
}

#[test]
fn problems_of_the_whole_table_have_a_place_too() {
    golden(
        &with("source = \"speaker\"", "source = \"speeker\""),
        &["dir/t.toml:84:10: egress.bob/video.source: no ingress stream, learn rule or source is called speeker"],
    );
    golden(
        &with("first_sequence = 1\n", "first_sequence = 0\n"),
        &["dir/t.toml:86:18: egress.bob/video.first_sequence: 0 is out of range; expected 1 to 16384"],
    );
    golden(
        &with("packets_per_second = 1_000", "packets_per_second = 0"),
        &["dir/t.toml:18:62: leg.alice.limits.packets_per_second: is 0 and would drop everything; expected 1 or more"],
    );
}

#[test]
fn all_errors_are_reported_in_order_and_none_that_only_follows() {
    let text = with("address = \"192.0.2.1:5004\"", "address = 5004").replacen("dscp = 34", "dscp = 64", 1);
    let found = errors(&text);
    assert_eq!(found.len(), 2, "the endpoint that failed must not make its legs fail: {found:#?}");
    assert!(found[0].contains("endpoint.lan.address") && found[1].contains("egress.bob/video.dscp"), "{found:#?}");
}

#[test]
fn keys_are_never_shown() {
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNk";
    for damaged in [with(secret, &secret[1..]), with(secret, &format!("{secret}\\q")), with(secret, "é")] {
        let found = errors(&damaged);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].contains(&secret[4..12]), "{found:?}");
    }
    golden(
        &with(secret, "AAAA"),
        &["dir/t.toml:17:50: leg.alice.srtp_in.key: expected 16 bytes of master key and 14 of master salt for \
           aes128-cm-sha1-80, one after the other, in base64 or hex"],
    );
}

#[test]
fn inline_keys_in_a_readable_file_are_refused_once() {
    let found = parse(EXAMPLE, &origin(0o644)).unwrap_err();
    assert_eq!(found.0.len(), 1, "{found}");
    let text = found.to_string();
    assert!(text.starts_with("dir/t.toml:17:50: leg.alice.srtp_in.key: this file holds keys and has mode 0644"));
    assert!(text.ends_with("run `chmod 600 dir/t.toml`"), "{text}");
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn key_files_are_relative_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    let key = dir.path().join("alice.key");
    let inline = "key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNk\"";
    let keep = EXAMPLE.find("# A receiver at").unwrap();
    let ingress = EXAMPLE.find("# What alice sends").unwrap();
    let text = EXAMPLE[..keep].replacen(inline, "key_file = \"alice.key\"", 1);
    assert!(ingress > keep);
    // A file without inline keys may be readable.
    write(&file, &text, 0o644);
    let missing = load(&file).unwrap_err().to_string();
    assert!(missing.contains("t.toml:17:") && missing.contains("cannot be opened"), "{missing}");
    write(&key, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNk\n", 0o640);
    let readable = load(&file).unwrap_err().to_string();
    assert!(readable.contains("mode 0640"), "{readable}");
    assert!(readable.ends_with(&format!("run `chmod 600 {}`", key.display())), "{readable}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load(&file).unwrap().legs["alice"].inbound.as_ref().unwrap().salt(), b"0123456789abcd");
    write(&key, &"A".repeat(5000), 0o600);
    assert!(load(&file).unwrap_err().to_string().contains("longer than 1024 bytes"));
    // What is no file is not waited for.
    fs::remove_file(&key).unwrap();
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&key).status().unwrap();
    assert!(made.success());
    for what in [key.as_path(), Path::new("/dev/zero"), dir.path()] {
        fs::write(&file, text.replace("alice.key", what.to_str().unwrap())).unwrap();
        let refused = load(&file).unwrap_err().to_string();
        assert!(refused.contains("t.toml:17:") && refused.contains("is not a regular file"), "{refused}");
    }

    write(&file, EXAMPLE, 0o604);
    assert!(load(&file).unwrap_err().to_string().contains(&format!("chmod 600 {}", file.display())));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load(&file).unwrap().legs.len(), 3);
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let absent = load(&dir.path().join("absent.toml")).unwrap_err();
    assert_eq!((absent.0[0].line, absent.0[0].key.as_str()), (0, ""));
    assert!(absent.to_string().contains("absent.toml: cannot be opened"), "{absent}");
    assert!(load(dir.path()).unwrap_err().to_string().contains("is not a file"));
    let binary = dir.path().join("b.toml");
    fs::write(&binary, [b'a', 0xff]).unwrap();
    assert!(load(&binary).unwrap_err().to_string().contains("not UTF-8 from byte 1"));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: prop::test_runner::RngSeed::Fixed(4), cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cuts, copies, swaps and scribbles over the example; parsing must end with a table or with placed errors.
    #[test]
    fn damaged_files_never_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..5, ".{0,3}"), 1..6)) {
        let mut chars: Vec<char> = EXAMPLE.chars().collect();
        for (from, to, how, scribble) in edits {
            let (a, b) = (from.index(chars.len() + 1), to.index(chars.len() + 1));
            let (a, b) = (a.min(b), a.max(b).min(a.min(b) + 40));
            match how {
                0 => drop(chars.drain(a..b)),
                1 => chars.truncate(b.max(1)),
                2 => { let copy: Vec<char> = chars[a..b].to_vec(); chars.splice(a..a, copy); }
                3 => chars[a..b].reverse(),
                _ => { chars.splice(a..a, scribble.chars()); }
            }
        }
        let text: String = chars.into_iter().collect();
        let lines = text.split('\n').count();
        if let Err(found) = parse(&text, &origin(0o600)) {
            prop_assert!(!found.0.is_empty());
            for error in &found.0 {
                prop_assert!(error.line >= 1 && error.line <= lines, "{}", error);
                prop_assert!(error.column >= 1, "{}", error);
            }
        }
    }
}
