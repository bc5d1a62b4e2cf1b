//! The loads: what asks the servers for the whole time, each through another part of the library.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use network_system::config::ClientConfig;
use network_system::{
    Backoff, BreakerConfig, CircuitBreaker, Client, ConnectionPool, Error, ErrorKind, PoolConfig,
    RequestPool, RequestPoolConfig, Session, connect_with,
};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::Result;
use crate::question::{self, Question};
use crate::tally::Tally;

/// The deadline of every question.
const DEADLINE: Duration = Duration::from_secs(2);

/// Tasks, and how often each of them asks: 2040 questions a second in all.
const POOL: (usize, Duration) = (40, Duration::from_millis(50));
const REQUESTS: (usize, Duration) = (40, Duration::from_millis(50));
const CLIENT: (usize, Duration) = (10, Duration::from_millis(50));
const MESSAGES: (usize, Duration) = (1, Duration::from_millis(5));
const BREAKER: (usize, Duration) = (4, Duration::from_millis(100));

/// For how many milliseconds a lent connection is kept after its answer, at most.
const HOLD: u64 = 20;

/// Everything that asks.
pub struct Loads {
    pub pool: ConnectionPool,
    pub requests: RequestPool,
    pub client: Arc<Client>,
    pub breaker: CircuitBreaker,
    pub tallies: Vec<Arc<Tally>>,
    pub messages: Arc<Messages>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// Messages of the client, and the answers that came: in order, none twice.
pub struct Messages {
    tally: Arc<Tally>,
    pub sent: AtomicU64,
    /// Those of them that were sent while there was no connection.
    pub kept: AtomicU64,
    last: AtomicU64,
}

impl Messages {
    /// An answer may be missing, when a server died with the message, but no more than that.
    fn answered(&self, given: &[u8]) {
        let Some(question) = question::of(given) else {
            return self.tally.defect("an answer without a number");
        };
        let before = self.last.swap(question.0, Relaxed);
        if before >= question.0 {
            let what = format!("the answer to {} came after {before}", question.0);
            self.tally.defect(&what);
        } else {
            self.tally.result(question, Ok(given));
        }
    }
}

/// How connections are made: lost ones are made again soon.
fn connecting() -> ClientConfig {
    let mut config = ClientConfig {
        connect_timeout: DEADLINE,
        reconnect: Backoff::every(Duration::from_millis(50)),
        ..ClientConfig::default()
    };
    config.session.envelope = true;
    config.session.request_timeout = DEADLINE;
    config
}

/// As the others', so that servers that are up again are soon asked again.
fn breaking() -> BreakerConfig {
    let mut config = BreakerConfig::default();
    config.open_for = Duration::from_millis(500);
    config
}

fn pool() -> network_system::Result<ConnectionPool> {
    let mut config = PoolConfig::default();
    config.max_per_address = 8;
    config.max_total = 20; // less than thrice that, so that they make room for each other
    config.acquire_timeout = DEADLINE;
    config.idle_timeout = Duration::from_millis(500);
    config.max_age = Duration::from_secs(4);
    config.check_interval = Duration::from_secs(1);
    config.breaker = Some(breaking());
    config.client = connecting();
    ConnectionPool::new(config)
}

fn requests(urls: &[String]) -> network_system::Result<RequestPool> {
    let mut config = RequestPoolConfig::default();
    config.balancer.ejection = Duration::from_secs(1);
    config.balancer.max_ejection = Duration::from_secs(2);
    config.breaker = Some(breaking());
    config.hedge_after = Some(Duration::from_millis(20));
    config.client = connecting();
    RequestPool::new(urls.iter().cloned(), config)
}

impl Loads {
    pub async fn start(urls: &[String]) -> Result<Self> {
        let names = ["pool", "requests", "client", "messages", "breaker"];
        let tallies: Vec<_> = names.map(|name| Arc::new(Tally::new(name))).into();
        let messages = Arc::new(Messages {
            tally: tallies[3].clone(),
            sent: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            last: AtomicU64::new(0),
        });
        let heard = messages.clone();
        let client = Client::builder(&urls[0])
            .config(connecting())
            .on_message(move |_: Session, message| {
                heard.answered(&message);
                async {}
            })
            .start()?;
        let mut loads = Self {
            pool: pool()?,
            requests: requests(urls)?,
            client: Arc::new(client),
            breaker: CircuitBreaker::new(breaking()),
            tallies,
            messages,
            tasks: Vec::new(),
            stop: watch::Sender::new(false),
        };
        for url in urls {
            loads.pool.keep_warm(url, 2)?;
        }
        timeout(DEADLINE, loads.client.connected()).await??;
        loads.ask_all(urls);
        Ok(loads)
    }

