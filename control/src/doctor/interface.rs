//! Checks of one network interface: driver, queues, hashing, offloads, interrupts, XDP programs.

use std::fs;
use std::path::PathBuf;

use sluice_table::protocol::IoMode;

use super::{Finding, Running};
use crate::netdev::{self, bpf, ethtool, link};

/// Interfaces that are up and not loopback.
pub(super) fn all_up() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    names.filter(|name| name != "lo" && is_up(name)).collect()
}

fn sys(interface: &str, path: &str) -> PathBuf {
    PathBuf::from("/sys/class/net").join(interface).join(path)
}

fn is_up(interface: &str) -> bool {
    let flags = fs::read_to_string(sys(interface, "flags")).unwrap_or_default();
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|f| f & 1 == 1)
}

/// Every finding about an interface.
pub(super) fn check(name: &str, running: Option<&Running>) -> Vec<Finding> {
    let index = match netdev::index(name) {
        Ok(index) => index,
        Err(e) => {
            let why = "no endpoint can be opened on it";
            return vec![Finding::bad("exists", name, format!("no such interface: {e}"), why).fix("ip link")];
        }
    };
    let mut findings = Vec::new();
    if !is_up(name) {
        let why = "nothing is received or sent";
        findings.push(Finding::bad("up", name, "is down", why).fix(format!("ip link set {name} up")));
    }
    let driver = ethtool::driver(name).unwrap_or_else(|_| "unknown".to_owned());
    findings.push(io_mode(name, &driver, running));
    let queues = queues(name);
    findings.push(queue_count(name, queues, running));
    findings.extend(hashing(name, queues));
    findings.extend(offloads(name, &driver));
    findings.extend(interrupts(name));
    findings.push(programs(name, index));
    findings
}

fn io_mode(name: &str, driver: &str, running: Option<&Running>) -> Finding {
    let endpoint = running.and_then(|r| r.status.endpoints.iter().find(|e| e.interface == name));
    let Some(endpoint) = endpoint else {
        return Finding::ok("driver", name, format!("{driver}; the forwarder has no endpoint here"));
    };
    let found = format!("{driver}, {}", endpoint.mode);
    if matches!(endpoint.mode, IoMode::XdpZeroCopy | IoMode::Memory) {
        return Finding::ok("driver", name, found);
    }
    let reasons: Vec<String> = endpoint.refused.iter().map(|r| format!("{}: {}", r.mode, r.reason)).collect();
    let mut why = match endpoint.mode {
        IoMode::XdpCopy => "every packet is copied between driver and forwarder".to_owned(),
        IoMode::XdpGeneric => "every packet becomes a socket buffer and is copied".to_owned(),
        _ => "every packet takes the kernel's UDP socket, several times the cost".to_owned(),
    };
    if !reasons.is_empty() {
        why = format!("{why}; refused: {}", reasons.join("; "));
    }
    // veth has no zero-copy, so copy mode is the best it can do.
    if driver == "veth" && endpoint.mode == IoMode::XdpCopy {
        return Finding::ok("driver", name, format!("{found} (the best veth can do)"));
    }
    Finding::warn("driver", name, found, &why)
        .fix(format!("ethtool -i {name}, then a driver and kernel with AF_XDP zero-copy for it"))
}

fn queues(name: &str) -> u32 {
    let Ok(entries) = fs::read_dir(sys(name, "queues")) else { return 0 };
    entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("rx-")).count() as u32
}

fn queue_count(name: &str, queues: u32, running: Option<&Running>) -> Finding {
    let (used, possible) = ethtool::channels(name).unwrap_or((queues, queues));
    let Some(running) = running else {
        return Finding::ok("queues", name, format!("{used} of {possible} receive queues in use"));
    };
    let workers = running.status.workers.len() as u32;
    let found = format!("{used} receive queues, {workers} workers");
    if used == workers {
        return Finding::ok("queues", name, found);
    }
    let why = "a queue without a worker, or a worker without a queue, hands packets over instead of forwarding them";
    if possible >= workers {
        return Finding::warn("queues", name, found, why).fix(format!("ethtool -L {name} combined {workers}"));
    }
    Finding::warn("queues", name, format!("{found}; the interface has at most {possible}"), why)
        .fix(format!("run sluice-forwarder with {possible} workers"))
}

