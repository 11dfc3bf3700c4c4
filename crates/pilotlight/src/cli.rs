//! What a person can type.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pilotlight_cache::Kind;

use crate::settings::Flags;

const EXAMPLES: &str = "\
Start a server, then point a job at it:
  pilotlight serve
  export PILOTLIGHT_URL=pilotlight://127.0.0.1:6379
  python train.py
  pilotlight stats

For one command alone:
  pilotlight run -- python train.py

Where the Python package is not installed, in stock PyTorch:
  export TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE=1 TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE=1
  export TORCHINDUCTOR_REDIS_URL=redis://127.0.0.1:6379

Exit codes: 0 done, 1 a negative answer (a miss, damage found), 2 an error.";

const COMPLETIONS: &str = "\
Where they are looked for:
  pilotlight completions bash > ~/.local/share/bash-completion/completions/pilotlight
  pilotlight completions zsh > \"${fpath[1]}/_pilotlight\"
  pilotlight completions fish > ~/.config/fish/completions/pilotlight.fish";

/// A remote compile cache for torch.compile and the compilers around it
#[derive(Debug, Parser)]
#[command(name = "pilotlight", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    ///
    /// Needs no configuration. Every flag is also an environment variable (`--max-size` is PILOTLIGHT_MAX_SIZE) and a
    /// key of the configuration file (`max_size`); a flag wins over the variable, the variable over the file.
    Serve(Serve),
    /// Run a command with the plug-in switched on, and say what that gained
    ///
    /// The command must run in an environment in which the Python package `pilotlight` is installed. It ends with the
    /// command's own exit code.
    Run(Run),
    /// Stand for a server elsewhere, for clients without TLS
    ///
    /// As stock Triton, which knows neither TLS nor passwords. Everything is passed on, with the login of the URL. While the server cannot be reached, lookups are misses
    /// and puts are not kept, so that no compile fails over it.
    Sidecar(Sidecar),
    /// Show hit rates, sizes, evictions and compile time saved
    Stats(Stats),
    /// List entries
    Ls(Ls),
    /// Fetch an artifact
    Get(Get),
    /// Store an artifact
    Put(Put),
    /// Delete entries
    Rm(Rm),
    /// Keep entries from being evicted
    ///
    /// A pinned entry still expires and can be deleted, and what is put over it is pinned too. At most half of the space
    /// can be pinned.
    Pin(Pin),
    /// Let pinned entries be evicted again
    Unpin(Pin),
    /// Read and check every entry, setting aside what is damaged
    Verify(Verify),
    /// Write entries into one portable file, as a backup or for another store
    ///
    /// The file is `FILE.partial` until it is complete. An export that was interrupted goes on with `--resume`. Entries keep
    /// their expiry, their pins and when they were made. docs/reference/export.md describes the file.
    Export(Export),
    /// Take in the entries of a file that `export` wrote
    ///
    /// The file is read and checked first, so that a damaged one changes nothing; from stdin it is checked on the way. Entries
    /// that are there already are passed over: an import that was interrupted goes on when it is run again. A directory is made
    /// if it is not there.
    Import(Import),
    /// Remove what nobody needs and give the space back
    ///
    /// Expired entries, payload files that no entry holds, dead bytes of the log. No entry that is alive leaves. A running
    /// server does much of it by itself, as it needs the space.
    Gc(Gc),
    /// Say what is wrong with a server or a stopped directory, and mend it
    ///
    /// One line a finding, with a hint. The exit code is 1 when something is wrong. Without `--repair` nothing is changed. A
    /// repair of a directory rebuilds entries whose part of the log is lost from their payload files, sets aside what is damaged
    /// and writes damaged parts of the log anew; no entry that is whole is lost, also when it is interrupted. A running server
    /// checks every entry and removes what nobody needs.
    Doctor(Doctor),
    /// List or remove what was set aside because it was damaged
    Quarantine {
        /// What to do
        #[command(subcommand)]
        action: Quarantine,
    },
    /// Make, show and trust the keys that entries are signed with
    ///
    /// Jobs sign what they put with PILOTLIGHT_SIGNING_KEY and check what they get with PILOTLIGHT_VERIFY; docs/signing.md says in
    /// which order to switch that on. Keys are files; none is ever printed, but for its public half.
    Keys {
        /// What to do
        #[command(subcommand)]
        action: Keys,
    },
    /// Make, list and change the users of a server, in its users file
    ///
    /// A server that was started with `--users FILE` reads the file again when it changes. docs/users.md says what may be in it.
    Users {
        /// What to do
        #[command(subcommand)]
        action: Users,
    },
    /// Show the reference of the settings, or an example file
    Config(Config),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Directory to write one page for each command to
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Configuration file (TOML) [default: $XDG_CONFIG_HOME/pilotlight/pilotlight.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the configuration in effect and where each value comes from, then exit: 0 if it is valid, 2 if not
    #[arg(long)]
    pub(crate) validate_config: bool,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Cache to use: pilotlight://, redis://, rediss://, unix:// or file:// [default: $PILOTLIGHT_URL or
    /// pilotlight://127.0.0.1:6379]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Write what the command's processes did to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Print neither start lines nor notices nor a summary
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// The command and its arguments, after `--`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Sidecar {
    /// Address to listen on; a loopback one, as whoever connects has the rights of the URL
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6379")]
    pub(crate) listen: std::net::SocketAddr,
    /// Server to stand for: rediss://USER:PASSWORD@HOST:PORT/DATABASE, pilotlights://, redis:// or unix:// [default:
    /// $PILOTLIGHT_URL, where other users of this machine do not see the password]
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// File to write the address in use to, once it takes connections: for port 0
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,
}

