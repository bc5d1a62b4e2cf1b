//! The raw client for one connection at a time: blocking sockets.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::error::{Context, Error, Result};
use super::plan::Workload;
use super::raw_frames::{BUFFER, Inbox, PREFIX, closed, frame, number, pack, turn_round};
use super::raw_poll_client;
use super::raw_server::address;
use super::roles::{ClientArgs, Outcome, Stopwatch, hold, publish};
use super::statistics::{Flight, Latencies};
use super::verify::{COUNT, ECHO, Pattern, Tally, request};

/// A window up to this size is under way in the sockets' buffers, so that a client that writes
/// before it reads cannot block a server that does the same.
const SAFE_WINDOW: usize = 64 * 1024;

/// A measurement opens at most this many connections: more would run out of ports, since each
/// one keeps its port for a minute.
pub const MOST_CONNECTS: u64 = 5000;

/// How long a server may take to answer the question what arrived.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Runs the workload of `args`.
pub fn run(args: &ClientArgs) -> Result<Outcome> {
    match args.workload {
        Workload::Stream => stream(args),
        Workload::Echo if args.window * (PREFIX + args.size) > SAFE_WINDOW => {
            raw_poll_client::run(args)
        }
        Workload::Echo | Workload::Ping => echo(args),
        Workload::Many => raw_poll_client::run(args),
        Workload::Connect => connect(args),
        Workload::Idle => idle(args),
    }
}

/// Connects to a `tcp://` URL.
pub fn dial(url: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address(url)?).map_err(|error| {
        let out_of_ports = error.kind() == io::ErrorKind::AddrNotAvailable;
        let hint = if out_of_ports {
            " (no free port: fewer connections, or later)"
        } else {
            ""
        };
        Error::Failed(format!("cannot connect to {url}: {error}{hint}"))
    })?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    Ok(stream)
}

fn stream(args: &ClientArgs) -> Result<Outcome> {
    let pattern = args.pattern(COUNT)?;
    let mut stream = dial(&args.url)?;
    // A server that does not count is found now and not when both ends are full of messages.
    ask(&mut stream)?.confirm(&pattern, 0)?;
    let mut packed = pack(&pattern, (BUFFER / (PREFIX + args.size)).max(1));
    let (span, watch) = (args.span(), Stopwatch::start());
    let mut sent = 0;
    while watch.now() < span {
        sent = number(&mut packed, &pattern, sent);
        stream.write_all(&packed).context("cannot send")?;
    }
    let tally = ask(&mut stream)?;
    tally.confirm(&pattern, sent)?;
    watch.stop(sent, pattern.total(sent), tally.checksum, None)
}

fn ask(stream: &mut TcpStream) -> Result<Tally> {
    stream
        .write_all(&frame(&request()))
        .context("cannot send")?;
    stream
        .set_read_timeout(Some(ANSWER_TIME))
        .context("cannot set a deadline")?;
    Inbox::new(0).message(stream, Tally::from_answer)
}

fn echo(args: &ClientArgs) -> Result<Outcome> {
    let pattern = args.pattern(ECHO)?;
    let mut stream = dial(&args.url)?;
    let mut inbox = Inbox::new(args.size);
    let (mut latencies, mut flight) = (Latencies::new()?, Flight::default());
    let window = args.window as u64;
    let first = pack(&pattern, args.window);
    let (span, watch) = (args.span(), Stopwatch::start());
    flight.left(window, watch.now());
    stream.write_all(&first).context("cannot send")?;
    let (mut sent, mut next, mut received) = (window, 0, 0u64);
    while next < sent {
        if inbox.fill(&mut stream).context("cannot receive")? == 0 {
            return Err(closed());
        }
        let now = watch.now();
        let bytes = inbox.unread();
        let (used, sum) = turn_round(bytes, &pattern, &mut next, window)?;
        received = received.wrapping_add(sum);
        flight.arrived(next, now, &mut latencies);
        if now < span && used > 0 {
            sent = next + window;
            flight.left(sent, now);
            stream
                .write_all(bytes.get(..used).unwrap_or_default())
                .context("cannot send")?;
        }
        inbox.consume(used);
    }
    watch.stop(sent, pattern.total(sent), received, Some(&latencies))
}

fn connect(args: &ClientArgs) -> Result<Outcome> {
    let pattern = args.pattern(ECHO)?;
    let mut inbox = Inbox::new(args.size);
    let mut latencies = Latencies::new()?;
    let message = pack(&pattern, 1);
    let (span, watch) = (args.span(), Stopwatch::start());
    let (mut count, mut received, mut last) = (0, 0u64, Duration::ZERO);
    while last < span && count < MOST_CONNECTS {
        let mut stream = dial(&args.url)?;
        received = received.wrapping_add(once(&mut stream, &mut inbox, &pattern, &message)?);
        drop(stream);
        let now = watch.now();
        latencies.add(now.saturating_sub(last), 1);
        last = now;
        count += 1;
    }
    watch.stop(
        count,
        pattern.total(1).wrapping_mul(count),
        received,
        Some(&latencies),
    )
}

fn idle(args: &ClientArgs) -> Result<Outcome> {
    let pattern = args.pattern(ECHO)?;
    let mut inbox = Inbox::new(args.size);
    let message = pack(&pattern, 1);
    let watch = Stopwatch::start();
    let mut open = Vec::with_capacity(args.connections);
    let mut received = 0u64;
    for _ in 0..args.connections {
        let mut stream = dial(&args.url)?;
        received = received.wrapping_add(once(&mut stream, &mut inbox, &pattern, &message)?);
        open.push(stream);
    }
    let count = open.len() as u64;
    publish(&watch.stop(count, pattern.total(1).wrapping_mul(count), received, None)?)?;
    // `open` lives until the process ends.
    hold()
}

/// Sends message 0 and checks its echo; returns the sum of what came back.
fn once(
    stream: &mut TcpStream,
    inbox: &mut Inbox,
    pattern: &Pattern,
    message: &[u8],
) -> Result<u64> {
    stream.write_all(message).context("cannot send")?;
    inbox.message(stream, |back| pattern.check(back, 0))
}
