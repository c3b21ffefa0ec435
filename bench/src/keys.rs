//! Sessions: who sends and who receives which streams, from where to where and under which keys. One file is
//! shared by generator and sink. Keys are drawn from a seed: for a lab, never for a call.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use sluice_srtp::{MasterKey, Profile};
use sluice_table::Kind;

use crate::error::BenchError;
use crate::random::Random;

/// A profile, or no SRTP at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protection(pub(crate) Option<Profile>);

impl Protection {
    /// The name on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        self.0.map_or("plain", Profile::name)
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Protection {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = Profile::ALL.into_iter().map(|profile| Protection(Some(profile))).chain([Protection(None)]);
        let names = "aes128-gcm, aes256-gcm, aes128-cm-sha1-80, aes128-cm-sha1-32 or plain";
        all.into_iter().find(|one| one.name() == name).ok_or_else(|| format!("expected {names}"))
    }
}

/// A master key in a session file. Prints as its fingerprint only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyText {
    /// The profile.
    pub(crate) profile: Profile,
    /// Key, then salt, in hex.
    pub(crate) hex: String,
}

impl KeyText {
    /// A key from a seed.
    pub(crate) fn draw(profile: Profile, random: &mut Random) -> KeyText {
        let bytes = random.bytes(profile.key_len() + profile.salt_len());
        KeyText { profile, hex: hex(&bytes) }
    }

    /// A key from its bytes.
    pub(crate) fn from_bytes(profile: Profile, bytes: &[u8]) -> KeyText {
        KeyText { profile, hex: hex(bytes) }
    }

    /// Key and salt; `None` if the text is not hex.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let digits: Option<Vec<u8>> = self.hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
        Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
    }

    /// The key itself.
    pub(crate) fn master(&self) -> Result<MasterKey, BenchError> {
        let bytes = self.bytes().ok_or_else(|| BenchError::Refused {
            what: "reading a key".to_owned(),
            why: "expected key and salt in hex".to_owned(),
        })?;
        MasterKey::from_bytes(self.profile, &bytes).map_err(BenchError::refused("reading a key"))
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.master().map(|key| key.fingerprint().to_string()).unwrap_or_default();
        write!(f, "KeyText({}, {fingerprint})", self.profile.name())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// A stream that a publisher sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// SSRC on the wire.
    pub(crate) ssrc: u32,
    /// Audio or video.
    pub(crate) kind: Kind,
    /// RTP payload type.
    pub(crate) payload_type: u8,
    /// First RTP sequence number.
    pub(crate) first_sequence: u16,
}

/// Somebody who sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publisher {
    /// Where it sends from.
    pub(crate) local: SocketAddr,
    /// Where it sends to, if not to the session's forwarder address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<SocketAddr>,
    /// Its key; `None` for plain RTP.
    pub(crate) key: Option<KeyText>,
    /// Its streams. A stream's number in stamps counts through the whole session.
    pub(crate) streams: Vec<Stream>,
}

/// Somebody who receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receiver {
    /// Where it receives.
    pub(crate) local: SocketAddr,
    /// The key packets to it are sealed under; `None` for plain RTP.
    pub(crate) key: Option<KeyText>,
    /// SSRC on the wire and number of the stream it must carry.
    pub(crate) expects: Vec<(u32, u32)>,
}

/// Everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The forwarder's media address.
    pub(crate) forwarder: SocketAddr,
    /// Who sends.
    pub(crate) publishers: Vec<Publisher>,
    /// Who receives.
    pub(crate) receivers: Vec<Receiver>,
}

/// Payload type of audio.
pub(crate) const AUDIO_TYPE: u8 = 111;
/// Payload type of video.
pub(crate) const VIDEO_TYPE: u8 = 96;

/// A stream of a kind; `number` makes its SSRC.
pub(crate) fn stream(kind: Kind, number: u32, first_sequence: u16) -> Stream {
    let payload_type = if kind == Kind::Audio { AUDIO_TYPE } else { VIDEO_TYPE };
    Stream { ssrc: 0x1000_0000 + number, kind, payload_type, first_sequence }
}

