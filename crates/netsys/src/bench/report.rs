//! The result of a benchmark: every round, and per case and peer the medians and the share of raw.

use serde::Serialize;

use super::machine::Machine;
use super::plan::{BenchArgs, Case, Payload, Placement, Workload};
use super::roles::{Implementation, Outcome};
use super::statistics::{Percentiles, Spread};
use super::table::short;

/// Everything that was measured, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What measured.
    pub tool: Tool,
    /// Where.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// What came out.
    pub cases: Vec<CaseReport>,
}

/// The program that measured.
#[derive(Debug, Clone, Serialize)]
pub struct Tool {
    /// `netsys`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Whether it was built with optimisation: `release` or `debug`.
    pub build: &'static str,
}

/// Options that apply to every case.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Where server and client ran.
    pub placement: Placement,
    /// Length of a round.
    pub seconds: f64,
    /// How many rounds each median is made of.
    pub rounds: u32,
    /// What messages were made of.
    pub payload: Payload,
    /// The server that was loaded, when it was not one of our own.
    pub url: Option<String>,
}

impl Report {
    /// Puts the cases together with where and how they were measured.
    pub fn new(args: &BenchArgs, cases: Vec<CaseReport>) -> Self {
        let build = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        Self {
            tool: Tool {
                name: "netsys",
                version: env!("CARGO_PKG_VERSION"),
                build,
            },
            machine: Machine::here(),
            settings: Settings {
                placement: args.placement,
                seconds: args.seconds,
                rounds: args.rounds,
                payload: args.payload(),
                url: args.url.clone(),
            },
            cases,
        }
    }
}

/// Memory of a server process in KiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Before the first connection.
    pub at_rest_kib: f64,
    /// With all connections open.
    pub loaded_kib: f64,
    /// The difference, for each connection.
    pub per_connection_kib: f64,
}

impl Memory {
    /// From bytes before and with `connections`.
    pub fn new(at_rest: u64, loaded: u64, connections: usize) -> Self {
        let (at_rest_kib, loaded_kib) = (at_rest as f64 / 1024.0, loaded as f64 / 1024.0);
        let per_connection_kib = (loaded_kib - at_rest_kib) / connections.max(1) as f64;
        Self {
            at_rest_kib,
            loaded_kib,
            per_connection_kib,
        }
    }
}

/// One measurement of one peer.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Messages (or connections) per second.
    pub per_second: f64,
    /// What the client counted.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// CPU seconds of the server, from before the first connection to after the last message.
    pub server_cpu_seconds: Option<f64>,
    /// CPU seconds of client and server for a million messages.
    pub cpu_seconds_per_million: Option<f64>,
    /// Bytes that left for the socket, or for TLS, for each message.
    pub wire_bytes_per_message: Option<f64>,
    /// Memory of the server, for the workload `idle`.
    pub memory: Option<Memory>,
}

impl Measurement {
    /// From what the client counted and what the server used.
    pub fn new(outcome: Outcome, server_cpu: Option<f64>, memory: Option<Memory>) -> Self {
        let messages = outcome.received.messages as f64;
        let cpu = outcome
            .cpu_seconds
            .zip(server_cpu)
            .map(|(client, server)| client + server);
        let wire_bytes = outcome.wire_bytes.map(|bytes| bytes as f64);
        Self {
            wire_bytes_per_message: wire_bytes
                .filter(|_| messages > 0.0)
                .map(|bytes| bytes / messages),
            per_second: messages / outcome.seconds.max(f64::MIN_POSITIVE),
            server_cpu_seconds: server_cpu,
            cpu_seconds_per_million: cpu
                .filter(|_| messages > 0.0)
                .map(|cpu| cpu / messages * 1e6),
            outcome,
            memory,
        }
    }

    /// The figure that the workload is about.
    pub fn value(&self, workload: Workload) -> f64 {
        match (workload, self.memory) {
            (Workload::Idle, Some(memory)) => memory.per_connection_kib,
            _ => self.per_second,
        }
    }

    /// The main figure with its unit.
    pub fn headline(&self, workload: Workload) -> String {
        format!("{} {}", short(self.value(workload)), workload.unit())
    }

