//! Packets that are not forwarded media: answers and checks of STUN, RTCP and packets of control. A bounded queue
//! that is emptied ahead of audio, built straight into transmit frames.

use std::collections::VecDeque;

use sluice_srtp::Ssrc;
use sluice_srtp::provider::Provider;
use sluice_table::DropReason;

use super::command::Garbage;
use super::ports::{PortId, Ports};
use super::rows::LegConfig;
use super::run::Engine;
use super::stun::message::{BINDING, Builder, Class, TransactionId};
use super::time::Nanos;
use crate::io::TxFrame;
use crate::wire::be32;
use crate::wire::frame::{self, Address};
use crate::wire::template::Template;

/// Packets that can wait.
const CAPACITY: usize = 1_024;
/// Packets sent in one step, so that audio keeps most of it.
const STEP_PACKETS: u32 = 64;
/// DSCP of everything here but packets that go again, which keep their stream's: STUN, DTLS and RTCP of a browser go with
/// its interactive media (RFC 8837 §5).
pub(super) const DSCP: u8 = 34;
/// Priority in our checks: of a peer-reflexive candidate (RFC 8445 §7.1.1), component 1.
const PRIORITY: u32 = 110 << 24 | 0xffff << 8 | 255;

/// A packet to send.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Success response to a binding request, to where it came from.
    Answer { leg: u32, to: Address, transaction: TransactionId },
    /// Consent check.
    Check { leg: u32, to: Address, transaction: TransactionId },
    /// RTCP in clear, to be sealed.
    Rtcp { leg: u32, bytes: Box<[u8]> },
    /// A packet of a stream that its receiver asks for again.
    Again { leg: u32, slot: u32, seq: u16 },
    /// A datagram of control to one of the leg's tuples.
    Packet { leg: u32, to: Address, bytes: Box<[u8]> },
}

impl Outgoing {
    fn leg(&self) -> u32 {
        let (Outgoing::Answer { leg, .. }
        | Outgoing::Check { leg, .. }
        | Outgoing::Rtcp { leg, .. }
        | Outgoing::Again { leg, .. }
        | Outgoing::Packet { leg, .. }) = self;
        *leg
    }

