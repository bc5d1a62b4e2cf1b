//! What is measured: workloads, their defaults, and the cases that the options ask for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use network_system::config::Compression;
use serde::Serialize;

use super::error::{Error, Result};
use super::roles::Implementation;
use super::{machine, verify};
use crate::interval;

/// What client and server do in a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// One connection, messages one way, as many as go through
    Stream,
    /// One connection, a window of messages that are echoed
    Echo,
    /// One connection, one message at a time: latency
    Ping,
    /// Many connections with a window each
    Many,
    /// Connect, echo one message, close; again and again
    Connect,
    /// Memory of a server with idle connections
    Idle,
}

impl Workload {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Echo => "echo",
            Self::Ping => "ping",
            Self::Many => "many",
            Self::Connect => "connect",
            Self::Idle => "idle",
        }
    }

    /// What the main figure counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Stream => "msg/s",
            Self::Echo | Self::Ping | Self::Many => "echo/s",
            Self::Connect => "conn/s",
            Self::Idle => "KiB/conn",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the two processes of a measurement run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Server and client share one core: work per message decides
    SameCore,
    /// Server and client have a core each: the faster of the two waits for the other
    Apart,
    /// The scheduler decides, and may decide differently in every round
    Free,
}

impl Placement {
    /// The cores of server and client.
    pub fn cores(self) -> Result<(Option<usize>, Option<usize>)> {
        let cores = machine::allowed_cores();
        match (self, cores.as_slice()) {
            (Self::Free, _) => Ok((None, None)),
            (Self::SameCore, [one, ..]) => Ok((Some(*one), Some(*one))),
            (Self::Apart, [one, two, ..]) => Ok((Some(*one), Some(*two))),
            (Self::Apart, [_]) => Err(Error::Usage(
                "--placement apart needs two cores; this process has one".into(),
            )),
            (_, _) => Err(Error::Usage(
                "processes can be pinned on Linux only; use --placement free".into(),
            )),
        }
    }
}

/// What messages are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// Bytes that mean nothing
    #[default]
    Bytes,
    /// Lines of JSON
    Json,
}

/// Options of `netsys bench`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    about = "Measure messages per second, latency, connects and memory against raw sockets",
    long_about = LONG_ABOUT,
    after_help = EXAMPLES,
)]
pub struct BenchArgs {
    /// Server to load, such as tcp://127.0.0.1:8080; without it, bench starts its own
    pub url: Option<String>,
    /// What to measure [default: all; with a URL: echo,ping,many,connect]
    #[arg(short, long, value_enum, value_delimiter = ',', value_name = "NAME")]
    pub workload: Vec<Workload>,
    /// Message sizes in bytes, at least 16 [default: 64; with --compress 1024]
    #[arg(short, long, value_delimiter = ',', value_name = "BYTES")]
    pub size: Vec<usize>,
    /// Messages under way per connection [default: 256 for echo, 16 for many]
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Connections [default: 50 for many, 1000 for idle]
    #[arg(short, long, value_name = "N")]
    pub connections: Option<usize>,
    /// Length of a round in seconds
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Rounds; the result is their median
    #[arg(short, long, default_value_t = 5, value_name = "N")]
    pub rounds: u32,
    /// Cores of server and client process; only Linux can pin [default there: same-core]
    #[arg(short, long, value_enum, default_value_t = DEFAULT_PLACEMENT)]
    pub placement: Placement,
    /// Let our workers look so long for input before they sleep, as long as that pays
    #[arg(long, value_name = "DURATION", value_parser = interval::duration)]
    pub busy_poll: Option<Duration>,
    /// Measure our server with TLS as well, its certificate checked; `connect` resumes sessions
    #[arg(long, conflicts_with = "url")]
    pub tls: bool,
    /// Measure our server with compression as well: lz4, deflate, zstd, each also with a level as
    /// zstd:9; all messages are JSON then
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "HOW",
        conflicts_with = "url"
    )]
    pub compress: Vec<Compression>,
    /// Measure our server with encryption by Noise as well
    #[arg(long, conflicts_with = "url")]
    pub noise: bool,
    /// Print one JSON document with every round instead of the table
    #[arg(long)]
    pub json: bool,
    /// Write a chart of the shares of raw
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Implementations to compare, in turn
    #[arg(long, value_enum, value_delimiter = ',', hide = true)]
    pub peer: Vec<Implementation>,
}

const DEFAULT_PLACEMENT: Placement = if cfg!(target_os = "linux") {
    Placement::SameCore
} else {
    Placement::Free
};

const LONG_ABOUT: &str = "\
Measure messages per second, latency, connects and memory against raw sockets.

Every measurement has a server process and a client process of its own, on this machine. Rounds \
alternate between `raw` (plain sockets that pack and walk frames in place, without any message \
API) and the implementation under test, so that a slow minute hits both; `share` is how much of \
raw is left. Every message carries a sequence number and is summed where it arrives: a lost, \
changed or reordered message ends the benchmark with an error.";

const EXAMPLES: &str = "\
Examples:
  netsys bench                                     every workload, 64-byte messages, a minute
  netsys bench -w stream,echo -s 64,1024,8192      two workloads, three sizes
  netsys bench -w many -c 10000 --window 1         10 000 connections
  netsys bench -w idle -c 10000                    memory per idle connection
  netsys bench --tls                               what TLS costs, beside both without it
  netsys bench --tls --noise --compress lz4,deflate,zstd
                                                   what each of them costs, in one run
  netsys bench --placement apart --svg share.svg   a core each, and a chart
  netsys bench --json > result.json                every round, for a script
  netsys bench tcp://127.0.0.1:8080 -w ping        load an echo server that already runs

