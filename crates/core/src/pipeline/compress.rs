//! The compressions: what they need lies in the thread, and none is made until it is used.

use std::cell::RefCell;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use network_system_wire::pipeline::Algorithm;
use zstd::bulk::{Compressor, Decompressor};

use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};

/// The bits of those that can be undone.
pub(super) const ACCEPTS: u8 =
    Algorithm::Lz4.bit() | Algorithm::Deflate.bit() | Algorithm::Zstd.bit();

/// Bytes before the compressed ones: the size.
const SIZE: usize = 4;

/// What a zstd frame begins with, and one to be skipped does not.
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Whether this build can do it.
#[expect(clippy::unnecessary_wraps, reason = "the other build refuses")]
pub(super) fn check(_compression: Compression) -> Result<()> {
    Ok(())
}

#[derive(Default)]
struct Contexts {
    zstd: Option<(i32, Compressor<'static>)>,
    unzstd: Option<Decompressor<'static>>,
    deflate: Option<(u32, Compress)>,
    inflate: Option<Decompress>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// Puts the message behind what is in `out`, compressed and with its size; `false`, and nothing is
/// put there, when it would not get smaller.
pub(super) fn compress(compression: Compression, message: &[u8], out: &mut Vec<u8>) -> bool {
    let (start, len) = (out.len(), message.len());
    // what does not fit into this is not worth it
    let Some(room) = len.checked_sub(SIZE + 1).filter(|room| *room > 0) else {
        return false;
    };
    let Ok(size) = u32::try_from(len) else {
        return false;
    };
    out.extend(size.to_be_bytes());
    let packed = CONTEXTS.try_with(|contexts| {
        let mut contexts = contexts.try_borrow_mut().ok()?;
        contexts.pack(compression, message, out, room)
    });
    let end = match packed {
        Ok(Some(n)) if n <= room => start + SIZE + n,
        _ => start,
    };
    out.truncate(end);
    end > start
}

impl Contexts {
    /// Appends the compressed message, of which `room` bytes are of any use; how many there are.
    fn pack(
        &mut self,
        compression: Compression,
        message: &[u8],
        out: &mut Vec<u8>,
        room: usize,
    ) -> Option<usize> {
        let start = out.len();
        match compression {
            Compression::None => None,
            Compression::Lz4 => {
                // it wants the room for the worst case
                let most = lz4_flex::block::get_maximum_output_size(message.len());
                out.resize(start + most, 0);
                lz4_flex::block::compress_into(message, out.get_mut(start..)?).ok()
            }
            Compression::Deflate { level } => {
                out.resize(start + room, 0);
                if self.deflate.as_ref().is_none_or(|(old, _)| *old != level) {
                    let compress = Compress::new(flate2::Compression::new(level), false);
                    self.deflate = Some((level, compress));
                }
                let (_, deflate) = self.deflate.as_mut()?;
                deflate.reset();
                let into = out.get_mut(start..)?;
                let end = deflate
                    .compress(message, into, FlushCompress::Finish)
                    .ok()?;
                let n = usize::try_from(deflate.total_out()).ok()?;
                (end == Status::StreamEnd).then_some(n)
            }
            Compression::Zstd { level } => {
                out.resize(start + room, 0);
                if self.zstd.as_ref().is_none_or(|(old, _)| *old != level) {
                    self.zstd = Some((level, Compressor::new(level).ok()?));
                }
                let (_, zstd) = self.zstd.as_mut()?;
                zstd.compress_to_buffer(message, out.get_mut(start..)?).ok()
            }
        }
    }

    /// The message; `None` when the bytes make no sense, or become more or less than `size`.
    fn unpack(&mut self, algorithm: Algorithm, bytes: &[u8], size: usize) -> Option<Vec<u8>> {
        match algorithm {
            Algorithm::Lz4 => {
                let mut message = vec![0; size];
                let n = lz4_flex::block::decompress_into(bytes, &mut message).ok()?;
                (n == size).then_some(message)
            }
            Algorithm::Deflate => {
                let mut message = Vec::with_capacity(size.checked_add(1)?);
                let inflate = self.inflate.get_or_insert_with(|| Decompress::new(false));
                inflate.reset(false);
                let end = inflate.decompress_vec(bytes, &mut message, FlushDecompress::Finish);
                let whole = inflate.total_in() == bytes.len() as u64;
                let ended = matches!(end, Ok(Status::StreamEnd));
                let fits = ended && whole && message.len() == size;
                fits.then_some(message)
            }
            Algorithm::Zstd => {
                // the library goes through all frames that there are, and skips some
                let frame = zstd::zstd_safe::find_frame_compressed_size(bytes).ok()?;
                if frame != bytes.len() || !bytes.starts_with(ZSTD) {
                    return None;
                }
                let mut message = Vec::with_capacity(size);
                if self.unzstd.is_none() {
                    self.unzstd = Decompressor::new().ok();
                }
                let zstd = self.unzstd.as_mut()?;
                let n = zstd.decompress_to_buffer(bytes, &mut message).ok()?;
                (n == size && message.len() == size).then_some(message)
            }
        }
    }
}

/// The message that was compressed to `bytes`, and has `size` bytes: neither more than is allowed nor
/// than so few bytes can become.
pub(super) fn decompress(algorithm: Algorithm, bytes: &[u8], size: usize) -> Result<Vec<u8>> {
    let message = CONTEXTS.try_with(|contexts| {
        let mut contexts = contexts.try_borrow_mut().ok()?;
        contexts.unpack(algorithm, bytes, size)
    });
    message.ok().flatten().ok_or_else(|| {
        Error::new(ErrorKind::Protocol, "decompress a message").because(format_args!(
            "it is not {algorithm:?} of the {size} bytes that it says"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 3] = [
        Compression::Lz4,
        Compression::Deflate { level: 6 },
        Compression::Zstd { level: 3 },
    ];

    /// Junk, and what we have made with a few bytes changed, with any size.
    #[test]
    fn anything_can_be_decompressed_or_refused() {
        fastrand::seed(7);
        for compression in ALL {
            let algorithm = compression.algorithm().unwrap();
            for n in 0..3000 {
                let len = fastrand::usize(..2000);
                let message: Vec<u8> = (0..len).map(|_| fastrand::u8(b'a'..b'f')).collect();
                let mut bytes = Vec::new();
                if n % 3 == 0 || !compress(compression, &message, &mut bytes) {
                    bytes = (0..len + 4).map(|_| fastrand::u8(..)).collect();
                } else {
                    let whole = decompress(algorithm, &bytes[4..], len).unwrap();
                    assert!(whole == message, "{compression} {len}");
                    for wrong in [len - 1, len + 1] {
                        assert!(decompress(algorithm, &bytes[4..], wrong).is_err());
                    }
                    for _ in 0..fastrand::usize(1..4) {
                        let at = fastrand::usize(4..bytes.len());
                        bytes[at] ^= 1 << fastrand::u8(..8);
                    }
                }
                let size = fastrand::usize(..4000);
                if let Ok(message) = decompress(algorithm, &bytes[4..], size) {
                    assert_eq!(message.len(), size);
                }
            }
        }
    }

    /// A message is one block, stream or frame: nothing before it, nothing behind it, not even what
    /// would add no bytes.
    #[test]
    fn nothing_may_be_around_it() {
        let message: Vec<u8> = (0..2000_u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
        let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
        let empty = [
            b"\x28\xb5\x2f\xfd\x20\0\x01\0\0".to_vec(),
            vec![0],
            vec![3, 0],
        ];
        for compression in ALL {
            let algorithm = compression.algorithm().unwrap();
            let mut bytes = Vec::new();
            assert!(compress(compression, &message, &mut bytes));
            let packed = &bytes[SIZE..];
            let is_right = |bytes: &[u8], n: usize| {
                let size = n * message.len();
                decompress(algorithm, bytes, size).is_ok_and(|m| m == message.repeat(n))
            };
            assert!(is_right(packed, 1));
            assert!(!is_right(&packed.repeat(2), 2), "{compression}: twice");
            let singles = (0..=255_u8).map(|byte| vec![byte]);
            for more in singles.chain(empty.clone()).chain([skipped.to_vec()]) {
                assert!(
                    !is_right(&[packed, &more].concat(), 1),
                    "{compression}: {more:?}"
                );
                let before = [&more, packed].concat();
                assert!(!is_right(&before, 1), "{compression}: {more:?} before");
            }
            assert!(decompress(algorithm, skipped, 0).is_err());
        }
        assert!(
            decompress(Algorithm::Zstd, &empty[0], 0).is_ok(),
            "a frame it is"
        );
    }

    #[test]
    fn what_does_not_get_smaller_leaves_no_trace() {
        for compression in ALL {
            for message in [&b""[..], b"a", b"abcdef"] {
                let mut out = b"before".to_vec();
                assert!(!compress(compression, message, &mut out));
                assert_eq!(out, b"before");
            }
        }
    }
}
