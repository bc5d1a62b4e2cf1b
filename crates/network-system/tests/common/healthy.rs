//! A client that goes on to make round trips while others misbehave, over any address: [`Healthy`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use network_system::config::ClientConfig;
use network_system::{Backoff, Client, Message};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{round_trip, within};

/// A client that goes on to make round trips while others misbehave. Its server sends messages back.
pub struct Healthy {
    rounds: watch::Receiver<u64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// What it uses.
enum Line {
    /// A socket that knows nothing of this library.
    Plain(TcpStream),
    /// A client, and what comes to it.
    Ours(Client, mpsc::UnboundedReceiver<Message>),
}

impl Line {
    async fn round(&mut self, text: &str) {
        match self {
            Self::Plain(stream) => within(round_trip(stream, text.as_bytes())).await,
            Self::Ours(client, comes) => {
                within(client.send(text.to_owned())).await.unwrap();
                let back = within(comes.recv()).await.unwrap();
                assert_eq!(back, *text);
            }
        }
    }
}

impl Healthy {
    /// Connects a plain socket and starts.
    pub async fn start(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // a pause, or it would be the load itself
        Self::on(Line::Plain(stream), Duration::from_millis(2)).await
    }

    /// Starts a client of ours on any address, with a round and then a `pause`; under paused time, too.
    pub async fn over(url: &str, pause: Duration) -> Self {
        Self::with(url, ClientConfig::default(), pause).await
    }

    /// As [`over`](Self::over), with settings.
    pub async fn with(url: &str, config: ClientConfig, pause: Duration) -> Self {
        let (came, comes) = mpsc::unbounded_channel();
        let client = Client::builder(url)
            .config(config)
            .address(url)
            // a connection that is lost is one that was noticed
            .reconnect(Backoff::never())
            .on_message(move |_, message| {
                let came = came.clone();
                async move { drop(came.send(message)) }
            })
            .connect();
        let client = within(client).await.unwrap();
        Self::on(Line::Ours(client, comes), pause).await
    }

    async fn on(mut line: Line, pause: Duration) -> Self {
        let (count, rounds) = watch::channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            while !stopped.load(Relaxed) {
                let text = format!("round {}", *count.borrow());
                line.round(&text).await;
                count.send_modify(|rounds| *rounds += 1);
                tokio::time::sleep(pause).await;
            }
        });
        let mut healthy = Self { rounds, stop, task };
        healthy.still_works().await;
        healthy
    }

    /// Fails unless more round trips are made from now on.
    pub async fn still_works(&mut self) {
        let now = *self.rounds.borrow();
        let more = self.rounds.wait_for(|rounds| *rounds >= now + 3);
        assert!(within(more).await.is_ok(), "the healthy client has failed");
    }

    /// Ends it after a last look.
    pub async fn finish(mut self) {
        self.still_works().await;
        self.stop.store(true, Relaxed);
        within(self.task).await.unwrap();
    }
}