    /// What the share of raw is made of: for ping-pong the p50, else the main figure; nothing
    /// for memory, which is no share of anything.
    fn compared(&self, workload: Workload) -> Option<f64> {
        match workload {
            Workload::Idle => None,
            Workload::Ping => self.outcome.latency_us.map(|latency| latency.p50),
            _ => Some(self.per_second),
        }
    }
}

/// One measurement and its place in the sequence.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Counted from 1.
    pub round: u32,
    /// Whose measurement.
    pub peer: String,
    /// What came out.
    #[serde(flatten)]
    pub measurement: Measurement,
}

/// All rounds of one case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// What was done.
    #[serde(flatten)]
    pub case: Case,
    /// A line that names the case.
    pub title: String,
    /// The medians of each peer, raw first.
    pub summary: Vec<Summary>,
    /// Every measurement in the order it was made.
    pub rounds: Vec<Round>,
}

/// The medians of one peer in one case.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Whose.
    pub peer: String,
    /// Unit of `value`.
    pub unit: &'static str,
    /// The main figure.
    pub value: Spread,
    /// Main figure divided by that of raw; for ping-pong the p50 divided by that of raw.
    pub share_of_raw: Option<Spread>,
    /// The median of each percentile.
    pub latency_us: Option<Percentiles>,
    /// The median CPU seconds of client and server for a million messages.
    pub cpu_seconds_per_million: Option<f64>,
    /// The median of the bytes that left for the socket, or for TLS, for each message.
    pub wire_bytes_per_message: Option<f64>,
    /// The median memory at rest, for the workload `idle`.
    pub at_rest_kib: Option<f64>,
    /// Messages of all rounds together, each of them verified.
    pub verified_messages: u64,
}

impl CaseReport {
    /// Sums up the rounds of a case for each of the peers.
    pub fn new<'a>(case: Case, rounds: Vec<Round>, peers: impl Iterator<Item = &'a str>) -> Self {
        let summary = peers
            .filter_map(|peer| Summary::of(case, &rounds, peer))
            .collect();
        Self {
            case,
            title: case.to_string(),
            summary,
            rounds,
        }
    }
}

impl Summary {
    fn of(case: Case, rounds: &[Round], peer: &str) -> Option<Self> {
        let workload = case.workload;
        let mine: Vec<&Measurement> = measurements(rounds, peer).collect();
        let latencies: Vec<Percentiles> =
            mine.iter().filter_map(|m| m.outcome.latency_us).collect();
        let median = |values: Vec<f64>| Spread::of(values).map(|spread| spread.median);
        Some(Self {
            peer: peer.to_owned(),
            unit: workload.unit(),
            value: Spread::of(mine.iter().map(|m| m.value(workload)))?,
            share_of_raw: share(workload, rounds, peer),
            latency_us: Percentiles::median(&latencies),
            cpu_seconds_per_million: median(
                mine.iter()
                    .filter_map(|m| m.cpu_seconds_per_million)
                    .collect(),
            ),
            wire_bytes_per_message: median(
                mine.iter()
                    .filter_map(|m| m.wire_bytes_per_message)
                    .collect(),
            ),
            at_rest_kib: median(
                mine.iter()
                    .filter_map(|m| Some(m.memory?.at_rest_kib))
                    .collect(),
            ),
            verified_messages: mine.iter().map(|m| m.outcome.received.messages).sum(),
        })
    }
}

fn measurements<'a>(rounds: &'a [Round], peer: &'a str) -> impl Iterator<Item = &'a Measurement> {
    rounds
        .iter()
        .filter(move |round| round.peer == peer)
        .map(|round| &round.measurement)
}

