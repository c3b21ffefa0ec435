//! Consent to send (RFC 7675): the owner of a leg asks its selected tuple every 5 s ± 20 % and stops sending 30 s
//! after the last valid response. Asking goes on while the leg lives, so that a peer that was away for a while is
//! served again; until it answers it gets nothing but STUN.

use sluice_srtp::provider::Provider;
use sluice_table::DropReason;
use sluice_table::protocol::PacketInReason;

use super::message::{Class, Message};
use super::{ASKED, IceState};
use crate::engine::event::Event;
use crate::engine::outgoing::Outgoing;
use crate::engine::receive::Input;
use crate::engine::run::Engine;
use crate::engine::time::Nanos;

/// Mean time between two checks.
pub const INTERVAL: Nanos = Nanos::from_millis(5_000);
/// How long one valid response allows to send.
pub const LIFETIME: Nanos = Nanos::from_millis(30_000);
/// Legs looked after in one step.
const STEP_LEGS: usize = 64;

/// 80 % to 120 % of the interval.
fn spread(random: u64) -> Nanos {
    let width = INTERVAL.0 * 2 / 5;
    Nanos(INTERVAL.0 - width / 2 + random % (width + 1))
}

impl<C: Provider> Engine<C> {
    /// Follows a leg's configuration once it is in force: other credentials or another selected tuple start consent
    /// over, since control handed them over as just validated.
    pub(in crate::engine) fn follow_ice(&mut self, slot: u32) {
        let row = &mut self.legs[slot as usize];
        let incarnation =
            row.config.get(self.generation).and_then(|leg| leg.ice.as_deref()).map_or(0, |ice| ice.incarnation);
        if row.ice.incarnation == incarnation {
            return;
        }
        let moved = row.ice.incarnation != 0 && incarnation != 0;
        row.ice = IceState { incarnation, starting: incarnation != 0, ..IceState::default() };
        if incarnation == 0 {
            self.stun.timers.clear(slot);
        } else {
            // Time is only known within a step, where this fires at once.
            self.stun.timers.set(slot, Nanos(0));
        }
        if moved {
            self.path_changed(slot);
        }
    }

    /// Looks after legs whose time has come, at most [`STEP_LEGS`].
    pub(in crate::engine) fn keep_consent(&mut self, now: Nanos) {
        for _ in 0..STEP_LEGS {
            let Some(slot) = self.stun.timers.due(now) else { return };
            self.keep_leg(now, slot);
        }
    }

    fn keep_leg(&mut self, now: Nanos, slot: u32) {
        let row = &mut self.legs[slot as usize];
        let Some(to) = row.config.get(self.generation).and_then(|leg| leg.ice.as_ref()?.selected()) else { return };
        let state = &mut row.ice;
        let mut ask = None;
        if state.starting {
            state.starting = false;
            state.until = now + LIFETIME;
            state.next_check = now + spread(self.stun.ids.next().1);
        } else if now >= state.next_check {
            let (transaction, random) = self.stun.ids.next();
            state.next_check = now + spread(random);
            if state.asked.len() == ASKED {
                state.asked.remove(0);
            }
            state.asked.push((transaction, to));
            ask = Some(transaction);
        }
        let lost = !state.lost && now >= state.until;
        state.lost |= lost;
        let next = if state.lost { state.next_check } else { state.next_check.min(state.until) };
        self.stun.timers.set(slot, next);
        if lost {
            self.emit(Event::ConsentLost { leg: slot });
        }
        if let Some(transaction) = ask {
            self.queue_outgoing(Outgoing::Check { leg: slot, to, transaction });
        }
    }

    /// A binding response on a leg with ICE state. One that answers none of our checks answers one of control's.
    pub(super) fn consent_response(
        &mut self,
        now: Nanos,
        input: &Input<'_>,
        leg_slot: u32,
        message: &Message<'_>,
    ) -> Result<(), DropReason> {
        let row = &mut self.legs[leg_slot as usize];
        let leg = row.config.get(self.generation).ok_or(DropReason::UnknownTuple)?;
        let asked = row.ice.asked.iter().position(|(id, _)| *id == message.transaction);
        let (Some(ice), Some(at)) = (leg.ice.as_deref(), asked) else {
            return self.packet_in(now, input, Some(leg_slot), PacketInReason::StunPolicy);
        };
        let to = row.ice.asked[at].1;
        if to != input.remote || !message.verify(&ice.remote_key) {
            return Err(DropReason::StunIntegrity);
        }
        row.ice.asked.remove(at); // a copy of this response renews nothing
        row.stats.last_authenticated = now;
        if message.class == Class::Error {
            return self.packet_in(now, input, Some(leg_slot), PacketInReason::StunPolicy);
        }
        if ice.selected() != Some(to) || row.ice.incarnation != ice.incarnation {
            return Ok(()); // the selection moved on meanwhile
        }
        self.counters.consent_renewed += 1;
        let state = &mut row.ice;
        let late = state.lost || now >= state.until;
        let unreported = late && !state.lost;
        (state.lost, state.until) = (false, now + LIFETIME);
        self.stun.timers.set(leg_slot, state.next_check.min(state.until));
        if unreported {
            self.emit(Event::ConsentLost { leg: leg_slot });
        }
        if late {
            self.emit(Event::ConsentBack { leg: leg_slot });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_spread_by_a_fifth() {
        let width = INTERVAL.0 * 2 / 5;
        assert_eq!(spread(0), Nanos::from_millis(4_000));
        assert_eq!(spread(width), Nanos::from_millis(6_000));
        assert!(
            (0..10_000u64)
                .map(|n| spread(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                .all(|at| { (Nanos::from_millis(4_000)..=Nanos::from_millis(6_000)).contains(&at) })
        );
    }
}