Without --placement server and client share a core, which repeats best. Compare only figures of
one placement. `echo`, `ping`, `many` and `connect` need a server that sends messages back;
`stream` needs one that answers with count and checksum, as the server that bench starts does.
Messages are bytes that mean nothing; with --compress they are lines of JSON as services log them, for
everybody in that run, and each one is compressed by itself. Those of fewer than 512 bytes are not.
Exit code: 0 measured, 1 failed or delivered wrongly, 2 bad options, 130 interrupted.";

/// One workload with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Case {
    /// What is done.
    pub workload: Workload,
    /// Message size in bytes.
    pub size: usize,
    /// Connections that are open at the same time.
    pub connections: usize,
    /// Messages under way per connection; 0 where nothing comes back.
    pub window: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workload,
            size,
            connections,
            window,
        } = self;
        match workload {
            Workload::Stream | Workload::Ping | Workload::Connect => {
                write!(f, "{workload} {size} B")
            }
            Workload::Echo => write!(f, "{workload} {size} B, window {window}"),
            Workload::Many => write!(f, "{workload} {size} B, {connections} x {window}"),
            Workload::Idle => write!(f, "{workload} {connections} connections"),
        }
    }
}

impl BenchArgs {
    /// Every case that the options ask for, in the order of measurement.
    pub fn cases(&self) -> Result<Vec<Case>> {
        let usage = |text: &str| Err(Error::Usage(text.into()));
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return usage("--seconds must be above 0 and at most 3600");
        }
        if self.rounds == 0 || self.window == Some(0) || self.connections == Some(0) {
            return usage("--rounds, --window and --connections must be at least 1");
        }
        let sizes = self.sizes();
        for size in &sizes {
            verify::Pattern::new(verify::ECHO, *size)?;
        }
        let mut cases: Vec<Case> = Vec::new();
        for workload in self.workloads()? {
            for size in &sizes {
                let case = self.case(workload, *size);
                // Connects and idle connections are no matter of size: measured once.
                let once = matches!(workload, Workload::Connect | Workload::Idle);
                if !cases
                    .iter()
                    .any(|seen| seen.workload == workload && (once || *seen == case))
                {
                    cases.push(case);
                }
            }
        }
        Ok(cases)
    }

    /// What messages are made of.
    pub fn payload(&self) -> Payload {
        match self.compress.is_empty() {
            true => Payload::Bytes,
            false => Payload::Json,
        }
    }

    fn sizes(&self) -> Vec<usize> {
        match (self.size.as_slice(), self.payload()) {
            ([], Payload::Bytes) => vec![64],
            // what is much smaller is not compressed
            ([], Payload::Json) => vec![1024],
            (asked, _) => asked.to_vec(),
        }
    }

    fn case(&self, workload: Workload, size: usize) -> Case {
        let (connections, window) = match workload {
            Workload::Stream => (1, 0),
            Workload::Echo => (1, self.window.unwrap_or(256)),
            Workload::Ping | Workload::Connect => (1, 1),
            Workload::Many => (self.connections.unwrap_or(50), self.window.unwrap_or(16)),
            Workload::Idle => (self.connections.unwrap_or(1000), 1),
        };
        Case {
            workload,
            size,
            connections,
            window,
        }
    }

    fn workloads(&self) -> Result<Vec<Workload>> {
        use Workload::{Connect, Echo, Idle, Many, Ping, Stream};
        if self.url.is_some() && self.workload.contains(&Idle) {
            return Err(Error::Usage(
                "`idle` reads the memory of the server process, which only works for a server \
                 that bench starts: leave the URL out"
                    .into(),
            ));
        }
        Ok(match (self.workload.as_slice(), &self.url) {
            ([], Some(_)) => vec![Echo, Ping, Many, Connect],
            ([], None) if cfg!(target_os = "linux") => {
                vec![Stream, Echo, Ping, Many, Connect, Idle]
            }
            ([], None) => vec![Stream, Echo, Ping, Many, Connect],
            (asked, _) => asked.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn cases(line: &str) -> Result<Vec<Case>> {
        Line::parse_from(["bench"].into_iter().chain(line.split_whitespace()))
            .bench
            .cases()
    }

    fn names(line: &str) -> Vec<String> {
        cases(line).unwrap().iter().map(Case::to_string).collect()
    }

    #[test]
    fn options_become_cases() {
        assert_eq!(
            names("-w stream,echo -s 64,1024 -w idle -c 9"),
            [
                "stream 64 B",
                "stream 1024 B",
                "echo 64 B, window 256",
                "echo 1024 B, window 256",
                "idle 9 connections"
            ]
        );
        assert_eq!(
            names("-w many --window 3 -c 7 -w many"),
            ["many 64 B, 7 x 3"]
        );
        assert_eq!(names("tcp://127.0.0.1:1").len(), 4);
        assert_eq!(names("-w ping --compress zstd"), ["ping 1024 B"]);
        assert_eq!(names("-w ping --compress lz4 -s 600"), ["ping 600 B"]);
    }

    #[test]
    fn what_cannot_be_measured_is_refused_before_anything_starts() {
        for (line, part) in [
            ("-s 15", "16 bytes"),
            ("--seconds 0", "--seconds"),
            ("--seconds nan", "--seconds"),
            ("--rounds 0", "at least 1"),
            ("tcp://127.0.0.1:1 -w idle", "leave the URL out"),
        ] {
            let error = cases(line).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
