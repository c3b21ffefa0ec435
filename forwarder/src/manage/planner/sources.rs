//! Virtual sources of a plan: what they carry, and which workers packets go to because of them.

use std::collections::BTreeSet;

use sluice_table::protocol::Refused;
use sluice_table::{Kind, Name, Source, Table};

use super::rows::full;
use super::touched::{Freed, Touched};
use super::{Plan, Planner, SourceState};
use crate::engine::Command;
use crate::engine::inputs::Inputs;
use crate::engine::staged::Generation;

/// What the planner knows of a list besides its members.
#[derive(Clone, Debug, Default)]
pub(super) struct ListState {
    /// Of an ingress stream or learn rule: the worker its packets arrive at.
    home: Option<u8>,
    /// Virtual sources that carry it, by list.
    carriers: BTreeSet<u32>,
    /// Of a virtual source: what it carries.
    inputs: Option<Inputs>,
    /// Which workers its packets were last told to go to.
    fed: u64,
}

impl Planner {
    pub(super) fn put_sources(
        &mut self,
        next: &Table,
        touched: &Touched,
        plan: &mut Plan,
        freed: &mut Freed,
    ) -> Result<(), Refused> {
        for name in touched.sources.iter().filter(|name| !next.sources.contains_key(*name)) {
            if let Some(state) = self.sources.remove(name) {
                self.choose(name, None);
                self.set_inputs(state.list, None, plan);
                freed.lists.push(state.list);
            }
        }
        for (name, row) in touched.sources.iter().filter_map(|name| next.sources.get_key_value(name)) {
            self.put_source(next, name, row, plan)?;
        }
        Ok(())
    }

    fn put_source(&mut self, next: &Table, name: &Name, row: &Source, plan: &mut Plan) -> Result<(), Refused> {
        let known = self.sources.get(name).copied();
        let list = match known {
            Some(known) => known.list,
            None => {
                self.list_ids.take().ok_or_else(|| full("lists", next.sources.len(), self.config.capacity.lists))?
            }
        };
        self.sources.insert(name.clone(), SourceState { list });
        let lists: Vec<u32> = if row.select.is_some() {
            self.selection_of(next, name, row).into_iter().filter_map(|input| self.list_of(next, &input)).collect()
        } else {
            row.layers.iter().chain(&row.input).filter_map(|input| self.list_of(next, input)).collect()
        };
        let layered = !row.layers.is_empty();
        let before = self.lists.entry(list).or_default().inputs;
        let same = match &before {
            Some(before) => before.lists() == lists && before.is_layered() == layered,
            None => lists.is_empty(),
        };
        if same && known.is_some() {
            return Ok(());
        }
        self.epochs = self.epochs.wrapping_add(1).max(1);
        let inputs = if layered {
            Inputs::layers(&lists, self.epochs)
        } else {
            lists.first().map(|list| Inputs::one(*list, self.epochs))
        };
        if let Some(input) = row.input.as_ref().filter(|_| row.kind == Kind::Video) {
            self.ask_key_frame(next, input, plan);
        }
        self.set_inputs(list, inputs, plan);
        Ok(())
    }

    /// What the forwarder chose for a source, if that still competes for it.
    fn selection_of(&mut self, next: &Table, name: &Name, row: &Source) -> Option<Name> {
        let chosen = self.selected.get(name)?;
        let role = next.ingress.get(chosen).map(|r| &r.role).or_else(|| next.learn.get(chosen).map(|r| &r.role));
        if role.is_some_and(|role| role.candidate == row.select) {
            return Some(chosen.clone());
        }
        self.choose(name, None);
        None
    }

    fn choose(&mut self, source: &Name, input: Option<&Name>) {
        if let Some(former) = self.selected.remove(source)
            && self.selecting.get(&former) == Some(source)
        {
            self.selecting.remove(&former);
        }
        if let Some(input) = input {
            self.selected.insert(source.clone(), input.clone());
            self.selecting.insert(input.clone(), source.clone());
        }
    }

