//! From one table to the next: which slots, which keys, which commands to which worker. A plan is all or
//! nothing; after it was made the planner stands for the new table.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use sluice_srtp::Ssrc;
use sluice_srtp::key::{KeyId, MasterKey, SessionKeys};
use sluice_srtp::provider::Provider;
use sluice_table::protocol::{Refusal, Refused};
use sluice_table::{Change, EntryKind, ExtensionIds, Ingress, Kind, Leg, LegKind, Name, Remote, Table};

use super::ice::{self, IcePlan};
use super::indexes::{Direction, Indexes};
use super::pool::Pool;
use super::route::{Route, Routes};
use crate::engine::Command;
use crate::engine::index_store::IndexHandle;
use crate::engine::police::Rate;
use crate::engine::rows::{
    EgressConfig, ExtensionMap, IngressConfig, LearnRule, LegConfig, Meaning, PayloadTypeMap, TupleKey, TupleOwner,
};
use crate::engine::rtcp::{KEY_ROW, RtcpConfig};
use crate::engine::run::Capacity;
use crate::engine::staged::Generation;
use crate::engine::time::Nanos;
use crate::index_file::store::StoreError;
use crate::wire::frame::Address;

/// How far ahead of its rate a peer may burst: a key frame arrives at once.
const BURST: Nanos = Nanos::from_millis(500);

/// What a planner needs besides tables.
#[derive(Clone, Copy, Debug)]
pub struct PlannerConfig {
    /// Number of workers, 1 to 64.
    pub workers: u8,
    /// Capacity of each worker.
    pub capacity: Capacity,
}

/// Everything outside the planner that a plan needs.
pub struct Deps<'a, C> {
    /// Expands keys.
    pub crypto: &'a mut C,
    /// Index rows.
    pub indexes: &'a mut dyn Indexes,
    /// Next hops.
    pub routes: &'a mut dyn Routes,
    /// Random numbers, for first sequence numbers.
    pub random: &'a mut dyn FnMut() -> u64,
}

impl<C> std::fmt::Debug for Deps<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deps")
    }
}

/// The commands of one commit, by worker.
#[derive(Debug, Default)]
pub struct Plan {
    /// The generation it leads to.
    pub generation: Generation,
    /// What differs from the table before.
    pub changes: Vec<Change>,
    /// Commands that prepare it, [`Command::Flip`] not included.
    pub stage: Vec<Vec<Command>>,
    /// Commands for after the flip.
    pub sweep: Vec<Vec<Command>>,
}

impl Plan {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.stage.iter().all(Vec::is_empty)
    }
}

#[derive(Clone, Debug)]
struct Keyed {
    id: KeyId,
    keys: Arc<SessionKeys>,
    incarnation: u64,
    /// The key's own index row, for what belongs to no stream.
    row: IndexHandle,
}

#[derive(Clone, Debug)]
struct LegState {
    worker: u8,
    slot: u32,
    inbound: Option<Keyed>,
    outbound: Option<Keyed>,
    remote: Option<SocketAddr>,
    tuples: Vec<TupleKey>,
    ice: IcePlan,
    listening: BTreeSet<Ssrc>,
    route: Option<Route>,
}

#[derive(Clone, Debug)]
struct StreamSlot {
    worker: u8,
    slot: u32,
    list: u32,
    /// The index row of this stream under this incarnation of its leg's key.
    row: IndexHandle,
    incarnation: u64,
    /// Of ingress streams: the number egress streams know this one by.
    source: u32,
}

/// Members of a list at a worker, and the storage the worker has for them.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    members: u32,
    capacity: u32,
    attached: u32,
    attached_capacity: u32,
}

type StreamId = (Name, Ssrc);

