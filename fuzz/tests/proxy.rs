//! Fuzz target: what a proxy says in front of a connection.

use bolero::{TypeGenerator, check};
use network_system_wire::proxy::{MAX_HEADER, Parsed, parse};

/// The first bytes of a connection.
#[derive(Debug, TypeGenerator)]
enum Start {
    /// Anything.
    Bytes(Vec<u8>),
    /// A line, of words that mean something or nearly so.
    Line(Vec<u8>, Vec<u8>),
    /// The signature of version 2, then a command, a family and a length that is right or not.
    Binary(u8, u8, Option<u16>, Vec<u8>),
}

const WORDS: &[&str] = &[
    "PROXY",
    "TCP4",
    "TCP6",
    "UNKNOWN",
    "192.0.2.7",
    "::1",
    "0",
    "80",
    "65536",
    " ",
    "\r\n",
    "\n",
];

impl Start {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Line(words, rest) => {
                let words = words.iter().map(|n| WORDS[usize::from(*n) % WORDS.len()]);
                let line = format!("PROXY {}\r\n", words.collect::<Vec<_>>().join(" "));
                [line.as_bytes(), rest].concat()
            }
            Self::Binary(command, family, length, rest) => {
                let length = length.unwrap_or(rest.len() as u16).to_be_bytes();
                let fixed = [0x20 | (command % 4), *family % 0x34];
                [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], &length, rest].concat()
            }
        }
    }
}

/// However the bytes come, the outcome is the same, and nobody is asked for what is not the
/// header's.
#[test]
fn proxy() {
    check!().with_type::<Start>().for_each(|start| {
        let bytes = start.bytes();
        let whole = parse(&bytes);
        match &whole {
            Ok(Parsed::Needed(needed)) => {
                assert!(*needed > bytes.len() && *needed <= MAX_HEADER);
            }
            Ok(Parsed::Header(header)) => {
                assert!(header.length <= bytes.len() && header.length <= MAX_HEADER);
                assert_eq!(parse(&bytes[..header.length]), whole);
                for cut in 0..header.length {
                    let Ok(Parsed::Needed(needed)) = parse(&bytes[..cut]) else {
                        panic!("{cut} bytes are a header already, or none");
                    };
                    assert!(needed > cut && needed <= header.length);
                }
            }
            Err(_) => {
                let more = [&bytes[..], b"more"].concat();
                assert!(parse(&more).is_err(), "what is wrong stays wrong");
            }
        }
    });
}
