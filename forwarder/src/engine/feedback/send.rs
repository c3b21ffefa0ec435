//! Sending what is due: one leg after the other, each message built into a transmit frame and sealed as control's
//! RTCP is, under the key's one counter.

use arrayvec::ArrayVec;
use sluice_srtp::Ssrc;
use sluice_srtp::provider::Provider;

use super::super::outgoing;
use super::super::ports::Ports;
use super::super::run::Engine;
use super::super::time::Nanos;
use super::{Anchor, FIRST_REPORTS, REPORTS, US};
use crate::wire::rtcp::Compound;
use crate::wire::rtcp::report::{self, BLOCK_LEN, MAX_BLOCKS, ReportBlock, SENDER_LEN, SenderInfo, description_chunk};

/// Largest message, in clear.
const LARGEST: usize = 1_200;
/// What SRTCP adds at most: index and tag.
const SRTCP: usize = 4 + 16;
/// Messages of one step.
const STEP_MESSAGES: u32 = 32;
/// How long a leg that cannot be sent to is left alone.
const RETRY: Nanos = Nanos::from_millis(100);
/// How long a stream waits for a report of its source before it is reported without.
const UNANCHORED: Nanos = Nanos::from_millis(6_000);

/// What is due on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Requests,
    Transport,
    Reports,
}

