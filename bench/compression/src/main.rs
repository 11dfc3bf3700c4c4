//! How small entries become: as they are put, recompressed each for itself, and against siblings; and how fast they are read.
//!
//! `compression DIR...`: each directory holds values as clients put them, zstd-compressed or not, and a `manifest.jsonl` of lines
//! like `{"key": "pt2:fx-graph-v1::f...:c1", "file": "0.json.zst"}`. The code that is measured is the disk backend's own.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its result")]

mod measure;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pilotlight_cache::Key;

use crate::measure::{Measured, Siblings, measure};

/// A value as a client puts it, and its key.
#[derive(Debug, Clone)]
struct Value {
    key: Key,
    bytes: bytes::Bytes,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let dirs: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if dirs.is_empty() {
        eprintln!("error: no directory of values\nhint: compression DIR...");
        return ExitCode::from(2);
    }
    println!("| values | kept | bytes | of JSON | on disk | of JSON | recompressed at | read at |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for dir in dirs {
        if let Err(error) = report(&dir) {
            eprintln!("error: {}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn report(dir: &Path) -> Result<(), Failure> {
    let values = read(dir)?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let len: u64 = values.iter().map(|value| value.bytes.len() as u64).sum();
    println!("| {name} | {} values as JSON | {len} | 1 | | | | |", values.len());
    for (kept, siblings) in [("each for itself", Siblings::None), ("against siblings", Siblings::All)] {
        let (put, recompressed) = measure(&values, siblings)?;
        if siblings == Siblings::None {
            row(&name, "as put", len, &put);
        }
        row(&name, kept, len, &recompressed);
    }
    Ok(())
}

fn row(name: &str, kept: &str, len: u64, measured: &Measured) {
    let Measured { stored_bytes, disk_bytes, recompress_mb_s, read_gb_s, deltas } = measured;
    let part = |bytes: u64| format!("1/{:.1}", len as f64 / bytes as f64);
    let speed = recompress_mb_s.map_or_else(String::new, |speed| format!("{speed:.1} MB/s"));
    let deltas = if *deltas > 0 { format!(", {deltas} deltas") } else { String::new() };
    println!(
        "| {name} | {kept}{deltas} | {stored_bytes} | {} | {disk_bytes} | {} | {speed} | {read_gb_s:.2} GB/s |",
        part(*stored_bytes),
        part(*disk_bytes),
    );
}

fn read(dir: &Path) -> Result<Vec<Value>, Failure> {
    let manifest = std::fs::read_to_string(dir.join("manifest.jsonl"))?;
    let line = |line: &str| -> Result<Value, Failure> {
        let fields: serde_json::Value = serde_json::from_str(line)?;
        let field =
            |name: &str| fields.get(name).and_then(|value| value.as_str()).ok_or("a line lacks a field");
        let file = field("file")?;
        let mut bytes = std::fs::read(dir.join(file))?;
        if file.ends_with(".zst") {
            bytes = zstd::decode_all(&bytes[..])?;
        }
        Ok(Value { key: Key::new(field("key")?.to_owned()), bytes: bytes.into() })
    };
    manifest.lines().filter(|text| !text.is_empty()).map(line).collect()
}
