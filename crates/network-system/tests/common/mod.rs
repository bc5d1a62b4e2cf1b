//! What the tests share: an echo server that reports how connections end, plain peers that know
//! nothing of this library, and a healthy client that must not notice what others suffer.
#![allow(dead_code)] // not every test needs all of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

pub mod each;
pub mod faults;
mod healthy;
#[cfg(all(feature = "http", unix))]
pub mod http;
#[cfg(feature = "http")]
pub mod http2;
pub mod paused;
#[cfg(all(feature = "compression", feature = "noise"))]
pub mod piped;
pub mod pipes;
#[cfg(feature = "tls")]
pub mod pki;
#[cfg(unix)]
pub mod programs;
pub mod running;
pub mod scripted;
#[cfg(feature = "tls")]
pub mod secure;
#[cfg(feature = "websocket")]
pub mod websockets;

use std::net::SocketAddr;
use std::time::Duration;

#[allow(unused_imports)] // not every test needs it
pub use healthy::Healthy;
use network_system::{
    Address, CloseReason, Error, Events, Ignore, Server, ServerBuilder, Session, Sessions,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Nothing that works takes this long, on a slow and busy machine either.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Fails the test when `work` hangs.
#[track_caller]
pub fn within<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(LIMIT, work).await {
            Ok(result) => result,
            Err(_) => panic!("hangs for {LIMIT:?}, called at {place}"),
        }
    }
}

/// Waits for something that no event announces.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let until = tokio::time::Instant::now() + LIMIT;
        while !holds() {
            let late = tokio::time::Instant::now() > until;
            assert!(!late, "never: {what}, waited for at {place}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Time passes for timers, in one leap; sockets live on. In a runtime of one thread.
pub async fn leap(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// The bytes of one message in the default framing, made without this library.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads one message in the default framing; `None` at the end.
pub async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match io.read_exact(&mut length).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    };
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    io.read_exact(&mut payload).await?;
    Ok(Some(payload))
}

/// Sends `payload` over a stream of default frames, and fails unless it comes back.
pub async fn round_trip(io: &mut (impl AsyncRead + AsyncWrite + Unpin), payload: &[u8]) {
    io.write_all(&frame(payload)).await.unwrap();
    let back = read_frame(io).await.unwrap().expect("an answer");
    assert!(back == payload, "{} bytes came back", back.len());
}

/// Reads to the end and tells how it came: in good order, or with an error such as a reset.
pub async fn read_to_end(io: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, std::io::Result<()>) {
    let mut all = Vec::new();
    let result = within(io.read_to_end(&mut all)).await.map(|_| ());
    (all, result)
}

/// The socket address of an address with host and port.
pub fn socket_address(address: &Address) -> SocketAddr {
    let (host, port) = address.host_and_port().unwrap();
    let host = match host {
        "" => "127.0.0.1",
        host => host,
    };
    SocketAddr::new(host.parse().unwrap(), port)
}

/// How one connection of an [`Echo`] ended.
#[derive(Clone, Debug)]
pub struct End {
    pub session: Session,
    pub reason: CloseReason,
}

/// A server on loopback that sends every message back, and what it reported.
pub struct Echo {
    pub server: Server,
    pub ends: mpsc::UnboundedReceiver<End>,
    pub errors: mpsc::UnboundedReceiver<(Option<Session>, Error)>,
}

pub type Builder = ServerBuilder<Events<Ignore>>;

/// An echo server on `tcp://127.0.0.1:0` with the settings that `configure` makes.
pub async fn echo(configure: impl FnOnce(Builder) -> Builder) -> Echo {
    echo_on(&["tcp://127.0.0.1:0"], configure).await
}

/// An echo server on these addresses.
pub async fn echo_on(addresses: &[&str], configure: impl FnOnce(Builder) -> Builder) -> Echo {
    let (ended, ends) = mpsc::unbounded_channel();
    let (failed, errors) = mpsc::unbounded_channel();
    let builder = addresses
        .iter()
        .fold(Server::builder(), |b, a| b.listen(*a));
    let server = configure(builder)
        .on_disconnect(move |session, reason| {
            let _ = ended.send(End {
                session: session.clone(),
                reason: reason.clone(),
            });
        })
        .on_error(move |session, error| {
            let _ = failed.send((session.cloned(), error.clone()));
        })
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    Echo {
        server,
        ends,
        errors,
    }
}

impl Echo {
    /// The first address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        socket_address(&self.server.listening()[0])
    }

    pub fn url(&self) -> &str {
        self.server.listening()[0].as_str()
    }

    /// A plain connection.
    pub async fn dial(&self) -> TcpStream {
        within(TcpStream::connect(self.address())).await.unwrap()
    }

    /// How the next connection ends; it is counted and out of the table then.
    pub async fn next_end(&mut self) -> CloseReason {
        let end = within(self.ends.recv()).await.unwrap();
        within(end.session.ended()).await;
        end.reason
    }

    /// The next error that was reported.
    pub async fn next_error(&mut self) -> Error {
        within(self.errors.recv()).await.unwrap().1
    }

    /// How many connections have ended for this reason.
    pub fn ended(&self, label: &str) -> u64 {
        ended(&self.server, label)
    }
}

/// How many connections of a server have ended for this reason.
pub fn ended(server: &Server, label: &str) -> u64 {
    let ended = server.statistics().connections_ended;
    ended.get(label).copied().unwrap_or(0)
}

/// The only live session, once there is one.
pub async fn only_session(sessions: &Sessions) -> Session {
    eventually("one session", || sessions.len() == 1).await;
    sessions.all().remove(0)
}
