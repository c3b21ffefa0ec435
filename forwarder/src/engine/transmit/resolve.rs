//! What the generation in force says of an egress stream, looked up once per generation.

use sluice_srtp::PacketIndex;
use sluice_srtp::window::SentWindow;

use super::super::flow::Setup;
use super::super::rewrite::Rewriter;
use super::super::rows::{EgressConfig, EgressRow, LegRow};
use super::super::time::Nanos;
use super::walk::Turned;

/// Sets a stream up for packets; an error if it is not to be served.
#[cold]
#[inline(never)]
pub(super) fn set_up(row: &mut EgressRow, legs: &[LegRow], setup: Setup, now: Nanos) -> Result<(), Turned> {
    let generation = setup.generation;
    let config = row.config.get(generation).filter(|config| config.list == setup.list).ok_or(Turned::Skip)?;
    let leg = legs[config.leg as usize].config.get(generation).ok_or(Turned::Skip)?;
    row.flow.resolve(setup.payload_type, config, leg).map_err(Turned::Drop)?;
    row.gate.bind(config.binding, config.layer);
    if row.incarnation != config.incarnation {
        (row.window, row.rewriter) = fresh_state(config, now);
        row.incarnation = config.incarnation;
    }
    row.rewriter.set_context(setup.context());
    Ok(())
}

#[cold]
fn fresh_state(config: &EgressConfig, now: Nanos) -> (SentWindow, Rewriter) {
    let first = PacketIndex::from_u64(config.first_index).unwrap_or(PacketIndex::MAX);
    let rewriter = match config.resume_timing {
        Some((timestamp, ms)) => {
            // The stored clock is 32 bits of milliseconds: only the difference counts.
            let ago = ((now.0 / 1_000_000) as u32).wrapping_sub(ms);
            let sent = now.since(Nanos::from_millis(u64::from(ago)));
            Rewriter::resume(config.clock_rate, timestamp, sent)
        }
        None => Rewriter::new(config.clock_rate),
    };
    (SentWindow::new(first), rewriter)
}
