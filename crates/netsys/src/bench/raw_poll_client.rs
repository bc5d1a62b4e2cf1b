//! The raw client for many connections, or for a window that is too large for blocking sockets.

use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll, Registry, Token};

use super::error::{Context, Error, Result};
use super::raw_client::dial;
use super::raw_frames::{Buffer, closed, pack, turn_round};
use super::raw_poll::{Line, Turn};
use super::roles::{ClientArgs, Outcome, Stopwatch};
use super::statistics::{Flight, Latencies};
use super::verify::{ECHO, Pattern};

/// No event for so long while messages are under way: they are lost.
const SILENCE: Duration = Duration::from_secs(10);

/// Keeps a window of messages under way on each connection for the time of `args`.
pub fn run(args: &ClientArgs) -> Result<Outcome> {
    let mut poll = Poll::new().context("cannot make an event loop")?;
    let mut load = Load::new(args, poll.registry())?;
    let mut events = Events::with_capacity(256);
    load.start()?;
    while load.under_way > 0 {
        match poll.poll(&mut events, Some(SILENCE)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.context("cannot wait for events")?,
        }
        if events.is_empty() {
            let (count, limit) = (load.under_way, SILENCE.as_secs());
            return Err(Error::Failed(format!(
                "delivery failed: {count} messages did not come back within {limit} s"
            )));
        }
        for event in &events {
            load.handle(event)?;
        }
    }
    load.finish()
}

/// A connection, what is expected on it next, and when that left.
struct Conversation {
    line: Line,
    next: u64,
    flight: Flight,
}

struct Load {
    registry: Registry,
    conversations: Vec<Conversation>,
    buffer: Buffer,
    pattern: Pattern,
    window: u64,
    span: Duration,
    watch: Stopwatch,
    latencies: Latencies,
    under_way: u64,
    received: u64,
}

impl Load {
    fn new(args: &ClientArgs, registry: &Registry) -> Result<Self> {
        let registry = registry.try_clone().context("cannot make an event loop")?;
        let mut conversations = Vec::with_capacity(args.connections);
        for index in 0..args.connections {
            let stream = dial(&args.url)?;
            stream
                .set_nonblocking(true)
                .context("cannot make a socket non-blocking")?;
            let line = Line::new(TcpStream::from_std(stream), Token(index), &registry)
                .context("cannot watch a socket")?;
            conversations.push(Conversation {
                line,
                next: 0,
                flight: Flight::default(),
            });
        }
        Ok(Self {
            registry,
            conversations,
            buffer: Buffer::new(args.size),
            pattern: args.pattern(ECHO)?,
            window: args.window as u64,
            span: args.span(),
            watch: Stopwatch::start(),
            latencies: Latencies::new()?,
            under_way: 0,
            received: 0,
        })
    }

    fn start(&mut self) -> Result<()> {
        let first = pack(
            &self.pattern,
            usize::try_from(self.window).context("--window")?,
        );
        self.watch = Stopwatch::start();
        for conversation in &mut self.conversations {
            conversation.flight.left(self.window, self.watch.now());
            conversation
                .line
                .send(&self.registry, &first)
                .context("cannot send")?;
            self.under_way += self.window;
        }
        Ok(())
    }

    #[inline]
    fn handle(&mut self, event: &Event) -> Result<()> {
        let Self {
            registry,
            buffer,
            pattern,
            window,
            span,
            watch,
            ..
        } = self;
        let Some(Conversation { line, next, flight }) = self.conversations.get_mut(event.token().0)
        else {
            return Ok(());
        };
        line.write_rest().context("cannot send")?;
        loop {
            // Reading goes on while writes are blocked: the server may be waiting for it.
            let turn = line.read(buffer, |line, bytes| {
                let now = watch.now();
                let before = *next;
                let (used, sum) = turn_round(bytes, pattern, next, *window)?;
                self.received = self.received.wrapping_add(sum);
                flight.arrived(*next, now, &mut self.latencies);
                if now >= *span {
                    self.under_way -= *next - before;
                } else if used > 0 {
                    flight.left(*next + *window, now);
                    let back = bytes.get(..used).unwrap_or_default();
                    line.send(registry, back).context("cannot send")?;
                }
                Ok::<_, Error>(used)
            })?;
            match turn {
                Turn::Last | Turn::Nothing => return Ok(()),
                Turn::Again => {}
                Turn::End => return Err(closed()),
            }
        }
    }

    fn finish(&self) -> Result<Outcome> {
        let total = |sum: u64, conversation: &Conversation| {
            sum.wrapping_add(self.pattern.total(conversation.next))
        };
        let sent = self.conversations.iter().fold(0, total);
        let messages = self
            .conversations
            .iter()
            .map(|conversation| conversation.next)
            .sum();
        self.watch
            .stop(messages, sent, self.received, Some(&self.latencies))
    }
}
