//! Our client in a measurement: the handler-level API for everything that is under load. Workloads
//! that open connections one after another use the coroutine level.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use network_system::config::{ClientConfig, TlsClientConfig};
use network_system::{
    Backoff, Client, ClientBuilder, Connection, Handler, Inbox, MessageRef, Session, Workers,
};
use tokio::sync::mpsc;

use super::error::{Error, Result};
use super::ours_server::{certificate, failed, runtime, worker};
use super::plan::Workload;
use super::raw_client::MOST_CONNECTS;
use super::raw_frames::closed;
use super::roles::{ClientArgs, Outcome, Stopwatch, hold, publish};
use super::statistics::Latencies;
use super::verify::{COUNT, ECHO, Pattern, Tally, request, set_sequence};
use super::way::Way;

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
    let pipeline = args.way().pipeline()?;
    let builder = pipeline.into_iter().fold(builder, ClientBuilder::pipeline);
    builder
        .tls(tls(args))
        .workers(workers)
        .handler(handler)
        .start()
        .map_err(failed)
}

/// Trusts the server's own certificate, where it has one.
fn tls(args: &ClientArgs) -> TlsClientConfig {
    let none = TlsClientConfig::default();
    let ca = args.ca.as_deref().map(certificate);
    ca.into_iter().fold(none, TlsClientConfig::ca)
}

/// Reports the end of a connection that had not finished.
fn lost<T>(report: &Report<T>, reason: &network_system::CloseReason) {
    let _ = report.send(Err(Error::Failed(format!(
        "the connection ended: {reason}"
    ))));
}

struct Streamer {
    pattern: Pattern,
    way: Way,
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
        if let Err(error) = self.way.check(session.info()) {
            let _ = self.report.send(Err(error));
            return Ok(());
        }
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
    let pattern = args.pattern(COUNT)?;
    let sent = Mutex::new(None);
    let workers = Workers::with_config(1, &worker(args.busy_poll)).map_err(failed)?;
    let client = client(
        args,
        &workers,
        Streamer {
            pattern,
            way: args.way(),
            span: args.span(),
            sent,
            report,
        },
    )?;
    let outcome = reports.recv().await.unwrap_or_else(|| Err(closed()))?;
    Ok(Outcome {
        wire_bytes: Some(client.statistics().bytes_out),
        ..outcome
    })
}

/// What all connections of a load share.
struct Load {
    pattern: Pattern,
    way: Way,
    window: u64,
    /// How many messages a connection has numbered ahead.
    ahead: u64,
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

/// One connection of a load.
struct Echoer {
    load: Arc<Load>,
    /// Locked once for each batch.
    conversation: Mutex<Conversation>,
}

/// Where a connection is.
#[derive(Default)]
struct Conversation {
    /// The number of the message that comes next.
    next: u64,
    /// The number of the message that is sent next.
    end: u64,
    /// The sum of what came.
    received: u64,
    /// The message that is looked at next, to take its time: one of each window, as raw does, since
    /// a look at the clock costs as much as a message. And when it left.
    timed: u64,
    left: Duration,
    /// Whether nothing more is to be sent.
    over: bool,
    /// The next messages to send, side by side, and where the next one is. They are numbered that
    /// long before: a copy that reads what was just written in other pieces is slow. Raw numbers a
    /// whole window first.
    ahead: Vec<u8>,
    at: usize,
}

/// Bytes of messages that are numbered ahead, unless a single one is larger.
const AHEAD: usize = 1024;

impl Conversation {
    fn new(pattern: &Pattern) -> Self {
        let mut ahead = pattern.message().repeat((AHEAD / pattern.size()).max(1));
        let messages = ahead.chunks_exact_mut(pattern.size());
        messages
            .zip(0..)
            .for_each(|(message, number)| set_sequence(message, number));
        Self {
            ahead,
            ..Self::default()
        }
    }

    /// Checks a message that came back; whether to send one for it.
    #[inline(always)]
    fn receive(&mut self, load: &Load, message: &[u8]) -> Result<bool> {
        let number = self.next;
        let sum = load.pattern.check(message, number)?;
        self.received = self.received.wrapping_add(sum);
        self.next += 1;
        Ok(number != self.timed || self.look(load))
    }

