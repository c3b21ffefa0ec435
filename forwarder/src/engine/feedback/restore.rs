//! Packets of a sender's repair stream (RFC 4588): each is put back where the packet it repeats is missing, and goes on
//! as a late packet of that stream.

use sluice_srtp::provider::Provider;
use sluice_srtp::{PacketIndex, Seq};
use sluice_table::DropReason;

use super::super::cell::CellId;
use super::super::rows::{RepairConfig, RepairTarget, StreamKey};
use super::super::run::Engine;
use super::super::time::Nanos;
use crate::wire::be16;

/// How far ahead of the newest packet a repair may be.
const AHEAD: u64 = 512;

impl<C: Provider> Engine<C> {
    /// Restores what an accepted packet of a repair stream repeats.
    pub(in super::super) fn restore(
        &mut self,
        now: Nanos,
        leg: u32,
        cell: CellId,
        repairs: &RepairConfig,
    ) -> Result<(), DropReason> {
        let generation = self.generation;
        let target = match repairs.target {
            RepairTarget::Stream(ssrc) => self.known_stream(StreamKey { leg, ssrc }),
            RepairTarget::Rule(list) => self.feedback.streams.iter(leg).find(|slot| {
                let config = self.ingress[*slot as usize].config.get(generation);
                config.is_some_and(|config| config.learned && config.list == list)
            }),
        };
        let row = &mut self.ingress[target.ok_or(DropReason::RepairUnknown)? as usize];
        let config = row.config.get(generation).ok_or(DropReason::RepairUnknown)?;
        let receiver = row.receiver.as_mut().filter(|_| row.incarnation == config.incarnation);
        let cell_id = cell;
        let cell = self.slab.write(cell);
        let len = usize::from(cell.meta.payload_len);
        let padding = if cell.meta.padding { usize::from(cell.payload[len.saturating_sub(1)]) } else { 0 };
        if len.saturating_sub(padding) <= 2 {
            return Err(DropReason::RepairEmpty);
        }
        let payload_type = repairs.payload_types.find(cell.meta.payload_type).ok_or(DropReason::RepairUnknown)?;
        if config.payload_types & (1 << payload_type) == 0 {
            return Err(DropReason::PayloadType);
        }
        let receiver = receiver.ok_or(DropReason::RepairUnknown)?;
        let index = receiver.estimate(Seq(be16(&cell.payload, 0)));
        let highest = receiver.highest().map_or(0, PacketIndex::as_u64);
        if receiver.check(index).is_err() || index.as_u64() > highest + AHEAD {
            return Err(DropReason::RepairUnneeded);
        }
        receiver.accept(index);
        config.index.store_next(index.as_u64().max(highest) + 1);
        cell.payload.copy_within(2..len, 0);
        let meta = &mut cell.meta;
        meta.list = config.list;
        meta.source = config.source;
        meta.index = index.as_u64();
        meta.ssrc = config.ssrc;
        meta.announced = config.announced.unwrap_or(config.ssrc);
        meta.kind = config.kind;
        meta.payload_type = payload_type;
        meta.payload_len = (len - 2) as u16;
        row.packets += 1;
        row.payload_bytes += (len - 2) as u64;
        self.counters.repaired += 1;
        let workers = self.lists[config.list as usize].workers;
        if workers == 0 {
            return Err(DropReason::NoReceiver);
        }
        self.dispatch(now, cell_id, workers);
        Ok(())
    }
}
