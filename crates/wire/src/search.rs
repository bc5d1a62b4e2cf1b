//! Byte search for the codecs that look for the end of a message.

use std::io::BufRead;

/// Offset of the first `byte` in `haystack`.
///
/// `BufRead` on a slice does no IO; it is the way to the standard library's `memchr`, which scans many bytes per step where
/// a loop written here would take one.
pub(crate) fn find_byte(haystack: &[u8], byte: u8) -> Option<usize> {
    let mut rest = haystack;
    let last = rest.skip_until(byte).ok()?.checked_sub(1)?;
    (haystack.get(last) == Some(&byte)).then_some(last)
}

/// Offset of the byte after the first `needle` in `haystack` that ends at `from` or later.
///
/// Candidates are found by the last byte of the needle: whether it ends before `from` was seen by an earlier search, even
/// where it had begun, so nothing is looked at twice. An empty needle is never found.
pub(crate) fn find_end(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let last = *needle.last()?;
    let mut at = from;
    loop {
        at += find_byte(haystack.get(at..)?, last)? + 1;
        if haystack.get(..at)?.ends_with(needle) {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_byte() {
        assert_eq!(find_byte(b"", b'x'), None);
        assert_eq!(find_byte(b"abc", b'x'), None);
        assert_eq!(find_byte(b"x", b'x'), Some(0));
        assert_eq!(find_byte(b"abxcx", b'x'), Some(2));
        let long = [vec![0; 1000], vec![7]].concat();
        assert_eq!(find_byte(&long, 7), Some(1000));
    }

    #[test]
    fn finds_the_first_needle() {
        assert_eq!(find_end(b"", b"ab", 0), None);
        assert_eq!(find_end(b"b", b"ab", 0), None);
        assert_eq!(find_end(b"bbab", b"ab", 0), Some(4));
        assert_eq!(find_end(b"aaab", b"aab", 0), Some(4));
        assert_eq!(find_end(b"aaa", b"aa", 0), Some(2));
        assert_eq!(find_end(b"abc", b"", 0), None);
    }

    #[test]
    fn resumes_inside_a_needle() {
        // The needle has begun in the part that was searched already, and ends behind it.
        assert_eq!(find_end(b"xx\r\n", b"\r\n", 3), Some(4));
        assert_eq!(find_end(b"xx\r\n", b"\r\n", 4), None);
        assert_eq!(find_end(b"xx\r\n", b"\r\n", 5), None);
    }
}
