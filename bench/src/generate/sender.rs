//! Builds, seals and queues due packets over any port. Open loop: a packet that could not go in time goes late and
//! is charged for it, and one that is far too late is given up and counted, but the schedule never waits.

use arrayvec::ArrayVec;
use serde::Serialize;
use sluice_forwarder::io::{BURST, PacketIo, TxFrame};
use sluice_forwarder::wire::template::{Hop, Template};
use sluice_srtp::job::SealJob;
use sluice_srtp::{AnyProvider, PacketIndex, Profile, Provider as _, SendIndex, SentWindow, Seq, SessionKeys, Ssrc};

use super::impair::{Fate, Impaired, Impairer};
use crate::error::BenchError;
use crate::keys::Session;
use crate::latency::Latency;
use crate::shape::{Due, Schedule};
use crate::stamp::{STAMP_LEN, Stamp};

const RTP_LEN: usize = 12;
/// Payload bytes at most: an Ethernet frame of 1,500 bytes less IPv6, UDP, RTP and tag.
pub(crate) const MAX_PAYLOAD: usize = 1_500 - 40 - 8 - RTP_LEN - Profile::MAX_TAG;
/// A packet this late (nanoseconds) is given up.
const GIVE_UP: u64 = 100_000_000;

/// Totals of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sent {
    /// Packets handed to the kernel, copies included.
    pub(crate) packets: u64,
    /// Bytes of them, headers included.
    pub(crate) bytes: u64,
    /// Packets that were due and given up because the port had no room for too long.
    pub(crate) unsent: u64,
}

struct Stream {
    publisher: usize,
    ssrc: u32,
    payload_type: u8,
    window: SentWindow,
    sequence: u64,
}

struct Publisher {
    keys: Option<SessionKeys>,
    template: Template,
}

struct Pending {
    frame: TxFrame,
    stream: usize,
    len: usize,
    index: Option<SendIndex>,
}

/// Sends the schedule of a session's streams.
pub(crate) struct Sender<I> {
    io: I,
    publishers: Vec<Publisher>,
    streams: Vec<Stream>,
    schedule: Schedule,
    provider: AnyProvider,
    tag: usize,
    impairer: Impairer,
    /// Clear payloads, one for each packet of a burst; only their stamps change.
    plains: Vec<[u8; MAX_PAYLOAD]>,
    start: u64,
    fast: bool,
    checksum: bool,
    sent: Sent,
    late: Latency,
}

impl<I: PacketIo> Sender<I> {
    /// Prepares everything; `hop` tells how frames to the forwarder leave (a kernel socket ignores it).
    pub(crate) fn new(
        io: I,
        session: &Session,
        hop: impl Fn(usize) -> Hop,
        schedule: Schedule,
        mut provider: AnyProvider,
        impairer: Impairer,
    ) -> Result<Self, BenchError> {
        let (mut publishers, mut streams) = (Vec::new(), Vec::new());
        for (number, one) in session.publishers.iter().enumerate() {
            let keys = one.key.as_ref().map(|key| Ok::<_, BenchError>(provider.expand(&key.master()?))).transpose()?;
            let to = one.to.unwrap_or(session.forwarder);
            let template = Template::new(hop(number), one.local, to).ok_or_else(|| BenchError::Refused {
                what: format!("addressing {to} from {}", one.local),
                why: "one is IPv4 and the other IPv6".to_owned(),
            })?;
            publishers.push(Publisher { keys, template });
            streams.extend(one.streams.iter().map(|stream| Stream {
                publisher: number,
                ssrc: stream.ssrc,
                payload_type: stream.payload_type,
                window: SentWindow::new(PacketIndex::new(0, Seq(stream.first_sequence))),
                sequence: 0,
            }));
        }
        let checksum = io.wants_checksum();
        let tag = session.publisher_protection().0.map_or(0, Profile::rtp_tag_len);
        Ok(Sender {
            io,
            publishers,
            streams,
            schedule,
            provider,
            tag,
            impairer,
            plains: vec![[0x5a; MAX_PAYLOAD]; BURST],
            start: 0,
            fast: false,
            checksum,
            sent: Sent::default(),
            late: Latency::new(),
        })
    }

    /// Sets when the schedule starts; `fast` sends as fast as the port takes it and knows no due times.
    pub(crate) fn start(&mut self, at: u64, fast: bool) {
        self.start = at;
        self.fast = fast;
    }

    /// Sends what is due; returns how many packets.
    pub(crate) fn step(&mut self, now: u64) -> usize {
        let mut sent = self.release_held(now);
        let mut pending = self.gather(now);
        if !pending.is_empty() {
            self.seal(&mut pending);
            sent += pending.len();
            self.submit(pending, now);
        }
        if sent > 0 || self.fast {
            self.io.flush();
        }
        sent
    }

    /// Takes due packets off the schedule into frames.
    fn gather(&mut self, now: u64) -> ArrayVec<Pending, BURST> {
        let mut pending = ArrayVec::new();
        let elapsed = now.saturating_sub(self.start);
        if now < self.start || (!self.fast && self.schedule.next_at() > elapsed) {
            return pending;
        }
        let mut credit = self.io.credit();
        while !pending.is_full() {
            if credit == 0 {
                self.give_up(elapsed);
                break;
            }
            let due = if self.fast { self.schedule.pop_now() } else { self.schedule.pop(elapsed) };
            let Some(due) = due else { break };
            let at = if self.fast { now } else { self.start + due.at };
            if !self.fast {
                self.late.record(now as i64 - at as i64);
            }
            let slot = pending.len();
            match self.build(due, at, slot) {
                Some(one) => pending.push(one),
                None => self.sent.unsent += 1,
            }
            credit -= 1;
        }
        pending
    }

