//! What `netsys serve` prints: the start, statistics, and the report of the end.

use std::collections::BTreeMap;
use std::time::Duration;

use network_system::{Address, DrainReport, Latency, Statistics, TransportStatistics};
use serde::Serialize;

use super::hints;
use crate::config::Settings;
use crate::output::{self, bytes, count, duration};

/// Where and how things are printed.
pub struct Reporter {
    style: Style,
    /// What the last statistics line was about.
    last: Option<Moved>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// One line that is rewritten in place.
    Live,
    /// One line per interval.
    Plain,
    /// One object per line.
    Json,
    /// Nothing.
    Quiet,
}

/// What must have changed for another plain line: active, total, ended and refused
/// connections, messages.
type Moved = (u64, u64, u64, u64, u64);

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Listening {
        address: &'a str,
        addresses: Vec<&'a str>,
        mode: &'a str,
        workers: usize,
        pid: u32,
        version: &'a str,
    },
    Admin {
        address: &'a str,
    },
    Statistics(Figures<'a>),
    Reloaded {
        error: Option<String>,
    },
    Restarted {
        pid: Option<u32>,
        error: Option<String>,
    },
    Draining {
        sessions: u64,
        deadline_seconds: f64,
    },
    Drained {
        sessions: usize,
        drained: usize,
        cut: usize,
        ended: &'a BTreeMap<&'static str, u64>,
        cut_because: &'a BTreeMap<&'static str, usize>,
        messages_dropped: u64,
        elapsed_seconds: f64,
        statistics: Figures<'a>,
    },
}

/// [`Statistics`] with durations as plain numbers.
#[derive(Serialize)]
pub struct Figures<'a> {
    uptime_seconds: f64,
    connections_active: u64,
    connections_total: u64,
    transports: &'a BTreeMap<&'static str, TransportStatistics>,
    connections_refused: &'a BTreeMap<&'static str, u64>,
    connections_ended: &'a BTreeMap<&'static str, u64>,
    connect_errors: u64,
    rate_pauses: u64,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    messages_in_per_second: f64,
    messages_out_per_second: f64,
    bytes_in_per_second: f64,
    bytes_out_per_second: f64,
    messages_dropped: u64,
    queued_bytes: u64,
    latency_us: Percentiles,
    http: HttpFigures<'a>,
}

/// [`HttpStatistics`](network_system::HttpStatistics) with durations as plain numbers.
#[derive(Serialize)]
struct HttpFigures<'a> {
    active: u64,
    requests: u64,
    by_method: &'a BTreeMap<&'static str, u64>,
    by_status: &'a BTreeMap<&'static str, u64>,
    aborted: u64,
    bytes_in: u64,
    bytes_out: u64,
    latency_us: Percentiles,
}

/// Microseconds.
#[derive(Serialize)]
struct Percentiles {
    count: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl From<&Latency> for Percentiles {
    fn from(l: &Latency) -> Self {
        let us = |duration: Duration| duration.as_nanos() as f64 / 1e3;
        Self {
            count: l.count,
            p50: us(l.p50),
            p90: us(l.p90),
            p99: us(l.p99),
            p999: us(l.p999),
            max: us(l.max),
        }
    }
}

impl<'a> From<&'a Statistics> for Figures<'a> {
    fn from(s: &'a Statistics) -> Self {
        Self {
            uptime_seconds: s.uptime.as_secs_f64(),
            connections_active: s.connections_active,
            connections_total: s.connections_total,
            transports: &s.transports,
            connections_refused: &s.connections_refused,
            connections_ended: &s.connections_ended,
            connect_errors: s.connect_errors,
            rate_pauses: s.rate_pauses,
            messages_in: s.messages_in,
            messages_out: s.messages_out,
            bytes_in: s.bytes_in,
            bytes_out: s.bytes_out,
            messages_in_per_second: s.messages_in_per_second,
            messages_out_per_second: s.messages_out_per_second,
            bytes_in_per_second: s.bytes_in_per_second,
            bytes_out_per_second: s.bytes_out_per_second,
            messages_dropped: s.messages_dropped,
            queued_bytes: s.queued_bytes,
            latency_us: (&s.latency).into(),
            http: HttpFigures {
                active: s.http.active,
                requests: s.http.requests,
                by_method: &s.http.by_method,
                by_status: &s.http.by_status,
                aborted: s.http.aborted,
                bytes_in: s.http.bytes_in,
                bytes_out: s.http.bytes_out,
                latency_us: (&s.http.latency).into(),
            },
        }
    }
}

