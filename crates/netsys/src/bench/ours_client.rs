//! Our client in a measurement: the handler-level API for everything that is under load. Workloads
//! that open connections one after another use the coroutine level.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use network_system::{Backoff, Client, Connection, Handler, MessageRef, Sending, Session, Workers};
use tokio::sync::mpsc;

use super::error::{Error, Result};
use super::ours_server::{failed, runtime};
use super::plan::Workload;
use super::raw_client::MOST_CONNECTS;
use super::raw_frames::closed;
use super::roles::{ClientArgs, Outcome, Stopwatch, hold, publish};
use super::statistics::Latencies;
use super::verify::{COUNT, ECHO, Pattern, Tally, request, sequence, set_sequence};

/// A stream hands over this many bytes before it lets them be written: as raw, which writes from
/// a buffer of this size.
const PIECE: usize = 256 * 1024;

/// Runs the workload of `args`.
pub fn run(args: &ClientArgs) -> Result<Outcome> {
    runtime()?.block_on(async {
        match args.workload {
            Workload::Stream => stream(args).await,
            Workload::Echo | Workload::Ping | Workload::Many => echo(args).await,
            Workload::Connect => connect(args).await,
            Workload::Idle => idle(args).await,
        }
    })
}

/// What a handler says to the main task: nothing at its end, or what failed.
type Report<T> = mpsc::UnboundedSender<Result<T>>;

fn client<H: Handler>(args: &ClientArgs, workers: &Workers, handler: H) -> Result<Client> {
    let builder = Client::builder(&args.url).reconnect(Backoff::never());
    builder
        .workers(workers)
        .handler(handler)
        .start()
        .map_err(failed)
}

/// Reports the end of a connection that had not finished.
fn lost<T>(report: &Report<T>, reason: &network_system::CloseReason) {
    let _ = report.send(Err(Error::Failed(format!(
        "the connection ended: {reason}"
    ))));
}

struct Streamer {
    pattern: Pattern,
    span: Duration,
    /// What was sent so far and since when; `None` before the server has shown that it counts.
    sent: Mutex<Option<(u64, Stopwatch)>>,
    report: Report<Outcome>,
}

impl Streamer {
    /// Sends for the time of the measurement; how many messages.
    async fn fill(&self, session: &Session, watch: &Stopwatch) -> network_system::Result<u64> {
        let mut bytes = self.pattern.message().to_vec();
        let piece = (PIECE / (bytes.len() + 4)).max(1);
        let mut sent = 0;
        while watch.now() < self.span {
            for _ in 0..piece {
                session.send(&bytes[..]).await?;
                sent += 1;
                set_sequence(&mut bytes, sent);
            }
            // between pieces the connection writes
            tokio::task::yield_now().await;
        }
        Ok(sent)
    }

    fn answered(&self, message: &[u8], sent: u64, watch: &Stopwatch) -> Result<Outcome> {
        let tally = Tally::from_answer(message)?;
        tally.confirm(&self.pattern, sent)?;
        watch.stop(sent, self.pattern.total(sent), tally.checksum, None)
    }
}

impl Handler for Streamer {
    async fn on_connect(&self, session: &Session) -> network_system::Result<()> {
        // a server that does not count is found now and not when both ends are full of messages
        session.send(request()).await
    }