    fn ask_all(&mut self, urls: &[String]) {
        let (pool, all) = (self.pool.clone(), urls.to_vec());
        self.ask(POOL, self.tallies[0].clone(), move |tally| {
            let (pool, url) = (pool.clone(), all[fastrand::usize(..all.len())].clone());
            async move { lend(&pool, &url, &tally).await }
        });
        let requests = self.requests.clone();
        self.ask(REQUESTS, self.tallies[1].clone(), move |tally| {
            let requests = requests.clone();
            async move {
                let question = Question::new();
                let result = match question.0 % 10 {
                    0 => requests.request(question.text()).await,
                    _ => requests.request_idempotent(question.text()).await,
                };
                tally.result(question, result);
            }
        });
        let client = self.client.clone();
        self.ask(CLIENT, self.tallies[2].clone(), move |tally| {
            let client = client.clone();
            async move {
                let question = Question::new();
                tally.result(question, client.request(question.text()).await);
            }
        });
        let (client, messages) = (self.client.clone(), self.messages.clone());
        self.ask(MESSAGES, self.tallies[3].clone(), move |tally| {
            let (client, messages) = (client.clone(), messages.clone());
            async move {
                let kept = u64::from(client.session().is_none());
                messages.kept.fetch_add(kept, Relaxed);
                match client.send(Question::new().text()).await {
                    Ok(()) => drop(messages.sent.fetch_add(1, Relaxed)),
                    Err(error) => tally.error(&error),
                }
            }
        });
        let (breaker, url) = (self.breaker.clone(), urls[1].clone());
        self.ask(BREAKER, self.tallies[4].clone(), move |tally| {
            let (breaker, url) = (breaker.clone(), url.clone());
            async move {
                let question = Question::new();
                let call = breaker.call(one_connection(&url, question));
                match timeout(DEADLINE, call).await {
                    Ok(result) => tally.result(question, result),
                    Err(_) => tally.late(),
                }
            }
        });
    }

    /// Tasks that ask at an even pace until they are stopped.
    fn ask<F: Future<Output = ()> + Send>(
        &mut self,
        (tasks, every): (usize, Duration),
        tally: Arc<Tally>,
        one: impl Fn(Arc<Tally>) -> F + Clone + Send + 'static,
    ) {
        for n in 0..tasks {
            let (tally, one, stop) = (tally.clone(), one.clone(), self.stop.subscribe());
            let first = Instant::now() + every * n as u32 / tasks as u32;
            self.tasks.push(tokio::spawn(async move {
                let mut pace = interval_at(first, every);
                pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
                while !*stop.borrow() {
                    pace.tick().await;
                    one(tally.clone()).await;
                }
            }));
        }
    }

    /// Stops what asks, and closes every part; whether the pool got all its connections back, and
    /// the client's messages have all gone out.
    pub async fn end(self) -> Result<bool> {
        self.stop.send_replace(true);
        for task in self.tasks {
            timeout(DEADLINE * 5, task).await??;
        }
        let waiting = self.client.offline_queue() != (0, 0);
        if let Ok(client) = Arc::try_unwrap(self.client) {
            client.close(DEADLINE).await;
        }
        let returned = self.pool.close(DEADLINE).await;
        Ok(returned && !waiting)
    }
}

/// Lends a connection, asks over it, and returns it; one of 500 is discarded, and one of 1000
/// is given up in the middle of its exchange.
async fn lend(pool: &ConnectionPool, url: &str, tally: &Tally) {
    let question = Question::new();
    let mut lent = match pool.acquire(url).await {
        Ok(lent) => lent,
        Err(error) => return tally.error(&error),
    };
    if question.0 % 1000 == 1 {
        // polled once: the question is on its way, and its answer must be nobody else's
        let given_up = timeout(Duration::ZERO, lent.exchange(question.text())).await;
        return given_up.map_or_else(|_| tally.right(), |given| tally.result(question, given));
    }
    match timeout(DEADLINE, lent.exchange(question.text())).await {
        Ok(result) => tally.result(question, result),
        Err(_) => tally.late(),
    }
    // so that there are not always enough of them
    let hold = fastrand::u64(..HOLD);
    tokio::time::sleep(Duration::from_millis(hold)).await;
    if question.0 % 500 == 2 {
        lent.discard();
    }
}

/// Asks over a connection of its own.
async fn one_connection(url: &str, question: Question) -> network_system::Result<Vec<u8>> {
    let mut connection = connect_with(url, &connecting()).await?;
    connection.send(question.text()).await?;
    let answer = connection.receive().await?;
    connection.close().await?;
    // a killed server that had nothing unread closes in good order
    let closed = || Error::new(ErrorKind::ConnectionClosed, "receive from").peer(url);
    Ok(answer.ok_or_else(closed)?.as_bytes().to_vec())
}
