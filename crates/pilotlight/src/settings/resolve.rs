//! Which value counts: flag, then environment, then file, then default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::file;
use super::table::{ALL, Form, Setting};
use crate::failure::Failure;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Environment,
    File(PathBuf),
    Default,
}

/// One setting with the value that counts.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) setting: &'static Setting,
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

/// Every setting with the value that counts.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) rows: Vec<Row>,
}

/// The flags of `serve`, made from the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags(BTreeMap<&'static str, Vec<String>>);

/// Finds every setting's value.
pub(crate) fn resolve(
    flags: &Flags,
    environment: impl Fn(&str) -> Option<String>,
    file: Option<&Path>,
) -> Result<Resolved, Failure> {
    let in_file = file.map(file::read).transpose()?.unwrap_or_default();
    let row = |setting: &'static Setting| {
        if let Some(values) = flags.0.get(setting.name) {
            return Row { setting, values: values.clone(), origin: Origin::Flag };
        }
        if let Some(text) = environment(&setting.variable()) {
            return Row { setting, values: split(setting, &text), origin: Origin::Environment };
        }
        if let (Some(values), Some(path)) = (in_file.get(setting.name), file) {
            return Row { setting, values: values.clone(), origin: Origin::File(path.to_owned()) };
        }
        let values = if setting.default.is_empty() { Vec::new() } else { split(setting, setting.default) };
        Row { setting, values, origin: Origin::Default }
    };
    Ok(Resolved { rows: ALL.iter().map(|setting| row(setting)).collect() })
}

fn split(setting: &Setting, text: &str) -> Vec<String> {
    match setting.form {
        Form::Many => text.split(',').map(|part| part.trim().to_owned()).collect(),
        Form::One | Form::Choice(_) | Form::Switch | Form::Secret => vec![text.to_owned()],
    }
}

impl Resolved {
    /// Gives `setting` a default that only the machine knows.
    pub(crate) fn or_default(&mut self, setting: &Setting, value: Option<String>) {
        let row = self.rows.iter_mut().find(|row| row.setting.name == setting.name);
        if let (Some(row), Some(value)) = (row.filter(|row| row.values.is_empty()), value) {
            row.values.push(value);
        }
    }
}

impl Row {
    /// The value's name where it came from: `--max-size`, `PILOTLIGHT_MAX_SIZE`, ...
    pub(crate) fn source(&self) -> String {
        match &self.origin {
            Origin::Flag => format!("--{}", self.setting.name),
            Origin::Environment => self.setting.variable(),
            Origin::File(path) => format!("{} in {}", self.setting.toml_key(), path.display()),
            Origin::Default => format!("the default of --{}", self.setting.name),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        ALL.iter().filter(|setting| setting.has_flag()).fold(command, |command, setting| {
            let mut help = setting.help.to_owned();
            if !setting.default.is_empty() && setting.form != Form::Switch {
                help += &format!(" [default: {}]", setting.default);
            }
            let argument =
                clap::Arg::new(setting.name).long(setting.name).value_name(setting.value).help(help);
            command.arg(match setting.form {
                Form::Many => argument.action(ArgAction::Append),
                Form::Switch => argument.action(ArgAction::SetTrue),
                Form::Choice(choices) => argument.value_parser(choices.to_vec()),
                Form::One | Form::Secret => argument,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in ALL.iter().filter(|setting| setting.has_flag()) {
            let values = match setting.form {
                Form::Switch if matches.get_flag(setting.name) => vec!["true".to_owned()],
                Form::Switch => continue,
                _ => match matches.get_many::<String>(setting.name) {
                    Some(values) => values.cloned().collect(),
                    None => continue,
                },
            };
            self.0.insert(setting.name, values);
        }
        Ok(())
    }
}
