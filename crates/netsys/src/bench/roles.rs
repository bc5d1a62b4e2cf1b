//! The two hidden subcommands: a server and a client process of one measurement.
//!
//! A role talks to the process that started it over its standard streams. The server prints
//! `READY <url>`, behind that its certificate with TLS and the key with Noise, answers each line of its
//! input with a line of [`Usage`], and exits when its input ends. The client prints one line, its
//! [`Outcome`], and exits when it is done or when its input ends. So no role outlives the process that started it, however that one dies.

use std::io::{BufRead, Write};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use network_system::config::Compression;
use serde::{Deserialize, Serialize};

use super::error::{Context, Error, Result};
use super::plan::{Case, Payload, Workload};
use super::statistics::{Latencies, Percentiles};
use super::verify::{MAX_SIZE, Pattern};
use super::way::Way;
use super::{machine, ours_client, ours_server, raw_client, raw_server};
use crate::interval;

/// Whose code runs in a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Implementation {
    /// Plain sockets: the ceiling that everything else is compared with
    Raw,
    /// This library at handler level, every default limit and statistics on
    Ours,
    /// The same with TLS
    #[serde(rename = "ours-tls")]
    OursTls,
}

impl Implementation {
    /// The name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ours => "ours",
            Self::OursTls => "ours-tls",
        }
    }

    fn serve(self, args: &ServerArgs) -> Result<()> {
        match self {
            Self::Raw => raw_server::run(args),
            Self::Ours | Self::OursTls => ours_server::run(args),
        }
    }

    fn load(self, args: &ClientArgs) -> Result<Outcome> {
        match self {
            Self::Raw => raw_client::run(args),
            Self::Ours | Self::OursTls => ours_client::run(args),
        }
    }
}

/// Options of the server role.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Whose code serves
    #[arg(long = "impl", value_enum, default_value = "raw")]
    pub implementation: Implementation,
    /// The workload that will come; a server may choose its way of waiting by it
    #[arg(long, value_enum)]
    pub workload: Workload,
    /// Size of the largest message in bytes
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "tcp://127.0.0.1:0")]
    pub listen: String,
    /// How ours compresses messages
    #[arg(long)]
    pub compress: Option<Compression>,
    /// Whether ours encrypts messages, with a key that it makes and tells
    #[arg(long)]
    pub noise: bool,
    /// Core to run on
    #[arg(long)]
    pub core: Option<usize>,
    /// How long our workers look for input before they sleep
    #[arg(long, value_parser = interval::duration)]
    pub busy_poll: Option<Duration>,
}

/// Options of the client role.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientArgs {
    /// Whose code loads the server
    #[arg(long = "impl", value_enum, default_value = "raw")]
    pub implementation: Implementation,
    /// The server
    #[arg(long)]
    pub url: String,
    /// The certificate to trust, as a server with TLS has told it
    #[arg(long)]
    pub ca: Option<String>,
    /// The key to encrypt with, as a server with Noise has told it
    #[arg(long)]
    pub psk: Option<String>,
    /// How ours compresses messages
    #[arg(long)]
    pub compress: Option<Compression>,
    /// What messages are made of
    #[arg(long, value_enum, default_value_t)]
    pub payload: Payload,
    /// What to do
    #[arg(long, value_enum)]
    pub workload: Workload,
    /// Message size in bytes
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// Connections
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Messages under way per connection
    #[arg(long, default_value_t = 1)]
    pub window: usize,
    /// How long to send
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 60.0)]
    pub deadline: f64,
    /// Core to run on
    #[arg(long)]
    pub core: Option<usize>,
    /// How long our workers look for input before they sleep
    #[arg(long, value_parser = interval::duration)]
    pub busy_poll: Option<Duration>,
}

impl ClientArgs {
    /// The case that this client measures.
    pub fn case(&self) -> Case {
        let Self {
            workload,
            size,
            connections,
            window,
            ..
        } = *self;
        Case {
            workload,
            size,
            connections,
            window,
        }
    }

    /// The messages of `kind`.
    pub fn pattern(&self, kind: u8) -> Result<Pattern> {
        match self.payload {
            Payload::Bytes => Pattern::new(kind, self.size),
            Payload::Json => Pattern::of_json(kind, self.size),
        }
    }

    /// What our client does to messages.
    pub fn way(&self) -> Way {
        Way {
            compress: self.compress,
            psk: self.psk.clone(),
        }
    }

