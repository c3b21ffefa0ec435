//! Engines and a planner in one thread, commits carried out on the spot: for tests, benches and simulations.

use std::net::SocketAddr;

use sluice_srtp::provider::{AnyProvider, Provider, ProviderError, ProviderKind};
use sluice_table::protocol::Refused;
use sluice_table::{Change, Endpoint, LegKind, Limits, Name, Remote, Table};

use super::indexes::Indexes;
use super::planner::{Deps, Learned, Plan, Planner, PlannerConfig};
use super::route::{FixedRoute, Routes};
use super::selection::Selection;
use crate::engine::event::Event;
use crate::engine::{Capacity, Command, Engine, Nanos};
use crate::index_file::IndexFile;
use crate::index_file::store::IndexStore;

/// Limits that never police.
pub const UNLIMITED: Limits = Limits {
    bits_per_second: u64::MAX / 16,
    packets_per_second: u32::MAX,
    audio_bits_per_second: u64::MAX / 16,
    video_bits_per_second: u64::MAX / 16,
};

/// Workers without threads.
#[derive(Debug)]
pub struct Local<I = IndexStore, R = FixedRoute> {
    /// Plans commits.
    pub planner: Planner,
    /// The workers' engines, connected.
    pub engines: Vec<Engine<AnyProvider>>,
    /// Index rows.
    pub indexes: I,
    /// Next hops.
    pub routes: R,
    selection: Selection,
    crypto: AnyProvider,
    random: u64,
}

impl Local {
    /// `workers` engines with one provider kind and capacity each.
    pub fn new(kind: ProviderKind, workers: u8, capacity: Capacity) -> Result<Self, ProviderError> {
        let rows =
            (capacity.ingress + capacity.learned + capacity.egress + capacity.legs * 4) * usize::from(workers) * 2;
        let unavailable = |error: String| ProviderError::Unavailable { kind, reason: error };
        let file = IndexFile::anonymous(rows.max(16) as u32).map_err(|e| unavailable(e.to_string()))?;
        let indexes = IndexStore::new(std::sync::Arc::new(file)).map_err(|e| unavailable(e.to_string()))?;
        Local::with(kind, workers, capacity, indexes, FixedRoute::default())
    }
}

impl<I: Indexes, R: Routes> Local<I, R> {
    /// As [`Local::new`], with index rows and routes of the caller's.
    pub fn with(
        kind: ProviderKind,
        workers: u8,
        capacity: Capacity,
        indexes: I,
        routes: R,
    ) -> Result<Self, ProviderError> {
        let mut engines = Vec::new();
        for worker in 0..workers {
            engines.push(Engine::new(worker, workers, AnyProvider::new(kind)?, &capacity, [0x51, 0x0c]));
        }
        for a in 0..engines.len() {
            let (left, right) = engines.split_at_mut(a + 1);
            for b in right {
                Engine::connect(&mut left[a], b);
            }
        }
        Ok(Local {
            planner: Planner::new(PlannerConfig { workers, capacity }),
            engines,
            indexes,
            routes,
            selection: Selection::default(),
            crypto: AnyProvider::new(kind)?,
            random: 1,
        })
    }

    /// The plan for a table, not carried out yet.
    pub fn plan(&mut self, table: Table) -> Result<Plan, Refused> {
        self.with_deps(|planner, deps| planner.plan(table, deps))
    }

    fn with_deps<T>(&mut self, work: impl FnOnce(&mut Planner, &mut Deps<'_, AnyProvider>) -> T) -> T {
        let state = &mut self.random;
        let mut random = move || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *state >> 33
        };
        let mut deps = Deps {
            crypto: &mut self.crypto,
            indexes: &mut self.indexes,
            routes: &mut self.routes,
            random: &mut random,
        };
        work(&mut self.planner, &mut deps)
    }

    /// Applies changes to the table of all workers.
    pub fn transact(&mut self, changes: Vec<Change>) -> Result<(), Refused> {
        let plan = self.with_deps(|planner, deps| planner.transact(changes, deps))?;
        self.selection.follow(&plan.changes);
        self.carry_out(plan);
        Ok(())
    }

    /// Makes `table` the table of all workers.
    pub fn apply(&mut self, table: Table) -> Result<(), Refused> {
        let plan = self.plan(table)?;
        self.selection.follow(&plan.changes);
        self.carry_out(plan);
        Ok(())
    }

    /// Stages, flips and sweeps at once.
    pub fn carry_out(&mut self, plan: Plan) {
        if plan.is_empty() {
            return;
        }
        for (engine, stage) in self.engines.iter_mut().zip(plan.stage) {
            for command in stage {
                engine.command(command);
            }
        }
        for engine in &mut self.engines {
            engine.command(Command::Flip(plan.generation));
        }
        for (engine, sweep) in self.engines.iter_mut().zip(plan.sweep) {
            for command in sweep {
                engine.command(command);
            }
            engine.garbage().for_each(drop);
        }
    }

    /// Takes the engines' events, follows levels, keeps what was learned, and switches slots as the management thread
    /// does every 5 ms. Returns the events that are not levels.
    pub fn tick(&mut self, now: Nanos) -> Vec<Event> {
        let mut events = Vec::new();
        for (engine, worker) in self.engines.iter_mut().zip(0u8..) {
            let mut keep = Vec::new();
            for event in engine.events() {
                if let Event::StreamLearned { leg, rule, ssrc, source, incarnation, .. } = event {
                    let stream = Learned { worker, leg, rule, ssrc, source, incarnation };
                    keep.extend(self.planner.remember(&stream, &mut self.indexes));
                }
                match event {
                    Event::Level { list, level } => {
                        if let Some(stream) = self.planner.stream_of(list) {
                            self.selection.heard(stream, level, now);
                        }
                    }
                    other => events.push(other),
                }
            }
            for command in keep {
                engine.command(command);
            }
        }
        let choices = self.selection.tick(now);
        if !choices.is_empty() {
            let plan = self.planner.select(&choices);
            self.carry_out(plan);
        }
        events
    }

    /// The keys a test peer seals or opens with.
    pub fn expand(&mut self, key: &sluice_srtp::MasterKey) -> sluice_srtp::SessionKeys {
        self.crypto.expand(key)
    }
}

/// A client leg without keys, limits or extensions, at `remote`.
pub fn leg(endpoint: &Name, remote: SocketAddr) -> sluice_table::Leg {
    sluice_table::Leg {
        endpoint: endpoint.clone(),
        kind: LegKind::Client,
        remote: Remote::Fixed(remote),
        inbound: None,
        outbound: None,
        accept_key_reuse: false,
        extensions: sluice_table::ExtensionIds::default(),
        limits: UNLIMITED,
        ice: None,
        feedback: sluice_table::Feedback::default(),
        member: None,
        hears: None,
    }
}

/// An endpoint on no particular interface.
pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { interface: "memory0".to_owned(), address }
}
