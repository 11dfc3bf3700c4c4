//! Replies, and how RESP2 and RESP3 write them.

use bytes::Bytes;

use super::error::Fault;
use super::output::Output;

/// Which dialect a connection speaks; `HELLO` changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Ok,
    Simple(&'static str),
    Integer(i64),
    Bulk(Bytes),
    /// A bulk of two parts, which are nowhere copied together.
    Envelope {
        head: Bytes,
        payload: Bytes,
    },
    /// Text for people: tagged as such in RESP3.
    Verbatim(Bytes),
    /// No value, or a write that did not take place.
    Nil,
    /// No array: an `EXEC` that was called off.
    NilArray,
    Array(Vec<Reply>),
    /// In RESP2 an array of keys and values in turn.
    Map(Vec<(Reply, Reply)>),
    /// In RESP2 an array.
    Set(Vec<Reply>),
    Error(Fault),
    /// Nothing is sent: `CLIENT REPLY OFF`.
    Silence,
}

impl Reply {
    pub(crate) fn bulk(bytes: impl Into<Bytes>) -> Self {
        Self::Bulk(bytes.into())
    }

    pub(crate) fn text(text: &'static str) -> Self {
        Self::Bulk(Bytes::from_static(text.as_bytes()))
    }

    pub(crate) fn count(count: u64) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(crate) fn flag(is_set: bool) -> Self {
        Self::Integer(i64::from(is_set))
    }

    /// What it holds, in bytes, with what each part of it takes in memory at least.
    pub(crate) fn len(&self) -> u64 {
        size_of::<Self>() as u64 + self.content_len()
    }

    fn content_len(&self) -> u64 {
        match self {
            Self::Bulk(bytes) | Self::Verbatim(bytes) => bytes.len() as u64,
            Self::Envelope { head, payload } => (head.len() + payload.len()) as u64,
            Self::Array(items) | Self::Set(items) => items.iter().map(Self::len).sum(),
            Self::Map(pairs) => pairs.iter().map(|(key, value)| key.len() + value.len()).sum(),
            _ => 0,
        }
    }

    /// Appends the reply to `output`. Artifacts are queued by reference, not copied.
    pub(crate) fn write(self, protocol: Protocol, output: &mut Output) {
        let is_resp3 = protocol == Protocol::Resp3;
        match self {
            Self::Ok => output.push(b"+OK\r\n"),
            Self::Simple(text) => {
                output.push(b"+");
                output.push(text.as_bytes());
                output.push(b"\r\n");
            }
            Self::Integer(number) => output.push_number(b':', number),
            Self::Bulk(bytes) => {
                output.push_len(b'$', bytes.len());
                output.push_artifact(bytes);
                output.push(b"\r\n");
            }
            Self::Envelope { head, payload } => {
                output.push_len(b'$', head.len() + payload.len());
                output.push_artifact(head);
                output.push_artifact(payload);
                output.push(b"\r\n");
            }
            Self::Verbatim(bytes) if is_resp3 => {
                output.push_len(b'=', bytes.len() + 4);
                output.push(b"txt:");
                output.push_artifact(bytes);
                output.push(b"\r\n");
            }
            Self::Verbatim(bytes) => Self::Bulk(bytes).write(protocol, output),
            Self::Nil if !is_resp3 => output.push(b"$-1\r\n"),
            Self::NilArray if !is_resp3 => output.push(b"*-1\r\n"),
            Self::Nil | Self::NilArray => output.push(b"_\r\n"),
            Self::Array(items) => write_all(b'*', items, protocol, output),
            Self::Set(items) => write_all(if is_resp3 { b'~' } else { b'*' }, items, protocol, output),
            Self::Map(pairs) => {
                let (tag, len) = if is_resp3 { (b'%', pairs.len()) } else { (b'*', pairs.len() * 2) };
                output.push_len(tag, len);
                for (key, value) in pairs {
                    key.write(protocol, output);
                    value.write(protocol, output);
                }
            }
            Self::Error(fault) => write_error(&fault, output),
            Self::Silence => {}
        }
    }
}

fn write_all(tag: u8, items: Vec<Reply>, protocol: Protocol, output: &mut Output) {
    output.push_len(tag, items.len());
    for item in items {
        item.write(protocol, output);
    }
}

fn write_error(fault: &Fault, output: &mut Output) {
    output.push(b"-");
    if !fault.prefix().is_empty() {
        output.push(fault.prefix().as_bytes());
        output.push(b" ");
    }
    // A line break inside would end the reply early.
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let text = fault.text();
    let trimmed = text.iter().rposition(|byte| !is_break(byte)).map_or(0, |last| last + 1);
    let line: Vec<u8> =
        text.iter().take(trimmed).map(|byte| if is_break(byte) { b' ' } else { *byte }).collect();
    output.push(&line);
    output.push(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: Reply, protocol: Protocol) -> String {
        let mut output = Output::default();
        reply.write(protocol, &mut output);
        String::from_utf8_lossy(&output.into_bytes()).into_owned()
    }

    #[test]
    fn both_dialects() {
        for (reply, resp2, resp3) in [
            (Reply::Ok, "+OK\r\n", "+OK\r\n"),
            (Reply::Integer(-7), ":-7\r\n", ":-7\r\n"),
            (Reply::text(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::Nil, "$-1\r\n", "_\r\n"),
            (Reply::NilArray, "*-1\r\n", "_\r\n"),
            (Reply::Verbatim("a".into()), "$1\r\na\r\n", "=5\r\ntxt:a\r\n"),
            (Reply::Set(vec![Reply::Ok]), "*1\r\n+OK\r\n", "~1\r\n+OK\r\n"),
            (Reply::Map(vec![(Reply::Ok, Reply::Nil)]), "*2\r\n+OK\r\n$-1\r\n", "%1\r\n+OK\r\n_\r\n"),
            (Reply::Silence, "", ""),
        ] {
            assert_eq!(written(reply.clone(), Protocol::Resp2), resp2);
            assert_eq!(written(reply, Protocol::Resp3), resp3);
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let fault = Fault::quoting("a\r\nb\n");
        assert_eq!(written(Reply::Error(fault), Protocol::Resp2), "-ERR a  b\r\n");
    }
}
