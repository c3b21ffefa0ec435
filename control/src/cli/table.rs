//! `table apply`, `table show`, `table clear`. Never applies half a table.

use serde::Serialize;
use sluice_table::protocol::{Client, ClientError, KeyView, Request, Response, Snapshot};
use sluice_table::{Action, ChangeView};

use super::args::{Global, TableCommand};
use super::connect;
use super::error::CliError;
use super::output::{Output, Tone};

pub(super) fn run(global: &Global, command: TableCommand, output: &mut Output<'_>) -> Result<(), CliError> {
    match command {
        TableCommand::Apply { file, dry_run } => {
            let table = sluice_table::file::load(&file)?;
            let mut client = connect(global)?;
            let (generation, changes) = applied(&mut client, Request::Apply { table: Box::new(table), dry_run })?;
            report(output, generation, &changes, dry_run)
        }
        TableCommand::Clear => {
            let (generation, changes) = applied(&mut connect(global)?, Request::Clear)?;
            report(output, generation, &changes, false)
        }
        TableCommand::Show => {
            let mut client = connect(global)?;
            match client.call(Request::Snapshot)? {
                Response::Snapshot(snapshot) => show(&snapshot, output),
                _ => Err(client.unexpected("table show").into()),
            }
        }
    }
}

fn applied(client: &mut Client, request: Request) -> Result<(u64, Vec<ChangeView>), ClientError> {
    match client.call(request)? {
        Response::Applied { generation, changes } => Ok((generation, changes)),
        _ => Err(client.unexpected("a table change")),
    }
}

#[derive(Serialize)]
struct Applied<'a> {
    dry_run: bool,
    generation: u64,
    changes: &'a [ChangeView],
}

fn report(output: &mut Output<'_>, generation: u64, changes: &[ChangeView], dry_run: bool) -> Result<(), CliError> {
    if output.json {
        return output.document(&Applied { dry_run, generation, changes });
    }
    let mut counts = [0usize; 3];
    for change in changes {
        let (slot, sign, tone) = match change.action {
            Action::Added => (0, '+', Tone::Good),
            Action::Removed => (1, '-', Tone::Bad),
            Action::Changed => (2, '~', Tone::Warn),
        };
        counts[slot] += 1;
        output.line(&output.paint(tone, &format!("{sign} {} {}", change.kind, change.name)))?;
        for field in &change.fields {
            let or_none = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
            output.line(&format!("    {}: {} -> {}", field.key, or_none(&field.old), or_none(&field.new)))?;
        }
    }
    let [added, removed, changed] = counts;
    let summary = match (changes.is_empty(), dry_run) {
        (true, _) => format!("nothing to change; table generation {generation}"),
        (false, true) => format!("would add {added}, remove {removed}, change {changed}; nothing was applied"),
        (false, false) => format!("added {added}, removed {removed}, changed {changed}; table generation {generation}"),
    };
    output.line(&summary)
}

fn show(snapshot: &Snapshot, output: &mut Output<'_>) -> Result<(), CliError> {
    if output.json {
        return output.document(snapshot);
    }
    let key = |key: &Option<KeyView>| {
        key.map_or_else(|| "-".to_owned(), |k| format!("{} {}", k.profile.name(), k.fingerprint))
    };
    let list = |values: &[u8]| values.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
    output.line(&format!("table generation {}", snapshot.generation))?;

    let rows: Vec<_> = snapshot
        .endpoints
        .iter()
        .map(|(name, row)| vec![name.to_string(), row.interface.clone(), row.address.to_string()])
        .collect();
    section(output, &["endpoint", "interface", "address"], &rows)?;
    let rows: Vec<_> = snapshot
        .legs
        .iter()
        .map(|(name, row)| {
            vec![
                name.to_string(),
                row.endpoint.to_string(),
                row.kind.to_string(),
                row.remote.to_string(),
                key(&row.inbound),
                key(&row.outbound),
            ]
        })
        .collect();
    section(output, &["leg", "endpoint", "kind", "remote", "srtp in", "srtp out"], &rows)?;
    let rows: Vec<_> = snapshot
        .ingress
        .iter()
        .map(|(name, row)| {
            vec![
                name.to_string(),
                row.leg.to_string(),
                format!("{:08x}", row.ssrc.0),
                row.kind.to_string(),
                row.clock_rate.to_string(),
                list(&row.payload_types),
            ]
        })
        .collect();
    section(output, &["ingress", "leg", "ssrc", "kind", ">clock", "payload types"], &rows)?;
    let rows: Vec<_> = snapshot
        .learn
        .iter()
        .map(|(name, row)| {
            vec![
                name.to_string(),
                row.leg.to_string(),
                text(row.mid.as_deref()),
                text(row.rid.as_deref()),
                text(row.repaired_rid.as_deref()),
                row.kind.to_string(),
                list(&row.payload_types),
            ]
        })
        .collect();
    section(output, &["learn", "leg", "mid", "rid", "repaired rid", "kind", "payload types"], &rows)?;
    let rows: Vec<_> = snapshot
        .sources
        .iter()
        .map(|(name, row)| {
            let input = text(row.input.as_ref().map(AsRef::as_ref));
            vec![name.to_string(), row.kind.to_string(), row.clock_rate.to_string(), input]
        })
        .collect();
    section(output, &["source", "kind", ">clock", "input"], &rows)?;
    let rows: Vec<_> = snapshot
        .egress
        .iter()
        .map(|(name, row)| {
            let map: Vec<String> = row.payload_types.iter().map(|(a, b)| format!("{a}={b}")).collect();
            vec![
                name.to_string(),
                row.leg.to_string(),
                format!("{:08x}", row.ssrc.0),
                row.source.to_string(),
                map.join(","),
                text(row.mid.as_deref()),
            ]
        })
        .collect();
    section(output, &["egress", "leg", "ssrc", "source", "payload types", "mid"], &rows)
}

fn section(output: &mut Output<'_>, headers: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
    if rows.is_empty() {
        return Ok(());
    }
    output.line("")?;
    output.table(headers, rows)
}
