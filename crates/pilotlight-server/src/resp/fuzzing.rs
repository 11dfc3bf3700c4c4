//! What fuzz targets reach and nobody else does: built with `--cfg fuzzing` alone.

use bytes::{BufMut, Bytes};

use super::decode::{Decoder, Limits};
use super::table::COMMANDS;

/// What a stream decoded to: requests, each with the length of what was too long in it, and the error that ended it.
pub type Decoded = (Vec<(Vec<Bytes>, Option<String>)>, Option<String>);

/// Everything that `pieces`, one after the other, decode to. Long bulks are read as a connection reads them.
///
/// # Panics
/// When input is left behind.
pub fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, is_authenticated: bool) -> Decoded {
    let mut decoder = Decoder::new(Limits { bulk_len_max: 1 << 18, protocol_bulk_len_max: 1 << 19 });
    let mut requests = Vec::new();
    for mut piece in pieces {
        if let Some(mut buffer) = decoder.bulk_buffer() {
            let (direct, rest) = piece.split_at(piece.len().min(buffer.remaining_mut()));
            buffer.put_slice(direct);
            decoder.bulk_advanced(direct.len());
            piece = rest;
        }
        // Once more when it is used up: a bulk that was read directly may be whole.
        loop {
            match decoder.decode(&mut piece, is_authenticated) {
                Ok(Some(request)) => {
                    requests.push((request.args, request.dropped.map(|dropped| format!("{dropped:?}"))))
                }
                Ok(None) if piece.is_empty() => break,
                Ok(None) => panic!("the decoder keeps what it cannot decode yet"),
                Err(error) => return (requests, Some(error.to_string())),
            }
        }
    }
    (requests, None)
}

/// The names of all commands.
#[must_use]
pub fn command_names() -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).collect()
}
