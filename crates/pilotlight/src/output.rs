//! Where everything that is printed is printed: data to stdout, all else to stderr.

#![expect(clippy::print_stderr, reason = "this module is the one that prints; it does nothing else")]

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::failure::Failure;

/// How a command that worked answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes, done: exit code 0.
    Yes,
    /// No: a miss, damage found. Exit code 1.
    No,
    /// What a command that was run answered.
    Code(u8),
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::from(1),
            Answer::Code(code) => Self::from(code),
        }
    }
}

/// Reports a failure and gives its exit code: 0 when merely the reader of our output left.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    if failure.is_broken_pipe() {
        return ExitCode::SUCCESS;
    }
    eprint!("{failure}");
    ExitCode::from(failure.code())
}

/// One line for the person at the terminal.
pub(crate) fn note(line: impl Display) {
    // `eprintln` panics when stderr is closed; a server must not end over that.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Data, to stdout.
pub(crate) fn data(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::broken_pipe()),
        Err(error) => Err(Failure::new("could not write to stdout").because(&error)),
    }
}

/// A text with its line end, to stdout.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    data(format!("{text}\n").as_bytes())
}

/// A value for programs, to stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new("could not write JSON").because(&error))?;
    line(text)
}

/// Whether a person looks at stdout.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Bytes for a person: `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    // One decimal, and none where it says nothing: `10 GiB`.
    let rounded = (value * 10.0).round() / 10.0;
    format!("{rounded} {unit}")
}

/// A duration for a person: `3d 4h`, `12m 5s`, `1.5s`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        let rounded = (seconds * 10.0).round() / 10.0;
        return format!("{rounded}s");
    }
    let whole = seconds as u64;
    match whole {
        0..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Compile time saved, and what the graphs for stock clients took, of which they save but a part.
pub(crate) fn saved(saved_seconds: f64, stock_graphs_seconds: f64) -> String {
    let surely = seconds(saved_seconds);
    if stock_graphs_seconds == 0.0 {
        return surely;
    }
    format!("{surely}, and at most {} at stock clients", seconds(stock_graphs_seconds))
}

/// `1 hit`, `2 hits`.
pub(crate) fn count(count: u64, noun: &str) -> String {
    let plural = match (count, noun.ends_with("entry"), noun.ends_with("ss")) {
        (1, _, _) => return format!("1 {noun}"),
        (_, true, _) => format!("{}ies", noun.trim_end_matches('y')),
        (_, _, true) => format!("{noun}es"),
        _ => format!("{noun}s"),
    };
    format!("{count} {plural}")
}

/// How the last column of a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// To the left: text.
    Text,
    /// To the right: numbers.
    Number,
}

/// Rows in columns, the first one to the left, those between to the right; no colour, no frame.
pub(crate) fn table(rows: &[Vec<String>], last: Last) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let is_left = column == 0 || (column + 1 == columns && last == Last::Text);
            line += &if is_left { format!("{gap}{cell:<width$}") } else { format!("{gap}{cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(10 << 30), "10 GiB");
        assert_eq!(seconds(0.0), "0s");
        assert_eq!(seconds(1.54), "1.5s");
        assert_eq!(seconds(125.0), "2m 5s");
        assert_eq!(seconds(90_000.0), "1d 1h");
        assert_eq!(saved(1.5, 0.0), "1.5s");
        assert_eq!(saved(1.5, 60.0), "1.5s, and at most 1m 0s at stock clients");
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(2, "entry"), "2 entries");
        assert_eq!(count(0, "miss"), "0 misses");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["kind".to_owned(), "hits".to_owned()], vec!["fx-graph".to_owned(), "7".to_owned()]];
        assert_eq!(table(&rows, Last::Number), "kind      hits\nfx-graph     7\n");
        assert_eq!(table(&rows, Last::Text), "kind      hits\nfx-graph  7\n");
    }
}
