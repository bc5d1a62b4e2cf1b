//! Unsigned LEB128: seven bits per byte, lowest first, the top bit set on all bytes but the last.

use bytes::BufMut;

use crate::WireError;

/// Bytes that the largest `u64` takes.
pub(crate) const MAX_LEN: usize = 10;

/// The number at the start of `input` and how many bytes it takes; `None` if it is not whole yet.
///
/// Each number has exactly one spelling: one that is longer than needed is refused, as is one above
/// `u64::MAX`. So a peer cannot send the same message in two ways, nor make us wait for a number
/// that never ends.
pub(crate) fn read(input: &[u8]) -> Result<Option<(u64, usize)>, WireError> {
    let mut value = 0_u64;
    for (index, byte) in input.iter().copied().enumerate().take(MAX_LEN) {
        let bits = u64::from(byte & 0x7f);
        if index == MAX_LEN - 1 && byte > 1 {
            return Err(WireError::Invalid(
                "the length (varint) does not fit in 64 bits".into(),
            ));
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(WireError::Invalid(
                    "the length (varint) is spelled with more bytes than it needs".into(),
                ));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    Ok(None)
}

/// Appends `value`.
pub(crate) fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for (value, bytes) in [
            (0, &[0_u8][..]),
            (1, &[1]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::from(u32::MAX), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                u64::MAX,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            ),
        ] {
            let mut out = Vec::new();
            put(value, &mut out);
            assert_eq!(&out[..], bytes);
            assert_eq!(read(bytes), Ok(Some((value, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn refuses_overlong_and_overflow() {
        let overlong = [
            &[0x80_u8, 0][..],
            &[0xff, 0x80, 0],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
        ];
        for bytes in overlong {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains("more bytes than it needs"), "{error}");
        }
        let mut bytes = [0xff_u8; 10];
        for last in [2, 0x7f, 0x80, 0x81, 0xff] {
            bytes[9] = last;
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains("64 bits"), "{error}");
        }
    }
}
