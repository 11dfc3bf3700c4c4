//! The head's bytes. Nothing else knows an offset.

use xxhash_rust::xxh3::xxh3_64;

use super::Codec;
use super::recast::Frame;
use super::signature::{ID_LEN, SIGNATURE_LEN, SignedHead};
use crate::{Details, Digest, Error, Namespace, Result};

const MAGIC: [u8; 4] = *b"PLEv";
const VERSION: u8 = 1;
const FIXED_LEN: usize = 80;
const CODEC_AT: usize = 5;
const FLAGS_AT: usize = 7;
const FIELDS_LEN_AT: usize = 8;
const PAYLOAD_LEN_AT: usize = 16;
const CHECK_AT: usize = 72;
const SHAPE_PLAIN: u8 = 0;
const SHAPE_TORCH_JSON: u8 = 1;
const FLAG_SIGNED: u8 = 1;
/// What stands behind the fields of a signed head: [`MARK_LEN`] bytes that say whose signature it is, then that.
const TRAILER_LEN: usize = MARK_LEN + SIGNATURE_LEN;
/// Algorithm, reserved, key id.
const MARK_LEN: usize = 32;
const RESERVED_LEN: usize = MARK_LEN - 1 - ID_LEN;

mod tag {
    pub(super) const PRODUCER: u16 = 1;
    pub(super) const FINGERPRINT: u16 = 2;
    pub(super) const COMPONENTS: u16 = 3;
    pub(super) const VARIANT: u16 = 4;
    pub(super) const BEFORE: u16 = 5;
    pub(super) const AFTER: u16 = 6;
    pub(super) const NAMESPACE: u16 = 7;
}

/// A head's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) codec: Codec,
    pub(super) artifact_len: u64,
    pub(super) payload_len: u64,
    pub(super) digest: Digest,
    pub(super) created_ms: u64,
    pub(super) compile_ms: u32,
    pub(super) details: Details,
    /// Present in the shape of PyTorch's JSON.
    pub(super) frame: Option<Frame>,
    /// Present in a signed head: what its signer calls its namespace.
    pub(super) signed_for: Option<Namespace>,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = self.encode_fields();
        let mut bytes = Vec::with_capacity(FIXED_LEN + fields.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(self.codec as u8);
        bytes.push(if self.frame.is_some() { SHAPE_TORCH_JSON } else { SHAPE_PLAIN });
        bytes.push(0);
        bytes.extend_from_slice(&(fields.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.compile_ms.to_le_bytes());
        bytes.extend_from_slice(&self.payload_len.to_le_bytes());
        bytes.extend_from_slice(&self.artifact_len.to_le_bytes());
        bytes.extend_from_slice(self.digest.as_bytes());
        bytes.extend_from_slice(&self.created_ms.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&fields);
        renew_check(&mut bytes);
        bytes
    }

    fn encode_fields(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        let mut put = |tag: u16, value: &[u8]| {
            fields.extend_from_slice(&tag.to_le_bytes());
            fields.extend_from_slice(&(value.len() as u32).to_le_bytes());
            fields.extend_from_slice(value);
        };
        if let Some(producer) = &self.details.producer {
            put(tag::PRODUCER, producer.as_bytes());
        }
        if let Some(fingerprint) = &self.details.fingerprint {
            put(tag::FINGERPRINT, fingerprint);
        }
        if !self.details.components.is_empty() {
            let pairs = &self.details.components;
            let bytes: Vec<u8> = pairs
                .iter()
                .flat_map(|(name, value)| [name.to_le_bytes(), value.to_le_bytes()])
                .flatten()
                .collect();
            put(tag::COMPONENTS, &bytes);
        }
        if let Some(variant) = self.details.variant {
            put(tag::VARIANT, &variant.to_le_bytes());
        }
        if let Some(frame) = &self.frame {
            put(tag::BEFORE, &frame.before);
            put(tag::AFTER, &frame.after);
        }
        fields
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::Corrupt { what: format!("envelope: {what}") };
        let (fixed, rest) =
            bytes.split_at_checked(FIXED_LEN).ok_or_else(|| corrupt("shorter than a head"))?;
        let mut reader = Reader(fixed);
        let is_ours = reader.array() == Some(MAGIC);
        let version = reader.u8().filter(|_| is_ours).ok_or_else(|| corrupt("no magic"))?;
        if version != VERSION {
            return Err(Error::Unsupported {
                what: format!("envelope version {version}, expected {VERSION}"),
            });
        }
        let mut parse = || -> Option<(Self, u8, u8, usize, u64)> {
            let codec = Codec::from_number(reader.u8()?)?;
            let (shape, flags) = (reader.u8()?, reader.u8()?);
            let fields_len = reader.u32()? as usize;
            let compile_ms = reader.u32()?;
            let (payload_len, artifact_len) = (reader.u64()?, reader.u64()?);
            let digest = Digest::from_bytes(reader.array()?);
            let created_ms = reader.u64()?;
            let details = Details::default();
            let head = Self {
                codec,
                artifact_len,
                payload_len,
                digest,
                created_ms,
                compile_ms,
                details,
                frame: None,
                signed_for: None,
            };
            Some((head, shape, flags, fields_len, reader.u64()?))
        };
        let (mut head, shape, flags, fields_len, expected) =
            parse().ok_or_else(|| corrupt("unknown codec"))?;
        if check(bytes) != expected {
            return Err(corrupt("its head fails the check"));
        }
        let is_signed = flags & FLAG_SIGNED != 0;
        let trailer_len = if is_signed { TRAILER_LEN } else { 0 };
        if rest.len() != fields_len + trailer_len || shape > SHAPE_TORCH_JSON {
            return Err(corrupt("lengths do not add up"));
        }
        let frame = head
            .decode_fields(rest.get(..fields_len).unwrap_or_default())
            .ok_or_else(|| corrupt("a field is cut off"))?;
        head.frame = (shape == SHAPE_TORCH_JSON).then_some(frame);
        head.signed_for = is_signed.then(|| head.signed_for.unwrap_or_default());
        Ok(head)
    }

    fn decode_fields(&mut self, fields: &[u8]) -> Option<Frame> {
        let mut frame = Frame::default();
        let mut reader = Reader(fields);
        while !reader.0.is_empty() {
            let (number, len) = (reader.u16()?, reader.u32()?);
            let value = reader.take(len as usize)?;
            match number {
                tag::PRODUCER => self.details.producer = Some(String::from_utf8_lossy(value).into_owned()),
                tag::FINGERPRINT => self.details.fingerprint = Some(value.try_into().ok()?),
                tag::COMPONENTS => {
                    let mut pairs = Reader(value);
                    while !pairs.0.is_empty() {
                        self.details.components.push((pairs.u64()?, pairs.u64()?));
                    }
                }
                tag::VARIANT => self.details.variant = Some(u64::from_le_bytes(value.try_into().ok()?)),
                tag::BEFORE => frame.before = value.to_vec(),
                tag::AFTER => frame.after = value.to_vec(),
                tag::NAMESPACE => {
                    self.signed_for = Some(Namespace::new(std::str::from_utf8(value).ok()?).ok()?);
                }
                _ => {}
            }
        }
        Some(frame)
    }
}