/// Knows the table in force and where every row of it lives.
#[derive(Debug)]
pub struct Planner {
    config: PlannerConfig,
    table: Table,
    generation: Generation,
    incarnations: u64,
    /// Source numbers given out; below 2^31.
    numbers: u32,
    endpoints: BTreeMap<Name, u16>,
    endpoint_slots: Pool,
    legs: HashMap<Name, LegState>,
    leg_slots: Vec<Pool>,
    ingress: HashMap<StreamId, StreamSlot>,
    ingress_slots: Vec<Pool>,
    egress: HashMap<StreamId, StreamSlot>,
    egress_slots: Vec<Pool>,
    list_ids: Pool,
    sources: HashMap<Name, u32>,
    /// Lists of learn rules.
    rules: HashMap<Name, u32>,
    /// By list, then worker.
    rooms: HashMap<(u32, u8), Room>,
    /// Which workers each ingress list was last told to feed.
    fed: HashMap<u32, u64>,
    tuples: HashMap<TupleKey, TupleOwner>,
    /// Legs by worker and slot.
    names: HashMap<(u8, u32), Name>,
}

impl Planner {
    /// A planner of an empty table.
    pub fn new(config: PlannerConfig) -> Self {
        let pools = |size: usize| (0..config.workers).map(|_| Pool::new(size)).collect::<Vec<_>>();
        Planner {
            endpoint_slots: Pool::new(config.capacity.endpoints),
            leg_slots: pools(config.capacity.legs),
            ingress_slots: pools(config.capacity.ingress),
            egress_slots: pools(config.capacity.egress),
            list_ids: Pool::new(config.capacity.lists),
            config,
            table: Table::default(),
            generation: Generation(0),
            incarnations: 0,
            numbers: 0,
            endpoints: BTreeMap::new(),
            legs: HashMap::new(),
            ingress: HashMap::new(),
            egress: HashMap::new(),
            sources: HashMap::new(),
            rules: HashMap::new(),
            rooms: HashMap::new(),
            fed: HashMap::new(),
            tuples: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// The table in force.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The generation in force once the last plan was carried out.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Where a leg lives: worker and slot.
    pub fn leg(&self, name: &Name) -> Option<(u8, u32)> {
        self.legs.get(name).map(|l| (l.worker, l.slot))
    }

    /// A leg's address, fixed or learned.
    pub fn remote(&self, name: &Name) -> Option<SocketAddr> {
        self.legs.get(name).and_then(|l| l.remote)
    }

    /// The leg in a worker's slot.
    pub fn leg_name(&self, worker: u8, slot: u32) -> Option<&Name> {
        self.names.get(&(worker, slot))
    }

    /// The leg a tuple of an endpoint belongs to: its worker and slot.
    pub fn owner(&self, endpoint: &Name, remote: SocketAddr) -> Option<TupleOwner> {
        let endpoint = *self.endpoints.get(endpoint)?;
        self.tuples.get(&TupleKey { endpoint, remote: Address::from(remote) }).copied()
    }

    /// Every tuple a leg is known by.
    pub fn tuples(&self, name: &Name) -> impl Iterator<Item = SocketAddr> + '_ {
        self.legs.get(name).into_iter().flat_map(|leg| leg.tuples.iter().map(|tuple| SocketAddr::from(tuple.remote)))
    }

    /// The endpoint of an index.
    pub fn endpoint_name(&self, slot: u16) -> Option<&Name> {
        self.endpoints.iter().find(|(_, s)| **s == slot).map(|(name, _)| name)
    }

    /// Where an ingress stream lives: worker and slot.
    pub fn ingress(&self, leg: &Name, ssrc: Ssrc) -> Option<(u8, u32)> {
        self.ingress.get(&(leg.clone(), ssrc)).map(|s| (s.worker, s.slot))
    }

    /// Where an egress stream lives: worker and slot.
    pub fn egress(&self, leg: &Name, ssrc: Ssrc) -> Option<(u8, u32)> {
        self.egress.get(&(leg.clone(), ssrc)).map(|s| (s.worker, s.slot))
    }

    /// An endpoint's index.
    pub fn endpoint(&self, name: &Name) -> Option<u16> {
        self.endpoints.get(name).copied()
    }

    /// The SSRC of a listed stream by the source number egress streams know it by.
    pub fn source_ssrc(&self, source: u32) -> Option<Ssrc> {
        self.ingress.iter().find(|(_, s)| s.source == source).map(|((_, ssrc), _)| *ssrc)
    }

    /// The learn rule of a list.
    pub fn rule_name(&self, list: u32) -> Option<&Name> {
        self.rules.iter().find(|(_, l)| **l == list).map(|(name, _)| name)
    }

    /// Use and size of every pool, by what it holds.
    pub fn pools(&self) -> Vec<(&'static str, usize, usize)> {
        let sum = |pools: &[Pool]| (pools.iter().map(Pool::used).sum(), pools.iter().map(Pool::size).sum());
        let row = |what, (used, size): (usize, usize)| (what, used, size);
        vec![
            row("endpoints", (self.endpoint_slots.used(), self.endpoint_slots.size())),
            row("legs", sum(&self.leg_slots)),
            row("tuples", (self.tuples.len(), self.config.capacity.tuples)),
            row("ingress streams", sum(&self.ingress_slots)),
            row("egress streams", sum(&self.egress_slots)),
            row("lists", (self.list_ids.used(), self.list_ids.size())),
        ]
    }

    /// Makes `next` the table: checks it and gives the commands that lead there. On refusal nothing changed.
    pub fn plan<C: Provider>(&mut self, next: Table, deps: &mut Deps<'_, C>) -> Result<Plan, Refused> {
        next.validate().map_err(Refused::invalid)?;
        let changes = self.table.diff(&next);
        self.check_capacity(&next)?;
        Self::check_key_reuse(&next, deps.indexes)?;
        self.carry_out(next, changes, &BTreeSet::new(), deps)
    }

    /// Prepares a leg again because its way out or its learned address changed.
    pub fn restage<C: Provider>(&mut self, legs: &BTreeSet<Name>, deps: &mut Deps<'_, C>) -> Result<Plan, Refused> {
        self.carry_out(self.table.clone(), Vec::new(), legs, deps)
    }

    /// Legs whose way out is no longer what was last prepared.
    pub fn moved(&self, routes: &mut dyn Routes) -> BTreeSet<Name> {
        let moved = |name: &&Name| {
            let (Some(state), Some(leg)) = (self.legs.get(*name), self.table.legs.get(*name)) else { return false };
            let (Some(remote), Some(endpoint)) = (state.remote, self.table.endpoints.get(&leg.endpoint)) else {
                return false;
            };
            let mut route = |remote| routes.route(&leg.endpoint, endpoint, remote);
            state.route != Some(route(remote)) || state.ice.ways.iter().any(|(remote, old)| *old != route(*remote))
        };
        self.table.legs.keys().filter(moved).cloned().collect()
    }

    /// Records the address a leg learned; [`restage`](Self::restage) makes it count. `false` if the leg is gone or
    /// has an address.
    pub fn learned(&mut self, name: &Name, remote: SocketAddr) -> bool {
        match self.legs.get_mut(name) {
            Some(leg) if leg.remote.is_none() => {
                leg.remote = Some(remote);
                true
            }
            _ => false,
        }
    }

    fn check_capacity(&self, next: &Table) -> Result<(), Refused> {
        let workers = usize::from(self.config.workers);
        let c = &self.config.capacity;
        let wanted = [
            ("endpoints", next.endpoints.len(), c.endpoints),
            ("legs", next.legs.len(), c.legs * workers),
            ("tuples", self.tuples_during(next), c.tuples),
            ("lists", next.ingress.len() + next.sources.len() + next.learn.len(), c.lists),
        ];
        for (what, used, size) in wanted {
            if used > size {
                return Err(full(what, used, size));
            }
        }
        // A slot given up by this commit is free only after it, so additions must fit beside what is there.
        let add = next.endpoints.keys().filter(|name| !self.endpoints.contains_key(*name)).count();
        if add > self.endpoint_slots.free() {
            return Err(full("endpoints", next.endpoints.len(), c.endpoints));
        }
        let homes = self.homes(next)?;
        let mut add = vec![[0usize; 2]; workers];
        let new_in = |row: &&Ingress| !self.ingress.contains_key(&(row.leg.clone(), row.ssrc));
        for row in next.ingress.values().filter(new_in) {
            add[homes.get(&row.leg).map_or(0, |worker| usize::from(*worker))][0] += 1;
        }
        for row in next.egress.values().filter(|r| !self.egress.contains_key(&(r.leg.clone(), r.ssrc))) {
            add[homes.get(&row.leg).map_or(0, |worker| usize::from(*worker))][1] += 1;
        }
        for (worker, [new_in, new_out]) in add.iter().enumerate() {
            if *new_in > self.ingress_slots[worker].free() {
                return Err(full("ingress streams", next.ingress.len(), c.ingress * workers));
            }
            if *new_out > self.egress_slots[worker].free() {
                return Err(full("egress streams", next.egress.len(), c.egress * workers));
            }
        }
        let new_sources = next.sources.keys().filter(|name| !self.sources.contains_key(*name)).count();
        if add.iter().map(|[new_in, _]| new_in).sum::<usize>() + new_sources > self.list_ids.free() {
            return Err(full("lists", next.ingress.len() + next.sources.len(), c.lists));
        }
        Ok(())
    }

    /// Tuples there are while `next` replaces the table: those that go leave after those that come are in.
    fn tuples_during(&self, next: &Table) -> usize {
        let new = |(name, leg): (&Name, &Leg)| {
            let learned = self.legs.get(name).and_then(|state| state.remote);
            let slot = self.endpoints.get(&leg.endpoint);
            let tuples = ice::tuples(leg, slot.copied().unwrap_or(0), ice::selected(leg, learned));
            tuples.iter().filter(|tuple| slot.is_none() || !self.tuples.contains_key(tuple)).count()
        };
        self.tuples.len() + next.legs.iter().map(new).sum::<usize>()
    }

    /// A static key whose index rows were given up must not seal again (DESIGN §2).
    fn check_key_reuse(next: &Table, indexes: &dyn Indexes) -> Result<(), Refused> {
        for (name, row) in &next.egress {
            let Some(leg) = next.legs.get(&row.leg).filter(|leg| !leg.accept_key_reuse) else { continue };
            let Some(key) = &leg.outbound else { continue };
            let id = key.key_id();
            if indexes.lost_rows(id) && !indexes.has_row(id, row.ssrc, Direction::Send) {
                return Err(Refused::new(
                    Refusal::KeyReuse,
                    format!(
                        "egress {name}: key {} of leg {} was used before and its index row is gone",
                        key.fingerprint(),
                        row.leg
                    ),
                    "give the leg a new key, or set accept_key_reuse = true if the key never sealed this SSRC",
                ));
            }
        }
        // SRTCP is sealed under one counter a key, in the key's own row.
        for (name, leg) in next.legs.iter().filter(|(_, leg)| !leg.accept_key_reuse) {
            let Some(key) = &leg.outbound else { continue };
            let id = key.key_id();
            if indexes.lost_rows(id) && !indexes.has_row(id, KEY_ROW, Direction::Send) {
                return Err(Refused::new(
                    Refusal::KeyReuse,
                    format!("leg {name}: key {} was used before and its SRTCP index row is gone", key.fingerprint()),
                    "give the leg a new key, or set accept_key_reuse = true if the key never sealed RTCP",
                ));
            }
        }
        Ok(())
    }

    fn incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// The expanded key: the old one if it is the same, with its streams' state, or a new one.
    fn keyed<C: Provider>(
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

    #[allow(clippy::too_many_lines, reason = "one pass over the kinds, in order of reference")]
    fn carry_out<C: Provider>(
        &mut self,
        next: Table,
        changes: Vec<Change>,
        restage: &BTreeSet<Name>,
        deps: &mut Deps<'_, C>,
    ) -> Result<Plan, Refused> {
        let workers = usize::from(self.config.workers);
        let mut plan = Plan {
            generation: Generation(self.generation.0 + 1),
            stage: std::iter::repeat_with(Vec::new).take(workers).collect(),
            sweep: std::iter::repeat_with(Vec::new).take(workers).collect(),
            changes,
        };
        if plan.changes.is_empty() && restage.is_empty() {
            plan.generation = self.generation;
            return Ok(plan);
        }
        let mut touched = Touched::of(&plan.changes, &self.table, &next);
        touched.legs.extend(restage.iter().filter(|name| next.legs.contains_key(*name)).cloned());
        let mut freed = Freed::default();

        for (name, endpoint) in &next.endpoints {
            let slot = match self.endpoints.get(name) {
                Some(slot) => *slot,
                None => self.endpoint_slots.take().ok_or_else(|| full("endpoints", 1, 0))? as u16,
            };
            self.endpoints.insert(name.clone(), slot);
            if self.table.endpoints.get(name) != Some(endpoint) {
                let address = Some(Address::from(endpoint.address));
                plan.everywhere(|| Command::Endpoint { slot, address });
            }
        }
        let gone: Vec<Name> = self.endpoints.keys().filter(|n| !next.endpoints.contains_key(*n)).cloned().collect();
        for name in gone {
            if let Some(slot) = self.endpoints.remove(&name) {
                for sweep in &mut plan.sweep {
                    sweep.push(Command::Endpoint { slot, address: None });
                }
                self.endpoint_slots.give(u32::from(slot));
            }
        }

        self.remove_streams(&next, &mut plan, &mut freed);
        self.remove_legs(&next, &mut plan, &mut freed);
        self.put_rules(&next, &mut freed)?;
        self.put_legs(&next, &mut touched, &mut plan, &mut freed, deps)?;
        self.put_ingress(&next, &touched, &mut plan, &mut freed, deps)?;
        self.put_sources(&next, &mut plan)?;
        self.put_egress(&next, &touched, &mut plan, &mut freed, deps)?;
        self.feed(&next, &mut plan);

        for (pool, slots) in freed.legs {
            self.leg_slots[usize::from(pool)].give(slots);
        }
        for (pool, slot) in freed.ingress {
            self.ingress_slots[usize::from(pool)].give(slot);
        }
        for (pool, slot) in freed.egress {
            self.egress_slots[usize::from(pool)].give(slot);
        }
        for list in freed.lists {
            self.rooms.retain(|(l, _), _| *l != list);
            self.fed.remove(&list);
            self.list_ids.give(list);
        }
        // Only the next plan can be given these rows, and it is made after this one was flipped.
        freed.rows.iter().for_each(|row| deps.indexes.release(row));
        freed.keys.iter().for_each(|key| deps.indexes.let_go(*key));
        self.table = next;
        self.generation = plan.generation;
        Ok(plan)
    }

    fn remove_streams(&mut self, next: &Table, plan: &mut Plan, freed: &mut Freed) {
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

    fn remove_legs(&mut self, next: &Table, plan: &mut Plan, freed: &mut Freed) {
        let gone: Vec<Name> = self.legs.keys().filter(|name| !next.legs.contains_key(*name)).cloned().collect();
        for name in gone {
            let Some(leg) = self.legs.remove(&name) else { continue };
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
    fn put_rules(&mut self, next: &Table, freed: &mut Freed) -> Result<(), Refused> {
        let gone: Vec<Name> = self.rules.keys().filter(|name| !next.learn.contains_key(*name)).cloned().collect();
        freed.lists.extend(gone.iter().filter_map(|name| self.rules.remove(name)));
        for name in next.learn.keys() {
            if !self.rules.contains_key(name) {
                let list = self.list_ids.take();
                let list = list.ok_or_else(|| full("lists", next.learn.len(), self.config.capacity.lists))?;
                self.rules.insert(name.clone(), list);
            }
        }
        Ok(())
    }

    fn rules_of(&self, leg: &Name, table: &Table) -> Box<[LearnRule]> {
        let limits = &table.legs[leg].limits;
        let text = |value: &Option<String>| value.as_deref().and_then(|v| arrayvec::ArrayString::from(v).ok());
        let rule = |(name, row): (&Name, &sluice_table::Learn)| LearnRule {
            list: self.rules[name],
            mid: text(&row.mid),
            rid: text(&row.rid),
            repaired_rid: text(&row.repaired_rid),
            payload_types: row.payload_types.iter().fold(0, |bits, pt| bits | (1 << (pt & 0x7f))),
            kind: row.kind,
            byte_rate: stream_rate(limits, row.kind),
        };
        table.learn.iter().filter(|(_, row)| row.leg == *leg).map(rule).collect()
    }

    fn put_legs<C: Provider>(
        &mut self,
        next: &Table,
        touched: &mut Touched,
        plan: &mut Plan,
        freed: &mut Freed,
        deps: &mut Deps<'_, C>,
    ) -> Result<(), Refused> {
        for (name, leg) in next.legs.iter().filter(|(name, _)| touched.legs.contains(*name)) {
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
            let was_learning = self.table.legs.get(name).is_some_and(|old| old.remote == Remote::Learn);
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
                self.table.legs.get(name).and_then(|old| old.ice.as_ref()).filter(|_| state.ice.incarnation > 0);
            state.ice = match &leg.ice {
                Some(ice) => IcePlan {
                    incarnation: if ice::starts_over(former, ice) { self.incarnation() } else { state.ice.incarnation },
                    ways: ice.tuples.iter().map(|tuple| (*tuple, route(*tuple))).collect(),
                },
                None => IcePlan::default(),
            };
            self.names.insert((state.worker, state.slot), name.clone());
            let rules = self.rules_of(name, next);
            let config = leg_config(leg, slot, &state, rules);
            plan.stage[usize::from(state.worker)].push(Command::Leg { slot: state.slot, config: Some(config) });
            plan.sweep[usize::from(state.worker)].push(Command::SweepLeg(state.slot));
            Self::listen(name, next, slot, &mut state, plan);
            self.legs.insert(name.clone(), state);
        }
        Ok(())
    }

    /// Takes a tuple from a leg, unless another leg of the same commit has it by now.
    fn drop_tuple(&mut self, key: TupleKey, owner: TupleOwner, plan: &mut Plan) {
        if self.tuples.get(&key) == Some(&owner) {
            self.tuples.remove(&key);
            plan.everywhere(|| Command::Tuple { key, owner: None });
            plan.sweep_everywhere(|| Command::SweepTuple(key));
        }
    }

    /// The worker a new leg goes to, when as many legs as `planned` says went to each one already.
    fn emptiest(&self, planned: &[usize]) -> Option<usize> {
        let load = |w: &usize| {
            self.egress_slots[*w].used() + self.ingress_slots[*w].used() + self.leg_slots[*w].used() + planned[*w]
        };
        (0..self.leg_slots.len()).filter(|w| self.leg_slots[*w].free() > planned[*w]).min_by_key(|w| (load(w), *w))
    }

    /// The worker of every leg of a table, new ones where [`new_leg`](Self::new_leg) will put them.
    fn homes<'t>(&self, next: &'t Table) -> Result<HashMap<&'t Name, u8>, Refused> {
        let mut planned = vec![0; self.leg_slots.len()];
        let mut homes = HashMap::with_capacity(next.legs.len());
        for name in next.legs.keys() {
            let worker = if let Some(leg) = self.legs.get(name) {
                leg.worker
            } else {
                let full = || full("legs", next.legs.len(), self.config.capacity.legs * planned.len());
                let worker = self.emptiest(&planned).ok_or_else(full)?;
                planned[worker] += 1;
                worker as u8
            };
            homes.insert(name, worker);
        }
        Ok(homes)
    }

    fn new_leg(&mut self) -> Result<LegState, Refused> {
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
    fn listen(name: &Name, next: &Table, endpoint: u16, state: &mut LegState, plan: &mut Plan) {
        let wanted: BTreeSet<Ssrc> = if state.remote.is_some() {
            BTreeSet::new()
        } else {
            next.ingress.values().filter(|row| row.leg == *name).map(|row| row.ssrc).collect()
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

    fn put_ingress<C: Provider>(
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

    fn put_sources(&mut self, next: &Table, plan: &mut Plan) -> Result<(), Refused> {
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
    fn list_of(&self, table: &Table, name: &Name) -> Option<u32> {
        match table.ingress.get(name) {
            Some(row) => self.ingress.get(&(row.leg.clone(), row.ssrc)).map(|s| s.list),
            None => self.rules.get(name).copied(),
        }
    }

    fn put_egress<C: Provider>(
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
                self.make_room(list, worker, false, plan);
            }
            let incarnation = key.map_or(PLAIN, |(_, incarnation)| incarnation);
            let drawn = row.first_sequence.map_or_else(|| (deps.random)() % 0x4000 + 1, u64::from);
            let used = index.next();
            let config = EgressConfig {
                leg: leg_slot,
                list,
                ssrc: row.ssrc,
                clock_rate,
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

    fn room(&mut self, list: u32, worker: u8) -> &mut Room {
        self.rooms.entry((list, worker)).or_default()
    }

    /// Counts one more member and gives the worker storage for it if it has none left.
    fn make_room(&mut self, list: u32, worker: u8, attached: bool, plan: &mut Plan) {
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
    fn feed(&mut self, next: &Table, plan: &mut Plan) {
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

impl Plan {
    fn everywhere(&mut self, command: impl Fn() -> Command) {
        for worker in &mut self.stage {
            worker.push(command());
        }
    }

    fn sweep_everywhere(&mut self, command: impl Fn() -> Command) {
        for worker in &mut self.sweep {
            worker.push(command());
        }
    }
}

/// Rows whose configuration must be prepared again.
#[derive(Debug, Default)]
struct Touched {
    legs: BTreeSet<Name>,
    ingress: HashSet<Name>,
    egress: HashSet<Name>,
    /// Legs with a new key: every stream of theirs starts over.
    keyed: HashSet<Name>,
}

impl Touched {
    fn of(changes: &[Change], old: &Table, next: &Table) -> Self {
        let mut touched = Touched::default();
        for change in changes {
            let (kind, name) = match change {
                Change::Put(name, entry) => (entry.kind(), name),
                Change::Remove(kind, name) => (*kind, name),
                Change::Switch { .. } => continue,
            };
            match kind {
                EntryKind::Leg => {
                    touched.legs.insert(name.clone());
                    // Limits of a leg are limits of its streams.
                    let limits = |table: &Table| table.legs.get(name).map(|leg| leg.limits);
                    if limits(old) != limits(next) {
                        touched
                            .ingress
                            .extend(next.ingress.iter().filter(|(_, r)| r.leg == *name).map(|(n, _)| n.clone()));
                    }
                }
                EntryKind::Endpoint => {
                    touched.legs.extend(next.legs.iter().filter(|(_, l)| l.endpoint == *name).map(|(n, _)| n.clone()));
                }
                EntryKind::Ingress => {
                    touched.ingress.insert(name.clone());
                    touched
                        .egress
                        .extend(next.egress.iter().filter(|(_, r)| r.source == *name).map(|(n, _)| n.clone()));
                }
                EntryKind::Egress => {
                    touched.egress.insert(name.clone());
                }
                EntryKind::Learn => {
                    let leg = |table: &Table| table.learn.get(name).map(|rule| rule.leg.clone());
                    touched
                        .legs
                        .extend([leg(old), leg(next)].into_iter().flatten().filter(|l| next.legs.contains_key(l)));
                    touched
                        .egress
                        .extend(next.egress.iter().filter(|(_, r)| r.source == *name).map(|(n, _)| n.clone()));
                }
                EntryKind::Source => {}
            }
        }
        touched
    }
}

/// Slots to give back once the plan is made; the next plan is made only after this one was swept.
#[derive(Debug, Default)]
struct Freed {
    legs: Vec<(u8, u32)>,
    ingress: Vec<(u8, u32)>,
    egress: Vec<(u8, u32)>,
    lists: Vec<u32>,
    rows: Vec<IndexHandle>,
    keys: Vec<KeyId>,
}

/// The row of a stream: the one it has, or another if the key changed. A plain leg's row outlives nothing.
fn row_of(
    indexes: &mut dyn Indexes,
    known: Option<&StreamSlot>,
    key: Option<(KeyId, u64)>,
    ssrc: Ssrc,
    direction: Direction,
    freed: &mut Freed,
) -> Result<IndexHandle, Refused> {
    let (id, incarnation) = key.unwrap_or((KeyId([0; 16]), PLAIN));
    if let Some(known) = known {
        if known.incarnation == incarnation {
            return Ok(known.row.clone());
        }
        freed.rows.push(known.row.clone());
    }
    if key.is_none() {
        return Ok(IndexHandle::detached());
    }
    indexes.row(id, ssrc, direction).map_err(|error| no_row(&error))
}

/// The incarnation of streams on legs without keys.
const PLAIN: u64 = 0x504c_4149_4e00_0001;

fn no_row(error: &StoreError) -> Refused {
    Refused::new(Refusal::Capacity, error.to_string(), "raise [capacity] and start the forwarder again")
}

fn full(what: &str, wanted: usize, size: usize) -> Refused {
    Refused::new(
        Refusal::Capacity,
        format!("{wanted} {what} wanted, but the forwarder was started with room for {size}"),
        "raise that number in the forwarder's [capacity] and start it again",
    )
}

fn leg_config(leg: &Leg, endpoint: u16, state: &LegState, rules: Box<[LearnRule]>) -> LegConfig {
    let (port, template, mtu) = match state.route.clone() {
        Some(route) => (route.port, route.template, route.mtu),
        None => (crate::engine::PortId(0), None, 1_500),
    };
    LegConfig {
        endpoint,
        remote: state.remote.map(Address::from),
        plain: leg.kind == LegKind::Plain,
        inbound: state.inbound.as_ref().map(|k| k.keys.clone()),
        outbound: state.outbound.as_ref().map(|k| k.keys.clone()),
        largest_rtp: template.as_ref().map_or(0, |t| LegConfig::largest_rtp_of(t, mtu)),
        template,
        port,
        extensions: extension_map(&leg.extensions),
        rules,
        inbound_incarnation: state.inbound.as_ref().map_or(PLAIN, |k| k.incarnation),
        byte_rate: Rate::bits_per_second(leg.limits.bits_per_second, BURST),
        packet_rate: Rate::per_second(u64::from(leg.limits.packets_per_second), BURST),
        ice: leg.ice.as_ref().map(|ice| ice::config(ice, &state.ice)),
        rtcp: RtcpConfig {
            send: state.outbound.as_ref().map(|key| key.row.pin()),
            receive: state.inbound.as_ref().map(|key| key.row.pin()),
            incarnation: state.inbound.as_ref().map_or(PLAIN, |key| key.incarnation),
        },
    }
}

fn stream_rate(limits: &sluice_table::Limits, kind: Kind) -> Rate {
    let bits = match kind {
        Kind::Audio => limits.audio_bits_per_second,
        Kind::Video => limits.video_bits_per_second,
    };
    Rate::bits_per_second(bits, BURST)
}

fn extension_map(ids: &ExtensionIds) -> ExtensionMap {
    let pairs = [
        (Meaning::Mid, ids.mid),
        (Meaning::Rid, ids.rid),
        (Meaning::RepairedRid, ids.repaired_rid),
        (Meaning::AudioLevel, ids.audio_level),
        (Meaning::TransportCc, ids.transport_cc),
        (Meaning::AbsSendTime, ids.abs_send_time),
        (Meaning::DependencyDescriptor, ids.dependency_descriptor),
        (Meaning::FrameDescriptor, ids.frame_descriptor),
        (Meaning::VideoOrientation, ids.video_orientation),
    ];
    ExtensionMap::new(pairs.into_iter().filter_map(|(meaning, id)| Some((meaning, id?))))
}
