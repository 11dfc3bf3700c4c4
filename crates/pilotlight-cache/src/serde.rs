//! Objects to bytes and back, on the client's side of the cache.

use bytes::Bytes;
use serde_json::Value;

use crate::{Error, Result, Verified};

/// Turns objects into artifact bytes and back.
///
/// `decode` takes [`Verified`] bytes only: see there.
pub trait Serde: Send + Sync {
    /// What the cache's user holds.
    type Object;

    /// The bytes to put.
    ///
    /// # Errors
    /// `Invalid` for an object that may not be put.
    fn encode(&self, object: &Self::Object) -> Result<Bytes>;

    /// The object that was put.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are no such object.
    fn decode(&self, artifact: Verified) -> Result<Self::Object>;
}

/// JSON text, as PyTorch's `RemoteCacheJsonSerde` writes it: ASCII, a blank after `,` and `:`.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonSerde;

impl Serde for JsonSerde {
    type Object = Value;

    fn encode(&self, object: &Value) -> Result<Bytes> {
        // PyTorch's `put` asserts that the value is not None: a reader could not tell it from a miss.
        if object.is_null() {
            return Err(Error::Invalid { what: "a null object cannot be told from a miss".to_owned() });
        }
        let mut text = Vec::new();
        let mut writer = serde_json::Serializer::with_formatter(&mut text, PythonFormat);
        serde::Serialize::serialize(object, &mut writer)
            .map_err(|error| Error::Invalid { what: format!("object is not JSON: {error}") })?;
        Ok(text.into())
    }

    fn decode(&self, artifact: Verified) -> Result<Value> {
        serde_json::from_slice(&artifact)
            .map_err(|error| Error::Corrupt { what: format!("not JSON: {error}") })
    }
}

/// Bytes as they are, as PyTorch's `RemoteCachePassthroughSerde`.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassthroughSerde;

impl Serde for PassthroughSerde {
    type Object = Bytes;

    fn encode(&self, object: &Bytes) -> Result<Bytes> {
        Ok(object.clone())
    }

    fn decode(&self, artifact: Verified) -> Result<Bytes> {
        Ok(artifact.into_bytes())
    }
}

/// The separators and escapes of Python's `json.dumps`.
struct PythonFormat;

impl serde_json::ser::Formatter for PythonFormat {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        for character in fragment.chars() {
            // Python escapes DEL too only from 3.14 on; ASCII passes unchanged in both.
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        let text = JsonSerde.encode(&json!({"data": "é😀\n", "time_taken_ms": [1, 2.5, null]})).unwrap();
        assert_eq!(
            String::from_utf8(text.to_vec()).unwrap(),
            r#"{"data": "\u00e9\ud83d\ude00\n", "time_taken_ms": [1, 2.5, null]}"#
        );
    }

    #[test]
    fn a_null_object_is_refused() {
        assert_eq!(JsonSerde.encode(&Value::Null).unwrap_err().kind(), crate::ErrorKind::Invalid);
    }

    #[test]
    fn text_that_is_not_json_is_corrupt() {
        let bytes = Verified::from_producer(Bytes::from_static(b"{"));
        assert_eq!(JsonSerde.decode(bytes).unwrap_err().kind(), crate::ErrorKind::Corrupt);
    }
}
