//! The offer, the header and the limits.

use super::*;

#[test]
fn offers_are_what_the_documents_say() {
    let offer = Offer {
        role: Role::Client,
        accepts: 0x0e,
        noise: Some(Pattern::XX),
        random: *b"0123456789abcdef",
    };
    assert_eq!(offer.encode(), *b"NSP1c\x0e\x02\x000123456789abcdef");
    assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
    let server = Offer {
        role: Role::Server,
        accepts: 0,
        noise: None,
        random: [0; 16],
    };
    let longer = [b"NSP1s\0\0\xff", &[0; 16][..], b"and more"].concat();
    assert_eq!(Offer::decode(&longer), Ok(server));
    for (frame, why) in [
        (&b""[..], "no pipeline"),
        (b"NSP1c\0\0", "no pipeline"),
        (b"hello, world", "no pipeline"),
        (b"\0NSE1", "envelope"),
        (b"NSP2c\0\0\0", "another version"),
        (b"NSP1c\0\0\x000123456789abcde", "cut short"),
        (b"NSP1x\0\0\x000123456789abcdef", "neither"),
        (b"NSP1s\0\x04\x000123456789abcdef", "not known here"),
    ] {
        let error = Offer::decode(frame).unwrap_err().to_string();
        assert!(error.contains(why), "{frame:?}: {error}");
    }
}

#[test]
fn headers_come_back_and_nothing_else_does() {
    for byte in 0..=u8::MAX {
        for encrypted in [false, true] {
            for rest in [&b""[..], b"rest"] {
                let bytes = [&[byte], rest].concat();
                if let Ok((header, left)) = Header::decode(&bytes, encrypted) {
                    assert_eq!((header.encode(), left), (byte, rest));
                    assert!(encrypted || byte <= 3, "{byte}");
                }
            }
        }
    }
    assert!(Header::decode(b"", true).is_err());
    assert!(Header::decode(b"\x40", true).is_ok_and(|(header, _)| header.goodbye));
    for wrong in [&b"\x40x"[..], b"\x41", b"\x50", b"\x30", b"\x80", b"\x04"] {
        assert!(Header::decode(wrong, true).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_size_is_not_believed() {
    let body = |size: u32, n: usize| [&size.to_be_bytes()[..], &vec![0; n]].concat();
    for algorithm in Algorithm::ALL {
        let bomb = body(1 << 30, 1 << 20);
        let large = packed(&bomb, algorithm, 16 << 20);
        assert!(matches!(large, Err(WireError::MessageTooLarge { .. })));
        let short = body(16 << 20, 10);
        let lie = packed(&short, algorithm, 16 << 20);
        assert!(matches!(lie, Err(WireError::Invalid(_))), "{algorithm:?}");
        assert!(packed(b"\0\0\0", algorithm, 100).is_err());
        let fine = body(100, 10);
        assert_eq!(packed(&fine, algorithm, 100), Ok((100, &fine[4..])));
    }
}

#[test]
fn limits_of_frames_and_messages_fit_together() {
    for encrypted in [false, true] {
        for message in [0, 1, 100, MAX_CHUNK, MAX_CHUNK + 1, 3 * MAX_CHUNK, 16 << 20] {
            let frame = frame_limit(message, encrypted);
            assert_eq!(message_limit(frame, encrypted), message, "{message}");
            assert!(message_limit(frame - 1, encrypted) <= message);
        }
        for frame in [0, 1, 16, 17, 18, MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 5] {
            let message = message_limit(frame, encrypted);
            assert!(message == 0 || frame_limit(message, encrypted) <= frame);
        }
    }
    assert_eq!(frame_limit(0, true), 17);
    assert_eq!(frame_limit(MAX_CHUNK, true), MAX_RECORD);
}
