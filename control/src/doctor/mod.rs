//! `doctor`: what of this machine, its interfaces and the running forwarder stands in the way of media, why it
//! matters, and the command that mends it. Never mends anything itself.

mod host;
mod interface;
mod running;

use serde::Serialize;
use sluice_table::protocol::{LegRow, Status};

use crate::cli::error::CliError;
use crate::cli::output::{Output, Tone};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, with less speed or less safety.
    Warn,
    /// Keeps media from flowing as configured.
    Bad,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's stable name.
    pub check: &'static str,
    /// What was checked: the host, an interface, the forwarder.
    pub subject: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// Why it matters; empty when all is well.
    pub why: String,
    /// The command that mends it, if one does.
    pub fix: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, subject: &str, found: impl Into<String>) -> Finding {
        let (subject, found) = (subject.to_owned(), found.into());
        Finding { check, subject, level: Level::Ok, found, why: String::new(), fix: None }
    }

    pub(crate) fn warn(check: &'static str, subject: &str, found: impl Into<String>, why: &str) -> Finding {
        Finding { level: Level::Warn, why: why.to_owned(), ..Finding::ok(check, subject, found) }
    }

    pub(crate) fn bad(check: &'static str, subject: &str, found: impl Into<String>, why: &str) -> Finding {
        Finding { level: Level::Bad, why: why.to_owned(), ..Finding::ok(check, subject, found) }
    }

    pub(crate) fn fix(mut self, command: impl Into<String>) -> Finding {
        self.fix = Some(command.into());
        self
    }
}

/// Everything found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether nothing is [`Level::Bad`] or [`Level::Warn`].
    pub healthy: bool,
    /// Whether a forwarder answered.
    pub forwarder_running: bool,
    /// The findings.
    pub findings: Vec<Finding>,
}

/// What a running forwarder says.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its status.
    pub status: Status,
    /// Its legs.
    pub legs: Vec<LegRow>,
}

/// Runs every check. `interfaces` empty means those of the forwarder, else every interface that is up.
pub fn examine(interfaces: &[String], running: Option<&Running>) -> Report {
    let host = host::Host::here(running.map(|r| r.status.pid));
    let mut findings = host.check();
    let mut names: Vec<String> = match (interfaces.is_empty(), running) {
        (false, _) => interfaces.to_vec(),
        (true, Some(running)) => running.status.endpoints.iter().map(|e| e.interface.clone()).collect(),
        (true, None) => interface::all_up(),
    };
    names.sort();
    names.dedup();
    for name in &names {
        findings.extend(interface::check(name, running));
    }
    findings.extend(host::firewall());
    if let Some(running) = running {
        findings.extend(running::check(running));
    }
    let healthy = findings.iter().all(|f| f.level == Level::Ok);
    Report { healthy, forwarder_running: running.is_some(), findings }
}

/// Prints a report.
pub fn print(report: &Report, output: &mut Output<'_>) -> Result<(), CliError> {
    if output.json {
        return output.document(report);
    }
    for finding in &report.findings {
        let (mark, tone) = match finding.level {
            Level::Ok => ("ok  ", Tone::Good),
            Level::Warn => ("warn", Tone::Warn),
            Level::Bad => ("bad ", Tone::Bad),
        };
        let mark = output.paint(tone, mark);
        output.line(&format!("{mark}  {}: {}: {}", finding.subject, finding.check, finding.found))?;
        if !finding.why.is_empty() {
            output.line(&format!("      {}", finding.why))?;
        }
        if let Some(fix) = &finding.fix {
            output.line(&format!("      mend: {fix}"))?;
        }
    }
    let count = |level| report.findings.iter().filter(|f| f.level == level).count();
    output.line("")?;
    if !report.forwarder_running {
        output.line("no forwarder answered; checks of a running one were left out")?;
    }
    output.line(&format!(
        "{} checks: {} ok, {} warn, {} bad",
        report.findings.len(),
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Bad)
    ))
}
