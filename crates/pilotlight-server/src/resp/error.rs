//! Error replies. The only module that writes an error's prefix: to clients the prefix is an API.
//!
//! Absent, on purpose: `LOADING` and `max number of clients`, which make stock PyTorch switch its cache off for the
//! life of the process. `NOAUTH` and `WRONGPASS` do the same and stand only for what they say.

use std::borrow::Cow;

use pilotlight_cache::trust::Reason;
use pilotlight_cache::{Error, ErrorKind};

use super::decode::ProtocolError;

/// Why a command was not done, as the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    prefix: Prefix,
    /// Bytes, since it may quote what the client sent.
    text: Cow<'static, [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Err,
    ExecAbort,
    NoAuth,
    NoPerm,
    NoProto,
    Oom,
    ReadOnly,
    TooLarge,
    WrongPass,
    /// None of ours: the text has its own.
    AsTold,
}

impl Prefix {
    fn name(self) -> &'static str {
        match self {
            Self::Err => "ERR",
            Self::ExecAbort => "EXECABORT",
            Self::NoAuth => "NOAUTH",
            Self::NoPerm => "NOPERM",
            Self::NoProto => "NOPROTO",
            Self::Oom => "OOM",
            Self::ReadOnly => "READONLY",
            Self::TooLarge => "TOOLARGE",
            Self::WrongPass => "WRONGPASS",
            Self::AsTold => "",
        }
    }
}

const fn fault(prefix: Prefix, text: &'static str) -> Fault {
    Fault { prefix, text: Cow::Borrowed(text.as_bytes()) }
}

impl Fault {
    pub(crate) const SYNTAX: Self = Self::err("syntax error");
    pub(crate) const NOT_AN_INTEGER: Self = Self::err("value is not an integer or out of range");
    pub(crate) const NOT_A_FLOAT: Self = Self::err("value is not a valid float");
    pub(crate) const OVERFLOW: Self = Self::err("increment or decrement would overflow");
    pub(crate) const NO_SUCH_KEY: Self = Self::err("no such key");
    pub(crate) const SAME_OBJECT: Self = Self::err("source and destination objects are the same");
    pub(crate) const DB_OUT_OF_RANGE: Self = Self::err("DB index is out of range");
    pub(crate) const STRING_TOO_LONG: Self =
        Self::err("string exceeds maximum allowed size (proto-max-bulk-len)");
    pub(crate) const NO_AUTH: Self = fault(Prefix::NoAuth, "Authentication required.");
    pub(crate) const NO_AUTH_IN_HELLO: Self = fault(
        Prefix::NoAuth,
        "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> \
         option can be used to authenticate the client and select the RESP protocol version at the same time",
    );
    pub(crate) const WRONG_PASS: Self =
        fault(Prefix::WrongPass, "invalid username-password pair or user is disabled.");
    pub(crate) const NO_PROTO: Self = fault(Prefix::NoProto, "unsupported protocol version");
    pub(crate) const EXEC_ABORT: Self =
        fault(Prefix::ExecAbort, "Transaction discarded because of previous errors.");

    /// A generic error.
    pub(crate) const fn err(text: &'static str) -> Self {
        fault(Prefix::Err, text)
    }

    /// A generic error that quotes something.
    pub(crate) fn quoting(text: impl Into<Vec<u8>>) -> Self {
        Self { prefix: Prefix::Err, text: Cow::Owned(text.into()) }
    }

    /// The error that the client asked to be given, its prefix included.
    pub(crate) fn as_told(line: impl Into<Vec<u8>>) -> Self {
        Self { prefix: Prefix::AsTold, text: Cow::Owned(line.into()) }
    }

    /// What our own client is told of a value above a limit: the limit, and how to raise it.
    pub(crate) fn too_large(error: &Error) -> Self {
        let text = match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        };
        Self { prefix: Prefix::TooLarge, text: Cow::Owned(text.into_bytes()) }
    }

    /// What our own client is told of an entry that none of the server's signers signed.
    pub(crate) fn unverified(reason: Reason) -> Self {
        let text = format!("{reason}: this server takes only what its signers signed; {}", reason.hint());
        Self { prefix: Prefix::NoPerm, text: Cow::Owned(text.into_bytes()) }
    }

    pub(crate) fn wrong_arity(command: &str) -> Self {
        Self::quoting(format!("wrong number of arguments for '{command}' command"))
    }

    pub(crate) fn invalid_expire_time(command: &str) -> Self {
        Self::quoting(format!("invalid expire time in '{command}' command"))
    }

    /// The same as the reason why an `EXEC` ran nothing.
    pub(crate) fn aborting_exec(self) -> Self {
        let mut text = b"Transaction discarded because of: ".to_vec();
        text.extend_from_slice(&self.text);
        Self { prefix: Prefix::ExecAbort, text: Cow::Owned(text) }
    }

    pub(crate) fn prefix(&self) -> &'static str {
        self.prefix.name()
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::Denied { what } = error {
            // Without our own words in front: it may be Redis' text.
            return Self { prefix: Prefix::NoPerm, text: Cow::Owned(what.into_bytes()) };
        }
        let prefix = match error.kind() {
            ErrorKind::Full => {
                return fault(Prefix::Oom, "command not allowed when used memory > 'maxmemory'.");
            }
            ErrorKind::ReadOnly => {
                return fault(Prefix::ReadOnly, "You can't write against a read only replica.");
            }
            ErrorKind::Denied | ErrorKind::Unverified => Prefix::NoPerm,
            ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::TooLarge
            | ErrorKind::Corrupt
            | ErrorKind::Unsupported
            | ErrorKind::Invalid
            | ErrorKind::Internal => Prefix::Err,
        };
        Self { prefix, text: Cow::Owned(error.to_string().into_bytes()) }
    }
}

impl From<ProtocolError> for Fault {
    fn from(error: ProtocolError) -> Self {
        let mut text = b"Protocol error: ".to_vec();
        if let ProtocolError::ExpectedBulk(byte) = error {
            // As the byte came, which need not be UTF-8.
            text.extend_from_slice(b"expected '$', got '");
            text.extend_from_slice(&[byte, b'\'']);
        } else {
            text.extend_from_slice(error.to_string().as_bytes());
        }
        Self::quoting(text)
    }
}