impl Reporter {
    /// Prints JSON, nothing, or what suits where standard output goes.
    pub fn new(json: bool, quiet: bool) -> Self {
        let style = match (json, quiet) {
            (true, _) => Style::Json,
            (_, true) => Style::Quiet,
            _ if output::is_terminal() => Style::Live,
            _ => Style::Plain,
        };
        Self { style, last: None }
    }

    /// Whether one line is rewritten in place.
    pub fn is_live(&self) -> bool {
        self.style == Style::Live
    }

    /// The time between statistics when nothing else is asked for.
    pub fn usual_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(if self.is_live() { 1 } else { 10 }))
    }

    /// The server runs.
    pub fn listening(&self, settings: &Settings, addresses: &[Address]) {
        let (mode, workers) = (settings.mode.name(), settings.server.workers);
        match self.style {
            Style::Quiet => {}
            Style::Json => {
                let addresses: Vec<&str> = addresses.iter().map(Address::as_str).collect();
                output::json(&Event::Listening {
                    address: addresses.first().copied().unwrap_or_default(),
                    addresses,
                    mode,
                    workers,
                    pid: std::process::id(),
                    version: env!("CARGO_PKG_VERSION"),
                });
            }
            Style::Live | Style::Plain => {
                for address in addresses {
                    output::line(&format!("listening on {address}"));
                }
                output::line(&format!("mode {mode}, workers {workers}\n"));
                output::line(&hints::how_to_try(settings, addresses));
            }
        }
    }

    /// The admin listener runs.
    pub fn admin(&self, address: &Address) {
        match self.style {
            Style::Quiet => {}
            Style::Json => output::json(&Event::Admin {
                address: address.as_str(),
            }),
            Style::Live | Style::Plain => output::line(&format!("dashboard on {address}/")),
        }
    }

    /// What the server has done so far.
    pub fn statistics(&mut self, statistics: &Statistics) {
        match self.style {
            Style::Quiet => {}
            Style::Json => output::json(&Event::Statistics(statistics.into())),
            Style::Live => output::show_live(one_line(statistics)),
            Style::Plain => {
                let ended = statistics.connections_ended.values().sum();
                let s = statistics;
                let moved = (
                    s.connections_active,
                    s.connections_total,
                    ended,
                    s.connections_refused.values().sum(),
                    s.messages_in,
                );
                if self.last.replace(moved).unwrap_or_default() != moved {
                    output::line(&one_line(statistics));
                }
            }
        }
    }

    /// Certificates and keys were read again. What was wrong with them is in the log already.
    pub fn reloaded(&self, result: network_system::Result<()>) {
        match (self.style, result) {
            (Style::Json, result) => output::json(&Event::Reloaded {
                error: result.err().map(|error| error.to_string()),
            }),
            (Style::Live | Style::Plain, Ok(())) => {
                output::line("certificates and keys were read again, and hold for new connections");
            }
            (Style::Quiet, _) | (_, Err(_)) => {}
        }
    }

    /// Another process has taken over, or could not.
    pub fn restarted(&self, result: &network_system::Result<u32>) {
        if let Err(error) = result {
            tracing::error!(%error, "not restarted; this process goes on");
        }
        match (self.style, result) {
            (Style::Json, result) => output::json(&Event::Restarted {
                pid: result.as_ref().ok().copied(),
                error: result.as_ref().err().map(ToString::to_string),
            }),
            (Style::Live | Style::Plain, Ok(pid)) => {
                output::line(&format!("process {pid} has taken over"));
            }
            (Style::Quiet, _) | (_, Err(_)) => {}
        }
    }

    /// The server ends.
    pub fn draining(&self, statistics: &Statistics, deadline: Duration) {
        let sessions = statistics.connections_active;
        match self.style {
            Style::Quiet => {}
            Style::Json => output::json(&Event::Draining {
                sessions,
                deadline_seconds: deadline.as_secs_f64(),
            }),
            Style::Live | Style::Plain => output::line(&format!(
                "\nfinishing {}, for {} at most; Ctrl-C again ends at once",
                several(sessions, "connection"),
                duration(deadline)
            )),
        }
    }

    /// The server has ended.
    pub fn drained(&self, report: &DrainReport) {
        let statistics = &report.statistics;
        match self.style {
            Style::Quiet => {}
            Style::Json => output::json(&Event::Drained {
                sessions: report.sessions,
                drained: report.drained,
                cut: report.cut,
                ended: &report.ended,
                cut_because: &report.cut_because,
                messages_dropped: report.messages_dropped,
                elapsed_seconds: report.elapsed.as_secs_f64(),
                statistics: statistics.into(),
            }),
            Style::Live | Style::Plain => {
                output::line(&format!(
                    "drained in {}: {} finished, {} cut off, {} dropped",
                    duration(report.elapsed),
                    several(report.drained as u64, "connection"),
                    report.cut,
                    several(report.messages_dropped, "message"),
                ));
                output::line(&totals(statistics));
            }
        }
    }
}

