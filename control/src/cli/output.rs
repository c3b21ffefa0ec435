//! Aligned tables, units and colours. Never fetches anything.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::args::{Color, Global};
use super::error::CliError;

/// Where results go and how they look.
pub struct Output<'a> {
    /// Where to.
    pub out: &'a mut dyn Write,
    /// As JSON.
    pub json: bool,
    /// With colours.
    pub color: bool,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("json", &self.json).field("color", &self.color).finish_non_exhaustive()
    }
}

/// A colour that says how good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Green.
    Good,
    /// Yellow.
    Warn,
    /// Red.
    Bad,
    /// Dim.
    Quiet,
}

impl<'a> Output<'a> {
    /// Output of a command to `out`.
    pub fn new(out: &'a mut dyn Write, global: &Global) -> Output<'a> {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Output { out, json: global.json, color: color && !global.json }
    }

    /// Prints a value as one JSON document.
    pub fn document<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| CliError::failed(format!("the result cannot be written as JSON: {e}"), "report this"))?;
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// Prints a value as one line of JSON.
    pub fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value)
            .map_err(|e| CliError::failed(format!("the result cannot be written as JSON: {e}"), "report this"))?;
        writeln!(self.out, "{text}")?;
        self.out.flush()?;
        Ok(())
    }

    /// Text in a colour, if colours are on.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Quiet => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Prints a line.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// Prints an aligned table; columns whose header starts with `>` are right-aligned.
    pub fn table(&mut self, headers: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
        let shown: Vec<&str> = headers.iter().map(|h| h.trim_start_matches('>')).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
            cells.chain([shown[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headers.len()).map(width).collect();
        let render = |cells: &[String]| {
            let mut line = String::new();
            for (column, cell) in cells.iter().enumerate().take(widths.len()) {
                let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let sep = if column == 0 { "" } else { "  " };
                if headers[column].starts_with('>') {
                    line.extend([sep, &pad, cell]);
                } else {
                    line.extend([sep, cell, &pad]);
                }
            }
            line.trim_end().to_owned()
        };
        let head: Vec<String> = shown.iter().map(|h| (*h).to_owned()).collect();
        let head = self.paint(Tone::Quiet, &render(&head));
        writeln!(self.out, "{head}")?;
        for row in rows {
            writeln!(self.out, "{}", render(row))?;
        }
        Ok(())
    }
}

/// A number with thousands separated.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bits per second with a unit.
pub fn bits(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "Gbit/s"),
        v if v >= 1e6 => (v / 1e6, "Mbit/s"),
        v if v >= 1e3 => (v / 1e3, "kbit/s"),
        v => (v, "bit/s"),
    };
    format!("{scaled:.1} {unit}")
}

/// A duration in milliseconds as people say it.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!((number(0), number(999), number(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!((bits(5.0), bits(2_500_000.0)), ("5.0 bit/s".into(), "2.5 Mbit/s".into()));
        assert_eq!(
            (duration(20), duration(61_000), duration(90_061_000)),
            ("20 ms".into(), "1 min 1 s".into(), "1 d 1 h".into())
        );
    }

    #[test]
    fn columns_align() {
        let mut bytes = Vec::new();
        let mut output = Output { out: &mut bytes, json: false, color: false };
        output.table(&["a", ">n"], &[vec!["x".into(), "10".into()], vec!["long".into(), "7".into()]]).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "a      n\nx     10\nlong   7\n");
    }
}
