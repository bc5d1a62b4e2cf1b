//! WebSocket by hand, without this library: handshakes and frames as bytes, also wrong ones.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What KEY has to become, from RFC 6455 section 1.3.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A good request, with more fields.
pub fn request(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, \
         Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// Reads a head, up to its empty line.
pub async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    within(async {
        while !head.ends_with(b"\r\n\r\n") {
            match io.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    })
    .await;
    String::from_utf8(head).unwrap()
}

/// A stream on which the handshake is done, and the answer.
pub async fn open(address: SocketAddr, fields: &str) -> (TcpStream, String) {
    let mut stream = within(TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .write_all(request("/", fields).as_bytes())
        .await
        .unwrap();
    let head = head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(ACCEPT), "{head}");
    (stream, head)
}

/// A frame: its first byte, and the payload, behind a mask where there is one.
pub fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(bit | len as u8),
        len @ 126..65_536 => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(bit | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let mask_of = mask.unwrap_or_default();
    bytes.extend_from_slice(mask.as_ref().map_or(&[], |mask| &mask[..]));
    bytes.extend(
        payload
            .iter()
            .zip(mask_of.iter().cycle())
            .map(|(b, m)| b ^ m),
    );
    bytes
}

/// A frame as clients send it.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, Some([0x12, 0x34, 0x56, 0x78]))
}

/// The next frame from a server: its first byte and its payload; `None` at the end.
pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    within(async {
        let first = io.read_u8().await.ok()?;
        let second = io.read_u8().await.ok()?;
        let len = match second & 0x7f {
            126 => usize::from(io.read_u16().await.ok()?),
            127 => io.read_u64().await.ok()? as usize,
            len => usize::from(len),
        };
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            io.read_exact(&mut mask).await.ok()?;
        }
        let mut payload = vec![0; len];
        io.read_exact(&mut payload).await.ok()?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Some((first, payload))
    })
    .await
}

/// Reads up to the close frame: its code, 1005 where it has none, and its words. Nothing but the end
/// of the stream is 1006.
pub async fn read_close(io: &mut (impl AsyncRead + Unpin)) -> (u16, String) {
    while let Some((first, payload)) = read(io).await {
        if first == 0x88 {
            return match payload.split_first_chunk() {
                Some((code, words)) => (
                    u16::from_be_bytes(*code),
                    String::from_utf8(words.to_vec()).unwrap(),
                ),
                None => (1005, String::new()),
            };
        }
    }
    (1006, String::new())
}

/// A close frame of a client.
pub fn close(code: u16, words: &str) -> Vec<u8> {
    masked(0x88, &[&code.to_be_bytes()[..], words.as_bytes()].concat())
}
