//! A reader for tests: pieces of a stream in, messages out, every promise of a codec checked.
#![allow(dead_code)] // not every user of this file needs all of it

use network_system_wire::{Codec, Decoded, Frame, Framing, WireError};

/// What a reader got out of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The messages before the end or the error.
    pub messages: Vec<Vec<u8>>,
    /// Why the stream could not be read to its end.
    pub error: Option<WireError>,
}

impl Outcome {
    fn take(&mut self, frame: &Frame, buffer: &mut Vec<u8>) {
        assert!(frame.consumed > 0, "a frame without bytes never ends");
        assert!(frame.consumed <= buffer.len(), "{frame:?} of {buffer:?}");
        let payload = frame.payload.slice(&buffer[..frame.consumed]);
        assert!(payload.is_some(), "the payload of {frame:?} lies in it");
        self.messages.extend(payload.map(<[u8]>::to_vec));
        buffer.drain(..frame.consumed);
    }
}

/// Reads as a connection does: appends what arrives, decodes all there is, remembers what was seen.
/// On the way it checks what [`Codec::decode`] promises about its answers.
pub fn read<'a>(codec: &dyn Codec, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut buffer, mut examined, mut least) = (Vec::new(), 0, 0);
    let mut outcome = Outcome {
        messages: Vec::new(),
        error: None,
    };
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            let decoded = codec.decode(&buffer, examined);
            assert_eq!(decoded, codec.decode(&buffer, 0), "examined {examined}");
            if buffer.len() < least {
                assert!(
                    matches!(decoded, Ok(Decoded::Incomplete { .. })),
                    "{decoded:?} of {} bytes, and {least} were said to be needed",
                    buffer.len()
                );
            }
            match decoded {
                Ok(Decoded::Frame(frame)) => {
                    outcome.take(&frame, &mut buffer);
                    (examined, least) = (0, 0);
                }
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(needed > buffer.len(), "{needed} of {}", buffer.len());
                    (examined, least) = (buffer.len(), needed);
                    break;
                }
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
    }
    loop {
        match codec.finish(&buffer) {
            Ok(Some(frame)) => outcome.take(&frame, &mut buffer),
            Ok(None) => return outcome,
            Err(error) => {
                outcome.error = Some(error);
                return outcome;
            }
        }
    }
}

/// `stream` in pieces of these sizes, over and over; an empty piece is a piece too.
pub fn cut<'a>(stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut pieces = Vec::new();
    for size in sizes.iter().chain(&[1]).cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// All bytes of `stream`, one at a time.
pub fn bytewise(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    stream.chunks(1)
}

/// Checks that the limit of `codec` is exact, where `outcome` is what it made of `stream`: without
/// the limit the same messages arrive, and the first that did not arrive with it is above it.
pub fn check_limit(codec: &Framing, stream: &[u8], outcome: &Outcome) {
    let limit = codec.max_message();
    let free = read(&codec.clone().with_max_message(usize::MAX), [stream]);
    assert!(free.messages.starts_with(&outcome.messages), "{free:?}");
    assert!(
        outcome
            .messages
            .iter()
            .all(|message| message.len() <= limit)
    );
    if let Some(refused) = free.messages.get(outcome.messages.len()) {
        assert!(refused.len() > limit, "{refused:?}");
        let error = &outcome.error;
        assert!(
            matches!(error, Some(WireError::MessageTooLarge { .. })),
            "{error:?}"
        );
    }
}
