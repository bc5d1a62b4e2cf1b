//! Properties that every codec has: how a stream is cut makes no difference, what is sent arrives,
//! and nothing else is refused.
#![allow(clippy::expect_used)] // helpers of tests may fail loudly, as tests do

mod common;

use common::{Outcome, bytewise, check_limit, cut, read};
use network_system_wire::{ByteOrder, Codec, Delimiter, Framing, LengthPrefix, Lines, Raw, Width};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// `PROPTEST_CASES` asks for more. The interpreter is some hundred times slower, and has no file
/// system to keep failures in.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    if cfg!(miri) {
        ProptestConfig {
            cases: 8,
            failure_persistence: None,
            ..default
        }
    } else {
        ProptestConfig {
            cases: default.cases.max(cases),
            ..default
        }
    }
}

fn length_prefixes() -> impl Strategy<Value = LengthPrefix> {
    let limits = prop_oneof![0..40_usize, Just(300), Just(usize::MAX)];
    (
        select(&[Width::U8, Width::U16, Width::U32, Width::U64, Width::Varint][..]),
        select(&[ByteOrder::Big, ByteOrder::Little][..]),
        limits,
    )
        .prop_map(|(width, order, max_message)| LengthPrefix {
            width,
            order,
            max_message,
        })
}

/// Delimiters over two letters, so that they overlap with themselves and with payloads.
fn delimiters() -> impl Strategy<Value = Delimiter> {
    let limits = prop_oneof![0..20_usize, Just(usize::MAX)];
    (vec(select(&b"ab"[..]), 1..5), limits).prop_map(|(bytes, limit)| {
        Delimiter::new(bytes)
            .expect("not empty")
            .with_max_message(limit)
    })
}

fn lines() -> impl Strategy<Value = Lines> {
    prop_oneof![0..20_usize, Just(usize::MAX)].prop_map(|max_message| Lines { max_message })
}

/// All framings whose messages do not depend on how the stream is cut.
fn framings() -> impl Strategy<Value = Framing> {
    prop_oneof![
        3 => length_prefixes().prop_map(Framing::from),
        1 => delimiters().prop_map(Framing::from),
        1 => lines().prop_map(Framing::from),
    ]
}

/// Bytes among which delimiters, line ends, small lengths and varints are frequent.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => select(&b"ab\r\n\0\x01\x02\x05\x80\xff"[..]),
        1 => any::<u8>(),
    ];
    vec(byte, 0..if cfg!(miri) { 40 } else { 200 })
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![3 => select(&b"ab\r\n"[..]), 1 => any::<u8>()];
    let longest = if cfg!(miri) { 30 } else { 200 };
    vec(vec(byte, 0..longest), 0..12)
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(0..12_usize, 0..8)
}

/// Encodes what the codec accepts; gives the stream and the accepted payloads.
fn encode(codec: &dyn Codec, payloads: Vec<Vec<u8>>) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut stream = Vec::new();
    let mut sent = Vec::new();
    for payload in payloads {
        let before = stream.clone();
        match codec.encode(&payload, &mut stream) {
            Ok(()) => {
                let mut pieces = before;
                codec.header(&payload, &mut pieces).expect("as encode");
                pieces.extend_from_slice(&payload);
                codec.trailer(&payload, &mut pieces);
                assert_eq!(stream, pieces, "encode is header, payload, trailer");
                sent.push(payload);
            }
            Err(_) => assert_eq!(stream, before, "an error leaves the output as it was"),
        }
    }
    (stream, sent)
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn any_cut_gives_the_same_messages(
        framing in framings(),
        stream in streams(),
        sizes in sizes(),
    ) {
        let whole = read(&framing, [&stream[..]]);
        prop_assert_eq!(&read(&framing, cut(&stream, &sizes)), &whole);
        prop_assert_eq!(&read(&framing, bytewise(&stream)), &whole);
        check_limit(&framing, &stream, &whole);
    }

    #[test]
    fn what_is_sent_arrives(framing in framings(), payloads in payloads(), sizes in sizes()) {
        let (stream, sent) = encode(&framing, payloads);
        let expected = Outcome { messages: sent, error: None };
        prop_assert_eq!(&read(&framing, [&stream[..]]), &expected);
        prop_assert_eq!(&read(&framing, cut(&stream, &sizes)), &expected);
        prop_assert_eq!(&read(&framing, bytewise(&stream)), &expected);
    }

    /// A payload is refused exactly if the receiver would not get it back.
    #[test]
    fn nothing_is_refused_without_need(
        framing in framings(),
        payload in vec(select(&b"ab\r\n"[..]), 0..24),
    ) {
        let mut stream = Vec::new();
        if framing.encode(&payload, &mut stream).is_ok() || payload.len() > framing.max_message() {
            return Ok(());
        }
        stream.extend_from_slice(&payload);
        framing.trailer(&payload, &mut stream);
        let got = read(&framing, [&stream[..]]);
        prop_assert_ne!(got, Outcome { messages: vec![payload], error: None });
    }

    #[test]
    fn raw_keeps_the_bytes_in_order(limit in 0..20_usize, stream in streams(), sizes in sizes()) {
        let raw = Raw { max_message: limit };
        for outcome in [read(&raw, [&stream[..]]), read(&raw, cut(&stream, &sizes))] {
            prop_assert_eq!(outcome.error, None);
            for message in &outcome.messages {
                prop_assert!((1..=limit.max(1)).contains(&message.len()));
            }
            prop_assert_eq!(outcome.messages.concat(), stream.clone());
        }
    }

    #[test]
    fn raw_sends_the_bytes_as_they_are(payloads in payloads()) {
        let (stream, sent) = encode(&Raw::new(), payloads.clone());
        prop_assert_eq!(&stream[..], &payloads.concat()[..]);
        prop_assert!(sent.iter().all(|payload| !payload.is_empty()));
    }

    #[test]
    fn text_names_the_framing(framing in framings()) {
        let parsed: Framing = framing.to_string().parse().expect("its own text");
        prop_assert_eq!(parsed.to_string(), framing.to_string());
        // The same bytes on the wire, too.
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let limited = framing.with_max_message(1000);
        let payload = vec![b'x'; 200];
        prop_assert!(limited.encode(&payload, &mut a).is_ok());
        prop_assert!(parsed.encode(&payload, &mut b).is_ok());
        prop_assert_eq!(a, b);
    }

    #[test]
    fn any_text_is_a_framing_or_an_explanation(
        text in "[a-z0-9:]{0,14}|(length|delimiter|lines):.{0,6}",
    ) {
        match text.parse::<Framing>() {
            Ok(framing) => prop_assert!(framing.to_string().parse::<Framing>() == Ok(framing)),
            Err(error) => prop_assert!(error.to_string().contains("allowed are: length")),
        }
    }
}
