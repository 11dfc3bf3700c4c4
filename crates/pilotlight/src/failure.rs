//! What a command reports when it cannot do its work.

use std::error::Error;
use std::fmt;

use pilotlight_cache::client::AddressError;

/// An error for a person: what failed, why, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Outermost first.
    chain: Vec<String>,
    hint: Option<String>,
    code: u8,
    is_broken_pipe: bool,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { chain: vec![what.into()], hint: None, code: 2, is_broken_pipe: false }
    }

    /// Whoever read our output has left. That is an end, not an error.
    pub(crate) fn broken_pipe() -> Self {
        Self { chain: Vec::new(), hint: None, code: 0, is_broken_pipe: true }
    }

    /// That the URL of this flag or variable cannot be understood.
    pub(crate) fn of_address(name: &str, error: &AddressError) -> Self {
        Self::new(format!("{name}: {}", error.problem())).with_hint(error.hint())
    }

    /// Adds `cause` and its own causes. One whose text ends the text above it says nothing new and is left out.
    #[must_use]
    pub(crate) fn because(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            if !self.chain.last().is_some_and(|above| above.ends_with(&text)) {
                self.chain.push(text);
            }
            next = error.source();
        }
        self
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn with_hint_if(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(Into::into).or(self.hint);
        self
    }

    /// The same with a hint on top of its own.
    #[must_use]
    pub(crate) fn with_hint_added(mut self, hint: &str) -> Self {
        self.hint = Some(self.hint.map_or_else(|| hint.to_owned(), |own| format!("{own}; {hint}")));
        self
    }

    /// The same with another exit code than 2.
    #[must_use]
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.is_broken_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, text) in self.chain.iter().enumerate() {
            let lead = if depth == 0 { "error:" } else { "  caused by:" };
            writeln!(f, "{lead} {text}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<pilotlight_cache::Error> for Failure {
    fn from(error: pilotlight_cache::Error) -> Self {
        Self::new(error.to_string()).because(&error).with_hint_if(error.hint())
    }
}
