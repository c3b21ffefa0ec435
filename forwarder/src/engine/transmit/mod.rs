//! Egress: cursors walk their lists, headers are rewritten into transmit frames, payloads are sealed straight
//! out of the shared cell, checksums close the frame.

mod batch;
mod extensions;
mod packet;
mod resolve;
mod straight;
mod walk;

use std::mem::MaybeUninit;

use arrayvec::ArrayVec;
use sluice_srtp::Profile;
use sluice_srtp::provider::Provider;
use sluice_table::{DropReason, Kind};

use self::batch::{Batches, Exit};
pub(super) use self::extensions::write_extensions;
use self::packet::Packet;
use self::walk::Pass;
use super::cursor::{Held, Turn};
use super::event::Event;
use super::ports::Ports;
use super::run::Engine;
use super::time::Nanos;

/// Fan-outs finished in one step at most.
const DONE: usize = 320;
/// Receivers ahead of the one being served whose rows are fetched, and whose index rows and keys.
const ROWS_AHEAD: usize = 10;
const KEYS_AHEAD: usize = 5;
/// Tables with more rows than this do not stay in a second-level cache.
const LARGE_TABLE: usize = 1_000;

impl<C: Provider> Engine<C> {
    /// Runs fan-outs until `budget` frames are out, nothing waits, or a port has no frame. Returns frames sent.
    pub(super) fn transmit<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        if self.cursors.is_empty() {
            return 0;
        }
        #[cfg(target_arch = "x86_64")]
        if is_wide() {
            // SAFETY: everything it is compiled for was detected.
            return unsafe { self.transmit_wide(now, ports, budget) };
        }
        self.transmit_with::<P, false>(now, ports, budget)
    }

    /// The same code compiled for AVX2: checksums and copies in 32-byte steps.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe")]
    fn transmit_wide<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        self.transmit_with::<P, true>(now, ports, budget)
    }

    #[inline(always)]
    #[allow(clippy::too_many_lines, reason = "one walk; the batches must be locals of this very function")]
    fn transmit_with<P: Ports, const WIDE: bool>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        let Engine {
            legs,
            egress,
            lists,
            cursors,
            slab,
            memories,
            counters,
            crypto,
            links,
            worker,
            generation,
            tap,
            feedback,
            ..
        } = self;
        let (own, generation) = (*worker, *generation);
        let mut batches = MaybeUninit::uninit();
        #[cfg(target_arch = "x86_64")]
        let mut closing = batch::Closing::new();
        let mut pass = Pass {
            legs,
            prefetch: egress.len() > LARGE_TABLE,
            egress,
            generation,
            now,
            now_ms: (now.0 / 1_000_000) as u32,
            wants_key_frame: false,
            batches: Batches::new(&mut batches),
            exit: Exit {
                crypto,
                ports,
                counters,
                history: &mut feedback.history,
                tap: tap.as_deref_mut(),
                generation,
                now,
                #[cfg(target_arch = "x86_64")]
                closing: &mut closing,
            },
        };
        let mut done: ArrayVec<Held, DONE> = ArrayVec::new();
        let mut left = budget;
        // Positions that send nothing cost time too.
        let mut looks = budget * 8;
        let mut blocked = false;
        let mut asks: ArrayVec<u32, DONE> = ArrayVec::new();
        while left > 0 && looks > 0 && !blocked && !done.is_full() && !asks.is_full() {
            let Some(turn) = cursors.turn(lists) else { break };
            let cursor = *cursors.get_mut(turn);
            let mut packet = Packet::of(memories[usize::from(cursor.held.worker)].read(cursor.held.cell), generation);
            let (mut stage, mut position) = (cursor.stage as usize, cursor.position as usize);
            let late = now > cursor.deadline;
            let mut allowance = left.min(cursors.allowance(turn));
            let before = allowance;
            let source = &lists[cursor.list as usize];
            let finished = 'walk: loop {
                let list_id = if stage == 0 {
                    Some((cursor.list, None))
                } else if stage > source.attached.positions() {
                    break 'walk true;
                } else {
                    source.attached.at(stage - 1).and_then(|v| {
                        let inputs = lists[v as usize].inputs.get(generation)?;
                        Some((v, Some((*inputs, inputs.position(cursor.list)?))))
                    })
                };
                if let Some((list_id, offer)) = list_id {
                    packet.offer(list_id, offer, pass.now_ms);
                    let slots = lists[list_id as usize].members.slots();
                    while let Some(rest) = slots.get(position..).filter(|rest| !rest.is_empty()) {
                        let most = allowance.min(looks) as usize;
                        if most == 0 {
                            break 'walk false;
                        }
                        let part = &rest[..most.min(rest.len())];
                        let walked = if late {
                            pass.skip(part, deadline_reason(turn))
                        } else {
                            pass.walk::<WIDE>(part, &mut packet)
                        };
                        looks = looks.saturating_sub(walked.positions as u32);
                        position += walked.positions;
                        allowance -= walked.sent;
                        if walked.blocked {
                            blocked = true;
                            break 'walk false;
                        }
                    }
                }
                stage += 1;
                position = 0;
            };
            if std::mem::take(&mut pass.wants_key_frame) && lists[cursor.list as usize].ask(packet.incoming.source, now)
            {
                asks.push(packet.incoming.source);
            }
            left -= before - allowance;
            looks = looks.saturating_sub(1);
            cursors.charge(turn, before - allowance);
            if finished {
                done.push(cursors.finish(lists, turn).held);
            } else {
                let cursor = cursors.get_mut(turn);
                (cursor.stage, cursor.position) = (stage as u32, position as u32);
            }
        }
        for profile in Profile::ALL {
            pass.flush::<WIDE>(profile);
        }
        for held in done.drain(..) {
            if held.worker == own {
                slab.release(held.cell);
            } else if let Some(link) = links.get(usize::from(held.worker)).and_then(Option::as_deref) {
                link.give_back(held.cell);
            }
        }
        asks.drain(..).for_each(|source| self.emit(Event::KeyFrameWanted { source }));
        budget - left
    }
}

/// Whether the CPU has what [`Engine::transmit_wide`] is compiled for.
#[cfg(target_arch = "x86_64")]
#[inline]
fn is_wide() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("bmi1") && has!("bmi2") && has!("movbe")
}

fn deadline_reason(turn: Turn) -> DropReason {
    match turn.kind {
        Kind::Audio => DropReason::DeadlineAudio,
        Kind::Video => DropReason::DeadlineVideo,
    }
}
