//! The seam for framings: what a codec is asked, and how it says where a message lies.

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;

use crate::WireError;

/// What [`Codec::decode`] found at the start of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// There is no whole frame yet.
    Incomplete {
        /// Bytes, counted from the start of the input, without which decoding cannot make progress:
        /// always more than the input has. With a length prefix that has arrived, this is the whole
        /// frame.
        needed: usize,
    },
    /// A whole frame.
    Frame(Frame),
}

/// One whole frame at the start of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message in it.
    pub payload: Payload,
    /// Bytes of input that the frame takes, framing included; never 0.
    pub consumed: usize,
}

/// Where the message of a [`Frame`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// In the input, at these offsets, which lie within the first `consumed` bytes.
    Range(Range<usize>),
    /// Made by the codec, for codecs that transform what they carry.
    Owned(Bytes),
}

impl Payload {
    /// The bytes of the message, where `input` is what was given to [`Codec::decode`].
    ///
    /// `None` if the range lies outside `input`: it is another input, or the codec is wrong.
    pub fn slice<'a>(&'a self, input: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Range(range) => input.get(range.clone()),
            Self::Owned(bytes) => Some(bytes),
        }
    }
}

/// How messages are delimited in a byte stream.
///
/// A codec has no state: one value serves any number of connections, in both directions, from any
/// thread.
///
/// # What a codec promises
///
/// * How a stream is cut into reads makes no difference: the messages, and the error if there is
///   one, are the same. (A codec that takes chunks as they come, such as [`Raw`](crate::Raw), keeps
///   at least the bytes and their order.)
/// * What [`encode`](Codec::encode) accepts, [`decode`](Codec::decode) gives back byte for byte.
/// * No input panics, and a message above [`max_message`](Codec::max_message) is refused before
///   memory is asked for it.
///
/// # Example
///
/// A codec for records of a fixed size:
///
/// ```
/// use network_system_wire::{Codec, Decoded, Frame, Payload, WireError};
///
/// #[derive(Debug)]
/// struct Records;
///
/// impl Codec for Records {
///     fn decode(&self, input: &[u8], _examined: usize) -> Result<Decoded, WireError> {
///         if input.len() < 16 {
///             return Ok(Decoded::Incomplete { needed: 16 });
///         }
///         Ok(Decoded::Frame(Frame { payload: Payload::Range(0..16), consumed: 16 }))
///     }
///
///     fn header(&self, payload: &[u8], _out: &mut Vec<u8>) -> Result<(), WireError> {
///         if payload.len() != 16 {
///             return Err(WireError::Invalid("a record has 16 bytes".into()));
///         }
///         Ok(())
///     }
///
///     fn max_message(&self) -> usize {
///         16
///     }
/// }
///
/// let mut out = Vec::new();
/// assert!(Records.encode(b"short", &mut out).is_err());
/// Records.encode(b"sixteen bytes ok", &mut out)?;
/// assert!(matches!(Records.decode(&out, 0)?, Decoded::Frame(frame) if frame.consumed == 16));
/// # Ok::<(), WireError>(())
/// ```
pub trait Codec: Send + Sync + Debug + 'static {
    /// Looks for one frame at the start of `input`.
    ///
    /// `examined` is how many bytes at the start of `input` an earlier call for this same frame has
    /// seen already, 0 at the start of a frame; a search for the end of the message need not start
    /// again. It never changes the answer.
    ///
    /// # Errors
    ///
    /// [`WireError::MessageTooLarge`] above the limit, [`WireError::Invalid`] if the bytes break
    /// the format. The stream cannot be read any further then.
    fn decode(&self, input: &[u8], examined: usize) -> Result<Decoded, WireError>;

    /// The stream has ended and `rest`, possibly empty, is what [`decode`](Codec::decode) found
    /// incomplete: is it a last message?
    ///
    /// By default it is not: an empty rest is the regular end (`None`), anything else is an error.
    /// If `rest` does begin with a whole frame, the answer is that frame.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`] if the message is not whole, and the errors of
    /// [`decode`](Codec::decode).
    fn finish(&self, rest: &[u8]) -> Result<Option<Frame>, WireError> {
        if rest.is_empty() {
            return Ok(None);
        }
        match self.decode(rest, 0)? {
            Decoded::Frame(frame) => Ok(Some(frame)),
            Decoded::Incomplete { needed } => Err(WireError::Truncated {
                have: rest.len(),
                needed,
            }),
        }
    }

    /// Appends what goes before `payload`, after checking that the payload can be sent.
    ///
    /// # Errors
    ///
    /// [`WireError::MessageTooLarge`] above the limit, [`WireError::Invalid`] if this framing
    /// cannot carry the payload. `out` is as it was then.
    fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError>;

    /// Appends what goes after `payload`; by default nothing.
    fn trailer(&self, payload: &[u8], out: &mut Vec<u8>) {
        let _ = (payload, out);
    }

    /// Appends a whole frame: header, payload and trailer.
    ///
    /// A codec that transforms payloads does so here, and returns false from
    /// [`is_transparent`](Codec::is_transparent).
    ///
    /// # Errors
    ///
    /// Those of [`header`](Codec::header); `out` is as it was then.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let start = out.len();
        if let Err(error) = self.header(payload, out) {
            // Half a frame in a send buffer would garble everything after it, so do not rely on the
            // codec here.
            out.truncate(start);
            return Err(error);
        }
        out.extend_from_slice(payload);
        self.trailer(payload, out);
        Ok(())
    }

    /// Whether the payload travels unchanged between header and trailer, so that a large one can be
    /// written from where it lies; by default it does.
    fn is_transparent(&self) -> bool {
        true
    }

    /// Largest payload in bytes, in either direction.
    fn max_message(&self) -> usize;
}
