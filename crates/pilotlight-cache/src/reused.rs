//! Buffers for long artifacts, used again.

use std::cell::Cell;

/// A buffer that the thread which drops it keeps for the next one who needs as much. An allocator gives a megabyte back to the
/// system as soon as it is free, and to get it again, page by page, takes longer than to fill it.
///
/// Kept by threads and not in common: a lock in a client could be held for ever in a forked child.
#[derive(Debug, Default)]
pub(crate) struct Reused(Vec<u8>);

/// A longer buffer is given back, in bytes.
const KEPT_LEN_MAX: usize = 4 << 20;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Reused {
    /// A buffer with room for `len` bytes, and what its last user left in it.
    pub(crate) fn for_len(len: usize) -> Self {
        // A thread that is ending has none.
        let kept = KEPT.try_with(Cell::take).unwrap_or_default();
        if (len..=len + len / 8).contains(&kept.capacity()) {
            return Self(kept);
        }
        keep(kept);
        Self(Vec::with_capacity(len))
    }

    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Reused {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Reused {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.0));
    }
}

/// Keeps the longer of this buffer and the one kept already: short ones the allocator keeps itself.
fn keep(buffer: Vec<u8>) {
    if buffer.capacity() > KEPT_LEN_MAX {
        return;
    }
    let _ = KEPT.try_with(|kept| {
        let other = kept.take();
        kept.set(if other.capacity() < buffer.capacity() { buffer } else { other });
    });
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn filled(byte: u8, len: usize) -> Bytes {
        let mut reused = Reused::for_len(len);
        reused.buffer().clear();
        reused.buffer().resize(len, byte);
        Bytes::from_owner(reused)
    }

    #[test]
    fn a_buffer_serves_one_after_the_other_and_never_two_at_a_time() {
        let first = filled(1, 1 << 20);
        let place = first.as_ptr();
        let second = filled(2, 1 << 20);
        assert_ne!(second.as_ptr(), place);
        drop(first);
        let third = filled(3, 1 << 20);
        assert_eq!(third.as_ptr(), place);
        assert!(second.iter().all(|byte| *byte == 2) && third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn a_short_artifact_does_not_hold_a_long_buffer_and_no_thread_keeps_a_huge_one() {
        let long = filled(1, 1 << 20);
        let place = long.as_ptr();
        drop(long);
        let short = Reused::for_len(5000);
        assert!(short.0.capacity() <= 6000);
        drop(short);
        assert_eq!(filled(2, 1 << 20).as_ptr(), place, "the longer one is kept");
        drop(filled(3, KEPT_LEN_MAX + 1));
        assert!(KEPT.take().capacity() <= KEPT_LEN_MAX);
    }
}
