//! Legs of a plan: owners, keys, tuples, learn rules, and who listens for a leg without an address.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sluice_srtp::Ssrc;
use sluice_srtp::key::{KeyId, MasterKey};
use sluice_srtp::provider::Provider;
use sluice_table::protocol::Refused;
use sluice_table::{EntryKind, Name, Remote, Store, Table};

use super::learned::Remembered;
use super::rows::{full, leg_config, no_row, stream_rate};
use super::touched::{Freed, Touched, referrers};
use super::{Deps, Keyed, LegState, Plan, Planner};
use crate::engine::Command;
use crate::engine::rows::{LearnRule, TupleKey, TupleOwner};
use crate::engine::rtcp::KEY_ROW;
use crate::manage::ice::{self, IcePlan};
use crate::manage::indexes::Direction;

impl Planner {
    pub(super) fn incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// The expanded key: the old one if it is the same, with its streams' state, or a new one.
    pub(super) fn keyed<C: Provider>(
        &mut self,
        key: Option<&MasterKey>,
        old: Option<Keyed>,
        direction: Direction,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<Option<Keyed>, Refused> {
        let id = key.map(MasterKey::key_id);
        let same = |old: &Keyed| Some(old.id) == id && Some(old.keys.profile()) == key.map(MasterKey::profile);
        if old.as_ref().is_some_and(same) {
            return Ok(old);
        }
        if let Some(old) = old {
            freed.keys.push(old.id);
            freed.rows.push(old.row);
        }
        let (Some(key), Some(id)) = (key, id) else { return Ok(None) };
        deps.indexes.hold(id).map_err(|error| no_row(&error))?;
        let row = deps.indexes.row(id, KEY_ROW, direction).map_err(|error| no_row(&error))?;
        Ok(Some(Keyed { id, keys: Arc::new(deps.crypto.expand(key)), incarnation: self.incarnation(), row }))
    }

    pub(super) fn remove_legs(&mut self, next: &Table, touched: &Touched, plan: &mut Plan, freed: &mut Freed) {
        for name in touched.changed_legs.iter().filter(|name| !next.legs.contains_key(*name)) {
            let Some(leg) = self.legs.remove(name) else { continue };
            plan.stage[usize::from(leg.worker)].push(Command::Leg { slot: leg.slot, config: None });
            plan.sweep[usize::from(leg.worker)].push(Command::SweepLeg(leg.slot));
            let owner = TupleOwner { worker: leg.worker, leg: leg.slot };
            self.names.remove(&(leg.worker, leg.slot));
            leg.tuples.iter().for_each(|key| self.drop_tuple(*key, owner, plan));
            for ssrc in leg.listening {
                plan.everywhere(|| Command::Listen { owner, endpoint: None, ssrc });
            }
            for key in [leg.inbound, leg.outbound].into_iter().flatten() {
                freed.keys.push(key.id);
                freed.rows.push(key.row);
            }
            freed.legs.push((leg.worker, leg.slot));
        }
    }

    /// Gives every learn rule a list. The rules themselves are part of their leg's configuration.
    pub(super) fn put_rules(&mut self, next: &Table, touched: &Touched, freed: &mut Freed) -> Result<(), Refused> {
        for name in &touched.learn {
            if !next.learn.contains_key(name) {
                freed.lists.extend(self.rules.remove(name));
                freed.rows.extend(self.remembered.remove(name).into_iter().flat_map(Remembered::rows));
            } else if !self.rules.contains_key(name) {
                let list = self.list_ids.take();
                let list = list.ok_or_else(|| full("lists", next.learn.len(), self.config.capacity.lists))?;
                self.rules.insert(name.clone(), list);
                self.streams.insert(list, name.clone());
            }
        }
        Ok(())
    }

    /// Notes where packets of new and changed rules arrive.
    pub(super) fn house_rules(&mut self, next: &Table, touched: &Touched) {
        for (name, row) in touched.learn.iter().filter_map(|name| next.learn.get_key_value(name)) {
            if let Some(list) = self.rules.get(name).copied() {
                self.at_home(list, self.legs[&row.leg].worker);
            }
        }
    }

    fn rules_of<C>(
        &mut self,
        leg: &Name,
        key: Option<(KeyId, u64)>,
        store: &Store,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<Box<[LearnRule]>, Refused> {
        let table = store.table();
        let limits = &table.legs[leg].limits;
        let text = |value: &Option<String>| value.as_deref().and_then(|v| arrayvec::ArrayString::from(v).ok());
        let rule = |(name, row): (&Name, &sluice_table::Learn)| {
            Ok(LearnRule {
                list: self.rules[name],
                mid: text(&row.mid),
                rid: text(&row.rid),
                repaired_rid: text(&row.repaired_rid),
                payload_types: row.payload_types.iter().fold(0, |bits, pt| bits | (1 << (pt & 0x7f))),
                kind: row.kind,
                byte_rate: stream_rate(limits, row.kind),
                announced: row.role.announced,
                candidate: row.role.candidate.is_some(),
                clock_rate: row.clock_rate,
                repairs: self.repair_config(table, &row.role),
                known: self.recall(name, row, key, freed, deps.indexes)?,
            })
        };
        let names = referrers(store, EntryKind::Leg, leg, EntryKind::Learn);
        names.filter_map(|name| table.learn.get_key_value(&name)).map(rule).collect()
    }

    pub(super) fn put_legs<C: Provider>(
        &mut self,
        store: &Store,
        touched: &mut Touched,
        plan: &mut Plan,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<(), Refused> {
        let next = store.table();
        for (name, leg) in touched.legs.clone().iter().filter_map(|name| next.legs.get_key_value(name)) {
            let mut state = match self.legs.remove(name) {
                Some(state) => state,
                None => self.new_leg()?,
            };
            let before =
                (state.inbound.as_ref().map(|k| k.incarnation), state.outbound.as_ref().map(|k| k.incarnation));
            state.inbound = self.keyed(leg.inbound.as_ref(), state.inbound.take(), Direction::Receive, freed, deps)?;
            state.outbound = self.keyed(leg.outbound.as_ref(), state.outbound.take(), Direction::Send, freed, deps)?;
            let after = (state.inbound.as_ref().map(|k| k.incarnation), state.outbound.as_ref().map(|k| k.incarnation));
            if before != after {
                touched.keyed.insert(name.clone());
            }
            let was_learning = touched.former_leg(name, next).is_some_and(|old| old.remote == Remote::Learn);
            state.remote = ice::selected(leg, state.remote.filter(|_| was_learning));
            let endpoint = &next.endpoints[&leg.endpoint];
            let slot = self.endpoints[&leg.endpoint];
            let tuples = ice::tuples(leg, slot, state.remote);
            let owner = TupleOwner { worker: state.worker, leg: state.slot };
            for key in state.tuples.iter().filter(|key| !tuples.contains(key)) {
                self.drop_tuple(*key, owner, plan);
            }
            for key in tuples.iter().copied() {
                if self.tuples.insert(key, owner) == Some(owner) {
                    continue;
                }
                plan.everywhere(|| Command::Tuple { key, owner: Some(owner) });
                plan.sweep_everywhere(|| Command::SweepTuple(key));
            }
            state.tuples = tuples;
            let mut route = |remote| deps.routes.route(&leg.endpoint, endpoint, remote);
            state.route = state.remote.map(&mut route);
            let former =
                touched.former_leg(name, next).and_then(|old| old.ice.as_ref()).filter(|_| state.ice.incarnation > 0);
            state.ice = match &leg.ice {
                Some(ice) => IcePlan {
                    incarnation: if ice::starts_over(former, ice) { self.incarnation() } else { state.ice.incarnation },
                    ways: ice.tuples.iter().map(|tuple| (*tuple, route(*tuple))).collect(),
                },
                None => IcePlan::default(),
            };
            self.names.insert((state.worker, state.slot), name.clone());
            let key = state.inbound.as_ref().map(|k| (k.id, k.incarnation));
            let rules = self.rules_of(name, key, store, freed, deps)?;
            let config = leg_config(leg, slot, &state, rules);
            plan.stage[usize::from(state.worker)].push(Command::Leg { slot: state.slot, config: Some(config) });
            plan.sweep[usize::from(state.worker)].push(Command::SweepLeg(state.slot));
            Self::listen(name, store, slot, &mut state, plan);
            self.legs.insert(name.clone(), state);
        }
        Ok(())
    }

    /// Takes a tuple from a leg, unless another leg of the same commit has it by now.
    pub(super) fn drop_tuple(&mut self, key: TupleKey, owner: TupleOwner, plan: &mut Plan) {
        if self.tuples.get(&key) == Some(&owner) {
            self.tuples.remove(&key);
            plan.everywhere(|| Command::Tuple { key, owner: None });
            plan.sweep_everywhere(|| Command::SweepTuple(key));
        }
    }

    /// The worker a new leg goes to, when as many legs as `planned` says went to each one already.
    pub(super) fn emptiest(&self, planned: &[usize]) -> Option<usize> {
        let load = |w: &usize| {
            self.egress_slots[*w].used() + self.ingress_slots[*w].used() + self.leg_slots[*w].used() + planned[*w]
        };
        (0..self.leg_slots.len()).filter(|w| self.leg_slots[*w].free() > planned[*w]).min_by_key(|w| (load(w), *w))
    }

    /// The worker of every new leg of a table, where [`new_leg`](Self::new_leg) will put it.
    pub(super) fn homes<'t>(&self, next: &Table, touched: &'t Touched) -> Result<HashMap<&'t Name, usize>, Refused> {
        let mut planned = vec![0; self.leg_slots.len()];
        let mut homes = HashMap::new();
        let new = |name: &&Name| next.legs.contains_key(*name) && !self.legs.contains_key(*name);
        for name in touched.legs.iter().filter(new) {
            let full = || full("legs", next.legs.len(), self.config.capacity.legs * planned.len());
            let worker = self.emptiest(&planned).ok_or_else(full)?;
            planned[worker] += 1;
            homes.insert(name, worker);
        }
        Ok(homes)
    }

    pub(super) fn new_leg(&mut self) -> Result<LegState, Refused> {
        let emptiest = self
            .emptiest(&vec![0; self.leg_slots.len()])
            .ok_or_else(|| full("legs", self.legs.len() + 1, self.config.capacity.legs))?;
        let slot = self.leg_slots[emptiest].take().ok_or_else(|| full("legs", 1, 0))?;
        Ok(LegState {
            worker: emptiest as u8,
            slot,
            inbound: None,
            outbound: None,
            remote: None,
            tuples: Vec::new(),
            ice: IcePlan::default(),
            listening: BTreeSet::new(),
            route: None,
        })
    }

    /// Tells every worker by which SSRCs a leg without an address is found.
    pub(super) fn listen(name: &Name, store: &Store, endpoint: u16, state: &mut LegState, plan: &mut Plan) {
        let wanted: BTreeSet<Ssrc> = if state.remote.is_some() {
            BTreeSet::new()
        } else {
            let names = referrers(store, EntryKind::Leg, name, EntryKind::Ingress);
            names.filter_map(|name| store.table().ingress.get(&name)).map(|row| row.ssrc).collect()
        };
        let owner = TupleOwner { worker: state.worker, leg: state.slot };
        for ssrc in wanted.difference(&state.listening).copied() {
            plan.everywhere(|| Command::Listen { owner, endpoint: Some(endpoint), ssrc });
        }
        for ssrc in state.listening.difference(&wanted).copied() {
            for sweep in &mut plan.sweep {
                sweep.push(Command::Listen { owner, endpoint: None, ssrc });
            }
        }
        state.listening = wanted;
    }
}
