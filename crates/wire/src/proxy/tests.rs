//! Headers as the specification has them, and what is none.

use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, rest].concat()
}

/// 192.0.2.7:56324 to 198.51.100.1:443.
const ENDS: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

fn with_checksum(before: &[u8], after: &[u8]) -> Vec<u8> {
    let rest = [&ENDS, before, &[3, 0, 4, 0, 0, 0, 0], after].concat();
    let mut header = v2(0x21, 0x11, &rest);
    let sum = v2::checksum(&header, after.len()).unwrap();
    let at = header.len() - after.len() - 4;
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    header
}

/// What a reader that asks as it is told makes of a stream: the header, and how much it has read.
fn read(stream: &[u8]) -> Result<(Header, usize), WireError> {
    let mut have = 0;
    loop {
        match parse(&stream[..have])? {
            Parsed::Header(header) => return Ok((header, have)),
            Parsed::Needed(needed) => {
                assert!(needed > have && needed <= MAX_HEADER);
                assert!(needed <= stream.len(), "asks for more than the header");
                have = needed;
            }
        }
    }
}

#[track_caller]
fn is(stream: &[u8], source: Option<&str>) {
    let with_more = [stream, b"more"].concat();
    for stream in [stream, &with_more] {
        let (header, have) = read(stream).unwrap();
        assert_eq!(have, header.length, "nothing behind the header is read");
        let found = match header.whom {
            Whom::Client(client) => Some(client.source.to_string()),
            Whom::Unknown | Whom::Itself => None,
        };
        assert_eq!(found.as_deref(), source);
    }
}

#[track_caller]
fn is_wrong(stream: &[u8], words: &str) {
    let error = parse(stream).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn lines_of_version_1() {
    is(
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
        Some("192.0.2.7:56324"),
    );
    is(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Some("0.0.0.0:0"));
    let longest = "PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"
        .replace("ffff:f...f:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(longest.len(), 104);
    is(
        longest.as_bytes(),
        Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    );
    is(b"PROXY UNKNOWN\r\n", None);
    is(
        b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        None,
    );
}

#[test]
fn lines_that_are_wrong() {
    for (line, words) in [
        ("GET / HTTP/1.1\r\n", "neither version"),
        ("PROXYTCP4", "neither version"),
        ("proxy TCP4", "neither version"),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n", "end in"),
        ("PROXY \n", "end in"),
        ("PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n", "neither TCP4"),
        (
            "PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "more than four",
        ),
        (
            "PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n",
            "more than four",
        ),
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
            "more than four",
        ),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n", "port"),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n", "port"),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 +2\r\n", "port"),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 02\r\n", "port"),
        ("PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n", "address"),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", "address"),
        ("PROXY TCP6 192.0.2.7 ::1 1 2\r\n", "address"),
        ("PROXY TCP6 fe80::1%1 ::1 1 2\r\n", "address"),
        ("PROXY TCP4\r\n", "address"),
        ("PROXY UNKNOWNS\r\n", "neither TCP4"),
    ] {
        is_wrong(line.as_bytes(), words);
    }
    is_wrong(b"PROXY TCP4 \xff\xfe 1 2 3\r\n", "no text");
    is_wrong(
        format!("PROXY UNKNOWN {}", "x".repeat(93)).as_bytes(),
        "107",
    );
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    is_wrong(too_long.as_bytes(), "107");
}

#[test]
fn headers_of_version_2() {
    is(&v2(0x21, 0x11, &ENDS), Some("192.0.2.7:56324"));
    let mut v6 = [0; 36];
    (v6[15], v6[33]) = (1, 80);
    is(&v2(0x21, 0x21, &v6), Some("[::1]:80"));
    is(&v2(0x21, 0x31, &[0; 216]), None);
    is(&v2(0x21, 0x00, b""), None);
    // a health check, whatever it says beside
    is(&v2(0x20, 0x00, b""), None);
    is(&v2(0x20, 0xff, b"anything"), None);
    let whom = |header: &[u8]| read(header).unwrap().0.whom;
    assert_eq!(whom(&v2(0x20, 0x11, &ENDS)), Whom::Itself);
    assert_eq!(whom(&v2(0x21, 0x00, b"")), Whom::Unknown);
    assert_eq!(whom(b"PROXY UNKNOWN\r\n"), Whom::Unknown);
    // extensions that are skipped: an empty one, a name
    let rest = [&ENDS[..], &[4, 0, 0, 2, 0, 3, b'a', b'b', b'c']].concat();
    is(&v2(0x21, 0x11, &rest), Some("192.0.2.7:56324"));
    is(&with_checksum(b"", b""), Some("192.0.2.7:56324"));
    let both = with_checksum(&[4, 0, 1, 0], &[2, 0, 1, b'a']);
    is(&both, Some("192.0.2.7:56324"));
}

#[test]
fn the_checksum_is_the_one_of_the_standard() {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    assert_eq!(crc.checksum(b"123456789"), 0xe306_9283);
}

#[test]
fn headers_of_version_2_that_are_wrong() {
    is_wrong(&v2(0x11, 0x11, &ENDS), "not of version 2");
    is_wrong(&v2(0x22, 0x11, &ENDS), "unknown command");
    is_wrong(&v2(0x21, 0x11, &ENDS[1..]), "too short");
    is_wrong(&v2(0x21, 0x21, &[0; 35]), "too short");
    is_wrong(&v2(0x21, 0x31, &[0; 215]), "too short");
    is_wrong(&v2(0x21, 0x12, &ENDS), "datagrams");
    is_wrong(&v2(0x21, 0x41, &ENDS), "unknown address family");
    is_wrong(&v2(0x21, 0x10, &ENDS), "unknown address family");
    for cut in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0xff, 0xff, 0]] {
        let rest = [&ENDS[..], cut].concat();
        is_wrong(&v2(0x21, 0x11, &rest), "cut short");
    }
    let rest = [&ENDS[..], &[3, 0, 3, 0, 0, 0]].concat();
    is_wrong(&v2(0x21, 0x11, &rest), "not of 4 bytes");
    let good = with_checksum(b"", &[4, 0, 1, 7]);
    for at in 16..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // with another kind it is no checksum any more
        assert!(parse(&bad).is_err() || at == 28, "byte {at} is not covered");
    }
    let rest = [&ENDS[..], &[3, 0, 4, 0, 0, 0, 0]].concat();
    is_wrong(&v2(0x21, 0x11, &rest), "checksum is wrong");
    let large = [V2, &[0x21, 0x11, 0xff, 0xff]].concat();
    assert!(matches!(
        parse(&large),
        Err(WireError::MessageTooLarge {
            length: 65_551,
            limit: MAX_HEADER
        })
    ));
    let most = u16::try_from(MAX_HEADER - 16).unwrap().to_be_bytes();
    let largest = [V2, &[0x21, 0x11], &most].concat();
    assert_eq!(parse(&largest), Ok(Parsed::Needed(MAX_HEADER)));
}

#[test]
fn parts_say_how_much_is_missing() {
    assert_eq!(parse(b""), Ok(Parsed::Needed(15)));
    assert_eq!(parse(b"P"), Ok(Parsed::Needed(15)));
    assert_eq!(parse(b"\r"), Ok(Parsed::Needed(16)));
    assert_eq!(parse(V2), Ok(Parsed::Needed(16)));
    is_wrong(b"\r\n\r\n\0\r\nQUIT ", "neither version");
}
