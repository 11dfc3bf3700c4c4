//! What is written down of each entry that is set aside: a line a note, in a file beside what is kept of it.
//!
//! A line is its check, the note's number, the time, the bytes, space and key, and the reason. It stands for itself: what a crash
//! tore, or damage hit, fails its check and is passed over.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is written of a longer key, in bytes: enough to know it by.
const KEY_LEN_MAX: usize = 1024;
/// What is written of a longer reason, in bytes.
const REASON_LEN_MAX: usize = 512;
/// Stands for a key that nobody knows.
const UNKNOWN: &str = "-";

/// One entry that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) number: u64,
    pub(crate) when_ms: u64,
    pub(crate) bytes: u64,
    /// Space and key, where they are known.
    pub(crate) name: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) reason: String,
}

/// The note's line, its end included.
pub(crate) fn encode(note: &Note, seed: u64) -> String {
    let name = match &note.name {
        None => UNKNOWN.to_owned(),
        Some((space, key)) => {
            format!("{}:{}", hex(space), hex(key.get(..KEY_LEN_MAX).unwrap_or(key)))
        }
    };
    let reason: String = note.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let reason_len = (0..=reason.len().min(REASON_LEN_MAX)).rev().find(|len| reason.is_char_boundary(*len));
    let reason = reason.get(..reason_len.unwrap_or(0)).unwrap_or_default();
    let Note { number, when_ms, bytes, .. } = note;
    let text = format!("{number} {when_ms} {bytes} {name} {reason}");
    format!("{:016x} {text}\n", xxh3_64_with_seed(text.as_bytes(), seed))
}

/// Every whole note in `bytes`, in the order of their making.
pub(crate) fn decode(bytes: &[u8], seed: u64) -> Vec<Note> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| decode_line(line, seed)).collect()
}

fn decode_line(line: &[u8], seed: u64) -> Option<Note> {
    let (check, text) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if u64::from_str_radix(check, 16).ok()? != xxh3_64_with_seed(text.as_bytes(), seed) {
        return None;
    }
    let mut parts = text.splitn(5, ' ');
    let mut number = || parts.next()?.parse().ok();
    let (number, when_ms, bytes) = (number()?, number()?, number()?);
    let name = match parts.next()? {
        UNKNOWN => None,
        name => {
            let (space, key) = name.split_once(':')?;
            Some((unhex(space)?, unhex(key)?))
        }
    };
    Some(Note { number, when_ms, bytes, name, reason: parts.next()?.to_owned() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.len().is_multiple_of(2).then(|| text.as_bytes().chunks(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(number: u64) -> Note {
        let name = number.is_multiple_of(2).then(|| (b"db1".to_vec(), vec![0, 255, b' ', b'\n']));
        Note { number, when_ms: 7, bytes: 8, name, reason: format!("what was found {number}") }
    }

    #[test]
    fn a_torn_or_damaged_line_costs_itself_and_no_other() {
        let notes = [note(1), note(2), note(3)];
        let text: String = notes.iter().map(|note| encode(note, 42)).collect();
        assert_eq!(decode(text.as_bytes(), 42), notes);
        assert!(decode(text.as_bytes(), 43).is_empty(), "another store's notes");
        let last_at = text.trim_end().rfind('\n').unwrap();
        for len in last_at..text.len() - 1 {
            assert_eq!(decode(&text.as_bytes()[..len], 42), notes[..2], "cut to {len}");
        }
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = decode(&damaged, 42);
            assert!(found.iter().all(|note| notes.contains(note)), "bit {bit}");
            // A line end that is hit takes both of its lines along.
            assert!(!found.is_empty(), "bit {bit}");
        }
    }

    #[test]
    fn long_keys_and_reasons_are_cut_and_nothing_in_them_ends_a_line() {
        let long = Note { name: Some((Vec::new(), vec![10; 9000])), reason: "ä\n".repeat(900), ..note(1) };
        let text = encode(&long, 42);
        assert!(text.len() < 3000, "{} bytes", text.len());
        let found = decode(text.as_bytes(), 42).remove(0);
        assert_eq!(found.name.unwrap().1, vec![10; KEY_LEN_MAX]);
        assert!(found.reason.starts_with("ä ä"));
    }
}
