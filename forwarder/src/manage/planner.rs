//! From one table to the next: which slots, which keys, which commands to which worker. A plan is all or
//! nothing; after it was made the planner stands for the new table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use sluice_srtp::Ssrc;
use sluice_srtp::key::{KeyId, SessionKeys};
use sluice_srtp::provider::Provider;
use sluice_table::protocol::Refused;
use sluice_table::{Change, Name, Store, Table, Undo};

use super::ice::IcePlan;
use super::indexes::Indexes;
use super::pool::Pool;
use super::route::{Route, Routes};
use crate::engine::Command;
use crate::engine::index_store::IndexHandle;
use crate::engine::rows::{TupleKey, TupleOwner};
use crate::engine::run::Capacity;
use crate::engine::staged::Generation;
use crate::engine::time::Nanos;
use crate::wire::frame::Address;

mod checks;
mod feedback;
mod learned;
mod legs;
mod rows;
mod sources;
mod streams;
mod touched;

pub use learned::Learned;
use rows::full;
use touched::{Freed, Touched};

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
    /// Legs that were prepared, or removed.
    pub legs: BTreeSet<Name>,
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
    /// Of egress streams: the generation that gave it to its list.
    binding: u64,
}

#[derive(Clone, Copy, Debug)]
struct SourceState {
    list: u32,
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
    store: Store,
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
    /// Index rows of repair streams.
    repairs: HashMap<StreamId, feedback::RepairRow>,
    list_ids: Pool,
    sources: HashMap<Name, SourceState>,
    /// Lists of learn rules.
    rules: HashMap<Name, u32>,
    /// What learn rules stand for.
    remembered: HashMap<Name, learned::Remembered>,
    /// What sources carry whose inputs the forwarder chooses.
    selected: HashMap<Name, Name>,
    /// The same the other way round.
    selecting: HashMap<Name, Name>,
    /// By list, then worker.
    rooms: HashMap<(u32, u8), Room>,
    /// Every list there is.
    lists: HashMap<u32, sources::ListState>,
    /// Lists whose packets may have to go to other workers than before.
    unfed: BTreeSet<u32>,
    /// Counts changes of what sources carry; never 0.
    epochs: u32,
    /// Ingress streams and learn rules by list.
    streams: HashMap<u32, Name>,
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
            store: Store::new(),
            generation: Generation(0),
            incarnations: 0,
            numbers: 0,
            endpoints: BTreeMap::new(),
            legs: HashMap::new(),
            ingress: HashMap::new(),
            egress: HashMap::new(),
            repairs: HashMap::new(),
            sources: HashMap::new(),
            rules: HashMap::new(),
            remembered: HashMap::new(),
            selected: HashMap::new(),
            selecting: HashMap::new(),
            rooms: HashMap::new(),
            lists: HashMap::new(),
            unfed: BTreeSet::new(),
            epochs: 0,
            streams: HashMap::new(),
            tuples: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// The table in force.
    pub fn table(&self) -> &Table {
        self.store.table()
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
        self.stream_of(list).filter(|name| self.rules.contains_key(*name))
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

    /// Streams that learn rules may make, over all workers.
    pub fn learned_limit(&self) -> usize {
        self.config.capacity.learned * self.leg_slots.len()
    }

    /// Makes `next` the table: checks it and gives the commands that lead there. On refusal nothing changed.
    #[allow(clippy::needless_pass_by_value, reason = "what becomes the table is given away")]
    pub fn plan<C: Provider>(&mut self, next: Table, deps: &mut Deps<'_, C>) -> Result<Plan, Refused> {
        next.validate().map_err(Refused::invalid)?;
        let changes = self.table().diff(&next);
        self.transact_valid(changes, deps)
    }

    /// As [`transact`](Self::transact), for changes that lead to a table which was validated whole.
    pub fn transact_valid<C: Provider>(
        &mut self,
        changes: Vec<Change>,
        deps: &mut Deps<'_, C>,
    ) -> Result<Plan, Refused> {
        let undo = self.store.apply_valid(&changes).map_err(Refused::invalid)?;
        self.make(changes, undo, deps)
    }

    /// Applies changes to the table, all or nothing, and gives the commands that do it. Costs what changes, not what
    /// there is.
    pub fn transact<C: Provider>(&mut self, changes: Vec<Change>, deps: &mut Deps<'_, C>) -> Result<Plan, Refused> {
        let undo = self.store.apply_undoable(&changes).map_err(Refused::invalid)?;
        self.make(changes, undo, deps)
    }

    /// The plan for changes that the store holds already; takes them back if it cannot be made.
    fn make<C: Provider>(&mut self, changes: Vec<Change>, undo: Undo, deps: &mut Deps<'_, C>) -> Result<Plan, Refused> {
        let (changes, before) = Touched::effective(&undo, self.store.table(), changes);
        let mut touched = Touched::of(&changes, before, &self.store, self);
        let store = std::mem::take(&mut self.store);
        let checked = self.check(&store, &touched, deps.indexes);
        let made = checked.and_then(|()| self.carry_out(&store, changes, &mut touched, deps));
        self.store = store;
        if made.is_err() {
            self.store.revert(undo);
        }
        made
    }

    fn check(&self, store: &Store, touched: &Touched, indexes: &dyn Indexes) -> Result<(), Refused> {
        self.check_capacity(store.table(), touched)?;
        self.check_repairs(store.table(), touched)?;
        Self::check_key_reuse(store, touched, indexes)
    }

    /// Prepares a leg again because its way out or its learned address changed.
    pub fn restage<C: Provider>(&mut self, legs: &BTreeSet<Name>, deps: &mut Deps<'_, C>) -> Result<Plan, Refused> {
        let store = std::mem::take(&mut self.store);
        let legs = legs.iter().filter(|name| store.table().legs.contains_key(*name)).cloned().collect();
        let mut touched = Touched { legs, ..Touched::default() };
        let made = self.carry_out(&store, Vec::new(), &mut touched, deps);
        self.store = store;
        made
    }

    /// Legs whose way out is no longer what was last prepared.
    pub fn moved(&self, routes: &mut dyn Routes) -> BTreeSet<Name> {
        let moved = |name: &&Name| {
            let (Some(state), Some(leg)) = (self.legs.get(*name), self.table().legs.get(*name)) else { return false };
            let (Some(remote), Some(endpoint)) = (state.remote, self.table().endpoints.get(&leg.endpoint)) else {
                return false;
            };
            let mut route = |remote| routes.route(&leg.endpoint, endpoint, remote);
            state.route != Some(route(remote)) || state.ice.ways.iter().any(|(remote, old)| *old != route(*remote))
        };
        self.table().legs.keys().filter(moved).cloned().collect()
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

    #[allow(clippy::too_many_lines, reason = "one pass over the kinds, in order of reference")]
    fn carry_out<C: Provider>(
        &mut self,
        store: &Store,
        changes: Vec<Change>,
        touched: &mut Touched,
        deps: &mut Deps<'_, C>,
    ) -> Result<Plan, Refused> {
        let workers = usize::from(self.config.workers);
        let mut plan = Plan {
            generation: Generation(self.generation.0 + 1),
            stage: std::iter::repeat_with(Vec::new).take(workers).collect(),
            sweep: std::iter::repeat_with(Vec::new).take(workers).collect(),
            changes,
            legs: BTreeSet::new(),
        };
        if plan.changes.is_empty() && touched.legs.is_empty() {
            plan.generation = self.generation;
            return Ok(plan);
        }
        let next = store.table();
        let mut freed = Freed::default();

        for (name, endpoint) in touched.endpoints.iter().filter_map(|name| next.endpoints.get_key_value(name)) {
            let slot = match self.endpoints.get(name) {
                Some(slot) => *slot,
                None => self.endpoint_slots.take().ok_or_else(|| full("endpoints", 1, 0))? as u16,
            };
            self.endpoints.insert(name.clone(), slot);
            let address = Some(Address::from(endpoint.address));
            plan.everywhere(|| Command::Endpoint { slot, address });
        }
        for name in touched.endpoints.iter().filter(|name| !next.endpoints.contains_key(*name)) {
            if let Some(slot) = self.endpoints.remove(name) {
                for sweep in &mut plan.sweep {
                    sweep.push(Command::Endpoint { slot, address: None });
                }
                self.endpoint_slots.give(u32::from(slot));
            }
        }

        self.remove_streams(next, touched, &mut plan, &mut freed);
        self.remove_legs(next, touched, &mut plan, &mut freed);
        self.put_rules(next, touched, &mut freed)?;
        self.put_legs(store, touched, &mut plan, &mut freed, deps)?;
        touched.rekey(store);
        self.house_rules(next, touched);
        self.put_ingress(store, touched, &mut plan, &mut freed, deps)?;
        self.put_sources(next, touched, &mut plan, &mut freed)?;
        self.put_egress(next, touched, &mut plan, &mut freed, deps)?;
        self.feed(&mut plan);
        plan.legs = std::mem::take(&mut touched.legs);

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
            self.forget_list(list);
        }
        // Only the next plan can be given these rows, and it is made after this one was flipped.
        freed.rows.iter().for_each(|row| deps.indexes.release(row));
        freed.spent.iter().for_each(|row| deps.indexes.discard(row));
        freed.keys.iter().for_each(|key| deps.indexes.let_go(*key));
        self.generation = plan.generation;
        Ok(plan)
    }
}

impl Plan {
    fn everywhere(&mut self, command: impl Fn() -> Command) {
        for worker in &mut self.stage {
            worker.push(command());
        }
    }

    fn sweep_egress(&mut self, worker: u8, slot: u32) {
        let sweep = &mut self.sweep[usize::from(worker)];
        match sweep.last_mut() {
            Some(Command::SweepEgress(slots)) if !slots.is_full() => slots.push(slot),
            _ => sweep.push(Command::SweepEgress(std::iter::once(slot).collect())),
        }
    }

    fn sweep_everywhere(&mut self, command: impl Fn() -> Command) {
        for worker in &mut self.sweep {
            worker.push(command());
        }
    }
}