    /// How long to send.
    pub fn span(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Messages and their sum, on one side of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// How many messages.
    pub messages: u64,
    /// The wrapping sum over all their bytes, in hexadecimal.
    pub checksum: String,
}

impl Delivered {
    /// From figures.
    pub fn new(messages: u64, checksum: u64) -> Self {
        Self {
            messages,
            checksum: format!("{checksum:#018x}"),
        }
    }
}

/// What a client measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What left.
    pub sent: Delivered,
    /// What arrived at the other end, or came back.
    pub received: Delivered,
    /// From the first message to the confirmation of the last.
    pub seconds: f64,
    /// CPU seconds of the client in that time, where the platform tells.
    pub cpu_seconds: Option<f64>,
    /// How long messages took there and back, where that was measured.
    pub latency_us: Option<Percentiles>,
    /// Bytes that left for the socket, or for TLS, where that was counted.
    pub wire_bytes: Option<u64>,
}

/// Runs from the first message to the last of a measurement, and keeps its clock.
#[derive(Debug)]
pub struct Stopwatch {
    start: std::time::Instant,
    cpu: Option<f64>,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            cpu: machine::cpu_seconds(),
            start: std::time::Instant::now(),
        }
    }

    /// The time since the start.
    #[inline]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Ends a measurement of `messages` messages, numbered from 0 on each of the connections.
    ///
    /// `sent` is the sum of what left. Fails when it differs from the sum of what arrived.
    pub fn stop(
        &self,
        messages: u64,
        sent: u64,
        received: u64,
        latencies: Option<&Latencies>,
    ) -> Result<Outcome> {
        let seconds = self.now().as_secs_f64();
        let cpu = machine::cpu_seconds()
            .zip(self.cpu)
            .map(|(end, start)| end - start);
        if sent != received {
            return Err(Error::Failed(format!(
                "checksum mismatch: {messages} messages with the sum {sent:#018x} sent, \
                 {received:#018x} arrived"
            )));
        }
        Ok(Outcome {
            sent: Delivered::new(messages, sent),
            received: Delivered::new(messages, received),
            seconds,
            cpu_seconds: cpu,
            latency_us: latencies.and_then(Latencies::percentiles),
            wire_bytes: None,
        })
    }
}

/// What a server says about itself when asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Usage {
    /// CPU seconds so far, where the platform tells.
    pub cpu_seconds: Option<f64>,
}

/// Runs the server role until its input ends.
pub fn server(args: &ServerArgs) -> Result<()> {
    prepare(args.core)?;
    if args.size > MAX_SIZE {
        return Err(Error::Usage(format!(
            "messages have at most {MAX_SIZE} bytes"
        )));
    }
    watch_input(|| {
        let usage = Usage {
            cpu_seconds: machine::cpu_seconds(),
        };
        serde_json::to_string(&usage)
            .context("cannot write the usage")
            .and_then(|line| say(&line))
    })?;
    args.implementation.serve(args)
}

/// Runs the client role; with idle connections it stays until its input ends.
pub fn client(args: &ClientArgs) -> Result<()> {
    prepare(args.core)?;
    args.pattern(0)?;
    watch_input(|| Ok(()))?;
    let deadline = Duration::try_from_secs_f64(args.deadline).context("--deadline")?;
    let case = args.case();
    spawn("deadline", move || {
        thread::sleep(deadline);
        eprintln!(
            "error: {case}: no result after {} s",
            deadline.as_secs_f64()
        );
        std::process::exit(1);
    })?;
    let outcome = args.implementation.load(args)?;
    publish(&outcome)
}

/// Tells the parent that the server listens.
pub fn ready(url: &str) -> Result<()> {
    say(&format!("READY {url}"))
}

/// Tells the parent the result.
pub fn publish(outcome: &Outcome) -> Result<()> {
    say(&serde_json::to_string(outcome).context("cannot write the result")?)
}

/// Keeps what the caller owns until the input ends, which ends the process.
pub fn hold() -> ! {
    loop {
        thread::park();
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

fn prepare(core: Option<usize>) -> Result<()> {
    machine::raise_file_limit();
    // Before any other thread starts: threads inherit the core.
    core.map_or(Ok(()), machine::pin)
}

fn watch_input(answer: impl Fn() -> Result<()> + Send + 'static) -> Result<()> {
    spawn("input", move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || answer().is_err() {
                break;
            }
        }
        std::process::exit(0);
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    // These threads do next to nothing; a small stack keeps them out of the memory figures.
    let builder = thread::Builder::new()
        .name(name.into())
        .stack_size(64 * 1024);
    builder
        .spawn(body)
        .map(drop)
        .context("cannot start a thread")
}
