//! Redis' patterns: `*`, `?`, `[a-c]`, `[^a]` and `\` before a byte that stands for itself.

/// Whether the whole of `text` matches `pattern`.
///
/// Takes at most pattern times text steps: only the last `*` is ever tried again, since an earlier one can take no
/// more than the text that its successor was first tried at.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on when the last `*` must take one more byte.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        if pattern.is_empty() && text.is_empty() {
            return true;
        }
        if let Some((rest, true)) = text.first().and_then(|byte| match_one(pattern, *byte)) {
            pattern = rest;
            text = text.get(1..).unwrap_or_default();
            continue;
        }
        match retry {
            Some((after_star, [_, shorter @ ..])) => {
                retry = Some((after_star, shorter));
                (pattern, text) = (after_star, shorter);
            }
            _ => return false,
        }
    }
}

/// What follows the first element of `pattern`, and whether that element matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<(&[u8], bool)> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some((rest, true)),
        [b'[', rest @ ..] => Some(match_class(rest, byte)),
        [b'\\', escaped, rest @ ..] => Some((rest, *escaped == byte)),
        [literal, rest @ ..] => Some((rest, *literal == byte)),
    }
}

fn match_class(pattern: &[u8], byte: u8) -> (&[u8], bool) {
    let (mut rest, is_negated) = match pattern {
        [b'^', rest @ ..] => (rest, true),
        _ => (pattern, false),
    };
    let mut is_in = false;
    loop {
        rest = match rest {
            [] => return (rest, is_in != is_negated),
            [b']', rest @ ..] => return (rest, is_in != is_negated),
            [b'\\', escaped, rest @ ..] => {
                is_in |= *escaped == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                is_in |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                is_in |= *literal == byte;
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("pt2:*:c1", "pt2:fx-graph-v1::f:c1", true),
            ("a[", "a", false),
            ("[ab", "b", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_quadratic_at_worst() {
        let pattern = "a*".repeat(2000) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes()));
    }
}
