//! `xdp detach`, `completions`, `man`: what an operator needs around a forwarder.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;
use super::error::{Class, CliError};
use super::output::Output;
use crate::netdev::{self, bpf, link};

pub(super) fn completions(shell: Shell, output: &mut Output<'_>) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
    output.out.write_all(&script)?;
    Ok(())
}

pub(super) fn man(dir: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
    let failed = |e: std::io::Error| {
        let message = format!("manual pages cannot be written to {}: {e}", dir.display());
        CliError::failed(message, "name a directory you may write to")
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    if output.json {
        return output.document(&serde_json::json!({ "directory": dir }));
    }
    output.line(&format!(
        "manual pages are in {}; read one with `man -l {}`",
        dir.display(),
        dir.join("sluice.1").display()
    ))
}

pub(super) fn detach(interface: &str, force: bool, output: &mut Output<'_>) -> Result<(), CliError> {
    let failed = |doing: &str, e: std::io::Error| {
        let hint = match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => "run this as root, or with CAP_NET_ADMIN and CAP_BPF",
            _ => "look at `ip -d link show` for what is attached",
        };
        CliError::failed(format!("{doing} of {interface} failed: {e}"), hint)
    };
    let index = netdev::index(interface).map_err(|e| {
        CliError::new(Class::Usage, format!("interface {interface}: {e}"), "`ip link` lists the interfaces")
    })?;
    let programs = link::xdp(index).map_err(|e| failed("asking for the XDP program", e))?;
    if programs.is_empty() {
        if output.json {
            return output.document(&serde_json::json!({ "interface": interface, "detached": [] }));
        }
        return output.line(&format!("{interface} has no XDP program"));
    }
    let mut detached = Vec::new();
    for program in programs {
        let name = bpf::program_name(program.id).unwrap_or_default();
        if name != bpf::OUR_PROGRAM && !force {
            let message = format!(
                "the XDP program of {interface} (id {}, {name:?}) is not Sluice's and was left alone",
                program.id
            );
            let hint = format!("if nothing needs it any more: `sluice xdp detach {interface} --force`");
            return Err(CliError::failed(message, hint));
        }
        match link::detach(index, program.mode) {
            // The kernel refuses this for a program held by a link; then the link itself is cut.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                bpf::detach_link(index, program.id).map_err(|e| failed("cutting the XDP link", e))?;
            }
            other => other.map_err(|e| failed("detaching the XDP program", e))?,
        }
        if !output.json {
            output.line(&format!("detached XDP program {} ({name}) from {interface}", program.id))?;
        }
        detached.push(serde_json::json!({ "id": program.id, "name": name }));
    }
    if output.json {
        output.document(&serde_json::json!({ "interface": interface, "detached": detached }))?;
    }
    Ok(())
}