    async fn on_message(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> network_system::Result<()> {
        let started = guard(&self.sent).take();
        if let Some((sent, watch)) = started {
            let _ = self.report.send(self.answered(message, sent, &watch));
            return Ok(());
        }
        if let Err(error) = Tally::from_answer(message).and_then(|t| t.confirm(&self.pattern, 0)) {
            let _ = self.report.send(Err(error));
            return Ok(());
        }
        let watch = Stopwatch::start();
        let sent = self.fill(session, &watch).await?;
        *guard(&self.sent) = Some((sent, watch));
        session.send(request()).await
    }

    async fn on_disconnect(&self, _: &Session, reason: &network_system::CloseReason) {
        lost(&self.report, reason);
    }

    fn on_error(&self, _: Option<&Session>, error: &network_system::Error) {
        let _ = self.report.send(Err(failed(error.clone())));
    }
}

async fn stream(args: &ClientArgs) -> Result<Outcome> {
    let (report, mut reports) = mpsc::unbounded_channel();
    let pattern = Pattern::new(COUNT, args.size)?;
    let sent = Mutex::new(None);
    let workers = Workers::new(1).map_err(failed)?;
    let _client = client(
        args,
        &workers,
        Streamer {
            pattern,
            span: args.span(),
            sent,
            report,
        },
    )?;
    reports.recv().await.unwrap_or_else(|| Err(closed()))
}

/// What all connections of a load share.
struct Load {
    pattern: Pattern,
    window: u64,
    span: Duration,
    watch: Stopwatch,
    latencies: Mutex<Latencies>,
    report: Report<Done>,
}

/// A connection that has everything back.
struct Done {
    messages: u64,
    received: u64,
}

/// One connection of a load. Its own task alone writes the numbers, so that they need no lock.
struct Echoer {
    load: Arc<Load>,
    /// The number of the message that comes next.
    next: AtomicU64,
    /// The number of the message that is sent next.
    end: AtomicU64,
    /// The sum of what came.
    received: AtomicU64,
    /// The message whose time is taken: one of each window, as raw does, since a look at the clock
    /// costs as much as a message. When it left, in nanoseconds.
    timed: AtomicU64,
    left: AtomicU64,
    /// Whether nothing more is to be sent.
    over: AtomicBool,
}

/// A message is numbered so many messages before it is sent, where one connection has the thread: a
/// copy that reads what was just written in other pieces is slow. Raw numbers a whole window first.
const AHEAD: usize = 16;

thread_local! {
    /// The next messages to send, side by side.
    static NEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Echoer {
    /// Checks a message that came back; whether to send one for it.
    #[inline(always)]
    fn turn(&self, message: &[u8]) -> Result<bool> {
        let load = &*self.load;
        let next = self.next.load(Relaxed);
        let sum = load.pattern.check(message, next)?;
        let received = self.received.load(Relaxed).wrapping_add(sum);
        self.received.store(received, Relaxed);
        self.next.store(next + 1, Relaxed);
        if next == self.timed.load(Relaxed) {
            self.look(next);
        }
        if self.over.load(Relaxed) {
            self.finish(next + 1);
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes the time of the message that has arrived, and of the one that is sent for it.
    #[inline(never)]
    fn look(&self, arrived: u64) {
        let load = &*self.load;
        let now = load.watch.now();
        let left = Duration::from_nanos(self.left.load(Relaxed));
        guard(&load.latencies).add(now.saturating_sub(left), load.window);
        self.left.store(nanoseconds(now), Relaxed);
        self.timed.store(arrived + load.window, Relaxed);
        if now >= load.span {
            self.over.store(true, Relaxed);
        }
    }

    /// After the time: reports when everything is back.
    #[cold]
    fn finish(&self, arrived: u64) {
        let load = &*self.load;
        if arrived == self.end.load(Relaxed) {
            let _ = load.report.send(Ok(Done {
                messages: arrived,
                received: self.received.load(Relaxed),
            }));
        }
    }

    /// Queues the next message.
    #[inline(always)]
    fn send<'a>(&self, session: &'a Session) -> Sending<'a> {
        let end = self.end.load(Relaxed);
        self.end.store(end + 1, Relaxed);
        let message = self.load.pattern.message();
        let size = message.len();
        NEXT.with_borrow_mut(|bytes| {
            if bytes.len() != AHEAD * size {
                *bytes = message.repeat(AHEAD);
            }
            let at = (end as usize % AHEAD) * size;
            let Some(next) = bytes.get_mut(at..at + size) else {
                return Sending::default();
            };
            if sequence(next) != Some(end) {
                set_sequence(next, end);
            }
            let sending = session.send(&*next);
            set_sequence(next, end + AHEAD as u64);
            sending
        })
    }
}

impl Handler for Echoer {
    async fn on_connect(&self, session: &Session) -> network_system::Result<()> {
        let load = &*self.load;
        self.left.store(nanoseconds(load.watch.now()), Relaxed);
        for _ in 0..load.window {
            self.send(session).await?;
        }
        Ok(())
    }

    #[inline(always)]
    fn on_message(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> impl Future<Output = network_system::Result<()>> + Send {
        match self.turn(message) {
            Ok(true) => self.send(session),
            Ok(false) => Sending::default(),
            Err(error) => {
                let _ = self.load.report.send(Err(error));
                Sending::default()
            }
        }
    }

    async fn on_disconnect(&self, _: &Session, reason: &network_system::CloseReason) {
        lost(&self.load.report, reason);
    }

    fn on_error(&self, _: Option<&Session>, error: &network_system::Error) {
        let _ = self.load.report.send(Err(failed(error.clone())));
    }
}

async fn echo(args: &ClientArgs) -> Result<Outcome> {
    let (report, mut reports) = mpsc::unbounded_channel();
    let window = args.window as u64;
    let load = Arc::new(Load {
        pattern: Pattern::new(ECHO, args.size)?,
        window,
        span: args.span(),
        watch: Stopwatch::start(),
        latencies: Mutex::new(Latencies::new()?),
        report,
    });
    let workers = Workers::new(1).map_err(failed)?;
    let mut clients = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        let echoer = Echoer {
            load: load.clone(),
            next: AtomicU64::new(0),
            end: AtomicU64::new(0),
            received: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            left: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        clients.push(client(args, &workers, echoer)?);
    }
    let (mut messages, mut sent, mut received) = (0, 0u64, 0u64);
    for _ in &clients {
        let done = reports.recv().await.unwrap_or_else(|| Err(closed()))?;
        messages += done.messages;
        sent = sent.wrapping_add(load.pattern.total(done.messages));
        received = received.wrapping_add(done.received);
    }
    let latencies = guard(&load.latencies);
    load.watch.stop(messages, sent, received, Some(&latencies))
}

async fn connect(args: &ClientArgs) -> Result<Outcome> {
    let pattern = Pattern::new(ECHO, args.size)?;
    let mut latencies = Latencies::new()?;
    let (span, watch) = (args.span(), Stopwatch::start());
    let (mut count, mut received, mut last) = (0, 0u64, Duration::ZERO);
    while last < span && count < MOST_CONNECTS {
        let (_, sum) = once(args, &pattern).await?;
        received = received.wrapping_add(sum);
        let now = watch.now();
        latencies.add(now.saturating_sub(last), 1);
        last = now;
        count += 1;
    }
    let sent = pattern.total(1).wrapping_mul(count);
    watch.stop(count, sent, received, Some(&latencies))
}

async fn idle(args: &ClientArgs) -> Result<Outcome> {
    let pattern = Pattern::new(ECHO, args.size)?;
    let watch = Stopwatch::start();
    let mut open = Vec::with_capacity(args.connections);
    let mut received = 0u64;
    for _ in 0..args.connections {
        let (connection, sum) = once(args, &pattern).await?;
        received = received.wrapping_add(sum);
        open.push(connection);
    }
    let count = open.len() as u64;
    let sent = pattern.total(1).wrapping_mul(count);
    publish(&watch.stop(count, sent, received, None)?)?;
    // `open` lives until the process ends
    hold()
}

/// Connects, sends message 0 and checks its echo.
async fn once(args: &ClientArgs, pattern: &Pattern) -> Result<(Connection, u64)> {
    let mut connection = network_system::connect(&args.url).await.map_err(failed)?;
    connection.send(pattern.message()).await.map_err(failed)?;
    let back = connection
        .receive()
        .await
        .map_err(failed)?
        .ok_or_else(closed)?;
    Ok((connection, pattern.check(&back, 0)?))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
