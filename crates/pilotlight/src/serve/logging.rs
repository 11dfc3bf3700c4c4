//! Logs, to stderr.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::failure::Failure;
use crate::settings::LogFormat;

/// Starts logging. What is logged never holds a key, an artifact or a secret: the libraries see to that.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), Failure> {
    let level: LevelFilter = level.parse().map_err(|_| Failure::new(format!("`{level}` is no log level")))?;
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
