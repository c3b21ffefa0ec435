//! Descriptions as text: CRLF after every line, the session's lines in the order of RFC 8866 §9.

use std::fmt;

use super::attribute::{Attribute, Extmap, Rtpmap};
use super::description::{Line, SessionDescription};
use super::media::Media;
use crate::transport::Setup;

impl fmt::Display for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        write!(f, "v=0\r\no={} {}", origin.username, origin.session_id)?;
        write!(f, " {} {}\r\ns={}\r\n", origin.session_version, origin.network, self.name)?;
        rest(f, &self.lines, &self.attributes)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {}", self.kind.name(), self.port)?;
        self.ports.iter().try_for_each(|ports| write!(f, "/{ports}"))?;
        write!(f, " {}", self.protocol)?;
        self.formats.iter().try_for_each(|format| write!(f, " {format}"))?;
        f.write_str("\r\n")?;
        rest(f, &self.lines, &self.attributes)
    }
}

fn rest(f: &mut fmt::Formatter<'_>, lines: &[Line], attributes: &[Attribute]) -> fmt::Result {
    lines.iter().try_for_each(|line| write!(f, "{}={}\r\n", line.kind, line.value))?;
    attributes.iter().try_for_each(|attribute| write!(f, "a={attribute}\r\n"))
}

/// The value of an `a=` line, without the `a=`. Writes the ICE password in clear.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Group(group) => {
                write!(f, "group:{}", group.semantics)?;
                group.mids.iter().try_for_each(|mid| write!(f, " {mid}"))
            }
            Attribute::Mid(mid) => write!(f, "mid:{mid}"),
            Attribute::Msid(msid) => {
                write!(f, "msid:{}", msid.stream)?;
                msid.track.iter().try_for_each(|track| write!(f, " {track}"))
            }
            Attribute::IceUfrag(ufrag) => write!(f, "ice-ufrag:{ufrag}"),
            Attribute::IcePassword(password) => write!(f, "ice-pwd:{}", password.0),
            Attribute::IceOptions(options) => write!(f, "ice-options:{}", options.join(" ")),
            Attribute::IceLite => f.write_str("ice-lite"),
            Attribute::Candidate(candidate) => write!(f, "candidate:{candidate}"),
            Attribute::EndOfCandidates => f.write_str("end-of-candidates"),
            Attribute::Fingerprint(fingerprint) => write!(f, "fingerprint:{fingerprint}"),
            Attribute::Setup(setup) => f.write_str(match setup {
                Setup::Active => "setup:active",
                Setup::Passive => "setup:passive",
                Setup::ActPass => "setup:actpass",
            }),
            Attribute::RtcpMux => f.write_str("rtcp-mux"),
            Attribute::RtcpRsize => f.write_str("rtcp-rsize"),
            Attribute::Rtpmap(map) => rtpmap(f, map),
            Attribute::Fmtp { format, parameters } => write!(f, "fmtp:{format} {parameters}"),
            Attribute::RtcpFeedback(feedback) => match feedback.payload_type {
                Some(payload_type) => write!(f, "rtcp-fb:{payload_type} {}", feedback.value),
                None => write!(f, "rtcp-fb:* {}", feedback.value),
            },
            Attribute::Extmap(extension) => extmap(f, extension),
            Attribute::ExtmapAllowMixed => f.write_str("extmap-allow-mixed"),
            Attribute::Ssrc(ssrc) => {
                write!(f, "ssrc:{}", ssrc.ssrc.0)?;
                ssrc.attribute.iter().try_for_each(|attribute| write!(f, " {attribute}"))
            }
            Attribute::SsrcGroup(group) => {
                write!(f, "ssrc-group:{}", group.semantics)?;
                group.ssrcs.iter().try_for_each(|ssrc| write!(f, " {}", ssrc.0))
            }
            Attribute::Rid(rid) => write!(f, "rid:{rid}"),
            Attribute::Simulcast(simulcast) => write!(f, "simulcast:{simulcast}"),
            Attribute::SctpPort(port) => write!(f, "sctp-port:{port}"),
            Attribute::Sctpmap(map) => write!(f, "sctpmap:{map}"),
            Attribute::MaxMessageSize(size) => write!(f, "max-message-size:{size}"),
            Attribute::Direction(direction) => f.write_str(direction.name()),
            Attribute::BundleOnly => f.write_str("bundle-only"),
            Attribute::Tool(tool) => write!(f, "tool:{tool}"),
            Attribute::Ptime(milliseconds) => write!(f, "ptime:{milliseconds}"),
            Attribute::MaxPtime(milliseconds) => write!(f, "maxptime:{milliseconds}"),
            Attribute::Other { name, value } => {
                f.write_str(name)?;
                value.iter().try_for_each(|value| write!(f, ":{value}"))
            }
        }
    }
}

fn rtpmap(f: &mut fmt::Formatter<'_>, map: &Rtpmap) -> fmt::Result {
    write!(f, "rtpmap:{} {}/{}", map.payload_type, map.encoding, map.clock_rate)?;
    map.channels.iter().try_for_each(|channels| write!(f, "/{channels}"))
}

fn extmap(f: &mut fmt::Formatter<'_>, extension: &Extmap) -> fmt::Result {
    write!(f, "extmap:{}", extension.id)?;
    extension.direction.iter().try_for_each(|direction| write!(f, "/{}", direction.name()))?;
    write!(f, " {}", extension.uri)?;
    extension.attributes.iter().try_for_each(|text| write!(f, " {text}"))
}
