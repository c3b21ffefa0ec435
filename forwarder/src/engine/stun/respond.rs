//! Who gets to see a STUN message: a correct binding request is answered here, a response to our own check renews
//! consent, what needs a decision goes up to control within limits, the rest is counted.

use sluice_srtp::provider::Provider;
use sluice_table::DropReason;
use sluice_table::protocol::PacketInReason;

use super::message::{BINDING, Class, Message};
use super::{LEG_STUN_UP, REQUESTS, UNKNOWN_UP};
use crate::engine::event::Event;
use crate::engine::outgoing::Outgoing;
use crate::engine::receive::Input;
use crate::engine::run::Engine;
use crate::engine::time::Nanos;

impl<C: Provider> Engine<C> {
    /// STUN from a tuple of a leg owned here.
    pub(in crate::engine) fn receive_stun(
        &mut self,
        now: Nanos,
        input: &Input<'_>,
        leg_slot: u32,
    ) -> Result<(), DropReason> {
        let message = Message::parse(input.payload).map_err(|_| DropReason::StunMalformed)?;
        let row = &mut self.legs[leg_slot as usize];
        let leg = row.config.get(self.generation).ok_or(DropReason::UnknownTuple)?;
        let Some(ice) = leg.ice.as_deref() else {
            return self.packet_in(now, input, Some(leg_slot), PacketInReason::StunUnknown);
        };
        let policy = PacketInReason::StunPolicy;
        match message.class {
            Class::Success | Class::Error if message.method == BINDING => {
                return self.consent_response(now, input, leg_slot, &message);
            }
            Class::Request if message.method == BINDING => {}
            _ => return self.packet_in(now, input, Some(leg_slot), policy),
        }
        if !row.ice.requests.take(REQUESTS, 1, now) {
            return Err(DropReason::PolicedLeg);
        }
        // Other fragments mean other passwords: a restart, or another session's request on this tuple.
        if message.username.is_some() && !message.is_for(&ice.local_ufrag, &ice.remote_ufrag) {
            return self.packet_in(now, input, Some(leg_slot), policy);
        }
        if message.username.is_none() || !message.verify(&ice.local_key) {
            return Err(DropReason::StunIntegrity);
        }
        row.stats.last_authenticated = now;
        let conflict = message.role.is_some_and(|(role, _)| role == ice.role);
        let nominates = message.use_candidate && ice.selected() != Some(input.remote);
        if conflict || nominates || message.unknown_required || ice.tuple(input.remote).is_none() {
            return self.packet_in(now, input, Some(leg_slot), policy);
        }
        let answer = Outgoing::Answer { leg: leg_slot, to: input.remote, transaction: message.transaction };
        self.queue_outgoing(answer);
        Ok(())
    }

    /// Hands a packet up to control, unless there were too many.
    pub(in crate::engine) fn packet_in(
        &mut self,
        now: Nanos,
        input: &Input<'_>,
        leg: Option<u32>,
        reason: PacketInReason,
    ) -> Result<(), DropReason> {
        let allowed = match (leg, reason) {
            // A leg's DTLS carries its data channels; the leg's own limits hold for it.
            (Some(_), PacketInReason::Dtls) => true,
            (Some(leg), _) => self.legs[leg as usize].ice.up.take(LEG_STUN_UP, 1, now),
            (None, PacketInReason::Dtls) => self.stun.unknown_dtls.take(UNKNOWN_UP, 1, now),
            (None, _) => self.stun.unknown_stun.take(UNKNOWN_UP, 1, now),
        };
        if !allowed {
            return Err(DropReason::PacketInLimited);
        }
        self.counters.packet_in += 1;
        let (endpoint, from) = (input.endpoint, input.remote);
        self.emit(Event::PacketIn { leg, endpoint, from, reason, bytes: input.payload.into() });
        Ok(())
    }
}
