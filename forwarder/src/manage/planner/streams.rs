//! Streams of a plan: slots, lists, index rows, and which workers packets go to.

use std::collections::{HashMap, HashSet};

use sluice_srtp::provider::Provider;
use sluice_table::protocol::Refused;
use sluice_table::{Kind, Name, Table};

use super::rows::{PLAIN, full, row_of, stream_rate};
use super::touched::{Freed, Touched};
use super::{Deps, Plan, Planner, Room, StreamId, StreamSlot};
use crate::engine::Command;
use crate::engine::rows::{EgressConfig, IngressConfig, PayloadTypeMap};
use crate::manage::indexes::Direction;

impl Planner {
    pub(super) fn remove_streams(&mut self, next: &Table, plan: &mut Plan, freed: &mut Freed) {
        let keep: HashSet<StreamId> = next.egress.values().map(|r| (r.leg.clone(), r.ssrc)).collect();
        let gone: Vec<StreamId> = self.egress.keys().filter(|id| !keep.contains(*id)).cloned().collect();
        for id in gone {
            let Some(at) = self.egress.remove(&id) else { continue };
            plan.stage[usize::from(at.worker)].push(Command::Egress { slot: at.slot, config: None });
            plan.sweep[usize::from(at.worker)].push(Command::SweepEgress(at.slot));
            self.room(at.list, at.worker).members -= 1;
            freed.egress.push((at.worker, at.slot));
            freed.rows.push(at.row);
        }
        self.remove_repairs(next, freed);
        let keep: HashSet<StreamId> = next.ingress.values().map(|r| (r.leg.clone(), r.ssrc)).collect();
        let gone: Vec<StreamId> = self.ingress.keys().filter(|id| !keep.contains(*id)).cloned().collect();
        for id in gone {
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
        next: &Table,
        touched: &Touched,
        plan: &mut Plan,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<(), Refused> {
        for (name, row) in &next.ingress {
            let id = (row.leg.clone(), row.ssrc);
            let known = self.ingress.get(&id).cloned();
            if known.is_some() && !touched.ingress.contains(name) && !touched.keyed.contains(&row.leg) {
                continue;
            }
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
                (slot, list.ok_or_else(|| full("lists", next.ingress.len(), self.config.capacity.lists))?)
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
                learned: false,
            };
            self.ingress.insert(id, StreamSlot { worker, slot, list, row: index, incarnation, source });
            plan.stage[usize::from(worker)].push(Command::Ingress { slot, config: Some(config) });
            plan.sweep[usize::from(worker)].push(Command::SweepIngress(slot));
        }
        // A leg that still learns its address is found by its streams, which may be new.
        let learning: Vec<Name> =
            self.legs.iter().filter(|(_, l)| l.remote.is_none()).map(|(n, _)| n.clone()).collect();
        for name in learning {
            let (Some(mut state), Some(leg)) = (self.legs.remove(&name), next.legs.get(&name)) else { continue };
            Self::listen(&name, next, self.endpoints[&leg.endpoint], &mut state, plan);
            self.legs.insert(name, state);
        }
        Ok(())
    }

    pub(super) fn put_sources(&mut self, next: &Table, plan: &mut Plan) -> Result<(), Refused> {
        let gone: Vec<Name> = self.sources.keys().filter(|name| !next.sources.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(list) = self.sources.remove(&name) {
                plan.everywhere(|| Command::Input { list, input: None });
                plan.sweep_everywhere(|| Command::SweepInput(list));
                self.list_ids.give(list);
            }
        }
        for (name, row) in &next.sources {
            let known = self.sources.get(name).copied();
            let list = match known {
                Some(list) => list,
                None => {
                    self.list_ids.take().ok_or_else(|| full("lists", next.sources.len(), self.config.capacity.lists))?
                }
            };
            self.sources.insert(name.clone(), list);
            let input = |table: &Table, of: Option<&Name>| self.list_of(table, of?);
            let before = known.and(self.table.sources.get(name)).and_then(|s| input(&self.table, s.input.as_ref()));
            let now = input(next, row.input.as_ref());
            if before == now && known.is_some() {
                continue;
            }
            if let Some(now) = now {
                for worker in 0..self.config.workers {
                    self.make_room(now, worker, true, plan);
                }
            }
            if let Some(input) = row.input.as_ref().filter(|_| row.kind == Kind::Video) {
                self.ask_key_frame(next, input, plan);
            }
            plan.everywhere(|| Command::Input { list, input: now });
            plan.sweep_everywhere(|| Command::SweepInput(list));
            if let Some(before) = before {
                for worker in 0..self.config.workers {
                    self.room(before, worker).attached -= 1;
                }
            }
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
        for (name, row) in &next.egress {
            let id = (row.leg.clone(), row.ssrc);
            let known = self.egress.get(&id).cloned();
            let (list, clock_rate, kind) = match (next.ingress.get(&row.source), self.sources.get(&row.source)) {
                (Some(source), _) => {
                    (self.ingress[&(source.leg.clone(), source.ssrc)].list, source.clock_rate, source.kind)
                }
                (None, Some(list)) => {
                    let source = &next.sources[&row.source];
                    (*list, source.clock_rate, source.kind)
                }
                (None, None) => {
                    let (Some(rule), Some(list)) = (next.learn.get(&row.source), self.rules.get(&row.source)) else {
                        continue; // refused by validation
                    };
                    (*list, rule.clock_rate, rule.kind)
                }
            };
            let moved = known.as_ref().is_some_and(|at| at.list != list);
            if known.is_some() && !moved && !touched.egress.contains(name) && !touched.keyed.contains(&row.leg) {
                continue;
            }
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
                self.room(at.list, worker).members -= 1;
            }
            if known.as_ref().is_none_or(|at| at.list != list) {
                if kind == Kind::Video {
                    self.ask_key_frame(next, &row.source, plan);
                }
                self.make_room(list, worker, false, plan);
            }
            let incarnation = key.map_or(PLAIN, |(_, incarnation)| incarnation);
            let drawn = row.first_sequence.map_or_else(|| (deps.random)() % 0x4000 + 1, u64::from);
            let used = index.next();
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
                first_index: if used == 0 { drawn } else { used },
                resume_timing: index.timing(),
                index: index.pin(),
                incarnation,
            };
            self.egress.insert(id, StreamSlot { worker, slot, list, row: index, incarnation, source: 0 });
            plan.stage[usize::from(worker)].push(Command::Egress { slot, config: Some(config) });
            plan.sweep[usize::from(worker)].push(Command::SweepEgress(slot));
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
        // Members that leave with this commit still hold their place until it is swept.
        if *count * 2 > *capacity {
            *capacity = (*count * 4).max(8);
            let storage = Vec::with_capacity(*capacity as usize);
            plan.stage[usize::from(worker)].push(Command::Grow { list, attached, storage });
        }
    }

    /// Tells the workers that packets arrive at which workers have receivers: wider before the flip, exact after it.
    pub(super) fn feed(&mut self, next: &Table, plan: &mut Plan) {
        let receivers = |list: u32| {
            let has = |w: &u8| self.rooms.get(&(list, *w)).is_some_and(|room| room.members > 0);
            (0..self.config.workers).filter(has).fold(0u64, |bits, w| bits | (1 << w))
        };
        // By list: the worker its packets arrive at, and where they go.
        let mut wanted: HashMap<u32, (u8, u64)> =
            self.ingress.values().map(|at| (at.list, (at.worker, receivers(at.list)))).collect();
        for (name, row) in &next.learn {
            let list = self.rules[name];
            wanted.insert(list, (self.legs[&row.leg].worker, receivers(list)));
        }
        for (name, row) in &next.sources {
            let Some(input) = row.input.as_ref().and_then(|input| self.list_of(next, input)) else { continue };
            if let Some((_, bits)) = wanted.get_mut(&input) {
                *bits |= receivers(self.sources[name]);
            }
        }
        for (list, (worker, now)) in wanted {
            let before = self.fed.insert(list, now).unwrap_or(0);
            if now != before {
                plan.stage[usize::from(worker)].push(Command::Workers { list, workers: now | before });
                plan.sweep[usize::from(worker)].push(Command::Workers { list, workers: now });
            }
        }
    }
}
