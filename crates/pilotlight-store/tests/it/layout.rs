use std::ops::Range;

/// The structures that FORMAT.md draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Structure {
    SegmentHeader,
    /// The header of a record with its payload inline.
    InlineHeader,
    /// The header of a record whose payload lies in a file.
    ExternalHeader,
    Key,
    Head,
    Payload,
    Reference,
    /// The reference to another payload that a record's own needs.
    Base,
    /// A record that says that a key is gone.
    Tombstone,
    /// A record that says that a space is empty.
    Clear,
    /// The names of spaces in a footer.
    Names,
    Row,
    /// The base of a row, behind all rows.
    RowBase,
    Trailer,
    /// What a payload file begins with.
    FileHeader,
    FilePayload,
}

impl Structure {
    pub(crate) const ALL: [Self; 16] = [
        Self::SegmentHeader,
        Self::InlineHeader,
        Self::ExternalHeader,
        Self::Key,
        Self::Head,
        Self::Payload,
        Self::Reference,
        Self::Base,
        Self::Tombstone,
        Self::Clear,
        Self::Names,
        Self::Row,
        Self::RowBase,
        Self::Trailer,
        Self::FileHeader,
        Self::FilePayload,
    ];
}

/// One of them in a file.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) structure: Structure,
    pub(crate) range: Range<usize>,
    /// The key field of the record that it belongs to, if it belongs to one.
    pub(crate) key: Vec<u8>,
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn part(structure: Structure, range: Range<usize>, key: &[u8]) -> Part {
    Part { structure, range, key: key.to_vec() }
}

/// What lies where in a segment that nothing befell.
pub(crate) fn segment(bytes: &[u8]) -> Vec<Part> {
    let mut parts = vec![part(Structure::SegmentHeader, 0..32, b"")];
    assert_eq!(bytes[..12], *b"PLsegmnt\x01\0\0\0");
    let mut at = 32;
    while bytes.get(at..at + 4) == Some(b"PLrc") {
        let (end, record) = record(bytes, at);
        parts.extend(record);
        at = end.next_multiple_of(8);
    }
    if at < bytes.len() {
        let trailer = bytes.len() - 32;
        assert_eq!(bytes[trailer..trailer + 4], *b"PLft");
        let (rows, names_len) = (number(bytes, trailer + 4, 4), number(bytes, trailer + 8, 4));
        let first_row = at + names_len;
        parts.push(part(Structure::Names, at..first_row, b""));
        parts.extend(
            (0..rows).map(|row| part(Structure::Row, first_row + 96 * row..first_row + 96 * (row + 1), b"")),
        );
        let (first_base, bases) = (first_row + 96 * rows, number(bytes, trailer + 12, 4));
        let based = (0..rows).filter(|row| bytes[first_row + 96 * row + 63] & 8 != 0).count();
        assert_eq!((bases, first_base + 32 * bases), (based, trailer));
        parts.extend(
            (0..bases).map(|base| {
                part(Structure::RowBase, first_base + 32 * base..first_base + 32 * (base + 1), b"")
            }),
        );
        parts.push(part(Structure::Trailer, trailer..bytes.len(), b""));
    }
    parts
}

/// What lies where in a payload file that nothing befell.
pub(crate) fn payload_file(bytes: &[u8]) -> Vec<Part> {
    assert_eq!(bytes[..4], *b"PLrc");
    let (end, parts) = record(bytes, 0);
    assert_eq!(end, bytes.len());
    let payload = parts.last().unwrap();
    vec![
        part(Structure::FileHeader, 0..payload.range.start, &payload.key),
        part(Structure::FilePayload, payload.range.clone(), &payload.key),
    ]
}

/// The parts of the record at `at`, and where it ends.
fn record(bytes: &[u8], at: usize) -> (usize, Vec<Part>) {
    let (is_external, is_grouped, is_based) =
        (bytes[at + 5] & 1 != 0, bytes[at + 5] & 4 != 0, bytes[at + 5] & 8 != 0);
    let payload_len = if is_external { 32 } else { number(bytes, at + 12, 4) };
    let key_at = at + 64;
    let head_at = key_at + number(bytes, at + 6, 2);
    let payload_at = head_at + number(bytes, at + 8, 4);
    let end = payload_at + payload_len;
    let key = &bytes[key_at..head_at];
    let whole = |structure| (end, vec![part(structure, at..end, key)]);
    match bytes[at + 4] {
        1 => {}
        2 => return whole(Structure::Tombstone),
        3 => return whole(Structure::Clear),
        other => panic!("a record of type {other}"),
    }
    let (header, payload) = match is_external {
        true => (Structure::ExternalHeader, Structure::Reference),
        false => (Structure::InlineHeader, Structure::Payload),
    };
    let base_end = payload_at - if is_grouped { 4 } else { 0 };
    let base_at = base_end - if is_based { 32 } else { 0 };
    let mut parts = vec![
        part(header, at..key_at, key),
        part(Structure::Key, key_at..head_at, key),
        part(Structure::Head, head_at..base_at, key),
        part(payload, payload_at..end, key),
    ];
    if is_based {
        parts.insert(3, part(Structure::Base, base_at..base_end, key));
    }
    (end, parts)
}
