//! What the fuzz targets share: generated streams, and the promises of a codec that are checked on
//! them. How to run the targets is in `README.md`.

use std::iter::repeat_n;

use bolero::TypeGenerator;
use network_system_wire::{Codec, Framing};

/// The reader is that of the property tests, so that both check the same promises.
#[path = "../../crates/wire/tests/common/mod.rs"]
mod reader;

pub use reader::{Outcome, bytewise, check_limit, cut, read};

/// What a peer might send: whole messages, and anything else, in any order and in any cut.
#[derive(Debug, TypeGenerator)]
pub struct Input {
    #[generator(bolero::produce::<Vec<Piece>>().with().len(0..=10_usize))]
    pieces: Vec<Piece>,
    /// Sizes of the reads, over and over.
    #[generator(bolero::produce::<Vec<u8>>().with().len(0..=8_usize))]
    cuts: Vec<u8>,
    /// Bits that are kept in the bytes of the pieces: with few of them, bytes repeat, and line
    /// ends, delimiters and small lengths are frequent.
    mask: u8,
    /// The limit of the codec, now and then none.
    limit: Option<u8>,
}

/// A part of the stream.
#[derive(Debug, TypeGenerator)]
enum Piece {
    /// A message, framed by the codec if it takes it, else as it is.
    Message(Vec<u8>),
    /// A message of few letters, line ends among them.
    Letters(Vec<u8>),
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// The same byte many times: long messages and endless varints.
    Run(u8, u8),
}

/// One of few bytes that often mean something.
pub fn letter(byte: &u8) -> u8 {
    match byte % 4 {
        0 => b'a',
        1 => b'b',
        2 => b'\r',
        _ => b'\n',
    }
}

impl Input {
    /// The framing with the limit of this input.
    pub fn limit(&self, framing: impl Into<Framing>) -> Framing {
        framing
            .into()
            .with_max_message(self.limit.map_or(usize::MAX, usize::from))
    }

    /// The sizes of the reads.
    pub fn sizes(&self) -> Vec<usize> {
        self.cuts.iter().copied().map(usize::from).collect()
    }

    /// The stream, and its messages if it consists of nothing else.
    pub fn stream(&self, codec: &dyn Codec) -> (Vec<u8>, Option<Vec<Vec<u8>>>) {
        let masked = |bytes: &[u8]| bytes.iter().map(|byte| byte & self.mask).collect();
        let mut stream = Vec::new();
        let mut messages = Some(Vec::new());
        for piece in &self.pieces {
            let (bytes, is_message): (Vec<u8>, bool) = match piece {
                Piece::Message(bytes) => (masked(bytes), true),
                Piece::Letters(bytes) => (bytes.iter().map(letter).collect(), true),
                Piece::Bytes(bytes) => (masked(bytes), false),
                Piece::Run(byte, count) => (repeat_n(*byte, usize::from(*count)).collect(), false),
            };
            let before = stream.len();
            if is_message && codec.encode(&bytes, &mut stream).is_ok() {
                if let Some(messages) = &mut messages {
                    messages.push(bytes);
                }
                continue;
            }
            assert_eq!(stream.len(), before, "an error leaves the output as it was");
            stream.extend_from_slice(&bytes);
            messages = None;
        }
        (stream.to_vec(), messages)
    }
}

/// Checks what all codecs promise whose messages do not depend on how the stream is cut; gives the
/// stream and what a reader gets out of it.
pub fn check_codec(codec: &Framing, input: &Input) -> (Vec<u8>, Outcome) {
    let (stream, messages) = input.stream(codec);
    let whole = read(codec, [&stream[..]]);
    assert_eq!(read(codec, cut(&stream, &input.sizes())), whole);
    assert_eq!(read(codec, bytewise(&stream)), whole);
    check_limit(codec, &stream, &whole);
    if let Some(messages) = messages {
        let error = None;
        assert_eq!(whole, Outcome { messages, error }, "what is sent arrives");
    }
    (stream, whole)
}

/// Checks that the messages of a stream, sent again, are that stream. Only the last one may be
/// refused, as what is not terminated at the end of the stream need not be a message elsewhere.
pub fn check_canonical(codec: &Framing, stream: &[u8], outcome: &Outcome) {
    let mut again = Vec::new();
    let mut refused = 0;
    for message in &outcome.messages {
        assert_eq!(refused, 0, "a message that arrived can be sent");
        refused += usize::from(codec.encode(message, &mut again).is_err());
    }
    let mut ended = stream.to_vec();
    codec.trailer(&[], &mut ended);
    assert!(ended.starts_with(&again), "the same bytes");
    if outcome.error.is_none() && refused == 0 {
        assert!(again.len() >= stream.len(), "all of them");
    }
}
