//! What is simulated: a list of operations in time, and the file format of one.
//!
//! A trace file is text, a line an operation, after a first line that names the columns:
//!
//! ```text
//! time_ms,op,key,size_bytes,cost_ms,group
//! 0,get,9e3779b97f4a7c15,63362,5210,0
//! 12,put,243f6a8885a308d3,18000,800,1f
//! ```
//!
//! | column | what |
//! |---|---|
//! | `time_ms` | since any moment; never falls |
//! | `op` | `get`, `put` or `delete` |
//! | `key` | 64 bits of a hash of the key, hexadecimal |
//! | `size_bytes` | what the entry takes; 0 when unknown, as of a miss |
//! | `cost_ms` | what it costs to make again; 0 when unknown |
//! | `group` | entries of one group are of use only together; hexadecimal, 0 for none |
//!
//! A cache that lacks what a `get` asks for makes it and keeps it, so a trace needs no `put` for that; one that was recorded has them,
//! and they do no harm. A `get` whose size no line of its key tells is a miss for everybody. A key has one size and cost:
//! the last ones that are known.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, Write};

use pilotlight_store::policy;

const COLUMNS: &str = "time_ms,op,key,size_bytes,cost_ms,group";

/// What is cached. Operations know it by its place in [`Trace::items`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: u64,
    /// 0 when unknown: it can't be kept.
    pub(crate) size_bytes: u32,
    /// 0 when unknown.
    pub(crate) cost_ms: u32,
    /// 0 when it belongs to none.
    pub(crate) group: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Put,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) time_ms: u64,
    pub(crate) operation: Operation,
    /// Which of the trace's items.
    pub(crate) item: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) items: Vec<Item>,
    pub(crate) events: Vec<Event>,
}

/// Why a trace file was refused.
#[derive(Debug)]
pub(crate) enum TraceError {
    Io(io::Error),
    Columns(String),
    Line { number: usize, line: String },
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Columns(found) => write!(f, "the first line is {found:?}, expected {COLUMNS:?}"),
            Self::Line { number, line } => write!(f, "line {number} is no operation: {line:?}"),
        }
    }
}

impl Trace {
    /// Bytes of everything that is ever asked for: what a cache that never evicts would hold.
    pub(crate) fn working_set_bytes(&self) -> u64 {
        self.items.iter().map(|item| u64::from(item.size_bytes)).sum()
    }

    pub(crate) fn read(name: &str, file: impl BufRead) -> Result<Self, TraceError> {
        let mut lines = file.lines();
        let columns = lines.next().transpose().map_err(TraceError::Io)?.unwrap_or_default();
        if columns.trim() != COLUMNS {
            return Err(TraceError::Columns(columns));
        }
        let mut trace = Self { name: name.to_owned(), items: Vec::new(), events: Vec::new() };
        let mut places = HashMap::new();
        for (number, line) in lines.enumerate() {
            let line = line.map_err(TraceError::Io)?;
            if line.trim().is_empty() {
                continue;
            }
            let Some((time_ms, operation, found)) = parse(line.trim()) else {
                return Err(TraceError::Line { number: number + 2, line });
            };
            let place = *places.entry(found.key).or_insert(trace.items.len());
            match trace.items.get_mut(place) {
                None => trace.items.push(found),
                Some(item) => item.learn(&found),
            }
            trace.events.push(Event { time_ms, operation, item: place as u32 });
        }
        Ok(trace)
    }

    pub(crate) fn write(&self, file: &mut impl Write) -> io::Result<()> {
        writeln!(file, "{COLUMNS}")?;
        for event in &self.events {
            let Some(item) = self.items.get(event.item as usize) else { continue };
            let operation = match event.operation {
                Operation::Get => "get",
                Operation::Put => "put",
                Operation::Delete => "delete",
            };
            let Item { key, size_bytes, cost_ms, group } = item;
            writeln!(file, "{},{operation},{key:x},{size_bytes},{cost_ms},{group:x}", event.time_ms)?;
        }
        Ok(())
    }
}

impl Item {
    /// What it is taken to cost to make again, by the policies and in what is saved.
    pub(crate) fn cost_ms_taken(&self) -> u32 {
        if self.cost_ms == 0 { policy::COST_MS_UNKNOWN } else { self.cost_ms }
    }

    fn learn(&mut self, found: &Self) {
        let known = |new: u32, old: u32| if new == 0 { old } else { new };
        self.size_bytes = known(found.size_bytes, self.size_bytes);
        self.cost_ms = known(found.cost_ms, self.cost_ms);
        self.group = known(found.group, self.group);
    }
}

fn parse(line: &str) -> Option<(u64, Operation, Item)> {
    let mut fields = line.split(',');
    let time_ms = fields.next()?.parse().ok()?;
    let operation = match fields.next()? {
        "get" => Operation::Get,
        "put" => Operation::Put,
        "delete" => Operation::Delete,
        _ => return None,
    };
    let item = Item {
        key: u64::from_str_radix(fields.next()?, 16).ok()?,
        size_bytes: fields.next()?.parse().ok()?,
        cost_ms: fields.next()?.parse().ok()?,
        group: u32::from_str_radix(fields.next()?, 16).ok()?,
    };
    fields.next().is_none().then_some((time_ms, operation, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trace, TraceError> {
        Trace::read("t", text.as_bytes())
    }

    #[test]
    fn a_trace_reads_as_it_was_written() {
        let text = "time_ms,op,key,size_bytes,cost_ms,group\n0,get,9e37,10,20,0\n5,put,1,30,0,1f\n5,get,9e37,10,20,0\n9,delete,1,30,0,1f\n";
        let trace = read(text).unwrap();
        assert_eq!((trace.items.len(), trace.events.len(), trace.working_set_bytes()), (2, 4, 40));
        let mut written = Vec::new();
        trace.write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }

    #[test]
    fn a_miss_learns_its_size_from_the_put_behind_it() {
        let trace =
            read("time_ms,op,key,size_bytes,cost_ms,group\n0,get,a,0,0,0\n5,put,a,30,7,2\n9,get,a,0,0,0\n");
        let item = trace.unwrap().items[0];
        assert_eq!(item, Item { key: 10, size_bytes: 30, cost_ms: 7, group: 2 });
    }

    #[test]
    fn what_is_no_trace_is_refused_by_line() {
        for (text, expected) in [
            (
                "time,op\n",
                "the first line is \"time,op\", expected \"time_ms,op,key,size_bytes,cost_ms,group\"",
            ),
            (
                "time_ms,op,key,size_bytes,cost_ms,group\n0,get,a,0,0,0\n1,got,a,0,0,0\n",
                "line 3 is no operation: \"1,got,a,0,0,0\"",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected);
        }
    }
}
