//! A whole description and how its lines are read. Bounded by [`Limits`]; never panics.

use std::collections::HashSet;

use super::attribute::{Attribute, Direction};
use super::error::{Limits, SdpError};
use super::fields::{Expected, number, words};
use super::media::{Media, MediaKind, direction};
use crate::transport::Fingerprint;

/// A line other than `a=` and `m=`, word for word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The letter before `=`.
    pub kind: char,
    /// What follows it.
    pub value: String,
}

/// `o=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// User, mostly `-`.
    pub username: String,
    /// Id of the session.
    pub session_id: u64,
    /// Version of the description.
    pub session_version: u64,
    /// Network, e.g. `IN IP4 127.0.0.1`.
    pub network: String,
}

/// A session description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    /// Who made it.
    pub origin: Origin,
    /// `s=`, mostly `-`.
    pub name: String,
    /// The other lines of the session (`t=`, `c=`, `b=`, unknown ones), word for word and in order.
    pub lines: Vec<Line>,
    /// Attributes of the session in order.
    pub attributes: Vec<Attribute>,
    /// Its media sections.
    pub media: Vec<Media>,
}

impl SessionDescription {
    /// An empty description of an unbounded session.
    pub fn new(session_id: u64, session_version: u64) -> SessionDescription {
        SessionDescription {
            origin: Origin {
                username: "-".to_owned(),
                session_id,
                session_version,
                network: "IN IP4 127.0.0.1".to_owned(),
            },
            name: "-".to_owned(),
            lines: vec![Line { kind: 't', value: "0 0".to_owned() }],
            attributes: Vec::new(),
            media: Vec::new(),
        }
    }

    /// Reads a description within the default [`Limits`]. Lines end in CRLF or LF, the last one in either or neither.
    pub fn parse(text: &str) -> Result<SessionDescription, SdpError> {
        SessionDescription::parse_within(text, &Limits::default())
    }

    /// Reads a description.
    pub fn parse_within(text: &str, limits: &Limits) -> Result<SessionDescription, SdpError> {
        if text.len() > limits.bytes {
            return Err(SdpError::TooLong { bytes: text.len(), limit: limits.bytes });
        }
        let mut reader = Reader {
            limits,
            candidates: HashSet::new(),
            fingerprints: HashSet::new(),
            version: false,
            origin: None,
            name: None,
            read: None,
        };
        for (at, line) in text.split('\n').enumerate() {
            let number = at + 1;
            if !line.is_empty() {
                within(number, "lines", number, limits.lines)?;
            }
            reader.line(number, line.strip_suffix('\r').unwrap_or(line))?;
        }
        reader.finish()
    }

    /// A section's direction: its own, else the session's, else both ways (RFC 8866 §6.7).
    pub fn direction(&self, media: &Media) -> Direction {
        media.direction().or_else(|| direction(&self.attributes)).unwrap_or_default()
    }

    /// The section of a mid.
    pub fn section(&self, mid: &str) -> Option<&Media> {
        self.media.iter().find(|media| media.mid() == Some(mid))
    }
}

struct Reader<'a> {
    limits: &'a Limits,
    candidates: HashSet<(String, u16, String)>,
    fingerprints: HashSet<Fingerprint>,
    version: bool,
    origin: Option<Origin>,
    name: Option<String>,
    read: Option<Read>,
}

