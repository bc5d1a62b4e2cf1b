//! Runs the measurements: for each case and round every contender in turn, each with a server
//! process and a client process of its own.

use std::net::{IpAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use network_system::config::Compression;

use super::child::{Child, catch_interrupts, check_interrupt};
use super::error::{Error, Result};
use super::machine;
use super::plan::{BenchArgs, Case, Payload, Workload};
use super::progress::Progress;
use super::report::{CaseReport, Measurement, Memory, Report, Round};
use super::roles::{Implementation, Outcome, Usage};

/// How long a server may take to listen, or to answer a question.
const SERVER_TIME: Duration = Duration::from_secs(10);

/// How long a server with idle connections is left alone before its memory is read.
const SETTLE: Duration = Duration::from_millis(200);

/// One side of the comparison: whose client, and which server.
#[derive(Debug, Clone)]
struct Contender {
    label: String,
    implementation: Implementation,
    compress: Option<Compression>,
    noise: bool,
    /// A server that already runs; without it each measurement starts its own.
    url: Option<String>,
}

impl Contender {
    fn new(label: &str, implementation: Implementation) -> Self {
        Self {
            label: label.to_owned(),
            implementation,
            compress: None,
            noise: false,
            url: None,
        }
    }
}

/// Measures everything that the options ask for.
pub fn run(args: &BenchArgs) -> Result<Report> {
    let cases = args.cases()?;
    let limit = machine::raise_file_limit();
    for case in &cases {
        machine::check_file_limit(case.connections, limit)?;
    }
    let bench = Bench {
        args,
        cores: args.placement.cores()?,
    };
    let contenders = contenders(args)?;
    catch_interrupts()?;
    let progress = Progress::new(cases.len() * contenders.len() * args.rounds as usize);
    let mut reports = Vec::with_capacity(cases.len());
    for case in cases {
        let mut rounds = Vec::new();
        for round in 1..=args.rounds {
            for contender in &contenders {
                let label = &contender.label;
                let what = format!("{case}: round {round}/{} {label}", args.rounds);
                progress.start(&what);
                let measurement = bench
                    .measure(case, contender)
                    .map_err(|error| match error {
                        Error::Failed(text) => Error::Failed(format!("{what}: {text}")),
                        other => other,
                    })?;
                progress.done(&what, &measurement.headline(case.workload));
                rounds.push(Round {
                    round,
                    peer: label.clone(),
                    measurement,
                });
            }
        }
        let labels = contenders.iter().map(|contender| contender.label.as_str());
        reports.push(CaseReport::new(case, rounds, labels));
    }
    Ok(Report::new(args, reports))
}

/// Who is compared. The raw ceiling comes first; with a URL it is measured on this machine, and
/// left out when the server is on another one, to which it says nothing.
fn contenders(args: &BenchArgs) -> Result<Vec<Contender>> {
    let mut all = vec![Implementation::Raw, Implementation::Ours];
    if args.tls {
        all.push(Implementation::OursTls);
    }
    let peers = if args.peer.is_empty() {
        &all
    } else {
        &args.peer
    };
    let Some(url) = &args.url else {
        let own = peers.iter().map(|peer| Contender::new(peer.name(), *peer));
        return Ok(own.chain(piped(args)).collect());
    };
    let ceiling = Contender::new(Implementation::Raw.name(), Implementation::Raw);
    let target = peers.last().map(|peer| Contender {
        url: Some(url.clone()),
        ..Contender::new("target", *peer)
    });
    let is_near = is_loopback(url)?;
    Ok(is_near
        .then_some(ceiling)
        .into_iter()
        .chain(target)
        .collect())
}

/// Ours with a pipeline, one for each thing that it can do.
fn piped(args: &BenchArgs) -> Vec<Contender> {
    let mut all: Vec<Contender> = Vec::new();
    for compress in &args.compress {
        let label = format!("ours-{compress}");
        if all.iter().all(|seen| seen.label != label) {
            all.push(Contender {
                compress: Some(*compress),
                ..Contender::new(&label, Implementation::Ours)
            });
        }
    }
    all.extend(args.noise.then(|| Contender {
        noise: true,
        ..Contender::new("ours-noise", Implementation::Ours)
    }));
    all
}

fn is_loopback(url: &str) -> Result<bool> {
    let usage = || {
        Error::Usage(format!(
            "{url} is not an address such as tcp://127.0.0.1:8080"
        ))
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(usage)?;
    if scheme == "unix" {
        return Ok(true);
    }
    let address = rest.split(['/', '?']).next().unwrap_or_default();
    let mut found = address.to_socket_addrs().map_err(|_| usage())?;
    Ok(found.all(|address| match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }))
}

struct Bench<'a> {
    args: &'a BenchArgs,
    cores: (Option<usize>, Option<usize>),
}