/// Where entries are, for the commands that look at them.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Server to ask, by its HTTP address or as in PILOTLIGHT_URL [default: $PILOTLIGHT_HTTP_URL, $PILOTLIGHT_URL or
    /// http://127.0.0.1:6380]
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub(crate) server: Option<String>,
    /// Directory of a server that is not running, to look at directly
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// File that holds the server's password [default: the URL's own, $PILOTLIGHT_PASSWORD or the file in
    /// $PILOTLIGHT_PASSWORD_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) target: Target,
}

/// The namespace that entries are in.
#[derive(Debug, Args)]
pub(crate) struct In {
    /// Namespace of the entries; Redis' database N is `dbN`, and 0 the default one, `''` [default: the database in the URL,
    /// else the default one]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only entries of this kind
    #[arg(long, value_name = "KIND", value_parser = Kind::ALL.map(Kind::name))]
    pub(crate) kind: Option<String>,
    /// Most entries to list
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// Largest, youngest or most used first; without it, in no order, as they are found
    #[arg(long, value_name = "ORDER")]
    pub(crate) sort: Option<Order>,
    #[command(flatten)]
    pub(crate) namespace: In,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Largest first
    Size,
    /// Youngest first
    Age,
    /// Most used first
    Hits,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The key
    pub(crate) key: OsString,
    /// File to write the artifact to, instead of stdout
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) namespace: In,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The key
    pub(crate) key: OsString,
    /// File that holds the artifact; `-` is stdin
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// How long to keep it: `90s`, `12h`, `7d`
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::positive_duration)]
    pub(crate) ttl: Option<std::time::Duration>,
    #[command(flatten)]
    pub(crate) namespace: In,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The keys
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "KEY")]
    pub(crate) keys: Vec<OsString>,
    /// Delete every entry of the namespace
    #[arg(long, requires = "yes")]
    pub(crate) all: bool,
    /// Confirm `--all`
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) namespace: In,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<OsString>,
    #[command(flatten)]
    pub(crate) namespace: In,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// File to write; `-` is stdout
    pub(crate) file: PathBuf,
    /// Only entries of this namespace; can be given several times [default: all of them]
    #[arg(long = "namespace", value_name = "NAME")]
    pub(crate) namespaces: Vec<String>,
    /// Only entries of this kind; can be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = Kind::ALL.map(Kind::name))]
    pub(crate) kinds: Vec<String>,
    /// Only entries whose key matches: `*`, `?`, `[a-z]`
    #[arg(long, value_name = "PATTERN")]
    pub(crate) pattern: Option<String>,
    /// Only entries made within this time: `12h`, `7d`
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// Go on with an export of the same name that was interrupted; it keeps its selection
    #[arg(long, conflicts_with_all = ["namespaces", "kinds", "pattern", "since"])]
    pub(crate) resume: bool,
    /// Replace a file of this name, and drop what an interrupted export left
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// File to read; `-` is stdin
    pub(crate) file: PathBuf,
    /// Replace entries that hold another artifact, newer ones too
    #[arg(long)]
    pub(crate) replace: bool,
    /// Only read and check the file
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Mend what can be mended
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// List what was set aside, when and why, oldest first
    Ls(QuarantineLs),
    /// Remove what was set aside, for good
    Purge(QuarantinePurge),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineLs {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct QuarantinePurge {
    /// Only what was set aside longer ago: `90s`, `12h`, `7d`
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::duration)]
    pub(crate) older_than: Option<std::time::Duration>,
    /// All of it
    #[arg(long, required_unless_present = "older_than", conflicts_with = "older_than")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key to sign with
    New(KeysNew),
    /// Show keys and signers, or who signed an entry
    ///
    /// With KEY: whose signature the entry has, and whether it is taken here; the exit code is 1 if it is not.
    Show(KeysShow),
    /// Trust a signer
    Trust(KeysTrust),
    /// Trust a signer no more, from now on and in all that it signed
    Revoke(KeysRevoke),
    /// Make a key that takes the place of another, and trust both for a while
    ///
    /// The old key stays where it is, so that nothing is signed that nobody trusts yet: distribute the trust file first, then have
    /// jobs sign with the new key.
    Rotate(KeysRotate),
}

