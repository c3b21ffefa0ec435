//! Restriction identifiers (RFC 8851) and simulcast (RFC 8853).

use std::fmt;

use super::fields::{Expected, words};

/// Which way the stream of a rid goes, as its writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RidDirection {
    /// The writer sends it.
    Send,
    /// The writer receives it.
    Recv,
}

/// `a=rid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rid {
    /// Its name, 1 to 255 letters, digits, `-` and `_`.
    pub id: String,
    /// Which way it goes.
    pub direction: RidDirection,
    /// Restrictions as they were given, e.g. `pt=96;max-width=1280`.
    pub restrictions: Option<String>,
}

/// One way to encode a simulcast stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// The rid.
    pub rid: String,
    /// Whether it starts paused (`~`).
    pub paused: bool,
}

/// `a=simulcast`: for each stream its alternatives, preferred first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simulcast {
    /// Streams the writer sends.
    pub send: Vec<Vec<Alternative>>,
    /// Streams the writer receives.
    pub recv: Vec<Vec<Alternative>>,
}

/// Rids each way; senders use three.
const MOST: usize = 64;

fn rid_id(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

impl Rid {
    pub(super) fn parse(value: &str) -> Result<Rid, Expected> {
        const EXPECTED: Expected = "ID send|recv [restrictions], ID of letters, digits, - and _";
        let mut parts = value.trim_start().splitn(3, ' ');
        let id = parts.next().filter(|id| rid_id(id)).ok_or(EXPECTED)?;
        let direction = match parts.next() {
            Some("send") => RidDirection::Send,
            Some("recv") => RidDirection::Recv,
            _ => return Err(EXPECTED),
        };
        let restrictions = parts.next().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Rid { id: id.to_owned(), direction, restrictions })
    }
}

impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            RidDirection::Send => "send",
            RidDirection::Recv => "recv",
        };
        write!(f, "{} {direction}", self.id)?;
        self.restrictions.iter().try_for_each(|text| write!(f, " {text}"))
    }
}

impl Simulcast {
    pub(super) fn parse(value: &str) -> Result<Simulcast, Expected> {
        const EXPECTED: Expected = "send and/or recv, each with a list of rids such as h;~l or h,m;l";
        let mut simulcast = Simulcast::default();
        let mut parts = words(value);
        while let Some(direction) = parts.next() {
            let streams = parts.next().ok_or(EXPECTED)?;
            if streams.matches([';', ',']).count() >= MOST {
                return Err("at most 64 rids each way");
            }
            let streams = streams.split(';').map(alternatives).collect::<Option<Vec<_>>>().ok_or(EXPECTED)?;
            let list = match direction {
                "send" => &mut simulcast.send,
                "recv" => &mut simulcast.recv,
                _ => return Err(EXPECTED),
            };
            if !list.is_empty() {
                return Err(EXPECTED);
            }
            *list = streams;
        }
        if simulcast.send.is_empty() && simulcast.recv.is_empty() { Err(EXPECTED) } else { Ok(simulcast) }
    }
}

fn alternatives(text: &str) -> Option<Vec<Alternative>> {
    text.split(',')
        .map(|text| {
            let (rid, paused) = text.strip_prefix('~').map_or((text, false), |rid| (rid, true));
            rid_id(rid).then(|| Alternative { rid: rid.to_owned(), paused })
        })
        .collect()
}

impl fmt::Display for Simulcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (direction, streams) in [("send", &self.send), ("recv", &self.recv)] {
            if streams.is_empty() {
                continue;
            }
            write!(f, "{space}{direction} ")?;
            space = " ";
            for (at, stream) in streams.iter().enumerate() {
                f.write_str(if at == 0 { "" } else { ";" })?;
                for (at, alternative) in stream.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{}{}", if alternative.paused { "~" } else { "" }, alternative.rid)?;
                }
            }
        }
        Ok(())
    }
}
