//! Fuzz target: the header in front of each message, parsed from anything and written anyhow.

use bolero::{TypeGenerator, check};
use network_system_wire::WireError;
use network_system_wire::envelope::{Header, MAGIC};

/// A message of a peer.
#[derive(Debug, TypeGenerator)]
enum Message {
    /// Anything.
    Bytes(Vec<u8>),
    /// Anything behind the first byte of a kind.
    Kind(u8, Vec<u8>),
    /// A greeting, or nearly one.
    Hello([u8; 4], Vec<u8>),
    /// What we would write ourselves, with a payload.
    Header(u8, u64, i32, Vec<u8>),
}

fn header(kind: u8, number: u64, code: i32) -> Header {
    match kind % 8 {
        0 => Header::Hello,
        1 => Header::Data,
        2 => Header::Request { id: number },
        3 => Header::Reply { id: number },
        4 => Header::Failure { id: number, code },
        5 => Header::Ping { token: number },
        6 => Header::Pong { token: number },
        _ => Header::GoAway,
    }
}

/// What parses is what would be written, and what does not is explained.
fn check_message(bytes: &[u8]) {
    match Header::parse(bytes) {
        Ok((header, length)) => {
            let mut again = Vec::new();
            header.put(&mut again);
            assert_eq!(length, header.encoded_len());
            assert_eq!(&again[..], &bytes[..length]);
        }
        Err(error) => assert!(matches!(error, WireError::Invalid(_)), "{error:?}"),
    }
}

#[test]
fn envelope() {
    check!()
        .with_type::<Message>()
        .for_each(|message| match message {
            Message::Bytes(bytes) => check_message(bytes),
            Message::Kind(kind, rest) => check_message(&[&[kind << 4], &rest[..]].concat()),
            Message::Hello(change, rest) => {
                // Most bits of the change are lost, so that the magic is often right.
                let magic: Vec<u8> = MAGIC
                    .iter()
                    .zip(change)
                    .map(|(m, c)| m ^ (c >> 7))
                    .collect();
                check_message(&[&[0], &magic[..], rest].concat());
            }
            Message::Header(kind, number, code, payload) => {
                let header = header(*kind, *number, *code);
                let mut bytes = Vec::new();
                header.put(&mut bytes);
                assert_eq!(Header::parse(&bytes), Ok((header, bytes.len())));
                bytes.extend_from_slice(payload);
                check_message(&bytes);
            }
        });
}
