//! Servers whose handlers take their messages through `Inbox::each`, and peers with small buffers.

use network_system::config::{OutboxConfig, ServerConfig, SessionConfig, SocketOptions};
use network_system::{
    Handler, Inbox, MessageRef, Outgoing, OverflowPolicy, Result, Server, Session,
};
use tokio::net::{TcpSocket, TcpStream};

use super::socket_address;

/// A handler whose messages all go through `each`.
pub struct Each<F>(pub F);

impl<F> Handler for Each<F>
where
    F: Fn(&Session, &MessageRef<'_>, &mut Outgoing<'_>) -> Result<()> + Send + Sync + 'static,
{
    async fn on_message(&self, _: &Session, message: &MessageRef<'_>) -> Result<()> {
        panic!("{message:?} came alone");
    }

    async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
        inbox.each(session, |message, outgoing| {
            (self.0)(session, message, outgoing)
        })
    }
}

/// A server with such a handler.
pub async fn serve<F>(url: &str, config: ServerConfig, work: F) -> Server
where
    F: Fn(&Session, &MessageRef<'_>, &mut Outgoing<'_>) -> Result<()> + Send + Sync + 'static,
{
    let builder = Server::builder().config(config).listen(url);
    builder.handler(Each(work)).start().await.unwrap()
}

/// Settings with which the outbox is what fills.
pub fn config(workers: usize, high: usize, overflow: OverflowPolicy) -> ServerConfig {
    ServerConfig {
        workers,
        session: SessionConfig {
            outbox: OutboxConfig {
                high,
                low: high / 4,
                overflow,
            },
            ..SessionConfig::default()
        },
        // so that it is our queue that fills, and not the system's
        socket: SocketOptions {
            send_buffer: Some(8 * 1024),
            ..SocketOptions::default()
        },
        ..ServerConfig::default()
    }
}

/// A connection whose receive buffer is small, too.
pub async fn connect(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let address = socket_address(&server.listening()[0]);
    socket.connect(address).await.unwrap()
}
