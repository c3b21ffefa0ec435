//! The forwarder's configuration: one TOML file with every default, overridden by flags. Knows no table.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_srtp::ProviderKind;

use crate::engine::Capacity;
use crate::io::PollMode;

/// Which packet I/O to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// `AF_XDP` where it works, kernel sockets elsewhere; says which and why.
    #[default]
    Auto,
    /// `AF_XDP` or refuse the endpoint.
    Xdp,
    /// Kernel sockets only.
    Udp,
}

/// How workers wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Polling {
    /// Never sleep.
    Busy,
    /// Sleep after 200 µs without work.
    #[default]
    Adaptive,
    /// Sleep at once.
    Interrupt,
}

impl From<Polling> for PollMode {
    fn from(polling: Polling) -> Self {
        match polling {
            Polling::Busy => PollMode::Busy,
            Polling::Adaptive => PollMode::Adaptive,
            Polling::Interrupt => PollMode::Interrupt,
        }
    }
}

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Worker threads, one a core; 1 to 64.
    pub workers: u8,
    /// Cores to pin workers to, in order; empty pins worker n to core n.
    pub cpus: Vec<usize>,
    /// Packet I/O.
    pub io: Io,
    /// How workers wait.
    pub polling: Polling,
    /// Crypto provider: `portable`, `ipsec-mb`, or `best`.
    pub provider: String,
    /// Send runs of equal packets to one destination as one system call's worth (kernel sockets only).
    pub segmentation: bool,
    /// Put packet memory on huge pages where there are any.
    pub huge_pages: bool,
    /// Unix socket of the table protocol.
    pub socket: PathBuf,
    /// Directory of the index file; must be on tmpfs.
    pub state: PathBuf,
    /// Sizes, fixed at start.
    pub capacity: CapacityConfig,
}

/// The capacity table: totals over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapacityConfig {
    /// Endpoints.
    pub endpoints: usize,
    /// Legs.
    pub legs: usize,
    /// Streams received.
    pub ingress: usize,
    /// Streams received that learn rules make.
    pub learned: usize,
    /// Streams sent.
    pub egress: usize,
    /// Virtual sources.
    pub sources: usize,
    /// Opened packets in flight a worker.
    pub packets: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            workers: 1,
            cpus: Vec::new(),
            io: Io::default(),
            polling: Polling::default(),
            provider: "best".to_owned(),
            segmentation: false,
            huge_pages: false,
            socket: PathBuf::from(sluice_table::protocol::DEFAULT_SOCKET),
            state: PathBuf::from("/dev/shm/sluice"),
            capacity: CapacityConfig::default(),
        }
    }
}

impl Default for CapacityConfig {
    fn default() -> Self {
        CapacityConfig {
            endpoints: 16,
            legs: 4_096,
            ingress: 8_192,
            learned: 4_096,
            egress: 65_536,
            sources: 4_096,
            packets: 4_096,
        }
    }
}

impl CapacityConfig {
    /// What each of `workers` workers gets. Legs spread evenly, but not exactly: half as much again is spare.
    pub fn per_worker(&self, workers: u8) -> Capacity {
        let workers = usize::from(workers.max(1));
        let share = |total: usize| if workers == 1 { total } else { (total * 3 / 2).div_ceil(workers).min(total) };
        Capacity {
            endpoints: self.endpoints,
            legs: share(self.legs),
            tuples: self.legs * 2,
            ingress: share(self.ingress),
            learned: share(self.learned),
            egress: share(self.egress),
            lists: self.ingress + self.sources + self.learned,
            cells: self.packets,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not parse.
    #[error("{}: {message}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, key and what was expected.
        message: String,
    },
    /// A value is out of range.
    #[error("{key} = {value}: {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl Config {
    /// Reads a file; keys it leaves out keep their defaults.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml_edit::de::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })
    }

    /// Checks what types cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: String, expected| Err(ConfigError::Range { key, value, expected });
        if !(1..=64).contains(&self.workers) {
            return range("workers", self.workers.to_string(), "1 to 64");
        }
        if self.provider != "best" && self.provider.parse::<ProviderKind>().is_err() {
            return range("provider", self.provider.clone(), "best, portable or ipsec-mb");
        }
        let c = &self.capacity;
        for (key, value, limit) in [
            ("capacity.endpoints", c.endpoints, 1_024),
            ("capacity.legs", c.legs, 1_000_000),
            ("capacity.ingress", c.ingress, 1_000_000),
            ("capacity.egress", c.egress, 10_000_000),
            ("capacity.learned", c.learned.max(1), 1_000_000),
            ("capacity.sources", c.sources.max(1), 1_000_000),
            ("capacity.packets", c.packets, 1_000_000),
        ] {
            if value == 0 || value > limit {
                return range(key, value.to_string(), "at least 1, at most what fits into memory (see --print-config)");
            }
        }
        Ok(())
    }

    /// The whole configuration as a file.
    pub fn to_toml(&self) -> String {
        toml_edit::ser::to_string_pretty(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_round_trip_and_unknown_keys_are_errors() {
        let config = Config::default();
        let parsed: Config = toml_edit::de::from_str(&config.to_toml()).unwrap();
        assert_eq!(parsed, config);
        assert!(config.check().is_ok());
        let error = toml_edit::de::from_str::<Config>("wrokers = 2\n").unwrap_err().to_string();
        assert!(error.contains("wrokers") && error.contains("line 1"), "{error}");
        let config = Config { workers: 0, ..Config::default() };
        assert!(config.check().is_err());
    }
}
