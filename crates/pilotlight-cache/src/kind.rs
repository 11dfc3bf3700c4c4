//! What sort of artifact a key names, for metrics and policy.

use std::fmt;

/// The sort of artifact, derived from the key alone. See [`Kind::of_key`] for how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Inductor's compiled graph (`fx-graph-v1`).
    FxGraph = 0,
    /// AOTAutograd's forward and backward (`autograd-experimental`).
    AotAutograd = 1,
    /// The best configuration of one Triton kernel.
    Autotune = 2,
    /// The best configurations of a whole graph (`bundled-autotune-v1`).
    BundledAutotune = 3,
    /// Dynamo's dynamic-shape profile (`dynamo-pgo`).
    Pgo = 4,
    /// A compiled C++ kernel.
    CppKernel = 5,
    /// A file of Triton's own cache.
    Triton = 6,
    /// Anything else: Pilotlight answers it exactly as Redis would.
    Other = 7,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::FxGraph,
        Self::AotAutograd,
        Self::Autotune,
        Self::BundledAutotune,
        Self::Pgo,
        Self::CppKernel,
        Self::Triton,
        Self::Other,
    ];

    /// Derives the kind from a key.
    ///
    /// PyTorch writes `pt2:{cache id}::{key}:c1` (`torch/_inductor/remote_cache.py`, torch 2.6 to 2.15); the per-kernel
    /// autotune cache uses a SHA-256 as its cache id (`torch/_inductor/runtime/autotune_cache.py`). Triton writes
    /// `triton:{key}:{file}` (`TRITON_REDIS_KEY_FORMAT`), Pilotlight's plug-in `cpp-kernel:{key}`.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        if let Some(rest) = key.strip_prefix(b"pt2:") {
            let id_len = rest.iter().position(|&byte| byte == b':').unwrap_or(rest.len());
            let (id, tail) = rest.split_at(id_len);
            if !tail.starts_with(b"::") {
                return Self::Other;
            }
            return match id {
                b"fx-graph-v1" => Self::FxGraph,
                b"autograd-experimental" => Self::AotAutograd,
                b"bundled-autotune-v1" => Self::BundledAutotune,
                b"dynamo-pgo" => Self::Pgo,
                _ if id.len() == 64 && id.iter().all(u8::is_ascii_hexdigit) => Self::Autotune,
                _ => Self::Other,
            };
        }
        if key.starts_with(b"triton:") {
            return Self::Triton;
        }
        if key.starts_with(b"cpp-kernel:") {
            return Self::CppKernel;
        }
        Self::Other
    }

    /// Whether a compiler waits behind this key, so that an error must become a miss or a refused put: stock PyTorch
    /// crashes the user's compile on any error reply to a `SET`.
    #[must_use]
    pub fn is_compile_cache(self) -> bool {
        self != Self::Other
    }

    /// Whether who misses it may be asked to wait for another's compile. Never AOTAutograd's: theirs are put after the backward, by
    /// when a distributed job may long wait for whoever waits here.
    #[must_use]
    pub fn is_leasable(self) -> bool {
        matches!(self, Self::FxGraph | Self::CppKernel)
    }

    /// The name used in metrics, logs and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FxGraph => "fx-graph",
            Self::AotAutograd => "aot-autograd",
            Self::Autotune => "autotune",
            Self::BundledAutotune => "bundled-autotune",
            Self::Pgo => "pgo",
            Self::CppKernel => "cpp-kernel",
            Self::Triton => "triton",
            Self::Other => "other",
        }
    }

    /// The number used in envelopes and as an index into per-kind counters.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The kind with this number; an unknown one, written by a later version, is [`Kind::Other`].
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Other)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_is_derived_from_the_keys_torch_and_triton_write() {
        let hex = "0123456789abcdef".repeat(4);
        for (key, expected) in [
            ("pt2:fx-graph-v1::fabc:c1".to_owned(), Kind::FxGraph),
            // What the client keeps beside an entry is of the entry's kind.
            ("pt2:fx-graph-v1::fabc:c1#v".to_owned(), Kind::FxGraph),
            ("pt2:fx-graph-v1::fabc:c1#v0123456789abcdef".to_owned(), Kind::FxGraph),
            ("cpp-kernel:abc#v".to_owned(), Kind::CppKernel),
            ("pt2:autograd-experimental::aabc:c1".to_owned(), Kind::AotAutograd),
            (format!("pt2:{hex}::{hex}:c1"), Kind::Autotune),
            ("pt2:bundled-autotune-v1::0f:c1".to_owned(), Kind::BundledAutotune),
            ("pt2:dynamo-pgo::job1:None::c1".to_owned(), Kind::Pgo),
            ("triton:ABC:kernel.cubin".to_owned(), Kind::Triton),
            ("cpp-kernel:abc".to_owned(), Kind::CppKernel),
            ("pt2:fx-graph-v1".to_owned(), Kind::Other),
            ("pt2:unknown::x".to_owned(), Kind::Other),
            (String::new(), Kind::Other),
        ] {
            assert_eq!(Kind::of_key(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn numbers_are_stable_because_envelopes_hold_them() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), number);
            assert_eq!(Kind::from_number(kind.number()), kind);
        }
    }
}
