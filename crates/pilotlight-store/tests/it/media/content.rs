use std::sync::Arc;

/// What is copied when one copy of a file changes, and what reaches a medium on its own.
pub(crate) const BLOCK: usize = 4096;

/// A file's bytes. A copy costs a pointer a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    blocks: Vec<Arc<[u8; BLOCK]>>,
    len: usize,
}

impl Content {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        if len < self.len && !len.is_multiple_of(BLOCK) {
            // What is cut off reads as zeros if the file grows again.
            Arc::make_mut(&mut self.blocks[len / BLOCK])[len % BLOCK..].fill(0);
        }
        self.blocks.resize_with(len.div_ceil(BLOCK), || Arc::new([0; BLOCK]));
        self.len = len;
    }

    pub(crate) fn write(&mut self, bytes: &[u8], offset: usize) {
        if self.len < offset + bytes.len() {
            self.set_len(offset + bytes.len());
        }
        for (at, bytes) in pieces(bytes, offset, BLOCK) {
            let block = Arc::make_mut(&mut self.blocks[at / BLOCK]);
            block[at % BLOCK..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Fills `buffer` from `offset` on, if there is that much.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: usize) -> bool {
        if offset + buffer.len() > self.len {
            return false;
        }
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let len = rest.len().min(BLOCK - at % BLOCK);
            let (into, behind) = rest.split_at_mut(len);
            into.copy_from_slice(&self.blocks[at / BLOCK][at % BLOCK..][..len]);
            rest = behind;
            at += len;
        }
        true
    }
}

/// `bytes`, which lie at `offset`, in pieces that do not cross multiples of `size`, each with where it lies.
pub(crate) fn pieces(bytes: &[u8], offset: usize, size: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = offset;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (piece, behind) = rest.split_at(rest.len().min(size - at % size));
        let from = at;
        at += piece.len();
        rest = behind;
        (!piece.is_empty()).then_some((from, piece))
    })
}

#[test]
fn a_file_reads_as_it_was_written_and_cut() {
    let mut content = Content::default();
    content.write(&[1; 5000], 3000);
    content.set_len(4000);
    content.write(&[2; 10], 9000);
    let mut found = vec![9; 9010];
    assert!(content.read(&mut found, 0) && !content.read(&mut [0], 9010));
    let expected = [vec![0; 3000], vec![1; 1000], vec![0; 5000], vec![2; 10]].concat();
    assert_eq!(found, expected);
}
