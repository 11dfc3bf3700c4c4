//! What the command line says.

use std::fmt;
use std::path::PathBuf;

use crate::workloads::Workload;

pub(crate) const USAGE: &str = "\
usage: simulator [OPTIONS]

  --trace NAME    zipf, scans, deploys, nightly or fleet (default: all of them); may be given more than once
  --replay FILE   a recorded trace instead; may be given more than once
  --seed N        what is generated (default 1)
  --scale X       models and starts, times this (default 1)
  --write FILE    write the trace, one of them, into a file, and simulate nothing
  --store DIR     replay through a real store in this directory, too; takes minutes
  --json          print for programs
  --check         fail if ours is more than a point behind another in seconds saved

Prints, for caches of 1 to 50 % of all that is asked for, how many compile seconds each policy saves, and how often it hits.";

/// The resolved command line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) replays: Vec<PathBuf>,
    pub(crate) seed: u64,
    pub(crate) scale: f64,
    pub(crate) write: Option<PathBuf>,
    pub(crate) store: Option<PathBuf>,
    pub(crate) output: Output,
    pub(crate) is_checked: bool,
}

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    People,
    Programs,
}

/// Why a command line was refused.
#[derive(Debug)]
pub(crate) enum OptionError {
    Unknown(String),
    Valueless(String),
    Invalid { option: String, value: String },
    ManyToWrite,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "no option called {option}"),
            Self::Valueless(option) => write!(f, "{option} needs a value"),
            Self::Invalid { option, value } => write!(f, "{option} cannot be {value:?}"),
            Self::ManyToWrite => write!(f, "--write takes one trace; name it with --trace"),
        }
    }
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, OptionError> {
        let mut options = Self {
            workloads: Vec::new(),
            replays: Vec::new(),
            seed: 1,
            scale: 1.0,
            write: None,
            store: None,
            output: Output::People,
            is_checked: false,
        };
        let mut words = arguments.iter();
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or_else(|| OptionError::Valueless(option.clone()));
            match option.as_str() {
                "--json" => options.output = Output::Programs,
                "--check" => options.is_checked = true,
                "--replay" => options.replays.push(PathBuf::from(value()?)),
                "--store" => options.store = Some(PathBuf::from(value()?)),
                "--write" => options.write = Some(PathBuf::from(value()?)),
                "--trace" => {
                    let value = value()?;
                    let workload = Workload::ALL.into_iter().find(|workload| workload.name() == value);
                    options.workloads.push(workload.ok_or_else(|| invalid(option, value))?);
                }
                "--seed" => {
                    let value = value()?;
                    options.seed = value.parse().map_err(|_| invalid(option, value))?;
                }
                "--scale" => {
                    let value = value()?;
                    let scale = value.parse().ok().filter(|scale| (0.01..=100.0).contains(scale));
                    options.scale = scale.ok_or_else(|| invalid(option, value))?;
                }
                _ => return Err(OptionError::Unknown(option.clone())),
            }
        }
        if options.workloads.is_empty() && options.replays.is_empty() {
            options.workloads = Workload::ALL.to_vec();
        }
        if options.write.is_some() && options.workloads.len() != 1 {
            return Err(OptionError::ManyToWrite);
        }
        Ok(options)
    }
}

fn invalid(option: &str, value: &str) -> OptionError {
    OptionError::Invalid { option: option.to_owned(), value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionError> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_full_line_is_understood() {
        let options = parse("--trace zipf --replay a.csv --seed 3 --scale 0.5 --json --check").unwrap();
        assert_eq!((options.workloads, options.seed, options.scale), (vec![Workload::Zipf], 3, 0.5));
        assert_eq!((options.replays.len(), options.output, options.is_checked), (1, Output::Programs, true));
        assert_eq!(parse("").unwrap().workloads, Workload::ALL);
        assert_eq!(parse("--replay a").unwrap().workloads, []);
    }

    #[test]
    fn a_bad_line_is_refused_by_name() {
        for (line, expected) in [
            ("--trace web", "--trace cannot be \"web\""),
            ("--scale 0", "--scale cannot be \"0\""),
            ("--seed", "--seed needs a value"),
            ("--speed 3", "no option called --speed"),
            ("--write a", "--write takes one trace; name it with --trace"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), expected, "{line}");
        }
    }
}
