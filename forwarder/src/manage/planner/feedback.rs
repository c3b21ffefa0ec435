//! Which worker asks for a key frame: the owner of the leg that sends the stream.

use std::collections::HashSet;

use sluice_srtp::Ssrc;
use sluice_srtp::key::KeyId;
use sluice_srtp::provider::Provider;
use sluice_table::protocol::{Refusal, Refused};
use sluice_table::{Egress, Name, StreamRole, Table};

use super::rows::{PLAIN, no_row};
use super::touched::{Freed, Touched};
use super::{Deps, Plan, Planner, StreamId};
use crate::engine::Command;
use crate::engine::index_store::IndexHandle;
use crate::engine::rows::{PayloadTypeMap, RepairConfig, RepairTarget, RtxConfig};
use crate::manage::indexes::Direction;

/// The index row of a repair stream.
#[derive(Clone, Debug)]
pub(super) struct RepairRow {
    row: IndexHandle,
    incarnation: u64,
    /// SSRC of the stream it repairs.
    of: Ssrc,
}

impl Planner {
    /// What a received stream repairs.
    pub(super) fn repair_config(&self, table: &Table, role: &StreamRole) -> Option<RepairConfig> {
        let repair = role.repairs.as_ref()?;
        let target = match table.ingress.get(&repair.stream) {
            Some(row) => RepairTarget::Stream(row.ssrc),
            None => RepairTarget::Rule(*self.rules.get(&repair.stream)?),
        };
        Some(RepairConfig { target, payload_types: PayloadTypeMap::new(&repair.payload_types).unwrap_or_default() })
    }

    /// Lets go of repair streams that are no more.
    pub(super) fn remove_repairs(&mut self, next: &Table, touched: &Touched, freed: &mut Freed) {
        let rtx = |row: &Egress| Some((row.leg.clone(), row.rtx.as_ref()?.ssrc));
        let now = touched.egress.iter().filter_map(|name| next.egress.get(name));
        let keep: HashSet<StreamId> = now.filter_map(rtx).collect();
        let gone = touched.before.egress.values().filter_map(rtx).filter(|id| !keep.contains(id));
        freed.rows.extend(gone.filter_map(|id| self.repairs.remove(&id)).map(|repair| repair.row));
    }

    /// The repair stream of an egress stream.
    pub(super) fn rtx_config<C: Provider>(
        &mut self,
        row: &Egress,
        key: Option<(KeyId, u64)>,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<Option<Box<RtxConfig>>, Refused> {
        let Some(rtx) = &row.rtx else { return Ok(None) };
        let id = (row.leg.clone(), rtx.ssrc);
        let incarnation = key.map_or(PLAIN, |(_, incarnation)| incarnation);
        let known = self.repairs.get(&id).cloned();
        let index = match known {
            Some(known) if known.incarnation == incarnation => known.row,
            known => {
                freed.rows.extend(known.map(|known| known.row));
                match key {
                    Some((key, _)) => {
                        deps.indexes.row(key, rtx.ssrc, Direction::Send).map_err(|error| no_row(&error))?
                    }
                    None => IndexHandle::detached(),
                }
            }
        };
        self.repairs.insert(id, RepairRow { row: index.clone(), incarnation, of: row.ssrc });
        let used = index.next();
        Ok(Some(Box::new(RtxConfig {
            ssrc: rtx.ssrc,
            payload_types: PayloadTypeMap::new(&rtx.payload_types).unwrap_or_default(),
            first_index: if used == 0 { (deps.random)() % 0x4000 + 1 } else { used },
            index: index.pin(),
        })))
    }

    /// An SSRC that changes hands needs two commits: until the first is in force its former user goes on counting.
    pub(super) fn check_repairs(&self, next: &Table, touched: &Touched) -> Result<(), Refused> {
        for (name, row) in touched.egress.iter().filter_map(|name| next.egress.get_key_value(name)) {
            let rtx = row.rtx.as_ref().map(|rtx| (row.leg.clone(), rtx.ssrc));
            let taken = rtx.filter(|id| {
                self.egress.contains_key(id) || self.repairs.get(id).is_some_and(|repair| repair.of != row.ssrc)
            });
            let own = self.repairs.contains_key(&(row.leg.clone(), row.ssrc));
            if let Some(ssrc) = taken.map(|id| id.1).or(own.then_some(row.ssrc)) {
                return Err(Refused::new(
                    Refusal::InvalidTable,
                    format!("egress {name}: SSRC {} of leg {} is in use by another stream", ssrc.0, row.leg),
                    "remove that stream in a transaction before, or choose another SSRC",
                ));
            }
        }
        Ok(())
    }

    /// The worker and command that ask for a key frame of a listed stream, by the number egress streams know it by.
    pub fn key_frame(&self, source: u32) -> Option<(u8, Command)> {
        let ((leg, _), at) = self.ingress.iter().find(|(_, at)| at.source == source)?;
        Some((at.worker, Command::KeyFrame { leg: self.legs.get(leg)?.slot, list: at.list, new: false }))
    }

    /// The same for what a learn rule made.
    pub fn key_frame_of_rule(&self, rule: &Name) -> Option<(u8, Command)> {
        self.key_frame_of(self.store.table(), rule, false)
    }

    fn key_frame_of(&self, table: &Table, stream: &Name, new: bool) -> Option<(u8, Command)> {
        let leg = table.ingress.get(stream).map(|row| &row.leg).or_else(|| Some(&table.learn.get(stream)?.leg))?;
        table.legs.get(leg)?.feedback.key_frame?;
        let (state, list) = (self.legs.get(leg)?, self.list_of(table, stream)?);
        Some((state.worker, Command::KeyFrame { leg: state.slot, list, new }))
    }

    /// Once the commit is in force, asks for a key frame of what a stream or source carries: somebody new sees it.
    pub(super) fn ask_key_frame(&self, next: &Table, carried: &Name, plan: &mut Plan) {
        let source = next.sources.get(carried);
        let direct = Some(carried).filter(|_| source.is_none());
        let inputs = source.into_iter().flat_map(|source| source.input.iter().chain(&source.layers)).chain(direct);
        for (worker, command) in inputs.filter_map(|input| self.key_frame_of(next, input, true)) {
            plan.sweep[usize::from(worker)].push(command);
        }
    }
}
