//! Streams of a plan: slots, lists, index rows, and which workers packets go to.

use std::collections::{BTreeSet, HashSet};

use sluice_srtp::provider::Provider;
use sluice_table::protocol::Refused;
use sluice_table::{Kind, Name, Store, Table};

use super::rows::{PLAIN, full, row_of, stream_rate};
use super::touched::{Freed, Touched};
use super::{Deps, Plan, Planner, Room, StreamId, StreamSlot};
use crate::engine::Command;
use crate::engine::rows::{EgressConfig, IngressConfig, PayloadTypeMap};
use crate::manage::indexes::Direction;

impl Planner {
    pub(super) fn remove_streams(&mut self, next: &Table, touched: &Touched, plan: &mut Plan, freed: &mut Freed) {
        // A stream stays if a row of another name has it now. Most often nothing is there that could stay.
        let keep = touched.egress.iter().filter(|_| !touched.before.egress.is_empty());
        let keep = keep.filter_map(|name| next.egress.get(name));
        let keep: HashSet<StreamId> = keep.map(|r| (r.leg.clone(), r.ssrc)).collect();
        let gone = touched.before.egress.values().map(|r| (r.leg.clone(), r.ssrc));
        for id in gone.filter(|id| !keep.contains(id)) {
            let Some(at) = self.egress.remove(&id) else { continue };
            plan.stage[usize::from(at.worker)].push(Command::Egress { slot: at.slot, config: None });
            plan.sweep_egress(at.worker, at.slot);
            self.leave_room(at.list, at.worker);
            freed.egress.push((at.worker, at.slot));
            freed.rows.push(at.row);
        }
        self.remove_repairs(next, touched, freed);
        let keep = touched.ingress.iter().filter(|_| !touched.before.ingress.is_empty());
        let keep = keep.filter_map(|name| next.ingress.get(name));
        let keep: HashSet<StreamId> = keep.map(|r| (r.leg.clone(), r.ssrc)).collect();
        let gone = touched.before.ingress.values().map(|r| (r.leg.clone(), r.ssrc));
        for id in gone.filter(|id| !keep.contains(id)) {
            let Some(at) = self.ingress.remove(&id) else { continue };
            plan.stage[usize::from(at.worker)].push(Command::Ingress { slot: at.slot, config: None });
            plan.sweep[usize::from(at.worker)].push(Command::SweepIngress(at.slot));
            freed.ingress.push((at.worker, at.slot));
            freed.lists.push(at.list);
            freed.rows.push(at.row);
        }
    }