    /// Has a source carry something else.
    fn set_inputs(&mut self, list: u32, inputs: Option<Inputs>, plan: &mut Plan) {
        let before = std::mem::replace(&mut self.lists.entry(list).or_default().inputs, inputs);
        let has = |inputs: &Option<Inputs>, list| inputs.is_some_and(|inputs| inputs.position(list).is_some());
        for input in inputs.iter().flat_map(Inputs::lists).copied().filter(|input| !has(&before, *input)) {
            for worker in 0..self.config.workers {
                self.make_room(input, worker, true, plan);
            }
            self.lists.entry(input).or_default().carriers.insert(list);
            self.unfed.insert(input);
        }
        for input in before.iter().flat_map(Inputs::lists).copied().filter(|input| !has(&inputs, *input)) {
            for worker in 0..self.config.workers {
                let attached = &mut self.room(input, worker).attached;
                *attached = attached.saturating_sub(1);
            }
            self.lists.entry(input).or_default().carriers.remove(&list);
            self.unfed.insert(input);
        }
        plan.everywhere(|| Command::Input { list, inputs });
        plan.sweep_everywhere(|| Command::SweepInput(list));
    }

    /// Where packets of an ingress list arrive.
    pub(super) fn at_home(&mut self, list: u32, worker: u8) {
        self.lists.entry(list).or_default().home = Some(worker);
        self.unfed.insert(list);
    }

    /// Forgets a list that is nobody's any more.
    pub(super) fn forget_list(&mut self, list: u32) {
        for worker in 0..self.config.workers {
            self.rooms.remove(&(list, worker));
        }
        self.lists.remove(&list);
        self.streams.remove(&list);
        self.list_ids.give(list);
    }

    /// Tells the workers that packets arrive at which workers have receivers: wider before the flip, exact after it.
    pub(super) fn feed(&mut self, plan: &mut Plan) {
        let mut lists = BTreeSet::new();
        for list in std::mem::take(&mut self.unfed) {
            match self.lists.get(&list).and_then(|state| state.inputs) {
                Some(inputs) => lists.extend(inputs.lists()),
                None => {
                    lists.insert(list);
                }
            }
        }
        for list in lists {
            let Some(state) = self.lists.get(&list) else { continue };
            let Some(worker) = state.home else { continue };
            let receivers = |list: u32| {
                let has = |w: &u8| self.rooms.get(&(list, *w)).is_some_and(|room| room.members > 0);
                (0..self.config.workers).filter(has).fold(0u64, |bits, w| bits | (1 << w))
            };
            let now = state.carriers.iter().fold(receivers(list), |bits, carrier| bits | receivers(*carrier));
            let before = state.fed;
            if now != before {
                plan.stage[usize::from(worker)].push(Command::Workers { list, workers: now | before });
                plan.sweep[usize::from(worker)].push(Command::Workers { list, workers: now });
                self.lists.entry(list).or_default().fed = now;
            }
        }
    }

    /// Has sources whose inputs the forwarder chooses carry what was chosen. Sources that are not chosen for, and
    /// inputs that do not compete for them, are left out.
    pub fn select(&mut self, choices: &[(Name, Option<Name>)]) -> Plan {
        let workers = usize::from(self.config.workers);
        let mut plan = Plan {
            generation: Generation(self.generation.0 + 1),
            stage: std::iter::repeat_with(Vec::new).take(workers).collect(),
            sweep: std::iter::repeat_with(Vec::new).take(workers).collect(),
            changes: Vec::new(),
            legs: BTreeSet::new(),
        };
        let store = std::mem::take(&mut self.store);
        let table = store.table();
        for (name, input) in choices {
            let Some(row) = table.sources.get(name).filter(|row| row.select.is_some()) else { continue };
            self.choose(name, input.as_ref());
            // The source is known, so nothing is allotted.
            let put = self.put_source(table, name, row, &mut plan);
            debug_assert!(put.is_ok(), "a known source needs no list");
        }
        self.store = store;
        self.feed(&mut plan);
        if plan.is_empty() {
            plan.generation = self.generation;
        }
        self.generation = plan.generation;
        plan
    }

    /// The ingress stream or learn rule of a list.
    pub fn stream_of(&self, list: u32) -> Option<&Name> {
        self.streams.get(&list)
    }
}
