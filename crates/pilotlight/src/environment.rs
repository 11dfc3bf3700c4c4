//! The environment, read here and nowhere else.

use std::path::PathBuf;

/// The variable `name`; an empty one counts as not set, as shells make it hard to unset one for a single command.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where data goes unless told otherwise: `$XDG_DATA_HOME/pilotlight`, else `~/.local/share/pilotlight`.
pub(crate) fn data_directory() -> Option<PathBuf> {
    base("XDG_DATA_HOME", ".local/share")
}

/// Where the configuration file is looked for: `$XDG_CONFIG_HOME/pilotlight/pilotlight.toml`, else below `~/.config`.
pub(crate) fn configuration_file() -> Option<PathBuf> {
    Some(base("XDG_CONFIG_HOME", ".config")?.join("pilotlight.toml"))
}

fn base(variable_name: &str, below_home: &str) -> Option<PathBuf> {
    let chosen = variable(variable_name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = chosen.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(below_home)))?;
    Some(base.join("pilotlight"))
}
