//! Tests of the envelope: its bytes, its refusals, and that nothing else parses.

use proptest::prelude::*;

use super::*;

fn put(header: Header) -> Vec<u8> {
    let mut out = Vec::new();
    header.put(&mut out);
    assert_eq!(out.len(), header.encoded_len());
    out
}

fn problem(message: &[u8]) -> String {
    match Header::parse(message) {
        Err(WireError::Invalid(text)) => text.into_owned(),
        other => panic!("{message:?}: {other:?}"),
    }
}

const ALL: [Header; 8] = [
    Header::Hello,
    Header::Data,
    Header::Request {
        id: 0x0102_0304_0506_0708,
    },
    Header::Reply { id: u64::MAX },
    Header::Failure { id: 1, code: -642 },
    Header::Ping { token: 2 },
    Header::Pong { token: 3 },
    Header::GoAway,
];

#[test]
fn bytes() {
    for (header, bytes) in ALL.iter().zip([
        &b"\x00NSE1"[..],
        b"\x10",
        b"\x20\x01\x02\x03\x04\x05\x06\x07\x08",
        b"\x30\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x40\0\0\0\0\0\0\0\x01\xff\xff\xfd\x7e",
        b"\x50\0\0\0\0\0\0\0\x02",
        b"\x60\0\0\0\0\0\0\0\x03",
        b"\x70",
    ]) {
        assert_eq!(&put(*header)[..], bytes);
        assert_eq!(Header::parse(bytes), Ok((*header, bytes.len())));
    }
}

#[test]
fn payload_is_the_rest() {
    for header in ALL {
        let mut message = put(header);
        let length = message.len();
        // that of a ping or pong means nothing
        message.extend_from_slice(b"payload");
        assert_eq!(Header::parse(&message), Ok((header, length)));
    }
}

#[test]
fn cut_headers_are_refused() {
    for header in ALL {
        let message = put(header);
        for end in 0..message.len() {
            let text = problem(&message[..end]);
            assert!(
                text.contains("probably does not use the envelope"),
                "{text}"
            );
        }
    }
}

#[test]
fn transforms_are_reserved() {
    for header in ALL {
        for transforms in 1..16 {
            let mut message = put(header);
            message[0] |= transforms;
            let text = problem(&message);
            assert!(text.contains("asks for a transform"), "{text}");
        }
    }
}

#[test]
fn strangers_are_told_apart() {
    for message in [
        &b"\0\0\0\x05hello"[..],
        b"\0NS",
        b"\0nse1",
        b"\x80",
        b"\xff\xff",
        b"",
    ] {
        let text = problem(message);
        assert!(
            text.contains("probably does not use the envelope"),
            "{text}"
        );
    }
    for message in [&b"hello"[..], b"GET / HTTP/1.1", b"{}"] {
        let text = problem(message);
        assert!(text.contains("does not use the envelope"), "{text}");
    }
}

#[test]
fn other_versions_are_named() {
    let text = problem(b"\0NSE2");
    assert!(
        text.contains("version `2`") && text.contains("only version `1`"),
        "{text}"
    );
    assert!(text.contains("does not use the envelope"), "{text}");
}

fn headers() -> impl Strategy<Value = Header> {
    prop_oneof![
        Just(Header::Hello),
        Just(Header::Data),
        any::<u64>().prop_map(|id| Header::Request { id }),
        any::<u64>().prop_map(|id| Header::Reply { id }),
        any::<(u64, i32)>().prop_map(|(id, code)| Header::Failure { id, code }),
        any::<u64>().prop_map(|token| Header::Ping { token }),
        any::<u64>().prop_map(|token| Header::Pong { token }),
        Just(Header::GoAway),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 16 } else { 1000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn round_trip(header in headers()) {
        let bytes = put(header);
        prop_assert_eq!(Header::parse(&bytes), Ok((header, bytes.len())));
    }

    /// There is one spelling of each header: what parses is what would be written.
    #[test]
    fn any_bytes(mut message in proptest::collection::vec(any::<u8>(), 0..24), kind in 0..9_u8) {
        if let Some(first) = message.first_mut() {
            *first = kind << 4;
        }
        if let Ok((header, length)) = Header::parse(&message) {
            prop_assert_eq!(&put(header)[..], &message[..length]);
        }
    }
}