    pub(super) fn put_ingress<C: Provider>(
        &mut self,
        store: &Store,
        touched: &Touched,
        plan: &mut Plan,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<(), Refused> {
        let next = store.table();
        for (name, row) in touched.ingress.iter().filter_map(|name| next.ingress.get_key_value(name)) {
            let id = (row.leg.clone(), row.ssrc);
            let known = self.ingress.get(&id).cloned();
            let leg = &self.legs[&row.leg];
            let key = leg.inbound.as_ref().map(|k| (k.id, k.incarnation));
            let index = row_of(deps.indexes, known.as_ref(), key, row.ssrc, Direction::Receive, freed)?;
            let incarnation = key.map_or(PLAIN, |(_, incarnation)| incarnation);
            let (worker, leg_slot) = (leg.worker, leg.slot);
            let source = match &known {
                Some(at) if at.incarnation == incarnation => at.source,
                _ => {
                    self.numbers = (self.numbers + 1) & 0x7fff_ffff;
                    self.numbers
                }
            };
            let (slot, list) = if let Some(at) = known {
                (at.slot, at.list)
            } else {
                let pool = &mut self.ingress_slots[usize::from(worker)];
                let slot = pool.take().ok_or_else(|| full("ingress streams", pool.used() + 1, pool.size()))?;
                let list = self.list_ids.take();
                let list = list.ok_or_else(|| full("lists", next.ingress.len(), self.config.capacity.lists))?;
                self.at_home(list, worker);
                (slot, list)
            };
            let config = IngressConfig {
                leg: leg_slot,
                ssrc: row.ssrc,
                list,
                source,
                kind: row.kind,
                payload_types: row.payload_types.iter().fold(0, |bits, pt| bits | (1 << (pt & 0x7f))),
                byte_rate: stream_rate(&next.legs[&row.leg].limits, row.kind),
                clock_rate: row.clock_rate,
                repairs: self.repair_config(next, &row.role),
                resume: index.next(),
                index: index.pin(),
                incarnation,
                announced: row.role.announced,
                candidate: row.role.candidate.is_some(),
                learned: false,
            };
            self.streams.insert(list, name.clone());
            self.ingress.insert(id, StreamSlot { worker, slot, list, row: index, incarnation, source, binding: 0 });
            plan.stage[usize::from(worker)].push(Command::Ingress { slot, config: Some(config) });
            plan.sweep[usize::from(worker)].push(Command::SweepIngress(slot));
        }
        // A leg that still learns its address is found by its streams, which may be new.
        let now = touched.ingress.iter().filter_map(|name| next.ingress.get(name));
        let legs: BTreeSet<&Name> = now.chain(touched.before.ingress.values()).map(|row| &row.leg).collect();
        for name in legs {
            let Some(leg) = next.legs.get(name) else { continue };
            let Some(mut state) = self.legs.remove(name) else { continue };
            if state.remote.is_none() {
                Self::listen(name, store, self.endpoints[&leg.endpoint], &mut state, plan);
            }
            self.legs.insert(name.clone(), state);
        }
        Ok(())
    }

    /// The list of an ingress stream or a learn rule.
    pub(super) fn list_of(&self, table: &Table, name: &Name) -> Option<u32> {
        match table.ingress.get(name) {
            Some(row) => self.ingress.get(&(row.leg.clone(), row.ssrc)).map(|s| s.list),
            None => self.rules.get(name).copied(),
        }
    }

    pub(super) fn put_egress<C: Provider>(
        &mut self,
        next: &Table,
        touched: &Touched,
        plan: &mut Plan,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<(), Refused> {
        for row in touched.egress.iter().filter_map(|name| next.egress.get(name)) {
            let id = (row.leg.clone(), row.ssrc);
            let known = self.egress.get(&id).cloned();
            let (list, clock_rate, kind) = match (next.ingress.get(&row.source), self.sources.get(&row.source)) {
                (Some(source), _) => {
                    (self.ingress[&(source.leg.clone(), source.ssrc)].list, source.clock_rate, source.kind)
                }
                (None, Some(state)) => {
                    let source = &next.sources[&row.source];
                    (state.list, source.clock_rate, source.kind)
                }
                (None, None) => {
                    let (Some(rule), Some(list)) = (next.learn.get(&row.source), self.rules.get(&row.source)) else {
                        continue; // refused by validation
                    };
                    (*list, rule.clock_rate, rule.kind)
                }
            };
            let leg = &self.legs[&row.leg];
            let (worker, key) = (leg.worker, leg.outbound.as_ref().map(|k| (k.id, k.incarnation)));
            let leg_slot = leg.slot;
            let index = row_of(deps.indexes, known.as_ref(), key, row.ssrc, Direction::Send, freed)?;
            let slot = if let Some(at) = &known {
                at.slot
            } else {
                let pool = &mut self.egress_slots[usize::from(worker)];
                pool.take().ok_or_else(|| full("egress streams", pool.used() + 1, pool.size()))?
            };
            if let Some(at) = known.as_ref().filter(|at| at.list != list) {
                self.leave_room(at.list, worker);
            }
            if known.as_ref().is_none_or(|at| at.list != list) {
                if kind == Kind::Video {
                    self.ask_key_frame(next, &row.source, plan);
                }
                self.make_room(list, worker, false, plan);
            }
            let binding = known.as_ref().filter(|at| at.list == list).map_or(plan.generation.0, |at| at.binding);
            let incarnation = key.map_or(PLAIN, |(_, incarnation)| incarnation);
            let first_index = match index.next() {
                0 => row.first_sequence.map_or_else(|| (deps.random)() % 0x4000 + 1, u64::from),
                used => used,
            };
            let rtx = self.rtx_config(row, key, freed, deps)?;
            let config = EgressConfig {
                rtx,
                history: row.history,
                leg: leg_slot,
                list,
                ssrc: row.ssrc,
                clock_rate,
                kind,
                payload_types: PayloadTypeMap::new(&row.payload_types).unwrap_or_default(),
                dscp: row.dscp.unwrap_or(if kind == Kind::Audio { 46 } else { 34 }),
                csrc: row.csrc,
                mid: row.mid.as_deref().and_then(|mid| arrayvec::ArrayString::from(mid).ok()),
                first_index,
                resume_timing: index.timing(),
                index: index.pin(),
                incarnation,
                binding,
                layer: row.layer,
            };
            self.egress.insert(id, StreamSlot { worker, slot, list, row: index, incarnation, source: 0, binding });
            plan.stage[usize::from(worker)].push(Command::Egress { slot, config: Some(Box::new(config)) });
            plan.sweep_egress(worker, slot);
        }
        Ok(())
    }

    pub(super) fn room(&mut self, list: u32, worker: u8) -> &mut Room {
        self.rooms.entry((list, worker)).or_default()
    }

    /// Counts one more member and gives the worker storage for it if it has none left.
    pub(super) fn make_room(&mut self, list: u32, worker: u8, attached: bool, plan: &mut Plan) {
        let room = self.room(list, worker);
        let (count, capacity) = if attached {
            (&mut room.attached, &mut room.attached_capacity)
        } else {
            (&mut room.members, &mut room.capacity)
        };
        *count += 1;
        let first = *count == 1;
        // Members that leave with this commit still hold their place until it is swept.
        if *count * 2 > *capacity {
            *capacity = (*count * 4).max(8);
            let storage = Vec::with_capacity(*capacity as usize);
            plan.stage[usize::from(worker)].push(Command::Grow { list, attached, storage });
        }
        if first && !attached {
            self.unfed.insert(list);
        }
    }

    /// Counts one member less.
    fn leave_room(&mut self, list: u32, worker: u8) {
        let room = self.room(list, worker);
        room.members -= 1;
        if room.members == 0 {
            self.unfed.insert(list);
        }
    }
}