    /// Writes headers and stamp of one packet.
    fn build(&mut self, due: Due, at: u64, slot: usize) -> Option<Pending> {
        let number = due.stream as usize % self.streams.len();
        let stream = &mut self.streams[number];
        let index = stream.window.next().and_then(|next| stream.window.issue(next).ok())?;
        let mut frame = self.io.acquire()?;
        let template = &self.publishers[stream.publisher].template;
        let rtp = &mut frame[template.len()..template.len() + RTP_LEN];
        rtp[0] = 0x80;
        rtp[1] = stream.payload_type | if due.marker { 0x80 } else { 0 };
        rtp[2..4].copy_from_slice(&index.index().seq().0.to_be_bytes());
        rtp[4..8].copy_from_slice(&due.timestamp.to_be_bytes());
        rtp[8..12].copy_from_slice(&stream.ssrc.to_be_bytes());
        let stamp = Stamp { stream: number as u32, sequence: stream.sequence, due: at };
        stamp.write(&mut self.plains[slot]);
        stream.sequence += 1;
        Some(Pending { frame, stream: number, len: due.len.clamp(STAMP_LEN, MAX_PAYLOAD), index: Some(index) })
    }

    fn seal(&mut self, pending: &mut ArrayVec<Pending, BURST>) {
        let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
        for (one, plain) in pending.iter_mut().zip(&self.plains) {
            let stream = &self.streams[one.stream];
            let Publisher { keys, template } = &self.publishers[stream.publisher];
            let frame = &mut one.frame[template.len()..];
            let plain = &plain[..one.len];
            match (keys, one.index.take()) {
                (Some(keys), Some(index)) => {
                    jobs.push(SealJob { keys, ssrc: Ssrc(stream.ssrc), index, plain, frame, header_len: RTP_LEN });
                }
                _ => frame[RTP_LEN..RTP_LEN + plain.len()].copy_from_slice(plain),
            }
        }
        self.provider.seal(&mut jobs);
    }

    fn submit(&mut self, pending: ArrayVec<Pending, BURST>, now: u64) {
        let impaired = self.impairer.is_active();
        for Pending { mut frame, stream, len, .. } in pending {
            let template = &self.publishers[self.streams[stream].publisher].template;
            let len = template.write(&mut frame, RTP_LEN + len + self.tag, 0, self.checksum);
            if impaired {
                let (first, second) = match self.impairer.decide() {
                    Fate::Lost => (None, None),
                    Fate::Once(hold) => (Some(hold), None),
                    Fate::Twice(hold, other) => (Some(hold), Some(other)),
                };
                for hold in [first, second].into_iter().flatten() {
                    self.impairer.keep(now + hold, &frame[..len]);
                }
                self.io.cancel(frame);
                continue;
            }
            self.count(len);
            self.io.submit(frame, len);
        }
        if impaired {
            self.release_held(now);
        }
    }

    /// Sends held frames whose time has come.
    fn release_held(&mut self, now: u64) -> usize {
        let mut released = 0;
        while self.impairer.held() > 0 && self.io.credit() > 0 {
            let Some(bytes) = self.impairer.due(now) else { break };
            let Some(mut frame) = self.io.acquire() else {
                self.sent.unsent += 1;
                break;
            };
            frame[..bytes.len()].copy_from_slice(&bytes);
            self.count(bytes.len());
            self.io.submit(frame, bytes.len());
            released += 1;
        }
        released
    }

    /// Skips packets that are far too late; they take no sequence number.
    fn give_up(&mut self, elapsed: u64) {
        if !self.fast && elapsed > GIVE_UP {
            while self.schedule.pop(elapsed - GIVE_UP).is_some() {
                self.sent.unsent += 1;
            }
        }
    }

    fn count(&mut self, len: usize) {
        self.sent.packets += 1;
        self.sent.bytes += len as u64;
    }

    /// Totals so far. What a kernel socket refused counts as not sent.
    pub(crate) fn sent(&mut self) -> Sent {
        let failed = self.io.counters().tx_failed;
        Sent {
            packets: self.sent.packets - failed.min(self.sent.packets),
            unsent: self.sent.unsent + failed,
            ..self.sent
        }
    }

    /// Packets made so far of each stream.
    pub(crate) fn made(&self) -> impl Iterator<Item = u64> + '_ {
        self.streams.iter().map(|stream| stream.sequence)
    }

    /// What was done to packets on purpose.
    pub(crate) fn impaired(&self) -> Impaired {
        self.impairer.totals()
    }

    /// How late packets were handed to the kernel.
    pub(crate) fn late(&mut self) -> &mut Latency {
        &mut self.late
    }

    /// Whether everything that is held or queued has gone; call [`step`](Self::step) until then.
    pub(crate) fn is_drained(&self) -> bool {
        self.impairer.held() == 0
    }

    /// Sends no more new packets; held ones still go.
    pub(crate) fn stop(&mut self) {
        self.start = u64::MAX;
    }
}

impl<I> std::fmt::Debug for Sender<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("sent", &self.sent).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
