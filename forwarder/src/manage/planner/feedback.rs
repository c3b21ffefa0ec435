//! Which worker asks for a key frame: the owner of the leg that sends the stream.

use sluice_table::{Name, Table};

use super::{Plan, Planner};
use crate::engine::Command;

impl Planner {
    /// The worker and command that ask for a key frame of a listed stream, by the number egress streams know it by.
    pub fn key_frame(&self, source: u32) -> Option<(u8, Command)> {
        let ((leg, _), at) = self.ingress.iter().find(|(_, at)| at.source == source)?;
        Some((at.worker, Command::KeyFrame { leg: self.legs.get(leg)?.slot, list: at.list }))
    }

    /// The same for what a learn rule made.
    pub fn key_frame_of_rule(&self, rule: &Name) -> Option<(u8, Command)> {
        self.key_frame_of(&self.table, rule)
    }

    fn key_frame_of(&self, table: &Table, stream: &Name) -> Option<(u8, Command)> {
        let leg = table.ingress.get(stream).map(|row| &row.leg).or_else(|| Some(&table.learn.get(stream)?.leg))?;
        table.legs.get(leg)?.feedback.key_frame?;
        let (state, list) = (self.legs.get(leg)?, self.list_of(table, stream)?);
        Some((state.worker, Command::KeyFrame { leg: state.slot, list }))
    }

    /// Once the commit is in force, asks for a key frame of what a stream or source carries: somebody new sees it.
    pub(super) fn ask_key_frame(&self, next: &Table, carried: &Name, plan: &mut Plan) {
        let input = next.sources.get(carried).map_or(Some(carried), |source| source.input.as_ref());
        if let Some((worker, command)) = input.and_then(|input| self.key_frame_of(next, input)) {
            plan.sweep[usize::from(worker)].push(command);
        }
    }
}
