//! tokio and tokio-util's `LengthDelimitedCodec`: the usual hand-made Rust answer.

use bytes::{Bytes, BytesMut};
use peers::stream_sink::{Peer, Serve, run};
use peers::{dial, listener, ready};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

struct Codec;

fn framed(s: TcpStream) -> Framed<TcpStream, LengthDelimitedCodec> {
    let mut f = Framed::with_capacity(s, LengthDelimitedCodec::new(), 64 * 1024);
    f.set_backpressure_boundary(64 * 1024);
    f
}

impl Peer for Codec {
    type In = BytesMut;
    type Out = Bytes;
    type Err = std::io::Error;
    type Conn = Framed<TcpStream, LengthDelimitedCodec>;
    fn bytes(m: &BytesMut) -> &[u8] {
        m
    }
    fn reply(m: BytesMut) -> Bytes {
        m.freeze()
    }
    fn make(b: Bytes) -> Bytes {
        b
    }
    async fn connect(port: u16) -> Self::Conn {
        framed(dial(port).await)
    }
    async fn listen(port: u16) {
        let l = listener(port);
        ready();
        loop {
            if let Ok((s, _)) = l.accept().await {
                tokio::spawn(Serve::<Codec>::new(framed(s)));
            }
        }
    }
}

fn main() {
    run::<Codec>();
}