impl<C: Provider> Engine<C> {
    /// Sends what is due, at most `budget` messages; returns how many went out.
    pub(in super::super) fn send_feedback<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        let mut left = budget.min(STEP_MESSAGES);
        let most = left;
        while left > 0 {
            let Some(leg) = self.feedback.timers.due(now) else { break };
            let pause = self.send_feedback_of(now, leg, ports, &mut left);
            let row = &mut self.feedback.legs[leg as usize];
            row.armed = Nanos::NEVER;
            match pause {
                Some(pause) => {
                    row.armed = now + pause;
                    self.feedback.timers.set(leg, now + pause);
                }
                None => self.feedback.arm(leg),
            }
        }
        most - left
    }

    /// `Some` when the leg cannot be served now, with how long to wait.
    fn send_feedback_of<P: Ports>(&mut self, now: Nanos, leg: u32, ports: &mut P, left: &mut u32) -> Option<Nanos> {
        while *left > 0 {
            let due = self.feedback_due(now, leg)?;
            let row = &self.legs[leg as usize];
            let config = row.config.get(self.generation)?;
            let able = config.plain || (config.outbound.is_some() && config.rtcp.send.is_some());
            let Ok(way) = outgoing::way(config, None) else { return Some(RETRY) };
            if !able || !row.ice.may_send(now) {
                return Some(RETRY);
            }
            let (port, start) = (way.port, way.template.len());
            let room = way.room.min(LARGEST + SRTCP).saturating_sub(SRTCP);
            let Some(mut frame) = ports.acquire(port) else { return Some(Nanos::from_millis(1)) };
            let mut clear = [0; LARGEST];
            let len = match due {
                Due::Requests => self.write_requests(now, leg, &mut clear[..room]),
                Due::Transport => self.write_transport(leg, &mut clear[..room]),
                Due::Reports => self.write_reports(now, leg, &mut clear[..room]),
            };
            let config = self.legs[leg as usize].config.get(self.generation);
            let Some((config, way)) = config.and_then(|c| Some((c, outgoing::way(c, None).ok()?))).filter(|_| len > 0)
            else {
                ports.cancel(port, frame);
                continue;
            };
            let written = outgoing::seal(&mut self.crypto, config, &clear[..len], &mut frame[start..start + way.room]);
            match outgoing::submit(&way, frame, written, outgoing::DSCP, ports) {
                Ok(()) => {
                    *left -= 1;
                    match due {
                        Due::Requests => self.counters.requests_out += 1,
                        Due::Transport => self.counters.transport_out += 1,
                        Due::Reports => self.counters.reports_out += 1,
                    }
                }
                Err(reason) => self.counters.drop(reason),
            }
        }
        None
    }

    fn feedback_due(&mut self, now: Nanos, leg: u32) -> Option<Due> {
        let row = &mut self.feedback.legs[leg as usize];
        let wanted = self.legs[leg as usize].config.get(self.generation).map(|leg| leg.feedback).unwrap_or_default();
        if self.legs[leg as usize].config.get(self.generation).is_none() {
            row.requests = Nanos::NEVER;
        }
        if !wanted.reports {
            row.reports = Nanos::NEVER;
        }
        if !wanted.transport_cc {
            row.transport = Nanos::NEVER;
        }
        if row.requests <= now {
            Some(Due::Requests)
        } else if row.transport <= now {
            Some(Due::Transport)
        } else if row.reports <= now {
            Some(Due::Reports)
        } else {
            None
        }
    }

    fn write_transport(&mut self, leg: u32, out: &mut [u8]) -> usize {
        let row = &mut self.feedback.legs[leg as usize];
        let len = row.arrivals.write(out, US);
        if !row.arrivals.waits() {
            row.transport = Nanos::NEVER;
        }
        len
    }

    /// Writes one compound of the leg's round of reports; the round is over when there is nothing left to tell.
    fn write_reports(&mut self, now: Nanos, leg: u32, out: &mut [u8]) -> usize {
        let round = self.feedback.legs[leg as usize].round.wrapping_add(1);
        let name = self.feedback.name;
        let chunk = description_chunk(name.len());
        let mut compound = Compound::new(out);
        let blocks = self.blocks(now, leg, round, compound.room().saturating_sub(8 + 4 + chunk) / BLOCK_LEN);
        if !blocks.is_empty() {
            compound.push(|out| report::write_receiver(out, US, &blocks));
        }
        let mut names: ArrayVec<Ssrc, MAX_BLOCKS> = ArrayVec::new();
        let mut at = self.feedback.sends.first(leg).filter(|_| blocks.is_empty());
        while let Some(slot) = at {
            let full = compound.room() < SENDER_LEN + 4 + (names.len() + 1) * chunk;
            if full || names.is_full() {
                break;
            }
            at = self.feedback.sends.after(slot);
            if let Some((ssrc, info)) = self.sender_info(now, slot, round)
                && compound.push(|out| report::write_sender(out, ssrc, &info, &[]))
            {
                names.push(ssrc);
            }
        }
        if !compound.is_empty() {
            if names.is_empty() {
                names.push(US);
            }
            compound.push(|out| report::write_names(out, &names, &name));
            return compound.len();
        }
        let row = &mut self.feedback.legs[leg as usize];
        row.round = round;
        let pause = if row.first_rounds > 0 {
            row.first_rounds -= 1;
            FIRST_REPORTS
        } else {
            // Between three and five quarters, different for every leg and round.
            let spread = u64::from((leg ^ round.rotate_left(16)).wrapping_mul(0x9e37_79b9) >> 23);
            Nanos(REPORTS.0 / 4 * 3 + REPORTS.0 / 2 * spread / 512)
        };
        row.reports = now + pause;
        0
    }

    /// Blocks about received streams that this round has not told of.
    fn blocks(&mut self, now: Nanos, leg: u32, round: u32, most: usize) -> ArrayVec<ReportBlock, MAX_BLOCKS> {
        let mut blocks = ArrayVec::new();
        let quick = !self.feedback.legs[leg as usize].first_rounds.is_multiple_of(4);
        if quick {
            return blocks; // quick rounds are for what is sent; once a second is enough for the rest
        }
        let mut at = self.feedback.streams.first(leg);
        while let Some(slot) = at
            && blocks.len() < most.min(MAX_BLOCKS)
        {
            at = self.feedback.streams.after(slot);
            let reception = &mut self.feedback.ingress[slot as usize].reception;
            if reception.round == round {
                continue;
            }
            reception.round = round;
            let config = self.ingress[slot as usize].config.get(self.generation);
            blocks.extend(config.and_then(|config| reception.block(now, config.ssrc)));
        }
        blocks
    }

    /// A sender report of a stream that sent since its last one and that this round has not told of.
    fn sender_info(&mut self, now: Nanos, slot: u32, round: u32) -> Option<(Ssrc, SenderInfo)> {
        let feedback = &mut self.feedback.egress[slot as usize];
        if feedback.round == round {
            return None;
        }
        feedback.round = round;
        let row = &self.egress[slot as usize];
        let config = row.config.get(self.generation)?;
        let source = row.rewriter.source()?;
        if row.packets() == feedback.reported || row.incarnation != config.incarnation {
            return None;
        }
        if feedback.reported > 0 && !self.feedback.legs[config.leg as usize].first_rounds.is_multiple_of(4) {
            return None; // quick rounds are for first reports
        }
        let since = *feedback.waits_since.get_or_insert(now);
        let timestamp = match self.feedback.anchors.get(source) {
            Some(anchor) => anchor.timestamp_at(now, config.clock_rate).wrapping_add(row.rewriter.timestamp_offset()),
            None if now.since(since) < UNANCHORED => return None,
            None => {
                let (at, timestamp) = row.rewriter.newest();
                Anchor { source, timestamp, at }.timestamp_at(now, config.clock_rate)
            }
        };
        feedback.waits_since = None;
        feedback.reported = row.packets();
        let info = SenderInfo {
            ntp: ntp_of(now),
            timestamp,
            packets: row.packets() as u32,
            octets: row.payload_bytes() as u32,
        };
        Some((config.ssrc, info))
    }
}

/// Engine time as reports carry it. Receivers only compare our times with each other.
pub(super) fn ntp_of(now: Nanos) -> u64 {
    let (seconds, rest) = (now.0 / 1_000_000_000, now.0 % 1_000_000_000);
    (seconds << 32) | ((rest << 32) / 1_000_000_000)
}
