//! What an entry is called: a [`Key`] in a [`Namespace`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::Kind;

/// The longest key, in bytes. Redis allows 512 MiB; no compiler comes near this, and a bound keeps scans cheap.
pub const KEY_LEN_MAX: usize = 16 * 1024;

/// The longest namespace name, in bytes: its length is one byte on disk.
pub const NAMESPACE_LEN_MAX: usize = 255;

/// Behind a key: where our client lists the key's variants.
pub(crate) const VARIANTS_SUFFIX: &[u8] = b"#v";

/// A tenant: entries of one namespace are invisible in every other. The default namespace is the empty one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Namespace(Option<Arc<str>>);

impl Namespace {
    /// The namespace called `name`; the empty name is the default namespace.
    ///
    /// # Errors
    /// [`crate::Error`] of kind `Invalid` when the name is longer than [`NAMESPACE_LEN_MAX`].
    pub fn new(name: &str) -> crate::Result<Self> {
        if name.len() > NAMESPACE_LEN_MAX {
            return Err(crate::Error::Invalid {
                what: format!("namespace of {} bytes, expected at most {NAMESPACE_LEN_MAX}", name.len()),
            });
        }
        Ok(Self(if name.is_empty() { None } else { Some(Arc::from(name)) }))
    }

    /// The namespace that Redis' database `number` stands for: 0 is the default one.
    #[must_use]
    pub fn database(number: u16) -> Self {
        Self(if number == 0 { None } else { Some(Arc::from(format!("db{number}"))) })
    }

    /// The name, empty for the default namespace.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({:?})", self.as_str())
    }
}

/// Bytes chosen by the client, opaque to backends, with the kind derived from them once.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    namespace: Namespace,
    bytes: Bytes,
    kind: Kind,
}

impl Key {
    /// A key in the default namespace.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self::in_namespace(Namespace::default(), bytes)
    }

    /// A key in `namespace`.
    pub fn in_namespace(namespace: Namespace, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let kind = Kind::of_key(&bytes);
        Self { namespace, bytes, kind }
    }

    /// The namespace the key lives in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The client's bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What sort of artifact the key names.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether our client lists a key's variants here. It asks for that beside the key itself, so it is no lookup of its own,
    /// and mostly absent: counted, it would halve every hit rate.
    pub(crate) fn is_list_of_variants(&self) -> bool {
        self.kind.is_compile_cache() && self.bytes.ends_with(VARIANTS_SUFFIX)
    }

    /// A short hash for logs and samples: logs name keys by it, since a client may put anything into a key.
    #[must_use]
    pub fn log_hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(&self.bytes, self.namespace.as_str().len() as u64)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}", self.bytes)?;
        if self.namespace != Namespace::default() {
            write!(f, " in {:?}", self.namespace.as_str())?;
        }
        f.write_str(")")
    }
}
