//! RTCP packets (RFC 3550 §6, RFC 4585, RFC 5104, transport-wide feedback): a walk over compounds that takes hostile
//! input, typed views of what is inside, and writers into a caller's buffer. Knows no keys and keeps no state.

pub mod nack;
pub mod payload;
pub mod report;
pub mod transport;

#[cfg(test)]
mod tests;

use sluice_srtp::Ssrc;

use super::{be16, be32};
use nack::Nack;
use payload::Fir;
use report::{Blocks, SenderInfo};
use transport::Feedback;

/// Packet types.
pub mod kind {
    /// Sender report (RFC 3550 §6.4.1).
    pub const SENDER_REPORT: u8 = 200;
    /// Receiver report (RFC 3550 §6.4.2).
    pub const RECEIVER_REPORT: u8 = 201;
    /// Source description (RFC 3550 §6.5).
    pub const DESCRIPTION: u8 = 202;
    /// Transport layer feedback (RFC 4585 §6.2).
    pub const TRANSPORT_FEEDBACK: u8 = 205;
    /// Payload-specific feedback (RFC 4585 §6.3).
    pub const PAYLOAD_FEEDBACK: u8 = 206;
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Packet type, see [`kind`].
    pub kind: u8,
    /// Count or feedback message type, 0 to 31.
    pub count: u8,
    /// What is behind the first word, without padding.
    pub body: &'a [u8],
    /// The packet as it is in the compound.
    pub whole: &'a [u8],
}

/// Walks over a compound's packets; ends at its end or where its lengths stop making sense.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    /// Walks over `compound`, in clear.
    pub fn new(compound: &'a [u8]) -> Self {
        Walk { rest: compound }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let first = *self.rest.first()?;
        if self.rest.len() < 4 || first >> 6 != 2 {
            self.rest = &[];
            return None;
        }
        let len = 4 * (usize::from(be16(self.rest, 2)) + 1);
        let Some(whole) = self.rest.get(..len) else {
            self.rest = &[];
            return None;
        };
        self.rest = &self.rest[len..];
        let mut body = &whole[4..];
        if first & 0x20 != 0 {
            let padding = usize::from(*body.last().unwrap_or(&0));
            if padding == 0 || padding > body.len() {
                self.rest = &[];
                return None;
            }
            body = &body[..body.len() - padding];
        }
        Some(Packet { kind: whole[1], count: first & 0x1f, body, whole })
    }
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A sender's own figures and what it receives.
    SenderReport {
        /// The sender.
        ssrc: Ssrc,
        /// Its figures.
        info: SenderInfo,
        /// What it receives.
        blocks: Blocks<'a>,
    },
    /// What a receiver receives.
    ReceiverReport {
        /// The receiver.
        ssrc: Ssrc,
        /// What it receives.
        blocks: Blocks<'a>,
    },
    /// A source description; its items are not looked at.
    Description,
    /// Packets asked for again.
    Nack(Nack<'a>),
    /// Arrival times of packets with a transport-wide number.
    Transport(Feedback<'a>),
    /// Picture loss indication.
    PictureLoss {
        /// Who asks.
        sender: Ssrc,
        /// The stream.
        media: Ssrc,
    },
    /// Full intra request.
    FullIntra(Fir<'a>),
    /// Receiver estimated maximum bit rate; its value is not used.
    Remb,
    /// Anything else.
    Other,
}

impl<'a> Packet<'a> {
    /// The packet's meaning; `None` where its own lengths contradict each other.
    pub fn message(&self) -> Option<Message<'a>> {
        let body = self.body;
        let pair = || (body.len() >= 8).then(|| (Ssrc(be32(body, 0)), Ssrc(be32(body, 4))));
        Some(match (self.kind, self.count) {
            (kind::SENDER_REPORT, count) => {
                let blocks = Blocks::new(body.get(24..)?, count)?;
                Message::SenderReport { ssrc: Ssrc(be32(body, 0)), info: SenderInfo::read(&body[4..24]), blocks }
            }
            (kind::RECEIVER_REPORT, count) => {
                let blocks = Blocks::new(body.get(4..)?, count)?;
                Message::ReceiverReport { ssrc: Ssrc(be32(body, 0)), blocks }
            }
            (kind::DESCRIPTION, _) => Message::Description,
            (kind::TRANSPORT_FEEDBACK, nack::FORMAT) => Message::Nack(Nack::read(body)?),
            (kind::TRANSPORT_FEEDBACK, transport::FORMAT) => Message::Transport(Feedback::read(body)?),
            (kind::PAYLOAD_FEEDBACK, payload::PLI) => {
                let (sender, media) = pair()?;
                Message::PictureLoss { sender, media }
            }
            (kind::PAYLOAD_FEEDBACK, payload::FIR) => Message::FullIntra(Fir::read(body)?),
            (kind::PAYLOAD_FEEDBACK, 15) if body.get(8..12) == Some(b"REMB") => Message::Remb,
            _ => Message::Other,
        })
    }
}

/// Writes the first word of a packet of `len` bytes, a multiple of four.
fn write_head(out: &mut [u8], kind: u8, count: u8, len: usize) {
    out[0] = 0x80 | (count & 0x1f);
    out[1] = kind;
    out[2..4].copy_from_slice(&((len / 4 - 1) as u16).to_be_bytes());
}

fn put32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// A compound being written: packets one behind the other for as long as there is room.
#[derive(Debug)]
pub struct Compound<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Compound<'a> {
    /// An empty compound in `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Compound { out, len: 0 }
    }

    /// Appends what `write` writes; `false`, with nothing appended, when it says `None`.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let written = write(&mut self.out[self.len..]);
        self.len += written.unwrap_or(0);
        written.is_some()
    }

    /// Bytes left.
    pub fn room(&self) -> usize {
        self.out.len() - self.len
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
