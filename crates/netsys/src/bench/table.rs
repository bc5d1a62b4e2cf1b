//! The result as text: a table that needs neither colours nor a terminal.

use std::fmt::Write;

use super::plan::{Payload, Workload};
use super::report::{CaseReport, Report, Summary};

const HEAD: [&str; 11] = [
    "", "peer", "median", "min..max", "share", "p50 us", "p90 us", "p99 us", "p99.9 us", "CPU s/M",
    "B/msg",
];
const MEMORY_HEAD: [&str; 5] = ["", "peer", "KiB/conn", "min..max", "at rest MiB"];

/// The whole report.
pub fn render(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    let mut text = format!(
        "netsys {} on {}, {} cores, {}\n{} rounds of {} s, placement {}\n",
        report.tool.version,
        machine.cpu.as_deref().unwrap_or(machine.architecture),
        machine.cores,
        machine.kernel,
        settings.rounds,
        settings.seconds,
        clap::ValueEnum::to_possible_value(&settings.placement)
            .map_or_else(String::new, |value| value.get_name().to_owned()),
    );
    if settings.payload == Payload::Json {
        text.push_str("messages of JSON, each compressed by itself, where it is compressed\n");
    }
    if report.tool.build == "debug" {
        text.push_str("warning: built without optimisation, these figures mean nothing\n");
    }
    let (memory, speed): (Vec<_>, Vec<_>) = report
        .cases
        .iter()
        .partition(|case| case.case.workload == Workload::Idle);
    if !speed.is_empty() {
        push_table(&mut text, &HEAD, rows(&speed, speed_row));
        text.push_str(
            "share: of the median of raw, higher is better; for ping p50 / p50 of raw, lower is \
             better\nCPU s/M: seconds of client and server for a million messages\nB/msg: bytes that \
             leave for a message, those of TLS not counted\n",
        );
    }
    if !memory.is_empty() {
        push_table(&mut text, &MEMORY_HEAD, rows(&memory, memory_row));
        text.push_str("memory of the server process, without the kernel's\n");
    }
    let verified: u64 = report
        .cases
        .iter()
        .flat_map(|case| &case.summary)
        .map(|row| row.verified_messages)
        .sum();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\nverified: {verified} messages, each counted and summed on arrival"
    );
    text
}

/// A number to four digits with a unit prefix: 12.34 M.
pub fn short(value: f64) -> String {
    let (value, prefix) = match value.abs() {
        large if large >= 1e6 => (value / 1e6, " M"),
        large if large >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        large if large >= 1000.0 => 0,
        large if large >= 100.0 => 1,
        large if large >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}{prefix}")
}

fn rows(cases: &[&CaseReport], row: fn(&Summary) -> Vec<String>) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for case in cases {
        for (index, summary) in case.summary.iter().enumerate() {
            let title = if index == 0 {
                case.title.clone()
            } else {
                String::new()
            };
            let mut cells = vec![title, summary.peer.clone()];
            cells.extend(row(summary));
            rows.push(cells);
        }
    }
    rows
}

fn speed_row(summary: &Summary) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let share = summary.share_of_raw.map_or_else(
        || "-".to_owned(),
        |share| format!("{:.3} ({:.2}..{:.2})", share.median, share.min, share.max),
    );
    let latency = summary.latency_us;
    vec![
        format!("{} {}", short(summary.value.median), summary.unit),
        range(summary),
        share,
        number(latency.map(|l| l.p50)),
        number(latency.map(|l| l.p90)),
        number(latency.map(|l| l.p99)),
        number(latency.map(|l| l.p999)),
        number(summary.cpu_seconds_per_million),
        number(summary.wire_bytes_per_message),
    ]
}

fn memory_row(summary: &Summary) -> Vec<String> {
    let at_rest = summary
        .at_rest_kib
        .map_or_else(|| "-".to_owned(), |kib| short(kib / 1024.0));
    vec![short(summary.value.median), range(summary), at_rest]
}

fn range(summary: &Summary) -> String {
    format!("{}..{}", short(summary.value.min), short(summary.value.max))
}

/// The first two columns are text and stand left, the others are figures and stand right.
fn push_table(text: &mut String, head: &[&str], rows: Vec<Vec<String>>) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut widths = vec![0; head.len()];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    text.push('\n');
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                if column < 2 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{case_of, report_of};

    #[test]
    fn numbers_keep_four_digits() {
        for (value, text) in [
            (24_681_013.0, "24.68 M"),
            (1_023_444.0, "1.02 M"),
            (181_067.5, "181.1 k"),
            (7028.3, "7028"),
            (88.456, "88.46"),
            (0.0271, "0.027"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn each_peer_has_a_line_and_columns_line_up() {
        let figures = [("raw", 2e6), ("other", 1e6)];
        let text = render(&report_of(vec![
            case_of(Workload::Stream, &figures),
            case_of(Workload::Ping, &figures),
            case_of(Workload::Idle, &[("raw", 1.0), ("other", 4.0)]),
        ]));
        let line = |start: &str, skip: usize| {
            let at = text
                .lines()
                .position(|line| line.starts_with(start))
                .unwrap();
            text.lines().nth(at + skip).unwrap()
        };
        assert!(line("stream 64 B", 0).contains("2.00 M msg/s"), "{text}");
        assert!(
            line("stream 64 B", 1).contains("0.500 (0.50..0.50)"),
            "{text}"
        );
        assert!(
            line("ping 64 B", 1).contains("2.000 (2.00..2.00)"),
            "{text}"
        );
        assert!(
            line("idle 2 connections", 1)
                .trim_end()
                .ends_with("4.00  4.00..4.00         3.00")
        );
        let ends: Vec<usize> = (0..2).map(|skip| line("stream 64 B", skip).len()).collect();
        assert_eq!(ends[0], ends[1], "{text}");
        assert!(text.contains("verified: 6000005 messages"), "{text}");
    }
}
