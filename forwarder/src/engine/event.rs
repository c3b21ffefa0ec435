//! What a worker tells the management thread. Events are lossy only with a count.

use sluice_srtp::Ssrc;
use sluice_table::protocol::PacketInReason;

use super::staged::Generation;
use crate::wire::frame::Address;

/// Something that happened on a worker.
#[derive(Debug)]
pub enum Event {
    /// A leg's address was fixed by its first authenticated packet.
    RemoteLearned {
        /// The leg.
        leg: u32,
        /// Where its packets come from.
        remote: Address,
    },
    /// A learn rule matched an authenticated packet.
    StreamLearned {
        /// The leg.
        leg: u32,
        /// The list of the rule that matched.
        rule: u32,
        /// The SSRC it now stands for.
        ssrc: Ssrc,
        /// The stream's slot.
        slot: u32,
        /// Its number as a source.
        source: u32,
        /// The inbound key it was opened with, as [`LegConfig::inbound_incarnation`](super::rows::LegConfig) names it.
        incarnation: u64,
    },
    /// A learned stream was forgotten.
    StreamForgotten {
        /// The leg.
        leg: u32,
        /// The list of its rule.
        rule: u32,
        /// Its SSRC.
        ssrc: Ssrc,
    },
    /// RTCP in clear from a leg.
    RtcpIn {
        /// The leg.
        leg: u32,
        /// The compound packet.
        bytes: Box<[u8]>,
    },
    /// A STUN or DTLS packet that control must see.
    PacketIn {
        /// The leg, if the tuple is one of a leg.
        leg: Option<u32>,
        /// Index of the endpoint it arrived at.
        endpoint: u16,
        /// Sender.
        from: Address,
        /// Why control must see it.
        reason: PacketInReason,
        /// UDP payload.
        bytes: Box<[u8]>,
    },
    /// A leg's consent ran out: it gets nothing but STUN now.
    ConsentLost {
        /// The leg.
        leg: u32,
    },
    /// A leg's peer answered again after its consent had run out.
    ConsentBack {
        /// The leg.
        leg: u32,
    },
    /// How loud a stream is that competes by level.
    Level {
        /// The stream's list.
        list: u32,
        /// Its smoothed level (RFC 6464): 127 is silence.
        level: u8,
    },
    /// A receiver of this worker waits for a key frame of a source; repeated every 100 ms while it does.
    KeyFrameWanted {
        /// The source's number.
        source: u32,
    },
    /// A commit took effect.
    Flipped(Generation),
}

impl Event {
    /// Whether somebody waits for it: a handshake, a picture, or what a process killed now would forget. The others are
    /// in time at the next tick.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Event::PacketIn { .. } | Event::KeyFrameWanted { .. } | Event::StreamLearned { .. })
    }
}