/// The median of a peer as a share of the median of raw. Its range is that of the single rounds,
/// each compared with the raw measurement beside it; for raw itself, with the median of raw.
fn share(workload: Workload, rounds: &[Round], peer: &str) -> Option<Spread> {
    let values = |peer: &str| -> Vec<f64> {
        measurements(rounds, peer)
            .filter_map(|m| m.compared(workload))
            .collect()
    };
    let (mine, raw) = (values(peer), values(Implementation::Raw.name()));
    let ceiling = Spread::of(raw.iter().copied())?.median;
    let median = Spread::of(mine.iter().copied())?.median / ceiling;
    let is_raw = peer == Implementation::Raw.name();
    let ratio = |(mine, raw): (&f64, &f64)| mine / if is_raw { ceiling } else { *raw };
    let range = Spread::of(mine.iter().zip(&raw).map(ratio))?;
    Some(Spread { median, ..range })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::bench::roles::Delivered;

    /// A case with a round for each of the figures.
    pub fn case_of(workload: Workload, figures: &[(&str, f64)]) -> CaseReport {
        let case = Case {
            workload,
            size: 64,
            connections: 2,
            window: 1,
        };
        let rounds = figures.iter().enumerate().map(|(index, (peer, figure))| {
            let micros = 1e6 / figure;
            let latency = Percentiles {
                p50: micros,
                p90: micros,
                p99: micros,
                p999: micros,
                max: micros,
            };
            let outcome = Outcome {
                sent: Delivered::new(*figure as u64, 7),
                received: Delivered::new(*figure as u64, 7),
                seconds: 1.0,
                cpu_seconds: Some(0.25),
                latency_us: (workload != Workload::Stream).then_some(latency),
                wire_bytes: Some(*figure as u64 * 68),
            };
            let memory = (workload == Workload::Idle)
                .then(|| Memory::new(3 << 20, (3 << 20) + (*figure as u64) * 2048, 2));
            Round {
                round: index as u32,
                peer: (*peer).to_owned(),
                measurement: Measurement::new(outcome, Some(0.75), memory),
            }
        });
        CaseReport::new(case, rounds.collect(), ["raw", "other"].into_iter())
    }

    /// A report with these cases.
    pub fn report_of(cases: Vec<CaseReport>) -> Report {
        Report {
            tool: Tool {
                name: "netsys",
                version: "0",
                build: "release",
            },
            machine: Machine::here(),
            settings: Settings {
                placement: Placement::Free,
                seconds: 1.0,
                rounds: 3,
                payload: Payload::Bytes,
                url: None,
            },
            cases,
        }
    }

    const FIGURES: [(&str, f64); 6] = [
        ("raw", 1000.0),
        ("other", 800.0),
        ("raw", 2000.0),
        ("other", 1000.0),
        ("raw", 1000.0),
        ("other", 500.0),
    ];

    #[test]
    fn the_share_is_that_of_the_medians_and_its_range_that_of_the_rounds() {
        let report = case_of(Workload::Stream, &FIGURES);
        let [raw, other] = report.summary.as_slice() else {
            panic!("two peers")
        };
        assert_eq!(
            raw.value,
            Spread {
                median: 1000.0,
                min: 1000.0,
                max: 2000.0
            }
        );
        assert_eq!(
            raw.share_of_raw,
            Some(Spread {
                median: 1.0,
                min: 1.0,
                max: 2.0
            })
        );
        assert_eq!(other.value.median, 800.0);
        assert_eq!(
            other.share_of_raw,
            Some(Spread {
                median: 0.8,
                min: 0.5,
                max: 0.8
            })
        );
        assert_eq!(other.cpu_seconds_per_million, Some(1250.0));
        assert_eq!(other.verified_messages, 2300);
        assert_eq!(other.latency_us, None);
    }

    #[test]
    fn ping_compares_latency_and_idle_compares_nothing() {
        let ping = case_of(Workload::Ping, &FIGURES);
        let share = ping.summary[1].share_of_raw.unwrap();
        assert!(
            (share.median - 1.25).abs() < 1e-9 && (share.max - 2.0).abs() < 1e-9,
            "{share:?}"
        );
        let idle = case_of(Workload::Idle, &FIGURES);
        assert_eq!(idle.summary[1].share_of_raw, None);
        assert_eq!(idle.summary[1].value.median, 800.0);
        assert_eq!(idle.summary[1].at_rest_kib, Some(3072.0));
    }

    #[test]
    fn json_has_every_round_and_the_machine() {
        let report = report_of(vec![case_of(Workload::Echo, &FIGURES)]);
        let json = serde_json::to_value(report).unwrap();
        assert_eq!(json["cases"][0]["workload"], "echo");
        assert_eq!(json["cases"][0]["rounds"].as_array().unwrap().len(), 6);
        assert_eq!(json["cases"][0]["rounds"][1]["received"]["messages"], 800);
        assert_eq!(
            json["cases"][0]["rounds"][1]["received"]["checksum"],
            "0x0000000000000007"
        );
        assert_eq!(
            json["cases"][0]["summary"][1]["share_of_raw"]["median"],
            0.8
        );
        assert_eq!(json["settings"]["placement"], "free");
        assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
    }
}
