//! Media before keys: what an established leg sends while its key is still on the way is kept for a moment and runs, in
//! order of arrival, once a commit brought the key. Policed before it is kept; at most 64 packets of a leg, the newest,
//! none older than 300 ms. Their memory is the slab's, at most an eighth of it. Never looks behind an RTP header.

use arrayvec::ArrayVec;
use sluice_srtp::provider::Provider;
use sluice_table::DropReason;

use super::admit::rtp_reason;
use super::cell::{CellId, PAYLOAD_ROOM};
use super::receive::{Candidate, Input, Path};
use super::rows::{LegConfig, TupleOwner};
use super::run::Engine;
use super::time::Nanos;
use crate::io::BURST;
use crate::wire::frame::{Address, Class};
use crate::wire::rtp;

/// Packets kept of a leg.
const OF_A_LEG: u8 = 64;
/// How long a packet is kept.
const PATIENCE: Nanos = Nanos::from_millis(300);
/// Part of the slab that may be kept.
const SHARE: usize = 8;

const NONE: u32 = u32::MAX;

/// A packet that waits.
#[derive(Clone, Copy, Debug)]
struct Kept {
    leg: u32,
    cell: CellId,
    len: u16,
    endpoint: u16,
    class: Class,
    remote: Address,
    arrived: Nanos,
    /// Places of its neighbours in order of arrival, and of the leg's next packet.
    before: u32,
    after: u32,
    of_leg: u32,
}

/// A leg's packets, first to last.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
    len: u8,
}

/// Packets that wait for keys.
#[derive(Debug)]
pub(super) struct Early {
    places: Vec<Kept>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    legs: Vec<Queue>,
    /// A commit may have brought keys since the packets were last looked through.
    due: bool,
}

impl Early {
    pub(super) fn new(legs: usize, cells: usize) -> Self {
        let places = (cells / SHARE).max(1);
        let nobody = Kept {
            leg: 0,
            cell: CellId(0),
            len: 0,
            endpoint: 0,
            class: Class::Other,
            remote: Address { ip: 0, port: 0 },
            arrived: Nanos(0),
            before: NONE,
            after: NONE,
            of_leg: NONE,
        };
        Early {
            places: vec![nobody; places],
            free: (0..places as u32).rev().collect(),
            oldest: NONE,
            newest: NONE,
            legs: vec![Queue { first: NONE, last: NONE, len: 0 }; legs],
            due: false,
        }
    }

    /// Whether packets of a leg wait.
    #[inline(always)]
    pub(super) fn holds(&self, leg: u32) -> bool {
        self.oldest != NONE && self.legs[leg as usize].len > 0
    }

    /// A commit took effect.
    pub(super) fn flipped(&mut self) {
        self.due = self.oldest != NONE;
    }

    /// When there is something to do: packets to run, or to give up.
    pub(super) fn deadline(&self) -> Nanos {
        match self.places.get(self.oldest as usize) {
            None => Nanos::NEVER,
            Some(_) if self.due => Nanos(0),
            Some(kept) => kept.arrived + PATIENCE,
        }
    }

    /// The packet that has to go before another one of a leg can come, if any: the leg's own oldest, or of all where
    /// the leg has none and there is no room.
    fn crowded(&self, leg: u32) -> Option<u32> {
        let queue = &self.legs[leg as usize];
        match (queue.len, self.free.is_empty()) {
            (OF_A_LEG, _) => Some(queue.first),
            (0, true) => Some(self.oldest),
            (_, true) => Some(queue.first),
            (_, false) => None,
        }
    }

    /// Adds a packet behind all others; the caller made room.
    fn add(&mut self, kept: Kept) {
        let Some(place) = self.free.pop() else { return };
        self.places[place as usize] = Kept { before: self.newest, after: NONE, of_leg: NONE, ..kept };
        match self.places.get_mut(self.newest as usize) {
            Some(newest) => newest.after = place,
            None => self.oldest = place,
        }
        self.newest = place;
        let queue = &mut self.legs[kept.leg as usize];
        match self.places.get_mut(queue.last as usize) {
            Some(last) => last.of_leg = place,
            None => queue.first = place,
        }
        (queue.last, queue.len) = (place, queue.len + 1);
    }

