//! A load of clients of the library, none of whose requests may fail: [`Requests`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use network_system::config::{ClientConfig, TlsClientConfig};
use network_system::{Client, Error, connect_with};

use super::LIMIT;

/// How a client goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Over one client for all time, which connects again only where the server tells it to go.
    Lasting,
    /// A client for every few requests.
    Fresh,
    /// A connection without the envelope for every few messages, which are echoed.
    Plain,
}

/// Clients in a thread of their own.
pub struct Requests {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<String>>,
}

struct Shared {
    stop: AtomicBool,
    /// What came back, for each client.
    done: Vec<AtomicU64>,
}

impl Requests {
    /// One client of each of these kinds, all of them with these settings.
    pub fn start(url: &str, config: &ClientConfig, kinds: &[Kind]) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            done: kinds.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        let (url, config, kinds) = (url.to_owned(), config.clone(), kinds.to_vec());
        let thread = {
            let shared = shared.clone();
            std::thread::spawn(move || run(&url, &config, &kinds, &shared))
        };
        Self { shared, thread }
    }

    /// Waits for so many more of each client.
    pub fn more(&self, count: u64) {
        let began = Instant::now();
        for done in &self.shared.done {
            let goal = done.load(Relaxed) + count;
            while done.load(Relaxed) < goal {
                assert!(!self.thread.is_finished(), "a request has failed");
                assert!(began.elapsed() < LIMIT, "the load does not get on");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Ends it: how many requests there were, none of which has failed.
    pub fn finish(self) -> u64 {
        self.shared.stop.store(true, Relaxed);
        assert_eq!(self.thread.join().unwrap(), Vec::<String>::new());
        let done = self.shared.done.iter();
        done.map(|done| done.load(Relaxed)).sum()
    }
}

/// Settings of such clients, which trust this authority.
pub fn trusting(ca: &str) -> ClientConfig {
    ClientConfig {
        tls: TlsClientConfig::default().ca(ca),
        ..ClientConfig::default()
    }
}

fn run(url: &str, config: &ClientConfig, kinds: &[Kind], shared: &Arc<Shared>) -> Vec<String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for (n, kind) in kinds.iter().enumerate() {
            let one = One {
                number: n,
                kind: *kind,
                url: url.to_owned(),
                config: config.clone(),
                shared: shared.clone(),
            };
            clients.spawn(async move {
                let result = one.run().await;
                result.map_err(|error| format!("{:?} {}: {error}", one.kind, one.number))
            });
        }
        let mut failures = Vec::new();
        while let Some(ended) = clients.join_next().await {
            if let Err(failure) = ended.unwrap() {
                // the others need not go on
                shared.stop.store(true, Relaxed);
                failures.push(failure);
            }
        }
        failures
    })
}

/// One client.
struct One {
    number: usize,
    kind: Kind,
    url: String,
    config: ClientConfig,
    shared: Arc<Shared>,
}

impl One {
    async fn run(&self) -> Result<(), Error> {
        let mut next = 0;
        match self.kind {
            Kind::Lasting => {
                let client = self.client().await?;
                while self.goes_on() {
                    self.request(&client, next).await?;
                    next += 1;
                }
                client.close(LIMIT).await;
            }
            Kind::Fresh => {
                while self.goes_on() {
                    let client = self.client().await?;
                    for _ in 0..3 {
                        self.request(&client, next).await?;
                        next += 1;
                    }
                    client.close(LIMIT).await;
                }
            }
            Kind::Plain => {
                while self.goes_on() {
                    let mut connection = connect_with(&self.url, &self.config).await?;
                    let text = text(next);
                    next += 1;
                    connection.send(&*text).await?;
                    let back = connection.receive().await?;
                    assert!(back.is_some_and(|back| back == text), "not what was sent");
                    self.count();
                    connection.close().await?;
                }
            }
        }
        Ok(())
    }

    async fn client(&self) -> Result<Client, Error> {
        let mut config = self.config.clone();
        config.session.envelope = true;
        Client::builder(&self.url).config(config).connect().await
    }

    async fn request(&self, client: &Client, n: usize) -> Result<(), Error> {
        let text = text(n);
        let back = client.request(text.clone()).await?;
        assert!(back == text, "not what was asked");
        self.count();
        Ok(())
    }

    fn goes_on(&self) -> bool {
        !self.shared.stop.load(Relaxed)
    }

    fn count(&self) {
        self.shared.done[self.number].fetch_add(1, Relaxed);
    }
}

/// Most are short, and one of sixteen takes several reads.
fn text(n: usize) -> String {
    match n % 16 {
        0 => format!("{n} ").repeat(30_000),
        _ => format!("message {n}"),
    }
}
