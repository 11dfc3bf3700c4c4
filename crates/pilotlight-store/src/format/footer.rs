//! What a sealed segment ends in: a row for each of its records.

use std::num::NonZeroU32;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    ALIGN, BASED, BaseRef, EXTERNAL, GROUP_LEN, PINNED, REF_LEN, REWRITTEN, Reader, RecordType, Ref,
};

/// Length of one row of a segment's footer, in bytes.
pub(crate) const ROW_LEN: usize = 96;
/// Length of the trailer that ends a sealed segment, in bytes.
pub(crate) const TRAILER_LEN: usize = 32;

const TRAILER_MAGIC: [u8; 4] = *b"PLft";

/// One row of a segment's footer: what the index needs to know of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) record_type: RecordType,
    /// The key's hash; of a [`RecordType::Clear`] 0, of a [`RecordType::Leave`] the group's number.
    pub(crate) hash: u128,
    pub(crate) seq: u64,
    pub(crate) expires_ms: u64,
    /// In the segment, in bytes.
    pub(crate) offset: u64,
    /// In the segment, in bytes.
    pub(crate) record_len: u32,
    pub(crate) payload_len: u32,
    pub(crate) logical_len: u32,
    pub(crate) cost_ms: u32,
    pub(crate) created_ms: u64,
    /// Index into the footer's spaces; in memory, the store's number of the space.
    pub(crate) space: u16,
    pub(crate) is_pinned: bool,
    pub(crate) group: Option<NonZeroU32>,
    pub(crate) reference: Option<Ref>,
    pub(crate) base: Option<BaseRef>,
    pub(crate) is_rewritten: bool,
}

