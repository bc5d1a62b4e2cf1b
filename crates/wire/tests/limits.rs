//! The limit of every codec is exact, hostile lengths are refused, a cut frame is named so.
#![allow(clippy::expect_used)] // helpers of tests may fail loudly, as tests do

mod common;

use common::{bytewise, read};
use network_system_wire::{ByteOrder, Codec, Decoded, Framing, LengthPrefix, Width, WireError};

/// Every way of delimiting, with this limit.
fn all(limit: usize) -> Vec<Framing> {
    let texts = [
        "length",
        "length:1",
        "length:2be",
        "length:2le",
        "length:4le",
        "length:8be",
        "length:8le",
        "varint",
        "lines",
        "delimiter:00",
        "delimiter:0d0a",
        "delimiter:616161",
    ];
    let parse = |text: &str| text.parse::<Framing>().expect("a framing");
    texts
        .iter()
        .map(|text| parse(text).with_max_message(limit))
        .collect()
}

#[test]
fn limit_is_exact_in_both_directions() {
    // Around the steps of the widths; the interpreter has time for some only.
    let limits = [0, 1, 2, 17, 127, 128, 255, 256, 300, 1000];
    let limits = if cfg!(miri) { &limits[..4] } else { &limits };
    for limit in limits.iter().copied() {
        for framing in all(limit) {
            let limit = framing.max_message(); // one byte of length cannot say more than 255
            let mut stream = Vec::new();
            framing.encode(&vec![b'x'; limit], &mut stream).unwrap();
            let outcome = read(&framing, bytewise(&stream));
            assert_eq!(outcome.messages, [vec![b'x'; limit]], "{framing} {limit}");
            assert_eq!(outcome.error, None);

            let too_large = WireError::MessageTooLarge {
                length: limit as u64 + 1,
                limit,
            };
            let above = vec![b'x'; limit + 1];
            let refused = framing.encode(&above, &mut Vec::new());
            assert_eq!(refused, Err(too_large.clone()), "{framing} {limit}");

            // The same from a peer that allows more.
            let mut stream = Vec::new();
            let peer = framing.clone().with_max_message(limit + 1);
            if peer.encode(&above, &mut stream).is_err() {
                assert_eq!((framing.to_string(), limit), ("length:1".into(), 255));
                continue;
            }
            for outcome in [
                read(&framing, [&stream[..]]),
                read(&framing, bytewise(&stream)),
            ] {
                assert_eq!(outcome.messages, Vec::<Vec<u8>>::new(), "{framing} {limit}");
                assert_eq!(outcome.error, Some(too_large.clone()));
            }
        }
    }
}

#[test]
fn endless_messages_are_refused_at_the_limit() {
    for framing in ["lines", "delimiter:0d0a"] {
        let framing: Framing = framing.parse().unwrap();
        let framing = framing.with_max_message(100);
        let stream = vec![b'x'; 1_000];
        // Two bytes more than the limit settle it; nobody waits, or searches, any further.
        assert_eq!(
            framing.decode(&stream[..101], 0),
            Ok(Decoded::Incomplete { needed: 102 })
        );
        for end in [102, 1_000] {
            assert_eq!(
                framing.decode(&stream[..end], 0),
                Err(WireError::MessageTooLarge {
                    length: 101,
                    limit: 100
                })
            );
        }
    }
}

#[test]
fn hostile_lengths_are_refused() {
    let huge = u64::MAX;
    for framing in [LengthPrefix::new(), LengthPrefix::varint()] {
        for (width, order, bytes) in [
            (Width::U64, ByteOrder::Big, huge.to_be_bytes().to_vec()),
            (Width::U64, ByteOrder::Little, huge.to_le_bytes().to_vec()),
            (Width::U32, ByteOrder::Big, vec![0xff; 4]),
            (
                Width::Varint,
                ByteOrder::Big,
                [vec![0xff; 9], vec![1]].concat(),
            ),
        ] {
            let codec = framing.with_width(width).with_order(order);
            let Err(WireError::MessageTooLarge { length, .. }) = codec.decode(&bytes, 0) else {
                panic!("{codec:?}");
            };
            assert!(length >= u64::from(u32::MAX), "{codec:?}: {length}");
            // Without a limit the frame is incomplete, and its size does not overflow.
            let codec = codec.with_max_message(usize::MAX);
            let Ok(Decoded::Incomplete { needed }) = codec.decode(&bytes, 0) else {
                panic!("{codec:?}");
            };
            assert!(needed > u32::MAX as usize, "{codec:?}: {needed}");
            assert!(matches!(
                codec.finish(&bytes),
                Err(WireError::Truncated { .. })
            ));
        }
    }
}

#[test]
fn an_end_inside_a_frame_is_truncation() {
    for text in [
        "length",
        "length:1",
        "length:2le",
        "length:4le",
        "length:8",
        "varint",
    ] {
        let framing: Framing = text.parse().unwrap();
        let mut stream = Vec::new();
        framing.encode(&[b'x'; 200], &mut stream).unwrap();
        assert_eq!(framing.finish(b""), Ok(None));
        for end in 1..stream.len() {
            let Err(WireError::Truncated { have, needed }) = framing.finish(&stream[..end]) else {
                panic!("{text} {end}");
            };
            assert_eq!(have, end);
            assert!(needed > end && needed <= stream.len(), "{text} {end}");
        }
    }
}
