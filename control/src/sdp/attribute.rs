//! The attributes (`a=` lines) Sluice knows, one type each, and how each is read. Never writes; `write` does.

use std::fmt;

use sluice_table::Ssrc;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::candidate::CandidateLine;
use super::fields::{Expected, ice_chars, number, payload_type, words};
use super::simulcast::{Rid, Simulcast};
use crate::transport::{Fingerprint, HashFunction, Setup};

/// One `a=` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `group` (RFC 5888).
    Group(Group),
    /// `mid` (RFC 5888).
    Mid(String),
    /// `msid` (RFC 8830).
    Msid(Msid),
    /// `ice-ufrag` (RFC 8839).
    IceUfrag(String),
    /// `ice-pwd`.
    IcePassword(Password),
    /// `ice-options`.
    IceOptions(Vec<String>),
    /// `ice-lite`.
    IceLite,
    /// `candidate`.
    Candidate(CandidateLine),
    /// `end-of-candidates` (RFC 8838).
    EndOfCandidates,
    /// `fingerprint` (RFC 8122) of a hash function that is accepted; those of others are [`Attribute::Other`].
    Fingerprint(Fingerprint),
    /// `setup` (RFC 8842).
    Setup(Setup),
    /// `rtcp-mux` (RFC 5761).
    RtcpMux,
    /// `rtcp-rsize` (RFC 5506).
    RtcpRsize,
    /// `rtpmap`.
    Rtpmap(Rtpmap),
    /// `fmtp`.
    Fmtp {
        /// A format of the `m=` line.
        format: String,
        /// Its parameters as they were given, e.g. `minptime=10;useinbandfec=1`.
        parameters: String,
    },
    /// `rtcp-fb` (RFC 4585).
    RtcpFeedback(RtcpFeedback),
    /// `extmap` (RFC 8285).
    Extmap(Extmap),
    /// `extmap-allow-mixed`.
    ExtmapAllowMixed,
    /// `ssrc` (RFC 5576).
    Ssrc(SsrcAttribute),
    /// `ssrc-group`.
    SsrcGroup(SsrcGroup),
    /// `rid` (RFC 8851).
    Rid(Rid),
    /// `simulcast` (RFC 8853).
    Simulcast(Simulcast),
    /// `sctp-port` (RFC 8841).
    SctpPort(u16),
    /// `sctpmap`, the form before RFC 8841: port, protocol and number of streams as they were given.
    Sctpmap(String),
    /// `max-message-size` in bytes; 0 means no limit.
    MaxMessageSize(u64),
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    Direction(Direction),
    /// `bundle-only` (RFC 9143).
    BundleOnly,
    /// `tool`.
    Tool(String),
    /// `ptime` in milliseconds.
    Ptime(u32),
    /// `maxptime` in milliseconds.
    MaxPtime(u32),
    /// Any other, word for word.
    Other {
        /// What stands before the first colon.
        name: String,
        /// What stands after it, if there is one.
        value: Option<String>,
    },
}

/// An ICE password: never printed, zeroed on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// `a=group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// E.g. `BUNDLE`.
    pub semantics: String,
    /// Mids of its sections.
    pub mids: Vec<String>,
}

/// `a=msid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msid {
    /// Id of the stream, `-` for none.
    pub stream: String,
    /// Id of the track.
    pub track: Option<String>,
}

/// `a=rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtpmap {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Encoding in the case it was given, e.g. `opus`, `VP8`, `rtx`.
    pub encoding: String,
    /// Clock rate in Hz.
    pub clock_rate: u32,
    /// What follows: the number of channels of audio.
    pub channels: Option<String>,
}

/// `a=rtcp-fb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtcpFeedback {
    /// Payload type; `None` for all (`*`).
    pub payload_type: Option<u8>,
    /// The message as it was given, e.g. `nack pli`.
    pub value: String,
}

/// `a=extmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extmap {
    /// Id, 1 to 14 in the one-byte form, to 255 in the two-byte form, 4,096 to 4,351 in offers that ask for one.
    pub id: u16,
    /// Direction, where it is not that of the section.
    pub direction: Option<Direction>,
    /// What it is.
    pub uri: String,
    /// What follows.
    pub attributes: Option<String>,
}

/// `a=ssrc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsrcAttribute {
    /// The SSRC.
    pub ssrc: Ssrc,
    /// Its attribute as it was given, e.g. `cname:x` or `msid:a b`.
    pub attribute: Option<String>,
}

/// `a=ssrc-group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsrcGroup {
    /// E.g. `FID`.
    pub semantics: String,
    /// Its SSRCs.
    pub ssrcs: Vec<Ssrc>,
}