fn hashing(name: &str, queues: u32) -> Vec<Finding> {
    if queues < 2 {
        return vec![Finding::ok("udp_hash", name, "one queue; nothing to hash over")];
    }
    let mut findings = Vec::new();
    for (family, v6) in [("udp4", false), ("udp6", true)] {
        findings.push(match ethtool::udp_ports_hashed(name, v6) {
            Ok(true) => Finding::ok("udp_hash", name, format!("{family} ports take part in receive hashing")),
            Ok(false) => {
                let why = "all packets between two hosts land on one queue, and with it one core";
                Finding::warn("udp_hash", name, format!("{family} is hashed by address only"), why)
                    .fix(format!("ethtool -N {name} rx-flow-hash {family} sdfn"))
            }
            Err(e) => Finding::ok("udp_hash", name, format!("{family}: the driver does not say ({e})")),
        });
    }
    findings
}

fn offloads(name: &str, driver: &str) -> Vec<Finding> {
    let features = match ethtool::features(name) {
        Ok(features) => features,
        Err(e) => return vec![Finding::ok("offloads", name, format!("the driver does not say ({e})"))],
    };
    let on = |feature: &str| features.get(feature).copied().unwrap_or(false);
    let mut findings = Vec::new();
    for (feature, why) in [
        ("rx-lro", "merged packets do not fit XDP, which then cannot be attached or loses them"),
        ("rx-gro-hw", "packets merged by the card do not fit XDP, which then cannot be attached or loses them"),
        ("rx-udp-gro-forwarding", "UDP packets may be merged on their way and media arrives garbled"),
    ] {
        if on(feature) {
            let cure = format!("ethtool -K {name} {feature} off");
            findings.push(Finding::bad("offloads", name, format!("{feature} is on"), why).fix(cure));
        }
    }
    if driver == "veth" && on("tx-checksum-ip-generic") {
        let why = "packets of local senders cross a veth with unfinished checksums, which an AF_XDP reader sees as they \
                   are; it matters at the end the senders use";
        let cure = format!("ethtool -K {name} tx-checksum-ip-generic off (at the senders' end)");
        findings.push(Finding::warn("offloads", name, "tx-checksum-ip-generic is on", why).fix(cure));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("offloads", name, "none that hurts is on"));
    }
    findings
}

fn interrupts(name: &str) -> Option<Finding> {
    let entries = fs::read_dir(sys(name, "device/msi_irqs")).ok()?;
    let mut lists = Vec::new();
    for irq in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        if let Ok(list) = fs::read_to_string(format!("/proc/irq/{irq}/smp_affinity_list")) {
            lists.push((irq, list.trim().to_owned()));
        }
    }
    let (irq, list) = lists.iter().find(|(_, list)| list.contains([',', '-']))?;
    let why = "an interrupt that may move between cores takes its queue's packets away from the core of the worker";
    let cure =
        format!("systemctl stop irqbalance; echo CPU > /proc/irq/{irq}/smp_affinity_list (one core for each queue)");
    Some(Finding::warn("irq_affinity", name, format!("interrupt {irq} may run on cores {list}"), why).fix(cure))
}

fn programs(name: &str, index: u32) -> Finding {
    let programs = match link::xdp(index) {
        Ok(programs) => programs,
        Err(e) => return Finding::warn("xdp", name, format!("cannot be asked: {e}"), "a foreign program may be there"),
    };
    let Some(program) = programs.first() else { return Finding::ok("xdp", name, "no XDP program attached") };
    match bpf::program_name(program.id) {
        Ok(title) if title == bpf::OUR_PROGRAM => {
            Finding::ok("xdp", name, format!("Sluice's program (id {}) is attached", program.id))
        }
        Ok(title) => {
            let found = format!("a foreign XDP program is attached: {title:?} (id {})", program.id);
            let why = "Sluice never replaces it unasked, so this interface falls back to the kernel's UDP socket";
            Finding::bad("xdp", name, found, why).fix(format!("sluice xdp detach {name} --force"))
        }
        Err(e) => {
            let found = format!("an XDP program (id {}) is attached; its name cannot be read: {e}", program.id);
            Finding::warn("xdp", name, found, "it may not be Sluice's").fix("run `sudo sluice doctor`")
        }
    }
}
