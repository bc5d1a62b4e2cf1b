//! A framing of your own: a length, the message and a checksum, served like any other.
//!
//! Run it with `cargo run -p network-system --example custom_codec`. Both ends are in it, and a
//! third that damages a message on the way.

use std::time::Duration;

use bytes::BufMut;
use network_system::prelude::*;
use network_system::wire::{Codec, Decoded, Frame, Payload, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// `u16` big-endian length, the message, `u16` big-endian Fletcher-16 checksum of the message.
///
/// A codec has no state: one value serves every connection, both ways.
#[derive(Debug)]
struct Checked;

impl Codec for Checked {
    fn decode(&self, input: &[u8], _examined: usize) -> Result<Decoded, WireError> {
        let Some(length) = input.first_chunk() else {
            return Ok(Decoded::Incomplete { needed: 2 });
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let whole = 2 + length + 2;
        let Some(frame) = input.get(..whole) else {
            // saying how much is needed saves useless calls
            return Ok(Decoded::Incomplete { needed: whole });
        };
        let (body, checksum) = frame.split_at(2 + length);
        if fletcher16(&body[2..]).to_be_bytes() != checksum {
            return Err(WireError::Invalid("the checksum does not match".into()));
        }
        Ok(Decoded::Frame(Frame {
            // where it lies in the input: no copy
            payload: Payload::Range(2..2 + length),
            consumed: whole,
        }))
    }

    fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let Ok(length) = u16::try_from(payload.len()) else {
            return Err(WireError::MessageTooLarge {
                length: payload.len() as u64,
                limit: self.max_message(),
            });
        };
        out.put_u16(length);
        Ok(())
    }

    fn trailer(&self, payload: &[u8], out: &mut Vec<u8>) {
        out.put_u16(fletcher16(payload));
    }

    fn max_message(&self) -> usize {
        u16::MAX.into()
    }
}

fn fletcher16(bytes: &[u8]) -> u16 {
    let (mut low, mut high) = (0_u16, 0_u16);
    for byte in bytes {
        low = (low + u16::from(*byte)) % 255;
        high = (high + low) % 255;
    }
    high << 8 | low
}

fn print_echo(message: Option<Message>) {
    let message = message.unwrap_or_default();
    println!("echo: {}", message.as_str().unwrap_or("(bytes)"));
}

#[tokio::main]
async fn main() -> Result<()> {
    let (echoes, mut echoed) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .framing(Framing::custom(Checked))
        .on_message(|session, message| async move { session.send(message).await })
        .on_error(|_session, error| println!("server: {error}"))
        .start()
        .await?;
    let address = &server.listening()[0];

    let client = Client::builder(address.as_str())
        .framing(Framing::custom(Checked))
        .on_message(move |_session, message| {
            let _ = echoes.send(message);
            async {}
        })
        .connect()
        .await?;
    client.send("checked").await?;
    print_echo(echoed.recv().await);

    // A peer whose bytes are damaged is closed with an error; nobody else notices.
    let mut frame = Vec::new();
    Checked.encode(b"damaged", &mut frame)?;
    frame[3] ^= 1;
    let port = address.port().unwrap_or_default();
    let mut damaged = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| Error::from_io("connect to", error))?;
    damaged
        .write_all(&frame)
        .await
        .map_err(|error| Error::from_io("write to", error))?;
    // the end of the stream (or a reset): the server has closed it
    let answer = damaged.read(&mut [0; 1]).await.unwrap_or(0);
    println!("the damaged connection got {answer} bytes and was closed");

    client.send("still here").await?;
    print_echo(echoed.recv().await);
    client.close(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
