//! PyTorch's JSON around an artifact, taken off for storage and put back byte for byte.
//!
//! Stock PyTorch puts `{"data": "<base64 of a pickle>", "time_taken_ms": 1234}` (`_save_graph` in
//! `torch/_inductor/codecache.py`, `save` in `torch/_functorch/_aot_autograd/autograd_cache.py`, torch 2.6 to 2.15).
//! Base64 hides what compresses: without it entries shrink to two thirds more.

use base64_simd::STANDARD;
use bytes::Bytes;

/// What stands around the base64 text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Up to the first character of the text.
    pub before: Vec<u8>,
    /// From behind its last character.
    pub after: Vec<u8>,
}

const BEFORE: &[u8] = b"{\"data\": \"";
/// What stands behind the text is a quote, and at most a number: longer means that it is something else.
const AFTER_LEN_MAX: usize = 128;
/// Below this length, in bytes, the frame costs more than taking the value apart saves.
pub const WORTH_IT_LEN_MIN: usize = 128;

impl Frame {
    /// What `json.dumps` writes around an artifact: `{"data": "<base64>", "time_taken_ms": <n>}`, or without the time where
    /// none is known, as PGO's profiles (`torch/_dynamo/pgo.py`).
    #[must_use]
    pub fn torch(compile_ms: u32) -> Self {
        let after = match compile_ms {
            0 => "\"}".to_owned(),
            _ => format!("\", \"time_taken_ms\": {compile_ms}}}"),
        };
        Self { before: BEFORE.to_vec(), after: after.into_bytes() }
    }
}

/// The artifact in PyTorch's JSON, and the frame around it; `None` for anything that [`join`] would not rebuild exactly.
#[must_use]
pub fn split(value: &[u8]) -> Option<(Vec<u8>, Frame)> {
    let text_and_after = value.strip_prefix(BEFORE)?;
    // The last quote before the tail: searched from behind, since the text is long and the tail is short.
    let tail_at = text_and_after.len().saturating_sub(AFTER_LEN_MAX);
    let tail = text_and_after.get(tail_at..)?;
    let text_len = tail_at + memchr::memchr(b'"', tail)?;
    let (text, after) = text_and_after.split_at_checked(text_len)?;
    let artifact = STANDARD.decode_to_vec(text).ok()?;
    let frame = Frame { before: BEFORE.to_vec(), after: after.to_vec() };
    // The decoder is strict, and still: what is served is what was put, or it is stored as it came.
    (join(&artifact, &frame) == value).then_some((artifact, frame))
}

/// The value that [`split`] took apart.
#[must_use]
pub fn join(artifact: &[u8], frame: &Frame) -> Bytes {
    let mut value =
        Vec::with_capacity(frame.before.len() + STANDARD.encoded_length(artifact.len()) + frame.after.len());
    value.extend_from_slice(&frame.before);
    STANDARD.encode_append(artifact, &mut value);
    value.extend_from_slice(&frame.after);
    value.into()
}

/// How long that value is, in bytes; no sum of lengths in a head overflows it.
#[must_use]
pub fn joined_len(artifact_len: u64, frame: &Frame) -> u64 {
    // Four characters for three bytes, padded.
    let text_len = artifact_len.div_ceil(3).saturating_mul(4);
    text_len.saturating_add((frame.before.len() + frame.after.len()) as u64)
}

/// What the compile took, in milliseconds: PyTorch's JSON ends in `"time_taken_ms": <n>}`. 0 when it does not say.
#[must_use]
pub fn time_taken_ms(value: &[u8]) -> u32 {
    const LABEL: &[u8] = b"\"time_taken_ms\":";
    // Enough for the label and any number of milliseconds; the rest of the value may be megabytes.
    const TAIL_LEN: usize = 64;
    let tail = value.get(value.len().saturating_sub(TAIL_LEN)..).unwrap_or_default();
    let number = || {
        let at = memchr::memmem::rfind(tail, LABEL)? + LABEL.len();
        let text = std::str::from_utf8(tail.get(at..)?).ok()?.trim();
        text.strip_suffix('}')?.trim().parse().ok()
    };
    number().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn torch_json(artifact: &[u8], tail: &str) -> Vec<u8> {
        format!("{{\"data\": \"{}\"{tail}", STANDARD.encode_to_string(artifact)).into_bytes()
    }

    #[test]
    fn torch_json_is_recognised() {
        let artifact: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 256) as u8).collect();
        for tail in [", \"time_taken_ms\": 1234}", "}"] {
            let value = torch_json(&artifact, tail);
            let (decoded, frame) = split(&value).expect("recognised");
            assert_eq!(decoded, artifact);
            assert_eq!(join(&decoded, &frame), value);
        }
    }

    #[test]
    fn what_does_not_rebuild_exactly_is_left_alone() {
        let artifact = vec![1; 1000];
        let good = torch_json(&artifact, "}");
        let as_text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for bad in [
            as_text(&good).replace("\"data\": ", "\"data\":"),
            as_text(&good).replacen("AQEB", "AQ\nB", 1),
            // Non-canonical padding bits decode leniently elsewhere and would rebuild differently.
            format!("{{\"data\": \"{}B==\"}}", "AQEB".repeat(100)),
            "{}".to_owned(),
            String::new(),
        ] {
            assert_eq!(split(bad.as_bytes()), None, "{}", bad.get(..40).unwrap_or(&bad));
        }
    }

    #[test]
    fn compile_time_is_read_from_what_torch_writes() {
        let long = format!(r#"{{"data": "{}", "time_taken_ms": 1234}}"#, "A".repeat(1000));
        for (value, expected) in [
            (long.as_str(), 1234),
            (r#"{"data": "", "time_taken_ms": 0}"#, 0),
            (r#"{"time_taken_ms": 7, "data": ""}"#, 0),
            (r#"{"data": "", "time_taken_ms": -1}"#, 0),
            (r#"{"data": "", "time_taken_ms": 99999999999}"#, 0),
            (r#""time_taken_ms":"#, 0),
            ("", 0),
        ] {
            assert_eq!(time_taken_ms(value.as_bytes()), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_split_value_always_joins_to_itself(artifact: Vec<u8>, cut in 0usize..400, tail in "[ -~]{0,40}") {
            let mut value = torch_json(&artifact.repeat(8), &tail);
            prop_assume!(value.len() > cut);
            value.truncate(value.len() - cut);
            if let Some((artifact, frame)) = split(&value) {
                prop_assert_eq!(joined_len(artifact.len() as u64, &frame), value.len() as u64);
                prop_assert_eq!(join(&artifact, &frame), value);
            }
        }
    }
}
