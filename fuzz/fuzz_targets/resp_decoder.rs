//! Any split of a stream decodes to the same requests, and to the same error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotlight_server::fuzzing::decode;

fuzz_target!(|input: (bool, Vec<u8>, &[u8])| {
    let (is_authenticated, cuts, bytes) = input;
    let whole = decode([bytes], is_authenticated);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(decode(pieces, is_authenticated), whole);
    assert_eq!(decode(bytes.chunks(1), is_authenticated), whole);
});
