//! Logs, to stderr.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::failure::Failure;
use crate::settings::{LogFormat, Settings};

/// Starts logging. What is logged never holds a key, an artifact or a secret: the libraries see to that.
pub(super) fn start(settings: &Settings) -> Result<(), Failure> {
    let level: LevelFilter = settings
        .log_level
        .parse()
        .map_err(|_| Failure::new(format!("`{}` is no log level", settings.log_level)))?;
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    match settings.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
