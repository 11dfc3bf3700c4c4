//! The environment, read here and nowhere else.

use std::path::PathBuf;

use pilotlight_cache::client::{SigningNames, TlsFiles};

use crate::nearest::nearest;
use crate::settings::table;

const PREFIX: &str = "PILOTLIGHT_";
/// Variables that are no settings of `serve`: of the commands, and of the plug-in, in the order of docs/plugin.md.
const OTHERS: [&str; 21] = [
    "CONFIG",
    "HTTP_URL",
    "URL",
    "CLIENT_CERT",
    "CLIENT_KEY",
    "SERVER_CA",
    "QUIET",
    "SUMMARY",
    "REPORT",
    "KERNELS",
    "LEASES",
    "LEASE_BUDGET",
    "COHERENT",
    "CONNECT_TIMEOUT",
    "STALL_TIMEOUT",
    "TOTAL_TIMEOUT",
    "TROUBLE_BUDGET",
    "SIGNING_KEY",
    "VERIFY",
    "TRUST",
    "NAMESPACE",
];
/// Among the keys: who is trusted.
pub(crate) const TRUST_FILE: &str = "trusted.toml";

/// The variable `name`; an empty one counts as not set, as shells make it hard to unset one for a single command.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What AWS' own tools read, for object storage: credentials, the region, the endpoint. Secrets are among them.
pub(crate) fn aws_variables() -> Vec<(String, String)> {
    let ours = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.into_string().ok().filter(|name| name.starts_with("AWS_"))?;
        Some((name, value.into_string().ok().filter(|value| !value.is_empty())?))
    };
    std::env::vars_os().filter_map(ours).collect()
}

/// The files that a command needs for TLS, as the plug-in reads them.
pub(crate) fn tls_files() -> TlsFiles {
    let file = |name| variable(name).map(PathBuf::from);
    TlsFiles {
        certificate: file("PILOTLIGHT_CLIENT_CERT"),
        key: file("PILOTLIGHT_CLIENT_KEY"),
        authorities: file("PILOTLIGHT_SERVER_CA"),
    }
}

/// Variables that are set and nearly ours, each with the one that may be meant.
pub(crate) fn misspelt() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, _)| Some((name.to_str()?.to_owned(), meant(name.to_str()?)?)))
        .collect()
}

/// The variable of ours that `name` is nearly. Not any that is merely foreign: Kubernetes sets some for a service of our name.
fn meant(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    let (known, edits) = nearest(rest, known())?;
    (edits > 0 && edits <= (rest.len() + 1) / 3).then(|| format!("{PREFIX}{known}"))
}

/// Every variable of ours, without the prefix.
fn known() -> impl Iterator<Item = String> {
    let settings = table::ALL.iter().map(|setting| setting.variable().split_off(PREFIX.len()));
    settings.chain(OTHERS.map(str::to_owned))
}

/// Where data goes unless told otherwise: `$XDG_DATA_HOME/pilotlight`, else `~/.local/share/pilotlight`.
pub(crate) fn data_directory() -> Option<PathBuf> {
    base("XDG_DATA_HOME", ".local/share")
}

/// Where the configuration file is looked for: `$XDG_CONFIG_HOME/pilotlight/pilotlight.toml`, else below `~/.config`.
pub(crate) fn configuration_file() -> Option<PathBuf> {
    Some(base("XDG_CONFIG_HOME", ".config")?.join("pilotlight.toml"))
}

/// Where `pilotlight users` finds the users file unless told otherwise: beside the configuration file.
pub(crate) fn users_file() -> Option<PathBuf> {
    Some(base("XDG_CONFIG_HOME", ".config")?.join("users.toml"))
}

/// Where keys are unless told otherwise: `$XDG_CONFIG_HOME/pilotlight/keys`, else below `~/.config`.
pub(crate) fn keys_directory() -> Option<PathBuf> {
    Some(base("XDG_CONFIG_HOME", ".config")?.join("keys"))
}

/// What the plug-in is told about signatures; its trust file is the usual one where none is named.
pub(crate) fn signing() -> SigningNames {
    let usual = || keys_directory().map(|dir| dir.join(TRUST_FILE)).filter(|path| path.exists());
    SigningNames {
        namespace: variable("PILOTLIGHT_NAMESPACE"),
        key: variable("PILOTLIGHT_SIGNING_KEY").map(PathBuf::from),
        verify: variable("PILOTLIGHT_VERIFY"),
        trust: variable("PILOTLIGHT_TRUST").map(PathBuf::from).or_else(usual),
    }
}

fn base(variable_name: &str, below_home: &str) -> Option<PathBuf> {
    let chosen = variable(variable_name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = chosen.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(below_home)))?;
    Some(base.join("pilotlight"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_nearly_ours_is_meant_and_what_is_foreign_is_not() {
        for (name, expected) in [
            ("PILOTLIGHT_MAX_SIZ", Some("PILOTLIGHT_MAX_SIZE")),
            ("PILOTLIGHT_MAXSIZE", Some("PILOTLIGHT_MAX_SIZE")),
            ("PILOTLIGHT_URI", Some("PILOTLIGHT_URL")),
            ("PILOTLIGHT_QUITE", Some("PILOTLIGHT_QUIET")),
            ("PILOTLIGHT_URL", None),
            ("PILOTLIGHT_STRICT", None),
            // Of a Kubernetes service.
            ("PILOTLIGHT_SERVICE_HOST", None),
            ("PILOTLIGHT_SERVICE_PORT", None),
            ("PILOTLIGHT_PORT", None),
            ("PILOTLIGHT_PORT_6379_TCP", None),
            ("PILOTLIGHT_PORT_6379_TCP_PROTO", None),
            ("OTHER_MAX_SIZ", None),
        ] {
            assert_eq!(meant(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn every_variable_that_the_plug_in_reads_is_known() {
        fn sources(directory: &Path, text: &mut String) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, text);
                } else if path.extension().is_some_and(|extension| extension == "py") {
                    text.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/pilotlight"), &mut text);
        let is_part = |character: char| character.is_ascii_uppercase() || character == '_';
        let names = text
            .split(PREFIX)
            .skip(1)
            .map(|rest| rest.split(|character| !is_part(character)).next().unwrap());
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        assert!(names.contains(&"KERNELS"));
        for name in names {
            assert!(known().any(|known| known == name), "{PREFIX}{name}");
        }
    }
}
