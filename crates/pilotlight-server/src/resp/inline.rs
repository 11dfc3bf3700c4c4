//! Inline commands: what a person types into `telnet`.

use bytes::Bytes;

/// Splits a line into arguments, by Redis' quoting rules; `None` when its quotes do not balance.
///
/// Inside double quotes `\xHH`, `\n`, `\r`, `\t`, `\b`, `\a` and a backslash before any other byte are escapes; inside
/// single quotes only `\'` is. A closing quote must be followed by a space or the end.
pub(crate) fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        while let Some((byte, after)) = rest.split_first() {
            if !is_space(*byte) {
                break;
            }
            rest = after;
        }
        // Redis' own splitter works on a C string: a NUL ends the line.
        if matches!(rest.first(), None | Some(0)) {
            return Some(args);
        }
        let mut arg = Vec::new();
        rest = take_arg(rest, &mut arg)?;
        args.push(arg.into());
    }
}

/// Moves one argument from the front of `rest` to `arg`, and returns what follows it.
fn take_arg<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            0 => return Some(rest),
            b'"' => return closed(take_double_quoted(after, arg)?),
            b'\'' => return closed(take_single_quoted(after, arg)?),
            _ if is_space(byte) => return Some(rest),
            _ => arg.push(byte),
        }
        rest = after;
    }
    Some(rest)
}

fn take_double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                arg.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = after;
            }
            [b'"', after @ ..] => return Some(after),
            [0, ..] | [] => return None,
            [byte, after @ ..] => {
                arg.push(*byte);
                rest = after;
            }
        }
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', after @ ..] => {
                arg.push(b'\'');
                rest = after;
            }
            [b'\'', after @ ..] => return Some(after),
            [0, ..] | [] => return None,
            [byte, after @ ..] => {
                arg.push(*byte);
                rest = after;
            }
        }
    }
}

/// What follows a closing quote, if it may follow one.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| is_space(*byte) || *byte == 0).then_some(rest)
}

/// C's `isspace`, which counts the vertical tab too.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte.to_ascii_lowercase().saturating_sub(b'a') + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let args = split(line.as_bytes())?;
        Some(args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
    }

    #[test]
    fn quoting_follows_redis() {
        for (line, expected) in [
            ("", vec![]),
            ("  GET  key ", vec!["GET", "key"]),
            (r#"SET k "a b\x41\n\"" "#, vec!["SET", "k", "a bA\n\""]),
            (r"SET k 'a\'b\n'", vec!["SET", "k", r"a'b\n"]),
            (r#"a"b c""#, vec!["ab c"]),
            (r#""" ''"#, vec!["", ""]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for line in [r#"""#, r#"GET "a"#, r#"GET "a"b"#, "'", "'a'b", r#""\"#] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
