use bytes::BufMut;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { bulk_len_max: 100_000, protocol_bulk_len_max: 200_000 };

/// Everything that `pieces`, one after the other, decode to.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Request>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(LIMITS);
    let mut requests = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match decoder.decode(&mut piece, true) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => assert!(piece.is_empty(), "undecoded input must be kept by the decoder"),
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn args(request: &Request) -> Vec<&[u8]> {
    request.args.iter().map(|arg| arg.as_ref()).collect()
}

#[test]
fn arrays_and_inline_commands_mix() {
    let (requests, error) = decode([
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING \"x y\"\r\n\r\n*0\r\n*-1\r\n*1\r\n$0\r\n\r\n".as_slice(),
    ]);
    assert_eq!(error, None);
    let requests: Vec<_> = requests.iter().map(args).collect();
    assert_eq!(requests, [vec![b"GET".as_slice(), b"a"], vec![b"PING", b"x y"], vec![b""]]);
}

#[test]
fn protocol_errors_are_redis_own() {
    let long = "9".repeat(LINE_LEN_MAX + 1);
    for (input, text) in [
        ("*a\r\n".to_owned(), "invalid multibulk length"),
        ("*99999999999\r\n".to_owned(), "invalid multibulk length"),
        ("*1048577\r\n".to_owned(), "invalid multibulk length"),
        ("*1\r\n$-1\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$200001\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\nGET\r\n".to_owned(), "expected '$', got 'G'"),
        (format!("*{long}"), "too big mbulk count string"),
        (format!("*1\r\n${long}"), "too big bulk count string"),
        (long, "too big inline request"),
        ("GET \"a\r\n".to_owned(), "unbalanced quotes in request"),
    ] {
        let (_, error) = decode([input.as_bytes()]);
        assert_eq!(error.unwrap().to_string(), text);
    }
}

#[test]
fn as_many_arguments_as_may_be_are_a_request() {
    let mut input = b"*1048576\r\n".to_vec();
    (0..1_048_576).for_each(|_| input.put_slice(b"$0\r\n\r\n"));
    let limits = Limits { bulk_len_max: 1 << 20, protocol_bulk_len_max: 1 << 20 };
    let request = Decoder::new(limits).decode(&mut input.as_slice(), true).unwrap().unwrap();
    assert_eq!((request.args.len(), request.dropped), (1_048_576, None));
}

#[test]
fn strangers_may_send_little() {
    for (input, expected) in [
        ("*11\r\n", ProtocolError::UnauthenticatedMultibulkLength),
        ("*1\r\n$16385\r\n", ProtocolError::UnauthenticatedBulkLength),
    ] {
        let mut input = input.as_bytes();
        assert_eq!(Decoder::new(LIMITS).decode(&mut input, false), Err(expected));
    }
}

#[test]
fn an_oversize_bulk_is_read_past_and_reported() {
    let mut input = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100001\r\n".to_vec();
    input.put_bytes(b'x', 100_001);
    input.put_slice(b"\r\nPING\r\n");
    let (requests, error) = decode([input.as_slice()]);
    assert_eq!(error, None);
    assert_eq!(requests[0].dropped, Some(Dropped::TooLarge(100_001)));
    assert_eq!(args(&requests[0]), [b"SET".as_slice(), b"k", b""]);
    assert_eq!(args(&requests[1]), [b"PING"]);
}

#[test]
fn a_long_bulk_takes_no_memory_before_its_bytes_come() {
    let mut decoder = Decoder::new(Limits { bulk_len_max: 1 << 40, protocol_bulk_len_max: 0 });
    let mut input = b"*1\r\n$1000000000\r\nx".as_slice();
    assert_eq!(decoder.decode(&mut input, true), Ok(None));
    assert!(decoder.bulk_buffer().unwrap().get_ref().capacity() <= BULK_ALLOCATION_MAX);
}

#[test]
fn a_long_bulk_is_read_straight_into_its_own_buffer() {
    let mut decoder = Decoder::new(LIMITS);
    let mut input = b"*1\r\n$50000\r\nab".as_slice();
    assert_eq!(decoder.decode(&mut input, true), Ok(None));
    let address = decoder.bulk_buffer().unwrap().get_ref().as_ptr();
    while let Some(mut buffer) = decoder.bulk_buffer() {
        let n = buffer.remaining_mut().min(20_000);
        buffer.put_bytes(b'c', n);
        decoder.bulk_advanced(n);
    }
    let mut rest = vec![b'c'; 60_000];
    let missing = usize::try_from(decoder.bulk.as_ref().map_or(0, |bulk| bulk.missing)).unwrap();
    rest.truncate(missing);
    let request = decoder.decode(&mut rest.as_slice(), true).unwrap().unwrap();
    assert_eq!(request.args[0].len(), 50_000);
    assert_eq!(request.args[0].as_ptr(), address);
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let array =
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4).prop_map(|args| {
            let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
            for arg in args {
                bytes.extend(format!("${}\r\n", arg.len()).into_bytes());
                bytes.extend(arg);
                bytes.extend(b"\r\n");
            }
            bytes
        });
    let inline = "[a-zA-Z\"' \\\\]{0,20}\r?\n".prop_map(String::into_bytes);
    let noise =
        proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), any::<u8>()], 0..8);
    let part = prop_oneof![6 => array, 2 => inline, 1 => noise];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_decodes_the_same(
        stream in stream(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        let whole = decode([stream.as_slice()]);
        prop_assert_eq!(&decode(pieces), &whole);
        prop_assert_eq!(&decode(stream.chunks(1)), &whole);
    }
}
