//! The bytes of network-system, without IO: how messages are delimited in a stream, and the
//! envelope in front of each.
//!
//! Nothing here reads, writes, waits or looks at a clock. A [`Codec`] gets the bytes that have
//! arrived and says where the first message lies in them; to send, it appends what goes around a
//! payload. [`Framing`] is the closed set of codecs that configuration can name, plus
//! [`Framing::Custom`] for your own.
//!
//! ```
//! use network_system_wire::{Codec, Decoded, Framing};
//!
//! let framing = Framing::default(); // a length of 4 bytes, big endian, then the message
//! let mut stream = Vec::new();
//! framing.encode(b"hello", &mut stream)?;
//! assert_eq!(&stream[..], b"\0\0\0\x05hello");
//!
//! let Decoded::Frame(frame) = framing.decode(&stream, 0)? else { unreachable!("it is whole") };
//! assert_eq!(frame.payload.slice(&stream), Some(&b"hello"[..]));
//! assert_eq!(frame.consumed, 9);
//! # Ok::<(), network_system_wire::WireError>(())
//! ```
//!
//! Every codec checks its limit before anybody reserves memory for a message, and no input from a
//! peer makes it panic.
#![forbid(unsafe_code)]

mod codec;
mod delimiter;
pub mod envelope;
mod error;
mod framing;
mod length_prefix;
mod lines;
pub mod pipeline;
pub mod proxy;
mod raw;
mod search;
mod varint;

pub use codec::{Codec, Decoded, Frame, Payload};
pub use delimiter::Delimiter;
pub use error::WireError;
pub use framing::{Framing, ParseFramingError};
pub use length_prefix::{ByteOrder, LengthPrefix, Width};
pub use lines::Lines;
pub use raw::Raw;

/// Largest payload that a codec accepts unless told otherwise, in bytes: 16 MiB.
pub const DEFAULT_MAX_MESSAGE: usize = 16 * 1024 * 1024;
