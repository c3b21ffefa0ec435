//! Whether a run may count: who used the CPUs meanwhile. Reads `/proc` and nothing else.
//!
//! A neighbour on the same machine slows a run down without showing as steal time, so a run counts only if the
//! generator, which never sleeps, really had its core, and if nobody else was busy.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock;

/// A generator that had less of its core than this was held up.
pub(crate) const MIN_GENERATOR_CPU: f64 = 0.97;
/// CPU seconds of others in a run of up to 2 s; longer runs get proportionally more.
pub(crate) const MAX_FOREIGN_CPU: f64 = 0.2;
/// How long it must be quiet before a run.
const QUIET_FOR: Duration = Duration::from_millis(400);
/// Length a clock tick of `/proc/stat` has, in seconds (`USER_HZ` is 100 on Linux).
const TICK: f64 = 0.01;

/// Readings at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// `CLOCK_MONOTONIC`.
    pub(crate) at: u64,
    /// CPU time of the reading thread.
    pub(crate) thread: u64,
    /// CPU time of the process under test, with what its core's `ksoftirqd` did.
    pub(crate) target: u64,
    /// Busy ticks of every CPU.
    pub(crate) busy: u64,
}

impl Reading {
    /// Takes the readings. `core` is where the process `target` is pinned.
    pub(crate) fn take(target: u32, softirq: Option<u32>) -> Reading {
        Reading {
            at: clock::monotonic(),
            thread: clock::thread_cpu(),
            target: process_cpu(target) + softirq.map_or(0, process_cpu),
            busy: busy_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        }
    }
}

/// What two readings say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// Between the readings.
    pub(crate) seconds: f64,
    /// Fraction of a core that the generator had.
    pub(crate) generator_cpu: f64,
    /// CPU seconds of the process under test.
    pub(crate) target_cpu_s: f64,
    /// CPU seconds of everybody else.
    pub(crate) foreign_cpu_s: f64,
}

impl Usage {
    /// The difference of two readings.
    pub(crate) fn between(start: &Reading, end: &Reading) -> Usage {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        let own = seconds(start.thread, end.thread);
        let target = seconds(start.target, end.target);
        let busy = end.busy.saturating_sub(start.busy) as f64 * TICK;
        let length = seconds(start.at, end.at);
        Usage {
            seconds: length,
            generator_cpu: if length > 0.0 { own / length } else { 0.0 },
            target_cpu_s: target,
            foreign_cpu_s: (busy - own - target).max(0.0),
        }
    }

    /// Why the run must be discarded; `None` if it counts.
    pub(crate) fn verdict(&self) -> Option<String> {
        let allowed = MAX_FOREIGN_CPU * (self.seconds / 2.0).max(1.0);
        if self.generator_cpu < MIN_GENERATOR_CPU {
            return Some(format!("the generator had {:.3} of its core, needs {MIN_GENERATOR_CPU}", self.generator_cpu));
        }
        if self.foreign_cpu_s >= allowed {
            return Some(format!("others used {:.2} CPU-s, {allowed:.2} are allowed", self.foreign_cpu_s));
        }
        None
    }
}

/// Waits until nobody is busy, at most `limit`; returns whether it came to that. A run in the noise would only be
/// discarded.
pub(crate) fn wait_quiet(limit: Duration, stop: &AtomicBool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        let before = busy_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default());
        std::thread::sleep(QUIET_FOR);
        let after = busy_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let busy = after.saturating_sub(before) as f64 * TICK;
        if busy < MAX_FOREIGN_CPU / 2.0 * QUIET_FOR.as_secs_f64() {
            return true;
        }
    }
    false
}

/// Busy ticks of all CPUs by the first line of `/proc/stat`.
fn busy_ticks(stat: &str) -> u64 {
    let Some(line) = stat.lines().find(|line| line.starts_with("cpu ")) else { return 0 };
    let fields: Vec<u64> = line.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum()
}

/// CPU nanoseconds of every thread of a process, with the softirq work done in their context.
pub(crate) fn process_cpu(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// The process id of a core's softirq thread, which does what the forwarder's own context did not get to.
pub(crate) fn softirq_thread(core: usize) -> Option<u32> {
    let wanted = format!("ksoftirqd/{core}");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.trim() == wanted).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: u64, thread: u64, target: u64, busy: u64) -> Reading {
        Reading { at, thread, target, busy }
    }

    #[test]
    fn a_quiet_run_counts() {
        let usage =
            Usage::between(&reading(0, 0, 0, 1_000), &reading(2_000_000_000, 1_990_000_000, 500_000_000, 1_252));
        assert_eq!(usage.verdict(), None);
        assert!((usage.foreign_cpu_s - 0.03).abs() < 1e-9 && (usage.target_cpu_s - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_held_up_generator_and_busy_neighbours_do_not() {
        let start = reading(0, 0, 0, 0);
        let slow = Usage::between(&start, &reading(2_000_000_000, 1_900_000_000, 0, 190)).verdict().unwrap();
        assert!(slow.contains("0.950"), "{slow}");
        let noisy = Usage::between(&start, &reading(2_000_000_000, 1_990_000_000, 0, 225)).verdict().unwrap();
        assert!(noisy.contains("0.26 CPU-s"), "{noisy}");
    }

    #[test]
    fn busy_ticks_leave_idle_out() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 0 0\ncpu0 9 9 9 9\n"), 63);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn own_cpu_time_grows() {
        let before = process_cpu(std::process::id());
        let mut x = 1_u64;
        for _ in 0..30_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(process_cpu(std::process::id()) > before);
    }
}
