//! Prometheus' text format (version 0.0.4). Never asks anybody.

use std::fmt::Write;

use sluice_table::protocol::{CounterGroup, IoTotals, Status, WorkerStatus};

use super::query::NodeMetrics;

/// Everything that is known at one moment.
pub(super) struct Known<'a> {
    pub(super) version: &'a str,
    pub(super) uptime_s: u64,
    pub(super) node: &'a NodeMetrics,
    pub(super) http: Vec<(&'static str, u64)>,
    pub(super) link: Vec<(&'static str, u64)>,
    /// `None` if the forwarder does not answer.
    pub(super) forwarder: Option<(&'a Status, &'a [CounterGroup])>,
}

/// Reads one value of a worker.
type OfWorker = fn(&WorkerStatus) -> u64;

/// A text being written.
struct Text(String);

impl Text {
    /// Begins a metric.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { "{" } else { "," });
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }

    /// One metric with a label that names each value.
    fn set<'a>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'a str, u64)>,
    ) {
        self.metric(name, kind, help);
        for (text, value) in values {
            self.value(name, &[(label, text)], value);
        }
    }
}

pub(super) fn render(known: &Known<'_>) -> String {
    let mut text = Text(String::with_capacity(16 << 10));
    let node = known.node;
    text.one("sft_uptime", "counter", "Seconds since the start", known.uptime_s);
    text.metric("sft_build_info", "gauge", "Version");
    text.value("sft_build_info", &[("version", known.version)], 1);
    text.one("sft_participants", "gauge", "Participants", node.participants);
    text.one("sft_calls", "gauge", "Conferences", node.conferences);
    text.one("sft_participants_total", "counter", "Participants since the start", node.participants_total);
    text.one("sft_calls_total", "counter", "Conferences since the start", node.conferences_total);
    for (name, value) in &node.gauges {
        text.one(&format!("sluice_{name}"), "gauge", "See docs/metrics.md", *value);
    }
    let counters = node.counters.iter().map(|(name, value)| (name.as_str(), *value));
    text.set("sluice_control_total", "counter", "What the node did and refused, by reason", "reason", counters);
    let http = known.http.iter().copied();
    text.set("sluice_http_total", "counter", "What the public listener took and refused, by reason", "reason", http);
    let link = known.link.iter().copied();
    text.set("sluice_link_total", "counter", "Messages between control and forwarder", "what", link);
    let up = u64::from(known.forwarder.is_some());
    text.one("sluice_forwarder_up", "gauge", "Whether the forwarder answers", up);
    if let Some((status, groups)) = known.forwarder {
        forwarder(&mut text, status, groups);
    }
    text.0
}

fn forwarder(text: &mut Text, status: &Status, groups: &[CounterGroup]) {
    text.metric("sluice_forwarder_build_info", "gauge", "Version and crypto provider");
    let labels = [("version", status.software.as_str()), ("provider", status.provider.as_str())];
    text.value("sluice_forwarder_build_info", &labels, 1);
    text.one("sluice_forwarder_uptime_seconds", "gauge", "Seconds since its start", status.uptime_ms / 1000);
    text.one("sluice_forwarder_degraded", "gauge", "What works less well than it could", status.degraded.len() as u64);
    let used = status.capacity.iter().map(|c| (c.what.as_str(), c.used));
    text.set("sluice_capacity_used", "gauge", "Entries in use of each pool", "pool", used);
    let limit = status.capacity.iter().map(|c| (c.what.as_str(), c.limit));
    text.set("sluice_capacity_limit", "gauge", "Entries of each pool", "pool", limit);
    let ledger = status.ledger;
    let parts = [("free", ledger.free), ("fill", ledger.fill), ("held", ledger.held), ("transmit", ledger.transmit)];
    text.set("sluice_frames", "gauge", "Frames by where they are", "place", parts.into_iter());
    let worker: [(&str, &str, OfWorker); 8] = [
        ("sluice_worker_steps_total", "Engine steps", |w| w.steps),
        ("sluice_worker_busy_steps_total", "Engine steps that found work", |w| w.busy_steps),
        ("sluice_worker_cpu_microseconds_total", "CPU time", |w| w.cpu_us),
        ("sluice_worker_opened_total", "Packets opened", |w| w.opened),
        ("sluice_worker_sealed_total", "Packets sealed", |w| w.sealed),
        ("sluice_worker_strays_total", "Packets of other workers' legs", |w| w.strays),
        ("sluice_worker_dropped_total", "Packets dropped", |w| w.dropped),
        ("sluice_worker_legs", "Legs owned", |w| w.legs),
    ];
    for (name, help, read) in worker {
        text.metric(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        for row in &status.workers {
            text.value(name, &[("worker", &row.worker.to_string())], read(row));
        }
    }
    text.metric("sluice_endpoint_info", "gauge", "Endpoints and how they do I/O");
    for row in &status.endpoints {
        let (endpoint, address) = (row.endpoint.to_string(), row.address.to_string());
        let labels = [
            ("endpoint", endpoint.as_str()),
            ("interface", &row.interface),
            ("address", &address),
            ("mode", row.mode.name()),
        ];
        text.value("sluice_endpoint_info", &labels, 1);
    }
    text.metric("sluice_endpoint_total", "counter", "Frames, bytes and failures of each endpoint");
    for row in &status.endpoints {
        for (what, value) in io(&row.io) {
            text.value("sluice_endpoint_total", &[("endpoint", row.endpoint.as_str()), ("what", what)], value);
        }
    }
    text.metric("sluice_forwarder_total", "counter", "Counters of the forwarder; group drops is by reason");
    for group in groups {
        for (name, value) in &group.counters {
            text.value("sluice_forwarder_total", &[("group", &group.group), ("name", name)], *value);
        }
    }
}

fn io(io: &IoTotals) -> [(&'static str, u64); 10] {
    [
        ("rx_frames", io.rx_frames),
        ("rx_bytes", io.rx_bytes),
        ("tx_frames", io.tx_frames),
        ("tx_bytes", io.tx_bytes),
        ("kicks", io.kicks),
        ("rx_ring_full", io.rx_ring_full),
        ("rx_fill_empty", io.rx_fill_empty),
        ("rx_dropped", io.rx_dropped),
        ("tx_invalid", io.tx_invalid),
        ("tx_failed", io.tx_failed),
    ]
}
