//! `trace`: records headers the forwarder samples. Never records payload.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

use sluice_table::protocol::{Client, Direction, Request, Response, TraceFilter};
use sluice_table::{Name, Ssrc};

use super::args::{TraceArgs, Way};
use super::error::{Class, CliError};
use super::output::Output;
use crate::pcapng::{Writer, header_len};

pub(super) fn run(client: &mut Client, output: &mut Output<'_>, args: &TraceArgs) -> Result<(), CliError> {
    let leg = args.leg.as_deref().map(Name::new).transpose();
    let leg = leg.map_err(|e| CliError::new(Class::Usage, format!("--leg: {e}"), "`sluice legs` lists the legs"))?;
    let filter = TraceFilter {
        leg,
        ssrc: args.ssrc.map(Ssrc),
        direction: args.direction.map(|way| match way {
            Way::In => Direction::In,
            Way::Out => Direction::Out,
        }),
        dropped_only: args.dropped,
    };
    let to_stdout = args.output.as_os_str() == "-";
    if to_stdout && !output.json && std::io::stdout().is_terminal() {
        let hint = "name a file with --output FILE, pipe into `tshark -r -`, or use --json";
        return Err(CliError::new(Class::Usage, "pcapng is binary and standard output is a terminal", hint));
    }
    let json = output.json;
    let mut file;
    let out: &mut dyn Write = if to_stdout {
        &mut *output.out
    } else {
        // Who talks to whom is nobody else's business.
        file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&args.output).map_err(|e| {
                let message = format!("{} cannot be written: {e}", args.output.display());
                CliError::failed(message, "name a file in a directory you may write to")
            })?;
        &mut file
    };
    let request = Request::Trace { filter, sample: args.sample, count: args.count };
    if !matches!(client.call(request)?, Response::Ok) {
        return Err(client.unexpected("trace").into());
    }
    client.set_read_timeout(None)?;
    let (recorded, missed) = if json { lines(client, out)? } else { packets(client, out)? };
    eprintln!("recorded {recorded} packets; {missed} more were sampled but missed because reading was slow");
    Ok(())
}

fn packets(client: &mut Client, out: &mut dyn Write) -> Result<(u64, u64), CliError> {
    let mut writer = Writer::new(out)?;
    let mut recorded = 0;
    loop {
        match client.receive()?.response {
            Response::Trace(record) => {
                writer.packet(&record)?;
                // Ctrl-C ends the process at once; what came before must be a whole file.
                writer.flush()?;
                recorded += 1;
            }
            Response::TraceEnd { missed } => return Ok((recorded, missed)),
            Response::Refused(refused) => {
                return Err(sluice_table::protocol::ClientError::Refused(refused).into());
            }
            _ => {}
        }
    }
}

fn lines(client: &mut Client, out: &mut dyn Write) -> Result<(u64, u64), CliError> {
    let mut recorded = 0;
    loop {
        match client.receive()?.response {
            Response::Trace(mut record) => {
                record.header.truncate(header_len(&record.header));
                let hex: String = record.header.iter().flat_map(|b| [b >> 4, b & 15]).map(hex_digit).collect();
                let line = serde_json::json!({
                    "at_unix_ns": record.at_unix_ns,
                    "worker": record.worker,
                    "direction": record.direction,
                    "leg": record.leg,
                    "dropped": record.dropped,
                    "length": record.length,
                    "header": hex,
                });
                writeln!(out, "{line}")?;
                out.flush()?;
                recorded += 1;
            }
            Response::TraceEnd { missed } => return Ok((recorded, missed)),
            Response::Refused(refused) => {
                return Err(sluice_table::protocol::ClientError::Refused(refused).into());
            }
            _ => {}
        }
    }
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}
