//! `netsys connect`: lines in, messages out, by hand or in a pipe.

mod input;
mod print;
mod requests;
mod tls;
mod transfer;
mod websocket;

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use network_system::ErrorKind;
use network_system::config::{ClientConfig, LinkConfig};

use crate::failure::{EXIT_CODES, Exit, Failure, Result};
use crate::interval::{self, Interval};
use crate::log::LogArgs;
use crate::pipeline::PipelineArgs;
use crate::{address, log};
use input::Input;
use print::Printer;
use tls::TlsArgs;
use websocket::WebSocketArgs;

const EXAMPLES: &str = "\
Examples:
  netsys connect tcp://127.0.0.1:8080                  type lines; Ctrl-D ends
  echo hello | netsys connect tcp://127.0.0.1:8080     one message, and what comes back
  seq 1000 | netsys connect --count 1000 --timeout 5s tcp://127.0.0.1:8080
                                                       exit 0 only when 1000 messages came back
  netsys connect --file photo.jpg --count 1 -n tcp://127.0.0.1:8080 > copy.jpg
                                                       a file as one message
  netsys connect --hex 'tcp://127.0.0.1:8080?framing=lines'
                                                       another framing; a view of the bytes
  echo ping | netsys connect --request 'tcp://127.0.0.1:8080?envelope=true'
                                                       a request, and its reply
  netsys connect --keep-open --wait forever --json tcp://127.0.0.1:8080 < /dev/null
                                                       listen to a broadcast
  netsys connect --ca ca.pem tls://localhost:8443      TLS; who may be trusted is in ca.pem

At the end of the input our side is closed, so that the peer knows; what still comes is received
until the peer closes too, or nothing has come for --wait: after an answer that is success, before
any it is exit code 4. With --keep-open our side stays open,
for peers that stop to answer once it is closed. With --count neither matters: it ends when that
many messages have come.

The query of the URL changes settings: framing (length, length:2le, varint, lines, delimiter:0d0a,
raw), envelope (true or false), max_message (bytes), tls (true or false), pipeline (true or false),
compress (none, lz4, deflate, zstd), websocket and deflate (true or false). With WebSocket all else in it
is a part of what is asked for, as in ws://127.0.0.1:8080/chat?room=7.";

/// Connect to a server: each line of input is sent as a message, each message is printed.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct ConnectArgs {
    /// Where to connect: tcp://HOST:PORT, tls://HOST:PORT, ws://HOST/PATH, wss://HOST/PATH or
    /// unix:///PATH, and settings as ?framing=lines
    url: String,

    /// End with success when N messages have come
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End with exit code 4 when not done after this long, connecting included
    /// [default: never; connecting may take 10s, a request 30s]
    #[arg(long, value_name = "DURATION", value_parser = interval::duration)]
    timeout: Option<Duration>,

    /// After the end of the input: end when nothing has come for this long, or "forever"
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval::or_forever)]
    wait: Interval,

    /// Keep our side open after the end of the input
    #[arg(long)]
    keep_open: bool,

    /// Send a file as one message in place of lines; "-" is the whole standard input
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,

    /// Send each message as a request and print its reply; needs a server with envelope
    #[arg(long)]
    request: bool,

    /// Print messages as bytes in hexadecimal, with the text beside them
    #[arg(long)]
    hex: bool,

    /// Print messages as lines of JSON: number, size, and "text", or "hex" where it is no UTF-8
    #[arg(long)]
    json: bool,

    /// Print messages as they are, without a line end behind each
    #[arg(short, long, conflicts_with_all = ["hex", "json"])]
    no_newline: bool,

    #[command(flatten)]
    tls: TlsArgs,

    #[command(flatten)]
    websocket: WebSocketArgs,

    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    log: LogArgs,
}

/// What has happened so far.
#[derive(Default)]
struct Tally {
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl Tally {
    fn sent(&self) {
        self.sent.set(self.sent.get() + 1);
    }

    fn received(&self) {
        self.received.set(self.received.get() + 1);
    }

    /// Whether as many messages have come as are wanted.
    fn has(&self, wanted: Option<u64>) -> bool {
        wanted.is_some_and(|wanted| self.received.get() >= wanted)
    }

    fn describe(&self, wanted: Option<u64>) -> String {
        let of = wanted.map_or_else(String::new, |wanted| format!(" of {wanted}"));
        format!(
            "{} sent, {}{of} received",
            self.sent.get(),
            self.received.get()
        )
    }
}

impl ConnectArgs {
    /// The settings of a client with these options.
    fn client_config(&self) -> ClientConfig {
        let mut config = self.tls.client_config();
        config.websocket = self.websocket.config();
        self.pipeline.apply(&mut config.session);
        config
    }
}

/// Connects, sends and prints.
///
/// # Errors
/// There is no connection, it breaks, or a deadline passes.
pub fn run(args: &ConnectArgs) -> Result<ExitCode> {
    let defaults = ClientConfig::default();
    let (_, LinkConfig { session, .. }) =
        address::parse_to_connect(&args.url, &defaults.session, &defaults.socket)?;
    log::start(args.log.get().unwrap_or(log::DEFAULT))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start", &error))?;
    let result = runtime.block_on(within(args, session.max_message));
    // a name that is being looked up must not hold the process
    runtime.shutdown_background();
    match result {
        // whoever read our output has seen enough
        Err(failure) if failure.is_broken_pipe() => Ok(ExitCode::SUCCESS),
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

/// Does it, within the deadline.
async fn within(args: &ConnectArgs, max_message: usize) -> Result<()> {
    let tally = Tally::default();
    let work = work(args, max_message, &tally);
    let Some(timeout) = args.timeout else {
        return work.await;
    };
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| {
            let so_far = tally.describe(args.count);
            let text = format!(
                "not done within {}: {so_far}",
                humantime::format_duration(timeout)
            );
            Err(Failure::new(Exit::Timeout, ErrorKind::Timeout, text))
        })
}

async fn work(args: &ConnectArgs, max_message: usize, tally: &Tally) -> Result<()> {
    let interactive = args.file.is_empty() && std::io::stdin().is_terminal();
    let printer = Printer::new(args, interactive);
    let input = || match args.file.is_empty() {
        true => Input::lines(max_message),
        false => Input::files(args.file.clone(), max_message),
    };
    if args.request {
        requests::run(args, interactive, input, printer, tally).await?;
    } else {
        transfer::run(args, interactive, input, printer, tally).await?;
    }
    if interactive {
        eprintln!("closed: {}", tally.describe(args.count));
    }
    Ok(())
}

/// Tells a person that the connection is there, and what to do.
fn greet(args: &ConnectArgs) {
    eprintln!(
        "connected to {}; each line is a message, Ctrl-D ends",
        args.url
    );
}