/// Where keys are.
#[derive(Debug, Args)]
pub(crate) struct KeysIn {
    /// Directory of the keys [default: $XDG_CONFIG_HOME/pilotlight/keys or ~/.config/pilotlight/keys]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Where it is written who is trusted.
#[derive(Debug, Args)]
pub(crate) struct Trusting {
    /// Trust file [default: $PILOTLIGHT_TRUST or `trusted.toml` among the keys]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct KeysNew {
    /// Name of the key, and of its file, NAME.key
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: KeysIn,
}

#[derive(Debug, Args)]
pub(crate) struct KeysShow {
    /// Key of an entry to look at, in the cache that PILOTLIGHT_URL names
    pub(crate) key: Option<OsString>,
    #[command(flatten)]
    pub(crate) place: KeysIn,
    #[command(flatten)]
    pub(crate) trust: Trusting,
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KeysTrust {
    /// Public key, as `keys new` and `keys show` print it
    pub(crate) public_key: String,
    /// Name of the signer, for people
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Last day on which it is trusted (`2027-01-31`), or the moment (`2027-01-31T12:00:00Z`) [default: for good]
    #[arg(long, value_name = "DATE")]
    pub(crate) expires: Option<String>,
    /// Namespace that it may sign for, `''` being the default one; can be given several times [default: the reader's own]
    #[arg(long = "namespace", value_name = "NAME")]
    pub(crate) namespaces: Vec<String>,
    /// Kind of entries that it may sign; can be given several times [default: all]
    #[arg(long = "kind", value_name = "KIND", value_parser = Kind::ALL.map(Kind::name))]
    pub(crate) kinds: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: Trusting,
}

#[derive(Debug, Args)]
pub(crate) struct KeysRevoke {
    /// Id of the signer, 16 hex digits
    pub(crate) id: String,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) trust: Trusting,
}

#[derive(Debug, Args)]
pub(crate) struct KeysRotate {
    /// Name of the key to replace
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) name: String,
    /// How long the old key stays trusted: `30d`, `12h`
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = crate::settings::positive_duration)]
    pub(crate) overlap: std::time::Duration,
    #[command(flatten)]
    pub(crate) place: KeysIn,
    #[command(flatten)]
    pub(crate) trust: Trusting,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Config {
    /// Print the reference page (Markdown)
    #[arg(long)]
    pub(crate) reference: bool,
    /// Print a configuration file with every key, its help and its default
    #[arg(long)]
    pub(crate) example: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// Add a user, and print its secret: this once
    Add(UsersAdd),
    /// List users and what they may
    List(UsersList),
    /// Remove a user: its connections lose their rights within seconds
    Remove(UsersRemove),
    /// Give a user a new secret, and print it; the old one works until `--drop-old`
    Rotate(UsersRotate),
    /// Say whether a server would take a file: 0 if so, 2 if not
    Check(UsersCheck),
}

/// The users file.
#[derive(Debug, Args)]
pub(crate) struct UsersFileOption {
    /// Users file [default: $PILOTLIGHT_USERS or $XDG_CONFIG_HOME/pilotlight/users.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UsersAdd {
    /// Its name: letters, digits, `-`, `_` and `.`
    pub(crate) name: String,
    /// Namespace that database 0 is to mean for it [default: the one without a name]
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) home: Option<String>,
    /// What it may: rights (`r`, `w`, `a` of administrators), a namespace or `*`, and perhaps a kind, as in `rw ci` and
    /// `r release:fx-graph`; can be given several times
    #[arg(long = "grant", value_name = "GRANT")]
    pub(crate) grants: Vec<String>,
    /// Subject of a TLS certificate that proves it as well: `CN=ci,O=example`
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) certificate: Option<String>,
    /// How often it may ask, over all of its connections: `200/s`, `600/min`
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<String>,
    #[command(flatten)]
    pub(crate) file: UsersFileOption,
}

#[derive(Debug, Args)]
pub(crate) struct UsersList {
    #[command(flatten)]
    pub(crate) file: UsersFileOption,
}

#[derive(Debug, Args)]
pub(crate) struct UsersRemove {
    /// The user
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) file: UsersFileOption,
}

#[derive(Debug, Args)]
pub(crate) struct UsersRotate {
    /// The user
    pub(crate) name: String,
    /// Make no new secret: take all from it but the newest
    #[arg(long)]
    pub(crate) drop_old: bool,
    #[command(flatten)]
    pub(crate) file: UsersFileOption,
}

#[derive(Debug, Args)]
pub(crate) struct UsersCheck {
    /// The file
    pub(crate) file: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}
