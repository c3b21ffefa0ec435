//! `ndr`: the highest rate without loss (NDR) and with a tolerated loss (PDR), by bisection over `lab` runs with a
//! bounded number of trials.

use clap::Args;
use serde::Serialize;

use crate::error::BenchError;
use crate::generate::{Rate, print_json};
use crate::lab::{self, Net, median};

/// What to search.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    lab: lab::Arguments,
    /// Fraction of packets that may be lost at the NDR
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Fraction of packets that may be lost at the PDR
    #[arg(long, default_value_t = 0.001)]
    partial_loss: f64,
    /// Stop when the bounds are this close, as a fraction of the upper one
    #[arg(long, default_value_t = 0.02)]
    precision: f64,
    /// Trials of a search at most
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=100))]
    trials: u32,
    /// Searches; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    searches: u32,
}

/// One trial of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    /// Packets per second given.
    rate: f64,
    /// Packets per second that came out.
    egress_pps: f64,
    /// Fraction lost.
    loss: f64,
}

/// The best rate found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Found {
    ingress_pps: f64,
    egress_pps: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    io: lab::Target,
    profile: &'static str,
    payload_bytes: usize,
    fanout: u32,
    loss: f64,
    partial_loss: f64,
    ndr: Option<Found>,
    pdr: Option<Found>,
    searches: Vec<Vec<Step>>,
}

/// Searches and prints the report.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let net = Net::up(arguments.lab.workers)?;
    let mut searches = Vec::new();
    for _ in 0..arguments.searches {
        let first = lab::measure(&arguments.lab, Rate::Max, &net)?;
        // What was forwarded when too much came bounds what can be forwarded without loss.
        let most = arguments.lab.io.search_from(first.egress_pps) / f64::from(arguments.lab.fanout);
        let mut steps = Vec::new();
        for threshold in [arguments.loss, arguments.partial_loss] {
            search(&mut steps, most, threshold, arguments.precision, arguments.trials, |rate| {
                let report = lab::measure(&arguments.lab, Rate::Packets(rate), &net)?;
                Ok(Step { rate, egress_pps: report.egress_pps, loss: report.loss })
            })?;
        }
        searches.push(steps);
    }
    let of = |threshold: f64| middle(&searches.iter().filter_map(|steps| best(steps, threshold)).collect::<Vec<_>>());
    print_json(&Report {
        io: arguments.lab.io,
        profile: arguments.lab.profile.name(),
        payload_bytes: arguments.lab.payload,
        fanout: arguments.lab.fanout,
        loss: arguments.loss,
        partial_loss: arguments.partial_loss,
        ndr: of(arguments.loss),
        pdr: of(arguments.partial_loss),
        searches,
    })
}

/// Bisects between what the steps so far say, at most `trials` more steps.
fn search<E>(
    steps: &mut Vec<Step>,
    most: f64,
    threshold: f64,
    precision: f64,
    trials: u32,
    mut measure: impl FnMut(f64) -> Result<Step, E>,
) -> Result<(), E> {
    for _ in 0..trials {
        let good = best(steps, threshold).map_or(0.0, |found| found.ingress_pps);
        let bad = steps.iter().filter(|step| step.loss > threshold && step.rate > good).map(|step| step.rate);
        let bad = bad.fold(f64::INFINITY, f64::min);
        let rate = if bad.is_finite() { f64::midpoint(good, bad) } else { most };
        if bad.min(most) - good <= precision * bad.min(most) {
            break;
        }
        steps.push(measure(rate)?);
    }
    Ok(())
}

/// The highest rate below every rate that lost too much; a lucky trial above a lossy one does not count.
fn best(steps: &[Step], threshold: f64) -> Option<Found> {
    let bad = steps.iter().filter(|step| step.loss > threshold).map(|step| step.rate).fold(f64::INFINITY, f64::min);
    let good = steps.iter().filter(|step| step.loss <= threshold && step.rate < bad);
    let step = good.max_by(|a, b| a.rate.total_cmp(&b.rate))?;
    Some(Found { ingress_pps: step.rate, egress_pps: step.egress_pps })
}

fn middle(found: &[Found]) -> Option<Found> {
    (!found.is_empty()).then(|| Found {
        ingress_pps: median(found.iter().map(|one| one.ingress_pps).collect()),
        egress_pps: median(found.iter().map(|one| one.egress_pps).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A forwarder that loses what exceeds its capacity.
    fn forwarder(capacity: f64) -> impl FnMut(f64) -> Result<Step, ()> {
        move |rate| {
            let loss = if rate > capacity { 1.0 - capacity / rate } else { 0.0 };
            Ok(Step { rate, egress_pps: rate.min(capacity), loss })
        }
    }

    #[test]
    fn finds_the_capacity_within_the_precision() {
        for capacity in [1_000.0, 123_456.0, 990_000.0] {
            let mut steps = Vec::new();
            search(&mut steps, 1_000_000.0, 0.0, 0.01, 30, forwarder(capacity)).unwrap();
            let found = best(&steps, 0.0).unwrap();
            assert!(found.ingress_pps <= capacity && found.ingress_pps >= capacity * 0.98, "{capacity} {found:?}");
            search(&mut steps, 1_000_000.0, 0.01, 0.001, 30, forwarder(capacity)).unwrap();
            let partial = best(&steps, 0.01).unwrap();
            assert!(partial.ingress_pps >= capacity * 1.008 - 1_000.0, "{capacity} {partial:?}");
        }
    }

    #[test]
    fn trials_are_bounded_and_no_capacity_is_none() {
        let mut steps = Vec::new();
        search(&mut steps, 1e6, 0.0, 0.0, 7, forwarder(0.0)).unwrap();
        assert_eq!((steps.len(), best(&steps, 0.0)), (7, None));
        let mut steps = Vec::new();
        search(&mut steps, 1e6, 0.0, 0.02, 7, forwarder(2e6)).unwrap();
        assert_eq!((steps.len(), best(&steps, 0.0).unwrap().ingress_pps), (1, 1e6));
    }

    #[test]
    fn luck_above_a_lossy_rate_does_not_count() {
        let step = |rate, loss| Step { rate, egress_pps: rate, loss };
        let steps = [step(100.0, 0.0), step(200.0, 0.1), step(300.0, 0.0)];
        assert_eq!(best(&steps, 0.0), Some(Found { ingress_pps: 100.0, egress_pps: 100.0 }));
        assert_eq!(best(&steps, 0.2), Some(Found { ingress_pps: 300.0, egress_pps: 300.0 }));
    }
}