/// Which way media goes, as the description's writer sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both ways; what a section without a direction means.
    #[default]
    SendRecv,
    /// The writer sends.
    SendOnly,
    /// The writer receives.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    /// Whether the writer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the writer receives.
    pub const fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    fn from_name(name: &str) -> Option<Direction> {
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive]
            .into_iter()
            .find(|direction| direction.name() == name)
    }
}

/// A line that cannot be read: what kind of line it is and what belongs there.
pub(super) type Unread = (&'static str, Expected);

impl Attribute {
    /// Reads what stands after `a=`.
    pub(super) fn parse(text: &str) -> Result<Attribute, Unread> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(("a=", "a name"));
        }
        match value {
            Some(value) => Attribute::valued(name, value),
            None => Ok(Attribute::flag(name)),
        }
    }

    fn flag(name: &str) -> Attribute {
        match name {
            "ice-lite" => Attribute::IceLite,
            "end-of-candidates" => Attribute::EndOfCandidates,
            "rtcp-mux" => Attribute::RtcpMux,
            "rtcp-rsize" => Attribute::RtcpRsize,
            "extmap-allow-mixed" => Attribute::ExtmapAllowMixed,
            "bundle-only" => Attribute::BundleOnly,
            name => match Direction::from_name(name) {
                Some(direction) => Attribute::Direction(direction),
                None => Attribute::Other { name: name.to_owned(), value: None },
            },
        }
    }

    fn valued(name: &str, value: &str) -> Result<Attribute, Unread> {
        let token = || words(value).next().map(str::to_owned);
        Ok(match name {
            "group" => Attribute::Group(group(value).ok_or(("a=group", "SEMANTICS [MID]..."))?),
            "mid" => Attribute::Mid(token().ok_or(("a=mid", "a name"))?),
            "msid" => {
                let mut parts = words(value).map(str::to_owned);
                let stream = parts.next().ok_or(("a=msid", "STREAM [TRACK]"))?;
                Attribute::Msid(Msid { stream, track: parts.next() })
            }
            "ice-ufrag" => {
                let ufrag = token().filter(|text| ice_chars(text, 4..=256));
                Attribute::IceUfrag(ufrag.ok_or(("a=ice-ufrag", "4 to 256 letters, digits, + and /"))?)
            }
            "ice-pwd" => {
                let password = token().filter(|text| ice_chars(text, 22..=256));
                Attribute::IcePassword(Password(password.ok_or(("a=ice-pwd", "22 to 256 letters, digits, + and /"))?))
            }
            "ice-options" => Attribute::IceOptions(words(value).map(str::to_owned).collect()),
            "candidate" => {
                Attribute::Candidate(CandidateLine::parse(value).map_err(|expected| ("a=candidate", expected))?)
            }
            "fingerprint" => return fingerprint(value).map_err(|expected| ("a=fingerprint", expected)),
            "setup" => match value.trim() {
                "active" => Attribute::Setup(Setup::Active),
                "passive" => Attribute::Setup(Setup::Passive),
                "actpass" => Attribute::Setup(Setup::ActPass),
                _ => return Err(("a=setup", "active, passive or actpass")),
            },
            "rtpmap" => Attribute::Rtpmap(rtpmap(value).map_err(|expected| ("a=rtpmap", expected))?),
            "fmtp" => {
                let (format, parameters) = value.trim_start().split_once(' ').ok_or(("a=fmtp", "FORMAT PARAMETERS"))?;
                Attribute::Fmtp { format: format.to_owned(), parameters: parameters.to_owned() }
            }
            "rtcp-fb" => Attribute::RtcpFeedback(feedback(value).map_err(|expected| ("a=rtcp-fb", expected))?),
            "extmap" => Attribute::Extmap(extmap(value).map_err(|expected| ("a=extmap", expected))?),
            "ssrc" => Attribute::Ssrc(ssrc(value).map_err(|expected| ("a=ssrc", expected))?),
            "ssrc-group" => Attribute::SsrcGroup(ssrc_group(value).map_err(|expected| ("a=ssrc-group", expected))?),
            "rid" => Attribute::Rid(Rid::parse(value).map_err(|expected| ("a=rid", expected))?),
            "simulcast" => Attribute::Simulcast(Simulcast::parse(value).map_err(|expected| ("a=simulcast", expected))?),
            "sctp-port" => {
                let expected = "a port from 0 to 65535";
                Attribute::SctpPort(number(value.trim(), expected).map_err(|expected| ("a=sctp-port", expected))?)
            }
            "sctpmap" => Attribute::Sctpmap(value.to_owned()),
            "max-message-size" => {
                let size = number(value.trim(), "a number of bytes below 2^64");
                Attribute::MaxMessageSize(size.map_err(|expected| ("a=max-message-size", expected))?)
            }
            "tool" => Attribute::Tool(value.to_owned()),
            // Fractions are allowed and nothing here depends on them: they pass through.
            "ptime" | "maxptime" => match (name, number(value.trim(), "")) {
                ("ptime", Ok(milliseconds)) => Attribute::Ptime(milliseconds),
                (_, Ok(milliseconds)) => Attribute::MaxPtime(milliseconds),
                _ => other(name, value),
            },
            _ => other(name, value),
        })
    }
}

