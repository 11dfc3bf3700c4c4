//! Which group of the store's an entry is put into.

use std::num::NonZeroU32;

use pilotlight_store::SHARED;

use crate::{Key, Kind};

/// The group of the entry under `key`, where the key tells: Triton's files of one kernel, whose keys differ in their last part only.
pub(crate) fn group(key: &Key) -> Option<NonZeroU32> {
    if key.kind() != Kind::Triton {
        return None;
    }
    let kernel_len = key.bytes().iter().rposition(|byte| *byte == b':')?;
    let kernel = key.bytes().get(..kernel_len)?;
    group_of(kernel)
}

/// The group that `name` stands for. Of 64 bits that end in zeros or ones only, twice in four billion, there is none.
pub(super) fn group_of(name: &[u8]) -> Option<NonZeroU32> {
    NonZeroU32::new(xxhash_rust::xxh3::xxh3_64(name) as u32).filter(|group| *group != SHARED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triton_files_of_one_kernel_are_a_group_and_nothing_else_is() {
        let group = |key: &'static str| group(&Key::new(key));
        assert!(group("triton:abc:__grp__k.json").is_some());
        assert_eq!(group("triton:abc:__grp__k.json"), group("triton:abc:k.cubin"));
        assert_ne!(group("triton:abc:k.cubin"), group("triton:abd:k.cubin"));
        assert_eq!((group("pt2:fx-graph-v1::f:c1"), group("a:b:c")), (None, None));
    }
}