impl Bench<'_> {
    fn measure(&self, case: Case, contender: &Contender) -> Result<Measurement> {
        check_interrupt()?;
        let Some(url) = &contender.url else {
            let (mut server, url) = self.start_server(case, contender)?;
            return self.measure_own(case, contender, &mut server, &url);
        };
        let mut client = self.start_client(case, contender, url)?;
        let outcome = client.json(self.client_time(case))?;
        Ok(Measurement::new(outcome, None, None))
    }

    fn measure_own(
        &self,
        case: Case,
        contender: &Contender,
        server: &mut Child,
        url: &str,
    ) -> Result<Measurement> {
        let before = usage(server)?;
        let at_rest = machine::resident_bytes(server.id());
        let mut client = self.start_client(case, contender, url)?;
        let outcome: Outcome = client.json(self.client_time(case))?;
        let memory = if case.workload == Workload::Idle {
            thread::sleep(SETTLE);
            let loaded = machine::resident_bytes(server.id());
            let (at_rest, loaded) = at_rest.zip(loaded).ok_or_else(|| {
                Error::Usage("`idle` needs Linux: the memory of a process is read there".into())
            })?;
            Some(Memory::new(at_rest, loaded, case.connections))
        } else {
            None
        };
        let after = usage(server)?;
        let cpu = after
            .cpu_seconds
            .zip(before.cpu_seconds)
            .map(|(after, before)| after - before);
        Ok(Measurement::new(outcome, cpu, memory))
    }

    fn start_server(&self, case: Case, contender: &Contender) -> Result<(Child, String)> {
        let mut arguments = self.arguments("bench-server", case, contender, self.cores.0);
        arguments.extend(["--size".into(), case.size.to_string()]);
        arguments.extend(contender.noise.then(|| "--noise".into()));
        let mut server = Child::start(format!("{} server", contender.label), &arguments)?;
        let line = server.line(SERVER_TIME)?;
        let url = line
            .strip_prefix("READY ")
            .ok_or_else(|| Error::Failed(format!("server: unexpected answer {line}")))?
            .to_owned();
        Ok((server, url))
    }

    fn start_client(&self, case: Case, contender: &Contender, url: &str) -> Result<Child> {
        let mut arguments = self.arguments("bench-client", case, contender, self.cores.1);
        let (url, secret) = match url.split_once(' ') {
            Some((url, secret)) => (url, Some(secret)),
            None => (url, None),
        };
        if let Some(secret) = secret {
            let option = if contender.noise { "--psk" } else { "--ca" };
            arguments.extend([option.into(), secret.to_owned()]);
        }
        if self.args.payload() == Payload::Json {
            arguments.extend(["--payload".into(), "json".into()]);
        }
        let deadline = self.client_time(case).as_secs_f64() - 1.0;
        for (option, value) in [
            ("--url", url.to_owned()),
            ("--size", case.size.to_string()),
            ("--connections", case.connections.to_string()),
            ("--window", case.window.to_string()),
            ("--seconds", self.args.seconds.to_string()),
            ("--deadline", deadline.to_string()),
        ] {
            arguments.extend([option.into(), value]);
        }
        Child::start(format!("{} client", contender.label), &arguments)
    }

    fn arguments(
        &self,
        role: &str,
        case: Case,
        contender: &Contender,
        core: Option<usize>,
    ) -> Vec<String> {
        let implementation = contender.implementation.name();
        let mut arguments: Vec<String> = [
            role,
            "--impl",
            implementation,
            "--workload",
            case.workload.name(),
        ]
        .map(str::to_owned)
        .into();
        if let Some(core) = core {
            arguments.extend(["--core".into(), core.to_string()]);
        }
        if let Some(compress) = contender.compress {
            arguments.extend(["--compress".into(), compress.to_string()]);
        }
        if let Some(time) = self.args.busy_poll {
            let time = humantime::format_duration(time).to_string();
            arguments.extend(["--busy-poll".into(), time]);
        }
        arguments
    }

    /// The round itself, as much again on a busy machine, and time to connect.
    fn client_time(&self, case: Case) -> Duration {
        let connecting = Duration::from_millis(case.connections as u64 * 5);
        Duration::from_secs_f64(self.args.seconds * 3.0 + 30.0) + connecting
    }
}

fn usage(server: &mut Child) -> Result<Usage> {
    server.ask()?;
    server.json(SERVER_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_near() {
        for url in [
            "tcp://127.0.0.1:1",
            "tcp://[::1]:80",
            "ws://127.9.9.9:1/path",
            "unix:///x",
        ] {
            assert!(is_loopback(url).unwrap(), "{url}");
        }
        assert!(!is_loopback("tcp://192.0.2.1:80").unwrap());
        for bad in ["127.0.0.1:80", "tcp://127.0.0.1"] {
            assert!(matches!(is_loopback(bad), Err(Error::Usage(_))), "{bad}");
        }
    }
}