    /// Takes the time of the message that has arrived, and of the one that is sent for it, if one
    /// is.
    #[inline(never)]
    fn look(&mut self, load: &Load) -> bool {
        if !self.over {
            let now = load.watch.now();
            let latency = now.saturating_sub(self.left);
            guard(&load.latencies).add(latency, load.window);
            self.left = now;
            self.timed = self.next - 1 + load.window;
            self.over = now >= load.span;
        }
        if self.over {
            // every message is looked at until all are back
            self.timed = self.next;
            if self.next == self.end {
                let (messages, received) = (self.next, self.received);
                let _ = load.report.send(Ok(Done { messages, received }));
            }
        }
        !self.over
    }

    /// Sends the next message.
    #[inline(always)]
    fn next<R>(&mut self, load: &Load, send: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let (_, ahead) = self.ahead.split_at_mut_checked(self.at)?;
        let (message, others) = ahead.split_at_mut_checked(load.pattern.size())?;
        let sent = send(message);
        // the place comes up again after all others
        set_sequence(message, self.end + load.ahead);
        self.end += 1;
        let next = self.at + message.len();
        self.at = if others.is_empty() { 0 } else { next };
        Some(sent)
    }
}

impl Echoer {
    /// Checks what has come, and sends a message for each.
    fn answer(&self, session: &Session, inbox: &mut Inbox<'_>) -> network_system::Result<()> {
        let (load, conversation) = (&*self.load, &mut *guard(&self.conversation));
        inbox.each(session, |message, outgoing| {
            match conversation.receive(load, message) {
                Ok(true) => {
                    let sent = conversation.next(load, |message| outgoing.send(message));
                    return sent.unwrap_or(Ok(()));
                }
                Ok(false) => {}
                Err(error) => {
                    let _ = load.report.send(Err(error));
                }
            }
            Ok(())
        })
    }
}

impl Handler for Echoer {
    async fn on_connect(&self, session: &Session) -> network_system::Result<()> {
        let load = &*self.load;
        if let Err(error) = load.way.check(session.info()) {
            let _ = load.report.send(Err(error));
            return Ok(());
        }
        guard(&self.conversation).left = load.watch.now();
        for _ in 0..load.window {
            let sending = guard(&self.conversation).next(load, |message| session.send(message));
            sending.unwrap_or_default().await?;
        }
        Ok(())
    }

    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> network_system::Result<()> {
        // all come through `on_batch`
        Ok(())
    }

    async fn on_batch(
        &self,
        session: &Session,
        inbox: &mut Inbox<'_>,
    ) -> network_system::Result<()> {
        self.answer(session, inbox)
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
        pattern: args.pattern(ECHO)?,
        way: args.way(),
        window,
        ahead: (AHEAD / args.size).max(1) as u64,
        span: args.span(),
        watch: Stopwatch::start(),
        latencies: Mutex::new(Latencies::new()?),
        report,
    });
    let workers = Workers::with_config(1, &worker(args.busy_poll)).map_err(failed)?;
    let mut clients = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        let echoer = Echoer {
            load: load.clone(),
            conversation: Mutex::new(Conversation::new(&load.pattern)),
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
    let outcome = load
        .watch
        .stop(messages, sent, received, Some(&latencies))?;
    let wire = clients.iter().map(|client| client.statistics().bytes_out);
    Ok(Outcome {
        wire_bytes: Some(wire.sum()),
        ..outcome
    })
}

async fn connect(args: &ClientArgs) -> Result<Outcome> {
    let pattern = args.pattern(ECHO)?;
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
    let pattern = args.pattern(ECHO)?;
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
    let mut config = ClientConfig {
        tls: tls(args),
        ..ClientConfig::default()
    };
    let way = args.way();
    config.session.pipeline = way.pipeline()?;
    let connecting = network_system::connect_with(&args.url, &config);
    let mut connection = connecting.await.map_err(failed)?;
    way.check(connection.info())?;
    connection.send(pattern.message()).await.map_err(failed)?;
    let back = connection
        .receive()
        .await
        .map_err(failed)?
        .ok_or_else(closed)?;
    Ok((connection, pattern.check(&back, 0)?))
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