/// `1 connection`, `2 connections`.
fn several(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {what}{s}", count(number as f64))
}

/// The state of a moment, the most telling first: the line is cut at the edge of the terminal.
fn one_line(s: &Statistics) -> String {
    let mut line = format!(
        "{} | in {}/s {}/s | out {}/s {}/s",
        several(s.connections_active, "connection"),
        count(s.messages_in_per_second),
        bytes(s.bytes_in_per_second),
        count(s.messages_out_per_second),
        bytes(s.bytes_out_per_second),
    );
    if s.latency.count > 0 {
        let (p50, p99) = (duration(s.latency.p50), duration(s.latency.p99));
        line += &format!(" | p50 {p50} p99 {p99}");
    }
    if s.queued_bytes > 0 {
        line += &format!(" | {} queued", bytes(s.queued_bytes as f64));
    }
    if s.messages_dropped > 0 {
        line += &format!(" | {} dropped", count(s.messages_dropped as f64));
    }
    if s.http.requests > 0 {
        line += &format!(" | {}", several(s.http.requests, "request"));
    }
    if let Some(refused) = refused(s) {
        line += &format!(" | {refused}");
    }
    line + &format!(" | {}", duration(Duration::from_secs(s.uptime.as_secs())))
}

/// How many connections were refused, and why; `None` when none was.
fn refused(s: &Statistics) -> Option<String> {
    let mut reasons: Vec<_> = s
        .connections_refused
        .iter()
        .filter(|(_, n)| **n > 0)
        .collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let total: u64 = reasons.iter().map(|(_, n)| **n).sum();
    let reasons = reasons
        .iter()
        .map(|(reason, n)| format!("{reason} {}", count(**n as f64)));
    let reasons: Vec<String> = reasons.collect();
    (total > 0).then(|| format!("{} refused ({})", count(total as f64), reasons.join(", ")))
}

/// What the server has done in its life.
fn totals(s: &Statistics) -> String {
    let ended: Vec<String> = s
        .connections_ended
        .iter()
        .map(|(reason, n)| format!("{reason} {n}"))
        .collect();
    let ended = if ended.is_empty() {
        String::new()
    } else {
        format!(" ({})", ended.join(", "))
    };
    let refused = refused(s).map_or_else(String::new, |refused| format!(", {refused}"));
    let requests = match s.http.requests {
        0 => String::new(),
        n => format!(", {}", several(n, "HTTP request")),
    };
    format!(
        "in {}: {}{ended}{refused}{requests}, {} in ({}), {} out ({})",
        duration(s.uptime),
        several(s.connections_total, "connection"),
        several(s.messages_in, "message"),
        bytes(s.bytes_in as f64),
        count(s.messages_out as f64),
        bytes(s.bytes_out as f64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_leaves_out_what_is_zero() {
        let mut statistics = Statistics::default();
        statistics.connections_active = 1;
        statistics.messages_in_per_second = 1_234_567.0;
        statistics.bytes_in_per_second = 83_900_000.0;
        assert_eq!(
            one_line(&statistics),
            "1 connection | in 1.23M/s 83.9 MB/s | out 0/s 0 B/s | 0 s"
        );
        statistics.messages_dropped = 3;
        statistics.latency.count = 1;
        assert!(one_line(&statistics).ends_with("| p50 0 s p99 0 s | 3 dropped | 0 s"));
        let refused = [("handshake", 0), ("denied", 2), ("per_ip", 1500)];
        statistics.connections_refused.extend(refused);
        let line = one_line(&statistics);
        let expected = "| 3 dropped | 1.5k refused (per_ip 1.5k, denied 2) | 0 s";
        assert!(line.ends_with(expected), "{line}");
    }

    #[test]
    fn json_says_what_it_is_about() {
        let statistics = Statistics::default();
        let value = serde_json::to_value(Event::Statistics((&statistics).into())).unwrap();
        assert_eq!(value["event"], "statistics");
        assert_eq!(value["latency_us"]["p50"], 0.0);
    }
}