#[derive(Default)]
struct Read {
    lines: Vec<Line>,
    attributes: Vec<Attribute>,
    media: Vec<Media>,
}

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str) -> Result<(), SdpError> {
        let malformed = |what, expected| SdpError::Malformed { line: number, what, expected };
        if line.is_empty() {
            return Ok(());
        }
        let mut letters = line.chars();
        let (Some(kind), Some('=')) = (letters.next(), letters.next()) else {
            return Err(malformed("the line", "LETTER=VALUE"));
        };
        let value = letters.as_str();
        if !kind.is_ascii_lowercase() {
            return Err(malformed("the line", "a small letter before the equals sign"));
        }
        if value.contains(['\r', '\0']) {
            return Err(malformed("the line", "text without carriage returns and zero bytes"));
        }
        if !self.version {
            self.version = kind == 'v' && value.trim() == "0";
            return if self.version { Ok(()) } else { Err(malformed("the first line", "v=0")) };
        }
        let read = self.read.get_or_insert_default();
        match kind {
            'v' => return Err(SdpError::Repeated { line: number, what: "v=" }),
            'o' if self.origin.is_some() => return Err(SdpError::Repeated { line: number, what: "o=" }),
            's' if self.name.is_some() => return Err(SdpError::Repeated { line: number, what: "s=" }),
            'o' => self.origin = Some(origin(value).map_err(|expected| malformed("o=", expected))?),
            's' => self.name = Some(value.to_owned()),
            'm' => {
                let media = media(value).map_err(|expected| malformed("m=", expected))?;
                within(number, "formats in one section", media.formats.len(), self.limits.formats)?;
                read.media.push(media);
                within(number, "media sections", read.media.len(), self.limits.media)?;
            }
            'a' => {
                let attribute = Attribute::parse(value).map_err(|(what, expected)| malformed(what, expected))?;
                match &attribute {
                    Attribute::Candidate(line) => {
                        self.candidates.insert((line.address.clone(), line.port, line.transport.clone()));
                        within(number, "candidates", self.candidates.len(), self.limits.candidates)?;
                    }
                    Attribute::Fingerprint(fingerprint) => {
                        self.fingerprints.insert(fingerprint.clone());
                        within(number, "fingerprints", self.fingerprints.len(), self.limits.fingerprints)?;
                    }
                    _ => {}
                }
                read.attributes_here().push(attribute);
            }
            kind => {
                let line = Line { kind, value: value.to_owned() };
                match read.media.last_mut() {
                    Some(media) => media.lines.push(line),
                    None => read.lines.push(line),
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<SessionDescription, SdpError> {
        if !self.version {
            return Err(SdpError::Missing { what: "v=0", place: "the first line" });
        }
        let origin = self.origin.ok_or(SdpError::Missing { what: "o=", place: "the second line" })?;
        let Read { lines, attributes, media } = self.read.unwrap_or_default();
        Ok(SessionDescription { origin, name: self.name.unwrap_or("-".to_owned()), lines, attributes, media })
    }
}

impl Read {
    fn attributes_here(&mut self) -> &mut Vec<Attribute> {
        match self.media.last_mut() {
            Some(media) => &mut media.attributes,
            None => &mut self.attributes,
        }
    }
}

fn within(line: usize, what: &'static str, count: usize, limit: usize) -> Result<(), SdpError> {
    if count > limit { Err(SdpError::TooMany { line, what, limit }) } else { Ok(()) }
}

fn origin(value: &str) -> Result<Origin, Expected> {
    const EXPECTED: Expected = "USER SESSION-ID SESSION-VERSION NETWORK, both numbers below 2^64";
    let mut parts = value.splitn(4, ' ');
    let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(EXPECTED);
    Ok(Origin {
        username: next()?.to_owned(),
        session_id: number(next()?, EXPECTED)?,
        session_version: number(next()?, EXPECTED)?,
        network: next()?.to_owned(),
    })
}

fn media(value: &str) -> Result<Media, Expected> {
    const EXPECTED: Expected = "KIND PORT[/PORTS] PROTOCOL FORMAT...";
    let mut parts = words(value);
    let mut next = || parts.next().ok_or(EXPECTED);
    let kind = MediaKind::from_name(next()?);
    let port = next()?;
    let (port, ports) = port.split_once('/').map_or((port, None), |(port, ports)| (port, Some(ports)));
    let protocol = next()?.to_owned();
    Ok(Media {
        kind,
        port: number(port, EXPECTED)?,
        ports: ports.map(|ports| number(ports, EXPECTED)).transpose()?,
        protocol,
        formats: parts.map(str::to_owned).collect(),
        lines: Vec::new(),
        attributes: Vec::new(),
    })
}
