//! tokio-tungstenite: WebSocket, binary messages.

use bytes::Bytes;
use peers::stream_sink::{Peer, Serve, run};
use peers::{dial, listener, ready};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

struct Ws;

impl Peer for Ws {
    type In = Message;
    type Out = Message;
    type Err = Error;
    type Conn = WebSocketStream<TcpStream>;
    fn bytes(m: &Message) -> &[u8] {
        match m {
            Message::Binary(b) => b,
            _ => &[],
        }
    }
    fn reply(m: Message) -> Message {
        m
    }
    fn make(b: Bytes) -> Message {
        Message::Binary(b)
    }
    async fn connect(port: u16) -> Self::Conn {
        client_async("ws://localhost/", dial(port).await)
            .await
            .expect("handshake")
            .0
    }
    async fn listen(port: u16) {
        let l = listener(port);
        ready();
        loop {
            if let Ok((s, _)) = l.accept().await {
                tokio::spawn(async move {
                    if let Ok(w) = accept_async(s).await {
                        Serve::<Ws>::new(w).await;
                    }
                });
            }
        }
    }
}

fn main() {
    run::<Ws>();
}