    /// Takes a leg's first packet out.
    fn take(&mut self, leg: u32) -> Option<Kept> {
        let queue = &mut self.legs[leg as usize];
        let place = queue.first;
        let kept = *self.places.get(place as usize)?;
        (queue.first, queue.len) = (kept.of_leg, queue.len - 1);
        if kept.of_leg == NONE {
            queue.last = NONE;
        }
        match self.places.get_mut(kept.before as usize) {
            Some(before) => before.after = kept.after,
            None => self.oldest = kept.after,
        }
        match self.places.get_mut(kept.after as usize) {
            Some(after) => after.before = kept.before,
            None => self.newest = kept.before,
        }
        self.free.push(place);
        Some(kept)
    }
}

/// Whether a leg is established and its key still on the way. A static leg without one would wait for ever.
#[inline(always)]
pub(super) fn waits(leg: &LegConfig) -> bool {
    leg.inbound.is_none() && !leg.plain && leg.ice.is_some()
}

impl<C: Provider> Engine<C> {
    /// Keeps a policed packet of a leg owned here.
    pub(super) fn keep_early(
        &mut self,
        now: Nanos,
        input: &Input<'_>,
        leg: u32,
        class: Class,
    ) -> Result<(), DropReason> {
        let packet = input.payload;
        if class == Class::Rtp {
            rtp::parse(packet).map_err(rtp_reason)?;
        }
        if packet.len() > PAYLOAD_ROOM {
            return Err(if class == Class::Rtp { DropReason::RtpHeader } else { DropReason::RtcpHeader });
        }
        if let Some(place) = self.early.crowded(leg) {
            let leg = self.early.places[place as usize].leg;
            self.give_up(leg, DropReason::PendingExpired);
        }
        let cell = self.slab.take().ok_or(DropReason::SlabFull)?;
        self.slab.write(cell).payload[..packet.len()].copy_from_slice(packet);
        self.early.add(Kept {
            leg,
            cell,
            len: packet.len() as u16,
            endpoint: input.endpoint,
            class,
            remote: input.remote,
            arrived: now,
            before: NONE,
            after: NONE,
            of_leg: NONE,
        });
        Ok(())
    }

    /// Gives a leg's first packet up.
    fn give_up(&mut self, leg: u32, reason: DropReason) {
        let Some(kept) = self.early.take(leg) else { return };
        self.slab.release(kept.cell);
        self.counters.drop(reason);
        self.legs[leg as usize].stats.dropped += 1;
    }

    /// Gives up what a leg sent that is no more.
    pub(super) fn forget_early(&mut self, leg: u32) {
        while self.early.holds(leg) && self.legs[leg as usize].config.get(self.generation).is_none() {
            self.give_up(leg, DropReason::Removed);
        }
    }

    /// Gives up what waited too long.
    pub(super) fn expire_early(&mut self, now: Nanos) {
        while let Some(oldest) = self.early.places.get(self.early.oldest as usize)
            && oldest.arrived + PATIENCE <= now
        {
            self.give_up(oldest.leg, DropReason::PendingExpired);
        }
    }

    /// Runs packets whose leg has its key by now, at most a burst; what their leg sends meanwhile waits behind them.
    pub(super) fn run_early(&mut self, now: Nanos) {
        if !self.early.due {
            return;
        }
        self.expire_early(now);
        let memory = self.slab.memory().clone();
        let mut candidates: ArrayVec<Candidate<'_>, BURST> = ArrayVec::new();
        let mut cells: ArrayVec<CellId, BURST> = ArrayVec::new();
        let mut next = self.early.oldest;
        while !cells.is_full() {
            let Some(Kept { leg, after, .. }) = self.early.places.get(next as usize).copied() else {
                self.early.due = false;
                break;
            };
            next = after;
            let config = self.legs[leg as usize].config.get(self.generation);
            if config.is_none_or(waits) {
                continue;
            }
            // The first of all that wait for this leg, since those before it were looked at.
            let Some(kept) = self.early.take(leg) else { continue };
            cells.push(kept.cell);
            let payload = &memory.read(kept.cell).payload[..usize::from(kept.len)];
            let result = if kept.class == Class::Rtcp {
                self.receive_rtcp(now, payload, leg).map(|()| None)
            } else {
                let Kept { endpoint, remote, .. } = kept;
                let input = Input { endpoint, remote, payload, path: Path::Stray, frame: None };
                self.admit_rtp(now, &input, TupleOwner { worker: self.worker, leg }).map(Some)
            };
            match result {
                Ok(Some(mut candidate)) => {
                    candidate.arrived = kept.arrived;
                    candidates.push(candidate);
                }
                Ok(None) => {}
                Err(reason) => {
                    self.counters.drop(reason);
                    self.legs[leg as usize].stats.dropped += 1;
                }
            }
        }
        self.open_and_accept(now, candidates);
        cells.into_iter().for_each(|cell| self.slab.release(cell));
    }
}