impl Session {
    /// Reads a file that nobody else can read.
    pub(crate) fn read(path: &Path) -> Result<Session, BenchError> {
        let bad = |why: String| BenchError::Session { path: path.to_owned(), why };
        let metadata = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(bad("others can read its keys; chmod 600".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let session: Session = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        session.check().map_err(bad)?;
        Ok(session)
    }

    /// Writes a file that nobody else can read; refuses to replace one.
    pub(crate) fn write(&self, path: &Path) -> Result<(), BenchError> {
        let bad = |why: String| BenchError::Session { path: path.to_owned(), why };
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| bad(error.to_string()))?;
        serde_json::to_writer_pretty(file, self).map_err(|error| bad(error.to_string()))
    }

    /// Streams of all publishers, in the order of their numbers.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (&Publisher, &Stream)> {
        self.publishers.iter().flat_map(|one| one.streams.iter().map(move |stream| (one, stream)))
    }

    /// The one profile all publishers use.
    pub(crate) fn publisher_protection(&self) -> Protection {
        Protection(self.publishers.first().and_then(|one| one.key.as_ref()).map(|key| key.profile))
    }

    fn check(&self) -> Result<(), String> {
        let keys = self.publishers.iter().map(|one| &one.key).chain(self.receivers.iter().map(|one| &one.key));
        for key in keys.flatten() {
            key.master().map_err(|error| error.to_string())?;
        }
        let protection = self.publisher_protection();
        if self.publishers.iter().any(|one| one.key.as_ref().map(|key| key.profile) != protection.0) {
            return Err("publishers differ in profile; expected one for all, a batch is of one profile".to_owned());
        }
        let streams = self.streams().count() as u32;
        for receiver in &self.receivers {
            if let Some((_, number)) = receiver.expects.iter().find(|(_, number)| *number >= streams) {
                return Err(format!("{} expects stream {number}, there are {streams}", receiver.local));
            }
        }
        Ok(())
    }
}

/// A session to make: publishers of one stream each, every one of them to every receiver.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// File to write; must not exist
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Table file to write for `sluice table apply`; must not exist
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// The forwarder's media address
    #[arg(long, value_name = "IP:PORT")]
    forwarder: SocketAddr,
    /// The forwarder's interface, for the table file
    #[arg(long, value_name = "NAME", default_value = "lo")]
    interface: String,
    /// Address of publishers and receivers
    #[arg(long, value_name = "IP")]
    peer: IpAddr,
    /// First port of publishers; receivers follow
    #[arg(long, default_value_t = 20_000)]
    port: u16,
    /// Publishers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    publishers: u16,
    /// Receivers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    receivers: u16,
    /// Profile of all legs
    #[arg(long, default_value = "aes128-gcm")]
    profile: Protection,
    /// Audio or video
    #[arg(long, default_value = "video", value_parser = parse_kind)]
    kind: Kind,
    /// Seed of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// `audio` or `video`.
pub(crate) fn parse_kind(text: &str) -> Result<Kind, String> {
    [Kind::Audio, Kind::Video].into_iter().find(|kind| kind.name() == text).ok_or("expected audio or video".to_owned())
}

impl Arguments {
    fn session(&self) -> Session {
        let mut random = Random::new(self.seed, 0x006b_6579);
        let mut key = || self.profile.0.map(|profile| KeyText::draw(profile, &mut random));
        let at = |number: u16| SocketAddr::new(self.peer, self.port.wrapping_add(number));
        let publishers = (0..self.publishers)
            .map(|n| Publisher {
                local: at(n),
                to: None,
                key: key(),
                streams: vec![stream(self.kind, u32::from(n), 1)],
            })
            .collect();
        let expects: Vec<(u32, u32)> = (0..u32::from(self.publishers)).map(|n| (0x2000_0000 + n, n)).collect();
        let receivers = (0..self.receivers)
            .map(|n| Receiver { local: at(self.publishers.wrapping_add(n)), key: key(), expects: expects.clone() })
            .collect();
        Session { forwarder: self.forwarder, publishers, receivers }
    }
}

/// Writes the session, and the table that fits it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let session = arguments.session();
    session.write(&arguments.output)?;
    if let Some(path) = &arguments.table {
        let bad = |why: String| BenchError::Session { path: path.clone(), why };
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(|error| bad(error.to_string()))?;
        let text = table_file(&session, &arguments.interface);
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| bad(error.to_string()))?;
    }
    Ok(())
}

