//! HTTP/2 frames written by hand (RFC 9113): a peer that may break every rule.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const HAS_PRIORITY: u8 = 32;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field in HPACK, as a literal without indexing and without Huffman's code (RFC 7541, section 6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        integer(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// An integer with a prefix of seven bits.
fn integer(bytes: &mut Vec<u8>, n: usize) {
    if n < 127 {
        return bytes.push(n as u8);
    }
    bytes.push(127);
    let mut rest = n - 127;
    while rest >= 128 {
        bytes.push(128 | (rest % 128) as u8);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The fields of a request.
pub fn block(method: &str, path: &str, fields: &[(String, String)]) -> Vec<u8> {
    let mut block = field(":method", method);
    block.extend(field(":scheme", "http"));
    block.extend(field(":path", path));
    block.extend(field(":authority", "localhost"));
    for (name, value) in fields {
        block.extend(field(name, value));
    }
    block
}

/// The frames of a request's head.
pub fn headers(
    stream: u32,
    method: &str,
    path: &str,
    fields: &[(String, String)],
    ends: bool,
) -> Vec<u8> {
    let block = block(method, path, fields);
    let end = if ends { END_STREAM } else { 0 };
    let chunks: Vec<_> = block.chunks(16_384).collect();
    let mut bytes = Vec::new();
    for (n, chunk) in chunks.iter().enumerate() {
        let last = if n + 1 == chunks.len() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(match n {
            0 => frame(HEADERS, end | last, stream, chunk),
            _ => frame(CONTINUATION, last, stream, chunk),
        });
    }
    bytes
}

/// A connection of a client that writes its frames by hand.
pub struct Http2 {
    stream: TcpStream,
    /// What has come and was not asked for yet.
    seen: Vec<Frame>,
}

impl Http2 {
    /// Sends the preface and settings, and acknowledges the server's. Answers may not use HPACK's
    /// dynamic table, since nothing here keeps one.
    pub async fn start(stream: TcpStream) -> Self {
        let mut http2 = Self {
            stream,
            seen: Vec::new(),
        };
        http2.send(PREFACE).await;
        http2
            .send(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]))
            .await;
        http2
            .wait(|frame| frame.kind == SETTINGS && frame.flags == 0)
            .await;
        http2.send(&frame(SETTINGS, ACK, 0, &[])).await;
        http2
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        // the server may have closed for a reason that the test looks for
        let _ = within(self.stream.write_all(bytes)).await;
    }

    pub async fn request(&mut self, stream: u32, method: &str, path: &str, ends: bool) {
        self.request_with(stream, method, path, &[], ends).await;
    }

    pub async fn request_with(
        &mut self,
        stream: u32,
        method: &str,
        path: &str,
        fields: &[(String, String)],
        ends: bool,
    ) {
        self.send(&headers(stream, method, path, fields, ends))
            .await;
    }

    pub async fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        self.send(&frame(DATA, u8::from(ends), stream, bytes)).await;
    }

    /// The next frame; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within(self.stream.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        within(self.stream.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// The first frame that is `wanted`, among those that have come or will.
    pub async fn wait(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(place) = self.seen.iter().position(&wanted) {
            return self.seen.remove(place);
        }
        loop {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("closed after {:?}", self.seen));
            if wanted(&frame) {
                return frame;
            }
            self.seen.push(frame);
        }
    }

    /// The status of the answer on a stream.
    pub async fn status(&mut self, stream: u32) -> u16 {
        let frame = self
            .wait(|frame| frame.kind == HEADERS && frame.stream == stream)
            .await;
        status_of(&frame.payload)
    }

    /// The code with which a stream is reset.
    pub async fn reset(&mut self, stream: u32) -> u32 {
        let frame = self
            .wait(|frame| frame.kind == RST_STREAM && frame.stream == stream)
            .await;
        code(&frame.payload)
    }

    /// The code with which the server says goodbye.
    pub async fn goaway(&mut self) -> u32 {
        let frame = self.wait(|frame| frame.kind == GOAWAY).await;
        code(&frame.payload[4..])
    }

    /// Waits until the server closes.
    pub async fn closed(&mut self) {
        while let Some(frame) = self.next().await {
            self.seen.push(frame);
        }
    }
}

fn code(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// The status at the beginning of a block: from HPACK's static table (RFC 7541, appendix A), or a
/// literal with its name from there, plain or in Huffman's code, whose digits have 5 or 6 bits.
fn status_of(block: &[u8]) -> u16 {
    // a change of the table's size may come first
    let block = match block[0] & 0xe0 {
        0x20 => &block[1..],
        _ => block,
    };
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        0x48 | 0x08 | 0x18 => {
            let length = usize::from(block[1] & 127);
            let value = &block[2..2 + length];
            match block[1] & 128 {
                0 => std::str::from_utf8(value).unwrap().parse().unwrap(),
                _ => huffman_digits(value),
            }
        }
        other => panic!("{other:#x} is no status"),
    }
}

fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).fold(0, |code, _| code << 1 | u16::from(bits.next().unwrap()));
        let digit = match five {
            0..3 => five,
            _ => (five << 1 | u16::from(bits.next().unwrap())) - 0b01_1001 + 3,
        };
        number = number * 10 + digit;
    }
    number
}