/// The same head for a payload in another form. What a signature is over stays, and so does what only later versions know.
pub(super) fn for_payload(head: &[u8], codec: Codec, payload_len: u64) -> Vec<u8> {
    let mut bytes = head.to_vec();
    put(&mut bytes, CODEC_AT, &[codec as u8]);
    put(&mut bytes, PAYLOAD_LEN_AT, &payload_len.to_le_bytes());
    renew_check(&mut bytes);
    bytes
}

/// The same head, signed: with the namespace as its last field, and what `sign` makes of what is signed behind it. `None` for one
/// that is signed already, or is none.
pub(super) fn signed(
    head: &[u8],
    namespace: &Namespace,
    algorithm: u8,
    key_id: [u8; ID_LEN],
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
) -> Option<Vec<u8>> {
    let flags = *head.get(FLAGS_AT)?;
    if flags & FLAG_SIGNED != 0 || head.len() < FIXED_LEN {
        return None;
    }
    let name = namespace.as_str().as_bytes();
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&tag::NAMESPACE.to_le_bytes());
    bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(name);
    let fields_len = (bytes.len() - FIXED_LEN) as u32;
    put(&mut bytes, FIELDS_LEN_AT, &fields_len.to_le_bytes());
    put(&mut bytes, FLAGS_AT, &[flags | FLAG_SIGNED]);
    bytes.push(algorithm);
    bytes.extend_from_slice(&[0; RESERVED_LEN]);
    bytes.extend_from_slice(&key_id);
    let signature = sign(&without_form(&bytes));
    bytes.extend_from_slice(&signature);
    renew_check(&mut bytes);
    Some(bytes)
}

/// The signature on a head, once all else of that is checked; `None` on one without.
pub(super) fn signature(head: &[u8]) -> Result<Option<SignedHead>> {
    let Head { signed_for, .. } = Head::decode(head)?;
    let Some(namespace) = signed_for else { return Ok(None) };
    let parsed = || {
        let (signed, signature) = head.split_at_checked(head.len().checked_sub(SIGNATURE_LEN)?)?;
        let (_, mark) = signed.split_at_checked(signed.len().checked_sub(MARK_LEN)?)?;
        let mut mark = Reader(mark);
        let algorithm = mark.u8()?;
        mark.take(RESERVED_LEN)?;
        let (key_id, signature) = (mark.array()?, signature.try_into().ok()?);
        Some(SignedHead { namespace, algorithm, key_id, signature, signed: without_form(signed) })
    };
    let corrupt = || Error::Corrupt { what: "envelope: its signature is cut off".to_owned() };
    parsed().map(Some).ok_or_else(corrupt)
}

/// A head up to its signature without what changes when the payload takes another form.
fn without_form(head: &[u8]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    put(&mut bytes, CODEC_AT, &[0]);
    put(&mut bytes, PAYLOAD_LEN_AT, &[0; 8]);
    put(&mut bytes, CHECK_AT, &[0; 8]);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn renew_check(bytes: &mut [u8]) {
    put(bytes, CHECK_AT, &[0; 8]);
    let check = xxh3_64(bytes).to_le_bytes();
    put(bytes, CHECK_AT, &check);
}

/// How long the head is that `bytes` begin with; `None` if they begin with none.
pub(super) fn len(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader(bytes);
    (reader.array() == Some(MAGIC)).then_some(())?;
    reader.take(FLAGS_AT - MAGIC.len())?;
    let trailer_len = if reader.u8()? & FLAG_SIGNED == 0 { 0 } else { TRAILER_LEN };
    Some(FIXED_LEN + reader.u32()? as usize + trailer_len)
}

fn check(head: &[u8]) -> u64 {
    let mut zeroed = head.to_vec();
    if let Some(place) = zeroed.get_mut(CHECK_AT..CHECK_AT + 8) {
        place.fill(0);
    }
    xxh3_64(&zeroed)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
