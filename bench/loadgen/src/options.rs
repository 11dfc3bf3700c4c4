//! What the command line says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: loadgen --addr HOST:PORT --op fill|get|set [OPTIONS]

  --op fill          put every key once, for a later get; --op get expects them
  --clients N        connections, one thread each (default 8)
  --size BYTES       size of an artifact (default 32768); taken from the files with --corpus
  --corpus DIR       artifacts are this directory's files instead of random bytes
  --keys N           number of keys (default 1000)
  --pipeline N       commands per batch; a batch's latency is its operations' (default 1)
  --warmup-ms N      not measured (default 200)
  --duration-ms N    measured (default 1000)
  --bytes-max N      end the measurement when this much was moved (default: no limit)
  --verify-every N   compare the bytes of every Nth reply (default 101)
  --server-pid PID   measure this process' CPU time over the same window
  --seed N           choice of keys, and what makes puts differ from another run's (default 1)

Prints one JSON object.";

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Put every key once; not timed.
    Fill,
    Get,
    Set,
}

/// The resolved command line.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) addr: String,
    pub(crate) operation: Operation,
    pub(crate) clients: usize,
    pub(crate) size: usize,
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) keys: u64,
    pub(crate) pipeline: usize,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) bytes_max: u64,
    pub(crate) verify_every: u64,
    pub(crate) server_pid: Option<u32>,
    pub(crate) seed: u64,
}

/// Why a command line was refused.
#[derive(Debug)]
pub(crate) enum OptionError {
    Missing(&'static str),
    Unknown(String),
    Valueless(String),
    Invalid { option: String, value: String },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(option) => write!(f, "{option} is needed"),
            Self::Unknown(option) => write!(f, "no option called {option}"),
            Self::Valueless(option) => write!(f, "{option} needs a value"),
            Self::Invalid { option, value } => write!(f, "{option} cannot be {value:?}"),
        }
    }
}

impl FromStr for Operation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "fill" => Ok(Self::Fill),
            "get" => Ok(Self::Get),
            "set" => Ok(Self::Set),
            _ => Err(()),
        }
    }
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, OptionError> {
        let mut addr = None;
        let mut operation = None;
        let mut options = Self {
            addr: String::new(),
            operation: Operation::Get,
            clients: 8,
            size: 32 << 10,
            corpus: None,
            keys: 1000,
            pipeline: 1,
            warmup: Duration::from_millis(200),
            duration: Duration::from_millis(1000),
            bytes_max: u64::MAX,
            verify_every: 101,
            server_pid: None,
            seed: 1,
        };
        let mut words = arguments.iter();
        while let Some(option) = words.next() {
            let value = words.next().ok_or_else(|| OptionError::Valueless(option.clone()))?;
            match option.as_str() {
                "--addr" => addr = Some(value.clone()),
                "--op" => operation = Some(parsed(option, value)?),
                "--clients" => options.clients = positive(option, value)?,
                "--size" => options.size = positive(option, value)?,
                "--corpus" => options.corpus = Some(PathBuf::from(value)),
                "--keys" => options.keys = positive(option, value)? as u64,
                "--pipeline" => options.pipeline = positive(option, value)?,
                "--warmup-ms" => options.warmup = Duration::from_millis(parsed(option, value)?),
                "--duration-ms" => options.duration = Duration::from_millis(parsed(option, value)?),
                "--bytes-max" => options.bytes_max = parsed(option, value)?,
                "--verify-every" => options.verify_every = positive(option, value)? as u64,
                "--server-pid" => options.server_pid = Some(parsed(option, value)?),
                "--seed" => options.seed = parsed(option, value)?,
                _ => return Err(OptionError::Unknown(option.clone())),
            }
        }
        options.addr = addr.ok_or(OptionError::Missing("--addr"))?;
        options.operation = operation.ok_or(OptionError::Missing("--op"))?;
        Ok(options)
    }
}

fn parsed<T: FromStr>(option: &str, value: &str) -> Result<T, OptionError> {
    value.parse().map_err(|_| OptionError::Invalid { option: option.to_owned(), value: value.to_owned() })
}

fn positive(option: &str, value: &str) -> Result<usize, OptionError> {
    match parsed(option, value)? {
        0 => Err(OptionError::Invalid { option: option.to_owned(), value: value.to_owned() }),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionError> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_full_line_is_understood() {
        let options = parse("--addr h:1 --op set --clients 3 --size 10 --bytes-max 99").unwrap();
        assert_eq!(
            (options.addr.as_str(), options.operation, options.clients, options.size, options.bytes_max),
            ("h:1", Operation::Set, 3, 10, 99)
        );
    }

    #[test]
    fn a_bad_line_is_refused_by_name() {
        for (line, expected) in [
            ("--op get", "--addr is needed"),
            ("--addr h:1", "--op is needed"),
            ("--addr h:1 --op get --clients 0", "--clients cannot be \"0\""),
            ("--addr h:1 --op put", "--op cannot be \"put\""),
            ("--addr", "--addr needs a value"),
            ("--speed 3", "no option called --speed"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), expected, "{line}");
        }
    }
}