/// The footer that a sealed segment ends in: its rows, the names of the spaces they speak of, and the bases of those that
/// have one.
pub(crate) fn encode_footer(rows: &[Row], spaces: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * ROW_LEN + TRAILER_LEN + 256);
    for space in spaces {
        bytes.push(u8::try_from(space.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(space);
    }
    let spaces_len = bytes.len();
    for row in rows {
        let end = bytes.len() + ROW_LEN;
        bytes.extend_from_slice(&row.hash.to_le_bytes());
        bytes.extend_from_slice(&row.seq.to_le_bytes());
        bytes.extend_from_slice(&row.expires_ms.to_le_bytes());
        bytes.extend_from_slice(&row.created_ms.to_le_bytes());
        bytes.extend_from_slice(&((row.offset / ALIGN) as u32).to_le_bytes());
        bytes.extend_from_slice(&row.record_len.to_le_bytes());
        bytes.extend_from_slice(&row.payload_len.to_le_bytes());
        bytes.extend_from_slice(&row.logical_len.to_le_bytes());
        bytes.extend_from_slice(&row.cost_ms.to_le_bytes());
        bytes.extend_from_slice(&row.space.to_le_bytes());
        bytes.push(row.record_type.number());
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        bytes.push(
            flag(row.reference.is_some(), EXTERNAL)
                | flag(row.is_pinned, PINNED)
                | flag(row.base.is_some(), BASED)
                | flag(row.is_rewritten, REWRITTEN),
        );
        let reference = row.reference.as_ref().map_or([0; REF_LEN], Ref::encode);
        // The last bytes of a reference are not in use.
        bytes.extend_from_slice(reference.split_at(REF_LEN - GROUP_LEN).0);
        bytes.extend_from_slice(&row.group.map_or(0, NonZeroU32::get).to_le_bytes());
        debug_assert_eq!(bytes.len(), end, "a row has its length");
    }
    let bases = rows.iter().filter_map(|row| row.base.as_ref());
    let bases_len = bytes.len();
    bases.for_each(|base| bytes.extend_from_slice(&base.encode()));
    let bases_count = (bytes.len() - bases_len) / REF_LEN;
    let mut trailer = Vec::with_capacity(TRAILER_LEN);
    trailer.extend_from_slice(&TRAILER_MAGIC);
    trailer.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    trailer.extend_from_slice(&(spaces_len as u32).to_le_bytes());
    trailer.extend_from_slice(&(bases_count as u32).to_le_bytes());
    trailer.extend_from_slice(&xxh3_64_with_seed(&bytes, seed).to_le_bytes());
    let check = xxh3_64_with_seed(&trailer, seed);
    trailer.extend_from_slice(&check.to_le_bytes());
    bytes.append(&mut trailer);
    bytes
}

/// How long a footer is, by its trailer; `None` when the bytes are no trailer.
pub(crate) fn footer_len(trailer: &[u8], seed: u64) -> Option<u64> {
    let mut reader = Reader(trailer);
    if reader.take(4)? != TRAILER_MAGIC {
        return None;
    }
    let rows = u64::from(reader.u32()?);
    let spaces_len = u64::from(reader.u32()?);
    let bases = u64::from(reader.u32()?);
    reader.u64()?;
    let expected = reader.u64()?;
    (xxh3_64_with_seed(trailer.get(..TRAILER_LEN - 8)?, seed) == expected)
        .then_some(rows * ROW_LEN as u64 + spaces_len + bases * REF_LEN as u64 + TRAILER_LEN as u64)
}

/// Rows and spaces of a whole footer, checked.
pub(crate) fn decode_footer(footer: &[u8], seed: u64) -> Option<(Vec<Row>, Vec<Vec<u8>>)> {
    let (body, trailer) = footer.split_at_checked(footer.len().checked_sub(TRAILER_LEN)?)?;
    let mut reader = Reader(trailer.get(4..)?);
    let row_count = reader.u32()? as usize;
    let spaces_len = reader.u32()? as usize;
    let bases_len = reader.u32()? as usize * REF_LEN;
    if xxh3_64_with_seed(body, seed) != reader.u64()? {
        return None;
    }
    let (names, rows) = body.split_at_checked(spaces_len)?;
    let mut spaces = Vec::new();
    let mut reader = Reader(names);
    while !reader.0.is_empty() {
        let len = usize::from(reader.u8()?);
        spaces.push(reader.take(len)?.to_vec());
    }
    let (rows, bases) = rows.split_at_checked(rows.len().checked_sub(bases_len)?)?;
    let mut bases = bases.chunks_exact(REF_LEN).map(BaseRef::decode);
    let decode = |bytes| decode_row(bytes, &mut bases);
    let rows = rows.chunks_exact(ROW_LEN).map(decode).collect::<Option<Vec<_>>>()?;
    (rows.len() == row_count).then_some((rows, spaces))
}

/// A row, and the base it takes from `bases` if it has one.
fn decode_row(bytes: &[u8], bases: &mut impl Iterator<Item = Option<BaseRef>>) -> Option<Row> {
    let mut reader = Reader(bytes);
    let mut row = Row {
        record_type: RecordType::Put,
        hash: reader.u128()?,
        seq: reader.u64()?,
        expires_ms: reader.u64()?,
        created_ms: reader.u64()?,
        offset: u64::from(reader.u32()?) * ALIGN,
        record_len: reader.u32()?,
        payload_len: reader.u32()?,
        logical_len: reader.u32()?,
        cost_ms: reader.u32()?,
        space: reader.u16()?,
        is_pinned: false,
        group: None,
        reference: None,
        base: None,
        is_rewritten: false,
    };
    row.record_type = RecordType::from_number(reader.u8()?)?;
    let flags = reader.u8()?;
    row.is_pinned = flags & PINNED != 0;
    row.is_rewritten = flags & REWRITTEN != 0;
    if flags & BASED != 0 {
        row.base = Some(bases.next()??);
    }
    let reference = reader.take(REF_LEN - GROUP_LEN)?;
    if flags & EXTERNAL != 0 {
        row.reference = Some(Ref::decode(reference)?);
    }
    row.group = NonZeroU32::new(reader.u32()?);
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_decodes_to_what_was_encoded_and_any_flipped_bit_is_noticed() {
        let row = Row {
            record_type: RecordType::Put,
            hash: 1 << 100,
            seq: 2,
            expires_ms: 3,
            offset: 32,
            record_len: 80,
            payload_len: 5,
            logical_len: 6,
            cost_ms: 7,
            created_ms: 8,
            space: 1,
            is_pinned: true,
            group: NonZeroU32::new(12),
            reference: Some(Ref { digest: 9, generation: 10, payload_offset: 11 }),
            base: None,
            is_rewritten: false,
        };
        let bare = Row { is_pinned: false, group: None, reference: None, ..row.clone() };
        let base = |digest| {
            Some(BaseRef { reference: Ref { digest, generation: 14, payload_offset: 15 }, payload_len: 16 })
        };
        let based = Row { base: base(13), is_rewritten: true, ..row.clone() };
        let rows = vec![
            based,
            row,
            Row { record_type: RecordType::Tombstone, ..bare.clone() },
            Row { base: base(17), ..bare.clone() },
            bare,
        ];
        let spaces = vec![vec![], b"db1".to_vec()];
        let footer = encode_footer(&rows, &spaces, 42);
        let trailer = &footer[footer.len() - TRAILER_LEN..];
        assert_eq!(footer_len(trailer, 42), Some(footer.len() as u64));
        assert_eq!(decode_footer(&footer, 42), Some((rows, spaces)));
        for bit in 0..footer.len() * 8 {
            let mut damaged = footer.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let trailer = &damaged[footer.len() - TRAILER_LEN..];
            let is_noticed = footer_len(trailer, 42).is_none() || decode_footer(&damaged, 42).is_none();
            assert!(is_noticed, "bit {bit}");
        }
    }
}
