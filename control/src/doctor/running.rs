//! Checks of what a running forwarder says about itself.

use super::{Finding, Running};

const FORWARDER: &str = "forwarder";

/// Every finding about a running forwarder.
pub(super) fn check(running: &Running) -> Vec<Finding> {
    let status = &running.status;
    let mut findings = vec![strays(running), slow(running), ledger(running)];
    for pool in status.capacity.iter().filter(|c| c.limit > 0 && c.used * 10 >= c.limit * 9) {
        let found = format!("{} of {} {} in use", pool.used, pool.limit, pool.what);
        let why = "once it is full, what needs more is refused or dropped";
        let cure = format!("raise capacity.{} in the forwarder's configuration and restart it", pool.what);
        findings.push(Finding::warn("capacity", FORWARDER, found, why).fix(cure));
    }
    for worker in status.workers.iter().filter(|w| w.cpu.is_none()) {
        let why = "the scheduler moves it between cores, and each move costs its caches";
        let found = format!("worker {} is not pinned to a core", worker.worker);
        findings
            .push(Finding::warn("pinning", FORWARDER, found, why).fix("give the forwarder one core for each worker"));
    }
    for note in &status.degraded {
        findings.push(Finding::warn("degraded", FORWARDER, note.clone(), "the forwarder reports this itself"));
    }
    findings
}

fn strays(running: &Running) -> Finding {
    let sum = |pick: fn(&sluice_table::protocol::LegRow) -> u64| running.legs.iter().map(pick).sum::<u64>();
    let stray = sum(|l| l.stray);
    let all = stray + sum(|l| l.fast) + sum(|l| l.slow);
    let found = share("stray", stray, all);
    // A twentieth costs less than 1 % of a core at any rate a core can reach.
    if stray * 20 <= all {
        return Finding::ok("strays", FORWARDER, found);
    }
    let interface = running.status.endpoints.first().map_or("IFACE", |e| e.interface.as_str());
    let why = "a stray packet arrived at a worker that does not own its leg and had to be handed over";
    Finding::warn("strays", FORWARDER, found, why).fix(format!("ethtool -N {interface} rx-flow-hash udp4 sdfn"))
}

fn slow(running: &Running) -> Finding {
    let (mut slow, mut all) = (0, 0);
    for leg in &running.legs {
        slow += leg.slow;
        all += leg.slow + leg.fast + leg.stray;
    }
    let found = share("by the kernel socket", slow, all);
    if slow * 20 <= all {
        return Finding::ok("slow_path", FORWARDER, found);
    }
    let why = "packets through the kernel's socket cost several times more than through AF_XDP";
    Finding::warn("slow_path", FORWARDER, found, why).fix("sluice legs (which legs), sluice status (what was refused)")
}

fn share(what: &str, part: u64, all: u64) -> String {
    if all == 0 {
        return "no packet arrived yet".to_owned();
    }
    format!("{:.1} % of packets arrived {what}", part as f64 * 100.0 / all as f64)
}

fn ledger(running: &Running) -> Finding {
    let l = running.status.ledger;
    let sum = l.free + l.fill + l.held + l.transmit;
    if sum == l.total {
        return Finding::ok("ledger", FORWARDER, format!("all {} frames are accounted for", l.total));
    }
    let found = format!("{} of {} frames are unaccounted for", l.total.abs_diff(sum), l.total);
    let why = "lost frames never come back, and without frames nothing is received or sent";
    Finding::bad("ledger", FORWARDER, found, why)
        .fix("restart sluice-forwarder and report this with `sluice status --json`")
}
