//! Media sections (`m=`) and what is asked of them. Never reads or writes text; `description` and `write` do.

use sluice_table::Ssrc;

use super::attribute::{Attribute, Direction, Extmap, Msid, Rtpmap};
use super::description::Line;
use super::fields::payload_type;
use super::simulcast::{Rid, Simulcast};

/// What kind of media a section is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// `audio`.
    Audio,
    /// `video`.
    Video,
    /// `application`: data channels.
    Application,
    /// Any other.
    Other(String),
}

impl MediaKind {
    /// As it is written.
    pub fn name(&self) -> &str {
        match self {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
            MediaKind::Application => "application",
            MediaKind::Other(name) => name,
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> MediaKind {
        match name {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            "application" => MediaKind::Application,
            name => MediaKind::Other(name.to_owned()),
        }
    }
}

/// A media section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// What it is about.
    pub kind: MediaKind,
    /// Port; 0 rejects the section, unless it is bundle-only.
    pub port: u16,
    /// Number of ports.
    pub ports: Option<u16>,
    /// Protocol, e.g. `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// Formats, for RTP its payload types in order of preference.
    pub formats: Vec<String>,
    /// Its `i=`, `c=`, `b=`, `k=` and unknown lines, word for word.
    pub lines: Vec<Line>,
    /// Its attributes in order.
    pub attributes: Vec<Attribute>,
}

impl Media {
    /// An accepted section at the discard port without attributes.
    pub fn new(kind: MediaKind, protocol: &str, formats: &[&str]) -> Media {
        Media {
            kind,
            port: 9,
            ports: None,
            protocol: protocol.to_owned(),
            formats: formats.iter().map(|format| (*format).to_owned()).collect(),
            lines: vec![Line { kind: 'c', value: "IN IP4 0.0.0.0".to_owned() }],
            attributes: Vec::new(),
        }
    }

    /// Its mid.
    pub fn mid(&self) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| match attribute {
            Attribute::Mid(mid) => Some(mid.as_str()),
            _ => None,
        })
    }

    /// The direction it gives itself, the first if several are given; see [`SessionDescription::direction`].
    ///
    /// [`SessionDescription::direction`]: super::SessionDescription::direction
    pub fn direction(&self) -> Option<Direction> {
        direction(&self.attributes)
    }

    /// Whether it is refused: port 0 without `bundle-only`.
    pub fn rejected(&self) -> bool {
        self.port == 0 && !self.attributes.contains(&Attribute::BundleOnly)
    }

    /// Its RTP payload types in order of preference; formats that are none are left out.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        self.formats.iter().filter_map(|format| payload_type(format, "").ok())
    }

    /// What a payload type is.
    pub fn codec(&self, payload_type: u8) -> Option<&Rtpmap> {
        self.attributes.iter().find_map(|attribute| match attribute {
            Attribute::Rtpmap(map) if map.payload_type == payload_type => Some(map),
            _ => None,
        })
    }

    /// A parameter of a payload type's `fmtp`, e.g. `apt`; names are compared without case.
    pub fn parameter(&self, payload_type: u8, name: &str) -> Option<&str> {
        let format = payload_type.to_string();
        self.attributes
            .iter()
            .filter_map(|attribute| match attribute {
                Attribute::Fmtp { format: of, parameters } if *of == format => Some(parameters),
                _ => None,
            })
            .flat_map(|parameters| parameters.split(';'))
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(found, _)| found.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// RTX payload types of the `m=` line and the ones they repair, where that is on the `m=` line too (RFC 4588 §8.6).
    pub fn rtx(&self) -> impl Iterator<Item = (u8, u8)> {
        self.payload_types().filter(|at| self.is(*at, "rtx")).filter_map(|rtx| {
            let repaired = payload_type(self.parameter(rtx, "apt")?, "").ok()?;
            self.payload_types().any(|at| at == repaired).then_some((rtx, repaired))
        })
    }

    /// Whether a payload type has this encoding.
    pub fn is(&self, payload_type: u8, encoding: &str) -> bool {
        self.codec(payload_type).is_some_and(|codec| codec.encoding.eq_ignore_ascii_case(encoding))
    }

    /// Whether an RTCP feedback message is agreed for a payload type, e.g. `nack pli`.
    pub fn feedback(&self, payload_type: u8, message: &str) -> bool {
        self.attributes.iter().any(|attribute| match attribute {
            Attribute::RtcpFeedback(feedback) => {
                feedback.payload_type.is_none_or(|to| to == payload_type) && feedback.value == message
            }
            _ => false,
        })
    }

    /// Its header extensions.
    pub fn extensions(&self) -> impl Iterator<Item = &Extmap> {
        self.attributes.iter().filter_map(|attribute| match attribute {
            Attribute::Extmap(extension) => Some(extension),
            _ => None,
        })
    }

    /// Its SSRCs in order of appearance; one that has several attributes comes several times.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> {
        self.attributes.iter().filter_map(|attribute| match attribute {
            Attribute::Ssrc(attribute) => Some(attribute.ssrc),
            _ => None,
        })
    }

    /// The SSRC that repairs another one (`ssrc-group:FID`, RFC 5576 §4.2).
    pub fn repairing(&self, ssrc: Ssrc) -> Option<Ssrc> {
        self.attributes.iter().find_map(|attribute| match attribute {
            Attribute::SsrcGroup(group) if group.semantics == "FID" && group.ssrcs.first() == Some(&ssrc) => {
                group.ssrcs.get(1).copied()
            }
            _ => None,
        })
    }

    /// Its rids.
    pub fn rids(&self) -> impl Iterator<Item = &Rid> {
        self.attributes.iter().filter_map(|attribute| match attribute {
            Attribute::Rid(rid) => Some(rid),
            _ => None,
        })
    }

    /// Its `a=simulcast`.
    pub fn simulcast(&self) -> Option<&Simulcast> {
        self.attributes.iter().find_map(|attribute| match attribute {
            Attribute::Simulcast(simulcast) => Some(simulcast),
            _ => None,
        })
    }

    /// Its `a=msid`.
    pub fn msid(&self) -> Option<&Msid> {
        self.attributes.iter().find_map(|attribute| match attribute {
            Attribute::Msid(msid) => Some(msid),
            _ => None,
        })
    }
}

pub(super) fn direction(attributes: &[Attribute]) -> Option<Direction> {
    attributes.iter().find_map(|attribute| match attribute {
        Attribute::Direction(direction) => Some(*direction),
        _ => None,
    })
}