    fn into_garbage(self) -> Option<Garbage> {
        match self {
            Outgoing::Rtcp { bytes, .. } | Outgoing::Packet { bytes, .. } => Some(Garbage::Bytes(bytes)),
            Outgoing::Answer { .. } | Outgoing::Check { .. } | Outgoing::Again { .. } => None,
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct OutgoingQueue(VecDeque<Outgoing>);

impl OutgoingQueue {
    pub(super) fn new() -> Self {
        OutgoingQueue(VecDeque::with_capacity(CAPACITY))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a packet did not go out.
pub(super) enum Failure {
    /// For good.
    Drop(DropReason),
    /// No frame: come back.
    NoFrame,
}

impl From<DropReason> for Failure {
    fn from(reason: DropReason) -> Self {
        Failure::Drop(reason)
    }
}

/// The way to one of a leg's tuples.
pub(super) struct Way<'a> {
    pub(super) port: PortId,
    pub(super) template: &'a Template,
    /// Room for the UDP payload, in bytes.
    pub(super) room: usize,
}

pub(super) fn way(leg: &LegConfig, to: Option<Address>) -> Result<Way<'_>, DropReason> {
    let tuple = to.and_then(|to| leg.ice.as_ref()?.tuple(to));
    let (port, template, room) = match tuple {
        Some(tuple) => (tuple.port, tuple.template.as_ref(), tuple.room),
        None if leg.remote.is_none() || to.is_some_and(|to| leg.remote != Some(to)) => {
            return Err(DropReason::NoRemote);
        }
        None => (leg.port, leg.template.as_ref(), leg.largest_rtp),
    };
    let template = template.ok_or(DropReason::NoNextHop)?;
    Ok(Way { port, template, room: usize::from(room) })
}

impl<C: Provider> Engine<C> {
    /// Queues a packet; counts it as dropped when the queue is full.
    pub(super) fn queue_outgoing(&mut self, outgoing: Outgoing) {
        if self.outgoing.0.len() < CAPACITY {
            self.outgoing.0.push_back(outgoing);
        } else {
            self.counters.drop(DropReason::QueueFull);
            self.discard(outgoing.into_garbage());
        }
    }

    /// Forgets what waits for a leg that is gone: its slot may be another's next.
    pub(super) fn forget_outgoing(&mut self, leg: u32) {
        for _ in 0..self.outgoing.0.len() {
            let Some(outgoing) = self.outgoing.0.pop_front() else { return };
            if outgoing.leg() == leg {
                self.counters.drop(DropReason::Removed);
                self.discard(outgoing.into_garbage());
            } else {
                self.outgoing.0.push_back(outgoing);
            }
        }
    }

    /// Sends what waits, at most `budget` packets; returns how many went out.
    pub(super) fn send_outgoing<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        let mut sent = 0;
        for _ in 0..budget.min(STEP_PACKETS) {
            let Some(outgoing) = self.outgoing.0.pop_front() else { break };
            match self.send_one(now, &outgoing, ports) {
                Ok(()) => sent += 1,
                Err(Failure::Drop(reason)) => self.counters.drop(reason),
                Err(Failure::NoFrame) => {
                    self.outgoing.0.push_front(outgoing);
                    break;
                }
            }
            self.discard(outgoing.into_garbage());
        }
        sent
    }

    fn send_one<P: Ports>(&mut self, now: Nanos, outgoing: &Outgoing, ports: &mut P) -> Result<(), Failure> {
        if let Outgoing::Again { leg, slot, seq } = *outgoing {
            return self.send_again(now, (leg, slot, seq), ports);
        }
        let row = &self.legs[outgoing.leg() as usize];
        let leg = row.config.get(self.generation).ok_or(DropReason::Removed)?;
        let (to, is_stun) = match outgoing {
            Outgoing::Answer { to, .. } | Outgoing::Check { to, .. } => (Some(*to), true),
            Outgoing::Packet { to, bytes, .. } => (Some(*to), frame::classify(bytes) == frame::Class::Stun),
            Outgoing::Rtcp { .. } | Outgoing::Again { .. } => (None, false),
        };
        if !is_stun && !row.ice.may_send(now) {
            return Err(DropReason::ConsentLost.into());
        }
        let way = way(leg, to)?;
        let mut frame = ports.acquire(way.port).ok_or(Failure::NoFrame)?;
        let start = way.template.len();
        let room = &mut frame[start..start + way.room];
        let written = match outgoing {
            Outgoing::Answer { to, transaction, .. } => answer(leg, *to, transaction, room),
            Outgoing::Check { transaction, .. } => check(leg, transaction, room),
            Outgoing::Packet { bytes, .. } => copy(bytes, room),
            Outgoing::Rtcp { bytes, .. } => seal(&mut self.crypto, leg, bytes, room),
            Outgoing::Again { .. } => Err(DropReason::Removed), // went its own way above
        };
        let counter = match outgoing {
            Outgoing::Answer { .. } => &mut self.counters.stun_answered,
            Outgoing::Check { .. } => &mut self.counters.consent_checks,
            Outgoing::Packet { .. } => &mut self.counters.packet_out,
            Outgoing::Rtcp { .. } | Outgoing::Again { .. } => &mut self.counters.rtcp_out,
        };
        submit(&way, frame, written, DSCP, ports)?;
        *counter += 1;
        Ok(())
    }
}

pub(super) fn submit<P: Ports>(
    way: &Way<'_>,
    mut frame: TxFrame,
    written: Result<usize, DropReason>,
    dscp: u8,
    ports: &mut P,
) -> Result<(), DropReason> {
    match written {
        Ok(len) => {
            let len = way.template.write(&mut frame, len, dscp, ports.wants_checksum(way.port));
            ports.submit(way.port, frame, len);
            Ok(())
        }
        Err(reason) => {
            ports.cancel(way.port, frame);
            Err(reason)
        }
    }
}

fn answer(leg: &LegConfig, to: Address, id: &TransactionId, room: &mut [u8]) -> Result<usize, DropReason> {
    let ice = leg.ice.as_deref().ok_or(DropReason::Removed)?;
    let builder = Builder::new(room, Class::Success, BINDING, id).mapped(to);
    builder.finish(&ice.local_key).ok_or(DropReason::Mtu)
}

fn check(leg: &LegConfig, id: &TransactionId, room: &mut [u8]) -> Result<usize, DropReason> {
    let ice = leg.ice.as_deref().ok_or(DropReason::Removed)?;
    let builder = Builder::new(room, Class::Request, BINDING, id)
        .username(&ice.remote_ufrag, &ice.local_ufrag)
        .priority(PRIORITY)
        .role(ice.role, ice.tie_breaker);
    builder.finish(&ice.remote_key).ok_or(DropReason::Mtu)
}

fn copy(bytes: &[u8], room: &mut [u8]) -> Result<usize, DropReason> {
    room.get_mut(..bytes.len()).ok_or(DropReason::Mtu)?.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// Seals an RTCP compound under an index that was stored as used before.
pub(super) fn seal<C: Provider>(
    crypto: &mut C,
    leg: &LegConfig,
    bytes: &[u8],
    room: &mut [u8],
) -> Result<usize, DropReason> {
    if bytes.len() < 8 || !super::rtcp::well_formed(bytes) {
        return Err(DropReason::RtcpHeader);
    }
    if leg.plain {
        return copy(bytes, room);
    }
    let keys = leg.outbound.as_deref().ok_or(DropReason::SrtcpNoKey)?;
    let row = leg.rtcp.send.as_ref().ok_or(DropReason::SrtcpNoKey)?;
    if bytes.len() + keys.profile().rtcp_tag_len() + 4 > room.len() {
        return Err(DropReason::Mtu);
    }
    let index = row.take_rtcp_index().ok_or(DropReason::SrtcpIndexExhausted)?;
    copy(bytes, room)?;
    match crypto.seal_rtcp(keys, Ssrc(be32(bytes, 4)), index, room, bytes.len()) {
        0 => Err(DropReason::SrtcpNoKey), // counted by the provider as refused, too
        len => Ok(len),
    }
}