fn other(name: &str, value: &str) -> Attribute {
    Attribute::Other { name: name.to_owned(), value: Some(value.to_owned()) }
}

fn group(value: &str) -> Option<Group> {
    let mut parts = words(value).map(str::to_owned);
    Some(Group { semantics: parts.next()?, mids: parts.collect() })
}

fn fingerprint(value: &str) -> Result<Attribute, Expected> {
    const EXPECTED: Expected = "HASH and its bytes as two hexadecimal digits each, divided by colons";
    let mut parts = words(value);
    let name = parts.next().ok_or(EXPECTED)?;
    let Some(hash) = HashFunction::from_name(name) else { return Ok(other("fingerprint", value)) };
    let byte = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
    };
    let bytes = parts.next().ok_or(EXPECTED)?.split(':').map(byte).collect::<Option<Vec<u8>>>().ok_or(EXPECTED)?;
    if bytes.len() != hash.len() || parts.next().is_some() {
        return Err("as many bytes as the hash function makes: 32 for sha-256, 48 for sha-384, 64 for sha-512");
    }
    Ok(Attribute::Fingerprint(Fingerprint { hash, bytes }))
}

fn rtpmap(value: &str) -> Result<Rtpmap, Expected> {
    const EXPECTED: Expected = "PAYLOAD-TYPE ENCODING/CLOCK-RATE[/CHANNELS], the payload type from 0 to 127";
    let mut parts = words(value);
    let payload_type = payload_type(parts.next().ok_or(EXPECTED)?, EXPECTED)?;
    let mut codec = parts.next().ok_or(EXPECTED)?.splitn(3, '/');
    let encoding = codec.next().filter(|encoding| !encoding.is_empty()).ok_or(EXPECTED)?.to_owned();
    let clock_rate = number(codec.next().ok_or(EXPECTED)?, EXPECTED)?;
    Ok(Rtpmap { payload_type, encoding, clock_rate, channels: codec.next().map(str::to_owned) })
}

fn feedback(value: &str) -> Result<RtcpFeedback, Expected> {
    const EXPECTED: Expected = "PAYLOAD-TYPE|* MESSAGE, the payload type from 0 to 127";
    let (to, value) = value.trim_start().split_once(' ').ok_or(EXPECTED)?;
    let value = value.trim();
    let payload_type = if to == "*" { None } else { Some(payload_type(to, EXPECTED)?) };
    if value.is_empty() { Err(EXPECTED) } else { Ok(RtcpFeedback { payload_type, value: value.to_owned() }) }
}

fn extmap(value: &str) -> Result<Extmap, Expected> {
    const EXPECTED: Expected = "ID[/DIRECTION] URI [ATTRIBUTES], ID from 1 to 255 or from 4096 to 4351";
    let mut parts = value.trim_start().splitn(3, ' ');
    let first = parts.next().ok_or(EXPECTED)?;
    let (id, direction) = match first.split_once('/') {
        Some((id, direction)) => (id, Some(Direction::from_name(direction).ok_or(EXPECTED)?)),
        None => (first, None),
    };
    let id = number::<u16>(id, EXPECTED)?;
    let uri = parts.next().filter(|uri| !uri.is_empty()).ok_or(EXPECTED)?.to_owned();
    if !matches!(id, 1..=255 | 4096..=4351) {
        return Err(EXPECTED);
    }
    let attributes = parts.next().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(Extmap { id, direction, uri, attributes })
}

fn ssrc(value: &str) -> Result<SsrcAttribute, Expected> {
    const EXPECTED: Expected = "SSRC [ATTRIBUTE[:VALUE]], SSRC from 0 to 4294967295";
    let value = value.trim_start();
    let (ssrc, attribute) = value.split_once(' ').map_or((value, None), |(ssrc, attribute)| (ssrc, Some(attribute)));
    let attribute = attribute.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(SsrcAttribute { ssrc: Ssrc(number(ssrc, EXPECTED)?), attribute })
}

fn ssrc_group(value: &str) -> Result<SsrcGroup, Expected> {
    const EXPECTED: Expected = "SEMANTICS [SSRC]..., each SSRC from 0 to 4294967295";
    let mut parts = words(value);
    let semantics = parts.next().ok_or(EXPECTED)?.to_owned();
    let ssrcs = parts.map(|text| number(text, EXPECTED).map(Ssrc)).collect::<Result<Vec<_>, _>>()?;
    Ok(SsrcGroup { semantics, ssrcs })
}
