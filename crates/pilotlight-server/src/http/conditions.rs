//! Entity tags and the conditions built on them (RFC 9110, section 13).

use std::fmt;

use axum::http::{HeaderMap, HeaderName, header};
use pilotlight_cache::{Head, When};

use super::problem::Refusal;

/// An entry's strong tag, `"<version>-<created>"` in hexadecimal.
///
/// The version alone tells two puts apart for as long as a backend lives; the time guards clients that kept a tag from
/// before a memory-only server was restarted, when versions start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) version: u64,
    pub(super) created_ms: u64,
}

impl From<&Head> for Tag {
    fn from(head: &Head) -> Self {
        Self { version: head.version.0, created_ms: head.created_ms }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:x}-{:x}\"", self.version, self.created_ms)
    }
}

/// What a request's conditions say of the entry that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Holds,
    /// `If-None-Match` names what is there: 304 to a read, 412 to a write.
    Same,
    /// `If-Match` does not name what is there: 412.
    Differs,
}

/// The conditions of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: any entry at all.
    Any,
    /// One of these, as sent. Our tags hold no comma, so a split at commas is exact for them.
    Listed(String),
}

impl Conditions {
    /// The conditions in `headers`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        Ok(Self {
            matches: tags(headers, &header::IF_MATCH)?,
            none_matches: tags(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.matches.is_none() && self.none_matches.is_none()
    }

    /// Tests them against what is there.
    pub(super) fn test(&self, current: Option<&Tag>) -> Verdict {
        if self.matches.as_ref().is_some_and(|tags| !tags.name(current, Comparison::Strong)) {
            Verdict::Differs
        } else if self.none_matches.as_ref().is_some_and(|tags| tags.name(current, Comparison::Weak)) {
            Verdict::Same
        } else {
            Verdict::Holds
        }
    }

    /// The precondition under which a write must happen after [`Conditions::test`] held for `current`: it makes
    /// the test and the write one step.
    pub(super) fn when(&self, current: Option<&Head>) -> When {
        match (self, current) {
            (Self { matches: None, none_matches: None }, _) => When::Always,
            (Self { matches: Some(Tags::Any), none_matches: None }, _) => When::Present,
            (_, None) => When::Absent,
            (_, Some(head)) => When::Version(head.version),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// `W/"x"` equals nothing.
    Strong,
    /// `W/"x"` equals `"x"`.
    Weak,
}

impl Tags {
    fn name(&self, current: Option<&Tag>, comparison: Comparison) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Listed(list), Some(current)) => {
                let current = current.to_string();
                list.split(',').map(str::trim).any(|tag| match (tag.strip_prefix("W/"), comparison) {
                    (Some(weak), Comparison::Weak) => weak == current,
                    (Some(_), Comparison::Strong) => false,
                    (None, _) => tag == current,
                })
            }
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Refusal> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let mut list = String::new();
    for line in lines {
        let text = line.to_str().map_err(|_| Refusal::bad_request(format!("`{name}` is not text")))?;
        list.push_str(if list.is_empty() { "" } else { "," });
        list.push_str(text.trim());
    }
    Ok(Some(if list == "*" { Tags::Any } else { Tags::Listed(list) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(pairs: &[(&'static str, &'static str)]) -> Conditions {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        Conditions::of(&headers).unwrap()
    }

    #[test]
    fn conditions_are_tested_as_the_rfc_says() {
        let here = Tag { version: 0x1f, created_ms: 0xa0 };
        for (pairs, present, absent) in [
            (&[][..], Verdict::Holds, Verdict::Holds),
            (&[("if-none-match", "*")], Verdict::Same, Verdict::Holds),
            (&[("if-none-match", "\"1f-a0\"")], Verdict::Same, Verdict::Holds),
            (&[("if-none-match", "\"x\", W/\"1f-a0\"")], Verdict::Same, Verdict::Holds),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"1f-a0\"")], Verdict::Same, Verdict::Holds),
            (&[("if-none-match", "\"1f-a1\"")], Verdict::Holds, Verdict::Holds),
            (&[("if-match", "*")], Verdict::Holds, Verdict::Differs),
            (&[("if-match", "\"1f-a0\"")], Verdict::Holds, Verdict::Differs),
            (&[("if-match", "W/\"1f-a0\"")], Verdict::Differs, Verdict::Differs),
            (&[("if-match", "\"2-a0\"")], Verdict::Differs, Verdict::Differs),
            (&[("if-match", "\"1f-a0\""), ("if-none-match", "*")], Verdict::Same, Verdict::Differs),
        ] {
            let conditions = conditions(pairs);
            assert_eq!(conditions.test(Some(&here)), present, "{pairs:?} with an entry");
            assert_eq!(conditions.test(None), absent, "{pairs:?} without one");
        }
    }
}