/// The session as a table file.
fn table_file(session: &Session, interface: &str) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    let srtp = |direction: &str, key: &Option<KeyText>| match key {
        Some(key) => format!("{direction} = {{ profile = \"{}\", key = \"{}\" }}\n", key.profile.name(), key.hex),
        None => "kind = \"plain\"\n".to_owned(),
    };
    // A generator is no client: nothing of it is policed away.
    let limits = "limits = { bits_per_second = 100_000_000_000, packets_per_second = 100_000_000, \
                  audio_bits_per_second = 100_000_000_000, video_bits_per_second = 100_000_000_000 }\n";
    let address = session.forwarder;
    let _ = writeln!(text, "[[endpoint]]\nname = \"bench\"\ninterface = \"{interface}\"\naddress = \"{address}\"\n");
    let mut number = 0;
    for (n, one) in session.publishers.iter().enumerate() {
        let key = srtp("srtp_in", &one.key);
        let _ = writeln!(
            text,
            "[[leg]]\nname = \"publisher{n}\"\nendpoint = \"bench\"\nremote = \"{}\"\n{key}{limits}",
            one.local
        );
        for stream in &one.streams {
            let _ = writeln!(
                text,
                "[[ingress]]\nname = \"stream{number}\"\nleg = \"publisher{n}\"\nssrc = {}\nkind = \"{}\"\npayload_types = [{}]\n",
                stream.ssrc, stream.kind, stream.payload_type
            );
            number += 1;
        }
    }
    for (n, one) in session.receivers.iter().enumerate() {
        let key = srtp("srtp_out", &one.key);
        let _ = writeln!(
            text,
            "[[leg]]\nname = \"receiver{n}\"\nendpoint = \"bench\"\nremote = \"{}\"\naccept_key_reuse = true\n{key}",
            one.local
        );
        for (ssrc, stream) in &one.expects {
            let _ = writeln!(
                text,
                "[[egress]]\nname = \"receiver{n}/{stream}\"\nleg = \"receiver{n}\"\nssrc = {ssrc}\nsource = \"stream{stream}\"\n"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(profile: &str) -> Arguments {
        Arguments {
            output: PathBuf::new(),
            table: None,
            forwarder: "127.0.0.1:5004".parse().unwrap(),
            interface: "lo".to_owned(),
            peer: "127.0.0.1".parse().unwrap(),
            port: 20_000,
            publishers: 2,
            receivers: 3,
            profile: profile.parse().unwrap(),
            kind: Kind::Video,
            seed: 1,
        }
    }

    #[test]
    fn files_round_trip_and_must_be_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session.json");
        let session = arguments("aes256-gcm").session();
        session.write(&path).unwrap();
        assert_eq!(Session::read(&path).unwrap(), session);
        assert!(session.write(&path).is_err(), "an existing file stays");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Session::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn table_files_of_every_profile_are_accepted() {
        for profile in ["aes128-gcm", "aes256-gcm", "aes128-cm-sha1-80", "aes128-cm-sha1-32", "plain"] {
            let text = table_file(&arguments(profile).session(), "lo");
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("table.toml");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let table = sluice_table::file::load(&path).unwrap();
            assert_eq!((table.legs.len(), table.egress.len()), (5, 6), "{profile}");
        }
    }

    #[test]
    fn keys_are_all_different_and_never_printed() {
        let session = arguments("aes128-gcm").session();
        let mut keys: Vec<String> = session.publishers.iter().map(|one| one.key.clone().unwrap().hex).collect();
        keys.extend(session.receivers.iter().map(|one| one.key.clone().unwrap().hex));
        let shown = format!("{session:?}");
        assert!(keys.iter().all(|key| !shown.contains(key)));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn wrong_sessions_are_refused() {
        let mut session = arguments("aes128-gcm").session();
        session.receivers[0].expects.push((1, 9));
        assert!(session.check().unwrap_err().contains("stream 9"));
        let mut session = arguments("aes128-gcm").session();
        session.publishers[1].key = None;
        assert!(session.check().unwrap_err().contains("profile"));
        let mut session = arguments("aes128-gcm").session();
        session.publishers[1].key.as_mut().unwrap().hex.push('0');
        assert!(session.check().is_err());
        assert!("aes".parse::<Protection>().is_err());
    }
}
